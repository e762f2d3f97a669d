"""The training loop (chapter 09; chapter 03 writes it out by hand).

One function, `train`, that reads from top to bottom: set up, step, look, save. Lightning Fabric carries it to a GPU, to
bf16 or to several devices; everything else is plain PyTorch.

Nothing in it has hidden state. The scenes of step t, the noise of step t and the learning rate of step t are functions
of t and the seed, so a run that was killed and resumed ends with the same weights as one that was not.
"""

import json
import logging
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from slotlib import data, metrics, plots, zoo
from slotlib.autoencoder import AutoencoderConfig, SlotAutoencoder
from slotlib.data.files import Files, read

logger = logging.getLogger(__name__)


@dataclass
class DataConfig:
    name: str = "tetrominoes"
    """One of `slotlib.data.GENERATORS`, or the path of a file or folder (see `slotlib.data.files.read`)."""
    size: int = 1_000_000
    """Training scenes, of a file at most; when they are used up they are used again in another order."""
    options: dict[str, Any] = field(default_factory=dict)
    """The generator's own, such as {"num_objects": [2, 4]}, or the reader's, such as {"on_error": "skip"}."""


@dataclass
class TrainConfig:
    """How to train. Defaults are the paper's (Locatello et al., 2020, appendix E.3)."""

    steps: int = 500_000
    batch_size: int = 64
    """Scenes per step, over all devices together."""
    seed: int = 0
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
    clip: float = 0.0
    """Largest gradient norm; 0 leaves gradients as they are."""
    beta2: float = 0.999
    """Adam's memory of squared gradients."""
    eval_every: int = 5_000
    eval_images: int = 320
    log_every: int = 100
    save_every: int = 5_000
    """Steps between checkpoints of the whole training state; the last step is always saved."""
    workers: int = 0
    """Processes that prepare batches; generated scenes rarely need any."""
    accelerator: str = "auto"
    """What Lightning Fabric calls it: auto, cpu, cuda, mps."""
    devices: int = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"


@dataclass
class Config:
    """A training run: the model, the scenes, the schedule. The YAML files in `slotlib/configs` fill one of these."""

    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
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

    def means(self) -> dict[str, float]:
        return {name: scores.mean().item() for name, scores in self._asdict().items()}


def learning_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of step `step`, counted from 0: linear warm-up times decay.

    With decay="halving" this is the official schedule, where the decay runs from step 0 and not from the end of the
    warm-up.
    """
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    if config.decay == "halving":
        decay = 0.5 ** (step / config.halving_steps)
    elif config.decay == "cosine":
        decay = 0.5 * (1 + math.cos(math.pi * step / config.steps))
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


class _Order:
    """What a DataLoader takes for a batch sampler: something iterable."""

    def __init__(self, *arguments: int):
        self.arguments = arguments

    def __iter__(self) -> Iterator[list[int]]:
        return scene_order(*self.arguments)


def step_generator(seed: int, step: int, rank: int = 0) -> torch.Generator:
    """The noise of one step on one device: a function of its arguments, so resuming needs no saved random state."""
    key = data.random.uniform(seed, torch.tensor([step]), 1, stream=rank)
    return torch.Generator().manual_seed(int(key * 2**53))


@torch.no_grad()
def evaluate(
    model: nn.Module,
    dataset: Dataset,
    images: int = 320,
    batch_size: int = 64,
    seed: int = 0,
    **options: Any,
) -> Evaluation:
    """Score a model's masks (argmax over slots) on the first `images` scenes of `dataset`.

    Args:
        model: called as a `SlotAutoencoder`; left in the mode it was in.
        dataset: scenes with `image` and, for all scores but the error, `mask`.
        images: how many; at most all there are.
        seed: of the slots' initial noise.
        options: passed to the model: `num_slots`, `num_iterations`, `restarts`.
    """
    parameter = next(model.parameters())
    generator = torch.Generator().manual_seed(seed)
    was_training = model.training
    model.eval()
    parts = []
    for start in range(0, min(images, len(dataset)), batch_size):
        scenes = range(start, min(start + batch_size, images, len(dataset)))
        batch = torch.utils.data.default_collate(dataset.__getitems__(list(scenes)))
        image = batch["image"].to(parameter)
        output = model(image, generator=generator, **options)
        mse = (output.reconstruction - image).square().mean(dim=(1, 2, 3))
        overlap = [torch.full_like(mse, math.nan)] * 4
        if "mask" in batch:
            masks = batch["mask"].to(parameter.device), output.masks.argmax(dim=1)
            scores = metrics.fg_ari, metrics.adjusted_rand_index, metrics.mean_best_overlap, metrics.mean_iou
            overlap = [score(*masks) for score in scores]
        parts.append(Evaluation(*overlap, mse))
    model.train(was_training)
    return Evaluation(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))


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


def _checkpoints(folder: Path) -> list[Path]:
    """Complete training checkpoints in `folder`, oldest first (the card is written last)."""
    return sorted(folder.glob("step_*.json"))


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
        "images": len(scores.mse),
        **({"scenes_seed": dataset.seed} if isinstance(dataset, data.Scenes) else {"scenes": "last of the files"}),
        "noise_seed": seed,
        **options,
    }


def train(config: Config, folder: Path | str, resume: bool = True, progress: bool = True) -> SlotAutoencoder:
    """Train a model, and leave in `folder` its checkpoints, TensorBoard logs and, at the end, `model` with its card.

    Args:
        config: the whole run.
        folder: one folder per run. A run that was interrupted there goes on from its last checkpoint.
        resume: False starts anew and raises if the folder already holds a run.
        progress: show a progress bar.

    Returns the trained model, in eval mode, on the device it was trained on.

    Raises:
        FileExistsError: the folder holds a run and `resume` is False.
        ValueError: the folder holds a run of another configuration, a damaged checkpoint, or bad fields; or the loss
            is no longer finite.
        OSError: the folder cannot be written to.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.loggers import TensorBoardLogger

    options, folder = config.train, zoo.writable_folder(folder)
    for name in ("steps", "batch_size", "eval_every", "eval_images", "log_every", "save_every", "devices"):
        if getattr(options, name) < 1:
            raise ValueError(f"train.{name} must be at least 1, got {getattr(options, name)}")
    fabric = Fabric(
        accelerator=options.accelerator,
        devices=options.devices,
        # Parameters without a gradient are normal here: under the implicit gradient μ and σ never get one.
        strategy="auto" if options.devices == 1 else "ddp_find_unused_parameters_true",
        precision=options.precision,
        loggers=TensorBoardLogger(folder, name="", version="tensorboard"),
    )
    fabric.launch()
    if options.batch_size % fabric.world_size:
        raise ValueError(
            f"train.batch_size must be a multiple of the {fabric.world_size} devices, got {options.batch_size}"
        )

    torch.manual_seed(options.seed)  # the initial weights; every later draw has a generator of its own
    model = SlotAutoencoder(config.model)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr, betas=(0.9, options.beta2))
    first_step, seconds = 0, 0.0
    if saved := _checkpoints(folder):
        if not resume:
            raise FileExistsError(f"{folder} already holds a run; choose another folder or resume it")
        state, card = zoo.load_tensors(saved[-1])
        if card["configuration"] != json.loads(json.dumps(asdict(config))):  # tuples come back as lists
            raise ValueError(f"{folder} holds a run of another configuration; choose another folder")
        _restore(state, model, optimizer)
        first_step, seconds = card["step"], card["seconds"]
        logger.info("resuming %s at step %d", folder, first_step)
    model, optimizer = fabric.setup(model, optimizer)
    model.mark_forward_method("loss")

    scenes, held_out = _scenes(config.data, options)
    order = _Order(len(scenes), options.batch_size, options.seed, first_step, fabric.global_rank, fabric.world_size)
    loader = fabric.setup_dataloaders(
        DataLoader(scenes, batch_sampler=order, num_workers=options.workers), use_distributed_sampler=False
    )

    steps = range(first_step, options.steps)
    bar = tqdm(steps, initial=first_step, total=options.steps, disable=not (progress and fabric.is_global_zero))
    started = time.perf_counter() - seconds
    for step, batch in zip(bar, loader, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, options)
        slot_attention = model.module.slot_attention
        if step < options.one_step_until:
            slot_attention.gradient, slot_attention.gradient_steps = "implicit", 1
        else:
            slot_attention.gradient, slot_attention.gradient_steps = (
                config.model.gradient,
                config.model.gradient_steps,
            )
        if config.model.colour == "shaded":
            model.module.decoder.shading = step >= options.one_colour_until
        loss = model.loss(batch["image"], step_generator(options.seed, step, fabric.global_rank))
        optimizer.zero_grad()
        fabric.backward(loss)
        if options.clip:
            fabric.clip_gradients(model, optimizer, max_norm=options.clip)
        optimizer.step()

        done = step + 1
        if done % options.log_every == 0 or done == options.steps:
            if not loss.isfinite():
                raise ValueError(f"the loss is {loss.item()} at step {done}; try a lower learning rate or clip=1")
            fabric.log_dict({"train/loss": loss.item(), "train/lr": learning_rate(step, options)}, step=done)
            bar.set_postfix(loss=f"{loss.item():.4f}")
        if fabric.is_global_zero and (done % options.eval_every == 0 or done == options.steps):
            scores = evaluate(model.module, held_out, options.eval_images)
            fabric.log_dict({f"eval/{name}": value for name, value in scores.means().items()}, step=done)
            _log_pictures(fabric.logger.experiment, model.module, held_out, done)
            logger.info("step %d: loss %.4f, FG-ARI %.3f", done, loss.item(), scores.fg_ari.mean())
        if fabric.is_global_zero and (done % options.save_every == 0 or done == options.steps):
            card = {"step": done, "seconds": time.perf_counter() - started, "configuration": asdict(config)}
            zoo.save_tensors(folder / f"step_{done:08d}", _training_state(model.module, optimizer.optimizer), card)
            for old in _checkpoints(folder)[:-1]:
                old.unlink()  # the card first: without it the weights no longer count as a checkpoint
                old.with_suffix(".safetensors").unlink()

    if skipped := getattr(scenes, "skipped", 0) + getattr(held_out, "skipped", 0):
        logger.warning("%d scenes of %s could not be read and were skipped", skipped, config.data.name)
    model = model.module.eval()
    if fabric.is_global_zero:
        zoo.save(
            model,
            folder / "model",
            {
                "dataset": asdict(config.data),
                "training": asdict(options),
                "metrics": [measured(model, held_out, options.eval_images)],
                "wall_seconds": round(time.perf_counter() - started, 1),
                "device": str(fabric.device),
                "versions": versions(),
            },
        )
    fabric.barrier()
    return model


def _log_pictures(writer: Any, model: nn.Module, dataset: Dataset, step: int) -> None:
    """Reconstructions and masks of eight held-out scenes, to TensorBoard."""
    batch = torch.utils.data.default_collate(dataset.__getitems__(list(range(min(8, len(dataset))))))
    images = batch["image"].to(next(model.parameters()))
    with torch.no_grad():
        output = model.eval()(images, generator=torch.Generator().manual_seed(0))
    model.train()
    writer.add_figure("eval/scenes", plots.show_reconstructions(images, output, batch.get("mask")), step)
