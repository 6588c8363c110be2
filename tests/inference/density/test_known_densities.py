"""Flat densities against sums by hand, and against the potential energy of Pyro's samplers."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.mcmc.util import initialize_model

from pyroformer.inference.density import FlatDensity
from pyroformer.models import BayesianModel, Categorical, Gaussian, Image, Output, Transformer
from pyroformer.priors import Hierarchical, Normal, StudentT

Y = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64)


def real(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def normal():
    pyro.sample("x", dist.Normal(real(1.0), real(2.0)))


def gamma():
    pyro.sample("x", dist.Gamma(real(3.0), real(2.0)))


def dirichlet():
    pyro.sample("x", dist.Dirichlet(real(0.7, 2.0, 3.0)))


def location_and_scale(y):
    loc = pyro.sample("loc", dist.Normal(real(0.5)[0], real(2.0)[0]))
    scale = pyro.sample("scale", dist.LogNormal(real(0.0)[0], real(1.0)[0]))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(loc, scale), obs=y)


def eight_kinds(y):
    """Latent sites in plates, hierarchies, masks, scales and several supports."""
    scale = pyro.sample("scale", dist.HalfCauchy(real(1.0)[0]))
    weights = pyro.sample("weights", dist.Normal(torch.zeros(2, 3).to(y), scale).to_event(2))
    rows = pyro.sample("rows", dist.Dirichlet(torch.ones(2, 3).to(y)).to_event(1))
    unit = pyro.sample("unit", dist.Beta(real(2.0)[0], real(3.0)[0]))
    corner = pyro.sample("corner", dist.LKJCholesky(2, real(1.5)[0]))
    pyro.deterministic("sum", weights.sum())
    with poutine.scale(scale=0.5):
        pyro.sample("scaled", dist.Normal(real(0.3)[0], real(0.4)[0]))
    with pyro.plate("data", len(y)):
        local = pyro.sample("local", dist.Normal(unit, 1.0))
        with poutine.mask(mask=torch.tensor([True, False, True])):
            pyro.sample("y", dist.StudentT(5.0, local * rows.sum(), corner[1, 1] + scale), obs=y)
    pyro.factor("penalty", -0.1 * weights.square().sum())


def normal_density(z):
    return -0.5 * ((z[0] - 1) / 2) ** 2 - math.log(2) - 0.5 * math.log(2 * math.pi)


def gamma_density(z):
    return 3 * math.log(2) - math.lgamma(3) + 2 * z[0] - 2 * z[0].exp() + z[0]


def dirichlet_density(z):
    """Stick-breaking: the Jacobian of the first two entries, which determine the third."""

    def entries(z):
        first = torch.sigmoid(z[0] - math.log(2))
        return torch.stack([first, (1 - first) * torch.sigmoid(z[1])])

    two = entries(z)
    row = torch.cat([two, 1 - two.sum(0, keepdim=True)])
    constant = math.lgamma(5.7) - math.lgamma(0.7) - math.lgamma(2.0) - math.lgamma(3.0)
    volume = torch.autograd.functional.jacobian(entries, z, create_graph=True).det().log()
    return constant + ((real(0.7, 2.0, 3.0) - 1) * row.log()).sum() + volume


def location_and_scale_density(z):
    log_normal = -0.5 * z[1] ** 2 - 0.5 * math.log(2 * math.pi)  # of the logarithm: the Jacobian cancels
    prior = -0.5 * ((z[0] - 0.5) / 2) ** 2 - math.log(2) - 0.5 * math.log(2 * math.pi)
    errors = (Y - z[0]) / z[1].exp()
    return prior + log_normal - (0.5 * errors**2 + z[1] + 0.5 * math.log(2 * math.pi)).sum()


BY_HAND = {
    "normal": (normal, (), normal_density, 1),
    "gamma": (gamma, (), gamma_density, 1),
    "dirichlet": (dirichlet, (), dirichlet_density, 2),
    "plate": (location_and_scale, (Y,), location_and_scale_density, 2),
}


@pytest.mark.parametrize("trace", [True, False], ids=["traced", "run"])
@pytest.mark.parametrize("case", BY_HAND)
def test_density_and_gradient_by_hand(case, trace):
    model, args, by_hand, size = BY_HAND[case]
    density = FlatDensity(model, args, trace=trace)
    assert density.size == size and (density.graph is not None) == trace
    for z in torch.linspace(-1.5, 1.1, 3 * size, dtype=torch.float64).view(3, size):
        z = z.clone().requires_grad_()
        value, gradient = density.log_prob_and_grad(z.detach())
        (expected,) = torch.autograd.grad(by_hand(z), z)
        assert torch.allclose(value, by_hand(z).detach(), rtol=1e-10)
        assert torch.allclose(gradient, expected, rtol=1e-8, atol=1e-10)


def test_by_hand_notices_a_missing_jacobian():
    """The twin: a density in constrained space, taken for one in unconstrained space."""
    z = real(0.4)
    value, _ = FlatDensity(gamma).log_prob_and_grad(z)
    assert torch.allclose(value, gamma_density(z))
    assert not torch.allclose(value - z[0], gamma_density(z))


def transformer(prior, likelihood, dtype):
    torch.manual_seed(0)
    net = Transformer(Image(4, 4), Output(3), width=4, heads=2, depth=1)
    return BayesianModel(net, prior, likelihood).to(dtype)


def digits(dtype):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(5, 4, 4, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.tensor([0, 2, 1, 1, 0])


def of_transformer(dtype=torch.float64, prior=None):
    return transformer(prior or Normal(scale=0.3), Categorical(), dtype), digits(dtype)


def random_noise():
    x, _ = digits(torch.float64)
    y = torch.randn(5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return transformer(Normal(), Gaussian(noise="random"), torch.float64), (x, y)


AGAINST_PYRO = {
    "eight kinds": lambda: (eight_kinds, (Y,)),
    "plate": lambda: (location_and_scale, (Y,)),
    "transformer": of_transformer,
    "transformer, float32": lambda: of_transformer(torch.float32),
    "transformer, Student": lambda: of_transformer(prior=StudentT(df=4.0)),
    "transformer, hierarchical": lambda: of_transformer(prior=Hierarchical()),
    "transformer, centred": lambda: of_transformer(prior=Hierarchical(centered=True)),
    "transformer, random noise": random_noise,
}


def potential(model, args, density, z, temperature=1.0):
    """What Pyro's samplers compute: the potential energy of values by site, and its gradient."""
    scaled = model if temperature == 1 else poutine.scale(model, scale=1 / temperature)
    with pyro.validation_enabled(False):
        start = {name: part.detach().clone() for name, part in density.layout.parts(z).items()}
        given = density.unflatten(z)
        from pyro.infer.autoguide.initialization import init_to_value

        _, energy, _, _ = initialize_model(scaled, model_args=args, init_strategy=init_to_value(values=given))
        parts = {name: part.requires_grad_() for name, part in start.items()}
        value = -energy(parts)
        gradients = torch.autograd.grad(value, list(parts.values()))
    return value.detach(), torch.cat([gradient.reshape(-1) for gradient in gradients])


@pytest.mark.parametrize(("case", "temperature"), [*((case, 1.0) for case in AGAINST_PYRO), ("eight kinds", 0.25)])
def test_density_and_gradient_are_those_of_pyro(case, temperature):
    model, args = AGAINST_PYRO[case]()
    density = FlatDensity(model, args, temperature=temperature)
    assert density.graph is not None
    start = density.start()
    tolerance = 1e-8 if start.dtype == torch.float64 else 1e-4
    for scale in (0.0, 0.2):
        z = start + scale * torch.randn(start.shape, dtype=torch.float64).to(start)
        value, gradient = density.log_prob_and_grad(z)
        expected, slope = potential(model, args, density, z, temperature)
        assert value.dtype == gradient.dtype == start.dtype
        assert torch.allclose(value, expected, rtol=tolerance)
        assert torch.allclose(gradient, slope, rtol=tolerance, atol=tolerance * float(slope.abs().max()))
        other, _ = potential(model, args, density, z, 2 * temperature)
        assert not torch.allclose(value, other, rtol=tolerance)  # planted: another temperature


def test_values_come_back():
    model, args = AGAINST_PYRO["eight kinds"]()
    density = FlatDensity(model, args)
    z = 0.3 * torch.randn(4, density.size, dtype=torch.float64)
    values = density.unflatten(z)
    assert values["weights"].shape == (4, 2, 3) and values["rows"].shape == (4, 2, 3)
    assert torch.allclose(values["rows"].sum(-1), torch.ones(4, 2).double()) and (values["scale"] > 0).all()
    assert torch.allclose(density.flatten(values), z)
    one = density.unflatten(z[1])
    assert all(torch.allclose(one[name], values[name][1]) for name in values)
    assert torch.allclose(density.flatten(one), z[1])


def test_it_starts_where_the_model_does():
    model, args = of_transformer()
    density = FlatDensity(model, args)
    start = density.unflatten(density.start())
    assert all(torch.equal(start[name], value) for name, value in model.initial_values().items())
    assert list(start) == list(model.sites)
