"""Point estimates that are found once and used by every driver that starts from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..models import BayesianModel
from .files import read_json, replacing, write_json
from .monitor import Monitor
from .posterior import Posterior

POSTERIOR, RECORDS = "posterior", "records.json"


class Library:
    """Trained nets in a folder, each found by whichever driver or process asks for it first.

    Args:
        folder: Where they are kept, one folder a net.
        context: What the work depends on besides what a driver sees of it, as plain data: the task and the net's
            settings, say.
    """

    def __init__(self, folder: Path, context: Mapping[str, Any] | None = None):
        self.folder, self.context = folder, dict(context or {})

    def get(
        self, work: Mapping[str, Any], model: BayesianModel, monitor: Monitor, find: Callable[[], Posterior]
    ) -> Posterior:
        """The posterior that a piece of work has, from the folder or else by doing it.

        Args:
            work: The identity of the work, as `identity` gives it.
            model: The model, with which the posterior is read.
            monitor: Gets the records of the work in either case.
            find: Does the work.

        Another process that asks for the same waits until it is there.
        """
        text = json.dumps({"work": work, "context": self.context}, sort_keys=True)
        place = self.folder / hashlib.sha256(text.encode()).hexdigest()[:24]
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_suffix(".lock")):
            if place.is_dir():
                records = read_json(place / RECORDS)["records"]
                for record in records:
                    monitor.record(record)
                return Posterior.load(place / POSTERIOR, model)
            before = len(monitor.history)
            posterior = find()
            own = [{k: v for k, v in entry.items() if k not in monitor.labels} for entry in monitor.history[before:]]
            with replacing(place) as new:
                posterior.write(new / POSTERIOR)
                write_json(new / RECORDS, {"records": own})
            return posterior
