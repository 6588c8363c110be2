"""What goes on inside a net while it runs: its attention rows, and its tokens between the blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor, nn

from .attention import Attention
from .sites import row_sites
from .transformer import Block

SeeRows = Callable[[str, Tensor, Tensor | None], None]
SeeTokens = Callable[[str, Tensor], None]
EMBEDDED = "embedding"
"""What the tokens are called that enter the first block."""


@contextmanager
def watching(net: nn.Module, rows: SeeRows | None = None, tokens: SeeTokens | None = None) -> Iterator[None]:
    """Show the inside of a net whenever it runs within this block; the net itself is left as it was.

    Args:
        net: A net whose own layers are looked at; those of other libraries are not seen.
        rows: Called with the name of a layer's rows, the rows ``[..., B, H, T, M]`` of T queries and M keys, computed
            or drawn, and the mask of their valid entries, broadcastable to them, or None when all are.
        tokens: Called with ``embedding`` and the tokens ``[..., B, T, D]`` that enter the first block, then with each
            block's name and the tokens that leave it.
    """
    handles = []
    layers = row_sites(net) if rows is not None else {}
    blocks = {name: block for name, block in net.named_modules() if isinstance(block, Block)}
    try:
        for name, layer in layers.items():
            layer.__dict__["rows"] = _shown(layer, name, rows)
        for index, (name, block) in enumerate(blocks.items() if tokens is not None else ()):
            handles.append(block.register_forward_hook(_told(tokens, name, first=index == 0)))
        yield
    finally:
        for layer in layers.values():
            with suppress(KeyError):
                del layer.__dict__["rows"]
        for handle in handles:
            handle.remove()


def _shown(layer: Attention, name: str, see: Any) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    def rows(scores: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        found = type(layer).rows(layer, scores, keys, mask)
        see(name, found, mask)
        return found

    return rows


def _told(see: Any, name: str, first: bool) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
    def hook(block: nn.Module, given: tuple[Any, ...], result: Tensor) -> None:
        if first:
            see(EMBEDDED, given[0])
        see(name, result)

    return hook
