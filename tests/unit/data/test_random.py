"""Random numbers by address."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from slotlib.data.random import integers, uniform


def chi_square(values: torch.Tensor, count: int) -> float:
    """p-value of all `count` values being equally likely."""
    return stats.chisquare(np.bincount(values.flatten().numpy(), minlength=count)).pvalue


def test_uniform_numbers_are_uniform():
    for seed, stream in itertools.product((0, 1, -7), (0, 1)):
        numbers = uniform(seed, torch.arange(2000), 20, stream).numpy()
        assert numbers.min() >= 0
        assert numbers.max() < 1
        assert stats.kstest(numbers.flatten(), "uniform").pvalue > 1e-4
        # By item and by place as well, not only pooled.
        assert stats.kstest(numbers[:, 0], "uniform").pvalue > 1e-4
        assert stats.kstest(numbers.mean(1), "norm", args=(0.5, (1 / 12 / 20) ** 0.5)).pvalue > 1e-4


def test_a_number_depends_on_its_address_alone():
    index = torch.tensor([5, 0, 10**12, -3, 5])
    several = uniform(9, index, 7)
    assert torch.equal(several[0], several[4])
    for i, item in enumerate(index):
        assert torch.equal(uniform(9, item[None], 3)[0], several[i, :3])


def neighbours():
    """Pairs of number sequences whose addresses differ by one step in one coordinate."""
    index = torch.arange(20000)
    base = uniform(0, index, 2)
    yield "item", base[:-1, 0], base[1:, 0]
    yield "place", base[:, 0], base[:, 1]
    yield "stream", base[:, 0], uniform(0, index, 1, stream=1)[:, 0]
    yield "seed", base[:, 0], uniform(1, index, 1)[:, 0]
    yield "sign", base[1:, 0], uniform(0, -index[1:], 1)[:, 0]
    yield "seed and stream exchanged", uniform(1, index, 1, 2)[:, 0], uniform(2, index, 1, 1)[:, 0]
    yield "item and place exchanged", base[:-1, 1], base[1:, 0]


@pytest.mark.parametrize(("name", "a", "b"), [pytest.param(*pair, id=pair[0]) for pair in neighbours()])
def test_neighbouring_addresses_are_unrelated(name, a, b):
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / len(a) ** 0.5
    # Correlation sees lines only: an 8×8 table of both numbers sees more.
    table = np.histogram2d(a, b, bins=8, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(table.flatten()).pvalue > 1e-4


def test_every_bit_of_the_mantissa_is_a_fair_coin():
    bits = (uniform(3, torch.arange(20000), 1) * 2**53).long()
    heads = torch.stack([(bits >> b & 1).double().mean() for b in range(53)])
    assert ((heads - 0.5).abs() < 5 * 0.5 / 20000**0.5).all()


def test_no_repetition_among_a_million_numbers():
    numbers = torch.cat([uniform(0, torch.arange(50000), 10, stream).flatten() for stream in range(2)])
    assert len(numbers.unique()) == len(numbers)  # expected collisions: 10⁶² / 2⁵⁴ = 6·10⁻⁵


@pytest.mark.parametrize("high", [1, 2, 6, 19, 1000])
def test_integers_stay_below_their_bound(high):
    almost_one = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    assert integers(almost_one, high).tolist() == [0, high - 1]
    drawn = integers(uniform(0, torch.arange(20000), 1)[:, 0], high)
    if high > 1:
        assert chi_square(drawn, high) > 1e-4
