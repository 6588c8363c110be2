"""The density of a guide: that of its own draws, by torch's distributions and by hand."""

import math

import pytest
import torch
from torch.distributions import LogNormal as TorchLogNormal
from torch.distributions import Normal as TorchNormal

from pyroformer.guides import Delta, Guide, MeanField
from pyroformer.models import BayesianModel, Gaussian
from pyroformer.priors import Normal

X = torch.linspace(-1, 1, 4).unsqueeze(-1).double()


@pytest.fixture
def guide():
    torch.manual_seed(0)
    model = BayesianModel(torch.nn.Linear(1, 2), Normal(), Gaussian(scale=0.5)).double()
    guide = Guide(model, MeanField(init_scale=0.3), (X[:2],))
    with torch.no_grad():
        guide.families[0].log_scale.copy_(torch.linspace(-2, 0.2, 4))
    return guide


def test_mean_field_is_a_product_of_normals(guide):
    draws, family = guide.draw(5, X[:2]), guide.families[0]
    flat = torch.cat([draws["weight"].flatten(1), draws["bias"].flatten(1)], 1)
    by_hand = TorchNormal(family.loc, family.scale).log_prob(flat).sum(1)
    torch.testing.assert_close(guide.log_prob(draws), by_hand)
    assert not torch.allclose(guide.log_prob(draws), by_hand.flip(0))  # planted: another draw's


def test_a_positive_site_counts_the_change_of_variables():
    model = BayesianModel(torch.nn.Linear(1, 1), Normal(), Gaussian(noise="random")).double()
    guide = Guide(model, MeanField(init_scale=0.3), (X[:2],))
    draws, family = guide.draw(5, X[:2]), guide.families[0]
    assert list(family.shapes) == ["weight", "bias", "noise_scale"]
    weights = torch.cat([draws["weight"].flatten(1), draws["bias"].flatten(1)], 1)
    plain = TorchNormal(family.loc[:2], family.scale[:2]).log_prob(weights).sum(1)
    loc, scale, noise = family.loc[2], family.scale[2], draws["noise_scale"]
    torch.testing.assert_close(guide.log_prob(draws), plain + TorchLogNormal(loc, scale).log_prob(noise))
    without = TorchNormal(loc, scale).log_prob(noise.log())
    assert not torch.allclose(guide.log_prob(draws), plain + without)  # planted: no Jacobian


@torch.no_grad()
def test_it_integrates_to_one(guide):
    """The mean of 1 / q over its own draws inside a box is the volume of the box over its probability."""
    draws, family = guide.draw(20_000, X[:2]), guide.families[0]
    flat = torch.cat([draws["weight"].flatten(1), draws["bias"].flatten(1)], 1)
    inside = ((flat - family.loc).abs() < family.scale).all(1)
    weights = inside / guide.log_prob(draws).exp()
    volume = float((2 * family.scale).prod())
    error = float(weights.std()) / math.sqrt(len(flat))
    assert abs(float(weights.mean()) - volume) < 5 * error
    assert abs(float(weights.mean()) - 1.2 * volume) > 5 * error  # planted


def test_point_masses_have_no_density():
    model = BayesianModel(torch.nn.Linear(1, 1), Normal(), Gaussian(scale=0.5)).double()
    guide = Guide(model, {"bias": Delta(), "*": MeanField()}, (X[:2],))
    with pytest.raises(NotImplementedError, match="Delta has no density"):
        guide.log_prob(guide.draw(2, X[:2]))
