"""What goes wrong most often, and the whole message that comes of it.

Two tables, of malformed inputs and of wrong specs: a name in words, what was given, and what is said. Each is given
to the command line, which ends with exit code 2 and that one line, after ``error: ``, without a traceback; a folder for
the run is never begun. Further cases stand in `test_malformed_inputs`, `test_wrong_specs` and `test_wrong_files`.
"""

import gzip
import io
import zlib

import numpy as np
import pytest
import yaml

import pyroformer as package
from pyroformer.choices import KINDS
from pyroformer.inference import DataError
from pyroformer.tasks.idx import idx_bytes

IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
FOUR = f"{IMAGES}, {LABELS}, t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz"
PIXELS, CLASSES = np.zeros((60, 28, 28), np.uint8), np.arange(60, dtype=np.uint8) % 10
IDX = idx_bytes(CLASSES)
GZIP = gzip.compress(IDX, mtime=0)
NOISE = gzip.compress(idx_bytes(np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8)), mtime=0)


def npz(**changes):
    """A good ``.npz`` file but for the arrays that are named; None leaves one out."""
    arrays = {"x": np.ones((6, 2)), "y": np.arange(6) % 2, "x_test": np.ones((2, 2)), "y_test": np.arange(2)}
    file = io.BytesIO()
    np.savez(file, **{name: array for name, array in (arrays | changes).items() if array is not None})
    return file.getvalue()


CSV_IS = "expected a CSV file: rows of numbers and one column to predict, separated by commas, semicolons or tabs"
NPZ_IS = "expected a .npz file of plain arrays x, y, x_test, y_test, x_validation, y_validation"
NPZ_HAS = "expected x, y, x_test, y_test and perhaps x_validation, y_validation"

MALFORMED_INPUTS = {
    # MNIST's layout: four IDX files in a FOLDER, of which FILE is the one that is changed
    "IDX: an empty file": (IMAGES, b"", "FILE is empty: expected an IDX file"),
    "IDX: a page of the web in its place": (
        IMAGES,
        b"<html>404</html>",
        "FILE starts with 3c 68 74 6d: expected an IDX file (00 00) or gzip (1f 8b)",
    ),
    "IDX: an unknown data type": (
        LABELS,
        IDX[:2] + b"\x0a" + IDX[3:],
        "FILE has the data type 0a: expected one of 08, 09, 0b, 0c, 0d, 0e",
    ),
    "IDX: half a header": (
        LABELS,
        IDX[:6],
        "FILE ends in the middle of its header: expected the sizes of 1 dimensions",
    ),
    "IDX: a size of billions": (
        LABELS,
        IDX[:4] + b"\xff" * 4,
        "FILE says that its shape is (4294967295,): expected 1 to 1073741824 bytes, got 4294967295",
    ),
    "IDX: cut off": (LABELS, IDX[:-1], "FILE holds only 59 bytes of values: expected 60, for its shape (60,)"),
    "IDX: trailing bytes": (LABELS, IDX + b"\0", "FILE holds more bytes of values: expected 60, for its shape (60,)"),
    "IDX: labels in the place of images": (
        IMAGES,
        IDX,
        "FILE holds uint8 [60]: expected images, uint8 [N, 28, 28]",
    ),
    "IDX: images of another size": (
        IMAGES,
        idx_bytes(np.zeros((60, 32, 32), np.uint8)),
        "FILE holds uint8 [60, 32, 32]: expected images, uint8 [N, 28, 28]",
    ),
    "IDX: an eleventh class": (LABELS, idx_bytes(CLASSES + 1), "FILE holds the label 10: expected 0 to 9"),
    "IDX: a label too few": (
        LABELS,
        idx_bytes(CLASSES[1:]),
        f"FOLDER/{IMAGES} holds 60 images and FILE 59 labels: expected as many",
    ),
    "IDX: one file of the four is missing": (
        LABELS,
        None,
        f"FOLDER (task.mnist.path) has no {LABELS}: expected {FOUR}",
    ),
    "gzip: cut off": (IMAGES, NOISE[:2000], "FILE ends in the middle of its gzip data: expected a whole file"),
    "gzip: a bad checksum": (
        LABELS,
        GZIP[:-8] + bytes(4) + GZIP[-4:],
        f"FILE is damaged gzip data (CRC check failed 0x0 != {zlib.crc32(IDX):#x}): expected a whole file",
    ),
    "gzip: something else behind it": (
        LABELS,
        GZIP + b"something",
        "FILE is damaged gzip data (Not a gzipped file (b'so')): expected a whole file",
    ),
    # arrays of one's own, `task: {arrays: {file: FILE}}`
    "npz: half a file": ("my.npz", npz()[:300], f"FILE is no .npz file, or only a part of one: {NPZ_IS}"),
    "npz: an empty file": ("my.npz", b"", f"FILE is no .npz file, or only a part of one: {NPZ_IS}"),
    "npz: a text": ("my.npz", b"a,b\n1,2\n", f"FILE is no .npz file, or only a part of one: {NPZ_IS}"),
    "npz: an array missing": ("my.npz", npz(y_test=None), f"FILE: no y_test: {NPZ_HAS}"),
    "npz: an array too many": ("my.npz", npz(z=np.ones(2)), f"FILE: unknown z: {NPZ_HAS}"),
    "npz: pickled objects": (
        "my.npz",
        npz(y=np.array([{}] * 6)),
        f"FILE: Object arrays cannot be loaded when allow_pickle=False: {NPZ_IS}",
    ),
    "npz: a label too few": (
        "my.npz",
        npz(y=np.zeros(5, int)),
        "x has 6 examples and y 5: expected as many, not 0",
    ),
    "npz: NaN": (
        "my.npz",
        npz(x=np.full((6, 2), np.nan)),
        "x: example 0 holds nan (6 of 6 examples do): expected finite numbers",
    ),
    "npz: words": ("my.npz", npz(y=np.array(["a"] * 6)), "y holds <U1: expected numbers"),
    "npz: a single number": (
        "my.npz",
        npz(x=np.array(1.0)),
        "x is a single number: expected one entry an example",
    ),
    "npz: a negative class": ("my.npz", npz(y=np.arange(6) - 3), "y holds -3: expected classes counted from 0"),
    "CSV: an empty file": ("my.csv", b"", f"FILE is empty: {CSV_IS}"),
    "CSV: a header alone": ("my.csv", b"a,b,y\n", f"FILE has a header and no rows: {CSV_IS}"),
    "CSV: another encoding": ("my.csv", "größe,y\n1,2\n".encode("latin-1"), f"FILE is not UTF-8 (byte 2): {CSV_IS}"),
    "CSV: a missing cell": (
        "my.csv",
        b"a,b,y\n1,2,p\n3,,q\n",
        "FILE: line 3, column 2 (b) is missing (''): expected a value in every cell",
    ),
    "CSV: a word among numbers": (
        "my.csv",
        b"a,y\n1,p\ntwo,q\n",
        "FILE: line 3, column 1 (a) holds 'two': expected a number such as 1.5",
    ),
    "CSV: decimal commas": (
        "my.csv",
        b"a;y\n1,5;p\n2;q\n",
        "FILE: line 2, column 1 (a) holds '1,5': expected a number such as 1.5",
    ),
    "CSV: a row too short": ("my.csv", b"a,b,y\n1,2,p\n3,q\n", "FILE: line 3 has 2 cells: expected 3, as line 1 has"),
    "CSV: a name twice": (
        "my.csv",
        b"a,a,y\n1,2,p\n",
        "FILE: line 1: the name a stands twice: expected each column once",
    ),
    "CSV: a quote that never ends": (
        "my.csv",
        b'a,y\n"1,p\n2,q\n',
        f"FILE: line 2: unexpected end of data: {CSV_IS}",
    ),
    "CSV: one class only": (
        "my.csv",
        b"a,y\n1,p\n2,p\n",
        "FILE: the target y holds one class, p: expected at least two",
    ),
}


@pytest.mark.parametrize("name", MALFORMED_INPUTS)
def test_a_malformed_input(refused, toy, four_files, tmp_path, nowhere, name):
    file, content, said = MALFORMED_INPUTS[name]
    folder = four_files(tmp_path / "data")
    path = folder / file
    path.unlink() if content is None else path.write_bytes(content)
    task = {"arrays": {"file": str(path)}}
    if file.endswith("ubyte.gz"):
        task = {"mnist": {"path": str(folder), "train": 40, "validation": 20}}
    message = refused({**toy, "task": task})
    assert message.replace(str(path), "FILE").replace(str(folder), "FOLDER") == said


ARRAYS_IN_PYTHON = {
    # x and y of `Task.from_arrays(x, y, x_test, y_test)`, which raises a `DataError`
    "lists of different lengths": (
        ([[1.0, 2.0], [3.0]], [0, 1]),
        "x holds lists of different lengths: expected an array of numbers",
    ),
    "words": (([["a"]], [0]), "x holds <U1: expected numbers"),
    "nothing": (([], []), "x has 0 examples and y 0: expected as many, not 0"),
    "infinity": (([[np.inf]], [0]), "x: example 0 holds inf (1 of 1 examples do): expected finite numbers"),
}


@pytest.mark.parametrize("name", ARRAYS_IN_PYTHON)
def test_arrays_in_python(tmp_path, name):
    (x, y), said = ARRAYS_IN_PYTHON[name]
    with pytest.raises(DataError) as error:
        package.fit(package.Spec(task=package.Task.from_arrays(x, y, [[1.0, 2.0]], [0])), out=tmp_path / "run")
    assert str(error.value) == said
    assert not (tmp_path / "run").exists()


SITES = (
    "position, embedding.weight, blocks.0.norm1.weight, blocks.0.norm1.bias, blocks.0.attention.query.weight, "
    "blocks.0.attention.query.bias and 16 more"
)

WRONG_SPECS = {
    # the keys that replace those of a good spec; PRIORS, TASKS, ... in a message stand for all there are
    # names that do not exist
    "an unknown key": (
        "taks: digits",
        "taks: got digits; accepted: the keys task, model, prior, guide, driver, calibration, seed; did you mean task?",
    ),
    "an unknown task": ("task: digit", "task: got digit; accepted: a task among TASKS; did you mean digits?"),
    "an unknown model": (
        "model: tranformer",
        "model: got tranformer; accepted: a model among MODELS; did you mean transformer?",
    ),
    "an unknown guide": (
        "guide: meanfield",
        "guide: got meanfield; accepted: a guide among GUIDES; did you mean mean_field?",
    ),
    "an unknown driver": (
        "driver: nut",
        "driver: got nut; accepted: a driver among DRIVERS; did you mean nuts or sgnht?",
    ),
    "a prior written as its class": (
        "prior: Normal",
        "prior: got Normal; accepted: a prior among PRIORS; did you mean normal or log_normal or matrix_normal?",
    ),
    "an unknown choice inside another": (
        "driver: {deep_ensemble: {member: mll}}",
        "driver.deep_ensemble.member: got mll; accepted: a driver among DRIVERS; did you mean ml or mclmc?",
    ),
    "an unknown setting": (
        "prior: {normal: {scal: 2}}",
        "prior.normal.scal: got 2; accepted: the settings scale, scaling; did you mean scale or scaling?",
    ),
    "a setting where there are none": (
        "prior: {improper: {scale: 2}}",
        "prior.improper.scale: got 2; accepted: no settings",
    ),
    # values of the wrong type
    "a word for a number": (
        "prior: {normal: {scale: big}}",
        "prior.normal.scale: got big; accepted: a number",
    ),
    "half a layer's width": (
        "model: {transformer: {width: 8.5}}",
        "model.transformer.width: got 8.5; accepted: a whole number",
    ),
    "a number for a switch": (
        "model: {transformer: {causal: 1.5}}",
        "model.transformer.causal: got 1.5; accepted: true or false or null",
    ),
    "a number for a choice": (
        "prior: 0.5",
        "prior: got 0.5; accepted: a prior among PRIORS, as `name` or `{name: {setting: value}}`",
    ),
    "a value for a mapping of settings": (
        "prior: {normal: 2}",
        "prior.normal: got 2; accepted: a mapping of the settings scale, scaling",
    ),
    # values out of range
    "a scale below 0": ("prior: {normal: {scale: -1}}", "prior.normal.scale: got -1.0; accepted: a number above 0"),
    "no epochs": (
        "driver: {svi: {epochs: 0}}",
        "driver.svi.epochs: got 0; accepted: a whole number of at least 1",
    ),
    "an unknown optimiser": (
        "driver: {svi: {optimizer: adma}}",
        "driver.svi.optimizer: got adma; accepted: one of adam, adamw, sgd",
    ),
    "an acceptance of 1": (
        "driver: {nuts: {target_accept: 1}}",
        "driver.nuts.target_accept: got 1.0; accepted: a number between 0 and 1",
    ),
    "a seed below 0": ("seed: -1", "seed: got -1; accepted: a whole number from 0 to 4294967295"),
    "a file that is not there": (
        "task: {arrays: {file: nowhere.npz}}",
        "task.arrays.file: got nowhere.npz; accepted: an existing .npz file or .csv file",
    ),
    # globs
    "a glob that matches no weight": (
        'prior: {"head.weigth": improper, "*": normal}',
        f"prior: got head.weigth; accepted: a pattern that matches a weight among {SITES}; "
        "did you mean head.weight or head.bias or embedding.weight?",
    ),
    "globs that leave a weight without a prior": (
        'prior: {"blocks.*": normal}',
        "prior: got position; accepted: a pattern that covers this weight; given are blocks.*",
    ),
    "globs that leave a weight without a posterior": (
        'guide: {"blocks.*": mean_field}',
        "guide: got position; accepted: a pattern that covers this site of the model; given are blocks.*",
    ),
    "two priors without globs": (
        "prior: {normal: {}, improper: {}}",
        "prior: got normal, improper; accepted: one prior and its settings, or a map from globs over names to priors",
    ),
    # parts that do not fit each other
    "a width that the heads do not divide": (
        "model: {transformer: {width: 8, heads: 3}}",
        "model.transformer.heads: got 3; accepted: a divisor of the width 8",
    ),
    "a net of text that looks ahead": (
        "{task: text, model: {transformer: {causal: false}}}",
        "model.transformer.causal: got false; accepted: null or true: the outputs predict the tokens that follow, "
        "which they must not see",
    ),
    "a net of one sequence for a task of two": (
        "task: reversal",
        "model.transformer: got a net of one sequence; accepted: a net of a source and a target sequence, such as "
        "encoder_decoder",
    ),
    "patches of what is no image": (
        "model: {transformer: {width: 8, heads: 2, patch: 2}}",
        "model.transformer.patch: got 2; accepted: null: only images have patches",
    ),
    "a guide that its driver would ignore": (
        "{driver: ml, guide: mean_field}",
        "guide: got mean_field; accepted: no guide: the driver ml would ignore it",
    ),
    "a prior over rows alone": (
        "prior: dirichlet_rows",
        "prior: got dirichlet_rows; accepted: a prior over the weights as well, such as "
        "{'*.rows': dirichlet_rows, '*': learned}",
    ),
    "rows of a posterior that their prior is none of": (
        '{prior: {"*.rows": gamma_rows, "*": learned}, guide: {"*.rows": dirichlet_rows}}',
        "guide: got dirichlet_rows; accepted: log_normal_rows or weibull_rows for blocks.0.attention.rows: "
        "its prior gamma_rows is one of positive entries",
    ),
    "a center that its law cannot see": (
        'prior: {"*.rows": {logistic_normal_rows: {center: learned}}, "*": normal}',
        'prior."*.rows".logistic_normal_rows.center: got learned; accepted: another center: '
        "under this law only the ratios of weights matter, and all would be equal",
    ),
    "rows in the hands of a sampler of weights": (
        '{driver: sgld, prior: {"*.rows": dirichlet_rows, "*": normal}}',
        "driver: got sgld; accepted: a driver for attention rows, such as svi: "
        "sgld does not sample blocks.0.attention.rows",
    ),
    "rows that no chain can draw": (
        '{driver: nuts, prior: {"*.rows": gamma_rows, "*": normal}}',
        "driver: got nuts; accepted: rows that count in full, kl_weight: 1 and kl_normalization: none, or there is no "
        "joint density to draw from: see the prior of blocks.0.attention.rows",
    ),
    "nothing to infer": (
        "{driver: svi, prior: fixed}",
        "driver: got svi; accepted: a model with at least one random site; all parameters are fixed or learned "
        "(ml trains them)",
    ),
}


def in_full(message):
    """A message with the names of all choices in the place of PRIORS, TASKS, ..."""
    for name, kind in KINDS.items():
        message = message.replace(f"{name.upper()}S", ", ".join(kind.classes()))
    return message


@pytest.mark.parametrize("name", WRONG_SPECS)
def test_a_wrong_spec(refused, toy, name):
    text, said = WRONG_SPECS[name]
    assert refused({**toy, **yaml.safe_load(text)}) == in_full(said)


def test_there_are_twenty_of_each_and_no_mistake_stands_twice():
    assert len(MALFORMED_INPUTS) >= 20
    assert len(WRONG_SPECS) >= 20
    for table in (MALFORMED_INPUTS, WRONG_SPECS):
        assert len({str(case[:-1]) for case in table.values()}) == len(table)
    assert {name.partition(":")[0] for name in MALFORMED_INPUTS} == {"IDX", "gzip", "npz", "CSV"}


def test_without_the_mistake_the_inputs_and_the_spec_are_good(pyroformer, write, toy, four_files, nowhere, tmp_path):
    folder = four_files(tmp_path / "data")
    for file, content in ((IMAGES, idx_bytes(PIXELS)), (LABELS, GZIP)):
        (folder / file).write_bytes(content)
    (tmp_path / "my.npz").write_bytes(npz())
    (tmp_path / "my.csv").write_bytes(b"a,y\n" + b"1,p\n2,q\n" * 10)
    tasks = [{"arrays": {"file": str(tmp_path / name)}} for name in ("my.npz", "my.csv")]
    tasks.append({"mnist": {"path": str(folder), "train": 40, "validation": 20, "shifts": []}})
    for number, task in enumerate([toy["task"], *tasks]):
        out = tmp_path / f"run-{number}"
        driver = {"ml": {"epochs": 1}}
        ended = pyroformer("run", write({**toy, "task": task, "driver": driver}), "--out", out, "--quiet")
        assert ended.code == 0, ended
        assert (out / "metrics.json").is_file()
