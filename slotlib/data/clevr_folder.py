"""CLEVR v1.0 (Johnson et al., 2017) as it is published.

    images/train/CLEVR_train_000000.png     320×240
    scenes/CLEVR_train_scenes.json          objects, directions (relationships are not read)
    masks/train/CLEVR_train_000000.png      optional: 0 background, i the i-th object of the scene's list

The paper's object discovery uses scenes of at most six objects (CLEVR6), the middle of the image, at 128×128:
`ClevrFolder(path, "train", max_objects=6, crop=clevr.CROP, resolution=128)`.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slotlib.check import whole
from slotlib.data import pictures
from slotlib.data.files import MOST_OBJECTS, DataError, Files, Item, guarded
from slotlib.data.scenes import each
from slotlib.data.targets import CATEGORIES

logger = logging.getLogger(__name__)

MAX_OBJECTS = 10
_NUMBERS = {"position": ("3d_coords", (3,)), "rotation": ("rotation", ()), "pixel": ("pixel_coords", (3,))}


class ClevrFolder(Files):
    """Scenes of a CLEVR v1.0 folder.

    `objects`: `present`; `shape`, `size`, `material`, `colour` (int64, order of `CATEGORIES`); `position` (the
    3d_coords), `rotation` (0–360), `pixel` (column, row and depth; follows crop and resolution). `behind`, where the
    file has directions: which way on the ground leads away from the camera, `[2]`. `mask` if there is a `masks`
    folder. Objects keep the order of the file, and stay in the list when the crop cuts them off: the official code
    does the same. They then have no pixel in the mask, and their `pixel` lies outside.

    Args:
        path: the folder that holds `images` and `scenes`.
        split: such as "train" or "val"; may be left out if there is only one.
        max_objects: leave out scenes with more objects than that in the whole, uncropped scene; 6 gives CLEVR6.
        options: `crop`, `resolution`, `on_error`, see `Files`.

    Raises:
        FileNotFoundError: a part of the folder is missing.
        DataError: the scenes do not match the images, or are not CLEVR's. With on_error="skip" scenes that do not
            match are skipped and counted, as unreadable images are.
    """

    values = CATEGORIES

    def __init__(self, path: Path | str, split: str | None = None, max_objects: int | None = None, **options: Any):
        if max_objects is not None:
            whole("max_objects", max_objects)
        path = Path(path)
        splits = sorted(p.name.removeprefix("CLEVR_").removesuffix("_scenes.json") for p in path.glob("scenes/*.json"))
        if split is None and len(splits) != 1:
            raise FileNotFoundError(f"{path}/scenes holds the splits {', '.join(splits) or 'none'}; name one of them")
        self.split = split or splits[0]
        self.scenes_file = path / "scenes" / f"CLEVR_{self.split}_scenes.json"
        folders = {kind: path / kind / self.split for kind in ("images", "masks")}
        if not folders["images"].is_dir():
            raise FileNotFoundError(f"no image folder at {folders['images']}")
        declared, scenes = self._scenes()
        self.images = folders["images"]
        self.masks = folders["masks"] if folders["masks"].is_dir() else None

        tolerant = options.get("on_error") == "skip"
        kept = [k for k, scene in enumerate(scenes) if max_objects is None or len(scene["objects"]) <= max_objects]
        super().__init__(path, len(kept), **options)
        most = max((len(scenes[k]["objects"]) for k in kept), default=0)
        rows = max(most, declared or max_objects or MAX_OBJECTS)
        if rows > MOST_OBJECTS:
            raise DataError(f"{self.scenes_file}: expected at most {MOST_OBJECTS} objects in a scene, got {rows}")
        self.files = [scenes[k]["image_filename"] for k in kept]
        there = {file.name for file in pictures.files_in(self.images)}
        objects, behind = [], []
        for j, k in enumerate(kept):
            try:
                if self.files[j] not in there:
                    raise FileNotFoundError(f"{self.scenes_file}, scene {k}: there is no {self.images / self.files[j]}")
                with guarded(f"{self.scenes_file}, scene {k} is not one of CLEVR"):
                    tables = _objects(scenes[k]["objects"], rows, f"{self.scenes_file}, scene {k}")
                    way = scenes[k].get("directions", {}).get("behind")
                    behind.append(None if way is None else _finite([way[:2]], 1, (2,))[0])
                objects.append(tables)
            except (FileNotFoundError, DataError) as error:
                if not tolerant:
                    raise
                self.skip(j, str(error))
                objects.append(_objects([], rows, ""))
                behind.append(torch.zeros(2))
        unknown = sorted(there - {scene["image_filename"] for scene in scenes})
        if unknown:
            message = f"{self.images / unknown[0]} ({len(unknown)} in all) is in no scene of {self.scenes_file}"
            if not tolerant:
                raise DataError(message)
            logger.warning("left out: %s", message)
        self.objects = {name: torch.stack([one[name] for one in objects]) for name in objects[0]}
        if not self.given_size:
            readable = (self.images / file for file in self.files if file in there)
            self.size = pictures.first_size(readable, self.on_error)
        known = [way for way in behind if way is not None]
        self.behind = torch.stack(known) if len(known) == len(kept) else None

    def _scenes(self) -> tuple[int, list[dict[str, Any]]]:
        """How many objects a file of slotlib's own says to make room for, else 0, and the scenes."""
        if not self.scenes_file.is_file():
            raise FileNotFoundError(f"no scenes file at {self.scenes_file}")
        with guarded(f"{self.scenes_file} is not a CLEVR scenes file"):
            content = json.loads(self.scenes_file.read_bytes())
            scenes = content["scenes"]
            for k, scene in enumerate(scenes):
                for name, kind in (("image_filename", str), ("objects", list)):
                    if not isinstance(scene.get(name), kind):
                        raise DataError(f"{self.scenes_file}, scene {k}: expected {name!r}, a {kind.__name__}")
                scene.pop("relationships", None)  # most of the file, and of no use here
            return int(content.get("info", {}).get("slotlib", {}).get("max_objects", 0)), scenes

    def where(self, record: int) -> str:
        return f"{self.images / self.files[record]}"

    def stored(self, record: int) -> Item:
        file = self.files[record]
        item: Item = {"image": pictures.image_of(self.images / file)}
        if self.masks is not None:
            item["mask"] = pictures.mask_of(self.masks / file)
        if self.behind is not None:
            item["behind"] = self.behind[record]
        return {**item, "objects": each(self.objects, lambda value: value[record])}


def _padded(rows: Sequence[Any], length: int, dtype: torch.dtype, width: tuple[int, ...] = ()) -> Tensor:
    """`rows` (one per object) as a tensor of `length` rows, the missing ones zero."""
    table = torch.zeros(length, *width, dtype=dtype)
    if len(rows):
        table[: len(rows)] = torch.as_tensor(rows, dtype=dtype)
    return table


def _finite(rows: Sequence[Any], length: int, width: tuple[int, ...]) -> Tensor:
    """`_padded` finite numbers. Raises ValueError for others."""
    if np.shape(rows) != (len(rows), *width) and len(rows):
        raise ValueError(f"expected {width[0] if width else 1} numbers per object, got {rows}")
    table = _padded(rows, length, torch.float32, width)
    if not table.isfinite().all():
        raise ValueError(f"expected finite numbers, got {rows}")
    return table


def _objects(listed: list[dict[str, Any]], rows: int, where: str) -> dict[str, Tensor]:
    """A scene's objects as padded tensors."""
    table = {"present": _padded([True] * len(listed), rows, torch.bool)}
    for name in ("shape", "size", "material", "colour"):
        values = [one["color" if name == "colour" else name] for one in listed]
        for value in values:
            if value not in CATEGORIES[name]:
                raise DataError(f"{where}: expected a {name} of {', '.join(CATEGORIES[name])}, got {value!r}")
        table[name] = _padded([CATEGORIES[name].index(value) for value in values], rows, torch.int64)
    for name, (published, width) in _NUMBERS.items():
        table[name] = _finite([one[published] for one in listed], rows, width)
    return table
