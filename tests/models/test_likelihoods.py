"""Likelihoods: densities against torch's losses, missing labels, noise, and observations that do not fit."""

import math

import pyro
import pytest
import torch
from pyro import poutine
from torch import nn
from torch.nn import functional as F

from pyroformer.models import BayesianModel, Categorical, Gaussian, Series
from pyroformer.models.likelihoods import Undrawn
from pyroformer.priors import Fixed, Normal, SettingError

MISSING = -100


def observed(likelihood, outputs, y, drawn=None):
    """The log-density ``[..., B]`` of the observations."""

    def model():
        with pyro.plate("data", outputs.shape[-2 - bool(getattr(likelihood, "per_token", False))], dim=-1):
            likelihood(outputs, y, drawn or {})

    trace = poutine.trace(model).get_trace()
    trace.compute_log_prob()
    return trace.nodes["obs"]["log_prob"]


def normal_density(y, loc, scale):
    return -0.5 * ((y - loc) / scale) ** 2 - torch.as_tensor(scale).log() - 0.5 * math.log(2 * math.pi)


def test_categorical_is_the_cross_entropy():
    logits, y = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    torch.testing.assert_close(observed(Categorical(), logits, y), -F.cross_entropy(logits, y, reduction="none"))
    assert not torch.allclose(
        observed(Categorical(), logits, (y + 1) % 3), -F.cross_entropy(logits, y, reduction="none")
    )


def test_per_token_labels_may_be_missing():
    logits = torch.randn(4, 5, 3)
    y = torch.randint(3, (4, 5))
    y[0, 2], y[1, :], y[3, 4] = MISSING, MISSING, MISSING
    expected = -F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view(4, 5).sum(1)
    found = observed(Categorical(per_token=True), logits, y)
    torch.testing.assert_close(found, expected)
    assert found[1] == 0
    planted = observed(Categorical(per_token=True), logits, y.clamp(min=0))  # a missing label taken for class 0
    assert not torch.allclose(found, planted)


def test_missing_labels_have_no_gradient():
    logits = torch.randn(2, 3, 4, requires_grad=True)
    y = torch.tensor([[1, MISSING, 2], [MISSING, MISSING, MISSING]])
    (slope,) = torch.autograd.grad(observed(Categorical(per_token=True), logits, y).sum(), logits)
    assert torch.equal(slope.abs().sum(-1) > 0, y != MISSING)


@pytest.mark.parametrize("noise", ["fixed", "learned"])
def test_gaussian(noise):
    likelihood, loc, y = Gaussian(noise=noise, scale=0.3), torch.randn(4, 2), torch.randn(4, 2)
    torch.testing.assert_close(observed(likelihood, loc, y), normal_density(y, loc, 0.3).sum(-1))
    assert not torch.allclose(observed(likelihood, loc, y), normal_density(y, loc, 0.31).sum(-1))  # planted
    assert likelihood.log_scale.requires_grad == (noise == "learned")
    assert likelihood.sites() == {} == likelihood.initial_values()


def test_learned_noise_has_the_gradient_of_its_scale():
    likelihood, loc, y = Gaussian(noise="learned", scale=0.3), torch.randn(400, 2), torch.randn(400, 2)
    observed(likelihood, loc, y).sum().backward()
    by_hand = (((y - loc) / 0.3).square() - 1).sum()  # d log p / d log scale
    torch.testing.assert_close(likelihood.log_scale.grad, by_hand)


def test_random_noise_is_a_site(build, batch_of):
    model = BayesianModel(build(Series(5, 2)), Fixed(), Gaussian(noise="random", scale=0.3)).double()
    x, y = batch_of(Series(5, 2)), torch.randn(4, 3, dtype=torch.float64)
    trace = poutine.trace(model).get_trace(x, y, 40)
    trace.compute_log_prob()
    site, obs = trace.nodes["noise_scale"], trace.nodes["obs"]
    scale = site["value"]
    assert scale.shape == () and scale > 0 and site["cond_indep_stack"] == () and site["scale"] == 1
    by_hand = normal_density(scale.log(), math.log(0.3), 1.0) - scale.log()
    torch.testing.assert_close(site["log_prob"], by_hand)
    torch.testing.assert_close(obs["unscaled_log_prob"], normal_density(y, model(x), scale).sum(-1))
    torch.testing.assert_close(obs["log_prob"], 10 * obs["unscaled_log_prob"])
    torch.testing.assert_close(model.initial_values()["noise_scale"], torch.tensor(0.3, dtype=torch.float64))


def test_the_median_of_random_noise_is_the_scale():
    draws = torch.stack([Gaussian(noise="random", scale=0.3).sites()["noise_scale"] for _ in range(2000)])
    error = 0.5 / 2000**0.5
    below = (draws < 0.3).double().mean()
    assert abs(below - 0.5) < 5 * error
    assert abs((draws < 0.4).double().mean() - 0.5) > 5 * error  # planted


def test_random_noise_has_sample_dimensions():
    likelihood = Gaussian(noise="random")
    outputs, y = torch.randn(3, 4, 2), torch.randn(4, 2)
    scale = torch.tensor([[0.1], [1.0], [10.0]])
    found = likelihood.distribution(outputs, {"noise_scale": scale}).log_prob(y)
    torch.testing.assert_close(found, normal_density(y, outputs, scale.unsqueeze(-1)).sum(-1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaussian(scale=0.0), "scale = 0.0: expected a number above 0"),
        (lambda: Gaussian(noise="none"), "noise = 'none': expected one of fixed, learned, random"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(SettingError, match=message):
        make()


@pytest.mark.parametrize(
    ("likelihood", "outputs", "y", "message"),
    [
        (
            Categorical(),
            (4, 3),
            torch.zeros(4, 1).long(),
            r"torch.int64 of shape \(4, 1\): .* whole numbers of shape \(4,\)",
        ),
        (Categorical(), (4, 3), torch.zeros(4), r"y is torch.float32 of shape \(4,\): expected whole numbers"),
        (Categorical(), (4, 3), torch.tensor([0, 1, 3, 2]), "y holds the label 3: expected 0 to 2"),
        (Categorical(), (4, 3), torch.tensor([0, 1, MISSING, 2]), "y holds the label -100: expected 0 to 2"),
        (Categorical(per_token=True), (2, 2, 3), torch.tensor([[0, MISSING], [-1, 2]]), "y holds the label -1"),
        (Categorical(per_token=True), (2, 2, 3), torch.zeros(2).long(), r"expected whole numbers of shape \(2, 2\)"),
        (Gaussian(), (4, 1), torch.zeros(4), r"torch.float32 of shape \(4,\): expected real numbers of shape \(4, 1\)"),
        (Gaussian(), (4, 1), torch.zeros(4, 1).long(), "y is torch.int64 .*: expected real numbers"),
    ],
)
def test_observations_that_do_not_fit_are_named(likelihood, outputs, y, message):
    with pytest.raises(ValueError, match=message):
        likelihood.check(torch.zeros(outputs), y)


def test_observations_that_fit_pass():
    Categorical().check(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))
    Categorical(per_token=True).check(torch.zeros(2, 2, 3), torch.tensor([[0, MISSING], [1, 2]]))
    Gaussian().check(torch.zeros(4, 2), torch.zeros(4, 2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("likelihood", "y"),
    [(Gaussian(), torch.zeros(4)), (Categorical(), torch.zeros(4, 1).long()), (Gaussian(), torch.zeros(1, 1))],
)
def test_observations_are_never_broadcast(likelihood, y):
    """Against outputs ``[4, 1]`` an ``y`` of shape ``[4]`` would make 16 pairs, without a word from Pyro."""
    model = BayesianModel(nn.Linear(2, 1), Normal(), likelihood)
    with pytest.raises(ValueError, match=r"y has shape .*: expected \(4"):
        model(torch.zeros(4, 2), y)
    pairs = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(4, 1), 1.0), 1)
    assert pairs.log_prob(torch.zeros(4, 4)).shape == (4,)  # planted: what a distribution makes of it


def test_models_copy_their_likelihood():
    likelihood = Gaussian(noise="learned")
    first, second = (BayesianModel(nn.Linear(2, 1), Normal(), likelihood) for _ in range(2))
    assert first.likelihood.log_scale is not second.likelihood.log_scale is not likelihood.log_scale
    assert "likelihood.log_scale" in first.learned
    assert isinstance(BayesianModel(nn.Linear(2, 2), Normal()).likelihood, Categorical)


def test_observations_may_be_left_undrawn():
    model, x, y = BayesianModel(nn.Linear(2, 3), Normal()), torch.randn(4, 2), torch.tensor([0, 2, 1, 1])
    for given in (None, y):
        with Undrawn():
            trace = poutine.trace(model).get_trace(x, given)
        assert trace.nodes["_RETURN"]["value"].shape == (4, 3) and trace.nodes["weight"]["value"].any()
        assert trace.nodes["obs"]["value"].shape == (() if given is None else (4,))
    assert poutine.trace(model).get_trace(x).nodes["obs"]["value"].shape == (4,)  # without it they are drawn
