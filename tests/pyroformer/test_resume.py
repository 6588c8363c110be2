"""Runs and comparisons that are killed and run again, two processes in one folder, and disks without room."""

import csv
import json
import os
import random
import time

import pytest
import torch

from pyroformer import Spec, fit
from pyroformer.inference.files import read_tensors, remove_leftovers

# the command line, keeping a state after every epoch
OFTEN = """
import sys
from pyroformer.inference.checkpoint import Checkpoint
Checkpoint.__init__.__defaults__ = (0.0,)
from pyroformer.cli import main
sys.argv[0] = "pyroformer"
main()
"""
FULL = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))\n"


def records(folder):
    """How many records the history of a run has, -1 before it works in its folder."""
    history = folder / "history.jsonl"
    if history.is_file():
        return history.read_bytes().count(b"\n")
    return 0 if (folder / ".lock").is_file() else -1


def finish(running, code=0):
    out, err = running.communicate()
    assert running.returncode == code, err
    assert "Traceback" not in err
    return out, err


def results(folder):
    """Everything that a run found, without times."""
    measured = json.loads((folder / "metrics.json").read_text())
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    for record in [measured["fit"], *measured["fit"].get("members", []), *history]:
        for key in [key for key in record if "seconds" in key]:
            del record[key]
    return measured, history, read_tensors(folder / "predictions.safetensors")


def same(one, other):
    return one[:2] == other[:2] and all(torch.equal(one[2][name], other[2][name]) for name in {**one[2], **other[2]})


SVI = {"svi": {"epochs": 30}}
ENSEMBLE = {"deep_ensemble": {"size": 3, "member": {"ml": {"epochs": 15}}}}
NUTS = {"nuts": {"num_samples": 12, "warmup_steps": 8, "chains": 2, "max_tree_depth": 1}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing disturbed, by its spec; no test may change it."""
    known = {}

    def folder(parts):
        if (key := json.dumps(parts)) not in known:
            known[key] = fit(Spec(**parts), out=tmp_path_factory.mktemp("whole") / "run").folder
        return known[key]

    return folder


@pytest.mark.parametrize(("driver", "last"), [(SVI, 30), (ENSEMBLE, 45), (NUTS, 20)], ids=["svi", "ensemble", "nuts"])
def test_a_killed_run_ends_as_a_whole_one(driver, last, fork, pyroformer, whole, write, toy, tmp_path):
    parts, folder, times = {**toy, "driver": driver}, tmp_path / "killed", random.Random(0)
    spec = write(parts)
    for reached, wait in ((0, 0.0), (4, 0.05), (17, 0.05), (last, 0.0)):  # in the start, in epochs, and in the end
        running = fork("run", spec, "--out", folder, "--quiet", code=OFTEN)
        running.wait_until(lambda count=reached: records(folder) >= count)
        time.sleep(times.uniform(0, wait))
        running.kill()
        assert not (folder / "metrics.json").exists()
        assert (folder / "checkpoint").is_dir() or not reached
    assert pyroformer("run", spec, "--out", folder, "--quiet").code == 0
    assert not (folder / "checkpoint").exists()
    assert same(results(folder), results(whole(parts)))


def table(folder):
    """The numbers of a comparison, without times: one a row, and one method a row."""
    with (folder / "values.csv").open() as values, (folder / "table.csv").open() as methods:
        numbers = [row for row in csv.DictReader(values) if "seconds" not in row["metric"]]
        return numbers, [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(methods)]


@pytest.mark.usefixtures("undrawn")
def test_a_killed_comparison_ends_as_a_whole_one(fork, pyroformer, write, toy, tmp_path):
    study = {
        "base": toy,
        "seeds": 2,
        "methods": {"SVI": {"driver": {"svi": {"epochs": 15}}}, "ML": {"driver": {"ml": {"epochs": 15}}}},
    }
    path = write(study, "study.yaml")
    running = fork("compare", path, "--out", tmp_path / "killed", "--jobs", 2, "--quiet", code=OFTEN)
    running.wait_until(lambda: records(tmp_path / "killed" / "runs" / "SVI" / "seed-0") > 0)
    running.kill()  # its workers are alive: they must let go of their folders
    for name, jobs in (("killed", 2), ("whole", 1)):
        assert pyroformer("compare", path, "--out", tmp_path / name, "--jobs", jobs, "--quiet").code == 0
    assert table(tmp_path / "killed") == table(tmp_path / "whole")
    numbers, methods = table(tmp_path / "whole")
    assert len(numbers) > 20 and [row["method"] for row in methods] == ["SVI", "ML"]


def test_a_kill_after_the_last_file_leaves_no_state_behind(pyroformer, write, toy, tmp_path):
    spec, out = write(toy), ("--out", tmp_path / "run", "--quiet")
    assert pyroformer("run", spec, *out).code == 0
    before = results(tmp_path / "run")
    (tmp_path / "run" / "checkpoint" / "member-0").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint" / "state.safetensors").write_bytes(b"the last state")
    assert "nothing to do" in pyroformer("run", spec, *out).err
    assert not (tmp_path / "run" / "checkpoint").exists()
    assert same(results(tmp_path / "run"), before)


def test_a_second_process_in_a_folder_says_so_and_stops(fork, pyroformer, write, toy, tmp_path, monkeypatch):
    monkeypatch.setattr("pyroformer.run.PATIENCE", 0.1)
    spec = write({**toy, "driver": {"svi": {"epochs": 100000}}})
    running = fork("run", spec, "--out", tmp_path / "run", "--quiet")
    try:
        running.wait_until(lambda: records(tmp_path / "run") > 0)
        message = pyroformer("run", spec, "--out", tmp_path / "run", "--quiet").message
    finally:
        running.kill()
    assert message == f"--out: got {tmp_path / 'run'}; accepted: a folder that no other process works in; one does now"


def test_a_full_disk_loses_nothing(fork, pyroformer, whole, write, toy, tmp_path):
    parts, folder = {**toy, "driver": SVI}, tmp_path / "full"
    command = ("run", write(parts), "--out", folder, "--quiet")
    _, err = finish(fork(*command, code=FULL + OFTEN), code=1)
    assert err.startswith(f"stopped: {folder}")
    assert "could not be written: File too large; what was kept stays, and the same command goes on from there" in err
    assert not [path for path in folder.rglob("*") if path.name.endswith(".new")]
    assert pyroformer(*command).code == 0
    assert same(results(folder), results(whole(parts)))


@pytest.mark.skipif(os.geteuid() == 0 and not os.path.isdir("/proc/self"), reason="root writes anywhere but in /proc")
def test_an_unwritable_folder_is_refused_before_any_work(pyroformer, write, toy, tmp_path):
    folder = "/proc/self/run" if os.geteuid() == 0 else tmp_path / "closed" / "run"
    (tmp_path / "closed").mkdir(mode=0o500)
    message = pyroformer("run", write(toy), "--out", folder).message
    assert message.startswith(f"--out: got {folder}; accepted: a folder that can be written to (")


def test_what_a_kill_left_half_written_is_removed_and_the_old_put_back(tmp_path):
    (tmp_path / ".spec.yaml.123.new").write_text("half")
    for name in ("posterior.77.old", "other.78.old", "new.79.new"):
        (tmp_path / f".{name}").mkdir()
        (tmp_path / f".{name}" / "inside").write_text(name)
    (tmp_path / "other").mkdir()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "posterior"]
    assert (tmp_path / "posterior" / "inside").read_text() == "posterior.77.old"
