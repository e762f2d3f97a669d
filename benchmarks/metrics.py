"""ARI and FG-ARI on 320 label maps of 64×64 against a loop over scikit-learn's adjusted_rand_score, and average
precision on 15,000 images against the loop over detections that the official code runs.
"""

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from benchmarks.measure import Row, faster, in_turns
from slotlib.metrics import PROPERTIES, adjusted_rand_index, average_precision, fg_ari

IMAGES, SIDE, OBJECTS, SLOTS = 320, 64, 6, 7
PEER = "scikit-learn loop"
ROUNDS = 7
SETS, SET_SIZE, THRESHOLD = 15_000, 10, 1.0


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


def sets() -> tuple[Tensor, Tensor]:
    """Up to ten objects an image, and predictions of a fair network: attributes mostly right, places a bit off."""
    source = torch.Generator().manual_seed(0)
    target = torch.zeros(SETS, SET_SIZE, 19)
    for part in PROPERTIES.values():
        choices = target[..., part]
        choices.scatter_(2, torch.randint(choices.shape[2], (SETS, SET_SIZE, 1), generator=source), 1)
    target[..., PROPERTIES["coordinates"]] = torch.rand(SETS, SET_SIZE, 3, generator=source)
    target *= (torch.rand(SETS, SET_SIZE, 1, generator=source) < 0.65).float()
    pred = (4 * (target - 0.5) + torch.randn(target.shape, generator=source)).sigmoid()
    pred[..., :3] = target[..., :3] + 0.05 * torch.randn(SETS, SET_SIZE, 3, generator=source)
    return pred, target


def loop_over_detections(pred: np.ndarray, target: np.ndarray, threshold: float) -> float:
    """As the official code: every detection with every object, unpacked where it is needed. That code unpacks with
    TensorFlow's argmax, which takes longer than NumPy's here.
    """

    def unpack(one: np.ndarray) -> tuple[np.ndarray, list[int], bool]:
        coordinates, *attributes, presence = (one[part] for part in PROPERTIES.values())
        return coordinates, [int(np.argmax(part)) for part in attributes], presence[0] > 0

    hits, taken = [], set()
    for detection in np.argsort(pred[..., -1].reshape(-1))[::-1]:
        image, place = divmod(int(detection), pred.shape[1])
        guess, guessed, _ = unpack(pred[image, place])
        least, nearest = 10_000, None
        for number, thing in enumerate(target[image]):
            coordinates, attributes, real = unpack(thing)
            if real and attributes == guessed:
                distance = np.linalg.norm((coordinates - guess) * 6)
                if distance < least:
                    least, nearest = distance, number
        hits.append(nearest is not None and least < threshold and (image, nearest) not in taken)
        if hits[-1]:
            taken.add((image, nearest))
    hit = np.array(hits)
    precision = hit.cumsum() / np.arange(1, len(hit) + 1)
    return np.maximum.accumulate(precision[::-1])[::-1][hit].sum() / target[..., -1].sum()


def run() -> list[Row]:
    true, pred = label_maps()
    arrays = true.numpy(), pred.numpy()
    rows = []
    for what, ours, background in (("ARI", adjusted_rand_index, None), ("FG-ARI", fg_ari, 0)):
        np.testing.assert_allclose(ours(true, pred), scikit_learn(*arrays, background), rtol=0, atol=1e-9)
        seconds = in_turns([lambda f=ours: f(true, pred), lambda b=background: scikit_learn(*arrays, b)], ROUNDS)
        rows.append(faster(f"{what}, {IMAGES} images of {SIDE}×{SIDE}", PEER, seconds, goal=30))
    pred, target = sets()
    answers = []

    def loop() -> None:
        answers.append(loop_over_detections(pred.numpy(), target.numpy(), THRESHOLD))

    seconds = [
        *in_turns([lambda: average_precision(pred, target, THRESHOLD)], ROUNDS),
        *in_turns([loop], rounds=3, warm_up=0),  # many seconds a call
    ]
    np.testing.assert_allclose(average_precision(pred, target, THRESHOLD), answers[0], rtol=0, atol=1e-6)
    what = f"average precision, {SETS} images of {SET_SIZE} predictions"
    rows.append(faster(what, "loop over detections", seconds, goal=100))
    return rows
