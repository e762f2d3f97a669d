"""What does each lever of a recipe do? Take it away and train again, for a short schedule and several seeds.

    python -m benchmarks.ablations FOLDER [--datasets tetrominoes,multi_dsprites] [--jobs 2]

`tetrominoes_fast`: 1,000 steps and five seeds. `multi_dsprites_first`, where slots are more than objects: 3,000 steps
and three seeds.
FOLDER keeps the runs: started again, only what is missing is trained. Every run is scored on 320 fresh scenes from one
start, by its drawn masks and, of a mixture, by its posterior. data/runs/ablations.csv has a line for each run, also for
one that failed, and is written anew after each lever; the appendix "Making it converge" reads it. "The paper's model"
is the paper's architecture and schedule for as many minutes as the recipe took in the median.
"""

import argparse
import csv
import io
import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from slotlib import checkpoint, data, sweep, zoo
from slotlib.cli import read_config
from slotlib.evaluation import evaluate
from slotlib.log import read_log

RESULTS = Path(__file__).parents[1] / "data" / "runs" / "ablations.csv"
RECIPE, PAPER = "the recipe", "the paper's model"
IMAGES = 320
FG_ARI = "drawn_fg_ari", "posterior_fg_ari"
COLUMNS = ("dataset", "lever", "seed", "steps", "minutes", *FG_ARI, "mse", "error")


class Study(NamedTuple):
    seeds: int
    budget: Sequence[str]
    """Flags of `slotlib train` on top of the recipe, for all runs."""
    levers: dict[str, Sequence[str]]
    """What is changed → flags on top of the budget."""
    paper: bool = True
    """Whether the paper's model gets the same minutes."""
    recipe: str = "first"
    """Which of the dataset's packaged configurations it is."""


def price(sparsity: float) -> str:
    """Slots are free for 500 of 3,000 steps, then what they cost rises for as many."""
    return f"--model.likelihood.sparsity={{end: {sparsity}, after: 0.16666666, over: 0.16666666}}"


STUDIES = {
    "tetrominoes": Study(
        5,
        ["--train.steps=1000"],
        {
            RECIPE: [],
            "squared error of the average": ["--model.likelihood={class_path: Average}"],
            "small noise from the start": ["--model.likelihood.noise=0.2"],
            "large noise to the end": ["--model.likelihood.noise=0.8"],
            "three iterations": ["--model.attention.num_iterations=3"],
            "gradient through one iteration": ["--model.attention.gradient_steps=1"],
            "gradient through six from the start": ["--model.attention.gradient_steps=6"],
            "gradient through all from the start": ["--model.attention.gradient=unrolled"],
            "shading from the start": ["--model.decoder.shading=1"],
            "a colour for every pixel": ["--model.decoder.colour=pixel"],
            "a tenth of the learning rate": ["--train.lr=4e-4"],
            "no clipping": ["--train.clip=0"],
            "only spikes clipped": ["--train.clip=0.3"],
            "one learned start": ["--model.attention.slot_init=one_learned"],
            "all starts learned": ["--model.attention.slot_init=learned"],
            "32 bits": ["--train.precision=32-true"],
            "brightness as it is": ["--model.compression=0"],
            "always the same light": ["--data.light={}"],
        },
        recipe="fast",
    ),
    "multi_dsprites": Study(
        3,
        ["--train.steps=3000"],
        {
            RECIPE: [price(0.005)],
            "squared error of the average": ["--model.likelihood={class_path: Average}"],
            "slots are free": ["--model.likelihood.sparsity=0"],
            "half the price": [price(0.0025)],
            "twice the price": [price(0.01)],
        },
        paper=False,
    ),
}


def planned(dataset: str, lever: str, config: str, flags: Sequence[str], seeds: int, folder: Path) -> list[sweep.Run]:
    """The runs of one lever."""
    listed = []
    for seed in range(seeds):
        own = [*flags, f"--train.seed={seed}"]
        where = folder / "_".join([dataset, *lever.replace("'", "").split(), str(seed)])
        listed.append(sweep.Run(where, lever, seed, read_config(config, *own), [f"--config={config}", *own]))
    return listed


def score(dataset: str, run: sweep.Run, result: sweep.Result) -> dict[str, object]:
    """A line of the table."""
    line: dict[str, object] = {"dataset": dataset, "lever": run.value, "seed": run.seed, "error": result.error}
    if result.error:
        return line
    model = zoo.load(run.folder / "model")
    scenes = data.make(run.config.data.name, IMAGES, seed=0, **run.config.data.options)
    scores = evaluate(model, scenes, IMAGES).means
    return line | {
        "steps": int(read_log(run.folder)["step"][-1]),
        "minutes": round(model.card["wall_seconds"] / 60, 2),
        **{name: round(scores[name], 4) for name in FG_ARI if name in scores},
        "mse": round(scores["mse"], 5),
    }


def main(
    about: str | None = __doc__,
    studies: Mapping[str, Study] = STUDIES,
    results: Path = RESULTS,
    columns: Sequence[str] = COLUMNS,
    score: Callable[[str, sweep.Run, sweep.Result], dict[str, object]] = score,
) -> None:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--datasets", default=",".join(studies))
    parser.add_argument("--jobs", type=int, default=0, help="runs at a time; by default one per core")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    chosen = asked.datasets.split(",")
    lines: list[dict[str, object]] = []
    if results.exists():  # of datasets that are not asked for, what is there stays
        with results.open(newline="", encoding="utf-8") as file:
            lines = [line for line in csv.DictReader(file) if line["dataset"] not in chosen]

    for dataset in chosen:
        study = studies[dataset]
        recipe = f"{dataset}_{study.recipe}"
        levers = {lever: (recipe, [*study.budget, *flags]) for lever, flags in study.levers.items()}
        for lever in [*levers, *[PAPER] * study.paper]:
            if lever == PAPER:
                same = [line for line in lines if (line["dataset"], line["lever"]) == (dataset, RECIPE)]
                minutes = statistics.median(line["minutes"] for line in same if not line["error"])
                levers[PAPER] = f"{dataset}_paper", [f"--train.minutes={minutes:.2f}"]
            runs = planned(dataset, lever, *levers[lever], study.seeds, asked.folder)
            ended = sweep.sweep(runs, asked.jobs)
            lines += [score(dataset, run, result) for run, result in zip(runs, ended, strict=True)]
            text = io.StringIO()
            table = csv.DictWriter(text, columns, lineterminator="\n")
            table.writeheader()
            table.writerows(lines)
            checkpoint.write(results, text.getvalue().encode())
            print("\n".join(",".join(str(line.get(name, "")) for name in columns) for line in lines[-study.seeds :]))


if __name__ == "__main__":
    main()
