"""Fixed points and their gradients against PyPI torchdeq: the same update, start, tolerance and loss on both sides.

Two updates: a tanh network whose slope is .9 at most (batch 32, 256 units), and one iteration of the shipped
Tetrominoes model's slot attention, for 32 scenes whose slots settle, from the 30th iteration on, so that all solvers
find the same fixed point. Double precision, residual 1e-7; gradients of inputs and parameters; the same solver forwards
and backwards. Before anything is timed, the two sides' gradients are asserted to agree to 1e-4.
"""

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import NamedTuple

import torch
from torch import Tensor
from torchdeq import get_deq

from benchmarks.measure import Row, faster, in_fresh_process, in_turns, kept_for_backward, peak_growth, smaller
from slotlib import data, implicit, zoo

PEER = f"torchdeq {version('torchdeq')}"
TOLERANCE, MOST, ROUNDS = 1e-7, 400, 5
SOLVERS = {"plain": "fixed_point_iter", "anderson": "anderson", "broyden": "broyden"}


class Problem(NamedTuple):
    update: Callable[[Tensor], Tensor]
    start: Tensor
    learned: list[Tensor]


def network() -> Problem:
    source = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(n, 256, generator=source, dtype=torch.float64) for n in (256, 32))
    weight = (0.9 * weight / torch.linalg.matrix_norm(weight, 2)).requires_grad_()
    x.requires_grad_()
    return Problem(lambda z: torch.tanh(z @ weight.T + x), torch.zeros_like(x), [weight, x])


def slots() -> Problem:
    model = zoo.load("tetrominoes").double()
    attention = model.slot_attention
    images = data.make("tetrominoes", 48).batch(range(48))["image"].double()
    with torch.no_grad():
        features = model.encode(images).flatten(1, 2)
        start = attention.initial_slots(48, generator=torch.Generator().manual_seed(0))
        start = attention(features, slots=start, num_iterations=30).slots
        update = attention.step
        prepared = attention.prepare(features)
        settled = implicit.solve(lambda z: update(z, prepared)[0], start, tolerance=TOLERANCE, max_iterations=MOST)
        features, start = (t[settled.converged][:32] for t in (features, start))
    features.requires_grad_()
    learned = [features, *(p for n, p in attention.named_parameters() if not n.startswith("slots_"))]
    return Problem(lambda z: update(z, attention.prepare(features))[0], start, learned)


PROBLEMS = {"tanh network": network, "slot attention": slots}


def solver(side: str, problem: Problem, gradient: str, method: str) -> Callable[[], Tensor]:
    """The forward pass of one side."""
    if side == "slotlib":
        options = dict(gradient=gradient, method=method, adjoint_method=method)
        options |= dict(tolerance=TOLERANCE, max_iterations=MOST)
        return lambda: implicit.fixed_point(problem.update, problem.start, **options).z
    options = {}
    for way in "fb":
        options |= {f"{way}_solver": SOLVERS[method], f"{way}_max_iter": MOST, f"{way}_tol": TOLERANCE}
        options |= {f"{way}_stop_mode": "rel"}
    deq = get_deq(ift=gradient == "exact", grad=1, **options).train()
    return lambda: deq(problem.update, problem.start)[0][-1]


def gradients(problem: Problem, forward: Callable[[], Tensor]) -> list[Tensor]:
    z = forward()
    source = torch.Generator().manual_seed(1)
    return torch.autograd.grad(z, problem.learned, torch.randn(z.shape, generator=source, dtype=z.dtype))


def peak(side: str, name: str) -> int:
    """Growth of the resident memory over three exact gradients, after a warm-up."""
    torch.set_num_threads(1)
    problem = PROBLEMS[name]()
    forward = solver(side, problem, "exact", "plain")
    gradients(problem, solver(side, problem, "implicit", "plain"))
    return peak_growth(lambda: [gradients(problem, forward) for _ in range(3)])


def run() -> list[Row]:
    rows = []
    for name, make in PROBLEMS.items():
        problem = make()
        for gradient, method in (("implicit", "plain"), *(("exact", method) for method in SOLVERS)):
            sides = [solver(side, problem, gradient, method) for side in ("slotlib", "peer")]
            what = f"{'one step' if gradient == 'implicit' else gradient} gradient, {method}: {name}"
            ours, theirs = (torch.cat([g.flatten() for g in gradients(problem, side)]) for side in sides)
            difference = ((ours - theirs).norm() / ours.norm()).item()
            if not difference < 1e-4:
                raise AssertionError(f"{what}: the gradients differ by {difference:.1e}")
            seconds = in_turns([partial(gradients, problem, side) for side in sides], ROUNDS, warm_up=1)
            rows.append(faster(what, PEER, seconds, goal=1))
        sides = [solver(side, problem, "exact", "plain") for side in ("slotlib", "peer")]
        kept = [kept_for_backward(side, [*problem.learned, problem.start]) for side in sides]
        rows.append(smaller(f"kept for backward, exact: {name}", PEER, kept))
        peaks = [
            in_fresh_process(f"from benchmarks.implicit import peak; print(peak({side!r}, {name!r}))")
            for side in ("slotlib", "peer")
        ]
        rows.append(smaller(f"peak of the process, exact: {name}", PEER, peaks))
    return rows
