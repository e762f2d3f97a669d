"""The command line: `slotlib train|sweep|evaluate|data|zoo` (also `python -m slotlib`)."""

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentParser, Namespace
from torch.utils.data import Dataset

from slotlib import data, plots, sweep, training, zoo
from slotlib.data.export import export
from slotlib.data.files import read
from slotlib.data.stats import Statistics, statistics

CONFIGS = Path(__file__).with_name("configs")


def config_names() -> list[str]:
    """The training configurations that ship with slotlib."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def _config_path(name: str) -> str:
    """A packaged configuration's name → its path; paths pass through. `shapes` alone means `shapes_fast`."""
    for path in (Path(name), CONFIGS / f"{name}.yaml", CONFIGS / f"{name}_fast.yaml"):
        if path.is_file():
            return str(path)
    raise SystemExit(f"slotlib: no configuration {name!r}: not a file, and slotlib ships {', '.join(config_names())}")


def _train_parser(model_class: str) -> ArgumentParser:
    """Every field of `training.Config` as a flag, on top of the YAML file. The class of the model says which it has."""
    parser = ArgumentParser(prog="slotlib train", description="Train a model from a configuration.")
    parser.add_argument("--config", action="config", help=f"a YAML file, or one of: {', '.join(config_names())}")
    parser.add_argument("--folder", type=str, required=True, help="where the run lives; an interrupted run goes on")
    parser.add_argument("--resume", type=bool, default=True, help="go on with a run found in the folder")
    parser.add_argument(
        "--model_class", type=Literal[tuple(zoo.MODELS)], default=model_class, help="what the fields of `model` build"
    )
    parser.add_class_arguments(zoo.MODELS[model_class][1], "model")
    parser.add_class_arguments(training.DataConfig, "data")
    parser.add_class_arguments(training.TrainConfig, "train")
    return parser


def _model_class(arguments: Sequence[str]) -> str:
    """The class of model that arguments of `slotlib train` ask for, by flag or, before that, in a YAML file.

    What cannot be read or is unknown is left to the parser, which says what is wrong.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", action="append", nargs="?", default=[])
    first.add_argument("--model_class", nargs="?")
    asked, _ = first.parse_known_args(arguments)
    name = None
    for path in filter(None, asked.config):
        with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
            name = content.get("model_class", name) if isinstance(content, dict) else name
    name = asked.model_class or name
    return name if name in zoo.MODELS else "SlotAutoencoder"


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _field_and_values(text: str) -> tuple[str, list[str]]:
    field, equals, values = text.partition("=")
    if not (field and equals and values):
        raise argparse.ArgumentTypeError(f"expected FIELD=VALUE,VALUE,…, such as train.lr=1e-3,2e-3, got {text!r}")
    return field, values.split(",")


def _sweep_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slotlib sweep",
        description="Train several seeds, or one field changed, side by side, and print a table of their scores. "
        "Finished runs are not repeated.",
        epilog="Any other flag is one of `slotlib train`, for all runs: --train.minutes 5",
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help=f"a YAML file, or one of: {', '.join(config_names())}")
    parser.add_argument("--folder", type=Path, required=True, help="of the sweep; every run has its own folder in it")
    parser.add_argument("--seeds", type=_numbers, default=[0], help="such as 0,1,2,3,4")
    parser.add_argument("--vary", type=_field_and_values, default=("", [""]), help="such as train.lr=1e-3,2e-3")
    parser.add_argument("--jobs", type=int, default=0, help="runs at a time; by default one per core")
    return parser


def _evaluate_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="slotlib evaluate", description="Score a trained model on fresh scenes.")
    parser.add_argument("checkpoint", type=str, help="a shipped name or a path")
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--scenes_seed", type=int, default=0, help="which generated scenes; training never uses seed 0")
    parser.add_argument("--noise_seed", type=int, default=0, help="of the slots' initial noise")
    parser.add_argument("--restarts", type=int | None, default=None, help="initialisations tried per image")
    parser.add_argument("--num_slots", type=int | None, default=None)
    parser.add_argument("--num_iterations", type=int | None, default=None)
    parser.add_argument("--num_objects", type=int | None, default=None, help="other than it was trained with")
    parser.add_argument("--data", type=str | None, default=None, help="a file or folder of other scenes to score on")
    parser.add_argument(
        "--options", type=dict[str, Any], default={}, help="of its reader, such as '{\"resolution\": 64}'"
    )
    parser.add_argument("--accelerator", type=str, default="cpu", help="a torch device, such as cuda")
    return parser


def _data_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="slotlib data", description="Look at scenes, count them, write them to files.")
    commands = parser.add_subcommands(dest="action")
    for action, count, description in (
        ("preview", 32, "draw scenes, and their masks below, into one picture"),
        ("stats", 1000, "count colours, objects, visible pixels and properties"),
        ("export", 1000, "write scenes in a format that others read"),
    ):
        command = ArgumentParser(description=description)
        command.add_argument("name", type=str, help=f"a file or folder, or one of: {', '.join(data.GENERATORS)}")
        command.add_argument("--count", type=int, default=count, help="scenes; of a file at most as many as it has")
        command.add_argument("--seed", type=int, default=0, help="of generated scenes")
        command.add_argument("--options", type=dict[str, Any], default={}, help="the generator's or reader's own")
        if action != "stats":
            what = "PNG file" if action == "preview" else "file or folder"
            command.add_argument("--out", type=str, required=True, help=f"the {what} to write")
        if action == "export":
            command.add_argument("--format", type=Literal["tfrecord", "hdf5", "folder"], default="tfrecord")
        commands.add_subcommand(action, command, help=description)
    return parser


def _zoo_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="slotlib zoo", description="List the shipped models, or print one's card.")
    parser.add_argument("checkpoint", type=str | None, nargs="?", default=None, help="a shipped name or a path")
    return parser


def _config(arguments: Namespace) -> training.Config:
    return training.Config(model=arguments.model, data=arguments.data, train=arguments.train)


def _parse_train(arguments: Sequence[str]) -> Namespace:
    # A bare name after --config means the packaged file.
    resolved = list(arguments)
    for i, argument in enumerate(resolved):
        if argument == "--config" and i + 1 < len(resolved):
            resolved[i + 1] = _config_path(resolved[i + 1])
        elif argument.startswith("--config="):
            resolved[i] = f"--config={_config_path(argument.removeprefix('--config='))}"
    parser = _train_parser(_model_class(resolved))
    return parser.instantiate(parser.parse_args(resolved))


def _train(arguments: Sequence[str]) -> None:
    parsed = _parse_train(arguments)
    training.train(_config(parsed), parsed.folder, resume=parsed.resume)
    print(f"trained model: {Path(parsed.folder) / 'model.safetensors'}, card beside it")


def read_config(name: str, *flags: str) -> training.Config:
    """A packaged configuration or a YAML file, changed by flags of `slotlib train`, as `training.train` takes it."""
    return _config(_parse_train([f"--config={name}", "--folder=unused", *flags]))


def _sweep(arguments: Sequence[str]) -> None:
    parsed, flags = _sweep_parser().parse_known_args(arguments)
    field, values = parsed.vary
    runs = []
    for value in values:
        changed = [f"--{field}={value}"] if field else []
        for seed in parsed.seeds:
            own = [*flags, *changed, f"--train.seed={seed}"]
            folder = parsed.folder / "_".join(flag.removeprefix("--").replace("/", "-") for flag in own[len(flags) :])
            config = read_config(parsed.config, *own)  # a mistake in a flag ends the sweep before it begins
            runs.append(sweep.Run(folder, value, seed, config, [f"--config={_config_path(parsed.config)}", *own]))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends a sweep ends its runs
    results = sweep.sweep(runs, parsed.jobs)
    score = next((next(iter(result.metrics)) for result in results if result.metrics), "loss")  # the leading one
    sweep.write(results, parsed.folder, score)
    _print_table(sweep.table(results, score), field, score)
    failed = [result for result in results if result.error]
    for result in failed:
        print(f"failed: {result.folder}: {result.error}")
    print(f"every run: {parsed.folder / 'sweep.csv'}")
    if failed:
        raise SystemExit(f"slotlib: {len(failed)} of {len(results)} runs failed")


def _print_table(rows: Sequence[sweep.Row], field: str, score: str) -> None:
    def cells(numbers: Sequence[float | None]) -> str:
        return "".join(f"{'failed' if number is None else f'{number:.4f}':>9}" for number in numbers)

    width = max(len(name) for name in [field, score, *[row.value for row in rows]])
    print(
        f"{field or score:{width}}   median    least     most   |" + "".join(f"{f'seed {s}':>9}" for s in rows[0].seeds)
    )
    for row in rows:
        print(f"{row.value:{width}}{cells([row.median, row.least, row.most])}   |{cells(list(row.seeds.values()))}")


def _evaluate(arguments: Sequence[str]) -> None:
    parsed = _evaluate_parser().parse_args(arguments)
    model = zoo.load(parsed.checkpoint).to(parsed.accelerator)
    trained_on = model.card["dataset"]
    options = dict(trained_on["options"])
    if parsed.num_objects is not None:
        options["num_objects"] = parsed.num_objects
    if parsed.data is not None:
        scenes = read(parsed.data, **parsed.options)
    elif trained_on["name"] in data.GENERATORS:
        scenes = data.make(trained_on["name"], parsed.images, parsed.scenes_seed, **options)
    else:
        kept = model.card["training"]["eval_images"]
        _, scenes = training.held_out_part(read(trained_on["name"], **options), kept)
    names = "restarts", "num_slots", "num_iterations"
    how = {name: getattr(parsed, name) for name in names if getattr(parsed, name) is not None}
    scores = training.measured(model, scenes, parsed.images, parsed.noise_seed, **how)
    print(json.dumps(scores | ({"scenes": parsed.data} if parsed.data else {}), indent=2))


def _scenes(name: str, count: int, seed: int, options: dict[str, Any]) -> Dataset:
    """`count` generated scenes, or the first ones of a file or folder."""
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if name in data.GENERATORS or not Path(name).exists():
        return data.make(name, count, seed, **options)
    files = read(name, **options)
    return files.part(0, min(count, len(files)))


def _data(arguments: Sequence[str]) -> None:
    parsed = _data_parser().parse_args(arguments)
    asked = parsed[parsed.action]
    scenes = _scenes(asked.name, asked.count, asked.seed, asked.options)
    of = f"{len(scenes)} scenes of {asked.name}"
    if parsed.action == "preview":
        zoo.writable_folder(Path(asked.out).parent)
        batch = scenes.batch(range(len(scenes)))
        plots.show_scenes(batch["image"], batch.get("mask")).savefig(asked.out, bbox_inches="tight")
        print(f"{of}: {asked.out}")
    elif parsed.action == "export":
        print(f"{of}: {export(scenes, asked.out, asked.format)}")
    else:
        _print_statistics(statistics(scenes, len(scenes)))
    if skipped := getattr(scenes, "skipped", 0):
        print(f"skipped: {skipped} that could not be read")


def _print_statistics(counted: Statistics) -> None:
    def shares(table: Mapping[Any, int]) -> str:
        return ", ".join(f"{name} {many / max(1, sum(table.values())):.1%}" for name, many in table.items())

    print(f"scenes: {counted.scenes}")
    print(f"image: {counted.size[0]}×{counted.size[1]}")
    for title, colour in (("mean", counted.mean), ("spread", counted.spread)):
        print(f"{title} of red, green, blue: " + ", ".join(f"{value:.4f}" for value in colour.tolist()))
    print(f"objects per image: {shares({n: many for n, many in enumerate(counted.objects.tolist()) if many})}")
    if counted.visible is not None and len(counted.visible):
        least, median = int(counted.visible.min()), int(counted.visible.median())
        print(f"visible pixels per object: least {least}, median {median}")
    for name, table in counted.categories.items():
        print(f"{name}: {shares(table)}")


def _zoo(arguments: Sequence[str]) -> None:
    parsed = _zoo_parser().parse_args(arguments)
    if parsed.checkpoint is not None:
        print(json.dumps(zoo.load(parsed.checkpoint).card, indent=2))
        return
    for name in zoo.names():
        card = zoo.load(name).card
        score, value = next(iter(card["metrics"][0].items()))  # the leading one
        print(f"{name}: {card['model']}, {card['bytes'] / 1e6:.2f} MB, {score} {value:.3f}")


COMMANDS = {"train": _train, "sweep": _sweep, "evaluate": _evaluate, "data": _data, "zoo": _zoo}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Errors the user can mend are one line on stderr and exit status 1; usage errors exit with 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] not in COMMANDS:
        asked_for_help = arguments[:1] in (["-h"], ["--help"])
        print(
            f"usage: slotlib {'|'.join(COMMANDS)} …   (slotlib COMMAND --help tells more)",
            file=sys.stdout if asked_for_help else sys.stderr,
        )
        raise SystemExit(0 if asked_for_help else 2)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        COMMANDS[arguments[0]](arguments[1:])
    except (OSError, ValueError, TypeError, ImportError) as error:
        if os.environ.get("SLOTLIB_TRACEBACK"):
            raise
        raise SystemExit(f"slotlib: {error}") from None
    except KeyboardInterrupt:
        print("slotlib: interrupted", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
