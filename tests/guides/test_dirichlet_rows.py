"""Dirichlet rows around softmax attention."""

import math

import pytest
import torch
from pyro import poutine
from torch.distributions import Dirichlet

from pyroformer.guides import Delta, DirichletRows, Guide, MeanField
from pyroformer.inference import OnePassELBO
from pyroformer.models import BayesianModel, Features, Output, Tokens, Transformer
from pyroformer.priors import DirichletRows as PriorRows
from pyroformer.priors import FlatCenter, Normal, SoftmaxCenter

X = torch.randn(6, 1, generator=torch.Generator().manual_seed(0)).double()
SITE = "blocks.0.attention.rows"


def built(family, inputs=None, prior=None, depth=1, per_token=False):
    torch.manual_seed(0)
    net = Transformer(inputs or Features(1, copies=4), Output(3, per_token), width=4, heads=2, depth=depth)
    model = BayesianModel(
        net, {"*.rows": prior or PriorRows(center=FlatCenter(), concentration=1.0, floor=0.0), "*": Normal()}
    ).double()
    with torch.no_grad():  # scores large enough to matter
        model.net.blocks[0].attention.query.weight.mul_(6)
        model.net.blocks[0].attention.key.weight.mul_(6)
    return model, family


def guided(family, **settings):
    model, family = built(family, **settings)
    return model, Guide(model, {"*.rows": family, "*": Delta()}, (X[:2],))


def run(guide, x=X):
    with torch.no_grad(), guide:
        output = guide.model(x)
    return output, guide.trace.nodes


def test_rows_have_the_moments_of_the_dirichlet():
    _, guide = guided(DirichletRows(sharpness=3.0, floor=0.5))
    torch.manual_seed(0)
    rows = torch.stack([run(guide)[1][SITE]["value"] for _ in range(400)])
    softmax = run(guide)[1][SITE]["infer"]["scores"].softmax(-1)
    exact = Dirichlet(3.0 * softmax + 0.5)
    errors = (rows.mean(0) - exact.mean) / (exact.variance / 400).sqrt()
    assert errors.abs().max() < 5
    assert ((rows.mean(0) - softmax) / (exact.variance / 400).sqrt()).abs().max() > 5  # planted: no floor
    ratio = rows.var(0).mean() / exact.variance.mean()
    assert abs(ratio - 1) < 0.05
    assert abs(rows.var(0).mean() / (exact.mean * (1 - exact.mean) / 4).mean() - 1) > 0.05  # planted: floors left out


def test_infinite_sharpness_is_softmax_attention():
    def far(sharpness):
        model, guide = guided(DirichletRows(sharpness=sharpness), depth=2)
        with torch.no_grad():
            exact = BayesianModel(model.net, Normal()).double().net
            for block in exact.blocks:
                block.attention.set_row_prior(None)
            return (run(guide)[0] - exact(X)).abs().max()

    assert far(1e6) < 1e-3
    assert far(1e10) < 1e-5
    assert far(30.0) > 1e-3  # planted


@pytest.mark.parametrize(("shared", "shapes"), [("head", [2, 2]), ("layer", [1, 1]), ("global", [1])])
def test_sharpness_is_shared_as_asked(shared, shapes):
    _, guide = guided(DirichletRows(shared=shared, sharpness=5.0), depth=2)
    values = list(guide.family_of(SITE).log_sharpness.values())
    assert [v.numel() for v in values] == shapes
    with torch.no_grad():
        values[0].fill_(math.log(9.0))
    summary = guide.summary()["dirichlet_rows"]["sharpness"]
    assert summary[SITE] == [9.0] * shapes[0]
    assert summary["blocks.1.attention.rows"] == ([9.0] if shared == "global" else [5.0] * shapes[0])


def test_heads_have_sharpness_of_their_own():
    _, guide = guided(DirichletRows(floor=0.5))
    with torch.no_grad():
        guide.family_of(SITE).log_sharpness["0"][0] = math.log(1e4)
        guide.family_of(SITE).log_sharpness["0"][1] = math.log(1.0)
    rows = torch.stack([run(guide)[1][SITE]["value"] for _ in range(50)])
    assert rows[:, :, 0].var(0).max() < 1e-3 < rows[:, :, 1].var(0).min()


def test_kl_is_zero_to_a_prior_of_the_same_form():
    prior = PriorRows(center=SoftmaxCenter(), concentration=30.0, floor=0.01)
    _, guide = guided(DirichletRows(sharpness=30.0, floor=0.01), prior=prior)
    y = torch.zeros(6, dtype=torch.long)
    assert OnePassELBO().terms(guide, X, y).local_kl.abs() < 1e-9
    with torch.no_grad():
        guide.family_of(SITE).log_sharpness["0"] += 0.1
    assert OnePassELBO().terms(guide, X, y).local_kl > 1e-2


def test_kl_counts_rows_once_an_example_and_scales_with_the_data():
    _, guide = guided(DirichletRows(sharpness=3.0, floor=0.5))
    y = torch.zeros(6, dtype=torch.long)
    whole, scaled, part = (
        OnePassELBO().terms(guide, x, y[: len(x)], n).local_kl for x, n in ((X, 6), (X, 60), (X[:3], 3))
    )
    other = OnePassELBO().terms(guide, X[3:], y[3:], 3).local_kl
    assert torch.allclose(scaled, 10 * whole)
    assert torch.allclose(part + other, whole)
    assert not torch.allclose(part, whole)


def test_padding_adds_nothing():
    tokens = Tokens(vocabulary=5, length=6, padding=0)
    short = torch.tensor([[1, 2, 3], [4, 1, 2]])
    padded = torch.nn.functional.pad(short, (0, 3))
    model, family = built(DirichletRows(sharpness=3.0, floor=0.5), inputs=tokens)
    guide = Guide(model, {"*.rows": family, "*": Delta()}, (padded,))
    y = torch.tensor([0, 1])
    kl = {len(x[0]): OnePassELBO().terms(guide, x, y).local_kl for x in (short, padded)}
    assert torch.allclose(kl[3], kl[6])
    rows = run(guide, padded)[1][SITE]["value"]
    assert rows[..., :3, 3:].abs().max() == 0 and rows[..., 3:, :].abs().max() == 0
    assert torch.allclose(rows[..., :3, :].sum(-1), torch.ones(2, 2, 3).double())
    unmasked, _ = built(None, inputs=Tokens(vocabulary=5, length=6))  # planted: padding is a token like others
    guide = Guide(unmasked, {"*.rows": DirichletRows(sharpness=3.0, floor=0.5), "*": Delta()}, (padded,))
    assert not torch.allclose(OnePassELBO().terms(guide, padded, y).local_kl, kl[3])


def test_rows_may_be_drawn_alone_given_the_weights():
    model, family = built(DirichletRows(floor=0.5))
    guide = Guide(model, {"*.rows": family, "*": MeanField(init_scale=0.5)}, (X[:2],))
    weights = {name: value[0] for name, value in guide.draw(1, X[:2]).items()}
    assert set(weights) == set(model.sites)  # rows belong to examples and are not among the global draws
    with torch.no_grad(), poutine.block(), guide.local_only():
        poutine.condition(model, data=weights)(X)
    nodes = guide.trace.nodes
    assert torch.equal(nodes["head.bias"]["value"], weights["head.bias"])
    concentration = nodes[SITE]["fn"].base_dist.concentration
    assert torch.allclose(concentration.sum(-1), torch.tensor(10.0 + 4 * 0.5).double())
