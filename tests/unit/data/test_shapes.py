"""Shapes: the geometry of circles, squares and triangles, and colours that can be told apart."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from slotlib.data import make
from slotlib.data.shapes import BACKGROUND, COLOURS, SHAPES, SIZES, TURNS

ONLY_YELLOW = [{"colour": name} for name in COLOURS if name != "yellow"]
REACH = [1, math.sqrt(math.pi / 2), math.sqrt(4 * math.pi / math.sqrt(27))]  # circumradius for the area π


@pytest.fixture(scope="module")
def single() -> dict:
    """Single yellow objects."""
    return make("shapes", 6000, seed=1, num_objects=1, held_out=ONLY_YELLOW).batch(range(6000))


@pytest.fixture(scope="module")
def cover(single) -> torch.Tensor:
    """The share of every pixel that the object fills, read off the red channel."""
    red = single["image"][:, 0] * 255
    return (red - BACKGROUND[0]) / (COLOURS["yellow"][0] - BACKGROUND[0])


@pytest.mark.parametrize("shape", range(3), ids=SHAPES)
@pytest.mark.parametrize("size", range(3), ids=SIZES)
def test_objects_of_one_size_have_the_area_of_its_circle(single, cover, shape, size):
    objects = single["objects"]
    chosen = (objects["shape"][:, 0] == shape) & (objects["size"][:, 0] == size)
    area = math.pi * list(SIZES.values())[size] ** 2
    filled = cover[chosen].sum((1, 2))
    assert filled.mean() == pytest.approx(area, abs=0.6)
    assert (filled - area).abs().max() < 4  # whatever the rotation, wherever it lies on the grid of pixels
    pixels = (single["mask"][chosen] == 1).sum((1, 2))
    assert pixels.double().mean() == pytest.approx(area, rel=0.01)


def test_the_centre_of_mass_is_where_the_properties_say(single, cover):
    middle = torch.arange(64) + 0.5
    for key, axis in (("x", 1), ("y", 2)):
        along = (cover.sum(axis) * middle).sum(1) / cover.sum((1, 2))
        assert (along - single["objects"][key][:, 0]).abs().max() < 0.1


def test_a_triangle_at_zero_points_up_and_turns_clockwise():
    scenes = make("shapes", 4000, seed=2, num_objects=1, held_out=[{"shape": "circle"}, {"shape": "square"}])
    batch = scenes.batch(range(4000))
    rows, columns = (torch.arange(64) + 0.5).view(1, 64, 1), (torch.arange(64) + 0.5).view(1, 1, 64)
    objects = {name: value[:, 0, None, None] for name, value in batch["objects"].items()}
    right, down = columns - objects["x"], rows - objects["y"]
    far = torch.where(batch["mask"] == 1, right.square() + down.square(), 0).flatten(1).argmax(1)
    tip = torch.stack([right.expand(-1, 64, -1).flatten(1), down.expand(-1, -1, 64).flatten(1)], -1)
    tip = tip[torch.arange(4000), far]  # the farthest pixel lies at one of the three corners
    angle = torch.atan2(tip[:, 0], -tip[:, 1]) % TURNS[2]  # clockwise from the top
    gap = (angle - batch["objects"]["rotation"][:, 0] + TURNS[2] / 2) % TURNS[2] - TURNS[2] / 2
    assert gap.abs().max() < 0.2
    assert gap.mean().abs() < 0.01


def test_positions_and_rotations_are_uniform_over_their_range(single):
    objects = {name: value[:, 0] for name, value in single["objects"].items()}
    for shape, size in itertools.product(range(3), range(3)):
        chosen = (objects["shape"] == shape) & (objects["size"] == size)
        reach = REACH[shape] * list(SIZES.values())[size]
        for key in ("x", "y"):
            assert stats.kstest((objects[key][chosen] - reach) / (64 - 2 * reach), "uniform").pvalue > 1e-4
        if TURNS[shape]:
            assert stats.kstest(objects["rotation"][chosen] / TURNS[shape], "uniform").pvalue > 1e-4
        else:
            assert (objects["rotation"][chosen] == 0).all()


def test_colours_are_far_apart_and_from_the_background():
    colours = [np.array(rgb) for rgb in (*COLOURS.values(), BACKGROUND)]
    assert len(COLOURS) == 8
    assert min(np.abs(a - b).max() for a, b in itertools.combinations(colours, 2)) >= 60


def test_a_picture_of_separate_objects_has_flat_colours():
    batch = make("shapes", 100, min_visible=1).batch(range(100))
    palette = torch.tensor([BACKGROUND, *COLOURS.values()]) / 255
    image = batch["image"].permute(0, 2, 3, 1)
    exact = (image.unsqueeze(-2) == palette).all(-1).any(-1)
    assert exact.float().mean() > 0.9  # all but the edges
