"""The bound in one pass equals a two-pass oracle that never meets the messenger.

Stock SVI runs a messenger guide once and ignores its own model argument, so comparing it with itself shows nothing.
The oracle here is a plain function that samples the same sites from the guide's parameters with the same noise; the
model is then replayed against its trace, and densities, KLs and entropies are summed by hand.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import Tensor
from torch.distributions import (
    Dirichlet,
    Gamma,
    LogNormal,
    MultivariateNormal,
    Normal,
    Weibull,
    kl_divergence,
)

from pyroformer import priors
from pyroformer.guides import (
    Delta,
    DirichletRows,
    Guide,
    GumbelSoftmaxRows,
    LogisticNormalRows,
    LogNormalRows,
    MeanField,
    WeibullRows,
)
from pyroformer.inference import OnePassELBO
from pyroformer.models import BayesianModel, Categorical, Features, Output, Transformer

N, B, FLOOR, CONCENTRATION = 40, 5, 0.5, 2.0
FLAT = {"center": priors.FlatCenter(), "kl_weight": 0.3, "kl_normalization": "none"}
DIRICHLET = {**FLAT, "concentration": CONCENTRATION, "floor": 0.0}
ROWS = {"*.rows": priors.DirichletRows(**DIRICHLET), "*": priors.Normal(scale=0.7)}
CASES = {
    "mean field": (priors.Normal(scale=0.7), MeanField(init_scale=0.2)),
    "mean field, other priors": (
        {
            "head.*": priors.Improper(),
            "blocks.0.mlp.*": lambda name, p: dist.Laplace(p.new_zeros(()), p.new_ones(())),
            "*": priors.Normal(scaling="fan_in"),
        },
        MeanField(init_scale=0.2),
    ),
    "delta": (priors.Normal(scale=0.7), Delta()),
    "rows alone": ({**ROWS, "*": priors.Learned()}, DirichletRows(sharpness=30.0, floor=FLOOR)),
    "rows and mean field": (
        ROWS,
        {"*.rows": DirichletRows(sharpness=30.0, floor=FLOOR), "*": MeanField(init_scale=0.2)},
    ),
    "rows without KL": (
        {**ROWS, "*.rows": priors.DirichletRows(**{**DIRICHLET, "kl_weight": 0.0})},
        {"*.rows": DirichletRows(sharpness=30.0, floor=FLOOR), "*": MeanField(init_scale=0.2)},
    ),
    "rows, point weights": (ROWS, {"*.rows": DirichletRows(sharpness=30.0, floor=FLOOR, shared="layer"), "*": Delta()}),
    "weibull rows": (
        {**ROWS, "*.rows": priors.GammaRows(**DIRICHLET)},
        {"*.rows": WeibullRows(sharpness=2.0), "*": MeanField(init_scale=0.2)},
    ),
    "log-normal rows": (
        {"*.rows": priors.LogNormalRows(**FLAT, scale=1.5), "*": priors.Learned()},
        LogNormalRows(sharpness=2.0),
    ),
    "logistic-normal rows": (
        {"*.rows": priors.LogisticNormalRows(**FLAT, scale=1.5), "*": priors.Learned()},
        LogisticNormalRows(sharpness=2.0),
    ),
    "gumbel-softmax rows": (
        {**ROWS, "*.rows": priors.GumbelSoftmaxRows(**FLAT, temperature=1.5)},
        {"*.rows": GumbelSoftmaxRows(sharpness=2.0), "*": Delta()},
    ),
}


@dataclass
class Rows:
    """The posterior of one layer's rows by torch's own distributions: a draw, and what is known of it and its prior.

    All numbers are those of rows, ``[..., B, H, T]``; entropy and KL are None where neither has a closed form.
    """

    value: Tensor
    log_prob: Callable[[Tensor], Tensor]
    log_prior: Callable[[Tensor], Tensor]
    entropy: Tensor | None = None
    kl: Tensor | None = None


def dirichlet(p, a):
    q, prior = Dirichlet(a * p + FLOOR), Dirichlet(torch.full_like(p, CONCENTRATION))
    return Rows(
        priors.MaskedDirichlet(q.concentration).rsample(),
        q.log_prob,
        prior.log_prob,
        q.entropy(),
        kl_divergence(q, prior),
    )


def weibull(p, a):
    q = Weibull(p / torch.exp(torch.lgamma(1 + 1 / a)), a.expand_as(p))
    shape, rate = torch.full_like(p, CONCENTRATION), CONCENTRATION * p.shape[-1]
    prior = Gamma(shape, rate)
    expected_log = q.scale.log() - 0.57721566490153286 / q.concentration
    cross = shape * math.log(rate) - torch.lgamma(shape) + (shape - 1) * expected_log - rate * q.mean
    return Rows(
        q.rsample(),
        lambda s: q.log_prob(s).sum(-1),
        lambda s: prior.log_prob(s).sum(-1),
        q.entropy().sum(-1),
        (-q.entropy() - cross).sum(-1),
    )


def log_normal(p, a):
    q, prior = LogNormal(p.log() - 0.5 / a**2, (1 / a).expand_as(p)), LogNormal(p.new_zeros(()), p.new_tensor(1.5))
    value = (q.loc + q.scale * torch.randn_like(p)).exp()
    return Rows(
        value,
        lambda s: q.log_prob(s).sum(-1),
        lambda s: prior.log_prob(s).sum(-1),
        q.entropy().sum(-1),
        kl_divergence(q.base_dist, prior.base_dist).sum(-1),
    )


def logistic_normal(p, a):
    def of_ratios(loc, scale):  # log-ratios to the last entry are jointly normal
        covariance = torch.eye(p.shape[-1] - 1).double() + 1
        return MultivariateNormal(loc[..., :-1] - loc[..., -1:], scale.square().unsqueeze(-1) * covariance)

    def density(law, rows):
        logs = rows.log()
        return law.log_prob(logs[..., :-1] - logs[..., -1:]) - logs.sum(-1)

    one = p.new_ones((*p.shape[:-1], 1))
    q, prior = of_ratios(p.log(), one / a), of_ratios(torch.zeros_like(p), 1.5 * one)
    value = (p.log() + torch.randn_like(p) / a).softmax(-1)
    return Rows(value, lambda s: density(q, s), lambda s: density(prior, s), None, kl_divergence(q, prior))


def gumbel_softmax(p, a):
    value = (p.log() - torch.empty_like(p).exponential_().log() / a).softmax(-1)

    def concrete(temperature, logits, rows):  # torch's own has one temperature for all rows
        score = logits - temperature * rows.log()
        score = (score - score.logsumexp(-1, keepdim=True)).sum(-1) - rows.log().sum(-1)
        n = rows.shape[-1]
        return score + math.lgamma(n) + (n - 1) * temperature.log().squeeze(-1)

    return Rows(
        value, lambda s: concrete(a, a * p.log(), s), lambda s: concrete(p.new_tensor([1.5]), torch.zeros_like(p), s)
    )


BY_HAND = {
    DirichletRows: dirichlet,
    WeibullRows: weibull,
    LogNormalRows: log_normal,
    LogisticNormalRows: logistic_normal,
    GumbelSoftmaxRows: gumbel_softmax,
}


def build(case):
    """A transformer in float64 with a guide, two layers deep, and a batch of 5 of 40 examples."""
    prior, families = CASES[case]
    torch.manual_seed(1)
    net = Transformer(Features(2, copies=2), Output(3), width=4, heads=2, depth=2)
    model = BayesianModel(net, prior, Categorical()).double()
    x, y = torch.randn(B, 2).double(), torch.randint(3, (B,))
    return model, Guide(model, families, (x[:2],)), x, y


def plates(particles):
    return nullcontext() if particles == 1 else pyro.plate("oracle", particles, dim=-2)


def layer_of(model, row_site):
    return model.get_submodule(f"net.{row_site.removesuffix('.rows')}")


def drawn(model, guide, x, particles):
    """A draw of every site and its posterior as a plain torch distribution, from the guide's parameters alone."""
    lead = [] if particles == 1 else [particles, 1]
    values, posteriors = {}, {}
    for family in guide.families:
        own = [name for name in guide.sites if guide.family_of(name) is family]
        if isinstance(family, Delta):
            for name in own:
                value = family.values[family.names[name]]
                values[name], posteriors[name] = value.expand(*lead, *value.shape), None
        elif isinstance(family, MeanField):
            noise = torch.randn(particles, len(family.loc), dtype=torch.float64)
            flat, start = family.loc + family.log_scale.exp() * noise, 0
            for name in own:
                shape = model.sites[name].value.shape
                part = slice(start, start := start + shape.numel())
                values[name] = flat[:, part].view(*lead, *shape)
                posteriors[name] = Normal(family.loc[part].view(shape), family.log_scale[part].exp().view(shape))
    for name in model.rows:
        family = guide.family_of(name)
        sharpness = family.log_sharpness[str(model.rows.index(name))].exp()
        softmax = scores(model, name, values, x).softmax(-1)
        posteriors[name] = BY_HAND[type(family)](softmax.expand(*lead[:1], *softmax.shape[-4:]), sharpness)
        values[name] = posteriors[name].value
    return values, posteriors


def scores(model, name, values, x):
    """The scores of one layer, given all sites before it; the stream of noise is left alone."""
    with torch.random.fork_rng(devices=[]), poutine.block(), poutine.trace() as tracer:
        poutine.condition(model, data=values)(x)
    return tracer.trace.nodes[name]["infer"]["scores"]


def plain_guide(model, guide, particles=1):
    """A function for stock inference: Deltas that carry the density of the posterior, under the model's plates."""

    def run(x, y, num_data):
        values, posteriors = drawn(model, guide, x, particles)
        data = pyro.plate("data", num_data, subsample=torch.arange(len(x)), dim=-1)
        for name, value in values.items():
            q, event = posteriors[name], 3 if name in model.rows else model.sites[name].value.dim()
            density = torch.zeros_like(value) if q is None else q.log_prob(value)
            density = density.flatten(value.dim() - event).sum(-1) if name not in model.rows else density.sum((-1, -2))
            site = dist.Delta(value, density, event_dim=event)
            if name not in model.rows:
                pyro.sample(name, site)
                continue
            weight = layer_of(model, name).row_law.kl_weight
            with data, poutine.scale(scale=weight) if weight else poutine.mask(mask=False):
                pyro.sample(name, site)
        run.posteriors = posteriors

    return run


def oracle(model, guide, x, y, *, temperature=1.0, particles=1, num_data=N, row_weight=None):
    """Minus the bound by hand: likelihood and priors of the replayed model, closed KLs and entropies."""
    plain = plain_guide(model, guide, particles)
    with plates(particles):
        guide_trace = poutine.trace(plain).get_trace(x, y, num_data)
        trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(x, y, num_data)
    loss = -trace.nodes["obs"]["fn"].log_prob(y).sum() * num_data / len(x) / particles
    for name, q in plain.posteriors.items():
        prior, value = trace.nodes[name]["fn"], trace.nodes[name]["value"]
        if q is None:
            loss = loss - prior.log_prob(value).mean()
        elif name in model.rows:
            weight = layer_of(model, name).row_law.kl_weight if row_weight is None else row_weight
            log_q = q.log_prob(value)
            known = q.kl is not None and (temperature == 1 or q.entropy is not None)
            kl = q.kl if known else log_q - q.log_prior(value)
            parts = kl if temperature == 1 else kl + (1 - temperature) * (q.entropy if known else -log_q)
            loss = loss + weight * num_data / len(x) / particles * parts.sum()
        else:
            loss = loss - expected_log_prior(prior, q, value) - temperature * q.entropy().sum()
    return loss


def expected_log_prior(prior, q, value):
    """In closed form for normal priors, 0 for flat ones, by the draws for others."""
    while isinstance(prior, dist.Independent):
        prior = prior.base_dist
    if isinstance(prior, dist.MaskedDistribution):
        return 0.0
    if not isinstance(prior, dist.Normal):
        return prior.log_prob(value).sum() / (value.numel() / q.mean.numel())
    loc, scale = prior.loc.view(q.mean.shape), prior.scale.view(q.mean.shape)
    squares = (q.variance + (q.mean - loc) ** 2) / scale**2
    return -(0.5 * squares + scale.log() + 0.5 * math.log(2 * math.pi)).sum()


def gradients(loss, model, guide):
    parameters = {**dict(guide.named_parameters()), **model.learned}
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return torch.cat(
        [(g if g is not None else p * 0).flatten() for g, p in zip(found, parameters.values(), strict=True)]
    )


def seeded(function):
    torch.manual_seed(0)
    return function()


def agree(model, guide, ours, theirs):
    """Whether two losses have the same value and the same gradient, to rounding.

    Torch's gradient of digamma, which the oracle has from closed forms of torch, is good to 1e-8 only.
    """
    a, b = seeded(ours), seeded(theirs)
    same = torch.allclose(a, b, rtol=1e-10)
    return same and torch.allclose(gradients(a, model, guide), gradients(b, model, guide), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("temperature", [1.0, 0.1])
@pytest.mark.parametrize("case", CASES)
def test_one_pass_equals_two_passes(case, temperature, particles):
    model, guide, x, y = build(case)
    objective = OnePassELBO(temperature=temperature, num_particles=particles)

    def ours():
        return objective.differentiable_loss(model, guide, x, y, N)

    def theirs(**planted):
        return oracle(model, guide, x, y, **{"temperature": temperature, "particles": particles, **planted})

    assert agree(model, guide, ours, theirs)
    # planted: the batch not scaled up, another temperature, rows at full weight, other draws
    assert not agree(model, guide, ours, lambda: theirs(num_data=B))
    if case != "delta":
        assert not agree(model, guide, ours, lambda: theirs(temperature=temperature + 0.2))
        assert not agree(model, guide, ours, lambda: (torch.rand(1), theirs())[1])
    if model.rows and case != "rows without KL":
        assert not agree(model, guide, ours, lambda: theirs(row_weight=1.0))


@pytest.mark.parametrize("case", CASES)
def test_stock_trace_elbo_equals_a_function_guide_with_the_same_noise(case):
    model, guide, x, y = build(case)
    plain = plain_guide(model, guide, 1)

    def ours():
        return Trace_ELBO().differentiable_loss(model, guide, x, y, N)

    def theirs(num_data=N):
        with poutine.block():
            return Trace_ELBO().differentiable_loss(model, plain, x, y, num_data)

    assert agree(model, guide, ours, theirs)
    assert not agree(model, guide, ours, lambda: theirs(B))  # planted
