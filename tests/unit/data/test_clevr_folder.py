"""CLEVR v1.0 folders: read as the official code does, and everything that can be wrong with one."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch.nn import functional
from written import picture, same

from slotlib.data import read
from slotlib.data.clevr import CROP
from slotlib.data.clevr_folder import ClevrFolder
from slotlib.data.files import DataError


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


def test_the_sample_is_read(sample, listed):
    dataset = read(sample)
    assert isinstance(dataset, ClevrFolder)
    assert len(dataset) == 16
    batch = dataset.batch(range(16))
    assert batch["image"].shape == (16, 3, 240, 320)
    assert batch["objects"]["present"].sum(1).tolist() == [len(scene["objects"]) for scene in listed]
    behind = torch.tensor([scene["directions"]["behind"][:2] for scene in listed])
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


def test_clevr6_keeps_scenes_of_at_most_six(sample, listed):
    six = ClevrFolder(sample, max_objects=6)
    counts = [len(scene["objects"]) for scene in listed]
    assert len(six) == sum(count <= 6 for count in counts) == 12
    assert six.batch(range(12))["objects"]["present"].sum(1).tolist() == [c for c in counts if c <= 6]
    assert six[0]["objects"]["present"].shape == (6,)


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
        (lambda scenes: scenes[2]["objects"][1].pop("3d_coords"), "scene 2 is not one of CLEVR"),
        (lambda scenes: scenes[2].pop("objects"), "scene 2: expected 'objects', a list"),
        (lambda scenes: scenes.append(3), "not a CLEVR scenes file"),
        (lambda scenes: scenes[2].update(directions=[1]), "scene 2 is not one of CLEVR .AttributeError"),
        (lambda scenes: scenes[2]["directions"].update(behind=[0, "a", 0]), "scene 2 is not one of CLEVR .TypeError"),
        (lambda scenes: scenes[2]["directions"].update(behind=[0]), "scene 2 is not one of CLEVR .*expected 2 numbers"),
        (lambda scenes: scenes[2]["objects"][1].update(rotation=float("inf")), "scene 2 .*expected finite numbers"),
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
    (path / "images" / "sample" / "._CLEVR_sample_000001.png").write_bytes(b"what macOS leaves")
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
