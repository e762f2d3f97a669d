"""The model of chapter 02 for its lab: `python book/lab/stargazer.py` trains it with the chapter's own cells.

Writes book/assets/lab/weights/stargazer.js, which also says how the numbers in it were made, and golden/stargazer.json.
`load` gives the trained model back.
"""

import base64
import json
import math
import platform
import zlib
from typing import Any

import numpy as np
import torch
from golden import WEIGHTS, floats, seeded, write
from golden_pure import cell, rounded
from torch import nn
from torch.nn import functional as F

import slotlib
from slotlib import lab

CHAPTER = "02_slot_attention"
FILE = WEIGHTS / "stargazer.js"
HEADER = "(slotlab.weights ??= {}).stargazer = "
Change = dict[str, bool]
CASES: list[tuple[int, int, int, int, int, float, Change]] = [
    # orbits, sky, slots, iterations, start, noise, what is changed
    (3, 0, 3, 3, 0, 1, {}),
    (2, 4, 5, 8, 7, 0.1, {}),
    (5, 1, 1, 1, 2, 1, {}),
    (4, 3, 4, 20, 3, 0.0001, {}),
    (3, 0, 3, 10, 0, 0, {}),
    (3, 2, 4, 3, 1, 1, {"compete": False}),
    (3, 2, 3, 3, 1, 1, {"gru": False}),
    (1, 2, 8, 5, 1, 1, {"normalised": True}),
    (5, 9, 6, 5, 20, 1, {"compete": False, "gru": False}),
]


def chapter(*cells: str) -> dict[str, Any]:
    """What these cells of the chapter define, one after another."""
    names: dict[str, Any] = {"math": math, "nn": nn, "seeded": seeded, "slotlib": slotlib, "torch": torch}
    for each in cells:
        names = vars(cell(CHAPTER, each, **names))
    return names


def load() -> nn.Module:
    """The model as the page has it."""
    content = json.loads(FILE.read_text("utf-8").removeprefix(HEADER).removesuffix(";\n"))
    planes = np.frombuffer(base64.b64decode(content["data"]), "u1").reshape(4, -1)
    numbers = torch.tensor(planes.T.copy().view("<f4").ravel())
    model = chapter("skies", "model")["Stargazer"]()
    parts = numbers.split([math.prod(shape) for shape in content["tensors"].values()])
    shaped = zip(content["tensors"].items(), parts, strict=True)
    model.load_state_dict({name: part.view(shape) for (name, shape), part in shaped})
    return model.eval()


def export(model: nn.Module, losses: list[float]) -> None:
    tensors = model.state_dict()
    planes = lab.planes(tensors.values())
    content = {
        "card": {
            "made by": f"book/lab/stargazer.py, with the cells skies, model and train of chapters/{CHAPTER}.ipynb",
            "steps": len(losses),
            "loss": round(sum(losses[-50:]) / 50, 3),
            "torch": torch.__version__,
            "machine": platform.machine(),
        },
        "tensors": {name: list(tensor.shape) for name, tensor in tensors.items()},
        "crc32": zlib.crc32(planes),
        "data": base64.b64encode(planes).decode(),
    }
    FILE.write_text(f"{HEADER}{json.dumps(content)};\n", encoding="utf-8")


@torch.no_grad()
def gaze(
    model: nn.Module,
    dots: torch.Tensor,
    slots: int,
    iterations: int,
    start: int,
    noise: float,
    compete: bool = True,
    gru: bool = True,
    normalised: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Every iteration's slots, the last attention and what the slots draw, with lines of algorithm 1 changed."""
    layers = model.slot_attention
    inputs = layers.norm_inputs(model.encoder(dots))
    k, v = layers.project_k(inputs), layers.project_v(inputs)
    trail = [
        layers.slots_mu + noise * layers.slots_log_sigma.exp() * torch.randn(1, slots, 32, generator=seeded(start))
    ]
    attention = torch.empty(0)
    for _ in range(iterations):
        before = trail[-1]
        q = layers.project_q(layers.norm_slots(before))
        attention = (q @ k.mT / math.sqrt(32)).softmax(dim=-2 if compete else -1)
        weights = attention + layers.eps
        updates = weights / weights.sum(dim=-1, keepdim=True) @ v
        state = layers.norm_slots(before) if normalised else before
        after = layers.gru(updates[0], state[0])[None] if gru else updates
        trail.append(after + layers.mlp(layers.norm_mlp(after)))
    return torch.cat(trail), attention[0], model.decoder(trail[-1]).log_softmax(dim=-1)[0]


@torch.no_grad()
def golden() -> list[dict[str, Any]]:
    names, model = chapter("skies", "model"), load()
    answers = []
    for orbits, sky, slots, iterations, start, noise, change in CASES:
        dots, orbit = names["skies"](1, (orbits,), seeded(100 + sky))
        trail, attention, drawings = gaze(model, dots, slots, iterations, start, noise, **change)
        if noise == 1 and not change:  # the library says the same
            out, drawn = model(dots, num_slots=slots, num_iterations=iterations, generator=seeded(start))
            torch.testing.assert_close(out.slots[0], trail[-1], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(drawn[0], drawings, atol=1e-4, rtol=1e-5)
        chance = F.normalize(drawings.exp(), dim=-1)
        answers.append(
            {
                "sky": {"orbits": orbits, "number": sky, "dots": rounded(dots[0]), "orbit": orbit[0].tolist()},
                "question": {"slots": slots, "iterations": iterations, "start": start, "noise": noise, **change},
                "trail": floats(trail),
                "attention": floats(attention),
                "drawings": floats(drawings),
                "loss": -names["log_likelihood"](dots, drawings[None]).mean().item(),
                "sureness": attention.amax(dim=0).mean().item(),
                "likeness": (chance @ chance.mT).sum().sub(slots).item() / max(slots * (slots - 1), 1),
                "ari": slotlib.metrics.adjusted_rand_index(orbit, attention.argmax(dim=0)[None]).item(),
            }
        )
    return answers


def main() -> None:
    trained = chapter("skies", "model", "train")
    export(trained["model"], trained["losses"])
    write("stargazer", golden())


if __name__ == "__main__":
    main()
