"""Chains that went wrong, run by our samplers: each ends in a verdict that names what is wrong and what to try."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyroformer.inference.diagnostics import diagnose, table, verdict
from pyroformer.inference.samplers import HMCKernel, NUTSKernel
from pyroformer.priors import Improper, Normal

GUESS = -60 * math.log(2)


def said(found, topic):
    """The finding about a topic, or None."""
    return next((finding for finding in found.findings if finding.topic == topic), None)


@pytest.fixture(scope="module")
def healthy(ran, logistic, classes, posterior_of):
    model = logistic(Normal(scale=1.0))
    found = ran(model, (classes.x, classes.y), draws=800, warmup=100)  # the log-density is worth a third of them
    return posterior_of(model, found, classes, guess_log_likelihood=GUESS)


def judged(posterior, data, **settings):
    return diagnose(posterior, data.x, data.y, num_data=60, target_accept=0.8, **settings)


def test_nothing_speaks_against_sound_chains(healthy, classes):
    found = judged(healthy, classes)
    assert found.verdict.level == "good", found.verdict.summary
    topics = {finding.topic for finding in found.verdict.findings}
    assert topics == {"learning", "divergences", "acceptance", "energy", "agreement", "effective draws"}
    assert found.verdict.summary.startswith("Nothing speaks against these chains: ")
    assert "the posterior has learnt" in found.verdict.summary


def test_the_null_posterior_is_named(ran, logistic, classes, posterior_of):
    """A prior so narrow that nothing is learnt: all else looks excellent."""
    model = logistic(Normal(scale=0.001))
    scales = {"inverse_mass": torch.full((8,), 1e-6), "step_size": 0.6}
    start = 0.001 * torch.randn(4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = ran(model, (classes.x, classes.y), start=start, draws=120, warmup=0, **scales)
    got = judged(posterior_of(model, found, classes, guess_log_likelihood=GUESS), classes).verdict
    assert got.level == "bad"
    assert [finding.topic for finding in got.of("bad")] == ["learning"]
    assert "null posterior" in got.summary and "-41.6" in got.summary and "wider prior" in got.summary


def funnel():
    """A scale that spans orders of magnitude, and eight numbers of it (Neal, 2003)."""
    scale = pyro.sample("scale", dist.Normal(torch.zeros((), dtype=torch.float64), 3.0))
    pyro.sample("x", dist.Normal(torch.zeros(8, dtype=torch.float64), (scale / 2).exp()).to_event(1))


def test_a_divergent_model_is_named(ran):
    found = ran(funnel, kernel=HMCKernel(target_accept=0.65), draws=150)
    assert found.statistics["divergent"].any()
    got = verdict(table(found.quantities), found.statistics, target_accept=0.65)
    finding = said(got, "divergences")
    assert got.level == "bad" and finding.level in ("caution", "bad")
    assert f"{int(found.statistics['divergent'].sum())} of 600 transitions diverged" in finding.text
    assert "target_accept" in finding.advice and "non-centred" in finding.advice


def test_a_flat_direction_of_an_improper_prior_is_named(ran, logistic, classes, posterior_of, healthy):
    """Both biases may grow together: the classes' probabilities do not change."""
    model = logistic({"bias": Improper(), "weight": Normal(scale=1.0)})
    found = ran(model, (classes.x, classes.y), kernel=HMCKernel(length=2.0), draws=160, warmup=0, step_size=0.25)
    got = judged(posterior_of(model, found, classes, guess_log_likelihood=GUESS), classes).verdict
    finding = said(got, "drift")
    assert finding.level == "bad" and "flat direction: bias" in finding.text and "proper prior" in finding.advice
    assert "flat direction" in got.summary
    # planted: a flat prior that the data hold; the difference of the biases is
    held = {"bias": found.draws["bias"].diff(dim=-1).unflatten(0, (4, 160))}
    assert said(verdict([], found.statistics, flat=held), "drift") is None
    # planted: draws of a proper prior
    proper = {"bias": healthy.draws["bias"].unflatten(0, (4, 800))}
    assert said(verdict([], found.statistics, flat=proper), "drift") is None


def root():
    """A root whose gradient is no number on one side of 1: 0 times infinity."""
    value = pyro.sample("value", dist.Normal(torch.ones((), dtype=torch.float64), 1.0))
    mean = (value - 1).clamp(min=0).sqrt()
    pyro.sample("seen", dist.Normal(mean, 0.1), obs=torch.full((), -3.0, dtype=torch.float64))


def test_a_gradient_that_is_no_number_is_named(ran):
    start = torch.full((2, 1), 1.01, dtype=torch.float64)
    found = ran(root, kernel=HMCKernel(), start=start, warmup=0, draws=20, step_size=0.2)
    got = verdict(table(found.quantities), found.statistics, target_accept=0.8)
    finding = said(got, "gradient")
    assert got.level == "bad"
    assert finding.text.startswith("all chains never moved and every transition diverged: the gradient is probably NaN")
    assert "float64" in finding.advice
    assert said(got, "divergences") is None  # one cause, told once
    assert "nothing to judge" in said(got, "agreement").text


def test_trees_that_are_cut_off_are_named(ran, logistic, classes):
    model = logistic(Normal(scale=1.0))
    found = ran(model, (classes.x, classes.y), kernel=NUTSKernel(max_tree_depth=1), chains=2, draws=40, warmup=30)
    got = verdict(table(found.quantities), found.statistics, max_tree_depth=1)
    assert "cut off at the largest tree depth, 1" in said(got, "tree depth").text
    assert "max_tree_depth 3" in said(got, "tree depth").advice
    assert said(verdict(table(found.quantities), found.statistics, max_tree_depth=6), "tree depth") is None
