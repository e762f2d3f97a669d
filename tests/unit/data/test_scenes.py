"""Sources of scenes: the same scene whoever asks, however it is asked for."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from written import same

from slotlib.data import GENERATORS, Generator, Kept, Scenes, make

# --- generated ---


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


@pytest.mark.parametrize("index", [5, -1])
def test_a_scene_that_does_not_exist_is_one_clear_error(index):
    with pytest.raises(IndexError, match=rf"\[0, 5\).*{index}"):
        make("tetrominoes", 5)[index]


@pytest.mark.parametrize(
    "index",
    [[1.9], [float("nan")], [True, False], [[0, 1]], ["1"], [None], torch.tensor([1.0]), torch.ones(5).bool(), 1],
)
def test_what_is_no_scene_number_is_one_clear_error(index):
    scenes = make("tetrominoes", 5)
    for source in (scenes, Kept(scenes), scenes.part(1, 3)):
        with pytest.raises(TypeError, match=r"scene numbers must be integers in \[0, \d\), got .+"):
            source.batch(index)
    for i in (1.9, True, "1", None, slice(2)):
        with pytest.raises(TypeError, match=r"scene numbers must be integers in \[0, 5\)"):
            scenes[i]


def test_integers_of_any_type_are_scene_numbers():
    scenes = make("tetrominoes", 5)
    for index in ([1, 3], (1, 3), range(1, 4, 2), np.array([1, 3], np.uint8), torch.tensor([1, 3]), np.int16([1, 3])):
        assert same(scenes.batch(index), scenes.batch([1, 3]))
    assert same(scenes[np.int64(3)], scenes[torch.tensor(3)])


def test_a_kept_scene_that_does_not_exist_is_one_clear_error():
    kept = Kept(make("tetrominoes", 5))
    for index in (5, -1):
        with pytest.raises(IndexError, match=rf"\[0, 5\).*{index}"):
            kept[index]
    with pytest.raises(ValueError, match="the number of scenes to keep must be a whole number, at least 1, got 0"):
        Kept(make("tetrominoes", 5).part(5, 5))


@pytest.mark.parametrize("seed", [1.5, "1", None, True, float("nan")])
def test_what_is_no_seed_is_one_clear_error(seed):
    with pytest.raises(ValueError, match=f"seed must be a whole number, got {seed!r}"):
        make("tetrominoes", 5, seed)
    with pytest.raises(ValueError, match=f"seed must be a whole number, got {seed!r}"):
        GENERATORS["shapes"].draw(seed, torch.arange(2))


def test_a_loop_over_the_dataset_ends():
    assert len(list(make("tetrominoes", 5))) == len(make("tetrominoes", 5)) == 5


@pytest.mark.parametrize("name", GENERATORS)
def test_no_scenes_make_an_empty_batch(name):
    scenes = make(name, 2)
    empty, one = scenes.batch([]), scenes.batch([0])
    assert empty["image"].shape == (0, *one["image"].shape[1:])
    assert empty["mask"].shape == (0, *one["mask"].shape[1:])
    assert empty["objects"].keys() == one["objects"].keys()


def with_camera(seed: int, index: torch.Tensor) -> dict:
    scene = index.float()
    return {"image": scene[:, None], "camera": -scene, "objects": {"present": index[:, None] >= 0}}


def test_tensors_of_the_whole_scene_pass_through():
    items = Scenes("mine", Generator(with_camera), 9, 0, {}).__getitems__([4, 2])
    assert [item["camera"].item() for item in items] == [-4, -2]
    assert items[1]["objects"]["present"].tolist() == [True]


def test_a_part_has_the_scenes_of_the_whole():
    whole = make("shapes", 12, seed=4)
    part = whole.part(5, 9)
    assert len(part) == 4
    assert same(part.batch(range(4)), whole.batch(range(5, 9)))
    assert same(part.part(1, 100).batch([2]), whole.batch([8]))
    assert (part.origin, whole.origin) == ({"scenes_seed": 4, "first_scene": 5}, {"scenes_seed": 4})
    with pytest.raises(IndexError, match=r"\[0, 4\), got 4"):
        part.batch([4])
    assert len(whole.part(20, 30)) == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_a_gpu_draws_the_same_scenes(name):
    scenes = make(name, 128, seed=4)
    here, there = scenes.batch(range(128)), scenes.batch(range(128), "cuda")
    assert there["image"].is_cuda
    # The ray tracer's roots and powers may round differently there: a step of 1/255, a pixel on an outline.
    exact = 1 if name != "clevr" else 0.999
    assert ((there["image"].cpu() - here["image"]).abs() < 1.5 / 255).float().mean() >= exact
    assert (there["mask"].cpu() == here["mask"]).float().mean() >= exact
    for key, value in here["objects"].items():
        torch.testing.assert_close(there["objects"][key].cpu(), value, rtol=1e-5, atol=1e-5)


# --- kept ---


def test_kept_scenes_are_the_scenes():
    scenes = make("shapes", 70, seed=2)
    kept = Kept(scenes)
    assert len(kept) == 70
    assert kept.content["image"].dtype == torch.uint8
    assert same(kept.batch([69, 3, 3]), scenes.batch([69, 3, 3]))  # generated images are bytes: nothing is lost
    assert same(kept[5], scenes[5])
    assert same(kept.part(60, 70).batch(range(10)), scenes.batch(range(60, 70)))
    assert (kept.origin, kept.skipped) == (scenes.origin, 0)
