"""The live page: labs answer in the built book, say what PyTorch says, and fail without harm.

Needs book/_build/html (`make book`) and a browser, as test_site.py; the tests of the sources need node and `npm ci` in
book/lab, and are skipped without, unless SLOTLIB_REQUIRE_NODE=1, as in CI.
"""

import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
from urllib.parse import urlsplit

import pytest
import test_site
from test_site import HTML, PHONE, ROOT, visit

browser, built, site = test_site.browser, test_site.built, test_site.site  # fixtures
LAB = ROOT / "book" / "lab"
BUNDLES = ROOT / "book" / "assets" / "lab"
DESK = "chapters/03_object_discovery.html"
PATIENCE = 30_000  # ms; a lab answers in a tenth of a second, but test machines are busy


# --- the sources ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node():
    if shutil.which("npm") is None or not (LAB / "node_modules").is_dir():
        message = "no node or no book/lab/node_modules: run `npm ci` in book/lab"
        pytest.fail(message) if os.environ.get("SLOTLIB_REQUIRE_NODE") == "1" else pytest.skip(message)
    return functools.partial(subprocess.run, cwd=LAB, check=True, timeout=300)


def test_bundles_are_what_the_sources_give(node, tmp_path):
    node(["node", "build.js", str(tmp_path)])
    fresh = {path.name: path.read_bytes() for path in tmp_path.glob("*.js")}
    committed = {path.name: path.read_bytes() for path in BUNDLES.glob("*.js")}
    assert fresh.keys() == committed.keys()
    for name, content in fresh.items():
        assert content == committed[name], f"{name} is not what book/lab gives: run `make labs`"


@pytest.mark.parametrize("script", ["check", "test"])
def test_sources_pass_their_own_checks(node, script):
    node(["npm", "run", "--silent", script])


def test_the_shell_knows_the_version_of_every_script_that_it_loads():
    known = re.search(r'\{("[\w./]+\.js":"[0-9a-f]{8}",?)+\}', (BUNDLES / "shell.js").read_text("utf-8"))
    files = [path for path in BUNDLES.rglob("*.js") if path.name != "shell.js"]
    versions = {
        path.relative_to(BUNDLES).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:8] for path in files
    }
    assert known and json.loads(known[0]) == versions, "run `make labs`"


# --- in the page ------------------------------------------------------------------------------


def start(tab, state="ready"):
    """Scroll to the lab and wait until it is in this state."""
    section = tab.locator("section[data-lab]")
    section.scroll_into_view_if_needed()
    arrived(tab, state)
    return section


def arrived(tab, state="ready"):
    tab.wait_for_selector(f'section[data-lab="desk"][data-state="{state}"]', timeout=PATIENCE)


SEEN = """section => [
  ...[...section.querySelectorAll("canvas:not([hidden])")].map(canvas => canvas.toDataURL()),
  ...[...section.querySelectorAll("[data-lab-value]")].map(value => value.textContent),
].join(" ")"""


SETTLED = f"""async section => {{
  const see = {SEEN};
  for (let tries = {PATIENCE // 50}, shown = see(section), still = 0; tries; tries--) {{
    await new Promise(resume => setTimeout(resume, 50));
    const before = shown;
    shown = see(section);
    still = shown === before && !section.querySelector("[aria-busy]") ? still + 1 : 0;
    if (still === 3) return shown;
  }}
  return null;
}}"""


def seen(section) -> str:
    """All that a lab shows but for what its controls say of themselves, once it has answered and nothing changes."""
    shown = section.evaluate(SETTLED)
    assert shown is not None, "it never stops changing"
    return shown


def changed(section, before: str) -> str:
    for _ in range(PATIENCE // 50):
        if section.evaluate(SEEN) != before:
            return seen(section)
        section.page.wait_for_timeout(50)
    pytest.fail("it shows what it showed before")


def move(control) -> None:
    """Set a control to something else, as a reader at the keyboard would."""
    kind = control.evaluate("c => c.type ?? c.tagName.toLowerCase()")
    if kind == "range":
        at_end = control.evaluate("c => c.value === c.max")
        control.press("ArrowLeft" if at_end else "ArrowRight")
    elif kind == "select-one":
        values = control.evaluate("c => [...c.options].map(o => o.value)")
        control.select_option(next(value for value in values if value != control.input_value()))
    else:
        control.press("Space")


def drag(tab, box, far: tuple[float, float]) -> None:
    """With the mouse, from the middle of `box`."""
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + far[0], y + far[1], steps=5)
    tab.mouse.up()


def swipe(tab, box, far: float) -> None:
    """With a finger, downwards from the middle of `box`."""
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    finger = tab.context.new_cdp_session(tab)
    for kind, down in (("touchStart", 0), ("touchMove", far / 2), ("touchMove", far), ("touchEnd", None)):
        touches = [] if down is None else [{"x": x, "y": y + down}]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})


CONTROLS = "input, select, button:not([data-lab-aside])"


def name_of(control) -> str:
    """Its accessible name."""
    return control.evaluate("c => (c.labels?.[0]?.querySelector('span') ?? c).textContent.trim()")


@pytest.mark.parametrize("base", ["file", "http"])
def test_it_answers_from_a_file_and_from_a_server(browser, site, base):
    with visit(browser, HTML.as_uri() + "/" if base == "file" else site, DESK) as (tab, log):
        assert tab.locator("section[data-lab]").get_attribute("data-state") == "idle"  # not seen, not loaded
        section = start(tab)
        assert section.locator("canvas:visible").count() > 5
        assert (log.foreign, log.missing, log.errors) == ([], [], [])


@pytest.mark.parametrize("base", ["file", "http"])
def test_a_script_is_asked_for_by_what_is_in_it(browser, site, base):
    with visit(browser, HTML.as_uri() + "/" if base == "file" else site, DESK) as (tab, _):
        asked = []
        tab.on("request", lambda request: asked.append(urlsplit(request.url)))
        start(tab)
        loaded = {url.path.partition("/lab/")[2]: url.query for url in asked if "/lab/" in url.path}
        versions = {
            name: "v=" + hashlib.sha256((BUNDLES / name).read_bytes()).hexdigest()[:8]
            for name in ("desk.js", "weights/tetrominoes.js")
        }
        assert loaded == versions


def test_every_control_moves_what_is_shown(browser, site):
    with visit(browser, site, DESK) as (tab, log):
        section = start(tab)
        before, moved = seen(section), set()
        for control in section.locator(CONTROLS).all():
            name = name_of(control)
            assert name, control.evaluate("c => c.outerHTML")
            if control.is_disabled():
                continue
            move(control)
            before = changed(section, before)
            moved.add(name)
        assert {"Reset"} < moved
        assert log.errors == []


def test_reset_leads_back(browser, site):
    with visit(browser, site, DESK) as (tab, _):
        section = start(tab)
        before = seen(section)
        reset = section.get_by_role("button", name="Reset", exact=True)
        assert reset.is_disabled()  # there is nothing to reset
        section.get_by_role("slider", name="Slots", exact=True).press("ArrowRight")
        changed(section, before)
        reset.press("Enter")
        assert seen(section) == before


def values(section) -> dict[str, str]:
    return dict(
        section.locator(".lab-readout").evaluate_all("all => all.map(r => [...r.children].map(c => c.textContent))")
    )


def python_says(code: str) -> dict[str, str | float]:
    """What the code that the page shows computes, as its readouts say it."""
    names = {}
    exec(code, names)
    owners = names["out"].masks[0].argmax(0)
    pixels = [str(int((owners == k).sum())) for k in range(names["out"].masks.shape[1])]
    said = {"Pixels of each slot": " ".join(pixels), "Squared error": float(names["squared_error"])}
    if "fg_ari" in names:
        said["FG-ARI, drawn"] = f"{float(names['fg_ari']):.3f}"
    return said


@pytest.mark.parametrize(
    "settings",
    [
        "scene=3",
        "scene=5&slots=7&iterations=3&start=11",
        "scene=1&restarts=4&start=2",
        "sigma=0.5&start=4",
        "model=shapes&slots=7&iterations=16&start=1",
        "model=multi_dsprites&slots=6&iterations=8&scene=2&start=9",
        "model=tetrominoes_tiling&iterations=8&sigma=0",
        "model=tetrominoes_collapse&iterations=8",
    ],
)
def test_page_and_pytorch_give_the_same_numbers(browser, site, settings):
    with visit(browser, site, f"{DESK}#lab=desk&{settings}") as (tab, _):
        section = start(tab)
        seen(section)
        shown = values(section)
        code = section.locator(".lab-code code").text_content()
    expected = python_says(code)
    error = expected.pop("Squared error")
    assert {name: shown[name] for name in expected} == expected
    assert float(shown["Squared error"]) == pytest.approx(error, rel=2e-3)


def test_a_scene_of_the_readers_own_goes_to_python_as_a_picture(browser, site, tmp_path, monkeypatch):
    with visit(browser, site, DESK) as (tab, _):
        section = start(tab)
        before = seen(section)
        section.get_by_role("button", name="Turn", exact=True).press("Enter")
        changed(section, before)
        with tab.expect_download() as download:
            section.get_by_role("button", name="Save as PNG", exact=True).press("Enter")
        download.value.save_as(tmp_path / "scene.png")
        shown = values(section)
        code = section.locator(".lab-code code").text_content()
    monkeypatch.chdir(tmp_path)
    assert python_says(code)["Pixels of each slot"] == shown["Pixels of each slot"]


def test_a_piece_can_be_dragged_and_moved_by_keys(browser, site):
    with visit(browser, site, DESK) as (tab, log):
        section = start(tab)
        before = seen(section)
        piece = section.locator(".lab-handle").first
        assert "arrow keys" in piece.get_attribute("aria-label")
        piece.focus()
        piece.press("ArrowDown")
        before = changed(section, before)
        piece.press("t")
        before = changed(section, before)
        for far in [(-60, 40), (-500, 3000)]:  # far outside, too
            drag(tab, piece.bounding_box(), far)
            before = changed(section, before)
        assert section.get_attribute("data-state") == "ready"
        assert log.errors == []


def test_a_finger_drags_a_piece_and_does_not_scroll_the_page(browser, site):
    context = browser.new_context(viewport={"width": PHONE, "height": 800}, has_touch=True, is_mobile=True)
    tab = context.new_page()
    tab.goto(site + DESK)
    section = start(tab)
    before, scrolled = seen(section), tab.evaluate("scrollY")
    swipe(tab, section.locator(".lab-handle").nth(1).bounding_box(), 35)
    changed(section, before)
    assert tab.evaluate("scrollY") == scrolled
    context.close()


def test_a_scene_may_be_empty(browser, site):
    with visit(browser, site, DESK) as (tab, log):
        section = start(tab)
        while section.get_by_role("button", name="Remove", exact=True).is_enabled():
            section.get_by_role("button", name="Remove", exact=True).press("Enter")
            seen(section)
        assert section.locator(".lab-handle:visible").count() == 0
        before = seen(section)
        section.get_by_role("button", name="Add", exact=True).press("Enter")
        changed(section, before)
        assert section.locator(".lab-handle:visible").count() == 1
        assert log.errors == []


def test_its_settings_are_in_the_address_and_links_set_them(browser, site):
    with visit(browser, site, DESK) as (tab, _):
        section = start(tab)
        section.get_by_role("slider", name="Slots", exact=True).press("ArrowRight")
        tab.wait_for_function("location.hash === '#lab=desk&slots=5'")
        before = seen(section)
        tab.evaluate("location.hash = '#lab=desk&slots=9&iterations=2'")
        changed(section, before)
        assert len(values(section)["Pixels of each slot"].split()) == 9
        assert section.get_by_role("slider", name="Slots", exact=True).input_value() == "9"
        assert section.get_by_role("slider", name="Iterations", exact=True).input_value() == "2"


def test_a_link_from_elsewhere_starts_it(browser, site):
    with visit(browser, site, f"{DESK}#lab=desk&slots=9&iterations=99&nonsense=1") as (tab, log):
        arrived(tab)
        assert tab.get_by_role("slider", name="Slots", exact=True).input_value() == "9"
        assert log.errors == []


def test_a_button_starts_it_too(browser, site):
    with visit(browser, site, DESK) as (tab, _):
        tab.locator("[data-lab-start]").evaluate("button => button.click()")
        arrived(tab)
        assert tab.locator("[data-lab-start]").count() == 0


def test_nothing_moves_by_itself_for_readers_who_want_none(browser, site):
    with visit(browser, site, DESK) as (tab, _):
        tab.emulate_media(reduced_motion="reduce")
        section = start(tab)
        play = section.get_by_role("button", name="Play", exact=True)
        for iteration in ("1", "2"):
            play.press("Enter")
            tab.wait_for_timeout(1200)  # two frames
            assert section.get_by_role("slider", name="Iteration shown", exact=True).input_value() == iteration


def test_it_fits_a_phone(browser, site):
    with visit(browser, site, DESK, width=PHONE) as (tab, log):
        start(tab)
        assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE
        assert log.errors == []


# --- what can go wrong ------------------------------------------------------------------------


def damage(tab, change) -> None:
    """Weights reach the page other than they are."""

    def altered(route):
        name = urlsplit(route.request.url).path.rpartition("/")[2]
        route.fulfill(body=change((BUNDLES / "weights" / name).read_text("utf-8")), content_type="text/javascript")

    tab.route("**/weights/*.js*", altered)


TROUBLES = {
    "weights that are missing": lambda tab: tab.route("**/weights/*.js*", lambda route: route.abort()),
    "a number that changed": lambda tab: damage(tab, lambda text: text.replace('"data": "', '"data": "AAAA', 1)),
    "half of the weights": lambda tab: damage(tab, lambda text: text[: len(text) // 2]),
    "weights of something else": lambda tab: damage(tab, lambda _: "(slotlab.weights ??= {}).other = 3;"),
    "no lab": lambda tab: tab.route("**/lab/desk.js*", lambda route: route.abort()),
    "no workers": lambda tab: tab.evaluate("() => { window.Worker = undefined; }"),
    "workers that may not start": lambda tab: tab.evaluate(
        """() => {
          const rule = document.createElement("meta");
          rule.httpEquiv = "Content-Security-Policy";
          rule.content = "worker-src 'none'";
          document.head.append(rule);
        }"""
    ),
}


REST = """async () => {
  const read = () => {
    const page = document.querySelector("article").cloneNode(true);
    page.querySelector("section[data-lab]").remove();
    return page.innerHTML;
  };
  for (let before = null, now = read(); ; before = now, now = read()) {
    if (before === now) return now;
    await new Promise(resume => setTimeout(resume, 500));
  }
}"""
"""All of a page but its lab, once nothing changes there: the theme gives what scrolls a place among what the keyboard
reaches, 300 ms after the page has its size."""


@pytest.mark.parametrize("trouble", TROUBLES)
def test_what_fails_is_said_in_one_sentence_and_leaves_the_page_as_it_was(browser, site, trouble):
    with visit(browser, site, DESK) as (tab, _):
        before = tab.evaluate(REST)
        TROUBLES[trouble](tab)
        section = start(tab, state="failed")
        assert section.locator("[role=alert]").inner_text().startswith("This experiment could not start")
        assert section.locator("img").is_visible()  # the picture is back
        assert section.locator("canvas").count() == 0
        assert tab.evaluate(REST) == before


def test_another_model_that_cannot_be_loaded_is_said_too(browser, site):
    with visit(browser, site, DESK) as (tab, _):
        section = start(tab)
        tab.route("**/weights/shapes.js*", lambda route: route.abort())
        section.get_by_role("combobox", name="Model").select_option("shapes")
        start(tab, state="failed")


def test_without_javascript_a_picture_and_a_sentence_stand_there(browser):
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(f"{HTML.as_uri()}/{DESK}")
    section = tab.locator("section[data-lab]")
    image = section.locator("img")
    assert image.get_attribute("alt") and image.bounding_box()["height"] > 50
    assert "JavaScript" in section.inner_text()
    assert section.locator("button").count() == 0  # none that would do nothing
    context.close()


def test_a_page_whose_widgets_are_all_labs_loads_no_widget_library():
    page = (HTML / DESK).read_text("utf-8")
    assert "jupyter.widget" not in page and "embed.js" not in page
    for other in HTML.rglob("*.html"):
        content = other.read_text("utf-8")
        assert ("lab/shell.js" in content) == ("<section data-lab=" in content), other
