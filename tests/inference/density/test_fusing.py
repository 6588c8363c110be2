"""Fused graphs are the same functions, with fewer products of matrices."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pyroformer.inference.density import FlatDensity, fusing
from pyroformer.inference.density.cleaning import cleaned
from pyroformer.inference.density.fusing import fused
from pyroformer.inference.density.tracing import traced
from pyroformer.models import BayesianModel, Image, Output, Transformer
from pyroformer.priors import Normal

aten = torch.ops.aten
SIZES = [(4, 6), (4,), (4, 6), (4,), (6,), (6,), (6, 4)]


def parts_of(z):
    pieces = z.split([torch.Size(shape).numel() for shape in SIZES])
    return [piece.view(shape) for piece, shape in zip(pieces, SIZES, strict=True)]


def two_maps(z, x):
    """Two affine maps of normalised tokens ``[5, 3, 6]``, whose product is mapped back; and the gradient."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        w, b, v, c, gain, shift, back = parts_of(z)
        inside = F.layer_norm(x, (6,), gain, shift)
        out = F.linear(F.linear(inside, w, b).tanh() * F.linear(inside, v, c), back) + x
        value = out.square().sum()
        (slope,) = torch.autograd.grad(value, z)
    return value.detach(), slope


def arguments(seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    size = sum(torch.Size(shape).numel() for shape in SIZES)
    z = torch.randn(size, generator=generator, dtype=torch.float64)
    return z.to(dtype), torch.randn(5, 3, 6, generator=generator, dtype=torch.float64).to(dtype)


def products(graph):
    return sum(node.target in (aten.mm.default, aten.addmm.default) for node in graph.graph.nodes)


def same(one, other, tolerance=1e-10):
    return all(
        torch.allclose(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))
        for a, b in zip(one, other, strict=True)
    )


def test_the_function_is_the_same_with_fewer_products():
    graph = cleaned(traced(two_maps, *arguments(0)), *arguments(0))
    before = str(graph.graph)
    found = fused(graph, *arguments(0))
    assert str(graph.graph) == before  # the graph itself stays
    assert products(graph) == 9 and products(found) == 6  # two of one input, their slopes, and what goes back
    targets = {node.target for node in found.graph.nodes}
    assert not targets & {aten.addmm.default, aten.native_layer_norm.default}
    for seed in range(1, 4):
        assert same(found(*arguments(seed)), two_maps(*arguments(seed)))
        assert not same(found(*arguments(seed + 1)), two_maps(*arguments(seed)))  # planted: other arguments


@pytest.mark.parametrize("wrong", ["weights of another map", "without a bias"])
def test_a_wrong_fusion_is_noticed(wrong, monkeypatch):
    """The twin."""
    graph = cleaned(traced(two_maps, *arguments(0)), *arguments(0))

    def planted(inner, shapes):
        for node in list(inner.nodes):
            if wrong == "without a bias" and node.target is aten.addmm.default:
                node.replace_all_uses_with(inner.create_node("call_function", aten.mm.default, node.args[1:]))
                return
            if wrong != "without a bias" and node.target is aten.split_with_sizes.default and node.args[2:] == (1,):
                first, second = sorted(node.users, key=lambda user: user.args[1])
                first.args, second.args = second.args, first.args
                return

    monkeypatch.setattr(fusing, "_sums_of_products" if wrong != "without a bias" else "_plain_norms", planted)
    assert not same(fused(graph, *arguments(0))(*arguments(1)), two_maps(*arguments(1)))


def test_products_that_need_each_other_stay_apart():
    def chain(x, w):
        first = x @ w
        return (x @ first.T).sum() + (x @ w.T).sum()

    x, w = torch.randn(4, 4, dtype=torch.float64), torch.randn(4, 4, dtype=torch.float64)
    graph = cleaned(traced(chain, x, w), x, w)
    assert same((fused(graph, x, w)(x, w),), (chain(x, w),))


@pytest.mark.parametrize(("dtype", "depth"), [(torch.float64, 2), (torch.float32, 1)])
def test_a_transformer_and_its_chains(dtype, depth):
    torch.manual_seed(0)
    net = Transformer(Image(4, 4), Output(3), width=4, heads=2, depth=depth)
    model = BayesianModel(net, Normal(scale=0.3)).to(dtype)
    density = FlatDensity(model, (torch.rand(5, 4, 4).to(dtype), torch.tensor([0, 2, 1, 1, 0])))
    z = density.start() + 0.2 * torch.randn(3, density.size, dtype=torch.float64).to(dtype)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    single = fused(density.graph, z[0])
    assert products(single) < products(density.graph)
    assert same(single(z[1]), density.log_prob_and_grad(z[1]), tolerance)
    several = traced(torch.func.vmap(density.graph), z)
    assert same(fused(cleaned(several, z), z)(z.flip(0)), density.log_prob_and_grad(z.flip(0)), tolerance)


def test_normalisation_without_gain_or_over_two_axes():
    for shape, affine in (((6,), False), ((3, 6), True)):
        norm = nn.LayerNorm(shape, elementwise_affine=affine, bias=affine).double()

        def run(x, norm=norm):
            return (norm(x),)

        x = 3 * torch.randn(5, 3, 6, dtype=torch.float64) + 1
        graph = fused(cleaned(traced(run, x), x), x)
        with torch.no_grad():
            assert same(graph(x + 1), run(x + 1)) and not same(graph(2 * x), run(x + 1))
