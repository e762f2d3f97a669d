"""Scenes and golden values of the lab that describes: `python book/lab/describe.py`.

Writes src/clevr.json, the scenes that the page shows with their true objects, their cameras and what they look like
when an object is moved, and golden/describe.json.
"""

import base64
import io
import json
from dataclasses import fields
from typing import Any

import torch
from golden import HERE, floats, seeded, write
from golden_pure import rounded
from PIL import Image
from torch.nn import functional as F

import slotlib
from slotlib import data, matching, metrics
from slotlib.data import clevr, raytracer
from slotlib.data.attributes import combinations
from slotlib.data.precision import in_single_precision
from slotlib.data.random import uniform
from slotlib.data.targets import CATEGORIES, SCENE_SIZE, VALUES, clevr_targets

SCENES = 9
"""The chapter's first ones."""
RESOLUTION = 64
STEP = 0.5
"""Metres between two places of an object that the reader moves."""
PICTURE = raytracer.Picture(RESOLUTION, RESOLUTION, *clevr.CROP)
LEAST_PIXELS = 200 * (RESOLUTION / (clevr.CROP[1] - clevr.CROP[0])) ** 2
"""Of every object, as `slotlib.data.clevr.draw` asks by default."""
CASES = [(8, 10, 7, 0), (0, 16, 14, 5), (4, 6, 7, 2), (3, 1, 1, 9), (5, 12, 3, 1)]
"""Scene, slots, iterations and start."""
MATCHED = [(1, 1), (3, 5), (5, 3), (6, 6), (2, 7), (16, 16), (10, 10)]


def scenes() -> dict[str, Any]:
    return data.make("clevr", SCENES, seed=0, num_objects=(3, 10), resolution=RESOLUTION).batch(range(SCENES))


def cameras() -> torch.Tensor:
    """What takes a place in the scene, from 0 to 1 each way, to the image: `[scenes, 3, 4]`, homogeneous."""
    eyes = torch.tensor(clevr.EYE) + clevr.EYE_JITTER * (2 * uniform(0, torch.arange(SCENES), 13)[:, :3].float() - 1)
    corners = torch.cat([torch.zeros(1, 3), torch.eye(3)]) * SCENE_SIZE - SCENE_SIZE / 2
    seen = raytracer.project(eyes, corners.expand(SCENES, 4, 3)).double()
    top, bottom, left, right = clevr.CROP
    across, down = (seen[..., 0] - left) / (right - left), (seen[..., 1] - top) / (bottom - top)
    scaled = torch.stack([across, down, torch.ones_like(down)], 1) * seen[:, None, :, 2]  # affine in the place
    origin = scaled[..., :1]
    return torch.cat([scaled[..., 1:] - origin, origin], dim=2)


def worlds() -> clevr.Arrangement:
    """The same scenes before they are pictures."""
    table = combinations({name: CATEGORIES[name] for name in ("shape", "size", "material", "colour")}, (), False)
    return clevr.arrange(0, torch.arange(SCENES), clevr.Rules(3, 10, table, PICTURE, "none", 0.4, LEAST_PIXELS))


def free(world: raytracer.World, scene: int) -> tuple[int, torch.Tensor]:
    """The object that could stand in most other places, and these, `[places, 2]` in metres from the middle."""
    line = torch.arange(-clevr.EXTENT, clevr.EXTENT + STEP / 2, STEP)
    grid = torch.cartesian_prod(line, line)
    count = int(world.present[scene].sum())
    centre, radius = world.centre[scene, :count, :2], world.radius[scene, :count]
    gaps = (grid[:, None] - centre).norm(dim=2) - radius  # [places, objects]
    open_to = [
        (torch.cat([gaps[:, :m], gaps[:, m + 1 :]], 1).amin(1) - radius[m] >= clevr.MIN_DISTANCE) for m in range(count)
    ]
    m = max(range(count), key=lambda m: int(open_to[m].sum()))
    return m, grid[open_to[m]]


@in_single_precision
def with_moved(world: raytracer.World, scene: int, m: int, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The scene with object m at each place: pictures uint8 `[places, 3, H, W]`, and pixels `[places, objects]`."""
    parts = {f.name: getattr(world, f.name) for f in fields(world) if f.init}
    copies = {name: part[[scene]].repeat_interleave(len(places), 0) for name, part in parts.items() if part is not None}
    copies["centre"][:, m, :2] = places
    many = raytracer.World(**copies)
    rays = PICTURE.rays(many.eye)
    hits = raytracer.see(many, rays)
    owner = hits.number.view(len(places), -1, 1)
    pixels = (owner == torch.arange(int(world.present[scene].sum()))).sum(1)
    return (raytracer.paint(many, PICTURE, rays, hits) * 255).round().byte(), pixels


def moved(world: raytracer.World, scene: int, image: torch.Tensor) -> dict[str, Any]:
    """An object of a scene, other places for it, and one picture of all of them, one below the other.

    Every picture is rendered, so light, shadows and mirror images are true. Kept is how much it differs from `image`,
    modulo 256. As in the data, no object touches another, and all can be seen.
    """
    m, places = free(world, scene)
    pictures, pixels = map(
        torch.cat, zip(*(with_moved(world, scene, m, some) for some in places.split(8)), strict=True)
    )
    seen = (pixels >= LEAST_PIXELS).all(1)
    changes = (pictures[seen] - image).permute(0, 2, 3, 1).reshape(-1, RESOLUTION, 3)
    png = io.BytesIO()
    Image.fromarray(changes.numpy()).save(png, "png", optimize=True)
    return {
        "object": m,
        "places": places[seen].tolist(),
        "changes": base64.b64encode(png.getvalue()).decode(),
    }


def shown() -> list[dict[str, Any]]:
    there = scenes()
    images = (there["image"] * 255).round().byte().permute(0, 2, 3, 1).contiguous()
    objects, target = there["objects"], clevr_targets(there["objects"])
    world = worlds().world
    result = []
    for i, camera in enumerate(cameras()):
        kinds = [[int(objects[name][i, k]) for name in CATEGORIES] for k in range(int(objects["present"][i].sum()))]
        result.append(
            {
                "pixels": base64.b64encode(images[i].numpy().tobytes()).decode(),
                "moved": moved(world, i, images[i].permute(2, 0, 1)),
                "camera": rounded(camera),
                "objects": [
                    [*place, *kind] for place, kind in zip(rounded(target[i, : len(kinds), :3]), kinds, strict=True)
                ],
            }
        )
    return result


@torch.no_grad()
def golden() -> dict[str, Any]:
    there, model = scenes(), slotlib.load("clevr10_sets")
    images, target = there["image"], clevr_targets(there["objects"])

    def said(scene: int, slots: int, iterations: int, start: int) -> torch.Tensor:
        return model(images[[scene]], slots, iterations, generator=seeded(start)).properties

    answers = []
    for scene, slots, iterations, start in CASES:
        properties = said(scene, slots, iterations, start)
        wanted = F.pad(target[[scene]], (0, 0, 0, max(0, slots - 10)))
        cost = matching.pairwise_huber(properties, wanted)
        real = wanted[..., -1] > 0
        answers.append(
            {
                "scene": scene,
                "question": {"slots": slots, "iterations": iterations, "start": start},
                "properties": floats(properties[0]),
                "pairs": torch.stack(matching.hungarian(cost, real))[:, 0].tolist(),
                "hungarian": matching.hungarian_loss(cost, real).item(),
                "chamfer": matching.chamfer_loss(cost).item(),
            }
        )
    precision = []
    for slots, iterations, start in {case[1:] for case in CASES}:
        found = torch.cat([said(scene, slots, iterations, start) for scene in range(SCENES)])
        scores = {str(within): metrics.average_precision(found, target, within) for within in metrics.THRESHOLDS}
        question = {"slots": slots, "iterations": iterations, "start": start}
        precision.append({"question": question, "scores": scores})
    matched = []
    for i, (rows, columns) in enumerate(MATCHED):
        cost = (torch.rand(1, rows, columns, generator=seeded(i)) * 20).round() / 20  # with ties
        matched.append({"cost": cost[0].double().tolist(), "least": matching.hungarian_loss(cost).item()})
    return {"answers": answers, "precision": precision, "matched": matched}


def main() -> None:
    content = {
        "categories": CATEGORIES,
        "colours": list(clevr.COLOURS.values()),
        "values": VALUES,
        "scenes": shown(),
    }
    (HERE / "src" / "clevr.json").write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
    write("describe", golden())


if __name__ == "__main__":
    main()
