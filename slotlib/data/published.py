"""What the published files call the properties of objects, and how they write them.

Those of the Multi-Object Datasets and, after them, of object-centric-library. There entity 0 is the background, and
what this package writes as a class and its number, those write as a code that counts from 1, or a colour as RGB.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from slotlib.data.targets import CATEGORIES, NEEDED

NAMES = {"color": "colour", "pixel_coords": "pixel"}
"""What published files call a property → what it is called here."""


def features(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """The properties of a batch's objects as features `[scenes, entities, …]`, zero for the background.

    They are float32, or uint8 where they are codes. Of CLEVR's objects `position` becomes x, y and z, and `size`,
    `material`, `shape`, `colour` codes from 1, 0 where there is no object. All others stay the numbers they are.
    """
    objects: Mapping[str, Tensor] = batch["objects"]
    present = objects["present"]
    table: dict[str, Tensor] = {name: value.float() for name, value in objects.items() if name != "present"}
    if objects.keys() >= NEEDED:
        codes = {name: ((objects[name] + 1) * present).byte() for name in CATEGORIES}
        axes = dict(zip("xyz", table.pop("position").unbind(-1), strict=True))
        table = {**axes, **codes, **{name: value for name, value in table.items() if name not in CATEGORIES}}
    theirs = {here: there for there, here in NAMES.items()}
    return {
        theirs.get(name, name): torch.cat([torch.zeros_like(value[:, :1]), value], dim=1)
        for name, value in table.items()
    }


def in_colour(batch: Mapping[str, Any], colours: Mapping[str, Sequence[int]], full: int) -> dict[str, Any]:
    """The batch with the RGB in [0, 1] of each `colour`, so far its number in `colours`, which go up to `full`."""
    objects = batch["objects"]
    palette = torch.tensor(list(colours.values()), dtype=torch.float32) / full
    colour = palette[objects["colour"]] * objects["present"].unsqueeze(-1)
    return {**batch, "objects": {**objects, "colour": colour}}
