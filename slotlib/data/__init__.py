"""Scenes with exact masks: `make("tetrominoes", 1000, seed=0)`, and scenes from files: `read(path)`.

A dataset here is a pure function `draw(seed, index, **options)` that draws any set of scenes in one vectorised call.
`Scenes` gives it the face of a map-style `torch.utils.data.Dataset`, `Stream` that of an endless one for training.
"""

import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from slotlib.data import clevr, multi_dsprites, shapes, tetrominoes
from slotlib.data.files import DataError, Files, read

__all__ = ["GENERATORS", "DataError", "Files", "Scenes", "Stream", "make", "read", "stream"]

Draw = Callable[..., dict[str, Any]]
GENERATORS: dict[str, Draw] = {
    "tetrominoes": tetrominoes.draw,
    "shapes": shapes.draw,
    "multi_dsprites": multi_dsprites.draw,
    "clevr": clevr.draw,
}


class Scenes(Dataset):
    """`size` generated scenes. Item i of a seed is the same in any order, in any process, in any batch.

    `scenes[i]` is a dict: `image` float32 `[3, H, W]` in [0, 1], `mask` uint8 `[H, W]` (0 background, i the i-th
    object), `objects` a dict of tensors, one row per object, padded, with `present`; some datasets add tensors of the
    whole scene. `scenes.batch(index)` draws many at once, which is far cheaper than one by one; a DataLoader does so by
    itself.
    """

    def __init__(self, draw: Draw, size: int, seed: int, options: dict[str, Any]):
        self.draw, self.size, self.seed, self.options = draw, size, seed, options
        self.batch(torch.arange(1))  # wrong options fail here, not in a worker an hour later

    def __len__(self) -> int:
        return self.size

    def batch(self, index: Int[Tensor, "scenes"] | Sequence[int] | range) -> dict[str, Any]:
        """The scenes numbered `index` (each in [0, size)), stacked, drawn on the device of `index`."""
        index = torch.as_tensor(index, dtype=torch.int64)
        if index.numel() and (index.min() < 0 or index.max() >= self.size):
            raise IndexError(f"scene numbers must lie in [0, {self.size}), got {index.min()} to {index.max()}")
        return self.draw(self.seed, index, **self.options)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.__getitems__([i])[0]

    def __getitems__(self, index: Sequence[int]) -> list[dict[str, Any]]:
        return _rows(self.batch(index), len(index))


def _rows(batch: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """A batch, cut into its `count` scenes."""
    parts = {name: _rows(part, count) if isinstance(part, dict) else part for name, part in batch.items()}
    return [{name: part[i] for name, part in parts.items()} for i in range(count)]


class Stream(IterableDataset):
    """Endless batches for training: step t brings the scenes [t · batch_size, (t + 1) · batch_size) of the seed.

    Each item is a batch: `image` `[n, 3, H, W]`, `mask` `[n, H, W]`, `objects`. Nothing is kept between steps, so a
    run resumed at `first_step` sees what an uninterrupted one would. Several processes of a run share each batch:
    process `rank` of `world` draws every `world`-th scene of it.

    Use it as it is, or as `DataLoader(stream, batch_size=None, num_workers=4)`, whose workers take turns and bring the
    same batches in the same order.
    """

    def __init__(
        self,
        draw: Draw,
        batch_size: int,
        seed: int,
        first_step: int,
        rank: int,
        world: int,
        device: torch.device | str,
        options: dict[str, Any],
    ):
        if not 0 <= rank < world or batch_size < world:
            raise ValueError(
                f"expected 0 <= rank < world <= batch_size, got rank {rank}, world {world}, batch_size {batch_size}"
            )
        if first_step < 0:
            raise ValueError(f"first_step must be at least 0, got {first_step}")
        self.draw, self.batch_size, self.seed, self.first_step = draw, batch_size, seed, first_step
        self.rank, self.world, self.device, self.options = rank, world, torch.device(device), options
        draw(seed, torch.arange(1), **options)  # wrong options fail here, not in a worker

    def batch(self, step: int) -> dict[str, Any]:
        """This process' share of the batch of step `step`."""
        first = step * self.batch_size
        index = torch.arange(first + self.rank, first + self.batch_size, self.world, device=self.device)
        return self.draw(self.seed, index, **self.options)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        if worker is not None and self.device.type != "cpu":
            raise ValueError(f"workers draw on the CPU; with device {str(self.device)!r} use num_workers=0")
        turn, turns = (worker.id, worker.num_workers) if worker else (0, 1)
        return (self.batch(step) for step in itertools.count(self.first_step + turn, turns))


def _generator(name: str, options: dict[str, Any]) -> Draw:
    """The generator called `name`, which must know all `options`."""
    if name not in GENERATORS:
        raise ValueError(f"unknown dataset {name!r}; there are: {', '.join(sorted(GENERATORS))}")
    known = list(inspect.signature(GENERATORS[name]).parameters)[2:]
    for option in options:
        if option not in known:
            raise TypeError(f"{name} has no option {option!r}; it has: {', '.join(known)}")
    return GENERATORS[name]


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
    draw = _generator(name, options)
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    return Scenes(draw, size, seed, options)


def stream(
    name: str,
    batch_size: int,
    seed: int = 0,
    first_step: int = 0,
    rank: int = 0,
    world: int = 1,
    device: torch.device | str = "cpu",
    **options: Any,
) -> Stream:
    """Endless batches of generated scenes, see `Stream`.

    Args:
        name: one of `GENERATORS`.
        batch_size: scenes per step, over all processes together.
        seed: any integer; scenes of different seeds are independent.
        first_step: where to begin, to resume a run.
        rank, world: which process this is, of how many.
        device: where to draw. On a GPU the scenes never cross from the processor's memory.
        options: the generator's own.

    Raises:
        ValueError: an unknown name, a number or an option out of range.
        TypeError: an option the generator does not have.
    """
    return Stream(_generator(name, options), batch_size, seed, first_step, rank, world, device, options)
