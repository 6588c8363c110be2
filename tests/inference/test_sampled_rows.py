"""Chains over attention rows, and over rows and weights, against moments that are known."""

import math

import pyro
import pytest
import torch
from pyro import poutine
from pyro.ops.stats import effective_sample_size
from torch import nn

from pyroformer.inference.density import FlatDensity
from pyroformer.inference.samplers import Chains, HMCKernel, collect
from pyroformer.models import Attention, BayesianModel, Features, Gaussian, Output, Transformer
from pyroformer.priors import DirichletRows, Fixed, FlatCenter, MaskedDirichlet, Normal
from pyroformer.priors.carried import logs_of

NOISE = 0.3


class Mixture(nn.Module):
    """The mixture of two values that the first of two tokens attends to."""

    takes_batched_weights = True

    def __init__(self):
        super().__init__()
        self.attention = Attention(1, 1)
        with torch.no_grad():
            for name, value in self.named_parameters():
                value.fill_(1.0 if name.endswith("weight") else 0.0)

    def forward(self, x):
        return self.attention(x)[..., 0, :]


def mixture(law, **weights):
    prior = {"*.rows": law, **{name.replace("_", "."): p for name, p in weights.items()}, "*": Fixed()}
    return BayesianModel(Mixture(), prior, Gaussian(scale=NOISE)).double()


def sampled(density, start, draws=150, length=1.6, seed=0):
    """``[K, S, D]``."""
    kernel = HMCKernel(length=length, target_accept=0.85)
    return collect(Chains(density, kernel, start, seed=seed, warmup_steps=80), draws).z


def starts(density, chains=32):
    """Chains that begin apart."""
    noise = torch.randn(chains, density.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return density.start() + 0.5 * noise


def away(draws, expected):
    """How many Monte Carlo standard errors the means of draws ``[K, S, ...]`` are from what is expected, at most."""
    error = draws.flatten(0, 1).std(0) / effective_sample_size(draws).clamp(min=1.0).sqrt()
    return ((draws.mean((0, 1)) - expected).abs() / error).max().item()


MASK = torch.tensor([[True, True, True, True], [True, False, True, True], [False, True, False, False]])
CONCENTRATION = torch.tensor([[0.8, 1.5, 3.0, 0.5], [2.0, 1.0, 0.6, 4.0], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)


def dirichlet():
    law = MaskedDirichlet(CONCENTRATION, MASK, validate_args=False)
    pyro.sample("rows", law.to_event(1), infer={"law": DirichletRows(), "mask": MASK})


def without_jacobian(density):
    """Twin: densities of rows taken for densities of their numbers."""
    rows = density.layout.transforms["rows"]

    def wrong(z):
        value, gradient = density.log_prob_and_grad(z)
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            volume = rows.log_abs_det_jacobian(z, rows(z)).sum(-1)
            (slope,) = torch.autograd.grad(volume.sum(), z)
        return value - volume.detach(), gradient - slope

    return wrong


@pytest.mark.parametrize("right", [True, False], ids=["right", "twin"])
def test_dirichlet_rows_have_their_moments(right):
    density = FlatDensity(dirichlet)
    assert density.size == 3 + 2
    z = sampled(density.log_prob_and_grad if right else without_jacobian(density), starts(density))
    rows = density.unflatten(z.flatten(0, 1))["rows"]
    logs = logs_of(rows)
    own = MaskedDirichlet(CONCENTRATION, MASK)
    total = torch.where(MASK, CONCENTRATION, 0.0).sum(-1, keepdim=True)
    log_mean = CONCENTRATION.digamma() - total.digamma()
    several = MASK & (MASK.sum(-1, keepdim=True) > 1)
    found = torch.cat([rows[:, several], rows[:, several].square(), logs[:, several]], -1).unflatten(0, z.shape[:2])
    expected = torch.cat([own.mean[several], (own.variance + own.mean.square())[several], log_mean[several]])
    assert (rows[:, 2] == torch.tensor([0.0, 1.0, 0.0, 0.0])).all() and (rows[:, 1, 1] == 0).all()
    assert (away(found, expected) < 5) == right


def on_grid(concentration, y, values, noise=NOISE):
    """Of ``(a, 1 - a)`` with these prior concentrations, given ``y`` near the mixture of two values: evidence, and the
    means of a, its square and its logarithm; leading axes broadcast."""
    u = torch.linspace(-40, 40, 321, dtype=torch.float64)
    log_a, log_b = nn.functional.logsigmoid(u), nn.functional.logsigmoid(-u)
    c = concentration.unsqueeze(-2)
    beta = torch.lgamma(c.sum(-1)) - torch.lgamma(c).sum(-1)
    density = beta + c[..., 0] * log_a + c[..., 1] * log_b  # in u: with the Jacobian a (1 - a)
    mean = log_a.exp() * values[..., 0, None] + log_b.exp() * values[..., 1, None]
    error = (y.unsqueeze(-1) - mean) / noise
    weight = (density - 0.5 * error.square() - math.log(noise) - 0.5 * math.log(2 * math.pi)).exp()
    weight = weight * (u[1] - u[0])
    evidence = weight.sum(-1)
    moments = [(weight * f).sum(-1) / evidence for f in (log_a.exp(), (2 * log_a).exp(), log_a)]
    return evidence, torch.stack(moments, -1)


def test_one_row_given_what_is_observed():
    """The row of the first token is updated; that of the second, which nobody sees, keeps its prior."""
    law = DirichletRows(concentration=2.0, floor=0.4)
    x = torch.tensor([[[1.2], [-0.8]]]).double()
    y = torch.tensor([[0.9]]).double()
    density = FlatDensity(mixture(law), (x, y))
    assert density.size == 2
    rows = density.unflatten(sampled(density.log_prob_and_grad, starts(density)).flatten(0, 1))["attention.rows"]
    rows, logs = (v[:, 0, 0, :, 0].unflatten(0, (32, 150)) for v in (rows, logs_of(rows)))
    found = torch.stack([rows, rows.square(), logs], -1)  # [K, S, 2, 3]
    scores = x[0, :, 0].unsqueeze(-1) * x[0, :, 0]
    concentration = 2.0 * scores.softmax(-1) + 0.4
    _, exact = on_grid(concentration[0], y[0, 0], x[0, :, 0])
    _, prior = on_grid(concentration, y[0, 0], x[0, :, 0], noise=1e6)
    assert torch.allclose(prior[:, 0], (concentration / concentration.sum(-1, keepdim=True))[:, 0])
    assert away(found, torch.stack([exact, prior[1]])) < 5
    assert away(found[:, :, 0], prior[0]) > 5  # planted: as if nothing had been observed
    flat = torch.ones(2).double()
    assert away(found[:, :, 0], on_grid(flat, y[0, 0], x[0, :, 0])[1]) > 5  # planted: another prior
    assert away(found[:, :, 0], on_grid(concentration[0] - 0.3, y[0, 0], x[0, :, 0])[1]) > 5  # planted: less of a floor


X = torch.tensor([[1.5, -0.5], [1.0, -1.0], [0.8, 0.1], [-1.2, 0.9], [1.1, -0.4]]).double().unsqueeze(-1)
Y = torch.tensor([1.1, 0.4, 0.5, -0.9, 0.7]).double().unsqueeze(-1)


def joint_on_grid(law, flat=False):
    """Posterior means of the query weight q, the value weight v, their squares and product, and those of every row."""
    q = torch.linspace(-9, 9, 41).double()
    v = torch.linspace(-1.5, 3.5, 81).double()
    x, y = X.squeeze(-1), Y.squeeze(-1)
    scores = q.view(-1, 1, 1, 1) * x[:, :1] * x
    weights = torch.ones_like(scores) if flat else scores.softmax(-1)
    values = v.view(1, -1, 1, 1) * x
    evidence, rows = on_grid(law.concentration * weights + law.floor, y, values)  # [41, 81, N]
    log_prior = -0.5 * (q / 2).square().unsqueeze(-1) - 0.5 * v.square()
    weight = (log_prior + evidence.log().sum(-1)).flatten().softmax(0).view(len(q), len(v))
    assert weight[[0, -1]].sum() + weight[:, [0, -1]].sum() < 1e-4  # the grid holds it all
    of_weights = (q.unsqueeze(-1), q.square().unsqueeze(-1), v, v.square(), q.unsqueeze(-1) * v)
    means = torch.stack([(weight * f).sum() for f in of_weights])
    return torch.cat([means, (weight[..., None, None] * rows).sum((0, 1)).flatten()])


LAW = DirichletRows(concentration=4.0, floor=0.4)


@pytest.fixture(scope="module")
def both():
    """Draws of query weight, value weight and rows ``[K, S, 5 + 3 N]``, as functions whose means are on the grid."""
    model = mixture(LAW, attention_query_weight=Normal(scale=2.0), attention_value_weight=Normal())
    density = FlatDensity(model, (X, Y))
    assert density.size == 2 + 2 * len(X)
    z = sampled(density.log_prob_and_grad, starts(density))
    values = density.unflatten(z.flatten(0, 1))
    q, v = (values[f"attention.{name}.weight"].flatten() for name in ("query", "value"))
    rows, logs = (r[:, :, 0, 0, 0] for r in (values["attention.rows"], logs_of(values["attention.rows"])))
    of_rows = torch.stack([rows, rows.square(), logs], -1).flatten(1)
    return torch.cat([torch.stack([q, q.square(), v, v.square(), q * v], -1), of_rows], -1).unflatten(0, z.shape[:2])


def test_rows_and_weights_together(both):
    exact, flat = joint_on_grid(LAW), joint_on_grid(LAW, flat=True)
    assert away(both, exact) < 5
    assert away(both, flat) > 5  # planted: rows that know nothing of the query
    assert abs(flat[0]) < 1e-6 and flat[1].item() == pytest.approx(4.0, rel=1e-3)  # whose weight keeps its prior
    assert away(both, joint_on_grid(DirichletRows(concentration=4.0, floor=0.8))) > 5  # planted: another floor


def test_around_another_center_the_query_keeps_its_prior():
    law = DirichletRows(center=FlatCenter(), concentration=4.0, floor=0.4)
    model = mixture(law, attention_query_weight=Normal(scale=2.0), attention_value_weight=Normal())
    density = FlatDensity(model, (X, Y))
    z = sampled(density.log_prob_and_grad, starts(density))
    values = density.unflatten(z.flatten(0, 1))
    q, v = (values[f"attention.{name}.weight"].view(*z.shape[:2]) for name in ("query", "value"))
    found = torch.stack([q, q.square(), v, v.square(), q * v], -1)
    assert away(found, joint_on_grid(law, flat=True)[:5]) < 5
    assert away(found, joint_on_grid(law)[:5]) > 5  # planted: the posterior around softmax attention


def test_a_transformer_by_weighing_draws_of_the_prior():
    """Two tokens, one layer of attention, a random head and random queries; every draw of the prior is weighed by its
    likelihood, which for four observations leaves many that count."""
    torch.manual_seed(0)
    net = Transformer(Features(1, copies=2), Output(1), width=2, heads=1, depth=1)
    prior = {"*.rows": DirichletRows(concentration=2.0, floor=0.5), "*.query.weight": Normal(scale=2.0)}
    model = BayesianModel(net, {**prior, "head.*": Normal(), "*": Fixed()}, Gaussian(scale=0.7)).double()
    x = torch.tensor([[1.0], [-0.5], [2.0], [0.3]]).double()
    y = torch.tensor([[1.5], [0.9], [1.8], [1.2]]).double()

    def functions(values):
        """``[S, ...]``: of head, queries and rows, with their squares."""
        weights = [values[name].flatten(1) for name in model.sites]
        rows = [values[name].flatten(2)[:, :, 0] for name in model.rows]
        found = torch.cat([*weights, *rows], 1)
        return torch.cat([found, found.square()], 1)

    size = 40_000
    with torch.no_grad(), pyro.plate("draws", size, dim=-2), poutine.trace() as tracer:
        model(x, y)
    nodes = tracer.trace.nodes
    drawn = functions({name: nodes[name]["value"].squeeze(1) for name in (*model.sites, *model.rows)})
    log_likelihood = nodes["obs"]["fn"].log_prob(y).sum(-1)
    weight = log_likelihood.softmax(0)
    assert 1 / weight.square().sum() > 500  # this many draws count
    expected = (weight.unsqueeze(-1) * drawn).sum(0)
    noise = (weight.square().unsqueeze(-1) * (drawn - expected).square()).sum(0).sqrt()

    density = FlatDensity(model, (x, y))
    z = sampled(density.log_prob_and_grad, starts(density))
    found = functions(density.unflatten(z.flatten(0, 1))).unflatten(0, z.shape[:2])
    own = found.flatten(0, 1).std(0) / effective_sample_size(found).clamp(min=1.0).sqrt()
    error = (noise.square() + own.square()).sqrt()
    assert ((found.mean((0, 1)) - expected).abs() / error).max() < 5
    assert ((found.mean((0, 1)) - drawn.mean(0)).abs() / error).max() > 5  # planted: nothing observed
