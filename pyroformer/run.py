"""One run: from a spec to a posterior, its metrics, and a folder that holds both."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyro
import torch
from filelock import FileLock, Timeout
from rich.console import Console
from torch import Tensor, nn

from . import yamlfile
from .choices import SpecError, as_yaml, plain
from .diagnosis import diagnosis_of, write_diagnosis
from .evaluation import evaluate, k_hat, members
from .inference import Checkpoint, InferenceError, Interrupted, Library, Posterior, RunMonitor
from .inference.driver import check_observations
from .inference.files import plain as as_json
from .inference.files import remove_leftovers, write_json, write_tensors, write_text
from .inference.marginals import Marginal, marginals, write_marginals
from .inference.posterior import NUM_SAMPLES
from .models import BayesianModel
from .run_folder import (
    ARRAYS,
    ATTENTION,
    CHECKPOINT,
    ENVIRONMENT,
    HISTORY,
    LOCK,
    MARGINALS,
    METRICS,
    POSTERIOR,
    PREDICTIONS,
    SOURCE,
    SPEC,
    changed_since,
    content_of,
    history_of,
    is_trace,
    marginals_of,
    metrics_of,
    predictions_of,
    read_diagnosis,
    reading,
)
from .spec import Spec
from .tasks import Arrays, TaskData
from .viewer.data import has_attention
from .viewer.files import write_seen
from .viewer.view import seen_of

PATIENCE = 3.0
"""Seconds to wait for another process in a folder: one that is being killed needs a moment."""
SEEN = 6
"""Test examples whose attention a run keeps for the report."""


@dataclass(eq=False)
class Run:
    """A finished run.

    Args:
        spec: What was asked for.
        posterior: What was found.
        metrics: Measured on the task's sets: ``{"test": {"accuracy": ...}, ..., "fit": {...}}``.
        history: One record a validated epoch, or a draw.
        predictions: What was predicted for every set, by ``set.quantity``.
        marginals: Posterior and prior of every weight and hyperparameter, by name.
        folder: Where it is kept, or None.
        source: What its task said of the data.
        diagnosis: Of a driver with chains, the verdict on them and their table as plain data; else empty.
    """

    spec: Spec
    posterior: Posterior
    metrics: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)
    predictions: dict[str, Tensor] = field(default_factory=dict)
    marginals: dict[str, Marginal] = field(default_factory=dict)
    folder: Path | None = None
    source: dict[str, Any] = field(default_factory=dict)
    diagnosis: dict[str, Any] = field(default_factory=dict)


def environment() -> dict[str, Any]:
    """What the numbers may depend on besides the spec."""
    from . import __version__

    return {
        "pyroformer": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pyro": pyro.__version__,
        "machine": platform.machine(),
        "system": platform.system(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def fit(
    spec: Spec,
    *,
    out: str | Path | None = None,
    progress: bool | Console = False,
    nets: str | Path | None = None,
) -> Run:
    """Run a spec.

    Args:
        spec: What to do.
        out: Folder to keep the run in, or None (default) to keep it in memory. A run that was stopped there goes on
            from its last state, and gives what it would have given without the stop.
        progress: Show a progress bar, on a console of your own or on the terminal, default False.
        nets: Folder of trained nets that several runs start from: one that is there is not trained again. None
            (default) for none.

    Returns:
        The finished run.

    Raises:
        SpecError: The parts of the spec do not fit each other, the folder holds another run or one on other data, or
            another process works in it.
        WriteError: The disk is full, or the folder cannot be written to. What was kept stays.
        DataError: The data cannot be learnt from.
        InferenceError: A number became NaN or infinite. The folder then holds the last good posterior and no metrics.
        Interrupted: The interrupt key was pressed while chains ran. The folder then holds the posterior of the draws so
            far and no metrics, and the same run goes on to its full length. Without a folder the run ends with them.
    """
    folder = None if out is None else Path(out)
    data = spec.task.load()
    model = spec.build_model(data)
    guide = spec.build_guide(model, data)
    check_observations(model, data.data)
    console = (Console(stderr=True) if progress else None) if isinstance(progress, bool) else progress
    context = {"task": plain(spec.task), "model": plain(spec.model)}
    library = None if nets is None else Library(Path(nets), context)
    if folder is None:
        return _fit(spec, data, model, guide, RunMonitor(console=console, library=library), None)
    check_folder(folder, spec, data.source)
    with alone_in(folder):
        spec = prepare(folder, spec)
        write_json(folder / SOURCE, data.source)
        checkpoint = Checkpoint(folder / CHECKPOINT)
        run = _fit(spec, data, model, guide, RunMonitor(folder / HISTORY, console, checkpoint, library), folder)
        checkpoint.clear()
        return run


def _fit(spec: Spec, data: TaskData, model: BayesianModel, guide: Any, monitor: RunMonitor, folder: Path | None) -> Run:
    """Run the driver, measure what it found, and keep both in a prepared folder."""
    try:
        posterior = spec.driver.run(model, guide, data.data, spec.seed, monitor)
        if folder is not None and (stopped := posterior.info.get("interrupted")):
            raise Interrupted("after {draws} of {of} draws of each chain".format(**stopped), posterior)
    except InferenceError as error:
        if folder is not None and error.posterior is not None:
            error.posterior.save(folder / POSTERIOR)
            what = "the posterior of these draws" if isinstance(error, Interrupted) else "the last good state"
            error.add_note(f"{what} is in {folder / POSTERIOR}")
        raise
    if spec.calibration is not None and data.validation is not None and data.validation.y is not None:
        fitted = posterior.calibrate(spec.calibration, data.validation.x, data.validation.y, seed=spec.seed)
        posterior.info["calibration"] = dict(fitted.fitted)
        if fitted.plug_in is not None:
            posterior.info["calibration_plug_in"] = dict(fitted.plug_in)
    measured, predictions = evaluate(posterior, data, seed=spec.seed)
    measured["fit"] = {**posterior.info, **k_hat(posterior, data, seed=spec.seed)}
    if alone := members(posterior, data, seed=spec.seed):
        measured["fit"]["members_test"] = alone
    found = marginals(posterior, seed=spec.seed)
    if folder is not None:
        posterior.save(folder / POSTERIOR)  # before draws are looked at, which may take more memory than there is
    judged = diagnosis_of(posterior, spec, data)
    told = {} if judged is None else as_json(judged.to_dict())
    run = Run(spec, posterior, measured, monitor.history, predictions, found, folder, data.source, told)
    if folder is not None:
        write_tensors(folder / PREDICTIONS, predictions)
        if run.marginals:
            write_marginals(folder / MARGINALS, run.marginals)
        if has_attention(posterior):
            seen = seen_of(posterior, data, num_inputs=SEEN, num_samples=NUM_SAMPLES, seed=spec.seed)
            write_seen(seen, folder / ATTENTION)
        if judged is not None:
            write_diagnosis(judged, folder)
        write_json(folder / METRICS, measured)  # last: a folder with metrics is a finished run
    return run


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Work in a folder that no other process works in; what a killed one left half written is removed.

    Raises:
        SpecError: Another process works in the folder, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=PATIENCE)
        lock.acquire()
    except Timeout:
        raise SpecError("--out", str(folder), "a folder that no other process works in; one does now") from None
    except OSError as error:
        raise SpecError("--out", str(folder), f"a folder that can be written to ({error.strerror})") from None
    try:
        remove_leftovers(folder)
        yield
    finally:
        lock.release()


def check_folder(folder: Path, spec: Spec, source: Mapping[str, Any] | None = None) -> None:
    """Raise a `SpecError` when a folder holds a run of another spec, or something that is no run, or cannot hold it.

    Args:
        folder: Where a run is to be kept.
        spec: Of the run.
        source: What its task says of the data, where they are to be those that the folder's run learned from.
    """
    if isinstance(spec.task, Arrays) and not spec.task.plain:
        raise SpecError("task", "arrays with inputs or a likelihood of its own", "a task that its folder can hold")
    if folder.is_file():
        raise SpecError("--out", str(folder), "a folder; this is a file")
    there = {path.name for path in folder.iterdir() if not is_trace(path)} if folder.is_dir() else set()
    in_memory = isinstance(spec.task, Arrays) and spec.task.file is None
    if there == {ARRAYS} and in_memory and _same_arrays(folder, spec):
        return  # killed before its spec was written
    if there:
        if not (folder / SPEC).is_file():
            raise SpecError("--out", str(folder), "a new or empty folder, or one with a run; this holds something else")
        if found := difference(yamlfile.read(folder / SPEC), _stored(spec, folder)):
            raise SpecError("--out", str(folder), f"a new folder; this one holds a run of another spec ({found})")
        if not _same_arrays(folder, spec):
            raise SpecError("--out", str(folder), "a new folder; this one holds a run on other arrays")
        key = "sha256" if source and "sha256" in source else "files"  # the same text may be in another file
        if source is not None and (changed := changed_since(folder, source, key)):
            accepted = f"a new folder; this one holds a run on other data: {', '.join(changed)} changed since"
            raise SpecError("--out", str(folder), accepted)


def prepare(folder: Path, spec: Spec) -> Spec:
    """Make a run's folder and write its spec; returns the spec as it can be read from there.

    Raises:
        SpecError: The folder holds a run of another spec, or something that is no run, or cannot be written to.
    """
    check_folder(folder, spec)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / METRICS).unlink(missing_ok=True)
        if isinstance(spec.task, Arrays) and spec.task.file is None:
            spec = spec.model_copy(update={"task": spec.task.write(folder / ARRAYS)})
        write_text(folder / SPEC, yamlfile.dump(_stored(spec, folder)))
        write_json(folder / ENVIRONMENT, environment())
    except OSError as error:
        raise SpecError("--out", str(folder), f"a folder that can be written to ({error.strerror})") from None
    return spec


def difference(there: Any, here: Any, path: str = "") -> str:
    """The first place where two specs differ, as plain data, in words; empty when they say the same.

    The order of a map from globs counts: first match wins.
    """
    if isinstance(there, dict) and isinstance(here, dict):
        same_keys = list(there) == list(here) if path in ("prior", "guide") else there.keys() == here.keys()
        if same_keys or not path:
            places = {key: f"{path}.{key}" if path else str(key) for key in {**there, **here}}
            parts = (difference(there.get(key), here.get(key), place) for key, place in places.items())
            return next(filter(None, parts), "")
    elif there == here:
        return ""
    names = [", ".join(map(str, value)) if isinstance(value, dict) else as_yaml(value) for value in (there, here)]
    return f"{path}: {names[0]} there, {names[1]} here"


def _stored(spec: Spec, folder: Path) -> dict[str, Any]:
    """The spec as its folder holds it, where arrays of its own are named without the folder."""
    content = spec.to_dict()
    if isinstance(spec.task, Arrays) and spec.task.file in (None, str(folder / ARRAYS)):
        content["task"] = {"arrays": {"file": ARRAYS}}
    return content


def finished(folder: Path, spec: Spec) -> bool:
    """Whether a folder holds a finished run of this spec; a state that a kill at its very end left there is removed."""
    found = (
        (folder / METRICS).is_file()
        and (folder / SPEC).is_file()
        and not difference(yamlfile.read(folder / SPEC), _stored(spec, folder))
        and _same_arrays(folder, spec)
    )
    if found:
        Checkpoint(folder / CHECKPOINT).clear()
    return found


def _same_arrays(folder: Path, spec: Spec) -> bool:
    """Whether a folder holds the arrays of a spec, where they are in memory and its spec does not tell them apart."""
    return not (isinstance(spec.task, Arrays) and spec.task.file is None) or spec.task.same_as(folder / ARRAYS)


def load(folder: str | Path, *, net: nn.Module | None = None) -> Run:
    """Read a run from its folder.

    Args:
        folder: Where `fit` or ``pyroformer run`` kept it.
        net: A net of the run's structure, for runs whose model was a `torch.nn.Module` of the user's own.

    Raises:
        SpecError: There is no finished run in the folder, one of its files is damaged, the text that it learned from
            has changed since, or it needs ``net``.
    """
    folder = Path(folder)
    if not (folder / SPEC).is_file():
        raise SpecError(str(folder), "no spec.yaml", "the folder of a run")
    if not (folder / POSTERIOR / "posterior.json").is_file():
        raise SpecError(
            str(folder), "no posterior", "the folder of a finished run; this one was stopped before its end"
        )
    content = content_of(folder)
    if "module" in content["model"]:
        if net is None:
            raise SpecError("net", None, f"a net of the class {content['model']['module']}, as the run had")
        content["model"] = net
    spec = Spec(**content)
    data: TaskData = spec.task.load()
    if changed := changed_since(folder, data.source, "sha256"):
        accepted = f"the text that the run in {folder} learned from: its tokens to {', '.join(changed)} changed since"
        raise SpecError("task", ", ".join(data.source["files"]), accepted)
    model = spec.build_model(data)
    with reading(folder / POSTERIOR):
        posterior = Posterior.load(folder / POSTERIOR, model)
    # a run that was stopped by a number that is not finite has a posterior and no metrics
    metrics = metrics_of(folder) if (folder / METRICS).is_file() else {}
    predictions = predictions_of(folder) if (folder / PREDICTIONS).is_file() else {}
    return Run(
        spec,
        posterior,
        metrics,
        history_of(folder),
        predictions,
        marginals_of(folder),
        folder,
        data.source,
        read_diagnosis(folder),
    )
