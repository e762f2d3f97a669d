"""CLEVR's objects as 19 numbers: what set prediction predicts and average precision scores (chapter 05).

| values | |
|---|---|
| 0–2 | `coordinates`: the position, from [−3, 3] to [0, 1] |
| 3–4 | `size`, one-hot: small, large |
| 5–6 | `material`, one-hot: rubber, metal |
| 7–9 | `shape`, one-hot: cube, sphere, cylinder |
| 10–17 | `colour`, one-hot: gray, blue, brown, yellow, red, green, purple, cyan |
| 18 | `presence`: 1, an object |

The layout, and the order of the names, are those of the official code of Slot Attention.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

CATEGORIES = {
    "size": ("small", "large"),
    "material": ("rubber", "metal"),
    "shape": ("cube", "sphere", "cylinder"),
    "colour": ("gray", "blue", "brown", "yellow", "red", "green", "purple", "cyan"),
}
"""The categorical properties in the order of the values, each with its names."""
PROPERTIES = {
    "coordinates": slice(0, 3),
    "size": slice(3, 5),
    "material": slice(5, 7),
    "shape": slice(7, 10),
    "colour": slice(10, 18),
    "presence": slice(18, 19),
}
"""Where each property stands among the values."""
VALUES = PROPERTIES["presence"].stop
SCENE_SIZE = 6.0
"""In metres, the unit of CLEVR's coordinates: how far 0 and 1 lie apart."""
NEEDED = frozenset({"present", "position", *CATEGORIES})
"""What `objects` of scenes like CLEVR's tell."""


def clevr_targets(objects: Mapping[str, Tensor]) -> Float[Tensor, "*batch objects 19"]:
    """One row of 19 values per object, padding rows zero.

    `objects` is that of scenes, from files or generated. Raises ValueError unless they are like CLEVR's.
    """
    if missing := NEEDED - objects.keys():
        raise ValueError(f"set prediction needs scenes like CLEVR's; these do not tell: {', '.join(sorted(missing))}")
    present = objects["present"].unsqueeze(-1)
    one_hots = [one_hot(objects[name].long(), len(names)).float() for name, names in CATEGORIES.items()]
    coordinates = (objects["position"] + SCENE_SIZE / 2) / SCENE_SIZE
    return torch.cat([coordinates, *one_hots, present.float()], dim=-1) * present
