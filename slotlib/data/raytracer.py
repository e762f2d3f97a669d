"""A small ray tracer for CLEVR-like scenes: cubes, spheres and cylinders on a plane, lit by three lamps and a sun.

Everything is a flat list. A *ray* knows its scene; a *pair* is a ray and an object that it may hit, found by one cheap
test against bounding spheres. Exact intersections are computed for the pairs only, in the object's own frame, where
every object is a unit cube, a unit ball or a unit can and the ray meets it in one interval. Shadows are the same test
on rays from a lamp to what the camera sees; mirrors are the same on reflected rays. No loop runs over pixels, objects
or scenes.

Vectors are component-first, `[3, rays]`, so that a component is one contiguous run of memory. Lengths are those of the
original CLEVR base scene (Johnson et al., 2017, arXiv 1612.06890). Light is linear until the very end.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import normalize

CUBE, SPHERE, CYLINDER = range(3)
GROUND = -1
FRAME = (240, 320)  # rows and columns of the original images; pixel coordinates below are in this frame
FOCAL = 350.0  # distance of the frame from the eye, in pixels: 35 mm on a sensor 32 mm wide
BEVEL = 0.14  # width of the rounded edges of cubes and cylinders, of half their height


class Light(NamedTuple):
    """A square lamp that faces the origin. The sun is one too, only very far away."""

    position: tuple[float, float, float]
    half_width: float
    strength: tuple[float, float, float]
    """Light that a white surface gives back when it faces the lamp's centre from distance one."""


# Places, sizes and tints are those of the base scene. Strengths, and the numbers below, were fitted to renderings of
# it (see the page "The scenes").
KEY = Light((6.44671, -2.90517, 4.2584), 0.25, (6.5, 6.08, 5.25))
FILL = Light((-4.67112, -4.0136, 3.01122), 0.25, (1.26, 1.38, 1.74))
BACK = Light((-1.1685, 2.64602, 5.81574), 0.5, (2.55, 2.53, 2.51))
SUN = Light((82.9, -38.92, 177.8), 12.0, (3080.0, 3080.0, 3080.0))
LIGHTS = (KEY, FILL, BACK, SUN)
# Of a lamp's half width, for shadows.
SPOTS = torch.tensor([[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]], dtype=torch.float32)
GROUND_ALBEDO = 0.78
AMBIENT = 0.11  # from above
BOUNCE = 0.156  # from the lit ground below
# Metal blurs what it mirrors. One mirrored ray cannot: instead the ground fades into the sky over a range of angles.
LOBES = ((0.15, 0.1), (0.38, 0.37))  # roughness and weight of the lamps' mirror images: a glint and a sheen
SKY = 0.025
GRAZING = 0.2  # brighter where the eye looks along the surface
MIRRORED = 0.7  # of another object
SUBPIXELS = torch.tensor([[-0.125, -0.375], [0.375, -0.125], [0.125, 0.375], [-0.375, 0.125]], dtype=torch.float32)


@dataclass
class World:
    """What there is to see in `n` scenes of up to `m` objects. Angles in radians, lengths in scene units."""

    eye: Float[Tensor, "n 3"]
    """The camera, which looks at the origin with a level horizon."""
    lamps: Float[Tensor, "n 4 3"]
    """Where `LIGHTS` stand."""
    centre: Float[Tensor, "n m 3"]
    radius: Float[Tensor, "n m"]
    """Half the height; for a cube half its edge."""
    yaw: Float[Tensor, "n m"]
    shape: Int[Tensor, "n m"]
    present: Bool[Tensor, "n m"]
    albedo: Float[Tensor, "n m 3"]
    metal: Bool[Tensor, "n m"]
    texture: Float[Tensor, "n 1+m 8"] | None = None
    """Of the ground (first) and the objects, see `_textured`; None: all are plain."""
    reach: Float[Tensor, "n m"] = field(init=False)
    """Radius of the bounding sphere; negative infinity where there is no object."""
    table: Float[Tensor, "6 n*m"] = field(init=False)
    """One column per object of all scenes, for pairs to look up: centre, radius, cosine and sine of the yaw."""

    def __post_init__(self):
        corner = self.radius.new_tensor([3.0, 1.0, 2.0]).sqrt()
        self.reach = torch.where(self.present, self.radius * corner[self.shape], -torch.inf)
        columns = [*self.centre.unbind(-1), self.radius, self.yaw.cos(), self.yaw.sin()]
        self.table = torch.stack([column.flatten() for column in columns])

    @property
    def slots(self) -> int:
        return self.radius.shape[1]


class Rays(NamedTuple):
    """Rays of several scenes, all rays of a scene together."""

    scene: Int[Tensor, "rays"]
    direction: Float[Tensor, "3 rays"]
    even: bool
    """The scenes have equally many rays each."""


class Hits(NamedTuple):
    """The first thing each ray meets."""

    distance: Float[Tensor, "rays"]
    """In lengths of the ray's direction; infinite in the sky."""
    number: Int[Tensor, "rays"]
    """Of the object within its scene, or `GROUND` (also for the sky)."""


def dot(a: Float[Tensor, "3 *#rays"], b: Float[Tensor, "3 *#rays"]) -> Float[Tensor, "*#rays"]:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def unit(a: Float[Tensor, "3 *rays"]) -> Float[Tensor, "3 *rays"]:
    return a * dot(a, a).rsqrt()


def pick(values: Shaped[Tensor, "*shape n"], at: Int[Tensor, "picked"]) -> Shaped[Tensor, "*shape picked"]:
    """`values[..., at]`, several times faster."""
    return values.contiguous().index_select(-1, at)


# --- the camera -------------------------------------------------------------------------------------------------------


def view(eye: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Directions of right, up and forward for a camera at `eye` that looks at the origin."""
    forward = -normalize(eye, dim=-1)
    right = normalize(torch.stack([forward[:, 1], -forward[:, 0], torch.zeros_like(forward[:, 0])], dim=-1), dim=-1)
    return right, torch.linalg.cross(right, forward), forward


def project(eye: Float[Tensor, "n 3"], points: Float[Tensor, "n m 3"]) -> Float[Tensor, "n m 3"]:
    """Column and row of the points, from the upper left corner of the frame, and their depth."""
    x, y, depth = (torch.einsum("nmi,ni->nm", points - eye.unsqueeze(1), axis) for axis in view(eye))
    rows, columns = FRAME
    return torch.stack([columns / 2 + FOCAL * x / depth, rows / 2 - FOCAL * y / depth, depth], dim=-1)


def through(
    eye: Float[Tensor, "n 3"], scene: Int[Tensor, "rays"], column: Float[Tensor, "rays"], row: Float[Tensor, "rays"]
) -> Rays:
    """Rays from the eye through points of the frame, with directions of length one."""
    right, up, forward = (pick(axis.T, scene) for axis in view(eye))
    rows, columns = FRAME
    direction = forward + (column - columns / 2) / FOCAL * right - (row - rows / 2) / FOCAL * up
    return Rays(scene, unit(direction), even=False)


# --- intersections ----------------------------------------------------------------------------------------------------


def _near_hub(
    world: World, hub: Float[Tensor, "n 3"], rays: Rays, spread: float = 0.0
) -> tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"]]:
    """Pairs of a ray and an object whose bounding sphere, widened by `spread`, the ray's line meets.

    All rays of a scene start at its hub. Then the test is one product: how far the object's centre lies along the ray.
    """
    offset = world.centre - hub.unsqueeze(1)
    least = (offset.square().sum(-1) - (world.reach + spread).square()).clamp_min(0).sqrt()
    least = torch.where(world.present, least, torch.inf)
    if rays.even:
        each = rays.direction.shape[1] // max(1, len(hub))
        along = offset @ rays.direction.view(3, len(hub), each).transpose(0, 1)  # [n, m, rays of a scene]
        scene, number, ray = (along > least.unsqueeze(2)).nonzero(as_tuple=True)
        return scene * each + ray, number
    along = dot(pick(offset.permute(2, 1, 0), rays.scene), rays.direction.unsqueeze(1))  # [m, rays]
    number, ray = (along > pick(least.T, rays.scene)).nonzero(as_tuple=True)
    return ray, number


def _near_line(world: World, origin: Tensor, rays: Rays) -> tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"]]:
    """The same for rays that start anywhere."""
    offset = pick(world.centre.permute(2, 1, 0), rays.scene) - origin.unsqueeze(1)  # [3, m, rays]
    along = dot(offset, rays.direction.unsqueeze(1))
    reach = pick(world.reach.T, rays.scene)
    near = (dot(offset, offset) - along.square() < reach.square()) & (along > -reach)
    number, ray = near.nonzero(as_tuple=True)
    return ray, number


def _slab(p: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Between the planes at -1 and 1 of each coordinate."""
    inverse = d.where(d != 0, 1e-12).reciprocal()
    middle, half = -p * inverse, inverse.abs()
    return middle - half, middle + half


def _round(p: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Within distance one of the origin, in as many coordinates as there are. A miss makes the interval NaN."""
    a = d.square().sum(0).clamp_min(1e-12).reciprocal()
    middle = -(p * d).sum(0) * a
    half = (middle.square() - (p.square().sum(0) - 1) * a).sqrt()
    return middle - half, middle + half


def _cube(p: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    enter, leave = _slab(p, d)
    return enter.amax(0), leave.amin(0)


def _can(p: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    (side_in, side_out), (cap_in, cap_out) = _round(p[:2], d[:2]), _slab(p[2], d[2])
    return torch.maximum(side_in, cap_in), torch.minimum(side_out, cap_out)


SOLVERS = {CUBE: _cube, SPHERE: _round, CYLINDER: _can}


def _turn(cos: Tensor, sin: Tensor, v: Tensor) -> Tensor:
    """Into an object's frame; with -sin, out of it."""
    x = cos * v[0] + sin * v[1]
    return torch.stack([x, cos * v[1] - sin * v[0], v[2].expand_as(x)])


def _meet(
    world: World, scene: Tensor, number: Tensor, start: Tensor, path: Tensor, spots: Tensor | None = None
) -> tuple[Int[Tensor, "pairs"], Float[Tensor, "pairs *spots"], Float[Tensor, "pairs *spots"]]:
    """Where each pair's ray `start + t·path` enters and leaves its object, in `t`; not enter < leave means a miss.

    Returns the pairs in another order (by shape), and their two `t`. With `spots` `[3, samples]` there is one ray per
    spot, which goes to `start + path + spot` instead.
    """
    pair = scene * world.slots + number
    shape = pick(world.shape.flatten(), pair)
    order, enters, leaves = [], [], []
    for kind, solve in SOLVERS.items():
        chosen = (shape == kind).nonzero().squeeze(1)
        place, (radius, cos, sin) = pick(world.table, pick(pair, chosen)).split(3)
        p = _turn(cos, sin, pick(start, chosen) - place) / radius
        d = _turn(cos, sin, pick(path, chosen)) / radius
        if spots is not None:
            moved = _turn(cos.unsqueeze(1), sin.unsqueeze(1), spots.unsqueeze(1)) / radius.unsqueeze(1)
            p, d = p.unsqueeze(2), d.unsqueeze(2) + moved
        enter, leave = solve(p, d)
        order.append(chosen)
        enters.append(enter)
        leaves.append(leave)
    return torch.cat(order), torch.cat(enters), torch.cat(leaves)


def _first(world: World, origin: Tensor, rays: Rays, ray: Tensor, number: Tensor) -> Hits:
    """The nearest of the objects that each ray is paired with, or the ground."""
    down = rays.direction[2] < -1e-6
    distance = (-origin[2] / rays.direction[2]).where(down, torch.inf)
    order, enter, leave = _meet(world, pick(rays.scene, ray), number, pick(origin, ray), pick(rays.direction, ray))
    hit = ((enter < leave) & (enter > 0)).nonzero().squeeze(1)
    order, enter = pick(order, hit), pick(enter, hit)
    ray, number = pick(ray, order), pick(number, order)
    distance.scatter_reduce_(0, ray, enter, "amin")
    first = (enter == pick(distance, ray)).nonzero().squeeze(1)
    found = torch.full_like(rays.scene, GROUND)
    found[ray[first]] = number[first]
    return Hits(distance, found)


def see(world: World, rays: Rays) -> Hits:
    """What the rays from the eyes meet first."""
    return _first(world, pick(world.eye.T, rays.scene), rays, *_near_hub(world, world.eye, rays))


def _reflect(world: World, origin: Tensor, rays: Rays, leaving: Int[Tensor, "rays"]) -> Hits:
    """What the rays meet first that leave an object (which is convex: they cannot meet it again)."""
    ray, number = _near_line(world, origin, rays)
    other = (number != pick(leaving, ray)).nonzero().squeeze(1)
    return _first(world, origin, rays, pick(ray, other), pick(number, other))


# --- light ------------------------------------------------------------------------------------------------------------


def _surface(world: World, scene: Tensor, number: Tensor, point: Tensor) -> tuple[Tensor, Tensor]:
    """Normals at points on objects, and the points in the frame of their object."""
    pair = scene * world.slots + number
    place, (radius, cos, sin) = pick(world.table, pair).split(3)
    p = _turn(cos, sin, point - place) / radius
    # How far each coordinate reaches into the rounded edge: there the normal turns, as on the bevelled originals.
    # Not at the foot: it stands on the ground.
    edge = (p.abs() - (1 - BEVEL)).clamp_min(0) * p.sign()
    edge[2].clamp_min_(0)
    ring = p[:2].square().sum(0).sqrt()
    around = p[:2] * ((ring - (1 - BEVEL)).clamp_min(0) / ring.clamp_min(1e-6))
    shape = pick(world.shape.flatten(), pair)
    normal = p.where(shape == SPHERE, edge.where(shape == CUBE, torch.cat([around, edge[2:]])))
    return _turn(cos, -sin, unit(normal)), p


def _unshadowed(
    world: World, rays: Rays, point: Tensor, number: Tensor, lamp: Float[Tensor, "n 3"], light: Light
) -> Float[Tensor, "rays"]:
    """How much of a lamp each ray's end sees past the other objects: soft shadows."""
    start = pick(lamp.T, rays.scene)
    path = point - start
    length = dot(path, path).sqrt()
    place = torch.tensor(light.position, device=point.device)
    # A lamp's edge looks past an object at a point up to two lengths behind it.
    spread = 2 * light.half_width / float(place.norm())
    ray, other = _near_hub(world, lamp, Rays(rays.scene, path / length, rays.even), spread)
    apart = (other != pick(number, ray)).nonzero().squeeze(1)
    ray, other = pick(ray, apart), pick(other, apart)
    facing = normalize(place, dim=0)
    side = normalize(torch.linalg.cross(facing, facing.new_tensor([0.0, 0.0, 1.0])), dim=0)
    spots = light.half_width * torch.stack([side, torch.linalg.cross(side, facing)]).T @ SPOTS.to(point).T
    order, enter, leave = _meet(world, pick(rays.scene, ray), other, pick(point, ray), -pick(path, ray), spots)
    clear = 1 - ((enter < leave) & (leave > 0) & (enter < 1)).to(point.dtype).mean(1)
    return torch.ones_like(length).scatter_reduce_(0, ray[order], clear, "prod")


def _textured(
    plain: Float[Tensor, "3 rays"], local: Float[Tensor, "3 rays"], texture: Float[Tensor, "8 rays"]
) -> Float[Tensor, "3 rays"]:
    """Mix a second colour into a plain one, as stripes, a checkerboard, dots or marble.

    `texture` holds the kind (0 to 3), the frequency, the direction (3) and the second colour (3).
    """
    kind, frequency, axis, second = texture[0], texture[1], texture[2:5], texture[5:]
    phase = frequency * local + 0.7  # 0.7: else the ground, at height 0, would have no checks
    wave = torch.sin(frequency * dot(axis, local))
    checks = phase.sin().prod(0)
    dots = phase.cos().square().sum(0) - 1.5
    marble = torch.sin(frequency * dot(axis, local) + 2 * torch.sin(1.7 * phase[1]) + 2 * torch.sin(2.3 * phase[2]))
    value = torch.stack([wave, checks, dots, marble]).gather(0, kind.long().unsqueeze(0)).squeeze(0)
    share = torch.sigmoid(12 * value)
    return torch.lerp(plain, second, share)


def shade(
    world: World, rays: Rays, origin: Float[Tensor, "3 rays"], hits: Hits, mirrors: bool = True
) -> Float[Tensor, "3 rays"]:
    """The linear light that comes back along each ray."""
    point = origin + hits.distance.clamp_max(1e4) * rays.direction
    on = (hits.number >= 0).nonzero().squeeze(1)
    scene, number = pick(rays.scene, on), pick(hits.number, on)
    pair = scene * world.slots + number
    bent, local = _surface(world, scene, number, pick(point, on))
    normal = torch.zeros_like(point)
    normal[2] = 1
    normal[:, on] = bent
    albedo = torch.full_like(point, GROUND_ALBEDO)
    albedo[:, on] = pick(world.albedo.flatten(0, 1).T, pair)
    if world.texture is not None:
        place = point.clone()
        place[:, on] = local
        row = rays.scene * (1 + world.slots) + 1 + hits.number
        albedo = _textured(albedo, place, pick(world.texture.flatten(0, 1).T, row))

    shiny = pick(world.metal.flatten(), pair).nonzero().squeeze(1)
    at = pick(on, shiny)
    towards_eye, mirror = -pick(rays.direction, at), pick(bent, shiny)
    cosine = dot(mirror, towards_eye).clamp_min(0.1)
    diffuse, gloss = torch.zeros_like(point), torch.zeros_like(mirror)
    for lamp, light in zip(world.lamps.unbind(1), LIGHTS, strict=True):
        towards = pick(lamp.T, rays.scene) - point
        squared = dot(towards, towards)
        towards = towards * squared.rsqrt()
        facing = normalize(torch.tensor(light.position, device=point.device), dim=0).unsqueeze(1)
        power = dot(facing, towards).clamp_min(0) * dot(normal, towards).clamp_min(0) / squared
        power = power * _unshadowed(world, rays, point, hits.number, lamp, light)
        strength = torch.tensor(light.strength, device=point.device).unsqueeze(1)
        diffuse += strength * power
        # A rough mirror (GGX; Walter et al., 2007) is bright around the direction half-way between lamp and eye.
        aside = dot(mirror, unit(pick(towards, at) + towards_eye)).square()
        lobe = sum(weight * (rough**4 / (1 + aside * (rough**4 - 1)).square()) for rough, weight in LOBES)
        gloss += strength * (pick(power, at) * lobe / (4 * cosine))
    upward = (1 + normal[2]) / 2
    colour = albedo * (diffuse + AMBIENT * upward + BOUNCE * (1 - upward))
    if mirrors:
        start = pick(point, at)
        sky = SKY + GRAZING * (1 - cosine).square()
        again = Rays(pick(rays.scene, at), unit(2 * dot(mirror, towards_eye) * mirror - towards_eye), even=False)
        found = _reflect(world, start, again, pick(number, shiny))
        share = (0.25 - 2.5 * again.direction[2]).clamp(0, 1)
        share = share.where(found.number == GROUND, MIRRORED).where(found.distance.isfinite(), 0)
        seen = torch.lerp(sky.expand_as(mirror), shade(world, again, start, found, mirrors=False), share)
        colour[:, at] = pick(albedo, at) * (seen + gloss)
    return colour.where(hits.distance.isfinite(), 0.0)


# --- pictures ---------------------------------------------------------------------------------------------------------


class Picture(NamedTuple):
    """Which part of the 240×320 frame is drawn, and with how many pixels."""

    height: int
    width: int
    top: float
    bottom: float
    left: float
    right: float

    def rays(self, eye: Float[Tensor, "n 3"]) -> Rays:
        """One ray through the centre of each pixel, row by row, scene by scene."""
        pixel = torch.arange(self.height * self.width, device=eye.device).repeat(len(eye))
        scene = torch.arange(len(eye), device=eye.device).repeat_interleave(self.height * self.width)
        return self.through(eye, scene, pixel, 0.0, 0.0)._replace(even=True)

    def through(self, eye: Tensor, scene: Tensor, pixel: Tensor, down: float | Tensor, across: float | Tensor) -> Rays:
        """Rays through the pixels' centres, moved by so many pixels."""
        row = (pixel // self.width + 0.5 + down) * ((self.bottom - self.top) / self.height) + self.top
        column = (pixel % self.width + 0.5 + across) * ((self.right - self.left) / self.width) + self.left
        return through(eye, scene, column, row)


def paint(world: World, picture: Picture, rays: Rays, hits: Hits) -> Float[Tensor, "n 3 H W"]:
    """The finished image, in multiples of 1/255, of what the rays of `picture` see.

    One ray per pixel, and four where neighbouring pixels show different things.
    """
    scenes, height, width = len(world.eye), picture.height, picture.width
    light = shade(world, rays, pick(world.eye.T, rays.scene), hits)
    label = hits.number.view(scenes, height, width)
    edge = torch.zeros_like(label, dtype=torch.bool)
    across, down = label[:, :, 1:] != label[:, :, :-1], label[:, 1:] != label[:, :-1]
    edge[:, :, 1:] |= across
    edge[:, :, :-1] |= across
    edge[:, 1:] |= down
    edge[:, :-1] |= down
    (edge,) = edge.flatten().nonzero(as_tuple=True)
    finer = edge.repeat_interleave(len(SUBPIXELS))
    shift = SUBPIXELS.to(light).repeat(len(edge), 1)
    fine = picture.through(world.eye, finer // (height * width), finer % (height * width), shift[:, 0], shift[:, 1])
    seen = shade(world, fine, pick(world.eye.T, fine.scene), see(world, fine))
    light[:, edge] = seen.unflatten(1, (-1, len(SUBPIXELS))).mean(2)
    image = (_to_srgb(light) * 255).round() / 255
    return image.view(3, scenes, height, width).transpose(0, 1).contiguous()


def _to_srgb(light: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Linear light as the numbers of an image file."""
    light = light.clamp(0, 1)
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clamp_min(1e-6) ** (1 / 2.4) - 0.055)
