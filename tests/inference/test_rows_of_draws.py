"""Predictions of stored draws of the weights where attention rows are random: new rows, from their prior."""

import pytest
import torch
from torch import nn

from pyroformer.inference import DrawsPosterior, Posterior, decompose
from pyroformer.models import Attention, BayesianModel, Gaussian
from pyroformer.priors import DirichletRows, Fixed, GammaRows, Normal, SoftmaxCenter

CONCENTRATION, FLOOR, NOISE = 2.0, 0.5, 0.2
X = torch.tensor([[[1.5], [-0.5]], [[0.2], [1.0]]]).double()


class Mixture(nn.Module):
    """The mixture of two values that the first of two tokens attends to."""

    takes_batched_weights = True

    def __init__(self):
        super().__init__()
        self.attention = Attention(1, 1)
        with torch.no_grad():
            for name, value in self.named_parameters():
                value.fill_(1.0 if name.endswith("weight") else 0.0)

    def forward(self, x):
        return self.attention(x)[..., 0, :]


def mixture(law=None):
    law = law or DirichletRows(concentration=CONCENTRATION, floor=FLOOR)
    prior = {"*.rows": law, "attention.query.weight": Normal(), "attention.value.weight": Normal(), "*": Fixed()}
    return BayesianModel(Mixture(), prior, Gaussian(scale=NOISE)).double()


def stored(count, law=None):
    generator = torch.Generator().manual_seed(0)
    names = ("attention.query.weight", "attention.value.weight")
    draws = {name: 1 + torch.randn(count, 1, 1, generator=generator, dtype=torch.float64) for name in names}
    return DrawsPosterior(mixture(law), draws)


def by_hand(posterior):
    """Mean and variance of the output ``[S, N]`` of every draw over the rows that the prior has for its weights."""
    q, v = (posterior.draws[f"attention.{name}.weight"].view(-1, 1, 1) for name in ("query", "value"))
    x = X.squeeze(-1)
    c = CONCENTRATION * (q * x[:, :1] * x).softmax(-1) + FLOOR
    a = c / c.sum(-1, keepdim=True)
    mean = (a * v * x).sum(-1)
    gap = (v * (x[:, :1] - x[:, 1:])).squeeze(-1)
    return mean, a.prod(-1) * gap.square() / (c.sum(-1) + 1)


def test_rows_of_new_inputs_come_from_their_prior_for_each_draw():
    posterior = stored(4000)
    found = posterior.predict(X, 4000).loc.squeeze(-1)  # [S, N]
    mean, variance = by_hand(posterior)
    residual = found - mean

    def errors(expected):
        return ((residual.square().mean(0) - expected.mean(0)).abs() / (residual.square().std(0) / 4000**0.5)).max()

    assert (residual.mean(0).abs() / (residual.std(0) / 4000**0.5)).max() < 5
    assert errors(variance) < 5
    assert errors(2 * variance) > 5  # planted
    assert errors(0 * variance) > 5  # planted: mean rows
    of_softmax = (posterior.draws["attention.value.weight"].view(-1, 1) * X[..., 0, 0] - mean).mean(0)
    assert (of_softmax.abs() / (residual.std(0) / 4000**0.5)).max() > 5  # planted: rows that see the first token alone


def test_every_draw_and_example_has_rows_of_its_own():
    posterior = stored(1)
    same = DrawsPosterior(posterior.model, {name: value.expand(6, 1, 1) for name, value in posterior.draws.items()})
    twice = torch.cat([X[:1], X[:1]])
    found = same.predict(twice, 6).loc.squeeze(-1)
    assert len(found.unique()) == 12
    assert torch.equal(same.predict(twice, 6).loc, same.predict(twice, 6).loc)
    assert not torch.equal(same.predict(twice, 6, seed=1).loc, same.predict(twice, 6).loc)


def test_plug_in_rows_are_the_mean_of_the_prior():
    posterior = stored(5)
    found = posterior.predict(X, 5, rows="mean").loc.squeeze(-1)
    mean, _ = by_hand(posterior)
    assert torch.allclose(found, mean)
    without_floor = DrawsPosterior(mixture(DirichletRows(concentration=CONCENTRATION)), posterior.draws)
    assert not torch.allclose(without_floor.predict(X, 5, rows="mean").loc.squeeze(-1), mean, rtol=1e-3)  # planted


def test_positive_entries_without_a_guide():
    law = GammaRows(center=SoftmaxCenter(), kl_normalization="none", concentration=CONCENTRATION, floor=FLOOR)
    posterior = stored(2000, law)  # rows of these entries are Dirichlet rows with the same numbers
    residual = posterior.predict(X, 2000).loc.squeeze(-1) - by_hand(posterior)[0]
    assert (residual.mean(0).abs() / (residual.std(0) / 2000**0.5)).max() < 5


def test_what_rows_are_unsure_of_is_told_apart():
    parts = decompose(stored(64), X, weights=64, rows=64)
    mean, variance = by_hand(stored(64))
    assert torch.allclose(parts.rows.flatten(), variance.mean(0), rtol=0.2)
    assert torch.allclose(parts.weights.flatten(), mean.var(0), rtol=0.3)


def test_the_same_after_saving(tmp_path):
    posterior = stored(7)
    posterior.save(tmp_path / "posterior")
    again = Posterior.load(tmp_path / "posterior", mixture())
    for rows in ("sample", "mean"):
        assert torch.equal(again.predict(X, 7, rows=rows).loc, posterior.predict(X, 7, rows=rows).loc)


def test_kept_rows_of_training_examples_play_no_part(tmp_path):
    posterior = stored(3)
    expected = posterior.predict(X, 3).loc
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).double().expand(3, 7, 1, 2, 2)
    kept = DrawsPosterior(posterior.model, {**posterior.draws, "attention.rows": rows})
    assert torch.equal(kept.predict(X, 3).loc, expected)
    assert "attention.rows" not in kept.draw(2)
    kept.save(tmp_path / "posterior")
    again = Posterior.load(tmp_path / "posterior", mixture())
    assert torch.equal(again.draws["attention.rows"], rows) and torch.equal(again.predict(X, 3).loc, expected)
    with pytest.raises(ValueError, match=r"draws of attention\.query\.weight have shape none"):
        DrawsPosterior(kept.model, {"attention.rows": rows}).save(tmp_path / "rows")
        Posterior.load(tmp_path / "rows", mixture())
