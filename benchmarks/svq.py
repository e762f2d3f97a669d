"""The block quantiser against the all-pairs formulation published with SVQ: 16 blocks × 64 codes, batch 64 × 7 slots.

Both replace every block of every slot by the nearest code of that block, and choose the same codes. The published code
(Wu, Lee and Ahn, 2024, arXiv 2402.01203) compares each block with the codes of *all* blocks, as differences of all
pairs, and keeps the due ones. Rows are the choice alone, and a training step: forward, backward, and the update of the
codebooks as running means. Blocks are 16 wide here, 128 in the paper, where the differences alone take 3.8 GB.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.measure import Row, faster, in_fresh_process, in_turns, peak_growth, smaller
from slotlib.vq import VectorQuantizer

BATCH, SLOTS, BLOCKS, CODES, WIDTH = 64, 7, 16, 64, 16
PEER = "published all-pairs formulation"
ROUNDS = 15
DECAY, EPS, DEAD = 0.99, 1e-5, 1.0


class AllPairs:
    """The published quantiser, written from its description: one memory for the codes of all blocks."""

    def __init__(self, codebook: Tensor):
        self.blocks, self.codes, self.width = codebook.shape
        self.memory = codebook.flatten(0, 1).clone()
        self.counts, self.sums = torch.ones(len(self.memory)), self.memory.clone()

    def choose(self, slots: Tensor) -> Tensor:
        """Indices into the memory, `[batch, slots, blocks]`."""
        flat = slots.reshape(-1, self.width)
        distance = (flat.unsqueeze(1) - self.memory.unsqueeze(0)).square().sum(dim=2)
        distance = distance.view(-1, self.blocks, self.blocks, self.codes)
        own = [distance[:, m, m].argmin(dim=1) + m * self.codes for m in range(self.blocks)]
        return torch.stack(own, dim=1).view(*slots.shape[:2], self.blocks)

    def step(self, slots: Tensor) -> None:
        """Forward and backward, and what training does to the memory."""
        with torch.no_grad():
            chosen = self.choose(slots)
        found = self.memory[chosen].flatten(2)
        values = slots + (found - slots).detach()
        (values.sum() + (found - slots).square().mean()).backward()
        with torch.no_grad():
            flat = slots.reshape(-1, self.width)
            hot = torch.zeros(len(flat), len(self.memory)).scatter_(1, chosen.reshape(-1, 1), 1)
            self.counts = DECAY * self.counts + (1 - DECAY) * hot.sum(dim=0)
            total = self.counts.sum()
            self.counts = (self.counts + EPS) / (total + len(self.memory) * EPS) * total
            self.sums = DECAY * self.sums + (1 - DECAY) * hot.T @ flat
            new = slots.detach().view(-1, self.blocks, self.width)
            new = new[torch.randperm(len(new))[: self.codes]].transpose(0, 1).flatten(0, 1)
            new = new + 0.01 / self.width**0.5 * torch.randn_like(new)
            alive = (self.counts >= DEAD).unsqueeze(1)
            self.memory = torch.where(alive, self.sums / self.counts.unsqueeze(1), new)


def build(side: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """Of one side: a call that chooses codes, and a training step."""
    torch.manual_seed(0)
    quantizer = VectorQuantizer(BLOCKS * WIDTH, CODES, num_blocks=BLOCKS, kmeans=False)
    slots = torch.randn(BATCH, SLOTS, BLOCKS * WIDTH, requires_grad=True)
    if side == "peer":
        peer = AllPairs(quantizer.codebook)
        return lambda: peer.choose(slots.detach()), lambda: peer.step(slots)

    def step() -> None:
        quantised = quantizer(slots)
        (quantised.values.sum() + quantised.loss).backward()
        quantizer.update()

    return lambda: quantizer.nearest(slots.detach()), step


def peak(side: str, what: int) -> int:
    """Growth of the resident memory over three calls, after one on a small scale has loaded what is needed."""
    torch.set_num_threads(1)
    torch.zeros(8, 8, requires_grad=True).square().sum().backward()
    call = build(side)[what]
    return peak_growth(lambda: [call() for _ in range(3)])


def run() -> list[Row]:
    ours, theirs = build("slotlib"), build("peer")
    offset = CODES * torch.arange(BLOCKS)
    if not torch.equal(ours[0]() + offset, theirs[0]()):
        raise AssertionError("the two sides choose different codes")
    rows = []
    for what, name in enumerate(("choosing codes", "training step")):
        seconds = in_turns([ours[what], theirs[what]], ROUNDS)
        rows.append(faster(f"{name}, {BLOCKS} blocks × {CODES} codes", PEER, seconds, goal=16))
        peaks = [
            in_fresh_process(f"from benchmarks.svq import peak; print(peak({side!r}, {what}))")
            for side in ("slotlib", "peer")
        ]
        rows.append(smaller(f"peak of the process, {name}", PEER, peaks, goal=8))
    return rows
