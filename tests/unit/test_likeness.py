"""How like the originals the generated scenes are."""

import pytest


def test_blender_scenes_drawn_again_look_alike(root, monkeypatch):
    """Scenes rendered by Blender from the original assets: the same outlines and nearly the same light."""
    folder = root.parent / "shared" / "data" / "clevr_sample"
    if not folder.is_dir():
        pytest.skip(f"needs rendered scenes in {folder}")
    monkeypatch.syspath_prepend(root)
    from benchmarks.likeness import ClevrFolder, redraw

    rendered = ClevrFolder(folder)
    for i in (4, 6):
        item = rendered[i]
        image, mask = redraw(item)
        overlap = [
            ((mask == k) & (item["mask"] == k)).sum() / ((mask == k) | (item["mask"] == k)).sum()
            for k in range(1, 1 + int(item["objects"]["present"].sum()))
        ]
        assert min(overlap) > 0.95
        assert (image - item["image"]).abs().mean() < 3 / 255
        assert (image - item["image"]).mean().abs() < 2 / 255
