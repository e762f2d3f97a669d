"""What all benchmarks share: taking turns, medians, memory, and the table."""

import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


@dataclass
class Row:
    """One comparison. `slotlib` and `peer` are in `unit`; `times` says how many times better slotlib is."""

    what: str
    peer_name: str
    unit: str
    slotlib: float
    peer: float
    times: float
    goal: float
    """What `times` should reach."""
    met: bool


def faster(what: str, peer_name: str, seconds: Sequence[float], goal: float) -> Row:
    """A row of two durations, slotlib's and the peer's, of which the peer's should be `goal` times longer."""
    ours, theirs = seconds
    times = theirs / ours
    return Row(what, peer_name, "ms", 1e3 * ours, 1e3 * theirs, times, goal, times >= goal)


def smaller(what: str, peer_name: str, size: Sequence[float], goal: float = 1) -> Row:
    """A row of two amounts of memory in bytes, slotlib's and the peer's, of which the peer's should be at least `goal`
    times the first."""
    ours, theirs = size
    return Row(what, peer_name, "MB", ours / 1e6, theirs / 1e6, theirs / max(ours, 1), goal, goal * ours <= theirs)


def in_turns(functions: Sequence[Callable[[], object]], rounds: int, warm_up: int = 2) -> list[float]:
    """Median duration of each function, in seconds of CPU time, all of them called once per round.

    Taking turns spreads whatever else the machine does over all sides. CPU time of this process is what one thread
    needs; on an idle machine it is the time on the wall, and on a busy one it does not count other programs' turns.
    """
    durations: list[list[float]] = [[] for _ in functions]
    for turn in range(warm_up + rounds):
        for function, taken in zip(functions, durations, strict=True):
            start = time.process_time()
            function()
            if turn >= warm_up:
                taken.append(time.process_time() - start)
    return [statistics.median(taken) for taken in durations]


def kept_for_backward(function: Callable[[], Tensor], already_there: Iterable[Tensor]) -> int:
    """Bytes that autograd holds between forward and backward, beyond inputs and parameters."""
    known = {tensor.untyped_storage().data_ptr() for tensor in already_there}
    sizes: dict[int, int] = {}
    alive = []  # while they live, no two storages share an address

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        function()
    return sum(sizes.values())


def peak_growth(function: Callable[[], object]) -> int:
    """Bytes by which the resident memory of this process peaks above where it stood. Linux only."""

    def read(field: str) -> int:
        with open("/proc/self/status") as status:
            return next(1024 * int(line.split()[1]) for line in status if line.startswith(field))

    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")  # the peak starts anew from here
    before = read("VmRSS")
    function()
    return read("VmHWM") - before


def in_fresh_process(code: str) -> float:
    """The number that `code` prints, run by a new interpreter."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(run.stdout)


def machine() -> dict[str, str]:
    """Where these figures were taken."""
    name = platform.processor() or platform.machine()
    if sys.platform == "linux":
        with open("/proc/cpuinfo") as cpuinfo:
            name = next((line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")), name)
    return {
        "processor": name,
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": "1",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text."""

    def number(value: float) -> str:
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"

    cells = [["", "against", "slotlib", "peer", "", "times", "goal", ""]]
    for row in rows:
        numbers = number(row.slotlib), number(row.peer), row.unit, f"{row.times:.2f}"
        cells.append([row.what, row.peer_name, *numbers, f"{row.goal:g}", "met" if row.met else "not met"])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    aligned = "<<>><>><"
    lines = ([f"{c:{a}{w}}" for c, a, w in zip(line, aligned, widths, strict=True)] for line in cells)
    return "\n".join("  ".join(line).rstrip() for line in lines)


def as_json(rows: Sequence[Row]) -> list[dict]:
    """The rows for results.json, rounded to what repeats from run to run."""
    return [{k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in asdict(row).items()} for row in rows]
