"""What the live page loads is what the shipped models say."""

import base64
import importlib.util
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import slotlib
from slotlib import cli, lab, zoo

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "book" / "assets" / "lab" / "weights"
GOLDEN = ROOT / "book" / "lab" / "golden"
MODELS = sorted({path.stem for path in WEIGHTS.glob("*.js")} & set(zoo.names()))
MEND = "run `make labs`"


def read(path):
    script = re.fullmatch(r'\(slotlab\.weights \?\?= \{\}\)\["(.+)"\] = (\{.+\});\n', path.read_text("utf-8"))
    assert script, "it is no script that the page could read"
    return script[1], json.loads(script[2])


@pytest.fixture(scope="module")
def golden():
    spec = importlib.util.spec_from_file_location("golden", GOLDEN.parent / "golden.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def floats(packed):
    return np.frombuffer(zlib.decompress(base64.b64decode(packed)), "<f4")


def stored(kind):
    """Names of the models with golden values of this kind."""
    return sorted(path.stem.removeprefix(kind) for path in GOLDEN.glob(f"{kind}*.json"))


def test_a_script_holds_the_model(tmp_path, capsys):
    cli.main(["export", "lab", "tetrominoes", "--out", str(tmp_path)])
    name, content = read(tmp_path / "tetrominoes.js")
    assert capsys.readouterr().out.strip() == str(tmp_path / "tetrominoes.js")
    planes = base64.b64decode(content["data"])
    assert name == "tetrominoes" and zlib.crc32(planes) == content["crc32"]
    numbers = np.frombuffer(planes, "u1").reshape(4, -1).T.tobytes()
    state = slotlib.load("tetrominoes").state_dict()
    assert list(content["tensors"]) == list(state)
    assert np.array_equal(np.frombuffer(numbers, "<f4"), torch.cat([value.flatten() for value in state.values()]))


@pytest.mark.parametrize(
    ("dataset", "things"),
    [
        ({"name": "tetrominoes", "options": {}}, 3),
        ({"name": "tetrominoes", "options": {"look": "published", "num_objects": 2}}, 2),
        ({"name": "shapes", "options": {"num_objects": 4}}, 4),
        ({"name": "multi_dsprites", "options": {"look": "published", "num_objects": 1}}, 1),
    ],
)
def test_a_stage_has_the_scenes_of_its_dataset(dataset, things):
    stage = lab.stage(dataset)
    assert [len(scene["things"]) for scene in stage["scenes"]] == [things] * lab.SCENES
    for scene in stage["scenes"]:
        for _, x, y, _, size, *colour in scene["things"]:
            assert 0 <= x < stage["resolution"] and 0 <= y < stage["resolution"]
            assert size in stage["sizes"] and all(0 <= part <= 255 for part in colour)


def test_the_look_decides_how_pieces_are_bevelled():
    first, published = (
        lab.stage({"name": "tetrominoes", "options": {"look": look}}) for look in ("first", "published")
    )
    assert first["bevel"] != published["bevel"]
    assert lab.stage({"name": "tetrominoes", "options": {}}) == {**first, "options": {}}


def test_what_the_page_cannot_draw_has_no_stage():
    assert lab.stage({"name": "clevr", "options": {}}) is None
    assert lab.stage({}) is None


@pytest.mark.parametrize("name", MODELS)
def test_the_shipped_scripts_are_those_of_the_shipped_models(name, tmp_path):
    assert lab.export(name, tmp_path).read_bytes() == (WEIGHTS / f"{name}.js").read_bytes(), MEND


def test_golden_scenes_are_those_of_the_datasets(golden):
    before = json.loads((GOLDEN / "stages.json").read_text("utf-8"))
    assert before == [golden.drawn(dataset) for dataset in golden.STAGES], MEND


@pytest.mark.parametrize("name", stored("prior_"))
def test_golden_texts_are_what_slotlib_writes(golden, name):
    answers = json.loads((GOLDEN / f"prior_{name}.json").read_text("utf-8"))
    for before, now in zip(answers, golden.prior_answers(name), strict=True):
        logits = [floats(each["logits"]) for each in (before, now)]
        np.testing.assert_allclose(*logits, rtol=1e-4, atol=1e-4, err_msg=MEND)
        written = "text", "codes", "with_blanks"
        assert [before[key] for key in written] == [now[key] for key in written], MEND


@pytest.mark.parametrize("name", stored("model_"))
def test_golden_values_are_what_pytorch_says(golden, name):
    answers = json.loads((GOLDEN / f"model_{name}.json").read_text("utf-8"))
    for before, now in zip(answers, golden.model_answers(name), strict=True):
        slots = [floats(each["found"]) for each in (before, now)]
        np.testing.assert_allclose(*slots, rtol=1e-4, atol=1e-4, err_msg=MEND)
