"""The Multi-Object Datasets: the published schemas, and everything that can be wrong with such files."""

import logging

import numpy as np
import pytest
import torch
from written import LAYOUT, published, same, serialised, write_hdf5, write_records

from slotlib.data import read, records
from slotlib.data.files import DataError
from slotlib.data.records import Records
from slotlib.data.targets import clevr_targets


@pytest.fixture
def tetrominoes(tmp_path):
    """Ten published tetromino scenes: the file, the serialised records."""
    contents = [serialised(published("tetrominoes", seed)[0]) for seed in range(10)]
    write_records(tmp_path / "t.tfrecords", contents)
    return tmp_path / "t.tfrecords", contents


@pytest.mark.parametrize("schema", LAYOUT)
def test_published_schemas_are_recognised_and_read(tmp_path, schema):
    scenes = [published(schema, seed) for seed in range(2)]
    write_records(tmp_path / "scenes.tfrecords", [serialised(features) for features, _ in scenes])
    dataset = read(tmp_path / "scenes.tfrecords")
    entities = LAYOUT[schema][0]
    background = 4 if schema == "objects_room" else 1
    assert isinstance(dataset, Records)
    for item, (features, labels) in zip([dataset[i] for i in range(2)], scenes, strict=True):
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


def test_binarised_images_of_one_channel_become_three(tmp_path):
    features, _ = published("multi_dsprites", 0, channels=1)
    write_records(tmp_path / "grey.tfrecords", [serialised(features)])
    image = read(tmp_path / "grey.tfrecords")[0]["image"]
    assert torch.equal(image, torch.from_numpy(features["image"][..., 0] / np.float32(255)).expand(3, -1, -1))


def test_objects_that_are_not_there_come_last(tmp_path):
    features, labels = published("objects_room", 0)
    features["mask"] = features["mask"].copy()
    features["mask"][4] = 0  # the first object hides
    write_records(tmp_path / "room.tfrecords", [serialised(features)])
    item = read(tmp_path / "room.tfrecords")[0]
    count = int(item["objects"]["present"].sum())
    assert item["objects"]["present"].tolist() == [True] * count + [False] * (3 - count)
    assert set(item["mask"].unique().tolist()) == set(range(count + 1))
    np.testing.assert_array_equal(item["mask"] == 1, labels == 5)


def test_objects_with_pixels_are_there_whatever_visibility_says(tmp_path):
    """Readers of the published Tetrominoes, where all pieces are seen, overrule the visibility in the file."""
    features, labels = published("tetrominoes", 0)
    features["visibility"] = np.zeros_like(features["visibility"])
    write_records(tmp_path / "t.tfrecords", [serialised(features)])
    item = read(tmp_path / "t.tfrecords")[0]
    assert item["objects"]["present"].all()
    np.testing.assert_array_equal(item["mask"], labels)
    arrays = write_hdf5(tmp_path / "t.hdf5", visibility=np.zeros((6, 5, 1), np.float32))
    scenes = read(tmp_path / "t.hdf5").batch(range(6))
    assert scenes["objects"]["present"].all()
    np.testing.assert_array_equal(scenes["mask"], arrays["mask"][..., 0])


def test_background_can_be_chosen(tmp_path):
    features, labels = published("objects_room", 1)
    write_records(tmp_path / "room.tfrecords", [serialised(features)])
    np.testing.assert_array_equal(read(tmp_path / "room.tfrecords", background=1)[0]["mask"], labels)
    with pytest.raises(DataError, match="no visibility"):
        read(tmp_path / "room.tfrecords", max_objects=2)


def test_scenes_of_many_objects_can_be_left_out(tmp_path):
    scenes = [published("multi_dsprites", seed)[0] for seed in range(12)]
    write_records(tmp_path / "m.tfrecords", [serialised(features) for features in scenes])
    counts = [int(features["visibility"][1:].sum()) for features in scenes]
    few = read(tmp_path / "m.tfrecords", max_objects=2)
    assert len(few) == sum(count <= 2 for count in counts) > 0
    assert few.batch(range(len(few)))["objects"]["present"].sum(1).tolist() == [c for c in counts if c <= 2]


@pytest.mark.parametrize("zipped", [True, False])
def test_any_record_is_read_in_any_order(tetrominoes, zipped):
    path, contents = tetrominoes
    write_records(path, contents, zipped)
    dataset = Records(path)
    assert len(dataset) == 10
    for i in (7, 2, 9, 0):
        features, labels = published("tetrominoes", i)
        np.testing.assert_array_equal(dataset[i]["image"].permute(1, 2, 0), features["image"] / np.float32(255))
        np.testing.assert_array_equal(dataset[i]["mask"], labels)


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
        skipping = Records(path, on_error="skip")
        assert same(skipping[3], dataset[4])
        assert skipping.skipped == 1
    path.write_bytes(damaged(whole, 5 * size + 2))  # in a length: nothing beyond can be found
    with pytest.raises(DataError, match="record 5: the checksum of its length"):
        Records(path)


@pytest.mark.parametrize("missing", [4, 8, 3000])
def test_a_truncated_file_ends_with_its_last_whole_record(tetrominoes, missing, caplog):
    path, _ = tetrominoes
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(DataError, match=r"t\.tfrecords.*record.*(truncated|Compressed file ended)"):
        Records(path)
    dataset = Records(path, on_error="skip")
    assert len(dataset) == (10 if missing < 10 else 9)


def test_damaged_gzip_is_said(tetrominoes):
    path, _ = tetrominoes
    path.write_bytes(damaged(path.read_bytes(), path.stat().st_size // 2))
    with pytest.raises(DataError, match=r"t\.tfrecords, (after )?record"):
        dataset = Records(path)
        for i in range(len(dataset)):
            dataset[i]


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
def test_records_of_another_schema_say_what_they_have(tmp_path, change, message):
    features, _ = published("tetrominoes", 0)
    change(features)
    write_records(tmp_path / "t.tfrecords", [serialised(features)])
    with pytest.raises(DataError, match=message):
        Records(tmp_path / "t.tfrecords")


def test_a_named_schema_is_insisted_on(tetrominoes):
    with pytest.raises(DataError, match="expected the features of multi_dsprites"):
        Records(tetrominoes[0], schema="multi_dsprites")
    with pytest.raises(ValueError, match=r"schema must be one of .*'objects_room'.*, got 'dsprites'"):
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
    with pytest.raises(ImportError, match=r"indexed_gzip: pip install google-crc32c h5py indexed-gzip"):
        Records(tetrominoes[0])
