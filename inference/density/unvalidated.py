"""Running a model without the checks of distributions, which look at values and so can be neither traced nor quick."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyro
from pyro.poutine.messenger import Messenger
from torch.distributions import Distribution


def parts(distribution: Any) -> Iterator[Distribution]:
    """A distribution and those that it is made of."""
    if isinstance(distribution, Distribution):
        yield distribution
        for value in vars(distribution).values():
            for part in value if isinstance(value, list | tuple) else (value,):
                yield from parts(part)


class Unvalidated(Messenger):
    """Switches Pyro's and torch's checks off, also in distributions that were made, or expanded, with checks on.

    Log-densities are to be asked for before it ends.
    """

    def __enter__(self) -> Any:
        self._switched: list[Distribution] = []
        self._outer = pyro.validation_enabled(False)
        self._outer.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> Any:
        for distribution in self._switched:
            distribution._validate_args = True
        self._outer.__exit__(*error)
        return super().__exit__(*error)

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        for distribution in (msg["fn"], msg["infer"].get("prior")):  # a guide keeps the prior there
            for part in parts(distribution):
                if vars(part).get("_validate_args"):  # others look at the class, whose checks are off
                    part._validate_args = False
                    self._switched.append(part)
