"""Small nets of every kind in double precision, with inputs and random weights for them."""

import pytest
import torch

from pyroformer.models import Features, Image, Output, Series, Tokens, Transformer

INPUTS = {
    "image": Image(4, 4),
    "colour image": Image(4, 6, channels=3),
    "tokens": Tokens(7, 5),
    "series": Series(5, 2),
    "features": Features(3, copies=2),
}


@pytest.fixture(params=INPUTS)
def inputs(request):
    return INPUTS[request.param]


@pytest.fixture
def batch_of():
    """``[B, ...]`` of an input, the same at every call."""

    def batch(inputs, size=4):
        generator = torch.Generator().manual_seed(1)
        if isinstance(inputs, Tokens):
            return torch.randint(1, inputs.vocabulary, (size, inputs.length), generator=generator)
        if isinstance(inputs, Image):
            shape = (inputs.channels, inputs.height, inputs.width) if inputs.channels > 1 else (4, 4)
        else:
            shape = (inputs.length, inputs.features) if isinstance(inputs, Series) else (inputs.features,)
        return torch.randn(size, *shape, generator=generator, dtype=torch.float64)

    return batch


@pytest.fixture
def build():
    """A transformer of width 8 with 2 heads, whose gains and biases are off their usual 1 and 0."""

    def build(inputs, outputs=3, *, per_token=False, depth=2, **settings):
        torch.manual_seed(0)
        net = Transformer(inputs, Output(outputs, per_token), width=8, heads=2, depth=depth, **settings).double()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return net

    return build


@pytest.fixture
def draws_of():
    """Random weights ``[*lead, *W]`` for a net, around its own."""

    def draw(net, *lead):
        return {n: p.detach() + 0.5 * torch.randn(*lead, *p.shape, dtype=p.dtype) for n, p in net.named_parameters()}

    return draw


@pytest.fixture
def net(build):
    return build(Series(5, 2), depth=1)


@pytest.fixture
def x(batch_of):
    """Inputs of `net`."""
    return batch_of(Series(5, 2))
