"""Multi-dSprites: squares, ovals and hearts that hide one another, 64×64 (Kabra et al., 2019, Multi-Object Datasets).

Sprites have the properties of dSprites (Matthey et al., 2017): three shapes, six scales, forty orientations, 32×32
positions. `look="published"` draws them as dSprites does, as far as 320 frames of its animation tell: hard edges, and
centres from 16 to 48. `look="first"` has soft edges, and outlines guessed from the mean pixel of dSprites, 0.0425;
models of slotlib 0.1 were trained on it. With `sprites=` the sprites themselves come from the dSprites file.

What else the published files are is known only in words (numbers of sprites, "randomly colored HSV sprites", "randomly
sampled RGB values"), so the following is this generator's own:

- Colours on grey have any hue, and saturation and value of at least ½. So they differ from any grey by at least 1/8 in
  one channel. A random RGB value that is closer to the background than that moves half way round in every channel. The
  published files promise no such thing.
- Every sprite shows at least a quarter of itself. With `min_visible=0` they fall as they may.
- The variant "greyscale" has no published file: greys of at least ¼ on black, no two of a picture alike. In the other
  variants two sprites of one picture may have nearly the same colour.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slotlib.check import choice
from slotlib.data import dsprites
from slotlib.data.attributes import bounds, combinations
from slotlib.data.precision import in_single_precision
from slotlib.data.published import features
from slotlib.data.random import integers, uniform
from slotlib.data.scenes import Batch, Generator, things
from slotlib.data.sprites import arrange, check, count, outline, paint

SHAPES = ("square", "ellipse", "heart")
SCALES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
ORIENTATIONS = tuple(2 * math.pi * k / 39 for k in range(40))
"""As in dSprites, where the last one looks like the first."""
POSITIONS = 32
VARIANTS = {"binarised": (2, 3), "colour_on_grey": (2, 5), "colour_on_colour": (1, 4), "greyscale": (2, 5)}
"""Numbers of sprites. The first three are the published ones; "greyscale" is distinct greys on black."""
MAX_OBJECTS = 10
CONTRAST = 1 / 8
"""A sprite and the background differ by at least this (less rounding to 1/255) in one channel."""
LOOK = "published"
"""The default of `look`."""
_SIDE = 12.8  # of the square standing on its corner; with a half disc on each upper side it is the first look's heart
# How far its centre of mass lies above the square's, in sides.
_RISE = math.sqrt(0.5) * (math.pi / 8 + 1 / 6) / (1 + math.pi / 4)


def _square(u: Tensor, v: Tensor, scale: Tensor, half: float) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - half * scale


def _ellipse(u: Tensor, v: Tensor, scale: Tensor, a: float, b: float) -> Tensor:
    """To first order: the value of the equation, over its slope. The small terms keep the centre finite."""
    across, along = a * scale, b * scale
    u, v = u / across, v / along
    level = (u * u + v * v + 1e-6).sqrt()  # 1 on the outline
    u, v = u / across, v / along
    return level * (level - 1) / (u * u + v * v + 1e-9).sqrt()


def _lobed_heart(u: Tensor, v: Tensor, scale: Tensor) -> Tensor:
    """Two half discs on a square, about its centre of mass."""
    side = _SIDE * scale
    middle = side * math.sqrt(1 / 8)  # of an upper side, from the square's centre: as far to the right as up
    u, v = u.abs(), v - _RISE * side
    lobe = ((u - middle).square() + (v + middle).square()).sqrt()
    return torch.minimum((u + v.abs()) * math.sqrt(1 / 2), lobe) - side / 2


def _heart_curve(u: Tensor, v: Tensor, scale: Tensor) -> Tensor:
    """x = 16 sin³t, y = 13 cos t − 5 cos 2t − 2 cos 3t − cos 4t, so wide, high and far down as dSprites has it.

    Every x has two t, whose cosines differ in sign: the distances to the curve above and below.
    """
    u, v = u.abs() / (9.6 * scale), v / (0.6625 * scale) + 2.19
    cosine = (1 - u.clamp(max=1) ** (2 / 3)).sqrt()
    even, odd = 4 - 2 * cosine**2 - 8 * cosine**4, 19 * cosine - 8 * cosine**3
    return torch.maximum(u - 1, (v + even).abs() - odd)


class Look(NamedTuple):
    """How sprites are drawn, in pixels of a 64×64 image."""

    outlines: tuple[Callable[[Tensor, Tensor, Tensor], Tensor], ...]
    """Distances from square, ellipse and heart of a scale, negative inside, see `sprites.outline`."""
    first: float
    """The first position, in both directions."""
    step: float
    """From one position to the next."""
    reach: float
    """How far sprites reach from there."""
    clockwise: int
    """1: sprites turn clockwise as seen, -1: the other way."""
    soft: bool
    """Soft edges, or hard ones."""


LOOKS = {
    "first": Look(
        outlines=(partial(_square, half=9.0), partial(_ellipse, a=13.0, b=6.5), _lobed_heart),
        first=16.5,
        step=1.0,
        reach=13.0,
        clockwise=1,
        soft=True,
    ),
    "published": Look(
        outlines=(partial(_square, half=9.6), partial(_ellipse, a=12.75, b=7.225), _heart_curve),
        first=16.0,
        step=32 / 31,
        reach=13.6,
        clockwise=-1,
        soft=False,
    ),
}


def _from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Float[Tensor, "*objects 3"]:
    steps = (torch.tensor([5.0, 3.0, 1.0], dtype=hue.dtype, device=hue.device) + 6 * hue.unsqueeze(-1)) % 6
    return value.unsqueeze(-1) * (1 - saturation.unsqueeze(-1) * torch.minimum(steps, 4 - steps).clamp(0, 1))


def _colours(variant: str, u: Tensor, ground: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Colours `[scenes, objects, 3]` from `u` of that shape, and backgrounds `[scenes, 3]` from `ground`."""
    if variant == "binarised":
        return torch.ones_like(u), torch.zeros_like(ground)
    if variant == "colour_on_grey":
        return _from_hsv(u[..., 0], 0.5 + u[..., 1] / 2, 0.5 + u[..., 2] / 2), ground[:, :1].expand(-1, 3)
    if variant == "colour_on_colour":
        near = ((u - ground.unsqueeze(1)).abs() < CONTRAST).all(-1, keepdim=True)
        return torch.where(near, (u + 0.5) % 1, u), ground
    # As many steps of grey above a quarter as there are sprites, in random order; each in its step's upper half.
    rank = torch.where(present, u[..., 0], 2.0).argsort(dim=1).argsort(dim=1)
    grey = 0.25 + 0.75 * (rank + 0.5 + u[..., 1] / 2) / present.sum(1, keepdim=True)
    return grey.clamp(max=1).unsqueeze(-1).expand(-1, -1, 3), torch.zeros_like(ground)


@in_single_precision
def draw(
    seed: int,
    index: Int[Tensor, "scenes"],
    variant: str = "colour_on_grey",
    num_objects: int | Sequence[int] | None = None,
    resolution: int = 64,
    min_visible: float = 0.25,
    sprites: str | Path | None = None,
    held_out: Sequence[Mapping[str, str | int]] = (),
    novel: bool = False,
    look: str = LOOK,
) -> Batch:
    """Draw the scenes numbered `index`, all at once, on the device of `index`.

    Args:
        seed: which world; scene i of a seed never changes.
        index: scene numbers, int64.
        variant: one of `VARIANTS`: "binarised" (white on black), "colour_on_grey", "colour_on_colour", "greyscale"
            (greys on black, no two alike).
        num_objects: sprites per scene, or the least and the most (inclusive, uniform); 1 to 10. The variant's own by
            default.
        resolution: side of the image in pixels, at least 16. Everything scales with it.
        min_visible: the share of its own pixels that every sprite shows, 0 to 1. With 0 a sprite may be hidden.
        sprites: the dSprites file (`.npz`), to take the sprites from it, 64×64 with hard edges.
        held_out: combinations of shape, scale and orientation that never appear, see `slotlib.data.attributes`; a
            scale is named by its number in `SCALES`, an orientation by its number in `ORIENTATIONS`.
        novel: draw only those.
        look: one of `LOOKS`.

    Returns a batch: `image` float32 `[scenes, 3, H, W]` in multiples of 1/255; `mask` uint8 `[scenes, H, W]` (0
    background, i the i-th sprite); `objects`, each `[scenes, most]`: `present` (bool), `shape` (order of `SHAPES`),
    `scale` (float32, one of `SCALES`), `orientation` (float32, one of `ORIENTATIONS`: radians, clockwise as seen, in
    the published look the other way; at 0 the oval lies and the heart stands), `x`, `y` (float32, centre in pixels, the
    image spans [0, W]; a heart's is its centre of mass, in the published look 1.95 · `scale` below it), `colour`
    (float32 `[scenes, most, 3]`, RGB in multiples of 1/255). Sprites with higher numbers lie in front.

    Raises ValueError for an option out of range, or where sprites find no place (see `slotlib.data.sprites.arrange`);
    FileNotFoundError or `DataError` for a wrong `sprites` file.
    """
    choice("variant", variant, VARIANTS)
    choice("look", look, LOOKS)
    least, most = bounds(VARIANTS[variant] if num_objects is None else num_objects, MAX_OBJECTS)
    check(resolution, min_visible)
    if sprites is not None and resolution != 64:
        raise ValueError(f"the sprites of the dSprites file are drawn at resolution 64, got {resolution}")
    device = index.device
    properties = {"shape": SHAPES, "scale": range(len(SCALES)), "orientation": range(len(ORIENTATIONS))}
    table = combinations(properties, held_out, novel).to(device)
    u = uniform(seed, index, 4 + 4 * most)
    present = count(u[:, 0], least, most)
    which, *shade = u[:, 4:].unflatten(1, (most, 4)).unbind(-1)
    shape, scale, turn = table[integers(which, len(table))].unbind(-1)
    colour, ground = (
        shades.mul(255).round().div(255) for shades in _colours(variant, torch.stack(shade, -1), u[:, 1:4], present)
    )

    outlines, first, step, reach, clockwise, soft = LOOKS[look]
    zoom = resolution / 64
    size = torch.tensor(SCALES, device=device)[scale]
    angle = torch.tensor(ORIENTATIONS, dtype=torch.float64)
    cosine, sine = angle.cos().to(device)[turn], (clockwise * angle.sin()).to(device)[turn]

    def centre(place: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ((first + integers(place, POSITIONS) * step) * zoom).unbind(-1)
        return x, y

    def drawn(rows: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        angle = (cosine[rows], sine[rows])
        return outline(outlines, shape[rows], size[rows] * zoom, angle, *centre(place), reach * zoom, resolution, soft)

    def taken(file: dsprites.Sprites, rows: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        x, y = integers(place, POSITIONS).unbind(-1)
        cover = file.at(shape[rows], scale[rows], turn[rows], x, y).float()
        return cover, torch.zeros(*x.shape, 2, dtype=torch.int64, device=device)

    figure = drawn if sprites is None else partial(taken, dsprites.load(sprites))
    place, cover, corner, mask = arrange(seed, index, present, figure, resolution, min_visible)
    x, y = centre(place)
    image = paint(cover, corner, colour.float(), ground.float(), resolution)
    place = {"orientation": angle.to(device)[turn].float(), "x": x.float(), "y": y.float()}
    objects = things(present, shape=shape, scale=size, **place, colour=colour.float())
    return {"image": image, "mask": mask, "objects": objects}


def published(batch: Batch) -> dict[str, Tensor]:
    """The objects as the published files have them: shapes count from 1, positions are shares of the image, and the
    background has its colour."""
    objects, (height, width) = batch["objects"], batch["image"].shape[-2:]
    place = {"x": objects["x"] / width, "y": objects["y"] / height}
    table = features({"objects": {**objects, **place, "shape": (objects["shape"] + 1) * objects["present"]}})
    table["color"][:, 0] = batch["image"][:, :, 0, 0]  # no sprite reaches the corner
    return table


GENERATOR = Generator(draw, {"shape": SHAPES}, published)
