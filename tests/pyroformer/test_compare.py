"""Comparisons: a study's cells, its tables and its report."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

from pyroformer import compare, yamlfile
from pyroformer.choices import SpecError
from pyroformer.run_folder import check_study_folder
from pyroformer.study import Study, builtin, folder_of, read_study

STUDY = {
    "title": "Two ways",
    "seeds": 2,
    "base": {
        "task": {"toy_regression": {"train": 20, "test": 10}},
        "model": {"transformer": {"width": 8, "heads": 2, "depth": 1}},
    },
    "methods": {
        "ML": {"driver": {"ml": {"epochs": 2}}},
        "mean field, N(0, 1)": {"driver": {"svi": {"epochs": 2}}},
    },
}


def changed(**parts):
    return {**STUDY, **parts}


def numbers(folder):
    """The metrics of every finished cell, without the time it took."""
    found = {}
    for path in sorted(folder.glob("runs/*/*/metrics.json")):
        content = json.loads(path.read_text("utf-8"))
        content["fit"].pop("seconds", None)
        found[str(path.relative_to(folder))] = content
    return found


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The folder of a finished comparison, one cell after the other; no test may change it."""
    folder = tmp_path_factory.mktemp("kept") / "one"
    compare(Study(**STUDY), out=folder, jobs=1)
    return folder


@pytest.fixture
def finished(kept, tmp_path):
    """A copy of that folder."""
    return Path(shutil.copytree(kept, tmp_path / "one"))


def test_cells_tables_and_report(pyroformer, write, tmp_path):
    folder = tmp_path / "one"
    ended = pyroformer("compare", write(STUDY), "--out", folder, "--jobs", "1", "--quiet")
    assert (ended.code, ended.err) == (0, "")
    assert {path.name for path in folder.iterdir()} == {".lock", "runs", "table.csv", "values.csv", "report.html"}
    assert len(numbers(folder)) == 4
    assert ended.out.endswith(f"report: {folder / 'report.html'}\n")
    for method in STUDY["methods"]:
        assert method in ended.out
    with (folder / "values.csv").open(encoding="utf-8", newline="") as file:
        values = list(csv.DictReader(file))
    assert {row["method"] for row in values} == set(STUDY["methods"])
    assert {row["seed"] for row in values} == {"0", "1"}
    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        assert {row["method"] for row in csv.DictReader(file)} == set(STUDY["methods"])
    page = (folder / "report.html").read_text("utf-8")
    assert "Two ways" in page and "mean field, N(0, 1)" in page
    assert max(map(len, ended.out.replace(str(folder), "").splitlines())) <= 80


def test_the_values_are_those_of_the_cells(kept):
    with (kept / "values.csv").open(encoding="utf-8", newline="") as file:
        values = {tuple(row.values())[:-1]: row for row in csv.DictReader(file)}
    for method in STUDY["methods"]:
        for seed in (0, 1):
            measured = json.loads((folder_of(kept, method, seed) / "metrics.json").read_text("utf-8"))
            (row,) = (row for key, row in values.items() if key == (method, str(seed), "test", "nll"))
            assert float(row["value"]) == pytest.approx(measured["test"]["nll"], rel=1e-6)


def test_a_cell_is_the_run_of_its_spec(kept, pyroformer, write, tmp_path):
    spec = write({**STUDY["base"], **STUDY["methods"]["ML"], "seed": 1}, "cell.yaml")
    assert pyroformer("run", spec, "--out", tmp_path / "cell", "--quiet").code == 0
    cell = folder_of(kept, "ML", 1)
    assert (cell / "spec.yaml").read_text("utf-8") == (tmp_path / "cell" / "spec.yaml").read_text("utf-8")
    alone = json.loads((tmp_path / "cell" / "metrics.json").read_text("utf-8"))
    assert alone["test"] == json.loads((cell / "metrics.json").read_text("utf-8"))["test"]


def test_run_of_a_study_compares(finished, pyroformer, write):
    (finished / "table.csv").unlink()
    ended = pyroformer("run", write(STUDY), "--out", finished, "--quiet")
    assert ended.code == 0 and ended.out.endswith(f"report: {finished / 'report.html'}\n")
    assert (finished / "table.csv").is_file()
    message = pyroformer("run", write(STUDY), "--out", finished, "--threads", "2").message
    assert message == "--threads: got 2; accepted: nothing: a study's runs have one thread each"


@pytest.mark.usefixtures("undrawn")
def test_several_processes_give_the_same_numbers(kept, tmp_path):
    study = Study("Two ways", STUDY["methods"], STUDY["base"], seeds=2)
    found = compare(study, out=tmp_path / "two", jobs=2)
    assert not found.failures
    assert numbers(tmp_path / "two") == numbers(kept)
    assert [(r.method, r.seed) for r in found.results] == list(study.cells())


@pytest.mark.usefixtures("undrawn")
def test_finished_cells_are_not_run_again(finished, pyroformer, write):
    folder = finished
    missing = folder_of(folder, "ML", 1) / "metrics.json"
    missing.unlink()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/*/metrics.json")}
    spec = write(changed(title="A new title"))
    ended = pyroformer("compare", spec, "--out", folder, "--jobs", "1", "--quiet", "--seeds", "2")
    assert ended.code == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert missing.is_file()
    assert "A new title" in (folder / "report.html").read_text("utf-8")
    more = pyroformer("compare", spec, "--out", folder, "--jobs", "1", "--quiet", "--seeds", "3")
    assert more.code == 0
    assert len(numbers(folder)) == 6
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_cell_that_fails_is_reported_while_the_others_finish(pyroformer, write, tmp_path):
    huge = {"driver": {"ml": {"epochs": 2, "batch_size": 5, "learning_rate": 1e30, "validate_every": 2}}}
    spec, folder = write(changed(seeds=1, methods={"huge steps": huge, **STUDY["methods"]})), tmp_path / "out"
    ended = pyroformer("compare", spec, "--out", folder, "--jobs", "1", "--quiet")
    assert ended.code == 1
    assert "Traceback" not in ended.err
    assert "huge steps" in ended.out and "epoch 1" in ended.out
    assert not (folder_of(folder, "huge steps", 0) / "metrics.json").exists()
    assert len(numbers(folder)) == 2
    page = (folder / "report.html").read_text("utf-8")
    assert "huge steps" in page and "mean field, N(0, 1)" in page


@pytest.mark.usefixtures("undrawn")
def test_a_surprise_in_one_cell_does_not_cost_the_others_their_results(tmp_path):
    class Moody(torch.nn.Linear):
        def forward(self, x):
            if self.training and len(x) == 7:
                raise MemoryError("no room")
            return super().forward(x)

    methods = {"moody": {"driver": {"ml": {"epochs": 1, "batch_size": 7}}}, **STUDY["methods"]}
    found = compare(Study("Moods", methods, {**STUDY["base"], "model": Moody(1, 1)}), out=tmp_path, jobs=1)
    assert found.methods == list(STUDY["methods"])
    ((method, seed, why),) = found.failures
    assert (method, seed) == ("moody", 0)
    assert why == f"MemoryError: no room ({folder_of(tmp_path, 'moody', 0) / 'traceback.txt'})"
    assert "no room" in (folder_of(tmp_path, "moody", 0) / "traceback.txt").read_text("utf-8")


@pytest.mark.parametrize(
    ("methods", "path"),
    [
        ({"wrong": {"driver": {"svi": {"epoch": 2}}}}, "methods.wrong.driver.svi.epoch: got 2"),
        ({"wrong": {"drivr": "ml"}}, "methods.wrong.drivr: got ml"),
        ({"wrong": {"prior": {"nothing.*": "normal", "*": "normal"}}}, "methods.wrong.prior: got nothing.*"),
        (
            {"wrong": {"model": {"transformer": {"heads": 3, "width": 8}}}},
            "methods.wrong.model.transformer.heads: got 3",
        ),
        ({"wrong": {"driver": "map", "guide": "delta"}}, "methods.wrong.guide: got delta"),
        ({"wrong": "ml"}, "methods.wrong: got ml"),
        ({"wrong": {"seed": 3}}, "methods.wrong.seed: got 3"),
        ({"a b": {"driver": "ml"}, "a?b": {"driver": "ml"}}, "methods.a?b: got a?b"),
    ],
)
def test_a_mistake_in_one_method_is_refused_before_anything_runs(pyroformer, write, tmp_path, methods, path):
    spec = write(changed(methods={**STUDY["methods"], **methods}))
    message = pyroformer("compare", spec, "--out", tmp_path / "out").message
    assert message.startswith(f"{path}; accepted: "), message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (
            {"titel": "x"},
            "titel: got x; accepted: the keys title, description, seeds, base, methods, reference, baselines; "
            "did you mean title",
        ),
        ({"reference": "MLL"}, "reference: got MLL; accepted: a method among ML, mean field, N(0, 1), or "),
        ({"baselines": ["MLL"]}, "baselines: got MLL; accepted: methods among ML, mean field, N(0, 1); did you"),
        ({"baselines": "ML"}, "baselines: got ML; accepted: a list of methods among ML, mean field, N(0, 1)"),
        ({"reference": 3}, "reference: got 3; accepted: a method among "),
        ({"seeds": 0}, "seeds: got 0; accepted: a whole number of at least 1"),
        ({"seeds": "two"}, "seeds: got two"),
        ({"methods": {}}, "methods: got {}"),
        ({"methods": ["ml"]}, "methods: got ['ml']"),
        ({"base": "digits"}, "base: got digits"),
        ({"base": {"task": "digit"}}, "base.task: got digit"),
        ({"base": {"task": "digits", "seed": 4}}, "base.seed: got 4"),
    ],
)
def test_a_mistake_in_a_study(pyroformer, write, tmp_path, parts, said):
    message = pyroformer("compare", write(changed(**parts)), "--out", tmp_path / "out").message
    assert message.startswith(said), message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["compare", "run"])
def test_a_study_that_does_not_exist(pyroformer, tmp_path, command):
    message = pyroformer(command, "digit", "--out", tmp_path / "out").message
    assert message.startswith("STUDY: got digit; accepted: the path of a YAML file, or one of ")
    assert "did you mean digits" in message


def test_a_folder_with_other_cells_is_refused_before_anything_runs(finished, pyroformer, write):
    folder = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    change = ("--set", "task.toy_regression.train=30")
    message = pyroformer("compare", write(STUDY), "--out", folder, *change).message
    assert message.startswith(f"--out: got {folder_of(folder, 'ML', 0)}; accepted: a new folder")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_assignments_reach_the_base_and_the_methods_that_differ_in_the_same_key(write):
    changes = ("model.transformer.width=4", "driver.svi.epochs=7", "driver.svi.particles=2")
    study = read_study(str(write(STUDY)), None, changes)
    assert study.spec("ML", 0).to_dict()["model"]["transformer"]["width"] == 4
    for method in STUDY["methods"]:
        driver = study.spec(method, 0).to_dict()["driver"]["svi"]
        assert (driver["epochs"], driver["particles"]) == (7, 2)


@pytest.mark.parametrize("assignment", ["seed=3", "seeds=3", "methods.ML.driver=svi", "=3", "title=x"])
def test_assignments_that_a_study_cannot_take(pyroformer, write, tmp_path, assignment):
    message = pyroformer("compare", write(STUDY), "--out", tmp_path / "out", "--set", assignment).message
    assert message.startswith("--set: got ")
    assert not (tmp_path / "out").exists()


ODD = ["N(0, 1) [/b]", "50 % <b>", "größe", "../up", "a/b", "."]


def test_methods_may_have_odd_names(pyroformer, write, tmp_path):
    methods = {name: STUDY["methods"]["ML"] for name in ODD}
    folder = tmp_path / "inner" / "out"
    ended = pyroformer("compare", write(changed(seeds=1, methods=methods)), "--out", folder, "--jobs", "1")
    assert ended.code == 0, ended
    assert all(name in ended.out for name in ODD)
    assert len(numbers(folder)) == len(ODD)
    assert [path.name for path in (tmp_path / "inner").iterdir()] == ["out"]
    assert all(len(folder_of(folder, name, 0).relative_to(folder).parts) == 3 for name in ODD)
    page = (folder / "report.html").read_text("utf-8")
    assert "50 % &lt;b&gt;" in page and "50 % <b>" not in page


@pytest.mark.parametrize("name", builtin())
def test_studies_of_the_package_are_acceptable(name):
    study = read_study(name)
    for method in study.methods:
        spec = study.spec(method, 0)
        assert yamlfile.parse(spec.to_yaml()) == spec.to_dict()
    data = spec.task.load()
    for method in study.methods:
        spec = study.spec(method, 0)
        spec.build_guide(spec.build_model(data), data)


def test_from_python_too_a_mistake_is_a_spec_error(tmp_path):
    with pytest.raises(SpecError, match="one of attention-rows"):
        compare("nothing-like-it", out=tmp_path / "out")


def test_files_of_ones_own_are_not_replaced(pyroformer, write, tmp_path):
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "report.html").write_text("mine")
    message = pyroformer("compare", write(STUDY), "--out", thesis, "--jobs", "1", "--quiet").message
    assert message.startswith(f"--out: got {thesis}; accepted: a new or empty folder, or one with a study; this holds")
    assert {path.name: path.read_text() for path in thesis.iterdir()} == {"report.html": "mine"}
    message = pyroformer("compare", write(STUDY), "--out", thesis / "report.html").message
    assert message.endswith("a folder; this is a file")


def test_a_study_is_known_by_its_marks(tmp_path):
    def holding(name, *files):
        folder = tmp_path / name
        folder.mkdir()
        for file in files:
            path = folder / file
            path.mkdir(parents=True) if file.endswith("/") else path.parent.mkdir(parents=True, exist_ok=True)
            path.is_dir() or path.write_text("")
        return folder

    # what a kill leaves: before the first cell has its folder, before its spec is written, and later
    for index, files in enumerate(
        [(), (".lock",), (".lock", "runs/ML/seed-0/"), (".lock", "runs/ML/seed-0/.lock", "nets/1.safetensors")]
    ):
        check_study_folder(holding(f"killed-{index}", *files))
    check_study_folder(holding("finished", ".lock", "report.html", "runs/ML/seed-1/spec.yaml", "notes.txt"))
    check_study_folder(tmp_path / "new")
    for index, files in enumerate(
        [("report.html",), (".lock", "report.html"), ("runs/a.log",), ("runs/ML/seed-0/mine.txt",), ("data/x/y.csv",)]
    ):
        with pytest.raises(SpecError, match="this holds something else"):
            check_study_folder(holding(f"mine-{index}", *files))


def test_a_finished_cell_that_is_damaged_is_named_before_anything_runs(finished, pyroformer, write):
    out = finished
    (folder_of(out, "ML", 0) / "history.jsonl").unlink()
    (folder_of(out, "ML", 1) / "metrics.json").unlink()  # this one would be run again
    message = pyroformer("compare", write(STUDY), "--out", out, "--jobs", "1", "--quiet").message
    assert message.startswith(f"{folder_of(out, 'ML', 0) / 'history.jsonl'}: got no such file; accepted: ")
    assert not (folder_of(out, "ML", 1) / "metrics.json").exists()
