"""The KL of rows grows while they are learned, apart from that of the weights."""

import pytest
import torch

from pyroformer.guides import DirichletRows, Guide, MeanField
from pyroformer.inference import SVI, Data, Monitor, OnePassELBO
from pyroformer.models import BayesianModel, Features, Output, Transformer
from pyroformer.priors import DirichletRows as PriorRows
from pyroformer.priors import FlatCenter, Normal, SettingError

GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(24, 2, generator=GENERATOR), torch.randint(3, (24,), generator=GENERATOR)
FAMILIES = {"*.rows": DirichletRows(), "*": MeanField(init_scale=0.1)}


def classifier(rows=True, **settings):
    torch.manual_seed(0)
    net = Transformer(Features(2), Output(3), width=4, heads=2, depth=2)
    return BayesianModel(
        net, {"*.rows": PriorRows(center=FlatCenter(), **settings), "*": Normal()} if rows else Normal()
    )


def fitted(**settings):
    monitor = Monitor()
    driver = SVI(epochs=8, batch_size=12, validation_samples=1, **settings)
    data = Data(X, Y, x_validation=X, y_validation=Y)
    return driver.run(classifier(kl_weight=0.1), FAMILIES, data, monitor=monitor), monitor.history


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize(("beta", "row_beta"), [(1.0, 0.0), (0.5, 0.25), (1.0, 1.0)])
def test_the_loss_by_hand(temperature, beta, row_beta):
    guide = Guide(classifier(kl_weight=0.1), FAMILIES, (X[:2],))
    objective = OnePassELBO(temperature=temperature)
    terms = objective.terms(guide, X, Y)
    expected = beta * terms.kl - terms.log_likelihood + beta * row_beta * terms.local_kl
    if temperature != 1:
        rows = [guide.trace.nodes[name] for name in guide.model.rows]
        local = 0.1 * sum(node["fn"].entropy().sum() for node in rows)
        torch.testing.assert_close(terms.local_entropy, local)
        weights = terms.entropy - local
        expected = expected + beta * (1 - temperature) * (weights + row_beta * local)
    torch.testing.assert_close(objective.loss_of(terms, beta, row_beta), expected)
    if row_beta != 1:
        assert not torch.allclose(objective.loss_of(terms, beta), expected)  # planted: rows at full weight


def test_the_weight_grows_as_asked():
    _, history = fitted(row_kl_warmup=0.5, kl_weight=0.2)
    last_steps = [(2 * epoch - 1) / 16 for epoch in range(1, 9)]
    assert [entry["row_beta"] for entry in history] == pytest.approx([min(1, s / 0.5) for s in last_steps])
    assert [entry["beta"] for entry in history] == pytest.approx([0.2] * 8)
    both = SVI(kl_warmup=0.25, row_kl_warmup=0.5)
    assert (both.beta(0.125), both.row_beta(0.125)) == (0.5, 0.25)
    assert SVI().row_beta(0.0) == 1.0


@pytest.mark.parametrize(
    ("settings", "least"),
    [({}, 1), ({"row_kl_warmup": 0.5}, 5), ({"kl_warmup": 0.75, "row_kl_warmup": 0.5}, 7)],
)
def test_the_best_state_is_looked_for_after_both(settings, least, monkeypatch):
    nll = iter(range(8))  # the first look is the best
    monkeypatch.setattr("pyroformer.inference.optimize.validation_nll", lambda prediction, y: float(next(nll)))
    posterior, _ = fitted(**settings)
    assert posterior.info["best_epoch"] == least


def test_the_effective_weight_is_told():
    assert fitted()[0].info["row_kl_weight"] == pytest.approx(0.1)
    driver, data = SVI(epochs=1), Data(X, Y)
    averaged = driver.run(classifier(kl_weight=0.1, kl_normalization="entries"), FAMILIES, data)
    tokens = 8  # four a feature
    expected = 0.1 / (2 * 2 * tokens**2)
    assert averaged.info["row_kl_weight"] == pytest.approx(expected)
    half = SVI(epochs=1, kl_weight=0.5).run(classifier(kl_weight=0.1), FAMILIES, data)
    assert half.info["row_kl_weight"] == pytest.approx(0.05)
    off = driver.run(classifier(kl_weight=0.0), FAMILIES, data)
    assert off.info["row_kl_weight"] == 0.0
    assert "row_kl_weight" not in driver.run(classifier(rows=False), MeanField(), data).info


def test_without_rows_there_is_nothing_to_warm_up():
    with pytest.raises(SettingError, match="the row_kl_warmup 0: the model draws no attention rows"):
        SVI(row_kl_warmup=0.5).run(classifier(rows=False), MeanField(), Data(X, Y))
    with pytest.raises(SettingError, match="the row_kl_warmup 0: the model gives no KL of rows a weight"):
        SVI(row_kl_warmup=0.5).run(classifier(kl_weight=0.0), FAMILIES, Data(X, Y))
    with pytest.raises(SettingError, match=r"row_kl_warmup = 1\.0: expected a share of the steps"):
        SVI(row_kl_warmup=1.0)
