"""How like the originals the generated scenes are, where the originals are at hand."""

import numpy as np
import pytest
from PIL import Image

from benchmarks import likeness
from slotlib.data import multi_dsprites


@pytest.fixture(scope="module")
def published(root):
    folder = root.parent / "shared" / "data" / "published"
    if not folder.is_dir():
        pytest.skip(f"needs the published pictures in {folder}")
    return folder


@pytest.fixture(scope="module")
def rendered(root):
    folder = root.parent / "shared" / "data" / "clevr_sample"
    if not folder.is_dir():
        pytest.skip(f"needs rendered scenes in {folder}")
    return likeness.ClevrFolder(folder)


def test_the_published_pieces_are_redrawn_by_our_blocks(published):
    image, mask = (np.asarray(Image.open(published / f"tetrominoes_scene{end}.png")) for end in ("", "_mask"))
    apart = {}
    for look in likeness.BEVELS:
        drawn, labels = likeness.redraw_pieces(image, mask, look)
        np.testing.assert_array_equal(labels, mask)
        apart[look] = abs(drawn - image)[mask > 0].mean()
    # The picture itself was recovered to within some levels.
    assert apart["published"] < 8 < 30 < apart["first"]


def test_the_frames_of_dsprites_are_drawn_again(published):
    real = likeness.frames(published)
    overlap = likeness.overlaps(likeness.sprites("published"), real)
    assert len(overlap) == len(likeness.poses()) == 320
    assert np.median(overlap) >= 0.97
    assert overlap.min() >= 0.93
    # Pixels at scale 1 and at ½.
    for shape, counts in zip(multi_dsprites.SHAPES, ((400, 100), (288, 76), (222, 58)), strict=True):
        k = multi_dsprites.SHAPES.index(shape)
        for scale, count in zip((1.0, 0.5), counts, strict=True):
            i = likeness.poses().index(likeness.Pose(k, scale, 0, 0, 0))
            assert real[i].sum() == likeness.sprites("published")[i].sum() == count


def test_blender_scenes_drawn_again_look_alike(rendered):
    """Scenes rendered by Blender from the original assets: the same outlines and nearly the same light."""
    for i in (4, 6):
        item = rendered[i]
        image, mask = likeness.redraw(item)
        overlap = [
            ((mask == k) & (item["mask"] == k)).sum() / ((mask == k) | (item["mask"] == k)).sum()
            for k in range(1, 1 + int(item["objects"]["present"].sum()))
        ]
        assert min(overlap) > 0.95
        assert (image - item["image"]).abs().mean() < 3 / 255
        assert (image - item["image"]).mean().abs() < 2 / 255
