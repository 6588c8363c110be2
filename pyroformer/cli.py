"""The command line."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(
    name="pyroformer",
    help="Bayesian transformers in Pyro: name a task, a model, a prior, a guide and a driver; get a posterior.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

INTERRUPTED = 130
"""The exit code after the interrupt key."""

Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change a setting: prior.normal.scale=0.5, or prior=@file.yaml"),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]


@app.command()
def run(
    spec: Annotated[
        str,
        typer.Argument(
            metavar="SPEC",
            help="YAML file: task, model, prior, guide, driver, calibration, seed; or a study, which is compared.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the run.")],
    assignments: Assignments = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads, default all processors.")] = None,
    quiet: Quiet = False,
) -> None:
    """Run one specification and keep the posterior, its metrics and its history in a folder."""
    import torch

    from .choices import SpecError
    from .run import check_folder, finished, fit
    from .run import load as load_run
    from .spec import Spec
    from .study import is_study

    if is_study(spec):
        if threads is not None:
            raise SpecError("--threads", threads, "nothing: a study's runs have one thread each")
        return compare(spec, out, assignments=assignments, quiet=quiet)
    if threads is not None:
        torch.set_num_threads(threads)
    wanted = Spec.from_file(spec, assignments or ())
    if finished(out, wanted):
        check_folder(out, wanted, wanted.task.load().source)
        result = load_run(out)
        print(f"{out} holds this run, finished; nothing to do", file=sys.stderr)
    else:
        result = fit(wanted, out=out, progress=not quiet)
    Console().print(metrics_table(result.metrics))
    if result.diagnosis:
        print(f"chains: {result.diagnosis['verdict']['summary']}")
    print(f"run: {out}")


@app.command()
def compare(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="A study's name (pyroformer list studies) or YAML file.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for runs, tables and the report.")],
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds a method, default the study's.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes, default one a processor.")] = None,
    reference: Annotated[
        str | None, typer.Option(metavar="METHOD|RUN", help="A method or a finished run to measure the others against.")
    ] = None,
    assignments: Assignments = None,
    quiet: Quiet = False,
) -> None:
    """Run several specifications with several seeds, print their table and write a report."""
    from . import report
    from .study import REPORT, read_study
    from .study import compare as run_study

    chosen = read_study(study, seeds, tuple(assignments or ()), reference)
    found = run_study(chosen, out=out, jobs=jobs, progress=not quiet)
    Console().print(report.rich_table(found))
    print(f"report: {out / REPORT}")
    if found.failures:
        raise typer.Exit(1)


@app.command()
def predict(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    source: Annotated[Path, typer.Option("--input", help="Inputs: .npz, .npy, .csv with the task's columns, or IDX.")],
    out: Annotated[Path, typer.Option(help="File to write, .csv or .npz.")],
    samples: Annotated[int, typer.Option(min=1, help="Draws from the posterior.")] = 32,
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="Of the draws, default the run's.")] = None,
    rows: Annotated[
        str, typer.Option(help="Random attention rows: sample, or mean: the plug-in row, Dirichlet mean or softmax.")
    ] = "sample",
    parts: Annotated[bool, typer.Option("--parts", help="Add what data, rows and weights are unsure of.")] = False,
) -> None:
    """Predict new inputs: probabilities, entropy and mutual information, or means and intervals."""
    from .predict import predict_file
    from .run import load as load_run

    found = predict_file(load_run(folder), source, out, num_samples=samples, seed=seed, rows=rows, parts=parts)
    count = len(found.probabilities if hasattr(found, "probabilities") else found.mean)
    print(
        f"{out}: {count} prediction{'s' if count > 1 else ''} from {found.num_samples} draw"
        f"{'s' if found.num_samples > 1 else ''}"
    )


@app.command()
def generate(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a finished run of the task text or reversal.")
    ],
    prompt: Annotated[
        str | None, typer.Option(help="Text to go on from, default the start of a line or text; or a source.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Characters or words to draw, default 200; as many as the source has.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, help="Below 1 prefers probable tokens; 0 takes the best.")] = 1.0,
    samples: Annotated[int, typer.Option(min=1, help="Draws from the posterior.")] = 16,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the draws and the tokens.")] = 0,
    by: Annotated[str, typer.Option(help="What colours tell: entropy or mutual_information.")] = "entropy",
    table: Annotated[bool, typer.Option("--table", help="One line a token in the place of the text.")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file to write, default none.")] = None,
) -> None:
    """Write text, or the target of a source, from the posterior predictive, and tell how sure it was of each token."""
    from .choices import SpecError, check_file_to_write
    from .generation import MEASURES, write_generated
    from .generation import generate as generated
    from .run import load as load_run

    if by not in MEASURES:
        raise SpecError("--by", by, " or ".join(MEASURES))
    if out is not None:
        check_file_to_write(out, (".json",))
    found = generated(
        load_run(folder), prompt, num_tokens=tokens, num_samples=samples, temperature=temperature, seed=seed
    )
    if table:
        print(found.table())
    else:
        Console().print(found.colored(by), soft_wrap=True)
    print(f"\n{found.summary}")
    if out is not None:
        write_generated(found, out)
        print(f"tokens: {out}")


@app.command()
def attention(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    out: Annotated[Path, typer.Option(help="Page to write, .html.")],
    inputs: Annotated[int, typer.Option(min=1, help="Test examples, at most.")] = 12,
    samples: Annotated[int, typer.Option(min=1, help="Draws from the posterior.")] = 32,
) -> None:
    """Write a page to look at attention, at what it is unsure of, and at what is predicted from it."""
    from .run import load as load_run
    from .viewer import write_attention

    seen = write_attention(load_run(folder), out, num_inputs=inputs, num_samples=samples)
    many = "s" if len(seen) > 1 else ""
    print(f"{out}: {len(seen)} example{many}, {len(seen.layers)} layer{'s' if len(seen.layers) > 1 else ''}")


@app.command()
def diagnose(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a finished run of a driver with chains.")],
    weights: Annotated[bool, typer.Option("--weights", help="Tell of every site too; weights are not judged.")] = False,
    netcdf: Annotated[Path | None, typer.Option(help="File to write for ArviZ, .nc, default none.")] = None,
) -> None:
    """Judge the chains of a run: whether they agree, how they moved, what they learnt, and what to try next."""
    from .diagnosis import diagnose as diagnosed
    from .diagnosis_view import DiagnosisView
    from .help.terminal import tell
    from .run import load as load_run
    from .run_folder import DIAGNOSTICS

    tell(DiagnosisView(diagnosed(load_run(folder), weights=weights, netcdf=netcdf)))
    print(f"\nnumbers: {folder / DIAGNOSTICS}")
    if netcdf is not None:
        print(f"draws: {netcdf}")


@app.command()
def explain(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="YAML file, as for run.")],
    assignments: Assignments = None,
) -> None:
    """Tell what a specification means, before any training."""
    from .help.explanation import explain as explained
    from .help.terminal import tell
    from .spec import Spec

    tell(explained(Spec.from_file(spec, assignments or ())))


@app.command()
def prior(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="YAML file, as for run.")],
    assignments: Assignments = None,
    samples: Annotated[int, typer.Option(min=2, help="Functions to draw from the prior.")] = 200,
    inputs: Annotated[int, typer.Option(min=2, help="Inputs to look at them on, at most.")] = 100,
    out: Annotated[Path | None, typer.Option(help="Folder for prior.json and prior.html, default none.")] = None,
) -> None:
    """Tell what the prior of a specification believes, before any training."""
    from .beliefs import prior_predictive
    from .beliefs.page import PAGE, check_beliefs_folder, write_beliefs
    from .help.terminal import tell
    from .spec import Spec

    if out is not None:
        check_beliefs_folder(out)
    found = prior_predictive(Spec.from_file(spec, assignments or ()), num_samples=samples, num_inputs=inputs)
    tell(found)
    if out is not None:
        write_beliefs(found, out)
        print(f"\npage: {out / PAGE}")


@app.command()
def weights(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="A study's name, its YAML file, or that of a specification.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the runs, the tables, the page and prior.yaml.")],
    seeds: Annotated[int | None, typer.Option(min=2, help="Nets, default the study's, of a SPEC 5.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes, default one a processor.")] = None,
    change: Annotated[bool, typer.Option("--change", help="Look at weights less their start.")] = False,
    assignments: Assignments = None,
    quiet: Quiet = False,
) -> None:
    """Train nets without a prior, tell what their weights are like, and make a prior of it."""
    from .help.terminal import tell
    from .weight_study import read_weight_study, study_weights
    from .weight_study.files import PAGE, PRIOR

    wanted = read_weight_study(study, seeds, tuple(assignments or ()))
    for said in wanted.changed:
        print(said, file=sys.stderr)
    tell(study_weights(wanted, out=out, jobs=jobs, change=change, progress=not quiet))
    print(f"\npage: {out / PAGE}")
    if not change:
        print(f"prior: --set prior=@{out / PRIOR}")


@app.command()
def show(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="prior, guide, driver, ...; or a name alone.")],
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A name that pyroformer list shows.")] = None,
) -> None:
    """Show everything about one choice, with an example."""
    from .help.about import show as shown
    from .help.terminal import tell
    from .study import study_text

    words = [kind] if name is None else [kind, name]
    if kind in ("study", "studies"):
        print(study_text(*words[1:]), end="")
    else:
        tell(shown(*words))


@app.command()
def schema(
    document: Annotated[str, typer.Argument(metavar="[spec|study]", help="Of which YAML file.")] = "spec",
    out: Annotated[Path | None, typer.Option(help="File to write, default the terminal.")] = None,
) -> None:
    """Print the JSON schema of specs or studies, for editors."""
    import json

    from .choices import check_file_to_write
    from .help.json_schema import schema as made
    from .inference.files import write_json

    if out is None:
        print(json.dumps(made(document), indent=2))
    else:
        check_file_to_write(out)
        write_json(out, made(document))


@app.command(name="list")
def list_choices(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="priors, guides, drivers, bounds, schedules, models, tasks, likelihoods, calibrations, hyperpriors "
            "or studies."
        ),
    ] = None,
) -> None:
    """List what may be chosen, with settings and defaults."""
    from .choices import KINDS, SpecError
    from .help.docstrings import read
    from .help.wording import signature
    from .priors.globs import near_misses
    from .study import builtin

    names = {f"{name}s": name for name in KINDS}
    if kind is not None and kind != "studies" and kind not in names and f"{kind}s" not in names:
        known = [*names, "studies"]
        raise SpecError("list", kind, ", ".join(known) + near_misses(kind, known))
    for plural, name in names.items():
        if kind in (None, plural, name):
            print(f"{plural}:")
            for choice, cls in KINDS[name].classes().items():
                print(f"  {choice}{signature(cls)}")
                print(f"      {read(cls).summary}")
    if kind in (None, "studies"):
        print("studies:")
        for study in builtin():
            print(f"  {study}")


def metrics_table(metrics: dict[str, Any]) -> Table:
    """The metrics of a run, one column a set; of corruptions at five severities their mean alone."""
    from .report.columns import is_severity

    sets = {name: values for name, values in metrics.items() if name != "fit" and not is_severity(name)}
    table = Table("metric", *sets)
    for key in dict.fromkeys(key for values in sets.values() for key in values):
        shown = [f"{values[key]:.4g}" if values.get(key) is not None else "" for values in sets.values()]
        table.add_row(key.replace("_mutual_information", "_MI").replace("_", " "), *shown)
    return table


def main() -> None:
    """Run the command line: a user's mistake ends with exit code 2 and a message, without a traceback."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    # Before torch is imported: threads that wait by spinning make a busy machine ten times slower, and gain little on a
    # free one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            print("interrupted; what was kept stays, and the same command goes on from there", file=sys.stderr)
        raise
    except Exception as error:
        # not before: torch takes seconds to import, and `--help` needs none of it
        from .choices import SpecError
        from .inference import DataError, InferenceError, Interrupted, WriteError
        from .priors import SettingError

        if isinstance(error, SpecError | SettingError | DataError):
            _fail(f"error: {error}", 2)
        if isinstance(error, Interrupted):
            said = "\n".join([f"interrupted {error}", *getattr(error, "__notes__", [])])
            _fail(f"{said}; the same command goes on to the full length", INTERRUPTED)
        if isinstance(error, InferenceError):
            _fail("\n".join(["stopped: " + str(error), *getattr(error, "__notes__", [])]), 1)
        if isinstance(error, WriteError):
            _fail(f"stopped: {error}; what was kept stays, and the same command goes on from there", 1)
        raise


def _fail(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)
