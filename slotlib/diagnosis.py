"""Early warning (chapter 03): what a model's masks say about its health. No labels are used.

The error does not tell a model that finds objects from one that cuts every image into the same stripes, and without
labels nothing else is scored. The masks themselves do tell, and three failures have plain signs in them (the
chapter shows the first two):

- *collapse*: one slot takes every pixel, or all slots share every pixel equally;
- *tiling*: the masks stay where they are whatever the image shows;
- *duplicates*: several slots hold the same thing.

`diagnose` measures the signs, `warnings` compares them with thresholds, measured on 64 Tetrominoes of seed 0: see
`THRESHOLDS`. Every model fails so in its first steps. Looking every 1,000 steps, the recipe of `tetrominoes` (seed 0)
gave no warning in all of its 15,000. The run of chapter 03 that ends in tiles was looked at every 250 steps at first:
it said "collapse" at step 250 and "tiling" at 500.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from slotlib import check
from slotlib.matching import hungarian


class Diagnosis(NamedTuple):
    """Four numbers in [0, 1]; the closer to 1, the worse."""

    mask_entropy: float
    """Mean entropy of a pixel's masks over log K: 0, every pixel has one owner; 1, all slots share all alike."""
    largest_slot: float
    """Part of the image that its largest slot takes, averaged over images."""
    stillness: float
    """How much of the masks' pattern is the same in all images; NaN for fewer than two. See `stillness`."""
    overlap: float
    """Of each image's most similar pair of slots, the similarity, averaged over images. See `overlap`."""


THRESHOLDS = Diagnosis(mask_entropy=0.9, largest_slot=0.98, stillness=0.5, overlap=0.5)
"""From here on a number is a warning (mask entropy and largest slot both mean collapse).

                                   mask_entropy  largest_slot  stillness  overlap
    true masks of Tetrominoes              0.00          0.76       0.11     0.00
    the shipped `tetrominoes`              0.01          0.75       0.10     0.02
    the same with two slots too many       0.40          0.31       0.13     0.99
    the shipped `tetrominoes_tiling`       0.10          0.38       0.81     0.10
    the shipped `tetrominoes_collapse`     0.00          1.00        NaN     0.00
    the paper's model before training      0.99          0.29       0.21     0.99

True masks of the other generators: stillness at most 0.22, largest slot at most 0.88.
"""

SMALLEST_SLOT = 0.01
"""Slots that take less of an image than this count as empty: they cannot be a duplicate."""


def align(masks: Float[Tensor, "batch slots pixels"], rounds: int = 3) -> Float[Tensor, "batch slots pixels"]:
    """Reorder each image's slots so that the masks of slot k are as alike over the images as they can be.

    Slots that start at random noise come in another order in every image, so masks that never move would seem to.
    Images are matched to the first (Hungarian, by the masks' inner products), then to the mean of all, a few times.
    """
    aligned, reference = masks, masks[0]
    for _ in range(rounds):
        _, order = hungarian(-torch.einsum("kp,bjp->bkj", reference, masks))
        aligned = masks.gather(1, order.unsqueeze(-1).expand_as(masks))
        reference = aligned.mean(dim=0)
    return aligned


def stillness(masks: Float[Tensor, "batch slots height width"]) -> float:
    """How much of the aligned masks' variance over the image is that of a pattern common to all images.

    0: nothing is common. 1: the masks are the same in all images. NaN for a single image and for masks without a
    pattern. Chance gives a common pattern 1/B of the variance, which is taken off.
    """
    check.tensor("masks", masks, "floating point", "batch slots height width")
    aligned = align(masks.flatten(2).float())
    count = len(aligned)
    whole = aligned.var(dim=2, correction=0).sum(dim=1).mean().item()
    common = aligned.mean(dim=0).var(dim=1, correction=0).sum().item()
    if count < 2 or whole < 1e-6:
        return math.nan
    return max(0.0, (count * common / whole - 1) / (count - 1))


def overlap(masks: Float[Tensor, "batch slots height width"]) -> float:
    """The cosine of the two most similar masks of an image, averaged over images; empty slots do not count.

    0: no two slots share a pixel. 1: two slots share all of their pixels in the same proportion.
    """
    check.tensor("masks", masks, "floating point", "batch slots height width")
    area = masks.float().mean(dim=(2, 3))
    unit = torch.nn.functional.normalize(masks.flatten(2).float(), dim=2) * (area > SMALLEST_SLOT).unsqueeze(-1)
    cosine = (unit @ unit.mT).triu(diagonal=1)
    return cosine.flatten(1).amax(dim=1).mean().item()


def diagnose(masks: Float[Tensor, "batch slots height width"]) -> Diagnosis:
    """Measure the signs of failure on a batch of masks that sum to 1 over the slots; 64 images are plenty.

    A single slot has nothing to share out: all numbers are then NaN.
    """
    check.tensor("masks", masks, "floating point", "batch slots height width")
    if masks.shape[1] < 2:
        return Diagnosis(*[math.nan] * 4)
    entropy = torch.special.entr(masks.float()).sum(dim=1).mean().item() / math.log(masks.shape[1])
    largest = masks.float().mean(dim=(2, 3)).amax(dim=1).mean().item()
    return Diagnosis(entropy, largest, stillness(masks), overlap(masks))


def warnings(diagnosis: Diagnosis) -> dict[str, str]:
    """What is wrong, by kind ("collapse", "tiling", "duplicates"): what was seen and what to try. Empty for a healthy
    model. A collapsed model has no masks to say more about."""
    if diagnosis.mask_entropy >= THRESHOLDS.mask_entropy:
        seen = f"all slots share all pixels (mask entropy {diagnosis.mask_entropy:.2f} of 1)"
    elif diagnosis.largest_slot >= THRESHOLDS.largest_slot:
        seen = f"one slot takes everything ({diagnosis.largest_slot:.1%} of the image)"
    else:
        seen = ""
    if seen:
        advice = "a lower train.lr, train.clip=1, a later model.attention.gradient_steps.after, another seed"
        return {"collapse": f"collapse: {seen}; if it stays so, try {advice}"}
    found = {}
    if diagnosis.stillness >= THRESHOLDS.stillness:
        found["tiling"] = (
            f"tiling: the masks hardly move between images ({diagnosis.stillness:.0%} of their pattern is the same in "
            "all); try model.decoder.colour=shaded with a later model.decoder.shading.after, drawn slots, another seed"
        )
    if diagnosis.overlap >= THRESHOLDS.overlap:
        found["duplicates"] = (
            f"duplicates: slots share the same pixels (similarity of the closest two {diagnosis.overlap:.2f} of 1); "
            "try fewer slots, more iterations, or train on"
        )
    return found


def crowding(masks: Integer[Tensor, "batch height width"], slots: int) -> dict[str, str]:
    """A warning, of kind "crowding", if a scene's true masks show more things, background included, than slots."""
    check.tensor("masks", masks, "integers", "batch height width")
    check.whole("slots", slots)
    most = max(len(mask.unique()) for mask in masks)
    if most <= slots:
        return {}
    advice = f"set model.attention.num_slots={most}, or leave such scenes out (data.options.num_objects)"
    return {"crowding": f"too few slots: a scene holds {most} things, background included, for {slots} slots; {advice}"}
