"""Priors over weights: densities by hand, draws against their law, and what every prior must be able to do."""

import copy
import dataclasses
import math
import pickle

import pytest
import torch
from scipy import stats

from pyroformer import priors
from pyroformer.priors import (
    Fixed,
    HierarchicalPrior,
    Hyperprior,
    Improper,
    Learned,
    Normal,
    PointEstimate,
    Prior,
    RowCenter,
    RowPrior,
    Site,
)

FIVE_SIGMA = 2 * stats.norm.sf(5)


def site(*shape, fan_in=1, center=0.0, dtype=torch.float64):
    return Site("weight", torch.randn(shape, dtype=dtype), fan_in, center)


def normal_density(values, center, scale):
    return sum(
        -0.5 * ((v - center) / scale) ** 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)
        for v in values.flatten().tolist()
    )


@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 3, 2, 2)])
@pytest.mark.parametrize("center", [0.0, 1.0])
@pytest.mark.parametrize(("scaling", "factor"), [("absolute", 1.0), ("fan_in", math.sqrt(2 / 7))])
def test_normal_is_its_density_by_hand(shape, center, scaling, factor):
    prior = Normal(scale=0.3, scaling=scaling).distribution(site(*shape, fan_in=7, center=center))
    assert prior.batch_shape == () and prior.event_shape == shape
    value = torch.randn(shape, dtype=torch.float64)
    found = prior.log_prob(value).item()
    assert found == pytest.approx(normal_density(value, center, 0.3 * factor), rel=1e-12)
    assert found != pytest.approx(normal_density(value, center, 0.31 * factor), rel=1e-3)  # planted
    assert found != pytest.approx(normal_density(value, 1 - center, 0.3 * factor), rel=1e-3)  # planted


def test_a_bare_tensor_has_the_fan_in_of_its_last_axis():
    prior = Normal(scaling="fan_in")
    weight, bias = prior("weight", torch.zeros(3, 8)), prior("bias", torch.zeros(3))
    torch.testing.assert_close(weight.stddev, torch.full((3, 8), 0.5))
    torch.testing.assert_close(bias.stddev, torch.full((3,), math.sqrt(2)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("prior", [Normal(scaling="fan_in"), Improper()])
def test_priors_follow_the_dtype_of_the_parameter(prior, dtype):
    draw = prior.distribution(site(4, 3, dtype=dtype)).sample()
    assert draw.dtype == dtype and draw.shape == (4, 3)


def test_draws_follow_their_law():
    draws = Normal(scale=0.5, scaling="fan_in").distribution(site(100, 100, fan_in=8, center=1.0)).sample()

    def p_value(loc, scale):
        return stats.kstest(draws.flatten().numpy(), stats.norm(loc, scale).cdf).pvalue

    assert p_value(1, 0.25) > FIVE_SIGMA
    assert p_value(1, 0.29) < FIVE_SIGMA  # planted: a scale 1.15 times as large
    assert p_value(0.97, 0.25) < FIVE_SIGMA  # planted: another centre


def log_density_and_gradient(prior, value):
    value = value.clone().requires_grad_()
    log_prob = prior.log_prob(value)
    gradient = torch.autograd.grad((log_prob + 0 * value.sum()).sum(), value)[0]
    return log_prob.detach(), gradient


def test_improper_is_flat():
    place = site(3, 2, center=1.0)
    for value in (place.value, 1e6 * place.value, torch.zeros_like(place.value)):
        log_prob, gradient = log_density_and_gradient(Improper().distribution(place), value)
        assert log_prob.shape == () and log_prob == 0 and not gradient.any()
    log_prob, gradient = log_density_and_gradient(Normal().distribution(place), place.value)
    assert log_prob != 0 and gradient.any()  # planted: a proper prior


def test_improper_draws_are_finite_starts_around_the_centre(standard_errors):
    draws = Improper().distribution(site(3, center=1.0)).sample((4000,))
    assert standard_errors(draws, 1.0) < 5
    assert standard_errors(draws, 0.0) > 5  # planted


def test_point_estimates_say_whether_they_are_trained():
    assert Learned().trained and not Fixed().trained


EVERY = [cls for name in priors.__all__ if isinstance(cls := getattr(priors, name), type)]
KINDS = Prior | HierarchicalPrior | Hyperprior | RowPrior | RowCenter | PointEstimate
CHOICES = [c for c in EVERY if issubclass(c, KINDS) and not c.__abstractmethods__]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda cls: cls.__name__)
def test_every_choice_is_a_frozen_value_that_can_be_copied(choice):
    built = choice()
    assert pickle.loads(pickle.dumps(built)) == built == copy.deepcopy(built)
    assert hash(built) == hash(choice())
    with pytest.raises(TypeError):
        choice(1.0)  # settings are keyword-only
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
        built.kl_weight = 3.0


@pytest.mark.parametrize("prior", [c for c in CHOICES if issubclass(c, Prior)], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("shape", [(), (4,), (3, 4), (2, 3, 4, 5)])
def test_every_prior_has_the_parameter_as_its_event(prior, shape):
    made = prior().distribution(site(*shape, fan_in=3, center=1.0))
    assert made.batch_shape == () and made.event_shape == shape
    assert made.log_prob(made.sample()).shape == ()
