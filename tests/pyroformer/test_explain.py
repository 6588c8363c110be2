"""`explain`: known numbers of small specs, what it warns of, and how it looks in a terminal and in a file."""

import dataclasses
import json
import re

import pytest
import torch
from torch import nn

import pyroformer as package
from pyroformer import Spec, explain
from pyroformer.guides import Delta, Guide
from pyroformer.help.grouping import grouped
from pyroformer.help.terminal import as_text
from pyroformer.priors import Laplace

NET = {"transformer": {"width": 8, "heads": 2, "depth": 2}}
ROWS = {"*.rows": {"dirichlet_rows": {"kl_weight": 0}}, "*": {"normal": {"scale": 0.1}}}


def toy(**parts):
    return Spec(**{"task": {"toy_regression": {"train": 20, "test": 10}}, "model": NET, **parts})


def sites(found):
    return {site.name: site for site in found.sites}


def points(found):
    return {point.name: point for point in found.points}


def built(spec):
    data = spec.task.load()
    model = spec.build_model(data)
    return data, model, spec.build_guide(model, data)


def test_the_sites_of_a_transformer():
    found = explain(toy(prior=ROWS))
    up, rows = sites(found)["blocks.1.mlp.up.weight"], sites(found)["blocks.0.attention.rows"]
    assert dataclasses.astuple(up) == (
        "blocks.1.mlp.up.weight",
        "weight",
        (16, 8),
        "normal(scale=0.1)",
        "mean_field",
        256,
    )
    assert (rows.role, rows.shape, rows.posterior, rows.parameters) == ("rows", (2, 4, 4), "dirichlet_rows", 2)
    assert rows.prior == "dirichlet_rows(kl_weight=0.0)"
    assert len(found.sites) == 5 + 1 + 2 * 16 + 2
    assert found.sets == {"train": 20, "validation": 5, "test": 10, "gap": 10}
    assert found.likelihood == "gaussian(noise=fixed, scale=0.1)"
    assert found.parts["driver"].startswith("svi(learning_rate=0.003, particles=1, ")
    assert found.parts["guide"] == {
        "*.rows": "dirichlet_rows(sharpness=10.0, floor=0.01, shared=head, compiled=false)",
        "*": "mean_field(init_scale=0.01)",
    }


GUIDES = {
    "mean field": {"prior": "normal"},
    "point": {"guide": "delta"},
    "both": {"guide": {"head.*": "delta", "*": "mean_field"}},
    "rows": {"prior": ROWS},
    "rows alone": {"prior": {"*.rows": {"dirichlet_rows": {"center": "contextual"}}, "*": "learned"}},
    "one sharpness": {"prior": ROWS, "guide": {"*.rows": {"dirichlet_rows": {"shared": "global"}}, "*": "mean_field"}},
    "centred": {"prior": {"hierarchical": {"centered": True}}},
    "not centred": {"prior": {"head.*": "hierarchical", "norm*": "fixed", "*": "learned"}},
    "bounded": {"prior": "uniform"},
    "noise": {"task": {"toy_regression": {"likelihood": {"gaussian": {"noise": "random"}}}}},
}


@pytest.mark.parametrize("case", GUIDES)
def test_numbers_are_those_of_model_and_guide(case):
    spec = toy(**GUIDES[case])
    data, model, families = built(spec)
    guide, found = Guide(model, families, data.data.example()), explain(spec)
    assert set(sites(found)) == set(guide.sites)
    assert found.totals.variational == sum(p.numel() for p in guide.families.parameters())
    own, shared = sum(site.parameters for site in found.sites), sum(each.count for each in found.shared)
    assert found.totals.variational == own + shared != own + shared + 1
    assert found.totals.random == sum(value.numel() for value in model.initial_values().values())
    named = {name.removeprefix("net."): p for name, p in model.learned.items()}
    assert {name for name, point in points(found).items() if point.trained} == set(named)
    assert found.totals.trained == sum(p.numel() for p in named.values())
    held = [*model.net.parameters(), *model.likelihood.parameters()]
    weights = sum(site.value.numel() for site in model.sites.values())
    assert found.totals.trained + found.totals.fixed == sum(p.numel() for p in held) - weights


def test_what_all_layers_share_is_told_once():
    found = explain(toy(**GUIDES["one sharpness"]))
    (shared,) = found.shared
    assert (shared.sites, shared.count) == (("blocks.0.attention.rows", "blocks.1.attention.rows"), 1)
    assert sites(found)["blocks.0.attention.rows"].parameters == 0
    assert "shared: 1 by blocks.*.attention.rows" in str(found)


@pytest.mark.parametrize(
    ("driver", "posterior", "each", "members"),
    [
        ("map", "point", 1, 1),
        ("ml", "point", 1, 1),
        ("nuts", "draws", 0, 1),
        ({"deep_ensemble": {"size": 3}}, "point", 1, 3),
        ({"deep_ensemble": {"size": 2, "member": "svi"}}, "mean_field", 2, 2),
        ({"nuts": {"start": "svi"}}, "draws", 0, 1),
    ],
)
def test_what_drivers_make_of_a_site(driver, posterior, each, members):
    found = explain(toy(driver=driver))
    assert {site.posterior for site in found.sites} == {posterior}
    assert found.totals.variational == each * found.totals.random
    assert found.members == members
    assert (f"in each of {members} members" in str(found)) == (members > 1)
    assert ("draws replace it" in " ".join(found.notes)) == (driver == {"nuts": {"start": "svi"}})


def test_priors_are_told_in_words():
    hyper = {"hierarchical": {"prior": {"laplace": {"scale": 2.0}}, "hyperprior": {"gamma": {"rate": 3}}}}
    spec = toy(
        prior={"head.*": hyper, "norm.*": lambda name, value: Laplace(scale=0.5)(name, value), "*": "student_t"},
        task={"toy_regression": {"likelihood": {"gaussian": {"noise": "random", "scale": 1.0}}}},
    )
    found = sites(explain(spec))
    assert found["head.weight_scale"].prior == "gamma(concentration=2, rate=3)"
    assert found["head.weight_standard"].prior == "hierarchical(hyperprior=gamma(rate=3.0), prior=laplace(scale=2.0))"
    assert found["norm.bias"].prior == "laplace(loc=0, scale=0.5)"
    assert found["position"].prior == "student_t"
    assert found["noise_scale"].prior == "log_normal(loc=0, scale=1)"


def test_roles_of_numbers():
    contextual = {"dirichlet_rows": {"center": "contextual"}}
    found = points(explain(toy(prior={"*.rows": contextual, "norm*": "fixed", "*": "learned"})))
    assert (found["norm.bias"].role, found["norm.bias"].trained) == ("weight", False)
    assert (found["head.bias"].role, found["head.bias"].trained) == ("weight", True)
    assert found["blocks.0.attention.row_prior.center.first"].role == "row prior"
    assert dataclasses.astuple(found["likelihood.log_scale"]) == ("likelihood.log_scale", "likelihood", (), False)


NOTES = [
    ({"driver": {"svi": {"temperature": 0.5}}}, "driver.svi.temperature = 0.5: ", "cold"),
    ({"driver": {"svi": {"temperature": 2}}}, "driver.svi.temperature = 2.0: ", "warm"),
    ({"driver": {"svi": {"kl_weight": 0.1}}}, "driver.svi.kl_weight = 0.1: ", "no posterior"),
    (
        {"driver": {"svi": {"bound": "importance_weighted", "particles": 2, "batch_size": 5}}},
        "driver.svi.bound = importance_weighted: ",
        "minibatches of 5 bias it",
    ),
    ({"prior": ROWS}, 'prior."*.rows".dirichlet_rows.kl_weight = 0.0: ', "no posterior"),
    (
        {"driver": {"deep_ensemble": {"member": {"svi": {"temperature": 0.5}}}}},
        "driver.deep_ensemble.member.svi.temperature = 0.5: ",
        "cold",
    ),
    ({"driver": "ml"}, "driver.ml: ", "priors do not count"),
    ({"prior": "improper"}, "the prior of 38 weight sites is flat", ""),
    ({"prior": {"head.bias": "normal", "*": "learned"}}, "", "learned as numbers"),
    ({"prior": {"hierarchical": {"centered": True}}, "driver": "map"}, "", "unbounded"),
    ({"task": {"digits": {"train": 40, "validation": 0, "shifts": []}}}, "driver.svi.keep = best: ", "last state"),
]


@pytest.mark.parametrize(("parts", "start", "said"), NOTES)
def test_what_a_user_should_know(parts, start, said):
    (note,) = explain(toy(**parts)).notes
    assert note.startswith(start) and said in note


def test_there_is_nothing_to_know_of_the_defaults():
    assert explain(toy()).notes == ()
    assert "Notes" not in str(explain(toy()))


class Named(nn.Module):
    """A net with long names and blocks that differ."""

    def __init__(self):
        super().__init__()
        self.a_rather_long_name_for_a_part_of_a_net = nn.ModuleList(
            nn.ModuleDict({"another_long_name_inside_of_it": nn.Linear(1, size)}) for size in (2, 2, 1)
        )

    def forward(self, x):
        parts = self.a_rather_long_name_for_a_part_of_a_net
        return sum(part["another_long_name_inside_of_it"](x).sum(-1, keepdim=True) for part in parts)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_name_is_cut_at_any_width(width):
    for spec in (toy(prior=ROWS), toy(prior="hierarchical"), Spec(task="toy_regression", model=Named())):
        text = as_text(explain(spec), width)
        assert max(map(len, text.splitlines())) <= width
        assert not re.search(r"[…\\]|\.\.\.| $", text, re.M)
        shown = text.partition("Random sites")[2].replace("\n", "")  # a name wider than the terminal goes on below
        entries = {site.name: site.shape for site in explain(spec).sites}
        assert all(f"    {glob}" in shown for glob in grouped(entries, entries))


def test_blocks_that_are_alike_are_one_line():
    text = str(explain(toy(prior=ROWS)))
    assert text.count("mlp.up.weight") == 1
    assert re.search(r"^    blocks\.\*\.mlp\.up\.weight +2 × 16×8 +2 × 256$", text, re.M)
    apart = str(explain(toy(prior={"blocks.0.*": "laplace", "*": "normal"})))
    assert apart.count("mlp.up.weight") == 2


def test_severities_of_a_corruption_are_told_together():
    task = {"digits": {"train": 40, "validation": 10, "shifts": ["noise", "blur"], "shift_examples": 8}}
    found = explain(toy(task=task))
    assert found.sets["noise-1"] == found.sets["blur-5"] == 8
    assert "noisy 1,747, noise-1 to noise-5 (8 each), blur-1 to blur-5 (8 each)" in " ".join(str(found).split())


def test_it_is_plain_data_and_changes_nothing():
    spec = toy(prior=ROWS)
    before = torch.get_rng_state()
    found = explain(spec)
    assert torch.equal(torch.get_rng_state(), before)
    assert json.loads(json.dumps(dataclasses.asdict(found)))["totals"]["random"] == found.totals.random
    assert found == explain(spec)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.members = 2
    assert package.explain is explain and isinstance(found, package.Explanation)


def test_the_command(pyroformer, write, toy, tmp_path):
    ended = pyroformer("explain", write(toy), "--set", "prior.normal.scale=0.25", "--set", "driver.svi.temperature=0.5")
    assert (ended.code, ended.err) == (0, "")
    assert "prior normal(scale=0.25)  posterior mean_field" in ended.out
    assert "driver.svi.temperature = 0.5" in ended.out
    assert "\x1b" not in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("prior=norml", "prior: got norml; accepted: a prior among"),
        ("guide.dirichlet_rows.floor=1", "guide: got dirichlet_rows; accepted: no family for rows"),
        ("task.toy_regression.likelihood=categorical", "train y is torch.float32 of shape"),
    ],
)
def test_what_run_refuses_is_refused(pyroformer, write, toy, assignment, message):
    assert message in pyroformer("explain", write(toy), "--set", assignment).message


def test_point_parameters_are_those_of_the_drivers_own_guide():
    spec = toy(driver="map", prior="uniform")
    data, model, families = built(spec)
    assert families is None
    guide = Guide(model, Delta(), data.data.example())
    assert explain(spec).totals.variational == sum(p.numel() for p in guide.families.parameters())
