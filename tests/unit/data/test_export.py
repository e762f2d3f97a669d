"""What is exported comes back exactly, and others can read it."""

import json

import h5py
import numpy as np
import pytest
import torch
from written import same

from slotlib import data
from slotlib.data import multi_dsprites, read
from slotlib.data.clevr_folder import ClevrFolder
from slotlib.data.export import FORMATS, export
from slotlib.data.folder import ImageFolder
from slotlib.data.hdf5 import Hdf5
from slotlib.data.records import Records
from slotlib.data.scenes import Source, each

ENDINGS = {"tfrecord": ".tfrecords", "hdf5": "-full.hdf5", "folder": ""}
SMALL = {"clevr": {"resolution": 32, "num_objects": 3}}
CASES = [(name, SMALL.get(name, {})) for name in data.GENERATORS]
CASES += [("multi_dsprites", {"variant": variant}) for variant in multi_dsprites.VARIANTS]
CASES += [("tetrominoes", {"num_objects": (1, 4)}), ("shapes", {"resolution": 48})]


class Batch(Source):
    """A batch that is there already, as a source."""

    name = "Batch"

    def __init__(self, content):
        self.content = content

    def __len__(self):
        return len(self.content["image"])

    def batch(self, index, device="cpu"):
        return each(self.content, lambda value: value[torch.as_tensor(index)])


def clevr_like(count=70, most=10, size=(24, 32)) -> Batch:
    """CLEVR's tensors, filled at random: what comes back is told by the numbers, not by the pictures."""
    g = torch.Generator().manual_seed(0)
    present = torch.arange(most) < torch.randint(3, most + 1, (count, 1), generator=g)
    numbers = {"position": (3,), "rotation": (), "pixel": (3,)}
    classes = {"shape": 3, "size": 2, "material": 2, "colour": 8}
    objects = {"present": present}
    objects |= {name: torch.randint(0, n, present.shape, generator=g) * present for name, n in classes.items()}
    for name, tail in numbers.items():
        objects[name] = (torch.rand(*present.shape, *tail, generator=g) * 6 - 3) * present.view(
            count, most, *[1] * len(tail)
        )
    angle = torch.rand(count, generator=g) * 6
    return Batch(
        {
            "image": torch.randint(0, 256, (count, 3, *size), generator=g, dtype=torch.uint8) / 255,
            "mask": (torch.rand(count, *size, generator=g) * (1 + present.sum(1).view(-1, 1, 1))).byte(),
            "objects": objects,
            "behind": torch.stack([angle.cos(), angle.sin()], dim=1),
        }
    )


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_generated_scenes_come_back_exactly(tmp_path, name, options, format):
    scenes = data.make(name, 5 if name == "clevr" else 67, seed=3, **options)
    path = export(scenes, tmp_path / f"scenes{ENDINGS[format]}", format)
    back = read(path)
    assert len(back) == len(scenes)
    assert same(back.batch(range(len(back))), scenes.batch(range(len(scenes))))


@pytest.mark.parametrize("format", FORMATS)
def test_clevr_comes_back_exactly(tmp_path, format):
    scenes = clevr_like()
    back = read(export(scenes, tmp_path / f"scenes{ENDINGS[format]}", format))
    assert isinstance(back, {"tfrecord": Records, "hdf5": Hdf5, "folder": ClevrFolder}[format])
    assert same(back.batch(range(70)), scenes.content)


def test_files_can_be_exported_to_another_format(tmp_path):
    scenes = data.make("multi_dsprites", 20)
    path = tmp_path / "a.tfrecords"
    export(scenes, path)
    for format, name in (("hdf5", "b.hdf5"), ("folder", "c"), ("tfrecord", "d.tfrecords")):
        path = export(read(path), tmp_path / name, format)
    assert same(read(path).batch(range(20)), scenes.batch(range(20)))


def test_images_without_masks_go_to_folders_only(tmp_path):
    content = data.make("tetrominoes", 3).batch(range(3))
    del content["mask"]
    back = read(export(Batch(content), tmp_path / "folder", "folder"))
    assert isinstance(back, ImageFolder)
    assert same(back.batch(range(3)), content)
    for format in ("tfrecord", "hdf5"):
        with pytest.raises(ValueError, match=f"these scenes have no masks, which {format} needs"):
            export(Batch(content), tmp_path / "file", format)


# --- what others read ---


def test_tetrominoes_have_the_published_schema(tmp_path):
    scenes = data.make("tetrominoes", 8)
    path = export(scenes, tmp_path / "t.tfrecords")
    ours, theirs = scenes.batch(range(8)), read(path, schema="tetrominoes").batch(range(8))
    assert torch.equal(theirs["image"], ours["image"])
    assert torch.equal(theirs["mask"], ours["mask"])
    assert torch.equal(theirs["objects"]["x"], ours["objects"]["x"].float())
    paint = torch.tensor([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1)]).float()
    assert torch.equal(theirs["objects"]["colour"], paint[ours["objects"]["colour"]])


@pytest.mark.parametrize("variant", multi_dsprites.VARIANTS)
def test_multi_dsprites_have_the_published_schema(tmp_path, variant):
    scenes = data.make("multi_dsprites", 8, variant=variant)
    path = export(scenes, tmp_path / "m.tfrecords")
    ours, theirs = scenes.batch(range(8)), read(path, schema="multi_dsprites").batch(range(8))
    assert torch.equal(theirs["image"], ours["image"])
    assert torch.equal(theirs["mask"], ours["mask"])
    present = ours["objects"]["present"]
    assert torch.equal(theirs["objects"]["shape"], (ours["objects"]["shape"] + 1) * present)
    assert torch.equal(theirs["objects"]["y"], ours["objects"]["y"] / 64)
    assert theirs["objects"]["colour"].shape[-1] == (1 if variant in ("binarised", "greyscale") else 3)
    published = {"binarised": 4, "colour_on_grey": 6, "colour_on_colour": 5}  # entities, as in the public reader
    if variant in published:
        assert present.shape[1] == published[variant] - 1


def test_clevr_has_the_published_schema(tmp_path):
    scenes = clevr_like(4, size=(240, 320))
    path = export(scenes, tmp_path / "c.tfrecords")
    theirs = read(path, schema="clevr_with_masks").batch(range(4))
    for name, value in scenes.content["objects"].items():
        assert torch.equal(theirs["objects"][name], value), name
    assert theirs["objects"]["present"].shape == (4, 10)
    assert torch.equal(theirs["mask"], scenes.content["mask"])


def test_hdf5_has_what_object_centric_library_asks_for(tmp_path):
    scenes = data.make("multi_dsprites", 70)
    export(scenes, tmp_path / "multidsprites_colored_on_grayscale-full.hdf5", "hdf5")
    metadata = np.load(tmp_path / "multidsprites_colored_on_grayscale-metadata.npy", allow_pickle=True).item()
    objects = scenes.batch(range(70))["objects"]
    present = objects["present"]
    assert metadata["self.dataset"] == {"type": "dataset_property", "num_samples": 70}
    with h5py.File(tmp_path / "multidsprites_colored_on_grayscale-full.hdf5") as file:
        assert file["image"].shape == (70, 64, 64, 3)
        assert file["mask"].shape == (70, 64, 64, 1)
        assert file["mask"].dtype == file["image"].dtype == np.uint8
        assert file["num_actual_objects"][:, 0].tolist() == present.sum(1).tolist()
        assert file["visibility"].shape == (70, 6, 1)
        assert (file["visibility"][:, 0] == 1).all()
        for name, entry in metadata.items():
            if entry["type"] == "numerical":
                values = file[name][:, 1:][present.numpy()]
                np.testing.assert_allclose(entry["mean"], values.mean(0), rtol=1e-5)
                np.testing.assert_allclose(entry["var"], values.var(0), rtol=1e-4)
                assert entry["shape"] == file[name].shape
            elif entry["type"] == "categorical":
                assert file[name][:].max() < entry["num_categories"]
                assert file[name].shape == (70, 6, 1)
        np.testing.assert_array_equal(file["color"][:, 1:], objects["colour"])
    assert metadata["color"]["type"] == "numerical"
    assert metadata["shape"] == {"type": "categorical", "num_categories": 4}


def test_a_clevr_folder_holds_names_directions_and_relationships(tmp_path):
    scenes = clevr_like(5)
    export(scenes, tmp_path / "clevr", "folder")
    content = json.loads((tmp_path / "clevr" / "scenes" / "CLEVR_train_scenes.json").read_text())
    assert content["info"]["slotlib"]["dataset"] == "Batch"
    for i, scene in enumerate(content["scenes"]):
        assert (tmp_path / "clevr" / "images" / "train" / scene["image_filename"]).is_file()
        directions, things = scene["directions"], scene["objects"]
        assert things[0]["color"] in ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow")
        np.testing.assert_allclose(np.cross(directions["behind"], [0, 0, 1]), directions["right"], atol=1e-7)
        np.testing.assert_array_equal(np.negative(directions["left"]), directions["right"])
        for name in ("left", "right", "front", "behind"):
            # As in the original generator: more than 0.2 further in that direction.
            for a, related in enumerate(scene["relationships"][name]):
                gaps = [np.dot(np.subtract(b["3d_coords"], things[a]["3d_coords"]), directions[name]) for b in things]
                assert related == [b for b, gap in enumerate(gaps) if gap > 0.2 and b != a]
        assert len(things) == scenes.content["objects"]["present"][i].sum()


# --- whole or not at all ---


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_an_interrupted_export_leaves_nothing(tmp_path, format, stop):
    class Interrupted(Batch):
        def batch(self, index, device="cpu"):
            if index.start:
                raise stop("enough")
            return super().batch(index)

    with pytest.raises(stop):
        export(Interrupted(clevr_like().content), tmp_path / "out.file", format)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_is_written_over(tmp_path, format):
    (tmp_path / "there").write_text("mine")
    with pytest.raises(FileExistsError, match="there already exists; remove it or choose another path"):
        export(data.make("tetrominoes", 2), tmp_path / "there", format)
    assert (tmp_path / "there").read_text() == "mine"


def test_unknown_formats_and_places_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"format must be one of \('tfrecord', 'hdf5', 'folder'\), got 'csv'"):
        export(data.make("tetrominoes", 2), tmp_path / "x", "csv")
    with pytest.raises(OSError, match="cannot write to the output folder"):
        export(data.make("tetrominoes", 2), "/proc/none/x")


def test_the_same_scenes_make_the_same_file(tmp_path):
    for name in ("a", "b"):
        export(data.make("tetrominoes", 5), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
