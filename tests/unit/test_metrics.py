"""Segmentation and slot metrics against scikit-learn, against brute force, and by hand."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import adjusted_rand_score, rand_score
from sklearn.metrics.cluster import pair_confusion_matrix

from slotlib.metrics import (
    adjusted_rand_index,
    contingency,
    fg_ari,
    intersection_over_union,
    mean_best_overlap,
    mean_iou,
    pair_counts,
    panoptic_quality,
    rand_index,
    segmentation_covering,
    slot_consistency,
    slot_usage,
)

OVERLAPS = [mean_best_overlap, segmentation_covering, mean_iou, panoptic_quality]
METRICS = [adjusted_rand_index, rand_index, fg_ari, *OVERLAPS]
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
@settings(max_examples=60, deadline=None)
def test_ari_is_scikit_learn_s(both):
    expected = [adjusted_rand_score(t, p) for t, p in zip(*both, strict=True)]
    np.testing.assert_allclose(adjusted_rand_index(*both), expected, rtol=0, atol=1e-9)


@given(segmentations())
@settings(max_examples=30, deadline=None)
def test_rand_index_is_scikit_learn_s(both):
    expected = [rand_score(t, p) for t, p in zip(*both, strict=True)]
    np.testing.assert_allclose(rand_index(*both), expected, rtol=0, atol=1e-9)


@given(segmentations())
@settings(max_examples=30, deadline=None)
def test_pair_counts_are_scikit_learn_s(both):
    # Its 2×2 matrix counts every pair twice: [[apart, together in pred only], [together in true only, together]].
    expected = [pair_confusion_matrix(t, p) / 2 for t, p in zip(*both, strict=True)]
    for count, row, column in zip(pair_counts(*both), (1, 0, 1, 0), (1, 0, 0, 1), strict=True):
        assert count.tolist() == [matrix[row, column] for matrix in expected]


@given(segmentations())
@settings(max_examples=60, deadline=None)
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


TORCH = [torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.int64, torch.bool]
NUMPY = ["?", "u1", "i1", "<u2", ">u2", "<i4", ">i4", "<u8", ">u8", "<i8"]


@pytest.mark.parametrize("dtype", TORCH)
def test_every_integer_type_counts_alike(dtype):
    true, pred = random_maps(0, 2), random_maps(1, 2)
    for metric in METRICS:
        assert torch.equal(metric(true.to(dtype), pred.to(dtype)), metric(true, pred))
        assert metric(true.to(dtype), pred.to(dtype)).dtype == torch.float64


@pytest.mark.parametrize("dtype", NUMPY)
def test_numpy_arrays_count_as_tensors_do(dtype):
    true, pred = random_maps(0, 2, (6, 5, 8)), random_maps(1, 2, (6, 5, 8))
    arrays = [labels.numpy().astype(dtype) for labels in (true, pred)]
    for array in arrays:
        array.setflags(write=False)
    for metric in METRICS:
        assert torch.equal(metric(*arrays), metric(true, pred))
        assert torch.equal(metric(arrays[0], pred), metric(true, pred))
        assert torch.equal(metric(*(array[:, ::-1, ::2] for array in arrays)), metric(true[..., ::2], pred[..., ::2]))
    assert torch.equal(slot_usage(arrays[1], 3), slot_usage(pred, 3))
    assert torch.equal(slot_consistency(*arrays, *arrays[::-1]), slot_consistency(true, pred, pred, true))


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


def test_the_kinds_of_pairs_in_that_example():
    true, pred = maps([1, 1, 1, 2, 2, 3]), maps([5, 5, 6, 6, 6, 7])
    a, b, c, d = (count.item() for count in pair_counts(true, pred))
    assert (a, b, c, d) == (2, 9, 2, 2)
    assert pair_counts(true, pred, background=3).b.item() == 9 - 5  # the last pixel is apart from five others


def test_fg_ari_is_blind_to_swallowed_background_and_the_overlaps_are_not():
    true, pred = maps([0, 0, 0, 0, 1, 1, 2, 2]), maps([1, 1, 2, 2, 1, 1, 2, 2])
    assert fg_ari(true, pred).item() == 1
    assert mean_best_overlap(true, pred).item() == pytest.approx(0.5)
    assert adjusted_rand_index(true, pred).item() < 0.5


def test_one_segment_is_the_best_of_several_objects_but_matches_only_one():
    true, pred = maps([1, 1, 2, 2]), maps([0, 0, 0, 0])
    assert mean_best_overlap(true, pred).item() == pytest.approx(0.5)
    assert mean_iou(true, pred).item() == pytest.approx(0.25)


def test_covering_weighs_objects_by_area_and_mbo_does_not():
    # An object of six pixels found whole, one of two pixels found by half.
    true, pred = maps([1, 1, 1, 1, 1, 1, 2, 2]), maps([1, 1, 1, 1, 1, 1, 2, 3])
    assert mean_best_overlap(true, pred).item() == pytest.approx((1 + 1 / 2) / 2)
    assert segmentation_covering(true, pred).item() == pytest.approx((6 * 1 + 2 / 2) / 8)


def test_panoptic_quality_pays_for_missed_objects_and_for_surplus_segments():
    true = maps([0, 0, 1, 1, 1, 1, 2, 2])
    assert panoptic_quality(true, maps([9, 9, 1, 1, 1, 1, 2, 2])).item() == 1
    # Object 2 goes with the background: one match, two objects, and the segment 9 half on the object counts.
    assert panoptic_quality(true, maps([9, 9, 1, 1, 1, 1, 9, 9])).item() == pytest.approx(1 / ((2 + 2) / 2))
    # Object 1 falls in pieces of 3/4 and 1/4: matches of IoU 3/4 and 1, two objects, three segments.
    assert panoptic_quality(true, maps([9, 9, 1, 1, 1, 5, 2, 2])).item() == pytest.approx(1.75 / ((2 + 3) / 2))
    # Exactly one half is no match.
    assert panoptic_quality(true, maps([9, 9, 1, 1, 5, 5, 2, 2])).item() == pytest.approx(1 / ((2 + 3) / 2))
    # Cutting up the background costs nothing, unless it counts as an object.
    assert panoptic_quality(true, maps([8, 9, 1, 1, 1, 1, 2, 2])).item() == 1
    assert panoptic_quality(true, maps([8, 9, 1, 1, 1, 1, 2, 2]), None).item() == pytest.approx(2 / ((3 + 4) / 2))


def test_background_counts_as_an_object_when_asked():
    true, pred = maps([0, 0, 0, 1]), maps([0, 0, 0, 0])
    assert mean_best_overlap(true, pred).item() == pytest.approx(0.25)
    assert mean_best_overlap(true, pred, background=None).item() == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert mean_iou(true, pred, background=None).item() == pytest.approx((3 / 4 + 0) / 2)


def test_contingency_counts_pixels():
    true, pred = maps([0, 0, 1, 2, 2, 2]), maps([1, 0, 0, 1, 1, 1])
    assert contingency(true, pred).tolist() == [[[1, 1], [1, 0], [0, 3]]]
    assert contingency(true, pred, background=0).tolist() == [[[0, 0], [1, 0], [0, 3]]]


def test_intersection_over_union_is_that_of_every_pair_of_segments():
    true, pred = maps([0, 0, 1, 3, 3, 3]), maps([1, 0, 0, 1, 1, 1])
    expected = [[1 / 3, 1 / 5], [1 / 2, 0], [0, 0], [0, 3 / 4]]  # there is no segment 2
    torch.testing.assert_close(intersection_over_union(true, pred), torch.tensor([expected]).double())


def test_chance_scores_zero_on_average():
    true, pred = random_maps(0, 4, (4000, 50)), random_maps(1, 4, (4000, 50))
    scores = adjusted_rand_index(true, pred)
    assert abs(scores.mean()) < 4 * scores.std() / 4000**0.5
    assert rand_index(true, pred).mean() > 0.6  # what the adjustment is for


# --- against brute force ---


def overlaps_by_brute_force(true, pred, background):
    """mBO, covering, mIoU and PQ of one image, from masks and from every possible matching."""
    objects = [true == label for label in true.unique() if background is None or label != background]
    segments = [pred == label for label in pred.unique()]
    on_objects = torch.ones_like(true, dtype=torch.bool) if background is None else true != background
    tried = [s for s in segments if 2 * (s & on_objects).sum() >= s.sum()]
    if not objects:
        return 1.0, 1.0, 1.0, 0.0 if tried else 1.0
    iou = [[((o & s).sum() / (o | s).sum()).item() for s in segments] for o in objects]
    # More columns of zeros than objects: an object may go without a segment.
    padded = [row + [0.0] * len(objects) for row in iou]
    matchings = permutations(range(len(padded[0])), len(objects))
    best = max(sum(padded[i][j] for i, j in enumerate(columns)) for columns in matchings)
    area = [o.sum().item() for o in objects]
    covering = sum(a * max(row) for a, row in zip(area, iou, strict=True)) / sum(area)
    hits = [value for row in iou for value in row if value > 0.5]
    quality = sum(hits) / (len(hits) + (len(objects) - len(hits)) / 2 + (len(tried) - len(hits)) / 2)
    return sum(max(row) for row in iou) / len(objects), covering, best / len(objects), quality


@given(segmentations(labels="few", max_pixels=12), st.sampled_from([0, 2, None]))
@settings(max_examples=60, deadline=None)
def test_overlaps_are_those_of_brute_force(both, background):
    expected = [overlaps_by_brute_force(t, p, background) for t, p in zip(*both, strict=True)]
    for metric, values in zip(OVERLAPS, zip(*expected, strict=True), strict=True):
        np.testing.assert_allclose(metric(*both, background), values, rtol=0, atol=1e-6)


# --- what must hold for any segmentation ---


@given(segmentations())
@settings(max_examples=30, deadline=None)
def test_a_matching_never_beats_the_best_overlaps(both):
    for background in (0, None):
        mbo, miou = mean_best_overlap(*both, background), mean_iou(*both, background)
        assert (miou <= mbo + 1e-12).all()
        for metric in OVERLAPS:
            assert ((metric(*both, background) >= 0) & (metric(*both, background) <= 1)).all()


@given(segmentations(), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_names_of_segments_do_not_matter(both, seed):
    true, pred = both
    random = np.random.default_rng(seed)
    labels = np.unique(pred)
    new_names = random.choice(np.arange(-(10**6), 10**6), size=len(labels), replace=False)
    renamed = torch.from_numpy(new_names)[np.searchsorted(labels, pred.numpy())]
    for metric in METRICS:
        torch.testing.assert_close(metric(true, renamed), metric(true, pred), rtol=0, atol=1e-12)


@given(segmentations(), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_where_the_pixels_lie_does_not_matter(both, seed):
    order = torch.randperm(both[0].shape[1], generator=torch.Generator().manual_seed(seed))
    for metric in METRICS:
        moved = metric(*(x[:, order] for x in both))
        torch.testing.assert_close(moved, metric(*both), rtol=0, atol=1e-12)


@given(segmentations())
@settings(max_examples=30, deadline=None)
def test_the_rand_indices_are_symmetric(both):
    for metric in (adjusted_rand_index, rand_index):
        torch.testing.assert_close(metric(*both), metric(*both[::-1]), rtol=0, atol=1e-12)


@given(segmentations())
@settings(max_examples=30, deadline=None)
def test_both_forms_of_the_adjustment_are_one(both):
    # (index - expected) / (best - expected), in Hubert and Arabie's words; the library uses it multiplied out.
    a, b, c, d = pair_counts(*both)
    expected = (a + c) * (a + d) / (a + b + c + d).clamp(min=1)
    best = ((a + c) + (a + d)) / 2
    with_words = torch.where(best > expected, (a - expected) / (best - expected), 1.0)
    torch.testing.assert_close(adjusted_rand_index(*both), with_words, rtol=0, atol=1e-9)


@given(segmentations())
@settings(max_examples=30, deadline=None)
def test_a_batch_is_scored_image_by_image(both):
    for metric in METRICS:
        alone = torch.cat([metric(t[None], p[None]) for t, p in zip(*both, strict=True)])
        torch.testing.assert_close(metric(*both), alone, rtol=0, atol=1e-12)


@given(segmentations())
@settings(max_examples=30, deadline=None)
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


@pytest.mark.parametrize("metric", [fg_ari, *OVERLAPS])
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


# --- slots ---


def test_slot_usage_is_a_share_of_pixels():
    usage = slot_usage(maps([0, 0, 2, 2, 2, 0, 0, 0], [1] * 8), num_slots=4)
    assert usage.tolist() == [[5 / 8, 0, 3 / 8, 0], [0, 1, 0, 0]]
    assert slot_usage(torch.zeros(2, 0).long(), 3).tolist() == [[0] * 3] * 2
    assert slot_usage(torch.zeros(0, 5).long(), 3).shape == (0, 3)


def test_slot_usage_knows_how_many_slots_there_are():
    for labels in ([0, 3], [-1, 0]):
        with pytest.raises(ValueError, match=r"slots in pred must be within 0 and 2, got -?\d"):
            slot_usage(maps(labels), 3)


def test_an_object_keeps_its_slot_wherever_it_moves_and_however_large_it_is():
    true, pred = maps([0, 0, 1, 1, 2, 2, 2, 0]), maps([3, 3, 1, 1, 2, 2, 2, 3])
    true_again, pred_again = maps([2, 2, 0, 0, 0, 0, 1, 1, 1, 1]), maps([2, 2, 3, 3, 3, 3, 1, 1, 1, 1])
    assert slot_consistency(true, pred, true_again, pred_again, rename=False).item() == 1
    # Two objects that change slots: a name apart, everything is as it was.
    swapped = torch.tensor([0, 2, 1, 3])[pred_again]
    assert slot_consistency(true, pred, true_again, swapped).item() == 1
    assert slot_consistency(true, pred, true_again, swapped, rename=False).item() == 0


def test_an_object_that_is_split_the_second_time_keeps_its_larger_part():
    true = maps([1, 1, 1, 1, 2, 2])
    assert slot_consistency(true, true, true, maps([1, 1, 1, 3, 2, 2])).item() == pytest.approx((3 / 4 + 1) / 2)


def test_merging_objects_is_inconsistent_once_and_consistent_twice():
    true, merged = maps([1, 1, 2, 2]), maps([5, 5, 5, 5])
    assert slot_consistency(true, true, true, merged).item() == pytest.approx(1 / 2)
    assert slot_consistency(true, merged, true, merged).item() == 1


def test_only_objects_of_both_runs_are_compared():
    true, true_again = maps([0, 1, 1, 2]), maps([0, 1, 1, 3])
    pred, pred_again = maps([0, 1, 1, 0]), maps([0, 1, 1, 2])
    assert slot_consistency(true, pred, true_again, pred_again).item() == 1
    assert slot_consistency(maps([0, 1]), maps([0, 0]), maps([2, 0]), maps([0, 0])).item() == 1


@given(segmentations(labels="few"), segmentations(labels="few"), st.booleans())
@settings(max_examples=30, deadline=None)
def test_consistency_is_symmetric_perfect_with_itself_and_a_share(one, two, rename):
    count = min(len(one[0]), len(two[0]))
    one, two = (tuple(x[:count] for x in both) for both in (one, two))
    score = slot_consistency(*one, *two, rename=rename)
    torch.testing.assert_close(score, slot_consistency(*two, *one, rename=rename), rtol=0, atol=1e-12)
    assert ((score >= 0) & (score <= 1 + 1e-12)).all()
    assert (score <= slot_consistency(*one, *two) + 1e-12).all()
    torch.testing.assert_close(slot_consistency(*one, *one, rename=rename), torch.ones(count).double())


def test_consistency_needs_labels_that_mean_the_same_twice():
    good = random_maps(0, 3, (2, 8))
    with pytest.raises(ValueError, match="objects must be within 0 and 255, got 1000 to 1002"):
        slot_consistency(good + 1000, good, good, good)
    with pytest.raises(ValueError, match="slots must be within 0 and 255, got -1 to 1"):
        slot_consistency(good, good, good, good - 1)
    with pytest.raises(ValueError, match="batches of 2 and 1"):
        slot_consistency(good, good, good[:1], good[:1])


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
    for wrong in (None, "x", 3, good.tolist(), good.numpy().astype(float), good.numpy().astype(object)):
        with pytest.raises(TypeError, match="pred must hold integer labels, got"):
            metric(good, wrong)


@pytest.mark.parametrize("metric", [fg_ari, *OVERLAPS])
@pytest.mark.parametrize("background", ["0", 0.5, True, [0]])
def test_a_background_is_a_whole_number(metric, background):
    good = random_maps(0, 3, (2, 8))
    with pytest.raises(ValueError, match="background must be a whole number"):
        metric(good, good, background)
