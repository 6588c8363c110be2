"""YAML as people write it, and what ``--set`` does to it."""

import math

import pytest
import yaml

from pyroformer import yamlfile
from pyroformer.choices import SpecError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E3", 1e3),
        ("-2.5e-1", -0.25),
        ("+1e+2", 100.0),
        ("1.e2", 100.0),
        (".5e1", 5.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-3", -3),
        ("0.1", 0.1),
        (".inf", math.inf),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1e-3'", "1e-3"),
        ("1e", "1e"),
        ("e3", "e3"),
        ("1e-3x", "1e-3x"),
        ("digits", "digits"),
    ],
)
def test_scalars(text, value):
    found = yamlfile.parse(text)
    assert type(found) is type(value)
    assert found == value


def test_a_plain_loader_would_read_a_text():
    assert yaml.safe_load("1e-3") == "1e-3"


def test_what_is_dumped_is_read_again():
    content = {"a": 1e-3, "b": 1e20, "c": None, "d": True, "e": "1e-3", "f": {"*.rows": "größe"}, "g": 0.1, "h": "null"}
    assert yamlfile.parse(yamlfile.dump(content)) == content


def test_anchors_and_merges():
    text = "base: &base {task: digits, seed: 1}\nother: {<<: *base, seed: 2}"
    assert yamlfile.parse(text)["other"] == {"task": "digits", "seed": 2}


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("seed", ["seed"]),
        ("prior.normal.scale", ["prior", "normal", "scale"]),
        ('prior."blocks.*.weight".normal.scale', ["prior", "blocks.*.weight", "normal", "scale"]),
        ("prior.'*'.normal", ["prior", "*", "normal"]),
        ("prior.*.normal", ["prior", "*", "normal"]),
    ],
)
def test_paths(path, parts):
    assert yamlfile.split_path(path) == parts


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", 'a."b', "a.'b\"", 'a"b"'])
def test_paths_that_are_none(path):
    with pytest.raises(SpecError, match="a dotted path"):
        yamlfile.split_path(path)


def assigned(content, *assignments):
    for assignment in assignments:
        content = yamlfile.assign(content, assignment)
    return content


ASSIGNMENTS = [
    # before, assignments, after
    ({}, ["seed=3"], {"seed": 3}),
    ({}, ["seed = 3"], {"seed": 3}),
    ({"seed": 1}, ["seed=2", "seed=3"], {"seed": 3}),
    ({}, ["task=digits"], {"task": "digits"}),
    ({}, ["prior.normal.scale=1e-1"], {"prior": {"normal": {"scale": 0.1}}}),
    ({}, ["prior={normal: {scale: 0.5}}"], {"prior": {"normal": {"scale": 0.5}}}),
    ({}, ["driver.svi.clip_norm=null"], {"driver": {"svi": {"clip_norm": None}}}),
    ({}, ["task.arrays.file=a=b.npz"], {"task": {"arrays": {"file": "a=b.npz"}}}),
    # settings of the same choice are kept, whether it was written with settings, without, or as null
    (
        {"driver": {"svi": {"epochs": 5}}},
        ["driver.svi.particles=2", "driver.svi.kl_weight=.5"],
        {"driver": {"svi": {"epochs": 5, "particles": 2, "kl_weight": 0.5}}},
    ),
    ({"driver": "svi"}, ["driver.svi.epochs=2"], {"driver": {"svi": {"epochs": 2}}}),
    ({"driver": {"svi": None}}, ["driver.svi.epochs=2"], {"driver": {"svi": {"epochs": 2}}}),
    # another choice replaces the old one whole
    ({"driver": {"svi": {"epochs": 5}}}, ["driver.ml.batch_size=8"], {"driver": {"ml": {"batch_size": 8}}}),
    ({"driver": {"svi": {"epochs": 5}}}, ["driver=ml"], {"driver": "ml"}),
    ({"prior": {"*.rows": "dirichlet_rows", "*": "learned"}}, ["prior=normal"], {"prior": "normal"}),
    (
        {"prior": {"*.rows": "dirichlet_rows", "*": "learned"}},
        ["prior.normal.scale=2"],
        {"prior": {"normal": {"scale": 2}}},
    ),
    # choices within choices
    (
        {},
        ["driver.deep_ensemble.member.svi.epochs=3", "driver.deep_ensemble.size=2"],
        {"driver": {"deep_ensemble": {"member": {"svi": {"epochs": 3}}, "size": 2}}},
    ),
    (
        {"driver": {"deep_ensemble": {"member": {"ml": {"epochs": 9}}, "size": 2}}},
        ["driver.deep_ensemble.member.svi.epochs=3"],
        {"driver": {"deep_ensemble": {"member": {"svi": {"epochs": 3}}, "size": 2}}},
    ),
    # globs: a known one is changed where it stands, a new one comes first, a single choice becomes "*"
    (
        {"prior": {"*.rows": "dirichlet_rows", "*": {"normal": {"scale": 1}}}},
        ['prior."*".normal.scale=2'],
        {"prior": {"*.rows": "dirichlet_rows", "*": {"normal": {"scale": 2}}}},
    ),
    (
        {"prior": {"*": "normal"}},
        ['prior."head.*"=improper'],
        {"prior": {"head.*": "improper", "*": "normal"}},
    ),
    (
        {"prior": {"normal": {"scale": 2}}},
        ['prior."*.rows".dirichlet_rows.kl_weight=0'],
        {"prior": {"*.rows": {"dirichlet_rows": {"kl_weight": 0}}, "*": {"normal": {"scale": 2}}}},
    ),
    ({}, ["prior.'[hp]*'=improper"], {"prior": {"[hp]*": "improper", "*": "normal"}}),
]


@pytest.mark.parametrize(("before", "assignments", "after"), ASSIGNMENTS)
def test_assignments(before, assignments, after):
    found = assigned(before, *assignments)
    assert found == after
    assert list(found.get("prior", {})) == list(after.get("prior", {}))  # the first glob that matches wins


@pytest.mark.parametrize(("before", "assignments", "after"), ASSIGNMENTS)
def test_assignments_leave_what_they_are_given_alone(before, assignments, after):
    kept = yamlfile.parse(yamlfile.dump(before))
    assigned(before, *assignments)
    assert before == kept


def test_several_assignments_reach_the_run_in_their_order(pyroformer, write, toy, tmp_path):
    changes = ["driver=ml", "driver.ml.epochs=1", "driver.ml.learning_rate=1e-2", 'prior."head.*"=fixed', "seed=5"]
    settings = [part for change in changes for part in ("--set", change)]
    spec, folder = write({**toy, "prior": "normal"}), tmp_path / "run"
    assert pyroformer("run", spec, "--out", folder, "--quiet", *settings).code == 0
    kept = yamlfile.read(folder / "spec.yaml")
    assert (kept["driver"]["ml"]["epochs"], kept["driver"]["ml"]["learning_rate"], kept["seed"]) == (1, 1e-2, 5)
    assert kept["prior"] == {"head.*": {"fixed": {}}, "*": {"normal": {"scale": 1.0, "scaling": "absolute"}}}
