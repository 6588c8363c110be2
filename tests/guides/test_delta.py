"""Point masses."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI

from pyroformer.guides import Delta, Guide, MeanField
from pyroformer.inference import OnePassELBO
from pyroformer.models import BayesianModel
from pyroformer.priors import Normal

X = torch.linspace(-1, 1, 12)


def test_delta_finds_the_maximum_of_a_constrained_density():
    """The mode of Gamma(3, 2) is 1 in its own space; in log space it would be 3/2."""

    def model(x):
        pyro.sample("rate", dist.Gamma(3.0, 2.0))

    guide = Guide(model, Delta(), (X,))
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), OnePassELBO())
    for _ in range(400):
        svi.step(X)
    assert abs(guide.draw(1, X)["rate"].item() - 1.0) < 0.01


@pytest.mark.parametrize("family", [Delta, MeanField])
def test_draws_are_copies(family):
    """Whoever keeps draws does not see the posterior move, nor moves it."""
    model = BayesianModel(torch.nn.Linear(1, 2), Normal())
    guide = Guide(model, family(), (X[:2, None],))
    draws = guide.draw(1, X[:2, None])
    kept = draws["weight"].clone()
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(1.0)
    assert torch.equal(draws["weight"], kept) and not draws["weight"].requires_grad
    moved = [p.detach().clone() for p in guide.parameters()]
    draws["weight"].zero_()
    assert all(torch.equal(a, b) for a, b in zip(guide.parameters(), moved, strict=True))


def test_all_draws_are_the_point():
    model = BayesianModel(torch.nn.Linear(1, 2), Normal())
    guide = Guide(model, Delta(), (X[:2, None],))
    draws = guide.draw(5, X[:2, None])
    assert torch.equal(draws["weight"], model.net.weight.detach().expand(5, 2, 1))
    assert draws["bias"].shape == (5, 2)


def test_the_kl_of_a_point_is_minus_its_log_prior():
    model = BayesianModel(torch.nn.Linear(1, 2), Normal(scale=0.3))
    guide = Guide(model, Delta(), (X[:2, None],))
    y = torch.zeros(12, dtype=torch.long)
    by_hand = sum(torch.distributions.Normal(0.0, 0.3).log_prob(p).sum() for p in model.net.parameters())
    for objective in (OnePassELBO(), OnePassELBO(num_particles=3), OnePassELBO(temperature=0.1)):
        assert torch.allclose(objective.terms(guide, X[:, None], y).kl, -by_hand)
    assert torch.allclose(OnePassELBO(temperature=0.1).terms(guide, X[:, None], y).entropy, torch.tensor(0.0))
