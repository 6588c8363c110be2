"""Variance of the bound's gradient and time of a step by estimator, in one interleaved run.

Digits, batch 128, width 32, depth 2, all weights random under a standard normal prior. The estimators of the gradient
of a mean field are compared near its start and after short training, and so are one dropout mask for the batch and one
for every sequence. All see one guide in one state, and a step is one estimate of the bound with its backward pass; its
time is that of the processor, median over steps. The variance is the trace of the covariance of the gradient of the
loss per example, with regard to all parameters of the guide, on one batch; its square root is told relative to the norm
of the mean gradient. The last line is JSON.

    python benchmarks/gradient_variance.py [--draws 60] [--epochs 10] [--threads 1]
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time

import pyro
import torch

from pyroformer.guides import Family, Guide, MCDropout, MeanField
from pyroformer.inference import SVI, Data, OnePassELBO
from pyroformer.models import BayesianModel, Transformer
from pyroformer.priors import Normal
from pyroformer.tasks import Digits

BATCH, WIDTH, DEPTH = 128, 32, 2
COMPARED: dict[str, tuple[Family, tuple[str, ...]]] = {
    "mean_field": (MeanField(), ("shared", "local_reparameterization", "flipout")),
    "mc_dropout": (MCDropout(), ("shared", "flipout")),
}


class Moments:
    """Mean and summed variance of vectors, as they come."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, vector: torch.Tensor) -> None:
        vector = vector.double()
        self.count += 1
        before = vector - self.mean
        self.mean = self.mean + before / self.count
        self.squares = self.squares + before * (vector - self.mean)

    def variance(self, part: slice) -> float:
        return float(self.squares[part].sum() / (self.count - 1))


def measured(guide: Guide, estimators: tuple[str, ...], data: Data, draws: int) -> dict[str, dict[str, float]]:
    """Each estimator on the same guide, batch after batch of its own noise."""
    x, y = data.x[:BATCH], data.y[:BATCH]
    parameters = list(guide.parameters())
    half = parameters[0].numel()  # a mean field: locations, then logarithms of scales
    seconds: dict[str, list[float]] = {name: [] for name in estimators}
    moments = {name: Moments() for name in estimators}
    for index in range(draws + 5):
        for name in estimators:
            objective = OnePassELBO(estimator=name)
            start = time.process_time()
            loss = objective.loss_of(objective.terms(guide, x, y, len(data))) / len(data)
            gradients = torch.autograd.grad(loss, parameters)
            if index >= 5:  # the first steps allocate
                seconds[name].append(time.process_time() - start)
                moments[name].add(torch.cat([g.flatten() for g in gradients]))
    base = moments["shared"]
    found = {}
    for name, own in moments.items():
        total = own.variance(slice(None))
        found[name] = {
            "variance": total,
            "relative_to_shared": total / base.variance(slice(None)),
            "noise_to_signal": (total / float(base.mean.square().sum())) ** 0.5,
            "ms": 1e3 * statistics.median(seconds[name]),
        }
        if len(parameters) == 2:
            found[name]["loc"] = own.variance(slice(0, half)) / base.variance(slice(0, half))
            found[name]["log_scale"] = own.variance(slice(half, None)) / base.variance(slice(half, None))
    return {name: {key: float(f"{value:.4g}") for key, value in each.items()} for name, each in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pyro.enable_validation(False)  # as our drivers do
    task = Digits().load()
    data = Data(task.train.x, task.train.y)
    results: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for kind, (family, estimators) in COMPARED.items():
        torch.manual_seed(0)
        model = BayesianModel(Transformer(task.inputs, task.outputs, width=WIDTH, depth=DEPTH), Normal())
        guide = Guide(model, copy.deepcopy(family), (data.x[:2],))
        results[kind] = {"start": measured(guide, estimators, data, arguments.draws)}
        SVI(epochs=arguments.epochs, estimator="flipout", keep="last").run(model, guide, data)
        results[kind]["trained"] = measured(guide, estimators, data, arguments.draws)
        for state, rows in results[kind].items():
            for name, row in rows.items():
                print(
                    f"{kind:<10} {state:<8} {name:<25}", *(f"{key} {value:g}" for key, value in row.items()), flush=True
                )
    told = {
        **results,
        "draws": arguments.draws,
        "epochs": arguments.epochs,
        "threads": arguments.threads,
        "torch": torch.__version__,
        "pyro": pyro.__version__,
        "machine": platform.machine(),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
