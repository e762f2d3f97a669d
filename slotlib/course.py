"""What every chapter of the book shares: its first lines of output, and the checks of its exercises.

Used by all chapters; `slotlib/timings.json` beside this file is written by `make execute`.
"""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import torch

TIMINGS = Path(__file__).with_name("timings.json")
_SHELVES = (Path(__file__).parents[1] / "data" / "runs", Path(__file__).with_name("runs"))  # a clone; a wheel


def begin(chapter: str) -> None:
    """Open a chapter: print the device and the measured run time, and set the style of its figures.

    `chapter` is the notebook's name without its ending, such as ``"02_slot_attention"``; an appendix has no number.
    """
    from slotlib import plots

    plots.use_style()
    number, _, topic = chapter.partition("_")
    if number.isdigit():
        print(f"Chapter {int(number)}, {topic.replace('_', ' ')}")
    else:
        print(f"Appendix, {chapter.replace('_', ' ')}")
    print(f"Device: {describe_device()}")
    print(f"Run time: {describe_timing(chapter)}")


def device() -> torch.device:
    """The device a chapter computes on: the first CUDA GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def check(name: str, condition: object | Callable[[], object], hint: str = "") -> None:
    """Print whether an exercise is solved: a tick, or `not yet` with the hint. Never raises.

    `condition` is anything with a truth value, or a function of no arguments that returns one.
    Prefer the function: an unfinished answer often makes the comparison itself fail (`None + 1`),
    and here such a failure only means `not yet`.
    """
    try:
        passed, trouble = bool(condition() if callable(condition) else condition), ""
    except Exception as error:  # an exercise in progress may fail in any way
        passed, trouble = False, f"\n         it raised {type(error).__name__}: {error}"
    if passed:
        print(f"✓ {name}")
    else:
        print(f"not yet: {name}" + (f" ({hint})" if hint else "") + trouble)


def runs(name: str) -> list[dict[str, str | float]]:
    """What longer runs measured than a chapter has time for: the lines of `data/runs/NAME.csv`, numbers as numbers.

    An empty cell is left out of its line. The script that wrote the file is in `benchmarks`. Raises FileNotFoundError.
    """
    for shelf in _SHELVES:
        if (shelf / f"{name}.csv").is_file():
            with (shelf / f"{name}.csv").open(newline="", encoding="utf-8") as file:
                return [{key: _value(cell) for key, cell in line.items() if cell} for line in csv.DictReader(file)]
    there = sorted(path.stem for shelf in _SHELVES for path in shelf.glob("*.csv"))
    raise FileNotFoundError(f"no runs {name!r}; there are: {', '.join(there) or 'none'}")


def _value(cell: str) -> str | float:
    try:
        return float(cell)
    except ValueError:
        return cell


def describe_device() -> str:
    """One line on the machine at hand, such as ``cpu (2 cores), torch 2.13.0``."""
    if torch.cuda.is_available():
        name = f"cuda ({torch.cuda.get_device_name()})"
    else:
        name = f"cpu ({_plural(cores(), 'core')})"
    return f"{name}, torch {torch.__version__}"


def describe_timing(chapter: str) -> str:
    """The chapter's run time on CPU and GPU, where `make execute` has measured it."""
    measured = read_timings().get(chapter, {})
    cpu, gpu = measured.get("cpu"), measured.get("gpu")
    times = [f"{cpu['seconds']} s on {_plural(cpu['cores'], 'CPU core')}"] if cpu else []
    times += [f"{gpu['seconds']} s on one {gpu['processor']}"] if gpu else []
    return "; ".join(times) or "not measured yet"


def read_timings() -> dict[str, dict[str, dict[str, object]]]:
    """Chapter -> "cpu" | "gpu" -> seconds, cores, processor, torch, date."""
    return json.loads(TIMINGS.read_text(encoding="utf-8")) if TIMINGS.exists() else {}


def cores() -> int:
    """The number of CPU cores this process may use (fewer than the machine has, in a container)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _plural(count: object, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
