"""Random rows against softmax attention: the same net on average, the same law whatever is padded."""

import pyro
import pytest
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from scipy import stats

from pyroformer.guides import Delta, DirichletRows, Guide
from pyroformer.models import BayesianModel, Categorical, Series, Tokens
from pyroformer.priors import ContextualCenter, Fixed, FlatCenter, SoftmaxCenter, choice_name
from pyroformer.priors import DirichletRows as PriorRows

FIVE_SIGMA = 2 * stats.norm.sf(5)
LENGTHS = [5, 3, 1, 4]
VALID = torch.arange(5) < torch.tensor(LENGTHS)[:, None]
PRIORS = [
    PriorRows(center=FlatCenter(), concentration=1.0, floor=0.0),
    PriorRows(),
    PriorRows(center=ContextualCenter()),
    PriorRows(center=SoftmaxCenter()),
]


class MeanRows(Messenger):
    """Every row is the mean of its law: the plug-in net."""

    def _pyro_sample(self, msg):
        if msg["name"].endswith("rows"):
            msg["value"], msg["done"] = msg["fn"].mean, True


def with_rows(net, prior):
    return BayesianModel(net, {"*.rows": prior, "*": Fixed()}, Categorical(per_token=net.per_token)).double()


def test_the_mean_of_softmax_rows_is_softmax_attention(inputs, build, batch_of):
    net, x = build(inputs), batch_of(inputs)
    model = with_rows(net, PriorRows(center=SoftmaxCenter(), floor=1e-12))
    with MeanRows():
        torch.testing.assert_close(model(x), net(x))
        assert not torch.allclose(with_rows(net, PriorRows())(x), net(x), rtol=1e-3)  # planted
    assert not torch.allclose(model(x), net(x), rtol=1e-3)  # planted: drawn


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: choice_name(type(prior.center)))
@pytest.mark.parametrize("pool", ["mean", "first", "last", None])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_mean_rows_of_padded_batches_equal_those_of_shorter_ones(build, batch_of, prior, pool, causal):
    inputs = Tokens(7, 5, padding=0)
    net = build(inputs, per_token=pool is None, pool=pool or "mean", causal=causal)
    model, x = with_rows(net, prior), batch_of(inputs)
    with MeanRows():
        padded = model(x * VALID)
        for i, n in enumerate(LENGTHS):
            short = model(x[i : i + 1, :n])[0]
            torch.testing.assert_close(padded[i, :n] if pool is None else padded[i], short)


def outputs(model, x, draws):
    """``[draws, B, C]``, with rows drawn anew for each."""
    with torch.no_grad(), pyro.plate("draws", draws, dim=-2):
        return model(x)


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: choice_name(type(prior.center)))
def test_padded_rows_have_the_law_of_shorter_ones(build, batch_of, prior):
    net = build(Series(5, 2), depth=1)
    model, x = with_rows(net, prior), batch_of(Series(5, 2))[1:2]
    padded, short = (outputs(model, data, 4000)[:, 0, 0] for data in ((x, VALID[1:2]), x[:, :3]))
    blind = outputs(model, x, 4000)[:, 0, 0]
    assert stats.ks_2samp(padded, short).pvalue > FIVE_SIGMA
    assert stats.ks_2samp(blind, short).pvalue < FIVE_SIGMA  # planted: no mask


def test_sharp_rows_of_the_guide_approach_softmax_attention(build, batch_of):
    net, x = build(Series(5, 2)), batch_of(Series(5, 2))
    model = with_rows(net, PriorRows())

    def distance(sharpness):
        guide = Guide(model, DirichletRows(sharpness=sharpness, floor=1e-9), (x,))
        with torch.no_grad(), pyro.plate("draws", 200, dim=-2), guide:
            difference = model(x) - net(x)
        return difference.mean(0).abs().max().item(), difference.std(0).max().item()

    # sd of a row's entries is at most 0.5 / sqrt(sharpness), and so is that of the outputs, up to the net's slope
    (bias, sd), (_, wider), (_, planted) = distance(1e6), distance(1e4), distance(30.0)
    assert bias < 5 * sd / 200**0.5 and sd < 5e-3
    assert wider / sd == pytest.approx(10, rel=0.25)
    assert planted > 20 * sd


def test_rows_see_the_sample_of_the_weights_of_their_own_draw(build, batch_of, draws_of):
    net, x = build(Series(5, 2)), batch_of(Series(5, 2))
    model = BayesianModel(
        net,
        {
            "*.rows": PriorRows(center=SoftmaxCenter(), floor=1e-12),
            "*": lambda name, p: pyro.distributions.Normal(p, 1),
        },
    )
    weights = draws_of(net, 3, 1)
    with MeanRows(), pyro.plate("draws", 3, dim=-2):
        found = poutine.condition(model.double(), data=weights)(x)
    for s in range(3):
        torch.testing.assert_close(
            found[s], torch.func.functional_call(net, {n: w[s, 0] for n, w in weights.items()}, x)
        )


def test_gradients_reach_the_weights_through_drawn_rows(build, batch_of):
    net, x = build(Series(5, 2)), batch_of(Series(5, 2))
    model = BayesianModel(net, {"*.rows": PriorRows(), "*": lambda name, p: pyro.distributions.Normal(p, 1)}).double()
    guide = Guide(model, {"*.rows": DirichletRows(), "*": Delta()}, (x,))
    with guide:
        model(x, torch.tensor([0, 2, 1, 1]))
    guide.trace.nodes["obs"]["fn"].log_prob(torch.tensor([0, 2, 1, 1])).sum().backward()
    slopes = {name: p.grad for name, p in guide.named_parameters()}
    assert all(slope is not None and torch.isfinite(slope).all() and slope.any() for slope in slopes.values())
