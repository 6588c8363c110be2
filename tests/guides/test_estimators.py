"""Weights drawn anew for every sequence: each sequence sees one draw of the posterior, and nothing is shared."""

import math
from contextlib import nullcontext

import pyro
import pytest
import torch
from pyro import poutine
from torch import nn

from pyroformer.guides import Delta, Guide, MeanField
from pyroformer.guides.estimators import PerSequence
from pyroformer.guides.mean_field import _signs
from pyroformer.inference import OnePassELBO
from pyroformer.models import BayesianModel, Categorical, Features, Linear, Output, Tokens, Transformer, linear
from pyroformer.models.layers import embed
from pyroformer.models.likelihoods import Undrawn
from pyroformer.models.transformer import Backbone
from pyroformer.priors import Hierarchical, Improper, Normal, Uniform

B, T, D, E = 3, 4, 5, 2
X = torch.randn(B, T, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ESTIMATORS = ("local_reparameterization", "flipout")
DRAWS = 4000


class OneLayer(Backbone):
    def __init__(self):
        super().__init__()
        self.map = Linear(D, E)

    def forward(self, x):
        return self.map(x)


class Tied(Backbone):
    """The same table embeds the tokens and gives the logits."""

    def __init__(self):
        super().__init__()
        self.table, self.map = nn.Parameter(torch.randn(6, D)), Linear(D, D)

    def forward(self, x):
        return linear(self.map(embed(x, self.table)), self.table)


class Twice(OneLayer):
    """One square map, applied two times."""

    def __init__(self):
        nn.Module.__init__(self)
        self.map = Linear(D, D)

    def forward(self, x):
        return self.map(self.map(x))


def guided(net=None, family=None, prior=None, x=X, per_token=True):
    torch.manual_seed(0)
    model = BayesianModel(net or OneLayer(), prior or Normal(), Categorical(per_token=per_token)).double()
    return model, Guide(model, family or MeanField(init_scale=0.4), (x[:2],))


def outputs(model, guide, estimator, x=X, draws=DRAWS):
    """Outputs of many runs ``[N, B, T, E]``, each with draws of its own."""
    torch.manual_seed(1)
    replacing = PerSequence(guide, estimator) if estimator != "shared" else nullcontext()
    with torch.no_grad(), poutine.block(), pyro.plate("particles", draws, dim=-2), guide, replacing, Undrawn():
        return model(x)


def moments(y):
    """Means and covariances of all numbers of all outputs, with the standard errors of the covariances."""
    y = y.flatten(1)
    centred = y - y.mean(0)
    products = centred.unsqueeze(-1) * centred.unsqueeze(-2)
    return y.mean(0), products.mean(0), products.std(0) / len(y) ** 0.5


def exact(family, x=X):
    """Mean ``[B, T, E]`` and covariance of the outputs when all sequences share the weights."""
    loc, variance = family.loc.detach(), family.scale.detach().square()
    weight, v = loc[: E * D].view(E, D), variance[: E * D].view(E, D)
    mean = x @ weight.mT + loc[E * D :]
    covariance = torch.einsum("btd,ed,cud->btecu", x, v, x) + variance[E * D :].view(1, 1, E, 1, 1)
    return mean, torch.einsum("btecu,ef->btecuf", covariance, torch.eye(E, dtype=torch.float64))


def block_diagonal(covariance):
    size = len(covariance)
    return covariance * torch.eye(size, dtype=torch.float64).view(size, 1, 1, size, 1, 1)


def distance(y, mean, covariance):
    """How many standard errors the moments of outputs are from what is expected, at most."""
    found_mean, found, error = moments(y)
    errors = (found.diag() / len(y)).sqrt()
    of_means = ((found_mean - mean.flatten()) / errors).abs().max()
    size = mean.numel()
    return max(of_means, ((found - covariance.reshape(size, size)) / error).abs().max())


class TestMoments:
    """Means, variances, covariances between the tokens of a sequence and between sequences, all at once."""

    def test_the_shared_draw(self):
        model, guide = guided()
        mean, covariance = exact(guide.families[0])
        y = outputs(model, guide, "shared")
        assert y.shape == (DRAWS, B, T, E)
        assert distance(y, mean, covariance) < 5
        assert distance(y, mean, block_diagonal(covariance)) > 5  # planted: sequences that share nothing

    @pytest.mark.parametrize("estimator", ESTIMATORS)
    def test_each_sequence_has_one_weight_and_no_two_the_same(self, estimator):
        model, guide = guided()
        mean, covariance = exact(guide.families[0])
        y = outputs(model, guide, estimator)
        assert y.shape == (DRAWS, B, T, E)
        assert distance(y, mean, block_diagonal(covariance)) < 5
        assert distance(y, mean, covariance) > 5  # planted: sequences that share the draw

    @pytest.mark.parametrize("estimator", ESTIMATORS)
    def test_one_token_a_sequence(self, estimator):
        model, guide = guided()
        mean, covariance = exact(guide.families[0], X[:, :1])
        y = outputs(model, guide, estimator, X[:, :1])
        assert distance(y, mean, block_diagonal(covariance)) < 5
        assert distance(y, mean, 1.3 * block_diagonal(covariance)) > 5  # planted

    def test_signs_of_its_own_for_every_token_are_another_model(self, monkeypatch):
        """With equal tokens the mean over 4 of them should vary as each does, and varies half as much."""
        x = X[:, :1].expand(B, T, D)
        model, guide = guided()
        _, covariance = exact(guide.families[0], x)
        expected = torch.stack([covariance[b, 0, 0, b, 0, 0] for b in range(B)]).sqrt()
        deviation = outputs(model, guide, "flipout", x).mean(2)[..., 0].std(0)
        assert (deviation / expected - 1).abs().max() < 5 / math.sqrt(2 * DRAWS)

        def per_token(x, lead, width):
            return torch.randint(0, 2, (*lead, T, width)).to(x.dtype) * 2 - 1

        monkeypatch.setattr("pyroformer.guides.mean_field._signs", per_token)  # planted
        halved = outputs(model, guide, "flipout", x).mean(2)[..., 0].std(0)
        assert (halved / expected - 0.5).abs().max() < 5 / math.sqrt(2 * DRAWS)

    def test_without_particles(self):
        model, guide = guided()
        mean, covariance = exact(guide.families[0])
        torch.manual_seed(0)
        with torch.no_grad(), poutine.block():
            runs = []
            for _ in range(600):
                with guide, PerSequence(guide, "flipout"), Undrawn():
                    runs.append(model(X))
        assert distance(torch.stack(runs), mean, block_diagonal(covariance)) < 5

    def test_a_weight_used_twice_is_one_weight(self, monkeypatch):
        """The square of one random map has another mean than the product of two."""
        x = X[:1, :1]
        model, guide = guided(Twice())
        family = guide.families[0]
        with torch.no_grad():
            family.loc.zero_()
        v = family.scale.detach()[: D * D].view(D, D).square()
        mean = v.diag() * x  # E[(W W)_ij] = v_ii where i = j, and both biases are centred at 0
        for estimator in ESTIMATORS:  # local reparameterization gives way to flipout
            y = outputs(model, guide, estimator, x.expand(B, 1, D), 20_000)[:, 0, 0]
            assert ((y.mean(0) - mean) / (y.std(0) / len(y) ** 0.5)).abs().max() < 5
        monkeypatch.setattr(guide, "affine_calls", {name: 1 for name in guide.affine_calls})  # planted
        y = outputs(model, guide, "local_reparameterization", x.expand(B, 1, D), 20_000)[:, 0, 0]
        assert ((y.mean(0) - mean) / (y.std(0) / len(y) ** 0.5)).abs().max() > 5


def test_signs_are_fair():
    signs = _signs(torch.zeros(()), (2, 25), 40)
    assert signs.shape == (2, 25, 1, 40) and set(signs.unique().tolist()) == {-1.0, 1.0}
    assert signs.mean().abs() < 5 / math.sqrt(2000)


def small(prior=None, family=None):
    torch.manual_seed(0)
    net = Transformer(Features(2, copies=2), Output(3), width=4, heads=2, depth=1)
    model = BayesianModel(net, prior or Normal(), Categorical()).double()
    x, y = torch.randn(8, 2).double(), torch.randint(3, (8,))
    return model, Guide(model, family or MeanField(init_scale=0.1), (x[:2],)), x, y


def gradients(guide, x, y, estimator, count=80, particles=16):
    """Gradients of many estimates of the bound, ``[count, numbers]``."""
    objective, found = OnePassELBO(estimator=estimator, num_particles=particles), []
    torch.manual_seed(2)
    parameters = list(guide.parameters())
    with pyro.validation_enabled(False):
        for _ in range(count):
            loss = -objective.terms(guide, x, y, 40).elbo
            found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    return torch.stack(found)


@pytest.fixture(scope="module")
def shared_gradients():
    _, guide, x, y = small()
    return gradients(guide, x, y, "shared", 160)


def apart(a, b):
    errors = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt() + 1e-9  # biases of keys have the same slope in every draw
    return ((a.mean(0) - b.mean(0)) / errors).abs().max()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_gradient_has_the_same_mean_and_less_variance(estimator, shared_gradients):
    _, guide, x, y = small()
    found = gradients(guide, x, y, estimator)
    assert apart(found, shared_gradients) < 5
    assert found.var(0).sum() < 0.7 * shared_gradients.var(0).sum()
    assert apart(1.3 * found, shared_gradients) > 5  # planted: a gradient that is too long


def test_one_particle_is_as_good_as_many_for_the_mean(shared_gradients):
    _, guide, x, y = small()
    found = gradients(guide, x, y, "flipout", 200, particles=1)
    assert apart(found, shared_gradients) < 5
    assert found.var(0).sum() > 5 * shared_gradients.var(0).sum()


AFFINE = ["attention.query", "attention.key", "attention.value", "attention.output", "mlp.up", "mlp.down"]
LAYERS = {f"blocks.0.{layer}.{own}" for layer in AFFINE for own in ("weight", "bias")}
HEAD = {"head.weight", "head.bias"}


class TestWhichSites:
    def test_layers_use_it_and_tables_and_gains_do_not(self):
        _, guide, x, _ = small()
        assert OnePassELBO().used(guide, x[:2]) == {}
        assert OnePassELBO(estimator="flipout").used(guide, x[:2]) == dict.fromkeys(LAYERS | HEAD, "flipout")
        assert guide.matrices == {name for name in LAYERS | HEAD if name.endswith("weight")}

    def test_local_reparameterization_is_for_layers_that_see_one_token(self):
        _, guide, x, _ = small()
        used = OnePassELBO(estimator="local_reparameterization").used(guide, x[:2])
        flipped = {name for name in LAYERS if name.endswith("weight")}
        # a bias is drawn for each sequence, whatever the number of its tokens
        assert used == {
            **dict.fromkeys(LAYERS | HEAD, "local_reparameterization"),
            **dict.fromkeys(flipped, "flipout"),
        }

    def test_a_bound_with_particles_sees_the_same(self):
        _, guide, x, _ = small()
        assert set(OnePassELBO(estimator="flipout", num_particles=3).used(guide, x[:2])) == LAYERS | HEAD

    def test_a_tied_table_keeps_the_shared_draw(self):
        tokens = torch.randint(6, (B, T))
        _, guide = guided(Tied(), x=tokens)
        assert set(OnePassELBO(estimator="flipout").used(guide, tokens)) == {"map.weight", "map.bias"}

    def test_each_family_answers_for_its_sites(self):
        families = {"blocks.*": Delta(), "*": MeanField()}
        _, guide, x, _ = small(family=families)
        assert set(OnePassELBO(estimator="flipout").used(guide, x[:2])) == HEAD
        y = OnePassELBO(estimator="flipout").terms(guide, x, torch.zeros(8, dtype=torch.long))
        assert torch.isfinite(y.elbo)

    def test_what_is_computed_or_bounded_keeps_the_shared_draw(self):
        prior = {
            "head.*": Hierarchical(),
            "*.mlp.*": Uniform(),
            "*.query.*": Improper(),
            "*.key.*": Hierarchical(centered=True),
            "*": Normal(),
        }
        _, guide, x, y = small(prior)
        expected = {name for name in LAYERS if "mlp" not in name}
        for particles in (1, 2):
            objective = OnePassELBO(estimator="flipout", num_particles=particles)
            assert set(objective.used(guide, x[:2])) == expected
            assert torch.isfinite(objective.terms(guide, x, y).elbo)


def test_a_token_embedding_is_shared():
    torch.manual_seed(0)
    net = Transformer(Tokens(6, 4), Output(3), width=4, heads=2, depth=1)
    tokens = torch.randint(6, (3, 4))
    guide = Guide(BayesianModel(net, Normal()), MeanField(), (tokens,))
    assert set(OnePassELBO(estimator="flipout").used(guide, tokens)) == LAYERS | HEAD
    assert "embedding.weight" in guide.sites and "embedding.weight" not in guide.matrices


def test_an_input_of_zeros_has_a_finite_gradient():
    _, guide = guided()
    bound = OnePassELBO(estimator="local_reparameterization")
    x = torch.zeros(B, 1, D).double()
    loss = bound.terms(guide, x, torch.zeros(B, 1, dtype=torch.long)).elbo
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss, list(guide.parameters())))
