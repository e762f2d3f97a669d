"""Sliders that change a picture. `explore(render, slots=(1, 8, 4))` draws it anew for any values, and needs a kernel;
`flipbook(draw, "slope", slopes)` has drawn all its pictures before, and works in the static page too.

Pictures are part of the widget's state, so a saved notebook and the static page show the last one even where no
kernel answers. What a slider calls is a plain function of its values, which tests call directly.
"""

import io
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

Control = tuple[int, int, int] | tuple[float, float, float] | list[str]


def picture(figure: Figure) -> bytes:
    """The figure as PNG bytes; closes it, so that the notebook does not show it a second time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return buffer.getvalue()


def _slider(name: str, control: Control) -> ipywidgets.ValueWidget:
    label = {"description": name.replace("_", " "), "style": {"description_width": "initial"}}  # never cut it off
    if isinstance(control, list):
        return ipywidgets.Dropdown(options=control, value=control[0], **label)
    low, high, start = control
    kind = ipywidgets.IntSlider if all(isinstance(v, int) for v in control) else ipywidgets.FloatSlider
    step = {} if kind is ipywidgets.IntSlider else {"step": (high - low) / 100}
    # Redrawing waits for the release of the slider: a drag would queue dozens of pictures.
    return kind(value=start, min=low, max=high, continuous_update=False, **label, **step)


def explore(render: Callable[..., Figure], **controls: Control) -> ipywidgets.VBox:
    """A row of controls above the picture that `render(**values)` draws.

    Args:
        render: called with one keyword per control, returns a figure.
        controls: `(least, most, start)` of integers or floats for a slider, or a list of names for a menu.

    An exception in `render` is shown in the widget's place for text, and the sliders stay alive.
    """
    sliders = {name: _slider(name, control) for name, control in controls.items()}
    image = ipywidgets.Image(format="png", layout={"max_width": "100%", "object_fit": "contain"})
    message = ipywidgets.HTML()

    def redraw(_change: object = None) -> None:
        try:
            image.value = picture(render(**{name: slider.value for name, slider in sliders.items()}))
            message.value = ""
        except Exception as error:  # a slider callback has no caller to raise to
            message.value = f"<pre>{type(error).__name__}: {error}</pre>"

    for slider in sliders.values():
        slider.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([ipywidgets.HBox(list(sliders.values()), layout={"flex_flow": "row wrap"}), image, message])


def flipbook(draw: Callable[[Any], Figure], name: str, values: Sequence[Any], start: int = 0) -> ipywidgets.VBox:
    """A slider over `draw(value)` for each of `values`, all drawn now: it only turns pages, and needs no kernel.

    Args:
        draw: returns a figure.
        name: what the slider is called.
        values: what `draw` gets, at least one.
        start: the page that is open at first, from 0.

    Raises ValueError without values, or for a page that is not there.
    """
    if not 0 <= start < len(values):
        raise ValueError(f"start must be a page within 0 and {len(values) - 1}, got {start} of {len(values)} values")
    pages = [ipywidgets.Image(value=picture(draw(value)), format="png") for value in values]
    stack = ipywidgets.Stack(pages, selected_index=start)
    slider = ipywidgets.IntSlider(value=start, max=len(pages) - 1, description=name, readout=False)
    ipywidgets.jslink((slider, "value"), (stack, "selected_index"))
    return ipywidgets.VBox([slider, stack])
