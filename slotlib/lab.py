"""What the book's live page needs of a trained model: `slotlib export lab tetrominoes --out book/assets/lab/weights`.

The page computes the model itself (book/lab, in TypeScript) and loads what is written here: a script per model, because
a page that was opened from a file may load scripts but read nothing else. It holds the configuration, all parameters in
single precision, and the stage: how to draw scenes as those the model was trained on, and a few of them.
"""

import base64
import dataclasses
import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from slotlib import checkpoint, data, zoo
from slotlib.data import multi_dsprites, shapes, tetrominoes
from slotlib.model import Ramp

SCENES = 8
"""Of seed 0, which training never uses."""
TRAINING = ".quantizer.counts", ".quantizer.sums"
"""Of what codes were chosen for; a finished codebook does not need it."""

RAMP = {field.name for field in dataclasses.fields(Ramp)}

Objects = dict[str, Any]
Stage = dict[str, Any]


def export(name_or_path: Path | str, folder: Path | str) -> Path:
    """Write a trained model for the page, as `NAME.js` in `folder`. Returns its path.

    Raises FileNotFoundError and ValueError as `slotlib.load`, OSError when the folder cannot be written to.
    """
    path = zoo.find(name_or_path)
    model = checkpoint.load(path)
    tensors = {name: each for name, each in model.state_dict().items() if not name.endswith(TRAINING)}
    numbers = planes(tensors.values())
    content = {
        "model": standing(checkpoint.spec(model), model.card.get("progress", 1.0)),
        "tensors": {name: list(tensor.shape) for name, tensor in tensors.items()},
        "crc32": zlib.crc32(numbers),
        "stage": stage(model.card.get("dataset") or {}),
        "data": base64.b64encode(numbers).decode(),
    }
    script = f"(slotlab.weights ??= {{}})[{json.dumps(path.name)}] = {json.dumps(content)};\n"
    out = checkpoint.writable_folder(folder) / f"{path.name}.js"
    checkpoint.write(out, script.encode())
    return out


def standing(spec: Any, progress: float) -> Any:
    """A plain configuration in which every number stands still: a Ramp is what it is at `progress`.

    The page has no schedule.
    """
    if not isinstance(spec, dict):
        return spec
    if spec.keys() == RAMP:
        return Ramp(**spec).at(progress)
    return {name: standing(value, progress) for name, value in spec.items()}


def planes(tensors: Iterable[torch.Tensor]) -> bytes:
    """All numbers in single precision: the lowest bytes of all, then their second ones, and so on.

    So a server can compress exponents side by side.
    """
    numbers = torch.cat([tensor.flatten().float() for tensor in tensors]).numpy().astype("<f4")
    return numbers.view("u1").reshape(-1, 4).T.tobytes()


def stage(dataset: dict[str, Any], shown: Sequence[int] = range(SCENES)) -> Stage | None:
    """How to draw scenes of the dataset that a card names, and those that are shown. None if the page draws none.

    A scene's things are rows of shape, x, y, angle, size and colour (three numbers up to 255), those in front last.
    """
    name, options = dataset.get("name"), dataset.get("options", {})
    if name not in _STAGES:
        return None
    scenes = data.make(name, max(shown) + 1, **options).batch(shown)
    described, thing = _STAGES[name](options)
    drawn = []
    for i, present in enumerate(scenes["objects"]["present"]):
        around = scenes["image"][i][:, scenes["mask"][i] == 0].mul(255).round().int()  # and a few soft edges
        objects = [{key: value[i, k] for key, value in scenes["objects"].items()} for k in present.nonzero().flatten()]
        drawn.append({"ground": around.mode(dim=1).values.tolist(), "things": [thing(each) for each in objects]})
    return {
        "name": name,
        "resolution": scenes["image"].shape[-1],
        "options": options,
        **described,
        "scenes": drawn,
    }


def _tetrominoes(options: dict[str, Any]) -> tuple[Stage, Callable[[Objects], list[float]]]:
    colours = {name: [255 * part for part in colour] for name, colour in tetrominoes.COLOURS.items()}
    described = {
        "pieces": tetrominoes.PIECES.tolist(),
        "shapes": list(tetrominoes.LETTERS),
        "bevel": tetrominoes.BEVELS[options.get("look", tetrominoes.LOOK)].tolist(),
        "colours": colours,
        "sizes": [1],
    }

    def thing(piece: Objects) -> list[float]:
        place = [int(piece[name]) for name in ("shape", "x", "y")]
        return [*place, 0, 1, *list(colours.values())[int(piece["colour"])]]

    return described, thing


def _shapes(options: dict[str, Any]) -> tuple[Stage, Callable[[Objects], list[float]]]:
    colours, sizes = list(shapes.COLOURS.values()), list(shapes.SIZES.values())
    described = {
        "outlines": [[f"{shape}_by_area", {}] for shape in shapes.SHAPES],
        "shapes": list(shapes.SHAPES),
        "clockwise": 1,
        "soft": True,
        "colours": {name: list(colour) for name, colour in shapes.COLOURS.items()},
        "sizes": sizes,
    }

    def thing(figure: Objects) -> list[float]:
        place = [int(figure["shape"]), *(float(figure[name]) for name in ("x", "y", "rotation"))]
        return [*place, sizes[int(figure["size"])], *colours[int(figure["colour"])]]

    return described, thing


def _multi_dsprites(options: dict[str, Any]) -> tuple[Stage, Callable[[Objects], list[float]]]:
    look = multi_dsprites.LOOKS[options.get("look", multi_dsprites.LOOK)]

    def outline(distance: Callable[..., Any]) -> list[Any]:
        kind, numbers = (distance.func, distance.keywords) if isinstance(distance, partial) else (distance, {})
        return [kind.__name__.strip("_"), numbers]

    described = {
        "outlines": [outline(distance) for distance in look.outlines],
        "shapes": list(multi_dsprites.SHAPES),
        "clockwise": look.clockwise,
        "soft": look.soft,
        "colours": {name: list(colour) for name, colour in shapes.COLOURS.items()},
        "sizes": list(multi_dsprites.SCALES),
    }

    def thing(sprite: Objects) -> list[float]:
        place = [int(sprite["shape"]), *(float(sprite[name]) for name in ("x", "y", "orientation"))]
        return [*place, round(float(sprite["scale"]), 1), *(round(255 * part) for part in sprite["colour"].tolist())]

    return described, thing


_STAGES = {"tetrominoes": _tetrominoes, "shapes": _shapes, "multi_dsprites": _multi_dsprites}
