"""Which combinations of discrete attributes a generator may draw, for tests of compositional generalisation.

`held_out=[{"shape": "square", "colour": "red"}]` means: no red square ever appears. With `novel=True` every object is
one of the combinations held out. A model trained on the first and tested on the second has seen squares and has seen
red, but never together.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def _matches(
    table: Int[Tensor, "all properties"], properties: Mapping[str, Iterable], combination: Mapping[str, str | int]
) -> Bool[Tensor, "all"]:
    """Which rows are an instance of `combination`; a property it does not name may have any value."""
    if not isinstance(combination, Mapping) or not combination:
        raise ValueError(
            f'held_out lists combinations such as {{"{next(iter(properties))}": ...}}, each naming at least one of: '
            f"{', '.join(properties)}; got {combination!r}"
        )
    match = torch.ones(len(table), dtype=torch.bool)
    for name, value in combination.items():
        if name not in properties:
            raise ValueError(f"held_out names an unknown property {name!r}; there are: {', '.join(properties)}")
        names = list(properties[name])
        indices = range(len(names))
        # A name stands for every value that carries it: the letter L for all four rotations of that piece.
        wanted = (
            [i for i in indices if names[i] == value] if isinstance(value, str) else [i for i in indices if i == value]
        )
        if not wanted:
            known = [*dict.fromkeys(n for n in names if isinstance(n, str)), f"0 to {len(names) - 1}"]
            raise ValueError(f"held_out names an unknown {name} {value!r}; there are: {', '.join(known)}")
        column = list(properties).index(name)
        match &= torch.isin(table[:, column], torch.tensor(wanted))
    return match


def combinations(
    properties: Mapping[str, Iterable], held_out: Sequence[Mapping[str, str | int]] = (), novel: bool = False
) -> Int[Tensor, "allowed properties"]:
    """The table of allowed combinations, one per row, as indices; on the CPU.

    `table[integers(u, len(table))]` with one uniform number `u` per object draws all properties jointly, each allowed
    combination with the same probability.

    Args:
        properties: for each property the names of its values in order (a tuple, or a dict whose keys are the names;
            `range(n)` where values have no names). They are the columns. Names may repeat.
        held_out: combinations, each a dict from property to a value's name or index. An object that agrees with one of
            them in every property it names is not allowed.
        novel: the other way round: only such objects are allowed.

    Returns the rows in row-major order, the last property changing fastest.

    Raises ValueError: a property or a value that does not exist, nothing left to draw, or `novel` without `held_out`.
    """
    columns = [torch.arange(len(list(values))) for values in properties.values()]
    table = torch.stack([grid.flatten() for grid in torch.meshgrid(columns, indexing="ij")], dim=1)
    if isinstance(held_out, Mapping):
        raise ValueError(f"held_out is a list of combinations, got a single one: {dict(held_out)}")
    if novel and not held_out:
        raise ValueError("novel=True draws the combinations held out, but held_out is empty")
    out = torch.zeros(len(table), dtype=torch.bool)
    for combination in held_out:
        out |= _matches(table, properties, combination)
    if out.all():
        raise ValueError(f"held_out leaves nothing to draw: all {len(table)} combinations are held out")
    return table[out if novel else ~out]


def bounds(num_objects: int | Sequence[int], most: int) -> tuple[int, int]:
    """The least and the most of `num_objects`, which is one number for both or the two, within 1 to `most`."""
    pair = tuple(num_objects) if isinstance(num_objects, Sequence) else (num_objects, num_objects)
    whole = len(pair) == 2 and all(isinstance(bound, int) and not isinstance(bound, bool) for bound in pair)
    if not whole or not 1 <= pair[0] <= pair[1] <= most:
        raise ValueError(
            f"num_objects must be within 1 to {most}, a number or (least, most) with least <= most, got {num_objects}"
        )
    return pair[0], pair[1]
