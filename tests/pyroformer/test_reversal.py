"""Words to be written backwards: what source and target are, and that an encoder-decoder learns it in a run."""

import json

import pytest
import torch

from pyroformer import Spec, fit, generate, load
from pyroformer.choices import SpecError
from pyroformer.evaluation import sequence_accuracy
from pyroformer.inference import ClassPrediction
from pyroformer.priors import SettingError
from pyroformer.tasks import Reversal
from pyroformer.tasks.reversal import alphabet_of, reversed_words

NET = {"encoder_decoder": {"width": 8, "heads": 2, "depth": 1}}
SMALL = {"reversal": {"train": 40, "test": 10, "letters": 3, "length": 4}}


def test_words_backwards_and_one_place_late():
    split = reversed_words(torch.tensor([[0, 1, 2, 1], [2, 0, 1, 1], [1, 2, 2, 0]]), torch.tensor([4, 2, 1]), 3)
    source, before = split.x
    assert source.tolist() == [[0, 1, 2, 1], [2, 0, 3, 3], [1, 3, 3, 3]]
    assert split.y.tolist() == [[1, 2, 1, 0], [0, 2, -100, -100], [1, -100, -100, -100]]
    assert before.tolist() == [[4, 1, 2, 1], [4, 0, 3, 3], [4, 3, 3, 3]]


def test_sets_lengths_and_seeds():
    data, again, other = Reversal().load(), Reversal().load(), Reversal(split=1).load()
    sizes = {"train": 2000, "validation": 150, "test": 300, "longest": 300}
    assert data.source["sizes"] == sizes
    assert torch.equal(data.train.x[0], again.train.x[0]) and not torch.equal(data.train.x[0], other.train.x[0])
    lengths = torch.bincount((data.train.y >= 0).sum(1), minlength=9).double()
    assert lengths[0] == 0 and ((lengths[1:] - 250).abs() < 5 * (2000 * 7 / 64) ** 0.5).all()
    assert (data.shifted["longest"].y >= 0).all()
    with pytest.raises(SettingError, match="letters = 1: expected a whole number of at least 2"):
        Reversal(letters=1)


def test_sequence_accuracy_counts_whole_sequences():
    y = torch.tensor([[0, 1, -100], [0, 1, 1], [1, 1, -100]])
    labels = torch.tensor([[0, 1, 0], [0, 1, 0], [1, 1, 1]])
    prediction = ClassPrediction(torch.nn.functional.one_hot(labels, 2).double(), torch.zeros(3, 3), 1)
    assert sequence_accuracy(prediction, y) == pytest.approx(2 / 3)


def test_a_run_with_random_rows_is_kept_and_read_again(tmp_path):
    prior = {"*.rows": {"dirichlet_rows": {"kl_weight": 0}}, "*": "normal"}
    spec = Spec(task=SMALL, model=NET, prior=prior, driver={"svi": {"epochs": 2}})
    run = fit(spec, out=tmp_path / "run")
    assert 0 <= run.metrics["test"]["sequence_accuracy"] <= run.metrics["test"]["accuracy"] <= 1
    x = spec.task.load().test.x
    again = load(tmp_path / "run").posterior.predict(x, 4)
    assert torch.equal(again.probabilities, run.posterior.predict(x, 4).probabilities)
    assert again.probabilities.shape == (10, 4, 3)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A run that has learned to write words of two letters backwards."""
    task = {"reversal": {"train": 160, "test": 60, "letters": 3, "length": 2}}
    driver = {"ml": {"epochs": 24, "batch_size": 32, "learning_rate": 0.02, "validate_every": 24}}
    net = {"encoder_decoder": {"width": 16, "heads": 2, "depth": 1}}
    return fit(Spec(task=task, model=net, driver=driver), out=tmp_path_factory.mktemp("learned") / "run")


def test_cross_attention_learns_what_no_decoder_alone_could(learned):
    """The letters are independent, so without the source the NLL is at least that of guessing, log 3."""
    found = learned.metrics["test"]
    assert found["nll"] < 0.3 and found["sequence_accuracy"] > 0.7
    content = learned.spec.to_dict()
    blind = {"ml": {**content["driver"]["ml"], "epochs": 1}}
    untrained = fit(Spec(**{**content, "driver": blind}))
    assert untrained.metrics["test"]["nll"] > 0.6  # planted: hardly trained


def test_words_are_written_in_full_as_often_as_the_metric_says(learned):
    """With the most probable letters; the metric is of right letters given the right ones before them."""
    run, test = load(learned.folder), learned.spec.task.load().test
    words = ["".join("abc"[letter] for letter in word if letter < 3) for word in test.x[0].tolist()]
    found = [generate(run, word, temperature=0) for word in words]
    right = [each.text == word[::-1] for each, word in zip(found, words, strict=True)]
    assert sum(right) / len(right) == pytest.approx(learned.metrics["test"]["sequence_accuracy"])
    assert sum(each.text == word for each, word in zip(found, words, strict=True)) < sum(right)  # planted: forwards
    assert all(each.prompt == word and len(each.tokens) == len(word) for each, word in zip(found, words, strict=True))


def test_the_command_writes_the_target_of_a_source(learned, pyroformer, tmp_path):
    out = tmp_path / "target.json"
    options = ("--prompt", "ab", "--temperature", 0, "--out", out)
    done = pyroformer("generate", learned.folder, *options)
    expected = generate(learned, "ab", temperature=0)
    assert done.out == f"ab → {expected.text}\n\n{expected.summary}\ntokens: {out}\n" and done.err == ""
    assert expected.summary.startswith("2 characters from 1 draw; mean entropy ")
    assert expected.colored().plain == f"ab → {expected}" and len(expected.text) == 2
    kept = json.loads(out.read_text("utf-8"))
    assert kept == expected.to_dict() and kept["prompt"] == "ab"
    assert len(generate(learned, "ab", num_tokens=1).text) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--prompt: got null; accepted: a source of at most 2 characters"),
        (("--prompt", "abc"), "--prompt: got abc; accepted: a source of at most 2 characters"),
        (("--prompt", "ad"), "--prompt: got d; accepted: characters of the run's vocabulary, 'abc'"),
        (("--prompt", "ab", "--tokens", 3), "--tokens: got 3; accepted: at most 2, the longest target"),
    ],
)
def test_sources_and_targets_that_are_refused(learned, pyroformer, options, said):
    assert pyroformer("generate", learned.folder, *options).message == said


def test_random_rows_write_with_what_they_are_unsure_of():
    prior = {"*.rows": {"dirichlet_rows": {"kl_weight": 0}}, "*": "normal"}
    run = fit(Spec(task=SMALL, model=NET, prior=prior, driver={"svi": {"epochs": 2}}))
    found = generate(run, "abca", num_samples=6, seed=2)
    assert found.num_samples == 6 and (found.mutual_information > 0).all()
    assert torch.allclose(found.entropy, found.expected_entropy + found.mutual_information)
    assert generate(run, "abca", num_samples=6, seed=2).text == found.text


def test_many_letters_are_written_as_numbers():
    assert alphabet_of(26).tokens[-1] == "z" and alphabet_of(27).tokens[-1] == "26"
    task = {"reversal": {"train": 40, "test": 10, "letters": 30, "length": 4}}
    found = generate(fit(Spec(task=task, model=NET, driver={"ml": {"epochs": 1}})), "29 0 3")
    assert found.prompt == "29 0 3" and len(found.tokens) == 3 and found.text == " ".join(found.tokens)


def test_nets_that_do_not_fit_are_refused(tmp_path, pyroformer, refused):
    said = "a net of a source and a target sequence, such as encoder_decoder"
    assert refused({"task": SMALL, "model": "transformer"}).endswith(said)
    assert "a net of one input, such as transformer" in refused({"task": "digits", "model": NET})
    run = fit(Spec(task=SMALL, model=NET, driver={"ml": {"epochs": 1}}), out=tmp_path / "done")
    assert run.folder is not None
    found = pyroformer("predict", tmp_path / "done", "--input", tmp_path / "x.npy", "--out", tmp_path / "p.csv")
    assert "the task has two inputs an example, which no file holds" in found.message


def test_a_center_of_distances_is_refused_for_cross_attention(refused):
    prior = {"*.rows": {"dirichlet_rows": {"center": "positional"}}, "*": "learned"}
    message = refused({"task": SMALL, "model": NET, "prior": prior})
    assert message.startswith(
        "prior: got dirichlet_rows; accepted: another center: positional is for keys and queries "
    )
    assert "those of decoder.0.cross.rows are of two; *.attention.rows names no such layer" in message


def test_a_setting_out_of_range_has_its_path(refused):
    assert refused({"task": {"reversal": {"letters": 1}}}).startswith("task.reversal.letters: got 1; accepted: ")
    with pytest.raises(SpecError, match=r"model.encoder_decoder.heads: got 3"):
        spec = Spec(task=SMALL, model={"encoder_decoder": {"width": 8, "heads": 3}})
        spec.build_model(spec.task.load())
