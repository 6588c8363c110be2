"""The IDX format: arrays of MNIST and its kin, big-endian, plain or gzip."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..inference import DataError

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MOST_DIMENSIONS = 8
MOST_BYTES = 2**30
_CHUNK = 2**20


@dataclass(frozen=True)
class ReadFile:
    """The bytes of a file and where they are from.

    Args:
        path: The file.
        content: What it holds.
    """

    path: Path
    content: bytes

    @property
    def sha256(self) -> str:
        """Of the file as it lies there, compressed or not."""
        return hashlib.sha256(self.content).hexdigest()


def read_bytes(path: str | Path, what: str) -> ReadFile:
    """Read a file whole.

    Args:
        path: The file.
        what: What is expected there, for messages.

    Raises:
        DataError: It is missing, a folder, or cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder: expected {what}")
    try:
        return ReadFile(path, path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file: expected {what}") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}: expected {what}") from None


def read_idx(path: str | Path) -> np.ndarray:
    """Read an array from an IDX file, plain or gzip.

    Args:
        path: The file.

    Returns:
        The array, in the machine's byte order.

    Raises:
        DataError: The file is not a whole IDX file and nothing but that.

    Reference:
        LeCun, Cortes and Burges, 1998, "The MNIST database of handwritten digits", section on the file format.
    """
    return parse_idx(read_bytes(path, "an IDX file"))


def parse_idx(file: ReadFile) -> np.ndarray:
    """The array in the bytes of an IDX file; see `read_idx`.

    No more is read than the header promises and the file holds, so a header that lies costs no memory.
    """
    content, path = file.content, file.path
    if not content:
        raise DataError(f"{path} is empty: expected an IDX file")
    zipped = content[:2] == b"\x1f\x8b"
    if not zipped and content[:2] != b"\0\0":
        raise DataError(f"{path} starts with {_hex(content[:4])}: expected an IDX file (00 00) or gzip (1f 8b)")
    stream: io.BufferedIOBase = gzip.GzipFile(fileobj=io.BytesIO(content)) if zipped else io.BytesIO(content)
    try:
        return _parse(stream, path)
    except EOFError:
        raise DataError(f"{path} ends in the middle of its gzip data: expected a whole file") from None
    except (OSError, zlib.error) as error:  # gzip.BadGzipFile is an OSError
        raise DataError(f"{path} is damaged gzip data ({error}): expected a whole file") from None


def _parse(stream: io.BufferedIOBase, path: Path) -> np.ndarray:
    magic = _read(stream, 4)
    if len(magic) < 4:
        raise DataError(f"{path} holds {len(magic)} bytes: expected the 4 of an IDX file's magic number, and more")
    if magic[:2] != b"\0\0":
        raise DataError(f"{path} holds the magic number {_hex(magic)}: expected 00 00, a data type and a dimension")
    if magic[2] not in DTYPES:
        known = ", ".join(f"{code:02x}" for code in DTYPES)
        raise DataError(f"{path} has the data type {magic[2]:02x}: expected one of {known}")
    dimensions = magic[3]
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        raise DataError(f"{path} has {dimensions} dimensions: expected 1 to {MOST_DIMENSIONS}")
    sizes = _read(stream, 4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise DataError(f"{path} ends in the middle of its header: expected the sizes of {dimensions} dimensions")
    shape = tuple(np.frombuffer(sizes, ">u4").tolist())
    dtype = np.dtype(DTYPES[magic[2]])
    wanted = math.prod(shape) * dtype.itemsize
    if not wanted or wanted > MOST_BYTES:
        raise DataError(f"{path} says that its shape is {shape}: expected 1 to {MOST_BYTES} bytes, got {wanted}")
    values = _read(stream, wanted + 1)  # one more, to see the end: only there does gzip compare its checksum
    if len(values) != wanted:
        held = f"only {len(values)}" if len(values) < wanted else "more"
        raise DataError(f"{path} holds {held} bytes of values: expected {wanted}, for its shape {shape}")
    return np.frombuffer(values, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def idx_bytes(array: np.ndarray) -> bytes:
    """An array as the bytes of a plain IDX file.

    Args:
        array: ``[N, ...]`` of a type that the format knows: uint8, int8, int16, int32, float32 or float64.

    Raises:
        DataError: The format has no such type or shape.
    """
    codes = {np.dtype(name).newbyteorder("="): code for code, name in DTYPES.items()}
    native = array.dtype.newbyteorder("=")
    if native not in codes:
        raise DataError(f"an IDX file cannot hold {array.dtype}: expected one of {', '.join(map(str, codes))}")
    if not 1 <= array.ndim <= MOST_DIMENSIONS or not array.size:
        raise DataError(f"an IDX file cannot hold the shape {array.shape}: expected 1 to {MOST_DIMENSIONS} dimensions")
    header = bytes([0, 0, codes[native], array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(DTYPES[codes[native]]).tobytes()


def labelled_images(images: ReadFile, labels: ReadFile, side: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Square images of bytes and their labels.

    Args:
        images, labels: Two IDX files.
        side: Of an image, in pixels.
        classes: Labels count from 0 to one below this.

    Returns:
        ``[N, side, side]`` and ``[N]``, both uint8.

    Raises:
        DataError: A file is damaged, holds something else, or the two do not belong together.
    """
    x, y = parse_idx(images), parse_idx(labels)
    for file, array, what, shape in ((images, x, "images", (side, side)), (labels, y, "labels", ())):
        if array.dtype != np.uint8 or array.shape[1:] != shape:
            wanted = ", ".join(map(str, ("N", *shape)))
            raise DataError(f"{file.path} holds {array.dtype} {list(array.shape)}: expected {what}, uint8 [{wanted}]")
    if len(x) != len(y):
        raise DataError(f"{images.path} holds {len(x)} images and {labels.path} {len(y)} labels: expected as many")
    if int(y.max()) >= classes:
        raise DataError(f"{labels.path} holds the label {int(y.max())}: expected 0 to {classes - 1}")
    return x, y


def _read(stream: io.BufferedIOBase, size: int) -> bytes:
    """Up to ``size`` bytes, in chunks: a reader may set aside all that it is asked for at once."""
    parts, left = [], size
    while left and (part := stream.read(min(left, _CHUNK))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _hex(content: bytes) -> str:
    return content.hex(" ")
