"""Families fitted to weights: known ones are found again, and held-out likelihoods are hand sums."""

import math

import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from pyroformer.priors import ExponentialPower, Mixture
from pyroformer.weight_study import families
from pyroformer.weight_study.families import FAMILIES, log_likelihood
from pyroformer.weight_study.held_out import compared, held_out
from pyroformer.weight_study.moments import excess_kurtosis, kurtosis_over_seeds

N = 4000
ZERO = torch.zeros((), dtype=torch.float64)
LAWS = {
    "normal": dist.Normal(ZERO, ZERO + 0.3),
    "laplace": dist.Laplace(ZERO, ZERO + 0.3),
    "cauchy": dist.Cauchy(ZERO, ZERO + 0.3),
    "student_t": dist.StudentT(ZERO + 5, ZERO, ZERO + 0.3),
    "generalized_normal": ExponentialPower(ZERO, ZERO + 0.3, ZERO + 5),
}


def draws(law, count=N, seed=0):
    torch.manual_seed(seed)
    return law.sample((count,))


def errors(law, parameters, count=N):
    """Standard errors of maximum likelihood estimates of log parameters: from the Fisher information, by scores."""
    torch.manual_seed(1)
    x = law.sample((4000,))
    # parameters of its own for each draw, so that one gradient holds all scores, [n, parameters]
    logs = torch.tensor([math.log(value) for value in parameters.values()], dtype=torch.float64)
    logs = logs.repeat(len(x), 1).requires_grad_()
    at = dict(zip(parameters, logs.exp().unbind(-1), strict=True))
    (scores,) = torch.autograd.grad(type(law)(**{"loc": ZERO.expand(len(x)), **at}).log_prob(x).sum(), logs)
    return (scores.T @ scores / len(x) * count).inverse().diagonal().sqrt()


TRUTH = {
    "normal": {"scale": 0.3},
    "laplace": {"scale": 0.3},
    "cauchy": {"scale": 0.3},
    "student_t": {"df": 5.0, "scale": 0.3},
    "generalized_normal": {"scale": 0.3, "power": 5.0},
}


@pytest.mark.parametrize("family", TRUTH)
def test_parameters_are_found_again(family):
    fitted = FAMILIES[family][0](draws(LAWS[family]))
    allowed = 5 * errors(LAWS[family], TRUTH[family])
    distance = torch.tensor([math.log(getattr(fitted, name) / value) for name, value in TRUTH[family].items()]).abs()
    assert (distance < allowed).all(), (distance, allowed)
    planted = torch.tensor([math.log(getattr(fitted, name) / (1.6 * v)) for name, v in TRUTH[family].items()]).abs()
    assert (planted > allowed).any()


@pytest.mark.parametrize("factor", [1e-6, 1e3])
def test_scales_may_be_small_or_large(factor):
    for family in FAMILIES:
        one, other = FAMILIES[family][0](draws(LAWS["laplace"])), FAMILIES[family][0](factor * draws(LAWS["laplace"]))
        x = draws(LAWS["laplace"], 100, seed=2)
        assert log_likelihood(other, factor * x) == pytest.approx(log_likelihood(one, x) - math.log(factor), abs=1e-3)


def test_a_maximum_is_a_maximum():
    x = draws(LAWS["student_t"])
    for family, (fit, _) in FAMILIES.items():
        best = fit(x)
        if isinstance(best, Mixture):
            continue
        for name in TRUTH[family]:
            for factor in (0.98, 1.02):
                moved = type(best)(**{**vars(best), name: getattr(best, name) * factor})
                assert log_likelihood(moved, x) < log_likelihood(best, x)


def test_a_mixture_finds_spike_and_slab():
    x = torch.cat([0.05 * draws(LAWS["normal"]), draws(LAWS["normal"], N // 2, seed=1) * 2])
    found = families.mixture(x)
    slab, spike = found.components
    assert (slab.scale, spike.scale) == pytest.approx((0.6, 0.015), rel=0.07)
    assert found.weights == pytest.approx((1 / 3, 2 / 3), abs=0.04) and sum(found.weights) == pytest.approx(1)


@pytest.mark.parametrize("family", TRUTH)
def test_the_right_family_wins(family):
    fits, winner = compared([draws(LAWS[family], seed=seed) for seed in range(4)])
    assert winner == family
    assert [fit.held_out for fit in fits] == sorted((fit.held_out for fit in fits), reverse=True)
    assert fits[0].behind == 0 and all(fit.behind >= 0 for fit in fits)
    other = "laplace" if family != "laplace" else "normal"
    assert compared([draws(LAWS[other], seed=seed) for seed in range(4)])[1] != family  # planted: another law


def test_held_out_likelihood_is_a_hand_sum():
    seeds = [torch.tensor(pair, dtype=torch.float64) for pair in ((0.1, -0.3), (0.5, 0.2), (-0.4, 0.0))]
    scale = math.sqrt((0.25 + 0.04 + 0.16) / 4)
    by_hand = sum(-0.5 * (w / scale) ** 2 - math.log(scale) - 0.5 * math.log(2 * math.pi) for w in (0.1, -0.3)) / 2
    assert held_out(seeds)["normal"][0] == pytest.approx(by_hand, abs=1e-9)
    scale = (0.1 + 0.3 + 0.4) / 4
    by_hand = sum(-abs(w) / scale - math.log(2 * scale) for w in (0.5, 0.2)) / 2
    assert held_out(seeds)["laplace"][1] == pytest.approx(by_hand, abs=1e-9)
    inside = (0.1 + 0.3 + 0.5 + 0.2 + 0.4) / 6  # planted: the seed itself fitted too
    assert held_out(seeds)["laplace"][1] != pytest.approx(-0.35 / inside - math.log(2 * inside), abs=1e-3)


def test_one_net_that_differs_makes_the_error_large():
    same = [draws(LAWS["laplace"], seed=seed) for seed in range(4)]
    fits, _ = compared(same)
    apart, _ = compared([*same[:3], draws(LAWS["normal"], seed=3)])
    error = {
        name: next(fit.error for fit in found if fit.family == "normal")
        for name, found in (("same", fits), ("apart", apart))
    }
    assert error["apart"] > 3 * error["same"]


@pytest.mark.parametrize(("name", "expected"), [("normal", 0.0), ("laplace", 3.0)])
def test_excess_kurtosis_is_known(name, expected):
    mean, error = kurtosis_over_seeds([draws(LAWS[name], 20000, seed) for seed in range(20)])
    assert abs(mean - expected) < 5 * error
    assert abs(mean + 3 - expected) > 5 * error  # planted: not in excess
    assert excess_kurtosis(torch.ones(5)) == 0.0


def test_excess_kurtosis_of_a_heavy_tail():
    """With 5 degrees of freedom it is 6, less what the tail beyond the largest of evenly spaced quantiles adds."""
    levels = (torch.arange(500_000, dtype=torch.float64) + 0.5) / 500_000
    x = torch.from_numpy(stats.t.ppf(levels.numpy(), 5))
    reach = float(x.max())
    density = math.gamma(3) / (math.gamma(2.5) * math.sqrt(5 * math.pi)) * 5**3
    missing = 2 * density / reach  # of the fourth moment, beyond the largest quantile
    variance = 5 / 3
    assert excess_kurtosis(x) == pytest.approx((25 - missing) / variance**2 - 3, rel=0.1)
    assert excess_kurtosis(x) < 6
    sample, error = kurtosis_over_seeds([draws(dist.StudentT(ZERO + 12, ZERO, ZERO + 1), 20000, s) for s in range(20)])
    assert abs(sample - 6 / (12 - 4)) < 5 * error
    assert abs(sample - 3) > 5 * error  # planted: the Laplace distribution's
