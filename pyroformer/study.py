"""Comparisons: several specs, several seeds, side by side."""

from __future__ import annotations

import os
import platform
import re
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from . import yamlfile
from .choices import SpecError
from .inference.driver import check_observations
from .inference.files import write_text
from .priors.globs import near_misses
from .reference import Chosen, check, choose, measured, with_floor
from .results import Comparison, Result
from .run import alone_in, check_folder, environment, finished
from .run_folder import (
    RUNS,
    SPEC,
    attention_of,
    chains_of,
    check_study_folder,
    history_of,
    marginals_of,
    metrics_of,
    predictions_of,
)
from .spec import KEYS as SPEC_KEYS
from .spec import Spec
from .tasks import TaskData

KEYS = ("title", "description", "seeds", "base", "methods", "reference", "baselines")
WATCH = "end with the parent"
REPORT, TABLE, VALUES, TRACEBACK = "report.html", "table.csv", "values.csv", "traceback.txt"
NETS = "nets"


@dataclass(frozen=True)
class Study:
    """Specs that differ in named ways.

    Args:
        title: What is compared.
        methods: By name, the parts of the spec that make the method; they replace those of ``base``.
        base: The parts that all methods share.
        seeds: How many seeds each method is run with: 0, 1, ...
        description: Why, in a few sentences.
        reference: What the predictions are measured against besides the labels: one of the methods, seed by seed, or
            the folder of a finished run on the same examples; default none.
        baselines: Methods that the report compares the others with, seed by seed; default none.
        changed: What was made another than the user wrote it, in words; default nothing.
    """

    title: str
    methods: Mapping[str, Mapping[str, Any]]
    base: Mapping[str, Any]
    seeds: int = 1
    description: str = ""
    reference: str | None = None
    baselines: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def spec(self, method: str, seed: int) -> Spec:
        """The spec of one cell.

        Raises:
            SpecError: It is not acceptable; the path starts with the method's place in the study.
        """
        content = {**self.base, **self.methods[method], "seed": seed}
        try:
            return Spec(**content)
        except SpecError as error:
            place = f"methods.{method}" if error.path.split(".")[0] in self.methods[method] else "base"
            raise SpecError(f"{place}.{error.path}", error.value, error.accepted) from None

    def cells(self) -> Iterator[tuple[str, int]]:
        """Every method with every seed, seed by seed."""
        return ((method, seed) for seed in range(self.seeds) for method in self.methods)


def builtin() -> dict[str, Path]:
    """The studies that come with the package, by name."""
    folder = files(__package__) / "studies"
    return {Path(str(f)).stem: Path(str(f)) for f in sorted(folder.iterdir(), key=str) if str(f).endswith(".yaml")}


def is_study(name: str) -> bool:
    """Whether this names a study: one that comes with the package, a YAML file with one, or neither, without a suffix.

    So that a misspelt name is told what there is.
    """
    path = Path(name)
    if name in builtin() or not path.exists():
        return not path.suffix
    return path.is_file() and "methods" in yamlfile.read(name)


def study_text(*names: str) -> str:
    """The YAML file of a study that comes with the package.

    Raises:
        SpecError: There is no such study.
    """
    known = builtin()
    if len(names) != 1 or names[0] not in known:
        asked = " ".join(names)
        accepted = f"a study among {', '.join(known)}{near_misses(asked, known)}"
        raise SpecError("show", asked or None, accepted)
    return known[names[0]].read_text(encoding="utf-8")


def read_study(
    name: str, seeds: int | None = None, assignments: tuple[str, ...] = (), reference: str | None = None
) -> Study:
    """A study that comes with the package, or that a YAML file holds.

    Args:
        name: Its name, or the path of a file.
        seeds: In the place of the study's own.
        assignments: ``path=value``, made in the base and, where a method has the same key, in the method.
        reference: In the place of the study's own.

    Raises:
        SpecError: There is no such study, or it is not acceptable.
    """
    known = builtin()
    if name not in known and not Path(name).is_file():
        accepted = f"the path of a YAML file, or one of {', '.join(known)}" + near_misses(name, known)
        raise SpecError("STUDY", name, accepted)
    content = yamlfile.read(known.get(name, Path(name)))
    for key in content:
        if key not in KEYS:
            raise SpecError(str(key), content[key], "the keys " + ", ".join(KEYS) + near_misses(str(key), KEYS))
    methods, base = content.get("methods"), content.get("base") or {}
    if not isinstance(base, dict):
        raise SpecError("base", base, "a mapping of parts of a spec")
    if not isinstance(methods, dict) or not methods:
        raise SpecError("methods", methods, "a mapping from names to parts of a spec")
    for method, parts in methods.items():
        if not isinstance(parts, dict | None):
            raise SpecError(f"methods.{method}", parts, f"a mapping with keys among {', '.join(SPEC_KEYS[:-1])}")
    for place, parts in (("base", base), *((f"methods.{method}", parts or {}) for method, parts in methods.items())):
        if "seed" in parts:
            raise SpecError(f"{place}.seed", parts["seed"], "no seed here: the study's `seeds` says how many there are")
    methods = {str(method): parts or {} for method, parts in methods.items()}
    count = content.get("seeds", 1) if seeds is None else seeds
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise SpecError("seeds", count, "a whole number of at least 1")
    reference = content.get("reference") if reference is None else reference
    if reference is not None:
        choose(reference, methods)
    baselines = content.get("baselines") or []
    if not isinstance(baselines, list):
        raise SpecError("baselines", baselines, f"a list of methods among {', '.join(methods)}")
    for baseline in baselines:
        if baseline not in methods:
            close = near_misses(str(baseline), methods)
            raise SpecError("baselines", baseline, f"methods among {', '.join(methods)}{close}")
    for assignment in assignments:
        key = yamlfile.split_path(assignment.partition("=")[0].strip() or "?")[0]
        if key not in SPEC_KEYS or key == "seed":
            raise SpecError("--set", assignment, f"path=value with a path below {', '.join(SPEC_KEYS[:-1])}")
        base = yamlfile.assign(base, assignment)
        methods = {m: yamlfile.assign(dict(p), assignment) if key in p else p for m, p in methods.items()}
    title, description = str(content.get("title", Path(name).stem)), str(content.get("description", ""))
    return Study(title, methods, base, count, description, reference, tuple(baselines))


def folder_of(out: Path, method: str, seed: int) -> Path:
    """Where a cell is kept."""
    plain = "".join(c if c.isalnum() or c in "_." else "-" for c in method)
    return out / RUNS / (re.sub("-+", "-", plain).strip(".-") or "method") / f"seed-{seed}"


def run_cell(spec: Spec, folder: Path, nets: Path | None, threads: int | None) -> str | None:
    """Run one cell in its folder, with the nets that cells share in another; returns why it failed, or None."""
    import torch

    from .inference import DataError, InferenceError, Interrupted, WriteError
    from .run import fit

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        fit(spec, out=folder, nets=nets)
    except Interrupted:  # that is no failure of the cell: the study is to end
        raise KeyboardInterrupt from None
    except (InferenceError, DataError, WriteError) as error:
        return " ".join([str(error), *getattr(error, "__notes__", [])])
    except Exception as error:  # a surprise in one cell must not cost the others their results
        if (folder / SPEC).is_file():
            write_text(folder / TRACEBACK, traceback.format_exc())
        return f"{type(error).__name__}: {error} ({folder / TRACEBACK})"
    return None


def end_with(parent: int, machine: str) -> None:
    """End this worker when its parent is killed: it must not go on working in folders that a new command wants."""
    if machine != platform.node():
        return

    child = os.getppid() == parent

    def alive() -> bool:
        if child and os.getppid() != parent:  # dead, even if its own parent has not noticed yet
            return False
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True

    def watch() -> None:
        while alive():
            time.sleep(0.5)
        os._exit(1)

    if not alive():  # killed while this worker was still importing
        os._exit(1)
    if not any(thread.name == WATCH for thread in threading.enumerate()):
        threading.Thread(target=watch, name=WATCH, daemon=True).start()


def compare(
    study: Study | str,
    *,
    out: str | Path,
    seeds: int | None = None,
    jobs: int | None = None,
    progress: bool = False,
    reference: str | Path | None = None,
) -> Comparison:
    """Run every cell of a study, and write its table and report.

    Args:
        study: A study, the name of one that comes with the package, or the path of a YAML file.
        out: Folder for the runs, ``table.csv``, ``values.csv`` and ``report.html``. Cells that are finished there are
            not run again, and those that were stopped go on from their last state.
        seeds: In the place of the study's own number.
        jobs: Processes, each with one thread, default one a processor. With 1 the cells run in this process.
        progress: Show a progress bar, default False.
        reference: A method, or the folder of a finished run, in the place of the study's own reference.

    Returns:
        What was found.

    Raises:
        SpecError: The study or one of its specs is not acceptable, or the folder holds something else or a damaged
            run; nothing has been run then.
    """
    study = read_study(study, seeds) if isinstance(study, str) else study
    out, named = Path(out), study.reference if reference is None else str(reference)
    check_study_folder(out)
    chosen = None if named is None else choose(named, study.methods)
    specs = {(method, seed): study.spec(method, seed) for method, seed in study.cells()}
    _check(study, specs, out, chosen)
    with alone_in(out):
        waiting = [cell for cell, spec in specs.items() if not finished(folder_of(out, *cell), spec)]
        # before anything runs: a cell of before that is damaged would cost the report
        kept = {cell: _result(*cell, folder_of(out, *cell)) for cell in specs if cell not in waiting}
        failures = _run(waiting, specs, out, jobs or os.cpu_count() or 1, len(specs), progress)
        kept |= {cell: _result(*cell, folder_of(out, *cell)) for cell in waiting if cell not in failures}
        results = [kept[cell] for cell in specs if cell in kept]
        unfinished = [(method, seed, why) for (method, seed), why in failures.items()]
        comparison = Comparison(study.title, study.description, results, unfinished, baselines=study.baselines)
        if chosen is not None:
            comparison = measured(comparison, chosen)
            own = [folder_of(out, r.method, r.seed) for r in comparison.of(chosen.name)]
            comparison = with_floor(comparison, chosen, chosen.folder or next(iter(own), None))
        write(comparison, out)
    return comparison


def _check(study: Study, specs: Mapping[tuple[str, int], Spec], out: Path, chosen: Chosen | None) -> None:
    """Refuse what could not run, before anything runs: one cell a method stands for its seeds."""
    folders: dict[Path, str] = {}
    tasks: dict[str, TaskData] = {}
    for method in study.methods:
        other = folders.setdefault(folder_of(out, method, 0), method)
        if other != method:
            raise SpecError(f"methods.{method}", method, f"a name that differs from {other!r} in letters or digits")
        spec = specs[method, 0]
        data = tasks[method] = spec.task.load()
        try:
            model = spec.build_model(data)
            spec.build_guide(model, data)
        except SpecError as error:
            raise SpecError(f"methods.{method}.{error.path}", error.value, error.accepted) from None
        check_observations(model, data.data)
    if chosen is not None:
        check(chosen, tasks)
    for cell, spec in specs.items():
        check_folder(folder_of(out, *cell), spec, tasks[cell[0]].source)


def _run(
    waiting: list[tuple[str, int]],
    specs: Mapping[tuple[str, int], Spec],
    out: Path,
    jobs: int,
    total: int,
    progress: bool,
) -> dict[tuple[str, int], str]:
    from joblib import Parallel, delayed
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    parent, machine = os.getpid(), platform.node()
    nets = out / NETS if any(spec.driver.starts_from is not None for spec in specs.values()) else None

    def one(cell: tuple[str, int]) -> tuple[tuple[str, int], str | None]:
        if os.getpid() != parent:
            end_with(parent, machine)
        return cell, run_cell(specs[cell], folder_of(out, *cell), nets, 1 if jobs > 1 else None)

    failures: dict[tuple[str, int], str] = {}
    jobs = min(jobs, max(len(waiting), 1))
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, TextColumn("{task.fields[text]}", markup=False), console=Console(stderr=True))
    with bar if progress else nullcontext(), warnings.catch_warnings():
        # a worker whose memory has grown is replaced between two cells, which loses nothing
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs", category=UserWarning)
        task = bar.add_task("cells", total=total, completed=total - len(waiting), text="")
        for (method, seed), why in Parallel(n_jobs=jobs, return_as="generator_unordered")(
            delayed(one)(c) for c in waiting
        ):
            if why is not None:
                failures[method, seed] = why
            bar.update(task, advance=1, text=f"{'failed' if why else 'done'}: {method}, seed {seed}")
    return failures


def _result(method: str, seed: int, folder: Path) -> Result:
    """What a finished cell left in its folder."""
    return Result(
        method,
        seed,
        yamlfile.read(folder / SPEC),
        metrics_of(folder),
        history_of(folder),
        predictions_of(folder),
        marginals_of(folder),
        attention_of(folder),
        chains_of(folder),
    )


def write(comparison: Comparison, out: Path) -> None:
    """Write a comparison's table, values and report into a folder."""
    from . import report

    report.write_csv(comparison, out / TABLE)
    report.write_long_csv(comparison, out / VALUES)
    report.write_html(comparison, out / REPORT, environment())
