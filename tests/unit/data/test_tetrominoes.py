"""Tetrominoes: faithful pixel by pixel, the same in any order, random where they should be."""

import hashlib

import numpy as np
import pytest
import torch
from scipy import stats

from slotlib.data import make, tetrominoes
from slotlib.data.tetrominoes import BEVELS, COLOURS, LETTERS, PIECES


def fixed_tetrominoes() -> set[frozenset[tuple[int, int]]]:
    """All sets of four cells that hang together, shifted into the corner: grown from one cell."""
    shapes = {frozenset({(0, 0)})}
    for _ in range(3):
        grown = set()
        for shape in shapes:
            for r, c in shape:
                for cell in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
                    if cell not in shape:
                        grown.add(shape | {cell})
        shapes = {frozenset((r - min(r for r, _ in s), c - min(c for _, c in s)) for r, c in s) for s in grown}
    return shapes


def redrawn(objects: dict[str, torch.Tensor], look: str) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask of one scene, drawn again from the properties it claims to have, block by block."""
    image, mask = np.zeros((3, 35, 35)), np.zeros((35, 35), dtype=int)
    for i in range(len(objects["present"])):
        if not objects["present"][i]:
            continue
        colour = list(COLOURS.values())[objects["colour"][i]]
        for row, column in PIECES[objects["shape"][i]].tolist():
            top, left = objects["y"][i] + 5 * row, objects["x"][i] + 5 * column
            assert (mask[top : top + 5, left : left + 5] == 0).all(), "pieces overlap"
            mask[top : top + 5, left : left + 5] = i + 1
            image[:, top : top + 5, left : left + 5] = np.array(colour)[:, None, None] * BEVELS[look].numpy() / 255
    return image, mask


def chi_square(values: torch.Tensor, count: int) -> float:
    """p-value of all `count` values being equally likely."""
    return stats.chisquare(np.bincount(values.flatten().numpy(), minlength=count)).pvalue


# --- what a scene is ---


def test_the_pieces_are_the_nineteen_fixed_tetrominoes():
    ours = {frozenset((r, c) for r, c in piece) for piece in PIECES.tolist()}
    assert len(PIECES) == len(ours) == 19
    assert ours == fixed_tetrominoes()


@pytest.mark.parametrize("look", BEVELS)
def test_the_bevel_tells_the_sides_of_a_block_apart(look):
    # Lit from above: without it, touching pieces of one colour could not be told apart.
    bevel = BEVELS[look]
    top, face, bottom = bevel[0, 1:-1], bevel[1:-1, 1:-1], bevel[-1, 1:-1]
    assert top.min() == bevel.max() == 255
    assert top.min() > face.max() >= face.min() > bottom.max() > 0
    left, right = bevel[1:-1, 0], bevel[1:-1, -1]
    assert torch.equal(left, right) == (look == "first")
    assert bottom.max() < left.min() < face.min()


def test_the_published_bevel_is_a_raised_tile_lit_from_the_upper_right():
    # Face .63 of full brightness, edges 1, .75, .5 and .25; a corner is the mean of its two edges.
    bevel = BEVELS["published"].double() / 256
    top, right, left, bottom = 1, 0.75, 0.5, 0.25
    assert (bevel[1:-1, 1:-1] == 0.625).all()
    corners = {(0, 0): (top, left), (0, -1): (top, right), (-1, 0): (bottom, left), (-1, -1): (bottom, right)}
    for (row, column), edges in corners.items():
        assert bevel[row, column] == pytest.approx(sum(edges) / 2, abs=1 / 256)


@pytest.mark.parametrize("look", BEVELS)
@pytest.mark.parametrize("num_objects", [1, 3, 6, (1, 6), (2, 3)])
def test_image_mask_and_properties_tell_one_story(num_objects, look):
    scenes = make("tetrominoes", 60, seed=4, num_objects=num_objects, look=look)
    for scene in scenes.__getitems__(range(60)):
        image, mask = redrawn(scene["objects"], look)
        np.testing.assert_array_equal(scene["mask"], mask)
        np.testing.assert_allclose(scene["image"], image, rtol=0, atol=1e-6)
        # A piece is whole, inside the image, and covered by nobody: four blocks of 25 pixels.
        areas = np.bincount(scene["mask"].flatten(), minlength=len(scene["objects"]["present"]) + 1)[1:]
        assert (areas == 100 * scene["objects"]["present"].numpy()).all()


def test_types_and_ranges():
    scene = make("tetrominoes", 5)[2]
    assert scene["image"].shape == (3, 35, 35)
    assert scene["image"].dtype == torch.float32
    assert scene["mask"].shape == (35, 35)
    assert scene["mask"].dtype == torch.uint8
    assert 0 <= scene["image"].min() < scene["image"].max() <= 1


@pytest.mark.parametrize(("num_objects", "least", "most"), [(1, 1, 1), (6, 6, 6), ((1, 6), 1, 6), ((2, 4), 2, 4)])
def test_numbers_of_objects_cover_their_range_evenly(num_objects, least, most):
    present = make("tetrominoes", 300, num_objects=num_objects).batch(range(300))["objects"]["present"]
    counts = present.sum(1)
    assert set(counts.tolist()) == set(range(least, most + 1))
    assert present.shape[1] == most
    # The first `count` rows are the objects, so that mask value i is row i − 1.
    assert torch.equal(present, torch.arange(most) < counts.unsqueeze(1))
    if least < most:
        assert chi_square(counts - least, most - least + 1) > 1e-4


def test_the_letters_name_the_pieces():
    # How many rotations look different follows from each piece's symmetry.
    assert {letter: LETTERS.count(letter) for letter in LETTERS} == dict(I=2, O=1, T=4, S=2, Z=2, J=4, L=4)
    squares = [letter for letter, cells in zip(LETTERS, PIECES, strict=True) if (cells.amax(0) == 1).all()]
    assert squares == ["O"]


@pytest.mark.parametrize(("resolution", "num_objects"), [(25, 2), (50, (1, 12)), (64, 10)])
def test_another_canvas_holds_pieces_of_the_same_size(resolution, num_objects):
    batch = make("tetrominoes", 40, seed=4, resolution=resolution, num_objects=num_objects).batch(range(40))
    assert batch["image"].shape == (40, 3, resolution, resolution)
    areas = torch.stack([(batch["mask"] == k + 1).sum((1, 2)) for k in range(batch["objects"]["present"].shape[1])], 1)
    assert torch.equal(areas, 100 * batch["objects"]["present"])
    assert (batch["mask"][:, -1] > 0).any()
    assert (batch["mask"][:, :, -1] > 0).any()


HELD_OUT = [{"shape": "I", "colour": "red"}, {"shape": "L"}, {"shape": 4, "colour": 2}]


@pytest.mark.parametrize("novel", [False, True])
def test_held_out_pieces_never_appear_or_alone(novel):
    batch = make("tetrominoes", 3000, seed=7, held_out=HELD_OUT, novel=novel).batch(range(3000))
    pairs = batch["objects"]["shape"] * len(COLOURS) + batch["objects"]["colour"]
    shape, colour = torch.arange(114) // 6, torch.arange(114) % 6
    letter = np.array(LETTERS)[shape.numpy()]
    out = torch.tensor(letter == "L") | (torch.tensor(letter == "I") & (colour == 0)) | ((shape == 4) & (colour == 2))
    assert (out.sum(), len(pairs.unique())) == (27, 27 if novel else 87)
    seen = torch.bincount(pairs.flatten(), minlength=114)
    assert seen[~out if novel else out].sum() == 0
    assert stats.chisquare(seen[out if novel else ~out].numpy()).pvalue > 1e-4


@pytest.mark.parametrize(
    ("seed", "digest"),
    [(0, "ffc940669ff0c5f8"), (1, "d17a3a46e8ffbb15"), (2, "1c8158398f4696b8"), (2**40, "96d0aed380a84f56")],
)
def test_the_scenes_that_shipped_models_were_trained_on_never_change(seed, digest):
    batch = make("tetrominoes", 1000, seed=seed, look="first").batch(range(1000))
    content = hashlib.sha256()
    for part in (batch["image"], batch["mask"], *batch["objects"].values()):
        content.update(part.contiguous().numpy().tobytes())
    assert content.hexdigest().startswith(digest)


# --- chance ---


@pytest.mark.parametrize(("num_objects", "size"), [(3, 4000), (6, 400)])
def test_shapes_and_colours_are_equally_likely(num_objects, size):
    objects = make("tetrominoes", size, seed=2, num_objects=num_objects).batch(range(size))["objects"]
    assert chi_square(objects["shape"], 19) > 1e-4
    assert chi_square(objects["colour"], 6) > 1e-4
    # ... whatever the object's number in its scene, and independently of each other.
    for i in range(num_objects):
        assert chi_square(objects["shape"][:, i], 19) > 1e-4
    pairs = objects["shape"] * len(COLOURS) + objects["colour"]
    assert chi_square(pairs, 19 * len(COLOURS)) > 1e-4


def test_a_single_piece_lies_anywhere_it_fits():
    objects = make("tetrominoes", 6000, seed=1, num_objects=1).batch(range(6000))["objects"]
    for shape in range(19):
        chosen = objects["shape"][:, 0] == shape
        for axis, name in ((0, "y"), (1, "x")):
            room = 31 - 5 * int(PIECES[shape][:, axis].max())  # offsets 0 … 35 − extent
            where = objects[name][chosen, 0]
            assert where.min() >= 0
            assert where.max() < room
            assert chi_square(where, room) > 1e-5


def test_properties_of_neighbouring_scenes_are_unrelated():
    objects = make("tetrominoes", 4000, seed=6, num_objects=1).batch(range(4000))["objects"]
    for name in ("shape", "colour", "x", "y"):
        values = objects[name][:, 0].double()
        assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 4 / 4000**0.5


# --- bad input ---


@pytest.mark.parametrize("num_objects", [0, 7, -1, (0, 3), (3, 7), (4, 2)])
def test_a_number_of_objects_out_of_range_is_one_clear_error(num_objects):
    with pytest.raises(ValueError, match="num_objects must be within 1 to 6") as error:
        make("tetrominoes", 5, num_objects=num_objects)
    assert str(num_objects) in str(error.value)


def test_an_unknown_look_is_one_clear_error():
    with pytest.raises(ValueError, match=r"look must be one of \('first', 'published'\), got 'flat'"):
        make("tetrominoes", 5, look="flat")


def test_pieces_that_do_not_fit_are_one_clear_error(monkeypatch):
    with pytest.raises(ValueError, match="resolution must be at least 20, got 19"):
        make("tetrominoes", 5, resolution=19)
    with pytest.raises(ValueError, match=r"num_objects must be within 1 to 12, .* got 13"):
        make("tetrominoes", 5, resolution=50, num_objects=13)
    monkeypatch.setattr(tetrominoes, "_TRIES", 20)
    with pytest.raises(ValueError, match="the pieces do not fit on 20×20 pixels"):
        make("tetrominoes", 50, resolution=20, num_objects=2).batch(range(50))  # one I lies, the other stands
