"""The labs without weights, each alone in a headless Chromium: queries on points, paint, cobweb; and the quizzes.

What they compute is tested against golden values in book/lab/test (Vitest); here these are compared with what slotlib
gives now, and the lines that a lab shows as its code are run.
"""

import contextlib
import io
import json
import re
import sys
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
import test_site
import torch
from test_labs import BUNDLES, LAB, drag, swipe
from test_site import DESKTOP, PHONE

QUIZ = BUNDLES / "quiz.js"
sys.path.insert(0, str(LAB))
import golden_pure  # noqa: E402

NAMES = ("queries", "paint", "cobweb")

browser = test_site.browser


# --- golden values ------------------------------------------------------------------------------


def nearly(value: Any) -> Any:
    """Equal to six digits where it is a number, and exactly otherwise."""
    if isinstance(value, float):
        return pytest.approx(value, rel=1e-6, abs=1e-7)
    if isinstance(value, dict):
        return {key: nearly(each) for key, each in value.items()}
    return [nearly(each) for each in value] if isinstance(value, list) else value


def test_golden_values_are_what_slotlib_gives():
    for path, values in golden_pure.written().items():
        assert json.loads(path.read_text("utf-8")) == nearly(values), path.name


# --- a lab on a page of its own -------------------------------------------------------------------


@contextmanager
def opened(browser, name: str, settings: str = "", width: int = DESKTOP, **context: Any):
    tab = browser.new_context(viewport={"width": width, "height": 900}, **context).new_page()
    errors = []
    tab.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto((LAB / "try.html").as_uri() + f"?{name}#lab={name}&{settings}")
    tab.wait_for_selector("section[data-state=ready]")
    yield tab
    assert errors == []
    tab.context.close()


def check_that_it_cannot_start(browser, name: str, spoil: Callable[[Any], object]) -> None:
    """On a page that was spoiled first, a lab says so in a sentence above what stood there before."""
    tab = browser.new_page()
    spoil(tab)
    tab.goto((LAB / "try.html").as_uri() + f"?{name}")
    tab.wait_for_selector("section[data-state=failed]")
    assert tab.locator("[role=alert]").inner_text().startswith("This experiment could not start")
    assert tab.locator("section p").last.inner_text() == "Here stands a picture."
    tab.close()


def readouts(tab) -> dict[str, str]:
    """What the lab shows in numbers, by name."""
    shown = tab.locator(".lab-readout").evaluate_all(
        "all => all.map(each => [each.firstChild.textContent, each.querySelector('output').textContent])"
    )
    return dict(shown)


def looks(tab) -> list[str]:
    """All that is shown: drawings, and what is computed."""
    tab.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return tab.evaluate(
        """() => [...[...document.querySelectorAll("canvas")].map((each) => each.toDataURL()),
                  ...[...document.querySelectorAll("output, [data-lab-value]")].map((each) => each.textContent)]"""
    )


def setting(tab) -> str:
    """What the page's address says, once it has followed."""
    tab.wait_for_timeout(400)
    return tab.evaluate("location.hash")


def slide(control, value: Any) -> None:
    control.evaluate(
        "(it, value) => { it.value = value; it.dispatchEvent(new Event('input', {bubbles: true})) }", value
    )


def code(tab) -> dict[str, str]:
    """Run the lines that the lab shows; what they print, by the first word or words of a line."""
    printed = io.StringIO()
    before = torch.get_default_dtype()
    try:
        with contextlib.redirect_stdout(printed):
            exec(tab.locator(".lab-code code").text_content(), {})
    finally:
        torch.set_default_dtype(before)
    return dict(re.match(r"(.*?) (?=[-\d])(.*)", line).groups() for line in printed.getvalue().splitlines())


@pytest.mark.parametrize("name", NAMES)
def test_every_control_has_a_name_and_changes_what_is_shown(browser, name):
    with opened(browser, name) as tab:
        controls = tab.locator("section :is(input, select, button):not([data-lab-aside], [data-lab-aside] *)")
        for i in range(controls.count()):
            control = controls.nth(i)
            label = control.evaluate("it => it.labels?.[0]?.textContent || it.ariaLabel || it.textContent")
            assert label.strip()
            if label == "Reset" or control.is_disabled():
                continue
            before = looks(tab)
            kind = control.evaluate("it => it.type")
            if kind == "range":
                low, high = (float(control.get_attribute(end)) for end in ("min", "max"))
                slide(control, high if float(control.input_value()) < (low + high) / 2 else low)
            elif kind == "select-one":
                options = control.locator("option").evaluate_all("all => all.map(each => each.value)")
                control.select_option(next(each for each in options if each != control.input_value()))
            else:
                control.click()
                tab.wait_for_timeout(700)  # "Play" takes its time
            assert looks(tab) != before, label
            reset = tab.get_by_role("button", name="Reset")
            if reset.is_enabled():
                reset.click()


@pytest.mark.parametrize("name", NAMES)
def test_reset_brings_the_start_back_and_the_address_says_what_is_set(browser, name):
    with opened(browser, name) as tab:
        before = looks(tab)
        slider = tab.locator("input[type=range]").first
        slide(slider, slider.get_attribute("max"))
        changed, address = looks(tab), setting(tab)
        assert changed != before
        tab.get_by_role("button", name="Reset").click()
        assert looks(tab) == before
        assert setting(tab) == f"#lab={name}"
        tab.evaluate(f"location.hash = {address!r}")
        tab.wait_for_timeout(100)
        assert looks(tab) == changed


@pytest.mark.parametrize("name", NAMES)
def test_it_fits_a_phone_in_the_dark_and_says_what_changed(browser, name):
    with opened(browser, name, width=PHONE, color_scheme="dark") as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE
        said = tab.locator("[role=status]")
        tab.wait_for_function("document.querySelector('[role=status]').textContent.length > 10")
        first = said.text_content()
        slider = tab.locator("input[type=range]").first
        slide(slider, slider.get_attribute("max"))
        tab.wait_for_function("first => document.querySelector('[role=status]').textContent !== first", arg=first)


@pytest.mark.parametrize("name", NAMES)
def test_nonsense_in_the_address_is_no_harm(browser, name):
    nonsense = "slope=steep&temperature=NaN&queries=99&scene=moon&points=%3C&painted=a99999&own=zzz&iterations=-4"
    with opened(browser, name, nonsense) as tab:
        assert len(set(looks(tab))) > 3


# --- queries on points ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        "",
        "softmax=queries&temperature=0.05&iterations=40&start=3&queries=8",
        "softmax=queries&world=clouds&temperature=1.5&queries=2&start=11",
        "world=ring&softmax=queries&iterations=3",
        "world=none&points=6o996ob46w90c8bee6b4&own=6o996ob4&softmax=queries&iterations=2",
    ],
)
def test_the_lines_for_queries_print_what_the_page_shows(browser, settings):
    with opened(browser, "queries", settings) as tab:
        tab.get_by_role("button", name="Try 50 starts").click()
        tab.wait_for_selector(".queries-tally table")
        rows = tab.locator(".queries-tally tr").all_inner_texts()[1:]
        shown, printed = readouts(tab), code(tab)
        assert shown["Free energy"] == printed["free energy"]
        assert shown["Found"].split()[0] == printed["found"]
        assert shown["Attention of each query"].split() == printed["attention"].split()
        column = 2 if "softmax=queries" in settings else 1
        tally = {level: int(times) for level, times in ((row.split()[0], row.split()[column]) for row in rows)}
        starts = re.findall(r"\d+", printed["50 starts"] if "50 starts" in printed else printed["50"])[-50:]
        assert {level: starts.count(level) for level in tally} == tally


def test_queries_are_dragged_with_the_pointer_and_the_keyboard(browser):
    with opened(browser, "queries", "softmax=queries") as tab:
        plane = tab.locator(".lab-draggable canvas").bounding_box()
        handle = tab.get_by_role("button", name="Query 1")
        drag(tab, handle.bounding_box(), (-2000, -2000))  # far outside: it stops at the edge
        tab.wait_for_timeout(100)
        box = handle.bounding_box()
        assert abs(box["x"] + box["width"] / 2 - plane["x"]) < 1.5
        assert abs(box["y"] + box["height"] / 2 - plane["y"]) < 1.5
        before = looks(tab)
        handle.focus()
        tab.keyboard.press("Shift+ArrowRight")
        assert looks(tab) != before
        assert "own=" in setting(tab)


def test_a_finger_drags_a_query_and_the_page_stays(browser):
    with opened(browser, "queries", "softmax=queries", width=PHONE, has_touch=True) as tab:
        box = tab.get_by_role("button", name="Query 1").bounding_box()
        swipe(tab, box, 60)
        assert "own=" in setting(tab)
        after = tab.get_by_role("button", name="Query 1").bounding_box()
        assert after["y"] - box["y"] == pytest.approx(60, abs=2)
        assert tab.evaluate("scrollY") == 0


def test_points_are_added_moved_and_removed_to_the_last(browser):
    with opened(browser, "queries", "world=none") as tab:
        assert "There are no points" in tab.locator("section").inner_text()
        assert readouts(tab)["Free energy"] == "–"
        tab.get_by_role("button", name="Try 50 starts").click()
        tab.wait_for_function("document.querySelector('[role=status]').textContent.includes('nothing can be found')")
        tab.get_by_label("A press there").select_option("add")
        canvas = tab.locator(".lab-draggable canvas")
        for place in ((50, 60), (150, 90)):
            canvas.click(position={"x": place[0], "y": place[1]})
        assert setting(tab).endswith("points=" + re.search(r"points=(\w{8})", setting(tab)).group(1))
        tab.get_by_role("button", name="Point 1 of 2").focus()
        before = looks(tab)
        tab.keyboard.press("ArrowDown")
        assert looks(tab) != before
        tab.keyboard.press("Delete")
        tab.get_by_role("button", name="Point 1 of 1").focus()
        tab.keyboard.press("Delete")
        assert "points=" not in setting(tab)
        assert "There are no points" in tab.locator("section").inner_text()


def test_a_reader_who_wants_stillness_gets_the_end_at_once(browser):
    with opened(browser, "queries", "softmax=queries&iterations=0", reduced_motion="reduce") as tab:
        tab.get_by_role("button", name="Play").click()
        tab.wait_for_timeout(100)
        assert float(readouts(tab)["Free energy"]) < 1


# --- paint ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        "",
        "split=1&swallow=0",
        "scene=4&merge=2&background=3&noise=0.3",
        "scene=single&split=3&swallow=5",
        "painted=a4096",
        "scene=0&painted=z455h3z61h4z60h5c900z20",
    ],
)
def test_the_lines_for_paint_print_what_the_page_shows(browser, settings):
    with opened(browser, "paint", settings) as tab:
        shown, printed = readouts(tab), code(tab)
        for name in ("Rand", "ARI", "FG-ARI", "mBO", "mIoU"):
            assert float(shown[name]) == pytest.approx(float(printed[name]), abs=1.001e-3 if name == "ARI" else 1e-9)
        assert {name[0]: count for name, count in shown.items() if name[1:2] == ","} == {k: printed[k] for k in "abcd"}


def test_challenges_are_ticked_when_they_are_met(browser):
    met = {
        "split=1&swallow=12": "FG-ARI 1 with mBO below 0.3",
        "split=1&swallow=0&merge=6": "ARI above 0.85 with nothing discovered",
        "split=1&swallow=0&background=8": "mBO 1 with ARI below 0.15",
        "split=1&swallow=2&merge=6&background=8&noise=0.25": "ARI below 0",
    }
    for settings, task in met.items():
        with opened(browser, "paint", settings) as tab:
            ticked = tab.locator(".paint-challenges li", has_text="✓").all_inner_texts()
            assert len(ticked) == 1
            assert ticked[0].startswith(f"✓ {task}")
    with opened(browser, "paint") as tab:
        assert tab.locator(".paint-challenges li", has_text="✓").count() == 0


def test_it_is_painted_with_the_pointer_and_the_keyboard_and_undone(browser):
    with opened(browser, "paint", "split=1&swallow=0") as tab:
        assert readouts(tab)["mBO"] == "1.000"
        canvas = tab.locator(".lab-draggable canvas").bounding_box()
        tab.mouse.move(canvas["x"] + 100, canvas["y"] + 100)
        tab.mouse.down()
        tab.mouse.move(canvas["x"] + 200, canvas["y"] + 150, steps=5)
        tab.mouse.move(canvas["x"] - 300, canvas["y"] + 150, steps=5)  # and out of the picture
        tab.mouse.up()
        by_pointer = looks(tab)
        assert float(readouts(tab)["mBO"]) < 1
        tab.get_by_role("button", name="Brush at").focus()
        tab.keyboard.press("Shift+ArrowDown")
        tab.keyboard.press("Enter")
        tab.keyboard.press("Shift+ArrowRight")
        assert looks(tab) != by_pointer
        undo = tab.get_by_role("button", name="Undo")
        while undo.is_enabled():
            undo.click()
            tab.wait_for_timeout(50)
        assert readouts(tab)["mBO"] == "1.000"


def test_an_empty_painting_is_said_to_be_one(browser):
    with opened(browser, "paint") as tab:
        tab.get_by_role("button", name="Empty").click()
        tab.wait_for_function("document.querySelector('[role=status]').textContent.includes('painting is empty')")
        assert readouts(tab)["FG-ARI"] == "0.000"


# --- cobweb ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        "",
        "slope=0.9&start=2&iterations=10&terms=5",
        "slope=-1&start=3&iterations=12&terms=3",
        "slope=1.2&iterations=60",
        "map=bend&slope=1.2&start=0.5&iterations=60&terms=8",
        "map=bend&slope=-0.8&start=2.5&terms=2",
        "slope=0.5&start=1",
    ],
)
def test_the_lines_for_cobweb_print_what_the_page_shows(browser, settings):
    with opened(browser, "cobweb", settings) as tab:
        shown, printed = readouts(tab), code(tab)
        assert float(shown["z"]) == pytest.approx(float(printed["z"]), abs=1.1e-4)
        assert shown["Iterations used"] == printed["iterations"]
        assert float(shown["Residual"]) == float(printed["residual"])
        gradients = {
            "Unrolled, through all of them": "unrolled",
            "One step": "one step",
            "Through the last k steps": "last steps",
            "k terms of the series": "series",
            "Exact, 1 / (1 − J)": "exact",
        }
        for label, gradient in gradients.items():
            assert float(shown[label]) == pytest.approx(float(printed[gradient]), rel=1e-6, abs=1.1e-4), label


def test_a_slope_of_one_has_no_derivative_and_no_bound(browser):
    with opened(browser, "cobweb", "slope=1&start=2") as tab:
        shown = readouts(tab)
        assert shown["Exact, 1 / (1 − J)"] == shown["Banach's bound on the distance"] == "–"
        assert shown["One step"] == "1.0000"


def test_start_and_slope_are_handles(browser):
    with opened(browser, "cobweb") as tab:
        for name, key in (("Start at", "ArrowUp"), ("Slope", "ArrowDown")):
            before = looks(tab)
            tab.get_by_role("button", name=name).focus()
            tab.keyboard.press(f"Shift+{key}")
            assert looks(tab) != before
        assert re.search(r"slope=-1\.2.*start=0", setting(tab))


# --- quizzes --------------------------------------------------------------------------------------

PAGE = """<main><blockquote><p><strong>Predict.</strong> Heads or tails?</p></blockquote>
<div class="cell"><div class="cell_output"><pre>heads</pre></div></div>
<section id="quiz"><h2>Quiz</h2><p><strong>1.</strong> What falls?</p>
<details><summary>Answer</summary><p>Energy does.</p></details></section></main>"""


@pytest.fixture
def asked(browser, tmp_path):
    """Opens the page above as the same reader each time."""
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8><body>{PAGE}", "utf-8")
    context = browser.new_context()

    def visit():
        tab = context.new_page()
        tab.goto((tmp_path / "page.html").as_uri())
        tab.add_script_tag(path=QUIZ)
        return tab

    yield visit
    context.close()


def test_a_question_is_compared_marked_and_remembered_by_this_browser(asked):
    tab = asked()
    tally = tab.locator(".quiz-tally output")
    assert tally.inner_text() == "0 of 1 questions answered, 0 right. 0 of 1 predictions answered, 0 right."
    assert not tab.get_by_text("Energy does.").is_visible()
    tab.get_by_role("button", name="Compare").click()  # nothing written yet
    assert "Write something first" in tab.locator("form output").all_inner_texts()[-1]
    tab.get_by_label("Your answer").fill("the <b>energy</b>")
    tab.get_by_role("button", name="Compare").click()
    assert tab.get_by_text("Energy does.").is_visible()
    tab.get_by_role("button", name="I had it").locator("visible=true").click()
    assert tally.inner_text().startswith("1 of 1 questions answered, 1 right.")
    again = asked()
    assert "You wrote: “the <b>energy</b>”" in again.locator("main").inner_text()
    again.get_by_role("button", name="Forget my answers").click()
    assert "energy" not in asked().locator("main").inner_text()


def test_a_prediction_comes_back_below_what_answers_it(asked):
    tab = asked()
    tab.get_by_label("Your guess").fill("tails")
    tab.keyboard.press("Enter")
    text = tab.locator("main").inner_text()
    assert text.index("Kept.") < text.index("heads") < text.index("You predicted: “tails”") < text.index("Quiz")
    tab.get_by_role("button", name="I did not").locator("visible=true").click()
    assert tab.locator(".quiz-tally output").inner_text().endswith("1 of 1 predictions answered, 0 right.")


def test_a_browser_that_keeps_nothing_still_answers(browser, tmp_path):
    context = browser.new_context()
    context.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('blocked') } })")
    (tmp_path / "page.html").write_text(PAGE, "utf-8")
    tab = context.new_page()
    tab.goto((tmp_path / "page.html").as_uri())
    tab.add_script_tag(path=QUIZ)
    tab.get_by_label("Your answer").fill("energy")
    tab.get_by_role("button", name="Compare").click()
    assert tab.get_by_text("Energy does.").is_visible()
    context.close()


@pytest.mark.parametrize(
    "settings",
    [
        "",
        "fate=settled&from=4&rounds=20",
        "fate=slow&rounds=300",
        "fate=slow&solver=anderson&rounds=10",  # further on, its jumps make much of the last digits
        "fate=restless&rounds=10",
        "fate=restless&solver=anderson&rounds=12",
        "fate=two_ended&rounds=300",
        "fate=two_ended&rounds=300&from=2&solver=anderson",
    ],
)
def test_the_lines_for_slots_print_what_the_page_shows(browser, settings):
    with opened(browser, "cobweb", f"of=slots&{settings}") as tab:
        looks(tab)
        tab.wait_for_function("!document.querySelector('[aria-busy]')")
        shown, printed = readouts(tab), code(tab)
        assert shown["Pixels of each slot"] == printed["Pixels of each slot"]
        assert float(shown["Residual"]) == pytest.approx(float(printed["Residual"]), rel=0.1)
        assert float(shown["Its size"]) == pytest.approx(float(printed["Its size"]), abs=2e-3)
        for page, python in zip(
            *(re.findall(r"[\d.]+", each["Largest eigenvalue"]) for each in (shown, printed)), strict=True
        ):
            assert float(page) == pytest.approx(float(python), abs=2e-3)
        needed = int(shown["Iterations"].split(",")[0])
        assert abs(needed - int(printed["Iterations"])) <= 3
        assert ("at rest" in shown["Iterations"]) == (float(printed["Residual"]) <= 1e-10)


def test_slots_are_asked_for_and_a_number_comes_back(browser):
    with opened(browser, "cobweb") as tab:
        before = looks(tab)
        tab.get_by_label("z is").select_option("slots")
        tab.get_by_role("combobox", name="Scene").wait_for()
        tab.wait_for_function("!document.querySelector('[aria-busy]')")
        for name in ("Scene", "Solver"):
            seen = looks(tab)
            menu = tab.get_by_role("combobox", name=name)
            menu.select_option(index=1)
            looks(tab)
            tab.wait_for_function("!document.querySelector('[aria-busy]')")
            assert looks(tab) != seen, name
        for name in ("Iterations", "Start"):
            seen = looks(tab)
            tab.get_by_role("slider", name=name, exact=True).press("ArrowRight")
            looks(tab)
            tab.wait_for_function("!document.querySelector('[aria-busy]')")
            assert looks(tab) != seen, name
        tab.get_by_role("button", name="Reset").click()
        assert looks(tab) == before


def test_without_its_model_the_slots_say_so_and_nothing_else_is_harmed(browser):
    tab = browser.new_page()
    tab.route("**/weights/*.js*", lambda route: route.abort())
    tab.goto((LAB / "try.html").as_uri() + "?cobweb")
    tab.wait_for_selector("section[data-state=ready]")
    tab.get_by_label("z is").select_option("slots")
    tab.wait_for_selector("section[data-state=failed]")
    assert tab.locator("[role=alert]").inner_text().startswith("This experiment could not start")
    tab.close()
