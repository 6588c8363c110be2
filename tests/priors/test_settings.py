"""Settings: read back, described, and refused when they are wrong."""

import math
import pickle
from types import SimpleNamespace
from typing import Literal

import pytest

from pyroformer import priors
from pyroformer.priors import (
    ContextualRows,
    Fixed,
    FlatRows,
    Improper,
    Learned,
    MatchedUniformRows,
    Normal,
    SettingError,
    SoftmaxRows,
    choice_name,
    describe,
    settings,
)
from pyroformer.priors.settings import check_count, check_option, check_positive

BY_NAME = {choice_name(cls): cls for name in priors.__all__ if isinstance(cls := getattr(priors, name), type)}


def build(described):
    """What `describe` wrote, as objects again."""
    ((name, given),) = described.items()
    return BY_NAME[name](**given)


@pytest.mark.parametrize(
    "choice",
    [
        Normal(),
        Normal(scale=0.2, scaling="fan_in"),
        Improper(),
        Fixed(),
        Learned(),
        FlatRows(concentration=2.0, kl_weight=0.0),
        MatchedUniformRows(concentration=5.0, kl_weight=0.1),
        ContextualRows(concentration=5.0, hidden=3, floor=0.2, kl_weight=0.5),
        SoftmaxRows(concentration=5.0, floor=0.2),
    ],
    ids=lambda choice: type(choice).__name__,
)
def test_what_is_described_can_be_built_again(choice):
    assert build(describe(choice)) == choice
    assert settings(choice) == describe(choice)[choice_name(type(choice))]


def test_a_description_is_plain_data():
    described = describe({"head.*": Normal(scale=2.0), "*.rows": FlatRows(), "*": [Fixed(), None, 1, "a"]})
    assert described == {
        "head.*": {"normal": {"scale": 2.0, "scaling": "absolute"}},
        "*.rows": {"flat_rows": {"concentration": 1.0, "kl_weight": 1.0}},
        "*": [{"fixed": {}}, None, 1, "a"],
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Normal", "normal"),
        ("DeepEnsemble", "deep_ensemble"),
        ("SVI", "svi"),
        ("MAP", "map"),
        ("ML", "ml"),
        ("NUTS", "nuts"),
        ("StudentT", "student_t"),
        ("IVON", "ivon"),
        ("SWAG", "swag"),
        ("MCDropout", "mc_dropout"),
        ("SGLDSampler", "sgld_sampler"),
        ("DirichletRows", "dirichlet_rows"),
    ],
)
def test_names_of_choices(name, expected):
    assert choice_name(type(name, (), {})) == expected


@pytest.mark.parametrize(
    ("build", "key", "value", "accepted"),
    [
        (lambda: Normal(scale=0.0), "scale", 0.0, "above 0"),
        (lambda: Normal(scale=-1.0), "scale", -1.0, "above 0"),
        (lambda: Normal(scale=math.inf), "scale", math.inf, "above 0"),
        (lambda: Normal(scaling="fanin"), "scaling", "fanin", "absolute, fan_in"),
        (lambda: FlatRows(concentration=0.0), "concentration", 0.0, "above 0"),
        (lambda: FlatRows(kl_weight=-0.5), "kl_weight", -0.5, "at least 0"),
        (lambda: MatchedUniformRows(concentration=-1.0), "concentration", -1.0, "above 0"),
        (lambda: MatchedUniformRows(kl_weight=math.inf), "kl_weight", math.inf, "at least 0"),
        (lambda: ContextualRows(hidden=0), "hidden", 0, "a whole number of at least 1"),
        (lambda: ContextualRows(floor=0.0), "floor", 0.0, "above 0"),
        (lambda: SoftmaxRows(floor=-0.1), "floor", -0.1, "above 0"),
        (lambda: SoftmaxRows(kl_weight=-1), "kl_weight", -1, "at least 0"),
    ],
)
def test_errors_name_the_key_the_value_and_what_is_accepted(build, key, value, accepted):
    with pytest.raises(SettingError) as caught:
        build()
    error = caught.value
    assert (error.key, error.value) == (key, value)
    assert accepted in error.expected and str(error) == f"{key} = {value!r}: expected {error.expected}"


def test_nan_is_no_number():
    with pytest.raises(SettingError, match="scale = nan"):
        Normal(scale=math.nan)
    with pytest.raises(SettingError, match="kl_weight = nan"):
        FlatRows(kl_weight=math.nan)


def test_an_error_can_be_placed_below_its_owner_and_pickled():
    error = SettingError("scale", 0, "a number above 0").below("prior").below("spec")
    assert error.key == "spec.prior.scale"
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.expected == error.expected
    assert str(SettingError("", "blocks", "a pattern")) == "'blocks': expected a pattern"
    assert SettingError("", "blocks", "a pattern").below("prior").key == "prior"


def test_options_may_be_a_literal_type():
    class Choice:
        def __init__(self, kind):
            self.kind = self.size = kind

    check_option(Choice("a"), "kind", Literal["a", "b"])
    with pytest.raises(SettingError, match="kind = 'c': expected one of a, b"):
        check_option(Choice("c"), "kind", Literal["a", "b"])
    with pytest.raises(SettingError, match="size = 0"):
        check_positive(Choice(0), "size")


@pytest.mark.parametrize("value", [0, -3, 2.5, 2.0, True, "3"])
def test_counts_are_whole_numbers(value):
    owner = SimpleNamespace(epochs=value, size=1)
    with pytest.raises(SettingError, match="a whole number of at least 1"):
        check_count(owner, "size", "epochs")
    check_count(owner, "size")
