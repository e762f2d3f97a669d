"""Changed pictures are changed as they say, and scenes drawn by others are the same scenes."""

import csv

import numpy as np
import pytest
import torch
from torch.testing import assert_close as close

from benchmarks import robustness
from benchmarks.robustness import CHANGES, Held, beveled, from_bytes, outline, pasted, polygonal, to_bytes
from slotlib import data
from slotlib.data import shapes, tetrominoes

IMAGES = data.make("shapes", 6, seed=3).batch(range(6))["image"]


def after(change):
    return CHANGES[change](IMAGES)


def test_light_and_contrast_are_as_much_as_they_say():
    close(after("brightness × 0.7"), 0.7 * IMAGES)
    wide = after("contrast × 1.4")
    close(wide.mean((1, 2, 3)), IMAGES.mean((1, 2, 3)))
    close(wide.std((1, 2, 3)), 1.4 * IMAGES.std((1, 2, 3)))


def test_noise_is_as_strong_as_it_says_and_the_same_every_time():
    noise = after("noise 0.1") - IMAGES
    assert noise.std().item() == pytest.approx(0.1, rel=0.02) and abs(noise.mean()) < 1e-3
    assert torch.equal(after("noise 0.1"), after("noise 0.1"))


def test_a_jpeg_file_loses_more_the_worse_it_is():
    good, bad = ((after(f"JPEG, quality {quality}") - IMAGES).abs().mean() for quality in (75, 30))
    assert 0 < good < bad < 0.05


def test_blur_keeps_the_light_and_spreads_an_edge():
    close(after("blurred by a pixel").mean(), IMAGES.mean(), rtol=0.01, atol=0)
    step = torch.zeros(1, 3, 8, 16)
    step[..., 8:] = 1
    edge = robustness.blurred(step, 1.0)[0, 0, 4]
    close(edge[7:9], torch.tensor([0.31, 0.69]), rtol=0, atol=0.02)  # the normal distribution half a pixel off


def test_channels_go_round():
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    assert robustness.exchanged(red).flatten().tolist() == [0, 1, 0]
    close(robustness.exchanged(robustness.exchanged(after("channels exchanged"))), IMAGES)


def test_pictures_are_of_eight_bits_again():
    close(from_bytes(to_bytes(IMAGES)), IMAGES)
    assert to_bytes(IMAGES * 9 - 1).min() == 0 and to_bytes(IMAGES * 9 - 1).max() == 255


@pytest.mark.parametrize("look", tetrominoes.BEVELS)
def test_pillow_draws_the_same_blocks(look):
    batch = data.make("tetrominoes", 20, seed=3, look=look).batch(range(20))
    again = beveled(batch, look)
    assert torch.equal(again["mask"], batch["mask"])
    difference = (again["image"] - batch["image"]).abs().amax(dim=1)
    assert difference[batch["mask"] == 0].max() == 0
    assert difference.max() < 0.15 and difference.mean() < 0.01  # corners are a little lighter or darker


def test_pillow_draws_the_same_shapes():
    batch = data.make("shapes", 20, seed=3).batch(range(20))
    again = polygonal(batch)
    assert (again["mask"] == batch["mask"]).double().mean() > 0.99
    assert (again["image"] - batch["image"]).abs().mean() < 0.003


@pytest.mark.parametrize("shape", range(3))
def test_a_polygon_has_the_area_of_its_shape(shape):
    corners = np.array(outline({"shape": shape, "size": 1, "x": 30.0, "y": 20.0, "rotation": 0.4}, 2.0))
    (x, y), (xs, ys) = corners.T, np.roll(corners, 1, axis=0).T
    assert abs((xs * y - x * ys).sum()) / 2 == pytest.approx(4 * np.pi * list(shapes.SIZES.values())[1] ** 2)
    assert corners.mean(0) == pytest.approx([60, 40])


def test_sprites_keep_their_colours_and_are_seen():
    frames = np.zeros((320, 64, 64), bool)
    frames[:, 20:30, 20:36] = True
    batch = data.make("multi_dsprites", 12, seed=3).batch(range(12))
    again = pasted(batch, frames)
    for image, mask, present, colour in zip(
        again["image"], again["mask"], batch["objects"]["present"], batch["objects"]["colour"], strict=True
    ):
        for i in present.nonzero()[:, 0]:
            assert (mask == i + 1).sum() >= 40  # a quarter of 160
            close(image[:, mask == i + 1].mT, colour[i].expand(int((mask == i + 1).sum()), 3))
    close(again["image"][:, :, 0, 0], batch["image"][:, :, 0, 0])


def test_held_scenes_are_those_given():
    held = Held({"image": IMAGES, "mask": torch.arange(6)}, {})
    assert len(held) == 6 and held.batch([4, 1])["mask"].tolist() == [4, 1]


def test_what_is_stored_is_of_the_models_that_ship(root):
    """Run `python -m benchmarks.robustness` again after a model changed."""
    from slotlib import zoo

    with (root / "data/runs/robustness.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    for name in robustness.MODELS:
        own = [line for line in lines if line["model"] == name]
        assert {line["sha256"] for line in own} == {zoo.load(name).card["sha256"]}
        more = set() if name == "clevr10_sets" else {called for _, called in robustness.MORE}
        assert {line["change"] for line in own} >= {*CHANGES, *more}
        assert all(line["ap_inf" if name == "clevr10_sets" else "drawn_fg_ari"] for line in own)
