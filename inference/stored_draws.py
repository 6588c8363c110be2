"""Draws that need not be in memory: they come in parts, and whole parts are written to files while chains run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .files import read_tensors, write_tensors

Part = Mapping[str, Tensor]
PART = 2**22
"""About how many numbers of all chains one part holds."""


def part_file(folder: Path, index: int) -> Path:
    """Where the part of this number is kept in a folder."""
    return folder / f"draws-{index:05d}.safetensors"


class StoredDraws(Mapping[str, Tensor]):
    """Draws of several chains by site, in parts that follow each other, such as files that are mapped into memory.

    As a mapping it gives ``[S, ...]`` by site, one chain after another, which brings a site as a whole into memory.

    Args:
        parts: Values ``[K, s, ...]`` by site, at least one part.
    """

    def __init__(self, parts: list[Part]):
        self.parts = parts
        shapes = [next(iter(part.values())).shape for part in parts]
        self.chains = shapes[0][0]
        self.ends = torch.tensor([shape[1] for shape in shapes]).cumsum(0)

    @property
    def num_samples(self) -> int:
        """Draws of all chains."""
        return self.chains * int(self.ends[-1])

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts[0])

    def __len__(self) -> int:
        return len(self.parts[0])

    def __getitem__(self, name: str) -> Tensor:
        return torch.cat([part[name] for part in self.parts], 1).flatten(0, 1)

    def rows(self, index: Tensor, without: Collection[str] = ()) -> dict[str, Tensor]:
        """Some draws ``[s, ...]`` by site, by their numbers ``[s]`` in ``[S]``; of others nothing is read.

        Args:
            index: The numbers.
            without: Sites to leave out.
        """
        each = int(self.ends[-1])
        kept = {name: values for name, values in self.parts[0].items() if name not in without}
        chain, draw = index // each, index % each
        which = torch.bucketize(draw, self.ends, right=True)
        found = {name: values.new_empty(len(index), *values.shape[2:]) for name, values in kept.items()}
        for number in which.unique().tolist():
            here = which == number
            part = self.parts[number]
            begin = int(self.ends[number - 1]) if number else 0
            for name, values in found.items():
                values[here] = part[name][chain[here], draw[here] - begin]
        return found


class DrawStream:
    """Takes the draws of ``K`` chains as they come; in whole parts they go to files, where there is a folder for them.

    What is in which part depends on the number of the draw alone.

    Args:
        values: From vectors ``[K, s, D]`` to values ``[K, s, ...]`` by site.
        chains, size: ``K`` and ``D``.
        folder: Where to keep whole parts, or None to keep them in memory.
    """

    def __init__(self, values: Callable[[Tensor], dict[str, Tensor]], chains: int, size: int, folder: Path | None):
        self.values, self.folder = values, folder
        self.most = max(1, PART // (chains * size))
        self.parts: list[Part] = []
        self.pending: list[Tensor] = []

    def restore(self, parts: int, pending: Tensor | None) -> None:
        """Go on from so many parts in the folder and from what was pending ``[K, s, D]``; files of later ones go.

        Raises:
            FileNotFoundError, ValueError: A part is missing, or damaged.
        """
        assert self.folder is not None or not parts
        if self.folder is not None:
            self.parts = [read_tensors(part_file(self.folder, index)) for index in range(parts)]
            known = {part_file(self.folder, index) for index in range(parts)}
            for path in self.folder.glob("draws-*.safetensors"):
                if path not in known:  # written after the state that is gone on from
                    path.unlink()
        self.pending = [] if pending is None else list(pending.unbind(1))

    def add(self, z: Tensor) -> None:
        """Take the next draw of every chain, ``[K, D]``."""
        self.pending.append(z.cpu())
        if len(self.pending) < self.most:
            return
        part: Part = self.values(torch.stack(self.pending, 1))
        if self.folder is not None:
            path = part_file(self.folder, len(self.parts))
            write_tensors(path, part)
            part = read_tensors(path)  # mapped: the system may forget it
        self.parts, self.pending = [*self.parts, part], []

    def draws(self, most: int | None = None) -> StoredDraws | dict[str, Tensor]:
        """All draws so far, or the first of each chain: in memory where no part is in a file, else a `StoredDraws`."""
        parts = [*self.parts, *([self.values(torch.stack(self.pending, 1))] if self.pending else [])]
        stored = StoredDraws(parts if most is None else first_of(parts, most))
        return stored if self.folder is not None and self.parts else dict(stored)

    def state(self) -> tuple[dict[str, Tensor], int]:
        """What is in no file, and how many parts are in files."""
        pending = {"pending": torch.stack(self.pending, 1)} if self.pending else {}
        return pending, len(self.parts)


def first_of(parts: Sequence[Part], most: int) -> list[Part]:
    """The parts of the first draws of each chain, the last of them cut where it holds more."""
    found: list[Part] = []
    for part in parts:
        if most > 0:
            found.append({name: values[:, :most] for name, values in part.items()})
        most -= next(iter(part.values())).shape[1]
    return found
