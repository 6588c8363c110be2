"""What users get wrong about files and folders: exit code 2, one line, and nothing is overwritten."""

import os
import subprocess
import sys

import pytest

WRONG_TEXT = [
    # text of the spec, what is said of it
    ("task: [digits", "line 1"),
    ("task: digits\n\tmodel: transformer", "line 2, column 1: found character '\\t' that cannot start any token"),
    ("task: digits\nseed: 1\ntask: digits\n", "line 3, column 1: the key 'task' stands twice"),
    ("task: digits\nprior: {normal: {scale: 1, scale: 2}}", "line 2, column 28: the key 'scale' stands twice"),
    ("task: digits\n? [a, b]\n: 3\n", "line 2, column 3: a key that is no name"),
    ('task: !!python/object/apply:os.system ["true"]', "line 1, column 7: could not determine a constructor"),
    ("task: 2024-13-45", "month must be in 1..12"),
]


@pytest.mark.parametrize(("text", "said"), WRONG_TEXT)
def test_a_file_that_is_no_yaml(refused, tmp_path, text, said):
    message = refused(text)
    assert message.startswith(f"{tmp_path / 'spec.yaml'}: got {said}"), message
    assert message.endswith("accepted: valid YAML")


@pytest.mark.parametrize("text", ["", "digits", "- task: digits", "7"])
def test_a_file_without_a_mapping(refused, text):
    assert refused(text).endswith("accepted: a mapping such as `task: digits`")


def test_a_file_that_is_not_there_or_cannot_be_read(pyroformer, tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    out = ("--out", tmp_path / "run")
    assert "got no such file" in pyroformer("run", tmp_path / "nowhere.yaml", *out).message
    assert "accepted: a readable YAML file" in pyroformer("run", tmp_path, *out).message
    assert "accepted: a readable YAML file" in pyroformer("run", tmp_path / "binary.yaml", *out).message
    assert not (tmp_path / "run").exists()


def test_an_output_that_is_a_file(pyroformer, write, toy, tmp_path):
    spec, file = write(toy), tmp_path / "file"
    file.write_text("mine")
    assert pyroformer("run", spec, "--out", file).message == f"--out: got {file}; accepted: a folder; this is a file"
    below = pyroformer("run", spec, "--out", file / "run").message
    assert below.startswith(f"--out: got {file / 'run'}; accepted: a folder that can be written to"), below
    assert file.read_text() == "mine"


def test_an_output_folder_that_holds_something_else(pyroformer, write, toy, tmp_path):
    spec, folder = write(toy), tmp_path / "thesis"
    folder.mkdir()
    for name in (".notes.tex.old", "chapter1.tex"):  # one that looks somewhat like a temporary file of ours
        (folder / name).write_text("mine")
        assert "this holds something else" in pyroformer("run", spec, "--out", folder).message
    assert sorted(p.name for p in folder.iterdir()) == [".notes.tex.old", "chapter1.tex"]


@pytest.mark.parametrize("left", [[".spec.yaml.71.new"], [".lock", ".environment.json.71.new"], [".arrays.npz.71.new"]])
def test_a_folder_of_a_process_killed_before_its_spec_was_written_is_taken(pyroformer, write, toy, tmp_path, left):
    spec, folder = write(toy), tmp_path / "run"
    folder.mkdir()
    for name in left:
        (folder / name).write_text("task: {toy")
    assert pyroformer("run", spec, "--out", folder, "--quiet").code == 0
    assert not [path.name for path in folder.glob(".*.new")]


def test_an_output_folder_that_holds_another_run(pyroformer, write, toy, tmp_path):
    spec, folder = write(toy), tmp_path / "run"
    assert pyroformer("run", spec, "--out", folder, "--quiet").code == 0
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for change, said in [
        ("seed=1", "(seed: 0 there, 1 here)"),
        ("driver.svi.epochs=3", "(driver.svi.epochs: 2 there, 3 here)"),
        ("model.transformer.patch=2", None),
        ("prior=improper", "(prior: normal there, improper here)"),
        ("guide=mean_field", "(guide: null there, mean_field here)"),
    ]:
        message = pyroformer("run", spec, "--out", folder, "--set", change).message
        assert said is None or (message.startswith(f"--out: got {folder}; accepted: a new folder") and said in message)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="a folder that even root cannot write to")
def test_an_output_folder_that_cannot_be_written_to(pyroformer, write, toy):
    message = pyroformer("run", write(toy), "--out", "/proc/run").message
    assert message.startswith("--out: got /proc/run; accepted: a folder that can be written to"), message


def test_options_that_do_not_exist_or_are_missing(pyroformer, write, toy, tmp_path):
    spec = write(toy)
    for arguments, said in [
        (["run", spec], "Missing option '--out'"),
        (["run", spec, "--out", tmp_path / "run", "--ste", "seed=1"], "--set"),
        (["run", spec, "--out", tmp_path / "run", "--threads", "0"], "--threads"),
        (["runn", spec], "run"),
    ]:
        ended = pyroformer(*arguments)
        assert ended.code == 2
        assert said in ended.err
        assert "Traceback" not in ended.err
    assert not (tmp_path / "run").exists()


def test_a_kind_that_cannot_be_listed(pyroformer):
    assert pyroformer("list", "pirors").message.rpartition("; ")[2].startswith("did you mean priors")


def test_a_mistake_in_a_process_of_its_own(process, write, toy, tmp_path):
    command = [sys.executable, "-m", "pyroformer", "run", write(toy), "--out", tmp_path / "run"]
    ended = subprocess.run([*command, "--set", "prior=norml"], capture_output=True, **process)
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: prior: got norml; accepted: a prior among ")
    assert "; did you mean normal" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["[" * 5000 + "]" * 5000, "[" * 60 + "]" * 60, "task: &a [*a]", "a: " + "[" * 400])
def test_a_file_that_is_nested_too_deeply(refused, tmp_path, text):
    message = refused(text)
    assert message.startswith(f"{tmp_path / 'spec.yaml'}: got ") and message.endswith("accepted: valid YAML"), message


def test_an_anchor_that_stands_in_many_places_takes_no_time(refused):
    lines = ["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40))]
    assert "accepted: the keys task" in refused("\n".join(lines))
