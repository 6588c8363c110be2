"""The masses that chains begin with: the variances of priors, in unconstrained numbers."""

import math

import pytest
import torch

from pyroformer.inference.density import Layout
from pyroformer.inference.prior_variances import DRAWS, prior_variances
from pyroformer.models import BayesianModel, Gaussian, Linear
from pyroformer.priors import Cauchy, Hierarchical, Improper, Normal


def variances(prior, dtype=torch.float32):
    torch.manual_seed(0)
    model = BayesianModel(Linear(20, 30).to(dtype), prior, Gaussian(scale=1.0))
    layout = Layout(model, (torch.zeros(5, 20, dtype=dtype), torch.zeros(5, 30, dtype=dtype)))
    return layout, prior_variances(model, layout)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_site_has_the_variance_of_its_prior(dtype):
    layout, found = variances({"weight": Normal(scale=0.3), "bias": Normal(scale=2.0)}, dtype)
    assert found.shape == (630,) and found.dtype == dtype
    for name, scale in (("weight", 0.3), ("bias", 2.0)):
        begin, end = layout.offsets[name]
        part = found[begin:end]
        assert (part == part[0]).all()
        # the deviation of a median of |x| over n normal draws is .79 / sqrt(n) of it, twice that for squares
        assert abs(part[0] / scale**2 - 1) < 5 * 2 * 0.8 * (DRAWS * len(part)) ** -0.5 + 2 / DRAWS
        assert abs(part[0] / scale - 1) > 0.3  # planted: no square


def test_heavy_tails_have_a_width():
    """The median of |x| of a Cauchy distribution is its scale."""
    _, found = variances(Cauchy(scale=0.1))
    assert abs(found[0].sqrt() / (1.4826 * 0.1) - 1) < 0.15


def test_flat_priors_have_one():
    assert (variances(Improper())[1] == 1).all()


def test_positive_numbers_are_measured_on_the_line(monkeypatch):
    """The logarithm of a half-Cauchy number has the median distance ln tan(3 pi / 8) from its median."""
    monkeypatch.setattr("pyroformer.inference.prior_variances.DRAWS", 4000)
    layout, found = variances(Hierarchical(prior=Normal(scale=0.3)))
    begin, end = layout.offsets["weight_scale"]
    assert end == begin + 1
    expected = 1.4826 * math.log(math.tan(3 * math.pi / 8))
    assert abs(float(found[begin].sqrt()) / expected - 1) < 0.12
