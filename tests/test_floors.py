"""Imports never go up (priors < models < guides < inference < pyroformer), and no file passes 400 lines."""

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("priors", "models", "guides", "inference", "pyroformer")
ROOMS = FLOORS[:-1]
MAX_LINES = 400


def product_files(root: Path) -> Iterator[Path]:
    """Every .py file of the product, relative to `root`, each once: links to the rooms are not followed."""
    for top in FLOORS:
        for folder, _, names in os.walk(root / top, followlinks=False):
            yield from (Path(folder, name).relative_to(root) for name in sorted(names) if name.endswith(".py"))


def module_name(path: Path) -> tuple[str, bool]:
    """The import name of a file, and whether it is a package."""
    parts = path.with_suffix("").parts
    if parts[0] in ROOMS:
        parts = ("pyroformer", *parts)
    return (".".join(parts[:-1]), True) if parts[-1] == "__init__" else (".".join(parts), False)


def imported(source: str, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and absolute name of every import, wherever in the file; `from a import b` counts as `a.b`."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # A level too many leaves the package: what remains is then a bare room, which `faults` refuses.
            base = package[: max(len(package) + 1 - node.level, 0)] if node.level else []
            base = [*base, *(node.module or "").split(".")] if node.module else base
            yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)


def floor(name: str) -> int:
    """The floor an absolute name of the product lives on; what is in no room belongs to the front door."""
    parts = name.split(".")
    return FLOORS.index(parts[1]) if len(parts) > 1 and parts[1] in ROOMS else len(FLOORS) - 1


def faults(source: str, path: Path) -> list[str]:
    module, is_package = module_name(path)
    found = []
    for line, name in imported(source, module, is_package):
        top = name.split(".")[0]
        if top in ROOMS:
            found.append(f"{path}:{line} imports {name}: reach a room as pyroformer.{top}, or relatively")
        elif top == "pyroformer" and floor(name) > floor(module):
            found.append(f"{path}:{line} imports {name}, from a higher floor")
    return found


def too_long(source: str) -> bool:
    return len(source.splitlines()) > MAX_LINES


def test_imports_never_go_up():
    files = list(product_files(ROOT))
    assert {path.parts[0] for path in files} == set(FLOORS)
    assert [fault for path in files for fault in faults((ROOT / path).read_text(encoding="utf-8"), path)] == []


def test_files_are_read_in_one_sitting():
    assert [str(path) for path in product_files(ROOT) if too_long((ROOT / path).read_text(encoding="utf-8"))] == []
    assert too_long("\n" * (MAX_LINES + 1))
    assert not too_long("\n" * MAX_LINES)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("priors/normal.py", "from ..models import Linear"),
        ("priors/__init__.py", "from ..models.linear import Linear"),
        ("models/linear.py", "from .. import guides"),
        ("models/linear.py", "from .. import __version__"),
        ("models/linear.py", "from ..spec import Spec"),
        ("models/deep/er.py", "from ...guides import Guide"),
        ("guides/guide.py", "import pyroformer"),
        ("guides/guide.py", "import pyroformer.inference as inference"),
        ("guides/guide.py", "def late():\n    from pyroformer.inference import SVI"),
        ("inference/svi.py", "import torch, models"),
        ("inference/svi.py", "from guides.guide import Guide"),
        ("pyroformer/run.py", "from models import Linear"),
        ("models/linear.py", "from ...priors import Normal"),
        ("pyroformer/tasks/digits.py", "from ...models import Linear"),
    ],
)
def test_a_planted_import_is_found(path, source):
    assert len(faults(source, Path(path))) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("models/linear.py", "from ..priors import Normal"),
        ("models/linear.py", "from .. import priors"),
        ("models/priors.py", "from .guides import here"),
        ("models/__init__.py", "from .linear import Linear"),
        ("guides/guide.py", "import torch.nn\nfrom pyroformer.models.linear import Linear"),
        ("pyroformer/run.py", "from .models import Linear\nfrom . import inference, spec"),
        ("pyroformer/tasks/digits.py", "from ..models import Linear\nfrom .base import Task"),
        ("pyroformer/tasks/__init__.py", "from ..inference import SVI\nfrom .base import Task"),
    ],
)
def test_an_import_going_down_is_free(path, source):
    assert faults(source, Path(path)) == []
