"""A seed fixes every number, and a run leaves no trace in any global state."""

import random

import numpy as np
import pyro
import pytest
import torch
from torch import nn

from pyroformer.guides import DirichletRows, MeanField
from pyroformer.inference import MAP, ML, NUTS, SVI, Data, DeepEnsemble
from pyroformer.models import BayesianModel, Features, Gaussian, Output, Transformer
from pyroformer.priors import DirichletRows as PriorRows
from pyroformer.priors import Learned, Normal

X = torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
Y = X.sum(-1, keepdim=True)
ROWS = {"*.rows": DirichletRows(), "*": MeanField()}


def dropping():
    """A net with randomness of its own."""
    return nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 1))


def transformer(prior):
    return BayesianModel(
        Transformer(Features(2, copies=2), Output(1), width=4, heads=2, depth=1), prior, Gaussian(scale=0.5)
    )


RUNS = {
    "svi": (
        SVI(epochs=2, batch_size=5),
        MeanField(init_scale=0.1),
        lambda: BayesianModel(dropping(), Normal(), Gaussian()),
    ),
    "particles": (
        SVI(epochs=2, batch_size=5, particles=3),
        ROWS,
        lambda: transformer({"*.rows": PriorRows(), "*": Normal()}),
    ),
    "rows": (
        SVI(epochs=2, batch_size=5),
        ROWS,
        lambda: transformer({"*.rows": PriorRows(), "head.*": Normal(), "*": Learned()}),
    ),
    "map": (MAP(epochs=2, batch_size=5), None, lambda: BayesianModel(dropping(), Normal(), Gaussian())),
    "ml": (ML(epochs=2, batch_size=5), None, lambda: BayesianModel(nn.Linear(2, 1), Learned(), Gaussian())),
    "nuts": (
        NUTS(num_samples=5, warmup_steps=5, chains=2),
        None,
        lambda: BayesianModel(nn.Linear(2, 1), Normal(), Gaussian(scale=0.5)),
    ),
    "ensemble": (
        DeepEnsemble(member=SVI(epochs=1), size=2),
        MeanField(init_scale=0.1),
        lambda: BayesianModel(nn.Linear(2, 1), {"bias": Learned(), "*": Normal()}, Gaussian()),
    ),
}


def built(name):
    torch.manual_seed(7)
    return RUNS[name][2]()


def numbers(name, seed, model=None):
    driver, guide, _ = RUNS[name]
    posterior = driver.run(model or built(name), guide, Data(X, Y, X, Y), seed)
    return posterior.predict(X, 4).loc


@pytest.mark.parametrize("name", RUNS)
def test_the_same_seed_gives_the_same_bits(name):
    model = built(name)
    first = numbers(name, 3, model)
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)
    pyro.param("something", torch.tensor(1.0))
    assert torch.equal(numbers(name, 3, model), first)
    assert torch.equal(numbers(name, 3), first)
    assert not torch.equal(numbers(name, 4, model), first)


@pytest.mark.parametrize("name", RUNS)
def test_global_state_is_left_alone(name):
    model = built(name)
    pyro.param("mine", torch.tensor(1.0))
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    driver, guide, _ = RUNS[name]
    posterior = driver.run(model, guide, Data(X, Y), 3)
    posterior.predict(X, 2)
    posterior.draw(2)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1] and np.random.get_state()[1].tolist() == states[2]
    assert (torch.get_default_dtype(), torch.get_num_threads()) == (dtype, threads)
    assert list(pyro.get_param_store()) == ["mine"]
    with pytest.raises(ValueError, match="GreaterThan"):
        pyro.distributions.Normal(0.0, torch.tensor(-1.0))


def test_a_second_fit_does_not_start_from_the_first():
    model = built("svi")
    driver = SVI(epochs=30, learning_rate=0.05)
    first = driver.run(model, MeanField(), Data(X, Y), 0)
    second = SVI(epochs=1, learning_rate=1e-9).run(model, MeanField(), Data(X, Y), 0)
    moved = first.guide.families[0].loc - second.guide.families[0].loc
    start = torch.cat([value.flatten() for value in model.initial_values().values()])
    assert torch.allclose(second.guide.families[0].loc, start, atol=1e-6)
    assert moved.abs().max() > 0.1


def test_members_and_chains_have_seeds_of_their_own():
    posterior = DeepEnsemble(member=ML(epochs=1), size=3).run(built("ml"), None, Data(X, Y), 0)
    neighbour = DeepEnsemble(member=ML(epochs=1), size=3).run(built("ml"), None, Data(X, Y), 1)
    members = [m.model.net.weight for m in (*posterior.members, *neighbour.members)]
    assert len({tuple(weight.flatten().tolist()) for weight in members}) == 6
    sampled = RUNS["nuts"][0].run(built("nuts"), None, Data(X, Y), 0).draws["weight"]
    assert not torch.equal(sampled[:5], sampled[5:])
