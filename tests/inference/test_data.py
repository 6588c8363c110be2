"""Data are checked before any work is done, and files are written whole or not at all."""

import math

import numpy as np
import pytest
import torch

from pyroformer.inference import MAP, Data, DataError
from pyroformer.inference.files import WriteError, read_json, replacing, write_json, write_tensors, write_text
from pyroformer.models import BayesianModel, Categorical, Features, Output, Transformer
from pyroformer.priors import Normal

X, Y = torch.randn(10, 2, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 3


def with_value(value, row, of=X):
    broken = of.clone().float()
    broken[row] = value
    return broken


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (with_value(math.nan, 7), Y),
            r"train x: example 7 holds nan \(1 of 10 examples do\): expected finite numbers",
        ),
        ((with_value(math.inf, slice(2, 5)), Y), r"train x: example 2 holds inf \(3 of 10 examples do\)"),
        ((X, with_value(-math.inf, 3, X[:, :1])), r"train y: example 3 holds -inf"),
        ((X, Y, with_value(math.nan, 0), Y), r"validation x: example 0 holds nan"),
        (((X, with_value(math.nan, 1)), Y), r"train x: example 1 holds nan"),
        ((X, Y[:9]), "train: 10 inputs but 9 observations"),
        (((X, X[:4]), Y), "train: .* inputs but 10 observations"),
        ((X, Y, X, Y[:1]), "validation: 10 inputs but 1 observations"),
        ((X[:0], Y[:0]), "train: no examples"),
        ((X, Y, X[:0], Y[:0]), "validation: no examples"),
        ((X, Y, X), r"validation holds a NoneType: expected torch\.Tensors"),
        ((X, Y, None, Y), r"validation holds a NoneType: expected torch\.Tensors"),
        ((np.zeros((10, 2)), Y), "train holds a ndarray"),
        ((X, [0] * 10), "train holds a list"),
        ((X, torch.tensor(1.0)), r"train holds a Tensor: expected torch\.Tensors \[N, \.\.\.\]"),
    ],
)
def test_bad_arrays_are_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        Data(*arguments)


def test_whole_numbers_and_masks_are_inputs_too():
    data = Data((torch.zeros(10, 4, dtype=torch.long), torch.ones(10, 4, dtype=torch.bool)), Y)
    assert len(data) == 10
    assert [part.dtype for part in data.to(torch.device("cpu"), torch.float64).x] == [torch.long, torch.bool]
    assert Data(X, Y).to(torch.device("cpu"), torch.float64).x.dtype == torch.float64
    assert [len(part) for part in data.example()[0]] == [2, 2]


@pytest.mark.parametrize("size", [1, 3, 10, 64])
def test_batches_hold_every_example_once(size):
    data = Data((X, X[:, 0]), Y)
    seen = list(data.batches(size, torch.Generator().manual_seed(0)))
    order = torch.cat([index for index, _, _ in seen])
    assert sorted(order.tolist()) == list(range(10)) and order.tolist() != list(range(10))
    assert [len(y) for _, _, y in seen][:-1] == [size] * (math.ceil(10 / size) - 1)
    for index, (x, first), y in seen:
        assert torch.equal(x, X[index]) and torch.equal(first, X[index, 0]) and torch.equal(y, Y[index])
    again = torch.cat([index for index, _, _ in data.batches(size, torch.Generator().manual_seed(0))])
    assert torch.equal(order, again)


class Idle(MAP):
    """A driver whose work would be an error."""

    def _run(self, *args):
        raise AssertionError("work was done")


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (Y + 1, "train y holds the label 3: expected 0 to 2"),
        (Y - 1, "train y holds the label -1: expected 0 to 2"),
        (Y.float(), "train y is torch.float32 of shape .*: expected whole numbers"),
        (Y.unsqueeze(-1), r"train y is torch.int64 of shape \(10, 1\): expected whole numbers of shape \(10,\)"),
    ],
)
def test_labels_that_do_not_fit_the_net_are_refused(y, message):
    model = BayesianModel(torch.nn.Linear(2, 3), Normal())
    with pytest.raises(DataError, match=message):
        Idle().run(model, None, Data(X, y))
    with pytest.raises(DataError, match=message.replace("train", "validation")):
        Idle().run(model, None, Data(X, Y, X, y))
    with pytest.raises(AssertionError, match="work was done"):
        Idle().run(model, None, Data(X, Y))


def test_labels_of_tokens_may_be_missing():
    net = Transformer(Features(2, copies=1), Output(3, per_token=True), width=4, heads=1, depth=1)
    model = BayesianModel(net, Normal(), Categorical(per_token=True))
    y = torch.tensor([[0, -100]]).repeat(10, 1)
    with pytest.raises(AssertionError, match="work was done"):
        Idle().run(model, None, Data(X, y))
    with pytest.raises(DataError, match="label -7"):
        Idle().run(model, None, Data(X, y.clamp(min=-7)))


class TestFiles:
    def test_the_old_content_survives_a_writer_that_fails(self, tmp_path):
        for path in (tmp_path / "file", tmp_path / "folder" / "file"):
            write_text(path, "old")
        for path, write in (
            (tmp_path / "file", lambda new: new.write_text("half")),
            (tmp_path / "folder", lambda new: (new.mkdir(), (new / "file").write_text("half"))),
        ):
            with pytest.raises(RuntimeError, match="power cut"), replacing(path) as new:
                write(new)
                raise RuntimeError("power cut")
        self.unchanged(tmp_path)

    def test_the_old_content_survives_a_writer_that_writes_nothing(self, tmp_path):
        for path in (tmp_path / "file", tmp_path / "folder" / "file"):
            write_text(path, "old")
        for path in (tmp_path / "file", tmp_path / "folder"):
            with pytest.raises(WriteError, match="could not be written"), replacing(path):
                pass
        self.unchanged(tmp_path)

    @staticmethod
    def unchanged(folder):
        assert sorted(path.name for path in folder.iterdir()) == ["file", "folder"]
        assert (folder / "file").read_text() == "old" and (folder / "folder" / "file").read_text() == "old"

    def test_new_content_takes_the_place_of_the_old(self, tmp_path):
        for text in ("old", "new"):
            write_text(tmp_path / "deep" / "file", text)
        assert (tmp_path / "deep" / "file").read_text() == "new"
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]

    def test_a_failed_write_of_json_leaves_the_old(self, tmp_path):
        write_json(tmp_path / "a.json", {"x": math.nan, "y": (1, math.inf)})
        assert read_json(tmp_path / "a.json") == {"x": None, "y": [1, None]}
        with pytest.raises(TypeError):
            write_json(tmp_path / "a.json", {"x": object()})
        assert read_json(tmp_path / "a.json") == {"x": None, "y": [1, None]}

    def test_tensors_that_share_memory_are_written_apart(self, tmp_path):
        x = torch.arange(6.0).view(2, 3)
        write_tensors(tmp_path / "t.safetensors", {"x": x, "view": x[0], "turned": x.T})
        assert len(list(tmp_path.iterdir())) == 1
