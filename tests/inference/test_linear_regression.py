"""Drivers against the exact posterior of a linear regression."""

import pytest
import torch

from pyroformer.guides import Delta, Guide, MeanField
from pyroformer.inference import MAP, ML, SVI, Data, DeepEnsemble
from pyroformer.priors import Improper, Learned

FULL = {"epochs": 300, "batch_size": 40, "learning_rate": 0.05, "particles": 16, "dtype": "float64"}
POINT = {"epochs": 300, "batch_size": 40, "learning_rate": 0.15, "optimizer": "sgd", "dtype": "float64"}


def fitted(posterior):
    family = posterior.guide.families[0]
    return family.loc.detach(), family.scale.detach()


def agrees(loc, scale, mean, sd):
    """Optimised to a tenth of a standard deviation, and scales to 5 %."""
    return bool(((loc - mean) / sd).abs().max() < 0.1 and (scale / sd - 1).abs().max() < 0.05)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_mean_field_finds_the_conditional_scales(line, temperature):
    posterior = SVI(**FULL, temperature=temperature).run(line.model(), MeanField(init_scale=0.05), line.data)
    loc, scale = fitted(posterior)
    conditional = (temperature / line.precision().diag()).sqrt()
    marginal = (temperature * line.covariance().diag()).sqrt()
    assert agrees(loc, scale, line.mean(), conditional)
    assert not agrees(loc, scale, line.mean(), marginal)  # planted: the marginal scales
    assert not agrees(loc, scale, line.mean(), conditional * 0.1**0.5)  # planted: another temperature
    assert not agrees(loc, scale, line.mean(noise=1.5), conditional)  # planted: another noise


def test_minibatches_lead_to_the_same_posterior(line):
    driver = SVI(**{**FULL, "epochs": 150, "batch_size": 16})  # 16, 16 and 8
    loc, scale = fitted(driver.run(line.model(), MeanField(init_scale=0.05), line.data))
    sd = line.precision().diag().rsqrt()
    assert ((loc - line.mean()) / sd).abs().max() < 0.3 and (scale / sd - 1).abs().max() < 0.1
    unscaled = (line.design.T @ line.design / 0.25 * 16 / 40 + torch.eye(4)).diag().rsqrt()
    assert (scale / unscaled - 1).abs().max() > 0.1  # planted: the batch counted as all the data


def test_kl_weight_tempers_the_prior_and_the_entropy(line):
    posterior = SVI(**FULL, kl_weight=9.0).run(line.model(), MeanField(init_scale=0.05), line.data)
    loc, scale = fitted(posterior)
    precision = line.precision(noise=0.5 * 3)
    assert agrees(loc, scale, line.mean(noise=0.5 * 3), precision.diag().rsqrt())
    assert not agrees(loc, scale, line.mean(), line.precision().diag().rsqrt())  # planted


def test_a_guide_made_before_is_trained_in_place(line):
    model = line.model().double()
    guide = Guide(model, MeanField(init_scale=0.05), (line.x[:2].double(),))
    posterior = SVI(**FULL).run(model, guide, line.data)
    assert posterior.guide is guide and posterior.model is model
    assert agrees(*fitted(posterior), line.mean(), line.precision().diag().rsqrt())


@pytest.mark.parametrize(("optimizer", "rate"), [("adam", 0.05), ("sgd", 0.15)])
def test_map_is_ridge_regression(line, optimizer, rate):
    driver = MAP(**{**POINT, "learning_rate": rate, "optimizer": optimizer})
    posterior = driver.run(line.model(), None, line.data)
    found = line.flat(posterior.draw(1))[0]
    assert torch.allclose(found, line.mean(), atol=1e-3)
    assert not torch.allclose(found, line.mean(prior=None), atol=1e-3)  # planted: no prior


def test_svi_with_point_masses_is_map(line):
    driver = SVI(**{**FULL, "particles": 1}, temperature=0.1)  # a point has no entropy
    found = line.flat(driver.run(line.model(), Delta(), line.data).draw(1))[0]
    assert torch.allclose(found, line.mean(), atol=1e-3)


@pytest.mark.parametrize("prior", ["normal", "improper", "learned"])
def test_ml_is_least_squares(line, prior):
    choice = {"normal": None, "improper": Improper(), "learned": Learned()}[prior]
    posterior = ML(**POINT).run(line.model(choice), None, line.data)
    predicted = posterior.predict(line.x)
    by_hand = line.design @ line.mean(prior=None)
    assert torch.allclose(predicted.mean.squeeze(-1), by_hand, atol=1e-3)
    assert not torch.allclose(predicted.mean.squeeze(-1), line.design @ line.mean(), atol=1e-3)  # planted: ridge
    assert predicted.num_samples == 1
    assert torch.allclose(predicted.scale, torch.tensor(0.5).double())


def test_noise_is_found_as_point_and_as_site(line):
    """Maximum likelihood of the noise is the root mean square of the residuals; a random site stays near it."""
    residual = (line.y.squeeze(-1).double() - line.design @ line.mean(prior=None)).square().mean().sqrt()
    learned = ML(**POINT).run(line.model(noise="learned", scale=1.0), None, line.data)
    assert abs(learned.model.likelihood.log_scale.exp() - residual) < 1e-3
    as_site = ML(**POINT).run(line.model(noise="random", scale=1.0), None, line.data)
    assert abs(as_site.draw(1)["noise_scale"] - residual) < 1e-3
    drawn = SVI(**FULL).run(line.model(noise="random", scale=1.0), MeanField(), line.data).draw(500)["noise_scale"]
    assert (drawn > 0).all() and abs(drawn.median() - residual) < 0.1


class TestDeepEnsemble:
    def fitted(self, line, **settings):
        driver = DeepEnsemble(member=ML(**{"epochs": 3, "dtype": "float64", **settings}), size=3)
        return driver.run(line.model(), None, line.data)

    def test_members_start_apart(self, line):
        draws = line.flat(self.fitted(line, learning_rate=1e-6).draw(3))
        bound = 3**-0.5
        assert draws.abs().max() <= bound + 1e-4  # where torch starts a linear layer
        assert min((draws[i] - draws[j]).abs().max() for i, j in ((0, 1), (0, 2), (1, 2))) > 0.1

    def test_members_are_reached_alone(self, line):
        posterior = self.fitted(line)
        predicted = posterior.predict(line.x)
        members = [member.predict(line.x) for member in posterior.members]
        assert predicted.num_samples == 3
        assert torch.equal(predicted.loc, torch.cat([member.loc for member in members]))
        assert torch.allclose(predicted.mean, sum(member.mean for member in members) / 3)
        density = torch.stack([member.log_density(line.y.double()) for member in members]).exp().mean(0).log()
        assert torch.allclose(predicted.log_density(line.y.double()), density)
        logs = torch.stack([member.log_density(line.y.double()) for member in members]).mean(0)
        assert not torch.allclose(predicted.log_density(line.y.double()), logs)  # planted: logs averaged

    def test_converged_members_agree(self, line):
        driver = DeepEnsemble(member=ML(**POINT), size=2)
        draws = line.flat(driver.run(line.model(), None, line.data).draw(2))
        assert torch.allclose(draws, line.mean(prior=None).expand(2, 4), atol=1e-3)

    def test_data_keep_the_precision_of_the_members(self, line):
        x, y = line.x.double() + 1e-9, line.y.double()
        posterior = self.fitted(line, epochs=1)
        seen = []

        class Watching(ML):
            def _run(self, model, guide, data, seed, monitor):
                seen.append(data.x)
                return super()._run(model, guide, data, seed, monitor)

        DeepEnsemble(member=Watching(epochs=1, dtype="float64"), size=1).run(line.model(), None, Data(x, y))
        assert torch.equal(seen[0], x)
        assert {p.dtype for p in posterior.members[0].guide.parameters()} == {torch.float64}


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_weight_decay_is_as_large_as_it_says(line, decay):
    driver = ML(**{**POINT, "learning_rate": 0.05, "optimizer": "adamw", "weight_decay": decay})
    found = line.flat(driver.run(line.model(), None, line.data).draw(1))[0]
    plain = torch.allclose(found, line.mean(prior=None), atol=1e-3)
    assert plain == (decay == 0.0)
