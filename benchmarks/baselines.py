"""What is the score worth? Simpler models on the same scenes, for the same time, and no model at all.

    python -m benchmarks.baselines FOLDER [--datasets tetrominoes,multi_dsprites] [--only k_means]

For each dataset of the zoo, one seed and one core:
    recipe      `DATASET_first`, the recipe of slotlib 0.1; what it took sets the time of the others;
    slot_mlp    its encoder, decoder and schedule, with an MLP that reads all features in place of slot attention;
    one_slot    the recipe with a single slot: a plain autoencoder with a bottleneck of that size;
    paper       the paper's architecture and schedule, for as many minutes as the recipe took;
    k_means     k-means of each image's pixels, by colour and position, as many clusters as the model has slots. How
                much a position weighs is chosen by FG-ARI, labels and all, on other scenes: the best it could do;
    colour_lookup, tiles    the other rules of slotlib.baselines.

FOLDER keeps the runs, and what is interrupted goes on. After each row benchmarks/baselines.json is written; rows that
are there already are not measured again. The page "Model zoo" shows it.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from benchmarks.measure import machine
from slotlib import baselines, checkpoint, cli, data, metrics, training, zoo
from slotlib.autoencoder import AutoencoderConfig, SlotAutoencoder
from slotlib.evaluation import evaluate
from slotlib.log import read_log
from slotlib.set_prediction import SlotMLP
from slotlib.slot_attention import SlotAttentionOutput

RESULTS = Path(__file__).with_name("baselines.json")
DATASETS = ("tetrominoes", "shapes", "multi_dsprites", "clevr6")
CONTESTANTS = ("recipe", "k_means", "colour_lookup", "tiles", "one_slot", "slot_mlp", "paper")
SCORES = "drawn_fg_ari", "posterior_fg_ari", "drawn_mbo"
IMAGES = 320
PLACES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
"""What a position weighs against a colour in k-means."""


class NothingCompetes(nn.Module):
    """The paper's baseline Slot MLP, called as `SlotAutoencoder` calls slot attention."""

    def __init__(self, num_slots: int, slot_dim: int):
        super().__init__()
        self.shape = num_slots, slot_dim
        self.mlp = SlotMLP(slot_dim, num_slots)

    def initial_slots(self, batch_size: int, *unused: Any, **also: Any) -> Float[Tensor, "batch slots dim"]:
        """Of the right shape; they have no part in it."""
        return torch.zeros(batch_size, *self.shape)

    def forward(self, inputs: Float[Tensor, "batch inputs dim"], *unused: Any, **also: Any) -> SlotAttentionOutput:
        side = math.isqrt(inputs.shape[1])
        slots, _ = self.mlp(inputs.unflatten(1, (side, side)))
        return SlotAttentionOutput(slots, slots.new_zeros(*slots.shape[:2], inputs.shape[1]), None)


@dataclass
class MLPConfig(AutoencoderConfig):
    """The recipe's, for an `MLPAutoencoder`."""


class MLPAutoencoder(SlotAutoencoder):
    """The recipe's encoder and decoder around a Slot MLP."""

    config: MLPConfig

    def __init__(self, config: MLPConfig):
        super().__init__(config)
        self.slot_attention = NothingCompetes(config.attention.num_slots, config.attention.slot_dim)


def flags(contestant: str, minutes: float) -> list[str]:
    """What a contestant changes in the configuration it starts from."""
    if contestant == "paper":
        return [f"--train.minutes={minutes:.1f}", "--train.eval_every=1000000", "--train.save_every=50"]
    return ["--model.attention.num_slots=1"] if contestant == "one_slot" else []


def trained(dataset: str, contestant: str, minutes: float, folder: Path) -> nn.Module:
    family = "paper" if contestant == "paper" else "first"
    config = cli.read_config(f"{dataset}_{family}", "--train.accelerator=cpu", *flags(contestant, minutes))
    where = folder / f"{dataset}_{contestant}"
    if contestant == "slot_mlp":
        config.model = MLPConfig(**vars(config.model))
    if not (where / "model.json").exists():
        training.train(config, where)
    return zoo.load(where / "model")


def ruled(dataset: str, rule: str) -> dict[str, Any]:
    """The row of a rule that learns nothing."""
    config = cli.read_config(f"{dataset}_first")
    count, name, options = config.model.attention.num_slots, config.data.name, config.data.options
    # Not the scenes of the score: seed 4 is nobody's.
    practice = data.make(name, 64, 4, **options).batch(range(64))
    test = data.make(name, IMAGES, 0, **options).batch(range(IMAGES))

    def score(metric: str, scenes: dict[str, Tensor], **how: float) -> float:
        found = baselines.RULES[rule](scenes["image"], count, **how)
        return metrics.MASK_SCORES[metric](scenes["mask"], found).mean().item()

    how = {}
    if rule == "k_means":
        how = {"place": max(PLACES, key=lambda place: score("fg_ari", practice, place=place))}
    started = time.perf_counter()
    found = {f"{rule}_{metric}": score(metric, test, **how) for metric in ("fg_ari", "mbo")}
    return {**found, **how, "seconds_per_image": (time.perf_counter() - started) / (2 * IMAGES)}


def row(dataset: str, contestant: str, folder: Path) -> dict[str, Any]:
    if contestant in baselines.RULES:
        return ruled(dataset, contestant)
    recipe = trained(dataset, "recipe", 0, folder)
    minutes = recipe.card["wall_seconds"] / 60
    model = recipe if contestant == "recipe" else trained(dataset, contestant, minutes, folder)
    scenes = data.make(model.card["dataset"]["name"], IMAGES, 0, **model.card["dataset"]["options"])
    scores = evaluate(model, scenes, IMAGES).means
    steps = model.card["training"]["steps"]
    if contestant == "paper":
        steps = int(read_log(folder / f"{dataset}_{contestant}")["step"][-1])
    return {
        **{name: scores[name] for name in (*SCORES, "mse") if name in scores},
        "minutes": model.card["wall_seconds"] / 60,
        "steps": steps,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--datasets", default=",".join(DATASETS))
    parser.add_argument("--only", default=",".join(CONTESTANTS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for dataset in asked.datasets.split(","):
        for contestant in asked.only.split(","):
            # Read again each time: another process may be at work on other rows.
            stored = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"rows": {}}
            key = f"{dataset} {contestant}"
            if key in stored["rows"]:
                continue
            measured = {name: round(value, 5) for name, value in row(dataset, contestant, asked.folder).items()}
            print(key, measured, flush=True)
            stored = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"rows": {}}
            rows = dict(sorted({**stored["rows"], key: measured}.items()))
            content = {"machine": machine(), "images": IMAGES, "rows": rows}
            checkpoint.write(RESULTS, (json.dumps(content, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
