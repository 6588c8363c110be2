"""A user's own arrays: what they become, and what is wrong with them."""

import hashlib
import pickle

import numpy as np
import pytest
import torch

from pyroformer import Spec, Task, fit
from pyroformer.choices import SpecError
from pyroformer.inference import DataError
from pyroformer.models import Categorical, Features, Gaussian, Image, Series, Tokens
from pyroformer.tasks import Arrays

N = 24
RANDOM = np.random.default_rng(0)
REALS = RANDOM.normal(size=(N, 3))
TOKENS = RANDOM.integers(0, 7, size=(N, 5))
SEQUENCES = RANDOM.normal(size=(N, 5, 2))
IMAGES = RANDOM.integers(0, 256, size=(N, 3, 6, 6)).astype(np.uint8)
CLASSES = np.arange(N) % 3
LABELS = TOKENS % 2

KINDS = {
    # x, y, shape of the input, number of outputs, likelihood, labels a token
    "features": (REALS, CLASSES, Features(3), 3, Categorical, False),
    "features of 0 and 1": (REALS > 0, CLASSES, Tokens(2, 3), 3, Categorical, False),
    "tokens": (TOKENS, CLASSES, Tokens(7, 5), 3, Categorical, False),
    "a class a token": (TOKENS, LABELS, Tokens(7, 5), 2, Categorical, True),
    "real sequences": (SEQUENCES, CLASSES, Series(5, 2), 3, Categorical, False),
    "whole sequences": ((4 * SEQUENCES).astype(int), CLASSES, Series(5, 2), 3, Categorical, False),
    "a class a step": (SEQUENCES, LABELS, Series(5, 2), 2, Categorical, True),
    "images of bytes": (IMAGES, CLASSES, Image(6, 6, 3, 2), 3, Categorical, False),
    "regression": (REALS, REALS[:, 0], Features(3), 1, Gaussian, False),
    "regression on several": (SEQUENCES, REALS[:, :2], Series(5, 2), 2, Gaussian, False),
    "two classes as booleans": (REALS, CLASSES > 0, Features(3), 2, Categorical, False),
}
NET = {"transformer": {"width": 4, "heads": 2, "depth": 1}}


@pytest.mark.parametrize("name", KINDS)
def test_arrays_become_a_task_that_can_be_learnt(name):
    x, y, inputs, size, likelihood, per_token = KINDS[name]
    task = Task.from_arrays(x, y, x[:6], y[:6])
    data = task.load()
    assert data.inputs == inputs
    assert (data.outputs.size, data.outputs.per_token) == (size, per_token)
    assert isinstance(data.likelihood, likelihood)
    assert len(data.validation.x) == N // 10
    assert len(data.train.x) == N - N // 10
    assert len(data.test.x) == 6
    run = fit(Spec(task=task, model=NET, driver={"ml": {"epochs": 1}}))
    assert np.isfinite(run.metrics["test"]["nll"])


def test_validation_examples_are_a_fixed_tenth_of_the_training_examples():
    x = np.arange(40, dtype=float)[:, None]
    once, again = (Task.from_arrays(x, x[:, 0], x, x[:, 0]).load() for _ in range(2))
    held, kept = (s.x.flatten().tolist() for s in (once.validation, once.train))
    assert sorted(held + kept) == x[:, 0].tolist()
    assert torch.equal(once.validation.x, again.validation.x)
    given = Task.from_arrays(x, x[:, 0], x, x[:, 0], x[:3], x[:3, 0]).load()
    assert (len(given.train.x), len(given.validation.x)) == (40, 3)
    assert Task.from_arrays(x[:5], x[:5, 0], x, x[:, 0]).load().validation is None


def test_the_share_and_the_seed_of_validation_examples(tmp_path):
    path = str(file(tmp_path))
    sizes = [Arrays(file=path, validation=share).load().source["sizes"]["validation"] for share in (0, 0.1, 0.5)]
    assert sizes == [0, 2, 12]
    one, other = (Arrays(file=path, split=split).load() for split in (0, 1))
    assert not torch.equal(one.validation.x, other.validation.x)
    assert (one.source["split"], other.source["split"]) == (0, 1)


def test_arrays_in_memory_say_what_they_are():
    one, again, other = (Task.from_arrays(x, CLASSES, REALS, CLASSES).load() for x in (REALS, REALS, REALS + 1))
    assert one.source["origin"] == "arrays in memory"
    assert one.source == again.source != other.source
    assert one.source["sha256"]["y"] == other.source["sha256"]["y"]


def test_numpy_torch_and_lists_are_the_same():
    learned = torch.tensor(REALS, requires_grad=True)
    tasks = [
        Task.from_arrays(x, y, x, y)
        for x, y in [(REALS, CLASSES), (learned, torch.tensor(CLASSES)), (REALS.tolist(), CLASSES.tolist())]
    ]
    first, *others = (task.load() for task in tasks)
    assert all(torch.equal(first.train.x, o.train.x) and torch.equal(first.train.y, o.train.y) for o in others)
    half = Task.from_arrays(torch.tensor(REALS).bfloat16(), CLASSES, REALS, CLASSES).load()
    torch.testing.assert_close(half.train.x, first.train.x, rtol=1e-2, atol=0)


def test_labels_that_are_not_observed_are_left_out():
    labels = LABELS.copy()
    labels[:, 0] = -100
    run = fit(Spec(task=Task.from_arrays(TOKENS, labels, TOKENS, labels), model=NET, driver={"ml": {"epochs": 1}}))
    seen = run.predictions["test.labels"] >= 0
    picked = run.predictions["test.probabilities"][seen].gather(-1, run.predictions["test.labels"][seen].unsqueeze(-1))
    assert run.metrics["test"]["nll"] == pytest.approx(float(-picked.log().mean()), rel=1e-5)


def test_whole_numbers_to_test_a_regression_on_are_real_numbers():
    data = Task.from_arrays(REALS, REALS[:, 0], REALS, CLASSES).load()
    assert data.test.y.dtype == torch.float32
    assert data.test.y.shape == (N, 1)


def test_ones_own_inputs_and_likelihood():
    task = Task.from_arrays(TOKENS, CLASSES, TOKENS, CLASSES, inputs=Tokens(7, 5, padding=0))
    assert task.load().inputs.padding == 0
    task = Task.from_arrays(REALS, REALS, REALS, REALS, likelihood=Gaussian(noise="random"))
    assert task.load().likelihood.noise == "random"


def file(folder, **changes):
    """A file of classification arrays, with changes; None leaves an array out."""
    arrays = {"x": REALS, "y": CLASSES, "x_test": REALS, "y_test": CLASSES} | changes
    np.savez(folder / "arrays.npz", **{name: a for name, a in arrays.items() if a is not None})
    return folder / "arrays.npz"


def test_a_file_of_arrays(tmp_path):
    path = file(tmp_path, x_validation=REALS[:4], y_validation=CLASSES[:4])
    data = Arrays(file=str(path)).load()
    torch.testing.assert_close(data.train.x, torch.tensor(REALS, dtype=torch.float32))
    assert len(data.validation.x) == 4
    run = fit(Spec(task={"arrays": {"file": str(path)}}, model=NET, driver={"ml": {"epochs": 1}}))
    stored = run.spec.to_dict()["task"]["arrays"]
    assert stored.pop("file") == str(path)
    assert stored == {"validation": 0.1, "split": 0} | dict.fromkeys(
        ["target", "test", "test_file", "regression", "standardize"]
    )
    again = Spec(**run.spec.to_dict()).task.load()
    assert torch.equal(again.train.x, data.train.x)
    assert data.source["files"] == {str(path): hashlib.sha256(path.read_bytes()).hexdigest()}
    assert data.source["sizes"] == {"train": N, "validation": 4, "test": N}


def with_nan(at):
    bad = REALS.copy()
    bad[at, 1] = np.nan
    return bad


BAD = {
    # what is changed, what is said
    "no labels to test on": ({"y_test": None}, "no y_test: expected x, y, x_test, y_test"),
    "an array too many": ({"z": REALS}, "unknown z"),
    "inputs to validate on alone": ({"x_validation": REALS}, "x_validation but no y_validation"),
    "labels to validate on alone": ({"y_validation": CLASSES}, "y_validation but no x_validation"),
    "different lengths": ({"y": CLASSES[:-1]}, "x has 24 examples and y 23"),
    "no examples": ({"x": REALS[:0], "y": CLASSES[:0]}, "x has 0 examples"),
    "no examples to test on": ({"x_test": REALS[:0], "y_test": CLASSES[:0]}, "x_test has 0 examples"),
    "no real observations": ({"x": REALS[:0], "y": REALS[:0, 0]}, "x has 0 examples"),
    "a number in the place of an array": ({"y": np.array(3)}, "y is a single number"),
    "NaN": ({"x": with_nan(7)}, r"x: example 7 holds nan \(1 of 24 examples do\)"),
    "NaN to test on": ({"x_test": with_nan(2)}, "x_test: example 2 holds nan"),
    "numbers too large for single precision": ({"x": REALS * 1e300}, "x: example 0 holds -?inf"),
    "negative classes": ({"y": CLASSES - 1}, "y holds -1: expected classes counted from 0"),
    "a class that is not observed": ({"y": np.where(CLASSES, CLASSES, -100)}, "the label -100: expected 0 to 2"),
    "whole numbers that are no classes": ({"y": CLASSES + 10**9}, "y holds 1000000002: expected classes"),
    "negative tokens": ({"x": TOKENS - 2, "x_test": TOKENS}, "the token -2: expected tokens counted from 0"),
    "texts": ({"y": CLASSES.astype(str)}, "y holds <U21: expected numbers"),
    "complex numbers": ({"x": REALS.astype(complex)}, "x holds complex128: expected numbers"),
    "a column of classes": ({"y": CLASSES[:, None], "y_test": CLASSES[:, None]}, r"y has shape \(22, 1\)"),
    "real labels to test on": ({"y_test": CLASSES + 0.5}, "y_test holds real numbers and y whole ones"),
    "real inputs to test on": ({"x": TOKENS, "x_test": TOKENS + 0.5}, "x_test holds real numbers and x whole ones"),
    "examples of different shapes": ({"x_test": REALS[:, :2]}, "x has shapes"),
    "examples without a number": ({"x": REALS[:, :0], "x_test": REALS[:, :0]}, "at least one number an example"),
    "inputs of one dimension": ({"x": REALS[:, 0], "x_test": REALS[:, 0]}, "expected 2 to 4 dimensions"),
}


@pytest.mark.parametrize("name", BAD)
def test_arrays_that_cannot_be_learnt_from(tmp_path, name):
    changes, said = BAD[name]
    task = Arrays(file=str(file(tmp_path, **changes)))
    with pytest.raises(DataError, match=said):
        fit(Spec(task=task, model=NET, driver={"ml": {"epochs": 1}}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Planted:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


def test_objects_are_not_unpickled(tmp_path):
    path = file(tmp_path, y=np.array([Planted()] * N, dtype=object))
    with pytest.raises(DataError, match="Object arrays cannot be loaded"):
        Arrays(file=str(path)).load()
    path.write_bytes(pickle.dumps(Planted()))
    with pytest.raises(DataError, match=r"is no \.npz file"):
        Arrays(file=str(path)).load()
    with pytest.raises(DataError, match="x holds object"):
        Task.from_arrays(np.array([Planted()], dtype=object), [0], [[1.0]], [0]).load()


def test_files_that_are_damaged(tmp_path):
    path = file(tmp_path)
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[300] ^= 0xFF
    for damaged, said in [
        (content[: len(content) // 2], r"is no \.npz file, or only a part of one"),
        (b"", r"is no \.npz file"),
        (b"x,y\n1,2\n", r"is no \.npz file"),
        (bytes(flipped), "Bad CRC-32"),
    ]:
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=said):
            Arrays(file=str(path)).load()
    np.save(tmp_path / "plain.npy", REALS)
    with pytest.raises(DataError, match=r"is no \.npz file"):
        Arrays(file=str(tmp_path / "plain.npy")).load()


def test_lists_of_different_lengths():
    with pytest.raises(DataError, match="x holds lists of different lengths"):
        Task.from_arrays([[1.0, 2.0], [3.0]], [0, 1], [[1.0, 2.0]], [0])


def test_a_file_that_is_gone(tmp_path):
    with pytest.raises(SpecError, match=r"an existing \.npz file") as error:
        Spec(task={"arrays": {"file": str(tmp_path / "gone.npz")}})
    assert error.value.path == "task.arrays.file"


def test_a_folder_left_with_arrays_alone_is_taken_by_a_run_on_these_arrays_only(tmp_path):
    task, other = (Task.from_arrays(x, REALS[:, 0], x, REALS[:, 0]) for x in (REALS, REALS + 1))
    task.write(tmp_path / "arrays.npz")
    with pytest.raises(SpecError, match="this holds something else"):
        fit(Spec(task=other, model=NET, driver={"ml": {"epochs": 1}}), out=tmp_path)
    assert fit(Spec(task=task, model=NET, driver={"ml": {"epochs": 1}}), out=tmp_path).folder == tmp_path
