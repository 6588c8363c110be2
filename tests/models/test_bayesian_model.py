"""The model's joint density: which sites there are, where, and what they add up to."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn

from pyroformer.models import BayesianModel, Categorical, Features, Gaussian, Output, Series, Transformer
from pyroformer.priors import DirichletRows as PriorRows
from pyroformer.priors import Fixed, Improper, Learned, Normal, SettingError

Y = torch.tensor([0, 2, 1, 1])


def nodes_of(model, *args, **kwargs):
    trace = poutine.trace(model).get_trace(*args, **kwargs)
    trace.compute_log_prob()
    return {name: node for name, node in trace.nodes.items() if node["type"] == "sample"}


@pytest.fixture
def net(build):
    return build(Series(5, 2))


@pytest.fixture
def x(batch_of):
    return batch_of(Series(5, 2))


def test_sites_are_the_parameters_by_name_and_shape(net, x):
    model = BayesianModel(net, Normal())
    nodes = nodes_of(model, x, Y)
    shapes = {name: p.shape for name, p in net.named_parameters()}
    assert {name: node["value"].shape for name, node in nodes.items() if name in shapes} == shapes
    assert list(model.sites) == list(shapes) and set(nodes) - set(shapes) <= {"data", "obs"}


def test_weights_are_outside_the_plate_and_observations_inside(net, x):
    nodes = nodes_of(BayesianModel(net, {"*.rows": PriorRows(), "*": Normal()}), x, Y)
    for name, node in nodes.items():
        frames = [(frame.name, frame.dim) for frame in node["cond_indep_stack"]]
        if name != "data":
            assert frames == ([("data", -1)] if name == "obs" or name.endswith("rows") else [])
    assert nodes["obs"]["is_observed"] and nodes["obs"]["infer"]["is_observation"]


@pytest.mark.parametrize(("num_data", "scale"), [(None, 1.0), (4, 1.0), (40, 10.0)])
def test_the_full_trace_is_the_sum_by_hand(net, x, num_data, scale):
    prior = {
        "*norm*.weight": Normal(scale=0.2),
        "head.*": Normal(scaling="fan_in"),
        "position": Improper(),
        "*": Normal(),
    }
    trace = poutine.trace(BayesianModel(net, prior)).get_trace(x, Y, num_data)

    def by_hand(likelihood_scale):
        total = 0.0
        for name, node in trace.nodes.items():
            if name not in dict(net.named_parameters()) or name == "position":
                continue
            norm, head = "norm" in name and name.endswith("weight"), name.startswith("head")
            sd = 0.2 if norm else math.sqrt(2 / 8) if head else 1.0
            for w in node["value"].flatten().tolist():
                total += -0.5 * ((w - float(norm)) / sd) ** 2 - math.log(sd) - 0.5 * math.log(2 * math.pi)
        weights = {name: trace.nodes[name]["value"] for name, _ in net.named_parameters()}
        logits = torch.func.functional_call(net, weights, x)
        return total - likelihood_scale * nn.functional.cross_entropy(logits, Y, reduction="sum").item()

    assert trace.log_prob_sum().item() == pytest.approx(by_hand(scale), rel=1e-9)
    assert trace.log_prob_sum().item() != pytest.approx(by_hand(1.1 * scale), rel=1e-6)  # planted


def test_the_minibatch_estimate_is_unbiased(net, batch_of):
    x, y = batch_of(Series(5, 2), 12), torch.arange(12) % 3
    model = BayesianModel(net, {"*": Fixed()})
    whole = nodes_of(model, x, y)["obs"]["log_prob_sum"]
    parts = torch.stack(
        [nodes_of(model, x[i : i + 4], y[i : i + 4], num_data=12)["obs"]["log_prob_sum"] for i in (0, 4, 8)]
    )
    torch.testing.assert_close(parts.mean(), whole)


def test_one_draw_serves_the_whole_batch(net, x):
    """In the plate a weight site would be one weight an example; the same check sees that in a model made so."""
    same = x[:1].expand(4, -1, -1)
    outputs = BayesianModel(net, Normal())(same)
    torch.testing.assert_close(outputs, outputs[:1].expand_as(outputs))

    def planted():
        with pyro.plate("data", 4, dim=-1):
            bias = pyro.sample("bias", Normal()("bias", torch.zeros(3)))
            return same.mean((1, 2)).unsqueeze(-1) + bias

    assert planted().std(0).min() > 0.01


def test_conditioned_on_its_own_values_the_model_is_the_net(net, x):
    model = BayesianModel(net, Normal())
    torch.testing.assert_close(poutine.condition(model, data=model.initial_values())(x), net(x))
    assert not torch.allclose(model(x), net(x), rtol=1e-2)  # planted: drawn from the prior
    torch.testing.assert_close(BayesianModel(net, Fixed())(x), net(x))
    torch.testing.assert_close(BayesianModel(net, Learned())(x), net(x))


def test_point_estimates_are_no_sites(net, x):
    model = BayesianModel(net, {"head.*": Normal(), "blocks.*": Learned(), "*": Fixed()})
    assert set(model.sites) == {"head.weight", "head.bias"}
    assert set(nodes_of(model, x, Y)) - {"data"} == {"head.weight", "head.bias", "obs"}
    assert set(model.learned) == {f"net.{n}" for n, _ in net.named_parameters() if n.startswith("blocks")}
    assert not model.net.position.requires_grad and not model.net.head.weight.requires_grad


@pytest.mark.parametrize(
    "prior",
    [
        lambda name, p: dist.Laplace(torch.zeros_like(p), 0.3),
        lambda name, p: dist.Laplace(torch.zeros_like(p), 0.3).to_event(p.dim()),
        lambda name, p: dist.Laplace(p.new_zeros(()), 0.3),
        lambda name, p: dist.Laplace(p.new_zeros(p.shape[-1]), 0.3).to_event(1),
    ],
    ids=["batch", "event", "scalar", "last axis"],
)
def test_a_function_may_be_a_prior(net, x, prior):
    nodes = nodes_of(BayesianModel(net, prior), x, Y)
    for name, p in net.named_parameters():
        assert nodes[name]["fn"].event_shape == p.shape and nodes[name]["fn"].batch_shape == ()
        expected = sum(-abs(w) / 0.3 - math.log(0.6) for w in nodes[name]["value"].flatten().tolist())
        assert nodes[name]["log_prob_sum"].item() == pytest.approx(expected, rel=1e-6)


def test_a_function_sees_names_and_values(net, x):
    seen = {}

    def around(name, parameter):
        seen[name] = parameter.clone()
        return dist.Normal(parameter, 1e-6)

    model = BayesianModel(net, {"head.*": Normal(), "*": around})
    model(x)
    names = {name for name, _ in net.named_parameters() if not name.startswith("head")}
    assert set(seen) == names
    for name, p in net.named_parameters():
        if name in names:
            torch.testing.assert_close(seen[name], p.detach())


def test_a_function_of_the_wrong_shape_is_refused(net, x):
    with pytest.raises(ValueError, match=r"the prior of position has shape \(7,\): expected \(5, 8\)"):
        BayesianModel(net, lambda name, p: dist.Normal(torch.zeros(7), 1.0))(x)
    with pytest.raises(ValueError, match=r"the prior of head.bias has shape \(3, 3\): expected \(3,\)"):
        BayesianModel(net, {"head.bias": lambda name, p: dist.Normal(torch.zeros(3, 3), 1.0), "*": Fixed()})(x)


def test_a_function_with_sites_of_its_own_is_refused(net, x):
    """It is called once, so its draws would be frozen."""
    for prior in (
        lambda name, p: dist.Normal(torch.zeros_like(p), pyro.sample(f"{name}.scale", dist.HalfCauchy(1.0))),
        lambda name, p: dist.Normal(torch.zeros_like(p), pyro.param(f"{name}.scale", torch.tensor(1.0))),
    ):
        with pytest.raises(ValueError, match=r"a prior states the site 'position\.scale'"):
            poutine.trace(BayesianModel(net, prior)).get_trace(x)


@pytest.mark.parametrize("prior", [None, Normal, "normal", 0.1, {"*": None}, {"head.*": Normal, "*": Normal()}])
def test_what_is_no_prior_is_refused(net, prior):
    with pytest.raises(SettingError, match=r"= .*: expected a prior such as Normal\(\)"):
        BayesianModel(net, prior)


def test_a_map_that_does_not_cover_the_weights_is_refused(net):
    with pytest.raises(SettingError, match="'position': expected a pattern that covers this weight; given are none"):
        BayesianModel(net, {})
    with pytest.raises(SettingError, match=r"'position': .*; given are blocks\.\*"):
        BayesianModel(net, {"blocks.*": Normal()})
    with pytest.raises(SettingError, match=r"'heads\.\*': .*; did you mean head\."):
        BayesianModel(net, {"heads.*": Normal(), "*": Normal()})


def test_the_first_pattern_wins(net):
    made = BayesianModel(net, {"head.*": Normal(scale=3.0), "*": Normal(), "position": Fixed()}).distributions()
    assert (made["head.bias"].stddev == 3).all() and (made["position"].stddev == 1).all()


def test_it_follows_the_dtype_of_the_net(net, x):
    model = BayesianModel(net, {"*.rows": PriorRows(), "*": Normal()}, Gaussian(noise="random"))
    assert {n["value"].dtype for n in nodes_of(model.double(), x).values() if n["name"] != "data"} == {torch.float64}
    assert {n["value"].dtype for n in nodes_of(model.float(), x.float()).values() if n["name"] != "data"} == {
        torch.float32
    }


def test_inputs_may_be_a_tuple(net, x):
    model = BayesianModel(net, Fixed(), Categorical())
    mask = torch.arange(5) < torch.tensor([5, 3, 1, 4])[:, None]
    torch.testing.assert_close(model((x, mask), Y, num_data=9), net(x, mask))
    torch.testing.assert_close(model(x=x, y=Y), net(x))


def test_a_tied_parameter_is_one_site():
    net = Transformer(Series(5, 2), Output(8), width=8, heads=2, depth=1)
    net.head.weight = net.blocks[0].attention.query.weight
    model = BayesianModel(net, Normal())
    assert "blocks.0.attention.query.weight" in model.sites and "head.weight" not in model.sites
    assert model.net.head.weight is model.net.blocks[0].attention.query.weight
    nodes = nodes_of(model, torch.randn(4, 5, 2))
    assert sum(node["value"].shape == (8, 8) for node in nodes.values()) == 4  # query, key, value, output
    weights = {name: p + 1 for name, p in net.named_parameters()}
    changed = torch.func.functional_call(net, weights, torch.ones(1, 5, 2))
    torch.testing.assert_close(poutine.condition(model, data=weights)(torch.ones(1, 5, 2)), changed)


def test_features_with_real_outputs():
    net = Transformer(Features(3), Output(2), width=8, heads=2, depth=1)
    nodes = nodes_of(BayesianModel(net, Normal(), Gaussian(scale=0.5)), torch.randn(4, 3), torch.zeros(4, 2))
    assert nodes["obs"]["fn"].event_shape == (2,) and nodes["obs"]["log_prob"].shape == (4,)
