"""Run the benchmarks, print the table, write benchmarks/results.json."""

import argparse
import importlib
import json
from pathlib import Path

import torch

from benchmarks.measure import as_json, machine, table

NAMES = ("slot_attention", "implicit", "training_step", "metrics", "data", "clevr", "svq")
RESULTS = Path(__file__).with_name("results.json")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"any of {', '.join(NAMES)}; all without")
    names = parser.parse_args().names or NAMES
    for name in names:
        if name not in NAMES:
            parser.error(f"unknown benchmark {name!r}; there are: {', '.join(NAMES)}")
    torch.set_num_threads(1)
    # A single benchmark replaces its own figures and leaves the others.
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in names:
        module = importlib.import_module(f"benchmarks.{name}")
        print(f"\n{module.__doc__.splitlines()[0]}\n")
        rows = module.run()
        print(table(rows), flush=True)
        results[name] = {"machine": machine(), "rows": as_json(rows)}
    results = {name: results[name] for name in NAMES if name in results}
    RESULTS.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    print(f"\nWritten to {RESULTS}")


if __name__ == "__main__":
    main()
