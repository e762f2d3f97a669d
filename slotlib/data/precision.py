"""Scenes do not depend on `torch.set_default_dtype`: whoever works in float64 sees the same pictures, as float32."""

import functools
from collections.abc import Callable
from typing import Any

import torch


def in_single_precision(draw: Callable[..., Any]) -> Callable[..., Any]:
    """`draw`, with torch's default of float32 while it runs."""

    @functools.wraps(draw)
    def drawn(*inputs: Any, **options: Any) -> Any:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            return draw(*inputs, **options)
        finally:
            torch.set_default_dtype(before)

    return drawn
