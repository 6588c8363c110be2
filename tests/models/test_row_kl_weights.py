"""How much the KL of rows counts: a weight, and a mean over entries and layers in the place of a sum."""

import math

import pytest
import torch
from pyro import poutine

from pyroformer.guides import DirichletRows as Posterior
from pyroformer.guides import Guide
from pyroformer.inference import OnePassELBO
from pyroformer.models import BayesianModel, Series
from pyroformer.priors import DirichletRows, FlatCenter, GammaRows, Learned, LearnedCenter

LAYERS, HEADS, B, T = 2, 2, 4, 5
LENGTHS = [5, 3, 1, 4]
VALID = torch.arange(T) < torch.tensor(LENGTHS)[:, None]
Y = torch.tensor([0, 2, 1, 1])
ENTRIES = {
    "full": [HEADS * T * T] * B,
    "causal": [HEADS * T * (T + 1) // 2] * B,
    "padded": [HEADS * n * n for n in LENGTHS],
    "padded and causal": [HEADS * n * (n + 1) // 2 for n in LENGTHS],
}


@pytest.fixture
def made(build, batch_of):
    """A model with rows at every layer, or by map, and a batch for it."""

    def make(prior, case="full"):
        net = build(Series(T, 2), causal="causal" in case)
        rows = prior if isinstance(prior, dict) else {"*.rows": prior}
        model = BayesianModel(net, {**rows, "*": Learned()}).double()
        x = batch_of(Series(T, 2))
        return model, (x, VALID) if "padded" in case else x

    return make


def row_nodes(model, x, num_data=None):
    trace = poutine.trace(model).get_trace(x, Y, num_data)
    trace.compute_log_prob()
    return {name: trace.nodes[name] for name in model.rows}


@pytest.mark.parametrize("case", ENTRIES)
def test_entries_and_layers_are_averaged_over(made, case):
    """Fan et al., 2020: the mean over entries, then over layers."""
    model, x = made(DirichletRows(kl_weight=0.3, kl_normalization="entries"), case)
    for node in row_nodes(model, x, num_data=40).values():
        plain = node["fn"].log_prob(node["value"])
        by_hand = sum(0.3 * 10 * plain[i] / (LAYERS * n) for i, n in enumerate(ENTRIES[case]))
        torch.testing.assert_close(node["log_prob_sum"], by_hand)
        assert not torch.allclose(node["log_prob_sum"], by_hand / LAYERS, rtol=1e-3)  # planted: layers twice
        if "padded" in case:
            blind = 0.3 * 10 * plain.sum() / (LAYERS * HEADS * T * T)
            assert not torch.allclose(node["log_prob_sum"], blind, rtol=1e-3)  # planted: padding counts


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("case", ENTRIES)
def test_the_bound_has_the_mean(made, case, particles):
    flat = {"center": FlatCenter()}
    plain, x = made(DirichletRows(**flat), case)
    model, _ = made(DirichletRows(**flat, kl_normalization="entries"), case)
    terms = []
    for each in (plain, model):
        guide = Guide(each, Posterior(), (x,))
        torch.manual_seed(1)
        terms.append((OnePassELBO(num_particles=particles).terms(guide, x, Y), guide))
    expected = 0.0
    for name in plain.rows:
        node = terms[0][1].trace.nodes[name]
        kl = torch.distributions.kl_divergence(node["fn"], node["infer"]["prior"]).expand(particles, B)
        expected += (kl / (LAYERS * torch.tensor(ENTRIES[case]))).sum() / particles
    torch.testing.assert_close(terms[1][0].local_kl, expected)
    assert not torch.allclose(terms[0][0].local_kl, expected, rtol=0.1)  # planted: the sum


def test_layers_with_other_priors_do_not_count(made):
    first, second = "blocks.0.attention.rows", "blocks.1.attention.rows"
    averaged = DirichletRows(kl_normalization="entries")
    model, x = made({first: averaged, second: GammaRows(kl_normalization="none")})
    assert row_nodes(model, x)[first]["scale"] == 1 / (HEADS * T * T)
    assert row_nodes(model, x)[second]["scale"] == 1
    alone, x = made({first: averaged})
    assert alone.rows == (first,) and row_nodes(alone, x)[first]["scale"] == 1 / (HEADS * T * T)
    both, x = made(averaged)
    assert row_nodes(both, x)[first]["scale"] == 1 / (LAYERS * HEADS * T * T)


def test_a_weight_of_zero_masks_the_site_whatever_the_normalization(made):
    model, x = made(DirichletRows(kl_weight=0.0, kl_normalization="entries"))
    assert all(node["mask"] is False for node in row_nodes(model, x).values())


@pytest.mark.parametrize(("shared", "numbers"), [("head", 4), ("layer", 2), ("global", 1)])
def test_layers_share_what_a_center_shares(made, shared, numbers):
    model, x = made(DirichletRows(center=LearnedCenter(start=0.2, shared=shared)))
    own = [p for name, p in model.learned.items() if "row_prior" in name]
    assert sum(p.numel() for p in own) == numbers
    with torch.no_grad():
        own[0].fill_(math.log(0.7))
    weights = [node["fn"].base_dist.concentration[0, 0, 0, 0].item() for node in row_nodes(model, x).values()]
    moved, start = 10 * 0.7 + 0.01, 10 * 0.2 + 0.01
    assert weights == pytest.approx([moved, moved if shared == "global" else start])
    fresh = model.reinitialized(1)
    again = [node["fn"].base_dist.concentration[0, 0, 0, 0].item() for node in row_nodes(fresh, x).values()]
    assert again == pytest.approx([start, start])


def test_priors_given_apart_share_nothing(made):
    center = LearnedCenter(shared="global")
    rows = {f"blocks.{i}.*.rows": DirichletRows(center=center, concentration=10.0 + i) for i in range(LAYERS)}
    model, _ = made(rows)
    assert sum(p.numel() for name, p in model.learned.items() if "row_prior" in name) == LAYERS


def test_a_flat_prior_is_uniform_on_the_simplex(made):
    model, x = made(DirichletRows(center=FlatCenter(), concentration=1.0, floor=0.0))
    for node in row_nodes(model, x).values():
        torch.testing.assert_close(node["log_prob"], torch.full((B,), HEADS * T * math.lgamma(T)).double())
