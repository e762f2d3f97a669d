"""The labs on objects as words, each alone in a headless Chromium: the keyboard of words, and writing a scene.

What they compute is tested against golden values in book/lab/test (Vitest). Here the lines that a lab shows as its code
are run, and what they print must be what the page says.
"""

import gzip

import pytest
import test_site
from test_labs import BUNDLES, CONTROLS, changed, move, name_of, seen
from test_labs_pure import check_that_it_cannot_start, code, opened, readouts, setting
from test_site import PHONE

NAMES = ("words", "write")
MOST_BYTES = 2 * 2**20

browser = test_site.browser


def section(tab):
    return tab.locator("section[data-lab]")


def press(tab, name):
    before = seen(section(tab))
    tab.get_by_role("button", name=name, exact=True).click()
    return changed(section(tab), before)


def settled(tab):
    """What is shown once the drawing was read again, which takes its time."""
    tab.wait_for_function("[...document.querySelectorAll('output')].every(it => it.textContent !== '…')")
    return seen(section(tab))


def tokens(tab) -> str:
    """The text as it stands on the page."""
    return " ".join(tab.locator(".write-tile").all_inner_texts()).replace(" ·", "").replace("·", "")


def test_both_together_are_no_large_download():
    files = [BUNDLES / "weights" / "svq_draft_shapes.js", *(BUNDLES / f"{name}.js" for name in ("shell", *NAMES))]
    assert sum(len(gzip.compress(path.read_bytes(), 6)) for path in files) <= MOST_BYTES


# --- as in Python ---------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", ["", "scene=7&start=3&restarts=1", "scene=5&start=8&restarts=2&slot=0&block=4"])
def test_words_are_read_drawn_and_read_again_as_in_python(browser, settings):
    with opened(browser, "words", settings) as tab:
        settled(tab)
        shown, printed = readouts(tab), code(tab)
        assert {name: shown[name] for name in printed} == printed


def test_exchanged_and_swapped_words_go_to_python(browser):
    with opened(browser, "words", "restarts=1") as tab:
        seen(section(tab))
        key = tab.locator(".words-key[aria-disabled=false]:visible").first
        wanted = key.locator("b").inner_text().split(" = ")[0]
        before = seen(section(tab))
        key.click()
        changed(section(tab), before)
        assert tab.locator(".words-tile[aria-pressed=true]").evaluate("it => it.firstChild.textContent") == wanted
        swap = tab.locator(".lab-row", has_text="Swap").locator("button:enabled").last
        press(tab, swap.inner_text())
        settled(tab)
        shown, printed = readouts(tab), code(tab)
        assert shown["Words exchanged"] in ("2", "3")  # of the word that was exchanged first, and of the two swapped
        assert {name: shown[name] for name in printed} == printed
        press(tab, "As it was read")
        assert readouts(tab)["Words exchanged"] == "0"


@pytest.mark.parametrize(
    "settings",
    [
        "",
        "seed=5&temperature=0.6&nucleus=0.85&tokens=70",
        "source=dream&seed=3&temperature=1.4&nucleus=0.95&tokens=112",
        "source=dream&tokens=0",
        "source=scene&scene=7&tokens=112",
        "source=scene&scene=1&seed=4&tokens=33",
        "source=dream&begun=0123456789abcdef012&seed=9&tokens=48",
    ],
)
def test_a_text_and_what_it_surprises_are_those_of_python(browser, settings):
    with opened(browser, "write", settings) as tab:
        seen(section(tab))
        shown, printed = readouts(tab), code(tab)
        assert tokens(tab) == printed.pop("Text", "")  # drawn alike, token for token
        if "Next token" in printed:
            bars = [float(bar.rstrip(" %")) for bar in tab.locator(".write-bar span").all_inner_texts()]
            assert bars == pytest.approx([float(each) for each in printed.pop("Next token").split()], abs=0.11)
        for name, value in printed.items():
            assert float(shown[name]) == pytest.approx(float(value), abs=0.011), name


def test_a_scene_of_the_readers_own_goes_to_python_as_a_picture(browser, tmp_path, monkeypatch):
    with opened(browser, "write", "source=scene&tokens=112") as tab:
        seen(section(tab))
        press(tab, "Another colour")
        press(tab, "Copy it")
        with tab.expect_download() as download:
            tab.get_by_role("button", name="Save as PNG").click()
        download.value.save_as(tmp_path / "scene.png")
        monkeypatch.chdir(tmp_path)
        assert code(tab)["Text"] == tokens(tab)


# --- controls -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_control_has_a_name_and_changes_what_is_shown(browser, name):
    with opened(browser, name) as tab:
        before = seen(section(tab))
        # Every seventh tile stands for the others: there are as many as a scene has tokens.
        controls = tab.locator(CONTROLS).and_(tab.locator(":not(.words-tile), .words-tile:nth-child(7n)")).all()
        for control in controls:
            if name == "write" and control.is_hidden():  # bars, once the text is whole
                tab.get_by_role("button", name="Reset").click()
                control.wait_for()
                before = seen(section(tab))
            if control.is_disabled() or control.is_hidden():
                continue
            label = control.get_attribute("aria-label") or name_of(control)
            assert label, control.evaluate("it => it.outerHTML")
            move(control)
            before = changed(section(tab), before)


@pytest.mark.parametrize("name", NAMES)
def test_reset_brings_the_start_back_and_the_address_says_what_is_set(browser, name):
    with opened(browser, name) as tab:
        before = settled(tab)
        tab.get_by_role("slider").first.press("ArrowRight")
        changed(section(tab), before)
        after, address = settled(tab), setting(tab)
        press(tab, "Reset")
        assert settled(tab) == before
        assert setting(tab) == f"#lab={name}"
        tab.evaluate(f"location.hash = {address!r}")
        changed(section(tab), before)
        assert settled(tab) == after


def test_keys_are_reached_by_arrows_and_a_second_press_says_the_next_word(browser):
    with opened(browser, "words", "slot=1&block=0&restarts=1") as tab:
        before = seen(section(tab))
        tile = tab.locator(".words-tile[tabindex='0']")
        assert tile.count() == 1
        tile.press("ArrowDown")
        before = changed(section(tab), before)
        assert "slot 2, block 0" in tab.evaluate("document.activeElement.ariaLabel")
        first = tab.evaluate("document.activeElement.firstChild.textContent")
        tab.keyboard.press("Enter")
        changed(section(tab), before)
        assert tab.evaluate("document.activeElement.firstChild.textContent") != first
        assert readouts(tab)["Words exchanged"] == "1"


def test_a_bar_writes_its_token_and_it_can_be_forgotten(browser):
    with opened(browser, "write", "source=dream&tokens=17") as tab:
        before = seen(section(tab))
        text = tokens(tab)
        tab.locator(".write-bar").nth(3).click()
        before = changed(section(tab), before)
        assert tokens(tab) == f"{text} 3"
        assert tab.locator(".write-own").count() == 18
        press(tab, "Forget my words")
        assert tab.locator(".write-own").count() == 0


def test_a_scene_is_dragged_and_read(browser):
    with opened(browser, "write") as tab:
        before = seen(section(tab))
        thing = tab.locator(".lab-handle").first
        thing.press("Shift+ArrowDown")
        changed(section(tab), before)
        assert tab.get_by_role("combobox", name="Text").input_value() == "scene"
        shown = readouts(tab)["Tokens"].split(" of ")
        assert shown[0] == shown[1]


@pytest.mark.parametrize("reduced", [True, False])
def test_it_dreams_to_the_end_at_once_for_readers_who_want_no_motion(browser, reduced):
    with opened(browser, "write", "tokens=104", reduced_motion="reduce" if reduced else "no-preference") as tab:
        seen(section(tab))
        tab.get_by_role("button", name="Dream on").click()
        if not reduced:
            tab.get_by_role("button", name="Stop").wait_for()
        tab.wait_for_function("document.querySelector('.lab-readout output').textContent === '112 of 112'")
        assert tab.get_by_role("button", name="Dream on").is_disabled()


@pytest.mark.parametrize("name", NAMES)
def test_it_fits_a_phone_in_the_dark_takes_a_finger_and_says_what_changed(browser, name):
    with opened(browser, name, width=PHONE, color_scheme="dark", has_touch=True) as tab:
        before = seen(section(tab))
        assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE
        said = tab.locator("[role=status]")
        tab.wait_for_function("document.querySelector('[role=status]').textContent.length > 10")
        first = said.text_content()
        tab.locator(".words-tile[aria-pressed=false], .write-bar").nth(3).tap()
        changed(section(tab), before)
        tab.wait_for_function("first => document.querySelector('[role=status]').textContent !== first", arg=first)


# --- what can go wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", ["words&codes=zzz", "words&slot=31&codes=0", "write&begun=zz", "write&begun=" + "0" * 900]
)
def test_an_address_of_another_model_is_said(browser, settings):
    name, settings = settings.split("&", 1)
    with opened(browser, name, settings) as tab:
        tab.wait_for_function("document.querySelector('[role=status]').textContent.includes('no text of this model')")


@pytest.mark.parametrize("name", NAMES)
def test_without_workers_a_sentence_stands_there(browser, name):
    check_that_it_cannot_start(browser, name, lambda tab: tab.add_init_script("window.Worker = undefined"))
