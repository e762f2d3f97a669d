"""How many objects do masks show, how well is that known, and what does a number of slots cost? (chapter 09)

Counts are whole numbers `[batch]`. Of a model that finds the background too, the number of objects is one less than the
number of slots it keeps. That a count is right says nothing of whether the right things were counted: masks have scores
of their own (`slotlib.metrics`).
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.nn import functional as F

from slotlib import check
from slotlib.decoders import Masks

Counts = Int[Tensor, "batch"]


def pixels_owned(masks: Masks) -> Int[Tensor, "batch slots"]:
    """How many pixels each slot owns, by argmax."""
    check.tensor("masks", masks, "floating point", "batch slots height width")
    return F.one_hot(masks.argmax(dim=1), masks.shape[1]).flatten(1, 2).sum(dim=1)


def count_objects(masks: Masks, least: int = 20) -> Counts:
    """Slots that own at least `least` pixels, but for the largest of them, the background."""
    check.whole("least", least, least=0)
    return (pixels_owned(masks) >= least).sum(dim=1) - 1


def confusion(true: Counts, found: Counts) -> Int[Tensor, "true_counts found_counts"]:
    """How many images have `true` objects, the row, of which `found` were found, the column; both from 0.

    Raises ValueError for numbers below 0, or other than one of each per image.
    """
    _check(true, found)
    rows, columns = (int(each.max()) + 1 if len(each) else 1 for each in (true, found))
    return torch.bincount(true * columns + found, minlength=rows * columns).view(rows, columns)


class Count(NamedTuple):
    """How well objects were counted, over all images. NaN without any."""

    error: float
    """Mean absolute error."""
    exact: float
    """Share of the images with the right number."""
    surplus: float
    """Mean error with its sign: above 0, too many were found."""


def score(true: Counts, found: Counts) -> Count:
    """Raises ValueError as `confusion`."""
    _check(true, found)
    surplus = (found - true).double()
    return Count(surplus.abs().mean().item(), (surplus == 0).double().mean().item(), surplus.mean().item())


class RateDistortion(NamedTuple):
    """What fewer slots cost, price by price, from the lowest price on."""

    price: Float64[Tensor, "prices"]
    kept: Float64[Tensor, "prices"]
    """Mean number of slots kept, the rate."""
    error: Float64[Tensor, "prices"]
    """Mean squared error, the distortion."""


def rate_distortion(
    found: Mapping[float, tuple[Float[Tensor, "batch slots"], Float[Tensor, "batch"]]],
) -> RateDistortion:
    """The curve, from `keep` and the squared error of every image at each price.

    Raises ValueError for no price.
    """
    if not found:
        raise ValueError("found must have a price at least, got none")
    rows = [(p, keep.sum(dim=1).double().mean(), error.double().mean()) for p, (keep, error) in sorted(found.items())]
    return RateDistortion(*torch.tensor(rows, dtype=torch.float64).T)


def elbow(rate: Float[Tensor, "points"], distortion: Float[Tensor, "points"]) -> int:
    """Which point of a curve is its elbow: the farthest below the line between its ends.

    No labels are needed. Where objects differ in size it finds the end of the large ones: on Shapes it says two slots
    for five (chapter 09). Source: Satopää et al., 2011 ("Kneedle"), without its smoothing.

    Raises ValueError for fewer than three points, or a curve that does not fall from its lowest rate to its highest.
    """
    check.tensor("rate", rate, "floating point", "points")
    check.tensor("distortion", distortion, "floating point", f"points={len(rate)}")
    if len(rate) < 3:
        raise ValueError(f"a curve with an elbow has three points at least, got {len(rate)}")
    least, most = rate.argmin(), rate.argmax()
    width, fall = rate[most] - rate[least], distortion[least] - distortion[most]
    if not (width > 0 and fall > 0 and (width + fall).isfinite()):
        raise ValueError(f"distortion must fall from the lowest rate to the highest, got {distortion.tolist()}")
    return int(((rate - rate[least]) / width + (distortion - distortion[most]) / fall).argmin())


def _check(true: Counts, found: Counts) -> None:
    check.tensor("true", true, "integers", "batch")
    check.tensor("found", found, "integers", f"batch={len(true)}")
    if not check.holds((torch.cat([true, found]) >= 0).all(), otherwise=True):
        raise ValueError("counts must be at least 0, got a negative one")
