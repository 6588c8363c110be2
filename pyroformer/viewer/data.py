"""What a viewer shows: attention over draws, inputs, and predictions with what they are unsure of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyro
import torch
from torch import Tensor, nn

from ..inference import ClassPrediction, DataError, RealPrediction, decompose
from ..inference.data import Inputs, check_finite, first, move, take
from ..inference.mixture_posterior import leaves
from ..inference.posterior import NUM_SAMPLES, Posterior, store_as_it_was
from ..models.calling import eval_mode
from ..models.embeddings import FeatureEmbedding, PatchEmbedding, SeriesEmbedding, TokenEmbedding
from ..models.encoder_decoder import DecoderBlock
from ..models.sites import row_sites
from ..models.watching import watching
from ..priors import SettingError
from .moments import Layer, RowMoments

NUM_INPUTS = 12
MOST_ENTRIES, MOST_NUMBERS = 2**18, 2**23
"""How many entries the rows of all inputs have at most (there are fewer inputs where they would have more, but at least
one), and those of all draws that run together."""
TAIL = 0.05
"""The share of the draws below the lower and above the upper end of what a prediction's spread is shown by."""
NESTED = 16


@dataclass(frozen=True, eq=False)
class SeenAttention:
    """The attention of a posterior on some inputs, with its predictions.

    Args:
        layers: The attention layers of ours, in the order in which they ran.
        x: The inputs, ``[N, ...]``.
        y: What was observed, ``[N, ...]``, or None.
        mean: Class probabilities or mean predictions, ``[N, C]``, or ``[N, T, C]`` per token.
        low, high: Between which the central 90 % lie: of the draws' probabilities, or of the observations.
        parts: What data, rows and weights are unsure of, ``[3, N]``, ``[3, N, T]``, or ``[3, N, D]`` of reals.
        measure: Of the parts: ``entropy`` (classes) or ``variance`` (reals).
        num_samples: Draws.
        shown: What the inputs are, as plain data: ``kind`` (image, tokens, series, features or other) and what is
            needed to show them.
    """

    layers: tuple[Layer, ...]
    x: Tensor
    y: Tensor | None
    mean: Tensor
    low: Tensor
    high: Tensor
    parts: Tensor
    measure: str
    num_samples: int
    shown: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)


def has_attention(posterior: Posterior) -> bool:
    """Whether the net has attention layers of ours, which can be looked into."""
    return bool(row_sites(posterior.model.net))


def see_attention(
    posterior: Posterior,
    x: Inputs,
    y: Tensor | None = None,
    *,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
    words: Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    unit: Literal["word", "character"] = "word",
) -> SeenAttention:
    """Look at the attention of a posterior on a few inputs.

    Rows are averaged over draws of the weights and of the layers below; where a guide draws them from a Dirichlet, by
    its mean and variance. The rows of a linearised Laplace posterior are those of the net itself at the drawn weights.

    Args:
        posterior: Over a net with attention layers of ours.
        x: Inputs ``[N, ...]``, a tensor or a tuple of tensors. So many are kept that rows have at most 262,144 entries.
        y: What was observed, ``[N, ...]``; default unknown.
        num_samples: Draws, default 32.
        seed: Of the draws.
        words: Of the vocabulary, where inputs are tokens; default their numbers.
        features: Names of the features, where inputs are features; default their numbers.
        classes: Names of the classes; default their numbers.
        unit: What ``words`` are, default ``word``; characters stand side by side.

    Raises:
        SettingError: The net has no attention of ours.
        DataError: ``x`` is empty, or holds NaN or infinity.
    """
    if not has_attention(posterior):
        expected = "a net with attention layers of pyroformer.models: those of other libraries are not seen"
        raise SettingError("posterior", type(posterior.model.net).__name__, expected)
    if not len(first(x)):
        raise DataError("x: no examples")
    check_finite("x", x)
    size = sum(layer.mean.numel() for layer in _layers(posterior, take(x, slice(0, 1)), 1, seed, 1))
    kept = slice(0, max(1, MOST_ENTRIES // max(size, 1)))
    x, y = take(x, kept), None if y is None else y[kept]
    layers = _layers(posterior, x, num_samples, seed, max(1, MOST_NUMBERS // max(size * len(first(x)), 1)))
    prediction = posterior.predict(x, num_samples, seed=seed)
    parts = decompose(posterior, x, weights=NESTED, rows=NESTED, seed=seed)
    if isinstance(prediction, ClassPrediction):
        mean = prediction.probabilities
        low, high = _spread(posterior, x, num_samples, seed)
    else:
        assert isinstance(prediction, RealPrediction)
        mean, low, high = prediction.mean, prediction.quantile(TAIL), prediction.quantile(1 - TAIL)
    shown = _shown(posterior.model.net) | {"words": words, "features": features, "classes": classes}
    shown |= {"unit": unit if unit == "character" else None, "sides": _sides(posterior.model.net) or None}
    return SeenAttention(
        layers,
        first(x).detach().cpu(),
        None if y is None else y.detach().cpu(),
        mean=mean.float(),
        low=low.float(),
        high=high.float(),
        parts=torch.stack(list(parts.parts.values())).float(),
        measure=parts.measure,
        num_samples=prediction.num_samples,
        shown={name: list(v) if isinstance(v, tuple) else v for name, v in shown.items() if v is not None},
    )


def _layers(posterior: Posterior, x: Inputs, num_samples: int, seed: int, together: int) -> tuple[Layer, ...]:
    moments = RowMoments()
    members = list(leaves(posterior, num_samples))
    with torch.random.fork_rng(devices=[]), torch.no_grad(), pyro.validation_enabled(False), store_as_it_was():
        torch.manual_seed(seed)
        for member, each, share in members:
            anchor = next(member.model.parameters())
            inputs = move(x, anchor.device, anchor.dtype)
            # other nets run one draw at a time, as if it were their own weights
            batched = getattr(member.model.net, "takes_batched_weights", False)
            most = min(together, member.most_draws(x, len(first(x)))) if batched else 1
            count = member._available(each)
            with eval_mode(member.model):
                for drawn, weights in member.chunks(count, most):
                    moments.of(member.guide, share * drawn / count)
                    with watching(member.model.net, moments):  # not while a guide runs the model to draw weights
                        Posterior.run(member, weights, inputs, drawn)
    random = tuple(name for member, *_ in members for name in member.model.rows)
    return moments.layers(random, _learned(posterior))


def _learned(posterior: Posterior) -> dict[str, dict[str, tuple[float, ...]]]:
    """What guides say of each row site, by site and quantity; the mean over the members of a mixture."""
    found: dict[str, dict[str, list[tuple[float, ...]]]] = {}
    for member, *_ in leaves(posterior):
        for summary in (member.guide.summary() if member.guide is not None else {}).values():
            for quantity, by_site in summary.items():
                for name in member.model.rows if isinstance(by_site, dict) else ():
                    values = by_site.get(name)
                    if isinstance(values, list) and all(isinstance(value, float) for value in values):
                        found.setdefault(name, {}).setdefault(quantity, []).append(tuple(values))
    return {
        name: {
            quantity: tuple(sum(each) / len(each) for each in zip(*runs, strict=True))
            for quantity, runs in quantities.items()
        }
        for name, quantities in found.items()
    }


def _spread(posterior: Posterior, x: Inputs, num_samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """The quantiles of the draws' class probabilities."""
    outputs = posterior.outputs(x, num_samples, seed=seed)
    if posterior.calibrated is not None:
        outputs = posterior.calibrated.calibration.apply(outputs, posterior.calibrated.fitted)
    levels = torch.tensor([TAIL, 1 - TAIL], dtype=torch.float64)
    low, high = outputs.double().softmax(-1).quantile(levels, 0)
    return low, high


def _sides(net: nn.Module) -> dict[str, list[str]]:
    """Of the layers of a decoder that reads a source: which sequence their queries and their keys are of, by layer."""
    found: dict[str, list[str]] = {}
    for name, block in net.named_modules():
        if isinstance(block, DecoderBlock):
            found |= {f"{name}.attention": ["target", "target"], f"{name}.cross": ["target", "source"]}
    return found


def _shown(net: nn.Module) -> dict[str, Any]:
    """What inputs are, by the layer that turns them into tokens."""
    for part in net.modules():
        found = dict(_kind_of(part))
        if found:
            return found
    return {"kind": "other"}


def _kind_of(part: nn.Module) -> Iterator[tuple[str, Any]]:
    if isinstance(part, PatchEmbedding):
        image = part.image
        yield from {"kind": "image", "height": image.height, "width": image.width, "patch": image.patch}.items()
    elif isinstance(part, TokenEmbedding):
        yield "kind", "tokens"
    elif isinstance(part, SeriesEmbedding):
        yield "kind", "series"
    elif isinstance(part, FeatureEmbedding):
        yield from {"kind": "features", "copies": part.copies}.items()
