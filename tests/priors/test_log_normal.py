"""Log-normal gains: density by hand, draws, and refusal where there is no centre above 0."""

import pickle

import pytest
import torch
from scipy import stats
from torch import nn

from pyroformer.guides import MeanField
from pyroformer.inference import MAP, SVI, Data
from pyroformer.models import BayesianModel, Gaussian
from pyroformer.priors import Hierarchical, LogNormal, Normal, SettingError, Site

FIVE_SIGMA = 2 * stats.norm.sf(5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("center", [1.0, 2.0])
def test_the_density_is_that_by_hand(center, dtype):
    made = LogNormal(scale=0.3).distribution(Site("gain", torch.zeros(3, dtype=dtype), center=center))
    value = torch.tensor([0.5, 1.0, 2.5], dtype=dtype)
    by_hand = sum(stats.lognorm(0.3, scale=center).logpdf(v) for v in value.tolist())
    assert made.log_prob(value).item() == pytest.approx(by_hand, rel=1e-5) and made.sample().dtype == dtype
    wrong = sum(stats.lognorm(0.3, scale=1.1 * center).logpdf(v) for v in value.tolist())
    assert made.log_prob(value).item() != pytest.approx(wrong, rel=1e-3)  # planted
    again = pickle.loads(pickle.dumps(made.expand((4, 1))))
    torch.testing.assert_close(again.log_prob(value), made.log_prob(value).expand(4, 1))
    bare = LogNormal(scale=0.3)("gain", torch.zeros(3, dtype=dtype)).log_prob(value)
    assert torch.equal(bare, made.log_prob(value)) == (center == 1)


def test_draws_follow_their_law():
    draws = LogNormal(scale=0.4).distribution(Site("gain", torch.zeros(10_000), center=1.0)).sample()
    assert stats.kstest(draws.numpy(), stats.lognorm(0.4).cdf).pvalue > FIVE_SIGMA
    assert stats.kstest(draws.numpy(), stats.lognorm(0.5).cdf).pvalue < FIVE_SIGMA  # planted


def test_it_is_for_gains_alone():
    net = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1))
    with pytest.raises(SettingError, match="a weight with a centre above 0") as caught:
        BayesianModel(net, LogNormal())
    assert caught.value.value == "0.weight"
    x = torch.randn(6, 2)
    model = BayesianModel(net, {"1.weight": LogNormal(), "*": Normal()}, Gaussian())
    for driver, guide in ((SVI(epochs=2), MeanField()), (MAP(epochs=2, dtype="float64"), None)):
        draws = driver.run(model, guide, Data(x, x.sum(-1, keepdim=True))).draw(3)
        assert (draws["1.weight"] > 0).all()


@pytest.mark.parametrize(
    ("build", "key"),
    [(lambda: LogNormal(scale=0.0), "scale"), (lambda: Hierarchical(prior=LogNormal()), "prior")],
)
def test_wrong_settings(build, key):
    with pytest.raises(SettingError) as caught:
        build()
    assert caught.value.key == key
