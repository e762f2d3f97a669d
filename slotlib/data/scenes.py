"""Scenes as training, evaluation and export take them: a `Source`, with three forms: generated, kept, read from files.

A batch is a dict of tensors, one row per scene: `image` float32 `[scenes, 3, H, W]` in [0, 1]; where there are masks,
`mask` uint8 `[scenes, H, W]` (0 background, i the i-th object); `objects`, a dict of tensors `[scenes, objects, …]`,
padded to one length, with `present`; some datasets add tensors of the whole scene.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
import torch
from jaxtyping import Bool, Int, Integer
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from slotlib.check import described, whole
from slotlib.data import random
from slotlib.data.published import features

Batch = dict[str, Any]
Index = Int[Tensor, "scenes"] | Integer[np.ndarray, "scenes"] | Sequence[SupportsIndex]
Draw = Callable[..., Batch]
_SCENES = 64  # at a time, where all are gone through


class Source(Dataset):
    """Scenes by number. A DataLoader takes them too, and draws whole batches at once."""

    origin: dict[str, Any]
    """What a card says of where these scenes come from, so that they can be found again."""
    name: str
    """What the dataset is called in exported files."""
    values: Mapping[str, Sequence[str]] = {}
    """What the values of categorical properties are called, in order, where that is known."""

    @property
    def skipped(self) -> int:
        """How many scenes could not be read so far."""
        return 0

    def __len__(self) -> int:
        raise NotImplementedError

    def batch(self, index: Index, device: torch.device | str = "cpu") -> Batch:
        """The scenes numbered `index`, stacked, on `device`. Raises IndexError for numbers out of range."""
        raise NotImplementedError

    def batches(self, title: str = "", device: torch.device | str = "cpu") -> Iterator[Batch]:
        """All scenes, batch by batch, on `device`; with a `title` a bar in the terminal shows how far one is."""
        starts = range(0, len(self), _SCENES)
        for start in tqdm(starts, title, disable=None if title else True, delay=1):
            yield self.batch(range(start, min(start + _SCENES, len(self))), device)

    def part(self, start: int, stop: int) -> "Source":
        """Scenes start to stop−1, as far as there are such, as a source of their own."""
        raise NotImplementedError

    def __getitem__(self, i: SupportsIndex) -> Batch:
        return self.__getitems__([i])[0]

    def __getitems__(self, index: Index) -> list[Batch]:
        batch = self.batch(index)
        return [each(batch, lambda value, i=i: value[i]) for i in range(len(index))]

    def published(self, batch: Batch) -> dict[str, Tensor]:
        """The objects of a batch as the published files have them, see `slotlib.data.published`."""
        return features(batch)


def each(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """A batch, every tensor changed."""
    return {name: each(part, change) if isinstance(part, dict) else change(part) for name, part in batch.items()}


def things(present: Bool[Tensor, "scenes objects"], **properties: Tensor) -> Batch:
    """The `objects` of a batch: `present`, and properties `[scenes, objects, …]`, zero where there is no object."""
    there = {name: present.view(*present.shape, *[1] * (value.ndim - 2)) for name, value in properties.items()}
    return {"present": present, **{name: value.where(there[name], 0) for name, value in properties.items()}}


def joined(batches: Sequence[Batch]) -> Batch:
    """Several batches of one kind as one."""
    columns = {name: [batch[name] for batch in batches] for name in batches[0]}
    return {name: joined(parts) if isinstance(parts[0], dict) else torch.cat(parts) for name, parts in columns.items()}


def numbers(index: object, size: int) -> Int[Tensor, "scenes"]:
    """The numbers of scenes as int64. Raises TypeError for what are no integers, IndexError outside [0, `size`)."""
    try:
        found = torch.as_tensor(index)
    except (TypeError, ValueError, RuntimeError):
        found = torch.tensor(math.nan)
    if not found.numel() and found.ndim == 1:
        return found.long()
    if found.ndim != 1 or found.dtype == torch.bool or found.is_floating_point() or found.is_complex():
        raise TypeError(f"scene numbers must be integers in [0, {size}), got {described(index)}")
    if found.min() < 0 or found.max() >= size:
        raise IndexError(f"scene numbers must lie in [0, {size}), got {found.min()} to {found.max()}")
    return found.long()


class Generator(NamedTuple):
    """A dataset that is drawn."""

    draw: Draw
    """`draw(seed, index, **options)`: the scenes numbered `index` (int64), all at once, on the device of `index`. Scene
    i of a seed never changes."""
    values: Mapping[str, Sequence[str]] = {}
    """As in `Source`."""
    published: Callable[[Batch], dict[str, Tensor]] = features
    """As in `Source`."""


class Scenes(Source):
    """`size` generated scenes. Scene i of a seed is the same in any order, in any process, in any batch."""

    def __init__(self, name: str, generator: Generator, size: int, seed: int, options: Mapping[str, Any]):
        self.name, self.generator, self.size, self.seed, self.options = name, generator, size, seed, options
        random.signed(seed)  # a draw of your own may take anything
        whole("size", size)
        self.first, self.values, self.origin = 0, generator.values, {"scenes_seed": seed}
        self.batch([0])  # wrong options fail here, not in a worker an hour later

    def __len__(self) -> int:
        return self.size

    def batch(self, index: Index, device: torch.device | str = "cpu") -> Batch:
        """The scenes numbered `index`, drawn on `device`. Raises IndexError for numbers out of range."""
        scenes = numbers(index, self.size).to(device) + self.first
        return self.generator.draw(self.seed, scenes, **self.options)

    def part(self, start: int, stop: int) -> "Scenes":
        part, chosen = copy.copy(self), range(self.size)[start:stop]
        part.first, part.size = self.first + chosen.start, len(chosen)
        part.origin = self.origin | ({"first_scene": part.first} if part.first else {})
        return part

    def published(self, batch: Batch) -> dict[str, Tensor]:
        return self.generator.published(batch)


class Kept(Source):
    """All scenes of another source in memory, on one device: images as bytes, everything else as it is.

    For scenes that take longer to draw, or to read, than to learn from. Raises ValueError for a source without scenes.
    """

    def __init__(self, source: Source, device: torch.device | str = "cpu", progress: bool = False):
        whole("the number of scenes to keep", len(source))
        parts = []
        for part in source.batches("drawing scenes" if progress else "", device):
            parts.append({**part, "image": (part["image"] * 255).round().byte()})
        self.content = joined(parts)
        self.origin, self.name = source.origin, source.name
        self.values, self.published = source.values, source.published

    def __len__(self) -> int:
        return len(self.content["image"])

    def batch(self, index: Index, device: torch.device | str = "cpu") -> Batch:
        rows = numbers(index, len(self)).to(self.content["image"].device)
        chosen = each(self.content, lambda value: value[rows].to(device))
        return {**chosen, "image": chosen["image"].float() / 255}

    def part(self, start: int, stop: int) -> "Kept":
        part = copy.copy(self)
        part.content = each(self.content, lambda value: value[start:stop])
        return part
