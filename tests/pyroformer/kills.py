"""Kill a command again and again, let it end, and compare what it found with what it finds undisturbed.

    python tests/pyroformer/kills.py run spec.yaml --kills 10 --seed 0
    python tests/pyroformer/kills.py compare study.yaml --kills 10 --jobs 2

A script for machines with time, which pytest does not collect; `test_resume` kills a few small runs. The first run is
not disturbed, and tells how long a run takes and how its history grows. Each kill takes the whole process group. A
quarter of the kills fall into a start (imports, data, reading the state), whatever was done before. The others fall at
uniform moments of the undisturbed run, in their order and told by the history, so that a slow machine does not move
them; a quarter of all, at least, after the last epoch. When a run ends before its kill, another is begun. Options that
are not the script's are the command's. The last line of the output is JSON; exit code 1 tells of a difference.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from test_resume import OFTEN, results, same, table

import pyroformer


@dataclass
class Kill:
    """When a process was killed, and what was in its folder then.

    Args:
        phase: Where it was to fall: "start", "epochs" or "end".
        planned: The moment of the undisturbed run, in seconds.
        seconds: After the start of the process that was killed.
        records: In the history, of so many at the end.
        there: Files and folders, without what is inside the posterior.
    """

    phase: str
    planned: float
    seconds: float = 0.0
    records: int = 0
    there: list[str] | None = None


class Command:
    """A command that can be started in any folder, with the package that is imported here."""

    def __init__(self, arguments: list[str], often: bool):
        self.arguments, self.often = arguments, often

    def start(self, folder: Path) -> subprocess.Popen:
        begin = [sys.executable, *(["-c", OFTEN] if self.often else ["-m", "pyroformer"])]
        found = Path(pyroformer.__file__).resolve().parent.parent
        env = {"OMP_NUM_THREADS": "1"} | os.environ | {"PYTHONPATH": str(found)}
        with folder.with_suffix(".log").open("a") as log:
            command = [*begin, *self.arguments, "--out", str(folder), "--quiet"]
            return subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)

    def end(self, running: subprocess.Popen, folder: Path) -> None:
        if running.wait() != 0:
            raise SystemExit(f"the command failed: {folder.with_suffix('.log').read_text()}")


def records(folder: Path, since: float) -> int:
    """How far a run, or all cells of a study, have come; histories that a killed process left do not count."""
    count = 0
    for path in (folder / "history.jsonl", *folder.glob("runs/*/*/history.jsonl")):
        if path.exists() and (path.with_name("metrics.json").exists() or path.stat().st_mtime >= since):
            count += path.read_bytes().count(b"\n")
    return count


def there(folder: Path) -> list[str]:
    """What a folder holds."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return [name for name in names if "posterior/" not in name]


def undisturbed(command: Command, folder: Path) -> list[tuple[float, int]]:
    """Run once: the seconds at which the history grew, with its records, from the start to the end."""
    began, since, grown = time.monotonic(), time.time(), [(0.0, 0)]
    running = command.start(folder)
    while running.poll() is None:
        time.sleep(0.01)
        count = records(folder, since)
        if count > grown[-1][1]:
            grown.append((time.monotonic() - began, count))
    command.end(running, folder)
    return [*grown, (time.monotonic() - began, grown[-1][1])]


def plan(grown: list[tuple[float, int]], count: int, rng: random.Random) -> list[Kill]:
    """The kills: those of starts in between the others, which are in the order of the undisturbed run."""
    begin, last, end = grown[1][0], grown[-2][0], grown[-1][0]
    starts = [Kill("start", rng.uniform(0, begin)) for _ in range(count // 4)]
    ends = [Kill("end", rng.uniform(last, end)) for _ in range(count // 4)]
    moments = [rng.uniform(begin, end) for _ in range(count - len(starts) - len(ends))]
    middle = [Kill("epochs" if moment < last else "end", moment) for moment in moments]
    kills = sorted([*middle, *ends], key=lambda kill: (kill.phase == "end", kill.planned if kill.phase != "end" else 0))
    for kill in starts:
        kills.insert(rng.randrange(len(kills) + 1), kill)
    return kills


def strike(command: Command, folder: Path, kill: Kill, grown: list[tuple[float, int]]) -> bool:
    """Start the command and kill it at its moment; False when it ended before."""
    wanted, delay = 0, kill.planned
    if kill.phase != "start":
        reached, wanted = max(point for point in grown[:-1] if point[0] <= kill.planned)
        delay = kill.planned - reached
    began, since = time.monotonic(), time.time()
    running = command.start(folder)
    while running.poll() is None and records(folder, since) < wanted:
        time.sleep(0.002)
    try:
        running.wait(delay)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
    if running.wait() != -signal.SIGKILL:
        command.end(running, folder)
        return False
    kill.seconds, kill.records, kill.there = time.monotonic() - began, records(folder, 0), there(folder)
    return True


def difference(command: Command, one: Path, other: Path) -> list[str]:
    """Let a command end in its folder, and list what differs from another, times aside."""
    command.end(command.start(other), other)
    found = [] if not (one / "table.csv").exists() or table(one) == table(other) else ["values.csv or table.csv"]
    runs = sorted(path.parent.relative_to(one) for path in one.rglob("metrics.json"))
    if runs != sorted(path.parent.relative_to(other) for path in other.rglob("metrics.json")):
        return [*found, "which runs have ended"]
    found += [f"results of {run}" for run in runs if not same(results(one / run), results(other / run))]
    return found + [f"{name} is left" for name in there(other) if name.endswith((".new", ".old", "checkpoint"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("command", choices=["run", "compare"])
    parser.add_argument("file", help="the spec or the study")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--often", action="store_true", help="keep a state every epoch instead of every ten seconds")
    parser.add_argument("--folder", type=Path, help="where to work, default a temporary folder")
    options, more = parser.parse_known_args()
    sys.stdout.reconfigure(line_buffering=True)
    base = Path(tempfile.mkdtemp(prefix="kills-")) if options.folder is None else options.folder
    base.mkdir(parents=True, exist_ok=True)
    last = "metrics.json" if options.command == "run" else "report.html"
    command = Command([options.command, options.file, *more], options.often)

    grown = undisturbed(command, base / "whole")
    print(f"undisturbed: {grown[-1][0]:.1f} s, {grown[-1][1]} records from {grown[1][0]:.1f} to {grown[-2][0]:.1f} s")
    kills = plan(grown, options.kills, random.Random(options.seed))
    folder, ended, found = base / "killed-1", 0, []
    for kill in kills:
        while (folder / last).exists() or not strike(command, folder, kill, grown):
            found += difference(command, base / "whole", folder)
            ended += 1
            folder = base / f"killed-{ended + 1}"
            print(f"ended before the next kill ({kill.phase}, {kill.planned:.1f} s); begun anew in {folder}")
        print(f"killed after {kill.seconds:.1f} s ({kill.phase}), {kill.records} records: {kill.there}")
    found += difference(command, base / "whole", folder)
    print(f"in {base}" if found else f"the same after {len(kills)} kills")
    summary = {"command": options.command, "seconds": grown[-1][0], "runs": ended + 1, "differences": found}
    print(json.dumps({**summary, "kills": [asdict(kill) for kill in kills]}))
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
