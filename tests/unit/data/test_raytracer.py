"""Facts about the ray tracer."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slotlib.data import raytracer
from slotlib.data.raytracer import CUBE, CYLINDER, KEY, LIGHTS, SPHERE, Picture, Rays, World


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
