"""A posterior represented by a guide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from .. import guides
from ..guides import Delta, Family, Guide
from ..models import BayesianModel
from ..priors import choice_name, settings
from .data import Inputs
from .posterior import Posterior


class GuidePosterior(Posterior):
    """A posterior represented by a guide.

    Args:
        model: The model.
        guide: Its guide.
        example: Inputs of one or two examples, with which the guide's draws are made.
        info: See `Posterior`.
    """

    def __init__(
        self, model: BayesianModel, guide: Guide, example: tuple[Inputs], info: Mapping[str, Any] | None = None
    ):
        super().__init__(model, info)
        self.guide: Guide = guide
        self.example = example

    @property
    def num_samples(self) -> int | None:
        points = all(isinstance(family, Delta) for family in self.guide.families if not family.local)
        return 1 if points and (not self.random_rows or self._rows == "mean") else None

    def chunks(self, num_samples: int, most: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
        return self._in_blocks(num_samples, most, lambda size: self.guide.draw(size, *self.example))

    def tensors(self) -> dict[str, Tensor]:
        x = self.example[0]
        inputs = {f"example.{i}": part for i, part in enumerate(x if isinstance(x, tuple) else (x,))}
        return {**{f"guide.{name}": t for name, t in self.guide.state_dict().items()}, **inputs}

    def structure(self) -> dict[str, Any]:
        families = list(self.guide.families)
        return {
            "families": [{choice_name(type(family)): settings(family)} for family in families],
            "sites": {name: families.index(self.guide.family_of(name)) for name in self.guide.sites},
            "tuple": isinstance(self.example[0], tuple),
        }

    @classmethod
    def restored(cls, model: BayesianModel, structure: dict[str, Any], tensors: dict[str, Tensor]) -> Posterior:
        families = [_family(*next(iter(choice.items()))) for choice in structure["families"]]
        parts = tuple(tensors[key] for key in sorted(k for k in tensors if k.startswith("example.")))
        example = (parts if structure["tuple"] else parts[0],)
        guide = Guide(model, {glob_of(name): families[i] for name, i in structure["sites"].items()}, example)
        state = {name.removeprefix("guide."): t for name, t in tensors.items() if name.startswith("guide.")}
        guide.load_state_dict(state)
        return cls(model, guide, example)


def glob_of(name: str) -> str:
    """The glob that matches this name alone."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _family(name: str, given: dict[str, Any]) -> Family:
    known = {choice_name(kind): kind for kind in vars(guides).values() if isinstance(kind, type)}
    if name not in known:
        raise ValueError(f"guide family {name!r}: expected one of {', '.join(known)}")
    return known[name](**given)
