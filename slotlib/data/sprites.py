"""Flat figures in front of one another, for `shapes` and `multi_dsprites`: where they go, who hides whom, the picture.

An image here spans [0, W] by [0, H], x to the right and y down: pixel (row r, column c) is the square [c, c+1] by
[r, r+1]. Every figure is drawn in a small window around it. `cover` is the share of a pixel that the figure fills,
found from the signed distance between the pixel's centre and the figure's outline; with hard edges it is all of the
pixel or nothing. Shares are multiples of 1/256 and colours whole numbers up to 255, so that sums of shares times
colours are exact in float32, and a picture is the same bit for bit in any batch and on any device.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from slotlib.data.random import integers, uniform

_TRIES = 2000  # rounds of moving hidden objects before giving up
_FRESH = 20  # every so many rounds all objects of the scene move, in case those in front leave no room
_SCENES = 256  # pictures composed at a time; bounds the memory


def check(resolution: int, min_visible: float) -> None:
    """Raises ValueError for options out of range."""
    if resolution < 16:
        raise ValueError(f"resolution must be at least 16, got {resolution}")
    if not 0 <= min_visible <= 1:
        raise ValueError(f"min_visible must be within 0 to 1, got {min_visible}")


def count(u: Float[Tensor, "scenes"], least: int, most: int) -> Bool[Tensor, "scenes objects"]:
    """Which of `most` objects are present: the first `least` to `most`, all numbers equally likely."""
    number = least + integers(u, most - least + 1)
    return torch.arange(most, device=u.device) < number.unsqueeze(1)


def outline(
    distances: Sequence[Callable[[Tensor, Tensor, Tensor], Tensor]],
    shape: Int[Tensor, "scenes objects"],
    size: Float[Tensor, "scenes objects"],
    angle: tuple[Float[Tensor, "scenes objects"], Float[Tensor, "scenes objects"]],
    x: Float[Tensor, "scenes objects"],
    y: Float[Tensor, "scenes objects"],
    reach: float,
    resolution: int,
    soft: bool = True,
) -> tuple[Float[Tensor, "scenes objects side side"], Int[Tensor, "scenes objects 2"]]:
    """How much of the pixels around them figures cover, in 1/256, and the row and column of the first of these pixels.

    Args:
        distances: for each shape a function of u, v (where a pixel's centre lies as seen by the figure, which stands
            upright at the origin; v down) and the figure's size. It gives the distance from the outline, negative
            inside.
        shape, size: of each figure.
        angle: cosine and sine of the angle it is turned by, clockwise as seen.
        x, y: where it stands.
        reach: the farthest any figure reaches from there.
        soft: soft edges. With hard ones only the sign of a distance matters.
    """
    side = min(resolution, math.ceil(2 * reach) + 3)  # and the soft edge
    corner = (torch.stack([y, x], dim=-1).floor().long() - side // 2).clamp(0, resolution - side)
    middle = torch.arange(side, device=x.device) + 0.5
    down, right = (corner.unsqueeze(-1) + middle - torch.stack([y, x], dim=-1).unsqueeze(-1)).float().unbind(-2)
    cosine, sine = (part.float()[..., None, None] for part in angle)
    size = size.float()[..., None, None]
    cover = torch.empty(*x.shape, side, side, device=x.device)
    for k, distance in enumerate(distances):
        own = shape == k
        c, s, r, d = cosine[own], sine[own], right[own].unsqueeze(1), down[own].unsqueeze(2)
        outside = distance(c * r + s * d, c * d - s * r, size[own])
        share = (0.5 - outside).clamp_(0, 1) if soft else (outside <= 0).float()
        cover[own] = share.mul_(256).round_().mul_(1 / 256)
    return cover, corner


def _pixels(corner: Int[Tensor, "scenes objects 2"], size: int, resolution: int) -> Int[Tensor, "scenes objects area"]:
    """The numbers of the windows' pixels in the flat image."""
    step = torch.arange(size, device=corner.device)
    first = corner[..., 0] * resolution + corner[..., 1]
    return first.unsqueeze(-1) + (step.unsqueeze(1) * resolution + step).flatten()


def occlude(
    cover: Float[Tensor, "scenes objects size size"], corner: Int[Tensor, "scenes objects 2"], resolution: int
) -> tuple[UInt8[Tensor, "scenes resolution resolution"], Float[Tensor, "scenes objects"]]:
    """The mask, in which a pixel belongs to the last object that covers at least half of it, and the share of its own
    pixels that each object shows (1 for one that has none)."""
    inside = cover.flatten(2) >= 0.5
    area = resolution * resolution
    # Pixels that a figure does not cover land in one extra cell, cut off again.
    pixels = torch.where(inside, _pixels(corner, cover.shape[-1], resolution), area)
    mask = torch.zeros(len(cover), area + 1, dtype=torch.uint8, device=cover.device)
    objects = cover.shape[1]
    for k in range(objects):
        mask.scatter_(1, pixels[:, k], k + 1)
    names = torch.arange(1, objects + 1, dtype=torch.uint8, device=cover.device).unsqueeze(-1)
    seen = mask.gather(1, pixels.flatten(1)).unflatten(1, (objects, -1)) == names
    own = inside.sum(-1, dtype=torch.int32)
    shown = (seen & inside).sum(-1, dtype=torch.int32) / own
    return mask[:, :area].unflatten(1, (resolution, resolution)), torch.where(own > 0, shown, 1.0)


def arrange(
    seed: int,
    index: Int[Tensor, "scenes"],
    present: Bool[Tensor, "scenes objects"],
    figure: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    resolution: int,
    min_visible: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Put objects at random places where each shows at least the share `min_visible` of its own pixels.

    An object that shows less is moved to another random place until all show enough. What an object is never
    changes: drawing others would favour those that are easy to place.

    Args:
        figure: called with scenes (positions in `index`) and two uniform numbers per object of theirs, `[scenes,
            objects, 2]`; gives `cover` `[scenes, objects, size, size]` and `corner` `[scenes, objects, 2]`.

    Returns the two numbers of every object, `cover`, `corner` and the mask.

    Raises ValueError where no such places are found.
    """
    objects = present.shape[1]
    rows = torch.arange(len(index), device=index.device)
    place = uniform(seed, index, 2 * objects, stream=1).unflatten(1, (objects, 2))

    def draw(rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        cover, corner = figure(rows, place[rows])
        cover = cover * present[rows][..., None, None]
        return cover, corner, *occlude(cover, corner, resolution)

    cover, corner, mask, shown = draw(rows)
    for attempt in range(1, _TRIES):
        hidden = shown < min_visible
        failed = hidden.any(1)
        if not failed.any():
            return place, cover, corner, mask
        rows, hidden = rows[failed], hidden[failed]
        fresh = uniform(seed, index[rows], 2 * objects, stream=1 + attempt).unflatten(1, (objects, 2))
        move = hidden | (attempt % _FRESH == 0)
        place[rows] = torch.where(move.unsqueeze(-1), fresh, place[rows])
        cover[rows], corner[rows], mask[rows], shown = draw(rows)
    raise ValueError(
        f"{len(rows)} of {len(index)} scenes found no places where each of up to {objects} objects shows "
        f"{min_visible:.0%} of itself; ask for fewer objects or a smaller min_visible"
    )


def paint(
    cover: Float[Tensor, "scenes objects size size"],
    corner: Int[Tensor, "scenes objects 2"],
    colour: Float[Tensor, "scenes objects 3"],
    background: Float[Tensor, "scenes 3"],
    resolution: int,
) -> Float[Tensor, "scenes 3 resolution resolution"]:
    """The picture, in multiples of 1/255. Colours are in [0, 1] and multiples of 1/255 themselves."""
    palette = (
        torch.cat([background.unsqueeze(1), colour], dim=1).mul(255).round().float().mT
    )  # [scenes, 3, 1 + objects]
    parts = zip(cover.split(_SCENES), corner.split(_SCENES), palette.split(_SCENES), strict=True)
    image = [_compose(*part, resolution) for part in parts]
    return torch.cat(image) if image else palette.new_zeros(0, 3, resolution, resolution)


def _compose(cover: Tensor, corner: Tensor, palette: Tensor, resolution: int) -> Tensor:
    """From front to back: how much of each pixel every figure paints, and what is left for those behind it."""
    scenes, objects, size, _ = cover.shape
    pixels = _pixels(corner, size, resolution)
    weight = torch.zeros(scenes, 1 + objects, resolution * resolution, device=cover.device)
    left = weight[:, 0].fill_(1)
    for k in reversed(range(objects)):
        free = left.gather(1, pixels[:, k])
        painted = (free * cover[:, k].flatten(1)).mul_(256).round_().mul_(1 / 256)
        weight[:, 1 + k].scatter_(1, pixels[:, k], painted)
        left.scatter_(1, pixels[:, k], free - painted)
    return (palette @ weight).round_().div_(255).unflatten(2, (resolution, resolution))
