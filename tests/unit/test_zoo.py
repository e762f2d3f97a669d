"""Shipped models are found by their names, and do what their cards say."""

import json
import re
import shutil
from dataclasses import replace

import pytest

import slotlib
from slotlib import cli, data, zoo
from slotlib.data import clevr
from slotlib.evaluation import evaluate
from slotlib.model import Ramp


@pytest.mark.parametrize("ending", ["", ".json", ".safetensors"])
def test_a_model_is_found_by_its_path_with_any_ending(tmp_path, ending):
    for part in ("json", "safetensors"):
        shutil.copy(zoo.find("tetrominoes").with_suffix(f".{part}"), tmp_path / f"mine.{part}")
    assert slotlib.load(f"{tmp_path / 'mine'}{ending}").card == zoo.load("tetrominoes").card


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(FileNotFoundError, match=r"no checkpoint 'tetris'.*tetrominoes"):
        slotlib.load("tetris")


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
    assert scores["fg_ari"] == pytest.approx(promised["fg_ari"], abs=0.04)
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
    assert evaluate(zoo.load("clevr6"), scenes).columns["fg_ari"].mean() > 0.93


@pytest.mark.parametrize("failure", ["tiling", "collapse"])
def test_the_command_under_a_failure_still_makes_it(failure, root):
    """Chapter 03 gives them; the recipe they change goes on changing itself."""
    chapter = json.loads((root / "chapters" / "03_object_discovery.ipynb").read_text("utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in chapter["cells"]).replace("\\\n", "")
    (command,) = re.findall(rf"^slotlib train --config (\w+) --folder runs/{failure} (.*)$", text, re.MULTILINE)
    config, shipped = cli.read_config(command[0], *command[1].split()), zoo.load(f"tetrominoes_{failure}")
    attention, training = config.model.attention, shipped.card["training"]
    told = ("steps", "batch_size", "seed", "lr", "warmup_steps", "decay", "clip", "precision")
    assert {name: training[name] for name in told} == {name: getattr(config.train, name) for name in told}

    # Schedules were fields of training.
    if attention.gradient != "unrolled":
        assert part_at(attention.gradient_steps, 1) == pytest.approx(training["one_step_until"] / training["steps"])
        assert end(attention.gradient_steps) == shipped.config.attention.gradient_steps
    if config.model.decoder.colour == "shaded":
        assert part_at(config.model.decoder.shading, 0) == min(1, training["one_colour_until"] / training["steps"])
    attention = replace(attention, gradient_steps=shipped.config.attention.gradient_steps)
    decoder = replace(config.model.decoder, shading=shipped.config.decoder.shading)
    assert replace(config.model, attention=attention, decoder=decoder) == shipped.config


def part_at(value, start):
    """The part of the schedule in which a number is at its start."""
    return value.after if isinstance(value, Ramp) else float(value == start)


def end(value):
    return value.end if isinstance(value, Ramp) else value
