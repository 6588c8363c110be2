"""Findings about samplers that correct no error of their steps: whether chains agree says nothing of the bias."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .finding import Finding, number

FAR_OFF, SURE = 0.1, 3.0
"""A share of the temperature, and standard errors: a configurational temperature that is off by more than both is."""
MUCH, TOO_MUCH = 3.0, 30.0
"""Times the variance of the energy that was asked for. It grows with the sixth power of the step and the bias with the
second, which is then 1.4 and 3.1 times as large."""


def exactness(info: Mapping[str, Any]) -> Iterator[Finding]:
    """What is to be said of the bias of draws; nothing where the sampler is exact, or where that is not known.

    Args:
        info: What the posterior says of how it was found: ``exact``, and as far as there are any ``energy_variance``
            (``realised`` and ``asked``), ``temperature``, ``configurational_temperature`` (``mean`` and ``mcse``). One
            that does not tell whether it is exact is taken to be, but for that of stochastic gradients, which has a
            ``learning_rate``.
    """
    if info.get("exact", "learning_rate" not in info):
        return
    if "energy_variance" in info:
        yield from _energy_variance(info["energy_variance"])
        return
    yield from _temperature(info)
    yield Finding(
        "caution",
        "exactness",
        "no step was rejected: the law of these draws is near the posterior, not equal to it, and R-hat does not see "
        "the bias of the steps",
        "half the learning rate, and compare what is predicted and how widely it spreads",
    )


def _energy_variance(told: Mapping[str, Any]) -> Iterator[Finding]:
    realised, asked = told.get("realised"), told["asked"]
    if realised is None:
        return
    text = f"the energy's error in a step has the variance {number(realised)} a dimension, where {number(asked)} was "
    if realised > MUCH * asked:
        yield Finding(
            "bad" if realised > TOO_MUCH * asked else "caution",
            "exactness",
            f"{text}asked for: no step was rejected, steps are too large, and their bias is not seen by R-hat",
            f"a smaller energy_variance ({number(asked / 10)}), or a longer warm-up",
        )
        return
    yield Finding("note", "exactness", f"{text}asked for: no step was rejected, and a small bias is left")


def _temperature(info: Mapping[str, Any]) -> Iterator[Finding]:
    told, wanted = info.get("configurational_temperature"), info.get("temperature", 1.0)
    if told is None or told.get("mcse") is None:
        return
    mean, off = told["mean"], abs(told["mean"] - wanted)
    text = f"the configurational temperature is {mean:.2f}, where {wanted:g} was asked for"
    if off <= FAR_OFF * wanted:
        yield Finding("good", "temperature", text)
    elif off <= SURE * told["mcse"]:  # it may be either
        return
    elif mean > wanted:
        yield Finding(
            "caution",
            "temperature",
            f"{text}: draws spread too widely, or chains have not settled",
            "a smaller learning rate or larger minibatches; where that does not help, more epochs",
        )
    else:
        yield Finding(
            "caution",
            "temperature",
            f"{text}: chains have not settled, or have not spread as widely as the posterior yet",
            "more epochs, or a start elsewhere",
        )
