"""What the page "The scenes" says can be run, runs; and its pictures are what the generators draw today."""

import importlib.util
import io
import json
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from slotlib import cli, plots


@pytest.fixture(scope="module")
def page(root):
    return (root / "book/scenes.md").read_text("utf-8")


@pytest.fixture(scope="module")
def tool(root):
    spec = importlib.util.spec_from_file_location("scenes_tool", root / "book/tools/scenes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_code_on_the_page_runs(page, tmp_path, monkeypatch, capsys):
    """All Python and all `slotlib data` lines, in the order of the page, in one empty folder."""
    monkeypatch.chdir(tmp_path)
    names = {}
    for language, code in re.findall(r"```(python|bash)\n(.*?)```", page, re.DOTALL):
        if language == "python":
            exec(code, names)
            continue
        for line in code.replace("\\\n", "").splitlines():
            program, *arguments = shlex.split(line)
            assert program == "slotlib"
            if arguments[0] == "data":
                cli.main(arguments)
    assert names["scene"]["image"].shape == (3, 64, 64)
    assert (tmp_path / "scenes.png").exists()
    assert "objects per image" in capsys.readouterr().out


def test_the_numbers_of_likeness_are_those_measured(page, root):
    measured = json.loads((root / "benchmarks/likeness.json").read_text("utf-8"))
    for look, of in measured["tetrominoes"].items():
        assert of["same_mask"]
        assert f'| `look="{look}"` | {of["on_pieces"]:.1f} | {of["absolute_difference"]:.1f} |' in page

    def overlap(of: dict) -> str:
        return f"{of['median']:.3f} / {of['least']:.3f}".replace("0.", ".")

    first, published = measured["sprites"]["first"], measured["sprites"]["published"]
    for shape in ("square", "ellipse", "heart"):
        a, b = first[shape], published[shape]
        real, *drawn = (", ".join(map(str, pixels)) for pixels in (a["real"], a["drawn"], b["drawn"]))
        assert f"| {shape} | {real} | {drawn[0]} | {overlap(a)} | {drawn[1]} | {overlap(b)} |" in page
    assert f"| all | | | {overlap(first)} | | {overlap(published)} |" in page


def test_every_sheet_is_on_the_page(page, tool):
    for sheet in [*tool.SHEETS, "likeness"]:
        assert f"assets/scenes/{sheet}.png" in page


@pytest.mark.parametrize("sheet", ["tetrominoes", "shapes", "colour_on_grey", "colour_on_colour", "clevr"])
def test_the_sheets_show_what_is_drawn(tool, sheet):
    """The stored picture is the one drawn now, but for a little rounding."""
    plots.use_style()
    now = io.BytesIO()
    tool.draw(sheet).savefig(now, dpi=tool.DPI, bbox_inches="tight")
    stored, drawn = (np.asarray(Image.open(file).convert("RGBA"), int) for file in (tool.FOLDER / f"{sheet}.png", now))
    assert stored.shape == drawn.shape
    apart = abs(stored - drawn).max(-1) > 8
    assert apart.mean() < 0.01, f"{sheet}.png is out of date: run book/tools/scenes.py"
