"""The loop learns, follows its schedule, and does not care whether it was interrupted or on how many devices it ran."""

import dataclasses
import functools
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from slotlib import data, training, zoo
from slotlib.autoencoder import AutoencoderConfig, SlotAutoencoder, compose
from slotlib.data.export import export
from slotlib.training import Config, TrainConfig, learning_rate, read_log, scene_order, schedule_position

SMALL = AutoencoderConfig(
    encoder="strided",
    encoder_channels=8,
    slot_dim=16,
    mlp_hidden_dim=16,
    decoder="separable",
    decoder_channels=16,
    colour="slot",
)
SHORT = TrainConfig(
    steps=24,
    batch_size=8,
    lr=4e-3,
    warmup_steps=5,
    decay="cosine",
    one_step_until=12,
    clip=1.0,
    eval_every=12,
    eval_images=16,
    log_every=6,
    save_every=6,
    accelerator="cpu",
)
FLAGS = [f"--model.{k}={v}" for k, v in dataclasses.asdict(SMALL).items()] + [
    f"--train.{k}={v}" for k, v in dataclasses.asdict(SHORT).items()
]


def run(folder, *flags):
    command = [sys.executable, "-m", "slotlib", "train", f"--folder={folder}", *FLAGS, *flags]
    process = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.returncode == 0, process.stderr


def train(folder, model=SMALL, **changes):
    return training.train(
        Config(model=model, train=dataclasses.replace(SHORT, **changes)), folder, progress=False
    ).state_dict()


def weights(folder):
    return zoo.load(folder / "model").state_dict()


def same(a, b, tolerance=0.0):
    return all(torch.allclose(a[name], b[name], rtol=0, atol=tolerance) for name in a)


def same_steps(folder, other):
    """Losses of all logged steps agree to float tolerance. Weights agree less well: where a gradient is zero but for
    rounding, Adam scales the rounding up."""
    losses = read_log(folder)["loss"], read_log(other)["loss"]
    return np.allclose(*losses, rtol=1e-5, atol=0) and same(weights(folder), weights(other), tolerance=5e-3)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    training.train(Config(model=SMALL, train=SHORT), folder, progress=False)
    return folder


def test_warmup_and_decay_are_the_official_ones():
    paper = TrainConfig()
    assert learning_rate(0, paper) == pytest.approx(4e-4 / 10_000)
    assert learning_rate(9_999, paper) == pytest.approx(4e-4 * 0.5 ** (9_999 / 100_000))
    assert learning_rate(200_000, paper) == pytest.approx(1e-4)
    cosine = TrainConfig(decay="cosine", steps=1000, warmup_steps=10)
    assert learning_rate(500, cosine) == pytest.approx(2e-4)
    assert learning_rate(999, cosine) < 1e-8
    assert learning_rate(777, TrainConfig(decay="constant", warmup_steps=0)) == 4e-4


def test_the_schedule_follows_the_budget():
    by_steps, by_minutes = TrainConfig(steps=9000), TrainConfig(steps=9000, minutes=60)
    assert schedule_position(1234, 1e6, by_steps) == 1234
    assert schedule_position(17, 20 * 60, by_minutes) == 3000
    assert schedule_position(17, 60 * 60, by_minutes) == 9000
    cosine = TrainConfig(steps=9000, minutes=60, decay="cosine", warmup_steps=900)
    assert learning_rate(schedule_position(3, 30 * 60, cosine), cosine) == pytest.approx(2e-4)
    assert learning_rate(schedule_position(3, 3 * 60, cosine), cosine) == pytest.approx(2e-4, rel=0.02)  # warming up


def test_a_run_may_stop_where_a_longer_one_passes_through(tmp_path):
    longer = dict(log_every=3, eval_every=100)
    stopped = train(tmp_path / "stopped", stop_at=9, **longer)
    log = read_log(tmp_path / "stopped")
    assert log["step"][-1] == 9
    train(tmp_path / "whole", **longer)
    whole = read_log(tmp_path / "whole")
    for name in ("loss", "lr"):
        assert log[name].tolist() == whole[name][: len(log[name])].tolist()
    again = train(tmp_path / "stopped", stop_at=9, **longer)
    assert all(torch.equal(stopped[name], again[name]) for name in stopped)
    with pytest.raises(ValueError, match=r"train\.stop_at must lie in 0\.\.24"):
        train(tmp_path / "late", stop_at=25)


def test_a_budget_in_minutes_ends_in_time(tmp_path):
    started = time.perf_counter()
    train(tmp_path, minutes=0.02, steps=9000, warmup_steps=0, log_every=1, eval_every=40, save_every=1)
    assert 1.2 < time.perf_counter() - started < 1.2 + 60
    log = read_log(tmp_path)
    assert (log["seconds"][:-1] < 1.2).all()
    assert log["seconds"][-1] >= 1.2
    assert len(log["step"]) < 9000
    # Started again, a finished run has nothing left to do.
    steps = len(log["step"])
    train(tmp_path, minutes=0.02, steps=9000, warmup_steps=0, log_every=1, eval_every=40, save_every=1)
    assert len(read_log(tmp_path)["step"]) == steps


def test_a_budget_in_minutes_goes_through_the_whole_schedule(tmp_path, monkeypatch):
    # By a clock that goes a hundredth of a second at each look, so that no slow moment of the machine counts.
    clock = itertools.count()
    monkeypatch.setattr(training.time, "perf_counter", lambda: next(clock) / 100)
    train(tmp_path, minutes=0.01, steps=9000, warmup_steps=0, log_every=1, eval_every=10**6, save_every=10**6)
    log = read_log(tmp_path)
    assert log["lr"][0] == pytest.approx(4e-3, rel=1e-2)
    assert (np.diff(log["lr"]) < 0).all()
    assert log["lr"][len(log["lr"]) // 2] == pytest.approx(2e-3, rel=0.1)
    assert log["lr"][-1] < 1e-5


def test_noise_falls_and_the_price_of_slots_rises_along_the_schedule():
    model = SlotAutoencoder(dataclasses.replace(SMALL, likelihood="mixture", noise=0.1, parsimony=0.3))
    options = TrainConfig(steps=100, noise_start=0.5, parsimony_from=10)
    seen = []
    for position in (0, 10, 15, 20, 50, 100, 101.5):
        training._switch(model, position, options)
        seen.append((model.noise, model.parsimony))
    noise, parsimony = zip(*seen, strict=True)
    assert noise[0] == pytest.approx(0.5) and noise[4] == pytest.approx(0.3) and noise[5] == noise[6] == 0.1
    assert list(noise) == sorted(noise, reverse=True)
    assert parsimony == pytest.approx((0, 0, 0.15, 0.3, 0.3, 0.3, 0.3))
    training._switch(model, 0, dataclasses.replace(options, noise_start=0.0, parsimony_from=0))
    assert model.noise == 0.1  # no other start asked for


def test_a_mixture_learns_and_ends_with_the_noise_of_its_configuration(tmp_path):
    config = dataclasses.replace(SMALL, likelihood="mixture", parsimony=0.05, noise=0.2, train_stride=2)
    options = dataclasses.replace(SHORT, noise_start=0.5, parsimony_from=4)
    model = training.train(Config(model=config, train=options), tmp_path, progress=False)
    losses = read_log(tmp_path)["loss"]
    assert losses[-1] < losses[0]
    assert (model.noise, model.parsimony) == (0.2, 0.05)
    again = zoo.load(tmp_path / "model")
    assert (again.noise, again.parsimony) == (0.2, 0.05)


def test_evaluation_counts_against_the_minutes_and_a_resumed_run_has_what_is_left(tmp_path, monkeypatch):
    budget = dict(minutes=0.03, eval_every=4, save_every=2)
    evaluate = training.evaluate
    monkeypatch.setattr(training, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, **budget)

    def slow(*arguments, **options):
        time.sleep(0.6)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(training, "evaluate", slow)
    card = tmp_path / "step_00000002.json"
    saved = json.loads(card.read_text())
    card.write_text(json.dumps({**saved, "seconds": 0.9}))  # as if it had taken half of its 1.8 seconds
    train(tmp_path, **budget)
    log = read_log(tmp_path)
    # Left are 0.9 seconds: the evaluations at steps 4 and 8 take more, and the next step is the last.
    assert 4 < log["step"][-1] <= 9
    assert log["seconds"][-1] > 1.8


def interrupted(*arguments, **options):
    raise KeyboardInterrupt


def test_devices_share_out_each_batch_and_an_epoch_holds_every_scene_once():
    one = [next(scene_order(10, 4, 0, step, 0, 1)) for step in range(5)]
    flat = [i for batch in one for i in batch]
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))
    assert flat[:10] != flat[10:]
    for step in range(5):
        halves = [next(scene_order(10, 4, 0, step, rank, 2)) for rank in range(2)]
        assert sorted(halves[0] + halves[1]) == sorted(one[step])


def test_order_does_not_depend_on_where_it_starts():
    straight = scene_order(100, 8, 3, 0, 0, 1)
    batches = [next(straight) for _ in range(20)]
    assert next(scene_order(100, 8, 3, 15, 0, 1)) == batches[15]


def test_noise_differs_by_step_and_seed():
    draws = {
        torch.rand(1, generator=training.step_generator(seed, step)).item() for seed in range(3) for step in range(3)
    }
    assert len(draws) == 9


@pytest.mark.parametrize("shares", [2, 4])
@pytest.mark.parametrize(
    "changes",
    [
        {"slot_init": "gaussian"},
        {"slot_init": "one_learned", "gradient": "implicit", "gradient_steps": 2},
        {"slot_init": "learned", "decoder": "coordinate", "train_pixels": 40},
        {"likelihood": "mixture", "parsimony": 0.1, "train_stride": 2},
    ],
)
def test_the_shares_of_a_batch_have_the_loss_and_gradient_of_the_whole(changes, shares):
    torch.manual_seed(0)
    model = SlotAutoencoder(dataclasses.replace(SMALL, **changes)).double()
    images = data.make("tetrominoes", 8).batch(range(8))["image"].double()

    def gradient(loss):
        found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        return [g if g is not None else torch.zeros(()) for g in found]

    whole = model.loss(images, training.step_generator(0, 5))
    parts = [model.loss(images[i::shares], training.step_generator(0, 5), (i, shares)) for i in range(shares)]
    mean = sum(parts) / shares
    torch.testing.assert_close(mean, whole, rtol=1e-12, atol=0)
    for a, b in zip(gradient(mean), gradient(whole), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("slot_init", ["gaussian", "one_learned"])
def test_a_run_is_the_loop_written_by_hand(tmp_path, slot_init):
    config = dataclasses.replace(SMALL, slot_init=slot_init, colour="shaded")
    trained = train(tmp_path, config, one_colour_until=8, shading_steps=4)

    torch.manual_seed(SHORT.seed)
    model = SlotAutoencoder(config)
    optimizer = torch.optim.Adam(model.parameters())
    scenes = data.make("tetrominoes", 1_000_000, seed=1)
    order = scene_order(len(scenes), SHORT.batch_size, SHORT.seed, 0, 0, 1)
    for step in range(SHORT.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, SHORT)
        model.slot_attention.gradient = "implicit" if step < SHORT.one_step_until else "unrolled"
        model.decoder.shading = min(1.0, max(0.0, (step - 8) / 4))
        # Written out, so that it stays what the shipped checkpoints were trained with.
        key = data.random.uniform(SHORT.seed, torch.tensor([step]), 1)
        noise = torch.Generator().manual_seed(int(key * 2**53))
        images = torch.stack([scene["image"] for scene in scenes.__getitems__(next(order))])
        features = model.encode(images).flatten(1, 2)
        drawing = model.decoder(model.slot_attention(features, generator=noise).slots)
        picture, _ = compose(drawing)
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(picture, images * 2 - 1).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), SHORT.clip)
        optimizer.step()
    assert same(trained, model.state_dict())


def test_training_learns_and_leaves_its_records(uninterrupted):
    card = zoo.load(uninterrupted / "model").card
    torch.manual_seed(SHORT.seed)
    scenes = data.make("tetrominoes", 16, seed=2)
    before = training.evaluate(SlotAutoencoder(SMALL), scenes).mse.mean()
    assert card["metrics"][0]["mse"] < before
    assert card["training"] == dataclasses.asdict(SHORT)
    assert list((uninterrupted / "tensorboard").glob("events*"))
    assert [p.name for p in sorted(uninterrupted.glob("step_*"))] == ["step_00000024.json", "step_00000024.safetensors"]


def test_the_log_has_a_row_for_every_look(uninterrupted):
    log = read_log(uninterrupted)
    assert log["step"].tolist() == [6, 12, 18, 24]
    assert np.isfinite(log["loss"]).all()
    assert np.isfinite(log["grad_norm"]).all()
    assert log["lr"].tolist() == [learning_rate(step, SHORT) for step in (5, 11, 17, 23)]
    assert (np.diff(log["seconds"]) > 0).all()
    for score in ("fg_ari", "mse", "mask_entropy", "stillness"):
        assert np.isfinite(log[score]).tolist() == [False, True, False, True]
    (measured,) = zoo.load(uninterrupted / "model").card["metrics"]
    assert log["fg_ari"][-1] == pytest.approx(measured["fg_ari"], abs=1e-5)


def test_tensorboard_shows_the_same_numbers_and_pictures(uninterrupted):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(uninterrupted / "tensorboard")).Reload()
    log = read_log(uninterrupted)
    shown = {event.step: event.value for event in board.Scalars("train/loss")}
    assert shown == pytest.approx(dict(zip(log["step"], log["loss"], strict=True)))
    assert {"train/lr", "train/grad_norm", "eval/fg_ari", "masks/stillness"} <= set(board.Tags()["scalars"])
    assert {"scenes/image", "scenes/masks", "scenes/attention"} <= set(board.Tags()["images"])


def test_without_a_run_there_is_no_log(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no log\.csv"):
        read_log(tmp_path)


# One process that forks a child per life of the run, which spares each the import of torch.
TWENTY_LIVES = """
import os, random, signal, sys, time
from pathlib import Path
import lightning_fabric, torch.utils.tensorboard
from slotlib import cli, training

whole, killed = map(Path, sys.argv[1:3])
config = cli.read_config("tetrominoes", *sys.argv[3:])
chance = random.Random(int.from_bytes(os.urandom(4)))

def live(folder):
    child = os.fork()
    if not child:
        training.train(config, folder, progress=False)
        os._exit(0)
    return child

def rows():
    return (killed / "log.csv").read_text().count("\\n") - 1 if (killed / "log.csv").exists() else 0

begun = time.perf_counter()
os.waitpid(live(whole), 0)
a_step = (time.perf_counter() - begun) / config.train.steps
for target in sorted(chance.randrange(config.train.steps * 9 // 10) for _ in range(20)):
    child = live(killed)
    if chance.random() < 0.8:  # else anywhere, perhaps before its first step
        while rows() <= target:
            time.sleep(a_step / 10)
    time.sleep(chance.random() * 2 * a_step)
    os.kill(child, signal.SIGKILL)
    if os.waitpid(child, 0)[1] != signal.SIGKILL:
        sys.exit("a run ended before it was killed")
os.waitpid(live(killed), 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_killed_twenty_times_ends_bit_for_bit_like_one_that_was_not(tmp_path):
    often = ["--train.steps=60", "--train.log_every=1", "--train.save_every=4", "--train.eval_every=20"]
    command = [sys.executable, "-c", TWENTY_LIVES, tmp_path / "whole", tmp_path / "killed", *FLAGS, *often]
    process = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.returncode == 0, process.stderr
    assert process.stderr.count("Traceback") == 0, process.stderr
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    whole, killed = (read_log(tmp_path / name) for name in ("whole", "killed"))
    assert whole.pop("seconds").shape == killed.pop("seconds").shape == (60,)
    for name in whole:
        np.testing.assert_array_equal(killed[name], whole[name], err_msg=name)
    left = {path.name for path in (tmp_path / "killed").iterdir()}
    assert left == {"log.csv", "tensorboard", "model.json", "model.safetensors"} | {
        f"step_00000060.{ending}" for ending in ("json", "safetensors")
    }


def test_a_full_disk_leaves_the_last_checkpoint(uninterrupted, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "evaluate", interrupted)  # at step 12
        train(tmp_path)
    size = (tmp_path / "step_00000006.safetensors").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, hard))  # the system refuses larger files, as a full disk
        with pytest.raises(OSError, match=r"cannot write \d+ bytes: File too large: .*step_00000012"):
            train(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in tmp_path.glob("*step_*")) == [
        "step_00000006.json",
        "step_00000006.safetensors",
    ]
    train(tmp_path)
    assert same(weights(tmp_path), weights(uninterrupted))


def test_two_devices_take_the_same_steps_as_one(tmp_path):
    # Drawn slots; under the implicit gradient two parameters, μ and σ, never get one, which must not stop the devices.
    changes = {"slot_init": "gaussian", "gradient": "implicit"}
    train(tmp_path / "one", dataclasses.replace(SMALL, **changes))
    run(
        tmp_path / "two", *[f"--model.{k}={v}" for k, v in changes.items()], "--train.devices=2", "--train.accumulate=2"
    )
    assert same_steps(tmp_path / "two", tmp_path / "one")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("workers", [0, 1])  # scenes drawn there, or brought there
def test_a_gpu_takes_nearly_the_same_steps(uninterrupted, tmp_path, workers):
    train(tmp_path, accelerator="cuda", workers=workers)
    np.testing.assert_allclose(read_log(tmp_path)["loss"], read_log(uninterrupted)["loss"], rtol=0.02)


@pytest.mark.parametrize("parts", [2, 8])
def test_a_batch_in_parts_takes_the_same_steps_as_in_one(uninterrupted, tmp_path, parts):
    train(tmp_path, accumulate=parts)
    assert same_steps(tmp_path, uninterrupted)


def test_bf16_learns_nearly_the_same(uninterrupted, tmp_path):
    trained = train(tmp_path, precision="bf16-mixed")
    assert all(tensor.isfinite().all() and tensor.dtype == torch.float32 for tensor in trained.values())
    assert not same(trained, weights(uninterrupted))
    half, full = read_log(tmp_path), read_log(uninterrupted)
    np.testing.assert_allclose(half["loss"], full["loss"], rtol=0.03)
    assert half["loss"][-1] < half["loss"][0]


def test_a_compiled_loss_takes_the_same_steps(uninterrupted, tmp_path, monkeypatch):
    # Traced as ever, but without the minutes that generating code takes.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    trained = training.train(
        Config(model=SMALL, train=dataclasses.replace(SHORT, compile=True)), tmp_path, progress=False
    )
    assert same_steps(tmp_path, uninterrupted)
    assert trained.loss.__func__ is SlotAutoencoder.loss


def test_workers_bring_the_scenes_that_are_otherwise_drawn(uninterrupted, tmp_path):
    assert same(train(tmp_path, workers=1), weights(uninterrupted))


def test_kept_scenes_are_drawn_once_and_are_the_same_but_for_rounding(tmp_path, monkeypatch):
    drawn = []
    original = data.Scenes.__getitems__
    monkeypatch.setattr(data.Scenes, "__getitems__", lambda self, index: drawn.extend(index) or original(self, index))
    few = training.DataConfig(size=20, keep=True)
    kept = training.train(Config(model=SMALL, data=few, train=SHORT), tmp_path / "kept", progress=False)
    assert sorted(drawn[:20]) == list(range(20))
    again = dataclasses.replace(few, keep=False)
    other = training.train(Config(model=SMALL, data=again, train=SHORT), tmp_path / "drawn", progress=False)
    for name, tensor in kept.state_dict().items():
        torch.testing.assert_close(tensor, other.state_dict()[name], rtol=0, atol=0.02)
    losses = [read_log(tmp_path / name)["loss"][-1] for name in ("kept", "drawn")]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_a_tiling_model_is_warned_of_once(tmp_path, monkeypatch, caplog):
    tiles = torch.eye(4).repeat_interleave(2, dim=1).expand(16, 4, 8).reshape(16, 4, 2, 4)
    monkeypatch.setattr(training, "_look", lambda model, scenes: ({}, training.diagnosis.diagnose(tiles)))
    train(tmp_path)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("step 12: tiling: the masks hardly move between images")
    assert read_log(tmp_path)["stillness"][1] == pytest.approx(1)


def test_a_folder_with_another_run_is_left_alone(uninterrupted):
    other = Config(model=SMALL, train=dataclasses.replace(SHORT, lr=1e-3))
    with pytest.raises(ValueError, match="another configuration"):
        training.train(other, uninterrupted, progress=False)
    with pytest.raises(FileExistsError, match="already holds a run"):
        training.train(Config(model=SMALL, train=SHORT), uninterrupted, resume=False, progress=False)


@pytest.mark.parametrize("field", ["steps", "batch_size", "accumulate", "eval_every", "save_every", "eval_images"])
def test_sizes_below_one_are_named(tmp_path, field):
    with pytest.raises(ValueError, match=f"train.{field} must be at least 1, got 0"):
        training.train(Config(model=SMALL, train=dataclasses.replace(SHORT, **{field: 0})), tmp_path)


@pytest.mark.parametrize("field", ["clip", "lr", "seed", "warmup_steps", "noise_steps", "workers", "quantise_from"])
@pytest.mark.parametrize("value", [-3, math.nan, math.inf])
def test_numbers_out_of_range_are_named(tmp_path, field, value):
    # A negative clip used to turn gradients around: the run climbed the loss and said nothing.
    with pytest.raises(ValueError, match=rf"train\.{field} must be at least 0, got {value}"):
        training.train(Config(model=SMALL, train=dataclasses.replace(SHORT, **{field: value})), tmp_path)


def test_a_device_that_is_not_there_is_named(tmp_path):
    missing = "cuda" if sys.platform == "darwin" else "mps"
    with pytest.raises(ValueError, match=rf"train\.accelerator='{missing}'.*not available"):
        train(tmp_path, accelerator=missing)


def test_nothing_to_evaluate_on_is_said():
    model = zoo.load("tetrominoes")
    with pytest.raises(ValueError, match="nothing to evaluate on: 0 images asked for, of 5 scenes"):
        training.evaluate(model, data.make("tetrominoes", 5), images=0)


def test_a_batch_that_cannot_be_cut_up_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"train\.batch_size must be a multiple of 1 devices × 3 parts, got 8"):
        train(tmp_path, accumulate=3)
    with pytest.raises(ValueError, match=r"train\.minutes must be at least 0"):
        train(tmp_path, minutes=-1.0)


def test_a_loss_that_explodes_is_said(tmp_path):
    config = Config(model=SMALL, train=dataclasses.replace(SHORT, lr=1e12, clip=0.0, warmup_steps=0, log_every=1))
    with pytest.raises(ValueError, match=r"the loss is (nan|inf) at step|if the loss exploded, try"):
        training.train(config, tmp_path, progress=False)


def test_evaluation_is_repeatable_and_leaves_the_model_as_it_was():
    model = SlotAutoencoder(SMALL).train()
    scenes = data.make("tetrominoes", 20, seed=5)
    first, second = (training.evaluate(model, scenes, images=20, batch_size=size, restarts=2) for size in (20, 20))
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert len(first.fg_ari) == 20


def test_training_on_files_keeps_the_last_scenes_for_evaluation(tmp_path, caplog):
    export(data.make("tetrominoes", 40, seed=7), tmp_path / "t", "folder", progress=False)
    (tmp_path / "t" / "images" / "000023.png").write_bytes(b"damaged")
    files = training.DataConfig(name=str(tmp_path / "t"), options={"on_error": "skip"})
    options = dataclasses.replace(SHORT, steps=2, batch_size=24, eval_images=16)
    training.train(Config(model=SMALL, data=files, train=options), tmp_path / "run", progress=False)
    assert "1 scenes of" in caplog.text
    (scores,) = zoo.load(tmp_path / "run" / "model").card["metrics"]
    assert scores["images"] == 16
    kept = data.make("tetrominoes", 40, seed=7).__getitems__(range(24, 40))
    again = training.evaluate(zoo.load(tmp_path / "run" / "model"), ListDataset(kept), 16).means()
    assert scores["mse"] == pytest.approx(again["mse"], abs=1e-5)
    with pytest.raises(ValueError, match="holds 40 scenes; 40 are kept for evaluation"):
        training.train(
            Config(model=SMALL, data=files, train=dataclasses.replace(options, eval_images=40)), tmp_path / "other"
        )


def test_scenes_without_masks_train_and_report_their_error_only(tmp_path):
    export(data.make("tetrominoes", 20), tmp_path / "t", "folder", progress=False)
    shutil.rmtree(tmp_path / "t" / "masks")
    files = training.DataConfig(name=str(tmp_path / "t"))
    options = dataclasses.replace(SHORT, steps=1, eval_images=4)
    training.train(Config(model=SMALL, data=files, train=options), tmp_path / "run", progress=False)
    (scores,) = zoo.load(tmp_path / "run" / "model").card["metrics"]
    assert "mse" in scores
    assert "fg_ari" not in scores


class ListDataset(list):
    def __getitems__(self, index):
        return [self[i] for i in index]
