"""Flows: where they start, that they are inverted exactly, and a target that no normal distribution fits."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyroformer.guides import Flow, FullRank, Guide
from pyroformer.guides.flow import _orders
from pyroformer.inference import OnePassELBO
from pyroformer.models import BayesianModel
from pyroformer.priors import Normal, SettingError

X = torch.linspace(-1, 1, 4).unsqueeze(-1)


def net(size):
    torch.manual_seed(0)
    return BayesianModel(torch.nn.Linear(size, 2), Normal())


def test_it_starts_as_a_narrow_normal():
    guide = Guide(net(3), Flow(init_scale=0.2), (torch.zeros(2, 3),))
    family = guide.families[0]
    flat = family.sample(50)
    normal = dist.Normal(family.loc, 0.2).to_event(1)
    torch.testing.assert_close(family.log_density(flat), normal.log_prob(flat))
    assert not torch.allclose(family.log_density(flat), dist.Normal(family.loc, 0.21).to_event(1).log_prob(flat))


@pytest.mark.parametrize("size", [1, 2, 3])
@torch.no_grad()
def test_the_density_is_that_of_the_way_there(size):
    """By the determinant of the map from noise to weights, at a flow that is not the identity."""
    model = net(size).double()
    family = Guide(model, Flow(hidden=5), (torch.zeros(2, size).double(),)).families[0]
    for p in family.parameters():
        p.add_(0.5 * torch.randn_like(p))
    z = torch.randn(len(family.loc), dtype=torch.float64)

    def there(z):
        for transform in family.distribution().transforms:
            z = transform(z)
        return z

    jacobian = torch.autograd.functional.jacobian(there, z)
    by_hand = dist.Normal(0.0, 1.0).log_prob(z).sum() - jacobian.det().abs().log()
    torch.testing.assert_close(family.log_density(there(z).clone()), by_hand)
    assert not torch.allclose(family.log_density(there(z) + 0.1), by_hand)  # planted


@pytest.mark.parametrize(("size", "layers"), [(2, 4), (5, 3), (8, 1)])
def test_orders_lead_back_and_halves_are_exchanged(size, layers):
    where, seen = torch.arange(size), []
    for step in _orders(size, layers):
        where = where[step]
        seen.append(where)
    assert torch.equal(where, torch.arange(size))
    for first, second in zip(seen[0:layers:2], seen[1:layers:2], strict=False):
        assert not set(first[: size // 2].tolist()) & set(second[: size // 2].tolist())


def banana(x):
    """A normal number, and one that is near its square."""
    a = pyro.sample("a", dist.Normal(torch.tensor(0.0), 1.0))
    pyro.sample("b", dist.Normal(a**2, 0.3))


def fitted(family):
    torch.manual_seed(0)
    guide = Guide(banana, family, (X,), init={"a": torch.tensor(0.0), "b": torch.tensor(1.0)})
    optimizer = torch.optim.Adam(guide.parameters(), 0.02)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
    objective = OnePassELBO(num_particles=64)
    for _ in range(300):
        optimizer.zero_grad()
        objective.loss_and_grads(banana, guide, X)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        draws = guide.draw(5000, X)
        log_p = dist.Normal(0.0, 1.0).log_prob(draws["a"]) + dist.Normal(draws["a"] ** 2, 0.3).log_prob(draws["b"])
        logs = log_p - guide.log_prob(draws)
    weights = logs.softmax(0)
    return float(-logs.mean()), float(logs.std()) / len(logs) ** 0.5, float(1 / (weights.square().sum() * len(logs)))


def test_a_banana_is_out_of_reach_of_normal_distributions():
    """The KL to the target by draws, and the effective share of importance samples."""
    kl, error, share = fitted(Flow(init_scale=0.3))
    normal_kl, normal_error, normal_share = fitted(FullRank(init_scale=0.3))
    assert kl > -5 * error
    assert kl + 5 * error < normal_kl - 5 * normal_error - 0.3
    assert share > normal_share + 0.2


def test_a_single_number_and_too_many_are_refused():
    def one(x):
        pyro.sample("a", dist.Normal(0.0, 1.0))

    with pytest.raises(SettingError, match="'a': expected at least two numbers for a flow"):
        Guide(one, Flow(), (X,))
    with pytest.raises(SettingError, match=r"max_size = 7: expected a max_size of at least 8, .*rest to mean_field"):
        Guide(net(3), Flow(max_size=7), (torch.zeros(2, 3),))
    assert Guide(net(3), Flow(max_size=8), (torch.zeros(2, 3),)).sites == ("weight", "bias")
