"""Draw the contact sheets of the page "The scenes": book/assets/scenes/*.png."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from slotlib import data, plots

FOLDER = Path(__file__).parents[1] / "assets" / "scenes"
DPI = 160
SHEETS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "tetrominoes": ("tetrominoes", 16, {}),
    "shapes": ("shapes", 16, {}),
    "binarised": ("multi_dsprites", 8, {"variant": "binarised"}),
    "colour_on_grey": ("multi_dsprites", 8, {"variant": "colour_on_grey"}),
    "colour_on_colour": ("multi_dsprites", 8, {"variant": "colour_on_colour"}),
    "greyscale": ("multi_dsprites", 8, {"variant": "greyscale"}),
    "clevr": ("clevr", 12, {"num_objects": (3, 6)}),
    "clevr_textures": ("clevr", 6, {"num_objects": (3, 6), "textures": "all"}),
}
"""File → dataset, number of scenes (of seed 0) and options."""


def draw(sheet: str) -> Figure:
    name, count, options = SHEETS[sheet]
    batch = data.make(name, count, **options).batch(range(count))
    columns = 6 if name == "clevr" else 8
    return plots.show_scenes(batch["image"], batch["mask"], columns, size=7.2 / columns)


def main() -> None:
    plots.use_style()
    FOLDER.mkdir(exist_ok=True)
    for sheet in SHEETS:
        draw(sheet).savefig(FOLDER / f"{sheet}.png", dpi=DPI, bbox_inches="tight")


if __name__ == "__main__":
    main()
