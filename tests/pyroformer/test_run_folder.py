"""What a run leaves in its folder, and what is made of it again, in this process and in another."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml

import pyroformer
from pyroformer import Spec, Task, fit
from pyroformer.choices import SpecError
from pyroformer.inference.files import read_tensors
from pyroformer.models import Tokens

NET = {"transformer": {"width": 8, "heads": 2, "depth": 1}}
TOY = {"task": {"toy_regression": {"train": 20, "test": 10}}, "model": NET}
ROWS = {"prior": {"*.rows": "dirichlet_rows", "*": "learned"}, "driver": {"svi": {"epochs": 1}}}
ML = {"ml": {"epochs": 1}}
RUNS = {
    "mean field": {**TOY, "driver": {"svi": {"epochs": 2}}},
    "maximum likelihood": {**TOY, "driver": ML},
    "double precision": {**TOY, "driver": {"map": {"epochs": 1, "dtype": "float64"}}},
    "ensemble": {**TOY, "driver": {"deep_ensemble": {"size": 2, "member": ML}}},
    "ensemble of mean fields": {**TOY, "driver": {"deep_ensemble": {"size": 2, "member": {"svi": {"epochs": 1}}}}},
    "rows": {**TOY, **ROWS},
    "rows of an ensemble": {**TOY, **ROWS, "driver": {"deep_ensemble": {"size": 2, "member": ROWS["driver"]}}},
    "draws": {**TOY, "driver": {"nuts": {"num_samples": 4, "warmup_steps": 2, "max_tree_depth": 2}}},
    "noise that is random": {
        **TOY,
        "task": {"toy_regression": {"train": 20, "test": 10, "likelihood": {"gaussian": {"noise": "random"}}}},
        "driver": {"svi": {"epochs": 1}},
    },
    "classes": {"task": {"digits": {"train": 40, "validation": 20}}, "model": NET, "driver": ML},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Every run of the table, finished, with its folder."""
    folder = tmp_path_factory.mktemp("runs")
    return {name: fit(Spec(**parts), out=folder / name) for name, parts in RUNS.items()}


def inputs(run):
    return run.spec.task.load().test.x[:7]


def numbers(prediction):
    """What a prediction says, as plain numbers."""
    values = prediction.probabilities if hasattr(prediction, "probabilities") else prediction.sd + prediction.mean
    return values.tolist()


def test_files(runs):
    folder = runs["classes"].folder
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {
        ".lock",
        "attention.safetensors",
        "data.json",
        "spec.yaml",
        "marginals.safetensors",
        "metrics.json",
        "history.jsonl",
        "environment.json",
        "predictions.safetensors",
        "posterior/posterior.json",
        "posterior/weights.safetensors",
    }


def test_the_spec_is_resolved(runs):
    content = yaml.safe_load((runs["classes"].folder / "spec.yaml").read_text("utf-8"))
    shifts = {"shifts": [], "shift_examples": 1000}
    assert content["task"]["digits"] == {"train": 40, "validation": 20, "noise": 0.3, "split": 0} | shifts
    assert content["driver"]["ml"]["batch_size"] == 128
    assert content["seed"] == 0


def test_metrics(runs):
    content = json.loads((runs["classes"].folder / "metrics.json").read_text("utf-8"))
    assert set(content) == {"validation", "test", "noisy", "photographs", "fit"}
    assert {"accuracy", "nll", "brier", "ece", "entropy", "mutual_information"} <= set(content["test"])
    assert {"auroc_entropy", "auroc_mutual_information"} <= set(content["photographs"])
    assert content == json.loads(json.dumps(runs["classes"].metrics))
    regression = runs["mean field"].metrics
    assert {"rmse", "nll", "coverage_90", "sd"} <= set(regression["test"]) & set(regression["gap"])


def test_history_and_environment(runs):
    run = runs["mean field"]
    lines = (run.folder / "history.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == run.history
    assert [entry["epoch"] for entry in run.history] == [1, 2]
    found = json.loads((run.folder / "environment.json").read_text("utf-8"))
    assert found["torch"] == torch.__version__
    assert found["pyroformer"] == pyroformer.__version__


def test_members_and_draws_stand_in_the_history(runs):
    assert [entry["member"] for entry in runs["ensemble"].history] == [0, 1]
    assert len(runs["draws"].history) == 6


def test_nothing_is_pickled(runs):
    for run in runs.values():
        for path in run.folder.rglob("*"):
            if path.is_file() and path.name != ".lock":
                content = path.read_bytes()
                assert path.suffix in {".yaml", ".json", ".jsonl", ".safetensors"}
                assert not content.startswith((b"\x80", b"PK"))  # pickle; zip, as torch.save writes
                if path.suffix == ".safetensors":
                    assert read_tensors(path)


@pytest.mark.parametrize("name", RUNS)
def test_a_loaded_run_is_the_run(runs, name):
    run = runs[name]
    again = pyroformer.load(run.folder)
    assert again.spec.to_dict() == run.spec.to_dict()
    measured = set(run.metrics) - {"fit"}  # diagnostics may be NaN, which files hold as null
    assert {name: again.metrics[name] for name in measured} == {name: run.metrics[name] for name in measured}
    assert again.history == run.history
    assert again.predictions.keys() == run.predictions.keys()
    assert numbers(again.posterior.predict(inputs(run), 5, seed=3)) == numbers(
        run.posterior.predict(inputs(run), 5, seed=3)
    )


PREDICT = """
import json, sys
import pyroformer
found = {}
for name, folder in json.loads(sys.argv[1]).items():
    run = pyroformer.load(folder)
    prediction = run.posterior.predict(run.spec.task.load().test.x[:7])
    values = prediction.probabilities if hasattr(prediction, "probabilities") else prediction.sd + prediction.mean
    found[name] = values.tolist()
print(json.dumps(found))
"""


def test_a_new_process_predicts_the_same_numbers(runs, fork):
    running = fork(json.dumps({name: str(run.folder) for name, run in runs.items()}), code=PREDICT)
    out, err = running.communicate()
    assert running.returncode == 0, err
    found = json.loads(out)
    for name, run in runs.items():
        assert found[name] == numbers(run.posterior.predict(inputs(run))), name
    assert found["mean field"] != found["maximum likelihood"]


def test_the_metrics_are_those_of_the_loaded_posterior(runs):
    run = pyroformer.load(runs["classes"].folder)
    data = run.spec.task.load()
    prediction = run.posterior.predict(data.test.x, seed=run.spec.seed)
    assert run.metrics["test"]["accuracy"] == pytest.approx(
        float((prediction.labels == data.test.y).double().mean()), abs=1e-12
    )


def test_a_finished_run_is_not_run_again(pyroformer, write, toy, tmp_path):
    spec, folder = write(toy), tmp_path / "run"
    first = pyroformer("run", spec, "--out", folder, "--quiet")
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*")}
    second = pyroformer("run", spec, "--out", folder, "--quiet")
    assert second.code == 0
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*")} == before
    assert "nothing to do" in second.err
    assert second.out == first.out


def test_a_run_with_globs_in_another_order_is_another_run(pyroformer, write, toy, tmp_path):
    globs = {"head.*": "fixed", "*": "normal"}
    out = ("--out", tmp_path / "run", "--quiet")
    assert pyroformer("run", write({**toy, "prior": globs}), *out).code == 0
    message = pyroformer("run", write({**toy, "prior": dict(reversed(globs.items()))}), *out).message
    assert message.endswith("(prior: head.*, * there, *, head.* here)")


def test_the_same_spec_gives_the_same_numbers_and_another_seed_others(toy):
    def once(**changes):
        return fit(Spec(**{**toy, **changes})).metrics["test"]

    assert once() == once()
    assert once() != once(seed=1)


def test_a_run_of_ones_own_arrays_keeps_them(tmp_path):
    x = torch.rand(24, 3)
    y = (x[:, 0] > 0.5).long()
    task = Task.from_arrays(x, y, x[:6], y[:6])
    run = fit(Spec(task=task, model=NET, driver=ML), out=tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    again = pyroformer.load(tmp_path / "moved")
    assert numbers(again.posterior.predict(x)) == numbers(run.posterior.predict(x))
    assert "tmp" not in (tmp_path / "moved" / "spec.yaml").read_text("utf-8")
    torch.testing.assert_close(again.spec.task.load().test.x, x[:6])


def test_a_folder_with_a_run_on_other_arrays_is_refused(tmp_path):
    x, y = torch.rand(24, 3), torch.arange(24) % 2

    def run(x):
        return fit(Spec(task=Task.from_arrays(x, y, x, y), model=NET, driver=ML), out=tmp_path / "run")

    first = run(x).metrics["test"]
    assert run(x.clone()).metrics["test"] == first
    with pytest.raises(SpecError, match="a run on other arrays"):
        run(x + 1)
    assert pyroformer.load(tmp_path / "run").metrics["test"] == first


def test_arrays_that_a_file_cannot_hold_are_refused_a_folder(tmp_path):
    x, y = torch.randint(5, (24, 4)), torch.arange(24) % 2
    task = Task.from_arrays(x, y, x, y, inputs=Tokens(5, 4, padding=0))
    assert fit(Spec(task=task, model=NET, driver=ML)).metrics["test"]["nll"] > 0
    with pytest.raises(SpecError, match="inputs or a likelihood of its own"):
        fit(Spec(task=task, model=NET, driver=ML), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_no_run(tmp_path):
    with pytest.raises(SpecError, match=r"accepted: the folder of a run"):
        pyroformer.load(tmp_path)
    with pytest.raises(SpecError, match=r"accepted: the folder of a run"):
        pyroformer.load(tmp_path / "nowhere")


DAMAGES = {
    "history.jsonl": (None, "{"),
    "metrics.json": ("", "[1]"),
    "marginals.safetensors": ("broken",),
    "posterior/weights.safetensors": (None, "broken"),
    "posterior/posterior.json": ("{", "{}"),
    "predictions.safetensors": ("broken",),
    "spec.yaml": ("seed: 0\n",),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A tiny finished run, and its spec's file."""
    folder = tmp_path_factory.mktemp("whole")
    parts = {**TOY, "driver": {"svi": {"epochs": 1}}}
    (folder / "spec.yaml").write_text(yaml.safe_dump(parts), "utf-8")
    fit(Spec(**parts), out=folder / "run")
    return folder


@pytest.mark.parametrize(("file", "content"), [(file, c) for file, contents in DAMAGES.items() for c in contents])
def test_a_damaged_file_is_named(pyroformer, whole, tmp_path, file, content):
    folder = tmp_path / "run"
    shutil.copytree(whole / "run", folder)
    (folder / file).unlink() if content is None else (folder / file).write_text(content)
    named = folder / ("posterior" if file.startswith("posterior") else file)
    inputs = tmp_path / "x.npy"
    np.save(inputs, np.zeros((2, 1), np.float32))
    message = pyroformer("predict", folder, "--input", inputs, "--out", tmp_path / "out.csv").message
    assert message.startswith(f"{named}: got "), message
    message = pyroformer("run", whole / "spec.yaml", "--out", folder, "--quiet").message
    assert message.startswith(f"--out: got {folder}; " if file == "spec.yaml" else f"{named}: got "), message


def test_a_run_without_the_source_of_its_data(pyroformer, whole, tmp_path):
    folder, inputs = tmp_path / "run", tmp_path / "x.npy"
    shutil.copytree(whole / "run", folder)
    np.save(inputs, np.zeros((2, 1), np.float32))
    assert pyroformer("predict", folder, "--input", inputs, "--out", tmp_path / "out.csv").code == 0  # planted: whole
    (folder / "data.json").unlink()
    message = pyroformer("predict", folder, "--input", inputs, "--out", tmp_path / "out.csv").message
    assert message.startswith(f"{folder / 'data.json'}: got no such file; accepted: ")
