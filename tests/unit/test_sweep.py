"""A sweep finishes what can finish, reports what cannot, repeats nothing and leaves no process behind."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slotlib import cli, sweep, zoo
from slotlib.autoencoder import AutoencoderConfig
from slotlib.sweep import Result, Row, Run, table
from slotlib.training import Config

TINY = [
    "--model.encoder.channels=4",
    "--model.attention.slot_dim=8",
    "--model.attention.mlp_hidden_dim=8",
    "--model.decoder.channels=8",
    "--train.steps=4",
    "--train.batch_size=2",
    "--train.eval_images=4",
    "--train.warmup_steps=0",
    "--train.accelerator=cpu",
]


def test_a_sweep_finishes_reports_failures_and_goes_on_where_it_stopped(tmp_path, capsys):
    asked = ["sweep", "--config=tetrominoes", f"--folder={tmp_path}", "--seeds=3", "--vary=train.lr=1e-3,1e30", *TINY]
    with pytest.raises(SystemExit, match="slotlib: 1 of 2 runs failed"):
        cli.main(asked)
    good, bad = tmp_path / "train.lr=1e-3_train.seed=3", tmp_path / "train.lr=1e30_train.seed=3"
    card = zoo.load(good / "model").card
    assert (card["training"]["lr"], card["training"]["seed"], card["training"]["steps"]) == (1e-3, 3, 4)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["train.lr", "median", "least", "most", "|", "seed", "3"]
    score = f"{card['metrics'][0]['drawn_fg_ari']:.4f}"
    assert lines[1].split() == ["1e-3", score, score, score, "|", score]
    assert lines[2].split() == ["1e30", "failed", "failed", "failed", "|", "failed"]
    assert "failed: train.lr=1e30_train.seed=3: slotlib: step 2: inputs must be finite" in lines[3]

    rows = list(csv.DictReader((tmp_path / "sweep.csv").open()))
    assert [row["folder"] for row in rows] == [good.name, bad.name]
    assert float(rows[0]["drawn_fg_ari"]) == card["metrics"][0]["drawn_fg_ari"]
    assert rows[1]["drawn_fg_ari"] == ""
    assert "exit status 1" in rows[1]["error"]
    written = json.loads((tmp_path / "sweep.json").read_text())
    assert [row["failed"] for row in written["table"]] == [0, 1]

    # Again, without the failing value: the finished run is taken as it is.
    before = (good / "model.json").stat().st_mtime_ns
    cli.main([flag if not flag.startswith("--vary") else "--vary=train.lr=1e-3" for flag in asked])
    assert (good / "model.json").stat().st_mtime_ns == before
    cli.main([*asked, "--vary=train.lr=1e-3", "--train.log_every=7"])  # which changes no run
    for other, named in (
        ("--train.clip=0.5", "train.clip was 0.05, is 0.5"),
        ("--train.stop_at=2", "train.stop_at was 0"),
    ):
        with pytest.raises(SystemExit, match=f"holds a run of another configuration.*{named}"):
            cli.main([*asked, other])


def test_a_run_whose_model_remembers_another_configuration_is_known_again(tmp_path, monkeypatch):
    """A `CodePrior` takes its autoencoder into its configuration; what was asked for is with the state of the run."""
    config = cli.read_config("patches_prior", "--model.autoencoder=there")
    (tmp_path / "step_00000001.json").write_text(json.dumps({"configuration": config.plain()}))
    card = {"configuration": {"autoencoder": {}}, "metrics": [{"nats": 1.5}], "wall_seconds": 2}
    (tmp_path / "model.json").write_text(json.dumps(card))
    monkeypatch.setattr(sweep, "_start", None)
    (result,) = sweep.sweep([Run(tmp_path, "", 0, config, [])])
    assert result.metrics == {"nats": 1.5, "wall_seconds": 2} and not result.error


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_ending_a_sweep_ends_its_runs(tmp_path):
    command = [sys.executable, "-m", "slotlib", "sweep", "--config=tetrominoes", f"--folder={tmp_path}", *TINY]
    process = subprocess.Popen(
        [*command, "--jobs=1", "--seeds=0,1", "--train.steps=1000000", "--train.log_every=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    log = tmp_path / "train.seed=0" / "log.csv"
    deadline = time.time() + 60
    while not (log.exists() and log.read_text().count("\n") > 1) and time.time() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)  # from here on as with Ctrl-C
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    assert output.rstrip().endswith("slotlib: interrupted")
    assert not (tmp_path / "train.seed=1").exists()
    written = log.stat().st_size
    time.sleep(0.3)
    assert log.stat().st_size == written


def results(value, *scores):
    return [
        Result(
            f"r{seed}", value, seed, {} if score is None else {"drawn_fg_ari": score}, "" if score else "out of luck"
        )
        for seed, score in enumerate(scores)
    ]


def test_the_table_keeps_every_seed_and_counts_failures():
    rows = table([*results("a", 0.9, 0.5, None, 0.7), *results("b", None)], "drawn_fg_ari")
    assert rows == [
        Row("a", 0.7, 0.5, 0.9, {0: 0.9, 1: 0.5, 2: None, 3: 0.7}, 1),
        Row("b", None, None, None, {0: None}, 1),
    ]


def test_no_more_runs_at_a_time_than_jobs(tmp_path, monkeypatch):
    alive, most = set(), 0

    class Process:
        returncode = 3

        def __init__(self):
            alive.add(self)
            self.looks = 0

        def poll(self):
            nonlocal most
            most = max(most, len(alive))
            self.looks += 1
            if self.looks < 3:
                return None
            alive.discard(self)
            return 3

    def start(run):
        run.folder.mkdir()
        (run.folder / "output.txt").write_text("first\nthe reason\n\n")
        return Process()

    monkeypatch.setattr(sweep, "_start", start)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    runs = [Run(tmp_path / str(seed), "", seed, Config(AutoencoderConfig()), []) for seed in range(7)]
    ended = sweep.sweep(runs, jobs=3)
    assert most == 3
    assert [result.seed for result in ended] == list(range(7))
    assert {result.error for result in ended} == {"the reason (exit status 3)"}


def test_by_default_there_are_as_many_jobs_as_cores():
    assert 1 <= sweep.cores() <= os.cpu_count()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--vary=train.lr"], "expected FIELD=VALUE"),
        (["--seeds=one"], "expected a whole number"),
        (["--vary=train.learning_rate=1"], "train has no field 'learning_rate'"),
        (["--train.stepz=3"], "train has no field 'stepz'"),
        (["--config=nonsense"], "no configuration 'nonsense'"),
    ],
)
def test_a_mistake_ends_the_sweep_before_it_begins(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as error:
        cli.main(["sweep", "--config=tetrominoes", f"--folder={tmp_path / 's'}", *flags])
    assert error.value.code == 2
    assert message in capsys.readouterr().err
    assert not Path(tmp_path / "s").exists()


def test_no_runs_are_an_error():
    with pytest.raises(ValueError, match="at least one run"):
        sweep.sweep([])
