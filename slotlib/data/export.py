"""Scenes written in the formats that others read; reading them back gives the same tensors.

| format | for | |
|---|---|---|
| `tfrecord` | one gzipped file | the schema of the Multi-Object Datasets, see `slotlib.data.records` |
| `hdf5` | one file, and `NAME-metadata.npy` | as object-centric-library reads it, see `slotlib.data.hdf5` |
| `folder` | a folder | CLEVR v1.0 for CLEVR's scenes, else `images`, `masks` and `objects.npz` |

The published formats know other properties than the generators, in other units. So each file holds both: the published
features, for the programs of others, and under names that begin with `slotlib` every property exactly, for `read`.
Images are stored with eight bits per value; generated ones are such. In the published features entity 0 is the
background, colours are RGB in [0, 1], and:

- Multi-dSprites: `shape` counts from 1 as in dSprites, `x` and `y` are divided by the image's sides, entity 0 has the
  background's colour, and grey variants have one channel.
- CLEVR: `size`, `material`, `shape`, `color` count from 1 in the order of `slotlib.data.clevr`; 0 is no object.
- All others: the generator's own numbers.
"""

import gzip
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from slotlib.check import choice
from slotlib.checkpoint import written_whole
from slotlib.data import hdf5, records, tfrecord
from slotlib.data.files import optional
from slotlib.data.folder import OBJECTS
from slotlib.data.scenes import Batch, Source, joined
from slotlib.data.targets import CATEGORIES, NEEDED

_GAP = 0.2  # CLEVR: one object is left of another if it is so much further left


def export(dataset: Source, path: Path | str, format: str = "tfrecord") -> Path:
    """Write all scenes of `dataset`, in batches, whole or not at all.

    Args:
        dataset: generated scenes (`slotlib.data.make`), or scenes from files.
        path: the file or folder to make.
        format: one of `FORMATS`.

    Returns `path`.

    Raises:
        ValueError: an unknown format, or scenes without the masks or properties that the format needs.
        FileExistsError: something is at `path`.
        OSError: its folder cannot be written to.
        ImportError: google-crc32c or h5py is missing.
    """
    choice("format", format, FORMATS)
    path = Path(path)
    with written_whole(path) as temporary:
        FORMATS[format](dataset, dataset.batches(f"{dataset.name} to {path.name}"), temporary, path)
    return path


def _stored(batch: Batch, format: str) -> tuple[np.ndarray, np.ndarray]:
    """Images `[n, H, W, 3]` and masks as they are stored, uint8."""
    if "mask" not in batch:
        raise ValueError(f"these scenes have no masks, which {format} needs; export them as a folder")
    return _pixels(batch), batch["mask"].numpy()


def _pixels(batch: Batch) -> np.ndarray:
    return (batch["image"] * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def _scene_tensors(batch: Batch) -> dict[str, Tensor]:
    """What belongs to a scene as a whole, besides image and mask."""
    return {name: value for name, value in batch.items() if name not in ("image", "mask", "objects")}


def _published(dataset: Source, batch: Batch) -> dict[str, np.ndarray]:
    """Features as the published files have them: `[n, entities, …]`, float32, or uint8 where they are codes."""
    there = torch.nn.functional.pad(batch["objects"]["present"].float(), (1, 0), value=1.0)
    return {name: value.numpy() for name, value in ({"visibility": there} | dataset.published(batch)).items()}


# --- TFRecords ---


def _tfrecord(dataset: Source, batches: Iterator[Batch], temporary: Path, path: Path) -> None:
    # Without a name and a time in it, the same scenes make the same file.
    with temporary.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=4, fileobj=raw, mtime=0) as file:
        for batch in batches:
            _write_records(dataset, batch, file)


def _write_records(dataset: Source, batch: Batch, file: gzip.GzipFile) -> None:
    images, masks = _stored(batch, "tfrecord")
    published, layout = _published(dataset, batch), records.SCHEMAS.get(dataset.name, records.Schema())
    entities = np.arange(1 + batch["objects"]["present"].shape[1], dtype=np.uint8)
    if layout.entities_last and (images == images[..., :1]).all():
        images, published["color"] = images[..., :1], published["color"][..., :1]
    for i in range(len(images)):
        whole = np.equal(masks[i], entities[:, None, None]) * np.uint8(255)
        header_objects, objects = records.exact({key: value[i] for key, value in batch["objects"].items()})
        header_scene, scene = records.exact({key: value[i] for key, value in _scene_tensors(batch).items()})
        header = {"dataset": dataset.name, "size": masks.shape[1:], "objects": header_objects, "extras": header_scene}
        features = {
            records.OWN: json.dumps(header).encode(),
            "image": images[i],
            "mask": whole.transpose(1, 2, 0) if layout.entities_last else whole,
            **{feature: value[i] for feature, value in published.items()},
            **objects,
            **scene,
        }
        file.write(tfrecord.frame(tfrecord.encode(features)))


# --- HDF5 ---


def _hdf5(dataset: Source, batches: Iterator[Batch], temporary: Path, path: Path) -> None:
    metadata_path = path.with_name(f"{path.stem.split('-')[0]}-metadata.npy")
    with written_whole(metadata_path) as metadata, optional("h5py").File(temporary, "w") as file:
        file.attrs[hdf5.OWN] = json.dumps({"dataset": dataset.name})
        moments: dict[str, list[np.ndarray]] = {}
        for batch in batches:
            _append(file, dataset, batch, moments)
        np.save(metadata, np.array(_metadata(file, moments), dtype=object), allow_pickle=True)


def _append(file: Any, dataset: Source, batch: Batch, visible: dict[str, list[np.ndarray]]) -> None:
    images, masks = _stored(batch, "hdf5")
    present = batch["objects"]["present"]
    features = _published(dataset, batch)
    published = {key: value[..., None] if value.ndim == 2 else value for key, value in features.items()}
    for key, value in published.items():
        visible.setdefault(key, []).append(value[:, 1:][present.numpy()])
    arrays = {
        "image": images,
        "mask": masks[..., None],
        "num_actual_objects": present.sum(1, keepdim=True).numpy(),
        **published,
        **{f"{hdf5.OWN}.{key}": value.numpy() for key, value in batch["objects"].items()},
        **{f"{hdf5.OWN}.scene.{key}": value.numpy() for key, value in _scene_tensors(batch).items()},
    }
    for key, value in arrays.items():
        if key not in file:
            # One scene per chunk: any scene is one read.
            file.create_dataset(
                key, (0, *value.shape[1:]), value.dtype, maxshape=(None, *value.shape[1:]), chunks=_chunks(value)
            )
        file[key].resize(len(file[key]) + len(value), axis=0)
        file[key][-len(value) :] = value


def _chunks(value: np.ndarray) -> tuple[int, ...]:
    """Images and masks: one scene per chunk, so that any scene is one read; small properties: many."""
    size = max(1, value[0].nbytes)
    return (max(1, 2**16 // size) if size < 2**12 else 1, *value.shape[1:])


def _metadata(file: Any, visible: dict[str, list[np.ndarray]]) -> dict[str, dict[str, Any]]:
    """What object-centric-library wants to know of every property: its classes, or its mean and variance."""
    entries: dict[str, dict[str, Any]] = {
        "self.dataset": {"type": "dataset_property", "num_samples": len(file["image"])}
    }
    for key, parts in visible.items():
        values = np.concatenate(parts).astype(np.float64)
        whole = key != "visibility" and values.shape[-1] == 1 and (values == values.round()).all() and key not in "xyz"
        if key == "visibility" or whole:
            entries[key] = {"type": "categorical", "num_categories": int(values.max(initial=0)) + 1}
        else:
            entries[key] = {
                "type": "numerical",
                "mean": values.mean(0),
                "var": values.var(0),
                "shape": file[key].shape,
            }
    return entries


# --- folders ---


def _folder(dataset: Source, batches: Iterator[Batch], temporary: Path, path: Path) -> None:
    first = next(batches)
    batches = itertools.chain([first], batches)
    if first["objects"].keys() >= NEEDED:
        _clevr(dataset, batches, temporary)
        return
    parts, number = [], 0
    for batch in batches:
        number = _write_pictures(batch, temporary / "images", temporary / "masks", "{:06d}.png", number)
        parts.append({"objects": batch["objects"], **_scene_tensors(batch)})
    scenes = joined(parts)
    objects = {f"objects.{key}": value for key, value in scenes.pop("objects").items()}
    arrays = {key: value.numpy() for key, value in {**objects, **scenes}.items()}
    np.savez_compressed(temporary / OBJECTS, allow_pickle=False, dataset=np.array(dataset.name), **arrays)


def _write_pictures(batch: Batch, images: Path, masks: Path, pattern: str, number: int) -> int:
    """PNG files of a batch, numbered from `number` on. Returns the next number."""
    kinds = [(images, _pixels(batch))] + ([(masks, batch["mask"].numpy())] if "mask" in batch else [])
    for folder, arrays in kinds:
        folder.mkdir(parents=True, exist_ok=True)
        for i, array in enumerate(arrays):
            Image.fromarray(array).save(folder / pattern.format(number + i), compress_level=3)
    return number + len(batch["image"])


def _clevr(dataset: Source, batches: Iterator[Batch], folder: Path, split: str = "train") -> None:
    (folder / "scenes").mkdir(parents=True)
    with (folder / "scenes" / f"CLEVR_{split}_scenes.json").open("w") as file:
        number = 0
        for batch in batches:
            rows = batch["objects"]["present"].shape[1]
            if number == 0:
                info = {"split": split, "version": "1.0", "slotlib": {"dataset": dataset.name, "max_objects": rows}}
                file.write(f'{{"info": {json.dumps(info)}, "scenes": [')
            images, masks = (folder / kind / split for kind in ("images", "masks"))
            after = _write_pictures(batch, images, masks, f"CLEVR_{split}_{{:06d}}.png", number)
            for i in range(after - number):
                place = {"split": split, "image_index": number + i}
                scene = {**place, "image_filename": f"CLEVR_{split}_{number + i:06d}.png", **_clevr_scene(batch, i)}
                file.write((",\n" if number + i else "\n") + json.dumps(scene))
            number = after
        file.write("]}\n")


def _clevr_scene(batch: Batch, i: int) -> dict[str, Any]:
    """One scene as CLEVR's JSON has it."""
    objects = {key: value[i] for key, value in batch["objects"].items()}
    count = int(objects["present"].sum())
    listed = [
        {
            **{"color" if key == "colour" else key: names[int(objects[key][k])] for key, names in CATEGORIES.items()},
            "rotation": objects["rotation"][k].item(),
            "3d_coords": objects["position"][k].tolist(),
            "pixel_coords": objects["pixel"][k].tolist(),
        }
        for k in range(count)
    ]
    if "behind" not in batch:
        return {"objects": listed}
    x, y = batch["behind"][i].tolist()
    directions = {"behind": (x, y), "front": (-x, -y), "right": (y, -x), "left": (-y, x)}
    along = objects["position"][:count, :2].double() @ torch.tensor(list(directions.values())).double().T
    further = along.unsqueeze(0) > along.unsqueeze(1) + _GAP  # [of this object, that object is so far in, direction]
    relationships = {
        name: [further[k, :, d].nonzero().squeeze(1).tolist() for k in range(count)]
        for d, name in enumerate(directions)
    }
    return {
        "objects": listed,
        "directions": {name: [*way, 0.0] for name, way in directions.items()}
        | {"above": [0.0, 0.0, 1.0], "below": [0.0, 0.0, -1.0]},
        "relationships": relationships,
    }


FORMATS: dict[str, Callable[[Source, Iterator[Batch], Path, Path], None]] = {
    "tfrecord": _tfrecord,
    "hdf5": _hdf5,
    "folder": _folder,
}
