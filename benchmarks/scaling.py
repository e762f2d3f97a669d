"""When does more machinery pay? The same training step by one core and by two, in bf16, compiled, in parts, by DDP.

    python -m benchmarks.scaling

Every line is a run of `slotlib train` in a process of its own, on a quiet machine, for a few steps: batch 64 of
`multi_dsprites_first` or the paper's model, 32 bits and one thread where the line does not say otherwise. `ms` is a
step once the run is going (from the first log entry to the last), `start` what the first entry took beyond that:
compiling, above all. `memory` is the peak of the process (of the first one, under DDP). Writes benchmarks/scaling.json;
the page "Benchmarks" shows it. Nothing here says anything about a GPU.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.measure import machine
from slotlib import checkpoint
from slotlib.log import read_log

RESULTS = Path(__file__).with_name("scaling.json")
STEPS = {"first": 80, "paper": 2}
"""Between the first log entry and the last. A step of the paper's model takes seconds."""
WAYS: dict[str, tuple[int, Sequence[str]]] = {
    "one core": (1, []),
    "two threads": (2, []),
    "two processes (DDP)": (1, ["--train.devices=2"]),
    "two runs side by side": (1, []),
    "bf16": (1, ["--train.precision=bf16-mixed"]),
    "compiled": (1, ["--train.compile=true"]),
    "bf16, compiled": (1, ["--train.precision=bf16-mixed", "--train.compile=true"]),
    "in four parts": (1, ["--train.accumulate=4"]),
}
"""What is done → threads per process, flags of `slotlib train`."""


def measure(family: str, threads: int, flags: Sequence[str]) -> dict[str, float]:
    """One run: seconds per step, seconds to get going, peak memory in MB."""
    every = STEPS[family] // 2
    common = {
        "steps": 3 * every,
        "log_every": every,
        "eval_every": 10**6,
        "eval_images": 1,
        "save_every": 10**6,
        "batch_size": 64,
        "precision": "32-true",
        "accelerator": "cpu",
    }
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "slotlib", "train", f"--config=multi_dsprites_{family}", f"--folder={folder}"]
        command += [*(f"--train.{name}={value}" for name, value in common.items()), *flags]
        if family == "first":
            command += ["--model.attention.gradient_steps=3"]  # the dearer half of the schedule
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
        output = process.stdout.read()  # until it ends
        _, status, used = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"{' '.join(command)} failed: {output.decode(errors='replace')[-500:]}")
        log = read_log(Path(folder))
    # The last entry also holds the evaluation; the one before it does not.
    first, second = log["seconds"][:2]
    per_step = (second - first) / every
    return {"ms": 1e3 * per_step, "start": max(0.0, first - every * per_step), "memory": used.ru_maxrss / 1024}


def main() -> None:
    rows: dict[str, dict[str, Any]] = {}
    for family in STEPS:
        for way, (threads, flags) in WAYS.items():
            copies = 2 if way == "two runs side by side" else 1
            with ThreadPoolExecutor(copies) as pool:
                runs = list(pool.map(lambda _, f=family, t=threads, g=flags: measure(f, t, g), range(copies)))
            figures = {name: sum(run[name] for run in runs) / copies for name in runs[0]}
            figures["scenes_per_second"] = copies * 64e3 / figures["ms"]
            rows[f"{family}: {way}"] = {name: float(f"{value:.3g}") for name, value in figures.items()}
            print(f"{family}: {way}", rows[f"{family}: {way}"], flush=True)
    where = {**machine(), "threads": "as named"}
    checkpoint.write(RESULTS, (json.dumps({"machine": where, "rows": rows}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
