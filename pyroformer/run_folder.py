"""What the folders of runs and studies hold: read back, where a damaged file is named, and known by their marks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from . import yamlfile
from .choices import SpecError
from .inference.files import is_leftover, read_json, read_tensors
from .inference.marginals import Marginal, read_marginals
from .seen_chains import SeenChains, read_chains
from .viewer.data import SeenAttention
from .viewer.files import read_seen

SPEC, METRICS, HISTORY, ENVIRONMENT = "spec.yaml", "metrics.json", "history.jsonl", "environment.json"
PREDICTIONS, MARGINALS = "predictions.safetensors", "marginals.safetensors"
ATTENTION = "attention.safetensors"
DIAGNOSTICS, CHAINS = "diagnostics.json", "chains.safetensors"
POSTERIOR, ARRAYS = "posterior", "arrays.npz"
CHECKPOINT, LOCK, SOURCE = "checkpoint", ".lock", "data.json"
RUNS = "runs"
WHOLE = "a file as a run left it; this one is missing or damaged"


def is_trace(path: Path) -> bool:
    """Whether a path says no more than that a process works beside it, or was killed before it had written a file."""
    return path.name == LOCK or is_leftover(path)


def check_study_folder(folder: Path) -> None:
    """Raise a `SpecError` unless files of a study may be written into a folder: it is new, empty, or holds a study.

    A study is known by the cells of its runs, ``runs/<method>/seed-<n>``, which have a spec or the lock of a process
    that was to write one. Killed before that, it has left nothing but its own lock and folders without files.
    """
    if folder.is_file():
        raise SpecError("--out", str(folder), "a folder; this is a file")
    cells = folder.glob(f"{RUNS}/*/seed-*")
    if any((cell / file).is_file() for cell in cells for file in (SPEC, LOCK)):
        return
    if folder.is_dir() and any(not (path.is_dir() or is_trace(path)) for path in folder.rglob("*")):
        accepted = "a new or empty folder, or one with a study; this holds something else"
        raise SpecError("--out", str(folder), accepted)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong when a file of a run is read into a `SpecError` that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise SpecError(str(path), str(error) if path.is_dir() else "no such file", WHOLE) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        said = str(error).removeprefix(f"{path} ").removeprefix("is ").strip() or type(error).__name__
        raise SpecError(str(path), said, WHOLE) from None


def content_of(folder: Path) -> dict[str, Any]:
    """The spec of a run's folder as plain data, with the place of arrays that are kept there.

    Raises:
        SpecError: There is none, or it lacks a part that every run has.
    """
    content = yamlfile.read(folder / SPEC)
    for key in ("task", "model"):
        if not content.get(key):
            raise SpecError(str(folder / SPEC), f"no {key}", WHOLE)
    if content["task"] == {"arrays": {"file": ARRAYS}}:
        content["task"] = {"arrays": {"file": str(folder / ARRAYS)}}
    return {str(key): value for key, value in content.items()}


def metrics_of(folder: Path) -> dict[str, Any]:
    """What was measured."""
    with reading(folder / METRICS):
        return read_json(folder / METRICS)


def history_of(folder: Path) -> list[dict[str, Any]]:
    """One record a validated epoch, or a draw."""
    with reading(folder / HISTORY):
        return [json.loads(line) for line in (folder / HISTORY).read_text(encoding="utf-8").splitlines()]


def predictions_of(folder: Path) -> dict[str, Tensor]:
    """What was predicted for every set, by ``set.quantity``."""
    with reading(folder / PREDICTIONS):
        return read_tensors(folder / PREDICTIONS)


def marginals_of(folder: Path) -> dict[str, Marginal]:
    """Posterior and prior of every weight and hyperparameter, by name; none where there is no file."""
    with reading(folder / MARGINALS):
        return read_marginals(folder / MARGINALS)


def attention_of(folder: Path) -> SeenAttention | None:
    """What was seen of attention on a few test examples; None for nets without attention of ours."""
    with reading(folder / ATTENTION):
        return read_seen(folder / ATTENTION)


def read_diagnosis(folder: Path) -> dict[str, Any]:
    """The verdict on a run's chains and their table; empty where there is no file."""
    if not (folder / DIAGNOSTICS).is_file():
        return {}
    with reading(folder / DIAGNOSTICS):
        return read_json(folder / DIAGNOSTICS)


def chains_of(folder: Path) -> SeenChains | None:
    """What there is to see of a run's chains; None without chains."""
    with reading(folder / CHAINS):
        return read_chains(folder / CHAINS)


def source_of(folder: Path) -> dict[str, Any]:
    """What the task said of its data when the run learned."""
    with reading(folder / SOURCE):
        return read_json(folder / SOURCE)


def changed_since(folder: Path, source: Mapping[str, Any], key: str) -> list[str]:
    """The names of what a run learned from and is another now, as far as the records of its folder tell.

    Args:
        folder: The run's.
        source: What the task says of its data now.
        key: ``sha256``, of arrays in memory and of the tokens of a text, by their set; or ``files``, by their path.
    """
    if not (folder / SOURCE).is_file():
        return []
    with reading(folder / SOURCE):
        then, now = read_json(folder / SOURCE).get(key) or {}, source.get(key) or {}
        return [name for name, found in then.items() if now.get(name, found) != found]
