"""Cross attention: keys and values from a memory, against torch's and against the shorter memory."""

import pyro
import pytest
import torch
from pyro import poutine
from scipy import stats
from torch import nn

from pyroformer import priors
from pyroformer.models import Attention

FIVE_SIGMA = 2 * stats.norm.sf(5)
PRIORS = pytest.mark.parametrize(
    "prior",
    [
        priors.DirichletRows(center=priors.FlatCenter(), concentration=1.0, floor=0.0),
        priors.DirichletRows(),
        priors.DirichletRows(center=priors.ContextualCenter()),
        priors.DirichletRows(center=priors.SoftmaxCenter()),
    ],
    ids=lambda p: type(p).__name__,
)
VALID = torch.arange(6) < torch.tensor([6, 2, 4])[:, None]
MASK = VALID[:, None, None, :]


@pytest.fixture
def attention():
    torch.manual_seed(0)
    return Attention(8, 2).double()


@pytest.fixture
def x():
    return torch.randn(3, 5, 8, dtype=torch.float64)


@pytest.fixture
def memory():
    return torch.randn(3, 6, 8, dtype=torch.float64)


def theirs(attention):
    """Torch's attention with the same weights."""
    found = nn.MultiheadAttention(8, 2, batch_first=True).double()
    parts = (attention.query, attention.key, attention.value)
    found.load_state_dict(
        {
            "in_proj_weight": torch.cat([part.weight for part in parts]),
            "in_proj_bias": torch.cat([part.bias for part in parts]),
            "out_proj.weight": attention.output.weight,
            "out_proj.bias": attention.output.bias,
        }
    )
    return found


@pytest.mark.parametrize("masked", [False, True])
def test_it_is_torchs_attention(attention, x, memory, masked):
    found = attention(x, MASK if masked else None, memory)
    padding = ~VALID if masked else None
    expected, _ = theirs(attention)(x, memory, memory, key_padding_mask=padding)
    torch.testing.assert_close(found, expected)
    swapped, _ = theirs(attention)(x, memory, memory.flip(1), key_padding_mask=padding)
    assert not torch.allclose(found, swapped, rtol=1e-3)  # planted: values of other keys


def test_without_a_memory_it_is_self_attention(attention, x):
    torch.testing.assert_close(attention(x, None, x), attention(x), rtol=0, atol=0)
    expected, _ = theirs(attention)(x, x, x)
    torch.testing.assert_close(attention(x), expected)


def test_padded_memory_equals_the_shorter_one(attention, x, memory):
    for i, n in enumerate([6, 2, 4]):
        filled = torch.where(VALID.unsqueeze(-1), memory, 1e3)
        found = attention(x, MASK, filled)[i]
        torch.testing.assert_close(found, attention(x[i : i + 1], None, memory[i : i + 1, :n])[0])
    assert not torch.allclose(attention(x, None, filled)[1], attention(x[1:2], None, memory[1:2, :2])[0])  # planted


@PRIORS
def test_rows_of_a_memory_are_offered_with_their_activations(attention, x, memory, prior):
    attention.set_row_prior(prior, "cross.rows")
    attention.double()
    with pyro.plate("data", 3, dim=-1):
        trace = poutine.trace(attention).get_trace(x, MASK, memory)
    site = trace.nodes["cross.rows"]
    assert site["fn"].batch_shape == (3,) and site["fn"].event_shape == (2, 5, 6)
    assert set(site["infer"]) == {"scores", "mask", "keys", "law"}
    q, k = attention.split(attention.query(x)), attention.split(attention.key(memory))
    torch.testing.assert_close(site["infer"]["keys"], k)
    torch.testing.assert_close(site["infer"]["scores"], q @ k.mT / 2)
    assert not site["value"].masked_select(~MASK).any()
    torch.testing.assert_close(site["value"].sum(-1), torch.ones(3, 2, 5, dtype=torch.float64))


@PRIORS
@pytest.mark.parametrize("batched", ["x", "memory", "both"])
def test_draws_of_one_side_go_with_the_other(attention, x, memory, prior, batched):
    """Mean rows of draws ``[S, B, ...]`` are those of each draw on its own."""
    attention.set_row_prior(prior, "rows")
    attention.double()
    xs = x + torch.randn(4, 3, 5, 8).double() if batched != "memory" else x
    memories = memory + torch.randn(4, 3, 6, 8).double() if batched != "x" else memory

    class Mean(poutine.messenger.Messenger):
        def _pyro_sample(self, msg):
            msg["value"], msg["done"] = msg["fn"].mean, True

    with Mean():
        found = attention(xs, MASK, memories)
        for s in range(4):
            each = attention(xs[s] if xs.dim() == 4 else xs, MASK, memories[s] if memories.dim() == 4 else memories)
            torch.testing.assert_close(found[s], each)


@PRIORS
def test_drawn_rows_of_padded_memory_have_the_law_of_the_shorter_one(attention, x, memory, prior):
    attention.set_row_prior(prior, "rows")
    attention.double()

    def outputs(mask, kept):
        with torch.no_grad(), pyro.plate("draws", 3000, dim=-2), pyro.plate("data", 1, dim=-1):
            return attention(x[1:2], mask, memory[1:2, :kept])[:, 0, 0, 0]

    padded, short, blind = outputs(MASK[1:2], 6), outputs(None, 2), outputs(None, 6)
    assert stats.ks_2samp(padded, short).pvalue > FIVE_SIGMA
    assert stats.ks_2samp(blind, short).pvalue < FIVE_SIGMA  # planted: no mask
