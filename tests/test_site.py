"""The built pages, looked at in a headless Chromium: what a reader gets, in light and dark, wide and narrow.

Needs book/_build/html (`make book`) and a Chromium or Chrome on this machine. Without either the tests are
skipped, unless SLOTLIB_REQUIRE_BROWSER=1, as in CI.
"""

import functools
import http.server
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[1]
HTML = ROOT / "book" / "_build" / "html"
ALL = sorted(str(path.relative_to(HTML)) for path in HTML.rglob("*.html") if "_static" not in path.parts)
SAMPLED = ("slotlib/slot_attention.html", "slotlib/data/records.html", "_modules/slotlib/vq.html")
"""Of the library's pages, which are all made in one way: a long one, one with tables, one of source."""
PAGES = [page for page in ALL if not page.startswith(("slotlib/", "_modules/")) or page in SAMPLED]
CHAPTERS = [page for page in PAGES if page.startswith("chapters/")]
REQUIRED = os.environ.get("SLOTLIB_REQUIRE_BROWSER") == "1"
BROWSERS = (
    "chromium-headless-shell",  # the same engine without windows: pages open in half the time
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
)
MAC_BROWSER = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
PHONE, DESKTOP = 390, 1280


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    if not PAGES:
        message = f"there is no built book in {HTML}: run `make book` first"
        pytest.fail(message) if REQUIRED else pytest.skip(message)


# --- a browser and a server -------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    executable = next(filter(None, map(shutil.which, (*BROWSERS, MAC_BROWSER))), None)
    if executable is None:
        message = f"no browser: the built pages were not checked (looked for {', '.join(BROWSERS)})"
        pytest.fail(message) if REQUIRED else pytest.skip(message)
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    if sys.platform == "linux" and os.geteuid() == 0:
        quiet.append("--no-sandbox")  # Chromium's sandbox refuses to run as root
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=quiet)
        yield running
        running.close()


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The book, served on this machine; the address ends in a slash."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=HTML))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@dataclass
class Log:
    """What a page did while it was open."""

    foreign: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@contextmanager
def visit(browser, base: str, page: str, *, theme: str = "light", width: int = DESKTOP):
    """Open a page as a new reader whose system has this theme and window; yields the tab and its log."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    log = Log()

    def request(route):
        url = route.request.url
        if url.startswith((base, "data:", "blob:")):
            route.continue_()
        else:
            log.foreign.append(url)
            route.abort()

    context.route("**/*", request)
    tab = context.new_page()
    tab.on("response", lambda r: log.missing.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    tab.on("console", lambda m: log.errors.append(m.text) if m.type == "error" else None)
    tab.on("pageerror", lambda error: log.errors.append(str(error)))
    tab.goto(base + page, wait_until="networkidle")
    tab.wait_for_function(TYPESET)
    yield tab, log
    context.close()


# Formulas far from what is seen come last.
TYPESET = "() => ![...document.querySelectorAll('.math')].some(formula => !formula.querySelector('mjx-container'))"


# Two visits to each page, shared by all tests that look at it. pytest keeps the tests of one visit together.


@pytest.fixture(scope="module", params=PAGES)
def page(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def desk(browser, site, page):
    with visit(browser, site, page) as seen:
        yield seen


@pytest.fixture(scope="module")
def phone(browser, site, page):
    with visit(browser, site, page, width=PHONE) as seen:
        yield seen


# --- every page -------------------------------------------------------------------------------


def test_it_asks_no_other_host_and_has_no_errors(desk):
    _, log = desk
    assert log.foreign == []
    assert log.missing == []
    assert log.errors == []


def test_it_shows_its_pictures_with_alt_text(desk):
    tab, _ = desk
    for image in tab.locator("main img").all():
        # Those far down wait until they are near; here they are told not to. What cannot be decoded is an error.
        shown, alt = image.evaluate(
            "async i => { i.loading = 'eager'; await i.decode(); return [i.naturalWidth > 0, i.alt]; }"
        )
        assert shown, image.get_attribute("src")
        assert alt.strip(), f"no alt text: {image.get_attribute('src')}"


def test_it_shows_its_mathematics(desk):
    tab, _ = desk
    written = tab.locator("main .math").count()
    assert tab.locator("main .math mjx-container").count() >= written
    assert tab.locator("mjx-merror, [data-mjx-error]").all_inner_texts() == []
    # For screen readers MathJax writes the formula a second time, as MathML.
    assert tab.locator("main .math mjx-assistive-mml").count() >= written


def test_it_fits_a_phone(phone):
    tab, log = phone
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE
    # Whatever is wider scrolls in its own box, and none of it lies left of where scrolling begins.
    for formula in tab.locator("main div.math > mjx-container").all():
        assert formula.evaluate("e => e.getBoundingClientRect().x >= -1"), formula.inner_text()
    assert log.errors == []


def test_its_links_inside_the_book_lead_somewhere(page):
    source = HTML / page
    for link in parsed(source).select("a[href], link[href], script[src], img[src]"):
        target = link.get("href") or link.get("src")
        address = urlsplit(target)
        if address.scheme or address.netloc or target == "#":
            continue
        file = (source.parent / unquote(address.path)).resolve() if address.path else source
        assert file.exists(), target
        if address.fragment and file.suffix == ".html":
            assert unquote(address.fragment) in places(file), target


@functools.cache
def places(path: Path) -> set[str]:
    """The names by which links lead to a place on a page."""
    named = parsed(path).find_all("a", {"name": True})
    return {element["id"] for element in parsed(path).find_all(id=True)} | {element["name"] for element in named}


@functools.cache
def parsed(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text("utf-8"), "html.parser")


# --- chapters ---------------------------------------------------------------------------------


def test_solutions_and_answers_open(desk, page):
    tab, _ = desk
    folds, open_at_first, shut_at_last = tab.evaluate(FOLDS)
    assert open_at_first == []
    assert shut_at_last == []
    assert folds > 0 or page not in CHAPTERS


# Not those of labs: a lab that comes into view brings its own. What is inside a fold may be folded itself.
FOLDS = """() => {
  const folds = [...document.querySelectorAll("article details")].filter(fold => !fold.closest("section[data-lab]"));
  const inside = fold => fold.querySelector(":scope > :not(summary)");
  const seen = fold => inside(fold).checkVisibility();
  const said = fold => fold.textContent.trim().slice(0, 60);
  const open = folds.filter(seen).map(said);
  for (const fold of folds) fold.querySelector("summary").click();
  return [folds.length, open, folds.filter(fold => !seen(fold)).map(said)];
}"""


@pytest.mark.parametrize("chapter", CHAPTERS[:1])
def test_a_chapter_also_works_as_a_file(browser, chapter):
    """A reader may unpack the pages and open them without any server."""
    with visit(browser, HTML.as_uri() + "/", chapter) as (tab, log):
        assert tab.locator("mjx-container").count() > 0
        lab = tab.locator("section[data-lab]").first
        lab.scroll_into_view_if_needed()
        tab.wait_for_selector('section[data-lab][data-state="ready"]')
        assert lab.locator("canvas").count() > 0
        assert log.foreign == []
        assert log.errors == []


# --- the model zoo ----------------------------------------------------------------------------


def test_every_shipped_model_is_in_the_zoo_with_its_pictures_or_scores():
    zoo = parsed(HTML / "book" / "model_zoo.html")
    pictures = {Path(image["src"]).name for image in zoo.select("figure img")}
    for card in sorted((ROOT / "data" / "checkpoints").glob("*.json")):
        section = zoo.find(id=f"zoo-{card.stem.replace('_', '-')}")
        mend = f"{card.stem} is missing: run `python book/tools/zoo.py`, then `make book`"
        kind = json.loads(card.read_text("utf-8"))["model"]
        if kind in ("SlotAutoencoder", "SVQAutoencoder"):
            shown = f"{card.stem}_scenes.png" in pictures
        else:  # a table of scores; patches have dreams to show besides
            shown = section and section.find_parent("section").find("table")
            if kind == "PatchVQVAE":
                shown = shown and f"{card.stem.replace('patches', 'dreams_svq')}.png" in pictures
        assert section and shown, mend


# --- the whole book ---------------------------------------------------------------------------


def test_the_front_door_opens_the_landing_page(browser, site):
    with visit(browser, site, "") as (tab, _):
        tab.wait_for_url("**/book/index.html")
        assert "Slot Attention" in tab.title()


def test_search_finds_a_word(browser, site):
    with visit(browser, site, "search.html?q=softmax") as (tab, log):
        tab.wait_for_selector("#search-results ul.search li a")
        assert log.errors == []


def test_github_pages_serves_the_underscore_folders():
    assert (HTML / ".nojekyll").exists()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("", {"repository": False, "colab": False}),
        ("https://github.com/owner/name", {"repository": True, "colab": True}),
        ("https://example.org/owner/name", {"repository": True, "colab": False}),
    ],
)
def test_only_buttons_that_lead_somewhere_are_shown(monkeypatch, address, expected):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "ext"))
    import slotbook

    options = {
        "repository_url": address,
        "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    }
    slotbook.offer_only_live_buttons(None, SimpleNamespace(html_theme_options=options))
    assert options["use_repository_button"] == expected["repository"]
    assert ("launch_buttons" in options) == expected["colab"]


def test_the_pages_show_the_buttons_that_the_address_allows():
    import yaml

    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
    on_github = (config["repository"]["url"] or "").startswith("https://github.com/")
    for page in CHAPTERS:
        assert ("colab.research.google.com" in (HTML / page).read_text("utf-8")) == on_github
