"""The loop learns, follows its schedule, and does not care whether it was interrupted or on how many devices it ran."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from slotlib import data, training, zoo
from slotlib.autoencoder import AutoencoderConfig, SlotAutoencoder
from slotlib.data.export import export
from slotlib.training import Config, TrainConfig, learning_rate, scene_order

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
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def weights(folder):
    return zoo.load(folder / "model").state_dict()


def same(a, b, tolerance=0.0):
    return all(torch.allclose(a[name], b[name], rtol=0, atol=tolerance) for name in a)


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


def test_noise_differs_by_step_seed_and_device():
    draws = {
        torch.rand(1, generator=training.step_generator(seed, step, rank)).item()
        for seed in range(3)
        for step in range(3)
        for rank in range(3)
    }
    assert len(draws) == 27


def test_training_learns_and_leaves_its_records(uninterrupted):
    card = zoo.load(uninterrupted / "model").card
    torch.manual_seed(SHORT.seed)
    scenes = data.make("tetrominoes", 16, seed=2)
    before = training.evaluate(SlotAutoencoder(SMALL), scenes).mse.mean()
    assert card["metrics"][0]["mse"] < before
    assert card["training"] == dataclasses.asdict(SHORT)
    assert list((uninterrupted / "tensorboard").glob("events*"))
    assert [p.name for p in sorted(uninterrupted.glob("step_*"))] == ["step_00000024.json", "step_00000024.safetensors"]


def test_a_killed_run_resumes_to_the_same_weights(uninterrupted, tmp_path):
    process = run(tmp_path)
    deadline = time.time() + 120
    while not list(tmp_path.glob("step_*.json")) and process.poll() is None and time.time() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    card = json.loads(max(tmp_path.glob("step_*.json")).read_text())
    assert not (tmp_path / "model.json").exists(), "the run ended before it was killed; make it longer"
    assert 0 < card["step"] < SHORT.steps
    training.train(Config(model=SMALL, train=SHORT), tmp_path, progress=False)
    assert same(weights(tmp_path), weights(uninterrupted))


def test_two_devices_take_the_same_steps_as_one(tmp_path):
    # Learned slots start without noise, so the batch split over two processes must give the gradient of the whole.
    flags = ["--model.slot_init=learned"]
    processes = [run(tmp_path / "one", *flags), run(tmp_path / "two", *flags, "--train.devices=2")]
    for process in processes:
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output.decode()
    assert same(weights(tmp_path / "one"), weights(tmp_path / "two"), tolerance=1e-3)
    assert not same(
        weights(tmp_path / "one"), SlotAutoencoder(zoo.load(tmp_path / "one" / "model").config).state_dict()
    )


def test_parameters_without_gradient_do_not_stop_several_devices(tmp_path):
    process = run(tmp_path, "--model.slot_init=one_learned", "--train.devices=2", "--model.gradient=implicit")
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output.decode()
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path).values())


def test_bf16_trains(tmp_path):
    config = Config(model=SMALL, train=dataclasses.replace(SHORT, steps=4, precision="bf16-mixed"))
    model = training.train(config, tmp_path, progress=False)
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in model.parameters())


def test_a_folder_with_another_run_is_left_alone(uninterrupted):
    other = Config(model=SMALL, train=dataclasses.replace(SHORT, lr=1e-3))
    with pytest.raises(ValueError, match="another configuration"):
        training.train(other, uninterrupted, progress=False)
    with pytest.raises(FileExistsError, match="already holds a run"):
        training.train(Config(model=SMALL, train=SHORT), uninterrupted, resume=False, progress=False)


@pytest.mark.parametrize("field", ["steps", "batch_size", "eval_every", "save_every", "eval_images"])
def test_sizes_below_one_are_named(tmp_path, field):
    with pytest.raises(ValueError, match=f"train.{field} must be at least 1, got 0"):
        training.train(Config(model=SMALL, train=dataclasses.replace(SHORT, **{field: 0})), tmp_path)


def test_a_loss_that_explodes_is_said(tmp_path):
    config = Config(model=SMALL, train=dataclasses.replace(SHORT, lr=1e12, clip=0.0, warmup_steps=0, log_every=1))
    with pytest.raises(ValueError, match=r"the loss is (nan|inf) at step|must be finite"):
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
