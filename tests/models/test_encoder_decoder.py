"""The encoder-decoder: against torch's layers, padding, causality, batched weights, and the sites that it has."""

import math

import pyro
import pytest
import torch
from torch import nn
from torch.func import functional_call

from pyroformer import priors
from pyroformer.guides import DirichletRows, Guide, MeanField
from pyroformer.models import BayesianModel, Categorical, EncoderDecoder, Output, Pair, Tokens, Transformer
from pyroformer.models.calling import call
from pyroformer.models.encoder_decoder import DecoderBlock
from pyroformer.models.sites import weight_sites
from pyroformer.models.watching import watching
from pyroformer.priors import Learned, Normal, SettingError

INPUTS = Pair(Tokens(7, 6, padding=0), Tokens(9, 5, padding=0, causal=True))
SOURCES, TARGETS = [6, 2, 4], [5, 3, 1]
ROWS = ("encoder.0.attention.rows", "decoder.0.attention.rows", "decoder.0.cross.rows")


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = EncoderDecoder(INPUTS, Output(4, per_token=True), width=8, heads=2, depth=1).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


@pytest.fixture
def x():
    generator = torch.Generator().manual_seed(1)
    source = torch.randint(1, 7, (3, 6), generator=generator) * (torch.arange(6) < torch.tensor(SOURCES)[:, None])
    target = torch.randint(1, 9, (3, 5), generator=generator) * (torch.arange(5) < torch.tensor(TARGETS)[:, None])
    return source, target


def test_a_decoder_block_is_torchs_decoder_layer():
    torch.manual_seed(0)
    block = DecoderBlock(8, 2, 12).double()
    theirs = nn.TransformerDecoderLayer(8, 2, 12, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    copied = {}
    for name, attention in {"self_attn": block.attention, "multihead_attn": block.cross}.items():
        parts = (attention.query, attention.key, attention.value)
        copied[f"{name}.in_proj_weight"] = torch.cat([part.weight for part in parts])
        copied[f"{name}.in_proj_bias"] = torch.cat([part.bias for part in parts])
        copied |= {f"{name}.out_proj.{k}": v for k, v in attention.output.named_parameters()}
    layers = {"linear1": block.mlp.up, "linear2": block.mlp.down}
    layers |= {"norm1": block.norm1, "norm2": block.norm_cross, "norm3": block.norm2}
    copied |= {f"{name}.{k}": v for name, layer in layers.items() for k, v in layer.named_parameters()}
    theirs.double().load_state_dict(copied)
    x, memory = torch.randn(3, 5, 8).double(), torch.randn(3, 6, 8).double()
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    expected = theirs(x, memory, tgt_mask=~causal)
    torch.testing.assert_close(block(x, causal, memory, None), expected)
    assert not torch.allclose(block(x, causal, memory.flip(0), None), expected, rtol=1e-3)  # planted


def test_padding_equals_shorter_sequences(net, x):
    source, target = x
    whole = net(source, target)
    assert whole.shape == (3, 5, 4)
    for i, (m, t) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        torch.testing.assert_close(whole[i, :t], net(source[i : i + 1, :m], target[i : i + 1, :t])[0])
    everything = torch.ones_like(source, dtype=torch.bool)
    blind = net(source, target, everything)  # planted: padding of the source is seen
    assert not torch.allclose(blind[1, 0], whole[1, 0], rtol=1e-3)


@pytest.mark.parametrize("changed", [1, 2, 4])
def test_later_tokens_of_the_target_are_not_seen_and_all_of_the_source_are(net, x, changed):
    source, target = x[0][:1], x[1][:1]
    other = target.clone()
    other[:, changed] = target[:, changed] % 8 + 1
    before, after = net(source, target), net(source, other)
    torch.testing.assert_close(before[:, :changed], after[:, :changed], rtol=0, atol=0)
    assert (before - after)[:, changed:].abs().amin((0, 2)).min() > 1e-6
    changed_source = source.clone()
    changed_source[:, changed] = source[:, changed] % 6 + 1
    assert (net(changed_source, target) - before).abs().amin((0, 2)).min() > 1e-6


def test_batched_weights_are_each_draw_on_its_own(net, x):
    draws = {n: p.detach() + 0.3 * torch.randn(3, 1, *p.shape).double() for n, p in net.named_parameters()}
    found = call(net, draws, x)
    assert found.shape == (3, 3, 5, 4)
    for s in range(3):
        torch.testing.assert_close(found[s], functional_call(net, {n: w[s, 0] for n, w in draws.items()}, x))
    for name, values in draws.items():  # each as the only one with draws
        alone = call(net, {name: values}, x)
        each = torch.stack([functional_call(net, {name: values[s, 0]}, x) for s in range(3)])
        torch.testing.assert_close(alone.expand(each.shape), each)


def test_weight_sites_know_fan_in_and_their_residual_stream():
    net = EncoderDecoder(INPUTS, Output(4, per_token=True), width=8, heads=2, depth=3)
    sites = weight_sites(net)
    assert sites["position"].fan_in == sites["source_position"].fan_in == sites["embedding.weight"].fan_in == 1
    assert sites["decoder.1.cross.key.weight"].fan_in == 8 and sites["decoder.1.mlp.down.weight"].fan_in == 16
    assert sites["decoder.0.norm_cross.weight"].center == sites["source_norm.weight"].center == 1
    writes = {name: site.residual_writes for name, site in sites.items() if site.residual_writes > 1}
    ends = ("attention.output", "mlp.down", "cross.output")
    by_hand = {f"encoder.{i}.{end}.{kind}": 6 for i in range(3) for end in ends[:2] for kind in ("weight", "bias")}
    by_hand |= {f"decoder.{i}.{end}.{kind}": 9 for i in range(3) for end in ends for kind in ("weight", "bias")}
    assert writes == by_hand
    sd = BayesianModel(net, Normal(scaling="depth"), Categorical(per_token=True)).distributions()
    found = float(sd["decoder.0.cross.output.weight"].stddev[0, 0])
    assert found == pytest.approx(math.sqrt(2 / 8) / 3)


def test_watching_shows_all_three_kinds_of_rows(net, x):
    seen = {}
    with watching(net, lambda name, rows, mask: seen.update({name: rows})):
        net(*x)
    assert tuple(seen) == ROWS
    assert [tuple(rows.shape) for rows in seen.values()] == [(3, 2, 6, 6), (3, 2, 5, 5), (3, 2, 5, 6)]
    assert not seen[ROWS[2]][1, :, :3, 2:].any() and not seen[ROWS[1]][0].triu(1).any()
    torch.testing.assert_close(seen[ROWS[2]][1, :, :3].sum(-1), torch.ones(2, 3).double())


def test_every_kind_of_rows_may_be_random(net, x):
    y = torch.zeros(3, 5, dtype=torch.long)
    y[torch.arange(5) >= torch.tensor(TARGETS)[:, None]] = -100
    prior = {"*.rows": priors.DirichletRows(), "*.bias": Learned(), "*": Normal()}
    model = BayesianModel(net, prior, Categorical(per_token=True)).double()
    assert model.rows == ROWS
    guide = Guide(model, {"*.rows": DirichletRows(), "*": MeanField()}, (x,))
    with pyro.plate("particles", 4, dim=-2), guide:
        outputs = model(x, y, 30)
    assert outputs.shape == (4, 3, 5, 4) and torch.isfinite(outputs).all()
    for name, shape in zip(ROWS, [(6, 6), (5, 5), (5, 6)], strict=True):
        rows = guide.trace.nodes[name]["value"]
        assert rows.shape == (4, 3, 2, *shape)
        assert guide.trace.nodes[name]["fn"].log_prob(rows).isfinite().all()
    outputs.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in guide.parameters())


@pytest.mark.parametrize("row", ROWS)
def test_one_kind_of_rows_may_be_random_alone(net, x, row):
    model = BayesianModel(net, {row: priors.DirichletRows(), "*": Learned()}, Categorical(per_token=True)).double()
    assert model.rows == (row,)
    with torch.no_grad(), pyro.plate("draws", 3, dim=-2):
        outputs = model(x)
    assert outputs.shape == (3, 3, 5, 4)
    assert outputs[:, 0, 1:].std(0).min() > 1e-6  # the first token of a target has itself alone to look at


def test_nets_and_tasks_that_do_not_fit():
    with pytest.raises(SettingError, match="a net of one input, such as transformer"):
        EncoderDecoder(Tokens(7, 5), Output(4, per_token=True))
    with pytest.raises(SettingError, match="such as encoder_decoder"):
        Transformer(INPUTS, Output(4, per_token=True))
    with pytest.raises(SettingError, match="heads = 3: expected a divisor of the width 8"):
        EncoderDecoder(INPUTS, Output(4, per_token=True), width=8, heads=3)


def test_sequences_that_are_too_long(net):
    with pytest.raises(ValueError, match="the source has 7 tokens an example: expected at most 6"):
        net(torch.ones(1, 7, dtype=torch.long), torch.ones(1, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="the target has 6 tokens an example: expected at most 5"):
        net(torch.ones(1, 6, dtype=torch.long), torch.ones(1, 6, dtype=torch.long))


@pytest.mark.parametrize("law", [priors.DirichletRows, priors.GammaRows, priors.LogisticNormalRows])
def test_a_center_of_distances_is_for_self_attention_alone(net, law):
    """Before any work; in the other layers it stands beside another center across."""
    positional = law(center=priors.PositionalCenter())
    with pytest.raises(SettingError, match=r"positional is for keys and queries of one .* decoder\.0\.cross\.rows"):
        BayesianModel(net, {"*.rows": positional, "*": Learned()}, Categorical(per_token=True))
    prior = {"*.attention.rows": positional, "*.rows": law(), "*": Learned()}
    assert BayesianModel(net, prior, Categorical(per_token=True)).rows == ROWS
