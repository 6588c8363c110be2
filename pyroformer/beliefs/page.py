"""The beliefs of a prior as a page and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .. import yamlfile
from ..choices import SpecError
from ..inference.files import write_json, write_text
from ..report.page import Section, page
from ..report.plots.prior_predictive import (
    attention_entropies,
    commonest_class,
    function_entropies,
    prior_functions,
    token_sizes,
)
from ..report.svg import Panel, figure, to_svg
from ..run import alone_in, environment
from ..run_folder import is_trace
from .classes import NEARLY_ALL, ClassBeliefs
from .predictive import PriorPredictive
from .rows import ONE_HOT, UNIFORM
from .view import QUANTILES, figures, mean, number, quantile_line, start_lines

PAGE, NUMBERS = "prior.html", "prior.json"


def check_beliefs_folder(folder: Path) -> None:
    """Raise a `SpecError` when a folder holds something else than the beliefs of a prior, or is none."""
    if folder.is_file():
        raise SpecError("--out", str(folder), "a folder; this is a file")
    if folder.is_dir() and {path.name for path in folder.iterdir() if not is_trace(path)} - {PAGE, NUMBERS}:
        accepted = f"a new or empty folder, or one with {NUMBERS} and {PAGE}; this holds something else"
        raise SpecError("--out", str(folder), accepted)


def write_beliefs(found: PriorPredictive, folder: str | Path) -> None:
    """Write ``prior.json`` and ``prior.html`` into a folder; those that stand there are replaced.

    Raises:
        SpecError: The folder holds something else, or another process works in it.
        WriteError: The files could not be written.
    """
    folder = Path(folder)
    check_beliefs_folder(folder)
    with alone_in(folder):
        write_json(folder / NUMBERS, found.to_dict())
        write_text(folder / PAGE, render(found))


def render(found: PriorPredictive) -> str:
    """The text of the page."""
    where = f"{found.num_samples} functions of the prior, on {found.num_inputs} {found.inputs} inputs, before training."
    return page("What the prior believes", where, list(_sections(found)), environment())


def _sections(found: PriorPredictive) -> Iterator[Section]:
    yield Section("In words", sentences=[*(found.flags or ("Nothing is flagged.",)), *start_lines(found)])
    name, values = quantile_line(found.beliefs)
    rows = [(label, (text,)) for label, text in figures(found.beliefs)]
    levels = ", ".join(level.removesuffix(" %") for level in QUANTILES)
    rows.append((f"{name}, {levels} %", (" · ".join(map(number, values)),)))
    yield Section("Functions", rows=rows, panels=list(_functions(found)))
    if found.attention:
        relative = {rows.name: rows.relative for rows in found.attention}
        made, (ax,) = figure(3.1, 2.1)
        attention_entropies(ax, relative)
        yield Section(
            "Attention",
            "Entropy of attention rows over functions, inputs and queries. A row is uniform above "
            f"{UNIFORM:g}, and one-hot below {ONE_HOT:g} of the largest entropy that it could have.",
            headings=("layer", "head", "nats", "of log T", "uniform", "one-hot"),
            rows=[
                (
                    rows.name.removesuffix(".rows"),
                    (
                        str(head),
                        f"{rows.entropy[head]:.3f}",
                        f"{rows.relative[head]:.3f}",
                        f"{100 * rows.uniform[head]:.1f} %",
                        f"{100 * rows.one_hot[head]:.1f} %",
                    ),
                )
                for rows in found.attention
                for head in range(len(rows.relative))
            ],
            panels=[Panel("Entropy by layer and head", to_svg(made, "attention entropy"), _mean_entropy(found))],
        )
    if found.tokens:
        made, (ax,) = figure(3.1, 2.1)
        token_sizes(ax, {size.name: (size.low, size.median, size.high) for size in found.tokens})
        yield Section(
            "Tokens",
            "Root mean square of the entries of tokens, before the first block and behind every block; quantiles over "
            "functions.",
            headings=("", "5 %", "50 %", "95 %"),
            rows=[(size.name, [number(v) for v in (size.low, size.median, size.high)]) for size in found.tokens],
            panels=[Panel("Size by block", to_svg(made, "size of tokens"), "median, and the central 90 %")],
        )
    yield Section("Spec", texts=[("the spec with every setting", yamlfile.dump(found.spec))])


def _functions(found: PriorPredictive) -> Iterator[Panel]:
    beliefs = found.beliefs
    if isinstance(beliefs, ClassBeliefs):
        made, (ax,) = figure(3.1, 2.1)
        function_entropies(ax, beliefs.entropies, beliefs.averaged_entropy, classes=beliefs.classes)
        yield Panel("Entropy of single functions", to_svg(made, "entropies"), "the axis ends at log C")
        made, (ax,) = figure(3.1, 2.1)
        commonest_class(ax, beliefs.top_share, classes=beliefs.classes, nearly_all=NEARLY_ALL)
        yield Panel("Constant functions", to_svg(made, "constant functions"), "at 1, one class for all inputs")
    elif beliefs.x is not None and beliefs.functions is not None:
        made, (ax,) = figure(3.1, 2.1)
        prior_functions(ax, beliefs.x, beliefs.functions)
        yield Panel("Functions", to_svg(made, "functions"), "25 of them, and the central 90 % of all")


def _mean_entropy(found: PriorPredictive) -> str:
    return ", ".join(f"layer {i}: {mean(rows.relative):.2f}" for i, rows in enumerate(found.attention))
