"""The dSprites file."""

import pickle

import numpy as np
import pytest
import torch
from written import Pickled, write_sprites

from slotlib.data import dsprites, read
from slotlib.data.files import DataError


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
