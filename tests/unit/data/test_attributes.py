"""Held-out combinations: what may be drawn and what may not, against the definition spelled out."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slotlib.data.attributes import bounds, combinations

KINDS = {"shape": ("circle", "square"), "colour": {"red": 0, "green": 1, "blue": 2}, "size": range(2)}


@st.composite
def tables(draw):
    """Properties with numbered values, and combinations of some of them."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    properties = {f"property {i}": [f"value {k}" for k in range(size)] for i, size in enumerate(sizes)}
    choice = st.sampled_from(sorted(properties)).flatmap(
        lambda name: st.tuples(st.just(name), st.integers(0, len(properties[name]) - 1))
    )
    held_out = draw(st.lists(st.lists(choice, min_size=1, max_size=3).map(dict), max_size=4))
    return properties, held_out


@settings(deadline=None)
@given(tables())
def test_every_combination_is_either_allowed_or_novel(case):
    properties, held_out = case
    names = list(properties)
    every = list(itertools.product(*(range(len(values)) for values in properties.values())))
    novel = [row for row in every if any(all(row[names.index(n)] == v for n, v in c.items()) for c in held_out)]
    allowed = [row for row in every if row not in novel]
    if allowed:
        assert combinations(properties, held_out).tolist() == [list(row) for row in allowed]
    else:
        with pytest.raises(ValueError, match="nothing to draw"):
            combinations(properties, held_out)
    if held_out and allowed:
        assert combinations(properties, held_out, novel=True).tolist() == [list(row) for row in novel]
    # A value's name means the same as its number.
    named = [{n: properties[n][v] for n, v in c.items()} for c in held_out]
    if allowed:
        assert combinations(properties, named).equal(combinations(properties, held_out))


def test_a_name_stands_for_every_value_that_carries_it():
    table = combinations({"piece": ("I", "I", "O"), "colour": ("red", "blue")}, [{"piece": "I", "colour": "red"}])
    assert table.tolist() == [[0, 1], [1, 1], [2, 0], [2, 1]]


@pytest.mark.parametrize(
    ("held_out", "novel", "message"),
    [
        ([{"shade": "red"}], False, "unknown property 'shade'; there are: shape, colour, size"),
        ([{"colour": "pink"}], False, "unknown colour 'pink'; there are: red, green, blue, 0 to 2"),
        ([{"size": 2}], False, "unknown size 2; there are: 0 to 1"),
        ([{"size": -1}], False, "unknown size -1"),
        ([{}], False, "each naming at least one of: shape, colour, size"),
        (["red"], False, "each naming at least one of"),
        ({"colour": "red"}, False, "held_out is a list of combinations"),
        ([{"shape": "circle"}, {"shape": "square"}], False, "nothing to draw: all 12"),
        ((), True, "novel=True draws the combinations held out, but held_out is empty"),
    ],
)
def test_what_cannot_be_is_one_clear_error(held_out, novel, message):
    with pytest.raises(ValueError, match=message):
        combinations(KINDS, held_out, novel)


def test_bounds_of_a_number_of_objects():
    assert bounds(3, 6) == (3, 3)
    assert bounds([2, 6], 6) == (2, 6)  # as YAML and JSON write it
    for wrong in (0, 7, (0, 3), (3, 7), (4, 2), (1, 2, 3), (1.5, 2), "12", True, torch.tensor(3)):
        with pytest.raises(ValueError, match="num_objects must be within 1 to 6"):
            bounds(wrong, 6)
