"""CLEVR-like scenes per second, against ray tracing in plain NumPy, object by object."""

import numpy as np
import torch

from benchmarks.measure import Row, in_turns
from slotlib.data import clevr, raytracer
from slotlib.data.attributes import combinations
from slotlib.data.raytracer import CUBE, LIGHTS, SPHERE

GOAL = 20  # scenes per second
SCENES, ROUNDS = 16, 5
SIZE = 128
Array = np.ndarray


def dot(a: Array, b: Array) -> Array:
    return (a * b).sum(-1)


def unit(a: Array) -> Array:
    return a / np.linalg.norm(a, axis=-1, keepdims=True)


def turned(v: Array, angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return v @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float32)


def interval(shape: int, p: Array, d: Array) -> tuple[Array, Array]:
    """Where rays enter and leave a unit cube, ball or can."""

    def round_(p: Array, d: Array) -> tuple[Array, Array]:
        a, b, c = dot(d, d), dot(p, d), dot(p, p) - 1
        root = np.sqrt(b * b - a * c)
        return (-b - root) / a, (-b + root) / a

    if shape == SPHERE:
        return round_(p, d)
    one, two = (-1 - p) / d, (1 - p) / d
    low, high = np.minimum(one, two), np.maximum(one, two)
    if shape == CUBE:
        return low.max(-1), high.min(-1)
    enter, leave = round_(p[..., :2], d[..., :2])
    return np.maximum(enter, low[..., 2]), np.minimum(leave, high[..., 2])


class Scene:
    """One scene, drawn as a textbook does it: for every object, for every pixel."""

    def __init__(self, world: raytracer.World, i: int):
        count = int(world.present[i].sum())
        names = ("centre", "radius", "yaw", "shape", "albedo", "metal")
        self.objects = [{k: getattr(world, k)[i, j].numpy() for k in names} for j in range(count)]
        self.eye, self.lamps = world.eye[i].numpy(), world.lamps[i].numpy()

    def nearest(self, start: Array, way: Array, leaving: Array | None = None) -> tuple[Array, Array]:
        distance = np.where(way[:, 2] < -1e-6, -start[:, 2] / way[:, 2], np.inf)
        number = np.full(len(way), -1)
        for k, it in enumerate(self.objects):
            p = turned(start - it["centre"], it["yaw"]) / it["radius"]
            enter, leave = interval(int(it["shape"]), p, turned(way, it["yaw"]) / it["radius"])
            hit = (enter < leave) & (enter > 0) & (enter < distance)
            if leaving is not None:
                hit &= leaving != k
            distance[hit], number[hit] = enter[hit], k
        return distance, number

    def lit(self, point: Array, number: Array, lamp: Array, light: raytracer.Light) -> Array:
        facing = unit(np.array(light.position, np.float32))
        side = unit(np.cross(facing, [0, 0, 1]).astype(np.float32))
        other = np.cross(side, facing)
        share = np.ones(len(point), np.float32)
        for k, it in enumerate(self.objects):
            p = turned(point - it["centre"], it["yaw"]) / it["radius"]
            clear = np.zeros(len(point), np.float32)
            for a, b in raytracer.SPOTS.tolist():
                target = lamp + light.half_width * (a * side + b * other)
                d = turned(target - point, it["yaw"]) / it["radius"]
                enter, leave = interval(int(it["shape"]), p, d)
                clear += 1 - ((enter < leave) & (leave > 0) & (enter < 1))
            share *= np.where(number == k, 1, clear / 4)
        return share

    def shade(self, start: Array, way: Array, distance: Array, number: Array, mirrors: bool = True) -> Array:
        point = start + np.minimum(distance, 1e4)[:, None] * way
        normal = np.tile(np.array([0, 0, 1], np.float32), (len(way), 1))
        albedo = np.full_like(point, raytracer.GROUND_ALBEDO)
        metal = np.zeros(len(way), bool)
        for k, it in enumerate(self.objects):
            on = number == k
            p = turned(point[on] - it["centre"], it["yaw"]) / it["radius"]
            edge = np.maximum(np.abs(p) - (1 - raytracer.BEVEL), 0) * np.sign(p)
            edge[:, 2] = np.maximum(edge[:, 2], 0)
            if it["shape"] == SPHERE:
                n = p
            elif it["shape"] == CUBE:
                n = edge
            else:
                ring = np.linalg.norm(p[:, :2], axis=1, keepdims=True)
                around = p[:, :2] * np.maximum(ring - (1 - raytracer.BEVEL), 0) / np.maximum(ring, 1e-6)
                n = np.concatenate([around, edge[:, 2:]], axis=1)
            normal[on] = turned(unit(n), -it["yaw"])
            albedo[on], metal[on] = it["albedo"], it["metal"]
        cosine = np.maximum(-dot(normal, way), 0.1)
        upward = (1 + normal[:, 2:]) / 2
        light = raytracer.AMBIENT * upward + raytracer.BOUNCE * (1 - upward)
        gloss = np.zeros_like(light)
        for lamp, source in zip(self.lamps, LIGHTS, strict=True):
            towards = lamp - point
            squared = dot(towards, towards)
            towards = towards / np.sqrt(squared)[:, None]
            power = np.maximum(towards @ unit(np.array(source.position, np.float32)), 0) / squared
            power = power * np.maximum(dot(normal, towards), 0) * self.lit(point, number, lamp, source)
            aside = dot(normal, unit(towards - way)) ** 2
            lobe = sum(weight * rough**4 / (1 + aside * (rough**4 - 1)) ** 2 for rough, weight in raytracer.LOBES)
            light = light + np.array(source.strength, np.float32) * power[:, None]
            gloss = gloss + np.array(source.strength, np.float32) * (power * lobe / (4 * cosine))[:, None]
        colour = albedo * light
        if mirrors and metal.any():
            back = way[metal] - 2 * dot(way[metal], normal[metal])[:, None] * normal[metal]
            far, found = self.nearest(point[metal], back, number[metal])
            seen = self.shade(point[metal], back, far, found, mirrors=False)
            sky = raytracer.SKY + raytracer.GRAZING * (1 - cosine[metal]) ** 2
            share = np.where(found < 0, np.clip(0.25 - 2.5 * back[:, 2], 0, 1), raytracer.MIRRORED)
            share = np.where(np.isfinite(far), share, 0)[:, None]
            colour[metal] = albedo[metal] * (sky[:, None] * (1 - share) + seen * share + gloss[metal])
        return np.where(np.isfinite(distance)[:, None], colour, 0)

    def draw(self, size: int) -> tuple[Array, Array]:
        forward = -unit(self.eye)
        right = unit(np.array([forward[1], -forward[0], 0], np.float32))
        up = np.cross(right, forward)
        top, bottom, left, side = clevr.CROP
        row, column = np.mgrid[:size, :size].reshape(2, -1, 1) + 0.5
        x = ((column * (side - left) / size + left - 160) / raytracer.FOCAL).astype(np.float32)
        y = ((row * (bottom - top) / size + top - 120) / raytracer.FOCAL).astype(np.float32)
        way = unit(forward + x * right - y * up)
        start = np.broadcast_to(self.eye, way.shape)
        distance, number = self.nearest(start, way)
        light = self.shade(start, way, distance, number).clip(0, 1)
        image = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-6) ** (1 / 2.4) - 0.055)
        return image.reshape(size, size, 3), number.reshape(size, size) + 1


def plain(world: raytracer.World) -> list[tuple[Array, Array]]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return [Scene(world, i).draw(SIZE) for i in range(len(world.eye))]


def check(batch: dict, drawn: list[tuple[Array, Array]]) -> None:
    """Both draw the same. NumPy's edges are not smoothed; away from edges images agree."""
    for image, mask, (plain_image, plain_mask) in zip(batch["image"], batch["mask"], drawn, strict=True):
        assert (mask.numpy() == plain_mask).mean() > 0.999
        flat = np.ones_like(plain_mask, bool)
        for axis in (0, 1):
            step = np.diff(plain_mask, axis=axis) != 0
            flat &= ~np.pad(step, [(1, 0) if a == axis else (0, 0) for a in (0, 1)])
            flat &= ~np.pad(step, [(0, 1) if a == axis else (0, 0) for a in (0, 1)])
        gap = np.abs(image.permute(1, 2, 0).numpy() - plain_image).max(-1)[flat]
        assert (gap < 1.5 / 255).mean() > 0.99, (gap < 1.5 / 255).mean()


def run() -> list[Row]:
    index = torch.arange(SCENES)
    table = combinations({name: getattr(clevr, name) for name in ("SHAPES", "SIZES", "MATERIALS", "COLOURS")})
    picture = raytracer.Picture(SIZE, SIZE, *clevr.CROP)
    rules = clevr.Rules(3, 10, table, picture, textures="none", margin=0.4, min_pixels=200 * (SIZE / 192) ** 2)
    world = clevr.arrange(0, index, rules).world
    batch = clevr.draw(0, index)
    check(batch, plain(world))
    # The peer is given the finished arrangement; drawing it is most of the work.
    ours, theirs = in_turns([lambda: clevr.draw(0, index), lambda: plain(world)], ROUNDS, warm_up=1)
    ours, theirs = SCENES / ours, SCENES / theirs
    what, unit_ = "CLEVR-like 128×128", "scenes/s"
    return [
        Row(what, "NumPy, object by object", unit_, ours, theirs, ours / theirs, 1, ours >= theirs),
        Row(what, "what training needs", unit_, ours, GOAL, ours / GOAL, 1, ours >= GOAL),
    ]
