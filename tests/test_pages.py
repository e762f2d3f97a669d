"""The built pages for readers who use a keyboard, a screen reader, a phone, paper, a slow line or no JavaScript.

Needs book/_build/html (`make book`) and a browser, as test_site.py.
"""

import functools
import gzip
import http.server
import re
import threading
from collections.abc import Iterator
from importlib.resources import files
from types import SimpleNamespace

import pytest
import test_site
from docutils import nodes
from docutils.utils import new_document
from PIL import Image
from test_site import CHAPTERS, DESKTOP, HTML, PAGES, PHONE, ROOT, SAMPLED, parsed, visit

browser, built = test_site.browser, test_site.built  # fixtures
AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
TEXTS = [page for page in PAGES if page not in (*SAMPLED, "index.html")]  # index.html only leads on
FIRST_VIEW = 1.5e6  # bytes of a chapter, before scrolling
SLOWDOWN, PATIENCE = 4, 4  # a phone against this machine; seconds
SMALLEST = 2 / 3  # of a figure's own size, on a phone


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The book as a web server sends it, compressed."""

    class Compressing(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_GET(self):
            path, kind = self.translate_path(self.path), self.guess_type(self.path.partition("?")[0])
            try:
                content = compressed(path)
            except OSError:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Compressing, directory=HTML))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@functools.cache
def compressed(path: str) -> bytes:
    with open(path, "rb") as file:
        return gzip.compress(file.read(), 6)


# --- everybody --------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [*TEXTS, *SAMPLED])
def test_no_page_shuts_anybody_out(browser, site, page):
    with visit(browser, site, page) as (tab, log):
        tab.evaluate(AXE)
        if tab.locator("section[data-lab]").count():
            tab.locator("section[data-lab]").scroll_into_view_if_needed()
            tab.wait_for_selector('section[data-lab][data-state="ready"]')
        assert violations(tab) == []
        tab.emulate_media(color_scheme="dark")
        tab.wait_for_selector("html[data-theme=dark]")
        # Colours that fade have faded; what turns for ever is not waited for.
        tab.evaluate(FADED)
        assert violations(tab, runOnly=["color-contrast"]) == []
        # Figures are drawn for both themes and get no light panel in the dark one.
        assert tab.eval_on_selector_all("article .cell_output img", PANELS) == []
        tab.set_viewport_size({"width": PHONE, "height": 900})
        tab.wait_for_timeout(600)  # the theme looks for what scrolls 300 ms after a change
        # Colours are the same there, and looking at them takes the longest.
        assert violations(tab, rules={"color-contrast": {"enabled": False}}) == []
        assert log.errors == []


PANELS = """images => images
  .map(image => [image.src, getComputedStyle(image).backgroundColor, getComputedStyle(image).filter])
  .filter(([_, ground, filter]) => ground !== "rgba(0, 0, 0, 0)" || filter !== "none")"""

FADED = """() => Promise.race([
  new Promise(done => setTimeout(done, 1000)),
  Promise.allSettled(document.getAnimations().map(animation => animation.finished)),
])"""


def violations(tab, rules: dict | None = None, **which: object) -> list[str]:
    """What axe-core calls serious or critical, of all rules or those named."""
    more = {"label-content-name-mismatch": {"enabled": True}}
    run = {"resultTypes": ["violations"], "preload": False, "rules": {**more, **(rules or {})}, **which}
    found = tab.evaluate("run => axe.run(document, run)", run)["violations"]
    return [
        f"{violation['id']}: {node['html'][:200]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


# --- slow lines, slow machines ----------------------------------------------------------------


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_is_light_at_first_view(browser, site, page):
    context = browser.new_context(viewport={"width": DESKTOP, "height": 900})
    tab = context.new_page()
    wire, sent = context.new_cdp_session(tab), {}
    wire.send("Network.enable")
    wire.on("Network.loadingFinished", lambda event: sent.update({event["requestId"]: event["encodedDataLength"]}))
    tab.goto(site + page, wait_until="networkidle")
    context.close()
    assert 100_000 < sum(sent.values()) < FIRST_VIEW


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_is_soon_still(browser, site, page):
    """Nothing keeps the page busy for long: what its thread computes until it is quiet, on a machine four times slower.

    Seconds of the processor and not of the clock, which would count what else this machine does. The best of five
    tries, since what shares the processor's memory slows it down too.
    """
    assert any(SLOWDOWN * busy(browser, site + page) < PATIENCE for _ in range(5))


def busy(browser, address: str) -> float:
    """Seconds that the page's thread has computed when another second brings next to nothing more."""
    context = browser.new_context(viewport={"width": DESKTOP, "height": 900})
    tab = context.new_page()
    wire = context.new_cdp_session(tab)
    wire.send("Performance.enable", {"timeDomain": "threadTicks"})
    tab.goto(address)
    before, now = -1.0, 0.0
    while now - before > 0.02:
        tab.wait_for_timeout(1000)
        metrics = {entry["name"]: entry["value"] for entry in wire.send("Performance.getMetrics")["metrics"]}
        before, now = now, metrics["TaskDuration"]
    context.close()
    return now


@pytest.mark.parametrize("page", TEXTS)
def test_no_page_loads_what_it_does_not_use(page):
    assert not re.search(r"fontawesome\.js|embed\.js|require\.js|jupyter\.widget", (HTML / page).read_text("utf-8"))


@pytest.mark.parametrize("page", TEXTS)
def test_pictures_wait_until_they_are_near_and_keep_their_place(page):
    for image in parsed(HTML / page).select("article img[src*=_images]"):
        assert image["loading"] == "lazy"
        with Image.open(HTML / "_images" / image["src"].rpartition("/")[2]) as picture:
            assert int(image["width"]) * picture.height == pytest.approx(int(image["height"]) * picture.width, rel=0.02)


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_link_to_a_formula_leads_there_whatever_is_typeset_above_it(browser, site, page):
    last = parsed(HTML / page).select("article div.math[id]")[-1]["id"]
    with visit(browser, site, f"{page}#{last}") as (tab, _):
        assert 0 <= tab.locator(f"#{last}").bounding_box()["y"] < 100


# --- phones and keyboards ---------------------------------------------------------------------


@pytest.mark.parametrize("page", [*CHAPTERS, "book/model_zoo.html"])
def test_a_phone_shows_letters_large_enough_and_the_keyboard_scrolls_what_is_wide(browser, site, page):
    with visit(browser, site, page, width=PHONE) as (tab, _):
        tab.wait_for_timeout(300)
        shown = tab.eval_on_selector_all("article .picture img", "images => images.map(image => image.width)")
        tab.evaluate("document.querySelectorAll('article details').forEach(fold => { fold.open = true })")
        tab.wait_for_timeout(300)
        wide = tab.evaluate(WIDE)
        own = [int(image["width"]) for image in parsed(HTML / page).select("article .picture img")]
        for width, natural in zip(shown, own, strict=True):
            assert width == 0 or width >= SMALLEST * natural - 1  # 0: a closed page of a flipbook
        assert {"picture", "pre"} <= {kind for kind, *_ in wide}
        for kind, *reached in wide:
            assert all(reached), kind


# What is wider than its box: whether it scrolls in it, takes the keyboard, and has a name, but for code and what it
# prints, which is text.
WIDE = """() => [...document.querySelectorAll("article :is(.picture, div.math, pre)")]
  .filter(e => e.scrollWidth > e.clientWidth + 1)
  .map(e => e.matches("pre")
    ? ["pre", getComputedStyle(e).overflowX === "auto", e.tabIndex === 0]
    : [e.classList[0], getComputedStyle(e).overflowX === "auto", e.tabIndex === 0,
       e.getAttribute("role") === "group", e.getAttribute("aria-label")])"""


# --- paper ------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", CHAPTERS[:1])
def test_paper_is_white_and_shows_what_the_page_folds(browser, site, page):
    with visit(browser, site, page, theme="dark") as (tab, _):
        tab.evaluate("() => addEventListener('beforeprint', () => { window.printed = true })")
        folds = tab.locator("article details:not([open])").count()
        assert folds > 0
        assert len(tab.pdf(format="A4")) > 100_000
        assert tab.evaluate("window.printed")
        assert tab.evaluate("document.documentElement.dataset.theme") == "dark"  # and back again
        assert tab.locator("article details:not([open])").count() == folds

        tab.emulate_media(media="print", color_scheme="dark")
        tab.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert tab.evaluate("document.documentElement.dataset.theme") == "light"
        assert tab.locator("article details:not([open])").count() == 0
        assert tab.locator("article .cell_input pre:visible").count() == tab.locator("article .cell_input pre").count()
        assert not tab.locator("#pst-primary-sidebar").is_visible()
        assert not tab.locator("#pst-secondary-sidebar").is_visible()
        cut = "pres => pres.filter(pre => pre.scrollWidth > pre.clientWidth + 1).map(pre => pre.innerText)"
        assert tab.eval_on_selector_all("article pre", cut) == []


# --- without JavaScript -----------------------------------------------------------------------


@pytest.mark.parametrize("page", CHAPTERS)
def test_without_javascript_pictures_stand_for_what_is_alive_and_formulas_are_tex(browser, site, page):
    context = browser.new_context(java_script_enabled=False, viewport={"width": PHONE, "height": 900})
    tab = context.new_page()
    tab.goto(site + page)
    for alive in tab.locator("section[data-lab], .flipbook").all():
        image = alive.locator("img").first
        assert image.get_attribute("alt")
        assert image.bounding_box()["height"] > 50
    assert tab.locator(".flipbook input").count() == 0 or not tab.locator(".flipbook input").first.is_visible()
    formulas = tab.locator("article .math").all()
    assert formulas
    for formula in formulas[:20]:
        assert "\\" in formula.inner_text()
        if formula.bounding_box():
            assert formula.bounding_box()["width"] <= PHONE
    context.close()


# --- flipbooks --------------------------------------------------------------------------------


def test_a_flipbook_turns_its_pages_in_the_page(browser, site, monkeypatch):
    """As it would stand on a page; the chapters' own are labs there now."""
    monkeypatch.syspath_prepend(str(ROOT / "book" / "ext"))
    import labs

    pages = [nodes.image(uri=f"{site}_static/{name}.svg") for name in ("logo", "favicon")]
    markup = "".join(
        f'<img src="{part["uri"]}" class="{" ".join(part["classes"])}">' if part in pages else part.astext()
        for part in labs.stand_in(None, "slope", pages)
    )
    content = (HTML / CHAPTERS[0]).read_text("utf-8").replace("</article>", f"{markup}</article>")
    context = browser.new_context(viewport={"width": DESKTOP, "height": 900})
    tab = context.new_page()
    tab.route(f"**/{CHAPTERS[0]}", lambda route: route.fulfill(body=content, content_type="text/html"))
    tab.goto(site + CHAPTERS[0])
    book = tab.locator(".flipbook")
    assert book.locator("img:visible").count() == 1
    first = book.locator("img:visible").get_attribute("src")
    book.locator("input").press("End")
    assert book.locator("img:visible").count() == 1
    assert book.locator("img:visible").get_attribute("src") != first
    context.close()


# --- how long a chapter takes -----------------------------------------------------------------


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_says_how_long_it_takes(page):
    chapter = parsed(HTML / page)
    line = chapter.select_one("article p.reading-time").get_text()
    whole = int(re.match(r"About (\d+) minutes", line)[1])
    assert 5 < whole < 180
    sections, left_out = chapter.select("article section > section:has(> h2)"), chapter.select("section.detour > h2")
    if left_out:
        assert len(left_out) < len(sections)
        assert int(re.search(r"takes (\d+) minutes", line)[1]) < whole
    assert bool(left_out) == ("short path" in line)


@pytest.fixture
def pages(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "ext"))
    import pages

    return pages


def chapter(*parts: nodes.Node) -> tuple[SimpleNamespace, nodes.document]:
    document = new_document("chapter")
    document += nodes.section("", nodes.title(text="A chapter"), *parts)
    return SimpleNamespace(env=SimpleNamespace(docname="chapters/unmeasured")), document


def words(count: int) -> nodes.paragraph:
    return nodes.paragraph(text="word " * count)


def test_two_hundred_words_take_a_minute_and_the_short_path_takes_what_it_names(pages):
    opening = nodes.paragraph("", "", nodes.strong(text="Short path."), nodes.Text(" "), nodes.emphasis(text="One"))
    first, second = (
        nodes.section("", nodes.title(text=title), words(count)) for title, count in (("One thing", 395), ("Two", 600))
    )
    app, document = chapter(opening, first, second)
    pages.tell_time(app, document)
    assert document[0][1].astext().startswith("About 5 minutes of reading. Without what is marked")
    assert document[0][1].astext().endswith("takes 2 minutes.")
    assert pages.DETOUR in second["classes"] and pages.DETOUR not in first["classes"]


def test_folded_code_takes_no_time(pages):
    def cell(**fold) -> nodes.container:
        source = nodes.literal_block(text="\n".join("x" * 90))
        return nodes.container("", source, nb_element="cell_code", **fold)

    took = []
    for fold in ({}, {"hide_mode": "input"}):
        app, document = chapter(words(300), cell(**fold))
        pages.tell_time(app, document)
        took.append(document[0][1].astext())
    assert took == ["About 5 minutes of reading.", "About 2 minutes of reading."]


def test_a_short_path_through_no_section_is_an_error(pages, monkeypatch):
    said = []
    monkeypatch.setattr(pages.logger, "warning", lambda text, *parts, **_: said.append(text % parts))
    opening = nodes.paragraph("", "", nodes.strong(text="Short path."), nodes.emphasis(text="Elsewhere"))
    pages.tell_time(*chapter(opening, nodes.section("", nodes.title(text="Here"), words(9))))
    assert said == ["the short path names 'Elsewhere', and no section starts so"]


@pytest.mark.parametrize("resolution", [96, 192])
def test_a_picture_is_as_wide_as_its_inches_whatever_its_resolution(pages, tmp_path, resolution):
    path = tmp_path / "picture.png"
    Image.new("RGB", (5 * resolution, 2 * resolution)).save(path, dpi=(resolution, resolution))
    assert pages.size(path) == (480, 192)
