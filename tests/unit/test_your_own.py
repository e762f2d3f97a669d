"""The page "Your own model, decoder, dataset, metric" does what it says."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import slotlib
from slotlib import cli, data


@pytest.fixture(scope="module")
def blocks(root):
    """The page's code: languages and texts, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", (root / "book" / "your_own.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(blocks, tmp_path_factory):
    """Where a reader has put the page's files."""
    folder = tmp_path_factory.mktemp("own")
    *module, script = [text for language, text in blocks if language == "python"]
    (folder / "my_module.py").write_text("\n".join(module))
    (folder / "my.yaml").write_text(next(text for language, text in blocks if language == "yaml"))
    (folder / "run.py").write_text(script)
    return folder


@pytest.fixture(scope="module")
def commands(blocks):
    """The page's commands, without `slotlib`: to train, to evaluate."""
    return [line.split()[1:] for language, text in blocks if language == "bash" for line in text.splitlines()]


@pytest.fixture(scope="module")
def runs(folder, commands):
    """A run from Python, and one from the command line that was killed and given again."""
    command = [str(Path(sys.executable).with_name("slotlib")), *commands[0]]
    where = {"cwd": folder, "env": {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}}
    mine = folder / "runs" / "mine"
    for _ in range(5):  # a machine with much to do may look away until the run has ended
        shutil.rmtree(mine, ignore_errors=True)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **where)
        deadline = time.time() + 60
        while not list(mine.glob("step_*.json")) and time.time() < deadline:
            time.sleep(0.002)
        process.kill()
        output = process.communicate()[0].decode()
        assert list(mine.glob("step_*.json")), output
        if not (mine / "model.json").exists():
            break
    else:
        pytest.fail("five runs ended before they were killed")
    # Both in one process, for each takes seconds to start: the script, and after it the command again.
    both = "import runpy; runpy.run_path('run.py', run_name='__main__'); from slotlib import cli; cli.main()"
    subprocess.run([sys.executable, "-c", both, *commands[0]], check=True, capture_output=True, **where)
    return folder / "runs"


@pytest.fixture
def own(folder, monkeypatch):
    """The page's module, as seen from its folder."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module("my_module")


def test_it_is_sixty_lines(blocks):
    assert sum(bool(line.strip()) for _, text in blocks for line in text.splitlines()) <= 60


def test_a_run_that_was_killed_ends_with_the_same_weights(runs):
    mine, python = runs / "mine", runs / "python"
    assert (mine / "model.safetensors").read_bytes() == (python / "model.safetensors").read_bytes()
    card = json.loads((mine / "model.json").read_text())
    assert card["model"] == "my_module.Denoiser"
    assert card["configuration"]["decoder"]["class_path"] == "my_module.Boxes"


def test_a_model_is_known_once_its_module_is_imported(runs, request):
    with pytest.raises(ValueError, match=r"'my_module\.Denoiser', which is not known; import my_module first"):
        slotlib.load(runs / "mine" / "model")
    own = request.getfixturevalue("own")
    model = slotlib.load(runs / "mine" / "model")
    assert isinstance(model, own.Denoiser) and isinstance(model.decoder, own.BoxDecoder)
    assert (model.noise, model.decoder.sharpness) == (0.0, pytest.approx(4 + 12 * 59 / 60))  # of its last step


def test_its_scores_begin_with_its_own(runs, own, commands, capsys):
    cli.main(commands[1])
    scores = json.loads(capsys.readouterr().out)
    assert next(iter(scores)) == "psnr" and scores["images"] == 640


def test_its_scenes_are_found_by_name(own):
    scenes = data.make("my_module.draw", 1000, side=4)
    assert (scenes.batch(range(50))["mask"].sum(dim=(1, 2)) == 16).all()
    assert (scenes.batch([7, 3])["image"][1] == scenes[3]["image"]).all()
    with pytest.raises(TypeError, match=r"my_module\.draw has no option 'colour'; it has: side"):
        data.make("my_module.draw", 10, colour=4)


def test_help_says_what_the_module_says(own, capsys):
    cli.main(["train", "--config", "my.yaml", "--model.noise.start", "0.3", "--help"])
    text = capsys.readouterr().out
    assert re.search(r"--model.noise .*'end': 0.0, 'start': 0.3.*\n +Standard deviation of what is added", text)
    assert re.search(r"--model.decoder.sharpness .*\n +How fast a box fades", text)
    assert re.search("--model.decoder.class_path Broadcast or .* = 'my_module.Boxes'", text)


def test_its_decoder_serves_other_models(own):
    flags = "--model.resolution=16", "--data.name=my_module.draw", "--model.decoder.class_path=my_module.Boxes"
    small = "--train.steps=2", "--train.batch_size=2", "--train.eval_images=4", "--model.encoder.channels=4"
    cli.main(["train", "--folder=runs/boxes", "--train.accelerator=cpu", *flags, *small])
    assert isinstance(slotlib.load("runs/boxes/model").decoder, own.BoxDecoder)
