"""Data that changed since a run learned from them: a text is refused everywhere, a table where a run would go on."""

import json

import pytest

from pyroformer import Spec, compare, fit, generate, load
from pyroformer.choices import SpecError
from pyroformer.study import Study

NET = {"transformer": {"width": 8, "heads": 2, "depth": 1}}
ML = {"ml": {"epochs": 1}}


@pytest.fixture
def text(tmp_path):
    """A spec of a text of four letters, and its file."""
    path = tmp_path / "text.txt"
    path.write_text("abcd\n" * 60, "utf-8")
    return {"task": {"text": {"path": str(path), "length": 8}}, "model": NET, "driver": ML}, path


@pytest.fixture
def table(tmp_path):
    """A spec of a table, and its file."""
    path = tmp_path / "my.csv"
    path.write_text("a,b,kind\n" + "".join(f"{i}.5,{i * i % 7}.5,{i % 2}\n" for i in range(40)), "utf-8")
    return {"task": {"arrays": {"file": str(path)}}, "model": NET, "driver": ML}, path


def test_a_text_of_the_same_sizes_is_refused_wherever_a_run_is_read(text, pyroformer, write, tmp_path):
    spec, path = text
    folder, page = tmp_path / "run", tmp_path / "page.html"
    fit(Spec(**spec), out=folder)
    assert len(generate(load(folder), "ab", num_tokens=3).tokens) == 3  # planted: as it was
    path.write_text("wxyz\n" * 60, "utf-8")
    said = f"task: got {path}; accepted: the text that the run in {folder} learned from: its tokens to "
    with pytest.raises(SpecError) as error:
        load(folder)
    assert str(error.value) == f"{said}train, validation, test changed since"
    for command in (
        ("generate", folder, "--prompt", "wx"),
        ("predict", folder, "--input", tmp_path / "x.npy", "--out", tmp_path / "x.csv"),
        ("attention", folder, "--out", page),
    ):
        assert pyroformer(*command).message.startswith(said)
    message = pyroformer("run", write(spec), "--out", folder).message
    accepted = "a new folder; this one holds a run on other data: train, validation, test changed since"
    assert message == f"--out: got {folder}; accepted: {accepted}"


def test_a_run_in_memory_goes_on_with_the_text_that_it_read(text):
    spec, path = text
    run = fit(Spec(**spec))
    path.write_text("wxyz\n" * 60, "utf-8")
    assert set(generate(run, "ab", num_tokens=9).text) <= set("abcd\n")


def test_the_set_that_changed_is_named(text, tmp_path):
    spec, path = text
    fit(Spec(**spec), out=tmp_path / "run")
    path.write_text("abcd\n" * 59 + "abdc\n", "utf-8")
    with pytest.raises(SpecError, match="its tokens to test changed since"):
        load(tmp_path / "run")
    path.write_bytes(b"abcd\r\n" * 60)  # other bytes and the same tokens
    assert load(tmp_path / "run").metrics


def test_a_run_that_was_stopped_does_not_go_on_with_another_text(text, tmp_path):
    spec, path = text
    fit(Spec(**spec), out=tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    path.write_text("wxyz\n" * 60, "utf-8")
    with pytest.raises(SpecError, match="this one holds a run on other data: train, validation, test changed since"):
        fit(Spec(**spec), out=tmp_path / "run")
    path.write_text("abcd\n" * 60, "utf-8")
    assert fit(Spec(**spec), out=tmp_path / "run").metrics["test"]


def test_a_run_does_not_go_on_with_another_table_and_can_be_read(table, pyroformer, write, tmp_path):
    """What a table's columns mean stands in the run's records, and so it predicts what it always did."""
    spec, path = table
    folder = tmp_path / "run"
    run = fit(Spec(**spec), out=folder)
    assert "nothing to do" in pyroformer("run", write(spec), "--out", folder).err  # planted: as it was
    with path.open("a") as more:
        more.write("1.5,2.5,1\n" * 3)
    message = pyroformer("run", write(spec), "--out", folder).message
    assert message.endswith(f"a new folder; this one holds a run on other data: {path} changed since")
    with pytest.raises(SpecError, match="a run on other data"):
        fit(Spec(**spec), out=folder)
    assert load(folder).metrics["test"] == run.metrics["test"]


def test_a_comparison_is_refused_before_any_cell_runs(table, tmp_path):
    spec, path = table
    study = Study("Once more", {"ML": {"driver": ML}}, {key: spec[key] for key in ("task", "model")})
    compare(study, out=tmp_path / "study", jobs=1)
    with path.open("a") as more:
        more.write("1.5,2.5,1\n")
    longer = Study(study.title, {**study.methods, "more": {"driver": {"ml": {"epochs": 2}}}}, study.base)
    with pytest.raises(SpecError, match="a run on other data"):
        compare(longer, out=tmp_path / "study", jobs=1)
    assert not (tmp_path / "study" / "runs" / "more").exists()


def test_records_that_hold_no_hash_tell_nothing(text, tmp_path):
    spec, _ = text
    fit(Spec(**spec), out=tmp_path / "run")
    file = tmp_path / "run" / "data.json"
    kept = json.loads(file.read_text("utf-8"))
    assert set(kept.pop("sha256")) == {"train", "validation", "test"}
    file.write_text(json.dumps(kept), "utf-8")
    assert load(tmp_path / "run").metrics["test"]
