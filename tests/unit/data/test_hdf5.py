"""The HDF5 files of object-centric-library."""

import numpy as np
import pytest
from written import Pickled, write_hdf5

from slotlib.data import read
from slotlib.data.files import DataError
from slotlib.data.hdf5 import Hdf5


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
