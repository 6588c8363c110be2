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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyro
import torch
from ess_samplers import Problem, Run, contenders
from probed_functions import functions
from small_transformer import bayesian_net, one_thread, probes

from pyroformer.inference.density import FlatDensity
from pyroformer.inference.diagnostics import ess_bulk, mcse_mean, mcse_sd

DIGITS, PROBES = 100, 10
GUESSING = -DIGITS * math.log(10)
REFERENCE = "reference"


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
    reference_budget = min(budget, arguments.reference) if quick else arguments.reference
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
