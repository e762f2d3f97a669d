"""Trained models by name: those that ship with slotlib, and your own by their path."""

from pathlib import Path

from slotlib import check, checkpoint
from slotlib.model import Model

_PACKAGE = Path(__file__).parent
_SHELVES = (_PACKAGE.parent / "data" / "checkpoints", _PACKAGE / "checkpoints")  # a clone; an installed wheel


def names() -> list[str]:
    """The checkpoints that ship with slotlib."""
    return sorted({card.stem for shelf in _SHELVES for card in shelf.glob("*.json")})


def find(name_or_path: Path | str) -> Path:
    """Where a checkpoint lies: your own by its path, with or without an ending, or a shipped one by its name.

    What has a folder or an ending is a path, and so is a name of which there is a checkpoint in the working directory.

    Raises:
        FileNotFoundError: there is neither, naming what there is.
        ValueError: no path, or a shipped name of which half a checkpoint lies in the working directory.
    """
    check.path("name_or_path", name_or_path)
    name, path = str(name_or_path), checkpoint.without_ending(name_or_path)
    own = [Path(f"{path}.{ending}") for ending in ("json", "safetensors") if Path(f"{path}.{ending}").is_file()]
    shipped = [shelf / name for shelf in _SHELVES if name == path.name and (shelf / f"{name}.json").is_file()]
    if len(own) == 2 or (own and not shipped):
        return path
    if own:
        raise ValueError(
            f"{name!r} is a model that slotlib ships, and {own[0]} lies here without the other half of a checkpoint; "
            f"'./{name}' asks for yours, '{shipped[0]}' for the one that ships"
        )
    if not shipped:
        ships = ", ".join(names()) or "none"
        raise FileNotFoundError(f"no checkpoint {name!r}: not a file, and slotlib ships {ships}")
    return shipped[0]


def load(name_or_path: Path | str) -> Model:
    """A trained model in eval mode, on the CPU, with its card as `.card`.

    Args:
        name_or_path: as for `find`. A model of your own class needs its module imported.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: truncated or altered weights, a card that does not fit them or this version, or as `find`.
    """
    return checkpoint.load(find(name_or_path))
