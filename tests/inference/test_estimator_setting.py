"""The estimators of SVI: the exact posterior, what is reported, what is refused, what is saved."""

import pytest
import torch

from pyroformer.guides import Delta, MeanField
from pyroformer.inference import SVI, Data, DeepEnsemble, OnePassELBO, Posterior
from pyroformer.models import BayesianModel, Categorical, Features, Gaussian, Output, Transformer
from pyroformer.priors import Hierarchical, Normal, SettingError, Uniform

ESTIMATORS = ("shared", "local_reparameterization", "flipout")
FULL = {"epochs": 300, "batch_size": 40, "learning_rate": 0.05, "particles": 64, "dtype": "float64"}
QUICK = {"epochs": 2, "batch_size": 4}
X = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
Y = X.sum(-1, keepdim=True)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_finds_the_exact_posterior(line, one_token, estimator):
    driver = SVI(**FULL, estimator=estimator)
    posterior = driver.run(line.model(net=one_token), MeanField(init_scale=0.05), line.data)
    family = posterior.guide.families[0]
    loc, scale = family.loc.detach(), family.scale.detach()
    sd = line.precision().diag().rsqrt()
    assert ((loc - line.mean()) / sd).abs().max() < 0.1 and (scale / sd - 1).abs().max() < 0.05
    assert (scale / line.covariance().diag().sqrt() - 1).abs().max() > 0.05  # planted: the marginal scales
    assert ((loc - line.mean(noise=1.5)) / sd).abs().max() > 0.1  # planted: another noise
    expected = {"setting": estimator, estimator: ["weight", "bias"], "shared": []}
    assert posterior.info.get("estimator") == (None if estimator == "shared" else expected)


def transformer(prior=None, outputs=1, per_token=False, copies=2):
    torch.manual_seed(0)
    net = Transformer(Features(2, copies=copies), Output(outputs, per_token), width=4, heads=2, depth=1)
    return BayesianModel(net, prior or Normal(), Categorical(per_token=True) if per_token else Gaussian())


def test_the_posterior_tells_which_layers_used_it(tmp_path):
    model = transformer()
    posterior = SVI(**QUICK, estimator="local_reparameterization").run(model, MeanField(), Data(X, Y))
    told = posterior.info["estimator"]
    assert told["setting"] == "local_reparameterization"
    assert "head.weight" in told["local_reparameterization"] and "blocks.0.mlp.up.weight" in told["flipout"]
    assert {"embedding.weight", "position", "norm.weight"} < set(told["shared"])
    assert sorted(told["local_reparameterization"] + told["flipout"] + told["shared"]) == sorted(model.sites)
    posterior.save(tmp_path / "posterior")
    again = Posterior.load(tmp_path / "posterior", transformer())
    assert again.info["estimator"] == told
    assert torch.equal(again.predict(X, 3).loc, posterior.predict(X, 3).loc)


def test_prediction_knows_nothing_of_it():
    """Draws are functions: the same weights for all examples, whatever the estimator in training."""
    posterior = SVI(**QUICK, estimator="flipout").run(transformer(), MeanField(init_scale=0.3), Data(X, Y))
    together = posterior.outputs(X, 4)
    draws = posterior.draw(4)
    alone = torch.stack([posterior.run({n: v[i : i + 1] for n, v in draws.items()}, X, 1)[0][0] for i in range(4)])
    torch.testing.assert_close(together, alone.detach())


def test_members_of_an_ensemble_use_it():
    driver = DeepEnsemble(member=SVI(**QUICK, estimator="flipout"), size=2)
    posterior = driver.run(transformer(), MeanField(), Data(X, Y))
    assert all("head.weight" in member.info["estimator"]["flipout"] for member in posterior.members)


PRIORS = {"computed": Hierarchical(), "bounded": Uniform(scale=3.0), "normal": Normal()}


@pytest.mark.parametrize(
    ("model", "guide"),
    [
        (lambda line: line.model(), MeanField()),  # a layer of torch
        (lambda line: transformer(), Delta()),
        (lambda line: transformer(PRIORS["computed"]), MeanField()),
        (lambda line: transformer(PRIORS["bounded"]), MeanField()),
    ],
    ids=["foreign layers", "points", "computed", "bounded"],
)
def test_an_estimator_that_would_change_nothing_is_refused(line, model, guide):
    net = model(line)
    data = line.data if net.net.__class__ is torch.nn.Linear else Data(X, Y)
    with pytest.raises(SettingError, match="estimator = 'flipout': expected shared: no random weight"):
        SVI(epochs=30, estimator="flipout").run(net, guide, data)


def test_local_reparameterization_wants_a_layer_that_sees_one_token():
    model = transformer(outputs=3, per_token=True)
    data = Data(X, torch.zeros(8, 4, dtype=torch.long))
    with pytest.raises(SettingError, match="'local_reparameterization': expected flipout or shared: every layer"):
        SVI(epochs=30, estimator="local_reparameterization").run(model, MeanField(), data)
    SVI(**QUICK, estimator="flipout").run(model, MeanField(), data)


@pytest.mark.parametrize("owner", [SVI, OnePassELBO])
def test_an_unknown_estimator_is_refused(owner):
    with pytest.raises(SettingError, match="one of shared, local_reparameterization, flipout"):
        owner(estimator="antithetic")
