"""What a dataset holds, counted: colours, objects per image, visible pixels, frequencies of categories."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slotlib.data.scenes import Source

_PLACES = ("x", "y")  # whole numbers that are no categories


class Statistics(NamedTuple):
    """Counts over some scenes of a dataset."""

    scenes: int
    size: tuple[int, int]
    """Height and width of the images."""
    mean: Float[Tensor, "3"]
    spread: Float[Tensor, "3"]
    """Mean and standard deviation over all pixels, per channel."""
    objects: Int[Tensor, "counts"]
    """How many scenes have 0, 1, 2, … objects."""
    visible: Int[Tensor, "objects"] | None
    """How many pixels every object shows; None without masks."""
    categories: dict[str, dict[str, int]]
    """For each categorical property how many objects have which value."""


def statistics(dataset: Source) -> Statistics:
    """Count over all scenes of `dataset`."""
    total, squares, pixels = torch.zeros(3).double(), torch.zeros(3).double(), 0
    counts, visible, values = [], [], {}
    for batch in dataset.batches("counting"):
        image, objects = batch["image"].double(), batch["objects"]
        total += image.sum((0, 2, 3))
        squares += image.square().sum((0, 2, 3))
        pixels += image[:, 0].numel()
        present = objects["present"]
        counts.append(present.sum(1))
        if "mask" in batch:
            rows = present.shape[1]
            areas = torch.nn.functional.one_hot(batch["mask"].long().flatten(1), rows + 1).sum(1)[:, 1:]
            visible.append(areas[present])
        for name, value in objects.items():
            if value.dtype == torch.int64 and value.ndim == 2 and name not in _PLACES:
                values.setdefault(name, []).append(value[present])
    mean = total / pixels
    names = dataset.values
    return Statistics(
        scenes=len(dataset),
        size=tuple(batch["image"].shape[2:]),
        mean=mean.float(),
        spread=(squares / pixels - mean.square()).clamp(min=0).sqrt().float(),
        objects=torch.cat(counts).bincount(),
        visible=torch.cat(visible) if visible else None,
        categories={name: _frequencies(torch.cat(found), names.get(name, ())) for name, found in values.items()},
    )


def _frequencies(values: Int[Tensor, "objects"], names: Sequence[str]) -> dict[str, int]:
    table: dict[str, int] = {}
    for value, many in enumerate(values.bincount().tolist()):
        label = str(names[value]) if value < len(names) else str(value)
        table[label] = table.get(label, 0) + many
    return {label: many for label, many in table.items() if many}
