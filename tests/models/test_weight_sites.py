"""What priors are told about the parameters of a net: fan-in and centre."""

import math

import pytest
import torch
from torch import nn

from pyroformer.models import BayesianModel, Features, Image, Output, Series, Tokens, Transformer
from pyroformer.models.lifting import weight_sites
from pyroformer.priors import ContextualCenter, Normal
from pyroformer.priors import DirichletRows as PriorRows


def facts(net):
    return {name: (site.fan_in, site.center) for name, site in weight_sites(net).items()}


def test_our_transformer():
    found = facts(Transformer(Series(5, 3), Output(2), width=8, heads=2, depth=1, mlp_ratio=1.5))
    expected = {"position": (1, 0.0), "embedding.project": (3, 0.0), "head": (8, 0.0)}
    block = {"norm1": (1, None), "norm2": (1, None), "mlp.up": (8, 0.0), "mlp.down": (12, 0.0)}
    block.update({f"attention.{part}": (8, 0.0) for part in ("query", "key", "value", "output")})
    expected.update({f"blocks.0.{name}": fact for name, fact in block.items()}, norm=(1, None))
    by_hand = {}
    for name, (fan_in, center) in expected.items():
        if name == "position":
            by_hand[name] = (fan_in, center)
        else:
            by_hand[f"{name}.weight"] = (fan_in, 1.0 if center is None else center)
            by_hand[f"{name}.bias"] = (fan_in, 0.0)
    assert found == by_hand


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (Tokens(7, 5), {"embedding.weight": 1}),
        (Features(3), {"embedding.weight": 1}),
        (Image(4, 4, channels=3), {"embedding.project.weight": 12, "embedding.project.bias": 12}),
    ],
)
def test_embeddings(inputs, expected):
    found = facts(Transformer(inputs, Output(2), width=8, heads=2, depth=1))
    assert {name: fan_in for name, (fan_in, _) in found.items() if name.startswith("embedding")} == expected


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Linear(5, 3), {"weight": (5, 0), "bias": (5, 0)}),
        (nn.Conv2d(2, 3, 4), {"weight": (32, 0), "bias": (32, 0)}),
        (nn.Conv2d(4, 6, 3, groups=2), {"weight": (18, 0), "bias": (18, 0)}),
        (nn.Embedding(9, 4), {"weight": (1, 0)}),
        (nn.LayerNorm(4), {"weight": (1, 1), "bias": (1, 0)}),
        (nn.LayerNorm((2, 4)), {"weight": (1, 1), "bias": (1, 0)}),
        (nn.RMSNorm(4), {"weight": (1, 1)}),
        (nn.GroupNorm(2, 4), {"weight": (1, 1), "bias": (1, 0)}),
        (nn.BatchNorm1d(4), {"weight": (1, 1), "bias": (1, 0)}),
        (nn.InstanceNorm1d(4, affine=True), {"weight": (1, 1), "bias": (1, 0)}),
        (
            nn.MultiheadAttention(6, 2),
            {"in_proj_weight": (6, 0), "in_proj_bias": (6, 0), "out_proj.weight": (6, 0), "out_proj.bias": (6, 0)},
        ),
        (
            nn.LSTM(2, 5),
            {"weight_ih_l0": (2, 0), "weight_hh_l0": (5, 0), "bias_ih_l0": (2, 0), "bias_hh_l0": (5, 0)},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_modules_of_torch(module, expected):
    assert facts(module) == expected


def test_priors_use_them():
    net = Transformer(Series(5, 2), Output(3), width=8, heads=2, depth=1)
    made = BayesianModel(net, Normal(scale=0.5, scaling="fan_in")).distributions()
    for name, sd in {
        "head.bias": 8,
        "embedding.project.weight": 2,
        "blocks.0.mlp.down.bias": 16,
        "norm.bias": 1,
    }.items():
        torch.testing.assert_close(made[name].stddev, torch.full_like(made[name].mean, 0.5 * math.sqrt(2 / sd)))
    for name, prior in made.items():
        gain = "norm" in name and name.endswith("weight")
        assert (prior.mean == float(gain)).all()


@pytest.mark.parametrize("depth", [1, 3])
def test_layers_that_write_into_the_residual_stream(depth):
    net = Transformer(Series(5, 2), Output(3), width=8, heads=2, depth=depth)
    writes = {name: site.residual_writes for name, site in weight_sites(net).items()}
    ends = ("attention.output.weight", "attention.output.bias", "mlp.down.weight", "mlp.down.bias")
    assert writes == {name: 2 * depth if name.endswith(ends) else 1 for name in writes}
    made = BayesianModel(net, Normal(scaling="depth")).distributions()
    sd = {name: float(made[f"blocks.0.{name}.weight"].stddev[0, 0]) for name in ("mlp.up", "mlp.down")}
    assert sd["mlp.up"] == pytest.approx(math.sqrt(2 / 8))
    assert sd["mlp.down"] == pytest.approx(math.sqrt(2 / 16) / math.sqrt(2 * depth))


def test_a_net_of_ones_own_may_mark_its_layers():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].writes_residual = True
    assert {name: site.residual_writes for name, site in weight_sites(net).items()} == dict.fromkeys(facts(net), 1)
    net.append(nn.Linear(2, 2))
    net[2].writes_residual = True
    assert [site.residual_writes for site in weight_sites(net).values()] == [1, 1, 2, 2, 2, 2]


def test_parameters_of_row_priors_are_left_out():
    net = Transformer(Series(5, 2), Output(3), width=8, heads=2, depth=1)
    model = BayesianModel(net, {"*.rows": PriorRows(center=ContextualCenter()), "*": Normal()})
    assert not any("row_prior" in name for name in weight_sites(model.net))
    again = BayesianModel(model.net, {"*.rows": PriorRows(), "*": Normal()})
    assert list(again.sites) == list(weight_sites(net))
