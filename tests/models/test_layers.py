"""Layers against torch's own with the same weights."""

import pytest
import torch
from pyro.poutine.messenger import Messenger
from torch import nn
from torch.nn import functional as F

from pyroformer.models import Attention, Image, LayerNorm, Linear, Output, Transformer, linear
from pyroformer.models.transformer import Block

X = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CAUSAL = torch.ones(5, 5, dtype=torch.bool).tril()
LENGTHS = torch.tensor([5, 3, 1, 4])
VALID = torch.arange(5) < LENGTHS[:, None]


def shaken(module):
    """Weights off their starting values, so that no gain is 1 and no bias 0."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.double()


def packed(attention):
    """The weights of an attention layer as torch packs them."""
    parts = (attention.query, attention.key, attention.value)
    return torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts])


def torch_attention(attention, x, **masks):
    weight, bias = packed(attention)
    x = x.transpose(0, 1)
    out, _ = F.multi_head_attention_forward(
        x, x, x, x.shape[-1], attention.heads, weight, bias, None, None, False, 0.0, attention.output.weight,
        attention.output.bias, need_weights=False, **masks,
    )  # fmt: skip
    return out.transpose(0, 1)


def test_linear():
    ours, theirs = shaken(Linear(8, 3)), nn.Linear(8, 3).double()
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(X), theirs(X))


def test_linear_starts_as_torch_does():
    torch.manual_seed(0)
    ours, theirs = Linear(64, 500), nn.Linear(64, 500)
    for name in ("weight", "bias"):
        start = getattr(ours, name).detach()
        assert 0.99 / 8 < start.abs().max() <= 1 / 8
        assert start.std() == pytest.approx(getattr(theirs, name).std().item(), rel=0.1)


def test_layer_norm():
    ours, theirs = shaken(LayerNorm(8, eps=1e-3)), nn.LayerNorm(8, eps=1e-3).double()
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(X), theirs(X))
    planted = nn.LayerNorm(8, eps=1e-1).double()
    planted.load_state_dict(ours.state_dict())
    assert not torch.allclose(ours(X), planted(X), rtol=1e-3)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention(heads):
    attention = shaken(Attention(8, heads))
    torch.testing.assert_close(attention(X), torch_attention(attention, X))
    torch.testing.assert_close(attention(X, CAUSAL), torch_attention(attention, X, attn_mask=~CAUSAL))
    assert not torch.allclose(attention(X), torch_attention(attention, X, attn_mask=~CAUSAL), rtol=1e-3)  # planted


def test_attention_among_valid_tokens():
    attention = shaken(Attention(8, 2))
    visible = (VALID[:, None, :] & VALID[:, :, None])[:, None]
    ours, theirs = attention(X, visible), torch_attention(attention, X, key_padding_mask=~VALID)
    torch.testing.assert_close(ours[VALID], theirs[VALID])
    torch.testing.assert_close(ours[~VALID], attention.output.bias.expand_as(ours[~VALID]))


def test_attention_with_one_head_is_the_scaled_dot_product():
    attention = shaken(Attention(8, 1))
    with torch.no_grad():
        attention.output.weight.copy_(torch.eye(8))
        attention.output.bias.zero_()
    q, k, v = attention.query(X), attention.key(X), attention.value(X)
    torch.testing.assert_close(attention(X), F.scaled_dot_product_attention(q, k, v))


def test_attention_survives_large_scores():
    attention = shaken(Attention(8, 2)).float()
    x = (1e4 * X).float().requires_grad_()
    (slope,) = torch.autograd.grad(attention(x, CAUSAL).sum(), x)
    assert torch.isfinite(slope).all()


def test_heads_divide_the_width():
    with pytest.raises(ValueError, match="heads = 3: expected a divisor of the width 8"):
        Attention(8, 3)


@pytest.mark.parametrize("mask", [None, CAUSAL], ids=["all", "causal"])
def test_a_block_is_torchs_encoder_layer(mask):
    block = shaken(Block(8, 2, 12))
    theirs = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    weight, bias = packed(block.attention)
    copied = {"self_attn.in_proj_weight": weight, "self_attn.in_proj_bias": bias}
    pairs = {
        "self_attn.out_proj": block.attention.output,
        "linear1": block.mlp.up,
        "linear2": block.mlp.down,
        "norm1": block.norm1,
        "norm2": block.norm2,
    }
    for name, module in pairs.items():
        copied.update({f"{name}.weight": module.weight, f"{name}.bias": module.bias})
    theirs.double().load_state_dict(copied)
    expected = theirs(X, src_mask=None if mask is None else ~mask)
    torch.testing.assert_close(block(X, mask), expected)
    theirs.norm_first = False  # planted: post-norm
    assert not torch.allclose(block(X, mask), theirs(X, src_mask=None if mask is None else ~mask), rtol=1e-3)


class Doubled(Messenger):
    """Replaces the result of every affine map, as an estimator would, and counts them."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def _pyro_linear(self, msg):
        x, weight, bias = msg["args"]
        self.shapes.append(tuple(weight.shape))
        msg["value"] = 2 * F.linear(x, weight, bias)
        msg["done"] = True


def test_affine_maps_can_be_replaced_from_above():
    block = shaken(Block(8, 2, 12))
    layer, plain = block.mlp.up, block.mlp.up(X)
    with Doubled() as messenger:
        torch.testing.assert_close(layer(X), 2 * plain)
        block(X, None)
    assert messenger.shapes == [(12, 8)] + [(8, 8)] * 4 + [(12, 8), (8, 12)]
    torch.testing.assert_close(layer(X), plain)  # only inside the messenger


def test_an_affine_map_without_bias():
    weight = torch.randn(3, 8, dtype=torch.float64)
    torch.testing.assert_close(linear(X, weight), X @ weight.mT)
    torch.testing.assert_close(linear(X, weight.expand(2, 1, 3, 8)), (X @ weight.mT).expand(2, 4, 5, 3))


def test_a_net_without_its_last_normalisation():
    net = shaken(Transformer(Image(8, 8), Output(10), width=16, heads=2, depth=1, final_norm=False))
    assert sum(parameter.numel() for parameter in net.parameters()) == 2730
    x = torch.randn(3, 8, 8, dtype=torch.float64)
    tokens = net.blocks[0](net.embedding(x)[0] + net.position, None)
    torch.testing.assert_close(net(x), net.head(tokens.mean(1)))
    assert not torch.allclose(net(x), net.head(F.layer_norm(tokens, (16,)).mean(1)))  # planted
