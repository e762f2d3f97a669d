"""Attention and soft k-means against PyTorch, scikit-learn, and what is true of them on paper."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from torch.nn import functional as F

from slotlib.attention import (
    MultiHeadAttention,
    attention_weights,
    dot_product_attention,
    soft_kmeans,
    weighted_mean,
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def close(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def blobs(seed: int, per_blob: int = 40, spread: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Points around four corners of a square of side 6, and one start near each corner."""
    corners = torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0], [6.0, 6.0]], dtype=torch.float64)
    points = corners.repeat_interleave(per_blob, 0) + spread * randn(4 * per_blob, 2, seed=seed)
    return points, corners + randn(4, 2, seed=seed + 1000)


def lloyd(points: torch.Tensor, centres: torch.Tensor, iterations: int) -> torch.Tensor:
    for _ in range(iterations):
        nearest = torch.cdist(points, centres).argmin(1)
        centres = torch.stack([points[nearest == k].mean(0) for k in range(len(centres))])
    return centres


# --- dot-product attention ---


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_competition_of_keys_is_scaled_dot_product_attention(batch):
    q, k, v = randn(*batch, 5, 8, seed=1), randn(*batch, 7, 8, seed=2), randn(*batch, 7, 4, seed=3)
    expected = F.scaled_dot_product_attention(q, k, v)
    close(dot_product_attention(q, k, v).output, expected)


def test_gradients_are_those_of_scaled_dot_product_attention():
    q, k, v = (randn(2, n, 8, seed=i).requires_grad_() for i, n in enumerate((5, 7, 7)))
    upstream = randn(2, 5, 8, seed=9)
    ours = torch.autograd.grad(dot_product_attention(q, k, v).output, (q, k, v), upstream)
    theirs = torch.autograd.grad(F.scaled_dot_product_attention(q, k, v), (q, k, v), upstream)
    for a, b in zip(ours, theirs, strict=True):
        close(a, b)


def test_the_axis_of_competition_decides_who_shares_one_unit():
    q, k, v = randn(3, 5, 8, seed=1), randn(3, 7, 8, seed=2), randn(3, 7, 4, seed=3)
    ones = torch.ones(3, 5, dtype=torch.float64)
    close(dot_product_attention(q, k, v, over="keys").weights.sum(-1), ones)
    ones = torch.ones(3, 7, dtype=torch.float64)
    close(dot_product_attention(q, k, v, over="queries").weights.sum(-2), ones)


def test_queries_ignore_each_other_unless_they_compete():
    q, k, v = randn(5, 8, seed=1), randn(7, 8, seed=2), randn(7, 4, seed=3)
    for over, alone_is_the_same in (("keys", True), ("queries", False)):
        together = dot_product_attention(q, k, v, over=over).output[:1]
        alone = dot_product_attention(q[:1], k, v, over=over).output
        assert torch.allclose(together, alone) == alone_is_the_same


def test_a_single_competing_query_reads_the_plain_mean():
    k, v = randn(7, 8, seed=2), randn(7, 4, seed=3)
    output = dot_product_attention(randn(1, 8), k, v, over="queries").output
    close(output, v.mean(0, keepdim=True))


def test_attention_sees_a_set_of_keys():
    q, k, v = randn(5, 8, seed=1), randn(7, 8, seed=2), randn(7, 4, seed=3)
    order = torch.randperm(7, generator=generator(0))
    for over in ("keys", "queries"):
        close(
            dot_product_attention(q, k[order], v[order], over=over).output,
            dot_product_attention(q, k, v, over=over).output,
        )


def padded(*tensors: torch.Tensor, fill: float) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Ten keys, of which seven are real and the others `fill`; and the mask."""
    mask = torch.tensor([True, False, True, True, False, True, True, True, False, True])
    wide = [x.new_full((*x.shape[:-2], 10, x.shape[-1]), fill) for x in tensors]
    for whole, x in zip(wide, tensors, strict=True):
        whole[..., mask, :] = x
    return wide, mask.expand(*tensors[0].shape[:-2], 10)


@pytest.mark.parametrize("over", ["keys", "queries"])
@pytest.mark.parametrize("fill", [0.0, 1e6, math.nan, math.inf])
def test_padded_keys_change_nothing(over, fill):
    q, k, v = (randn(2, n, 8, seed=i).requires_grad_() for i, n in enumerate((5, 7, 7)))
    expected = dot_product_attention(q, k, v, over=over)
    (wide_k, wide_v), mask = padded(k, v, fill=fill)
    found = dot_product_attention(q, wide_k, wide_v, over=over, mask=mask)
    close(found.output, expected.output)
    close(found.weights[..., mask[0]], expected.weights)
    assert (found.weights[..., ~mask[0]] == 0).all()
    weights = randn(2, 5, 8, seed=9)
    apart, together = (torch.autograd.grad(x.output, (q, k, v), weights) for x in (expected, found))
    for a, b in zip(together, apart, strict=True):
        close(a, b)


def test_padding_in_its_parts():
    values, logits = randn(2, 7, 4, seed=1), randn(2, 5, 7, seed=2)
    (wide,), mask = padded(values, fill=math.nan)
    (wide_logits,), _ = padded(logits.mT, fill=math.nan)
    for over in ("keys", "queries"):
        close(attention_weights(wide_logits.mT, over, mask)[..., mask[0]], attention_weights(logits, over))
    weights = logits.exp()
    (wide_weights,), _ = padded(weights.mT, fill=math.nan)
    close(weighted_mean(wide_weights.mT, wide, mask=mask), weighted_mean(weights, values))


def test_padding_in_every_head():
    module, queries, inputs = (
        MultiHeadAttention(12, 3, over="queries").double(),
        randn(2, 5, 12),
        randn(2, 7, 12, seed=2),
    )
    (wide,), mask = padded(inputs, fill=math.nan)
    found, expected = module(queries, wide, mask), module(queries, inputs)
    close(found.output, expected.output)
    found.output.sum().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())


def test_scaled_dot_product_attention_has_the_same_padding():
    q, k, v = randn(2, 5, 8, seed=1), randn(2, 10, 8, seed=2), randn(2, 10, 4, seed=3)
    mask = torch.rand(2, 10, generator=generator(4)) > 0.5
    theirs = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.unsqueeze(1))
    close(dot_product_attention(q, k, v, mask=mask).output, theirs)


def test_vmap_gives_every_image_a_mask_of_its_own():
    q, k, v = randn(3, 5, 8, seed=1), randn(3, 10, 8, seed=2), randn(3, 10, 4, seed=3)
    mask = torch.rand(3, 10, generator=generator(4)) > 0.5
    found = torch.func.vmap(lambda q, k, v, m: dot_product_attention(q, k, v, "queries", m))(q, k, v, mask)
    close(found.output, dot_product_attention(q, k, v, "queries", mask).output)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda x: dot_product_attention(None, x, x), ["queries", "floating point", "None"]),
        (lambda x: dot_product_attention(x, x.numpy(), x), ["keys", "NumPy", "[5, 8]"]),
        (lambda x: dot_product_attention(x, x, x.long()), ["values", "floating point", "int64"]),
        (lambda x: dot_product_attention(x, x.float(), x), ["keys", "torch.float64 as queries", "torch.float32"]),
        (lambda x: dot_product_attention(x, x, x, mask=torch.ones(4).bool()), ["mask", "[5]", "[4]"]),
        (lambda x: dot_product_attention(x, x, x, mask=torch.ones(5)), ["mask", "torch.bool", "torch.float32"]),
        (lambda x: dot_product_attention(x, x, x, mask=torch.zeros(5).bool()), ["mask", "real input"]),
        (lambda x: weighted_mean(x, x), ["weights for 8 values", "5 values"]),
        (lambda x: MultiHeadAttention(8, 2)(x.float(), x.float()), ["queries", "dim=8", "[5, 8]"]),
        (lambda x: MultiHeadAttention(8, 2)(x[None].float(), None), ["inputs", "floating point", "None"]),
        (lambda x: weighted_mean(x.mT, x, eps=-1.0), ["eps", "at least 0", "-1.0"]),
        (lambda x: weighted_mean(x.mT, x, eps=math.nan), ["eps", "at least 0", "nan"]),
        (lambda x: attention_weights("x"), ["logits", "floating point", "'x'"]),
        (lambda x: attention_weights(x, over=None), ["over", "keys", "None"]),
        (lambda x: soft_kmeans(x, "x"), ["centres", "floating point", "'x'"]),
        (lambda x: soft_kmeans(x, x, temperature="warm"), ["temperature", "number", "'warm'"]),
        (lambda x: soft_kmeans(x, x, num_iterations=1.5), ["num_iterations", "whole number", "1.5"]),
        (lambda _: MultiHeadAttention(8.0, 2), ["dim", "whole number", "8.0"]),
        (lambda _: MultiHeadAttention(8, 2, over="slots"), ["over", "keys", "'slots'"]),
    ],
)
def test_bad_input_is_one_clear_error(call, named):
    with pytest.raises(ValueError) as error:
        call(randn(5, 8))
    assert all(word in str(error.value) for word in named), str(error.value)


@pytest.mark.parametrize(
    ("shapes", "named"),
    [
        (((5, 8), (7, 9), (7, 4)), ["8", "9"]),
        (((5, 8), (7, 8), (6, 4)), ["7", "6"]),
    ],
)
def test_mismatched_attention_is_one_clear_error(shapes, named):
    with pytest.raises(ValueError) as error:
        dot_product_attention(*(randn(*shape) for shape in shapes))
    assert all(word in str(error.value) for word in named)


def test_an_unknown_axis_of_competition_is_one_clear_error():
    with pytest.raises(ValueError, match=r"keys.*queries.*'slots'"):
        attention_weights(randn(3, 4), over="slots")


# --- weighted mean ---


def test_equal_weights_of_any_size_give_the_mean():
    values = randn(9, 3)
    for size in (0.0, 1e-6, 1.0, 1e6):
        mean = weighted_mean(torch.full((1, 9), size, dtype=torch.float64), values)
        close(mean, values.mean(0, keepdim=True))


def test_one_weight_that_matters_gives_its_value():
    values = randn(9, 3)
    close(weighted_mean(torch.eye(9, dtype=torch.float64), values, eps=0.0), values)
    close(weighted_mean(torch.eye(9, dtype=torch.float64), values), values, atol=1e-6)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=8),
    st.lists(st.floats(-100, 100), min_size=8, max_size=8),
)
@settings(max_examples=100, deadline=None)
def test_a_weighted_mean_lies_between_its_values(weights, values):
    values = torch.tensor(values[: len(weights)], dtype=torch.float64)
    mean = weighted_mean(torch.tensor([weights], dtype=torch.float64), values.unsqueeze(1)).item()
    assert values.min() - 1e-9 <= mean <= values.max() + 1e-9


# --- multi-head attention ---


def test_multi_head_attention_is_pytorch_s_with_the_same_weights():
    ours = MultiHeadAttention(12, 3).double()
    theirs = torch.nn.MultiheadAttention(12, 3, bias=False, batch_first=True).double()
    with torch.no_grad():
        projections = ours.project_q, ours.project_k, ours.project_v
        theirs.in_proj_weight.copy_(torch.cat([project.weight for project in projections]))
        theirs.out_proj.weight.copy_(ours.project_out.weight)
    queries, inputs = randn(2, 5, 12, seed=1), randn(2, 7, 12, seed=2)
    output, weights = theirs(queries, inputs, inputs, average_attn_weights=False)
    close(ours(queries, inputs).output, output)
    close(ours(queries, inputs).weights, weights)


def test_every_head_holds_its_own_competition():
    module = MultiHeadAttention(12, 3, over="queries").double()
    weights = module(randn(2, 5, 12, seed=1), randn(2, 7, 12, seed=2)).weights
    close(weights.sum(2), torch.ones(2, 3, 7, dtype=torch.float64))


@pytest.mark.parametrize("over", ["keys", "queries"])
def test_multi_head_attention_follows_its_queries_and_ignores_the_order_of_inputs(over):
    module = MultiHeadAttention(12, 4, over=over).double()
    queries, inputs = randn(2, 5, 12, seed=1), randn(2, 7, 12, seed=2)
    of_queries = torch.randperm(5, generator=generator(1))
    of_inputs = torch.randperm(7, generator=generator(2))
    moved = module(queries[:, of_queries], inputs[:, of_inputs]).output
    close(moved, module(queries, inputs).output[:, of_queries])


@pytest.mark.parametrize(("heads", "message"), [(0, "num_heads.*0"), (-1, "num_heads.*-1"), (5, "dim=12.*num_heads=5")])
def test_heads_that_do_not_divide_the_width_are_one_clear_error(heads, message):
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(12, heads)


# --- soft k-means ---


@pytest.mark.parametrize("seed", range(5))
def test_cold_soft_kmeans_takes_lloyd_s_steps(seed):
    # Overlapping blobs, so that labels change on the way.
    points, start = blobs(seed, spread=2.0)
    for iterations in (1, 2, 7):
        ours = soft_kmeans(points, start, temperature=1e-7, num_iterations=iterations).centres
        close(ours, lloyd(points, start, iterations), atol=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_cold_soft_kmeans_ends_where_scikit_learn_does(seed):
    points, start = blobs(seed, spread=1.5)
    theirs = KMeans(4, init=start.numpy(), n_init=1, max_iter=500, tol=0.0).fit(points.numpy())
    ours = soft_kmeans(points, start, temperature=1e-7, num_iterations=200)
    close(ours.centres, torch.from_numpy(theirs.cluster_centers_), atol=1e-6)
    assert (ours.responsibilities.argmax(0).numpy() == theirs.labels_).all()


def test_hot_soft_kmeans_cannot_tell_clusters_apart():
    points, start = blobs(0)
    centres = soft_kmeans(points, start, temperature=1e9, num_iterations=2).centres
    close(centres, points.mean(0).expand(4, 2), atol=1e-6)


def test_one_step_of_soft_kmeans_is_attention_whose_centres_compete():
    # With centres of equal norm −½‖c‖² cancels in the softmax; attention's scale √D is the temperature.
    points = randn(30, 8, seed=1)
    centres = F.normalize(randn(4, 8, seed=2), dim=-1) * 3
    step = soft_kmeans(points, centres, temperature=math.sqrt(8), num_iterations=1)
    attention = dot_product_attention(centres, points, points, over="queries")
    close(step.responsibilities, attention.weights)
    close(step.centres, attention.output, atol=1e-6)  # eps differs: 1e-12 and 1e-8


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_no_iteration_makes_the_fit_worse(temperature):
    # Soft k-means is expectation-maximisation for equal spherical Gaussians, so its likelihood never falls.
    points, start = blobs(3, spread=2.0)

    def fit(centres):
        return (-0.5 * torch.cdist(points, centres).square() / temperature).logsumexp(1).sum()

    path = [fit(start)] + [fit(soft_kmeans(points, start, temperature, n).centres) for n in range(1, 12)]
    assert all(after >= before - 1e-9 for before, after in pairwise(path))


def test_soft_kmeans_turns_and_moves_with_its_points():
    points, start = blobs(1, spread=2.0)
    turn, _ = torch.linalg.qr(randn(2, 2, seed=5))
    move = torch.tensor([3.0, -8.0], dtype=torch.float64)
    moved = soft_kmeans(points @ turn + move, start @ turn + move).centres
    close(moved, soft_kmeans(points, start).centres @ turn + move)


def test_soft_kmeans_far_from_the_origin_in_single_precision():
    points, start = (x.float() for x in blobs(1))
    expected = soft_kmeans(points, start).centres
    far = soft_kmeans(points + 1e4, start + 1e4).centres - 1e4
    close(far, expected, atol=0.02)  # float32 near 1e4 is spaced by 0.001


def test_responsibilities_belong_to_the_centres_before_the_update():
    points, start = blobs(2)
    one, two = (soft_kmeans(points, start, num_iterations=n) for n in (1, 2))
    expected = (-0.5 * torch.cdist(one.centres, points).square()).softmax(0)
    close(two.responsibilities, expected, atol=1e-9)
    close(two.responsibilities.sum(0), torch.ones(len(points), dtype=torch.float64))


@pytest.mark.parametrize("fill", [0.0, math.nan])
def test_padded_points_pull_no_centre(fill):
    points, start = randn(7, 2, seed=1), randn(4, 2, seed=2)
    (wide,), mask = padded(points, fill=fill)
    found, expected = soft_kmeans(wide, start, mask=mask), soft_kmeans(points, start)
    close(found.centres, expected.centres)
    close(found.responsibilities.sum(0), mask.double())


def test_batches_are_clustered_one_by_one():
    runs = [blobs(seed) for seed in range(3)]
    together = soft_kmeans(*(torch.stack(parts) for parts in zip(*runs, strict=True))).centres
    for centres, run in zip(together, runs, strict=True):
        close(centres, soft_kmeans(*run).centres)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be a finite number, above 0, got 0"),
        ({"temperature": -1.0}, "temperature must be a finite number, above 0, got -1"),
        ({"num_iterations": 0}, "num_iterations must be a whole number, at least 1, got 0"),
        ({"centres": torch.zeros(4, 3, dtype=torch.float64)}, "width 2 and centres 3"),
    ],
)
def test_bad_input_to_soft_kmeans_is_one_clear_error(options, message):
    points, start = blobs(0)
    with pytest.raises(ValueError, match=message):
        soft_kmeans(points, **{"centres": start} | options)
