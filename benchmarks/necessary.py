"""Which parts of the model make objects? Take each of them out of `tetrominoes_fast` and train again (chapter 03).

    python -m benchmarks.necessary FOLDER [--jobs 2]

The schedule of benchmarks/ablations.py, five seeds. What is taken out:
    competition       the attention's softmax is over the inputs: every slot looks for itself;
    positions         of the features, or of the decoder, whose masks are then the same at every pixel;
    a drawing each    the decoder reads the sum of what an MLP makes of every slot, as wide as the slots together, and
                      draws one picture. There are no masks, drawn or posterior, and the attention's are scored alone;
    the bottleneck    the decoder reads, beside each slot, as many numbers as four slots hold, which an MLP makes of all
                      features: every slot is told the whole scene.
"One slot" draws alone: its error says how much of a scene a slot holds, without that and with it.

Every run is scored on 320 fresh scenes from one start, by the masks that it has and by its attention, enlarged. Writes
data/runs/necessary.csv, which chapter 03 reads.
"""

import json
import operator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import ablations
from benchmarks.ablations import FG_ARI, IMAGES, RECIPE, Study
from slotlib import configuration, data, metrics, sweep, zoo
from slotlib.autoencoder import AutoencoderConfig, SlotAutoencoder, squared_error
from slotlib.cli import read_config
from slotlib.decoders import Drawing, Keep, Separable, SeparableDecoder
from slotlib.encoders import ConvEncoder, Images, Strided, start_as_keras
from slotlib.model import Draws
from slotlib.slot_attention import Slots

RESULTS = Path(__file__).parents[1] / "data" / "runs" / "necessary.csv"
COLUMNS = "dataset", "lever", "seed", "steps", "minutes", *FG_ARI, "attention_fg_ari", "mse", "error"
WIDE = 256
"""Numbers in the recipe's four slots together."""
INPUTS = 81
"""Of slot attention, in the recipe."""


@dataclass
class Unplaced(Strided):
    """Features without a position embedding. The zeros around an image still tell inputs near the border apart."""

    def build(self, dim: int) -> ConvEncoder:
        encoder = super().build(dim)
        encoder.add_module("position", nn.Identity())
        return encoder


@dataclass
class Flat(Separable):
    """Without positions: a slot has one colour and one score, for all pixels."""

    def build(self, slot_dim: int, resolution: int) -> "FlatDecoder":
        return FlatDecoder(self, slot_dim, resolution)


class FlatDecoder(SeparableDecoder):
    def initialise(self) -> None:
        super().initialise()
        nn.init.zeros_(self.from_position.weight.requires_grad_(False))


@dataclass
class Together(Separable):
    """One picture of all slots."""

    def build(self, slot_dim: int, resolution: int) -> "TogetherDecoder":
        return TogetherDecoder(self, slot_dim, resolution)


class TogetherDecoder(SeparableDecoder):
    """The recipe's decoder, on one vector that says what all slots hold, in whatever order they come."""

    def __init__(self, config: Together, slot_dim: int, resolution: int):
        super().__init__(config, WIDE, resolution)
        self.gathered = nn.Sequential(nn.Linear(slot_dim, WIDE), nn.ReLU(), nn.Linear(WIDE, WIDE))

    def forward(self, slots: Slots, rows: slice = slice(None), columns: slice = slice(None)) -> Drawing:
        return super().forward(self.gathered(slots).sum(dim=1, keepdim=True), rows, columns)


@dataclass
class ToldConfig(AutoencoderConfig):
    """The recipe's, for a `ToldAutoencoder`."""


class ToldAutoencoder(SlotAutoencoder):
    """The decoder reads, beside each slot, `WIDE` numbers that an MLP makes of all features, the same for all slots."""

    config: ToldConfig

    def __init__(self, config: ToldConfig):
        super().__init__(config)
        dim = config.attention.slot_dim
        self.decoder = config.decoder.build(dim + WIDE, config.resolution)
        self.decoder.initialise()
        self.whole = nn.Sequential(nn.Linear(INPUTS * dim, WIDE), nn.ReLU(), nn.Linear(WIDE, WIDE))
        start_as_keras(self.whole)

    def second_look(self, slots: Slots, images: Images, keep: Keep | None = None) -> Float[Tensor, "batch slots more"]:
        whole = self.whole(self.encode(images).flatten(1))
        return torch.cat([slots, whole.unsqueeze(1).expand(-1, slots.shape[1], -1)], dim=-1)

    def drawing_loss(self, slots: Slots, images: Images, draws: Draws) -> Float[Tensor, ""]:
        return super().drawing_loss(self.second_look(slots, images), images, draws)


def instead(part: str, kind: type) -> str:
    """The flag that puts this class, with the fields that the recipe has there, in place of a part of it."""
    fields = configuration.plain(operator.attrgetter(part)(read_config("tetrominoes")))
    return f"--{part}={json.dumps({'class_path': f'benchmarks.necessary.{kind.__name__}', 'init_args': fields})}"


TOLD, ALONE = instead("model", ToldAutoencoder), "--model.attention.num_slots=1"
STUDIES = {
    "tetrominoes": Study(
        5,
        ["--train.steps=1000"],
        {
            RECIPE: [],
            "no competition": ["--model.attention.competition=false"],
            "features without positions": [instead("model.encoder", Unplaced)],
            "decoder without positions": [instead("model.decoder", Flat)],
            "one drawing of all slots": [instead("model.decoder", Together)],
            "every slot told the scene": [TOLD],
            "one slot": [ALONE],
            "one slot told the scene": [TOLD, ALONE],
        },
        paper=False,
        recipe="fast",
    )
}


def score(dataset: str, run: sweep.Run, result: sweep.Result) -> dict[str, object]:
    """A line of the table."""
    line: dict[str, object] = {"dataset": dataset, "lever": run.value, "seed": run.seed, "error": result.error}
    if result.error:
        return line
    model = zoo.load(run.folder / "model")
    scenes = data.make(dataset, IMAGES, seed=0, **run.config.data.options).batch(range(IMAGES))
    with torch.no_grad():
        output = model(scenes["image"], generator=torch.Generator().manual_seed(0))
    attention = F.interpolate(output.attention, size=scenes["mask"].shape[-2:], mode="bilinear")
    looks = {**model.scored_masks(output), "attention": attention}
    return line | {
        "steps": run.config.train.steps,
        "minutes": round(model.card["wall_seconds"] / 60, 2),
        **{
            f"{kind}_fg_ari": round(metrics.fg_ari(scenes["mask"], masks.argmax(1)).mean().item(), 4)
            for kind, masks in looks.items()
            if masks.shape[1] > 1  # one mask takes nothing apart
        },
        "mse": round(squared_error(output.reconstruction, scenes["image"]).mean().item(), 5),
    }


if __name__ == "__main__":
    ablations.main(__doc__, STUDIES, RESULTS, COLUMNS, score)
