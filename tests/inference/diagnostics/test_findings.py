"""Each finding from numbers that were made for it, and none from numbers that were not."""

import pytest
import torch

from pyroformer.inference.diagnostics import Quantity, table, verdict
from pyroformer.inference.diagnostics.drift import growth
from pyroformer.inference.diagnostics.moves import moves


def chains(seed=0, shape=(4, 250)):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def sound():
    """Statistics of chains without a fault."""
    density = chains(1)
    return {
        "log_density": density,
        "log_likelihood": -50 + chains(2),
        "energy": -density + 4 + chains(3).abs() + chains(4).abs(),
        "acceptance": torch.full((4, 250), 0.82),
        "divergent": torch.zeros(4, 250, dtype=torch.bool),
        "depth": torch.full((4, 250), 4),
        "step_size": torch.full((4, 250), 0.05),
    }


@pytest.fixture
def judge(sound):
    """The findings that are not good, by topic, when something is changed."""

    def found(values=None, **changes):
        names = {"target_accept": 0.8, "max_tree_depth": 8, "guess": -230.0, "num_data": 100}
        names |= {"energy_variance": None, "info": None}
        settings = {name: changes.pop(name, value) for name, value in names.items()}
        got = verdict(table({"f": Quantity(chains() if values is None else values)}), {**sound, **changes}, **settings)
        return {f.topic: f for f in got.findings if f.level != "good"}

    return found


def test_sound_chains_have_no_fault(judge):
    assert judge() == {}


def test_a_few_divergences_are_a_caution_and_many_are_bad(judge):
    few = torch.zeros(4, 250, dtype=torch.bool)
    few[0, 7] = True
    found = judge(divergent=few)
    assert list(found) == ["divergences"] and found["divergences"].level == "caution"
    assert "1 of 1000 transitions diverged (0.1 %)" in found["divergences"].text
    many = few | (chains(5) > 1.5)
    assert judge(divergent=many)["divergences"].level == "bad"


def test_divergences_are_counted_among_all_transitions(judge):
    """Of each four transitions that end in a draw, one that diverged is enough for the draw to be marked."""
    marked = torch.zeros(4, 250, dtype=torch.bool)
    marked[2, :15] = True
    info = {"thinning": 4, "transitions": 4000, "divergences_by_chain": [0, 0, 17, 0], "e_bfmi": [1.0] * 4}
    text = "17 of 4000 transitions diverged (0.4 %)"
    assert text in judge(divergent=marked, info=info)["divergences"].text
    stuck = marked.clone()
    stuck[0] = True  # a chain that never moved is told of by itself
    density = chains(1)
    density[0] = density[0, 0]
    info["divergences_by_chain"][0] = 1000
    found = judge(divergent=stuck, log_density=density, info=info)
    assert "17 of 3000 transitions diverged" in found["divergences"].text and found["gradient"].level == "bad"
    # of a posterior from before they were counted it is not known how many diverged
    found = judge(divergent=marked, info={"thinning": 4})
    assert "15 of 1000 draws come after a divergent transition (1.5 %)" in found["divergences"].text


def test_what_is_to_be_set_for_smaller_steps(judge):
    marked = torch.zeros(4, 250, dtype=torch.bool)
    marked[2, :3] = True

    def advice(**settings):
        text = judge(divergent=marked, acceptance=torch.full((4, 250), 0.93), **settings)["divergences"].advice
        return text.removesuffix(", then another form of the prior: non-centred scales, or a prior without a funnel")

    assert advice(target_accept=0.8) == "a higher target_accept (0.9 or 0.95)"
    assert advice(target_accept=0.9) == "a higher target_accept (0.95 or 0.99)"
    assert advice(target_accept=0.95) == "a higher target_accept (0.99)"
    assert advice(target_accept=0.99) == "a longer warm-up"
    assert advice(target_accept=None) == "a smaller step size"
    told = {"exact": False, "energy_variance": {"realised": 4e-4, "asked": 5e-4}}
    assert advice(target_accept=None, info=told) == "a smaller energy_variance (5e-05)"
    assert advice(target_accept=None, energy_variance=2e-3) == "a smaller energy_variance (0.0002)"


def test_acceptance_far_from_what_was_asked_for(judge):
    for value, level, advice in (
        (0.5, "caution", "longer warm-up"),
        (0.02, "bad", "smaller"),
        (0.99, "caution", "lower"),
    ):
        found = judge(acceptance=torch.full((4, 250), value))
        assert list(found) == ["acceptance"] and found["acceptance"].level == level
        assert advice in found["acceptance"].advice
    assert judge(acceptance=torch.full((4, 250), 0.5), target_accept=None) == {}


def test_steps_shrunk_to_nothing(judge):
    assert judge(step_size=torch.full((4, 250), 2e-5))["step size"].level == "caution"
    found = judge(step_size=torch.full((4, 250), 2e-9))["step size"]
    assert found.level == "bad" and "2.0e-09" in found.text


def test_learning_rates_are_no_step_sizes(sound):
    told = {"log_density": sound["log_density"], "step_size": torch.full((4, 250), 1e-8)}
    assert not list(moves(told))
    assert list(moves({**told, "acceptance": sound["acceptance"]}))  # planted: a sampler with steps of that size


def test_a_function_that_is_no_number_is_told(judge):
    wild = chains()
    wild[1, 7] = float("inf")
    assert "f is no number in some draws" in judge(wild)["numbers"].text


def test_drift_is_seen_beside_a_chain_that_never_moved():
    walk = chains(5, (3, 400)).cumsum(1)
    walk[-1] = 0.0
    assert growth(walk) > 2.5 > growth(chains(5, (3, 400)))


def test_energies_that_move_slowly(judge, sound):
    slow = sound["energy"] + torch.linspace(0, 60, 250)
    found = judge(energy=slow)
    assert list(found) == ["energy"] and "E-BFMI of all chains is low (least 0.0" in found["energy"].text


def test_energies_between_draws(judge, sound):
    """Those of the draws alone change more from one to the next than those of successive transitions."""
    found = judge(info={"thinning": 4, "e_bfmi": [1.1, 0.2, None, 0.9]})
    assert list(found) == ["energy"] and "E-BFMI of chain 1 is low (least 0.20" in found["energy"].text
    assert judge(energy=sound["energy"] + torch.linspace(0, 60, 250), info={"thinning": 4, "e_bfmi": [1.0] * 4}) == {}
    (note,) = judge(info={"thinning": 4}).values()  # from before they were kept
    assert (note.level, note.topic) == ("note", "energy") and "is not known: of every 4 transitions" in note.text


def test_a_note_is_no_fault_and_is_told(sound):
    told = {"exact": False, "energy_variance": {"realised": 4e-4, "asked": 5e-4}}
    got = verdict(table({"f": Quantity(chains())}), sound, target_accept=0.8, info=told)
    assert got.level == "note" and got.findings[0].topic == "exactness"
    assert got.summary.startswith("These chains ran as they should; of note: the energy's error in a step")
    assert "Try" not in got.summary and "none of 1000 transitions diverged" in got.summary


def test_chains_that_stand_still(judge, sound):
    stuck = sound["log_density"].clone()
    stuck[2] = stuck[2, 0]
    found = judge(log_density=stuck, energy=sound["energy"] + 9)
    assert found["standing still"].level == "bad" and "chain 2 never moved" in found["standing still"].text
    long = sound["log_density"].clone()
    long[1, 100:180] = long[1, 100]
    found = judge(log_density=long, energy=sound["energy"] + 9)
    assert found["standing still"].level == "caution"
    assert "chain 1 stood still for 79 of 250 draws in one go" in found["standing still"].text


def test_a_log_density_that_still_rises(judge, sound):
    rising = sound["log_density"] + torch.linspace(0, 12, 250)
    found = judge(log_density=rising, energy=sound["energy"] + 20)
    assert "still rising" in found["warm-up"].text
    assert judge(log_density=rising.flip(1), energy=sound["energy"] + 20) == {}


def test_chains_that_do_not_agree(judge):
    apart = chains() + torch.tensor([0.0, 0.0, 0.0, 2.0]).view(4, 1)
    found = judge(apart)
    assert found["agreement"].level == "bad" and "about f: R-hat" in found["agreement"].text
    assert "different modes" in found["agreement"].advice
    near = chains() + torch.tensor([0.0, 0.0, 0.0, 0.35]).view(4, 1)
    assert judge(near)["agreement"].level == "caution"


def test_few_effective_draws(judge):
    slow = chains()
    for t in range(1, 250):
        slow[:, t] += 0.8 * slow[:, t - 1]
    found = judge(slow)["effective draws"]
    assert found.level == "caution"
    assert "below 400 (100 a chain)" in found.text and "as many draws" in found.advice


def test_what_was_learnt(judge):
    assert judge(guess=-45.0)["learning"].level == "bad"
    assert judge(guess=-53.0)["learning"].level == "caution"
    assert "null posterior" in judge(guess=-50.3)["learning"].text
    assert "worse than guessing" in judge(guess=-20.0)["learning"].text  # not there yet, which is another thing
    assert judge(guess=None) == {}


def test_one_chain_is_told_of():
    got = verdict(table({"f": Quantity(chains(shape=(1, 1000)))}), {"log_density": chains(shape=(1, 1000))})
    assert got.level == "caution" and [f.topic for f in got.of("caution")] == ["chains"]
    assert got.summary.startswith("These chains are to be used with care: there is one chain")
    assert got.summary.endswith("Try: 4 chains.")


def test_weights_are_not_judged():
    apart = chains() + torch.tensor([0.0, 0.0, 0.0, 2.0]).view(4, 1)
    quantities = {"f": Quantity(chains()), "w": Quantity(apart, judged=False)}
    assert verdict(table(quantities), {"log_density": chains(1)}).level == "good"


def test_a_table_of_many_entries_has_one_line_of_the_worst():
    values = torch.randn(4, 100, 50, generator=torch.Generator().manual_seed(0))
    values[1, :, 7] += 3
    values[..., 9] = 1.0
    assert len(table({"w": Quantity(values, ("entry",))})) == 50  # what is judged is told one by one
    (line,) = table({"w": Quantity(values, ("entry",), judged=False)})
    each = table({f"w{i}": Quantity(values[..., i]) for i in range(50)})
    assert line.entries == 50 and line.name == "w"
    assert line.r_hat == pytest.approx(each[7].r_hat) and line.r_hat > 1.4
    assert line.ess_bulk == pytest.approx(min(one.ess_bulk for one in each if one.ess_bulk == one.ess_bulk))
    named = table({"g": Quantity(values[..., :4].unflatten(-1, (2, 2)), ("layer", "key"), {"layer": ("a", "b")})})
    assert [one.name for one in named] == ["g[a, key 0]", "g[a, key 1]", "g[b, key 0]", "g[b, key 1]"]
