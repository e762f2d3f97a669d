"""Configurations as plain dictionaries, for cards, YAML and the command line, and back.

A configuration is a dataclass whose fields are numbers, words, lists and other dataclasses. In plain form a dataclass
is a dictionary of its fields. Where a field may hold one of several (a decoder, a model's autoencoder), the dictionary
says which:

    {"class_path": "Separable", "init_args": {"rank": 16}}

`class_path` is the name of a class that has been imported, or its full path, such as "my_module.MyDecoder". Without one
a dictionary says what differs from what stands there by default.
"""

import ast
import dataclasses
import importlib
import inspect
import itertools
import textwrap
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints


def plain(config: Any, expected: Any = None) -> Any:
    """A configuration as dictionaries, lists, numbers and words.

    `expected` is the type that the reader will expect here; a dataclass of another class is written with its path.
    """
    if dataclasses.is_dataclass(config):
        own = {}
        for field, hint in _fields(type(config)):
            default = _default(field, hint)
            by_default = (default if isinstance(default, type) else type(default)) in _options(hint)
            own[field.name] = plain(getattr(config, field.name), hint if by_default else Any)
        if expected is None or type(config) in _options(expected):
            return own
        return {"class_path": path(type(config)), "init_args": own}
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
        return _dataclass(expected, expected, value, where)
    if expected is Any:
        return value
    if len(_options(expected)) > 1:
        return _one_of(expected, value, where)
    origin, parts = get_origin(expected), get_args(expected)
    if origin in (list, tuple) and isinstance(value, list | tuple):
        item = parts[0] if parts else Any
        return origin(made(item, each, f"{where}[{i}]") for i, each in enumerate(value))
    if expected is float and type(value) is int:
        return float(value)
    if origin is Literal:
        fits = value in parts
    else:  # true and false are integers to Python only
        fits = isinstance(value, origin or expected) and (expected is bool or not isinstance(value, bool))
    if not fits:
        raise ValueError(f"{where} must be {_name(expected)}, got {value!r}")
    if expected is int and not -(2**63) <= value < 2**63:
        raise ValueError(f"{where} must fit into 64 bits, got {value}")
    return value


def _options(hint: Any) -> tuple[Any, ...]:
    """The annotations of which a value fits one."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _one_of(union: Any, value: Any, where: str) -> Any:
    structured = _structured(union)
    if structured and isinstance(value, Mapping):
        return _dataclass(structured, structured, value, where)
    for option in _options(union):
        try:
            return made(option, value, where)
        except ValueError:
            continue
    raise ValueError(f"{where} must be {_name(union)}, got {value!r}")


def _name(expected: Any) -> str:
    """An annotation as help and errors say it."""
    if len(_options(expected)) > 1:
        return " or ".join(map(_name, _options(expected)))
    if get_origin(expected) is Literal:
        return " or ".join(map(repr, get_args(expected)))
    if get_origin(expected):
        return str(expected).replace("typing.", "")
    return "None" if expected is type(None) else expected.__name__


def _fields(kind: type) -> Iterator[tuple[dataclasses.Field, Any]]:
    """The fields of a dataclass with their annotations."""
    hints = get_type_hints(kind)
    return ((field, hints[field.name]) for field in dataclasses.fields(kind))


def _structured(hint: Any) -> Any:
    """The dataclass that may stand in a field; None where there may be none."""
    return next((option for option in _options(hint) if dataclasses.is_dataclass(option)), None)


def _default(field: dataclasses.Field, hint: Any) -> Any:
    """The configuration that stands in a field by default, else the dataclass that may stand there."""
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return default if dataclasses.is_dataclass(default) else _structured(hint)


def _dataclass(expected: Any, default: Any, value: Any, where: str) -> Any:
    """One of `expected`: without a class_path, of the class `default`, or what differs from that configuration."""
    if isinstance(value, expected):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be the fields of a {expected.__name__}, got {value!r}")
    class_path, own = split(value, where)
    start = default if class_path is None else named(expected, class_path, f"{where}.class_path")
    kind = start if isinstance(start, type) else type(start)
    known = {field.name: (field, hint) for field, hint in _fields(kind)}
    found = {} if start is kind else {name: getattr(start, name) for name in known}
    for name, each in own.items():
        if name not in known:
            raise ValueError(f"{where} has no field {name!r}; {kind.__name__} has: {', '.join(sorted(known))}")
        field, hint = known[name]
        structured, there = _structured(hint), found.get(name)
        if structured and isinstance(each, Mapping):
            default = there if dataclasses.is_dataclass(there) else _default(field, hint)
            found[name] = _dataclass(structured, default, each, f"{where}.{name}")
        else:
            found[name] = made(hint, each, f"{where}.{name}")
    try:
        return kind(**found)
    except (TypeError, ValueError) as error:  # a field without a default is missing, or a value is out of range
        named_there = str(error).startswith(f"{where}.")
        raise ValueError(str(error) if named_there else f"{where}: {error}") from None


def split(value: Mapping[str, Any], where: str) -> tuple[Any, Mapping[str, Any]]:
    """The class_path of a plain form, None without one, and its fields. Raises ValueError for fields in both places."""
    if not value.keys() & {"class_path", "init_args"}:
        return None, value
    beside = [str(name) for name in value if name not in ("class_path", "init_args")]
    if beside:
        raise ValueError(f"{where}: with class_path, fields stand in init_args, got {', '.join(beside)} beside it")
    return value.get("class_path"), value.get("init_args") or {}


def named(base: type, class_path: str, where: str) -> type:
    """The class below `base`, or `base` itself, that a `class_path` names.

    Raises ValueError for a path that cannot be imported or leads to another kind of thing.
    """
    for kind in _family(base):
        if class_path in (kind.__qualname__, f"{kind.__module__}.{kind.__qualname__}"):
            return kind
    module, _, name = str(class_path).rpartition(".")
    if not module:
        there = ", ".join(choices(base)) or base.__name__
        raise ValueError(f"{where}: {class_path!r} is unknown; there are {there} (your own: my_module.MyClass)")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{where}: cannot import {class_path!r}: {error}") from None
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"{where}: {class_path!r} is no {base.__name__}")
    return found


def _family(base: type) -> list[type]:
    """A class and all below it that have been imported."""
    family = [base]
    for kind in family:
        family += [each for each in kind.__subclasses__() if each not in family]
    return family


def choices(base: Any) -> list[str]:
    """What a class_path may say: `base` and the classes below it, as far as they can be made.

    Others only stand between: parts that do not say what they build, models without a configuration of their own.
    """
    return sorted(path(kind) for kind in _family(base) if _complete(kind))


def _complete(kind: Any) -> bool:
    build = getattr(kind, "build", None)
    if build is None:
        return inspect.get_annotations(kind).get("config", Any) is not Any
    return not getattr(build, "__isabstractmethod__", False)


class Field(NamedTuple):
    """A field of a configuration, as help shows it."""

    name: str
    """With the fields it lies in, such as "model.attention.num_slots"."""
    kind: str
    value: Any
    """In plain form."""
    purpose: str
    """What stands below it in its class."""


def described(config: Any, where: str) -> Iterator[Field]:
    """Every field of a configuration and of its parts, whose names begin with `where`."""
    purposes = _purposes(type(config))
    for field, hint in _fields(type(config)):
        name, value, purpose = f"{where}.{field.name}", getattr(config, field.name), purposes.get(field.name, "")
        if not dataclasses.is_dataclass(hint):
            yield Field(name, _name(hint), plain(value), purpose)
            continue
        own = path(type(value))
        if there := {*choices(hint)} - {own}:
            yield Field(f"{name}.class_path", " or ".join(sorted({own, *there})), own, purpose or summary(type(value)))
        yield from described(value, name)


def summary(kind: type) -> str:
    """The first paragraph of a class's docstring, in one line; nothing where `dataclass` has written it."""
    written = " ".join((kind.__doc__ or "").partition("\n\n")[0].split())
    return "" if written.startswith(f"{kind.__name__}(") else written


def _purposes(kind: type) -> dict[str, str]:
    """What a dataclass and its parents say of each field, below it; of one without source, nothing."""
    said = {}
    for each in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(each):
            continue
        try:
            body = getattr(ast.parse(textwrap.dedent(inspect.getsource(each))).body[0], "body", [])
        except (OSError, TypeError):
            continue
        for field, below in itertools.pairwise(body):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    said[name] = " ".join(text.split())
    return said
