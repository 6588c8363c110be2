"""Copies of a model: the net that is passed in, deep copies, pickles, and copies that start afresh."""

import copy
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn

from pyroformer.models import BayesianModel, Gaussian, Series
from pyroformer.models.calling import eval_mode
from pyroformer.priors import ContextualCenter, Fixed, Learned, Normal
from pyroformer.priors import DirichletRows as PriorRows


@pytest.fixture
def net(build):
    return build(Series(5, 2))


@pytest.fixture
def x(batch_of):
    return batch_of(Series(5, 2))


def values(module):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def same(a, b):
    return {name: torch.equal(a[name], b[name]) for name in a}


def stored(model, x):
    """The names of a model's parameters in Pyro's store."""
    before = set(pyro.get_param_store().keys())
    poutine.trace(model).get_trace(x)
    return set(pyro.get_param_store().keys()) - before


def test_the_net_passed_in_is_unchanged(net, x):
    before, types = values(net), {name: type(m) for name, m in net.named_modules()}
    model = BayesianModel(net, {"*.rows": PriorRows(), "head.*": Fixed(), "*": Normal()})
    model.set_initial_values({name: torch.zeros_like(p) for name, p in before.items()})
    model(x)
    assert all(same(before, values(net)).values()) and all(p.requires_grad for p in net.parameters())
    assert types == {name: type(m) for name, m in net.named_modules()}
    assert not any(block.attention.row_prior for block in net.blocks) and not pyro.get_param_store().keys()


def test_changes_of_the_net_passed_in_do_not_reach_the_model(net, x):
    model, before = BayesianModel(net, Fixed()), net(x)
    nn.init.zeros_(net.head.weight)
    torch.testing.assert_close(model(x), before)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_clones_share_nothing(net, x, clone):
    model = BayesianModel(net, {"head.*": Learned(), "*": Normal()}, Gaussian(noise="learned")).double()
    poutine.trace(model).get_trace(x)
    other = clone(model)
    first, second = stored(copy.copy(model), x), stored(other, x)
    assert not first and len(second) == 3  # the clone states head.weight, head.bias and log_scale of its own
    with torch.no_grad():
        other.net.head.weight.zero_()
    assert model.net.head.weight.any() and list(other.sites) == list(model.sites)
    assert pyro.param(next(n for n in second if "head.weight" in n)) is other.net.head.weight


def test_two_models_of_one_net_share_no_stored_parameter(net, x):
    names = [stored(BayesianModel(net, Learned()), x) for _ in range(2)]
    assert len(names[0]) == len(names[1]) == len(list(net.parameters())) and not names[0] & names[1]


def test_a_fresh_start_depends_on_the_seed_alone(net):
    model = BayesianModel(net, {"blocks.0.*": Learned(), "*": Normal()})
    torch.manual_seed(5)
    state = torch.get_rng_state()
    a, b, c = (model.reinitialized(seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(same(values(a), values(b)).values())
    # gains and biases of layer norms start at the same numbers whatever the seed
    assert same(values(a), values(c)) == {name: ".norm" in name for name in values(a)}
    assert all(same(values(model.net), values(net)).values())


def test_a_fresh_start_keeps_what_is_fixed(net):
    fresh = BayesianModel(net, {"head.*": Normal(), "norm.*": Learned(), "*": Fixed()}).reinitialized(1)
    kept = same(values(net), values(fresh.net))
    assert kept == {name: not name.startswith(("head.", "norm.")) for name in kept}


@pytest.mark.parametrize("rows", [PriorRows(), PriorRows(center=ContextualCenter())], ids=["flat", "contextual"])
def test_a_fresh_start_with_random_rows(net, x, rows):
    model = BayesianModel(net, {"*.rows": rows, "*": Normal()}).double()
    fresh = model.reinitialized(1)
    assert fresh.rows == model.rows and torch.isfinite(fresh(x)).all()
    for (name, a), b in zip(model.learned.items(), fresh.learned.values(), strict=True):
        assert not torch.equal(a, b), name


def test_a_fresh_start_needs_modules_that_can(x):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.scale * x.mean(1)

    with pytest.raises(ValueError, match=r"Scaled at '' has parameters but no reset_parameters\(\)"):
        BayesianModel(Scaled(), Normal()).reinitialized(0)


@pytest.mark.parametrize("called", [False, True])
def test_priors_around_the_nets_values_stay_where_they_are(net, x, called):
    """A prior around pretrained weights must not follow the weights of ensemble members or later starts."""
    model = BayesianModel(net, lambda name, p: dist.Normal(p, 0.1))
    if called:
        model(x)
    fresh = model.reinitialized(1)
    model.set_initial_values({"head.weight": torch.full((3, 8), 7.0)})
    for other in (model, fresh):
        assert not torch.equal(other.initial_values()["head.weight"], net.head.weight)
        torch.testing.assert_close(other.distributions()["head.weight"].mean, net.head.weight.detach())


def test_initial_values_are_the_nets_and_can_be_set(net, x):
    model = BayesianModel(net, {"head.*": Normal(), "*": Fixed()}, Gaussian(noise="random", scale=0.4)).double()
    start = model.initial_values()
    assert set(start) == {"head.weight", "head.bias", "noise_scale"}
    torch.testing.assert_close(start["head.weight"], net.head.weight.detach())
    assert start["noise_scale"].item() == pytest.approx(0.4)
    start["head.weight"].zero_()
    assert model.net.head.weight.any()  # a copy
    model.set_initial_values({"head.bias": torch.ones(3)})
    torch.testing.assert_close(model.initial_values()["head.bias"], torch.ones(3, dtype=torch.float64))


def test_state_dicts_carry_a_model_over(net, x):
    prior = {"*.rows": PriorRows(center=ContextualCenter()), "*": Fixed()}
    model, other = BayesianModel(net, prior).double(), BayesianModel(copy.deepcopy(net).apply(_shift), prior).double()
    other.load_state_dict(model.state_dict())
    torch.manual_seed(0)
    expected = model(x)
    torch.manual_seed(0)
    torch.testing.assert_close(other(x), expected)


def _shift(module):
    for p in module.parameters(recurse=False):
        p.data += 1


def test_evaluation_mode_is_put_back_part_by_part():
    net = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    with pytest.raises(RuntimeError), eval_mode(net):
        assert not net[0].training
        raise RuntimeError
    assert net.training and net[0].training and not net[1].training
