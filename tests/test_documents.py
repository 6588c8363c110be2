"""The code in README and CONTRIBUTING runs as it stands."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pyroformer import priors, yamlfile
from pyroformer.choices import PRIORS, build
from pyroformer.spec import Spec

ROOT = Path(__file__).resolve().parents[1]


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / document).read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("index", range(2))
def test_the_python_of_the_readme_runs(index, capsys):
    code = blocks("README.md", "python")
    assert len(code) == 2
    exec(compile(code[index], f"README.md, block {index}", "exec"), {})
    printed = capsys.readouterr().out
    assert ("accuracy" in printed and "tensor" in printed) if index == 0 else float(printed) > 0


def test_the_first_example_of_the_readme_is_ten_lines():
    assert len([line for line in blocks("README.md", "python")[0].splitlines() if line.strip()]) <= 10


def test_the_spec_of_the_readme_is_accepted():
    (text,) = blocks("README.md", "yaml")
    content = yamlfile.assign(yamlfile.parse(text), "driver.svi.temperature=0.5")
    content = yamlfile.assign(content, 'prior."*.rows".flat_rows.concentration=2')
    spec = Spec(**content)
    assert spec.driver.temperature == 0.5
    assert spec.prior["*.rows"].concentration == 2
    data = spec.task.load()
    spec.build_guide(spec.build_model(data), data)


def test_the_folders_of_the_readme_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    folders = re.findall(r"^\| `(\w+)/` \|", text, re.M)
    assert len(folders) >= 8
    assert all((ROOT / folder).is_dir() for folder in folders)
    assert all((ROOT / path).exists() for path in re.findall(r"\]\(((?!http)[^)]+)\)", text))


@pytest.fixture
def example(monkeypatch):
    """The module that CONTRIBUTING writes; dataclasses look a class's module up by its name."""
    module = ModuleType("laplace_example")
    monkeypatch.setitem(sys.modules, "laplace_example", module)
    written, checked = blocks("CONTRIBUTING.md", "python")
    exec(compile(written, "CONTRIBUTING.md, the class", "exec"), vars(module))
    return module, checked


def test_the_prior_of_contributing_is_a_prior(example):
    module, checked = example
    exec(compile(checked, "CONTRIBUTING.md, its test", "exec"), vars(module))
    with pytest.raises(AssertionError):  # a wrong scale is noticed
        exec(compile(checked.replace("2 * 0.5", "2 * 0.6"), "CONTRIBUTING.md, planted error", "exec"), vars(module))


def test_its_export_line_makes_it_a_choice(example, monkeypatch):
    module, _ = example
    monkeypatch.setattr(priors, "LaplaceExample", module.LaplaceExample, raising=False)
    monkeypatch.setattr(priors, "__all__", [*priors.__all__, "LaplaceExample"])
    chosen = build(PRIORS, {"laplace_example": {"scale": 0.5}}, "prior")
    assert chosen("w", torch.zeros(3)).log_prob(torch.zeros(3)) == pytest.approx(0.0)
