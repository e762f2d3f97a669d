"""Several runs side by side: other seeds, or one field changed (chapter 09).

One run says little: seeds differ, and some fail. A sweep starts every run as a process of its own, `slotlib train` with
one thread, as many at a time as there are cores: several such runs get more done than one run with several threads.
Every run has its folder, so an interrupted sweep goes on where it stopped, and a run that failed is tried again.
"""

import csv
import io
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from slotlib import checkpoint, older
from slotlib.course import cores
from slotlib.training import FREE, Config, another_run, differences

logger = logging.getLogger(__name__)


class Run(NamedTuple):
    """One run of a sweep: what is its own, and how to start it."""

    folder: Path
    value: str
    """Of the field that is varied; empty if only seeds are."""
    seed: int
    config: Config
    arguments: Sequence[str]
    """Of `slotlib train`, that give `config`."""


class Result(NamedTuple):
    """How a run ended: with metrics, or with the last line of its output."""

    folder: str
    value: str
    seed: int
    metrics: Mapping[str, Any]
    """As on the model's card, with `wall_seconds`; empty if the run failed."""
    error: str


class Row(NamedTuple):
    """A line of the table: one value of the field and one score, over the seeds. Failed runs are counted beside it."""

    value: str
    median: float | None
    least: float | None
    most: float | None
    seeds: Mapping[int, float | None]
    """The score of every seed, None where the run failed."""
    failed: int


def _finished(run: Run) -> dict[str, Any] | None:
    """The card of a finished run; None before. Raises ValueError if the folder holds another run's model."""
    card, states = run.folder / "model.json", checkpoint.steps_saved(run.folder)
    if not (card.exists() and states):
        return None
    before = json.loads(states[-1].read_text(encoding="utf-8"))["configuration"]
    changed = differences(before, run.config.plain())
    # One that stopped elsewhere has not come to its end, though it could go on.
    if others := {name: pair for name, pair in changed.items() if name not in FREE - {"train.stop_at"}}:
        raise another_run(run.folder, others)
    return older.modern(json.loads(card.read_text(encoding="utf-8")))


def _result(run: Run, status: int | None = None) -> Result:
    if card := _finished(run):
        metrics, error = {**card["metrics"][0], "wall_seconds": card["wall_seconds"]}, ""
    else:
        lines = (run.folder / "output.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
        metrics, error = {}, f"{last} (exit status {status})"
    return Result(run.folder.name, run.value, run.seed, metrics, error)


def _start(run: Run) -> subprocess.Popen:
    checkpoint.writable_folder(run.folder)
    command = [sys.executable, "-m", "slotlib", "train", *run.arguments, f"--folder={run.folder}"]
    with (run.folder / "output.txt").open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )


def sweep(runs: Sequence[Run], jobs: int = 0) -> list[Result]:
    """Bring every run to its end, `jobs` at a time (0: one per core). Finished ones are not repeated.

    However this ends, with Ctrl-C too, no process is left behind.

    Returns one result per run, in the order of `runs`; failed ones are among them.

    Raises:
        ValueError: no runs, negative `jobs`, or a folder that holds a finished run of another configuration.
        OSError: a folder that cannot be written to.
    """
    if not runs or jobs < 0:
        raise ValueError(f"expected at least one run and jobs >= 0, got {len(runs)} runs and jobs={jobs}")
    waiting = [run for run in runs if not _finished(run)]
    logger.info("%d runs, %d of them finished before", len(runs), len(runs) - len(waiting))
    running: dict[subprocess.Popen, Run] = {}
    statuses: dict[Path, int] = {}
    try:
        while waiting or running:
            while waiting and len(running) < (jobs or cores()):
                run = waiting.pop(0)
                running[_start(run)] = run
            time.sleep(0.1)
            for process in [process for process in running if process.poll() is not None]:
                run = running.pop(process)
                statuses[run.folder] = process.returncode
                logger.info("%s: %s", run.folder.name, _result(run, process.returncode).error or "finished")
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
    return [_result(run, statuses.get(run.folder)) for run in runs]


def table(results: Iterable[Result], score: str) -> list[Row]:
    """Median, least, most and every seed of a score, one row for each value of the varied field."""
    rows: dict[str, dict[int, float | None]] = {}
    for result in results:
        rows.setdefault(result.value, {})[result.seed] = result.metrics.get(score)
    lines = []
    for value, seeds in rows.items():
        scores = [score for score in seeds.values() if score is not None]
        spread = (statistics.median(scores), min(scores), max(scores)) if scores else (None, None, None)
        lines.append(Row(value, *spread, seeds, len(seeds) - len(scores)))
    return lines


def write(results: Sequence[Result], folder: Path, score: str) -> None:
    """`sweep.csv`, one line per run, and `sweep.json`, the same with the table."""
    columns = dict.fromkeys(name for result in results for name in result.metrics)
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["folder", "value", "seed", *columns, "error"])
    for result in results:
        metrics = [result.metrics.get(name, "") for name in columns]
        lines.writerow([result.folder, result.value, result.seed, *metrics, result.error])
    checkpoint.write(folder / "sweep.csv", text.getvalue().encode())
    content = {
        "score": score,
        "table": [row._asdict() for row in table(results, score)],
        "runs": [result._asdict() for result in results],
    }
    checkpoint.write(folder / "sweep.json", (json.dumps(content, indent=2) + "\n").encode())
