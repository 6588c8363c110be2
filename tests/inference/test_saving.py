"""Posteriors are saved whole, read back to the same numbers in another process, and nothing is unpickled."""

import inspect
import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from pyroformer import priors
from pyroformer.guides import Delta, DirichletRows, Flow, FullRank, Guide, LowRank, MatrixNormal, MeanField, Radial
from pyroformer.inference import (
    ML,
    SVI,
    Data,
    DeepEnsemble,
    DrawsPosterior,
    GuidePosterior,
    Laplace,
    LaplacePosterior,
    LowRankPosterior,
    MixturePosterior,
    Posterior,
    StoredDraws,
)
from pyroformer.inference.files import WriteError, write_text
from pyroformer.models import BayesianModel, Categorical, Features, Gaussian, Output, Series, Transformer
from pyroformer.priors import Learned, Normal, settings


def model(kind, seed=0):
    """A model for each kind of posterior; the other process runs this function too."""
    torch.manual_seed(seed)
    if kind in ("noise", "low_rank"):
        return BayesianModel(torch.nn.Linear(2, 1), Normal(), Gaussian(noise="random"))
    if kind in ("draws", "mixture", "chains"):
        return BayesianModel(torch.nn.Linear(2, 3), {"bias": Learned(), "*": Normal()})
    net = Transformer(Features(2, copies=2), Output(3), width=4, heads=2, depth=1)
    rows = {"*.rows": priors.DirichletRows()} if kind in ("rows", "learned") else {}
    rest = Learned() if kind == "learned" else Normal()
    return BayesianModel(net, {**rows, "position": Learned(), "*": rest}, Categorical())


FAMILIES = {
    "mean_field": MeanField(init_scale=0.3),
    "delta": Delta(),
    "rows": {"*.rows": DirichletRows(sharpness=5.0, shared="layer"), "head.*": Delta(), "*": MeanField(init_scale=0.3)},
    "learned": DirichletRows(),
    "noise": MeanField(init_scale=0.3),
    "low_rank_family": LowRank(rank=3, init_scale=0.3),
    "full_rank": {"head.*": FullRank(init_scale=0.3), "*": Radial(init_scale=0.3)},
    "matrix_normal": MatrixNormal(init_scale=0.3),
    "diagonal": MatrixNormal(structure="diagonal", init_scale=0.3),
    "flow": {"head.*": Flow(layers=3, hidden=5), "*": MeanField()},
}
START = ML(epochs=1)
LAPLACE = {
    "laplace": Laplace(start=START),
    "laplace_full": Laplace(start=START, structure="full", temperature=0.5),
    "laplace_diagonal": Laplace(start=START, structure="diagonal", prediction="sampled"),
    "laplace_head": Laplace(start=START, subset="last_layer", link="probit"),
}
READ = f"""
import sys
from pathlib import Path
import torch
from pyroformer import priors
from pyroformer.models import *
from pyroformer.priors import *
from safetensors.torch import load_file, save_file
from pyroformer.inference import Posterior

{inspect.getsource(model)}
folder = Path(sys.argv[1])
x = load_file(folder / "x.safetensors")["x"]
numbers = dict()
for path in folder.iterdir():
    if path.is_dir():
        posterior = Posterior.load(path, model(path.name, seed=99))
        prediction = posterior.predict(x, 7, seed=3)
        numbers[path.name] = prediction.probabilities if hasattr(prediction, "probabilities") else prediction.loc
save_file(numbers, folder / "numbers.safetensors")
"""


def posterior(kind):
    built, x = model(kind), torch.randn(5, 2)
    with torch.no_grad():
        for p in built.learned.values():
            p.add_(torch.randn_like(p))
    if kind == "draws":
        return DrawsPosterior(built, {"weight": torch.randn(9, 3, 2)}, {"divergences": 0, "r_hat": float("nan")})
    if kind == "chains":
        stored = StoredDraws([{"weight": torch.randn(2, size, 3, 2)} for size in (3, 1)])
        told = {"energy": torch.randn(2, 4), "divergent": torch.rand(2, 4) > 0.5}
        return DrawsPosterior(built, stored, chains=2, statistics=told)
    if kind == "low_rank":
        return LowRankPosterior(built, torch.randn(4), torch.rand(4), torch.randn(2, 4), {"rank": 2})
    if kind == "mixture":
        other = posterior("draws")
        return MixturePosterior([other, GuidePosterior(built, Guide(built, MeanField(), (x,)), (x,))])
    if kind in LAPLACE:
        return LAPLACE[kind].run(built, None, Data(x, torch.tensor([0, 1, 2, 0, 1])))
    guide = Guide(built, FAMILIES[kind], (x[:2],))
    with torch.no_grad():
        for p in guide.parameters():
            p.add_(0.5 * torch.randn_like(p))
    return GuidePosterior(built, guide, (x[:2],), {"kept": "last"})


KINDS = [*FAMILIES, *LAPLACE, "draws", "chains", "low_rank", "mixture"]


def numbers(fitted, x):
    prediction = fitted.predict(x, 7, seed=3)
    return prediction.probabilities if hasattr(prediction, "probabilities") else prediction.loc


def test_a_new_process_gives_the_same_numbers(fork, tmp_path):
    x, expected = torch.randn(20, 2), {}
    save_file({"x": x}, tmp_path / "x.safetensors")
    for kind in KINDS:
        fitted = posterior(kind)
        fitted.save(tmp_path / kind)
        expected[kind] = numbers(fitted, x)
    running = fork(tmp_path, code=READ)
    _, err = running.communicate()
    assert running.returncode == 0, err
    read = load_file(tmp_path / "numbers.safetensors")
    assert set(read) == set(KINDS)
    for kind in KINDS:
        assert torch.equal(read[kind], expected[kind]), kind
    assert not torch.equal(expected["mean_field"], expected["delta"])


@pytest.mark.parametrize("kind", KINDS)
def test_loading_gives_the_posterior_again(kind, tmp_path):
    fitted = posterior(kind)
    fitted.save(tmp_path / "p")
    given = model(kind, seed=99)
    untouched = {name: value.clone() for name, value in given.state_dict().items()}
    state = torch.get_rng_state()
    again = Posterior.load(tmp_path / "p", given)
    assert torch.equal(torch.get_rng_state(), state)
    assert type(again) is type(fitted) and again.num_samples == fitted.num_samples
    assert all(torch.equal(value, given.state_dict()[name]) for name, value in untouched.items())
    draws, expected = again.draw(4, seed=1), fitted.draw(4, seed=1)
    assert {name: value.tolist() for name, value in draws.items()} == {n: v.tolist() for n, v in expected.items()}
    if again.guide is not None:
        assert [settings(f) for f in again.guide.families] == [settings(f) for f in fitted.guide.families]
        assert again.guide.summary() == fitted.guide.summary()


def test_only_json_and_safetensors_are_written(tmp_path):
    for kind in KINDS:
        posterior(kind).save(tmp_path / kind)
    suffixes = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors"}


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    for kind in KINDS:
        posterior(kind).save(tmp_path / kind)

    def refuse(*args, **kwargs):
        raise AssertionError("unpickled")

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, name, refuse)
    with pytest.raises(AssertionError, match="unpickled"):
        torch.load(tmp_path)  # planted
    for kind in KINDS:
        Posterior.load(tmp_path / kind, model(kind)).predict(torch.randn(3, 2), 2)


def test_dtype_and_info_survive(tmp_path):
    fitted = posterior("draws")
    fitted.save(tmp_path / "p")
    assert Posterior.load(tmp_path / "p", model("draws")).info == {"divergences": 0, "r_hat": None}
    torch.manual_seed(0)
    wide = model("mean_field").double()
    x = torch.randn(2, 2).double()
    GuidePosterior(wide, Guide(wide, MeanField(), (x,)), (x,)).save(tmp_path / "wide")
    again = Posterior.load(tmp_path / "wide", model("mean_field"))
    assert {p.dtype for p in [*again.guide.parameters(), *again.model.parameters()]} == {torch.float64}


def test_chains_and_what_is_told_of_their_draws_survive(tmp_path):
    fitted = posterior("chains")
    fitted.save(tmp_path / "p")
    again = Posterior.load(tmp_path / "p", model("chains"))
    assert again.chains == 2 and again.by_chain()["weight"].shape == (2, 4, 3, 2)
    assert again.statistics.keys() == fitted.statistics.keys() and again.statistics["divergent"].dtype == torch.bool
    assert all(torch.equal(value, fitted.statistics[name]) for name, value in again.statistics.items())


def test_several_inputs_survive(tmp_path):
    torch.manual_seed(0)
    net = Transformer(Series(4, 2), Output(3), width=4, heads=2, depth=1)
    built = BayesianModel(net, {"*.rows": priors.DirichletRows(), "*": Normal()})
    x, y = (torch.randn(9, 4, 2), torch.rand(9, 4) > 0.3), torch.randint(3, (9,))
    families = {"*.rows": DirichletRows(), "*": MeanField(init_scale=0.3)}
    fitted = SVI(epochs=2, batch_size=4).run(built, families, Data(x, y, x, y))
    fitted.save(tmp_path / "p")
    again = Posterior.load(tmp_path / "p", built)
    assert torch.equal(numbers(again, x), numbers(fitted, x))
    unmasked = (x[0], torch.ones_like(x[1]))
    assert not torch.equal(numbers(again, unmasked), numbers(fitted, x))


def test_a_trained_ensemble_survives(tmp_path):
    x, y = torch.randn(12, 2), torch.randint(3, (12,))
    driver = DeepEnsemble(member=SVI(epochs=2), size=2)
    fitted = driver.run(model("draws"), MeanField(), Data(x, y))
    fitted.save(tmp_path / "p")
    again = Posterior.load(tmp_path / "p", model("draws"))
    assert torch.equal(numbers(again, x), numbers(fitted, x))
    assert not torch.equal(again.members[0].model.net.bias, again.members[1].model.net.bias)  # learned, each its own


def test_saving_again_replaces_the_folder(tmp_path):
    posterior("mixture").save(tmp_path / "p")
    posterior("mean_field").save(tmp_path / "p")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p"]
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["posterior.json", "weights.safetensors"]


def break_json(folder):
    (folder / "posterior.json").write_text("{not json")


def break_list(folder):
    (folder / "posterior.json").write_text("[1, 2]")


def change(**entries):
    def write(folder):
        path = folder / "posterior.json"
        content = {**json.loads(path.read_text()), **entries}
        path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))

    return write


def drop(prefix):
    def write(folder):
        path = folder / "weights.safetensors"
        save_file({name: t for name, t in load_file(path).items() if not name.startswith(prefix)}, path)

    return write


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda f: (f / "posterior.json").unlink(), FileNotFoundError, r"posterior\.json"),
        (lambda f: (f / "weights.safetensors").unlink(), FileNotFoundError, r"weights\.safetensors"),
        (break_json, ValueError, r"posterior\.json is not JSON"),
        (break_list, ValueError, r"posterior\.json holds a list: expected a JSON object"),
        (change(format=7), ValueError, r"format 7 of kind 'guide_posterior': expected format 1"),
        (change(kind="laplace"), ValueError, r"kind 'laplace': expected .*draws_posterior"),
        (change(structure=None), ValueError, r"holds no 'structure'"),
        (lambda f: (f / "weights.safetensors").write_bytes(b"rubbish" * 9), ValueError, "is not a safetensors file"),
        (drop("model."), ValueError, "does not fit the model: .*position"),
        (drop("guide."), ValueError, "does not fit the model: .*loc"),
        (drop("example."), ValueError, "does not fit the model"),
        (change(structure={"families": [{"unknown": {}}], "sites": {}, "tuple": False}), ValueError, "'unknown'"),
    ],
)
def test_damaged_files_are_named(damage, error, message, tmp_path):
    posterior("mean_field").save(tmp_path / "p")
    damage(tmp_path / "p")
    with pytest.raises(error, match=f"(?s){message}"):
        Posterior.load(tmp_path / "p", model("mean_field"))


@pytest.mark.parametrize(
    ("kind", "other", "message"),
    [
        ("mean_field", lambda: model("draws"), "does not fit the model"),
        ("mean_field", lambda: model("rows"), "does not fit the model"),
        ("draws", lambda: BayesianModel(torch.nn.Linear(2, 3), Normal()), "draws of bias have shape none"),
        ("draws", lambda: BayesianModel(torch.nn.Linear(2, 3), Learned()), "draws of weight .*expected none"),
        ("draws", lambda: BayesianModel(torch.nn.Linear(2, 4), Normal()), "size mismatch"),
        ("noise", lambda: BayesianModel(torch.nn.Linear(2, 1), Normal(), Gaussian()), "noise_scale"),
        ("low_rank", lambda: BayesianModel(torch.nn.Linear(2, 1), Normal(), Gaussian()), "over .*: expected 3 numbers"),
        ("laplace", lambda: model("learned"), r"the mode of .* has shape \(.*: expected none"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(kind, other, message, tmp_path):
    posterior(kind).save(tmp_path / "p")
    with pytest.raises(ValueError, match=f"(?s){message}"):
        Posterior.load(tmp_path / "p", other())


@pytest.mark.parametrize(("kind", "prefix"), [("laplace", "left/"), ("laplace_full", "chol"), ("laplace", "mode/")])
def test_a_laplace_approximation_that_lacks_numbers_is_refused(kind, prefix, tmp_path):
    fitted = posterior(kind)
    assert isinstance(fitted, LaplacePosterior) and any(name.startswith(prefix) for name in fitted.tensors())
    fitted.save(tmp_path / "p")
    drop(prefix)(tmp_path / "p")
    with pytest.raises(ValueError, match="does not fit the model"):
        Posterior.load(tmp_path / "p", model(kind))


def test_a_file_takes_no_folders_place(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious").touch()
    with pytest.raises(WriteError, match="folder could not be written: it is a folder, and a file was to be written"):
        write_text(tmp_path / "folder", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (tmp_path / "folder" / "precious").exists()
