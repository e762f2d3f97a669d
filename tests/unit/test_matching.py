"""Matching: no pairing is cheaper, no loss sees an order, and the compiler sees no SciPy."""

import importlib
import itertools
import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slotlib import matching
from slotlib.matching import chamfer_loss, hungarian, hungarian_loss, pairwise_huber, sinkhorn_loss

close = torch.testing.assert_close


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sets(batch, count, real, seed=0):
    """Targets: `real` random objects each, and padding."""
    source = generator(seed)
    target = torch.rand(batch, count, 19, generator=source)
    target[..., 18] = (torch.arange(count) < real).float()
    return target * target[..., 18:]


def costs(rows, columns):
    """Few different values, so that ties happen."""
    return st.lists(st.integers(0, 9), min_size=rows * columns, max_size=rows * columns).map(
        lambda values: torch.tensor(values, dtype=torch.float64).view(1, rows, columns) / 7
    )


def brute_force(cost):
    """The least total over all pairings, tried one by one."""
    rows, columns = cost.shape
    if rows > columns:
        return brute_force(cost.T)
    return min(
        sum(cost[i, j].item() for i, j in enumerate(chosen)) for chosen in itertools.permutations(range(columns), rows)
    )


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(1, 5), st.integers(1, 5)).flatmap(lambda sides: costs(*sides)))
def test_no_pairing_is_cheaper(cost):
    rows, columns = hungarian(cost)
    pairs = min(cost.shape[1:])
    assert rows.shape == columns.shape == (1, pairs)
    assert len(set(rows[0].tolist())) == len(set(columns[0].tolist())) == pairs
    assert hungarian_loss(cost).item() == pytest.approx(brute_force(cost[0]), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(costs(3, 5), st.lists(st.booleans(), min_size=5, max_size=5))
def test_real_objects_come_first_and_among_them_no_pairing_is_cheaper(cost, real):
    real = torch.tensor([real])
    _, columns = hungarian(cost, real)
    assert real[0, columns[0]].sum() == min(3, real.sum())
    chosen = real[0].nonzero().squeeze(1).tolist()
    padding = (~real[0]).nonzero().squeeze(1).tolist()
    best = min(
        sum(cost[0, i, j].item() for i, j in enumerate(order))
        for k in [min(3, len(chosen))]
        for some in itertools.combinations(chosen, k)
        for rest in itertools.combinations(padding, 3 - k)
        for order in itertools.permutations(some + rest)
    )
    assert hungarian_loss(cost, real).item() == pytest.approx(best, abs=1e-9)


def test_every_image_is_paired_on_its_own():
    cost = torch.rand(9, 6, 4, generator=generator())
    together = hungarian(cost)
    for i in range(9):
        close([part[i : i + 1] for part in together], list(hungarian(cost[i : i + 1])))


@pytest.mark.parametrize("shape", [(0, 6, 4), (3, 0, 4), (3, 6, 0), (0, 0, 0)])
def test_nothing_to_pair_is_no_pairs_and_costs_nothing(shape):
    cost = torch.rand(shape)
    for pairs in hungarian(cost, torch.ones(shape[::2], dtype=torch.bool)):
        assert pairs.shape == (shape[0], 0 if 0 in shape[1:] else 4) and pairs.dtype == torch.int64
    assert hungarian_loss(cost).tolist() == sinkhorn_loss(cost).tolist() == [0] * shape[0]


def test_padding_matters_only_where_predictions_run_out():
    cost, real = torch.rand(5, 6, 6, generator=generator()), torch.arange(6).expand(5, 6) < 3
    close(hungarian(cost, real), hungarian(cost))
    # Two predictions that would rather describe nothing must still describe the two objects.
    target = sets(1, 5, real=2)
    pred = torch.zeros(1, 2, 19)
    assert hungarian(pairwise_huber(pred, target))[1].tolist() != [[0, 1]]
    assert sorted(hungarian(pairwise_huber(pred, target), target[..., -1] > 0)[1][0].tolist()) == [0, 1]


def test_huber_is_the_official_one():
    """Half the square up to a difference of 1, then linear; averaged over the values (tf.losses.Huber)."""
    pred, target = torch.tensor([[[0.5, 3.0]]]), torch.tensor([[[0.0, 0.0], [0.5, 1.0]]])
    close(pairwise_huber(pred, target), torch.tensor([[[(0.125 + 2.5) / 2, (0 + 1.5) / 2]]]))


LOSSES = {"hungarian": hungarian_loss, "chamfer": chamfer_loss, "sinkhorn": sinkhorn_loss}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@each_loss
@pytest.mark.parametrize("shape", [(5, 5), (3, 5), (6, 4)])
def test_no_loss_sees_an_order(loss, shape):
    cost = torch.rand(3, *shape, dtype=torch.float64, generator=generator()) / 10
    rows, columns = (torch.randperm(side, generator=generator(1)) for side in shape)
    close(loss(cost[:, rows][:, :, columns]), loss(cost))


@each_loss
def test_gradients_agree_with_finite_differences(loss):
    pred = torch.rand(2, 4, 19, dtype=torch.float64, generator=generator(), requires_grad=True)
    target = sets(2, 5, real=3).double()
    assert torch.autograd.gradcheck(lambda p: loss(pairwise_huber(p, target)), (pred,))


@pytest.mark.parametrize("shape", [(5, 5), (3, 5), (6, 4)])
def test_a_cold_sinkhorn_is_hungarian(shape):
    cost = torch.rand(20, *shape, dtype=torch.float64, generator=generator())
    exact = hungarian_loss(cost)
    gaps = [(sinkhorn_loss(cost, t, iterations=3000) - exact).abs().max() for t in (0.3, 0.03, 0.001)]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-3


def test_a_hot_sinkhorn_pairs_all_with_all():
    cost = torch.rand(4, 5, 5, generator=generator())
    close(sinkhorn_loss(cost, temperature=1e4), cost.mean((1, 2)) * 5, rtol=1e-3, atol=0)


def test_chamfer_cannot_count():
    """Two predictions on one object, nothing on its twin: free for chamfer, not for the others."""
    target = sets(1, 2, real=2)
    target[0, 1] = target[0, 0]
    pred = torch.cat([target[:, :1]] * 3, dim=1)
    empty = torch.zeros(1, 1, 19)
    cost = pairwise_huber(pred, torch.cat([target, empty], dim=1))
    assert chamfer_loss(cost) <= hungarian_loss(cost) / 2 + 1e-7
    assert hungarian_loss(cost) > 0.01
    random = torch.rand(50, 6, 6, generator=generator())
    assert (chamfer_loss(random) <= hungarian_loss(random) + 1e-6).all()


def test_a_perfect_prediction_costs_nothing_in_any_order():
    target = sets(3, 6, real=4)
    cost = pairwise_huber(target[:, torch.randperm(6, generator=generator())], target)
    close(hungarian_loss(cost), torch.zeros(3))
    close(chamfer_loss(cost), torch.zeros(3))
    assert (sinkhorn_loss(cost, temperature=1e-4) < 1e-3).all()


# --- compiled, vectorised, loaded again ---


def test_torch_compile_calls_the_solver_without_a_break():
    compiled = torch.compile(lambda cost: hungarian_loss(cost).sum(), backend="aot_eager", fullgraph=True)
    for shape in ((3, 4, 5), (2, 6, 3)):
        ours, theirs = (torch.rand(shape, generator=generator()).requires_grad_() for _ in range(2))
        hungarian_loss(ours).sum().backward()
        compiled(theirs).backward()
        close(theirs.grad, ours.grad)


@each_loss
@pytest.mark.parametrize("axis", [0, 1])
def test_under_vmap_every_call_is_one_of_its_own(loss, axis):
    cost = torch.rand(3, 2, 4, 5, generator=generator())
    alone = torch.stack([loss(each) for each in cost])
    close(torch.func.vmap(loss, in_dims=axis)(cost.movedim(0, axis)), alone)
    gradient = torch.func.vmap(torch.func.grad(lambda each: loss(each).sum()))(cost)
    whole = cost.clone().requires_grad_()
    loss(whole.flatten(0, 1)).sum().backward()
    close(gradient, whole.grad)


def test_the_module_can_be_loaded_again():
    cost = torch.rand(3, 4, 5, generator=generator())
    again = importlib.reload(matching)
    close(again.hungarian(cost), hungarian(cost))


def test_neither_import_nor_first_use_waits_for_the_compiler():
    code = "import sys, torch; from slotlib import matching; matching.hungarian(torch.rand(2, 3, 3))"
    code += "; assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- bad input ---


@each_loss
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_costs_that_are_not_finite_are_refused(loss, bad):
    cost = torch.rand(2, 3, 3)
    cost[1, 2, 0] = bad
    with pytest.raises(ValueError, match="cost must be finite"):
        loss(cost)


@each_loss
@pytest.mark.parametrize(
    "wrong", [None, "x", 1.0, torch.rand(3, 3), torch.ones(2, 3, 3).long(), torch.rand(1, 3, 3).numpy()]
)
def test_what_is_no_cost_is_refused(loss, wrong):
    with pytest.raises(ValueError, match=r"cost must be floating point \[batch, predictions, objects\], got"):
        loss(wrong)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hungarian(torch.rand(2, 4, 3), torch.ones(2, 4).bool()), r"real must be .* = \[2, 3\], got \[2, 4\]"),
        (
            lambda: hungarian(torch.rand(2, 4, 3), torch.ones(2, 3)),
            r"real must be bool \[batch, objects\], got torch.f",
        ),
        (lambda: pairwise_huber(torch.rand(2, 4, 19), torch.rand(2, 4, 18)), r"got \[2, 4, 19\] and \[2, 4, 18\]"),
        (lambda: pairwise_huber(torch.rand(2, 4, 19), torch.rand(3, 4, 19)), r"got \[2, 4, 19\] and \[3, 4, 19\]"),
        (
            lambda: pairwise_huber(torch.rand(4, 19), torch.rand(2, 4, 19)),
            r"pred must be .*, got torch.float32 \[4, 19\]",
        ),
        (lambda: pairwise_huber(torch.rand(2, 4, 19), None), "target must be .*, got None"),
        (lambda: chamfer_loss(torch.rand(2, 4, 0)), "at least one prediction and one object"),
        (lambda: sinkhorn_loss(torch.rand(1, 2, 2), temperature=0), "temperature must be a finite number, above 0"),
        (lambda: sinkhorn_loss(torch.rand(1, 2, 2), iterations=0), "iterations must be a whole number, at least 1"),
        (lambda: sinkhorn_loss(torch.rand(1, 2, 2), iterations=2.5), "iterations must be a whole number, at least 1"),
    ],
)
def test_other_shapes_and_numbers_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
