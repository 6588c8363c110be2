"""Nets that we did not write: any module of torch as the net of a model."""

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive
from torch import nn
from torch.func import functional_call

from pyroformer.models import BayesianModel
from pyroformer.models.calling import call
from pyroformer.priors import Fixed, Learned, Normal

Y = torch.tensor([0, 2, 1, 1])
TOKENS = torch.randint(1, 7, (4, 5), generator=torch.Generator().manual_seed(0))
PADDING = torch.arange(5) >= torch.tensor([5, 3, 2, 4])[:, None]


class Encoder(nn.Module):
    """Embedding, torch's encoder, mean over tokens, head."""

    def __init__(self, norm_first=True, dropout=0.0):
        super().__init__()
        self.embedding = nn.Embedding(7, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout, "gelu", batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x, padding=None):
        tokens = self.encoder(self.embedding(x), src_key_padding_mask=padding)
        if padding is None:
            return self.head(tokens.mean(1))
        return self.head(tokens.masked_fill(padding.unsqueeze(-1), 0.0).sum(1) / (~padding).sum(1, keepdim=True))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cell, self.head = kind(2, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


def real(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


NETS = {
    "pre-norm encoder": (lambda: Encoder(), (TOKENS,)),
    "post-norm encoder": (lambda: Encoder(norm_first=False), (TOKENS,)),
    "padded encoder": (lambda: Encoder(), (TOKENS, PADDING)),
    "convolution": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4).eval(), nn.Flatten(), nn.Linear(12, 3)),
        (real(4, 2, 5),),
    ),
    "perceptron": (lambda: nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3)), (real(4, 2),)),
    "lstm": (lambda: Recurrent(nn.LSTM), (real(4, 5, 2),)),
    "gru": (lambda: Recurrent(nn.GRU), (real(4, 5, 2),)),
}


@pytest.fixture(params=NETS)
def case(request):
    torch.manual_seed(0)
    make, inputs = NETS[request.param]
    return make().double(), inputs


def loop(net, weights, inputs):
    count = len(next(iter(weights.values())))
    return torch.stack(
        [
            functional_call(net, {n: w[s].reshape(net.get_parameter(n).shape) for n, w in weights.items()}, inputs)
            for s in range(count)
        ]
    )


def test_with_its_own_weights_the_model_is_the_net(case):
    net, inputs = case
    model = BayesianModel(net, Normal())
    x = inputs if len(inputs) > 1 else inputs[0]
    torch.testing.assert_close(poutine.condition(model, data=model.initial_values())(x, Y), net(*inputs))
    torch.testing.assert_close(BayesianModel(net, Fixed())(x), net(*inputs))
    assert list(model.sites) == [name for name, _ in net.named_parameters()]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no grad"])
def test_batched_weights_equal_a_loop(case, draws_of, training, grad):
    net, inputs = case
    if not isinstance(net, nn.Sequential):  # batch norm stays in evaluation mode
        net.train(training)
    weights = draws_of(net, 3, 1)
    with torch.set_grad_enabled(grad):
        found, expected = call(net, weights, inputs), loop(net, weights, inputs)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, expected.roll(1, 0), rtol=1e-2)  # planted


@pytest.mark.parametrize("count", [1, 3])
def test_draws_without_the_plates_dimension(case, draws_of, count):
    net, inputs = case
    weights = draws_of(net, count)
    torch.testing.assert_close(call(net, weights, inputs), loop(net, weights, inputs))
    some = dict(list(weights.items())[-1:])  # the others keep their values
    torch.testing.assert_close(call(net, some, inputs), loop(net, some, inputs))


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive(case, parallel):
    net, inputs = case
    model = BayesianModel(net, Normal())
    x = inputs if len(inputs) > 1 else inputs[0]
    sites = ["_RETURN", *model.sites]
    draws = Predictive(model, num_samples=3, parallel=parallel, return_sites=sites)(x)
    weights = {n: draws[n].reshape(3, 1, *p.shape) for n, p in net.named_parameters()}
    torch.testing.assert_close(draws["_RETURN"], loop(net, weights, inputs))


def test_particles_have_gradients(case, draws_of):
    net, inputs = case
    weights = {n: w.requires_grad_() for n, w in draws_of(net, 3, 1).items()}
    together = torch.autograd.grad(call(net, weights, inputs).square().sum(), list(weights.values()))
    apart = torch.autograd.grad(loop(net, weights, inputs).square().sum(), list(weights.values()))
    for a, b in zip(together, apart, strict=True):
        torch.testing.assert_close(a, b)


def test_settings_of_torchs_attention_are_put_back(draws_of):
    net = Encoder().double()
    call(net, draws_of(net, 3, 1), (TOKENS,))
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()


def test_dropout_is_drawn_for_each_sample():
    net = Encoder(dropout=0.3)
    weights = {n: p.detach().expand(3, 1, *p.shape) for n, p in net.named_parameters()}
    assert call(net.train(), weights, (TOKENS,)).std(0).min() > 0
    torch.testing.assert_close(call(net.eval(), weights, (TOKENS,)).std(0), torch.zeros(4, 3), atol=1e-5, rtol=0)
    with pyro.plate("draws", 3, dim=-2):
        assert BayesianModel(net.train(), Normal())(TOKENS, Y).shape == (3, 4, 3)
    assert BayesianModel(net.train(), Normal())(TOKENS, Y).shape == (4, 3)


def test_unknown_names_are_refused():
    net = Encoder()
    with pytest.raises(KeyError, match=r"head\.wieght is not a parameter of Encoder"):
        call(net, {"head.wieght": torch.zeros(3, 8)}, (TOKENS,))
    with pytest.raises(KeyError, match="is not a parameter of Linear"):
        call(nn.Linear(2, 3), {"weights": torch.zeros(3, 2)}, (torch.zeros(4, 2),), {"weight": torch.Size([3, 2])})


def test_tied_weights_follow_their_owner(draws_of):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, x):
            return self.head(self.embedding(x).mean(1))

    net = Tied().double()
    model = BayesianModel(net, Normal())
    assert list(model.sites) == ["embedding.weight"] and len(list(model.net.parameters())) == 1
    table = draws_of(net, 3, 1)["embedding.weight"]
    expected = torch.stack([t[TOKENS].mean(1) @ t.mT for t in table.squeeze(1)])
    torch.testing.assert_close(call(net, {"embedding.weight": table}, (TOKENS,)), expected)
    torch.testing.assert_close(poutine.condition(model, data={"embedding.weight": table[0, 0]})(TOKENS), expected[0])


def test_a_net_of_one_layer_has_short_names():
    model = BayesianModel(nn.Linear(2, 3), {"weight": Normal(), "bias": Learned()})
    assert list(model.sites) == ["weight"] and list(model.learned) == ["net.bias"]
    assert model(torch.zeros(4, 2)).shape == (4, 3)
