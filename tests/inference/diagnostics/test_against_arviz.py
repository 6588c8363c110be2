"""Statistics of chains against those of ArviZ."""

import warnings

import pytest
import torch

from pyroformer.inference.diagnostics import (
    autocorrelation,
    e_bfmi,
    ess_bulk,
    ess_mean,
    ess_tail,
    mcse_mean,
    mcse_sd,
    r_hat,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of versions to come
    arviz = pytest.importorskip("arviz", minversion="0.23")

ESTIMATES = {
    "r_hat": (r_hat, lambda x: arviz.rhat(x, method="rank")),
    "ess_bulk": (ess_bulk, lambda x: arviz.ess(x, method="bulk")),
    "ess_tail": (ess_tail, lambda x: arviz.ess(x, method="tail")),
    "ess_mean": (ess_mean, lambda x: arviz.ess(x, method="mean")),
    "mcse_mean": (mcse_mean, lambda x: arviz.mcse(x, method="mean")),
    "mcse_sd": (mcse_sd, lambda x: arviz.mcse(x, method="sd")),
}


def walks(chains, draws, count, seed=0):
    """Chains of several quantities: from nearly independent to slow, antithetic, heavy-tailed, rounded, apart."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(chains, draws, count, generator=generator, dtype=torch.float64)
    memory = torch.linspace(-0.7, 0.97, count, dtype=torch.float64)
    found = noise.clone()
    for t in range(1, draws):
        found[:, t] = memory * found[:, t - 1] + noise[:, t]
    found[..., 1] = found[..., 1] ** 3
    found[..., 2] = found[..., 2].round()
    found[..., 3] += torch.arange(chains).unsqueeze(1)
    return found


@pytest.mark.parametrize("name", ESTIMATES)
def test_chains_without_their_order_would_be_noticed(name):
    ours, theirs = ESTIMATES[name]
    values = walks(4, 150, 8)[..., 5]
    expected = float(theirs(values.numpy()))
    assert float(ours(values)) == pytest.approx(expected, rel=1e-6)
    assert float(ours(values.flatten().roll(40).unflatten(0, (4, 150)))) != pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ESTIMATES)
@pytest.mark.parametrize("shape", [(4, 150), (2, 37), (3, 4)], ids=str)
def test_estimates_are_those_of_arviz(name, shape):
    ours, theirs = ESTIMATES[name]
    values = walks(*shape, 8)
    found = ours(values)
    expected = torch.tensor([float(theirs(values[..., i].numpy())) for i in range(values.shape[-1])])
    assert torch.allclose(found, expected.double(), rtol=1e-6, equal_nan=True)


def test_energies_and_correlations_are_those_of_arviz():
    values = walks(4, 150, 8)
    energy = values[..., 6]
    assert torch.allclose(e_bfmi(energy), torch.from_numpy(arviz.bfmi(energy.numpy())))
    theirs = torch.from_numpy(arviz.autocorr(values[:1, :, 5].numpy()))[0]
    assert torch.allclose(autocorrelation(values[:1, :, 5:6])[:, 0], theirs, atol=1e-12)
