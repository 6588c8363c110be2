"""The samplers that are compared on the posterior of a small transformer: Pyro's, NumPyro's, BlackJAX's, and ours."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.infer import NUTS
from pyro.infer.autoguide.initialization import init_to_value
from small_transformer import SD, installed, numpyro_energy
from torch import Tensor

from pyroformer.inference.density import FlatDensity
from pyroformer.inference.samplers import AdjustedMCLMCKernel, Chains, MCLMCKernel, NUTSKernel
from pyroformer.models import BayesianModel

TRAINED = -60.0
"""The log-likelihood at which the nets are that samplers start from."""
MCLMC_STEPS = 40
"""Steps of warm-up of MCLMC for each draw of warm-up of NUTS."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A posterior to sample.

    Args:
        model, x, y: The model and its data.
        density: The density, compiled.
        warmup: Draws of warm-up of HMC.
        budget: Gradients of sampling, over all chains.
        depth: The most doublings of a trajectory of NUTS.
    """

    model: BayesianModel
    x: Tensor
    y: Tensor
    density: FlatDensity
    warmup: int
    budget: int
    depth: int

    def trained(self, seed: int, chains: int) -> Tensor:
        """Trained nets ``[K, D]``: draws of the prior, moved by Adam on the likelihood alone."""
        centre = torch.cat([prior.base_dist.loc.flatten() for prior in self.model.distributions().values()])
        generator = torch.Generator().manual_seed(1000 + seed)
        z = torch.nn.Parameter(centre + SD * torch.randn(chains, len(centre), generator=generator))
        optimizer, reached = torch.optim.Adam([z], 3e-3), z.detach().clone()
        going = torch.ones(chains, dtype=torch.bool)
        constant = len(centre) * (math.log(SD) + 0.5 * math.log(2 * math.pi))
        for _ in range(500):
            value, slope = self.density.log_prob_and_grad(z.detach())
            away = (z.detach() - centre) / SD
            likelihood = value + 0.5 * away.square().sum(-1) + constant
            reached = torch.where((going & (likelihood > TRAINED)).unsqueeze(-1), z.detach(), reached)
            going &= likelihood <= TRAINED
            if not going.any():
                return reached
            z.grad = -(slope + away / SD)
            optimizer.step()
        raise RuntimeError("a net was not trained in 500 steps")


@dataclass(frozen=True, eq=False)
class Run:
    """What a sampler did.

    Args:
        z: Draws ``[K, S, D]``.
        seconds, gradients: Of sampling.
        warm_seconds, warm_gradients: Of warm-up.
        compile_seconds: Of compiling that is not in the seconds.
    """

    z: Tensor
    seconds: float
    gradients: int
    warm_seconds: float
    warm_gradients: int
    compile_seconds: float | None = None


Sampler = Callable[[Problem, int], Run]


Numbers = tuple[float, int, float, int]


def timed(step: Callable[[], tuple[Any, int]], warmup: int, budget: int) -> tuple[list[Any], Numbers]:
    """Run warm-up and then steps until the budget is used up.

    Args:
        step: Gives where chains are, and how many gradients that took.
        warmup: Steps.
        budget: Gradients.

    Returns:
        Where chains were, and seconds and gradients of sampling and of warm-up.
    """
    spent, begin = 0, time.perf_counter()
    for _ in range(warmup):
        spent += step()[1]
    middle, warm, spent, kept = time.perf_counter(), spent, 0, []
    while spent < budget:
        where, gradients = step()
        spent += gradients
        kept.append(where)
    return kept, (time.perf_counter() - middle, spent, middle - begin, warm)


def pyro_nuts(problem: Problem, seed: int) -> Run:
    """Stock Pyro, its checks off."""
    pyro.set_rng_seed(seed)
    values = problem.density.unflatten(problem.trained(seed, 1)[0])
    calls = 0
    with pyro.validation_enabled(False):
        kernel = NUTS(problem.model, max_tree_depth=problem.depth, init_strategy=init_to_value(values=values))
        kernel.setup(problem.warmup, problem.x, problem.y)
        energy = kernel.potential_fn

        def counted(values: dict[str, Tensor]) -> Tensor:
            nonlocal calls
            calls += 1
            return energy(values)

        kernel.potential_fn = counted
        where, steps = kernel.initial_params, 0

        def step() -> tuple[dict[str, Tensor], int]:
            nonlocal where, steps
            before, steps = calls, steps + 1
            if steps == problem.warmup + 1:
                kernel.end_warmup()
            where = kernel.sample(where)
            return where, calls - before

        kept, numbers = timed(step, problem.warmup, problem.budget)
    flat = torch.stack([problem.density.flatten({n: v.detach() for n, v in each.items()}) for each in kept])
    return Run(flat.unsqueeze(0), *numbers)


def numpyro_nuts(problem: Problem, seed: int, chains: int = 1) -> Run:
    """NumPyro, with its chains vectorized."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from numpyro.infer import NUTS as NumPyroNUTS

    start = {n: jnp.asarray(v.numpy()) for n, v in problem.density.unflatten(problem.trained(seed, chains)).items()}
    kernel = NumPyroNUTS(
        potential_fn=numpyro_energy(problem.model, problem.x, problem.y),
        target_accept_prob=0.8,
        max_tree_depth=problem.depth,
    )
    key = jax.random.PRNGKey(seed)
    if chains == 1:
        state = kernel.init(key, problem.warmup, {n: v[0] for n, v in start.items()}, (), {})
    else:
        state = kernel.init(jax.random.split(key, chains), problem.warmup, start, (), {})
    begin = time.perf_counter()
    move = jax.jit(lambda state: kernel.sample(state, (), {})).lower(state).compile()
    compiling = time.perf_counter() - begin

    def step() -> tuple[dict[str, Any], int]:
        nonlocal state
        state = move(state)
        return {n: np.asarray(v) for n, v in state.z.items()}, int(np.asarray(state.num_steps).sum())

    kept, numbers = timed(step, problem.warmup, problem.budget)
    stacked = {name: torch.as_tensor(np.stack([each[name] for each in kept])) for name in kept[0]}
    flat = problem.density.flatten(stacked if chains == 1 else {n: v.flatten(0, 1) for n, v in stacked.items()})
    flat = flat.unflatten(0, (len(kept), chains)) if chains > 1 else flat.unsqueeze(1)
    return Run(flat.transpose(0, 1), *numbers, compiling)


def blackjax_mclmc(problem: Problem, seed: int) -> Run:
    """BlackJAX, unadjusted, with its own tuner, whose seconds hold its compiling."""
    import blackjax
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.flatten_util import ravel_pytree

    energy, thin = numpyro_energy(problem.model, problem.x, problem.y), 10
    start = problem.density.unflatten(problem.trained(seed, 1)[0])
    position, back = ravel_pytree({name: jnp.asarray(value.numpy()) for name, value in start.items()})

    def log_density(z: Any) -> Any:
        return -energy(back(z))

    keys = jax.random.split(jax.random.PRNGKey(seed), 3)
    state = blackjax.mcmc.mclmc.init(position=position, logdensity_fn=log_density, rng_key=keys[0])
    kernel = blackjax.mcmc.mclmc.build_kernel(integrator=blackjax.mcmc.integrators.isokinetic_mclachlan)
    begin = time.perf_counter()
    state, found, count = blackjax.mclmc_find_L_and_step_size(
        mclmc_kernel=kernel,
        num_steps=round(MCLMC_STEPS * problem.warmup / 0.3),  # of which it takes three tenths
        state=state,
        rng_key=keys[1],
        logdensity_fn=log_density,
        diagonal_preconditioning=True,
    )
    jax.block_until_ready(state.position)
    tuning = time.perf_counter() - begin

    def inner(state: Any, key: Any) -> tuple[Any, None]:
        moved, _ = kernel(key, state, log_density, found.inverse_mass_matrix, found.L, found.step_size)
        return moved, None

    def several(state: Any, key: Any) -> Any:
        return jax.lax.scan(inner, state, jax.random.split(key, thin))[0]

    begin = time.perf_counter()
    move, key = jax.jit(several).lower(state, keys[2]).compile(), keys[2]
    compiling = time.perf_counter() - begin

    def step() -> tuple[Any, int]:
        nonlocal state, key
        key, own = jax.random.split(key)
        state = move(state, own)
        return np.asarray(state.position), 2 * thin  # the integrator has two stages

    kept, numbers = timed(step, 0, problem.budget)
    sites = jax.vmap(back)(jnp.asarray(np.stack(kept)))
    flat = problem.density.flatten({name: torch.as_tensor(np.asarray(value)) for name, value in sites.items()})
    return Run(flat.unsqueeze(0), *numbers[:2], tuning, 2 * int(count), compiling)


def ours(kernel: Any, chains: int, slower: int = 1) -> Sampler:
    """One of our samplers.

    Args:
        kernel: It.
        chains: ``K``.
        slower: How many times as many draws its warm-up takes as that of NUTS.
    """

    def run(problem: Problem, seed: int) -> Run:
        density = problem.density
        begin = time.perf_counter()
        density.log_prob_and_grad(density.start().repeat(chains, 1))
        compiling = time.perf_counter() - begin
        start = problem.trained(seed, chains)
        mass, warmup = torch.full((density.size,), SD**2), slower * problem.warmup
        moving = Chains(density.log_prob_and_grad, kernel, start, seed=seed, warmup_steps=warmup, inverse_mass=mass)

        def step() -> tuple[Tensor, int]:
            draw = moving.step()
            return draw.z, int(draw.transition.steps.sum())

        kept, numbers = timed(step, warmup, problem.budget)
        return Run(torch.stack(kept, 1), *numbers, compiling)

    return run


def contenders(depth: int) -> Iterator[tuple[str, Sampler]]:
    """The samplers that can be run here."""
    there = installed("numpyro", "blackjax")
    yield "pyro_nuts", pyro_nuts
    if there["numpyro"]:
        yield "numpyro_nuts", numpyro_nuts
        yield "numpyro_nuts_4", lambda problem, seed: numpyro_nuts(problem, seed, 4)
        if there["blackjax"]:
            yield "blackjax_mclmc", blackjax_mclmc
    yield "ours_nuts", ours(NUTSKernel(max_tree_depth=depth), 1)
    yield "ours_nuts_4", ours(NUTSKernel(max_tree_depth=depth), 4)
    more = MCLMC_STEPS // MCLMCKernel().steps_per_draw
    yield "ours_mclmc", ours(MCLMCKernel(), 1, more)
    yield "ours_mclmc_4", ours(MCLMCKernel(), 4, more)
    yield "ours_adjusted_mclmc_4", ours(AdjustedMCLMCKernel(), 4, 2)
