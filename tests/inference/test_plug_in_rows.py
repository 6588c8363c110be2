"""Plug-in rows in the place of drawn ones: one pass, whose numbers a net with these rows gives by hand."""

import pytest
import torch

from pyroformer import priors
from pyroformer.guides import (
    Delta,
    DirichletRows,
    Guide,
    GumbelSoftmaxRows,
    LogisticNormalRows,
    LogNormalRows,
    MeanField,
    PlugInRows,
    WeibullRows,
)
from pyroformer.guides.plug_in_rows import plug_in
from pyroformer.inference import GuidePosterior, MixturePosterior, Posterior, TemperatureScaling
from pyroformer.models import BayesianModel, Features, Output, Transformer
from pyroformer.priors import Learned, MaskedDirichlet, Normal, SettingError

FLAT = priors.DirichletRows(center=priors.FlatCenter(), concentration=1.0, floor=0.0)

X = torch.randn(30, 3, generator=torch.Generator().manual_seed(0)).double()
ALPHA, FLOOR = 2.0, 0.5


def fitted(weights=None, family=None, seed=0, alpha=ALPHA, rows=None, prior=FLAT):
    """Rows near softmax attention over learned weights, or over others."""
    torch.manual_seed(seed)
    net = Transformer(Features(3, copies=2), Output(4), width=8, heads=2, depth=2)
    with torch.no_grad():
        for block in net.blocks:
            block.attention.query.weight.mul_(6)  # scores large enough to matter
    prior = {"*.rows": prior, "*": weights or Learned()}
    model = BayesianModel(net, prior).double()
    families = {"*.rows": rows or DirichletRows(sharpness=alpha, floor=FLOOR)} | ({"*": family} if family else {})
    return GuidePosterior(model, Guide(model, families, (X[:2],)), (X[:2],))


def by_hand(posterior, rows):
    """Class probabilities of the net with other rows than softmax ones."""
    layers = [block.attention for block in posterior.model.net.blocks]
    for layer in layers:
        layer.__dict__["rows"] = lambda scores, keys, mask: rows(scores)
    try:
        return posterior.model.net(X).softmax(-1).detach()
    finally:
        for layer in layers:
            del layer.__dict__["rows"]


def mean_rows(scores):
    concentration = ALPHA * scores.softmax(-1) + FLOOR
    return concentration / concentration.sum(-1, keepdim=True)


def test_one_pass_with_the_mean_of_every_row():
    posterior = fitted()
    found = posterior.predict(X, 32, rows="mean")
    assert found.num_samples == 1
    assert torch.allclose(found.probabilities, by_hand(posterior, mean_rows))
    assert not torch.allclose(found.probabilities, by_hand(posterior, lambda z: z.softmax(-1)), atol=1e-3)  # planted
    sampled = posterior.predict(X, 32)
    assert sampled.num_samples == 32 and posterior.num_samples is None
    assert not torch.allclose(found.probabilities, sampled.probabilities, atol=1e-3)  # planted: drawn rows


def softmax_rows(scores):
    return scores.softmax(-1)


FAMILIES = {
    "dirichlet": (lambda: DirichletRows(sharpness=ALPHA, floor=FLOOR), FLAT, mean_rows),
    "logistic-normal": (lambda: LogisticNormalRows(sharpness=ALPHA), FLAT, softmax_rows),
    "Gumbel-softmax": (lambda: GumbelSoftmaxRows(sharpness=ALPHA), FLAT, softmax_rows),
    "Weibull": (lambda: WeibullRows(sharpness=ALPHA), priors.GammaRows(), softmax_rows),
    "log-normal": (lambda: LogNormalRows(sharpness=ALPHA), priors.GammaRows(), softmax_rows),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_plug_in_row_of_every_family(name):
    """The mean of a Dirichlet row; softmax attention, which is no mean of rows, in the other families."""
    rows, prior, expected = FAMILIES[name]
    posterior = fitted(rows=rows(), prior=prior)
    found = posterior.predict(X, 8, rows="mean")
    assert found.num_samples == 1
    assert torch.allclose(found.probabilities, by_hand(posterior, expected))
    other = softmax_rows if name == "dirichlet" else mean_rows
    assert not torch.allclose(found.probabilities, by_hand(posterior, other), atol=1e-3)  # planted

    scores = torch.tensor([2.0, 0.0, -1.0]).double()
    torch.manual_seed(0)
    drawn = rows().around(scores, None, torch.tensor(ALPHA).double()).rsample((40_000,)).double()
    drawn = drawn / drawn.sum(-1, keepdim=True)
    away = (drawn.mean(0) - expected(scores)).abs() / (drawn.std(0) / 40_000**0.5)
    assert (away < 5).all() if name == "dirichlet" else (away > 5).any()


def test_sharp_rows_are_their_mean():
    def gap(alpha):
        posterior = fitted(alpha=alpha)
        return (posterior.predict(X, 4, rows="mean").probabilities - posterior.predict(X, 4).probabilities).abs().max()

    assert gap(1e9) < 1e-3 < gap(1.0)


def test_weights_are_drawn_still():
    posterior = fitted(Normal(), MeanField(init_scale=0.3))
    found = posterior.predict(X, 6, rows="mean", seed=1)
    assert found.num_samples == 6 and found.mutual_information.max() > 1e-3
    point = fitted(Normal(), Delta())
    assert point.predict(X, 6, rows="mean").num_samples == 1


def test_a_mixture_averages_the_plug_in_predictions_of_its_members():
    members = [fitted(seed=0), fitted(seed=1)]
    mixture = MixturePosterior(members)
    found = mixture.predict(X, 8, rows="mean")
    each = [by_hand(member, mean_rows) for member in members]
    assert found.num_samples == 2
    assert torch.allclose(found.probabilities, (each[0] + each[1]) / 2)
    assert not torch.allclose(found.probabilities, each[0], atol=1e-3)  # planted: one member
    assert mixture.predict(X, 8).num_samples == 8  # and members draw again


def labels():
    """Those of the plug-in prediction, of which a fifth are guesses."""
    y = by_hand(fitted(), mean_rows).argmax(-1)
    y[::5] = torch.arange(6) % 4
    return y


def test_a_calibration_is_fitted_to_plug_in_predictions_apart(tmp_path):
    posterior, y = fitted(alpha=0.3), labels()
    with torch.no_grad():
        posterior.model.net.head.weight.mul_(8)  # so that rows matter
    found = posterior.calibrate(TemperatureScaling(), X, y, 16, seed=1)
    with posterior.rows_as("mean"):
        outputs = posterior.outputs(X, 16, seed=1)
    assert found.plug_in == TemperatureScaling().fit(outputs, y)
    assert 0.06 < found.plug_in["temperature"] < 19  # within its bounds
    assert found.plug_in["temperature"] != pytest.approx(found.fitted["temperature"], rel=0.02)
    predicted = posterior.predict(X, 16, seed=1, rows="mean").probabilities
    torch.testing.assert_close(predicted, (outputs[0] / found.plug_in["temperature"]).softmax(-1))
    drawn = (outputs[0] / found.fitted["temperature"]).softmax(-1)
    assert not torch.allclose(predicted, drawn, rtol=1e-3)  # planted: the temperature of drawn rows
    plain = posterior.predict(X, 16, seed=1, rows="mean", calibrated=False).probabilities
    torch.testing.assert_close(plain, outputs[0].softmax(-1))
    posterior.save(tmp_path / "posterior")
    again = Posterior.load(tmp_path / "posterior", posterior.model)
    assert again.calibrated == found
    torch.testing.assert_close(again.predict(X, 16, seed=1, rows="mean").probabilities, predicted)


def test_a_mixture_is_calibrated_as_a_whole_for_both_kinds_of_rows():
    mixture, y = MixturePosterior([fitted(seed=0), fitted(seed=1)]), labels()
    found = mixture.calibrate(TemperatureScaling(), X, y, 8)
    with mixture.rows_as("mean"):
        assert found.plug_in == TemperatureScaling().fit(mixture.outputs(X, 8), y)
    torch.manual_seed(0)
    net = BayesianModel(Transformer(Features(3), Output(4), width=8, heads=2, depth=1), Normal()).double()
    plain = GuidePosterior(net, Guide(net, Delta(), (X[:2],)), (X[:2],))
    assert plain.calibrate(TemperatureScaling(), X, y).plug_in is None


def test_a_law_may_say_what_stands_for_its_mean_row():
    law = MaskedDirichlet(torch.tensor([[1.0, 3.0], [2.0, 2.0]]))
    assert torch.equal(plug_in(law.to_event(1)), torch.tensor([[0.25, 0.75], [0.5, 0.5]]))
    law.plug_in = torch.tensor([[5.0, 15.0], [1.0, 1.0]])  # an unnormalised site
    assert torch.equal(plug_in(law.to_event(1)), law.plug_in)


def test_without_a_guide_the_mean_is_that_of_the_prior():
    torch.manual_seed(0)
    net = Transformer(Features(3), Output(4), width=8, heads=2, depth=1).double()
    model = BayesianModel(
        net,
        {
            "*.rows": priors.DirichletRows(center=priors.SoftmaxCenter(), concentration=ALPHA, floor=FLOOR),
            "*": Learned(),
        },
    )

    with PlugInRows(), torch.no_grad():
        found = model(X).softmax(-1)
    model.net.blocks[0].attention.__dict__["rows"] = lambda scores, keys, mask: mean_rows(scores)
    assert torch.allclose(found, model.net(X).softmax(-1))


def test_it_is_refused_where_no_row_is_random():
    torch.manual_seed(0)
    model = BayesianModel(torch.nn.Linear(3, 4), Normal()).double()
    plain = GuidePosterior(model, Guide(model, MeanField(), (X[:2],)), (X[:2],))
    for posterior in (plain, MixturePosterior([plain, plain])):
        with pytest.raises(SettingError, match="sample: no attention row of this posterior is random"):
            posterior.predict(X, rows="mean")
    rows = fitted()
    with pytest.raises(SettingError, match="one of sample, mean"):
        rows.predict(X, rows="median")
    with pytest.raises(RuntimeError, match="inside"), rows.rows_as("mean"):
        raise RuntimeError("inside")
    assert rows.predict(X, 3).num_samples == 3  # as it was before
