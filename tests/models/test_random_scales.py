"""Priors whose scale is multiplied by a random or a learned factor: joint densities by hand, marginals, evidence."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive
from scipy import stats
from torch import nn

from pyroformer.guides import Delta, Guide, MeanField
from pyroformer.inference import MAP, ML, NUTS, SVI, Data, Posterior
from pyroformer.models import BayesianModel, Gaussian, sample_sites
from pyroformer.models.sites import weight_sites
from pyroformer.priors import (
    ARD,
    EmpiricalBayes,
    HalfCauchy,
    Horseshoe,
    Normal,
    PrecisionGamma,
    SettingError,
    SpikeAndSlab,
    StudentT,
    Uniform,
)

FIVE_SIGMA = 2 * stats.norm.sf(5)
Y = torch.tensor([0, 2, 1, 1])
FORMS = pytest.mark.parametrize("centered", [False, True], ids=["non-centred", "centred"])


def half_cauchy(t, scale=1.0):
    return math.log(2 / (math.pi * scale * (1 + (t / scale) ** 2)))


def place(table, per, index):
    """Which scale an entry has: an index into the flat scales of its weight."""
    shape, at = index
    if per == "entry":
        return int(np.ravel_multi_index(at, shape)) if shape else 0
    if len(shape) == 1:
        return at[0] if per == "unit" else 0
    return at[0] if (per == "unit") != table else at[1]


def horseshoe(per, slab=None, slab_df=None, global_scale=1.0):
    def factors(name, table, value, nodes):
        tau, local = nodes[f"{name}_global"]["value"].item(), nodes[f"{name}_local"]["value"].flatten().tolist()
        log_p, square = half_cauchy(tau, global_scale) + sum(map(half_cauchy, local)), None if slab is None else slab**2
        if slab_df is not None:
            square = nodes[f"{name}_slab"]["value"].item()
            log_p += stats.invgamma(slab_df / 2, scale=slab_df * slab**2 / 2).logpdf(square)
        found = {}
        for at in np.ndindex(*value.shape):
            own = local[place(table, per, (value.shape, at))]
            if square is not None:
                own = math.sqrt(square * own**2 / (square + tau**2 * own**2))
            found[at] = tau * own
        return log_p, found

    return factors


def relevance(name, table, value, nodes):
    scales = nodes[f"{name}_relevance"]["value"].flatten().tolist()
    log_p = sum(stats.gamma(1.5, scale=1 / 0.8).logpdf(t**-2) + math.log(2 * t**-3) for t in scales)
    assert len(scales) == (1 if value.dim() == 1 else value.shape[0 if table else 1])
    return log_p, {at: scales[place(table, "input", (value.shape, at))] for at in np.ndindex(*value.shape)}


def gates(per):
    """The law of a gate by the density of the Concrete variable itself, and the Jacobian of its logit."""

    def factors(name, table, value, nodes):
        logits = nodes[f"{name}_logit"]["value"].flatten()
        gate = logits.sigmoid()
        law = torch.distributions.RelaxedBernoulli(torch.tensor(0.5).double(), torch.tensor(0.3).double())
        log_p = (law.log_prob(gate) + (gate * (1 - gate)).log()).sum().item()
        own = (0.05 + 0.95 * gate).tolist()
        return log_p, {at: own[place(table, per, (value.shape, at))] for at in np.ndindex(*value.shape)}

    return factors


def learned(factor):
    return lambda name, table, value, nodes: (0.0, dict.fromkeys(np.ndindex(*value.shape), factor))


# the prior's settings, and by hand the log-density of its hyper-sites and the factor of every entry
CASES = {
    "horseshoe": (Horseshoe, {}, horseshoe("entry")),
    "horseshoe by input": (Horseshoe, {"per": "input", "global_scale": 0.2}, horseshoe("input", global_scale=0.2)),
    "horseshoe by unit": (Horseshoe, {"per": "unit", "slab": 2.0}, horseshoe("unit", 2.0)),
    "regularised horseshoe": (Horseshoe, {"slab": 1.5, "slab_df": 4.0}, horseshoe("entry", 1.5, 4.0)),
    "ard": (ARD, {"hyperprior": PrecisionGamma(concentration=1.5, rate=0.8)}, relevance),
    "gates": (SpikeAndSlab, {"temperature": 0.5, "inclusion": 0.3, "spike": 0.05}, gates("entry")),
    "gates by input": (
        SpikeAndSlab,
        {"temperature": 0.5, "inclusion": 0.3, "spike": 0.05, "per": "input"},
        gates("input"),
    ),
    "empirical bayes": (EmpiricalBayes, {"init": 0.7}, learned(0.7)),
    "empirical bayes of a group": (EmpiricalBayes, {"init": 2.0, "group": "all"}, learned(2.0)),
}
EACH = pytest.mark.parametrize("case", CASES)
TABLES = ("position",)


def by_hand(model, nodes, factors, centered):
    total = 0.0
    for name, site in model.sites.items():
        log_p, scales = factors(name, name in TABLES, site.value, nodes)
        total += log_p
        drawn, weight = nodes[name if centered else f"{name}_standard"]["value"], nodes[name]["value"]
        for at, factor in scales.items():
            z = (weight[at].item() - site.center) / factor
            if not centered:
                assert drawn[at].item() == pytest.approx(z, rel=1e-8)
            total += stats.norm.logpdf(z, scale=0.5) - (math.log(factor) if centered else 0.0)
    return total


@FORMS
@EACH
def test_the_joint_density_is_the_sum_by_hand(net, x, case, centered):
    cls, given, factors = CASES[case]
    model = BayesianModel(net, cls(prior=Normal(scale=0.5), centered=centered, **given))
    with torch.no_grad():
        trace = poutine.trace(model).get_trace(x, Y)
    nodes = trace.nodes
    prior = trace.log_prob_sum().item() - nodes["obs"]["log_prob_sum"].item()
    expected = by_hand(model, nodes, factors, centered)
    assert prior == pytest.approx(expected, rel=1e-8)
    nodes["head.bias" if centered else "head.bias_standard"]["value"] += 0.1  # planted
    if not centered:
        nodes["head.bias"]["value"] = model.weights({n: nodes[n]["value"] for n in sample_sites(model)})["head.bias"]
    assert prior != pytest.approx(by_hand(model, nodes, factors, centered), rel=1e-8)


@FORMS
@EACH
@pytest.mark.parametrize("parallel", [False, True], ids=["loop", "parallel"])
def test_predictive_draws_the_weights_that_the_net_uses(net, x, case, centered, parallel):
    cls, given, _ = CASES[case]
    model = BayesianModel(net, cls(centered=centered, **given))
    found = Predictive(model, num_samples=3, parallel=parallel, return_sites=["_RETURN", *model.sites])(x)
    weights = {name: found[name].reshape(3, *site.value.shape) for name, site in model.sites.items()}
    loop = torch.stack([torch.func.functional_call(net, {n: w[s] for n, w in weights.items()}, x) for s in range(3)])
    torch.testing.assert_close(found["_RETURN"], loop)
    assert not torch.allclose(found["_RETURN"], loop.roll(1, 0), rtol=1e-2)  # planted


@FORMS
@EACH
def test_it_starts_at_the_weights_of_the_net_and_can_be_copied(net, x, case, centered):
    cls, given, _ = CASES[case]
    model = BayesianModel(net, cls(centered=centered, **given))
    start = model.initial_values()
    assert set(start) == set(sample_sites(model))
    torch.testing.assert_close(poutine.condition(model, data=start)(x), net(x))
    with torch.no_grad():
        assert math.isfinite(poutine.trace(poutine.condition(model, data=start)).get_trace(x, Y).log_prob_sum())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.manual_seed(1)
        expected = model(x)
        torch.manual_seed(1)
        assert torch.equal(other(x), expected)
    assert {v.dtype for v in model.float().initial_values().values()} == {torch.float32}
    assert model(x.float()).dtype == torch.float32


@EACH
def test_a_guide_holds_every_hyper_site(net, x, case):
    cls, given, _ = CASES[case]
    model = BayesianModel(net, cls(**given))
    drawn = Guide(model, MeanField(), (x,)).draw(2, x)
    assert {n: v.shape[1:] for n, v in drawn.items()} == {n: s.shape for n, s in sample_sites(model).items()}


def draws_of(prior, number=4000):
    model = BayesianModel(nn.Linear(2, 3).double(), prior, Gaussian())
    torch.manual_seed(0)
    names = ["weight", "bias"]
    found = Predictive(model, num_samples=number, parallel=True, return_sites=names)(torch.zeros(1, 2).double())
    return found["weight"].reshape(number, 3, 2).numpy(), found["bias"].reshape(number, 3).numpy()


@FORMS
def test_entries_under_ard_follow_a_student_t(centered):
    """Scale sqrt(b/a) and 2a degrees of freedom; entries of one input share their size, of two inputs do not."""
    prior = ARD(prior=Normal(scale=0.5), hyperprior=PrecisionGamma(concentration=3.0, rate=1.2), centered=centered)
    weight, bias = draws_of(prior)
    law = stats.t(6, scale=0.5 * math.sqrt(1.2 / 3))
    for entry in (weight[:, 0, 0], weight[:, 2, 1], bias[:, 1]):
        assert stats.kstest(entry, law.cdf).pvalue > FIVE_SIGMA
        assert stats.kstest(entry, stats.t(6, scale=0.5).cdf).pvalue < FIVE_SIGMA  # planted: another scale
    sizes = np.log(np.abs(weight))
    error = 1 / math.sqrt(len(sizes))
    assert np.corrcoef(sizes[:, 0, 0], sizes[:, 1, 0])[0, 1] > 5 * error  # one column
    assert abs(np.corrcoef(sizes[:, 0, 0], sizes[:, 0, 1])[0, 1]) < 5 * error  # one row
    assert np.corrcoef(np.log(np.abs(bias[:, 0])), np.log(np.abs(bias[:, 1])))[0, 1] > 5 * error


@FORMS
@pytest.mark.parametrize("slab", [None, 0.5])
def test_entries_under_a_horseshoe_follow_their_law(centered, slab):
    weight, _ = draws_of(Horseshoe(prior=Normal(scale=0.7), global_scale=0.3, slab=slab, centered=centered))
    generator = np.random.default_rng(0)

    def oracle(global_scale):
        tau, local = np.abs(generator.standard_cauchy((2, 20_000)))
        scale, z = global_scale * tau * local, generator.standard_normal(20_000)
        return 0.7 * z * (scale if slab is None else scale * slab / np.hypot(slab, scale))

    assert stats.ks_2samp(weight[:, 1, 0], oracle(0.3)).pvalue > FIVE_SIGMA
    assert stats.ks_2samp(weight[:, 1, 0], oracle(0.6)).pvalue < FIVE_SIGMA  # planted: another global scale


@FORMS
def test_entries_under_gates_follow_their_law(centered):
    prior = SpikeAndSlab(prior=Normal(scale=0.7), inclusion=0.3, temperature=0.4, spike=0.05, centered=centered)
    weight, _ = draws_of(prior)

    def law(inclusion):
        """By the quantiles of the gate's logit: a sum over a fine grid of them."""
        u = (np.arange(800) + 0.5) / 800
        logit = (math.log(inclusion / (1 - inclusion)) + np.log(u / (1 - u))) / 0.4
        scale = 0.7 * (0.05 + 0.95 / (1 + np.exp(-logit)))
        return lambda x: stats.norm.cdf(np.asarray(x)[:, None], scale=scale).mean(-1)

    assert stats.kstest(weight[:, 1, 0], law(0.3)).pvalue > FIVE_SIGMA
    assert stats.kstest(weight[:, 1, 0], law(0.5)).pvalue < FIVE_SIGMA  # planted: more gates open


def test_gates_are_above_a_half_as_often_as_weights_are_included():
    model = BayesianModel(nn.Linear(50, 100), SpikeAndSlab(inclusion=0.2, temperature=0.3), Gaussian())
    torch.manual_seed(0)
    above = (model.hyper_sites["weight_logit"].sample() > 0).double().mean().item()
    error = math.sqrt(0.2 * 0.8 / 5000)
    assert abs(above - 0.2) < 5 * error and abs(above - 0.25) > 5 * error  # the second one planted


def test_tables_have_their_inputs_in_their_rows(net):
    sites = weight_sites(net)
    assert sites["position"].input_axis == 0 and sites["head.weight"].input_axis == 1
    shapes = {n: p.event_shape for n, p in BayesianModel(net, ARD()).hyper_sites.items()}
    assert shapes["position_relevance"] == (5,) and shapes["head.weight_relevance"] == (8,)
    assert shapes["head.bias_relevance"] == () and shapes["blocks.0.mlp.up.weight_relevance"] == (8,)
    shapes = {n: p.event_shape for n, p in BayesianModel(net, Horseshoe(per="unit")).hyper_sites.items()}
    assert shapes["position_local"] == (8,) and shapes["head.weight_local"] == shapes["head.bias_local"] == (3,)


class TestEmpiricalBayes:
    """Linear regression with orthogonal inputs, where mean field is exact and so is the bound on the evidence."""

    noise = 0.5

    @pytest.fixture
    def data(self):
        x = torch.linalg.qr(torch.randn(32, 6).double())[0] * 32**0.5
        return Data(x, x @ (0.4 * torch.randn(6, 1).double()) + self.noise * torch.randn(32, 1).double())

    def best(self, data, noise):
        """The scale of the highest evidence, on a grid."""
        tau = torch.linspace(-4, 2, 3001).double().exp().view(-1, 1, 1)
        covariance = noise**2 * torch.eye(32).double() + tau.square() * (data.x @ data.x.T)
        y = data.y.squeeze(-1)
        evidence = torch.distributions.MultivariateNormal(torch.zeros(32).double(), covariance).log_prob(y)
        return float(tau.flatten()[evidence.argmax()])

    def fitted(self, data, prior):
        model = BayesianModel(nn.Linear(6, 1, bias=False), prior, Gaussian(scale=self.noise))
        epochs = 200 if prior.centered else 500  # the other form moves along a ridge
        driver = SVI(epochs=epochs, batch_size=32, learning_rate=0.1, dtype="float64", particles=16)
        return driver.run(model, MeanField(init_scale=0.1), data)

    @FORMS
    def test_it_finds_the_scale_of_the_highest_evidence(self, data, centered, tmp_path):
        posterior = self.fitted(data, EmpiricalBayes(prior=Normal(scale=0.8), centered=centered))
        log_scale = posterior.model.learned["weight_priors.weight_log_scale"]
        found = 0.8 * log_scale.exp().item()
        assert found == pytest.approx(self.best(data, self.noise), rel=0.03)
        assert found != pytest.approx(self.best(data, 2.0), rel=0.03)  # planted: another noise
        posterior.save(tmp_path / "p")
        fresh = BayesianModel(nn.Linear(6, 1, bias=False), EmpiricalBayes(prior=Normal(scale=0.8), centered=centered))
        fresh.likelihood = Gaussian(scale=self.noise)
        again = Posterior.load(tmp_path / "p", fresh)
        assert torch.equal(again.model.learned["weight_priors.weight_log_scale"], log_scale)
        assert posterior.model.reinitialized(0).learned["weight_priors.weight_log_scale"] == 0

    def test_weights_of_a_group_share_their_scale(self, net, x):
        prior = {"head.*": EmpiricalBayes(group="head"), "blocks.*": EmpiricalBayes(group="body"), "*": Normal()}
        model = BayesianModel(net, prior)
        assert set(model.learned) == {"weight_priors.head_log_scale", "weight_priors.body_log_scale"}
        with torch.no_grad():
            model.learned["weight_priors.head_log_scale"].fill_(math.log(3.0))
        made = model.distributions()
        assert made["head.weight"].stddev.unique().item() == pytest.approx(3) == made["head.bias"].stddev[0].item()
        assert made["blocks.0.mlp.up.weight"].stddev.unique() == 1

    @FORMS
    def test_it_is_refused_where_it_has_no_meaning(self, centered):
        data, learning = Data(torch.zeros(4, 2), torch.zeros(4, 1)), EmpiricalBayes(centered=centered)
        model = BayesianModel(nn.Linear(2, 1), learning, Gaussian())
        with pytest.raises(SettingError, match="no maximum, as for weight"):
            MAP(epochs=1).run(model, None, data)
        with pytest.raises(SettingError, match="nuts cannot learn weight_log_scale"):
            NUTS(num_samples=4, warmup_steps=1).run(model, None, data)
        ML(epochs=1).run(model, None, data)  # no prior counts here
        SVI(epochs=1).run(model, Delta(), data)


@pytest.mark.parametrize(
    ("build", "key", "accepted"),
    [
        (lambda: Horseshoe(global_scale=0.0), "global_scale", "a number above 0"),
        (lambda: Horseshoe(per="site"), "per", "one of entry, input, unit"),
        (lambda: Horseshoe(slab=-1.0), "slab", "a number above 0"),
        (lambda: Horseshoe(slab=1.0, slab_df=0.0), "slab_df", "a number above 0"),
        (lambda: Horseshoe(slab_df=3.0), "slab_df", "null without a slab"),
        (lambda: Horseshoe(prior=Uniform(), centered=True), "centered", "the support of Uniform moves"),
        (lambda: SpikeAndSlab(temperature=0.0), "temperature", "a number above 0"),
        (lambda: SpikeAndSlab(inclusion=1.0), "inclusion", "a number between 0 and 1"),
        (lambda: SpikeAndSlab(spike=0.0), "spike", "a number between 0 and 1"),
        (lambda: SpikeAndSlab(per="head"), "per", "one of entry, input, unit"),
        (lambda: ARD(hyperprior=Normal()), "hyperprior", "a prior over scales"),
        (lambda: ARD(prior=HalfCauchy()), "prior", "a prior with a scale"),
        (lambda: EmpiricalBayes(init=0), "init", "a number above 0"),
        (lambda: EmpiricalBayes(group="a.b"), "group", "letters, digits"),
        (lambda: EmpiricalBayes(prior=Uniform()), "centered", "the support of Uniform moves"),
        (lambda: EmpiricalBayes(prior=StudentT(), centered=None), "centered", "true or false"),
    ],
)
def test_wrong_settings(build, key, accepted):
    with pytest.raises(SettingError) as caught:
        build()
    assert caught.value.key == key and accepted in caught.value.expected
