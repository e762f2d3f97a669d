"""Folders of images, with and without masks."""

import numpy as np
import pytest
from written import picture

from slotlib.data import read
from slotlib.data.files import DataError


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
