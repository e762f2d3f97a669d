"""Measure and draw what the page "Model zoo" shows of the checkpoints: book/assets/zoo.

    python book/tools/zoo.py                 # what has changed since the last time, by the weights' SHA-256
    python book/tools/zoo.py shapes clevr6   # these, changed or not
    python book/tools/zoo.py runs/mine/model --folder /tmp/look

The scores on the page are those on the cards (book/tools/publish.py). Added here, on fresh scenes: FG-ARI of the drawn
masks against the iterations and the number of slots at test time, and what the model makes of a few scenes that are
chosen by their number. Pictures go to NAME_scores.png and NAME_scenes.png, numbers to measured.json.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from slotlib import checkpoint, data, metrics, plots, zoo
from slotlib.autoencoder import AutoencoderOutput
from slotlib.evaluation import evaluate
from slotlib.model import Model
from slotlib.older import modern
from slotlib.slot_attention import AttentionConfig

ROOT = Path(__file__).parents[2]
CHECKPOINTS = ROOT / "data" / "checkpoints"
FOLDER = ROOT / "book" / "assets" / "zoo"
ON_PURPOSE = ("tetrominoes_tiling", "tetrominoes_collapse", "tetrominoes_early", "tetrominoes_alone")
"""Failures, and what is unfinished: a look at two scenes says all there is to say."""
IMAGES = 160
SCENES_SEED = NOISE_SEED = 0  # as on the cards
ITERATIONS = 12
"""At least so many at test time, and two more than the model ships with."""
SHOWN = range(4)
WORST_OF = 64
"""Of so many scenes the one whose drawn masks have the least FG-ARI is shown too."""
DPI = 160


def shipped() -> dict[str, dict[str, Any]]:
    """Name → card of the checkpoints for object discovery, of continuous slots and of codes."""
    cards = {path.stem: modern(json.loads(path.read_text("utf-8"))) for path in sorted(CHECKPOINTS.glob("*.json"))}
    return {name: card for name, card in cards.items() if "drawn_fg_ari" in card["metrics"][0]}


def attention_of(card: dict[str, Any]) -> AttentionConfig:
    """The slot attention of a model, or of the autoencoder around which a prior was learned."""
    model = checkpoint.build(card)
    return getattr(model, "autoencoder", model).config.attention


def fresh_scenes(card: dict[str, Any], count: int) -> data.Source:
    """Drawn once and kept: they are looked at many times here."""
    return data.Kept(data.make(card["dataset"]["name"], count, SCENES_SEED, **card["dataset"]["options"]))


def curves(model: Model, scenes: data.Source) -> dict[str, list[float]]:
    """Number of slots → FG-ARI of the drawn masks after 1, 2, ... iterations. One slot fewer and one more than trained,
    where it can."""
    config = attention_of(model.card)
    trained = config.num_slots
    counts = [trained] if config.slot_init == "learned" else [n for n in (trained - 1, trained, trained + 1) if n]
    iterations = range(1, max(ITERATIONS, config.num_iterations + 2) + 1)
    model = getattr(model, "autoencoder", model)  # the same masks without the likelihoods of a prior
    return {
        str(count): [
            round(evaluate(model, scenes, seed=NOISE_SEED, **asked, num_iterations=n).means["drawn_fg_ari"], 5)
            for n in iterations
        ]
        for count in counts
        for asked in [{} if count == trained else {"num_slots": count}]
    }


@torch.no_grad()
def look(model: Model, scenes: data.Source) -> tuple[dict[str, Any], AutoencoderOutput, list[float]]:
    """A batch of `scenes`, what the model makes of it from one start, and FG-ARI of each one's drawn masks."""
    batch = scenes.batch(range(len(scenes)))
    output = model(batch["image"], generator=torch.Generator().manual_seed(NOISE_SEED))
    return batch, output, metrics.fg_ari(batch["mask"], output.drawn_masks.argmax(dim=1)).tolist()


def checks(side: int) -> np.ndarray:
    """A picture of nothing: white and black objects both stand out from it, on a light page as on a dark one."""
    line = np.arange(side) * 8 // side
    return np.where((line[:, None] + line) % 2, 0.62, 0.72)[..., None]


def draw_scenes(batch: dict[str, Any], output: AutoencoderOutput, rows: list[dict[str, Any]]) -> Figure:
    """A row per scene: image, sum of slots, the drawn masks, then every slot under its own, the largest first.

    Slots have colours by their rank: the largest, mostly the background, is grey. A mixture also shows its posterior.
    """
    count = output.masks.shape[1]
    colours = np.roll(plots.slot_colours(max(count, len(plots.PALETTE))), 1, axis=0)[:count]
    titles = ["image", "sum", "drawn", "posterior"][: 4 - torch.equal(output.masks, output.drawn_masks)]
    figure, axes = plt.subplots(
        len(rows),
        len(titles) + count,
        figsize=(7.2, 7.2 * len(rows) / (len(titles) + count)),
        squeeze=False,
        gridspec_kw={"wspace": 0.06, "hspace": 0.06},
    )
    for axis, title in zip(axes[0], [*titles, *(f"slot {n + 1}" for n in range(count))], strict=True):
        axis.set_title(title, fontsize=min(8, 88 / axes.shape[1]))  # beside one another, however many
    for row, line in zip(rows, axes, strict=True):
        i = row["scene"]
        order = output.drawn_masks[i].mean(dim=(1, 2)).argsort(descending=True)
        drawn, posterior = (each[i, order].numpy() for each in (output.drawn_masks, output.masks))
        pictures = [
            plots.to_pixels(batch["image"][i]),
            plots.to_pixels(output.reconstruction[i]),
            np.einsum("khw,kc->hwc", drawn, colours),
            np.einsum("khw,kc->hwc", posterior, colours),
        ][: len(titles)]
        for painted, mask in zip(output.slot_images[i, order], drawn[..., None], strict=True):
            pictures.append(mask * plots.to_pixels(painted) + (1 - mask) * checks(len(mask)))
        for axis, picture in zip(line, pictures, strict=True):
            axis.imshow(picture.clip(0, 1))
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        for axis, colour in zip(line[len(titles) :], colours, strict=True):
            axis.spines[:].set(visible=True, color=colour, linewidth=1.5)
        name = f"scene {i}" + (f"\nworst of {row['worst_of']}" if "worst_of" in row else "")
        line[0].set_ylabel(f"{name}\nFG-ARI {row['drawn_fg_ari']:.2f}", rotation=0, ha="right", va="center", fontsize=8)
    return figure


def draw_scores(card: dict[str, Any], iterations: dict[str, list[float]]) -> Figure:
    """Left, every seed a dot for each way to score it; right, the curves over iterations."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.6), width_ratios=(1, 1.5), layout="constrained")
    ways = {"drawn_fg_ari": "drawn", "posterior_fg_ari": "posterior"}
    ways = {key: name for key, name in ways.items() if key in card["seeds"][0]}
    blue, orange, green = (plots.PALETTE[i] for i in (4, 0, 2))
    for i, seed in enumerate(card["seeds"]):
        places = np.arange(len(ways)) + 0.06 * (i - (len(card["seeds"]) - 1) / 2)  # apart, also where scores agree
        ships = i == 0
        left.plot(places, [seed[way] for way in ways], color=plots.INK, lw=0.6, alpha=0.6, zorder=1)
        left.scatter(places, [seed[way] for way in ways], s=30, color=orange if ships else blue, lw=0, zorder=2 + ships)
    left.set_xticks(range(len(ways)), ways.values())
    left.set_xlim(-0.4, len(ways) - 0.6)
    left.set_ylabel("FG-ARI")
    low, high = left.get_ylim()
    span = max(high - low, 0.05)  # no mountains out of molehills
    high = min(high + (span - (high - low)) / 2, 1.005)
    left.set_ylim(high - span, high)
    left.set_title(f"{len(card['seeds'])} seed{'s' * (len(card['seeds']) > 1)}")
    config = attention_of(card)
    trained = config.num_slots
    looks = {trained: (blue, "o", "-"), trained - 1: (orange, "v", "--"), trained + 1: (green, "^", "--")}
    for count, scores in iterations.items():
        colour, marker, style = looks[int(count)]
        label = f"{count} slots"
        right.plot(range(1, len(scores) + 1), scores, style, color=colour, marker=marker, ms=4, lw=1.4, label=label)
    right.axvline(config.num_iterations, color=plots.INK, lw=1, ls=":", zorder=0)
    right.set_xticks(range(2, len(scores) + 1, 2))
    right.set_xlabel("iterations at test time")
    right.set_ylabel("FG-ARI, drawn")
    right.set_title(f"ships with {trained} slots, {config.num_iterations} iterations")
    right.legend(loc="lower right")
    return figure


def measure(name: str, model: Model, folder: Path) -> dict[str, Any]:
    """Everything that takes time: the numbers of one checkpoint, and the picture of its scenes."""
    briefly = name in ON_PURPOSE
    scenes = fresh_scenes(model.card, WORST_OF if briefly else IMAGES)
    batch, output, scores = look(model, scenes.part(0, WORST_OF))
    worst = min(range(WORST_OF), key=scores.__getitem__)
    rows = [{"scene": i} for i in SHOWN[:2]] if briefly else [{"scene": i} for i in SHOWN]
    rows += [] if briefly else [{"scene": worst, "worst_of": WORST_OF}]
    for row in rows:
        row["objects"] = len(batch["mask"][row["scene"]].unique()) - 1
        row["drawn_fg_ari"] = round(scores[row["scene"]], 5)
    save(draw_scenes(batch, output, rows), folder / f"{name}_scenes.png")
    return {
        "sha256": model.card["sha256"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "images": IMAGES,
        "scenes_seed": SCENES_SEED,
        "noise_seed": NOISE_SEED,
        "scenes": rows,
        **({} if briefly else {"iterations": curves(model, scenes)}),
    }


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=DPI, bbox_inches="tight")
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="names or paths (default: all that ship, if changed)")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    asked = parser.parse_args(arguments)
    plots.use_style()
    stored = checkpoint.writable_folder(asked.folder) / "measured.json"
    measured = json.loads(stored.read_text("utf-8")) if stored.exists() else {}
    if not asked.models:
        measured = {name: entry for name, entry in measured.items() if name in shipped()}
    for wanted in asked.models or [CHECKPOINTS / name for name in shipped()]:
        name, model = zoo.find(wanted).name, zoo.load(wanted)
        if asked.models or measured.get(name, {}).get("sha256") != model.card["sha256"]:
            started = time.perf_counter()
            measured[name] = measure(name, model, asked.folder)
            print(f"{name}: measured in {time.perf_counter() - started:.0f} s")
        # The seeds are on the card and may change without the weights; drawing them takes no time.
        measured[name]["seeds"] = model.card["seeds"]
        if "iterations" in measured[name]:
            save(draw_scores(model.card, measured[name]["iterations"]), asked.folder / f"{name}_scores.png")
        checkpoint.write(stored, (json.dumps(dict(sorted(measured.items())), indent=1) + "\n").encode())
    for picture in [] if asked.models else asked.folder.glob("*.png"):
        if picture.stem.rsplit("_", 1)[0] not in measured:
            picture.unlink()


if __name__ == "__main__":
    main()
