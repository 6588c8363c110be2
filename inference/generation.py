"""Sequences drawn token by token from the posterior predictive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import pyro
import torch
from torch import Tensor

from ..models.calling import eval_mode
from ..priors import SettingError
from .calibration import CalibratedGathering
from .contexts import context_of
from .data import DataError, Inputs
from .mixture_posterior import leaves
from .posterior import MAX_NUMBERS, NUM_SAMPLES, Posterior, store_as_it_was
from .prediction import ClassPrediction, gathering

MAX_TOKENS = 2**14
"""About how many tokens a chunk of draws passes through the net at once."""


@dataclass(frozen=True, eq=False)
class Generation:
    r"""Tokens that were drawn one after the other, and how sure the posterior was of each before it was drawn.

    Args:
        prompt: What was given, ``[P]``: the text so far, or the source.
        tokens: What was drawn, ``[G]``.
        prediction: For each of them the predictive distribution that it was drawn from, at temperature 1: probabilities
            ``[G, C]``, entropy, expected entropy and mutual information ``[G]``, in nats.
    """

    prompt: Tensor
    tokens: Tensor
    prediction: ClassPrediction

    @property
    def probability(self) -> Tensor:
        """The predictive probability of each token that was drawn, ``[G]``."""
        return self.prediction.probabilities.gather(-1, self.tokens.unsqueeze(-1)).squeeze(-1)


def generate(
    posterior: Posterior,
    prompt: Tensor,
    num_tokens: int,
    *,
    num_samples: int = NUM_SAMPLES,
    temperature: float = 1.0,
    seed: int = 0,
    excluded: Sequence[int] = (),
) -> Generation:
    r"""Write a sequence by draws from the posterior predictive: go on from a text, or write the target of a source.

    .. math:: p(x_{t+1} \mid x_{\le t}) = \frac1S \sum_s p(x_{t+1} \mid x_{\le t}, w_s, A_s^{(t)}), \qquad
              A_s^{(t)} \sim q(A \mid x_{\le t}, w_s), \qquad x_{t+1} \sim p^{1/\tau} / Z

    The draws :math:`w_s` of the weights are made once and are the same functions for the whole sequence; attention rows
    belong to an input, and are drawn anew at every step for the whole context. All draws keep the same weight: the
    sequence is an input, and no evidence for one function or another. Where it outgrows the net's context, its last
    tokens are the input, from the first position on.

    A net of two sequences is given a source, which is the prompt, and predicts the next token of its target, from the
    one that marks the start; a target has no end of its own.

    A posterior that predicts in closed form (a Laplace approximation with ``link="probit"``) does so here too, without
    draws.

    Args:
        posterior: Of a causal net with an output per token, such as a `Transformer` learns on the task ``text``, or of
            a net of two sequences, such as an `EncoderDecoder`.
        prompt: Whole numbers ``[P]``, at least one and no padding: the text so far, of tokens that are predicted; or
            the source.
        num_tokens: ``G``, how many to draw; of a target at most the longest.
        num_samples: ``S``, default 32; a posterior without randomness takes one.
        temperature: :math:`\tau`, default 1; lower ones prefer probable tokens, 0 takes the most probable one. It
            changes what is drawn, and not what is told of it.
        seed: Of the draws and, in a stream of their own, of the tokens; the global random state is left as it was.
        excluded: Tokens that are never drawn, fewer than all.

    Returns:
        The tokens with their uncertainty.

    Raises:
        SettingError: A setting is out of range, or the net is not causal, has no context or no output per token, or
            does not tell how a target starts.
        DataError: The prompt is empty or too long, or holds what is no token.
    """
    context = context_of(posterior.model)
    if num_tokens < 1:
        raise SettingError("num_tokens", num_tokens, "a whole number of at least 1")
    if not 0 <= temperature < float("inf"):
        raise SettingError("temperature", temperature, "a number of at least 0")
    if prompt.dim() != 1 or not len(prompt) or prompt.is_floating_point():
        found = f"prompt is {prompt.dtype} of shape {tuple(prompt.shape)}"
        raise DataError(f"{found}: expected whole numbers, at least one")
    size = getattr(getattr(posterior.model.net, "outputs", None), "size", None)
    if size is not None:
        context.check(prompt, num_tokens, size)
        _check_excluded(excluded, size)
    device = next(posterior.model.parameters()).device
    given = prompt.to(device)
    written = given.new_empty(0)
    steps: list[ClassPrediction] = []
    chooser = _chooser(seed)
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        for manager in (torch.no_grad(), pyro.validation_enabled(False), store_as_it_was()):
            stack.enter_context(manager)
        torch.manual_seed(seed)
        functions = list(_functions(posterior, num_samples, max(1, MAX_TOKENS // context.tokens)))
        for owner in {id(owner): owner for owner, _, _ in functions}.values():
            stack.enter_context(eval_mode(owner.model))
        for _ in range(num_tokens):
            step = _next(posterior, functions, context.inputs(given, written))
            if size is None and not steps:
                context.check(prompt, num_tokens, step.probabilities.shape[-1])
                _check_excluded(excluded, step.probabilities.shape[-1])
            steps.append(step)
            token = chosen(step.probabilities[0], temperature, excluded, chooser)
            written = torch.cat([written, token.to(device)])
    probabilities = torch.cat([step.probabilities for step in steps])
    expected = torch.cat([step.expected_entropy for step in steps])
    prediction = ClassPrediction(probabilities, expected, steps[0].num_samples)
    return Generation(prompt.cpu(), written.cpu(), prediction)


def _check_excluded(excluded: Sequence[int], size: int) -> None:
    """Raise an error unless some token may be drawn."""
    for token in excluded:
        if not 0 <= token < size:
            raise SettingError("excluded", token, f"whole numbers from 0 to {size - 1}")
    if len(set(excluded)) == size:
        raise SettingError("excluded", list(excluded), f"fewer than all {size} tokens")


def _chooser(seed: int) -> torch.Generator:
    """What chooses tokens: with the very seed it would repeat the numbers that weights and rows are drawn with."""
    own = torch.randint(2**62, (), generator=torch.Generator().manual_seed(seed))
    return torch.Generator().manual_seed(int(own))


Function = tuple[Posterior, int, dict[str, Tensor]]


def _functions(posterior: Posterior, num_samples: int, most: int) -> Iterator[Function]:
    """Draws in chunks of at most ``most``, each with the posterior that runs it: members have nets of their own.

    One that predicts in closed form has no draws.
    """
    for leaf, count, _ in leaves(posterior, posterior._available(num_samples)):
        if leaf.closed_form:
            yield leaf, 1, {}
            continue
        fitting = max(1, min(most, MAX_NUMBERS // max(leaf.num_weights, 1)))
        for size, weights in leaf.chunks(count, fitting):
            yield leaf, size, weights


def _next(posterior: Posterior, functions: list[Function], x: Inputs) -> ClassPrediction:
    """The prediction of the token behind the last one of an input."""
    gathered = gathering(posterior.model.likelihood, 1)
    if posterior.calibrated is not None:
        gathered = CalibratedGathering(gathered, posterior.calibrated)
    for owner, size, weights in functions:
        outputs, drawn = (owner.in_closed_form(x, last=True), {}) if owner.closed_form else owner.run(weights, x, size)
        gathered.add(slice(0, 1), outputs[..., -1, :], drawn)
    found: ClassPrediction = gathered.result()
    return found


def chosen(probabilities: Tensor, temperature: float, excluded: Sequence[int], generator: torch.Generator) -> Tensor:
    """One token ``[1]`` from probabilities ``[C]`` at a temperature."""
    logs = probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()  # what is left may all be 0
    if len(excluded):
        logs[list(excluded)] = -torch.inf
    if not temperature:
        return logs.argmax(-1, keepdim=True)
    return torch.multinomial(((logs - logs.max()) / temperature).softmax(-1), 1, generator=generator)
