"""What is a model's score worth on other pictures? Scenes as it knows them, in other light, noisier, drawn by others.

    python -m benchmarks.robustness [MODEL ...] [--clevr CLEVR] [--published PUBLISHED]

Models that find objects are scored on `IMAGES` fresh scenes from one start, by their drawn masks and by their
posterior, a set predictor by its average precision, once as the scenes are and once after each change. Changed pictures
are of 8 bits again, as in a file. With more objects a model gets as many more slots; CLEVR's ten fill a scene, so a set
predictor gets no more. Another renderer is, for Tetrominoes and Shapes, Pillow, which draws the same scenes again with
eight times as many pixels along a side and averages them; for Multi-dSprites the sprites of dSprites itself, out of
PUBLISHED, the folder that benchmarks/likeness.py reads too; for CLEVR the scenes in the folder CLEVR, in the CLEVR v1.0
layout with masks, as far as they have no more objects than the model knows.

Writes data/runs/robustness.csv; models that are not named keep their lines, and without a folder its lines are left
out. The page "Model zoo" shows it. A model takes about half a minute of one core.
"""

import argparse
import csv
import functools
import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter
from torch import Tensor

from slotlib import checkpoint, data, zoo
from slotlib.data import clevr, shapes, tetrominoes
from slotlib.data.scenes import Batch, each, numbers
from slotlib.evaluation import evaluate
from slotlib.model import Model
from slotlib.prior import CodePrior
from slotlib.set_prediction import SetPredictor

RESULTS = Path(__file__).parents[1] / "data" / "runs" / "robustness.csv"
MODELS = (
    "tetrominoes",
    "shapes",
    "multi_dsprites",
    "clevr6",
    "adaptive_shapes",
    "adaptive_multi_dsprites",
    "svq_shapes",
    "svq_multi_dsprites",
    "clevr10_sets",
)
IMAGES, SCENES_SEED, NOISE_SEED = 320, 0, 0
SCORES = "drawn_fg_ari", "posterior_fg_ari", "ap_inf"
COLUMNS = ("model", "sha256", "change", *SCORES, "images", "scenes_seed", "noise_seed")
SUPERSAMPLED = 8

Images = Float[Tensor, "scenes 3 height width"]
Change = Callable[[Images], Images]


class Held(data.Source):
    """Scenes that are there, all of them."""

    name = "held"

    def __init__(self, content: Batch, origin: dict[str, Any]):
        self.content, self.origin = content, origin

    def __len__(self) -> int:
        return len(self.content["image"])

    def batch(self, index: data.scenes.Index, device: torch.device | str = "cpu") -> Batch:
        rows = numbers(index, len(self))
        return each(self.content, lambda value: value[rows].to(device))


# --- the same scenes, changed ---


def brighter(images: Images, factor: float) -> Images:
    return images * factor


def contrasted(images: Images, factor: float) -> Images:
    """Distances from each image's mean times `factor`."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + factor * (images - mean)


def noisy(images: Images, spread: float) -> Images:
    return images + spread * torch.randn(images.shape, generator=torch.Generator().manual_seed(NOISE_SEED))


def compressed(images: Images, quality: int) -> Images:
    """Through a JPEG file, colours at half the resolution, as such files have them."""
    found = []
    for image in to_bytes(images):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "jpeg", quality=quality, subsampling="4:2:0")
        found.append(np.asarray(Image.open(file)))
    return from_bytes(np.stack(found))


def blurred(images: Images, spread: float) -> Images:
    """By a Gaussian, `spread` in pixels."""
    return torch.from_numpy(gaussian_filter(images.numpy(), (0, 0, spread, spread), mode="nearest"))


def exchanged(images: Images) -> Images:
    """Red becomes green, green blue, blue red."""
    return images.roll(1, dims=1)


CHANGES: dict[str, Change] = {
    "as they are": lambda images: images,
    **{
        f"brightness × {factor}": functools.partial(brighter, factor=factor)
        for factor in (0.6, 0.7, 0.8, 1.2, 1.3, 1.4)
    },
    **{f"contrast × {factor}": functools.partial(contrasted, factor=factor) for factor in (0.6, 1.4)},
    **{f"noise {spread}": functools.partial(noisy, spread=spread) for spread in (0.05, 0.1)},
    **{f"JPEG, quality {quality}": functools.partial(compressed, quality=quality) for quality in (75, 30)},
    "blurred by a pixel": functools.partial(blurred, spread=1.0),
    "channels exchanged": exchanged,
}
"""By what a change is called. Values are cut to [0, 1] afterwards."""
AGAIN = ("as they are", "brightness × 0.7", "brightness × 1.3")
"""The changes of scenes by another renderer."""
OTHERS = "another renderer"
MORE = (1, "one object more"), (2, "two objects more")


def to_bytes(images: Images) -> np.ndarray:
    return (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def from_bytes(pictures: np.ndarray) -> Images:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


# --- the same scenes, drawn by others ---


def beveled(batch: Batch, look: str) -> Batch:
    """Tetrominoes again: each block a face and four edges, mitred at the corners."""
    bevel, side, n = tetrominoes.BEVELS[look], batch["image"].shape[-1], SUPERSAMPLED
    inner, outer = n, tetrominoes.BLOCK * n
    far = outer - inner
    parts = [  # corners of a polygon, and where its brightness stands in the bevel
        ([(0, 0), (outer, 0), (far, inner), (inner, inner)], bevel[0, 2]),
        ([(0, outer), (outer, outer), (far, far), (inner, far)], bevel[4, 2]),
        ([(0, 0), (0, outer), (inner, far), (inner, inner)], bevel[2, 0]),
        ([(outer, 0), (outer, outer), (far, far), (far, inner)], bevel[2, 4]),
        ([(inner, inner), (far, inner), (far, far), (inner, far)], bevel[2, 2]),
    ]
    paint = list(tetrominoes.COLOURS.values())
    pictures = []
    for scene in things(batch["objects"]):
        canvas = Image.new("RGB", (side * n, side * n))
        pen = ImageDraw.Draw(canvas)
        for piece in scene:
            for row, column in tetrominoes.PIECES[piece["shape"]].tolist():
                left, top = (n * (piece[axis] + tetrominoes.BLOCK * by) for axis, by in (("x", column), ("y", row)))
                for corners, level in parts:
                    # Pillow paints a polygon's last row and column too.
                    places = [(min(left + x, left + outer - 1), min(top + y, top + outer - 1)) for x, y in corners]
                    pen.polygon(places, tuple(int(level) * value for value in paint[piece["colour"]]))
        pictures.append(np.asarray(canvas.resize((side, side), Image.Resampling.BOX)))
    return {"image": from_bytes(np.stack(pictures)), "mask": batch["mask"]}


def outline(thing: dict[str, Any], scale: float) -> list[tuple[float, float]]:
    """Of one of the Shapes, so many pixels to one of 64, as a polygon."""
    area = math.pi * list(shapes.SIZES.values())[thing["size"]] ** 2
    corners = {"circle": 96, "square": 4, "triangle": 3}[shapes.SHAPES[thing["shape"]]]
    reach = math.sqrt(2 * area / (corners * math.sin(2 * math.pi / corners)))  # of a regular polygon of that area
    first = thing["rotation"] - math.pi / 2 + (math.pi / 4 if corners == 4 else 0)
    angles = [first + 2 * math.pi * corner / corners for corner in range(corners)]
    x, y = (thing[axis] * scale for axis in "xy")
    return [(x + scale * reach * math.cos(angle), y + scale * reach * math.sin(angle)) for angle in angles]


def polygonal(batch: Batch) -> Batch:
    """Shapes again, as polygons, the front ones last."""
    side, n = batch["image"].shape[-1], SUPERSAMPLED
    paint = list(shapes.COLOURS.values())
    pictures, labels = [], []
    for scene in things(batch["objects"]):
        canvas, owners = Image.new("RGB", (side * n, side * n), shapes.BACKGROUND), Image.new("L", (side * n, side * n))
        for number, thing in enumerate(scene, start=1):
            corners = outline(thing, n)
            ImageDraw.Draw(canvas).polygon(corners, paint[thing["colour"]])
            ImageDraw.Draw(owners).polygon(corners, number)
        pictures.append(np.asarray(canvas.resize((side, side), Image.Resampling.BOX)))
        labels.append(np.asarray(owners.resize((side, side), Image.Resampling.NEAREST)))
    return {"image": from_bytes(np.stack(pictures)), "mask": torch.from_numpy(np.stack(labels))}


KINDS = (range(192), range(192, 256), range(256, 320))
"""Which frames of the animation show hearts, ovals, squares."""


def pasted(batch: Batch, frames: Float[np.ndarray, "frames 64 64"], least: float = 0.25) -> Batch:
    """Multi-dSprites with the sprites of dSprites itself: scales and turns as they come, all else as in the batch.
    Every sprite shows at least the share `least` of itself."""
    random = np.random.default_rng(NOISE_SEED)
    pictures, labels = [], []
    for image, scene in zip(batch["image"], things(batch["objects"]), strict=True):
        while True:
            mask, areas = np.zeros((64, 64), np.uint8), []
            for number, thing in enumerate(scene, start=1):
                rows, columns = np.nonzero(frames[random.choice(KINDS[random.integers(3)])])
                rows = rows - rows.min() + round(thing["y"] - (np.ptp(rows) + 1) / 2)
                columns = columns - columns.min() + round(thing["x"] - (np.ptp(columns) + 1) / 2)
                mask[rows, columns] = number
                areas.append(len(rows))
            if all((mask == i + 1).sum() >= least * area for i, area in enumerate(areas)):
                break
        paint = np.array([image[:, 0, 0].tolist(), *(thing["colour"] for thing in scene)])
        pictures.append((255 * paint[mask]).round().astype(np.uint8))
        labels.append(mask)
    return {"image": from_bytes(np.stack(pictures)), "mask": torch.from_numpy(np.stack(labels))}


def things(objects: dict[str, Tensor]) -> Iterator[list[dict[str, Any]]]:
    """The objects of every scene that are there, a dictionary of plain numbers each."""
    for scene, there in enumerate(objects["present"]):
        yield [{name: value[scene, i].tolist() for name, value in objects.items()} for i in there.nonzero()[:, 0]]


def redrawn(model: Model, batch: Batch, asked: argparse.Namespace) -> Batch | None:
    """Such scenes by another renderer; None where there is none."""
    name, options = model.card["dataset"]["name"], model.card["dataset"]["options"]
    if name == "tetrominoes":
        return beveled(batch, options.get("look", tetrominoes.LOOK))
    if name == "shapes":
        return polygonal(batch)
    if name == "multi_dsprites" and asked.published:
        picture = np.asarray(Image.open(asked.published / "dsprites_frames.png").convert("L"))
        frames = picture.reshape(16, 64, 20, 64).swapaxes(1, 2).reshape(-1, 64, 64) > 127
        return pasted(batch, frames)
    if name == "clevr" and asked.clevr:
        most, side = batch["objects"]["present"].shape[1], batch["image"].shape[-1]
        scenes = data.read(asked.clevr, max_objects=most, crop=clevr.CROP, resolution=(side, side))
        return scenes.batch(range(len(scenes)))
    return None


# --- measuring ---


def lines(name: str, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One model on all scenes, changed in every way."""
    model = zoo.load(name)
    observer = model.autoencoder if isinstance(model, CodePrior) else model
    dataset, slots = model.card["dataset"], observer.slot_attention.num_slots
    batch = data.make(dataset["name"], IMAGES, SCENES_SEED, **dataset["options"]).batch(range(IMAGES))

    def line(called: str, content: Batch, change: Change = CHANGES["as they are"], **how: int) -> dict[str, Any]:
        pictures = {**content, "image": from_bytes(to_bytes(change(content["image"])))}
        scores = evaluate(observer, Held(pictures, {}), IMAGES, seed=NOISE_SEED, **how).means
        found = {
            "model": name,
            "sha256": model.card["sha256"],
            "change": called,
            **{score: round(scores[score], 4) for score in SCORES if score in scores},
            "images": len(pictures["image"]),
            "scenes_seed": SCENES_SEED,
            "noise_seed": NOISE_SEED,
        }
        print(*(found.get(column, "") for column in COLUMNS if column != "sha256"), sep=", ", flush=True)
        return found

    for called, change in CHANGES.items():
        yield line(called, batch, change)
    most = batch["objects"]["present"].shape[1]
    for more, called in () if isinstance(model, SetPredictor) else MORE:
        options = {**dataset["options"], "num_objects": most + more}
        fuller = data.make(dataset["name"], IMAGES, SCENES_SEED, **options).batch(range(IMAGES))
        yield line(called, fuller, num_slots=slots + more)
    others = redrawn(model, batch, asked)
    if others is not None:
        for called in AGAIN:
            yield line(OTHERS if called == AGAIN[0] else f"{OTHERS}, {called}", others, CHANGES[called])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS, help="that ship (default: all that the page shows)")
    parser.add_argument("--clevr", type=Path)
    parser.add_argument("--published", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name in asked.models:
        measured = list(lines(name, asked))
        stored: list[dict[str, Any]] = []
        if RESULTS.exists():
            with RESULTS.open(newline="", encoding="utf-8") as file:
                stored = [line for line in csv.DictReader(file) if line["model"] != name]
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(sorted([*stored, *measured], key=lambda line: MODELS.index(line["model"])))
        checkpoint.write(RESULTS, text.getvalue().encode())


if __name__ == "__main__":
    main()
