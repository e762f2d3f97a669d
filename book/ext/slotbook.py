"""What the book's pages need from Sphinx beyond Jupyter Book's own settings."""

import json
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

ROOT = Path(__file__).parents[2]


def offer_only_live_buttons(app: Sphinx, config: Config) -> None:
    """Buttons that lead to the repository exist only once its address is known.

    The address is written in one place, `repository: url:` of _config.yml. Colab opens notebooks
    from GitHub alone, so its button also needs an address there.
    """
    options = config.html_theme_options
    address = options.get("repository_url") or ""
    if not address:
        options.pop("repository_url", None)
    if not address.startswith("https://github.com/"):
        options.pop("launch_buttons", None)
    options["use_repository_button"] = bool(address)
    options["use_issues_button"] = bool(address)


def offer_measured_times(app: Sphinx, config: Config) -> None:
    """`{{ chapter_times }}` in a page becomes a table of what `make execute` measured."""
    timings = json.loads((ROOT / "slotlib/timings.json").read_text("utf-8")) if _timed() else {}
    rows = ["| chapter | CPU | GPU |", "|---|---|---|"]
    for notebook in sorted((ROOT / "chapters").glob("[0-9][0-9]_*.ipynb")):
        measured = timings.get(notebook.stem, {})
        # From book/, where the pages that use this table live.
        link = f"[](../chapters/{notebook.name})"
        rows.append(f"| {link} | {_time(measured.get('cpu'))} | {_time(measured.get('gpu'))} |")
    config.myst_substitutions = {**config.myst_substitutions, "chapter_times": "\n".join(rows)}


def _timed() -> bool:
    return (ROOT / "slotlib/timings.json").exists()


def _time(entry: dict | None) -> str:
    if not entry:
        return "not measured yet"
    machine = entry["processor"] if entry.get("cores") is None else f"{entry['cores']} cores"
    return f"{entry['seconds']} s ({machine})"


# --- the page "Model zoo" ---------------------------------------------------------------------

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
    cards = {name: card for name, card in cards.items() if card["model"] == "SlotAutoencoder"}
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
        table.append(
            f"| [`{name}`](#zoo-{name}) | {_zoo_parameters(numbers)} | {card['training']['steps']:,} steps, "
            f"{card['wall_seconds'] / 60:.0f} min | {one['fg_ari']:.3f} | {selected} | {PAPER.get(name, '–')} |"
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
    return card["configuration"].get("likelihood") == "mixture"


def _zoo_parameters(numbers: dict) -> str:
    return f"{numbers['parameters']:,}" if numbers else "not counted yet"


def _zoo_training(card: dict) -> str:
    where = card.get("machine") or ("a CPU" if card["device"] == "cpu" else "a GPU")
    training, minutes = card["training"], card["wall_seconds"] / 60
    return (
        f"Trained for {training['steps']:,} steps of {training['batch_size']} scenes in {minutes:.0f} min on {where}; "
        f"seed {training['seed']}, torch {card['versions']['torch']}."
    )


def _zoo_section(name: str, card: dict, numbers: dict) -> list[str]:
    """One model: what it is, its scores, its seeds, its pictures."""
    made, data = card["configuration"], card["dataset"]
    options = ", ".join(f"`{key}={value}`" for key, value in data["options"].items())
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
        f"Object discovery on {SCENES[data['name']]}{f' ({options})' if options else ''}, at "
        f"{made['resolution']}×{made['resolution']}. {_zoo_parameters(numbers)} parameters in "
        f"{card['bytes'] / 1e6:.2f} MB; {made['num_slots']} slots, {made['num_iterations']} iterations. "
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
    trained = card["configuration"]["num_slots"]
    steps = card["configuration"]["num_iterations"]
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


# --- the other generated pages ----------------------------------------------------------------


def offer_benchmarks(app: Sphinx, config: Config) -> None:
    """`{{ benchmarks }}` becomes the tables that `make bench` measured."""
    lines = []
    for name, result in json.loads((ROOT / "benchmarks/results.json").read_text("utf-8")).items():
        machine = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
        lines += [f"**{name.replace('_', ' ').capitalize()}** ({machine})", ""]
        lines += ["| | against | slotlib | peer | unit | times better | goal |", "|---|---|---:|---:|---|---:|---:|"]
        for row in result["rows"]:
            goal = "" if row["goal"] is None else f"{row['goal']:g} ({'met' if row['met'] else 'not met'})"
            lines.append(
                f"| {row['what']} | {row['peer_name']} | {row['slotlib']:,g} | {row['peer']:,g} | {row['unit']} "
                f"| {row['times']:g} | {goal} |"
            )
        lines.append("")
    config.myst_substitutions = {**config.myst_substitutions, "benchmarks": "\n".join(lines)}


def offer_speedrun(app: Sphinx, config: Config) -> None:
    """`{{ speedrun }}` becomes the table and the figure of `python -m benchmarks.speedrun`, as far as it has got."""
    results, picture = ROOT / "benchmarks/speedrun.json", ROOT / "book/assets/benchmarks/speedrun.png"
    measured = json.loads(results.read_text("utf-8")) if results.exists() else {"runs": {}}
    lines = [] if measured["runs"] else ["*Not measured yet.*"]
    if measured["runs"]:
        for heading, *rows in measured["tables"]:
            lines += [f"| {' | '.join(cells)} |" for cells in (heading, ["---"] * len(heading), *rows)] + [""]
        lines += [part for note in measured["notes"] for part in (note, "")]
    if measured["runs"] and picture.exists():
        caption = "Seconds to each level. Every seed is a dot, the median a bar, the goals are dotted."
        lines += [f"```{{figure}} assets/benchmarks/{picture.name}", f":alt: {measured['alt']}", "", caption]
        lines += ["A hollow triangle is a seed that had not reached the level when its run ended.", "```"]
    config.myst_substitutions = {**config.myst_substitutions, "speedrun": "\n".join(lines)}


def offer_scenes(app: Sphinx, config: Config) -> None:
    """`{{ rate_NAME }}`: scenes per second from the benchmarks. `{{ likeness }}`: how close CLEVR-like comes."""
    rates = {}
    for result in json.loads((ROOT / "benchmarks/results.json").read_text("utf-8")).values():
        for row in result["rows"]:
            if row["unit"] == "scenes/s":
                name = row["what"].split()[0].lower().replace("-", "_")  # "Multi-dSprites 64×64"
                rates[f"rate_{name}"] = f"{row['slotlib']:,.0f}"
    config.myst_substitutions = {**config.myst_substitutions, **rates, "likeness": _likeness()}


def _likeness() -> str:
    measured = json.loads((ROOT / "benchmarks/likeness.json").read_text("utf-8"))
    same, fresh = measured["same_scenes"], measured["slotlib_fresh"]

    def row(name: str, of: dict) -> str:
        colours = (f"{mean:.1f} ± {sd:.1f}" for mean, sd in zip(of["mean"], of["sd"], strict=True))
        pixels = " / ".join(f"{count:,.0f}" for count in of["object_pixels"])
        return f"| {name} | {' | '.join(colours)} | {pixels} |"

    lines = [
        f"Over these {measured['scenes']} scenes and {measured['objects']} objects the masks overlap by "
        f"{same['mask_iou']['mean']:.3f} on average (intersection over union; the least is "
        f"{same['mask_iou']['least']:.3f}), and a pixel differs by {same['absolute_difference']:.1f} of 255, "
        f"on objects by {same['on_objects']:.1f}.",
        "",
        "| of 255; mean ± spread over pixels | red | green | blue | visible pixels of an object: 10, 50, 90 % |",
        "|---|---|---|---|---|",
        row(f"Blender, {measured['scenes']} scenes", measured["blender"]),
        row("the same, drawn again", measured["slotlib"]),
        row(f"{fresh['scenes']} other scenes", fresh),
    ]
    return "\n".join(lines)


def keep_equation_tags(app: Sphinx, doctree: nodes.document) -> None:
    r"""Give MathJax `\tag{…}` equations as they are.

    Sphinx puts display equations that contain `\\` into a `split` environment, where `\tag` is an
    error. Blocks of class `amsmath` are passed on untouched.
    """
    for block in doctree.findall(nodes.math_block):
        if r"\tag" in block.astext():
            block["classes"].append("amsmath")


def keep_widget_descriptions(app: Sphinx, doctree: nodes.document) -> None:
    """Leave the alt text of a cell that shows a widget where book.js finds it.

    MyST-NB gives `mystnb: {image: {alt: …}}` to images only, and an Image widget has no field for it.
    """
    for cell in doctree.findall(nodes.container):
        metadata = cell.get("cell_metadata", {})
        alt = metadata.get("mystnb", {}).get("image", {}).get("alt")
        if alt and "widget-live" in metadata.get("tags", []):
            cell += nodes.raw("", f'<template class="widget-alt">{escape(alt)}</template>', format="html")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", offer_only_live_buttons)
    app.connect("config-inited", offer_measured_times)
    app.connect("config-inited", offer_model_zoo)
    app.connect("config-inited", offer_benchmarks)
    app.connect("config-inited", offer_speedrun)
    app.connect("config-inited", offer_scenes)
    app.connect("doctree-read", keep_equation_tags)
    app.connect("doctree-read", keep_widget_descriptions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
