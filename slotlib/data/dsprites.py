"""The dSprites file (Matthey et al., 2017): one white sprite on black in every combination of its five properties.

`dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz` holds 737,280 images of 64×64, 3 GB once unpacked. They are streamed
out of the archive and kept at one bit a pixel (377 MB), read once per process and shared with processes forked from
it. The metadata in the archive is pickled Python and is never opened.
"""

import functools
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from tqdm.auto import tqdm

from slotlib.data import npz
from slotlib.data.files import DataError, Files, Item, guarded, rgb, within

SHAPES = ("square", "ellipse", "heart")
"""Names of the shape classes, in the file's order."""
LATENTS = ("colour", "shape", "scale", "orientation", "x", "y")
Class = Int[Tensor, "*#batch"] | int
_CHUNK = 2**24  # bytes unpacked at a time, or one image
_LARGEST = 737_280 * 64 * 64  # bytes of images, those of the published file


class Sprites:
    """The images of a dSprites file by their properties. `load` makes one.

    `shapes`, `scales`, `orientations`, `xs`, `ys` are the values of each property in ascending class order, float64:
    shapes 1–3 (see `SHAPES`), scales 0.5–1, orientations in radians, positions 0–1. Their lengths count the classes.
    """

    def __init__(self, bits: UInt8[Tensor, "sprites bytes"], side: tuple[int, int], values: list[Tensor]):
        self.bits, self.side = bits, side
        self.colours, self.shapes, self.scales, self.orientations, self.xs, self.ys = values
        self.sizes = tuple(len(value) for value in values[1:])

    def __len__(self) -> int:
        return len(self.bits)

    def image(self, index: Int[Tensor, "*batch"] | int) -> UInt8[Tensor, "*batch height width"]:
        """The sprites numbered `index` as 0 and 1, on the device of `index`."""
        index = torch.as_tensor(index)
        packed = self.bits[index.cpu().long()].to(index.device)
        bits = (packed.unsqueeze(-1) >> torch.arange(7, -1, -1, dtype=torch.uint8, device=index.device)) & 1
        return bits.flatten(-2)[..., : self.side[0] * self.side[1]].unflatten(-1, self.side)

    def at(
        self, shape: Class, scale: Class, orientation: Class, x: Class, y: Class
    ) -> UInt8[Tensor, "*batch height width"]:
        """The sprites of the given classes (indices, broadcast against each other) as 0 and 1.

        Raises IndexError for a class that is not there.
        """
        index: Any = 0  # the mixed-radix number of the classes, the last running fastest
        for name, size, value in zip(LATENTS[1:], self.sizes, (shape, scale, orientation, x, y), strict=True):
            value = torch.as_tensor(value)
            if value.numel() and not 0 <= int(value.min()) <= int(value.max()) < size:
                raise IndexError(f"{name} must lie in [0, {size}), got {int(value.min())} to {int(value.max())}")
            index = index * size + value.long()
        return self.image(index)


def load(path: Path | str) -> Sprites:
    """The sprites of a dSprites `.npz`, read once per process, in a few seconds.

    Raises:
        FileNotFoundError: no such file.
        DataError: not a dSprites archive, or a damaged one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no dSprites file at {path}")
    state = path.stat()
    return _load(path.resolve(), state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=2)
def _load(path: Path, modified: int, size: int) -> Sprites:
    with guarded(f"{path} is not a dSprites archive, or a damaged one"), zipfile.ZipFile(path) as archive:
        missing = {"imgs.npy", "latents_values.npy", "latents_classes.npy"} - set(archive.namelist())
        if missing:
            raise DataError(f"{path} is not a dSprites archive: it has no {', '.join(sorted(missing))}")
        values, classes = npz.arrays(archive, ("latents_values", "latents_classes"), path).values()
        if classes.ndim != 2 or classes.shape[1] != len(LATENTS) or values.shape != classes.shape:
            raise DataError(
                f"{path}: expected latents_values and latents_classes [sprites, {len(LATENTS)}], "
                f"got {values.shape} and {classes.shape}"
            )
        sizes = tuple(int(column.max()) + 1 for column in classes.T)
        every = sizes[0] == 1 and math.prod(sizes) == len(classes)
        if not every or not np.array_equal(np.ravel_multi_index(tuple(classes.T), sizes), np.arange(len(classes))):
            raise DataError(
                f"{path}: latents_classes must count through every combination of classes of one colour, the last "
                f"column fastest; the classes per column are {sizes}, the rows {len(classes)}"
            )
        bits, side = _packed(archive, len(classes), path)
        steps = [torch.from_numpy(_first_of_class(classes[:, k], values[:, k])) for k in range(len(LATENTS))]
        return Sprites(torch.from_numpy(bits), side, steps)


def _first_of_class(classes: np.ndarray, values: np.ndarray) -> np.ndarray:
    return values[np.unique(classes, return_index=True)[1]].astype(np.float64)


def _packed(archive: zipfile.ZipFile, count: int, path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """The images at one bit a pixel `[sprites, bytes]`, and their height and width."""
    with archive.open("imgs.npy") as member:
        shape, fortran, dtype = npz.header(member, f"{path}, imgs")
        if len(shape) != 3 or shape[0] != count or dtype != np.uint8 or fortran:
            raise DataError(f"{path}: expected imgs uint8 [{count}, height, width], got {dtype} {list(shape)}")
        within(shape, 1, f"{path}, imgs", _LARGEST)
        area = shape[1] * shape[2]
        within((area,), 1, f"{path}, a sprite")
        step = max(1, _CHUNK // max(1, area))
        bits = np.empty((count, -(-area // 8)), dtype=np.uint8)
        bar = tqdm(total=count, desc=f"unpacking {path.name}", unit="sprite", delay=1)
        for start in range(0, count, step):
            rows = min(step, count - start)
            content = member.read(rows * area)
            if len(content) != rows * area:
                raise DataError(f"{path} ends within sprite {start + len(content) // area} of {count}")
            pixels = np.frombuffer(content, dtype=np.uint8).reshape(rows, area)
            if pixels.max() > 1:
                raise DataError(f"{path}: expected pixels of 0 and 1, got {pixels.max()}")
            bits[start : start + rows] = np.packbits(pixels, axis=1)
            bar.update(rows)
        bar.close()
        return bits, (shape[1], shape[2])


class DSprites(Files):
    """The sprites of a dSprites file as scenes of one white object on black, in the file's order.

    `objects` has one row: `shape` (order of `SHAPES`), `scale`, `orientation` (radians), `x`, `y` (0–1), the latter
    four float32 as in the file.
    """

    def __init__(self, path: Path | str, **options: Any):
        super().__init__(path, len(load(path)), **options)

    def opened(self) -> Sprites:
        return load(self.path)

    def stored(self, record: int) -> Item:
        sprites = self.file
        mask = sprites.image(record).numpy()
        classes = np.unravel_index(record, sprites.sizes)
        values = [sprites.scales, sprites.orientations, sprites.xs, sprites.ys]
        return {
            "image": rgb(mask * np.uint8(255)),
            "mask": mask,
            "objects": {
                "present": torch.tensor([True]),
                "shape": torch.tensor([int(classes[0])]),
                **{
                    name: value[int(k)].float().reshape(1)
                    for name, value, k in zip(LATENTS[2:], values, classes[1:], strict=True)
                },
            },
        }
