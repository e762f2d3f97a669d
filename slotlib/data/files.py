"""Scenes from files: what the readers of all formats share.

A reader yields what a generator yields: `image` float32 `[3, H, W]` in [0, 1], `mask` uint8 `[H, W]` where the file has
masks, and `objects`, padded to one length, with `present`. Files are opened where they are read, once per process, so
that a reader can be pickled, forked and given to a DataLoader with any number of workers.
"""

import copy
import importlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from torch.utils.data import default_collate

from slotlib.data.scenes import Batch, Index, Source, each

logger = logging.getLogger(__name__)

Item = dict[str, Any]


class DataError(ValueError):
    """A file that does not hold what it should. The message names file and record, and what was expected."""


def optional(module: str) -> ModuleType:
    """A package that only some formats need. Raises ImportError saying how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ImportError(f'this format needs the package {module}: pip install "slotlib[files]"') from None


def picture(path: Path) -> np.ndarray:
    """The pixels of an image file, uint8: `[H, W, 3]`, or `[H, W]` where the file stores indices or grey values.

    Raises FileNotFoundError, or DataError for a damaged file.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image if image.mode in ("L", "P") else image.convert("RGB"), dtype=np.uint8)
    except FileNotFoundError:
        raise FileNotFoundError(f"image {path} does not exist") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # PIL has all of these
        raise DataError(f"image {path} cannot be read: {error}") from None


def rgb(pixels: np.ndarray) -> np.ndarray:
    """Grey values `[H, W]` as `[H, W, 3]`; colour passes through."""
    return np.broadcast_to(pixels[..., None], (*pixels.shape, 3)) if pixels.ndim == 2 else pixels


def finish(item: Item, where: str, crop: Sequence[int] | None, resolution: tuple[int, int] | None) -> Item:
    """A record as stored (`image` uint8 `[H, W, 3]`, `mask` `[H, W]`) → an item: checked, cropped, resized, in [0, 1].

    Images are resized as by `tf.image.resize(..., "bilinear")`: half-pixel centres, no anti-aliasing; masks by the
    nearest pixel centre. `pixel` among the objects follows, in coordinates that run from 0 to W and from 0 to H: a
    point at column p is then at (p − left) · scale.

    Raises DataError for a mask of another size than the image, or with a label that no object has.
    """
    image, mask, objects = item["image"], item.get("mask"), item["objects"]
    height, width = image.shape[:2]
    if mask is not None:
        if mask.shape != (height, width):
            raise DataError(f"{where}: the image is {height}×{width} pixels, its mask {'×'.join(map(str, mask.shape))}")
        count = int(objects["present"].sum())
        if mask.size and mask.max() > count:
            raise DataError(f"{where}: expected mask labels of at most {count}, the objects, got {mask.max()}")
    if crop is not None:
        top, bottom, left, right = crop
        if not (0 <= top < bottom <= height and 0 <= left < right <= width):
            raise DataError(f"{where}: the crop {list(crop)} does not lie within its {height}×{width} pixels")
        image, mask = image[top:bottom, left:right], None if mask is None else mask[top:bottom, left:right]
    pixels = torch.tensor(np.ascontiguousarray(image)).permute(2, 0, 1).contiguous().float() / 255
    labels = None if mask is None else torch.tensor(np.ascontiguousarray(mask))
    size = pixels.shape[1:]
    if resolution is not None and size != resolution:
        pixels = functional.interpolate(pixels[None], resolution, mode="bilinear", align_corners=False)[0].clamp(0, 1)
        if labels is not None:
            labels = functional.interpolate(labels[None, None].float(), resolution, mode="nearest-exact")[0, 0].byte()
    if "pixel" in objects and (crop is not None or resolution is not None):
        corner = torch.tensor([crop[2], crop[0], 0.0] if crop is not None else [0.0, 0.0, 0.0]).float()
        scale = torch.tensor([pixels.shape[2] / size[1], pixels.shape[1] / size[0], 1.0]).float()
        moved = (objects["pixel"] - corner) * scale
        objects = {**objects, "pixel": moved.where(objects["present"].unsqueeze(1), 0)}
    return {**item, "image": pixels, **({} if labels is None else {"mask": labels}), "objects": objects}


class Files(Source):
    """Scenes from files. A format is a subclass with `stored`, and `opened` if it has a handle.

    Args:
        path: file or folder.
        records: the number of records, or which of them to use, in this order.
        crop: (top, bottom, left, right): rows top to bottom−1, columns left to right−1.
        resolution: height and width to resize to, after the crop; one number means both.
        on_error: what to do with an unreadable record: "raise", or "skip": log it once, count it in `skipped`, and
            give the next readable one in its place.
    """

    def __init__(
        self,
        path: Path | str,
        records: int | Sequence[int] | np.ndarray,
        crop: Sequence[int] | None = None,
        resolution: int | Sequence[int] | None = None,
        on_error: Literal["raise", "skip"] = "raise",
    ):
        if on_error not in ("raise", "skip"):
            raise ValueError(f'on_error must be "raise" or "skip", got {on_error!r}')
        if crop is not None and len(crop) != 4:
            raise ValueError(f"crop must be (top, bottom, left, right), got {crop}")
        if resolution is not None:
            resolution = (resolution, resolution) if isinstance(resolution, int) else tuple(resolution)
            if len(resolution) != 2 or min(resolution) < 1:
                raise ValueError(f"resolution must be one or two numbers of at least 1, got {resolution}")
        self.path, self.crop, self.resolution, self.on_error = Path(path), crop, resolution, on_error
        self.name, self.origin = type(self).__name__, {"scenes": str(path)}
        self.records = np.arange(records) if isinstance(records, int) else np.asarray(records, dtype=np.int64)
        if not len(self.records):
            raise DataError(f"{path} holds no scenes that fit")
        # One byte per record in shared memory: workers mark what they could not read, and no two add to one number.
        self._unreadable = torch.zeros(len(self.records), dtype=torch.uint8).share_memory_()
        self._handle: tuple[int, Any] | None = None

    def stored(self, record: int) -> Item:
        """Record number `record` as `finish` takes it. Raises DataError or OSError naming file and record."""
        raise NotImplementedError

    def opened(self) -> Any:
        """What `stored` reads from; called once per process."""
        raise NotImplementedError

    @property
    def file(self) -> Any:
        """What `opened` returned in this process."""
        if self._handle is None or self._handle[0] != os.getpid():
            self._handle = (os.getpid(), self.opened())
        return self._handle[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}

    @property
    def skipped(self) -> int:
        """How many different records could not be read so far, in this process and its DataLoader workers."""
        return int(self._unreadable.sum(dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> Item:
        """Scene `i`, or with on_error="skip" the next one that can be read.

        Raises DataError or OSError for an unreadable record (always, if none can be read), IndexError.
        """
        if not 0 <= i < len(self):
            raise IndexError(f"scene numbers must lie in [0, {len(self)}), got {i}")
        for j in (*range(i, len(self)), *range(i)) if self.on_error == "skip" else (i,):
            if not self._unreadable[j]:
                try:
                    return self._item(int(self.records[j]))
                except (DataError, OSError) as error:
                    if self.on_error == "raise":
                        raise
                    self.skip(j, str(error))
        raise DataError(f"{self.path}: none of the {len(self)} records can be read")

    def __getitems__(self, index: Index) -> list[Item]:
        index = [int(i) for i in index]
        items = {i: self[i] for i in sorted(set(index))}  # in the order of the file, which is cheaper to read
        return [items[i] for i in index]

    def part(self, start: int, stop: int) -> "Files":
        """Scenes start to stop−1 as a dataset of their own; what replaces an unreadable one is also from among them."""
        part = copy.copy(self)
        part.records, part._unreadable = self.records[start:stop], self._unreadable[start:stop]
        part._handle = None
        return part

    def batch(self, index: Index, device: torch.device | str = "cpu") -> Batch:
        return each(default_collate(self.__getitems__(index)), lambda value: value.to(device))

    def _item(self, record: int) -> Item:
        return finish(self.stored(record), self.where(record), self.crop, self.resolution)

    def where(self, record: int) -> str:
        """How errors name a record."""
        return f"{self.path}, record {record}"

    def skip(self, j: int, reason: str) -> None:
        """Count scene `j` as unreadable, and say so once."""
        if not self._unreadable[j]:
            self._unreadable[j] = 1
            logger.warning("skipped: %s", reason)


def first_present(present: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Objects that are there come first: their order, and the labels that go with it."""
    order = np.argsort(~present, kind="stable")
    return order, np.concatenate([[0], 1 + np.argsort(order)]).astype(np.uint8)[labels]
