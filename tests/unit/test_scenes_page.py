"""What the page "The scenes" says can be run, runs; and its pictures are what the generators draw today."""

import importlib.util
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from slotlib import cli, data


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


def test_every_sheet_is_on_the_page(page, tool):
    for sheet in [*tool.SHEETS, "likeness"]:
        assert f"assets/scenes/{sheet}.png" in page


def test_the_sheets_show_what_is_drawn(tool):
    """The middle pixel of each scene in the stored picture is that of the scene drawn now."""
    for sheet, (name, count, options) in tool.SHEETS.items():
        stored = np.asarray(Image.open(tool.FOLDER / f"{sheet}.png").convert("RGB")).reshape(-1, 3).astype(int)
        batch = data.make(name, count, **options).batch(range(count))
        side = batch["image"].shape[-1]
        colours = (batch["image"][:, :, side // 2, side // 2] * 255).round().int().numpy()
        known = {tuple(colour) for colour in np.unique(stored, axis=0)}
        # Another processor may round a colour of the ray tracer by one step.
        near = [any((abs(np.array(c) - np.array(k)) <= 1).all() for k in known) for c in colours]
        assert all(near), f"{sheet}.png is out of date: run book/tools/scenes.py"
