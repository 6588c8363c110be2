"""Drivers of Markov chains on models that draw attention rows: what is kept, told, refused, and said."""

import pytest
import torch
from pyro import poutine

from pyroformer.inference import HMC, ML, NUTS, Checkpoint, Data, Monitor, Posterior, StoredDraws
from pyroformer.inference.diagnostics import weights
from pyroformer.inference.latent_rows import count_numbers, mean_entropy
from pyroformer.models import BayesianModel, Gaussian, Output, Tokens, Transformer
from pyroformer.priors import (
    ContextualCenter,
    DirichletRows,
    FlatCenter,
    GammaRows,
    LearnedCenter,
    LogisticNormalRows,
    Normal,
    SettingError,
    SoftmaxCenter,
)

X = torch.tensor([[1, 2, 3], [4, 1, 0], [2, 0, 0], [3, 4, 1], [1, 1, 2]])
Y = torch.tensor([0, 1, 1, 0, 0])
LAW = DirichletRows(concentration=3.0, floor=0.5)
QUICK = {"num_samples": 6, "warmup_steps": 2, "chains": 2, "max_steps": 2, "dtype": "float64"}
SITES = ("blocks.0.attention.rows", "blocks.1.attention.rows")


def tokens(law=LAW, likelihood=None, outputs=2):
    torch.manual_seed(0)
    net = Transformer(Tokens(5, 3, padding=0), Output(outputs), width=4, heads=2, depth=2)
    return BayesianModel(net, {"*.rows": law, "*": Normal(scale=0.4)}, likelihood)


@pytest.fixture(scope="module")
def kept():
    return HMC(**QUICK, keep_rows=True).run(tokens(), None, Data(X, Y))


def test_weights_are_kept_and_rows_where_they_are_asked_for(kept, tmp_path):
    plain = HMC(**QUICK).run(tokens(), None, Data(X, Y))
    assert set(plain.draws) == set(plain.model.sites)
    assert set(kept.draws) == {*plain.draws, *SITES}
    for name, values in plain.draws.items():
        assert torch.equal(values, kept.draws[name])
    rows = kept.by_chain(*SITES)
    assert all(value.shape == (2, 6, 5, 2, 3, 3) for value in rows.values())
    sums = rows[SITES[0]].sum(-1)[0, 0, :, 0]
    assert torch.allclose(sums, (X > 0).double())  # padded queries see nothing
    assert set(kept.draw(3)) == set(plain.draws)
    assert torch.equal(kept.predict(X, 12).probabilities, plain.predict(X, 12).probabilities)
    other = tokens().double()(X[:2]).shape
    assert kept.predict(X[:2], 4).probabilities.shape == other  # of other inputs than those of the kept rows
    kept.save(tmp_path / "posterior")
    again = Posterior.load(tmp_path / "posterior", tokens())
    assert torch.equal(again.draws[SITES[1]], kept.draws[SITES[1]])
    assert torch.equal(again.predict(X, 12).probabilities, kept.predict(X, 12).probabilities)
    assert all(torch.equal(again.statistics[name], value) for name, value in kept.statistics.items())


def test_kept_rows_are_told_of_beside_the_weights(kept):
    found = weights(kept)
    assert found[SITES[0]].values.shape == (2, 6, 5, 2, 3, 3) and not found[SITES[0]].judged
    assert found["head.weight"].dims == ("unit", "input")


def test_the_log_likelihood_is_that_of_the_rows_that_were_drawn(kept):
    model = kept.model
    for index in (0, 7):
        own = {name: values[index] for name, values in kept.draws.items()}
        with torch.no_grad(), poutine.trace() as tracer:
            poutine.condition(model, data=own)(X, Y)
        site = tracer.trace.nodes["obs"]
        told = kept.statistics["log_likelihood"].flatten()[index]
        assert told.item() == pytest.approx(site["fn"].log_prob(Y).sum().item(), rel=1e-9)
        del own[SITES[0]]
        torch.manual_seed(20 + index)
        with torch.no_grad(), poutine.trace() as tracer:
            poutine.condition(model, data=own)(X, Y)
        fresh = tracer.trace.nodes["obs"]["fn"].log_prob(Y).sum().item()
        assert told.item() != pytest.approx(fresh, rel=1e-6)  # planted: rows drawn anew
    assert kept.info["log_likelihood"]["mean"] == pytest.approx(kept.statistics["log_likelihood"].mean().item())


def test_the_entropy_of_rows_is_told_of_every_draw(kept):
    for name in SITES:
        rows = kept.by_chain(name)[name]
        entropy = -(rows * rows.clamp(min=1e-300).log()).sum(-1)  # [K, S, B, H, T]
        seeing = (X > 0)[:, None].expand(5, 2, 3)
        by_hand = entropy[:, :, seeing].mean(-1)
        told = kept.statistics[f"row_entropy.{name}"]
        assert told.shape == (2, 6) and torch.allclose(told, by_hand)
        assert not torch.allclose(told, entropy.mean((-1, -2, -3)), rtol=1e-3)  # planted: padding counted


def test_mean_entropy_of_known_rows():
    rows = torch.tensor([[0.5, 0.5], [1.0, 0.0]]).double().view(1, 1, 2, 2)
    assert mean_entropy(rows, None).item() == pytest.approx(0.5 * torch.tensor(2.0).log().item())
    assert mean_entropy(3 * rows, None).item() == pytest.approx(0.5 * torch.tensor(2.0).log().item())  # entries
    assert mean_entropy(rows.expand(4, 1, 1, 2, 2), None).shape == (4,)


@pytest.mark.parametrize(
    "law",
    [
        GammaRows(center=SoftmaxCenter(), kl_normalization="none", concentration=3.0, floor=0.5),
        LogisticNormalRows(center=SoftmaxCenter(), kl_normalization="none"),
    ],
    ids=["gamma", "logistic normal"],
)
def test_other_laws_and_real_observations(law):
    y = torch.randn(5, 1, generator=torch.Generator().manual_seed(0))
    model = tokens(law, Gaussian(noise="random", scale=0.5), outputs=1)
    posterior = HMC(**{**QUICK, "dtype": "float32"}).run(model, None, Data(X, y))
    found = posterior.predict(X, 12)
    assert found.loc.shape == (12, 5, 1) and found.loc.isfinite().all()
    assert posterior.statistics["log_likelihood"].isfinite().all()


REFUSED = {
    "light": (DirichletRows(kl_weight=0.1), r"rows that count in full, kl_weight: 1 .* prior of blocks.0.attention"),
    "entries": (GammaRows(center=SoftmaxCenter()), "rows that count in full"),
    "learned": (
        DirichletRows(center=LearnedCenter()),
        "a center without numbers that are learned, such as softmax: nuts cannot learn those of blocks.0",
    ),
    "contextual": (DirichletRows(center=ContextualCenter()), "a center without numbers that are learned"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_any_work(case):
    law, message = REFUSED[case]
    with pytest.raises(SettingError, match=message):
        NUTS().run(tokens(law), None, None)  # there are not even data


def test_rows_around_another_center_than_softmax_are_warned_of_once():
    model = tokens(DirichletRows(center=FlatCenter(), concentration=1.0, floor=0.0))
    with pytest.warns(RuntimeWarning, match="data say nothing about the query weights") as told:
        HMC(**QUICK).run(model, None, Data(X, Y))
    assert len(told) == 1  # around softmax there is none: warnings are errors in tests


def test_rows_of_too_many_examples_are_refused_before_any_work():
    x = X.repeat(50, 1)
    model = tokens()
    numbers = count_numbers(model, X)
    assert numbers == 2 * 2 * (3 * 3 * 2 + 2 * 1 + 1 * 0)  # layers, heads; rows of 3, 2 and 1 tokens
    assert count_numbers(model, x) == 50 * numbers
    with pytest.raises(SettingError, match=r"rows = 'about \d+': expected at most 3000 numbers for the attention rows"):
        count_numbers(model, x, most=3000)
    with pytest.raises(SettingError, match=r"rows = 80: expected at most 79 numbers .* 5 training examples: take few"):
        count_numbers(model, X, most=79)
    assert count_numbers(tokens().without_rows(), X) == 0


def test_it_is_refused_by_the_driver(monkeypatch):
    monkeypatch.setattr("pyroformer.inference.latent_rows.MOST", 50)
    with pytest.raises(SettingError, match="rows = 80"):
        HMC(**QUICK).run(tokens(), None, Data(X, Y))


def test_draws_in_files_are_those_in_memory(kept, monkeypatch, tmp_path):
    monkeypatch.setattr("pyroformer.inference.stored_draws.PART", 1)  # one draw of each chain
    monitor = Monitor(Checkpoint(tmp_path / "checkpoint", every=0.0))
    streamed = HMC(**QUICK, keep_rows=True).run(tokens(), None, Data(X, Y), 0, monitor)
    assert isinstance(streamed.draws, StoredDraws) and len(streamed.draws.parts) == 6
    assert set(streamed.draws) == set(kept.draws) and set(streamed.statistics) == set(kept.statistics)
    for found, expected in ((streamed.draws, kept.draws), (streamed.statistics, kept.statistics)):
        for name in expected:  # rows of another number of draws at once are rounded otherwise
            assert torch.allclose(found[name], expected[name], rtol=1e-13, atol=1e-15, equal_nan=True), name
    assert torch.equal(streamed.predict(X, 12).probabilities, kept.predict(X, 12).probabilities)
    again = HMC(**QUICK, keep_rows=True).run(tokens(), None, Data(X, Y), 0, monitor)  # from its end
    assert torch.equal(again.statistics["log_likelihood"], kept.statistics["log_likelihood"])


def test_chains_start_at_trained_nets_whose_rows_are_computed():
    driver = HMC(**QUICK, start=ML(epochs=1, dtype="float64"))
    posterior = driver.run(tokens(), None, Data(X, Y))
    assert set(posterior.draws) == set(posterior.model.sites) and posterior.info["row_numbers"] == 80
    assert len(posterior.info["start"]) == 2
