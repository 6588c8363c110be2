"""What is measured, computed again by hand from what a run keeps."""

import json
import math

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from pyroformer import Spec, evaluation, fit, load
from pyroformer.choices import SpecError
from pyroformer.cli import metrics_table
from pyroformer.evaluation import class_metrics, evaluate, k_hat
from pyroformer.inference import ClassPrediction, metrics, psis
from pyroformer.priors import SettingError
from pyroformer.tasks import Task

NET = {"transformer": {"width": 8, "heads": 2, "depth": 1}}


@pytest.fixture(scope="module")
def classes():
    """A run on digits whose draws differ, so that every part of the entropy is there."""
    guide = {"mean_field": {"init_scale": 0.05}}
    settings = {"epochs": 8, "batch_size": 50, "learning_rate": 0.03, "kl_weight": 0.01, "validate_every": 8}
    task = {"digits": {"train": 1500}}
    return fit(Spec(task=task, model=NET, prior="improper", guide=guide, driver={"svi": settings}))


@pytest.fixture(scope="module")
def reals():
    """A run of regression."""
    task = {"toy_regression": {"train": 60, "test": 40}}
    guide = {"mean_field": {"init_scale": 0.05}}
    return fit(Spec(task=task, model=NET, guide=guide, driver={"svi": {"epochs": 20, "kl_weight": 0.1}}))


def kept(run, name):
    return run.predictions[name].double().numpy()


def entropies(p):
    return -(p * np.log(np.clip(p, 1e-300, None))).sum(-1)


@pytest.mark.parametrize("name", ["validation", "test", "noisy"])
def test_class_metrics(classes, name):
    p, y, found = kept(classes, f"{name}.probabilities"), kept(classes, f"{name}.labels"), classes.metrics[name]
    y = y.astype(int)
    hits, of_label = p.argmax(-1) == y, p[np.arange(len(y)), y]
    assert found["accuracy"] == pytest.approx(hits.mean(), abs=1e-12)
    assert found["nll"] == pytest.approx(-np.log(of_label).mean(), rel=1e-5)
    assert found["brier"] == pytest.approx(((p - np.eye(10)[y]) ** 2).sum(-1).mean(), rel=1e-5)
    assert found["entropy"] == pytest.approx(entropies(p).mean(), rel=1e-5)
    expected = kept(classes, f"{name}.expected_entropy").mean()
    assert found["expected_entropy"] == pytest.approx(expected, rel=1e-5)
    assert found["mutual_information"] == pytest.approx(entropies(p).mean() - expected, abs=1e-5)
    assert found["accuracy"] > 0.3 and found["mutual_information"] > 1e-2


def calibration_error(p, y, bins):
    confidence, hits = p.max(-1), p.argmax(-1) == y
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return sum(abs((hits - confidence)[place == b].sum()) for b in range(bins)) / len(y)


@pytest.mark.parametrize("name", ["test", "noisy"])
def test_calibration_error(classes, name):
    p, y = kept(classes, f"{name}.probabilities"), kept(classes, f"{name}.labels")
    assert classes.metrics[name]["ece"] == pytest.approx(calibration_error(p, y, 15), rel=1e-4)


def test_calibration_error_has_15_bins_of_equal_width():
    p, y = torch.randn(500, 3).double().softmax(-1), torch.randint(3, (500,))
    found = class_metrics(ClassPrediction(p, torch.zeros(500), 1), y)["ece"]
    assert found == pytest.approx(calibration_error(p.numpy(), y.numpy(), 15), rel=1e-9)
    assert found != pytest.approx(calibration_error(p.numpy(), y.numpy(), 14), rel=1e-3)


def test_other_views_of_calibration_are_those_of_the_metrics(classes):
    p, y = (classes.predictions[f"noisy.{key}"] for key in ("probabilities", "labels"))
    found = classes.metrics["noisy"]
    assert found["ece_adaptive"] == pytest.approx(float(metrics.adaptive_calibration_error(p, y)), abs=1e-3)
    assert found["ece_classwise"] == pytest.approx(float(metrics.classwise_calibration_error(p, y)), abs=1e-4)
    assert found["aurc"] == pytest.approx(float(metrics.aurc(p, y)), abs=1e-4)
    assert len({found[key] for key in ("ece", "ece_adaptive", "ece_classwise", "aurc")}) == 4


def test_out_of_distribution_scores(classes):
    foreign, familiar = (kept(classes, f"{name}.probabilities") for name in ("photographs", "test"))
    score = np.concatenate([entropies(familiar), entropies(foreign)])
    is_foreign = np.r_[np.zeros(len(familiar)), np.ones(len(foreign))]
    found = classes.metrics["photographs"]
    assert found["auroc_entropy"] == pytest.approx(roc_auc_score(is_foreign, score), abs=1e-4)
    both = ((familiar, "test"), (foreign, "photographs"))
    parts = [entropies(p) - kept(classes, f"{name}.expected_entropy") for p, name in both]
    information = roc_auc_score(is_foreign, np.concatenate(parts))
    assert found["auroc_mutual_information"] == pytest.approx(information, abs=1e-3)
    assert found["aupr_entropy"] == pytest.approx(average_precision_score(is_foreign, score), abs=1e-4)
    fprs, tprs, _ = roc_curve(is_foreign, score, drop_intermediate=False)
    assert found["fpr95_entropy"] == pytest.approx(fprs[tprs >= 0.95].min(), abs=0.01)
    assert "accuracy" not in found and "photographs.labels" not in classes.predictions


@pytest.mark.parametrize("name", ["validation", "test", "gap"])
def test_regression_metrics(reals, name):
    split = reals.spec.task.load()
    split = {"validation": split.validation, "test": split.test, "gap": split.shifted["gap"]}[name]
    y, found = kept(reals, f"{name}.y"), reals.metrics[name]
    np.testing.assert_array_equal(y, split.y.double().numpy())
    assert found["rmse"] == pytest.approx(math.sqrt(((kept(reals, f"{name}.mean") - y) ** 2).mean()), rel=1e-6)
    inside = (kept(reals, f"{name}.lower") <= y) & (y <= kept(reals, f"{name}.upper"))
    assert found["coverage_90"] == pytest.approx(inside.mean(), abs=1e-12)
    assert found["sd"] == pytest.approx(kept(reals, f"{name}.sd").mean(), rel=1e-6)

    prediction = reals.posterior.predict(split.x, seed=reals.spec.seed)
    loc, scale = prediction.loc.numpy(), np.broadcast_to(prediction.scale.numpy(), prediction.loc.shape)
    density = logsumexp(norm.logpdf(y, loc, scale).sum(-1), axis=0) - math.log(len(loc))
    assert found["nll"] == pytest.approx(-density.mean(), rel=1e-6)
    assert found["model_sd"] == pytest.approx(loc.std(0).mean(), rel=1e-6)
    assert found["data_sd"] == pytest.approx(0.1, rel=1e-5)
    for edge, level in (("lower", 0.05), ("upper", 0.95)):
        below = norm.cdf(kept(reals, f"{name}.{edge}"), loc, scale).mean(0)
        np.testing.assert_allclose(below, level, atol=1e-4)


def test_the_posterior_is_less_sure_where_nothing_was_seen(reals):
    assert reals.metrics["gap"]["model_sd"] > 0


def test_evaluation_is_repeatable_and_follows_its_seed(classes):
    data = classes.spec.task.load()
    again, predictions = evaluate(classes.posterior, data, seed=classes.spec.seed)
    assert again == {name: classes.metrics[name] for name in again}
    assert all(torch.equal(predictions[name], value) for name, value in classes.predictions.items())
    other, _ = evaluate(classes.posterior, data, seed=5)
    assert other["test"]["nll"] != again["test"]["nll"]
    one, _ = evaluate(classes.posterior, data, num_samples=1)
    assert one["test"]["mutual_information"] == pytest.approx(0, abs=1e-5)


def test_a_net_that_knows_everything_is_perfect_and_one_that_knows_nothing_is_uniform():
    x = torch.eye(4).repeat(10, 1)
    y = x.argmax(-1)
    task = Task.from_arrays(x, y, x, y)

    class Scaled(torch.nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = torch.nn.Parameter(torch.tensor([factor]))

        def forward(self, x):
            return x * self.factor

    def test_metrics(factor):
        driver = {"ml": {"epochs": 1, "learning_rate": 1e-12}}
        return fit(Spec(task=task, model=Scaled(factor), prior="learned", driver=driver)).metrics["test"]

    sure, unsure = test_metrics(50.0), test_metrics(0.0)
    assert sure["accuracy"] == 1
    assert sure["nll"] == pytest.approx(0, abs=1e-6)
    assert sure["brier"] == pytest.approx(0, abs=1e-6)
    assert unsure["nll"] == pytest.approx(math.log(4), rel=1e-5)
    assert unsure["brier"] == pytest.approx(0.75, rel=1e-5)
    assert unsure["entropy"] == pytest.approx(math.log(4), rel=1e-5)
    assert unsure["ece"] == pytest.approx(abs(unsure["accuracy"] - 0.25), abs=1e-5)


def test_corruptions_are_measured_apart_and_together(capsys, tmp_path):
    task = {"digits": {"train": 60, "validation": 20, "shifts": ["noise", "contrast"], "shift_examples": 30}}
    run = fit(Spec(task=task, model=NET, driver={"ml": {"epochs": 1}}), out=tmp_path / "run")
    names = [f"{kind}-{severity}" for kind in ("noise", "contrast") for severity in range(1, 6)]
    for metric in ("accuracy", "nll", "ece", "brier"):
        assert run.metrics["shifted"][metric] == pytest.approx(np.mean([run.metrics[n][metric] for n in names]))
    Console(width=200).print(metrics_table(run.metrics))
    shown = capsys.readouterr().out
    assert "shifted" in shown and "noise-1" not in shown
    source = json.loads((tmp_path / "run" / "data.json").read_text())
    assert source["split"] == 0 and source["sizes"]["noise-3"] == 30 and source["sizes"]["train"] == 60


def test_the_members_of_an_ensemble_are_measured_alone_whatever_the_shifts():
    task = {"digits": {"train": 60, "validation": 20, "shifts": ["noise"], "shift_examples": 10}}
    driver = {"deep_ensemble": {"size": 2, "member": {"ml": {"epochs": 1}}}}
    run = fit(Spec(task=task, model=NET, driver=driver, calibration="temperature_scaling"))
    alone = run.metrics["fit"]["members_test"]
    assert len(alone) == 2 and "noise-5" in run.metrics
    x, y = (getattr(run.spec.task.load().test, part) for part in ("x", "y"))
    for member, found in zip(run.posterior.members, alone, strict=True):
        p = member.predict(x, seed=run.spec.seed).probabilities
        assert found["nll"] == pytest.approx(float(metrics.negative_log_likelihood(p, y)))


def test_calibration_is_fitted_on_validation_data_and_told_apart(digits, tmp_path):
    run = fit(Spec(**digits, calibration="temperature_scaling"), out=tmp_path / "run")
    plain = fit(Spec(**digits))
    fitted = run.metrics["fit"]["calibration"]
    assert fitted["nll_before"] == pytest.approx(plain.metrics["validation"]["nll"], rel=1e-6)
    assert fitted["nll"] == pytest.approx(run.metrics["validation"]["nll"], rel=1e-6)
    assert fitted["nll"] <= fitted["nll_before"] and fitted["temperature"] != pytest.approx(1, abs=1e-3)
    assert run.metrics["test"]["nll_uncalibrated"] == plain.metrics["test"]["nll"]
    assert run.metrics["test"]["ece_uncalibrated"] == plain.metrics["test"]["ece"]
    assert run.metrics["test"]["nll"] != plain.metrics["test"]["nll"]
    assert "nll_uncalibrated" not in plain.metrics["test"]
    x = run.spec.task.load().test.x
    again = load(tmp_path / "run")
    assert again.spec.calibration == run.spec.calibration
    assert torch.allclose(again.posterior.predict(x).probabilities, run.posterior.predict(x).probabilities)
    assert torch.allclose(again.posterior.predict(x).probabilities.float(), run.predictions["test.probabilities"])


def test_a_calibration_that_cannot_be_fitted_is_refused_before_any_work(toy, digits):
    spec = Spec(**toy, calibration="temperature_scaling")
    with pytest.raises(SpecError, match="calibration: got temperature_scaling; accepted: none: only classes"):
        fit(spec)
    x, y = torch.randn(20, 3), torch.arange(20) % 2
    task = Task.from_arrays(x, y, x, y)
    object.__setattr__(task, "validation", 0.0)
    spec = Spec(task=task, model=digits["model"], driver=digits["driver"], calibration="temperature_scaling")
    with pytest.raises(SpecError, match="accepted: none: the task has no validation examples to fit it on"):
        fit(spec)


def test_a_posterior_with_a_density_has_a_k_hat(reals, toy, monkeypatch):
    data = reals.spec.task.load()
    fitted = reals.metrics["fit"]
    found = psis(reals.posterior, data.data, 200, seed=reals.spec.seed)
    assert (found.kl_weight, len(data.data)) == (0.1, 60)
    assert fitted["k_hat"] == found.k_hat and fitted["k_hat_threshold"] == 1 - 1 / math.log10(200)
    assert fitted["k_hat"] != psis(reals.posterior, data.data, 200, seed=1).k_hat  # planted: other draws
    monkeypatch.setattr(evaluation, "MOST_PASSES", 100 * 60 + 59)
    assert k_hat(reals.posterior, data)["k_hat_threshold"] == 0.5  # of 100 draws
    monkeypatch.setattr(evaluation, "MOST_PASSES", 50 * 60 - 1)
    assert k_hat(reals.posterior, data) == {}


@pytest.mark.parametrize(
    "parts",
    [
        {"driver": {"ml": {"epochs": 1}}},
        {"driver": {"deep_ensemble": {"size": 2, "member": {"svi": {"epochs": 1}}}}},
        {"prior": {"*.rows": "dirichlet_rows", "*": "normal"}},
    ],
)
def test_others_have_none_and_say_why(toy, parts):
    run = fit(Spec(**{**toy, **parts}))
    assert "k_hat" not in run.metrics["fit"]
    with pytest.raises(SettingError, match="expected a posterior with a density, such as a mean-field guide; "):
        psis(run.posterior, run.spec.task.load().data)
