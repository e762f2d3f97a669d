"""The page "Why are all my slots the same?" does what it says."""

import csv
import re

import pytest
import torch

from slotlib import cli, data, diagnosis, training


@pytest.fixture(scope="module")
def session(run_page):
    return run_page("all_the_same")


def test_its_three_models_show_the_signs_it_names(session):
    said = {words[0]: words[2:] for words in session[1] if words[0].startswith("tetrominoes")}
    assert said["tetrominoes"] == ()
    assert [warning.split(":")[0] for warning in said["tetrominoes_tiling"]] == ["tiling"]
    assert [warning.split(":")[0] for warning in said["tetrominoes_collapse"]] == ["collapse"]


def test_the_thresholds_of_its_table_are_those_of_the_module(root):
    text = (root / "book" / "all_the_same.md").read_text("utf-8")
    named = {name: float(number) for name, number in re.findall(r"`signs\.(\w+)` ≥ (\.\d+)", text)}
    assert named == diagnosis.THRESHOLDS._asdict()


def test_a_model_that_works_uses_as_many_slots_as_there_are_things(session):
    names, _ = session
    assert (names["used"](names["output"].drawn_masks) == names["things"]).float().mean() > 0.95
    assert names["fg_ari"].mean() > 0.97 and names["ari"].mean() > 0.95


def test_a_cut_object_is_a_slot_too_many(session):
    masks = torch.zeros(1, 3, 10, 10)
    masks[0, 0, :, :4], masks[0, 1, :, 4:7], masks[0, 2, :, 7:] = 1, 1, 1
    assert session[0]["used"](masks).tolist() == [3]
    assert session[0]["used"](masks, least=31).tolist() == [1]


def test_more_things_than_slots_are_a_warning():
    masks = data.make("clevr", 8, num_objects=[7, 7], resolution=32).batch(range(8))["mask"]
    assert diagnosis.crowding(masks, 8) == {}
    assert "a scene holds 8 things, background included, for 7 slots" in diagnosis.crowding(masks, 7)["crowding"]


@pytest.mark.parametrize(("side", "coloured"), [(2, False), (2, True), (3, False), (4, True)])
def test_its_squares_are_three_and_none_covers_another(session, side, coloured):
    scenes = session[0]["draw"](0, torch.arange(500), side, coloured)
    for label in (1, 2, 3):
        assert ((scenes["mask"] == label).sum(dim=(1, 2)) == side**2).all()
    assert ((scenes["image"].sum(dim=1) > 0) == (scenes["mask"] > 0)).all()
    assert len(scenes["image"].unique()) > 100 if coloured else scenes["image"].unique().tolist() == [0, 1]
    alone = session[0]["draw"](0, torch.tensor([7]), side, coloured)
    assert torch.equal(alone["image"][0], scenes["image"][7])


def test_what_answers_cost_is_what_its_text_says(session):
    black, anywhere, together, apart = session[0]["answers"]
    cost = session[0]["cost"]
    for kind, saved in (("squared error", 0.05), ("σ .2", 0.97)):
        assert 1 - cost[anywhere, kind] / cost[black, kind] == pytest.approx(saved, abs=0.005)
        assert cost[together, kind] == pytest.approx(cost[apart, kind], abs=1e-6)
        assert cost[together, kind] == pytest.approx(0, abs=1e-6)


def test_the_scores_of_its_runs_are_those_of_the_logs(root):
    def shown(score):
        return re.sub(r"^(−?)0", r"\1", f"{float(score):.2f}".replace("-0.00", "0.00").replace("-", "−"))

    with (root / "data/runs/squares.csv").open(newline="", encoding="utf-8") as file:
        logs = {(line["run"], int(line["step"])): line for line in csv.DictReader(file)}
    text = (root / "book" / "all_the_same.md").read_text("utf-8")
    rows = re.findall(r"^\| (.+?) \| ([\d,]+) \| (.+?) \| (.+?) \| .+ \|$", text, re.MULTILINE)
    assert {run for run, *_ in rows} == {run for run, _ in logs}
    for run, step, fg_ari, ari in rows:
        line = logs[run, int(step.replace(",", ""))]
        kinds = [kind for kind in ("drawn", "posterior") if line[f"{kind}_fg_ari"]]
        assert fg_ari == " / ".join(shown(line[f"{kind}_fg_ari"]) for kind in kinds), run
        assert ari == shown(line[f"{kinds[-1]}_ari"]), run


def test_its_squares_train(session, root, tmp_path, monkeypatch):
    text = (root / "book" / "all_the_same.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(from slotlib.data import random\n.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (config,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "squares.py").write_text("import torch\n" + code)
    (tmp_path / "squares.yaml").write_text(config)
    monkeypatch.syspath_prepend(str(tmp_path))
    flags = "--train.steps=2", "--train.eval_images=4", "--train.accelerator=cpu"
    model = training.train(cli.read_config(tmp_path / "squares.yaml", *flags), tmp_path / "run", progress=False)
    assert model.config.resolution == 16
