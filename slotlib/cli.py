"""The command line: `slotlib train|sweep|evaluate|data|export|zoo` (also `python -m slotlib`).

`train` and `sweep` lay YAML files and flags over one another, in plain form; `slotlib.configuration` makes of that what
`slotlib.training` takes, and says what does not fit.
"""

import argparse
import importlib
import json
import logging
import os
import re
import signal
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml

from slotlib import baselines, checkpoint, configuration, data, evaluation, lab, older, sweep, training, zoo
from slotlib.data.export import export
from slotlib.data.stats import Statistics, statistics
from slotlib.model import Model
from slotlib.version import __version__

CONFIGS = Path(__file__).with_name("configs")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line. The usage, which may be long, is for those who ask."""
        self.exit(2, f"{self.prog}: {message}\n")


class _Yaml(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, as everywhere else."""


_FLOAT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$")
_Yaml.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, "-+.0123456789")


def _value(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Yaml)
    except RecursionError:
        raise ValueError(f"{where} is nested too deep") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{where} is no YAML: {' '.join(str(error).split())}") from None


def _whole(text: str) -> int:
    if not (text.removeprefix("-").isdecimal() and len(text) < 19):
        raise argparse.ArgumentTypeError(f"expected a whole number of at most 18 digits, got {text!r}")
    return int(text)


def _device(text: str) -> torch.device:
    name = text.lower().replace("gpu", "cuda")
    try:
        torch.empty(0, device=name)
    except (AssertionError, NotImplementedError, RuntimeError):
        there = ["cpu", *[f"cuda:{i}" for i in range(torch.cuda.device_count())]]
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used here; there is {', '.join(there)}") from None
    return torch.device(name)


def _options(text: str) -> dict[str, Any]:
    value = _value(text, "this")
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"expected names and values, such as '{{num_objects: 3}}', got {text!r}")
    return value


# --- configurations ---


def config_names() -> list[str]:
    """The training configurations that ship with slotlib."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def config_path(name: Path | str) -> Path:
    """Where a configuration lies: a packaged one by its name, of which `_fast` may be left out, or any file.

    Raises FileNotFoundError naming what there is.
    """
    for path in (Path(name), CONFIGS / f"{name}.yaml", CONFIGS / f"{name}_fast.yaml"):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"no configuration {str(name)!r}: not a file, and slotlib ships {', '.join(config_names())}"
    )


def read_config(name: Path | str, *flags: str) -> training.Config:
    """A packaged configuration or a YAML file, changed by flags of `slotlib train`, as `training.train` takes it.

    Raises FileNotFoundError for no such file, ValueError naming the field that does not fit.
    """
    files, fields = _config_parser().parse_known_args(flags)
    return _config([name, *files.config], fields)


def _config(names: Sequence[Path | str], flags: Sequence[str]) -> training.Config:
    """Files over one another, in order, and flags over them all."""
    fields: dict[str, Any] = {"model": {"class_path": "SlotAutoencoder"}}
    for name in names:
        path = config_path(name)
        content = _value(path.read_text(encoding="utf-8"), str(path)) or {}
        if not isinstance(content, Mapping):
            raise ValueError(f"{path} must hold model, data and train, got {content!r}")
        fields = _laid_over(fields, content)
    for name, text in sorted(_pairs(flags), key=_whole_first):
        fields = _changed(fields, name.replace(".init_args.", ".").split("."), _value(text, name))

    for name in fields:
        if name not in ("model", "data", "train"):
            raise ValueError(f"a configuration has model, data and train, got {name}")
    if not isinstance(fields["model"], Mapping):
        raise ValueError(f"model must have a class_path and init_args, got {fields['model']!r}")
    class_path, own = configuration.split(fields["model"], "model")
    kind = configuration.named(Model, class_path, "model.class_path")
    model = configuration.made(kind.configuration(), own, "model")
    if Model.defined_by(model) is not kind:
        raise ValueError(f"model.class_path: {kind.__name__} needs a dataclass of its own, as `config: MyConfig`")
    return training.Config(
        model,
        configuration.made(training.DataConfig, fields.get("data", {}), "data"),
        configuration.made(training.TrainConfig, fields.get("train", {}), "train"),
    )


def _laid_over(below: Any, above: Any) -> Any:
    """Plain forms: what `above` does not say is as it was below, unless it names another class."""
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    if "class_path" in below and not above.keys() & {"class_path", "init_args"}:
        above = {"init_args": above}
    elif "class_path" in above and above["class_path"] != below.get("class_path"):
        return above
    return {**below, **{name: _laid_over(below.get(name), value) for name, value in above.items()}}


def _pairs(flags: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names and values of `--name value` and `--name=value`. Raises ValueError for anything else."""
    rest = list(flags)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if not flag.startswith("--"):
            raise ValueError(f"expected a flag, such as --train.lr, got {flag!r}")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ValueError(f"{flag} needs a value")
            value = rest.pop(0)
        yield flag.removeprefix("--"), value


def _whole_first(flag: tuple[str, str]) -> tuple[int, int]:
    """What is said of a whole comes before what is said of its parts, and a class before its fields."""
    *way, last = flag[0].split(".")
    rank = {"class_path": 1, "init_args": 2}.get(last, 0)
    return len(way) - way.count("init_args") - (rank > 0), rank


def _changed(fields: Any, way: Sequence[str], value: Any) -> Any:
    """A plain form in which the field that `way` leads to has this value; `init_args` need not be said."""
    if not way:
        return value
    fields = fields if isinstance(fields, Mapping) else {}
    if way[0] == "class_path" and fields.get("class_path") != value:
        return {"class_path": value}
    if way[0] not in ("class_path", "init_args") and fields.keys() & {"class_path", "init_args"}:
        way = ["init_args", *way]
    return {**fields, way[0]: _changed(fields.get(way[0]), way[1:], value)}


def _config_parser(prog: str = "", description: str = "", **options: Any) -> _Parser:
    parser = _Parser(prog=prog, description=description, allow_abbrev=False, **options)
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help=f"YAML, or one of: {', '.join(config_names())}; of several, later ones say what differs",
    )
    return parser


def _asked_config(parser: _Parser, names: Sequence[str], flags: Sequence[str]) -> training.Config:
    """As `_config`, but what does not fit is a mistake in the command: exit status 2."""
    try:
        return _config(names, flags)
    except (OSError, TypeError, ValueError) as error:
        parser.error(str(error))


# --- train, sweep ---


def _train(arguments: Sequence[str]) -> None:
    parser = _config_parser("slotlib train", "Train a model. Every field of a configuration is a flag.", add_help=False)
    parser.add_argument("--folder", help="where the run lives; an interrupted run goes on")
    parser.add_argument(
        "--resume", choices=("true", "false"), default="true", help="false: only a folder without a run"
    )
    parser.add_argument("-h", "--help", action="store_true", help="this, and the fields as the other flags leave them")
    asked, flags = parser.parse_known_args(arguments)
    config = _asked_config(parser, asked.config, flags)
    if asked.help:
        print(parser.format_help(), *_fields(config), sep="\n")
        return
    if asked.folder is None:
        parser.error("--folder is needed")
    training.train(config, asked.folder, resume=asked.resume == "true")
    print(f"trained model: {Path(asked.folder) / 'model.safetensors'}, card beside it")


def _fields(config: training.Config) -> Iterator[str]:
    """Every field as a flag, with its type, value and purpose."""
    kind = Model.defined_by(config.model)
    known = " or ".join(configuration.choices(Model))
    first = configuration.Field("model.class_path", known, configuration.path(kind), configuration.summary(kind))
    parts = (configuration.described(getattr(config, part), part) for part in ("model", "data", "train"))
    yield "fields, and what they are now:"
    for field in [first, *(field for part in parts for field in part)]:
        yield f"  --{field.name} {field.kind} = {field.value!r}"
        yield from textwrap.wrap(field.purpose, 100, initial_indent=" " * 8, subsequent_indent=" " * 8)


def _numbers(text: str) -> list[int]:
    return [_whole(number) for number in text.split(",")]


def _field_and_values(text: str) -> tuple[str, list[str]]:
    field, equals, values = text.partition("=")
    if not (field and equals and values):
        raise argparse.ArgumentTypeError(f"expected FIELD=VALUE,VALUE,…, such as train.lr=1e-3,2e-3, got {text!r}")
    return field, values.split(",")


def _sweep(arguments: Sequence[str]) -> None:
    parser = _config_parser(
        "slotlib sweep",
        "Train several seeds, or one field changed, side by side, and print a table of their scores. "
        "Finished runs are not repeated.",
        epilog="Any other flag is one of `slotlib train`, for all runs: --train.minutes 5",
    )
    parser.add_argument("--folder", type=Path, required=True, help="of the sweep; every run has its own folder in it")
    parser.add_argument("--seeds", type=_numbers, default=[0], help="such as 0,1,2,3,4")
    parser.add_argument("--vary", type=_field_and_values, default=("", [""]), help="such as train.lr=1e-3,2e-3")
    parser.add_argument("--jobs", type=_whole, default=0, help="runs at a time; by default one per core")
    asked, flags = parser.parse_known_args(arguments)
    field, values = asked.vary
    runs = []
    for value in values:
        changed = [f"--{field}={value}"] if field else []
        for seed in asked.seeds:
            own = [*changed, f"--train.seed={seed}"]
            folder = asked.folder / "_".join(flag.removeprefix("--").replace("/", "-") for flag in own)
            config = _asked_config(parser, asked.config, [*flags, *own])  # a mistake ends the sweep before it begins
            files = [f"--config={config_path(name)}" for name in asked.config]
            runs.append(sweep.Run(folder, value, seed, config, [*files, *flags, *own]))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends a sweep ends its runs
    results = sweep.sweep(runs, asked.jobs)
    score = next((next(iter(result.metrics)) for result in results if result.metrics), "loss")  # the leading one
    sweep.write(results, asked.folder, score)
    _print_table(sweep.table(results, score), field, score)
    failed = [result for result in results if result.error]
    for result in failed:
        print(f"failed: {result.folder}: {result.error}")
    print(f"every run: {asked.folder / 'sweep.csv'}")
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


# --- evaluate ---


def _evaluate(arguments: Sequence[str]) -> None:
    parser = _Parser(
        prog="slotlib evaluate",
        description="Score a trained model on scenes it has not seen, and beside it rules that have learned nothing. "
        "`drawn_` scores are of masks made from slots alone, as papers score them; `posterior_` masks have seen the "
        "image.",
    )
    parser.add_argument("checkpoint", help="a shipped name or a path")
    parser.add_argument("--images", type=_whole, default=640)
    parser.add_argument(
        "--scenes_seed", type=_whole, default=0, help="which generated scenes; training never uses seed 0"
    )
    parser.add_argument("--noise_seed", type=_whole, default=0, help="of the slots' initial noise")
    parser.add_argument("--restarts", type=_whole, help="initialisations tried per image")
    parser.add_argument("--num_slots", type=_whole)
    parser.add_argument("--num_iterations", type=_whole)
    parser.add_argument("--num_objects", type=_whole, help="other than it was trained with")
    parser.add_argument("--data", help="other scenes: a generator, a file or folder")
    parser.add_argument("--options", type=_options, default={}, help="of these, beside those it was trained with")
    parser.add_argument("--accelerator", type=_device, default="cpu", help="a torch device, such as cuda")
    parser.add_argument("--module", action="append", default=[], help="where a model of your own is defined")
    asked = parser.parse_args(arguments)
    for module in asked.module:
        importlib.import_module(module)
    model = zoo.load(asked.checkpoint).to(asked.accelerator)
    names = "restarts", "num_slots", "num_iterations"
    how = {name: getattr(asked, name) for name in names if getattr(asked, name) is not None}
    scenes = _unseen(model.card, asked)
    found = evaluation.measured(model, scenes, asked.images, asked.noise_seed, **how)
    if any(name.endswith("fg_ari") for name in found):
        without = baselines.scores(scenes, asked.images)
        found["baselines"] = {name: round(value, 5) for name, value in without.items()}
    print(json.dumps(found, indent=2))


def _unseen(card: Mapping[str, Any], asked: argparse.Namespace) -> data.Source:
    """The scenes asked for: by default what the model was trained on, generated afresh, or kept from it of its files.

    These files are known again in another folder.
    """
    trained = card.get("dataset", {"name": "", "options": {}})
    name, options = asked.data or trained["name"], asked.options
    if not name:
        raise ValueError("the card does not say what the model was trained on; name scenes with --data")
    if asked.num_objects is not None:
        options = {**options, "num_objects": asked.num_objects}
    if name == trained["name"] or {name, trained["name"]}.isdisjoint(data.GENERATORS):
        options = {**trained["options"], **options}
    if name not in data.GENERATORS and Path(name).exists():
        seen = card.get("scenes")
        if not asked.data or (seen and seen == training.fingerprint(data.find(name, seen["count"], **options))):
            return data.held_out(name, trained["size"], card["training"]["eval_images"], 0, **options)[1]
    try:
        return data.find(name, asked.images, asked.scenes_seed, **options)
    except FileNotFoundError as error:
        hint = "" if asked.data else "; the model was trained there, and --data says where it lies now"
        raise FileNotFoundError(f"{error}{hint}") from None


# --- data ---


def _data(arguments: Sequence[str]) -> None:
    parser = _Parser(prog="slotlib data", description="Look at scenes, count them, write them to files.")
    commands = parser.add_subparsers(dest="action", required=True)
    for action, count, description in (
        ("preview", 32, "draw scenes, and their masks below, into one picture"),
        ("stats", 1000, "count colours, objects, visible pixels and properties"),
        ("export", 1000, "write scenes in a format that others read"),
    ):
        command = commands.add_parser(action, description=description, help=description)
        command.add_argument("name", help=f"a file or folder, or one of: {', '.join(data.GENERATORS)}")
        command.add_argument("--count", type=_whole, default=count, help="scenes; of a file at most as many as it has")
        command.add_argument("--seed", type=_whole, default=0, help="of generated scenes")
        command.add_argument("--options", type=_options, default={}, help="the generator's or reader's own")
        if action != "stats":
            what = "PNG file" if action == "preview" else "file or folder"
            command.add_argument("--out", required=True, help=f"the {what} to write")
        if action == "export":
            command.add_argument("--format", choices=("tfrecord", "hdf5", "folder"), default="tfrecord")
    asked = parser.parse_args(arguments)
    scenes = data.find(asked.name, asked.count, asked.seed, **asked.options)
    of = f"{len(scenes)} scenes of {asked.name}"
    if asked.action == "preview":
        from slotlib import plots  # slow to import

        checkpoint.writable_folder(Path(asked.out).parent)
        batch = scenes.batch(range(len(scenes)))
        plots.show_scenes(batch["image"], batch.get("mask")).savefig(asked.out, bbox_inches="tight")
        print(f"{of}: {asked.out}")
    elif asked.action == "export":
        print(f"{of}: {export(scenes, asked.out, asked.format)}")
    else:
        _print_statistics(statistics(scenes))
    if scenes.skipped:
        print(f"skipped: {scenes.skipped} that could not be read")


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


# --- export ---


def _export(arguments: Sequence[str]) -> None:
    parser = _Parser(prog="slotlib export", description="Write trained models for use without Python.")
    commands = parser.add_subparsers(dest="form", required=True)
    description = "for the book's live page, a script per model"
    command = commands.add_parser("lab", description=description, help=description)
    command.add_argument("checkpoint", nargs="+", help="shipped names or paths")
    command.add_argument("--out", required=True, help="the folder to write to")
    asked = parser.parse_args(arguments)
    for name in asked.checkpoint:
        print(lab.export(name, asked.out))


# --- zoo ---


def _zoo(arguments: Sequence[str]) -> None:
    parser = _Parser(prog="slotlib zoo", description="List the shipped models, or print one's card.")
    parser.add_argument("checkpoint", nargs="?", help="a shipped name or a path")
    asked = parser.parse_args(arguments)
    if asked.checkpoint is not None:
        print(json.dumps(_card(asked.checkpoint), indent=2))
        return
    for name in zoo.names():
        card = _card(name)
        score, value = next(iter(card["metrics"][0].items()))  # the leading one
        print(f"{name}: {card['model']}, {card['bytes'] / 1e6:.2f} MB, {score} {value:.3f}")


def _card(name: str) -> dict[str, Any]:
    return older.converted(*checkpoint.load_tensors(zoo.find(name)))[1]


COMMANDS = {
    "train": (_train, "train a model from a configuration"),
    "sweep": (_sweep, "train several seeds, or one field changed, side by side"),
    "evaluate": (_evaluate, "score a trained model"),
    "data": (_data, "look at scenes, count them, write them to files"),
    "export": (_export, "write trained models for use without Python"),
    "zoo": (_zoo, "list the shipped models, or print the card of one"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Errors the user can mend are one line on stderr and exit status 1; usage errors exit with 2."""
    parser = _Parser(
        prog="slotlib",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"  slotlib {name:10}{purpose}" for name, (_, purpose) in COMMANDS.items()),
    )
    parser.add_argument("--version", action="version", version=f"slotlib {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="|".join(COMMANDS), help="each has a --help of its own")
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    asked = parser.parse_args(arguments[:1])  # the rest is its own
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        sys.path.append(os.getcwd())  # modules of one's own are found where one stands, as with python -m
        COMMANDS[asked.command][0](arguments[1:])
    except (
        ArithmeticError,
        ImportError,
        LookupError,
        MemoryError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        if os.environ.get("SLOTLIB_TRACEBACK"):
            raise
        said = str(error).partition("\nException raised from")[0]  # torch adds where in C++
        raise SystemExit(f"slotlib: {said or type(error).__name__}") from None
    except KeyboardInterrupt:
        print("slotlib: interrupted", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
