"""The Laplace approximation of a linear regression, where it is exact."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from pyroformer.inference import MAP, ML, Laplace
from pyroformer.models import BayesianModel, Gaussian
from pyroformer.priors import Improper, Normal

POINT = {"epochs": 400, "batch_size": 40, "learning_rate": 0.15, "optimizer": "sgd", "dtype": "float64"}
START = MAP(**POINT)
SHORT = MAP(epochs=1, batch_size=40, dtype="float64")  # the curvature of a linear net is the same everywhere


def run(line, model=None, start=START, **settings):
    return Laplace(start=start, **settings).run(line.model() if model is None else model, None, line.data)


def covariance(posterior):
    """The exact covariance of the deviations at temperature 1, ``[P, P]``, by what it does to the unit vectors."""
    normal = posterior.normal
    sizes = [shape.numel() for shape in normal.shapes.values()]
    total = sum(sizes)
    eye = torch.eye(total).double()

    def variance_along(vectors):
        parts = vectors.split(sizes, -1)
        jacobian = {n: p.view(1, -1, *s) for (n, s), p in zip(normal.shapes.items(), parts, strict=True)}
        return normal.projected(jacobian)[0]

    sums = variance_along((eye.unsqueeze(0) + eye.unsqueeze(1)).view(-1, total)).view(total, total)
    single = variance_along(eye)
    return (sums - single - single.unsqueeze(1)) / 2


class TestFull:
    def test_it_is_the_exact_posterior(self, line):
        posterior = run(line, structure="full")
        mode = line.flat({name: value.unsqueeze(0) for name, value in posterior.mode.items()})[0]
        torch.testing.assert_close(mode, line.mean(), atol=1e-4, rtol=0)
        torch.testing.assert_close(covariance(posterior), line.covariance(), atol=0, rtol=1e-6)
        assert not torch.allclose(covariance(posterior), line.covariance(noise=0.6), rtol=1e-2)  # planted
        assert not torch.allclose(covariance(posterior), line.covariance(prior=2.0), rtol=1e-4)  # planted

    def test_its_draws_covary_as_it_says(self, line, standard_errors):
        posterior = run(line, structure="full", start=SHORT)
        mode = line.flat({name: value.unsqueeze(0) for name, value in posterior.mode.items()})
        away = line.flat(posterior.draw(4000)) - mode
        products = away.unsqueeze(-1) * away.unsqueeze(-2)
        assert standard_errors(away, torch.zeros(4).double()) < 5
        assert standard_errors(products, line.covariance()) < 5
        assert standard_errors(products, line.precision().diag().reciprocal().diag()) > 5  # planted: no correlation

    @pytest.mark.parametrize("scale", [0.3, 1.0])
    def test_its_evidence_is_the_marginal_likelihood(self, line, scale):
        found = run(line, line.model(Normal(scale=scale)), structure="full").info["log_evidence"]

        def exact(scale):
            own = 0.5**2 * torch.eye(40) + scale**2 * line.design @ line.design.T
            return float(MultivariateNormal(torch.zeros(40).double(), own.double()).log_prob(line.y.double()[:, 0]))

        assert found == pytest.approx(exact(scale), abs=1e-4)
        assert found != pytest.approx(exact(1.1 * scale), abs=1e-3)  # planted: another prior

    def test_without_a_prior_it_is_least_squares(self, line):
        posterior = run(line, line.model(Improper()), start=ML(**POINT), structure="full")
        torch.testing.assert_close(covariance(posterior), line.covariance(prior=None), atol=0, rtol=1e-6)
        assert posterior.info["log_evidence"] is None


class TestFittedPrecision:
    """The precision that maximises the evidence around the mode, which stays."""

    def evidence(self, line, posterior, precision):
        """By hand up to a constant, for one precision a weight, ``[4]``."""
        mode = line.flat({name: value.unsqueeze(0) for name, value in posterior.mode.items()})[0]
        log_det = torch.logdet(line.precision(prior=None) + precision.diag())
        return 0.5 * (precision.log().sum() - log_det - (precision * mode.square()).sum())

    @pytest.mark.parametrize("structure", ["full", "diagonal", "kronecker"])
    def test_it_is_the_best_of_a_grid(self, line, structure):
        posterior = run(line, structure=structure, prior_precision="marginal_likelihood")
        (found,) = posterior.info["prior_precision"].values()
        mode = line.flat({name: value.unsqueeze(0) for name, value in posterior.mode.items()})[0]
        curvature = line.precision(prior=None)
        keep = {"full": torch.ones(4, 4), "diagonal": torch.eye(4)}
        keep["kronecker"] = torch.block_diag(torch.ones(3, 3), torch.ones(1, 1))
        eigenvalues = torch.linalg.eigvalsh(curvature * keep[structure])
        grid = torch.logspace(-3, 3, 2001).double().unsqueeze(-1)
        values = (grid / (grid + eigenvalues)).log().sum(-1) - grid[:, 0] * mode.square().sum()
        assert found == pytest.approx(float(grid[values.argmax()]), rel=0.005)
        planted = (grid / (grid + eigenvalues / 40)).log().sum(-1) - grid[:, 0] * mode.square().sum()
        assert found != pytest.approx(float(grid[planted.argmax()]), rel=0.005)  # planted: the curvature of one example

    def test_each_site_has_its_own(self, line):
        posterior = run(line, structure="full", prior_precision="marginal_likelihood", precision_by="site")
        found = posterior.info["prior_precision"]
        assert list(found) == ["weight", "bias"]

        def at(weight, bias):
            own = torch.tensor([weight] * 3 + [bias]).double()
            return float(self.evidence(line, posterior, own))

        best = at(**found)
        for factor in (0.97, 1.03):
            assert at(found["weight"] * factor, found["bias"]) < best
            assert at(found["weight"], found["bias"] * factor) < best
        assert at(found["weight"], found["weight"]) < best  # planted: one for both

    def test_its_evidence_is_the_larger_one(self, line):
        fitted = run(line, structure="full", prior_precision="marginal_likelihood")
        own = run(line, structure="full")
        assert fitted.info["log_evidence"] > own.info["log_evidence"]
        (precision,) = fitted.info["prior_precision"].values()
        by_hand = [self.evidence(line, fitted, torch.full((4,), value).double()) for value in (precision, 1.0)]
        difference = fitted.info["log_evidence"] - own.info["log_evidence"]
        assert difference == pytest.approx(float(by_hand[0] - by_hand[1]), abs=1e-6)
        torch.testing.assert_close(covariance(fitted), line.covariance(prior=precision**-0.5), rtol=1e-6, atol=0)

    def test_a_flat_prior_can_be_given_one(self, line):
        settings = dict(structure="diagonal", prior_precision="marginal_likelihood", start=START)
        flat = run(line, line.model(Improper()), **settings)
        assert flat.info["log_evidence"] is not None and flat.info["prior_precision"]["net"] > 0


def test_the_diagonal_is_that_of_the_precision(line):
    posterior = run(line, structure="diagonal", start=SHORT)
    expected = line.precision().diag().reciprocal().diag()
    torch.testing.assert_close(covariance(posterior), expected, atol=1e-12, rtol=1e-6)
    assert not torch.allclose(covariance(posterior), line.covariance().diag().diag(), rtol=0.1)  # planted: marginal


def test_kronecker_is_exact_for_the_weight_and_for_the_bias(line):
    posterior = run(line, structure="kronecker", start=SHORT)
    precision = line.precision()
    expected = torch.block_diag(precision[:3, :3].inverse(), precision[3:, 3:].inverse())
    torch.testing.assert_close(covariance(posterior), expected, atol=1e-10, rtol=1e-6)
    assert not torch.allclose(covariance(posterior), line.covariance(), rtol=0.1)  # planted: jointly
    assert posterior.info["diagonal"] == []


@pytest.mark.parametrize("structure", ["diagonal", "kronecker", "full"])
@pytest.mark.parametrize("prediction", ["linearized", "sampled"])
def test_temperature_scales_the_variance(line, structure, prediction):
    warm, cold = (
        run(line, structure=structure, prediction=prediction, start=SHORT, temperature=t) for t in (1.0, 0.25)
    )
    away = [line.flat(p.draw(5)) - line.flat({n: v.unsqueeze(0) for n, v in p.mode.items()}) for p in (warm, cold)]
    torch.testing.assert_close(away[1], 0.5 * away[0])
    assert (warm.info["temperature"], cold.info["temperature"]) == (1.0, 0.25)
    assert warm.info["log_evidence"] == cold.info["log_evidence"]
    spread = [p.predict(line.x, 400).model_variance.mean() for p in (warm, cold)]
    assert float(spread[1] / spread[0]) == pytest.approx(0.25, rel=1e-3)


def test_priors_count_with_their_own_centres_and_scales(line):
    net = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 1))
    prior = {"1.*": Normal(scale=0.5), "0.*": Normal(scaling="fan_in"), "*": Normal(scale=2.0)}
    posterior = run(line, BayesianModel(net, prior, Gaussian(scale=0.5)), start=SHORT, structure="diagonal")
    mode = posterior.mode
    scales = {"0.weight": (2 / 3) ** 0.5, "0.bias": (2 / 3) ** 0.5, "1.weight": 0.5, "1.bias": 0.5}
    total = posterior.info["log_likelihood"]
    for name, value in mode.items():
        center, scale = float(name == "1.weight"), scales.get(name, 2.0)
        total += float(torch.distributions.Normal(center, scale).log_prob(value).sum())
        total += 0.5 * value.numel() * math.log(2 * math.pi) - 0.5 * float(posterior.normal.precision[name].log().sum())
    assert posterior.info["log_evidence"] == pytest.approx(total)
    planted = total + float(torch.distributions.Normal(0.0, 0.5).log_prob(mode["1.weight"]).sum())
    planted -= float(torch.distributions.Normal(1.0, 0.5).log_prob(mode["1.weight"]).sum())
    assert posterior.info["log_evidence"] != pytest.approx(planted)  # planted: gains centred at 0


def test_the_noise_may_be_learned(line):
    posterior = run(line, line.model(noise="learned", scale=1.0), structure="full")
    noise = float(posterior.model.likelihood.log_scale.detach().exp())
    assert 0.3 < noise < 0.6
    torch.testing.assert_close(covariance(posterior), line.covariance(noise=noise), atol=0, rtol=1e-6)
