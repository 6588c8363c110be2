"""Running a net with given weights in the place of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel


def call(
    net: nn.Module,
    weights: Mapping[str, Tensor],
    inputs: tuple[Tensor, ...],
    shapes: Mapping[str, torch.Size] | None = None,
) -> Tensor:
    """Run a net with these weights in the place of its own.

    Args:
        net: Any module. One whose class says ``takes_batched_weights = True`` gets weights with sample dimensions as
            they are; for others they are mapped over with `torch.vmap` (recurrent ones: in a loop).
        weights: Values by parameter name, ``[*W]``, or ``[S, 1, *W]`` with any number of leading sample dimensions.
        inputs: The net's positional arguments.
        shapes: The shapes of the net's own parameters, by name, where they are known already.

    Returns:
        The net's output, with the weights' sample dimensions in front.

    Raises:
        KeyError: A name is not a parameter of the net (torch would ignore it).
    """
    shapes = {name: p.shape for name, p in net.named_parameters()} if shapes is None else shapes
    unknown = [name for name in weights if name not in shapes]
    if unknown:
        raise KeyError(f"{unknown[0]} is not a parameter of {type(net).__name__}")
    lead = torch.broadcast_shapes(*{w.shape[: w.dim() - len(shapes[name])] for name, w in weights.items()})
    if len(lead) == 1:  # draws without the plate's dimension, as MCMC returns them
        weights = {n: w if w.shape == shapes[n] else w.unsqueeze(-len(shapes[n]) - 1) for n, w in weights.items()}
        lead = torch.Size((*lead, 1))
    samples = lead[:-1]
    if not len(lead) or getattr(net, "takes_batched_weights", False):
        return functional_call(net, dict(weights), inputs)
    if lead.numel() == 1:  # one draw: plain weights are quicker
        output = functional_call(net, {name: w.reshape(shapes[name]) for name, w in weights.items()}, inputs)
        return output.expand(samples + output.shape)
    flat = {name: w.expand(lead + shapes[name]).reshape(-1, *shapes[name]) for name, w in weights.items()}
    if any(isinstance(module, nn.RNNBase) for module in net.modules()):  # vmap has no rule for them
        each = zip(*(values.unbind() for values in flat.values()), strict=True)
        outputs = torch.stack([functional_call(net, dict(zip(flat, w, strict=True)), inputs) for w in each])
    else:
        with known_to_vmap():
            outputs = torch.vmap(lambda w: functional_call(net, w, inputs), randomness="different")(flat)
    return outputs.unflatten(0, samples)


@contextmanager
def known_to_vmap() -> Iterator[None]:
    """Run torch's attention by plain products: for its fused kernels vmap falls back to a loop, with a warning."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Run with a module in evaluation mode, and put back the mode that each of its parts had."""
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in training.items():
            part.training = mode
