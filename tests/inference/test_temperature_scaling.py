"""Temperature scaling against known temperatures and scipy, alone and through every kind of posterior."""

import math

import pytest
import torch
from scipy.optimize import minimize_scalar

from pyroformer.guides import MeanField
from pyroformer.inference import ML, SVI, Data, DataError, DeepEnsemble, Posterior, TemperatureScaling
from pyroformer.models import BayesianModel, Categorical, Features, Gaussian, Output, Transformer
from pyroformer.models.likelihoods import IGNORED
from pyroformer.priors import Normal, SettingError


def logits(samples, n, classes=4, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    common = 2 * torch.randn(1, n, classes, generator=generator, dtype=torch.float64)
    return common + spread * torch.randn(samples, n, classes, generator=generator, dtype=torch.float64)


def labels_at(outputs, temperature, seed=1):
    """Labels drawn from the averaged probabilities at a temperature."""
    p = (outputs / temperature).softmax(-1).mean(0)
    return torch.multinomial(p, 1, generator=torch.Generator().manual_seed(seed)).squeeze(1)


def nll(outputs, y, temperature):
    p = (outputs / temperature).softmax(-1).mean(0)
    return float(-p[torch.arange(len(y)), y].log().mean())


@pytest.mark.parametrize("truth", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("samples", [1, 8])
def test_the_temperature_of_the_labels_is_found(truth, samples):
    """Within five standard errors of the truth, by the curvature of the likelihood at it."""
    n = 4000
    outputs = logits(samples, n)
    y = labels_at(outputs, truth)
    found = TemperatureScaling().fit(outputs, y)
    step = 1e-3
    curvature = nll(outputs, y, truth * (1 + step)) + nll(outputs, y, truth * (1 - step)) - 2 * nll(outputs, y, truth)
    error = 1 / math.sqrt(n * curvature / step**2)  # of log T
    assert abs(math.log(found["temperature"] / truth)) < 5 * error
    assert abs(math.log(1.4 * found["temperature"] / truth)) > 5 * error  # planted: 40 % off
    assert found["nll"] == pytest.approx(nll(outputs, y, found["temperature"]), abs=1e-9)
    assert found["nll_before"] == pytest.approx(nll(outputs, y, 1.0), abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_minimum_that_scipy_finds(seed):
    outputs = logits(5, 60, seed=seed)
    y = labels_at(outputs, 2.0, seed)
    best = minimize_scalar(lambda log_t: nll(outputs, y, math.exp(log_t)), bounds=(-3, 3), method="bounded")
    found = TemperatureScaling().fit(outputs, y)
    assert found["temperature"] == pytest.approx(math.exp(best.x), rel=2e-3)
    pooled = outputs.mean(0, keepdim=True)  # planted: logits are averaged
    assert TemperatureScaling().fit(pooled, y)["temperature"] != pytest.approx(math.exp(best.x), rel=2e-2)


def test_tokens_without_a_label_do_not_count():
    outputs = logits(3, 40).view(3, 20, 2, 4)
    y = labels_at(outputs.flatten(1, 2), 2.0).view(20, 2)
    masked = torch.cat([outputs, logits(3, 20, seed=5).unsqueeze(2)], 2)
    ignored = torch.cat([y, torch.full((20, 1), IGNORED)], 1)
    assert TemperatureScaling().fit(masked, ignored) == TemperatureScaling().fit(outputs, y)


def test_without_a_label_there_is_no_temperature():
    outputs, y = logits(2, 10), torch.full((10,), IGNORED)
    with pytest.raises(DataError, match="validation y: no example has a label"):
        TemperatureScaling().fit(outputs, y)
    some = torch.cat([labels_at(outputs, 2.0)[:5], torch.full((5,), -1)])  # nor does any other number below 0 count
    assert TemperatureScaling().fit(outputs, some) == TemperatureScaling().fit(outputs[:, :5], some[:5])


def test_slices_add_up(monkeypatch):
    outputs = logits(3, 100)
    y = labels_at(outputs, 2.0)
    whole = TemperatureScaling().fit(outputs, y)
    monkeypatch.setattr("pyroformer.inference.temperature_scaling.SLICE", 7)
    assert TemperatureScaling().fit(outputs, y) == pytest.approx(whole)


def test_it_stays_within_its_bounds():
    outputs = logits(1, 50)
    y = outputs[0].argmax(-1)  # always right: no temperature is low enough
    assert TemperatureScaling(most=5.0).fit(outputs, y)["temperature"] == pytest.approx(0.2, rel=1e-3)
    with pytest.raises(SettingError, match="most = 1: expected a number above 1"):
        TemperatureScaling(most=1)


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(90, 3, generator=generator)
    y = (x[:, 0] + 1.5 * torch.randn(90, generator=generator) > 0).long()
    return Data(x[:30], y[:30], x[30:60], y[30:60]), x[60:]


def model():
    torch.manual_seed(0)
    net = Transformer(Features(3), Output(2), width=8, heads=2, depth=1)
    return BayesianModel(net, Normal(), Categorical())


DRIVERS = {
    "svi": (SVI(epochs=30, learning_rate=0.02, keep="last", kl_weight=0.1), MeanField(init_scale=0.05)),
    "ml": (ML(epochs=60, learning_rate=0.01, keep="last"), None),
    "ensemble": (DeepEnsemble(size=3, member=ML(epochs=40, learning_rate=0.01, keep="last")), None),
}


@pytest.mark.parametrize("name", DRIVERS)
def test_predictions_go_through_it_and_come_back_from_a_file(data, tmp_path, name):
    examples, x = data
    driver, guide = DRIVERS[name]
    posterior = driver.run(model(), guide, examples)
    before, outputs = posterior.predict(x, 16), posterior.outputs(x, 16)
    assert len(outputs) == before.num_samples
    assert torch.allclose(outputs.softmax(-1).mean(0).double(), before.probabilities, atol=1e-6)

    calibrated = posterior.calibrate(TemperatureScaling(), examples.x_validation, examples.y_validation, 16)
    temperature = calibrated.fitted["temperature"]
    assert calibrated.fitted["nll"] < calibrated.fitted["nll_before"]
    assert temperature > 1.05  # noise was learnt by heart
    after = posterior.predict(x, 16)
    by_hand = (outputs / temperature).softmax(-1).mean(0).double()
    assert torch.allclose(after.probabilities, by_hand, atol=1e-6)
    assert not torch.allclose(before.probabilities, by_hand, atol=1e-3)
    assert torch.equal(posterior.predict(x, 16, calibrated=False).probabilities, before.probabilities)
    expected = torch.special.entr((outputs / temperature).softmax(-1)).sum(-1).mean(0).double()
    assert torch.allclose(after.expected_entropy, expected, atol=1e-6)  # the parts of the entropy stay parts of it

    posterior.save(tmp_path / "posterior")
    again = Posterior.load(tmp_path / "posterior", model())
    assert again.calibrated == calibrated
    assert torch.allclose(again.predict(x, 16).probabilities, after.probabilities, atol=1e-7)


def test_with_one_draw_the_labels_stay(data):
    examples, x = data
    posterior = DRIVERS["ml"][0].run(model(), None, examples)
    labels = posterior.predict(x).labels
    posterior.calibrate(TemperatureScaling(), examples.x_validation, examples.y_validation)
    assert torch.equal(posterior.predict(x).labels, labels)


def test_a_regression_has_no_logits(data):
    examples, _ = data
    net = Transformer(Features(3), Output(1), width=8, heads=2, depth=1)
    real = Data(examples.x, examples.y.float().unsqueeze(1))
    posterior = ML(epochs=1).run(BayesianModel(net, Normal(), Gaussian()), None, real)
    with pytest.raises(SettingError, match="calibration = 'temperature_scaling': expected none: only classes"):
        posterior.calibrate(TemperatureScaling(), real.x, real.y)


def test_a_calibration_that_is_not_known(data, tmp_path):
    examples, _ = data
    posterior = ML(epochs=1).run(model(), None, examples)
    posterior.calibrate(TemperatureScaling(), examples.x_validation, examples.y_validation)
    posterior.save(tmp_path / "posterior")
    file = tmp_path / "posterior" / "posterior.json"
    file.write_text(file.read_text().replace("temperature_scaling", "magic"))
    with pytest.raises(ValueError, match="calibration 'magic': expected one of temperature_scaling, fitted"):
        Posterior.load(tmp_path / "posterior", model())
