"""The drivers on a linear regression, and what they give beside draws."""

import math

import pytest
import torch
from torch import nn

from pyroformer.guides import MeanField
from pyroformer.inference import (
    MAP,
    ML,
    SGHMC,
    SGLD,
    SGNHT,
    SVI,
    ConstantSteps,
    CyclicalSteps,
    Data,
    DecreasingSteps,
    DeepEnsemble,
    InferenceError,
    Monitor,
    Posterior,
)
from pyroformer.inference.chain_starts import jittered
from pyroformer.inference.prior_functions import PriorFunctions
from pyroformer.inference.stochastic_gradient.sampling import Sampling
from pyroformer.models import BayesianModel, Gaussian
from pyroformer.priors import Normal, SettingError, Uniform

SETTINGS = {"chains": 40, "num_samples": 12, "batch_size": 40, "dtype": "float64"}


def white(line, draws, chains, covariance):
    """Draws ``[K, S, 4]`` less the exact mean, in coordinates in which the covariance is the identity."""
    lower = torch.linalg.cholesky(covariance)
    found = torch.linalg.solve_triangular(lower, (line.flat(draws) - line.mean()).T, upper=False).T
    return found.view(chains, -1, 4)


def agrees(whitened):
    """Mean and covariance within 5 standard errors, in every entry; chains are independent."""
    i, j = torch.tril_indices(4, 4)
    products = whitened[..., i] * whitened[..., j] - (i == j).double()
    return all(
        bool((each.mean(0).abs() / (each.std(0) / len(each) ** 0.5)).max() < 5)
        for each in (whitened.mean(1), products.mean(1))
    )


@pytest.mark.parametrize("kind", [SGLD, SGHMC])
def test_all_data_give_the_exact_posterior_but_for_the_known_bias(line, kind):
    precision, values = line.precision(), torch.linalg.eigvalsh(line.precision())
    if kind is SGLD:
        epsilon = float(2 / values.max())
        driver = SGLD(epochs=160, learning_rate=epsilon * 20, **SETTINGS)
        covariance = (precision - epsilon / 4 * precision @ precision).inverse()
    else:  # in each direction var = T / (lambda (1 - h^2 lambda / 2 (1 + beta)))
        h2, beta = float(2 / values.max()), 0.7
        driver = SGHMC(epochs=160, learning_rate=h2 * 40, momentum=beta, **SETTINGS)
        covariance = (precision - h2 / (2 * (1 + beta)) * precision @ precision).inverse()
    posterior = driver.run(line.model(), None, line.data, seed=1)
    assert agrees(white(line, posterior.draws, 40, covariance))
    assert not agrees(white(line, posterior.draws, 40, line.covariance()))  # planted: no bias
    assert not agrees(white(line, posterior.draws, 40, line.precision().diag().reciprocal().diag()))  # no correlation


def test_small_steps_of_the_thermostat_give_the_exact_posterior(line):
    """From draws of it: on the way from elsewhere the friction grows, and falls again but slowly."""
    generator, largest = torch.Generator().manual_seed(5), torch.linalg.eigvalsh(line.precision()).max()
    noise = torch.randn(40, 4, generator=generator, dtype=torch.float64)
    z = line.mean() + noise @ torch.linalg.cholesky(line.covariance()).T
    starts = [{"weight": draw[None, :3], "bias": draw[3:]} for draw in z]
    driver = SGNHT(epochs=160, learning_rate=float(0.2 / largest) * 40, **SETTINGS)
    data = Data(line.x.double(), line.y.double())
    draws = Sampling(driver, line.model().double(), None, starts, data, 1).run(Monitor()).draws
    assert agrees(white(line, draws, 40, line.covariance()))
    assert not agrees(white(line, draws, 40, line.covariance(noise=0.6)))  # planted: another noise
    assert not agrees(white(line, draws, 40, line.precision().diag().reciprocal().diag()))  # no correlation


@pytest.fixture(scope="module")
def sampled(line):
    monitor = Monitor()
    data = Data(line.x, line.y, line.x[:7] + 0.1, line.y[:7])
    driver = SGLD(
        chains=3, num_samples=8, epochs=30, batch_size=16, learning_rate=0.01, dtype="float64", validate_every=10
    )
    return driver.run(line.model(), None, data, 2, monitor), monitor, driver


def test_what_it_gives(line, sampled):
    posterior, monitor, _ = sampled
    draws = line.flat(posterior.draws)
    assert draws.shape == (24, 4) and draws.dtype == torch.float64
    info = posterior.info
    assert info["steps"] == 90 and info["chains"] == 3 and info["draws"] == 8 and info["temperature"] == 1
    assert info["batched"] and info["seconds"] > 0
    exact = torch.distributions.Normal(line.design @ draws.T, 0.5).log_prob(line.y.double()).sum(0)
    assert info["log_likelihood"]["mean"] == pytest.approx(float(exact.mean()))
    assert info["log_likelihood"]["sd"] == pytest.approx(float(exact.std()))
    assert {"effective_samples", "r_hat"} < set(info["log_likelihood"])
    assert info["guess_log_likelihood"] < exact.mean()
    assert posterior.chains == 3 and set(posterior.statistics) == {"log_likelihood", "log_density", "step_size"}
    assert torch.allclose(posterior.statistics["log_likelihood"].flatten(), exact)
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(draws).sum(1)
    assert torch.allclose(posterior.statistics["log_density"].flatten(), exact + prior)
    assert (posterior.statistics["step_size"] == 0.01).all()
    assert len(monitor.history) == 30
    assert [record["stage"] for record in monitor.history] == ["burn-in"] * 15 + ["sampling"] * 15
    validated = [record["epoch"] for record in monitor.history if "validation_nll" in record]
    assert validated == [10, 20, 30]
    nll = -float(posterior.predict(line.x[:7] + 0.1, 16).log_density(line.y[:7].double()).mean())
    assert monitor.history[-1]["validation_nll"] == pytest.approx(nll)
    assert monitor.history[-1]["draws"] == 8


def test_the_same_seed_gives_the_same_draws(line, sampled):
    posterior, _, driver = sampled
    model, before = line.model(), torch.get_rng_state()
    again = driver.run(model, None, line.data, 2)
    assert torch.equal(again.draws["weight"], posterior.draws["weight"])
    assert torch.equal(torch.get_rng_state(), before)
    other = driver.run(line.model(), None, line.data, 3)
    assert not torch.equal(other.draws["weight"], posterior.draws["weight"])


def test_chains_start_from_nets_of_their_own(line):
    driver = SGLD(chains=3, num_samples=1, epochs=1, batch_size=40, learning_rate=1e-12)
    draws = line.flat(driver.run(line.model(), None, line.data).draws)
    assert min((draws[i] - draws[j]).abs().max() for i, j in ((0, 1), (0, 2), (1, 2))) > 0.1
    own = line.model()
    assert (draws[0] - line.flat({n: p[None] for n, p in own.initial_values().items()})[0]).abs().max() < 1e-4


def test_a_start_trains_the_net_of_every_chain(line):
    start = MAP(epochs=3, batch_size=40, learning_rate=0.1, dtype="float64")
    driver = SGHMC(chains=2, num_samples=1, epochs=1, batch_size=40, learning_rate=1e-14, start=start, dtype="float64")
    monitor, model, seed = Monitor(), line.model().double(), 3
    posterior = driver.run(model, None, line.data, seed, monitor)
    for draw, own in zip(line.flat(posterior.draws), (seed * 1_000_003, seed * 1_000_003 + 1), strict=True):
        net = model.reinitialized(own)
        trained = line.flat(start.run(net, None, line.data, own).draw(1))[0]
        assert torch.allclose(draw, trained, atol=1e-6)
        assert (draw - line.flat({n: p[None] for n, p in net.initial_values().items()})[0]).abs().max() > 0.1
    assert len(posterior.info["start"]) == 2
    assert {(record.get("chain"), record.get("part")) for record in monitor.history} == {
        (0, "start"),
        (1, "start"),
        (None, None),
    }


SHORT = MAP(epochs=2, batch_size=40, learning_rate=0.1, dtype="float64")
FAST = SVI(epochs=3, dtype="float64")
OWN = [1_000_003 * 3, 1_000_003 * 3 + 1]


def prior(line):
    drawn = PriorFunctions(line.model().double())
    return torch.cat([line.flat(drawn.draw(1, seed=own)) for own in OWN])


def ensemble(line):
    members = DeepEnsemble(member=SHORT, size=2).run(line.model().double(), None, line.data, 3).members
    return torch.cat([line.flat(member.draw(1)) for member in members])


def variational(line):
    return line.flat(FAST.run(line.model().double(), MeanField(), line.data, 3).draw(2, seed=3))


STARTS = {
    "prior": ("prior", None, prior),
    "ensemble": (DeepEnsemble(member=SHORT, size=3), None, ensemble),
    "svi": (FAST, MeanField(), variational),
}


@pytest.mark.parametrize(
    ("kind", "where"), [(SGLD, "prior"), (SGLD, "ensemble"), (SGLD, "svi"), (SGHMC, "svi"), (SGNHT, "svi")]
)
def test_chains_start_where_they_are_told(line, kind, where):
    """After one step of no length; twins: the chains in the other order, and starts with noise of its own size."""
    still = {"chains": 2, "num_samples": 1, "epochs": 1, "batch_size": 40, "learning_rate": 1e-16, "dtype": "float64"}
    start, guide, expected = STARTS[where]
    wanted = expected(line)
    assert kind(**still, start=start).needs_guide == (guide is not None)

    def found(**settings):
        driver = kind(**still, start=start, **settings)
        return line.flat(driver.run(line.model().double(), guide, line.data, 3).draws)

    plain = found()
    assert torch.allclose(plain, wanted, atol=1e-5) and not torch.allclose(plain, wanted.flip(0), atol=1e-5)
    noise = found(jitter=0.1) - plain
    assert torch.allclose(noise, jittered(torch.zeros(2, 4).double(), 0.1, 3), atol=1e-5) and noise.abs().max() > 0.01


def test_a_state_knows_the_guide_of_its_start(line):
    """A state is that of the same start alone: another guide is other work."""
    driver = SGLD(chains=2, num_samples=2, epochs=2, batch_size=40, start=FAST, dtype="float64")

    def work(guide):
        return driver.work(line.model().double(), guide, line.data, 3)

    assert work(MeanField()) == work(MeanField()) != work(MeanField(init_scale=0.5))


def test_exploration_has_no_noise(line):
    """Within the first cycle all seeds go the same way, until the stage that samples."""
    schedule = CyclicalSteps(cycles=1, exploration=0.85)
    histories, draws = [], []
    for seed in (1, 2):
        monitor = Monitor()
        driver = SGHMC(chains=1, epochs=20, num_samples=3, batch_size=40, schedule=schedule)
        posterior = driver.run(line.model(), None, line.data, seed, monitor)
        histories.append([record["log_likelihood"] for record in monitor.history])
        draws.append(line.flat(posterior.draws))
    assert histories[0][:18] == histories[1][:18] and histories[0][18] != histories[1][18]
    assert len(draws[0]) == 3 and (draws[0] - draws[1]).abs().max() > 0


def test_cycles_are_recorded(line):
    monitor = Monitor()
    driver = SGLD(
        chains=1, epochs=8, batch_size=40, learning_rate=0.01, schedule=CyclicalSteps(cycles=2, exploration=0.5)
    )
    posterior = driver.run(line.model(), None, line.data, monitor=monitor)
    rates = [record["learning_rate"] for record in monitor.history]
    assert rates == pytest.approx([0.01 * f for f in (1, 0.8535534, 0.5, 0.1464466)] * 2)
    assert [record["draws"] for record in monitor.history] == [0, 0, 1, 2, 2, 2, 3, 4]
    assert posterior.num_samples == 4


def test_decreasing_steps_lose_their_bias(line):
    """With steps that end small the covariance is near the exact one, where constant ones are far from it."""
    epsilon = float(2 / torch.linalg.eigvalsh(line.precision()).max())
    schedule = DecreasingSteps(final=0.1, burn_in=0.7)
    driver = SGLD(epochs=400, learning_rate=epsilon * 20, schedule=schedule, **{**SETTINGS, "num_samples": 6})
    draws = driver.run(line.model(), None, line.data, seed=1).draws
    excess = white(line, draws, 40, line.covariance()).square().mean() - 1
    constant = (torch.linalg.eigvalsh(line.precision()) * epsilon / 4).neg().add(1).reciprocal().mean() - 1
    assert abs(excess) < constant / 2


def test_a_bounded_site_stays_in_its_bounds(line):
    driver = SGLD(chains=2, num_samples=6, epochs=10, batch_size=16, learning_rate=5e-3)
    draws = driver.run(line.model(Uniform(scale=1.6), noise="random", scale=1.0), None, line.data).draws
    assert draws["noise_scale"].shape == (12,) and (draws["noise_scale"] > 0).all()
    assert draws["weight"].abs().max() <= 1.6 and draws["noise_scale"].std() > 0


def test_it_is_saved_and_read(line, sampled, tmp_path):
    posterior, _, _ = sampled
    posterior.save(tmp_path / "saved")
    again = Posterior.load(tmp_path / "saved", line.model())
    assert torch.equal(again.predict(line.x, 9).mean, posterior.predict(line.x, 9).mean)
    assert again.info["log_likelihood"] == posterior.info["log_likelihood"]


def test_an_ensemble_of_chains(line):
    member = SGLD(chains=2, num_samples=3, epochs=2, batch_size=40)
    posterior = DeepEnsemble(member=member, size=2).run(line.model(), None, line.data)
    assert posterior.predict(line.x, 8).mean.isfinite().all()


def test_divergence_hands_over_the_draws_before(line):
    schedule = ConstantSteps(burn_in=0.0)
    driver = SGLD(chains=2, num_samples=400, epochs=400, batch_size=40, learning_rate=0.5, schedule=schedule)
    with pytest.raises(InferenceError, match=r"epoch \d+, step \d+: the log-density of chain . is .*diverge") as caught:
        driver.run(line.model(), None, line.data)
    posterior = caught.value.posterior
    assert posterior.info["kept"].startswith("last good (") and posterior.num_samples > 4
    assert all(draws.isfinite().all() for draws in posterior.draws.values())


def test_a_failure_before_the_first_draw_hands_over_the_last_place(line):
    driver = SGHMC(chains=2, epochs=400, batch_size=40, learning_rate=1e30)
    with pytest.raises(InferenceError, match="epoch 2, step 2: the log-density of chain 0 is") as caught:
        driver.run(line.model(), None, line.data)
    assert caught.value.posterior.info["kept"] == "last good"
    assert caught.value.posterior.predict(line.x).mean.isfinite().all()


def test_a_start_without_a_density_is_told(line):
    class Broken(nn.Linear):
        def forward(self, x):
            return super().forward(x) * math.nan

    model = BayesianModel(Broken(3, 1), Normal(), Gaussian())
    with pytest.raises(InferenceError, match=r"epoch 1, step 1: .* is nan; where sampling starts") as caught:
        SGNHT(epochs=2).run(model, None, line.data)
    assert caught.value.posterior is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGLD(learning_rate=0.0), "learning_rate = 0.0: expected a number above 0"),
        (lambda: SGLD(temperature=-1.0), "temperature = -1.0"),
        (lambda: SGLD(chains=0), "chains = 0"),
        (lambda: SGLD(num_samples=2.5), "num_samples = 2.5: expected a whole number"),
        (lambda: SGLD(subtract_noise=True, batch_size=5), "batch_size = 5: expected an even number"),
        (lambda: SGHMC(momentum=1.0), "momentum = 1.0: expected a number of at least 0 and below 1"),
        (lambda: SGHMC(subtract_noise=True, batch_size=7), "batch_size = 7"),
        (lambda: SGNHT(diffusion=0.0), "diffusion = 0.0: expected a number above 0 and below 1"),
        (lambda: SGLD(start=SGLD()), "start = .*: expected a driver that runs no chains itself, such as ml or svi"),
        (lambda: SGLD(start=ML(dtype="float64")), "expected a driver with the same device and dtype"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(SettingError, match=message):
        make()
