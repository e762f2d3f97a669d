"""What does it do to compress brightness? Tetrominoes in 1,000 steps, five seeds: as it is, and ever more strongly.

    python -m benchmarks.compression FOLDER [--jobs 2]

As benchmarks/ablations.py, on the published look. Without compression contrasts are smaller, so there the recipe is
tried with less noise as well. data/runs/compression.csv has a line for each run; the appendix "Making it converge"
reads it.
"""

from pathlib import Path

from benchmarks import ablations
from benchmarks.ablations import RECIPE, Study

RESULTS = Path(__file__).parents[1] / "data" / "runs" / "compression.csv"
LESS_NOISE = "--model.likelihood.noise={start: 0.5, end: 0.15, over: 1, curve: cosine}"
STUDIES = {
    "tetrominoes": Study(
        5,
        ["--train.steps=1000"],
        {
            "as it is": ["--model.compression=0"],
            "as it is, less noise": ["--model.compression=0", LESS_NOISE],
            "compression 1": ["--model.compression=1"],
            RECIPE: [],
            "compression 16": ["--model.compression=16"],
        },
        paper=False,
        recipe="fast",
    )
}

if __name__ == "__main__":
    ablations.main(__doc__, STUDIES, RESULTS)
