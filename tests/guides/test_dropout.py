"""Dropout as a posterior: what is drawn, the KL summed over all masks, masks for every sequence, rates at the ends."""

import copy
import itertools
import math

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import nn

from pyroformer.guides import ConcreteDropout, Delta, Guide, MCDropout, MeanField, count_parameters
from pyroformer.guides.estimators import PerSequence
from pyroformer.inference import SVI, Data, OnePassELBO, Posterior
from pyroformer.models import BayesianModel, Categorical, Features, Gaussian, Linear, Output, Tokens, Transformer
from pyroformer.models.likelihoods import Undrawn
from pyroformer.models.transformer import Backbone
from pyroformer.priors import Hierarchical, Improper, Laplace, Normal, SettingError, Uniform

B, T, D, E = 3, 4, 5, 2
X = torch.randn(B, T, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.zeros(B, T, dtype=torch.long)
FAMILIES = [MCDropout(rate=0.3), ConcreteDropout(rate=0.3)]
IDS = ["mc", "concrete"]


class OneLayer(Backbone):
    def __init__(self):
        super().__init__()
        self.map = Linear(D, E)

    def forward(self, x):
        return self.map(x)


def guided(family, prior=None, dtype=torch.float64):
    torch.manual_seed(0)
    model = BayesianModel(OneLayer(), prior or Normal(scale=0.7), Categorical(per_token=True)).to(dtype)
    return model, Guide(model, family, (X[:2].to(dtype),))


def masks(rate):
    """Every mask of zeros and ones with its probability."""
    for z in itertools.product((0.0, 1.0), repeat=D):
        kept = sum(z)
        yield torch.tensor(z).double(), (1 - rate) ** kept * rate ** (D - kept)


def kl_by_hand(guide, rate, log_prior, scaled=True):
    """Minus the mean log-prior over all masks, less the entropy of the masks."""
    weight, bias = (guide.families[0].points.values[index].detach() for index in ("0", "1"))
    expected, entropy = log_prior(bias), 0.0
    for z, probability in masks(rate):
        expected += probability * log_prior(weight * z / (1 - rate if scaled else 1.0))
        entropy -= probability * math.log(probability)
    return -expected - entropy


def kl_of(guide, draws=1, **settings):
    torch.manual_seed(0)
    return torch.stack([OnePassELBO(**settings).terms(guide, X, Y).kl.detach() for _ in range(draws)])


@pytest.mark.parametrize("family", FAMILIES, ids=IDS)
class TestKL:
    def test_to_a_normal_prior_it_is_the_sum_over_all_masks(self, family):
        _, guide = guided(family)
        normal = torch.distributions.Normal(0.0, torch.tensor(0.7).double())

        def log_prior(w):
            return normal.log_prob(w).sum()

        for settings in ({}, {"num_particles": 3}, {"temperature": 0.5}, {"estimator": "flipout"}):
            torch.testing.assert_close(kl_of(guide, **settings)[0], kl_by_hand(guide, 0.3, log_prior))
        planted = kl_by_hand(guide, 0.3, log_prior, scaled=False)
        assert not torch.allclose(kl_of(guide)[0], planted)
        entropy = OnePassELBO(temperature=0.5).terms(guide, X, Y).entropy
        assert entropy.item() == pytest.approx(-D * (0.3 * math.log(0.3) + 0.7 * math.log(0.7)))

    def test_the_gradient_with_regard_to_the_matrix_is_weight_decay(self, family):
        _, guide = guided(family)
        weight = guide.families[0].points.values["0"]
        (slope,) = torch.autograd.grad(OnePassELBO().terms(guide, X, Y).kl, weight)
        torch.testing.assert_close(slope, weight.detach() / (0.7**2 * (1 - 0.3)))

    def test_to_a_flat_prior_it_is_minus_the_entropy(self, family):
        _, guide = guided(family, Improper())
        assert kl_of(guide).item() == pytest.approx(D * (0.3 * math.log(0.3) + 0.7 * math.log(0.7)))

    def test_a_shared_scale_of_the_prior_is_heard(self, family):
        """The centred form: the prior of the weight is another in every particle."""
        model, _ = guided(family)
        model = BayesianModel(model.net, Hierarchical(centered=True), Categorical(per_token=True)).double()
        guide = Guide(model, {"*_scale": MeanField(init_scale=0.5), "*": family}, (X[:2],))
        assert torch.isfinite(kl_of(guide, num_particles=4)).all()


def test_other_priors_are_estimated_without_bias(standard_errors):
    _, guide = guided(MCDropout(rate=0.3), Laplace(scale=0.7))
    laplace = torch.distributions.Laplace(0.0, torch.tensor(0.7).double())
    exact = kl_by_hand(guide, 0.3, lambda w: laplace.log_prob(w).sum())
    drawn = kl_of(guide, 300)
    assert standard_errors(drawn, exact) < 5
    assert standard_errors(drawn, exact - 0.6) > 5  # planted


@pytest.mark.parametrize("family", [MCDropout(rate=0.3), ConcreteDropout(rate=0.3, temperature=1e-3)], ids=IDS)
def test_stock_svi_optimises_the_same_bound(family):
    """The density of a draw is minus the entropy of the masks."""
    model, guide = guided(family)
    torch.manual_seed(0)
    with torch.no_grad(), pyro.validation_enabled(False):
        ours = torch.tensor([OnePassELBO().loss(model, guide, X, Y) for _ in range(250)])
        stock = torch.tensor([Trace_ELBO().loss(model, guide, X, Y) for _ in range(250)])
    error = ((ours.var() + stock.var()) / 250).sqrt()
    entropy = -D * (0.3 * math.log(0.3) + 0.7 * math.log(0.7))
    assert abs(ours.mean() - stock.mean()) < 5 * error
    assert abs(ours.mean() - stock.mean() - entropy) > 5 * error  # planted: without the entropy


class TestDraws:
    def test_inputs_are_dropped_and_points_stay(self):
        _, guide = guided(MCDropout(rate=0.3))
        draws = guide.draw(4000, X[:2])
        weight, bias = (guide.families[0].points.values[index].detach() for index in ("0", "1"))
        assert torch.equal(draws["map.bias"], bias.expand(4000, E))
        factor = draws["map.weight"] / weight
        assert torch.equal(factor[:, 0], factor[:, 1])  # an input is dropped for all units
        kept = factor[:, 0]
        torch.testing.assert_close(kept.unique(), torch.tensor([0.0, 1 / 0.7]).double())
        share = (kept == 0).double().mean(0)
        assert ((share - 0.3).abs() / math.sqrt(0.21 / 4000)).max() < 5
        assert ((share - 0.4).abs() / math.sqrt(0.21 / 4000)).min() > 5  # planted
        assert torch.corrcoef(kept.T).fill_diagonal_(0).abs().max() < 5 / math.sqrt(4000)

    def test_relaxed_masks_have_the_moments_of_their_distribution(self, standard_errors):
        _, guide = guided(ConcreteDropout(rate=0.3, temperature=0.5))
        family = guide.families[0]
        u = (torch.arange(20_000).double() + 0.5) / 20_000
        exact = torch.sigmoid(-(torch.tensor(0.3).double().logit() + u.logit()) / 0.5)
        torch.manual_seed(0)
        z = family.kept("map.weight", torch.Size([20_000])).detach()
        assert standard_errors(z, exact.mean()) < 5 and standard_errors(z.square(), exact.square().mean()) < 5
        assert standard_errors(z, 0.7) > 5  # planted: the moments of a hard mask
        hard = ConcreteDropout(rate=0.3, temperature=1e-3)
        _, guide = guided(hard)
        z = guide.families[0].kept("map.weight", torch.Size([20_000])).detach()
        assert standard_errors(z, 0.7) < 5 and ((z < 0.01) | (z > 0.99)).double().mean() > 0.99

    @pytest.mark.parametrize("family", FAMILIES, ids=IDS)
    def test_draws_are_functions(self, family):
        """An example is predicted the same whatever stands beside it."""
        torch.manual_seed(0)
        net = Transformer(Features(2, copies=2), Output(1), width=4, heads=2, depth=1)
        x = torch.randn(6, 2)
        driver = SVI(epochs=1, batch_size=3, estimator="flipout")
        posterior = driver.run(BayesianModel(net, Normal(), Gaussian()), family, Data(x, x[:, :1]))
        torch.testing.assert_close(posterior.outputs(x, 5)[:, 2:3], posterior.outputs(x[2:3], 5))


def exact_covariance(weight, rate, together):
    """Of the outputs ``[B, T, E]`` under hard masks, for all pairs."""
    covariance = rate / (1 - rate) * torch.einsum("btd,ed,cud,fd->btecuf", X, weight, X, weight)
    same = torch.eye(B, dtype=torch.float64).view(B, 1, 1, B, 1, 1)
    return covariance if together else covariance * same


@pytest.mark.parametrize("estimator", ["shared", "flipout", "local_reparameterization"])
def test_masks_are_shared_by_tokens_and_by_sequences_only_if_asked(estimator):
    model, guide = guided(MCDropout(rate=0.3))
    weight, bias = (guide.families[0].points.values[index].detach() for index in ("0", "1"))
    torch.manual_seed(1)
    with torch.no_grad(), poutine.block(), pyro.plate("particles", 4000, dim=-2), guide:
        if estimator == "shared":
            y = model(X)
        else:
            with PerSequence(guide, estimator) as replacing, Undrawn():
                y = model(X)
            assert replacing.used == {"map.weight": "masks"}
    y = (y - X @ weight.mT - bias).flatten(1)
    products = y.unsqueeze(-1) * y.unsqueeze(-2)

    def distance(together):
        exact = exact_covariance(weight, 0.3, together).reshape(B * T * E, B * T * E)
        return ((products.mean(0) - exact) / (products.std(0) / len(y) ** 0.5)).abs().max()

    assert (y.mean(0) / (y.std(0) / len(y) ** 0.5)).abs().max() < 5
    assert distance(estimator == "shared") < 5
    assert distance(estimator != "shared") > 5  # planted


class TestRatesAtTheEnds:
    @pytest.mark.parametrize("logit", [-1e4, -50.0, 50.0, 1e4])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_everything_is_finite(self, logit, dtype):
        _, guide = guided(ConcreteDropout(), dtype=dtype)
        with torch.no_grad():
            guide.families[0].logits["0"].fill_(logit)
        for estimator in ("shared", "flipout"):
            loss = OnePassELBO(estimator=estimator).terms(guide, X.to(dtype), Y).elbo
            slopes = torch.autograd.grad(loss, list(guide.parameters()))
            assert torch.isfinite(loss) and all(torch.isfinite(slope).all() for slope in slopes)
        assert guide.summary()["concrete_dropout"]["rate"]["map.weight"] == (0.0001 if logit < 0 else 0.9999)

    def test_a_rate_at_an_end_comes_back(self):
        """Without data and with a flat prior the entropy alone speaks: the rate goes to 1/2."""
        _, guide = guided(ConcreteDropout(), Improper(), torch.float32)
        logit = guide.families[0].logits["0"]
        with torch.no_grad():
            logit.fill_(9.0)
        optimizer = torch.optim.Adam([logit], lr=0.1)
        for _ in range(250):
            optimizer.zero_grad()
            OnePassELBO().terms(guide, X.float(), Y).kl.backward()
            optimizer.step()
        assert guide.families[0].rate_of("map.weight").item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("family", FAMILIES, ids=IDS)
class TestSites:
    def test_tables_gains_and_biases_are_points(self, family):
        torch.manual_seed(0)
        tokens = torch.randint(6, (3, 4))
        net = Transformer(Tokens(6, 4), Output(3), width=4, heads=2, depth=1)
        guide = Guide(BayesianModel(net, Normal()), family, (tokens,))
        assert set(guide.families[0].rates) == {f"blocks.0.{layer}.weight" for layer in (
            "attention.query", "attention.key", "attention.value", "attention.output", "mlp.up", "mlp.down")
        } | {"head.weight"}  # fmt: skip
        draws = guide.draw(3, tokens)
        moved = {name for name, value in draws.items() if not torch.equal(value[0], value[1])}
        assert moved <= set(guide.families[0].rates) and moved

    def test_matrices_of_torchs_layers_are_dropped_too(self, family):
        model = BayesianModel(nn.Sequential(nn.Linear(D, 4), nn.Tanh(), nn.Linear(4, 1)), Normal(), Gaussian())
        guide = Guide(model, family, (torch.zeros(2, D),))
        assert set(guide.families[0].rates) == {"0.weight", "2.weight"}

    def test_bounded_weights_are_points(self, family):
        net = nn.Sequential(nn.Linear(D, 4), nn.Linear(4, 1))
        model = BayesianModel(net, {"0.*": Uniform(scale=2.0), "*": Normal()})
        guide = Guide(model, family, (torch.zeros(2, D),))
        assert set(guide.families[0].rates) == {"1.weight"}

    def test_without_a_matrix_it_is_refused(self, family):
        model, _ = guided(Delta())
        with pytest.raises(SettingError, match=r"dropout': expected a weight matrix .* none of map\.bias is one"):
            Guide(model, {"*.bias": copy.deepcopy(family), "*": Delta()}, (X[:2],))

    def test_parameters_are_counted_by_site(self, family):
        _, guide = guided(family)
        counts = count_parameters(guide, X[:2])
        rates = len(getattr(guide.families[0], "logits", ()))
        assert counts.own == {"map.weight": D * E + rates, "map.bias": E} and counts.shared == ()

    def test_a_fit_is_saved_and_loaded(self, family, tmp_path):
        def model():
            torch.manual_seed(0)
            net = Transformer(Features(2, copies=2), Output(1), width=4, heads=2, depth=1)
            return BayesianModel(net, Normal(), Gaussian())

        x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
        driver = SVI(epochs=3, batch_size=4, particles=2, estimator="flipout")
        posterior = driver.run(model(), family, Data(x, x[:, :1]))
        told = posterior.info["estimator"]
        assert "head.weight" in told["masks"] and {"head.bias", "position"} < set(told["shared"])
        posterior.save(tmp_path / "posterior")
        again = Posterior.load(tmp_path / "posterior", model())
        assert torch.equal(again.predict(x, 6).loc, posterior.predict(x, 6).loc)
        assert again.predict(x, 6).loc.std(0).max() > 0
        fresh = SVI(epochs=1, batch_size=4).run(model(), family, Data(x, x[:, :1]))
        assert not torch.equal(fresh.predict(x, 6).loc, posterior.predict(x, 6).loc)  # planted


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        (MCDropout, {"rate": 0.0}, "rate = 0.0: expected a share of the inputs, above 0 and below 1"),
        (MCDropout, {"rate": 1.0}, "rate = 1.0"),
        (
            ConcreteDropout,
            {"rate": 1e-5},
            "rate = 1e-05: expected a share of the inputs, above 0.0001 and below 0.9999",
        ),
        (ConcreteDropout, {"temperature": 0.0}, "temperature = 0.0: expected a number above 0"),
    ],
)
def test_settings_are_checked(family, settings, message):
    with pytest.raises(SettingError, match=message):
        family(**settings)


def test_rates_start_where_they_are_told():
    _, guide = guided(ConcreteDropout(rate=0.2))
    assert guide.summary() == {"concrete_dropout": {"rate": {"map.weight": 0.2}}}
