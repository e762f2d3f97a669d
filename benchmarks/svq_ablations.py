"""What does each part of SVQ do? Change one and train again, for a short schedule. As benchmarks/ablations.py.

    python -m benchmarks.svq_ablations FOLDER [--jobs 2]

Shapes, 1,500 steps with the encoder of the continuous model, codes from step 500 on. Scored on 640 fresh scenes from
one start: FG-ARI, the use of the codes, and how much the best block says about an object's colour and size. Writes
data/runs/svq_ablations.csv.
"""

from pathlib import Path

from benchmarks import ablations
from benchmarks.ablations import RECIPE, Study
from benchmarks.dreams import dictionary
from slotlib import data, sweep, training, zoo

RESULTS = Path(__file__).parents[1] / "data" / "runs" / "svq_ablations.csv"
IMAGES = 640
COLUMNS = (
    *("dataset", "lever", "seed", "steps", "minutes", "fg_ari", "mse"),
    *("utilisation", "perplexity", "colour", "size", "error"),
)
STUDIES = {
    "svq_shapes": Study(
        1,
        ["--train.steps=1500", "--train.quantise_from=500"],
        {
            RECIPE: [],
            "slots stay continuous": ["--train.quantise_from=1500"],
            "codes from the start": ["--train.quantise_from=0"],
            "colour in any block": ["--model.colour_blocks=0"],
            "4 blocks": ["--model.num_blocks=4"],
            "one block, 256 codes": ["--model.num_blocks=1", "--model.num_codes=256", "--model.colour_blocks=0"],
            "4 codes": ["--model.num_codes=4"],
            "64 codes": ["--model.num_codes=64"],
            "three iterations": ["--model.num_iterations=3"],
            "blocks mix": ["--model.mixing=true"],
            "dead codes stay": ["--model.revive=0"],
            "no commitment": ["--model.commitment=0"],
            "codes by gradient": ["--model.quantizer=loss"],
            "codes drawn": ["--model.quantizer=gumbel"],
            "numbers rounded": ["--model.quantizer=fsq", "--model.levels=[4,4]"],
        },
        paper=False,
    ),
}


def score(dataset: str, run: sweep.Run, result: sweep.Result) -> dict[str, object]:
    """A line of the table."""
    line: dict[str, object] = {"dataset": dataset, "lever": run.value, "seed": run.seed, "error": result.error}
    if result.error:
        return line
    model = zoo.load(run.folder / "model")
    scenes = data.make(run.config.data.name, IMAGES, seed=0, **run.config.data.options)
    model.use_codes(run.config.train.quantise_from < run.config.train.steps)
    scores = training.evaluate(model, scenes, IMAGES).means()
    words = dictionary(model, scenes)
    return line | {
        "steps": run.config.train.steps,
        "minutes": round(model.card["wall_seconds"] / 60, 2),
        **{name: round(scores[name], digits) for name, digits in (("fg_ari", 4), ("mse", 5))},
        **{name: round(scores[name], 3) for name in ("utilisation", "perplexity")},
        **{name: max(words[name]) for name in ("colour", "size")},
    }


if __name__ == "__main__":
    ablations.main(__doc__, STUDIES, RESULTS, COLUMNS, score)
