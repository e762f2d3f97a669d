"""Run chapters and appendices in place: outputs and widget state are stored, and the wall time is recorded.

    python book/tools/execute.py [--time-only | --keep-time] [CHAPTER ...]     (numbers, or parts of a name)

The time goes to slotlib/timings.json, as "gpu" where CUDA is there and as "cpu" otherwise, and the
setup cell is then run once more so that it prints the time just measured. `--time-only` leaves the
notebooks alone: for measuring on another machine, such as one with a GPU. `--keep-time` leaves the time as it was
recorded: for a machine that is busy with something else.
"""

import argparse
import datetime
import json
import os
import platform
import re
import sys
import time
from pathlib import Path

import nbformat
import torch
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from stamp import notebooks

from slotlib import course

ROOT = Path(__file__).parents[2]
CELL_TIMEOUT = 1800  # seconds; the longer trainings that chapters offer are off by default


def find(names: list[str]) -> list[Path]:
    """The notebooks whose name starts with, or contains, one of `names` (all of them for none)."""
    known = notebooks()
    chosen = [n for n in known if not names or any(_matches(n.stem, name) for name in names)]
    if not chosen:
        sys.exit(f"no notebook matches {' '.join(names)!r}; there are: {', '.join(n.stem for n in known)}")
    return chosen


def _matches(stem: str, name: str) -> bool:
    name = name.removesuffix(".ipynb").rpartition("/")[2]
    return stem.startswith(name.zfill(2)) if name.isdigit() else name in stem


def execute(notebook: nbformat.NotebookNode, folder: Path) -> float:
    """Run all cells in a fresh kernel that starts in `folder`, outputs in place; returns the seconds it took."""
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        store_widget_state=True,
        record_timing=False,
        coalesce_streams=True,  # else the same text is stored in pieces that depend on timing
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(folder)}},
    )
    start = time.perf_counter()
    client.execute()
    return time.perf_counter() - start


def refresh_setup(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Run the setup cell alone again and keep its new output."""
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    alone = nbformat.v4.new_notebook(cells=[cell.copy()], metadata=notebook.metadata.copy())
    execute(alone, folder)
    cell.outputs = alone.cells[0].outputs


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Leave nothing in the file that changes without its content changing."""
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata.language_info = {"name": "python"}
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for cell in notebook.cells:
        for volatile in ("execution", "collapsed", "ExecuteTime", "trusted"):
            cell.metadata.pop(volatile, None)


def record(chapter: str, seconds: float) -> None:
    """Write one measurement into slotlib/timings.json."""
    gpu = torch.cuda.is_available()
    entry = {
        "seconds": max(1, round(seconds)),
        "cores": course.cores(),
        "processor": torch.cuda.get_device_name() if gpu else processor(),
        "torch": torch.__version__.partition("+")[0],
        "date": datetime.date.today().isoformat(),
    }
    timings = course.read_timings()
    timings.setdefault(chapter, {})["gpu" if gpu else "cpu"] = entry
    write(course.TIMINGS, json.dumps(timings, indent=2, sort_keys=True) + "\n")


def processor() -> str:
    """The CPU's name, as far as the system tells."""
    try:
        return re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def write(path: Path, text: str) -> None:
    """Replace a file in one step, so that an interrupted run leaves the old one whole."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--time-only", action="store_true", help="record the time, leave the notebooks alone")
    what.add_argument("--keep-time", action="store_true", help="store the outputs, leave the recorded time alone")
    parser.add_argument("chapters", nargs="*", help="chapter numbers or parts of names (default: all)")
    options = parser.parse_args()
    failed = []
    for path in find(options.chapters):
        print(f"{path.name} ... ", end="", flush=True)
        notebook = nbformat.read(path, as_version=4)
        try:
            seconds = execute(notebook, path.parent)
        except CellExecutionError as error:
            print(f"failed, left as it was\n{error}")
            failed.append(path.name)
            continue
        if not options.keep_time:
            record(path.stem, seconds)
        if not options.time_only:
            refresh_setup(notebook, path.parent)
            tidy(notebook)
            write(path, nbformat.writes(notebook) + "\n")
        print(f"{seconds:.0f} s")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
