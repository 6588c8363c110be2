"""``--set KEY=@file``: a value from a YAML file, of which the run keeps the contents."""

import pytest

from pyroformer import yamlfile
from pyroformer.choices import SpecError

PRIOR = {"*norm*.weight": {"laplace": {"scale": 0.25}}, "*": {"student_t": {"scale": 0.5, "df": 4}}}


def test_a_value_is_read_from_a_file(write):
    content = {"task": "digits", "prior": "improper"}
    file = write(PRIOR, "prior.yaml")
    assert yamlfile.assign(content, f"prior=@{file}") == {"task": "digits", "prior": PRIOR}
    assert yamlfile.assign(content, f"prior= @{file} ")["prior"] == PRIOR
    scale, name = write("0.5\n", "scale.yaml"), write("laplace\n", "name.yaml")
    assert yamlfile.assign(content, f"prior.normal.scale=@{scale}")["prior"] == {"normal": {"scale": 0.5}}
    assert yamlfile.assign(content, f"prior=@{name}")["prior"] == "laplace"
    assert yamlfile.assign(content, f"prior='@{file}'")["prior"] == f"@{file}"  # in quotes it is a text


def test_a_glob_of_the_map_takes_a_file_too(write):
    file = write({"laplace": {"scale": 2}}, "one.yaml")
    found = yamlfile.assign({"prior": "normal"}, f'prior."head.*"=@{file}')
    assert found == {"prior": {"head.*": {"laplace": {"scale": 2}}, "*": "normal"}}


def test_the_run_keeps_the_contents(pyroformer, write, toy, tmp_path):
    file = write(PRIOR, "prior.yaml")
    ended = pyroformer("run", write(toy), "--out", tmp_path / "run", "--quiet", "--set", f"prior=@{file}")
    assert ended.code == 0, ended
    kept = yamlfile.read(tmp_path / "run" / "spec.yaml")["prior"]
    assert list(kept) == list(PRIOR)
    assert kept["*"] == {"student_t": {"scale": 0.5, "scaling": "absolute", "df": 4.0}}
    assert "@" not in (tmp_path / "run" / "spec.yaml").read_text("utf-8")
    file.unlink()  # the run does without it
    assert pyroformer("predict", tmp_path / "run", "--input", "none.npz", "--out", "p.csv").code == 2
    for command in (["explain", write(toy)], ["run", write(toy), "--out", tmp_path / "run"]):
        assert pyroformer(*command, "--set", f"prior=@{file}").message == (
            f"{file}: got no such file; accepted: the path of a YAML file"
        )


@pytest.mark.usefixtures("undrawn")
def test_a_study_takes_a_file(pyroformer, write, toy, tmp_path):
    file = write(PRIOR, "prior.yaml")
    study = write({"base": toy, "methods": {"a": {}, "b": {"prior": "laplace"}}}, "study.yaml")
    out = tmp_path / "out"
    assert pyroformer("compare", study, "--out", out, "--jobs", 1, "--quiet", "--set", f"prior=@{file}").code == 0
    for method in "ab":
        assert list(yamlfile.read(out / "runs" / method / "seed-0" / "spec.yaml")["prior"]) == list(PRIOR)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{normal: {scale: ", "accepted: valid YAML"),
        ("", "accepted: a file that holds a value; this one is empty"),
        ("nonsense: {scale: 1}", "prior: got nonsense; accepted: a prior among"),
        ("{normal: {scale: -1}}", "prior.normal.scale: got -1.0; accepted: a number above 0"),
        ("{'nothing.*': normal, '*': normal}", "prior: got nothing.*; accepted: a pattern that matches a weight"),
    ],
)
def test_a_wrong_file(refused, write, toy, text, said):
    file = write(text, "prior.yaml")
    message = refused(toy, f"prior=@{file}")
    assert said in message, message


def test_a_name_that_is_no_file(refused, toy, tmp_path):
    assert refused(toy, "prior=@") == (
        "--set: got prior=@; accepted: the path of a YAML file behind @, such as prior=@prior.yaml"
    )
    assert refused(toy, f"prior=@{tmp_path}").endswith("accepted: a readable YAML file")
    with pytest.raises(SpecError, match="no such file"):
        yamlfile.assign({}, "prior=@nowhere.yaml")
