"""Draw the picture on the landing page with the shipped model: book/assets/landing.png."""

from pathlib import Path

import torch

import slotlib
from slotlib import data, plots

SCENES = [3, 9, 4]  # of seed 0


def main() -> None:
    plots.use_style()
    images = data.make("tetrominoes", 16, seed=0).batch(SCENES)["image"]
    with torch.no_grad():
        output = slotlib.load("tetrominoes")(images, generator=torch.Generator().manual_seed(0))
    figure = plots.show_decomposition(images, output)
    figure.savefig(Path(__file__).parents[1] / "assets" / "landing.png", dpi=160)


if __name__ == "__main__":
    main()
