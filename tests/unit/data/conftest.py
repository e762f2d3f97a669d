"""Scenes that Blender rendered, where they are at hand."""

import json

import pytest


@pytest.fixture(scope="module")
def sample(root):
    path = root.parent / "shared" / "data" / "clevr_sample"
    if not path.is_dir():
        pytest.skip(f"the CLEVR sample is not at {path}")
    return path


@pytest.fixture(scope="module")
def listed(sample):
    return json.loads((sample / "scenes" / "CLEVR_sample_scenes.json").read_text())["scenes"]
