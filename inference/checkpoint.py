"""What a driver needs to go on after its process was stopped."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

from .data import Data
from .files import read_tensors_and_content, write_tensors

STATE = "state.safetensors"
FORMAT = 2
"""Of what states hold: those of another number are not gone on from."""
EVERY = 10.0
"""Seconds between two checkpoints: what a kill may cost."""


def identity(driver: Any, seed: int, data: Data, initial: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a checkpoint belongs to: work that differs in any of this does not go on from it.

    Args:
        driver: The driver's settings, as plain data.
        seed: The seed of the work.
        data: What is learnt from; every byte counts.
        initial: The model's values at the start, by name; every byte counts.
    """
    return {
        "format": FORMAT,
        "driver": driver,
        "seed": seed,
        "torch": torch.__version__,
        "pyro": pyro.__version__,
        "data": _digest({k: v for k, v in vars(data).items() if v is not None}),
        "start": _digest(initial),
    }


def _digest(values: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, value in values.items():
        for part in value if isinstance(value, tuple) else (value,):
            digest.update(f"{name} {part.dtype} {tuple(part.shape)}".encode())
            digest.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


class Checkpoint:
    """The state of one piece of work, in a file that is replaced whole.

    Args:
        folder: Where it is kept; the parts of the work (members, chains) have folders inside.
        every: Seconds between two states that are kept, default 10.
    """

    def __init__(self, folder: Path, every: float = EVERY):
        self.folder, self.every = folder, every
        self.identity: dict[str, Any] = {}
        self.saved = time.monotonic()

    def begin(self, identity: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Begin the work of this identity: the state to go on from, or None to start; a state of other work is removed.

        Returns:
            The tensors and the plain data that `save` was given.
        """
        self.identity, self.saved = json.loads(json.dumps(identity)), time.monotonic()
        try:
            tensors, content = read_tensors_and_content(self.folder / STATE)
        except FileNotFoundError:
            return None
        except ValueError:
            self.clear()
            return None
        if content.get("identity") != self.identity:
            self.clear()
            return None
        return tensors, content["content"]

    @property
    def due(self) -> bool:
        """Whether the last state is old enough to keep another."""
        return time.monotonic() - self.saved >= self.every

    def save(self, tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> None:
        """Keep a state in the place of the last one."""
        write_tensors(self.folder / STATE, tensors, {"identity": self.identity, "content": content})
        self.saved = time.monotonic()

    def part(self, name: str) -> Checkpoint:
        """The checkpoint of a part of the work."""
        return Checkpoint(self.folder / name, self.every)

    def clear(self) -> None:
        """Remove the state and those of all parts."""
        shutil.rmtree(self.folder, ignore_errors=True)
