"""What benchmarks/dreams.py measures: counts, properties, and judges that cannot find what is not there."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from benchmarks import dreams
from slotlib import zoo


def test_variation_between_counts():
    counts = torch.tensor([2, 3, 4, 5])
    assert dreams.variation(counts, counts.flip(0)) == 0
    assert dreams.variation(counts, counts + 10) == 1
    assert dreams.variation(counts, torch.tensor([2, 3, 4, 4])) == pytest.approx(0.25)
    assert dreams.variation(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])) == pytest.approx(1 / 3)


def painted(masks, colours):
    """Images of flat colours under hard masks, and a model that sees just these masks."""
    images = torch.einsum("bkhw,bkc->bchw", masks, colours)
    return images, lambda batch, generator: SimpleNamespace(masks=masks[: len(batch)])


def test_properties_are_areas_places_and_colours_of_what_the_observer_sees():
    labels = torch.zeros(1, 16, 16, dtype=torch.int64)
    labels[:, :4, :8] = 1  # 32 pixels above on the left
    labels[:, 15, 15] = 2  # one pixel counts for nothing
    masks = F.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    colours = torch.tensor([[[0.1, 0.1, 0.1], [1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]])
    images, observer = painted(masks, colours)
    counts, values = dreams.properties(observer, images)
    assert counts.tolist() == [1]
    ground, thing, nothing = values.view(3, 6)
    assert ground[0] == pytest.approx(223 / 256)
    assert thing.tolist() == pytest.approx([32 / 256, 1.0, 0.0, 0.5, -0.8, -8 / 15], abs=1e-5)
    assert nothing.tolist() == [0] * 6
    order = [2, 0, 1]  # which slot is which says nothing
    shuffled = dreams.properties(painted(masks[:, order], colours[:, order])[1], images)
    assert torch.equal(shuffled[0], counts) and torch.allclose(shuffled[1], values)


@pytest.mark.parametrize("judge, shape", [(dreams.judge_properties, (6,)), (dreams.judge_pixels, (3, 16, 16))])
def test_a_judge_finds_a_difference_and_only_that(judge, shape):
    torch.manual_seed(0)
    first, second = torch.rand(2, 160, *shape)
    kwargs = {"steps": 60} if judge is dreams.judge_pixels else {}
    assert abs(judge(first, second, 0, **kwargs) - 0.5) < 0.2
    assert judge(first, second * 0.7, 0, **kwargs) > 0.9


def test_judges_never_see_what_they_are_scored_on():
    first, second = torch.arange(10.0).unsqueeze(1), torch.arange(10.0, 30.0).unsqueeze(1)
    x, y, learns = dreams._shuffled(first, second, 3)
    assert (y == (x.squeeze(1) >= 10).numpy()).all()
    assert learns[:10].sum() == 5 and learns[10:].sum() == 10


def test_what_the_zoo_page_shows_was_measured_with_what_ships():
    measured = json.loads(dreams.RESULTS.read_text("utf-8"))["models"]
    assert measured.keys() == {*dreams.writers()}
    for numbers in measured.values():
        for name, sha256 in numbers["sha256"].items():
            assert zoo.load(name).card["sha256"] == sha256, f"{name} has changed; run `python -m benchmarks.dreams`"
