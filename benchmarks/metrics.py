"""ARI and FG-ARI on 320 label maps of 64×64 against a loop over scikit-learn's adjusted_rand_score."""

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from benchmarks.measure import Row, faster, in_turns
from slotlib.metrics import adjusted_rand_index, fg_ari

IMAGES, SIDE, OBJECTS, SLOTS = 320, 64, 6, 7
PEER = "scikit-learn loop"
ROUNDS = 7


def label_maps() -> tuple[Tensor, Tensor]:
    """Discs on a background, and a prediction that is right for three pixels in four."""
    source = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    true = torch.zeros(IMAGES, SIDE, SIDE, dtype=torch.int64)
    for name in range(1, OBJECTS + 1):
        centre = torch.randint(SIDE, (IMAGES, 2, 1, 1), generator=source)
        radius = torch.randint(4, 16, (IMAGES, 1, 1), generator=source)
        true[(y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2 < radius**2] = name
    noise = torch.randint(SLOTS, true.shape, generator=source)
    pred = torch.where(torch.rand(true.shape, generator=source) < 0.75, true, noise)
    return true.flatten(1), pred.flatten(1)


def scikit_learn(true: np.ndarray, pred: np.ndarray, background: int | None) -> list[float]:
    scores = []
    for t, p in zip(true, pred, strict=True):
        keep = slice(None) if background is None else t != background
        scores.append(adjusted_rand_score(t[keep], p[keep]))
    return scores


def run() -> list[Row]:
    true, pred = label_maps()
    arrays = true.numpy(), pred.numpy()
    rows = []
    for what, ours, background in (("ARI", adjusted_rand_index, None), ("FG-ARI", fg_ari, 0)):
        np.testing.assert_allclose(ours(true, pred), scikit_learn(*arrays, background), rtol=0, atol=1e-9)
        seconds = in_turns([lambda f=ours: f(true, pred), lambda b=background: scikit_learn(*arrays, b)], ROUNDS)
        rows.append(faster(f"{what}, {IMAGES} images of {SIDE}×{SIDE}", PEER, seconds, goal=30))
    return rows
