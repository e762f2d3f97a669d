"""Measure finished training runs on fresh scenes and ship the first one as a checkpoint.

    python book/tools/publish.py NAME RUN [RUN ...]

The runs differ in their seed only. All of them are measured and reported on the card, from one start and from the best
of four; which one ships is decided by the order on the command line, not by the scores.
"""

import argparse
from pathlib import Path

from slotlib import data, training, zoo

CHECKPOINTS = Path(__file__).parents[2] / "data" / "checkpoints"
IMAGES = 640
SCENES_SEED = 0  # training and its running evaluation use other seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("runs", nargs="+", type=Path)
    arguments = parser.parse_args()

    seeds, shipped, metrics = [], None, []
    for run in arguments.runs:
        model = zoo.load(run / "model")
        scenes = data.make(model.card["dataset"]["name"], IMAGES, SCENES_SEED, **model.card["dataset"]["options"])
        measured = [training.measured(model, scenes, IMAGES)]
        if model.config.slot_init != "learned":  # learned starts are the same every time
            measured.append(training.measured(model, scenes, IMAGES, restarts=4))
        seeds.append(
            {
                "seed": model.card["training"]["seed"],
                "wall_seconds": model.card["wall_seconds"],
                "fg_ari": measured[0]["fg_ari"],
                "fg_ari_restarts_4": measured[-1]["fg_ari"],
            }
        )
        print(seeds[-1])
        if shipped is None:
            shipped, metrics = model, measured
    zoo.save(shipped, CHECKPOINTS / arguments.name, {**shipped.card, "metrics": metrics, "seeds": seeds})


if __name__ == "__main__":
    main()
