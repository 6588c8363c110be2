"""Draws with a bias that R-hat does not see: the verdict names the sampler, and how far its steps are off."""

import pytest
import torch
from torch import nn

from pyroformer.inference import HMC, MCLMC, SGLD, ConstantSteps, Data, DrawsPosterior, Posterior
from pyroformer.inference.diagnostics import diagnose
from pyroformer.inference.diagnostics.exactness import exactness
from pyroformer.inference.samplers import Chains
from pyroformer.models import BayesianModel, Gaussian
from pyroformer.priors import Normal

N, NOISE = 40, 0.5
VARIANCE = 1 / (N / NOISE**2 + 1)
"""Of every weight in the posterior: inputs are orthogonal."""


@pytest.fixture(scope="module")
def line():
    generator = torch.Generator().manual_seed(0)
    columns = torch.cat([torch.ones(N, 1), torch.randn(N, 3, generator=generator)], 1).double()
    x = torch.linalg.qr(columns).Q[:, 1:] * N**0.5
    y = x @ torch.tensor([[0.2], [-0.4], [0.6]]).double() + 0.3 + NOISE * torch.randn(N, 1, generator=generator)
    return Data(x, y)


def model():
    torch.manual_seed(0)
    return BayesianModel(nn.Linear(3, 1), Normal(scale=1.0), Gaussian(scale=NOISE)).double()


def judged(posterior, data, **settings):
    return diagnose(posterior, data.x, data.y, num_data=N, **settings).verdict


def topics(found):
    return {finding.topic: finding for finding in found.findings}


def langevin(line, share):
    """Draws of SGLD on all data, after steps whose noise has this share of the posterior's variance."""
    steps = ConstantSteps(burn_in=0.5)
    rate = share * VARIANCE * N / 2
    driver = SGLD(
        chains=4, num_samples=500, epochs=1000, batch_size=N, learning_rate=rate, schedule=steps, dtype="float64"
    )
    return driver.run(model(), None, line, seed=1)


@pytest.fixture(scope="module")
def wide(line):
    return langevin(line, 2.0)


def test_langevin_draws_that_are_too_wide_are_a_caution(line, wide):
    spread = torch.cat([wide.draws["weight"].flatten(1), wide.draws["bias"]], 1).std(0) / VARIANCE**0.5
    assert spread.numpy() == pytest.approx([2**0.5] * 4, rel=0.08)
    found = judged(wide, line)
    assert not found.of("bad") and {f.topic for f in found.of("caution")} == {"temperature", "exactness"}
    exact, temperature = topics(found)["exactness"], topics(found)["temperature"]
    assert "R-hat does not see" in exact.text and "half the learning rate" in exact.advice
    assert "smaller learning rate" in temperature.advice
    assert "Nothing speaks against" not in found.summary and "not equal to it" in found.summary
    # planted: that the sampler is exact
    wide.info["exact"] = True
    assert judged(wide, line).summary.startswith("Nothing speaks against")
    wide.info["exact"] = False


def test_the_configurational_temperature_is_that_of_the_draws(wide):
    told = wide.info["configurational_temperature"]
    assert abs(told["mean"] - 2.0) < 5 * told["mcse"]  # variances are twice the posterior's
    assert abs(told["mean"] - 1.0) > 5 * told["mcse"]  # planted: the temperature that was asked for


def test_what_is_known_of_the_sampler_is_kept_in_files(line, wide, tmp_path):
    wide.save(tmp_path / "posterior")
    again = Posterior.load(tmp_path / "posterior", model())
    assert again.info["exact"] is False
    assert judged(again, line).to_dict() == judged(wide, line).to_dict()


def test_draws_from_before_it_was_kept_are_judged(line, wide):
    old = {"chains": 4, "temperature": 1.0, "learning_rate": 0.1}
    posterior = DrawsPosterior(wide.model, wide.draws, old, chains=4, statistics=wide.statistics)
    assert [finding.topic for finding in judged(posterior, line).of("caution")] == ["exactness"]


def stochastic(mean, mcse=0.01, **others):
    info = {"exact": False, "temperature": 0.5, "configurational_temperature": {"mean": mean, "mcse": mcse}, **others}
    return {finding.topic: finding for finding in exactness(info)}


def test_a_configurational_temperature_is_judged_where_it_is_sure():
    assert stochastic(0.53)["temperature"].level == "good"
    assert stochastic(0.53)["exactness"].level == "caution"  # of minibatches and steps something is left all the same
    assert "too widely" in stochastic(0.7)["temperature"].text
    cold = stochastic(0.3)["temperature"]
    assert "not settled" in cold.text and "more epochs" in cold.advice
    assert list(stochastic(0.7, mcse=0.1)) == list(stochastic(0.7, mcse=None)) == ["exactness"]
    assert list(stochastic(0.7, exact=True)) == list(exactness({})) == []


UNADJUSTED = MCLMC(num_samples=60, warmup_steps=60, chains=4, adjusted=False, steps_per_draw=3, dtype="float64")


def test_unadjusted_steps_leave_a_note_and_doubled_ones_are_bad(line, monkeypatch):
    posterior = UNADJUSTED.run(model(), None, line, seed=1)
    variance = posterior.info["energy_variance"]
    squares = posterior.statistics["energy_error"].square()
    assert variance == {"realised": pytest.approx(float(squares.mean()) / 4), "asked": 5e-4}
    found = topics(judged(posterior, line))["exactness"]
    assert posterior.info["exact"] is False and found.level == "note" and "a small bias is left" in found.text

    plain = Chains.step

    def step(self):
        if self.index == self.warmup_steps:
            self.tuning = self.tuning._replace(step_size=2 * self.tuning.step_size)
        return plain(self)

    monkeypatch.setattr(Chains, "step", step)
    doubled = UNADJUSTED.run(model(), None, line, seed=1)
    assert doubled.info["step_size"] == 2 * posterior.info["step_size"]
    found = topics(judged(doubled, line))["exactness"]
    assert found.level == "bad" and "steps are too large" in found.text
    assert "a smaller energy_variance (5e-05), or a longer warm-up" in found.advice


def unadjusted(realised):
    (found,) = exactness({"exact": False, "energy_variance": {"realised": realised, "asked": 5e-4}})
    return found.level


def test_levels_of_the_energy_variance():
    assert [unadjusted(value) for value in (1e-5, 1.4e-3, 1.6e-3, 1.4e-2, 1.6e-2)] == [
        "note",
        "note",
        "caution",
        "caution",
        "bad",
    ]


@pytest.mark.parametrize("driver", [HMC, MCLMC])
def test_exact_samplers_have_no_such_finding(line, driver):
    posterior = driver(num_samples=6, warmup_steps=4, chains=2, max_steps=4, dtype="float64").run(model(), None, line)
    assert posterior.info["exact"] is True and "energy_variance" not in posterior.info
    assert not {"exactness", "temperature"} & set(topics(judged(posterior, line)))
