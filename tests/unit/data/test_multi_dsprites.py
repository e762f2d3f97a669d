"""Multi-dSprites: the sprites' geometry, the colours of each variant, and sprites from a file."""

import functools
import math

import numpy as np
import pytest
import torch
from matplotlib.path import Path
from scipy import stats

from slotlib.data import dsprites, make
from slotlib.data.multi_dsprites import CONTRAST, LOOKS, ORIENTATIONS, SCALES, SHAPES, VARIANTS


@pytest.fixture(scope="module", params=LOOKS)
def look(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def single(look) -> dict:
    """Single white sprites on black: the image is the coverage."""
    return make("multi_dsprites", 6000, seed=1, variant="binarised", num_objects=1, look=look).batch(range(6000))


AREA = {
    "first": {"square": 18**2, "ellipse": math.pi * 13 * 6.5, "heart": (1 + math.pi / 4) * 12.8**2},
    "published": {"square": 19.2**2, "ellipse": math.pi * 12.75 * 7.225, "heart": 180 * math.pi * 0.6 * 0.6625},
}
RATIO = {"first": 2, "published": 12.75 / 7.225}
"""Of an oval's axes."""
RISE = {"first": 0, "published": 1.95}
"""How far a heart's centre of mass lies above its place."""


@pytest.mark.parametrize("shape", range(3), ids=SHAPES)
def test_the_area_grows_with_the_square_of_the_scale(single, look, shape):
    objects = {name: value[:, 0] for name, value in single["objects"].items()}
    for scale in SCALES:
        chosen = (objects["shape"] == shape) & (objects["scale"] == torch.tensor(scale))
        filled = single["image"][chosen, 0].sum((1, 2))
        area = AREA[look][SHAPES[shape]] * scale**2
        assert filled.mean() == pytest.approx(area, abs=0.6, rel=0.02 * (look == "published"))
        assert (filled - area).abs().max() < (4 if look == "first" else 0.15 * area)  # hard edges jump


def test_the_mean_pixel_is_that_of_dsprites(single):
    # Public code normalises dSprites by 0.043 and 0.202. Its images are binary, so that 0.202² = mean (1 − mean).
    kinds = [single["mask"][(single["objects"]["shape"][:, 0] == k)].double().mean() for k in range(3)]
    assert np.mean(kinds) == pytest.approx(0.0425, abs=0.0005)


def upright(single, look) -> tuple[torch.Tensor, torch.Tensor]:
    """Where pixels are as seen by a sprite that stands: to its right, and below."""
    objects = {name: value[:, 0] for name, value in single["objects"].items()}
    middle, angle = torch.arange(64) + 0.5, LOOKS[look].clockwise * objects["orientation"][:, None, None]
    right = (middle - objects["x"][:, None]).unsqueeze(1)
    down = (middle - objects["y"][:, None]).unsqueeze(2)
    return angle.cos() * right + angle.sin() * down, angle.cos() * down - angle.sin() * right


def test_the_centre_of_mass_is_where_the_properties_say(single, look):
    image, objects = single["image"][:, 0], single["objects"]
    rise = RISE[look] * objects["scale"][:, 0] * (objects["shape"][:, 0] == SHAPES.index("heart"))
    for along, expected in zip(upright(single, look), (0, -rise), strict=True):
        off = (image * along).sum((1, 2)) / image.sum((1, 2)) - expected
        assert off.abs().max() < (0.1 if look == "first" else 0.5)
        assert off.mean().abs() < 0.05


def test_the_heart_stands_and_the_oval_lies_before_they_turn(single, look):
    objects = {name: value[:, 0] for name, value in single["objects"].items()}
    u, v = upright(single, look)
    v = v + RISE[look] * objects["scale"][:, None, None] * (objects["shape"] == 2)[:, None, None]
    image, large = single["image"][:, 0], objects["scale"] > 0.75
    hearts, ovals = ((objects["shape"] == k) & large for k in (2, 1))
    tip, skew = (image * v**3).sum((1, 2))[hearts], (image * u**3).sum((1, 2))[hearts]
    assert (tip > 0).all()  # the tip, the longer end, points down
    assert skew.mean().abs() < 0.02 * tip.mean()  # and left mirrors right
    assert look != "first" or (skew.abs() < 0.2 * tip).all()
    wide, tall = (image * u**2).sum((1, 2))[ovals], (image * v**2).sum((1, 2))[ovals]
    assert ((wide / tall).sqrt() - RATIO[look]).abs().max() < 0.15


def test_centres_lie_on_a_grid_of_32_by_32(single, look):
    for key in ("x", "y"):
        place = (single["objects"][key][:, 0] - LOOKS[look].first) / LOOKS[look].step
        assert (place - place.round()).abs().max() < 1e-5
        assert stats.chisquare(np.bincount(place.round().long().numpy(), minlength=32)).pvalue > 1e-4
    assert len(ORIENTATIONS) == 40
    assert ORIENTATIONS[1] == pytest.approx(0.16110732)  # as in dSprites' latents_values


def test_published_sprites_are_all_of_a_pixel_or_nothing():
    """A pixel is a sprite's if its centre lies within the outline: the heart's, walked along its curve."""
    t = np.linspace(0, 2 * np.pi, 300)  # its chords lie within a hundredth of a pixel of it
    curve = np.stack([9.6 * np.sin(t) ** 3, -13 * np.cos(t) + 5 * np.cos(2 * t) + 2 * np.cos(3 * t) + np.cos(4 * t)], 1)
    heart = Path(curve * (1, 0.6625) - (0, 1.45))
    batch = make("multi_dsprites", 200, seed=2, num_objects=1, look="published").batch(range(200))
    grid = np.stack(np.meshgrid(*[np.arange(64) + 0.5] * 2), axis=-1)
    properties = torch.cat([batch["objects"][name] for name in ("shape", "scale", "orientation", "x", "y")], dim=1)
    apart = []
    for image, mask, (kind, scale, angle, x, y) in zip(batch["image"], batch["mask"], properties.tolist(), strict=True):
        shape = int(kind)
        turn = np.array([(math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))])
        points = (grid - (x, y)) @ turn / scale  # the other way than clockwise
        if SHAPES[shape] == "heart":
            inside = heart.contains_points(points.reshape(-1, 2)).reshape(64, 64)
        else:
            u, v = np.moveaxis(points, -1, 0)
            inside = (abs(points).max(-1) < 9.6, (u / 12.75) ** 2 + (v / 7.225) ** 2 < 1)[shape]
        apart.append((inside != mask.numpy().astype(bool)).sum())
        assert len(image.flatten(1).unique(dim=1).T) == 2  # one colour on one colour
    assert np.mean(apart) < 0.05  # a pixel on the outline, at most


# --- colours ---


@functools.cache
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
    scenes = make("multi_dsprites", 30, seed=6, sprites="dsprites.npz", look="first")
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
    with pytest.raises(ValueError, match=r"variant must be one of \('binarised', 'colour_on_grey', .*, got 'colour'"):
        make("multi_dsprites", 5, variant="colour")


def test_an_unknown_look_is_one_clear_error():
    with pytest.raises(ValueError, match=r"look must be one of \('first', 'published'\), got 'blurred'"):
        make("multi_dsprites", 5, look="blurred")


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_share_their_sprites_as_far_as_their_numbers_agree(variant):
    a, b = (make("multi_dsprites", 50, variant=v, num_objects=3).batch(range(50)) for v in (variant, "binarised"))
    assert torch.equal(a["mask"], b["mask"])
    assert all(torch.equal(a["objects"][key], b["objects"][key]) for key in ("shape", "scale", "orientation", "x", "y"))
