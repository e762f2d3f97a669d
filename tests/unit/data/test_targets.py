"""CLEVR's objects as 19 numbers."""

import numpy as np
import pytest
import torch

from slotlib.data import clevr, make, read
from slotlib.data.targets import CATEGORIES, PROPERTIES, VALUES, clevr_targets


def test_targets_are_the_nineteen_values(sample, listed):
    # By hand from the JSON, in the order of the official code's labels.
    words = ["small", "large", "rubber", "metal", "cube", "sphere", "cylinder"]
    words += ["gray", "blue", "brown", "yellow", "red", "green", "purple", "cyan"]
    targets = clevr_targets(read(sample).batch(range(16))["objects"])
    expected = np.zeros((16, 10, 19))
    for i, scene in enumerate(listed):
        for k, thing in enumerate(scene["objects"]):
            names = {thing["size"], thing["material"], thing["shape"], thing["color"]}
            expected[i, k] = [*((c + 3) / 6 for c in thing["3d_coords"]), *(word in names for word in words), 1]
    np.testing.assert_allclose(targets, expected, atol=1e-6)
    assert targets.dtype == torch.float32


def test_categories_are_in_the_official_order():
    assert CATEGORIES["size"] == ("small", "large")
    assert CATEGORIES["material"] == ("rubber", "metal")
    assert CATEGORIES["shape"] == ("cube", "sphere", "cylinder")
    assert CATEGORIES["colour"] == ("gray", "blue", "brown", "yellow", "red", "green", "purple", "cyan")


def test_the_values_of_a_property_stand_where_it_says():
    objects = {name: torch.arange(8).clamp(max=len(names) - 1)[None] for name, names in CATEGORIES.items()}
    objects |= {"present": torch.ones(1, 8, dtype=torch.bool), "position": torch.linspace(-3, 3, 24).view(1, 8, 3)}
    targets = clevr_targets(objects)
    assert targets.shape[-1] == VALUES == 19
    for name in CATEGORIES:
        assert torch.equal(targets[..., PROPERTIES[name]].argmax(-1), objects[name])
        assert (targets[..., PROPERTIES[name]].sum(-1) == 1).all()
    assert targets[..., PROPERTIES["coordinates"]].aminmax() == (0, 1)
    assert (targets[..., PROPERTIES["presence"]] == 1).all()


def test_every_colour_has_its_paint():
    assert tuple(clevr.COLOURS) == CATEGORIES["colour"]


def test_other_scenes_have_no_targets():
    with pytest.raises(ValueError, match="do not tell: material, position"):
        clevr_targets(make("shapes", 1).batch([0])["objects"])
