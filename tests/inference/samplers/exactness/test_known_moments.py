"""Moments of draws after warm-up, on densities whose moments are known, within what chance explains."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyroformer.inference.density import FlatDensity
from pyroformer.inference.samplers import (
    AdjustedMCLMCKernel,
    Chains,
    ChEESKernel,
    HMCKernel,
    MCLMCKernel,
    NUTSKernel,
    SNAPERKernel,
    collect,
)

KERNELS = {
    "hmc": HMCKernel(),
    "chees": ChEESKernel(),
    "snaper": SNAPERKernel(),
    "microcanonical": AdjustedMCLMCKernel(length=1.0, target_accept=0.7),
    "unadjusted": MCLMCKernel(energy_variance=1e-4, steps_per_draw=4),
    "nuts": NUTSKernel(max_tree_depth=7),
}
SIZES = {name: (4, 64, 8) if name == "nuts" else (40, 80, 1) for name in KERNELS}
"""Chains, draws of each, and batches of these: 40 or 32 independent means, about."""


class Target:
    """A density, the values of which the means are known, and those means.

    Args:
        density: Vectors ``[K, D]`` or ``[D]`` to log-densities and gradients.
        start: A start that is no draw of it, ``[D]``.
        spread: Of the starts of chains, ``[D]`` or a number.
        values: Draws ``[K, S, D]`` to values ``[K, S, M]``.
        expected: The means, ``[M]``.
        wrong: What they would be of another density, ``[M]``.
    """

    def __init__(self, density, start, spread, values, expected, wrong):
        self.density, self.start, self.spread = density, start, spread
        self.values, self.expected, self.wrong = values, expected, wrong


def second_moments(white):
    """Whitened numbers ``[..., D]``, their squares and the mean square ``[..., 2 D + 1]``: means 0, 1 and 1."""
    return torch.cat([white, white.square(), white.square().mean(-1, keepdim=True)], -1)


def first_and_second(size):
    return torch.cat([torch.zeros(size), torch.ones(size + 1)]).double()


def correlated_gaussian():
    """50 dimensions, variances from 0.1 to 10 in directions that no axis has."""
    generator = torch.Generator().manual_seed(7)
    axes, _ = torch.linalg.qr(torch.randn(50, 50, generator=generator, dtype=torch.float64))
    sd = torch.logspace(-0.5, 0.5, 50, dtype=torch.float64)
    precision, mean = axes @ torch.diag(sd**-2) @ axes.T, torch.linspace(-1, 1, 50, dtype=torch.float64)

    def density(z):
        gradient = (mean - z) @ precision
        return 0.5 * ((z - mean) * gradient).sum(-1), gradient

    def values(z):
        return second_moments((z - mean) @ axes / sd)

    expected = first_and_second(50)
    return Target(density, mean + 1, 1.0, values, expected, 1.15 * expected)


def funnel():
    v = pyro.sample("v", dist.Normal(torch.zeros(()).double(), 3.0))
    raw = pyro.sample("raw", dist.Normal(torch.zeros(4).double(), 1.0).to_event(1))
    pyro.deterministic("x", (v / 2).exp() * raw)


def non_centred_funnel():
    """Neal's funnel; the tails of its neck and mouth are counted, 5 % of all draws."""

    def values(z):
        white = z / torch.tensor([3.0, 1.0, 1.0, 1.0, 1.0]).to(z)
        tails = (white[..., :1].abs() > 1.959964).to(z)
        return torch.cat([second_moments(white), tails], -1)

    expected = torch.cat([first_and_second(5), torch.tensor([0.05]).double()])
    return Target(FlatDensity(funnel).log_prob_and_grad, torch.ones(5).double(), 1.0, values, expected, 2 * expected)


def linear_model(line):
    """A linear regression of the package, with its exact posterior."""
    density = FlatDensity(line.model().double(), (line.x.double(), line.y.double()))
    mean, root = line.mean(), torch.linalg.cholesky(line.covariance())

    def values(z):
        flat = line.flat(density.unflatten(z.flatten(0, 1)))
        white = torch.linalg.solve_triangular(root, (flat - mean).T, upper=False).T
        products = white[:, [0, 0, 0, 1, 1, 2]] * white[:, [1, 2, 3, 2, 3, 3]]
        return torch.cat([second_moments(white), products], -1).unflatten(0, z.shape[:2])

    expected = torch.cat([first_and_second(4), torch.zeros(6).double()])
    return Target(density.log_prob_and_grad, torch.zeros(4).double(), 0.5, values, expected, 1.3 * expected)


def noisy_line(x, y):
    slope = pyro.sample("slope", dist.Normal(torch.zeros(()).to(x), 2.0))
    scale = pyro.sample("scale", dist.Gamma(torch.tensor(2.0).to(x), 2.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(slope * x, scale), obs=y)


def line_by_quadrature():
    """Slope and noise of five points: a skew posterior, over a grid in slope and logarithm of the noise."""
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)
    y = torch.tensor([-1.1, -0.2, 0.4, 0.1, 0.9], dtype=torch.float64)
    slope = torch.linspace(-6, 8, 701, dtype=torch.float64).view(-1, 1, 1)
    log_scale = torch.linspace(-4, 3, 701, dtype=torch.float64).view(-1, 1)
    errors = ((y - slope * x) / log_scale.exp()).square().sum(-1)
    log_scale = log_scale.squeeze(-1)
    prior = -0.5 * (slope.squeeze(-1) / 2) ** 2 + log_scale - 2 * log_scale.exp()
    joint = prior - 0.5 * errors - 5 * log_scale

    def moments(slope, log_scale):
        scale = log_scale.exp()
        return torch.stack([slope, slope**2, log_scale, log_scale**2, scale, slope * log_scale, slope**2 * scale], -1)

    at = moments(*(each.flatten() for each in torch.broadcast_tensors(slope.squeeze(-1), log_scale)))
    expected, wrong = (torch.softmax((joint + jacobian * log_scale).flatten(), 0) @ at for jacobian in (1, -1))
    density = FlatDensity(noisy_line, (x, y)).log_prob_and_grad
    return Target(density, torch.zeros(2).double(), 0.3, lambda z: moments(z[..., 0], z[..., 1]), expected, wrong)


def drawn(target, kernel, name, streams=None, warmup_steps=60):
    """What draws of the target give, ``[K, S, M]``; random numbers may be planted after warm-up."""
    count, draws, _ = SIZES[name]
    noise = torch.randn(count, len(target.start), generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    chains = Chains(target.density, kernel, target.start + target.spread * noise, seed=9, warmup_steps=warmup_steps)
    while chains.index < warmup_steps:
        chains.step()
    if streams is not None:
        chains.streams = streams(10, count)
    return target.values(collect(chains, draws).z)


@pytest.fixture(scope="module")
def targets(line):
    return {
        "correlated": correlated_gaussian(),
        "funnel": non_centred_funnel(),
        "linear": linear_model(line),
        "quadrature": line_by_quadrature(),
    }


CASES = [(name, target) for name in KERNELS for target in ("correlated", "funnel") if name != "unadjusted"]
CASES += [("hmc", "linear"), ("microcanonical", "linear")]  # others: test_linear_chains.py, test_linear_nuts.py
CASES += [("hmc", "quadrature"), ("nuts", "quadrature"), ("unadjusted", "funnel")]


@pytest.mark.parametrize(("name", "target"), CASES)
def test_moments_are_the_known_ones(name, target, targets, excess):
    target, batches = targets[target], SIZES[name][2]
    values = drawn(target, KERNELS[name], name)
    assert excess(values, target.expected, batches=batches) < 1
    assert excess(values, target.wrong, batches=batches) > 1  # planted


@pytest.mark.parametrize("name", ["hmc", "chees", "snaper", "microcanonical"])
def test_planted_random_numbers_are_noticed(name, targets, planted, excess):
    target = targets["correlated"]
    values = drawn(target, KERNELS[name], name, planted.accepting)
    assert excess(values, target.expected) > 1


def test_large_steps_that_nobody_adjusts_are_noticed(targets, excess):
    """Their bias is of second order, so they are far: the funnel's neck and mouth are visited too seldom."""
    target = targets["funnel"]
    values = drawn(target, MCLMCKernel(energy_variance=0.3, steps_per_draw=2), "unadjusted")
    assert excess(values, target.expected) > 1
    assert values[..., -1].mean() < target.expected[-1]


@pytest.mark.parametrize("step_size", [0.5, 1.0])
def test_all_ends_taken_leave_the_shadow_density(step_size, planted, excess):
    r"""On independent normal numbers leapfrog steps keep :math:`(1 - \epsilon^2 / 4) z^2 + r^2`, whatever their number.

    So without rejections the variance is :math:`1 / (1 - \epsilon^2 / 4)` (Neal, 2011, Sec. 4.3 has the bound).
    """
    shadow = 1 / (1 - step_size**2 / 4)

    def density(z):
        return -0.5 * z.square().sum(-1), -z

    found = {}
    for each in ("taken", "accepted"):
        start = torch.randn(100, 10, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        start = start * (shadow**0.5 if each == "taken" else 1)
        chains = Chains(density, HMCKernel(length=2.0), start, seed=2, warmup_steps=0, step_size=step_size)
        if each == "taken":
            chains.streams = planted.accepting(2, 100)
        found[each] = collect(chains, 60).z
    squares = {each: z.square().mean(-1, keepdim=True) for each, z in found.items()}
    assert excess(squares["taken"], shadow) < 1 and excess(squares["accepted"], 1.0) < 1
    assert excess(squares["taken"], 1.0) > 1 and excess(squares["accepted"], shadow) > 1  # planted: exchanged
