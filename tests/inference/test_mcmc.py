"""What drivers of Markov chains tell of their draws, and how they keep them."""

import math
import os
import signal
from dataclasses import replace

import pytest
import torch
from torch import nn

from pyroformer.inference import (
    HMC,
    NUTS,
    Checkpoint,
    Data,
    DataError,
    DeepEnsemble,
    DrawsPosterior,
    Monitor,
    Posterior,
    StoredDraws,
)
from pyroformer.inference import stored_draws as stored_file
from pyroformer.inference.density import FlatDensity
from pyroformer.inference.diagnostics import e_bfmi
from pyroformer.inference.log_likelihood import guess_log_likelihood, log_likelihoods
from pyroformer.inference.samplers import Chains
from pyroformer.inference.sampling import Sampling
from pyroformer.inference.stored_draws import DrawStream
from pyroformer.models import BayesianModel, Categorical, Gaussian, Output, Series, Transformer
from pyroformer.priors import Fixed, Normal, SettingError

X = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
DATA = Data(X, X.sum(-1, keepdim=True))
SHORT = HMC(num_samples=6, warmup_steps=4, chains=3, max_steps=2, thinning=2)
STATISTICS = {
    "log_density": torch.float64,
    "log_likelihood": torch.float64,
    "energy": torch.float64,
    "acceptance": torch.float64,
    "divergent": torch.bool,
    "steps": torch.int64,
    "depth": torch.int64,
    "step_size": torch.float64,
}


def model(**likelihood):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    return BayesianModel(net, Normal(), Gaussian(scale=0.5, **likelihood))


@pytest.fixture(scope="module")
def sampled():
    monitor = Monitor()
    return SHORT.run(model(noise="random"), None, DATA, 3, monitor), monitor


def test_every_draw_is_told_of(sampled):
    posterior, _ = sampled
    assert posterior.chains == 3 and posterior.num_samples == 18
    assert {name: values.dtype for name, values in posterior.statistics.items()} == STATISTICS
    assert {values.shape for values in posterior.statistics.values()} == {(3, 6)}
    assert (posterior.statistics["steps"] >= 2).all()  # two trajectories for each draw that is kept
    assert ((posterior.statistics["acceptance"] >= 0) & (posterior.statistics["acceptance"] <= 1)).all()
    assert len(posterior.statistics["step_size"].unique()) == 1


def test_chains_lie_one_after_another(sampled):
    posterior, _ = sampled
    by_chain = posterior.by_chain()
    assert set(by_chain) == set(posterior.draws) and by_chain["0.weight"].shape == (3, 6, 3, 2)
    assert torch.equal(by_chain["0.weight"][1], posterior.draws["0.weight"][6:12])
    assert set(posterior.by_chain("noise_scale")) == {"noise_scale"}


def test_densities_are_those_of_the_draws(sampled):
    posterior, _ = sampled
    density = FlatDensity(posterior.model, (DATA.x, DATA.y), trace=False)
    for chain, draw in ((0, 0), (2, 3)):
        values = {name: v[chain, draw] for name, v in posterior.by_chain().items()}
        value, _ = density.log_prob_and_grad(density.flatten(values))
        assert posterior.statistics["log_density"][chain, draw] == pytest.approx(float(value), abs=1e-4)
        net = torch.func.functional_call(posterior.model.net, {k: v for k, v in values.items() if "." in k}, X)
        exact = torch.distributions.Normal(net, values["noise_scale"]).log_prob(DATA.y).sum()
        assert posterior.statistics["log_likelihood"][chain, draw] == pytest.approx(float(exact), abs=1e-4)
    energy = posterior.statistics["energy"] + posterior.statistics["log_density"]
    assert (energy > 0).all()  # the kinetic energy


def test_info_says_what_was_done(sampled):
    info = sampled[0].info
    likelihoods = sampled[0].statistics["log_likelihood"]
    assert info["log_likelihood"]["mean"] == pytest.approx(float(likelihoods.mean()))
    assert info["log_likelihood"]["sd"] == pytest.approx(float(likelihoods.std()))
    assert info["guess_log_likelihood"] == pytest.approx(guess_log_likelihood(DATA.y))
    assert info["chains"] == 3 and info["temperature"] == 1.0
    assert info["divergences"] >= int(sampled[0].statistics["divergent"].sum())
    assert info["gradients"] >= int(sampled[0].statistics["steps"].sum())
    assert {"seconds", "warmup_seconds", "compile_seconds", "step_size"} < set(info) and "interrupted" not in info


def test_transitions_between_draws_are_told_of(sampled):
    """As by a run that keeps every one of them."""
    every = replace(SHORT, num_samples=12, thinning=1).run(model(noise="random"), None, DATA, 3)
    info, whole = sampled[0].info, every.statistics
    assert torch.equal(whole["energy"][:, 1::2], sampled[0].statistics["energy"])
    assert info["exact"] is True and info["transitions"] == 36
    assert info["divergences_by_chain"] == whole["divergent"].sum(1).tolist()
    assert sum(info["divergences_by_chain"]) == info["divergences"]
    assert info["e_bfmi"] == every.info["e_bfmi"] == e_bfmi(whole["energy"]).tolist()
    assert info["e_bfmi"] != e_bfmi(sampled[0].statistics["energy"]).tolist()  # planted: of the draws alone


def test_the_history_is_short_however_long_the_run(monkeypatch):
    monkeypatch.setattr("pyroformer.inference.sampling.RECORDS", 5)
    monitor = Monitor()
    HMC(num_samples=20, warmup_steps=10, chains=1, max_steps=1).run(model(), None, DATA, 0, monitor)
    found = [(entry["stage"], entry["draw"]) for entry in monitor.history]
    assert found == [("warmup", 6), ("warmup", 10), ("sample", 6), ("sample", 12), ("sample", 18), ("sample", 20)]
    keys = {"draw", "stage", "log_joint", "step_size", "acceptance", "divergences", "ess"}
    assert all(set(entry) == keys for entry in monitor.history)
    assert monitor.history[0]["ess"] is None and monitor.history[-1]["ess"] > 0


def test_progress_says_how_chains_stand():
    said = []

    class Telling(Monitor):
        def step(self, text="", advance=1):
            said.append(text)

    SHORT.run(model(), None, DATA, 0, Telling())
    assert len(said) == 1 + 4 + 12
    assert all(word in said[-1] for word in ("sample", "step", "accept", "divergences 0", "ESS"))


def test_tempered_records_tell_the_joint_density():
    monitor = Monitor()
    driver = HMC(num_samples=4, warmup_steps=1, chains=2, max_steps=2, temperature=0.5)
    posterior = driver.run(model(), None, DATA, 0, monitor)
    last = 0.5 * posterior.statistics["log_density"][:, -1].mean()
    assert monitor.history[-1]["log_joint"] == pytest.approx(float(last))


def tokens():
    torch.manual_seed(2)
    net = Transformer(Series(3, 2), Output(3), width=4, heads=2, depth=1)
    return BayesianModel(net, Normal(), Categorical())


def test_log_likelihoods_are_those_one_by_one():
    built = tokens()
    data = Data(torch.randn(7, 3, 2), torch.tensor([0, 1, 2, 0, 1, 2, 2]))
    values = {name: value + 0.3 * torch.randn(5, *value.shape) for name, value in built.initial_values().items()}
    posterior = DrawsPosterior(built, values)
    found = log_likelihoods(posterior, data)
    for index in range(5):
        weights = {name: value[index] for name, value in values.items()}
        logits = torch.func.functional_call(built.net, weights, data.x)
        exact = -nn.functional.cross_entropy(logits.squeeze(1), data.y, reduction="sum")
        assert float(found[index]) == pytest.approx(float(exact), abs=1e-4)


def test_log_likelihoods_do_not_depend_on_blocks(monkeypatch):
    posterior = DrawsPosterior(model(), {n: torch.randn(9, *v.shape) for n, v in model().initial_values().items()})
    whole = log_likelihoods(posterior, DATA)
    monkeypatch.setattr("pyroformer.inference.log_likelihood.BATCH", 5)
    monkeypatch.setattr("pyroformer.inference.posterior.MAX_RUNS", 12)
    assert posterior.most_draws(X, 5) == 3
    torch.testing.assert_close(log_likelihoods(posterior, DATA), whole)


def test_guessing_is_what_frequencies_and_a_normal_give():
    assert guess_log_likelihood(torch.tensor([0, 0, 0, 2])) == pytest.approx(3 * math.log(0.75) + math.log(0.25))
    assert guess_log_likelihood(torch.tensor([[0, 1], [-100, -100]])) == pytest.approx(2 * math.log(0.5))
    y = torch.randn(50, 2).double()
    normal = torch.distributions.Normal(y.mean(0), y.std(0, correction=0))
    assert guess_log_likelihood(y) == pytest.approx(float(normal.log_prob(y).sum()))
    assert guess_log_likelihood(y) > float(torch.distributions.Normal(y.mean(0), 1.2 * y.std(0)).log_prob(y).sum())


# draws in files


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in {**one, **other})


@pytest.fixture
def small_parts(monkeypatch):
    """A part holds two draws of each of three chains of a model of 14 numbers."""
    monkeypatch.setattr(stored_file, "PART", 2 * 3 * 14 + 1)


def test_draws_in_files_are_those_in_memory(small_parts, sampled, tmp_path):
    monitor = Monitor(Checkpoint(tmp_path / "checkpoint", every=1e9))
    streamed = SHORT.run(model(noise="random"), None, DATA, 3, monitor)
    in_memory, _ = sampled
    assert isinstance(streamed.draws, StoredDraws) and isinstance(in_memory.draws, dict)
    assert len(list((tmp_path / "checkpoint").glob("draws-*.safetensors"))) == 3
    assert same(streamed.draws, in_memory.draws) and same(streamed.statistics, in_memory.statistics)
    assert torch.equal(streamed.predict(X, 7).mean, in_memory.predict(X, 7).mean)
    assert same(streamed.draw(5), in_memory.draw(5))
    monitor.checkpoint.clear()  # what is mapped is still there
    streamed.save(tmp_path / "posterior")
    again = Posterior.load(tmp_path / "posterior", model(noise="random"))
    assert isinstance(again.draws, StoredDraws) and again.chains == 3
    assert same(again.draws, in_memory.draws) and same(again.statistics, in_memory.statistics)
    again.save(tmp_path / "posterior")  # in the place of the files that it reads
    assert same(Posterior.load(tmp_path / "posterior", model(noise="random")).draws, in_memory.draws)
    next((tmp_path / "posterior").glob("draws-00001*")).unlink()
    with pytest.raises(FileNotFoundError, match="draws-00001"):
        Posterior.load(tmp_path / "posterior", model(noise="random"))


@pytest.mark.usefixtures("small_parts")
def test_a_prediction_reads_the_draws_that_it_takes(monkeypatch, tmp_path):
    driver = HMC(num_samples=6, warmup_steps=1, chains=3, max_steps=1)
    posterior = driver.run(model(noise="random"), None, DATA, 0, Monitor(Checkpoint(tmp_path)))
    monkeypatch.setattr(StoredDraws, "__getitem__", None)  # a site as a whole
    (first,) = posterior.draw(1)["noise_scale"].tolist()
    assert first == posterior.draws.parts[0]["noise_scale"][0, 0]


def test_rows_are_found_in_their_parts():
    parts = [{"w": torch.arange(begin * 2, end * 2).view(end - begin, 2).T} for begin, end in ((0, 3), (3, 4), (4, 9))]
    stored = StoredDraws(parts)  # of chain 0 the even numbers, of chain 1 the odd ones
    assert stored["w"].tolist() == [*range(0, 18, 2), *range(1, 18, 2)] and stored.num_samples == 18
    index = torch.tensor([17, 0, 3, 2, 12, 9, 8])
    assert torch.equal(stored.rows(index)["w"], stored["w"][index])


class Stopped(Exception):
    pass


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("when", [2, 9, 12, 15])
def test_what_was_written_after_the_last_state_is_cut(when, sampled, monkeypatch, tmp_path):
    """In warm-up, while draws are kept, and near the end; states are kept after every fourth step alone."""
    kept, steps = Chains.step, []

    def step(self):
        if len(steps) == when:
            raise Stopped
        steps.append(self.index)
        return kept(self)

    class Rarely(Checkpoint):
        due = property(lambda self: len(steps) % 4 == 0)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Chains, "step", step)
        SHORT.run(model(noise="random"), None, DATA, 3, Monitor(Rarely(tmp_path)))
    (tmp_path / "draws-00007.safetensors").write_bytes(b"of another time")
    monitor = Monitor(Checkpoint(tmp_path))
    resumed = SHORT.run(model(noise="random"), None, DATA, 3, monitor)
    assert same(resumed.draws, sampled[0].draws) and same(resumed.statistics, sampled[0].statistics)
    assert monitor.history == sampled[1].history
    assert resumed.info["gradients"] == sampled[0].info["gradients"]
    assert len(list(tmp_path.glob("draws-*"))) == 3


@pytest.mark.usefixtures("small_parts")
def test_a_lost_file_of_draws_makes_the_run_begin_anew(sampled, tmp_path):
    SHORT.run(model(noise="random"), None, DATA, 3, Monitor(Checkpoint(tmp_path)))
    (tmp_path / "draws-00001.safetensors").write_bytes(b"damaged")
    again = SHORT.run(model(noise="random"), None, DATA, 3, Monitor(Checkpoint(tmp_path)))
    assert same(again.draws, sampled[0].draws)


def test_a_stream_in_memory_is_one_mapping():
    stream = DrawStream(lambda z: {"z": z}, chains=2, size=3, folder=None)
    stream.most = 2
    vectors = torch.randn(5, 2, 3)
    for z in vectors:
        stream.add(z)
    assert len(stream.parts) == 2 and len(stream.pending) == 1
    found = stream.draws()
    assert isinstance(found, dict) and torch.equal(found["z"], vectors.transpose(0, 1).flatten(0, 1))


# the interrupt key


def interrupt(monkeypatch, when):
    """Press the interrupt key in a step."""
    plain = Chains.step

    def step(self):
        if self.index == when:
            raise KeyboardInterrupt
        return plain(self)

    monkeypatch.setattr(Chains, "step", step)


@pytest.mark.parametrize("folder", [False, True])
def test_the_interrupt_key_keeps_what_was_drawn(sampled, folder, monkeypatch, tmp_path):
    checkpoint = Checkpoint(tmp_path, every=0.0) if folder else None
    with monkeypatch.context() as patch:
        interrupt(patch, 4 + 2 * 4 + 1)  # half way from the fourth to the fifth draw
        stopped = SHORT.run(model(noise="random"), None, DATA, 3, Monitor(checkpoint))
    assert stopped.info["interrupted"] == {"draws": 4, "of": 6}
    assert stopped.num_samples == 12 and stopped.statistics["log_likelihood"].shape == (3, 4)
    whole, _ = sampled
    assert torch.equal(stopped.by_chain()["0.weight"], whole.by_chain()["0.weight"][:, :4])
    assert torch.equal(stopped.statistics["energy"], whole.statistics["energy"][:, :4])
    assert stopped.predict(X).mean.isfinite().all()
    if folder:
        resumed = SHORT.run(model(noise="random"), None, DATA, 3, Monitor(checkpoint))
        assert same(resumed.draws, whole.draws) and "interrupted" not in resumed.info


@pytest.fixture
def heard():
    """The interrupt key as Python has it, which processes in the background ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_the_interrupt_key_waits_until_a_step_is_kept(sampled, monkeypatch):
    plain = Sampling._take

    def take(self, draw):
        if self.chains.index == 4 + 2 * 5 - 1:
            os.kill(os.getpid(), signal.SIGINT)
        plain(self, draw)

    monkeypatch.setattr(Sampling, "_take", take)
    stopped = SHORT.run(model(noise="random"), None, DATA, 3)
    assert stopped.info["interrupted"] == {"draws": 4, "of": 6}
    assert torch.equal(stopped.by_chain()["0.weight"], sampled[0].by_chain()["0.weight"][:, :4])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_budget_of_time_ends_a_run_with_the_draws_so_far(sampled, tmp_path):
    whole, _ = sampled
    for checkpoint in (None, Checkpoint(tmp_path)):
        for _ in range(2):  # a finished run that is asked for again takes no further step
            short = replace(SHORT, minutes=1e-9).run(model(noise="random"), None, DATA, 3, Monitor(checkpoint))
            assert short.info["out_of_time"] == {"draws": 4, "of": 6} and short.num_samples == 12
            for name, values in short.by_chain().items():
                assert torch.equal(values, whole.by_chain()[name][:, :4])
    assert "out_of_time" not in replace(SHORT, minutes=60.0).run(model(noise="random"), None, DATA, 3).info


@pytest.mark.parametrize("when", [2, 4 + 2 * 3 + 1])
def test_with_too_few_draws_it_is_as_everywhere(when, monkeypatch):
    interrupt(monkeypatch, when)
    with pytest.raises(KeyboardInterrupt):
        SHORT.run(model(noise="random"), None, DATA, 3)


def test_an_ensemble_of_chains_ends_with_its_member(monkeypatch):
    interrupt(monkeypatch, 6)
    member = HMC(num_samples=8, warmup_steps=1, chains=2, max_steps=1)
    with pytest.raises(KeyboardInterrupt):
        DeepEnsemble(member=member, size=2).run(model(), None, DATA)


# refusals


def test_draws_that_do_not_fit_are_refused():
    draws = {"w": torch.randn(6, 2)}
    with pytest.raises(ValueError, match="6 draws: expected as many of each of 4 chains"):
        DrawsPosterior(model(), draws, chains=4)
    with pytest.raises(ValueError, match=r"energy is \(6,\): expected \(2, 3\)"):
        DrawsPosterior(model(), draws, chains=2, statistics={"energy": torch.randn(6)})


def test_data_and_models_without_a_density_are_refused():
    with pytest.raises(DataError):
        NUTS().run(model(), None, Data(X, X))
    with pytest.raises(SettingError, match="at least one random site"):
        HMC().run(BayesianModel(nn.Linear(2, 1), Fixed(), Gaussian()), None, DATA)


@pytest.mark.parametrize(
    ("settings", "traced"),
    [({}, False), ({"thinning": 8}, True), ({"num_samples": 48}, True), ({"compile": True}, True)],
)
def test_long_runs_have_their_operations_written_down(settings, traced, monkeypatch):
    class Seen(Exception):
        pass

    def density(model, args, **given):
        raise Seen(given)

    monkeypatch.setattr("pyroformer.inference.mcmc.FlatDensity", density)
    driver = HMC(**{"num_samples": 6, "warmup_steps": 2, "temperature": 0.5, **settings})
    with pytest.raises(Seen) as caught:
        driver.run(model(), None, DATA)
    assert caught.value.args[0] == {"temperature": 0.5, "compile": "compile" in settings, "trace": traced}
