"""Golden values of the labs that need no weights, and the scenes that one of them shows.

Writes book/lab/golden/{attention,metrics,fixed_point}.json and book/lab/src/shapes.json. The chapters' own cells give
the points, the starts and the damage, slotlib everything that is computed from them.
"""

import base64
import io
import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import nbformat
import torch
from golden import FOLDER, HERE, seeded
from PIL import Image
from torch.nn import functional as F

from slotlib import attention, data, implicit, metrics, plots

CHAPTERS = HERE.parents[1] / "chapters"


def cell(chapter: str, name: str, **names: Any) -> SimpleNamespace:
    """What the chapter's cell of this id defines, given the `names` it uses."""
    notebook = nbformat.read(CHAPTERS / f"{chapter}.ipynb", as_version=4)
    source = next(each.source for each in notebook.cells if each.id == name)
    exec(source, names)
    return SimpleNamespace(**names)


def rounded(values: torch.Tensor) -> Any:
    return (values.double() * 1e9).round().div(1e9).tolist()


# --- chapter 01: queries on points ---

FOUND_WITHIN, SAME_WITHIN = 0.5, 0.1
LOOKS: list[tuple[attention.Axis, float, int, int, int]] = [  # axis, temperature, iterations, queries, seed
    ("keys", 0.1, 10, 5, 0),
    ("keys", 0.02, 3, 8, 4),
    ("queries", 0.1, 10, 5, 3),
    ("queries", 0.02, 1, 8, 1),
    ("queries", 4.02, 40, 2, 20),
    ("queries", 0.3, 20, 1, 7),
]


def looked(points: torch.Tensor, start: torch.Tensor, temperature: float, over: attention.Axis, count: int) -> dict:
    """The queries after `count` rounds, with the weights and the free energy before and after."""
    queries, energies, weights = start, [], torch.empty(0)
    for i in range(count + 1):
        logits = -0.5 * torch.cdist(queries, points).square() / temperature
        energies.append(-temperature * logits.logsumexp(dim=-2).mean())  # equation 1.6
        if i < count:
            weights = attention.attention_weights(logits, over)
            queries = attention.weighted_mean(weights, points, 1e-12)
    if over == "queries":
        again = attention.soft_kmeans(points, start, temperature, count)
        torch.testing.assert_close(again, attention.KMeansOutput(queries, weights))
    return {
        "moved": rounded(queries),
        "received": rounded(weights.sum(0)[:10]),
        "owned": rounded(weights.sum(1)),
        "energies": rounded(torch.stack([energies[0], energies[-1]])),
    }


def queries_on_points() -> dict:
    world = cell("01_attention", "world", torch=torch)
    cases = []
    for over, temperature, iterations, count, seed in LOOKS:
        start = world.random_starts(1, count, seed)[0]
        case = {"over": over, "temperature": temperature, "iterations": iterations, "seed": seed}
        cases.append(case | {"start": rounded(start)} | looked(world.points, start, temperature, over, iterations))
    edges = {
        "a query that owns nothing": ([[0.0, 0.0], [90.0, 90.0]], [[0.0, 1.0], [1.0, 0.0], [0.0, -1.0]]),
        "twins": ([[0.5, 0.0], [0.5, 0.0]], [[0.0, 0.0], [1.0, 0.0], [3.0, 1.0]]),
        "one point": ([[0.0, 0.0], [1.0, 1.0]], [[2.0, -1.0]]),
    }
    for name, (start, points) in edges.items():
        for over in get_args(attention.Axis):
            case = {"name": name, "over": over, "temperature": 0.1, "iterations": 2, "points": points, "start": start}
            cases.append(case | looked(torch.tensor(points), torch.tensor(start), 0.1, over, 2))
    starts = torch.cat([world.random_starts(1, 5, seed) for seed in range(50)])
    tally = {}
    for over in get_args(attention.Axis):
        ends = starts
        for _ in range(40):
            ends, _ = world.look_and_move(ends, world.points, 0.05, over)
        same = (torch.cdist(ends, ends) < SAME_WITHIN).tril(-1).any(-1)
        found = (torch.cdist(world.CLUMPS, ends).amin(-1) < FOUND_WITHIN).sum(-1)
        tally[over] = {"found": found.tolist(), "places": (~same).sum(-1).tolist()}
    return {"points": rounded(world.points), "cases": cases, "tally": tally}


# --- chapter 04: paint a segmentation ---

SCENES = {9: "six objects", 1: "five objects", 2: "four objects", 4: "three objects", 0: "two objects"}
DAMAGES = [
    {},
    {"split": 2, "swallow": 2},
    {"split": 5, "merge": 3, "background": 3},
    {"swallow": 12},
    {"merge": 6, "noise": 0.25, "background": 8},
    {"noise": 1.0},
]
EASY = {  # truth and prediction, one digit a pixel
    "one object, told whole": ("000111", "777333"),
    "one object, a pixel lost": ("000111", "777337"),
    "one object, cut in two": ("001111", "773388"),
    "no object": ("000000", "777773"),
    "one object of one pixel": ("000001", "777773"),
    "no background": ("111222", "111122"),
    "one segment on each side": ("111111", "000000"),
    "each pixel a segment of its own": ("01234567", "76543210"),
    "each pixel a segment, and the truth one": ("11111111", "76543210"),
    "one segment holds two objects": ("0011223344", "0011112233"),
    "objects share their best segment": ("0111222", "0111110"),
    "a label that is not used": ("0022", "0055"),
    "one pixel": ("1", "0"),
    "no pixel": ("", ""),
}


def digits(labels: torch.Tensor) -> str:
    return "".join(map(str, labels.flatten().tolist()))


def runs(labels: torch.Tensor) -> list[list[int]]:
    """[label, how many pixels of it follow]."""
    values, counts = labels.flatten().unique_consecutive(return_counts=True)
    return torch.stack([values, counts], 1).tolist()


def scored(true: torch.Tensor, pred: torch.Tensor) -> dict:
    counts = metrics.pair_counts(true, pred)._asdict()
    on_objects = metrics.pair_counts(true, pred, background=0)._asdict()
    scores = {
        "Rand": metrics.rand_index,
        "ARI": metrics.adjusted_rand_index,
        "FG-ARI": metrics.fg_ari,
        "mBO": metrics.mean_best_overlap,
        "mIoU": metrics.mean_iou,
    }
    return {
        "pairs": {name: count.item() for name, count in counts.items()},
        "foreground": {name: count.item() for name, count in on_objects.items()},
        "scores": {name: score(true, pred).item() for name, score in scores.items()},
    }


def chapter_damage() -> Any:
    return cell("04_ari", "scenes", torch=torch, F=F, data=data, seeded=seeded, print=lambda *_, **__: None).damage


def painted() -> dict:
    scenes, damage, damages = data.make("shapes", 10, seed=0), chapter_damage(), []
    for index in (9, 4):
        true = scenes.batch([index])["mask"].long()
        for faults in DAMAGES:
            pred = damage(true, **faults)
            first = runs(pred)[:100]
            damages.append({"scene": str(index), "faults": faults, "runs": first} | scored(true, pred))
    easy = []
    for name, pair in EASY.items():
        true, pred = (torch.tensor([[int(digit) for digit in side]], dtype=torch.int64) for side in pair)
        easy.append({"name": name, "true": pair[0], "pred": pair[1]} | scored(true, pred))
    return {"damages": damages, "easy": easy}


def png(image: torch.Tensor) -> str:
    pixels = Image.fromarray((plots.to_pixels(image) * 255).round().astype("uint8"))
    file = io.BytesIO()
    pixels.quantize(64).save(file, "png", optimize=True)  # shown small beside the masks: 64 colours are enough
    return base64.b64encode(file.getvalue()).decode()


def scenes() -> list[dict]:
    """Some of the chapter's scenes, and one with a single object."""
    chosen = [(str(index), name, data.make("shapes", 10, seed=0), index) for index, name in SCENES.items()]
    chosen.append(("single", "one object", data.make("shapes", 1, seed=0, num_objects=1), 0))
    result = []
    for key, name, source, index in chosen:
        scene = source.batch([index])
        result.append({"key": key, "name": name, "png": png(scene["image"][0]), "runs": runs(scene["mask"])})
    return result


# --- chapter 06: cobweb ---

MAPS = {
    "line": lambda a: lambda z, x: x + a * (z - 1),
    "bend": lambda a: lambda z, x: x + torch.tanh(a * (z - 1)),
}
WALKS = [  # map, slope, start, iterations, steps of a short gradient
    ("line", -0.7, -0.5, 40, 1),
    ("line", 0.9, 2.0, 10, 5),
    ("line", -1.0, 3.0, 12, 3),
    ("line", 1.2, -0.5, 60, 2),
    ("line", 0.5, 1.0, 40, 4),  # starts where it rests
    ("line", 0.0, -1.0, 40, 6),
    ("bend", 0.6, -1.0, 60, 3),
    ("bend", 1.2, 0.5, 60, 8),
    ("bend", -1.2, 0.5, 25, 2),
]


def walked(name: str, slope: float, start: float, iterations: int, steps: int) -> dict:
    f, z = MAPS[name](slope), torch.tensor([[start]])
    gradients = {}
    for gradient in ("unrolled", "implicit", "neumann", "exact"):
        x = torch.ones(1, 1, requires_grad=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where it has not come to rest, or cannot
            point = implicit.fixed_point(
                f, z, x, gradient=gradient, steps=steps, max_iterations=iterations, strict=False
            )
            gradients[gradient] = torch.autograd.grad(point.z.sum(), x)[0].item()
    found = implicit.solve(f, z, torch.ones(1, 1), max_iterations=iterations)
    return {
        "map": name,
        "slope": slope,
        "start": start,
        "iterations": iterations,
        "steps": steps,
        "z": found.z.item(),
        "residual": found.residuals.item(),
        "needed": found.iterations.item(),
        "converged": found.converged.item(),
        "gradients": gradients,
    }


def written() -> dict[Path, Any]:
    """What the files hold, computed now."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # as the chapters do
    try:
        attention_, fixed_points = queries_on_points(), [walked(*walk) for walk in WALKS]
    finally:
        torch.set_default_dtype(before)
    return {
        FOLDER / "attention.json": attention_,
        FOLDER / "fixed_point.json": fixed_points,
        FOLDER / "metrics.json": painted(),
        HERE / "src" / "shapes.json": scenes(),
    }


def main() -> None:
    for path, values in written().items():
        path.write_text(json.dumps(values, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
