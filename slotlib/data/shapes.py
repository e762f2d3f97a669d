"""Shapes: circles, squares and triangles in flat colours, 64×64. The friendly first dataset.

Two to six objects of three shapes, eight colours and three sizes lie on a dark ground. They may hide one another, but
each shows at least half of itself. Objects of one size have the same area, whatever their shape. Two objects may share
a colour; where such two overlap, the outline between them cannot be seen.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from slotlib.data import sprites
from slotlib.data.attributes import bounds, combinations
from slotlib.data.precision import in_single_precision
from slotlib.data.published import features, in_colour
from slotlib.data.random import integers, uniform
from slotlib.data.scenes import Batch, Generator, things

SHAPES = ("circle", "square", "triangle")
COLOURS = {
    "red": (222, 52, 56),
    "orange": (250, 146, 30),
    "yellow": (252, 220, 70),
    "green": (60, 160, 70),
    "cyan": (90, 210, 225),
    "blue": (50, 90, 215),
    "purple": (140, 70, 185),
    "pink": (250, 150, 195),
}
SIZES = {"small": 5.0, "medium": 7.0, "large": 9.0}
"""Radius of the circle of the same area, in pixels of a 64×64 image."""
VALUES = {"shape": SHAPES, "colour": tuple(COLOURS), "size": tuple(SIZES)}
BACKGROUND = (20, 22, 30)
MAX_OBJECTS = 12
TURNS = (0.0, math.pi / 2, 2 * math.pi / 3)
"""The angle after which a shape looks as before; rotations lie below it. A circle has none."""
# How far each shape reaches from its centre, in radii of that circle.
_REACH = (1.0, math.sqrt(math.pi / 2), math.sqrt(4 * math.pi / math.sqrt(27)))


def _circle(u: Tensor, v: Tensor, reach: Tensor) -> Tensor:
    return (u * u + v * v).sqrt() - reach


def _square(u: Tensor, v: Tensor, reach: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - reach * math.sqrt(1 / 2)


def _triangle(u: Tensor, v: Tensor, reach: Tensor) -> Tensor:
    return torch.maximum(v, u.abs() * math.sqrt(3 / 4) - v / 2) - reach / 2


@in_single_precision
def draw(
    seed: int,
    index: Int[Tensor, "scenes"],
    num_objects: int | Sequence[int] = (2, 6),
    resolution: int = 64,
    min_visible: float = 0.5,
    held_out: Sequence[Mapping[str, str | int]] = (),
    novel: bool = False,
) -> Batch:
    """Draw the scenes numbered `index`, all at once, on the device of `index`.

    Args:
        seed: which world; scene i of a seed never changes.
        index: scene numbers, int64.
        num_objects: objects per scene, or the least and the most (inclusive, uniform); 1 to 12.
        resolution: side of the image in pixels, at least 16. Everything scales with it.
        min_visible: the share of its own pixels that every object shows, 0 to 1. With 0 an object may be hidden.
        held_out: combinations of shape, colour and size that never appear, see `slotlib.data.attributes`.
        novel: draw only those.

    Returns a batch: `image` float32 `[scenes, 3, H, W]` in multiples of 1/255; `mask` uint8 `[scenes, H, W]` (0
    background, i the i-th object); `objects`, each `[scenes, most]`: `present` (bool), `shape`, `colour`, `size`
    (order of `SHAPES`, `COLOURS`, `SIZES`), `x`, `y` (centre in pixels, the image spans [0, W]; a triangle's centre of
    mass), `rotation` (radians, clockwise as seen, below the shape's `TURNS`; a triangle at 0 points up). Objects with
    higher numbers lie in front.

    Raises ValueError for an option out of range, or where objects find no place (see `slotlib.data.sprites.arrange`).
    """
    least, most = bounds(num_objects, MAX_OBJECTS)
    sprites.check(resolution, min_visible)
    table = combinations(VALUES, held_out, novel).to(index.device)
    u = uniform(seed, index, 1 + 2 * most)
    present = sprites.count(u[:, 0], least, most)
    which, turn = u[:, 1:].unflatten(1, (most, 2)).unbind(-1)
    shape, colour, size = table[integers(which, len(table))].unbind(-1)

    scale = resolution / 64
    number = {"dtype": torch.float64, "device": index.device}
    reach = torch.tensor(list(SIZES.values()), **number)[size] * torch.tensor(_REACH, **number)[shape] * scale
    rotation = turn * torch.tensor(TURNS, **number)[shape]
    cosine, sine = rotation.cos(), rotation.sin()
    farthest = max(SIZES.values()) * max(_REACH) * scale

    def centre(rows: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Anywhere where the whole object is in the image."""
        room = (resolution - 2 * reach[rows]).unsqueeze(-1)
        x, y = (reach[rows].unsqueeze(-1) + place * room).unbind(-1)
        return x, y

    def figure(rows: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        kinds, angle = (_circle, _square, _triangle), (cosine[rows], sine[rows])
        return sprites.outline(kinds, shape[rows], reach[rows], angle, *centre(rows, place), farthest, resolution)

    place, cover, corner, mask = sprites.arrange(seed, index, present, figure, resolution, min_visible)
    x, y = centre(torch.arange(len(index), device=index.device), place)
    paint = torch.tensor(list(COLOURS.values()), device=index.device) / 255
    ground = (torch.tensor(BACKGROUND, device=index.device) / 255).expand(len(index), 3)
    image = sprites.paint(cover, corner, paint[colour], ground, resolution)
    place = {"x": x.float(), "y": y.float(), "rotation": rotation.float()}
    objects = things(present, shape=shape, colour=colour, size=size, **place)
    return {"image": image, "mask": mask, "objects": objects}


def published(batch: Batch) -> dict[str, Tensor]:
    """The objects as the published files of such scenes have them: colours as RGB."""
    return features(in_colour(batch, COLOURS, full=255))


GENERATOR = Generator(draw, VALUES, published)
