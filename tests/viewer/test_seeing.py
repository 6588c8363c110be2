"""What a viewer is told of attention: moments over draws, by hand and in closed form."""

import math

import pytest
import torch

from pyroformer import priors
from pyroformer.guides import Delta, DirichletRows, Guide, MeanField
from pyroformer.inference import DataError, DrawsPosterior, GuidePosterior, MixturePosterior, decompose
from pyroformer.models import BayesianModel, Features, Gaussian, Image, Output, Series, Tokens, Transformer
from pyroformer.priors import Learned, Normal, SettingError
from pyroformer.viewer import data as module
from pyroformer.viewer import has_attention, read_seen, see_attention, write_seen
from pyroformer.viewer.data import MOST_ENTRIES

FLAT = priors.DirichletRows(center=priors.FlatCenter(), concentration=1.0, floor=0.0)

IMAGES = torch.rand(5, 4, 4, generator=torch.Generator().manual_seed(0))


def fitted(inputs=None, rows=False, family=None, depth=1, seed=0, x=IMAGES, likelihood=None, sharpness=5.0, **settings):
    torch.manual_seed(seed)
    net = Transformer(inputs or Image(4, 4, patch=2), Output(3), width=8, heads=2, depth=depth, **settings)
    with torch.no_grad():
        for block in net.blocks:
            block.attention.query.weight.mul_(4)
    prior = {**({"*.rows": FLAT} if rows else {}), "*": Normal() if family else Learned()}
    model = BayesianModel(net, prior, likelihood)
    rows = {"*.rows": DirichletRows(sharpness=sharpness, floor=0.1)} if rows else {}
    return GuidePosterior(model, Guide(model, rows | ({"*": family} if family else {}), (x[:2],)), (x[:2],))


def softmax_rows(net, x, layer=0):
    """The rows of a layer of a net without random rows."""
    tokens, _ = net.embedding(x)
    tokens = tokens + net.position
    for block in net.blocks[:layer]:
        tokens = block(tokens, None)
    attention, normed = net.blocks[layer].attention, net.blocks[layer].norm1(tokens)
    query, key = attention.split(attention.query(normed)), attention.split(attention.key(normed))
    return (query @ key.mT * key.shape[-1] ** -0.5).softmax(-1).detach()


def test_computed_rows_vary_with_the_weights_alone():
    generator = torch.Generator().manual_seed(1)
    model = fitted(family=Delta()).model
    draws = {n: v + 0.3 * torch.randn(7, *v.shape, generator=generator) for n, v in model.initial_values().items()}
    seen = see_attention(DrawsPosterior(model, draws), IMAGES, num_samples=7)
    each = []
    for s in range(7):
        model.set_initial_values({name: values[s] for name, values in draws.items()})
        each.append(softmax_rows(model.net, IMAGES))
    rows = torch.stack(each).double()
    (layer,) = seen.layers
    assert layer.name == "blocks.0.attention" and not layer.random and layer.learned is None
    assert torch.allclose(layer.mean.double(), rows.mean(0), atol=1e-6)
    assert torch.allclose(layer.sd.double(), rows.std(0, correction=0), atol=1e-5)
    entropies = torch.special.entr(rows).sum(-1)
    assert torch.allclose(layer.entropy.double(), entropies.mean(0), atol=1e-5)
    assert torch.allclose(layer.mean_entropy.double(), torch.special.entr(rows.mean(0)).sum(-1), atol=1e-5)
    assert not torch.allclose(layer.entropy, layer.mean_entropy, atol=1e-3)  # planted: entropy of the mean
    assert torch.allclose(layer.relative.double(), entropies.mean((0, 1, 3)) / math.log(4), atol=1e-5)
    assert (layer.keys == 4).all()


def test_a_point_has_no_spread():
    posterior = fitted(family=Delta())
    seen = see_attention(posterior, IMAGES)
    assert (seen.layers[0].sd == 0).all() and seen.num_samples == 1
    assert torch.allclose(seen.layers[0].mean, softmax_rows(posterior.model.net, IMAGES), atol=1e-6)
    assert torch.equal(seen.low, seen.high) and torch.allclose(seen.low, seen.mean)


def test_rows_of_a_known_law_have_its_moments_whatever_the_draws():
    posterior = fitted(rows=True)
    concentration = 5.0 * softmax_rows(posterior.model.net, IMAGES) + 0.1
    law = torch.distributions.Dirichlet(concentration)
    for num_samples in (1, 3):
        (layer,) = see_attention(posterior, IMAGES, num_samples=num_samples).layers
        assert layer.random and torch.allclose(layer.mean, law.mean, atol=1e-5)
        assert torch.allclose(layer.sd, law.variance.sqrt(), atol=1e-4)
        assert not torch.allclose(layer.sd, concentration.std(-1, keepdim=True), atol=1e-2)  # planted
    assert layer.learned == {"sharpness": (5.0, 5.0)}


def test_the_variance_of_the_law_adds_to_that_of_the_weights():
    family = MeanField(init_scale=0.2)
    both = see_attention(fitted(rows=True, family=family), IMAGES, num_samples=400).layers[0]
    sharp = see_attention(fitted(rows=True, family=family, sharpness=1e6), IMAGES, num_samples=400).layers[0]
    assert (both.sd > sharp.sd).float().mean() > 0.95
    within = both.mean * (1 - both.mean) / (5.4 + 1)  # of the mean row; Jensen: above the mean variance
    total = within + sharp.sd.square()
    assert 0.7 < float(both.sd.square().mean() / total.mean()) < 1.05
    assert float(sharp.sd.square().mean() / total.mean()) < 0.7  # planted: the weights alone


def test_members_of_a_mixture_weigh_the_same():
    members = [fitted(family=Delta(), seed=0), fitted(family=Delta(), seed=1)]
    seen = see_attention(MixturePosterior(members), IMAGES)
    each = torch.stack([softmax_rows(member.model.net, IMAGES) for member in members])
    assert torch.allclose(seen.layers[0].mean, each.mean(0), atol=1e-6)
    assert torch.allclose(seen.layers[0].sd, each.std(0, correction=0), atol=1e-5)


def test_masked_keys_are_counted():
    x = torch.tensor([[1, 2, 3, 0, 0], [1, 2, 3, 4, 1]])
    posterior = fitted(Tokens(5, 5, padding=0), family=Delta(), x=x, rows=True, causal=True)
    (layer,) = see_attention(posterior, x, words=("-", "a", "b", "c", "d")).layers
    assert layer.keys.tolist() == [[1, 2, 3, 0, 0], [1, 2, 3, 4, 5]]
    assert (layer.mean[0, :, 3:] == 0).all() and (layer.mean[0, :, :, 3:] == 0).all()
    assert torch.allclose(layer.mean[1].sum(-1), torch.ones(2, 5), atol=1e-5)
    assert (layer.relative <= 1).all() and layer.relative.isfinite().all()


def test_predictions_and_their_parts_are_those_of_the_posterior():
    posterior = fitted(rows=True, family=MeanField(init_scale=0.2))
    seen = see_attention(posterior, IMAGES, torch.arange(5) % 3, num_samples=20, seed=3)
    assert torch.allclose(seen.mean.double(), posterior.predict(IMAGES, 20, seed=3).probabilities, atol=1e-6)
    p = posterior.outputs(IMAGES, 20, seed=3).double().softmax(-1)
    assert torch.allclose(seen.low.double(), p.quantile(0.05, 0), atol=1e-6)
    assert torch.allclose(seen.high.double(), p.quantile(0.95, 0), atol=1e-6)
    parts = decompose(posterior, IMAGES, seed=3)
    assert torch.allclose(seen.parts[1].double(), parts.rows, atol=1e-6) and seen.measure == "entropy"


def test_reals_have_intervals():
    posterior = fitted(Features(2), family=MeanField(), x=torch.randn(4, 2), likelihood=Gaussian(scale=0.5))
    seen = see_attention(posterior, torch.randn(4, 2), features=["a", "b"])
    assert seen.measure == "variance" and seen.parts.shape == (3, 4, 3)
    assert (seen.low < seen.mean).all() and (seen.mean < seen.high).all()
    assert seen.shown == {"kind": "features", "copies": 4, "features": ["a", "b"]}


def test_what_inputs_are_is_told_by_the_net():
    assert see_attention(fitted(family=Delta()), IMAGES).shown == {"kind": "image", "height": 4, "width": 4, "patch": 2}
    x = torch.randn(2, 6, 1)
    assert see_attention(fitted(Series(6), family=Delta(), x=x), x).shown == {"kind": "series"}


def test_only_so_many_inputs_are_kept(monkeypatch):
    posterior = fitted(family=Delta())
    whole = see_attention(posterior, IMAGES)
    assert len(whole) == 5 and MOST_ENTRIES == 2**18
    monkeypatch.setattr(module, "MOST_ENTRIES", 2 * (2 * 16) + 1)
    few = see_attention(posterior, IMAGES, torch.arange(5) % 3)
    assert len(few) == len(few.y) == 2 and torch.allclose(few.layers[0].mean, whole.layers[0].mean[:2])
    monkeypatch.setattr(module, "MOST_ENTRIES", 1)
    assert len(see_attention(posterior, IMAGES)) == 1


def test_what_cannot_be_seen_is_refused():
    model = BayesianModel(torch.nn.Linear(3, 4), Normal())
    plain = GuidePosterior(model, Guide(model, Delta(), (torch.zeros(2, 3),)), (torch.zeros(2, 3),))
    assert not has_attention(plain)
    with pytest.raises(SettingError, match=r"Linear.*those of other libraries are not seen"):
        see_attention(plain, torch.zeros(2, 3))
    with pytest.raises(DataError, match="no examples"):
        see_attention(fitted(family=Delta()), IMAGES[:0])


def test_what_was_seen_is_read_as_it_was_written(tmp_path):
    seen = see_attention(fitted(rows=True, depth=2), IMAGES, torch.arange(5) % 3, classes=("a", "b", "c"))
    write_seen(seen, tmp_path / "attention.safetensors")
    again = read_seen(tmp_path / "attention.safetensors")
    for name in ("x", "y", "mean", "low", "high", "parts"):
        assert torch.equal(getattr(again, name), getattr(seen, name))
    assert (again.shown, again.measure, again.num_samples) == (seen.shown, seen.measure, seen.num_samples)
    for there, here in zip(again.layers, seen.layers, strict=True):
        assert (there.name, there.random, there.learned) == (here.name, here.random, here.learned)
        assert torch.allclose(there.mean, here.mean, rtol=1e-3, atol=1e-6) and torch.equal(there.keys, here.keys)
    assert read_seen(tmp_path / "nothing") is None
    (tmp_path / "attention.safetensors").write_text("broken")
    with pytest.raises(ValueError, match="not a safetensors file"):
        read_seen(tmp_path / "attention.safetensors")
