"""The labs with trained models, of the landing page and chapters 02, 03, 05 and 09, each alone in a headless Chromium.

What they compute is tested against golden values in book/lab/test (Vitest); here the lines that a lab shows as its code
are run, and have to print what the page shows.
"""

from pathlib import Path

import pytest
import test_labs_pure
from test_labs import drag, move, name_of, python_says, swipe
from test_labs_pure import check_that_it_cannot_start, code, opened, readouts, setting, slide
from test_site import DESKTOP, HTML, PHONE, ROOT

NAMES = ("landing", "stargazer", "describe", "many")

browser = test_labs_pure.browser


def looks(tab) -> list[str]:
    """All that is shown, once it has stopped changing: models answer from a worker, and one lab scores when it can."""
    shown, still = test_labs_pure.looks(tab), 0
    tab.wait_for_function("!document.querySelector('section').innerText.includes('…')")
    while still < 3:
        tab.wait_for_timeout(50)
        tab.wait_for_function("!document.querySelector('[aria-busy]')")
        before, shown = shown, test_labs_pure.looks(tab)
        still = still + 1 if shown == before else 0
    return shown


def controls(tab):
    return tab.locator("section :is(input, select, button):not([data-lab-aside], [data-lab-aside] *)").all()


@pytest.mark.parametrize("name", NAMES)
def test_every_control_has_a_name_and_changes_what_is_shown(browser, name):
    with opened(browser, name) as tab:
        before = looks(tab)
        for control in controls(tab):
            label = name_of(control)
            assert label
            if label == "Reset" or control.is_disabled():
                continue
            move(control)
            assert looks(tab) != before, label
            tab.get_by_role("button", name="Reset").press("Enter")
            assert looks(tab) == before, label


@pytest.mark.parametrize("name", NAMES)
def test_the_address_says_what_is_set(browser, name):
    with opened(browser, name) as tab:
        before = looks(tab)
        move(controls(tab)[0])
        changed, address = looks(tab), setting(tab)
        assert changed != before
        tab.evaluate(f"location.hash = '#lab={name}'")
        assert looks(tab) == before
        tab.evaluate(f"location.hash = {address!r}")
        assert looks(tab) == changed


@pytest.mark.parametrize("name", NAMES)
def test_it_fits_a_phone_in_the_dark_and_says_what_changed(browser, name):
    with opened(browser, name, width=PHONE, color_scheme="dark") as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE
        tab.wait_for_function("document.querySelector('[role=status]').textContent.length > 10")
        first = tab.locator("[role=status]").text_content()
        move(next(control for control in controls(tab) if name_of(control) != "Reset"))
        tab.wait_for_function("first => document.querySelector('[role=status]').textContent !== first", arg=first)


NONSENSE = "scene=moon&things=9_9_9&dots=%3C&slots=99&iterations=-4&noise=loud&start=NaN&threshold=2&compete=perhaps"


@pytest.mark.parametrize("name", NAMES)
def test_nonsense_in_the_address_is_no_harm(browser, name):
    with opened(browser, name, NONSENSE) as tab:
        assert len(set(looks(tab))) > 3


@pytest.mark.parametrize("name", NAMES)
def test_without_its_weights_it_says_so_in_a_sentence(browser, name):
    check_that_it_cannot_start(browser, name, lambda tab: tab.route("**/weights/*.js*", lambda route: route.abort()))


# --- many ---


@pytest.mark.parametrize(
    "settings",
    [
        "",
        "by=trained&scene=7&slots=12&start=3&noise=true&toss=5&temperature=0.4",
        "scene=2&by=soft&noise=true&toss=11&temperature=1.6",
        "scene=5&by=soft&slots=2&temperature=0.1",
        "scene=6&by=price&price=0.02&slots=7",
        "scene=3&by=price&price=0.04&slots=4&noise=true",
    ],
)
def test_the_lines_for_many_print_what_it_shows(browser, settings):
    with opened(browser, "many", settings) as tab:
        looks(tab)
        shown, printed = readouts(tab), code(tab)
        chances = tab.locator(".many-numbers span:first-child:visible").all_inner_texts()
        assert [float(each.removeprefix("P ")) for each in chances] == pytest.approx(
            [float(each) for each in printed.pop("P").split()], abs=0.011
        )
        error = float(printed.pop("Squared error"))
        assert float(shown["Squared error"]) == pytest.approx(error, rel=2e-3)
        assert float(shown["Sum of weights"]) == pytest.approx(float(printed.pop("Sum of weights")), abs=0.011)
        assert {name: shown[name] for name in printed} == printed


def test_a_counted_scene_of_the_readers_own_goes_to_python_as_a_picture(browser, tmp_path, monkeypatch):
    with opened(browser, "many") as tab:
        before = looks(tab)
        tab.get_by_role("button", name="Add", exact=True).click()
        assert looks(tab) != before
        with tab.expect_download() as download:
            tab.get_by_role("button", name="Save as PNG").click()
        download.value.save_as(tmp_path / "scene.png")
        shown, lines = readouts(tab), tab.locator(".lab-code code").text_content()
        monkeypatch.chdir(tmp_path)
        assert code(tab)["Trained decision counts"] == shown["Trained decision counts"]
        assert "scene.png" in lines


def test_objects_are_added_dragged_and_removed_and_counted(browser):
    with opened(browser, "many", "scene=2&slots=10") as tab:
        looks(tab)
        there = int(readouts(tab)["Objects there"])
        assert readouts(tab)["Trained decision counts"] == str(there)
        before = looks(tab)
        drag(tab, tab.locator(".lab-handle").first.bounding_box(), (15, -10))
        assert looks(tab) != before
        for _ in range(there):
            tab.get_by_role("button", name="Remove", exact=True).click()
            looks(tab)
        assert tab.get_by_role("button", name="Remove", exact=True).is_disabled()
        assert readouts(tab)["Objects there"] == "0"
        tab.get_by_role("button", name="Add", exact=True).click()
        looks(tab)
        assert readouts(tab)["Objects there"] == "1"


def test_a_slot_is_struck_out_when_it_is_not_worth_its_price(browser):
    with opened(browser, "many", "scene=2&by=price&price=0") as tab:
        looks(tab)
        cheap = tab.locator(".many-dropped:visible").count()
        slide(tab.get_by_role("slider", name="Price"), "0.04")
        looks(tab)
        assert tab.locator(".many-dropped:visible").count() > cheap
        kept = tab.locator(".many-slot:not(.many-dropped):visible").count()
        assert readouts(tab)["Price counts"] == str(kept - 1)


# --- landing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", ["", "scene=5", "things=17_20_6_0_1_255_255_0~8_3_19_0_1_0_255_255"])
def test_the_lines_for_the_landing_page_print_what_it_shows(browser, settings):
    with opened(browser, "landing", settings) as tab:
        looks(tab)
        assert readouts(tab)["Pixels of each slot"] == code(tab)["pixels of each slot"]


def test_slots_follow_a_piece_that_is_dragged_and_so_does_the_link(browser):
    with opened(browser, "landing") as tab:
        before = looks(tab)
        drag(tab, tab.locator(".lab-handle").first.bounding_box(), (-60, 40))
        after = looks(tab)
        assert sum(a != b for a, b in zip(before, after, strict=True)) >= 3  # scene, masks, at least one slot
        assert readouts(tab)["Pixels of each slot"] == code(tab)["pixels of each slot"]
        link = tab.get_by_role("link", name="chapter 3").get_attribute("href")
        assert link.partition("#")[2] == setting(tab).replace("lab=landing", "lab=desk")[1:]


def test_a_finger_drags_a_piece_and_the_page_stays(browser):
    with opened(browser, "landing", width=PHONE, has_touch=True) as tab:
        before = looks(tab)
        swipe(tab, tab.locator(".lab-handle").first.bounding_box(), 30)
        assert looks(tab) != before
        assert tab.evaluate("scrollY") == 0


def built(page: str) -> Path:
    html = HTML / f"{page}.html"
    if not html.exists():
        pytest.skip("there is no built book: run `make book` first")
    return html


@pytest.mark.parametrize("javascript", [True, False])
def test_it_is_on_the_first_screen_of_the_landing_page(browser, javascript):
    tab = browser.new_page(viewport={"width": DESKTOP, "height": 900}, java_script_enabled=javascript)
    tab.goto(built("book/index").as_uri())
    section = tab.locator("section[data-lab=landing]")
    if javascript:
        tab.wait_for_selector("section[data-state=ready]")
        assert (
            tab.get_by_role("link", name="chapter 3")
            .get_attribute("href")
            .partition("#")[0]
            .endswith("/chapters/03_object_discovery.html")
        )
    else:
        assert section.locator("img").get_attribute("alt") and "With JavaScript" in section.inner_text()
    box = section.bounding_box()
    assert box["y"] + box["height"] <= 900
    tab.close()


@pytest.mark.parametrize("page", ["chapters/02_slot_attention", "book/index"])
def test_pages_that_ask_something_listen(page):
    html = built(page).read_text("utf-8")
    asks = "<summary>Answer</summary>" in html
    assert ("lab/quiz.js" in html) == asks == page.startswith("chapters")


# --- stargazer ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        "",
        "orbits=5&slots=5&iterations=12&start=4&sky=7",
        "noise=0",
        "noise=0.001&iterations=10&slots=4&orbits=4",
        "alone=true&slots=4",
        "forget=true&sky=2",
        "normalised=true&orbits=2&slots=1",
        "dots=5k5k3c8w9a2s5k0a&slots=2&iterations=5",
    ],
)
def test_the_lines_for_the_stargazer_print_what_it_shows(browser, settings, monkeypatch):
    monkeypatch.chdir(ROOT)
    with opened(browser, "stargazer", settings) as tab:
        looks(tab)
        shown, printed = readouts(tab), code(tab)
        if "dots=" in settings:
            assert shown.pop("ARI") == "–"  # nobody knows the orbits
        for name in {"Loss", "Sureness", "Likeness", "ARI"} & shown.keys():
            said = printed[name if name == "ARI" else name.lower()]
            assert float(shown[name]) == pytest.approx(float(said), abs=0.011), name
        assert shown["Dots of each slot"] == printed["dots of each slot"]


def test_slots_that_start_alike_stay_one_slot_in_several_copies(browser):
    with opened(browser, "stargazer", "noise=0&iterations=20") as tab:
        assert readouts(tab)["Likeness"] == "1.00"
        assert "one slot in several copies" in tab.locator("section").inner_text()
        tab.get_by_label("Noise of the start").select_option("0.0001")
        looks(tab)
        assert float(readouts(tab)["Likeness"]) < 0.5
        assert "one slot in several copies" not in tab.locator("section").inner_text()


def test_dots_are_placed_moved_and_removed_to_the_last(browser):
    with opened(browser, "stargazer") as tab:
        dot = tab.get_by_role("button", name="Dot 1 of 48")
        before = looks(tab)
        drag(tab, dot.bounding_box(), (40, -2000))  # far outside: it stops at the edge
        assert looks(tab) != before
        dot.press("n")
        tab.get_by_role("button", name="Dot 2 of 48").press("Delete")
        tab.wait_for_selector("[aria-label^='Dot 2 of 47']")
        tab.get_by_role("button", name="Remove all dots").press("Enter")
        looks(tab)
        assert "There are no dots" in tab.locator("section").inner_text()
        assert readouts(tab)["Loss"] == "–"
        assert setting(tab).endswith("dots=none")
        tab.get_by_label("A press there").select_option("add")
        canvas = tab.locator(".lab-draggable canvas")
        for place in ((50, 60), (120, 90)):
            canvas.click(position={"x": place[0], "y": place[1]})
        looks(tab)
        assert sum(map(int, readouts(tab)["Dots of each slot"].split())) == 2
        tab.get_by_label("A press there").select_option("remove")
        canvas.click(position={"x": 50, "y": 60})
        tab.wait_for_selector("[aria-label^='Dot 1 of 1;']")
        tab.get_by_role("button", name="Dot 1 of 1").press("Backspace")
        looks(tab)
        assert "There are no dots" in tab.locator("section").inner_text()


def test_a_finger_drags_a_dot_and_the_page_stays(browser):
    with opened(browser, "stargazer", width=PHONE, has_touch=True) as tab:
        tab.get_by_role("button", name="Dot 1 of 48").scroll_into_view_if_needed()
        before, scrolled = looks(tab), tab.evaluate("scrollY")
        swipe(tab, tab.get_by_role("button", name="Dot 1 of 48").bounding_box(), 60)
        assert looks(tab) != before
        assert tab.evaluate("scrollY") == scrolled


# --- desk -----------------------------------------------------------------------------------------

DRAWING = "source=brush&painted=z300b6z29b6z29b6z29b6z100c10z25c10z25c10z200a5z30a5z30a5z30a5"


@pytest.mark.parametrize(
    "settings",
    [
        "source=brush",
        DRAWING,
        f"{DRAWING}&model=shapes&slots=7&iterations=16",
        f"{DRAWING}&model=multi_dsprites&slots=6&iterations=8&scene=5&start=3",
        "model=tetrominoes_early&scene=2&start=3",
        "model=tetrominoes_alone&scene=6&start=2",
    ],
)
def test_the_lines_for_the_desk_compute_what_it_shows(browser, settings):
    with opened(browser, "desk", settings) as tab:
        looks(tab)
        shown, computed = readouts(tab), python_says(tab.locator(".lab-code code").text_content())
        assert float(shown["Squared error"]) == pytest.approx(computed.pop("Squared error"), rel=2e-3)
        assert {name: shown[name] for name in computed} == computed
        drawn = "brush" in settings
        assert (shown["FG-ARI, drawn"] == "–") == drawn  # nobody knows the objects of a drawing


def test_a_scene_is_drawn_with_the_mouse_and_the_keyboard_and_undone(browser):
    with opened(browser, "desk", "source=brush") as tab:
        canvas, undo = tab.locator(".lab-draggable canvas:visible"), tab.get_by_role("button", name="Undo")
        pictures = [looks(tab)]
        assert undo.is_disabled() and tab.get_by_role("button", name="Clear").is_disabled()
        box = canvas.bounding_box()
        drag(tab, box, (40, 25))
        pictures.append(looks(tab))
        drag(tab, box, (-4000, 25))  # far outside
        pictures.append(looks(tab))
        brush = tab.get_by_role("button", name="Brush at")
        for key in ("ArrowRight", "Shift+ArrowUp", "Space"):
            brush.press(key)
        pictures.append(looks(tab))
        tab.get_by_role("combobox", name="Brush").select_option(label="eraser")
        drag(tab, box, (30, 0))
        pictures.append(looks(tab))
        assert len({tuple(each) for each in pictures}) == len(pictures)
        assert "painted=" in setting(tab)
        masks = [readouts(tab)["Pixels of each slot"]]
        undo.click()
        looks(tab)
        masks.append(readouts(tab)["Pixels of each slot"])
        assert masks[0] != masks[1]
        tab.get_by_role("button", name="Clear").click()
        looks(tab)
        assert "painted=" not in setting(tab)
        undo.click()
        looks(tab)
        assert readouts(tab)["Pixels of each slot"] == masks[1]


def test_a_finger_draws_and_the_page_stays(browser):
    with opened(browser, "desk", "source=brush", width=PHONE, has_touch=True) as tab:
        before = looks(tab)
        swipe(tab, tab.locator(".lab-draggable canvas:visible").bounding_box(), 30)
        assert looks(tab) != before
        assert "painted=" in setting(tab)
        assert tab.evaluate("scrollY") == 0


def test_a_drawing_stays_for_another_model_of_the_same_scenes_only(browser):
    with opened(browser, "desk", DRAWING) as tab:
        looks(tab)
        models = tab.get_by_label("Model")
        models.select_option("tetrominoes_early")
        looks(tab)
        assert "painted=" in setting(tab)
        models.select_option("shapes")
        looks(tab)
        assert "painted=" not in setting(tab)
        tab.get_by_role("slider", name="Scene").press("ArrowRight")
        looks(tab)
        assert "brush" not in setting(tab)


# --- describe -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        "",
        "scene=5&slots=16&iterations=4&start=3",
        "scene=4&slots=6&within=0.5",
        "scene=1&iterations=1&within=inf&threshold=0.1",
        "scene=8&at=0_0.5",
        "scene=0&at=1.5_-3&slots=12",
    ],
)
def test_the_lines_for_describe_print_what_it_shows(browser, settings, tmp_path, monkeypatch):
    with opened(browser, "describe", settings) as tab:
        looks(tab)
        with tab.expect_download() as download:
            tab.get_by_role("button", name="Save as PNG").click()
        download.value.save_as(tmp_path / "scene.png")
        monkeypatch.chdir(tmp_path)
        shown, printed = readouts(tab), code(tab)
        assert ("scene.png" in tab.locator(".lab-code code").text_content()) == ("at=" in settings)
        assert shown["Objects predicted"].split()[0] == printed["predicted"]
        for name, key in {"Hungarian loss": "hungarian", "Chamfer loss": "chamfer"}.items():
            assert float(shown[name]) == pytest.approx(float(printed[key]), abs=2e-4), name
        assert float(shown["Average precision, all scenes"]) == pytest.approx(float(printed["precision"]), abs=2e-3)


def test_an_object_is_dragged_and_what_is_said_follows(browser):
    with opened(browser, "describe") as tab:
        before = looks(tab)
        back = tab.get_by_role("button", name="Put it back")
        assert back.is_disabled()
        handle = tab.locator(".lab-handle")
        for key in ("ArrowLeft", "ArrowDown"):
            last = looks(tab)
            handle.press(key)
            assert looks(tab) != last, key
        last = looks(tab)
        drag(tab, handle.bounding_box(), (-40, 30))
        assert sum(a != b for a, b in zip(last, looks(tab), strict=True)) >= 5  # pictures, costs, readouts, table
        assert "at=" in setting(tab)
        back.click()
        assert looks(tab) == before


def test_a_threshold_of_zero_believes_every_slot_and_one_of_one_none(browser):
    with opened(browser, "describe", "threshold=0&slots=16") as tab:
        assert readouts(tab)["Objects predicted"] == "16 of 7"
        assert tab.locator(".describe-table td:first-child").count() == 16
        tab.get_by_role("slider", name="Threshold").press("End")
        looks(tab)
        assert readouts(tab)["Objects predicted"] == "0 of 7"


def test_chamfer_never_costs_more_than_hungarian_and_less_where_two_slots_say_the_same(browser):
    with opened(browser, "describe", "iterations=1&slots=10&scene=4") as tab:
        shown = readouts(tab)
        assert float(shown["Chamfer loss"]) < float(shown["Hungarian loss"])
