"""What a run tells the outside."""

import io
import json
import math

import pytest
import torch
from rich.console import Console
from torch import nn

from pyroformer.guides import MeanField
from pyroformer.inference import ML, NUTS, SVI, Data, DeepEnsemble, InferenceError, Monitor, RunMonitor
from pyroformer.models import BayesianModel, Gaussian
from pyroformer.priors import Normal

X = torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
DATA = Data(X, X.sum(-1, keepdim=True), X, X.sum(-1, keepdim=True))


def model():
    return BayesianModel(nn.Linear(2, 1), Normal(), Gaussian(scale=0.5))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_history_is_written_a_line_an_epoch(tmp_path):
    path = tmp_path / "deep" / "history.jsonl"
    monitor = RunMonitor(path)
    SVI(epochs=3).run(model(), MeanField(), DATA, monitor=monitor)
    written = lines(path)
    assert written == monitor.history and [entry["epoch"] for entry in written] == [1, 2, 3]
    parts = {"elbo", "log_likelihood", "kl", "row_kl", "beta", "validation_nll", "seconds"}
    assert all(parts < set(entry) for entry in written)


def test_history_grows_while_the_run_goes_on(tmp_path):
    path = tmp_path / "history.jsonl"
    seen = []

    class Reading(RunMonitor):
        def step(self, text="", advance=1):
            seen.append(len(path.read_text().splitlines()))

    ML(epochs=3, batch_size=8).run(model(), None, DATA, monitor=Reading(path))
    assert seen == [0, 0, 1, 1, 2, 2, 3]


def test_history_ends_where_a_run_fails(tmp_path):
    path = tmp_path / "history.jsonl"
    with pytest.raises(InferenceError):
        ML(epochs=3, learning_rate=1e30).run(model(), None, DATA, monitor=RunMonitor(path))
    assert len(lines(path)) == 1


def test_members_are_labelled_and_chains_go_together():
    monitor = Monitor()
    DeepEnsemble(member=ML(epochs=2), size=3).run(model(), None, DATA, monitor=monitor)
    assert [(entry["member"], entry["epoch"]) for entry in monitor.history] == [
        (member, epoch) for member in range(3) for epoch in (1, 2)
    ]
    assert monitor.labels == {}
    sampling = Monitor()
    NUTS(num_samples=4, warmup_steps=4, chains=2).run(model(), None, DATA, monitor=sampling)
    assert [(entry["stage"], entry["draw"]) for entry in sampling.history] == [
        (stage, draw) for stage in ("warmup", "sample") for draw in (1, 2, 3, 4)
    ]
    assert not any("chain" in entry for entry in sampling.history)  # all chains go together


def test_a_new_history_replaces_the_old(tmp_path):
    path = tmp_path / "history.jsonl"
    RunMonitor(path).record({"epoch": 1})
    RunMonitor(path).record({"epoch": 7})
    assert lines(path) == [{"epoch": 7}]


def test_what_is_not_finite_is_null(tmp_path):
    path = tmp_path / "history.jsonl"
    monitor = RunMonitor(path)
    monitor.record({"epoch": 1, "validation_nll": math.inf, "elbo": math.nan})
    assert lines(path) == [{"epoch": 1, "validation_nll": None, "elbo": None}]
    assert monitor.history[0]["validation_nll"] == math.inf


def test_a_bar_shows_how_far_the_run_is():
    text = io.StringIO()
    monitor = RunMonitor(console=Console(file=text, force_terminal=True, width=120))
    SVI(epochs=2, batch_size=8).run(model(), MeanField(), DATA, monitor=monitor)
    shown = text.getvalue()
    assert "training" in shown and "4/4" in shown and "ELBO" in shown and "val NLL" in shown
    assert monitor.progress is None


def test_without_a_console_nothing_is_shown(capsys):
    ML(epochs=1).run(model(), None, DATA, monitor=RunMonitor())
    NUTS(num_samples=4, warmup_steps=4).run(model(), None, DATA)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
