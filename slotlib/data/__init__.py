"""Scenes with exact masks: `make("tetrominoes", 1000, seed=0)`, and scenes from files: `read(path)`.

These two know all datasets. A generated one is a pure function `draw(seed, index, **options)` that draws any set of
scenes in one vectorised call; a format of files is a subclass of `Files`. Your own need no entry here: `make` and
`read` take their dotted names. Whatever they come from, scenes are a `Source`.
"""

import importlib
import inspect
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slotlib import check, configuration
from slotlib.check import described, whole
from slotlib.data import clevr, multi_dsprites, shapes, tetrominoes
from slotlib.data.clevr_folder import ClevrFolder
from slotlib.data.dsprites import DSprites
from slotlib.data.files import DataError as DataError
from slotlib.data.files import Files
from slotlib.data.folder import ImageFolder
from slotlib.data.hdf5 import Hdf5
from slotlib.data.records import Records
from slotlib.data.scenes import Batch as Batch
from slotlib.data.scenes import Generator, Scenes, Source
from slotlib.data.scenes import Kept as Kept

GENERATORS: dict[str, Generator] = {
    "tetrominoes": tetrominoes.GENERATOR,
    "shapes": shapes.GENERATOR,
    "multi_dsprites": multi_dsprites.GENERATOR,
    "clevr": clevr.GENERATOR,
}
logger = logging.getLogger(__name__)

READERS: dict[str, type[Files]] = {".npz": DSprites, ".hdf5": Hdf5, ".h5": Hdf5}
"""By the ending of a file; anything else is TFRecords."""
_ENDINGS = {*READERS, ".tfrecords", ".tfrecord", ".gz"}  # what the name of no function ends with


def make(name: str, size: int, seed: int = 0, **options: Any) -> Scenes:
    """A dataset of `size` generated scenes.

    Args:
        name: one of `GENERATORS`, or the dotted name of a function of your own, such as "my_module.draw".
        size: number of scenes, ≥ 1.
        seed: any integer; scenes of different seeds are independent.
        options: the generator's own, see e.g. `slotlib.data.tetrominoes.draw`.

    Raises:
        ValueError: an unknown name, one that is no `draw(seed, index, …)`, a size below 1, an option out of range.
        TypeError: an option the generator does not have.
    """
    generator = _generator(name)
    parameters = inspect.signature(generator.draw).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        _known(name, options, [*parameters][2:])
    return Scenes(name, generator, size, seed, options)


def _known(name: str, options: dict[str, Any], known: Sequence[str]) -> None:
    for option in options:
        if option not in known:
            raise TypeError(f"{name} has no option {option!r}; it has: {', '.join(known)}")


def _generator(name: str) -> Generator:
    if not isinstance(name, str):
        raise ValueError(f"the name of a dataset must be a word, got {described(name)}")
    if name in GENERATORS:
        return GENERATORS[name]
    module, _, function = name.rpartition(".")
    if not module:
        known = ", ".join(sorted(GENERATORS))
        raise ValueError(
            f"no file or folder at {name}, and unknown dataset {name!r}; there are: {known} (your own is named as "
            "my_module.draw)"
        )
    try:
        draw = getattr(importlib.import_module(module), function)
        first = list(inspect.signature(draw).parameters)[:2]
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"dataset {name!r}: cannot import such a function: {error}") from None
    if first != ["seed", "index"]:
        raise ValueError(f"dataset {name!r}: expected a function draw(seed, index, …), got ({', '.join(first)}, …)")
    return Generator(draw)


def read(path: Path | str, reader: str = "", **options: Any) -> Files:
    """Scenes from a file or folder, whatever its format.

    A folder with `scenes/` is CLEVR v1.0 (`ClevrFolder`), any other a folder of images (`ImageFolder`). `.npz` is
    dSprites (`DSprites`), `.hdf5` and `.h5` the files of object-centric-library (`Hdf5`), anything else TFRecords of
    the Multi-Object Datasets (`Records`).

    Args:
        path: file or folder.
        reader: the dotted name of a subclass of `Files`, such as "my_module.MyFiles", for a format of your own.
        options: those of the format, and `crop`, `resolution`, `on_error` as in `Files`.

    Raises:
        FileNotFoundError: nothing is there, or a part is missing.
        DataError: the content is not what the format says.
        TypeError: an option that the format does not have.
        ValueError: a `reader` that is none.
    """
    check.path("path", path)
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no file or folder at {path}")
    if reader:
        kind = configuration.named(Files, reader, "reader")
    elif path.is_dir():
        kind = ClevrFolder if (path / "scenes").is_dir() else ImageFolder
    else:
        kind = READERS.get(path.suffix.lower(), Records)
    _known(kind.__name__, options, _options(kind))
    return kind(path, **options)


def _options(kind: type[Files]) -> list[str]:
    """The options of a reader: its own, and those that it hands on."""
    found: list[str] = []
    for each in kind.__mro__:
        parameters = inspect.signature(each.__init__).parameters.values()
        found += [one.name for one in parameters if one.kind is not one.VAR_KEYWORD]
        if not any(one.kind is one.VAR_KEYWORD for one in parameters):
            break
    return [name for name in dict.fromkeys(found) if name not in ("self", "path", "records")]


def find(name: str, count: int, seed: int = 0, **options: Any) -> Source:
    """`count` generated scenes, or the first ones of a file or folder, at most all.

    Raises what `make` and `read` do, and ValueError for a count below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    return read(name, **options).part(0, count) if _on_disk(name) else make(name, count, seed, **options)


def held_out(name: str, size: int, images: int, seed: int, **options: Any) -> tuple[Source, Source]:
    """Scenes for training and for the running evaluation, and never one for both.

    Of files the last `images` are for evaluation, and the first ones, `size` at most, for training. Generated ones come
    from different seeds; seed 0 is used by neither.

    Raises what `make` and `read` do, and ValueError for files of too few scenes.
    """
    whole("size", size)
    whole("images", images)
    if not _on_disk(name):
        return make(name, size, 2 * seed + 1, **options), make(name, images, 2 * seed + 2, **options)
    files = read(name, **options)
    rest = len(files) - images
    if rest < 1:
        raise ValueError(f"{name} holds {len(files)} scenes; {images} are kept for evaluation (train.eval_images)")
    last = files.part(rest, len(files))
    last.origin = {"scenes": "last of the files"}
    return files.part(0, min(size, rest)), last


def _on_disk(name: str) -> bool:
    """Whether a dataset's name is a path. Raises FileNotFoundError for a path where nothing is."""
    path = Path(name)
    if name in GENERATORS:
        if path.exists():
            logger.warning("%s: the generated dataset, not what lies here under that name (which is ./%s)", name, name)
        return False
    if not path.exists() and ("/" in name or path.suffix.lower() in _ENDINGS):
        raise FileNotFoundError(f"no file or folder at {name}")
    return path.exists()
