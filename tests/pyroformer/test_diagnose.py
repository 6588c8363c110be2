"""``pyroformer diagnose``: the chains of a run, judged; and what it refuses."""

import json
import shutil

import pytest

import pyroformer as package
from pyroformer import Spec, fit, load
from pyroformer.choices import SpecError
from pyroformer.run_folder import chains_of
from pyroformer.seen_chains import read_chains

NUTS = {"nuts": {"num_samples": 12, "warmup_steps": 12, "chains": 2, "max_tree_depth": 3}}


@pytest.fixture(scope="module")
def spec():
    net = {"transformer": {"width": 4, "heads": 2, "depth": 1}}
    task = {"toy_regression": {"train": 12, "test": 6}}
    return Spec(task=task, model=net, prior="normal", driver=NUTS)


@pytest.fixture(scope="module")
def run(spec, tmp_path_factory):
    return fit(spec, out=tmp_path_factory.mktemp("diagnose") / "nuts")


def test_a_run_of_chains_keeps_their_diagnosis(run):
    kept = json.loads((run.folder / "diagnostics.json").read_text("utf-8"))
    assert kept == run.diagnosis == load(run.folder).diagnosis
    assert (kept["chains"], kept["draws"]) == (2, 12)
    names = {line["name"] for line in kept["table"]}
    assert {"log_likelihood", "log_density", "log_probability[probe 0]", "norm[head]"} <= names
    assert kept["verdict"]["level"] in ("caution", "bad")  # 12 draws
    seen = read_chains(run.folder / "chains.safetensors")
    assert next(iter(seen.traces)) == "log_likelihood" and seen.verdict == kept["verdict"]
    assert all(values.shape == (2, 12) for values in (*seen.traces.values(), seen.energy, seen.divergent))


def test_the_command_tells_the_verdict(run, pyroformer):
    (run.folder / "diagnostics.json").unlink()
    done = pyroformer("diagnose", run.folder, "--weights")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("2 chains of 12 draws\n")
    assert "R-hat" in done.out and "In words" in done.out and "Try: " in done.out and "head.weight" in done.out
    assert done.out.endswith(f"numbers: {run.folder / 'diagnostics.json'}\n")
    assert max(map(len, done.out.splitlines()[:-1])) <= 80
    kept = json.loads((run.folder / "diagnostics.json").read_text("utf-8"))
    assert kept["verdict"] == run.diagnosis["verdict"]  # weights are not judged
    assert len(kept["table"]) > len(run.diagnosis["table"])


def test_run_prints_the_summary(run, spec, pyroformer, write):
    done = pyroformer("run", write(spec.to_dict()), "--out", run.folder, "-q")
    assert f"chains: {run.diagnosis['verdict']['summary']}" in done.out


def test_a_file_for_arviz_is_written(run, pyroformer, tmp_path):
    xarray = pytest.importorskip("xarray", minversion="2024.10")
    pytest.importorskip("h5netcdf")
    done = pyroformer("diagnose", run.folder, "--netcdf", tmp_path / "nuts.nc")
    assert done.code == 0 and done.out.endswith(f"draws: {tmp_path / 'nuts.nc'}\n")
    with xarray.open_datatree(tmp_path / "nuts.nc", engine="h5netcdf") as tree:
        assert set(tree.children) == {"posterior", "sample_stats", "log_likelihood", "observed_data"}
        assert tree["log_likelihood"]["y"].shape == (2, 12, 12)
        assert json.loads(tree.attrs["spec"])["driver"]["nuts"]["chains"] == 2
        assert tree.attrs["inference_library_version"] == package.__version__


def test_what_is_refused(run, pyroformer, toy, tmp_path, monkeypatch):
    other = fit(Spec(**toy), out=tmp_path / "svi")
    assert other.diagnosis == {} and not (other.folder / "diagnostics.json").exists()
    message = pyroformer("diagnose", other.folder).message
    accepted = "a run of a driver with Markov chains, such as nuts, of at least 4 draws each"
    assert message == f"DIR: got a run of svi; accepted: {accepted}"
    message = pyroformer("diagnose", tmp_path).message
    assert message == f"{tmp_path}: got no spec.yaml; accepted: the folder of a run"
    assert pyroformer("diagnose", tmp_path / "none").message.startswith(f"{tmp_path / 'none'}: got no spec.yaml")
    message = pyroformer("diagnose", run.folder, "--netcdf", tmp_path / "nuts.txt").message
    assert message == f"--netcdf: got {tmp_path / 'nuts.txt'}; accepted: a file that ends in .nc"
    target = run.folder / "spec.yaml" / "nuts.nc"
    message = pyroformer("diagnose", run.folder, "--netcdf", target).message
    assert message.startswith(f"--netcdf: got {target}; accepted: a file in a folder; {target.parent} ")
    monkeypatch.setattr("pyroformer.inference.diagnostics.datatree.find_spec", lambda name: None)
    message = pyroformer("diagnose", run.folder, "--netcdf", tmp_path / "nuts.nc").message
    assert "pip install 'pyroformer[diag]'" in message and not (tmp_path / "nuts.nc").exists()


def test_a_damaged_file_is_named(run, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    (folder / "diagnostics.json").write_text("{", "utf-8")
    with pytest.raises(SpecError, match=r"diagnostics\.json: got not JSON"):
        load(folder)
    (folder / "chains.safetensors").write_text("{", "utf-8")
    with pytest.raises(SpecError, match=r"chains\.safetensors: got not a safetensors file"):
        chains_of(folder)
