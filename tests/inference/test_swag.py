"""SWAG: the moments of the iterates of SGD, whatever the posterior is."""

import itertools
import math

import pytest
import torch
from torch import nn

from pyroformer.inference import MAP, ML, SWAG, Data, DeepEnsemble, InferenceError, Library, LowRankPosterior, Monitor
from pyroformer.inference.iterates import Iterates
from pyroformer.inference.swag import Collecting
from pyroformer.models import BayesianModel, Gaussian
from pyroformer.priors import Learned, Normal, SettingError, Uniform

START = ML(epochs=3, batch_size=16, learning_rate=0.05, dtype="float64")
DRAWS = 20_000


@pytest.fixture
def recorded(monkeypatch):
    """Every vector that an optimisation was asked for at the end of its epochs."""
    seen, present = [], Collecting.present

    def recording(self):
        seen.append(present(self).clone())
        return seen[-1]

    monkeypatch.setattr(Collecting, "present", recording)
    return seen


def moments(iterates, columns, c=0.5):
    """Mean and covariance by hand, from the iterates one by one; ``columns`` of them are kept."""
    theta = torch.stack(iterates)
    means = torch.stack([theta[: n + 1].mean(0) for n in range(len(theta))])
    kept = (theta - means)[-columns:]
    diagonal = theta.square().mean(0) - theta.mean(0).square()
    return theta.mean(0), c * (diagonal.diag() + kept.T @ kept / (len(kept) - 1))


def agrees(draws, mean, covariance):
    """Mean and covariance of draws ``[S, P]`` of a normal within 5 standard errors, in every entry."""
    sd = covariance.diag().sqrt()
    off_mean = (draws.mean(0) - mean).abs() / (sd / math.sqrt(len(draws)))
    error = ((covariance.square() + sd.outer(sd).square()) / len(draws)).sqrt()
    return bool(off_mean.max() < 5 and ((draws.T.cov() - covariance).abs() / error).max() < 5)


@pytest.mark.parametrize(("rank", "columns"), [(4, 4), (30, 7)])
def test_draws_have_the_moments_of_the_iterates(line, recorded, rank, columns):
    driver = SWAG(start=START, epochs=15, collect_every=2, rank=rank, learning_rate=0.05)
    posterior = driver.run(line.model(), None, line.data)
    iterates = recorded[1:]  # the first call is for the shape
    assert len(iterates) == 7 and posterior.info["iterates"] == 7 and posterior.info["rank"] == columns
    mean, covariance = moments(iterates, rank)
    torch.testing.assert_close(posterior.mean, mean)
    torch.testing.assert_close(posterior.scale.square().diag() + posterior.factor.T @ posterior.factor, covariance)
    draws = line.flat(posterior.draw(DRAWS))
    assert agrees(draws, mean, covariance)
    assert not agrees(draws, mean, 2 * covariance)  # planted: c = 1
    assert not agrees(draws, mean, covariance.diag().diag())  # planted: no low-rank part
    assert not agrees(draws, iterates[-1], covariance)  # planted: the last iterate in the place of the mean
    if columns < rank:
        fewer = covariance.diag().diag() + (covariance - covariance.diag().diag()) * (columns - 1) / (rank - 1)
        assert not agrees(draws, mean, fewer)  # planted: divided by the settings' number of columns


def test_the_scale_multiplies_the_covariance(line):
    first = SWAG(start=START, epochs=5).run(line.model(), None, line.data)
    second = SWAG(start=START, epochs=5, scale=2.0).run(line.model(), None, line.data)
    torch.testing.assert_close(second.scale, 2 * first.scale)
    torch.testing.assert_close(second.factor, 2 * first.factor)
    assert (first.info["temperature"], second.info["temperature"]) == (1.0, 4.0)


def stationary(x, y, size, rate, noise):
    """Mean and covariance at the ends of epochs of SGD on least squares: every order of two batches, with equal weight.

    An epoch is an affine map, so that both solve linear equations.
    """
    design, maps = torch.cat([x, torch.ones_like(x[:, :1])], 1), []
    for chosen in itertools.combinations(range(len(x)), size):
        a, b = torch.eye(2).double(), torch.zeros(2).double()
        for batch in (list(chosen), [i for i in range(len(x)) if i not in chosen]):
            step = torch.eye(2) - rate * design[batch].T @ design[batch] / size / noise**2
            shift = rate * design[batch].T @ y[batch, 0] / size / noise**2
            a, b = step @ a, step @ b + shift
        maps.append((a, b))
    a, b = torch.stack([a for a, _ in maps]), torch.stack([b for _, b in maps])
    mean = torch.linalg.solve(torch.eye(2) - a.mean(0), b.mean(0))
    residual = b + (a @ mean) - mean  # an epoch's step from the mean
    doubled = torch.stack([torch.kron(each, each) for each in a]).mean(0)
    source = (residual.unsqueeze(2) @ residual.unsqueeze(1)).mean(0).reshape(-1)
    return mean, torch.linalg.solve(torch.eye(4) - doubled, source).view(2, 2), a.mean(0)


def test_it_finds_where_sgd_wanders_and_not_the_posterior():
    generator, noise, rate = torch.Generator().manual_seed(1), 1.0, 0.4
    x = torch.randn(6, 1, generator=generator).double()
    x = (x - x.mean()) / x.std(correction=0)  # every direction forgets as fast
    y = x + noise * torch.randn(6, 1, generator=generator).double()
    torch.manual_seed(0)
    model = BayesianModel(nn.Linear(1, 1), Normal(), Gaussian(scale=noise))
    start = ML(epochs=20, batch_size=3, learning_rate=0.2, dtype="float64")
    driver = SWAG(start=start, epochs=500, learning_rate=rate, momentum=0.0, scale=1.0)
    posterior = driver.run(model, None, Data(x, y))
    mean, covariance, contraction = stationary(x, y, 3, rate, noise)
    slowest = float(torch.linalg.eigvals(contraction).abs().max())
    independent = 500 * (1 - slowest) / (1 + slowest)

    def near(variance):
        return bool((posterior.scale.square() / variance - 1).abs().max() < 5 * (2 / independent) ** 0.5)

    assert independent > 200
    assert ((posterior.mean - mean).abs() / covariance.diag().sqrt()).max() < 5 / independent**0.5
    assert near(covariance.diag())
    design = torch.cat([x, torch.ones_like(x)], 1)
    exact = (design.T @ design / noise**2 + torch.eye(2)).inverse().diag()
    assert not near(exact) and not near(covariance.diag() / 2)  # planted: the posterior; half the variance


def test_the_loss_is_that_of_the_start(line):
    """Iterates gather around least squares after maximum likelihood, and around ridge regression after the MAP."""
    for kind, target, other in (
        (ML, line.mean(prior=None), line.mean()),
        (MAP, line.mean(), line.mean(prior=None)),
    ):
        start = kind(epochs=60, batch_size=40, learning_rate=0.1, dtype="float64")
        found = SWAG(start=start, epochs=150, learning_rate=0.1).run(line.model(), None, line.data).mean
        assert (found - target).abs().max() < 1e-3 < (found - other).abs().max()


def test_it_goes_on_from_the_trained_net(line, recorded):
    trained = line.flat(START.run(line.model(), None, line.data).draw(1))[0]
    SWAG(start=START, epochs=2, learning_rate=1e-9).run(line.model(), None, line.data)
    for iterate in recorded:
        torch.testing.assert_close(iterate, trained, atol=1e-6, rtol=0.0)


def test_momentum_is_used(line, recorded):
    for momentum in (0.0, 0.9):
        SWAG(start=START, epochs=2, momentum=momentum).run(line.model(), None, line.data)
    assert torch.equal(recorded[0], recorded[3]) and (recorded[2] - recorded[5]).abs().max() > 1e-3


def test_bounded_sites_are_treated_without_their_bounds(line, recorded):
    model = line.model(Uniform(scale=1.6), noise="random", scale=1.0)
    posterior = SWAG(start=START, epochs=6, learning_rate=0.05, scale=4.0).run(model, None, line.data)
    draws = posterior.draw(500)
    assert (draws["weight"].abs() <= 1.6).all() and (draws["noise_scale"] > 0).all()
    assert draws["noise_scale"].log().std() > 0
    at = list(posterior.sites.shapes).index("noise_scale")
    logs = torch.stack(recorded[1:])[:, posterior.sites.sizes[:at] and sum(posterior.sites.sizes[:at])]
    torch.testing.assert_close(posterior.mean[-1], logs.mean())
    middle = draws["noise_scale"].log().mean()
    assert (middle - logs.mean()).abs() < 5 * draws["noise_scale"].log().std() / 500**0.5


def test_learned_parameters_end_at_their_mean(line, recorded):
    model = line.model({"bias": Learned(), "*": Normal()})
    posterior = SWAG(start=START, epochs=6, learning_rate=0.05).run(model, None, line.data)
    biases = torch.stack(recorded[1:])[:, 3]
    torch.testing.assert_close(posterior.model.net.bias[0].detach(), biases.mean())
    assert (biases - biases.mean()).abs().max() > 1e-4  # planted: the last one would do as well
    assert list(posterior.draw(2)) == ["weight"]


def test_statistics_of_normalisation_are_those_of_the_mean(line):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))
    start = ML(epochs=3, batch_size=20, learning_rate=0.05, dtype="float64")
    posterior = SWAG(start=start, epochs=6, learning_rate=0.2).run(
        BayesianModel(net, Normal(), Gaussian()), None, line.data
    )
    weights, norm = posterior.sites.values(posterior.mean[None]), posterior.model.net[1]
    hidden = line.x.double() @ weights["0.weight"][0].T + weights["0.bias"][0]
    torch.testing.assert_close(norm.running_mean, hidden.mean(0))
    halves = torch.stack([half.var(0) for half in hidden.split(20)])
    torch.testing.assert_close(norm.running_var, halves.mean(0))
    one = posterior.draw(1)
    other = line.x.double() @ one["0.weight"][0].T + one["0.bias"][0]
    assert not torch.allclose(norm.running_mean, other.mean(0))  # planted: those of a draw
    assert norm.momentum == 0.1 and not norm.training


class OverTokens(nn.Module):
    """A net that normalises over the tokens of an example too, so that one example is enough to train on."""

    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(3), nn.Linear(3, 1)

    def forward(self, x):
        return self.head(self.norm(x).tanh().mean(-1))


@pytest.mark.parametrize(("size", "examples", "together"), [(1, 5, 2), (1, 4, 2), (2, 5, 2), (3, 5, 3), (1, 1, 1)])
def test_statistics_of_normalisation_are_renewed_whatever_the_batch(size, examples, together):
    torch.manual_seed(0)
    x = 4.0 + 2.0 * torch.randn(examples, 3, 6)
    start = ML(epochs=1, batch_size=size)
    model = BayesianModel(OverTokens(), Normal(), Gaussian())
    norm = SWAG(start=start, epochs=2).run(model, None, Data(x, x.mean((1, 2))[:, None])).model.net.norm
    batches = [batch for batch in x.split(together) if len(batch) > 1 or examples == 1]
    means = torch.stack([batch.mean((0, 2)) for batch in batches])
    variances = torch.stack([batch.transpose(1, 2).reshape(-1, 3).var(0) for batch in batches])
    torch.testing.assert_close(norm.running_mean, means.mean(0))
    torch.testing.assert_close(norm.running_var, variances.mean(0))
    assert norm.running_mean.abs().min() > 1  # planted: statistics that were reset and left so


def counted(folder):
    """A monitor with a library, and how often a net was trained for it."""
    library, trainings = Library(folder), []
    get = library.get

    def counting(work, net, inner, find):
        return get(work, net, inner, lambda: trainings.append(1) or find())

    library.get = counting
    return Monitor(library=library), trainings


def test_multi_swag_starts_from_the_nets_of_the_plain_ensemble(line, tmp_path):
    monitor, trainings = counted(tmp_path)
    plain = DeepEnsemble(member=START, size=2).run(line.model(), None, line.data, 3, monitor)
    assert len(trainings) == 2
    driver = DeepEnsemble(member=SWAG(start=START, epochs=2, learning_rate=1e-12), size=2)
    posterior = driver.run(line.model(), None, line.data, 3, monitor)
    assert len(trainings) == 2  # nothing is trained twice
    for member, trained in zip(posterior.members, plain.members, strict=True):
        assert isinstance(member, LowRankPosterior)
        torch.testing.assert_close(member.mean, line.flat(trained.draw(1))[0])
    alone = driver.run(line.model(), None, line.data, 3)
    assert all(torch.equal(a.mean, b.mean) for a, b in zip(alone.members, posterior.members, strict=True))
    driver.run(line.model(), None, line.data, 4, monitor)
    assert len(trainings) == 4  # planted: another seed has other nets


def test_predictions_average_over_draws_of_all_members(line):
    driver = DeepEnsemble(member=SWAG(start=START, epochs=3), size=2)
    posterior = driver.run(line.model(), None, line.data)
    predicted = posterior.predict(line.x, 6)
    assert predicted.num_samples == 6 and posterior.num_samples is None
    by_hand = torch.cat([line.flat(posterior.members[i].draw(3)) for i in range(2)]) @ line.design.T
    assert predicted.loc.shape == (6, 40, 1)
    torch.testing.assert_close(predicted.loc[:3, :, 0], by_hand[:3])


@pytest.mark.parametrize("after", [0, 3])
def test_a_failure_hands_over_what_was_collected(after):
    class Spoiled(nn.Linear):
        epochs = 0

        def forward(self, x):
            self.epochs += self.training
            return super().forward(x) * (math.nan if self.epochs > 2 + after else 1.0)

    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    model = BayesianModel(Spoiled(3, 1), Normal(), Gaussian())
    start = MAP(epochs=2, batch_size=20)
    with pytest.raises(InferenceError, match=f"epoch {after + 1}, step {after + 1}: the loss is nan") as caught:
        SWAG(start=start, epochs=9).run(model, None, Data(x, x[:, :1]))
    posterior = caught.value.posterior
    if after:
        assert isinstance(posterior, LowRankPosterior) and posterior.info["kept"] == "last good (3 iterates)"
        assert posterior.draw(3)["weight"].isfinite().all()
    else:
        assert posterior is None


def test_divergence_is_noticed(line):
    with pytest.raises(InferenceError, match="epoch 2, step 2: the loss is nan") as caught:
        SWAG(start=ML(epochs=1), learning_rate=1e30, epochs=3).run(line.model(), None, line.data)
    assert caught.value.posterior.predict(line.x).mean.isfinite().all()
    driver = SWAG(start=ML(epochs=1, dtype="float64"), learning_rate=1e150, epochs=4)  # every loss is finite, just
    with pytest.raises(InferenceError, match="epoch 2: the moments of the iterates are not finite") as caught:
        driver.run(line.model(), None, line.data)
    assert caught.value.posterior.predict(line.x).mean.isfinite().all()


def test_the_running_moments_are_those_of_all_at_once():
    values = 1e4 + torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    found = Iterates(values[0], 5)
    for value in values:
        found = found.with_next(value)
    torch.testing.assert_close(found.mean, values.mean(0))
    torch.testing.assert_close(found.variance, values.var(0, correction=0), rtol=1e-2, atol=0.0)
    cancelled = values.square().mean(0) - values.mean(0).square()
    assert not torch.allclose(cancelled, values.var(0, correction=0), rtol=1e-2)  # planted: second moment less square
    assert found.deviations.shape == (5, 3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(learning_rate=0.0), "learning_rate = 0.0: expected a number above 0"),
        (dict(momentum=1.0), "momentum = 1.0: expected a number of at least 0 and below 1"),
        (dict(epochs=5, collect_every=3), "epochs = 5: expected at least 6: two iterates, one every 3"),
        (dict(rank=1), "rank = 1: expected at least 2 columns"),
        (dict(scale=-0.5), "scale = -0.5"),
        (dict(start=SWAG()), "start = .*: expected a point estimate: map or ml"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(SettingError, match=message):
        SWAG(**wrong)


def test_a_model_without_random_sites_is_refused(line):
    with pytest.raises(SettingError, match=r"at least one random site; .*ml trains them"):
        SWAG().run(line.model(Learned()), None, None)
