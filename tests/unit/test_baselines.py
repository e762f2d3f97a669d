"""Rules that have learned nothing: what each can tell apart, and what no image can change."""

import pytest
import torch

from slotlib import baselines, data
from slotlib.metrics import MASK_SCORES, fg_ari


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def flat(*colours, side=8):
    """An image of vertical stripes, each of one colour."""
    stripes = torch.tensor(colours).repeat_interleave(side, dim=0)
    return stripes.mT[:, None].expand(3, side, -1)[None].float()


@pytest.mark.parametrize("count", [1, 4, 5, 7, 9])
def test_tiles_are_as_many_as_asked_for_alike_in_size_and_blind(count):
    images = torch.rand(2, 3, 36, 36, generator=generator())
    found = baselines.tiles(images, count)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found, baselines.tiles(1 - images, count))
    areas = found[0].flatten().bincount()
    assert len(areas) == count and areas.max() <= 1.6 * areas.min()
    corners = found[0, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert len(corners.unique()) == min(count, 4)


def test_a_colour_keeps_its_name_in_the_shade_and_black_is_one():
    bright, dim = (
        flat((1, 0, 0), (1, 1, 0), (1, 1, 1), (0, 0, 0)),
        flat((0.3, 0, 0), (0.5, 0.4, 0), (0.2,) * 3, (0,) * 3),
    )
    names = [baselines.colour_lookup(each)[0, 0, ::8].tolist() for each in (bright, dim)]
    assert names[0] == names[1] == [4, 6, 7, 0]


def test_k_means_parts_colours_and_with_place_what_lies_apart():
    image = flat((1, 0, 0), (0, 0, 1), (1, 0, 0))
    by_colour, by_place = baselines.k_means(image, 2)[0, 0, ::8], baselines.k_means(image, 3, place=2.0)[0, 0, ::8]
    assert by_colour[0] == by_colour[2] != by_colour[1]
    assert len(by_place.unique()) == 3
    assert len(baselines.k_means(image, 5).unique()) == 2  # no more colours than there are


def test_where_every_object_has_a_colour_of_its_own_colours_are_enough():
    """So a score on such scenes says little; the means are of the scenes asked for, told apart into as many segments
    as the fullest of them has."""
    scenes = data.make("multi_dsprites", 40, seed=3)
    found = baselines.scores(scenes, 24, batch_size=10)
    assert list(found) == [f"{rule}_{name}" for rule in baselines.RULES for name in MASK_SCORES]
    assert found["k_means_fg_ari"] > 0.8 > found["colour_lookup_fg_ari"] > found["tiles_fg_ari"] > 0.3
    batch = scenes.batch(range(24))
    count = max(len(mask.unique()) for mask in batch["mask"])
    tiles = fg_ari(batch["mask"], baselines.tiles(batch["image"], count))
    assert found["tiles_fg_ari"] == pytest.approx(tiles.mean().item())


class Unlabelled(data.Kept):
    def batch(self, index, device="cpu"):
        return {"image": super().batch(index, device)["image"]}


def test_without_masks_there_is_nothing_to_score():
    assert baselines.scores(Unlabelled(data.make("shapes", 3)), 3) == {}
    with pytest.raises(ValueError, match="images must be a whole number, at least 1, got 0"):
        baselines.scores(data.make("shapes", 3), 0)
    with pytest.raises(ValueError, match="count must be a whole number"):
        baselines.tiles(torch.rand(1, 3, 8, 8), 0)
