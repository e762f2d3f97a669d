"""Scenes per second, against a plain drawing of the same scenes, object by object, in NumPy and Pillow."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw

from benchmarks.measure import Row, in_turns
from slotlib.data import make, multi_dsprites, shapes, tetrominoes

SCENES, BATCH = 2048, 256
ROUNDS = 5
Picture = tuple[np.ndarray, np.ndarray]
Properties = list[dict[str, Any]]


class Subject(NamedTuple):
    """A dataset to measure."""

    what: str
    peer_name: str
    name: str
    goal: float
    """Scenes per second, so that drawing costs training next to nothing."""
    plain: Callable[[Properties, np.ndarray], Picture]
    """Image uint8 `[H, W, 3]` and mask of one scene, from its objects' properties and the background colour 0–255."""
    tolerance: float
    """Share of the pixels that may differ, where the two sides soften edges differently."""


# --- Tetrominoes ---

TETROMINOES = tetrominoes.BLOCK * tetrominoes.PIECES.numpy()
PAINT = np.array(list(tetrominoes.COLOURS.values()), dtype=np.uint8)
BEVEL = tetrominoes.BEVELS[tetrominoes.LOOK].numpy().astype(np.uint8)[:, :, None]


def plain_tetrominoes(objects: Properties, background: np.ndarray) -> Picture:
    image, mask = np.zeros((35, 35, 3), np.uint8), np.zeros((35, 35), np.uint8)
    for number, piece in enumerate(objects, start=1):
        for row, column in TETROMINOES[piece["shape"]]:
            rows = slice(piece["y"] + row, piece["y"] + row + tetrominoes.BLOCK)
            columns = slice(piece["x"] + column, piece["x"] + column + tetrominoes.BLOCK)
            mask[rows, columns] = number
            image[rows, columns] = PAINT[piece["colour"]] * BEVEL
    return image, mask


# --- Shapes and Multi-dSprites: outlines, drawn four times as large and shrunk ---

FINE = 4
TURN = np.linspace(0, 2 * math.pi, 48, endpoint=False)
CIRCLE = np.stack([np.cos(TURN), np.sin(TURN)], axis=1)
SQUARE = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
TRIANGLE = np.stack([np.sin(TURN[::16]), -np.cos(TURN[::16])], axis=1)


def _lobed_heart() -> np.ndarray:
    """Outline of a unit square on its corner with half discs on its upper sides, about its centre of mass."""
    arc = np.linspace(-math.pi / 4, 3 * math.pi / 4, 24)
    lobe = np.stack([np.cos(arc) / 2 + 8**-0.5, -np.sin(arc) / 2 - 8**-0.5], axis=1)
    outline = np.concatenate([lobe, lobe[::-1] * (-1, 1), [(0, 0.5**0.5)]])
    return outline + (0, 0.22154)


HEART = np.stack(
    [16 * np.sin(TURN) ** 3, 5 * np.cos(2 * TURN) + 2 * np.cos(3 * TURN) + np.cos(4 * TURN) - 13 * np.cos(TURN)], axis=1
)
FIGURES = {
    "circle": CIRCLE,
    "square": SQUARE * math.sqrt(math.pi),
    "triangle": TRIANGLE * math.sqrt(4 * math.pi / math.sqrt(27)),
}
LOOK = multi_dsprites.LOOKS[multi_dsprites.LOOK]
SPRITES = {
    "first": {"square": SQUARE * 18, "ellipse": CIRCLE * (13, 6.5), "heart": _lobed_heart() * 12.8},
    "published": {
        "square": SQUARE * 19.2,
        "ellipse": CIRCLE * (12.75, 7.225),
        "heart": HEART * (0.6, 0.6625) - (0, 1.45),
    },
}[multi_dsprites.LOOK]
RADII = list(shapes.SIZES.values())
SHADES = np.array(list(shapes.COLOURS.values()))


def paint(
    canvas: np.ndarray, mask: np.ndarray, number: int, outline: np.ndarray, colour: np.ndarray, soft: bool = True
) -> None:
    """Lay one figure over the picture: how much of each pixel it covers decides how much of its colour is mixed in."""
    side = len(mask)
    figure = Image.new("L", (side * FINE, side * FINE))
    # Pillow fills pixels whose centres lie at whole numbers.
    ImageDraw.Draw(figure).polygon([tuple(point) for point in (outline * FINE - 0.5).tolist()], fill=255)
    cover = np.asarray(figure.reduce(FINE), dtype=np.float32) / 255
    cover = cover if soft else cover.round()
    canvas += cover[:, :, None] * (colour - canvas)
    mask[cover >= 0.5] = number


def turned(outline: np.ndarray, angle: float, x: float, y: float) -> np.ndarray:
    cosine, sine = math.cos(angle), math.sin(angle)
    return outline @ np.array([(cosine, sine), (-sine, cosine)]) + (x, y)


def plain_shapes(objects: Properties, background: np.ndarray) -> Picture:
    canvas, mask = np.full((64, 64, 3), background, np.float32), np.zeros((64, 64), np.uint8)
    for number, o in enumerate(objects, start=1):
        outline = FIGURES[shapes.SHAPES[o["shape"]]] * RADII[o["size"]]
        paint(canvas, mask, number, turned(outline, o["rotation"], o["x"], o["y"]), SHADES[o["colour"]])
    return canvas.round().astype(np.uint8), mask


def plain_sprites(objects: Properties, background: np.ndarray) -> Picture:
    canvas, mask = np.full((64, 64, 3), background, np.float32), np.zeros((64, 64), np.uint8)
    for number, o in enumerate(objects, start=1):
        outline = SPRITES[multi_dsprites.SHAPES[o["shape"]]] * o["scale"]
        place = turned(outline, LOOK.clockwise * o["orientation"], o["x"], o["y"])
        paint(canvas, mask, number, place, 255 * np.array(o["colour"]), LOOK.soft)
    return canvas.round().astype(np.uint8), mask


SUBJECTS = [
    Subject("Tetrominoes 35×35", "NumPy, block by block", "tetrominoes", 5000, plain_tetrominoes, 0),
    Subject("Shapes 64×64", "Pillow, shape by shape", "shapes", 1000, plain_shapes, 0.02),
    Subject("Multi-dSprites 64×64", "Pillow, sprite by sprite", "multi_dsprites", 1000, plain_sprites, 0.02),
]


def properties(batch: dict[str, Any]) -> list[Properties]:
    """For every scene the properties of its objects as plain numbers."""
    columns = {name: value.tolist() for name, value in batch["objects"].items()}
    scenes = (dict(zip(columns, scene, strict=True)) for scene in zip(*columns.values(), strict=True))
    return [
        [{name: values[k] for name, values in scene.items()} for k in range(sum(scene["present"]))] for scene in scenes
    ]


def check(subject: Subject, batch: dict[str, Any]) -> None:
    """Given the same objects, both sides draw the same pictures: exactly, or but for the softness of edges."""
    for i, objects in enumerate(properties(batch)):
        ours, mask = (255 * batch["image"][i]).round().permute(1, 2, 0).numpy(), batch["mask"][i].numpy()
        image, names = subject.plain(objects, ours[0, 0])
        apart = np.abs(ours - image).max(2)
        assert (names != mask).mean() <= subject.tolerance
        assert (apart > 64).mean() <= subject.tolerance
        assert apart.mean() <= 255 * subject.tolerance


def measure(subject: Subject) -> list[Row]:
    scenes = make(subject.name, SCENES)
    batches = torch.arange(SCENES).split(BATCH)
    known = scenes.batch(range(SCENES))
    check(subject, scenes.batch(range(64)))
    # The peer is spared the choice of the objects and of places where they can be seen.
    objects = properties(known)
    grounds = (255 * known["image"][:, :, 0, 0]).numpy()

    def plainly() -> list[Picture]:
        return [subject.plain(*scene) for scene in zip(objects, grounds, strict=True)]

    ours, theirs = in_turns([lambda: [scenes.batch(b) for b in batches], plainly], ROUNDS, warm_up=1)
    ours, theirs = SCENES / ours, SCENES / theirs
    return [
        Row(subject.what, subject.peer_name, "scenes/s", ours, theirs, ours / theirs, 1, ours >= theirs),
        Row(
            subject.what,
            "what training needs",
            "scenes/s",
            ours,
            subject.goal,
            ours / subject.goal,
            1,
            ours >= subject.goal,
        ),
    ]


def run() -> list[Row]:
    return [row for subject in SUBJECTS for row in measure(subject)]
