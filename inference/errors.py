"""Errors of inference itself; those of data and settings are the user's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .posterior import Posterior


class InferenceError(RuntimeError):
    """Inference could not go on.

    Args:
        message: Where and why.
        posterior: The last good state, or None when there is none.
    """

    def __init__(self, message: str, posterior: Posterior | None = None):
        super().__init__(message)
        self.posterior = posterior


class Interrupted(InferenceError):
    """The interrupt key ended inference early, with a posterior of what was found until then."""
