"""Multi-dSprites: the sprites' geometry, the colours of each variant, and sprites from a file."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from slotlib.data import dsprites, make
from slotlib.data.multi_dsprites import CONTRAST, ORIENTATIONS, SCALES, SHAPES, VARIANTS


@pytest.fixture(scope="module")
def single() -> dict:
    """Single white sprites on black: the image is the coverage."""
    return make("multi_dsprites", 6000, seed=1, variant="binarised", num_objects=1).batch(range(6000))


AREA = {"square": 18**2, "ellipse": math.pi * 13 * 6.5, "heart": (1 + math.pi / 4) * 12.8**2}


@pytest.mark.parametrize("shape", range(3), ids=SHAPES)
def test_the_area_grows_with_the_square_of_the_scale(single, shape):
    objects = {name: value[:, 0] for name, value in single["objects"].items()}
    for scale in SCALES:
        chosen = (objects["shape"] == shape) & (objects["scale"] == torch.tensor(scale))
        filled = single["image"][chosen, 0].sum((1, 2))
        assert filled.mean() == pytest.approx(AREA[SHAPES[shape]] * scale**2, abs=0.6)
        assert (filled - AREA[SHAPES[shape]] * scale**2).abs().max() < 4


def test_the_mean_pixel_is_that_of_dsprites(single):
    # Public code normalises dSprites by 0.043 and 0.202. Its images are binary, so that 0.202² = mean (1 − mean).
    kinds = [single["mask"][(single["objects"]["shape"][:, 0] == k)].double().mean() for k in range(3)]
    assert np.mean(kinds) == pytest.approx(0.0425, abs=0.0005)


def test_the_centre_of_mass_is_where_the_properties_say(single):
    image, middle = single["image"][:, 0], torch.arange(64) + 0.5
    for key, axis in (("x", 1), ("y", 2)):
        along = (image.sum(axis) * middle).sum(1) / image.sum((1, 2))
        assert (along - single["objects"][key][:, 0]).abs().max() < 0.1


def test_the_heart_stands_and_the_oval_lies_before_they_turn_clockwise(single):
    objects = {name: value[:, 0] for name, value in single["objects"].items()}
    middle = torch.arange(64) + 0.5
    right = (middle - objects["x"][:, None]).unsqueeze(1)
    down = (middle - objects["y"][:, None]).unsqueeze(2)
    image, angle = single["image"][:, 0], objects["orientation"][:, None, None]
    u, v = angle.cos() * right + angle.sin() * down, angle.cos() * down - angle.sin() * right
    upright, large = image * v**3, objects["scale"] > 0.75
    hearts, ovals = ((objects["shape"] == k) & large for k in (2, 1))
    assert (upright[hearts].sum((1, 2)) > 0).all()  # the tip, the longer end, points down
    skew = (image * u**3).sum((1, 2))[hearts].abs()
    assert (skew < 0.2 * upright[hearts].sum((1, 2))).all()  # and left mirrors right
    wide, tall = (image * u**2).sum((1, 2))[ovals], (image * v**2).sum((1, 2))[ovals]
    assert ((wide / tall).sqrt() - 2).abs().max() < 0.15


def test_centres_lie_on_a_grid_of_32_by_32(single):
    for key in ("x", "y"):
        place = single["objects"][key][:, 0] - 16.5
        assert torch.equal(place, place.round())
        assert stats.chisquare(np.bincount(place.long().numpy(), minlength=32)).pvalue > 1e-4
    assert len(ORIENTATIONS) == 40
    assert ORIENTATIONS[1] == pytest.approx(0.16110732)  # as in dSprites' latents_values


# --- colours ---


def colours(variant: str, **options) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sprites' colours, which of them are present, and the backgrounds."""
    batch = make("multi_dsprites", 2000, seed=3, variant=variant, **options).batch(range(2000))
    ground = batch["image"][:, :, 0, 0]
    assert (batch["mask"][:, 0, 0] == 0).all()
    return batch["objects"]["colour"], batch["objects"]["present"], ground


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_sprite_can_be_told_from_the_background(variant):
    colour, present, ground = colours(variant)
    assert (colour - ground[:, None]).abs().amax(-1)[present].min() >= CONTRAST - 1 / 255


def test_binarised_is_white_on_black():
    batch = make("multi_dsprites", 100, variant="binarised").batch(range(100))
    assert (batch["objects"]["colour"][batch["objects"]["present"]] == 1).all()
    assert torch.equal(batch["image"][:, 0], batch["image"][:, 1])
    assert (batch["image"][:, 0, 0, 0] == 0).all()


def test_colour_on_grey_is_colour_on_grey():
    colour, present, ground = colours("colour_on_grey")
    assert torch.equal(ground[:, 0], ground[:, 1])
    assert torch.equal(ground[:, 0], ground[:, 2])
    assert stats.kstest(ground[:, 0], "uniform").pvalue > 1e-4
    colour = colour[present]
    high, low = colour.amax(-1), colour.amin(-1)
    assert stats.kstest(2 * high - 1, "uniform").pvalue > 1e-4  # value
    assert ((high - low) / high).min() > 0.49  # saturation
    # Hue: each of the six orders of the channels takes a sixth of the circle.
    orders = (colour.argsort(-1) * torch.tensor([9, 3, 1])).sum(-1).unique(return_counts=True)[1]
    assert len(orders) == 6
    assert stats.chisquare(orders).pvalue > 1e-4


def test_colour_on_colour_is_any_rgb_on_any_rgb():
    colour, _, ground = colours("colour_on_colour", num_objects=1)
    for channel in range(3):
        assert stats.kstest(ground[:, channel], "uniform").pvalue > 1e-4
        assert stats.kstest(colour[:, 0, channel], "uniform").pvalue > 1e-4


def test_greyscale_has_no_two_greys_alike_and_no_order():
    colour, present, ground = colours("greyscale")
    assert (ground == 0).all()
    assert torch.equal(colour[..., 0], colour[..., 1])
    for grey, there in zip(colour[..., 0], present, strict=True):
        steps = grey[there].sort().values.diff()
        assert steps.min() > 0.35 / there.sum()
    lightest = torch.where(present, colour[..., 0], -1).argmax(1)[present.sum(1) == 5]
    assert stats.chisquare(np.bincount(lightest, minlength=5)).pvalue > 1e-4


# --- sprites from the file ---


class Discs(dsprites.Sprites):
    """Stands in for the 3 GB file: a disc of 4 + scale pixels where the sprite of these classes would be."""

    def __init__(self):
        pass

    def at(self, shape, scale, orientation, x, y):
        middle = torch.arange(64)
        right, down = middle - (16 + x)[..., None, None], middle[:, None] - (16 + y)[..., None, None]
        return (right**2 + down**2 <= (4 + scale[..., None, None]) ** 2).to(torch.uint8)


def test_sprites_come_from_the_file(monkeypatch):
    monkeypatch.setattr(dsprites, "load", lambda path: Discs())
    scenes = make("multi_dsprites", 30, seed=6, sprites="dsprites.npz")
    drawn = make("multi_dsprites", 30, seed=6, min_visible=0).batch(range(30))
    for scene, objects in zip(scenes.__getitems__(range(30)), drawn["objects"]["colour"], strict=True):
        properties, mask = scene["objects"], scene["mask"]
        image, names = scene["image"][:, :1, :1].expand(3, 64, 64).clone(), torch.zeros(64, 64)
        for k in range(int(properties["present"].sum())):
            x, y = (properties[key][k] - 16.5 for key in ("x", "y"))
            sprite = Discs().at(0, (properties["scale"][k] * 10).round() - 5, 0, x, y).bool()
            names[sprite] = k + 1
            image[:, sprite] = properties["colour"][k][:, None]
        assert torch.equal(mask.float(), names)
        assert torch.equal(scene["image"], image)  # hard edges: exact everywhere
        assert torch.equal(properties["colour"], objects)  # and only the outlines differ from our own


def test_what_the_file_cannot_give_is_one_clear_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no dSprites file"):
        make("multi_dsprites", 5, sprites=str(tmp_path / "none.npz"))
    with pytest.raises(ValueError, match="at resolution 64, got 128"):
        make("multi_dsprites", 5, sprites="x.npz", resolution=128)


def test_an_unknown_variant_is_one_clear_error():
    with pytest.raises(ValueError, match="unknown variant 'colour'; there are: binarised, colour_on_grey"):
        make("multi_dsprites", 5, variant="colour")


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_share_their_sprites_as_far_as_their_numbers_agree(variant):
    a, b = (make("multi_dsprites", 50, variant=v, num_objects=3).batch(range(50)) for v in (variant, "binarised"))
    assert torch.equal(a["mask"], b["mask"])
    assert all(torch.equal(a["objects"][key], b["objects"][key]) for key in ("shape", "scale", "orientation", "x", "y"))
