"""What the checks of chapter 02's exercises let pass, and what they say to the rest."""

import importlib
import sys
from pathlib import Path

import pytest
from exercises import Exercises, refused

NEEDS = ("setup", "imports", "skies", "model", "drawing", "exercise-1-check", "exercise-2-check", "exercise-3-check")
LAB = Path(__file__).parents[2] / "book" / "lab"


@pytest.fixture(scope="module")
def chapter():
    exercises = Exercises("02_slot_attention", *NEEDS)
    sys.path.insert(0, str(LAB))
    try:  # trained with the chapter's own cells, as the page has it
        exercises.names["model"] = importlib.import_module("stargazer").load()
    finally:
        sys.path.remove(str(LAB))
    return exercises


# --- 1: count -------------------------------------------------------------------------------------

COUNT = """
def count_parameters(input_dim, slot_dim, mlp_hidden_dim):
    norms = 2 * input_dim + 4 * slot_dim
    projections = slot_dim**2 + 2 * input_dim * slot_dim
    gru = 3 * (2 * slot_dim**2 + 2 * slot_dim)
    mlp = 2 * slot_dim * mlp_hidden_dim + mlp_hidden_dim + slot_dim
    start = 2 * slot_dim
    {change}
    return norms + projections + gru + mlp + start
"""


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        pytest.param("gru -= 3 * slot_dim", "two biases per gate", id="one-bias-per-gate"),
        pytest.param("gru = 2 * gru // 3", "two biases per gate", id="two-gates-without-candidate"),
        pytest.param("projections += 3 * slot_dim", "projections without bias", id="projections-with-bias"),
        pytest.param("norms //= 2", "gain and shift", id="gains-without-shifts"),
        pytest.param("start -= slot_dim", "µ and log σ", id="mean-without-spread"),
        pytest.param("mlp = 2 * slot_dim * mlp_hidden_dim", "layers of the MLP have one", id="mlp-without-bias"),
        pytest.param("start *= 4", "µ and log σ", id="a-start-for-every-slot"),
        pytest.param("norms = 6 * slot_dim", "which tensors see the inputs", id="inputs-as-wide-as-slots"),
        pytest.param("projections = 3 * slot_dim**2", "which tensors see the inputs", id="square-projections"),
    ],
)
def test_a_wrong_count_is_refused(chapter, change, hint):
    said = refused(chapter.verdict("exercise-1", COUNT.format(change=change)))
    assert said and hint in said[0]


def test_any_right_count_passes(chapter):
    assert not refused(chapter.verdict("exercise-1", COUNT.format(change="")))
    polynomial = """
def count_parameters(n, d, h):
    return 7 * d**2 + 13 * d + 2 * n * (d + 1) + h * (2 * d + 1)
"""
    assert not refused(chapter.verdict("exercise-1", polynomial))


# --- 2: one competition over all heads -------------------------------------------------------------

JOINTLY = """
import math
import torch

def compete_jointly(q, k, v):
    batch, heads, slots, d = q.shape
    scores = torch.einsum("bhkd,bhnd->bhkn", q, k) / math.sqrt({scale})
    {softmax}
    weights = attention + 1e-8
    {mean}
    return {result}
"""
ONE_ROW = "attention = scores.flatten(1, 2).softmax(dim=1).view_as(scores)"
MEAN = "updates = weights / weights.sum(-1, keepdim=True) @ v"
RESULT = "updates.transpose(1, 2).flatten(2), attention"


def jointly(scale="d", softmax=ONE_ROW, mean=MEAN, result=RESULT):
    return JOINTLY.format(scale=scale, softmax=softmax, mean=mean, result=result)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        pytest.param(jointly(softmax="attention = scores.softmax(dim=2)"), "heads and slots in one row", id="per-head"),
        pytest.param(
            jointly(softmax="attention = scores.softmax(dim=1)"), "heads and slots in one row", id="over-heads"
        ),
        pytest.param(
            jointly(softmax="attention = scores.softmax(dim=3)"), "heads and slots in one row", id="over-inputs"
        ),
        pytest.param(
            jointly(softmax="attention = scores.softmax(dim=2) / heads"), "over heads × slots", id="averaged-over-heads"
        ),
        pytest.param(jointly(scale="heads * d"), "the width of one head", id="scaled-by-the-whole-width"),
        pytest.param(jointly(scale="1"), "the width of one head", id="not-scaled"),
        pytest.param(jointly(mean="updates = weights @ v"), "a mean, not a sum", id="a-sum"),
        pytest.param(
            jointly(mean="updates = weights / weights.sum((1, 3), keepdim=True) @ v"),
            "by its own sum",
            id="one-sum-for-all-heads",
        ),
        pytest.param(jointly(result="updates.flatten(1, 2), attention"), "side by side", id="heads-stacked"),
        pytest.param(jointly(result="updates.reshape(batch, slots, -1), attention"), "a mean", id="heads-scrambled"),
        pytest.param(jointly(result="updates.transpose(1, 2).flatten(2)"), "return both", id="updates-alone"),
    ],
)
def test_a_wrong_joint_competition_is_refused(chapter, answer, hint):
    said = refused(chapter.verdict("exercise-2", answer))
    assert said and hint in said[0]


def test_any_right_joint_competition_passes(chapter):
    assert not refused(chapter.verdict("exercise-2", jointly()))
    by_exponentials = jointly(
        softmax="attention = scores.exp() / scores.exp().sum((1, 2), keepdim=True)",
        mean="updates = torch.einsum('bhkn,bhnd->bhkd', weights, v) / weights.sum(-1)[..., None]",
        result="torch.cat(updates.unbind(1), dim=-1), attention",
    )
    assert not refused(chapter.verdict("exercise-2", by_exponentials))


# --- 3: how many planets ----------------------------------------------------------------------------

MERGE = """
import torch
from torch.nn import functional as F

def merge(chance):
    unit = F.normalize(chance, dim=1)
    likeness = unit @ unit.T
    {}
"""
FIRST_ALIKE = "return (likeness > {}).long().argmax(dim=1)"


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        pytest.param("return torch.zeros(6)", "same ring", id="one-group"),
        pytest.param("return [0, 0, 1, 1, 2, 2]", "same ring", id="fixed-pairs"),
        pytest.param("return (chance @ chance.T > 0.5).long().argmax(dim=1)", "same ring", id="not-normalised"),
        pytest.param(FIRST_ALIKE.format(0.98), "nor only what is equal", id="only-what-is-equal"),
        pytest.param(FIRST_ALIKE.format(0.02), "merge neither all", id="all-that-overlaps"),
        pytest.param("return likeness > 0.5", "a list of six", id="a-table"),
        pytest.param("return len(likeness)", "a list of six", id="a-number"),
    ],
)
def test_a_wrong_merge_is_refused(chapter, answer, hint):
    said = refused(chapter.verdict("exercise-3", MERGE.format(answer)))
    assert said and any(hint in line for line in said)


def test_another_right_merge_passes(chapter):
    # who is alike is joined, and whoever is alike to one of them
    chains = "groups = (likeness > 0.55).double().matrix_power(5) > 0\n    return groups.long().argmax(dim=1)"
    assert not refused(chapter.verdict("exercise-3", MERGE.format(chains)))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_solutions_pass_and_the_starters_do_not(chapter, number):
    assert not refused(chapter.verdict(f"exercise-{number}", chapter.solution(number)))
    assert refused(chapter.verdict(f"exercise-{number}", ""))
