"""What stands in a built page where a notebook shows a widget: nobody answers there.

A cell tagged `lab:desk`, or `lab:desk?slots=9` for settings of its own, becomes a lab, an experiment that needs no
kernel (book/lab): a section with the picture that was stored with the widget and a sentence, which
book/lab/src/shell.ts finds. A flipbook of slotlib.widgets, whose pictures are all stored, gets a slider of the page
(book/assets/book.js). Any other widget becomes its picture and a sentence: a slider that moves nothing would lie.
On a page of text the directive `{lab} landing` holds what stands there until the lab runs.
"""

import base64
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any, cast

from docutils import nodes
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

TAG = "lab:"
VIEW = "application/vnd.jupyter.widget-view+json"
SENTENCE = "This experiment runs in your browser, with JavaScript. Until it does, the picture shows one of its states."
FROZEN = "In Jupyter the controls of this picture draw it anew."
FOLDER = "jupyter_execute"
"""Where MyST-NB puts the pictures of cells, beside the pages."""

ASKED = ("<summary>Answer</summary>", "<strong>Predict.</strong>")


def replace_widgets(app: Sphinx, doctree: nodes.document) -> None:
    """Exchange every widget of a page; the widget library and its state are not loaded."""
    env = app.env
    scripts = NbMetadataCollector.get_js_files(cast(Any, env), env.docname)
    for cell in doctree.findall(nodes.container):
        metadata = cell.get("cell_metadata", {})
        for view in list(_views(cell)) if metadata else []:
            state = json.loads(scripts["ipywidgets_state"][1]["body"])["state"]
            pages, name = stored(state, json.loads(_content(view))["model_id"])
            view.replace_self(stand_in(lab_of(metadata), name, [keep(app, page, _alt(metadata)) for page in pages]))
    for name in [name for name in scripts if name.startswith("ipywidgets")]:
        del scripts[name]


def lab_of(metadata: Mapping[str, Any]) -> str | None:
    """What a cell is tagged with: the name of a lab, and perhaps settings."""
    return next((tag.removeprefix(TAG) for tag in metadata.get("tags", []) if tag.startswith(TAG)), None)


def stored(state: Mapping[str, Any], model_id: str) -> tuple[list[str], str | None]:
    """The pictures within a stored widget, as PNG in base64, and the name of the slider that turns them, if one does.

    Raises ValueError if there is no picture.
    """
    parts = list(_parts(state, model_id))
    pictures = [
        next(buffer["data"] for buffer in part["buffers"] if buffer["path"] == ["value"])
        for part in parts
        if part["model_name"] == "ImageModel"
    ]
    if not pictures:
        raise ValueError(f"the widget {model_id} holds no picture")
    turned = any(part["model_name"] == "StackModel" for part in parts)
    names = (part["state"]["description"] for part in parts if part["model_name"] == "IntSliderModel")
    return pictures, next(names) if turned else None


def _parts(state: Mapping[str, Any], model_id: str) -> Iterator[Mapping[str, Any]]:
    model = state[model_id]
    yield model
    for child in model["state"].get("children", []):
        yield from _parts(state, child.removeprefix("IPY_MODEL_"))


def keep(app: Sphinx, picture: str, alt: str) -> nodes.image:
    """Write a PNG in base64 where the pictures of cells are, and show it from there."""
    content = base64.b64decode(picture)
    file = Path(app.outdir).parent / FOLDER / f"{hashlib.sha256(content).hexdigest()}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return nodes.image(uri="/" + Path(os.path.relpath(file, app.srcdir)).as_posix(), alt=alt)


def stand_in(lab: str | None, slider: str | None, pages: list[nodes.image]) -> list[nodes.Node]:
    """What takes a widget's place."""
    if lab is not None:
        return [_html(opening(lab)), pages[0], _html(f"<p>{SENTENCE}</p></section>")]
    if slider is None:
        return [pages[0], _html(f"<p>{FROZEN}</p>")]
    for page in pages[1:]:
        page["classes"].append("closed")
    control = f'<input type="range" min="0" max="{len(pages) - 1}" value="0">'
    return [
        _html(f'<div class="flipbook"><label class="pst-js-only">{escape(slider)} {control}</label><div>'),
        *pages,
        _html("</div></div>"),
    ]


def _html(text: str) -> nodes.raw:
    return nodes.raw("", text, format="html")


def opening(lab: str) -> str:
    name, _, settings = (escape(part) for part in lab.partition("?"))
    return f'<section data-lab="{name}" data-state="idle" data-settings="{settings}" id="lab-{name}">'


class Lab(SphinxDirective):
    """A lab on a page of text, such as `{lab} landing`; its content is a picture and a sentence."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        inside = nodes.Element()
        self.state.nested_parse(self.content, self.content_offset, inside)
        return [_html(opening(self.arguments[0])), *inside.children, _html("</section>")]


def _views(part: nodes.Element) -> Iterator[nodes.raw]:
    return (raw for raw in part.findall(nodes.raw) if VIEW in raw.astext())


def _content(view: nodes.raw) -> str:
    """What stands in the script that shows a widget."""
    return view.astext().partition(">")[2].partition("</script>")[0]


def _alt(metadata: Mapping[str, Any]) -> str:
    return metadata.get("mystnb", {}).get("image", {}).get("alt", "")


def load_them(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Pages with a lab get the script that starts it, and its style; pages that ask something, the one that listens."""
    body = context.get("body", "")
    if "<section data-lab=" in body:
        app.add_css_file("lab.css")
        app.add_js_file("lab/shell.js", loading_method="defer")
    if any(asked in body for asked in ASKED):
        app.add_js_file("lab/quiz.js", loading_method="defer")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("lab", Lab)
    app.connect("doctree-read", replace_widgets, priority=400)  # before Sphinx collects the pictures of the page
    app.connect("html-page-context", load_them)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
