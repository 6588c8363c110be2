"""A reference posterior in a comparison: what is measured against it, and which reference is refused."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from pyroformer import Spec, Task, compare, fit
from pyroformer.choices import SpecError
from pyroformer.inference import DrawsPosterior, metrics
from pyroformer.inference.files import read_tensors, write_tensors
from pyroformer.reference import Chosen, distances, halves, measured, with_floor
from pyroformer.report import reading
from pyroformer.results import Comparison, Result
from pyroformer.study import Study, folder_of

NET = {"transformer": {"width": 8, "heads": 2, "depth": 1}}
RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(60, 3)), np.arange(60) % 3
CLASSES = {"task": Task.from_arrays(X[:30], Y[:30], X[30:], Y[30:]), "model": NET}
DIGITS = {"task": {"digits": {"train": 60, "validation": 20}}, "model": NET}
TOY = {"task": {"toy_regression": {"train": 20, "test": 10}}, "model": NET}
SVI = {"svi": {"epochs": 2, "batch_size": 20, "validate_every": 2}}
METHODS = {
    "ML": {"driver": {"ml": {"epochs": 1}}},
    "mean field": {"driver": SVI},
    "wide": {"driver": SVI, "prior": {"normal": {"scale": 2.0}}, "guide": {"mean_field": {"init_scale": 0.3}}},
}


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def kept(out, method, seed):
    return read_tensors(folder_of(out, method, seed) / "predictions.safetensors")


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """Three methods with two seeds, measured against the second."""
    out = tmp_path_factory.mktemp("classes")
    study = Study("Three ways", METHODS, CLASSES, seeds=2, reference="mean field")
    return out, compare(study, out=out, jobs=1)


def test_each_seed_is_measured_against_the_same_seed(classes):
    out, found = classes
    for method in ("ML", "wide"):
        for seed in (0, 1):
            (result,) = (r for r in found.of(method) if r.seed == seed)
            p = kept(out, method, seed)["test.probabilities"]
            own, other = (kept(out, "mean field", s)["test.probabilities"] for s in (seed, 1 - seed))
            by_hand = (p.double() - own).abs().sum(-1).mean() / 2
            assert result.metrics["reference"]["total_variation"] == pytest.approx(float(by_hand), rel=1e-6)
            same = (p.argmax(-1) == own.argmax(-1)).double().mean()
            assert result.metrics["reference"]["agreement"] == float(same)
            planted = (p.double() - other).abs().sum(-1).mean() / 2  # the other seed
            assert result.metrics["reference"]["total_variation"] != pytest.approx(float(planted), rel=1e-3)
    assert all("reference" not in result.metrics for result in found.of("mean field"))


def test_the_floor_is_the_distance_of_its_seeds(classes):
    out, found = classes
    p, q = (kept(out, "mean field", seed)["test.probabilities"] for seed in (0, 1))
    assert found.reference.floor["total_variation"] == pytest.approx(float(metrics.total_variation(p, q)))
    assert found.reference.floor["agreement"] == pytest.approx(float(metrics.agreement(p, q)))
    assert found.reference.between == "two seeds of the reference"


def test_values_are_in_the_tables_and_on_the_page(classes):
    out, found = classes
    values = {(r["method"], r["seed"], r["set"], r["metric"]): r["value"] for r in rows(out / "values.csv")}
    for result in found.results:
        for metric, value in result.metrics.get("reference", {}).items():
            assert float(values[result.method, str(result.seed), "reference", metric]) == value
    table = {row["method"]: row for row in rows(out / "table.csv")}
    assert table["mean field"]["reference.agreement.n"] == "0"
    assert table["ML"]["reference.total_variation.n"] == "2"
    page = (out / "report.html").read_text("utf-8")
    assert "TV %" in page and '<span class="error">reference</span>' in page
    text = " ".join(reading(found))
    assert "Closest to the reference, “mean field”, by total variation: “" in text
    assert "combined standard errors" in text and "By total variation two seeds of the reference are " in text
    assert "The prior of “wide” is not that of the reference" in text
    written = json.loads((folder_of(out, "ML", 0) / "metrics.json").read_text("utf-8"))
    assert "reference" not in written  # a run is no other for what it is compared with


@pytest.mark.usefixtures("undrawn")
def test_a_run_of_its_own_as_the_reference(pyroformer, write, tmp_path):
    alone = fit(Spec(**TOY, driver=SVI, seed=7), out=tmp_path / "run")
    study = write({"base": TOY, "methods": {"a": METHODS["ML"], "b": METHODS["mean field"]}, "seeds": 2}, "study.yaml")
    arguments = ("--jobs", "1", "--quiet", "--reference", tmp_path / "run")
    ended = pyroformer("compare", study, "--out", tmp_path / "out", *arguments)
    assert (ended.code, ended.err) == (0, "")
    assert "W2" in ended.out and max(map(len, ended.out.replace(str(tmp_path), "").splitlines())) <= 80
    (row,) = (
        r
        for r in rows(tmp_path / "out" / "values.csv")
        if r["set"] == "reference" and r["method"] == "a" and r["seed"] == "1"
    )
    found = kept(tmp_path / "out", "a", 1)
    mean, sd, m, s = (each[f"test.{key}"] for each in (found, alone.predictions) for key in ("mean", "sd"))
    by_hand = (((mean - m) ** 2 + (sd - s) ** 2).sqrt() / s).mean()
    assert float(row["value"]) == pytest.approx(float(by_hand), rel=1e-6)
    assert "By Wasserstein distance two sets of draws from the reference are " in (
        tmp_path / "out" / "report.html"
    ).read_text("utf-8")


def test_of_one_seed_the_floor_is_that_of_its_draws(classes, tmp_path):
    out, found = classes
    one = replace(found, results=[result for result in found.results if result.seed == 0], reference=None)
    for name in ("mean field", "wide", "ML"):
        chosen = Chosen(name)
        told = with_floor(measured(one, chosen), chosen, folder_of(out, name, 0)).reference
        assert told.between == ("" if name == "ML" else "two sets of draws from the reference")
        assert told.floor.keys() == (set() if name == "ML" else {"agreement", "total_variation"})  # a point is one draw
    assert 0 < told_floor(one, "mean field", out) < told_floor(one, "wide", out) < 1
    assert "apart: a distance of that size is noise" not in " ".join(reading(measured(one, Chosen("ML"))))
    assert "apart: a distance of that size is noise" in " ".join(reading(found))


def told_floor(comparison, name, out):
    chosen = Chosen(name)
    told = with_floor(measured(comparison, chosen), chosen, folder_of(out, name, 0)).reference
    return told.floor["total_variation"]


@pytest.mark.usefixtures("undrawn")
def test_without_a_reference_nothing_is_said_of_one(classes, tmp_path):
    assert compare(Study("t", {"ML": METHODS["ML"]}, CLASSES), out=tmp_path, jobs=1).reference is None
    assert "reference" not in (tmp_path / "table.csv").read_text("utf-8")


def test_draws_are_cut_in_the_middle(classes):
    model = Spec(**DIGITS).build_model(Spec(**DIGITS).task.load())
    draws = {
        name: torch.arange(5.0).reshape(5, *[1] * v.dim()).expand(5, *v.shape)
        for name, v in model.initial_values().items()
    }
    (first, seed), (second, other) = halves(DrawsPosterior(model, draws), 3)
    assert (seed, other) == (3, 3)
    firsts, seconds = (next(iter(half.draws.values())).flatten(1)[:, 0].tolist() for half in (first, second))
    assert (firsts, seconds) == ([0.0, 1.0], [2.0, 3.0, 4.0])
    assert halves(DrawsPosterior(model, {name: v[:1] for name, v in draws.items()}), 3) is None


def test_tokens_that_are_not_observed_do_not_count():
    p = torch.tensor([[[1.0, 0], [0, 1]], [[1, 0], [1, 0]]])
    labels = torch.tensor([[0, -100], [1, 0]])
    found = {"test.probabilities": p, "test.labels": labels}
    reference = {"test.probabilities": torch.tensor([1.0, 0]).expand(2, 2, 2), "test.labels": labels}
    assert distances(found, reference) == {"agreement": 1, "total_variation": 0}
    all_seen = {**found, "test.labels": labels.clamp(min=0)}  # planted
    assert distances(all_seen, reference) == {"agreement": 0.75, "total_variation": 0.25}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference") / "run"
    fit(Spec(**DIGITS, driver={"ml": {"epochs": 1}}), out=folder)
    return folder


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"digits": {"train": 50, "validation": 20}}, "test x: float32 [1717, 8, 8] there, float32 [1727, 8, 8] here"),
        ({"digits": {"train": 50, "validation": 30}}, "train x: float32 [60, 8, 8] there, float32 [50, 8, 8] here"),
        ({"digits": {"train": 60, "validation": 20, "split": 1}}, "test x: "),
        ({"toy_regression": {"train": 20, "test": 10}}, "test x: float32 [1717, 8, 8] there, float32 [10, 1] here"),
    ],
)
def test_a_run_on_other_examples_is_refused_before_anything_runs(pyroformer, write, run, tmp_path, task, said):
    study = write({"base": {"task": task, "model": NET}, "methods": {"a": METHODS["ML"]}})
    message = pyroformer("compare", study, "--out", tmp_path / "out", "--reference", run).message
    assert message.startswith(f"reference: got {run}; accepted: a run on the examples of 'a' ({said}"), message
    assert not (tmp_path / "out").exists()


def test_a_method_on_other_examples_is_refused(pyroformer, write, tmp_path):
    methods = {"a": METHODS["ML"], "b": {**METHODS["ML"], "task": {"digits": {"train": 50, "validation": 30}}}}
    study = write({"base": DIGITS, "methods": methods, "reference": "b"})
    message = pyroformer("compare", study, "--out", tmp_path / "out").message
    assert message.startswith("reference: got b; accepted: a method on the examples of 'a' (train x: ")


def test_what_is_no_reference(pyroformer, write, run, tmp_path):
    study = write({"base": DIGITS, "methods": METHODS})

    def said(reference):
        return pyroformer("compare", study, "--out", tmp_path / "out", "--reference", reference).message

    nowhere = "a method among ML, mean field, wide, or a finished run's folder"
    assert said("mean") == f"reference: got mean; accepted: {nowhere}; did you mean mean field?"
    (tmp_path / "empty").mkdir()
    unfinished = "the folder of a finished run; this one holds no spec.yaml"
    assert said(tmp_path / "empty") == f"reference: got {tmp_path / 'empty'}; accepted: {unfinished}"
    changed = read_tensors(run / "predictions.safetensors")
    other = {**changed, "test.labels": changed["test.labels"].roll(1)}
    try:
        write_tensors(run / "predictions.safetensors", other)
        assert said(run).endswith("a run whose data are as they were; the test observations have changed")
    finally:
        write_tensors(run / "predictions.safetensors", changed)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("posterior/posterior.json", None, "accepted: the folder of a finished run; this one was stopped before"),
        ("posterior/posterior.json", "{", "posterior: got "),
        ("posterior/weights.safetensors", None, "posterior: got No such file"),
        ("posterior/weights.safetensors", "broken", "posterior: got "),
        ("predictions.safetensors", "broken", "predictions.safetensors: got not a safetensors file"),
        ("metrics.json", "{", "metrics.json: got not JSON"),
        ("spec.yaml", "seed: 0\n", "spec.yaml: got no task; accepted: "),
    ],
)
def test_a_damaged_reference_is_refused_before_anything_runs(pyroformer, write, run, tmp_path, file, content, said):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / file).unlink() if content is None else (folder / file).write_text(content)
    study = write({"base": DIGITS, "methods": {"a": METHODS["ML"]}})
    message = pyroformer("compare", study, "--out", tmp_path / "out", "--reference", folder).message
    assert said in message and str(folder) in message, message
    assert not (tmp_path / "out").exists()


def test_a_floor_that_cannot_be_made_costs_a_sentence(classes, monkeypatch, tmp_path):
    out, found = classes
    one = replace(found, results=[result for result in found.results if result.seed == 0], reference=None)
    chosen = Chosen("mean field")

    def broken(folder):
        raise ValueError("weights of another net")

    monkeypatch.setattr("pyroformer.reference.load", broken)
    told = with_floor(measured(one, chosen), chosen, folder_of(out, "mean field", 0))
    assert told.reference.floor == {} and len(told.results) == len(one.results)
    said = "How far two references are from each other is not known (ValueError: weights of another net)."
    assert said in reading(told)
    assert said not in reading(measured(one, chosen))  # planted: nothing went wrong


def test_other_likelihoods_and_temperatures_are_named():
    def result(method, **changes):
        task = {"toy_regression": {"likelihood": {"gaussian": {"scale": changes.pop("scale", 0.1)}}}}
        driver = {"svi": {"temperature": 1.0, "kl_weight": 1.0} | changes}
        spec = {"task": task, "model": "m", "prior": "p", "driver": driver}
        if method == "ensemble":
            spec["driver"] = {"deep_ensemble": {"size": 2, "member": driver}}
        return Result(method, 0, spec, {"test": {"nll": 0.5}}, [], {"test.mean": ONE, "test.sd": ONE})

    ONE = torch.ones(3, 1)
    nuts = {"driver": {"nuts": {"temperature": 1.0}}}  # has no weight of the KL, which is then 1
    exact = result("exact")
    exact = replace(exact, spec=exact.spec | nuts)
    others = [
        result("same"),
        result("wide", scale=0.2),
        result("cold", temperature=0.1),
        result("ensemble", temperature=0.1, kl_weight=0.5),
    ]
    told = measured(Comparison("t", "", [exact, *others]), Chosen("exact"))
    assert told.reference.other == {
        "wide": "likelihood",
        "cold": "temperature",
        "ensemble": "temperature and KL weight",
    }
    text = " ".join(reading(told))
    assert "The likelihood of “wide” is not that of the reference" in text
    assert "The temperature and KL weight of “ensemble” are not those of the reference" in text


def test_arrays_are_compared_by_their_numbers(tmp_path):
    task, other = Task.from_arrays(X, Y, X, Y), Task.from_arrays(X, Y, X + 1e-3, Y)
    parts = {"model": NET, "driver": {"ml": {"epochs": 1}}}
    fit(Spec(task=task, **parts), out=tmp_path / "run")
    study = {"ML": parts}
    found = compare(Study("t", study, {"task": task}), out=tmp_path / "out", jobs=1, reference=tmp_path / "run")
    assert found.results[0].metrics["reference"] == {"agreement": 1, "total_variation": 0}  # the same spec and seed
    with pytest.raises(SpecError, match="test x: 60 of 60 differ, first example 0"):
        compare(Study("t", study, {"task": other}), out=tmp_path / "more", jobs=1, reference=tmp_path / "run")
