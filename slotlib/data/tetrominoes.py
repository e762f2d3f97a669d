"""Tetrominoes: bevelled pieces on black, 35×35 (Kabra et al., 2019, Multi-Object Datasets).

A piece is four 5×5 blocks in one of the 19 fixed tetrominoes (seven pieces in all their rotations) and one of six
colours. Pieces sit at any pixel offset and do not overlap; they may touch and may share a colour. Every block is
bevelled, and that is all that tells two touching pieces of one colour apart. `look="published"` has the bevel of the
published files, recovered from the one picture that can be seen of them; `look="first"` a flatter, brighter guess, on
which models of slotlib 0.1 were trained. The published data count 17 distinct shapes in their rotations; here all 19
appear.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slotlib.check import choice
from slotlib.data.attributes import bounds, combinations
from slotlib.data.precision import in_single_precision
from slotlib.data.published import features, in_colour
from slotlib.data.random import integers, uniform
from slotlib.data.scenes import Batch, Generator, things

RESOLUTION = 35
BLOCK = 5
COLOURS = {
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "yellow": (1, 1, 0),
    "magenta": (1, 0, 1),
    "cyan": (0, 1, 1),
}
SHAPES = {
    "I": ["####"],
    "O": ["##", "##"],
    "T": ["###", ".#."],
    "S": [".##", "##."],
    "Z": ["##.", ".##"],
    "J": ["#..", "###"],
    "L": ["..#", "###"],
}
_PROPOSALS = 16  # positions tried for a piece before all pieces of the scene are placed anew
_TRIES = 100_000  # ... and how often before giving up


def _fixed_pieces() -> tuple[Int[Tensor, "19 4 2"], tuple[str, ...]]:
    """(row, column) of the four blocks of every piece in every distinct rotation, and the letter of each."""
    pieces: dict[tuple[tuple[int, int], ...], str] = {}
    for letter, rows in SHAPES.items():
        cells = [(r, c) for r, row in enumerate(rows) for c, mark in enumerate(row) if mark == "#"]
        for _ in range(4):
            cells = [(c, -r) for r, c in cells]
            top, left = min(r for r, _ in cells), min(c for _, c in cells)
            cells = sorted((r - top, c - left) for r, c in cells)
            pieces[tuple(cells)] = letter
    return torch.tensor(list(pieces)), tuple(pieces.values())


PIECES, LETTERS = _fixed_pieces()
VALUES = {"shape": LETTERS, "colour": tuple(COLOURS)}
BEVELS = {
    look: torch.tensor([top, middle, middle, middle, bottom])
    for look, (top, middle, bottom) in {
        "first": ([255] * 5, [192, 224, 224, 224, 192], [160] * 5),
        "published": ([192, 255, 255, 255, 224], [128, 160, 160, 160, 192], [96, 64, 64, 64, 128]),
    }.items()
}
"""Brightness of one block, of 255, by look."""
LOOK = "published"
"""The default of `look`."""


def _draws(seed: int, index: Tensor, slots: int, attempt: int) -> Float[Tensor, "scenes slots numbers"]:
    """The random numbers of one try: for every object one for its piece, then two for each proposed position."""
    return uniform(seed, index, slots * (1 + 2 * _PROPOSALS), stream=1 + attempt).unflatten(1, (slots, -1))


def _place(
    seed: int, index: Tensor, count: Tensor, piece: Tensor, resolution: int, attempt: int
) -> tuple[Tensor, Tensor]:
    """One try at placing the given pieces of each scene, one after the other.

    Returns the corner pixel of every block `[scenes, slots, 4, 2]`, and whether the try succeeded `[scenes]`. A scene
    that failed keeps its pieces in the next try; drawing others would favour those that are easy to place.
    """
    slots = piece.shape[1]
    u = _draws(seed, index, slots, attempt)
    blocks = PIECES.to(index.device)[piece] * BLOCK
    room = resolution - BLOCK + 1 - blocks.amax(dim=2)  # offsets that keep the piece inside
    offsets = integers(u[..., 1:].unflatten(-1, (_PROPOSALS, 2)), room.unsqueeze(2))
    corners = torch.empty_like(blocks)
    ok = torch.ones_like(index, dtype=torch.bool)
    for k in range(slots):
        tries = blocks[:, k, None] + offsets[:, k, :, None]  # [scenes, proposals, 4, 2]
        new, old = tries.short().flatten(1, 2).unsqueeze(2), corners[:, :k].short().flatten(1, 2).unsqueeze(1)
        rows, columns = (((new[..., i] - old[..., i]).abs() < BLOCK) for i in (0, 1))
        clash = (rows & columns).unflatten(1, (_PROPOSALS, 4))  # [scenes, proposals, 4, earlier blocks]
        free = clash.flatten(2).sum(-1, dtype=torch.int32) == 0
        ok &= free.any(1) | (k >= count)
        first = free.byte().argmax(dim=1)
        corners[:, k] = tries[torch.arange(len(tries), device=index.device), first]
    return corners, ok


@in_single_precision
def draw(
    seed: int,
    index: Int[Tensor, "scenes"],
    num_objects: int | Sequence[int] = 3,
    resolution: int = RESOLUTION,
    held_out: Sequence[Mapping[str, str | int]] = (),
    novel: bool = False,
    look: str = LOOK,
) -> Batch:
    """Draw the scenes numbered `index`, all at once, on the device of `index`.

    Args:
        seed: which world; scene i of a seed never changes.
        index: scene numbers, int64.
        num_objects: pieces per scene, or the least and the most (inclusive, uniform), from 1 to one per 200 pixels of
            the canvas: six on 35×35. Six rarely fit at the first try: such scenes take some fifty times longer to
            draw than scenes of three.
        resolution: side of the canvas in pixels, at least 20. Pieces stay as large as they are.
        held_out: combinations of shape and colour that never appear, see `slotlib.data.attributes`. A shape is named
            by its letter, which stands for all its rotations, or by its row in `PIECES`.
        novel: draw only those.
        look: one of `BEVELS`.

    Returns a batch: `image` float32 `[scenes, 3, H, W]` in multiples of 1/255; `mask` uint8 `[scenes, H, W]`
    (0 background, i the i-th object); `objects` with `present` (bool), `shape` (0–18, row of `PIECES`, whose letters
    are `LETTERS`), `colour` (0–5, order of `COLOURS`), `x`, `y` (pixel of the bounding box's upper left corner), each
    `[scenes, most]`.

    Raises ValueError for an option out of range, or where the pieces do not fit.
    """
    if resolution < 4 * BLOCK:
        raise ValueError(f"resolution must be at least {4 * BLOCK}, got {resolution}")
    choice("look", look, BEVELS)
    least, most = bounds(num_objects, resolution**2 // 200)
    table = combinations(VALUES, held_out, novel).to(index.device)
    u = uniform(seed, index, 1 + most)
    count = least + integers(u[:, 0], most - least + 1)
    # Two uniform numbers per piece, its rotation's and its colour's, make one, digit by digit.
    piece = integers(_draws(seed, index, most, attempt=0)[..., 0], len(PIECES))
    piece, colour = table[integers((piece + u[:, 1:]) / len(PIECES), len(table))].unbind(-1)
    corners, ok = _place(seed, index, count, piece, resolution, attempt=0)
    attempt = 0
    while not ok.all():
        attempt += 1
        again = (~ok).nonzero().squeeze(1)
        if attempt == _TRIES:
            raise ValueError(
                f"{len(again)} of {len(index)} scenes: the pieces do not fit on {resolution}×{resolution} pixels; ask "
                "for fewer pieces or a larger resolution"
            )
        corners[again], ok[again] = _place(seed, index[again], count[again], piece[again], resolution, attempt)

    scenes, device = len(index), index.device
    present = torch.arange(most, device=device) < count.unsqueeze(1)
    # Scatter every block's 25 pixels into a flat image. Absent pieces land in one extra cell that is cut off again.
    patch = torch.arange(BLOCK, device=device)
    rows = corners[..., 0, None, None] + patch.unsqueeze(1)
    columns = corners[..., 1, None, None] + patch
    area = resolution * resolution
    pixels = torch.where(present[:, :, None, None, None], rows * resolution + columns, area).flatten(1)
    names = torch.arange(1, most + 1, dtype=torch.uint8, device=device).repeat_interleave(4 * BLOCK * BLOCK)
    bevel = BEVELS[look].to(device, torch.uint8).flatten().repeat(most * 4)
    mask = torch.zeros(scenes, area + 1, dtype=torch.uint8, device=device)
    mask.scatter_(1, pixels, names.expand(scenes, -1))
    shade = torch.zeros(scenes, area + 1, dtype=torch.uint8, device=device)
    shade.scatter_(1, pixels, bevel.expand(scenes, -1))
    mask = mask[:, :area]

    paint = torch.tensor(list(COLOURS.values()), dtype=torch.float32, device=device)[colour]
    paint = torch.cat([paint.new_zeros(scenes, 1, 3), paint], dim=1).mT  # [scenes, 3, 1 + most]
    lit = paint.gather(2, mask.long().unsqueeze(1).expand(-1, 3, -1)) * (shade[:, None, :area] / 255)
    box = corners.amin(dim=2)
    return {
        "image": lit.unflatten(2, (resolution, resolution)),
        "mask": mask.unflatten(1, (resolution, resolution)),
        "objects": things(present, shape=piece, colour=colour, x=box[..., 1], y=box[..., 0]),
    }


def published(batch: Batch) -> dict[str, Tensor]:
    """The objects as the published files have them: colours as RGB."""
    return features(in_colour(batch, COLOURS, full=1))


GENERATOR = Generator(draw, VALUES, published)
