"""A causal transformer with random rows: what comes later has no say, and what is too long is refused."""

import pytest
import torch

from pyroformer import priors
from pyroformer.models import BayesianModel, Categorical, Output, Tokens, Transformer
from pyroformer.priors import Learned, SettingError

INPUTS = Tokens(7, 6, causal=True)


def test_a_task_that_predicts_the_next_token_makes_a_net_causal(batch_of):
    x = batch_of(INPUTS)
    torch.manual_seed(0)
    net = Transformer(INPUTS, Output(7, per_token=True), width=8, heads=2, depth=1)
    assert net.causal is None and not net.looks_ahead
    other = x.clone()
    other[:, 4] = x[:, 4] % 6 + 1
    assert torch.equal(net(x)[:, :4], net(other)[:, :4])
    assert Transformer(Tokens(7, 6), Output(7, per_token=True), width=8, heads=2).looks_ahead
    assert not Transformer(Tokens(7, 6), Output(7), width=8, heads=2, causal=True).looks_ahead
    with pytest.raises(SettingError, match="causal = False: expected null or true"):
        Transformer(INPUTS, Output(7, per_token=True), width=8, heads=2, causal=False)


@pytest.mark.parametrize("causal", [True, False])
def test_with_random_rows_too(build, batch_of, causal):
    """With the rows of one seed: a draw for a row is made of that row's numbers and of those of rows before it."""
    net = build(Tokens(7, 6), per_token=True, causal=causal, depth=1)
    model = BayesianModel(
        net,
        {"*.rows": priors.DirichletRows(center=priors.SoftmaxCenter(), concentration=1e6), "*": Learned()},
        Categorical(per_token=True),
    )
    model, x = model.double(), batch_of(INPUTS, 1)
    other = x.clone()
    other[:, 4] = x[:, 4] % 6 + 1

    def mean(inputs):
        torch.manual_seed(3)
        with torch.no_grad():
            return torch.stack([model(inputs) for _ in range(20)])

    difference = (mean(x) - mean(other)).abs().amax((0, 1, 3))
    noise = mean(x).std(0).max()  # rows of so high a concentration are softmax rows up to this
    assert difference[4] > 20 * noise
    assert (difference[:4].max() < 10 * noise) == causal


def test_positions_beyond_those_that_were_trained_are_refused(build):
    net = build(Tokens(7, 6), per_token=True, causal=True)
    assert net.context == 6
    with pytest.raises(ValueError, match="x has 7 tokens an example: expected at most 6"):
        net(torch.ones(1, 7, dtype=torch.long))
