"""Tetrominoes: bevelled pieces on black, 35×35 (Kabra et al., 2019, Multi-Object Datasets).

A piece is four 5×5 blocks in one of the 19 fixed tetrominoes (seven pieces in all their rotations) and one of six
colours. Pieces sit at any pixel offset and do not overlap; they may touch and may share a colour. Every block is
bevelled (bright top row, darker sides, dark bottom row), and that is all that tells two touching pieces of one colour
apart.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slotlib.data.random import integers, uniform

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
MAX_OBJECTS = 6
_PROPOSALS = 16  # positions tried for a piece before the whole scene is drawn anew


def _fixed_pieces() -> Int[Tensor, "19 4 2"]:
    """(row, column) of the four blocks of every piece in every distinct rotation."""
    pieces: list[tuple[tuple[int, int], ...]] = []
    for rows in SHAPES.values():
        cells = [(r, c) for r, row in enumerate(rows) for c, mark in enumerate(row) if mark == "#"]
        for _ in range(4):
            cells = [(c, -r) for r, c in cells]
            top, left = min(r for r, _ in cells), min(c for _, c in cells)
            cells = sorted((r - top, c - left) for r, c in cells)
            if tuple(cells) not in pieces:
                pieces.append(tuple(cells))
    return torch.tensor(pieces)


def _bevel() -> Int[Tensor, "5 5"]:
    """Brightness of one block, of 255."""
    block = torch.full((BLOCK, BLOCK), 224)
    block[:, [0, -1]] = 192
    block[-1] = 160
    block[0] = 255
    return block


PIECES = _fixed_pieces()
BEVEL = _bevel()


def _draws(seed: int, index: Tensor, slots: int, attempt: int) -> Float[Tensor, "scenes slots numbers"]:
    """The random numbers of one try: for every object one for its piece, then two for each proposed position."""
    return uniform(seed, index, slots * (1 + 2 * _PROPOSALS), stream=1 + attempt).unflatten(1, (slots, -1))


def _place(seed: int, index: Tensor, count: Tensor, piece: Tensor, attempt: int) -> tuple[Tensor, Tensor]:
    """One try at placing the given pieces of each scene, one after the other.

    Returns the corner pixel of every block `[scenes, slots, 4, 2]`, and whether the try succeeded `[scenes]`. A scene
    that failed keeps its pieces in the next try; drawing others would favour those that are easy to place.
    """
    slots = piece.shape[1]
    u = _draws(seed, index, slots, attempt)
    blocks = PIECES.to(index.device)[piece] * BLOCK
    room = RESOLUTION - BLOCK + 1 - blocks.amax(dim=2)  # offsets that keep the piece inside
    offsets = integers(u[..., 1:].unflatten(-1, (_PROPOSALS, 2)), room.unsqueeze(2))
    corners = torch.empty_like(blocks)
    ok = torch.ones_like(index, dtype=torch.bool)
    for k in range(slots):
        tries = blocks[:, k, None] + offsets[:, k, :, None]  # [scenes, proposals, 4, 2]
        if k:
            gap = (tries.flatten(1, 2).unsqueeze(2) - corners[:, :k].flatten(1, 2).unsqueeze(1)).abs()
            clash = (gap < BLOCK).all(-1)  # [scenes, proposals · 4, earlier blocks]
            free = ~clash.unflatten(1, (_PROPOSALS, 4)).flatten(2).any(-1)
        else:
            free = torch.ones(tries.shape[:2], dtype=torch.bool, device=index.device)
        ok &= free.any(1) | (k >= count)
        first = free.byte().argmax(dim=1)
        corners[:, k] = tries[torch.arange(len(tries), device=index.device), first]
    return corners, ok


def draw(
    seed: int, index: Int[Tensor, "scenes"], num_objects: int | tuple[int, int] = 3
) -> dict[str, Tensor | dict[str, Tensor]]:
    """Draw the scenes numbered `index`, all at once, on the device of `index`.

    Args:
        seed: which world; scene i of a seed never changes.
        index: scene numbers, int64.
        num_objects: pieces per scene, or the least and the most (inclusive, uniform); 1 to 6. Six rarely fit at the
            first try: such scenes take some fifty times longer to draw than scenes of three.

    Returns a batch: `image` float32 `[scenes, 3, 35, 35]` in multiples of 1/255; `mask` uint8 `[scenes, 35, 35]`
    (0 background, i the i-th object); `objects` with `present` (bool), `shape` (0–18, row of `PIECES`), `colour` (0–5,
    order of `COLOURS`), `x`, `y` (pixel of the bounding box's upper left corner), each `[scenes, most]`.

    Raises ValueError for a number of objects outside 1–6.
    """
    bounds = (num_objects, num_objects) if isinstance(num_objects, int) else tuple(num_objects)
    whole = len(bounds) == 2 and all(isinstance(bound, int) for bound in bounds)
    if not whole or not 1 <= bounds[0] <= bounds[1] <= MAX_OBJECTS:
        raise ValueError(
            f"num_objects must be within 1 to {MAX_OBJECTS}, a number or (least, most) with least <= most, "
            f"got {num_objects}"
        )
    least, most = bounds
    u = uniform(seed, index, 1 + most)
    count = least + integers(u[:, 0], most - least + 1)
    colour = integers(u[:, 1:], len(COLOURS))
    piece = integers(_draws(seed, index, most, attempt=0)[..., 0], len(PIECES))
    corners, ok = _place(seed, index, count, piece, attempt=0)
    attempt = 0
    while not ok.all():
        attempt += 1
        again = (~ok).nonzero().squeeze(1)
        corners[again], ok[again] = _place(seed, index[again], count[again], piece[again], attempt)

    scenes, device = len(index), index.device
    present = torch.arange(most, device=device) < count.unsqueeze(1)
    # Scatter every block's 25 pixels into a flat image. Absent pieces land in one extra cell that is cut off again.
    patch = torch.arange(BLOCK, device=device)
    rows = corners[..., 0, None, None] + patch.unsqueeze(1)
    columns = corners[..., 1, None, None] + patch
    area = RESOLUTION * RESOLUTION
    pixels = torch.where(present[:, :, None, None, None], rows * RESOLUTION + columns, area).flatten(1)
    names = torch.arange(1, most + 1, dtype=torch.uint8, device=device).repeat_interleave(4 * BLOCK * BLOCK)
    bevel = BEVEL.to(device, torch.uint8).flatten().repeat(most * 4)
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
        "image": lit.unflatten(2, (RESOLUTION, RESOLUTION)),
        "mask": mask.unflatten(1, (RESOLUTION, RESOLUTION)),
        "objects": {
            "present": present,
            "shape": piece.where(present, 0),
            "colour": colour.where(present, 0),
            "x": box[..., 1].where(present, 0),
            "y": box[..., 0].where(present, 0),
        },
    }
