"""Settings: read back, described, and refused when they are wrong."""

import math
import pickle
from types import SimpleNamespace
from typing import Literal

import pytest

from pyroformer import priors
from pyroformer.priors import (
    ContextualCenter,
    DirichletRows,
    Fixed,
    FlatCenter,
    GammaRows,
    GumbelSoftmaxRows,
    Improper,
    Learned,
    LearnedCenter,
    LogisticNormalRows,
    LogNormalRows,
    MatchedUniformCenter,
    Normal,
    PositionalCenter,
    SettingError,
    SoftmaxCenter,
    choice_name,
    describe,
    settings,
)
from pyroformer.priors.settings import check_count, check_option, check_positive

CLASSES = [cls for name in priors.__all__ if isinstance(cls := getattr(priors, name), type)]
CENTERS = {choice_name(cls): cls for cls in CLASSES if issubclass(cls, priors.RowCenter)}
BY_NAME = {choice_name(cls): cls for cls in CLASSES if not issubclass(cls, priors.RowCenter)}


def build(described):
    """What `describe` wrote, as objects again."""
    ((name, given),) = described.items()
    if "center" in given:
        ((center, inner),) = given["center"].items()
        given = {**given, "center": CENTERS[center](**inner)}
    return BY_NAME[name](**given)


@pytest.mark.parametrize(
    "choice",
    [
        Normal(),
        Normal(scale=0.2, scaling="fan_in"),
        Improper(),
        Fixed(),
        Learned(),
        DirichletRows(center=FlatCenter(), concentration=2.0, kl_weight=0.0),
        DirichletRows(center=ContextualCenter(hidden=3), concentration=5.0, floor=0.2, kl_weight=0.5),
        GammaRows(center=LearnedCenter(shared="global"), rate=2.0, kl_normalization="entries"),
        LogNormalRows(center=PositionalCenter(reach=3), scale=0.2),
        LogisticNormalRows(center=SoftmaxCenter(), scale=0.2),
        GumbelSoftmaxRows(temperature=3.0),
    ],
    ids=lambda choice: type(choice).__name__,
)
def test_what_is_described_can_be_built_again(choice):
    assert build(describe(choice)) == choice
    plain = {name: describe(value) for name, value in settings(choice).items()}
    assert plain == describe(choice)[choice_name(type(choice))]


def test_a_description_is_plain_data():
    described = describe({"head.*": Normal(scale=2.0), "*.rows": DirichletRows(), "*": [Fixed(), None, 1, "a"]})
    assert described == {
        "head.*": {"normal": {"scale": 2.0, "scaling": "absolute"}},
        "*.rows": {
            "dirichlet_rows": {
                "kl_weight": 1.0,
                "kl_normalization": "none",
                "center": {"softmax": {}},
                "concentration": 10.0,
                "floor": 0.01,
            }
        },
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


def test_a_base_class_may_declare_what_its_names_leave_out():
    assert choice_name(FlatCenter) == "flat" and choice_name(MatchedUniformCenter) == "matched_uniform"
    assert choice_name(type("FlatCenter", (), {})) == "flat_center"


@pytest.mark.parametrize(
    ("build", "key", "value", "accepted"),
    [
        (lambda: Normal(scale=0.0), "scale", 0.0, "above 0"),
        (lambda: Normal(scale=-1.0), "scale", -1.0, "above 0"),
        (lambda: Normal(scale=math.inf), "scale", math.inf, "above 0"),
        (lambda: Normal(scaling="fanin"), "scaling", "fanin", "absolute, fan_in"),
        (lambda: DirichletRows(concentration=0.0), "concentration", 0.0, "above 0"),
        (lambda: DirichletRows(kl_weight=-0.5), "kl_weight", -0.5, "at least 0"),
        (lambda: DirichletRows(kl_weight=math.inf), "kl_weight", math.inf, "at least 0"),
        (lambda: DirichletRows(kl_normalization="entry"), "kl_normalization", "entry", "none, entries"),
        (lambda: DirichletRows(floor=-0.1), "floor", -0.1, "at least 0"),
        (lambda: DirichletRows(floor=0.0, center=SoftmaxCenter()), "floor", 0.0, "above 0"),
        (lambda: DirichletRows(center="flat"), "center", "flat", "a center of rows, such as"),
        (lambda: GammaRows(concentration=-1.0), "concentration", -1.0, "above 0"),
        (lambda: GammaRows(rate=0.0), "rate", 0.0, "above 0, or null"),
        (lambda: GammaRows(floor=0.0, center=ContextualCenter()), "floor", 0.0, "above 0"),
        (lambda: LogNormalRows(scale=0.0), "scale", 0.0, "above 0"),
        (lambda: LogisticNormalRows(scale=-1.0), "scale", -1.0, "above 0"),
        (lambda: LogisticNormalRows(center=LearnedCenter()), "center", "learned", "another center"),
        (lambda: GumbelSoftmaxRows(temperature=0.0), "temperature", 0.0, "above 0"),
        (lambda: GumbelSoftmaxRows(center=LearnedCenter()), "center", "learned", "another center"),
        (lambda: ContextualCenter(hidden=0), "hidden", 0, "a whole number of at least 1"),
        (lambda: PositionalCenter(reach=0), "reach", 0, "a whole number of at least 1"),
        (lambda: LearnedCenter(start=0.0), "start", 0.0, "above 0"),
        (lambda: LearnedCenter(shared="net"), "shared", "net", "global, layer, head"),
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
        DirichletRows(kl_weight=math.nan)


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
