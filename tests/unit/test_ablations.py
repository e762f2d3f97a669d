"""A lever that changes nothing, or two things, would be read as a result."""

import json
from pathlib import Path

import pytest

from benchmarks import ablations, baselines, svq_ablations
from slotlib import training
from slotlib.autoencoder import SlotAutoencoder
from slotlib.cli import read_config
from slotlib.encoders import Paper, Strided

STUDIES = ablations.STUDIES | svq_ablations.STUDIES
LEVERS = [
    (dataset, lever)
    for dataset, study in STUDIES.items()
    for lever, flags in study.levers.items()
    if not any(flag.startswith("--config") for flag in flags)  # another model has other fields
]


@pytest.mark.parametrize(("dataset", "lever"), LEVERS)
def test_a_lever_changes_what_it_names_and_nothing_else(dataset, lever):
    study = STUDIES[dataset]
    recipe, changed = (
        ablations.planned(dataset, lever, f"{dataset}_{study.recipe}", flags, 1, Path("runs"))[0].config.plain()
        for flags in (study.budget, [*study.budget, *study.levers[lever]])
    )
    named = {flag.removeprefix("--").partition("=")[0] for flag in study.levers[lever]}
    moved = {name.replace(".init_args", "") for name in training.differences(recipe, changed)}
    assert all(any(name.startswith(flag) for flag in named) for name in moved)
    assert all(any(name.startswith(flag) for name in moved) for flag in named)


def test_runs_of_one_lever_differ_in_their_seed_only():
    runs = ablations.planned("tetrominoes", ablations.RECIPE, "tetrominoes_fast", [], 3, Path("runs"))
    for run in runs[1:]:
        assert training.differences(runs[0].config.plain(), run.config.plain()).keys() == {"train.seed"}
    assert len({run.folder for run in runs}) == 3


@pytest.mark.parametrize("dataset", baselines.DATASETS)
@pytest.mark.parametrize("contestant", ["one_slot", "slot_mlp", "paper"])
def test_a_baseline_keeps_the_schedule_of_its_family(dataset, contestant):
    family = "paper" if contestant == "paper" else "first"
    config = read_config(f"{dataset}_{family}", *baselines.flags(contestant, 3.0))
    same = read_config(f"{dataset}_{family}")
    assert (config.train.lr, config.train.batch_size, config.data) == (
        same.train.lr,
        same.train.batch_size,
        same.data,
    )
    assert config.model.attention.num_slots == (1 if contestant == "one_slot" else same.model.attention.num_slots)
    assert config.train.minutes == (3.0 if contestant == "paper" else 0.0)


@pytest.mark.parametrize("contestant", ["one_slot", "slot_mlp", "paper"])
def test_a_baseline_is_the_model_it_is_named_for(contestant, tmp_path, monkeypatch):
    short = ["--train.steps=2", "--train.batch_size=2", "--train.eval_images=2", "--model.resolution=64"]
    shape = [flag for flag in baselines.flags(contestant, 3.0) if flag.startswith("--model")]
    monkeypatch.setattr(baselines, "flags", lambda *unused: short + shape)
    for _ in range(2):  # trained, then found
        model = baselines.trained("multi_dsprites", contestant, 3.0, tmp_path)
        assert type(model) is (baselines.MLPAutoencoder if contestant == "slot_mlp" else SlotAutoencoder)
        assert model.config.attention.num_slots == (1 if contestant == "one_slot" else 6)
        assert type(model.config.encoder) is (Paper if contestant == "paper" else Strided)


def test_no_baseline_is_missing():
    rows = json.loads(baselines.RESULTS.read_text("utf-8"))["rows"]
    everything = {f"{dataset} {contestant}" for dataset in baselines.DATASETS for contestant in baselines.CONTESTANTS}
    assert set(rows) == everything
