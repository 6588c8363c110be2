"""Hierarchical priors in a model: sites, joint density, starts, shared and learned hyperparameters."""

import copy
import math
import pickle
from dataclasses import dataclass, replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoNormal, init_to_value
from scipy import stats
from torch import nn

from pyroformer.guides import Guide, MeanField
from pyroformer.inference import MAP, Data
from pyroformer.models import BayesianModel, Gaussian, sample_sites
from pyroformer.priors import DirichletRows as PriorRows
from pyroformer.priors import (
    EmpiricalBayes,
    Gamma,
    HalfCauchy,
    Hierarchical,
    HierarchicalPrior,
    Laplace,
    Learned,
    Mixture,
    Normal,
    SettingError,
    Site,
    SoftmaxCenter,
    StudentT,
    Uniform,
    UniformScale,
)

FIVE_SIGMA = 2 * stats.norm.sf(5)
Y = torch.tensor([0, 2, 1, 1])
FORMS = pytest.mark.parametrize("centered", [False, True], ids=["non-centred", "centred"])


def traced(model, *args):
    return poutine.trace(model).get_trace(*args).nodes


def test_names_and_shapes_of_both_forms(net, x):
    prior = {"head.*": Hierarchical(centered=True), "position": Normal(), "*": Hierarchical()}
    model = BayesianModel(net, prior)
    nodes = {n: node for n, node in traced(model, x, Y).items() if node["type"] == "sample"}
    latent = {name for name, node in nodes.items() if not node["is_observed"]} - {"data"}
    weights = [name for name, _ in net.named_parameters()]
    expected = {"position", "head.weight", "head.bias", "head.weight_scale", "head.bias_scale"}
    for name in weights:
        if name not in expected:
            expected |= {f"{name}_scale", f"{name}_standard"}
    assert latent == expected == set(model.initial_values()) == set(sample_sites(model))
    assert list(model.sites) == weights and set(model.hyper_sites) == {n for n in expected if n.endswith("_scale")}
    for name, value in net.named_parameters():
        assert nodes[name]["value"].shape == value.shape  # a deterministic one, where it is not drawn
    order = list(nodes)
    assert max(map(order.index, model.hyper_sites)) < min(order.index(n) for n in latent - set(model.hyper_sites))
    assert all(not nodes[name]["cond_indep_stack"] for name in latent)


def density_by_hand(nodes, model, centered, tau_of_itself=True):
    """Half-Cauchy(0.5) factors on t priors with 4 degrees of freedom and scale 0.3."""
    total = 0.0
    for name, site in model.sites.items():
        tau = nodes[f"{name}_scale"]["value"].item()
        total += math.log(2 / (math.pi * 0.5 * (1 + (tau / 0.5) ** 2)))
        values = nodes[name if centered else f"{name}_standard"]["value"]
        scale, center = (0.3 * tau, site.center) if centered else (0.3, 0.0)
        if not tau_of_itself:
            scale = 0.3
        front = math.lgamma(2.5) - math.lgamma(2.0) - 0.5 * math.log(4 * math.pi) - math.log(scale)
        for v in values.flatten().tolist():
            total += front - 2.5 * math.log1p(((v - center) / scale) ** 2 / 4)
    return total


@FORMS
def test_the_joint_density_is_the_sum_by_hand(net, x, centered):
    prior = Hierarchical(prior=StudentT(df=4, scale=0.3), hyperprior=HalfCauchy(scale=0.5), centered=centered)
    model = BayesianModel(net, prior)
    trace = poutine.trace(model).get_trace(x, Y, 12)
    nodes = trace.nodes
    weights = {name: nodes[name]["value"] for name in model.sites}
    for name, site in model.sites.items():
        if not centered:
            scaled = nodes[f"{name}_scale"]["value"] * nodes[f"{name}_standard"]["value"]
            torch.testing.assert_close(weights[name], site.center + scaled)
    likelihood = -nn.functional.cross_entropy(torch.func.functional_call(net, weights, x), Y, reduction="sum").item()
    found = trace.log_prob_sum().item()
    assert found == pytest.approx(density_by_hand(nodes, model, centered) + 3 * likelihood, rel=1e-9)
    planted = density_by_hand(nodes, model, centered) + likelihood  # the batch not scaled up
    assert found != pytest.approx(planted, rel=1e-6)
    if centered:
        planted = density_by_hand(nodes, model, centered, tau_of_itself=False) + 3 * likelihood
        assert found != pytest.approx(planted, rel=1e-6)


@pytest.mark.parametrize("prior", [Normal(scale=0.5), Laplace(), Mixture()], ids=lambda prior: type(prior).__name__)
def test_both_forms_have_the_same_marginal(prior):
    def draws(centered, hyperprior=None):
        torch.manual_seed(int(centered))
        choice = Hierarchical(prior=prior, hyperprior=hyperprior or Gamma(), centered=centered)
        model = BayesianModel(nn.LayerNorm(2), choice, Gaussian()).double()
        found = Predictive(model, num_samples=4000, parallel=True, return_sites=["weight"])(torch.zeros(1, 2).double())
        return found["weight"][..., 0].flatten().numpy()

    centred = draws(True)
    assert stats.ks_2samp(centred, draws(False)).pvalue > FIVE_SIGMA
    assert abs(float(torch.tensor(centred).median()) - 1) < 0.1  # the gain of a normalisation is centred at 1
    planted = draws(False, Gamma(concentration=4.0, rate=2.0))
    assert stats.ks_2samp(centred, planted).pvalue < FIVE_SIGMA


@FORMS
@pytest.mark.parametrize("parallel", [False, True], ids=["loop", "parallel"])
def test_predictive_draws_the_weights_that_the_net_uses(net, x, centered, parallel):
    model = BayesianModel(net, Hierarchical(centered=centered))
    sites = ["_RETURN", *model.sites, *sample_sites(model)]
    found = Predictive(model, num_samples=3, parallel=parallel, return_sites=sites)(x)
    weights = {name: found[name].reshape(3, *site.value.shape) for name, site in model.sites.items()}
    loop = [torch.func.functional_call(net, {n: w[s] for n, w in weights.items()}, x) for s in range(3)]
    torch.testing.assert_close(found["_RETURN"], torch.stack(loop))
    draws = {name: found[name].reshape(3, *site.shape) for name, site in sample_sites(model).items()}
    for name, value in model.weights(draws).items():
        torch.testing.assert_close(value, weights[name])
    again = Predictive(model, posterior_samples=draws, parallel=parallel, return_sites=["_RETURN"])(x)["_RETURN"]
    torch.testing.assert_close(again, found["_RETURN"])
    assert not torch.allclose(again, found["_RETURN"].roll(1, 0), rtol=1e-2)  # planted


@FORMS
@pytest.mark.parametrize("prior", [Normal(), Laplace()], ids=lambda prior: type(prior).__name__)
def test_a_stock_autoguide_learns_under_vectorized_particles(net, x, centered, prior):
    """Its sites are nested attributes: a hyper-site named below its weight would not be stored."""
    model = BayesianModel(net, Hierarchical(prior=prior, centered=centered))
    guide = AutoNormal(model, init_loc_fn=init_to_value(values=model.initial_values()), init_scale=0.02)
    objective = Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1)

    def losses(rate):
        svi = SVI(model, guide, pyro.optim.Adam({"lr": rate}), objective)
        return [svi.step(x, Y) for _ in range(12)]

    still, moving = losses(0.0), losses(0.03)
    assert sum(moving[-4:]) < 0.97 * sum(moving[:4])
    assert not sum(still[-4:]) < 0.97 * sum(still[:4])  # planted: no steps
    assert set(guide.median(x)) == set(sample_sites(model))


@FORMS
@pytest.mark.parametrize("hyperprior", [HalfCauchy(scale=0.3), Gamma(), UniformScale(low=2.0)], ids=str)
def test_it_starts_at_the_weights_of_the_net(net, x, centered, hyperprior):
    model = BayesianModel(net, Hierarchical(hyperprior=hyperprior, centered=centered))
    start = model.initial_values()
    assert all(start[f"{name}_scale"] == hyperprior.start(torch.zeros((), dtype=torch.float64)) for name in model.sites)
    torch.testing.assert_close(poutine.condition(model, data=start)(x), net(x))
    assert torch.isfinite(poutine.trace(poutine.condition(model, data=start)).get_trace(x, Y).log_prob_sum())


@FORMS
def test_starts_can_be_set_and_begin_again_with_the_net(net, x, centered):
    model = BayesianModel(net, Hierarchical(centered=centered))
    wanted = {name: value + 0.25 for name, value in model.initial_values().items()}
    model.set_initial_values(wanted)
    found = model.initial_values()
    assert all(torch.allclose(found[name], wanted[name]) for name in wanted)
    other = BayesianModel(net, Hierarchical(centered=centered))
    other.set_initial_values({"head.bias": torch.full((3,), 2.0), "head.bias_scale": torch.tensor(4.0)})
    start = other.initial_values()
    assert (
        start["head.bias_scale"] == 4
        and (start["head.bias" if centered else "head.bias_standard"] == (2, 0.5)[not centered]).all()
    )
    fresh = model.reinitialized(3)
    assert all(fresh.initial_values()[f"{name}_scale"] == 1 for name in fresh.sites)
    torch.testing.assert_close(poutine.condition(fresh, data=fresh.initial_values())(x), fresh.net(x))
    assert not torch.allclose(fresh.net.head.weight, net.head.weight)


@pytest.mark.parametrize("centered", [False, True])
def test_it_can_be_copied_and_changes_its_dtype(net, x, centered):
    model = BayesianModel(net.float(), Hierarchical(prior=Laplace(), centered=centered))
    model(x.float())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.manual_seed(1)
        expected = model.float()(x.float())
        torch.manual_seed(1)
        assert torch.equal(other(x.float()), expected)
    assert {v.dtype for v in model.double().initial_values().values()} == {torch.float64}
    nodes = traced(model, x)
    assert {nodes[name]["value"].dtype for name in sample_sites(model)} == {torch.float64}


def test_bounded_priors_start_inside():
    net = nn.Linear(3, 2).double()
    nn.init.constant_(net.weight, 0.5)
    nn.init.constant_(net.bias, -4.0)
    start = BayesianModel(net, Uniform()).initial_values()
    assert (start["weight"] == 0.5).all() and (start["bias"] == -0.98).all()
    start = BayesianModel(net, Hierarchical(prior=Uniform(), hyperprior=HalfCauchy(scale=2.0))).initial_values()
    assert (start["weight_standard"] == 0.25).all() and (start["bias_standard"] == -0.98).all()
    function = BayesianModel(net, lambda name, p: dist.HalfNormal(torch.ones_like(p))).initial_values()
    assert (function["weight"] == 0.5).all() and (function["bias"] == 0.01).all()


@pytest.mark.parametrize(
    ("build", "key", "accepted"),
    [
        (lambda: Hierarchical(prior=Learned()), "prior", "a prior with a scale"),
        (lambda: Hierarchical(hyperprior=Normal()), "hyperprior", "a prior over scales"),
        (lambda: Hierarchical(centered=1), "centered", "true or false"),
        (lambda: Hierarchical(prior=Uniform(), centered=True), "centered", "the support of Uniform moves"),
    ],
)
def test_wrong_settings(build, key, accepted):
    with pytest.raises(SettingError) as caught:
        build()
    assert caught.value.key == key and accepted in caught.value.expected


def test_the_listing_says_what_every_site_is(net):
    rows = PriorRows(center=SoftmaxCenter())
    prior = {"head.*": Hierarchical(centered=True), "position": Normal(), "*.rows": rows, "*": Hierarchical()}
    model = BayesianModel(net, prior, Gaussian(noise="random"))
    found = sample_sites(model)
    standard = found["blocks.0.mlp.up.weight_standard"]
    assert standard.role == "standard" and standard.shape == (16, 8) and standard.weights == ("blocks.0.mlp.up.weight",)
    scale = found["blocks.0.mlp.up.weight_scale"]
    assert scale.role == "hyper" and scale.shape == () and scale.choice is prior["*"]
    assert scale.weights == standard.weights and isinstance(scale.distribution, dist.HalfCauchy)
    assert found["head.bias"].role == "weight" and found["head.bias"].choice is prior["head.*"]
    assert found["position"].role == "weight" and found["position"].distribution.event_shape == (5, 8)
    assert found["noise_scale"].role == "likelihood" and found["noise_scale"].shape == ()
    rows = found["blocks.0.attention.rows"]
    assert rows.role == "rows" and rows.shape is None and rows.choice is prior["*.rows"]
    assert list(found)[-1] == "blocks.0.attention.rows" and {site.name for site in found.values()} == set(found)


@dataclass(frozen=True, kw_only=True)
class Horseshoe(HierarchicalPrior):
    """A scale of all weights together times one of each entry."""

    def hyper_sites(self, site):
        one = site.value.new_ones(())
        own = dist.HalfCauchy(torch.ones_like(site.value)).to_event(site.value.dim())
        return {"global_scale": dist.HalfCauchy(0.1 * one), f"{site.name}_local": own}

    def start(self, site):
        return {"global_scale": site.value.new_tensor(0.1), f"{site.name}_local": torch.ones_like(site.value)}

    def distribution(self, site, hypers):
        shared = hypers["global_scale"]
        shared = shared.reshape(shared.shape + (1,) * site.value.dim())
        return Normal().distribution(replace(site, scale=shared * hypers[f"{site.name}_local"]))


def test_a_hyper_site_may_be_shared_and_another_as_large_as_the_weight(net, x):
    model = BayesianModel(net, Horseshoe())
    trace = poutine.trace(model).get_trace(x, Y)
    nodes, shared = trace.nodes, trace.nodes["global_scale"]["value"].item()
    total = math.log(2 / (math.pi * 0.1 * (1 + (shared / 0.1) ** 2)))  # once
    for name, site in model.sites.items():
        local = nodes[f"{name}_local"]["value"]
        assert local.shape == site.value.shape
        for w, own in zip(nodes[name]["value"].flatten().tolist(), local.flatten().tolist(), strict=True):
            total += math.log(2 / (math.pi * (1 + own**2)))
            total += -0.5 * ((w - site.center) / (shared * own)) ** 2 - math.log(shared * own * math.sqrt(2 * math.pi))
    assert trace.log_prob_sum().item() - nodes["obs"]["log_prob_sum"].item() == pytest.approx(total, rel=1e-9)
    listed = sample_sites(model)["global_scale"]
    assert listed.weights == tuple(model.sites) and listed.role == "hyper"
    sites = [*model.sites, "global_scale", "_RETURN"]
    found = Predictive(model, num_samples=3, parallel=True, return_sites=sites)(x)
    assert found["_RETURN"].shape == (3, 4, 3) and found["global_scale"].numel() == 3
    guide = Guide(model, MeanField(), (x,))
    assert guide.draw(2, x)["head.weight_local"].shape == (2, 3, 8)


@dataclass(frozen=True, kw_only=True)
class Empirical(HierarchicalPrior):
    """The scale is a number that is trained."""

    def hyper_sites(self, site):
        return {}

    def start(self, site):
        return {}

    def learned(self, site):
        return {f"{site.name}_log_scale": site.value.new_zeros(())}

    def distribution(self, site, hypers):
        return Normal().distribution(replace(site, scale=hypers[f"{site.name}_log_scale"].exp()))


def test_a_hyperparameter_may_be_learned():
    """The maximum over scale and weights together is bounded here by noise that keeps the weights away from 0."""
    torch.manual_seed(0)
    x = torch.randn(64, 3)
    y = x @ torch.tensor([[2.0], [-2.0], [2.0]])
    model = BayesianModel(nn.Linear(3, 1, bias=False), Empirical(), Gaussian(scale=0.1))
    assert list(model.learned) == ["weight_priors.weight_log_scale"] and model.hyper_sites == {}
    posterior = MAP(epochs=150, batch_size=64, learning_rate=0.05, schedule="constant").run(model, None, Data(x, y))
    found = posterior.model.learned["weight_priors.weight_log_scale"].exp().item()
    rms = posterior.draw(1)["weight"].square().mean().sqrt().item()
    assert found == pytest.approx(rms, rel=0.02) and found == pytest.approx(2.0, rel=0.02)
    assert abs(1.0 - rms) > 0.5  # planted: the scale where it started
    fresh = posterior.model.reinitialized(1)
    assert fresh.learned["weight_priors.weight_log_scale"] == 0
    saved = posterior.model.state_dict()
    assert saved["weight_priors.weight_log_scale"] == math.log(found) or math.isclose(
        saved["weight_priors.weight_log_scale"].item(), math.log(found), rel_tol=1e-5
    )


@dataclass(frozen=True, kw_only=True)
class Clashing(Hierarchical):
    def hyper_sites(self, site):
        return {"bias": HalfCauchy().distribution(torch.zeros(()))}


def test_a_hyper_site_with_the_name_of_a_parameter_is_refused():
    with pytest.raises(SettingError, match=r"prior = 'bias'.*a parameter of the net has that of the prior of weight"):
        BayesianModel(nn.Linear(2, 1), {"weight": Clashing(), "*": Normal()})
    BayesianModel(nn.Linear(2, 1, bias=False), {"weight": Clashing()})  # planted: no parameter of that name


@dataclass(frozen=True, kw_only=True)
class Shared(Hierarchical):
    """One scale for all weights, with a name and a start of one's own."""

    called: str = "tau"
    at: float = 1.0

    def hyper_sites(self, site):
        return {self.called: self.hyperprior.distribution(torch.zeros(()))}

    def start(self, site):
        return {self.called: torch.tensor(self.at)}

    def factor(self, site, hypers):
        return hypers[self.called].reshape(hypers[self.called].shape + (1,) * site.value.dim())


def test_a_hyper_site_with_a_name_of_the_likelihood_is_refused():
    prior = {"weight": Shared(called="noise_scale"), "*": Normal()}
    with pytest.raises(SettingError, match=r"prior = 'noise_scale'.*the likelihood has that of the prior of weight"):
        BayesianModel(nn.Linear(2, 1), prior, Gaussian(noise="random"))
    BayesianModel(nn.Linear(2, 1), prior, Gaussian(noise="fixed"))  # planted: a likelihood without that site


def test_weights_that_share_a_hyperparameter_must_agree():
    def model(weight, bias):
        return BayesianModel(nn.Linear(2, 1), {"weight": weight, "*": bias}, Gaussian())

    same = model(Shared(), Shared())
    assert list(same.hyper_sites) == ["tau"]
    with pytest.raises(SettingError, match=r"prior = 'tau'.*one distribution for all weights that share it"):
        model(Shared(), Shared(hyperprior=HalfCauchy(scale=2.0)))
    with pytest.raises(SettingError, match=r"prior = 'tau'.*one distribution"):
        model(Shared(), Shared(hyperprior=Gamma()))
    with pytest.raises(SettingError, match=r"prior = 'tau'.*one start for all weights that share it"):
        model(Shared(), Shared(at=2.0))
    assert list(model(EmpiricalBayes(group="g"), EmpiricalBayes(group="g")).learned) == ["weight_priors.g_log_scale"]
    with pytest.raises(SettingError, match=r"prior = 'g_log_scale'.*one start for all weights that"):
        model(EmpiricalBayes(group="g"), EmpiricalBayes(group="g", init=2.0))
    model(EmpiricalBayes(group="g"), EmpiricalBayes(group="h", init=2.0))  # planted: another group


def test_a_learned_parameter_is_known_by_its_own_name():
    prior = {"weight": EmpiricalBayes(group="g"), "*": Learned()}
    model = BayesianModel(nn.Linear(2, 1), prior, Gaussian(noise="learned"))
    assert {model.known_as(key) for key in model.learned} == {"bias", "g_log_scale", "likelihood.log_scale"}
    assert BayesianModel.known_as("weight_priors.head/weight_log_scale") == "head.weight_log_scale"


def test_the_prior_alone_can_be_asked():
    site = Site("w", torch.zeros(2, 3), fan_in=8, center=1.0)
    tau = {"w_scale": torch.tensor([[0.5], [2.0]])}
    centred = Hierarchical(prior=Normal(scaling="fan_in"), centered=True).distribution(site, tau)
    assert centred.batch_shape == (2, 1) and centred.event_shape == (2, 3)
    torch.testing.assert_close(centred.stddev[:, 0, 0, 0], torch.tensor([0.25, 1.0]))
    assert (centred.mean == 1).all()
    form = Hierarchical(prior=Normal(scaling="fan_in"))
    drawn = form.distribution(site, {})
    assert (drawn.mean == 0).all() and (drawn.stddev == 0.5).all() and not form.conditional
    weight = form.weight(site, torch.ones(2, 1, 2, 3), tau)
    assert weight.flatten(1).unique(dim=1).tolist() == [[1.5], [3.0]]
    torch.testing.assert_close(form.undo(site, weight, tau), torch.ones(2, 1, 2, 3))
