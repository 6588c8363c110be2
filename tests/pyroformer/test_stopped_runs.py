"""Runs that do not reach their end: NaN in the data, NaN on the way, and the interrupt key."""

import json
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import pyroformer as package
from pyroformer import Spec, Task, fit
from pyroformer.inference import InferenceError
from pyroformer.inference.samplers import Chains
from pyroformer.study import run_cell
from pyroformer.tasks import ToyRegression


def arrays(folder, **changes):
    """A file of arrays, regression unless ``changes`` say otherwise, and the task that reads it."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(20, 2))
    content = {"x": x, "y": x.sum(1), "x_test": x[:5], "y_test": x[:5].sum(1)} | changes
    np.savez(folder / "arrays.npz", **content)
    return {"arrays": {"file": str(folder / "arrays.npz")}}


@pytest.mark.parametrize("name", ["x", "y", "x_test", "y_test"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_in_the_data_is_refused_and_the_example_named(refused, toy, tmp_path, name, value):
    shape = {"x": (20, 2), "y": (20,), "x_test": (5, 2), "y_test": (5,)}[name]
    bad = np.ones(shape)
    bad[3] = value
    message = refused({**toy, "task": arrays(tmp_path, **{name: bad})})
    assert message.startswith(f"{name}: example 3 holds {value}"), message


def test_a_loss_that_overflows_stops_the_run(pyroformer, write, toy, tmp_path):
    y = np.zeros(20)
    y[4] = 3e38
    task = arrays(tmp_path, y=y, x_validation=np.ones((2, 2)), y_validation=np.ones(2))
    folder = tmp_path / "run"
    ended = pyroformer("run", write({**toy, "task": task}), "--out", folder, "--quiet")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("stopped: epoch 1, step 1: ")
    assert "log-likelihood" in ended.err
    assert "training rows 4" in ended.err
    assert "Traceback" not in ended.err
    assert not (folder / "metrics.json").exists()


@pytest.mark.parametrize("driver", [{"svi": {}}, {"ml": {}}, {"map": {}}, {"deep_ensemble": {"member": {"svi": {}}}}])
@pytest.mark.parametrize("task", [{"toy_regression": {"train": 20, "test": 10}}, {"digits": {"train": 20}}])
def test_a_learning_rate_out_of_all_bounds_stops_the_run(pyroformer, write, toy, tmp_path, driver, task):
    (name,) = driver
    path = f"driver.{name}.member.svi" if name == "deep_ensemble" else f"driver.{name}"
    spec, folder = write({**toy, "task": task, "driver": driver}), tmp_path / "run"
    settings = ["--set", f"{path}.learning_rate=1e20", "--set", f"{path}.epochs=30"]
    ended = pyroformer("run", spec, "--out", folder, "--quiet", *settings)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("stopped: ")
    assert "Traceback" not in ended.err
    assert not (folder / "metrics.json").exists()


@pytest.mark.parametrize("target", [np.arange(6) / 6, np.arange(6) % 2])
def test_without_validation_data_too(toy, target):
    x = np.random.default_rng(0).normal(size=(6, 2))
    driver = {"ml": {"epochs": 1, "learning_rate": 1e30}}
    with pytest.raises(InferenceError):
        fit(Spec(**{**toy, "task": Task.from_arrays(x, target, x, target), "driver": driver}))


class Ageing(nn.Module):
    """A net that returns NaN in training from some call on."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(1, 1)
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        return self.map(x) * (1.0 if self.calls < 10 else float("nan"))


@pytest.mark.parametrize("driver", ["svi", "ml"])
def test_nan_on_the_way_leaves_the_last_good_posterior(tmp_path, driver):
    task = ToyRegression(train=40, test=10)
    spec = Spec(task=task, model=Ageing(), driver={driver: {"epochs": 20, "learning_rate": 0.1}})
    with pytest.raises(InferenceError, match=r"^epoch (\d+), step \1: the loss is nan") as error:
        fit(spec, out=tmp_path / "run")
    stopped = int(re.search(r"\d+", str(error.value)).group())
    assert stopped > 2
    assert any("last good state" in note for note in error.value.__notes__)
    assert not (tmp_path / "run" / "metrics.json").exists()
    kept = package.load(tmp_path / "run", net=Ageing())
    assert kept.metrics == {}
    assert [entry["epoch"] for entry in kept.history] == list(range(1, stopped))
    prediction = kept.posterior.predict(task.load().validation.x, 8)
    assert torch.isfinite(prediction.mean).all()
    best = min(entry["validation_nll"] for entry in kept.history)
    found = float(-prediction.log_density(task.load().validation.y.double()).mean())
    assert found == pytest.approx(best, rel=1e-6)
    assert best < kept.history[0]["validation_nll"]


def begun(folder):
    """Whether a run has begun to learn."""
    history = folder / "history.jsonl"
    return history.is_file() and history.stat().st_size > 0


def check_what_is_left(folder, out, err):
    """A run that was stopped in its first seconds printed nothing to stdout, and left what it wrote at its start."""
    assert out == ""
    assert "Traceback" not in err
    # a state is there already when the start took longer than ten seconds
    assert {path.name for path in folder.iterdir()} - {"checkpoint"} == {
        ".lock",
        "data.json",
        "spec.yaml",
        "environment.json",
        "history.jsonl",
    }
    assert json.loads((folder / "environment.json").read_text("utf-8"))


def test_the_interrupt_key_ends_a_run_without_a_traceback(process, write, toy, tmp_path):
    spec, folder = write({**toy, "driver": {"ml": {"epochs": 1000}}}), tmp_path / "run"
    command = [sys.executable, "-m", "pyroformer", "run", spec, "--out", folder]
    # a shell that runs the tests in the background has its children ignore the interrupt key
    heard = {"preexec_fn": partial(signal.signal, signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **process, **heard) as running:
        end = time.monotonic() + 60
        while not begun(folder):
            assert running.poll() is None and time.monotonic() < end, "the run ended, or never started"
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    check_what_is_left(folder, out, err)
    assert running.returncode == 130 and "interrupted; what was kept stays" in err


def test_a_run_that_was_killed_can_be_run_again(fork, pyroformer, write, toy, tmp_path):
    spec, folder = write({**toy, "driver": {"ml": {"epochs": 80}}}), tmp_path / "run"
    running = fork("run", spec, "--out", folder)
    running.wait_until(lambda: begun(folder))
    running.kill()
    check_what_is_left(folder, *running.communicate())
    assert pyroformer("run", spec, "--out", folder, "--quiet").code == 0
    assert (folder / "metrics.json").is_file()
    assert [entry["epoch"] for entry in package.load(folder).history] == list(range(1, 81))


CHAINS = {"hmc": {"num_samples": 6, "warmup_steps": 2, "chains": 2, "max_steps": 2}}


@pytest.fixture
def pressed(monkeypatch):
    """Within the block, chains of `CHAINS` hear the interrupt key after their fifth draw."""
    plain = Chains.step

    def step(self):
        if self.index == 7:
            raise KeyboardInterrupt
        return plain(self)

    @contextmanager
    def pressing():
        with monkeypatch.context() as patch:
            patch.setattr(Chains, "step", step)
            yield

    return pressing


def test_the_interrupt_key_ends_chains_with_the_draws_so_far(pyroformer, write, toy, tmp_path, pressed):
    spec, folder = write({**toy, "driver": CHAINS}), tmp_path / "run"
    with pressed():
        ended = pyroformer("run", spec, "--out", folder, "--quiet")
    assert (ended.code, ended.out) == (130, "")
    assert ended.err == (
        f"interrupted after 5 of 6 draws of each chain\nthe posterior of these draws is in {folder / 'posterior'}; "
        "the same command goes on to the full length\n"
    )
    kept = package.load(folder)
    assert kept.posterior.num_samples == 10 and kept.metrics == {}
    assert pyroformer("run", spec, "--out", folder, "--quiet").code == 0
    whole = package.load(folder)
    assert whole.posterior.num_samples == 12 and "interrupted" not in whole.metrics["fit"]
    assert torch.equal(whole.posterior.by_chain("position")["position"][:, :5], kept.posterior.by_chain()["position"])


def test_the_interrupt_key_ends_a_study_of_chains(toy, tmp_path, pressed):
    with pressed(), pytest.raises(KeyboardInterrupt):
        run_cell(Spec(**{**toy, "driver": CHAINS}), tmp_path / "cell", None, None)
    assert not (tmp_path / "cell" / "metrics.json").exists() and (tmp_path / "cell" / "posterior").is_dir()


def test_in_memory_an_interrupted_run_ends_with_its_draws(toy, pressed):
    with pressed():
        run = fit(Spec(**{**toy, "driver": CHAINS}))
    assert run.metrics["fit"]["interrupted"] == {"draws": 5, "of": 6} and run.posterior.num_samples == 10
