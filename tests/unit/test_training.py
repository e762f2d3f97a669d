"""The loop learns, follows its schedule, and does not care whether it was interrupted or on how many devices it ran."""

import functools
import itertools
import json
import logging
import math
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

import slotlib
from slotlib import data, training, zoo
from slotlib.autoencoder import AutoencoderConfig, SlotAutoencoder
from slotlib.data.export import export
from slotlib.data.light import Light
from slotlib.decoders import Coordinate, Separable
from slotlib.diagnosis import diagnose, warnings
from slotlib.encoders import Strided
from slotlib.evaluation import evaluate
from slotlib.likelihoods import Mixture, compose
from slotlib.log import read_log
from slotlib.model import Draws, Look, Model, Ramp
from slotlib.patches import PatchConfig
from slotlib.prior import CodePriorConfig
from slotlib.set_prediction import SetPredictorConfig
from slotlib.slate import SlateConfig
from slotlib.slot_attention import AttentionConfig
from slotlib.svq import QuantisedAttentionConfig, SVQConfig
from slotlib.training import Config, DataConfig, TrainConfig, learning_rate, scene_order, schedule_position
from slotlib.vq import Gumbel, Nearest

SLOTS = dict(slot_dim=8, num_slots=3, num_iterations=2, mlp_hidden_dim=8, gradient="implicit")
MOVING = AttentionConfig(**SLOTS, gradient_steps=Ramp(2, start=1, after=0.5))
SMALL = AutoencoderConfig(16, Strided(4), MOVING, Separable(8, "slot"))
SHORT = TrainConfig(
    steps=12,
    batch_size=8,
    lr=4e-3,
    warmup_steps=3,
    decay="cosine",
    clip=1.0,
    eval_every=6,
    eval_images=8,
    log_every=3,
    save_every=3,
    accelerator="cpu",
)
SCENES = DataConfig("shapes", size=40, options={"resolution": 16, "num_objects": [1, 2]})
LIT = Light(darker=Ramp(0.5, over=1.0), brighter=0.4, swap_channels=True, noise=0.05)
CLEVR = DataConfig("clevr", size=4, keep=True, options={"resolution": 16, "num_objects": 2})


# --- a model that slotlib does not know ---


@dataclass
class StrangerConfig:
    width: int = 4
    noise: float | Ramp = 0.1


class Stranger(Model):
    """Learns the mean colour of images through a narrow layer, against noise that the schedule moves."""

    config: StrangerConfig
    noise: float

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(nn.Linear(3, config.width), nn.Linear(config.width, 3))
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("drift", torch.zeros(()))
        self.at(1.0)

    def inputs(self, scenes):
        return (scenes["image"].mean(dim=(2, 3)),)

    def prepare(self, scenes, draws):
        self.mean.copy_(self.inputs(scenes)[0].mean(dim=0))

    def loss(self, colours, draws=None):
        noisy = colours - self.mean + self.noise * draws.normal(len(colours), 3, like=colours)
        return nn.functional.mse_loss(self.layers(noisy), colours)

    def update(self, draws):
        self.drift += draws.normal(1, like=self.mean).sum()

    def judge(self, scenes, draws=None):
        (colours,) = self.inputs(scenes)
        error = (self.layers(colours - self.mean) - colours).square().mean(dim=1)
        return {"error": error, "noise": torch.full_like(error, self.noise)}


STRANGE = StrangerConfig(noise=Ramp(0.1, start=1, after=0.25, over=0.5))
"""Where the loop alone is in question, it trains this: nothing learns faster."""


# --- how runs are started and compared ---


def fitted(model=SMALL, scenes=SCENES, **changes):
    return Config(model, scenes, replace(SHORT, **changes))


def train(folder, model=SMALL, scenes=SCENES, **changes):
    return training.train(fitted(model, scenes, **changes), folder, progress=False)


def run(folder, config):
    """In a process of its own, or several, from the command line."""
    path = folder.with_suffix(".yaml")
    path.write_text(json.dumps(config.plain()))
    command = [sys.executable, "-m", "slotlib", "train", f"--folder={folder}", f"--config={path}"]
    process = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.returncode == 0, process.stderr


def weights(folder):
    return zoo.load(folder / "model").state_dict()


def same(a, b, tolerance=0.0):
    return all(torch.allclose(a[name], b[name], rtol=0, atol=tolerance, equal_nan=True) for name in a)


def same_steps(folder, other, rtol=1e-5):
    """Losses of all logged steps agree to float tolerance. Weights agree less well: where a gradient is zero but for
    rounding, Adam scales the rounding up."""
    losses = read_log(folder)["loss"], read_log(other)["loss"]
    return np.allclose(*losses, rtol=rtol, atol=0) and same(weights(folder), weights(other), tolerance=5e-3)


def same_logs(folder, other):
    one, two = read_log(folder), read_log(other)
    assert one.pop("seconds").shape == two.pop("seconds").shape
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(folder)
    return folder


@pytest.fixture(scope="module")
def codes(tmp_path_factory):
    """The checkpoint of an autoencoder whose slots are codes."""
    folder = tmp_path_factory.mktemp("codes")
    train(folder, SVQ)
    return str(folder / "model")


SVQ = SVQConfig(
    16,
    Strided(4),
    QuantisedAttentionConfig(
        **SLOTS, quantizer=Nearest(num_blocks=2, num_codes=4, revive=0.5), quantise=Ramp(1, after=0.25)
    ),
    Separable(8, "slot", colour_dims=Ramp(4, after=0.5)),
    Mixture(noise=Ramp(0.2, start=0.5, over=1, curve="cosine"), sparsity=Ramp(0.01, after=0.3, over=0.3)),
)
GUMBEL = replace(SVQ, attention=replace(SVQ.attention, quantizer=Gumbel(num_blocks=2, num_codes=4)))
PATCHES = PatchConfig(16, patch=4, channels=4, dim=8, quantizer=Nearest(num_codes=6))
SLATE = SlateConfig(
    16, Strided(4), SVQ.attention, vocabulary=6, token_channels=4, token_dim=8, num_layers=1, num_heads=2
)
SETS = SetPredictorConfig("slot_attention", 16, Strided(4), AttentionConfig(**SLOTS))
PRIOR = CodePriorConfig(synonyms=0.5, blanks=True, restarts=2, dim=8, num_layers=1, num_heads=2)


# --- the schedule ---


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
    stopped = train(tmp_path / "stopped", STRANGE, stop_at=6, **longer).state_dict()
    log = read_log(tmp_path / "stopped")
    assert log["step"][-1] == 6
    train(tmp_path / "whole", STRANGE, **longer)
    whole = read_log(tmp_path / "whole")
    for name in ("loss", "lr"):
        assert log[name].tolist() == whole[name][: len(log[name])].tolist()
    assert same(train(tmp_path / "stopped", STRANGE, stop_at=6, **longer).state_dict(), stopped)
    with pytest.raises(ValueError, match=r"train\.stop_at must lie in 0\.\.12"):
        train(tmp_path / "late", stop_at=13)


def test_a_budget_in_minutes_ends_in_time(tmp_path):
    budget = dict(minutes=0.01, steps=9000, warmup_steps=0, log_every=1, eval_every=40, save_every=1)
    started = time.perf_counter()
    train(tmp_path, STRANGE, **budget)
    assert 0.6 < time.perf_counter() - started < 0.6 + 60
    log = read_log(tmp_path)
    assert (log["seconds"][:-1] < 0.6).all()
    assert log["seconds"][-1] >= 0.6
    assert len(log["step"]) < 9000
    # Started again, a finished run has nothing left to do.
    train(tmp_path, STRANGE, **budget)
    assert len(read_log(tmp_path)["step"]) == len(log["step"])


def test_a_budget_in_minutes_goes_through_the_whole_schedule(tmp_path, monkeypatch):
    # By a clock that goes a hundredth of a second at each look, so that no slow moment of the machine counts.
    clock = itertools.count()
    monkeypatch.setattr(training.time, "perf_counter", lambda: next(clock) / 100)
    rare = dict(eval_every=10**6, save_every=10**6)
    train(tmp_path, STRANGE, minutes=0.01, steps=9000, warmup_steps=0, log_every=1, **rare)
    log = read_log(tmp_path)
    assert log["lr"][0] == pytest.approx(4e-3, rel=1e-2)
    assert (np.diff(log["lr"]) < 0).all()
    assert log["lr"][len(log["lr"]) // 2] == pytest.approx(2e-3, rel=0.1)
    assert log["lr"][-1] < 1e-5


def test_evaluation_counts_against_the_minutes_and_a_resumed_run_has_what_is_left(tmp_path, monkeypatch):
    budget = dict(minutes=0.03, eval_every=4, save_every=2)
    monkeypatch.setattr(training, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, STRANGE, **budget)

    def slow(*arguments, **options):
        time.sleep(0.6)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(training, "evaluate", slow)
    card = tmp_path / "step_00000002.json"
    saved = json.loads(card.read_text())
    card.write_text(json.dumps({**saved, "seconds": 0.9}))  # as if it had taken half of its 1.8 seconds
    train(tmp_path, STRANGE, **budget)
    log = read_log(tmp_path)
    # Left are 0.9 seconds: the evaluations at steps 4 and 8 take more, and the next step is the last.
    assert 4 < log["step"][-1] <= 9
    assert log["seconds"][-1] >= 1.8


def interrupted(model, scenes, images, *arguments, **options):
    if images == 1:  # a look at what can be measured, before training
        return evaluate(model, scenes, images)
    raise KeyboardInterrupt


# --- scenes and noise of a step ---


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
    "config",
    [
        replace(SMALL, attention=AttentionConfig(**{**SLOTS, "gradient": "unrolled"})),
        replace(SMALL, attention=AttentionConfig(**SLOTS, slot_init="one_learned", gradient_steps=2)),
        replace(SMALL, attention=AttentionConfig(**SLOTS, slot_init="learned"), decoder=Coordinate(8, pixels=40)),
        replace(SMALL, decoder=Separable(8, stride=2), likelihood=Mixture(sparsity=0.1)),
        SVQ,
        GUMBEL,
        PATCHES,
        SLATE,
        SETS,
        STRANGE,
    ],
    ids=["drawn", "one learned", "pixels", "stride", "codes", "Gumbel", "patches", "SLATE", "sets", "stranger"],
)
def test_the_shares_of_a_batch_have_the_loss_and_gradient_of_the_whole(config, shares):
    torch.manual_seed(0)
    model = Model.defined_by(config)(config).double()
    scenes = data.make("clevr", 8, resolution=16, num_objects=2).batch(range(8))
    inputs = [tensor.double() for tensor in model.inputs(scenes)]

    def loss(first, every):
        return model.loss(*(each[first::every] for each in inputs), draws=Draws(generator(5), first, every))

    def gradient(loss):
        found = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True)
        return [g if g is not None else torch.zeros(()) for g in found]

    whole, mean = loss(0, 1), sum(loss(i, shares) for i in range(shares)) / shares
    torch.testing.assert_close(mean, whole, rtol=1e-12, atol=0)
    for a, b in zip(gradient(mean), gradient(whole), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def generator(step):
    return training.step_generator(0, step)


@pytest.mark.parametrize("slot_init", ["gaussian", "one_learned"])
def test_a_run_is_the_loop_written_by_hand(tmp_path, slot_init):
    shaded = Separable(8, "shaded", shading=Ramp(1, after=1 / 3, over=1 / 3))
    config = replace(SMALL, attention=replace(MOVING, slot_init=slot_init), decoder=shaded)
    trained = train(tmp_path, config)

    torch.manual_seed(SHORT.seed)
    model = SlotAutoencoder(config)
    optimizer = torch.optim.Adam(model.parameters())
    scenes = data.make("shapes", SCENES.size, seed=1, **SCENES.options)
    order = scene_order(len(scenes), SHORT.batch_size, SHORT.seed, 0, 0, 1)
    for step in range(SHORT.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, SHORT)
        model.slot_attention.gradient_steps = 1 if step < 6 else 2
        model.decoder.shading = min(1.0, max(0.0, (step - 4) / 4))
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
    assert same(trained.state_dict(), model.state_dict())


# --- what a run leaves ---


def test_training_learns_and_leaves_its_records(uninterrupted):
    card = zoo.load(uninterrupted / "model").card
    torch.manual_seed(SHORT.seed)
    before = evaluate(SlotAutoencoder(SMALL), data.make("shapes", 8, seed=2, **SCENES.options))
    assert card["metrics"][0]["mse"] < before.means["mse"]
    assert card["training"] == asdict(SHORT)
    assert card["dataset"] == asdict(SCENES)
    assert card["versions"] == training.versions()
    assert list((uninterrupted / "tensorboard").glob("events*"))
    assert [p.name for p in sorted(uninterrupted.glob("step_*"))] == ["step_00000012.json", "step_00000012.safetensors"]


def test_the_log_has_a_row_for_every_look(uninterrupted):
    log = read_log(uninterrupted)
    assert log["step"].tolist() == [3, 6, 9, 12]
    assert np.isfinite(log["loss"]).all()
    assert np.isfinite(log["grad_norm"]).all()
    assert log["lr"].tolist() == [learning_rate(step, SHORT) for step in (2, 5, 8, 11)]
    assert (np.diff(log["seconds"]) > 0).all()
    for score in ("drawn_fg_ari", "mse", "mask_entropy", "overlap"):
        assert np.isfinite(log[score]).tolist() == [False, True, False, True]
    (measured,) = zoo.load(uninterrupted / "model").card["metrics"]
    assert log["drawn_fg_ari"][-1] == pytest.approx(measured["drawn_fg_ari"], abs=1e-5)


def test_tensorboard_shows_the_same_numbers_and_pictures(uninterrupted):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(uninterrupted / "tensorboard")).Reload()
    log = read_log(uninterrupted)
    shown = {event.step: event.value for event in board.Scalars("train/loss")}
    assert shown == pytest.approx(dict(zip(log["step"], log["loss"], strict=True)))
    assert {"train/lr", "train/grad_norm", "eval/drawn_fg_ari", "signs/overlap"} <= set(board.Tags()["scalars"])
    assert {"scenes/image", "scenes/masks", "scenes/attention"} <= set(board.Tags()["images"])


# --- what is saved and judged is what was trained ---


def test_a_ramp_is_left_where_the_last_step_found_it(tmp_path):
    model = train(tmp_path, STRANGE)
    assert model.noise == 0.1 == zoo.load(tmp_path / "model").noise
    assert read_log(tmp_path)["noise"][-1] == pytest.approx(0.1)
    assert read_log(tmp_path)["noise"][1] == pytest.approx(STRANGE.noise.at(5 / 12))


def test_a_run_that_ends_before_its_schedule_is_loaded_where_it_ended(tmp_path):
    for life in ("first", "again"):  # the second has nothing left to do
        model = train(tmp_path, STRANGE, stop_at=6)
        again = zoo.load(tmp_path / "model")
        assert model.noise == again.noise == STRANGE.noise.at(5 / 12), life
        (measured,) = again.card["metrics"]
        assert (again.card["progress"], measured["noise"]) == (5 / 12, pytest.approx(model.noise, abs=1e-5))


def test_an_autoencoder_under_a_prior_stays_as_it_was_trained(codes, tmp_path):
    model, before = train(tmp_path, replace(PRIOR, synonyms=0.0, autoencoder=codes), stop_at=1), zoo.load(codes)
    for each in (model.autoencoder, zoo.load(tmp_path / "model").autoencoder):
        assert same(each.state_dict(), before.state_dict())
        assert each.slot_attention.quantise is before.slot_attention.quantise is True
        assert each.likelihood.noise == before.likelihood.noise > 0.2


@pytest.mark.parametrize(("when", "placed"), [(False, False), (Ramp(1, after=0.5), False), (Ramp(1, after=0.4), True)])
def test_codes_that_never_came_do_not_come_with_saving(tmp_path, when, placed):
    config = replace(SVQ, attention=replace(SVQ.attention, quantise=when))
    model = train(tmp_path, config, stop_at=6)
    again = zoo.load(tmp_path / "model")
    for each in (model, again):
        assert each.slot_attention.quantise is placed
        assert each.quantizer.placed == placed
    log, (measured,) = read_log(tmp_path), again.card["metrics"]
    scenes = data.make("shapes", 8, seed=2, **SCENES.options)
    assert evaluate(again, scenes).means["mse"] == pytest.approx(measured["mse"], abs=1e-5)
    assert measured["mse"] == pytest.approx(log["mse"][-1], abs=1e-5)
    assert ("quantisation_error" in measured) == placed  # what does not exist was not measured


def test_a_mixture_learns_with_the_noise_of_its_schedule(tmp_path):
    likelihood = Mixture(noise=Ramp(0.2, start=0.5, over=0.9), sparsity=Ramp(0.05, after=1 / 6, over=1 / 6))
    config = replace(SMALL, decoder=Separable(8, stride=2), likelihood=likelihood)
    model = train(tmp_path, config)
    losses = read_log(tmp_path)["loss"]
    assert losses[-1] < losses[0]
    for each in (model, zoo.load(tmp_path / "model")):
        assert (each.likelihood.noise, each.likelihood.sparsity) == (0.2, 0.05)


def test_light_changes_what_is_learned_and_not_what_is_judged(tmp_path):
    plain, lit = (
        train(tmp_path / name, STRANGE, replace(SCENES, light=light))
        for name, light in (("plain", Light()), ("lit", LIT))
    )
    assert not same(plain.state_dict(), lit.state_dict())
    card = json.loads((tmp_path / "lit" / "model.json").read_text())
    assert card["dataset"]["light"]["darker"]["end"] == 0.5
    again = zoo.load(tmp_path / "lit" / "model")
    scenes = data.make("shapes", 8, seed=2, **SCENES.options)
    assert evaluate(again, scenes).means["error"] == pytest.approx(card["metrics"][0]["error"], abs=1e-5)


def test_what_is_read_once_is_not_seen_in_changing_light(codes, tmp_path):
    with pytest.raises(ValueError, match=r"data\.light changes images at every step, but this model reads them once"):
        train(tmp_path, replace(PRIOR, autoencoder=codes), replace(SCENES, size=20, keep=True, light=LIT))


# --- a model of one's own ---


def test_a_stranger_s_model_learns_and_comes_back(tmp_path):
    model = train(tmp_path, STRANGE)
    again = slotlib.load(tmp_path / "model")
    assert (type(again), again.config) == (Stranger, STRANGE)
    assert same(again.state_dict(), model.state_dict())
    assert again.card["model"] == f"{__name__}.Stranger"
    assert list(again.card["metrics"][0])[:2] == ["error", "noise"]
    losses = read_log(tmp_path)["loss"]
    assert losses[-1] < losses[0]
    assert again.mean.abs().sum() > 0 and again.drift != 0  # prepared once, updated at every step


@dataclass
class SilentConfig:
    pass


class Silent(Model):
    """Learns, but does not say how it is judged."""

    config: SilentConfig

    def __init__(self, config):
        super().__init__()
        self.config, self.weight = config, nn.Parameter(torch.ones(()))

    def loss(self, images, draws=None):
        return self.weight * images.mean()


def test_what_a_model_lacks_is_said_before_it_trains(tmp_path):
    with pytest.raises(NotImplementedError, match="Silent does not say how it is judged"):
        train(tmp_path, SilentConfig())
    assert not list(tmp_path.glob("step_*"))
    with pytest.raises(TypeError, match="a DataConfig defines no model"):
        train(tmp_path, DataConfig())


# --- the same steps another way ---


def test_two_devices_take_the_same_steps_as_one(uninterrupted, tmp_path):
    # Drawn slots; under the implicit gradient two parameters, μ and σ, never get one, which must not stop the devices.
    run(tmp_path / "two", fitted(devices=2, accumulate=2))
    assert same_steps(tmp_path / "two", uninterrupted)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("workers", [0, 1])  # scenes drawn there, or brought there
def test_a_gpu_takes_nearly_the_same_steps(uninterrupted, tmp_path, workers):
    train(tmp_path, accelerator="cuda", workers=workers)
    np.testing.assert_allclose(read_log(tmp_path)["loss"], read_log(uninterrupted)["loss"], rtol=0.02)


@pytest.mark.parametrize("parts", [2, 8])
def test_a_batch_in_parts_takes_the_same_steps_as_in_one(uninterrupted, tmp_path, parts):
    train(tmp_path, accumulate=parts)
    assert same_steps(tmp_path, uninterrupted)


@pytest.mark.parametrize("config", [SVQ, PATCHES, SLATE], ids=["codes", "patches", "SLATE"])
def test_codes_are_learned_alike_from_a_batch_in_parts(config, tmp_path):
    for parts in (1, 2):
        train(tmp_path / str(parts), config, accumulate=parts, steps=6, log_every=1, eval_images=2)
    assert same_steps(tmp_path / "1", tmp_path / "2", rtol=1e-3)


def test_bf16_learns_nearly_the_same(uninterrupted, tmp_path):
    trained = train(tmp_path, precision="bf16-mixed").state_dict()
    assert all(tensor.isfinite().all() and tensor.dtype == torch.float32 for tensor in trained.values())
    assert not same(trained, weights(uninterrupted))
    half, full = read_log(tmp_path), read_log(uninterrupted)
    np.testing.assert_allclose(half["loss"], full["loss"], rtol=0.03)
    assert half["loss"][-1] < half["loss"][0]


def test_a_compiled_loss_takes_the_same_steps(tmp_path, monkeypatch):
    # Traced as ever, but without the minutes that generating code takes.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    # With one iteration: that more are traced alike, test_compiled.py says.
    steady = replace(SMALL, attention=AttentionConfig(**{**SLOTS, "num_iterations": 1}))
    for compiled in (False, True):
        trained = train(tmp_path / str(compiled), steady, steps=4, compile=compiled, log_every=1)
    assert same_steps(tmp_path / "True", tmp_path / "False")
    assert trained.loss.__func__ is SlotAutoencoder.loss


def test_workers_bring_the_scenes_that_are_otherwise_drawn(uninterrupted, tmp_path):
    assert same(train(tmp_path, workers=1).state_dict(), weights(uninterrupted))


def test_kept_scenes_are_drawn_once_and_are_the_same_but_for_rounding(tmp_path, monkeypatch):
    drawn, original = [], data.Scenes.batch

    def batch(self, index, *device):
        drawn.append((self.seed, list(index)))
        return original(self, index, *device)

    few = replace(SCENES, size=20, keep=True)
    with monkeypatch.context() as patch:
        patch.setattr(data.Scenes, "batch", batch)
        kept = train(tmp_path / "kept", scenes=few)
    assert [index for seed, index in drawn if seed == 1 and len(index) == 20].count(list(range(20))) == 2  # and prepare
    other = train(tmp_path / "drawn", scenes=replace(few, keep=False))
    for name, tensor in kept.state_dict().items():
        torch.testing.assert_close(tensor, other.state_dict()[name], rtol=0, atol=0.02)
    losses = [read_log(tmp_path / name)["loss"][-1] for name in ("kept", "drawn")]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_what_is_computed_of_kept_scenes_is_computed_once(codes, tmp_path, monkeypatch):
    prior = Model.defined_by(PRIOR)
    read, original = [], prior.tokenise
    monkeypatch.setattr(
        prior, "tokenise", lambda self, images, draws=None: read.append(len(images)) or original(self, images, draws)
    )
    config = replace(PRIOR, autoencoder=codes)
    train(tmp_path, config, replace(SCENES, size=70, keep=True))
    assert read == [64, 6]


# --- where a run begins ---


def test_a_run_begins_with_the_weights_of_another_model(uninterrupted, tmp_path):
    known = dict(steps=1, lr=0.0, start_from=str(uninterrupted / "model"))
    started = train(tmp_path / "same", **known)
    assert same(started.state_dict(), weights(uninterrupted))
    card = zoo.load(uninterrupted / "model").card  # what came before is told with it
    before = {name: card[name] for name in ("training", "dataset", "wall_seconds")}
    assert zoo.load(tmp_path / "same" / "model").card["before"] == [before]
    torch.manual_seed(0)
    fresh = SlotAutoencoder(SMALL)
    part = train(tmp_path / "part", **known, start_parts=["encoder"])
    assert same(part.encoder.state_dict(), started.encoder.state_dict())
    assert same(part.decoder.state_dict(), fresh.decoder.state_dict())
    with pytest.raises(ValueError, match=r"train\.start_from: no weight of .* that begins with magic fits a SlotAuto"):
        train(tmp_path / "none", **known, start_parts=["magic"])
    with pytest.raises(ValueError, match="no weight of tetrominoes fits a Stranger of this size"):
        train(tmp_path / "other", STRANGE, start_from="tetrominoes")


# --- going on ---


def test_a_folder_with_another_run_is_left_alone(uninterrupted):
    with pytest.raises(ValueError, match=r"another configuration; .*\(train\.lr was 0\.004, is 0\.001\)"):
        train(uninterrupted, lr=1e-3)
    other = replace(SMALL, attention=replace(MOVING, gradient_steps=2), encoder=Strided(8))
    with pytest.raises(ValueError) as error:
        train(uninterrupted, other)
    assert "model.init_args.encoder.init_args.channels was 4, is 8" in str(error.value)
    assert "model.init_args.attention.gradient_steps was {'end': 2" in str(error.value)
    with pytest.raises(ValueError, match=r"data\.name was 'shapes', is 'multi_dsprites'"):
        train(uninterrupted, scenes=DataConfig("multi_dsprites"))
    with pytest.raises(FileExistsError, match="already holds a run"):
        training.train(fitted(), uninterrupted, resume=False, progress=False)


def test_what_does_not_change_the_run_may_differ(tmp_path):
    train(tmp_path / "one", STRANGE, stop_at=6)
    changes = dict(log_every=2, eval_every=5, save_every=4, workers=1)
    whole = train(tmp_path / "one", STRANGE, **changes).state_dict()
    assert same(whole, train(tmp_path / "two", STRANGE).state_dict())


def test_a_run_may_be_made_longer_where_its_schedule_does_not_depend_on_its_length(tmp_path):
    plain, steady = StrangerConfig(), dict(decay="halving", halving_steps=10, eval_images=2)
    train(tmp_path / "one", plain, **steady, steps=6)
    longer = train(tmp_path / "one", plain, **steady)
    assert same(longer.state_dict(), train(tmp_path / "two", plain, **steady).state_dict())
    for name, config, how in (
        ("ramp", STRANGE, steady),
        ("cosine", plain, {"eval_images": 2}),
        ("minutes", plain, {**steady, "minutes": 0.005}),
    ):
        train(tmp_path / name, config, **how, steps=6, stop_at=3)
        with pytest.raises(ValueError, match=r"\(train\.steps was 6, is 12\)"):
            train(tmp_path / name, config, **how, stop_at=3)


def test_the_same_files_may_lie_elsewhere(tmp_path):
    export(data.make("shapes", 20, seed=7, **SCENES.options), tmp_path / "here", "folder")
    options = dict(batch_size=4, eval_images=4)
    train(tmp_path / "run", STRANGE, DataConfig(str(tmp_path / "here")), **options, stop_at=6)
    (tmp_path / "here").rename(tmp_path / "there")
    train(tmp_path / "run", STRANGE, DataConfig(str(tmp_path / "there")), **options)
    assert read_log(tmp_path / "run")["step"][-1] == 12
    export(data.make("shapes", 20, seed=8, **SCENES.options), tmp_path / "others", "folder")
    with pytest.raises(ValueError, match=r"data\.name was .*there', is .*others'"):
        train(tmp_path / "run", STRANGE, DataConfig(str(tmp_path / "others")), **options)


# --- what is refused ---


@pytest.mark.parametrize("field", ["steps", "batch_size", "accumulate", "eval_every", "save_every", "eval_images"])
def test_sizes_below_one_are_named(field):
    with pytest.raises(ValueError, match=rf"train\.{field} must be at least 1, got 0"):
        replace(SHORT, **{field: 0})


@pytest.mark.parametrize("field", ["clip", "lr", "seed", "warmup_steps", "workers", "minutes"])
@pytest.mark.parametrize("value", [-3, math.nan, math.inf])
def test_numbers_out_of_range_are_named(field, value):
    # A negative clip used to turn gradients around: the run climbed the loss and said nothing.
    with pytest.raises(ValueError, match=rf"train\.{field} must be at least 0, got {value}"):
        replace(SHORT, **{field: value})


def test_a_device_that_is_not_there_is_named(tmp_path):
    missing = "cuda" if sys.platform == "darwin" else "mps"
    with pytest.raises(ValueError, match=rf"train\.accelerator='{missing}'.*not available"):
        train(tmp_path, accelerator=missing)


def test_a_batch_that_cannot_be_cut_up_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"train\.batch_size must be a multiple of 1 devices × 3 parts, got 8"):
        train(tmp_path, accumulate=3)


def test_a_loss_that_explodes_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"the loss is (nan|inf) at step|if the loss exploded, try"):
        train(tmp_path, lr=1e12, clip=0.0, warmup_steps=0, log_every=1)


def test_a_tiling_model_is_warned_of_once_and_again_at_the_end(tmp_path, monkeypatch, caplog):
    tiles = torch.eye(4).repeat_interleave(2, dim=1).expand(16, 4, 8).reshape(16, 4, 2, 4)
    signs = diagnose(tiles)
    monkeypatch.setattr(SlotAutoencoder, "look", lambda model, scenes: Look({}, signs._asdict(), warnings(signs)))
    with caplog.at_level(logging.WARNING):
        train(tmp_path)
    warning, again = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("step 6: tiling: the masks hardly move between images")
    assert again == warning.replace("step 6:", "the trained model:")
    assert read_log(tmp_path)["stillness"][1] == pytest.approx(1)


# --- files ---


def test_training_on_files_keeps_the_last_scenes_for_evaluation(tmp_path, caplog):
    scenes = data.make("shapes", 40, seed=7, **SCENES.options)
    export(scenes, tmp_path / "t", "folder")
    (tmp_path / "t" / "images" / "000023.png").write_bytes(b"damaged")
    files, options = DataConfig(str(tmp_path / "t"), options={"on_error": "skip"}), dict(steps=2, batch_size=24)
    model = train(tmp_path / "run", scenes=files, **options, eval_images=16)
    assert "1 scenes of" in caplog.text
    (scores,) = zoo.load(tmp_path / "run" / "model").card["metrics"]
    assert (scores["images"], scores["scenes"]) == (16, "last of the files")
    again = evaluate(model, data.Kept(scenes.part(24, 40)))
    assert scores["mse"] == pytest.approx(again.means["mse"], abs=1e-5)
    with pytest.raises(ValueError, match="holds 40 scenes; 40 are kept for evaluation"):
        train(tmp_path / "other", scenes=files, **options, eval_images=40)


def test_scenes_without_masks_train_and_report_their_error_only(tmp_path):
    export(data.make("shapes", 20, **SCENES.options), tmp_path / "t", "folder")
    shutil.rmtree(tmp_path / "t" / "masks")
    train(tmp_path / "run", scenes=DataConfig(str(tmp_path / "t")), steps=1, eval_images=4)
    (scores,) = zoo.load(tmp_path / "run" / "model").card["metrics"]
    assert "mse" in scores
    assert "drawn_fg_ari" not in scores
