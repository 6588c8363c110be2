"""The diagnosis of a run's chains, in its folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from .choices import SpecError
from .inference import Posterior
from .inference.diagnostics import Diagnosis, write_netcdf
from .inference.diagnostics import diagnose as diagnosed
from .inference.diagnostics.chunks import FEWEST
from .inference.diagnostics.datatree import missing
from .inference.diagnostics.passes import has_chains
from .inference.files import write_json
from .models.likelihoods import IGNORED
from .priors import choice_name
from .run_folder import CHAINS, DIAGNOSTICS
from .seen_chains import write_chains

if TYPE_CHECKING:
    from .run import Run
    from .spec import Spec
    from .tasks import TaskData


def diagnosis_of(posterior: Posterior, spec: Spec, data: TaskData, *, weights: bool = False) -> Diagnosis | None:
    """The diagnosis of a posterior of chains, on the first validation or test examples; None of another posterior.

    Args:
        posterior: What a driver found.
        spec: With the driver's settings.
        data: The task's data.
        weights: Whether every site has its lines in the table too, default False.
    """
    if not has_chains(posterior):
        return None
    probe = data.test if data.validation is None else data.validation
    y = data.data.y
    kernel = getattr(spec.driver, "kernel", None)
    observed = int((y != IGNORED).sum()) if data.outputs.per_token else len(y)
    assert probe.y is not None
    return diagnosed(
        posterior,
        probe.x,
        probe.y,
        target_accept=getattr(kernel, "target_accept", None),
        max_tree_depth=getattr(kernel, "max_tree_depth", None),
        energy_variance=getattr(kernel, "energy_variance", None),
        num_data=observed,
        weights=weights,
        seed=spec.seed,
    )


def diagnose(run: Run, *, weights: bool = False, netcdf: str | Path | None = None) -> Diagnosis:
    """Judge the chains of a run: how far they agree, how they moved, and whether they have learnt anything.

    Args:
        run: From `fit` or `load`, of a driver with chains. A run with a folder gets its ``diagnostics.json`` anew.
        weights: Whether every site has its lines in the table too, default False.
        netcdf: A file ``.nc`` to write draws, statistics and log-likelihoods to, for ArviZ; default None.

    Returns:
        Verdict, table and quantities; `Diagnosis.verdict` says in words what to try next.

    Raises:
        SpecError: The run has no chains, or the file cannot be written or needs the extra ``diag``.
        WriteError: The disk is full.
    """
    from .run import alone_in, environment

    target = None if netcdf is None else Path(netcdf)
    _check(run, target)
    data = run.spec.task.load()
    found = diagnosis_of(run.posterior, run.spec, data, weights=weights)
    assert found is not None
    if run.folder is not None:
        with alone_in(run.folder):
            write_diagnosis(found, run.folder)
    if target is not None:
        probe = data.test if data.validation is None else data.validation
        assert probe.y is not None
        told = {"spec": run.spec.to_dict(), "seed": run.spec.seed, **environment()}
        told["inference_library_version"] = told.pop("pyroformer")
        write_netcdf(run.posterior, target, data.data, probe=(probe.x, probe.y), attributes=told, seed=run.spec.seed)
    return found


def _check(run: Run, target: Path | None) -> None:
    """Refuse a run without chains and a file that cannot be written, before any work is done."""
    if not has_chains(run.posterior):
        driver = choice_name(type(run.spec.driver))
        accepted = f"a run of a driver with Markov chains, such as nuts, of at least {FEWEST} draws each"
        raise SpecError("DIR", f"a run of {driver}", accepted)
    if target is None:
        return
    if target.is_dir() or target.suffix.lower() != ".nc":
        raise SpecError("--netcdf", str(target), "a file that ends in .nc")
    parent = next(folder for folder in target.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise SpecError("--netcdf", str(target), f"a file in a folder; {parent} cannot be written to, or is none")
    if reason := missing():
        raise SpecError("--netcdf", str(target), reason)


def write_diagnosis(found: Diagnosis, folder: Path) -> None:
    """Write ``diagnostics.json``, and what the report draws of the chains."""
    write_chains(found, folder / CHAINS)
    write_json(folder / DIAGNOSTICS, found.to_dict())
