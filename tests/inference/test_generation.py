"""Sequences drawn from the posterior predictive, against loops by hand."""

import pyro.distributions as dist
import pytest
import torch

from pyroformer import priors
from pyroformer.guides import Delta, DirichletRows, Guide, MeanField
from pyroformer.inference import (
    DataError,
    DrawsPosterior,
    GuidePosterior,
    MixturePosterior,
    TemperatureScaling,
    generate,
    metrics,
)
from pyroformer.inference.calibration import Calibrated
from pyroformer.inference.generation import chosen
from pyroformer.models import BayesianModel, Categorical, EncoderDecoder, Output, Pair, Tokens, Transformer
from pyroformer.priors import Learned, Normal, SettingError

INPUTS = Tokens(6, 5, padding=5, causal=True)
PROMPT = torch.tensor([3, 0, 4])


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = Transformer(INPUTS, Output(5, per_token=True), width=8, heads=2, depth=1).double()
    with torch.no_grad():
        net.head.weight.mul_(4)
    return net


@pytest.fixture
def fixed(net):
    """A posterior without randomness: its draws are the net itself."""
    model = BayesianModel(net, Normal(), Categorical(per_token=True)).double()
    return GuidePosterior(model, Guide(model, Delta(), (PROMPT[None],)), (PROMPT[None],))


@pytest.fixture
def draws(net):
    """Seven draws of the weights."""
    model = BayesianModel(net, Normal(), Categorical(per_token=True)).double()
    weights = {n: p.detach() + 0.3 * torch.randn(7, *p.shape).double() for n, p in net.named_parameters()}
    return DrawsPosterior(model, weights)


@pytest.fixture
def rows(net):
    """Random rows, and weights as they are."""
    model = BayesianModel(
        net,
        {"*.rows": priors.DirichletRows(center=priors.SoftmaxCenter()), "*": Learned()},
        Categorical(per_token=True),
    ).double()
    return GuidePosterior(model, Guide(model, DirichletRows(sharpness=3.0), (PROMPT[None],)), (PROMPT[None],))


def test_without_randomness_it_is_the_loop_by_hand(net, fixed):
    found = generate(fixed, PROMPT, 9, temperature=0)
    tokens = PROMPT.tolist()
    probabilities = []
    for _ in range(9):  # longer than the context: the window moves
        logits = net(torch.tensor([tokens[-5:]]))[0, -1]
        probabilities.append(logits.softmax(-1))
        tokens.append(int(logits.argmax()))
    assert found.tokens.tolist() == tokens[3:] and torch.equal(found.prompt, PROMPT)
    torch.testing.assert_close(found.prediction.probabilities, torch.stack(probabilities))
    torch.testing.assert_close(found.probability, torch.stack(probabilities).amax(-1))
    assert found.prediction.num_samples == 1 and not found.prediction.mutual_information.any()
    first = torch.stack([net(torch.tensor([tokens[i : 3 + i][:5]]))[0, -1].softmax(-1) for i in range(9)])
    assert not torch.allclose(found.prediction.probabilities, first)  # planted: another window


def test_probabilities_are_averaged_over_the_same_draws_at_every_step(net, draws):
    found = generate(draws, PROMPT, 6, num_samples=7, seed=1)
    tokens = torch.cat([PROMPT, found.tokens])
    for step in range(6):
        x = tokens[max(0, step - 2) : 3 + step][None]
        each = torch.stack(
            [torch.func.functional_call(net, {n: w[s] for n, w in draws.draws.items()}, x)[0, -1] for s in range(7)]
        ).softmax(-1)
        torch.testing.assert_close(found.prediction.probabilities[step], each.mean(0))
        torch.testing.assert_close(found.prediction.expected_entropy[step], metrics.entropy(each).mean())
    logits = each.log().mean(0).softmax(-1)
    assert not torch.allclose(found.prediction.probabilities[-1], logits, rtol=1e-3)  # planted: averaged logits


@pytest.mark.parametrize("kind", ["draws", "rows"])
def test_the_entropy_is_the_sum_of_its_parts(kind, request):
    prediction = generate(request.getfixturevalue(kind), PROMPT, 8, num_samples=7).prediction
    assert prediction.num_samples == 7
    torch.testing.assert_close(prediction.entropy, prediction.expected_entropy + prediction.mutual_information)
    assert (prediction.mutual_information > 1e-4).all()
    assert (prediction.entropy - prediction.expected_entropy > 0).all()  # and so nothing was clamped


def test_random_rows_are_drawn_by_the_guide(net, rows):
    """With many draws the mean is that of direct draws of the model under its guide; softmax attention is another."""
    found = generate(rows, PROMPT, 1, num_samples=4000).prediction.probabilities[0]
    direct = rows.outputs(PROMPT[None], 4000, seed=5)[:, 0, -1].softmax(-1)
    error = direct.std(0) / 4000**0.5
    assert ((found - direct.mean(0)).abs() < 5 * 2**0.5 * error).all()
    assert ((found - net(PROMPT[None])[0, -1].softmax(-1)).abs() > 5 * 2**0.5 * error).any()  # planted


PAIR = Pair(Tokens(5, 4, padding=4), Tokens(6, 3, padding=4, causal=True), start=5)
SOURCE = torch.tensor([3, 0, 1])


@pytest.fixture
def writer():
    torch.manual_seed(0)
    net = EncoderDecoder(PAIR, Output(4, per_token=True), width=8, heads=2, depth=1).double()
    with torch.no_grad():
        net.head.weight.mul_(4)
    return net


def of_pair(net, prior, family):
    model = BayesianModel(net, prior, Categorical(per_token=True)).double()
    x = (SOURCE[None], torch.tensor([[5, 0, 1]]))
    return GuidePosterior(model, Guide(model, family, (x,)), (x,))


def test_a_target_is_written_behind_its_start_by_the_loop_by_hand(writer):
    found = generate(of_pair(writer, Normal(), Delta()), SOURCE, 3, temperature=0)
    written, probabilities = [5], []
    for _ in range(3):
        probabilities.append(writer(SOURCE[None], torch.tensor([written]))[0, -1].softmax(-1))
        written.append(int(probabilities[-1].argmax()))
    assert found.tokens.tolist() == written[1:] and torch.equal(found.prompt, SOURCE)
    torch.testing.assert_close(found.prediction.probabilities, torch.stack(probabilities))
    for source, start in ((SOURCE, 0), (SOURCE.flip(0), 5)):  # planted: another start, another source
        other = writer(source[None], torch.tensor([[start]]))[0, -1].softmax(-1)
        assert not torch.allclose(other, probabilities[0], rtol=1e-2)


def test_targets_are_averaged_over_the_same_draws_and_drawn_with_a_seed(writer):
    model = BayesianModel(writer, Normal(), Categorical(per_token=True)).double()
    weights = {n: p.detach() + 0.3 * torch.randn(7, *p.shape).double() for n, p in writer.named_parameters()}
    posterior = DrawsPosterior(model, weights)
    found, again, other = (generate(posterior, SOURCE, 3, num_samples=7, seed=s) for s in (1, 1, 6))
    assert torch.equal(found.tokens, again.tokens) and not torch.equal(found.tokens, other.tokens)
    for step in range(3):
        x = (SOURCE[None], torch.tensor([[5, *found.tokens[:step].tolist()]]))
        each = torch.stack(
            [torch.func.functional_call(writer, {n: w[s] for n, w in weights.items()}, x)[0, -1] for s in range(7)]
        ).softmax(-1)
        torch.testing.assert_close(found.prediction.probabilities[step], each.mean(0))
        torch.testing.assert_close(found.prediction.expected_entropy[step], metrics.entropy(each).mean())


def test_random_rows_of_source_and_target_are_drawn_by_the_guide(writer):
    prior = {"*.rows": priors.DirichletRows(center=priors.SoftmaxCenter()), "*": Learned()}
    posterior = of_pair(writer, prior, DirichletRows(sharpness=3.0))
    found = generate(posterior, SOURCE, 1, num_samples=3000).prediction
    direct = posterior.outputs((SOURCE[None], torch.tensor([[5]])), 3000, seed=5)[:, 0, -1].softmax(-1)
    error = direct.std(0) / 3000**0.5
    assert ((found.probabilities[0] - direct.mean(0)).abs() < 5 * 2**0.5 * error).all()
    computed = writer(SOURCE[None], torch.tensor([[5]]))[0, -1].softmax(-1)
    assert ((found.probabilities[0] - computed).abs() > 5 * 2**0.5 * error).any()  # planted: softmax attention
    torch.testing.assert_close(found.entropy, found.expected_entropy + found.mutual_information)
    assert (found.mutual_information > 1e-4).all()


@pytest.mark.parametrize(
    ("source", "num_tokens", "error", "said"),
    [
        (torch.tensor([0, 1, 2, 3, 0]), 2, DataError, "prompt holds 5 tokens: expected at most 4, the longest source"),
        (torch.tensor([0, 4]), 2, DataError, "prompt holds 4: expected whole numbers from 0 to 4 but the padding 4"),
        (SOURCE, 4, SettingError, "num_tokens = 4: expected at most 3, the longest target"),
    ],
)
def test_sources_and_targets_that_are_refused(writer, source, num_tokens, error, said):
    with pytest.raises(error, match=said):
        generate(of_pair(writer, Normal(), Delta()), source, num_tokens)


def test_a_pair_that_does_not_tell_its_start_is_refused():
    net = EncoderDecoder(Pair(PAIR.source, PAIR.target), Output(4, per_token=True), width=8, heads=2, depth=1)
    with pytest.raises(SettingError, match="inputs that tell the token that targets start with"):
        generate(of_pair(net, Normal(), Delta()), SOURCE, 2)
    with pytest.raises(ValueError, match="start = 6: expected a token of the target, 0 to 5"):
        Pair(PAIR.source, PAIR.target, start=6)


def test_tokens_are_drawn_with_their_probabilities_at_a_temperature():
    p, generator = torch.tensor([0.05, 0.4, 0.15, 0.3, 0.1]).double(), torch.Generator().manual_seed(0)
    for temperature in (1.0, 0.5):
        wanted = p ** (1 / temperature) / (p ** (1 / temperature)).sum()
        drawn = torch.cat([chosen(p, temperature, (), generator) for _ in range(1500)])
        share = torch.bincount(drawn, minlength=5) / 1500
        assert ((share - wanted).abs() < 5 * (wanted * (1 - wanted) / 1500).sqrt() + 1e-9).all()
    assert ((share - p).abs() > 5 * (p * (1 - p) / 1500).sqrt()).any()  # planted: at temperature 1


def test_the_same_seed_gives_the_same_and_the_global_state_is_left_alone(rows):
    torch.manual_seed(4)
    before = torch.get_rng_state()
    one, again, other = (generate(rows, PROMPT, 20, num_samples=5, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.tokens, again.tokens)
    assert torch.equal(one.prediction.probabilities, again.prediction.probabilities)
    assert not torch.equal(one.tokens, other.tokens)


def test_excluded_tokens_are_never_drawn_and_keep_their_probability(draws):
    free = generate(draws, PROMPT, 40, num_samples=7)
    common = int(torch.bincount(free.tokens).argmax())
    for temperature in (0.0, 1.0):
        found = generate(draws, PROMPT, 40, num_samples=7, temperature=temperature, excluded=[common])
        assert common not in found.tokens.tolist()
        torch.testing.assert_close(found.prediction.probabilities.sum(-1), torch.ones(40).double())
        assert found.prediction.probabilities[0, common] == free.prediction.probabilities[0, common]


def test_members_of_a_mixture_run_their_own_nets(fixed, net):
    other = Transformer(INPUTS, Output(5, per_token=True), width=8, heads=2, depth=1).double()
    model = BayesianModel(other, Normal(), Categorical(per_token=True)).double()
    second = GuidePosterior(model, Guide(model, Delta(), (PROMPT[None],)), (PROMPT[None],))
    found = generate(MixturePosterior([fixed, second]), PROMPT, 1, num_samples=2).prediction
    both = torch.stack([each(PROMPT[None])[0, -1].softmax(-1) for each in (net, other)])
    torch.testing.assert_close(found.probabilities[0], both.mean(0))
    assert found.num_samples == 2


def test_members_weigh_the_same_however_many_draws_they_have(fixed, draws):
    mixture = MixturePosterior([fixed, draws])
    found = generate(mixture, PROMPT, 1, num_samples=8).prediction
    expected = mixture.predict(PROMPT[None], 8)
    torch.testing.assert_close(found.probabilities[0], expected.probabilities[0, -1])
    assert found.num_samples == expected.num_samples == 8
    lone = (fixed.predict(PROMPT[None]).probabilities + 4 * draws.predict(PROMPT[None], 4).probabilities) / 5
    assert not torch.allclose(lone[0, -1], found.probabilities[0], rtol=1e-2)  # planted: a vote for every draw


def test_a_calibration_is_applied(fixed, net):
    fixed.calibrated = Calibrated(TemperatureScaling(), {"temperature": 2.0})
    found = generate(fixed, PROMPT, 1).prediction.probabilities[0]
    torch.testing.assert_close(found, (net(PROMPT[None])[0, -1] / 2).softmax(-1))


def test_float32_and_a_mean_field_guide():
    net = Transformer(INPUTS, Output(5, per_token=True), width=8, heads=2, depth=1)
    model = BayesianModel(net, lambda name, p: dist.Normal(0.0, 1.0).expand(p.shape), Categorical(per_token=True))
    posterior = GuidePosterior(model, Guide(model, MeanField(), (PROMPT[None],)), (PROMPT[None],))
    found = generate(posterior, PROMPT, 7, num_samples=3)
    assert found.tokens.shape == (7,) and found.prediction.entropy.isfinite().all()


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"num_tokens": 0}, SettingError, "num_tokens = 0: expected a whole number of at least 1"),
        ({"temperature": -1.0}, SettingError, "temperature = -1.0: expected a number of at least 0"),
        ({"temperature": float("nan")}, SettingError, "temperature = nan"),
        ({"prompt": PROMPT[:0]}, DataError, "expected whole numbers, at least one"),
        ({"prompt": PROMPT.double()}, DataError, "expected whole numbers, at least one"),
        ({"prompt": torch.tensor([3, -1])}, DataError, "prompt holds -1: expected whole numbers from 0 to 4$"),
        ({"prompt": torch.tensor([3, 5])}, DataError, "prompt holds 5: expected whole numbers from 0 to 4$"),
        ({"excluded": [0, -1]}, SettingError, "excluded = -1: expected whole numbers from 0 to 4"),
        ({"excluded": range(5)}, SettingError, "excluded = .*: expected fewer than all 5 tokens"),
    ],
)
def test_what_is_refused(fixed, given, error, said):
    arguments = {"prompt": PROMPT, "num_tokens": 2} | given
    with pytest.raises(error, match=said):
        generate(fixed, arguments.pop("prompt"), arguments.pop("num_tokens"), **arguments)


@pytest.mark.parametrize(
    ("outputs", "settings", "said"),
    [
        (Output(5), {"causal": True}, "a model of classes per token"),
        (Output(5, per_token=True), {}, "a causal net, whose outputs predict the tokens that follow"),
    ],
)
def test_nets_that_do_not_predict_the_next_token(outputs, settings, said):
    net = Transformer(Tokens(6, 5), outputs, width=8, heads=2, depth=1, **settings)
    model = BayesianModel(net, Normal(), Categorical(per_token=outputs.per_token))
    posterior = GuidePosterior(model, Guide(model, Delta(), (PROMPT[None],)), (PROMPT[None],))
    with pytest.raises(SettingError, match=said):
        generate(posterior, PROMPT, 2)


def test_padding_is_no_prompt():
    net = Transformer(Tokens(5, 5, padding=0, causal=True), Output(5, per_token=True), width=8, heads=2, depth=1)
    model = BayesianModel(net, Normal(), Categorical(per_token=True))
    posterior = GuidePosterior(model, Guide(model, Delta(), (PROMPT[None],)), (PROMPT[None],))
    with pytest.raises(DataError, match="prompt holds 0: expected whole numbers from 0 to 4 but the padding 0"):
        generate(posterior, PROMPT, 2)
    assert generate(posterior, torch.tensor([3, 1]), 2).tokens.shape == (2,)


class Table(torch.nn.Module):
    """The next token by the last one alone: a causal net that is no backbone."""

    looks_ahead = False

    def __init__(self, **told):
        super().__init__()
        self.table = torch.nn.Embedding(5, 5)
        for name, value in told.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.table(x)


def test_a_net_of_the_user_says_what_it_takes():
    def posterior_of(net):
        model = BayesianModel(net, Normal(), Categorical(per_token=True))
        return GuidePosterior(model, Guide(model, Delta(), (PROMPT[None],)), (PROMPT[None],))

    assert generate(posterior_of(Table(context=4)), PROMPT, 6).tokens.shape == (6,)
    for told in ({}, {"context": None}):
        with pytest.raises(SettingError, match="a net whose context says how many tokens it takes at most"):
            generate(posterior_of(Table(**told)), PROMPT, 2)
    with pytest.raises(SettingError, match="fewer than all 5 tokens"):
        generate(posterior_of(Table(context=4)), PROMPT, 2, excluded=range(5))


def test_tokens_and_draws_have_streams_of_their_own(rows, monkeypatch):
    seeds = []

    def watched(probabilities, temperature, excluded, generator):
        seeds.append(generator.initial_seed())
        return chosen(probabilities, temperature, excluded, generator)

    monkeypatch.setattr("pyroformer.inference.generation.chosen", watched)
    for seed in (0, 0, 1, 2):
        generate(rows, PROMPT, 1, num_samples=2, seed=seed)
    assert seeds[0] == seeds[1] and len(set(seeds)) == 3 and not set(seeds) & {0, 1, 2}


def test_improbable_tokens_are_drawn_where_all_others_are_excluded():
    p, generator = torch.tensor([1.0, 0.0, 0.0]).double(), torch.Generator().manual_seed(0)
    assert {int(chosen(p, 1.0, [0], generator)) for _ in range(40)} == {1, 2}
    assert int(chosen(torch.tensor([0.2, 0.5, 0.3]).double(), 1e-300, (), generator)) == 1
