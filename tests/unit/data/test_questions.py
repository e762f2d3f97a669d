"""Questions are programs on sets; their answers must not depend on how a set is written down."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slotlib import data
from slotlib.data import questions
from slotlib.data.questions import KINDS, SIDES, Question, answer, ask, encode, read, text
from slotlib.data.targets import CATEGORIES, clevr_targets

NORTH = (0.0, 1.0)  # the camera looks along y, so left is -x


def thing(x, y, size="small", material="rubber", shape="cube", colour="red"):
    """One row of 19 values, by names."""
    names = {"size": size, "material": material, "shape": shape, "colour": colour}
    objects = {name: torch.tensor([CATEGORIES[name].index(value)]) for name, value in names.items()}
    return clevr_targets(objects | {"present": torch.tensor([True]), "position": torch.tensor([[x, y, 0.35]])})[0]


def value(name, which):
    return {name: CATEGORIES[name].index(which)}


SCENE = torch.stack(
    [
        thing(-2.0, 0.0, shape="cube", colour="red"),
        thing(0.0, 1.0, shape="sphere", colour="blue", size="large"),
        thing(2.0, -1.0, shape="cube", colour="blue"),
        torch.zeros(19),
    ]
)
CUBE, SPHERE, BLUE, RED = (
    value("shape", "cube"),
    value("shape", "sphere"),
    value("colour", "blue"),
    value("colour", "red"),
)


@pytest.mark.parametrize(
    "question, expected, words",
    [
        (Question("count", {}), 3, "How many objects are there?"),
        (Question("count", CUBE), 2, "How many cubes are there?"),
        (Question("count", {**CUBE, **BLUE}), 1, "How many blue cubes are there?"),
        (Question("exist", {**SPHERE, **RED}), 0, "Is there a red sphere?"),
        (Question("exist", value("size", "large")), 1, "Is there a large object?"),
        (Question("compare", CUBE, SPHERE), 1, "Are there more cubes than spheres?"),
        (Question("compare", RED, BLUE), 0, "Are there more red objects than blue objects?"),
        (Question("compare", CUBE, BLUE), 0, "Are there more cubes than blue objects?"),  # a tie is not more
        (Question("count beside", {}, SPHERE, "left"), 1, "How many objects are left of the sphere?"),
        (Question("count beside", {}, SPHERE, "front"), 2, "How many objects are in front of the sphere?"),
        (Question("count beside", {}, SPHERE, "behind"), 0, "How many objects are behind the sphere?"),
        (Question("exist beside", BLUE, SPHERE, "right"), 1, "Is there a blue object right of the sphere?"),
        (Question("exist beside", SPHERE, SPHERE, "right"), 0, "Is there a sphere right of the sphere?"),
    ],
)
def test_answers_and_words_of_a_scene_known_by_heart(question, expected, words):
    assert answer(question, read(SCENE), NORTH) == expected
    assert text(question) == words


@functools.cache
def scene_of(number):
    return data.make("clevr", 50, seed=3, resolution=16, min_visible=50)[number]


def scene_and_questions(seed, count=20):
    scene = scene_of(seed % 50)
    rows, behind = clevr_targets(scene["objects"]), tuple(scene["behind"].tolist())
    return rows, behind, ask(read(rows), behind, count, torch.Generator().manual_seed(seed))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_a_set_has_no_order_and_padding_says_nothing(seed):
    rows, behind, asked = scene_and_questions(seed)
    shuffled = torch.cat([rows, torch.zeros(3, 19)])[torch.randperm(len(rows) + 3)]
    for question in asked:
        assert answer(question, read(shuffled), behind) == answer(question, read(rows), behind)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_every_object_but_the_landmark_is_on_one_of_two_sides(seed):
    rows, behind, asked = scene_and_questions(seed)
    things = read(rows)
    for question in (each for each in asked if each.side):
        opposite = {"left": "right", "right": "left", "front": "behind", "behind": "front"}[question.side]
        everywhere = [
            answer(Question("count beside", {}, question.other, side), things, behind)
            for side in (question.side, opposite)
        ]
        assert sum(everywhere) == len(things) - 1  # exact ties do not happen


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 6.28))
def test_sides_are_the_cameras(seed, angle):
    """Turning the world and the camera together changes no answer."""
    rows, behind, asked = scene_and_questions(seed)
    c, s = torch.tensor(angle).cos(), torch.tensor(angle).sin()
    turn = torch.tensor([[c, -s], [s, c]])
    turned = rows.clone()
    turned[:, :2] = (rows[:, :2] - 0.5) @ turn.T + 0.5
    direction = tuple((turn @ torch.tensor(behind)).tolist())
    for question in asked:
        assert answer(question, read(turned), direction) == answer(question, read(rows), behind)


def test_left_is_left_in_the_picture():
    scenes = data.make("clevr", 20, seed=5, resolution=64).batch(range(20))
    rows, column = clevr_targets(scenes["objects"]), scenes["objects"]["pixel"][..., 0]
    for i in range(20):
        things, behind = read(rows[i]), tuple(scenes["behind"][i].tolist())
        left = [questions._towards(one, "left", behind) for one in things]
        for a in range(len(things)):
            for b in range(len(things)):
                if column[i, a] < column[i, b] - 12:  # perspective moves near things outwards
                    assert left[a] > left[b]


def test_questions_depend_on_the_seed_alone_and_landmarks_are_unique():
    rows, behind, asked = scene_and_questions(1, 200)
    assert asked == scene_and_questions(1, 200)[2] != scene_and_questions(51, 200)[2]
    assert [question.kind for question in asked] == [KINDS[n % 5] for n in range(200)]
    for question in asked:
        if question.side:
            assert answer(Question("count", question.other), read(rows), behind) == 1


def test_yes_and_no_are_equally_frequent():
    yes = {kind: [] for kind in ("exist", "exist beside", "compare")}
    for seed in range(15):
        rows, behind, asked = scene_and_questions(seed, 25)
        for question in asked:
            if question.kind in yes:
                yes[question.kind].append(answer(question, read(rows), behind))
    for kind, answers in yes.items():
        assert 0.4 < sum(answers) / len(answers) < 0.6, kind


def test_different_questions_have_different_encodings():
    _, _, asked = scene_and_questions(2, 200)
    distinct = {text(question) for question in asked}
    codes = torch.stack([encode(question) for question in asked])
    assert codes.shape == (200, 39)
    assert len(codes.unique(dim=0)) == len(distinct)
    assert len(SIDES) == 4


def test_a_landmark_is_the_best_fit_where_the_set_is_unsure():
    doubtful = SCENE.clone()
    colours = questions.PROPERTIES["colour"]
    doubtful[0, colours] = torch.tensor([0, 0.5, 0, 0, 0.4, 0, 0, 0])  # rather blue than red, but the reddest there is
    assert answer(Question("count beside", {}, RED, "right"), read(doubtful), NORTH) == 2


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="empty"):
        ask([], NORTH, 3, torch.Generator())
    with pytest.raises(ValueError, match="'why'"):
        answer(Question("why", {}), read(SCENE), NORTH)
    assert answer(Question("count beside", {}, RED, "left"), [], NORTH) == 0


def test_a_scene_of_twins_has_no_landmark():
    twins = torch.stack([thing(-1.0, 0.0), thing(1.0, 0.0)])
    kinds = {question.kind for question in ask(read(twins), NORTH, 20, torch.Generator().manual_seed(0))}
    assert kinds == {"count", "exist", "compare"}
