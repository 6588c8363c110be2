"""The code in README and CONTRIBUTING runs as it stands."""

from __future__ import annotations

import re
import shlex
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import torch
import typer

from pyroformer import fit, generate, priors, yamlfile
from pyroformer.choices import KINDS, PRIORS, build
from pyroformer.cli import app
from pyroformer.spec import Spec
from pyroformer.study import builtin
from pyroformer.tasks import Digits, digits

ROOT = Path(__file__).resolve().parents[1]


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / document).read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture
def few_digits(monkeypatch):
    """The digits are 180 in the place of 1,797, of which 40 are to train."""
    x, y = digits._table()
    monkeypatch.setattr(digits, "_table", lambda: (x[:180], y[:180]))
    monkeypatch.setitem(Digits.__init__.__kwdefaults__, "train", 40)


@pytest.mark.parametrize("index", range(2))
def test_the_python_of_the_readme_runs(index, capsys, few_digits):
    code = blocks("README.md", "python")
    assert len(code) == 2
    exec(compile(code[index], f"README.md, block {index}", "exec"), {})
    printed = capsys.readouterr().out
    assert ("accuracy" in printed and "tensor" in printed) if index == 0 else float(printed) > 0


def test_the_first_example_of_the_readme_is_ten_lines():
    assert len([line for line in blocks("README.md", "python")[0].splitlines() if line.strip()]) <= 10


def test_the_spec_of_the_readme_is_accepted():
    text, _ = blocks("README.md", "yaml")
    content = yamlfile.assign(yamlfile.parse(text), "driver.svi.temperature=0.5")
    content = yamlfile.assign(content, 'prior."*.rows".dirichlet_rows.concentration=2')
    spec = Spec(**content)
    assert spec.driver.temperature == 0.5
    assert spec.prior["*.rows"].concentration == 2
    data = spec.task.load()
    spec.build_guide(spec.build_model(data), data)


def test_the_spec_of_text_in_the_readme_runs():
    _, text = blocks("README.md", "yaml")
    content = yamlfile.parse(text)
    for quick in ("task.text.train=20", "task.text.held_out=2", "driver.svi.epochs=1"):
        content = yamlfile.assign(content, quick)
    run = fit(Spec(**content))
    assert {"perplexity", "bits_per_character"} < set(run.metrics["test"])
    assert len(generate(run, "Shall I", num_tokens=3, num_samples=2).tokens) == 3


DOCUMENTS = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def commands(document: str, program: str) -> list[list[str]]:
    """The arguments of each call of a program, in blocks of commands and between backticks."""
    text = (ROOT / document).read_text(encoding="utf-8")
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    lines = [*"\n".join(blocks(document, "sh")).splitlines(), *spans]
    found = (re.fullmatch(rf"(?:\S*/)?{program} (.+)", line.strip()) for line in lines)
    return [shlex.split(match[1], comments=True) for match in found if match]


def parsed(arguments: list[str]) -> str:
    """The name of the command that the command line takes arguments for; an error when it does not take them."""
    group = typer.main.get_command(app)
    name, command, rest = group.resolve_command(group.make_context("pyroformer", list(arguments)), list(arguments))
    command.make_context(name, rest)
    return name


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_commands_of_a_document_exist(document):
    for arguments in commands(document, "pyroformer"):
        if parsed(arguments) == "compare" and not arguments[1].endswith(".yaml"):
            assert arguments[1] in builtin()
        if arguments[0] == "list":
            assert all(kind in ("studies", *(f"{name}s" for name in KINDS)) for kind in arguments[1:])
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert {target for target, *_ in commands(document, "make")} <= set(targets)
    for arguments in commands(document, "pip"):
        assert all((ROOT / path).is_file() for option, path in pairwise(arguments) if option == "-c")


def test_commands_are_found_and_wrong_ones_told():
    found = commands("README.md", "pyroformer")
    assert {arguments[0] for arguments in found} == set(typer.main.get_command(app).commands)  # README names them all
    assert len(found) >= 4 and ["demo"] in commands("README.md", "make")
    for wrong in (["runn", "spec.yaml"], ["run", "spec.yaml"], ["run", "s.yaml", "--out", "o", "--sed", "1"]):
        with pytest.raises(Exception, match=r"runn|--out|--sed|out"):
            parsed(wrong)


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
