"""The built wheel, installed with the oldest versions and used from another folder: `make test-wheel` runs this file.

Nothing here is for a checkout, whose `pytest` does not collect it: there the sources beside the tests are imported.
"""

import csv
import importlib
import importlib.metadata
import json
import os
import pkgutil
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml

import pyroformer

ROOT = Path(__file__).resolve().parents[1]
SITE = Path(sysconfig.get_paths()["purelib"]).resolve()
NET = {"transformer": {"width": 8, "heads": 2, "depth": 1}}
DIGITS = {"task": {"digits": {"train": 60, "validation": 20}}, "model": NET, "driver": {"svi": {"epochs": 2}}}


def command(*arguments, cwd):
    """What a command of the environment prints; no path leads it to the tests or a checkout."""
    program = Path(sys.executable).parent / arguments[0]
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run([program, *map(str, arguments[1:])], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_is_the_installed_one():
    names = [module.name for module in pkgutil.walk_packages(pyroformer.__path__, "pyroformer.")]
    assert {f"pyroformer.{room}" for room in ("priors", "models", "guides", "inference", "tasks", "report")} <= set(
        names
    )
    for name in ("pyroformer", *(name for name in names if not name.endswith("__main__"))):
        assert SITE in Path(importlib.import_module(name).__file__).resolve().parents, name
    assert not [path for path in ("pyroformer", "priors", "Makefile", ".git") if (ROOT / path).exists()]


def test_the_versions_are_the_oldest():
    pins = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints-lowest.txt").read_text("utf-8"), re.M)
    assert len(pins) >= 15
    found = {name: importlib.metadata.version(name).partition("+")[0] for name, _ in pins}
    assert found == dict(pins)


def test_list(tmp_path):
    printed = command("pyroformer", "list", cwd=tmp_path)
    assert all(f"{kind}:\n" in printed for kind in ("priors", "guides", "drivers", "tasks", "studies"))
    assert "  digits\n" in printed.partition("studies:")[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An otherwise empty folder with a finished run."""
    folder = tmp_path_factory.mktemp("empty")
    (folder / "spec.yaml").write_text(yaml.safe_dump(DIGITS))
    command("pyroformer", "run", "spec.yaml", "--out", "run", "--set", "prior.normal.scale=0.5", "--quiet", cwd=folder)
    return folder


def test_run(folder):
    measured = json.loads((folder / "run" / "metrics.json").read_text())
    assert 0 < measured["test"]["nll"] < 10
    assert yaml.safe_load((folder / "run" / "spec.yaml").read_text())["prior"]["normal"]["scale"] == 0.5


def test_a_loaded_run_predicts_the_same_in_a_new_process(folder):
    code = (
        "import pyroformer\n"
        "run = pyroformer.load('run')\n"
        "found = run.posterior.predict(run.spec.task.load().test.x).probabilities.float()\n"
        "print((found - run.predictions['test.probabilities']).abs().max().item())"
    )
    assert float(command("python", "-c", code, cwd=folder)) == 0


def test_compare(tmp_path):
    methods = {"ML": {"driver": {"ml": {"epochs": 1}}}, "SVI": {"driver": {"svi": {"epochs": 1}}}}
    study = {"seeds": 2, "base": {"task": DIGITS["task"], "model": NET}, "methods": methods}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    command("pyroformer", "compare", "study.yaml", "--out", "study", "--jobs", "2", "--quiet", cwd=tmp_path)
    with (tmp_path / "study" / "values.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["method"], row["seed"]) for row in rows} == {(method, seed) for method in methods for seed in "01"}
    assert "<svg" in (tmp_path / "study" / "report.html").read_text("utf-8")
