"""Priors over attention rows: the weights of centers and the parameters of laws by hand."""

import math

import pytest
import torch

from pyroformer.priors import (
    ContextualCenter,
    DirichletRows,
    FlatCenter,
    GammaRows,
    GumbelSoftmaxRows,
    LearnedCenter,
    LogisticNormalRows,
    LogNormalRows,
    MaskedDirichlet,
    MaskedGamma,
    MaskedGumbelSoftmax,
    MaskedLogisticNormal,
    MaskedLogNormal,
    MatchedUniformCenter,
    PositionalCenter,
    SoftmaxCenter,
    choice_name,
)

PADDED = torch.tensor([[True, True, True, True], [True, True, False, False], [False, False, False, False]])
MASKS = {
    "none": None,
    "causal": torch.ones(4, 4, dtype=torch.bool).tril(),
    "padding": (PADDED[:, None, :] & PADDED[:, :, None])[:, None],
}
CENTERS = [
    FlatCenter(),
    MatchedUniformCenter(),
    LearnedCenter(start=0.3),
    PositionalCenter(reach=2),
    ContextualCenter(hidden=7),
    SoftmaxCenter(),
]
LAWS = {
    DirichletRows(concentration=6.0, floor=0.3): MaskedDirichlet,
    GammaRows(concentration=6.0, floor=0.3): MaskedGamma,
    GammaRows(concentration=6.0, floor=0.3, rate=2.0): MaskedGamma,
    LogNormalRows(scale=0.7): MaskedLogNormal,
    LogisticNormalRows(scale=0.7): MaskedLogisticNormal,
    GumbelSoftmaxRows(temperature=0.7): MaskedGumbelSoftmax,
}
EVERY_MASK = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
EVERY_CENTER = pytest.mark.parametrize("center", CENTERS, ids=lambda center: choice_name(type(center)))


def activations(batch=3, heads=2, tokens=4, head_dim=5, lead=()):
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(*lead, batch, heads, tokens, head_dim, generator=generator, dtype=torch.float64)
    queries = torch.randn(keys.shape, generator=generator, dtype=torch.float64)
    return queries @ keys.mT / math.sqrt(head_dim), keys


def moved(module):
    """The module in double precision, off the start of its parameters."""
    module, generator = module.double(), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def valid_entries(mask, shape):
    """Batch, head, query and the valid keys of every row that has some."""
    full = torch.ones(shape, dtype=torch.bool) if mask is None else mask.expand(shape)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in shape[:-1])).tolist():
        valid = full[tuple(index)].nonzero().flatten()
        if len(valid):
            yield tuple(index), valid


def softmax(logits):
    return [math.exp(z) / sum(math.exp(other) for other in logits) for z in logits]


def weights_by_hand(center, module, scores, keys, row, valid):
    """The weights of the valid entries of one row, from the formula in the docstring of the center."""
    batch, head, query = row
    if isinstance(center, FlatCenter):
        return [1.0] * len(valid)
    if isinstance(center, MatchedUniformCenter):
        return [1 / len(valid)] * len(valid)
    if isinstance(center, LearnedCenter):
        return [math.exp(module.log_weight[head].item())] * len(valid)
    if isinstance(center, PositionalCenter):
        reach = center.reach
        distances = [min(reach, max(-reach, j - query)) for j in valid.tolist()]
        return softmax([module.logits[head, reach + distance].item() for distance in distances])
    if isinstance(center, SoftmaxCenter):
        return softmax([scores[row][j].item() for j in valid])
    logits = []
    for j in valid.tolist():
        hidden = [max(0.0, (w @ keys[batch, head, j]).item()) for w in module.first]
        logits.append(sum(w * h for w, h in zip(module.second[0].tolist(), hidden, strict=True)))
    return softmax(logits)


@EVERY_MASK
@EVERY_CENTER
def test_weights_by_hand(center, mask):
    scores, keys = activations()
    module = moved(center.build(keys.shape[-1], 2))
    weights = module(scores, keys, mask).expand(scores.shape).exp()
    assert weights.isfinite().all()
    for row, valid in valid_entries(mask, scores.shape):
        expected = torch.tensor(weights_by_hand(center, module, scores, keys, row, valid), dtype=torch.float64)
        torch.testing.assert_close(weights[row][valid].detach(), expected)
        assert not torch.allclose(1.01 * weights[row][valid], expected, rtol=1e-3)  # planted


def parameters_by_hand(law, weights):
    """The parameters of one row, by name, given the weights of its valid entries."""
    if isinstance(law, DirichletRows | GammaRows):
        shapes = [law.concentration * m + law.floor for m in weights]
        if isinstance(law, DirichletRows):
            return {"concentration": shapes}
        return {"concentration": shapes, "rate": [law.rate or sum(shapes)] * len(weights)}
    logs = [math.log(m) for m in weights]
    if isinstance(law, GumbelSoftmaxRows):
        return {"loc": [m / law.temperature for m in logs], "temperature": [law.temperature] * len(weights)}
    return {"loc": logs, "scale": [law.scale] * len(weights)}


@EVERY_MASK
@pytest.mark.parametrize("law", LAWS, ids=lambda law: choice_name(type(law)))
def test_parameters_by_hand(law, mask):
    scores, keys = activations()
    center = SoftmaxCenter()
    module = type(law)(**{**vars(law), "center": center}).build(keys.shape[-1], 2)
    found = module(scores, keys, mask)
    assert isinstance(found, LAWS[law])
    assert found.batch_shape == scores.shape[:-1] and found.event_shape == scores.shape[-1:]
    for row, valid in valid_entries(mask, scores.shape):
        weights = weights_by_hand(center, module.center, scores, keys, row, valid)
        for name, values in parameters_by_hand(law, weights).items():
            own = getattr(found, name).expand(scores.shape)[row][valid]
            torch.testing.assert_close(own, torch.tensor(values, dtype=torch.float64))
            if len(valid) > 1:
                assert not torch.allclose(1.01 * own, torch.tensor(values).double(), rtol=1e-3)  # planted
    drawn = module.rows(found.sample(), mask)
    counted = torch.ones(scores.shape) if mask is None else mask.expand(scores.shape)
    torch.testing.assert_close(drawn.sum(-1), (counted.sum(-1) > 0).double())
    assert not drawn[~counted.bool()].any()


def test_totals_of_matched_rows_do_not_depend_on_the_number_of_keys():
    scores, keys = activations()
    mask = MASKS["causal"]
    center = MatchedUniformCenter()
    matched = DirichletRows(center=center, concentration=6.0, floor=0.0).build(5, 2)(scores, keys, mask).total
    torch.testing.assert_close(matched, torch.full_like(matched, 6.0))
    flat = DirichletRows(center=FlatCenter(), concentration=6.0, floor=0.0).build(5, 2)(scores, keys, mask).total
    assert not torch.allclose(flat, matched)  # planted


def test_the_mean_of_gamma_rows_sums_to_one_unless_a_rate_is_given():
    scores, keys = activations()
    mask = MASKS["padding"]
    any_valid = mask.any(-1).expand(scores.shape[:-1]).double()
    total = GammaRows(center=SoftmaxCenter()).build(5, 2)(scores, keys, mask).mean.sum(-1)
    torch.testing.assert_close(total, any_valid)
    fixed = GammaRows(center=SoftmaxCenter(), rate=2.0).build(5, 2)(scores, keys, mask).mean.sum(-1)
    assert not torch.allclose(fixed, any_valid)  # planted


@EVERY_CENTER
@EVERY_MASK
def test_sample_dimensions_lead(center, mask):
    scores, keys = activations(lead=(6,))
    module = moved(center.build(5, 2))
    together = module(scores, keys, mask).expand(scores.shape)
    for s in range(6):
        torch.testing.assert_close(together[s], module(scores[s], keys[s], mask).expand(scores[s].shape))


@EVERY_CENTER
def test_queries_may_be_fewer_than_keys(center):
    scores, keys = activations()
    module = moved(center.build(5, 2))
    some = module(scores[..., :2, :], keys, None).expand(3, 2, 2, 4)
    torch.testing.assert_close(some, module(scores, keys, None).expand(scores.shape)[..., :2, :])


@EVERY_CENTER
def test_only_the_softmax_center_knows_the_query(center):
    scores, keys = activations()
    scores.requires_grad_()
    total = (center.build(5, 2).double()(scores, keys, None).exp().square() + 0 * scores).sum()
    assert torch.autograd.grad(total, scores)[0].any() == isinstance(center, SoftmaxCenter)


def test_the_contextual_network_starts_at_one_over_fan_in_and_can_start_again(standard_errors):
    module = ContextualCenter(hidden=4000).build(64, 2)
    for weight, fan_in in ((module.first, 64), (module.second, 4000)):
        squares = fan_in * weight.detach().flatten().square()
        assert standard_errors(squares, 1.0) < 5
        assert standard_errors(1.3 * squares, 1.0) > 5  # planted
    before = module.first.detach().clone()
    module.reset_parameters()
    assert not torch.equal(before, module.first)


@pytest.mark.parametrize("center", [LearnedCenter(start=0.3), PositionalCenter()], ids=["learned", "positional"])
def test_learned_numbers_start_where_they_say_and_can_start_again(center):
    module = center.build(5, 2)
    (parameter,) = module.parameters()
    start = math.log(0.3) if isinstance(center, LearnedCenter) else 0.0
    assert torch.allclose(parameter, torch.tensor(start))
    with torch.no_grad():
        parameter.add_(1.0)
    module.reset_parameters()
    assert torch.allclose(parameter, torch.tensor(start))


def test_gradients_reach_the_contextual_network_but_no_masked_key():
    scores, keys = activations()
    keys.requires_grad_()
    module = DirichletRows(center=ContextualCenter()).build(5, 2).double()
    rows = module(scores, keys, MASKS["padding"])
    loss = rows.log_prob(rows.rsample().detach()).sum()
    first, second, slope = torch.autograd.grad(loss, (module.center.first, module.center.second, keys))
    assert first.any() and second.any() and torch.isfinite(slope).all()
    assert slope[0].any() and not slope[1, :, 2:].any() and not slope[2].any()
