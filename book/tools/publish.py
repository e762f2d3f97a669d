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

from slotlib import checkpoint, data, zoo
from slotlib.autoencoder import SlotAutoencoder
from slotlib.evaluation import measured
from slotlib.model import Model
from slotlib.prior import CodePrior

CHECKPOINTS = Path(__file__).parents[2] / "data" / "checkpoints"
IMAGES = 640
SCENES_SEED = 0  # training and its running evaluation use other seeds


def has_restarts(model: Model) -> bool:
    """Whether starts differ, and the model can tell which was best."""
    observer = model.autoencoder if isinstance(model, CodePrior) else model
    return isinstance(observer, SlotAutoencoder) and observer.config.attention.slot_init != "learned"


def measure(model: Model) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A card's "metrics", and the scores of its entry in "seeds"."""
    scenes = data.make(model.card["dataset"]["name"], IMAGES, SCENES_SEED, **model.card["dataset"]["options"])
    metrics = [measured(model, scenes, IMAGES)]
    leading = ("fg_ari", "fg_ari_drawn") if "fg_ari" in metrics[0] else ("mse", "utilisation", "nats")
    scores = {name: value for name, value in metrics[0].items() if name in leading or name.startswith("ap_")}
    if has_restarts(model):
        metrics.append(measured(model, scenes, IMAGES, restarts=4))
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
        tries = [measured(model, scenes, len(scenes), **how) for how in ways]
        source = {"scenes": asked.called or asked.files.name, "options": asked.options}
        card["elsewhere"] = [{**entry, **source} for entry in tries]
    checkpoint.save(model, CHECKPOINTS / asked.name, card)


if __name__ == "__main__":
    main()
