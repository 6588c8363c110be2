"""Predictions average probabilities over draws, in chunks that change nothing."""

import math

import pyro.distributions as dist
import pytest
import torch

from pyroformer.guides import Delta, DirichletRows, Guide, MeanField
from pyroformer.inference import (
    NUTS,
    DataError,
    DrawsPosterior,
    GuidePosterior,
    MixturePosterior,
    posterior,
)
from pyroformer.models import BayesianModel, Categorical, Features, Gaussian, Likelihood, Output, Transformer
from pyroformer.priors import DirichletRows as PriorRows
from pyroformer.priors import Learned, Normal

X = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))


def linear(seed=0, prior=None, likelihood=None, outputs=4):
    torch.manual_seed(seed)
    return BayesianModel(torch.nn.Linear(3, outputs), prior or Normal(), likelihood)


def guided(family=None, **settings):
    model = linear(**settings)
    return GuidePosterior(model, Guide(model, family or MeanField(init_scale=1.0), (X[:2],)), (X[:2],))


def stored(num_draws=12, **settings):
    model = linear(**settings)
    generator = torch.Generator().manual_seed(1)
    draws = {
        name: torch.randn(num_draws, *value.shape, generator=generator)
        for name, value in model.initial_values().items()
    }
    return DrawsPosterior(model, draws)


def logits(draws, x):
    """``[S, N, C]`` by a loop over draws."""
    return torch.stack([x @ w.T + b for w, b in zip(draws["weight"], draws["bias"], strict=True)]).double()


POSTERIORS = {
    "mean field": guided,
    "point": lambda: guided(Delta()),
    "point and mean field": lambda: guided({"bias": Delta(), "*": MeanField(init_scale=1.0)}),
    "draws": stored,
}


@pytest.mark.parametrize("name", POSTERIORS)
def test_probabilities_are_averaged_over_the_draws(name):
    fitted = POSTERIORS[name]()
    draws = fitted.draw(40, seed=3)
    prediction = fitted.predict(X, 40, seed=3)
    by_hand = logits(draws, X)
    p = by_hand.softmax(-1)
    expected = 1 if name == "point" else 12 if name == "draws" else 40
    assert prediction.num_samples == len(p) == expected
    assert torch.allclose(prediction.probabilities, p.mean(0), atol=1e-6)
    assert torch.allclose(prediction.expected_entropy, -(p * p.log()).sum(-1).mean(0), atol=1e-6)
    assert torch.equal(prediction.labels, p.mean(0).argmax(-1))
    assert prediction.probabilities.dtype == torch.float64
    if name != "point":
        averaged_logits = by_hand.mean(0).softmax(-1)
        assert not torch.allclose(prediction.probabilities, averaged_logits, atol=1e-2)  # planted
        assert (prediction.mutual_information > 0.01).any()
    else:
        assert prediction.mutual_information.abs().max() < 1e-6


@pytest.mark.parametrize("name", POSTERIORS)
def test_chunks_change_nothing(name, monkeypatch):
    fitted = POSTERIORS[name]()
    whole = fitted.predict(X, 40)
    for batch_size in (1, 7, 30, 1000):
        chunked = fitted.predict(X, 40, batch_size=batch_size)
        assert torch.allclose(whole.probabilities, chunked.probabilities, atol=1e-6)
        assert chunked.num_samples == whole.num_samples
    many = X.repeat(300, 1)  # with so many examples a chunk holds one draw
    assert torch.allclose(fitted.predict(many, 40, batch_size=9000).probabilities[-30:], whole.probabilities, atol=1e-6)
    different = fitted.predict(X, 40, seed=1)
    if name in ("mean field", "point and mean field"):
        assert not torch.allclose(whole.probabilities, different.probabilities, atol=1e-2)  # planted: other draws


def test_bounded_chunks_hold_all_draws(monkeypatch):
    fitted, guide = stored(), guided()
    whole, before = fitted.predict(X, 12), guide.predict(X, 200)
    sizes = []
    run = posterior.Posterior.run
    monkeypatch.setattr(posterior.Posterior, "run", lambda s, w, x, n: (sizes.append(n), run(s, w, x, n))[1])
    monkeypatch.setattr(posterior, "MAX_NUMBERS", 5 * 16)  # 16 weights a draw
    assert torch.allclose(fitted.predict(X, 12).probabilities, whole.probabilities, atol=1e-6)
    assert sizes == [5, 5, 2]
    after = guide.predict(X, 200)
    assert max(sizes) == 5 and after.num_samples == 200
    # other draws of the same posterior, as blocks of draws depend on the bound
    error = (before.probabilities * (1 - before.probabilities) / 100).sqrt()
    assert ((before.probabilities - after.probabilities) / error).abs().max() < 5


def test_the_same_seed_gives_the_same_numbers_and_leaves_the_stream_alone():
    fitted = guided()
    state = torch.get_rng_state()
    first, again, other = (fitted.predict(X, 8, seed=s).probabilities for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    draws = [fitted.draw(8, seed=s)["weight"] for s in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_stored_draws_are_thinned_evenly():
    fitted = stored(12)
    for count, kept in ((4, [0, 3, 6, 9]), (5, [0, 2, 4, 7, 9]), (12, list(range(12))), (99, list(range(12)))):
        assert torch.equal(fitted.draw(count)["bias"], fitted.draws["bias"][kept])


def test_draws_are_no_part_of_the_posterior():
    for fitted in (guided(Delta()), guided(), stored()):
        draws = fitted.draw(1)
        assert not any(value.requires_grad for value in draws.values())
        before = fitted.predict(X, 1).probabilities
        for value in (*draws.values(), *fitted.draw(12).values()):
            value.zero_()
        assert torch.equal(fitted.predict(X, 1).probabilities, before)


def test_the_mode_of_the_net_is_put_back():
    fitted = guided()
    fitted.model.train()
    fitted.predict(X, 2)
    assert fitted.model.training and fitted.model.net.training


@pytest.mark.parametrize("noise", ["fixed", "random"])
def test_real_predictions_are_mixtures(noise):
    likelihood = Gaussian(noise=noise, scale=0.3)
    fitted = guided(likelihood=likelihood, outputs=2)
    draws = fitted.draw(50)
    prediction = fitted.predict(X, 50, batch_size=11)
    loc = logits(draws, X)
    scale = draws["noise_scale"].double().view(50, 1, 1) if noise == "random" else torch.tensor(0.3).double()
    assert torch.allclose(prediction.loc, loc, atol=1e-5)
    assert torch.allclose(prediction.scale, scale.expand(50, 30, 2), atol=1e-6)
    assert torch.allclose(prediction.mean, loc.mean(0), atol=1e-5)
    variance = loc.var(0, correction=0) + scale.square().expand(50, 30, 2).mean(0)
    assert torch.allclose(prediction.sd, variance.sqrt(), atol=1e-5)
    y = torch.zeros(30, 2).double()
    each = torch.distributions.Normal(loc, scale).log_prob(y).sum(-1)
    by_hand = each.logsumexp(0) - math.log(50)
    assert torch.allclose(prediction.log_density(y), by_hand, atol=1e-4)
    assert not torch.allclose(prediction.log_density(y), each.mean(0), atol=1e-2)  # planted: logs averaged
    below = torch.distributions.Normal(loc, scale).cdf(prediction.quantile(0.9)).mean(0)
    assert torch.allclose(below, torch.tensor(0.9).double(), atol=1e-4)


class TestMixture:
    def test_members_weigh_the_same(self):
        members = [stored(3, seed=0), stored(12, seed=1)]
        mixture = MixturePosterior(members)
        p = mixture.predict(X, 24).probabilities
        each = [m.predict(X, 12).probabilities for m in members]
        assert torch.allclose(p, (each[0] + each[1]) / 2, atol=1e-6)
        pooled = (3 * each[0] + 12 * each[1]) / 15
        assert not torch.allclose(p, pooled, atol=1e-2)  # planted: every draw weighs the same

    def test_a_point_weighs_as_much_as_a_cloud(self):
        members = [guided(Delta()), guided()]
        prediction = MixturePosterior(members).predict(X, 400)
        point, cloud = members[0].predict(X, 1).probabilities, members[1].predict(X, 2000).probabilities
        middle = (point + cloud) / 2
        error = (cloud * (1 - cloud) / 200).sqrt() / 2
        assert ((prediction.probabilities - middle) / error).abs().max() < 5
        assert ((prediction.probabilities - cloud) / error).abs().max() > 5  # planted

    def test_parameters_without_a_site_are_those_of_each_member(self):
        """A member's learned bias belongs to its own net."""
        members = [guided(prior={"bias": Learned(), "*": Normal()}, seed=s) for s in (0, 1)]
        for shift, member in enumerate(members):
            with torch.no_grad():
                member.model.net.bias.copy_(torch.eye(4)[shift] * 9)
        p = MixturePosterior(members).predict(X, 40).probabilities
        assert torch.allclose(p, sum(m.predict(X, 20).probabilities for m in members) / 2, atol=0.2)
        assert (p[:, 0] > 0.2).all() and (p[:, 1] > 0.2).all()

    def test_draws_come_from_all_members(self):
        mixture = MixturePosterior([stored(5, seed=0), stored(5, seed=1)])
        assert mixture.num_samples == 10 and mixture.predict(X).num_samples == 10
        assert mixture.draw(10)["weight"].shape == (10, 4, 3)
        assert MixturePosterior([guided(), stored(5)]).num_samples is None


def test_rows_are_drawn_by_the_guide():
    torch.manual_seed(0)
    net = Transformer(Features(3), Output(4), width=4, heads=2, depth=1)
    model = BayesianModel(net, {"*.rows": PriorRows(), "*": Learned()})
    sharp, loose = (
        GuidePosterior(model, Guide(model, DirichletRows(sharpness=s), (X[:2],)), (X[:2],)) for s in (1e7, 1.0)
    )
    plain = BayesianModel(net, Normal()).net(X).softmax(-1).double()
    assert sharp.num_samples is None and sharp.num_weights == 0
    assert torch.allclose(sharp.predict(X, 5).probabilities, plain, atol=1e-3)
    assert not torch.allclose(loose.predict(X, 1).probabilities, plain, atol=1e-3)
    assert loose.predict(X, 7, batch_size=4).num_samples == 7
    assert loose.draw(3) == {}
    exact, error = loose.predict(X, 600, seed=1).probabilities, loose.predict(X, 600, seed=2).probabilities
    assert (exact - error).abs().max() < 0.02


def test_tokens_are_predicted_each():
    torch.manual_seed(0)
    net = Transformer(Features(1, copies=3), Output(4, per_token=True), width=4, heads=2, depth=1)
    model = BayesianModel(net, Normal(), Categorical(per_token=True))
    fitted = GuidePosterior(model, Guide(model, MeanField(init_scale=0.3), (X[:2, :1],)), (X[:2, :1],))
    prediction = fitted.predict(X[:, :1], 6, batch_size=8)
    assert prediction.probabilities.shape == (30, 3, 4) and prediction.expected_entropy.shape == (30, 3)
    assert torch.allclose(prediction.probabilities.sum(-1), torch.ones(30, 3).double())


def test_bad_inputs_are_refused():
    fitted = guided()
    with pytest.raises(DataError, match="x: no examples"):
        fitted.predict(X[:0])
    broken = X.clone()
    broken[4, 1] = math.inf
    with pytest.raises(DataError, match=r"x: example 4 holds inf \(1 of 30 examples do\)"):
        fitted.predict(broken)
    with pytest.raises(ValueError, match="num_samples = 0: expected at least 1"):
        fitted.predict(X, 0)
    with pytest.raises(ValueError, match="num_samples = -1"):
        fitted.draw(-1)


def test_a_likelihood_without_prediction_is_named():
    class Counts(Likelihood):
        def distribution(self, outputs, drawn, y=None):
            return dist.Poisson(outputs.exp()).to_event(1)

        def check(self, outputs, y):
            pass

    with pytest.raises(TypeError, match="for a Counts likelihood: expected Categorical, Gaussian"):
        guided(likelihood=Counts()).predict(X)


def test_inputs_may_be_of_another_dtype():
    fitted = guided()
    assert torch.equal(fitted.predict(X.double()).probabilities, fitted.predict(X).probabilities)
    assert NUTS().dtype == "float32"
