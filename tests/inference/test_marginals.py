"""Prior against posterior: the draws that are kept are those of the right distributions."""

import math

import pytest
import torch
from scipy import stats

from pyroformer.guides import MeanField
from pyroformer.inference import ML, NUTS, SVI, Data, DeepEnsemble
from pyroformer.inference.marginals import Marginal, marginals, read_marginals, write_marginals
from pyroformer.models import BayesianModel, Gaussian
from pyroformer.priors import EmpiricalBayes, HalfCauchy, Hierarchical, Improper, Laplace, Normal, Pretrained, Uniform


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 20, generator=generator)
    return Data(x, x[:, :3] + 0.1 * torch.randn(30, 3, generator=generator))


def model(prior):
    torch.manual_seed(0)
    return BayesianModel(torch.nn.Linear(20, 3), prior, Gaussian(scale=0.5))


def fitted(prior, data, epochs=3):
    return SVI(epochs=epochs).run(model(prior), MeanField(), data)


PRIORS = {
    "normal": (Normal(scale=0.5), stats.norm(scale=0.5), stats.norm(scale=0.6)),
    "laplace": (Laplace(scale=2.0), stats.laplace(scale=2.0), stats.laplace(scale=2.4)),
    "uniform": (Uniform(scale=2.0), stats.uniform(-2, 4), stats.uniform(-2.3, 4.6)),
}


@pytest.mark.parametrize("name", PRIORS)
def test_prior_draws_are_from_the_prior(name, data):
    prior, truth, wrong = PRIORS[name]
    found = marginals(fitted({"weight": prior, "*": Improper()}, data), most=3000)
    assert list(found) == ["weight", "bias"]
    assert found["bias"].prior is None  # flat: its starting values are no draws from it
    kept = found["weight"].prior.numpy()
    assert len(kept) == 3000
    assert stats.kstest(kept, truth.cdf).pvalue > 1e-4
    assert stats.kstest(kept, wrong.cdf).pvalue < 1e-4  # planted


def test_posterior_draws_are_from_the_guide(data):
    posterior = fitted(Normal(), data)
    family = posterior.guide.families[0]
    kept = marginals(posterior, most=4000)["weight"].posterior
    loc, scale = family.loc.detach()[:60].double(), family.scale.detach()[:60].double()
    mixture_mean, mixture_sd = loc.mean(), (scale.square().mean() + loc.var(correction=0)).sqrt()
    assert abs(kept.mean() - mixture_mean) < 5 * mixture_sd / 4000**0.5
    assert abs(kept.mean() - (mixture_mean + 0.1 * mixture_sd)) > 5 * mixture_sd / 4000**0.5  # planted
    assert float(kept.std()) == pytest.approx(float(mixture_sd), rel=0.1)


@pytest.mark.parametrize("centered", [True, False])
def test_a_hierarchical_prior_has_its_weight_and_its_scale(centered, data):
    prior = {"weight": Hierarchical(prior=Normal(scale=0.3), hyperprior=HalfCauchy(), centered=centered), "*": Normal()}
    found = marginals(fitted(prior, data))
    assert set(found) == {"weight_scale", "weight", "bias"}
    assert (found["weight_scale"].prior > 0).all() and (found["weight_scale"].posterior > 0).all()
    # a scale mixture: most entries near 0 beside few far ones, unlike a normal of the same spread
    assert stats.kurtosis(found["weight"].prior.numpy()) > 3
    assert abs(stats.kurtosis(found["bias"].prior.numpy())) < 1


def test_parameters_of_the_likelihood_and_stored_draws(data):
    torch.manual_seed(0)
    noisy = BayesianModel(torch.nn.Linear(20, 3), Normal(), Gaussian(noise="random"))
    posterior = NUTS(num_samples=8, warmup_steps=8, max_tree_depth=2).run(noisy, None, data)
    found = marginals(posterior, most=10_000)
    (noise,) = set(found) - {"weight", "bias"}
    assert sorted(found[noise].posterior.tolist()) == sorted(posterior.draws[noise].flatten().tolist())
    assert found["weight"].posterior.numel() == 8 * 60


def test_the_same_seed_gives_the_same_and_nothing_else_moves(data):
    posterior = fitted(Normal(), data)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, two, other = (marginals(posterior, seed=seed)["weight"] for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one.posterior, two.posterior) and torch.equal(one.prior, two.prior)
    assert not torch.equal(one.prior, other.prior)


def test_a_model_without_random_weights_has_none(data):
    from pyroformer.priors import Learned

    assert marginals(ML(epochs=1).run(model(Learned()), None, data)) == {}


def test_a_file_keeps_them_in_their_order(tmp_path):
    found = {name: Marginal(torch.rand(3), torch.rand(4) if name == "b" else None) for name in ("z", "b", "a")}
    write_marginals(tmp_path / "m.safetensors", found)
    again = read_marginals(tmp_path / "m.safetensors")
    assert list(again) == ["z", "b", "a"]
    assert torch.equal(again["b"].prior, found["b"].prior) and again["z"].prior is None
    assert all(torch.equal(again[name].posterior, found[name].posterior) for name in found)
    assert read_marginals(tmp_path / "none.safetensors") == {}


def test_members_with_priors_of_their_own_have_none_in_common(data):
    prior = {"weight": Pretrained(), "*": Normal()}

    def found(start):
        member = SVI(epochs=1, start=start)
        return marginals(DeepEnsemble(member=member, size=2).run(model(prior), MeanField(), data), most=50)

    apart = found(ML(epochs=1))
    assert apart["weight"].prior is None and apart["weight"].posterior.isfinite().all()
    assert apart["bias"].prior is not None  # not all are lost
    together = found(None)  # planted: every member around the one start
    assert together["weight"].prior is not None


def test_weights_of_a_member_are_scaled_by_what_it_learned(data):
    prior = {"weight": EmpiricalBayes(centered=False), "*": Normal()}
    ensemble = DeepEnsemble(member=SVI(epochs=2), size=2).run(model(prior), MeanField(), data)
    with torch.no_grad():
        for factor, member in zip((1e-3, 1e3), ensemble.members, strict=True):
            member.model.weight_priors.get_parameter("weight_log_scale").fill_(math.log(factor))
    found = marginals(ensemble, most=10**6)["weight"]
    first, second = found.posterior.chunk(2)
    assert found.prior is None
    ratio = float(second.square().mean().sqrt() / first.square().mean().sqrt())
    assert 1e5 < ratio < 1e7  # by the scale of the first member alone it would be about 1
