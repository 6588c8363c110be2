"""Runs of a net with all draws of a posterior, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import torch
from torch import Tensor

from ...models import Categorical
from ...models.calling import eval_mode
from ...priors import SettingError, choice_name
from ..data import Inputs, move, move_one, take
from ..draws_posterior import DrawsPosterior
from ..posterior import Posterior, store_as_it_was
from ..prediction import slices
from .chunks import FEWEST
from .quantity import by_chain


def has_chains(posterior: Posterior) -> bool:
    """Whether a posterior is one of chains with a few draws each, and tells what happened to them."""
    if not isinstance(posterior, DrawsPosterior) or not posterior.statistics:
        return False
    return (posterior.num_samples or 0) >= FEWEST * posterior.chains


def with_chains(posterior: Posterior) -> DrawsPosterior:
    """A posterior, if it is one of chains.

    Raises:
        SettingError: It is of another kind, or does not tell what happened to its chains.
    """
    if not isinstance(posterior, DrawsPosterior) or not has_chains(posterior):
        kind = choice_name(type(posterior))
        expected = f"draws of Markov chains, as nuts and other samplers give them, at least {FEWEST} of each"
        raise SettingError("posterior", kind, expected)
    return posterior


def blocks(posterior: DrawsPosterior, x: Inputs, batch_size: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """All draws of a posterior in their order, as many at once as the net may see with so many examples."""
    total = posterior.num_samples
    assert total is not None
    yield from posterior.chunks(total, posterior.most_draws(x, batch_size))


@contextmanager
def evaluating(posterior: Posterior, seed: int) -> Iterator[None]:
    """Run the net of a posterior without gradients, from a seed; the global random state is left as it was."""
    with (
        torch.random.fork_rng(devices=[]),
        torch.no_grad(),
        pyro.validation_enabled(False),
        store_as_it_was(),
        eval_mode(posterior.model),
    ):
        torch.manual_seed(seed)
        yield


def log_probabilities(posterior: Posterior, draws: dict[str, Tensor], x: Inputs, y: Tensor, size: int) -> Tensor:
    """The log-probability ``[S, B]`` of each observation of a batch under each draw, in float64 on the CPU."""
    outputs, drawn = posterior.run(draws, x, size)
    likelihood = posterior.model.likelihood
    seen = y.clamp(min=0) if isinstance(likelihood, Categorical) and likelihood.per_token else y
    return likelihood.distribution(outputs, drawn, y).log_prob(seen).double().cpu()


def pointwise_log_likelihood(
    posterior: DrawsPosterior, x: Inputs, y: Tensor, *, seed: int = 0, batch_size: int = 256
) -> Tensor:
    r"""The log-likelihood of every example under every draw, such as LOO needs it.

    .. math:: \ell_{s, n} = \ln p(y_n \mid x_n, w_s)

    Args:
        posterior: Draws of ``K`` chains, one chain after the other.
        x, y: Examples ``[N, ...]``, for LOO those of training.
        seed: Of attention rows, where these are random given the draws.
        batch_size: Examples that the net sees at once, default 256.

    Returns:
        ``[K, S, N]`` in float64 on the CPU; of sequences the sum over their tokens.
    """
    anchor = next(posterior.model.parameters())
    x, y = move(x, anchor.device, anchor.dtype), move_one(y, anchor.device, anchor.dtype)
    found = []
    with evaluating(posterior, seed):
        for size, draws in blocks(posterior, x, batch_size):
            parts = slices(len(y), batch_size)
            found.append(torch.cat([log_probabilities(posterior, draws, take(x, p), y[p], size) for p in parts], 1))
    return by_chain(torch.cat(found), posterior.chains)
