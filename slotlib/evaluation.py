"""Scores on held-out scenes (chapter 04). What is scored, a model says itself: `Model.judge` and `summarise`."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from slotlib import check
from slotlib.data import random
from slotlib.data.scenes import Source, each
from slotlib.model import Draws, Model

__all__ = ["Scores", "evaluate", "measured"]


class Scores(NamedTuple):
    """What `evaluate` found."""

    columns: Mapping[str, Tensor]
    """Of every scene, by name, on the CPU; averages alone hide that scenes are either solved or not."""
    means: Mapping[str, float]
    """Of all scenes together, the leading score first; NaN where scenes do not tell."""


@torch.no_grad()
def evaluate(
    model: Model, scenes: Source, images: int = 320, batch_size: int = 64, seed: int = 0, **how: Any
) -> Scores:
    """Score a model on the first `images` of `scenes`.

    Args:
        model: left in the mode it was in.
        scenes: with what the model's `judge` asks for; masks, for instance, or CLEVR's objects.
        images: how many; at most all there are.
        batch_size: scenes at a time.
        seed: of what the model draws, such as the slots' initial noise.
        how: passed to `judge`, such as `num_slots`, `num_iterations`, `restarts`.

    Raises ValueError for no images, or an argument of another kind.
    """
    check.kind("model", model, Model)
    check.kind("scenes", scenes, Source)
    check.whole("images", images, least=0)
    check.whole("batch_size", batch_size)
    count = min(images, len(scenes))
    if count < 1:
        raise ValueError(f"nothing to evaluate on: {images} images asked for, of {len(scenes)} scenes")
    device, draws = next(model.parameters()).device, Draws(torch.Generator().manual_seed(random.signed(seed)))
    was_training = model.training
    model.eval()
    parts = []
    for start in range(0, count, batch_size):
        batch = scenes.batch(range(start, min(start + batch_size, count)))
        parts.append(model.judge(each(batch, lambda tensor: tensor.to(device)), draws, **how))
    model.train(was_training)
    columns = {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}
    return Scores(columns, model.summarise(columns))


def measured(model: Model, scenes: Source, images: int, seed: int = 0, **how: Any) -> dict[str, Any]:
    """`evaluate`'s means with everything needed to measure them again: an entry for a card's "metrics"."""
    means = evaluate(model, scenes, images, seed=seed, **how).means
    return {
        **{name: round(value, 5) for name, value in means.items() if not math.isnan(value)},
        "images": min(images, len(scenes)),
        **scenes.origin,
        "noise_seed": seed,
        **how,
    }
