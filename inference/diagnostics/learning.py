"""Findings about whether a posterior has learnt anything: samplers look excellent where it has not."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from .finding import Finding, number

NOTHING, LITTLE, WORSE = 0.01, 0.05, 0.2
"""Nats an observation over guessing: below, nothing was learnt; below, little. So many under it are worse than that."""


def learning(log_likelihood: Tensor, guess: float | None, num_data: int) -> Iterator[Finding]:
    r"""Whether the log-likelihood is above that of guessing, which knows how often each label occurs and no input.

    Args:
        log_likelihood: Of all data, ``[K, S]``.
        guess: That of guessing, or None where it is not known.
        num_data: How many observations there are.
    """
    if guess is None or guess != guess or not bool(log_likelihood.isfinite().any()):
        return
    known = log_likelihood[log_likelihood.isfinite()].double()
    mean, sd = float(known.mean()), float(known.std(correction=0))
    gained = (mean - guess) / max(num_data, 1)
    text = f"the log-likelihood is {number(mean)} ± {number(sd)}, where guessing has {number(guess)}"
    if gained < -WORSE:
        yield Finding(
            "bad",
            "learning",
            f"nothing was learnt, and predictions are worse than guessing: {text}",
            "a longer warm-up, or a start from trained nets; where that does not help, the noise that the data have",
        )
    elif gained < NOTHING:
        yield Finding(
            "bad",
            "learning",
            f"this is the null posterior, which has learnt nothing: {text}",
            "a wider prior, gains of normalisation layers centred at 1, more data, or a start from trained nets; the "
            "other findings are about a posterior that does not predict",
        )
    elif gained < LITTLE:
        yield Finding("caution", "learning", f"little was learnt: {text}", "a wider prior, or more data")
    else:
        yield Finding("good", "learning", f"the posterior has learnt: {text}")
