"""Segmentation metrics against scikit-learn, against brute force, and by hand."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import adjusted_rand_score, rand_score

from slotlib.metrics import (
    adjusted_rand_index,
    contingency,
    fg_ari,
    mean_best_overlap,
    mean_iou,
    rand_index,
)

METRICS = [adjusted_rand_index, rand_index, fg_ari, mean_best_overlap, mean_iou]
LABELS = {
    "few": st.integers(0, 3),
    "some negative": st.integers(-2, 2),
    "huge": st.sampled_from([-(2**63), -1, 0, 7, 255, 256, 10**12, 2**63 - 1]),
}


@st.composite
def segmentations(draw, labels=None, max_pixels: int = 30):
    """A batch of true and of predicted label maps, int64 `[batch, pixels]`."""
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, max_pixels)))
    kind = labels or draw(st.sampled_from(sorted(LABELS)))
    both = (hnp.arrays(np.int64, shape, elements=LABELS[kind]) for _ in range(2))
    return tuple(torch.from_numpy(draw(one)) for one in both)


def maps(*images: list[int]) -> torch.Tensor:
    return torch.tensor(images)


def random_maps(seed: int, labels: int, shape: tuple[int, ...] = (6, 40)) -> torch.Tensor:
    return torch.randint(labels, shape, generator=torch.Generator().manual_seed(seed))


# --- against scikit-learn ---


@given(segmentations())
@settings(max_examples=80, deadline=None)
def test_ari_is_scikit_learn_s(both):
    expected = [adjusted_rand_score(t, p) for t, p in zip(*both, strict=True)]
    np.testing.assert_allclose(adjusted_rand_index(*both), expected, rtol=0, atol=1e-9)


@given(segmentations())
@settings(max_examples=50, deadline=None)
def test_rand_index_is_scikit_learn_s(both):
    expected = [rand_score(t, p) for t, p in zip(*both, strict=True)]
    np.testing.assert_allclose(rand_index(*both), expected, rtol=0, atol=1e-9)


@given(segmentations())
@settings(max_examples=80, deadline=None)
def test_fg_ari_is_scikit_learn_s_over_the_foreground(both):
    for background in (0, -1):
        expected = [
            adjusted_rand_score(t[t != background], p[t != background]) if (t != background).any() else 1.0
            for t, p in zip(*both, strict=True)
        ]
        np.testing.assert_allclose(fg_ari(*both, background=background), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("pixels", [64 * 64, 512 * 512])
def test_large_images_keep_all_digits(pixels):
    # 512² pixels form 3·10¹⁰ pairs, beyond float32 and int32.
    true, pred = random_maps(0, 7, (2, pixels)), random_maps(1, 11, (2, pixels))
    pred = torch.where(random_maps(2, 2, (2, pixels)) == 0, true, pred)
    expected = [adjusted_rand_score(t, p) for t, p in zip(true, pred, strict=True)]
    np.testing.assert_allclose(adjusted_rand_index(true, pred), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool])
def test_every_integer_type_counts_alike(dtype):
    true, pred = random_maps(0, 2), random_maps(1, 2)
    for metric in METRICS:
        assert torch.equal(metric(true.to(dtype), pred.to(dtype)), metric(true, pred))
        assert metric(true.to(dtype), pred.to(dtype)).dtype == torch.float64


# --- by hand ---


def test_one_worked_example():
    # True objects of 3, 2 and 1 pixels; the prediction moves one pixel of the first into the second.
    true, pred = maps([1, 1, 1, 2, 2, 3]), maps([5, 5, 6, 6, 6, 7])
    # Pairs: 15 in all, together in true 3 + 1 + 0 = 4, in pred 1 + 3 + 0 = 4, in both 1 + 1 = 2.
    assert rand_index(true, pred).item() == pytest.approx(11 / 15)
    assert adjusted_rand_index(true, pred).item() == pytest.approx((2 - 16 / 15) / (4 - 16 / 15))
    # IoU: object 1 with segment 5: 2/3, object 2 with segment 6: 2/3, object 3 with segment 7: 1.
    assert mean_best_overlap(true, pred).item() == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert mean_iou(true, pred).item() == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)


def test_fg_ari_is_blind_to_swallowed_background_and_the_overlaps_are_not():
    true, pred = maps([0, 0, 0, 0, 1, 1, 2, 2]), maps([1, 1, 2, 2, 1, 1, 2, 2])
    assert fg_ari(true, pred).item() == 1
    assert mean_best_overlap(true, pred).item() == pytest.approx(0.5)
    assert adjusted_rand_index(true, pred).item() < 0.5


def test_one_segment_is_the_best_of_several_objects_but_matches_only_one():
    true, pred = maps([1, 1, 2, 2]), maps([0, 0, 0, 0])
    assert mean_best_overlap(true, pred).item() == pytest.approx(0.5)
    assert mean_iou(true, pred).item() == pytest.approx(0.25)


def test_background_counts_as_an_object_when_asked():
    true, pred = maps([0, 0, 0, 1]), maps([0, 0, 0, 0])
    assert mean_best_overlap(true, pred).item() == pytest.approx(0.25)
    assert mean_best_overlap(true, pred, background=None).item() == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert mean_iou(true, pred, background=None).item() == pytest.approx((3 / 4 + 0) / 2)


def test_contingency_counts_pixels():
    true, pred = maps([0, 0, 1, 2, 2, 2]), maps([1, 0, 0, 1, 1, 1])
    assert contingency(true, pred).tolist() == [[[1, 1], [1, 0], [0, 3]]]
    assert contingency(true, pred, background=0).tolist() == [[[0, 0], [1, 0], [0, 3]]]


def test_chance_scores_zero_on_average():
    true, pred = random_maps(0, 4, (4000, 50)), random_maps(1, 4, (4000, 50))
    scores = adjusted_rand_index(true, pred)
    assert abs(scores.mean()) < 4 * scores.std() / 4000**0.5
    assert rand_index(true, pred).mean() > 0.6  # what the adjustment is for


# --- against brute force ---


def overlaps_by_brute_force(true, pred, background):
    """mBO and mIoU of one image, from masks and from every possible matching."""
    objects = [true == label for label in true.unique() if background is None or label != background]
    segments = [pred == label for label in pred.unique()]
    if not objects:
        return 1.0, 1.0
    iou = [[((o & s).sum() / (o | s).sum()).item() for s in segments] for o in objects]
    # More columns of zeros than objects: an object may go without a segment.
    padded = [row + [0.0] * len(objects) for row in iou]
    matchings = permutations(range(len(padded[0])), len(objects))
    best = max(sum(padded[i][j] for i, j in enumerate(columns)) for columns in matchings)
    return sum(max(row) for row in iou) / len(objects), best / len(objects)


@given(segmentations(labels="few", max_pixels=12), st.sampled_from([0, 2, None]))
@settings(max_examples=60, deadline=None)
def test_overlaps_are_those_of_brute_force(both, background):
    expected = [overlaps_by_brute_force(t, p, background) for t, p in zip(*both, strict=True)]
    mbo, miou = zip(*expected, strict=True)
    np.testing.assert_allclose(mean_best_overlap(*both, background), mbo, rtol=0, atol=1e-6)
    np.testing.assert_allclose(mean_iou(*both, background), miou, rtol=0, atol=1e-6)


# --- what must hold for any segmentation ---


@given(segmentations())
@settings(max_examples=50, deadline=None)
def test_a_matching_never_beats_the_best_overlaps(both):
    for background in (0, None):
        mbo, miou = mean_best_overlap(*both, background), mean_iou(*both, background)
        assert (miou <= mbo + 1e-12).all()
        assert ((miou >= 0) & (mbo <= 1)).all()


@given(segmentations(), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_names_of_segments_do_not_matter(both, seed):
    true, pred = both
    random = np.random.default_rng(seed)
    labels = np.unique(pred)
    new_names = random.choice(np.arange(-(10**6), 10**6), size=len(labels), replace=False)
    renamed = torch.from_numpy(new_names)[np.searchsorted(labels, pred.numpy())]
    for metric in METRICS:
        torch.testing.assert_close(metric(true, renamed), metric(true, pred), rtol=0, atol=1e-12)


@given(segmentations(), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_where_the_pixels_lie_does_not_matter(both, seed):
    order = torch.randperm(both[0].shape[1], generator=torch.Generator().manual_seed(seed))
    for metric in METRICS:
        moved = metric(*(x[:, order] for x in both))
        torch.testing.assert_close(moved, metric(*both), rtol=0, atol=1e-12)


@given(segmentations())
@settings(max_examples=50, deadline=None)
def test_the_rand_indices_are_symmetric(both):
    for metric in (adjusted_rand_index, rand_index):
        torch.testing.assert_close(metric(*both), metric(*both[::-1]), rtol=0, atol=1e-12)


@given(segmentations())
@settings(max_examples=50, deadline=None)
def test_a_batch_is_scored_image_by_image(both):
    for metric in METRICS:
        alone = torch.cat([metric(t[None], p[None]) for t, p in zip(*both, strict=True)])
        torch.testing.assert_close(metric(*both), alone, rtol=0, atol=1e-12)


@given(segmentations())
@settings(max_examples=50, deadline=None)
def test_a_perfect_prediction_scores_one(both):
    for metric in METRICS:
        assert (metric(both[0], both[0]) == 1).all()


def test_height_and_width_are_only_pixels():
    true, pred = random_maps(0, 4, (3, 5, 8)), random_maps(1, 4, (3, 5, 8))
    for metric in METRICS:
        assert torch.equal(metric(true, pred), metric(true.flatten(1), pred.flatten(1)))


# --- edges ---


@pytest.mark.parametrize("metric", METRICS)
def test_one_cluster_on_both_sides_is_agreement(metric):
    for pixels in (1, 2, 10, 128 * 128, 513 * 511):
        true = torch.full((2, pixels), 3)
        assert metric(true, true * 0 + 9).tolist() == [1, 1]


def test_every_pixel_its_own_cluster_on_both_sides_is_agreement():
    true = torch.arange(50).unsqueeze(0)
    assert adjusted_rand_index(true, true.flip(1)).item() == 1


def test_one_cluster_against_all_singletons_is_chance():
    assert adjusted_rand_index(torch.zeros(1, 50).long(), torch.arange(50)[None]).item() == 0


@pytest.mark.parametrize("metric", [fg_ari, mean_best_overlap, mean_iou])
def test_an_image_without_foreground_scores_one(metric):
    assert metric(torch.zeros(1, 40).long(), random_maps(0, 3, (1, 40))).item() == 1


def test_a_single_object_told_whole_scores_one_and_split_scores_zero():
    true = maps([0, 0, 4, 4, 4, 4])
    assert fg_ari(true, maps([1, 2, 3, 3, 3, 3])).item() == 1
    assert fg_ari(true, maps([1, 2, 3, 3, 5, 5])).item() == 0


@pytest.mark.parametrize("metric", METRICS)
def test_a_single_pixel_has_no_pairs_to_get_wrong(metric):
    assert metric(maps([5]), maps([8])).item() == 1


@pytest.mark.parametrize("metric", METRICS)
def test_an_empty_batch_has_no_scores(metric):
    nothing = torch.zeros(0, 40).long()
    assert metric(nothing, nothing).shape == (0,)


@pytest.mark.parametrize("metric", METRICS)
def test_images_without_pixels_score_one(metric):
    nothing = torch.zeros(3, 0).long()
    assert metric(nothing, nothing).tolist() == [1, 1, 1]


def test_identifiers_unique_across_the_batch_cost_no_more_than_small_ones():
    # Instance numbers of a whole dataset: 16 images of 16 pixels, no label shared.
    labels = 10**6 + torch.arange(256).view(16, 16)
    assert contingency(labels, labels).shape == (16, 16, 16)
    assert adjusted_rand_index(labels, labels).tolist() == [1] * 16


# --- bad input ---


@pytest.mark.parametrize("metric", METRICS)
def test_bad_input_is_one_clear_error(metric):
    good = random_maps(0, 3, (2, 8))
    with pytest.raises(TypeError, match=r"true.*integer.*float32"):
        metric(good.float(), good)
    with pytest.raises(TypeError, match=r"pred.*integer.*complex64"):
        metric(good, good.to(torch.complex64))
    with pytest.raises(ValueError, match=r"\[2, 8\].*\[2, 7\]"):
        metric(good, good[:, :7])
    with pytest.raises(ValueError, match=r"\[batch, pixels\].*\[8\]"):
        metric(good[0], good[0])
