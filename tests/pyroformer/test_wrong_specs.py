"""More of what users get wrong in a specification, given by ``--set``; `test_mistakes` has the most frequent mistakes.

Every mistake ends with exit code 2 before any work: one line with the path of the bad key, its value, what would be
accepted and, where something looks like it, what may have been meant. Nothing is left in the output folder.
"""

import pytest

NO_CHOICE = [
    # assignment, path, value, accepted, near miss
    ("task=null", "task", "null", "a task among", None),
    ("prior=norml", "prior", "norml", "a prior among", "normal"),
    ("prior.norml.scale=2", "prior", "norml", "a prior among", "normal"),
    ("prior=[normal]", "prior", "['normal']", "as `name` or `{name: {setting: value}}`", None),
    ("prior={}", "prior", "{}", "a map from globs to priors", None),
    ('prior."*"=norml', 'prior."*"', "norml", "a prior among", "normal"),
    ("task.toy_regression.likelihood=gausian", "task.toy_regression.likelihood", "gausian", "among", "gaussian"),
]


@pytest.mark.parametrize(("assignment", "path", "value", "accepted", "near"), NO_CHOICE)
def test_a_name_that_does_not_exist(refused, toy, assignment, path, value, accepted, near):
    message = refused(toy, assignment)
    assert message.startswith(f"{path}: got {value}; accepted: "), message
    assert accepted in message
    assert ("did you mean" in message) == (near is not None)
    assert near is None or near in message.partition("did you mean")[2]


WRONG_SETTING = [
    # assignment, path, value, accepted
    ("prior.normal.scale=1,5", "prior.normal.scale", "1,5", "a number"),
    ("prior.normal.scale=true", "prior.normal.scale", "true", "a number"),
    ("prior.normal.scale=null", "prior.normal.scale", "null", "a number"),
    ("prior.normal.scale=.nan", "prior.normal.scale", "nan", "a number above 0"),
    ("prior.normal.scaling=fanin", "prior.normal.scaling", "fanin", "one of absolute, fan_in"),
    ("model.transformer.width=0", "model.transformer.width", "0", "a whole number of at least 1"),
    ("model.transformer.pool=max", "model.transformer.pool", "max", "one of mean, first, last"),
    ("driver.svi.epoch=5", "driver.svi.epoch", "5", "did you mean epochs?"),
    ("driver.svi.clip_norm=0", "driver.svi.clip_norm", "0.0", "a number above 0, or null"),
    ("driver.svi.dtype=float16", "driver.svi.dtype", "float16", "one of float32, float64"),
    ("driver.svi.device=gpu", "driver.svi.device", "gpu", "a torch device of this machine, such as cpu"),
    ("driver.deep_ensemble.size=1.5", "driver.deep_ensemble.size", "1.5", "a whole number"),
    ("driver.deep_ensemble.member.svi.epoch=5", "driver.deep_ensemble.member.svi.epoch", "5", "did you mean epochs?"),
    ("driver.deep_ensemble.member=deep_ensemble", "driver.deep_ensemble.member", "deep_ensemble", "no ensemble itself"),
    ("guide.mean_field.init_scale=0", "guide.mean_field.init_scale", "0.0", "a number above 0"),
    ("task.toy_regression.train=2.5", "task.toy_regression.train", "2.5", "a whole number"),
    ("task.toy_regression.split=-1", "task.toy_regression.split", "-1", "a whole number from 0"),
    ("task.digits.train=1700", "task.digits.train", "1700", "to leave a test set"),
    ("task.digits.noise=-0.1", "task.digits.noise", "-0.1", "a number above 0"),
    (f"task.digits.split={10**20}", "task.digits.split", str(10**20), "a whole number from 0 to 4294967295"),
    (
        "task.toy_regression.likelihood.gaussian.scale=0",
        "task.toy_regression.likelihood.gaussian.scale",
        "0.0",
        "above",
    ),
    ("task=arrays", "task.arrays.file", "null", "the path of a .npz file"),
    ("seed=4294967296", "seed", "4294967296", "a whole number from 0 to 4294967295"),
    ("seed=seven", "seed", "seven", "a whole number"),
    ("seed=1.0", "seed", "1.0", "a whole number"),
    ("seed=true", "seed", "true", "a whole number"),
    ("seed.x=1", "seed", "{'x': 1}", "a whole number"),
]


@pytest.mark.parametrize(("assignment", "path", "value", "accepted"), WRONG_SETTING)
def test_a_setting_that_is_unknown_of_the_wrong_type_or_out_of_range(refused, toy, assignment, path, value, accepted):
    message = refused(toy, assignment)
    assert message.startswith(f"{path}: got {value}"), message
    assert accepted in message.partition("accepted: ")[2], message


def test_a_patch_that_does_not_divide_the_image(refused, digits):
    message = refused(digits, "model.transformer.patch=3")
    assert message == "model.transformer.patch: got 3; accepted: a divisor of the image's height 8 and width 8"


WRONG_MAP = [
    # assignment, path, value, accepted
    (
        'prior={"blokcs.*": improper, "*": normal}',
        "prior",
        "blokcs.*",
        "a pattern that matches a weight among position",
    ),
    ('prior={"head.weigth.*": normal, "*": normal}', "prior", "head.weigth.*", "did you mean head.weight"),
    ('guide={"nothing.*": mean_field, "*": mean_field}', "guide", "nothing.*", "a pattern that matches"),
    ('prior={"*.rows": dirichlet_rows}', "prior", "dirichlet_rows", "a prior over the weights as well"),
    ('prior={"head.*": dirichlet_rows, "*": normal}', "prior", "head.*", "layer's attention rows"),
    ("guide=dirichlet_rows", "guide", "dirichlet_rows", "the model draws none"),
    ("prior={normal: {scale: 2}, scaling: fan_in}", "prior", "normal, scaling", "one prior and its settings"),
    ("driver={svi: {}, ml: {}}", "driver", "svi, ml", "one name and its settings"),
    ("model={transformer: {}, width: 8}", "model", "transformer, width", "one name and its settings"),
]


@pytest.mark.parametrize(("assignment", "path", "value", "accepted"), WRONG_MAP)
def test_a_map_that_does_not_fit(refused, toy, assignment, path, value, accepted):
    message = refused(toy, assignment)
    assert message.startswith(f"{path}: got {value}; accepted: "), message
    assert accepted in message


ROWS = 'prior={"*.rows": dirichlet_rows, "*": normal}'
DO_NOT_FIT = [
    # assignments, path, value, accepted
    (["driver=nuts", "guide=delta"], "guide", "delta", "no guide: the driver nuts would ignore it"),
    (["driver=map", ROWS], "driver", "map", "svi with a row family such as dirichlet_rows"),
    (["driver=deep_ensemble", ROWS], "driver", "deep_ensemble", "svi with a row family"),
    ([ROWS, "guide=mean_field"], "guide", "mean_field", "DirichletRows for attention rows"),
    (["driver=nuts", "prior=learned"], "driver", "nuts", "priors on all parameters"),
    (["driver=svi", "prior=learned"], "driver", "svi", "at least one random site"),
]


@pytest.mark.parametrize(("assignments", "path", "value", "accepted"), DO_NOT_FIT)
def test_parts_that_do_not_fit_each_other(refused, toy, assignments, path, value, accepted):
    message = refused(toy, *assignments)
    assert message.startswith(f"{path}: got {value}; accepted: "), message
    assert accepted in message


def test_a_likelihood_that_does_not_fit_the_data(refused, toy):
    message = refused(toy, "task.toy_regression.likelihood=categorical")
    assert "expected whole numbers" in message


WRONG_ASSIGNMENT = [
    # assignment, value, accepted
    ("prior.normal.scale", "prior.normal.scale", "path=value, such as prior.normal.scale=0.5"),
    ("=3", "=3", "path=value"),
    ('prior."blocks.*=normal', 'prior."blocks.*', "glob keys in quotes"),
    ("prior..scale=1", "prior..scale", "a dotted path"),
    ("prior.'*.normal=1", "prior.'*.normal", "a dotted path"),
    ("prior={normal: [}", "prior={normal: [}", "a value that is valid YAML"),
    ("seed=2024-13-45", "seed=2024-13-45", "a value that is valid YAML"),
]


@pytest.mark.parametrize(("assignment", "value", "accepted"), WRONG_ASSIGNMENT)
def test_an_assignment_that_cannot_be_read(refused, toy, assignment, value, accepted):
    message = refused(toy, assignment)
    assert message.startswith(f"--set: got {value}; accepted: "), message
    assert accepted in message


def test_the_good_twin_of_all_these_runs(pyroformer, write, toy, tmp_path):
    ended = pyroformer("run", write(toy), "--out", tmp_path / "run", "--set", "prior.normal.scale=2", "--quiet")
    assert ended.code == 0
    assert (tmp_path / "run" / "metrics.json").is_file()
