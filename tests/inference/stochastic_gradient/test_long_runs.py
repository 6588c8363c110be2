"""Draws in files, resuming, and the interrupt key."""

import os
import signal

import pytest
import torch

from pyroformer.inference import (
    SGLD,
    Checkpoint,
    Data,
    DeepEnsemble,
    DrawsPosterior,
    InferenceError,
    Monitor,
    Posterior,
    StoredDraws,
)
from pyroformer.inference import stored_draws as stored_file
from pyroformer.inference.stochastic_gradient.sampling import Sampling

DRIVER = SGLD(chains=3, num_samples=9, epochs=6, batch_size=16, dtype="float64")  # 18 steps, of which 9 are kept


def run(line, monitor=None, driver=DRIVER):
    data = Data(line.x, line.y, line.x[:7], line.y[:7])
    return driver.run(line.model(noise="random"), None, data, 5, monitor)


def same(one, other):
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def untimed(monitor):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in monitor.history]


@pytest.fixture(scope="module")
def whole(line):
    monitor = Monitor()
    return run(line, monitor), untimed(monitor)


@pytest.fixture
def small_parts(monkeypatch):
    """A part holds two draws of each of three chains of a model of 5 numbers."""
    monkeypatch.setattr(stored_file, "PART", 2 * 3 * 5 + 1)


@pytest.mark.usefixtures("small_parts")
def test_draws_in_files_are_those_in_memory(line, whole, tmp_path):
    monitor = Monitor(Checkpoint(tmp_path / "checkpoint", every=1e9))
    streamed, (in_memory, history) = run(line, monitor), whole
    assert isinstance(streamed.draws, StoredDraws) and isinstance(in_memory.draws, dict)
    assert len(list((tmp_path / "checkpoint").glob("draws-*.safetensors"))) == 4
    assert same(streamed.draws, in_memory.draws) and same(streamed.statistics, in_memory.statistics)
    assert untimed(monitor) == history  # validation reads draws in files and those that are pending
    monitor.checkpoint.clear()  # what is mapped is still there
    streamed.save(tmp_path / "posterior")
    assert same(Posterior.load(tmp_path / "posterior", line.model(noise="random")).draws, in_memory.draws)


class Stopped(Exception):
    pass


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("when", [4, 7, 13, 17])
def test_what_was_written_after_the_last_state_is_cut(line, whole, when, monkeypatch, tmp_path):
    """Before there are draws, with a part pending, after one was written; states are kept after every fifth step."""
    kept, steps = Sampling.step, []

    def step(self, index, what):
        if len(steps) == when:
            raise Stopped
        steps.append(index)
        return kept(self, index, what)

    class Rarely(Checkpoint):
        due = property(lambda self: len(steps) % 5 == 0)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Sampling, "step", step)
        run(line, Monitor(Rarely(tmp_path)))
    (tmp_path / "draws-00007.safetensors").write_bytes(b"of another time")
    monitor = Monitor(Checkpoint(tmp_path))
    resumed, (expected, history) = run(line, monitor), whole
    assert same(resumed.draws, expected.draws) and same(resumed.statistics, expected.statistics)
    assert untimed(monitor) == history and len(list(tmp_path.glob("draws-*"))) == 4


@pytest.mark.usefixtures("small_parts")
def test_a_lost_file_of_draws_makes_the_run_begin_anew(line, whole, tmp_path):
    run(line, Monitor(Checkpoint(tmp_path)))
    (tmp_path / "draws-00001.safetensors").write_bytes(b"damaged")
    monitor = Monitor(Checkpoint(tmp_path))
    assert same(run(line, monitor).draws, whole[0].draws) and untimed(monitor) == whole[1]


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("broken", [15, 17])
def test_a_draw_that_fails_is_left_out(line, whole, broken, monkeypatch, tmp_path):
    """The last one before a part was due to be written, and the first one after."""
    plain = Sampling.step

    def step(self, index, what):
        if index == broken:
            self.z = self.z * torch.nan
        return plain(self, index, what)

    monkeypatch.setattr(Sampling, "step", step)
    with pytest.raises(Exception, match="the log-density of chain 0 is nan") as caught:
        run(line, Monitor(Checkpoint(tmp_path)))
    good = caught.value.posterior
    count = broken - 9 - 1  # the draw whose density is not finite is none
    assert good.info["draws"] == count and good.num_samples == 3 * count
    assert torch.equal(good.by_chain()["weight"], whole[0].by_chain()["weight"][:, :count])


def test_a_draw_at_which_validation_fails_is_left_out(line, whole, monkeypatch):
    """Nothing has looked at the density there, and it is the last step of its epoch that was kept."""
    plain = DrawsPosterior.predict

    def predict(self, x, num_samples):
        if self.chains == 3 and self.num_samples == 3 * 6:
            raise InferenceError("the outputs are not finite")
        return plain(self, x, num_samples)

    monkeypatch.setattr(DrawsPosterior, "predict", predict)
    with pytest.raises(InferenceError, match="epoch 5, validation: the outputs are not finite") as caught:
        run(line)
    good = caught.value.posterior
    assert good.info["draws"] == 5 and good.num_samples == 15
    assert torch.equal(good.by_chain()["weight"], whole[0].by_chain()["weight"][:, :5])


def interrupt(monkeypatch, when):
    """Press the interrupt key in a step."""
    plain = Sampling.step

    def step(self, index, what):
        if index == when:
            raise KeyboardInterrupt
        return plain(self, index, what)

    monkeypatch.setattr(Sampling, "step", step)


@pytest.mark.parametrize("folder", [False, True])
def test_the_interrupt_key_keeps_what_was_drawn(line, whole, folder, monkeypatch, tmp_path):
    checkpoint = Checkpoint(tmp_path, every=0.0) if folder else None
    with monkeypatch.context() as patch:
        interrupt(patch, 9 + 5)
        stopped = run(line, Monitor(checkpoint))
    assert stopped.info["interrupted"] == {"draws": 5, "of": 9} and stopped.info["draws"] == 5
    assert torch.equal(stopped.by_chain()["weight"], whole[0].by_chain()["weight"][:, :5])
    assert torch.equal(stopped.statistics["log_density"], whole[0].statistics["log_density"][:, :5])
    if folder:
        resumed = run(line, Monitor(checkpoint))
        assert same(resumed.draws, whole[0].draws) and "interrupted" not in resumed.info


@pytest.mark.parametrize("when", [2, 9 + 3])
def test_with_too_few_draws_it_is_as_everywhere(line, when, monkeypatch):
    interrupt(monkeypatch, when)
    with pytest.raises(KeyboardInterrupt):
        run(line)


def test_an_ensemble_of_chains_ends_with_its_member(line, monkeypatch):
    interrupt(monkeypatch, 14)
    with pytest.raises(KeyboardInterrupt):
        run(line, driver=DeepEnsemble(member=DRIVER, size=2, dtype="float64"))


def test_the_interrupt_key_waits_until_a_step_is_kept(line, whole, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    plain = Sampling.volume

    def volume(self):
        if self.count == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(self)

    monkeypatch.setattr(Sampling, "volume", volume)
    try:
        stopped = run(line)
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.info["interrupted"] == {"draws": 5, "of": 9}
    assert torch.equal(stopped.by_chain()["weight"], whole[0].by_chain()["weight"][:, :5])
