"""What the prose names (equations, terms, letters), without building the book."""

import importlib
import json
import re
from pathlib import Path

import pytest
from docutils import nodes

ROOT = Path(__file__).parents[2]


@pytest.fixture
def mentions(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book/ext"))
    return importlib.import_module("mentions")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("by equation (3.4)", ["3.4"]),
        ("the masks of (3.1) are", ["3.1"]),
        ("equations (8.1) and (8.2), sampling", ["8.1", "8.2"]),
        ("its gradients (6.3 to 6.6; one step", ["6.3", "6.6"]),
        ("`prepare` (2.2, 2.8 and 2.9)", ["2.2", "2.8", "2.9"]),
        ("a limit of 0.3, 1.5 times (0.3)", []),
        ("it rose to 2.5 and 3.7", []),
    ],
)
def test_equations_are_told_from_numbers(mentions, text, numbers):
    found = mentions.NUMBER.finditer(text)
    assert [each[0] for each in found if mentions.BEFORE.search(text[: each.start()])] == numbers


def test_every_term_names_a_chapter_that_exists(mentions):
    headings = re.findall(r"^\w.*\n(?=  )", (ROOT / "book/glossary.md").read_text("utf-8"), re.MULTILINE)
    assert len({heading for heading, _ in mentions.terms().values()}) == len(headings)
    assert all(chapter for _, chapter in mentions.terms().values())


def test_every_day_words_are_terms(mentions):
    assert mentions.terms().keys() >= mentions.EVERYDAY


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Weighted means, then", "Weighted mean"),
        ("the slot-wise decoder", None),
        ("posterior masks", "posterior mask"),
        ("FG-ARI", "FG-ARI"),
        ("ap, and capable", None),
    ],
)
def test_forms_of_terms(mentions, text, found):
    match = mentions._any_term().search(text)
    assert (match and match[1]) == found


def test_prose_is_neither_heading_nor_code_nor_link_nor_formula(mentions):
    read = nodes.paragraph("", "slots ", nodes.strong("", "win"))
    passed = nodes.paragraph("", "", nodes.literal("", "a"), nodes.reference("", "b"), nodes.math("", "c"))
    output = nodes.container("", nodes.paragraph("", "d"), classes=["cell_output"])
    section = nodes.section("", nodes.title("", "e"), read, passed, output)
    assert mentions.prose(section) == ["slots ", "win"]


# --- notation ---


def test_notation_promises_only_letters_that_chapters_use():
    def plain(formula):
        return re.sub(r"[\s{}]|\\[,;!]", "", formula)

    cells = [
        "".join(cell["source"])
        for path in sorted((ROOT / "chapters").glob("*.ipynb"))
        for cell in json.loads(path.read_text("utf-8"))["cells"]
        if cell["cell_type"] == "markdown"
    ]
    used = [plain(a or b) for cell in cells for a, b in re.findall(r"\$\$(.*?)\$\$|\$(.*?)\$", cell, re.DOTALL)]
    tables = re.findall(r"^\| (\$.*?) \|", (ROOT / "book/notation.md").read_text("utf-8"), re.MULTILINE)
    symbols = [plain(symbol) for cell in tables for symbol in re.findall(r"\$(.*?)\$", cell)]
    # `q_i, k_j, v_j` are three symbols, `C(\hat y, y)` is one.
    symbols = [part for symbol in symbols for part in ([symbol] if "(" in symbol else symbol.split(","))]
    whole = r"(?<![A-Za-z\\]){}(?![A-Za-z])"
    missing = [each for each in symbols if not any(re.search(whole.format(re.escape(each)), math) for math in used)]
    assert len(symbols) > 40
    assert missing == []


def test_every_paper_that_a_chapter_links_is_among_the_references():
    listed = re.findall(r"url\s*=\s*\{(.*?)\}", (ROOT / "book/references.bib").read_text("utf-8"))
    for chapter in sorted((ROOT / "chapters").glob("*.ipynb")):
        text = "".join(
            "".join(cell["source"])
            for cell in json.loads(chapter.read_text("utf-8"))["cells"]
            if cell["cell_type"] == "markdown"
        )
        linked = set(re.findall(r"\]\((https://arxiv.org/abs/[^)]*)\)", text))
        assert linked and linked <= set(listed), f"{chapter.name}: {linked - set(listed)}"
