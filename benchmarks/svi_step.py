"""One mean-field step against a plain torch step and against stock SVI with AutoNormal, in one interleaved run.

Digits, batch 128, width 32, depth 2, all weights random, one optimiser (Adam) for all three. The last line is JSON with
the medians in milliseconds, ``ratio_to_plain`` and ``speedup_over_stock``. With ``--compile`` there is a fourth, the
mean-field step compiled, with its ``ratio_compiled_to_plain`` and the seconds that compiling took.

    python benchmarks/svi_step.py [--steps 200] [--threads 1] [--compile]
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch.nn import functional as F

from pyroformer.guides import Guide, MeanField
from pyroformer.inference import OnePassELBO
from pyroformer.inference.compiled_objective import CompiledObjective
from pyroformer.models import BayesianModel, Transformer
from pyroformer.priors import Normal
from pyroformer.tasks import Digits

BATCH, RATE = 128, 1e-3


def plain_step(net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """Ordinary training of the same net."""
    optimizer = torch.optim.Adam(net.parameters(), RATE)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()

    return step


def mean_field_step(model: BayesianModel, x: torch.Tensor, y: torch.Tensor, size: int) -> Callable[[], None]:
    """Our guide under our objective."""
    guide, objective = Guide(model, MeanField(), (x[:2],)), OnePassELBO()
    optimizer = torch.optim.Adam(guide.parameters(), RATE)

    def step() -> None:
        optimizer.zero_grad()
        objective.loss_and_grads(model, guide, x, y, size)
        optimizer.step()

    return step


def compiled_step(model: BayesianModel, x: torch.Tensor, y: torch.Tensor, size: int) -> Callable[[], None]:
    """Our guide under our objective, compiled."""
    guide, objective = Guide(model, MeanField(), (x[:2],)), OnePassELBO()
    parameters = {f"guide.{name}": p for name, p in guide.named_parameters()}
    compiled = CompiledObjective(objective, guide, parameters, size)
    optimizer = torch.optim.Adam(parameters.values(), RATE)

    def step() -> None:
        optimizer.zero_grad()
        found = compiled(x, y, (1.0, 1.0))
        assert found is not None
        for name, gradient in found.gradients.items():
            parameters[name].grad = gradient
        optimizer.step()

    return step


def stock_step(model: BayesianModel, x: torch.Tensor, y: torch.Tensor, size: int) -> Callable[[], None]:
    """Pyro's own guide under Pyro's own driver, on the same model."""
    svi = SVI(model, AutoNormal(model, init_scale=1e-2), pyro.optim.Adam({"lr": RATE}), Trace_ELBO())
    return lambda: svi.step(x, y, size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    pyro.enable_validation(False)  # as our drivers and a careful user of stock Pyro do
    data = Digits().load()
    x, y, size = data.train.x[:BATCH], data.train.y[:BATCH], len(data.train.y)
    net = Transformer(data.inputs, data.outputs, width=32, depth=2)
    model = BayesianModel(net, Normal())
    print(f"{len(model.sites)} random sites, {sum(site.value.numel() for site in model.sites.values())} weights:")
    for name, site in model.sites.items():
        print(f"  {name} {list(site.value.shape)}")
    steps = {
        "plain": plain_step(copy.deepcopy(net), x, y),
        "mean_field": mean_field_step(model, x, y, size),
        "stock": stock_step(model, x, y, size),
    }
    compiling = {}
    if arguments.compile:
        steps["compiled"] = compiled_step(model, x, y, size)
        start = time.perf_counter()
        steps["compiled"]()
        compiling["compile_seconds"] = round(time.perf_counter() - start, 1)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(arguments.steps + 10):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if index >= 10:  # the first steps allocate
                seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    if arguments.compile:
        compiling["ratio_compiled_to_plain"] = round(median["compiled"] / median["plain"], 3)
    result = {
        **{f"{name}_ms": round(1e3 * value, 3) for name, value in median.items()},
        "ratio_to_plain": round(median["mean_field"] / median["plain"], 3),
        "speedup_over_stock": round(median["stock"] / median["mean_field"], 3),
        **compiling,
        "sites": len(model.sites),
        "steps": arguments.steps,
        "threads": arguments.threads,
        "torch": torch.__version__,
        "pyro": pyro.__version__,
        "machine": platform.machine(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
