"""Changes of light: what they do, what they leave alone, and that nobody's share of a batch sees others."""

import colorsys
import itertools

import pytest
import torch

from slotlib.data import make
from slotlib.data.light import Light, changed
from slotlib.model import Draws, Ramp

ALL = Light(darker=0.5, brighter=0.4, contrast=0.3, hue=0.2, swap_channels=True, noise=0.05)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return make("multi_dsprites", 24, seed=1, resolution=32).batch(range(24))["image"]


def draws(seed: int = 0, first: int = 0, every: int = 1) -> Draws:
    return Draws(torch.Generator().manual_seed(seed), first, every)


@pytest.mark.parametrize("light", [ALL, Light(contrast=0.9), Light(noise=0.1), Light(hue=0.5)], ids=str)
@pytest.mark.parametrize("every", [2, 3, 24])
def test_shares_of_a_batch_are_those_of_the_whole_bit_for_bit(images, light, every):
    before, whole = images.clone(), changed(images, light, 0.5, draws())
    for first in range(every):
        assert torch.equal(changed(images[first::every], light, 0.5, draws(0, first, every)), whole[first::every])
    assert torch.equal(images, before)
    assert not torch.equal(changed(images, light, 0.5, draws(1)), whole)


def test_no_change_is_no_change_and_draws_nothing(images):
    own = draws()
    state = own.generator.get_state()
    assert changed(images, Light(), 0.5, own) is images
    assert torch.equal(own.generator.get_state(), state)


def test_brightness_is_a_factor_within_its_range(images):
    factors = []
    for seed in range(30):
        seen = changed(images, Light(darker=0.5, brighter=0.4), 0, draws(seed))
        for image, other in zip(images, seen, strict=True):
            dim = image < 0.7  # not cut at 1, even at 1.4
            ratio = other[dim & (image > 0.1)] / image[dim & (image > 0.1)]
            torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(other, (image * ratio[0]).clamp(max=1), rtol=1e-5, atol=1e-6)
            factors.append(ratio[0].item())
    factors = torch.tensor(factors)
    assert 0.5 <= factors.min() < 0.51
    assert 1.39 < factors.max() <= 1.4
    assert factors.mean() == pytest.approx(0.95, abs=0.03)


def test_contrast_leaves_the_mean_where_it_is(images):
    pale = 0.35 + 0.3 * images  # far from 0 and 1, so that nothing is cut
    seen = changed(pale, Light(contrast=0.5), 0, draws())
    torch.testing.assert_close(seen.mean((1, 2, 3)), pale.mean((1, 2, 3)), rtol=0, atol=1e-5)
    share = seen.std((1, 2, 3)) / pale.std((1, 2, 3))
    assert 0.5 <= share.min() < 0.7
    assert 1.3 < share.max() <= 1.5


def test_hue_leaves_greys_alone_and_turns_colours(images):
    grey = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    torch.testing.assert_close(changed(grey, Light(hue=0.5), 0, draws()), grey, rtol=0, atol=1e-6)
    pale = torch.tensor([0.55, 0.45, 0.45]).view(1, 3, 1, 1).expand(200, 3, 2, 2)
    seen = changed(pale, Light(hue=0.1), 0, draws())[:, :, 0, 0]
    torch.testing.assert_close(seen.sum(1), pale[:, :, 0, 0].sum(1))
    hues = torch.tensor([colorsys.rgb_to_hsv(*colour)[0] for colour in seen.tolist()])
    turned = torch.minimum(hues, 1 - hues)
    assert 0.09 < turned.max() < 0.102
    assert ((hues < 0.5).float().mean() - 0.5).abs() < 0.15  # either way


def test_channels_are_exchanged_and_nothing_else(images):
    found = set()
    for seed in range(5):
        for image, other in zip(images, changed(images, Light(swap_channels=True), 0, draws(seed)), strict=True):
            orders = [order for order in itertools.permutations(range(3)) if torch.equal(image[list(order)], other)]
            assert orders
            found.add(orders[0])
    assert len(found) == 6


def test_noise_has_at_most_its_strength():
    grey = torch.full((200, 3, 16, 16), 0.5)
    spread = (changed(grey, Light(noise=0.1), 0, draws()) - 0.5).flatten(1)
    assert spread.mean().abs() < 1e-3
    assert 0.095 < spread.std(1).max() < 0.11
    assert spread.std(1).min() < 0.005
    assert spread.std(1).mean() == pytest.approx(0.05, abs=0.006)


def test_progress_moves_it(images):
    light = Light(darker=Ramp(0.5, after=0.25, over=0.5))
    assert torch.equal(changed(images, light, 0.2, draws()), images)
    half = changed(images, light, 0.5, draws())
    assert torch.equal(half, changed(images, Light(darker=0.25), 0.9, draws()))
    assert torch.equal(changed(images, light, 1.0, draws()), changed(images, Light(darker=0.5), 0, draws()))


def test_images_stay_images(images):
    seen = changed(images, Light(darker=1, brighter=3, contrast=1, hue=0.5, swap_channels=True, noise=1), 0, draws())
    assert seen.dtype == images.dtype
    assert seen.min() == 0
    assert seen.max() == 1
    assert changed(images[:0], ALL, 0, draws()).shape == (0, 3, 32, 32)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"darker": 1.1}, r"darker must lie in \[0, 1\], got 1.1"),
        ({"brighter": -0.1}, r"brighter must lie in \[0, inf\], got -0.1"),
        ({"contrast": Ramp(2.0)}, r"contrast must lie in \[0, 1\], got 2.0"),
        ({"hue": 0.6}, r"hue must lie in \[0, 0.5\], got 0.6"),
        ({"noise": float("nan")}, r"noise must lie in \[0, inf\], got nan"),
        ({"noise": float("inf")}, r"noise must lie in \[0, inf\], got inf"),
    ],
)
def test_a_number_out_of_its_range_is_one_clear_error(fields, message):
    with pytest.raises(ValueError, match=message):
        Light(**fields)
