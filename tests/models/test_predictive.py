"""Pyro's Predictive and vectorized particles on our model, against a loop over draws."""

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal
from torch.func import functional_call

from pyroformer.guides import Delta, DirichletRows, Guide, MeanField
from pyroformer.models import BayesianModel, Categorical, Gaussian, Series, Tokens
from pyroformer.priors import DirichletRows as PriorRows
from pyroformer.priors import Fixed, Normal, SoftmaxCenter

PARALLEL = pytest.mark.parametrize("parallel", [False, True], ids=["loop", "parallel"])
Y = torch.tensor([0, 2, 1, 1])


@pytest.fixture
def net(build):
    return build(Series(5, 2))


@pytest.fixture
def x(batch_of):
    return batch_of(Series(5, 2))


def predict(model, x, num_samples=None, **kwargs):
    # every site and what the model returns
    sites = ["_RETURN", "obs", *model.sites, *model.rows, *model.likelihood.initial_values()]
    return Predictive(model, num_samples=num_samples, return_sites=sites, **kwargs)(x)


def loop(net, draws, x):
    count = len(next(iter(draws.values())))
    names = [name for name, _ in net.named_parameters() if name in draws]
    return torch.stack(
        [
            functional_call(net, {n: draws[n].reshape(count, -1)[s].view_as(net.get_parameter(n)) for n in names}, x)
            for s in range(count)
        ]
    )


@PARALLEL
@pytest.mark.parametrize("count", [1, 3, 4])
def test_prior_predictive(net, x, parallel, count):
    found = predict(BayesianModel(net, Normal()), x, count, parallel=parallel)
    assert found["_RETURN"].shape == (count, 4, 3) and found["obs"].shape == (count, 4)
    torch.testing.assert_close(found["_RETURN"], loop(net, found, x))
    if count > 1:
        assert not torch.allclose(found["_RETURN"], loop(net, found, x).roll(1, 0), rtol=1e-2)  # planted
        assert (found["head.bias"].std(0) > 0).all()


@PARALLEL
def test_posterior_samples(net, x, draws_of, parallel):
    draws = draws_of(net, 4)  # as many as examples
    found = predict(BayesianModel(net, Normal()), x, posterior_samples=draws, parallel=parallel)
    torch.testing.assert_close(found["_RETURN"], loop(net, draws, x))


@PARALLEL
def test_posterior_samples_of_some_weights(net, x, draws_of, parallel):
    model = BayesianModel(net, {"head.*": Normal(), "*": Fixed()})
    draws = {name: w for name, w in draws_of(net, 4).items() if name in model.sites}
    found = predict(model, x, posterior_samples=draws, parallel=parallel)
    torch.testing.assert_close(found["_RETURN"], loop(net, draws, x))


def automatic(kind):
    def make(model, x):
        guide = kind(model)
        guide(x, Y)
        return guide

    return make


GUIDES = {
    "ours": lambda model, x: Guide(model, MeanField(init_scale=0.3), (x,)),
    "ours, delta": lambda model, x: Guide(model, Delta(), (x,)),
    "AutoNormal": automatic(lambda model: AutoNormal(model, init_scale=0.3)),
    "AutoDelta": automatic(AutoDelta),
    "AutoDiagonalNormal": automatic(lambda model: AutoDiagonalNormal(model, init_scale=0.3)),
}


@PARALLEL
@pytest.mark.parametrize("guide", GUIDES)
def test_with_a_guide(net, x, parallel, guide):
    model = BayesianModel(net, Normal())
    found = predict(model, x, 4, guide=GUIDES[guide](model, x), parallel=parallel)
    torch.testing.assert_close(found["_RETURN"], loop(net, found, x))
    spread = found["_RETURN"].std(0).max()
    assert (spread == 0) == ("elta" in guide)


@PARALLEL
def test_with_a_guide_over_rows(net, x, parallel):
    model = BayesianModel(net, {"*.rows": PriorRows(center=SoftmaxCenter(), floor=1e-9), "*": Normal()}).double()
    guide = Guide(model, {"*.rows": DirichletRows(sharpness=1e8, floor=1e-9), "*": MeanField(init_scale=0.3)}, (x,))
    found = predict(model, x, 4, guide=guide, parallel=parallel)
    assert found["blocks.0.attention.rows"].shape == (4, 4, 2, 5, 5)
    # such sharp rows are softmax attention, with the weights of their own draw
    torch.testing.assert_close(found["_RETURN"], loop(net, found, x), rtol=0, atol=5e-3)
    assert (found["_RETURN"] - loop(net, found, x).roll(1, 0)).abs().max() > 0.05  # planted


@PARALLEL
def test_per_token_and_real_outputs(build, batch_of, parallel):
    tokens = build(Tokens(7, 5), per_token=True)
    found = predict(
        BayesianModel(tokens, Normal(), Categorical(per_token=True)), batch_of(Tokens(7, 5)), 3, parallel=parallel
    )
    assert found["obs"].shape == (3, 4, 5) and found["_RETURN"].shape == (3, 4, 5, 3)
    torch.testing.assert_close(found["_RETURN"], loop(tokens, found, batch_of(Tokens(7, 5))))
    series = build(Series(5, 2))
    model = BayesianModel(series, Normal(), Gaussian(noise="random", scale=1e-3)).double()
    found = predict(model, batch_of(Series(5, 2)), 3, parallel=parallel)
    assert found["obs"].shape == (3, 4, 3)
    scaled = (found["obs"] - found["_RETURN"]) / found["noise_scale"].view(3, 1, 1)
    assert scaled.abs().max() < 5 and scaled.std() > 0.3  # each draw has the noise of its own scale


def test_draws_of_the_observations_follow_the_logits(net, x, standard_errors):
    model = BayesianModel(net, Fixed())
    labels = Predictive(model, num_samples=4000, parallel=True)(x)["obs"]
    frequencies = torch.nn.functional.one_hot(labels, 3).double()
    assert standard_errors(frequencies, net(x).softmax(-1)) < 5
    assert standard_errors(frequencies, (1.3 * net(x)).softmax(-1)) > 5  # planted


@pytest.mark.parametrize("rows", [{}, {"*.rows": PriorRows(floor=0.5)}], ids=["weights", "rows"])
def test_particles_equal_a_loop(net, x, draws_of, rows):
    model, draws = BayesianModel(net, {**rows, "*": Normal()}).double(), draws_of(net, 3, 1)
    with pyro.plate("particles", 3, dim=-2):
        together = poutine.trace(poutine.condition(model, data=draws)).get_trace(x, Y, 40)
    together.compute_log_prob()
    drawn = {name: together.nodes[name]["value"] for name in model.rows}
    for s in range(3):
        one = {n: w[s, 0] for n, w in draws.items()} | {n: r[s] for n, r in drawn.items()}
        alone = poutine.trace(poutine.condition(model, data=one)).get_trace(x, Y, 40)
        alone.compute_log_prob()
        for name in [*model.sites, *model.rows, "obs"]:
            a, b = together.nodes[name]["log_prob"][s].sum(), alone.nodes[name]["log_prob"].sum()
            torch.testing.assert_close(a, b)
        torch.testing.assert_close(together.nodes["_RETURN"]["value"][s], alone.nodes["_RETURN"]["value"])
        planted = together.nodes["obs"]["log_prob"][s - 1].sum()
        assert not torch.allclose(planted, alone.nodes["obs"]["log_prob"].sum(), rtol=1e-3)


def test_two_outer_plates(net, x, draws_of):
    draws = draws_of(net, 2, 3, 1)
    with pyro.plate("chains", 2, dim=-3), pyro.plate("draws", 3, dim=-2):
        trace = poutine.trace(poutine.condition(BayesianModel(net, Normal()), data=draws)).get_trace(x, Y)
    trace.compute_log_prob()
    assert trace.nodes["obs"]["log_prob"].shape == (2, 3, 4) and trace.nodes["_RETURN"]["value"].shape == (2, 3, 4, 3)
    one = functional_call(net, {n: w[1, 2, 0] for n, w in draws.items()}, x)
    torch.testing.assert_close(trace.nodes["_RETURN"]["value"][1, 2], one)
