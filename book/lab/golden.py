"""Golden values: what PyTorch says that the page must say too. `python book/lab/golden.py` writes golden/*.json."""

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import slotlib
from slotlib import adaptive, checkpoint, lab, zoo
from slotlib.adaptive import AdaptiveAutoencoder
from slotlib.decoders import Drawing
from slotlib.prior import CodePrior
from slotlib.set_prediction import SetPredictor

HERE = Path(__file__).parent
FOLDER = HERE / "golden"
WEIGHTS = HERE.parent / "assets" / "lab" / "weights"
GRID = [(4, 1, 0, 1), (1, 3, 3, 1), (3, 10, 7, 1), (9, 2, 11, 1), (12, 16, 2, 1), (5, 7, 5, 3)]
"""Slots, iterations, seed and restarts."""
WRITING = [(1.0, 1.0, 0), (0.7, 0.9, 0), (1.5, 0.6, 1), (1.0, 0.95, 3), (0.05, 1.0, 6), (2.0, 1.0, 0)]
"""Temperature, top-p, and how many slots a text is given to begin with."""
UNDECIDED = 255
ROUNDING = 2**-22
"""Of single precision. Where slots do not settle, iterations make of it what they like: "rounding" says how much."""
RESOLUTION = 12
SMALL = {
    "resolution": RESOLUTION,
    "encoder": {"class_path": "Strided", "init_args": {"channels": 8}},
    "attention": {"slot_dim": 12},
}
MIXTURE = {"class_path": "Mixture", "init_args": {"noise": 0.3, "sparsity": 0.01}}


def separable(**options: Any) -> dict[str, Any]:
    return {"class_path": "Separable", "init_args": {"channels": 8, "rank": 3, **options}}


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("SlotAutoencoder", {"decoder": separable(), "likelihood": {"class_path": "Average"}}),
    ("SlotAutoencoder", {"decoder": separable(colour="shaded", shading=0.5), "likelihood": MIXTURE}),
    ("SlotAutoencoder", {"decoder": separable(colour="slot", colour_dims=5), "likelihood": MIXTURE}),
    (
        "SlotAutoencoder",
        {"decoder": separable(colour="slot"), "attention": {"slot_dim": 12, "slot_init": "one_learned"}},
    ),
    ("OutlinedAutoencoder", {"decoder": separable(colour="slot"), "likelihood": MIXTURE}),
    *(
        (
            "SVQAutoencoder",
            {
                "decoder": separable(colour="slot", colour_dims=3),
                "attention": {
                    "slot_dim": 12,
                    "quantizer": {"class_path": "Nearest", "init_args": {"num_blocks": 4, "num_codes": 5}},
                    **changes,
                },
            },
        )
        for changes in ({"search_iterations": 2}, {"mixing": True})
    ),
    *(
        (kind, {"decoder": separable(colour="slot"), "likelihood": MIXTURE, "price": 0.1, "target": 1.0})
        for kind in ("AdaptiveAutoencoder", "AdaptiveOutlinedAutoencoder")
    ),
    ("SlotAutoencoder", {"decoder": separable(), "attention": {"slot_dim": 12, "competition": False}}),
    ("SlotAutoencoder", {"decoder": separable(colour="shaded"), "likelihood": MIXTURE, "compression": 4.0}),
]
STAGES = [
    {"name": "tetrominoes", "options": {"look": "first"}},
    {"name": "tetrominoes", "options": {"look": "published", "num_objects": [1, 4]}},
    {"name": "shapes", "options": {}},
    {"name": "multi_dsprites", "options": {"look": "first"}},
    {"name": "multi_dsprites", "options": {"look": "published", "variant": "colour_on_colour"}},
]
"""Every kind of scenes that the page draws, whichever of them models are trained on."""


def random_numbers() -> list[dict[str, Any]]:
    """One generator after another, each asked several times: few numbers and many, whole blocks of 16 and not."""
    cases = []
    for seed in (0, 7, 2**31 + 5):
        generator = seeded(seed)
        draws = []
        for kind, count in [
            ("uniform", 5),
            ("normal", 3),
            ("normal", 15),
            ("normal", 16),
            ("normal", 37),
            ("uniform", 2),
        ]:
            draw = torch.rand if kind == "uniform" else torch.randn
            draws.append({"kind": kind, "count": count, "numbers": draw(count, generator=generator).tolist()})
        exponential = torch.empty(16).exponential_(generator=generator).tolist()
        draws.append({"kind": "exponential", "count": 16, "numbers": exponential})
        late = torch.randn(700, generator=generator)[-3:]  # beyond the first 624 numbers
        draws.append({"kind": "normal", "count": 700, "numbers": late.tolist()})
        cases.append({"seed": seed, "draws": draws})
    return cases


def kinds() -> list[dict[str, Any]]:
    """Every kind of model that the page computes, small and with random parameters: golden values without a checkpoint.

    Parameters and image are drawn one after another from one generator; the page draws the same.
    """
    answers = []
    for seed, (kind, changes) in enumerate(KINDS):
        model = checkpoint.made({"class_path": kind, "init_args": {**SMALL, **changes}})
        generator = seeded(seed)
        with torch.no_grad():
            for tensor in model.state_dict().values():
                tensor.copy_(torch.randn(tensor.numel(), generator=generator).view_as(tensor) / 3)
            image = torch.rand(3 * RESOLUTION**2, generator=generator).view(1, 3, RESOLUTION, RESOLUTION)
            out = model.eval()(image, 4, 3, 2, seeded(seed))
        answers.append(
            {
                "model": checkpoint.spec(model),
                "tensors": {name: list(tensor.shape) for name, tensor in model.state_dict().items()},
                "seed": seed,
                "found": floats(out.slots[0]),
                "masks": floats(out.masks[0]),
                "reconstruction": floats(out.reconstruction[0]),
            }
        )
    return answers


def owners(masks: Tensor) -> np.ndarray:
    """Each pixel's slot; `UNDECIDED` where single precision cannot tell the two that are ahead apart."""
    first, second = torch.cat([masks, masks[:1] * 0]).topk(2, dim=0).values  # of one slot, the other has nothing
    return masks.argmax(0).byte().masked_fill(first - second < 1e-5, UNDECIDED).numpy()


def decisions() -> list[dict[str, Any]]:
    """Coins of slots that may as well stay as go, once of none that may stay; and each one's gradient for its logit."""
    answers = []
    for seed, (slots, mean) in enumerate([(8, 0.0), (12, 1.0), (5, -0.5), (6, -30.0)]):
        logits = (torch.randn(1, slots, generator=seeded(seed)) + mean).requires_grad_()
        temperature = 0.25 * (seed + 1)
        tossed = adaptive.decide(logits, temperature, slotlib.Draws(seeded(seed)))
        (slope,) = torch.autograd.grad(tossed.keep.sum(), logits)
        answers.append(
            {
                "seed": seed,
                "logits": logits[0].tolist(),
                "temperature": temperature,
                "keep": tossed.keep[0].tolist(),
                "keep_probability": tossed.keep_probability[0].tolist(),
                "slope": slope[0].tolist(),
            }
        )
    return answers


def packed(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(array.tobytes(), 9)).decode()


def floats(tensor: torch.Tensor) -> str:
    return packed(tensor.numpy().astype("<f4"))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scenes_of(dataset: dict[str, Any]) -> dict[str, Any]:
    return slotlib.data.make(dataset["name"], lab.SCENES, **dataset["options"]).batch(range(lab.SCENES))


def drawn(dataset: dict[str, Any]) -> dict[str, Any]:
    """A stage, and what slotlib draws on it."""
    scenes = scenes_of(dataset)
    images = (scenes["image"] * 255).round().byte().numpy()
    return {"stage": lab.stage(dataset), "images": packed(images), "masks": packed(scenes["mask"].numpy())}


@torch.no_grad()
def model_answers(name: str) -> list[dict[str, Any]]:
    """What a model says of the scenes that are exported with it, each with other settings."""
    model = slotlib.load(name)
    images = scenes_of(model.card["dataset"])["image"]
    answers = []
    for i, (slots, iterations, seed, restarts) in enumerate(GRID):
        out, nearby = (
            model(images[[i]] * factor, slots, iterations, restarts, seeded(seed)) for factor in (1, 1 + ROUNDING)
        )
        answers.append(
            {
                "scene": i,
                "slots": slots,
                "iterations": iterations,
                "seed": seed,
                "restarts": restarts,
                "found": floats(out.slots[0]),
                "rounding": (nearby.slots - out.slots).abs().max().item(),
                "masks": packed(owners(out.masks[0])),
                "drawn_masks": packed(owners(out.drawn_masks[0])),
                "attention": out.attention[0, :, 0, 0].tolist(),
                "squared_error": (out.reconstruction - images[[i]]).square().mean().item(),
            }
        )
    return answers


@torch.no_grad()
def kept_answers(name: str) -> list[dict[str, Any]]:
    """Which slots an adaptive model keeps of the same scenes: by itself, by coins, and by what they save."""
    model = slotlib.load(name)
    images = scenes_of(model.card["dataset"])["image"]
    answers = []
    for i, (slots, iterations, seed, _) in enumerate(case for case in GRID if case[0] > 1):
        image = images[[i]]
        bound = model.bind(model.encode(image), slotlib.Draws(seeded(seed)), slots, iterations).slots
        drawn, decision = model.decoder(model.second_look(bound, image)), model.keep_or_drop(bound)
        keep = torch.ones(slots + 1, slots) - torch.eye(slots + 1, slots).roll(1, 0)  # all of them, then without each
        drawings = Drawing(*(part.expand(slots + 1, *part.shape[1:]) for part in drawn))
        costs = model.likelihood.cost(
            adaptive.kept_only(drawings, keep), model.units(image).expand(slots + 1, *image.shape[1:])
        )
        answers.append(
            {
                "scene": i,
                "slots": slots,
                "iterations": iterations,
                "seed": seed,
                "logits": decision.logits[0].tolist(),
                "keep": decision.keep[0].tolist(),
                "keep_probability": decision.keep_probability[0].tolist(),
                "coins": adaptive.decide(decision.logits, draws=slotlib.Draws(seeded(seed))).keep[0].tolist(),
                "saved": (costs[1:] - costs[0]).tolist(),
            }
        )
    return answers


@torch.no_grad()
def prior_answers(name: str) -> list[dict[str, Any]]:
    """What a prior says of texts, and what it writes, each time drawn otherwise."""
    model = slotlib.load(name)
    blocks, size = model.prior.num_blocks, model.prior.num_codes
    answers = []
    for seed, (temperature, top_p, given) in enumerate(WRITING):
        begin = torch.randint(size, (1, given, blocks), generator=seeded(seed))
        drawing = {"temperature": temperature, "top_p": top_p}
        text = model.prior.sample(1, given=begin, **drawing, generator=seeded(seed))
        drawn = model.decode(text)
        start = slotlib.Draws(seeded(seed))
        found = model.autoencoder.tokenise(scenes_of(model.card["dataset"])["image"][[seed]], start)
        answers.append(
            {
                "seed": seed,
                **drawing,
                "given": begin.flatten().tolist(),
                "text": text.flatten().tolist(),
                "logits": floats(model.prior.logits(text)[0]),
                "image": packed((drawn.image[0] * 255).round().clamp(0, 255).byte().numpy()),
                "owners": packed(drawn.masks[0].argmax(0).byte().numpy()),
                "codes": found.flatten().tolist(),
                "with_blanks": model.with_blanks(found).flatten().tolist(),
            }
        )
    return answers


def write(name: str, content: Any) -> None:
    (FOLDER / f"{name}.json").write_text(json.dumps(content) + "\n", encoding="utf-8")


def main() -> None:
    write("random", random_numbers())
    write("kinds", kinds())
    write("decisions", decisions())
    write("stages", [drawn(dataset) for dataset in STAGES])
    for name in sorted({path.stem for path in WEIGHTS.glob("*.js")} & set(zoo.names())):
        model = slotlib.load(name)
        if isinstance(model, SetPredictor):
            continue  # describe.py
        write(f"model_{name}", model_answers(name))
        if isinstance(model, CodePrior):
            write(f"prior_{name}", prior_answers(name))
        if isinstance(model, AdaptiveAutoencoder):
            write(f"kept_{name}", kept_answers(name))


if __name__ == "__main__":
    main()
