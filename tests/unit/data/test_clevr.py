"""Facts about CLEVR-like scenes."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from slotlib.data import clevr
from slotlib.data.raytracer import CUBE

SMALL = {"num_objects": (3, 6), "resolution": 64}


@pytest.fixture(scope="module")
def scenes():
    return clevr.draw(0, torch.arange(64), **SMALL)


def test_an_item_is_the_same_in_any_batch(scenes):
    order = [40, 3, 17, 3]
    again = clevr.draw(0, torch.tensor(order), **SMALL)
    alone = clevr.draw(0, torch.tensor([17]), **SMALL)
    for key in ("image", "mask", "behind"):
        torch.testing.assert_close(again[key], scenes[key][order], rtol=0, atol=0)
        torch.testing.assert_close(alone[key], scenes[key][17:18], rtol=0, atol=0)
    for name, values in scenes["objects"].items():
        torch.testing.assert_close(again["objects"][name], values[order], rtol=0, atol=0)


def test_images_are_bytes(scenes):
    image = scenes["image"]
    assert image.dtype == torch.float32 and image.min() >= 0 and image.max() <= 1
    torch.testing.assert_close(image, (image * 255).round() / 255, rtol=0, atol=0)


def test_centres_are_seen_where_they_are_said_to_be(scenes):
    """At the pixel of an object's centre there is the object, or one that stands nearer to the camera."""
    objects = scenes["objects"]
    for i, k in objects["present"].nonzero().tolist():
        column, row, depth = objects["pixel"][i, k].tolist()
        at = scenes["mask"][i, min(int(row), 63), min(int(column), 63)].item()
        assert at > 0
        assert objects["pixel"][i, at - 1, 2] <= depth


def test_every_object_shows_its_least_number_of_pixels(scenes):
    least = 200 * (64 / 192) ** 2
    for mask, present in zip(scenes["mask"], scenes["objects"]["present"], strict=True):
        counts = mask.flatten().bincount(minlength=1 + len(present))[1:]
        assert (counts[present] >= least).all()
        assert (counts[~present] == 0).all()


def test_objects_keep_their_distances(scenes):
    """The original's rules: outlines apart, and a margin along both directions of the camera."""
    objects = scenes["objects"]
    height = objects["position"][..., 2]
    for i in range(64):
        here = objects["present"][i]
        xy, r, behind = objects["position"][i, here, :2], height[i, here], scenes["behind"][i]
        left = torch.stack([-behind[1], behind[0]])
        gap = xy[:, None] - xy
        pairs = ~torch.eye(len(xy), dtype=torch.bool)
        assert (gap.norm(dim=-1) - r[:, None] - r >= clevr.MIN_DISTANCE - 1e-5)[pairs].all()
        for axis in (behind, left):
            assert ((gap @ axis).abs() >= 0.4 - 1e-5)[pairs].all()
        assert xy.abs().max() <= clevr.EXTENT
    assert set(height[objects["present"]].tolist()) == {np.float32(0.35), np.float32(0.7)}


def test_behind_points_away_from_the_camera(scenes):
    """Objects farther along `behind` have greater depth when they are of one height."""
    torch.testing.assert_close(scenes["behind"].norm(dim=1), torch.ones(64))
    objects = scenes["objects"]
    for i in range(64):
        large = objects["present"][i] & (objects["size"][i] == 1)
        along = objects["position"][i, large, :2] @ scenes["behind"][i]
        assert (along.argsort() == objects["pixel"][i, large, 2].argsort()).all()


def test_properties_are_uniform():
    """Colour, material and count are; small objects are commoner in crowded scenes, as in the original."""
    batch = clevr.draw(1, torch.arange(300), num_objects=(3, 6), resolution=16)
    objects, present = batch["objects"], batch["objects"]["present"]
    assert chisquare(present.sum(1).bincount(minlength=7)[3:]).pvalue > 1e-3
    for name, values in (("colour", 8), ("material", 2), ("shape", 3)):
        counts = objects[name][present].bincount(minlength=values)
        assert len(counts) == values and chisquare(counts).pvalue > 1e-3
    turns = objects["rotation"][present] / 360
    assert turns.min() >= 0 and turns.max() < 1
    assert chisquare(np.histogram(turns, bins=8, range=(0, 1))[0]).pvalue > 1e-3


def test_held_out_combinations():
    """CoGenT's rule: cubes in four colours only; and the other way round."""
    held_out = [{"shape": "cube", "colour": c} for c in ("red", "green", "purple", "cyan")]
    for novel in (False, True):
        objects = clevr.draw(0, torch.arange(24), **SMALL, held_out=held_out, novel=novel)["objects"]
        colours = [list(clevr.COLOURS)[c] for c in objects["colour"][objects["present"]]]
        cubes = (objects["shape"] == CUBE)[objects["present"]].tolist()
        hits = [
            cube and colour in ("red", "green", "purple", "cyan") for cube, colour in zip(cubes, colours, strict=True)
        ]
        assert all(hits) if novel else not any(hits)


def test_more_objects_than_clevr_has():
    objects = clevr.draw(0, torch.arange(2), num_objects=14, resolution=32, margin=0.1, min_visible=60)["objects"]
    assert objects["present"].sum(1).tolist() == [14, 14]


def test_textures_change_colours_and_nothing_else():
    plain = clevr.draw(0, torch.arange(4), **SMALL)
    for textures in ("objects", "all"):
        other = clevr.draw(0, torch.arange(4), **SMALL, textures=textures)
        assert (other["mask"] == plain["mask"]).all()
        changed = (other["image"] - plain["image"]).abs().amax(1) > 0.02
        on, ground = plain["mask"] > 0, plain["mask"] == 0
        assert changed[on].float().mean() > 0.5
        # Objects cast coloured images of themselves in metal, but nothing on the ground.
        assert (changed[ground].float().mean() > 0.3) == (textures == "all")


def test_the_full_frame_holds_the_cut_out():
    """The same scene drawn at the frame's own size: rows 29–221 and columns 64–256 are the square, pixel for pixel."""
    square = clevr.draw(0, torch.arange(8), num_objects=3, resolution=192)
    frame = clevr.draw(0, torch.arange(8), num_objects=3, resolution=240, full_frame=True, min_visible=200)
    assert frame["image"].shape == (8, 3, 240, 320)
    alike = [i for i in range(8) if (square["objects"]["position"][i] == frame["objects"]["position"][i]).all()]
    assert alike  # where no object lies outside the square, the same proposals are taken
    top, bottom, left, right = clevr.CROP
    for i in alike:
        assert (square["mask"][i] == frame["mask"][i, top:bottom, left:right]).float().mean() > 0.999
        inner = (slice(None), slice(1, -1), slice(1, -1))  # the border's neighbours decide where edges are refined
        cut = frame["image"][i, :, top:bottom, left:right]
        assert ((square["image"][i] - cut)[inner].abs() < 2 / 255).float().mean() > 0.999


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_objects": 0}, "num_objects"),
        ({"num_objects": (5, 3)}, "num_objects"),
        ({"num_objects": 99}, "1 to 16"),
        ({"resolution": 2}, "resolution"),
        ({"textures": "wood"}, "wood"),
        ({"held_out": [{"shape": "cone"}]}, "cone"),
        ({"num_objects": 16, "resolution": 16, "min_visible": 1000}, "no room for 16 objects"),
    ],
)
def test_wrong_options(options, message, monkeypatch):
    monkeypatch.setattr(clevr, "_ROUNDS", 20)  # before giving up
    with pytest.raises(ValueError, match=message):
        clevr.draw(0, torch.arange(1), **options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_draws_the_same():
    here = clevr.draw(0, torch.arange(8), **SMALL)
    there = clevr.draw(0, torch.arange(8, device="cuda"), **SMALL)
    assert (here["mask"] == there["mask"].cpu()).float().mean() > 0.999
    assert (here["image"] - there["image"].cpu()).abs().mean() < 1e-3
