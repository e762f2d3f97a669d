"""The command line: `slotlib train|evaluate|data|zoo` (also `python -m slotlib`)."""

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from slotlib import data, plots, training, zoo

CONFIGS = Path(__file__).with_name("configs")


def config_names() -> list[str]:
    """The training configurations that ship with slotlib."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def _config_path(name: str) -> str:
    """A packaged configuration's name → its path; paths pass through."""
    if Path(name).is_file():
        return name
    packaged = CONFIGS / f"{name}.yaml"
    if packaged.is_file():
        return str(packaged)
    raise SystemExit(f"slotlib: no configuration {name!r}: not a file, and slotlib ships {', '.join(config_names())}")


def _train_parser() -> ArgumentParser:
    """Every field of `training.Config` as a flag, on top of the YAML file."""
    parser = ArgumentParser(prog="slotlib train", description="Train a model from a configuration.")
    parser.add_argument("--config", action="config", help=f"a YAML file, or one of: {', '.join(config_names())}")
    parser.add_argument("--folder", type=str, required=True, help="where the run lives; an interrupted run goes on")
    parser.add_argument("--resume", type=bool, default=True, help="go on with a run found in the folder")
    parser.add_class_arguments(training.Config)
    return parser


def _evaluate_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="slotlib evaluate", description="Score a trained model on fresh scenes.")
    parser.add_argument("checkpoint", type=str, help="a shipped name or a path")
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--scenes_seed", type=int, default=0, help="which scenes; training never uses seed 0")
    parser.add_argument("--noise_seed", type=int, default=0, help="of the slots' initial noise")
    parser.add_argument("--restarts", type=int, default=1, help="initialisations tried per image")
    parser.add_argument("--num_slots", type=int | None, default=None)
    parser.add_argument("--num_iterations", type=int | None, default=None)
    parser.add_argument("--num_objects", type=int | None, default=None, help="other than it was trained with")
    parser.add_argument("--accelerator", type=str, default="cpu", help="a torch device, such as cuda")
    return parser


def _data_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="slotlib data", description="Draw scenes into one picture.")
    parser.add_argument("name", type=str, help=f"one of: {', '.join(data.GENERATORS)}")
    parser.add_argument("--out", type=str, required=True, help="the PNG file to write")
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--options", type=dict[str, Any], default={}, help="the generator's own")
    return parser


def _zoo_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="slotlib zoo", description="List the shipped models, or print one's card.")
    parser.add_argument("checkpoint", type=str | None, nargs="?", default=None, help="a shipped name or a path")
    return parser


def _config(arguments: Namespace) -> training.Config:
    return training.Config(model=arguments.model, data=arguments.data, train=arguments.train)


def _train(arguments: Sequence[str]) -> None:
    parser = _train_parser()
    # A bare name after --config means the packaged file.
    resolved = list(arguments)
    for i, argument in enumerate(resolved):
        if argument == "--config" and i + 1 < len(resolved):
            resolved[i + 1] = _config_path(resolved[i + 1])
        elif argument.startswith("--config="):
            resolved[i] = f"--config={_config_path(argument.removeprefix('--config='))}"
    parsed = parser.instantiate(parser.parse_args(resolved))
    training.train(_config(parsed), parsed.folder, resume=parsed.resume)
    print(f"trained model: {Path(parsed.folder) / 'model.safetensors'}, card beside it")


def read_config(name: str) -> training.Config:
    """A packaged configuration or a YAML file as the dataclass that `training.train` takes."""
    parser = _train_parser()
    path = _config_path(name)
    return _config(parser.instantiate(parser.parse_args([f"--config={path}", "--folder=unused"])))


def _evaluate(arguments: Sequence[str]) -> None:
    parsed = _evaluate_parser().parse_args(arguments)
    model = zoo.load(parsed.checkpoint).to(parsed.accelerator)
    trained_on = model.card["dataset"]
    options = dict(trained_on["options"])
    if parsed.num_objects is not None:
        options["num_objects"] = parsed.num_objects
    scenes = data.make(trained_on["name"], parsed.images, parsed.scenes_seed, **options)
    how = {name: getattr(parsed, name) for name in ("restarts", "num_slots", "num_iterations")}
    print(json.dumps(training.measured(model, scenes, parsed.images, parsed.noise_seed, **how), indent=2))


def _data(arguments: Sequence[str]) -> None:
    parsed = _data_parser().parse_args(arguments)
    scenes = data.make(parsed.name, parsed.count, parsed.seed, **parsed.options)
    zoo.writable_folder(Path(parsed.out).parent)
    plots.show_images(scenes.batch(range(parsed.count))["image"]).savefig(parsed.out)
    print(f"{parsed.count} scenes of {parsed.name}, seed {parsed.seed}: {parsed.out}")


def _zoo(arguments: Sequence[str]) -> None:
    parsed = _zoo_parser().parse_args(arguments)
    if parsed.checkpoint is not None:
        print(json.dumps(zoo.load(parsed.checkpoint).card, indent=2))
        return
    for name in zoo.names():
        card = zoo.load(name).card
        print(f"{name}: {card['model']}, {card['bytes'] / 1e6:.2f} MB, FG-ARI {card['metrics'][0]['fg_ari']:.3f}")


COMMANDS = {"train": _train, "evaluate": _evaluate, "data": _data, "zoo": _zoo}


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
    except (OSError, ValueError, TypeError) as error:
        if os.environ.get("SLOTLIB_TRACEBACK"):
            raise
        raise SystemExit(f"slotlib: {error}") from None
