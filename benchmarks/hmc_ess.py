"""Effective samples a second on the posterior of a small transformer: Pyro, NumPyro, BlackJAX, and ours.

The posterior is that of `small_transformer` with 100 digits. Every sampler starts, with the same seed, from the same
trained nets (a draw of the prior, then Adam on the likelihood alone until the negative log-likelihood is below 60),
warms up (NUTS with ``--warmup`` draws, adjusted MCLMC with twice as many, MCLMC with 40 times as many steps), and
samples until its chains together have evaluated ``--budget`` gradients. What counts is the smallest rank-normalised
bulk ESS among the log-likelihood and the log-probabilities of 10 other digits, a second and per 1,000 gradients of
sampling; also with the seconds of warm-up, and compile time apart. Mean and standard deviation of the log-likelihood
are compared with those of a NUTS run of ours with ``--reference`` gradients, in Monte Carlo standard errors. A
log-likelihood that is no better than guessing (-230) would be that of a posterior that learnt nothing.

Every run is a process of its own, on one thread and one core; with ``--jobs 2`` two of them go side by side. With
``--records`` what a run found is added to a file, and is not measured again: a stopped benchmark goes on. The last line
is JSON: mean, least and largest over the seeds.

    python benchmarks/hmc_ess.py [--budget 20000] [--seeds 3] [--jobs 1] [--records FILE] [--only ours_nuts] [--quick]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import queue
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import torch
from probed_functions import functions
from pyro.infer import NUTS
from pyro.infer.autoguide.initialization import init_to_value
from small_transformer import SD, bayesian_net, installed, numpyro_energy, one_thread, probes
from torch import Tensor

from pyroformer.inference.density import FlatDensity
from pyroformer.inference.diagnostics import ess_bulk, mcse_mean, mcse_sd
from pyroformer.inference.samplers import AdjustedMCLMCKernel, Chains, MCLMCKernel, NUTSKernel
from pyroformer.models import BayesianModel

DIGITS, PROBES, TRAINED = 100, 10, -60.0
GUESSING = -DIGITS * math.log(10)
REFERENCE = "reference"
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


def measured(problem: Problem, run: Run) -> dict[str, Any]:
    """Numbers about a run."""
    values = functions(problem.model, problem.density, run.z, (problem.x, problem.y), probes(PROBES))
    sizes, likelihood = ess_bulk(values).tolist(), values[..., 0]
    least = min(sizes)
    return {
        "ess_per_second": least / run.seconds,
        "ess_per_second_with_warmup": least / (run.seconds + run.warm_seconds),
        "ess_per_1000_gradients": 1000 * least / run.gradients,
        "log_likelihood_ess_per_second": sizes[0] / run.seconds,
        "ms_per_gradient": 1000 * run.seconds / run.gradients,
        "min_ess": least,
        "draws": run.z.shape[0] * run.z.shape[1],
        "chains": run.z.shape[0],
        "gradients": run.gradients,
        "seconds": run.seconds,
        "warm_gradients": run.warm_gradients,
        "warm_seconds": run.warm_seconds,
        "compile_seconds": run.compile_seconds,
        "log_likelihood": float(likelihood.mean()),
        "log_likelihood_mcse": float(mcse_mean(likelihood)),
        "log_likelihood_sd": float(likelihood.std()),
        "log_likelihood_sd_mcse": float(mcse_sd(likelihood)),
        "learnt": float(likelihood.mean()) > GUESSING / 2,
    }


def standard_errors(record: dict[str, Any], reference: dict[str, Any]) -> list[float]:
    """How far mean and standard deviation of the log-likelihood are from those of a reference, in standard errors."""
    found = []
    for name in ("log_likelihood", "log_likelihood_sd"):
        error = math.hypot(record[f"{name}_mcse"], reference[f"{name}_mcse"])
        found.append(round((record[name] - reference[name]) / error, 2))
    return found


def spread(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean, least and largest of every number over the seeds."""
    found: dict[str, Any] = {}
    for key, first in records[0].items():
        values = [record[key] for record in records]
        if isinstance(first, float):
            three = (sum(values) / len(values), min(values), max(values))
            found[key] = [round(each, 4) for each in three] if math.isfinite(three[0]) else None
        else:
            found[key] = first if isinstance(first, bool | int | None) and len(set(values)) == 1 else values
    return found


def one(name: str, seed: int, budget: int, warmup: int, quick: bool) -> dict[str, Any]:
    """Run one sampler in this process."""
    one_thread()
    depth = 3 if quick else 8
    model, x, y = bayesian_net(DIGITS)
    density = FlatDensity(model, (x, y), compile=not quick)
    problem = Problem(model, x, y, density, warmup, budget, depth)
    samplers = dict(contenders(depth))
    return measured(problem, samplers["ours_nuts_4" if name == REFERENCE else name](problem, seed))


def in_processes(
    tasks: list[tuple[str, int, int]], warmup: int, quick: bool, jobs: int, kept: Path | None, measured: bool
) -> dict[tuple[str, int], dict[str, Any]]:
    """Run samplers in processes of their own, each on a core of its own.

    Args:
        tasks: Name, seed and budget of each.
        warmup, quick: Settings of all.
        jobs: How many at once.
        kept: A file of what was found before, to which this is added.
        measured: Whether that is all.
    """
    found = {}
    if kept is not None and kept.exists():
        for line in kept.read_text().splitlines():
            record = json.loads(line)
            if (record["name"], record["seed"], record["budget"]) in tasks and record["warmup"] == warmup:
                found[record["name"], record["seed"]] = record["found"]
    cores: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in sorted(os.sched_getaffinity(0))[:jobs]:
        cores.put(core)

    def run(task: tuple[str, int, int]) -> None:
        name, seed, budget = task
        core = cores.get()
        command = [sys.executable, __file__, "--one", name, "--seed", seed, "--budget", budget, "--warmup", warmup]
        command += ["--core", core] + (["--quick"] if quick else [])
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        try:
            ended = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, env=environment)
        finally:
            cores.put(core)
        if ended.returncode:
            raise RuntimeError(f"{name} with seed {seed} failed")
        line = ended.stdout.splitlines()[-1]
        found[name, seed] = json.loads(line)
        record = {"name": name, "seed": seed, "budget": budget, "warmup": warmup, "found": found[name, seed]}
        if kept is not None:
            with kept.open("a") as file:
                file.write(json.dumps(record) + "\n")
        print(f"{name} seed {seed} {line}", flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, [task for task in tasks if task[:2] not in found and not measured]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=int, default=20_000, help="gradients of sampling, default 20000")
    parser.add_argument("--warmup", type=int, default=150, help="draws of warm-up of NUTS, default 150")
    parser.add_argument("--seeds", type=int, default=3, help="default 3")
    parser.add_argument("--reference", type=int, default=200_000, help="gradients of the long NUTS run, 0 for none")
    parser.add_argument("--only", default="", help="names of samplers, default all")
    parser.add_argument("--jobs", type=int, default=1, help="samplers at once, each on a core of its own, default 1")
    parser.add_argument("--records", type=Path, help="a file of what was measured before, to which is added")
    parser.add_argument("--measured", action="store_true", help="tell what is in the records, and measure nothing")
    parser.add_argument("--quick", action="store_true", help="a smoke test: numbers without meaning")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        os.sched_setaffinity(0, {arguments.core})
        found = one(arguments.one, arguments.seed, arguments.budget, arguments.warmup, arguments.quick)
        print(json.dumps(found))
        return
    quick, seeds = arguments.quick, 1 if arguments.quick else arguments.seeds
    budget, warmup = (2000, 3) if quick else (arguments.budget, arguments.warmup)
    reference_budget = budget if quick else arguments.reference
    depth = 3 if quick else 8
    names = [name for name, _ in contenders(depth)]
    wanted = arguments.only.split(",") if arguments.only else names
    if unknown := set(wanted) - set(names):
        parser.error(f"--only: got {', '.join(sorted(unknown))}; accepted: {', '.join(names)}")
    tasks = [(name, seed, budget) for seed in range(seeds) for name in names if name in wanted]
    if reference_budget:
        tasks.append((REFERENCE, seeds, reference_budget))
    runs = in_processes(tasks, warmup, quick, arguments.jobs, arguments.records, arguments.measured)
    long = runs.get((REFERENCE, seeds))
    found = {name: [runs[name, seed] for seed in range(seeds) if (name, seed) in runs] for name in wanted}
    records = {name: found[name] for name in names if found.get(name)}
    means = {name: sum(r["ess_per_second"] for r in each) / len(each) for name, each in records.items()}
    peer = max((value for name, value in means.items() if name.startswith("numpyro")), default=None)
    result = {
        "samplers": {name: spread(found) for name, found in records.items()},
        "over_numpyro": {n: round(v / peer, 3) for n, v in means.items() if n.startswith("ours")} if peer else None,
        "from_reference": long
        and {name: [standard_errors(record, long) for record in each] for name, each in records.items()},
        "reference": long and {key: round(v, 4) if isinstance(v, float) else v for key, v in long.items()},
        "budget": budget,
        "warmup": warmup,
        "seeds": {name: len(each) for name, each in records.items()},
        "max_tree_depth": depth,
        "digits": DIGITS,
        "guessing": round(GUESSING, 1),
        "threads": 1,
        "jobs": arguments.jobs,
        "torch": torch.__version__,
        "pyro": pyro.__version__,
        "machine": platform.machine(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
