"""What callers bring: refused in one line that names the argument, what was expected and what came."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor


def described(value: object) -> str:
    """A value as an error message says it: dtype and shape of a tensor or array, anything else as Python writes it."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"a NumPy array, {value.dtype} {list(value.shape)}; torch.from_numpy makes a tensor of it"
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:60]}… ({type(value).__name__})"


def whole(name: str, value: object, least: int = 1) -> None:
    """Raises ValueError unless `value` is an integer, at least `least`. Truth values are none."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer | torch.SymInt) or value < least:
        raise ValueError(f"{name} must be a whole number, at least {least}, got {described(value)}")
    _fits_64_bits(name, value)


def _fits_64_bits(name: str, value: Any) -> None:
    if isinstance(value, int) and value >= 2**63:
        raise ValueError(f"{name} must be below 2^63, got {described(value)}")


def sizes(**values: object) -> None:
    """Raises ValueError naming the first of `values` that is no whole number, at least 1."""
    for name, value in values.items():
        whole(name, value)


def number(name: str, value: object, least: float = 0.0, above: bool = False) -> None:
    """Raises ValueError unless `value` is a finite number, at least `least`, or `above` it."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | np.number)
        or not least <= value < math.inf
        or (above and value == least)
    ):
        bound = "above" if above else "at least"
        raise ValueError(f"{name} must be a finite number, {bound} {least:g}, got {described(value)}")
    _fits_64_bits(name, value)


def choice(name: str, value: object, options: Any) -> None:
    """Raises ValueError unless `value` is one of the words of `options`: a `Literal`, or what has them in it."""
    words = get_args(options) or tuple(options)
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{name} must be one of {words}, got {described(value)}")


def kind(name: str, value: object, expected: type) -> None:
    """Raises ValueError unless `value` is an object of this class."""
    if not isinstance(value, expected):
        raise ValueError(f"{name} must be a {expected.__name__}, got {described(value)}")


def path(name: str, value: object) -> None:
    """Raises ValueError unless `value` is a path or text."""
    if not isinstance(value, str | Path):
        raise ValueError(f"{name} must be a path, got {described(value)}")


def generator(value: object) -> None:
    """Raises ValueError unless `value` is a `torch.Generator`, or None for torch's global one."""
    if not isinstance(value, torch.Generator | None):
        raise ValueError(f"generator must be a torch.Generator or None, got {described(value)}")


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


def _kind(dtype: torch.dtype) -> str:
    if dtype == torch.bool:
        return "bool"
    if dtype.is_floating_point:
        return "floating point"
    return "complex" if dtype.is_complex else "integers"


def _fits(lengths: list[Any], axes: list[str]) -> bool:
    if axes[0] == "...":
        axes = axes[1:]
        lengths = lengths[max(0, len(lengths) - len(axes)) :]
    expected = [axis.rpartition("=")[2] for axis in axes]
    return len(lengths) == len(axes) and all(
        # Where a model is traced, sizes are tensors.
        isinstance(length, Tensor) or not wanted.isdecimal() or int(wanted) == length
        for wanted, length in zip(expected, lengths, strict=True)
    )


def codes(name: str, value: object, shape: str, count: int) -> None:
    """Raises ValueError unless `value` is a tensor of integers from 0 to `count` − 1 in this shape."""
    found = tensor(name, value, "integers", shape)
    if not holds(((found >= 0) & (found < count)).all(), otherwise=True):
        raise ValueError(f"{name} must be within 0 and {count - 1}, got {int(found.min())} to {int(found.max())}")


def floating(**tensors: object) -> None:
    """Raises ValueError unless all are floating point, with two axes or more, and (but under autocast) of one type."""
    first = None
    for name, value in tensors.items():
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim < 2:
            raise ValueError(f"{name} must be floating point with two axes or more, got {described(value)}")
        first = first or (name, value.dtype)
        if value.dtype != first[1] and not torch.is_autocast_enabled(value.device.type):
            raise ValueError(f"{name} must be {first[1]} as {first[0]}, got {described(value)}")


def mask(value: object, shape: tuple[int, ...]) -> None:
    """Raises ValueError unless `value` is a bool tensor of this shape with a True in every row of its last axis."""
    if not isinstance(value, Tensor) or value.dtype != torch.bool or value.shape != shape:
        raise ValueError(f"mask must be torch.bool {list(shape)}, True for real inputs, got {described(value)}")
    if not holds(value.any(dim=-1).all(), otherwise=True):
        raise ValueError("mask must leave at least one real input everywhere, got a row without")


def holds(condition: Bool[Tensor, ""], otherwise: bool) -> bool:
    """Whether `condition` is true; `otherwise` where values cannot be looked at: compiled, under vmap, meta tensors."""
    if torch.compiler.is_compiling():
        return otherwise
    try:
        return bool(condition)
    except RuntimeError:  # what vmap, meta and fake tensors answer
        return otherwise
