"""What is written to disk, whole or not at all: files, trained models, the state of a run.

A checkpoint is two files of one name: `NAME.safetensors` and `NAME.json`, the card. The card holds the configuration
that rebuilds the model, the dataset, the metrics with their seeds, wall time, versions, and the SHA-256 of the weights.
Both are written to a temporary name first and renamed, the card last: a name has a complete checkpoint or none.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.optim import Optimizer

from slotlib import configuration, older
from slotlib.model import Model

FORMAT = 2
"""Of cards; those of slotlib 0.1 have none."""
KINDS = {"model": str, "dataset": dict, "training": dict, "metrics": list}
"""Of what cards hold, for those that were written by hand."""

# --- whole or not at all ---


def writable_folder(folder: Path | str) -> Path:
    """`folder`, made if need be. Raises OSError naming it when it cannot be made or written to."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise type(error)(error.errno, f"cannot write to the output folder: {error.strerror}", str(folder)) from None
    return folder


@contextmanager
def written_whole(path: Path, replace: bool = False) -> Iterator[Path]:
    """A temporary name beside `path` for a file or folder; it becomes `path` if the block ends well, else it goes.

    A file is on the disk before it takes the place of another. Raises FileExistsError if there is something at `path`
    (unless it may `replace` it, a file only), OSError if the folder cannot be written to.
    """
    if path.exists() and not replace:
        raise FileExistsError(f"{path} already exists; remove it or choose another path")
    room = Path(tempfile.mkdtemp(dir=writable_folder(path.parent), prefix=f".{path.name}."))
    try:
        yield room / path.name
        if (room / path.name).is_file():
            with (room / path.name).open("rb") as file:
                os.fsync(file.fileno())
        os.replace(room / path.name, path)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: what was there before stays until the new content is on the disk.

    Raises OSError naming the file, for example when the disk is full.
    """
    try:
        with written_whole(path, replace=True) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        reason = error.strerror or error
        raise type(error)(error.errno, f"cannot write {len(content)} bytes: {reason}", str(path)) from None


# --- tensors and their card ---


def without_ending(path: Path | str) -> Path:
    """What both files of a checkpoint are called; "run.2" has no ending."""
    path = Path(path)
    return path.with_suffix("") if path.suffix in (".json", ".safetensors") else path


def save_tensors(path: Path | str, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> Path:
    """Write `tensors` and `card` as one checkpoint named `path`, with or without an ending. Returns the card's path.

    Raises OSError when the folder cannot be written to; whatever was there before is then still there.
    """
    path = without_ending(path)
    folder = writable_folder(path.parent)
    # Copies, because tensors that share memory, as tied weights do, are refused.
    own = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    content = safetensors.torch.save(own)
    card = {**card, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    write(folder / f"{path.name}.safetensors", content)
    write(folder / f"{path.name}.json", (json.dumps(card, indent=2) + "\n").encode())
    return folder / f"{path.name}.json"


def load_tensors(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read back what `save_tensors` wrote, checked against its SHA-256.

    Raises:
        FileNotFoundError: the card or the weights are missing.
        ValueError: the card is not JSON, or the weights are truncated or altered.
    """
    path = without_ending(path)
    card_path, weights_path = path.with_name(f"{path.name}.json"), path.with_name(f"{path.name}.safetensors")
    for part in (card_path, weights_path):
        if not part.is_file():
            raise FileNotFoundError(f"checkpoint {path} is not complete: {part} does not exist")
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
        expected = card["sha256"]
        for name in KINDS.keys() & card.keys():
            configuration.made(KINDS[name], card[name], name)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{card_path} is not a checkpoint card: {type(error).__name__}: {error}") from None
    content = weights_path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ValueError(
            f"{weights_path} is truncated or altered: its card promises {card.get('bytes', 'an unknown number of')} "
            f"bytes with SHA-256 {expected[:12]}…, the file has {len(content)} bytes with {found[:12]}…"
        )
    try:
        return safetensors.torch.load(content), card
    except safetensors.SafetensorError as error:
        raise ValueError(f"{weights_path} holds no tensors: {error}") from None


# --- models ---


def spec(model: Model) -> dict[str, Any]:
    """A model's class and configuration, as YAML says it; `made` builds it again."""
    return {"class_path": configuration.path(type(model)), "init_args": configuration.plain(model.config)}


def made(spec: Mapping[str, Any]) -> Model:
    """A fresh model from its class and configuration. Raises ValueError naming what does not fit."""
    return _fresh(configuration.named(Model, spec.get("class_path", ""), "class_path"), spec.get("init_args", {}))


def _fresh(kind: type[Model], fields: Any) -> Model:
    return kind(configuration.made(kind.configuration(), fields, kind.__name__))


def save(model: Model, path: Path | str, card: Mapping[str, Any]) -> Path:
    """Write a model as a checkpoint that `load` rebuilds, its configuration on the card. Returns the card's path.

    A card's `progress` says where in its schedule the model took its last step; without it, at the end.

    Raises:
        TypeError: what is no `Model`.
        OSError: the folder cannot be written to.
    """
    if not isinstance(model, Model):
        raise TypeError(f"a checkpoint holds a slotlib.model.Model, got a {type(model).__name__}")
    own = spec(model)
    first = {"format": FORMAT, "model": own["class_path"], "configuration": own["init_args"]}
    return save_tensors(path, model.state_dict(), {**first, **card})


def build(card: Mapping[str, Any]) -> Model:
    """An untrained model from a card, at the place in its schedule where the trained one took its last step.

    Raises ValueError for a card that this version cannot build.
    """
    path = str(card.get("model"))
    if path not in Model.known:  # a card imports nothing
        module = path.rpartition(".")[0]
        advice = f"import {module} first" if module else f"this slotlib has: {', '.join(Model.known)}"
        raise ValueError(f"the card names the model {path!r}, which is not known; {advice}")
    model = _fresh(Model.known[path], card.get("configuration", {}))
    model.at(card.get("progress", 1.0))
    return model


def load(path: Path | str) -> Model:
    """A trained model in eval mode, on the CPU, with its card as `.card`.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: truncated or altered weights, or a card that does not fit them or this version.
    """
    tensors, card = older.converted(*load_tensors(path))
    _check_sizes(card, tensors)
    model = build(card)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"the weights of {path} do not fit the configuration on its card: {error}") from None
    model.card = card
    return model.eval()


def _check_sizes(card: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Raises ValueError where a card asks for other sizes than its weights have, before anything is allocated."""
    try:
        with torch.device("meta"):
            asked = build(card).state_dict()
    except (NotImplementedError, RuntimeError) as error:
        if "overflow" in str(error):
            raise ValueError("the card asks for a model larger than any memory") from None
        return  # a constructor that looks at its numbers
    for name in asked.keys() & tensors.keys():
        if asked[name].shape != tensors[name].shape:
            sizes = f"{list(asked[name].shape)}, there are {list(tensors[name].shape)}"
            raise ValueError(f"the weights do not fit the configuration on their card: it asks for {name} {sizes}")


# --- the state of a run ---


def steps_saved(folder: Path) -> list[Path]:
    """Complete checkpoints of a run in `folder`, oldest first (the card is written last)."""
    return sorted(folder.glob("step_*.json"))


def save_state(folder: Path, step: int, model: Model, optimizer: Optimizer, card: Mapping[str, Any]) -> None:
    """Everything a run needs to go on from here. Older checkpoints, and what a crash left half-written, are removed."""
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in slots.items()}
    newest = save_tensors(folder / f"step_{step:08d}", state, {"step": step, **card})
    for old in sorted(folder.glob("step_*")):
        if old.stem != newest.stem:
            old.unlink()  # .json before .safetensors: without its card a checkpoint no longer counts
    for name in ("step_*", "log.csv", "model.*"):
        for half_written in folder.glob(f".{name}.*"):
            shutil.rmtree(half_written, ignore_errors=True)


def restore_state(state: Mapping[str, Tensor], model: Model, optimizer: Optimizer) -> None:
    """Bring model and optimiser back to where `save_state` found them."""
    model.load_state_dict({n.removeprefix("model."): t for n, t in state.items() if n.startswith("model.")})
    memory: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            memory.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": memory})
