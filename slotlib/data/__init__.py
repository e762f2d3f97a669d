"""Scenes with exact masks: `make("tetrominoes", 1000, seed=0)`.

A dataset here is a pure function `draw(seed, index, **options)` that draws any set of scenes in one vectorised call.
`Scenes` gives it the face of a map-style `torch.utils.data.Dataset`.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from slotlib.data import tetrominoes

GENERATORS: dict[str, Callable[..., dict[str, Any]]] = {"tetrominoes": tetrominoes.draw}


class Scenes(Dataset):
    """`size` generated scenes. Item i of a seed is the same in any order, in any process, in any batch.

    `scenes[i]` is a dict: `image` float32 `[3, H, W]` in [0, 1], `mask` uint8 `[H, W]` (0 background, i the i-th
    object), `objects` a dict of tensors, one row per object, padded, with `present`. `scenes.batch(index)` draws many
    at once, which is far cheaper than one by one; a DataLoader does so by itself.
    """

    def __init__(self, draw: Callable[..., dict[str, Any]], size: int, seed: int, options: dict[str, Any]):
        self.draw, self.size, self.seed, self.options = draw, size, seed, options
        self.batch(torch.arange(1))  # wrong options fail here, not in a worker an hour later

    def __len__(self) -> int:
        return self.size

    def batch(self, index: Int[Tensor, "scenes"] | Sequence[int] | range) -> dict[str, Any]:
        """The scenes numbered `index` (each in [0, size)), stacked."""
        index = torch.as_tensor(index, dtype=torch.int64)
        if index.numel() and (index.min() < 0 or index.max() >= self.size):
            raise IndexError(f"scene numbers must lie in [0, {self.size}), got {index.min()} to {index.max()}")
        return self.draw(self.seed, index, **self.options)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.__getitems__([i])[0]

    def __getitems__(self, index: Sequence[int]) -> list[dict[str, Any]]:
        batch = self.batch(index)
        rows = zip(*batch["objects"].values(), strict=True)
        objects = [dict(zip(batch["objects"], row, strict=True)) for row in rows]
        return [
            {"image": image, "mask": mask, "objects": properties}
            for image, mask, properties in zip(batch["image"], batch["mask"], objects, strict=True)
        ]


def make(name: str, size: int, seed: int = 0, **options: Any) -> Scenes:
    """A dataset of `size` generated scenes.

    Args:
        name: one of `GENERATORS`.
        size: number of scenes, ≥ 1.
        seed: any integer; scenes of different seeds are independent.
        options: the generator's own, see e.g. `slotlib.data.tetrominoes.draw`.

    Raises:
        ValueError: an unknown name, a size below 1, an option out of range.
        TypeError: an option the generator does not have.
    """
    if name not in GENERATORS:
        raise ValueError(f"unknown dataset {name!r}; there are: {', '.join(sorted(GENERATORS))}")
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    known = list(inspect.signature(GENERATORS[name]).parameters)[2:]
    for option in options:
        if option not in known:
            raise TypeError(f"{name} has no option {option!r}; it has: {', '.join(known)}")
    return Scenes(GENERATORS[name], size, seed, options)
