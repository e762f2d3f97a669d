"""How well do predicted segments match true objects? (chapter 04) And predicted sets of objects? (chapter 05)

Segmentations come as batches of label maps: `true` and `pred` are integer tensors or NumPy arrays `[batch, pixels]`
(or any `[batch, ...]`; the rest is flattened), and one float64 number per image comes back. Labels are names: which
integers are used never matters, except for the background.

The Rand indices count *pairs of pixels* (Rand, 1971; Hubert and Arabie, 1985). The overlap scores, mBO, covering, mIoU
and panoptic quality, compare *masks*. All of them start from the same contingency table: how many pixels carry true
label i and predicted label j. So do the two questions about slots rather than objects, usage and consistency.

Average precision, at the end, scores sets of objects described by 19 values each.
"""

from math import inf
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Integer
from torch import Tensor
from torch.nn import functional as F

from slotlib import check
from slotlib.data.targets import PROPERTIES, SCENE_SIZE, VALUES
from slotlib.matching import hungarian_loss

Array = Tensor | np.ndarray
Labels = Integer[Array, "batch *pixels"] | Bool[Array, "batch *pixels"]
LabelsAgain = Integer[Array, "batch *pixels_again"] | Bool[Array, "batch *pixels_again"]

THRESHOLDS = (inf, 1.0, 0.5, 0.25, 0.125)  # in metres, at which the paper reports average precision

_MAX_DENSE_LABEL = 256  # labels below this index the table directly; larger or negative ones are renumbered first


def _labels(name: str, labels: Array) -> Int[Tensor, "batch *pixels"]:
    """As int64; errors as `contingency`."""
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "iub":
        labels = torch.from_numpy(labels.astype(np.int64, order="C"))
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.is_complex():
        raise TypeError(
            f"{name} must hold integer labels, got {check.described(labels)}; take an argmax over the masks first"
        )
    if labels.ndim < 2:
        raise ValueError(f"{name} must be [batch, pixels], got {list(labels.shape)}")
    return labels.long()


def _dense(labels: Int[Tensor, "batch pixels"]) -> tuple[Int[Tensor, "batch pixels"], Int[Tensor, "_ count"]]:
    """The labels as indices below a small count, and the label of each index. Renumbered only where needed."""
    if labels.numel() == 0:
        return labels, labels.new_zeros(1, 1)
    low, high = (int(v) for v in labels.aminmax())
    if low >= 0 and high < _MAX_DENSE_LABEL:
        return labels, torch.arange(high + 1, device=labels.device).unsqueeze(0)
    # Per image, so that labels which are unique across the whole batch do not blow the tables up.
    ordered, position = labels.sort(dim=1)
    rank = F.pad((ordered[:, 1:] != ordered[:, :-1]).cumsum(dim=1), (1, 0))
    names = labels.new_zeros(len(labels), int(rank.max()) + 1).scatter_(1, rank, ordered)
    return torch.empty_like(labels).scatter_(1, position, rank), names


def contingency(
    true: Labels, pred: Labels, background: int | None = None
) -> Float64[Tensor, "batch true_labels pred_labels"]:
    """How many pixels of each image carry true label i and predicted label j.

    With `background`, pixels whose *true* label it is are left out. Where all labels lie in 0 … 255, row and column are
    the labels themselves; else each image's own are numbered in ascending order.

    Raises:
        TypeError: labels are not integers.
        ValueError: the shapes differ, or there is no pixel dimension; a background that is no number.
    """
    true, pred = _labels("true", true), _labels("pred", pred)
    if background is not None:
        check.whole("background", background, least=-(2**63))
    if true.shape != pred.shape:
        raise ValueError(f"true and pred must have one shape, got {list(true.shape)} and {list(pred.shape)}")
    (true, true_names), (pred, pred_names) = _dense(true.flatten(1)), _dense(pred.flatten(1))
    batch, rows, columns = len(true), true_names.shape[1], pred_names.shape[1]
    start = torch.arange(batch, device=true.device).unsqueeze(1) * (rows * columns)
    cell = torch.add(pred, true, alpha=columns).add_(start)
    table = torch.bincount(cell.flatten(), minlength=batch * rows * columns).view(batch, rows, columns).double()
    if background is not None:
        table *= (true_names != background).unsqueeze(2)  # its row is emptied: cheaper than picking pixels out
    return table


class PairCounts(NamedTuple):
    """Every pair of pixels is one of four kinds. Counts, one per image; they sum to n (n - 1) / 2."""

    a: Float64[Tensor, "batch"]
    """Together in both segmentations."""
    b: Float64[Tensor, "batch"]
    """Apart in both."""
    c: Float64[Tensor, "batch"]
    """Together in the true segmentation only: an object was split."""
    d: Float64[Tensor, "batch"]
    """Together in the predicted segmentation only: objects were merged."""


def _pairs(count: Tensor) -> Tensor:
    return count * (count - 1) / 2


def pair_counts(true: Labels, pred: Labels, background: int | None = None) -> PairCounts:
    """The four counts that both Rand indices are made of, without looking at any pair (chapter 04, equation 4.2).

    With `background`, pixels whose *true* label it is are left out. Raises as `contingency`.
    """
    table = contingency(true, pred, background)
    a = _pairs(table).sum((1, 2))
    c = _pairs(table.sum(2)).sum(1) - a
    d = _pairs(table.sum(1)).sum(1) - a
    return PairCounts(a, _pairs(table.sum((1, 2))) - a - c - d, c, d)


def _adjusted(pairs: PairCounts) -> Float64[Tensor, "batch"]:
    """ARI of pair counts: Hubert and Arabie (1985), equation 5, multiplied out (chapter 04, equation 4.5)."""
    a, b, c, d = pairs
    scale = (a + c) * (c + b) + (a + d) * (d + b)
    # The scale is 0 only when both sides put everything in one segment, or both every pixel in its own (or there is
    # nothing to segment). The two segmentations are then the same, and the score is 1 where the formula says 0/0.
    return torch.where(scale > 0, 2 * (a * b - c * d) / scale.where(scale > 0, 1.0), 1.0)


def rand_index(true: Labels, pred: Labels) -> Float64[Tensor, "batch"]:
    """Share of pixel pairs on which the two segmentations agree: together in both, or apart in both. In [0, 1].

    An image with fewer than two pixels scores 1. Source: Rand, 1971. Raises as `contingency`.
    """
    a, b, c, d = pair_counts(true, pred)
    return 1 - (c + d) / (a + b + c + d).clamp(min=1)


def adjusted_rand_index(true: Labels, pred: Labels) -> Float64[Tensor, "batch"]:
    """The Rand index, shifted and scaled so that chance scores 0 and a perfect match 1. Can be negative.

    When both segmentations consist of one segment the formula is 0/0; they agree, so the score is 1 (as in
    scikit-learn). Source: Hubert and Arabie, 1985, equation 5. Raises as `contingency`.
    """
    return _adjusted(pair_counts(true, pred))


def fg_ari(true: Labels, pred: Labels, background: int = 0) -> Float64[Tensor, "batch"]:
    """ARI over the pixels whose *true* label is not `background`: the number object discovery papers report.

    It asks whether objects are told apart, and is blind to how much background a mask swallows. A single predicted
    segment on a single object, or an image without foreground, scores 1. (The widely copied TensorFlow metric gives
    NaN there.) Raises as `contingency`.
    """
    return _adjusted(pair_counts(true, pred, background))


def _iou(table: Float64[Tensor, "batch rows columns"]) -> Float64[Tensor, "batch rows columns"]:
    return table / (table.sum(2, keepdim=True) + table.sum(1, keepdim=True) - table).clamp(min=1)


def intersection_over_union(true: Labels, pred: Labels) -> Float64[Tensor, "batch true_labels pred_labels"]:
    """IoU of every true segment with every predicted one, 0 where there is none; rows, columns and errors as
    `contingency`."""
    return _iou(contingency(true, pred))


class _Overlap(NamedTuple):
    iou: Float64[Tensor, "batch rows columns"]
    """Intersection over union of every true segment with every predicted one."""
    area: Float64[Tensor, "batch rows"]
    """Pixels of each true segment that counts as an object, 0 for the others."""
    segments: Float64[Tensor, "batch"]
    """How many predicted segments there are; with a background, those that lie on objects for at least a half."""


def _overlap(true: Labels, pred: Labels, background: int | None) -> _Overlap:
    table = contingency(true, pred)
    on_objects = table if background is None else contingency(true, pred, background)
    area = table.sum(1)
    segments = (area > 0) & (on_objects.sum(1) >= area / 2)
    return _Overlap(_iou(table), on_objects.sum(2), segments.double().sum(1))


def _ratio(total: Float64[Tensor, "batch"], count: Float64[Tensor, "batch"]) -> Float64[Tensor, "batch"]:
    """`total / count`, and 1 where there was nothing to find."""
    return torch.where(count > 0, total / count.where(count > 0, 1.0), 1.0)


def _best_matching(value: Float64[Tensor, "batch rows columns"]) -> Float64[Tensor, "batch"]:
    """The largest sum of values that pairs every row with at most one column, and every column with at most one row."""
    return -hungarian_loss(-value)


def mean_best_overlap(true: Labels, pred: Labels, background: int | None = 0) -> Float64[Tensor, "batch"]:
    """mBO: for each true object the best IoU any predicted segment reaches, averaged over objects. In [0, 1].

    One segment may be the best of several objects. Unlike FG-ARI it sees masks that swallow background. An image
    without objects scores 1; `background=None` counts the background as an object. Source: Pont-Tuset et al., 2017.
    Raises as `contingency`.
    """
    iou, area, _ = _overlap(true, pred, background)
    objects = (area > 0).double()
    return _ratio((iou.amax(2) * objects).sum(1), objects.sum(1))


def segmentation_covering(true: Labels, pred: Labels, background: int | None = 0) -> Float64[Tensor, "batch"]:
    """mBO with every object weighted by its area, so that large ones decide. In [0, 1].

    Source: Arbeláez et al., 2011; used for object discovery by Engelcke et al., 2020 (arXiv 1907.13052), whose mSC is
    mBO. Empty images and `background` as in `mean_best_overlap`. Raises as `contingency`.
    """
    iou, area, _ = _overlap(true, pred, background)
    return _ratio((iou.amax(2) * area).sum(1), area.sum(1))


def mean_iou(true: Labels, pred: Labels, background: int | None = 0) -> Float64[Tensor, "batch"]:
    """mIoU: mean IoU over true objects under the best one-to-one matching with predicted segments. In [0, 1].

    Never above mBO: a segment is used once, and an object left without a segment scores 0. An image without objects
    scores 1; `background=None` counts the background as an object. Raises as `contingency`.
    """
    iou, area, _ = _overlap(true, pred, background)
    objects = (area > 0).double()
    return _ratio(_best_matching(iou * objects.unsqueeze(2)), objects.sum(1))


def panoptic_quality(true: Labels, pred: Labels, background: int | None = 0) -> Float64[Tensor, "batch"]:
    """PQ of a single class: the IoU of all matches, divided by the mean of the numbers of objects and segments.

    A match is an IoU above 1/2, so no segment can match twice. Missed objects and surplus segments both lower the
    score. In [0, 1]. A segment that lies on the background for more than a half is no attempt at an object, and is not
    counted; with `background=None` the background is an object, and every segment counts. An image without objects and
    without such segments scores 1. Source: Kirillov et al., 2019 (arXiv 1801.00868), equation 1. Raises as
    `contingency`.
    """
    iou, area, segments = _overlap(true, pred, background)
    objects = (area > 0).double()
    matched = (iou * (iou > 0.5) * objects.unsqueeze(2)).sum((1, 2))
    return _ratio(matched, (objects.sum(1) + segments) / 2)


MASK_SCORES = {
    "fg_ari": fg_ari,
    "ari": adjusted_rand_index,
    "mbo": mean_best_overlap,
    "miou": mean_iou,
}
"""By which masks are scored everywhere, the leading one first. A column's name says which masks it read before it."""


# --- slots rather than objects ---


def slot_usage(pred: Labels, num_slots: int) -> Float64[Tensor, "batch slots"]:
    """The share of its image's pixels that each slot owns; `pred` holds slot indices, as an argmax over masks does.

    Its mean over the batch is every slot's share of all pixels; `(usage > 0).double().mean(0)` the share of images in
    which a slot is used at all; and `(usage > 0).sum(1)` the number of slots in use. Rows sum to 1 (to 0 without
    pixels).

    Raises:
        TypeError, ValueError: as `contingency`; ValueError also for a label outside 0 … num_slots - 1.
    """
    pred = _labels("pred", pred).flatten(1)
    check.whole("num_slots", num_slots)
    check.codes("slots in pred", pred, "batch pixels", num_slots)
    counts = pred.new_zeros(len(pred), num_slots).scatter_add_(1, pred, torch.ones_like(pred))
    return counts.double() / max(1, pred.shape[1])


def _shares(true: Tensor, pred: Tensor, background: int | None) -> Float64[Tensor, "batch labels slots"]:
    """How each object's pixels are divided among slots; rows and columns are the labels themselves."""
    table = contingency(true, pred, background)
    check.codes("objects", true, "...", _MAX_DENSE_LABEL)  # beyond, the table has its own numbers
    check.codes("slots", pred, "...", _MAX_DENSE_LABEL)
    return table / table.sum(2, keepdim=True).clamp(min=1)


def slot_consistency(
    true: Labels,
    pred: Labels,
    true_again: LabelsAgain,
    pred_again: LabelsAgain,
    background: int | None = 0,
    rename: bool = True,
) -> Float64[Tensor, "batch"]:
    """Do objects keep their slots from one run to another? The share of its pixels that stays with the same slot,
    averaged over the objects. In [0, 1].

    The second run may differ in the slots' start only (then `true_again` is `true`), in the light, or in where things
    are: object i of `true` is object i of `true_again`, and areas are compared relative to the object. Objects that
    appear once only are left out; without any other the score is 1. Symmetric in the two runs, and no question of
    truth: a slot that holds two objects both times is consistent.

    Args:
        rename: pair the slots of the two runs in the best possible way, as exchangeable slots need it. Otherwise slot
            k must be slot k again.

    Raises:
        TypeError, ValueError: as `contingency`; ValueError also for two batch sizes, or labels outside 0 … 255.
    """
    true, pred = _labels("true", true), _labels("pred", pred)
    true_again, pred_again = _labels("true_again", true_again), _labels("pred_again", pred_again)
    if len(true) != len(true_again):
        raise ValueError(f"both runs must have the same images, got batches of {len(true)} and {len(true_again)}")
    first, second = _shares(true, pred, background), _shares(true_again, pred_again, background)
    objects = min(first.shape[1], second.shape[1])  # a label beyond is in one run only
    first, second = first[:, :objects], second[:, :objects]
    in_both = ((first.sum(2) > 0) & (second.sum(2) > 0)).double()
    # [batch, objects, slots, slots again]: what slot k held in the first run and slot l holds in the second.
    kept = torch.minimum(first.unsqueeze(3), second.unsqueeze(2)) * in_both[:, :, None, None]
    kept = kept.sum(1)
    total = _best_matching(kept) if rename else kept.diagonal(dim1=1, dim2=2).sum(1)
    return _ratio(total, in_both.sum(1))


# --- sets of objects (chapter 05) ---


def _kind(objects: Float[Tensor, "*set 19"]) -> Int[Tensor, "*set"]:
    """One number for each combination of the four attributes, read off by argmax."""
    kind = torch.zeros(objects.shape[:-1], dtype=torch.int64, device=objects.device)
    for name in ("size", "material", "shape", "colour"):
        values = objects[..., PROPERTIES[name]]
        kind = kind * values.shape[-1] + values.argmax(-1)
    return kind


def _least(value: Tensor, group: Int[Tensor, "items"], groups: int) -> Tensor:
    """The least value of each group; the largest number there is where a group has none."""
    limits = torch.finfo if value.is_floating_point() else torch.iinfo
    return value.new_full((groups,), limits(value.dtype).max).scatter_reduce_(0, group, value, "amin")


def _objects(name: str, objects: Array) -> Float[Tensor, "batch objects 19"]:
    """In single precision or wider. Raises ValueError unless they are that, and finite."""
    if isinstance(objects, np.ndarray) and objects.dtype.kind == "f":
        objects = torch.from_numpy(objects.astype(np.float64 if objects.itemsize == 8 else np.float32, order="C"))
    objects = check.tensor(name, objects, "floating point", f"batch objects {VALUES}")
    if not objects.sum().isfinite() and not objects.isfinite().all():  # the sum is cheap
        raise ValueError(f"{name} must be finite, got {int((~objects.isfinite()).sum())} values that are not")
    return objects.detach() if objects.dtype == torch.float64 else objects.detach().float()


def average_precision(
    pred: Float[Array, "batch predictions 19"], target: Float[Array, "batch objects 19"], threshold: float = inf
) -> float:
    """Average precision of predicted sets, over all images together, as the official Slot Attention code computes it.

    Predictions of all images are lined up by presence, the surest first. One is a hit if, among the real objects of
    its image with its four attributes, the nearest lies closer than `threshold`, and no surer prediction has hit that
    object; there is no second-best. Precision after each prediction, made monotone from the right, is then averaged
    over all objects; one never hit counts 0.

    Both hold `PROPERTIES`; a target's presence is 1, or 0 for padding. `threshold` is in metres, strict, `inf`
    for none (the official -1). In [0, 1]; nan if there is no object at all, and an image without objects only adds
    false alarms. As in the official code no object is hit from 10,000 metres or more, and predictions of equal presence
    come in the order, reversed, in which NumPy's `argsort` leaves them; with ties this may depend on the processor.

    Raises:
        ValueError: not `[batch, n, 19]`, two batch sizes, a value that is not finite, or a threshold that is not
            positive.

    Source: Locatello et al., 2020 (arXiv 2006.15055), `average_precision_clevr` in google-research/slot_attention.
    """
    pred, target = _objects("pred", pred), _objects("target", target)
    if len(pred) != len(target):
        raise ValueError(f"pred and target must be of the same images, got {len(pred)} and {len(target)}")
    if not (isinstance(threshold, float) and threshold == inf):
        check.number("threshold", threshold, above=True)
    (batch, predictions, _), objects = pred.shape, target.shape[1]
    pred, target = pred.flatten(0, 1), target.flatten(0, 1)
    where, presence = PROPERTIES["coordinates"], PROPERTIES["presence"].start

    # The pairs of a prediction and a real object of one image that could be a hit. Both are numbered through the batch.
    alike = _kind(pred).view(batch, predictions, 1) == _kind(target).view(batch, 1, objects)
    alike &= (target[:, presence] != 0).view(batch, 1, objects)
    image, guess, thing = alike.nonzero(as_tuple=True)
    guess, thing = image * predictions + guess, image * objects + thing
    # Not in float64: whether a distance reaches the threshold is then decided by the same digits as officially.
    distance = ((target[thing, where] - pred[guess, where]) * SCENE_SIZE).square().sum(1).sqrt()
    close = distance < min(threshold, 1e4)
    distance, guess, thing = distance[close], guess[close], thing[close]

    # A prediction claims the nearest; the first in the list, of several at one distance.
    nearest = distance == _least(distance, guess, len(pred))[guess]
    claim = _least(thing[nearest], guess[nearest], len(pred))

    # Line the predictions up. An object goes to the first that claims it.
    order = np.argsort(pred[:, presence].cpu().numpy())[::-1].copy()
    claim = claim[torch.from_numpy(order).to(claim.device)]
    rank = (claim < len(target)).nonzero().squeeze(1)
    thing = claim[rank]
    hit = rank[_least(rank, thing, len(target))[thing] == rank]

    # Each hit raises recall by one object, and is worth the best precision from there on.
    precision = torch.arange(1, len(hit) + 1, device=hit.device) / (hit + 1).double()
    envelope = precision.flip(0).cummax(0).values.flip(0)
    return float(envelope.sum() / target[:, presence].double().sum())
