"""Scenes from files: what the readers of all formats share.

A reader yields what a generator yields: `image` float32 `[3, H, W]` in [0, 1], `mask` uint8 `[H, W]` where the file has
masks, and `objects`, padded to one length, with `present`. Files are opened where they are read, once per process, so
that a reader can be pickled, forked and given to a DataLoader with any number of workers.
"""

import copy
import importlib
import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, SupportsIndex

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import default_collate

from slotlib.check import choice, whole
from slotlib.data.scenes import Batch, Index, Source, each, numbers

logger = logging.getLogger(__name__)

Item = dict[str, Any]
RECORD, TABLE = 2**28, 2**29
"""The bytes that one record may take (an image of 89 million pixels: Pillow's limit too), and what is read at once of
all records. A file that declares more is refused before anything is allocated."""
MOST_OBJECTS = 255
"""In a scene: masks are bytes."""


class DataError(ValueError):
    """A file that does not hold what it should. The message names file and record, and what was expected."""


def optional(module: str) -> ModuleType:
    """A package that only some formats need. Raises ImportError saying how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        needed = "pip install google-crc32c h5py indexed-gzip"
        raise ImportError(f"this format needs the package {module}: {needed}") from None


@contextmanager
def guarded(claim: str) -> Iterator[None]:
    """What a parser raises on damaged content, whatever it is, as a DataError that begins with `claim`."""
    try:
        yield
    except (DataError, FileNotFoundError, ImportError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{claim} ({type(error).__name__}: {reason})") from error


def within(shape: Sequence[int], itemsize: int, where: str, most: int = RECORD) -> None:
    """Raises DataError if an array of this shape, `itemsize` bytes a value, takes more than `most` bytes."""
    size = math.prod(map(int, shape)) * itemsize
    if size > most:
        declared = "×".join(map(str, shape))
        raise DataError(f"{where}: {declared} values declared, {size:,} bytes; at most {most:,} are read")


def rgb(pixels: np.ndarray) -> np.ndarray:
    """Grey values `[H, W]` as `[H, W, 3]`; colour passes through."""
    return np.broadcast_to(pixels[..., None], (*pixels.shape, 3)) if pixels.ndim == 2 else pixels


def finish(item: Item, where: str, crop: Sequence[int] | None, resolution: tuple[int, int] | None) -> Item:
    """A record as stored (`image` uint8 `[H, W, 3]`, `mask` `[H, W]`) → an item: checked, cropped, resized, in [0, 1].

    Images are resized as by `tf.image.resize(..., "bilinear")`: half-pixel centres, no anti-aliasing; masks by the
    nearest pixel centre. `pixel` among the objects follows, in coordinates that run from 0 to W and from 0 to H: a
    point at column p is then at (p − left) · scale.

    Raises DataError for anything else, a mask of another size than the image, or with a label that no object has.
    """
    image, mask, objects = item["image"], item.get("mask"), item["objects"]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise DataError(f"{where}: expected an image uint8 [height, width, 3], got {image.dtype} {list(image.shape)}")
    present = objects["present"]
    if present.dtype != torch.bool or present.ndim != 1 or len(present) > MOST_OBJECTS:
        raise DataError(
            f"{where}: expected whether each of at most {MOST_OBJECTS} objects is present, bool [objects], "
            f"got {present.dtype} {list(present.shape)}"
        )
    height, width = image.shape[:2]
    if mask is not None:
        if mask.shape != (height, width):
            raise DataError(f"{where}: the image is {height}×{width} pixels, its mask {'×'.join(map(str, mask.shape))}")
        count = int(present.sum())
        if mask.min() < 0 or mask.max() > count:
            got = mask.max() if mask.min() >= 0 else mask.min()
            raise DataError(f"{where}: expected mask labels of at most {count}, the objects, got {got}")
    if crop is not None:
        top, bottom, left, right = crop
        if not (0 <= top < bottom <= height and 0 <= left < right <= width):
            raise DataError(f"{where}: the crop {list(crop)} does not lie within its {height}×{width} pixels")
        image, mask = image[top:bottom, left:right], None if mask is None else mask[top:bottom, left:right]
    pixels = torch.tensor(np.ascontiguousarray(image)).permute(2, 0, 1).contiguous().float().div_(255)
    labels = None if mask is None else torch.tensor(np.ascontiguousarray(mask, dtype=np.uint8))
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
        choice("on_error", on_error, ("raise", "skip"))
        if crop is not None:
            if not isinstance(crop, Sequence) or len(crop) != 4:
                raise ValueError(f"crop must be (top, bottom, left, right), got {crop!r}")
            for edge in crop:
                whole("each edge of crop", edge, least=0)
        size: tuple[int, int] | None = None
        if resolution is not None:
            sides: Any = resolution if isinstance(resolution, list | tuple) else (resolution, resolution)
            if len(sides) != 2:
                raise ValueError(f"resolution must be one or two numbers, got {resolution}")
            for side in sides:
                whole("resolution", side)
            within((*sides, 3), 4, "resolution")
            size = (sides[0], sides[1])
        if isinstance(records, int):
            within((records,), 8, str(path), TABLE)
        self.path, self.crop, self.resolution, self.on_error = Path(path), crop, size, on_error
        self.name, self.origin = type(self).__name__, {"scenes": str(path)}
        self.records = np.arange(records) if isinstance(records, int) else np.asarray(records, dtype=np.int64)
        if not len(self.records):
            raise DataError(f"{path} holds no scenes that fit")
        # One byte per record in shared memory: workers mark what they could not read, and no two add to one number.
        self._unreadable = torch.zeros(len(self.records), dtype=torch.uint8).share_memory_()
        self._handle: tuple[int, Any] | None = None
        self.given_size = crop is not None or resolution is not None
        self.size: tuple[int, int] | None = None  # of every image as stored, where it must be one

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

    def __getitem__(self, i: SupportsIndex) -> Item:
        """Scene `i`, or with on_error="skip" the next one that can be read.

        Raises DataError or OSError for an unreadable record (always, if none can be read), IndexError.
        """
        (first,) = numbers([i], len(self)).tolist()
        for j in (*range(first, len(self)), *range(first)) if self.on_error == "skip" else (first,):
            if not self._unreadable[j]:
                try:
                    return self._item(int(self.records[j]))
                except (DataError, OSError) as error:
                    if self.on_error == "raise":
                        raise
                    self.skip(j, str(error))
        raise DataError(f"{self.path}: none of the {len(self)} records can be read")

    def __getitems__(self, index: Index) -> list[Item]:
        index = numbers(index, len(self)).tolist()
        items = {i: self[i] for i in sorted(set(index))}  # in the order of the file, which is cheaper to read
        return [items[i] for i in index]

    def part(self, start: int, stop: int) -> "Files":
        """Scenes start to stop−1 as a dataset of their own; what replaces an unreadable one is also from among them."""
        part = copy.copy(self)
        part.records, part._unreadable = self.records[start:stop], self._unreadable[start:stop]
        part._handle = None
        return part

    def batch(self, index: Index, device: torch.device | str = "cpu") -> Batch:
        """The scenes numbered `index`, see `Source`. Raises what `__getitem__` does, DataError for scenes of several
        shapes."""
        items = self.__getitems__(index) or [self[0]]  # of which an empty batch has no row
        with guarded(f"{self.path}: these scenes do not make one batch"):
            batch = default_collate(items)
        return each(batch, lambda value: value[: len(index)].to(device))

    def _item(self, record: int) -> Item:
        where = self.where(record)
        with guarded(f"{where} cannot be read"):
            stored = self.stored(record)
            size = stored["image"].shape[:2]
            if self.size not in (None, size):
                raise DataError(
                    f"{where} is {size[0]}×{size[1]} pixels, the first image {self.size[0]}×{self.size[1]}; give a "
                    "resolution to bring all to one size, such as resolution=64"
                )
            return finish(stored, where, self.crop, self.resolution)

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
