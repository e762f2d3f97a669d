"""Trained models by name: those that ship with slotlib, and your own by their path."""

from pathlib import Path

from slotlib import checkpoint
from slotlib.model import Model

_PACKAGE = Path(__file__).parent
_SHELVES = (_PACKAGE.parent / "data" / "checkpoints", _PACKAGE / "checkpoints")  # a clone; an installed wheel


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


def load(name_or_path: Path | str) -> Model:
    """A trained model in eval mode, on the CPU, with its card as `.card`.

    Args:
        name_or_path: a shipped name (see `names`) or a path. A model of your own class needs its module imported.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: truncated or altered weights, or a card that does not fit them or this version.
    """
    return checkpoint.load(find(name_or_path))
