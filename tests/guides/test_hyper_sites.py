"""Guides over hyper-sites: the bound against an oracle that draws the same sites from the guide's numbers alone."""

import math
from contextlib import nullcontext

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch.distributions import LogNormal, Normal

from pyroformer import priors
from pyroformer.guides import Delta, Guide, MeanField
from pyroformer.inference import OnePassELBO
from pyroformer.models import BayesianModel, Categorical, Features, Output, Transformer

N, B = 40, 5
CASES = {
    "non-centred": priors.Hierarchical(prior=priors.Normal(scale=0.7), hyperprior=priors.Gamma()),
    "centred": priors.Hierarchical(prior=priors.Normal(scale=0.7), hyperprior=priors.Gamma(), centered=True),
    "other weights": priors.Hierarchical(prior=priors.Laplace(), hyperprior=priors.HalfCauchy(), centered=True),
    "horseshoe": priors.Horseshoe(prior=priors.Normal(scale=0.7), slab=2.0, slab_df=4.0),
    "relevance": priors.ARD(prior=priors.Normal(scale=0.7), centered=True),
    "by head": priors.PerHead(hyperprior=priors.Gamma(), centered=True),
    "in part": {
        "head.*": priors.Normal(),
        "position": priors.Improper(),
        "blocks.*": priors.Hierarchical(centered=True),
        "*": priors.Hierarchical(prior=priors.StudentT()),
    },
}


def build(prior, family):
    """A transformer in float64 and a batch of 5 of 40 examples; the guide's scales are all different."""
    torch.manual_seed(1)
    net = Transformer(Features(2, copies=2), Output(3), width=4, heads=2, depth=1)
    model = BayesianModel(net, prior, Categorical()).double()
    x, y = torch.randn(B, 2).double(), torch.randint(3, (B,))
    guide = Guide(model, family, (x[:2],))
    if isinstance(family, MeanField):
        with torch.no_grad():
            own = next(iter(guide.families))
            own.log_scale.copy_(torch.linspace(-2.5, -0.5, len(own.loc)))
    return model, guide, x, y


def drawn(model, guide, particles):
    """A draw of every site and its posterior, from the guide's vector."""
    family, lead = next(iter(guide.families)), [] if particles == 1 else [particles, 1]
    start = model.initial_values()
    noise = torch.randn(particles, len(family.loc), dtype=torch.float64)
    flat, at = family.loc + family.log_scale.exp() * noise, 0
    values, posteriors = {}, {}
    for name in guide.sites:
        shape = start[name].shape
        part = slice(at, at := at + shape.numel())
        loc, scale = family.loc[part].view(shape), family.log_scale[part].exp().view(shape)
        value = flat[:, part].reshape([*lead, *shape])
        hyper = name in model.hyper_sites
        values[name] = value.exp() if hyper else value
        posteriors[name] = (LogNormal if hyper else Normal)(loc, scale)
    return values, posteriors


def replayed(model, values, x, y, num_data, particles):
    plates = pyro.plate("oracle", particles, dim=-2) if particles > 1 else nullcontext()
    with plates:
        return poutine.trace(poutine.condition(model, data=values)).get_trace(x, y, num_data).nodes


def expected_log_prior(prior, q, value, closed):
    """Averaged over particles: closed for normal priors given their scale, by the draws for others."""
    while isinstance(prior, dist.Independent):
        prior = prior.base_dist
    if isinstance(prior, dist.MaskedDistribution):
        return 0.0
    count = value.numel() / q.mean.numel()
    if not closed or not isinstance(prior, dist.Normal):
        return prior.log_prob(value).sum() / count
    loc, scale = prior.loc.expand(value.shape), prior.scale.expand(value.shape)
    squares = (q.variance + (q.mean - loc) ** 2) / scale**2
    return -(0.5 * squares + scale.log() + 0.5 * math.log(2 * math.pi)).sum() / count


def oracle(model, guide, x, y, *, temperature, particles, closed=True, num_data=N, jacobian=True):
    values, posteriors = drawn(model, guide, particles)
    nodes = replayed(model, values, x, y, num_data, particles)
    loss = -nodes["obs"]["fn"].log_prob(y).sum() * num_data / B / particles
    for name, q in posteriors.items():
        value, prior = values[name], nodes[name]["fn"]
        if name in model.hyper_sites:
            by_draw = prior.log_prob(value).sum() + (temperature * value.log().sum() if jacobian else 0.0)
            loss = loss - by_draw / particles - temperature * Normal(q.loc, q.scale).entropy().sum()
        else:
            loss = loss - expected_log_prior(prior, q, value, closed) - temperature * q.entropy().sum()
    return loss


def agree(guide, ours, theirs):
    found = []
    for loss in (ours, theirs):
        torch.manual_seed(0)
        value = loss()
        found.append((value, torch.cat([g.flatten() for g in torch.autograd.grad(value, list(guide.parameters()))])))
    (a, gradient), (b, other) = found
    return torch.allclose(a, b, rtol=1e-10) and torch.allclose(gradient, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("case", CASES)
def test_one_pass_equals_the_oracle(case, temperature, particles):
    model, guide, x, y = build(CASES[case], MeanField())
    objective = OnePassELBO(temperature=temperature, num_particles=particles)

    def ours():
        return objective.differentiable_loss(model, guide, x, y, N)

    def theirs(**planted):
        given = {"temperature": temperature, "particles": particles, **planted}
        return oracle(model, guide, x, y, **given)

    assert agree(guide, ours, theirs)
    assert agree(guide, ours, theirs)  # a second time: what was kept of the first run is used rightly
    assert not agree(guide, ours, lambda: theirs(num_data=B))
    assert not agree(guide, ours, lambda: theirs(temperature=temperature + 0.2))
    assert not agree(guide, ours, lambda: theirs(jacobian=False))
    if case != "other weights":
        assert not agree(guide, ours, lambda: theirs(closed=False))  # normal given the scale: no draw is needed


@pytest.mark.parametrize("case", CASES)
def test_stock_trace_elbo_equals_the_difference_of_log_densities(case):
    model, guide, x, y = build(CASES[case], MeanField())

    def ours():
        return Trace_ELBO().differentiable_loss(model, guide, x, y, N)

    def theirs(num_data=N):
        values, posteriors = drawn(model, guide, 1)
        nodes = replayed(model, values, x, y, num_data, 1)
        loss = -nodes["obs"]["fn"].log_prob(y).sum() * num_data / B
        for name, q in posteriors.items():
            loss = loss - nodes[name]["fn"].log_prob(values[name]).sum() + q.log_prob(values[name]).sum()
        return loss

    assert agree(guide, ours, theirs)
    assert not agree(guide, ours, lambda: theirs(B))


@pytest.mark.parametrize("centered", [False, True])
def test_point_masses_have_the_density_of_the_constrained_sites(centered):
    """Without the Jacobian of the exponential: the maximum is that over the scale itself."""
    prior = priors.Hierarchical(hyperprior=priors.Gamma(concentration=3.0), centered=centered)
    model, guide, x, y = build(prior, Delta())
    start = {name: value + 0.1 for name, value in model.initial_values().items()}
    guide = Guide(model, Delta(), (x[:2],), init=start)
    trace = poutine.trace(poutine.condition(model, data=start)).get_trace(x, y, N)
    found = OnePassELBO().loss(model, guide, x, y, N)
    assert found == pytest.approx(-trace.log_prob_sum().item(), rel=1e-9)
    jacobian = sum(start[name].log().item() for name in model.hyper_sites)
    assert found != pytest.approx(-trace.log_prob_sum().item() - jacobian, rel=1e-6)  # planted


def test_a_normal_prior_that_differs_from_particle_to_particle_in_its_centre_too():
    def model():
        center = pyro.sample("center", dist.Normal(torch.tensor(0.5).double(), 1.0))
        scale = pyro.sample("scale", dist.LogNormal(torch.tensor(0.0).double(), 1.0))
        prior = dist.Normal(center.unsqueeze(-1), scale.unsqueeze(-1)).expand([*center.shape, 2]).to_event(1)
        return pyro.sample("w", prior)

    guide = Guide(model, MeanField(init_scale=0.4), ())

    def ours():
        return OnePassELBO(num_particles=4).terms(guide).kl

    def theirs(closed=True):
        family = next(iter(guide.families))
        flat = family.loc + family.scale * torch.randn(4, 4, dtype=torch.float64)
        q = [Normal(family.loc[i], family.scale[i]) for i in range(4)]
        center, scale, w = flat[:, :1], flat[:, 1:2].exp(), flat[:, 2:]
        squares = q[2].variance, q[3].variance
        if closed:
            spread = (torch.stack(squares) + (family.loc[2:] - center) ** 2) / scale**2
        else:
            spread = ((w - center) / scale) ** 2
        log_p = -(0.5 * spread + scale.log() + 0.5 * math.log(2 * math.pi)).sum() / 4
        log_p = log_p + LogNormal(0.0, 1.0).log_prob(scale).mean()
        first = -(0.5 * (q[0].variance + (q[0].mean - 0.5) ** 2) + 0.5 * math.log(2 * math.pi))
        entropy = sum(each.entropy() for each in q) + flat[:, 1].mean()  # that of the scale by its draws
        return -(log_p + first + entropy)

    assert agree(guide, ours, theirs)
    assert not agree(guide, ours, lambda: theirs(closed=False))
