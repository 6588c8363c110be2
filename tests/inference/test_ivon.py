"""IVON: a step by hand, and the mean-field optimum of a linear regression, which is known."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyroformer.guides import Guide, MeanField
from pyroformer.inference import IVON, SVI, Data, DeepEnsemble, GuidePosterior, InferenceError, OnePassELBO
from pyroformer.inference import ivon as module
from pyroformer.inference.variational_newton import VariationalNewton
from pyroformer.models import BayesianModel, Gaussian
from pyroformer.priors import Hierarchical, Improper, Laplace, Learned, Normal, SettingError

FULL = {"epochs": 300, "batch_size": 40, "learning_rate": 0.3, "beta2": 0.99, "samples": 16, "dtype": "float64"}


def newton(loc, scale, **changes):
    settings = {
        "learning_rate": 0.1,
        "beta1": 0.8,
        "beta2": 0.9,
        "hess_init": 2.0,
        "decay": torch.tensor([0.5, 0.0]).double(),
        "center": torch.tensor([1.0, 0.0]).double(),
        "effective_size": 50.0,
    }
    return VariationalNewton((loc, scale), **{**settings, **changes})


def steps(correction=0.5, debias=True, **changes):
    """Mean and scale after two steps with given gradients: by the optimizer and by hand."""
    loc, log_scale = (nn.Parameter(torch.zeros(2).double()) for _ in range(2))
    optimizer = newton(loc, log_scale, **changes)
    delta, mu, lam = torch.tensor([0.5, 0.0]).double(), torch.tensor([1.0, 0.0]).double(), 50.0
    m, g, h = torch.zeros(2).double(), 0.0, torch.full((2,), 2.0).double()
    for t, slopes in enumerate(([[0.3, -1.0], [0.02, -0.01]], [[0.1, 0.4], [-0.03, 0.05]]), 1):
        loc.grad, log_scale.grad = torch.tensor(slopes).double()
        var = 1 / (lam * (h + delta))
        estimate = log_scale.grad / var
        g = 0.8 * g + 0.2 * loc.grad
        h = 0.9 * h + 0.1 * estimate + correction * 0.1**2 * (h - estimate) ** 2 / (h + delta)
        m = m - 0.1 * (g / (1 - 0.8**t if debias else 1.0) + delta * (m - mu)) / (h + delta)
        optimizer.step()
    return (loc.detach(), log_scale.detach().exp()), (m, (lam * (h + delta)) ** -0.5)


def same(one, other):
    return all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(one, other, strict=True))


def test_a_step_is_that_of_the_paper():
    assert same(*steps())
    assert not same(*steps(correction=0.0))  # planted: without the correction
    assert not same(*steps(debias=False))  # planted: momentum as it is
    assert not same(*steps(effective_size=25.0))  # planted: another temperature
    assert not same(*steps(decay=torch.tensor([0.5, 0.1]).double()))  # planted: another prior


def test_steps_are_clipped_entry_by_entry():
    loc, log_scale = (nn.Parameter(torch.zeros(2).double()) for _ in range(2))
    optimizer = newton(loc, log_scale, clip_radius=0.3)
    loc.grad, log_scale.grad = torch.tensor([[-80.0, 0.1], [0.0, 0.0]]).double()
    optimizer.step()
    first, second = loc.tolist()
    assert first == pytest.approx(0.1 * 0.3) and 0 < abs(second) < 0.1 * 0.3


def test_scales_stay_above_zero():
    loc, log_scale = (nn.Parameter(torch.zeros(2).double()) for _ in range(2))
    optimizer = newton(loc, log_scale, beta2=0.1)
    for size in (-1e6, -1e3, -1.0, 0.0, 1e3):
        loc.grad, log_scale.grad = torch.zeros(2).double(), torch.full((2,), size).double()
        optimizer.step()
        assert log_scale.isfinite().all()


def test_the_hessian_estimate_is_unbiased(line):
    """The gradient by the log-scale over the variance is the diagonal of the Hessian of the loss per example."""
    model, x, y = line.model().double(), line.x.double(), line.y.double()
    guide, particles = Guide(model, MeanField(init_scale=0.1), (x[:2],)), 4000
    (family,) = guide.families
    torch.manual_seed(0)
    estimates = []
    for _ in range(20):
        guide.zero_grad()
        terms = OnePassELBO(num_particles=particles // 20).terms(guide, x, y, 40)
        (-terms.log_likelihood / 40).backward()
        estimates.append(family.log_scale.grad / family.scale.square())
    estimates = torch.stack(estimates).detach()
    exact = (line.design.T @ line.design / 0.25 / 40).diag()
    error = estimates.std(0) / len(estimates) ** 0.5
    assert ((estimates.mean(0) - exact).abs() / error).max() < 5
    assert ((estimates.mean(0) - 2 * exact).abs() / error).max() > 5  # planted


def fitted(posterior):
    (family,) = posterior.guide.families
    return family.loc.detach(), family.scale.detach()


def agrees(loc, scale, mean, sd):
    """Optimised to a tenth of a standard deviation, and scales to 5 %.

    The average of Hessians of 100 steps with 16 draws each is known to about 3 % of itself, its root to half of that.
    """
    return bool(((loc - mean) / sd).abs().max() < 0.1 and (scale / sd - 1).abs().max() < 0.05)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_it_finds_the_mean_field_optimum(line, temperature):
    posterior = IVON(**FULL, temperature=temperature).run(line.model(), None, line.data)
    assert type(posterior) is GuidePosterior and posterior.info["temperature"] == temperature
    conditional = (temperature / line.precision().diag()).sqrt()
    assert agrees(*fitted(posterior), line.mean(), conditional)
    marginal = (temperature * line.covariance().diag()).sqrt()
    assert not agrees(*fitted(posterior), line.mean(), marginal)  # planted: the marginal scales
    assert not agrees(*fitted(posterior), line.mean(), conditional * 0.1**0.5)  # planted: another temperature
    assert not agrees(*fitted(posterior), line.mean(prior=None), conditional)  # planted: no prior


def test_another_decay_or_size_would_be_noticed(line, monkeypatch):
    """With a prior that counts as much as the data."""
    sd, decay = line.precision(prior=0.1).diag().rsqrt(), module.decay_of

    def found():
        driver = IVON(**{**FULL, "epochs": 150, "beta2": 0.97})
        return agrees(*fitted(driver.run(line.model(Normal(scale=0.1)), None, line.data)), line.mean(prior=0.1), sd)

    assert found()
    for planted in (lambda c, p: (c, 40 * p), lambda c, p: (c, p / 40)):
        monkeypatch.setattr(module, "decay_of", lambda *given, planted=planted: planted(*decay(*given)))
        assert not found()
    monkeypatch.undo()

    class Forgetful(VariationalNewton):
        def __init__(self, parameters, *, effective_size, **settings):
            super().__init__(parameters, effective_size=1.0, **settings)  # as if there were one example

    monkeypatch.setattr(module, "VariationalNewton", Forgetful)
    assert not found()


def test_minibatches_lead_to_the_same_posterior(line):
    driver = IVON(**{**FULL, "epochs": 150, "batch_size": 16})  # 16, 16 and 8
    loc, scale = fitted(driver.run(line.model(), None, line.data))
    sd = line.precision().diag().rsqrt()
    assert ((loc - line.mean()) / sd).abs().max() < 0.3 and (scale / sd - 1).abs().max() < 0.1
    unscaled = (line.design.T @ line.design / 0.25 * 16 / 40 + torch.eye(4)).diag().rsqrt()
    assert (scale / unscaled - 1).abs().max() > 0.1  # planted: the batch counted as all the data


def test_priors_may_be_centred_anywhere_and_flat(line):
    def around_two(name, value):
        return dist.Normal(torch.full_like(value, 2.0), 0.3).to_event(value.dim())

    prior = {"bias": Improper(), "*": around_two}
    precision = line.design.T @ line.design / 0.25 + torch.tensor([1 / 0.09] * 3 + [0.0]).diag()
    right = line.design.T @ line.y.double()[:, 0] / 0.25
    center = torch.tensor([2.0] * 3 + [0.0]).double() / 0.09
    found = fitted(IVON(**FULL).run(line.model(prior), None, line.data))
    assert agrees(*found, torch.linalg.solve(precision, right + center), precision.diag().rsqrt())
    assert not agrees(*found, torch.linalg.solve(precision, right), precision.diag().rsqrt())  # planted: around 0


def test_gains_are_centred_at_one():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1))
    model = BayesianModel(net, {"1.*": Normal(scale=0.5), "*": Normal(scale=2.0)}, Gaussian())
    guide = Guide(model, MeanField(), (torch.zeros(2, 2),))
    (family,) = guide.families
    center, precision = module.decay_of(model, family)
    parts = zip(family.shapes, center.split(family.sizes), precision.split(family.sizes), strict=True)
    assert {name: (c.unique().tolist(), p.unique().tolist()) for name, c, p in parts} == {
        "0.weight": ([0.0], [0.25]),
        "0.bias": ([0.0], [0.25]),
        "1.weight": ([1.0], [4.0]),
        "1.bias": ([0.0], [4.0]),
        "2.weight": ([0.0], [0.25]),
        "2.bias": ([0.0], [0.25]),
    }


def test_the_start_of_the_scales(line):
    driver = IVON(epochs=1, learning_rate=1e-9, beta2=1 - 1e-12, hess_init=3.0, temperature=0.5, dtype="float64")
    _, scale = fitted(driver.run(line.model(), None, line.data))
    torch.testing.assert_close(scale, torch.full((4,), (40 / 0.5 * (3.0 + 1 / 40)) ** -0.5).double())


@pytest.mark.parametrize(
    ("prior", "likelihood", "message"),
    [
        (Laplace(), {}, "normal or flat priors, which are a weight decay: that of weight is another"),
        (Hierarchical(), {}, "normal priors of weights alone, .*: weight_scale is a site besides"),
        (None, {"noise": "random"}, "noise_scale is a site besides"),
        (None, {"noise": "learned"}, "ivon cannot learn likelihood.log_scale"),
        ({"bias": Learned(), "*": Normal()}, {}, "ivon cannot learn bias"),
    ],
)
def test_what_has_no_weight_decay_is_refused_before_any_work(line, prior, likelihood, message):
    model = line.model(prior, **likelihood)
    with pytest.raises(SettingError, match=message):
        IVON().run(model, None, None)
    assert SVI().refusal(model) is None  # which the message names, where it names one


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(beta1=1.0), "beta1 = 1.0: expected a number of at least 0 and below 1"),
        (dict(beta2=-0.1), "beta2 = -0.1"),
        (dict(hess_init=0.0), "hess_init = 0.0: expected a number above 0"),
        (dict(temperature=0.0), "temperature = 0.0"),
        (dict(samples=0), "samples = 0"),
        (dict(clip_radius=0.0), "clip_radius = 0.0: expected a number above 0, or null"),
        (dict(schedule="step"), "schedule = 'step': expected one of cosine, linear, constant"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(SettingError, match=message):
        IVON(**wrong)


def test_a_rate_without_bounds_is_survived():
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    model = BayesianModel(nn.Linear(3, 1), Normal(), Gaussian())
    with pytest.raises(InferenceError, match="epoch 1, step 2: the loss is") as caught:
        IVON(epochs=3, batch_size=10, learning_rate=1e30).run(model, None, Data(x, x[:, :1]))
    assert caught.value.posterior.predict(x).mean.isfinite().all()


def test_ensembles_of_it(line):
    driver = DeepEnsemble(member=IVON(epochs=2, batch_size=20), size=2)
    posterior = driver.run(line.model(), None, line.data)
    first, second = (fitted(member)[0] for member in posterior.members)
    assert (first - second).abs().max() > 1e-3 and math.isfinite(float(posterior.predict(line.x, 4).mean.sum()))
