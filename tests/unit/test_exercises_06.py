"""What the checks of chapter 06's exercises let pass, and what they say to the rest."""

import pytest
from exercises import Exercises, refused

NEEDS = (
    "setup", "imports", "residuals", "trained", "slots-settle", "exact-by-hand",
    "exercise-1-check", "exercise-2-check", "exercise-3-check",
)  # fmt: skip


@pytest.fixture(scope="module")
def chapter():
    return Exercises("06_implicit", *NEEDS)


# --- 1: how many iterations -------------------------------------------------------------------

ITERATIONS = "import math\n\ndef iterations_needed(rho, tolerance):\n    return "


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        pytest.param("math.log(rho) / math.log(tolerance)", "multiplies the distance by ρ", id="upside-down"),
        pytest.param("-math.log(tolerance)", "multiplies the distance by ρ", id="without-the-radius"),
        pytest.param("tolerance / rho", "multiplies the distance by ρ", id="no-logarithm"),
        pytest.param("math.log(tolerance) / math.log10(rho)", "multiplies the distance by ρ", id="two-bases"),
        pytest.param("-math.log(tolerance) / (1 - rho)", "multiplies the distance by ρ", id="only-near-one"),
        pytest.param("10", "solve ρ^n = tolerance", id="only-the-example"),
    ],
)
def test_a_wrong_number_of_iterations_is_refused(chapter, answer, hint):
    said = refused(chapter.verdict("exercise-1", ITERATIONS + answer))
    assert said and hint in said[0]


@pytest.mark.parametrize(
    "answer",
    [
        "math.log10(tolerance) / math.log10(rho)",
        "math.ceil(math.log(tolerance, rho))",
        "math.log2(tolerance) / math.log2(rho)",
    ],
)
def test_any_right_number_of_iterations_passes(chapter, answer):
    assert not refused(chapter.verdict("exercise-1", ITERATIONS + answer))


# --- 2: the exact gradient ------------------------------------------------------------------------

EXACT = """
import torch
from slotlib.implicit import solve

def exact_gradient(value, z, g):
    def back(w):
        return torch.autograd.grad(value, z, w, retain_graph=True)[0]

"""
TRANSPOSED = """    J = torch.autograd.functional.jacobian(lambda s: f(s, weights, x), z.detach())
    J = torch.stack([J[i, :, i] for i in range(3)])
    return torch.linalg.solve(torch.eye(12) - J{}, g)"""


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        pytest.param("    return g", "w ← g + Jᵀw", id="one-step"),
        pytest.param("    return g + back(g)", "w ← g + Jᵀw", id="two-terms"),
        pytest.param("    return back(g)", "w ← g + Jᵀw", id="without-the-first-term"),
        pytest.param("    return solve(lambda w: g - back(w), g).z", "w ← g + Jᵀw", id="wrong-sign"),
        pytest.param(TRANSPOSED.format(""), "w ← g + Jᵀw", id="not-transposed"),
        pytest.param("    return solve(lambda w: g + back(w), g)", "take .z", id="not-the-solution-alone"),
        pytest.param(
            "    return solve(lambda w: g + torch.autograd.grad(value, z, w)[0], g).z", "retain_graph", id="graph-freed"
        ),
    ],
)
def test_a_wrong_exact_gradient_is_refused(chapter, answer, hint):
    said = refused(chapter.verdict("exercise-2", EXACT + answer))
    assert said and any(hint in line for line in said)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(
            "    w = g\n    for _ in range(400):\n        w = g + back(w)\n    return w", id="plain-iteration"
        ),
        pytest.param(
            "    return solve(lambda w: g + back(w), 0 * g, method='broyden', tolerance=1e-9).z", id="broyden"
        ),
        pytest.param(TRANSPOSED.format(".mT"), id="as-a-matrix"),
    ],
)
def test_any_right_exact_gradient_passes(chapter, answer):
    assert not refused(chapter.verdict("exercise-2", EXACT + answer))


# --- 3: a calmer step ------------------------------------------------------------------------------

CALM = """
import torch

weight = {weight}

def penalty(value, z, generator):
    v = torch.randn(value.shape, generator=generator)
    {body}
"""
RIGHT = "return torch.autograd.grad(value, z, v, create_graph=True)[0].square().sum() / len(z)"


@pytest.mark.parametrize(
    ("body", "weight", "hint"),
    [
        pytest.param("return value.square().sum() / len(z)", 0.1, "‖Jᵀv‖²", id="shorter-slots"),
        pytest.param("return (value - z).square().sum() / len(z)", 0.1, "‖Jᵀv‖²", id="a-small-residual"),
        pytest.param(RIGHT.replace(".square()", ".abs()"), 0.1, "‖Jᵀv‖²", id="no-square"),
        pytest.param(RIGHT.replace(" / len(z)", ""), 0.1, "divided by the number", id="summed-over-scenes"),
        pytest.param(RIGHT.replace(".sum() / len(z)", ".mean()"), 0.1, "divided by the number", id="mean-of-entries"),
        pytest.param(RIGHT.replace(", v,", ", torch.ones_like(v),"), 0.1, "‖Jᵀv‖²", id="no-random-vector"),
        pytest.param(RIGHT.replace("create_graph", "retain_graph"), 0.1, "create_graph=True", id="no-graph"),
        pytest.param("return " + RIGHT[7:] + ".detach()", 0.1, "‖Jᵀv‖²", id="detached-count"),
        pytest.param(RIGHT, 0.0, "a larger weight", id="nothing-done"),
    ],
)
def test_a_wrong_penalty_is_refused(chapter, body, weight, hint):
    said = refused(chapter.verdict("exercise-3", CALM.format(body=body, weight=weight)))
    assert said and hint in said[0]


def test_any_right_penalty_passes(chapter):
    signs = RIGHT.replace(", v,", ", v.sign(),").replace(".sum() / len(z)", ".flatten(1).sum(1).mean()")
    assert not refused(chapter.verdict("exercise-3", CALM.format(body=signs, weight=0.3)))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_solutions_pass_and_the_starters_do_not(chapter, number):
    assert not refused(chapter.verdict(f"exercise-{number}", chapter.solution(number)))
    assert refused(chapter.verdict(f"exercise-{number}", ""))
