"""What every built page gets: how long a chapter takes, which sections its short path leaves out, and pictures that
keep their place until they load. And the theme's script, without what keeps every page busy.

A chapter names its short path in its opening, `**Short path.** *Play first*, *Blocks* and *Dreaming*`: how the titles
of its sections start. What stands before the first of them is read in any case.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging

ROOT = Path(__file__).parents[2]
TIMINGS = ROOT / "slotlib" / "timings.json"

WORDS_A_MINUTE = 200
SECONDS_A_LINE = 2  # of open code; folded code is not read
SECONDS_A_FORMULA = 10
SECONDS_A_FIGURE = 15

SHORT_PATH = "Short path."
DETOUR = "detour"
"""Class of a section that the short path leaves out; book/assets/book.css marks it."""

DOTS_A_PIXEL = 96
"""A CSS inch is 96 pixels, so this is the resolution of a picture that does not say its own."""

PLAIN = re.compile(r'<span class="(?:n|p|w)">([^<]*)</span>')
"""Names, punctuation and space: two thirds of the words of code, in the colour that code has anyway."""

PARAMETERS = re.compile(r'<dl>\n((?:<dd><em class="sig-param">.*</dd>\n)+)</dl>')
"""Parameters of a long signature: a list of definitions in which nothing is defined."""

SCRIPTS = Path("_static", "scripts")
MEASURING = re.compile(r',"complete"===document\.readyState\?(\w+)\(\):window\.addEventListener\("load",\1\)')
"""The theme's last statement: at load, and after every change, measure all code, that in folds too, to see whether it
scrolls. book/assets/book.js looks at what is shown."""

logger = logging.getLogger(__name__)


def tell_time(app: Sphinx, doctree: nodes.document) -> None:
    """Under the title of a chapter: its time, and that of its short path, if it names one."""
    if not app.env.docname.startswith("chapters/"):
        return
    chapter = next(iter(doctree.findall(nodes.section)))
    sections = {part[0].astext(): part for part in chapter.children if isinstance(part, nodes.section)}
    told = [f"About {_minutes(chapter)} minutes of reading"]
    computing = json.loads(TIMINGS.read_text("utf-8")).get(Path(app.env.docname).name, {}).get("cpu")
    if computing:
        told.append(f", and {computing['seconds']} s of computing on {computing['cores']} cores")
    named = _short_path(chapter)
    if named:
        for name in named:
            if not any(title.startswith(name) for title in sections):
                logger.warning("the short path names %r, and no section starts so", name, location=chapter)
        detours = [section for title, section in sections.items() if not title.startswith(tuple(named))]
        for section in detours:
            section["classes"].append(DETOUR)
        left = _minutes(chapter, *detours)
        told.append(f". Without what is marked ▹, the short path takes {left} minutes")
    chapter.insert(1, nodes.paragraph("", "".join(told) + ".", classes=["reading-time"]))


def _short_path(chapter: nodes.section) -> set[str]:
    """The titles, or how they start, that the chapter's opening names; none if it has no short path."""
    for paragraph in (part for part in chapter.children if isinstance(part, nodes.paragraph)):
        if paragraph.astext().startswith(SHORT_PATH):
            return {part.astext() for part in paragraph.findall(nodes.emphasis)}
    return set()


def _minutes(whole: nodes.Element, *without: nodes.Element) -> int:
    return math.ceil((_seconds(whole) - sum(_seconds(part) for part in without)) / 60)


def _seconds(part: nodes.Element) -> float:
    """How long it takes to read this part. Printed output counts as part of the code that prints it."""
    words = sum(len(text.astext().split()) for text in part.findall(nodes.paragraph))
    lines = sum(source.astext().count("\n") + 1 for cell in _open_cells(part) for source in cell.findall(_is_source))
    formulas = sum(1 for _ in part.findall(nodes.math_block))
    figures = sum(1 for _ in part.findall(nodes.image))
    return (
        60 * words / WORDS_A_MINUTE + SECONDS_A_LINE * lines + SECONDS_A_FORMULA * formulas + SECONDS_A_FIGURE * figures
    )


def _open_cells(part: nodes.Element) -> Iterator[nodes.container]:
    return (
        cell
        for cell in part.findall(nodes.container)
        if cell.get("nb_element") == "cell_code" and not cell.get("hide_mode")
    )


def _is_source(node: nodes.Node) -> bool:
    return isinstance(node, nodes.literal_block) and "output" not in node["classes"]


def finish_page(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Pictures get their size, and load when they come near; folds are called what they say; code is lighter."""
    if doctree is None:
        return
    sources = {name: source for source, name in app.builder.images.items()}

    def sized(found: re.Match[str]) -> str:
        width, height = size(Path(app.srcdir) / sources[found["name"]])
        attributes = f'loading="lazy" width="{width}" height="{height}"'
        return f'<span class="picture" style="--width: {width}px"><img {attributes} {found["rest"]}></span>'

    body = re.sub(r'<img (?P<rest>[^>]*_images/(?P<name>[^"/]+)"[^>]*)>', sized, context["body"])
    # MyST-NB's label for all of them, which hides from screen readers what the fold holds.
    body = body.replace('<summary aria-label="Toggle hidden content">', "<summary>")
    body = PARAMETERS.sub(lambda found: f'<span class="sig-params">{found[1].replace("dd>", "span>")}</span>', body)
    # docutils calls citations a list, whose items it does not name.
    body = body.replace('<div role="list" class="citation-list">', '<div class="citation-list">')
    context["body"] = PLAIN.sub(r"\1", body)


def name_folds(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """The theme's list of pages folds without a word for screen readers."""
    contents = context["generate_toctree_html"]

    def named(*args: Any, **options: Any) -> str:
        return str(contents(*args, **options)).replace("<summary>", '<summary aria-label="Pages below">')

    context["generate_toctree_html"] = named


def trim_theme(app: Sphinx, error: Exception | None) -> None:
    """Write the script that book/templates/static/webpack-macros.html names."""
    if error or app.builder.format != "html":
        return
    folder = Path(app.outdir) / SCRIPTS
    script, found = MEASURING.subn("", (folder / "pydata-sphinx-theme.js").read_text("utf-8"))
    if found != 1:
        raise ExtensionError("the theme's script does not end as it did: see MEASURING in book/ext/pages.py")
    (folder / "theme.js").write_text(script, "utf-8")


def size(picture: Path) -> tuple[int, int]:
    """Width and height in CSS pixels: the picture's own inches, whatever its resolution."""
    with Image.open(picture) as image:
        dots = image.info.get("dpi", (DOTS_A_PIXEL,))[0]
        return tuple(round(DOTS_A_PIXEL * side / dots) for side in image.size)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", tell_time)
    app.connect("html-page-context", finish_page)
    app.connect("html-page-context", name_folds, priority=900)  # after the theme has brought its function
    app.connect("build-finished", trim_theme)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
