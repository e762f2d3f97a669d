"""What one CUDA device does, in at most eight minutes: the GPU tests, and how fast the library is there.

    make gpu        (python -m benchmarks.gpu)

Measured: a training step of the Tetrominoes recipe and of the paper's CLEVR6 model, as it is, compiled and in bf16;
SlotAttention beside PyPI's; scenes drawn on the device; a minute of training. benchmarks/gpu.json keeps it all, and the
page "Benchmarks" shows it. Without a CUDA device it says so and does nothing. What would pass the time limit is left
out, and said to be.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import slot_attention as peer
import torch

from slotlib import checkpoint, data, training
from slotlib.autoencoder import SlotAutoencoder
from slotlib.cli import read_config
from slotlib.log import read_log
from slotlib.slot_attention import SlotAttention

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("gpu.json")
LIMIT = 8 * 60
SIZES = ((64, 81), (64, 1024), (32, 4096))
"""Batch and inputs of slot attention."""
WAYS = ("float32", "float32, compiled", "bf16", "bf16, compiled")
Row = dict[str, str | float]


def milliseconds(step: Callable[[], object], rounds: int = 20, warm_up: int = 5) -> float:
    """Median duration on the device."""
    for _ in range(warm_up):
        step()
    times = []
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        step()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def training_step(name: str, way: str, batch: int) -> Callable[[], None]:
    """One step of a packaged configuration, gradients as at the end of its schedule."""
    config = read_config(name)
    torch.manual_seed(0)
    model = SlotAutoencoder(config.model).cuda()
    optimizer = torch.optim.Adam([each for each in model.parameters() if each.requires_grad], lr=config.train.lr)
    images = data.make(config.data.name, batch, **config.data.options).batch(range(batch), "cuda")["image"]
    loss = torch.compile(model.loss) if "compiled" in way else model.loss

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled="bf16" in way):
            cost = loss(images)
        cost.backward()
        optimizer.step()

    return step


def steps() -> Iterator[Row]:
    for name, batch in (("tetrominoes_fast", 64), ("clevr6_paper", 64)):
        for way in WAYS:
            took = milliseconds(training_step(name, way, batch))
            yield {"what": f"training step, {name}, batch {batch}, {way}", "value": took, "unit": "ms"}


def attention_step(side: str, batch: int, inputs: int) -> Callable[[], None]:
    """Forward and backward of one side's slot attention, three iterations, seven slots."""
    x = torch.randn(batch, inputs, 64, device="cuda", requires_grad=True)
    if side == "slotlib":
        module = SlotAttention(64, 64, num_slots=7, num_iterations=3).cuda()
        return lambda: module(x).slots.sum().backward()
    theirs = peer.SlotAttention(7, 64, 3, hidden_dim=128).cuda()
    return lambda: theirs(x).sum().backward()


def attentions() -> Iterator[Row]:
    for batch, inputs in SIZES:
        for side in ("slotlib", f"slot-attention {version('slot-attention')}"):
            what = f"forward and backward, batch {batch}, {inputs} inputs, {side}"
            yield {"what": what, "value": milliseconds(attention_step(side, batch, inputs)), "unit": "ms"}


def drawing() -> Iterator[Row]:
    for name, count in (("tetrominoes", 4096), ("shapes", 1024), ("multi_dsprites", 1024), ("clevr", 64)):
        draw = partial(data.make(name, count).batch, range(count), "cuda")
        took = milliseconds(draw, rounds=5, warm_up=2)
        yield {"what": f"scenes drawn, {name}", "value": 1e3 * count / took, "unit": "scenes/s"}


def a_minute() -> Iterator[Row]:
    config = read_config("tetrominoes", "--train.minutes=1", "--train.accelerator=cuda", "--train.eval_every=100000")
    with tempfile.TemporaryDirectory() as folder:
        training.train(config, folder, progress=False)
        log = read_log(folder)
    yield {"what": "a minute of training, tetrominoes", "value": float(log["step"][-1]), "unit": "steps"}
    for score in ("drawn_fg_ari", "posterior_fg_ari"):
        yield {"what": f"after it, {score}", "value": float(log[score][-1]), "unit": "FG-ARI"}


def tests() -> Iterator[Row]:
    """Those marked `gpu`."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150)
    last = next((line for line in reversed(ended.stdout.splitlines()) if line.strip()), "no output")
    yield {"what": f"GPU tests: {last}", "value": float(ended.returncode), "unit": "exit status"}


def main() -> None:
    if not torch.cuda.is_available():
        print("no CUDA device here: nothing to measure")
        return
    started = time.monotonic()
    rows: list[Row] = []
    for part in (tests, steps, attentions, drawing, a_minute):
        try:
            for row in part():
                rows.append(row | {"value": float(f"{row['value']:.4g}")})
                print(f"{row['what']}: {row['value']:.4g} {row['unit']}", flush=True)
                if time.monotonic() - started > LIMIT - 75:  # room for the last part
                    break
        except (RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
            rows.append({"what": f"{part.__name__}: {error}".splitlines()[0], "value": 1.0, "unit": "failed"})
            print(rows[-1]["what"], flush=True)
        if time.monotonic() - started > LIMIT - 75:
            rows.append({"what": f"left out after {part.__name__}: the limit of {LIMIT} s", "value": 0.0, "unit": ""})
            break
    capability = ".".join(map(str, torch.cuda.get_device_capability()))
    machine = {"device": torch.cuda.get_device_name(), "capability": capability, "torch": torch.__version__}
    checkpoint.write(RESULTS, (json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n").encode())
    print(f"written to {RESULTS} in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
