"""CLEVR-like scenes: cubes, spheres and cylinders of rubber or metal on a grey ground (Johnson et al., 2017,
arXiv 1612.06890), drawn by `raytracer` instead of Blender.

What is in a scene follows the original generator, `render_images.py` of facebookresearch/clevr-dataset-gen: 3 to 10
objects of two sizes, three shapes, two materials and eight colours; centres uniform on a square, apart by a least
distance and, seen from the camera, by a margin from left to right and from front to back; a camera and three lamps
that move a little from scene to scene; and every object shows a least number of pixels. As there, a scene in which an
object finds no place or is hidden is drawn anew with other objects. That favours small objects in crowded scenes; the
number of objects itself stays uniform.

Different here: the picture is by default the square that the papers cut out and scale to 128×128 (rows 29–221, columns
64–256 of 240×320; Greff et al., 2019, arXiv 1903.00450), and the rule about visible pixels holds in that square, so
no object is annotated that cannot be seen. How the pictures differ from Blender's is measured on the page "The scenes".
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from slotlib.check import choice
from slotlib.data import raytracer
from slotlib.data.attributes import bounds, combinations
from slotlib.data.precision import in_single_precision
from slotlib.data.random import integers, uniform
from slotlib.data.raytracer import FRAME, LIGHTS, Picture, World
from slotlib.data.scenes import Batch, Generator, joined, things
from slotlib.data.targets import CATEGORIES

COLOURS = {
    "gray": (87, 87, 87),
    "blue": (42, 75, 215),
    "brown": (129, 74, 25),
    "yellow": (255, 238, 51),
    "red": (173, 35, 35),
    "green": (29, 105, 20),
    "purple": (129, 38, 192),
    "cyan": (41, 208, 208),
}
Textures = Literal["none", "objects", "all"]
MAX_OBJECTS = 16
CROP = (29, 221, 64, 256)  # rows and columns of the frame that the papers keep
EXTENT = 3.0  # centres lie within ±EXTENT
MIN_DISTANCE = 0.25  # between the outlines of two objects, seen from above, taken as circles
EYE = (7.48113, -6.50764, 5.34367)
EYE_JITTER, LAMP_JITTER = 0.5, 1.0
HEIGHTS = (0.35, 0.7)  # of the centre of a small and a large object above the ground
FILLED = (0.95, 1.0, 0.99)  # how much of its box ±height each shape of the original meshes fills
_PROPOSALS = 50  # places tried for an object before the whole scene is drawn anew
_TRIES = 16  # arrangements tried at once, from the second round on
_ROUNDS = 200  # before giving up
_CHUNK = {"cpu": 8, "cuda": 64}  # scenes drawn at once: as many as the caches, or the memory, hold


def _directions(eye: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"]]:
    """Unit vectors on the ground that point away from the camera, and to its left."""
    behind = -torch.nn.functional.normalize(eye[:, :2], dim=-1)
    return behind, torch.stack([-behind[:, 1], behind[:, 0]], dim=-1)


def _place(
    u: Float[Tensor, "n m tries 2"],
    height: Float[Tensor, "n m"],
    count: Int[Tensor, "n"],
    eye: Float[Tensor, "n 3"],
    picture: Picture,
    margin: float,
) -> tuple[Float[Tensor, "n m 2"], Tensor]:
    """Put each scene's objects down one after the other, each on the first proposal that is free.

    Returns the places, and which scenes found room for all.
    """
    behind, left = _directions(eye)
    tries = (2 * u - 1) * EXTENT
    spots = torch.cat([tries, height[:, :, None, None].expand(*tries.shape[:3], 1)], dim=-1)
    seen = raytracer.project(eye, spots.flatten(1, 2)).unflatten(1, tries.shape[1:3])
    column, row, _ = seen.unbind(-1)
    free = (column > picture.left) & (column < picture.right) & (row > picture.top) & (row < picture.bottom)
    places = torch.zeros_like(tries[:, :, 0])
    ok = torch.ones_like(count, dtype=torch.bool)
    for k in range(u.shape[1]):
        gap = tries[:, k, :, None] - places[:, None, :k]  # [n, tries, earlier objects, 2]
        apart = gap.square().sum(-1).sqrt() - height[:, k, None, None] - height[:, None, :k] >= MIN_DISTANCE
        for axis in (behind, left):
            apart &= (gap @ axis[:, None, :, None]).squeeze(-1).abs() >= margin
        fits = free[:, k] & apart.all(-1)
        ok &= fits.any(1) | (k >= count)
        places[:, k] = tries[torch.arange(len(tries), device=u.device), k, fits.byte().argmax(1)]
    return places, ok


def _textures(seed: int, index: Tensor, slots: int, which: str) -> Float[Tensor, "n 1+{slots} 8"] | None:
    """Random patterns for the ground and the objects, in the form that the ray tracer takes."""
    if which == "none":
        return None
    u = uniform(seed, index, 8 * (1 + slots), stream=1).unflatten(1, (1 + slots, 8))
    kind, u = integers(u[..., :1], 4).float(), u.float()
    frequency = 3 + 6 * u[..., 1:2]
    frequency[:, 0] *= 0.4  # the ground is seen in scene units, objects in units of their size
    axis = torch.nn.functional.normalize(2 * u[..., 2:5] - 1, dim=-1)
    axis[:, 0, 2] = 0
    if which == "objects":
        u[:, 0, 5:] = raytracer.GROUND_ALBEDO  # a pattern in the colour that is there already
    return torch.cat([kind, frequency, axis, u[..., 5:]], dim=-1)


class Rules(NamedTuple):
    """What a scene may be like: the options of `draw`, worked out."""

    least: int
    most: int
    table: Int[Tensor, "allowed 4"]
    """Combinations of shape, size, material and colour."""
    picture: Picture
    textures: str
    margin: float
    min_pixels: float


class Arrangement(NamedTuple):
    """What is in the scenes, and who can be seen where."""

    world: World
    attributes: Int[Tensor, "n m 4"]
    turn: Float[Tensor, "n m"]
    """Rotation, in [0, 1)."""
    mask: UInt8[Tensor, "n H W"]


def arrange(seed: int, index: Int[Tensor, "scenes"], rules: Rules) -> Arrangement:
    """Put objects into the scenes numbered `index` until all find room and all are seen."""
    device, picture, most = index.device, rules.picture, rules.most
    u = uniform(seed, index, 13)
    eye = torch.tensor(EYE, device=device) + EYE_JITTER * (2 * u[:, :3].float() - 1)
    lamps = torch.tensor([light.position for light in LIGHTS], device=device).repeat(len(index), 1, 1)
    lamps[:, :3] += LAMP_JITTER * (2 * u[:, 3:12].float().unflatten(1, (3, 3)) - 1)  # the sun stays
    count = rules.least + integers(u[:, 12], most - rules.least + 1)
    present = torch.arange(most, device=device) < count.unsqueeze(1)
    attributes = torch.zeros(len(index), most, 4, dtype=torch.int64, device=device)
    turn = torch.zeros(len(index), most, device=device)
    places = torch.zeros(len(index), most, 2, device=device)
    heights = torch.tensor(HEIGHTS, device=device)
    filled = torch.tensor(FILLED, device=device)
    paint = torch.tensor(list(COLOURS.values()), device=device) / 255
    texture = _textures(seed, index, most, rules.textures)

    def world(rows: Tensor) -> World:
        shape, size, material, colour = attributes[rows].unbind(-1)
        height = heights[size]
        return World(
            eye=eye[rows],
            lamps=lamps[rows],
            centre=torch.cat([places[rows], height.unsqueeze(-1)], dim=-1),
            radius=height * filled[shape],
            yaw=360 * turn[rows],  # radians: see `draw`
            shape=shape,
            present=present[rows],
            albedo=paint[colour],
            metal=material == CATEGORIES["material"].index("metal"),
            texture=None if texture is None else texture[rows],
        )

    mask = torch.zeros(len(index), picture.height, picture.width, dtype=torch.uint8, device=device)
    todo = torch.arange(len(index), device=device)
    for round_ in range(_ROUNDS):
        tries = _TRIES if round_ else 1
        v = uniform(seed, index[todo], tries * most * 2 * (1 + _PROPOSALS), stream=2 + round_)
        v = v.view(len(todo) * tries, most, 1 + _PROPOSALS, 2)
        drawn = rules.table.to(device)[integers(v[:, :, 0, 0], len(rules.table))]
        v = v.float()
        rows = todo.repeat_interleave(tries)
        spots, fits = _place(v[:, :, 1:], heights[drawn[..., 1]], count[rows], eye[rows], picture, rules.margin)
        fits = fits.view(len(todo), tries)
        first = torch.arange(len(todo), device=device) * tries + fits.byte().argmax(1)
        attributes[todo], turn[todo], places[todo] = drawn[first], v[first, :, 0, 1], spots[first]
        placed = fits.any(1).nonzero().squeeze(1)  # of todo
        if len(placed):
            trial = world(todo[placed])
            label = (raytracer.see(trial, picture.rays(trial.eye)).number + 1).view(len(placed), -1)
            shown = torch.zeros(len(placed), 1 + most, device=device)
            shown.scatter_add_(1, label, torch.ones_like(label, dtype=shown.dtype))
            good = ((shown[:, 1:] >= rules.min_pixels) | ~present[todo[placed]]).all(1)
            placed = placed[good]
            mask[todo[placed]] = label[good].to(torch.uint8).view(-1, picture.height, picture.width)
        left = torch.ones_like(todo, dtype=torch.bool)
        left[placed] = False
        todo = todo[left]
        if not len(todo):
            return Arrangement(world(torch.arange(len(index), device=device)), attributes, turn, mask)
    raise ValueError(
        f"found no room for {int(count[todo[0]])} objects that all show {rules.min_pixels:.0f} pixels (scene "
        f"{int(index[todo[0]])} of seed {seed}, {_ROUNDS * _TRIES} tries); ask for fewer objects, or less margin or "
        "min_visible"
    )


def _draw(seed: int, index: Int[Tensor, "scenes"], rules: Rules) -> Batch:
    world, attributes, turn, mask = arrange(seed, index, rules)
    picture = rules.picture
    rays = picture.rays(world.eye)
    image = raytracer.paint(world, picture, rays, raytracer.see(world, rays))
    shape, size, material, colour = attributes.unbind(-1)
    column, row, depth = raytracer.project(world.eye, world.centre).unbind(-1)
    column = (column - picture.left) * (picture.width / (picture.right - picture.left))
    row = (row - picture.top) * (picture.height / (picture.bottom - picture.top))
    objects = things(
        world.present,
        shape=shape,
        size=size,
        material=material,
        colour=colour,
        position=world.centre,
        rotation=360 * turn,
        pixel=torch.stack([column.round(), row.round(), depth], dim=-1),
    )
    behind, _ = _directions(world.eye)
    return {"image": image, "mask": mask, "objects": objects, "behind": behind}


@in_single_precision
def draw(
    seed: int,
    index: Int[Tensor, "scenes"],
    num_objects: int | Sequence[int] = (3, 10),
    resolution: int = 128,
    full_frame: bool = False,
    textures: Textures = "none",
    held_out: Sequence[Mapping[str, str | int]] = (),
    novel: bool = False,
    margin: float = 0.4,
    min_visible: float = 200,
) -> Batch:
    """Draw the scenes numbered `index`, on the device of `index`.

    Args:
        seed: which world; scene i of a seed never changes (another processor may round a pixel by 1/255).
        index: scene numbers, int64.
        num_objects: objects per scene, or the least and the most (inclusive, uniform); 1 to 16. CLEVR6 is (3, 6).
        resolution: height of the picture in pixels.
        full_frame: draw the whole frame, 4/3 as wide as high, instead of the square that the papers cut out.
        textures: patterns in a second, random colour on the objects, or on all: objects and ground.
        held_out, novel: combinations of shape, size, material and colour that never appear, or (`novel`) of which
            every object is one; see `slotlib.data.attributes`.
        margin: least distance between two centres from left to right, and from front to back, as the camera sees it.
            More than ten objects find room only with a smaller one.
        min_visible: pixels of the original 240×320 frame that every object shows at least; at other sizes the same
            share of the picture: 89 pixels at 128×128.

    Returns a batch: `image` float32 `[scenes, 3, H, W]` in multiples of 1/255; `mask` uint8 `[scenes, H, W]` (0
    ground, i the i-th object); `objects` with `present` (bool) and, zero where not present, `shape`, `size`,
    `material`, `colour` (int64, order of `targets.CATEGORIES`), `position` (float32
    `[scenes, most, 3]`, the centre in scene units; CLEVR's 3d_coords), `rotation` (0 to 360; CLEVR means
    degrees, but its renderer takes the number for radians, and so does this one) and `pixel` (column and row of the
    centre, rounded, and its depth); `behind` float32 `[scenes, 2]`: the direction on the ground away from the camera.

    Raises ValueError for options out of range, and if so many objects do not fit.
    """
    least, most = bounds(num_objects, MAX_OBJECTS)
    if resolution < 8:
        raise ValueError(f"resolution must be at least 8 pixels, got {resolution}")
    choice("textures", textures, Textures)
    order = ("shape", "size", "material", "colour")  # the columns of `Rules.table`
    table = combinations({name: CATEGORIES[name] for name in order}, held_out, novel)
    rows, columns = FRAME
    picture = (
        Picture(resolution, round(resolution * columns / rows), 0, rows, 0, columns)
        if full_frame
        else Picture(resolution, resolution, *CROP)
    )
    min_pixels = min_visible * (picture.height / (picture.bottom - picture.top)) ** 2
    rules = Rules(least, most, table, picture, textures, margin, min_pixels)
    return joined([_draw(seed, chunk, rules) for chunk in index.split(_CHUNK.get(index.device.type, 8))])


GENERATOR = Generator(draw, CATEGORIES)
