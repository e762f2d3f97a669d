"""Evaluation is repeatable, leaves the model as it was, and a card says all that is needed to measure again."""

import math
from dataclasses import dataclass

import pytest
import torch

from slotlib import data
from slotlib.autoencoder import AutoencoderConfig, SlotAutoencoder
from slotlib.decoders import Separable
from slotlib.encoders import Strided
from slotlib.evaluation import evaluate, measured
from slotlib.model import Model
from slotlib.slot_attention import AttentionConfig

SMALL = AutoencoderConfig(encoder=Strided(8), attention=AttentionConfig(slot_dim=16), decoder=Separable(16))


@dataclass
class MeanConfig:
    scale: float = 1.0


class Mean(Model):
    """Scores a scene by its number of objects, and by noise of its own."""

    config: MeanConfig

    def __init__(self, config):
        super().__init__()
        self.config, self.weight = config, torch.nn.Parameter(torch.ones(1))
        self.seen = []

    def judge(self, scenes, draws=None, scale=1.0):
        assert not self.training and not torch.is_grad_enabled()
        self.seen.append(len(scenes["image"]))
        count = scale * scenes["objects"]["present"].sum(dim=1)
        return {"nothing": count / 0 * 0, "objects": count, "noise": draws.normal(len(count), like=self.weight)}


@pytest.fixture
def scenes():
    return data.make("shapes", 20, seed=5)


def test_scores_are_of_every_scene_and_of_all_together(scenes):
    model = Mean(MeanConfig()).train()
    scores = evaluate(model, scenes, 10, batch_size=4)
    assert model.training
    assert model.seen == [4, 4, 2]
    assert list(scores.columns) == list(scores.means) == ["nothing", "objects", "noise"]
    true = scenes.batch(range(10))["objects"]["present"].sum(dim=1)
    assert torch.equal(scores.columns["objects"].long(), true)
    assert scores.means["objects"] == pytest.approx(true.double().mean().item())
    assert math.isnan(scores.means["nothing"])


def test_the_seed_is_of_what_the_model_draws(scenes):
    first, again, other = (evaluate(Mean(MeanConfig()), scenes, seed=seed).columns["noise"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first) == len(scenes)


def test_evaluation_is_repeatable_and_leaves_the_model_as_it_was():
    model = SlotAutoencoder(SMALL).train()
    scenes = data.make("tetrominoes", 20, seed=5)
    first, second = (evaluate(model, scenes, images=20, batch_size=20, restarts=2) for _ in range(2))
    assert model.training
    assert all(torch.equal(first.columns[name], second.columns[name]) for name in first.columns)
    assert next(iter(first.means)) == "drawn_fg_ari"  # the leading one
    assert set(first.means) == {"drawn_fg_ari", "drawn_ari", "drawn_mbo", "drawn_miou", "mse"}
    assert len(first.columns["drawn_fg_ari"]) == 20


def test_an_entry_of_a_card_tells_how_to_measure_again(scenes):
    part = data.make("shapes", 40, seed=5).part(8, 20)
    entry = measured(Mean(MeanConfig()), part, 30, seed=3, scale=2.0)
    assert entry.pop("noise") != 0
    mean = 2 * scenes.batch(range(8, 20))["objects"]["present"].sum(dim=1).double().mean().item()
    assert entry == {
        "objects": pytest.approx(mean, abs=1e-5),  # what does not tell is left out
        "images": 12,
        "scenes_seed": 5,
        "first_scene": 8,
        "noise_seed": 3,
        "scale": 2.0,
    }


def test_nothing_to_evaluate_on_is_said():
    with pytest.raises(ValueError, match="nothing to evaluate on: 0 images asked for, of 5 scenes"):
        evaluate(SlotAutoencoder(SMALL), data.make("tetrominoes", 5), images=0)
