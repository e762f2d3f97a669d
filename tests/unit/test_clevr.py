"""Facts about CLEVR-like scenes and the ray tracer that draws them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from slotlib.data import clevr, raytracer
from slotlib.data.raytracer import CUBE, CYLINDER, KEY, LIGHTS, SPHERE, Picture, Rays, World

SMALL = {"num_objects": (3, 6), "resolution": 64}


@pytest.fixture(scope="module")
def scenes():
    return clevr.draw(0, torch.arange(64), **SMALL)


def world(shape, centre, radius=0.7, yaw=0.0, eye=(0.0, -8.0, 3.0)):
    """One scene with the given objects, all of one grey."""
    objects = len(shape)
    lamps = torch.tensor([light.position for light in LIGHTS])
    return World(
        eye=torch.tensor([eye]),
        lamps=lamps.unsqueeze(0),
        centre=torch.tensor([centre]),
        radius=torch.full((1, objects), radius),
        yaw=torch.full((1, objects), yaw),
        shape=torch.tensor([shape]),
        present=torch.ones(1, objects, dtype=torch.bool),
        albedo=torch.full((1, objects, 3), 0.5),
        metal=torch.zeros(1, objects, dtype=torch.bool),
    )


# --- the ray tracer ---------------------------------------------------------------------------------------------------


def inside(shape, p):
    """Whether points in an object's own frame lie in it: the definition of a unit cube, ball and can."""
    if shape == CUBE:
        return (p.abs() <= 1).all(0)
    if shape == SPHERE:
        return p.square().sum(0) <= 1
    return (p[:2].square().sum(0) <= 1) & (p[2].abs() <= 1)


@pytest.mark.parametrize("shape", [CUBE, SPHERE, CYLINDER])
@given(seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_intervals_are_exactly_the_part_of_the_ray_inside(shape, seed):
    """Sampled points of a ray are in the object if and only if they lie between entering and leaving."""
    random = torch.Generator().manual_seed(seed)
    p = 3 * torch.rand(3, 64, 1, generator=random, dtype=torch.float64) - 1.5
    d = torch.randn(3, 64, 1, generator=random, dtype=torch.float64)
    enter, leave = raytracer.SOLVERS[shape](p, d)
    t = torch.linspace(-4, 4, 401, dtype=torch.float64)
    far = ((t - enter).abs() > 1e-9) & ((t - leave).abs() > 1e-9)
    between = (t > enter) & (t < leave)  # false for NaN: a miss
    assert (inside(shape, p + t * d) == between)[far].all()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shape", [CUBE, SPHERE, CYLINDER])
def test_rays_along_an_axis(shape, axis):
    """Rays parallel to faces divide by zero somewhere; they hit all the same, at distance two."""
    p, d = torch.zeros(3, 2), torch.zeros(3, 2)
    p[axis], d[axis] = -3, 1
    p[(axis + 1) % 3, 1] = 1.5  # the second ray passes by
    enter, leave = raytracer.SOLVERS[shape](p, d)
    assert enter[0] == pytest.approx(2) and leave[0] == pytest.approx(4)
    assert not enter[1] < leave[1]


def test_projection_and_rays_are_inverse():
    """The ray through a point's projection passes through the point."""
    eye = torch.tensor([[7.0, -6.0, 5.0], [6.5, -7.0, 5.5]])
    points = torch.rand(2, 9, 3) * 4 - 2
    column, row, depth = raytracer.project(eye, points).flatten(0, 1).T
    scene = torch.arange(2).repeat_interleave(9)
    rays = raytracer.through(eye, scene, column, row)
    offset = points.flatten(0, 1).T - eye.T[:, scene]
    torch.testing.assert_close(rays.direction, raytracer.unit(offset), rtol=0, atol=1e-5)
    forward = raytracer.view(eye)[2].T[:, scene]
    torch.testing.assert_close(depth, raytracer.dot(offset, forward))


def test_the_camera_looks_at_the_origin():
    eye = torch.tensor([[7.0, -6.0, 5.0]])
    torch.testing.assert_close(
        raytracer.project(eye, torch.zeros(1, 1, 3)).flatten(), torch.tensor([160, 120, eye.norm()])
    )


def test_the_nearest_object_is_seen():
    """Two spheres on one line of sight: the nearer one hides the farther one, whichever comes first."""
    for centres in ([[0.0, 0, 0.7], [0.0, 3, 0.7]], [[0.0, 3, 0.7], [0.0, 0, 0.7]]):
        it = world([SPHERE, SPHERE], centres, eye=(0.0, -8.0, 0.7))
        straight = Rays(torch.zeros(1, dtype=torch.long), torch.tensor([[0.0], [1.0], [0.0]]), even=True)
        hits = raytracer.see(it, straight)
        assert hits.number.item() == centres.index([0.0, 0, 0.7])
        assert hits.distance.item() == pytest.approx(8 - 0.7, abs=1e-5)


def test_a_sphere_covers_its_solid_angle():
    """A sphere of radius r at distance d covers the solid angle 2π (1 - sqrt(1 - r²/d²)), wherever it stands."""
    picture = Picture(240, 320, 0, 240, 0, 320)
    for x in (0.0, 1.5):
        it = world([SPHERE], [[x, 0.0, 0.7]])
        hits = raytracer.see(it, picture.rays(it.eye))
        row, column = torch.meshgrid(torch.arange(240) + 0.5 - 120, torch.arange(320) + 0.5 - 160, indexing="ij")
        per_pixel = raytracer.FOCAL / (row**2 + column**2 + raytracer.FOCAL**2) ** 1.5
        angle = per_pixel.flatten()[hits.number == 0].sum().item()
        distance = (it.centre[0, 0] - it.eye[0]).norm().item()
        assert angle == pytest.approx(2 * math.pi * (1 - math.sqrt(1 - (0.7 / distance) ** 2)), rel=0.01)


def share(it, point, light=KEY):
    """How much of a lamp a point on the ground sees."""
    path = point - it.lamps[:, LIGHTS.index(light)].T
    rays = Rays(torch.zeros(point.shape[1], dtype=torch.long), raytracer.unit(path), even=True)
    number = torch.full((point.shape[1],), raytracer.GROUND)
    return raytracer._unshadowed(it, rays, point, number, it.lamps[:, LIGHTS.index(light)], light)


@pytest.mark.parametrize("shape", [CUBE, SPHERE, CYLINDER])
def test_shadows_agree_with_many_rays_to_the_lamp(shape):
    """The four rays per lamp estimate what 1024 rays measure: full shadow exactly, half shadow nearly."""
    it = world([shape], [[0.0, 0.0, 0.7]], yaw=0.4)
    grid = torch.linspace(-2.5, 1.5, 60)
    point = torch.stack([*torch.meshgrid(grid, grid, indexing="ij"), torch.zeros(60, 60)]).flatten(1)
    ours = share(it, point)
    side = ((torch.arange(32) + 0.5) / 32 * 2 - 1).tolist()
    spots = torch.tensor([[a, b] for a in side for b in side])
    old = raytracer.SPOTS
    try:
        raytracer.SPOTS = spots
        true = share(it, point)
    finally:
        raytracer.SPOTS = old
    assert (true == 0).any() and (true == 1).sum() > 1000
    assert (ours - true).abs().max() < 0.5 and (ours - true).abs().mean() < 0.01
    torch.testing.assert_close(ours[true == 0], true[true == 0])


def test_shadows_lie_on_the_far_side_of_the_lamp():
    it = world([SPHERE], [[0.0, 0.0, 0.7]])
    lamp = it.lamps[0, 0]
    # The ground point on the line from the lamp through the sphere's centre, and its mirror image.
    reach = lamp[2] / (lamp[2] - 0.7)
    dark = lamp + reach * (it.centre[0, 0] - lamp)
    points = torch.stack([dark, -dark], dim=1)
    points[2] = 0
    assert share(it, points).tolist() == [0.0, 1.0]


def test_nothing_casts_no_shadow_and_a_convex_object_none_on_itself():
    it = world([CUBE], [[0.0, 0.0, 0.7]])
    top = torch.tensor([[0.0], [0.0], [1.4]])
    number = torch.zeros(1, dtype=torch.long)
    lamp = it.lamps[:, 0]
    rays = Rays(torch.zeros(1, dtype=torch.long), raytracer.unit(top - lamp.T), even=True)
    assert raytracer._unshadowed(it, rays, top, number, lamp, KEY).item() == 1
    it.present[:] = False
    it.__post_init__()
    assert (share(it, torch.zeros(3, 5)) == 1).all()


def test_light_adds_up_and_falls_with_the_square_of_the_distance():
    """An empty ground far from the axis of a lone lamp: the inverse square and the two cosines, nothing else."""
    it = world([SPHERE], [[50.0, 50.0, 0.7]])
    picture = Picture(24, 32, 0, 240, 0, 320)
    rays = picture.rays(it.eye)
    hits = raytracer.see(it, rays)
    light = raytracer.shade(it, rays, it.eye.T[:, rays.scene], hits)
    point = it.eye.T.double() + hits.distance.double() * rays.direction.double()
    expected = torch.full_like(point, raytracer.AMBIENT)
    for lamp in LIGHTS:
        place = torch.tensor(lamp.position, dtype=torch.float64).unsqueeze(1)
        way = place - point
        far = way.norm(dim=0)
        facing = (place / place.norm() * way).sum(0) / far
        expected += torch.tensor(lamp.strength).unsqueeze(1) * facing.clamp_min(0) * way[2] / far**3
    torch.testing.assert_close(light.double(), raytracer.GROUND_ALBEDO * expected, rtol=1e-4, atol=1e-5)


# --- what is in a scene -----------------------------------------------------------------------------------------------


def test_an_item_is_the_same_in_any_batch(scenes):
    order = [40, 3, 17, 3]
    again = clevr.draw(0, torch.tensor(order), **SMALL)
    alone = clevr.draw(0, torch.tensor([17]), **SMALL)
    for key in ("image", "mask", "behind"):
        torch.testing.assert_close(again[key], scenes[key][order], rtol=0, atol=0)
        torch.testing.assert_close(alone[key], scenes[key][17:18], rtol=0, atol=0)
    for name, values in scenes["objects"].items():
        torch.testing.assert_close(again["objects"][name], values[order], rtol=0, atol=0)


def test_images_are_bytes(scenes):
    image = scenes["image"]
    assert image.dtype == torch.float32 and image.min() >= 0 and image.max() <= 1
    torch.testing.assert_close(image, (image * 255).round() / 255, rtol=0, atol=0)


def test_centres_are_seen_where_they_are_said_to_be(scenes):
    """At the pixel of an object's centre there is the object, or one that stands nearer to the camera."""
    objects = scenes["objects"]
    for i, k in objects["present"].nonzero().tolist():
        column, row, depth = objects["pixel"][i, k].tolist()
        at = scenes["mask"][i, min(int(row), 63), min(int(column), 63)].item()
        assert at > 0
        assert objects["pixel"][i, at - 1, 2] <= depth


def test_every_object_shows_its_least_number_of_pixels(scenes):
    least = 200 * (64 / 192) ** 2
    for mask, present in zip(scenes["mask"], scenes["objects"]["present"], strict=True):
        counts = mask.flatten().bincount(minlength=1 + len(present))[1:]
        assert (counts[present] >= least).all()
        assert (counts[~present] == 0).all()


def test_objects_keep_their_distances(scenes):
    """The original's rules: outlines apart, and a margin along both directions of the camera."""
    objects = scenes["objects"]
    height = objects["position"][..., 2]
    for i in range(64):
        here = objects["present"][i]
        xy, r, behind = objects["position"][i, here, :2], height[i, here], scenes["behind"][i]
        left = torch.stack([-behind[1], behind[0]])
        gap = xy[:, None] - xy
        pairs = ~torch.eye(len(xy), dtype=torch.bool)
        assert (gap.norm(dim=-1) - r[:, None] - r >= clevr.MIN_DISTANCE - 1e-5)[pairs].all()
        for axis in (behind, left):
            assert ((gap @ axis).abs() >= 0.4 - 1e-5)[pairs].all()
        assert xy.abs().max() <= clevr.EXTENT
    assert set(height[objects["present"]].tolist()) == {np.float32(0.35), np.float32(0.7)}


def test_behind_points_away_from_the_camera(scenes):
    """Objects farther along `behind` have greater depth when they are of one height."""
    torch.testing.assert_close(scenes["behind"].norm(dim=1), torch.ones(64))
    objects = scenes["objects"]
    for i in range(64):
        large = objects["present"][i] & (objects["size"][i] == 1)
        along = objects["position"][i, large, :2] @ scenes["behind"][i]
        assert (along.argsort() == objects["pixel"][i, large, 2].argsort()).all()


def test_properties_are_uniform():
    """Colour, material and count are; small objects are commoner in crowded scenes, as in the original."""
    batch = clevr.draw(1, torch.arange(300), num_objects=(3, 6), resolution=16)
    objects, present = batch["objects"], batch["objects"]["present"]
    assert chisquare(present.sum(1).bincount(minlength=7)[3:]).pvalue > 1e-3
    for name, values in (("colour", 8), ("material", 2), ("shape", 3)):
        counts = objects[name][present].bincount(minlength=values)
        assert len(counts) == values and chisquare(counts).pvalue > 1e-3
    turns = objects["rotation"][present] / 360
    assert turns.min() >= 0 and turns.max() < 1
    assert chisquare(np.histogram(turns, bins=8, range=(0, 1))[0]).pvalue > 1e-3


def test_held_out_combinations():
    """CoGenT's rule: cubes in four colours only; and the other way round."""
    held_out = [{"shape": "cube", "colour": c} for c in ("red", "green", "purple", "cyan")]
    for novel in (False, True):
        objects = clevr.draw(0, torch.arange(24), **SMALL, held_out=held_out, novel=novel)["objects"]
        colours = [list(clevr.COLOURS)[c] for c in objects["colour"][objects["present"]]]
        cubes = (objects["shape"] == CUBE)[objects["present"]].tolist()
        hits = [
            cube and colour in ("red", "green", "purple", "cyan") for cube, colour in zip(cubes, colours, strict=True)
        ]
        assert all(hits) if novel else not any(hits)


def test_more_objects_than_clevr_has():
    objects = clevr.draw(0, torch.arange(2), num_objects=14, resolution=32, margin=0.1, min_visible=60)["objects"]
    assert objects["present"].sum(1).tolist() == [14, 14]


def test_textures_change_colours_and_nothing_else():
    plain = clevr.draw(0, torch.arange(4), **SMALL)
    for textures in ("objects", "all"):
        other = clevr.draw(0, torch.arange(4), **SMALL, textures=textures)
        assert (other["mask"] == plain["mask"]).all()
        changed = (other["image"] - plain["image"]).abs().amax(1) > 0.02
        on, ground = plain["mask"] > 0, plain["mask"] == 0
        assert changed[on].float().mean() > 0.5
        # Objects cast coloured images of themselves in metal, but nothing on the ground.
        assert (changed[ground].float().mean() > 0.3) == (textures == "all")


def test_the_full_frame_holds_the_cut_out():
    """The same scene drawn at the frame's own size: rows 29–221 and columns 64–256 are the square, pixel for pixel."""
    square = clevr.draw(0, torch.arange(8), num_objects=3, resolution=192)
    frame = clevr.draw(0, torch.arange(8), num_objects=3, resolution=240, full_frame=True, min_visible=200)
    assert frame["image"].shape == (8, 3, 240, 320)
    alike = [i for i in range(8) if (square["objects"]["position"][i] == frame["objects"]["position"][i]).all()]
    assert alike  # where no object lies outside the square, the same proposals are taken
    top, bottom, left, right = clevr.CROP
    for i in alike:
        assert (square["mask"][i] == frame["mask"][i, top:bottom, left:right]).float().mean() > 0.999
        inner = (slice(None), slice(1, -1), slice(1, -1))  # the border's neighbours decide where edges are refined
        cut = frame["image"][i, :, top:bottom, left:right]
        assert ((square["image"][i] - cut)[inner].abs() < 2 / 255).float().mean() > 0.999


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_objects": 0}, "num_objects"),
        ({"num_objects": (5, 3)}, "num_objects"),
        ({"num_objects": 99}, "1 to 16"),
        ({"resolution": 2}, "resolution"),
        ({"textures": "wood"}, "wood"),
        ({"held_out": [{"shape": "cone"}]}, "cone"),
        ({"num_objects": 16, "resolution": 16, "min_visible": 1000}, "no room for 16 objects"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        clevr.draw(0, torch.arange(1), **options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_draws_the_same():
    here = clevr.draw(0, torch.arange(8), **SMALL)
    there = clevr.draw(0, torch.arange(8, device="cuda"), **SMALL)
    assert (here["mask"] == there["mask"].cpu()).float().mean() > 0.999
    assert (here["image"] - there["image"].cpu()).abs().mean() < 1e-3


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
