"""A driver that was stopped and started again gives what it would have given without the stop, bit for bit."""

from functools import cache

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyroformer.guides import Flow, FullRank, Guide, LowRank, MatrixNormal, MCDropout, MeanField, Radial
from pyroformer.inference import (
    HMC,
    IVON,
    MAP,
    MCLMC,
    ML,
    NUTS,
    SGHMC,
    SGLD,
    SGNHT,
    SVI,
    SWAG,
    Checkpoint,
    CheesHMC,
    CyclicalSteps,
    Data,
    DecreasingSteps,
    DeepEnsemble,
    Laplace,
    Monitor,
    Renyi,
)
from pyroformer.inference.files import read_tensors_and_content, write_tensors
from pyroformer.inference.samplers import Streams
from pyroformer.models import BayesianModel, Gaussian, Output, Series, Transformer
from pyroformer.priors import DirichletRows as PriorRows
from pyroformer.priors import Learned, Normal

X = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
Y = X.sum(-1, keepdim=True)
WITH, WITHOUT = Data(X, Y, X[:7] + 0.1, Y[:7]), Data(X, Y)


class Net(nn.Sequential):
    """Dropout and batch statistics: everything that an epoch can leave behind for the next."""

    def __init__(self):
        super().__init__(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 1))


class Plain(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))


CASES = {
    "svi": (SVI(epochs=6, batch_size=16), MeanField(), WITH),
    "svi, learned parameters": (SVI(epochs=6, batch_size=16, optimizer="adamw", kl_warmup=0.3), MeanField(), WITH),
    "svi, no validation": (SVI(epochs=6, batch_size=16, particles=2, schedule="constant"), MeanField(), WITHOUT),
    "svi, bound": (SVI(epochs=6, batch_size=16, particles=3, bound=Renyi()), MeanField(), WITH),
    "svi, last": (SVI(epochs=6, batch_size=16, keep="last", validate_every=4), MeanField(), WITH),
    "map": (MAP(epochs=6, batch_size=16), None, WITH),
    "ml, sgd": (ML(epochs=6, batch_size=16, optimizer="sgd", learning_rate=0.05, clip_norm=1.0), None, WITH),
    "double": (SVI(epochs=6, batch_size=16, dtype="float64"), MeanField(), WITH),
    "ensemble": (DeepEnsemble(member=ML(epochs=3, batch_size=16), size=3), None, WITH),
    "ensemble of guides": (DeepEnsemble(member=SVI(epochs=3, batch_size=16), size=2), MeanField(), WITH),
    "svi, started": (SVI(epochs=3, batch_size=16, start=ML(epochs=3, batch_size=16)), MeanField(), WITH),
    "swag": (SWAG(epochs=6, rank=3, start=MAP(epochs=3, batch_size=16)), None, WITH),
    "swag, learned parameters": (SWAG(epochs=6, rank=3, start=ML(epochs=2, batch_size=16)), None, WITHOUT),
    "ensemble of swag": (DeepEnsemble(member=SWAG(epochs=2, start=ML(epochs=2)), size=2), None, WITHOUT),
    "ivon": (IVON(epochs=6, batch_size=16), None, WITH),
    "laplace": (Laplace(start=MAP(epochs=6, batch_size=16), hessian="fisher"), None, WITH),
    "joint": (SVI(epochs=6, batch_size=16), {"0.*": LowRank(rank=2), "1.*": Radial(), "*": FullRank()}, WITH),
    "flow": (SVI(epochs=6, batch_size=16), {"0.*": Flow(), "*": MatrixNormal()}, WITH),
    "nuts": (NUTS(num_samples=6, warmup_steps=4, chains=3, max_tree_depth=3), None, WITHOUT),
    "hmc": (HMC(num_samples=5, warmup_steps=4, chains=2, thinning=2, max_steps=5), None, WITHOUT),
    "chees_hmc": (CheesHMC(num_samples=5, warmup_steps=4, chains=2, max_steps=3), None, WITHOUT),
    "mclmc": (MCLMC(num_samples=5, warmup_steps=4, chains=2, max_steps=3), None, WITHOUT),
    "mclmc, unadjusted": (
        MCLMC(num_samples=5, warmup_steps=4, chains=2, adjusted=False, steps_per_draw=2),
        None,
        WITHOUT,
    ),
    "nuts, started": (
        NUTS(num_samples=4, warmup_steps=3, chains=2, max_tree_depth=2, start=ML(epochs=2, batch_size=16)),
        None,
        WITHOUT,
    ),
    "sgld": (SGLD(chains=2, epochs=6, batch_size=16, num_samples=9, validate_every=2), None, WITH),
    "sgld, decreasing": (
        SGLD(chains=2, epochs=6, num_samples=5, schedule=DecreasingSteps(), subtract_noise=True, batch_size=16),
        None,
        WITHOUT,
    ),
    "sghmc": (
        SGHMC(chains=2, epochs=6, batch_size=16, start=ML(epochs=1), schedule=CyclicalSteps(cycles=2)),
        None,
        WITH,
    ),
    "sgnht": (SGNHT(chains=1, epochs=6, batch_size=16, dtype="float64"), None, WITH),
}


class Killed(Exception):
    """What stands for a kill."""


class Deadly(Monitor):
    """A monitor that stops its driver after some records."""

    def __init__(self, checkpoint, after):
        super().__init__(checkpoint)
        self.left = after

    def record(self, entry):
        super().record(entry)
        self.left -= 1
        if not self.left:
            raise Killed


def model(case):
    torch.manual_seed(3)
    prior = {"0.weight": Normal(), "*": Learned()} if "learned" in case else Normal(scale=2.0)
    plain = case.startswith(("nuts", "hmc", "chees", "mclmc")) or case in ("svi, no validation", "svi, bound")
    return BayesianModel(Plain() if plain else Net(), prior, Gaussian(scale=0.5))


def run(case, monitor, seed=5, data=None):
    driver, guide, own = CASES[case]
    return driver.run(model(case), guide, data or own, seed, monitor)


def everything(posterior, monitor):
    """All numbers of a posterior and the history, without the seconds."""
    members = getattr(posterior, "members", [posterior])
    state = [{**m.model.state_dict(), **m.tensors()} for m in members]
    history = [{key: value for key, value in record.items() if key != "seconds"} for record in monitor.history]
    return state, history


def same(one, other):
    (states, history), (others, other_history) = one, other
    return history == other_history and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(states, others, strict=True)
    )


def whole(case, **changes):
    monitor = Monitor()
    return everything(run(case, monitor, **changes), monitor)


undisturbed = cache(whole)


def resumed(case, folder, kills, **changes):
    for after in kills:
        with pytest.raises(Killed):
            run(case, Deadly(Checkpoint(folder, every=0.0), after), **changes)
    monitor = Monitor(Checkpoint(folder, every=0.0))
    return everything(run(case, monitor, **changes), monitor)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kills", [[1], [4], [2, 5]])
def test_stopped_runs_end_as_whole_ones(case, kills, tmp_path):
    assert same(resumed(case, tmp_path, kills), undisturbed(case))


def test_a_finished_part_is_not_run_again(tmp_path, monkeypatch):
    run("ensemble", Monitor(Checkpoint(tmp_path, every=1e9)))
    monkeypatch.setattr("pyroformer.inference.optimize.Fit.step", None)
    monitor = Monitor(Checkpoint(tmp_path))
    assert same(everything(run("ensemble", monitor), monitor), whole_ensemble(monkeypatch))


def whole_ensemble(monkeypatch):
    monkeypatch.undo()
    return whole("ensemble")


@pytest.mark.parametrize(
    ("case", "planted"),
    [
        *(("svi", part) for part in ("random.global", "random.batches", "optimizer.0.exp_avg_sq", "best.guide.")),
        ("svi", "now.buffer"),
        *(("swag", part) for part in ("iterates.mean", "iterates.squares", "iterates.dev", "optimizer.0.momentum")),
        *(("ivon", part) for part in ("optimizer.0.momentum", "optimizer.0.hessian", "random.global")),
        *(("nuts", part) for part in ("chains.z", "chains.log_prob", "rows", "pending")),
        *(("sgld, decreasing", part) for part in ("z", "pending", "volumes", "streams", "variance")),
        *(("sgnht", part) for part in ("motion.momentum", "motion.friction")),
    ],
)
def test_a_state_that_lacks_anything_would_be_noticed(case, planted, tmp_path):
    after = 5 + 3 * (case == "swag") + 2 * (case == "nuts")  # after the 3 of its start, or some after its warm-up
    with pytest.raises(Killed):
        run(case, Deadly(Checkpoint(tmp_path, every=0.0), after))
    path = tmp_path / "state.safetensors"
    tensors, content = read_tensors_and_content(path)
    names = [name for name in tensors if name.startswith(planted) and tensors[name].numel()]
    assert names
    for name in names:
        spoilt = torch.get_rng_state() if name.startswith("random") else tensors[name] + 1
        if name == "streams":
            spoilt = Streams(9, len(tensors[name]) - 2).state()
        tensors[name] = spoilt if name != "random.batches" else torch.Generator().manual_seed(9).get_state()
    if planted == "best.guide.":  # kept to the end only when nothing later is better
        content["content"]["best"]["nll"] = -1e9
    write_tensors(path, tensors, content)
    monitor = Monitor(Checkpoint(tmp_path, every=0.0))
    assert not same(everything(run(case, monitor), monitor), undisturbed(case))


@pytest.mark.parametrize(
    "changes", [{"seed": 6}, {"data": Data(X, Y, X[:7] + 0.2, Y[:7])}, {"data": Data(X, Y + 1e-6)}]
)
def test_the_state_of_other_work_is_left_alone(changes, tmp_path):
    with pytest.raises(Killed):
        run("svi", Deadly(Checkpoint(tmp_path, every=0.0), 4))
    monitor = Monitor(Checkpoint(tmp_path, every=0.0))
    assert same(everything(run("svi", monitor, **changes), monitor), whole("svi", **changes))


def test_other_settings_priors_and_starts_are_other_work(tmp_path):
    with pytest.raises(Killed):
        run("svi", Deadly(Checkpoint(tmp_path, every=0.0), 4))
    driver, guide, data = CASES["svi"]
    torch.manual_seed(4)
    others = [
        (SVI(epochs=7, batch_size=16), model("svi")),
        (driver, BayesianModel(model("svi").net, Normal(scale=1.0), Gaussian(scale=0.5))),
        (driver, BayesianModel(Net(), Normal(scale=2.0), Gaussian(scale=0.5))),
    ]

    def state(its_driver, its_model):
        built = Guide(its_model, guide, data.example())
        return its_driver.resumed(its_model, built, data, 5, Monitor(Checkpoint(tmp_path)))

    for other, its_model in others:
        assert state(other, its_model) is None
        with pytest.raises(Killed):
            run("svi", Deadly(Checkpoint(tmp_path, every=0.0), 4))
    assert state(driver, model("svi")) is not None


def scaled(scale):
    return lambda name, value: dist.Normal(torch.zeros_like(value), scale).to_event(value.dim())


def rows(concentration):
    net = Transformer(Series(2, 2), Output(1), width=4, heads=2, depth=1)
    prior = {"*.rows": PriorRows(concentration=concentration), "*": Normal()}
    return BayesianModel(net, prior, Gaussian(scale=0.5))


SAME = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
OTHER = {
    "family": ((SAME, Normal()), MeanField(), (SAME, Normal()), Radial()),
    "setting of a family": ((SAME, Normal()), MCDropout(rate=0.1), (SAME, Normal()), MCDropout(rate=0.5)),
    "function": ((SAME, scaled(1.0)), MeanField(), (SAME, scaled(0.01)), MeanField()),
    "activation": ((SAME, Normal()), MeanField(), (nn.Sequential(SAME[0], nn.ReLU(), SAME[2]), Normal()), MeanField()),
}


@pytest.mark.parametrize("kind", OTHER)
def test_what_a_state_belongs_to(kind):
    first, guide, second, other = OTHER[kind]
    driver = SVI(epochs=1)

    def work(net, prior, families):
        built = BayesianModel(net, prior, Gaussian(scale=0.5))
        return driver.work(built, Guide(built, families, (X[:2],)), WITHOUT, 0)

    assert work(*first, guide) == work(*first, guide)
    assert work(*first, guide) != work(*second, other)


def test_priors_of_rows_and_likelihoods_tell_work_apart():
    driver, data = SVI(epochs=1), Data(torch.randn(4, 2, 2), torch.randn(4, 1))
    torch.manual_seed(0)
    one = rows(1.0)
    other = BayesianModel(one.net, {"*.rows": PriorRows(concentration=50.0), "*": Normal()}, Gaussian(scale=0.5))
    learned = BayesianModel(one.net, {"*.rows": PriorRows(), "*": Normal()}, Gaussian(scale=0.5, noise="learned"))
    works = [driver.work(each, None, data, 0) for each in (one, one, other, learned)]
    assert works[0] == works[1] and works[0] != works[2] != works[3] != works[0]


@pytest.mark.parametrize("content", [b"", b"half of a fi", b"\x00" * 64])
def test_a_state_that_cannot_be_read_is_none(content, tmp_path):
    (tmp_path / "state.safetensors").write_bytes(content)
    monitor = Monitor(Checkpoint(tmp_path, every=0.0))
    assert same(everything(run("svi", monitor), monitor), undisturbed("svi"))


def test_states_are_kept_as_often_as_asked(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(Checkpoint, "save", lambda self, *state: saved.append(1))
    run("svi", Monitor(Checkpoint(tmp_path, every=0.0)))
    run("svi", Monitor(Checkpoint(tmp_path, every=1e9)))
    assert len(saved) == 6 + 1  # every epoch, and the last one alone
