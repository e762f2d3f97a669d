"""What callers bring: refused in one line that names the argument, what was expected and what came."""

import math
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
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}… ({type(value).__name__})"


def whole(name: str, value: object, least: int = 1) -> None:
    """Raises ValueError unless `value` is an integer, at least `least`. Truth values are none."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer | torch.SymInt) or value < least:
        raise ValueError(f"{name} must be a whole number, at least {least}, got {described(value)}")


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


def choice(name: str, value: object, options: Any) -> None:
    """Raises ValueError unless `value` is one of the words of `options`, a `Literal`."""
    if not isinstance(value, str) or value not in get_args(options):
        raise ValueError(f"{name} must be one of {get_args(options)}, got {described(value)}")


def generator(value: object) -> None:
    """Raises ValueError unless `value` is a `torch.Generator`, or None for torch's global one."""
    if not isinstance(value, torch.Generator | None):
        raise ValueError(f"generator must be a torch.Generator or None, got {described(value)}")


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
