"""SlotAttention, forward and backward, against PyPI slot-attention (lucidrains), at three sizes.

The two are not the same function (the peer has biases in q, k, v and LayerNorm with ε = 1e-5), but they do the same
work: 7 slots of width 64, 3 unrolled iterations, MLP of 128, gradients of all parameters and of the inputs.
"""

from collections.abc import Callable
from importlib.metadata import version

import slot_attention as peer
import torch
from torch import Tensor, nn

from benchmarks.measure import Row, faster, in_fresh_process, in_turns, kept_for_backward, peak_growth, smaller
from slotlib.slot_attention import SlotAttention

SIZES = ((32, 81), (32, 1024), (8, 4096))  # batch and inputs
DIM, SLOTS, ITERATIONS = 64, 7, 3
PEER = f"slot-attention {version('slot-attention')}"
ROUNDS = 25


def build(side: str, batch: int, inputs: int) -> tuple[nn.Module, Tensor, Callable[[], Tensor]]:
    """The module of one side, its inputs, and its forward pass."""
    torch.manual_seed(0)
    x = torch.randn(batch, inputs, DIM, requires_grad=True)
    if side == "peer":
        module = peer.SlotAttention(SLOTS, DIM, ITERATIONS, hidden_dim=128)
        return module, x, lambda: module(x)
    module = SlotAttention(DIM, DIM, num_slots=SLOTS, num_iterations=ITERATIONS)
    return module, x, lambda: module(x).slots


def step(module: nn.Module, x: Tensor, forward: Callable[[], Tensor]) -> None:
    module.zero_grad()
    x.grad = None
    forward().sum().backward()


def peak(side: str, batch: int, inputs: int) -> int:
    """Growth of the resident memory over three steps, after a warm-up on one small image."""
    torch.set_num_threads(1)
    step(*build(side, 1, 8))
    parts = build(side, batch, inputs)
    return peak_growth(lambda: [step(*parts) for _ in range(3)])


def run() -> list[Row]:
    rows = []
    for batch, inputs in SIZES:
        size = f"{inputs} inputs, batch {batch}"
        sides = [build(side, batch, inputs) for side in ("slotlib", "peer")]
        seconds = in_turns([lambda parts=parts: step(*parts) for parts in sides], ROUNDS)
        rows.append(faster(f"forward + backward, {size}", PEER, seconds, goal=2))
        kept = [kept_for_backward(forward, [*module.parameters(), x]) for module, x, forward in sides]
        rows.append(smaller(f"kept for backward, {size}", PEER, kept))
        peaks = [
            in_fresh_process(f"from benchmarks.slot_attention import peak; print(peak({side!r}, {batch}, {inputs}))")
            for side in ("slotlib", "peer")
        ]
        rows.append(smaller(f"peak of the process, {size}", PEER, peaks))
    return rows
