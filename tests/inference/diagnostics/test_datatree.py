"""Chains as a tree and as a file that ArviZ reads."""

import json
import warnings

import pytest
import torch

from pyroformer.inference import Data
from pyroformer.inference.diagnostics import datatree, loo, to_datatree, write_netcdf
from pyroformer.priors import SettingError

xarray = pytest.importorskip("xarray", minversion="2024.10")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of versions to come
    arviz = pytest.importorskip("arviz", minversion="0.23")


@pytest.fixture(scope="module")
def file(transformer, examples, tmp_path_factory):
    path = tmp_path_factory.mktemp("netcdf") / "chains.nc"
    told = {"spec": {"seed": 3, "model": "transformer"}, "seed": 3, "inference_library_version": "9.9"}
    transformer.write_netcdf(path, Data(*examples), probe=examples, attributes=told)
    return path


@pytest.fixture(scope="module")
def inference_data(file):
    """What ArviZ reads from the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return arviz.from_netcdf(str(file))


def test_arviz_reads_what_was_written(inference_data, transformer):
    found = inference_data
    assert {"posterior", "sample_stats", "log_likelihood", "observed_data"} <= set(found.groups())
    query = next(name for name in transformer.draws if name.endswith("query.weight"))
    values = torch.from_numpy(found.posterior[query].values)
    assert torch.equal(values.flatten(0, 1).flatten(1, 2), transformer.draws[query])
    assert found.posterior[query].dims[:3] == ("chain", "draw", "head")
    assert {"log_probability", "norm"} <= set(found.posterior)
    names = {"lp", "energy", "diverging", "acceptance_rate", "tree_depth", "n_steps", "step_size"}
    assert names <= set(found.sample_stats)
    assert found.sample_stats["diverging"].dtype == bool
    assert "head" in found.posterior.coords["layer"].values.tolist()


def test_every_axis_has_coordinates(transformer, examples):
    tree = transformer.to_datatree(Data(*examples), probe=examples)
    for group in tree.children.values():
        assert set(group.sizes) == set(group.coords)


def test_attributes_tell_where_it_is_from(file, inference_data):
    for found in (inference_data.posterior, xarray.open_datatree(file, engine="h5netcdf")):
        assert found.attrs["inference_library"] == "pyroformer" and found.attrs["inference_library_version"] == "9.9"
        assert int(found.attrs["seed"]) == 3 and json.loads(found.attrs["spec"])["model"] == "transformer"


def test_leaving_one_out_is_that_of_arviz(inference_data):
    found = inference_data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large shapes, which made-up draws have
        theirs = arviz.loo(found, reff=1.0, pointwise=True)
    logs = torch.from_numpy(found.log_likelihood["y"].values)
    assert logs.shape == (3, 20, 30)
    ours = loo(logs)
    assert ours.elpd == pytest.approx(float(theirs.elpd_loo), rel=1e-3)
    assert torch.allclose(ours.k_hat.double(), torch.from_numpy(theirs.pareto_k.values), atol=1e-3)
    assert loo(logs.roll(1, 2)[..., 1:]).elpd != pytest.approx(float(theirs.elpd_loo), rel=1e-3)  # planted: other data


def test_a_file_is_whole_or_not_there(transformer, tmp_path, monkeypatch):
    path = tmp_path / "chains.nc"
    path.write_text("kept")

    def broken(self, target, **settings):
        target.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xarray.DataTree, "to_netcdf", broken)
    with pytest.raises(OSError, match="could not be written: No space left"):
        write_netcdf(transformer, path)
    assert path.read_text() == "kept" and list(tmp_path.iterdir()) == [path]


def test_without_the_extra_it_says_what_to_install(transformer, tmp_path, monkeypatch):
    monkeypatch.setattr(datatree, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"pip install 'pyroformer\[diag\]'"):
        to_datatree(transformer)
    with pytest.raises(SettingError, match="xarray and h5netcdf"):
        write_netcdf(transformer, tmp_path / "chains.nc")
