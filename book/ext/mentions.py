r"""What the prose names leads to where it stands: equations, chapters, terms of the glossary.

Authors write "equation (3.4)", "chapter 04", "weighted mean", in notebooks and docstrings alike, and here these become
links. An equation is known by its `\tag{3.4}`, and one that nobody wrote is an error of the build. A term is linked
where a page first uses it; the glossary's entry ends with the chapter that explains it, and leads to the place there.
A link to a paper, which a notebook needs wherever it is read, leads in the book to its entry among the references.
"""

import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.domains.std import StandardDomain
from sphinxcontrib.bibtex.domain import BibtexDomain

ROOT = Path(__file__).parents[2]
GLOSSARY = "book/glossary"

EVERYDAY = {"block", "code", "duplicate", "input", "iteration", "matching", "price", "restarts", "set"}
"""Terms that are also words of every day. They are linked only in the chapters that explain them."""

NO_PROSE = (
    nodes.title,
    nodes.literal,
    nodes.literal_block,
    nodes.reference,
    nodes.math,
    nodes.math_block,
    nodes.raw,
    nodes.caption,
    nodes.table,
    nodes.term,
    addnodes.pending_xref,
    addnodes.desc_signature,
)

Link = Callable[[re.Match[str], nodes.Text], addnodes.pending_xref | None]
"""Of a mention: the reference that takes its place, if any. Its text is added."""


def prose(doctree: nodes.document) -> list[nodes.Text]:
    """What is written to be read: no headings, code, outputs, tables, formulas or links."""
    return [text for text in doctree.findall(nodes.Text) if not any(map(_is_no_prose, around(text)))]


def _is_no_prose(node: nodes.Element) -> bool:
    return isinstance(node, NO_PROSE) or "cell_output" in node.get("classes", ())


def around(node: nodes.Node) -> Iterator[nodes.Element]:
    """What a node stands in, the nearest first."""
    while node := node.parent:
        yield cast(nodes.Element, node)


def join_lines(app: Sphinx, doctree: nodes.document) -> None:
    """Make one text of the lines of a paragraph, so that what is named may run over the end of one."""
    for element in doctree.findall(nodes.TextElement):
        joined: list[nodes.Node] = []
        for child in element:
            if isinstance(child, nodes.Text) and joined and isinstance(joined[-1], nodes.Text):
                joined[-1] = nodes.Text(joined[-1] + child)
            else:
                joined.append(child)
        element[:] = joined


def put_links(doctree: nodes.document, pattern: re.Pattern[str], link: Link) -> None:
    for text in prose(doctree):
        pieces, end = [], 0
        for found in pattern.finditer(text):
            reference = link(found, text)
            if reference is not None:
                reference += nodes.inline("", found[0], classes=["mention"])
                pieces += [nodes.Text(text[end : found.start()]), reference]
                end = found.end()
        if pieces:
            text.parent.replace(text, [*pieces, nodes.Text(text[end:])])


def _reference(page: str, kind: str, target: str) -> addnodes.pending_xref:
    where = {"refdomain": "std", "reftype": kind, "reftarget": target, "refdoc": page}
    return addnodes.pending_xref("", refexplicit=True, refwarn=True, **where)


def _name(app: Sphinx, name: str, place: nodes.Element, label: str) -> None:
    """Make a place known by a name to the whole book."""
    place["ids"].append(label)
    cast(StandardDomain, app.env.get_domain("std")).note_hyperlink_target(name.lower(), app.env.docname, label)


# --- equations ---

NUMBER = re.compile(r"(?<![\d.])[1-9]\.\d+(?![\d.])")
BEFORE = re.compile(r"(?:[Ee]quations?\s\(?|\()(?:[1-9]\.\d+\)?(?:, | and | to )\(?)*$")
"""What stands before an equation's number: "equation", a bracket, and perhaps other equations."""


def name_equations(app: Sphinx, doctree: nodes.document) -> None:
    for block in doctree.findall(nodes.math_block):
        for number in re.findall(r"\\tag\{([\d.]+)\}", block.astext()):
            _name(app, f"equation {number}", block, f"equation-{number.replace('.', '-')}")


def link_equations(app: Sphinx, doctree: nodes.document) -> None:
    def link(found: re.Match[str], text: nodes.Text) -> addnodes.pending_xref | None:
        meant = BEFORE.search(text[: found.start()])
        return _reference(app.env.docname, "ref", f"equation {found[0]}") if meant else None

    put_links(doctree, NUMBER, link)


# --- chapters ---


@functools.cache
def chapters() -> dict[int, str]:
    """The chapters' documents by their numbers."""
    paths = (ROOT / "chapters").glob("[0-9][0-9]_*.ipynb")
    return {int(path.name[:2]): f"chapters/{path.stem}" for path in paths}


def link_chapters(app: Sphinx, doctree: nodes.document) -> None:
    def link(found: re.Match[str], text: nodes.Text) -> addnodes.pending_xref | None:
        chapter = chapters().get(int(found[1]))
        known = chapter is not None and chapter != app.env.docname
        return _reference(app.env.docname, "doc", f"/{chapter}") if known else None

    put_links(doctree, re.compile(r"\b[Cc]hapter\s(\d\d?)\b"), link)


# --- terms ---


@functools.cache
def terms() -> dict[str, tuple[str, str]]:
    """What terms are called: of each form the heading of its entry, and the chapter that explains it.

    An entry may have several headings; the first stands for it, and "average precision (AP)" has two forms.
    """
    text, found = (ROOT / f"{GLOSSARY}.md").read_text("utf-8"), {}
    for headings, definition in re.findall(r"((?:^\w.*\n)+)((?:^  .*\n)+)", text, re.MULTILINE):
        chapter = re.search(r"Chapter\s+(\d+)\.\s*$", definition)
        explained = headings.splitlines()[0], chapters().get(int(chapter[1]) if chapter else 0, "")
        found |= {form: explained for form in re.split(r" \(|\)?\n", headings) if form}
    return found


@functools.cache
def _any_term() -> re.Pattern[str]:
    """Any of the forms, the longest first; small ones also at the start of a sentence, and in the plural."""
    forms = sorted(terms(), key=len, reverse=True)
    either = [
        f"[{form[0]}{form[0].upper()}]{re.escape(form[1:])}" if form[0].islower() else re.escape(form) for form in forms
    ]
    return re.compile(rf"(?<![\w-])({'|'.join(either)})s?(?![\w-])".replace(r"\ ", r"\s"))


def link_terms(app: Sphinx, doctree: nodes.document) -> None:
    """The first use of each. The glossary leads back to the first that is emphasised, else to the first."""
    page = app.env.docname
    if not page.startswith(("chapters/", "book/")) or page == GLOSSARY:
        return
    places: dict[str, nodes.Text] = {}

    def link(found: re.Match[str], text: nodes.Text) -> addnodes.pending_xref | None:
        form = " ".join(found[1].split())
        form = form if form in terms() else form[0].lower() + form[1:]
        heading, chapter = terms()[form]
        if form in EVERYDAY and page != chapter:
            return None
        first = heading not in places
        if first or (_is_emphasised(text) and not _is_emphasised(places[heading])):
            places[heading] = text
        return _reference(page, "term", heading) if first else None

    put_links(doctree, _any_term(), link)
    index = addnodes.index(entries=[])  # for the search
    for heading, text in places.items():
        label = f"term-{nodes.make_id(heading)}"
        _name(app, f"{heading} in {page}", text.parent, label)
        forms = [form for form, explained in terms().items() if explained == (heading, page)]
        index["entries"] += [("single", form, label, "main", None) for form in forms]
    doctree += index


def _is_emphasised(text: nodes.Text) -> bool:
    return isinstance(text.parent, nodes.strong | nodes.emphasis)


def lead_back(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """From the glossary to the place in the chapter."""
    if page != GLOSSARY:
        return
    labels = cast(StandardDomain, app.env.get_domain("std")).anonlabels
    for entry in doctree.findall(nodes.definition_list_item):
        heading = next(entry.findall(nodes.term)).astext()
        for chapter in chapters().values():
            place = labels.get(f"{heading} in {chapter}".lower())
            for reference in entry.findall(nodes.reference):
                if place and reference.get("refuri") == app.builder.get_relative_uri(page, chapter):
                    reference["refuri"] += f"#{place[1]}"


# --- papers ---


def link_papers(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """From a link to a paper to its entry among the references, which holds the same link."""
    papers = cast(BibtexDomain, app.env.get_domain("cite")).citations
    entries = {url: paper for paper in papers if (url := paper.entry.fields.get("url"))}
    for link in doctree.findall(nodes.reference):
        paper = entries.get(link.get("refuri"))
        if paper and page != (references := paper.bibliography_key.docname):
            link["refuri"] = f"{app.builder.get_relative_uri(page, references)}#{paper.citation_id}"
            link["internal"] = True


def setup(app: Sphinx) -> dict[str, bool]:
    for mention in (join_lines, name_equations, link_equations, link_chapters, link_terms):
        app.connect("doctree-read", mention)
    for resolved in (lead_back, link_papers):
        app.connect("doctree-resolved", resolved)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
