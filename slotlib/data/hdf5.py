"""The HDF5 files of object-centric-library (Dittadi et al., 2022): `multidsprites_colored_on_grayscale-full.hdf5`.

`image` uint8 `[scenes, H, W, 3]`, `mask` labels `[scenes, H, W, 1]`, `visibility` and other properties `[scenes,
entities, …]`; the first entities are background. `NAME-metadata.npy` beside it, NAME being what stands before the first
dash, is pickled Python: it is written by `export` for that library, and never opened here.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slotlib.check import whole
from slotlib.data.files import TABLE, DataError, Files, Item, first_present, guarded, optional, within
from slotlib.data.published import NAMES
from slotlib.data.scenes import Batch, each

OWN = "slotlib"
"""Attribute that names the dataset in slotlib's own files; their `slotlib.NAME` datasets are kept exactly."""


class Hdf5(Files):
    """Scenes of such a file. Properties are read into memory at once, images when asked for.

    `objects`: `present` from `visibility`, else the first `num_actual_objects`; every property that has one row per
    entity, without the background's (`color` is called `colour`, `pixel_coords` `pixel`), integers as int64 and floats
    as float32, in the file's own meaning. From slotlib's own files come exactly the exported properties.

    Args:
        path: the file.
        background: the first so many entities are background: 1, in Objects Room 4.
        max_objects: leave out scenes of more objects.
        options: `crop`, `resolution`, `on_error`, see `Files`.

    Raises:
        FileNotFoundError: no such file.
        DataError: not HDF5, truncated, without what is expected, or with parts in other files: links, external storage
            and virtual datasets would bring in whatever they name.
        ImportError: h5py is missing.
    """

    def __init__(self, path: Path | str, background: int = 1, max_objects: int | None = None, **options: Any):
        whole("background", background, least=0)
        if max_objects is not None:
            whole("max_objects", max_objects)
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no HDF5 file at {path}")
        self.path, self.background = path, background
        with self.opened() as file, guarded(f"{path} is damaged"):
            stored = self._datasets(file)
            self._check(stored)
            self.properties = self._properties(stored, OWN in file.attrs)
        counts = self.properties["objects"]["present"].sum(1)
        fits = torch.ones_like(counts, dtype=torch.bool) if max_objects is None else counts <= max_objects
        super().__init__(path, fits.nonzero().squeeze(1).tolist(), **options)

    def opened(self) -> Any:
        with guarded(f"{self.path} is not an HDF5 file, or is truncated"):
            return optional("h5py").File(self.path, "r")

    def _datasets(self, file: Any) -> dict[str, Any]:
        """The arrays of numbers in the file, by name, as yet unread. Raises DataError if any lies elsewhere."""
        h5py, found = optional("h5py"), {}
        for name in file:
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                raise DataError(f"{self.path}: {name!r} is a link; expected the data itself")
            stored = file[name]
            if isinstance(stored, h5py.Dataset) and stored.dtype.kind in "biuf":
                if stored.external or stored.is_virtual:
                    raise DataError(f"{self.path}: {name!r} lies in other files; expected the data itself")
                found[name] = stored
        return found

    def _bounded(self, tables: Mapping[str, Any]) -> None:
        """Raises DataError if tables to be read at once are too large, with eight bytes a value."""
        for name, stored in tables.items():
            within(stored.chunks or (), stored.dtype.itemsize, f"{self.path}, a chunk of {name!r}")
        count = sum(math.prod(stored.shape) for stored in tables.values())
        within((count,), 8, f"{self.path}, {', '.join(tables)}", TABLE)

    def _check(self, file: Mapping[str, Any]) -> None:
        for name, channels in (("image", (1, 3)), ("mask", (1,))):
            if name not in file:
                raise DataError(f"{self.path} has no dataset {name!r}; it has: {', '.join(file) or 'none'}")
            if file[name].ndim != 4 or file[name].shape[3] not in channels or file[name].dtype != np.uint8:
                raise DataError(
                    f"{self.path}: expected {name} uint8 [scenes, height, width, {channels[-1]}], "
                    f"got {file[name].dtype} {list(file[name].shape)}"
                )
            for shape in (file[name].shape[1:], file[name].chunks or ()):
                within(shape, 1, f"{self.path}, {name!r}")
        if file["image"].shape[:3] != file["mask"].shape[:3]:
            raise DataError(
                f"{self.path}: expected a mask for every pixel of the images, "
                f"got images {list(file['image'].shape)} and masks {list(file['mask'].shape)}"
            )

    def _properties(self, file: Mapping[str, Any], exact: bool) -> Batch:
        """Tensors of all scenes, and of all objects."""
        count, own = len(file["image"]), f"{OWN}."
        if exact:
            tables = {name: stored for name, stored in file.items() if name.startswith(own)}
            self._bounded(tables)
            for name, stored in tables.items():
                if stored.shape[:1] != (count,):
                    raise DataError(f"{self.path}: expected {name!r} of {count} scenes, got {list(stored.shape)}")
            objects = {name.removeprefix(own): torch.from_numpy(stored[:]) for name, stored in tables.items()}
            scenes = {name: objects.pop(name) for name in list(objects) if name.startswith("scene.")}
            return {**{name.removeprefix("scene."): value for name, value in scenes.items()}, "objects": objects}
        self._bounded({name: file[name] for name in ("visibility", "num_actual_objects") if name in file})
        if "visibility" in file:
            visible = file["visibility"][:].reshape(count, -1)[:, self.background :] > 0
            if not visible.any():
                visible[:] = True  # object-centric-library does so for Tetrominoes
        elif "num_actual_objects" in file:
            numbers = file["num_actual_objects"][:].reshape(count, 1)
            most = max(1, int(numbers.max()))
            within((count, most), 8, f"{self.path}, objects", TABLE)
            visible = np.arange(most) < numbers
        else:
            raise DataError(f"{self.path} has neither 'visibility' nor 'num_actual_objects'")
        # Objects that are not there go last; `order` is needed again for the labels of each mask.
        self.visible, order = visible, np.argsort(~visible, axis=1, kind="stable")
        present = np.take_along_axis(visible, order, 1)
        entities = self.background + visible.shape[1]
        objects = {"present": torch.from_numpy(present)}
        others = {name: stored for name, stored in file.items() if name not in ("image", "mask", "visibility")}
        tables = {name: stored for name, stored in others.items() if stored.shape[:2] == (count, entities)}
        self._bounded(tables)
        for name, stored in tables.items():
            rows = stored[:][:, self.background :].reshape(count, visible.shape[1], -1)
            rows = np.take_along_axis(rows, order[..., None], 1) * present[..., None]
            rows = torch.from_numpy(rows.astype(np.float32 if rows.dtype.kind == "f" else np.int64))
            objects[NAMES.get(name, name)] = rows.squeeze(2) if rows.shape[2] == 1 else rows
        return {"objects": objects}

    def stored(self, record: int) -> Item:
        image, mask = self.file["image"][record], self.file["mask"][record, ..., 0]
        if hasattr(self, "visible"):
            mask = np.where(mask < self.background, 0, mask - (self.background - 1)).astype(np.uint8)
            if mask.max() <= self.visible.shape[1]:  # else `finish` says what is wrong
                _, mask = first_present(self.visible[record], mask)
        return {
            "image": np.broadcast_to(image, (*image.shape[:2], 3)),
            "mask": mask,
            **each(self.properties, lambda value: value[record]),
        }
