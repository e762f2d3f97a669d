"""How well do predicted segments match true objects? (chapter 04)

Everything works on batches of label maps: `true` and `pred` are integer tensors `[batch, pixels]` (or any
`[batch, ...]`; the rest is flattened), and one float64 number per image comes back. Labels are names: which integers
are used never matters, except for the background.

The Rand indices count *pairs of pixels* (Rand, 1971; Hubert and Arabie, 1985). The overlap scores mBO and mIoU compare
*masks*. All of them start from the same contingency table, how many pixels carry true label i and predicted label j.
"""

import torch
from jaxtyping import Float64, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

_MAX_DENSE_LABEL = 256  # labels below this index the table directly; larger or negative ones are renumbered first


def _labels(name: str, labels: Tensor) -> Int[Tensor, "batch pixels"]:
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"{name} must hold integer labels, got {labels.dtype}; take an argmax over the masks first")
    if labels.ndim < 2:
        raise ValueError(f"{name} must be [batch, pixels], got {list(labels.shape)}")
    return labels.flatten(1).long()


def _dense(labels: Int[Tensor, "batch pixels"]) -> tuple[Int[Tensor, "batch pixels"], Int[Tensor, "batch|1 count"]]:
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
    true: Int[Tensor, "batch *pixels"], pred: Int[Tensor, "batch *pixels"], background: int | None = None
) -> Float64[Tensor, "batch true_labels pred_labels"]:
    """How many pixels of each image carry true label i and predicted label j.

    With `background`, pixels whose *true* label it is are left out.

    Raises:
        TypeError: labels are not integers.
        ValueError: the shapes differ, or there is no pixel dimension.
    """
    if true.shape != pred.shape:
        raise ValueError(f"true and pred must have one shape, got {list(true.shape)} and {list(pred.shape)}")
    true, pred = _labels("true", true), _labels("pred", pred)
    (true, true_names), (pred, pred_names) = _dense(true), _dense(pred)
    batch, rows, columns = len(true), true_names.shape[1], pred_names.shape[1]
    start = torch.arange(batch, device=true.device).unsqueeze(1) * (rows * columns)
    cell = torch.add(pred, true, alpha=columns).add_(start)
    table = torch.bincount(cell.flatten(), minlength=batch * rows * columns).view(batch, rows, columns).double()
    if background is not None:
        table *= (true_names != background).unsqueeze(2)  # its row is emptied: cheaper than picking pixels out
    return table


def _pairs(count: Tensor) -> Tensor:
    return count * (count - 1) / 2


def _adjusted(table: Float64[Tensor, "batch rows columns"]) -> Float64[Tensor, "batch"]:
    """ARI of a contingency table (Hubert and Arabie, 1985, equation 5)."""
    together = _pairs(table).sum((1, 2))
    in_true = _pairs(table.sum(2)).sum(1)
    in_pred = _pairs(table.sum(1)).sum(1)
    everything = _pairs(table.sum((1, 2)))
    # With fewer than two pixels there are no pairs: 0/0, which the last line resolves.
    expected = in_true * in_pred / everything.clamp(min=1)
    best = (in_true + in_pred) / 2
    # best == expected only when both sides put everything in one segment, or both every pixel in its own (or there is
    # nothing to segment). The two segmentations are then the same, and the score is 1 where the formula says 0/0.
    same = best == expected
    return torch.where(same, 1.0, (together - expected) / (best - expected).where(~same, 1.0))


def rand_index(true: Int[Tensor, "batch *pixels"], pred: Int[Tensor, "batch *pixels"]) -> Float64[Tensor, "batch"]:
    """Share of pixel pairs on which the two segmentations agree: together in both, or apart in both. In [0, 1].

    An image with fewer than two pixels scores 1. Source: Rand, 1971. Raises as `contingency`.
    """
    table = contingency(true, pred)
    together = _pairs(table).sum((1, 2))
    everything = _pairs(table.sum((1, 2)))
    disagree = _pairs(table.sum(2)).sum(1) + _pairs(table.sum(1)).sum(1) - 2 * together
    return 1 - disagree / everything.clamp(min=1)


def adjusted_rand_index(
    true: Int[Tensor, "batch *pixels"], pred: Int[Tensor, "batch *pixels"]
) -> Float64[Tensor, "batch"]:
    """The Rand index, shifted and scaled so that chance scores 0 and a perfect match 1. Can be negative.

    When both segmentations consist of one segment the formula is 0/0; they agree, so the score is 1 (as in
    scikit-learn). Source: Hubert and Arabie, 1985, equation 5. Raises as `contingency`.
    """
    return _adjusted(contingency(true, pred))


def fg_ari(
    true: Int[Tensor, "batch *pixels"], pred: Int[Tensor, "batch *pixels"], background: int = 0
) -> Float64[Tensor, "batch"]:
    """ARI over the pixels whose *true* label is not `background`: the number object discovery papers report.

    It asks whether objects are told apart, and is blind to how much background a mask swallows. A single predicted
    segment on a single object, or an image without foreground, scores 1. (The widely copied TensorFlow metric gives
    NaN there.) Raises as `contingency`.
    """
    return _adjusted(contingency(true, pred, background))


def _overlap(
    true: Tensor, pred: Tensor, background: int | None
) -> tuple[Float64[Tensor, "batch rows columns"], Float64[Tensor, "batch rows"]]:
    """IoU of every true segment with every predicted one, and 1 for each true segment that counts."""
    table = contingency(true, pred)
    area_true, area_pred = table.sum(2), table.sum(1)
    iou = table / (area_true.unsqueeze(2) + area_pred.unsqueeze(1) - table).clamp(min=1)
    counts = area_true > 0
    if background is not None:
        # An object counts if any of its pixels survives the removal of the background label.
        counts &= contingency(true, pred, background).sum(2) > 0
    return iou, counts.double()


def mean_best_overlap(
    true: Int[Tensor, "batch *pixels"], pred: Int[Tensor, "batch *pixels"], background: int | None = 0
) -> Float64[Tensor, "batch"]:
    """mBO: for each true object the best IoU any predicted segment reaches, averaged over objects. In [0, 1].

    One segment may be the best of several objects. Unlike FG-ARI it sees masks that swallow background. An image
    without objects scores 1; `background=None` counts the background as an object. Source: Pont-Tuset et al., 2017.
    Raises as `contingency`.
    """
    iou, counts = _overlap(true, pred, background)
    total = counts.sum(1)
    return torch.where(total > 0, (iou.amax(2) * counts).sum(1) / total.clamp(min=1), 1.0)


def mean_iou(
    true: Int[Tensor, "batch *pixels"], pred: Int[Tensor, "batch *pixels"], background: int | None = 0
) -> Float64[Tensor, "batch"]:
    """mIoU: mean IoU over true objects under the best one-to-one matching with predicted segments. In [0, 1].

    Never above mBO: a segment is used once, and an object left without a segment scores 0. An image without objects
    scores 1; `background=None` counts the background as an object. Raises as `contingency`.
    """
    iou, counts = _overlap(true, pred, background)
    score = iou * counts.unsqueeze(2)
    best = []
    for image in score.cpu().numpy():
        rows, columns = linear_sum_assignment(image, maximize=True)
        best.append(image[rows, columns].sum())
    total = counts.sum(1)
    return torch.where(total > 0, torch.tensor(best, dtype=torch.float64).to(total) / total.clamp(min=1), 1.0)
