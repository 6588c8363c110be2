"""The map from names to choices."""

import pytest

from pyroformer.priors import SettingError, assign

NAMES = ["position", "blocks.0.attention.query.weight", "blocks.0.mlp.up.weight", "head.weight", "head.bias"]


def test_the_first_match_wins():
    found = assign({"head.*": "a", "*.weight": "b", "*": "c"}, NAMES)
    assert found == dict(zip(NAMES, ["c", "b", "b", "a", "a"], strict=True))
    assert list(found) == NAMES
    # planted: in another order the same patterns say something else
    assert assign({"*.weight": "b", "head.*": "a", "*": "c"}, NAMES) != found


def test_a_star_crosses_dots_and_a_name_is_its_own_pattern():
    assert set(assign({"blocks.*.weight": 1, "*": 2}, NAMES).values()) == {1, 2}
    assert assign({"position": 1, "*": 2}, NAMES)["position"] == 1


def test_a_pattern_that_matches_nothing_is_an_error_with_near_misses():
    with pytest.raises(SettingError, match=r"'head\.wieght': expected .* did you mean head\.weight") as caught:
        assign({"head.wieght": 1, "*": 2}, NAMES, kind="weight")
    assert caught.value.value == "head.wieght" and "matches a weight" in caught.value.expected
    with pytest.raises(SettingError, match=r"'HEAD\.\*'"):  # names are case-sensitive
        assign({"HEAD.*": 1, "*": 2}, NAMES)


def test_an_uncovered_name_is_an_error_that_lists_the_patterns():
    with pytest.raises(
        SettingError, match=r"'position': expected a pattern that covers this site; given are blocks\.\*"
    ):
        assign({"blocks.*": 1, "head.*": 2}, NAMES)
    with pytest.raises(SettingError, match=r"covers this site; given are head, .*; did you mean head\."):
        assign({"head": 1, "head.weigh?": 2}, ["head", "head.weight", "head.weights"])


def test_no_patterns_and_no_names():
    assert assign({}, []) == {}
    with pytest.raises(SettingError, match="given are none"):
        assign({}, NAMES)
    with pytest.raises(SettingError, match="no pattern: no site here"):
        assign({"*": 1}, [])


def test_a_misspelt_branch_has_a_near_miss():
    names = ["position", "blocks.0.norm1.weight", "blocks.0.norm1.bias"]
    with pytest.raises(SettingError, match=r"did you mean blocks\.\*"):
        assign({"block.*": 1, "*": 2}, names)
    with pytest.raises(SettingError) as caught:
        assign({"unlike": 1, "*": 2}, names)
    assert "did you mean" not in str(caught.value)
