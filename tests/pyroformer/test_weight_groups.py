"""Groups of parameters, and the whole study on nets whose weights are drawn from known laws."""

import csv
import io
import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from pyroformer import Spec, yamlfile
from pyroformer.help.terminal import as_text
from pyroformer.models import Image, Output, Transformer
from pyroformer.models.sites import row_sites, weight_sites
from pyroformer.priors import Site, assign
from pyroformer.weight_study import Nets, prior_map, study_of
from pyroformer.weight_study.files import table
from pyroformer.weight_study.groups import ORDER, groups_of
from pyroformer.weight_study.page import render

NET = Transformer(Image(8, 8, patch=2), Output(10), width=32, heads=4, depth=2)
LAPLACE = torch.distributions.Laplace(torch.tensor(0.0).double(), torch.tensor(0.2).double())


def drawn(seed, plant=0.0):
    """Weights of one net: Laplace, but for normal keys, gains around 1, and rows of queries with a shared part."""
    torch.manual_seed(seed)
    found = {}
    for name, value in NET.named_parameters():
        w = LAPLACE.sample(value.shape)
        if name.endswith("key.weight"):
            w = 0.3 * torch.randn(value.shape, dtype=torch.float64)
        if name.endswith("query.weight") and plant:
            w = w + plant * torch.randn(1, value.shape[1], dtype=torch.float64)
        found[name] = w + 1.0 if "norm" in name and name.endswith("weight") else w
    return found


@pytest.fixture(scope="module")
def nets():
    heads = {
        f"{n.removesuffix('rows')}{p}.weight": 4 for n in row_sites(NET) for p in ("query", "key", "value", "output")
    }
    weights = [drawn(seed, plant=0.15) for seed in range(3)]
    return Nets(weights, [drawn(seed) for seed in range(10, 13)], weight_sites(NET), heads)


@pytest.fixture(scope="module")
def found(nets):
    return study_of(nets, title="Known laws", spec=Spec(task="digits").to_dict())


def part(nets, *starts):
    """The same nets, less the parameters whose names start otherwise."""
    weights, begun = (
        [{name: w for name, w in net.items() if name.startswith(starts)} for net in each]
        for each in (nets.weights, nets.starts)
    )
    return Nets(weights, begun, nets.sites, nets.heads)


def group(study, name):
    return next(one for one in study.groups if one.group.name == name)


def test_every_parameter_has_one_group_and_globs_lead_to_it():
    names = [name for name, _ in NET.named_parameters()]
    groups = groups_of(names)
    assert {one.name for one in groups} == set(ORDER)
    assert sorted(name for one in groups for name in one.parameters) == sorted(names)
    by_glob = assign({glob: one.name for one in groups for glob in one.globs}, names)
    assert by_glob == {name: one.name for one in groups for name in one.parameters}
    assert by_glob["blocks.1.attention.query.weight"] == "query" and by_glob["head.bias"] == "biases"
    assert by_glob["blocks.0.norm1.bias"] == "LayerNorm bias" and by_glob["norm.weight"] == "LayerNorm weight"


def test_nets_of_other_libraries_are_grouped_by_name():
    net = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2, enable_nested_tensor=False)
    names = [name for name, _ in net.named_parameters()]
    groups = {one.name: one for one in groups_of(names)}
    assert groups["layers.*.linear1.weight"].parameters == ("layers.0.linear1.weight", "layers.1.linear1.weight")
    by_glob = assign({glob: one.name for one in groups.values() for glob in one.globs}, names)
    assert by_glob == {name: one.name for one in groups.values() for name in one.parameters}


def test_laws_are_found_in_their_groups(found):
    assert [one.group.name for one in found.groups] == list(ORDER)
    assert group(found, "key").winner == "normal" and group(found, "value").winner == "laplace"
    assert group(found, "key").sd == pytest.approx(0.3, rel=0.03)
    assert group(found, "LayerNorm weight").winner == "laplace"  # around 1
    assert group(found, "LayerNorm weight").sd == pytest.approx(0.2 * 2**0.5, rel=0.15)
    one = group(found, "MLP in")
    assert one.relative_sd == pytest.approx(one.sd * 4)  # (32 / 2) ** 0.5
    assert (one.n, one.seeds) == (2 * 32 * 64, 3)
    assert abs(one.kurtosis - 3) < 5 * one.kurtosis_error and abs(group(found, "key").kurtosis) < 0.2


def test_correlated_rows_are_found_where_they_were_planted(found):
    assert group(found, "query").rows.z > 10 and group(found, "query").rows.p == 0.01
    for name in ("key", "value", "output", "MLP in", "MLP out"):
        for correlation in (group(found, name).rows, group(found, name).columns):
            assert abs(correlation.z) < 4
    assert abs(group(found, "value").heads.z) < 4 and group(found, "query").heads.z > 4
    assert group(found, "biases").rows is None and group(found, "MLP in").heads is None


def test_changes_are_from_the_start(nets):
    changed = study_of(part(nets, "head", "norm"), change=True, permutations=9)
    by_hand = torch.cat(
        [(w["head.weight"] - s["head.weight"]).flatten() for w, s in zip(nets.weights, nets.starts, strict=True)]
    )
    assert group(changed, "head").sd == pytest.approx(float(by_hand.square().mean().sqrt()))
    assert group(changed, "LayerNorm weight").sd < 0.6  # not around 1
    with pytest.raises(ValueError, match="changes"):
        prior_map(changed)


def test_the_map_is_a_prior_centred_where_weights_are(found):
    choices = prior_map(found)
    spec = Spec(task="digits", model={"transformer": {"width": 32, "heads": 4, "depth": 2}}, prior=choices)
    model = spec.build_model(spec.task.load())
    priors = model.distributions()
    gains = priors["blocks.0.norm1.weight"]
    while hasattr(gains, "base_dist"):
        gains = gains.base_dist
    assert (gains.loc == 1).all() and gains.scale[0] == pytest.approx(0.2, rel=0.2)
    assert choices["*.key.weight"]["normal"]["scale"] == pytest.approx(0.3, rel=0.03)
    assert float(f"{choices['*.key.weight']['normal']['scale']:.4g}") == choices["*.key.weight"]["normal"]["scale"]
    assert list(choices).index("*norm*.bias") < list(choices).index("*.bias")  # first match wins


def test_parameters_that_were_not_trained_stay_fixed(nets):
    left = study_of(replace(part(nets, "head", "position"), fixed=("position",)), permutations=9)
    assert "positions" not in [one.group.name for one in left.groups]
    assert next(iter(prior_map(left).items())) == ("position", "fixed")
    assert "not trained, and left out: position" in str(left)


def test_weights_without_spread_have_no_family(nets):
    few = part(nets, "head", "norm")
    still = [{**net, "head.weight": torch.zeros_like(net["head.weight"])} for net in few.weights]
    study = study_of(replace(few, weights=still), permutations=9)
    assert group(study, "head").winner == "" and prior_map(study)["head.weight"] == "learned"
    assert "no spread" in as_text(study, 80) and "no spread" in render(study)
    assert "too few" not in as_text(study, 80)
    assert table(study).splitlines()[0].startswith("group,")


def test_groups_that_are_too_small_are_called_so(nets):
    few = part(nets, "head", "norm")
    two = [{**net, "head.weight": torch.randn(1, 3)} for net in few.weights[:2]]  # 6 weights, and they have spread
    sites = {**few.sites, "head.weight": Site("head.weight", torch.zeros(1, 3), fan_in=3)}
    study = study_of(Nets(two, few.starts[:2], sites, few.heads), permutations=9)
    assert group(study, "head").winner == "" and prior_map(study)["head.weight"] == "learned"
    assert "too few weights" in as_text(study, 80) and "too few weights" in render(study)
    assert "no spread" not in as_text(study, 80)


def test_it_is_told_in_a_terminal_a_table_and_a_page(found):
    text = as_text(found, 80)
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    assert "Laplace" in text and "relative" in as_text(found, 100)
    lines = list(csv.DictReader(io.StringIO(table(found))))
    assert [line["group"] for line in lines] == list(ORDER)
    assert float(lines[4]["laplace.behind"]) >= 0 and lines[-1]["rows.z"] == "" and float(lines[2]["rows.z"]) > 10
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert content["groups"][3]["fits"][0]["prior"] and math.isfinite(content["groups"][0]["kurtosis"])
    page = render(found)
    assert page.count("<svg role") == len(ORDER) + 3
    assert all(name in page for name in ORDER) and "http" not in page
    assert yamlfile.dump(found.spec).splitlines()[0] in page
