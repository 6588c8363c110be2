"""The task of text: what an example is, that sets share no token, what is shifted, and what is measured."""

import gzip
import json
import math
from itertools import pairwise

import pytest
import torch

from pyroformer import Spec, explain, fit
from pyroformer.evaluation import detection, evaluate
from pyroformer.inference import ClassPrediction, DataError
from pyroformer.priors import SettingError
from pyroformer.tasks import Text, TextShift
from pyroformer.tasks.text import SONNETS, sequences, vocabulary_of
from pyroformer.tasks.text_shifts import AMOUNTS, erased, substituted
from pyroformer.tasks.vocabulary import UNKNOWN, pieces

NET = {"transformer": {"width": 8, "heads": 2, "depth": 1}}


@pytest.fixture(scope="module")
def sonnets():
    return Text().load()


@pytest.fixture
def alphabet(tmp_path):
    """A text in which every character tells its place: 100 lines of ``ab..z``."""
    path = tmp_path / "alphabet.txt"
    path.write_text("abcdefghijklmnopqrstuvwxyz" * 100, "utf-8")
    return str(path)


def decoded(data, split):
    """The text of a set: what is read first, and what is predicted."""
    vocabulary = vocabulary_of(data.source)
    return vocabulary.decode(torch.cat([split.x[0, :1], split.y[split.y >= 0]]))


def test_sequences_predict_every_token_but_the_first_once():
    tokens = torch.arange(10, 21)
    split = sequences(tokens, 4, 4, padding=99)
    assert split.x.tolist() == [[10, 11, 12, 13], [14, 15, 16, 17], [18, 19, 99, 99]]
    assert split.y.tolist() == [[11, 12, 13, 14], [15, 16, 17, 18], [19, 20, -100, -100]]
    full = sequences(tokens[:9], 4, 4, padding=99)
    assert full.x.tolist() == [[10, 11, 12, 13], [14, 15, 16, 17]] and (full.y == full.x + 1).all()


@pytest.mark.parametrize(("length", "stride"), [(4, 1), (4, 3), (8, 2), (30, 5), (10, 10)])
def test_strides_leave_no_token_out_and_add_no_sequence_in_vain(length, stride):
    split = sequences(torch.arange(11), length, stride, padding=99)
    inside = split.y >= 0
    assert set(split.y[inside].tolist()) == set(range(1, 11))
    assert (split.y[inside] == split.x[inside] + 1).all() and (split.x[~inside] == 99).all()
    assert split.x[:, 0].tolist() == [stride * i for i in range(len(split.x))]
    without = sequences(torch.arange(11), length, stride, padding=99).y[:-1]
    assert len(split.x) == 1 or 10 not in without.tolist()[-1]


def test_the_sonnets(sonnets):
    text = SONNETS.read_text("ascii")
    assert 15_000 < len(text) < 25_000
    joined = "".join(decoded(sonnets, split) for split in (sonnets.train, sonnets.validation, sonnets.test))
    assert joined == text.replace("J", UNKNOWN)  # of June, in the validation block alone
    assert joined != "".join(decoded(sonnets, s) for s in (sonnets.train, sonnets.test, sonnets.validation))  # planted
    assert sonnets.source["sizes"]["train"] == math.ceil((len(text) - 2 * (len(text) // 10) - 1) / 64)
    assert (sonnets.unit, sonnets.outputs.size) == ("character", len(sonnets.source["classes"]))
    assert sonnets.inputs.padding == sonnets.outputs.size == sonnets.inputs.vocabulary - 1
    assert sonnets.inputs.causal and sonnets.outputs.per_token and sonnets.likelihood.per_token
    assert json.loads(json.dumps(sonnets.source)) == sonnets.source


def test_the_same_every_time_whatever_the_global_seed(sonnets):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    again, other = Text().load(), Text(split=1).load()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again.train.x, sonnets.train.x) and torch.equal(other.train.x, sonnets.train.x)
    for name in ("typos", "shuffled"):
        assert torch.equal(again.shifted[name].x, sonnets.shifted[name].x)
        assert not torch.equal(other.shifted[name].x, sonnets.shifted[name].x)


def test_no_set_sees_a_token_of_another(alphabet):
    data = Text(path=alphabet, length=10, held_out=1000, validation=0.2, test=0.3).load()
    assert [len(decoded(data, s)) for s in (data.train, data.validation, data.test)] == [1300, 520, 780]
    whole = "".join(decoded(data, s) for s in (data.train, data.validation, data.test))
    assert whole == "abcdefghijklmnopqrstuvwxyz" * 100


def test_the_vocabulary_is_that_of_the_training_text(tmp_path):
    path = tmp_path / "new.txt"
    path.write_text("zz" + "ab" * 49, "utf-8")
    data = Text(path=str(path), length=8).load()
    assert data.source["classes"] == [UNKNOWN, "a", "b", "z"]
    small = Text(path=str(path), length=8, vocabulary=3).load()
    assert small.source["classes"] == [UNKNOWN, "a", "b"]
    path.write_text("ab" * 45 + "zz" * 5, "utf-8")
    late = Text(path=str(path), length=8).load()
    assert late.source["classes"] == [UNKNOWN, "a", "b"] and set(late.test.y.unique().tolist()) == {-100, 0}


def test_words_are_limited_and_the_rest_is_unknown():
    data = Text(unit="word", vocabulary=50, length=16).load()
    classes = data.source["classes"]
    assert len(classes) == 50 and {"love", "\n", ",", "the"} < set(classes)
    counted = (data.train.x == 0).sum() / (data.train.x < 50).sum()
    assert 0.2 < float(counted) < 0.7
    assert "other_case" not in data.ood and set(data.ood) == {"random"}
    assert len(Text(unit="word").load().source["classes"]) <= 1000


def test_sets_are_no_larger_than_asked(sonnets):
    data = Text(train=7, held_out=5).load()
    assert {name: data.source["sizes"][name] for name in ("train", "validation", "test", "typos", "random")} == {
        "train": 7, "validation": 5, "test": 5, "typos": 5, "random": 5,
    }  # fmt: skip
    assert torch.equal(data.train.x, sonnets.train.x[:7])
    count = len(sonnets.test.x)
    assert torch.equal(data.test.x, sonnets.test.x[torch.arange(5) * count // 5])
    assert Text(validation=0).load().validation is None


def test_typos_change_the_stated_share_of_what_is_read(sonnets):
    data = Text(held_out=1000, test=0.4, noise=0.3).load()
    read, clean = data.shifted["typos"].x, data.test.x
    seen = clean < data.outputs.size
    assert torch.equal(data.shifted["typos"].y, data.test.y)
    assert torch.equal(read[~seen], clean[~seen])
    share, error = (read != clean)[seen].double().mean(), (0.3 * 0.7 / int(seen.sum())) ** 0.5
    assert abs(float(share) - 0.3) < 5 * error
    assert abs(float(share) - 0.25) > 5 * error  # another share would be noticed


def test_a_substitution_is_uniform_among_the_known_others():
    x = torch.full((40_000, 1), 2)
    found = substituted(x, 1.0, 5, torch.Generator().manual_seed(0))
    count = torch.bincount(found.flatten(), minlength=6).double()
    assert count[[0, 2, 5]].sum() == 0
    assert ((count[[1, 3, 4]] - 40_000 / 3).abs() < 5 * (40_000 * 2 / 9) ** 0.5).all()
    unknown = substituted(0 * x, 1.0, 5, torch.Generator().manual_seed(1))  # has four others, the last one too
    count = torch.bincount(unknown.flatten(), minlength=6).double()
    assert count[[0, 5]].sum() == 0 and ((count[1:5] - 10_000).abs() < 5 * (40_000 * 3 / 16) ** 0.5).all()
    assert torch.equal(erased(x, 1.0, 5, torch.Generator()), torch.zeros_like(x))
    assert torch.equal(substituted(x + 3, 1.0, 5, torch.Generator()), x + 3)  # padding


def test_shuffled_sequences_hold_the_same_tokens_in_another_order(sonnets):
    data = Text(held_out=1000).load()
    mixed, clean = data.shifted["shuffled"], data.test
    vocabulary = vocabulary_of(data.source)
    assert sorted(decoded(data, mixed)) == sorted(decoded(data, clean))
    assert (mixed.x[:, 1:] == mixed.y[:, :-1])[mixed.y[:, :-1] >= 0][:-1].all()  # each predicts what follows in it
    first = vocabulary.decode(clean.x[0])
    assert sorted(vocabulary.decode(mixed.x[0])) == sorted(first) and vocabulary.decode(mixed.x[0]) != first


def test_severities_change_more_and_more_of_the_same_places(sonnets):
    data = Text(shifts=["erasure", "substitution"]).load()
    assert list(data.shifts) == [f"{kind}-{s}" for kind in ("erasure", "substitution") for s in range(1, 6)]
    for kind in ("erasure", "substitution"):
        changed = [data.shifted[f"{kind}-{s}"].x != data.test.x for s in range(1, 6)]
        assert all((after | ~before).all() for before, after in pairwise(changed))
        shares = [float(c.double().mean()) for c in changed]
        assert shares == pytest.approx(AMOUNTS, abs=0.03) and sorted(shares) == shares
    assert TextShift("erasure", 0)(data.test.x, 9) is data.test.x
    with pytest.raises(ValueError, match="blur-1: expected one of substitution, erasure"):
        TextShift("blur", 1)


def test_foreign_texts_have_no_padding_and_no_labels(sonnets):
    assert set(sonnets.ood) == {"random", "other_case"}
    vocabulary = vocabulary_of(sonnets.source)
    for split in sonnets.ood.values():
        assert split.y is None and (split.x < sonnets.outputs.size).all()
    other = vocabulary.decode(sonnets.ood["other_case"].x[0])
    swapped = decoded(sonnets, sonnets.test)[:64].swapcase()
    assert all(a in (b, UNKNOWN) for a, b in zip(other, swapped, strict=True))
    assert len(sonnets.ood["random"].x.unique()) == sonnets.outputs.size - 1


def test_the_other_case_is_that_of_the_test_sequences_and_of_letters():
    data = Text(test=0.4, held_out=7).load()
    vocabulary = vocabulary_of(data.source)
    for own, other in zip(data.test.x, data.ood["other_case"].x, strict=True):
        swapped = [token.swapcase() for token in vocabulary.tokens]
        assert all(
            vocabulary.tokens[b] in (swapped[a], UNKNOWN) for a, b in zip(own.tolist(), other.tolist(), strict=True)
        )


def test_a_text_without_case_has_no_other_case(tmp_path):
    path = tmp_path / "numbers.txt"
    path.write_text("314159 271828 x 161803 141421\n" * 60, "utf-8")
    assert set(Text(path=str(path), length=8).load().ood) == {"random"}
    path.write_text("three one four one five nine\n" * 60, "utf-8")
    assert set(Text(path=str(path), length=8).load().ood) == {"random", "other_case"}


def write_ud(folder):
    """A tiny treebank in the layout of the published one."""
    folder.mkdir(parents=True, exist_ok=True)
    sentences = {"train": [["the", "cat", "sat", "."], ["the", "dog", "ran", "."]] * 3, "dev": [["a", "cat", "ran"]]}
    sentences["test"] = [["the", "cat", "saw", "the", "dog", "."]]
    for part, found in sentences.items():
        lines = []
        for words in found:
            lines += [f"# text = {' '.join(words).replace(' .', '.')}"]
            lines += ["\t".join([str(i), word, word, *"_" * 7]) for i, word in enumerate(words, 1)] + [""]
        (folder / f"en_ewt-ud-{part}.conllu.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return folder


def test_sentences_of_a_treebank(tmp_path, monkeypatch):
    write_ud(tmp_path / "ud")
    monkeypatch.setenv("PYROFORMER_DATA", str(tmp_path))
    words = Text(source="ud", unit="word", length=5).load()
    assert words.source["classes"] == [UNKNOWN, "\n", ".", "cat", "dog", "ran", "sat", "the"]
    assert decoded(words, words.test) == f"the cat {UNKNOWN} the dog.\n"
    assert decoded(words, words.validation) == f"{UNKNOWN} cat ran\n"
    assert len(words.source["files"]) == 3 and words.source["origin"] == "PYROFORMER_DATA"
    characters = Text(source="ud", path=str(tmp_path / "ud"), length=5).load()
    assert decoded(characters, characters.train) == "the cat sat.\nthe dog ran.\n" * 3


def test_words_of_a_treebank_are_cut_as_those_of_a_prompt(tmp_path):
    """Not into the syntactic words of its columns: no prompt could hold ``n't``."""
    folder = write_ud(tmp_path)
    forms = enumerate(["I", "do", "n't", ",", "really", "."], 1)
    lines = ["# text = I don't, really.", *("\t".join([str(i), form, form, *"_" * 7]) for i, form in forms), ""]
    for file in folder.iterdir():
        file.write_bytes(gzip.compress("\n".join(lines * 3).encode()))
    data = Text(source="ud", path=str(folder), unit="word", length=5).load()
    words = pieces("I don't, really.", "word")
    assert "don't" in words and set(data.source["classes"]) == {UNKNOWN, "\n", *words}
    assert decoded(data, data.test) == "I don't, really.\n" * 3


def test_a_treebank_that_is_not_there(nowhere):
    with pytest.raises(DataError, match=r"ud was not found; .*universaldependencies.org .*task.text.path"):
        Text(source="ud").load()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"length": 0}, "length = 0: expected a whole number of at least 1"),
        ({"stride": 65}, "stride = 65: expected at most the length 64"),
        ({"vocabulary": 2}, "vocabulary = 2: expected a whole number of at least 3"),
        ({"test": 0}, "test = 0: expected above 0"),
        ({"test": 0.5, "validation": 0.5}, "test = 0.5: expected above 0, and with validation below 1"),
        ({"noise": 1.5}, "noise = 1.5: expected a number from 0 to 1"),
        ({"shifts": ("blur",)}, "expected a list of some of substitution, erasure, each once"),
        ({"path": "nowhere.txt"}, "path = 'nowhere.txt': expected an existing text file"),
        ({"unit": "byte"}, "unit = 'byte': expected one of character, word"),
        ({"source": "web"}, "source = 'web': expected one of sonnets, ud"),
    ],
)
def test_settings_that_are_refused(settings, said):
    with pytest.raises(SettingError, match=said):
        Text(**settings)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "0 tokens to train: expected at least 2"),
        (b"abc", "0 tokens to test"),
        (b"a" * 100, "1 different tokens to train: expected at least 2"),
        (b"\xff\xfe", "is no UTF-8 text"),
    ],
)
def test_texts_that_are_refused(tmp_path, content, said):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        Text(path=str(path)).load()


class Fixed:
    """A posterior of one prediction: in every place the token that was read has probability 0.7."""

    calibrated, random_rows = None, False

    def __init__(self, size):
        self.size = size

    def predict(self, x, num_samples, seed=0):
        known = torch.nn.functional.one_hot(x.clamp(max=self.size - 1), self.size).double()
        p = 0.7 * known + 0.3 * (1 - known) / (self.size - 1)
        return ClassPrediction(p, torch.special.entr(p).sum(-1), 1)


def test_metrics_are_of_the_tokens_that_are_observed(sonnets):
    posterior = Fixed(sonnets.outputs.size)
    measured, _ = evaluate(posterior, sonnets)
    seen = sonnets.test.y >= 0
    assert not seen.all()
    x, y = sonnets.test.x[seen], sonnets.test.y[seen]
    nll = -torch.where(x == y, torch.tensor(0.7), torch.tensor(0.3 / (posterior.size - 1))).double().log().mean()
    assert measured["test"]["nll"] == pytest.approx(float(nll))
    assert measured["test"]["perplexity"] == pytest.approx(float(nll.exp()))
    assert measured["test"]["bits_per_character"] == pytest.approx(float(nll) / math.log(2))
    assert measured["test"]["accuracy"] == pytest.approx(float((x == y).double().mean()))
    assert "perplexity" in measured["typos"] and "perplexity" not in measured["random"]


def test_padding_does_not_count_where_foreign_inputs_are_told():
    """Entropies are the same everywhere but in the padding, of which the prediction is sure."""
    unsure, sure = torch.full((2, 3, 4), 0.25).double(), torch.eye(4).double()[0]
    padded = unsure.clone()
    padded[1, 1:] = sure
    test, foreign = (ClassPrediction(p, torch.special.entr(p).sum(-1), 2) for p in (padded, unsure))
    seen = torch.tensor([[True] * 3, [True, False, False]]).flatten()
    assert detection(test, foreign, seen)["auroc_entropy"] == 0.5
    assert detection(test, foreign)["auroc_entropy"] > 0.6  # planted: padding counts


def unigram(data):
    """The NLL of the test set under the frequencies of the training set, plus one."""
    count = torch.bincount(data.train.y[data.train.y >= 0], minlength=data.outputs.size).double() + 1
    return float(-(count / count.sum()).log()[data.test.y[data.test.y >= 0]].mean())


ROWS = {"*.rows": {"dirichlet_rows": {"center": "softmax", "kl_weight": 0.01}}, "*": "learned"}
QUICK = {"svi": {"epochs": 15, "batch_size": 16, "learning_rate": 0.02, "validate_every": 15, "validation_samples": 1}}


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    """A text of three words at random, whose letters but the first are certain."""
    path = tmp_path_factory.mktemp("language") / "text.txt"
    order = torch.randint(3, (400,), generator=torch.Generator().manual_seed(0)).tolist()
    path.write_text("".join(("anemone ", "birch ", "clover ")[i] for i in order), "utf-8")
    return {"text": {"path": str(path), "length": 16, "held_out": 4}}


def test_random_rows_under_a_causal_mask_learn_more_than_frequencies(language):
    spec = Spec(task=language, model={"transformer": {"width": 16, "heads": 2, "depth": 1}}, prior=ROWS, driver=QUICK)
    run = fit(spec)
    data = spec.task.load()
    baseline = unigram(data)
    assert run.metrics["test"]["nll"] < 0.6 * baseline
    assert run.metrics["shuffled"]["nll"] > baseline  # what was learned is the order
    assert run.metrics["test"]["mutual_information"] > 0
    untrained = fit(Spec(**{**spec.to_dict(), "driver": {"svi": {"epochs": 1, "learning_rate": 1e-4}}}))
    assert untrained.metrics["test"]["nll"] > 0.6 * baseline  # planted: no training to speak of


def test_explain_says_that_a_small_stride_counts_tokens_often(language):
    spec = Spec(task={"text": {"stride": 16}}, model=NET)
    assert any("task.text.stride = 16: tokens count up to 4 times" in note for note in explain(spec).notes)
    assert not any("stride" in note for note in explain(Spec(task="text", model=NET)).notes)
