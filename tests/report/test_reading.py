"""The sentences say what the numbers say, and no more."""

import math
from dataclasses import replace

from pyroformer.report import reading
from pyroformer.results import Comparison, Reference, Result

NOISE = (-0.01, 0.0, 0.01)  # a standard error of 0.0058


def compared(**tests):
    """Methods with the metrics given by set, ``{"test": {"nll": 0.5}}``, and the same noise on each for three seeds."""
    results = [
        Result(method, seed, {}, {s: {k: v + NOISE[seed] for k, v in m.items()} for s, m in sets.items()}, [], {})
        for method, sets in tests.items()
        for seed in range(3)
    ]
    return Comparison("", "", results)


def nll(**values):
    return compared(**{method: {"test": {"nll": value}} for method, value in values.items()})


def test_a_clear_winner_is_named_with_the_distance_to_the_next():
    (text,) = reading(nll(a=0.5, b=0.7, c=0.6))
    lowest, following = "“a” with 0.500 ± 0.006 nats", "“c” (0.600 ± 0.006 nats)"
    assert text == f"Lowest test NLL: {lowest}. The next, {following}, is further from it than noise."


def test_differences_within_noise_are_called_so():
    (text,) = reading(nll(a=0.501, b=0.5, c=0.7))
    assert "Lowest test NLL: “b”" in text
    assert "within noise: “a” (0.501 ± 0.006 nats)" in text and "“c”" not in text
    (text,) = reading(nll(a=0.501, b=0.5))
    assert "All others are within 2 combined standard errors of it: the differences are within noise." in text
    assert "within" not in reading(nll(a=0.53, b=0.5))[0]  # planted: the same words for a difference of 3.7


def test_one_seed_has_no_noise_to_speak_of(numbers):
    first, second = reading(numbers({"a": [0.5], "b": [0.6]}))
    assert "one seed a method" in first
    assert second == "Lowest test NLL: “a” with 0.500 nats."


def test_one_method_is_compared_with_nothing(numbers):
    (text,) = reading(numbers({"a": [0.5, 0.6]}))
    assert "nothing to compare it with" in text and "0.550 ± 0.050" in text
    assert "Lowest" not in text


def test_shift_and_the_far_away_are_read_from_the_metrics():
    comparison = compared(
        a={"test": {"nll": 0.5}, "noisy": {"nll": 2.0, "ece": 0.3}, "far": {"auroc_entropy": 0.3}},
        b={"test": {"nll": 0.9}, "noisy": {"nll": 1.0, "ece": 0.2}, "far": {"auroc_entropy": 0.45}},
    )
    _, shift, far = reading(comparison)
    assert shift.startswith("On the shifted set “noisy”: lowest NLL “b” with 1.000 ± 0.006 nats; lowest ECE “b”")
    assert "highest AUROC: by entropy “b” with 0.450 ± 0.006, no better than chance" in far
    comparison = compared(a={"far": {"auroc_entropy": 0.8}}, b={"far": {"auroc_entropy": 0.45}})
    assert "chance" not in reading(comparison)[0]


def test_too_narrow_intervals_are_named():
    wide, narrow = {"test": {"coverage_90": 0.9}}, {"test": {"coverage_90": 0.5}}
    (text,) = reading(compared(wide=wide, narrow=narrow))
    assert "closest for “wide” with 90.0 ± 0.6 %" in text
    assert text.endswith("They are too narrow for “narrow” (50.0 ± 0.6 %).")


def test_failures_and_missing_numbers_are_not_hidden(numbers):
    comparison = numbers({"a": [0.1, math.nan], "b": [0.5, 0.6]})
    comparison.failures.append(("c", 0, "NaN"))
    failed, lowest = reading(comparison)
    assert failed.startswith("1 of 5 runs did not finish")
    assert "Lowest test NLL: “b”" in lowest
    assert reading(Comparison("", "", [])) == []


def test_the_real_thing_reads_whole(classification, regression):
    text = " ".join(reading(classification))
    assert all(name in text for name in ("noisy", "photographs", "ECE", "1 of 16 runs"))
    assert "“gap”" in " ".join(reading(regression))


def test_mixtures_are_compared_with_their_members():
    def run(seed, nll):
        fit = {"members_test": [{"nll": 0.3}, {"nll": 0.2}]}
        return Result("ensemble", seed, {}, {"test": {"nll": nll}, "fit": fit}, [], {})

    other = [Result("ML", seed, {}, {"test": {"nll": 0.4 + 0.01 * seed}, "fit": {}}, [], {}) for seed in range(2)]
    good = reading(Comparison("t", "", [run(0, 0.1), run(1, 0.15), *other]))
    assert "“ensemble” has a lower test NLL than each of its members alone in 2 of 2 runs." in good
    worse = reading(Comparison("t", "", [run(0, 0.1), run(1, 0.25), *other]))
    assert "“ensemble” has a lower test NLL than each of its members alone in 1 of 2 runs." in worse


def test_what_calibration_changed_is_told_with_both_numbers():
    measured = {"nll": 0.5, "nll_uncalibrated": 0.75, "ece": 0.02, "ece_uncalibrated": 0.1}
    texts = reading(compared(plain={"test": {"nll": 0.75, "ece": 0.1}}, scaled={"test": measured}))
    (told,) = [text for text in texts if "Calibration after the fit" in text]
    expected = "NLL from 0.75 to 0.5 nats and its ECE from 10 to 2 % for “scaled”"
    assert told == f"Calibration after the fit took the test {expected}."
    swapped = {"nll": 0.75, "nll_uncalibrated": 0.5, "ece": 0.1, "ece_uncalibrated": 0.02}  # planted: it got worse
    assert expected not in " ".join(reading(compared(plain={"test": {"nll": 0.75}}, scaled={"test": swapped})))


def test_members_are_compared_with_their_mixture_before_its_calibration():
    def mixed(**test):
        fit = {"members_test": [{"nll": 0.6}, {"nll": 0.7}]}
        return " ".join(
            reading(
                Comparison(
                    "",
                    "",
                    [Result("m", 0, {}, {"test": test, "fit": fit}, [], {})] * 1
                    + [Result("other", 0, {}, {"test": {"nll": 1.0}}, [], {})],
                )
            )
        )

    assert "each of its members alone in 1 of 1 runs" in mixed(nll=0.5)
    assert "each of its members alone in 0 of 1 runs" in mixed(nll=0.5, nll_uncalibrated=0.65)


def against(reference=None, **values):
    """Methods with a total variation, with the noise of three seeds."""
    found = compared(**{m: {"test": {"nll": 0.5}, "reference": {"total_variation": v}} for m, v in values.items()})
    return replace(found, reference=reference or Reference("exact", False))


def test_the_closest_to_the_reference_is_named_with_the_distance_to_the_next():
    _, text = reading(against(a=0.3, b=0.1, c=0.2))
    closest, following = "“b” with 10.0 ± 0.6 %", "“c” (20.0 ± 0.6 %)"
    # 0.1 / sqrt(2 * 0.0058 ** 2) = 12.2
    said = f"{closest}; the next, {following}, differs from it by 12.2 combined standard errors."
    assert text == f"Closest to the reference, “exact”, by total variation: {said}"
    _, text = reading(against(a=0.11, b=0.1))
    assert text.endswith("“b” with 10.0 ± 0.6 % (within noise of it: “a”).")
    assert "standard errors" in reading(against(a=0.13, b=0.1))[1]  # planted: further than noise


def test_a_floor_and_other_priors_are_told():
    reference = Reference(
        "exact", False, {"a": "prior", "b": "prior"}, {"total_variation": 0.05}, "two seeds of the reference"
    )
    _, _, floor, prior = reading(against(reference, a=0.3, b=0.1))
    assert floor == "By total variation two seeds of the reference are 5 % apart: a distance of that size is noise."
    assert prior == "The prior of “a”, “b” is not that of the reference, so not all of the distance is approximation."


def test_one_seed_has_no_standard_errors_from_the_reference(numbers):
    found = numbers({"a": [0.3], "b": [0.1]}, group="reference", metric="wasserstein")
    _, text = reading(replace(found, reference=Reference("exact", False)))
    assert (
        text == "Closest to the reference, “exact”, by Wasserstein distance: “b” with 0.100 sds; then “a” (0.300 sds)."
    )


def test_a_reference_that_did_not_finish_is_told(numbers):
    failed = [("exact", 0, "NaN"), ("exact", 1, "NaN")]
    found = replace(numbers({"a": [0.5, 0.5], "b": [0.6, 0.6]}), reference=Reference("exact", True), failures=failed)
    said = "Nothing was measured against the reference: “exact” did not finish."
    assert said in reading(found)
    assert said in reading(replace(found, results=found.of("a")))  # of one method too
    assert said not in reading(replace(found, reference=None))
    some = replace(numbers({"exact": [0.5], "b": [0.6, 0.6]}), reference=Reference("exact", True), failures=failed[1:])
    assert "Nothing was measured against the reference with seed 1: “exact” did not finish there." in reading(some)
    whole = replace(some, failures=[])  # planted: all that was asked for finished
    assert not any(text.startswith("Nothing was measured") for text in reading(whole))
