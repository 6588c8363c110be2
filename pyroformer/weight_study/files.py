"""A weight study from its YAML file to the files that tell what was found."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from ..inference import InferenceError
from ..inference.files import write_json, write_text
from ..run import alone_in
from ..run_folder import check_study_folder
from ..study import Study, compare
from .nets import read_nets, read_weight_study
from .page import render
from .prior_map import prior_yaml
from .study import WeightStudy, study_of

PAGE, NUMBERS, TABLE, PRIOR = "weights.html", "weights.json", "weights.csv", "prior.yaml"


def study_weights(
    study: Study | str,
    *,
    out: str | Path,
    seeds: int | None = None,
    jobs: int | None = None,
    change: bool = False,
    progress: bool = False,
) -> WeightStudy:
    """Train nets without a prior from several seeds, and tell what their weights are like.

    Args:
        study: A study of one method, the name of one that comes with the package, or the path of a study's or a spec's
            YAML file; see `read_weight_study`.
        out: Folder for the runs and for what is found: ``weights.csv``, ``weights.json``, ``weights.html`` and, unless
            changes are looked at, ``prior.yaml``. Nets that are finished there are not trained again, and those that
            were stopped go on.
        seeds: In the place of the study's own number.
        jobs: Processes, default one a processor.
        change: Look at the weights less their start, default False.
        progress: Show a progress bar, default False.

    Raises:
        SpecError: The study is not acceptable, or the folder holds something else; nothing has been run then.
        InferenceError: A net could not be trained; what was kept stays.
    """
    out = Path(out)
    check_study_folder(out)
    found = read_weight_study(study, seeds) if isinstance(study, str) else study
    trained = compare(found, out=out, jobs=jobs, progress=progress)
    if trained.failures:
        _, seed, why = trained.failures[0]
        raise InferenceError(f"{len(trained.failures)} of {found.seeds} nets were not trained; seed {seed}: {why}")
    spec = {key: value for key, value in trained.of(next(iter(found.methods)))[0].spec.items() if key != "seed"}
    result = study_of(read_nets(found, out), change=change, title=found.title, spec=spec)
    write_study(result, out)
    return result


def write_study(found: WeightStudy, folder: str | Path) -> None:
    """Write the table, the numbers, the page and, of weights, the prior into a folder; those there are replaced."""
    folder = Path(folder)
    with alone_in(folder):
        write_text(folder / TABLE, table(found))
        write_json(folder / NUMBERS, found.to_dict())
        if found.change:
            (folder / PRIOR).unlink(missing_ok=True)  # one of weights would seem to belong to these numbers
        else:
            write_text(folder / PRIOR, prior_yaml(found))
        write_text(folder / PAGE, render(found))


def table(found: WeightStudy) -> str:
    """One line a group, as the text of a CSV file."""
    lines = [_line(group.to_dict()) for group in found.groups]
    keys = list(dict.fromkeys(key for line in lines for key in line))
    file = io.StringIO()
    writer = csv.DictWriter(file, keys, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def _line(group: dict[str, Any]) -> dict[str, Any]:
    line = {key: value for key, value in group.items() if key not in ("parameters", "fits", "correlations")}
    for fit in group["fits"]:
        line |= {f"{fit['family']}.{key}": fit[key] for key in ("held_out", "behind", "error")}
        (settings,) = fit["prior"].values()
        line |= {f"{fit['family']}.{k}": v for k, v in settings.items() if isinstance(v, float)}
    for name, found in group["correlations"].items():
        line |= {f"{name}.{key}": value for key, value in (found or {}).items()}
    return line
