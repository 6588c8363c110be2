"""Parts of the uncertainty: sums by hand over a table of functions, and the bias of few draws by an exact binomial."""

import math

import pytest
import torch

from pyroformer import priors
from pyroformer.guides import Delta, DirichletRows, Guide, MeanField
from pyroformer.inference import (
    Calibrated,
    DataError,
    DrawsPosterior,
    GuidePosterior,
    MixturePosterior,
    TemperatureScaling,
    decompose,
    decomposition,
)
from pyroformer.models import BayesianModel, Features, Gaussian, Output, Transformer
from pyroformer.priors import Learned, Normal, SettingError

FLAT = priors.DirichletRows(center=priors.FlatCenter(), concentration=1.0, floor=0.0)

S, R, N = 3, 5, 7


def tabled(outputs, likelihood=None):
    """A posterior whose function of weight draw s, row draw r and input n is ``outputs[s, r, n]``."""
    model = BayesianModel(torch.nn.Linear(1, outputs.shape[-1]), Normal(), likelihood).double()
    model.rows = ("rows",)
    sites = {name: value.shape for name, value in model.initial_values().items()}
    draws = {name: torch.zeros(len(outputs), *shape).double() for name, shape in sites.items()}
    draws["weight"] += torch.arange(len(outputs)).view(-1, 1, 1)
    posterior = DrawsPosterior(model, draws)

    def run(weights, x, size):
        s, r = weights["weight"][:, 0, 0].long(), torch.arange(size) % outputs.shape[1]
        return outputs[s, r][:, x[:, 0].long()], {}

    posterior.run = run
    return posterior


def inputs(count=N):
    return torch.arange(count).double().unsqueeze(-1)


def entropy(p):
    return -(p * p.log()).sum(-1)


@pytest.fixture
def logits():
    return 2 * torch.randn(S, R, N, 3, generator=torch.Generator().manual_seed(0)).double()


def entropies_by_hand(logits):
    p = logits.softmax(-1)
    data, inner, total = entropy(p).mean((0, 1)), entropy(p.mean(1)).mean(0), entropy(p.mean((0, 1)))
    return data, inner - data, total - inner


def test_entropies_are_those_summed_by_hand(logits):
    found = decompose(tabled(logits), inputs(), weights=9, rows=R)
    data, rows, weights = entropies_by_hand(logits)
    assert (found.measure, found.num_weights, found.num_rows) == ("entropy", S, R)
    assert torch.allclose(found.data, data) and torch.allclose(found.rows, rows)
    assert torch.allclose(found.weights, weights)
    assert torch.allclose(found.total, entropy(logits.softmax(-1).mean((0, 1))))
    _, swapped, _ = entropies_by_hand(logits.transpose(0, 1))
    assert not torch.allclose(found.rows, swapped, atol=1e-2)  # planted: nested the other way round
    halves = entropy(logits.softmax(-1)[:, :4].unflatten(1, (2, 2)).mean(2)).mean(1)
    short = entropy(logits.softmax(-1)[:, :4].mean(1)) - halves
    assert torch.allclose(found.rows_shortfall, short.mean(0))
    p = logits.softmax(-1).mean(1)
    apart = (2 * entropy((p[0] + p[2]) / 2) + entropy(p[1])) / 3  # halves of three draws, by their sizes
    assert torch.allclose(found.weights_shortfall, entropy(p.mean(0)) - apart)


def test_chunks_change_nothing(logits, monkeypatch):
    whole = decompose(tabled(logits), inputs(), rows=R)
    few = decompose(tabled(logits), inputs(), rows=R, batch_size=2)
    monkeypatch.setattr("pyroformer.inference.posterior.MAX_NUMBERS", 2 * R * 6)  # two draws of the weights at once
    for found in (few, decompose(tabled(logits), inputs(), rows=R)):
        assert all(torch.allclose(found.parts[name], part) for name, part in whole.parts.items())


def in_pieces(outputs, likelihood=None):
    """The same posterior, run with some of the rows at a time, one piece after the other."""
    posterior, at = tabled(outputs, likelihood), 0

    def run(weights, x, size):
        nonlocal at
        s, r = weights["weight"][:, 0, 0].long(), (at + torch.arange(size)) % outputs.shape[1]
        at += size
        return outputs[s, r][:, x[:, 0].long()], {}

    posterior.run = run
    return posterior


@pytest.mark.parametrize("likelihood", [None, Gaussian(scale=0.3)])
def test_pieces_of_the_rows_change_nothing_and_are_not_kept(logits, likelihood, monkeypatch):
    outputs = logits if likelihood is None else 1e4 + logits
    whole = decompose(tabled(outputs, likelihood), inputs(), rows=R)
    sizes, kind = [], decomposition._Entropies if likelihood is None else decomposition._Variances
    see = kind.see

    def watched(self, kept, piece, rows, found):
        see(self, kept, piece, rows, found)
        sizes.append((piece.stop - piece.start, max(value.numel() for value in kept.values())))

    monkeypatch.setattr(kind, "see", watched)
    monkeypatch.setattr("pyroformer.inference.posterior.MAX_NUMBERS", 2 * 6)  # two draws at once
    found = decompose(in_pieces(outputs, likelihood), inputs(), rows=R)
    assert [count for count, _ in sizes] == [2, 2, 1] * S
    assert max(size for _, size in sizes) == N * outputs.shape[-1]  # and not R times that
    for name in ("data", "rows", "weights", "rows_shortfall", "weights_shortfall"):
        assert torch.allclose(getattr(found, name), getattr(whole, name))


def test_variances_follow_the_law_of_total_variance():
    loc = 1e4 + torch.randn(S, R, N, 2, generator=torch.Generator().manual_seed(1)).double()
    found = decompose(tabled(loc, Gaussian(scale=0.3)), inputs(), rows=R)
    assert found.measure == "variance"
    assert torch.allclose(found.data, torch.full((N, 2), 0.09).double(), rtol=1e-6)
    assert torch.allclose(found.rows, loc.var(1, correction=0).mean(0))
    assert torch.allclose(found.weights, loc.mean(1).var(0, correction=0))
    assert torch.allclose(found.total - found.data, loc.flatten(0, 1).var(0, correction=0))
    assert torch.allclose(found.rows_shortfall, found.rows / (R - 1))
    assert torch.allclose(found.weights_shortfall, found.weights / (S - 1))
    assert not torch.allclose(found.weights, loc.mean(0).var(0, correction=0), atol=1e-2)  # planted: averaged first


def test_few_rows_make_their_part_too_small_by_what_the_halves_tell():
    """Rows that make a class 0.9 or 0.1 probable: the average of R of them is binomial."""
    rows, count, sure = 8, 3000, math.log(9.0)

    def gap(heads, of):
        p = (0.1 * of + 0.8 * heads) / of
        return math.log(2) + p * math.log(p) + (1 - p) * math.log(1 - p)

    exact = sum(math.comb(rows, k) / 2**rows * gap(k, rows) for k in range(rows + 1))
    generator = torch.Generator().manual_seed(0)
    sides = torch.randint(2, (1, rows, count), generator=generator).double() * 2 - 1
    logits = torch.stack([sides * sure, torch.zeros_like(sides)], -1)
    found = decompose(tabled(logits), inputs(count), rows=rows, batch_size=64)  # all rows in one chunk
    limit = math.log(2) - entropy(torch.tensor([0.1, 0.9]).double())
    lacking = limit - found.rows
    error = float(lacking.std() / count**0.5)
    assert abs(float(lacking.mean()) - exact) < 5 * error
    assert float(lacking.mean()) > 5 * error  # planted: no bias
    leading = 0.4**2 / (2 * rows) * (2 / 0.5)
    assert exact == pytest.approx(leading, rel=0.15)
    told = float(found.rows_shortfall.mean())
    assert abs(told - exact) < 0.25 * exact
    assert (found.weights == 0).all() and (found.weights_shortfall == 0).all()
    swapped = decompose(tabled(logits.transpose(0, 1)), inputs(count), weights=rows, rows=2)  # as many weights instead
    assert torch.allclose(swapped.weights, found.rows) and (swapped.rows < 1e-12).all()
    assert abs(float(swapped.weights_shortfall.mean()) - exact) < 0.25 * exact
    assert (swapped.rows_shortfall < 1e-12).all()


def test_the_part_of_the_weights_is_off_by_both_shortfalls():
    """Probabilities 1/2 ± 0.05 by the weights and ± 0.35 by the rows: what the weights add is known."""
    draws, count = 4, 4000
    generator = torch.Generator().manual_seed(0)
    w = torch.randint(2, (draws, 1, count), generator=generator).double() * 2 - 1
    a = torch.randint(2, (draws, draws, count), generator=generator).double() * 2 - 1
    p = 0.5 + 0.05 * w + 0.35 * a
    found = decompose(tabled(torch.stack([p, 1 - p], -1).log()), inputs(count), rows=draws, batch_size=64)
    exact = math.log(2) - float(entropy(torch.tensor([0.45, 0.55]).double()))
    gap, error = float(found.weights.mean()) - exact, float(found.weights.std()) / count**0.5
    assert gap > 5 * error  # too large
    told = float((found.rows_shortfall - found.weights_shortfall).mean())
    assert abs(told - gap) < 0.15 * gap
    assert float(found.rows_shortfall.mean()) - gap > 0.15 * gap  # planted: the weights' own shortfall left out
    first_order = 4 * (0.35**2 * (1 - 1 / draws) - 0.05**2) / (2 * draws)
    assert gap == pytest.approx(first_order, rel=0.25)


def test_parts_are_at_most_the_logarithm_of_their_draws():
    """Every draw is sure of another class: there is more to see than so few draws can show."""
    logits = 60 * torch.eye(32).double().view(4, 8, 1, 32)
    found = decompose(tabled(logits), inputs(1), weights=4, rows=8)
    assert float(found.rows) == pytest.approx(math.log(8)) and float(found.weights) == pytest.approx(math.log(4))


def built(weights, family, prior=None, seed=0):
    torch.manual_seed(seed)
    net = Transformer(Features(3), Output(4), width=8, heads=2, depth=1)
    model = BayesianModel(net, {**({"*.rows": FLAT} if prior is None else {}), "*": weights}).double()
    x = torch.randn(6, 3).double()
    families = ({"*.rows": DirichletRows(sharpness=2.0)} if prior is None else {}) | ({"*": family} if family else {})
    return GuidePosterior(model, Guide(model, families, (x[:2],)), (x[:2],)), x


def test_parts_that_are_not_there_are_exactly_zero():
    only_rows, x = built(Learned(), None)
    found = decompose(only_rows, x, weights=4, rows=8)
    assert (found.num_weights, found.num_rows) == (1, 8)
    assert (found.weights == 0).all() and (found.rows > 0).all() and (found.rows_shortfall > 0).all()
    points, x = built(Normal(), Delta())
    assert (decompose(points, x, rows=4).weights == 0).all()
    only_weights, x = built(Normal(), MeanField(init_scale=0.3), prior="softmax")
    found = decompose(only_weights, x, weights=8, rows=16)
    assert (found.num_weights, found.num_rows) == (8, 1)
    assert (found.rows == 0).all() and (found.rows_shortfall == 0).all() and (found.weights > 0).all()
    prediction = only_weights.predict(x, 8)
    assert torch.allclose(found.data, prediction.expected_entropy)
    assert torch.allclose(found.weights, prediction.mutual_information)
    both, x = built(Normal(), MeanField(init_scale=0.3))
    found = decompose(both, x, weights=8, rows=8)
    assert (found.rows > 0).all() and (found.weights > 0).all()


def test_the_same_seed_gives_the_same_parts_and_leaves_the_stream_alone():
    posterior, x = built(Normal(), MeanField(init_scale=0.3))
    state = torch.get_rng_state()
    first, again, other = (decompose(posterior, x, weights=3, rows=3, seed=s).rows for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_members_of_a_mixture_are_draws_of_the_weights(logits):
    members = [tabled(logits[s : s + 1]) for s in range(S)]
    found = decompose(MixturePosterior(members), inputs(), weights=S, rows=R)
    for part, by_hand in zip(found.parts.values(), entropies_by_hand(logits), strict=True):
        assert torch.allclose(part, by_hand)
    inner = MixturePosterior(members[:2])  # its members weigh a quarter each
    found = decompose(MixturePosterior([inner, members[2]]), inputs(), weights=4, rows=R)
    p = logits.softmax(-1)
    assert torch.allclose(found.total, entropy((p[0] / 4 + p[1] / 4 + p[2] / 2).mean(0)))
    assert not torch.allclose(found.total, entropy(p.mean((0, 1))), atol=1e-2)  # planted: all weigh the same


def test_a_calibration_goes_before_the_parts(logits):
    posterior = tabled(logits)
    posterior.calibrated = Calibrated(TemperatureScaling(), {"temperature": 2.0})
    found = decompose(posterior, inputs(), rows=R)
    assert torch.allclose(found.data, entropies_by_hand(logits / 2)[0])
    plain = decompose(posterior, inputs(), rows=R, calibrated=False)
    assert torch.allclose(plain.data, entropies_by_hand(logits)[0])


def test_what_cannot_be_decomposed_is_refused(logits):
    posterior = tabled(logits)
    for setting in ({"weights": 0}, {"rows": 0}):
        with pytest.raises(SettingError, match="a whole number of at least 1"):
            decompose(posterior, inputs(), **setting)
    with pytest.raises(SettingError, match="rows = 1: expected a whole number of at least 2, as rows are random"):
        decompose(posterior, inputs(), rows=1)
    with pytest.raises(SettingError, match="weights = 1: expected a whole number of at least 2, as weights are random"):
        decompose(posterior, inputs(), weights=1)
    one = tabled(logits[:1])  # has no more
    assert decompose(one, inputs(), weights=1, rows=R).num_weights == 1
    assert decompose(MixturePosterior([one, tabled(logits[1:2])]), inputs(), weights=1, rows=R).num_weights == 2
    points, x = built(Normal(), Delta(), prior="softmax")
    assert decompose(points, x, weights=1, rows=1).num_rows == 1
    with pytest.raises(DataError, match="x: no examples"):
        decompose(posterior, inputs(0))
    with pytest.raises(DataError, match="holds nan"):
        decompose(posterior, inputs() * math.nan)
