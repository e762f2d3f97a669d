"""What does each part of SVQ do? Change one and train again, for a short schedule. As benchmarks/ablations.py.

    python -m benchmarks.svq_ablations FOLDER [--datasets svq_shapes,svq_multi_dsprites] [--jobs 2]

Shapes, a fifth of the recipe's schedule: 1,200 of 1,600 steps, codes from step 400 on. Multi-dSprites, its stages in
one: 2,400 steps, codes from step 1,200 on. Scored on 640 fresh scenes from one start: FG-ARI, the use of the codes, and
how much the best block says about an object's colour and size (of sprites, their scale). Writes
data/runs/svq_ablations.csv, which chapter 07 reads.
"""

import contextlib
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
ANY = ["--model.colour_blocks=0"]
SLATE = [  # the published kind of decoder, small
    *("--model_class=SlateAutoencoder", "--model.patch=8", "--model.decoder_channels=48"),
    *("--model.token_dim=96", "--model.writer_layers=3"),
]
STUDIES = {
    "svq_shapes": Study(
        1,
        ["--train.steps=1600", "--train.stop_at=1200", "--train.quantise_from=400"],
        {
            RECIPE: [],
            "slots stay continuous": ["--train.quantise_from=1600"],
            "codes from the start": ["--train.quantise_from=0"],
            "colour in any block": ANY,
            "4 blocks": ["--model.num_blocks=4"],
            "one block, 256 codes": [*ANY, "--model.num_blocks=1", "--model.num_codes=256"],
            "4 codes": ["--model.num_codes=4"],
            "64 codes": ["--model.num_codes=64"],
            "three iterations": ["--model.num_iterations=3"],
            "blocks mix": ["--model.mixing=true"],
            "no commitment": ["--model.commitment=0"],
            "codes drawn": ["--model.quantizer=gumbel"],
            "numbers rounded": ["--model.quantizer=fsq", "--model.levels=[4,4]"],
            "written by a transformer": [*ANY, *SLATE],
        },
        paper=False,
    ),
    "svq_multi_dsprites": Study(
        1,
        [
            *("--train.steps=2400", "--train.stop_at=0", "--train.one_step_until=800", "--train.quantise_from=1200"),
            *("--model.num_iterations=10", "--model.search_iterations=6", "--model.parsimony=0.0035"),
            *("--model.num_codes=32", "--model.colour_lead=0.03"),
        ],
        {
            RECIPE: [],
            "slots stay continuous": ["--train.quantise_from=2400"],
            "codes in every iteration": ["--model.search_iterations=0"],
            "half the price": ["--model.parsimony=0.00175"],
            "twice the price": ["--model.parsimony=0.007"],
            "16 codes": ["--model.num_codes=16"],
            "both blocks tell the colour": ["--model.colour_lead=0"],
            "one block for colour": ["--model.colour_blocks=1", "--model.colour_lead=0"],
            "colour in any block": [*ANY, "--model.colour_lead=0"],
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
    options, written = run.config.train, run.config.train.quantise_from < run.config.train.steps
    model.use_codes(written)
    model.split_colour(written or options.colour_from >= 0)
    scores = training.evaluate(model, scenes, IMAGES).means()
    words: dict[str, list[float]] = {}
    if written:
        with contextlib.suppress(ValueError):  # not a single object was found
            words = dictionary(model, scenes)
    return line | {
        "steps": options.stop_at or options.steps,
        "minutes": round(model.card["wall_seconds"] / 60, 2),
        **{name: round(scores[name], digits) for name, digits in (("fg_ari", 4), ("mse", 5))},
        **{name: round(scores[name], 3) if written else "" for name in ("utilisation", "perplexity")},
        "colour": max(words.get("colour", []), default=""),
        "size": max(words.get("size", words.get("scale", [])), default=""),
    }


if __name__ == "__main__":
    ablations.main(__doc__, STUDIES, RESULTS, COLUMNS, score)
