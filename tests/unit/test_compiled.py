"""What torch.compile traces computes what it computed before: slots, codes, losses and their gradients."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

COMPARED = "test_slot_attention", "test_svq", "test_set_prediction"
"""Each has a `compare_compiled`, which raises where they differ."""

CODE = """
import importlib, json, sys, traceback
import torch
told = {}
for name in sys.argv[1:]:
    torch.compiler.reset()
    try:
        importlib.import_module(name).compare_compiled()
    except Exception:
        told[name] = traceback.format_exc()
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def differences():
    # In a process of its own: a compiler cannot follow the comparison of calls with annotations. In one for all, for
    # torch and its compiler take seconds to start.
    command = [sys.executable, "-c", CODE, *COMPARED]
    run = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("module", COMPARED)
def test_compiled_it_is_the_same(module, differences):
    assert module not in differences, differences[module]
