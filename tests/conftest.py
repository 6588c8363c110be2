"""Every test starts from an empty parameter store and a fixed seed, with Pyro's and torch's checks on."""

import pyro
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fresh_pyro():
    saved = pyro.settings.get()
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    with pyro.validation_enabled(True):
        yield
    pyro.settings.set(**saved)
    pyro.clear_param_store()


@pytest.fixture
def standard_errors():
    """How many Monte Carlo standard errors the mean of draws ``[N, ...]`` is from what is expected, at most."""

    def distance(draws, expected):
        error = draws.std(0) / len(draws) ** 0.5
        return ((draws.mean(0) - expected).abs() / error).max().item()

    return distance
