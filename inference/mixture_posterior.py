"""An equal mixture of posteriors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from ..models import BayesianModel
from .data import Inputs
from .posterior import Posterior


class MixturePosterior(Posterior):
    """An equal mixture of posteriors, as ensembles and several chains give them.

    Args:
        members: At least one; each has a model of its own.
        info: See `Posterior`.
    """

    def __init__(self, members: list[Posterior], info: Mapping[str, Any] | None = None):
        super().__init__(members[0].model, info)
        self.members = members

    @property
    def num_samples(self) -> int | None:
        counts = {member.num_samples for member in self.members}
        if len(counts) > 1 or None in counts:
            return None
        return len(self.members) * counts.pop()  # type: ignore[operator]

    @property
    def random_rows(self) -> bool:
        return any(member.random_rows for member in self.members)

    @contextmanager
    def rows_as(self, rows: str) -> Iterator[None]:
        with super().rows_as(rows), ExitStack() as stack:
            for member in self.members:
                stack.enter_context(member.rows_as(rows if member.random_rows else "sample"))
            yield

    def _each(self, num_samples: int) -> int:
        """Draws from each member, as many from all: one with fewer of its own repeats them."""
        each = max(1, num_samples // len(self.members))
        return each if len({m.num_samples for m in self.members}) > 1 else self.members[0]._available(each)

    def chunks(self, num_samples: int, most: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
        for leaf, count, _ in leaves(self, num_samples):
            yield from leaf.chunks(count, most)

    def _predict(self, x: Inputs, num_samples: int, batch_size: int, gathered: Any) -> None:
        # each member runs its own net: point-estimated weights and rows differ from member to member
        for leaf, count, _ in leaves(self, num_samples):
            leaf._predict(x, count, batch_size, gathered)

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def structure(self) -> dict[str, Any]:
        return {"members": len(self.members)}

    def write(self, folder: Path) -> None:
        super().write(folder)
        for index, member in enumerate(self.members):
            member.write(folder / f"member-{index}")

    @classmethod
    def restored(cls, model: BayesianModel, structure: dict[str, Any], tensors: dict[str, Tensor]) -> Posterior:
        path = structure["path"]
        return cls([Posterior.load(path / f"member-{index}", model) for index in range(structure["members"])])


def leaves(posterior: Posterior, num_samples: int = 1, share: float = 1.0) -> Iterator[tuple[Posterior, int, float]]:
    """The posteriors that a mixture of mixtures comes down to, each with its draws and its share of the mixture.

    Args:
        posterior: Of any kind; one that is no mixture is its own leaf.
        num_samples: Draws of all of them, default 1.
        share: Of the posterior itself, default 1.
    """
    if isinstance(posterior, MixturePosterior):
        for member in posterior.members:
            yield from leaves(member, posterior._each(num_samples), share / len(posterior.members))
    else:
        yield posterior, num_samples, share
