"""Questions about CLEVR's scenes, and how a set answers them (chapter 05).

A question is a small program: keep the objects that fit a description, perhaps only those on one side of a landmark,
and count them. `answer` runs it on a set of objects, 19 values each (`targets.clevr_targets`). The set may be the
true one or a predicted one: nothing is learned here, so every wrong answer is the set's fault.

`ask` makes questions up, `text` reads one out, `encode` turns one into numbers for a network. The kinds follow
Johnson et al. (2017, arXiv 1612.06890), whose questions are longer chains of the same steps.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from slotlib.data.targets import CATEGORIES, PROPERTIES

KINDS = ("count", "count beside", "exist", "exist beside", "compare")
SIDES = {"left": "left of", "right": "right of", "front": "in front of", "behind": "behind"}
ANSWERS = 11
"""Answers are 0 to 10: a number of objects, or 1 for yes and 0 for no."""
_PRESENCE = PROPERTIES["presence"].start
_ORDER = ("size", "colour", "material", "shape")  # as one says it: small red metal cube
_PROPOSALS = 50  # made up at most to find a question with the answer wanted

Description = Mapping[str, int]
"""Property → number of its value in `CATEGORIES`; a property that is not named may have any value."""


class Question(NamedTuple):
    kind: str
    """One of `KINDS`; "beside" is any of the sides."""
    what: Description
    """The objects asked for."""
    other: Mapping[str, int] = {}
    """The landmark, or the group to compare with: are there more of `what` than of `other`? Else empty."""
    side: str | None = None
    """One of `SIDES`: where they are, seen from the landmark."""


class Thing(NamedTuple):
    """An object of a set, read off by argmax."""

    is_a: Description
    values: list[float]


def read(objects: Float[Tensor, "objects 19"], threshold: float = 0.5) -> list[Thing]:
    """The objects of one set whose presence is above `threshold`."""
    things = []
    for values in objects.tolist():
        if values[_PRESENCE] > threshold:
            parts = {name: values[PROPERTIES[name]] for name in CATEGORIES}
            things.append(Thing({name: part.index(max(part)) for name, part in parts.items()}, values))
    return things


def _fits(thing: Thing, description: Description) -> bool:
    return all(thing.is_a[name] == value for name, value in description.items())


def _likelihood(thing: Thing, description: Description) -> float:
    product = thing.values[_PRESENCE]
    for name, value in description.items():
        product *= thing.values[PROPERTIES[name]][value]
    return product


def _towards(thing: Thing, side: str, behind: tuple[float, float]) -> float:
    """How far a thing lies to that side, as the camera sees it."""
    x, y = behind
    way = {"behind": (x, y), "front": (-x, -y), "left": (-y, x), "right": (y, -x)}[side]
    return thing.values[0] * way[0] + thing.values[1] * way[1]


def answer(question: Question, things: list[Thing], behind: tuple[float, float]) -> int:
    """Run the question on a set.

    Args:
        things: a set, see `read`. A landmark is the one thing that fits its description best, so that a set in which
            none or two fit it still has an answer; without any thing there is nothing beside it.
        behind: on the ground, away from the camera.

    Raises ValueError for a kind of question that does not exist.
    """
    if question.kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {question.kind!r}")
    found = [thing for thing in things if _fits(thing, question.what)]
    if question.kind == "compare":
        return int(len(found) > sum(_fits(thing, question.other) for thing in things))
    if question.side is not None and things:
        landmark = max(things, key=lambda thing: _likelihood(thing, question.other))
        edge = _towards(landmark, question.side, behind)
        found = [thing for thing in found if _towards(thing, question.side, behind) > edge]
    return int(len(found) > 0) if question.kind.startswith("exist") else len(found)


def ask(things: list[Thing], behind: tuple[float, float], count: int, generator: torch.Generator) -> list[Question]:
    """Make up `count` questions on a true set, the kinds in turns.

    Yes and no are wanted equally often and, where fifty proposals bring one, are. A landmark's description fits one
    object only. In the rare scene where none can be singled out, questions with a landmark are left out.

    Raises ValueError for a set without things.
    """
    if not things:
        raise ValueError("there must be something to ask about, got an empty set")

    def pick(n: int) -> int:
        return int(torch.randint(n, (), generator=generator))

    def some(names: tuple[str, ...], n: int) -> list[str]:
        return [names[i] for i in torch.randperm(len(names), generator=generator)[:n].tolist()]

    def description(most: int, least: int = 1) -> dict[str, int]:
        """A part of what some object is; every other time one value is changed, so that it may fit none."""
        thing = things[pick(len(things))]
        wanted = {name: thing.is_a[name] for name in some(_ORDER, least + pick(most - least + 1))}
        if wanted and pick(2):
            (name,) = some(tuple(wanted), 1)
            wanted[name] = pick(len(CATEGORIES[name]))
        return wanted

    def landmark() -> dict[str, int] | None:
        for i in torch.randperm(len(things), generator=generator).tolist():
            wanted = {}
            for name in some(_ORDER, len(_ORDER)):
                wanted[name] = things[i].is_a[name]
                if sum(_fits(thing, wanted) for thing in things) == 1:
                    return wanted
        return None

    def propose(kind: str) -> Question | None:
        if kind == "compare":
            (name,) = some(_ORDER, 1)
            first, second = torch.randperm(len(CATEGORIES[name]), generator=generator)[:2].tolist()
            return Question(kind, {name: first}, {name: second})
        if kind in ("count", "exist"):
            return Question(kind, description(1 if kind == "count" else 3))
        other = landmark()
        side = some(tuple(SIDES), 1)[0]
        what = description(1, 0) if kind == "count beside" else description(2)
        return None if other is None else Question(kind, what, other, side)

    questions = []
    for n in range(count):
        kind = KINDS[n % len(KINDS)]
        wanted = pick(2)
        for _ in range(_PROPOSALS):
            question = propose(kind)
            if question is None or kind.startswith("count") or answer(question, things, behind) == wanted:
                break
        if question is not None:
            questions.append(question)
    return questions


def _words(description: Description, one: bool) -> str:
    words = [CATEGORIES[name][description[name]] for name in _ORDER if name in description]
    noun = words.pop() if "shape" in description else "object"
    return " ".join([*words, noun + ("" if one else "s")])


def text(question: Question) -> str:
    """The question in English."""
    kind, what, other, side = question
    if kind == "compare":
        return f"Are there more {_words(what, False)} than {_words(other, False)}?"
    where = "" if side is None else f" {SIDES[side]} the {_words(other, True)}"
    if kind.startswith("exist"):
        return f"Is there a {_words(what, True)}{where}?"
    return f"How many {_words(what, False)} are {where.strip() or 'there'}?"


def encode(question: Question) -> Float[Tensor, "39"]:
    """The question as zeros and ones: kind, the values of `what` and of `other`, side."""
    parts = [torch.tensor([kind == question.kind for kind in KINDS])]
    for description in (question.what, question.other):
        for name, names in CATEGORIES.items():
            parts.append(torch.arange(len(names)) == description.get(name, -1))
    parts.append(torch.tensor([side == question.side for side in SIDES]))
    return torch.cat(parts).float()
