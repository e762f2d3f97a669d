"""The library reference is what the sources say, read off them without building the book."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import slotlib

ROOT = Path(__file__).parents[2]
MODULES = {
    path.relative_to(ROOT).with_suffix("").as_posix()
    for path in (ROOT / "slotlib").rglob("*.py")
    if path.name not in ("__main__.py", "version.py")
}


@pytest.fixture
def reference(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book/ext"))
    return importlib.import_module("reference")


def function(source):
    return ast.parse(source).body[0]


def test_every_module_has_its_page(reference):
    assert {module.docname for module in reference.library().values()} == MODULES


def test_everything_that_slotlib_offers_has_an_entry(reference):
    for name in set(slotlib.__all__) - {"__version__"}:
        assert reference.full_name(f"slotlib.{name}"), name


def test_entries_are_what_importing_finds(reference):
    """The sources are read, not run: both ways have to find the same functions and classes."""
    for module in reference.library().values():
        members = vars(importlib.import_module(module.name)).items()
        own = {
            name
            for name, value in members
            if getattr(value, "__module__", None) == module.name
            and (inspect.isclass(value) or inspect.isroutine(value))
        }
        defined = {name for name, node in module.public.items() if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert {name for name in own if not name.startswith("_")} == defined, module.name


def test_a_signature_is_the_author_s(reference):
    node = function('def f(self, x: "Slots", y: Float[Tensor, "batch dim"], *, axis: Axis = "keys") -> "Slots": ...')
    expected = "(x: Slots, y: Float[Tensor, 'batch dim'], *, axis: Axis='keys') -> Slots"
    assert reference.signature(node, bound=True) == expected


def test_sections_of_docstrings_become_lists(reference):
    lines = reference.docstring("One line.\n\nArgs:\n    size: number,\n        at least 1.\n\nAfterwards.")
    assert [line for line in lines if line] == [
        "One line.",
        "**Args**",
        "- `size`: number,",
        "      at least 1.",
        "Afterwards.",
    ]


def test_a_name_means_what_the_module_around_it_means(reference):
    assert reference.full_name("Look", "slotlib.patches") == "slotlib.model.Look"
    assert reference.full_name("Look", "slotlib.data.multi_dsprites") == "slotlib.data.multi_dsprites.Look"
    assert reference.full_name("step", "slotlib.slot_attention", "SlotAttention").endswith("SlotAttention.step")
    assert reference.full_name("Tensor", "slotlib.slot_attention") is None


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("from slotlib import SlotAttention", {"slotlib.slot_attention"}),
        ("import slotlib\nslotlib.metrics.fg_ari(a, b)", {"slotlib.metrics"}),
        ("from slotlib.vq import VectorQuantizer", {"slotlib.vq"}),
        ("%matplotlib inline\nimport torch", set()),
    ],
)
def test_what_a_cell_uses_is_where_it_is_defined(reference, code, modules):
    assert reference.modules_in(code) - {"slotlib"} == modules
