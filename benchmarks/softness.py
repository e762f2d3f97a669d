"""How sharp should a lit scene be seen? CLEVR6 in 2,000 steps on 4,000 scenes, three seeds: as it is, and blurred.

    python -m benchmarks.softness FOLDER [--jobs 2]

As benchmarks/ablations.py. data/runs/softness.csv has a line for each run; the appendix "Making it converge" reads it.
"""

from pathlib import Path

from benchmarks import ablations
from benchmarks.ablations import RECIPE, Study

RESULTS = Path(__file__).parents[1] / "data" / "runs" / "softness.csv"
STUDIES = {
    "clevr6": Study(
        3,
        ["--train.steps=2000", "--data.size=4000"],
        {
            "as it is": ["--model.softness=0"],
            RECIPE: [],
            "softness 1.6": ["--model.softness=1.6"],
        },
        paper=False,
        recipe="fast",
    )
}

if __name__ == "__main__":
    ablations.main(__doc__, STUDIES, RESULTS)
