"""A plain folder of images, with or without masks: bring your own."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slotlib.check import whole
from slotlib.data import npz, pictures
from slotlib.data.files import MOST_OBJECTS, DataError, Files, Item, guarded
from slotlib.data.scenes import each

OBJECTS = "objects.npz"


class ImageFolder(Files):
    """The images of a folder, or of its `images` folder, in the order of their names; see `slotlib.data.pictures`.

    A `masks` folder inside or beside holds one mask per image, of the same name up to the ending: a label image (grey
    of up to 32 bits, or the indices of a palette: 0 background), or a coloured one (black background, every other
    colour an object, ordered as 0xRRGGBB). Labels are renumbered 1, 2, …. `objects` then holds `present` only. A folder
    written by `export` also has `objects.npz`: all properties, exactly; its labels stay as they are.

    Args:
        path: the folder.
        max_objects: rows of `objects`, at most 255; no image may have more.
        options: `crop`, `resolution`, `on_error`, see `Files`. Without a resolution all images must be of one size.

    Raises:
        FileNotFoundError: no folder, no images, or a mask missing for one of them.
        DataError: `objects.npz` does not match the images.
    """

    def __init__(self, path: Path | str, max_objects: int = 32, **options: Any):
        whole("max_objects", max_objects)
        if max_objects > MOST_OBJECTS:
            raise ValueError(f"max_objects must be at most {MOST_OBJECTS}, got {max_objects}")
        path = Path(path)
        if not path.is_dir():
            raise FileNotFoundError(f"no folder at {path}")
        folder = path / "images" if (path / "images").is_dir() else path
        self.images = pictures.files_in(folder)
        if not self.images:
            raise FileNotFoundError(f"{folder} holds no images ({', '.join(sorted(pictures.ENDINGS))})")
        places = [place for place in (folder / "masks", folder.parent / "masks") if place.is_dir()]
        self.masks = {mask.stem: mask for mask in pictures.files_in(places[0])} if places else None
        self.max_objects = max_objects
        self.exact = _exact(path / OBJECTS, len(self.images)) if (path / OBJECTS).is_file() else None
        super().__init__(path, len(self.images), **options)
        if not self.given_size:
            self.size = pictures.first_size(self.images, self.on_error)

    def where(self, record: int) -> str:
        return str(self.images[record])

    def stored(self, record: int) -> Item:
        file = self.images[record]
        item: Item = {"image": pictures.image_of(file)}
        if self.masks is not None:
            if file.stem not in self.masks:
                raise FileNotFoundError(f"image {file} has no mask; expected {file.stem}.png in the masks folder")
            item["mask"] = pictures.mask_of(self.masks[file.stem])
        if self.exact is not None:
            return {**item, **each(self.exact, lambda value: value[record])}
        if self.masks is None:
            return {**item, "objects": {"present": torch.zeros(self.max_objects, dtype=torch.bool)}}
        item["mask"], count = _labels(item["mask"])
        if count > self.max_objects:
            raise DataError(
                f"{self.masks[file.stem]} has {count} objects, more than max_objects={self.max_objects}; if it is a "
                "coloured mask, its edges must not be smooth"
            )
        return {**item, "objects": {"present": torch.arange(self.max_objects) < count}}


def _labels(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Any label or colour image as labels 0 (background), 1, 2, …, and how many objects there are."""
    codes = mask.astype(np.int32) @ [1 << 16, 1 << 8, 1] if mask.ndim == 3 else mask
    found = np.unique(codes)
    found = found[found != 0]
    return np.where(codes == 0, 0, np.searchsorted(found, codes) + 1), len(found)


def _exact(file: Path, count: int) -> dict[str, Any]:
    """What `export` wrote: properties of all objects, and of scenes."""
    with guarded(f"{file} cannot be read"), zipfile.ZipFile(file) as archive:
        names = [name for name in npz.names_in(archive) if name != "dataset"]
        tensors = {name: torch.from_numpy(value) for name, value in npz.arrays(archive, names, file).items()}
    for name, value in tensors.items():
        if value.shape[:1] != (count,):
            raise DataError(f"{file}: expected {name} of {count} scenes, one per image, got {list(value.shape)}")
    objects = {name.removeprefix("objects."): value for name, value in tensors.items() if name.startswith("objects.")}
    if "present" not in objects:
        raise DataError(f"{file}: expected objects.present")
    return {**{n: v for n, v in tensors.items() if not n.startswith("objects.")}, "objects": objects}
