"""Tensors and sources of random numbers that callers bring: refused as by `slotlib.check`, in one clear line."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from slotlib.check import described, generator, holds
from slotlib.model import Draws


def draws(value: object) -> Draws:
    """`value`, or `Draws()` for None. Raises ValueError for anything else."""
    if not isinstance(value, Draws | None):
        raise ValueError(f"draws must be a slotlib.Draws, such as Draws(generator), or None, got {described(value)}")
    drawn = value or Draws()
    generator(drawn.generator)
    return drawn


def scenes(value: object) -> None:
    """Raises ValueError unless `value` is a batch of scenes, with an image."""
    if not isinstance(value, Mapping) or "image" not in value:
        raise ValueError(f"scenes must be a batch with an image, as slotlib.data gives it, got {described(value)}")


def tensor(name: str, value: object, kind: str, shape: str) -> Tensor:
    """`value`. Raises ValueError unless it is a tensor of this kind and shape.

    Args:
        name: of the argument.
        kind: "floating point", "integers" or "bool".
        shape: the names of its axes; a number, alone or after a name, is a size that must be met, and a first "..."
            stands for any other axes: "batch 3 64 64", "... dim=8".
    """
    axes = shape.split()
    if not (isinstance(value, Tensor) and _kind(value.dtype) == kind and _fits(list(value.shape), axes)):
        raise ValueError(f"{name} must be {kind} [{', '.join(axes)}], got {described(value)}")
    return value


def codes(name: str, value: object, shape: str, count: int) -> None:
    """Raises ValueError unless `value` is a tensor of integers from 0 to `count` − 1 in this shape."""
    found = tensor(name, value, "integers", shape)
    if not holds(((found >= 0) & (found < count)).all(), otherwise=True):
        raise ValueError(f"{name} must be within 0 and {count - 1}, got {int(found.min())} to {int(found.max())}")


def _kind(dtype: torch.dtype) -> str:
    if dtype.is_complex:
        return "complex"
    if dtype == torch.bool:
        return "bool"
    return "floating point" if dtype.is_floating_point else "integers"


def _fits(sizes: list[Any], axes: list[str]) -> bool:
    if axes[0] == "...":
        axes = axes[1:]
        sizes = sizes[max(0, len(sizes) - len(axes)) :]
    expected = [axis.rpartition("=")[2] for axis in axes]
    return len(sizes) == len(axes) and all(
        # Where a model is traced, sizes are tensors.
        isinstance(size, Tensor) or not number.isdecimal() or int(number) == size
        for number, size in zip(expected, sizes, strict=True)
    )
