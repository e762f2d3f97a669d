"""Measure finished training runs on fresh scenes and ship the first one as a checkpoint.

    python book/tools/publish.py NAME RUN [RUN ...] [--machine "one core of ..."] [--files CLEVR_v1.0]

The runs differ in their seed only. All of them are measured and reported on the card: from one start, from the best of
four, and for a mixture also by its masks as they were drawn; predicted sets by their average precision. Which one ships
is decided by the order on the command line, not by the scores. Then `python book/tools/zoo.py` brings the page "Model
zoo" up to date.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from slotlib import data, training, zoo
from slotlib.autoencoder import SlotAutoencoder
from slotlib.patches import SlateAutoencoder
from slotlib.set_prediction import SetPredictor

CHECKPOINTS = Path(__file__).parents[2] / "data" / "checkpoints"
IMAGES = 640
SCENES_SEED = 0  # training and its running evaluation use other seeds


def has_restarts(model: nn.Module) -> bool:
    """Whether starts differ, and the model can tell which was best."""
    slots = isinstance(model, SlotAutoencoder) and not isinstance(model, SlateAutoencoder)
    return slots and model.config.slot_init != "learned"


def measure(model: nn.Module) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A card's "metrics", and the scores of its entry in "seeds"."""
    scenes = data.make(model.card["dataset"]["name"], IMAGES, SCENES_SEED, **model.card["dataset"]["options"])
    metrics = [training.measured(model, scenes, IMAGES)]
    if isinstance(model, SetPredictor):
        return metrics, {name: metrics[0][name] for name in training.SetEvaluation._fields}
    if not isinstance(model, SlotAutoencoder):  # patches have no masks
        return metrics, {name: metrics[0][name] for name in ("mse", "utilisation", "nats") if name in metrics[0]}
    scores = {"fg_ari": metrics[0]["fg_ari"]}
    if model.config.likelihood == "mixture":
        scores["fg_ari_drawn"] = metrics[0]["fg_ari_drawn"]
    if has_restarts(model):
        metrics.append(training.measured(model, scenes, IMAGES, restarts=4))
        scores["fg_ari_restarts_4"] = metrics[-1]["fg_ari"]
    return metrics, scores


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--machine", help='where each run was trained, such as "one core of an AMD EPYC"')
    parser.add_argument("--files", type=Path, help="scenes by others, on which the shipped model is scored too")
    parser.add_argument("--called", help='what the page calls them, such as "CLEVR\'s own validation pictures"')
    parser.add_argument("--options", type=json.loads, default={}, help='of their reader, such as {"max_objects": 6}')
    asked = parser.parse_args(arguments)

    seeds, shipped = [], None
    for run in asked.runs:
        model = zoo.load(run / "model")
        metrics, scores = measure(model)
        seeds.append({"seed": model.card["training"]["seed"], "wall_seconds": model.card["wall_seconds"], **scores})
        print(seeds[-1])
        shipped = shipped or (model, metrics)
    model, metrics = shipped
    card = {**model.card, **({"machine": asked.machine} if asked.machine else {}), "metrics": metrics, "seeds": seeds}
    if asked.files:
        scenes = data.read(asked.files, **asked.options)
        ways = [{}, {"restarts": 4}] if has_restarts(model) else [{}]
        tries = [training.measured(model, scenes, len(scenes), **how) for how in ways]
        source = {"scenes": asked.called or asked.files.name, "options": asked.options}
        card["elsewhere"] = [{**entry, **source} for entry in tries]
    zoo.save(model, CHECKPOINTS / asked.name, card)


if __name__ == "__main__":
    main()
