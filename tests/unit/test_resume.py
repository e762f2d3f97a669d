"""A run that was stopped, killed or out of disk goes on from its last checkpoint, and ends with the same bits."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from test_training import (
    CLEVR,
    GUMBEL,
    LIT,
    PATCHES,
    PRIOR,
    SCENES,
    SETS,
    SLATE,
    SMALL,
    STRANGE,
    SVQ,
    interrupted,
    same,
    same_logs,
    train,
    weights,
)
from test_training import codes as codes  # a fixture

from slotlib import training
from slotlib.log import read_log


def stopping(monkeypatch, *steps):
    """A run is interrupted before each of these steps, counted from 0, once."""
    left, position = list(steps), training.learning_rate

    def rate(step, options):
        if step in left:
            left.remove(step)
            raise KeyboardInterrupt
        return position(step, options)

    monkeypatch.setattr(training, "learning_rate", rate)


@pytest.mark.parametrize(
    ("config", "scenes", "changes"),
    [
        (SMALL, SCENES, {"workers": 1}),
        (SMALL, replace(SCENES, size=20, keep=True), {"accumulate": 2}),
        (SMALL, replace(SCENES, light=LIT), {"accumulate": 2}),
        (SVQ, SCENES, {}),
        (GUMBEL, SCENES, {}),
        (PRIOR, SCENES, {}),
        (PRIOR, replace(SCENES, size=20, keep=True), {}),
        (PATCHES, SCENES, {}),
        (SLATE, SCENES, {}),
        (SETS, CLEVR, {}),
        (STRANGE, SCENES, {"precision": "bf16-mixed"}),
    ],
    ids=["workers", "kept", "light", "codes", "Gumbel", "prior", "prior kept", "patches", "SLATE", "sets", "stranger"],
)
def test_a_run_that_is_stopped_again_and_again_ends_with_the_same_bits(
    config, scenes, changes, codes, tmp_path, monkeypatch
):
    if config is PRIOR:
        config = replace(config, autoencoder=codes)
    often = dict(steps=8, save_every=2, log_every=1, eval_every=4, batch_size=4, eval_images=4, **changes)
    whole = train(tmp_path / "whole", config, scenes, **often).state_dict()
    lives = 0, 5
    stopping(monkeypatch, *lives)
    for _ in lives:
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "stopped", config, scenes, **often)
    assert same(train(tmp_path / "stopped", config, scenes, **often).state_dict(), whole)
    assert same(weights(tmp_path / "stopped"), whole)
    same_logs(tmp_path / "stopped", tmp_path / "whole")


# One process that forks a child per life of the run, which spares each the import of torch.
TWENTY_LIVES = """
import os, random, signal, sys, time
from pathlib import Path
import lightning_fabric, torch.utils.tensorboard
import {module} as mine
from slotlib import training

whole, killed = map(Path, sys.argv[1:])
config = mine.fitted(mine.STRANGE, steps=60, log_every=1, save_every=4, eval_every=20)
chance = random.Random(int.from_bytes(os.urandom(4)))

def live(folder):
    child = os.fork()
    if not child:
        training.train(config, folder, progress=False)
        os._exit(0)
    return child

def rows():
    return (killed / "log.csv").read_text().count("\\n") - 1 if (killed / "log.csv").exists() else 0

begun = time.perf_counter()
os.waitpid(live(whole), 0)
a_step = (time.perf_counter() - begun) / config.train.steps
for target in sorted(chance.randrange(config.train.steps * 9 // 10) for _ in range(20)):
    child = live(killed)
    if chance.random() < 0.8:  # else anywhere, perhaps before its first step
        while rows() <= target:
            time.sleep(a_step / 10)
    time.sleep(chance.random() * 2 * a_step)
    os.kill(child, signal.SIGKILL)
    if os.waitpid(child, 0)[1] != signal.SIGKILL:
        sys.exit("a run ended before it was killed")
os.waitpid(live(killed), 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_killed_twenty_times_ends_bit_for_bit_like_one_that_was_not(tmp_path):
    """Of a stranger's model, in a script that imports its module."""
    program, folders = TWENTY_LIVES.format(module="test_training"), [tmp_path / "whole", tmp_path / "killed"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.path.dirname(__file__)}
    command = [sys.executable, "-c", program, *folders]
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stderr
    assert process.stderr.count("Traceback") == 0, process.stderr
    assert same(weights(folders[0]), weights(folders[1]))
    same_logs(*folders)
    assert len(read_log(folders[1])["step"]) == 60
    left = {path.name for path in folders[1].iterdir()}
    assert left == {"log.csv", "tensorboard", "model.json", "model.safetensors"} | {
        f"step_00000060.{ending}" for ending in ("json", "safetensors")
    }


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    whole, folder = train(tmp_path / "whole").state_dict(), tmp_path / "full"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "evaluate", interrupted)  # at step 6
        train(folder)
    size = (folder / "step_00000003.safetensors").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, hard))  # the system refuses larger files, as a full disk
        with pytest.raises(OSError, match=r"cannot write \d+ bytes: File too large: .*step_00000006"):
            train(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in folder.glob("*step_*")) == [
        "step_00000003.json",
        "step_00000003.safetensors",
    ]
    assert same(train(folder).state_dict(), whole)
