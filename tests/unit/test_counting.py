"""Counting objects, and what a number of slots costs."""

import pytest
import torch

from slotlib import counting

TRUE, FOUND = torch.tensor([2, 2, 3, 6]), torch.tensor([2, 4, 2, 6])


def test_the_confusion_of_counts_has_true_numbers_as_rows():
    table = counting.confusion(TRUE, FOUND)
    assert table.shape == (7, 7) and table.sum() == 4
    assert table[2, 2] == table[2, 4] == table[3, 2] == table[6, 6] == 1


def test_the_diagonal_is_what_was_counted_right():
    generator = torch.Generator().manual_seed(0)
    true, found = torch.randint(7, (2, 500), generator=generator)
    error, exact, surplus = counting.score(true, found)
    table = counting.confusion(true, found).double()
    distance = torch.arange(7.0)[None] - torch.arange(7.0)[:, None]
    assert exact == pytest.approx((table.diagonal().sum() / 500).item())
    assert error == pytest.approx(((table * distance.abs()).sum() / 500).item())
    assert surplus == pytest.approx(((table * distance).sum() / 500).item())


def test_scores_of_a_case_by_hand():
    assert counting.score(TRUE, FOUND) == (0.75, 0.5, 0.25)


def test_objects_are_slots_with_enough_pixels_but_the_background():
    owner = torch.zeros(2, 8, 8, dtype=torch.int64)
    owner[:, :5, :4], owner[0, 6:, 6:] = 2, 3  # of 20 and of 4 pixels
    masks = torch.nn.functional.one_hot(owner, 5).movedim(-1, 1).float()
    assert counting.pixels_owned(masks).tolist() == [[40, 0, 20, 4, 0], [44, 0, 20, 0, 0]]
    assert counting.count_objects(masks).tolist() == [1, 1]
    assert counting.count_objects(masks, 4).tolist() == [2, 1]
    with pytest.raises(ValueError, match="least must be a whole number"):
        counting.count_objects(masks, None)
    with pytest.raises(ValueError, match="masks must be floating point"):
        counting.count_objects(masks[0])


def test_counts_must_be_whole_and_one_of_each_per_image():
    with pytest.raises(ValueError, match=r"true must be integers \[batch\], got torch.float32"):
        counting.score(TRUE.float(), FOUND)
    with pytest.raises(ValueError, match=r"found must be integers \[batch=4\], got torch.int64 \[3\]"):
        counting.confusion(TRUE, FOUND[:3])
    with pytest.raises(ValueError, match="counts must be at least 0"):
        counting.confusion(TRUE - 3, FOUND)


def test_a_rate_distortion_curve_is_sorted_by_price():
    dear, cheap = torch.tensor([[1.0, 0, 0], [1, 1, 0]]), torch.ones(2, 3)
    curve = counting.rate_distortion({0.1: (dear, torch.tensor([0.5, 0.7])), 0.0: (cheap, torch.tensor([0.1, 0.3]))})
    assert curve.price.tolist() == [0.0, 0.1] and curve.kept.tolist() == [3.0, 1.5]
    assert curve.error.tolist() == pytest.approx([0.2, 0.6])
    with pytest.raises(ValueError, match="found must have a price at least"):
        counting.rate_distortion({})


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [3, 0, 5, 1, 4, 2]])
def test_the_elbow_is_where_more_slots_stop_to_pay(order):
    """Error falls fast up to four slots, then hardly: whatever the units, and however the curve is sorted."""
    kept = torch.tensor([1.0, 2, 3, 4, 7, 10])[order]
    error = torch.tensor([9.0, 6.0, 3.1, 0.5, 0.3, 0.2])[order]
    assert kept[counting.elbow(kept, error)] == 4
    assert kept[counting.elbow(kept * 100, error / 7 + 3)] == 4


def test_a_curve_that_does_not_fall_has_no_elbow():
    with pytest.raises(ValueError, match="three points at least, got 2"):
        counting.elbow(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0]))
    for flat in ([1.0, 1.0, 1.0], [1.0, 3.0, 2.0], [2.0, float("nan"), float("nan")]):
        with pytest.raises(ValueError, match="distortion must fall"):
            counting.elbow(torch.tensor([1.0, 2.0, 3.0]), torch.tensor(flat))
