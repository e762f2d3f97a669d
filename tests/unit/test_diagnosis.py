"""Masks tell a healthy model from one that collapsed, tiles or wastes slots; the shipped models are the cases."""

import math
import operator
import re

import pytest
import torch

from slotlib import cli, data, zoo
from slotlib.autoencoder import AutoencoderConfig, SlotAutoencoder
from slotlib.diagnosis import THRESHOLDS, Diagnosis, align, diagnose, overlap, stillness, warnings


@pytest.fixture(scope="module")
def images():
    return data.make("tetrominoes", 64, seed=9).batch(range(64))["image"]


@torch.no_grad()
def masks_of(model, images, **options):
    return model(images, generator=torch.Generator().manual_seed(0), **options).masks


@pytest.mark.parametrize(
    ("name", "options", "kinds"),
    [
        ("tetrominoes", {}, []),
        ("tetrominoes_tiling", {}, ["tiling"]),
        ("tetrominoes_collapse", {}, ["collapse"]),
        ("tetrominoes", {"num_slots": 6}, ["duplicates"]),  # four things to hold
    ],
)
@pytest.mark.parametrize("count", [8, 64])
def test_the_shipped_models_have_the_diagnosis_they_are_shipped_for(images, name, options, kinds, count):
    found = warnings(diagnose(masks_of(zoo.load(name), images[:count], **options)))
    assert list(found) == kinds
    assert all(text.startswith(f"{kind}: ") and "try" in text for kind, text in found.items())


def test_what_is_to_be_tried_are_fields_of_a_recipe():
    said = " ".join([*warnings(Diagnosis(1, 1, 1, 1)).values(), *warnings(Diagnosis(0, 0, 1, 1)).values()])
    config = cli.read_config("tetrominoes")
    fields = re.findall(r"(?:model|train)\.[\w.]*\w", said)
    assert len(fields) == 5
    for name in fields:
        operator.attrgetter(name)(config)


def test_an_untrained_model_has_collapsed(images):
    torch.manual_seed(0)
    signs = diagnose(masks_of(SlotAutoencoder(AutoencoderConfig()), images[:8]))
    assert signs.mask_entropy > 0.95
    assert list(warnings(signs)) == ["collapse"]


@pytest.mark.parametrize("name", ["tetrominoes", "shapes", "multi_dsprites", "clevr"])
def test_true_masks_are_healthy(name):
    masks = torch.nn.functional.one_hot(data.make(name, 16, seed=3).batch(range(16))["mask"].long())
    signs = diagnose(masks.movedim(-1, 1).float())
    assert warnings(signs) == {}
    assert signs.stillness < THRESHOLDS.stillness / 2


def random_masks(seed=0, shape=(40, 5, 12, 12)):
    return (4 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).softmax(dim=1)


def test_masks_of_no_pattern_in_common_are_not_still():
    # Over many images chance is taken off; matching finds a little in common even in noise.
    assert stillness(random_masks(shape=(200, 4, 12, 12))) < 0.05


def test_masks_that_never_move_are_still_in_whatever_order_the_slots_come():
    one = random_masks(shape=(1, 5, 12, 12))
    shuffled = torch.stack([one[0, torch.randperm(5, generator=torch.Generator().manual_seed(i))] for i in range(20)])
    assert stillness(shuffled) == pytest.approx(1, abs=1e-5)
    aligned = align(shuffled.flatten(2))
    assert torch.equal(aligned, aligned[:1].expand_as(aligned))


def test_the_order_of_slots_changes_nothing_else():
    masks = random_masks()
    order = torch.stack([torch.randperm(5, generator=torch.Generator().manual_seed(i)) for i in range(40)])
    shuffled = masks.gather(1, order[:, :, None, None].expand_as(masks))
    kept, moved = diagnose(masks)._replace(stillness=0), diagnose(shuffled)._replace(stillness=0)
    assert kept == pytest.approx(moved, abs=1e-6)


def test_two_slots_that_share_everything_overlap_wholly_and_empty_ones_not_at_all():
    hard = torch.eye(3).repeat_interleave(4, dim=1).expand(2, 3, 12).reshape(2, 3, 3, 4)
    assert overlap(hard) == 0
    shared = torch.cat([hard[:, :2], hard[:, 2:] * 0.7, hard[:, 2:] * 0.3], dim=1)
    assert overlap(shared) == pytest.approx(1)
    empty = torch.cat([hard[:, :2], hard[:, 2:] * 0.999, hard[:, 2:] * 0.001], dim=1)
    assert overlap(empty) == 0


def test_what_cannot_be_measured_is_no_warning():
    single_slot = diagnose(torch.ones(4, 1, 8, 8))
    assert all(math.isnan(number) for number in single_slot)
    assert warnings(single_slot) == {}
    assert math.isnan(diagnose(random_masks(shape=(1, 4, 8, 8))).stillness)
