"""The speedrun times what it says it times, forgets no seed, and measures nothing twice."""

import importlib.util
import json
import math
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from benchmarks import speedrun
from benchmarks.speedrun import (
    LEVELS,
    PeerAutoencoder,
    PeerConfig,
    Run,
    measure,
    missing,
    report,
    seconds_to,
    time_cell,
)
from slotlib import training
from slotlib.autoencoder import AutoencoderConfig, SlotAutoencoder
from slotlib.data.light import Light
from slotlib.decoders import Broadcast
from slotlib.encoders import Paper
from slotlib.log import read_log
from slotlib.model import Draws
from slotlib.slot_attention import AttentionConfig

TINY = """
model:
  class_path: SlotAutoencoder
  init_args:
    encoder: {class_path: Strided, init_args: {channels: 8}}
    attention: {slot_dim: 8, mlp_hidden_dim: 8, num_iterations: 1}
    decoder: {class_path: Separable, init_args: {channels: 8, rank: 2, colour: slot}}
    likelihood: {class_path: Mixture}
data: {name: tetrominoes}
train: {steps: 13, batch_size: 2, log_every: 100, save_every: 1000}
"""


SMALL = 35, Paper(8), AttentionConfig(slot_dim=8, num_iterations=2), Broadcast(4)


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return Run("recipe", str(path), 1, 0, minutes=5)


@pytest.fixture
def often(monkeypatch):
    """Evaluations every ten steps, of two batches."""
    monkeypatch.setitem(speedrun.EVERY, "recipe", 10)
    monkeypatch.setattr(speedrun, "IMAGES", 128)


def result(*scores, seed=0, minutes=20, ended="capped", contestant="recipe", cores=1, every=60):
    """A run with an evaluation each minute."""
    seconds = [every * (i + 1) for i in range(len(scores))]
    return {
        "contestant": contestant,
        "config": "tetrominoes" if contestant == "recipe" else "tetrominoes_paper",
        "configuration": {},
        "cores": cores,
        "seed": seed,
        "minutes": minutes,
        "steps": 9000,
        "ended": ended,
        "error": "",
        "cpu_seconds": seconds[-1],
        "curve": {
            "step": [100 * (i + 1) for i in range(len(scores))],
            "seconds": seconds,
            "drawn_fg_ari": list(scores),
        },
        "beside_another": False,
        "peer": "slot-attention 1.5.2" if contestant == "pypi" else "",
        "machine": {"processor": "some", "threads": str(cores)},
    }


# --- levels and the table ---------------------------------------------------------------------


def test_a_level_is_reached_at_the_first_evaluation_at_or_above_it():
    run = result(0.5, 0.9, 0.85, 0.96)
    assert [seconds_to(run, level) for level in LEVELS] == [120, 240, None]


def test_a_level_is_of_the_posterior_where_there_is_one():
    run = result(0.5, 0.8)
    run["curve"]["posterior_fg_ari"] = [0.7, 0.9]
    assert seconds_to(run, 0.90) == 120
    (heading, row) = report({"run": run})["tables"][1]
    assert dict(zip(heading, row, strict=True))["FG-ARI at the end, drawn"] == "0.800"
    assert dict(zip(heading, row, strict=True))["posterior"] == "0.900"


def test_what_comes_after_the_cap_does_not_count():
    run = result(0.5, 0.6, 0.92, minutes=2.5)
    assert seconds_to(run, 0.90) is None
    assert seconds_to({**run, "minutes": 3}, 0.90) == 180


@pytest.mark.parametrize(
    ("scores", "ended", "text"),
    [
        ([[0.9], [0.1, 0.9], [0.1, 0.1, 0.9]], "capped", "120 (60–180) s"),
        ([[0.1], [0.2], [0.3]], "capped", "not within 20 min"),
        ([[0.1], [0.2], [0.3]], "finished", "not within its 9,000 steps"),
        ([[0.1], [0.2]], "failed", "training failed"),
        ([[0.9], [0.1, 0.9], [0.1]], "capped", "120 (60–) s; not within 20 min: 1 of 3"),
        ([[0.9], [0.1, 0.1], [0.1]], "capped", "no median (60–) s; not within 20 min: 2 of 3"),
        ([[0.9]], "reached", "60 s"),
    ],
)
def test_seeds_that_do_not_arrive_are_told(scores, ended, text):
    assert time_cell([result(*each, ended=ended) for each in scores], 0.90) == text


def test_a_goal_is_met_by_the_median():
    # 0.90 after 20, 30 and 60 s; 0.95 after 60 s, once.
    runs = [result(0.9, every=20), result(0.1, 0.9, every=15), result(0.1, 0.1, 0.97, every=20)]
    goals = report(dict(enumerate(runs)))["notes"][0]
    assert goals.endswith("0.90 in 30 s (met), 0.95 in 80 s (not met), 0.99 in 540 s (not met).")


def test_the_report_has_a_row_for_each_contestant_and_number_of_cores():
    runs = [result(0.9, 0.99, seed=s, ended="reached") for s in range(3)]
    runs += [result(0.1, contestant="pypi", cores=2), result(0.1, contestant="paper"), result(0.9, 0.99, cores=2)]
    shown = report({str(i): run for i, run in enumerate(runs)})
    for heading, *rows in shown["tables"]:
        assert len(rows) == 4
        assert {len(row) for row in rows} == {len(heading)}
    (_, *times), (_, *ends) = shown["tables"]
    assert [(row[0], row[1], row[2]) for row in times] == [
        ("recipe, 9,000 steps", "1", "3"),
        ("recipe, 9,000 steps", "2", "1"),
        ("the paper's model", "1", "1"),
        ("the paper's model on PyPI slot-attention 1.5.2", "2", "1"),
    ]
    assert times[0][3:] == ["60 s", "120 s", "120 s"]
    assert ends[0][2:] == ["60 s", "0.990", "–", "200", "90 min"]  # 9000 steps, 100 a minute
    assert shown["notes"][1:] == ["All runs: processor some."]


def test_goals_are_for_the_fastest_schedule():
    runs = [result(0.9, 0.93, every=30), result(0.1, 0.1, 0.96, every=20) | {"steps": 20_000}]
    goals = report(dict(enumerate(runs)))["notes"][0]
    assert goals.endswith("0.90 in 30 s (met), 0.95 in 80 s (met), 0.99 in 540 s (not met).")
    assert len(report(dict(enumerate(runs)))["tables"][0]) == 3  # a row for each


def test_a_shorter_schedule_differs_in_its_length():
    own, short = (speedrun.configuration("recipe", "tetrominoes", 0, steps) for steps in (0, 1000))
    assert short.train.steps == 1000
    assert training.differences(own.plain(), short.plain()).keys() == {"train.steps"}
    assert speedrun.configuration("recipe", "tetrominoes", 0, own.train.steps).train == own.train


def test_a_schedule_may_differ_in_more_than_its_length():
    own, middle = (speedrun.configuration("recipe", "tetrominoes", 0, steps) for steps in (0, 2000))
    assert (middle.train.steps, middle.model.attention.gradient_steps) == (2000, 3)
    assert own.data.light != middle.data.light == Light()
    assert middle.model.decoder == own.model.decoder
    for steps in speedrun.SCHEDULES:  # each flag is one that the recipe has
        speedrun.configuration("recipe", "tetrominoes", 0, steps)


def test_schedules_of_other_lengths_have_results_of_their_own():
    assert Run("recipe", "tetrominoes", 1, 0, 5, 1000).key != Run("recipe", "tetrominoes", 1, 0, 5).key


def test_the_figure_shows_every_seed_and_every_level():
    runs = {str(s): result(*[0.9] * s, 0.96, 0.96, seed=s) for s in range(5)}
    figure = speedrun.draw(runs)
    dots = [
        line for line in figure.axes[0].lines if line.get_marker() in ("o", "s", "D", ">") and len(line.get_xdata())
    ]
    assert len(dots) == 5 * len(LEVELS)
    assert sum(line.get_marker() == ">" for line in dots) == 5  # nobody got to 0.99


# --- the clock --------------------------------------------------------------------------------


def judging(value, seconds=0.0):
    """Stands for a model's `judge`."""

    def judge(model, scenes, draws=None, **how):
        time.sleep(seconds if len(scenes["image"]) > 1 else 0)
        return dict.fromkeys(("drawn_fg_ari", "mse"), torch.full(scenes["image"].shape[:1], value))

    return judge


def test_everything_counts_but_evaluation(tiny, often, tmp_path, monkeypatch):
    monkeypatch.setattr(SlotAutoencoder, "judge", judging(0.5, seconds=0.5))  # two batches of 64
    before = time.monotonic()
    record = measure(tiny, before - 100, tmp_path / "run")
    passed = time.monotonic() - before
    assert record["ended"] == "finished"
    assert record["curve"]["step"] == [10, 13]
    assert record["curve"]["drawn_fg_ari"] == [0.5] * 2
    end = record["curve"]["seconds"][-1]
    assert 100 < end <= 100 + passed - 1  # one evaluation lies before the last one


@pytest.mark.parametrize(("score", "minutes", "ended"), [(0.99, 5, "reached"), (0.5, 1e-9, "capped")])
def test_a_decided_run_stops(tiny, often, tmp_path, monkeypatch, score, minutes, ended):
    monkeypatch.setattr(SlotAutoencoder, "judge", judging(score))
    run = Run(tiny.contestant, tiny.config, 1, 0, minutes)
    record = measure(run, time.monotonic(), tmp_path / "run")
    assert (record["ended"], record["curve"]["step"]) == (ended, [10])


# --- the peer ---------------------------------------------------------------------------------


@pytest.mark.parametrize("contestant", ["recipe", "pypi"])
def test_each_contestant_trains_its_own_model(contestant, tiny, tmp_path, monkeypatch):
    built = []
    init = PeerAutoencoder.__init__
    monkeypatch.setattr(PeerAutoencoder, "__init__", lambda self, config: built.append(self) or init(self, config))
    monkeypatch.setattr(SlotAutoencoder, "judge", judging(0.5))
    monkeypatch.setitem(speedrun.EVERY, contestant, 5)
    measure(Run(contestant, tiny.config, 1, 0, minutes=1e-9), time.monotonic(), tmp_path / "run")
    assert len(built) == (contestant == "pypi")


def test_the_peer_stands_where_our_slot_attention_stood():
    torch.manual_seed(0)
    ours = SlotAutoencoder(AutoencoderConfig(*SMALL))
    torch.manual_seed(0)
    model = PeerAutoencoder(PeerConfig(*SMALL))
    for part in ("encoder", "decoder"):
        pairs = zip(getattr(ours, part).parameters(), getattr(model, part).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)

    images = torch.rand(2, 3, 35, 35)
    output = model(images)
    assert output.reconstruction.shape == (2, 3, 35, 35)
    assert output.masks.shape == (2, 4, 35, 35)
    assert output.slots.shape == (2, 4, 8)
    assert output.attention.shape == (2, 4, 35, 35)
    assert model(images, num_slots=6).masks.shape == (2, 6, 35, 35)
    torch.testing.assert_close(output.masks.sum(1), torch.ones(2, 35, 35))

    model.loss(images, Draws(torch.Generator().manual_seed(0))).backward()
    assert all(weight.grad.abs().sum() > 0 for weight in model.slot_attention.parameters() if weight.ndim == 2)


def test_the_peer_computes_what_its_package_computes():
    peer, inputs = PeerAutoencoder(PeerConfig(*SMALL)).slot_attention, torch.randn(2, 9, 8)
    assert type(peer.module).__module__ == "slot_attention.slot_attention"
    torch.manual_seed(1)
    slots = peer(inputs).slots
    torch.manual_seed(1)
    assert torch.equal(slots, peer.module(inputs))


# --- resuming ---------------------------------------------------------------------------------


def test_only_what_is_missing_is_measured():
    runs = [Run("recipe", "tetrominoes", 1, seed, 20) for seed in range(5)]
    stored = {
        runs[0].key: result(0.99, ended="reached", minutes=5),
        runs[1].key: result(0.5, ended="capped", minutes=5),
        runs[2].key: result(0.5, ended="capped", minutes=20),
        runs[3].key: result(math.nan, ended="failed"),
    }
    assert missing(runs, stored) == [runs[1], runs[4]]  # a longer cap may change what was capped, and nothing else


@pytest.fixture
def fake(monkeypatch):
    """Processes that train nothing. Seeds in `fake.bad` break down; `fake.started` are the runs begun."""
    told = SimpleNamespace(started=[], bad=set(), most=0, alive=[])

    def start(run, on, folder):
        told.started.append(run)
        assert len(on) == run.cores
        told.alive = [(other, process) for other, process in told.alive if process.poll() is None]
        assert run.cores == 1 or not told.alive
        assert all(other.cores == 1 for other, _ in told.alive)
        (folder / "output.txt").write_text("no luck\n")
        record = result(0.1, 0.99, ended="reached", cores=run.cores, seed=run.seed)
        code = f"import time, sys; open({str(folder / 'result.json')!r}, 'w').write({json.dumps(record)!r}); "
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", code + f"time.sleep(0.3); sys.exit({int(run.seed in told.bad)})"]
        )
        told.alive.append((run, process))
        told.most = max(told.most, len(told.alive))
        return process

    monkeypatch.setattr(speedrun, "start", start)
    monkeypatch.setattr(speedrun, "cores", lambda: 2)
    monkeypatch.setattr(speedrun.os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    return told


def test_a_run_that_broke_down_is_told_and_tried_again(fake, tmp_path, capsys):
    results = tmp_path / "speedrun.json"
    flags = ["--contestants=recipe", "--schedules=0", "--cores=1", "--seeds=0,1", f"--results={results}"]
    fake.bad = {1}
    with pytest.raises(SystemExit, match="seed 1: no luck"):
        speedrun.main(flags)
    assert [run["seed"] for run in speedrun.read(results).values()] == [0]
    fake.bad = set()
    speedrun.main(flags)
    assert [run.seed for run in fake.started] == [0, 1, 1]
    assert len(speedrun.read(results)) == 2
    speedrun.main(flags)
    assert len(fake.started) == 3
    assert "2 of 2 runs are there already" in capsys.readouterr().out
    assert results.with_suffix(".png").exists()


def test_one_core_runs_go_side_by_side_and_others_alone(fake, tmp_path):
    results = tmp_path / "speedrun.json"
    speedrun.main(["--contestants=recipe", "--schedules=0", "--seeds=0,1,2", "--jobs=2", f"--results={results}"])
    assert len(fake.started) == 6  # what may not run together is checked as each starts
    assert fake.most == 2
    beside = [run["beside_another"] for run in speedrun.read(results).values()]  # in the order of their names
    assert (beside[:2], beside[3:]) == ([True, True], [False] * 3)


def test_results_of_another_machine_are_pointed_out(fake, tmp_path, capsys):
    results = tmp_path / "speedrun.json"
    flags = ["--contestants=recipe", "--schedules=0", "--cores=1", "--seeds=0", f"--results={results}"]
    speedrun.main(flags)
    stored = speedrun.read(results)
    (run,) = stored.values()
    run["machine"]["processor"] = "abacus"
    run |= {"config": "tetrominoes_paper", "configuration": {"train": {"lr": 1.0, "batch_size": 64}}}
    speedrun.write(results, stored)
    capsys.readouterr()
    speedrun.main(flags)
    out = capsys.readouterr().out
    assert "seed 0 is from another machine: processor abacus" in out
    assert "seed 0 was measured with another tetrominoes_paper.yaml: " in out and "train.lr" in out


def test_a_process_of_its_own_measures_a_run(tiny, tmp_path):
    flags = ["--contestants=recipe", "--schedules=0", "--cores=1", "--seeds=3", "--minutes=0.01"]
    flags.append(f"--recipe={tiny.config}")
    speedrun.main([*flags, f"--results={tmp_path / 'speedrun.json'}"])
    (record,) = speedrun.read(tmp_path / "speedrun.json").values()
    assert (record["config"], record["seed"], record["ended"]) == ("tiny", 3, "capped")
    assert record["curve"]["seconds"][0] > 0.5  # the process had to start, and that counts
    assert record["machine"]["threads"] == "1"
    assert record["configuration"]["train"]["batch_size"] == 2

    # Training, scenes and scores are those of `slotlib train`, at the last of the 13 steps, the first to be evaluated.
    flags = "--train.accelerator=cpu", "--train.seed=3"
    training.train(speedrun.cli.read_config(tiny.config, *flags), tmp_path / "plain", progress=False)
    log = read_log(tmp_path / "plain")
    assert record["curve"]["step"] == [13] == log["step"]
    for name in ("drawn_fg_ari", "posterior_fg_ari"):
        assert record["curve"][name][0] == pytest.approx(log[name][-1], abs=1e-4)


# --- the page ---------------------------------------------------------------------------------


def test_the_page_shows_whatever_there_is(root, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(root / "book/ext")
    spec = importlib.util.spec_from_file_location("slotbook", root / "book/ext/slotbook.py")
    slotbook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(slotbook)
    monkeypatch.setattr(slotbook, "ROOT", tmp_path)
    (tmp_path / "benchmarks").mkdir()
    results, picture = tmp_path / "benchmarks/speedrun.json", tmp_path / "book/assets/benchmarks/speedrun.png"

    def page():
        config = SimpleNamespace(myst_substitutions={"other": "kept"})
        slotbook.offer_speedrun(None, config)
        assert config.myst_substitutions["other"] == "kept"
        return config.myst_substitutions["speedrun"]

    assert page() == "*Not measured yet.*"
    speedrun.write(results, {})
    assert page() == "*Not measured yet.*"
    speedrun.write(results, {"a": result(0.1, 0.9), "b": result(0.1, contestant="paper")})
    rows = [line for line in page().splitlines() if line.startswith("|")]
    assert len(rows) == 8  # two tables: heading, rule, two rows
    assert "figure" not in page()
    picture.parent.mkdir(parents=True)
    picture.touch()
    assert "{figure} assets/benchmarks/speedrun.png" in page()
    assert ":alt: Seconds to each level. recipe, 9,000 steps on 1 core, 0.90: 120 s" in page()


def test_the_page_has_a_place_for_it(root):
    assert "{{ speedrun }}" in (root / "book/benchmarks.md").read_text("utf-8")
