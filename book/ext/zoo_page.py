"""The page "Model zoo": from the checkpoints' cards, and what book/tools/zoo.py and the benchmarks measured."""

import json
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

from slotlib.older import modern

ROOT = Path(__file__).parents[2]

ZOO = ("tetrominoes", "shapes", "multi_dsprites", "clevr6")
"""The order of the page; other models follow by name, and failures come last."""
PAPER = {"tetrominoes": 0.995, "multi_dsprites": 0.913, "clevr6": 0.988}
"""FG-ARI that Locatello et al. (2020) report."""
SCENES = {
    "tetrominoes": "[Tetrominoes](#scenes-tetrominoes)",
    "shapes": "[Shapes](#scenes-shapes)",
    "multi_dsprites": "[Multi-dSprites](#scenes-multi-dsprites)",
    "clevr": "[CLEVR-like](#scenes-clevr)",
}


def offer_model_zoo(app: Sphinx, config: Config) -> None:
    """`{{ zoo_table }}`, `{{ zoo_sections }}` and so on: from the cards, and what `book/tools/zoo.py` measured."""
    cards = {path.stem: json.loads(path.read_text("utf-8")) for path in (ROOT / "data/checkpoints").glob("*.json")}
    cards = {name: modern(card) for name, card in cards.items() if "fg_ari" in card["metrics"][0]}
    measured = json.loads((ROOT / "book/assets/zoo/measured.json").read_text("utf-8"))
    # What failed has no curve. A model that was not measured yet gets its section all the same.
    working = [name for name in cards if "iterations" in measured.get(name, {"iterations": {}})]
    working.sort(key=lambda name: (ZOO.index(name) if name in ZOO else len(ZOO), name))
    table = [
        "| model | parameters | training | FG-ARI, one start | best of 4 | the paper |",
        "|---|---:|---|---:|---:|---:|",
    ]
    sections, failures = [], []
    for name in working:
        card, numbers = cards[name], measured.get(name, {})
        one, best = _zoo_metrics(card)
        selected = f"{best['fg_ari']:.3f}" if best else "starts are fixed"
        steps = sum(_zoo_steps(stage) for stage in _zoo_stages(card))
        minutes = sum(stage["wall_seconds"] for stage in _zoo_stages(card)) / 60
        table.append(
            f"| [`{name}`](#zoo-{name}) | {_zoo_parameters(numbers)} | {steps:,} steps, {minutes:.0f} min | "
            f"{one['fg_ari']:.3f} | {selected} | {PAPER.get(name, '–')} |"
        )
        sections += _zoo_section(name, card, numbers)
    for name in sorted(cards.keys() - working):
        failures += _zoo_failure(name, cards[name], measured[name])
    images = " or ".join(sorted({str(card["metrics"][0]["images"]) for card in cards.values()}))
    pieces = {"zoo_images": [images], "zoo_table": table, "zoo_sections": sections, "zoo_failures": failures}
    pieces = {name: "\n".join(lines) for name, lines in pieces.items()}
    config.myst_substitutions = {**config.myst_substitutions, **pieces}


def _zoo_metrics(card: dict) -> tuple[dict, dict | None]:
    """From one start, and the best of four unless starts are fixed."""
    return card["metrics"][0], next((entry for entry in card["metrics"] if "restarts" in entry), None)


def _zoo_mixture(card: dict) -> bool:
    return _zoo_made(card)["likelihood"]["class_path"] == "Mixture"


def _zoo_made(card: dict) -> dict:
    """The configuration of the model that finds objects, also where a prior was learned around it."""
    made = card["configuration"]
    return made["autoencoder"]["init_args"] if "autoencoder" in made else made


def _zoo_parameters(numbers: dict) -> str:
    return f"{numbers['parameters']:,}" if numbers else "not counted yet"


def _zoo_training(card: dict) -> str:
    where = card.get("machine") or ("a CPU" if card["device"] == "cpu" else "a GPU")
    stages = " then ".join(map(_zoo_stage, _zoo_stages(card)))
    return f"Trained for {stages} on {where}; seed {card['training']['seed']}, torch {card['versions']['torch']}."


def _zoo_stages(card: dict) -> list[dict]:
    return [*card.get("before", []), card]


def _zoo_steps(stage: dict) -> int:
    return stage["training"].get("stop_at") or stage["training"]["steps"]


def _zoo_stage(stage: dict) -> str:
    batch = stage["training"]["batch_size"]
    return f"{_zoo_steps(stage):,} steps of {batch} scenes in {stage['wall_seconds'] / 60:.0f} min"


def _zoo_section(name: str, card: dict, numbers: dict) -> list[str]:
    """One model: what it is, its scores, its seeds, its pictures."""
    made, data = _zoo_made(card), card["dataset"]
    slots = made["attention"]
    options = ", ".join(f"`{key}={value}`" for key, value in data["options"].items())
    coded = " with slots made of codes" if "quantizer" in slots else ""
    one, best = _zoo_metrics(card)
    drawn = ["fg_ari_drawn"] if _zoo_mixture(card) else []
    scores = [
        f"| | FG-ARI |{' of drawn masks |' * len(drawn)} ARI | mBO | mIoU | squared error | cost |",
        f"|---|---:|{'---:|' * len(drawn)}---:|---:|---:|---:|---|",
    ]
    for way, entry, cost in (("one start", one, "1 ×"), ("best of 4", best, "4 × slots and decoder")):
        if entry:
            cells = [f"{entry[key]:.3f}" for key in ("fg_ari", *drawn, "ari", "mbo", "miou")] + [f"{entry['mse']:.5f}"]
            scores.append(f"| {way} | {' | '.join(cells)} | {cost} |")
    return [
        f"(zoo-{name})=",
        f"### {name}",
        "",
        f"Object discovery{coded} on {SCENES[data['name']]}{f' ({options})' if options else ''}, at "
        f"{made['resolution']}×{made['resolution']}. {_zoo_parameters(numbers)} parameters in "
        f"{card['bytes'] / 1e6:.2f} MB; {slots['num_slots']} slots, {slots['num_iterations']} iterations. "
        + _zoo_training(card)
        + (" A mixture: `masks` are posteriors; beside them FG-ARI of the drawn masks." if drawn else ""),
        "",
        *scores,
        "",
        *_zoo_seeds(card),
        *_zoo_elsewhere(card),
        *(_zoo_figures(name, card, numbers) if numbers else [f"*No pictures yet: `python book/tools/zoo.py {name}`.*"]),
        "",
    ]


WAYS = {"fg_ari": "one start", "fg_ari_restarts_4": "best of 4", "fg_ari_drawn": "drawn masks"}


def _zoo_elsewhere(card: dict) -> list[str]:
    """How it does on scenes that others made."""
    if "elsewhere" not in card:
        return []
    one, four = card["elsewhere"]
    return [
        f"On {one['images']} scenes from files ({one['scenes']}), none of which it was trained on: "
        f"FG-ARI {one['fg_ari']:.3f} from one start, {four['fg_ari']:.3f} from the best of 4.",
        "",
    ]


def _zoo_seeds(card: dict) -> list[str]:
    """Mean and range over seeds, and behind a fold every one."""
    runs = card["seeds"]
    if len(runs) == 1:
        return ["Of this recipe one seed was trained.", ""]
    ways = [way for way in WAYS if way in runs[0]]
    rows = [
        f"| {run['seed']} | {run['wall_seconds'] / 60:.0f} | {' | '.join(f'{run[way]:.3f}' for way in ways)} |"
        for run in runs
    ]
    return [
        f"Over {len(runs)} seeds: {_zoo_spread(card)}.",
        "",
        "<details><summary>Every seed</summary>",
        "",
        f"| seed | minutes | {' | '.join(WAYS[way] for way in ways)} |",
        f"|---|---:|{'---:|' * len(ways)}",
        *rows,
        "",
        "</details>",
        "",
    ]


def _zoo_spread(card: dict, but: str = "") -> str:
    """Mean and range of each way, `but` one, to score the seeds: "one start 0.966 (0.947 to 0.991), ..."."""
    parts = []
    for way in (way for way in WAYS if way in card["seeds"][0] and way != but):
        scores = [run[way] for run in card["seeds"]]
        span = f" ({min(scores):.3f} to {max(scores):.3f})" if len(scores) > 1 else ""
        parts.append(f"{WAYS[way]} {sum(scores) / len(scores):.3f}{span}")
    return ", ".join(parts)


def _zoo_figures(name: str, card: dict, numbers: dict) -> list[str]:
    slots = _zoo_made(card)["attention"]
    trained, steps = slots["num_slots"], slots["num_iterations"]
    curves = [
        f"with {slots} slots it goes from {scores[0]:.2f} after one iteration through {scores[steps - 1]:.2f} after "
        f"{steps} to {scores[-1]:.2f} after {len(scores)}"
        for slots, scores in sorted(numbers["iterations"].items(), key=lambda curve: abs(int(curve[0]) - trained))
    ]
    count = len(card["seeds"])
    return [
        f"```{{figure}} assets/zoo/{name}_scores.png",
        f":name: fig-zoo-{name}-scores",
        f":alt: Two plots of FG-ARI. Left, {count} seed{'s' * (count > 1)}: {_zoo_spread(card, but='fg_ari_drawn')}. "
        f"Right, against iterations: {'; '.join(curves)}.",
        "",
        f"`{name}`: seeds, and iterations at test time ({numbers['images']} fresh scenes, one start).",
        "```",
        "",
        *_zoo_scenes(name, card, numbers),
    ]


def _zoo_scenes(name: str, card: dict, numbers: dict) -> list[str]:
    *first, last = numbers["scenes"]
    worst = last if "worst_of" in last else None
    chosen = first if worst else numbers["scenes"]
    rows = [f"scene {row['scene']}, {row['objects']} objects, FG-ARI {row['fg_ari']:.2f}" for row in chosen]
    if worst:
        rows.append(
            f"the worst of {worst['worst_of']}, scene {worst['scene']}, {worst['objects']} objects, "
            f"FG-ARI {worst['fg_ari']:.2f}"
        )
    masks = "the masks in colour" + (", the masks as they were drawn" if _zoo_mixture(card) else "")
    caption = f"`{name}`: the first {len(chosen)} scenes"
    caption += f", and the worst of the first {worst['worst_of']}." if worst else "."
    return [
        f"```{{figure}} assets/zoo/{name}_scenes.png",
        f":name: fig-zoo-{name}-scenes",
        f":alt: Rows of pictures: image, sum of slots, {masks}, then each slot. The rows: {'; '.join(rows)}.",
        "",
        caption,
        "```",
        "",
    ]


def _zoo_failure(name: str, card: dict, numbers: dict) -> list[str]:
    one = card["metrics"][0]
    return [
        f"(zoo-{name})=",
        f"### {name}",
        "",
        f"Object discovery on {SCENES[card['dataset']['name']]}. {_zoo_training(card)} "
        f"FG-ARI {one['fg_ari']:.3f}, ARI {one['ari']:.3f}, squared error {one['mse']:.5f}."
        + (f" Over {len(card['seeds'])} seeds: {_zoo_spread(card)}." if len(card["seeds"]) > 1 else ""),
        "",
        *_zoo_scenes(name, card, numbers),
    ]


BASELINES = {
    "recipe": "the recipe",
    "k_means": "*k*-means, colour and position",
    "slot_mlp": "Slot MLP",
    "one_slot": "a single slot",
    "paper": "the paper's architecture",
}


def offer_baselines(app: Sphinx, config: Config) -> None:
    """`{{ baselines }}`: a table for each dataset of what `python -m benchmarks.baselines` measured."""
    rows = json.loads((ROOT / "benchmarks/baselines.json").read_text("utf-8"))["rows"]
    lines = []
    for dataset in [dataset for dataset in ZOO if f"{dataset} recipe" in rows]:
        lines += [
            f"**{dataset}**",
            "",
            "| | FG-ARI | mBO | squared error | minutes | steps | parameters |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        for contestant, called in BASELINES.items():
            row = rows[f"{dataset} {contestant}"]
            lines.append(f"| {called} | {row['fg_ari']:.3f} | {row['mbo']:.3f} | {_baseline_cost(row)} |")
        lines.append("")
    config.myst_substitutions = {**config.myst_substitutions, "baselines": "\n".join(lines)}


def _baseline_cost(row: dict) -> str:
    """Error, minutes, steps and parameters; k-means learns nothing."""
    if "mse" not in row:
        return f"– | – | {1e3 * row['seconds_per_image']:.0f} ms an image | –"
    return f"{row['mse']:.5f} | {row['minutes']:.1f} | {row['steps']:,} | {row['parameters']:,}"


THRESHOLDS = {"ap_inf": "∞", "ap_1": "1", "ap_0_5": "0.5", "ap_0_25": "0.25", "ap_0_125": "0.125"}
"""A card's names of average precision → within how many metres."""


def offer_sets(app: Sphinx, config: Config) -> None:
    """`{{ zoo_sets }}`: the models that predict sets, a section each."""
    lines: list[str] = []
    for path in sorted((ROOT / "data/checkpoints").glob("*.json")):
        card = modern(json.loads(path.read_text("utf-8")))
        if card["model"] != "SetPredictor":
            continue
        made = card["configuration"]
        slots = made["attention"]
        options = ", ".join(f"`{key}={value}`" for key, value in card["dataset"]["options"].items())
        stages = (stage["training"] for stage in [*card.get("before", []), card])
        source = next((stage["start_from"] for stage in stages if stage.get("start_from")), "")
        rows = [(f"{card['metrics'][0]['images']} fresh scenes", card["metrics"][0])]
        rows += [(f"seed {run['seed']}", run) for run in card["seeds"][1:]]
        for entry in card.get("elsewhere", []):
            rows.append((f"{entry['images']} scenes from files ({entry['scenes']})", entry))
        lines += [
            f"(zoo-{path.stem})=",
            f"### {path.stem}",
            "",
            f"Sets of properties on {SCENES[card['dataset']['name']]} ({options}), at {made['resolution']}×"
            f"{made['resolution']}; {slots['num_slots']} slots, {slots['num_iterations']} iterations, "
            f"{card['bytes'] / 1e6:.2f} MB. {_zoo_training(card)}"
            + (f" It started from the weights of `{source}`." if source else ""),
            "",
            f"| average precision within | {' m | '.join(THRESHOLDS.values())} m |",
            f"|---|{'---:|' * len(THRESHOLDS)}",
            *(f"| {called} | {' | '.join(f'{entry[name]:.3f}' for name in THRESHOLDS)} |" for called, entry in rows),
            "",
        ]
    config.myst_substitutions = {**config.myst_substitutions, "zoo_sets": "\n".join(lines)}


KINDS = {
    "other data": "other data",
    "slots dreamt": "dreamt slots",
    "patches dreamt": "dreamt patches",
    "slots thrown together": "slots thrown together",
    "slots redrawn": "data redrawn from slots",
    "patches redrawn": "data redrawn from patches",
}


def offer_codes(app: Sphinx, config: Config) -> None:
    """`{{ zoo_codes }}`: models whose latents are codes, as `python -m benchmarks.dreams` measured them."""
    path = ROOT / "benchmarks/dreams.json"
    measured = json.loads(path.read_text("utf-8")) if path.exists() else {"datasets": {}}
    lines = [] if measured["datasets"] else ["*Not measured yet.*"]
    for dataset, numbers in measured["datasets"].items():
        lines += _zoo_codes(dataset, numbers, measured["scenes"])
    config.myst_substitutions = {**config.myst_substitutions, "zoo_codes": "\n".join(lines)}


def _zoo_codes(dataset: str, numbers: dict, scenes: int) -> list[str]:
    """Slots and patches of one dataset, side by side."""
    names = f"svq_{dataset}", f"patches_{dataset}"
    slots, patches = (modern(json.loads((ROOT / f"data/checkpoints/{name}.json").read_text("utf-8"))) for name in names)
    attention, cut = _zoo_made(slots)["attention"], _zoo_made(patches)
    grid, count = (cut["resolution"] // cut["patch"]) ** 2, attention["num_slots"]
    blocks, patch_codes = (each["quantizer"]["init_args"] for each in (attention, cut))
    sizes = (
        (count * blocks["num_blocks"], blocks["num_codes"]),
        (grid * patch_codes["num_blocks"], patch_codes["num_codes"]),
    )
    cells = []
    for called, card, (tokens, codes) in zip(("slots", "patches"), (slots, patches), sizes, strict=True):
        scores = card["metrics"][0]
        found = f"{scores['fg_ari']:.3f}" if "fg_ari" in scores else "–"
        cells.append(
            f"| {called} | {tokens} of {codes} | {found} | {scores['mse']:.5f} | {scores['utilisation']:.0%} "
            f"| {scores['nats'] / 0.6931:.0f} | {card['bytes'] / 1e6:.2f} |"
        )
    judged = [
        f"| {KINDS.get(row['first'], row['first'])} | {KINDS[row['second']]} | {_zoo_judges(row['properties'])} "
        f"| {_zoo_judges(row['pixels'])} |"
        for row in numbers["judges"]
    ]
    words = numbers["information"]
    best = ", ".join(f"{name} {max(each):.2f} (block {each.index(max(each))})" for name, each in words.items())
    counts = "; ".join(f"{kind} {value:.3f}" for kind, value in numbers["count_variation"].items())
    fg_ari = numbers["fg_ari"]
    return [
        f"(zoo-{names[1]})=",
        f"### {names[0]} and {names[1]}",
        "",
        f"{SCENES[dataset]} as {count} slots of {blocks['num_blocks']} blocks "
        f"([`{names[0]}`](#zoo-{names[0]})), and as {grid} patches. "
        + _zoo_training(patches).replace("Trained", "These were trained"),
        "",
        "| | tokens a scene | FG-ARI | squared error | codes in use | bits a scene | MB |",
        "|---|---|---:|---:|---:|---:|---:|",
        *cells,
        "",
        f"Without codes the same scenes give FG-ARI {fg_ari['continuous']:.3f} (`{dataset}`), with codes "
        f"{fg_ari['codes']:.3f}. What the blocks know of an object's properties, as normalised mutual information, "
        f"the best block of each: {best}.",
        "",
        f"```{{figure}} assets/benchmarks/words_{dataset}.png",
        f":name: fig-zoo-words-{dataset}",
        f":alt: Table of properties by blocks, coloured by normalised mutual information. Best: {best}.",
        "",
        f"`{names[0]}`: how much each block says about each property, from 0 to 1.",
        "```",
        "",
        f"How far the number of objects in dreams is from that in data, as total variation (0 the same, 1 nothing in "
        f"common), of {scenes:,} scenes each: {counts}.",
        "",
        "| judges tell | from | by properties | by pixels |",
        "|---|---|---:|---:|",
        *judged,
        "",
        f"```{{figure}} assets/benchmarks/dreams_{dataset}.png",
        f":name: fig-zoo-dreams-{dataset}",
        ":alt: Six rows of pictures: data; the same redrawn from slots, and from patches; scenes dreamt as slots, and "
        "as patches; slots thrown together.",
        "",
        f"`{names[0]}` and `{names[1]}`: the first scenes of each kind.",
        "```",
        "",
    ]


def _zoo_judges(scores: list[float]) -> str:
    """The mean over judges, and their range."""
    return f"{sum(scores) / len(scores):.2f} ({min(scores):.2f} to {max(scores):.2f})"


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", offer_model_zoo)
    app.connect("config-inited", offer_baselines)
    app.connect("config-inited", offer_sets)
    app.connect("config-inited", offer_codes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
