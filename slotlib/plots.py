"""Pictures of scenes, slots and scores. One palette; figures that read on a light and on a dark page.

Every function returns the `Figure` it drew, takes tensors as the models return them, and draws nothing that was not
computed. Slots are coloured by the Okabe–Ito palette, which stays distinct under the common colour-vision deficiencies.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from cycler import cycler
from jaxtyping import Float, Integer
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from torch.nn.functional import interpolate

# Okabe and Ito (2008), the black replaced by a mid grey that is seen on white and on dark pages.
PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#8C8C8C")
INK = "#808080"
"""Text and axes: contrast about 4 to 1 both on white and on the book's dark background."""


def use_style() -> None:
    """Set matplotlib up for the book: no background, mid-grey text, the palette as colour cycle."""
    clear = "figure.facecolor", "axes.facecolor", "savefig.facecolor"
    axes = "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color"
    mpl.rcParams.update(dict.fromkeys(clear, "none"))
    mpl.rcParams.update(dict.fromkeys(["text.color", "legend.labelcolor", *axes], INK))
    mpl.rc("figure", dpi=165)  # the book shows 96 to an inch: sharp on most screens
    mpl.rc("savefig", bbox="tight")
    mpl.rc("axes", titlesize="medium", prop_cycle=cycler(color=[PALETTE[i] for i in (4, 0, 2, 5, 6, 1, 3, 7)]))
    mpl.rc("axes.spines", top=False, right=False)
    mpl.rc("legend", frameon=False)
    mpl.rc("image", interpolation="nearest")
    mpl.rc("svg", hashsalt="slotlib")


def slot_colours(count: int) -> Float[np.ndarray, "slots 3"]:
    """RGB of each slot in [0, 1]; after eight the palette repeats, darker each time."""
    base = np.array([to_rgb(PALETTE[i % len(PALETTE)]) for i in range(count)])
    return base * 0.6 ** (np.arange(count)[:, None] // len(PALETTE))


def to_pixels(image: Float[Tensor, "3 height width"]) -> Float[np.ndarray, "height width 3"]:
    """A tensor image as matplotlib wants it, clipped to [0, 1]."""
    return image.detach().float().clamp(0, 1).permute(1, 2, 0).cpu().numpy()


def segmentation(masks: Float[Tensor, "slots height width"]) -> Float[np.ndarray, "height width 3"]:
    """Soft masks as one picture: every pixel mixes the slots' colours by how much each slot claims it."""
    return np.einsum("khw,kc->hwc", masks.detach().float().cpu().numpy(), slot_colours(len(masks)))


def labels_picture(labels: Integer[Tensor, "height width"]) -> Float[np.ndarray, "height width 4"]:
    """A label map as one picture, RGBA: the background, 0, is transparent, object i has slot colour i."""
    numbers = labels.cpu().numpy().astype(int)
    count = int(numbers.max()) + 1
    picture = np.concatenate([slot_colours(count), np.ones((count, 1))], axis=1)[numbers - 1]
    picture[numbers == 0] = 0
    return picture


def _grid(rows: int, columns: int, size: float) -> tuple[Figure, np.ndarray]:
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(columns * size, rows * size),
        squeeze=False,
        gridspec_kw={"wspace": 0.06, "hspace": 0.06},
    )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure, axes


def _label_rows(axes: np.ndarray, names: Sequence[str]) -> None:
    for axis, name in zip(axes[:, 0], names, strict=True):
        axis.set_ylabel(name, rotation=0, ha="right", va="center")


def rows(
    scenes: Mapping[str, Any],
    reconstruction: Float[Tensor, "batch 3 height width"] | None = None,
    masks: Float[Tensor, "batch slots height width"] | None = None,
    attention: Float[Tensor, "batch slots h w"] | None = None,
) -> dict[str, list[Float[np.ndarray, "height width 3"]]]:
    """What a model made of the first eight scenes, row by row, to be looked at while it trains."""
    images = scenes["image"][:8]
    pictures = {"scenes/image": [to_pixels(each) for each in images]}
    if reconstruction is not None:
        pictures["scenes/reconstruction"] = [to_pixels(each) for each in reconstruction[:8]]
    if masks is not None:
        pictures["scenes/masks"] = [segmentation(each) for each in masks[:8]]
    if attention is not None:
        attention = interpolate(attention[:8], size=images.shape[-2:])
        pictures["scenes/attention"] = [segmentation(each) for each in attention]
    if "mask" in scenes:
        pictures["scenes/true_objects"] = [labels_picture(each)[..., :3] for each in scenes["mask"][:8]]
    return pictures


def show_scenes(
    images: Float[Tensor, "batch 3 height width"],
    masks: Integer[Tensor, "batch height width"] | None = None,
    columns: int = 8,
    size: float = 1.2,
) -> Figure:
    """A contact sheet: rows of images, and below each row, if given, its true objects in the slots' colours."""
    columns = min(columns, len(images))
    every = 1 if masks is None else 2
    rows = -(-len(images) // columns) * every
    figure, axes = _grid(rows, columns, size)
    figure.set_size_inches(columns * size, rows * size * images.shape[2] / images.shape[3])
    for axis in axes.flat:
        axis.set_visible(False)
    for i, image in enumerate(images):
        row, column = i // columns * every, i % columns
        pictures = [to_pixels(image)] + ([] if masks is None else [labels_picture(masks[i])])
        for k, picture in enumerate(pictures):
            axes[row + k, column].set_visible(True)
            axes[row + k, column].imshow(picture)
    return figure


def show_reconstructions(
    images: Float[Tensor, "batch 3 height width"],
    output,
    true_masks: Integer[Tensor, "batch height width"] | None = None,
    size: float = 1.2,
) -> Figure:
    """Row by row: images, reconstructions, which slot claims which pixel and, if given, the true objects.

    `output` is what a `SlotAutoencoder` returned for `images`. Colours of slots and of true objects are unrelated.
    """
    names = ["image", "reconstruction", "slot masks"] + (["true objects"] if true_masks is not None else [])
    figure, axes = _grid(len(names), len(images), size)
    for i in range(len(images)):
        axes[0, i].imshow(to_pixels(images[i]))
        axes[1, i].imshow(to_pixels(output.reconstruction[i]))
        axes[2, i].imshow(segmentation(output.masks[i]))
        if true_masks is not None:
            axes[3, i].imshow(labels_picture(true_masks[i]))
    _label_rows(axes, names)
    return figure


def show_decomposition(images: Float[Tensor, "batch 3 height width"], output) -> Figure:
    """One row per image: the image, its reconstruction, then what each slot contributes (mask × slot image).

    The frames' colours are the slots' colours in `segmentation`. Slots are sorted by the area they claim, so that the
    background comes first, and the figure is the same whatever order the slots are in.
    """
    count = output.masks.shape[1]
    figure, axes = _grid(len(images), 2 + count, 1.2)
    for i in range(len(images)):
        slots = output.masks[i].mean(dim=(1, 2)).argsort(descending=True).tolist()
        axes[i, 0].imshow(to_pixels(images[i]))
        axes[i, 1].imshow(to_pixels(output.reconstruction[i]))
        for cell, k in zip(axes[i, 2:], slots, strict=True):
            mask = output.masks[i, k].detach().float().cpu().numpy()
            # Opacity is the mask, so an empty slot shows the page and not a colour nobody sees in the sum.
            cell.imshow(np.dstack([to_pixels(output.slot_images[i, k]), mask]))
            cell.add_patch(
                Rectangle((0, 0), 1, 1, fill=False, lw=2, ec=slot_colours(count)[k], transform=cell.transAxes)
            )
    for axis, name in zip(axes[0], ["image", "sum of slots", *[f"slot {n}" for n in range(1, count + 1)]], strict=True):
        axis.set_title(name)
    return figure


def show_attention(
    attention: Float[Tensor, "iterations slots height width"],
    image: Float[Tensor, "3 height width"] | None = None,
    size: float = 1.1,
) -> Figure:
    """One row per iteration: the outcome of the competition, then how much of each input every slot won.

    A slot's picture runs from 0 (grey) to 1 (its full colour). With `image`, it stands in front of the first row.
    """
    iterations, count = attention.shape[:2]
    first = int(image is not None)
    figure, axes = _grid(iterations, first + 1 + count, size)
    for t in range(iterations):
        axes[t, first].imshow(segmentation(attention[t]))
        for k in range(count):
            won = attention[t, k].detach().float().cpu().numpy()[..., None]
            axes[t, first + 1 + k].imshow(won * slot_colours(count)[k] + (1 - won) * np.full(3, 0.35))
    if image is not None:
        axes[0, 0].imshow(to_pixels(image))
        axes[0, 0].set_title("image")
    _label_rows(axes, [f"iteration {t + 1}" for t in range(iterations)])
    for column, name in enumerate(["all slots", *[f"slot {k + 1}" for k in range(count)]], start=first):
        axes[0, column].set_title(name)
    return figure


def show_distribution(
    scores: Mapping[str, Float[Tensor, "images"]], label: str = "FG-ARI per image", size: tuple = (7, None)
) -> Figure:
    """Every image a dot, one row per name, with the median (bar) and the mean (diamond).

    Averages hide the two populations that object discovery produces, solved and failed scenes; dots do not.
    """
    figure, axis = plt.subplots(figsize=(size[0], size[1] or 0.8 + 0.7 * len(scores)))
    jitter = np.random.default_rng(0)
    colours = [entry["color"] for entry in mpl.rcParams["axes.prop_cycle"]]
    for row, values in enumerate(scores.values()):
        values = torch.as_tensor(values).cpu().double().numpy()
        colour = colours[row % len(colours)]
        axis.scatter(values, row + jitter.uniform(-0.28, 0.28, len(values)), s=7, alpha=0.35, lw=0, color=colour)
        axis.plot([np.median(values)] * 2, [row - 0.36, row + 0.36], color=INK, lw=2)
        axis.plot(values.mean(), row, marker="D", ms=7, mfc=colour, mec=INK)
        mean = f"mean {values.mean():.3f}"
        axis.annotate(mean, (1.01, row), xycoords=("axes fraction", "data"), va="center", color=INK)
    axis.set_yticks(range(len(scores)), list(scores))
    axis.set_ylim(len(scores) - 0.5, -0.5)
    axis.set_xlabel(label)
    return figure
