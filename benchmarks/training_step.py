"""A training step of the shipped Tetrominoes recipe against one of the paper's architecture, batch 64 on 35×35.

Loss, backward, clipping and Adam, both through `SlotAutoencoder`. The recipe is read from the packaged configuration;
it trains through one iteration at first and through more later, so both kinds of step are measured.
"""

from collections.abc import Callable

import torch

from benchmarks.measure import Row, faster, in_turns
from slotlib.autoencoder import AutoencoderConfig, SlotAutoencoder
from slotlib.cli import read_config
from slotlib.data import make

BATCH = 64
ROUNDS = 3
PAPER = AutoencoderConfig()


def recipe() -> AutoencoderConfig:
    return read_config("tetrominoes_fast").model


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
    shipped, one_step = recipe(), recipe()
    one_step.attention.gradient_steps = 1
    configs = {"as shipped": shipped, "one-step gradient": one_step}
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
