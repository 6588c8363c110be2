"""The IDX reader: what the format says, what comes back, and that nothing but `DataError` is raised on any bytes."""

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pyroformer.inference import DataError
from pyroformer.tasks.idx import DTYPES, ReadFile, idx_bytes, parse_idx, read_idx

LITERAL = bytes.fromhex("00000b02 00000002 00000003 0001 0002 0003 fffe fffd 7fff")
NATIVE = [np.dtype(name).newbyteorder("=") for name in DTYPES.values()]
SMALL = arrays.array_shapes(min_dims=1, max_dims=4, max_side=4)
ANY_ARRAY = st.sampled_from(NATIVE).flatmap(lambda dtype: arrays.arrays(dtype, SMALL))


def parse(content):
    return parse_idx(ReadFile(Path("file"), content))


def test_a_file_written_by_hand():
    expected = np.array([[1, 2, 3], [-2, -3, 32767]], dtype=np.int16)
    for content in (LITERAL, gzip.compress(LITERAL)):
        read = parse(content)
        assert read.dtype == np.dtype("int16") and read.dtype.isnative
        np.testing.assert_array_equal(read, expected)
    assert idx_bytes(expected) == LITERAL
    assert idx_bytes(expected.astype(">i2")) == LITERAL
    assert parse(bytes.fromhex("00000d01 00000001 3fc00000")).tolist() == [1.5]


def test_a_file_on_disk(tmp_path):
    (tmp_path / "a").write_bytes(LITERAL)
    assert read_idx(tmp_path / "a").shape == read_idx(str(tmp_path / "a")).shape == (2, 3)


@given(ANY_ARRAY, st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_is_written_comes_back(array, zipped):
    content = idx_bytes(array)
    read = parse(gzip.compress(content, 1) if zipped else content)
    assert read.dtype == array.dtype and read.shape == array.shape
    assert read.tobytes() == array.tobytes()  # NaN too


@pytest.mark.parametrize("array", [np.zeros((2, 0)), np.zeros(()), np.zeros(2, np.uint32), np.zeros(2, bool)])
def test_what_the_format_cannot_hold(array):
    with pytest.raises(DataError, match="an IDX file cannot hold"):
        idx_bytes(array)


def reads_or_refuses(content):
    try:
        return isinstance(parse(content), np.ndarray)
    except DataError as error:
        return str(error).startswith("file ")


@given(st.binary(max_size=64), st.sampled_from([b"", b"\0\0", b"\0\0\x08\x01", b"\x1f\x8b", b"\x1f\x8b\x08\0"]))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_read_or_refused(content, start):
    assert reads_or_refuses(start + content)
    assert reads_or_refuses(gzip.compress(start + content, 1))


@given(st.booleans(), st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_files_are_read_or_refused(zipped, data):
    content = bytearray(gzip.compress(LITERAL) if zipped else LITERAL)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    assert reads_or_refuses(bytes(content[: data.draw(st.integers(0, len(content)))]))


@given(st.integers(1, 7))
@settings(deadline=None)
def test_a_value_that_flipped_in_gzip_is_noticed(bit):
    array = np.random.default_rng(0).integers(0, 256, 2000, dtype=np.uint8)
    content = bytearray(gzip.compress(idx_bytes(array), 0))  # stored: only the checksum can tell
    content[1000] ^= 1 << bit
    with pytest.raises(DataError, match="CRC check failed"):
        parse(bytes(content))


@pytest.mark.parametrize("count", [2**29, 2**30 - 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_header_that_lies_costs_no_memory(count, zipped):
    content = bytes([0, 0, 8, 1]) + count.to_bytes(4, "big") + bytes(10)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"only 10 bytes of values|expected 1 to 1073741824 bytes"):
        parse(gzip.compress(content) if zipped else content)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**23
