"""The recipes that ship: each fits its model and builds it."""

import pytest
import torch

from slotlib import cli, configuration
from slotlib.autoencoder import AutoencoderConfig
from slotlib.decoders import Broadcast
from slotlib.encoders import Paper
from slotlib.model import Model
from slotlib.training import Config

STAGES = {
    "patches_prior": ["--model.autoencoder.class_path=PatchVQVAE"],
    "svq_draft_shapes_prior": ["--model.autoencoder.class_path=SVQAutoencoder"],
    "svq_shapes_prior": ["--model.autoencoder.class_path=OutlinedSVQAutoencoder"],
    "svq_multi_dsprites_prior": ["--model.autoencoder.class_path=OutlinedSVQAutoencoder"],
}
"""What a second stage is given: a first one's model."""


@pytest.mark.parametrize("name", cli.config_names())
def test_every_recipe_builds_its_model_and_survives_being_written(name):
    config = cli.read_config(name, *STAGES.get(name, []))
    kind = Model.defined_by(config.model)
    written = config.plain()["model"]
    assert configuration.made(type(config.model), written["init_args"], "") == config.model
    with torch.device("meta"):  # without the numbers
        assert sum(weights.numel() for weights in kind(config.model).parameters()) > 10_000


@pytest.mark.parametrize("dataset", ["tetrominoes", "shapes", "multi_dsprites", "clevr6"])
def test_every_dataset_has_two_recipes_and_its_name_alone_means_the_fast_one(dataset):
    fast, paper = cli.read_config(f"{dataset}_fast"), cli.read_config(f"{dataset}_paper")
    assert cli.read_config(dataset) == fast
    assert isinstance(paper.model.encoder, Paper) and isinstance(paper.model.decoder, Broadcast)
    assert paper.train.steps == 500_000
    assert paper.data.name == fast.data.name and paper.model.attention.num_slots == fast.model.attention.num_slots


def test_the_paper_configuration_is_the_dataclass_default():
    assert cli.read_config("tetrominoes_paper") == Config(AutoencoderConfig())
