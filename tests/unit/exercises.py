"""What the tests of a chapter's exercises share: they put a reader's answer in the starter's place and read the check.

A chapter's own cells are run, so a check that is changed there is changed here.
"""

import ast
import contextlib
import io
import json
from pathlib import Path

import torch

CHAPTERS = Path(__file__).parents[2] / "chapters"


class Exercises:
    """The exercises of one chapter.

    Args:
        chapter: the notebook's name without its ending.
        needs: the ids of the cells that its exercises build on, in order.
    """

    def __init__(self, chapter: str, *needs: str):
        # Plain JSON: what these notebooks are, and nbformat takes more than a second to import.
        cells = json.loads((CHAPTERS / f"{chapter}.ipynb").read_text("utf-8"))["cells"]
        self.sources = {cell["id"]: "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"}
        self.names: dict[str, object] = {}
        self.precision = torch.get_default_dtype()
        self.run(*needs)

    def run(self, *cells: str) -> None:
        """Run cells of the chapter, with what stands in `names`, and drop what they print."""
        with contextlib.redirect_stdout(io.StringIO()):
            for cell in cells:
                self._run(self.sources[cell], cell)

    def verdict(self, exercise: str, answer: str) -> str:
        """What is printed when `answer` stands in the starter cell `exercise` in place of what it defines, and the
        starter's last statement, its check, runs."""
        self.run(exercise)
        with contextlib.redirect_stdout(io.StringIO()):
            self._run(answer, "answer")
        with contextlib.redirect_stdout(io.StringIO()) as said:
            self._run(self._check(exercise), exercise)
        return said.getvalue()

    def solution(self, number: int) -> str:
        """The chapter's own answer, up to its check."""
        return self.sources[f"solution-{number}"].partition("\n" + self._check(f"exercise-{number}"))[0]

    def _check(self, exercise: str) -> str:
        source = self.sources[exercise]
        return ast.get_source_segment(source, ast.parse(source).body[-1]) or ""

    def _run(self, source: str, name: str) -> None:
        others = torch.get_default_dtype()  # some chapters compute in double precision
        torch.set_default_dtype(self.precision)
        try:
            exec(compile(source, f"<{name}>", "exec"), self.names)
        finally:
            self.precision = torch.get_default_dtype()
            torch.set_default_dtype(others)


def refused(verdict: str) -> list[str]:
    """The checks that an answer did not pass, with their hints."""
    return [line for line in verdict.splitlines() if line.startswith("not yet")]
