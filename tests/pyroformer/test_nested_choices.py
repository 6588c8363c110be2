"""Choices inside choices: a prior's own prior, lists of them, and lists of numbers, in YAML and on the command line."""

import pytest

from pyroformer import Spec, yamlfile
from pyroformer.choices import PRIORS, RENAMED, SpecError, build
from pyroformer.priors import (
    Cauchy,
    DirichletRows,
    HalfCauchy,
    Hierarchical,
    Laplace,
    Mixture,
    Normal,
    ScaleMixture,
    StudentT,
    UniformScale,
)

WRITTEN = {
    "hierarchical": (
        "{hierarchical: {prior: {student_t: {df: 4}}, hyperprior: {half_cauchy: {scale: 0.5}}}}",
        Hierarchical(prior=StudentT(df=4.0), hyperprior=HalfCauchy(scale=0.5)),
    ),
    "names alone": (
        "{hierarchical: {prior: laplace, hyperprior: uniform_scale, centered: true}}",
        Hierarchical(prior=Laplace(), hyperprior=UniformScale(), centered=True),
    ),
    "mixture": (
        "{mixture: {components: [normal, {laplace: {scale: 1e-1}}], weights: [1, 3]}}",
        Mixture(components=[Normal(), Laplace(scale=0.1)], weights=[1.0, 3.0]),
    ),
    "scale mixture": (
        "{scale_mixture: {prior: {cauchy: {scaling: fan_in}}, factors: [0.5, 2]}}",
        ScaleMixture(prior=Cauchy(scaling="fan_in"), factors=[0.5, 2.0]),
    ),
    "three deep": (
        "{hierarchical: {prior: {mixture: {components: [{scale_mixture: {factors: [1, 2]}}]}}}}",
        Hierarchical(prior=Mixture(components=[ScaleMixture(factors=[1.0, 2.0])])),
    ),
    "null": ("{mixture: {weights: null}}", Mixture()),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_what_is_written_is_built_and_written_again(case):
    text, expected = WRITTEN[case]
    assert build(PRIORS, yamlfile.parse(text), "prior") == expected
    spec = Spec(task="toy_regression", prior={"head.*": yamlfile.parse(text), "*": "normal"})
    again = Spec(**yamlfile.parse(spec.to_yaml()))
    assert again.prior == spec.prior and again.prior["head.*"] == expected
    assert Spec(task="toy_regression", prior=expected).to_dict()["prior"] == spec.to_dict()["prior"]["head.*"]
    assert again.prior["head.*"] != Normal()  # planted


@pytest.mark.parametrize(
    ("text", "path", "accepted"),
    [
        ("{mixture: {components: [normal, {normal: {scale: 0}}]}}", "mixture.components.1.normal.scale", "above 0"),
        ("{mixture: {components: [normal, {normal: {scal: 1}}]}}", "mixture.components.1.normal.scal", "scale"),
        ("{mixture: {components: [normal, norml]}}", "mixture.components.1", "did you mean normal"),
        ("{mixture: {components: [fixed]}}", "mixture.components.0", "a prior among cauchy"),
        ("{mixture: {components: [hierarchical]}}", "mixture.components.0", "a prior among cauchy"),
        ("{mixture: {components: normal}}", "mixture.components", "a list of priors"),
        ("{mixture: {components: []}}", "mixture.components", "a list of priors"),
        ("{mixture: {weights: [1, x]}}", "mixture.weights.1", "a number"),
        ("{mixture: {weights: [1, true]}}", "mixture.weights.1", "a number"),
        ("{mixture: {weights: [1, -1]}}", "mixture.weights.1", "above 0"),
        ("{mixture: {weights: 1}}", "mixture.weights", "a list of numbers or null"),
        ("{scale_mixture: {factors: [1, [2]]}}", "scale_mixture.factors.1", "a number"),
        ("{scale_mixture: {factors: null}}", "scale_mixture.factors", "a list of numbers"),
        ("{hierarchical: {prior: flat_rows}}", "hierarchical.prior", "a prior among cauchy"),
        ("{hierarchical: {prior: {'*': normal}}}", "hierarchical.prior", "a prior among cauchy"),
        ("{hierarchical: {prior: {normal: {scale: -1}}}}", "hierarchical.prior.normal.scale", "above 0"),
        ("{hierarchical: {hyperprior: normal}}", "hierarchical.hyperprior", "a hyperprior among gamma, half_cauchy"),
        ("{hierarchical: {hyperprior: {gamma: {rate: 0}}}}", "hierarchical.hyperprior.gamma.rate", "above 0"),
        ("{hierarchical: {centered: perhaps}}", "hierarchical.centered", "true or false"),
        ("{hierarchical: {prior: uniform, centered: true}}", "hierarchical.centered", "the support of Uniform"),
        ("{normal: {scaling: depht}}", "normal.scaling", "absolute, fan_in, depth"),
    ],
)
def test_mistakes_are_told_with_their_full_path(text, path, accepted):
    with pytest.raises(SpecError) as caught:
        build(PRIORS, yamlfile.parse(text), "prior")
    assert caught.value.path == f"prior.{path}"
    assert accepted in str(caught.value)


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("prior.hierarchical.prior.student_t.df=5", {"hierarchical": {"prior": {"student_t": {"df": 5}}}}),
        ("prior.hierarchical.hyperprior=gamma", {"hierarchical": {"hyperprior": "gamma"}}),
        ("prior.scale_mixture.factors=[1, 2]", {"scale_mixture": {"factors": [1, 2]}}),
        (
            "prior.mixture.components=[normal, {laplace: {scale: 2}}]",
            {"mixture": {"components": ["normal", {"laplace": {"scale": 2}}]}},
        ),
    ],
)
def test_assignments_reach_inside(assignment, expected):
    assert yamlfile.assign({}, assignment) == {"prior": expected}
    build(PRIORS, expected, "prior")


MIXED = {"prior": {"mixture": {"components": ["normal", {"laplace": {"scale": 2}}], "weights": [1, 2]}}}


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("components.1.laplace.scale=3", {"components": ["normal", {"laplace": {"scale": 3}}], "weights": [1, 2]}),
        ("components.0=cauchy", {"components": ["cauchy", {"laplace": {"scale": 2}}], "weights": [1, 2]}),
        (
            "components.0.normal.scale=3",
            {"components": [{"normal": {"scale": 3}}, {"laplace": {"scale": 2}}], "weights": [1, 2]},
        ),
        ("weights.0=7", {"components": ["normal", {"laplace": {"scale": 2}}], "weights": [7, 2]}),
    ],
)
def test_assignments_reach_into_lists(assignment, expected):
    assert yamlfile.assign(MIXED, f"prior.mixture.{assignment}") == {"prior": {"mixture": expected}}


def test_a_place_that_is_not_in_the_list(refused):
    message = refused({"task": "toy_regression", **MIXED}, "prior.mixture.components.2.normal.scale=3")
    assert message == "--set: got 2; accepted: a place from 0 to 1"
    message = refused({"task": "toy_regression", "prior": "mixture"}, "prior.mixture.components.0=normal")
    assert message == "--set: got 0; accepted: a list that the file gives: set it as a whole"


def test_hyperpriors_can_be_listed(pyroformer):
    printed = pyroformer("list", "hyperpriors").out
    assert printed.startswith("hyperpriors:\n  gamma(concentration=2.0, rate=2.0)\n")
    assert "half_cauchy(scale=1.0)" in printed and "uniform_scale(low=0.0, high=10.0)" in printed
    assert "normal" not in printed


@pytest.mark.parametrize("subset", ["last_layer", ["head.*", "blocks.0.*"]])
def test_a_text_or_a_list_of_texts(subset):
    spec = Spec(task="toy_regression", driver={"laplace": {"subset": subset}})
    kept = subset if isinstance(subset, str) else tuple(subset)
    assert spec.driver.subset == kept == Spec(**yamlfile.parse(spec.to_yaml())).driver.subset


@pytest.mark.parametrize(("subset", "path"), [(3, "subset"), ([["head.*"]], "subset.0"), (None, "subset")])
def test_what_is_neither(subset, path):
    with pytest.raises(SpecError) as caught:
        Spec(task="toy_regression", driver={"laplace": {"subset": subset}})
    assert caught.value.path == f"driver.laplace.{path}"
    assert "a text" in caught.value.accepted


@pytest.mark.parametrize("name", RENAMED)
def test_a_name_of_former_days_is_told_how_it_is_written_now(name):
    with pytest.raises(SpecError, match=f"got {name}; .*{name} is now written ") as caught:
        build(PRIORS, {"*.rows": {name: {"kl_weight": 0}}, "*": "normal"}, "prior")
    now = caught.value.accepted.partition("is now written ")[2]
    assert isinstance(build(PRIORS, yamlfile.parse(now), "prior"), DirichletRows)


@pytest.mark.parametrize("start", ["prior", "ml", {"deep_ensemble": {"size": 4}}, None])
def test_a_word_or_a_choice(start):
    spec = Spec(task="toy_regression", driver={"nuts": {"start": start}})
    assert (spec.driver.start == start) == (start in ("prior", None))
    assert Spec(**yamlfile.parse(spec.to_yaml())).driver == spec.driver
    changed = yamlfile.assign({"task": "toy_regression", "driver": "nuts"}, "driver.nuts.start=prior")
    assert Spec(**changed).driver.start == "prior"


def test_what_is_neither_a_word_nor_a_choice():
    with pytest.raises(SpecError) as caught:
        Spec(task="toy_regression", driver={"nuts": {"start": "priors"}})
    assert caught.value.path == "driver.nuts.start" and caught.value.accepted.startswith("prior, or a driver among ")
    with pytest.raises(SpecError, match=r"driver.nuts.start.ml.epochs: got 0"):
        Spec(task="toy_regression", driver={"nuts": {"start": {"ml": {"epochs": 0}}}})
