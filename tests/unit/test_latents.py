"""Maps keep neighbours and variance, groupings find the groups that are there, and neither takes what it cannot use."""

import sys
from typing import get_args

import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from slotlib import latents


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def clouds():
    """Four clouds of 20 points in ten dimensions, and whose is whose."""
    group = torch.arange(80) % 4
    centres = 8 * torch.eye(10)[:4]
    return centres[group] + 0.3 * torch.randn(80, 10, generator=generator()), group


@pytest.mark.parametrize("method", get_args(latents.Grouping))
def test_clouds_that_lie_apart_are_groups(clouds, method):
    points, group = clouds
    found = latents.cluster(points, method, 4)
    assert found.dtype == torch.int64 and found.shape == (80,)
    inside = found >= 0  # DBSCAN leaves out who lies alone
    assert inside.float().mean() > 0.85
    assert adjusted_rand_score(group[inside], found[inside]) == 1
    assert torch.equal(found, latents.cluster(points, method, 4))
    shuffled = torch.randperm(80, generator=generator(1))
    again = latents.cluster(points[shuffled], method, 4)
    assert adjusted_rand_score(found[shuffled], again) > 0.95


def test_dbscan_leaves_out_who_is_alone_and_takes_scikit_learns_options(clouds):
    points, _ = clouds
    far = torch.cat([points, torch.full((1, 10), 100.0)])
    assert latents.cluster(far, "dbscan")[-1] == -1
    assert (latents.cluster(points, "dbscan", eps=1e-6) == -1).all()
    assert (latents.cluster(points, "dbscan", eps=1e6) == 0).all()
    assert (latents.cluster(torch.zeros(8, 3), "dbscan") == 0).all()


@pytest.mark.parametrize("method", get_args(latents.Map))
def test_a_map_keeps_neighbours_together(clouds, method, monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # UMAP takes 10 s to compile, and 1 s for a map without
    points, group = clouds
    options = {"n_epochs": 100} if method == "umap" else {}
    plane = latents.embed(points, method, seed=3, **options)
    assert plane.shape == (80, 2) and plane.dtype == points.dtype and plane.isfinite().all()
    distance = torch.cdist(plane, plane).fill_diagonal_(torch.inf)
    assert (group[distance.argmin(1)] == group).all()
    torch.testing.assert_close(plane, latents.embed(points, method, seed=3, **options))


def test_pca_is_a_rotation_of_what_varies():
    flat = torch.randn(50, 2, dtype=torch.float64, generator=generator())
    turned, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=generator(1)))
    points = torch.cat([flat, torch.zeros(50, 4, dtype=torch.float64)], dim=1) @ turned + 5
    plane = latents.embed(points)
    torch.testing.assert_close(torch.cdist(plane, plane), torch.cdist(flat, flat))
    assert latents.embed(points, dims=3).shape == (50, 3)


@pytest.mark.parametrize("method", get_args(latents.Map))
@pytest.mark.parametrize("spread", [0.0, 1e-30])
def test_slots_that_collapsed_lie_in_one_point(method, spread):
    # scikit-learn's t-SNE would end the process here.
    points = torch.randn(1, 8, generator=generator()) + spread * torch.randn(12, 8, generator=generator(1))
    assert torch.equal(latents.embed(points, method), torch.zeros(12, 2))
    assert latents.cluster(points, "dbscan").unique().tolist() == [0]


@pytest.mark.parametrize("scale", [1e-12, 1e14])
def test_very_small_or_large_latents_have_a_map_too(clouds, scale):
    plane = latents.embed(clouds[0][:20].double() * scale, "tsne", max_iter=250)
    assert plane.isfinite().all() and plane.std() > 0


def test_half_precision_stays_half_precision(clouds):
    assert latents.embed(clouds[0].bfloat16()).dtype == torch.bfloat16


def test_a_map_leaves_pytorch_its_threads(clouds, monkeypatch):
    umap = pytest.importorskip("umap")

    def fit_transform(self, points):
        torch.set_num_threads(before + 1)  # as numba does
        return points[:, :2]

    before = torch.get_num_threads()
    monkeypatch.setattr(umap.UMAP, "fit_transform", fit_transform)
    assert latents.embed(clouds[0], "umap").shape == (80, 2)
    assert torch.get_num_threads() == before


def test_what_cannot_be_used_is_refused(monkeypatch):
    points = torch.randn(20, 5, generator=generator())
    for call in (latents.embed, latents.cluster):
        for method in ("spectral", None, 3):
            with pytest.raises(ValueError, match="method must be one of"):
                call(points, method)
        for wrong in (points[0], points.long(), points[None], points.numpy(), None, [[0.5]]):
            with pytest.raises(ValueError, match=r"latents must be floating point \[points, dim\], got"):
                call(wrong)
        for wrong in (points[:2], points[:, :0]):
            with pytest.raises(ValueError, match="latents must be at least"):
                call(wrong)
        for wrong in (points.log(), points.double() * 1e16):
            with pytest.raises(ValueError, match=r"latents must be finite and below 1e\+15"):
                call(wrong)
        with pytest.raises(ValueError, match="seed must be a whole number, at least 0"):
            call(points, seed=1.5)
    for dims in (0, 2.5, "2", 6):
        with pytest.raises(ValueError, match="dims must be"):
            latents.embed(points, dims=dims)
    with pytest.raises(ValueError, match="count must be a whole number"):
        latents.cluster(points, count=None)
    with pytest.raises(ValueError, match="min_samples must be a whole number"):
        latents.cluster(points, "dbscan", min_samples="5")
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ImportError, match=r"pip install 'slotlib\[umap\]'"):
        latents.embed(points, "umap")
