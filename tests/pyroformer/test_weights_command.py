"""``pyroformer weights``: what it trains, writes and refuses, and that it goes on where it was stopped."""

import copy
import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

from pyroformer import load, study_weights, yamlfile
from pyroformer.choices import SpecError
from pyroformer.inference import InferenceError
from pyroformer.study import Study, folder_of
from pyroformer.weight_study import read_weight_study
from pyroformer.weight_study.nets import read_nets

FILES = {"weights.csv", "weights.json", "weights.html", "prior.yaml"}


SPEC = {
    "task": {"digits": {"train": 60, "validation": 20}},
    "model": {"transformer": {"width": 8, "heads": 2, "depth": 1}},
    "driver": {"ml": {"epochs": 2}},
}


@pytest.fixture
def spec():
    """The parts of a spec of a tiny net that trains in a moment."""
    return copy.deepcopy(SPEC)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder with two tiny nets, that no test may change."""
    folder = tmp_path_factory.mktemp("weights")
    (folder / "spec.yaml").write_text(yamlfile.dump(SPEC), "utf-8")
    study_weights(str(folder / "spec.yaml"), out=folder / "one", seeds=2, jobs=1)
    return folder / "one"


@pytest.fixture
def folder(kept, tmp_path):
    """A copy of that folder."""
    return Path(shutil.copytree(kept, tmp_path / "one"))


@pytest.mark.usefixtures("undrawn")
def test_it_writes_what_it_tells(pyroformer, write, spec, folder):
    before = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/*/metrics.json")}
    for name in FILES:
        (folder / name).unlink()
    ended = pyroformer("weights", write(spec), "--out", folder, "--seeds", 2, "--jobs", 1, "--quiet")
    assert (ended.code, ended.err) == (0, ""), ended
    assert len(before) == 2 and {path: path.stat().st_mtime_ns for path in before} == before  # not trained again
    others = {".lock", "runs", "table.csv", "values.csv", "report.html"}
    assert {path.name for path in folder.iterdir()} == FILES | others
    assert max(map(len, ended.out.replace(str(folder), "").splitlines())) <= 80
    assert ended.out.endswith(f"page: {folder / 'weights.html'}\nprior: --set prior=@{folder / 'prior.yaml'}\n")
    assert "Weights of spec: weights of 2 nets" in ended.out
    found = json.loads((folder / "weights.json").read_text("utf-8"))
    assert len(found["groups"]) == 12 and all(one["seeds"] == 2 for one in found["groups"])
    with (folder / "weights.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["group"]: row for row in csv.DictReader(file)}
    assert float(rows["query"]["sd"]) == pytest.approx(next(g["sd"] for g in found["groups"] if g["group"] == "query"))
    assert "Weights of spec" in (folder / "weights.html").read_text("utf-8")


def test_the_weights_are_those_of_the_runs(kept, spec, write):
    nets = read_nets(read_weight_study(str(write(spec)), 2), kept)
    run = load(folder_of(kept, "ML", 1))
    drawn = run.posterior.draw(1)["head.weight"][0].double()
    assert torch.equal(nets.weights[1]["head.weight"], drawn)
    assert not torch.equal(nets.weights[0]["head.weight"], drawn)  # planted: another seed
    start = run.spec.build_model(run.spec.task.load()).net.head.weight.double()
    assert torch.equal(nets.starts[1]["head.weight"], start) and not torch.equal(start, drawn)
    assert nets.heads["blocks.0.attention.output.weight"] == 2 and nets.sites["norm.weight"].center == 1


def test_the_prior_is_accepted_by_a_run(kept, pyroformer, write, spec, tmp_path):
    prior, out = kept / "prior.yaml", tmp_path / "run"
    task = {"digits": {"train": 1700, "validation": 20}}  # which leaves few to test on, with every draw
    svi = write({**spec, "task": task, "driver": {"svi": {"epochs": 1}}})
    ended = pyroformer("run", svi, "--out", out, "--quiet", "--set", f"prior=@{prior}")
    assert ended.code == 0, ended
    assert list(yamlfile.read(out / "spec.yaml")["prior"]) == list(yamlfile.read(prior))
    told = pyroformer("prior", svi, "--samples", 10, "--inputs", 5, "--set", f"prior=@{prior}")
    assert told.code == 0


def test_changes_make_no_prior(pyroformer, write, spec, folder):
    assert (folder / "prior.yaml").is_file()
    again = pyroformer("weights", write(spec), "--out", folder, "--seeds", 2, "--jobs", 1, "--quiet", "--change")
    assert again.code == 0
    assert "changes of weights since their start of 2 nets" in again.out
    assert not (folder / "prior.yaml").exists()
    assert again.out.endswith(f"page: {folder / 'weights.html'}\n")
    assert json.loads((folder / "weights.json").read_text("utf-8"))["change"] is True


@pytest.mark.usefixtures("undrawn")
def test_learned_weights_are_read_and_fixed_ones_left_out(write, spec, tmp_path):
    prior = {"position": "fixed", "*": "learned"}
    found = study_weights(str(write({**spec, "prior": prior})), out=tmp_path / "out", seeds=2, jobs=1)
    assert found.fixed == ("position",) and "positions" not in [one.group.name for one in found.groups]
    assert yamlfile.read(tmp_path / "out" / "prior.yaml")["position"] == "fixed"
    assert found.groups[0].sd > 0


class TestStudies:
    def test_a_spec_keeps_ml_and_loses_what_plays_no_part(self, write, spec):
        kept = read_weight_study(str(write(spec)))
        assert (kept.seeds, list(kept.methods)) == (5, ["ML"]) and kept.base["driver"] == {"ml": {"epochs": 2}}
        other = {**spec, "driver": {"svi": {"epochs": 3}}, "guide": "mean_field", "calibration": "temperature_scaling"}
        found = read_weight_study(str(write(other)))
        assert found.base["driver"] == "ml" and set(found.base) == {"task", "model", "driver"}
        assert kept.changed == () and found.changed == (
            "driver svi replaced by ml with its defaults",
            "guide left out: it plays no part in the weights",
            "calibration left out: it plays no part in the weights",
        )
        seeded = read_weight_study(str(write({**spec, "seed": 3})))
        assert seeded.changed == ("seed 3 replaced by those of the nets, 0, 1, ...",)
        changed = read_weight_study(str(write(spec)), 3, ("driver.ml.epochs=7",))
        assert changed.spec("ML", 0).driver.epochs == 7 and changed.seeds == 3

    @pytest.mark.parametrize(
        ("change", "assignment", "said"),
        [
            ({"driver": {"svi": {"epochs": -3}}}, None, "driver.svi.epochs: got -3; accepted: "),
            ({"driver": {"svi": {"epochz": 3}}}, None, "driver.svi.epochz: got 3; accepted: "),
            ({"guide": "mean_field"}, None, "guide: got mean_field; accepted: no guide"),
            ({"driver": "svi", "guide": {"nothing.*": "mean_field"}}, None, "guide: got "),
            ({"prior": {"nothing.*": "normal", "*": "normal"}}, None, "prior: got nothing.*; accepted: "),
            ({"model": {"transformer": {"depth": 0}}}, None, "model.transformer.depth: got 0; accepted: "),
            ({"calibration": "temperature"}, None, "calibration: got temperature; accepted: "),
            (
                {},
                "guide=mean_field",
                "--set: got guide=mean_field; accepted: path=value with a path below task, ",
            ),
            ({}, "calibration=temperature_scaling", "--set: got calibration=temperature_scaling; accepted: path=value"),
            ({}, "seed=4", "--set: got seed=4; accepted: path=value with a path below task, model, prior, driver:"),
            (
                {"driver": "svi"},
                "driver.svi.epochs=3",
                "--set: got driver.svi.epochs=3; accepted: a path below ",
            ),
        ],
    )
    def test_a_spec_is_refused_by_its_own_paths(self, pyroformer, write, spec, tmp_path, change, assignment, said):
        settings = () if assignment is None else ("--set", assignment)
        message = pyroformer("weights", write({**spec, **change}), "--out", tmp_path / "out", *settings).message
        assert message.startswith(said), message
        assert not (tmp_path / "out").exists()

    @pytest.mark.usefixtures("undrawn")
    def test_what_is_replaced_is_said(self, pyroformer, write, spec, tmp_path):
        path = write({**spec, "driver": {"svi": {"epochs": 3}}, "calibration": "temperature_scaling"})
        settings = ("--set", "driver.ml.epochs=1")  # names another driver, and so replaces it: nothing is to be said
        options = ("--seeds", 2, "--jobs", 1, "--quiet", "--out", tmp_path / "out")
        ended = pyroformer("weights", path, *settings, *options)
        assert ended.code == 0 and ended.err == "calibration left out: it plays no part in the weights\n"
        found = read_weight_study(str(path))
        assert found.changed[0] == "driver svi replaced by ml with its defaults"

    def test_studies_have_seeds_of_their_own(self, write, spec):
        content = {"base": spec, "methods": {"plain": {}}}
        assert read_weight_study(str(write(content))).seeds == 5
        assert read_weight_study(str(write({**content, "seeds": 2}))).seeds == 2
        assert read_weight_study(str(write(content)), None, ("driver.ml.epochs=9",)).spec("plain", 1).driver.epochs == 9
        shipped = read_weight_study("weights")
        assert shipped.seeds == 5 and shipped.spec("ML", 0).task.load().outputs.size == 10

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"methods": {"a": {}, "b": {}}}, "methods: got a, b; accepted: one method: a weight study looks at"),
            ({"methods": {"a": {"driver": "svi"}}}, "methods.a.driver: got svi; accepted: ml: weights are studied"),
            ({"methods": {"a": {"driver": "map"}}}, "methods.a.driver: got map; accepted: ml"),
            ({"seeds": 1}, "seeds: got 1; accepted: at least 2"),
            ({"methods": {}}, "methods: got {}; accepted: a mapping"),
            ({"metods": {}}, "metods: got {}; accepted: the keys"),
        ],
    )
    def test_a_wrong_study(self, pyroformer, write, spec, tmp_path, change, said):
        content = {"base": spec, "methods": {"a": {}}, **change}
        message = pyroformer("weights", write(content), "--out", tmp_path / "out").message
        assert message.startswith(said), message
        assert not (tmp_path / "out").exists()

    def test_other_mistakes(self, pyroformer, write, spec, tmp_path):
        out = ("--out", tmp_path / "out")
        assert pyroformer("weights", "wights", *out).message.endswith("did you mean weights or weight-space or digits?")
        assert "the keys task, model" in pyroformer("weights", write({**spec, "sed": 1}), *out).message
        rows = {"prior": {"*.rows": "dirichlet_rows", "*": "normal"}}
        assert pyroformer("weights", write({**spec, **rows}), *out).message.startswith("driver: got ml; accepted: svi")
        assert pyroformer("weights", write({**spec, "prior": "fixed"}), *out).message.startswith("driver: got ml")
        assert not (tmp_path / "out").exists()
        assert pyroformer("weights", write(spec), *out, "--seeds", 1).code == 2


def test_folders_that_hold_something_else_are_refused(kept, pyroformer, write, spec, tmp_path):
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter1.tex").write_text("mine")
    assert "this holds something else" in pyroformer("weights", write(spec), "--out", thesis).message
    file = thesis / "chapter1.tex"
    assert pyroformer("weights", write(spec), "--out", file).message.endswith("a folder; this is a file")
    assert [path.name for path in thesis.iterdir()] == ["chapter1.tex"] and file.read_text() == "mine"
    plain = tmp_path / "plain"  # runs of something else
    (plain / "runs").mkdir(parents=True)
    (plain / "runs" / "log.txt").write_text("mine")
    assert "this holds something else" in pyroformer("weights", write(spec), "--out", plain).message
    other = {**spec, "driver": {"ml": {"epochs": 3}}}
    assert "a run of another spec" in pyroformer("weights", write(other), "--out", kept).message


def test_a_net_that_fails_ends_the_study(pyroformer, write, spec, tmp_path):
    huge = {**spec, "driver": {"ml": {"epochs": 2, "batch_size": 5, "learning_rate": 1e30, "validate_every": 2}}}
    ended = pyroformer("weights", write(huge), "--out", tmp_path / "out", "--seeds", 2, "--jobs", 1, "--quiet")
    assert ended.code == 1 and "stopped: 2 of 2 nets were not trained; seed 0:" in ended.err
    assert not FILES & {path.name for path in (tmp_path / "out").iterdir()}
    with pytest.raises(InferenceError, match="not trained"):
        study_weights(str(write(huge)), out=tmp_path / "again", seeds=2, jobs=1)
    with pytest.raises(SpecError, match="one method"):
        read_weight_study("digits")
    assert isinstance(read_weight_study("weights"), Study)


@pytest.mark.usefixtures("undrawn")
def test_a_killed_study_ends_as_a_whole_one(fork, pyroformer, write, spec, tmp_path):
    path = write({**spec, "driver": {"ml": {"epochs": 15}}})
    options = ("--seeds", "2", "--jobs", "1", "--quiet")
    runs = tmp_path / "killed" / "runs" / "ML"
    history = runs / "seed-1" / "history.jsonl"
    running = fork("weights", path, "--out", tmp_path / "killed", *options)
    running.wait_until(lambda: history.is_file() and history.stat().st_size)
    running.kill()
    assert not FILES & {file.name for file in (tmp_path / "killed").iterdir()}
    first = (runs / "seed-0" / "metrics.json").stat().st_mtime_ns
    assert not (runs / "seed-1" / "metrics.json").exists()
    for out in ("killed", "whole"):
        assert pyroformer("weights", path, "--out", tmp_path / out, *options).code == 0
    assert (runs / "seed-0" / "metrics.json").stat().st_mtime_ns == first
    for name in ("weights.csv", "weights.json", "prior.yaml"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
