"""Text from a run: on the command line, in files, and what is refused."""

import json

import pytest
import torch

from pyroformer import Spec, fit, generate, load
from pyroformer.choices import SpecError
from pyroformer.generation import SHADES
from pyroformer.inference import generate as generate_tokens
from pyroformer.tasks.text import vocabulary_of

NET = {"transformer": {"width": 8, "heads": 2, "depth": 1}}


@pytest.fixture(scope="module")
def sonnets(tmp_path_factory):
    """A short run on characters with random rows and weights."""
    prior = {"*.rows": {"dirichlet_rows": {"center": "softmax", "kl_weight": 0.01}}, "*": "normal"}
    driver = {"svi": {"epochs": 1, "validation_samples": 1}}
    task = {"text": {"length": 16, "train": 60, "held_out": 4}}
    return fit(Spec(task=task, model=NET, prior=prior, driver=driver), out=tmp_path_factory.mktemp("sonnets") / "run")


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A run on words."""
    task = {"text": {"unit": "word", "vocabulary": 40, "length": 8, "train": 40, "held_out": 4}}
    spec = Spec(task=task, model=NET, driver={"ml": {"epochs": 1}})
    return fit(spec, out=tmp_path_factory.mktemp("words") / "run")


def test_the_text_of_a_run_is_that_of_its_posterior(sonnets):
    found = generate(load(sonnets.folder), "When I", num_tokens=25, num_samples=5, seed=3)
    vocabulary = vocabulary_of(sonnets.spec.task.load().source)
    tokens = generate_tokens(sonnets.posterior, vocabulary.encode("When I"), 25, num_samples=5, seed=3, excluded=[0])
    assert found.text == "When I" + vocabulary.decode(tokens.tokens) == str(found)
    assert torch.equal(found.probability, tokens.probability)
    assert torch.equal(found.entropy, tokens.prediction.entropy)
    assert generate(sonnets, num_tokens=3).prompt == "\n"


def test_the_command_writes_text_a_summary_and_a_file(sonnets, pyroformer, tmp_path):
    out = tmp_path / "deep" / "text.json"
    options = ("--prompt", "Shall I", "--tokens", 30, "--samples", 4, "--seed", 2, "--out", out)
    done = pyroformer("generate", sonnets.folder, *options)
    assert done.code == 0 and done.err == ""
    expected = generate(sonnets, "Shall I", num_tokens=30, num_samples=4, seed=2)
    assert done.out == f"{expected.text}\n\n{expected.summary}\ntokens: {out}\n"
    assert expected.summary.startswith("30 characters from 4 draws; mean entropy ")
    kept = json.loads(out.read_text("utf-8"))
    assert kept == expected.to_dict() and kept["text"] == "Shall I" + "".join(t["token"] for t in kept["tokens"])
    assert set(kept["tokens"][0]) == {"token", "probability", "entropy", "expected_entropy", "mutual_information"}
    for token in kept["tokens"]:
        assert token["entropy"] == pytest.approx(token["expected_entropy"] + token["mutual_information"])


def test_a_table_has_one_line_a_token(sonnets, pyroformer):
    done = pyroformer("generate", sonnets.folder, "--prompt", "O", "--tokens", 5, "--samples", 3, "--table")
    head, *lines = done.out.splitlines()[:6]
    found = generate(sonnets, "O", num_tokens=5, num_samples=3)
    assert head.split() == ["token", "probability", "entropy", "expected", "MI"]
    for line, token, entropy in zip(lines, found.tokens, found.entropy.tolist(), strict=True):
        assert line.startswith(repr(token)) and f" {entropy:.4f} " in line


@pytest.mark.parametrize("by", ["entropy", "mutual_information"])
def test_the_least_sure_token_has_the_strongest_shade(sonnets, by):
    found = generate(sonnets, "O", num_tokens=40, num_samples=6)
    shown = found.colored(by)
    assert shown.plain == found.text
    values = getattr(found, by)
    spans = {span.start - 1: str(span.style) for span in shown.spans if span.start}
    assert spans[int(values.argmax())] == SHADES[-1]
    order = values.argsort().tolist()
    assert [SHADES.index(spans[i]) for i in order] == sorted(SHADES.index(spans[i]) for i in order)


def test_words(words, pyroformer):
    found = generate(words, "the love,", num_tokens=12, temperature=0.8)
    assert found.unit == "word" and len(found.tokens) == 12 and found.text.startswith("the love,")
    assert found.num_samples == 1 and "1 draw;" in found.summary
    assert found.colored().plain == found.text
    assert pyroformer("generate", words.folder, "--tokens", 3).code == 0


@pytest.mark.parametrize("settings", [{}, {"unit": "word", "vocabulary": 3}])
def test_a_text_without_lines_starts_with_its_first_token(settings, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("d a b a b c " * 50, "utf-8")
    task = {"text": {"path": str(path), "length": 8, **settings}}
    run = fit(Spec(task=task, model=NET, driver={"ml": {"epochs": 1}}), out=tmp_path / "run")
    found = generate(run, num_tokens=3)
    assert found.prompt == ("a" if settings else "d") and len(found.tokens) == 3  # of the words, a and b are known


MISTAKES = [
    (("--prompt", "naïve"), "--prompt: got ï; accepted: characters of the run's vocabulary, "),
    (("--prompt", ""), "--prompt: got ''; accepted: at least one character"),
    (("--by", "mood"), "--by: got mood; accepted: entropy or mutual_information"),
    (("--out", "text.csv"), "--out: got text.csv; accepted: a file that ends in .json"),
]


@pytest.mark.parametrize(("options", "said"), MISTAKES)
def test_mistakes(sonnets, pyroformer, options, said):
    assert pyroformer("generate", sonnets.folder, *options).message.startswith(said)


def test_an_unknown_word_is_told_with_those_that_look_like_it(words, pyroformer):
    message = pyroformer("generate", words.folder, "--prompt", "the lovely").message
    assert message.startswith("--prompt: got lovely; accepted: words of the run's vocabulary; did you mean love")


def test_a_run_of_another_task(toy, pyroformer, tmp_path):
    fit(Spec(**toy), out=tmp_path / "toy")
    assert pyroformer("generate", tmp_path / "toy").message == (
        "RUN: got toy_regression; accepted: a run of the task text or reversal"
    )
    assert "no spec.yaml" in pyroformer("generate", tmp_path / "nothing").message


def test_a_net_that_looks_ahead(sonnets, refused):
    """No such net is trained on text; one of the user's own is not known to be causal."""
    message = refused({"task": "text", "model": {"transformer": {"causal": False, "width": 8, "heads": 2}}})
    assert message.startswith("model.transformer.causal: got false; accepted: null or true")

    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(100, 100)

        def forward(self, x):
            return self.table(x)[..., : len(classes)]

    classes = sonnets.spec.task.load().source["classes"]
    run = fit(Spec(task=sonnets.spec.task, model=Own(), driver={"ml": {"epochs": 1}}))
    with pytest.raises(SpecError, match="model: got own; accepted: a causal net"):
        generate(run, "O")


@pytest.mark.parametrize("given", [{"num_samples": 0}, {"num_tokens": 0}, {"temperature": -1.0}])
def test_settings_out_of_range_from_python(sonnets, given):
    option = {"num_samples": "--samples", "num_tokens": "--tokens", "temperature": "--temperature"}[next(iter(given))]
    with pytest.raises(SpecError, match=f"{option}: got"):
        generate(sonnets, "O", **given)
