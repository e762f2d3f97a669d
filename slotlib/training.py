"""The training loop (chapter 09; chapter 03 writes it out by hand).

One function, `train`, that reads from top to bottom: set up, step, look, save. Lightning Fabric carries it to a GPU, to
bf16 or to several devices; everything else is plain PyTorch.

Nothing in it has hidden state. The scenes of step t, the noise of step t and, with a budget in steps, the learning rate
of step t are functions of t and the seed, so a run that was killed and resumed ends with the same weights as one that
was not. Nor do scenes and noise depend on how a batch is cut up: several devices, or several parts one after another
(`accumulate`), take the steps that one process with the whole batch would.
"""

import json
import logging
import math
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm.auto import tqdm

from slotlib import data, diagnosis, metrics, plots, zoo
from slotlib.autoencoder import AutoencoderConfig, SlotAutoencoder
from slotlib.data.clevr_folder import CATEGORIES, clevr_targets
from slotlib.data.files import Files, read
from slotlib.log import Log, read_log
from slotlib.patches import PatchConfig
from slotlib.prior import WithPrior
from slotlib.set_prediction import SetPredictor, SetPredictorConfig
from slotlib.svq import SVQAutoencoder, SVQConfig, merge_synonyms
from slotlib.vq import use

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = [
    "CodeEvaluation",
    "Config",
    "DataConfig",
    "Evaluation",
    "SetEvaluation",
    "TrainConfig",
    "evaluate",
    "held_out_part",
    "learning_rate",
    "measured",
    "read_log",
    "scene_order",
    "schedule_position",
    "step_generator",
    "train",
    "versions",
]

logger = logging.getLogger(__name__)


@dataclass
class DataConfig:
    name: str = "tetrominoes"
    """One of `slotlib.data.GENERATORS`, or the path of a file or folder (see `slotlib.data.files.read`)."""
    size: int = 1_000_000
    """Training scenes, of a file at most; when they are used up they are used again in another order."""
    keep: bool = False
    """Draw all `size` scenes before training and keep their images in memory, as bytes: for scenes that take longer to
    draw than to learn from (of a file or folder, to read). A prior then also has their codes written once and for
    all."""
    options: dict[str, Any] = field(default_factory=dict)
    """The generator's own, such as {"num_objects": [2, 4]}, or the reader's, such as {"on_error": "skip"}."""


@dataclass
class TrainConfig:
    """How to train. Defaults are the paper's (Locatello et al., 2020, appendix E.3)."""

    steps: int = 500_000
    minutes: float = 0.0
    """Train for this many minutes instead of `steps` steps, evaluation and saving included; 0: by steps. The schedule
    below then follows the time, and its step counts are understood as parts of `steps`: see `schedule_position`."""
    stop_at: int = 0
    """End at this step, although the schedule is made for `steps`; 0: at its end."""
    batch_size: int = 64
    """Scenes per step, over all devices together."""
    accumulate: int = 1
    """Parts in which each device works through its share of a batch, to save memory; the step is the same."""
    seed: int = 0
    start_from: str = ""
    """A checkpoint, shipped or a path, whose weights a new run starts with where name and shape agree: of an
    autoencoder a set predictor takes the encoder and slot attention."""
    start_parts: list[str] = field(default_factory=list)
    """Take over only weights whose names begin with one of these, such as ["encoder"]; empty: all."""
    lr: float = 4e-4
    warmup_steps: int = 10_000
    """The learning rate rises linearly to `lr`, times the decay, which runs from step 0."""
    decay: Literal["halving", "cosine", "constant"] = "halving"
    halving_steps: int = 100_000
    """Steps in which the learning rate halves (decay="halving")."""
    one_step_until: int = 0
    """Before this step gradients flow through the last iteration only. That finds objects sooner and stands a higher
    learning rate; the model's own gradient then teaches the iterations to leave bad starts."""
    one_colour_until: int = 0
    """Before this step slots paint in one colour each (colour="shaded" only). A slot that may paint anything from the
    start often learns a *place* instead of an object: the model tiles the image (chapter 03)."""
    shading_steps: int = 0
    """Steps in which shading then fades in. At once it can wash out what was learned: Adam's first steps are large."""
    noise_start: float = 0.0
    """Where `model.noise` starts, to fall to its own value along a cosine; without effect unless larger. A tolerant
    start lets slots take hold of objects that they cannot draw yet (likelihood="mixture" only)."""
    noise_steps: int = 0
    """Steps in which it falls; 0: all of them."""
    parsimony_from: int = 0
    """Before this step slots are free; in as many steps again what they cost rises to `model.parsimony`."""
    quantise_from: int = 0
    """Before this step the slots of an `SVQAutoencoder` stay continuous. Codes are then placed among slots that hold
    objects already."""
    colour_from: int = -1
    """Before this step its decoder reads whole slots for colours as for masks, whatever `model.colour_blocks`; -1: as
    long as slots are continuous. Where there are more colours than a few, codes alone are change enough at a time."""
    clip: float = 0.0
    """Largest gradient norm; 0 leaves gradients as they are."""
    eval_every: int = 5_000
    """Steps between evaluations; the last step is always evaluated. Like the next ones, really steps, not time."""
    eval_images: int = 320
    log_every: int = 100
    save_every: int = 5_000
    """Steps between checkpoints of the whole training state; the last step is always saved."""
    workers: int = 0
    """Processes that prepare batches. Generated scenes rarely need any: without, they are drawn on the device."""
    accelerator: str = "auto"
    """What Lightning Fabric calls it: auto, cpu, cuda, mps."""
    devices: int = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    compile: bool = False
    """Compile the loss (torch.compile). Takes a minute or so, at each switch of the schedule again."""


@dataclass
class Config:
    """A training run: the model, the scenes, the schedule. The YAML files in `slotlib/configs` fill one of these."""

    model: AutoencoderConfig | SVQConfig | PatchConfig | SetPredictorConfig = field(default_factory=AutoencoderConfig)
    """Its type says what is trained (`zoo.MODELS`), on images; a `SetPredictor` on CLEVR's objects too."""
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


class Evaluation(NamedTuple):
    """Scores per image; averages alone hide that scenes are either solved or not. Without true masks all but `mse` are
    NaN."""

    fg_ari: Float[Tensor, "images"]
    ari: Float[Tensor, "images"]
    mbo: Float[Tensor, "images"]
    miou: Float[Tensor, "images"]
    mse: Float[Tensor, "images"]
    """Squared error per pixel and channel, in units of [0, 1] images."""
    fg_ari_drawn: Float[Tensor, "images"]
    """FG-ARI of the masks as they are drawn from the slots; differs from `fg_ari` for a mixture only."""

    def means(self) -> dict[str, float]:
        return {name: scores.mean().item() for name, scores in self._asdict().items()}


class CodeEvaluation(NamedTuple):
    """Scores of a model whose latents are codes: as any model's with images, and of the codes, block by block; NaN
    while they are not in use yet."""

    images: Evaluation
    utilisation: Float[Tensor, "blocks"]
    perplexity: Float[Tensor, "blocks"]
    quantisation_error: Float[Tensor, "blocks"]
    nats: Float[Tensor, "images"]
    """Minus the log likelihood of each scene's codes; NaN unless the prior was trained."""

    def means(self) -> dict[str, float]:
        """Of every block, `utilisation_0` and so on, and of all together."""
        scores = {**self.images.means(), "nats": self.nats.mean().item()}
        for name in CODE_MEASURES:
            blocks = getattr(self, name)
            scores |= {name: blocks.mean().item(), **{f"{name}_{i}": one.item() for i, one in enumerate(blocks)}}
        return scores


CODE_MEASURES = "utilisation", "perplexity", "quantisation_error"


class SetEvaluation(NamedTuple):
    """Average precision of predicted sets, over all images together: within any distance, 1, 0.5, 0.25 and 0.125 m."""

    ap_inf: float
    ap_1: float
    ap_0_5: float
    ap_0_25: float
    ap_0_125: float

    def means(self) -> dict[str, float]:
        return self._asdict()


def schedule_position(step: int, seconds: float, config: TrainConfig) -> float:
    """Where in its schedule a run is that has taken `step` steps in `seconds`: from 0, and over at `config.steps`.

    By steps that is `step`. By minutes it is the part of the time that has passed, as a part of `config.steps`: a
    switch at step 3000 of 9000 comes after a third of the minutes, on any machine.
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
    epoch, order = -1, None
    for step in range(first_step, 2**62):
        chosen = []
        for position in range(step * batch_size + rank, (step + 1) * batch_size, world):
            if position // size != epoch:
                epoch = position // size
                order = torch.randperm(size, generator=torch.Generator().manual_seed(seed + epoch))
            chosen.append(int(order[position % size]))
        yield chosen


def step_generator(seed: int, step: int) -> torch.Generator:
    """The noise of one step's batch: a function of its arguments, so resuming needs no saved random state."""
    key = data.random.uniform(seed, torch.tensor([step]), 1)
    return torch.Generator().manual_seed(int(key * 2**53))


@torch.no_grad()
def evaluate(
    model: nn.Module,
    dataset: Dataset,
    images: int = 320,
    batch_size: int = 64,
    seed: int = 0,
    **options: Any,
) -> Evaluation | CodeEvaluation | SetEvaluation:
    """Score a model on the first `images` scenes of `dataset`: its masks (argmax over slots) and codes, or its sets.

    Args:
        model: a `SetPredictor`, or called as a `SlotAutoencoder`; left in the mode it was in.
        dataset: scenes with `image` and, for all scores but the error, `mask`; for sets with CLEVR's `objects`.
        images: how many; at most all there are.
        seed: of the slots' initial noise.
        options: passed to the model: `num_slots`, `num_iterations`, `restarts`.

    Raises ValueError for no images.
    """
    if min(images, len(dataset)) < 1:
        raise ValueError(f"nothing to evaluate on: {images} images asked for, of {len(dataset)} scenes")
    parameter = next(model.parameters())
    generator = torch.Generator().manual_seed(seed)
    was_training = model.training
    model.eval()
    parts, codes, errors, nats = [], [], [], []
    for start in range(0, min(images, len(dataset)), batch_size):
        scenes = range(start, min(start + batch_size, images, len(dataset)))
        batch = default_collate(dataset.__getitems__(list(scenes)))
        image = batch["image"].to(parameter)
        output = model(image, generator=generator, **options)
        if isinstance(model, SetPredictor):
            parts.append((output.properties, _targets(batch).to(parameter)))
            continue
        mse = (output.reconstruction - image).square().mean(dim=(1, 2, 3))
        overlap, drawn = [torch.full_like(mse, math.nan)] * 4, torch.full_like(mse, math.nan)
        if "mask" in batch and output.masks is not None:
            true, found = batch["mask"].to(parameter.device), output.masks.argmax(dim=1)
            scores = metrics.fg_ari, metrics.adjusted_rand_index, metrics.mean_best_overlap, metrics.mean_iou
            overlap = [score(true, found) for score in scores]
            drawn = metrics.fg_ari(true, output.drawn_masks.argmax(dim=1))
        parts.append(Evaluation(*overlap, mse, drawn))
        if isinstance(model, WithPrior):
            codes.append(output.codes)
            errors.append(output.error * len(image))
            known = model.config.learn == "prior" and output.codes.shape[1] == model.prior.num_slots
            nats.append(
                -model.log_likelihood(output.codes, generator=generator) if known else torch.full_like(mse, math.nan)
            )
    model.train(was_training)
    columns = [torch.cat(column).cpu() for column in zip(*parts, strict=True)]
    if isinstance(model, SetPredictor):
        return SetEvaluation(*(metrics.average_precision(*columns, threshold) for threshold in metrics.THRESHOLDS))
    scores = Evaluation(*columns)
    if not codes:
        return scores
    error = torch.stack(errors).sum(dim=0) / len(scores.mse)
    # While slots are continuous the codes that lie closest mean nothing.
    usage = (torch.where(error.isnan(), error, each) for each in use(torch.cat(codes), model.quantizer.num_codes))
    return CodeEvaluation(scores, *usage, error, torch.cat(nats).cpu())


def _training_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Model and optimiser as one flat dict of tensors, for safetensors."""
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in slots.items()}
    return state


def _restore(state: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.load_state_dict({n.removeprefix("model."): t for n, t in state.items() if n.startswith("model.")})
    memory: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            memory.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": memory})


def _start_from(model: nn.Module, checkpoint: str, parts: Sequence[str]) -> list[dict[str, Any]]:
    """Take over the weights of another model where name and shape agree, or those of its `parts`. Returns how they were
    trained, stage by stage.

    Raises ValueError if none do.
    """
    own = model.state_dict()
    source = zoo.load(checkpoint)
    theirs, card = source.state_dict(), source.card
    shared = {
        name: tensor
        for name, tensor in theirs.items()
        if name in own and tensor.shape == own[name].shape and name.startswith(tuple(parts or [""]))
    }
    if not shared:
        of = f" that begins with {' or '.join(parts)}" if parts else ""
        raise ValueError(f"train.start_from: no weight of {checkpoint}{of} fits a {type(model).__name__} of this size")
    model.load_state_dict(shared, strict=False)
    logger.info("starting from %s: %d of %d weights", checkpoint, len(shared), len(own))
    return [*card.get("before", []), {name: card.get(name) for name in ("training", "dataset", "wall_seconds")}]


def _checkpoints(folder: Path) -> list[Path]:
    """Complete training checkpoints in `folder`, oldest first (the card is written last)."""
    return sorted(folder.glob("step_*.json"))


def _save_state(
    folder: Path,
    step: int,
    seconds: float,
    before: list[dict[str, Any]],
    config: Config,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Everything a run needs to go on from here. Older checkpoints, and what a crash left half-written, are removed."""
    card = {"step": step, "seconds": seconds, "before": before, "configuration": asdict(config)}
    newest = zoo.save_tensors(folder / f"step_{step:08d}", _training_state(model, optimizer), card)
    half_written = [path for name in ("step_*", "log.csv", "model.*") for path in folder.glob(f".{name}.*")]
    for old in sorted([*folder.glob("step_*"), *half_written]):
        if old.stem != newest.stem:
            old.unlink()  # .json before .safetensors: without its card a checkpoint no longer counts


def versions() -> dict[str, str]:
    """What a number may depend on."""
    from slotlib import __version__

    return {"slotlib": __version__, "torch": torch.__version__, "python": platform.python_version()}


def held_out_part(files: Files, images: int) -> tuple[Files, Files]:
    """Scenes from files for training, and the last `images`, which are kept for evaluation. Raises ValueError."""
    if len(files) <= images:
        raise ValueError(
            f"{files.path} holds {len(files)} scenes; {images} are kept for evaluation (train.eval_images)"
        )
    return files.part(0, len(files) - images), files.part(len(files) - images, len(files))


def _scenes(config: DataConfig, options: TrainConfig) -> tuple[Dataset, Dataset]:
    """Scenes for training and for the running evaluation, and never one for both."""
    if config.name not in data.GENERATORS and Path(config.name).exists():
        files, held_out = held_out_part(read(config.name, **config.options), options.eval_images)
        return files.part(0, min(config.size, len(files))), held_out
    # Scenes of training, of the running evaluation and of `slotlib evaluate` come from different seeds.
    return (
        data.make(config.name, config.size, seed=2 * options.seed + 1, **config.options),
        data.make(config.name, options.eval_images, seed=2 * options.seed + 2, **config.options),
    )


def measured(model: nn.Module, dataset: Dataset, images: int, seed: int = 0, **options: Any) -> dict[str, Any]:
    """`evaluate`'s means with everything needed to measure them again: an entry for a card's "metrics"."""
    scores = evaluate(model, dataset, images, seed=seed, **options)
    return {
        **{name: round(value, 5) for name, value in scores.means().items() if not math.isnan(value)},
        "images": min(images, len(dataset)),
        **({"scenes_seed": dataset.seed} if isinstance(dataset, data.Scenes) else {"scenes": "last of the files"}),
        "noise_seed": seed,
        **options,
    }


def _targets(batch: Mapping[str, Any]) -> Float[Tensor, "batch objects 19"]:
    """The sets to predict. Raises ValueError unless these are scenes of CLEVR's kind."""
    objects = batch.get("objects", {})
    if missing := {"present", "position", *CATEGORIES} - objects.keys():
        raise ValueError(f"set prediction needs scenes like CLEVR's; these do not tell: {', '.join(sorted(missing))}")
    return clevr_targets(objects)


def _seen(scenes: list[dict[str, Any]], sets: bool) -> tuple[Tensor, ...]:
    """All that training looks at, which `loss` takes in this order: images and, to predict `sets`, their targets."""
    images = torch.stack([scene["image"] for scene in scenes])
    if not sets:
        return (images,)
    return images, _targets(default_collate([{"objects": scene.get("objects", {})} for scene in scenes]))


def _kept(scenes: Dataset, sets: bool, progress: bool) -> tuple[Tensor, ...]:
    """What training looks at in all scenes, drawn 64 at a time, images as bytes."""
    parts = []
    for start in tqdm(range(0, len(scenes), 64), "drawing scenes", disable=None if progress else True):
        images, *targets = _seen(scenes.__getitems__(range(start, min(start + 64, len(scenes)))), sets)
        parts.append(((images * 255).round().byte(), *targets))
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def _written(model: WithPrior, images: UInt8[Tensor, "scenes 3 height width"], seed: int, progress: bool) -> Tensor:
    """The codes of all scenes, for a prior that learns from them again and again."""
    was_training, texts = model.training, []
    model.eval()
    for step, part in enumerate(tqdm(images.split(64), "writing scenes", disable=None if progress else True)):
        texts.append(model.write(part.float() / 255, step_generator(seed, step)))
    model.train(was_training)
    return torch.cat(texts)


def _batches(
    model: nn.Module,
    scenes: Dataset,
    order: Iterator[list[int]],
    sets: bool,
    config: Config,
    fabric: "Fabric",
    progress: bool,
) -> Iterator[tuple[Tensor, ...]]:
    """What training looks at in one batch after another, on the device of this process."""
    if config.data.keep:
        images, *targets = (kept.to(fabric.device) for kept in _kept(scenes, sets, progress))
        if isinstance(model, WithPrior) and config.model.learn == "prior":
            texts = _written(model, images, config.train.seed, progress)
            for index in order:
                yield (texts[index],)
            return
        for index in order:
            yield images[index].float() / 255, *(target[index] for target in targets)
    elif isinstance(scenes, data.Scenes) and not config.train.workers:
        # On a GPU generated scenes are drawn there, and never cross from the processor's memory.
        where = fabric.device if fabric.device.type == "cuda" else "cpu"
        for index in order:
            batch = scenes.draw(scenes.seed, torch.tensor(index, device=where), **scenes.options)
            targets = [_targets(batch)] if sets else []
            yield tuple(tensor.contiguous().to(fabric.device) for tensor in (batch["image"], *targets))
    else:
        # From pinned memory Fabric copies to a GPU without waiting.
        loader = DataLoader(
            scenes,
            batch_sampler=order,
            num_workers=config.train.workers,
            collate_fn=partial(_seen, sets=sets),
            pin_memory=fabric.device.type == "cuda",
        )
        yield from fabric.setup_dataloaders(loader, use_distributed_sampler=False)


def _fade_in(position: float, start: int, steps: int) -> float:
    """0 before `start`, then rising to 1 within `steps`."""
    return min(1.0, max(0.0, (position - start) / steps)) if steps else float(position >= start)


def _switch(model: nn.Module, position: float, options: TrainConfig) -> None:
    """What the schedule holds back until its time: gradients through several iterations, codes, shading, small noise,
    and what slots cost."""
    if hasattr(model, "slot_attention"):
        one_step = position < options.one_step_until
        model.slot_attention.gradient = "implicit" if one_step else model.config.gradient
        model.slot_attention.gradient_steps = 1 if one_step else model.config.gradient_steps
    if not isinstance(model, SlotAutoencoder):
        return
    if isinstance(model, SVQAutoencoder):
        finished = model.config.learn == "prior"
        split_from = options.quantise_from if options.colour_from < 0 else options.colour_from
        model.use_codes(finished or position >= options.quantise_from)
        model.split_colour(finished or position >= split_from)
    if model.config.colour == "shaded":
        model.decoder.shading = _fade_in(position, options.one_colour_until, options.shading_steps)
    end, excess = model.config.noise, max(0.0, options.noise_start - model.config.noise)
    model.noise = end + excess * 0.5 * (
        1 + math.cos(math.pi * min(1.0, position / (options.noise_steps or options.steps)))
    )
    model.parsimony = model.config.parsimony * _fade_in(position, options.parsimony_from, options.parsimony_from)


def _backward(
    fabric: "Fabric", model: nn.Module, batch: tuple[Tensor, ...], step: int, options: TrainConfig
) -> Float[Tensor, ""]:
    """Gradients of the whole batch's loss, of which this process holds `batch`. Returns the mean loss of this share.

    Part by part, each a share of the whole; after the last one the devices exchange gradients.
    """
    rank, world, parts = fabric.global_rank, fabric.world_size, options.accumulate
    total = torch.zeros((), device=fabric.device)
    for part in range(parts):
        generator, share = step_generator(options.seed, step), (rank + world * part, world * parts)
        with fabric.no_backward_sync(model, enabled=part < parts - 1):
            try:
                with fabric.autocast():
                    loss = model.loss(*(tensor[part::parts] for tensor in batch), generator, share) / parts
            except ValueError as error:  # slot attention refuses NaN, before the loss shows it
                hint = "; if the loss exploded, try a lower learning rate or clip=1" if step else ""
                raise ValueError(f"step {step + 1}: {error}{hint}") from error
            fabric.backward(loss)
        total += loss.detach()
    return total


def _check(options: TrainConfig) -> None:
    """Raises ValueError for a number out of its range. A negative `clip`, for one, would climb, not descend."""
    counts = "steps", "batch_size", "accumulate", "halving_steps", "devices"
    every = "eval_every", "eval_images", "log_every", "save_every"
    least = {"colour_from": -1, **dict.fromkeys((*counts, *every), 1)}
    for name, value in asdict(options).items():
        if isinstance(value, int | float) and not least.get(name, 0) <= value < math.inf:  # nor is NaN in any range
            raise ValueError(f"train.{name} must be at least {least.get(name, 0)}, got {value}")
    if options.stop_at > options.steps:
        raise ValueError(f"train.stop_at must lie in 0..{options.steps}, the steps, got {options.stop_at}")


def train(config: Config, folder: Path | str, resume: bool = True, progress: bool = True) -> nn.Module:
    """Train a model. `folder` gets checkpoints, `log.csv`, TensorBoard's files and, at the end, `model` and its card.

    Args:
        config: the whole run.
        folder: one folder per run. A run that was interrupted there goes on from its last checkpoint.
        resume: False starts anew and raises if the folder already holds a run.
        progress: show a progress bar, in a terminal or notebook.

    Returns the trained model, in eval mode, on the device it was trained on.

    Raises:
        FileExistsError: the folder holds a run and `resume` is False.
        ValueError: the folder holds a run of another configuration, a damaged checkpoint, or bad fields; or the loss
            is no longer finite.
        OSError: the folder cannot be written to, or the disk is full. The last checkpoint is then still there.
    """
    from lightning_fabric import Fabric

    options, folder = config.train, zoo.writable_folder(folder)
    _check(options)
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

    learns_prior = getattr(config.model, "learn", "") == "prior"
    if options.start_parts and learns_prior:
        raise ValueError(
            f"the prior needs the whole autoencoder; train.start_parts must be [], got {options.start_parts}"
        )
    if getattr(config.model, "write_restarts", 1) > 1 and not config.data.keep:
        raise ValueError(f"model.write_restarts={config.model.write_restarts} needs data.keep=true")
    torch.manual_seed(options.seed)  # the initial weights; every later draw has a generator of its own
    sets = isinstance(config.model, SetPredictorConfig)
    kinds = {fields: kind for kind, fields in zoo.MODELS.values()}
    model = kinds[type(config.model)](config.model)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
    step, seconds, before = 0, 0.0, []
    if saved := _checkpoints(folder):
        if not resume:
            raise FileExistsError(f"{folder} already holds a run; choose another folder or resume it")
        state, card = zoo.load_tensors(saved[-1])
        if card["configuration"] != json.loads(json.dumps(asdict(config))):  # tuples come back as lists
            raise ValueError(f"{folder} holds a run of another configuration; choose another folder")
        _restore(state, model, optimizer)
        step, seconds, before = card["step"], card["seconds"], card.get("before", [])
        logger.info("resuming %s at step %d", folder, step)
    elif options.start_from:
        before = _start_from(model, options.start_from, options.start_parts)
    elif learns_prior:
        raise ValueError('model.learn="prior" needs a finished autoencoder: name its checkpoint in train.start_from')
    model, optimizer = fabric.setup(model, optimizer)
    model.mark_forward_method("loss")
    network = model.module  # without Fabric's wrapping
    if options.compile:
        network.loss = torch.compile(network.loss)

    scenes, held_out = _scenes(config.data, options)
    if not saved and learns_prior and isinstance(network, SVQAutoencoder):
        some, *_ = _seen(scenes.__getitems__(range(min(100, len(scenes)))), sets)
        some, generator = some.to(fabric.device), step_generator(options.seed, 0)
        network.eval()
        if config.model.synonyms:
            words = merge_synonyms(network, some, config.model.synonyms, generator)
            logger.info("words of each block, synonyms merged: %s", ", ".join(str(len(groups)) for groups in words))
        if config.model.blanks:
            logger.info("empty slots are written %s", network.find_blank(some, generator).tolist())
        network.train()
    order = scene_order(len(scenes), options.batch_size, options.seed, step, fabric.global_rank, fabric.world_size)
    batches = _batches(network, scenes, order, sets, config, fabric, progress)
    if fabric.is_global_zero:
        measures = SetEvaluation._fields if sets else (*Evaluation._fields, *diagnosis.Diagnosis._fields)
        if isinstance(network, WithPrior):
            blocks = range(config.model.num_blocks)
            measures += ("nats", *(f"{name}{i}" for name in CODE_MEASURES for i in ("", *(f"_{b}" for b in blocks))))
        log = Log(folder, ("loss", "lr", "grad_norm", *measures), step)
    warned: dict[str, str] = {}
    bar = tqdm(
        initial=step,
        total=None if options.minutes else end,
        disable=None if progress and fabric.is_global_zero else True,
    )
    started = time.perf_counter() - seconds
    position = schedule_position(step, seconds, options)
    while position < end:
        # Step.
        batch = next(batches)
        lr = learning_rate(position, options)
        for group in optimizer.param_groups:
            group["lr"] = lr
        _switch(network, position, options)
        optimizer.zero_grad()
        values = {"loss": _backward(fabric, model, batch, step, options), "lr": lr}
        if options.clip:
            values["grad_norm"] = fabric.clip_gradients(
                model, optimizer, max_norm=options.clip, error_if_nonfinite=False
            )
        optimizer.step()
        if isinstance(network, WithPrior):
            network.update(step_generator(options.seed, step))
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
        if not fabric.is_global_zero:
            continue

        # Look.
        bar.set_postfix(loss=f"{values['loss']:.4f}")
        scores, signs = {}, {}
        if evaluates:
            scores = evaluate(network, held_out, options.eval_images).means()
            pictures, signs = _look(network, held_out)
            log.pictures(step, pictures)
            leading = next((name for name, score in scores.items() if not math.isnan(score)), next(iter(scores)))
            logger.info("step %d: loss %.4f, %s %.3f", step, values["loss"], leading, scores[leading])
            found = diagnosis.warnings(signs) if signs else {}
            for kind in [kind for kind in found if kind not in warned]:
                logger.warning("step %d: %s", step, found[kind])
            warned, signs = found, signs._asdict() if signs else {}
        if logs or evaluates:
            log.numbers(step, seconds, train=values, eval=scores, masks=signs)
        if saves:
            log.flush()
            _save_state(folder, step, time.perf_counter() - started, before, config, network, optimizer.optimizer)
    bar.close()

    if skipped := getattr(scenes, "skipped", 0) + getattr(held_out, "skipped", 0):
        logger.warning("%d scenes of %s could not be read and were skipped", skipped, config.data.name)
    network.__dict__.pop("loss", None)  # the compiled one, if any
    _switch(network, options.steps, options)
    network.eval()
    if fabric.is_global_zero:
        log.close()
        zoo.save(
            network,
            folder / "model",
            {
                "dataset": asdict(config.data),
                "training": asdict(options),
                **({"before": before} if before else {}),
                "metrics": [measured(network, held_out, options.eval_images)],
                "wall_seconds": round(time.perf_counter() - started, 1),
                "device": str(fabric.device),
                "versions": versions(),
            },
        )
    fabric.barrier()
    return network


@torch.no_grad()
def _look(model: nn.Module, dataset: Dataset) -> tuple[dict[str, list[np.ndarray]], diagnosis.Diagnosis | None]:
    """What the model makes of up to 64 held-out scenes: pictures of the first eight; of all, signs of failure in the
    masks, if there are masks."""
    scenes = dataset.__getitems__(range(min(64, len(dataset))))
    (images,) = _seen(scenes, sets=False)
    images = images.to(next(model.parameters()))
    output = model.eval()(images, generator=torch.Generator().manual_seed(0))
    model.train()
    rows = {"scenes/image": [plots.to_pixels(each) for each in images[:8]]}
    masks = None if isinstance(model, SetPredictor) else output.masks
    if not isinstance(model, SetPredictor):
        rows["scenes/reconstruction"] = [plots.to_pixels(each) for each in output.reconstruction[:8]]
    if masks is not None:
        rows["scenes/masks"] = [plots.segmentation(each) for each in output.masks[:8]]
    if output.attention is not None:
        attention = nn.functional.interpolate(output.attention, size=images.shape[-2:])
        rows["scenes/attention"] = [plots.segmentation(each) for each in attention[:8]]
    if "mask" in scenes[0]:
        rows["scenes/true_objects"] = [plots.labels_picture(each["mask"])[..., :3] for each in scenes[:8]]
    return rows, None if masks is None else diagnosis.diagnose(masks)
