"""Matrix-normal and multivariate-t priors: densities against scipy and a dense covariance, draws, structures."""

import math
import pickle

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from scipy import stats
from torch import nn

from pyroformer.guides import MeanField
from pyroformer.inference import MAP, SVI, Data
from pyroformer.models import BayesianModel, Gaussian
from pyroformer.priors import (
    Hierarchical,
    Horseshoe,
    KroneckerNormal,
    KroneckerT,
    MatrixNormal,
    Mixture,
    MultivariateT,
    Normal,
    ScaleMixture,
    SettingError,
    Site,
)

FIVE_SIGMA = 2 * stats.norm.sf(5)
STRUCTURES = {
    "both exchangeable": {"row_correlation": 0.4, "column_correlation": 0.7},
    "both autoregressive": {
        "rows": "autoregressive",
        "columns": "autoregressive",
        "row_correlation": -0.6,
        "column_correlation": 0.8,
    },
    "rows": {"columns": "identity", "row_correlation": 0.4},
    "columns": {"rows": "identity", "columns": "autoregressive", "column_correlation": 0.7},
    "neither": {"rows": "identity", "columns": "identity"},
}
EACH = pytest.mark.parametrize("structure", STRUCTURES)
KINDS = pytest.mark.parametrize("kind", [MatrixNormal, MultivariateT])
SHAPES = pytest.mark.parametrize("shape", [(), (4,), (3, 4), (3, 2, 2, 1)], ids=str)


def correlations(structure, rho, size):
    found = np.eye(size)
    for i in range(size):
        for j in range(size):
            if i != j and structure != "identity":
                found[i, j] = rho if structure == "exchangeable" else rho ** abs(i - j)
    return found


def covariance(prior, shape):
    """Of all entries in the order of memory, by hand, without the scale."""
    rows = shape[0] if shape else 1
    row = correlations(prior.rows, prior.row_correlation, rows)
    column = correlations(prior.columns, prior.column_correlation, math.prod(shape) // rows)
    return np.kron(row, column)


def log_density(prior, value, center, scale):
    flat, sigma = value.flatten().numpy() - center, scale**2 * covariance(prior, tuple(value.shape))
    if isinstance(prior, MatrixNormal):
        return stats.multivariate_normal(cov=sigma).logpdf(flat)
    if prior.joint == "site":
        return stats.multivariate_t(shape=sigma, df=prior.df).logpdf(flat)
    width = len(flat) // value.shape[0]
    law = stats.multivariate_t(shape=sigma[:width, :width], df=prior.df)
    return sum(float(law.logpdf(row)) for row in flat.reshape(-1, width))


def site(*shape, center=0.0, **facts):
    return Site("weight", torch.zeros(shape, dtype=torch.float64), center=center, **facts)


@KINDS
@EACH
@SHAPES
def test_the_density_is_that_of_the_dense_covariance(kind, structure, shape):
    prior = kind(scale=0.7, **STRUCTURES[structure])
    made = prior.distribution(site(*shape, center=1.0))
    assert made.batch_shape == () and made.event_shape == shape
    value = torch.randn(shape, dtype=torch.float64)
    found = made.log_prob(value).item()
    assert found == pytest.approx(log_density(prior, value, 1.0, 0.7), rel=1e-9)
    assert found != pytest.approx(log_density(prior, value, 0.0, 0.7), rel=1e-6)  # planted: another centre
    assert found != pytest.approx(log_density(prior, value, 1.0, 0.75), rel=1e-6)  # planted: another scale
    if structure != "neither" and len(shape) > 1:
        other = kind(scale=0.7, **STRUCTURES["neither"])
        assert found != pytest.approx(log_density(other, value, 1.0, 0.7), rel=1e-6)  # planted: no correlation
    torch.testing.assert_close(made.coloured(made.white(value)), value)


def test_rows_may_have_random_scales_of_their_own():
    prior = MultivariateT(rows="identity", column_correlation=0.6, df=4.0, joint="row")
    made, value = prior.distribution(site(3, 4)), torch.randn(3, 4, dtype=torch.float64)
    assert made.log_prob(value).item() == pytest.approx(log_density(prior, value, 0.0, 1.0), rel=1e-9)
    whole = MultivariateT(rows="identity", column_correlation=0.6, df=4.0)
    assert made.log_prob(value).item() != pytest.approx(log_density(whole, value, 0.0, 1.0), rel=1e-6)  # planted
    sizes = made.sample((4000,)).square().log()
    across = torch.corrcoef(torch.stack([sizes[:, 0, 0], sizes[:, 1, 0], sizes[:, 0, 1]]))[0]
    assert abs(across[1]) < 5 / math.sqrt(4000) and across[2] > 5 / math.sqrt(4000)


@KINDS
@EACH
def test_draws_have_the_marginals_and_the_correlations(kind, structure, standard_errors):
    prior = kind(scale=0.7, **({"df": 9.0} if kind is MultivariateT else {}), **STRUCTURES[structure])
    torch.manual_seed(2)
    draws = prior.distribution(site(3, 2, center=1.0)).sample((10_000,)) - 1
    law = stats.norm(scale=0.7) if kind is MatrixNormal else stats.t(9, scale=0.7)
    for entry in (draws[:, 0, 0], draws[:, 2, 1]):
        assert stats.kstest(entry.numpy(), law.cdf).pvalue > FIVE_SIGMA
        assert stats.kstest(1.2 * entry.numpy(), law.cdf).pvalue < FIVE_SIGMA  # planted: another scale
    flat = draws.flatten(1)
    products = flat.unsqueeze(-1) * flat.unsqueeze(-2)
    factor = 0.49 * (1 if kind is MatrixNormal else 9 / 7)
    expected = factor * torch.as_tensor(covariance(prior, (3, 2)))
    assert standard_errors(products, expected) < 5
    turned = draws.mT.reshape(10_000, 6)  # planted: rows and columns changed places
    planted = turned.unsqueeze(-1) * turned.unsqueeze(-2) if structure != "neither" else 1.2 * products
    assert standard_errors(planted, expected) > 5


@KINDS
def test_moments(kind):
    made = kind(scale=0.5, **({"df": 4.0} if kind is MultivariateT else {})).distribution(site(3, 4, center=1.0))
    assert (made.mean == 1).all() and made.variance.shape == (3, 4)
    torch.testing.assert_close(made.variance, torch.full_like(made.mean, 0.25 if kind is MatrixNormal else 0.5))
    tril = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    wide = KroneckerNormal(torch.zeros(2, 3), torch.ones(2, 3), tril)
    assert wide.variance.tolist() == [[4.0] * 3, [10.0] * 3]
    for df, mean, variance in ((0.5, math.nan, math.nan), (1.5, 0.0, math.inf), (4.0, 0.0, 2.0)):
        heavy = KroneckerT(df, torch.zeros(2), torch.ones(2))
        assert heavy.mean.tolist() == pytest.approx([mean] * 2, nan_ok=True)
        assert heavy.variance.tolist() == pytest.approx([variance] * 2, nan_ok=True)


@KINDS
@SHAPES
def test_a_factor_on_the_scale_may_differ_from_entry_to_entry_and_have_sample_dimensions(kind, shape):
    """The density of W is that of W / F, divided by the product of F."""
    prior = kind(**STRUCTURES["both exchangeable"])
    factor = 0.5 + torch.rand((5, 1, *shape), dtype=torch.float64)
    made = prior.distribution(site(*shape, scale=factor))
    assert made.batch_shape == (5, 1) and made.event_shape == shape
    value = torch.randn((5, 1, *shape), dtype=torch.float64)
    expected = [
        log_density(prior, v / f, 0.0, 1.0) - f.log().sum().item()
        for v, f in zip(value.squeeze(1), factor.squeeze(1), strict=True)
    ]
    assert made.log_prob(value).flatten().tolist() == pytest.approx(expected, rel=1e-9)
    assert made.log_prob(value).flatten().tolist() != pytest.approx(expected[::-1], rel=1e-6)  # planted
    assert made.sample((2,)).shape == (2, 5, 1, *shape)


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_expands_is_pickled_follows_the_dtype_and_is_reparameterised(kind, dtype):
    made = kind().distribution(Site("weight", torch.zeros(3, 4, dtype=dtype)))
    wide = made.expand((6, 1))
    assert wide.batch_shape == (6, 1) and wide.sample((2,)).shape == (2, 6, 1, 3, 4)
    value = wide.sample()
    assert value.dtype == dtype and len(torch.unique(value)) == value.numel()
    torch.testing.assert_close(wide.log_prob(value), made.log_prob(value))
    torch.testing.assert_close(pickle.loads(pickle.dumps(wide)).log_prob(value), made.log_prob(value))
    scale = torch.tensor(2.0, dtype=dtype, requires_grad=True)
    scaled = kind().distribution(Site("weight", torch.zeros(3, 4, dtype=dtype), scale=scale))
    draw = scaled.rsample()
    torch.testing.assert_close(torch.autograd.grad(draw.sum(), scale)[0], (draw / scale).sum().detach())
    with pytest.raises(ValueError, match="support"):
        made.log_prob(torch.full((3, 4), math.nan, dtype=dtype))


@pytest.mark.parametrize(
    "prior",
    [
        MatrixNormal(row_correlation=0.3),
        MultivariateT(df=5.0),
        Hierarchical(prior=MatrixNormal(), centered=True),
        Hierarchical(prior=MultivariateT()),
        Horseshoe(prior=MatrixNormal(), per="input"),
    ],
    ids=lambda prior: type(prior).__name__,
)
def test_it_works_in_a_model(prior):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.LayerNorm(3), nn.Linear(3, 1))
    x = torch.randn(6, 2)
    data = Data(x, x.sum(-1, keepdim=True))
    model = BayesianModel(net, prior, Gaussian(scale=0.5))
    nodes = poutine.trace(model).get_trace(data.x, data.y).nodes
    assert nodes["0.weight"]["value"].shape == (3, 2)
    total = sum(node["fn"].log_prob(node["value"]).sum() for n, node in nodes.items() if n in model.distributions())
    if isinstance(prior, MatrixNormal | MultivariateT):
        doubles = {name: nodes[name]["value"].detach().double() for name in model.sites}
        by_hand = sum(log_density(prior, doubles[name], s.center, 1.0) for name, s in model.sites.items())
        assert total.item() == pytest.approx(by_hand, rel=1e-4)
        assert total.item() != pytest.approx(by_hand + 0.01 * abs(by_hand), rel=1e-4)  # planted
    for driver, guide in ((SVI(epochs=2, particles=2), MeanField()), (MAP(epochs=2, dtype="float64"), None)):
        fitted = driver.run(model, guide, data)
        assert torch.isfinite(fitted.predict(x, 3).loc).all()
    with pyro.plate("draws", 4, dim=-2):
        assert torch.isfinite(model(x)).all()


class TestRefusals:
    def test_weights_of_three_axes_are_refused_when_the_model_is_made(self):
        class Cube(nn.Module):
            def __init__(self):
                super().__init__()
                self.cube = nn.Parameter(torch.zeros(2, 3, 4))

        for prior in (MatrixNormal(), Hierarchical(prior=MultivariateT())):
            with pytest.raises(SettingError, match="a weight with 1, 2 or 4 axes") as caught:
                BayesianModel(Cube(), prior)
            assert caught.value.value == "cube"
        BayesianModel(Cube(), {"cube": Normal()})
        BayesianModel(nn.Conv2d(2, 3, 2), MatrixNormal())

    @pytest.mark.parametrize(
        ("build", "key", "accepted"),
        [
            (lambda: MatrixNormal(rows="diagonal"), "rows", "one of identity, exchangeable, autoregressive"),
            (lambda: MatrixNormal(row_correlation=-0.1), "row_correlation", "a number from 0 to below 1"),
            (lambda: MatrixNormal(column_correlation=1.0), "column_correlation", "below 1"),
            (
                lambda: MatrixNormal(columns="autoregressive", column_correlation=-1.0),
                "column_correlation",
                "above -1 and below 1",
            ),
            (lambda: MatrixNormal(scale=0.0), "scale", "a number above 0"),
            (lambda: MultivariateT(df=0.0), "df", "a number above 0"),
            (lambda: MultivariateT(joint="column"), "joint", "one of site, row"),
            (lambda: MultivariateT(joint="row"), "joint", "site with rows = exchangeable"),
            (lambda: Mixture(components=[Normal(), MatrixNormal()]), "components.1", "entries are independent"),
            (lambda: ScaleMixture(prior=MultivariateT()), "prior", "entries are independent"),
        ],
    )
    def test_wrong_settings(self, build, key, accepted):
        with pytest.raises(SettingError) as caught:
            build()
        assert caught.value.key == key and accepted in caught.value.expected
