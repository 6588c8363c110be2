"""The posterior of a tiny transformer, kept by every kernel, against moments that no Markov chain has made."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pyroformer.inference.density import FlatDensity
from pyroformer.inference.samplers import AdjustedMCLMCKernel, Chains, HMCKernel, NUTSKernel, Streams, collect

tiny = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tiny_transformer.py"))))

RUNS = {
    "hmc": (HMCKernel(length=0.8), 0.04, 24, 20),
    "microcanonical": (AdjustedMCLMCKernel(length=0.6), 1.0, 24, 20),
    "nuts": (NUTSKernel(max_tree_depth=4), 0.04, 8, 3),
}
"""Kernels, step sizes, chains and draws of each."""


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
def distance(reference, starts, density, excess):
    """Of means, and of squares around the reference's means, from the reference: a share of what chance explains."""

    def measured(name, log_prob_and_grad=density.log_prob_and_grad, step_size=None, streams=Streams):
        kernel, usual, count, draws = RUNS[name]
        step_size = step_size or usual
        chains = Chains(log_prob_and_grad, kernel, starts[:count], warmup_steps=0, step_size=step_size)
        chains.streams = streams(2, count)
        z = collect(chains, draws).z
        assert (z[:, 0] - z[:, -1]).abs().mean() > 0.1  # chains do move
        found = tiny.functions(tiny.tiny(), density.unflatten(z.flatten(0, 1))).unflatten(0, z.shape[:2])
        mean, variance = (torch.tensor(reference[each]).double() for each in ("mean", "variance"))
        errors = torch.tensor([*reference["mean_error"], *reference["variance_error"]]).double()
        values = torch.cat([found, (found - mean) ** 2], -1)
        return excess(values, torch.cat([mean, variance]), error=errors)

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


def test_ends_that_are_always_taken_are_noticed(distance, planted):
    assert distance("hmc", step_size=0.08, streams=planted.accepting) > 1
