"""What holds of every family of attention rows."""

import math

import pyro
import pytest
import torch

from pyroformer import guides, priors
from pyroformer.guides import AmortisedRows, Delta, Guide, MeanField, default_rows
from pyroformer.inference import OnePassELBO
from pyroformer.models import BayesianModel, Features, Output, Tokens, Transformer
from pyroformer.priors import Learned, Normal, SettingError, SoftmaxCenter, choice_name
from pyroformer.priors.carried import logs_of

X = torch.randn(6, 1, generator=torch.Generator().manual_seed(0)).double()
Y = torch.zeros(6, dtype=torch.long)
SITES = ("blocks.0.attention.rows", "blocks.1.attention.rows")
EXPORTS = [getattr(guides, name) for name in guides.__all__]
FAMILIES = [
    cls for cls in EXPORTS if isinstance(cls, type) and issubclass(cls, AmortisedRows) and cls is not AmortisedRows
]
LAWS = {
    "simplex": [priors.DirichletRows, priors.LogisticNormalRows, priors.GumbelSoftmaxRows],
    "positive": [priors.GammaRows, priors.LogNormalRows],
}
PAIRS = [(family, law) for family in FAMILIES for law in LAWS[family.space]]
REFUSED = [(family, law) for family in FAMILIES for space in LAWS if space != family.space for law in LAWS[space]]
every_family = pytest.mark.parametrize("family", FAMILIES, ids=choice_name)
every_pair = pytest.mark.parametrize(
    ("family", "law"), PAIRS, ids=[f"{choice_name(q)}-{choice_name(p)}" for q, p in PAIRS]
)


def built(prior, inputs=None, weights=None):
    torch.manual_seed(0)
    net = Transformer(inputs or Features(1, copies=4), Output(3), width=4, heads=2, depth=2)
    model = BayesianModel(net, {"*.rows": prior, "*": weights or Normal()}).double()
    with torch.no_grad():  # scores large enough to matter
        for block in model.net.blocks:
            block.attention.query.weight.mul_(6)
            block.attention.key.weight.mul_(6)
    return model


def plain_law(family):
    return LAWS[family.space][0]()


def run(guide, x=X):
    with torch.no_grad(), guide:
        output = guide.model(x)
    return output, guide.trace.nodes


def without_row_prior(model):
    exact = BayesianModel(model.net, Normal()).double().net
    for block in exact.blocks:
        block.attention.set_row_prior(None)
    return exact


@every_family
def test_infinite_sharpness_is_softmax_attention(family):
    model = built(plain_law(family))

    def far(sharpness):
        guide = Guide(model, {"*.rows": family(sharpness=sharpness), "*": Delta()}, (X[:2],))
        with torch.no_grad():
            return (run(guide)[0] - without_row_prior(model)(X)).abs().max()

    assert far(1e10) < 1e-5
    assert far(1e2) > 1e-5  # planted


@every_family
def test_the_plug_in_row_is_softmax_attention(family):
    floor = {"floor": 1e-12} if family is guides.DirichletRows else {}
    model = built(plain_law(family))
    _, nodes = run(Guide(model, {"*.rows": family(sharpness=2.0, **floor), "*": Delta()}, (X[:2],)))
    site = nodes[SITES[0]]
    law = site["fn"].base_dist
    value = law.plug_in if hasattr(law, "plug_in") else law.mean
    module = model.net.blocks[0].attention.row_prior
    softmax = site["infer"]["scores"].softmax(-1)
    torch.testing.assert_close(module.rows(value, None), softmax)
    assert not torch.allclose(module.rows(site["value"], None), softmax, rtol=0.05)  # planted: drawn


@every_family
def test_heads_have_a_sharpness_of_their_own(family):
    guide = Guide(built(plain_law(family)), {"*.rows": family(), "*": Delta()}, (X[:2],))
    with torch.no_grad():
        guide.family_of(SITES[0]).log_sharpness["0"][0] = math.log(1e4)
        guide.family_of(SITES[0]).log_sharpness["0"][1] = math.log(1.0)
    logs = torch.stack([logs_of(run(guide)[1][SITES[0]]["value"]) for _ in range(50)]).exp()
    assert logs[:, :, 0].var(0).max() < 1e-3 < logs[:, :, 1].var(0).max()
    assert guide.summary()[choice_name(family)]["sharpness"][SITES[0]] == [10000.0, 1.0]


@pytest.mark.parametrize(("shared", "shapes"), [("head", [2, 2]), ("layer", [1, 1]), ("global", [1])])
@every_family
def test_sharpness_is_shared_as_asked(family, shared, shapes):
    guide = Guide(built(plain_law(family)), {"*.rows": family(shared=shared), "*": Delta()}, (X[:2],))
    assert [v.numel() for v in guide.family_of(SITES[0]).log_sharpness.values()] == shapes


@every_pair
def test_padding_adds_nothing(family, law):
    """Densities and KL of a padded batch are those of the shorter one."""
    short = torch.tensor([[1, 2, 3], [4, 1, 2]])
    padded = torch.nn.functional.pad(short, (0, 3))
    model = built(law(center=SoftmaxCenter()), Tokens(vocabulary=5, length=6, padding=0))
    guide = Guide(model, {"*.rows": family(sharpness=3.0), "*": Delta()}, (padded,))
    site, wide = (OnePassELBO().sites(guide, x)[SITES[0]] for x in (short, padded))
    value = site["value"].clone()  # without the logarithms that the padded one would not carry
    same = torch.nn.functional.pad(value, (0, 3, 0, 3))  # the density of one draw, whatever the noise of the other
    for ours, theirs in ((site["fn"], wide["fn"]), (site["infer"]["prior"], wide["infer"]["prior"])):
        torch.testing.assert_close(ours.log_prob(value), theirs.log_prob(same))
    try:
        ours, theirs = (torch.distributions.kl_divergence(s["fn"], s["infer"]["prior"]) for s in (site, wide))
        torch.testing.assert_close(ours, theirs)
    except NotImplementedError:
        assert "gumbel" in choice_name(family) + choice_name(law) or law is priors.DirichletRows
    rows = model.net.blocks[0].attention.row_prior.rows(wide["value"], wide["infer"]["mask"])
    assert not rows[..., :3, 3:].any() and not rows[..., 3:, :].any()
    torch.testing.assert_close(rows[..., :3, :].sum(-1), torch.ones(2, 2, 3).double())


@every_pair
@pytest.mark.parametrize("particles", [1, 3])
def test_rows_and_weights_together(family, law, particles):
    guide = Guide(built(law(kl_weight=0.1)), {"*.rows": family(), "*": MeanField()}, (X[:2],))
    for estimator in ("shared", "flipout", "local_reparameterization"):
        loss = OnePassELBO(num_particles=particles, estimator=estimator).differentiable_loss(None, guide, X, Y, 60)
        slopes = torch.autograd.grad(loss, list(guide.parameters()))
        assert loss.isfinite() and all(slope.isfinite().all() and slope.any() for slope in slopes)


@every_pair
def test_rows_over_learned_weights_train_them(family, law):
    model = built(law(center=priors.ContextualCenter()), weights=Learned())
    guide = Guide(model, {"*.rows": family()}, (X[:2],))
    loss = OnePassELBO().differentiable_loss(None, guide, X, Y, 60)
    names = [name for name in model.learned if "query" in name or "row_prior" in name]
    assert any("row_prior.center" in name for name in names)
    slopes = torch.autograd.grad(loss, [model.learned[name] for name in names])
    assert all(slope.isfinite().all() and slope.any() for slope in slopes)


@pytest.mark.parametrize(("family", "law"), REFUSED, ids=[f"{choice_name(q)}-{choice_name(p)}" for q, p in REFUSED])
def test_a_family_of_another_space_is_refused(family, law):
    fitting = "log_normal_rows or weibull_rows"
    if law in LAWS["simplex"]:
        fitting = "dirichlet_rows or gumbel_softmax_rows or logistic_normal_rows"
    own = f"'{choice_name(family)}': expected {fitting} for {SITES[0]}: its prior {choice_name(law)} is one of"
    with pytest.raises(SettingError, match=own):
        Guide(built(law()), {"*.rows": family(), "*": Delta()}, (X[:2],))


def test_layers_may_have_laws_and_families_of_their_own():
    prior = {SITES[0]: priors.GammaRows(), SITES[1]: priors.LogisticNormalRows(), "*": Normal()}
    net = Transformer(Features(1, copies=4), Output(3), width=4, heads=2, depth=2)
    model = BayesianModel(net, prior).double()
    chosen = default_rows(model.row_priors)
    assert {name: choice_name(type(f)) for name, f in chosen.items()} == {
        SITES[0]: "weibull_rows",
        SITES[1]: "logistic_normal_rows",
    }
    guide = Guide(model, {**chosen, "*": Delta()}, (X[:2],))
    with torch.no_grad(), pyro.plate("draws", 3, dim=-2), guide:
        assert model(X).shape == (3, 6, 3)
    with pytest.raises(SettingError, match=f"for {SITES[0]}"):
        Guide(model, {"*.rows": guides.GumbelSoftmaxRows(), "*": Delta()}, (X[:2],))


@pytest.mark.parametrize("law", [law for space in LAWS.values() for law in space], ids=choice_name)
def test_the_default_family_is_that_of_the_law(law):
    ((pattern, family),) = default_rows({site: law() for site in SITES}).items()
    assert pattern == "*.rows" and family.space == law.space
    named = choice_name(law) if law is not priors.GammaRows else "weibull_rows"
    assert choice_name(type(family)) == named


@every_family
def test_settings_out_of_range_are_refused(family):
    with pytest.raises(SettingError, match=r"sharpness = 0: expected a number above 0"):
        family(sharpness=0)
    with pytest.raises(SettingError, match="shared = 'net': expected one of global, layer, head"):
        family(shared="net")


@every_family
def test_float32_stays_finite(family):
    named = {choice_name(law): law for law in LAWS[family.space]}
    law = named.get(choice_name(family), priors.GammaRows)(center=SoftmaxCenter())
    for sharpness in (1e-2, 1.0, 1e6):
        model, x = built(law).float(), X.float()
        with torch.no_grad():
            model.net.blocks[0].attention.query.weight.mul_(2)
        guide = Guide(model, {"*.rows": family(sharpness=sharpness), "*": Delta()}, (x[:2],))
        loss = OnePassELBO().differentiable_loss(None, guide, x, Y, 60)
        slopes = torch.autograd.grad(loss, list(guide.parameters()))
        assert guide.trace.nodes[SITES[0]]["infer"]["scores"].log_softmax(-1).min() < -60
        assert loss.isfinite() and all(slope.isfinite().all() for slope in slopes)


def test_the_sharpness_of_every_layer_is_told_whatever_its_law():
    """Layers with different laws have families of different kinds, and two may have one of the same kind."""
    torch.manual_seed(0)
    net = Transformer(Features(1, copies=4), Output(3), width=4, heads=2, depth=3)
    laws = (priors.DirichletRows(), priors.GammaRows(), priors.DirichletRows(concentration=2.0))
    sites = [f"blocks.{index}.attention.rows" for index in range(3)]
    model = BayesianModel(net, {**dict(zip(sites, laws, strict=True)), "*": Learned()}).double()
    families = [guides.DirichletRows(), guides.WeibullRows(), guides.DirichletRows()]
    for chosen in (default_rows(model.row_priors), dict(zip(sites, families, strict=True))):
        summary = Guide(model, chosen, (X[:2],)).summary()
        assert list(summary["dirichlet_rows"]["sharpness"]) == [sites[0], sites[2]]
        assert list(summary["weibull_rows"]["sharpness"]) == [sites[1]]
