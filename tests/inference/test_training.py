"""The training loop does what its settings say."""

import itertools
import math

import pytest
import torch
from torch import nn

from pyroformer.guides import DirichletRows, Guide, MeanField
from pyroformer.inference import MAP, ML, SVI, Data, Monitor, OnePassELBO, optimize
from pyroformer.models import BayesianModel, Features, Gaussian, Output, Transformer
from pyroformer.priors import DirichletRows as PriorRows
from pyroformer.priors import Learned, Normal

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(24, 2, generator=GENERATOR)
Y = (X[:, :1] > 0).long().squeeze(-1) + (X[:, 1] > 0.5).long()  # three classes
REAL = X.sum(-1, keepdim=True)


def classifier(prior=None):
    torch.manual_seed(0)
    return BayesianModel(nn.Linear(2, 3), prior or Normal())


def regression(prior=None):
    torch.manual_seed(0)
    return BayesianModel(nn.Linear(2, 1), prior or Normal(), Gaussian(scale=0.5))


def rates(monkeypatch, **settings):
    """The learning rate of every step of a run of 2 epochs of 3 steps."""
    seen = []

    class Watching(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(self.param_groups[0]["lr"])
            return super().step(closure)

    monkeypatch.setitem(optimize.OPTIMIZERS, "sgd", Watching)
    driver = ML(epochs=2, batch_size=8, optimizer="sgd", learning_rate=0.1, **settings)
    driver.run(classifier(), None, Data(X, Y))
    return seen


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.5])
def test_rates_rise_and_fall_as_asked(schedule, warmup, monkeypatch):
    seen = rates(monkeypatch, schedule=schedule, warmup=warmup)
    shares = [step / 7 for step in range(1, 7)]

    def by_hand(share):
        if share < warmup:
            return 0.1 * share / warmup
        left = (share - warmup) / (1 - warmup)
        return 0.1 * {"cosine": (1 + math.cos(math.pi * left)) / 2, "linear": 1 - left, "constant": 1.0}[schedule]

    assert seen == pytest.approx([by_hand(share) for share in shares])
    assert min(seen) > 0  # no step is without effect
    driver = ML(schedule=schedule, warmup=warmup)
    assert driver.rate(warmup) == 1.0 and driver.rate(1.0) == pytest.approx(float(schedule == "constant"))
    assert warmup == 0 or driver.rate(0.0) == 0.0


def step_of(driver=MAP, copies=1, **settings):
    """How far one step of plain gradient descent at rate 1, on all examples, moves all weights."""
    model = regression()
    data = Data(X.repeat(copies, 1), REAL.repeat(copies, 1))
    plain = {"optimizer": "sgd", "learning_rate": 1.0, "schedule": "constant", "warmup": 0.0}
    draws = driver(epochs=1, batch_size=len(data), **plain, **settings).run(model, None, data).draw(1)
    return torch.cat([(draws[name][0] - value).flatten() for name, value in model.initial_values().items()])


def test_clipping_bounds_the_gradient_of_an_example():
    free = step_of()
    assert free.norm() > 1
    clipped = step_of(clip_norm=0.01)
    assert clipped.norm() == pytest.approx(0.01, rel=1e-3)
    assert torch.allclose(clipped / clipped.norm(), free / free.norm(), atol=1e-4)
    assert torch.equal(step_of(clip_norm=1e3), free)


def test_steps_do_not_grow_with_the_data():
    assert torch.allclose(step_of(ML, copies=2), step_of(ML), rtol=1e-4)
    assert not torch.allclose(step_of(MAP, copies=2), step_of(MAP), rtol=1e-4)  # the prior weighs half as much


def test_the_loss_is_the_gradient_of_the_mean():
    """One step at rate 1 is minus the gradient of -(log-likelihood + log prior) / N."""
    model = regression()
    w, b = (p.detach().clone().requires_grad_() for p in (model.net.weight, model.net.bias))
    density = torch.distributions.Normal(X @ w.T + b, 0.5).log_prob(REAL).sum()
    prior = sum(torch.distributions.Normal(0.0, 1.0).log_prob(p).sum() for p in (w, b))
    gradient = torch.autograd.grad(-(density + prior) / 24, [w, b])
    assert torch.allclose(step_of(), -torch.cat([g.flatten() for g in gradient]), atol=1e-5)


class TestKeep:
    """Validation data that contradict the training data: the best state comes early, the last one is worst."""

    data = Data(X, Y, X, 2 - Y)

    def run(self, driver=ML, guide=None, **settings):
        monitor = Monitor()
        settings = {"epochs": 12, "batch_size": 24, "learning_rate": 0.1, "warmup": 0.0, **settings}
        posterior = driver(**settings).run(classifier(), guide, self.data, monitor=monitor)
        return posterior, [entry.get("validation_nll") for entry in monitor.history]

    def nll(self, posterior, samples=8):
        return optimize.validation_nll(posterior.predict(X, samples), 2 - Y)

    @pytest.mark.parametrize(("driver", "guide"), [(ML, None), (MAP, None), (SVI, MeanField(init_scale=0.05))])
    def test_the_best_state_is_put_back(self, driver, guide):
        posterior, nll = self.run(driver, guide)
        assert min(nll) == nll[0] < nll[-1] and len(nll) == 12
        assert posterior.info["kept"] == "best (epoch 1)" and posterior.info["best_validation_nll"] == nll[0]
        assert self.nll(posterior) == pytest.approx(nll[0], abs=1e-6)

    def test_the_last_state_is_kept_when_asked(self):
        posterior, nll = self.run(keep="last")
        assert posterior.info["kept"] == "last" and posterior.info["best_epoch"] == 1
        assert self.nll(posterior) == pytest.approx(nll[-1], abs=1e-6)
        assert self.nll(posterior) > nll[0] + 0.01

    def test_the_best_state_comes_after_the_kl_warmup(self):
        posterior, nll = self.run(SVI, MeanField(init_scale=0.05), kl_warmup=0.5)
        assert nll.index(min(nll)) == 0
        assert posterior.info["best_epoch"] == 7
        assert self.nll(posterior) == pytest.approx(nll[6], abs=1e-6)

    @pytest.mark.parametrize(("warmup", "epochs", "best"), [(0.9, 4, 4), (0.5, 4, 3), (0.5, 2, 2), (0.0, 4, 1)])
    def test_the_last_state_can_be_the_best_after_any_warmup(self, warmup, epochs, best):
        """One step an epoch: that of epoch ``e`` has the weight of the share ``(e - 1) / epochs`` of the steps."""
        posterior, nll = self.run(SVI, MeanField(init_scale=0.05), kl_warmup=warmup, epochs=epochs)
        assert all(earlier < later for earlier, later in itertools.pairwise(nll))  # the first that may be kept is best
        assert posterior.info["kept"] == f"best (epoch {best})"
        assert posterior.info["best_validation_nll"] == nll[best - 1]

    def test_learned_parameters_are_put_back_too(self):
        monitor = Monitor()
        driver = ML(epochs=12, batch_size=24, learning_rate=0.1, warmup=0.0)
        prior = {"bias": Learned(), "*": Normal()}
        posterior = driver.run(classifier(prior), None, self.data, monitor=monitor)
        assert self.nll(posterior) == pytest.approx(monitor.history[0]["validation_nll"], abs=1e-6)

    def test_running_statistics_are_put_back_too(self):
        torch.manual_seed(0)
        model = BayesianModel(nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 3)), Normal())
        monitor = Monitor()
        driver = ML(epochs=12, batch_size=24, learning_rate=0.1, warmup=0.0)
        posterior = driver.run(model, None, self.data, monitor=monitor)
        nll = [entry["validation_nll"] for entry in monitor.history]
        assert min(nll) < nll[-1] - 0.01
        assert self.nll(posterior) == pytest.approx(min(nll), abs=1e-6)

    def test_epochs_between_looks(self):
        posterior, nll = self.run(validate_every=5)
        assert [value is not None for value in nll] == [i in (4, 9, 11) for i in range(12)]
        assert posterior.info["best_epoch"] == 5

    def test_without_validation_data_the_last_state_is_kept(self):
        posterior = ML(epochs=1).run(classifier(), None, Data(X, Y))
        assert posterior.info["kept"] == "last" and "best_epoch" not in posterior.info


def test_the_kl_grows_as_asked():
    monitor = Monitor()
    driver = SVI(epochs=8, batch_size=12, kl_warmup=0.5, kl_weight=0.2)
    driver.run(classifier(), MeanField(), Data(X, Y), monitor=monitor)
    last_steps = [(2 * epoch - 1) / 16 for epoch in range(1, 9)]
    assert [entry["beta"] for entry in monitor.history] == pytest.approx([0.2 * min(1, s / 0.5) for s in last_steps])
    assert SVI().beta(0.0) == 1.0


def test_a_weight_of_zero_leaves_the_scales_to_the_likelihood():
    def scale(**settings):
        posterior = SVI(epochs=60, learning_rate=0.05, **settings).run(
            classifier(), MeanField(init_scale=0.1), Data(X, Y)
        )
        return posterior.info["guide"]["mean_field"]["scale"]["median"]

    assert scale(kl_weight=0.0) < 0.1 < scale()


def test_the_history_adds_up():
    monitor = Monitor()
    model = classifier()
    SVI(epochs=2, batch_size=8).run(model, MeanField(init_scale=0.1), Data(X, Y), monitor=monitor)
    for entry in monitor.history:
        assert entry["elbo"] == pytest.approx(entry["log_likelihood"] - entry["kl"] - entry["row_kl"], rel=1e-5)
    # scaled to all data, not to a batch
    by_hand = -24 * math.log(3)
    assert 0.3 * by_hand > monitor.history[0]["log_likelihood"] > 3 * by_hand


def gradient_noise(particles, runs=120):
    model = classifier()
    guide = Guide(model, MeanField(init_scale=0.5), (X[:2],))
    objective = OnePassELBO(num_particles=particles)
    rows = []
    for _ in range(runs):
        loss = objective.differentiable_loss(model, guide, X, Y)
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(guide.parameters()))]))
    gradients = torch.stack(rows)
    return gradients.mean(0), gradients.var(0).sum()


def test_particles_lower_the_noise_of_the_gradient():
    mean, one = gradient_noise(1)
    same, eight = gradient_noise(8)
    assert 4 < one / eight < 16
    assert not 4 < one / gradient_noise(1)[1] < 16  # planted
    assert ((mean - same).norm() ** 2) < 25 * (one + eight) / 120


@pytest.mark.parametrize("driver", [SVI, MAP, ML])
def test_float64_is_kept_throughout(driver):
    guide = MeanField() if driver is SVI else None
    posterior = driver(epochs=1, dtype="float64").run(classifier({"bias": Learned(), "*": Normal()}), guide, Data(X, Y))
    assert {p.dtype for p in (*posterior.guide.parameters(), *posterior.model.parameters())} == {torch.float64}
    assert posterior.draw(2)["weight"].dtype == torch.float64


def test_rows_and_learned_weights_train():
    torch.manual_seed(0)
    net = Transformer(Features(2, copies=2), Output(3), width=8, heads=2, depth=1)
    model = BayesianModel(net, {"*.rows": PriorRows(kl_weight=0.01), "head.*": Normal(), "*": Learned()})
    monitor = Monitor()
    driver = SVI(epochs=60, batch_size=12, learning_rate=0.02)
    families = {"*.rows": DirichletRows(), "*": MeanField()}
    posterior = driver.run(model, families, Data(X, Y), monitor=monitor)
    assert monitor.history[-1]["log_likelihood"] > 0.5 * monitor.history[0]["log_likelihood"]
    assert monitor.history[-1]["elbo"] > monitor.history[0]["elbo"]
    assert monitor.history[0]["row_kl"] > 0
    assert (posterior.model.net.position - net.position).abs().max() > 0.01
    sharpness = posterior.info["guide"]["dirichlet_rows"]["sharpness"]["blocks.0.attention.rows"]
    assert len(sharpness) == 2 and all(abs(value - 30) > 0.1 for value in sharpness)
    assert (posterior.predict(X, 16).labels == Y).float().mean() > 0.8


def test_the_model_and_the_families_that_are_given_stay_as_they_were():
    model, family = classifier({"bias": Learned(), "*": Normal()}), MeanField()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    posterior = SVI(epochs=2).run(model, family, Data(X, Y))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not list(family.parameters()) and posterior.model is not model
    assert model.training and not posterior.model.training


def test_a_posterior_may_be_trained_further():
    monitor = Monitor()
    driver = SVI(epochs=15, learning_rate=0.05)
    first = driver.run(regression(), MeanField(), Data(X, REAL), monitor=monitor)
    second = driver.run(first.model, first.guide, Data(X, REAL), monitor=monitor)
    elbo = [entry["elbo"] for entry in monitor.history]
    assert elbo[0] < elbo[14] - 1 and elbo[14] < elbo[29] - 1 and abs(elbo[15] - elbo[14]) < (elbo[14] - elbo[0]) / 2
    assert second.guide is first.guide


@pytest.mark.parametrize(("driver", "guide"), [(ML, None), (SVI, MeanField())])
def test_nets_with_statistics_and_dropout_train(driver, guide):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 3))
    posterior = driver(epochs=40, learning_rate=0.02).run(BayesianModel(net, Normal()), guide, Data(X, Y, X, Y))
    assert torch.equal(posterior.predict(X[:1], 3).probabilities, posterior.predict(X[:1], 3).probabilities)
    assert (posterior.predict(X, 8).labels == Y).float().mean() > 0.8
    assert (posterior.model.net[1].running_mean != 0).all() and (net[1].running_mean == 0).all()


def test_posteriors_start_at_the_net():
    model = classifier()
    with torch.no_grad():
        model.net.weight.fill_(0.7)
    posterior = SVI(epochs=1, learning_rate=1e-9).run(model, MeanField(init_scale=1e-6), Data(X, Y))
    assert torch.allclose(posterior.draw(1)["weight"], torch.tensor(0.7), atol=1e-4)
