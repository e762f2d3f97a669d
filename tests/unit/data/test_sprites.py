"""Shapes and Multi-dSprites: what is in front hides what is behind, and the picture shows what the properties say."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from slotlib.data import make, multi_dsprites, shapes, sprites

FINE = 5  # points per pixel side of the drawing that is compared with
CASES = [("shapes", {}), *(("multi_dsprites", {"variant": v, "look": "first"}) for v in multi_dsprites.VARIANTS)]
EVERY = pytest.mark.parametrize(
    ("name", "options"), CASES, ids=[options.get("variant", name) for name, options in CASES]
)
BOTH = pytest.mark.parametrize("name", ["shapes", "multi_dsprites"])


def heart(x: np.ndarray, y: np.ndarray, side: float) -> np.ndarray:
    """Inside a square standing on its corner at the origin, or a disc on one of its upper sides; y down."""
    lobes = [np.hypot(x + sign * side / 8**0.5, y + side / 8**0.5) < side / 2 for sign in (-1, 1)]
    return (np.abs(x) + np.abs(y) < side / 2**0.5) | lobes[0] | lobes[1]


GRID = np.linspace(-2, 2, 801)
RISE = np.broadcast_to(GRID[:, None], (801, 801))[heart(GRID[None, :], GRID[:, None], 1)].mean()  # its centre of mass


def inside(name: str, objects: dict, k: int, zoom: float, points: np.ndarray) -> np.ndarray:
    """Which of the grid's points lie in object k, from the description of the dataset alone."""
    right, down = points[None, :] - objects["x"][k].item(), points[:, None] - objects["y"][k].item()
    angle = objects["rotation" if name == "shapes" else "orientation"][k].item()
    u = math.cos(angle) * right + math.sin(angle) * down
    v = math.cos(angle) * down - math.sin(angle) * right
    if name == "shapes":
        radius = list(shapes.SIZES.values())[objects["size"][k]] * zoom
        kind, area = shapes.SHAPES[objects["shape"][k]], math.pi * radius**2
        if kind == "triangle":
            corner = math.sqrt(4 * area / math.sqrt(27))  # from the centre
            corners = [(corner * math.sin(turn), -corner * math.cos(turn)) for turn in np.arange(3) * 2 * math.pi / 3]
            sides = zip(corners, corners[1:] + corners[:1], strict=True)
            return np.all([(bx - ax) * (v - ay) > (by - ay) * (u - ax) for (ax, ay), (bx, by) in sides], axis=0)
    else:
        scale = objects["scale"][k].item() * zoom
        kind, area = multi_dsprites.SHAPES[objects["shape"][k]], (18 * scale) ** 2
        if kind == "heart":
            return heart(u, v + RISE * 12.8 * scale, 12.8 * scale)
        if kind == "ellipse":
            return (u / 13) ** 2 + (v / 6.5) ** 2 < scale**2
    if kind == "circle":
        return np.hypot(u, v) < radius
    return np.maximum(np.abs(u), np.abs(v)) < math.sqrt(area) / 2


def covered(name: str, objects: dict, resolution: int) -> list[np.ndarray]:
    """Which points of a fine grid each object covers, from back to front."""
    points = (np.arange(resolution * FINE) + 0.5) / FINE
    return [inside(name, objects, k, resolution / 64, points) for k in range(int(objects["present"].sum()))]


def redrawn(name: str, scene: dict, background: np.ndarray, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Name and colour at every point of a fine grid, painted from back to front."""
    labels = np.zeros((resolution * FINE,) * 2, dtype=int)
    palette = [background]
    for k, own in enumerate(covered(name, scene["objects"], resolution)):
        labels[own] = k + 1
        colour = scene["objects"]["colour"][k]
        palette.append(
            np.array(list(shapes.COLOURS.values())[colour]) / 255 if name == "shapes" else colour.numpy().astype(float)
        )
    return labels, np.array(palette)[labels]


def blocks(fine: np.ndarray) -> np.ndarray:
    """`[H, W, points]` from a fine grid."""
    side = len(fine) // FINE
    return fine.reshape(side, FINE, side, FINE).swapaxes(1, 2).reshape(side, side, -1)


@EVERY
@pytest.mark.parametrize(("num_objects", "resolution"), [((1, 6), 64), (8, 64), (3, 40)])
def test_image_mask_and_properties_tell_one_story(name, options, num_objects, resolution):
    scenes = make(name, 12, seed=4, num_objects=num_objects, resolution=resolution, **options)
    for scene in scenes.__getitems__(range(12)):
        image, mask = scene["image"].permute(1, 2, 0).double().numpy(), scene["mask"].numpy()
        background = np.array(shapes.BACKGROUND) / 255 if name == "shapes" else image[0, 0]
        labels, colours = redrawn(name, scene, background, resolution)
        # Flat: this pixel and its neighbours show one thing.
        points = blocks(labels)
        around = np.pad(points, ((1, 1), (1, 1), (0, 0)), mode="edge")
        patches = np.stack([around[r : r + resolution, c : c + resolution] for r in range(3) for c in range(3)])
        flat = patches.min((0, 3)) == patches.max((0, 3))
        assert flat.mean() > 0.3
        np.testing.assert_array_equal(mask[flat], points[flat][:, 0])
        exact = np.stack([blocks(colours[..., c]) for c in range(3)], axis=-1)  # [H, W, points, 3]
        np.testing.assert_allclose(image[flat], exact[flat][:, 0], rtol=0, atol=1e-7)
        # Along edges: the share of the pixel, and whoever has most of it.
        assert np.abs(image - exact.mean(2))[~flat].mean() < 0.04
        share = (points == mask[..., None]).mean(-1)
        assert (share[~flat] < 0.3).mean() < 0.02


@EVERY
def test_every_object_shows_at_least_the_stated_share_of_itself(name, options):
    for least in (0.25, 0.5, 0.9):
        scenes = make(name, 8, seed=5, num_objects=6, min_visible=least, **options)
        for scene in scenes.__getitems__(range(8)):
            for k, own in enumerate(covered(name, scene["objects"], 64)):
                surely = blocks(own).mean(-1) > 0.8  # some of the object's pixels
                assert (scene["mask"].numpy() == k + 1).sum() >= least * surely.sum()


@BOTH
def test_without_that_rule_some_objects_are_hidden_and_with_all_of_it_none_overlap(name):
    look = {"look": "first"} if name == "multi_dsprites" else {}
    free = make(name, 200, num_objects=8, min_visible=0).batch(range(200))
    seen = [len(mask.unique()) - 1 for mask in free["mask"]]
    assert min(seen) < 8
    apart = make(name, 40, num_objects=3, min_visible=1, **look)
    for scene in apart.__getitems__(range(40)):
        whole = covered(name, scene["objects"], 64)
        overlap = blocks(sum(own.astype(int) for own in whole) > 1).mean(-1)
        assert overlap.max() < 0.75  # edges may meet within a pixel


@EVERY
def test_types_and_ranges(name, options):
    batch = make(name, 50, seed=1, **options).batch(range(50))
    assert batch["image"].dtype == torch.float32
    assert batch["mask"].dtype == torch.uint8
    levels = (batch["image"] * 255).round()
    assert torch.equal(batch["image"], levels / 255)  # an 8-bit file holds them exactly
    assert 0 <= levels.min() < levels.max() <= 255
    present = batch["objects"]["present"]
    for value in batch["objects"].values():
        assert (value[~present] == 0).all()
    for key in ("x", "y"):
        assert 0 < batch["objects"][key][present].min() < batch["objects"][key].max() < 64


@EVERY
def test_nothing_is_drawn_across_the_border(name, options):
    mask = make(name, 300, seed=1, num_objects=5, min_visible=0, **options).batch(range(300))["mask"]
    edges = torch.cat([mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1]])
    # An outline may touch the border; a figure that went beyond would show many pixels there.
    assert torch.stack([(edges == k).sum(1) for k in range(1, 6)]).max() <= 20
    assert (edges > 0).float().mean() < 0.05


# --- the same scene whoever asks ---


@BOTH
@settings(max_examples=20, deadline=None)
@given(index=st.lists(st.integers(0, 10**12), min_size=1, max_size=6), seed=st.integers(-(2**70), 2**70))
def test_a_scene_depends_on_its_seed_and_number_alone(name, index, seed):
    draw = {"shapes": shapes.draw, "multi_dsprites": multi_dsprites.draw}[name]
    together = draw(seed, torch.tensor(index), num_objects=(1, 7))
    for i, number in enumerate(index):
        alone = draw(seed, torch.tensor([number]), num_objects=(1, 7))
        assert torch.equal(alone["image"][0], together["image"][i])
        assert torch.equal(alone["mask"][0], together["mask"][i])
        for key, value in together["objects"].items():
            assert torch.equal(alone["objects"][key][0], value[i])


@EVERY
def test_a_large_batch_and_several_threads_change_no_bit(name, options):
    size = 300  # more than are composed at a time
    scenes = make(name, size, seed=8, **options)
    batch = scenes.batch(range(size))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        again = scenes.batch(range(size - 1, -1, -1))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(again["image"].flip(0), batch["image"])
    assert torch.equal(again["mask"].flip(0), batch["mask"])
    assert torch.equal(scenes.batch(range(290, 295))["image"], batch["image"][290:295])


@BOTH
def test_no_two_scenes_and_no_two_seeds_are_alike(name):
    images = [make(name, 200, seed=seed).batch(range(200))["image"].flatten(1) for seed in (0, 1)]
    assert len(torch.cat(images).unique(dim=0)) == 400


def test_an_empty_batch_is_empty():
    for draw in (shapes.draw, multi_dsprites.draw):
        assert draw(0, torch.arange(0))["image"].shape == (0, 3, 64, 64)


@EVERY
def test_resolution_scales_everything(name, options):
    small = make(name, 40, seed=2, min_visible=0, **options).batch(range(40))
    large = make(name, 40, seed=2, min_visible=0, resolution=128, **options).batch(range(40))
    for key, value in small["objects"].items():
        torch.testing.assert_close(large["objects"][key], 2 * value if key in ("x", "y") else value)
    pooled = torch.nn.functional.avg_pool2d(large["image"], 2)
    assert (pooled - small["image"]).abs().mean() < 0.003
    assert (large["mask"][:, ::2, ::2] == small["mask"]).float().mean() > 0.98


# --- chance ---


def chi_square(values: torch.Tensor, count: int) -> float:
    return stats.chisquare(np.bincount(values.flatten().numpy(), minlength=count)).pvalue


def kinds(name: str, objects: dict) -> tuple[torch.Tensor, int]:
    """The number of each object's combination of discrete properties, and how many there are."""
    if name == "shapes":
        return (objects["shape"] * 8 + objects["colour"]) * 3 + objects["size"], 72
    scale = (objects["scale"] * 10).round().long() - 5
    orientation = (objects["orientation"] * 39 / (2 * math.pi)).round().long()
    return (objects["shape"] * 6 + scale) * 40 + orientation, 720


@BOTH
@pytest.mark.parametrize("num_objects", [2, 8])
def test_all_kinds_of_objects_are_equally_likely_however_hard_to_place(name, num_objects):
    objects = make(name, 1800, seed=2, num_objects=num_objects).batch(range(1800))["objects"]
    kind, count = kinds(name, objects)
    assert chi_square(kind, count) > 1e-4
    for k in (0, num_objects - 1):
        assert chi_square(kind[:, k] // (count // 3), 3) > 1e-4  # shapes, at the back and in front


HELD_OUT = {
    "shapes": [{"shape": "square", "colour": "red"}, {"size": "small", "colour": 5}],
    "multi_dsprites": [{"shape": "heart", "scale": 5}, {"shape": "square", "orientation": 0}],
}


@BOTH
@pytest.mark.parametrize("novel", [False, True])
def test_held_out_combinations_never_appear_or_alone(name, novel):
    held_out = HELD_OUT[name]
    objects = make(name, 1500, seed=3, num_objects=3, held_out=held_out, novel=novel).batch(range(1500))["objects"]
    kind, count = kinds(name, objects)
    shape = torch.arange(count) // (count // 3)
    if name == "shapes":
        colour, size = torch.arange(count) // 3 % 8, torch.arange(count) % 3
        out = ((shape == 1) & (colour == 0)) | ((size == 0) & (colour == 5))
    else:
        scale, orientation = torch.arange(count) // 40 % 6, torch.arange(count) % 40
        out = ((shape == 2) & (scale == 5)) | ((shape == 0) & (orientation == 0))
    seen = torch.bincount(kind.flatten(), minlength=count)
    wanted = out if novel else ~out
    assert seen[~wanted].sum() == 0
    assert stats.chisquare(seen[wanted].numpy()).pvalue > 1e-4


@EVERY
def test_numbers_of_objects_cover_their_range_evenly(name, options):
    default = (2, 6) if name == "shapes" else multi_dsprites.VARIANTS[options["variant"]]
    for bounds in (default, (1, 8), (7, 7)):
        chosen = {} if bounds == default else {"num_objects": bounds}
        objects = make(name, 400, **options, **chosen).batch(range(400))["objects"]
        counts = objects["present"].sum(1)
        assert objects["present"].shape[1] == bounds[1]
        assert torch.equal(objects["present"], torch.arange(bounds[1]) < counts.unsqueeze(1))
        assert set(counts.tolist()) == set(range(bounds[0], bounds[1] + 1))
        if bounds[0] < bounds[1]:
            assert chi_square(counts - bounds[0], bounds[1] - bounds[0] + 1) > 1e-4


@pytest.mark.parametrize(
    ("name", "most"), [("shapes", shapes.MAX_OBJECTS), ("multi_dsprites", multi_dsprites.MAX_OBJECTS)]
)
def test_as_many_objects_as_promised_find_their_places(name, most):
    batch = make(name, 100, num_objects=most).batch(range(100))
    assert batch["mask"].amax((1, 2)).tolist() == [most] * 100


# --- bad input ---


@BOTH
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_objects": 13}, "num_objects must be within 1 to"),
        ({"num_objects": (0, 2)}, "num_objects must be within 1 to"),
        ({"resolution": 8}, "resolution must be at least 16, got 8"),
        ({"min_visible": 1.5}, "min_visible must be within 0 to 1, got 1.5"),
        ({"held_out": [{"shape": "cube"}]}, "unknown shape 'cube'"),
        ({"novel": True}, "held_out is empty"),
    ],
)
def test_an_option_out_of_range_is_one_clear_error(name, options, message):
    with pytest.raises(ValueError, match=message):
        make(name, 5, **options)


def test_objects_that_find_no_place_are_one_clear_error(monkeypatch):
    monkeypatch.setattr(sprites, "_TRIES", 30)
    with pytest.raises(ValueError, match="1 of 1 scenes found no places where each of up to 12 objects shows 100% of"):
        make("shapes", 5, num_objects=12, min_visible=1, held_out=[{"size": "small"}, {"size": "medium"}])
