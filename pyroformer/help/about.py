"""Everything about one choice, from its class, its hints and its docstring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import yamlfile
from ..choices import KINDS, Kind, SpecError, hints_of, kind_of, type_name
from ..guides import Family
from ..priors import PointEstimate, RowPrior
from ..priors.globs import near_misses
from ..spec import KEYS
from .docstrings import Docstring, Equation, description, equations, read
from .wording import defaults, in_words, own_first, short

WIDTH = 76
"""Of a line of YAML in an example: longer ones are written as a block."""


@dataclass(frozen=True)
class Setting:
    """A setting of a choice: its type in words, its default as a user would write it, and what it does."""

    name: str
    type: str
    default: str
    description: str


@dataclass(frozen=True)
class Base:
    """What a choice has from a base class: its name, and what its docstring says before the settings."""

    name: str
    summary: str
    body: tuple[str | Equation, ...]


@dataclass(frozen=True)
class About:
    """A choice, as `show` finds it.

    Args:
        kind: What it is: ``prior``, ``guide``, ...
        name: Its name.
        summary: What it is, in a sentence.
        body: Equations and paragraphs, in the order of the docstring.
        settings: With types, defaults and descriptions.
        raises: When which error is raised.
        reference: The literature.
        bases: What it shares with other choices.
        example: A spec that is accepted, as YAML.
    """

    kind: str
    name: str
    summary: str
    body: tuple[str | Equation, ...]
    settings: tuple[Setting, ...]
    raises: dict[str, str]
    reference: str
    bases: tuple[Base, ...]
    example: str

    @property
    def equations(self) -> tuple[Equation, ...]:
        """The displayed formulas of its own."""
        return equations(self.body)

    def __rich__(self) -> Any:
        from .about_view import AboutView

        return AboutView(self)

    def __str__(self) -> str:
        from .terminal import as_text

        return as_text(self)


def show(*words: str) -> About:
    """Everything about a choice: ``show("prior", "normal")``, or ``show("normal")`` where only one kind has the name.

    Args:
        words: A kind, singular or plural, and a name; or a name alone.

    Returns:
        What the choice is, its settings and an example; it prints as text.

    Raises:
        SpecError: There is no such choice.
    """
    kind, name = _found(words)
    return about(kind, name)


def _found(words: tuple[str, ...]) -> tuple[Kind, str]:
    owners: dict[str, list[str]] = {}
    for kind in KINDS.values():
        for each in kind.classes():
            owners.setdefault(each, []).append(kind.name)
    by_word = {**KINDS, **{f"{name}s": kind for name, kind in KINDS.items()}}
    asked = " ".join(words)
    if len(words) == 1:
        name, found = words[0], owners.get(words[0], [])
        if len(found) == 1:
            return KINDS[found[0]], name
        if found:
            raise SpecError("show", asked, " or ".join(f"{kind} {name}" for kind in found))
        if name in by_word:
            raise SpecError("show", asked, f"a name as well, among {', '.join(by_word[name].classes())}")
        near = near_misses(name, [*owners, *KINDS])
        raise SpecError("show", asked, f"the name of a choice; pyroformer list has them all{near}")
    if len(words) != 2:
        raise SpecError("show", asked or None, "a kind and a name, such as prior normal, or a name alone")
    if words[0] not in by_word:
        raise SpecError("show", words[0], f"a kind among {', '.join(KINDS)}, study{near_misses(words[0], by_word)}")
    kind, name = by_word[words[0]], words[1]
    if name not in kind.classes():
        elsewhere = f"; {name} is a {owners[name][0]}" if name in owners else near_misses(name, kind.classes())
        raise SpecError("show", name, f"a {kind.name} among {', '.join(kind.classes())}{elsewhere}")
    return kind, name


def about(kind: Kind, name: str) -> About:
    """What is known of a choice of a kind."""
    cls = kind.classes()[name]
    said = read(cls)
    return About(
        kind.name, name, said.summary, said.body, settings(cls), said.raises, said.reference, bases(kind, cls),
        example(kind, cls, said),
    )  # fmt: skip


def settings(cls: type) -> tuple[Setting, ...]:
    """The settings of a class: its own first, then those of its base classes, nearest first."""
    hints, standard = hints_of(cls), defaults(cls)
    return tuple(
        Setting(name, type_name(hints.get(name, Any)), in_words(standard[name]), description(cls, name))
        for name in own_first(cls)
    )


def bases(kind: Kind, cls: type) -> tuple[Base, ...]:
    """The base classes that tell choices of a kind apart; the one base of a whole kind says nothing new."""
    found: list[type] = [base for base in cls.__mro__[1:] if issubclass(base, kind.bases) and (base,) != kind.bases]
    said = [(base, read(base)) for base in found]
    # what the root of a family of choices says after its first sentence is for those who write new ones
    return tuple(
        Base(base.__name__, doc.summary, equations(doc.body) if base in kind.bases else doc.body)
        for base, doc in said
        if doc.summary
    )


def example(kind: Kind, cls: type, said: Docstring | None = None, most: int = 3) -> str:
    """A spec with this choice, as YAML: with its most particular settings at their defaults.

    Args:
        kind: Its kind.
        cls: Its class.
        said: Its docstring, where it has an example of its own.
        most: Settings to write at most.
    """
    if said and said.example:
        return said.example + "\n"
    standard = defaults(cls)
    named = [name for name in own_first(cls) if standard[name] is not None][:most]
    name = next(each for each, found in kind.classes().items() if found is cls)
    parts = _placed(kind, cls, {name: {each: short(standard[each]) for each in named}} if named else name)
    lines = {key: f"{key}: {yamlfile.flow(parts[key])}\n" for key in KEYS if key in parts}
    return "".join(line if len(line) < WIDTH else yamlfile.dump({key: parts[key]}) for key, line in lines.items())


def _placed(kind: Kind, cls: type, choice: Any) -> dict[str, Any]:
    """A spec that has a choice where one of its kind may stand."""
    spec: dict[str, Any] = {"task": "digits"}
    if issubclass(cls, RowPrior):
        return {**spec, "prior": {"*.rows": choice, "*": "normal"}}
    if issubclass(cls, Family) and cls.local:
        prior = "gamma_rows" if getattr(cls, "space", "") == "positive" else "dirichlet_rows"
        return {**spec, "prior": {"*.rows": prior, "*": "normal"}, "guide": {"*.rows": choice, "*": "mean_field"}}
    if issubclass(cls, PointEstimate):
        return {**spec, "prior": {"head.*": choice, "*": "normal"}}
    if kind.name in KEYS:
        return {**spec, kind.name: choice}
    for key in KEYS:
        for name, owner in KINDS[key].classes().items() if key in KINDS else ():
            for setting, hint in hints_of(owner).items():
                inner = kind_of(hint)
                if inner is not None and setting in defaults(owner) and issubclass(cls, inner.bases):
                    return _placed(KINDS[key], owner, {name: {setting: choice}})
    return spec
