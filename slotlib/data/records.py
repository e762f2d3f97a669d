"""The Multi-Object Datasets (Kabra et al., 2019): gzipped TFRecords, by number.

| schema | scenes | entities | in the file |
|---|---|---|---|
| `multi_dsprites` | 64×64, 1–5 sprites | 4 (binarised), 6 (on grey), 5 (on colour) | masks `[H, W, entity, 1]` |
| `tetrominoes` | 35×35, 3 pieces | 4 | masks `[entity, H, W, 1]`, as below |
| `objects_room` | 64×64, 0–6 objects | 7; 10 and 4 in the variants | image and masks only |
| `clevr_with_masks` | 240×320, 3–10 objects | 11 | properties are codes in a byte |

Entity 0 is the background; in Objects Room entities 0–3 are sky, floor and two walls. Objects come out in the file's
order, those that are not there last; what the properties mean is the file's own:

- `colour` is RGB in [0, 1], float32 `[objects, 3]` (one value where the images are grey).
- `shape` of Multi-dSprites and Tetrominoes is the number in the file, as int64.
- CLEVR: `position`, `pixel`, `rotation` as in CLEVR v1.0. `size`, `material`, `shape`, `colour` are the file's codes
  minus one: in the file 0 says that there is no object. Which code is which name was never published, so these
  numbers need not agree with the order of `slotlib.data.clevr`.

Files that slotlib exported hold, besides the published features, every property exactly; these are what comes out.

gzip cannot be entered in the middle. `Records` reads a file once to find every record and, each so many megabytes, the
state of the decompression (a *seek point*); this index is kept beside the file. A random record then costs the
decompression of what lies between it and the seek point before. Files of many gigabytes have few points per record:
export those once to HDF5.
"""

import gzip
import io
import json
import logging
import math
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from slotlib.check import choice, whole
from slotlib.checkpoint import written_whole
from slotlib.data import npz, tfrecord
from slotlib.data.files import MOST_OBJECTS, DataError, Files, Item, first_present, guarded, optional, rgb, within
from slotlib.data.published import NAMES

logger = logging.getLogger(__name__)


class Schema(NamedTuple):
    """What a published dataset has in its files."""

    features: frozenset[str] = frozenset({"image", "mask"})
    background: int = 1
    """The first so many entities are background."""
    entities_last: bool = False
    """Masks are `[H, W, entity, 1]` instead of `[entity, H, W, 1]`, and images without colour have one channel."""


_PROPERTIES = {"image", "mask", "x", "y", "shape", "color", "visibility"}
SCHEMAS = {
    "tetrominoes": Schema(frozenset(_PROPERTIES)),
    "multi_dsprites": Schema(frozenset({*_PROPERTIES, "orientation", "scale"}), entities_last=True),
    "clevr_with_masks": Schema(frozenset({*_PROPERTIES, "z", "pixel_coords", "rotation", "size", "material"})),
    "objects_room": Schema(background=4),
}
"""The published datasets."""
OWN = "slotlib"
"""Feature that tells slotlib's own files: JSON with the dataset, the image size, and the properties kept exactly."""
_POINTS = 256  # seek points about every 1/256 of the compressed size: some thousand points, 32 KB each


def _schema(features: set[str], name: str | None, where: str) -> str:
    """Which schema a record has. Raises DataError if it has none, or another than `name`."""
    for schema in SCHEMAS if name is None else [name]:
        expected = SCHEMAS[schema].features
        if features == expected or (name is not None and features >= expected):
            return schema
    raise DataError(
        f"{where}: expected the features of {name or 'one of ' + ', '.join(SCHEMAS)}"
        + (f" ({', '.join(sorted(SCHEMAS[name].features))})" if name else "")
        + f", got {', '.join(sorted(features)) or 'none'}"
    )


def _size(area: float) -> tuple[int, int] | None:
    """Height and width of so many pixels: square, or 3:4 as CLEVR."""
    for ratio in (1, 3 / 4):
        height = round(math.sqrt(area * ratio))
        if height * round(height / ratio) == area:
            return height, round(height / ratio)
    return None


def item_of(record: memoryview, where: str, schema: str | None = None, background: int | None = None) -> Item:
    """One record as `files.finish` takes it.

    Args:
        record: a `tf.train.Example`.
        where: names the record in errors.
        schema: one of `SCHEMAS`; by default recognised, and then slotlib's own exact properties win.
        background: the first so many entities are background: 1, in Objects Room 4.

    Raises DataError for another schema, or features of sizes that do not fit together.
    """
    features = tfrecord.decode(record, where)
    own = json.loads(bytes(features[OWN])) if OWN in features and schema is None else None
    published = {name: value for name, value in features.items() if not name.startswith(OWN)}
    layout = SCHEMAS.get(own["dataset"] if own else _schema(set(published), schema, where), Schema())
    background = layout.background if background is None else background
    image, mask = published.pop("image"), published.pop("mask")
    if image.dtype != np.uint8 or mask.dtype != np.uint8:
        raise DataError(f"{where}: expected image and mask as bytes, got {image.dtype} and {mask.dtype}")

    if "visibility" in published:
        entities = len(published["visibility"])
    else:
        entities = 3 * len(mask) // max(1, len(image))
    size = tuple(own["size"]) if own else _size(len(mask) / max(1, entities))
    channels = len(image) / math.prod(size) if size else 0
    if size is None or channels not in (1, 3) or len(mask) != entities * math.prod(size):
        raise DataError(
            f"{where}: the mask has {len(mask)} values for {entities} entities, the image {len(image)}; expected one "
            "per entity and pixel, and 1 or 3 per pixel"
        )
    if entities - background > MOST_OBJECTS:
        raise DataError(f"{where}: expected at most {MOST_OBJECTS} objects, got {entities - background}")
    pixels = image.reshape(*size, int(channels))
    masks = mask.reshape(*size, entities).transpose(2, 0, 1) if layout.entities_last else mask
    masks = masks.reshape(entities, *size)[background:] != 0
    labels = (masks * np.arange(1, len(masks) + 1, dtype=np.uint8)[:, None, None]).max(0, initial=0)
    stored = {"image": rgb(pixels[..., 0]) if channels == 1 else pixels, "mask": labels}
    if own:
        return {**stored, **_exact(own["extras"], features), "objects": _exact(own["objects"], features)}

    visibility = published.pop("visibility", None)
    # What has pixels is there, whatever `visibility` says: readers of the published Tetrominoes overrule theirs.
    present = masks.any((1, 2)) if visibility is None else (visibility[background:] > 0) | masks.any((1, 2))
    order, stored["mask"] = first_present(present, labels)
    objects = {"present": torch.from_numpy(present[order])}
    for name, value in published.items():
        if name not in layout.features:
            continue
        if len(value) % entities:
            raise DataError(f"{where}: {name} has {len(value)} values for {entities} entities")
        rows = value.reshape(entities, -1)[background:][order] * present[order][:, None]
        if name == "shape" and not np.isfinite(value).all():
            raise DataError(f"{where}: expected shape as whole numbers, got {value[~np.isfinite(value)][0]}")
        if value.dtype == np.uint8:
            column = torch.from_numpy(np.maximum(rows.astype(np.int64) - 1, 0)).squeeze(1)
        else:
            column = torch.from_numpy(rows.astype(np.int64 if name == "shape" else np.float32))
            column = column if name in ("color", "pixel_coords") else column.squeeze(1)
        objects[NAMES.get(name, name)] = column
    if "z" in objects:
        objects["position"] = torch.stack([objects.pop(axis) for axis in "xyz"], dim=1)
    return {**stored, "objects": objects}


def _exact(properties: dict[str, Any], features: dict[str, tfrecord.Feature]) -> dict[str, torch.Tensor]:
    return {
        name: torch.from_numpy(features[f"{OWN}.{name}"].view(dtype).reshape(shape).copy())
        for name, (dtype, shape) in properties.items()
    }


def exact(properties: dict[str, torch.Tensor]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Tensors of one scene as features that `item_of` restores exactly: their header, and the features."""
    arrays = {name: value.numpy() for name, value in properties.items()}
    header = {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}
    return header, {f"{OWN}.{name}": array.tobytes() for name, array in arrays.items()}


def _gzipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


class _Index(NamedTuple):
    """Where the records of a file are."""

    offsets: np.ndarray  # of each record's content, int64
    lengths: np.ndarray  # of content and checksum, int64
    counts: np.ndarray  # objects in each scene, −1 where that is unknown
    damage: str  # why the file cannot be read beyond them, if so
    points: np.ndarray  # indexed_gzip's seek points, uint8


def _count(record: bytes) -> int:
    try:
        visibility = tfrecord.decode(memoryview(record)[:-4], "", "visibility")["visibility"]
    except (DataError, KeyError):
        return -1
    return int((visibility[1:] > 0).sum())


def _scan(path: Path) -> _Index:
    if not _gzipped(path):
        with path.open("rb") as file:
            return _Index(*_walk(file, path), np.zeros(0, dtype=np.uint8))
    spacing = max(1 << 20, path.stat().st_size // _POINTS)
    with optional("indexed_gzip").IndexedGzipFile(str(path), spacing=spacing) as file:
        offsets, lengths, counts, damage = _walk(file, path)
        with path.open("rb") as raw:
            raw.seek(-4, io.SEEK_END)
            whole = int.from_bytes(raw.read(), "little") == file.tell() % 2**32
        if damage or not whole:
            # indexed_gzip takes a missing end for the end, and stops well before damage. Python's gzip is exact.
            with gzip.open(path) as slow:
                offsets, lengths, counts, damage = _walk(slow, path)
        with io.BytesIO() as buffer:
            file.export_index(fileobj=buffer)
            return _Index(offsets, lengths, counts, damage, np.frombuffer(buffer.getvalue(), dtype=np.uint8))


def _walk(file: Any, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """The first four fields of an index."""
    lengths, counts, damage = [], [], ""
    try:
        for body in tqdm(tfrecord.frames(file, str(path)), desc=f"indexing {path.name}", unit=" scenes", delay=1):
            lengths.append(len(body))
            counts.append(_count(body))
    except DataError as error:
        damage = str(error)
    sizes = np.array(lengths, dtype=np.int64)
    return np.cumsum(sizes + tfrecord.HEADER.size) - sizes, sizes, np.array(counts, dtype=np.int64), damage


def index_of(path: Path) -> _Index:
    """The index of a TFRecords file: that beside it if it is this file's, else a new one, kept beside it if possible.

    Raises DataError if the file cannot be read.
    """
    place, state = path.with_name(f"{path.name}.index"), path.stat()
    identity = np.array([state.st_size, state.st_mtime_ns], dtype=np.int64)
    with suppress(OSError, DataError), guarded(f"{place} cannot be read"), zipfile.ZipFile(place) as archive:
        saved = npz.arrays(archive, ("identity", *_Index._fields), place)
        if np.array_equal(saved.pop("identity"), identity):
            return _Index(damage=str(saved.pop("damage")), **saved)
    with guarded(f"{path} cannot be read"):
        index = _scan(path)
    if not len(index.offsets):
        return index  # most likely not TFRecords at all: leave nothing beside it
    try:
        with written_whole(place, replace=True) as temporary, temporary.open("wb") as file:
            np.savez(file, identity=identity, **index._asdict())
    except OSError as error:
        logger.info("the index of %s stays in memory: %s", path, error)
    return index


class Records(Files):
    """A TFRecords file of the Multi-Object Datasets, by number.

    Args:
        path: the file, gzipped or not. Its index is read from, or written to, `NAME.index` beside it.
        schema: one of `SCHEMAS`; by default recognised by the features.
        background: the first so many entities are background: by default 1, in Objects Room 4.
        max_objects: leave out scenes of more objects.
        options: `crop`, `resolution`, `on_error`, see `Files`. With on_error="skip" a truncated file counts as ending
            with its last whole record.

    Raises:
        FileNotFoundError: no such file.
        DataError: not TFRecords, damaged, or of another schema.
        ImportError: google-crc32c or indexed-gzip is missing.
    """

    def __init__(
        self,
        path: Path | str,
        schema: str | None = None,
        background: int | None = None,
        max_objects: int | None = None,
        **options: Any,
    ):
        for name, value, least in (("background", background, 0), ("max_objects", max_objects, 1)):
            if value is not None:
                whole(name, value, least)
        if schema is not None:
            choice("schema", schema, SCHEMAS)
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no TFRecords file at {path}")
        index = index_of(path)
        if index.damage:
            if options.get("on_error") != "skip" or not len(index.offsets):
                raise DataError(index.damage)
            logger.warning("%s holds %d whole scenes: %s", path, len(index.offsets), index.damage)
        self.schema, self.background, self.index = schema, background, index
        if max_objects is not None and (index.counts < 0).all():
            raise DataError(f"{path} has no visibility, so that scenes cannot be chosen by max_objects")
        fits = np.ones(len(index.counts), dtype=bool) if max_objects is None else index.counts <= max_objects
        super().__init__(path, np.flatnonzero(fits), **options)
        if self.on_error == "raise":
            first = self[0]  # another schema shows here, not in a worker an hour later
            if not self.given_size:
                self.size = (first["image"].shape[1], first["image"].shape[2])

    def opened(self) -> Any:
        if not len(self.index.points):
            return self.path.open("rb")
        file = optional("indexed_gzip").IndexedGzipFile(str(self.path), drop_handles=False, buffer_size=1 << 16)
        file.import_index(fileobj=io.BytesIO(self.index.points.tobytes()))
        return file

    def stored(self, record: int) -> Item:
        where = self.where(record)
        place, length = int(self.index.offsets[record]), int(self.index.lengths[record])
        within((length,), 1, where)  # an index may be damaged too
        try:
            self.file.seek(place)
            body = self.file.read(length)
        except Exception as error:  # indexed_gzip has exceptions of its own
            if not self.index.damage:
                raise DataError(f"{where}: damaged gzip data ({error})") from None
            with gzip.open(self.path) as slow:  # it gives up well before the damage; few records lie so near
                slow.seek(place)
                body = slow.read(length)
        return item_of(tfrecord.content(body, where), where, self.schema, self.background)
