"""What a running driver tells the outside: progress, history, checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from .checkpoint import Checkpoint
from .files import plain, writing

if TYPE_CHECKING:
    from .library import Library


class Monitor:
    """Receives what a driver has to say; this one only keeps the history.

    Args:
        checkpoint: Where drivers keep their state as they work, and look for one to go on from; None (default) for
            nowhere.
        library: Where drivers look for trained nets to start from, and put theirs; None (default) for nowhere.

    Attributes:
        history: One record a validated epoch or sampled draw, as plain data.
    """

    def __init__(self, checkpoint: Checkpoint | None = None, library: Library | None = None) -> None:
        self.history: list[dict[str, Any]] = []
        self.labels: dict[str, Any] = {}
        self.checkpoint = checkpoint
        self.library = library

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[None]:
        """A part of the work with ``total`` steps."""
        yield

    def step(self, text: str = "", advance: int = 1) -> None:
        """Some steps of the present stage are done; ``text`` says how it stands."""

    def record(self, entry: dict[str, Any]) -> None:
        """Add to the history."""
        self.history.append({**self.labels, **entry})

    @contextmanager
    def labelled(self, **labels: Any) -> Iterator[Monitor]:
        """Mark every record made inside, as with the member of an ensemble, and keep its state apart from others'."""
        before, checkpoint = self.labels, self.checkpoint
        self.labels = {**before, **labels}
        if checkpoint is not None:
            self.checkpoint = checkpoint.part("-".join(f"{key}-{value}" for key, value in labels.items()))
        try:
            yield self
        finally:
            self.labels, self.checkpoint = before, checkpoint


class RunMonitor(Monitor):
    """Writes the history to a file as it comes, and shows a progress bar.

    Args:
        history: Where to write one JSON object a line, or None.
        console: Where to show the bar, or None for no bar.
        checkpoint, library: See `Monitor`.
    """

    def __init__(
        self,
        history: Path | None = None,
        console: Console | None = None,
        checkpoint: Checkpoint | None = None,
        library: Library | None = None,
    ):
        super().__init__(checkpoint, library)
        self.path = history
        self.console = console
        self.progress: Progress | None = None
        self.task: Any = None
        if history is not None:
            with writing(history):
                history.parent.mkdir(parents=True, exist_ok=True)
                history.write_text("", encoding="utf-8")

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[None]:
        if self.console is None:
            yield
            return
        label = " ".join([*(f"{key} {value}" for key, value in self.labels.items()), name])
        one_line = Column(no_wrap=True)
        columns = (
            TextColumn("{task.description}", table_column=one_line),
            BarColumn(bar_width=12),
            MofNCompleteColumn(table_column=one_line),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True, table_column=one_line),
            TextColumn("{task.fields[text]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
        )
        with Progress(*columns, console=self.console, refresh_per_second=4) as self.progress:
            self.task = self.progress.add_task(label, total=total, text="")
            yield
        self.progress = None

    def step(self, text: str = "", advance: int = 1) -> None:
        if self.progress is not None:
            self.progress.advance(self.task, advance)
            if text:
                self.progress.update(self.task, text=text)

    def record(self, entry: dict[str, Any]) -> None:
        super().record(entry)
        if self.path is not None:
            with writing(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(plain(self.history[-1]), allow_nan=False) + "\n")
