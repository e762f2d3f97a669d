"""What the gradient of the fixed point does to training: three experiments with `tetrominoes_first` (chapter 06).

    python -m benchmarks.implicit_training FOLDER [--parts along,stability,race,old_race] [--jobs 1]

race       One budget of processor time, the recipe, one gradient or another: FG-ARI of the drawn masks, and of a
           mixture's posterior, against seconds.
old_race   The same with the recipe of before: squared error of the average, a colour for every pixel, fixed noise.
stability  Short runs without clipping: learning rates × seeds, through all ten iterations or through one.
along      One run, looked at every so often: how far the slots are from a fixed point, the Jacobian's norm and radius,
           the gradient's norm, and the cosine of the cheaper gradients with the exact one.

FOLDER keeps the runs: started again, only what is missing is trained. data/runs/implicit_PART.csv is written anew after
every group of runs. So that nothing else on the machine counts, a race goes by steps: as many as fit into the budget at
what a step costs in processor time, measured first, in turns, half on fresh weights and half on the shipped ones.
Evaluation and saving are left out.
"""

import argparse
import csv
import io
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.ablations import FG_ARI
from benchmarks.measure import in_turns
from slotlib import checkpoint, data, implicit, sweep, training, zoo
from slotlib.autoencoder import SlotAutoencoder
from slotlib.cli import read_config
from slotlib.log import read_log
from slotlib.model import Draws

RUNS = Path(__file__).parents[1] / "data" / "runs"
GRADIENTS = {
    "unrolled": ["--model.attention.gradient=unrolled"],
    "truncated, 3": ["--model.attention.gradient_steps=3"],
    "one step": ["--model.attention.gradient_steps=1"],
    "Neumann, 5": ["--model.attention.gradient=neumann", "--model.attention.gradient_steps=5"],
    "exact": ["--model.attention.gradient=exact"],
}
BUDGET = 60.0  # seconds of one core
LOOKS = 8  # evaluations in a race
FROM_THE_START = [
    "--model.attention.gradient_steps=6",
    "--train.clip=0.3",
]  # each gradient all along; only spikes are clipped
OLD = [
    *["--model.likelihood={class_path: Average}", "--model.decoder.colour=pixel", "--model.attention.num_iterations=5"],
    *["--train.lr=1e-3", "--train.clip=1"],
]
RATES = (1e-3, 4e-3, 1.6e-2, 6.4e-2)
UNSHADED = "--model.decoder.shading=0"
SHORT = ["--train.steps=300", "--train.warmup_steps=50", "--train.clip=0", UNSHADED]
ALONG_STEPS, EVERY, WATCHED = 800, 80, 8  # steps, between looks, and images looked at


def run(name: str, value: str, seed: int, flags: Sequence[str], folder: Path) -> sweep.Run:
    own = [*FROM_THE_START, *flags, f"--train.seed={seed}"]
    config = read_config("tetrominoes_first", *own)
    return sweep.Run(
        folder / f"{name}_{seed}".replace(" ", "_"), value, seed, config, ["--config=tetrominoes_first", *own]
    )


def race(name: str, gradients: Iterable[str], flags: Sequence[str], folder: Path, jobs: int) -> Iterable[list[dict]]:
    costs = step_costs(name, {g: [*flags, *GRADIENTS[g]] for g in gradients}, folder)
    for seed in range(3):
        runs, lines = [], []
        for g in gradients:
            steps = round(BUDGET / costs[g])
            schedule = [  # the recipe's, in proportion
                *[f"--train.steps={steps}", f"--train.eval_every={steps // LOOKS}"],
                "--model.decoder.shading={end: 1, after: 0.25, over: 0.05}",
                *["--train.warmup_steps=100", "--train.eval_images=160", "--train.save_every=1000000"],
            ]
            runs.append(run(f"{name}_{g}", g, seed, [*schedule, *flags, *GRADIENTS[g]], folder))
        for each, result in zip(runs, sweep.sweep(runs, jobs), strict=True):
            key = {"gradient": each.value, "seed": seed}
            if result.error:
                lines.append(key | {"error": result.error})
                continue
            log = read_log(each.folder)
            for row, step in enumerate(log["step"]):
                scores = {name: round(log[name][row], 4) for name in FG_ARI if name in log}
                if not math.isnan(scores["drawn_fg_ari"]):  # an evaluation
                    lines.append(key | {"step": int(step), "seconds": round(step * costs[each.value], 1)} | scores)
        yield lines


def step_costs(name: str, contestants: Mapping[str, Sequence[str]], folder: Path) -> dict[str, float]:
    """Seconds of processor time that a training step takes, for each gradient; measured once and kept in `folder`."""
    saved = folder / f"{name}_costs.json"
    if not saved.exists():
        images = data.make("tetrominoes", 32, look="first").batch(range(32))["image"]
        shipped = zoo.load("tetrominoes").state_dict()
        steps = []
        for flags in contestants.values():
            for weights in ({}, shipped):
                model = SlotAutoencoder(read_config("tetrominoes_first", *flags).model)
                own = model.state_dict()
                own.update({k: v for k, v in weights.items() if k in own and v.shape == own[k].shape})
                model.load_state_dict(own)
                steps.append(partial(one_step, model, torch.optim.Adam(model.parameters(), lr=0.0), images))
        times = in_turns(steps, rounds=15)
        costs = {g: (times[2 * i] + times[2 * i + 1]) / 2 for i, g in enumerate(contestants)}
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.write(saved, json.dumps(costs).encode())
    return json.loads(saved.read_text(encoding="utf-8"))


def one_step(model: SlotAutoencoder, optimiser: torch.optim.Optimizer, images: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(images)
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.3)
    optimiser.step()


def stability(folder: Path, jobs: int) -> Iterable[list[dict]]:
    for rate in RATES:
        lines = []
        runs = [
            run(f"stability_{g}_{rate:g}", g, seed, [*SHORT, f"--train.lr={rate:g}", *GRADIENTS[g]], folder)
            for g in ("unrolled", "one step")
            for seed in range(3)
        ]
        for each, result in zip(runs, sweep.sweep(runs, jobs), strict=True):
            line = {"gradient": each.value, "lr": rate, "seed": each.seed, "error": result.error}
            if not result.error:
                scores = {name: round(result.metrics[name], 4) for name in FG_ARI}
                line |= scores | {"mse": round(result.metrics["mse"], 5)}
            lines.append(line)
        yield lines


def gradient_vectors(model: SlotAutoencoder, images: Tensor, seed: int) -> dict[str, object]:
    """All gradients of one loss with respect to encoder and slot attention, in double precision, and the fixed point.

    "… here" are those training could use, after the model's number of iterations; the others are taken at the fixed
    point that these lead to. Images whose slots do not settle are left out.
    """
    attention, count = model.slot_attention, model.slot_attention.num_iterations
    learned = [p for n, p in model.named_parameters() if not n.startswith(("decoder", "slot_attention.slots_"))]
    start = attention.initial_slots(len(images), generator=torch.Generator().manual_seed(seed)).detach()

    def update(slots: Tensor, features: Tensor) -> Tensor:
        return attention.step(slots, attention.prepare(features))[0]

    with torch.no_grad():
        features = model.encode(images).flatten(1, 2)
        here = start
        for _ in range(count):
            before, here = here, update(here, features)
        moved = implicit.residual(here, before)
        found = implicit.solve(update, here, features, tolerance=1e-7, max_iterations=600)
    settled = found.converged
    looked = {"moved": moved.median().item(), "settled": settled.double().mean().item()}
    if settled.sum() < 2:
        return looked
    images, features, start, fixed = images[settled], features[settled], start[settled], found.z[settled]
    noise = torch.Generator().manual_seed(seed)
    looked["norm"] = implicit.spectral_norm(update, fixed, features, generator=noise).median().item()
    looked["radius"] = implicit.spectral_radius(update, fixed, features, generator=noise).median().item()

    def vector(gradient: implicit.Gradient, steps: int = 1, before: int | None = None) -> Tensor:
        """From the fixed point, or (`before`) from the slots so many iterations after the start."""
        features = model.encode(images).flatten(1, 2)
        slots = fixed
        if before is not None:
            with torch.no_grad():
                slots = start
                for _ in range(before):
                    slots = update(slots, features)
        slots = implicit.last_steps(update, slots, features, gradient=gradient, steps=steps, strict=False)
        loss = model.likelihood.cost(model.decoder(slots), model.units(images)).mean()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, learned)])

    return looked | {
        "exact": vector("exact"),
        "one step": vector("implicit"),
        **{f"Neumann, {k}": vector("neumann", k) for k in (2, 5, 10, 20)},
        "one step here": vector("implicit", before=count - 1),
        "truncated, 3 here": vector("implicit", 3, before=count - 3),
        "Neumann, 5 here": vector("neumann", 5, before=count - 1),
        "unrolled here": vector("implicit", count, before=0),
    }


def along(folder: Path) -> Iterable[list[dict]]:
    scenes = data.make("tetrominoes", 10**6, seed=1, look="first")
    watched = data.make("tetrominoes", WATCHED, seed=2, look="first").batch(range(WATCHED))["image"].double()
    for gradient in ("unrolled", "one step"):
        for seed in range(2):
            saved = folder / f"along_{gradient}_{seed}.csv".replace(" ", "_")
            if not saved.exists():
                flags = [
                    *FROM_THE_START,
                    f"--train.steps={ALONG_STEPS}",
                    UNSHADED,
                    *GRADIENTS[gradient],
                ]
                write(saved, one_run(read_config("tetrominoes_first", *flags), gradient, seed, scenes, watched))
            with saved.open(newline="", encoding="utf-8") as file:
                yield list(csv.DictReader(file))


def one_run(config: training.Config, gradient: str, seed: int, scenes: data.Scenes, watched: Tensor) -> list[dict]:
    torch.manual_seed(seed)
    model, options, lines = SlotAutoencoder(config.model), config.train, []
    twin = SlotAutoencoder(config.model).double()  # looked at, so that training does not notice
    optimiser = torch.optim.Adam(model.parameters())
    for step in range(options.steps + 1):
        model.at(step / options.steps)
        batch = scenes.batch(range(step * options.batch_size, (step + 1) * options.batch_size))["image"]
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(batch, Draws(training.step_generator(seed, step)))
        optimiser.zero_grad()
        loss.backward()
        length = torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip).item()
        if step % EVERY == 0:
            twin.load_state_dict(model.state_dict())
            twin.at(step / options.steps)
            looked = gradient_vectors(twin, watched, seed)
            exact = looked.pop("exact", None)
            line = {"gradient": gradient, "seed": seed, "step": step, "loss": loss.item(), "grad_norm": length}
            for name, value in looked.items():
                if isinstance(value, Tensor):
                    line[f"cosine: {name}"] = torch.cosine_similarity(value, exact, dim=0).item()
                    value = (value.norm() / exact.norm()).item()
                    name = f"length: {name}"
                line[name] = value
            lines.append({k: round(v, 5) if isinstance(v, float) else v for k, v in line.items()})
        for group in optimiser.param_groups:
            group["lr"] = training.learning_rate(step, options)
        optimiser.step()
    return lines


def write(path: Path, lines: Sequence[dict]) -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, dict.fromkeys(name for line in lines for name in line), lineterminator="\n")
    table.writeheader()
    table.writerows(lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write(path, text.getvalue().encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parts", default="along,stability,race,old_race")
    parser.add_argument("--jobs", type=int, default=0, help="runs at a time; by default one per core")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    parts = {
        "along": lambda: along(asked.folder),
        "stability": lambda: stability(asked.folder, asked.jobs),
        "race": lambda: race("race", GRADIENTS, [], asked.folder, asked.jobs),
        "old_race": lambda: race("old_race", ("unrolled", "one step"), OLD, asked.folder, asked.jobs),
    }
    for part in asked.parts.split(","):
        lines: list[dict] = []
        for more in parts[part]():
            lines += more
            write(RUNS / f"implicit_{part}.csv", lines)


if __name__ == "__main__":
    main()
