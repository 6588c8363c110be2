"""The viewer from Python: in a notebook, or as a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from torch import Tensor

from ..choices import SpecError, check_file_to_write
from ..inference.data import Inputs, take
from ..inference.files import write_text
from ..inference.posterior import NUM_SAMPLES, Posterior
from ..tasks.text import vocabulary_of
from .data import NUM_INPUTS, SeenAttention, has_attention, see_attention
from .page import PADDING, render

if TYPE_CHECKING:
    from ..run import Run
    from ..tasks import TaskData

HEIGHT = 900
"""Of the frame in a notebook, in pixels."""
SIGNS = {"\n": "⏎", "\t": "⇥", " ": "␣"}
"""What stands for tokens that would not be seen."""


@dataclass(frozen=True, eq=False)
class AttentionView:
    """The attention of a posterior on some inputs, to be looked at: in a notebook it shows itself.

    Args:
        seen: What there is to see.
        title, note: Of the page.
    """

    seen: SeenAttention
    title: str = "Attention"
    note: str = ""

    def html(self) -> str:
        """The text of one HTML page that needs nothing else."""
        return render(self.seen, self.title, self.note)

    def save(self, path: str | Path) -> None:
        """Write the page to a file, whole or not at all.

        Raises:
            WriteError: It could not be written.
        """
        write_text(Path(path), self.html())

    def _repr_html_(self) -> str:
        return frame(self.html(), self.title, HEIGHT)


def frame(html: str, title: str, height: int) -> Markup:
    """A page inside another one."""
    return Markup(
        '<iframe srcdoc="{}" title="{}" loading="lazy" sandbox="allow-scripts" '
        'style="width:100%;height:{}px;border:0;color-scheme:normal"></iframe>'
    ).format(html, title, height)


def attention_view(
    posterior: Posterior,
    x: Inputs,
    y: Tensor | None = None,
    *,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
    title: str = "Attention",
    **names: Any,
) -> AttentionView:
    """Look at attention, at what it is unsure of, and at the predictions that come of it.

    Args:
        posterior: Over a net with attention layers of ours; rows may be random or computed.
        x: Inputs ``[N, ...]``; see `see_attention` for how many are kept.
        y: What was observed; default unknown.
        num_samples: Draws, default 32.
        seed: Of the draws.
        title: Of the page.
        names: Names of ``words``, ``features`` or ``classes``, and the ``unit`` of words; see `see_attention`.

    Raises:
        SettingError: The net has no attention of ours.
        DataError: ``x`` is empty, or holds NaN or infinity.
    """
    return AttentionView(see_attention(posterior, x, y, num_samples=num_samples, seed=seed, **names), title)


def names_of(source: Mapping[str, Any]) -> dict[str, Any]:
    """The names that a run's records hold for words, features and classes.

    Of a text the words are its vocabulary, with spaces and ends of lines as signs, and behind it the padding.
    """
    found = {"words": source.get("words"), "features": source.get("features"), "classes": source.get("classes")}
    names: dict[str, Any] = {name: value for name, value in found.items() if isinstance(value, list | tuple)}
    vocabulary = vocabulary_of(dict(source))
    if vocabulary is not None:
        signs = [SIGNS.get(token, token) for token in vocabulary.tokens]
        names |= {"words": [*signs, PADDING], "classes": signs, "unit": vocabulary.unit}
    return names


def seen_of(posterior: Posterior, data: TaskData, *, num_inputs: int, num_samples: int, seed: int) -> SeenAttention:
    """The attention on the first test examples of a task."""
    x, y = take(data.test.x, slice(0, num_inputs)), None if data.test.y is None else data.test.y[:num_inputs]
    return see_attention(posterior, x, y, num_samples=num_samples, seed=seed, **names_of(data.source))


def write_attention(
    run: Run, target: str | Path, *, num_inputs: int = NUM_INPUTS, num_samples: int = NUM_SAMPLES
) -> SeenAttention:
    """Write the viewer of a finished run, on the first examples of its test set.

    Args:
        run: From `load` or `fit`.
        target: The file, ``.html``.
        num_inputs: Examples at most, default 12.
        num_samples: Draws, default 32.

    Returns:
        What is shown.

    Raises:
        SpecError: The target has another ending, or the run's net has no attention of ours.
        DataError: The task's data are not found.
        WriteError: The target cannot be written.
    """
    target = Path(target)
    check_file_to_write(target, (".html",))
    if not has_attention(run.posterior):
        net = type(run.posterior.model.net).__name__
        raise SpecError("RUN", net, "a run of a net with attention layers of pyroformer.models")
    data = run.spec.task.load()
    seen = seen_of(run.posterior, data, num_inputs=num_inputs, num_samples=num_samples, seed=run.spec.seed)
    name = "" if run.folder is None else run.folder.name
    if run.folder is not None and name.startswith("seed-"):  # a cell of a study: its method and its seed
        name = f"{run.folder.parent.name}, {name.replace('-', ' ')}"
    note = f"{len(seen)} test examples of {next(iter(run.spec.to_dict()['task']))}, {seen.num_samples} draws"
    AttentionView(seen, f"Attention of {name}".removesuffix(" of "), note).save(target)
    return seen
