"""Files as others write them, independently of the package's own exporter; and what tests of several formats share."""

import gzip
import itertools
import struct

import google_crc32c
import h5py
import numpy as np
import pytest
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from PIL import Image


def same(a: dict, b: dict) -> bool:
    """Two items or batches: the same names, types and values."""
    if a.keys() != b.keys():
        return False
    pairs = [(a[name], b[name]) for name in a]
    return all(same(x, y) if isinstance(x, dict) else x.dtype == y.dtype and torch.equal(x, y) for x, y in pairs)


class Pickled:
    """Whatever unpickles this notices."""

    def __reduce__(self):
        return (pytest.fail, ("a file's pickled metadata was opened",))


# --- TFRecords, written with protobuf itself ---


def define_example():
    """`tf.train.Example`, from its definition."""
    field = descriptor_pb2.FieldDescriptorProto
    proto = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tf", syntax="proto3")
    kinds = {"BytesList": field.TYPE_BYTES, "FloatList": field.TYPE_FLOAT, "Int64List": field.TYPE_INT64}
    for name, kind in kinds.items():
        message = proto.message_type.add(name=name)
        message.field.add(name="value", number=1, label=field.LABEL_REPEATED, type=kind)
    feature = proto.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, kind) in enumerate(
        {"bytes_list": "BytesList", "float_list": "FloatList", "int64_list": "Int64List"}.items(), start=1
    ):
        feature.field.add(
            name=name, number=number, type=field.TYPE_MESSAGE, type_name=f".tf.{kind}", label=1, oneof_index=0
        )
    features = proto.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=1, type=field.TYPE_STRING)
    entry.field.add(name="value", number=2, label=1, type=field.TYPE_MESSAGE, type_name=".tf.Feature")
    features.field.add(
        name="feature", number=1, label=3, type=field.TYPE_MESSAGE, type_name=".tf.Features.FeatureEntry"
    )
    example = proto.message_type.add(name="Example")
    example.field.add(name="features", number=1, label=1, type=field.TYPE_MESSAGE, type_name=".tf.Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tf.Example"))


Example = define_example()


def serialised(features: dict) -> bytes:
    """Floats as a float list, bytes and uint8 as one string per value, as the published files have them."""
    example = Example()
    for name, value in features.items():
        if value.dtype == np.uint8:
            example.features.feature[name].bytes_list.value.extend(bytes([v]) for v in value.ravel())
        else:
            example.features.feature[name].float_list.value.extend(value.ravel().tolist())
    return example.SerializeToString()


def masked_crc(content: bytes) -> int:
    crc = google_crc32c.value(content)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def write_records(path, contents: list[bytes], zipped: bool = True) -> None:
    with gzip.open(path, "wb") if zipped else open(path, "wb") as file:
        for content in contents:
            header = struct.pack("<Q", len(content))
            file.write(header + struct.pack("<I", masked_crc(header)))
            file.write(content + struct.pack("<I", masked_crc(content)))


LAYOUT = {"tetrominoes": (4, 35, 35), "multi_dsprites": (5, 64, 64), "objects_room": (7, 64, 64)}

LAYOUT["clevr_with_masks"] = (11, 240, 320)


def published(schema: str, seed: int, channels: int = 3) -> tuple[dict, np.ndarray]:
    """The features of a random scene in a published schema, and its labels by entity."""
    entities, height, width = LAYOUT[schema]
    rng = np.random.default_rng(seed)
    there = entities - 1 if schema == "tetrominoes" else int(rng.integers(max(1, entities - 4), entities))
    labels = rng.integers(0, 1 + there, (height, width))
    masks = (labels == np.arange(entities)[:, None, None]).astype(np.uint8) * 255
    shown = (np.arange(entities) <= there).astype(np.float32)
    features = {"image": rng.integers(0, 256, (height, width, channels), dtype=np.uint8), "mask": masks}
    if schema == "multi_dsprites":
        features["mask"] = np.ascontiguousarray(masks.transpose(1, 2, 0))[..., None]
    if schema == "objects_room":
        return features, labels
    numbers = {"x": (), "y": (), "visibility": ()}
    if schema == "clevr_with_masks":
        numbers |= {"z": (), "rotation": (), "pixel_coords": (3,)}
        for name, codes in (("size", 2), ("material", 2), ("shape", 3), ("color", 8)):
            features[name] = (rng.integers(1, codes + 1, entities) * shown * (np.arange(entities) > 0)).astype(np.uint8)
    else:
        numbers |= {"shape": (), "color": (channels,)}
    if schema == "multi_dsprites":
        numbers |= {"orientation": (), "scale": ()}
    for name, tail in numbers.items():
        features[name] = rng.random((entities, *tail), dtype=np.float32) * shown.reshape(-1, *[1] * len(tail))
    features["visibility"] = shown
    if schema != "clevr_with_masks":
        features["shape"] = (rng.integers(1, 4, entities) * shown).astype(np.float32)
    return features, labels


# --- the other formats ---


def write_sprites(path, sizes=(1, 3, 2, 4, 5, 6), side=16, **others) -> np.ndarray:
    """A small file in the published layout: images of noise, so that every mistake shows."""
    classes = np.array(list(itertools.product(*map(range, sizes))))
    images = np.random.default_rng(0).integers(0, 2, (len(classes), side, side), dtype=np.uint8)
    latents = classes / np.maximum(1, np.array(sizes) - 1) + (np.arange(6) == 1)
    arrays = {"imgs": images, "latents_values": latents, "latents_classes": classes, **others}
    np.savez_compressed(path, metadata=np.array(Pickled(), dtype=object), **arrays)
    return images


def write_hdf5(path, background=1, **others) -> dict:
    """Six scenes as object-centric-library keeps Multi-dSprites."""
    rng = np.random.default_rng(0)
    entities, visible = background + 4, rng.integers(1, 5, 6)
    arrays = {
        "image": rng.integers(0, 256, (6, 8, 10, 3), dtype=np.uint8),
        "mask": np.stack([rng.integers(0, background + n, (8, 10, 1), dtype=np.uint8) for n in visible]),
        "visibility": (np.arange(entities) < background + visible[:, None])[..., None].astype(np.float32),
        "num_actual_objects": visible[:, None],
        "color": rng.random((6, entities, 3), dtype=np.float32),
        "shape": rng.integers(0, 3, (6, entities, 1)).astype(np.uint8),
        **others,
    }
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            if value is not None:
                file[name] = value
    return arrays


def picture(path, pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)
