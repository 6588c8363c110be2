"""Priors by attention head: which entries a head owns, factors, independent blocks."""

import math

import numpy as np
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive
from scipy import stats
from torch import nn

from pyroformer.guides import MeanField
from pyroformer.inference import MAP, SVI, Data
from pyroformer.models import BayesianModel, Series, sample_sites
from pyroformer.models.sites import weight_sites
from pyroformer.priors import (
    Blocks,
    Gamma,
    HeadBlocks,
    Hierarchical,
    MatrixNormal,
    Mixture,
    MultivariateT,
    Normal,
    PerHead,
    Pretrained,
    SettingError,
    Site,
)

Y = torch.tensor([0, 2, 1, 1])
FORMS = pytest.mark.parametrize("centered", [False, True], ids=["non-centred", "centred"])
ATTENTION = "blocks.0.attention."


@pytest.fixture
def net(build):
    return build(Series(5, 2), depth=1)


@pytest.fixture
def x(batch_of):
    return batch_of(Series(5, 2))


def head_of(name, at):
    """The head that owns an entry, for 2 heads of width 4."""
    if not name.startswith(ATTENTION) or name.endswith("output.bias"):
        return 0
    return at[1 if "output" in name else 0] // 4


def test_sites_know_their_heads(net):
    found = {name: (site.heads, site.head_axis) for name, site in weight_sites(net).items() if site.heads > 1}
    inner = {f"{ATTENTION}{layer}.{own}": (2, 0) for layer in ("query", "key", "value") for own in ("weight", "bias")}
    assert found == {**inner, f"{ATTENTION}output.weight": (2, 1)}


def test_what_a_head_owns_is_what_its_output_depends_on(net, x):
    """With the output of one head cut off, only the parts of the other head have gradients."""
    attention = net.blocks[0].attention
    with torch.no_grad():
        attention.output.weight[:, 4:] = 0.0
    for parameter in net.parameters():
        parameter.grad = None
    net(x).square().sum().backward()
    for name, site in weight_sites(net).items():
        if site.heads == 2 and site.head_axis == 0 and name != f"{ATTENTION}key.bias":  # which softmax does not see
            gradient = dict(net.named_parameters())[name].grad
            for at in np.ndindex(*gradient.shape):
                assert (gradient[at] != 0) == (head_of(name, at) == 0), (name, at)


def test_the_heads_of_torch_are_known_too():
    sites = weight_sites(nn.MultiheadAttention(8, 2))
    found = {name: (site.heads, site.head_axis) for name, site in sites.items()}
    assert found == {
        "in_proj_weight": (6, 0),
        "in_proj_bias": (6, 0),
        "out_proj.weight": (2, 1),
        "out_proj.bias": (1, 0),
    }
    apart = weight_sites(nn.MultiheadAttention(8, 2, kdim=6, vdim=4))
    assert {name: site.heads for name, site in apart.items() if "_proj_weight" in name} == {
        "q_proj_weight": 2,
        "k_proj_weight": 2,
        "v_proj_weight": 2,
    }
    BayesianModel(nn.MultiheadAttention(8, 2), PerHead(prior=HeadBlocks()))


def by_hand(model, nodes, centered, heads=True):
    total = 0.0
    for name, site in model.sites.items():
        factors = nodes[f"{name}_heads"]["value"].tolist()
        total += sum(stats.gamma(2.5, scale=1 / 3).logpdf(f) for f in factors)
        for at in np.ndindex(*site.value.shape):
            factor = factors[head_of(name, at) if heads else 0]
            z = (nodes[name]["value"][at].item() - site.center) / factor
            total += stats.norm.logpdf(z, scale=0.5) - (math.log(factor) if centered else 0.0)
    return total


@FORMS
def test_the_joint_density_is_the_sum_by_hand(net, x, centered):
    prior = PerHead(prior=Normal(scale=0.5), hyperprior=Gamma(concentration=2.5, rate=3.0), centered=centered)
    model = BayesianModel(net, prior)
    trace = poutine.trace(model).get_trace(x, Y)
    found = trace.log_prob_sum().item() - trace.nodes["obs"]["log_prob_sum"].item()
    assert found == pytest.approx(by_hand(model, trace.nodes, centered), rel=1e-8)
    assert found != pytest.approx(by_hand(model, trace.nodes, centered, heads=False), rel=1e-6)  # planted: one factor
    shapes = {name: prior.event_shape for name, prior in model.hyper_sites.items()}
    assert shapes[f"{ATTENTION}query.weight_heads"] == (2,) and shapes["head.weight_heads"] == (1,)


@FORMS
@pytest.mark.parametrize("parallel", [False, True], ids=["loop", "parallel"])
@pytest.mark.parametrize(
    "inner", [Normal(), HeadBlocks(), HeadBlocks(prior=MultivariateT())], ids=lambda prior: type(prior).__name__
)
def test_predictive_draws_the_weights_that_the_net_uses(net, x, inner, centered, parallel):
    model = BayesianModel(net, PerHead(prior=inner, hyperprior=Gamma(), centered=centered))
    found = Predictive(model, num_samples=3, parallel=parallel, return_sites=["_RETURN", *model.sites])(x)
    weights = {name: found[name].reshape(3, *site.value.shape) for name, site in model.sites.items()}
    loop = torch.stack([torch.func.functional_call(net, {n: w[s] for n, w in weights.items()}, x) for s in range(3)])
    torch.testing.assert_close(found["_RETURN"], loop)
    assert not torch.allclose(found["_RETURN"], loop.roll(1, 0), rtol=1e-2)  # planted
    start = model.initial_values()
    torch.testing.assert_close(poutine.condition(model, data=start)(x), net(x))


def site(name, shape, **facts):
    heads = {"query": (2, 0), "output": (2, 1), "bias": (2, 0), "other": (1, 0)}[name]
    return Site(name, torch.zeros(shape, dtype=torch.float64), heads=heads[0], head_axis=heads[1], **facts)


SITES = pytest.mark.parametrize(
    ("name", "shape"), [("query", (4, 3)), ("output", (3, 4)), ("bias", (4,)), ("other", (4, 3))]
)
INNER = {
    "normal": MatrixNormal(scale=0.7, row_correlation=0.6, column_correlation=0.3),
    "t": MultivariateT(scale=0.7, row_correlation=0.6, column_correlation=0.3, df=5.0),
}


def halves(name, value):
    return [value] if name == "other" else list(value.chunk(2, 1 if name == "output" else 0))


@pytest.mark.parametrize("inner", INNER)
@SITES
def test_the_density_is_the_sum_over_the_blocks(name, shape, inner):
    prior = INNER[inner]
    made = HeadBlocks(prior=prior).distribution(site(name, shape, center=1.0))
    assert made.batch_shape == () and made.event_shape == shape
    value = torch.randn(shape, dtype=torch.float64)
    parts = [prior.distribution(Site("", torch.zeros_like(p), center=1.0)).log_prob(p) for p in halves(name, value)]
    found = made.log_prob(value).item()
    assert found == pytest.approx(sum(parts).item(), rel=1e-9)
    whole = prior.distribution(Site("", torch.zeros_like(value), center=1.0)).log_prob(value).item()
    assert (found == pytest.approx(whole, rel=1e-6)) == (name == "other")  # planted: one block
    factor = 0.5 + torch.rand((5, 1, *shape), dtype=torch.float64)
    scaled = HeadBlocks(prior=prior).distribution(site(name, shape, center=0.0, scale=factor))
    assert scaled.batch_shape == (5, 1) and scaled.sample((2,)).shape == (2, 5, 1, *shape)
    plain = HeadBlocks(prior=prior).distribution(site(name, shape))
    expected = [plain.log_prob(value / f).item() - f.log().sum().item() for f in factor.squeeze(1)]
    assert scaled.log_prob(value).flatten().tolist() == pytest.approx(expected, rel=1e-9)
    wide = made.expand((6, 1))
    assert wide.batch_shape == (6, 1) and wide.rsample((2,)).shape == (2, 6, 1, *shape)
    torch.testing.assert_close(wide.log_prob(value), made.log_prob(value).expand(6, 1))


@SITES
def test_draws_of_two_heads_are_independent(name, shape, standard_errors):
    made = HeadBlocks(prior=INNER["normal"]).distribution(site(name, shape))
    draws = made.sample((10_000,))
    assert stats.kstest(draws.flatten(1)[:, 1].numpy(), stats.norm(scale=0.7).cdf).pvalue > 2 * stats.norm.sf(5)
    axis = 1 if name == "output" else 0
    parts = [part.flatten(1) for part in draws.chunk(1 if name == "other" else 2, axis + 1)]
    rho = {"query": 0.6, "bias": 0.6, "output": 0.3, "other": 0.6}[name]
    near = draws.select(axis + 1, 0), draws.select(axis + 1, 1)
    products = (near[0] * near[1]).reshape(10_000, -1)
    assert standard_errors(products, 0.49 * rho) < 5
    assert standard_errors(products, torch.zeros(())) > 5  # planted: independent within a head
    if len(parts) == 2:
        across = parts[0].unsqueeze(-1) * parts[1].unsqueeze(-2)
        assert standard_errors(across.flatten(1), torch.zeros(())) < 5
        assert standard_errors(across.flatten(1), 0.49 * 0.3 * torch.ones(())) > 5  # planted: of one block
    assert made.variance.flatten().tolist() == pytest.approx([0.49] * draws[0].numel())
    assert not made.mean.any()


def test_it_is_a_prior_with_a_scale_and_may_be_centred_on_values():
    assert Hierarchical(prior=HeadBlocks()).prior == HeadBlocks()
    with pytest.raises(SettingError, match="entries are independent"):
        Mixture(components=[HeadBlocks()])
    value = torch.randn(4, 3)
    made = Pretrained(prior=HeadBlocks(), relative=0.5).distribution(Site("w", value, heads=2))
    assert isinstance(made, Blocks) and torch.equal(made.mean, value)
    torch.testing.assert_close(made.stddev, (0.5 * value.abs()).clamp(min=0.01))
    plain = HeadBlocks(prior=Normal()).distribution(Site("w", value, heads=2))
    assert not isinstance(plain, Blocks) and plain.event_shape == (4, 3)


@pytest.mark.parametrize(
    "prior", [PerHead(prior=HeadBlocks()), PerHead(centered=True), HeadBlocks()], ids=lambda prior: type(prior).__name__
)
def test_guides_and_drivers_take_it(net, x, prior):
    model = BayesianModel(net, prior)
    fitted = SVI(epochs=2, particles=2, dtype="float64").run(model, MeanField(), Data(x, Y))
    assert {n: v.shape[1:] for n, v in fitted.draw(2).items()} == {n: s.shape for n, s in sample_sites(model).items()}
    assert torch.isfinite(MAP(epochs=2, dtype="float64").run(model, None, Data(x, Y)).predict(x).probabilities).all()


@pytest.mark.parametrize(
    ("build", "key", "accepted"),
    [
        (lambda: PerHead(hyperprior=None), "hyperprior", "a prior over scales"),
        (lambda: PerHead(prior=None), "prior", "a prior with a scale"),
        (lambda: HeadBlocks(prior=PerHead()), "prior", "a prior with a scale"),
    ],
)
def test_wrong_settings(build, key, accepted):
    with pytest.raises(SettingError) as caught:
        build()
    assert caught.value.key == key and accepted in caught.value.expected
