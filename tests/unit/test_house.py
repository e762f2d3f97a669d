"""The house: imports point one way, training knows no model, and a schedule is moved by `Model.at` alone.

What is here is read off the source, imports inside functions too; those for types only do not count.
"""

import ast
import dataclasses
import functools
import graphlib
import importlib
from pathlib import Path
from typing import get_args, get_type_hints

import jaxtyping
import pytest
import torch

import slotlib
from slotlib.model import Model, Ramp

FOLDER = Path(slotlib.__file__).parent
GROUPS = {
    "basics": "check configuration model version",
    "storage": "checkpoint log older zoo",
    "data": "data",
    "parts": "attention baselines counting decoders diagnosis encoders implicit latents likelihoods matching metrics "
    "slot_attention vq",
    "pictures": "course plots widgets",
    "models": "adaptive autoencoder outlined outlined_svq patches prior set_prediction slate svq",
    "loop": "evaluation training",
    "commands": "cli lab sweep",
}
"""Every module, and `data` for all of its own."""
MAY_IMPORT = {
    "basics": "basics",
    "storage": "basics storage",
    "data": "basics storage data",
    "parts": "basics data parts",
    "pictures": "basics pictures",
    "models": "basics storage data parts pictures models",
    "loop": "basics storage data loop",
    "commands": "basics storage data parts pictures loop commands",
}


def module_name(path):
    parts = ["slotlib", *path.relative_to(FOLDER).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(FOLDER.rglob("*.py"))}


@functools.cache
def tree_of(name):
    return ast.parse(SOURCES[name].read_text("utf-8"))


@functools.cache
def imported(name):
    """The modules of slotlib that a module imports."""
    tree, found = tree_of(name), set()
    guarded = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    for_types = {node for guard in guarded for node in ast.walk(guard)}
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.split(".")[0] == "slotlib")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "slotlib":
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                found.add(below if below in SOURCES else node.module)
    return found


GROUP_OF = {f"slotlib.{name}": group for group, names in GROUPS.items() for name in names.split()}
MODELS = {kind.__module__ for path, kind in Model.known.items() if "." not in path}


def group_of(name):
    """None for the package itself and `__main__`, which are on top of everything."""
    return GROUP_OF.get(".".join(name.split(".")[:2]))


def reached(name):
    """All that a module imports, and what that imports."""
    found, new = set(), {name}
    while new:
        found |= new
        new = set().union(*map(imported, new)) - found
    return found - {name}


def test_there_is_no_circle():
    graph = {name: imported(name) for name in SOURCES}
    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, naming it
    assert set(order) == set(SOURCES)


@pytest.mark.parametrize("name", [name for name in SOURCES if name not in ("slotlib", "slotlib.__main__")])
def test_imports_point_one_way(name):
    allowed = MAY_IMPORT[group_of(name)].split()
    assert {each for each in imported(name) if group_of(each) not in allowed} == set()


def test_the_groups_are_those_of_the_package():
    assert set(GROUP_OF) == {".".join(name.split(".")[:2]) for name in SOURCES} - {"slotlib", "slotlib.__main__"}
    assert {name for name, group in GROUP_OF.items() if group == "models"} == MODELS


@pytest.mark.parametrize("name", [name for name in SOURCES if group_of(name) in ("parts", "loop", "storage", "data")])
def test_only_models_and_commands_know_models(name):
    assert reached(name) & MODELS == set()


def test_the_command_line_is_on_top():
    assert [name for name in SOURCES if "slotlib.cli" in imported(name)] == ["slotlib.__main__"]


@pytest.mark.parametrize("name", ["slotlib.training", "slotlib.evaluation", "slotlib.zoo"])
def test_no_model_is_asked_for_its_type(name):
    """`isinstance` is for plain numbers and dictionaries."""
    for call in ast.walk(tree_of(name)):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            assert call.func.id not in ("hasattr", "getattr", "setattr"), ast.unparse(call)
            if call.func.id == "isinstance":
                kinds = {each.id for each in ast.walk(call.args[1]) if isinstance(each, ast.Name)}
                assert kinds <= {"int", "float", "list", "Mapping"}, ast.unparse(call)


def scheduled():
    """Every field of slotlib in which a ramp may stand."""
    for name in SOURCES:
        if name == "slotlib.__main__":
            continue
        for kind in vars(importlib.import_module(name)).values():
            if dataclasses.is_dataclass(kind) and isinstance(kind, type):
                hints = get_type_hints(kind)
                yield from (f.name for f in dataclasses.fields(kind) if Ramp in get_args(hints[f.name]))


def test_scheduled_state_is_set_by_at_and_by_constructors_alone():
    names = set(scheduled())
    assert {"gradient_steps", "shading", "noise", "sparsity", "quantise", "colour_dims"} <= names
    found = []
    for module in SOURCES:
        for function in ast.walk(tree_of(module)):
            if isinstance(function, ast.FunctionDef) and function.name not in ("__init__", "at"):
                for node in ast.walk(function):
                    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr in names:
                        found.append(f"{module}.{function.name}: {ast.unparse(node)}")
    assert found == []


def test_annotations_are_compared_with_what_comes():
    if jaxtyping.config.jaxtyping_disable:
        pytest.skip("left out by JAXTYPING_DISABLE")
    try:  # pytest.raises leaves it out, see conftest.py
        slotlib.data.random.integers(torch.ones(3, dtype=torch.int64), 4)  # which torch computes
    except jaxtyping.TypeCheckError:
        return
    pytest.fail("whole numbers for uniform ones went unnoticed")


def test_models_are_listed_nowhere():
    assert "MODELS" not in vars(slotlib.zoo)
