"""Predictions for new files: the numbers of the posterior, and what is said of files that do not fit."""

import csv
import io

import numpy as np
import pytest
import torch

from pyroformer import Spec, fit, load
from pyroformer.tasks.idx import idx_bytes


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """A run on digits, kept in a folder."""
    folder = tmp_path_factory.mktemp("classes") / "run"
    net = {"transformer": {"width": 8, "heads": 2, "depth": 1}}
    task, driver = {"digits": {"train": 60, "validation": 20}}, {"svi": {"epochs": 1}}
    fit(Spec(task=task, model=net, guide={"mean_field": {"init_scale": 0.3}}, driver=driver), out=folder)
    return folder


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    """A run on a table with a header and classes in words; one column is constant."""
    folder = tmp_path_factory.mktemp("flowers")
    generator = np.random.default_rng(0)
    rows = [(*generator.normal(5, 2, 2).round(2), 1.0, "rose" if i % 2 else "aster") for i in range(40)]
    text = "\n".join(["long,wide,one,kind", *(",".join(map(str, row)) for row in rows)])
    (folder / "flowers.csv").write_text(text + "\n")
    net = {"transformer": {"width": 8, "heads": 2, "depth": 1}}
    task = {"arrays": {"file": str(folder / "flowers.csv")}}
    fit(Spec(task=task, model=net, driver={"svi": {"epochs": 1}}), out=folder / "run")
    return folder


@pytest.fixture(scope="module")
def curve(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curve") / "run"
    net = {"transformer": {"width": 8, "heads": 2, "depth": 1}}
    fit(Spec(task={"toy_regression": {"train": 20, "test": 10}}, model=net, driver={"svi": {"epochs": 1}}), out=folder)
    return folder


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_classes_as_csv(classes, pyroformer, tmp_path):
    run = load(classes)
    x = run.spec.task.load().test.x[:7]
    np.savez(tmp_path / "new.npz", x=x.numpy())
    done = pyroformer("predict", classes, "--input", tmp_path / "new.npz", "--out", tmp_path / "deep" / "out.csv")
    assert done.code == 0 and done.err == ""
    assert done.out == f"{tmp_path / 'deep' / 'out.csv'}: 7 predictions from 32 draws\n"
    rows, expected = table(tmp_path / "deep" / "out.csv"), run.posterior.predict(x, seed=run.spec.seed)
    assert [int(row["example"]) for row in rows] == list(range(7))
    assert [int(row["label"]) for row in rows] == expected.labels.tolist()
    for name in ("entropy", "expected_entropy", "mutual_information"):
        assert [float(row[name]) for row in rows] == pytest.approx(getattr(expected, name).tolist(), abs=1e-5)
    probabilities = [[float(row[f"p_{c}"]) for c in range(10)] for row in rows]
    assert np.allclose(probabilities, expected.probabilities, atol=1e-5)
    assert [float(row["probability"]) for row in rows] == pytest.approx(np.max(probabilities, 1).tolist(), abs=1e-6)
    assert float(rows[0]["mutual_information"]) > 1e-4


def test_classes_as_npz_with_other_draws(classes, pyroformer, tmp_path):
    run = load(classes)
    x = run.spec.task.load().test.x[:3].unsqueeze(1)  # a channel axis is accepted
    np.save(tmp_path / "new.npy", x.numpy())
    arguments = ("--input", tmp_path / "new.npy", "--out", tmp_path / "out.npz", "--samples", 4, "--seed", 9)
    assert pyroformer("predict", classes, *arguments).out.endswith(": 3 predictions from 4 draws\n")
    with np.load(tmp_path / "out.npz") as found:
        expected = run.posterior.predict(x.squeeze(1), 4, seed=9)
        assert np.allclose(found["probabilities"], expected.probabilities)
        assert not np.allclose(found["probabilities"], run.posterior.predict(x.squeeze(1), 4, seed=8).probabilities)
        keys = {"label", "probability", "entropy", "expected_entropy", "mutual_information", "probabilities"}
        assert set(found.files) == keys


def test_idx_images_become_0_to_1(classes, pyroformer, tmp_path):
    images = (torch.rand(4, 8, 8) * 255).to(torch.uint8).numpy()
    (tmp_path / "images.idx").write_bytes(idx_bytes(images))
    np.savez(tmp_path / "same.npz", images.astype(np.float32) / 255)  # the only array, whatever its name
    for name in ("images.idx", "same.npz"):
        pyroformer("predict", classes, "--input", tmp_path / name, "--out", tmp_path / f"{name}.csv")
    assert table(tmp_path / "images.idx.csv") == table(tmp_path / "same.npz.csv")


def test_a_table_by_its_columns(flowers, pyroformer, tmp_path):
    """Any order, other columns beside them, and the scaling of the training rows; words name the classes."""
    run = load(flowers / "run")
    source = run.spec.task.load().source
    mean, sd = (np.array(source["standardized"][key]) for key in ("mean", "sd"))
    raw = np.array([[4.0, 5.5, 1.0], [7.25, 1.0, 1.0]])
    (tmp_path / "new.csv").write_text("note,wide,one,long\nseen,5.5,1,4\nnot seen,1,1,7.25\n")
    pyroformer("predict", flowers / "run", "--input", tmp_path / "new.csv", "--out", tmp_path / "out.csv")
    expected = run.posterior.predict(torch.tensor((raw - mean) / sd).float(), seed=run.spec.seed)
    rows = table(tmp_path / "out.csv")
    assert [float(row["p_rose"]) for row in rows] == pytest.approx(expected.probabilities[:, 1].tolist(), abs=1e-5)
    assert [row["label"] for row in rows] == [["aster", "rose"][label] for label in expected.labels]
    (tmp_path / "bare.csv").write_text("4,5.5,1\n7.25,1,1\n")  # no header: the columns in their order
    pyroformer("predict", flowers / "run", "--input", tmp_path / "bare.csv", "--out", tmp_path / "bare-out.csv")
    assert table(tmp_path / "bare-out.csv") == rows


def test_a_table_that_has_grown_changes_nothing(flowers, pyroformer, tmp_path):
    """The scaling is that of the rows that were trained on, as the run recorded it, in double precision."""
    folder = tmp_path / "grown"
    generator = np.random.default_rng(1)
    rows = [f"{1e6 + generator.normal():.4f},{generator.normal():.3f},{i % 2}" for i in range(40)]
    file = folder.with_suffix(".csv")
    file.write_text("\n".join(["big,small,kind", *rows]) + "\n")
    net = {"transformer": {"width": 8, "heads": 2, "depth": 1}}
    run = fit(Spec(task={"arrays": {"file": str(file)}}, model=net, driver={"svi": {"epochs": 1}}), out=folder)
    data = run.spec.task.load()
    mean, sd = (torch.tensor(data.source["standardized"][key], dtype=torch.float64) for key in ("mean", "sd"))
    raw = torch.tensor([[float(cell) for cell in row.split(",")[:2]] for row in rows[:5]])
    expected = run.posterior.predict(((raw.double() - mean) / sd).float(), seed=run.spec.seed).probabilities
    (tmp_path / "new.csv").write_text("\n".join(["big,small,kind", *rows[:5]]) + "\n")
    for name in ("before", "after"):
        pyroformer("predict", folder, "--input", tmp_path / "new.csv", "--out", tmp_path / f"{name}.npz")
        with np.load(tmp_path / f"{name}.npz") as found:
            assert np.allclose(found["probabilities"], expected, atol=1e-6)
        with file.open("a") as more:
            more.write("\n".join(f"{2e6 + i},{9 * i},{i % 2}" for i in range(60)) + "\n")


def test_whole_numbers_stand_for_real_ones(curve, pyroformer, tmp_path):
    np.save(tmp_path / "whole.npy", np.array([[1], [2]]))
    np.save(tmp_path / "real.npy", np.array([[1.0], [2.0]]))
    for name in ("whole", "real"):
        pyroformer("predict", curve, "--input", tmp_path / f"{name}.npy", "--out", tmp_path / f"{name}.csv")
    assert table(tmp_path / "whole.csv") == table(tmp_path / "real.csv")


def test_real_numbers(curve, pyroformer, tmp_path):
    run, x = load(curve), torch.linspace(-2, 2, 5).unsqueeze(1)
    np.save(tmp_path / "x.npy", x.numpy())
    pyroformer("predict", curve, "--input", tmp_path / "x.npy", "--out", tmp_path / "out.csv")
    rows, expected = table(tmp_path / "out.csv"), run.posterior.predict(x, seed=run.spec.seed)
    for name, values in (("mean", expected.mean), ("sd", expected.sd), ("lower_90", expected.quantile(0.05))):
        assert [float(row[name]) for row in rows] == pytest.approx(values.flatten().tolist(), abs=1e-4)
    assert list(rows[0]) == ["example", "mean", "sd", "model_sd", "data_sd", "lower_90", "upper_90"]


def test_one_row_a_token():
    from pyroformer.inference import ClassPrediction
    from pyroformer.predict import as_arrays, as_csv

    p = torch.tensor([[[0.9, 0.1], [0.2, 0.8]]], dtype=torch.float64)
    lines = as_csv(as_arrays(ClassPrediction(p, torch.zeros(1, 2, dtype=torch.float64), 1))).splitlines()
    assert lines[0].startswith("example,token,label,probability,entropy")
    assert [line.split(",")[:3] for line in lines[1:]] == [["0", "0", "0"], ["0", "1", "1"]]
    assert [line.split(",")[-2:] for line in lines[1:]] == [["0.9", "0.1"], ["0.2", "0.8"]]


EXPECTED = "expected a .npz file with the array x, a .npy file, a .csv file with the task's columns, or an IDX file"


def npy_with(shape):
    """A ``.npy`` file of 64 numbers whose header says something else."""
    file = io.BytesIO()
    np.save(file, np.zeros((1, 8, 8)))
    return file.getvalue().replace(b"'shape': (1, 8, 8)", shape.encode().ljust(18)).replace(b" \n", b"\n", 1)


DIGITS = {
    "no file": (None, "FILE: no such file: " + EXPECTED),
    "an empty file": ("new.npz", b"", f"FILE is no .npz file, or only a part of one: {EXPECTED}"),
    "a page of the web": (
        "new.idx",
        b"<html>",
        "FILE starts with 3c 68 74 6d: expected an IDX file (00 00) or gzip (1f 8b)",
    ),
    "a table": ("new.csv", b"a,b\n1,2\n", "FILE: the task was no .csv file: expected a .npz or .npy file"),
    "another shape": (
        "new.npy",
        np.zeros((2, 28, 28), np.float32),
        "FILE holds inputs of shape (2, 28, 28): expected (N, 8, 8), at least one",
    ),
    "no example": (
        "new.npy",
        np.zeros((0, 8, 8), np.float32),
        "FILE holds inputs of shape (0, 8, 8): expected (N, 8, 8), at least one",
    ),
    "a NaN": (
        "new.npy",
        np.full((1, 8, 8), np.nan, np.float32),
        "x: example 0 holds nan (1 of 1 examples do): expected finite numbers",
    ),
    "bytes": (
        "new.npy",
        np.full((1, 8, 8), 255, np.uint8),
        "FILE holds pixels up to 255: expected about 0 to 1, as in training (bytes: divide by 255)",
    ),
    "a header that lies": (
        "new.npy",
        npy_with("'shape': (20000000, 80, 800)"),
        "FILE: Unable to allocate 9.31 TiB for an array with shape (1280000000000,) and data type float64: " + EXPECTED,
    ),
    "words": ("new.npy", np.array([["a"]]), "x holds <U1: expected numbers"),
    "a pickle": (
        "new.npy",
        np.array([{}], object),
        "FILE: Object arrays cannot be loaded when allow_pickle=False: " + EXPECTED,
    ),
}


@pytest.mark.parametrize("name", DIGITS)
def test_inputs_that_do_not_fit(classes, pyroformer, tmp_path, name):
    *file, said = DIGITS[name]
    path = tmp_path / (file[0] or "none.npz")
    if file[0] and isinstance(file[1], bytes):
        path.write_bytes(file[1])
    elif file[0]:
        np.save(path, file[1], allow_pickle=True)
    out = tmp_path / "out.csv"
    assert pyroformer("predict", classes, "--input", path, "--out", out).message.replace(str(path), "FILE") == said
    assert not out.exists()


def test_tables_that_do_not_fit(flowers, pyroformer, tmp_path):
    path = tmp_path / "new.csv"
    for text, said in (
        ("long,one\n1,2\n", "FILE has no column wide: expected the columns long, wide, one"),
        ("1,2\n", "FILE has 2 columns and no header: expected 3"),
        ("long,wide,one\n1,?,1\n", "FILE: line 2, column 2 (wide) is missing ('?'): expected a value in every cell"),
    ):
        path.write_text(text)
        message = pyroformer("predict", flowers / "run", "--input", path, "--out", tmp_path / "out.csv").message
        assert message.replace(str(path), "FILE") == said


def test_outputs_that_are_refused(classes, pyroformer, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((1, 8, 8), np.float32))
    source = ("--input", tmp_path / "x.npy")
    message = pyroformer("predict", classes, *source, "--out", tmp_path / "out.txt").message
    assert message == f"--out: got {tmp_path / 'out.txt'}; accepted: a file that ends in .csv or .npz"
    np.savez(tmp_path / "x.npz", np.zeros((1, 8, 8), np.float32))
    message = pyroformer("predict", classes, "--input", tmp_path / "x.npz", "--out", tmp_path / "x.npz").message
    assert message == f"--out: got {tmp_path / 'x.npz'}; accepted: another file than --input"
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "folder.csv" / "precious").touch()
    message = pyroformer("predict", classes, *source, "--out", tmp_path / "folder.csv").message
    assert message == f"--out: got {tmp_path / 'folder.csv'}; accepted: a file; this is a folder"
    assert (tmp_path / "folder.csv" / "precious").exists()
    below = pyroformer("predict", classes, *source, "--out", tmp_path / "x.npy" / "out.csv")
    assert below.code == 1 and "could not be written" in below.err and "Traceback" not in below.err
    message = pyroformer("predict", tmp_path, *source, "--out", tmp_path / "out.csv").message
    assert message == f"{tmp_path}: got no spec.yaml; accepted: the folder of a run"
