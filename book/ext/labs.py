"""Labs in the built pages: experiments that need no kernel (book/lab).

In a notebook a lab takes a widget's place. A cell tagged `lab:desk`, or `lab:desk?slots=9` for settings of its own,
keeps its widget in Jupyter. In the page a section stands there, with the picture that was stored with the widget and a
sentence; book/lab/src/shell.ts finds it. On a page of text the directive `{lab} landing` holds what stands there until
the lab runs.
"""

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, cast

from docutils import nodes
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

TAG = "lab:"
VIEW = "application/vnd.jupyter.widget-view+json"
SENTENCE = "This experiment runs in your browser, with JavaScript. Until it does, the picture shows one of its states."

ASKED = ("<summary>Answer</summary>", "<strong>Predict.</strong>")


def put_labs_in_place(app: Sphinx, doctree: nodes.document) -> None:
    """Exchange the widgets of tagged cells. A page without any other widget does not load the widget library."""
    env = app.env
    scripts = NbMetadataCollector.get_js_files(cast(Any, env), env.docname)
    for cell in doctree.findall(nodes.container):
        metadata = cell.get("cell_metadata", {})
        lab = lab_of(metadata)
        if lab is None:
            continue
        state = json.loads(scripts["ipywidgets_state"][1]["body"])["state"]
        for view in list(_views(cell)):
            html = section(lab, picture(state, json.loads(_content(view))["model_id"]), _alt(metadata))
            view.replace_self(nodes.raw("", html, format="html"))
    if not any(_views(doctree)):
        for name in [name for name in scripts if name.startswith("ipywidgets")]:
            del scripts[name]


def lab_of(metadata: Mapping[str, Any]) -> str | None:
    """What a cell is tagged with: the name of a lab, and perhaps settings."""
    return next((tag.removeprefix(TAG) for tag in metadata.get("tags", []) if tag.startswith(TAG)), None)


def section(lab: str, image: str, alt: str) -> str:
    """The place of a lab, as it is until it runs. `image` is a PNG in base64."""
    return f'{opening(lab)}<img alt="{escape(alt)}" src="data:image/png;base64,{image}"><p>{SENTENCE}</p></section>'


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
        before, after = (nodes.raw("", html, format="html") for html in (opening(self.arguments[0]), "</section>"))
        return [before, *inside.children, after]


def picture(state: Mapping[str, Any], model_id: str) -> str:
    """The first image within a stored widget, as PNG in base64. Raises StopIteration if it has none."""
    return next(_images(state, model_id))


def _images(state: Mapping[str, Any], model_id: str) -> Iterator[str]:
    model = state[model_id]
    if model["model_name"] == "ImageModel":
        yield next(buffer["data"] for buffer in model["buffers"] if buffer["path"] == ["value"])
    for child in model["state"].get("children", []):
        yield from _images(state, child.removeprefix("IPY_MODEL_"))


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
    app.connect("doctree-read", put_labs_in_place)
    app.connect("html-page-context", load_them)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
