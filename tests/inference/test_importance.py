"""Importance weights of guides: by hand, by the evidence of a linear regression, and where the guide is exact."""

import math

import pytest
import torch
from torch.distributions import LogNormal, MultivariateNormal, Normal

from pyroformer.guides import Guide, MeanField
from pyroformer.inference import MAP, Data, DrawsPosterior, GuidePosterior, MixturePosterior, psis
from pyroformer.inference.pareto import tail_length
from pyroformer.models import BayesianModel, Categorical, Gaussian
from pyroformer.priors import Learned, SettingError
from pyroformer.priors import Normal as NormalPrior

NOISE = 0.5


def posterior_of(model, x, loc=None, scale=None, **info):
    """A mean-field posterior with these parameters."""
    guide = Guide(model, MeanField(init_scale=0.3), (x[:2],))
    family = guide.families[0]
    with torch.no_grad():
        if loc is not None:
            family.loc.copy_(loc)
        if scale is not None:
            family.log_scale.copy_(scale.log())
    return GuidePosterior(model, guide, (x[:2],), info)


def of_line(line, width=1.0, **info):
    """The best mean field of the linear regression, with its scales times ``width``."""
    model = line.model().double()
    return posterior_of(model, line.x.double(), line.mean(), width * line.precision().diag().rsqrt(), **info)


def by_hand(line, draws, posterior):
    """Log-likelihood, log-prior and log-density of the guide."""
    flat, family = line.flat(draws), posterior.guide.families[0]
    likelihood = Normal(flat @ line.design.T, NOISE).log_prob(line.y.squeeze(-1).double()).sum(1)
    prior = Normal(0.0, 1.0).log_prob(flat).sum(1)
    return likelihood, prior, Normal(family.loc, family.scale).log_prob(flat).sum(1).detach()


@pytest.mark.parametrize("batch_size", [256, 16])
def test_the_weights_are_those_of_a_hand_sum(line, batch_size):
    posterior = of_line(line)
    found = psis(posterior, line.data, 50, seed=3, batch_size=batch_size)
    likelihood, prior, q = by_hand(line, posterior.draw(50, seed=3), posterior)
    torch.testing.assert_close(found.log_ratios, likelihood + prior - q)
    assert not torch.allclose(found.log_ratios, 2.5 * likelihood + prior - q)  # planted: a batch of 16 scaled to all
    assert not torch.allclose(found.log_ratios, likelihood - q)  # planted: no prior


def test_the_target_is_that_of_the_fit(line):
    plain, tempered = of_line(line), of_line(line, temperature=0.25, kl_weight=4.0)
    found = psis(tempered, line.data, 50)
    likelihood, prior, q = by_hand(line, tempered.draw(50), tempered)
    torch.testing.assert_close(found.log_ratios, (likelihood / 4 + prior) / 0.25 - q)
    assert not torch.allclose(found.log_ratios, psis(plain, line.data, 50).log_ratios)  # planted: at temperature 1
    assert (found.temperature, found.kl_weight) == (0.25, 4.0)
    assert "tempered posterior" in found.verdict and "tempered" not in psis(plain, line.data, 50).verdict


def evidence(line):
    covariance = line.design @ line.design.T + NOISE**2 * torch.eye(len(line.y)).double()
    return MultivariateNormal(torch.zeros(len(line.y)).double(), covariance).log_prob(line.y.squeeze(-1).double())


def test_the_mean_weight_is_the_evidence(line):
    ratios = psis(of_line(line, width=2.0), line.data, 20_000, batch_size=40).log_ratios
    exact = float(evidence(line))
    weights = (ratios - exact).exp()
    error = float(weights.std()) / math.sqrt(len(weights))
    assert error < 0.05
    assert abs(float(weights.mean()) - 1) < 5 * error
    assert abs(float(weights.mean()) * 1.5 - 1) > 5 * error  # planted: a density off by a half
    assert abs(float((ratios - exact).mean().exp()) - 1) > 5 * error  # planted: the bound in its place


def apart(inputs, width):
    """A linear regression on orthogonal columns, so that mean field is exact at width 1; and its log-evidence."""
    generator = torch.Generator().manual_seed(1)
    columns = torch.cat([torch.ones(40, 1), torch.randn(40, inputs, generator=generator)], 1).double()
    x = math.sqrt(40) * torch.linalg.qr(columns)[0][:, 1:]
    y = 0.3 * x.sum(1, keepdim=True) + NOISE * torch.randn(40, 1, generator=generator).double()
    model = BayesianModel(torch.nn.Linear(inputs, 1), NormalPrior(), Gaussian(scale=NOISE)).double()
    design = torch.cat([x, torch.ones(40, 1)], 1)
    precision = design.T @ design / NOISE**2 + torch.eye(inputs + 1).double()
    assert (precision - precision.diag().diag()).abs().max() < 1e-9
    loc = torch.linalg.solve(precision, design.T @ y / NOISE**2).squeeze(1)
    covariance = design @ design.T + NOISE**2 * torch.eye(40).double()
    exact = MultivariateNormal(torch.zeros(40).double(), covariance).log_prob(y.squeeze(1))
    return posterior_of(model, x, loc, width * precision.diag().rsqrt()), Data(x, y), float(exact)


def test_the_exact_posterior_has_equal_weights():
    *exact, evidence = apart(3, 1.0)
    found = psis(*exact, 200)
    # the noise of the likelihood is kept in single precision
    torch.testing.assert_close(found.log_ratios, torch.full((200,), evidence).double(), atol=1e-5, rtol=0)
    assert found.k_hat <= found.threshold and found.usable
    assert found.effective_sample_size == pytest.approx(200)
    assert found.verdict.endswith("weights are usable, worth 200 draws from the posterior")
    other = psis(*apart(3, 1.1)[:2], 200)  # planted
    assert (other.log_ratios - evidence).abs().max() > 0.1 and other.effective_sample_size < 199


def test_the_shape_for_two_weights_is_known():
    r"""Two normals that are ``s`` as wide as the posterior have weights with exactly a Pareto tail of shape 1 - s^2."""
    count = 20_000
    found = psis(*apart(1, 0.5)[:2], count)
    error = (1 + 0.75) / math.sqrt(tail_length(count))
    assert abs(found.k_hat - 0.75) < 5 * error
    assert abs(psis(*apart(1, 0.9)[:2], count).k_hat - 0.75) > 5 * error  # planted: nearly as wide


def test_a_guide_half_as_wide_is_found_out_and_a_wide_one_is_not():
    narrow, wide = (psis(*apart(20, width)[:2], 2000) for width in (0.5, 1.2))
    assert not narrow.usable and narrow.k_hat > 1 and narrow.effective_sample_size < 20
    assert "far from the posterior" in narrow.verdict and "cannot correct" in narrow.verdict
    assert wide.usable and "weights are usable" in wide.verdict  # planted: too wide has light tails
    assert 100 < wide.effective_sample_size < 1900


def test_a_positive_site_counts_the_change_of_variables(line):
    model = line.model(noise="random").double()
    x, y = line.x.double(), line.y.double()
    posterior = posterior_of(model, x)
    draws = posterior.draw(30)
    family, flat, noise = posterior.guide.families[0], line.flat(draws), draws["noise_scale"]
    loc, scale = family.loc.detach(), family.scale.detach()
    q = Normal(loc[:4], scale[:4]).log_prob(flat).sum(1) + LogNormal(loc[4], scale[4]).log_prob(noise)
    prior = Normal(0.0, 1.0).log_prob(flat).sum(1)
    prior = prior + LogNormal(torch.tensor(NOISE).double().log(), 1.0).log_prob(noise)
    likelihood = Normal(flat @ line.design.T, noise.unsqueeze(1)).log_prob(y.squeeze(1)).sum(1)
    found = psis(posterior, line.data, 30)
    torch.testing.assert_close(found.log_ratios, likelihood + prior - q)
    unconstrained = q + noise.log()  # planted: the density of its logarithm
    assert not torch.allclose(found.log_ratios, likelihood + prior - unconstrained)


def test_classes_of_tokens_that_are_not_observed_do_not_count():
    torch.manual_seed(0)
    model = BayesianModel(torch.nn.Linear(2, 3), NormalPrior(), Categorical(per_token=True)).double()
    x, y = torch.randn(7, 4, 2).double(), torch.randint(3, (7, 4))
    y[:, 3] = -100
    posterior = posterior_of(model, x)
    found, draws = psis(posterior, Data(x, y), 25, batch_size=3), posterior.draw(25)
    logits = torch.einsum("ntd,scd->sntc", x, draws["weight"]) + draws["bias"][:, None, None]
    logs = logits.log_softmax(-1)[:, :, :3].gather(-1, y[None, :, :3, None].expand(25, -1, -1, 1)).sum((1, 2, 3))
    prior = sum(Normal(0.0, 1.0).log_prob(draws[name]).flatten(1).sum(1) for name in draws)
    torch.testing.assert_close(found.log_ratios, logs + prior - posterior.guide.log_prob(draws).detach())


def test_what_has_no_density_says_why(line):
    guide = of_line(line)
    draws = DrawsPosterior(guide.model, guide.draw(4))
    point = MAP(epochs=1, dtype="float64").run(line.model(), None, line.data)
    fixed = MAP(epochs=1, dtype="float64").run(line.model(Learned()), None, line.data)
    cases = {
        "guide_posterior'.*mean-field guide; here nothing is random": fixed,
        "draws_posterior'.*mean-field guide; draws have none": draws,
        "mixture_posterior'.*ask the members of a mixture": MixturePosterior([guide, guide]),
        "guide_posterior'.*mean-field guide; Delta has no density over its sites": point,
        "guide_posterior'.*a fit with the KL weight 0 has none": of_line(line, kl_weight=0.0),
    }
    for said, posterior in cases.items():
        with pytest.raises(SettingError, match=f"posterior = '{said}"):
            psis(posterior, line.data)
    with pytest.raises(SettingError, match="num_samples = 20: expected a whole number of at least 21"):
        psis(guide, line.data, 20)


def test_it_leaves_no_trace(line):
    posterior = of_line(line)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = psis(posterior, line.data, 30)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(psis(posterior, line.data, 30).log_ratios, first.log_ratios)
    assert not torch.equal(psis(posterior, line.data, 30, seed=1).log_ratios, first.log_ratios)
