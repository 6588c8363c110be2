"""YAML with numbers as people write them, and assignments from the command line."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from .choices import DEFAULTS, SpecError, is_map

DEEPEST = 50
"""How deep lists and mappings may stand in each other: far more than any spec, far less than Python can follow."""
TOO_DEEP = f"lists and mappings nested deeper than {DEEPEST}"


class _Loader(yaml.SafeLoader):
    """The safe loader, reading ``1e-3`` as a number and refusing a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            mark = key_node.start_mark
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key that is no name", mark)
            key = self.construct_object(key_node)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """The safe dumper, which puts quotes around a text that the loader would read as a number."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
        list("-+0123456789."),
    )


def parse(text: str) -> Any:
    """Plain data from YAML text.

    Raises:
        yaml.YAMLError: The text is no YAML.
    """
    try:
        content = yaml.load(text, Loader=_Loader)
    except ValueError as error:  # such as the date 2024-13-45
        raise yaml.YAMLError(str(error)) from None
    except RecursionError:
        raise yaml.YAMLError(TOO_DEEP) from None
    _check_depth(content)
    return content


def _check_depth(content: Any) -> None:
    """Raise a `yaml.YAMLError` where lists and mappings stand too deep in each other, or in themselves (anchors)."""
    level = [content]
    for _ in range(DEEPEST):
        # each once: an anchor may stand in many places, and they in many others
        level = list({id(inner): inner for outer in level for inner in _inside(outer)}.values())
        if not level:
            return
    raise yaml.YAMLError(TOO_DEEP)


def _inside(content: Any) -> list[Any]:
    inner = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return [value for value in inner if isinstance(value, dict | list)]


def _where(error: yaml.YAMLError) -> str:
    """What is wrong with a YAML text, and where."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark and problem else str(error)


def read(path: str | Path) -> dict[str, Any]:
    """A mapping from a YAML file.

    Raises:
        SpecError: There is no such file, it is no YAML, or it holds no mapping.
    """
    content = read_value(path)
    if not isinstance(content, dict):
        raise SpecError(str(path), content, "a mapping such as `task: digits`")
    return content


def read_value(path: str | Path) -> Any:
    """What a YAML file holds: a mapping, a list, a name or a number.

    Raises:
        SpecError: There is no such file, or it is no YAML.
    """
    path = Path(path)
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError(str(path), "no such file", "the path of a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(str(path), str(error), "a readable YAML file") from None
    except yaml.YAMLError as error:
        raise SpecError(str(path), _where(error), "valid YAML") from None


def dump(content: Any) -> str:
    """YAML text."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def flow(content: Any) -> str:
    """YAML in one line, without a line break at its end."""
    text = yaml.dump(
        content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=True, width=math.inf
    )
    return text.removesuffix("\n...\n").strip()


def split_path(path: str) -> list[str]:
    """The parts of a dotted path; a part in quotes may hold dots: ``prior."blocks.*".normal.scale``."""
    parts = re.findall(r'"([^"]*)"|\'([^\']*)\'|([^."\']+)', path)
    rebuilt = [quoted or single or bare for quoted, single, bare in parts]
    if not rebuilt or not re.fullmatch(r'("[^"]*"|\'[^\']*\'|[^."\']+)(\.("[^"]*"|\'[^\']*\'|[^."\']+))*', path):
        raise SpecError("--set", path, "a dotted path such as prior.normal.scale (glob keys in quotes)")
    return rebuilt


def assign(content: dict[str, Any], assignment: str) -> dict[str, Any]:
    """Plain data with one assignment ``path=value`` made, its value read as YAML, or from a YAML file: ``path=@file``.

    Along the path, choices and settings alternate; a number is a place in a list of choices, from 0. Naming another
    choice replaces the old one whole; a new glob is put in front of the others, and a single choice before it (given or
    by default) becomes ``"*"``.

    Raises:
        SpecError: The assignment, or the file that it names, cannot be read.
    """
    path, equals, text = assignment.partition("=")
    if not equals or not path.strip():
        raise SpecError("--set", assignment, "path=value, such as prior.normal.scale=0.5")
    value = _value(assignment, text)
    parts = split_path(path.strip())
    return {**content, parts[0]: _choice_with(content.get(parts[0], DEFAULTS.get(parts[0])), parts[1:], value)}


def _value(assignment: str, text: str) -> Any:
    """The value of an assignment; no plain text of YAML starts with ``@``, which so is free to name a file."""
    named = text.strip()
    if named.startswith("@"):
        if not named[1:].strip():
            raise SpecError("--set", assignment, "the path of a YAML file behind @, such as prior=@prior.yaml")
        value = read_value(named[1:].strip())
        if value is None:
            raise SpecError("--set", assignment, "a file that holds a value; this one is empty")
        return value
    try:
        return parse(text)
    except yaml.YAMLError:
        raise SpecError("--set", assignment, "a value that is valid YAML") from None


def _choice_with(choice: Any, parts: list[str], value: Any) -> Any:
    if not parts:
        return value
    name, rest = parts[0], parts[1:]
    if name.isdigit():
        known = len(choice) if isinstance(choice, list) else 0
        if int(name) >= known:
            accepted = f"a place from 0 to {known - 1}" if known else "a list that the file gives: set it as a whole"
            raise SpecError("--set", name, accepted)
        return [_choice_with(old, rest, value) if i == int(name) else old for i, old in enumerate(choice)]
    if any(c in name for c in "*?[."):
        globs = dict(choice) if is_map(choice) else {} if choice is None else {"*": choice}
        changed = _choice_with(globs.get(name), rest, value)
        return {**globs, name: changed} if name in globs else {name: changed, **globs}
    if not rest:
        return {name: value}
    kept = choice.get(name) if isinstance(choice, Mapping) and not is_map(choice) else None
    settings = dict(kept) if isinstance(kept, Mapping) else {}
    return {name: {**settings, rest[0]: _choice_with(settings.get(rest[0]), rest[1:], value)}}
