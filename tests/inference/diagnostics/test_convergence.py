"""Statistics of chains where the answer is known."""

import pytest
import torch

from pyroformer.inference.diagnostics import (
    autocorrelation,
    chunks,
    e_bfmi,
    ess_bulk,
    ess_mean,
    ess_tail,
    mcse_mean,
    mcse_sd,
    r_hat,
)
from pyroformer.inference.diagnostics.ranks import average_ranks
from pyroformer.priors import SettingError

EVERY = [r_hat, ess_bulk, ess_mean, ess_tail, mcse_mean, mcse_sd]


def autoregressive(memory, chains=4, draws=500, count=40, seed=0):
    """Stationary chains ``[K, S, M]`` of unit variance with correlations ``memory ** t``."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(chains, draws, count, generator=generator, dtype=torch.float64)
    noise[:, 1:] *= (1 - memory**2) ** 0.5
    for t in range(1, draws):
        noise[:, t] += memory * noise[:, t - 1]
    return noise


@pytest.mark.parametrize("memory", [0.5, 0.9, -0.4])
def test_chains_with_memory_are_worth_what_theory_says(memory):
    values = autoregressive(memory)
    shuffled = values[:, torch.randperm(500, generator=torch.Generator().manual_seed(1))]
    worth = 2000 * (1 - memory) / (1 + memory)
    for estimate in (ess_bulk, ess_mean):
        found = estimate(values) / worth
        error = found.std() / len(found) ** 0.5
        assert abs(found.mean() - 1) < 5 * error + 0.05  # the truncated sum leaves out a little
        assert abs((estimate(shuffled) / worth).mean() - 1) > 5 * error + 0.05  # planted: no memory
    assert abs(autocorrelation(values)[1].mean() - memory) < 0.02


def test_standard_errors_are_the_spread_of_estimates():
    """Over independent sets of chains, the means and standard deviations are spread as their errors say."""
    values = autoregressive(0.6, draws=400, count=300, seed=1)
    spread_of_means = values.mean((0, 1)).std()
    spread_of_sds = values.flatten(0, 1).std(0).std()
    room = 5 * (0.5 / 300) ** 0.5 + 0.05
    assert abs(mcse_mean(values).mean() / spread_of_means - 1) < room
    assert abs(mcse_sd(values).mean() / spread_of_sds - 1) < room
    naive = values.flatten(0, 1).std(0).mean() / 1600**0.5  # planted: draws taken for independent
    assert abs(naive / spread_of_means - 1) > room


def test_r_hat_sees_other_means_and_other_scales():
    values = autoregressive(0.3)
    assert r_hat(values).max() < 1.02
    apart = values + torch.tensor([0.0, 0.0, 0.0, 1.0]).view(4, 1, 1)
    assert r_hat(apart).min() > 1.05
    wider = values * torch.tensor([1.0, 1.0, 1.0, 3.0]).view(4, 1, 1)
    assert r_hat(wider).min() > 1.05
    halves = autoregressive(0.3, chains=1)
    halves[:, 250:] += 1.0
    assert r_hat(halves).min() > 1.05  # one chain against itself


def test_r_hat_without_the_folded_part_would_miss_other_scales():
    from pyroformer.inference.diagnostics.r_hat import plain_r_hat
    from pyroformer.inference.diagnostics.ranks import normal_scores, split_chains

    wider = autoregressive(0.3) * torch.tensor([1.0, 1.0, 1.0, 3.0]).view(4, 1, 1)
    assert plain_r_hat(normal_scores(split_chains(wider))).max() < 1.03


def test_heavy_tails_have_an_effective_size():
    values = torch.distributions.Cauchy(0.0, 1.0).sample((4, 500, 20)).double()
    assert ess_bulk(values).min() > 1200
    assert ess_tail(values).min() > 1000


def test_energies_of_slow_chains_have_a_small_fraction():
    fast, slow = (autoregressive(memory, count=1)[..., 0] for memory in (0.0, 0.95))
    assert e_bfmi(fast).min() > 1.7  # independent energies: 2
    assert e_bfmi(slow).max() < 0.3
    assert e_bfmi(torch.ones(2, 10)).isnan().all()


def test_ranks_of_equal_numbers_are_shared():
    found = average_ranks(torch.tensor([[3.0, 1.0], [1.0, 1.0], [3.0, 1.0], [2.0, 0.0]]))
    assert found.tolist() == [[3.5, 3.0], [1.0, 3.0], [3.5, 3.0], [2.0, 1.0]]


@pytest.mark.parametrize("statistic", EVERY, ids=lambda s: s.__name__)
def test_many_quantities_are_as_each_alone_whatever_their_shape(statistic, monkeypatch):
    values = autoregressive(0.5, draws=60, count=12)
    alone = torch.stack([statistic(values[..., i]) for i in range(12)])
    assert torch.allclose(statistic(values), alone)
    monkeypatch.setattr(chunks, "MOST_NUMBERS", 4 * 60 * 5)
    assert torch.allclose(statistic(values.float().reshape(4, 60, 3, 4)), alone.reshape(3, 4), rtol=1e-3)


@pytest.mark.parametrize("statistic", EVERY, ids=lambda s: s.__name__)
def test_what_has_no_statistic_is_nan_and_leaves_others_alone(statistic):
    values = autoregressive(0.5, draws=60, count=4)
    alone = statistic(values)
    values[..., 1], values[0, 3, 2] = 7.0, torch.nan
    found = statistic(values)
    assert found.isnan().tolist() == [False, True, True, False]
    assert torch.equal(found[[0, 3]], alone[[0, 3]])
    with pytest.raises(SettingError, match="at least 4 draws"):
        statistic(values[:, :3])
