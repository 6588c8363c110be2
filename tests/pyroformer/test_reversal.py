"""Words to be written backwards: what source and target are, and that an encoder-decoder learns it in a run."""

import pytest
import torch

from pyroformer import Spec, fit, load
from pyroformer.choices import SpecError
from pyroformer.evaluation import sequence_accuracy
from pyroformer.inference import ClassPrediction
from pyroformer.priors import SettingError
from pyroformer.tasks import Reversal
from pyroformer.tasks.reversal import reversed_words

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


def test_cross_attention_learns_what_no_decoder_alone_could():
    """The letters are independent, so without the source the NLL is at least that of guessing, log 3."""
    task = {"reversal": {"train": 160, "test": 60, "letters": 3, "length": 2}}
    driver = {"ml": {"epochs": 24, "batch_size": 32, "learning_rate": 0.02, "validate_every": 24}}
    net = {"encoder_decoder": {"width": 16, "heads": 2, "depth": 1}}
    found = fit(Spec(task=task, model=net, driver=driver)).metrics["test"]
    assert found["nll"] < 0.3 and found["sequence_accuracy"] > 0.7
    blind = {"ml": {**driver["ml"], "epochs": 1}}
    assert fit(Spec(task=task, model=net, driver=blind)).metrics["test"]["nll"] > 0.6  # planted: hardly trained


def test_nets_that_do_not_fit_are_refused(tmp_path, pyroformer, refused):
    said = "a net of a source and a target sequence, such as encoder_decoder"
    assert refused({"task": SMALL, "model": "transformer"}).endswith(said)
    assert "a net of one input, such as transformer" in refused({"task": "digits", "model": NET})
    run = fit(Spec(task=SMALL, model=NET, driver={"ml": {"epochs": 1}}), out=tmp_path / "done")
    assert run.folder is not None
    found = pyroformer("predict", tmp_path / "done", "--input", tmp_path / "x.npy", "--out", tmp_path / "p.csv")
    assert "the task has two inputs an example, which no file holds" in found.message
    assert "a run of the task text" in pyroformer("generate", tmp_path / "done").message


def test_a_setting_out_of_range_has_its_path(refused):
    assert refused({"task": {"reversal": {"letters": 1}}}).startswith("task.reversal.letters: got 1; accepted: ")
    with pytest.raises(SpecError, match=r"model.encoder_decoder.heads: got 3"):
        spec = Spec(task=SMALL, model={"encoder_decoder": {"width": 8, "heads": 3}})
        spec.build_model(spec.task.load())
