"""The tasks that come with the package: what they say of themselves holds."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from pyroformer.models import Categorical, Features, Gaussian, Image
from pyroformer.tasks import Digits, ToyRegression
from pyroformer.tasks.toy_regression import curve


@pytest.fixture(scope="module")
def digits():
    return Digits().load()


def rows(x):
    """Examples as a set, to see whether two splits share one."""
    return {tuple(example) for example in x.flatten(1).tolist()}


def test_digits_are_1200_to_train_100_to_validate_and_497_to_test(digits):
    assert [len(s.x) for s in (digits.train, digits.validation, digits.test)] == [1200, 100, 497]
    for split in (digits.train, digits.validation, digits.test):
        assert split.x.shape[1:] == (8, 8)
        assert split.x.dtype == torch.float32
        assert (float(split.x.min()), float(split.x.max())) == (0.0, 1.0)
        assert split.y.shape == split.x.shape[:1]
        assert split.y.unique().tolist() == list(range(10))


def test_digits_have_the_shapes_of_a_classification(digits):
    assert digits.inputs == Image(8, 8, patch=2)
    assert digits.outputs.size == 10
    assert isinstance(digits.likelihood, Categorical)


def test_splits_of_digits_share_no_example(digits):
    train, validation, test = (rows(s.x) for s in (digits.train, digits.validation, digits.test))
    assert not train & validation and not train & test and not validation & test
    assert len(train | validation | test) == 1797


def test_digits_are_the_same_every_time_and_another_split_is_another(digits):
    again, other = Digits().load(), Digits(split=1).load()
    for name in ("train", "validation", "test"):
        assert torch.equal(getattr(again, name).x, getattr(digits, name).x)
        assert torch.equal(getattr(again, name).y, getattr(digits, name).y)
        assert not torch.equal(getattr(other, name).x, getattr(digits, name).x)
    assert torch.equal(again.shifted["noisy"].x, digits.shifted["noisy"].x)
    assert torch.equal(again.ood["photographs"].x, digits.ood["photographs"].x)


def test_digits_do_not_depend_on_the_global_seed_nor_change_it(digits):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    again = Digits().load()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again.shifted["noisy"].x, digits.shifted["noisy"].x)


@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_noisy_digits_have_the_stated_noise(noise):
    data = Digits(noise=noise).load()
    added = (data.shifted["noisy"].x - data.test.x).flatten().double()
    assert torch.equal(data.shifted["noisy"].y, data.test.y)
    count = len(added)
    assert abs(float(added.mean())) < 5 * noise / count**0.5
    assert abs(float(added.std()) - noise) < 5 * noise / (2 * count) ** 0.5
    assert abs(float(added.std()) - 1.1 * noise) > 5 * noise / (2 * count) ** 0.5  # another noise would be noticed
    neighbours = (added[1:] * added[:-1]).mean() / noise**2
    assert abs(float(neighbours)) < 5 / count**0.5


def test_photographs_look_like_inputs_but_are_no_digits(digits):
    photographs = digits.ood["photographs"]
    assert photographs.y is None
    assert photographs.x.shape == digits.test.x.shape
    assert photographs.x.dtype == torch.float32
    assert 0 <= float(photographs.x.min()) < float(photographs.x.max()) <= 1
    assert len(rows(photographs.x)) > 0.95 * len(photographs.x)
    assert not rows(photographs.x) & rows(digits.test.x)


def test_digits_of_other_sizes():
    data = Digits(train=50, validation=0).load()
    assert (len(data.train.x), data.validation, len(data.test.x)) == (50, None, 1747)
    assert data.data.x_validation is None
    assert torch.equal(data.train.x, Digits().load().train.x[:50])


def test_the_toy_curve_has_nothing_in_the_gap():
    data = ToyRegression(train=1000, test=500).load()
    assert data.inputs == Features(1)
    assert isinstance(data.likelihood, Gaussian)
    assert [len(s.x) for s in (data.train, data.validation, data.test, data.shifted["gap"])] == [1000, 250, 500, 500]
    for split in (data.train, data.validation, data.test):
        assert 0.7 <= float(split.x.abs().min()) < float(split.x.abs().max()) <= 2
        right = float((split.x > 0).double().mean())
        assert abs(right - 0.5) < 5 * 0.5 / len(split.x) ** 0.5
    assert float(data.shifted["gap"].x.abs().max()) <= 0.7


def test_the_toy_noise_is_what_the_likelihood_says():
    data = ToyRegression(train=2000).load()
    noise = (data.train.y - curve(data.train.x)).double()
    assert data.train.y.shape == data.train.x.shape == (2000, 1)
    assert abs(float(noise.mean())) < 5 * 0.1 / 2000**0.5
    assert abs(float(noise.std()) - 0.1) < 5 * 0.1 / 4000**0.5
    assert data.likelihood.scale == 0.1


def test_the_toy_data_are_the_same_every_time_and_another_split_is_another():
    one, again, other = ToyRegression().load(), ToyRegression().load(), ToyRegression(split=1).load()
    assert torch.equal(one.train.x, again.train.x) and torch.equal(one.test.y, again.test.y)
    assert not torch.equal(one.train.x, other.train.x)
    assert not rows(one.train.x) & rows(one.test.x)


def test_tasks_say_where_their_data_are_from():
    digits, toy = Digits(split=3).load().source, ToyRegression(split=4).load().source
    assert digits["origin"].startswith("scikit-learn ") and digits["split"] == 3
    (path,) = digits["files"]
    assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == digits["files"][path]
    assert digits["sizes"] == {"train": 1200, "validation": 100, "test": 497, "noisy": 497, "photographs": 497}
    assert (toy["origin"], toy["split"]) == ("made from its seed", 4)
    assert toy["sizes"] == {"train": 100, "validation": 100, "test": 200, "gap": 200}
    assert json.loads(json.dumps([digits, toy])) == [digits, toy]


def test_the_noise_of_digits_is_the_one_that_results_were_measured_with(digits):
    clean, noise = digits.test.x, torch.randn(digits.test.x.shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(digits.shifted["noisy"].x, clean + 0.3 * noise)
