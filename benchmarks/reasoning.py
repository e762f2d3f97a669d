"""Can a set answer questions that one pooled vector cannot? Chapter 05 reads the result, data/runs/reasoning.csv.

    python -m benchmarks.reasoning [--model clevr6_sets] [--seeds 0,1,2] [--steps 2500]

The rival of the predicted set: the set predictor's own encoder, trained on properties, then a mean over all places, and
an MLP that reads this one vector and a question. All of it is trained further on questions and answers about the scenes
that the set predictor was trained on, so it has had every label that the set had, and the answers besides. Questions
about 400 fresh scenes of 3 to 10 objects, with the same pairs of properties held out, are then counted: one line per
seed, number of objects and kind.
"""

import argparse
import copy
import csv
import io
import math
from collections import Counter
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

import slotlib
from slotlib import checkpoint, data
from slotlib.data import questions
from slotlib.data.targets import clevr_targets

RESULTS = Path(__file__).parents[1] / "data" / "runs" / "reasoning.csv"
TEST_SCENES, PER_SCENE, BATCH, PEAK = 400, 10, 32, 1e-3
Asked = list[list[questions.Question]]


def questions_about(scenes: dict, seed: int) -> tuple[Asked, list[list[int]]]:
    """`PER_SCENE` questions on every scene of a batch, and the true answers."""
    asked, answers = [], []
    generator = torch.Generator().manual_seed(seed)
    for rows, behind in zip(clevr_targets(scenes["objects"]), scenes["behind"].tolist(), strict=True):
        things = questions.read(rows)
        asked.append(questions.ask(things, behind, PER_SCENE, generator))
        answers.append([questions.answer(question, things, behind) for question in asked[-1]])
    return asked, answers


class Pooled(nn.Module):
    """Encoder, mean over places, and an MLP on that mean and a question; one logit per answer."""

    def __init__(self, encoder: nn.Module, dim: int):
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        codes = len(questions.encode(questions.Question("count", {})))
        self.mlp = nn.Sequential(
            nn.Linear(dim + codes, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, questions.ANSWERS)
        )

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"],
        question: Float[Tensor, "asked 39"],
        of: Int[Tensor, "asked"],
    ) -> Float[Tensor, "asked answers"]:
        """`of` says which image a question is about."""
        pooled = self.encoder(images * 2 - 1).mean(dim=(1, 2))
        return self.mlp(torch.cat([pooled[of], question], dim=1))


def flat(asked: Asked, answers: list[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
    of = torch.tensor([i for i, each in enumerate(asked) for _ in each])
    codes = torch.stack([questions.encode(question) for each in asked for question in each])
    return codes, of, torch.tensor([value for each in answers for value in each])


def train(model: nn.Module, images: Tensor, asked: Asked, answers: list[list[int]], steps: int, seed: int) -> Pooled:
    torch.manual_seed(seed)
    pooled = Pooled(model.encoder, model.config.attention.slot_dim)
    optimizer = torch.optim.Adam(pooled.parameters(), lr=PEAK)
    codes, of, truth = flat(asked, answers)
    first = torch.searchsorted(of, torch.arange(len(images) + 1))  # where a scene's questions begin
    order = iter(())
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = PEAK * min(1, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * step / steps))
        chosen = [i for _, i in zip(range(BATCH), order, strict=False)]
        if len(chosen) < BATCH:
            order = iter(torch.randperm(len(images)).tolist())
            chosen = [i for _, i in zip(range(BATCH), order, strict=False)]
        rows = torch.cat([torch.arange(first[i], first[i + 1]) for i in chosen])
        place = torch.tensor([k for k, i in enumerate(chosen) for _ in range(first[i], first[i + 1])])
        logits = pooled(images[chosen].float() / 255, codes[rows], place)
        loss = nn.functional.cross_entropy(logits, truth[rows])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(pooled.parameters(), 1.0)
        optimizer.step()
    return pooled.eval()


def drawn(name: str, size: int, seed: int, options: dict) -> dict:
    """All scenes of a dataset, the images as bytes."""
    scenes, parts = data.make(name, size, seed, **options), []
    for start in range(0, size, 256):
        part = scenes.batch(range(start, min(size, start + 256)))
        parts.append({**part, "image": (part["image"] * 255).round().byte()})
    joined = {key: torch.cat([part[key] for part in parts]) for key in ("image", "behind")}
    objects = {key: torch.cat([part["objects"][key] for part in parts]) for key in parts[0]["objects"]}
    return {**joined, "objects": objects}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="clevr6_sets", help="a set predictor, shipped or a path")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=2500)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = slotlib.load(arguments.model)
    dataset = model.card["dataset"]
    scenes = drawn(dataset["name"], dataset["size"], 2 * model.card["training"]["seed"] + 1, dataset["options"])
    test = drawn(dataset["name"], TEST_SCENES, 0, {**dataset["options"], "num_objects": (3, 10)})
    asked, answers = questions_about(scenes, seed=1)
    test_asked, test_answers = questions_about(test, seed=0)
    count = test["objects"]["present"].sum(1).tolist()
    codes, of, truth = flat(test_asked, test_answers)
    kinds = [question.kind for each in test_asked for question in each]

    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(("seed", "objects", "kind", "right", "asked"))
    for seed in [int(text) for text in arguments.seeds.split(",")]:
        pooled = train(model, scenes["image"], asked, answers, arguments.steps, seed)
        with torch.no_grad():
            guess = pooled(test["image"].float() / 255, codes, of).argmax(1)
        right, total = Counter(), Counter()
        for i, hit in enumerate((guess == truth).tolist()):
            total[count[of[i]], kinds[i]] += 1
            right[count[of[i]], kinds[i]] += hit
        for key in sorted(total):
            table.writerow((seed, *key, right[key], total[key]))
        print(f"seed {seed}: {sum(right.values()) / sum(total.values()):.3f}", flush=True)
        checkpoint.write(RESULTS, file.getvalue().encode())


if __name__ == "__main__":
    main()
