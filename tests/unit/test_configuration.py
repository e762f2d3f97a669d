"""Configurations in plain form: what is written is read back, what does not fit is named."""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from slotlib.configuration import choices, described, made, named, path, plain
from slotlib.decoders import DecoderConfig
from slotlib.model import Model, Ramp
from slotlib.slot_attention import AttentionConfig


@dataclass
class Brush:
    width: int = 1
    """Of a stroke,
    in pixels."""

    @abstractmethod
    def build(self):
        raise NotImplementedError


@dataclass
class Round(Brush):
    softness: float | Ramp = 0.5
    """Of the edge."""

    def build(self):
        return "round"


@dataclass
class Between(Brush):
    pass


@dataclass
class Flat(Between):
    tips: list[int] = field(default_factory=list)

    def build(self):
        return "flat"


@dataclass
class Painter:
    """Paints.

    In many ways.
    """

    name: str
    brush: Brush = field(default_factory=lambda: Round(softness=0.25))
    """What it paints with."""
    spare: Round = field(default_factory=Round)
    mood: Literal["calm", "wild"] = "calm"
    speed: float | Ramp = 1.0
    signs: bool | Ramp = True
    notes: dict[str, Any] = field(default_factory=dict)
    sizes: tuple[int, ...] = ()
    helper: str | None = None

    def __post_init__(self):
        if self.mood == "wild" and not self.signs:
            raise ValueError("a wild painter signs")


@dataclass
class Studio:
    painter: Painter = field(default_factory=lambda: Painter("b", brush=Round(softness=0.75)))


@pytest.mark.parametrize(
    "painter",
    [
        Painter("a"),
        Painter("b", brush=Flat(tips=[1, 2]), speed=Ramp(0.0, start=2.0, over=0.5), signs=False),
        Painter("c", brush=Brush(3), spare=Round(softness=Ramp(1.0)), sizes=(1, 2), helper="d", notes={"n": [1]}),
    ],
)
def test_what_is_written_is_read_back(painter):
    assert made(Painter, plain(painter), "painter") == painter


def test_a_class_is_written_where_it_is_not_certain():
    written = plain(Painter("a"))
    assert written["brush"] == {"class_path": f"{__name__}.Round", "init_args": {"width": 1, "softness": 0.25}}
    assert written["spare"] == {"width": 1, "softness": 0.5}
    assert path(Ramp) == "Ramp"


def test_without_a_class_fields_are_what_differs_from_the_default():
    assert made(Painter, {"name": "a", "brush": {"width": 2}}, "").brush == Round(width=2, softness=0.25)
    assert made(Painter, {"name": "a", "brush": {"init_args": {"width": 2}}}, "").brush == Round(2, 0.25)
    assert made(Studio, {"painter": {"brush": {"width": 2}}}, "").painter == Painter("b", brush=Round(2, 0.75))
    named_anew = {"class_path": "Round", "init_args": {"width": 2}}
    assert made(Painter, {"name": "a", "brush": named_anew}, "").brush == Round(2, 0.5)


def test_numbers_become_what_the_field_holds():
    painter = made(Painter, {"name": "a", "speed": 2, "sizes": [1, 2]}, "")
    assert type(painter.speed) is float and painter.sizes == (1, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "p: .*missing.*'name'"),
        ({"name": 3}, "p.name must be str, got 3"),
        ({"nam": "a"}, "p has no field 'nam'; Painter has: brush, helper, mood,"),
        ({"brush": 3}, "p.brush must be the fields of a Brush, got 3"),
        ({"brush": {"width": 1.5}}, "p.brush.width must be int, got 1.5"),
        ({"brush": {"width": True}}, "p.brush.width must be int, got True"),
        ({"brush": {"depth": 1}}, "p.brush has no field 'depth'; Round has: softness, width"),
        (
            {"brush": {"class_path": "Square"}},
            r"p.brush.class_path: 'Square' is unknown; there are .*\.Flat, .*\.Round \(",
        ),
        ({"brush": {"class_path": "nowhere.Square"}}, "p.brush.class_path: cannot import 'nowhere.Square': No module"),
        ({"brush": {"class_path": "slotlib.model.Ramp"}}, "p.brush.class_path: 'slotlib.model.Ramp' is no Brush"),
        ({"brush": {"class_path": "Round", "width": 3}}, "p.brush: .* fields stand in init_args, got width beside it"),
        ({"brush": {"class_path": "Flat", "init_args": {"tips": [1, "x"]}}}, r"p.brush.tips\[1\] must be int, got 'x'"),
        ({"mood": "odd"}, "p.mood must be 'calm' or 'wild', got 'odd'"),
        ({"mood": "wild", "signs": False, "name": "a"}, "p: a wild painter signs"),
        ({"speed": "fast"}, "p.speed must be float or Ramp, got 'fast'"),
        ({"speed": {"end": 1, "over": -0.5}}, "p.speed: a Ramp's after and over must be at least 0"),
        ({"speed": {"start": 1}}, "p.speed: .*missing.*'end'"),
        ({"speed": {"end": 1, "curve": "sine"}}, "p.speed.curve must be 'linear' or 'cosine', got 'sine'"),
        ({"helper": 3}, "p.helper must be str or None, got 3"),
        ({"notes": 3}, r"p.notes must be dict\[str, Any\], got 3"),
    ],
)
def test_what_does_not_fit_is_named(fields, message):
    with pytest.raises(ValueError, match=f"^{message}") as error:
        made(Painter, fields, "p")
    assert "\n" not in str(error.value)


def test_a_class_is_found_by_its_name_or_its_path():
    assert named(Brush, "Flat", "") is named(Brush, f"{__name__}.Flat", "") is Flat
    assert named(Model, "slotlib.autoencoder.SlotAutoencoder", "") is Model.known["SlotAutoencoder"]


def test_choices_are_what_can_be_built():
    assert [each.rpartition(".")[2] for each in choices(Brush)] == ["Flat", "Round"]
    models = choices(Model)
    assert {"SlotAutoencoder", "SVQAutoencoder", "SetPredictor"} <= set(models) and "Model" not in models
    # Those of slotlib; other tests bring their own, which have a path.
    attentions, decoders = (
        [each for each in choices(kind) if "." not in each] for kind in (AttentionConfig, DecoderConfig)
    )
    assert attentions == ["AttentionConfig", "QuantisedAttentionConfig"]
    assert decoders == ["Broadcast", "Coordinate", "Separable"]


def test_every_field_is_described_by_what_stands_below_it():
    found = {each.name: each for each in described(Painter("a", spare=Round(3)), "p")}
    assert found["p.brush.class_path"].value == f"{__name__}.Round"
    assert found["p.brush.class_path"].purpose == "What it paints with."
    assert found["p.brush.width"].purpose == "Of a stroke, in pixels."  # a parent's
    assert found["p.brush.softness"][1:] == ("float or Ramp", 0.25, "Of the edge.")
    assert found["p.spare.width"].value == 3 and "p.spare.class_path" not in found
    assert found["p.mood"].kind == "'calm' or 'wild'" and not found["p.mood"].purpose


def test_a_class_without_source_is_described_without_purposes():
    space: dict[str, Any] = {"__name__": "nowhere"}
    exec('from dataclasses import dataclass\n@dataclass\nclass Here:\n    x: int = 1\n    "Says."\n', space)
    assert [each.name for each in described(space["Here"](), "h")] == ["h.x"]
