"""Priors over attention rows: their concentrations by hand."""

import math

import pytest
import torch

from pyroformer.priors import ContextualRows, FlatRows, MaskedDirichlet, MatchedUniformRows, SoftmaxRows

PADDED = torch.tensor([[True, True, True, True], [True, True, False, False], [False, False, False, False]])
MASKS = {
    "none": None,
    "causal": torch.ones(4, 4, dtype=torch.bool).tril(),
    "padding": (PADDED[:, None, :] & PADDED[:, :, None])[:, None],
}
PRIORS = [FlatRows(), MatchedUniformRows(), ContextualRows(), SoftmaxRows()]


def activations(batch=3, heads=2, tokens=4, head_dim=5, lead=()):
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(*lead, batch, heads, tokens, head_dim, generator=generator, dtype=torch.float64)
    queries = torch.randn(keys.shape, generator=generator, dtype=torch.float64)
    return queries @ keys.mT / math.sqrt(head_dim), keys


def valid_entries(mask, shape):
    """Batch, head, query and the valid keys of every row that has some."""
    full = torch.ones(shape, dtype=torch.bool) if mask is None else mask.expand(shape)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in shape[:-1])).tolist():
        valid = full[tuple(index)].nonzero().flatten()
        if len(valid):
            yield tuple(index), valid


def softmax(logits):
    return [math.exp(z) / sum(math.exp(other) for other in logits) for z in logits]


def by_hand(prior, module, scores, keys, row, valid):
    """The concentrations of the valid entries of one row, from the formula in the docstring of its prior."""
    a0, n = prior.concentration, len(valid)
    if isinstance(prior, FlatRows):
        return [a0] * n
    if isinstance(prior, MatchedUniformRows):
        return [a0 / n] * n
    if isinstance(prior, SoftmaxRows):
        logits = [scores[row][j].item() for j in valid]
    else:
        batch, head, _ = row
        logits = []
        for j in valid.tolist():
            hidden = [max(0.0, (w @ keys[batch, head, j]).item()) for w in module.first]
            logits.append(sum(w * h for w, h in zip(module.second[0].tolist(), hidden, strict=True)))
    return [a0 * p + prior.floor for p in softmax(logits)]


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize(
    "prior",
    [
        FlatRows(concentration=0.7),
        MatchedUniformRows(concentration=6.0),
        ContextualRows(concentration=6.0, hidden=7, floor=0.3),
        SoftmaxRows(concentration=6.0, floor=0.3),
    ],
    ids=lambda prior: type(prior).__name__,
)
def test_concentrations_by_hand(prior, mask):
    scores, keys = activations()
    module = prior.build(keys.shape[-1]).double()
    rows = module(scores, keys, mask)
    assert isinstance(rows, MaskedDirichlet)
    assert rows.batch_shape == scores.shape[:-1] and rows.event_shape == scores.shape[-1:]
    for row, valid in valid_entries(mask, scores.shape):
        expected = torch.tensor(by_hand(prior, module, scores, keys, row, valid), dtype=torch.float64)
        torch.testing.assert_close(rows.concentration[row][valid].detach(), expected)
        assert not torch.allclose(1.01 * rows.concentration[row][valid], expected, rtol=1e-3)  # planted
    counted = torch.ones(scores.shape) if mask is None else mask.expand(scores.shape)
    assert torch.equal(rows.mean.detach() > 0, counted.bool())


def test_totals_of_matched_rows_do_not_depend_on_the_number_of_keys():
    scores, keys = activations()
    mask = MASKS["causal"]
    matched = MatchedUniformRows(concentration=6.0).build(5)(scores, keys, mask).total
    torch.testing.assert_close(matched, torch.full_like(matched, 6.0))
    flat = FlatRows(concentration=6.0).build(5)(scores, keys, mask).total
    assert not torch.allclose(flat, matched)  # planted


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: type(prior).__name__)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_sample_dimensions_lead(prior, mask):
    scores, keys = activations(lead=(6,))
    module = prior.build(5).double()
    together = module(scores, keys, mask)
    assert together.batch_shape == (6, 3, 2, 4)
    for s in range(6):
        alone = module(scores[s], keys[s], mask)
        torch.testing.assert_close(together.concentration[s], alone.concentration)


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: type(prior).__name__)
def test_only_softmax_rows_know_the_query(prior):
    scores, keys = activations()
    scores.requires_grad_()
    total = (prior.build(5).double()(scores, keys, None).concentration.square() + 0 * scores).sum()
    assert torch.autograd.grad(total, scores)[0].any() == isinstance(prior, SoftmaxRows)


def test_the_contextual_network_starts_at_one_over_fan_in_and_can_start_again(standard_errors):
    module = ContextualRows(hidden=4000).build(64)
    for weight, fan_in in ((module.first, 64), (module.second, 4000)):
        squares = fan_in * weight.detach().flatten().square()
        assert standard_errors(squares, 1.0) < 5
        assert standard_errors(1.3 * squares, 1.0) > 5  # planted
    before = module.first.detach().clone()
    module.reset_parameters()
    assert not torch.equal(before, module.first)


def test_gradients_reach_the_contextual_network_but_no_masked_key():
    scores, keys = activations()
    keys.requires_grad_()
    module = ContextualRows().build(5).double()
    rows = module(scores, keys, MASKS["padding"])
    loss = rows.log_prob(rows.rsample().detach()).sum()
    first, second, slope = torch.autograd.grad(loss, (module.first, module.second, keys))
    assert first.any() and second.any() and torch.isfinite(slope).all()
    assert slope[0].any() and not slope[1, :, 2:].any() and not slope[2].any()
