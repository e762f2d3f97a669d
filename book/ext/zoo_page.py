"""The page "Model zoo": from the checkpoints' cards, and what book/tools/zoo.py and the benchmarks measured."""

import csv
import json
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

from slotlib.older import modern

ROOT = Path(__file__).parents[2]

ZOO = ("tetrominoes", "shapes", "multi_dsprites", "clevr6")
"""The order of the page; other models follow by name, and what is kept on purpose comes last."""
PAPER = {"tetrominoes": 0.995, "multi_dsprites": 0.913, "clevr6": 0.988}
"""FG-ARI of drawn masks that Locatello et al. (2020) report."""
RULES = {"k_means": "*k*-means, colour", "colour_lookup": "colour lookup", "tiles": "tiles"}
"""What has learned nothing, as cards call it."""
SCENES = {
    "tetrominoes": "[Tetrominoes](#scenes-tetrominoes)",
    "shapes": "[Shapes](#scenes-shapes)",
    "multi_dsprites": "[Multi-dSprites](#scenes-multi-dsprites)",
    "clevr": "[CLEVR-like](#scenes-clevr)",
}


def offer_model_zoo(app: Sphinx, config: Config) -> None:
    """`{{ zoo_table }}`, `{{ zoo_sections }}` and so on: from the cards, and what `book/tools/zoo.py` measured."""
    cards = {path.stem: json.loads(path.read_text("utf-8")) for path in (ROOT / "data/checkpoints").glob("*.json")}
    cards = {name: modern(card) for name, card in cards.items()}
    cards = {name: card for name, card in cards.items() if "drawn_fg_ari" in card["metrics"][0]}
    measured = json.loads((ROOT / "book/assets/zoo/measured.json").read_text("utf-8"))
    # What is kept on purpose has no curve. A model that was not measured yet gets its section all the same.
    working = [name for name in cards if "iterations" in measured.get(name, {"iterations": {}})]
    working.sort(key=lambda name: (ZOO.index(name) if name in ZOO else len(ZOO), name))
    table = [
        "| model | training | FG-ARI, drawn | the paper | posterior | without learning |",
        "|---|---|---:|---:|---:|---:|",
    ]
    sections, failures = [], []
    for name in working:
        card, numbers = cards[name], measured.get(name, {})
        one = card["metrics"][0]
        posterior = f"{one['posterior_fg_ari']:.3f}" if "posterior_fg_ari" in one else "–"
        steps = sum(_zoo_steps(stage) for stage in _zoo_stages(card))
        minutes = sum(stage["wall_seconds"] for stage in _zoo_stages(card)) / 60
        table.append(
            f"| [`{name}`](#zoo-{name}) | {steps:,} steps, {minutes:.0f} min | "
            f"{one['drawn_fg_ari']:.3f} | {PAPER.get(name, '–')} | {posterior} | {_zoo_best_rule(card)} |"
        )
        sections += _zoo_section(name, card, numbers)
    for name in sorted(cards.keys() - working):
        failures += _zoo_failure(name, cards[name], measured[name])
    images = " or ".join(sorted({str(card["metrics"][0]["images"]) for card in cards.values()}))
    pieces = {"zoo_images": [images], "zoo_table": table, "zoo_sections": sections, "zoo_failures": failures}
    pieces = {name: "\n".join(lines) for name, lines in pieces.items()}
    config.myst_substitutions = {**config.myst_substitutions, **pieces}


def offer_protocol(app: Sphinx, config: Config) -> None:
    """`{{ protocol }}`: FG-ARI of the zoo's models, by their masks, beside rules that have learned nothing."""
    lines = [
        f"| | slots | drawn | posterior | {' | '.join(RULES.values())} |",
        f"|---|---:|---:|---:|{'---:|' * len(RULES)}",
    ]
    for name in ZOO:
        card = modern(json.loads((ROOT / f"data/checkpoints/{name}.json").read_text("utf-8")))
        one, rules = card["metrics"][0], card.get("baselines", {})
        scores = [
            one.get("drawn_fg_ari"),
            one.get("posterior_fg_ari"),
            *(rules.get(f"{rule}_fg_ari") for rule in RULES),
        ]
        cells = " | ".join("–" if score is None else f"{score:.3f}" for score in scores)
        slots = _zoo_made(card)["attention"]["num_slots"]
        lines.append(f"| [`{name}`](#zoo-{name}) | {slots} | {cells} |")
    config.myst_substitutions = {**config.myst_substitutions, "protocol": "\n".join(lines)}


def _zoo_best_rule(card: dict) -> str:
    scores = {rule: card["baselines"][f"{rule}_fg_ari"] for rule in RULES} if "baselines" in card else {}
    best = max(scores, key=scores.__getitem__, default=None)
    return f"{scores[best]:.3f} ({RULES[best]})" if best else "not measured yet"


def _zoo_kinds(card: dict) -> list[str]:
    """The masks of a model that are scored."""
    return [kind for kind in ("drawn", "posterior") if f"{kind}_fg_ari" in card["metrics"][0]]


def _zoo_made(card: dict) -> dict:
    """The configuration of the model that finds objects, also where a prior was learned around it."""
    made = card["configuration"]
    return made["autoencoder"]["init_args"] if "autoencoder" in made else made


def _zoo_parameters(numbers: dict) -> str:
    return f"{numbers['parameters']:,}" if numbers else "not counted yet"


def _zoo_training(card: dict) -> str:
    where = card.get("machine") or ("a CPU" if card["device"] == "cpu" else "a GPU")
    stages = ", then ".join(map(_zoo_stage, _zoo_stages(card)))
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
    coded = " with slots made of codes" if "quantizer" in slots else ""
    scores = ["| | starts | FG-ARI | ARI | mBO | mIoU | squared error |", "|---|---|---:|---:|---:|---:|---:|"]
    for kind in _zoo_kinds(card):
        for entry in card["metrics"]:
            starts = f"best of {entry['restarts']}" if "restarts" in entry else "one"
            scores.append(f"| {kind} masks | {starts} | {_zoo_scores(entry, kind)} | {entry['mse']:.5f} |")
    for rule, called in RULES.items():
        if "baselines" in card:
            scores.append(f"| {called} | | {_zoo_scores(card['baselines'], rule)} | |")
    return [
        f"(zoo-{name})=",
        f"### {name}",
        "",
        f"Object discovery{coded} on {SCENES[data['name']]}{_zoo_options(card)}, at "
        f"{made['resolution']}×{made['resolution']}. {_zoo_parameters(numbers)} parameters in "
        f"{card['bytes'] / 1e6:.2f} MB; {slots['num_slots']} slots, {slots['num_iterations']} iterations. "
        + _zoo_training(card),
        "",
        *scores,
        "",
        *_zoo_counts(card),
        *_zoo_seeds(card),
        *_zoo_robustness(name, card),
        *_zoo_elsewhere(card),
        *(_zoo_figures(name, card, numbers) if numbers else [f"*No pictures yet: `python book/tools/zoo.py {name}`.*"]),
        "",
    ]


def _zoo_scores(entry: dict, kind: str) -> str:
    """The four scores of masks as cells of a table, a dash for those that a card of before lacks."""
    scores = [entry.get(f"{kind}_{name}") for name in ("fg_ari", "ari", "mbo", "miou")]
    return " | ".join("–" if score is None else f"{score:.3f}" for score in scores)


ROBUST = {
    "drawn_fg_ari": "FG-ARI, drawn",
    "posterior_fg_ari": "FG-ARI, posterior",
    "ap_inf": "Average precision within ∞ m",
}


def _zoo_robustness(name: str, card: dict) -> list[str]:
    """What `python -m benchmarks.robustness` measured, behind a fold; what is worst is said before."""
    path = ROOT / "data/runs/robustness.csv"
    lines = list(csv.DictReader(path.open(newline="", encoding="utf-8"))) if path.exists() else []
    lines = [line for line in lines if line["model"] == name and line["sha256"] == card["sha256"]]
    if not lines:
        return []
    scores = {score: called for score, called in ROBUST.items() if lines[0].get(score)}
    leading, called = next(iter(scores.items()))
    worst = min(lines, key=lambda line: float(line[leading]))
    rows = []
    for line in lines:
        rows.append(
            f"| {line['change']} | {' | '.join(f'{float(line[score]):.3f}' for score in scores)} | {line['images']} |"
        )
    return [
        f"**Changed pictures.** {called}: {float(lines[0][leading]):.3f} as they are; worst is *{worst['change']}*, "
        f"with {float(worst[leading]):.3f}.",
        "",
        "<details><summary>Every change</summary>",
        "",
        f"| scenes | {' | '.join(scores.values())} | images |",
        f"|---|{'---:|' * len(scores)}---:|",
        *rows,
        "",
        "</details>",
        "",
    ]


def _zoo_counts(card: dict) -> list[str]:
    """How well a model that keeps and drops slots counts; of several seeds the range."""
    one = card["metrics"][0]
    if "count_error" not in one:
        return []
    errors = [run["count_error"] for run in card["seeds"] if "count_error" in run]
    body = ""
    if card["configuration"].get("frozen"):
        body = f" All else is `{card['training']['start_from']}`, frozen: the seeds are of the decision alone."
    return [
        f"Kept slots, less one for the background, miss the number of objects by {one['count_error']:.2f} on average "
        f"and hit it in {one['count_exact']:.0%} of the scenes (seeds: {min(errors):.3f} to {max(errors):.3f}).{body} "
        "[Chapter 9](../chapters/09_how_many_slots.ipynb) is about the decision.",
        "",
    ]


WAYS = {
    "drawn_fg_ari": "drawn",
    "posterior_fg_ari": "posterior",
    "drawn_fg_ari_restarts_4": "drawn, best of 4",
    "posterior_fg_ari_restarts_4": "posterior, best of 4",
}
"""The scores of a seed, as cards call them. Cards of before lack some."""


def _zoo_elsewhere(card: dict) -> list[str]:
    """How it does on scenes that others made."""
    if "elsewhere" not in card:
        return []
    one = card["elsewhere"][0]
    scores = " and ".join(f"{one[f'{kind}_fg_ari']:.3f} of {kind} masks" for kind in _zoo_kinds(card))
    return [
        f"On {one['images']} scenes from files ({one['scenes']}), none of which it was trained on, from one start: "
        f"FG-ARI {scores}.",
        "",
    ]


def _zoo_seeds(card: dict) -> list[str]:
    """Mean and range over seeds, and behind a fold every one."""
    runs = card["seeds"]
    if len(runs) == 1:
        return ["Of this recipe one seed was trained.", ""]
    ways = _zoo_ways(card)
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


def _zoo_ways(card: dict) -> list[str]:
    """The ways in which every seed was scored."""
    return [way for way in WAYS if all(way in run for run in card["seeds"])]


def _zoo_spread(card: dict) -> str:
    """Mean and range over seeds: "drawn 0.966 (0.947 to 0.991), ..."."""
    parts = []
    for way in _zoo_ways(card):
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
        f":alt: Two plots of FG-ARI. Left, {count} seed{'s' * (count > 1)}: {_zoo_spread(card)}. "
        f"Right, of drawn masks against iterations: {'; '.join(curves)}.",
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
    rows = [f"scene {row['scene']}, {row['objects']} objects, FG-ARI {row['drawn_fg_ari']:.2f}" for row in chosen]
    if worst:
        rows.append(
            f"the worst of {worst['worst_of']}, scene {worst['scene']}, {worst['objects']} objects, "
            f"FG-ARI {worst['drawn_fg_ari']:.2f}"
        )
    masks = "the drawn masks in colour" + (", the posterior" if "posterior" in _zoo_kinds(card) else "")
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


def _zoo_options(card: dict) -> str:
    options = ", ".join(f"`{key}={value}`" for key, value in card["dataset"]["options"].items())
    return f" ({options})" if options else ""


def _zoo_failure(name: str, card: dict, numbers: dict) -> list[str]:
    one = card["metrics"][0]
    return [
        f"(zoo-{name})=",
        f"### {name}",
        "",
        f"Object discovery on {SCENES[card['dataset']['name']]}{_zoo_options(card)}. {_zoo_training(card)} "
        f"Its drawn masks have FG-ARI {one['drawn_fg_ari']:.3f} and mBO {one['drawn_mbo']:.3f}; the squared error is "
        f"{one['mse']:.5f}."
        + (f" Over {len(card['seeds'])} seeds: {_zoo_spread(card)}." if len(card["seeds"]) > 1 else ""),
        "",
        *_zoo_scenes(name, card, numbers),
    ]


BASELINES = {
    "recipe": "the recipe",
    "k_means": "*k*-means, colour and position",
    "colour_lookup": "colour lookup",
    "tiles": "tiles",
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
            "| | FG-ARI, drawn | posterior | squared error | minutes | steps | parameters |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        for contestant, called in BASELINES.items():
            row = rows.get(f"{dataset} {contestant}")
            if row:
                # What a rule says of a picture was neither drawn nor given by a posterior.
                scores = [row.get(f"{kind}_fg_ari") for kind in ("drawn", "posterior")]
                cells = ["–" if score is None else f"{score:.3f}" for score in scores]
                if f"{contestant}_fg_ari" in row:
                    cells = ["", f"{row[f'{contestant}_fg_ari']:.3f}"]
                lines.append(f"| {called} | {' | '.join(cells)} | {_baseline_cost(row)} |")
        lines.append("")
    config.myst_substitutions = {**config.myst_substitutions, "baselines": "\n".join(lines)}


def _baseline_cost(row: dict) -> str:
    """Error, minutes, steps and parameters; k-means learns nothing."""
    if "mse" not in row:
        return f"– | {1e3 * row['seconds_per_image']:.1f} ms an image | – | –"
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
            + (f" It started from an earlier training of `{source}`." if source else ""),
            "",
            f"| average precision within | {' m | '.join(THRESHOLDS.values())} m |",
            f"|---|{'---:|' * len(THRESHOLDS)}",
            *(f"| {called} | {' | '.join(f'{entry[name]:.3f}' for name in THRESHOLDS)} |" for called, entry in rows),
            "",
            *_zoo_robustness(path.stem, card),
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
    measured = json.loads(path.read_text("utf-8")) if path.exists() else {"models": {}}
    lines = [] if measured["models"] else ["*Not measured yet.*"]
    for name, numbers in measured["models"].items():
        lines += _zoo_codes(name, numbers, measured["scenes"])
    config.myst_substitutions = {**config.myst_substitutions, "zoo_codes": "\n".join(lines)}


def _zoo_codes(name: str, numbers: dict, scenes: int) -> list[str]:
    """Slots and patches of one dataset, side by side."""
    slots = modern(json.loads((ROOT / f"data/checkpoints/{name}.json").read_text("utf-8")))
    dataset = slots["dataset"]["name"]
    rival = f"patches_{dataset}"
    patches = modern(json.loads((ROOT / f"data/checkpoints/{rival}.json").read_text("utf-8")))
    attention, cut = _zoo_made(slots)["attention"], _zoo_made(patches)
    grid, count, blocks = (cut["resolution"] // cut["patch"]) ** 2, attention["num_slots"], len(numbers["perplexity"])
    slot_codes, patch_codes = (each["quantizer"]["init_args"] for each in (attention, cut))
    sizes = (
        (count * blocks, slot_codes["num_codes"]),
        (grid * patch_codes["num_blocks"], patch_codes["num_codes"]),
    )
    cells = []
    for called, card, (tokens, codes) in zip(("slots", "patches"), (slots, patches), sizes, strict=True):
        scores = card["metrics"][0]
        kinds = [f"{scores[f'{kind}_fg_ari']:.3f}" for kind in ("drawn", "posterior") if f"{kind}_fg_ari" in scores]
        found = " / ".join(kinds) or "–"
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
    best = ", ".join(f"{what} {max(each):.2f} (block {each.index(max(each))})" for what, each in words.items())
    counts = "; ".join(f"{kind} {value:.3f}" for kind, value in numbers["count_variation"].items())
    drawn, posterior = (numbers[f"{kind}_fg_ari"] for kind in ("drawn", "posterior"))
    errors = [run["mse"] for run in patches["seeds"]]
    bits = [run["nats"] / 0.6931 for run in patches["seeds"] if "nats" in run]
    return [
        *([f"(zoo-{rival})="] if name == f"svq_{dataset}" else []),
        f"### {name} and {rival}",
        "",
        f"{SCENES[dataset]} as {count} slots of {blocks} blocks ([`{name}`](#zoo-{name})), and as {grid} patches. "
        + _zoo_training(patches).replace("Trained", "These were trained"),
        "",
        "| | tokens a scene | FG-ARI, drawn / posterior | squared error | codes in use | bits a scene | MB |",
        "|---|---|---:|---:|---:|---:|---:|",
        *cells,
        "",
        f"Over {len(errors)} seeds of the patches the squared error goes from {min(errors):.5f} to {max(errors):.5f}, "
        f"and the bits from {min(bits):.0f} to {max(bits):.0f}.",
        "",
        f"Without codes the drawn masks of the same scenes have FG-ARI {drawn['continuous']:.3f} (`{dataset}`), with "
        f"codes {drawn['codes']:.3f}; the posterior has {posterior['continuous']:.3f} and {posterior['codes']:.3f}. "
        f"What the blocks know of an object's properties, as normalised mutual information, "
        f"the best block of each: {best}.",
        "",
        f"```{{figure}} assets/benchmarks/words_{name}.png",
        f":name: fig-zoo-words-{name}",
        f":alt: Table of properties by blocks, coloured by normalised mutual information. Best: {best}.",
        "",
        f"`{name}`: how much each block says about each property, from 0 to 1.",
        "```",
        "",
        f"How far the number of objects in dreams is from that in data, as total variation (0 the same, 1 nothing in "
        f"common), of {scenes:,} scenes each: {counts}.",
        "",
        "| judges tell | from | by properties | by pixels |",
        "|---|---|---:|---:|",
        *judged,
        "",
        f"```{{figure}} assets/benchmarks/dreams_{name}.png",
        f":name: fig-zoo-dreams-{name}",
        ":alt: Six rows of pictures: data; the same redrawn from slots, and from patches; scenes dreamt as slots, and "
        "as patches; slots thrown together.",
        "",
        f"`{name}` and `{rival}`: the first scenes of each kind.",
        "```",
        "",
    ]


def _zoo_judges(scores: list[float]) -> str:
    """The mean over judges, and their range."""
    return f"{sum(scores) / len(scores):.2f} ({min(scores):.2f} to {max(scores):.2f})"


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", offer_model_zoo)
    app.connect("config-inited", offer_protocol)
    app.connect("config-inited", offer_baselines)
    app.connect("config-inited", offer_sets)
    app.connect("config-inited", offer_codes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
