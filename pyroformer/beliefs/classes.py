"""What a prior believes of classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .spread import quantiles, share_over_inputs

NEARLY_ALL = 0.95
"""The share of the inputs for which a function predicts one class when it counts as a constant."""


@dataclass(frozen=True, eq=False)
class ClassBeliefs:
    r"""Functions into ``C`` classes under the prior.

    Args:
        classes: ``C``.
        entropy: Quantiles of 5, 25, 50, 75 and 95 % of the entropies :math:`H[p(y \mid x_n, w_s)]` of single functions
            at single inputs, in nats; at most ``log C``.
        mean_entropy: Their mean.
        averaged_entropy: The mean over inputs of the entropy of the averaged prediction.
        logit_sd: The standard deviation of logits over the classes, root mean square over functions and inputs.
        draw_sd: That of a logit over functions, root mean square over inputs and classes.
        constant: The share of functions that predict one class for at least 95 % of the inputs.
        over_inputs: The share of the variance of logits (less their mean over the classes) that is over inputs; the
            rest is between functions.
        entropies: ``[S, N]``, for plots.
        top_share: ``[S]``, the share of the inputs that get the class which a function predicts most often.
    """

    classes: int
    entropy: tuple[float, ...]
    mean_entropy: float
    averaged_entropy: float
    logit_sd: float
    draw_sd: float
    constant: float
    over_inputs: float
    entropies: Tensor
    top_share: Tensor

    @property
    def most(self) -> float:
        """The largest entropy, ``log C``."""
        return math.log(self.classes)


def class_beliefs(logits: Tensor) -> ClassBeliefs:
    """What functions say of classes.

    Args:
        logits: ``[S, N, C]``.
    """
    logits = logits.double()
    logs = logits.log_softmax(-1)
    probabilities = logs.exp()
    entropies = torch.special.entr(probabilities).sum(-1)
    labels = logits.argmax(-1)
    counts = torch.stack([torch.bincount(row, minlength=logits.shape[-1]) for row in labels])
    top = counts.amax(-1).double() / labels.shape[1]
    return ClassBeliefs(
        classes=logits.shape[-1],
        entropy=quantiles(entropies),
        mean_entropy=float(entropies.mean()),
        averaged_entropy=float(torch.special.entr(probabilities.mean(0)).sum(-1).mean()),
        logit_sd=float(logits.var(-1).mean().sqrt()),
        draw_sd=float(logits.var(0).mean().sqrt()) if len(logits) > 1 else 0.0,
        constant=float((top >= NEARLY_ALL).double().mean()),
        over_inputs=share_over_inputs(logits - logits.mean(-1, keepdim=True)),
        entropies=entropies,
        top_share=top,
    )
