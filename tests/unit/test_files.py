"""Scenes from files: the published schemas, written here independently of the exporter, and everything that can be
wrong with them."""

import gzip
import itertools
import json
import logging
import pickle
import shutil
import struct

import google_crc32c
import h5py
import numpy as np
import pytest
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional
from torch.utils.data import DataLoader

from slotlib import data
from slotlib.data import dsprites, records, tfrecord
from slotlib.data.clevr import CROP
from slotlib.data.clevr_folder import CATEGORIES, ClevrFolder, clevr_targets
from slotlib.data.export import export
from slotlib.data.files import DataError, read
from slotlib.data.folder import ImageFolder
from slotlib.data.hdf5 import Hdf5
from slotlib.data.records import Records, RecordStream


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


@pytest.fixture(scope="module")
def example_class():
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


def serialised(example_class, features: dict) -> bytes:
    """Floats as a float list, bytes and uint8 as one string per value, as the published files have them."""
    example = example_class()
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


@pytest.fixture
def tetrominoes(tmp_path, example_class):
    """Ten published tetromino scenes: the file, the serialised records."""
    contents = [serialised(example_class, published("tetrominoes", seed)[0]) for seed in range(10)]
    write_records(tmp_path / "t.tfrecords", contents)
    return tmp_path / "t.tfrecords", contents


def test_the_checksum_is_crc32c():
    assert google_crc32c.value(b"123456789") == 0xE3069283  # the check value in the catalogue of CRC algorithms
    assert tfrecord.checksum(b"123456789") == masked_crc(b"123456789")


values = st.one_of(
    st.binary(max_size=400).map(lambda b: np.frombuffer(b, dtype=np.uint8)),
    st.lists(st.floats(width=32, allow_nan=False), max_size=40).map(lambda v: np.array(v, dtype=np.float32)),
)


@settings(max_examples=60, deadline=None)
@given(features=st.dictionaries(st.text(min_size=1, max_size=20), values, max_size=5), whole=st.binary(max_size=300))
def test_examples_are_what_protobuf_reads_and_writes(example_class, features, whole):
    example = example_class.FromString(tfrecord.encode({**features, "whole": whole}))
    for name, value in features.items():
        feature = example.features.feature[name]
        if value.dtype == np.uint8 and name != "whole":
            assert b"".join(feature.bytes_list.value) == value.tobytes()
            assert len(feature.bytes_list.value) == len(value)
        elif name != "whole":
            assert list(feature.float_list.value) == value.tolist()
    assert list(example.features.feature["whole"].bytes_list.value) == [whole]
    decoded = tfrecord.decode(memoryview(example.SerializeToString()), "here")
    assert decoded.pop("whole").tobytes() == whole
    for name, value in features.items():
        if name != "whole" and len(value):
            assert decoded[name].dtype == value.dtype
            np.testing.assert_array_equal(decoded[name], value)


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=200))
def test_what_is_no_example_is_an_error_and_not_a_crash(content):
    try:
        tfrecord.decode(memoryview(content), "record 7")
    except DataError as error:
        assert "record 7" in str(error)


def test_strings_of_any_length_and_integers_are_read(example_class):
    example = example_class()
    example.features.feature["several"].bytes_list.value.extend([b"ab", b"", b"\n\x01c"])
    example.features.feature["number"].int64_list.value.append(-3)
    decoded = tfrecord.decode(memoryview(example.SerializeToString()), "here")
    assert {name: value.tobytes() for name, value in decoded.items()} == {"several": b"ab\n\x01c"}


@pytest.mark.parametrize("schema", LAYOUT)
def test_published_schemas_are_recognised_and_read(tmp_path, example_class, schema):
    scenes = [published(schema, seed) for seed in range(3)]
    write_records(tmp_path / "scenes.tfrecords", [serialised(example_class, features) for features, _ in scenes])
    dataset = read(tmp_path / "scenes.tfrecords")
    entities = LAYOUT[schema][0]
    background = 4 if schema == "objects_room" else 1
    assert isinstance(dataset, Records)
    for item, (features, labels) in zip([dataset[i] for i in range(3)], scenes, strict=True):
        np.testing.assert_array_equal(item["image"].permute(1, 2, 0), features["image"].astype(np.float32) / 255)
        np.testing.assert_array_equal(item["mask"], np.maximum(labels - (background - 1), 0))
        objects = item["objects"]
        assert objects["present"].shape == (entities - background,)
        assert objects["present"].sum() == labels.max() + 1 - background
        if schema == "objects_room":
            assert set(objects) == {"present"}
        elif schema == "clevr_with_masks":
            position = np.stack([features[axis][1:] for axis in "xyz"], 1)
            np.testing.assert_array_equal(objects["position"], position)
            np.testing.assert_array_equal(objects["pixel"], features["pixel_coords"][1:])
            np.testing.assert_array_equal(objects["colour"], np.maximum(features["color"][1:].astype(int) - 1, 0))
            assert clevr_targets(objects).shape == (10, 19)
        else:
            np.testing.assert_array_equal(objects["colour"], features["color"][1:])
            np.testing.assert_array_equal(objects["x"], features["x"][1:])
            assert objects["shape"].dtype == torch.int64


def test_binarised_images_of_one_channel_become_three(tmp_path, example_class):
    features, _ = published("multi_dsprites", 0, channels=1)
    write_records(tmp_path / "grey.tfrecords", [serialised(example_class, features)])
    image = read(tmp_path / "grey.tfrecords")[0]["image"]
    assert torch.equal(image, torch.from_numpy(features["image"][..., 0] / np.float32(255)).expand(3, -1, -1))


def test_objects_that_are_not_there_come_last(tmp_path, example_class):
    features, labels = published("objects_room", 0)
    features["mask"] = features["mask"].copy()
    features["mask"][4] = 0  # the first object hides
    write_records(tmp_path / "room.tfrecords", [serialised(example_class, features)])
    item = read(tmp_path / "room.tfrecords")[0]
    count = int(item["objects"]["present"].sum())
    assert item["objects"]["present"].tolist() == [True] * count + [False] * (3 - count)
    assert set(item["mask"].unique().tolist()) == set(range(count + 1))
    np.testing.assert_array_equal(item["mask"] == 1, labels == 5)


def test_objects_with_pixels_are_there_whatever_visibility_says(tmp_path, example_class):
    """Readers of the published Tetrominoes, where all pieces are seen, overrule the visibility in the file."""
    features, labels = published("tetrominoes", 0)
    features["visibility"] = np.zeros_like(features["visibility"])
    write_records(tmp_path / "t.tfrecords", [serialised(example_class, features)])
    item = read(tmp_path / "t.tfrecords")[0]
    assert item["objects"]["present"].all()
    np.testing.assert_array_equal(item["mask"], labels)
    arrays = write_hdf5(tmp_path / "t.hdf5", visibility=np.zeros((6, 5, 1), np.float32))
    scenes = read(tmp_path / "t.hdf5").batch(range(6))
    assert scenes["objects"]["present"].all()
    np.testing.assert_array_equal(scenes["mask"], arrays["mask"][..., 0])


def test_background_can_be_chosen(tmp_path, example_class):
    features, labels = published("objects_room", 1)
    write_records(tmp_path / "room.tfrecords", [serialised(example_class, features)])
    np.testing.assert_array_equal(read(tmp_path / "room.tfrecords", background=1)[0]["mask"], labels)
    with pytest.raises(DataError, match="no visibility"):
        read(tmp_path / "room.tfrecords", max_objects=2)
    assert len(list(RecordStream(tmp_path / "room.tfrecords", max_objects=0))) == 0


def test_scenes_of_many_objects_can_be_left_out(tmp_path, example_class):
    scenes = [published("multi_dsprites", seed)[0] for seed in range(12)]
    write_records(tmp_path / "m.tfrecords", [serialised(example_class, features) for features in scenes])
    counts = [int(features["visibility"][1:].sum()) for features in scenes]
    few = read(tmp_path / "m.tfrecords", max_objects=2)
    assert len(few) == sum(count <= 2 for count in counts) > 0
    assert few.batch(range(len(few)))["objects"]["present"].sum(1).tolist() == [c for c in counts if c <= 2]
    assert len(list(RecordStream(tmp_path / "m.tfrecords", max_objects=2))) == len(few)


@pytest.mark.parametrize("zipped", [True, False])
def test_by_number_and_streamed_are_the_same(tetrominoes, zipped):
    path, contents = tetrominoes
    write_records(path, contents, zipped)
    dataset, streamed = Records(path), list(RecordStream(path))
    assert len(dataset) == len(streamed) == 10
    for i in (7, 2, 9, 0):
        assert same(dataset[i], streamed[i])


def test_the_index_is_kept_and_made_anew_for_another_file(tetrominoes, monkeypatch, caplog):
    path, contents = tetrominoes
    first = Records(path)[3]
    assert path.with_name("t.tfrecords.index").is_file()
    monkeypatch.setattr(records, "_scan", lambda path: pytest.fail("scanned again"))
    assert same(Records(path)[3], first)
    monkeypatch.undo()
    write_records(path, contents[5:])
    assert len(Records(path)) == 5
    path.with_name("t.tfrecords.index").write_bytes(b"damaged")
    assert len(Records(path)) == 5

    def refuse(*_, **__):
        raise PermissionError(13, "no", str(path.parent))

    path.with_name("t.tfrecords.index").unlink()
    monkeypatch.setattr(records, "written_whole", refuse)
    with caplog.at_level(logging.INFO):
        assert len(Records(path)) == 5
    assert "stays in memory" in caplog.text
    assert list(path.parent.iterdir()) == [path]


def damaged(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def test_a_flipped_bit_is_found(tetrominoes):
    path, contents = tetrominoes
    write_records(path, contents, zipped=False)
    whole, size = path.read_bytes(), len(contents[0]) + 16
    for at, message in (
        (3 * size + 500, r"t.tfrecords, record 3: the checksum"),
        (4 * size - 2, "record 3: the check"),
    ):
        path.write_bytes(damaged(whole, at))
        dataset = Records(path)
        with pytest.raises(DataError, match=message):
            dataset[3]
        assert dataset[2]["image"].shape == (3, 35, 35)
        with pytest.raises(DataError, match=message):
            list(RecordStream(path))
        skipping = Records(path, on_error="skip")
        assert same(skipping[3], dataset[4])
        assert skipping.skipped == 1
        stream = RecordStream(path, on_error="skip")
        assert len(list(stream)) == 9
        assert stream.skipped == 1
    path.write_bytes(damaged(whole, 5 * size + 2))  # in a length: nothing beyond can be found
    with pytest.raises(DataError, match="record 5: the checksum of its length"):
        Records(path)


@pytest.mark.parametrize("missing", [4, 8, 3000])
def test_a_truncated_file_ends_with_its_last_whole_record(tetrominoes, missing, caplog):
    path, _ = tetrominoes
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(DataError, match=r"t\.tfrecords.*record.*(truncated|Compressed file ended)"):
        Records(path)
    with pytest.raises(DataError, match="truncated"):
        list(RecordStream(path))
    dataset = Records(path, on_error="skip")
    assert len(dataset) == (10 if missing < 10 else 9)
    stream = RecordStream(path, on_error="skip")
    assert len(list(stream)) == len(dataset)
    assert stream.skipped == 1


def test_damaged_gzip_is_said(tetrominoes):
    path, _ = tetrominoes
    path.write_bytes(damaged(path.read_bytes(), path.stat().st_size // 2))
    with pytest.raises(DataError, match=r"t\.tfrecords, (after )?record"):
        dataset = Records(path)
        for i in range(len(dataset)):
            dataset[i]
    with pytest.raises(DataError, match=r"t\.tfrecords, record"):
        list(RecordStream(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("x"), r"record 0: expected the features of one of .*tetrominoes.*, got color, image, mask"),
        (
            lambda f: f.update(mask=f["mask"][:, :-1]),
            "record 0: the mask has 4760 values for 4 entities, the image 367",
        ),
        (lambda f: f.update(x=f["x"][:3]), "record 0: x has 3 values for 4 entities"),
    ],
)
def test_records_of_another_schema_say_what_they_have(tmp_path, example_class, change, message):
    features, _ = published("tetrominoes", 0)
    change(features)
    write_records(tmp_path / "t.tfrecords", [serialised(example_class, features)])
    with pytest.raises(DataError, match=message):
        Records(tmp_path / "t.tfrecords")


def test_a_named_schema_is_insisted_on(tetrominoes):
    with pytest.raises(DataError, match="expected the features of multi_dsprites"):
        Records(tetrominoes[0], schema="multi_dsprites")
    with pytest.raises(ValueError, match="unknown schema 'dsprites'"):
        Records(tetrominoes[0], schema="dsprites")


def test_other_files_are_no_records(tmp_path):
    (tmp_path / "text").write_text("a file that has nothing to do with it")
    with pytest.raises(DataError, match="not a TFRecords file"):
        read(tmp_path / "text")
    (tmp_path / "empty").touch()
    with pytest.raises(DataError, match="holds no scenes"):
        read(tmp_path / "empty")
    assert {path.name for path in tmp_path.iterdir()} == {"text", "empty"}
    with pytest.raises(FileNotFoundError, match="nothing"):
        read(tmp_path / "nothing")


def test_a_missing_package_is_named(tetrominoes, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "indexed_gzip", None)
    with pytest.raises(ImportError, match=r'indexed_gzip: pip install "slotlib\[files\]"'):
        Records(tetrominoes[0])


# --- workers ---


def kinds(tmp_path) -> list:
    """A dataset of every format, a few scenes each."""
    scenes = data.make("tetrominoes", 9)
    places = [tmp_path / name for name in ("t.tfrecords", "t.hdf5", "t")]
    for place, format in zip(places, ("tfrecord", "hdf5", "folder"), strict=True):
        export(scenes, place, format, progress=False)
    write_sprites(tmp_path / "d.npz", sizes=(1, 3, 1, 3, 1, 1))
    return [read(place) for place in (*places, tmp_path / "d.npz")]


def test_any_number_of_workers_brings_the_same_scenes(tmp_path):
    for dataset in kinds(tmp_path):
        alone = dataset.batch(range(9))  # the handle is open in this process when workers fork
        for workers in (0, 1, 4):
            batches = list(DataLoader(dataset, batch_size=5, num_workers=workers))
            assert same(batches[0], dataset.batch(range(5)))
            assert same(batches[1], dataset.batch(range(5, 9)))
        assert same(pickle.loads(pickle.dumps(dataset)).batch(range(9)), alone)


def test_workers_that_do_not_fork_read_too(tmp_path):
    dataset = kinds(tmp_path)[0]
    loader = DataLoader(dataset, batch_size=9, num_workers=1, multiprocessing_context="spawn")
    assert same(next(iter(loader)), dataset.batch(range(9)))


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_a_stream_brings_every_scene_once(tetrominoes, workers):
    dataset, stream = Records(tetrominoes[0]), RecordStream(tetrominoes[0])
    items = list(DataLoader(stream, batch_size=None, num_workers=workers))
    expected = sorted(dataset[i]["image"].double().sum().item() for i in range(10))
    assert sorted(item["image"].double().sum().item() for item in items) == expected


def test_a_shuffled_stream_is_a_permutation_by_its_seed(tetrominoes):
    def order(seed, shuffle=4):
        items = RecordStream(tetrominoes[0], shuffle=shuffle, seed=seed)
        return [item["image"].double().sum().item() for item in items]

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert sorted(order(0)) == sorted(order(1)) == sorted(order(0, shuffle=0))
    assert len(order(0, shuffle=100)) == 10


@pytest.mark.parametrize("workers", [0, 4])
def test_skipped_scenes_are_replaced_and_counted_once(tmp_path, workers, caplog):
    export(data.make("tetrominoes", 12), tmp_path / "t", "folder", progress=False)
    pictures = sorted((tmp_path / "t" / "images").iterdir())
    for k in (3, 4, 11):
        pictures[k].write_bytes(pictures[k].read_bytes()[:200])
    dataset, whole = read(tmp_path / "t", on_error="skip"), data.make("tetrominoes", 12)
    for _ in range(2):
        (batch,) = DataLoader(dataset, batch_size=12, num_workers=workers)
        assert same(batch, whole.batch([0, 1, 2, 5, 5, 5, 6, 7, 8, 9, 10, 0]))
        assert dataset.skipped == 3
    if workers == 0:
        assert [record.message.count("000003.png") for record in caplog.records] == [1, 0, 0]
    with pytest.raises(DataError, match=r"000003\.png cannot be read"):
        read(tmp_path / "t")[3]


def test_if_nothing_can_be_read_that_is_said(tmp_path):
    for k in range(5):
        (tmp_path / f"{k}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of the 5 records can be read"):
        ImageFolder(tmp_path, on_error="skip", resolution=8)[2]


def test_what_replaces_a_scene_of_a_part_is_of_that_part(tmp_path):
    export(data.make("tetrominoes", 6), tmp_path / "t", "folder", progress=False)
    (tmp_path / "t" / "images" / "000003.png").write_bytes(b"")
    dataset = read(tmp_path / "t", on_error="skip")
    train, held_out = dataset.part(0, 4), dataset.part(4, 6)
    assert same(train[3], dataset[0])
    assert (train.skipped, held_out.skipped, dataset.skipped) == (1, 0, 1)


def test_options_out_of_range_are_named(tmp_path):
    export(data.make("tetrominoes", 2), tmp_path / "t", "folder", progress=False)
    for options, message in (
        ({"on_error": "ignore"}, "on_error"),
        ({"crop": (0, 5)}, "crop must be"),
        ({"resolution": 0}, "resolution must be"),
    ):
        with pytest.raises(ValueError, match=message):
            read(tmp_path / "t", **options)
    with pytest.raises(DataError, match=r"the crop \[0, 36, 0, 35\] does not lie within its 35×35"):
        read(tmp_path / "t", crop=(0, 36, 0, 35))[0]
    with pytest.raises(IndexError, match=r"\[0, 2\), got 2"):
        read(tmp_path / "t")[2]
    with pytest.raises(TypeError, match="nonsense"):
        read(tmp_path / "t", nonsense=1)


# --- dSprites ---


def write_sprites(path, sizes=(1, 3, 2, 4, 5, 6), side=16, **others) -> np.ndarray:
    """A small file in the published layout: images of noise, so that every mistake shows."""
    classes = np.array(list(itertools.product(*map(range, sizes))))
    images = np.random.default_rng(0).integers(0, 2, (len(classes), side, side), dtype=np.uint8)
    latents = classes / np.maximum(1, np.array(sizes) - 1) + (np.arange(6) == 1)
    arrays = {"imgs": images, "latents_values": latents, "latents_classes": classes, **others}
    np.savez_compressed(path, metadata=np.array(Pickled(), dtype=object), **arrays)
    return images


def test_sprites_stand_where_their_classes_say(tmp_path):
    images = write_sprites(tmp_path / "d.npz").reshape(3, 2, 4, 5, 6, 16, 16)
    sprites = dsprites.load(tmp_path / "d.npz")
    assert sprites is dsprites.load(tmp_path / "d.npz")
    assert sprites.sizes == (3, 2, 4, 5, 6)
    assert sprites.scales.tolist() == [0, 1]
    shape, x = torch.tensor([[0], [2]]), torch.tensor([4, 0, 1])
    np.testing.assert_array_equal(sprites.at(shape, 1, 3, x, 5), images[[[0], [2]], 1, 3, [4, 0, 1], 5])
    with pytest.raises(IndexError, match=r"orientation must lie in \[0, 4\), got 4 to 4"):
        sprites.at(0, 0, 4, 0, 0)


def test_sprites_as_scenes(tmp_path):
    images = write_sprites(tmp_path / "d.npz")
    scene = read(tmp_path / "d.npz")[-1 + 3 * 2 * 4 * 5 * 6]
    np.testing.assert_array_equal(scene["mask"], images[-1])
    np.testing.assert_array_equal(scene["image"], np.stack([images[-1]] * 3))
    assert {name: value.tolist() for name, value in scene["objects"].items()} == {
        "present": [True],
        "shape": [2],
        **{name: [1.0] for name in ("scale", "orientation", "x", "y")},
    }


def test_other_archives_are_no_sprites(tmp_path):
    path = tmp_path / "d.npz"
    path.write_bytes(pickle.dumps(Pickled()))
    with pytest.raises(DataError, match=r"d\.npz is not a dSprites archive"):
        read(path)
    np.savez(path, imgs=np.zeros(3))
    with pytest.raises(DataError, match=r"it has no latents_classes\.npy, latents_values\.npy"):
        read(path)
    write_sprites(path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(DataError, match=r"d\.npz is not a dSprites archive, or a damaged one"):
        read(path)
    write_sprites(path, imgs=np.full((720, 16, 16), 255, dtype=np.uint8))
    with pytest.raises(DataError, match="pixels of 0 and 1, got 255"):
        read(path)
    write_sprites(path, latents_classes=np.zeros((720, 6), dtype=int))
    with pytest.raises(DataError, match="every combination"):
        read(path)
    with pytest.raises(FileNotFoundError, match="no dSprites file"):
        dsprites.load(tmp_path / "none.npz")


# --- HDF5 ---


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


@pytest.mark.parametrize("background", [1, 4])
def test_hdf5_of_object_centric_library(tmp_path, background):
    arrays = write_hdf5(tmp_path / "scenes-full.hdf5", background)
    np.save(tmp_path / "scenes-metadata.npy", np.array(Pickled(), dtype=object), allow_pickle=True)
    scenes = read(tmp_path / "scenes-full.hdf5", background=background)
    batch = scenes.batch(range(6))
    np.testing.assert_array_equal(batch["image"].permute(0, 2, 3, 1), arrays["image"].astype(np.float32) / 255)
    labels = np.maximum(arrays["mask"][..., 0].astype(int) - (background - 1), 0)
    np.testing.assert_array_equal(batch["mask"], labels)
    present = batch["objects"]["present"]
    assert present.sum(1).tolist() == arrays["num_actual_objects"][:, 0].tolist()
    np.testing.assert_array_equal(batch["objects"]["colour"][present], arrays["color"][:, background:][present])
    assert batch["objects"]["shape"].shape == (6, 4)
    assert not batch["objects"]["colour"][~present].any()
    few = Hdf5(tmp_path / "scenes-full.hdf5", background, max_objects=2)
    assert len(few) == (arrays["num_actual_objects"] <= 2).sum()


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"image": None}, "has no dataset 'image'; it has: color, mask"),
        (
            {"image": np.zeros((6, 8, 10), dtype=np.uint8)},
            r"expected image uint8 \[scenes, height, width, 3\], got uint8",
        ),
        ({"mask": np.zeros((6, 8, 9, 1), dtype=np.uint8)}, "expected a mask for every pixel"),
        ({"visibility": None, "num_actual_objects": None}, "neither 'visibility' nor"),
    ],
)
def test_hdf5_without_what_is_expected(tmp_path, others, message):
    write_hdf5(tmp_path / "s.hdf5", **others)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "s.hdf5")


def test_damaged_hdf5(tmp_path):
    path = tmp_path / "s.hdf5"
    write_hdf5(path, mask=np.full((6, 8, 10, 1), 9, dtype=np.uint8))
    with pytest.raises(DataError, match=r"s\.hdf5, record 2: expected mask labels of at most \d, the objects, got 9"):
        read(path)[2]
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"s\.hdf5 is not an HDF5 file, or is truncated"):
        read(path)


# --- folders of images ---


def picture(path, pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)


def test_a_folder_of_images_in_order_of_their_names(tmp_path):
    for k, name in enumerate(["b.png", "a.png", "c.bmp"]):
        picture(tmp_path / name, np.full((4, 6, 3), k))
    (tmp_path / "notes.txt").touch()
    images = read(tmp_path).batch(range(3))
    assert (images["image"][:, 0, 0, 0] * 255).tolist() == [1, 0, 2]
    assert "mask" not in images
    assert not images["objects"]["present"].any()


def test_images_of_several_sizes_need_a_resolution(tmp_path):
    picture(tmp_path / "a.png", np.zeros((4, 6, 3)))
    picture(tmp_path / "b.png", np.zeros((5, 5)))
    with pytest.raises(DataError, match=r"b\.png is 5×5 pixels, the first image 4×6; give a resolution"):
        read(tmp_path)[1]
    assert read(tmp_path, resolution=3).batch([0, 1])["image"].shape == (2, 3, 3, 3)


@pytest.mark.parametrize("coloured", [True, False])
def test_labels_are_numbered_from_one(tmp_path, coloured):
    labels = np.array([[0, 9, 9], [4, 0, 200]])
    colours = np.zeros((256, 3))
    colours[[4, 9, 200]] = [(0, 0, 255), (0, 255, 0), (255, 0, 0)]
    picture(tmp_path / "images" / "a.png", np.zeros((2, 3, 3)))
    picture(tmp_path / "masks" / "a.png", colours[labels] if coloured else labels)
    for path in (tmp_path, tmp_path / "images"):  # masks inside, or beside
        scene = read(path)[0]
        assert scene["mask"].tolist() == [[0, 2, 2], [1, 0, 3]]
        assert scene["objects"]["present"].sum() == 3


def test_masks_that_do_not_fit(tmp_path):
    picture(tmp_path / "a.png", np.zeros((4, 6, 3)))
    (tmp_path / "masks").mkdir()
    with pytest.raises(FileNotFoundError, match=r"a\.png has no mask"):
        read(tmp_path)[0]
    picture(tmp_path / "masks" / "a.png", np.zeros((4, 5)))
    with pytest.raises(DataError, match=r"a\.png: the image is 4×6 pixels, its mask 4×5"):
        read(tmp_path)[0]
    picture(tmp_path / "masks" / "a.png", np.arange(24).reshape(4, 6))
    with pytest.raises(DataError, match="23 objects, more than max_objects=9"):
        read(tmp_path, max_objects=9)[0]


def test_a_folder_without_images(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no images"):
        read(tmp_path)


# --- CLEVR ---


@pytest.fixture(scope="module")
def sample(root):
    path = root.parent / "shared" / "data" / "clevr_sample"
    if not path.is_dir():
        pytest.skip(f"the CLEVR sample is not at {path}")
    return path


@pytest.fixture(scope="module")
def scenes(sample):
    return json.loads((sample / "scenes" / "CLEVR_sample_scenes.json").read_text())["scenes"]


@pytest.fixture
def copy(sample, tmp_path):
    """A copy of the sample to damage, and a function that edits its scenes."""
    shutil.copytree(sample, tmp_path / "clevr")
    file = tmp_path / "clevr" / "scenes" / "CLEVR_sample_scenes.json"

    def edit(change):
        content = json.loads(file.read_text())
        change(content["scenes"])
        file.write_text(json.dumps(content))

    return tmp_path / "clevr", edit


def test_the_sample_is_read(sample, scenes):
    dataset = read(sample)
    assert isinstance(dataset, ClevrFolder)
    assert len(dataset) == 16
    batch = dataset.batch(range(16))
    assert batch["image"].shape == (16, 3, 240, 320)
    assert batch["objects"]["present"].sum(1).tolist() == [len(scene["objects"]) for scene in scenes]
    behind = torch.tensor([scene["directions"]["behind"][:2] for scene in scenes])
    assert torch.equal(batch["behind"], behind)
    torch.testing.assert_close(behind.norm(dim=1), torch.ones(16))


def test_centres_lie_in_their_masks(sample):
    own = []
    for scene in read(sample).__getitems__(range(16)):
        for k in range(int(scene["objects"]["present"].sum())):
            column, row, _ = scene["objects"]["pixel"][k].long().tolist()
            label = int(scene["mask"][row, column])
            assert label > 0
            own.append(label == k + 1)
    assert np.mean(own) > 0.95  # a centre may be hidden behind another object


def test_clevr6_keeps_scenes_of_at_most_six(sample, scenes):
    six = ClevrFolder(sample, max_objects=6)
    counts = [len(scene["objects"]) for scene in scenes]
    assert len(six) == sum(count <= 6 for count in counts) == 12
    assert six.batch(range(12))["objects"]["present"].sum(1).tolist() == [c for c in counts if c <= 6]
    assert six[0]["objects"]["present"].shape == (6,)


def test_targets_are_the_nineteen_values(sample, scenes):
    # By hand from the JSON, in the order of the official code's labels.
    words = ["small", "large", "rubber", "metal", "cube", "sphere", "cylinder"]
    words += ["gray", "blue", "brown", "yellow", "red", "green", "purple", "cyan"]
    targets = clevr_targets(read(sample).batch(range(16))["objects"])
    expected = np.zeros((16, 10, 19))
    for i, scene in enumerate(scenes):
        for k, thing in enumerate(scene["objects"]):
            names = {thing["size"], thing["material"], thing["shape"], thing["color"]}
            expected[i, k] = [*((c + 3) / 6 for c in thing["3d_coords"]), *(word in names for word in words), 1]
    np.testing.assert_allclose(targets, expected, atol=1e-6)
    assert targets.dtype == torch.float32


def test_crop_and_resize_are_the_official_ones(sample):
    whole, small = read(sample), read(sample, crop=CROP, resolution=128)
    top, bottom, left, right = CROP
    image, mask = whole[3]["image"][:, top:bottom, left:right], whole[3]["mask"][top:bottom, left:right]
    resized = functional.interpolate(image[None], (128, 128), mode="bilinear", align_corners=False)[0].clamp(0, 1)
    assert torch.equal(small[3]["image"], resized)
    # Half-pixel centres without anti-aliasing, by hand: output i looks at input 1.5 (i + ½) − ½.
    at = np.clip(1.5 * (np.arange(128) + 0.5) - 0.5, 0, 191)
    low, share = at.astype(int), at - at.astype(int)
    high = np.minimum(low + 1, 191)
    rows = image.numpy()[:, low] * (1 - share)[:, None] + image.numpy()[:, high] * share[:, None]
    np.testing.assert_allclose(small[3]["image"], rows[..., low] * (1 - share) + rows[..., high] * share, atol=1e-5)
    nearest = (1.5 * (np.arange(128) + 0.5)).astype(int)
    np.testing.assert_array_equal(small[3]["mask"], mask.numpy()[nearest][:, nearest])


def test_pixel_coordinates_follow_crop_and_resize(sample):
    seen = []
    for scene in read(sample, crop=CROP, resolution=128).__getitems__(range(16)):
        for k in range(int(scene["objects"]["present"].sum())):
            column, row, _ = scene["objects"]["pixel"][k].tolist()
            if 0 <= column < 128 and 0 <= row < 128:
                seen.append(int(scene["mask"][int(row), int(column)]) == k + 1)
        assert not scene["objects"]["pixel"][~scene["objects"]["present"]].any()
    assert len(seen) > 60
    assert np.mean(seen) > 0.95


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda scenes: scenes.pop(), r"CLEVR_sample_000015\.png \(1 in all\) is in no scene"),
        (lambda scenes: scenes[4].update(image_filename="other.png"), r"scene 4: there is no .*other\.png"),
        (lambda scenes: scenes[2]["objects"][1].update(color="pink"), "scene 2: expected a colour of gray.*got 'pink'"),
        (lambda scenes: scenes[2]["objects"][1].pop("3d_coords"), "scene 2: not a list of CLEVR objects"),
        (lambda scenes: scenes[2].pop("objects"), "scene 2: expected 'objects', a list"),
        (lambda scenes: scenes.append(3), "not a CLEVR scenes file"),
    ],
)
def test_scenes_that_do_not_match_are_named(copy, change, message):
    path, edit = copy
    edit(change)
    with pytest.raises((DataError, FileNotFoundError), match=message):
        read(path)


def test_a_missing_image_is_skipped_if_wanted(copy):
    path, edit = copy
    (path / "images" / "sample" / "CLEVR_sample_000004.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"scene 4: there is no .*000004\.png"):
        read(path)
    dataset = read(path, on_error="skip")
    assert same(dataset[4], dataset[5])
    assert dataset.skipped == 1
    edit(lambda scenes: scenes.pop())
    assert len(read(path, on_error="skip")) == 15


def test_damaged_clevr_pictures_are_named(copy):
    path, _ = copy
    images, masks = path / "images" / "sample", path / "masks" / "sample"
    broken = images / "CLEVR_sample_000001.png"
    broken.write_bytes(broken.read_bytes()[:5000])
    picture(masks / "CLEVR_sample_000002.png", np.zeros((240, 319)))
    picture(masks / "CLEVR_sample_000003.png", np.full((240, 320), 6))
    (masks / "CLEVR_sample_000004.png").unlink()
    dataset = read(path)
    for i, message in (
        (1, r"000001\.png cannot be read"),
        (2, r"000002\.png: the image is 240×320 pixels, its mask 240×319"),
        (3, r"000003\.png: expected mask labels of at most 5, the objects, got 6"),
        (4, r"masks/sample/CLEVR_sample_000004\.png does not exist"),
    ):
        with pytest.raises((DataError, FileNotFoundError), match=message):
            dataset[i]


def test_missing_parts_of_a_clevr_folder_are_named(copy):
    path, _ = copy
    with pytest.raises(FileNotFoundError, match=r"no scenes file at .*CLEVR_val_scenes\.json|no image folder at .*val"):
        read(path, split="val")
    shutil.rmtree(path / "masks")
    assert "mask" not in read(path)[0]
    file = path / "scenes" / "CLEVR_sample_scenes.json"
    file.write_text(file.read_text()[:1000])
    with pytest.raises(DataError, match="not a CLEVR scenes file"):
        read(path)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="holds the splits none"):
        read(path)


def test_categories_are_in_the_official_order():
    assert CATEGORIES["size"] == ("small", "large")
    assert CATEGORIES["material"] == ("rubber", "metal")
    assert CATEGORIES["shape"] == ("cube", "sphere", "cylinder")
    assert CATEGORIES["colour"] == ("gray", "blue", "brown", "yellow", "red", "green", "purple", "cyan")
