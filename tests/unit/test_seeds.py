"""Chapter 03 explains seeds by twins and by what keys tell apart; both must be what they are called."""

import torch

from benchmarks import ablations, seeds
from slotlib import data, zoo


def pieces(*corners, side=12):
    masks = torch.zeros(1, side, side, dtype=torch.uint8)
    for i, (row, column) in enumerate(corners):
        masks[0, row : row + 2, column : column + 2] = i + 1
    return masks


def test_twins_share_a_colour_and_are_close():
    for gap, close in ((0, True), (1, True), (2, False)):  # pixels between them
        masks = pieces((0, 0), (0, 2 + gap), (8, 8))
        for colours, alike in (((3, 3, 1), True), ((3, 1, 2), False)):
            near, shared = seeds.twins(masks, torch.tensor([colours]))
            assert (near.item(), shared.item()) == (close and alike, alike)
    near, shared = seeds.twins(pieces((0, 0), (0, 2), (8, 8)), torch.tensor([[3, 1, 3]]))
    assert (near.item(), shared.item()) == (False, True)  # those of one colour are far apart


def test_variance_between_groups_is_a_share():
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(400) % 5
    centres = torch.randn(5, 8, generator=generator)
    within = torch.randn(400, 8, generator=generator)
    within -= torch.stack([within[groups == g].mean(0) for g in range(5)])[groups]
    spread = (centres - centres.mean(0)).square().sum() / 5, within.square().sum() / 400
    assert abs(seeds.between(centres[groups], groups) - 1) < 1e-6
    assert seeds.between(within, groups) < 1e-6
    assert abs(seeds.between(centres[groups] + within, groups) - spread[0] / sum(spread)) < 1e-5


def test_colour_and_place_are_those_of_the_pieces():
    batch = data.make("tetrominoes", 8).batch(range(8))
    keys, colour, place = seeds.keys_on_pieces(zoo.load("tetrominoes"), batch["image"], batch["mask"])
    assert keys.shape == (len(colour), 64) and set(colour.tolist()) <= {1, 2, 3, 4, 5, 6}  # neither black nor white
    middle = (2 + 4 * torch.arange(9)).clamp(max=34)  # of 9 inputs on 35 pixels, to within one
    seen = batch["mask"][:, middle][:, :, middle].flatten(1)
    assert abs(len(place) - (seen > 0).sum().item()) < 0.1 * len(place)


def test_a_line_of_the_table_is_complete(tmp_path):
    result = ablations.sweep.Result("", "", 0, {}, "it failed")
    run = ablations.planned("tetrominoes", ablations.RECIPE, "tetrominoes_first", [], 1, tmp_path)[0]
    assert seeds.score("tetrominoes", run, result)["error"] == "it failed"
    assert seeds.score("tetrominoes", run, result).keys() <= set(seeds.COLUMNS)
