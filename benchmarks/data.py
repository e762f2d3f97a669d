"""Tetrominoes scenes per second, against drawing the same kind of scenes object by object in NumPy."""

import numpy as np
import torch

from benchmarks.measure import Row, in_turns
from slotlib.data import make
from slotlib.data.tetrominoes import BEVEL, BLOCK, COLOURS, PIECES, RESOLUTION

SCENES, BATCH = 2048, 256
NEEDED = 5000  # scenes per second, so that drawing costs training next to nothing
ROUNDS = 5
PAINT = np.array(list(COLOURS.values()), dtype=np.float32)
SHADE = (BEVEL.numpy() / 255).astype(np.float32)
BLOCKS = BLOCK * PIECES.numpy()


def put(image: np.ndarray, mask: np.ndarray, name: int, shape: int, colour: int, y: int, x: int) -> bool:
    """Draw one piece, unless it would cover another."""
    patches = [(slice(y + r, y + r + BLOCK), slice(x + c, x + c + BLOCK)) for r, c in BLOCKS[shape]]
    if any(mask[patch].any() for patch in patches):
        return False
    for rows, columns in patches:
        mask[rows, columns] = name
        image[:, rows, columns] = PAINT[colour][:, None, None] * SHADE
    return True


def blank() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((3, RESOLUTION, RESOLUTION), np.float32), np.zeros((RESOLUTION, RESOLUTION), np.uint8)


def scene(random: np.random.Generator, count: int = 3, tries: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """One scene the plain way: a shape, a colour, and positions until one is free."""
    image, mask = blank()
    for name in range(1, count + 1):
        shape, colour = random.integers(len(BLOCKS)), random.integers(len(PAINT))
        room = RESOLUTION - BLOCK + 1 - BLOCKS[shape].max(0)
        if not any(put(image, mask, name, shape, colour, *random.integers(room)) for _ in range(tries)):
            return scene(random, count, tries)  # the earlier pieces may leave no room at all
    return image, mask


def check() -> None:
    """Given the same pieces, both sides draw the same pixels."""
    batch = make("tetrominoes", 32).batch(range(32))
    for i in range(32):
        image, mask = blank()
        pieces = zip(*(batch["objects"][key][i].tolist() for key in ("shape", "colour", "y", "x")), strict=True)
        for name, piece in enumerate(pieces, start=1):
            assert put(image, mask, name, *piece)
        np.testing.assert_allclose(batch["image"][i], image, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(batch["mask"][i], mask)


def run() -> list[Row]:
    check()
    scenes = make("tetrominoes", SCENES)
    batches = torch.arange(SCENES).split(BATCH)
    random = np.random.default_rng(0)
    ours, theirs = in_turns(
        [lambda: [scenes.batch(b) for b in batches], lambda: [scene(random) for _ in range(SCENES)]], ROUNDS, warm_up=1
    )
    ours, theirs = SCENES / ours, SCENES / theirs
    what, unit = f"three pieces, batches of {BATCH}", "scenes/s"
    return [
        Row(what, "NumPy, piece by piece", unit, ours, theirs, ours / theirs, 1, ours >= theirs),
        Row(what, "what training needs", unit, ours, NEEDED, ours / NEEDED, 1, ours >= NEEDED),
    ]
