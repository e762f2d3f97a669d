"""How like the originals are the CLEVR-like scenes? Draw rendered scenes again, and measure the difference.

    python -m benchmarks.likeness FOLDER [SPLIT]

FOLDER holds scenes in the CLEVR v1.0 layout with masks, rendered by Blender. Their files give the objects, but neither
the camera nor the lamps, which move from scene to scene: both are found here, the camera from the objects' depths, the
lamps from the light on the bare ground. Then the same scenes are drawn with `slotlib.data.raytracer`.
Writes benchmarks/likeness.json and the picture book/assets/scenes/likeness.png.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import binary_dilation
from scipy.optimize import least_squares
from torch import Tensor

from slotlib.data import clevr, raytracer
from slotlib.data.clevr_folder import ClevrFolder
from slotlib.data.raytracer import LIGHTS, Picture, World

ROOT = Path(__file__).parents[1]
FRAME = Picture(240, 320, 0, 240, 0, 320)
SHOWN = (2, 8, 1)  # scenes in the picture
PIXELS = 300  # of bare ground, from which a scene's lamps are found


def find_eye(objects: dict[str, Tensor], behind: Tensor) -> Tensor:
    """The camera of one scene. Its azimuth is known; an object's depth depends on its height and its distance."""
    present = objects["present"]
    along = objects["position"][present][:, :2].double() @ behind.double()
    z, depth = objects["position"][present][:, 2].double(), objects["pixel"][present][:, 2].double()

    def misses(unknown: np.ndarray) -> np.ndarray:
        distance, pitch = unknown
        return (distance + np.cos(pitch) * along - np.sin(pitch) * z - depth).numpy()

    distance, pitch = least_squares(misses, [11.0, 0.5]).x
    return torch.tensor([*(-distance * np.cos(pitch) * behind.double()), distance * np.sin(pitch)]).float()


def world(objects: dict[str, Tensor], eye: Tensor, lamps: Tensor) -> World:
    """One scene of a CLEVR folder, as the ray tracer takes it."""
    shape = objects["shape"]
    paint = torch.tensor(list(clevr.COLOURS.values())) / 255
    return World(
        eye=eye.unsqueeze(0),
        lamps=lamps.unsqueeze(0),
        centre=objects["position"].unsqueeze(0),
        radius=(torch.tensor(clevr.HEIGHTS)[objects["size"]] * torch.tensor(clevr.FILLED)[shape]).unsqueeze(0),
        yaw=objects["rotation"].unsqueeze(0),
        shape=shape.unsqueeze(0),
        present=objects["present"].unsqueeze(0),
        albedo=paint[objects["colour"]].unsqueeze(0),
        metal=(objects["material"] == 1).unsqueeze(0),
    )


def to_linear(image: Tensor) -> Tensor:
    return torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)


def find_lamps(item: dict, eye: Tensor) -> Tensor:
    """The lamps of one scene, from ground far from objects and their shadows. The sun stays where it is."""
    bare = ~binary_dilation(item["mask"].numpy() > 0, iterations=25)
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(bare))[:PIXELS]
    seen = to_linear(item["image"]).flatten(1)[:, chosen]
    nominal = torch.tensor([light.position for light in LIGHTS])
    empty = {**item["objects"], "present": torch.zeros_like(item["objects"]["present"])}
    pixel = torch.as_tensor(chosen)
    rays = FRAME.through(eye.unsqueeze(0), torch.zeros_like(pixel), pixel, 0.0, 0.0)
    origin = eye.unsqueeze(1).expand(3, len(pixel))

    def moved(shift: np.ndarray) -> Tensor:
        return torch.cat([nominal[:3] + torch.tensor(shift).float().view(3, 3), nominal[3:]])

    def misses(shift: np.ndarray) -> np.ndarray:
        it = world(empty, eye, moved(shift))
        light = raytracer.shade(it, rays, origin, raytracer.see(it, rays))
        # The lamps' jitter is uniform; the weak pull to the middle decides what the ground leaves open.
        return np.concatenate([50 * (light - seen).flatten().numpy(), 0.3 * shift])

    # SciPy's steps are relative: the search runs around 1 instead of 0.
    limit = clevr.LAMP_JITTER + 1e-6
    bounds = (1 - limit / 10, 1 + limit / 10)
    found = least_squares(lambda x: misses(10 * (x - 1)), np.ones(9), bounds=bounds, diff_step=1e-3, loss="soft_l1")
    return moved(10 * (found.x - 1))


def redraw(item: dict) -> tuple[Tensor, Tensor]:
    """Image and mask of the same scene, drawn here."""
    eye = find_eye(item["objects"], item["behind"])
    it = world(item["objects"], eye, find_lamps(item, eye))
    rays = FRAME.rays(it.eye)
    hits = raytracer.see(it, rays)
    return raytracer.paint(it, FRAME, rays, hits)[0], (hits.number + 1).view(240, 320).to(torch.uint8)


def colours(images: Tensor) -> dict[str, list[float]]:
    """Mean and spread of each channel, in units of 1/255."""
    values = 255 * images.transpose(0, 1).flatten(1)
    return {"mean": values.mean(1).tolist(), "sd": values.std(1).tolist()}


def sizes(masks: Tensor, present: Tensor) -> Tensor:
    """Visible pixels of every object, in the frame of 240×320."""
    counts = torch.stack([mask.flatten().long().bincount(minlength=1 + present.shape[1]) for mask in masks])
    return counts[:, 1:][present].double()


def quantiles(values: Tensor) -> list[float]:
    return values.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=values.dtype)).tolist()


def main(folder: str, split: str | None = None) -> None:
    rendered = ClevrFolder(folder, split)
    items = [rendered[i] for i in range(len(rendered))]
    images, masks = (torch.stack([item[key] for item in items]) for key in ("image", "mask"))
    present = torch.stack([item["objects"]["present"] for item in items])
    again = [redraw(item) for item in items]
    image, mask = (torch.stack(part) for part in zip(*again, strict=True))
    fresh = clevr.draw(0, torch.arange(256), resolution=240, full_frame=True)
    overlap = torch.tensor(
        [
            ((a == k) & (b == k)).sum() / ((a == k) | (b == k)).sum()
            for a, b, here in zip(masks, mask, present, strict=True)
            for k in range(1, 1 + int(here.sum()))
        ]
    )
    report = {
        "scenes": len(items),
        "objects": len(overlap),
        "same_scenes": {
            "mask_iou": {"mean": overlap.mean().item(), "least": overlap.min().item()},
            "absolute_difference": 255 * (image - images).abs().mean().item(),
            "difference": (255 * (image - images).mean((0, 2, 3))).tolist(),
            "on_objects": 255 * (image - images).abs().mean(1)[masks > 0].mean().item(),
        },
        "blender": {**colours(images), "object_pixels": quantiles(sizes(masks, present))},
        "slotlib": {**colours(image), "object_pixels": quantiles(sizes(mask, present))},
        "slotlib_fresh": {
            "scenes": len(fresh["image"]),
            **colours(fresh["image"]),
            "object_pixels": quantiles(sizes(fresh["mask"], fresh["objects"]["present"])),
        },
    }
    report = json.loads(json.dumps(report), parse_float=lambda text: float(f"{float(text):.4g}"))
    Path(__file__).with_name("likeness.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))

    pairs = torch.cat([torch.cat([images[i], image[i]], dim=2) for i in SHOWN if i < len(items)], dim=1)
    picture = Image.fromarray((255 * pairs).round().byte().permute(1, 2, 0).numpy())
    target = ROOT / "book" / "assets" / "scenes" / "likeness.png"
    target.parent.mkdir(exist_ok=True)
    picture.save(target, optimize=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
