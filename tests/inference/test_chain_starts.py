"""Each chain starts where its driver's settings say."""

import pytest
import torch
from torch import nn

from pyroformer.guides import Guide, MeanField
from pyroformer.inference import (
    HMC,
    MAP,
    ML,
    NUTS,
    SGLD,
    SVI,
    SWAG,
    Data,
    DeepEnsemble,
    DrawsPosterior,
    Driver,
    InferenceError,
    Library,
    Monitor,
)
from pyroformer.inference import mcmc as mcmc_file
from pyroformer.inference.chain_starts import jittered
from pyroformer.inference.density import FlatDensity
from pyroformer.inference.prior_functions import PriorFunctions
from pyroformer.models import BayesianModel, Gaussian
from pyroformer.priors import Cauchy, Improper, Normal, Pretrained, SettingError

X = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
DATA = Data(X, X.sum(-1, keepdim=True))
SHORT = ML(epochs=3, batch_size=20)
QUICK = {"num_samples": 4, "warmup_steps": 1, "chains": 3, "max_steps": 1}
SEED = 3
OWN = [SEED * 1_000_003 + chain for chain in range(3)]


def model(prior=None, net=None):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)) if net is None else net
    return BayesianModel(net, prior or Normal(), Gaussian(scale=0.3))


@pytest.fixture
def started(monkeypatch):
    """Run a driver; returns where its chains started, by site, and the posterior."""
    seen = []

    class Seen(mcmc_file.Chains):
        def __init__(self, density, kernel, start, **settings):
            seen.append(start)
            super().__init__(density, kernel, start, **settings)

    monkeypatch.setattr(mcmc_file, "Chains", Seen)

    def run(driver, built=None, guide=None, monitor=None):
        built = built or model()
        posterior = driver.run(built, guide, DATA, SEED, monitor)
        (z,) = seen
        seen.clear()
        return FlatDensity(built, (DATA.x, DATA.y), trace=False).unflatten(z), posterior

    return run


def close(found, *expected):
    """Whether chains are where they are expected, by site."""
    return all(
        torch.allclose(found[name][chain], values[name], atol=1e-5)
        for chain, values in enumerate(expected)
        for name in found
    )


def test_nets_that_start_afresh(started):
    found, _ = started(HMC(**QUICK))
    nets = [model(), *(model().reinitialized(own) for own in OWN[1:])]
    assert close(found, *(net.initial_values() for net in nets))
    assert not close(found, *(model().reinitialized(own).initial_values() for own in OWN))  # planted: the first too
    single, _ = started(NUTS(num_samples=4, warmup_steps=1, max_tree_depth=1))
    assert close(single, model().initial_values())


def test_draws_of_the_prior(started):
    found, _ = started(HMC(**QUICK, start="prior"))
    prior = PriorFunctions(model())
    draws = [{name: value[0] for name, value in prior.draw(1, seed=own).items()} for own in OWN]
    assert close(found, *draws)
    fewer, _ = started(HMC(**{**QUICK, "chains": 2}, start="prior"))
    assert close(fewer, *draws[:2])


@pytest.mark.parametrize("start", [SHORT, MAP(epochs=3, batch_size=20)], ids=["ml", "map"])
def test_trained_nets_are_the_members_of_an_ensemble(started, start):
    found, posterior = started(HMC(**QUICK, start=start))
    ensemble = DeepEnsemble(member=start, size=3).run(model(), None, DATA, SEED)
    members = [{name: value[0] for name, value in member.draw(1).items()} for member in ensemble.members]
    assert close(found, *members) and not close(found, *reversed(members))
    assert len(posterior.info["start"]) == 3 and all("kept" in each for each in posterior.info["start"])
    same, _ = started(HMC(**QUICK, start=DeepEnsemble(member=start, size=4)))
    assert close(same, *members)


def test_one_chain_starts_at_the_net_of_other_drivers(started):
    found, _ = started(NUTS(num_samples=4, warmup_steps=1, max_tree_depth=1, start=SHORT))
    assert close(found, {name: value[0] for name, value in SHORT.run(model(), None, DATA, SEED).draw(1).items()})


def test_draws_of_a_posterior(started):
    svi = SVI(epochs=3)
    found, posterior = started(HMC(**QUICK, start=svi), guide=MeanField(init_scale=0.2))
    draws = svi.run(model(), MeanField(init_scale=0.2), DATA, SEED).draw(3, seed=SEED)
    assert close(found, *({name: value[chain] for name, value in draws.items()} for chain in range(3)))
    assert posterior.info["start"][0]["kl_weight"] == 1.0
    swag = SWAG(epochs=2, start=SHORT)
    found, _ = started(HMC(**QUICK, start=swag))
    draws = swag.run(model(), None, DATA, SEED).draw(3, seed=SEED)
    assert close(found, *({name: value[chain] for name, value in draws.items()} for chain in range(3)))


def test_members_may_have_guides(started):
    ensemble = DeepEnsemble(member=SVI(epochs=2), size=3)
    found, _ = started(HMC(**QUICK, start=ensemble), guide=MeanField())
    members = ensemble.run(model(), MeanField(), DATA, SEED).members
    draws = [member.draw(1, seed=own) for member, own in zip(members, OWN, strict=True)]
    assert close(found, *({name: value[0] for name, value in each.items()} for each in draws))


def test_jitter_is_noise_of_its_size(started):
    plain = torch.randn(300, 20).double()
    noise = jittered(plain, 0.1, SEED) - plain
    assert noise.std() == pytest.approx(0.1, rel=0.05) and noise.mean().abs() < 0.01
    torch.testing.assert_close(jittered(plain[:2], 0.1, SEED), plain[:2] + noise[:2])  # each chain has its own
    assert jittered(plain, 0.0, SEED) is plain
    quiet, _ = started(HMC(**QUICK))
    found, _ = started(HMC(**QUICK, jitter=0.1))
    spread = torch.cat([(found[name] - quiet[name]).flatten(1) for name in found], 1)
    assert 0.05 < spread.std() < 0.2


def test_a_library_shares_the_nets(started, monkeypatch, tmp_path):
    DeepEnsemble(member=SHORT, size=3).run(model(), None, DATA, SEED, Monitor(library=Library(tmp_path)))
    expected, _ = started(HMC(**QUICK, start=SHORT))
    monkeypatch.setattr("pyroformer.inference.optimize.Fit.step", None)  # nothing is trained
    monitor = Monitor(library=Library(tmp_path))
    found, _ = started(HMC(**QUICK, start=SHORT), monitor=monitor)
    assert close(found, *({n: v[k] for n, v in expected.items()} for k in range(3)))
    parts = [(entry.get("part"), entry.get("chain")) for entry in monitor.history]
    assert parts == [("start", k) for k in range(3) for _ in range(3)] + [(None, None)] * 5


def centers(built):
    return built.distributions()["0.weight"].mean


def test_priors_around_the_net_move_to_the_first_trained_one(started):
    prior = Pretrained(prior=Normal(scale=0.1))
    for start in (SHORT, DeepEnsemble(member=SHORT, size=3)):
        driver = HMC(**QUICK, start=start)
        found, posterior = started(driver, model(prior))
        assert driver.moves_centers and torch.allclose(centers(posterior.model), found["0.weight"][0])
        assert not torch.allclose(centers(posterior.model), found["0.weight"][1])
    for start in (None, "prior"):
        _, posterior = started(HMC(**QUICK, start=start), model(prior))
        assert torch.equal(centers(posterior.model), model().net[0].weight) and not HMC(start=start).moves_centers
    svi = SVI(epochs=2, start=SHORT)
    _, posterior = started(HMC(**QUICK, start=svi), model(prior), MeanField())
    assert torch.equal(centers(posterior.model), centers(svi.run(model(prior), MeanField(), DATA, SEED).model))


def test_nets_that_drivers_start_from_are_named():
    assert HMC(start=SHORT).starts_from is SHORT and HMC(start=DeepEnsemble(member=SHORT)).starts_from is SHORT
    assert HMC(start=SVI(start=SHORT)).starts_from is SHORT and HMC(start=SVI()).starts_from is None
    assert HMC().starts_from is None and HMC(start="prior").starts_from is None


class Scaled(nn.Module):
    """A net that cannot start its parameter anew."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.scale * x.mean(-1, keepdim=True)


def test_starts_that_cannot_be_are_refused_before_any_work():
    def refused(driver, built=None, guide=None):
        with pytest.raises(SettingError) as caught:
            driver.run(built or model(), guide, None)
        return str(caught.value)

    assert "a flat prior has no predictive" in refused(HMC(start="prior"), model(Improper()))
    assert "a net that starts afresh for every chain" in refused(HMC(start=SHORT), model(net=Scaled()))
    assert "a net that starts afresh for every chain" in refused(
        HMC(chains=1, start=DeepEnsemble()), model(net=Scaled())
    )
    assert HMC(start="prior").refusal(model(net=Scaled())) is None
    assert HMC(chains=1, start=SHORT).refusal(model(net=Scaled())) is None
    assert "expected none: HMC would ignore it" in refused(HMC(start=SHORT), guide=MeanField())
    built = model()
    assert "families" in refused(HMC(start=SVI()), built, Guide(built, MeanField(), (X[:2],)))


class Few(Driver):
    """A posterior of two draws."""

    def _run(self, model, guide, data, seed, monitor):
        return DrawsPosterior(model, {n: v.expand(2, *v.shape) for n, v in model.initial_values().items()})


def test_a_start_with_too_few_draws_is_refused():
    with pytest.raises(SettingError, match="chains = 3: expected at most 2, the draws that the start has"):
        HMC(**QUICK, start=Few()).run(model(), None, DATA, SEED)
    assert HMC(**{**QUICK, "chains": 2}, start=Few()).run(model(), None, DATA, SEED).chains == 2


def test_a_start_that_the_density_refuses_is_named():
    with pytest.raises(InferenceError, match="chain 0: the log-density or its gradient is not finite"):
        HMC(**QUICK, start="prior").run(model(Cauchy(scale=1e30)), None, DATA, SEED)


def test_a_start_with_too_few_draws_is_refused_before_it_runs():
    with pytest.raises(SettingError, match="at least 4 draws: one for each chain"):
        HMC(chains=4, start=SGLD(chains=1, num_samples=3))
    HMC(chains=4, start=SGLD(chains=2, num_samples=2))
