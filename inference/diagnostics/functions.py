"""Functions of draws by which convergence is judged: they know nothing of the symmetries of weights."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from ...models.watching import watching
from ..data import Inputs, move, move_one, take
from ..draws_posterior import DrawsPosterior
from .axes import axes_of
from .passes import blocks, evaluating, log_probabilities
from .quantity import Quantities, Quantity, by_chain

PROBES = 10
"""Examples whose log-probability is judged."""


def functions(posterior: DrawsPosterior, x: Inputs, y: Tensor, *, seed: int = 0) -> Quantities:
    r"""What is judged of the draws of a posterior: predictions, attention and norms.

    .. math:: \ln p(y_n \mid x_n, w_s), \qquad \tfrac1N \sum_n A^{(l, (h))}_{n, T, k}, \qquad
        \Big(\tfrac1{|w_l|} \sum_i w_{l, i}^2\Big)^{1/2}

    Args:
        posterior: Draws of ``K`` chains, one chain after the other.
        x: Probe inputs ``[N, ...]``, of which the first 10 are looked at.
        y: What was observed there.
        seed: Of attention rows, where these are random given the draws.

    Returns:
        ``log_probability`` of the probe's observations, ``[K, S, N]``; ``attention`` of every layer of ours: three
        entries (the first, middle and last key) of the row of the last query of each head, averaged over the probe, in
        the order of their size over heads, the largest first (heads may change places, and the net remains the same),
        ``[K, S, H, 3]``; ``norm``, the root mean square of the weights of every layer, ``[K, S, L]``; and the sites of
        the likelihood, such as the scale of noise. What is the same in every draw is there too: it has no statistics.
    """
    anchor = next(posterior.model.parameters())
    x = move(take(x, slice(0, PROBES)), anchor.device, anchor.dtype)
    y = move_one(y[:PROBES], anchor.device, anchor.dtype)
    parts: dict[str, list[Tensor]] = defaultdict(list)

    def see(name: str, rows: Tensor, mask: Tensor | None) -> None:
        length = rows.shape[-1]
        keys = sorted({0, length // 2, length - 1})
        last = rows[..., -1, keys].mean(-3).sort(-2, descending=True).values
        parts[attention_name(name)].append(last.reshape(-1, *last.shape[-2:]).double().cpu())

    layers: tuple[str, ...] = ()
    takes_draws = getattr(posterior.model.net, "takes_batched_weights", False)  # else they run in disguise
    with evaluating(posterior, seed), watching(posterior.model.net, see if takes_draws else None):
        for size, draws in blocks(posterior, x, PROBES):
            parts["log_probability"].append(log_probabilities(posterior, draws, x, y, size))
            norms = layer_norms(posterior, draws)
            layers = tuple(norms)
            if norms:
                parts["norm"].append(torch.stack(list(norms.values()), -1))
            for name in posterior.model.likelihood.initial_values():
                parts[name].append(draws[name].double().cpu())
    whole = {name: torch.cat(found) for name, found in parts.items()}
    dims = {"log_probability": ("probe",), "norm": ("layer",)}
    found = {}
    # in the order of a reader's questions; rows that no draw changes come once for all draws
    for name in sorted(whole, key=lambda name: ("log_probability", "norm").index(name) if name in dims else 2):
        values = whole[name]
        if len(values) == posterior.num_samples:
            own = ("rank", "key") if name.startswith("attention") else _numbered(values)
            labels = {"layer": layers} if name == "norm" else {}
            found[name] = Quantity(by_chain(values, posterior.chains), dims.get(name, own), labels)
    return found


def attention_name(site: str) -> str:
    """What a layer's attention is called, from the name of its rows: ``attention.blocks.0``."""
    layer = site.removesuffix("rows").removesuffix(".").removesuffix("attention").removesuffix(".")
    return f"attention.{layer}".removesuffix(".")


def _numbered(values: Tensor) -> tuple[str, ...]:
    return tuple(f"axis_{index}" for index in range(values.dim() - 1))


def layer_norms(posterior: DrawsPosterior, draws: dict[str, Tensor]) -> dict[str, Tensor]:
    """The root mean square ``[S]`` of the random weights of every layer."""
    squares: dict[str, list[Tensor]] = defaultdict(list)
    for name, values in posterior.model.weights(draws).items():
        squares[name.rpartition(".")[0] or name].append(values.double().flatten(1).square().cpu())
    return {layer: torch.cat(found, 1).mean(1).sqrt() for layer, found in squares.items()}


def weights(posterior: DrawsPosterior) -> Quantities:
    """The draws of every site, with the names of their axes where the net says what they are; not judged."""
    known, found = axes_of(posterior.model), {}
    for name, values in posterior.draws.items():
        names, shape = _numbered(values), tuple(values.shape[1:])
        if name in known:  # rows of training examples are no weights
            names, shape = known[name].names, known[name].shape
        split = by_chain(values.detach().cpu().reshape(len(values), *shape), posterior.chains)
        found[name] = Quantity(split, names, judged=False)
    return found
