"""What chapter 03 takes out of the model is gone, and nothing else is."""

import csv

import pytest
import torch
from torch.testing import assert_close as close

from benchmarks import ablations, necessary
from slotlib import data
from slotlib.cli import read_config
from slotlib.encoders import Strided
from slotlib.model import Draws, Model

STUDY = necessary.STUDIES["tetrominoes"]
IMAGES = data.make("tetrominoes", 4, seed=3).batch(range(4))["image"]
SLOTS = torch.randn(2, 4, 64, generator=torch.Generator().manual_seed(0))


def config(lever):
    return read_config("tetrominoes_fast", *STUDY.budget, *STUDY.levers[lever])


def model(lever):
    torch.manual_seed(0)
    made = config(lever).model
    return Model.defined_by(made)(made)


@pytest.mark.parametrize(
    ("lever", "changed"),
    {
        ablations.RECIPE: {},
        "no competition": {("attention", "competition"): False},
        "features without positions": {("encoder", "kind"): necessary.Unplaced},
        "decoder without positions": {("decoder", "kind"): necessary.Flat},
        "one drawing of all slots": {("decoder", "kind"): necessary.Together},
        "every slot told the scene": {("model", "kind"): necessary.ToldConfig},
        "one slot": {("attention", "num_slots"): 1},
        "one slot told the scene": {("model", "kind"): necessary.ToldConfig, ("attention", "num_slots"): 1},
    }.items(),
)
def test_a_lever_changes_what_it_names_and_nothing_else(lever, changed):
    def told(config):
        parts = ("encoder", "attention", "decoder", "likelihood")
        objects = {"model": config.model, **{part: getattr(config.model, part) for part in parts}}
        fields = {(part, name): value for part in parts for name, value in vars(objects[part]).items()}
        return fields | {(part, "kind"): type(each) for part, each in objects.items()}

    recipe, here = told(config(ablations.RECIPE)), told(config(lever))
    assert {key: value for key, value in here.items() if value != recipe[key]} == changed
    for same in ("data", "train"):
        assert config(lever).plain()[same] == config(ablations.RECIPE).plain()[same]


def test_no_lever_is_left_out_above():
    tested = test_a_lever_changes_what_it_names_and_nothing_else.pytestmark[0].args[1]
    assert [lever for lever, _ in tested] == list(STUDY.levers)


@pytest.mark.parametrize(("kind", "same"), [(necessary.Unplaced, True), (Strided, False)])
def test_without_positions_a_piece_has_the_same_features_wherever_it_is(kind, same):
    encoder = kind(channels=8).build(16)
    moved = torch.roll(IMAGES, 4, dims=3)  # pixels, one place of the grid
    with torch.no_grad():
        here, there = encoder(IMAGES * 2 - 1), encoder(moved * 2 - 1)
    inner = slice(2, -3)  # farther from the border than the convolutions reach
    assert torch.allclose(here[:, inner, inner], there[:, inner, 3:-2], atol=1e-5) == same


def test_without_positions_a_mask_is_the_same_everywhere_and_stays_so():
    flat = model("decoder without positions")
    flat.loss(IMAGES, Draws(torch.Generator().manual_seed(0))).backward()
    assert flat.decoder.from_position.weight.grad is None
    drawing = flat.decoder(SLOTS)
    for maps in drawing:
        close(maps, maps[..., :1, :1].expand_as(maps))
    assert drawing.logits.std(1).min() > 0


def test_slots_that_are_drawn_together_have_no_order_and_one_picture():
    decoder = model("one drawing of all slots").decoder
    drawing = decoder(SLOTS)
    assert drawing.logits.shape == (2, 1, 35, 35)
    for one, other in zip(drawing, decoder(SLOTS[:, [2, 0, 3, 1]]), strict=True):
        close(one, other)
    assert not torch.allclose(drawing.logits, decoder(SLOTS[:, [0, 0, 0, 0]]).logits)


def test_a_slot_that_is_told_the_scene_is_told_all_of_it_and_drawn_from_it():
    told, images = model("every slot told the scene"), IMAGES.clone().requires_grad_()
    slots = told.second_look(torch.zeros(4, 4, 64), images)
    assert slots.shape == (4, 4, 64 + necessary.WIDE) and (slots[..., :64] == 0).all()
    close(slots, slots[:, :1].expand_as(slots))  # every slot the same
    (gradient,) = torch.autograd.grad(slots[0].square().sum(), images)
    assert (gradient[0].abs().amax(dim=0) > 0).all() and gradient[1:].abs().max() == 0  # its own scene, every pixel
    told.loss(IMAGES, Draws(torch.Generator().manual_seed(0))).backward()
    assert all(weight.grad.norm() > 0 for weight in told.whole.parameters())


def test_what_is_stored_is_complete():
    with necessary.RESULTS.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert tuple(lines[0]) == necessary.COLUMNS and not any(line["error"] for line in lines)
    assert [(line["lever"], int(line["seed"])) for line in lines] == [
        (lever, seed) for lever in STUDY.levers for seed in range(STUDY.seeds)
    ]
    for line in lines:  # who draws a single mask has none that could be scored
        assert (line["drawn_fg_ari"] == "") == (line["lever"].startswith("one "))
        assert (line["attention_fg_ari"] == "") == (line["lever"].startswith("one slot"))


def test_a_run_that_failed_has_a_line(tmp_path):
    (run,) = ablations.planned("tetrominoes", ablations.RECIPE, "tetrominoes_fast", [], 1, tmp_path)
    line = necessary.score("tetrominoes", run, ablations.sweep.Result("", "", 0, {}, "it failed"))
    assert line["error"] == "it failed" and line.keys() <= set(necessary.COLUMNS)
