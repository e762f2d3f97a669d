"""What all tests share.

At every call of slotlib the types, dtypes and shapes of what comes and goes are compared with its annotations
(`JAXTYPING_DISABLE=1` leaves that out). Not where a test expects an error: there it brings what is wrong, and slotlib
has to refuse it by itself. Nor in what torch compiles: it traces calls without their tensors. Nor within functions:
what is defined there would be looked through anew at every call, at a third of the time that drawing scenes takes.
What comes is looked at once, with what goes when the call returns; jaxtyping would also look before the call.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import beartype
import jaxtyping
import pytest
import torch

ROOT = Path(__file__).parents[1]

# For addresses in notebooks, of which there are none, jsonschema compiles a grammar: 1.4 s in every process.
sys.modules["rfc3987_syntax"] = None

checked = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))  # a whole number is a float too


def compared(function):
    """What compares: jaxtyping's stand-in for a function, with its arguments and what it returned as one more, `ret0`.

    The other stand-in, for before the call, takes the arguments only.
    """
    after = "ret0" in function.__code__.co_varnames
    return checked(function) if after and "<locals>" not in function.__qualname__ else function


jaxtyping.install_import_hook("slotlib", f"{__name__}.compared")


class Comparison(type(jaxtyping.config)):
    """jaxtyping's settings, which also tell compiled code apart."""

    off: bool

    @property
    def jaxtyping_disable(self):
        return self.off or torch.compiler.is_compiling()

    @jaxtyping_disable.setter
    def jaxtyping_disable(self, off):
        self.off = off


class Raises(pytest.RaisesExc):
    """`pytest.raises`, without the comparison."""

    def __enter__(self):
        self.before = jaxtyping.config.off
        jaxtyping.config.off = True
        return super().__enter__()

    def __exit__(self, *error):
        jaxtyping.config.off = self.before
        return super().__exit__(*error)


jaxtyping.config.off = jaxtyping.config.jaxtyping_disable
jaxtyping.config.__class__ = Comparison
pytest.raises = Raises


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def run_page(root) -> Callable[[str], tuple[dict[str, Any], list[tuple]]]:
    """Runs a page's Python from top to bottom, and says what it leaves, and what it prints."""

    def run(name):
        text = (root / "book" / f"{name}.md").read_text("utf-8")
        names, printed = {}, []
        names["print"] = lambda *words, **_: printed.append(words)
        for code in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            exec(code, names)
        return names, printed

    return run


@pytest.fixture(scope="session")
def sample(root) -> Path:
    """Scenes that Blender rendered, where they are at hand."""
    path = root.parent / "shared" / "data" / "clevr_sample"
    if not path.is_dir():
        pytest.skip(f"the CLEVR sample is not at {path}")
    return path


@pytest.fixture(scope="session")
def listed(sample) -> list:
    return json.loads((sample / "scenes" / "CLEVR_sample_scenes.json").read_text())["scenes"]
