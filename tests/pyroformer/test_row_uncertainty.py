"""What a run with random rows says besides: the plug-in prediction, and the parts of the uncertainty."""

import csv

import numpy as np
import pytest
import torch

from pyroformer import Spec, evaluation, fit, load
from pyroformer.evaluation import class_metrics
from pyroformer.inference import decompose
from pyroformer.inference.data import take

NET = {"transformer": {"width": 8, "heads": 2, "depth": 1}}
ROWS = {"*.rows": {"dirichlet_rows": {"kl_weight": 0}}, "*": "normal"}
GUIDE = {"*.rows": {"dirichlet_rows": {"sharpness": 3.0}}, "*": {"mean_field": {"init_scale": 0.3}}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on digits whose rows and weights are random, kept in a folder."""
    task = {"digits": {"train": 1400}}
    spec = Spec(task=task, model=NET, prior=ROWS, guide=GUIDE, driver={"svi": {"epochs": 1}})
    return fit(spec, out=tmp_path_factory.mktemp("rows") / "run")


def test_metrics_say_how_plug_in_rows_predict(run):
    data, seed = run.spec.task.load(), run.spec.seed
    for name, split in (("validation", data.validation), ("test", data.test)):
        by_hand = class_metrics(run.posterior.predict(split.x, seed=seed, rows="mean"), split.y)
        for key in ("accuracy", "nll", "ece"):
            assert run.metrics[name][f"plug_in_{key}"] == by_hand[key]
    assert run.metrics["test"]["plug_in_nll"] != run.metrics["test"]["nll"]
    assert not any(key.startswith("plug_in") for key in run.metrics["noisy"])


def test_metrics_hold_the_mean_parts_of_every_set(run):
    data = run.spec.task.load()
    for name, split in {"test": data.test, **data.shifted, **data.ood}.items():
        first = take(split.x, slice(0, evaluation.DECOMPOSED))
        found = decompose(run.posterior, first, weights=evaluation.NESTED, rows=evaluation.NESTED, seed=run.spec.seed)
        for part, values in found.parts.items():
            assert run.metrics[name][f"{part}_entropy"] == pytest.approx(float(values.mean()))
        assert run.metrics[name]["rows_entropy"] > 0 < run.metrics[name]["weights_entropy"]
        for part in ("rows", "weights"):
            short = float(getattr(found, f"{part}_shortfall").mean())
            assert run.metrics[name][f"{part}_shortfall"] == pytest.approx(short) and short > 0
    assert "rows_entropy" not in run.metrics["validation"]


def test_a_run_without_random_rows_has_none_of_this(digits):
    found = fit(Spec(**digits)).metrics["test"]
    assert not [key for key in found if key.startswith(("plug_in", "rows_", "weights_", "data_"))]


def test_regression_has_variances(toy):
    found = fit(Spec(**{**toy, "prior": ROWS, "guide": GUIDE})).metrics
    for name in ("test", "gap"):
        assert found[name]["rows_variance"] > 0 < found[name]["weights_variance"]
        assert found[name]["data_variance"] == pytest.approx(0.01, rel=1e-4)
    assert {"plug_in_rmse", "plug_in_nll", "plug_in_coverage_90"} <= set(found["test"])


def predicted(pyroformer, folder, tmp_path, *options):
    x = load(folder).spec.task.load().test.x[:5]
    np.save(tmp_path / "x.npy", x.numpy())
    done = pyroformer("predict", folder, "--input", tmp_path / "x.npy", "--out", tmp_path / "out.csv", *options)
    assert done.code == 0, done
    with (tmp_path / "out.csv").open(newline="") as file:
        return x, done.out, list(csv.DictReader(file))


def test_predict_takes_mean_rows(run, pyroformer, tmp_path):
    x, out, rows = predicted(pyroformer, run.folder, tmp_path, "--rows", "mean", "--samples", 4)
    expected = run.posterior.predict(x, 4, seed=run.spec.seed, rows="mean")
    assert out.endswith(": 5 predictions from 4 draws\n")
    assert [float(row["entropy"]) for row in rows] == pytest.approx(expected.entropy.tolist(), abs=1e-5)
    sampled = run.posterior.predict(x, 4, seed=run.spec.seed)
    assert [float(row["entropy"]) for row in rows] != pytest.approx(sampled.entropy.tolist(), abs=1e-5)
    assert "rows" not in rows[0]


def test_predict_gives_the_parts(run, pyroformer, tmp_path):
    x, _, rows = predicted(pyroformer, run.folder, tmp_path, "--parts")
    expected = decompose(run.posterior, x, seed=run.spec.seed)
    for name, part in expected.parts.items():
        assert [float(row[name]) for row in rows] == pytest.approx(part.tolist(), rel=1e-4)


def test_mean_rows_are_refused_where_there_are_none(run, pyroformer, digits, tmp_path):
    plain = fit(Spec(**digits), out=tmp_path / "plain")
    np.save(tmp_path / "x.npy", torch.zeros(1, 8, 8).numpy())
    arguments = ("--input", tmp_path / "x.npy", "--out", tmp_path / "out.csv", "--rows")
    message = pyroformer("predict", plain.folder, *arguments, "mean").message
    assert message == "--rows: got mean; accepted: sample: no attention row of this posterior is random"
    message = pyroformer("predict", run.folder, *arguments, "median").message
    assert message == "--rows: got median; accepted: one of sample, mean"
    assert not (tmp_path / "out.csv").exists()
