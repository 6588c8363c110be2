"""What a run of a model does with the values of its sample sites: which of them feed affine maps and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Message = dict[str, Any]


def arguments(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The arguments of an affine map, however they were passed."""
    return x, weight, bias


class AffineUses(Messenger):
    """Watches one run, without plates of samples, for sites that are weights or biases of affine maps and nothing else.

    Values are known by identity: what is computed from a site (a non-centred weight, a transpose) is no use of it in an
    affine map, and so counts as another use.
    """

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[int, tuple[str, Tensor]] = {}  # the values too: an identity means nothing once they are gone
        self._maps: dict[str, list[str]] = {}
        self._foreign: set[str] = set()
        self._others: set[str] = set()
        self._inside = False
        self._mode = _EveryFunction(self._see)

    @property
    def calls(self) -> dict[str, int]:
        """How many calls of `linear` used a site, in one role; sites with any other use are left out."""
        others = self._others | self._foreign
        return {name: len(roles) for name, roles in self._maps.items() if name not in others and len(set(roles)) == 1}

    @property
    def matrices(self) -> frozenset[str]:
        """The sites that are weights, never biases, of affine maps, by `linear` or by torch's own function."""
        ours = {name for name, roles in self._maps.items() if set(roles) == {"weight"}}
        theirs = self._foreign - self._maps.keys()
        return frozenset((ours | theirs) - self._others)

    def __enter__(self) -> Any:
        entered = super().__enter__()
        self._mode.__enter__()
        return entered

    def __exit__(self, *error: Any) -> Any:
        self._mode.__exit__(*error)
        return super().__exit__(*error)

    def _pyro_post_sample(self, msg: Message) -> None:
        if isinstance(msg["value"], Tensor):
            self._values[id(msg["value"])] = (msg["name"], msg["value"])

    def _pyro_linear(self, msg: Message) -> None:
        x, weight, bias = arguments(*msg["args"], **msg["kwargs"])
        self._others.update(self._names(x))
        for role, value in (("weight", weight), ("bias", bias)):
            for name in self._names(value):
                self._maps.setdefault(name, []).append(role)
        self._inside = True

    def _pyro_post_linear(self, msg: Message) -> None:
        self._inside = False

    def _see(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        if self._inside or not self._values or next(_tensors(result), None) is None:  # a look at a shape is no use
            return
        if function is F.linear:
            x, weight, bias = arguments(*args, **kwargs)
            self._foreign.update(self._names(weight))
            self._others.update(self._names((x, bias)))
        else:
            self._others.update(self._names((args, kwargs)))

    def _names(self, values: Any) -> list[str]:
        return [self._values[id(each)][0] for each in _tensors(values) if id(each) in self._values]


class _EveryFunction(TorchFunctionMode):
    """Tells someone of every call of torch."""

    def __init__(self, tell: Callable[..., None]):
        super().__init__()
        self.tell = tell

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.tell(func, args, kwargs or {}, result)
        return result


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))
    elif isinstance(values, list | tuple):
        for each in values:
            yield from _tensors(each)
