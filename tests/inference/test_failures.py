"""When a number is not finite, a driver stops, says where, and hands over the last good posterior."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyroformer.guides import DirichletRows, MeanField
from pyroformer.inference import MAP, ML, NUTS, SVI, Data, DeepEnsemble, InferenceError, Monitor
from pyroformer.models import BayesianModel, Features, Gaussian, Output, Transformer
from pyroformer.priors import DirichletRows as PriorRows
from pyroformer.priors import Normal

X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
Y = X.sum(-1, keepdim=True)
BATCHES = {"epochs": 5, "batch_size": 5, "validation_samples": 2}  # 4 steps an epoch


class Spoiled(nn.Module):
    """A linear net whose output, in training, becomes NaN after a while, for some examples."""

    def __init__(self, after=10**9, rows=slice(None)):
        super().__init__()
        self.linear = nn.Linear(3, 1)
        self.runs, self.after, self.rows = 0, after, rows

    def forward(self, x):
        self.runs += self.training and len(x) == 5
        y = self.linear(x)
        if self.training and self.runs > self.after:
            y = y.clone()
            y[self.rows] = math.nan
        return y


class BrokenGradient(nn.Module):
    """A linear net with a finite value and an infinite slope once its weight has moved."""

    def __init__(self, distance):
        super().__init__()
        self.linear = nn.Linear(3, 1)
        self.register_buffer("start", self.linear.weight.detach().clone())
        self.distance = distance

    def forward(self, x):
        moved = (self.linear.weight - self.start).abs().max().detach() > self.distance
        return self.linear(x) + (0.0 * moved * self.linear.weight.sum()).sqrt()


def model(net):
    return BayesianModel(net, Normal(), Gaussian(scale=0.5))


def failure(driver, net, guide=None, data=None, **settings):
    with pytest.raises(InferenceError) as caught:
        driver.run(net if isinstance(net, BayesianModel) else model(net), guide, data or Data(X, Y), **settings)
    return str(caught.value), caught.value.posterior


def test_the_message_says_when_and_where():
    message, posterior = failure(MAP(**BATCHES), Spoiled(after=6, rows=[1, 3]))
    assert message.startswith("epoch 2, step 7: the loss is nan; not finite: log-likelihood; first in the log-likelih")
    assert "of 2 of 5 examples (training rows " in message
    assert posterior.predict(X).mean.isfinite().all()
    assert not posterior.model.training and posterior.info["kept"] == "last good"


def test_examples_are_named_by_their_place_in_the_data():
    class Fragile(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 1)

        def forward(self, x):
            bad = self.training & (x == X[13]).all(-1, keepdim=True)
            return torch.where(bad, math.nan, self.linear(x))

    message, _ = failure(MAP(epochs=1, batch_size=20), Fragile())
    assert "1 of 20 examples (training rows 13)" in message


@pytest.mark.parametrize("driver", [SVI, MAP, ML])
def test_a_rate_without_bounds_is_survived(driver):
    guide = MeanField() if driver is SVI else None
    message, posterior = failure(driver(**BATCHES, learning_rate=1e30), nn.Linear(3, 1), guide)
    assert message.startswith("epoch 1, step 2: the loss is ")
    prediction = posterior.predict(X)
    assert prediction.mean.isfinite().all() and prediction.mean.abs().max() < 100
    assert all(p.isfinite().all() for p in posterior.guide.parameters())


def test_the_last_good_state_is_from_the_epoch_that_failed():
    """It has moved from the start: what was learnt before the failure is not lost."""
    start = nn.Linear(3, 1)
    _, posterior = failure(MAP(**BATCHES, learning_rate=0.1), Spoiled(after=14))
    moved = posterior.draw(1)["linear.weight"][0] - start.weight
    assert moved.abs().max() > 0.3
    fitted = MAP(**BATCHES, learning_rate=0.1).run(model(nn.Linear(3, 1)), None, Data(X, Y))
    error = (posterior.predict(X).mean - Y).square().mean()
    assert error < (start(X) - Y).square().mean() / 2 and error > (fitted.predict(X).mean - Y).square().mean() / 2


def test_the_best_validated_state_comes_before_the_last_good_one():
    monitor = Monitor()
    data = Data(X, Y, X, Y)
    _, posterior = failure(MAP(**BATCHES, learning_rate=0.1), Spoiled(after=14), data=data, monitor=monitor)
    nll = [entry["validation_nll"] for entry in monitor.history]
    assert len(nll) == 3
    assert posterior.info["best_validation_nll"] == min(nll)
    assert posterior.info["kept"].startswith("best")
    density = posterior.predict(X).log_density(Y.double()).mean()
    assert float(-density) == pytest.approx(min(nll))


def test_nothing_good_is_no_posterior():
    message, posterior = failure(MAP(**BATCHES), Spoiled(after=0))
    assert message.startswith("epoch 1, step 1") and posterior is None


@pytest.mark.parametrize("distance", [-1.0, 0.05])
def test_a_bad_gradient_of_a_finite_loss_is_caught(distance):
    torch.manual_seed(0)
    message, posterior = failure(MAP(**BATCHES, learning_rate=0.05), BrokenGradient(distance))
    assert "the gradient is not finite, first at guide.families.0.values.0, although the loss is " in message
    assert posterior.predict(X).mean.isfinite().all()
    if distance < 0:
        assert message.startswith("epoch 1, step 1:")


def test_a_bad_draw_is_named():
    """A scale that overflows shows in the draws of the weights, before anything is computed from them."""
    built = model(nn.Linear(3, 1))
    message, _ = failure(SVI(**BATCHES, learning_rate=200.0), built, MeanField())
    assert "epoch 1, step 2" in message and ("a draw of " in message or "parameters that are not finite" in message)


def test_rows_are_named():
    class Sick(PriorRows):
        def around(self, log_weights, shape, mask):
            return super().around(log_weights * math.nan, shape, mask)

    net = Transformer(Features(3), Output(1), width=4, heads=2, depth=1)
    sick = BayesianModel(net, {"*.rows": Sick(), "*": Normal()}, Gaussian())
    message, _ = failure(SVI(epochs=1), sick, {"*.rows": DirichletRows(), "*": MeanField()})
    assert "not finite: KL of the rows" in message


def test_a_member_of_an_ensemble_fails_with_its_message():
    message, posterior = failure(DeepEnsemble(member=ML(**BATCHES, learning_rate=1e30), size=2), nn.Linear(3, 1))
    assert "epoch 1, step 2" in message and posterior.predict(X).mean.isfinite().all()


def test_nuts_stops_where_it_cannot_start():
    class Undefined(nn.Linear):
        def forward(self, x):
            return super().forward(x) * math.nan

    with pytest.raises(InferenceError, match="the log-density or its gradient is not finite where sampling starts"):
        NUTS(num_samples=5, warmup_steps=5).run(model(Undefined(3, 1)), None, Data(X, Y))


def test_nuts_samples_the_net_without_its_dropout():
    spoiled = Spoiled(after=-1)  # NaN whenever it trains
    posterior = NUTS(num_samples=4, warmup_steps=4).run(model(spoiled), None, Data(X, Y))
    assert posterior.predict(X).mean.isfinite().all()


def test_failures_leave_the_stream_and_the_settings_alone():
    spoiled = model(Spoiled(after=6))
    state = torch.get_rng_state()
    failure(MAP(**BATCHES), spoiled)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="GreaterThan"):
        dist.Normal(0.0, torch.tensor(-1.0))  # validation is on again
