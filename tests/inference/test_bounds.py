"""Bounds by several draws, on a regression whose evidence and divergences between normals are known."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.distributions import LogNormal, MultivariateNormal
from torch.distributions import Normal as TorchNormal

from pyroformer.guides import Delta, Family, Guide, MeanField
from pyroformer.inference import ELBO, MAP, SVI, ImportanceWeighted, Monitor, OnePassELBO, ParticleBound, Renyi
from pyroformer.priors import Learned, Normal, SettingError

DRAWS = 40_000


def guide_with(line, variance):
    """Mean field at the exact mean."""
    guide = Guide(line.model().double(), MeanField(), (line.x[:2].double(),))
    (family,) = guide.families
    with torch.no_grad():
        family.loc.copy_(line.mean())
        family.log_scale.copy_(variance.log() / 2)
    return guide


def wide(line):
    """Variances under which the squares of the weights have a mean: that of the widest direction, in all of them."""
    return torch.linalg.eigvalsh(line.precision())[0].reciprocal().expand(4)


@pytest.fixture
def guide(line):
    return guide_with(line, wide(line))


def evidence(line):
    covariance = line.design @ line.design.T + 0.25 * torch.eye(40).double()
    return MultivariateNormal(torch.zeros(40).double(), covariance).log_prob(line.y.double()[:, 0])


def exact(line, variance, alpha):
    """The bound without end of draws, for the exact mean and independent variances: integrals of normals."""
    precision = line.precision()
    mixed = alpha * (1 / variance).diag() + (1 - alpha) * precision
    if alpha == 1:  # the ELBO
        kl = 0.5 * ((precision.diag() * variance).sum() - 4 - variance.log().sum() - precision.logdet())
        return evidence(line) - kl
    logs = -alpha / 2 * variance.log().sum() + (1 - alpha) / 2 * precision.logdet() - 0.5 * mixed.logdet()
    return evidence(line) + logs / (1 - alpha)


def run(line, guide, objective, what="terms", rows=slice(None), seed=0):
    torch.manual_seed(seed)
    with torch.no_grad():
        return getattr(objective, what)(guide, line.x[rows].double(), line.y[rows].double(), 40)


@pytest.fixture
def weights(line, guide):
    return sum(run(line, guide, ParticleBound(alpha=0.0, num_particles=DRAWS), "log_weights"))


def mean_of(values):
    """Mean and standard error."""
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))


def importance_weighted(weights, k):
    return mean_of(weights.view(-1, k).logsumexp(1) - math.log(k))


def test_log_weights_by_hand(line, guide):
    likelihood, weight = run(line, guide, ParticleBound(alpha=0.0, num_particles=5), "log_weights")
    values = {name: guide.trace.nodes[name]["value"].squeeze(1) for name in ("weight", "bias")}
    flat, (family,) = line.flat(values), guide.families
    by_hand = TorchNormal(line.design @ flat.T, 0.5).log_prob(line.y.double()).sum(0)
    torch.testing.assert_close(likelihood, by_hand)
    prior, q = TorchNormal(0.0, 1.0).log_prob(flat).sum(1), TorchNormal(family.loc, family.scale).log_prob(flat).sum(1)
    torch.testing.assert_close(weight, prior - q)
    assert not torch.allclose(weight, prior + q)  # planted
    half, _ = run(line, guide, ParticleBound(alpha=0.0, num_particles=5), "log_weights", slice(10))
    assert torch.allclose(half, 4 * TorchNormal(line.design[:10] @ flat.T, 0.5).log_prob(line.y[:10].double()).sum(0))


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.5, 2.0])
def test_the_bound_is_that_of_its_weights(line, guide, alpha):
    objective = ParticleBound(alpha=alpha, num_particles=6)
    weights = sum(run(line, guide, objective, "log_weights"))
    terms = run(line, guide, objective)
    by_hand = (weights * (1 - alpha)).exp().mean().log() / (1 - alpha)
    torch.testing.assert_close(terms.bound, by_hand)
    torch.testing.assert_close(terms.elbo, weights.mean())
    assert terms.item()["bound"] == float(terms.bound)
    torch.testing.assert_close(objective.loss_of(terms), -by_hand)
    assert not torch.allclose(terms.bound, weights.mean())  # planted: the average of the log-weights


def test_one_draw_is_the_elbo(line, guide, weights):
    loc, error = importance_weighted(weights, 1)
    assert abs(loc - exact(line, wide(line), 1)) < 5 * error
    own = run(line, guide, OnePassELBO(num_particles=DRAWS)).elbo
    assert abs(loc - own) < 5 * error
    assert abs(loc - float(own) - 0.5) > 5 * error  # planted
    for alpha in (-2.0, 0.0, 0.5, 3.0):
        terms = run(line, guide, ParticleBound(alpha=alpha, num_particles=1))
        torch.testing.assert_close(terms.bound, terms.elbo)


def test_more_draws_come_nearer_to_the_evidence(line, weights):
    found = [importance_weighted(weights, k) for k in (1, 4, 20, 200)]
    for (low, low_error), (high, high_error) in itertools.pairwise(found):
        assert high - low > 5 * math.hypot(low_error, high_error) / 2
    loc, error = found[-1]
    assert loc < evidence(line) + 5 * error
    assert abs(loc - evidence(line)) < 0.1 < evidence(line) - found[0][0]
    assert abs(loc - (evidence(line) + 2 * math.log(2))) > 0.1  # planted: draws that are added, not averaged


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.9, 2.0])
def test_the_limit_is_the_divergence_of_normals(line, alpha):
    narrow = torch.linalg.eigvalsh(line.precision())[-1].reciprocal().expand(4)  # above 1 the tails matter from within
    variance = wide(line) if alpha < 1 else narrow
    objective = ParticleBound(alpha=alpha, num_particles=DRAWS)
    weights = sum(run(line, guide_with(line, variance), objective, "log_weights"))
    ratios = ((1 - alpha) * (weights - weights.mean())).exp()
    error = float(ratios.std() / ratios.mean()) / math.sqrt(DRAWS) / abs(1 - alpha)
    found = float(weights.mean() + ratios.mean().log() / (1 - alpha))
    assert abs(found - exact(line, variance, alpha)) < 5 * error
    assert abs(found - exact(line, variance, alpha - 0.25)) > 5 * error  # planted: another order


def test_towards_one_it_is_the_elbo(line, guide):
    for alpha in (1 - 1e-6, 1 + 1e-6):
        terms = run(line, guide, ParticleBound(alpha=alpha, num_particles=50))
        torch.testing.assert_close(terms.bound, terms.elbo, rtol=0.0, atol=1e-4)
    far = run(line, guide, ParticleBound(alpha=0.5, num_particles=50))
    assert far.bound - far.elbo > 1e-2  # planted


def test_minibatches_average_to_no_less(line, guide):
    """For the same draws: the bound is a convex function of log-weights, which the halves average to."""
    for alpha, sign in ((0.0, 1), (0.5, 1), (2.0, -1)):
        objective = ParticleBound(alpha=alpha, num_particles=50)
        halves = [run(line, guide, objective, rows=rows) for rows in (slice(20), slice(20, 40))]
        whole = run(line, guide, objective)
        torch.testing.assert_close((halves[0].elbo + halves[1].elbo) / 2, whole.elbo)
        assert sign * ((halves[0].bound + halves[1].bound) / 2 - whole.bound) > 1e-3


def test_point_masses_count_with_their_prior(line):
    guide = Guide(line.model().double(), {"bias": Delta(), "*": MeanField()}, (line.x[:2].double(),))
    likelihood, weight = run(line, guide, ParticleBound(alpha=0.0, num_particles=5), "log_weights")
    values = {name: guide.trace.nodes[name]["value"].squeeze(1) for name in ("weight", "bias")}
    family = next(f for f in guide.families if isinstance(f, MeanField))
    drawn = values["weight"].flatten(1)
    by_hand = TorchNormal(0.0, 1.0).log_prob(line.flat(values)).sum(1)
    by_hand = by_hand - TorchNormal(family.loc, family.scale).log_prob(drawn).sum(1)
    torch.testing.assert_close(weight, by_hand)
    assert likelihood.std() > 0
    whole = Guide(line.model().double(), Delta(), (line.x[:2].double(),))
    terms = run(line, whole, ParticleBound(alpha=0.0, num_particles=5))
    torch.testing.assert_close(terms.bound, run(line, whole, OnePassELBO()).elbo)


def test_positive_sites_count_the_change_of_variables(line):
    guide = Guide(line.model(noise="random").double(), MeanField(init_scale=0.3), (line.x[:2].double(),))
    _, weight = run(line, guide, ParticleBound(alpha=0.0, num_particles=4), "log_weights")
    values = {name: guide.trace.nodes[name]["value"].squeeze(1) for name in guide.sites}
    (family,), flat = guide.families, line.flat(values)
    q = TorchNormal(family.loc[:4], family.scale[:4]).log_prob(flat).sum(1)
    q = q + LogNormal(family.loc[4], family.scale[4]).log_prob(values["noise_scale"])
    prior = TorchNormal(0.0, 1.0).log_prob(flat).sum(1) + LogNormal(math.log(0.5), 1.0).log_prob(values["noise_scale"])
    torch.testing.assert_close(weight, (prior - q).detach())
    assert not torch.allclose(weight, (prior - q - values["noise_scale"].log()).detach())  # planted: no Jacobian


START = MAP(epochs=200, batch_size=40, optimizer="sgd", learning_rate=0.15, dtype="float64")
FULL = {"epochs": 200, "batch_size": 40, "learning_rate": 0.02, "dtype": "float64", "particles": 500, "start": START}


def scales(line, bound, **settings):
    driver = SVI(**{**FULL, **settings}, bound=bound)
    posterior = driver.run(line.model(), MeanField(init_scale=0.08), line.data)
    (family,) = posterior.guide.families
    return family.scale.detach(), posterior


def best(line, alpha):
    """The scales that maximise the exact bound."""
    logs = line.precision().diag().reciprocal().log().requires_grad_()
    optimizer = torch.optim.LBFGS([logs], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = -exact(line, logs.exp(), alpha)
        loss.backward()
        return loss

    optimizer.step(closure)
    return (logs / 2).exp().detach()


def near(found, scale):
    return bool((found / scale - 1).abs().max() < 0.05)


def test_the_closed_form_has_the_known_optimum(line):
    conditional, marginal = line.precision().diag().rsqrt(), line.covariance().diag().sqrt()
    torch.testing.assert_close(best(line, 1), conditional, rtol=1e-4, atol=0.0)
    middle = best(line, 0.5)
    assert (middle > conditional).all() and (middle < marginal).all()


def test_renyi_finds_the_optimum_between_normals(line):
    found, posterior = scales(line, Renyi(alpha=0.5))
    assert near(found, best(line, 0.5))
    assert not near(found, best(line, 1)) and not near(found, line.covariance().diag().sqrt())  # planted
    (family,) = posterior.guide.families
    assert ((family.loc - line.mean()) / family.scale).abs().max() < 0.3
    assert posterior.info["bound"] == {"renyi": {"alpha": 0.5}}


def test_importance_weights_make_it_wider(line):
    weighted, _ = scales(line, ImportanceWeighted(), particles=20)
    plain, posterior = scales(line, ELBO(), particles=20)
    assert near(plain, best(line, 1)) and "bound" not in posterior.info
    assert (weighted > 1.1 * plain).all()


def test_the_history_holds_the_bound(line):
    monitor = Monitor()
    driver = SVI(epochs=2, bound=ImportanceWeighted(), particles=8)
    driver.run(line.model({"bias": Learned(), "*": Normal()}), MeanField(init_scale=0.1), line.data, 0, monitor)
    assert all(record["bound"] > record["elbo"] for record in monitor.history)


class Undense(MeanField):
    """A family whose density nobody knows."""

    log_prob = Family.log_prob


def test_families_without_density_are_refused_before_any_work(line):
    driver, model = SVI(bound=Renyi(), particles=2), line.model()
    message = "guide = 'undense': expected families with a density, by which this bound weighs draws"
    for guide in (Undense(), {"bias": MeanField(), "*": Undense()}, Guide(model, Undense(), (line.x[:2],))):
        with pytest.raises(SettingError, match=message):
            driver.run(model, guide, None)
    assert SVI().check(model, Undense()) is None
    with pytest.raises(ValueError, match="Undense has no density"):
        ParticleBound(alpha=0.0, num_particles=2).terms(Guide(model, Undense(), (line.x[:2],)), line.x, line.y)


def test_a_bound_in_a_net_of_several_layers(line):
    """Draws are lifted in nets that we did not write; the weights of draws still belong to them."""
    from pyroformer.models import BayesianModel, Gaussian

    torch.manual_seed(0)
    model = BayesianModel(nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1)), Normal(), Gaussian(scale=0.5))
    guide = Guide(model.double(), MeanField(init_scale=0.3), (line.x[:2].double(),))
    likelihood, _ = run(line, guide, ParticleBound(alpha=0.0, num_particles=3), "log_weights")
    drawn = {name: guide.trace.nodes[name]["value"].squeeze(1) for name in guide.sites}
    for k in range(3):
        hidden = (line.x.double() @ drawn["0.weight"][k].T + drawn["0.bias"][k]).tanh()
        loc = hidden @ drawn["2.weight"][k].T + drawn["2.bias"][k]
        torch.testing.assert_close(likelihood[k], TorchNormal(loc, 0.5).log_prob(line.y.double()).sum())


def groups(y):
    """Plates of the model's own: a level for all, one for each group, and a positive number for each member."""
    mu = pyro.sample("mu", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
    shares = pyro.sample("shares", dist.Dirichlet(torch.ones(2, dtype=torch.float64)))
    with pyro.plate("member", 3, dim=-1):
        size = pyro.sample("size", dist.LogNormal(mu, 0.3))
        with pyro.plate("group", 4, dim=-2):
            level = pyro.sample("level", dist.Normal(mu, 0.5))
            pyro.sample("obs", dist.Normal(size * level + shares[..., 0], 0.5), obs=y)


@pytest.mark.parametrize("families", [MeanField(init_scale=0.3), {"size": Delta(), "*": MeanField(init_scale=0.3)}])
@pytest.mark.parametrize("draws", [1, 5])
def test_plates_of_the_model_count_in_the_weights(families, draws):
    y = torch.linspace(0, 2, 12).double().view(4, 3)
    guide = Guide(groups, families, (y,))
    torch.manual_seed(0)
    with torch.no_grad():
        likelihood, weight = ParticleBound(alpha=0.0, num_particles=draws).log_weights(guide, y)
    values = {name: guide.drawn(draws)[name].detach() for name in guide.sites}
    shapes = {"mu": (), "shares": (2,), "size": (3,), "level": (4, 3)}
    assert {name: tuple(value.shape[1:]) for name, value in values.items()} == shapes
    for k in range(draws):
        mu, shares, size, level = (values[name][k] for name in shapes)
        by_hand = TorchNormal(size * level + shares[0], 0.5).log_prob(y).sum()
        torch.testing.assert_close(likelihood[k], by_hand)
        prior = TorchNormal(0.0, 1.0).log_prob(mu) + LogNormal(mu, 0.3).log_prob(size).sum()
        prior = prior + TorchNormal(mu, 0.5).log_prob(level).sum()
        family = guide.family_of("mu")
        one = {name: value[k] for name, value in values.items() if guide.family_of(name) is family}
        with torch.no_grad():
            torch.testing.assert_close(weight[k], prior - family.log_prob(one))
    assert draws == 1 or weight.std() > 0.1  # planted: one weight for all draws


def test_one_draw_in_plates_is_the_elbo():
    y = torch.linspace(0, 2, 12).double().view(4, 3)
    start = {"mu": torch.tensor(0.0), "size": torch.ones(3), "level": torch.ones(4, 3)}
    guide = Guide(groups, MeanField(init_scale=0.1), (y,), init=start)
    torch.manual_seed(0)
    with torch.no_grad():
        plain = OnePassELBO(num_particles=20_000).terms(guide, y).elbo
        weights = sum(ParticleBound(alpha=0.0, num_particles=20_000).log_weights(guide, y))
    loc, error = mean_of(weights)
    assert abs(loc - plain) < 5 * 2**0.5 * error
    assert abs(loc - plain - 0.5) > 5 * 2**0.5 * error  # planted
