"""Compiled training gives the numbers of plain training; where it cannot be compiled it says so once."""

import math
import os
import shutil
import threading
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

from pyroformer.guides import DirichletRows, Guide, LogisticNormalRows, MCDropout, MeanField
from pyroformer.inference import (
    ML,
    SVI,
    Checkpoint,
    Data,
    InferenceError,
    Monitor,
    OnePassELBO,
    Renyi,
    compiled_objective,
)
from pyroformer.inference.compiled_objective import CompiledObjective
from pyroformer.models import BayesianModel, Features, Gaussian, Output, Transformer
from pyroformer.priors import DirichletRows as PriorRows
from pyroformer.priors import Learned, Normal, compiling
from pyroformer.priors import LogisticNormalRows as LogisticPriorRows

NEEDS_COMPILER = pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler")
X = torch.randn(21, 1, generator=torch.Generator().manual_seed(0))
Y = 0.5 * X + 0.1
SHORT = {"epochs": 2, "batch_size": 16, "validation_samples": 2, "dtype": "float64"}  # the last of 2 batches has 5


def transformer(prior):
    net = Transformer(Features(1, copies=2), Output(1), width=2, heads=1, depth=1)
    return BayesianModel(net, prior, Gaussian(scale=0.5, noise="learned"))


def small(prior=None, layer=None):
    """A net of two layers, with one between them that may draw random numbers of its own, in place."""
    layers = nn.Linear(1, 2), layer or nn.Tanh(), nn.Linear(2, 1)
    return BayesianModel(nn.Sequential(*layers), prior or Normal(), Gaussian(scale=0.5))


def with_rows(prior):
    return transformer({"*.rows": prior, "head.*": Normal(), "*": Learned()})


CASES = {
    "mean field": (SVI(kl_warmup=0.6, clip_norm=1.0, **SHORT), MeanField(), lambda: transformer(Normal())),
    "particles": (SVI(particles=2, temperature=0.5, **SHORT), MeanField(), small),
    "a bound": (SVI(particles=2, bound=Renyi(), **SHORT), MeanField(), small),
    "single precision": (SVI(**{**SHORT, "dtype": "float32"}), MeanField(), small),
    "dropout in the net": (SVI(**SHORT), MeanField(), lambda: small(layer=nn.Dropout(0.5))),
    "dropout as a guide": (SVI(**SHORT), {"*.weight": MCDropout(), "*": MeanField()}, small),
    "rows": (
        SVI(row_kl_warmup=0.6, **SHORT),
        {"*.rows": LogisticNormalRows(), "*": MeanField()},
        lambda: with_rows(LogisticPriorRows()),
    ),
    "ml": (ML(**SHORT), None, lambda: small(Learned())),
}


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that were to be compiled, which run as they are instead: that takes no time."""
    made = []

    def kept(graph, dynamic):
        assert not dynamic
        made.append(graph)
        return graph

    monkeypatch.setattr(compiled_objective, "Compiled", kept)
    return made


def numbers(case, compile, seed=3, data=None):
    """Every number of a run: its history, and what was learned."""
    driver, guide, model = CASES[case]
    torch.manual_seed(7)
    monitor = Monitor()
    posterior = replace(driver, compile=compile).run(model(), guide, data or Data(X, Y, X, Y), seed, monitor)
    history = [v for record in monitor.history for key, v in record.items() if key != "seconds" and v is not None]
    learned = [p.detach().double().flatten() for p in (*posterior.guide.parameters(), *posterior.model.parameters())]
    return torch.cat([torch.tensor(history, dtype=torch.float64), *learned])


def close(one, other, case):
    tolerance = 2e-3 if CASES[case][0].dtype == "float32" else 1e-9
    return torch.allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", CASES)
def test_the_graph_gives_the_numbers_of_the_plain_run(case, graphs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = numbers(case, compile=True)
    assert len(graphs) == 1  # one for all minibatches but the last, smaller one
    assert close(found, numbers(case, compile=False), case)
    if case != "ml":
        assert not close(found, numbers(case, compile=False, seed=4), case)  # planted: other random numbers


def test_numbers_in_another_order_are_noticed(graphs, monkeypatch):
    """The twin: a graph whose noise is drawn twice."""
    plain = numbers("single precision", compile=False)
    draw = compiled_objective.lifted
    monkeypatch.setattr(compiled_objective, "lifted", lambda *a: [lambda d=d: (d(), d())[1] for d in draw(*a)])
    monkeypatch.setattr(compiled_objective, "agree", lambda *_: True)
    assert not close(numbers("single precision", compile=True), plain, "single precision")


@NEEDS_COMPILER
def test_compiled_is_plain(monkeypatch):
    monkeypatch.setattr(compiling, "_told", threading.Event())
    torch.manual_seed(0)
    model = BayesianModel(nn.Linear(1, 1), Normal(), Gaussian(scale=0.5))
    settings = {**SHORT, "batch_size": 21}
    runs = [SVI(compile=each, **settings).run(model, MeanField(), Data(X, Y), 3) for each in (True, False)]
    compiled, plain = (torch.cat([*run.guide.families[0].parameters()]) for run in runs)
    assert torch.allclose(compiled, plain, rtol=1e-9, atol=1e-9)
    assert not compiling._told.is_set()  # it did compile


def test_dirichlet_rows_train_uncompiled_and_say_so_once(graphs):
    driver, guide = SVI(compile=True, **SHORT), {"*.rows": DirichletRows(), "*": MeanField()}
    with pytest.warns(RuntimeWarning, match="training runs uncompiled, .* depends on values of tensors") as told:
        driver.run(with_rows(PriorRows()), guide, Data(X, Y), 3)
    assert len([each for each in told if "uncompiled" in str(each.message)]) == 1 and not graphs


class Running(nn.Module):
    """Running statistics, which a step changes."""

    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(1), nn.Linear(1, 1)

    def forward(self, x):
        return self.linear(self.norm(x))


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, x):
        y = self.linear(x)
        return y if y.sum() > 0 else 2 * y


@pytest.mark.parametrize("net", [Running, Branching])
def test_what_cannot_be_written_down_runs_as_it_is(net, graphs):
    torch.manual_seed(0)
    model = BayesianModel(net(), {"linear.*": Normal(), "*": Learned()} if net is Running else Normal(), Gaussian())
    runs = []
    for compile in (False, True):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = SVI(compile=compile, **SHORT).run(model, MeanField(), Data(X, Y), 3)
        assert len([each for each in told if "training runs uncompiled" in str(each.message)]) == compile
        runs.append({**found.model.state_dict(), **found.tensors()})
    assert not graphs and all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_the_same_failure_in_the_same_words(graphs):
    """At a rate that is too large both stop at the same step, with the same reason."""
    said = []
    for compile in (False, True):
        torch.manual_seed(0)
        driver = SVI(learning_rate=1e3, schedule="constant", warmup=0.0, compile=compile, **{**SHORT, "epochs": 9})
        with pytest.raises(InferenceError) as stopped:
            driver.run(small(), MeanField(), Data(X, Y), 3)
        said.append(str(stopped.value))
        assert stopped.value.posterior is not None
    assert said[0] == said[1] and "first" in said[0]
    assert len(graphs) == 1


class Killed(Exception):
    pass


class Deadly(Monitor):
    def record(self, entry):
        super().record(entry)
        raise Killed


def test_a_stopped_run_goes_on_bit_for_bit(graphs, tmp_path):
    def run(monitor):
        torch.manual_seed(7)
        return SVI(compile=True, **SHORT).run(small(), MeanField(), Data(X, Y), 3, monitor).tensors()

    with pytest.raises(Killed):
        run(Deadly(Checkpoint(tmp_path, every=0.0)))
    resumed, whole = run(Monitor(Checkpoint(tmp_path, every=0.0))), run(Monitor())
    assert len(graphs) == 3 and all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_the_setting_is_part_of_the_work():
    torch.manual_seed(7)
    model, data = small(), Data(X, Y)
    one, other = (SVI(compile=each).work(model, MeanField(), data, 3) for each in (True, False))
    assert one != other


def isclose(one, other):
    return math.isclose(one, other, rel_tol=1e-6)  # the scale of the noise was once in single precision


def test_a_step_by_hand(graphs):
    """One normal weight, one normal observation: the loss and its gradients in closed form."""
    model = BayesianModel(nn.Linear(1, 1, bias=False), Normal(scale=2.0), Gaussian(scale=0.5)).double()
    guide = Guide(model, MeanField(init_scale=0.1), (torch.ones(2, 1).double(),))
    parameters = {f"guide.{name}": p for name, p in guide.named_parameters()}
    compiled = CompiledObjective(OnePassELBO(), guide, parameters, 6)
    x, y = torch.tensor([[1.0], [2.0]]).double(), torch.tensor([[0.5], [1.5]]).double()
    torch.manual_seed(0)
    step = compiled(x, y, (0.5, 1.0))
    torch.manual_seed(0)
    noise = float(torch.randn(1, 1, dtype=torch.float64))
    loc = guide.families[0].loc.item()
    weight = loc + 0.1 * noise
    errors = [(0.5 - weight) / 0.5, (1.5 - 2 * weight) / 0.5]
    likelihood = 3 * sum(-0.5 * e**2 - math.log(0.5) - 0.5 * math.log(2 * math.pi) for e in errors)
    kl = math.log(2 / 0.1) + (0.1**2 + loc**2) / 8 - 0.5
    assert isclose(float(step.terms.log_likelihood), likelihood) and isclose(float(step.terms.kl), kl)
    assert isclose(float(step.loss), (0.5 * kl - likelihood) / 6)
    slope = 3 * (errors[0] / 0.5 + 2 * errors[1] / 0.5)
    assert isclose(float(step.gradients["guide.families.0.loc"]), (0.5 * loc / 4 - slope) / 6)
    in_scale = 0.5 * (0.1**2 / 4 - 1) - slope * 0.1 * noise
    assert isclose(float(step.gradients["guide.families.0.log_scale"]), in_scale / 6)
    assert not isclose(float(step.loss), (kl - likelihood) / 6)  # planted: the KL in full
