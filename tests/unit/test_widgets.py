"""Sliders in the static page: every picture is there before anyone asks."""

import matplotlib.pyplot as plt
import pytest

from slotlib import widgets


def drawing(value):
    figure, axis = plt.subplots(figsize=(1, 1))
    axis.set_title(str(value))
    return figure


def test_a_flipbook_holds_a_picture_for_each_value_and_draws_none_later():
    drawn, open_before = [], plt.get_fignums()
    book = widgets.flipbook(lambda value: drawn.append(value) or drawing(value), "slope", [3, 5, 8], start=1)
    slider, stack = book.children
    assert drawn == [3, 5, 8]
    assert (slider.value, slider.max, stack.selected_index) == (1, 2, 1)
    pages = [bytes(page.value) for page in stack.children]
    assert len(set(pages)) == 3 and all(page.startswith(b"\x89PNG") for page in pages)
    assert pages[0] == widgets.picture(drawing(3))
    assert plt.get_fignums() == open_before  # nothing is left for the notebook to show twice


@pytest.mark.parametrize(("values", "start"), [([], 0), ([1, 2], 2), ([1], -1)])
def test_a_page_that_is_not_there_is_refused(values, start):
    with pytest.raises(ValueError, match="start must be a page within 0"):
        widgets.flipbook(drawing, "slope", values, start)
