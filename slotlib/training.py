"""The training loop (chapter 10; chapter 03 writes it out by hand).

One function, `train`, that reads from top to bottom: set up, step, look, save. It knows no model: what a model takes of
a scene, its loss and schedule, how it is judged and what is worth a look, the model says (`slotlib.model`). Lightning
Fabric carries it to a GPU, to bf16 or to several devices; everything else is plain PyTorch.

Nothing in it has hidden state. The scenes of step t, the noise of step t and, with a budget in steps, the learning rate
and every ramp at step t are functions of t and the seed, so a run that was killed and resumed ends with the same
weights as one that was not. Nor do scenes and noise depend on how a batch is cut up: several devices, or several parts
one after another (`accumulate`), take the steps that one process with the whole batch would.
"""

import hashlib
import logging
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from slotlib import checkpoint, configuration, data, zoo
from slotlib.data import random
from slotlib.data.light import Light, changed
from slotlib.data.scenes import Source, each
from slotlib.evaluation import evaluate, measured
from slotlib.log import Log
from slotlib.model import Draws, Look, Model
from slotlib.version import __version__

if TYPE_CHECKING:
    from lightning_fabric import Fabric

logger = logging.getLogger(__name__)


@dataclass
class DataConfig:
    name: str = "tetrominoes"
    """A generator (see `slotlib.data.make`), or the path of a file or folder (see `slotlib.data.read`)."""
    size: int = 1_000_000
    """Training scenes, of a file at most; when they are used up they are used again in another order."""
    keep: bool = False
    """Draw all `size` scenes before training and keep them in memory, images as bytes: for scenes that take longer to
    draw than to learn from (of a file or folder, to read). What a model can compute of them once and for all, such as
    codes, is kept instead."""
    options: dict[str, Any] = field(default_factory=dict)
    """The generator's own, such as {"num_objects": [2, 4]}, or the reader's, such as {"on_error": "skip"}."""
    light: Light = field(default_factory=Light)
    """How far the light of training images is changed, by fresh random numbers at every step; those of evaluation stay
    as they are."""


@dataclass
class TrainConfig:
    """How to train. Defaults are the paper's (Locatello et al., 2020, appendix E.3)."""

    steps: int = 500_000
    """Updates of the weights."""
    minutes: float = 0.0
    """Train for this many minutes instead of `steps` steps, evaluation and saving included; 0: by steps. The schedule
    then follows the time, and its step counts are understood as parts of `steps`: see `schedule_position`."""
    stop_at: int = 0
    """End at this step, although the schedule is made for `steps`; 0: at its end."""
    batch_size: int = 64
    """Scenes per step, over all devices together."""
    accumulate: int = 1
    """Parts in which each device works through its share of a batch, to save memory; the step is the same."""
    seed: int = 0
    """Of initial weights, scenes and noise."""
    start_from: str = ""
    """A checkpoint, shipped or a path, whose weights a new run starts with where name and shape agree: of an
    autoencoder a set predictor takes the encoder and slot attention."""
    start_parts: list[str] = field(default_factory=list)
    """Take over only weights whose names begin with one of these, such as ["encoder"]; empty: all."""
    lr: float = 4e-4
    """Of Adam, before warm-up and decay."""
    warmup_steps: int = 10_000
    """The learning rate rises linearly to `lr`, times the decay, which runs from step 0."""
    decay: Literal["halving", "cosine", "constant"] = "halving"
    """How the learning rate falls: by half every `halving_steps`, along a cosine to 0 at the end, or not at all."""
    halving_steps: int = 100_000
    """Steps in which the learning rate halves (decay="halving")."""
    clip: float = 0.0
    """Largest gradient norm; 0 leaves gradients as they are."""
    eval_every: int = 5_000
    """Steps between evaluations; the last step is always evaluated. Like the next ones, really steps, not time."""
    eval_images: int = 320
    """Held-out scenes to score."""
    log_every: int = 100
    """Steps between rows of the log."""
    save_every: int = 5_000
    """Steps between checkpoints of the whole training state; the last step is always saved."""
    workers: int = 0
    """Processes that prepare batches. Generated scenes rarely need any: without, they are drawn on the device."""
    accelerator: str = "auto"
    """What Lightning Fabric calls it: auto, cpu, cuda, mps."""
    devices: int = 1
    """How many to share each batch among."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """What Lightning Fabric calls it."""
    compile: bool = False
    """Compile the loss (torch.compile). Takes a minute or so, at each jump of a ramp again."""

    def __post_init__(self) -> None:
        counts = "steps", "batch_size", "accumulate", "halving_steps", "devices"
        every = "eval_every", "eval_images", "log_every", "save_every"
        for name, value in asdict(self).items():
            least = 1 if name in (*counts, *every) else 0  # a negative `clip`, for one, would climb, not descend
            if isinstance(value, int | float) and not least <= value < math.inf:  # nor is NaN in any range
                raise ValueError(f"train.{name} must be at least {least}, got {value}")
        if self.stop_at > self.steps:
            raise ValueError(f"train.stop_at must lie in 0..{self.steps}, the steps, got {self.stop_at}")


@dataclass
class Config:
    """A training run: the model, the scenes, the schedule. The YAML files in `slotlib/configs` fill one of these."""

    model: Any
    """The configuration of any `slotlib.model.Model`: its dataclass."""
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def plain(self) -> dict[str, Any]:
        """As YAML holds it, and a card."""
        kind = Model.defined_by(self.model)
        return {
            "model": {"class_path": configuration.path(kind), "init_args": configuration.plain(self.model)},
            "data": configuration.plain(self.data),
            "train": configuration.plain(self.train),
        }


def schedule_position(step: int, seconds: float, config: TrainConfig) -> float:
    """Where in its schedule a run is that has taken `step` steps in `seconds`: from 0, and over at `config.steps`.

    By steps that is `step`. By minutes it is the part of the time that has passed, as a part of `config.steps`: a
    ramp that begins at a third of the schedule begins after a third of the minutes, on any machine.
    """
    return config.steps * seconds / (60 * config.minutes) if config.minutes else step


def learning_rate(position: float, config: TrainConfig) -> float:
    """The learning rate at `position` of the schedule (of step t: t, counted from 0): linear warm-up times decay.

    With decay="halving" this is the official schedule, where the decay runs from step 0 and not from the end of the
    warm-up.
    """
    warmup = min(1.0, (position + 1) / max(1, config.warmup_steps))
    if config.decay == "halving":
        decay = 0.5 ** (position / config.halving_steps)
    elif config.decay == "cosine":
        decay = 0.5 * (1 + math.cos(math.pi * position / config.steps))
    else:
        decay = 1.0
    return config.lr * warmup * decay


def scene_order(size: int, batch_size: int, seed: int, first_step: int, rank: int, world: int) -> Iterator[list[int]]:
    """This process' share of each batch, endlessly, from `first_step` on. Every epoch is shuffled by its number."""
    epoch, order = -1, torch.empty(0)
    for step in range(first_step, 2**62):
        chosen = []
        for position in range(step * batch_size + rank, (step + 1) * batch_size, world):
            if position // size != epoch:
                epoch = position // size
                order = torch.randperm(size, generator=torch.Generator().manual_seed(seed + epoch))
            chosen.append(int(order[position % size]))
        yield chosen


def step_generator(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """The noise of one step's batch: a function of its arguments, so resuming needs no saved random state. Streams are
    independent of each other."""
    key = random.uniform(seed, torch.tensor([step]), 1, stream)
    return torch.Generator().manual_seed(int(key * 2**53))


def versions() -> dict[str, str]:
    """What a number may depend on."""
    return {"slotlib": __version__, "torch": torch.__version__, "python": platform.python_version()}


# --- batches ---


def _batches(
    model: Model,
    scenes: Source,
    step: int,
    config: Config,
    fabric: "Fabric",
    progress: bool,
    reached: Callable[[], float],
) -> Iterator[tuple[Tensor, ...]]:
    """What `loss` takes in one step after another, from `step` on, on the device of this process. `reached` says where
    in its schedule the run is."""
    options, share = config.train, (fabric.global_rank, fabric.world_size)
    order = scene_order(len(scenes), options.batch_size, options.seed, step, *share)
    if config.data.keep:
        scenes = data.Kept(scenes, fabric.device, progress)
        kept = _computed_once(model, scenes, options.seed, progress)
        if kept is not None:
            if config.data.light != Light():
                raise ValueError(
                    "data.light changes images at every step, but this model reads them once: leave it out"
                )
            for index in order:
                yield tuple(tensor[index] for tensor in kept)
            return
    cuda = fabric.device.type == "cuda"
    if options.workers and not config.data.keep:  # from pinned memory batches are copied to a GPU without waiting
        drawn = DataLoader(scenes, batch_sampler=order, num_workers=options.workers, pin_memory=cuda)
    else:  # on a GPU generated scenes are drawn there, and never cross from the processor's memory
        drawn = (scenes.batch(index, fabric.device if cuda else "cpu") for index in order)
    for batch in drawn:
        draws = Draws(step_generator(options.seed, step, stream=1), *share)
        batch = {**batch, "image": changed(batch["image"], config.data.light, reached(), draws)}
        inputs = tuple(tensor.contiguous().to(fabric.device, non_blocking=True) for tensor in model.inputs(batch))
        # A generator of its own: what the loss draws in this step must not be the same numbers.
        kept = model.kept(*inputs, draws=Draws(step_generator(options.seed, -1 - step), *share))
        yield inputs if kept is None else kept
        step += 1


def _computed_once(model: Model, scenes: Source, seed: int, progress: bool) -> tuple[Tensor, ...] | None:
    """What the model makes of all scenes once and for all; None if it makes nothing."""
    was_training, parts, device = model.training, [], next(model.parameters()).device
    model.eval()
    for step, batch in enumerate(scenes.batches("reading scenes" if progress else "", device)):
        kept = model.kept(*model.inputs(batch), draws=Draws(step_generator(seed, step)))
        if kept is None:
            break
        parts.append(kept)
    model.train(was_training)
    return tuple(torch.cat(column) for column in zip(*parts, strict=True)) if parts else None


def _backward(
    fabric: "Fabric", model: Any, batch: tuple[Tensor, ...], step: int, options: TrainConfig
) -> Float[Tensor, ""]:
    """Gradients of the whole batch's loss, of which this process holds `batch`. Returns the mean loss of this share.

    Part by part, each a share of the whole; after the last one the devices exchange gradients.
    """
    rank, world, parts = fabric.global_rank, fabric.world_size, options.accumulate
    total = torch.zeros((), device=fabric.device)
    for part in range(parts):
        draws = Draws(step_generator(options.seed, step), rank + world * part, world * parts)
        with fabric.no_backward_sync(model, enabled=part < parts - 1):
            try:
                with fabric.autocast():
                    inputs = tuple(tensor[part::parts] for tensor in batch)
                    loss = model.loss(*inputs, draws=draws) / parts
            except ValueError as error:  # slot attention refuses NaN, before the loss shows it
                hint = "; if the loss exploded, try a lower learning rate or clip=1" if step else ""
                raise ValueError(f"step {step + 1}: {error}{hint}") from error
            fabric.backward(loss)
        total += loss.detach()
    return total


# --- resuming ---

FREE = frozenset({"train.stop_at", "train.log_every", "train.eval_every", "train.save_every", "train.workers"})
"""Fields that a resumed run may change: they do not change what it learns."""


def fingerprint(scenes: Source) -> dict[str, Any]:
    """How a run knows its scenes again, wherever they lie now: their number, and the SHA-256 of the first image."""
    image = scenes.batch([0])["image"].contiguous()
    return {"count": len(scenes), "first": hashlib.sha256(image.numpy().tobytes()).hexdigest()}


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Fields of plain configurations that differ, by their dotted names: what they were and what they are."""
    found = {}
    for name in [*before, *(name for name in now if name not in before)]:
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found |= differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found[f"{prefix}{name}"] = old, new
    return found


def _check_same(folder: Path, card: Mapping[str, Any], config: Config, scenes: Mapping[str, Any], model: Model) -> None:
    """Raises ValueError naming the fields in which the run in `folder` was another. `scenes` is their fingerprint."""
    now = config.plain()
    changed = {name: pair for name, pair in differences(card["configuration"], now).items() if name not in FREE}
    if "data.name" in changed and card.get("scenes") == scenes:
        del changed["data.name"]  # the same files, in another place
    # More steps are the same run as far as the schedule does not depend on how many there are.
    if not (config.train.minutes or config.train.decay == "cosine" or model.has_schedule):
        changed.pop("train.steps", None)
    if changed:
        raise another_run(folder, changed)


def another_run(folder: Path, changed: Mapping[str, tuple[Any, Any]]) -> ValueError:
    """The refusal of a folder whose run differs in these fields."""
    said = "; ".join(f"{name} was {old!r}, is {new!r}" for name, (old, new) in changed.items())
    return ValueError(f"{folder} holds a run of another configuration; choose another folder ({said})")


# --- the loop ---


def train(config: Config, folder: Path | str, resume: bool = True, progress: bool = True) -> Model:
    """Train a model. `folder` gets checkpoints, `log.csv`, TensorBoard's files and, at the end, `model` and its card.

    Args:
        config: the whole run.
        folder: one folder per run. A run that was interrupted there goes on from its last checkpoint. What does not
            change the run may then be other than it was: see `FREE`, the place of the same files, and more steps where
            neither a ramp nor the learning rate depends on how many there are.
        resume: False starts anew and raises if the folder already holds a run.
        progress: show a progress bar, in a terminal or notebook.

    Returns the trained model, in eval mode, on the device it was trained on, where its schedule has brought it.

    Raises:
        FileExistsError: the folder holds a run and `resume` is False.
        ValueError: the folder holds a run of another configuration, a damaged checkpoint, or bad fields; or the loss
            is no longer finite.
        OSError: the folder cannot be written to, or the disk is full. The last checkpoint is then still there.
    """
    from lightning_fabric import Fabric  # slow to import

    options, folder = config.train, Path(folder)
    end = options.stop_at or options.steps
    try:
        fabric = Fabric(
            accelerator=options.accelerator,
            devices=options.devices,
            # Parameters without a gradient are normal here: under the implicit gradient μ and σ never get one.
            strategy="auto" if options.devices == 1 else "ddp_find_unused_parameters_true",
            precision=options.precision,
        )
    except RuntimeError as error:
        raise ValueError(f"train.accelerator={options.accelerator!r}: {error}") from None
    fabric.launch()
    if options.batch_size % (fabric.world_size * options.accumulate):
        raise ValueError(
            f"train.batch_size must be a multiple of {fabric.world_size} devices × {options.accumulate} parts, "
            f"got {options.batch_size}"
        )

    # Set up.
    torch.manual_seed(options.seed)  # the initial weights; every later draw has a generator of its own
    network = Model.defined_by(config.model)(config.model)
    optimizer = torch.optim.Adam([each for each in network.parameters() if each.requires_grad], lr=options.lr)
    scenes, held_out = data.held_out(
        config.data.name, config.data.size, options.eval_images, options.seed, **config.data.options
    )
    seen = fingerprint(scenes)
    step, seconds, reached, before = 0, 0.0, 0.0, [*network.before]
    saved = checkpoint.steps_saved(checkpoint.writable_folder(folder))  # nothing is written for what does not fit
    if saved:
        if not resume:
            raise FileExistsError(f"{folder} already holds a run; choose another folder or resume it")
        state, card = checkpoint.load_tensors(saved[-1])
        _check_same(folder, card, config, seen, network)
        checkpoint.restore_state(state, network, optimizer)
        step, seconds, reached, before = (card[name] for name in ("step", "seconds", "progress", "before"))
        logger.info("resuming %s at step %d", folder, step)
    elif options.start_from:
        before += _start_from(network, options.start_from, options.start_parts)
    model, optimizer = fabric.setup(network, optimizer)
    model.mark_forward_method("loss")
    if options.compile:
        network.loss = torch.compile(network.loss)
    network.at(reached)
    if not saved:
        some = each(scenes.batch(range(min(100, len(scenes)))), lambda tensor: tensor.to(fabric.device))
        network.prepare(some, Draws(step_generator(options.seed, 0)))
    batches = _batches(network, scenes, step, config, fabric, progress, lambda: position / options.steps)
    log = None
    if fabric.is_global_zero:
        log = Log(folder, ("loss", "lr", "grad_norm", *_measures(network, held_out)), step)
    warned: Mapping[str, str] = {}
    bar = tqdm(
        initial=step,
        total=None if options.minutes else end,
        disable=None if progress and fabric.is_global_zero else True,
    )
    started = time.perf_counter() - seconds
    position = schedule_position(step, seconds, options)
    network.train()
    while position < end:
        # Step.
        batch = next(batches)
        lr = learning_rate(position, options)
        for group in optimizer.param_groups:
            group["lr"] = lr
        reached = position / options.steps
        network.at(reached)
        optimizer.zero_grad()
        values = {"loss": _backward(fabric, model, batch, step, options), "lr": lr}
        if options.clip:
            values["grad_norm"] = fabric.clip_gradients(
                model, optimizer, max_norm=options.clip, error_if_nonfinite=False
            )
        optimizer.step()
        network.update(Draws(step_generator(options.seed, step)))
        step += 1
        bar.update()

        # Where are we? Processes must agree on when to stop, so by minutes all go by the first one's clock.
        seconds = time.perf_counter() - started
        position = schedule_position(step, fabric.broadcast(seconds) if options.minutes else seconds, options)
        last = position >= end
        logs, evaluates, saves = (
            last or step % every == 0 for every in (options.log_every, options.eval_every, options.save_every)
        )
        if not (logs or evaluates or saves):
            continue
        values["loss"] = fabric.all_reduce(values["loss"])
        values = {name: float(value) for name, value in values.items()}
        if not math.isfinite(values["loss"]):
            raise ValueError(f"the loss is {values['loss']} at step {step}; try a lower learning rate or clip=1")
        if log is None:  # the first process says and saves it all
            continue

        # Look.
        bar.set_postfix(loss=f"{values['loss']:.4f}")
        scores, signs = {}, {}
        if evaluates:
            scores = evaluate(network, held_out, options.eval_images).means
            pictures, signs, found = _look(network, held_out)
            log.pictures(step, pictures)
            leading = next((name for name, score in scores.items() if not math.isnan(score)), next(iter(scores)))
            logger.info("step %d: loss %.4f, %s %.3f", step, values["loss"], leading, scores[leading])
            for kind in [kind for kind in found if kind not in warned]:
                logger.warning("step %d: %s", step, found[kind])
            warned = found
        if logs or evaluates:
            log.numbers(step, seconds, train=values, eval=scores, signs=signs)
        if saves:
            log.flush()
            card = {
                "seconds": time.perf_counter() - started,
                "progress": reached,
                "before": before,
                "configuration": config.plain(),
                "scenes": seen,
            }
            checkpoint.save_state(folder, step, network, optimizer.optimizer, card)
    bar.close()

    for text in warned.values():  # they may have been said long ago
        logger.warning("the trained model: %s", text)
    if skipped := scenes.skipped + held_out.skipped:
        logger.warning("%d scenes of %s could not be read and were skipped", skipped, config.data.name)
    network.__dict__.pop("loss", None)  # the compiled one, if any
    network.eval()
    if log is not None:
        log.close()
        checkpoint.save(
            network,
            folder / "model",
            {
                "progress": reached,
                "dataset": {**configuration.plain(config.data), "name": _address(config.data.name)},
                "training": asdict(options),
                "scenes": seen,
                **({"before": before} if before else {}),
                "metrics": [measured(network, held_out, options.eval_images)],
                "wall_seconds": round(time.perf_counter() - started, 1),
                "device": str(fabric.device),
                "versions": versions(),
            },
        )
    fabric.barrier()
    return network


def _address(name: str) -> str:
    """A dataset's name as it is understood from any folder."""
    return str(Path(name).resolve()) if name not in data.GENERATORS and Path(name).exists() else name


def _start_from(model: Model, name: str, parts: list[str]) -> list[Mapping[str, Any]]:
    """Take over another model's weights. Returns how they were trained, by stages. Raises ValueError if none fit."""
    source = zoo.load(name)
    shared = model.start_from(source, parts)
    if not shared:
        of = f" that begins with {' or '.join(parts)}" if parts else ""
        raise ValueError(f"train.start_from: no weight of {name}{of} fits a {type(model).__name__} of this size")
    logger.info("starting from %s: %d of %d weights", name, shared, len(model.state_dict()))
    return source.trained()


def _look(model: Model, scenes: Source, count: int = 64) -> Look:
    """What the model makes of the first `count` held-out scenes."""
    device, was_training = next(model.parameters()).device, model.training
    batch = each(scenes.batch(range(min(count, len(scenes)))), lambda tensor: tensor.to(device))
    look = model.eval().look(batch)
    model.train(was_training)
    return look


def _measures(model: Model, scenes: Source) -> list[str]:
    """What evaluations will measure. One scene is judged for that, so a judge that fails does so before training."""
    return [*evaluate(model, scenes, 1).means, *_look(model, scenes, 1).signs]
