"""The page "How many slots for my images?" does what it says."""

import re

import pytest
import torch

from slotlib import cli, counting, data


@pytest.fixture(scope="module")
def text(root):
    return (root / "book" / "choosing_k.md").read_text("utf-8")


@pytest.fixture(scope="module")
def session(run_page):
    return run_page("choosing_k")


def test_on_shapes_both_plateaus_stand_at_the_true_number(session):
    names, printed = session
    true = 1 + data.make("shapes", 64).batch(range(64))["objects"]["present"].sum(dim=1).double().mean().item()
    curves = dict(printed[:2])
    for name, limits, end in (("pixels", names["PIXELS"], 40), ("prices", names["PRICES"], 0.004)):
        inside = [count for limit, count in zip(limits, curves[name], strict=True) if limit <= end]
        assert inside == pytest.approx([true] * len(inside), abs=0.25)
        assert curves[name][-1] < true - 1


def test_they_disagree_where_slots_share_pieces(session):
    (four, *_, by_area, _, by_price, _), (eight, *_, area, _, price, _) = session[1][2:4]
    assert (four, eight) == (4, 8)
    assert (by_area, by_price) == (4, 4)
    assert (area, price) == pytest.approx((6.3, 2.4), abs=0.2)


def test_the_count_is_better_than_always_the_same_number(session):
    found, constant = (words[0] for words in session[1][4:6])
    assert isinstance(found, counting.Count) and isinstance(constant, counting.Count)
    assert found.error < constant.error / 3 and found.exact > constant.exact + 0.4


def test_what_a_slot_saves_is_large_for_the_ground_and_nothing_for_an_empty_slot(session):
    names, _ = session
    ground = torch.nn.functional.one_hot(names["area"].argmax(dim=1), 10).bool()
    assert names["saved"][ground].median() > 10 * names["saved"][~ground & (names["area"] > 0)].median()
    assert names["saved"][names["area"] == 0].abs().median() < 1e-6


def test_its_command_learns_keep_masks_on_the_frozen_model(text, tmp_path):
    (command,) = re.findall(r"^```bash\nslotlib (.*?)^```$", text, re.MULTILINE | re.DOTALL)
    few = ["--train.steps=2", "--train.batch_size=2", "--train.eval_images=4", "--train.accelerator=cpu"]
    cli.main([*command.replace("runs/adaptive", str(tmp_path / "adaptive")).split(), *few])
    assert (tmp_path / "adaptive" / "model.safetensors").exists()


def test_the_sparsity_it_writes_is_one_that_recipes_have(text, root):
    assert "sparsity: {end: 0.006" in text
    assert "sparsity: {end: 0.006" in (root / "slotlib" / "configs" / "shapes_fast.yaml").read_text("utf-8")
    assert "sparsity" not in (root / "slotlib" / "configs" / "tetrominoes_fast.yaml").read_text("utf-8")
