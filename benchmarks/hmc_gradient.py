"""The gradient of a small transformer's log-density: stock Pyro, the flat density, and JAX as NumPyro runs it.

A vision transformer on digits (width 16, 2 heads, 1 layer, 16 tokens, 2,730 parameters, no last normalisation), priors
of standard deviation 0.3 around 0, around 1 for the gains of normalisation layers; one thread, one interleaved run. The
last line is JSON with the medians in milliseconds a chain, the seconds before the first compiled gradient,
``speedup_over_pyro`` (its checks off, 200 digits) and ``speedup_over_numpyro`` (the worse of the sizes; null where
NumPyro is not installed).

    python benchmarks/hmc_gradient.py [--repeats 60] [--digits 100,200] [--chains 4,8] [--eager]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
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
from torch import Tensor

from pyroformer.inference.density import FlatDensity
from pyroformer.models import BayesianModel, Transformer
from pyroformer.priors import Normal
from pyroformer.tasks import Digits

SD, PARAMETERS, WARM_UP = 0.3, 2730, 5


def bayesian_net(count: int) -> tuple[BayesianModel, Tensor, Tensor]:
    """The model, and its data."""
    data = Digits().load()
    torch.manual_seed(0)
    net = Transformer(data.inputs, data.outputs, width=16, heads=2, depth=1)
    net.norm = torch.nn.Identity()
    return BayesianModel(net, Normal(scale=SD)).eval(), data.train.x[:count], data.train.y[:count]


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
    import numpyro
    import numpyro.distributions as distributions
    from numpyro.infer.util import initialize_model as numpyro_model

    found = model.distributions()
    loc = {name: jnp.asarray(prior.base_dist.loc.numpy()) for name, prior in found.items()}
    patches = jnp.asarray(x.reshape(-1, 4, 2, 4, 2).permute(0, 1, 3, 2, 4).reshape(-1, 16, 4).numpy())
    labels = jnp.asarray(y.numpy())

    def norm(w: dict[str, Any], name: str, value: Any) -> Any:
        centred = value - value.mean(-1, keepdims=True)
        scaled = centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def affine(w: dict[str, Any], name: str, value: Any) -> Any:
        return value @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def net() -> None:
        w = {name: numpyro.sample(name, distributions.Normal(c, SD).to_event(c.ndim)) for name, c in loc.items()}
        tokens = affine(w, "embedding.project", patches) + w["position"]
        inside = norm(w, "blocks.0.norm1", tokens)
        heads = (affine(w, f"blocks.0.attention.{part}", inside) for part in ("query", "key", "value"))
        query, key, value = (part.reshape(*part.shape[:2], 2, 8).swapaxes(1, 2) for part in heads)
        rows = jax.nn.softmax(query @ key.swapaxes(-1, -2) / 8**0.5, -1)
        attended = (rows @ value).swapaxes(1, 2).reshape(tokens.shape)
        tokens = tokens + affine(w, "blocks.0.attention.output", attended)
        hidden = affine(w, "blocks.0.mlp.up", norm(w, "blocks.0.norm2", tokens))
        tokens = tokens + affine(w, "blocks.0.mlp.down", jax.nn.gelu(hidden, approximate=False))
        with numpyro.plate("data", len(labels)):
            numpyro.sample("obs", distributions.Categorical(logits=affine(w, "head", tokens.mean(1))), obs=labels)

    with numpyro.validation_enabled(False):
        energy = numpyro_model(jax.random.PRNGKey(0), net).potential_fn
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
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with_jax = importlib.util.find_spec("numpyro") is not None
    print("NumPyro " + ("is measured too" if with_jax else "is not installed: it is left out"))
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
