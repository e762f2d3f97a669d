"""Measure finished training runs on fresh scenes and ship the first one as a checkpoint.

    python book/tools/publish.py NAME RUN [RUN ...] [--machine "one core of ..."] [--files CLEVR_v1.0]
    python book/tools/publish.py NAME     # measure again what ships: its card changes, its weights do not
    python book/tools/publish.py NAME RUN [RUN ...] --more    # further seeds, likewise; of a prior, its autoencoder's

The runs differ in their seed only. All of them are measured and reported on the card, from one start and from the best
of four: by their drawn masks, and a mixture also by its posterior; predicted sets by their average precision. Beside
them stand rules that have learned nothing, on the same scenes. Which run ships is decided by the order on the command
line, not by the scores. Before anything is measured, weights are rounded to TensorFloat-32: what the page downloads of
them is then about two fifths smaller. Then `python book/tools/zoo.py` brings the page "Model zoo" up to date.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slotlib import baselines, checkpoint, data, training, zoo
from slotlib.autoencoder import SlotAutoencoder
from slotlib.evaluation import measured
from slotlib.model import Draws, Model
from slotlib.prior import CodePrior

CHECKPOINTS = Path(__file__).parents[2] / "data" / "checkpoints"
IMAGES = 640
SCENES_SEED = 0  # training and its running evaluation use other seeds
FG_ARI = "drawn_fg_ari", "posterior_fg_ari", "attention_fg_ari"


def to_tf32(numbers: Tensor) -> Tensor:
    """The nearest numbers of single precision with ten bits of mantissa, those of TensorFloat-32."""
    bits = numbers.float().view(torch.int32)
    return (bits + (1 << 12) & -1 << 13).view(torch.float32)


def rounded(model: Model) -> Model:
    """The model with all its numbers rounded."""
    state = {name: to_tf32(each) if each.dtype == torch.float32 else each for name, each in model.state_dict().items()}
    model.load_state_dict(state)
    return model


def finished(run: Path) -> Model:
    """The model of a run, as it is published."""
    return rounded(zoo.load(run / "model"))


def as_read_by(prior: CodePrior, autoencoder: Model, folder: Path) -> CodePrior:
    """Another training of a prior's autoencoder, with synonyms merged as the prior has them; no prior is learned."""
    own = replace(prior.config, autoencoder=str(folder / "model"))
    reader, seed = CodePrior(own), autoencoder.card["training"]["seed"]
    dataset = prior.card["dataset"]
    scenes = data.make(dataset["name"], 100, seed + 1, **dataset["options"])
    reader.prepare(scenes.batch(range(100)), Draws(training.step_generator(seed, 0)))
    reader.card = autoencoder.card
    return rounded(reader)


def has_restarts(model: Model) -> bool:
    """Whether starts differ, and the model can tell which was best."""
    observer = model.autoencoder if isinstance(model, CodePrior) else model
    return isinstance(observer, SlotAutoencoder) and observer.config.attention.slot_init != "learned"


def fresh_scenes(model: Model) -> data.Source:
    dataset = model.card["dataset"]
    return data.make(dataset["name"], IMAGES, SCENES_SEED, **dataset["options"])


def measure(model: Model) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A card's "metrics", and the scores of its entry in "seeds"."""
    scenes = fresh_scenes(model)
    metrics = [measured(model, scenes, IMAGES)]
    leading = FG_ARI if metrics[0].keys() & set(FG_ARI) else ("mse", "utilisation", "nats")
    told = metrics[0].items()
    scores = {name: value for name, value in told if name in leading or name.startswith(("ap_", "count_"))}
    if has_restarts(model):
        metrics.append(measured(model, scenes, IMAGES, restarts=4))
        scores |= {f"{name}_restarts_4": metrics[1][name] for name in FG_ARI if name in metrics[1]}
    return metrics, scores


def beside(model: Model, metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """What a card says of rules that have learned nothing, where masks are scored."""
    if not metrics[0].keys() & set(FG_ARI):
        return {}
    found = baselines.scores(fresh_scenes(model), IMAGES)
    return {"baselines": {name: round(value, 5) for name, value in found.items()}}


def measure_again(name: str) -> None:
    """New scores of the model that ships on its card; of other seeds, what there was."""
    model, path = zoo.load(CHECKPOINTS / name), CHECKPOINTS / f"{name}.json"
    metrics, scores = measure(model)
    first, *others = model.card["seeds"]
    found = {"metrics": metrics, "seeds": [{**first, **scores}, *others], **beside(model, metrics)}
    if "elsewhere" in model.card:
        found["elsewhere"] = model.card["elsewhere"]
    card = {**json.loads(path.read_text("utf-8")), **found}
    checkpoint.write(path, (json.dumps(card, indent=2) + "\n").encode())
    print(found["seeds"][0])


def measure_run(model: Model) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The "metrics" of a finished run's card, and its entry in "seeds"."""
    metrics, scores = measure(model)
    entry = {"seed": model.card["training"]["seed"], "wall_seconds": model.card["wall_seconds"], **scores}
    print(entry)
    return metrics, entry


def add(name: str, runs: Sequence[Path]) -> None:
    """Further seeds on the card of the model that ships. Raises ValueError for one that is there, or another model."""
    path = CHECKPOINTS / f"{name}.json"
    card = json.loads(path.read_text("utf-8"))
    shipped, seeds = zoo.load(CHECKPOINTS / name), {entry["seed"] for entry in card["seeds"]}
    trained = models = [finished(run) for run in runs]
    if isinstance(shipped, CodePrior):
        models = [
            model if isinstance(model, CodePrior) else as_read_by(shipped, model, run)
            for run, model in zip(runs, trained, strict=True)
        ]
    for run, model in zip(runs, models, strict=True):
        if model.config != shipped.config:
            raise ValueError(f"{run} is another model than {name}")
        if (seed := model.card["training"]["seed"]) in seeds:
            raise ValueError(f"seed {seed} of {run} is on the card of {name} already")
        seeds.add(seed)
    for own, model in zip(trained, models, strict=True):
        entry = measure_run(model)[1]
        if own is not model:
            entry.pop("nats", None)  # the prior around it has learned nothing
        card["seeds"].append(entry)
    checkpoint.write(path, (json.dumps(card, indent=2) + "\n").encode())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--more", action="store_true", help="the runs are further seeds of what ships; it stays")
    parser.add_argument("--machine", help='where each run was trained, such as "one core of an AMD EPYC"')
    parser.add_argument("--files", type=Path, help="scenes by others, on which the shipped model is scored too")
    parser.add_argument("--called", help='what the page calls them, such as "CLEVR\'s own validation pictures"')
    parser.add_argument("--options", type=json.loads, default={}, help='of their reader, such as {"max_objects": 6}')
    asked = parser.parse_args(arguments)

    if not asked.runs:
        measure_again(asked.name)
        return
    if asked.more:
        add(asked.name, asked.runs)
        return
    model, *more = map(finished, asked.runs)
    metrics, first = measure_run(model)
    seeds = [first, *(measure_run(other)[1] for other in more)]
    card = {**model.card, **({"machine": asked.machine} if asked.machine else {}), "metrics": metrics, "seeds": seeds}
    card |= beside(model, metrics)
    if asked.files:
        scenes = data.read(asked.files, **asked.options)
        ways = [{}, {"restarts": 4}] if has_restarts(model) else [{}]
        tries = [measured(model, scenes, len(scenes), **how) for how in ways]
        source = {"scenes": asked.called or asked.files.name, "options": asked.options}
        card["elsewhere"] = [{**entry, **source} for entry in tries]
    checkpoint.save(model, CHECKPOINTS / asked.name, card)


if __name__ == "__main__":
    main()
