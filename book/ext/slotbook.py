"""What the book's pages need from Sphinx beyond Jupyter Book's own settings."""

import json
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


def offer_benchmarks(app: Sphinx, config: Config) -> None:
    """`{{ benchmarks }}` becomes the tables that `make bench` measured."""
    lines = []
    for name, result in json.loads((ROOT / "benchmarks/results.json").read_text("utf-8")).items():
        machine = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
        title = {"svq": "SVQ", "clevr": "CLEVR"}.get(name, name.replace("_", " ").capitalize())
        lines += [f"**{title}** ({machine})", ""]
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


def offer_scaling(app: Sphinx, config: Config) -> None:
    """`{{ scaling }}` becomes the tables of `python -m benchmarks.scaling`, one for each model."""
    path = ROOT / "benchmarks/scaling.json"
    measured = json.loads(path.read_text("utf-8")) if path.exists() else {"machine": {}, "rows": {}}
    rows, lines = measured["rows"], ["*Not measured yet.*"]
    if rows:
        lines = [
            f"({', '.join(f'{key} {value}' for key, value in measured['machine'].items())})",
            "",
        ]
        for family, title, unit, scale, digits in (
            ("first", "the recipe of slotlib 0.1", "ms", 1, 0),
            ("paper", "the paper's model", "s", 1e3, 1),
        ):
            lines += ["", f"| {title} | {unit} a step | scenes/s | start, s | MB |", f"|---|{'---:|' * 4}"]
            for name, row in rows.items():
                if name.startswith(f"{family}: "):
                    cells = f"{row['ms'] / scale:.{digits}f}", f"{row['scenes_per_second']:.{digits}f}"
                    cells += f"{row['start']:.0f}", f"{row['memory']:,.0f}"
                    lines.append(f"| {name.removeprefix(f'{family}: ')} | {' | '.join(cells)} |")
    config.myst_substitutions = {**config.myst_substitutions, "scaling": "\n".join(lines)}


def offer_gpu(app: Sphinx, config: Config) -> None:
    """`{{ gpu }}` becomes the table of `make gpu`."""
    path, lines = ROOT / "benchmarks/gpu.json", ["*Not measured yet.*"]
    if path.exists():
        measured = json.loads(path.read_text("utf-8"))
        lines = [f"({', '.join(f'{key} {value}' for key, value in measured['machine'].items())})", ""]
        lines += ["| | | |", "|---|---:|---|"]
        lines += [f"| {row['what']} | {row['value']:,g} | {row['unit']} |" for row in measured["rows"]]
    config.myst_substitutions = {**config.myst_substitutions, "gpu": "\n".join(lines)}


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


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", offer_only_live_buttons)
    app.connect("config-inited", offer_measured_times)
    app.connect("config-inited", offer_benchmarks)
    app.connect("config-inited", offer_speedrun)
    app.connect("config-inited", offer_scaling)
    app.connect("config-inited", offer_gpu)
    app.connect("config-inited", offer_scenes)
    app.connect("doctree-read", keep_equation_tags)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
