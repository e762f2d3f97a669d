"""Scenes do not depend on the default precision."""

import pytest
import torch

from slotlib.data import GENERATORS, make


@pytest.mark.parametrize("name", GENERATORS)
def test_scenes_are_the_same_where_the_default_is_double_precision(name):
    scenes = make(name, 3, seed=1)
    single = scenes.batch(range(3))
    torch.set_default_dtype(torch.float64)
    try:
        double = scenes.batch(range(3))
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(single["image"], double["image"])
    assert torch.equal(single["mask"], double["mask"])
    assert {name: t.dtype for name, t in single["objects"].items()} == {
        name: t.dtype for name, t in double["objects"].items()
    }
