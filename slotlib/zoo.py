"""Trained models on disk: weights as safetensors, and a card that says where they come from.

A checkpoint is two files of one name: `NAME.safetensors` and `NAME.json`, the card. The card holds the configuration
that rebuilds the model, the dataset, the metrics with their seeds, wall time, versions, and the SHA-256 of the weights.
Both are written to a temporary file first and renamed, the card last: a name either has a complete checkpoint or none.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from slotlib.autoencoder import AutoencoderConfig, SlotAutoencoder
from slotlib.patches import PatchConfig, PatchVQVAE, SlateAutoencoder, SlateConfig
from slotlib.set_prediction import SetPredictor, SetPredictorConfig
from slotlib.svq import SVQAutoencoder, SVQConfig

_PACKAGE = Path(__file__).parent
_SHELVES = (_PACKAGE.parent / "data" / "checkpoints", _PACKAGE / "checkpoints")  # a clone; an installed wheel

MODELS = {
    "SlotAutoencoder": (SlotAutoencoder, AutoencoderConfig),
    "SetPredictor": (SetPredictor, SetPredictorConfig),
    "SVQAutoencoder": (SVQAutoencoder, SVQConfig),
    "SlateAutoencoder": (SlateAutoencoder, SlateConfig),
    "PatchVQVAE": (PatchVQVAE, PatchConfig),
}
"""Class name on a card → the class and its configuration."""


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: what was there before stays until the new content is on the disk.

    Raises OSError naming the file, for example when the disk is full.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's files are private
        os.replace(temporary, path)
    except OSError as error:
        raise type(error)(
            error.errno, f"cannot write {len(content)} bytes: {error.strerror or error}", str(path)
        ) from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


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


def save_tensors(path: Path | str, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> Path:
    """Write `tensors` and `card` as one checkpoint named `path`, with or without an ending. Returns the card's path.

    Raises OSError when the folder cannot be written to; whatever was there before is then still there.
    """
    path = Path(path).with_suffix("")
    folder = writable_folder(path.parent)
    content = safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
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
    path = Path(path).with_suffix("")
    card_path, weights_path = path.with_name(f"{path.name}.json"), path.with_name(f"{path.name}.safetensors")
    for part in (card_path, weights_path):
        if not part.is_file():
            raise FileNotFoundError(f"checkpoint {path} is not complete: {part} does not exist")
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
        expected = card["sha256"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{card_path} is not a checkpoint card: {type(error).__name__}: {error}") from None
    content = weights_path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ValueError(
            f"{weights_path} is truncated or altered: its card promises {card.get('bytes', 'an unknown number of')} "
            f"bytes with SHA-256 {expected[:12]}…, the file has {len(content)} bytes with {found[:12]}…"
        )
    return safetensors.torch.load(content), card


def save(model: nn.Module, path: Path | str, card: Mapping[str, Any]) -> Path:
    """Write a model as a checkpoint that `load` rebuilds, its configuration on the card. Returns the card's path.

    Raises:
        TypeError: a model of a class not in `MODELS`.
        OSError: the folder cannot be written to.
    """
    name = type(model).__name__
    if name not in MODELS:
        raise TypeError(f"cannot save a {name}; a checkpoint holds one of: {', '.join(MODELS)}")
    return save_tensors(path, model.state_dict(), {"model": name, "configuration": asdict(model.config), **card})


def names() -> list[str]:
    """The checkpoints that ship with slotlib."""
    return sorted({card.stem for shelf in _SHELVES for card in shelf.glob("*.json")})


def find(name_or_path: Path | str) -> Path:
    """Where a checkpoint lies: a shipped name, or a path with or without its ending.

    Raises FileNotFoundError naming what there is.
    """
    for shelf in _SHELVES:
        if (shelf / f"{name_or_path}.json").is_file():
            return shelf / str(name_or_path)
    path = Path(name_or_path).with_suffix("") if str(name_or_path).endswith((".json", ".safetensors")) else name_or_path
    path = Path(path)
    if path.with_name(f"{path.name}.json").is_file() or path.with_name(f"{path.name}.safetensors").is_file():
        return path
    raise FileNotFoundError(
        f"no checkpoint {str(name_or_path)!r}: not a file, and slotlib ships {', '.join(names()) or 'none'}"
    )


def build(card: Mapping[str, Any]) -> nn.Module:
    """An untrained model from a card's configuration. Raises ValueError for a card this version cannot build."""
    if card.get("model") not in MODELS:
        raise ValueError(f"the card names the model {card.get('model')!r}; this slotlib has: {', '.join(MODELS)}")
    model, config = MODELS[card["model"]]
    try:
        return model(config(**card["configuration"]))
    except (TypeError, KeyError) as error:
        raise ValueError(f"the card's configuration does not fit {card['model']}: {error}") from None


def load(name_or_path: Path | str) -> nn.Module:
    """A trained model in eval mode, on the CPU, with its card as `.card`.

    Args:
        name_or_path: a shipped name (see `names`) or a path.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: truncated or altered weights, or a card that does not fit them or this version.
    """
    path = find(name_or_path)
    tensors, card = load_tensors(path)
    model = build(card)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"the weights of {path} do not fit the configuration on its card: {error}") from None
    model.card = card
    return model.eval()
