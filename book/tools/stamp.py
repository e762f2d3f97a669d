"""Write the setup cell into every chapter and appendix, with the repository's address from _config.yml.

    python book/tools/stamp.py [--check] [NOTEBOOK.ipynb ...]

Everything between the two marker lines of a chapter is replaced. With --check nothing is written,
and the exit status says whether a chapter differs. A new chapter needs only the two marker lines.
"""

import argparse
import sys
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).parents[2]
BEGIN = "# --- setup: the same in every chapter ---"
END = "# --- end of setup ---"

# Looks for the clone first, so that a notebook always meets the library it lies next to. pip runs only
# when something is missing, and leaves the packages that are there alone: Colab's torch knows its GPU.
SETUP = """\
import os, pathlib, subprocess, sys

REPOSITORY = "@ADDRESS@"  # written by `make stamp`, from _config.yml
here = pathlib.Path.cwd()
near = [p for p in (here, *here.parents) if (p / "slotlib/course.py").exists()]
clone = str(near[0]) if near else ""
sys.path.insert(0, clone)
try:
    import slotlib.course
except ModuleNotFoundError as missing:
    source = clone or os.environ.get("SLOTLIB_SOURCE")
    source = source or (REPOSITORY and "git+" + REPOSITORY)
    if not source:
        raise ModuleNotFoundError(
            "slotlib is missing. Open this notebook inside a clone of the "
            "book, or set SLOTLIB_SOURCE in the environment to something pip "
            "can install: a slotlib wheel, or git+https://..."
        ) from None
    print(f"{missing}: installing from {source}")
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, source], check=True)
    import slotlib.course
"""


def notebooks() -> list[Path]:
    """The chapters in their order, then the appendices."""
    return [*sorted((ROOT / "chapters").glob("[0-9][0-9]_*.ipynb")), *sorted((ROOT / "book").glob("*.ipynb"))]


def address() -> str:
    """The repository's address: `repository: url:` of _config.yml, the only place it is written."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
    return config["repository"]["url"] or ""


def setup_block(repository: str) -> str:
    """The lines every chapter starts with, markers included."""
    return f"{BEGIN}\n{SETUP.replace('@ADDRESS@', repository)}{END}"


def stamped(source: str, block: str) -> str:
    """`source` with the text between its markers replaced by `block`."""
    before, begin, rest = source.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"no setup block: expected the lines {BEGIN!r} and {END!r}")
    return before + block + after


def stamp(path: Path, block: str, *, write: bool) -> bool:
    """Stamp one chapter; says whether it differed."""
    notebook = nbformat.read(path, as_version=4)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    source = stamped(cell.source, block)
    if source == cell.source:
        return False
    if write:
        cell.source = source
        nbformat.write(notebook, path)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a chapter differs")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all")
    options = parser.parse_args()
    block = setup_block(address())
    failed = False
    for path in options.notebooks or notebooks():
        try:
            differs = stamp(path, block, write=not options.check)
        except (ValueError, StopIteration) as error:
            print(f"{path.name}: {error or 'no code cell'}")
            failed = True
            continue
        if differs:
            print(f"{path.name}: " + ("setup cell differs, run `make stamp`" if options.check else "stamped"))
            failed |= options.check
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
