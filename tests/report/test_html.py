"""The page is whole, self-contained and safe, whatever the comparison holds."""

import io
import math
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from rich.console import Console

from pyroformer.report import cells, columns, rich_table, write_csv, write_html, write_long_csv
from pyroformer.report.columns import details, texts
from pyroformer.report.figures import bound_panels, own_history, validation_figure
from pyroformer.report.fits import how_it_went, learned
from pyroformer.report.html import render
from pyroformer.report.plots import method_styles
from pyroformer.results import Comparison, Reference, Result

VOID = {"meta", "link", "br", "img", "path", "use", "line", "rect"}
NASTY = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Checks that every element is closed, and keeps texts, tags and attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts, self.inside = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def ids(self):
        return [value for _, name, value in self.attributes if name == "id"]


def self_contained(text):
    """Whether nothing is fetched from elsewhere."""
    page = Page(text)
    linked = [value for _, name, value in page.attributes if name in ("src", "href", "xlink:href", "data", "action")]
    return (
        all(value.startswith("#") for value in linked)
        and all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)]*)", text))
        and not re.search(r"https?://|@import|<link|<img|<iframe", text)
    )


@pytest.fixture(scope="module")
def page(classification):
    return render(classification, {"pyroformer": "0.1.0", "started": "2031-05-06T07:08:09Z"})


def test_the_page_is_whole_and_needs_nothing_else(page):
    assert self_contained(page)
    assert not self_contained(page.replace("<h1>", '<img src="https://example.org/x.png"><h1>'))  # planted
    parsed = Page(page)
    assert parsed.tags.count("script") == 1 and parsed.tags.count("style") == 1
    assert len(parsed.ids()) == len(set(parsed.ids()))
    references = set(re.findall(r"url\(#([^)]*)\)", page)) | set(re.findall(r'href="#([^"]*)"', page))
    assert references <= set(parsed.ids())


def test_everything_of_the_comparison_is_on_it(page, classification):
    text = Page(page).text
    for expected in ("A small transformer on digits.", "pyroformer 0.1.0", "2031-05-06T07:08:09Z", "1 of 16 runs"):
        assert expected in text
    for heading in (
        *("In words", "In numbers", "More metrics", "Calibration", "Under growing shift", "Answering only when sure"),
        *("Near and far", "Training", "Prior and posterior", "Learned quantities", "Not finished", "Specs"),
    ):
        assert heading in text
    assert "draw 12: the potential energy is NaN" in text
    assert "dirichlet_rows: kl_weight: 0" in text and "seed: " not in text
    for column in (*columns(classification), *details(classification)):
        for mean, error in texts(column, cells(classification, column)).values():
            assert f"{mean} ± {error}" in text
    names = re.findall(r'role="img" aria-label="(\w+)', page)
    assert Counter(names) == {
        "reliability": 5 * 2,  # a method and a labelled set
        "accuracy": 1,  # by severity, with the two below
        "NLL": 1,
        "ECE": 1,
        "risk": 2,  # a labelled set
        "entropies": 5,  # a method
        "training": 5,
        "validation": 1,
        "first": 3,  # the weights of the methods with a prior, which ML and ensembles of it are not
        "head": 3,
    }


def test_the_page_marks_the_best(numbers):
    text = render(numbers({"a": [0.5, 0.5], "b": [0.75, 0.75]}))
    marked = re.findall(r'<td class="best"[^>]*><b>([^<]*)</b>', text)
    assert marked == ["0.500"]
    assert re.findall(r'data-order="([^"]*)"', text) == ["0.5", "0.75"]


def test_names_and_reasons_are_escaped(class_result):
    result = replace(class_result("ML", 0), method=NASTY)
    result.metrics["fit"]["guide"] = {NASTY: {NASTY: [1.0, 2.0]}}
    named = {key.replace("noisy", NASTY): value for key, value in result.predictions.items()}
    nasty = replace(
        result, predictions=named, metrics={**result.metrics, NASTY: result.metrics["noisy"]}, spec={NASTY: NASTY}
    )
    text = render(Comparison(NASTY, NASTY, [nasty], [(NASTY, 0, NASTY)]), {NASTY: NASTY})
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)" in text
    assert Page(text).tags.count("script") == 0
    assert "&amp;lt;" not in text  # escaped once


def test_the_same_comparison_gives_the_same_page(class_result, tmp_path):
    comparison = Comparison("twice", "", [class_result("ML", 0, size=40)])
    write_html(comparison, tmp_path / "a" / "report.html", {"started": "2031-05-06T07:08:09Z"})
    page = render(comparison, {"started": "2031-05-06T07:08:09Z"})
    assert (tmp_path / "a" / "report.html").read_text(encoding="utf-8") == page
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["report.html"]


def test_figures_take_their_colours_from_the_page(page):
    assert "fill: var(--ink)" in page and "stroke: var(--line)" in page
    assert "#24292f" not in page.split("</style>")[1]


def test_regressions_have_bands(regression):
    text = render(regression)
    assert self_contained(text)
    assert "Bands" in Page(text).text and "Calibration" not in Page(text).text
    assert text.count('aria-label="band of') == 3
    assert "90 % cover" in Page(text).text and "Accuracy" not in Page(text).text


def test_learned_quantities_are_means_over_seeds(classification):
    found = {one.family: one for one in learned(classification)}
    rows = found["dirichlet_rows"]
    assert rows.headings == ["head 0", "head 1", "head 2", "head 3"] and rows.runs == 3
    name, entries = rows.rows[0]
    assert name == "sharpness.blocks.0.attention.rows"
    assert entries == ["29.1 (28.1 to 30.1)", "30.4", "45", "12.9"]
    assert found["mean_field"].headings == []
    assert found["mean_field"].rows[0] == ("scale.median", ["0.051 (0.05 to 0.052)"])


def test_how_the_fits_went_folds_members_and_seeds(classification):
    headings, rows = how_it_went(classification)
    assert headings[:6] == ["kept", "best epoch", "best validation nll", "seconds", "temperature", "kl weight"]
    assert headings[6:] == ["k hat", "k hat threshold"]
    assert dict(rows)["ensemble of 5"] == ["best", "30, 31, 32", "0.3", "20, 21, 22", *[""] * 4]
    many = Comparison("", "", [Result("a", seed, {}, {"fit": {"acceptance": seed / 10}}, [], {}) for seed in range(6)])
    assert how_it_went(many)[1] == [("a", ["0 to 0.5, median 0.25"])]


def test_a_method_is_shown_without_what_it_started_from(class_result):
    """The log joint of chains, not the training of the nets where they start; a post-hoc method has nothing else."""
    told = {"log_likelihood": -2.0, "beta": 0.0, "validation_nll": 1.0}
    start = [{"part": "start", "chain": 0, "epoch": i, **told} for i in (1, 2)]
    drawn = [{"draw": i, "stage": "sample", "log_joint": -1.0} for i in (1, 2)]
    chains = replace(class_result("ML", 0, size=40), history=start + drawn)
    assert own_history(chains) == drawn
    assert own_history(replace(chains, history=start)) == start
    (panel,) = bound_panels(Comparison("", "", [chains]), method_styles(["ML"]))
    assert "log joint" in panel.svg and "log-likelihood" not in panel.svg
    trained = replace(chains, method="trained", history=start)
    both = Comparison("", "", [chains, trained])
    assert validation_figure(both, method_styles(["ML", "trained"]))[0] == ["trained"]


def odd_comparisons(class_result, real_result):
    whole = class_result("ML", 0, size=40)
    broken = replace(
        whole,
        method="broken",
        metrics={"test": {"accuracy": math.nan, "nll": None, "ece": math.inf}, "fit": {"seconds": math.nan}},
        history=[{"epoch": 1, "elbo": math.nan, "validation_nll": None}],
        predictions={key: t * torch.nan if t.is_floating_point() else t for key, t in whole.predictions.items()},
    )
    bare = Result("bare", 0, {}, {}, [], {})
    draws = [
        {"draw": i, "stage": "sample", "log_joint": -1.0 * i, "step_size": 0.1, "acceptance": 0.8} for i in range(9)
    ]
    sampled = replace(
        whole, method="nuts", history=draws, metrics={**whole.metrics, "fit": {"log_likelihood": {"r_hat": 1.0}}}
    )
    return {
        "nothing": [],
        "one method, one seed": [whole],
        "one seed": [whole, class_result("MAP, N(0, 1)", 0, size=40)],
        "NaN": [whole, broken],
        "only NaN": [broken],
        "bare": [bare],
        "sampled": [whole, sampled],
        "per token": [class_result(method, 0, size=20, tokens=5) for method in ("ML", "ensemble of 5")],
        "regression": [real_result("a", 0, 0.5)],
        "both kinds": [whole, real_result("a", 0, 0.5)],
        "unequal seeds": [whole, class_result("ensemble of 5", 0, size=40), class_result("ensemble of 5", 1, size=40)],
    }


KINDS = (
    "nothing",
    "one method, one seed",
    "one seed",
    "NaN",
    "only NaN",
    "bare",
    "sampled",
    "per token",
    "regression",
    "both kinds",
    "unequal seeds",
)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_odd_breaks_a_report(kind, class_result, real_result, tmp_path):
    comparison = Comparison(
        kind, "", odd_comparisons(class_result, real_result)[kind], [("failed", 0, "the loss is nan")]
    )
    page = render(comparison)
    assert self_contained(page) and "the loss is nan" in Page(page).text
    write_csv(comparison, tmp_path / "table.csv")
    write_long_csv(comparison, tmp_path / "values.csv")
    for name in ("table.csv", "values.csv"):
        assert not re.search(r"\bnan\b|\binf\b", (tmp_path / name).read_text(encoding="utf-8"))
    for width in (20, 80):
        file = io.StringIO()
        Console(file=file, width=width).print(rich_table(comparison))
        assert "failed" in file.getvalue() and "…" not in file.getvalue()


def test_the_reference_has_a_table_of_its_own(numbers):
    found = numbers({"a": [0.25, 0.25], "b": [0.75, 0.75]}, group="reference", metric="total_variation")
    exact = Result("exact", 0, {}, {"test": {"nll": 0.5}}, [], {})
    found = replace(found, results=[*found.results, exact], reference=Reference("exact", True))
    page = render(found)
    text = Page(page).text
    assert "Against the reference" in text and "those of “exact”, seed by seed." in text
    assert "Total variation: half the summed distance" in text
    assert page.count('<span class="error">reference</span>') == 1
    assert "Against the reference" not in Page(render(numbers({"a": [0.25]}))).text  # planted: without one
