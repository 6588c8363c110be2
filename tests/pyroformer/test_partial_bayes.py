"""Partial Bayes from a spec, as the documents say it."""

import math
import re
from pathlib import Path

import pytest

from pyroformer import Spec, explain, fit, load, yamlfile
from pyroformer.choices import KINDS, SpecError
from pyroformer.guides import FullRank

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "guides.md").read_text("utf-8")
EXAMPLES = [yamlfile.parse(text) for text in re.findall(r"^```yaml\n(.*?)^```", TEXT, re.M | re.S)]
NET = {"transformer": {"width": 4, "heads": 2, "depth": 1}}
TASK = {"toy_regression": {"train": 8, "test": 4}}
PARTS = {"attention": {"*attention*"}, "mlp": {"*.mlp.*"}, "head": {"head.*"}}


def posteriors(spec):
    return {site.name: site.posterior for site in explain(spec).sites}


@pytest.mark.parametrize("index", range(len(EXAMPLES)))
def test_the_examples_of_the_document_run(index):
    driver = {"svi": {"epochs": 1}}
    run = fit(Spec(**{"task": TASK, "model": NET, **EXAMPLES[index], "driver": driver}))
    assert math.isfinite(run.metrics["test"]["nll"])


def test_the_document_names_every_family():
    assert all(f"`{name}`" in TEXT for name in KINDS["guide"].classes())


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("family", ["mean_field", "low_rank"])
def test_a_part_by_glob(part, family, tmp_path):
    guide = {**{glob: family for glob in PARTS[part]}, "*": "delta"}
    spec = Spec(task=TASK, model=NET, guide=guide, driver={"svi": {"epochs": 1}})
    found = posteriors(spec)
    assert {name for name, kind in found.items() if kind == family} == {n for n in found if part in n.split(".")}
    assert set(found.values()) == {family, "delta"}
    run = fit(spec, out=tmp_path / "run")
    x = spec.task.load().test.x
    again = load(tmp_path / "run").posterior
    assert again.predict(x, 5, seed=1).loc.tolist() == run.posterior.predict(x, 5, seed=1).loc.tolist()
    assert again.predict(x, 5, seed=2).loc.tolist() != run.posterior.predict(x, 5, seed=1).loc.tolist()


def test_the_rest_may_be_learned_or_fixed():
    for rest in ("learned", "fixed"):
        spec = Spec(task=TASK, model=NET, prior={"head.*": "normal", "*": rest}, guide="full_rank")
        assert {name for name, kind in posteriors(spec).items() if kind == "full_rank"} == {"head.weight", "head.bias"}


def test_a_family_that_is_too_large_says_how_it_would_fit():
    spec = Spec(task=TASK, model=NET, guide=FullRank(max_size=10))
    with pytest.raises(SpecError, match=r"guide: got 10; accepted: a max_size of at least \d+, .*globs"):
        fit(spec)
