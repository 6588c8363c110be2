"""Every export that may be chosen: `show` says everything about it, and `explain` tells what a spec with it means."""

import gzip
import math
import re

import pytest
import yaml

from pyroformer import Spec, explain, show, yamlfile
from pyroformer.choices import KINDS, build, kind_of
from pyroformer.help.about import hints_of
from pyroformer.help.docstrings import Equation
from pyroformer.help.latex import readable
from pyroformer.help.terminal import as_text, spelled
from pyroformer.help.wording import defaults
from pyroformer.priors import LogNormal, PointEstimate, RowPrior
from pyroformer.priors.settings import parameters
from pyroformer.spec import KEYS
from pyroformer.tasks import Digits, Task

EVERY = [(kind.name, name) for kind in KINDS.values() for name in kind.classes()]
NET = {"transformer": {"width": 8, "heads": 2, "depth": 1}}
TOY = {"task": {"toy_regression": {"train": 8, "test": 4}}, "model": NET}


@pytest.fixture(params=EVERY, ids=".".join)
def choice(request):
    return request.param


def test_show_says_everything(choice):
    kind, name = choice
    about, cls = show(kind, name), KINDS[kind].classes()[name]
    assert (about.kind, about.name) == (kind, name)
    assert re.fullmatch(r"[A-Z0-9].*\.", about.summary)
    assert {setting.name for setting in about.settings} == set(parameters(cls))
    for setting in about.settings:
        assert setting.type and setting.default
        assert len(setting.description) > 8 and not re.match(r"(See|As for) ", setting.description), setting
        assert not re.search(r"[`\\]|:math:|\bNone\b", setting.description), setting
    if about.settings:
        assert "SettingError" in about.raises or not _refuses(cls)
    if not issubclass(cls, Task | PointEstimate):
        assert about.equations
    text = f"{about}\n{as_text(about, 80)}"
    assert not re.search(r"[`\\]|:math:|Args:|Raises:", text)
    assert max(map(len, as_text(about, 80).splitlines())) <= 80
    assert all(each in as_text(about, 120) for each in (about.summary[:60], "Settings", "Example", *parameters(cls)))
    assert "?" not in spelled(text, "ascii")


def _refuses(cls):
    """Whether a class looks at its settings: a likelihood with a switch alone has nothing to refuse."""
    return any(hint is not bool for name, hint in hints_of(cls).items() if name in parameters(cls))


def test_every_equation_can_be_read(choice):
    about = show(*choice)
    parts = [*about.body, *(part for base in about.bases for part in base.body)]
    for equation in (part for part in parts if isinstance(part, Equation)):
        assert not set(readable(equation.latex)) & set("\\{}$&"), equation


@pytest.fixture(scope="module")
def digits():
    return Digits().load()


def test_the_example_is_accepted(choice, digits, monkeypatch, tmp_path):
    kind, name = choice
    (tmp_path / "my.csv").write_text("size,price\n1,2.5\n2,3.5\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    example = show(kind, name).example
    content = yamlfile.parse(example)
    assert yaml.safe_load(example) == content
    assert name in example
    for key in content:
        build(KINDS[key], content[key], key)
    spec = Spec(**{"model": NET, **content})
    if kind in ("prior", "hyperprior", "guide"):
        spec.build_guide(spec.build_model(digits), digits)


@pytest.fixture
def files(nowhere, four_files, monkeypatch, tmp_path):
    """Settings for tasks that need files, which are made."""
    for folder in ("mnist", "fashion-mnist"):
        four_files(tmp_path / "data" / folder)
    (tmp_path / "data" / "mnist5k").mkdir()
    rows = [b",".join([b"0"] * 784 + [b"%d" % (row % 10)]) for row in range(100)]
    (tmp_path / "data" / "mnist5k" / "mnist_5k.csv.gz").write_bytes(gzip.compress(b"\n".join(rows), 1))
    monkeypatch.setattr("pyroformer.tasks.mnist5k.COUNT", len(rows))
    (tmp_path / "my.csv").write_text("a,b\n" + "".join(f"{i},{i / 7}\n" for i in range(20)), "utf-8")
    monkeypatch.setenv("PYROFORMER_DATA", str(tmp_path / "data"))
    small = {"train": 40, "validation": 10, "shifts": [], "ood": False}
    return {
        "arrays": {"file": str(tmp_path / "my.csv")},
        "mnist": small,
        "fashion_mnist": small,
        "mnist5k": small,
    }


def spec_with(kind, name, files):
    """A spec around one choice, and one by which the driver can be asked of it."""
    cls = KINDS[kind].classes()[name]
    spec = {**TOY, "seed": 0}
    if name in ("reversal", "encoder_decoder"):  # each needs the other
        net = {"encoder_decoder": {"width": 8, "heads": 2, "depth": 1}}
        return {**spec, "task": {"reversal": {"train": 20, "test": 4}}, "model": net}
    if kind == "task":
        return {**spec, "task": {name: files.get(name, {})}}
    if issubclass(cls, RowPrior):
        return {**spec, "prior": {"*.rows": name, "*": "normal"}}
    if issubclass(cls, LogNormal):
        return {**spec, "prior": {"*norm*.weight": name, "*": "normal"}}
    if issubclass(cls, PointEstimate):
        return {**spec, "prior": {"head.*": name, "*": "normal"}}
    if getattr(cls, "local", False):
        prior = "gamma_rows" if cls.space == "positive" else "dirichlet_rows"
        return {**spec, "prior": {"*.rows": prior, "*": "normal"}, "guide": {"*.rows": name, "*": "mean_field"}}
    if kind == "center":
        return {**spec, "prior": {"*.rows": {"dirichlet_rows": {"center": name}}, "*": "normal"}}
    if kind == "hyperprior":
        return {**spec, "prior": {"hierarchical": {"hyperprior": name}}}
    if kind == "bound":
        return {**spec, "driver": {"svi": {"bound": name, "particles": 2}}}
    if kind == "schedule":
        return {**spec, "driver": {"sgld": {"schedule": name}}}
    if kind == "likelihood":
        task = {"toy_regression": {"likelihood": name}} if name == "gaussian" else "digits"
        return {**spec, "task": task}
    if kind == "calibration":
        return {**spec, "task": "digits", kind: name}
    return {**spec, kind: name} if kind in KEYS else spec


def test_explain_tells_what_a_spec_with_it_means(choice, files):
    kind, name = choice
    spec = Spec(**spec_with(kind, name, files))
    found = explain(spec)
    text = as_text(found, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert set(found.parts) == set(KEYS)
    if kind != "model":
        assert name in text
    own, shared = sum(site.parameters for site in found.sites), sum(each.count for each in found.shared)
    assert found.totals.variational == own + shared
    assert bool(own) == (spec.driver.needs_guide or spec.driver.treatment in ("point", "mean_field"))
    assert found.totals.random == sum(math.prod(site.shape) for site in found.sites if site.role != "rows") > 0
    assert found.totals.trained == sum(math.prod(point.shape) for point in found.points if point.trained)
    assert all(site.prior and site.posterior and math.prod(site.shape) > 0 for site in found.sites)
    assert not [each for each in found.parts.values() if not each]


def test_every_nested_kind_is_among_those_enumerated():
    for kind, name in EVERY:
        cls = KINDS[kind].classes()[name]
        for setting in defaults(cls):
            inner = kind_of(hints_of(cls).get(setting))
            assert inner is None or inner.name in KINDS
