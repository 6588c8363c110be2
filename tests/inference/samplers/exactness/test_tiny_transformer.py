"""The posterior of a tiny transformer, kept by every sampler, against moments that no Markov chain has made."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pyroformer.inference import SGHMC, SGLD, SGNHT, ConstantSteps, Data, Monitor
from pyroformer.inference.density import FlatDensity
from pyroformer.inference.samplers import (
    AdjustedMCLMCKernel,
    Chains,
    ChEESKernel,
    HMCKernel,
    MCLMCKernel,
    NUTSKernel,
    SNAPERKernel,
    Streams,
    collect,
)
from pyroformer.inference.stochastic_gradient import sampling

tiny = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tiny_transformer.py"))))

RUNS = {
    "hmc": (HMCKernel(length=0.8), 0.04, 24, 20),
    "chees": (ChEESKernel(length=0.8), 0.06, 24, 16),
    "snaper": (SNAPERKernel(length=1.0), 0.06, 24, 12),
    "microcanonical": (AdjustedMCLMCKernel(length=0.6), 1.0, 24, 20),
    "unadjusted": (MCLMCKernel(length=0.6, steps_per_draw=5), 0.4, 24, 12),
    "nuts": (NUTSKernel(max_tree_depth=4), 0.04, 8, 3),
}
"""Kernels, step sizes, chains and draws of each; of what rejects nothing the step is so small that its bias is."""
COARSE = {"hmc": 0.08, "chees": 0.1, "microcanonical": 3.0}
"""Steps after which ends must be rejected; without warm-up those of SNAPER are those of ChEES."""
GRADIENTS = {
    SGLD: {"small": {"learning_rate": 0.02}, "large": {"learning_rate": 0.24}},
    SGHMC: {"small": {"learning_rate": 0.01}, "large": {"learning_rate": 0.17}},
    SGNHT: {"small": {"learning_rate": 0.01}, "large": {"learning_rate": 0.17}},
}
"""Learning rates whose bias is far below the errors, and far above."""


@pytest.fixture(scope="module")
def reference():
    return json.loads(tiny.TABLE.read_text("utf-8"))


@pytest.fixture(scope="module")
def density():
    x, y = tiny.data()
    return FlatDensity(tiny.tiny(), (x[: tiny.EXAMPLES], y[: tiny.EXAMPLES]))


@pytest.fixture(scope="module")
def starts(density):
    """Draws of the posterior ``[24, D]``: draws of the prior that are drawn again by their likelihood."""
    model, generator = tiny.tiny(), torch.Generator().manual_seed(9)
    draws = [tiny.prior_draws(model, 1000, generator) for _ in range(20)]
    likelihood = torch.cat([tiny.functions(model, each)[:, 0] for each in draws])
    chosen = torch.multinomial(torch.softmax(likelihood, 0), 24, replacement=True, generator=generator)
    return torch.cat([density.flatten(each) for each in draws])[chosen]


@pytest.fixture
def apart(reference, excess):
    """Of means, and of squares around the reference's means, from the reference: a share of what chance explains."""

    def measured(found):
        """Of the functions of draws, ``[K, S, 6]``."""
        mean, variance = (torch.tensor(reference[each]).double() for each in ("mean", "variance"))
        errors = torch.tensor([*reference["mean_error"], *reference["variance_error"]]).double()
        values = torch.cat([found, (found - mean) ** 2], -1)
        return excess(values, torch.cat([mean, variance]), error=errors)

    return measured


@pytest.fixture
def distance(starts, density, apart):
    """The distance from the reference of what a kernel draws."""

    def measured(name, log_prob_and_grad=density.log_prob_and_grad, step_size=None, streams=Streams):
        kernel, usual, count, draws = RUNS[name]
        step_size = step_size or usual
        chains = Chains(log_prob_and_grad, kernel, starts[:count], warmup_steps=0, step_size=step_size)
        chains.streams = streams(2, count)
        z = collect(chains, draws).z
        assert (z[:, 0] - z[:, -1]).abs().mean() > 0.1  # chains do move
        return apart(tiny.functions(tiny.tiny(), density.unflatten(z.flatten(0, 1))).unflatten(0, z.shape[:2]))

    return measured


def test_the_table_is_that_of_this_model(reference):
    model = tiny.tiny()
    assert sum(site.value.numel() for site in model.sites.values()) == 182
    assert tiny.at_the_centre(model) == pytest.approx(reference["at_the_centre"], rel=1e-9)
    assert reference["effective_draws"] > 2000
    assert reference["mean"][0] > reference["guessing"] + 3  # it has learnt something


@pytest.mark.parametrize("name", RUNS)
def test_draws_have_the_moments_of_the_reference(name, distance):
    assert distance(name) < 1


def test_a_temperature_is_noticed(distance, density):
    def tempered(z):
        return tuple(part / 2 for part in density.log_prob_and_grad(z))

    assert distance("hmc", tempered) > 1


@pytest.mark.parametrize("name", COARSE)
def test_ends_that_are_always_taken_are_noticed(name, distance, planted):
    assert distance(name, step_size=COARSE[name], streams=planted.accepting) > 1


def test_large_steps_that_nobody_adjusts_are_noticed(distance):
    assert distance("unadjusted", step_size=3.0) > 1


@pytest.fixture(scope="module")
def minibatch_density():
    """All data in the batch of each of the chains, whose operations are written down once for all tests."""
    x, y = tiny.data()
    data = Data(x[: tiny.EXAMPLES], y[: tiny.EXAMPLES])
    sizes = {"batch_size": tiny.EXAMPLES, "chains": 24, "temperature": 1.0}
    return data, sampling.MinibatchDensity(tiny.tiny(), data, **sizes, trace=True)


@pytest.fixture
def by_gradients(starts, density, minibatch_density, monkeypatch):
    """The functions of what stochastic-gradient chains draw from the same starts, ``[K, S, 6]``."""
    data, shared = minibatch_density
    monkeypatch.setattr(sampling, "MinibatchDensity", lambda *given, **settings: shared)

    def drawn(kind, **settings):
        driver = kind(
            chains=len(starts),
            num_samples=12,
            epochs=80,
            batch_size=tiny.EXAMPLES,
            schedule=ConstantSteps(burn_in=0.25),
            **settings,
        )
        named = density.unflatten(starts)
        values = [{name: value[chain] for name, value in named.items()} for chain in range(len(starts))]
        chains = sampling.Sampling(driver, tiny.tiny(), None, values, data, 3)
        posterior = chains.run(Monitor())
        assert (chains.z - starts).abs().mean() > 0.3  # chains do move
        return tiny.functions(tiny.tiny(), posterior.draws).unflatten(0, (len(starts), -1))

    return drawn


@pytest.mark.parametrize("kind", GRADIENTS)
def test_small_steps_along_gradients_have_the_moments_of_the_reference(kind, by_gradients, apart):
    assert apart(by_gradients(kind, **GRADIENTS[kind]["small"])) < 1


@pytest.mark.parametrize("kind", GRADIENTS)
def test_large_steps_along_gradients_are_too_wide(kind, by_gradients, apart, reference):
    """A step widens what it is large for, where the likelihood is narrow: the net fits less well than it should."""
    found = by_gradients(kind, **GRADIENTS[kind]["large"])
    assert apart(found) > 1
    likelihood = found[..., 0].mean(1)
    assert likelihood.mean() + 5 * likelihood.std() / len(likelihood) ** 0.5 < reference["mean"][0]
