"""One training step with Dirichlet attention rows against the same step with softmax attention, in one interleaved run.

Digits as 16 tokens, batch 128, width 64, 4 heads, depth 2, weights as points, Adam. The last line is JSON with the
medians of the wall clock in milliseconds and the ratio of each to softmax.

    python benchmarks/row_step.py [--steps 40] [--threads 1] [--compiled]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable

import pyro
import torch

from pyroformer.guides import Delta, DirichletRows, Guide
from pyroformer.inference import OnePassELBO
from pyroformer.models import BayesianModel, Transformer
from pyroformer.priors import DirichletRows as PriorRows
from pyroformer.priors import Normal
from pyroformer.tasks import Digits

BATCH, RATE, WARM_UP = 128, 1e-3, 5


def step_of(rows: DirichletRows | None) -> Callable[[], None]:
    """Our guide under our objective, with softmax attention where there is no family of rows."""
    data = Digits().load()
    x, y, size = data.train.x[:BATCH], data.train.y[:BATCH], len(data.train.y)
    net = Transformer(data.inputs, data.outputs, width=64, heads=4, depth=2)
    laws, families = {"*": Normal()}, {"*": Delta()}
    if rows is not None:
        laws, families = {"*.rows": PriorRows(), **laws}, {"*.rows": rows, **families}
    model = BayesianModel(net, laws)
    guide, objective = Guide(model, families, (x[:2],)), OnePassELBO()
    optimizer = torch.optim.Adam(guide.parameters(), RATE)

    def step() -> None:
        optimizer.zero_grad()
        objective.loss_and_grads(model, guide, x, y, size)
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help="steps of each kind, default 40")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch, default 1")
    parser.add_argument("--compiled", action="store_true", help="with compiled rows too, which takes minutes to begin")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    pyro.enable_validation(False)  # as our drivers do
    steps = {"softmax": step_of(None), "eager": step_of(DirichletRows())}
    if arguments.compiled:
        steps["compiled"] = step_of(DirichletRows(compiled=True))
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(arguments.steps + WARM_UP):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if index >= WARM_UP:  # the first steps allocate
                seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    result = {
        **{f"{name}_ms": round(1e3 * value, 2) for name, value in median.items()},
        **{f"ratio_{name}": round(median[name] / median["softmax"], 2) for name in steps if name != "softmax"},
        "steps": arguments.steps,
        "threads": arguments.threads,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
