"""What all readers share: workers, unreadable records, parts, options."""

import pickle

import pytest
from torch.utils.data import DataLoader
from written import published, same, serialised, write_records, write_sprites

from slotlib.data import make, read
from slotlib.data.export import export
from slotlib.data.files import DataError
from slotlib.data.folder import ImageFolder


def kinds(tmp_path) -> list:
    """A dataset of every format, a few scenes each."""
    scenes = make("tetrominoes", 9)
    places = [tmp_path / name for name in ("t.tfrecords", "t.hdf5", "t")]
    for place, format in zip(places, ("tfrecord", "hdf5", "folder"), strict=True):
        export(scenes, place, format)
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


@pytest.mark.parametrize("workers", [0, 4])
def test_skipped_scenes_are_replaced_and_counted_once(tmp_path, workers, caplog):
    export(make("tetrominoes", 12), tmp_path / "t", "folder")
    pictures = sorted((tmp_path / "t" / "images").iterdir())
    for k in (3, 4, 11):
        pictures[k].write_bytes(pictures[k].read_bytes()[:200])
    dataset, whole = read(tmp_path / "t", on_error="skip"), make("tetrominoes", 12)
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
    export(make("tetrominoes", 6), tmp_path / "t", "folder")
    (tmp_path / "t" / "images" / "000003.png").write_bytes(b"")
    dataset = read(tmp_path / "t", on_error="skip")
    train, held_out = dataset.part(0, 4), dataset.part(4, 6)
    assert same(train[3], dataset[0])
    assert (train.skipped, held_out.skipped, dataset.skipped) == (1, 0, 1)


def test_options_out_of_range_are_named(tmp_path):
    export(make("tetrominoes", 2), tmp_path / "t", "folder")
    for options, message in (
        ({"on_error": "ignore"}, "on_error"),
        ({"crop": (0, 5)}, "crop must be"),
        ({"crop": (0, 5, 0, 2.5)}, "each edge of crop must be a whole number, at least 0, got 2.5"),
        ({"crop": 5}, "crop must be .top, bottom, left, right., got 5"),
        ({"resolution": 0}, "resolution must be a whole number, at least 1, got 0"),
        ({"resolution": 1.5}, "resolution must be a whole number, at least 1, got 1.5"),
        ({"resolution": "64"}, "resolution must be a whole number, at least 1, got '64'"),
        ({"resolution": (64, 64, 3)}, "resolution must be one or two numbers"),
        ({"resolution": 10**6}, "resolution: 1000000×1000000×3 values declared"),
        ({"max_objects": 0}, "max_objects must be a whole number, at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            read(tmp_path / "t", **options)
    with pytest.raises(DataError, match=r"the crop \[0, 36, 0, 35\] does not lie within its 35×35"):
        read(tmp_path / "t", crop=(0, 36, 0, 35))[0]
    with pytest.raises(IndexError, match=r"\[0, 2\), got 2"):
        read(tmp_path / "t")[2]
    known = "max_objects, crop, resolution, on_error"
    with pytest.raises(TypeError, match=f"ImageFolder has no option 'nonsense'; it has: {known}"):
        read(tmp_path / "t", nonsense=1)


def test_no_scenes_make_an_empty_batch(tmp_path):
    for dataset in kinds(tmp_path):
        empty, one = dataset.batch([]), dataset.batch([0])
        assert empty.keys() == one.keys()
        assert empty["image"].shape == (0, *one["image"].shape[1:])
        assert empty["objects"]["present"].shape == (0, *one["objects"]["present"].shape[1:])


def test_what_is_no_scene_number_is_one_clear_error(tmp_path):
    for dataset in kinds(tmp_path):
        for index in ([1.9], [float("nan")], [True, False], ["1"]):
            with pytest.raises(TypeError, match=r"scene numbers must be integers in \[0, 9\)"):
                dataset.batch(index)
        for i in (1.9, True, None, slice(2)):
            with pytest.raises(TypeError, match=r"scene numbers must be integers in \[0, 9\)"):
                dataset[i]


def test_the_first_picture_may_be_the_damaged_one(tmp_path):
    export(make("tetrominoes", 4), tmp_path / "t", "folder")
    images = tmp_path / "t" / "images"
    for content in (b"", b"no picture", (images / "000000.png").read_bytes()[:200]):
        (images / "000000.png").write_bytes(content)
        dataset = read(tmp_path / "t", on_error="skip")
        assert same(dataset[0], dataset[1])
        assert dataset.skipped == 1
        with pytest.raises(DataError, match=r"000000\.png cannot be read"):
            read(tmp_path / "t")[0]


def test_scenes_of_several_shapes_are_one_clear_error(tmp_path):
    room, _ = published("objects_room", 0)
    small = {"image": room["image"][:32, :32], "mask": room["mask"][:, :32, :32]}
    write_records(tmp_path / "r.tfrecords", [serialised(room), serialised(small)])
    with pytest.raises(DataError, match="record 1 is 32×32 pixels, the first image 64×64; give a resolution"):
        read(tmp_path / "r.tfrecords").batch([0, 1])
    assert len(read(tmp_path / "r.tfrecords", resolution=16).batch([0, 1])["image"]) == 2
    few = {"image": room["image"], "mask": room["mask"][:5]}
    write_records(tmp_path / "f.tfrecords", [serialised(room), serialised(few)])
    with pytest.raises(DataError, match=r"f\.tfrecords: these scenes do not make one batch"):
        read(tmp_path / "f.tfrecords").batch([0, 1])
