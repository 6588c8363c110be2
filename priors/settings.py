"""Settings: the keyword arguments that would build an object again.

Every choice a user makes (a prior, a guide family, a driver, a task) is an object whose keyword-only constructor
arguments are kept as attributes of the same name. This file reads them back and reports bad ones.
"""

from __future__ import annotations

import inspect
import re
from typing import Any, get_args, get_origin


class SettingError(ValueError):
    """A setting has a value that its owner cannot accept.

    Args:
        key: The setting's name, dotted when it is nested.
        value: The value that was given.
        expected: What would be accepted, in words.
    """

    def __init__(self, key: str, value: Any, expected: str):
        self.key, self.value, self.expected = key, value, expected
        super().__init__(f"{key} = {value!r}: expected {expected}".removeprefix(" = "))

    def __reduce__(self) -> tuple[Any, ...]:  # BaseException would rebuild it from the message alone
        return type(self), (self.key, self.value, self.expected)

    def below(self, owner: str) -> SettingError:
        """The same error, with its key placed below ``owner``."""
        return type(self)(f"{owner}.{self.key}" if self.key else owner, self.value, self.expected)


def check(owner: object, key: str, accepted: bool, expected: str) -> None:
    """Raise a `SettingError` about ``owner.key`` unless ``accepted``."""
    if not accepted:
        raise SettingError(key, getattr(owner, key), expected)


def check_positive(owner: object, *keys: str) -> None:
    """Each named setting is a finite number above 0."""
    for key in keys:
        value = getattr(owner, key)
        check(owner, key, 0 < value < float("inf"), "a number above 0")


def check_count(owner: object, *keys: str) -> None:
    """Each named setting is a whole number of at least 1."""
    for key in keys:
        value = getattr(owner, key)
        whole = isinstance(value, int) and not isinstance(value, bool)
        check(owner, key, whole and value >= 1, "a whole number of at least 1")


def keep_tuple(owner: object, key: str) -> None:
    """Keep a setting as a tuple, which is hashable, whatever sequence was given."""
    if isinstance(getattr(owner, key), list):
        object.__setattr__(owner, key, tuple(getattr(owner, key)))


def check_numbers(owner: object, key: str) -> None:
    """A setting is a sequence of at least one finite number, all above 0."""
    keep_tuple(owner, key)
    values = getattr(owner, key)
    check(owner, key, isinstance(values, tuple) and len(values) > 0, "a list of numbers above 0")
    for index, value in enumerate(values):
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise SettingError(f"{key}.{index}", value, "a number above 0")


def check_option(owner: object, key: str, options: Any) -> None:
    """A setting is one of ``options`` (a ``Literal`` type or a collection of strings)."""
    options = get_args(options) if get_origin(options) else tuple(options)
    check(owner, key, getattr(owner, key) in options, "one of " + ", ".join(map(str, options)))


def choice_name(cls: type) -> str:
    """The snake_case name under which a class is chosen: ``DeepEnsemble`` is ``deep_ensemble``, ``SVI`` is ``svi``.

    A base class may declare a ``choice_suffix`` that is left out: with ``Center``, ``FlatCenter`` is ``flat``.
    """
    name = cls.__name__.removesuffix(getattr(cls, "choice_suffix", ""))
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return words.lower()


def parameters(cls: type) -> dict[str, inspect.Parameter]:
    """The settings of a class: the keyword-only arguments of its constructor."""
    signature = inspect.signature(cls)
    return {name: p for name, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY}


def settings(choice: object) -> dict[str, Any]:
    """The present values of a choice's settings."""
    return {name: getattr(choice, name) for name in parameters(type(choice))}


def describe(choice: Any) -> Any:
    """A choice as plain data, ``{name: {setting: value}}``, from which it can be built again."""
    if choice is None or isinstance(choice, str | int | float | bool):
        return choice
    if isinstance(choice, dict):
        return {str(key): describe(value) for key, value in choice.items()}
    if isinstance(choice, list | tuple):
        return [describe(value) for value in choice]
    return {choice_name(type(choice)): {name: describe(value) for name, value in settings(choice).items()}}
