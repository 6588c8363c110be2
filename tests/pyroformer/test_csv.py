"""Tables from CSV files: what columns become, how rows are split, and the ways in which spreadsheets write them."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyroformer.inference import DataError
from pyroformer.models import Categorical, Features, Gaussian
from pyroformer.priors import SettingError
from pyroformer.tasks import Arrays
from pyroformer.tasks.idx import ReadFile
from pyroformer.tasks.table import read_table, read_target

NET = {"transformer": {"width": 4, "heads": 2, "depth": 1}}
WORDS = ["iris", "aster", "daisy"]
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(loc=[3.0, -2.0], scale=[2.0, 0.5], size=(50, 2)).round(3)


@pytest.fixture
def table(tmp_path):
    """Write rows to a CSV file; returns its path as a text."""

    def write(rows, name="my.csv", separator=",", end="\n", encoding="utf-8"):
        text = end.join(separator.join(map(str, row)) for row in rows) + end
        (tmp_path / name).write_bytes(text.encode(encoding))
        return str(tmp_path / name)

    return write


def flowers(header=("width", "length", "species")):
    rows = [[*x, WORDS[i % 3]] for i, x in enumerate(X.tolist())]
    return [list(header), *rows] if header else rows


def test_words_are_classes_and_other_columns_real_features(table):
    path = table(flowers())
    data = Arrays(file=path, standardize=False).load()
    assert data.inputs == Features(2)
    assert isinstance(data.likelihood, Categorical)
    assert data.source["sizes"] == {"train": 36, "validation": 4, "test": 10}
    assert data.source["classes"] == ["aster", "daisy", "iris"]
    assert (data.source["target"], data.source["features"]) == ("species", ["width", "length"])
    assert data.source["files"] == {path: hashlib.sha256(Path(path).read_bytes()).hexdigest()}
    assert json.loads(json.dumps(data.source)) == data.source
    expected = {tuple(np.float32(x).tolist()): sorted(WORDS).index(WORDS[i % 3]) for i, x in enumerate(X)}
    seen = {}
    for split in (data.train, data.validation, data.test):
        seen |= dict(zip(map(tuple, split.x.tolist()), split.y.tolist(), strict=True))
    assert seen == expected


def test_features_are_standardised_by_the_training_rows_alone(table):
    path = table([["a", "same", "b", "y"], *[[x, 7, z, i % 2] for i, (x, z) in enumerate(X.tolist())]])
    raw, data = Arrays(file=path, standardize=False).load(), Arrays(file=path).load()
    x = raw.train.x.double()
    mean, sd = x.mean(0), x.std(0, correction=0)
    sd[1] = 1.0
    for name in ("train", "validation", "test"):
        expected = (getattr(raw, name).x.double() - mean) / sd
        torch.testing.assert_close(getattr(data, name).x.double(), expected, atol=1e-5, rtol=1e-5)
    assert float(data.test.x[:, 0].mean().abs()) > 1e-3  # by all rows it would be others
    assert data.train.x[:, 1].tolist() == [0.0] * 36
    assert data.source["standardized"]["sd"] == pytest.approx(sd.tolist())
    assert "standardized" not in raw.source


@pytest.mark.parametrize(
    ("target", "classes"),
    [(None, ["aster", "daisy", "iris"]), ("species", ["aster", "daisy", "iris"]), (3, ["aster", "daisy", "iris"])],
)
def test_the_target_by_name_or_number(table, target, classes):
    assert Arrays(file=table(flowers()), target=target).load().source["classes"] == classes


def test_a_target_in_front_and_no_header(table):
    data = Arrays(file=table([row[::-1] for row in flowers(None)]), target=1).load()
    assert (data.source["target"], data.source["features"]) == ("column 1", ["column 2", "column 3"])
    assert sum(data.source["sizes"].values()) == 50


@pytest.mark.parametrize(
    ("values", "regression", "classes"),
    [
        (["10", "9", "-1", "9"], None, ["-1", "9", "10"]),
        (["01", "1", "2", "+2"], None, ["1", "2"]),
        (["0.5", "1", "2", "3"], None, None),
        (["1", "2", "3", "4"], True, None),
        (["1.0", "2.0", "1.0", "2.0"], False, ["1.0", "2.0"]),
        (["b", "B", "a", "1"], None, ["1", "B", "a", "b"]),
    ],
)
def test_what_a_target_is(values, regression, classes):
    text = "".join(f"{i}.5,{value}\n" for i, value in enumerate(values))
    table = read_table(ReadFile("file", text.encode()))
    target = read_target([table], [1], regression)
    assert target.classes == classes
    if classes is None:
        assert target.values[0].tolist() == [float(value) for value in values]
    else:
        assert [float(classes[i]) if classes[i][-1].isdigit() else classes[i] for i in target.values[0]] == [
            float(value) if value[-1].isdigit() else value for value in values
        ]


def test_a_regression(table):
    data = Arrays(file=table([["a", "b", "price"], *[[*x, 2.5 * x[0]] for x in X.tolist()]])).load()
    assert isinstance(data.likelihood, Gaussian)
    assert data.train.y.shape == (36, 1) and data.source["classes"] is None


def test_rows_to_test_on_in_a_file_of_their_own(table):
    train, test = table(flowers()), table(flowers()[:7], "test.csv")
    data = Arrays(file=train, test_file=test, validation=0.2).load()
    assert data.source["sizes"] == {"train": 40, "validation": 10, "test": 6}
    assert list(data.source["files"]) == [train, test]
    assert data.test.y.tolist() == [2, 0, 1, 2, 0, 1]


def test_the_split_is_seeded_and_its_shares_are_as_asked(table):
    path = table(flowers())
    one, again, other = (Arrays(file=path, split=split).load() for split in (0, 0, 1))
    assert torch.equal(one.test.x, again.test.x) and not torch.equal(one.test.y, other.test.y)
    assert Arrays(file=path, test=0.5, validation=0).load().source["sizes"] == {
        "train": 25,
        "validation": 0,
        "test": 25,
    }


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("header", [("width", "length", "Art, groß"), None])
def test_as_spreadsheets_write_them(table, separator, end, encoding, header):
    rows = flowers(header and (*header[:2], f'"{header[2]}"'))
    plain = Arrays(file=table(flowers(header and (*header[:2], "species")), "plain.csv")).load()
    data = Arrays(file=table(rows, separator=separator, end=end, encoding=encoding)).load()
    assert torch.equal(data.train.x, plain.train.x) and torch.equal(data.train.y, plain.train.y)
    assert data.source["target"] == (header[2] if header else "column 3")


def test_quoted_cells_blank_lines_and_lines_inside_cells():
    text = '"a","b ""x""",y\n\n1, "2","one\nline"\n\n"3",4.5e0,\'two\'\n\n'
    table = read_table(ReadFile("file", text.encode()))
    assert table.names == ["a", 'b "x"', "y"]
    assert table.rows == [["1", "2", "one\nline"], ["3", "4.5e0", "'two'"]]
    assert table.lines == [3, 6]
    assert table.numbers(2).tolist() == [[1.0, 2.0], [3.0, 4.5]]


@given(
    st.lists(
        st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=3, max_size=3),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=40, deadline=None)
def test_numbers_come_back(rows):
    text = "".join(",".join(map(repr, row)) + "\n" for row in rows)
    assert read_table(ReadFile("file", text.encode())).numbers(2).tolist() == [row[:2] for row in rows]


@given(st.one_of(st.binary(max_size=40), st.text(alphabet='a1.,;"\n\r\t -\0', max_size=40).map(str.encode)))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_table_or_refused(content):
    try:
        table = read_table(ReadFile("file", content))
        column = table.column(None)
        read_target([table], [column], None)
        assert np.isfinite(table.numbers(column)).all()
    except DataError as error:
        assert str(error).startswith("file")
    except csv.Error as error:
        raise AssertionError from error


def test_from_the_command_line(pyroformer, write, table, tmp_path):
    spec = {"task": "digits", "model": NET, "driver": {"ml": {"epochs": 1}}}
    given = ["--set", f"task.arrays.file={table(flowers())}", "--set", "task.arrays.test=0.3", "--quiet"]
    assert pyroformer("run", write(spec), "--out", tmp_path / "run", *given).code == 0
    assert (tmp_path / "run" / "metrics.json").is_file()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"test": 0.0}, "test = 0.0: expected a number between 0 and 1"),
        ({"test": 1.0}, "test = 1.0: expected a number between 0 and 1"),
        ({"validation": 1.0}, "validation = 1.0: expected a number from 0 to below 1"),
        ({"split": -1}, "split = -1: expected a whole number from 0"),
        ({"test_file": "nowhere.csv"}, "test_file = 'nowhere.csv': expected an existing .csv file"),
    ],
)
def test_settings_that_are_refused(table, change, said):
    with pytest.raises(SettingError, match=said):
        Arrays(file=table(flowers()), **change)
    with pytest.raises(SettingError, match="null, as test_file names the rows to test on"):
        Arrays(file=table(flowers()), test=0.5, test_file=table(flowers()))


@pytest.mark.parametrize("change", [{"target": "y"}, {"test": 0.5}, {"regression": True}, {"standardize": False}])
def test_settings_that_mean_nothing_for_npz(tmp_path, change):
    np.savez(tmp_path / "a.npz", x=X)
    with pytest.raises(SettingError, match=r"null: only for \.csv files"):
        Arrays(file=str(tmp_path / "a.npz"), **change)
