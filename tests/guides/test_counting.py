"""Parameters by site: known counts of every family, sums that agree with the guide, and what several sites share."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyroformer.guides import Delta, DirichletRows, Family, Guide, MeanField, count_parameters
from pyroformer.models import BayesianModel, Image, Output, Transformer
from pyroformer.priors import DirichletRows as PriorRows
from pyroformer.priors import Gamma, Hierarchical, Normal, Uniform

X = torch.rand(2, 4, 4)
PRIOR = {"*.rows": PriorRows(), "head.*": Uniform(), "norm.*": Hierarchical(hyperprior=Gamma()), "*": Normal()}


class Joint(Family):
    """One mean for all entries of all sites, a scale a site, and a vector that nothing reads."""

    def setup(self, sites):
        self.sites = list(sites)
        self.loc, self.idle = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(7))
        self.scales = nn.ParameterList(torch.ones(()) for _ in sites)

    def posterior(self, name, prior, msg):
        value = self.loc + self.scales[self.sites.index(name)] * torch.randn(prior.event_shape)
        return value, None


@pytest.fixture(scope="module")
def model():
    return BayesianModel(Transformer(Image(4, 4, patch=2), Output(3), width=4, heads=2, depth=2), PRIOR)


def numbers(guide):
    return sum(p.numel() for p in guide.families.parameters())


def counted(model, families):
    guide = Guide(model, families, (X,))
    before = {name: p.detach().clone() for name, p in guide.named_parameters()}
    found = count_parameters(guide, X)
    assert all(torch.equal(p, before[name]) for name, p in guide.named_parameters())
    assert found.total == numbers(guide)
    return guide, found


@pytest.mark.parametrize(("family", "each"), [(MeanField(), 2), (Delta(), 1)])
def test_independent_families_have_so_many_an_entry(model, family, each):
    guide, found = counted(model, {"*.rows": DirichletRows(), "*": family})
    sizes = {name: value.numel() for name, value in model.initial_values().items()}
    assert found.shared == ()
    assert {name: count for name, count in found.own.items() if name not in model.rows} == {
        name: each * size for name, size in sizes.items()
    }
    assert sum(found.own.values()) != numbers(guide) + 1  # planted: a number too many would be noticed


@pytest.mark.parametrize(("shared", "own", "together"), [("head", 2, 0), ("layer", 1, 0), ("global", 0, 1)])
def test_what_rows_share_is_counted_once(model, shared, own, together):
    _, found = counted(model, {"*.rows": DirichletRows(shared=shared), "*": MeanField()})
    assert [found.own[name] for name in model.rows] == [own, own]
    assert [(each.sites, each.count) for each in found.shared] == ([(model.rows, together)] if together else [])


def test_a_family_of_ones_own_says_nothing_and_is_counted(model):
    guide, found = counted(model, {"*.rows": DirichletRows(), "blocks.0.*": MeanField(), "*": Joint()})
    joint = tuple(name for name in guide.sites if isinstance(guide.family_of(name), Joint))
    assert all(found.own[name] == 1 for name in joint)
    (shared,) = found.shared
    assert shared.sites == joint and shared.count == 1 + 7
    first = [name for name in model.sites if name.startswith("blocks.0.")]
    assert all(found.own[name] == 2 * model.sites[name].value.numel() for name in first)


def test_the_random_state_is_left_alone(model):
    guide = Guide(model, {"*.rows": DirichletRows(), "*": MeanField()}, (X,))
    before = torch.get_rng_state()
    count_parameters(guide, X)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 9])
def test_any_number_of_sites_is_told_apart(count):
    """Each has an own size; what the first and the last share stays shared."""

    class Pairs(Family):
        def setup(self, sites):
            self.names = list(sites)
            self.own = nn.ParameterList(torch.zeros(3 + i) for i in range(len(sites)))
            self.common = nn.Parameter(torch.zeros(2))

        def posterior(self, name, prior, msg):
            place = self.names.index(name)
            ends = self.common.sum() if place in (0, len(self.names) - 1) else 0.0
            return self.own[place].sum() + ends + torch.zeros(prior.event_shape), None

    def sites(x):
        for place in range(count):
            pyro.sample(f"w{place}", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    guide = Guide(sites, Pairs(), (X,))
    found = count_parameters(guide, X)
    common = 2 if count == 1 else 0
    assert found.own == {f"w{place}": 3 + place + common for place in range(count)}
    assert [(each.sites, each.count) for each in found.shared] == ([(("w0", f"w{count - 1}"), 2)] if count > 1 else [])
