"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor


class WriteError(OSError):
    """A file could not be written: the disk is full, or the folder may not be written to."""


LEFTOVER = re.compile(r"\..+\.\d+\.(new|old)")
"""The names that `replacing` writes to: that of the file, and the number of the process."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says of a failed write into a `WriteError` that names the file."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(f"{path} could not be written: {error.strerror or error}") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it takes ``path``'s place when the block ends without an error.

    A folder that stood there is removed after the new one is complete; a file takes no folder's place.

    Raises:
        WriteError: The system refused to write; what stood at ``path`` stands there still.
    """
    with writing(path):
        yield from _replacing(path)


def _replacing(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        yield new
        if path.is_dir():
            if not new.is_dir():  # a folder would be lost to a file
                raise IsADirectoryError(errno.EISDIR, "it is a folder, and a file was to be written")
            path.rename(old)
        try:
            new.replace(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    finally:
        for left in (new, old):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole; NaN and infinity become null."""
    write_text(path, json.dumps(plain(content), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}: expected a JSON object")
    return content


def is_leftover(path: Path) -> bool:
    """Whether a path has a temporary name of `replacing`: a process writes to it, or was killed while it did."""
    return LEFTOVER.fullmatch(path.name) is not None


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed process left in a folder that no other process works in."""
    for left in [path for path in folder.iterdir() if is_leftover(path)]:
        path = folder / left.name[1:].rsplit(".", 2)[0]
        if left.suffix == ".old" and not path.exists():
            left.rename(path)  # killed between the two renames: the old one is all there is
        else:
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], content: Mapping[str, Any] | None = None) -> None:
    """Write tensors as safetensors, from the CPU, each with memory of its own, and plain data in the same file."""
    metadata = None if content is None else {"content": json.dumps(content)}
    with replacing(path) as new:
        # through bytes: files that safetensors creates are for their owner alone
        new.write_bytes(save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, metadata))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from None


def read_tensors_and_content(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote with plain data.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else.
    """
    tensors = read_tensors(path)
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get("content")
    if text is None:
        raise ValueError(f"{path} holds no plain data beside its tensors")
    return tensors, json.loads(text)


def plain(content: Any) -> Any:
    """Content as JSON can hold it: NaN and infinity become null."""
    if isinstance(content, Mapping):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    if isinstance(content, float) and content - content != 0:
        return None
    return content
