"""Comparisons made by hand or by chance, for tables, plots and pages."""

import math
from dataclasses import replace

import pytest
import torch

from pyroformer.inference import metrics
from pyroformer.inference.marginals import Marginal
from pyroformer.results import Comparison, Result

METHODS = {  # sharpness of the logits, signal, spread of the draws
    "ML": (3.2, 2.1, 0.0),
    "MAP, N(0, 1)": (2.4, 2.0, 0.0),
    "ensemble of 5": (2.2, 2.2, 0.5),
    "mean field, N(0, 1)": (1.6, 1.7, 0.7),
    "Dirichlet rows, KL weight 0": (2.6, 2.1, 0.3),
}
SPEC = {
    "task": {"digits": {"train": 1200}},
    "model": {"transformer": {"width": 64, "heads": 4}},
    "prior": {"*.rows": {"dirichlet_rows": {"kl_weight": 0}}, "*": "learned"},
    "driver": {"svi": {"epochs": 40, "clip_norm": None}},
}


def class_predictions(name, method, seed, labels, shift=0.0, classes=10):
    """Probabilities as an average over draws of noisy logits that know the label to some degree."""
    sharpness, signal, spread = METHODS.get(method, (2.0, 2.0, 0.3))
    generator = torch.Generator().manual_seed(seed * 1000 + sum(map(ord, name + method)))
    known = labels.clamp(min=0)
    clean = torch.randn(*labels.shape, classes, generator=generator) * (1 + shift)
    clean += (signal * (1 - 0.5 * shift) + 1.5) * torch.nn.functional.one_hot(known, classes)
    noise = spread * (1 + shift) * torch.randn(8, *clean.shape, generator=generator)
    draws = (sharpness * (clean + noise)).softmax(-1)
    expected = torch.special.entr(draws).sum(-1).mean(0)
    return draws.mean(0), expected


def class_metrics(probabilities, expected, labels=None):
    p, h = probabilities.flatten(0, -2), expected.flatten()
    measured = {}
    if labels is not None:
        seen = labels.flatten() >= 0
        p, h, y = p[seen], h[seen], labels.flatten()[seen]
        measured = {
            "accuracy": float(metrics.accuracy(p, y)),
            "nll": float(metrics.negative_log_likelihood(p, y)),
            "brier": float(metrics.brier(p, y)),
            "ece": float(metrics.calibration_error(p, y)),
            "ece_adaptive": float(metrics.adaptive_calibration_error(p, y)),
            "ece_classwise": float(metrics.classwise_calibration_error(p, y)),
            "aurc": float(metrics.aurc(p, y)),
        }
    entropy = metrics.entropy(p)
    return {
        **measured,
        "entropy": float(entropy.mean()),
        "mutual_information": float((entropy - h).clamp(min=0).mean()),
    }


def svi_history(epochs, seed, *, start=-9000.0, end=-500.0, kl=900.0, beta=1.0, rows=0.0, level=0.25, **labels):
    """What an optimising driver records, with noise of the seed."""
    generator = torch.Generator().manual_seed(seed)
    history = []
    for epoch in range(1, epochs + 1):
        fade = math.exp(-epoch / (epochs / 8))
        noise = 0.03 * float(torch.randn((), generator=generator))
        likelihood = end + (start - end) * fade + abs(end) * noise
        parts = {"log_likelihood": likelihood, "kl": kl * (1 + 0.4 * (1 - fade)), "row_kl": rows * (1 - fade)}
        elbo = likelihood - parts["kl"] - parts["row_kl"]
        validation = level + 2 * fade + 0.15 * (epoch / epochs) ** 2 + 0.3 * noise
        history.append(
            {
                **labels,
                "epoch": epoch,
                "elbo": elbo,
                **parts,
                "beta": beta,
                "validation_nll": validation,
                "seconds": epoch / 3,
            }
        )
    return history


def class_result(method, seed, *, size=300, tokens=None):
    shape = (size,) if tokens is None else (size, tokens)
    labels = torch.randint(10, shape, generator=torch.Generator().manual_seed(7))
    if tokens is not None:
        labels[:, -2:] = -1
    measured, kept, test = {}, {}, None
    for name, shift in (("validation", 0.0), ("test", 0.0), ("noisy", 0.8)):
        p, h = class_predictions(name, method, seed, labels, shift)
        measured[name] = class_metrics(p, h, labels)
        kept |= {f"{name}.probabilities": p, f"{name}.expected_entropy": h, f"{name}.labels": labels}
        test = (p, h) if name == "test" else test
    p, h = class_predictions("photographs", method, seed, torch.full(shape, -1), 0.6)
    scores = [(metrics.entropy(q).flatten(), g.flatten()) for q, g in (test, (p, h))]
    measured["photographs"] = {
        "auroc_entropy": float(metrics.auroc(scores[0][0], scores[1][0])),
        "auroc_mutual_information": float(metrics.auroc(*((e - g).clamp(min=0) for e, g in scores))),
        "aupr_entropy": float(metrics.aupr(scores[0][0], scores[1][0])),
        "fpr95_entropy": float(metrics.fpr_at_tpr(scores[0][0], scores[1][0])),
        **class_metrics(p, h),
    }
    kept |= {"photographs.probabilities": p, "photographs.expected_entropy": h}
    for severity in range(1, 6):
        p, h = class_predictions("blur", method, seed, labels, severity / 4)
        measured[f"blur-{severity}"] = class_metrics(p, h, labels)
    if "mean field" in method:
        measured["test"] |= {"nll_uncalibrated": 0.5 + 0.01 * seed, "ece_uncalibrated": 0.2}
    measured["fit"] = fit_info(method, seed)
    result = Result(method, seed, {**SPEC, "seed": seed}, measured, history_of(method, seed), kept)
    return replace(result, marginals=site_values(seed))


def site_values(seed):
    """Values of weights in two layers, of a bias and of a hyper-site."""
    generator = torch.Generator().manual_seed(seed)
    names = ("first.weight", "first.bias", "head.weight_scale", "head.weight")
    values = torch.randn(len(names), 2, 200, generator=generator)
    return {
        name: Marginal(0.1 * after, before if "first" in name else None)
        for name, (after, before) in zip(names, values, strict=True)
    }


def history_of(method, seed):
    level = 0.2 + 0.05 * list(METHODS).index(method)
    if "ensemble" in method:
        members = [svi_history(40, seed * 10 + member, beta=0.0, level=level, member=member) for member in range(3)]
        return [record for history in members for record in history]
    rows = 120.0 if "rows" in method else 0.0
    return svi_history(40, seed, beta=0.0 if method == "ML" else 1.0, rows=rows, level=level)


def fit_info(method, seed):
    info = {
        "kept": f"best (epoch {30 + seed})",
        "best_epoch": 30 + seed,
        "best_validation_nll": 0.3,
        "seconds": 20.0 + seed,
    }
    if "ensemble" in method:
        return {"members": [{**info, "guide": {}} for _ in range(3)]}
    guide = {}
    if "mean field" in method:
        guide = {"mean_field": {"scale": {"median": 0.05 + 0.001 * seed, "min": 0.001, "max": 0.9}}}
    if "rows" in method:
        heads = [[28.1 + seed, 30.4, 45.0, 12.9], [60.0 + seed, 81.2, 33.3, 31.0]]
        guide = {"dirichlet_rows": {"sharpness": {f"blocks.{i}.attention.rows": h for i, h in enumerate(heads)}}}
    tail = {"k_hat": 12.5 + seed, "k_hat_threshold": 0.5} if "mean field" in method else {}
    return {**info, "temperature": 1.0, "kl_weight": 1.0, "guide": guide, **tail}


def real_result(method, seed, spread):
    """A curve seen with noise, predicted with a band that widens in the gap by ``spread``."""
    generator = torch.Generator().manual_seed(seed)
    measured, kept = {}, {}
    for name, low, high in (("test", 0.7, 2.0), ("gap", -0.7, 0.7)):
        x = low + (high - low) * torch.rand(80, 1, generator=generator)
        x = x * (torch.randint(2, x.shape, generator=generator) * 2 - 1 if name == "test" else 1)
        y = torch.sin(4 * x) + 0.5 * x + 0.1 * torch.randn(x.shape, generator=generator)
        sd = 0.1 + spread * (0.8 - x.abs()).clamp(min=0)
        mean = torch.sin(4 * x) * (1 if name == "test" else 0.6) + 0.5 * x
        lower, upper = mean - 1.645 * sd, mean + 1.645 * sd
        measured[name] = {
            "rmse": float(metrics.rmse(mean, y)),
            "nll": float(-torch.distributions.Normal(mean, sd).log_prob(y).mean()),
            "coverage_90": float(metrics.interval_coverage(y, lower, upper)),
            "sd": float(sd.mean()),
        }
        kept |= {f"{name}.{k}": v for k, v in dict(x=x, y=y, mean=mean, sd=sd, lower=lower, upper=upper).items()}
    measured["fit"] = {"seconds": 3.0 + seed, "kept": "last", "guide": {}}
    return Result(method, seed, {**SPEC, "seed": seed}, measured, svi_history(30, seed, end=-20.0, kl=60.0), kept)


@pytest.fixture(scope="session")
def classification():
    results = [class_result(method, seed) for seed in range(3) for method in METHODS]
    failures = [("nuts", 1, "draw 12: the potential energy is NaN")]
    return Comparison("Digits", "A small transformer on digits.", results, failures)


@pytest.fixture(scope="session")
def regression():
    spreads = {"MAP": 0.0, "mean field": 0.4, "ensemble of 5": 0.9}
    results = [real_result(method, seed, spread) for seed in range(3) for method, spread in spreads.items()]
    return Comparison("A curve with a gap", "", results)


@pytest.fixture
def numbers():
    """Makes a comparison of one metric from the values of each method, one a seed."""

    def make(values, group="test", metric="nll"):
        results = [
            Result(method, seed, {}, {group: {metric: value}}, [], {})
            for method, seeds in values.items()
            for seed, value in enumerate(seeds)
        ]
        return Comparison("numbers", "", results)

    return make


@pytest.fixture(name="class_result")
def class_result_fixture():
    return class_result


@pytest.fixture(name="real_result")
def real_result_fixture():
    return real_result
