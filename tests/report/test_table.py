"""Which columns are shown, which cells are marked, and that files and terminal say the same numbers."""

import csv
import io
import math
import statistics
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from pyroformer.report import best, cells, columns, rich_table, write_csv, write_long_csv
from pyroformer.report.columns import NEAR, details, remark, texts
from pyroformer.report.html import render
from pyroformer.results import Comparison, Result


def marked(comparison):
    (column,) = columns(comparison)
    return best(column, cells(comparison, column))


def printed(comparison, width, terminal=False):
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=terminal, color_system=None).print(rich_table(comparison))
    return file.getvalue()


def read(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def names(comparison):
    return [(column.group, column.metric) for column in columns(comparison)]


def test_columns_of_classification(classification):
    assert names(classification) == [
        ("test", "accuracy"),
        ("test", "nll"),
        ("test", "ece"),
        ("test", "brier"),
        ("noisy", "accuracy"),
        ("noisy", "nll"),
        ("noisy", "ece"),
        ("photographs", "auroc_entropy"),
        ("photographs", "auroc_mutual_information"),
        ("fit", "seconds"),
    ]


def test_the_second_table_has_the_shape_of_weights(classification, regression):
    *_, last = details(classification)
    assert (last.group, last.metric, last.label) == ("fit", "k_hat", "k-hat")
    found = cells(classification, last)
    assert list(found) == ["mean field, N(0, 1)"] and found["mean field, N(0, 1)"].mean == 13.5
    assert details(regression) == []
    assert best(last, found) == [] and "better" in last.direction and "lower" not in last.direction


def test_words_and_plug_in_intervals_have_columns(numbers):
    for metric, label in (("bits_per_word", "bits a word"), ("plug_in_coverage_90", "90 % cover, plug-in rows")):
        assert [column.label for column in details(numbers({"a": [0.93]}, metric=metric))] == [label]


def test_a_heavier_tail_is_no_worse_fit(numbers):
    values = {"a": [55.0, 60.0], "b": [80.0, 0.3], "c": [0.1, 0.2]}
    found = numbers(values, group="fit", metric="k_hat")
    for result in found.results:
        result.metrics["fit"]["k_hat_threshold"] = 0.5
    (tail,) = (column for column in details(found) if column.metric == "k_hat")
    assert best(tail, cells(found, tail)) == []
    assert best(replace(tail, ideal=-math.inf), cells(found, tail))[0] == "c"  # planted: lower is better
    said = {method: remark(found, tail, method) for method in values}
    assert said == {
        "a": "not usable, threshold 0.50",
        "b": "usable in 1 of 2 seeds, threshold 0.50",
        "c": "usable, threshold 0.50",
    }
    page = render(found)
    assert "not usable, threshold 0.50" in page and 'class="best"' not in page.partition('id="details"')[2]


def test_columns_of_regression(regression):
    sets = [(group, metric) for group in ("test", "gap") for metric in ("rmse", "nll", "coverage_90")]
    assert names(regression) == [*sets, ("fit", "seconds")]


SPREAD = (-0.2, 0.0, 0.2)  # three seeds with a standard error of 0.2 / sqrt(3) = 0.1155
EDGE = NEAR * math.hypot(0.2 / math.sqrt(3), 0.2 / math.sqrt(3))  # 0.3266


def seeds(mean):
    return [mean + step for step in SPREAD]


def test_cells_are_mean_and_standard_error_over_seeds(numbers):
    comparison = numbers({"a": [1.0, 2.0, 4.0]})
    cell = cells(comparison, columns(comparison)[0])["a"]
    values = [1.0, 2.0, 4.0]
    assert cell.mean == pytest.approx(statistics.mean(values), rel=1e-14)
    assert cell.standard_error == pytest.approx(statistics.stdev(values) / math.sqrt(3), rel=1e-14)
    assert cell.standard_error != pytest.approx(statistics.stdev(values), rel=0.1)  # planted: the sd of one seed
    assert (cell.count, cell.missing) == (3, 0)


def test_marks_the_best_and_what_is_within_two_combined_standard_errors(numbers):
    near, far = EDGE - 0.01, EDGE + 0.01
    comparison = numbers({"far": seeds(1 + far), "best": seeds(1.0), "near": seeds(1 + near)})
    assert marked(comparison) == ["best", "near"]
    # planted: with the error of one of them only `near` would be lost, with standard deviations `far` would be near
    assert NEAR * 0.2 / math.sqrt(3) < near
    assert far < NEAR * math.hypot(0.2, 0.2)


def test_the_direction_is_the_metric_s(numbers):
    values = {"low": seeds(0.1), "high": seeds(0.9)}
    assert marked(numbers(values, metric="nll")) == ["low"]
    assert marked(numbers(values, metric="accuracy")) == ["high"]
    assert marked(numbers(values, group="elsewhere", metric="auroc_entropy")) == ["high"]


def test_coverage_is_best_near_its_level(numbers):
    values = {"all": [1.0, 1.0], "short": [0.78, 0.78], "close": [0.92, 0.92]}
    assert marked(numbers(values, metric="coverage_90")) == ["close"]
    assert marked(numbers(values, metric="accuracy")) == ["all"]  # planted: coverage as if more were better


def test_one_seed_marks_the_best_only(numbers):
    assert marked(numbers({"a": [1.0], "b": [1.0001]})) == ["a"]
    assert marked(numbers({"a": [1.0], "b": [1.0]})) == ["a", "b"]
    assert marked(numbers({"a": [1.0], "b": seeds(1.001)})) == ["a"]  # no error for a: nothing is called near


def test_a_method_with_a_seed_without_a_number_is_never_best(numbers):
    comparison = numbers({"broken": [0.1, math.nan], "whole": [0.5, 0.6], "none": [None, math.inf]})
    (column,) = columns(comparison)
    found = cells(comparison, column)
    assert best(column, found) == ["whole"]
    assert (found["broken"].mean, found["broken"].count, found["broken"].missing) == (0.1, 1, 1)
    assert "none" not in found
    text = printed(comparison, 80)
    assert "0.100†" in text and "some seeds gave no finite number" in text


def test_seconds_of_an_ensemble_are_its_members_together(numbers):
    members = {"members": [{"seconds": 2.0}, {"seconds": 3.5}]}
    comparison = Comparison("", "", [Result("ensemble", 0, {}, {"fit": members}, [], {})])
    (column,) = columns(comparison)
    assert cells(comparison, column)["ensemble"].mean == 5.5


@pytest.mark.parametrize(
    ("metric", "values", "expected"),
    [
        ("accuracy", [0.9731, 0.9702], ("97.2", "0.1")),
        ("accuracy", [0.98611, 0.98643], ("98.63", "0.02")),
        ("nll", [0.0911, 0.0991], ("0.095", "0.004")),
        ("nll", [24.07, 30.6], ("27.3", "3.3")),
        ("nll", [73024.8, 73024.8], ("73025", "0")),
        ("nll", [3e9, 3e9], ("3e+09", "0")),
        ("rmse", [0.00123, 0.00125], ("0.00124", "0.00001")),
        ("nll", [0.0, 0.0], ("0", "0")),
    ],
)
def test_digits_follow_the_size_of_a_column(numbers, metric, values, expected):
    comparison = numbers({"a": values}, metric=metric)
    (column,) = columns(comparison)
    assert texts(column, cells(comparison, column))["a"] == expected


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("which", ["classification", "regression"])
def test_the_terminal_shows_every_number_whole(which, width, request):
    comparison = request.getfixturevalue(which)
    text = printed(comparison, width)
    assert "…" not in text
    assert max(cell_len(line) for line in text.splitlines()) <= width
    dense = text.replace(" ± ", "±")
    for column in columns(comparison):
        assert column.label in text
        for mean, error in texts(column, cells(comparison, column)).values():
            assert f"{mean}±{error}" in dense


def test_bold_in_a_terminal_is_a_star_in_a_file(numbers):
    comparison = numbers({"a": [0.5], "b": [0.75]})
    assert "0.500*" in printed(comparison, 80)
    assert "0.750*" not in printed(comparison, 80)
    file = io.StringIO()
    Console(file=file, width=80, force_terminal=True, color_system="standard").print(rich_table(comparison))
    assert "\x1b[1m0.500\x1b[0m" in file.getvalue()
    assert "\x1b[1m0.750" not in file.getvalue() and "*" not in file.getvalue()


def test_names_are_no_markup_and_failures_have_reasons(numbers):
    comparison = numbers({"[red]a[/red]": [0.5]})
    comparison.failures.append(("[bold]b", 3, "the loss is nan"))
    text = printed(comparison, 80)
    assert "[red]a[/red]" in text
    assert "[bold]b, seed 3: the loss is nan" in text


def test_csv_reads_back_equal(classification, tmp_path):
    path = tmp_path / "new" / "table.csv"
    write_csv(classification, path)
    lines = {row["method"]: row for row in read(path)}
    assert list(lines) == [*classification.methods, "nuts"]
    for column in columns(classification):
        name = f"{column.group}.{column.metric}"
        for method, cell in cells(classification, column).items():
            assert float(lines[method][f"{name}.mean"]) == cell.mean
            assert float(lines[method][f"{name}.se"]) == cell.standard_error
            assert int(lines[method][f"{name}.n"]) == 3
        assert lines["nuts"][f"{name}.mean"] == "" and lines["nuts"][f"{name}.n"] == "0"
    assert [file.name for file in path.parent.iterdir()] == ["table.csv"]  # no temporary file is left


def test_long_csv_holds_every_number(classification, tmp_path):
    path = tmp_path / "values.csv"
    write_long_csv(classification, path)
    values = {(r["method"], int(r["seed"]), r["set"], r["metric"]): r["value"] for r in read(path)}
    for result in classification.results:
        for group in ("validation", "test", "noisy", "photographs"):
            for metric, value in result.metrics[group].items():
                assert float(values[result.method, result.seed, group, metric]) == value
    assert values["ML", 0, "fit", "best_epoch"] == "30"
    assert ("ML", 0, "fit", "kept") not in values


def test_csv_quotes_names_and_leaves_what_is_no_number_empty(numbers, tmp_path):
    comparison = numbers({'a, "b"\nc': [math.nan, 0.5]})
    for write, key in ((write_csv, "test.nll.mean"), (write_long_csv, "value")):
        write(comparison, tmp_path / "x.csv")
        with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert {row["method"] for row in rows} == {'a, "b"\nc'}
        assert [row[key] for row in rows][-1] == "0.5"
    assert rows[0]["value"] == ""
