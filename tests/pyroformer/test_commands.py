"""The command line: what it lists and says of itself."""

import subprocess
import sys

import pytest

from pyroformer.choices import KINDS
from pyroformer.priors.settings import parameters
from pyroformer.study import builtin


def test_list_mentions_every_choice_with_its_settings(pyroformer):
    ended = pyroformer("list")
    assert (ended.code, ended.err) == (0, "")
    for kind in KINDS.values():
        section = ended.out.partition(f"{kind.name}s:\n")[2]
        lines = section.splitlines()[: 2 * len(kind.classes())]
        for name, cls in kind.classes().items():
            (line,) = (line for line in lines if line == f"  {name}" or line.startswith(f"  {name}("))
            assert all(f"{setting}=" in line for setting in parameters(cls))
    assert ended.out.partition("studies:\n")[2].splitlines() == [f"  {study}" for study in builtin()]
    assert not any(mark in ended.out for mark in ("`", ":math:", "None", "True", "False", "<factory>", "object at"))


@pytest.mark.parametrize("kind", [*(f"{name}s" for name in KINDS), *KINDS, "studies"])
def test_list_of_one_kind(pyroformer, kind):
    ended = pyroformer("list", kind)
    assert ended.code == 0
    headings = [line for line in ended.out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == [f"{kind.removesuffix('s')}s:" if kind != "studies" else "studies:"]


@pytest.mark.parametrize(
    "command",
    [[], ["run"], ["compare"], ["explain"], ["prior"], ["weights"], ["show"], ["schema"], ["predict"], ["list"]],
)
def test_help_fits_a_narrow_terminal(pyroformer, command):
    ended = pyroformer(*command, "--help")
    assert ended.code == 0
    assert "Usage:" in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80


def test_help_needs_no_torch(process):
    code = (
        "import sys\nsys.argv = ['pyroformer', '--help']\nfrom pyroformer.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    print(end.code, 'torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, **process)
    assert ended.stdout.endswith("0 False\n")


def test_the_module_is_the_command(process):
    ended = subprocess.run([sys.executable, "-m", "pyroformer", "--help"], capture_output=True, check=True, **process)
    assert all(command in ended.stdout for command in ("run", "compare", "explain", "show", "schema", "list"))
    assert ended.stderr == ""


def test_the_table_of_a_run_fits_a_narrow_terminal(pyroformer, write, digits, tmp_path):
    ended = pyroformer("run", write(digits), "--out", tmp_path / "run")
    assert ended.code == 0
    assert max(map(len, ended.out.replace(str(tmp_path), "").splitlines())) <= 80
    assert all(word in ended.out for word in ("accuracy", "nll", "ece", "noisy", "photographs"))
    assert "training" in ended.err
    assert "val NLL" in ended.err


def test_quiet_is_quiet(pyroformer, write, toy, tmp_path):
    ended = pyroformer("run", write(toy), "--out", tmp_path / "[a] run", "--quiet")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.endswith(f"run: {tmp_path / '[a] run'}\n")
    again = pyroformer("run", write(toy), "--out", tmp_path / "[a] run", "--quiet")
    assert again.err == f"{tmp_path / '[a] run'} holds this run, finished; nothing to do\n"


@pytest.mark.parametrize(("own", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_without_spinning_unless_asked_to(process, own, expected):
    """The policy is set before torch is imported, which reads it once."""
    code = (
        "import os, sys; import pyroformer.cli as cli; assert 'torch' not in sys.modules; "
        "cli.app = lambda: print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules); cli.main()"
    )
    env = {key: value for key, value in process["env"].items() if key != "OMP_WAIT_POLICY"}
    env |= {"OMP_WAIT_POLICY": own} if own else {}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env, text=True, check=True)
    assert found.stdout.split() == [expected, "False"]
