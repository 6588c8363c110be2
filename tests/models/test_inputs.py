"""Inputs: how each kind becomes tokens, and what is refused."""

import pytest
import torch
from torch import nn

from pyroformer.models import Features, Image, Output, Series, Tokens, Transformer
from pyroformer.priors import SettingError


def test_tokens_are_counted_before_there_is_data(inputs, build, batch_of):
    tokens, mask = build(inputs).embedding(batch_of(inputs))
    assert tokens.shape == (4, inputs.tokens, 8) and mask is None


@pytest.mark.parametrize("image", [Image(4, 4), Image(4, 6, channels=3), Image(6, 4, channels=2, patch=1)])
def test_patches_are_a_strided_convolution(image):
    embedding = image.embedding(8).double()
    convolution = nn.Conv2d(image.channels, 8, image.patch, stride=image.patch).double()
    with torch.no_grad():
        convolution.weight.copy_(embedding.project.weight.view_as(convolution.weight))
        convolution.bias.copy_(embedding.project.bias)
    x = torch.randn(3, image.channels, image.height, image.width, dtype=torch.float64)
    expected = convolution(x).flatten(2).mT
    torch.testing.assert_close(embedding(x)[0], expected)
    assert not torch.allclose(embedding(x.flip(-1))[0], expected)  # planted
    if image.channels == 1:
        torch.testing.assert_close(embedding(x.squeeze(1))[0], expected)


@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 2, 2), (4, 4), (4, 3, 4, 4), (4, 4, 4, 1)])
def test_images_of_another_size_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected \[B, 4, 4\]"):
        Image(4, 4).embedding(8)(torch.randn(shape))
    with pytest.raises(ValueError, match=r"expected \[B, 3, 5, 5\]"):  # channels last
        Image(5, 5, channels=3, patch=1).embedding(8)(torch.randn(4, 5, 5, 3))


def test_token_embedding_is_torchs():
    embedding, theirs = Tokens(7, 5).embedding(8), nn.Embedding(7, 8)
    theirs.load_state_dict(embedding.state_dict())
    x = torch.randint(7, (4, 5))
    torch.testing.assert_close(embedding(x)[0], theirs(x))
    assert embedding(x)[1] is None
    x[0, 3:] = 6
    assert torch.equal(Tokens(7, 5, padding=6).embedding(8)(x)[1], x != 6)


def test_features_become_multiples_of_their_own_embeddings():
    embedding = Features(3, copies=2).embedding(8)
    x = torch.randn(4, 3)
    tokens, _ = embedding(x)
    for j in range(3):
        for k in range(2):
            torch.testing.assert_close(tokens[:, 2 * j + k], x[:, j, None] * embedding.weight[2 * j + k])


def test_a_whole_net_by_hand(build, batch_of):
    inputs = Series(5, 2)
    net, x = build(inputs), batch_of(inputs)
    tokens = x @ net.embedding.project.weight.mT + net.embedding.project.bias + net.position
    for block in net.blocks:
        tokens = block(tokens, None)
    tokens = nn.functional.layer_norm(tokens, (8,), net.norm.weight, net.norm.bias)
    for pool, pooled in {"mean": tokens.mean(1), "first": tokens[:, 0], "last": tokens[:, -1]}.items():
        net.pool = pool
        torch.testing.assert_close(net(x), pooled @ net.head.weight.mT + net.head.bias)
    per_token = build(inputs, per_token=True)
    torch.testing.assert_close(per_token(x), tokens @ net.head.weight.mT + net.head.bias)


@pytest.mark.parametrize("length", [1, 3])
def test_shorter_sequences_are_fine_and_longer_ones_are_not(build, length):
    net = build(Tokens(7, 4))
    assert net(torch.randint(7, (2, length))).shape == (2, 3)
    with pytest.raises(ValueError, match="x has 5 tokens an example: expected at most 4"):
        net(torch.randint(7, (2, 5)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 10, "heads": 4}, "heads = 4: expected a divisor of the width 10"),
        ({"width": 0}, "width = 0: expected a whole number of at least 1"),
        ({"depth": 0}, "depth = 0"),
        ({"mlp_ratio": -1.0}, "mlp_ratio = -1.0"),
        ({"pool": "max"}, "pool = 'max': expected one of mean, first, last"),
        ({"patch": 3}, "patch = 3: expected a divisor of the image's height 4 and width 4"),
        ({"patch": 0}, "patch = 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        Transformer(Image(4, 4), Output(3), **settings)


def test_only_images_have_patches():
    with pytest.raises(SettingError, match="patch = 2: expected null: only images have patches"):
        Transformer(Tokens(7, 5), Output(3), patch=2)
    with pytest.raises(ValueError, match="patch = 3: expected a divisor"):
        Image(4, 4, patch=3)
    assert Transformer(Image(4, 4), Output(3), patch=4).position.shape == (1, 64)
