"""What is refused, and in which words."""

import math

import numpy as np
import pytest
import torch

from slotlib import check


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "None"),
        (1.5, "1.5"),
        ("seven", "'seven'"),
        (torch.zeros(2, 3), "torch.float32 [2, 3]"),
        (np.zeros((2, 3)), "a NumPy array, float64 [2, 3]; torch.from_numpy makes a tensor of it"),
        (list(range(10_000)), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 1… (list)"),
    ],
)
def test_a_value_in_an_error_takes_one_short_line(value, words):
    assert check.described(value) == words


@pytest.mark.parametrize("value", [1, 7, np.int64(3), np.uint8(1)])
def test_whole_numbers(value):
    check.whole("size", value)


@pytest.mark.parametrize("value", [0, -1, 1.0, 1.5, math.nan, math.inf, "1", None, True, [1], np.float64(1)])
def test_no_whole_numbers(value):
    with pytest.raises(ValueError, match="size must be a whole number, at least 1, got"):
        check.whole("size", value)


@pytest.mark.parametrize("value", [0, 0.5, np.float32(2), np.int64(3)])
def test_numbers(value):
    check.number("rate", value)


@pytest.mark.parametrize("value", [-1, -1e-9, math.nan, math.inf, "1", None, False, torch.ones(2), 1j])
def test_no_numbers(value):
    with pytest.raises(ValueError, match="rate must be a finite number, at least 0, got"):
        check.number("rate", value)


def test_above_a_bound_is_not_at_it():
    check.number("rate", 0.1, above=True)
    with pytest.raises(ValueError, match="rate must be a finite number, above 0, got 0"):
        check.number("rate", 0.0, above=True)


def test_precisions_differ_under_autocast_only():
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"values must be torch.float32 as weights, got torch.bfloat16 \[2, 3\]"):
        check.floating(weights=x, values=x.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        check.floating(weights=x, values=x.bfloat16())


def test_a_condition_holds_where_it_can_be_looked_at():
    true, false = torch.tensor([True, False])
    assert check.holds(true, otherwise=False)
    assert not check.holds(false, otherwise=True)
    unknown = torch.empty((), dtype=torch.bool, device="meta")
    assert check.holds(unknown, otherwise=True)
    assert not check.holds(unknown, otherwise=False)
    seen = []
    torch.func.vmap(lambda x: seen.append(check.holds(x > 0, otherwise=True)) or x)(torch.zeros(3))
    assert seen == [True]
