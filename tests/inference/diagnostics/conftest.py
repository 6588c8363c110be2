"""Chains of our samplers on models of a few numbers, and posteriors of transformers of a few draws."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from pyroformer.inference import Data, DrawsPosterior
from pyroformer.inference.density import FlatDensity
from pyroformer.inference.diagnostics import Quantity, pointwise_log_likelihood
from pyroformer.inference.samplers import Chains, HMCKernel, collect
from pyroformer.models import BayesianModel, Categorical, Features, Linear, Output, Transformer
from pyroformer.priors import Normal


@dataclass(frozen=True)
class Ran:
    """What chains gave: the vectors ``[K, S, D]``, values by site ``[K S, ...]``, and the statistics ``[K, S]``."""

    z: Tensor
    draws: dict
    statistics: dict

    @property
    def quantities(self):
        return {"z": Quantity(self.z, ("entry",))}


def ran(model, args=(), *, kernel=None, chains=4, draws=250, warmup=150, start=None, spread=0.1, seed=0, **settings):
    density = FlatDensity(model, args)
    if start is None:
        noise = torch.randn(chains, density.size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        start = density.start() + spread * noise.to(density.start())
    kernel = HMCKernel() if kernel is None else kernel
    moving = Chains(density.log_prob_and_grad, kernel, start, seed=seed, warmup_steps=warmup, **settings)
    sizes = []
    found = collect(moving, draws, lambda draw: sizes.append(draw.step_size))
    happened = found.transitions._asdict()
    happened["log_density"] = found.log_prob
    happened["step_size"] = torch.tensor(sizes[-draws:]).expand(len(start), draws)
    return Ran(found.z, density.unflatten(found.z.flatten(0, 1)), happened)


@pytest.fixture(name="ran", scope="session")
def ran_fixture():
    """Run chains of a Pyro model: ``ran(model, (x, y), kernel=..., draws=...)``."""
    return ran


def with_chains(model, draws, statistics, **info):
    chains = len(next(iter(statistics.values())))
    return DrawsPosterior(model, draws, info, chains=chains, statistics=statistics)


@pytest.fixture(scope="session")
def posterior_of():
    """A posterior from what `ran` gave, with the log-likelihood of its data among the statistics."""

    def make(model, found, data, **info):
        posterior = with_chains(model, found.draws, found.statistics, **info)
        logs = pointwise_log_likelihood(posterior, data.x, data.y)
        posterior.statistics["log_likelihood"] = logs.sum(-1)
        return posterior

    return make


@pytest.fixture(scope="session")
def classes():
    """Two classes of points ``[60, 3]`` that a line tells apart, mostly; guessing has -60 ln 2."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(60, 3, generator=generator, dtype=torch.float64)
    y = (x @ torch.tensor([1.5, -1.0, 0.5]).double() + 0.3 * torch.randn(60, generator=generator) > 0).long()
    return Data(x, y)


class Logistic(Linear):
    takes_batched_weights = True

    def forward(self, x):
        return super().forward(x.unsqueeze(-2)).squeeze(-2)


@pytest.fixture(scope="session")
def logistic():
    """Makes a logistic regression with a prior."""

    def make(prior):
        torch.manual_seed(0)
        return BayesianModel(Logistic(3, 2), prior, Categorical()).double()

    return make


@pytest.fixture(scope="session")
def transformer():
    """A posterior of made-up draws of a small transformer: 3 chains of 20."""
    torch.manual_seed(0)
    net = Transformer(Features(5), Output(3), width=8, heads=2, depth=2)
    model = BayesianModel(net, Normal(scale=0.5))
    generator = torch.Generator().manual_seed(1)
    draws = {
        name: value.detach() + 0.3 * torch.randn(60, *value.shape, generator=generator)
        for name, value in model.initial_values().items()
    }
    statistics = {
        "log_density": torch.randn(3, 20, generator=generator),
        "energy": torch.rand(3, 20, generator=generator) + 3,
        "divergent": torch.zeros(3, 20, dtype=torch.bool),
        "acceptance": torch.rand(3, 20, generator=generator),
        "steps": torch.full((3, 20), 7),
        "depth": torch.full((3, 20), 3),
        "step_size": torch.full((3, 20), 0.1),
    }
    return with_chains(model, draws, statistics, guess_log_likelihood=-33.0)


@pytest.fixture(scope="session")
def examples():
    """Inputs ``[30, 5]`` and labels of three classes."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(30, 5, generator=generator), torch.randint(3, (30,), generator=generator)
