"""What the tests of a chapter's exercises share: they put a reader's answer in the starter's place and read the check.

A chapter's own cells are run, so a check that is changed there is changed here.
"""

import ast
import contextlib
import io
from pathlib import Path

import nbformat
import torch

CHAPTERS = Path(__file__).parents[2] / "chapters"


class Exercises:
    """The exercises of one chapter.

    Args:
        chapter: the notebook's name without its ending.
        needs: the ids of the cells that its exercises build on, in order.
    """

    def __init__(self, chapter: str, *needs: str):
        cells = nbformat.read(CHAPTERS / f"{chapter}.ipynb", as_version=4).cells
        self.sources = {cell.id: cell.source for cell in cells if cell.cell_type == "code"}
        self.names: dict[str, object] = {}
        self.precision = torch.get_default_dtype()
        with contextlib.redirect_stdout(io.StringIO()):
            for cell in needs:
                self._run(self.sources[cell], cell)

    def verdict(self, exercise: str, answer: str) -> str:
        """What is printed when `answer` stands in the starter cell `exercise` in place of what it defines, and the
        starter's last statement, its check, runs."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._run(self.sources[exercise], exercise)
            self._run(answer, "answer")
        check = ast.unparse(ast.parse(self.sources[exercise]).body[-1])
        with contextlib.redirect_stdout(io.StringIO()) as said:
            self._run(check, exercise)
        return said.getvalue()

    def _run(self, source: str, name: str) -> None:
        others = torch.get_default_dtype()  # some chapters compute in double precision
        torch.set_default_dtype(self.precision)
        try:
            exec(compile(source, f"<{name}>", "exec"), self.names)
        finally:
            self.precision = torch.get_default_dtype()
            torch.set_default_dtype(others)
