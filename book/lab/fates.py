"""Four scenes whose slots fare differently, and golden values of them: `python book/lab/fates.py`.

Writes src/fates.json, the scenes that the lab of chapter 06 shows, and golden/fates.json. They are found as the chapter
finds them, in the model that ships, in double precision.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from golden import HERE, seeded, write
from torch import Tensor

import slotlib
from slotlib import implicit, lab, metrics

MODEL = "tetrominoes"
SCENES, CROWDED, MANY, STARTS = 64, 128, 32, 6
"""Scenes of three pieces, and of five, more than the model has seen; of some of the latter several starts."""
LONG = 300
CASES = [("plain", 40), ("plain", 150), ("anderson", 12), ("anderson", 150)]
"""Solver and iterations of golden values."""

Update = Callable[[Tensor], Tensor]


def dataset(model: Any, pieces: int) -> dict[str, Any]:
    known = model.card["dataset"]
    return {"name": known["name"], "options": {**known["options"], "num_objects": pieces}}


def images_of(model: Any, pieces: int, scenes: Sequence[int]) -> Tensor:
    """Scenes with this number of pieces, drawn as those that the model was trained on."""
    known = dataset(model, pieces)
    return slotlib.data.make(known["name"], max(scenes) + 1, **known["options"]).batch(scenes)["image"].double()


def update_of(model: Any, images: Tensor, encoder: Any = None) -> Update:
    """The iteration on features of these images, which another model may have encoded."""
    features = model.encode(images) if encoder is None else encoder.encode(images.float()).double()
    prepared = model.slot_attention.prepare(features.flatten(1, 2))
    return lambda slots: model.slot_attention.step(slots, prepared)[0]


def residuals(f: Update, z: Tensor) -> Tensor:
    """Of every iteration, `[LONG, batch]`."""
    trail = []
    for _ in range(LONG):
        value = f(z)
        trail.append(implicit.residual(value, z))
        z = value
    return torch.stack(trail)


def found(model: Any) -> list[dict[str, Any]]:
    """Where each fate was met: the scene by its number of pieces and its own number, and which start of how many.

    Raises ValueError where a fate is not met any more.
    """
    start = model.slot_attention.initial_slots
    easy, crowded = (
        residuals(update_of(model, images_of(model, pieces, range(count))), start(count, pieces + 1, seeded(0)))
        for pieces, count in ((3, SCENES), (5, CROWDED))
    )
    needed = (easy > 1e-6).sum(dim=0)
    typical = int((needed - needed.median()).abs().argmin())
    restless, slow = crowded[-1].topk(2).indices.tolist()
    if not (easy[-1, typical] < 1e-6 < crowded[-1, slow] < 0.7 * crowded[100, slow] and crowded[-1, restless] > 1e-2):
        raise ValueError("no scene is slow, or none is restless: choose others")
    images = images_of(model, 5, range(MANY))
    every = images.repeat_interleave(STARTS, dim=0)
    ends = implicit.solve(update_of(model, every), start(len(every), 6, seeded(1)), max_iterations=150)
    owned = model.likelihood.masks(model.decoder(ends.z), model.units(every)).argmax(dim=1)
    owners = owned.flatten(1).unflatten(0, (-1, STARTS))
    alike = torch.stack([metrics.adjusted_rand_index(each[:1].expand_as(each), each) for each in owners])
    at_rest = ends.converged.view(-1, STARTS)
    scene, other = ((alike < 0.8) & at_rest & at_rest[:, :1]).nonzero()[0].tolist()
    return [
        {"name": "settled", "pieces": 3, "scene": typical, "count": SCENES, "seed": 0, "first": typical},
        {"name": "slow", "pieces": 5, "scene": slow, "count": CROWDED, "seed": 0, "first": slow},
        {"name": "restless", "pieces": 5, "scene": restless, "count": CROWDED, "seed": 0, "first": restless},
        {
            "name": "two_ended",
            "pieces": 5,
            "scene": scene,
            "count": MANY * STARTS,
            "seed": 1,
            "first": scene * STARTS,
            "other": other,
        },
    ]


def answers(model: Any, single: Any, fate: dict[str, Any]) -> list[dict[str, Any]]:
    """Residuals on the way, and the largest eigenvalues of the Jacobian where it ends.

    As on the page, `single` encodes the image in single precision: a slow scene makes much of the difference.
    """
    slots = fate["pieces"] + 1
    update = update_of(model, images_of(model, fate["pieces"], [fate["scene"]]), single)
    first = model.slot_attention.initial_slots(fate["count"], slots, seeded(fate["seed"]))[[fate["first"]]]
    result = []
    for method, iterations in CASES:
        way = [
            implicit.solve(update, first, method=method, tolerance=1e-10, max_iterations=count)
            for count in (1, 3, 9, iterations)
        ]
        end = way[-1].z
        jacobian = torch.autograd.functional.jacobian(update, end).reshape(end.numel(), end.numel())
        eigenvalues = torch.linalg.eigvals(jacobian)
        largest = eigenvalues[eigenvalues.abs().argsort(descending=True)[:12]]
        result.append(
            {
                "fate": fate["name"],
                "method": method,
                "iterations": iterations,
                "least": [each.residuals.item() for each in way],
                "needed": way[-1].iterations.item(),
                "converged": way[-1].converged.item(),
                "eigenvalues": torch.view_as_real(largest).tolist(),
            }
        )
    return result


@torch.no_grad()
def main() -> None:
    single, before = slotlib.load(MODEL), torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # as the chapter
    model = slotlib.load(MODEL).double()
    fates = found(model)
    shown = []
    for fate in fates:
        stage = lab.stage(dataset(model, fate["pieces"]), [fate["scene"]])
        assert stage is not None
        shown.append(fate | {"options": stage["options"], "things": stage["scenes"][0]["things"]})
    golden = [answer for fate in fates for answer in answers(model, single, fate)]
    torch.set_default_dtype(before)
    (HERE / "src" / "fates.json").write_text(json.dumps(shown) + "\n", encoding="utf-8")
    write("fates", golden)


if __name__ == "__main__":
    main()
