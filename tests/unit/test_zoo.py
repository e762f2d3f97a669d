"""Shipped models are found by their names, and do what their cards say."""

import hashlib
import json
import re
import resource
import shlex
import shutil

import pytest

import slotlib
from slotlib import checkpoint, cli, data, zoo
from slotlib.data import clevr
from slotlib.evaluation import evaluate


@pytest.mark.parametrize("ending", ["", ".json", ".safetensors"])
def test_a_model_is_found_by_its_path_with_any_ending(tmp_path, ending):
    for part in ("json", "safetensors"):
        shutil.copy(zoo.find("tetrominoes").with_suffix(f".{part}"), tmp_path / f"mine.{part}")
    assert slotlib.load(f"{tmp_path / 'mine'}{ending}").card == zoo.load("tetrominoes").card


@pytest.fixture
def own_shapes(tmp_path, monkeypatch):
    """A working directory with a checkpoint of one's own that has the name of a shipped one."""
    monkeypatch.chdir(tmp_path)
    for part in ("json", "safetensors"):
        shutil.copy(zoo.find("tetrominoes").with_suffix(f".{part}"), f"shapes.{part}")
    return tmp_path


@pytest.mark.parametrize("path", ["shapes", "./shapes", "shapes.json", "../{}/shapes"])
def test_where_one_stands_a_name_is_first_of_all_one_s_own(own_shapes, path):
    assert slotlib.load(path.format(own_shapes.name)).config.resolution == 35


def test_elsewhere_a_name_is_a_shipped_one(own_shapes, monkeypatch):
    (own_shapes / "below").mkdir()
    monkeypatch.chdir("below")
    assert slotlib.load("shapes").config.resolution == 64
    assert slotlib.load("../shapes").config.resolution == 35


@pytest.mark.parametrize("path", ["./clevr6", "clevr6.json", "folder/clevr6"])
def test_a_path_is_never_a_shipped_name(own_shapes, path):
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        slotlib.load(path)


def test_half_a_checkpoint_is_not_passed_over(own_shapes):
    (own_shapes / "shapes.safetensors").unlink()
    with pytest.raises(
        ValueError, match=r"shapes\.json lies here without.*'\./shapes' asks for yours, '(.*)' for"
    ) as error:
        slotlib.load("shapes")
    (shipped,) = re.findall("'([^']*)' for the one that ships", str(error.value))
    assert slotlib.load(shipped).config.resolution == 64


def test_a_dot_in_a_name_is_no_ending(tmp_path):
    model = zoo.load("tetrominoes")
    for name in ("lr.1", "lr.2"):
        checkpoint.save(model, tmp_path / name, {})
    assert sorted(file.name for file in tmp_path.glob("*.json")) == ["lr.1.json", "lr.2.json"]
    assert slotlib.load(tmp_path / "lr.1").config == model.config


@pytest.mark.parametrize("path", ["", ".", "/", "tetrominoes\0"])
def test_no_path_at_all_is_no_checkpoint(path):
    with pytest.raises((FileNotFoundError, ValueError), match=r"no checkpoint|null"):
        slotlib.load(path)


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(FileNotFoundError, match=r"no checkpoint 'tetris'.*tetrominoes"):
        slotlib.load("tetris")


def changed_card(path, **fields):
    """The checkpoint of `tetrominoes` in another place, with other fields of its slot attention."""
    source = zoo.find("tetrominoes")
    shutil.copy(source.with_suffix(".safetensors"), path.with_suffix(".safetensors"))
    card = json.loads(source.with_suffix(".json").read_text())
    card["configuration"]["attention"] |= fields
    path.with_suffix(".json").write_text(json.dumps(card))


@pytest.mark.parametrize("slot_dim", [65, 10**9, 10**15])
def test_a_card_that_asks_for_other_sizes_is_refused_before_they_are_allocated(tmp_path, slot_dim):
    changed_card(tmp_path / "mine", slot_dim=slot_dim)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"do not fit the configuration on their card|larger than any memory"):
        slotlib.load(tmp_path / "mine")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500e3  # kB


@pytest.mark.parametrize(
    "text", ["[" * 5000, '{"sha256": ' + "[" * 5000 + "]" * 5000 + "}", "\0", "[1]", '{"sha256": "", "model": 5}']
)
def test_what_is_no_card_says_so(tmp_path, text):
    changed_card(tmp_path / "mine")
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(ValueError, match=r"mine\.json is not a checkpoint card"):
        slotlib.load(tmp_path / "mine")


def test_weights_that_are_none_say_so(tmp_path):
    changed_card(tmp_path / "mine")
    (tmp_path / "mine.safetensors").write_bytes(b"nothing")
    card = json.loads((tmp_path / "mine.json").read_text())
    (tmp_path / "mine.json").write_text(json.dumps({**card, "sha256": hashlib.sha256(b"nothing").hexdigest()}))
    with pytest.raises(ValueError, match=r"mine\.safetensors holds no tensors"):
        slotlib.load(tmp_path / "mine")


@pytest.mark.parametrize("name", zoo.names())
def test_every_shipped_checkpoint_loads_and_says_where_it_comes_from(name):
    model = slotlib.load(name)
    assert model.card["bytes"] <= 5e6
    assert {"dataset", "training", "metrics", "wall_seconds", "versions", "sha256"} <= model.card.keys()
    assert all({"images", "scenes_seed", "noise_seed"} <= entry.keys() for entry in model.card["metrics"])


@pytest.mark.parametrize("name", ["tetrominoes", "shapes", "multi_dsprites", "clevr6"])
def test_a_shipped_model_does_on_other_scenes_what_its_card_says(name):
    model = zoo.load(name)
    scenes = data.make(model.card["dataset"]["name"], 64, seed=777, **model.card["dataset"]["options"])
    scores = evaluate(model, scenes).means
    promised = model.card["metrics"][0]
    for name in ("drawn_fg_ari", "posterior_fg_ari"):
        assert scores[name] == pytest.approx(promised[name], abs=0.04)
    assert scores["mse"] == pytest.approx(promised["mse"], rel=0.3)


def test_the_shipped_sets_are_on_other_scenes_what_the_card_says():
    model = zoo.load("clevr10_sets")
    scenes = data.make("clevr", 96, seed=777, **model.card["dataset"]["options"])
    scores, promised = evaluate(model, scenes).means, model.card["metrics"][0]
    assert all(scores[name] == pytest.approx(promised[name], abs=0.06) for name in scores)


def test_objects_of_clevr_itself_are_found_by_the_model_that_saw_only_our_likeness(root):
    folder = root.parent / "shared" / "data" / "clevr_sample"
    if not folder.exists():
        pytest.skip(f"needs pictures of CLEVR at {folder}, which are not part of the project")
    scenes = data.read(folder, max_objects=6, crop=clevr.CROP, resolution=(64, 64))
    assert evaluate(zoo.load("clevr6"), scenes).columns["posterior_fg_ari"].mean() > 0.93


@pytest.mark.parametrize("failure", ["tiling", "collapse"])
def test_the_command_under_a_failure_still_makes_it(failure, root):
    """Chapter 03 gives them; the recipe they change goes on changing itself."""
    chapter = json.loads((root / "chapters" / "03_object_discovery.ipynb").read_text("utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in chapter["cells"]).replace("\\\n", "")
    (command,) = re.findall(rf"^slotlib train --config (\w+) --folder runs/{failure} (.*)$", text, re.MULTILINE)
    config, shipped = cli.read_config(command[0], *shlex.split(command[1])), zoo.load(f"tetrominoes_{failure}")
    told = ("steps", "batch_size", "seed", "lr", "warmup_steps", "decay", "clip", "precision")
    assert {name: shipped.card["training"][name] for name in told} == {n: getattr(config.train, n) for n in told}
    assert shipped.card["dataset"]["options"] == config.data.options
    assert config.model == shipped.config
