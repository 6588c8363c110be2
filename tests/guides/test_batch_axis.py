"""Weights drawn for every sequence, in nets whose layers see something else in the place of the sequences."""

import math

import pyro
import pytest
import torch
from pyro import poutine

from pyroformer.guides import Guide, MCDropout, MeanField
from pyroformer.guides.estimators import PerSequence
from pyroformer.inference import SVI, Data, OnePassELBO
from pyroformer.models import BayesianModel, Gaussian, Linear
from pyroformer.models.likelihoods import Undrawn
from pyroformer.models.transformer import Backbone
from pyroformer.priors import Normal, SettingError

B, R, C, D, E = 3, 4, 2, 5, 2
X = torch.randn(B, 1, 1, D, generator=torch.Generator().manual_seed(0)).double().expand(B, R, C, D).contiguous()
RUNS = 800
FAMILIES = {"mean_field": MeanField(init_scale=0.4), "mc_dropout": MCDropout(rate=0.3)}


class Grid(Backbone):
    """One map of all cells of a grid, ``[B, R, C, D]``; the mean over the cells."""

    def __init__(self):
        super().__init__()
        self.map = Linear(D, E)

    def forward(self, x):
        return self.map(x).mean((-3, -2))


class Rows(Grid):
    """The same, with rows in the place of sequences, ``[B R, C, D]``."""

    def forward(self, x):
        return self.map(x.flatten(0, 1)).unflatten(-3, (-1, R)).mean((-3, -2))


class Headed(Rows):
    """With a head that sees one token a sequence."""

    def __init__(self):
        super().__init__()
        self.head = Linear(E, E)

    def forward(self, x):
        return self.head(super().forward(x).unsqueeze(-2)).squeeze(-2)


def guided(net, family):
    torch.manual_seed(0)
    model = BayesianModel(net, Normal(), Gaussian()).double()
    return model, Guide(model, family, (X[:2],))


def spread(model, guide, estimator="flipout", particles=None):
    """The standard deviation of every output over runs, ``[B, E]``."""
    torch.manual_seed(1)
    found = []
    with torch.no_grad(), poutine.block():
        if particles:
            with pyro.plate("particles", particles, dim=-2), guide, PerSequence(guide, estimator), Undrawn():
                return model(X).std(0)
        for _ in range(RUNS):
            with guide, PerSequence(guide, estimator), Undrawn():
                found.append(model(X))
    return torch.stack(found).std(0)


def exact(guide):
    """That of the posterior's functions: all cells of an example are the same input, and meet the same weight."""
    (family,), x = guide.families, X[:, 0, 0]
    if isinstance(family, MeanField):
        variance = family.scale.detach().square()
        weight, bias = variance[: E * D].view(E, D), variance[E * D :]
        return (x.square() @ weight.mT + bias).sqrt()
    matrix = family.matrix_of("map.weight").detach()
    return (x.square() @ matrix.square().mT * 0.3 / 0.7).sqrt()


def near(found, expected):
    """Within 5 standard errors: those of normal numbers, and sums of masks have lighter tails."""
    return bool((found / expected - 1).abs().max() < 5 / math.sqrt(2 * RUNS))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("net", [Grid, Rows])
def test_what_is_no_batch_shares_the_draw(net, family, monkeypatch):
    model, guide = guided(net(), FAMILIES[family])
    assert near(spread(model, guide), exact(guide))
    monkeypatch.setattr(PerSequence, "_of_sequences", lambda self, x: True)  # planted
    assert not near(spread(model, guide), exact(guide))


def test_so_it_does_with_particles(monkeypatch):
    model, guide = guided(Rows(), FAMILIES["mean_field"])
    assert near(spread(model, guide, particles=RUNS), exact(guide))
    monkeypatch.setattr(PerSequence, "_of_sequences", lambda self, x: True)  # planted
    assert not near(spread(model, guide, particles=RUNS), exact(guide))


@pytest.mark.parametrize("estimator", ["flipout", "local_reparameterization"])
def test_an_estimator_that_would_serve_no_layer_is_refused(estimator):
    data = Data(X.float(), torch.zeros(B, E))
    with pytest.raises(SettingError, match="expected shared: no random weight"):
        SVI(epochs=30, estimator=estimator).run(guided(Rows(), MeanField())[0], MeanField(), data)


@pytest.mark.parametrize("particles", [1, 3])
def test_layers_that_see_sequences_use_it(particles):
    _, guide = guided(Headed(), MeanField())
    objective = OnePassELBO(estimator="flipout", num_particles=particles)
    assert set(objective.used(guide, X[:2])) == {"head.weight", "head.bias"}
    assert torch.isfinite(objective.terms(guide, X, torch.zeros(B, E).double()).elbo)
