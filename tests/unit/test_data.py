"""Tetrominoes, and random numbers: the same in any order, faithful pixel by pixel, random where they should be."""

import hashlib
import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torch.utils.data import DataLoader

from slotlib.data import GENERATORS, make, tetrominoes
from slotlib.data.random import integers, uniform
from slotlib.data.tetrominoes import BEVEL, COLOURS, LETTERS, PIECES


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


def redrawn(objects: dict[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
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
            image[:, top : top + 5, left : left + 5] = np.array(colour)[:, None, None] * BEVEL.numpy() / 255
    return image, mask


def same(a: dict, b: dict) -> bool:
    properties = all(torch.equal(a["objects"][key], b["objects"][key]) for key in a["objects"])
    return torch.equal(a["image"], b["image"]) and torch.equal(a["mask"], b["mask"]) and properties


def chi_square(values: torch.Tensor, count: int) -> float:
    """p-value of all `count` values being equally likely."""
    return stats.chisquare(np.bincount(values.flatten().numpy(), minlength=count)).pvalue


# --- what a scene is ---


def test_the_pieces_are_the_nineteen_fixed_tetrominoes():
    ours = {frozenset((r, c) for r, c in piece) for piece in PIECES.tolist()}
    assert len(PIECES) == len(ours) == 19
    assert ours == fixed_tetrominoes()


def test_the_bevel_tells_the_sides_of_a_block_apart():
    # Lit from above: without it, touching pieces of one colour could not be told apart.
    top, middle, bottom, side = BEVEL[0], BEVEL[1:-1, 1:-1], BEVEL[-1], BEVEL[1:-1, [0, -1]]
    assert top.min() == BEVEL.max() == 255
    assert top.min() > middle.max() >= middle.min() > side.max() >= side.min() > bottom.max() > 0
    assert torch.equal(BEVEL, BEVEL.flip(1))


@pytest.mark.parametrize("num_objects", [1, 3, 6, (1, 6), (2, 3)])
def test_image_mask_and_properties_tell_one_story(num_objects):
    scenes = make("tetrominoes", 60, seed=4, num_objects=num_objects)
    for scene in scenes.__getitems__(range(60)):
        image, mask = redrawn(scene["objects"])
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


# --- the same scene whoever asks ---


@pytest.mark.parametrize(
    ("seed", "digest"),
    [(0, "ffc940669ff0c5f8"), (1, "d17a3a46e8ffbb15"), (2, "1c8158398f4696b8"), (2**40, "96d0aed380a84f56")],
)
def test_the_scenes_that_shipped_models_were_trained_on_never_change(seed, digest):
    batch = make("tetrominoes", 1000, seed=seed).batch(range(1000))
    content = hashlib.sha256()
    for part in (batch["image"], batch["mask"], *batch["objects"].values()):
        content.update(part.contiguous().numpy().tobytes())
    assert content.hexdigest().startswith(digest)


def test_a_scene_does_not_depend_on_the_order_or_the_batch():
    scenes = make("tetrominoes", 50, seed=3, num_objects=(1, 6))
    batch = scenes.batch(range(50))
    for i in (49, 0, 17, 17):
        alone = scenes[i]
        assert torch.equal(alone["image"], batch["image"][i])
        assert torch.equal(alone["mask"], batch["mask"][i])
        for key, value in batch["objects"].items():
            assert torch.equal(alone["objects"][key], value[i])
    shuffled = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(scenes.batch(shuffled)["image"], batch["image"][shuffled])


def test_a_larger_dataset_begins_with_the_smaller_one():
    assert all(same(a, b) for a, b in zip(make("tetrominoes", 5, seed=1), make("tetrominoes", 9, seed=1), strict=False))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_hands_over_the_same_scenes(workers):
    scenes = make("tetrominoes", 24, seed=5)
    expected = scenes.batch(range(24))
    loader = DataLoader(scenes, batch_size=5, num_workers=workers)
    batches = list(loader)
    assert torch.equal(torch.cat([b["image"] for b in batches]), expected["image"])
    assert torch.equal(torch.cat([b["mask"] for b in batches]), expected["mask"])
    for key, value in expected["objects"].items():
        assert torch.equal(torch.cat([b["objects"][key] for b in batches]), value)


def test_global_random_state_plays_no_part():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one = make("tetrominoes", 3)[1]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert same(one, make("tetrominoes", 3)[1])


def test_no_two_scenes_and_no_two_seeds_are_alike():
    images = [make("tetrominoes", 300, seed=seed).batch(range(300))["image"].flatten(1) for seed in (0, 1, -1)]
    assert len(torch.cat(images).unique(dim=0)) == 900


@pytest.mark.parametrize("seed", [2**31, 2**63 - 1, -(2**63), 2**63, 2**64 + 5])
def test_any_integer_is_a_seed(seed):
    scenes = make("tetrominoes", 2, seed=seed)
    assert not same(scenes[0], scenes[1])
    assert same(scenes[0], make("tetrominoes", 2, seed=seed)[0])


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


# --- random numbers by address ---


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


# --- bad input ---


@pytest.mark.parametrize("num_objects", [0, 7, -1, (0, 3), (3, 7), (4, 2)])
def test_a_number_of_objects_out_of_range_is_one_clear_error(num_objects):
    with pytest.raises(ValueError, match="num_objects must be within 1 to 6") as error:
        make("tetrominoes", 5, num_objects=num_objects)
    assert str(num_objects) in str(error.value)


def test_pieces_that_do_not_fit_are_one_clear_error(monkeypatch):
    with pytest.raises(ValueError, match="resolution must be at least 20, got 19"):
        make("tetrominoes", 5, resolution=19)
    with pytest.raises(ValueError, match=r"num_objects must be within 1 to 12, .* got 13"):
        make("tetrominoes", 5, resolution=50, num_objects=13)
    monkeypatch.setattr(tetrominoes, "_TRIES", 20)
    with pytest.raises(ValueError, match="the pieces do not fit on 20×20 pixels"):
        make("tetrominoes", 50, resolution=20, num_objects=2).batch(range(50))  # one I lies, the other stands


def test_an_unknown_dataset_is_one_clear_error_that_lists_the_known():
    with pytest.raises(ValueError, match=r"'clouds'.*multi_dsprites.*shapes.*tetrominoes"):
        make("clouds", 5)


def test_an_unknown_option_is_one_clear_error_that_lists_the_known():
    with pytest.raises(TypeError, match=r"'objects'.*num_objects"):
        make("tetrominoes", 5, objects=3)


@pytest.mark.parametrize("size", [0, -1])
def test_an_empty_dataset_is_one_clear_error(size):
    with pytest.raises(ValueError, match=rf"size must be at least 1, got {size}"):
        make("tetrominoes", size)


@pytest.mark.parametrize("index", [5, -1])
def test_a_scene_that_does_not_exist_is_one_clear_error(index):
    with pytest.raises(IndexError, match=rf"\[0, 5\).*{index}"):
        make("tetrominoes", 5)[index]


def test_a_loop_over_the_dataset_ends():
    assert len(list(make("tetrominoes", 5))) == len(make("tetrominoes", 5)) == 5


@pytest.mark.parametrize("name", GENERATORS)
def test_no_scenes_make_an_empty_batch(name):
    scenes = make(name, 2)
    empty, one = scenes.batch([]), scenes.batch([0])
    assert empty["image"].shape == (0, *one["image"].shape[1:])
    assert empty["mask"].shape == (0, *one["mask"].shape[1:])
    assert empty["objects"].keys() == one["objects"].keys()


@pytest.mark.parametrize("name", GENERATORS)
def test_scenes_are_the_same_where_the_default_is_double_precision(name):
    scenes = make(name, 3, seed=1)
    single = scenes.batch(range(3))
    torch.set_default_dtype(torch.float64)
    try:
        double = scenes.batch(range(3))
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(single["image"], double["image"])
    assert torch.equal(single["mask"], double["mask"])
    assert {name: t.dtype for name, t in single["objects"].items()} == {
        name: t.dtype for name, t in double["objects"].items()
    }
