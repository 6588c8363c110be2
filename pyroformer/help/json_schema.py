"""A JSON schema of specs and studies, for editors: every choice by its exports, hints and docstrings."""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin

from ..choices import KINDS, Kind, SpecError, hints_of, kind_of
from ..priors.globs import near_misses
from ..spec import KEYS, Spec
from ..study import KEYS as STUDY_KEYS
from ..study import Study
from .docstrings import description, read
from .wording import defaults, short

DIALECT = "https://json-schema.org/draft/2020-12/schema"
GLOB = r"[*?\[.]"
PLAIN = {float: "number", int: "integer", bool: "boolean", str: "string", type(None): "null"}
DOCUMENTS = ("spec", "study")

Schema = dict[str, Any]


def schema(document: str = "spec") -> Schema:
    """The JSON schema (draft 2020-12) of a document.

    It holds what can be said without running anything: names, settings and types. Whether parts fit each other and
    numbers are in range is told by `Spec`.

    Args:
        document: ``spec`` (default) or ``study``.

    Returns:
        Plain data, for ``json.dumps``.

    Raises:
        SpecError: There is no such document.
    """
    if document not in DOCUMENTS:
        raise SpecError("schema", document, " or ".join(DOCUMENTS) + near_misses(document, DOCUMENTS))
    found = _Definitions()
    body = _spec(found, ["task"]) if document == "spec" else _study(found)
    return {"$schema": DIALECT, "title": f"A {document} of pyroformer", **body, "$defs": found.made}


class _Definitions:
    """The definitions that a schema refers to; each is made when it is first asked for."""

    def __init__(self) -> None:
        self.made: dict[str, Schema] = {}

    def part(self, kind: Kind) -> Schema:
        """A part of a spec: one choice, or a map from globs to choices where the kind may be mapped."""
        if not kind.mapped:
            return self.one(kind)
        return self._refer(f"{kind.name}s", lambda: {"anyOf": [*self.one(kind, inline=True)["anyOf"], self._map(kind)]})

    def one(self, kind: Kind, inline: bool = False) -> Schema:
        """One choice, as a name or with settings."""
        whole = KINDS[kind.name].bases == kind.bases
        name = kind.name if whole else ".".join((kind.name, *(base.__name__ for base in kind.bases)))
        reference = self._refer(name, lambda: self._choices(kind))
        return self.made[name] if inline else reference

    def _refer(self, name: str, make: Any) -> Schema:
        if name not in self.made:
            self.made[name] = {}  # so that a choice may hold others of its kind
            self.made[name] |= make()
        return {"$ref": f"#/$defs/{name}"}

    def _choices(self, kind: Kind) -> Schema:
        classes = kind.classes()
        names = [{"const": name, "description": read(cls).summary} for name, cls in classes.items()]
        settings = {name: self._settings(kind, name, cls) for name, cls in classes.items()}
        one = {"type": "object", "properties": settings, "minProperties": 1, "maxProperties": 1}
        return {"anyOf": [{"type": "string", "anyOf": names}, {**one, "additionalProperties": False}]}

    def _settings(self, kind: Kind, name: str, cls: type) -> Schema:
        return self._refer(f"{kind.name}.{name}", lambda: self._of(cls))

    def _of(self, cls: type) -> Schema:
        hints, standard = hints_of(cls), defaults(cls)
        properties = {
            setting: {**self.of_hint(hints.get(setting, Any)), "description": description(cls, setting)}
            | {"default": short(default)}
            for setting, default in standard.items()
        }
        said = {"description": read(cls).summary, "type": ["object", "null"]}
        return {**said, "properties": properties, "additionalProperties": False}

    def _map(self, kind: Kind) -> Schema:
        several = [{"minProperties": 2}, {"propertyNames": {"pattern": GLOB}}]
        names = {"not": {"enum": list(kind.classes())}}
        said = f"A map from globs over names to {kind.name}s; first match wins."
        globs = {"type": "object", "minProperties": 1, "anyOf": several, "propertyNames": names}
        return {"description": said, **globs, "additionalProperties": self.one(kind)}

    def of_hint(self, hint: Any) -> Schema:
        """What a value of a type may be; anything for types that YAML does not know."""
        origin, inner = get_origin(hint), get_args(hint)
        if origin in (Union, types.UnionType):
            return {"anyOf": [self.of_hint(part) for part in inner]}
        if (kind := kind_of(hint)) is not None:
            return self.one(kind)
        if origin is Literal:
            return {"enum": list(inner)}
        if origin is tuple:
            return {"type": "array", "items": self.of_hint(inner[0])}
        return {"type": PLAIN[hint]} if hint in PLAIN else {}


def _spec(found: _Definitions, required: list[str], without: tuple[str, ...] = ()) -> Schema:
    properties = {}
    for key in KEYS:
        if key in without:
            continue
        said: Schema = {"description": description(Spec, key)}
        if key in KINDS:
            choice = found.part(KINDS[key])
            properties[key] = said | (choice if key in required else {"anyOf": [choice, {"type": "null"}]})
        elif key == "seed":
            properties[key] = said | {"type": "integer", "minimum": 0, "maximum": 2**32 - 1, "default": 0}
        else:
            properties[key] = said
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _study(found: _Definitions) -> Schema:
    parts = _spec(found, [], without=("seed",))
    found.made["parts"] = {**parts, "type": ["object", "null"]}
    part = {"$ref": "#/$defs/parts"}
    types_of: dict[str, Schema] = {
        "seeds": {"type": "integer", "minimum": 1, "default": 1},
        "reference": {"type": ["string", "null"], "minLength": 1, "default": None},
        "baselines": {"type": ["array", "null"], "items": {"type": "string"}, "default": None},
        "base": part,
        "methods": {"type": "object", "minProperties": 1, "additionalProperties": part},
    }
    properties = {
        key: {"description": description(Study, key), **types_of.get(key, {"type": "string"})} for key in STUDY_KEYS
    }
    return {"type": "object", "properties": properties, "required": ["methods"], "additionalProperties": False}
