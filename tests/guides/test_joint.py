"""What every joint family keeps: an exact density, its entropy, the bound, and the company of the other sites."""

import copy
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO

from pyroformer.guides import (
    Delta,
    Flow,
    FullRank,
    Guide,
    LowRank,
    MatrixNormal,
    MeanField,
    Radial,
    count_parameters,
)
from pyroformer.inference import OnePassELBO
from pyroformer.models import BayesianModel, Gaussian
from pyroformer.priors import Gamma, Hierarchical, Laplace, Normal

X = torch.linspace(-1, 1, 8).unsqueeze(-1).double()
Y = torch.cat([0.5 * X + 0.2, X.square()], -1)
FAMILIES = {
    "low_rank": LowRank(rank=2, init_scale=0.3),
    "full_rank": FullRank(init_scale=0.3),
    "matrix_normal": MatrixNormal(init_scale=0.3),
    "matrix_normal, diagonal": MatrixNormal(structure="diagonal", init_scale=0.3),
    "radial": Radial(init_scale=0.3),
    "flow": Flow(layers=3, hidden=4, init_scale=0.3),
}
# what makes sites depend on each other
CORRELATED = {"low_rank": ("standard_factor", 0.4 / 0.3), "full_rank": ("below", 1.0)}
# numbers of the two weights, of the two biases, and of both together
COUNTS = {
    "low_rank": (2 * 4, 2 * 4, 0),
    "full_rank": (2 * 2 + 1, 2 * 2 + 2 + 3, 0),
    "matrix_normal": (2 + 2 + 1, 2 + 2 + 1, 0),
    "matrix_normal, diagonal": (2 + 2, 2 + 2, 0),
    "radial": (2 * 2, 2 * 2, 0),
    "flow": None,
}


@pytest.fixture(params=FAMILIES)
def kind(request):
    return request.param


def line(kind, prior=None, **likelihood):
    """A regression with two outputs, in float64, whose posterior is no longer where it starts."""
    torch.manual_seed(0)
    gaussian = Gaussian(**{"scale": 0.5, **likelihood})
    model = BayesianModel(torch.nn.Linear(1, 2), prior or Normal(scale=0.7), gaussian).double()
    guide = Guide(model, FAMILIES[kind], (X[:2],))
    with torch.no_grad():
        for p in guide.parameters():
            p.add_((0.15 if kind == "flow" else 0.4) * torch.randn_like(p))
    return model, guide


def mean_and_error(values):
    values = torch.as_tensor(values).double()
    return values.mean(), values.std() / math.sqrt(len(values))


def apart(one, other):
    """The difference of two means in Monte Carlo standard errors; a number has none."""
    (a, e), (b, f) = (each if isinstance(each, tuple) else (each, 0.0) for each in (one, other))
    return float((a - b).abs() / (torch.as_tensor(e**2 + f**2)).sqrt())


def log_prior(draws, scale=0.7):
    return sum(dist.Normal(0.0, scale).log_prob(draws[name]).flatten(1).sum(1) for name in ("weight", "bias"))


@torch.no_grad()
def test_the_density_integrates_to_one(kind):
    """The mean of 1 / q over its own draws inside a box is the volume of the box."""
    _, guide = line(kind)
    draws = guide.draw(20_000, X[:2])
    flat = torch.cat([draws["weight"].flatten(1), draws["bias"].flatten(1)], 1)
    center, sd = flat.mean(0), flat.std(0)
    inside = ((flat - center).abs() < sd).all(1)
    volume = float((2 * sd).prod())
    found = mean_and_error(inside / guide.log_prob(draws).exp() / volume)
    assert apart(found, torch.tensor(1.0)) < 5
    assert apart(found, torch.tensor(1.2)) > 5  # planted


@torch.no_grad()
def test_the_density_is_that_of_the_draws(kind):
    """Importance weights to a normal with the moments of the draws have mean one, and no other density has."""
    _, guide = line(kind)
    draws = guide.draw(20_000, X[:2])
    family, (flat, _) = guide.families[0], guide.families[0].flatten(draws)
    half = dist.MultivariateNormal(flat.mean(0), 0.5 * flat.T.cov())
    found = mean_and_error((half.log_prob(flat) - family.log_density(flat)).exp())
    assert apart(found, torch.tensor(1.0)) < 5
    moved = mean_and_error((half.log_prob(flat) - family.log_density(flat + 0.5 * flat.std(0))).exp())
    assert apart(moved, torch.tensor(1.0)) > 5  # planted: the density of another place


@torch.no_grad()
@pytest.mark.parametrize("noise", ["fixed", "random"])
def test_the_entropy_is_minus_the_mean_log_density(kind, noise):
    """At a positive site too, whose change of variables is drawn."""
    _, guide = line(kind, noise=noise)
    objective = OnePassELBO(temperature=0.5, num_particles=50)
    entropy = mean_and_error([objective.terms(guide, X, Y).entropy for _ in range(40)])
    draws = guide.draw(5000, X[:2])
    drawn = mean_and_error(-guide.log_prob(draws))
    assert apart(entropy, drawn) < 5
    assert apart((entropy[0] + 0.5, entropy[1]), drawn) > 5  # planted
    if noise == "random":
        logs = draws["noise_scale"].log()
        assert apart((entropy[0] - logs.mean(), entropy[1]), drawn) > 5  # planted: no change of variables


@torch.no_grad()
@pytest.mark.parametrize("particles", [1, 6])
def test_the_kl_is_that_of_draws(kind, particles):
    _, guide = line(kind)
    kl = mean_and_error([OnePassELBO(num_particles=particles).terms(guide, X, Y, 100).kl for _ in range(60)])
    draws = guide.draw(10_000, X[:2])
    drawn = mean_and_error(guide.log_prob(draws) - log_prior(draws))
    assert apart(kl, drawn) < 5
    assert apart(kl, mean_and_error(guide.log_prob(draws) - log_prior(draws, 1.4))) > 5  # planted: another prior
    assert apart((100 / 8 * kl[0], kl[1]), drawn) > 5  # planted: scaled with the data


@torch.no_grad()
def test_other_priors_count_by_draws(kind):
    _, guide = line(kind, {"bias": Laplace(scale=0.3), "*": Normal(scale=0.7)})
    kl = mean_and_error([OnePassELBO(num_particles=50).terms(guide, X, Y).kl for _ in range(40)])
    draws = guide.draw(10_000, X[:2])
    prior = dist.Normal(0.0, 0.7).log_prob(draws["weight"]).flatten(1).sum(1)
    prior = prior + dist.Laplace(0.0, 0.3).log_prob(draws["bias"]).sum(1)
    assert apart(kl, mean_and_error(guide.log_prob(draws) - prior)) < 5
    assert apart(kl, mean_and_error(guide.log_prob(draws) - log_prior(draws))) > 5  # planted: normal everywhere


@torch.no_grad()
def test_a_prior_that_depends_on_another_site_of_the_family(kind, monkeypatch):
    """Given the scale, the weights have other moments than on their own: the closed form would be wrong."""
    prior = Hierarchical(prior=Normal(), hyperprior=Gamma(), centered=True)
    _, guide = line(kind, {"weight": prior, "*": Normal()})
    family = guide.families[0]
    if kind in CORRELATED:
        family.loc.fill_(0.7)
        family.log_scale.fill_(-1.0)
        parameter, value = CORRELATED[kind]
        getattr(family, parameter).fill_(value)
    draws = guide.draw(120_000, X[:2])
    scale, weight = draws["weight_scale"], draws["weight"].flatten(1)
    prior = Gamma().distribution(scale[0]).log_prob(scale)
    prior = prior + dist.Normal(0.0, scale.unsqueeze(-1)).log_prob(weight).sum(1)
    prior = prior + dist.Normal(0.0, 1.0).log_prob(draws["bias"]).sum(1)
    drawn = mean_and_error(guide.log_prob(draws) - prior)

    def ours():
        return mean_and_error([OnePassELBO(num_particles=1000).terms(guide, X, Y).kl for _ in range(60)])

    assert apart(ours(), drawn) < 5
    if kind in CORRELATED:
        monkeypatch.setattr(type(family), "_constant", lambda *_: True)
        assert apart(ours(), drawn) > 5  # planted


@torch.no_grad()
@pytest.mark.parametrize("noise", ["fixed", "random"])
def test_stock_objectives_agree(kind, noise):
    model, guide = line(kind, noise=noise)

    def losses(objective, count=40, num_data=24):
        return mean_and_error([objective.loss(model, guide, X, Y, num_data) for _ in range(count)])

    stock = losses(Trace_ELBO(num_particles=10, vectorize_particles=True, max_plate_nesting=1), 60)
    for objective in (OnePassELBO(), OnePassELBO(num_particles=4), TraceMeanField_ELBO(), Trace_ELBO(num_particles=2)):
        assert apart(stock, losses(objective)) < 5
    assert apart(stock, losses(OnePassELBO(num_particles=10), num_data=8)) > 5  # planted: the batch not scaled up


@torch.no_grad()
def test_all_of_a_run_may_be_scaled(kind):
    _, guide = line(kind)
    ours = [OnePassELBO(num_particles=20).terms(guide, X, Y).kl for _ in range(60)]
    with pyro.poutine.scale(scale=3.0):
        scaled = [OnePassELBO(num_particles=20).terms(guide, X, Y).kl for _ in range(60)]
    assert apart(mean_and_error(scaled), mean_and_error([3 * kl for kl in ours])) < 5
    assert apart(mean_and_error(scaled), mean_and_error(ours)) > 5  # planted


def test_a_part_under_scale_or_mask_is_refused(kind):
    def model(x, how):
        pyro.sample("a", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.poutine.scale(scale=3.0) if how == "scale" else pyro.poutine.mask(mask=how == "none"):
            pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    for how in ("scale", "mask"):
        with pytest.raises(ValueError, match=r"site 'b' is under a scale or a mask, .*such as MeanField"):
            Guide(model, FAMILIES[kind], (X, how))


def test_a_run_without_one_of_the_sites_is_refused(kind):
    def model(x, both=True):
        pyro.sample("a", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        if both:
            pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    guide = Guide(model, FAMILIES[kind], (X,))
    assert math.isfinite(OnePassELBO().loss(model, guide, X))
    with pytest.raises(ValueError, match="site 'b' was not drawn in this run"):
        OnePassELBO().loss(model, guide, X, False)


def test_particles_have_draws_of_their_own(kind):
    model, guide = line(kind)
    OnePassELBO(num_particles=5).loss(model, guide, X, Y)
    nodes = guide.trace.nodes
    assert nodes["weight"]["value"].shape == (5, 1, 2, 1) and nodes["bias"]["value"].shape == (5, 1, 2)
    assert len(set(nodes["weight"]["value"][:, 0, 0, 0].tolist())) == 5
    assert nodes["weight"]["fn"].batch_shape == (5, 1)
    assert {name: tuple(v.shape) for name, v in guide.draw(1, X[:2]).items()} == {"weight": (1, 2, 1), "bias": (1, 2)}


def test_groups_and_plates_of_a_users_model(kind):
    def model(x, y=None):
        mu = pyro.sample("mu", dist.Normal(torch.tensor(0.0).double(), 1.0))
        mix = pyro.sample("mix", dist.Dirichlet(torch.ones(3).double()))
        with pyro.plate("group", 4, dim=-2):
            level = pyro.sample("level", dist.Normal(mu, 0.5))
            with pyro.plate("member", 2, dim=-1):
                size = pyro.sample("size", dist.LogNormal(level, 0.3))
                noise = 0.5 + mix[..., :1].unsqueeze(-1)
                pyro.sample("obs", dist.Normal(size, noise if mix.dim() > 1 else noise.squeeze()), obs=x.view(4, 2))

    ones = {name: torch.ones(shape).double() for name, shape in (("level", (4, 1)), ("size", (4, 2)))}
    start = {**ones, "mu": torch.tensor(1.0).double(), "mix": torch.ones(3).double() / 3}
    guide = Guide(model, FAMILIES[kind], (X,), init=start)
    shapes = {"mu": (7,), "mix": (7, 3), "level": (7, 4, 1), "size": (7, 4, 2)}
    draws = guide.draw(7, X)
    assert {name: tuple(value.shape) for name, value in draws.items()} == shapes
    assert (draws["size"] > 0).all() and torch.allclose(draws["mix"].sum(-1), torch.ones(7).double())
    assert guide.log_prob(draws).shape == (7,)
    with torch.no_grad():
        ours, stock, planted = (
            mean_and_error([objective.loss(model, guide, x) for _ in range(60)])
            for objective, x in ((OnePassELBO(), X), (Trace_ELBO(), X), (OnePassELBO(), X - 2.0))
        )
    assert apart(ours, stock) < 5
    assert apart(planted, stock) > 5


def test_svi_of_pyro_trains_it_and_predictive_draws(kind):
    for objective in (Trace_ELBO(), OnePassELBO()):
        pyro.clear_param_store()
        model, guide = line(kind)
        before = {name: p.detach().clone() for name, p in guide.named_parameters()}
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.03}), objective)
        losses = [svi.step(X, Y) for _ in range(60)]
        assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
        assert all(not torch.equal(p, before[name]) for name, p in guide.named_parameters())
    for parallel in (False, True):
        drawn = Predictive(model, guide=guide, num_samples=3, parallel=parallel)(X)
        assert drawn["obs"].shape == (3, 8, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_types_are_kept(kind, dtype):
    model = BayesianModel(torch.nn.Linear(1, 2), Normal(), Gaussian(noise="random")).to(dtype)
    guide = Guide(model, FAMILIES[kind], (X[:2].to(dtype),))
    draws = guide.draw(3, X[:2].to(dtype))
    assert {v.dtype for v in [*draws.values(), *guide.parameters(), guide.log_prob(draws)]} == {dtype}
    assert OnePassELBO().terms(guide, X.to(dtype), Y.to(dtype)).elbo.dtype == dtype


def test_copies_after_a_run_share_nothing(kind):
    model, guide = line(kind)
    OnePassELBO(num_particles=2).loss_and_grads(model, guide, X, Y)
    other = copy.deepcopy(guide)
    torch.manual_seed(0)
    one = guide.draw(3, X[:2])
    torch.manual_seed(0)
    assert torch.equal(other.draw(3, X[:2])["weight"], one["weight"])
    with torch.no_grad():
        for p in other.parameters():
            p.add_(0.1)
    torch.manual_seed(0)
    assert torch.equal(guide.draw(3, X[:2])["weight"], one["weight"])
    assert math.isfinite(OnePassELBO().loss(model, other, X, Y))


def test_every_number_is_counted_once(kind):
    _, guide = line(kind)
    found = count_parameters(guide, X[:2])
    assert found.total == sum(p.numel() for p in guide.parameters())
    if COUNTS[kind] is None:
        assert sum(found.own.values()) < sum(each.count for each in found.shared)
        return
    weight, bias, shared = COUNTS[kind]
    assert (found.own["weight"], found.own["bias"]) == (weight, bias)
    assert [(each.sites, each.count) for each in found.shared] == ([(("weight", "bias"), shared)] if shared else [])


def test_it_goes_beside_other_families(kind):
    """Each of two joint families has a vector of its own."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(1, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    model = BayesianModel(net, Normal(), Gaussian(noise="random")).double()
    families = {"0.weight": Delta(), "0.bias": MeanField(), "2.*": FAMILIES[kind], "*": FAMILIES[kind]}
    guide = Guide(model, {**families, "*": copy.deepcopy(FAMILIES["low_rank"])}, (X[:2],))
    draws = guide.draw(4, X[:2])
    assert torch.equal(draws["0.weight"][0], draws["0.weight"][1])
    assert not torch.equal(draws["2.weight"][0], draws["2.weight"][1])
    assert not torch.equal(draws["noise_scale"][0], draws["noise_scale"][1])
    joints = [name for name in guide.trace.nodes if name.endswith("_joint")]
    assert joints == ["_2.weight_joint", "_noise_scale_joint"]
    assert math.isfinite(OnePassELBO(num_particles=3).loss(model, guide, X, Y))
