"""What does each lever of the fast recipe do? Take it away and train again: Multi-dSprites, 3,000 steps, three seeds.

    python -m benchmarks.ablations FOLDER [--seeds 0,1,2] [--jobs 2]

FOLDER keeps the runs: started again, only what is missing is trained. At the end every run is scored on 320 fresh
scenes from one start, by its `masks` and by its `drawn_masks`, and benchmarks/ablations.csv is written, one line per
run. A run that failed has a line without scores. "The paper's model" is the paper's architecture and
schedule for as many minutes as the recipe took in the median, on one core as well.
"""

import argparse
import csv
import io
import logging
import statistics
from pathlib import Path

from slotlib import data, sweep, training, zoo
from slotlib.cli import read_config

RESULTS = Path(__file__).with_name("ablations.csv")
BUDGET = ["--train.steps=3000", "--train.one_step_until=1500", "--train.eval_every=3000", "--train.save_every=1000"]
LEVERS = {
    "the recipe": [],
    "squared error of the average": ["--model.likelihood=average"],
    "slots are free": ["--model.parsimony=0"],
    "small noise from the start": ["--train.noise_start=0"],
    "large noise to the end": ["--model.noise=0.4"],
    "three iterations": ["--model.num_iterations=3"],
    "gradient through one iteration": ["--train.one_step_until=3000"],
    "gradient through all iterations": ["--model.gradient=unrolled", "--train.one_step_until=0"],
    "a colour for every pixel": ["--model.colour=pixel"],
    "a tenth of the learning rate": ["--train.lr=4e-4"],
    "all pixels in every step": ["--model.train_stride=1"],
    "32 bits": ["--train.precision=32-true"],
}
"""What is changed → flags of `slotlib train`, on top of `multi_dsprites_fast` and the budget."""
PAPER = "the paper's model"
IMAGES = 320
COLUMNS = ("lever", "seed", "steps", "minutes", "fg_ari", "fg_ari_drawn", "mse", "error")


def runs(folder: Path, seeds: list[int]) -> list[sweep.Run]:
    listed = []
    for number, (lever, flags) in enumerate(LEVERS.items()):
        for seed in seeds:
            own = [*BUDGET, *flags, f"--train.seed={seed}"]
            config = read_config("multi_dsprites_fast", *own)
            name = "_".join([f"{number:02d}", *lever.split(), str(seed)])
            listed.append(sweep.Run(folder / name, lever, seed, config, ["--config=multi_dsprites_fast", *own]))
    return listed


def paper_runs(folder: Path, seeds: list[int], minutes: float) -> list[sweep.Run]:
    own = [f"--train.minutes={minutes:.1f}", "--train.eval_every=1000000", "--train.save_every=50"]
    listed = []
    for seed in seeds:
        flags = [*own, f"--train.seed={seed}"]
        config = read_config("multi_dsprites_paper", *flags)
        where = folder / f"paper_{seed}"
        listed.append(sweep.Run(where, PAPER, seed, config, ["--config=multi_dsprites_paper", *flags]))
    return listed


def score(run: sweep.Run, result: sweep.Result) -> dict[str, object]:
    """A line of the table."""
    line: dict[str, object] = {"lever": run.value, "seed": run.seed, "error": result.error}
    if result.error:
        return line
    model = zoo.load(run.folder / "model")
    scenes = data.make(run.config.data.name, IMAGES, seed=0, **run.config.data.options)
    scores = training.evaluate(model, scenes, IMAGES).means()
    steps = int(training.read_log(run.folder)["step"][-1])
    return line | {
        "steps": steps,
        "minutes": round(model.card["wall_seconds"] / 60, 2),
        "fg_ari": round(scores["fg_ari"], 4),
        "fg_ari_drawn": round(scores["fg_ari_drawn"], 4),
        "mse": round(scores["mse"], 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--jobs", type=int, default=0, help="runs at a time; by default one per core")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    seeds = [int(seed) for seed in asked.seeds.split(",")]

    planned = runs(asked.folder, seeds)
    results = sweep.sweep(planned, asked.jobs)
    took = [result.metrics["wall_seconds"] for result in results if result.metrics and result.value == "the recipe"]
    papers = paper_runs(asked.folder, seeds, statistics.median(took) / 60)
    results += sweep.sweep(papers, asked.jobs)
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for run, result in zip(planned + papers, results, strict=True):
        table.writerow(score(run, result))
    zoo.write(RESULTS, text.getvalue().encode())
    print(text.getvalue())


if __name__ == "__main__":
    main()
