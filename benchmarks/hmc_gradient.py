"""The gradient of a small transformer's log-density: stock Pyro, the flat density, and JAX as NumPyro runs it.

The posterior is that of `small_transformer`; one thread, one interleaved run. The last line is JSON with the medians in
milliseconds a chain, the seconds before the first compiled gradient, ``speedup_over_pyro`` (its checks off, 200 digits)
and ``speedup_over_numpyro`` (the worse of the sizes; null where NumPyro is not installed).

    python benchmarks/hmc_gradient.py [--repeats 60] [--digits 100,200] [--chains 4,8] [--eager]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.infer.autoguide.initialization import init_to_value
from pyro.infer.mcmc.util import initialize_model
from pyro.ops.integrator import potential_grad
from small_transformer import PARAMETERS, bayesian_net, installed, numpyro_energy, one_thread
from torch import Tensor

from pyroformer.inference.density import FlatDensity
from pyroformer.models import BayesianModel

WARM_UP = 5


def pyro_gradient(model: BayesianModel, x: Tensor, y: Tensor, values: dict[str, Tensor], checks: bool) -> Any:
    """What a step of Pyro's kernels asks for."""
    with pyro.validation_enabled(checks):
        _, energy, _, _ = initialize_model(model, model_args=(x, y), init_strategy=init_to_value(values=values))
    parts = {name: value.clone() for name, value in values.items()}

    def run() -> Any:
        with pyro.validation_enabled(checks):
            return potential_grad(energy, parts)

    return run


def numpyro_gradients(
    model: BayesianModel, x: Tensor, y: Tensor, z: Tensor, density: FlatDensity
) -> dict[str, Callable[[], Any]]:
    """The gradient of NumPyro's potential of the same model, for one vector, and mapped over several."""
    import jax
    import jax.numpy as jnp

    energy = numpyro_energy(model, x, y)
    given = [{name: jnp.asarray(v.numpy()) for name, v in density.unflatten(each).items()} for each in z]
    single = jax.jit(jax.value_and_grad(energy))
    value, expected = float(single(given[0])[0]), -float(density.log_prob_and_grad(z[0])[0])
    if abs(value - expected) > 1e-4 * abs(expected):
        raise RuntimeError(f"NumPyro's potential is {value}, ours {expected}")
    stacked = {name: jnp.stack([each[name] for each in given]) for name in given[0]}
    several = jax.jit(jax.vmap(jax.value_and_grad(energy)))
    return {
        "numpyro": lambda: jax.block_until_ready(single(given[0])),
        f"numpyro_{len(z)}": lambda: jax.block_until_ready(several(stacked)),
    }


def contenders(
    count: int, chains: list[int], with_jax: bool, with_compiled: bool
) -> tuple[dict[str, Callable[[], Any]], dict[str, float]]:
    """What is timed for a number of digits; and the seconds that compiling took."""
    model, x, y = bayesian_net(count)
    eager = FlatDensity(model, (x, y))
    if eager.size != PARAMETERS or eager.graph is None:
        raise RuntimeError(f"{eager.size} parameters: expected {PARAMETERS}")
    compiled = FlatDensity(model, (x, y), compile=True) if with_compiled else None
    z = eager.start() + 0.05 * torch.randn(max(chains), eager.size)
    values = eager.unflatten(z[0])
    runs: dict[str, Callable[[], Any]] = {
        "pyro_checked": pyro_gradient(model, x, y, values, True),
        "pyro": pyro_gradient(model, x, y, values, False),
    }
    for name, density in {"eager": eager, **({"compiled": compiled} if compiled else {})}.items():
        runs[name] = lambda density=density: density.log_prob_and_grad(z[0])
        for k in chains:
            runs[f"{name}_{k}"] = lambda density=density, k=k: density.log_prob_and_grad(z[:k])
    seconds = {}
    for name, run in runs.items():
        begin = time.perf_counter()
        found = run()
        if name.startswith("compiled"):
            seconds[name] = round(time.perf_counter() - begin, 1)
        value = -found[1] if name.startswith("pyro") else found[0].reshape(-1)[0]
        expected = eager.log_prob_and_grad(z[0])[0]
        if not torch.allclose(value, expected, rtol=1e-4):
            raise RuntimeError(f"{name} gives {float(value)}, eager {float(expected)}")
    if with_jax:
        for k in chains:
            runs |= numpyro_gradients(model, x, y, z[:k], eager)
        for run in (run for name, run in runs.items() if name.startswith("numpyro")):
            run()
    print(f"{count} digits, {len(eager.graph.graph.nodes)} operations, seconds before the first gradient: {seconds}")
    return runs, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=60, help="gradients of each kind, default 60")
    parser.add_argument("--digits", default="100,200", help="numbers of digits, default 100,200")
    parser.add_argument("--chains", default="4,8", help="numbers of chains at once, default 4,8")
    parser.add_argument("--eager", action="store_true", help="without compiled densities; speedups are of eager ones")
    arguments = parser.parse_args()
    ours = "eager" if arguments.eager else "compiled"
    one_thread()
    torch.manual_seed(0)
    with_jax = installed("numpyro")["numpyro"]
    sizes, chains = ([int(each) for each in text.split(",")] for text in (arguments.digits, arguments.chains))
    runs, compile_seconds = {}, {}
    for count in sizes:
        found, seconds = contenders(count, chains, with_jax, not arguments.eager)
        runs |= {f"{name}@{count}": run for name, run in found.items()}
        compile_seconds |= {f"{name}@{count}": value for name, value in seconds.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(arguments.repeats + WARM_UP):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            if index >= WARM_UP:
                times[name].append(time.perf_counter() - begin)

    def a_chain(name: str) -> float:
        last = name.split("@")[0].rpartition("_")[2]
        return 1e3 * statistics.median(times[name]) / (int(last) if last.isdigit() else 1)

    median = {name: a_chain(name) for name in runs}
    for name, value in median.items():
        print(f"{name:>18} {value:7.3f} ms a chain")
    largest = max(sizes)
    result = {
        "ms": {name: round(value, 3) for name, value in median.items()},
        "speedup_over_pyro": round(median[f"pyro@{largest}"] / median[f"{ours}@{largest}"], 3),
        "speedup_over_numpyro": round(min(median[f"numpyro@{n}"] / median[f"{ours}@{n}"] for n in sizes), 3)
        if with_jax
        else None,
        "of": ours,
        "compile_seconds": compile_seconds,
        "parameters": PARAMETERS,
        "repeats": arguments.repeats,
        "threads": 1,
        "torch": torch.__version__,
        "pyro": pyro.__version__,
        "machine": platform.machine(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
