"""`show`: what is found by which words, what is said of wrong ones, and how it looks in a terminal and in a file."""

import pytest

import pyroformer as package
from pyroformer import show
from pyroformer.choices import KINDS, SpecError
from pyroformer.priors import Normal
from pyroformer.study import builtin


def test_everything_about_one_choice():
    about = show("prior", "normal")
    assert about.summary == "Independent normal entries."
    assert [equation.text for equation in about.equations] == ["wᵢ ∼ N(c, s²)"]
    scale, scaling = about.settings
    assert (scale.name, scale.type, scale.default) == ("scale", "a number", "1.0")
    assert scale.description == "The standard deviation, above 0, default 1."
    assert (scaling.type, scaling.default) == ("one of absolute, fan_in, depth", "absolute")
    assert about.raises["SettingError"].startswith("scale is not above 0")
    assert about.reference.startswith("MacKay, 1992")
    assert [base.name for base in about.bases] == ["ScaledPrior", "ScaleFamily", "Prior"]
    assert about.example == "task: digits\nprior: {normal: {scale: 1.0, scaling: absolute}}\n"


def test_settings_of_its_own_come_first_and_the_others_are_described_where_they_are_from():
    settings = {setting.name: setting for setting in show("svi").settings}
    assert list(settings)[:5] == ["learning_rate", "particles", "temperature", "kl_weight", "kl_warmup"]
    assert settings["learning_rate"].default == "0.003"
    assert settings["epochs"].description == "Passes over the data, default 60."
    assert settings["dtype"].description == "float32 (default) or float64, for parameters and data."
    assert settings["clip_norm"].type == "a number or null"


def test_nested_choices_are_short():
    components, weights = show("mixture").settings
    assert (components.type, components.default) == ("a list of priors", "[normal, normal(scale=0.1)]")
    assert (weights.type, weights.default) == ("a list of numbers or null", "null")
    assert [setting.type for setting in show("hierarchical").settings] == ["a hyperprior", "a prior", "true or false"]


@pytest.mark.parametrize("words", [("normal",), ("prior", "normal"), ("priors", "normal")])
def test_the_command(pyroformer, words):
    ended = pyroformer("show", *words)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("normal  a prior\n")
    assert all(part in ended.out for part in ("wᵢ ∼ N(c, s²)", "Settings\n", "Raises\n", "Reference\n", "Example\n"))
    assert "\x1b" not in ended.out and max(map(len, ended.out.splitlines())) <= 80
    assert not any(line.endswith(" ") for line in ended.out.splitlines())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_in_the_plural(pyroformer, kind):
    name = next(iter(KINDS[kind].classes()))
    assert pyroformer("show", f"{kind}s", name).out == pyroformer("show", kind, name).out


def test_a_study_is_shown_as_its_file(pyroformer):
    for kind in ("study", "studies"):
        assert pyroformer("show", kind, "toy").out == builtin()["toy"].read_text("utf-8")


WRONG = [
    (("norml",), "norml", "did you mean normal"),
    (("prior",), "prior", "a name as well, among ard, cauchy"),
    (("prior", "norml"), "norml", "did you mean normal"),
    (("prior", "mean_field"), "mean_field", "mean_field is a guide"),
    (("pror", "normal"), "pror", "did you mean prior"),
    (("study", "digts"), "digts", "did you mean digits"),
    (("study",), "null", "a study among"),
]


@pytest.mark.parametrize(("words", "value", "accepted"), WRONG)
def test_wrong_words(pyroformer, words, value, accepted):
    message = pyroformer("show", *words).message
    assert message.startswith(f"show: got {value}; accepted: "), message
    assert accepted in message


def test_a_name_of_two_kinds_needs_its_kind(monkeypatch):
    monkeypatch.setattr("pyroformer.choices.Kind.classes", lambda kind: {"normal": Normal})
    with pytest.raises(SpecError) as caught:
        show("normal")
    assert "prior normal or hyperprior normal or center normal or guide normal" in caught.value.accepted
    assert show("prior", "normal").kind == "prior"


def test_it_prints_in_python():
    assert str(show("normal")).startswith("normal  a prior\n\nIndependent normal entries.\n\n    wᵢ ∼ N(c, s²)\n")
    assert package.show is show and isinstance(show("normal"), package.About)


def test_a_terminal_without_greek_letters(fork):
    ascii = "import sys\nsys.stdout.reconfigure(encoding='ascii', errors='strict')\n"
    running = fork("show", "svi", code=ascii + "from pyroformer.cli import main\nmain()")
    out, err = running.communicate()
    assert running.returncode == 0, err
    assert "+ lambda beta_t (E_q[log p(w, A)] + T H[q])" in out
    assert "?" not in out and "Soenderby" in out


def test_list_of_priors_has_short_defaults(pyroformer):
    out = pyroformer("list", "priors").out
    assert "  mixture(components=[normal, normal(scale=0.1)], weights=null)\n" in out
    assert "  scale_mixture(prior=normal, factors=[0.1111, 0.3333, 1.0, 3.0, 9.0], weights=null)\n" in out
