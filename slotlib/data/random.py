"""Random numbers by address: number `j` of item `i` under `seed` is a pure function of the three.

A stateful generator makes item 7 depend on items 0–6. Hashing a counter instead (Salmon et al., 2011, "Parallel random
numbers: as easy as 1, 2, 3") gives every scene its own numbers in any order, on any worker, on any device, and a whole
batch of scenes in one vectorised call. The hash is SplitMix64's finaliser (Steele, Lea and Flood, 2014).
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from slotlib.check import described

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # 2^64/φ, odd, as a signed 64-bit integer
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift; torch's `>>` on int64 copies the sign bit."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """SplitMix64's finaliser: every input bit flips every output bit with probability ½. Integers wrap, by design."""
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def signed(seed: int) -> int:
    """Any integer as a signed one of 64 bits. Raises ValueError for what is none."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise ValueError(f"seed must be a whole number, got {described(seed)}")
    return (int(seed) + 2**63) % 2**64 - 2**63


def uniform(seed: int, index: Int[Tensor, "items"], count: int, stream: int = 0) -> Float[Tensor, "items count"]:
    """`count` uniform numbers in [0, 1) for each item, float64.

    Args:
        seed: any integer.
        index: which items, int64; negative ones are as good as others.
        count: numbers per item.
        stream: independent sets of numbers for the same item, for example one per rejection round.
    """
    key = torch.tensor([signed(seed), stream], dtype=torch.int64, device=index.device)
    key = _mix(_mix(key[0] * _GOLDEN + 1) + key[1] * _GOLDEN)
    counter = torch.arange(1, count + 1, dtype=torch.int64, device=index.device)
    bits = _mix(_mix(key + index.long() * _GOLDEN).unsqueeze(-1) + counter * _GOLDEN)
    return _shift_right(bits, 11).double() * 2.0**-53


def integers(u: Float[Tensor, "*shape"], high: int | Int[Tensor, "*#shape"]) -> Int[Tensor, "*shape"]:
    """Turn uniform numbers into integers in [0, high)."""
    return (u * high).long()
