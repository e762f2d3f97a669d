"""The command line: packaged configurations, flags that override them, one line for each mistake."""

import dataclasses
import json
import subprocess
import sys

import pytest

from slotlib import cli, data, zoo
from slotlib.training import Config


@pytest.mark.parametrize("name", cli.config_names())
def test_packaged_configurations_fit_the_dataclasses(name):
    assert isinstance(cli.read_config(name), Config)


@pytest.mark.parametrize("dataset", ["tetrominoes", "shapes", "multi_dsprites", "clevr6"])
def test_every_dataset_has_two_recipes_and_its_name_alone_means_the_fast_one(dataset):
    fast, paper = cli.read_config(f"{dataset}_fast"), cli.read_config(f"{dataset}_paper")
    assert cli.read_config(dataset) == fast
    assert (paper.model.encoder, paper.model.decoder, paper.train.steps) == ("paper", "broadcast", 500_000)
    assert paper.data.name == fast.data.name and paper.model.num_slots == fast.model.num_slots


def test_the_paper_configuration_is_the_dataclass_default():
    assert cli.read_config("tetrominoes_paper") == Config()


def test_a_flag_overrides_the_file(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(cli.training, "train", lambda config, folder, resume: seen.update(config=config))
    cli.main(
        ["train", "--config", "tetrominoes", f"--folder={tmp_path}", "--model.num_slots", "5", "--train.lr", "1e-3"]
    )
    expected = cli.read_config("tetrominoes")
    expected.model.num_slots, expected.train.lr = 5, 1e-3
    assert seen["config"] == expected


def test_evaluate_scores_scenes_from_files(capsys, tmp_path):
    folder = tmp_path / "scenes"
    cli.main(["data", "export", "tetrominoes", f"--out={folder}", "--format=folder", "--count=16"])
    capsys.readouterr()
    cli.main(["evaluate", "tetrominoes", f"--data={folder}", '--options={"resolution": [35, 35]}'])
    scores = json.loads(capsys.readouterr().out)
    assert scores["fg_ari"] > 0.8 and scores["images"] == 16 and scores["scenes"] == str(folder)
    assert "scenes_seed" not in scores


def test_evaluate_prints_measured_scores(capsys):
    cli.main(["evaluate", "tetrominoes", "--images=32", "--scenes_seed=5", "--restarts=2"])
    scores = json.loads(capsys.readouterr().out)
    assert scores["fg_ari"] > 0.8
    assert (scores["images"], scores["scenes_seed"], scores["restarts"]) == (32, 5, 2)


def test_data_draws_a_contact_sheet(tmp_path):
    sheet = tmp_path / "sheet.png"
    cli.main(["data", "preview", "tetrominoes", f"--out={sheet}", "--count=4", '--options={"num_objects": 2}'])
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_data_counts_what_is_there(capsys):
    cli.main(["data", "stats", "tetrominoes", "--count=70", "--seed=3", '--options={"num_objects": 2}'])
    batch = data.make("tetrominoes", 70, seed=3, num_objects=2).batch(range(70))
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["scenes"] == "70"
    assert lines["image"] == "35×35"
    assert lines["objects per image"] == "2 100.0%"
    assert lines["visible pixels per object"] == "least 100, median 100"
    image = batch["image"].double()
    for title, values in (("mean", image.mean((0, 2, 3))), ("spread", image.std((0, 2, 3), correction=0))):
        assert lines[f"{title} of red, green, blue"] == ", ".join(f"{value:.4f}" for value in values)
    red = (batch["objects"]["colour"] == 0).double().mean()
    assert f"red {red:.1%}" in lines["colour"]
    assert set(lines["shape"]) >= set("IOTSZJL")


@pytest.mark.parametrize("format", ["tfrecord", "hdf5", "folder"])
def test_data_exports_and_reads_back(tmp_path, capsys, format):
    out = tmp_path / ("scenes" + {"tfrecord": ".tfrecords", "hdf5": ".hdf5", "folder": ""}[format])
    cli.main(["data", "export", "shapes", f"--format={format}", f"--out={out}", "--count=6", "--seed=2"])
    cli.main(["data", "stats", "shapes", "--count=6", "--seed=2"])
    generated = capsys.readouterr().out.splitlines()[1:]
    cli.main(["data", "stats", str(out), "--count=100"])
    assert capsys.readouterr().out.splitlines()[:6] == generated[:6]
    cli.main(["data", "preview", str(out), f"--out={tmp_path / 'sheet.png'}"])
    assert (tmp_path / "sheet.png").is_file()


def test_zoo_lists_models_and_prints_cards(capsys):
    cli.main(["zoo"])
    listed = capsys.readouterr().out
    assert all(name in listed for name in zoo.names())
    cli.main(["zoo", "tetrominoes"])
    on_card = json.loads(capsys.readouterr().out)["configuration"]
    assert on_card.items() <= dataclasses.asdict(zoo.load("tetrominoes").config).items()  # cards may be older


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--config", "nonsense", "--folder", "x"], "no configuration 'nonsense'"),
        (["evaluate", "nonsense"], "no checkpoint 'nonsense'"),
        (["data", "preview", "nonsense", "--out", "x.png"], "unknown dataset 'nonsense'"),
        (["data", "preview", "tetrominoes", "--out", "/proc/none/x.png"], "cannot write to the output folder"),
        (["data", "export", "tetrominoes", "--out", "/proc/none/x"], "cannot write to the output folder"),
        (["data", "stats", "tetrominoes", "--count=0"], "count must be at least 1"),
        (["data", "stats", __file__], "not a TFRecords file"),
        (["train", "--folder", "/proc/none"], "cannot write to the output folder"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    with pytest.raises(SystemExit) as error:
        cli.main(arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mistyped_flag_is_named():
    process = subprocess.run(
        [sys.executable, "-m", "slotlib", "train", "--folder=x", "--train.learning_rate=1"],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2
    assert "train.learning_rate" in process.stderr


def test_without_a_command_usage_is_printed(capsys):
    with pytest.raises(SystemExit) as error:
        cli.main([])
    assert error.value.code == 2
    assert "train|sweep|evaluate|data|zoo" in capsys.readouterr().err
