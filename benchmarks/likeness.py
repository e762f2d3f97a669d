"""How like the originals are the generated scenes? Draw the originals again, and measure the difference.

    python -m benchmarks.likeness CLEVR PUBLISHED

CLEVR is a folder of scenes in the CLEVR v1.0 layout with masks, rendered by Blender. Their files give the objects, but
neither the camera nor the lamps, which move from scene to scene: both are found here, the camera from the objects'
depths, the lamps from the light on the bare ground. Then the same scenes are drawn with `slotlib.data.raytracer`.

PUBLISHED is a folder with the one scene of Tetrominoes that can be seen of the published files, and with the frames of
the dSprites animation, in which one sprite after another takes every scale, every orientation, and places along the
border.

Writes benchmarks/likeness.json and the picture book/assets/scenes/likeness.png.
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import binary_dilation
from scipy.optimize import least_squares
from torch import Tensor

from slotlib.data import clevr, multi_dsprites, raytracer
from slotlib.data.clevr_folder import ClevrFolder
from slotlib.data.raytracer import LIGHTS, Picture, World
from slotlib.data.sprites import outline
from slotlib.data.tetrominoes import BEVELS, BLOCK, COLOURS, PIECES

ROOT = Path(__file__).parents[1]
FRAME = Picture(240, 320, 0, 240, 0, 320)
SHOWN = (2, 8, 1)  # scenes in the picture
PIXELS = 300  # of bare ground, from which a scene's lamps are found


# --- CLEVR ---


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


def like_clevr(folder: Path | str) -> dict[str, Any]:
    """Measure, and draw the picture of some scenes beside themselves."""
    rendered = ClevrFolder(folder)
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
    pairs = torch.cat([torch.cat([images[i], image[i]], dim=2) for i in SHOWN if i < len(items)], dim=1)
    picture = Image.fromarray((255 * pairs).round().byte().permute(1, 2, 0).numpy())
    target = ROOT / "book" / "assets" / "scenes" / "likeness.png"
    target.parent.mkdir(exist_ok=True)
    picture.save(target, optimize=True)
    return {
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


# --- Tetrominoes ---


def redraw_pieces(image: np.ndarray, mask: np.ndarray, look: str) -> tuple[np.ndarray, np.ndarray]:
    """The pieces of a scene (image `[H, W, 3]`, 0–255, and mask) drawn again block by block, and their mask.

    Raises ValueError for a segment that is none of `PIECES`.
    """
    drawn, labels = np.zeros(image.shape), np.zeros_like(mask)
    paints = np.array(list(COLOURS.values()))
    pieces = [sorted(cells) for cells in PIECES.tolist()]
    for name in range(1, mask.max() + 1):
        rows, columns = np.nonzero(mask == name)
        top, left = rows.min(), columns.min()
        middles = (mask == name)[top + BLOCK // 2 :: BLOCK, left + BLOCK // 2 :: BLOCK]
        cells = np.argwhere(middles).tolist()
        if cells not in pieces:
            raise ValueError(f"segment {name} is no tetromino: its blocks are {cells}")
        seen = image[mask == name].mean(0)
        paint = paints[abs(seen / seen.max() - paints).sum(1).argmin()]
        for row, column in cells:
            block = np.s_[top + BLOCK * row :, left + BLOCK * column :]
            drawn[block][:BLOCK, :BLOCK] = BEVELS[look].numpy()[:, :, None] * paint
            labels[block][:BLOCK, :BLOCK] = name
    return drawn, labels


def like_tetrominoes(folder: Path | str) -> dict[str, Any]:
    image, mask = (np.asarray(Image.open(Path(folder, f"tetrominoes_scene{end}.png"))) for end in ("", "_mask"))
    report: dict[str, Any] = {}
    for look in BEVELS:
        drawn, labels = redraw_pieces(image, mask, look)
        apart = abs(drawn - image)
        report[look] = {
            "same_mask": bool((labels == mask).all()),
            "absolute_difference": apart.mean(),
            "on_pieces": apart[mask > 0].mean(),
        }
    return report


# --- dSprites ---


class Pose(NamedTuple):
    """What a sprite of the animation is like: numbers of its classes, but for the scale."""

    shape: int
    scale: float
    orientation: int
    x: int
    y: int


def poses() -> list[Pose]:
    """Those of the animation's 320 frames."""
    places = range(multi_dsprites.POSITIONS)
    last = places[-1]
    walk = [(0, y) for y in places] + [(x, last) for x in places]
    walk += [(last, y) for y in reversed(places)] + [(x, 0) for x in reversed(places)]
    found = []
    for shape in (2, 1, 0):
        growing = [Pose(shape, scale, 0, 0, 0) for scale in multi_dsprites.SCALES]
        turning = [Pose(shape, 1.0, k, 0, 0) for k in range(len(multi_dsprites.ORIENTATIONS))]
        walking = [Pose(shape, 1.0, 0, x, y) for x, y in walk] if shape == 2 else []
        found += [*growing, *reversed(growing), *growing, *turning, *walking, *reversed(growing)]
    return found


def frames(folder: Path | str) -> np.ndarray:
    """The animation's frames, bool `[320, 64, 64]`."""
    sheet = np.asarray(Image.open(Path(folder, "dsprites_frames.png")).convert("1"))
    return sheet.reshape(16, 64, 20, 64).transpose(0, 2, 1, 3).reshape(-1, 64, 64)


def sprites(look: str, right: float = 0, down: float = 0) -> np.ndarray:
    """The same sprites drawn here, turned as there, moved by so many pixels, bool `[320, 64, 64]`."""
    how = multi_dsprites.LOOKS[look]
    shape, scale, orientation, x, y = (torch.tensor(column).unsqueeze(1) for column in zip(*poses(), strict=True))
    angle = torch.tensor(multi_dsprites.ORIENTATIONS, dtype=torch.float64)[orientation]
    x, y = how.first + how.step * x + right, how.first + how.step * y + down
    turn = angle.cos(), -angle.sin()
    cover, corner = outline(how.outlines, shape, scale, turn, x, y, how.reach, 64, how.soft)
    pictures = np.zeros((len(cover), 64, 64), dtype=bool)
    for picture, one, (row, column) in zip(pictures, cover[:, 0].numpy(), corner[:, 0].tolist(), strict=True):
        picture[row : row + len(one), column : column + len(one)] = one >= 0.5
    return pictures


def overlaps(drawn: np.ndarray, real: np.ndarray) -> np.ndarray:
    return (drawn & real).sum((1, 2)) / (drawn | real).sum((1, 2))


def like_sprites(folder: Path | str) -> dict[str, Any]:
    """By look, and by shape: pixels at scale ½ and 1, and overlaps, each sprite moved to where it fits best."""
    real, listed = frames(folder), poses()
    moves = np.arange(-2, 2.25, 0.25)
    report: dict[str, Any] = {"frames": len(real)}
    for look in multi_dsprites.LOOKS:
        still = sprites(look)
        best = np.max([overlaps(sprites(look, right, down), real) for right in moves for down in moves], axis=0)
        report[look] = {"median": np.median(best), "least": best.min()}
        for k, name in enumerate(multi_dsprites.SHAPES):
            ends = [listed.index(Pose(k, scale, 0, 0, 0)) for scale in (0.5, 1.0)]
            own = best[[pose.shape == k for pose in listed]]
            pixels = {"real": real[ends].sum((1, 2)).tolist(), "drawn": still[ends].sum((1, 2)).tolist()}
            report[look][name] = {**pixels, "median": np.median(own), "least": own.min()}
    return report


def main(rendered: str, published: str) -> None:
    report = like_clevr(rendered) | {"tetrominoes": like_tetrominoes(published), "sprites": like_sprites(published)}
    report = json.loads(json.dumps(report), parse_float=lambda text: float(f"{float(text):.4g}"))
    Path(__file__).with_name("likeness.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
