"""Our guide on Pyro models that are not ours."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

from pyroformer.guides import Delta, DirichletRows, Guide, MeanField
from pyroformer.inference import OnePassELBO
from pyroformer.priors import SettingError

X = torch.linspace(-1, 1, 12)
Y = 0.8 * X + 0.1 * torch.sin(9 * X)


def hierarchy(x, y=None):
    """A positive site, a site whose prior depends on it, a simplex."""
    tau = pyro.sample("tau", dist.HalfNormal(1.0))
    slope = pyro.sample("slope", dist.Normal(0.0, tau))
    mix = pyro.sample("mix", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("data", len(x)):
        pyro.sample("obs", dist.Normal(slope.unsqueeze(-1) * x if slope.dim() else slope * x, mix[..., 0]), obs=y)


def groups(x, y=None):
    """Sites in full plates, one inside the other, and a sequential plate."""
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    for i in pyro.plate("parts", 2):
        pyro.sample(f"part_{i}", dist.Normal(0.0, 1.0))
    with pyro.plate("group", 4, dim=-2):
        level = pyro.sample("level", dist.Normal(mu, 0.5))
        with pyro.plate("member", 3, dim=-1):
            size = pyro.sample("size", dist.LogNormal(level, 0.3))
            pyro.sample("obs", dist.Normal(size, 0.5), obs=None if y is None else y.view(4, 3))


MODELS = {"hierarchy": hierarchy, "groups": groups}


def mean_and_error(values):
    values = torch.as_tensor(values)
    return values.mean(), values.std() / math.sqrt(len(values))


@pytest.mark.parametrize("name", MODELS)
def test_every_way_of_estimating_the_bound_agrees(name):
    torch.manual_seed(0)
    model = MODELS[name]
    guide = Guide(model, MeanField(init_scale=0.1), (X, Y))

    def estimate(objective, count=250, y=Y):
        return mean_and_error([objective.loss(model, guide, X, y) for _ in range(count)])

    stock = estimate(Trace_ELBO())

    def apart(other):
        return (stock[0] - other[0]).abs() / (stock[1] ** 2 + other[1] ** 2).sqrt()

    assert apart(estimate(OnePassELBO())) < 5
    if name == "groups":  # the other model's likelihood is not written for batches of draws
        nesting = guide.plate_nesting
        vectorized = Trace_ELBO(num_particles=6, vectorize_particles=True, max_plate_nesting=nesting)
        assert apart(estimate(vectorized, 100)) < 5
        assert apart(estimate(OnePassELBO(num_particles=6), 100)) < 5
    assert apart(estimate(OnePassELBO(), y=Y - 0.3)) > 5  # planted: other data


def test_a_prior_that_depends_on_another_site_works_with_particles():
    def model(x, y=None):
        tau = pyro.sample("tau", dist.HalfNormal(1.0))
        slope = pyro.sample("slope", dist.Normal(0.0, tau))
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(slope * x, 0.5), obs=y)

    guide = Guide(model, MeanField(init_scale=0.3), (X, Y))
    one = mean_and_error([OnePassELBO().loss(model, guide, X, Y) for _ in range(300)])
    many = mean_and_error([OnePassELBO(num_particles=8).loss(model, guide, X, Y) for _ in range(150)])
    assert (one[0] - many[0]).abs() / (one[1] ** 2 + many[1] ** 2).sqrt() < 5
    # the KL of `slope` is taken given the draw of `tau`, whose scale varies from draw to draw
    assert len({round(OnePassELBO().terms(guide, X, Y).kl.item(), 4) for _ in range(5)}) == 5
    assert guide.draw(7, X)["slope"].shape == (7,)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("family", [MeanField, Delta])
def test_svi_fits_them(name, family):
    torch.manual_seed(0)
    model = MODELS[name]
    guide = Guide(model, family(), (X, Y.abs()))
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.03}), OnePassELBO())
    losses = [svi.step(X, Y.abs()) for _ in range(120)]
    assert sum(losses[-10:]) < sum(losses[:10])
    draws = guide.draw(5, X, Y.abs())
    if name == "groups":
        shapes = {"mu": (5,), "part_0": (5,), "part_1": (5,), "level": (5, 4, 1), "size": (5, 4, 3)}
        assert {site: tuple(value.shape) for site, value in draws.items()} == shapes
        assert (draws["size"] > 0).all()
    else:
        assert draws["mix"].shape == (5, 3) and torch.allclose(draws["mix"].sum(-1), torch.ones(5))


def test_a_plate_with_a_subsample_is_refused():
    def model(x, size=3):
        with pyro.plate("data", len(x), subsample_size=size):
            z = pyro.sample("z", dist.Gamma(1.0, 1.0))
            pyro.sample("obs", dist.Normal(z, 1.0), obs=torch.zeros(size))

    for family in (MeanField(), Delta()):
        with pytest.raises(ValueError, match=r"site 'z' is in the subsampled plate 'data', .*amortised"):
            Guide(model, family, (X,))
    guide = Guide(model, MeanField(), (X, 12))
    assert OnePassELBO().loss(model, guide, X, 12) > 0
    with pytest.raises(ValueError, match="subsampled plate 'data'"):
        OnePassELBO().loss(model, guide, X, 3)


def test_a_subsampled_likelihood_around_global_sites_is_scaled():
    def model(x, y, size=None):
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), subsample_size=size) as index:
            pyro.sample("obs", dist.Normal(slope * x[index], 0.5), obs=y[index])

    guide = Guide(model, MeanField(init_scale=0.1), (X, Y))
    full = mean_and_error([OnePassELBO().loss(model, guide, X, Y) for _ in range(200)])
    part = mean_and_error([OnePassELBO().loss(model, guide, X, Y, 4) for _ in range(400)])
    assert (full[0] - part[0]).abs() / (full[1] ** 2 + part[1] ** 2).sqrt() < 5
    unscaled = (part[0] - (2 * part[0] / 3)).abs() / part[1]
    assert unscaled > 10  # planted


def test_a_plate_of_another_size_is_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("obs", dist.Normal(z, 1.0), obs=x)

    for family in (MeanField(), Delta()):
        guide = Guide(model, family, (X,))
        assert OnePassELBO().loss(model, guide, X) > 0
        with pytest.raises(ValueError, match=r"site 'z' has shape \(5,\), but \w+ holds one value of shape \(12,\)"):
            guide(X[:5])


def test_sites_that_a_family_cannot_own_are_named():
    def discrete(x):
        pyro.sample("switch", dist.Bernoulli(0.5))

    def local(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    for family in (MeanField(), Delta()):
        with pytest.raises(SettingError, match="'switch': expected a continuous site, not Bernoulli"):
            Guide(discrete, family, (X,))
    with pytest.raises(SettingError, match="'z': expected attention rows"):
        Guide(local, DirichletRows(), (X,))


def test_parameters_factors_and_deterministic_sites_of_the_model_work():
    def model(x, y=None):
        noise = pyro.param("noise", torch.tensor(1.0), constraint=dist.constraints.positive)
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        pyro.deterministic("twice", 2 * slope)
        pyro.factor("tilt", -0.1 * slope**2)
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(slope * x, noise), obs=y)

    pyro.clear_param_store()
    guide = Guide(model, MeanField(init_scale=0.1), (X, Y))
    assert guide.sites == ("slope",)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), OnePassELBO())
    for _ in range(200):
        svi.step(X, Y)
    assert pyro.param("noise") < 0.5
    drawn = guide(X)
    assert torch.equal(drawn["twice"], 2 * drawn["slope"])
    one = mean_and_error([OnePassELBO().loss(model, guide, X, Y) for _ in range(300)])
    two = mean_and_error([Trace_ELBO().loss(model, guide, X, Y) for _ in range(300)])
    assert (one[0] - two[0]).abs() / (one[1] ** 2 + two[1] ** 2).sqrt() < 5


def test_a_prior_with_a_learned_scale_is_read_anew_in_every_run():
    scale = nn.Parameter(torch.tensor(1.0))
    shared = dist.Normal(torch.zeros(5), scale).to_event(1)

    def model(x):
        pyro.sample("w", shared)

    guide = Guide(model, MeanField(init_scale=0.5), (X,))
    guide.families[0].loc.data.zero_()
    OnePassELBO().loss(model, guide, X)  # without gradients first
    for value in (1.0, 2.0):
        with torch.no_grad():
            scale.fill_(value)
        scale.grad = None
        loss = OnePassELBO().loss_and_grads(model, guide, X)
        by_hand = 5 * (math.log(value / 0.5) + 0.25 / (2 * value**2) - 0.5)
        assert abs(loss - by_hand) < 1e-5
        assert abs(scale.grad.item() - 5 * (1 / value - 0.25 / value**3)) < 1e-5


def test_missing_values_are_latent_sites():
    seen = torch.arange(12) % 2 == 0

    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 12):
            pyro.sample("obs", dist.Normal(mean, 1.0), obs=x, obs_mask=seen)

    guide = Guide(model, MeanField(), (X,))
    assert guide.sites == ("mean", "obs_unobserved")
    assert math.isfinite(OnePassELBO().loss(model, guide, X)) and math.isfinite(Trace_ELBO().loss(model, guide, X))


def test_observations_that_the_example_leaves_out_would_be_latent():
    """A model of the user's own needs its observations in the example; ours marks them."""

    def model(x, y=None):
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(slope * x, 0.5), obs=y)

    assert Guide(model, MeanField(), (X, Y)).sites == ("slope",)
    assert Guide(model, MeanField(), (X,)).sites == ("slope", "obs")
