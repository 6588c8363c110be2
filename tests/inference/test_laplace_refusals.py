"""What the Laplace approximation cannot do it refuses before any work is done, with the reason."""

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyroformer.guides import MeanField
from pyroformer.inference import MAP, ML, NUTS, SVI, Data, DeepEnsemble, InferenceError, Laplace
from pyroformer.inference.laplace.structure import check_positive
from pyroformer.models import BayesianModel, Features, Gaussian, Likelihood, Output, Transformer
from pyroformer.priors import DirichletRows as PriorRows
from pyroformer.priors import Fixed, Hierarchical, Improper, Learned, Normal, SettingError, StudentT

X, Y = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])
SHORT = ML(epochs=1)


def model(prior=None, likelihood=None):
    torch.manual_seed(0)
    net = Transformer(Features(2, copies=2), Output(3), width=4, heads=2, depth=1)
    return BayesianModel(net, prior or Normal(), likelihood)


class Poisson(Likelihood):
    def distribution(self, outputs, drawn, y=None):
        return dist.Poisson(outputs.exp()).to_event(1)

    def check(self, outputs, y):
        pass


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRU(2, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.cell(x)[0])


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        return self.head(x) if x.sum() > 0 else self.head(-x)


def entrywise(name, value):
    return dist.Normal(0.0, torch.linspace(1, 2, value.numel()).view(value.shape)).to_event(value.dim())


@pytest.mark.parametrize(
    ("settings", "make", "message"),
    [
        ({}, lambda: model({"*.rows": PriorRows(), "*": Normal()}), "softmax attention: .*blocks.0.attention.rows"),
        ({}, lambda: model({"head.*": StudentT(), "*": Normal()}), "that of head.weight is student_t"),
        ({}, lambda: model(lambda name, value: dist.Laplace(0.0, 1.0)), "that of position is a function's"),
        ({}, lambda: model({"head.*": Hierarchical(), "*": Normal()}), "that of head.weight is hierarchical"),
        ({}, lambda: model(Fixed()), "something to train; all its parameters are fixed"),
        ({}, lambda: model(Learned()), "at least one random weight"),
        ({}, lambda: model(likelihood=Poisson()), "a categorical or gaussian likelihood, not poisson"),
        ({}, lambda: model(likelihood=Gaussian(noise="random")), "noise_scale can be fixed or learned"),
        ({"link": "probit"}, lambda: model(likelihood=Gaussian()), "probit is for classes"),
        ({}, lambda: model(Improper()), "not flat, or prior_precision marginal_likelihood: .*position"),
        ({"subset": "last_layer"}, lambda: model(Improper()), "infinite variance"),
        ({"subset": "head.wieght"}, model, "'head.wieght' matches none; did you mean head.weight"),
        ({"subset": "last_layer"}, lambda: model({"head.*": Learned(), "*": Normal()}), "'last_layer' matches none"),
        ({"structure": "full", "max_size": 226}, model, "max_size = 226, not 227"),
        ({"max_size": 7}, model, r"blocks.0.mlp.up.weight has shape \(8, 4\) and max_size is 7"),
        ({}, lambda: model({"head.weight": entrywise, "*": Normal()}), "head.weight needs one prior scale"),
        ({}, lambda: BayesianModel(Recurrent(), Normal()), "recurrent layers.*: cell"),
        (
            {"subset": "last_layer"},
            lambda: BayesianModel(nn.Sequential(nn.Conv1d(1, 3, 2)), Normal()),
            "it has no last layer",
        ),
    ],
)
def test_refusals_come_before_any_work(settings, make, message):
    with pytest.raises(SettingError, match=f"driver = 'Laplace': expected .*{message}"):
        Laplace(**settings).run(make(), None, None)  # there are not even data


@pytest.mark.parametrize(
    ("settings", "make"),
    [
        ({"subset": "blocks.*"}, lambda: model({"head.*": StudentT(), "*": Normal()})),
        ({"prior_precision": "marginal_likelihood"}, lambda: model(Improper())),
        ({"structure": "full", "max_size": 227}, model),
        ({"max_size": 8}, model),
        ({"structure": "diagonal"}, lambda: model({"head.weight": entrywise, "*": Normal()})),
        ({"prior_precision": "marginal_likelihood"}, lambda: model({"head.weight": entrywise, "*": Normal()})),
        ({"subset": "head.weight"}, lambda: model({"head.weight": Normal(), "*": Learned()})),
    ],
)
def test_neighbours_of_what_is_refused_work(settings, make):
    posterior = Laplace(start=SHORT, **settings).run(make(), None, Data(X, Y))
    assert posterior.predict(X, 2).probabilities.shape == (6, 3)


def test_a_net_without_such_derivatives_is_refused_before_training(monkeypatch):
    monkeypatch.setattr("pyroformer.inference.optimize.Fit.step", None)
    built = BayesianModel(Branching(), Normal())
    with pytest.raises(SettingError, match=r"derivatives torch\.func can take one example at a time"):
        Laplace().run(built, None, Data(X, Y))


def test_a_flat_prior_needs_data_for_every_direction():
    built = BayesianModel(nn.Linear(2, 1), Improper(), Gaussian())
    few, enough = (Data(X[:n], X[:n, :1]) for n in (2, 6))
    for structure in ("full", "kronecker"):
        driver = Laplace(start=SHORT, structure=structure)
        assert torch.isfinite(driver.run(built, None, enough).predict(X, 3).mean).all()
    with pytest.raises(InferenceError, match="the weights is not positive definite"):
        Laplace(start=SHORT, structure="full").run(built, None, few)


def test_a_singular_precision_is_told_from_a_small_one():
    flat, proper = torch.zeros(2).double(), torch.full((2,), 1e-12).double()
    one = torch.ones(()).double()
    check_positive("w", 1e-12 * one, one, proper)
    check_positive("w", 1e-9 * one, one, flat)
    for smallest, prior in ((1e-12 * one, flat), (0 * one, proper), (one * float("nan"), proper)):
        with pytest.raises(InferenceError, match="w is not positive definite"):
            check_positive("w", smallest, one, prior)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Laplace(start=NUTS()), "start = .*: expected a point estimate: map or ml"),
        (lambda: Laplace(start=SVI()), "start = .*: expected a point estimate: map or ml"),
        (lambda: Laplace(structure="block"), "structure = 'block': expected one of kronecker, diagonal, full"),
        (lambda: Laplace(subset=[]), r"subset = \(\): expected all, last_layer, a glob"),
        (lambda: Laplace(subset=""), "subset = '': expected all, last_layer, a glob"),
        (lambda: Laplace(hessian="exact"), "hessian = 'exact': expected one of ggn, fisher"),
        (lambda: Laplace(fisher_samples=0), "fisher_samples = 0: expected a whole number of at least 1"),
        (lambda: Laplace(tokens="sum"), "tokens = 'sum': expected one of expand, reduce"),
        (lambda: Laplace(prior_precision=2.0), "prior_precision = 2.0: expected one of prior, marginal_likelihood"),
        (lambda: Laplace(precision_by="head"), "precision_by = 'head': expected one of net, layer, site"),
        (lambda: Laplace(precision_by="site"), "precision_by = 'site': expected nothing here: .* marginal_likelihood"),
        (lambda: Laplace(tokens="reduce", structure="full"), "tokens = 'reduce': .* it belongs to structure kronecker"),
        (lambda: Laplace(fisher_samples=5), "fisher_samples = 5: .* it belongs to hessian fisher"),
        (lambda: Laplace(max_size=9, structure="diagonal"), "max_size = 9: .* structure kronecker or full"),
        (lambda: Laplace(temperature=0.0), "temperature = 0.0: expected a number above 0"),
        (lambda: Laplace(prediction="mean"), "prediction = 'mean': expected one of linearized, sampled"),
        (lambda: Laplace(link="logit"), "link = 'logit': expected one of monte_carlo, probit"),
        (lambda: Laplace(link="probit", prediction="sampled"), "link = 'probit': expected monte_carlo with prediction"),
        (lambda: Laplace(max_size=0), "max_size = 0"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(SettingError, match=message):
        make()


def test_guides_are_refused():
    with pytest.raises(SettingError, match="expected none: Laplace would ignore it"):
        Laplace().run(model(), MeanField(), None)
    assert not Laplace().needs_guide and isinstance(Laplace().starts_from, MAP)
    assert DeepEnsemble(member=Laplace()).refusal(model(StudentT())) == Laplace().refusal(model(StudentT()))
