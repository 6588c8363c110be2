"""Chains on normal means settle in laws that are known for every step size; the posterior's is another."""

import pytest
import torch

from pyroformer.inference import SGHMC, SGLD, SGNHT, ConstantSteps, CyclicalSteps, Monitor
from pyroformer.inference.stochastic_gradient import sampling

N = 20
FEW = {"chains": 40, "num_samples": 12, "batch_size": N, "schedule": ConstantSteps(burn_in=0.25)}


def rate_of(epsilon):
    """The learning rate whose noise has variance ``epsilon``."""
    return epsilon * N / 2


def langevin(precision, epsilon, temperature=1.0, noise=0.0):
    """The variance that SGLD settles in: an autoregression with the noise of steps and of gradients."""
    return (temperature * epsilon + epsilon**2 / 4 * noise) / (1 - (1 - epsilon * precision / 2) ** 2)


def hamiltonian(precision, step, friction, temperature=1.0, noise=0.0):
    """The covariance of place and momentum that SGHMC settles in: its Lyapunov equation."""
    a = torch.tensor([[1 - step**2 * precision, step * (1 - friction)], [-step * precision, 1 - friction]]).double()
    kick = torch.tensor([step, 1.0]).double()
    source = (2 * friction * temperature + step**2 * noise) * kick.outer(kick)
    return torch.linalg.solve(torch.eye(4) - torch.kron(a, a), source.reshape(-1)).view(2, 2)


def variances(draws):
    """The mean square of each chain's deviations, ``[K]``."""
    return draws.square().mean((1, 2))


class DoubledNoise(SGLD):
    """Planted: the variance of the noise is twice what it should be."""

    def move(self, motion, around):
        return super().move(motion, around._replace(noise=around.noise * 2**0.5))


class NoRoot(SGLD):
    """Planted: the noise is multiplied by the step size, not by its root."""

    def move(self, motion, around):
        return super().move(motion, around._replace(noise=around.noise * (2 * around.rate) ** 0.5))


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_langevin_on_all_data(means, errors, temperature):
    epsilon = 1 / means.precision
    driver = SGLD(epochs=48, learning_rate=rate_of(epsilon), temperature=temperature, **FEW)
    draws = means.draws(driver)
    assert draws.shape == (40, 12, 16)
    expected = langevin(means.precision, epsilon, temperature)
    assert expected == pytest.approx(temperature / means.precision / (1 - epsilon * means.precision / 4))
    assert errors(draws.mean((1, 2)), 0.0) < 5
    assert errors(variances(draws), expected) < 5
    assert errors(variances(draws), temperature / means.precision) > 5  # the posterior itself: steps are large
    if temperature == 1:
        for wrong in (DoubledNoise, NoRoot):
            planted = means.draws(wrong(epochs=48, learning_rate=rate_of(epsilon), **FEW))
            assert errors(variances(planted), expected) > 5


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_langevin_on_minibatches(means, errors, share):
    """What minibatches add is of the first order in the step size."""
    epsilon, noise = share / means.precision, means.gradient_noise(5)
    driver = SGLD(epochs=20, learning_rate=rate_of(epsilon), **{**FEW, "batch_size": 5})
    draws = means.draws(driver)
    assert errors(draws.mean((1, 2)), 0.0) < 5
    assert errors(variances(draws), langevin(means.precision, epsilon, noise=noise)) < 5
    assert errors(variances(draws), langevin(means.precision, epsilon)) > 5  # planted: no noise of gradients
    if share == 1:
        with_replacement = langevin(means.precision, epsilon, noise=noise / (1 - 5 / N))
        assert errors(variances(draws), with_replacement) > 5  # planted: examples may repeat


def test_the_bias_is_of_first_order():
    bias = [langevin(21.0, share / 21.0, noise=60.0) * 21.0 - 1 for share in (0.2, 0.1, 0.05)]
    assert 1.9 < bias[0] / bias[1] < 2.3 and 1.95 < bias[1] / bias[2] < 2.15


def test_minibatches_count_for_all_data(means, errors, monkeypatch):
    driver = SGLD(epochs=20, learning_rate=rate_of(0.5 / means.precision), **{**FEW, "batch_size": 5})
    assert errors(means.draws(driver).mean((1, 2)), 0.0) < 5

    class Unscaled(sampling.MinibatchDensity):
        """Planted: five examples count as five, under the same prior."""

        total = property(lambda self: 5, lambda self, value: None)

    monkeypatch.setattr(sampling, "MinibatchDensity", Unscaled)
    assert errors(means.draws(driver).mean((1, 2)), 0.0) > 5


def test_subtracted_noise_leaves_that_of_the_posterior(means, errors):
    epsilon, noise = 0.5 / means.precision, means.gradient_noise(4)
    settings = {**FEW, "batch_size": 4, "schedule": ConstantSteps(burn_in=0.5)}
    draws = means.draws(SGLD(epochs=48, learning_rate=rate_of(epsilon), subtract_noise=True, **settings))
    assert errors(variances(draws), langevin(means.precision, epsilon)) < 5
    assert errors(variances(draws), langevin(means.precision, epsilon, noise=noise)) > 5  # planted: ignored
    half = langevin(means.precision, epsilon, noise=-noise)
    assert errors(variances(draws), half) > 5  # planted: subtracted twice


def recorded(monitor, name, blocks=10):
    """Means of what was recorded while sampling, in blocks that are nearly independent."""
    values = [record[name] for record in monitor.history if record["stage"] == "sampling"]
    values = torch.tensor(values[len(values) % blocks :], dtype=torch.float64)
    return values.view(blocks, -1).mean(1)


@pytest.mark.parametrize(("size", "share"), [(N, 0.5), (5, 0.1)])
def test_hamiltonian(means, errors, size, share):
    step, friction = (share / means.precision) ** 0.5, 0.3
    noise = means.gradient_noise(size)
    epochs = 160 * size // N
    driver = SGHMC(epochs=epochs, learning_rate=step**2 * N, momentum=1 - friction, **{**FEW, "batch_size": size})
    monitor = Monitor()
    draws = means.draws(driver, monitor=monitor)
    covariance = hamiltonian(means.precision, step, friction, noise=noise)
    assert errors(draws.mean((1, 2)), 0.0) < 5
    assert errors(variances(draws), covariance[0, 0]) < 5
    assert errors(recorded(monitor, "kinetic_temperature"), covariance[1, 1]) < 5
    configured = means.precision * covariance[0, 0]
    assert errors(recorded(monitor, "configurational_temperature"), configured) < 5
    twice = hamiltonian(means.precision, step, 2 * friction, noise=noise) if size < N else 2 * covariance
    assert errors(variances(draws), twice[0, 0]) > 5  # planted: another friction, twice the noise
    if size < N:
        assert errors(variances(draws), hamiltonian(means.precision, step, friction)[0, 0]) > 5  # planted: ignored


def test_without_momentum_hamiltonian_is_langevin(means):
    settings = {**FEW, "chains": 4, "epochs": 8, "learning_rate": 0.1, "num_samples": 4}
    one = means.draws(SGHMC(momentum=0.0, **settings))
    assert torch.allclose(one, means.draws(SGLD(**settings)), atol=1e-5)
    assert not torch.allclose(one, means.draws(SGHMC(momentum=0.1, **settings)), atol=1e-2)


def test_subtracted_noise_in_hamiltonian(means, errors):
    step, friction, size = (0.1 / means.precision) ** 0.5, 0.3, 4
    settings = {**FEW, "batch_size": size, "schedule": ConstantSteps(burn_in=0.5)}
    driver = SGHMC(epochs=48, learning_rate=step**2 * N, momentum=1 - friction, subtract_noise=True, **settings)
    draws = means.draws(driver)
    assert errors(variances(draws), hamiltonian(means.precision, step, friction)[0, 0]) < 5
    ignored = hamiltonian(means.precision, step, friction, noise=means.gradient_noise(size))
    assert errors(variances(draws), ignored[0, 0]) > 5  # planted


def test_the_thermostat_takes_up_noise_that_nobody_measured(means, errors):
    step, diffusion, noise = (0.05 / means.precision) ** 0.5, 0.1, means.gradient_noise(5)
    settings = {**FEW, "batch_size": 5, "schedule": ConstantSteps(burn_in=0.5)}
    monitor = Monitor()
    driver = SGNHT(epochs=100, learning_rate=step**2 * N, diffusion=diffusion, **settings)
    draws = means.draws(driver, monitor=monitor)
    low, high = diffusion, 10 * diffusion
    for _ in range(50):  # the friction at which the momentum has the temperature 1, by bisection

        def cold(friction):
            return hamiltonian(means.precision, step, friction, diffusion / friction, noise)[1, 1] < 1

        middle = (low + high) / 2
        low, high = (low, middle) if cold(middle) else (middle, high)
    expected = hamiltonian(means.precision, step, low, diffusion / low, noise)[0, 0]
    assert errors(variances(draws), expected) < 5
    assert abs(recorded(monitor, "friction").mean() - low) < 0.1 * low
    assert abs(recorded(monitor, "kinetic_temperature").mean() - 1) < 0.03
    plain = hamiltonian(means.precision, step, diffusion, noise=noise)[0, 0]
    assert errors(variances(draws), plain) > 5  # planted: no thermostat


def scheduled(precision, rate, friction, plan, kept):
    r"""The variance of draws by steps that change, step by step, from a start in the mean and at rest.

    Args:
        precision: Of the posterior.
        rate: The largest :math:`\ell / N`.
        friction: The share of the momentum that a step takes away: 1 for SGLD.
        plan: Of all steps: the share of that rate, and whether there is noise.
        kept: After which steps there is a draw.
    """
    covariance, found = torch.zeros(2, 2).double(), []
    for factor, noisy in zip(plan.factors.tolist(), plan.noisy.tolist(), strict=True):
        step = (rate * factor) ** 0.5
        a = [[1 - step**2 * precision, step * (1 - friction)], [-step * precision, 1 - friction]]
        a, kick = torch.tensor(a).double(), torch.tensor([step, 1.0]).double()
        covariance = a @ covariance @ a.T + 2 * friction * noisy * kick.outer(kick)
        found.append(covariance[0, 0])
    return float(torch.stack(found)[kept].mean())


@pytest.mark.parametrize(("kind", "epochs", "share"), [(SGLD, 90, 0.5), (SGHMC, 90, 0.2), (SGHMC, 150, 0.15)])
def test_sampling_stages_of_cycles(kind, epochs, share, means, errors):
    """Short stages are left before they are as warm as the posterior; long ones give its draws."""
    friction, rate = (1.0 if kind is SGLD else 0.3), share / means.precision
    schedule = CyclicalSteps(cycles=3, exploration=0.4 if epochs == 150 else 0.6)
    settings = {**FEW, "schedule": schedule, "num_samples": 15} | ({} if kind is SGLD else {"momentum": 1 - friction})
    draws = means.draws(kind(epochs=epochs, learning_rate=rate * N, **settings))
    assert draws.shape == (40, 15, 16)
    plan, kept = schedule.plan(epochs), schedule.kept(epochs, 15)
    expected = scheduled(means.precision, rate, friction, plan, kept)
    assert errors(draws.mean((1, 2)), 0.0) < 5
    assert errors(variances(draws), expected) < 5
    if epochs == 150:
        assert expected == pytest.approx(1 / means.precision, rel=0.02)
        assert errors(variances(draws), 1 / means.precision) < 5
        assert errors(variances(draws), 1.25 / means.precision) > 5  # planted: another variance
    else:
        assert errors(variances(draws), 1 / means.precision) > 5  # the posterior itself
        throughout = plan._replace(noisy=torch.ones_like(plan.noisy))
        warm = scheduled(means.precision, rate, friction, throughout, kept)
        assert errors(variances(draws), warm) > 5  # planted: noise in all stages
        steady = plan._replace(factors=torch.ones_like(plan.factors))
        level = scheduled(means.precision, rate, friction, steady, kept)
        assert errors(variances(draws), level) > 5  # planted: steps that stay
