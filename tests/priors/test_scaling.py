"""Scales relative to the size of the net, by hand."""

import math

import pytest
import torch

from pyroformer import priors
from pyroformer.priors import (
    Cauchy,
    GeneralizedNormal,
    Laplace,
    MatrixNormal,
    Mixture,
    MultivariateT,
    Normal,
    ScaledPrior,
    ScaleMixture,
    Site,
    StudentT,
    Uniform,
)

SITE = Site("weight", torch.zeros(2, 3), fan_in=8, residual_writes=4)
ROOTS = [Normal, Laplace, StudentT, GeneralizedNormal, Uniform, MatrixNormal, MultivariateT]


@pytest.mark.parametrize("prior", ROOTS)
@pytest.mark.parametrize(("scaling", "expected"), [("absolute", 0.3), ("fan_in", 0.3 * 0.5), ("depth", 0.3 * 0.25)])
def test_scales_that_fall_with_the_root(prior, scaling, expected):
    scale = prior(scale=0.3, scaling=scaling).scale_of(SITE)
    torch.testing.assert_close(scale, torch.full((2, 3), expected))


@pytest.mark.parametrize(("scaling", "expected"), [("absolute", 0.3), ("fan_in", 0.3 / 8), ("depth", 0.3 / 32)])
def test_scales_of_cauchy_entries_fall_in_proportion(scaling, expected):
    scale = Cauchy(scale=0.3, scaling=scaling).scale_of(SITE)
    torch.testing.assert_close(scale, torch.full((2, 3), expected))


@pytest.mark.parametrize("prior", [*ROOTS, Cauchy])
def test_depth_is_fan_in_for_layers_that_do_not_write_into_the_stream(prior):
    inner = Site("weight", torch.zeros(2, 3), fan_in=8)
    assert torch.equal(prior(scaling="depth").scale_of(inner), prior(scaling="fan_in").scale_of(inner))


@pytest.mark.parametrize(("prior", "power"), [(Normal, 0.5), (Cauchy, 1.0)])
def test_the_sum_over_the_inputs_keeps_its_size(prior, power):
    """Its quartiles, for a Cauchy variable has no variance; the twin forgets the fan-in."""

    def quartile(fan_in, scaling="fan_in"):
        torch.manual_seed(0)
        site = Site("weight", torch.zeros(10_000, fan_in), fan_in=fan_in)
        return float(prior(scaling=scaling).distribution(site).sample().sum(1).quantile(0.75))

    assert math.log(quartile(64) / quartile(4)) == pytest.approx(0, abs=0.15)
    planted = math.log(quartile(64, "absolute") / quartile(4, "absolute"))
    assert planted == pytest.approx(power * math.log(16), abs=0.15)


def test_mixtures_leave_the_scale_to_their_components():
    mixed = Mixture(components=[Normal(scaling="fan_in"), Normal(scale=3.0)]).distribution(SITE).base_dist
    torch.testing.assert_close(mixed.variance, torch.full((2, 3), (0.25 + 9) / 2))
    scaled = ScaleMixture(prior=Normal(scaling="depth"), factors=(1.0, 2.0), weights=(3, 1)).distribution(SITE)
    torch.testing.assert_close(scaled.base_dist.variance, torch.full((2, 3), (3 + 4) / 4 / 16))


def test_every_scaled_prior_is_tested_here():
    exported = [cls for name in priors.__all__ if isinstance(cls := getattr(priors, name), type)]
    found = {cls for cls in exported if issubclass(cls, ScaledPrior) and not cls.__abstractmethods__}
    assert found == {*ROOTS, Cauchy}
