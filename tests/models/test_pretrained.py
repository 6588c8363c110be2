"""Priors around the weights of a net: their density, and that the centres stay with the model wherever it goes."""

import copy
import inspect
import math
import pickle

import pytest
import torch
from pyro import poutine
from scipy import stats

from pyroformer.guides import MeanField
from pyroformer.inference import MAP, NUTS, SVI, Data, Posterior
from pyroformer.models import BayesianModel, Features, Gaussian, Output, Transformer
from pyroformer.priors import (
    Hierarchical,
    Laplace,
    Learned,
    MatrixNormal,
    Normal,
    Pretrained,
    SettingError,
    Site,
    Uniform,
)

FIVE_SIGMA = 2 * stats.norm.sf(5)
X = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
DATA = Data(X, X.sum(-1, keepdim=True))


def model(seed, prior=None):
    """The other process runs this function too."""
    torch.manual_seed(seed)
    net = Transformer(Features(2, copies=2), Output(1), width=4, heads=2, depth=1)
    prior = {"head.*": Normal(), "*": Pretrained(relative=0.2)} if prior is None else prior
    return BayesianModel(net, prior, Gaussian(scale=0.5))


def moments(built):
    return {name: (prior.mean, prior.stddev) for name, prior in built.distributions().items()}


def same(one, other):
    one, other = moments(one), moments(other)
    return all(torch.equal(a, b) for name in one for a, b in zip(one[name], other[name], strict=True))


W = torch.tensor([[0.5, -2.0], [0.0, 0.004]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("prior", "scales", "law"),
    [
        (Pretrained(prior=Normal(scale=0.3)), [0.3] * 4, stats.norm),
        (Pretrained(relative=0.1), [0.05, 0.2, 0.01, 0.01], stats.norm),
        (Pretrained(prior=Laplace(scale=2.0), relative=0.1, floor=0.03), [0.1, 0.4, 0.06, 0.06], stats.laplace),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_density_and_the_draws_are_those_by_hand(prior, scales, law, dtype):
    made = prior.distribution(Site("w", W.to(dtype), center=1.0))
    value = W.to(dtype) + 0.05
    expected = sum(law(loc=c, scale=s).logpdf(c + 0.05) for c, s in zip(W.flatten().tolist(), scales, strict=True))
    found = made.log_prob(value).item()
    assert found == pytest.approx(expected, rel=1e-5) and made.sample().dtype == dtype
    usual = sum(law(loc=1.0, scale=s).logpdf(c + 0.05) for c, s in zip(W.flatten().tolist(), scales, strict=True))
    assert found != pytest.approx(usual, rel=1e-3)  # planted: the usual centre
    draws = made.expand((4000,)).sample().flatten(1).double()
    for entry, (c, s) in enumerate(zip(W.flatten().tolist(), scales, strict=True)):
        assert stats.kstest(draws[:, entry].numpy(), law(loc=c, scale=s).cdf).pvalue > FIVE_SIGMA
        assert stats.kstest(draws[:, entry].numpy(), law(loc=c, scale=1.3 * s).cdf).pvalue < FIVE_SIGMA  # planted


def test_the_trace_density_is_the_sum_by_hand():
    built = model(0)
    trace = poutine.trace(built).get_trace(X, DATA.y)
    total = 0.0
    for name, weight in built.net.named_parameters():
        loc, scale = weight.detach().double(), (0.2 * weight.detach().double().abs()).clamp(min=0.01)
        if name.startswith("head"):
            loc, scale = torch.zeros_like(loc), torch.ones_like(loc)
        total += stats.norm(loc.numpy(), scale.numpy()).logpdf(trace.nodes[name]["value"].numpy()).sum()
    found = trace.log_prob_sum().item() - trace.nodes["obs"]["log_prob_sum"].item()
    assert found == pytest.approx(total, rel=1e-4) and found != pytest.approx(total + 1, rel=1e-4)  # planted


def test_only_priors_that_look_at_values_keep_them():
    built = model(0)
    kept = {name for name in built.state_dict() if name.endswith("_center")}
    assert kept == {f"weight_priors.{n.replace('.', '/')}_center" for n in built.sites if not n.startswith("head")}
    assert not [name for name in model(0, Normal()).state_dict() if name.startswith("weight_priors")]


def test_a_copy_another_dtype_and_a_new_start_keep_the_centres():
    built = model(0)
    assert not same(built, model(1))  # planted: another net
    for other in (copy.deepcopy(built), pickle.loads(pickle.dumps(built)), built.reinitialized(5)):
        assert same(other, built)
    fresh = built.reinitialized(5)
    assert not torch.equal(fresh.initial_values()["position"], built.initial_values()["position"])
    before = moments(built)
    wide = moments(copy.deepcopy(built).double())
    assert all(wide[name][0].dtype == torch.float64 for name in wide)
    assert all(torch.equal(wide[name][0].float(), before[name][0]) for name in wide)
    with torch.no_grad():
        built.net.position.add_(1.0)  # as an optimiser would
    assert all(torch.equal(a, b) for n in before for a, b in zip(moments(built)[n], before[n], strict=True))


def test_a_model_can_be_centred_on_other_values():
    built, other = model(0), model(1)
    values = {name: p.detach() for name, p in other.net.named_parameters()}
    moved = built.centered_on(values)
    assert same(moved, other) and not same(built, other)
    assert all(torch.equal(v, values[n]) for n, v in moved.initial_values().items())
    assert torch.equal(moved.sites["position"].value, values["position"])
    part = built.centered_on({"position": values["position"]})
    means = {name: mean for name, (mean, _) in moments(part).items()}
    assert torch.equal(means["position"], values["position"])
    assert torch.equal(means["blocks.0.mlp.up.weight"], moments(built)["blocks.0.mlp.up.weight"][0])
    learned = model(0, {"head.*": Learned(), "*": Pretrained()}).centered_on(values)
    assert torch.equal(learned.net.head.bias, values["head.bias"])
    hierarchical = model(0, {"head.*": Hierarchical(), "*": Pretrained()}).centered_on(values)
    torch.testing.assert_close(poutine.condition(hierarchical, data=hierarchical.initial_values())(X), other.net(X))


def test_wrong_values_are_refused():
    with pytest.raises(SettingError, match=r"values = 'heed.bias'.*did you mean head.bias"):
        model(0).centered_on({"heed.bias": torch.zeros(1)})
    with pytest.raises(SettingError, match=r"shape \(1,\) for head.bias"):
        model(0).centered_on({"head.bias": torch.zeros(2)})


READ = f"""
import sys
import torch
from pyroformer.inference import Posterior
from pyroformer.models import *
from pyroformer.priors import *
from safetensors.torch import save_file

{inspect.getsource(model)}
posterior = Posterior.load(sys.argv[1], model(99))
priors = posterior.model.distributions()
save_file(dict((n, p.mean.contiguous()) for n, p in priors.items()), sys.argv[2])
"""


def test_a_posterior_that_another_process_loads_has_the_same_prior(fork, tmp_path):
    posterior = SVI(epochs=2).run(model(0), MeanField(), DATA)
    posterior.save(tmp_path / "posterior")
    again = Posterior.load(tmp_path / "posterior", model(3))
    assert same(again.model, posterior.model) and same(again.model, model(0)) and not same(again.model, model(3))
    assert torch.equal(again.predict(X, 3).loc, posterior.predict(X, 3).loc)
    asked = model(3)
    moments(asked)  # what was made before the state is loaded is made anew
    asked.load_state_dict(posterior.model.state_dict())
    assert same(asked, model(0))
    running = fork(tmp_path / "posterior", tmp_path / "found.safetensors", code=READ)
    _, err = running.communicate()
    assert running.returncode == 0, err
    from safetensors.torch import load_file

    found, expected = load_file(tmp_path / "found.safetensors"), moments(model(0))
    assert all(torch.equal(found[name], expected[name][0]) for name in expected)


@pytest.mark.parametrize("driver", [SVI(epochs=3), MAP(epochs=3), MAP(epochs=2, dtype="float64")], ids=repr)
def test_a_narrow_prior_keeps_the_weights_where_they_were(driver):
    prior = Pretrained(prior=Normal(scale=1e-5))
    guide = MeanField(init_scale=1e-6) if isinstance(driver, SVI) else None
    built = model(0, prior)
    found = driver.run(built, guide, DATA)
    torch.testing.assert_close(moments(found.model)["position"][0].float(), built.net.position)
    wide = poutine.trace(model(0, Pretrained(prior=Uniform(scale=0.1)))).get_trace(X).nodes["position"]["value"]
    assert (wide - built.net.position).abs().max() <= 0.1 and math.isfinite(found.predict(X, 2).loc.sum())


def test_chains_share_one_prior():
    torch.manual_seed(0)
    built = BayesianModel(torch.nn.Linear(2, 1), Pretrained(prior=Normal(scale=1e-3)), Gaussian(scale=5.0))
    posterior = NUTS(num_samples=10, warmup_steps=20, chains=2, max_tree_depth=3).run(built, None, DATA)
    draws = posterior.draws["weight"].view(2, 10, 2)
    assert (draws[:, -3:] - built.net.weight).abs().max() < 0.01
    assert (
        built.reinitialized(1_000_003 * 0 + 1).net.weight - built.net.weight
    ).abs().max() > 0.01  # planted: its start


def test_it_wraps_correlated_priors_too():
    made = Pretrained(prior=MatrixNormal(), relative=0.5).distribution(Site("w", W))
    assert torch.equal(made.mean, W)
    torch.testing.assert_close(made.stddev, (0.5 * W.abs()).clamp(min=0.01))


@pytest.mark.parametrize(
    ("build", "key", "accepted"),
    [
        (lambda: Pretrained(prior=Learned()), "prior", "a prior with a scale"),
        (lambda: Pretrained(prior=Pretrained()), "prior", "a prior with a scale"),
        (lambda: Hierarchical(prior=Pretrained()), "prior", "a prior with a scale"),
        (lambda: Pretrained(relative=0.0), "relative", "a number above 0"),
        (lambda: Pretrained(floor=-1.0), "floor", "a number above 0"),
    ],
)
def test_wrong_settings(build, key, accepted):
    with pytest.raises(SettingError) as caught:
        build()
    assert caught.value.key == key and accepted in caught.value.expected
