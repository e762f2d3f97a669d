"""Configurations as plain dictionaries, for cards and YAML, and back.

A configuration is a dataclass whose fields are numbers, words, lists and other dataclasses. In plain form a dataclass
is a dictionary of its fields. Where a field may hold one of several (a decoder, a model's autoencoder), the dictionary
says which, in jsonargparse's words:

    {"class_path": "Separable", "init_args": {"rank": 16}}

`class_path` is the name of a class that has been imported, or its full path, such as "my_module.MyDecoder".
"""

import dataclasses
import importlib
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

__all__ = ["made", "named", "plain"]


def plain(config: Any, expected: Any = None) -> Any:
    """A configuration as dictionaries, lists, numbers and words.

    `expected` is the type that the reader will expect here; a dataclass of another class is written with its path.
    """
    if dataclasses.is_dataclass(config):
        hints = get_type_hints(type(config))
        fields = {f.name: plain(getattr(config, f.name), hints[f.name]) for f in dataclasses.fields(config)}
        if expected is None or type(config) in (expected, *get_args(expected)):
            return fields
        return {"class_path": path(type(config)), "init_args": fields}
    if isinstance(config, Mapping):
        return {key: plain(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [plain(value) for value in config]
    return config


def path(kind: type) -> str:
    """What `class_path` says of a class: its name, if it is slotlib's own, else the full path."""
    own = kind.__module__.partition(".")[0] == "slotlib"
    return kind.__qualname__ if own else f"{kind.__module__}.{kind.__qualname__}"


def made(expected: Any, value: Any, where: str) -> Any:
    """The configuration that a plain form stands for.

    Args:
        expected: a dataclass, or whatever else an annotation may be.
        value: its plain form; a dataclass passes through.
        where: how errors name it.

    Raises ValueError naming the field, what was expected and what was given.
    """
    if dataclasses.is_dataclass(expected):
        return _dataclass(expected, value, where)
    origin, options = get_origin(expected), get_args(expected)
    if origin in (Union, types.UnionType):
        if isinstance(value, Mapping):
            structured = [option for option in options if dataclasses.is_dataclass(option)]
            if structured:
                return _dataclass(structured[0], value, where)
        return _one_of(options, value, where)
    if origin is Literal:
        if value not in options:
            raise ValueError(f"{where} must be one of {', '.join(map(repr, options))}, got {value!r}")
        return value
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} must be a list, got {value!r}")
        items = options[:1] or (Any,)
        return origin(made(items[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain_type = origin or expected
    if isinstance(plain_type, type) and (
        not isinstance(value, plain_type) or (isinstance(value, bool) and plain_type is not bool)
    ):
        raise ValueError(f"{where} must be {_name(expected)}, got {value!r}")
    return value


def _one_of(options: tuple[Any, ...], value: Any, where: str) -> Any:
    for option in options:
        try:
            return made(option, value, where)
        except ValueError:
            continue
    raise ValueError(f"{where} must be {' or '.join(_name(option) for option in options)}, got {value!r}")


def _name(expected: Any) -> str:
    return "None" if expected is type(None) else getattr(expected, "__name__", str(expected))


def _dataclass(expected: type, value: Any, where: str) -> Any:
    if isinstance(value, expected):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be the fields of a {expected.__name__}, got {value!r}")
    kind = expected
    if "class_path" in value and set(value) <= {"class_path", "init_args"}:
        kind, value = named(expected, value["class_path"], where), value.get("init_args") or {}
    hints = get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(kind)}
    for name in value:
        if name not in known:
            raise ValueError(f"{where} has no field {name!r}; {kind.__name__} has: {', '.join(sorted(known))}")
    fields = {name: made(hints[name], each, f"{where}.{name}") for name, each in value.items()}
    try:
        return kind(**fields)
    except (TypeError, ValueError) as error:  # a field without a default is missing, or a value is out of range
        raise ValueError(f"{where}: {error}") from None


def named(base: type, class_path: str, where: str) -> type:
    """The class below `base`, or `base` itself, that a `class_path` names.

    Raises ValueError for a path that cannot be imported or leads to another kind of thing.
    """
    below = [base]
    for kind in below:
        below += kind.__subclasses__()
    for kind in below:
        if class_path in (kind.__qualname__, f"{kind.__module__}.{kind.__qualname__}"):
            return kind
    module, _, name = str(class_path).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name) if module else None
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{where}: cannot import {class_path!r}: {error}") from None
    if not (isinstance(found, type) and issubclass(found, base)):
        there = ", ".join(kind.__name__ for kind in below[1:])
        kinds = f"is no {base.__name__}" if found else f"is unknown; there are {there}"
        raise ValueError(f"{where}: {class_path!r} {kinds} (your own is named as my_module.{base.__name__}…)")
    return found
