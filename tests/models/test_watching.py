"""Watching a net run: its attention rows and its tokens, without changing it."""

import pytest
import torch

from pyroformer.models import BayesianModel, Image, Output, Transformer
from pyroformer.models.watching import watching
from pyroformer.priors import DirichletRows as PriorRows
from pyroformer.priors import FlatCenter, Learned


@pytest.fixture
def net():
    return Transformer(Image(4, 4, patch=2), Output(3), width=8, heads=2, depth=2).double()


def test_rows_and_tokens_are_those_of_the_net(net):
    x = torch.rand(5, 4, 4).double()
    rows, tokens = {}, {}
    with watching(net, lambda name, a, mask: rows.update({name: (a, mask)}), lambda name, t: tokens.update({name: t})):
        watched = net(x)
    assert torch.equal(watched, net(x))
    assert list(rows) == ["blocks.0.attention.rows", "blocks.1.attention.rows"]
    assert list(tokens) == ["embedding", "blocks.0", "blocks.1"]
    assert torch.equal(tokens["embedding"], net.embedding(x, None)[0] + net.position)
    assert torch.equal(net.head(net.norm(tokens["blocks.1"]).mean(-2)), watched)
    block = net.blocks[0]
    attention, normed = block.attention, block.norm1(tokens["embedding"])
    query, key = attention.split(attention.query(normed)), attention.split(attention.key(normed))
    by_hand = (query @ key.mT / 4**0.5).softmax(-1)
    found, mask = rows["blocks.0.attention.rows"]
    assert mask is None and torch.allclose(found, by_hand)
    assert not torch.allclose(found, (query @ key.mT).softmax(-1))  # planted: no scaling


def test_the_net_is_left_as_it_was(net):
    before = {name: set(vars(module)) for name, module in net.named_modules()}
    with pytest.raises(RuntimeError, match="seen"), watching(net, _stop, _ignore):
        net(torch.rand(2, 4, 4).double())
    assert {name: set(vars(module)) for name, module in net.named_modules()} == before
    net(torch.rand(2, 4, 4).double())  # nobody looks any more
    assert not any(module._forward_hooks for module in net.modules())


def _stop(*_):
    raise RuntimeError("seen")


def _ignore(*_):
    pass


def test_drawn_rows_are_seen_too(net):
    flat = PriorRows(center=FlatCenter(), concentration=1.0, floor=0.0)
    model = BayesianModel(net, {"*.rows": flat, "*": Learned()}).double()
    seen = []
    with watching(model.net, lambda name, a, mask: seen.append(a)):
        model(torch.rand(6, 4, 4).double())
    assert len(seen) == 2 and torch.allclose(seen[0].sum(-1), torch.ones(6, 2, 4).double())
    assert seen[0].std() > 0.1  # the start's softmax rows are within 0.05 of uniform
