"""The contract every chapter keeps (CONTRIBUTING.md), and what of it an appendix keeps that is a notebook.

nbval checks separately that the outputs still hold.
"""

import itertools
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUDGET = 120  # seconds on two cores
CHECK = re.compile(r"\bcheck\w*\(")  # slotlib.course.check, or a function of the chapter that calls it
SIZE = 8e6  # bytes; readers on a phone load the page

sys.path.insert(0, str(ROOT / "book" / "tools"))
import stamp  # noqa: E402

NOTEBOOKS = stamp.notebooks()
CHAPTERS = [path for path in NOTEBOOKS if path.parent.name == "chapters"]
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
every_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def read(path):
    import nbformat  # slow to import, and all processes collect this file

    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def tags(cell):
    return cell.metadata.get("tags", [])


def prose(path):
    return "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


def printed(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def pictures(cell):
    """What a cell shows: images, and widgets with a picture in them."""
    shown = ("image/", "application/vnd.jupyter.widget-view")
    return [o for o in cell.outputs if any(kind.startswith(shown) for kind in o.get("data", {}))]


# --- the file ---------------------------------------------------------------------------------


@every_notebook
def test_the_file_is_a_clean_notebook(path):
    import nbformat

    notebook = read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert path.stat().st_size < SIZE
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    for name in ids:
        # Jupyter's own ids are random: links and reviews need ones that mean something.
        assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name), f"cell id {name!r} is no slug"
        assert not re.fullmatch(r"(?=.*\d)[0-9a-f]{8}", name), f"cell id {name!r} looks random"


@every_notebook
def test_every_code_cell_was_executed_in_order_without_error(path):
    cells = code_cells(path)
    assert all(cell.source.strip() for cell in cells), "an empty code cell"
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert not [o for o in cell.outputs if o.output_type == "error"], cell.id
        assert not {"raises-exception", "skip-execution", "nbval-skip"} & set(tags(cell)), cell.id


@every_notebook
def test_it_was_measured_and_fits_its_time_budget(path):
    timings = json.loads((ROOT / "slotlib" / "timings.json").read_text("utf-8"))
    assert path.stem in timings, "run `make execute`"
    seconds = timings[path.stem]["cpu"]["seconds"]
    assert 0 < seconds <= BUDGET
    assert f"Run time: {seconds} s on " in printed(code_cells(path)[0])


@every_notebook
def test_nothing_that_can_be_compared_is_left_uncompared(path):
    cells = code_cells(path)
    ignored = [cell.id for cell in cells if "nbval-ignore-output" in tags(cell)]
    assert len(ignored) <= max(2, len(cells) // 5), f"too many cells are not compared: {ignored}"


# --- how it opens -----------------------------------------------------------------------------


@every_notebook
def test_the_setup_cell_is_the_stamped_one(path):
    first = code_cells(path)[0]
    assert stamp.setup_block(stamp.address()) in first.source, "run `make stamp`"
    assert f'slotlib.course.begin("{path.stem}")' in first.source


@every_chapter
def test_it_opens_with_question_objectives_and_prerequisites(path):
    before_code = itertools.takewhile(lambda cell: cell.cell_type == "markdown", read(path).cells)
    text = "\n\n".join(cell.source for cell in before_code)
    assert text.startswith("# "), "the first line is the title"
    assert "?" in text, "no question"
    assert re.search(r"objective|you (can|will|should be able)", text, re.IGNORECASE), "no objectives"
    assert re.search(r"prerequisite|you need|builds on", text, re.IGNORECASE), "no prerequisites"


@every_chapter
def test_it_names_the_module_it_explains(path):
    assert re.search(r"slotlib/\w+\.py|slotlib\.\w+", prose(path))


# --- what it teaches with ---------------------------------------------------------------------


@every_chapter
def test_it_asks_the_reader_to_predict(path):
    assert "> **Predict.**" in prose(path)


@every_chapter
def test_what_is_built_by_hand_is_asserted(path):
    assert any(re.search(r"\bassert\b|assert_close", cell.source) for cell in code_cells(path))


@every_chapter
def test_it_cites_papers_and_numbers_its_equations(path):
    text = prose(path)
    number = int(path.stem[:2])
    assert "https://arxiv.org/abs/" in text
    equations = re.findall(r"\\tag\{([^}]*)\}", text)
    assert equations, "no numbered equation"
    assert len(set(equations)) == len(equations), "an equation number is used twice"
    assert all(re.fullmatch(rf"{number}\.\d+[a-z]?", tag) for tag in equations), equations
    mentioned = set(re.findall(rf"[Ee]quations? \(({number}\.\d+[a-z]?)\)", text))
    assert mentioned <= set(equations), f"no such equation: {mentioned - set(equations)}"


@every_chapter
def test_it_has_a_live_widget_with_stored_state(path):
    live = [cell for cell in code_cells(path) if "widget-live" in tags(cell)]
    assert live
    state = read(path).metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    for cell in live:
        shown = [
            o.data["application/vnd.jupyter.widget-view+json"]["model_id"]
            for o in cell.outputs
            if "application/vnd.jupyter.widget-view+json" in o.get("data", {})
        ]
        assert shown, f"{cell.id} shows no widget"
        assert set(shown) <= set(state), f"the state of {cell.id} was not stored"
    names = {model["model_name"] for model in state.values()}
    assert "ImageModel" in names, "without a kernel the page needs the picture in the state"


@every_chapter
def test_exercises_have_starters_and_folded_solutions(path):
    """At least three: a task, a starter that is not solved yet, a folded solution that is."""
    cells = read(path).cells
    solutions = [
        i
        for i, cell in enumerate(cells)
        if cell.cell_type == "code" and "hide-cell" in tags(cell) and CHECK.search(cell.source)
    ]
    assert len(solutions) >= 3
    for i in solutions:
        solution, earlier = cells[i], cells[:i]
        assert solution.metadata.get("jupyter", {}).get("source_hidden"), f"{solution.id} is not folded in Jupyter"
        assert "✓" in printed(solution), f"{solution.id} does not pass its own check"
        assert "not yet" not in printed(solution), f"{solution.id} does not pass its own check"
        starter = next(cell for cell in reversed(earlier) if cell.cell_type == "code")
        assert CHECK.search(starter.source), f"{solution.id} has no starter before it"
        assert "not yet" in printed(starter), f"{starter.id} is solved before the reader begins"
        assert "it raised" not in printed(starter), f"{starter.id} greets the reader with an exception"
    kinds = prose(path).lower()
    for kind in ("warm-up", "build", "research"):
        assert kind in kinds, f"no {kind} exercise"


@every_chapter
def test_it_has_a_quiz_with_folded_answers(path):
    text = prose(path)
    answers = re.findall(r"<details>\s*<summary>.*?</summary>(.*?)</details>", text, re.DOTALL)
    assert len(answers) >= 3
    for answer in answers:
        # Without the blank lines Markdown inside the fold is shown as it is written.
        assert answer.startswith("\n\n"), f"no blank line before {answer[:60]!r}"
        assert answer.endswith("\n\n"), f"no blank line after {answer[-60:]!r}"
        assert len(answer.split()) >= 5, f"not an explanation: {answer!r}"


# --- how it reads elsewhere -------------------------------------------------------------------


@every_notebook
def test_its_text_is_plain_markdown(path):
    """It is read in Jupyter and in Colab too, where MyST directives and roles are only noise."""
    text = re.sub(r"`[^`\n]+`", "", prose(path).replace("```", "\0"))
    assert not re.search("\0\\{", text), "a MyST directive"
    assert not re.search(r"\{(cite|ref|eq|numref|doc|term|math)(:\w+)?\}", text), "a MyST role"
    assert ":::" not in text, "a MyST fence"


@every_notebook
def test_links_to_neighbours_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if not re.match(r"[a-z]+:|#", target):
            assert (path.parent / target.partition("#")[0]).exists(), target


@every_notebook
def test_every_figure_has_caption_name_and_alt_text(path):
    names = []
    for cell in code_cells(path):
        if not pictures(cell):
            continue
        described = cell.metadata.get("mystnb", {})
        figure, alt = described.get("figure", {}), described.get("image", {}).get("alt", "")
        assert len(figure.get("caption", "")) >= 20, f"{cell.id}: no caption"
        assert len(alt) >= 40, f"{cell.id}: alt text {alt!r} does not replace the picture"
        prefix = path.stem[:2] if path in CHAPTERS else path.stem.replace("_", "-")
        assert re.fullmatch(rf"fig-{prefix}-[a-z0-9-]+", figure.get("name", "")), f"{cell.id}: figure name"
        # The metadata describe one picture.
        assert len(pictures(cell)) == 1, f"{cell.id} draws {len(pictures(cell))} pictures"
        names.append(figure["name"])
    assert names, "no figure"
    assert len(set(names)) == len(names)


@every_notebook
def test_markdown_images_have_alt_text(path):
    assert not re.search(r"!\[\s*\]\(", prose(path))
    assert not re.search(r"<img(?![^>]*\balt=)", prose(path))


@every_notebook
def test_setup_and_imports_are_folded(path):
    first, second = (cell for cell in read(path).cells if cell.id in ("setup", "imports"))
    assert "hide-input" in tags(first) and "hide-input" in tags(second)
