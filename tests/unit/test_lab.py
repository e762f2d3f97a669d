"""What the live page loads is what the shipped models say."""

import base64
import importlib.util
import json
import re
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import slotlib
from slotlib import checkpoint, cli, lab, zoo
from slotlib.data import tetrominoes

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "book" / "assets" / "lab" / "weights"
GOLDEN = ROOT / "book" / "lab" / "golden"
MODELS = sorted({path.stem for path in WEIGHTS.glob("*.js")} & set(zoo.names()))
FATES = json.loads((GOLDEN.parent / "src" / "fates.json").read_text("utf-8"))
MEND = "run `make labs`"


def read(path):
    script = re.fullmatch(r'\(slotlab\.weights \?\?= \{\}\)\["(.+)"\] = (\{.+\});\n', path.read_text("utf-8"))
    assert script, "it is no script that the page could read"
    return script[1], json.loads(script[2])


@pytest.fixture(scope="module")
def golden():
    return script("golden")


@pytest.fixture(scope="module")
def fates(golden):
    return script("fates")


@pytest.fixture(scope="module")
def single(fates):
    """The model of the fates in single precision, loaded before the default is another."""
    return slotlib.load(fates.MODEL)


def script(name):
    spec = importlib.util.spec_from_file_location(name, GOLDEN.parent / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # one of them uses the other
    spec.loader.exec_module(module)
    return module


def floats(packed):
    return np.frombuffer(zlib.decompress(base64.b64decode(packed)), "<f4")


def stored(kind):
    """Names of the shipped models with golden values of this kind."""
    return sorted({path.stem.removeprefix(kind) for path in GOLDEN.glob(f"{kind}*.json")} & set(zoo.names()))


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


def test_what_moves_in_training_stands_still_in_the_page(tmp_path):
    """The page has no schedule: a Ramp is written as the number that it is where the model's training ended."""
    ramp = {"start": 0.5, "end": 0.1, "over": 1.0}
    decoder = {"class_path": "Separable", "init_args": {"colour": "shaded", "shading": {"end": 1.0, "after": 0.9}}}
    likelihood = {"class_path": "Mixture", "init_args": {"noise": ramp, "sparsity": {"end": 0.01}}}
    fields = {"resolution": 8, "decoder": decoder, "likelihood": likelihood}
    model = checkpoint.made({"class_path": "SlotAutoencoder", "init_args": fields})
    checkpoint.save(model, tmp_path / "early", {"progress": 0.5})
    _, content = read(lab.export(tmp_path / "early", tmp_path / "out"))
    config = content["model"]["init_args"]
    assert config["decoder"]["init_args"]["shading"] == 0
    assert config["likelihood"]["init_args"] == {"noise": pytest.approx(0.3), "sparsity": 0.01}


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
    looks = {look: lab.stage({"name": "tetrominoes", "options": {"look": look}}) for look in tetrominoes.BEVELS}
    bevels = [stage["bevel"] for stage in looks.values()]
    assert bevels[0] != bevels[1]
    assert lab.stage({"name": "tetrominoes", "options": {}}) == {**looks[tetrominoes.LOOK], "options": {}}


def test_a_stage_shows_the_scenes_that_are_asked_for():
    dataset = {"name": "tetrominoes", "options": {"num_objects": 2}}
    assert lab.stage(dataset, [5, 2])["scenes"] == [lab.stage(dataset)["scenes"][i] for i in (5, 2)]


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
        # Where slots do not settle, the last digits grow, and they differ by the processor.
        np.testing.assert_allclose(*slots, rtol=1e-4, atol=max(1e-4, 3 * before["rounding"]), err_msg=MEND)


@pytest.mark.parametrize("name", stored("kept_"))
def test_golden_decisions_are_what_slotlib_decides(golden, name):
    answers = json.loads((GOLDEN / f"kept_{name}.json").read_text("utf-8"))
    for before, now in zip(answers, golden.kept_answers(name), strict=True):
        for part in ("keep_probability", "saved"):
            np.testing.assert_allclose(before[part], now[part], atol=1e-5, err_msg=MEND)
        assert [before[part] for part in ("keep", "coins")] == [now[part] for part in ("keep", "coins")], MEND


@pytest.mark.parametrize("fate", FATES, ids=[fate["name"] for fate in FATES])
@pytest.mark.usefixtures("double_precision")
@torch.no_grad()
def test_golden_fates_are_what_slotlib_finds(fates, single, fate):
    model = slotlib.load(fates.MODEL).double()
    stage = lab.stage(fates.dataset(model, fate["pieces"]), [fate["scene"]])
    assert stage["scenes"][0]["things"] == fate["things"], MEND
    known = [each for each in json.loads((GOLDEN / "fates.json").read_text("utf-8")) if each["fate"] == fate["name"]]
    for before, now in zip(known, fates.answers(model, single, fate), strict=True):
        # Where slots never rest, the last digits of the encoder grow, and they differ by the processor.
        assert before["least"] == pytest.approx(now["least"], rel=1e-3 if now["converged"] else 0.1, abs=1e-10), MEND
        if now["converged"]:
            sizes = [[abs(complex(*value)) for value in each["eigenvalues"]] for each in (before, now)]
            assert sizes[0] == pytest.approx(sizes[1], abs=1e-6), MEND


@pytest.fixture
def double_precision():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
