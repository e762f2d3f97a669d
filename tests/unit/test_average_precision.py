"""Average precision against the plain loop over detections that the official code describes, and by hand."""

from itertools import pairwise
from math import inf, isnan, nan

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from slotlib.data.targets import PROPERTIES, SCENE_SIZE
from slotlib.metrics import THRESHOLDS, average_precision

ATTRIBUTES = ("size", "material", "shape", "colour")


def average_precision_by_loop(pred: np.ndarray, target: np.ndarray, threshold: float) -> float:
    """Detection by detection, object by object."""
    presence = pred[:, :, 18].reshape(-1)
    hits, taken = [], set()
    for detection in np.argsort(presence)[::-1]:
        image, place = divmod(int(detection), pred.shape[1])
        guess = pred[image, place]
        least, nearest = 10_000, None
        for number, thing in enumerate(target[image]):
            if thing[18] == 0:
                continue
            if any(guess[PROPERTIES[k]].argmax() != thing[PROPERTIES[k]].argmax() for k in ATTRIBUTES):
                continue
            distance = np.linalg.norm((thing[:3] - guess[:3]) * 6)
            if distance < least:
                least, nearest = distance, number
        hit = nearest is not None and least < threshold and (image, nearest) not in taken
        if hit:
            taken.add((image, nearest))
        hits.append(hit)
    objects = target[:, :, 18].sum()
    if objects == 0:
        return nan
    precision = [sum(hits[: n + 1]) / (n + 1) for n in range(len(hits))]
    # Each hit raises recall by one object; what it earns is the best precision at this recall or a higher one.
    return sum(max(precision[n:]) for n, hit in enumerate(hits) if hit) / objects


def agrees(pred: torch.Tensor, target: torch.Tensor, threshold: float) -> None:
    expected = average_precision_by_loop(pred.numpy(), target.numpy(), threshold)
    assert average_precision(pred, target, threshold) == pytest.approx(expected, abs=1e-6, nan_ok=True)


def an_object(position=(0.0, 0.0, 0.0), size=0, material=0, shape=0, colour=0, presence=1.0) -> torch.Tensor:
    """The 19 values of an object; its position in metres."""
    coordinates = torch.tensor(position) / SCENE_SIZE + 0.5
    kinds = (F.one_hot(torch.tensor(k), n) for k, n in ((size, 2), (material, 2), (shape, 3), (colour, 8)))
    return torch.cat([coordinates, *kinds, torch.tensor([presence])])


def sets(*images: list[torch.Tensor]) -> torch.Tensor:
    """A batch, padded with zeros."""
    batch = torch.zeros(len(images), max(map(len, images)), 19)
    for row, image in enumerate(images):
        for column, one in enumerate(image):
            batch[row, column] = one
    return batch


def random_sets(seed: int, images: int, predictions: int, objects: int, kinds: int = 2):
    """Crowded scenes of few kinds, so that hits, duplicates and confusions are all frequent.

    Coordinates are eighths: then all distances are computed without rounding, and many are equal.
    """
    random = torch.Generator().manual_seed(seed)

    def draw(count):
        values = torch.zeros(images, count, 19)
        values[..., :3] = torch.randint(9, (images, count, 3), generator=random) / 8
        values[..., 2] = 0.5
        for name in ATTRIBUTES:
            part = values[..., PROPERTIES[name]]
            kind = torch.randint(kinds, part.shape[:2], generator=random)
            part.copy_(F.one_hot(kind * (name in ("size", "colour")), part.shape[2]))
        return values

    pred, target = draw(predictions), draw(objects)
    target[..., 18] = torch.rand(images, objects, generator=random) < 0.7
    target = target * target[..., 18:]
    near = torch.rand(images, min(predictions, objects), generator=random) < 0.5
    pred[:, : near.shape[1]][near] = target[:, : near.shape[1]][near]
    return pred, target, random


def test_the_thresholds_are_the_paper_s():
    assert list(THRESHOLDS) == [inf, 1, 0.5, 0.25, 0.125]


# --- against the loop ---


@given(
    st.integers(0, 2**31),
    st.integers(1, 5),
    st.integers(1, 6),
    st.integers(1, 5),
    st.sampled_from([*THRESHOLDS, 0.75, 1.5]),  # 0.75 and 1.5 are distances that occur
    st.sampled_from([1, 2, 5, 10**6]),
)
@settings(max_examples=200, deadline=None)
def test_it_is_the_loop(seed, images, predictions, objects, threshold, levels):
    pred, target, random = random_sets(seed, images, predictions, objects)
    pred[..., 18] = torch.randint(levels, (images, predictions), generator=random) / levels  # with ties
    agrees(pred, target, threshold)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_loop_on_outputs_of_a_network(seed):
    random = torch.Generator().manual_seed(seed)
    _, target, _ = random_sets(seed, 40, 1, 10)
    logits = 6 * (torch.cat([target, torch.zeros(40, 2, 19)], dim=1) - 0.5)
    pred = (logits + 2 * torch.randn(logits.shape, generator=random)).sigmoid()
    pred[..., :3] = 0.05 * torch.randn(40, 12, 3, generator=random)
    pred[:, :10, :3] += target[..., :3]
    for threshold in THRESHOLDS:
        agrees(pred, target, threshold)


@pytest.mark.parametrize("levels", [1, 3])
def test_ties_are_broken_as_the_loop_breaks_them_in_large_batches_too(levels):
    pred, target, random = random_sets(0, 300, 6, 5)
    pred[..., 18] = torch.randint(levels, (300, 6), generator=random).float()
    agrees(pred, target, 1.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_count_alike(dtype):
    pred, target, random = random_sets(0, 20, 6, 5)
    pred[..., 18] = torch.randint(100, (20, 6), generator=random) / 128  # exact in eight bits
    wide = average_precision(pred, target, 1.0)
    assert average_precision(pred.to(dtype), target.to(dtype), 1.0) == pytest.approx(wide)
    assert average_precision(pred.requires_grad_(), target, 1.0) == wide


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2"])
def test_numpy_arrays_count_as_tensors_do(dtype):
    pred, target, random = random_sets(0, 20, 6, 5)
    pred[..., 18] = torch.randint(100, (20, 6), generator=random) / 128
    arrays = pred.numpy().astype(dtype), target.numpy().astype(dtype)
    assert average_precision(*arrays, 1.0) == average_precision(pred, target, 1.0)


# --- by hand ---


def test_the_truth_scores_one_at_every_threshold():
    target = sets([an_object(), an_object((1, 1, 0), colour=3)], [an_object(shape=2)], [])
    assert all(average_precision(target, target, t) == pytest.approx(1) for t in THRESHOLDS)


def test_one_worked_example():
    target = sets([an_object(colour=1), an_object((1, 0, 0), colour=2)])
    pred = sets(
        [
            an_object(colour=1, presence=0.9),  # a hit: precision 1, recall 1/2
            an_object(colour=5, presence=0.8),  # no such object
            an_object((1.2, 0, 0), colour=2, presence=0.7),  # a hit within half a metre: precision 2/3, recall 1
        ]
    )
    assert average_precision(pred, target, 0.5) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(pred, target, 0.125) == pytest.approx(1 / 2)


def test_the_envelope_takes_the_best_precision_at_this_recall_or_beyond():
    target = sets([an_object(colour=k) for k in range(3)])
    wrong, *right = an_object(colour=7, presence=0.9), *(an_object(colour=k, presence=0.5 - k / 10) for k in range(3))
    # Precisions 0, 1/2, 2/3, 3/4: every hit is worth 3/4.
    assert average_precision(sets([wrong, *right]), target, inf) == pytest.approx(3 / 4)


def test_a_duplicate_is_a_false_alarm_even_where_a_second_object_would_fit():
    # Two alike objects; both predictions are nearest to the first: there is no second-best.
    target = sets([an_object((0, 0, 0)), an_object((2, 0, 0))])
    pred = sets([an_object((0.1, 0, 0), presence=0.9), an_object((0.2, 0, 0), presence=0.8)])
    assert average_precision(pred, target, inf) == pytest.approx(1 / 2)


def test_a_sure_miss_does_not_use_the_object_up():
    target = sets([an_object()])
    far, near = an_object((2, 0, 0), presence=0.9), an_object(presence=0.1)
    assert average_precision(sets([far, near]), target, 1.0) == pytest.approx(1 / 2)
    assert average_precision(sets([far, near]), target, inf) == pytest.approx(1)


def test_the_threshold_itself_is_too_far():
    target, pred = sets([an_object()]), sets([an_object((0.75, 0, 0))])
    assert average_precision(pred, target, 0.75) == 0
    assert average_precision(pred, target, 0.7501) == 1


def test_every_attribute_must_agree():
    target = sets([an_object()])
    assert all(average_precision(sets([an_object(**{name: 1})]), target, inf) == 0 for name in ATTRIBUTES)


def test_an_object_is_found_only_in_its_own_image():
    target = sets([an_object()], [an_object(colour=4)])
    assert average_precision(target.flip(0), target, inf) == 0


def test_images_are_pooled_so_false_alarms_cost_by_how_sure_they_are():
    target = sets([an_object()], [])
    for presence, expected in ((0.9, 1 / 2), (0.1, 1)):  # surer, and less sure, than the hit
        pred = sets([an_object(presence=0.5)], [an_object(presence=presence)])
        assert average_precision(pred, target, inf) == pytest.approx(expected)


@given(st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_a_looser_threshold_finds_no_less_where_no_object_has_a_twin(seed):
    pred, target, random = random_sets(seed, 8, 6, 5)
    pred[..., 18] = torch.rand(8, 6, generator=random)
    for values in (pred, target):  # object i has colour i
        values[..., PROPERTIES["colour"]] = torch.eye(8)[: values.shape[1]]
    target = target * target[..., 18:]
    scores = [average_precision(pred, target, t) for t in (0.125, 0.5, 1, 2, inf)]
    assert all(low <= high + 1e-12 for low, high in pairwise(scores)) or isnan(scores[0])


@given(st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_the_order_of_objects_and_images_does_not_matter(seed):
    pred, target, random = random_sets(seed, 6, 6, 5)
    pred[..., 18] = torch.randperm(36, generator=random).view(6, 6) / 36
    target[..., 0] += torch.rand(6, 5, generator=random) / 100  # no two objects at one distance
    images, things = torch.randperm(6, generator=random), torch.randperm(5, generator=random)
    shuffled = average_precision(pred[images].flip(1), target[images][:, things], 1.5)
    assert shuffled == pytest.approx(average_precision(pred, target, 1.5), abs=1e-12, nan_ok=True)


# --- edges and bad input ---


def test_without_any_object_there_is_no_average_precision():
    nobody = torch.zeros(2, 3, 19)
    assert isnan(average_precision(torch.rand(2, 4, 19), nobody))
    assert isnan(average_precision(torch.rand(2, 4, 19), torch.zeros(2, 0, 19)))
    assert isnan(average_precision(torch.zeros(0, 4, 19), torch.zeros(0, 3, 19)))


def test_without_any_prediction_nothing_is_found():
    assert average_precision(torch.zeros(1, 0, 19), sets([an_object()])) == 0


def test_bad_input_is_one_clear_error():
    good = sets([an_object()])
    for wrong in (None, "x", [0.5], good[0], good[..., :18], good[..., :4], good.long(), good.numpy().astype(int)):
        for name, call in (("pred", lambda x: (x, good)), ("target", lambda x: (good, x))):
            with pytest.raises(ValueError, match=rf"{name} must be floating point \[batch, objects, 19\], got"):
                average_precision(*call(wrong))
    with pytest.raises(ValueError, match="of the same images, got 1 and 0"):
        average_precision(good, good[:0])
    for value in (nan, inf):
        with pytest.raises(ValueError, match="pred must be finite, got 19 values"):
            average_precision(good * value if isnan(value) else good.clone().fill_(inf), good)
    with pytest.raises(ValueError, match="target must be finite"):
        average_precision(good, good.clone().fill_(nan))
    for threshold in (0, -1, nan, None, "1", True):
        with pytest.raises(ValueError, match="threshold must be a finite number, above 0"):
            average_precision(good, good, threshold)
