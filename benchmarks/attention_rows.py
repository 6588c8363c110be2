"""Time of attention with Dirichlet rows against softmax attention and torch's Dirichlet, in one interleaved run.

One step is forward and backward through scores QK^T / 4, rows, and their product with V (16 dimensions a head); with
Dirichlet rows also a draw from Dir(30 softmax(Z) + 0.01), its divergence from Dir(1, ..., 1), and the gradients of both
in Q, K, V and the sharpness of every head. The rows are made by `MaskedDirichlet`, eager and compiled, or by torch's
`Dirichlet`, all with `kl_divergence`. Times are those of the processor, medians over steps that take turns. The
last line is JSON.

    python benchmarks/attention_rows.py [--repeats 15] [--threads 1] [--masked] [--quick]
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
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence

from pyroformer.priors import MaskedDirichlet

SHAPES = ((128, 4, 16), (128, 4, 50), (32, 8, 128))
HEAD, FLOOR = 16, 0.01
Rows = Callable[[Tensor, Tensor, "Tensor | None"], tuple[Tensor, "Tensor | None"]]


def softmax(scores: Tensor, sharpness: Tensor, mask: Tensor | None) -> tuple[Tensor, None]:
    return (scores if mask is None else scores.masked_fill(~mask, -1e9)).softmax(-1), None


def by_torch(scores: Tensor, sharpness: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    q = Dirichlet(sharpness * softmax(scores, sharpness, mask)[0] + FLOOR, validate_args=False)
    p = Dirichlet(torch.ones_like(scores), validate_args=False)
    return q.rsample(), kl_divergence(q, p)


def composed(scores: Tensor, sharpness: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    q = MaskedDirichlet(sharpness * softmax(scores, sharpness, mask)[0] + FLOOR, mask, validate_args=False)
    return q.rsample(), kl_divergence(q, flat(scores, mask))


def fused(compile: bool) -> Rows:
    def rows(scores: Tensor, sharpness: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        q = MaskedDirichlet.around_softmax(scores, mask, sharpness=sharpness, floor=FLOOR, compile=compile)
        return q.rsample(), kl_divergence(q, flat(scores, mask))

    return rows


def flat(scores: Tensor, mask: Tensor | None) -> MaskedDirichlet:
    return MaskedDirichlet(scores.new_ones(1).expand(scores.shape), mask, validate_args=False)


COMPARED: dict[str, Rows] = {
    "softmax": softmax,
    "eager": fused(False),
    "compiled": fused(True),
    "composed": composed,
    "torch": by_torch,
}


def step_of(rows: Rows, shape: tuple[int, int, int], mask: Tensor | None) -> Callable[[], None]:
    """One forward and backward pass on fixed numbers."""
    batch, heads, tokens = shape
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(batch, heads, tokens, HEAD, generator=generator).requires_grad_() for _ in range(3))
    sharpness = torch.full((heads, 1, 1), 30.0, requires_grad=True)
    incoming = torch.randn(batch, heads, tokens, HEAD, generator=generator)
    ones = torch.ones(batch, heads, tokens)

    def step() -> None:
        found, kl = rows(q @ k.mT * HEAD**-0.5, sharpness, mask)
        out = found @ v
        if kl is None:
            torch.autograd.grad([out], [q, k, v], [incoming])
        else:
            torch.autograd.grad([out, kl], [q, k, v, sharpness], [incoming, ones])

    return step


def measured(shape: tuple[int, int, int], masked: bool, repeats: int) -> dict[str, float]:
    """Median milliseconds of every kind of rows, and seconds of its first compiled step."""
    mask = torch.rand(shape[0], 1, 1, shape[2]) < 0.8 if masked else None
    steps = {name: step_of(rows, shape, mask) for name, rows in COMPARED.items()}
    start = time.perf_counter()
    steps["compiled"]()
    first = time.perf_counter() - start
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(repeats + 2):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if index >= 2:  # the first steps allocate
                seconds[name].append(time.process_time() - start)
    medians = {name: 1e3 * statistics.median(own) for name, own in seconds.items()}
    return {**medians, "first_compiled_step_s": first}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="steps of each kind, default 15")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch, default 1")
    parser.add_argument("--masked", action="store_true", help="mask a fifth of the keys")
    parser.add_argument("--quick", action="store_true", help="one tiny shape and two steps: does it run?")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pyro.enable_validation(False)  # as our drivers do
    torch.manual_seed(0)
    shapes = ((2, 2, 8),) if arguments.quick else SHAPES
    repeats = 2 if arguments.quick else arguments.repeats
    told: dict[str, object] = {}
    for shape in shapes:
        ms = measured(shape, arguments.masked, repeats)
        print(f"{shape!s:<15}", *(f"{name} {value:.4g}" for name, value in ms.items()), flush=True)
        told[",".join(map(str, shape))] = {
            "ratio_to_softmax_eager": round(ms["eager"] / ms["softmax"], 2),
            "ratio_to_softmax_compiled": round(ms["compiled"] / ms["softmax"], 2),
            "ratio_to_softmax_torch": round(ms["torch"] / ms["softmax"], 2),
            "speedup_over_torch": round(ms["torch"] / ms["compiled"], 2),
            "speedup_over_torch_eager": round(ms["torch"] / ms["eager"], 2),
            "ms": {name: round(value, 3) for name, value in ms.items()},
        }
    told |= {
        "masked": arguments.masked,
        "repeats": repeats,
        "threads": arguments.threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
