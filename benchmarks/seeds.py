"""Why do seeds of `tetrominoes_first` differ? Train it to the end, with two gradients, and look at scenes and keys.

    python -m benchmarks.seeds FOLDER [--jobs 2]

The whole schedule of the recipe and five seeds each, about an hour on two cores; as benchmarks/ablations.py, FOLDER
keeps the runs. Writes data/runs/seeds.csv, which "Making it converge" reads. Its columns, on 1,280 fresh scenes from
one start:
    drawn_fg_ari, posterior_fg_ari    the means;
    failed        share of scenes whose posterior is below `SOLVED`, of all;
    failed_twins  of those in which two pieces of one colour are within two pixels of each other;
    failed_others of those in which all pieces differ in colour;
    colour, place of the variance of keys on pieces, the share between colours and between places of the grid.
"""

from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from benchmarks import ablations
from benchmarks.ablations import FG_ARI, RECIPE, Study
from slotlib import data, sweep, zoo
from slotlib.autoencoder import SlotAutoencoder
from slotlib.evaluation import evaluate

RESULTS = Path(__file__).parents[1] / "data" / "runs" / "seeds.csv"
IMAGES = 1280
SOLVED = 0.7
"""FG-ARI. With one piece of three lost a scene scores about 0.5."""
COLUMNS = (
    *("dataset", "lever", "seed", "steps", "minutes", *FG_ARI),
    *("failed", "failed_twins", "failed_others", "colour", "place", "error"),
)
STUDIES = {
    "tetrominoes": Study(
        5,
        ["--train.accelerator=cpu"],
        {
            RECIPE: [],
            "gradient through one iteration": ["--model.attention.gradient_steps=1"],
        },
        paper=False,
    ),
}


def twins(
    masks: Int[Tensor, "scenes height width"], colours: Int[Tensor, "scenes objects"], within: int = 2
) -> tuple[Bool[Tensor, "scenes"], Bool[Tensor, "scenes"]]:
    """Whether two objects of one colour come within so many pixels of each other; whether any two share a colour."""
    near, alike = torch.zeros(2, len(masks), dtype=torch.bool)
    around = [F.max_pool2d((masks == i + 1).float(), 2 * within + 1, 1, within) > 0 for i in range(colours.shape[1])]
    for i in range(colours.shape[1]):
        for j in range(i):
            same = colours[:, i] == colours[:, j]
            alike |= same
            near |= same & (around[i] & (masks == j + 1)).flatten(1).any(dim=1)
    return near, alike


def between(values: Float[Tensor, "points dim"], groups: Int[Tensor, "points"]) -> float:
    """The share of the points' variance that lies between groups: 1 if a point's group says all about it, 0 if
    nothing."""
    member = F.one_hot(groups).to(values)
    centred = values - values.mean(dim=0)
    means = member.mT @ centred / member.sum(dim=0).clamp(min=1).unsqueeze(1)
    return ((means[groups].square().sum()) / centred.square().sum()).item()


def keys_on_pieces(
    model: SlotAutoencoder, images: Float[Tensor, "batch 3 height width"], masks: Int[Tensor, "batch height width"]
) -> tuple[Float[Tensor, "points dim"], Int[Tensor, "points"], Int[Tensor, "points"]]:
    """Keys of the inputs centred on a piece, as slots meet them (W_qᵀ W_k x), and the colour and place of each."""
    with torch.no_grad():
        features = model.encode(images)
        prepared = model.slot_attention.prepare(features.flatten(1, 2))
    height, width = features.shape[1:3]
    row, column = (
        ((torch.arange(n) + 0.5) * side / n).long() for n, side in zip((height, width), images.shape[2:], strict=True)
    )
    on_piece = (masks[:, row][:, :, column] > 0).flatten(1)
    lit = (images[:, :, row][:, :, :, column] > 0.25).long()  # every colour is full or nothing in each channel
    colour = (lit * torch.tensor([1, 2, 4])[:, None, None]).sum(dim=1).flatten(1)
    place = torch.arange(height * width).expand(len(images), -1)
    return (prepared.inputs @ prepared.key)[on_piece], colour[on_piece], place[on_piece]


def score(dataset: str, run: sweep.Run, result: sweep.Result) -> dict[str, object]:
    """A line of the table."""
    line: dict[str, object] = {"dataset": dataset, "lever": run.value, "seed": run.seed, "error": result.error}
    if result.error:
        return line
    model = zoo.load(run.folder / "model")
    scenes = data.make(dataset, IMAGES, seed=0)
    batch = scenes.batch(range(IMAGES))
    columns = evaluate(model, scenes, IMAGES).columns
    near, alike = twins(batch["mask"], batch["objects"]["colour"])
    failed = (columns["posterior_fg_ari"] < SOLVED).double()
    keys, colour, place = keys_on_pieces(model, batch["image"][:320], batch["mask"][:320])
    return line | {
        "steps": run.config.train.steps,
        "minutes": round(model.card["wall_seconds"] / 60, 2),
        **{name: round(columns[name].mean().item(), 4) for name in FG_ARI},
        "failed": round(failed.mean().item(), 4),
        "failed_twins": round(failed[near].mean().item(), 4),
        "failed_others": round(failed[~alike].mean().item(), 4),
        "colour": round(between(keys, colour), 4),
        "place": round(between(keys, place), 4),
    }


if __name__ == "__main__":
    ablations.main(__doc__, STUDIES, RESULTS, COLUMNS, score)
