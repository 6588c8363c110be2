"""Every test starts from an empty parameter store and a fixed seed, with Pyro's and torch's checks on."""

import gc
import multiprocessing
import multiprocessing.forkserver
import signal
import time
from pathlib import Path

import pyro
import pytest
import torch

import pyroformer as package

torch.set_num_threads(1)

# what a run, a study and a training step import, some of it late
IMPORTED = ["pyroformer.cli", "pyroformer.run", "pyroformer.study", "pyroformer.report", "pyroformer.weight_study"]
IMPORTED += ["joblib", "rich.progress", "sklearn.datasets", "torch._dynamo"]
COMMAND = "from pyroformer.cli import main\nmain()"
BEGIN = """
import gc, os, sys
gc.freeze()
assert set(IMPORTED) <= set(sys.modules), "the server of forks could not import the package"
for number, path in enumerate(FILES, start=1):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
sys.argv = ARGUMENTS
"""


def pytest_collection_finish():
    """What was imported and collected stays: the garbage collector need not look at it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def fresh_pyro():
    saved = pyro.settings.get()
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    with pyro.validation_enabled(True):
        yield
    pyro.settings.set(**saved)
    pyro.clear_param_store()


class Forked:
    """A new process that has imported the package already, with the methods of `subprocess.Popen` that tests need."""

    def __init__(self, context, folder, code, arguments):
        self.files = [folder / "stdout", folder / "stderr"]
        names = {"IMPORTED": IMPORTED, "FILES": [str(path) for path in self.files], "__name__": "__main__"}
        names["ARGUMENTS"] = ["pyroformer", *map(str, arguments)]
        self.process = context.Process(target=exec, args=(BEGIN + code, names))
        self.process.start()

    @property
    def returncode(self):
        return self.process.exitcode

    def poll(self):
        return self.process.exitcode

    def kill(self):
        """As the system does it, without a warning: SIGKILL."""
        self.process.kill()
        self.process.join()
        assert self.returncode == -signal.SIGKILL, "it had ended before"

    def communicate(self, timeout=300):
        """What it wrote to stdout and stderr, when it has ended."""
        self.process.join(timeout)
        assert self.returncode is not None, "it does not end"
        return tuple(path.read_text("utf-8") if path.exists() else "" for path in self.files)

    def wait_until(self, there, timeout=300):
        """Wait until something is there that it makes while it runs."""
        end = time.monotonic() + timeout
        while not there():
            assert self.poll() is None, self.communicate()
            assert time.monotonic() < end
            time.sleep(0.005)


@pytest.fixture(scope="session")
def fork(tmp_path_factory):
    """Start code, default the command line, in a new process: ``fork("run", "spec.yaml", code=...)``.

    It is forked from a server that has done nothing but import the package, which takes most of the time of a start.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(package.__file__).resolve().parent.parent))
        patch.setenv("OMP_NUM_THREADS", "1")
        multiprocessing.forkserver.ensure_running()
    started = []

    def start(*arguments, code=COMMAND):
        started.append(Forked(context, tmp_path_factory.mktemp("process"), code, arguments))
        return started[-1]

    yield start
    for running in started:
        running.process.kill()


@pytest.fixture
def standard_errors():
    """How many Monte Carlo standard errors the mean of draws ``[N, ...]`` is from what is expected, at most."""

    def distance(draws, expected):
        error = draws.std(0) / len(draws) ** 0.5
        return ((draws.mean(0) - expected).abs() / error).max().item()

    return distance
