"""A training step of the shipped Tetrominoes recipe against one of the paper's architecture, batch 64 on 35×35.

Loss, backward, clipping and Adam, both through `SlotAutoencoder`. The recipe is read from the packaged configuration;
it trains through one iteration at first and through more later, so both kinds of step are measured.
"""

from collections.abc import Callable
from importlib.resources import files

import torch
import yaml

from benchmarks.measure import Row, faster, in_turns
from slotlib.autoencoder import AutoencoderConfig, SlotAutoencoder
from slotlib.data import make

BATCH = 64
ROUNDS = 3
PAPER = AutoencoderConfig(resolution=35, encoder="paper", encoder_channels=64, decoder="broadcast", num_iterations=3)


def recipe() -> AutoencoderConfig:
    text = files("slotlib").joinpath("configs/tetrominoes_fast.yaml").read_text()
    return AutoencoderConfig(**yaml.safe_load(text)["model"])


def training_step(config: AutoencoderConfig, images: torch.Tensor) -> Callable[[], None]:
    torch.manual_seed(0)
    model = SlotAutoencoder(config)
    optimiser = torch.optim.Adam(model.parameters(), lr=4e-4)

    def step() -> None:
        optimiser.zero_grad()
        model.loss(images).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    return step


def run() -> list[Row]:
    images = make("tetrominoes", BATCH).batch(range(BATCH))["image"]
    configs = {"as shipped": recipe()}
    if configs["as shipped"].gradient_steps > 1:
        one_step = recipe()
        one_step.gradient_steps = 1
        configs["one-step gradient"] = one_step
    steps = [training_step(config, images) for config in configs.values()]
    # The paper's step takes seconds: a few rounds of it settle, the short ones repeat within each round.
    repeats = 5
    *ours, paper = in_turns(
        [*(lambda s=s: [s() for _ in range(repeats)] for s in steps), training_step(PAPER, images)], ROUNDS, warm_up=1
    )
    return [
        faster(f"training step, {name}", "paper's architecture", (seconds / repeats, paper), goal=30)
        for name, seconds in zip(configs, ours, strict=True)
    ]
