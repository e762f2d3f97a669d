"""`make` and `read`: all datasets by name, your own too."""

import numpy as np
import pytest
from written import picture, same

from slotlib.data import find, held_out, make, read
from slotlib.data.export import export


def test_an_unknown_dataset_is_one_clear_error_that_lists_the_known():
    with pytest.raises(ValueError, match=r"'clouds'.*multi_dsprites.*shapes.*tetrominoes"):
        make("clouds", 5)


def test_an_unknown_option_is_one_clear_error_that_lists_the_known():
    with pytest.raises(TypeError, match=r"'objects'.*num_objects"):
        make("tetrominoes", 5, objects=3)


@pytest.mark.parametrize("size", [0, -1])
def test_an_empty_dataset_is_one_clear_error(size):
    with pytest.raises(ValueError, match=rf"size must be a whole number, at least 1, got {size}"):
        make("tetrominoes", size)


# --- your own ---

MINE = """
import torch
from slotlib.data.files import Files

WORDS = 3

def draw(seed, index, shade=0.5):
    image = torch.full((len(index), 3, 4, 4), shade) * (index % 2)[:, None, None, None]
    return {"image": image, "objects": {"present": torch.ones(len(index), 1, dtype=torch.bool)}}

def paint(index, seed):
    return {}

class Text(Files):
    def __init__(self, path, **options):
        super().__init__(path, len(path.read_text()), **options)

    def stored(self, record):
        grey = ord(self.path.read_text()[record])
        pixels = torch.full((2, 2, 3), grey, dtype=torch.uint8).numpy()
        return {"image": pixels, "objects": {"present": torch.zeros(1, dtype=torch.bool)}}
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "their_scenes.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)


def test_a_generator_of_your_own_is_named_by_its_path(mine, tmp_path):
    scenes = make("their_scenes.draw", 5, seed=3, shade=0.25)
    assert scenes.batch([0, 1])["image"].amax((1, 2, 3)).tolist() == [0, 0.25]
    with pytest.raises(TypeError, match="no option 'colour'; it has: shade"):
        make("their_scenes.draw", 5, colour=1)
    train, rest = held_out("their_scenes.draw", 9, 4, seed=2)
    assert (len(train), train.origin, len(rest), rest.origin) == (9, {"scenes_seed": 5}, 4, {"scenes_seed": 6})
    back = read(export(scenes, tmp_path / "mine", "folder"))
    assert (back.batch(range(5))["image"] - scenes.batch(range(5))["image"]).abs().max() <= 0.5 / 255


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_module.draw", "'no_module.draw': cannot import such a function: No module named 'no_module'"),
        ("their_scenes.nothing", "cannot import such a function: module 'their_scenes' has no attribute 'nothing'"),
        ("their_scenes.WORDS", "'their_scenes.WORDS': cannot import such a function: 3 is not a callable object"),
        ("their_scenes.paint", r"expected a function draw\(seed, index, …\), got \(index, seed, …\)"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_clear_error(mine, name, message):
    with pytest.raises(ValueError, match=message) as error:
        make(name, 5)
    assert "\n" not in str(error.value)


def test_a_reader_of_your_own_is_named_by_its_path(mine, tmp_path):
    (tmp_path / "words.txt").write_text("AB")
    scenes = read(tmp_path / "words.txt", reader="their_scenes.Text")
    assert (scenes.batch([1])["image"] * 255).unique().tolist() == [66]
    for reader in ("their_scenes.draw", "their_scenes.Nothing", "nothing.Text"):
        with pytest.raises(ValueError, match=f"reader: .*{reader}"):
            read(tmp_path / "words.txt", reader=reader)


# --- for training and evaluation ---


def test_scenes_of_training_are_never_those_of_its_score(tmp_path):
    train, rest = held_out("tetrominoes", 20, 5, seed=3)
    assert same(train.batch(range(20)), make("tetrominoes", 20, seed=7).batch(range(20)))
    assert same(rest.batch(range(5)), make("tetrominoes", 5, seed=8).batch(range(5)))
    for k in range(9):
        picture(tmp_path / f"{k}.png", np.full((3, 3, 3), k))
    train, rest = held_out(str(tmp_path), 5, 3, seed=3)
    shades = [(part.batch(range(len(part)))["image"][:, 0, 0, 0] * 255).tolist() for part in (train, rest)]
    assert shades == [[0, 1, 2, 3, 4], [6, 7, 8]]
    assert rest.origin == {"scenes": "last of the files"}
    assert read(tmp_path).origin == {"scenes": str(tmp_path)}
    assert len(held_out(str(tmp_path), 100, 3, seed=3)[0]) == 6
    with pytest.raises(ValueError, match=r"holds 9 scenes; 9 are kept for evaluation \(train.eval_images\)"):
        held_out(str(tmp_path), 5, 9, seed=3)


def test_scenes_are_found_by_name_or_path(tmp_path):
    assert same(find("shapes", 3, seed=1).batch(range(3)), make("shapes", 3, seed=1).batch(range(3)))
    for k in range(3):
        picture(tmp_path / f"{k}.png", np.zeros((3, 3, 3)))
    assert [len(find(str(tmp_path), count)) for count in (2, 100)] == [2, 3]
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        find("shapes", 0)
    with pytest.raises(FileNotFoundError, match=r"no file or folder at .*missing"):
        find(str(tmp_path / "missing"), 1)


@pytest.mark.parametrize("name", ["missing/", "./missing", "scenes.hdf5", "d.npz", "x.tfrecords", "clevr.tfrecords.gz"])
def test_a_missing_file_is_no_unknown_dataset(name):
    for ask in (lambda: find(name, 1), lambda: held_out(name, 1, 1, seed=0)):
        with pytest.raises(FileNotFoundError, match=f"no file or folder at {name}"):
            ask()


def test_a_name_that_is_neither_says_both():
    with pytest.raises(
        ValueError, match="no file or folder at missing, and unknown dataset 'missing'; there are: clevr"
    ):
        find("missing", 1)


def test_a_folder_of_a_generators_name_is_said(tmp_path, monkeypatch, caplog):
    picture(tmp_path / "shapes" / "a.png", np.zeros((3, 3, 3)))
    monkeypatch.chdir(tmp_path)
    assert find("shapes", 2)[0]["image"].shape[1] > 3
    assert "not what lies here under that name (which is ./shapes)" in caplog.text
    assert find("./shapes", 2)[0]["image"].shape == (3, 3, 3)
