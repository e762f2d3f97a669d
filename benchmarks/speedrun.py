"""Seconds from nothing to FG-ARI 0.90, 0.95 and 0.99 on Tetrominoes: the recipe against the paper's model.

Levels are of `masks`, which say whose pixel it is: of the recipe, a mixture, the posterior; of the others, the drawn
ones. Where each run ended is told for drawn masks too.

    python -m benchmarks.speedrun --seeds 0,1,2,3,4 --cores 1,2 --contestants recipe,paper,pypi

Contestants, all trained by `slotlib.training.train`:
    recipe   a packaged configuration, `tetrominoes_fast` unless --recipe names another (or a YAML file), with
             schedules of several lengths (`SCHEDULES`): a level that is reached early needs no long one;
    paper    the paper's model and schedule, `tetrominoes_paper`;
    pypi     the same with the slot attention of PyPI's slot-attention (lucidrains) between encoder and decoder.

What is timed. Every run is a process of its own. Its clock starts with the process and counts everything, imports and
set-up included, except evaluations: 320 fresh scenes of a seed that training does not use, one initialisation, and the
pictures drawn with them. A level counts as reached at the *first* evaluation at or above it, at the time that
evaluation began. Scores waver, so this is a little kind to everyone; and times are exact to one interval between
evaluations, `EVERY` so many steps, which the table gives in seconds.

The schedule is each configuration's own, counted in steps, and a run is stopped once it reaches 0.99 or, at the first
evaluation after --minutes, by the cap. A budget by the clock would bend the schedule to the cap: the paper's half a
million steps would be squeezed into a few hundred, which is no longer its schedule, and how soon the recipe gets to
0.90 would depend on where it is told to end. Every run serves all three levels. What is not reached within the cap, or
by the end of the schedule, is reported as that.

After every run the results are written, whole or not at all. Started again, only what is missing is measured; a run
that was cut off begins anew, and so does one that was capped earlier than now asked for. Two runs on one core may go
side by side (--jobs 2), which slows both where cores share a cache; a run on several cores always goes alone.
"""

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn

from benchmarks.measure import machine
from slotlib import checkpoint, cli, plots, training
from slotlib.autoencoder import AutoencoderConfig, SlotAutoencoder
from slotlib.course import cores
from slotlib.model import Draws, Look, Model, Scenes
from slotlib.slot_attention import AttentionConfig, SlotAttentionOutput

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("speedrun.json")
PICTURE = ROOT / "book" / "assets" / "benchmarks" / "speedrun.png"
IMAGES = 320
LEVELS = (0.90, 0.95, 0.99)
FG_ARI = "drawn_fg_ari", "posterior_fg_ari"
GOALS = {0.90: 30, 0.95: 80, 0.99: 9 * 60}
"""Seconds of the recipe on one core."""
SCHEDULES: dict[int, dict[str, float | str]] = {
    700: {},
    2000: {"model.attention.gradient_steps": 3, "train.clip": 0.3, "data.light": "{}"},
    0: {},
}
"""Steps of the recipe's schedules, 0 for its own, and what else differs. Gradients through several iterations make
better slots, and the recipe's come late; 2,000 steps are too few to wait. Three iterations from the start are a middle
way, for short schedules: over long ones some seeds fell apart with them. There the light does not change: levels are
of scenes as they are."""
PEER = "slot-attention"
NAMES = {"recipe": "recipe, {steps:,} steps", "paper": "the paper's model", "pypi": "the paper's model on PyPI {peer}"}
EVERY = {"recipe": 100, "paper": 10, "pypi": 10}
"""Steps between evaluations. A step of the paper's model takes seconds, and scoring it twice as long as one."""


@dataclass(frozen=True)
class Run:
    contestant: str
    config: str
    """A packaged configuration or a YAML file."""
    cores: int
    seed: int
    minutes: float
    """The cap."""
    steps: int = 0
    """Length of the schedule; 0: the configuration's own."""

    @property
    def key(self) -> str:
        schedule = f", {self.steps} steps" * bool(self.steps)
        return f"{self.contestant} {Path(self.config).stem}{schedule}, cores {self.cores}, seed {self.seed}"


# --- one run, in a process of its own ---------------------------------------------------------


class Peer(nn.Module):
    """PyPI's slot attention, called as `SlotAutoencoder` calls ours.

    It draws its slots itself, from torch's global generator, which training seeds with the run's seed. Its attention
    stays inside, so what is returned as attention is NaN; masks and scores come from the decoder and do not need it.
    """

    def __init__(self, config: AttentionConfig):
        super().__init__()
        from slot_attention import SlotAttention  # here, so that no other contestant waits for its import

        self.iterations = config.num_iterations
        self.module = SlotAttention(
            config.num_slots, config.slot_dim, config.num_iterations, hidden_dim=config.mlp_hidden_dim
        )

    def initial_slots(
        self, batch_size: int, num_slots: int | None = None, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch slots dim"]:
        """A stand-in of the right shape: the peer starts from its own."""
        return torch.empty(batch_size, num_slots or self.module.num_slots, self.module.dim)

    def forward(
        self,
        inputs: Float[Tensor, "batch inputs dim"],
        num_slots: int | None = None,
        num_iterations: int | None = None,
        slots: Float[Tensor, "batch slots dim"] | None = None,
        generator: torch.Generator | None = None,
    ) -> SlotAttentionOutput:
        self.module.iters = num_iterations or self.iterations
        slots = self.module(inputs, num_slots if slots is None else slots.shape[1])
        return SlotAttentionOutput(slots, slots.new_full((*slots.shape[:2], inputs.shape[1]), math.nan), None)


class Stopwatch:
    """Seconds since `started` (of `time.monotonic`, which all processes of a machine share), pauses left out."""

    def __init__(self, started: float):
        self.started, self.cpu_started = started, 0.0

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def cpu_seconds(self) -> float:
        """Of this process, over all its threads."""
        return time.process_time() - self.cpu_started

    @contextmanager
    def paused(self) -> Iterator[None]:
        before, cpu_before = time.monotonic(), time.process_time()
        yield
        self.started += time.monotonic() - before
        self.cpu_started += time.process_time() - cpu_before


def counted(curve: Mapping[str, list[float]]) -> list[float]:
    """The scores that levels are of: FG-ARI of the posterior, of the drawn masks where there is none."""
    return curve.get("posterior_fg_ari") or curve["drawn_fg_ari"]


class Over(Exception):
    """Nothing more to be learned from this run; says why."""


class Watched(Model):
    """What all contestants share: looking at them stops the clock, and a score may end the run."""

    watch: ClassVar[Stopwatch]
    run: ClassVar[Run]
    steps: ClassVar[int]
    """Of the schedule."""
    curve: ClassVar[dict[str, list[float]]]

    def judge(self, scenes: Scenes, draws: Draws | None = None, **how: Any) -> dict[str, Tensor]:
        with self.watch.paused():
            return super().judge(scenes, draws, **how)

    def look(self, scenes: Scenes) -> Look:
        with self.watch.paused():
            return super().look(scenes)

    def summarise(self, columns: Mapping[str, Tensor]) -> dict[str, float]:
        """Note what came of an evaluation. The first, of a single scene, only tells training what will be measured."""
        means, every = super().summarise(columns), EVERY[self.run.contestant]
        if len(columns["mse"]) == IMAGES:
            seconds = self.watch.seconds()
            step = min(every * (len(self.curve["step"]) + 1), self.steps)
            scores = {name: round(means[name], 5) for name in FG_ARI if name in means}
            for name, value in {"step": step, "seconds": round(seconds, 2), **scores}.items():
                self.curve.setdefault(name, []).append(value)
            if seconds >= 60 * self.run.minutes:
                raise Over("capped")
            if counted(self.curve)[-1] >= LEVELS[-1]:
                raise Over("reached")
            if step >= self.steps:
                raise Over("finished")
        return means


@dataclass
class OursConfig(AutoencoderConfig):
    """A recipe's, for `Ours`."""


class Ours(Watched, SlotAutoencoder):
    """The model of a recipe."""

    config: OursConfig


@dataclass
class PeerConfig(AutoencoderConfig):
    """A recipe's, for `PeerAutoencoder`."""


class PeerAutoencoder(Watched, SlotAutoencoder):
    """Our encoder and decoder, with the weights they would start from anyway, around the peer's slot attention."""

    config: PeerConfig

    def __init__(self, config: PeerConfig):
        super().__init__(config)
        self.slot_attention = Peer(config.attention)


def configuration(contestant: str, config: str, seed: int, steps: int = 0) -> training.Config:
    """A packaged configuration or YAML file as the speedrun trains it."""
    train = {"seed": seed, "eval_every": EVERY[contestant], "eval_images": IMAGES, "accelerator": "cpu", "devices": 1}
    if steps:
        train["steps"] = steps
    flags = {f"train.{name}": value for name, value in train.items()} | SCHEDULES.get(steps, {})
    return cli.read_config(config, *(f"--{name}={value}" for name, value in flags.items()))


def measure(run: Run, started: float, folder: Path | str) -> dict[str, Any]:
    """Train, and stop as soon as the run is decided. `started` is when it began, in seconds of `time.monotonic`."""
    config = configuration(run.contestant, run.config, run.seed, run.steps)
    Watched.watch, Watched.run, Watched.steps = Stopwatch(started), run, config.train.steps
    Watched.curve = curve = {"step": [], "seconds": []}
    kind = PeerConfig if run.contestant == "pypi" else OursConfig
    error = ""
    try:
        training.train(replace(config, model=kind(**vars(config.model))), folder, progress=False)
    except Over as reason:
        ended = str(reason)
    except ValueError as failure:  # the loss is no longer finite
        if not curve["step"]:
            raise  # more likely a configuration that cannot be trained at all
        ended, error = "failed", str(failure)
    return {
        **asdict(run),
        "config": Path(run.config).stem,
        "configuration": config.plain(),
        "steps": config.train.steps,
        "ended": ended,
        "error": error,
        "cpu_seconds": round(Watched.watch.cpu_seconds(), 1),
        "curve": curve,
    }


def end_with(parent: int) -> None:
    """Leave no run behind that nobody waits for, and that would slow the next one, when the parent is killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def work(argument: str) -> None:
    """What the process of one run does: `start` says with what."""
    task = json.loads(argument)
    threading.Thread(target=end_with, args=[os.getppid()], daemon=True).start()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, task["on"])
    folder = Path(task["folder"])
    record = measure(Run(**task["run"]), task["started"], folder / "training")
    (folder / "result.json").write_text(json.dumps(record))


# --- all runs ---------------------------------------------------------------------------------


def start(run: Run, on: Sequence[int], folder: Path) -> subprocess.Popen:
    """A process for `run` on the cores numbered `on`."""
    threads = {name: str(run.cores) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    with (folder / "output.txt").open("wb") as output:
        task = {"run": asdict(run), "on": list(on), "folder": str(folder), "started": time.monotonic()}
        return subprocess.Popen(
            [sys.executable, "-c", "import sys; from benchmarks.speedrun import work; work(sys.argv[1])"]
            + [json.dumps(task)],
            env={**os.environ, **threads},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def run_all(runs: Sequence[Run], jobs: int, finished: Callable[[Run, dict[str, Any]], None]) -> list[str]:
    """Measure `runs`, at most `jobs` one-core ones at a time. Returns a line for each run that broke down.

    `finished` gets every result as it comes. However this ends, no process is left behind.
    """
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(cores()))
    waiting = sorted(runs, key=lambda run: run.cores)  # stable: else in the order given
    running: dict[subprocess.Popen, tuple[Run, list[int], Path]] = {}
    beside: set[Run] = set()
    broken = []
    with tempfile.TemporaryDirectory(prefix="speedrun") as base:
        try:
            while waiting or running:
                # Those that run are of one core whenever the next one is: the queue is sorted.
                while waiting and (not running or (waiting[0].cores == 1 and len(running) < jobs)):
                    run = waiting.pop(0)
                    taken = [core for _, on, _ in running.values() for core in on]
                    on = [core for core in allowed if core not in taken][: run.cores]
                    folder = Path(tempfile.mkdtemp(dir=base))
                    if running:
                        beside |= {run, *(other for other, _, _ in running.values())}
                    print(f"{time.strftime('%H:%M:%S')}  {run.key} ...", flush=True)
                    running[start(run, on, folder)] = run, on, folder
                time.sleep(0.2)
                for process in [process for process in running if process.poll() is not None]:
                    run, _, folder = running.pop(process)
                    if process.returncode == 0:
                        record = json.loads((folder / "result.json").read_text())
                        finished(run, {**record, "beside_another": run in beside})
                    else:
                        lines = (folder / "output.txt").read_text(errors="replace").split("\n")
                        last = next((line for line in reversed(lines) if line.strip()), "no output")
                        broken.append(f"{run.key}: {last.strip()} (exit status {process.returncode})")
                        print(broken[-1], flush=True)
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()
    return broken


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Stored results by `Run.key`; none if nothing was measured."""
    return json.loads(path.read_text("utf-8"))["runs"] if path.exists() else {}


def write(path: Path, runs: Mapping[str, dict[str, Any]]) -> None:
    """The results and what the page shows of them, whole or not at all. One run per line."""
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(runs[key])}" for key in sorted(runs))
    page = "".join(
        f'"{name}": {json.dumps(value, indent=1, ensure_ascii=False)},\n' for name, value in report(runs).items()
    )
    checkpoint.write(path, f'{{\n{page}"runs": {{\n{lines}\n}}\n}}\n'.encode())


def missing(asked: Sequence[Run], stored: Mapping[str, dict[str, Any]]) -> list[Run]:
    """Runs not measured yet, or capped earlier than now asked for."""

    def done(run: Run) -> bool:
        old = stored.get(run.key)
        return old is not None and (old["ended"] != "capped" or old["minutes"] >= run.minutes)

    return [run for run in asked if not done(run)]


def differences(stored: Mapping[str, dict[str, Any]]) -> list[str]:
    """What of the stored results was not measured as it would be now, in words."""
    now, words = machine(), []
    for key, run in stored.items():
        other = [f"{name} {value}" for name, value in run["machine"].items() if now.get(name) != value]
        other = [each for each in other if not each.startswith("threads")]
        if other:
            words.append(f"{key} is from another machine: {', '.join(other)}")
        if run["config"] in cli.config_names():
            today = configuration(run["contestant"], run["config"], run["seed"], run["steps"]).plain()
            changed = training.differences(run["configuration"], json.loads(json.dumps(today)))
            if changed:
                words.append(f"{key} was measured with another {run['config']}.yaml: {', '.join(changed)}")
    return words


# --- the table and the figure -----------------------------------------------------------------


def seconds_to(run: Mapping[str, Any], level: float) -> float | None:
    """When the first evaluation at or above `level` began; None if that was not within the cap."""
    curve = zip(run["curve"]["seconds"], counted(run["curve"]), strict=True)
    return next((seconds for seconds, score in curve if score >= level and seconds <= 60 * run["minutes"]), None)


def limit(run: Mapping[str, Any]) -> str:
    """What a level was not reached within."""
    schedule = f"not within its {run['steps']:,} steps"
    return {"finished": schedule, "failed": "training failed"}.get(run["ended"], f"not within {run['minutes']:g} min")


def span(values: Sequence[float], form: str = "{:.0f}") -> str:
    """Median and range: "128 (110–150)"; of equal values that value; of none a dash."""
    if not values:
        return "–"
    median, least, most = (form.format(f(values)) for f in (statistics.median, min, max))
    return median if least == most else f"{median} ({least}–{most})"


def median_time(runs: Sequence[Mapping[str, Any]], level: float) -> float:
    """Over seeds; those that do not reach the level take infinitely long."""
    times = [seconds_to(run, level) for run in runs]
    return statistics.median([math.inf if seconds is None else seconds for seconds in times])


def time_cell(runs: Sequence[Mapping[str, Any]], level: float) -> str:
    """Median and range over seeds, and how many did not get there."""
    times = [seconds_to(run, level) for run in runs]
    reached = [seconds for seconds in times if seconds is not None]
    short = [limit(run) for run, seconds in zip(runs, times, strict=True) if seconds is None]
    why = " or ".join(dict.fromkeys(short))
    if not reached:
        return why
    if not short:
        return f"{span(reached)} s"
    median = median_time(runs, level)
    middle = f"{median:.0f}" if math.isfinite(median) else "no median"
    return f"{middle} ({min(reached):.0f}–) s; {why}: {len(short)} of {len(runs)}"


def duration(seconds: float) -> str:
    for unit, size, most in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172800)):
        if seconds < most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"


def grouped(runs: Mapping[str, dict[str, Any]]) -> list[tuple[str, int, list[dict[str, Any]]]]:
    """Name of the contestant, cores, and the runs of all seeds, in the order of the table."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for run in runs.values():
        place = list(NAMES).index(run["contestant"]), run["config"], run["steps"], run["cores"]
        groups.setdefault(place, []).append(run)
    return [
        (NAMES[members[0]["contestant"]].format_map(members[0]), number, sorted(members, key=lambda run: run["seed"]))
        for (*_, number), members in sorted(groups.items())
    ]


def report(runs: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """What the page shows: two tables, the first line of each its heading; notes; the figure in words."""
    times = [["contestant", "cores", "seeds", *(f"to {level:.2f}" for level in LEVELS)]]
    ends = [
        [
            *("contestant", "cores", "times exact to", "FG-ARI at the end, drawn", "posterior"),
            *("after steps", "whole schedule, at this rate"),
        ]
    ]
    goals, told = [], []
    fastest = dict.fromkeys(LEVELS, math.inf)
    for name, number, members in grouped(runs):
        curves = [run["curve"] for run in members]
        intervals = [b - a for c in curves for a, b in zip([0, *c["seconds"]], c["seconds"], strict=False)]
        rate = statistics.median(curve["seconds"][-1] / curve["step"][-1] for curve in curves)
        cells = [time_cell(members, level) for level in LEVELS]
        times.append([name, str(number), str(len(members)), *cells])
        ends.append(
            [
                name,
                str(number),
                f"{statistics.median(intervals):.0f} s",
                *(span([curve[name][-1] for curve in curves if name in curve], "{:.3f}") for name in FG_ARI),
                span([curve["step"][-1] for curve in curves], "{:,.0f}"),
                duration(rate * members[0]["steps"]),
            ]
        )
        told.append(
            f"{name.replace('`', '')} on {number} core{'s' * (number > 1)}, "
            + ", ".join(f"{level:.2f}: {cell}" for level, cell in zip(LEVELS, cells, strict=True))
        )
        if members[0]["contestant"] == "recipe" and number == 1:
            fastest = {level: min(fastest[level], median_time(members, level)) for level in LEVELS}
    if any(map(math.isfinite, fastest.values())):
        met = {level: "met" if fastest[level] <= goal else "not met" for level, goal in GOALS.items()}
        each = ", ".join(f"{level:.2f} in {GOALS[level]} s ({met[level]})" for level in LEVELS)
        goals.append(f"Goals of the recipe on one core, for the median of its fastest schedule: {each}.")
    return {
        "tables": [times, ends],
        "notes": goals + notes(runs),
        "alt": f"Seconds to each level. {'; '.join(told)}.",
    }


def notes(runs: Mapping[str, dict[str, Any]]) -> list[str]:
    """Where the runs were made, and what a reader should hold against them."""

    def counted(some: Sequence[Any]) -> str:
        return "all runs" if len(some) == len(runs) else f"{len(some)} of {len(runs)} runs"

    places: dict[str, list[str]] = {}
    for key, run in runs.items():
        place = ", ".join(f"{name} {value}" for name, value in run["machine"].items() if name != "threads")
        places.setdefault(place, []).append(key)
    lines = [f"{counted(keys).capitalize()}: {place}." for place, keys in places.items()]
    lines += [f"{key}: {run['error']}" for key, run in runs.items() if run["error"]]
    if beside := [key for key, run in runs.items() if run["beside_another"]]:
        lines.append(f"Side by side with another run, each on its own core: {counted(beside)}.")
    if shared := [key for key, run in runs.items() if was_disturbed(run)]:
        lines.append(f"On a core that other programs used too, and so slower than need be: {counted(shared)}.")
    return lines


def was_disturbed(run: Mapping[str, Any]) -> bool:
    """Did a one-core run get less than 95 % of its core? (Threads that wait for each other hide it on several.)"""
    seconds = run["curve"]["seconds"][-1]
    return run["cores"] == 1 and seconds > 60 and run["cpu_seconds"] < 0.95 * seconds


def draw(runs: Mapping[str, dict[str, Any]]) -> Figure:
    """Every seed a dot; hollow triangles, where a run ended, are seeds that had not reached the level."""
    import matplotlib.pyplot as plt

    plots.use_style()
    groups = grouped(runs)
    figure, axis = plt.subplots(figsize=(7.2, 0.8 + 0.75 * len(groups)))
    looks = list(zip(LEVELS, "osD", [plots.PALETTE[i] for i in (4, 0, 2)], (-0.25, 0, 0.25), strict=True))
    for row, (_, number, members) in enumerate(groups):
        for level, marker, colour, shift in looks:
            times = [seconds_to(run, level) for run in members]
            for i, (run, seconds) in enumerate(zip(members, times, strict=True)):
                y = row + shift + 0.035 * (i - (len(members) - 1) / 2)  # apart, also where times agree
                if seconds is None:
                    axis.plot(run["curve"]["seconds"][-1], y, ">", ms=5, mfc="none", mec=colour)
                else:
                    axis.plot(seconds, y, marker, ms=5, color=colour, mew=0, alpha=0.8)
            median = median_time(members, level)
            if math.isfinite(median):
                axis.plot([median] * 2, [row + shift - 0.12, row + shift + 0.12], color=plots.INK, lw=2)
            if members[0]["contestant"] == "recipe" and number == 1:
                axis.plot([GOALS[level]] * 2, [row + shift - 0.12, row + shift + 0.12], color=colour, lw=1.5, ls=":")
    for level, marker, colour, _ in looks:
        axis.plot([], [], marker, ms=5, mew=0, color=colour, label=f"{level:.2f}")
    axis.plot([], [], ">", ms=5, mfc="none", mec=plots.INK, label="not reached")
    if any(name.startswith("recipe") and number == 1 for name, number, _ in groups):
        axis.plot([], [], ":", lw=1.5, color=plots.INK, label="goal")
    axis.legend(ncols=5, loc="lower left", bbox_to_anchor=(0, 1), handletextpad=0.2, columnspacing=1.2)
    names = [f"{name.replace('`', '')}\n{number} core{'s' * (number > 1)}" for name, number, _ in groups]
    axis.set_yticks(range(len(groups)), names)
    axis.set_ylim(len(groups) - 0.5, -0.5)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda seconds, _: f"{seconds:g}")
    axis.xaxis.set_minor_formatter(lambda seconds, _: f"{seconds:g}" if f"{seconds:g}"[0] in "25" else "")
    axis.set_xlabel("seconds of training")
    return figure


def as_text(table: Sequence[Sequence[str]]) -> str:
    """Aligned columns."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(f"{cell:{w}}" for cell, w in zip(line, widths, strict=True)).rstrip() for line in table)


def show(path: Path, picture: Path) -> None:
    """Print the table, draw the figure and bring what the page shows up to date."""
    runs = read(path)
    if not runs:
        print("nothing was measured yet")
        return
    write(path, runs)
    shown = report(runs)
    print("", *map(as_text, shown["tables"]), "\n".join(shown["notes"]), sep="\n\n")
    checkpoint.writable_folder(picture.parent)
    draw(runs).savefig(picture, dpi=160, bbox_inches="tight")
    print(f"\nWritten to {path} and {picture}")


# --- the command line -------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(number) for number in text.split(",")]

    def names(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := set(chosen) - set(NAMES):
            raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}; there are: {', '.join(NAMES)}")
        return chosen

    parser = argparse.ArgumentParser(prog="python -m benchmarks.speedrun", description=__doc__.splitlines()[0])
    parser.add_argument("--contestants", type=names, default=list(NAMES), help=f"of {','.join(NAMES)} (all)")
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2, 3, 4], help="(0,1,2,3,4)")
    parser.add_argument("--cores", type=numbers, default=[1, 2], help="(1,2)")
    parser.add_argument("--recipe", default="tetrominoes_fast", help="a packaged configuration or YAML file")
    parser.add_argument(
        "--schedules", type=numbers, default=list(SCHEDULES), help="steps of the recipe's; 0: its own (700,2000,0)"
    )
    parser.add_argument("--minutes", type=float, default=20, help="cap of a run; evaluation does not count (20)")
    parser.add_argument("--jobs", type=int, default=1, help="one-core runs side by side (1)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results are kept; the figure goes along")
    parser.add_argument("--report", action="store_true", help="measure nothing: table and figure of what there is")
    parsed = parser.parse_args(arguments)
    if min(parsed.cores) < 1 or (not parsed.report and max(*parsed.cores, parsed.jobs) > cores()):
        parser.error(f"this process may use {cores()} cores")
    if parsed.jobs < 1 or parsed.minutes <= 0:
        parser.error("--jobs and --minutes must be positive")
    return parsed


def main(arguments: Sequence[str] | None = None) -> None:
    asked = parse(arguments)
    picture = PICTURE if asked.results == RESULTS else asked.results.with_suffix(".png")
    if asked.report:
        show(asked.results, picture)
        return
    # By its path, so that a recipe has one name in the results, however it was asked for.
    configs = {
        "recipe": str(Path(cli.config_path(asked.recipe)).resolve()),
        "paper": "tetrominoes_paper",
        "pypi": "tetrominoes_paper",
    }
    runs = [
        Run(contestant, configs[contestant], number, seed, asked.minutes, steps)
        for seed in asked.seeds  # all contestants of one seed before the next: an unfinished table is even
        for number in asked.cores
        for contestant in asked.contestants
        for steps in (asked.schedules if contestant == "recipe" else [0])
    ]
    for config in {run.config for run in runs}:
        cli.read_config(config)  # a mistake shows before anything is measured
    peer = f"{PEER} {version(PEER)}" if "pypi" in asked.contestants else ""
    checkpoint.writable_folder(asked.results.parent)
    stored = read(asked.results)
    for line in differences(stored):
        print(f"note: {line}; remove its line from {asked.results.name} to measure it again")
    todo = missing(runs, stored)
    print(f"{len(runs) - len(todo)} of {len(runs)} runs are there already", flush=True)

    def finished(run: Run, record: dict[str, Any]) -> None:
        record["peer"] = peer if run.contestant == "pypi" else ""
        record["machine"] = {**machine(), "threads": str(run.cores)}
        write(asked.results, {**read(asked.results), run.key: record})
        times = ", ".join(f"{level:.2f}: {time_cell([record], level)}" for level in LEVELS)
        print(f"{time.strftime('%H:%M:%S')}  {run.key}: {times}", flush=True)
        if was_disturbed(record):
            print("note: other programs used its core too", flush=True)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends this ends its runs
    try:
        broken = run_all(todo, asked.jobs, finished)
    except KeyboardInterrupt:
        raise SystemExit("interrupted; started again, it goes on with what is missing") from None
    show(asked.results, picture)
    if broken:
        raise SystemExit("\nnot measured, try again:\n" + "\n".join(broken))


if __name__ == "__main__":
    main()
