"""What the tests of the front door share: a spec that runs in a moment, and the command line called in this process."""

import copy
import gzip
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import yaml

import pyroformer as package
from pyroformer.cli import main
from pyroformer.tasks.idx import idx_bytes

NET = {"transformer": {"width": 8, "heads": 2, "depth": 1}}
TOY = {"task": {"toy_regression": {"train": 20, "test": 10}}, "model": NET, "driver": {"svi": {"epochs": 2}}}
DIGITS = {"task": {"digits": {"train": 60, "validation": 20}}, "model": NET, "driver": {"ml": {"epochs": 1}}}


@pytest.fixture
def toy():
    """The parts of a spec: tiny regression by a mean-field posterior."""
    return copy.deepcopy(TOY)


@pytest.fixture
def digits():
    """The parts of a spec: tiny classification by maximum likelihood."""
    return copy.deepcopy(DIGITS)


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The one message of a command that was refused: nothing else is printed, least of all a traceback."""
        assert self.code == 2, self
        assert self.out == ""
        (line,) = self.err.splitlines()
        assert line.startswith("error: "), line
        return line.removeprefix("error: ")


@pytest.fixture
def pyroformer(monkeypatch, capsys):
    """Call the command line in this process: ``pyroformer("run", "spec.yaml", ...)``."""
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["pyroformer", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return Outcome(end.value.code or 0, printed.out, printed.err)

    return call


@pytest.fixture(scope="session")
def process():
    """Keyword arguments for `subprocess` under which a new Python finds the package that is tested."""
    found = Path(package.__file__).resolve().parent.parent
    return {"env": os.environ | {"PYTHONPATH": str(found), "OMP_NUM_THREADS": "1"}, "text": True}


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made but not drawn, which is most of the work of a page: for tests that look at something else."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, file, **settings: file.write("<svg></svg>"))


@pytest.fixture
def write(tmp_path):
    """Write content, plain data or text, to a YAML file; returns its path."""

    def to_file(content, name="spec.yaml"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False), "utf-8")
        return path

    return to_file


@pytest.fixture
def refused(pyroformer, write, tmp_path):
    """Run a spec that is refused, see that it left nothing behind, and return the message."""

    def run(content, *assignments):
        settings = [argument for assignment in assignments for argument in ("--set", assignment)]
        message = pyroformer("run", write(content), "--out", tmp_path / "run", *settings).message
        assert not (tmp_path / "run").exists()
        return message

    return run


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No data are found on this machine, and none can be downloaded."""
    from pyroformer.tasks import mnist, sources

    monkeypatch.delenv("PYROFORMER_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(sources, "cache", lambda: tmp_path / "cache")
    away = {"url": "http://127.0.0.1:9/", "folders": (str(tmp_path / "system"),)}  # nothing listens on the port
    for cls in (mnist.Mnist, mnist.FashionMnist):
        monkeypatch.setattr(cls, "publication", replace(cls.publication, **away))
        monkeypatch.setattr(cls, "elsewhere", replace(cls.elsewhere, **away))
    monkeypatch.setattr("pyroformer.tasks.mnist5k.MNIST_5K", replace(mnist.MNIST_5K, package=None))
    monkeypatch.setattr(mnist.Images28, "elsewhere", replace(mnist.FASHION_MNIST, **away))


@pytest.fixture
def four_files():
    """Write a small MNIST, ``train`` images and half as many to test, into a folder; returns it."""

    def write(folder, train=60, seed=0):
        random = np.random.default_rng(seed)
        folder.mkdir(parents=True, exist_ok=True)
        for part, count in (("train", train), ("t10k", train // 2)):
            images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
            labels = (np.arange(count) % 10).astype(np.uint8)
            for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
                (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(idx_bytes(array), 1))
        return folder

    return write
