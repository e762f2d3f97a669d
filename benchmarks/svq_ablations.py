"""What does each part of SVQ do? Change one and train again, for a short schedule. As benchmarks/ablations.py.

    python -m benchmarks.svq_ablations FOLDER [--datasets svq_draft_shapes,svq_draft_multi_dsprites] [--jobs 2]

Shapes, a fifth of the recipe's schedule: 1,200 of 1,600 steps, codes from step 400 on. Multi-dSprites: 2,400 steps,
codes from step 1,200 on. Scored on 640 fresh scenes from one start: FG-ARI of the masks that there are, the use of the
codes, and how much the best block says about an object's colour and size (of sprites, their scale).
Writes data/runs/svq_ablations.csv, which the appendix "What each part of SVQ does" reads.
"""

import contextlib
import math
from pathlib import Path

from benchmarks import ablations
from benchmarks.ablations import RECIPE, Study
from benchmarks.dreams import dictionary
from slotlib import data, sweep, zoo
from slotlib.evaluation import evaluate

RESULTS = Path(__file__).parents[1] / "data" / "runs" / "svq_ablations.csv"
IMAGES = 640
FG_ARI = (*ablations.FG_ARI, "attention_fg_ari")
COLUMNS = (
    *("dataset", "lever", "seed", "steps", "minutes", *FG_ARI, "mse"),
    *("utilisation", "perplexity", "colour", "size", "error"),
)
ANY = "--model.decoder.colour_dims=0"
CONTINUOUS = "--model.attention.quantise=false"


def price(sparsity: float) -> str:
    """Slots are free for 500 of 2,400 steps, then what they cost rises for as many."""
    return f"--model.likelihood.sparsity={{end: {sparsity}, after: 0.20833333, over: 0.20833333}}"


QUANTIZER = "--model.attention.quantizer"


def codes(blocks: int, codes: int) -> list[str]:
    """Nearest codes of so many blocks."""
    return [f"{QUANTIZER}={{class_path: Nearest, init_args: {{num_blocks: {blocks}, num_codes: {codes}}}}}"]


STUDIES = {
    "svq_draft_shapes": Study(
        1,
        ["--train.steps=1600", "--train.stop_at=1200"],
        {
            RECIPE: [],
            "slots stay continuous": [CONTINUOUS, ANY],
            "codes from the start": ["--model.attention.quantise=true", "--model.decoder.colour_dims=4"],
            "colour in any block": [ANY],
            "4 blocks": ["--model.attention.quantizer.num_blocks=4", "--model.decoder.colour_dims.end=16"],
            "one block, 256 codes": [ANY, *codes(1, 256)],
            "4 codes": codes(16, 4),
            "64 codes": codes(16, 64),
            "three iterations": ["--model.attention.num_iterations=3"],
            "blocks mix": ["--model.attention.mixing=true"],
            "no commitment": ["--model.attention.quantizer.commitment=0"],
            "codes drawn": [f"{QUANTIZER}={{class_path: Gumbel, init_args: {{num_blocks: 16, num_codes: 16}}}}"],
            "numbers rounded": [
                f"{QUANTIZER}={{class_path: FiniteScalar, init_args: {{num_blocks: 16, levels: [4, 4]}}}}"
            ],
            "written by a transformer": ["--config=slate_shapes"],
        },
        paper=False,
        recipe="fast",
    ),
    "svq_draft_multi_dsprites": Study(
        1,
        [],
        {
            RECIPE: [],
            "slots stay continuous": [CONTINUOUS],
            "codes in every iteration": ["--model.attention.search_iterations=0"],
            "half the price": [price(0.00175)],
            "twice the price": [price(0.007)],
            "16 codes": codes(16, 16),
            "both blocks tell the colour": ["--model.colour_lead=0"],
            "one block for colour": ["--model.decoder.colour_dims=4", "--model.colour_lead=0"],
            "colour in any block": [ANY, "--model.colour_lead=0"],
        },
        paper=False,
        recipe="fast",
    ),
}


def score(dataset: str, run: sweep.Run, result: sweep.Result) -> dict[str, object]:
    """A line of the table."""
    line: dict[str, object] = {"dataset": dataset, "lever": run.value, "seed": run.seed, "error": result.error}
    if result.error:
        return line
    model = zoo.load(run.folder / "model")
    scenes = data.make(run.config.data.name, IMAGES, seed=0, **run.config.data.options)
    options = run.config.train
    scores = evaluate(model, scenes, IMAGES).means
    written = not math.isnan(scores["utilisation"])
    words: dict[str, list[float]] = {}
    if written:
        with contextlib.suppress(ValueError):  # not a single object was found
            words = dictionary(model, scenes)
    return line | {
        "steps": options.stop_at or options.steps,
        "minutes": round(model.card["wall_seconds"] / 60, 2),
        **{name: round(scores[name], 4) for name in FG_ARI if name in scores},
        "mse": round(scores["mse"], 5),
        **{name: round(scores[name], 3) if written else "" for name in ("utilisation", "perplexity")},
        "colour": max(words.get("colour", []), default=""),
        "size": max(words.get("size", words.get("scale", [])), default=""),
    }


if __name__ == "__main__":
    ablations.main(__doc__, STUDIES, RESULTS, COLUMNS, score)
