"""The library reference and what leads to it, in the built pages: modules, terms, equations, the search.

Needs book/_build/html (`make book`), and for the search a browser, as test_site.py.
"""

import functools
import os
import re

import pytest
import test_site
from test_site import CHAPTERS, HTML, parsed, visit

browser, built, site = test_site.browser, test_site.built, test_site.site  # fixtures
MODULES = sorted(str(path.relative_to(HTML)) for path in (HTML / "slotlib").rglob("*.html"))
SOURCES = sorted(str(path.relative_to(HTML)) for path in (HTML / "_modules/slotlib").rglob("*.html"))
ALL = sorted(str(path.relative_to(HTML)) for path in HTML.rglob("*.html") if "_static" not in path.parts)


@functools.cache
def links(page: str, selector: str = "article a[href]") -> list[tuple[str, str]]:
    """Where links within the book lead: a page and the name of a place on it, as "" where there is none."""
    found = []
    for link in parsed(HTML / page).select(selector):
        address, _, place = link["href"].partition("#")
        if "://" not in address and not address.startswith("mailto:"):
            file = (HTML / page).parent / address if address else HTML / page
            found.append((os.path.relpath(file.resolve(), HTML.resolve()), place))
    return found


@functools.cache
def places(page: str) -> set[str]:
    return {element["id"] for element in parsed(HTML / page).select("[id]")}


# --- modules ---


@pytest.mark.parametrize("page", [*MODULES, *SOURCES])
def test_links_of_modules_and_sources_lead_somewhere(page):
    for target, place in links(page):
        assert (HTML / target).exists(), target
        assert not place or place in places(target), f"{target}#{place}"


@pytest.mark.parametrize("page", MODULES)
def test_everything_that_runs_leads_to_its_lines_and_back(page):
    for entry in parsed(HTML / page).select("dl.py.function > dt, dl.py.class > dt, dl.py.method > dt"):
        source = entry.select_one("a.reference.internal:has(.viewcode-link)")
        assert source, entry["id"]
        lines = HTML / page, source["href"].partition("#")
        back = parsed((lines[0].parent / lines[1][0]).resolve()).find(id=lines[1][2])
        assert entry["id"] in str(back.select_one("a.viewcode-back")["href"])


@pytest.mark.parametrize("page", ALL)
def test_no_click_downloads_python(page):
    for link in parsed(HTML / page).select("a[href]"):
        assert "://" in link["href"] or not link["href"].partition("#")[0].endswith(".py"), link["href"]


def test_chapters_and_modules_lead_to_each_other():
    for chapter in CHAPTERS:
        modules = {page for page, _ in links(chapter, "p.modules a[href]")}
        assert modules, chapter
        for module in modules:
            assert (chapter, "") in links(module, ".uses a[href]"), f"{module} does not name {chapter}"


# --- terms and equations ---


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_terms_are_linked_once_and_in_prose_only(chapter):
    page = parsed(HTML / chapter)
    terms = page.select("article a:has(> .mention)")
    targets = [term["href"] for term in terms]
    assert len(targets) >= 5
    assert len(targets) == len(set(targets))
    for term in terms:
        assert not term.find_parent(["h1", "h2", "h3", "pre", "code", "figcaption"]), term
        assert not term.find_parent(class_="cell_output"), term


def test_the_glossary_leads_back_to_the_chapter_that_explains():
    glossary = "book/glossary.html"
    entries = parsed(HTML / glossary).select("dl.glossary > dd")
    places_in_chapters = [(page, place) for page, place in links(glossary) if page in CHAPTERS]
    assert len(places_in_chapters) >= len(entries)
    exact = [(page, place) for page, place in places_in_chapters if place]
    assert len(exact) > 0.8 * len(entries)
    for page, place in exact:
        assert place in places(page), f"{page}#{place}"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_equations_are_named_and_mentions_lead_to_them(chapter):
    number = int(re.search(r"(\d+)_", chapter)[1])
    tags = re.findall(rf"\\tag\{{{number}\.(\d+)\}}", str(parsed(HTML / chapter).article))
    assert tags
    assert {f"equation-{number}-{tag}" for tag in tags} <= places(chapter)
    mentioned = [(page, place) for page, place in links(chapter) if place.startswith("equation-")]
    assert mentioned
    for page, place in mentioned:
        assert place in places(page), f"{page}#{place}"


# --- the search ---


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("GRU update", "chapters/02_slot_attention.html"),
        ("train on your own images", "book/scenes.html"),
        ("download notebook", "book/how_to_run.html"),
        ("fg_ari", "slotlib/metrics.html"),
    ],
)
def test_the_search_finds_the_right_page_first(browser, site, words, page):
    with visit(browser, site, f"search.html?q={words.replace(' ', '+')}") as (tab, _):
        first = tab.locator("#search-results ul.search li > a").first
        first.wait_for()
        assert first.get_attribute("href").partition("#")[0].partition("?")[0] == page
