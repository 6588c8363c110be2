"""Predictions for new inputs, written to a file."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from .choices import SpecError, check_file_to_write
from .evaluation import LEVEL
from .inference import ClassPrediction, Decomposition, RealPrediction, decompose
from .inference.files import replacing, write_text
from .inference.posterior import NUM_SAMPLES
from .inference.prediction import Prediction
from .priors import SettingError
from .run import Run
from .run_folder import source_of
from .tasks.inputs import read_inputs

FORMATS = (".csv", ".npz")


def predict_file(
    run: Run,
    source: str | Path,
    target: str | Path,
    *,
    num_samples: int = NUM_SAMPLES,
    seed: int | None = None,
    rows: str = "sample",
    parts: bool = False,
) -> Prediction:
    """Predict the inputs of a file with a finished run, and write what is predicted to another.

    A ``.csv`` file has one row an example (or a token), a ``.npz`` file one array a quantity. Of classes they hold the
    most probable label, its probability, the entropy in nats with its parts (``expected_entropy`` of the data,
    ``mutual_information`` of the model), and all probabilities; of real numbers the mean, the standard deviation with
    its parts, and the central 90 % interval.

    Args:
        run: From `load` or `fit`.
        source: See `tasks.inputs.read_inputs`.
        target: The file to write, whole or not at all: ``.csv`` or ``.npz``.
        num_samples: Draws from the posterior, default 32.
        seed: Of the draws, default the run's.
        rows: ``sample`` (default), or ``mean`` for the plug-in value of random attention rows; see `PlugInRows`.
        parts: Whether the columns ``data``, ``rows`` and ``weights`` are added, the parts of the entropy in nats or of
            the variance, from draws of their own; see `decompose`. Default False.

    Returns:
        The prediction.

    Raises:
        SpecError: The target has another ending, or is the source; the run's folder is damaged; or ``rows`` is unknown,
            or asks for plug-in rows of a run without random rows.
        DataError: The source cannot be read, or does not fit the run's task.
        WriteError: The target cannot be written.
    """
    source, target = Path(source), Path(target)
    check_file_to_write(target, FORMATS)
    if target.resolve() == source.resolve():
        raise SpecError("--out", str(target), "another file than --input")
    try:
        with run.posterior.rows_as(rows):
            pass
    except SettingError as error:
        raise SpecError("--rows", error.value, error.expected) from None
    data = run.spec.task.load()
    # as it was when the run learned: a table may have grown since
    known = run.source if run.folder is None else source_of(run.folder)
    x = read_inputs(source, data, known)
    seed = run.spec.seed if seed is None else seed
    prediction = run.posterior.predict(x, num_samples, seed=seed, rows=rows)  # type: ignore[arg-type]
    quantities = as_arrays(prediction, decompose(run.posterior, x, seed=seed) if parts else None)
    classes = known.get("classes")
    if target.suffix.lower() == ".npz":
        with replacing(target) as new, new.open("wb") as file:
            np.savez_compressed(file, **quantities)  # type: ignore[arg-type]
    else:
        write_text(target, as_csv(quantities, classes))
    return prediction


def as_arrays(prediction: Prediction, decomposition: Decomposition | None = None) -> dict[str, np.ndarray]:
    """The quantities of a prediction by name, ``[N, ...]``, with the parts of its uncertainty if they are given."""
    parts = {} if decomposition is None else {name: part.numpy() for name, part in decomposition.parts.items()}
    if isinstance(prediction, ClassPrediction):
        return {
            "label": prediction.labels.numpy(),
            "probability": prediction.probabilities.amax(-1).numpy(),
            "entropy": prediction.entropy.numpy(),
            "expected_entropy": prediction.expected_entropy.numpy(),
            "mutual_information": prediction.mutual_information.numpy(),
            **parts,
            "probabilities": prediction.probabilities.numpy(),
        }
    assert isinstance(prediction, RealPrediction)
    tail = (1 - LEVEL) / 2
    return {
        "mean": prediction.mean.numpy(),
        "sd": prediction.sd.numpy(),
        "model_sd": prediction.model_variance.sqrt().numpy(),
        "data_sd": prediction.data_variance.sqrt().numpy(),
        f"lower_{100 * LEVEL:.0f}": prediction.quantile(tail).numpy(),
        f"upper_{100 * LEVEL:.0f}": prediction.quantile(1 - tail).numpy(),
        **parts,
    }


def as_csv(quantities: dict[str, np.ndarray], classes: list[str] | None = None) -> str:
    """Quantities as a table: an index, then one column a number.

    Args:
        quantities: Arrays ``[N, ...]`` as `as_arrays` gives them.
        classes: Names of the classes, in the place of their numbers.
    """
    lead = next(iter(quantities.values())).shape
    lead = lead if "label" in quantities else lead[:1]
    index = np.indices(lead).reshape(len(lead), -1).T
    columns: dict[str, list] = {name: list(index[:, i]) for i, name in enumerate(("example", "token")[: len(lead)])}
    for name, values in quantities.items():
        flat = values.reshape(len(index), -1)
        if name == "label":
            columns[name] = [classes[label] if classes else label for label in flat[:, 0]]
        elif name == "probabilities":
            columns |= {f"p_{classes[c] if classes else c}": _short(flat[:, c]) for c in range(flat.shape[1])}
        else:
            many = flat.shape[1] > 1
            columns |= {f"{name}_{c + 1}" if many else name: _short(flat[:, c]) for c in range(flat.shape[1])}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def _short(values: np.ndarray) -> list[str]:
    return [f"{value:.6g}" for value in values]
