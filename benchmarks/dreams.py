"""What do the codes say, and can dreamt scenes be told from data? Slots against patches (chapter 08).

    python -m benchmarks.dreams [MODEL ...]

For each model that ships with slots made of codes, and a prior (default: all of them):
    the codes   FG-ARI with codes and without, and what each block says about each property of an object;
    counts      how many objects a dreamt scene has. Those of slots are counted by their masks, those of patches, which
                have none, by the continuous model of the same data, which looks at slots' dreams and at data too;
                Slots are also thrown together, each code drawn on its own: a dream without a prior;
    judges      classifiers that learn to tell dreams from data, scored on scenes they have not seen: .5 is a guess, 1
                is certain. One reads a list of properties (colour, size, place of what the continuous model finds), one
                the pixels. Dreams are also told from *reconstructions* of data: what the decoder blurs is then on both
                sides, and only what was dreamt is left.

Data are told from other data as well: what a judge finds there is chance. Writes benchmarks/dreams.json and pictures to
book/assets/benchmarks, which the page "Model zoo" shows.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.measure import machine
from slotlib import checkpoint, data, plots, zoo
from slotlib.counting import count_objects
from slotlib.evaluation import evaluate
from slotlib.prior import CodePrior
from slotlib.svq import information, objects_found

RESULTS = Path(__file__).with_name("dreams.json")
PICTURES = Path(__file__).parents[1] / "book" / "assets" / "benchmarks"
SCENES = 1_280
"""Of each kind; judges learn from half of them."""
COUNTED = 5_120
"""Dreams whose objects are counted by their masks, and scenes that tell how often each number occurs: of a fourth of
them luck makes differences of hundredths."""
BATCH = 64
JUDGES = 3
"""Seeds of every judge."""
SHOWN = 9
ROWS = "data", "slots redrawn", "patches redrawn", "slots dreamt", "patches dreamt", "slots thrown together"
DPI = 160


def in_batches(function: Callable[[Tensor], Any], *inputs: Tensor) -> list[Any]:
    return [function(*(each[i : i + BATCH] for each in inputs)) for i in range(0, len(inputs[0]), BATCH)]


@torch.no_grad()
def properties(
    observer: nn.Module, images: Float[Tensor, "scenes 3 height width"]
) -> tuple[Int[Tensor, "scenes"], Float[Tensor, "scenes values"]]:
    """How many objects the continuous model sees, and a list of what they are: area, centre and mean colour of each
    slot's pixels, the largest first, zeros for slots with fewer than 20."""

    def read(batch: Tensor) -> tuple[Tensor, Tensor]:
        masks = observer(batch, generator=torch.Generator().manual_seed(0)).masks
        owned = F.one_hot(masks.argmax(dim=1), masks.shape[1]).permute(0, 3, 1, 2).float()
        area = owned.sum(dim=(2, 3))
        rows, columns = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in batch.shape[2:]), indexing="ij")
        channels = torch.cat([batch, rows.expand(len(batch), 1, -1, -1), columns.expand(len(batch), 1, -1, -1)], dim=1)
        means = torch.einsum("bkhw,bchw->bkc", owned, channels) / area.clamp(min=1).unsqueeze(2)
        values = torch.cat([area.unsqueeze(2) / area.sum(dim=1)[:, None, None], means], dim=2)
        values = values * (area >= 20).unsqueeze(2)
        order = area.argsort(dim=1, descending=True).unsqueeze(2)
        return count_objects(masks), values.gather(1, order.expand_as(values)).flatten(1)

    counts, values = zip(*in_batches(read, images), strict=True)
    return torch.cat(counts), torch.cat(values)


def variation(first: Int[Tensor, "scenes"], second: Int[Tensor, "scenes"]) -> float:
    """Total variation between two distributions of counts: 0 the same, 1 nothing in common."""
    most = int(max(first.max(), second.max())) + 1
    shares = [torch.bincount(each, minlength=most) / len(each) for each in (first, second)]
    return 0.5 * (shares[0] - shares[1]).abs().sum().item()


def judge_properties(first: Tensor, second: Tensor, seed: int) -> float:
    """Area under the ROC curve of boosted trees."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # slow to import
    from sklearn.metrics import roc_auc_score

    x, y, learns = _shuffled(first, second, seed)
    judge = HistGradientBoostingClassifier(random_state=seed).fit(x[learns], y[learns])
    return roc_auc_score(y[~learns], judge.predict_proba(x[~learns])[:, 1])


def judge_pixels(first: Tensor, second: Tensor, seed: int, steps: int = 300) -> float:
    """Area under the ROC curve of a small convolutional network."""
    from sklearn.metrics import roc_auc_score

    x, y, learns = _shuffled(first, second, seed)
    torch.manual_seed(seed)
    judge = nn.Sequential(
        *(layer for a, b in ((3, 16), (16, 32), (32, 64)) for layer in (nn.Conv2d(a, b, 5, 2, 2), nn.ReLU())),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(64 * 16, 1),
    )
    optimizer = torch.optim.Adam(judge.parameters(), lr=1e-3)
    x, known, order = x * 2 - 1, torch.tensor(np.flatnonzero(learns)), torch.Generator().manual_seed(seed)
    labels = torch.tensor(y, dtype=torch.float32)
    for _ in range(steps):
        batch = known[torch.randint(len(known), (BATCH,), generator=order)]
        loss = F.binary_cross_entropy_with_logits(judge(x[batch]).squeeze(1), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        scores = torch.cat(in_batches(judge, x[~learns])).squeeze(1)
    return roc_auc_score(y[~learns], scores)


def _shuffled(first: Tensor, second: Tensor, seed: int) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Both kinds one after the other, which is which, and which half of each a judge may learn from."""
    y = np.repeat([0, 1], [len(first), len(second)])
    learns = np.concatenate(
        [np.random.default_rng(seed).permutation(len(each)) < len(each) // 2 for each in (first, second)]
    )
    return torch.cat([first, second]), y, learns


@torch.no_grad()
def drawn(model: nn.Module, seed: int) -> Tensor:
    """Scenes that a model dreams up."""
    codes = model.sample(SCENES, generator=torch.Generator().manual_seed(seed))
    pictures = in_batches(model.decode, codes)
    return torch.cat([picture.image for picture in pictures]).clamp(0, 1)


@torch.no_grad()
def drawn_again(model: nn.Module, images: Tensor) -> Tensor:
    """Data, through the model's codes and back."""
    generator = torch.Generator().manual_seed(0)
    return torch.cat(in_batches(lambda batch: model(batch, generator=generator).reconstruction, images)).clamp(0, 1)


@torch.no_grad()
def thrown_together(model: CodePrior, images: Tensor) -> Tensor:
    """Scenes without a prior: every code drawn on its own, as often as it occurs in its block."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.cat(in_batches(lambda batch: model(batch, generator=generator).codes, images)).flatten(0, 1)
    columns = [column[torch.randperm(len(column), generator=generator)] for column in codes.T]
    mixed = torch.stack(columns, dim=1).unflatten(0, (len(images), -1))
    return torch.cat(in_batches(lambda batch: model.decode(batch).image, mixed)).clamp(0, 1)


@torch.no_grad()
def own_counts(model: CodePrior, seed: int) -> Int[Tensor, "scenes"]:
    codes = model.sample(COUNTED, generator=torch.Generator().manual_seed(seed))
    return torch.cat(in_batches(lambda batch: count_objects(model.decode(batch).masks), codes))


def dictionary(model: CodePrior, scenes: data.Scenes) -> dict[str, list[float]]:
    """`svq.information` over all objects that were found in `scenes`."""
    generator = torch.Generator().manual_seed(0)
    parts = [
        objects_found(model, scenes.batch(range(i, i + BATCH)), generator=generator)
        for i in range(0, len(scenes), BATCH)
    ]
    found = parts[0]._replace(
        codes=torch.cat([part.codes for part in parts]),
        properties={name: torch.cat([part.properties[name] for part in parts]) for name in parts[0].properties},
    )
    return {name: [round(value, 3) for value in blocks] for name, blocks in information(found).items()}


def writers() -> list[str]:
    """The models that ship with a prior over slots."""
    return [name for name in zoo.names() if name.startswith("svq_") and isinstance(zoo.load(name), CodePrior)]


def measure(name: str) -> dict[str, Any]:
    dataset = zoo.load(name).card["dataset"]["name"]
    models = {each: zoo.load(each) for each in (dataset, name, f"patches_{dataset}")}
    observer, slots, patches = models.values()
    options = slots.card["dataset"]["options"]  # the look of the scenes that are written
    scenes, others = (data.make(dataset, SCENES, seed, **options) for seed in (0, 9))
    images, more = (
        torch.cat([each.batch(range(i, i + BATCH))["image"] for i in range(0, SCENES, BATCH)])
        for each in (scenes, others)
    )
    many = data.make(dataset, COUNTED, 0, **options)
    true = torch.cat(
        [many.batch(range(i, i + BATCH))["objects"]["present"].sum(dim=1) for i in range(0, COUNTED, BATCH)]
    )
    kinds = {
        "data": images,
        "other data": more,
        "slots dreamt": drawn(slots, 0),
        "patches dreamt": drawn(patches, 0),
        "slots thrown together": thrown_together(slots, images),
        "slots redrawn": drawn_again(slots, images),
        "patches redrawn": drawn_again(patches, images),
    }
    seen = {kind: properties(observer, pictures) for kind, pictures in kinds.items()}
    pairs = [
        ("data", "other data"),
        ("data", "slots dreamt"),
        ("data", "patches dreamt"),
        ("slots redrawn", "slots dreamt"),
        ("slots redrawn", "slots thrown together"),
        ("patches redrawn", "patches dreamt"),
    ]
    judged = []
    for first, second in pairs:
        by_list = [judge_properties(seen[first][1], seen[second][1], seed) for seed in range(JUDGES)]
        by_pixels = [judge_pixels(kinds[first], kinds[second], seed) for seed in range(JUDGES)]
        judged.append(
            {"first": first, "second": second, "properties": _rounded(by_list), "pixels": _rounded(by_pixels)}
        )
        print(name, judged[-1], flush=True)
    halves = seen["data"], seen["other data"]
    real = torch.cat([counts for counts, _ in halves])
    words = dictionary(slots, scenes)
    save(draw_pictures(kinds), PICTURES / f"dreams_{name}.png")
    save(draw_dictionary(words), PICTURES / f"words_{name}.png")
    codes, plain = (evaluate(model, scenes, 640) for model in (slots, observer))
    return {
        "sha256": {called: each.card["sha256"] for called, each in models.items()},
        **{
            score: {"codes": round(codes.means[score], 4), "continuous": round(plain.means[score], 4)}
            for score in ("drawn_fg_ari", "posterior_fg_ari")
        },
        "utilisation": round(codes.means["utilisation"], 3),
        "perplexity": [round(codes.means[f"perplexity_{i}"], 1) for i in range(len(next(iter(words.values()))))],
        "information": words,
        "count_variation": {
            "slots, by their masks, against the truth": round(variation(true, own_counts(slots, 0)), 3),
            **{
                f"{kind}, as seen by the continuous model": round(variation(real, seen[kind][0]), 3)
                for kind in ("slots dreamt", "slots thrown together", "patches dreamt")
            },
            "other data, as seen by the continuous model": round(variation(*(counts for counts, _ in halves)), 3),
        },
        "judges": judged,
    }


def draw_pictures(kinds: Mapping[str, Float[Tensor, "scenes 3 height width"]]) -> Figure:
    """The first scenes of each kind, as they come."""
    figure, axes = plt.subplots(
        len(ROWS), SHOWN, figsize=(7.2, 7.2 * len(ROWS) / (SHOWN + 1)), gridspec_kw={"wspace": 0.06, "hspace": 0.06}
    )
    for kind, line in zip(ROWS, axes, strict=True):
        for axis, picture in zip(line, kinds[kind], strict=False):
            axis.imshow(plots.to_pixels(picture))
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        line[0].set_ylabel(kind.replace(" ", "\n"), rotation=0, ha="right", va="center", fontsize=8)
    return figure


def draw_dictionary(table: Mapping[str, list[float]]) -> Figure:
    """Properties by blocks: how much each block says about each."""
    values = np.array([*table.values()])
    figure, axis = plt.subplots(figsize=(7.2, 0.6 + 0.36 * len(values)), layout="constrained")
    axis.imshow(values, vmin=0, vmax=1, cmap="cividis", aspect="auto")
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            axis.text(
                column,
                row,
                f"{value:.2f}"[1:] if value < 0.995 else "1",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if value < 0.5 else "black",
            )
    axis.set_yticks(range(len(table)), table)
    axis.set_xticks(range(values.shape[1]))
    axis.set_xlabel("block")
    axis.spines[:].set_visible(False)
    return figure


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=DPI, bbox_inches="tight")
    plt.close(figure)


def _rounded(scores: list[float]) -> list[float]:
    return [round(float(score), 3) for score in scores]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=writers())
    torch.set_num_threads(1)
    plots.use_style()
    measured = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"models": {}}
    for name in parser.parse_args().models:
        measured["models"][name] = measure(name)
        measured |= {"machine": machine(), "scenes": SCENES}
        checkpoint.write(RESULTS, (json.dumps(measured, indent=1, ensure_ascii=False) + "\n").encode())


if __name__ == "__main__":
    main()
