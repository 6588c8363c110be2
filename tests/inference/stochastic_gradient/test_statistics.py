"""Densities of draws on all data, against the density that samplers use."""

import pytest
import torch

from pyroformer.inference import Data, DrawsPosterior
from pyroformer.inference.density import FlatDensity
from pyroformer.inference.log_likelihood import convergence
from pyroformer.inference.stochastic_gradient.statistics import densities


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_densities_are_those_of_all_data_with_the_jacobian(line, temperature):
    model = line.model(noise="random", scale=1.0).double()
    data = Data(line.x.double(), line.y.double())
    exact = FlatDensity(model, (data.x, data.y), temperature=temperature, trace=False)
    z = exact.start() + 0.3 * torch.randn(5, exact.size, dtype=torch.float64)
    posterior = DrawsPosterior(model, exact.unflatten(z))
    volume = z[:, -1]  # of the noise, which is an exponential
    likelihood, density = densities(posterior, volume, data, temperature=temperature, batch_size=16)  # 16, 16 and 8
    assert torch.allclose(density, exact.log_prob_and_grad(z)[0])
    draws = exact.unflatten(z)
    outputs = line.flat(draws) @ line.design.T
    by_hand = torch.distributions.Normal(outputs, draws["noise_scale"][:, None]).log_prob(data.y[:, 0]).sum(1)
    assert torch.allclose(likelihood, by_hand)
    assert not torch.allclose(density - volume, exact.log_prob_and_grad(z)[0])  # planted: no Jacobian


def test_convergence_needs_draws():
    assert set(convergence(torch.randn(2, 3))) == {"mean", "sd"}
    assert convergence(torch.tensor([[2.0]])) == {"mean": 2.0, "sd": 0.0}
    apart = convergence(torch.randn(2, 50) + torch.tensor([[0.0], [5.0]]))
    assert apart["r_hat"] > 1.5 > convergence(torch.randn(2, 50))["r_hat"]
