"""The JSON schema: valid itself, and at one with `Spec`, `pyroformer list`, the studies and the README."""

import functools
import importlib.util
import json
import re
from pathlib import Path

import jsonschema
import pytest

import pyroformer as package
from pyroformer import Spec, schema, show, yamlfile
from pyroformer.choices import KINDS, SpecError, build
from pyroformer.help.wording import defaults
from pyroformer.priors import SettingError, describe
from pyroformer.priors.settings import parameters
from pyroformer.spec import KEYS
from pyroformer.study import builtin, read_study

HERE = Path(__file__).resolve().parent
EVERY = [(kind.name, name) for kind in KINDS.values() for name in kind.classes()]
TOY = {
    "task": {"toy_regression": {"train": 20, "test": 10}},
    "model": {"transformer": {"width": 8, "heads": 2, "depth": 1}},
    "driver": {"svi": {"epochs": 2}},
}


def lists_of(file):
    """The module of another file of tests."""
    spec = importlib.util.spec_from_file_location(file, HERE / f"{file}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


once = functools.cache(schema)


def validator(document, part=None):
    whole = once(document)
    if part is not None:
        whole = {"$schema": whole["$schema"], "$ref": f"#/$defs/{part}", "$defs": whole["$defs"]}
    return jsonschema.Draft202012Validator(whole)


@pytest.fixture(scope="module")
def spec_schema():
    return validator("spec")


@pytest.fixture(scope="module")
def study_schema():
    return validator("study")


def places(errors):
    """Where errors stand, those inside of alternatives too; an unknown key is a place of its own."""
    for error in errors:
        path = tuple(map(str, error.absolute_path))
        if error.validator == "additionalProperties":
            yield from ((*path, str(key)) for key in error.instance if key not in error.schema.get("properties", {}))
        elif not error.context:
            yield path
        yield from places(error.context)


@pytest.mark.parametrize("document", ["spec", "study"])
def test_it_is_a_schema(document):
    made = schema(document)
    jsonschema.Draft202012Validator.check_schema(made)
    assert made["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(json.dumps(made)) == made
    used = set(re.findall(r'"\$ref": "#/\$defs/([\w.]+)"', json.dumps(made)))
    assert used == set(made["$defs"])


def test_every_key_of_a_spec_is_described():
    properties = schema()["properties"]
    assert tuple(properties) == KEYS
    assert all(properties[key]["description"] for key in KEYS)
    assert schema()["required"] == ["task"]


@pytest.mark.parametrize("name", builtin())
def test_the_studies_are_valid(study_schema, spec_schema, name):
    study_schema.validate(yamlfile.read(builtin()[name]))
    study = read_study(name)
    for method, seed in study.cells():
        spec_schema.validate(json.loads(json.dumps({**study.base, **study.methods[method], "seed": seed})))
        spec_schema.validate(json.loads(json.dumps(study.spec(method, seed).to_dict())))


def test_the_specs_of_the_readme_are_valid(spec_schema):
    readme = (HERE.parents[1] / "README.md").read_text("utf-8")
    found = re.findall(r"^```yaml\n(.*?)^```", readme, re.M | re.S)
    assert found
    for text in found:
        spec_schema.validate(yamlfile.parse(text))


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_choice_is_valid_in_every_form(kind, name):
    cls = KINDS[kind].classes()[name]
    check = validator("spec", kind)
    written = [name, {name: None}, {name: {}}, {name: {key: describe(value) for key, value in defaults(cls).items()}}]
    for choice in written:
        check.validate(json.loads(json.dumps(choice)))
        build(KINDS[kind], choice, kind)
    for wrong in (f"{name}x", {name: 1}, {name: {"nonsense": 1}}, [name], {}, {name: {}, "other": {}}):
        assert not check.is_valid(wrong)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_the_examples_of_show_are_valid(spec_schema, kind, name):
    spec_schema.validate(yamlfile.parse(show(kind, name).example))


WRONG = lists_of("test_wrong_specs")
CASES = [case[0] for case in (*WRONG.NO_CHOICE, *WRONG.WRONG_SETTING, *WRONG.WRONG_MAP)]
ASSIGNMENTS = [assignment for assignment in CASES if assignment != "seed=1.0"]  # JSON does not tell 1.0 from 1
NESTED = [
    case.args[0] if hasattr(case, "args") else case[0]
    for mark in lists_of("test_nested_choices").test_mistakes_are_told_with_their_full_path.pytestmark
    for case in mark.args[1]
]
MISTAKES = {
    name: text
    for name, (text, said) in lists_of("test_mistakes").WRONG_SPECS.items()
    if "would ignore" not in said  # two good parts that do not fit each other: no schema says so
}
CONTENTS = [yamlfile.assign(TOY, assignment) for assignment in ASSIGNMENTS]
CONTENTS += [{**TOY, "prior": yamlfile.parse(text)} for text in NESTED]
CONTENTS += [{**TOY, **yamlfile.parse(text)} for text in MISTAKES.values()]


def refusal(content):
    """Why a spec is refused for its structure alone; None where it is accepted, or only its values are not."""
    try:
        Spec(**content)
    except SpecError as error:
        return None if isinstance(error.__context__, SettingError) else error
    return None


@pytest.mark.parametrize("content", CONTENTS, ids=[*ASSIGNMENTS, *NESTED, *MISTAKES])
def test_it_fails_exactly_where_spec_refuses(spec_schema, content):
    error, found = refusal(content), set(places(spec_schema.iter_errors(content)))
    if error is None:
        assert not found
        return
    path = tuple(yamlfile.split_path(error.path))
    assert found & {path, (*path, str(error.value))}, found
    assert all(place[: len(path)] == path[: len(place)] for place in found), found


def test_the_lists_of_wrong_specs_hold_both_sorts():
    structural = [content for content in CONTENTS if refusal(content) is not None]
    assert len(structural) > 40 and len(CONTENTS) - len(structural) > 15


MAPS = [
    ({"*": "normal"}, True),
    ({"head.weight": "normal", "position": "laplace"}, True),
    ({"*.rows": {"dirichlet_rows": {"kl_weight": 0}}, "*": {"normal": {"scale": 0.1}}}, True),
    ({"position": "normal"}, False),
    ({"*": "normal", "laplace": {}}, False),
    ({"*": {"a.*": "normal", "*": "normal"}}, False),
    ({"*": None}, False),
    ({}, False),
]


@pytest.mark.parametrize(("prior", "valid"), MAPS)
def test_maps_from_globs(spec_schema, prior, valid):
    content = {"task": "digits", "prior": prior}
    assert spec_schema.is_valid(content) == valid == (refusal(content) is None)
    # a driver knows no map
    assert not spec_schema.is_valid({"task": "digits", "driver": {"*": "svi"}})


@pytest.mark.parametrize(
    ("study", "valid"),
    [
        ({"methods": {"a": {"driver": "ml"}}}, True),
        ({"methods": {"a": None, "b": {}}, "base": None, "seeds": 2, "title": "t", "description": "d"}, True),
        ({"methods": {"a": {"driver": "ml"}}, "reference": "a"}, True),
        ({"methods": {"a": {"driver": "ml"}}, "reference": None}, True),
        ({"methods": {"a": {"driver": "ml"}}, "reference": 3}, False),
        ({"methods": {"a": {"driver": "ml"}}, "reference": ["a"]}, False),
        ({"base": {"task": "digits"}}, False),
        ({"methods": {}}, False),
        ({"methods": {"a": {"seed": 1}}}, False),
        ({"methods": {"a": {"driver": "mll"}}}, False),
        ({"methods": {"a": {}}, "seeds": 0}, False),
        ({"methods": {"a": {}}, "sedes": 2}, False),
    ],
)
def test_studies(study_schema, write, study, valid):
    assert study_schema.is_valid(study) == valid
    study = {"base": {"task": "digits"}, **study} if study.get("base", 1) else study | {"base": {"task": "digits"}}
    try:
        found = read_study(str(write(study)))
        [found.spec(method, seed) for method, seed in found.cells()]
        accepted = True
    except SpecError:
        accepted = False
    assert accepted == valid


def test_schema_and_list_name_the_same(pyroformer):
    definitions = schema()["$defs"]
    for kind in KINDS:
        lines = pyroformer("list", kind).out.splitlines()[1::2]
        listed = {re.match(r"  (\w+)", line)[1]: line for line in lines}
        names, objects = definitions[kind]["anyOf"]
        assert [each["const"] for each in names["anyOf"]] == list(objects["properties"]) == list(listed)
        for name, line in listed.items():
            settings = definitions[f"{kind}.{name}"]["properties"]
            assert set(settings) == set(parameters(KINDS[kind].classes()[name]))
            assert all(f"{setting}=" in line for setting in settings)
            assert all(setting["description"] for setting in settings.values())


def test_defaults_are_those_of_the_classes():
    made = schema()["$defs"]
    assert made["driver.svi"]["properties"]["learning_rate"]["default"] == 0.003
    assert made["prior.mixture"]["properties"]["components"]["default"] == ["normal", {"normal": {"scale": 0.1}}]
    assert made["task.toy_regression"]["properties"]["likelihood"]["default"] == "gaussian"
    assert made["driver.svi"]["properties"]["optimizer"]["enum"] == ["adam", "adamw", "sgd"]


def test_a_new_export_is_in_it(monkeypatch):
    class Another(package.priors.Normal):
        """Another one.

        Args:
            scale: Its scale.
        """

    monkeypatch.setattr(package.priors, "Another", Another, raising=False)
    monkeypatch.setattr(package.priors, "__all__", [*package.priors.__all__, "Another"])
    check = jsonschema.Draft202012Validator(schema("spec"))
    assert check.is_valid({"task": "digits", "prior": {"another": {"scale": 2}}})
    assert check.is_valid({"task": "digits", "prior": {"hierarchical": {"prior": "another"}}})
    assert not check.is_valid({"task": "digits", "prior": {"another": {"scal": 2}}})


def test_the_command(pyroformer, tmp_path):
    ended = pyroformer("schema")
    assert (ended.code, ended.err, json.loads(ended.out)) == (0, "", schema("spec"))
    written = pyroformer("schema", "study", "--out", tmp_path / "deep" / "study.json")
    assert (written.code, written.out, written.err) == (0, "", "")
    assert json.loads((tmp_path / "deep" / "study.json").read_text("utf-8")) == schema("study")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["study.json"]
    message = pyroformer("schema", "stdy").message
    assert message == "schema: got stdy; accepted: spec or study; did you mean study?"


def test_a_folder_is_not_lost_to_a_schema(pyroformer, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious").touch()
    message = pyroformer("schema", "--out", tmp_path / "folder").message
    assert message == f"--out: got {tmp_path / 'folder'}; accepted: a file; this is a folder"
    assert (tmp_path / "folder" / "precious").exists()
