"""More malformed inputs, and what is said of each; `test_mistakes` has the most frequent ones.

A table of cases: a file's content, and the whole message with the file's path replaced by FILE.
"""

import gzip

import numpy as np
import pytest

from pyroformer.inference import DataError
from pyroformer.tasks import Arrays, Mnist
from pyroformer.tasks.idx import idx_bytes, read_idx

ARRAY = np.arange(12, dtype=np.uint8).reshape(3, 4)
GOOD = idx_bytes(ARRAY)
WHOLE = gzip.compress(GOOD, mtime=0)

IDX = {
    "a text": (b"5,3,1\n", "FILE starts with 35 2c 33 2c: expected an IDX file (00 00) or gzip (1f 8b)"),
    "half a magic number": (GOOD[:3], "FILE holds 3 bytes: expected the 4 of an IDX file's magic number, and more"),
    "a wrong magic number in gzip": (
        gzip.compress(b"\1\2" + GOOD[2:]),
        "FILE holds the magic number 01 02 08 02: expected 00 00, a data type and a dimension",
    ),
    "no dimension": (b"\0\0\x08\0" + GOOD[4:], "FILE has 0 dimensions: expected 1 to 8"),
    "a size of 0": (
        GOOD[:4] + bytes(4) + GOOD[8:],
        "FILE says that its shape is (0, 4): expected 1 to 1073741824 bytes, got 0",
    ),
    "trailing bytes in gzip": (
        gzip.compress(GOOD + b"more"),
        "FILE holds more bytes of values: expected 12, for its shape (3, 4)",
    ),
    "gzip without its checksum": (WHOLE[:-8], "FILE ends in the middle of its gzip data: expected a whole file"),
}


@pytest.mark.parametrize("name", IDX)
def test_idx_files(tmp_path, name):
    content, said = IDX[name]
    path = tmp_path / "file.gz"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_idx(path)
    assert str(error.value).replace(str(path), "FILE") == said


def test_a_folder_and_nothing_at_all_in_the_place_of_an_idx_file(tmp_path):
    with pytest.raises(DataError, match="is a folder: expected an IDX file"):
        read_idx(tmp_path)
    with pytest.raises(DataError, match="no such file: expected an IDX file"):
        read_idx(tmp_path / "gone")


def idx(array):
    return gzip.compress(idx_bytes(array), 1)


IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
FOUR = f"{IMAGES}, {LABELS}, t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz"
BYTES = np.zeros(60, np.uint8)
MNIST = {
    # the file that is changed, its content (None for a folder), the message
    "images in the place of labels": (
        LABELS,
        idx(np.zeros((60, 28, 28), np.uint8)),
        f"FOLDER/{LABELS} holds uint8 [60, 28, 28]: expected labels, uint8 [N]",
    ),
    "labels of another type": (
        LABELS,
        idx(BYTES.astype(np.int32)),
        f"FOLDER/{LABELS} holds int32 [60]: expected labels, uint8 [N]",
    ),
    "a folder in the place of a file": (
        LABELS,
        None,
        f"FOLDER/{LABELS} is a folder: expected the file {LABELS}",
    ),
}


@pytest.mark.parametrize("name", MNIST)
def test_mnist_files(refused, toy, four_files, tmp_path, nowhere, name):
    changed, content, said = MNIST[name]
    folder = four_files(tmp_path / "mnist")
    (folder / changed).unlink()
    (folder / changed).mkdir() if content is None else (folder / changed).write_bytes(content)
    settings = [f"task.mnist.{setting}" for setting in (f"path={folder}", "train=40", "validation=20")]
    assert refused(toy, *settings).replace(str(folder), "FOLDER") == said


def test_less_of_mnist_than_is_asked_for(four_files, tmp_path, nowhere):
    folder = four_files(tmp_path / "mnist")
    with pytest.raises(DataError, match=r"task\.mnist\.train \+ validation = 50 \+ 20: expected at most 60"):
        Mnist(path=str(folder), train=50, validation=20).load()


EXPECTED = "expected a CSV file: rows of numbers and one column to predict, separated by commas, semicolons or tabs"
CSV = {
    "nothing but blank lines": ("\n \n\r\n", f"FILE is empty: {EXPECTED}"),
    "one column": ("a\n1\n2\n", f"FILE has one column: {EXPECTED}"),
    "text of two bytes a letter": ("a,y\n1,2\n".encode("utf-16"), f"FILE is not UTF-8 (byte 0): {EXPECTED}"),
    "a missing cell without a header": (
        "1,2,p\n3,,q\n",
        "FILE: line 2, column 2 is missing (''): expected a value in every cell",
    ),
    "a word for NaN": (
        "a,y\n1,p\nNaN,q\n",
        "FILE: line 3, column 1 (a) is missing ('NaN'): expected a value in every cell",
    ),
    "a word for NaN at the top": (
        "NA,p\n1,q\n",
        "FILE: line 1, column 1 is missing ('NA'): expected a value in every cell",
    ),
    "a question mark": (
        "a,y\n1,p\n?,q\n",
        "FILE: line 3, column 1 (a) is missing ('?'): expected a value in every cell",
    ),
    "a target that is missing": (
        "a,y\n1,p\n2,\n",
        "FILE: line 3, column 2 (y) is missing (''): expected a value in every cell",
    ),
    "infinity": ("a,y\n1,p\ninf,q\n", "FILE: line 3, column 1 (a) holds 'inf': expected a number such as 1.5"),
    "a number too large": (
        "a,y\n1,p\n1e300,q\n2,p\n3,q\n4,p\n",
        "FILE: line 3, column 1 (a) holds '1e300': expected at most 3.4e+38",
    ),
    "a row too long": ("1,2,p\n3,4,q,5\n", "FILE: line 2 has 4 cells: expected 3, as line 1 has"),
    "a column without a name": ("a,,y\n1,2,p\n", "FILE: line 1: column 2 has no name: expected one in the header"),
    "text after a quote": ('a,y\n"1"2,p\n', f"FILE: line 2: ',' expected after '\"': {EXPECTED}"),
    "words that are all different": (
        "a,y\n" + "".join(f"1,w{i}\n" for i in range(101)),
        "FILE: the target y holds 101 classes: expected at most 100",
    ),
    "whole numbers that are all different": (
        "a,y\n" + "".join(f"1,{i}\n" for i in range(101)),
        "FILE: the target y holds 101 classes: expected at most 100 (for a regression set task.arrays.regression=true)",
    ),
    "a single row": ("1,p\n", "FILE: the target column 2 holds one class, p: expected at least two"),
    "two rows": ("1,p\n2,q\n", "FILE has 2 rows, of which 0 to test on: expected some of each"),
}


@pytest.mark.parametrize("name", CSV)
def test_csv_files(refused, toy, tmp_path, name):
    content, said = CSV[name]
    path = tmp_path / "my.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert refused(toy, f"task.arrays.file={path}").replace(str(path), "FILE") == said


@pytest.mark.parametrize(("target", "said"), [("z", "a, y, or a"), ("4", "a, y, or a"), ("0", "a, y, or a")])
def test_a_target_that_does_not_exist(refused, toy, tmp_path, target, said):
    path = tmp_path / "my.csv"
    path.write_text("a,y\n1,p\n2,q\n")
    message = refused(toy, f"task.arrays.file={path}", f"task.arrays.target={target}")
    assert message == f"{path} has no column {target}: expected {said} number from 1 to 2"


def test_a_test_file_with_other_columns(tmp_path):
    (tmp_path / "a.csv").write_text("a,b,y\n1,2,p\n2,3,q\n")
    for text, columns in (("b,a,y\n1,2,p\n", "b, a, y"), ("1,2,p\n", "3 columns, no header")):
        (tmp_path / "b.csv").write_text(text)
        with pytest.raises(DataError) as error:
            Arrays(file=str(tmp_path / "a.csv"), test_file=str(tmp_path / "b.csv")).load()
        expected = f"has the columns {columns}: expected those of {tmp_path / 'a.csv'}, a, b, y"
        assert str(error.value) == f"{tmp_path / 'b.csv'} {expected}"


def test_mnist_that_is_found_nowhere(refused, toy, nowhere):
    message = refused(toy, "task=mnist")
    assert message.startswith("mnist was not found; looked at PYROFORMER_DATA (not set), ")
    assert "http://127.0.0.1:9/train-images-idx3-ubyte.gz could not be downloaded (ConnectionError)" in message
    assert f"put {FOUR} into a folder and name it by task.mnist.path" in message
