"""Runs and comparisons that are killed and run again, two processes in one folder, and disks without room."""

import csv
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch

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


def start(process, *arguments, **more):
    command = [sys.executable, "-c", OFTEN, *map(str, arguments), "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **process, **more)


def finish(running, code=0):
    out, err = running.communicate(timeout=120)
    assert running.returncode == code, err
    assert "Traceback" not in err
    return out, err


def wait_until(there, running):
    end = time.monotonic() + 60
    while not there():
        assert running.poll() is None and time.monotonic() < end
        time.sleep(0.005)


def results(folder):
    """Everything that a run found, without times."""
    measured = json.loads((folder / "metrics.json").read_text())
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    for record in [measured["fit"], *measured["fit"].get("members", []), *history]:
        record.pop("seconds", None)
    return measured, history, read_tensors(folder / "predictions.safetensors")


def same(one, other):
    return one[:2] == other[:2] and all(torch.equal(one[2][name], other[2][name]) for name in {**one[2], **other[2]})


@pytest.mark.parametrize(
    "driver", [{"svi": {"epochs": 60}}, {"deep_ensemble": {"size": 3, "member": {"ml": {"epochs": 25}}}}]
)
def test_a_killed_run_ends_as_a_whole_one(driver, process, write, toy, tmp_path):
    spec = write({**toy, "driver": driver})
    finish(start(process, "run", spec, "--out", tmp_path / "whole"))
    times, folder = random.Random(0), tmp_path / "killed"
    for epochs in (5, 25):

        def so_far(epochs=epochs):
            history = folder / "history.jsonl"
            return history.is_file() and len(history.read_text().splitlines()) > epochs

        running = start(process, "run", spec, "--out", folder)
        wait_until(so_far, running)
        time.sleep(times.uniform(0, 0.05))
        running.send_signal(signal.SIGKILL)
        running.communicate()
        assert not (folder / "metrics.json").exists()
    assert (tmp_path / "killed" / "checkpoint").is_dir()
    finish(start(process, "run", spec, "--out", tmp_path / "killed"))
    assert not (tmp_path / "killed" / "checkpoint").exists()
    assert same(results(tmp_path / "killed"), results(tmp_path / "whole"))


def table(folder):
    """The numbers of a comparison, without times: one a row, and one method a row."""
    with (folder / "values.csv").open() as values, (folder / "table.csv").open() as methods:
        numbers = [row for row in csv.DictReader(values) if "seconds" not in row["metric"]]
        return numbers, [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(methods)]


def test_a_killed_comparison_ends_as_a_whole_one(process, write, toy, tmp_path):
    study = {
        "base": toy,
        "seeds": 2,
        "methods": {"SVI": {"driver": {"svi": {"epochs": 40}}}, "ML": {"driver": {"ml": {"epochs": 40}}}},
    }
    path = write(study, "study.yaml")
    finish(start(process, "compare", path, "--out", tmp_path / "whole", "--jobs", 1))
    running = start(process, "compare", path, "--out", tmp_path / "killed", "--jobs", 2)
    history = tmp_path / "killed" / "runs" / "SVI" / "seed-0" / "history.jsonl"
    wait_until(lambda: history.is_file() and history.stat().st_size, running)
    running.send_signal(signal.SIGKILL)  # its workers are alive: they must let go of their folders
    running.communicate()
    finish(start(process, "compare", path, "--out", tmp_path / "killed", "--jobs", 2))
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


def test_a_second_process_in_a_folder_says_so_and_stops(process, pyroformer, write, toy, tmp_path):
    spec = write({**toy, "driver": {"svi": {"epochs": 100000}}})
    running = start(process, "run", spec, "--out", tmp_path / "run")
    try:
        wait_until(lambda: (tmp_path / "run" / "history.jsonl").is_file(), running)
        message = pyroformer("run", spec, "--out", tmp_path / "run", "--quiet").message
    finally:
        running.kill()
        running.communicate()
    assert message == f"--out: got {tmp_path / 'run'}; accepted: a folder that no other process works in; one does now"


def test_a_full_disk_loses_nothing(process, write, toy, tmp_path):
    spec = write({**toy, "driver": {"svi": {"epochs": 30}}})
    finish(start(process, "run", spec, "--out", tmp_path / "whole"))
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))}
    _, err = finish(start(process, "run", spec, "--out", tmp_path / "full", **limit), code=1)
    assert err.startswith(f"stopped: {tmp_path / 'full'}")
    assert "could not be written: File too large; what was kept stays, and the same command goes on from there" in err
    assert not [path for path in (tmp_path / "full").rglob("*") if path.name.endswith(".new")]
    finish(start(process, "run", spec, "--out", tmp_path / "full"))
    assert same(results(tmp_path / "full"), results(tmp_path / "whole"))


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
