"""Names of blocks as globs: a glob matches the names of its group, and no other."""

import fnmatch

from pyroformer.help.grouping import grouped

NAMES = [f"blocks.{index}.{part}" for index in range(4) for part in ("norm", "mlp")] + ["head", "blocks.x.norm"]


def test_equal_names_are_one_glob():
    assert grouped(dict.fromkeys(["blocks.0.w", "blocks.1.w", "head"], 1), ["blocks.0.w", "blocks.1.w", "head"]) == {
        "blocks.*.w": ["blocks.0.w", "blocks.1.w"],
        "head": ["head"],
    }


def test_names_that_differ_stay_apart():
    entries = {name: "odd" if name in ("blocks.1.mlp", "blocks.3.mlp") else "same" for name in NAMES}
    found = grouped(entries, NAMES)
    assert found["blocks.[02].mlp"] == ["blocks.0.mlp", "blocks.2.mlp"]
    assert found["blocks.[13].mlp"] == ["blocks.1.mlp", "blocks.3.mlp"]


def test_every_glob_matches_its_names_alone():
    entries = {name: name in ("blocks.1.mlp", "blocks.2.norm") for name in NAMES}
    found = grouped(entries, NAMES)
    assert sorted(name for names in found.values() for name in names) == sorted(NAMES)
    for glob, names in found.items():
        assert [name for name in NAMES if fnmatch.fnmatchcase(name, glob)] == names


def test_a_glob_that_would_match_more_is_not_used():
    names = ["blocks.0.norm", "blocks.1.norm"]
    assert list(grouped(dict.fromkeys(names, 0), [*names, "blocks.x.norm"])) == ["blocks.[01].norm"]
    assert list(grouped(dict.fromkeys(names, 0), [*names, "blocks.0.inner.norm"])) == ["blocks.[01].norm"]


def test_numbers_of_two_digits_have_no_glob_of_their_own():
    names = [f"blocks.{index}.w" for index in range(12)]
    found = grouped({name: name in names[9:11] for name in names}, names)
    assert "blocks.9.w" in found and "blocks.10.w" in found
    assert grouped(dict.fromkeys(names, 0), names) == {"blocks.*.w": names}
