"""Warm-up, saved states, and posteriors that are known."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyroformer.inference import InferenceError
from pyroformer.inference.density import FlatDensity
from pyroformer.inference.files import read_tensors, write_tensors
from pyroformer.inference.samplers import (
    AdjustedMCLMCKernel,
    Chains,
    ChEESKernel,
    HMCKernel,
    MCLMCKernel,
    NUTSKernel,
    collect,
)
from pyroformer.inference.samplers.dual_averaging import LARGEST_LOG, DualAveraging, reasonable_step_size
from pyroformer.inference.samplers.masses import Moments, windows
from pyroformer.priors import SettingError

KERNELS = {
    "hmc": HMCKernel(),
    "nuts": NUTSKernel(),
    "chees": ChEESKernel(),
    "adjusted_mclmc": AdjustedMCLMCKernel(),
    "mclmc": MCLMCKernel(steps_per_draw=3),
}
EXACT = ["hmc", "nuts", "chees", "adjusted_mclmc"]


@pytest.fixture(params=KERNELS)
def kernel(request):
    return KERNELS[request.param]


@pytest.fixture(params=EXACT)
def exact(request):
    return KERNELS[request.param]


def test_windows_double():
    assert windows(1000) == (75, (100, 150, 250, 450, 950))
    assert windows(200) == (75, (100, 150))
    assert windows(150) == (75, (100,))
    assert windows(100) == (15, (90,))
    assert windows(19) == (19, ()) and windows(0) == (0, ())


def test_moments_are_those_of_all_chains():
    z = torch.randn(6, 4, 3)
    moments = Moments(3)
    for rows in z:
        moments.add(rows)
    plain = z.flatten(0, 1).double()
    assert torch.allclose(moments.mean, plain.mean(0))
    assert torch.allclose(moments.variance(), 24 / 29 * plain.var(0) + 5 / 29 * 1e-3)
    assert not torch.allclose(moments.variance(), plain.var(0))  # planted: not pulled


def test_dual_averaging_finds_the_acceptance():
    """For an acceptance of exp(-step), the step is -ln(target)."""
    averaging = DualAveraging(0.8, 1.0)
    for _ in range(2000):
        averaging.update(torch.tensor(-averaging.step_size).exp().item())
    wanted = -torch.tensor(0.8).log().item()
    assert abs(averaging.average / wanted - 1) < 0.02
    assert abs(averaging.average / -torch.tensor(0.65).log().item() - 1) > 0.1  # planted: another target


@pytest.mark.parametrize("settings", [{}, {"shrinkage": 0.2, "boldness": 1.0}], ids=["NUTS", "trajectories"])
def test_the_mean_acceptance_is_known_from_the_step(settings):
    r"""Errors are summed: :math:`\sum (\delta - \alpha_i) = (t + t_0) \bar h_t`, which is what moves the step."""
    averaging, generator = DualAveraging(0.9, 0.3, **settings), torch.Generator().manual_seed(1)
    taken = []
    for _ in range(50):
        chance = math.exp(-(averaging.step_size**3))
        taken.append(float(torch.rand((), generator=generator) < chance))
        averaging.update(taken[-1])
    moved = averaging.center - math.log(averaging.step_size)
    gap = averaging.shrinkage * moved / 50**0.5 * (1 + 10 / 50)
    assert 0.9 - sum(taken) / 50 == pytest.approx(gap)
    assert 0.9 - sum(taken[1:]) / 49 != pytest.approx(gap)  # planted: one is left out
    assert math.exp(averaging.center) == pytest.approx(0.3 * settings.get("boldness", 10))


@pytest.mark.parametrize("first", [0.1, 2.0])
def test_small_gains_find_a_step_whose_ends_are_all_or_nothing(first):
    """An acceptance of exp(-step ** 3), seen as yes or no: within 5 standard errors, from below and from above."""

    def acceptances(target):
        ends = []
        for seed in range(40):
            averaging = DualAveraging(target, first, shrinkage=0.2, boldness=1.0)
            uniform = torch.rand(400, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tolist()
            for each in uniform:
                averaging.update(float(each < math.exp(-(averaging.step_size**3))))
            ends.append(math.exp(-(averaging.average**3)))
        return torch.tensor(ends)

    found = acceptances(0.9)
    error = float(found.std()) / 40**0.5
    left = 0.2 * abs(math.log(first / 0.472)) / 400**0.5  # of the mean acceptance, from the start that is shrunk to
    assert abs(found.mean() - 0.9) < 5 * error + left
    assert abs(acceptances(0.8).mean() - 0.9) > 5 * error + left  # planted: another target


@pytest.mark.parametrize(("acceptance", "end"), [(1.0, LARGEST_LOG), (0.0, -LARGEST_LOG)])
def test_dual_averaging_stays_finite_on_a_density_without_an_end(acceptance, end):
    averaging = DualAveraging(0.8, 1.0)
    for _ in range(50_000):
        averaging.update(acceptance)
    assert averaging.step_size == math.exp(end) and 0 < averaging.average < math.inf


def test_a_first_step_size_is_where_half_are_accepted(correlated):
    chains = Chains(correlated, NUTSKernel(), correlated.mean.expand(4, 3).clone(), step_size=1.0)
    sizes = {
        first: reasonable_step_size(
            chains.kernel.one_step(correlated, chains.position, chains.streams, torch.ones(3).double()), first
        )
        for first in (1e-4, 1.0, 100.0)
    }
    assert all(0.1 < size < 4 for size in sizes.values()), sizes


@pytest.mark.parametrize("name", ["hmc", "nuts", "adjusted_mclmc"])
def test_warm_up_finds_acceptance_and_variances(name, correlated, distance, left_over):
    r"""The acceptance is not below its target, and with the double step it is.

    By 5 standard errors, of draws and of the end of warm-up, and what that leaves over: dual averaging of 50 steps
    leaves `left_over` between the mean acceptance and its target. Step sizes vary during warm-up, and their geometric
    mean is accepted more often than they are in the mean: so the other bound is another step.
    """
    kernel = KERNELS[name]
    scale = torch.tensor([0.3, 1.0, 3.0], dtype=torch.float64)

    def stretched(z):
        value, gradient = correlated(z / scale)
        return value, gradient / scale

    start = correlated.mean * scale + torch.zeros(4, 3).double()
    chains = Chains(stretched, kernel, start, warmup_steps=200)
    samples = collect(chains, 150)
    variances = correlated.covariance.diag() * scale**2
    assert ((chains.tuning.inverse_mass / variances).log()).abs().max() < 0.7
    acceptance, averaging = samples.transitions.acceptance, chains.adaptation.averaging
    left = left_over(averaging)
    allowed = 5 * float(acceptance.std()) * (1 / acceptance.numel() + 1 / (4 * 50)) ** 0.5 + left
    assert acceptance.mean() > kernel.target_accept - allowed
    double = {"step_size": 2 * chains.tuning.step_size, "inverse_mass": chains.tuning.inverse_mass}
    coarse = collect(Chains(stretched, kernel, chains.position.z, warmup_steps=0, **double), 50)
    assert coarse.transitions.acceptance.mean() < kernel.target_accept - allowed
    assert distance(samples.z / scale, correlated.mean, correlated.covariance) < 5
    assert chains.index == 350 and chains.tuning.step_size == averaging.average


def test_a_saved_state_goes_on_bit_for_bit(kernel, correlated, tmp_path):
    """Saved before variances are taken, meanwhile, while other things are tuned, and after warm-up."""

    def new():
        return Chains(correlated, kernel, torch.ones(2, 3).double(), seed=4, warmup_steps=60)

    chains, draws = new(), []
    for index in range(66):
        write_tensors(tmp_path / f"{index}.safetensors", chains.state())
        draws.append(chains.step())
    for when in (5, 30, 58, 62):
        going_on = new()
        going_on.restore(read_tensors(tmp_path / f"{when}.safetensors"))
        for expected in draws[when:]:
            draw = going_on.step()
            assert (draw.index, draw.warming, draw.step_size) == (expected.index, expected.warming, expected.step_size)
            assert torch.equal(draw.z, expected.z) and torch.equal(draw.log_prob, expected.log_prob)
            assert all(torch.equal(*pair) for pair in zip(draw.transition, expected.transition, strict=True))
        found, expected = going_on.state(), chains.state()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)
    planted = new()
    planted.restore({**read_tensors(tmp_path / "30.safetensors"), "streams": new().streams.state()})
    assert not all(torch.equal(planted.step().z, draw.z) for draw in draws[30:])  # the random numbers begin anew


def test_a_state_of_other_chains_is_refused(correlated):
    states = [Chains(correlated, NUTSKernel(), torch.zeros(k, 3).double(), step_size=0.1) for k in (2, 3)]
    with pytest.raises(ValueError, match=r"a state of \(3, 3\) torch.float64: expected \(2, 3\)"):
        states[0].restore(states[1].state())


def test_where_chains_cannot_start(correlated):
    with pytest.raises(InferenceError, match="chain 1: the log-density or its gradient is not finite"):
        Chains(correlated, NUTSKernel(), torch.tensor([[0.0] * 3, [torch.nan] * 3]).double())
    for settings, message in (
        ({"warmup_steps": -1}, "warmup_steps = -1"),
        ({"step_size": 0.0}, "step_size = 0.0"),
        ({"inverse_mass": torch.zeros(3)}, "inverse_mass"),
        ({"start": torch.zeros(3)}, r"start = \(3,\): expected real numbers \[K, D\]"),
    ):
        with pytest.raises(SettingError, match=message):
            Chains(correlated, NUTSKernel(), **{"start": torch.zeros(1, 3).double(), **settings})


def test_progress_is_told_of_every_step(correlated):
    seen = []
    collect(Chains(correlated, NUTSKernel(), torch.zeros(1, 3).double(), warmup_steps=3), 2, seen.append)
    assert [(draw.index, draw.warming) for draw in seen] == [(0, True), (1, True), (2, True), (3, False), (4, False)]


def many(kernel):
    """How many chains and draws: those of NUTS go one after another."""
    return (4, 150) if isinstance(kernel, NUTSKernel) else (16, 50)


def test_the_exact_posterior_of_a_linear_regression(exact, line, distance):
    density = FlatDensity(line.model().double(), (line.x.double(), line.y.double()))
    chains, draws = many(exact)
    start = density.start() + 0.1 * torch.randn(chains, density.size).double()
    samples = collect(Chains(density.log_prob_and_grad, exact, start, warmup_steps=60), draws)
    flat = line.flat(density.unflatten(samples.z.flatten(0, 1))).view(chains, draws, 4)
    assert distance(flat, line.mean(), line.covariance()) < 5
    assert distance(flat, line.mean(noise=0.6), line.covariance(noise=0.6)) > 5  # planted: another noise


def funnel():
    v = pyro.sample("v", dist.Normal(torch.zeros(()).double(), 3.0))
    raw = pyro.sample("raw", dist.Normal(torch.zeros(4).double(), 1.0).to_event(1))
    pyro.deterministic("x", (v / 2).exp() * raw)


def test_a_funnel_in_its_non_centred_form(exact, distance):
    density = FlatDensity(funnel)
    chains, draws = many(exact)
    start = torch.zeros(chains, 5).double()
    samples = collect(Chains(density.log_prob_and_grad, exact, start, warmup_steps=60), draws)
    variances = torch.tensor([9.0, 1.0, 1.0, 1.0, 1.0]).double()
    assert distance(samples.z, torch.zeros(5).double(), variances.diag()) < 5
    assert not samples.transitions.divergent.any()
    assert distance(samples.z, torch.zeros(5).double(), (variances * 1.6).diag()) > 5  # planted


def test_a_state_of_another_kernel_is_refused(correlated):
    hmc, mclmc = (
        Chains(correlated, KERNELS[name], torch.ones(2, 3).double(), step_size=0.1) for name in ("hmc", "mclmc")
    )
    with pytest.raises(ValueError, match=r"a state of another kernel: it carries \[\], not \['direction'\]"):
        mclmc.restore(hmc.state())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_keep_their_type(kernel, correlated, dtype):
    def density(z):
        value, gradient = correlated(z.double())
        return value.to(dtype), gradient.to(dtype)

    chains = Chains(density, kernel, torch.ones(2, 3, dtype=dtype), warmup_steps=40)
    draws = [chains.step() for _ in range(42)]
    assert all(draw.z.dtype == draw.log_prob.dtype == dtype and draw.z.isfinite().all() for draw in draws)
    assert chains.position.gradient.dtype == chains.tuning.inverse_mass.dtype == dtype


WALKING = {**KERNELS, "adjusted_mclmc": AdjustedMCLMCKernel(max_steps=20), "mclmc": MCLMCKernel(steps_per_draw=2)}


@pytest.mark.parametrize("name", WALKING)
def test_no_number_in_one_chain_stops_the_others(name, correlated):
    """A gradient that is infinite, or no number, beyond a wall; steps become smaller, and all stays finite."""

    def walled(z):
        value, gradient = correlated(z)
        beyond = (z[..., 0] > 1.5).unsqueeze(-1)
        return value, torch.where(beyond, torch.where(gradient > 0, torch.inf, torch.nan), gradient)

    start = correlated.mean + torch.zeros(3, 3).double()
    chains = Chains(walled, WALKING[name], start, warmup_steps=30, step_size=30.0)
    draws = [chains.step() for _ in range(40)]
    assert all(draw.z.isfinite().all() and (draw.z[:, 0] <= 1.5).all() for draw in draws)
    assert draws[0].transition.divergent.any() and chains.tuning.step_size < 10
    assert not torch.equal(draws[-1].z, draws[0].z)
