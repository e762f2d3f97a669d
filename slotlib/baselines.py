"""What a score is worth: the same scenes taken apart by rules that have learned nothing (chapter 04).

Each image's pixels are told apart by where they are (`tiles`), by what they are called (`colour_lookup`), or by how
alike their colours are (`k_means`). Where these score high, so does anything that sees colours: a model's masks say
little there unless they were drawn without the image.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from slotlib import check
from slotlib.data.scenes import Source
from slotlib.encoders import Images
from slotlib.metrics import MASK_SCORES

Segments = Int[Tensor, "batch height width"]


def tiles(images: Images, count: int) -> Segments:
    """Every image cut into `count` tiles, about as wide as they are high, whatever it shows."""
    check.whole("count", count)
    batch, _, height, width = images.shape
    rows = math.isqrt(count)
    row = torch.arange(height) * rows // height
    tiles_before = torch.tensor([count * i // rows for i in range(rows + 1)])
    in_row = tiles_before.diff()[row]
    column = torch.arange(width) * in_row.unsqueeze(1) // width
    return (tiles_before[row].unsqueeze(1) + column).expand(batch, -1, -1)


DARK = 0.1
"""A pixel none of whose channels reaches this is black to `colour_lookup`."""


def colour_lookup(images: Images, count: int = 8) -> Segments:
    """One of eight names for every pixel: which of its channels have at least half as much light as its brightest.

    Black, red, yellow, white, … So shading does not change a colour's name. There are eight, whatever the `count`.
    """
    brightest = images.amax(dim=1, keepdim=True)
    lit = (images >= brightest / 2) & (brightest >= DARK)
    return (lit * torch.tensor([4, 2, 1], device=images.device).view(3, 1, 1)).sum(dim=1)


def k_means(images: Images, count: int, place: float = 0.0) -> Segments:
    """Each image's pixels in `count` clusters, by colour and by `place` times position; both run from 0 to 1."""
    from sklearn.cluster import KMeans  # slow to import

    check.whole("count", count)
    _, _, height, width = images.shape
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    places = place * np.stack([rows, columns], axis=-1).reshape(-1, 2)
    found = []
    for image in images.permute(0, 2, 3, 1).flatten(1, 2).cpu().numpy():
        points = np.concatenate([image, places], axis=1) if place else image
        # Flat colours may be fewer than clusters, and then there are no more to be found.
        clusters = min(count, len(np.unique(points, axis=0)))
        runs = KMeans(clusters, n_init=4, random_state=0)  # pyright: ignore[reportArgumentType]  # it knows "auto" alone
        found.append(runs.fit_predict(points))
    return torch.from_numpy(np.stack(found)).view(-1, height, width).long()


RULES: dict[str, Callable[..., Segments]] = {"tiles": tiles, "colour_lookup": colour_lookup, "k_means": k_means}


def scores(scenes: Source, images: int = 320, batch_size: int = 64) -> dict[str, float]:
    """Mean scores of every rule on the first `images` of `scenes`, named as those of a model: `tiles_fg_ari` and so on.

    Rules are told to make as many segments as the fullest of the scenes has, background included. Without masks there
    are no scores. Raises ValueError for no images.
    """
    images = min(images, len(scenes))
    check.whole("images", images)
    batches = [scenes.batch(range(i, min(i + batch_size, images))) for i in range(0, images, batch_size)]
    if "mask" not in batches[0]:
        return {}
    count = max(len(mask.unique()) for batch in batches for mask in batch["mask"])
    columns: dict[str, list[Tensor]] = {}
    for batch in batches:
        for rule, taken_apart in RULES.items():
            found = taken_apart(batch["image"], count)
            for name, metric in MASK_SCORES.items():
                columns.setdefault(f"{rule}_{name}", []).append(metric(batch["mask"], found))
    return {name: torch.cat(parts).mean().item() for name, parts in columns.items()}
