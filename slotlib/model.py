"""What training, evaluation and the zoo ask of a model, and nothing else (chapter 10).

A model owns all that is about it: what it takes of a scene, its loss, what its schedule moves, how it is judged. So a
new model is one file: a dataclass that holds its numbers, and a subclass of `Model` whose annotation `config` names
that dataclass. `training.train` then trains it, kills and resumes included, and `slotlib.load` gives it back.

    @dataclass
    class MyConfig:
        width: int = 64
        noise: float | Ramp = Ramp(0.1, start=1.0, over=0.5)

    class MyModel(Model):
        config: MyConfig

        def __init__(self, config): ...
        def loss(self, images, draws=None): ...   # may read self.noise, which training moves

Two value types go with it. A `Ramp` is a number that moves along the schedule. `Draws` is where a step's random numbers
come from; with it several devices, or several parts of a batch, draw what one process with the whole batch would.
"""

import dataclasses
import functools
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, get_args, get_type_hints

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from slotlib import check, configuration

Scenes = Mapping[str, Any]
"""A batch as `slotlib.data` gives it: `image` `[batch, 3, H, W]`, `mask` where there are masks, `objects`."""


@dataclass(frozen=True)
class Ramp:
    """A number that moves while a model trains: `start` until `after`, then within `over` to `end`, where it stays.

    `after` and `over` are fractions of the schedule, so a ramp means the same in a run of any length. With `over=0` it
    jumps.

    Raises ValueError for a number that is not finite, a length below 0, or an unknown curve.
    """

    end: float
    start: float = 0.0
    after: float = 0.0
    over: float = 0.0
    curve: Literal["linear", "cosine"] = "linear"

    def __post_init__(self) -> None:
        for name in ("end", "start", "after", "over"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"a Ramp's {name} must be a finite number, got {value!r}")
        if self.after < 0 or self.over < 0:
            raise ValueError(f"a Ramp's after and over must be at least 0, got {self.after} and {self.over}")
        check.choice("a Ramp's curve", self.curve, ("linear", "cosine"))

    def at(self, progress: float) -> float:
        """The number at `progress`, 0 at the first step and 1 at the end of the schedule."""
        if progress < self.after:
            return self.start
        way = min(1.0, (progress - self.after) / self.over) if self.over else 1.0
        if self.curve == "cosine":
            return self.end + (self.start - self.end) * 0.5 * (1 + math.cos(math.pi * way))
        return self.start + (self.end - self.start) * way if way < 1 else self.end


class Draws(NamedTuple):
    """Random numbers for scenes that are every `every`-th of a larger batch, from its `first` on.

    They are drawn for the whole batch, on the generator's device (without one, from torch's global generator), and this
    share of them is kept. So the numbers of a scene do not depend on how its batch is cut up.
    """

    generator: torch.Generator | None = None
    first: int = 0
    every: int = 1

    @staticmethod
    def given(value: object) -> "Draws":
        """`value`, or for None the numbers of torch's global generator. Raises ValueError for anything else."""
        if not isinstance(value, Draws | None):
            said = check.described(value)
            raise ValueError(f"draws must be a slotlib.Draws, such as Draws(generator), or None, got {said}")
        draws = value or Draws()
        check.generator(draws.generator)
        return draws

    def whole(self, count: int) -> int:
        """How many scenes the batch has of which `count` are here."""
        return count * self.every

    def share(self, numbers: Tensor) -> Tensor:
        """Of numbers for the whole batch, those of the scenes here."""
        return numbers[self.first :: self.every]

    def device(self, like: Tensor) -> torch.device:
        """Where numbers are drawn that are then used beside `like`."""
        return like.device if self.generator is None else self.generator.device

    def normal(self, count: int, *shape: int, like: Tensor) -> Float[Tensor, "count *shape"]:
        """Standard normal numbers for `count` scenes, in the precision and on the device of `like`."""
        numbers = torch.randn(
            self.whole(count), *shape, generator=self.generator, device=self.device(like), dtype=like.dtype
        )
        return self.share(numbers).to(like.device)

    def exponential(self, count: int, *shape: int, like: Tensor) -> Float[Tensor, "count *shape"]:
        """Exponential numbers for `count` scenes, as `normal`; minus their logarithm is Gumbel noise."""
        numbers = torch.empty(self.whole(count), *shape, device=self.device(like), dtype=like.dtype)
        return self.share(numbers.exponential_(generator=self.generator)).to(like.device)

    def uniform(self, count: int, *shape: int, like: Tensor) -> Float[Tensor, "count *shape"]:
        """Numbers in [0, 1) for `count` scenes, in single precision, on the device of `like`."""
        numbers = torch.rand(self.whole(count), *shape, generator=self.generator, device=self.device(like))
        return self.share(numbers).to(like.device)

    def integers(self, high: int, count: int, *shape: int, like: Tensor) -> Int[Tensor, "count *shape"]:
        """Whole numbers in [0, high) for `count` scenes, on the device of `like`."""
        numbers = torch.randint(high, (self.whole(count), *shape), generator=self.generator, device=self.device(like))
        return self.share(numbers).to(like.device)

    def common(self, high: int, count: int) -> list[int]:
        """`count` whole numbers in [0, high) that all scenes of the batch have in common."""
        device = "cpu" if self.generator is None else self.generator.device
        return torch.randint(high, (count,), generator=self.generator, device=device).tolist()


class Look(NamedTuple):
    """What is worth a look while a model trains."""

    pictures: Mapping[str, list[np.ndarray]]
    """Rows of pictures `[H, W, 3]` in [0, 1], by name."""
    signs: Mapping[str, float]
    """Numbers that tell health from failure, without labels."""
    warnings: Mapping[str, str]
    """By kind: what is wrong, and what to try."""


class Model(nn.Module):
    """What can be trained, judged, saved and loaded.

    Its annotation `config` names the dataclass that defines it; its constructor takes one. A module within it that has
    a `config` of its own (a decoder, slot attention) may have ramps there too.
    """

    config: Any
    card: dict[str, Any]
    """Of a model that was loaded: what its checkpoint says of it."""
    before: Sequence[Mapping[str, Any]] = ()
    """How the parts that it was made with were trained, stage by stage (`trained`)."""
    known: ClassVar[dict[str, type["Model"]]] = {}
    """Every model that has been imported, by what `class_path` says of it."""

    def trained(self) -> list[Mapping[str, Any]]:
        """Of a model that was loaded: how it was trained, stage by stage, for the cards of models made from it."""
        names = "training", "dataset", "wall_seconds"
        return [*self.card.get("before", []), {name: self.card.get(name) for name in names}]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        Model.known[configuration.path(cls)] = cls

    @classmethod
    def configuration(cls) -> type:
        """The dataclass that defines this model. Raises TypeError without one."""
        found = get_type_hints(cls).get("config")
        if not isinstance(found, type) or not dataclasses.is_dataclass(found):
            raise TypeError(f"{cls.__name__} must say which dataclass defines it, as an annotation `config: MyConfig`")
        return found

    @staticmethod
    def defined_by(config: Any) -> type["Model"]:
        """The class that a configuration defines. Raises TypeError for what defines none, or several."""
        fitting = [
            kind
            for kind in Model.known.values()
            if "config" in inspect.get_annotations(kind) and kind.configuration() is type(config)
        ]
        if len(fitting) != 1:
            found = " and ".join(kind.__name__ for kind in fitting) or "no model"
            raise TypeError(f"a model is defined by a dataclass of its own; a {type(config).__name__} defines {found}")
        return fitting[0]

    def at(self, progress: float) -> None:
        """Set whatever the schedule moves to where it is at `progress`: 0 at the first step, 1 at the end.

        A `Ramp` in the configuration of a module becomes that module's attribute of the same name, and so does a plain
        number where a ramp could stand. Nobody else sets scheduled state. Extend it for what a number does not say.
        """
        for module, name, kind in self._scheduled():
            value = getattr(module.config, name)
            if isinstance(value, Ramp):
                value = value.at(progress)
                value = value if kind is float else kind(round(value))
            setattr(module, name, value)

    def _scheduled(self) -> Iterator[tuple[Any, str, type]]:
        """The modules with a field in their configuration in which a ramp may stand, and what else may."""
        for module in self.modules():
            config = getattr(module, "config", None)
            if dataclasses.is_dataclass(config):
                for name, kind in _movable(type(config)).items():
                    yield module, name, kind

    @property
    def has_schedule(self) -> bool:
        """Whether `at` makes any difference: there is a ramp, or a subclass extends it."""
        ramps = (isinstance(getattr(module.config, name), Ramp) for module, name, _ in self._scheduled())
        return type(self).at is not Model.at or any(ramps)

    def settle(self) -> None:
        """End the schedule here: every ramp in the configuration becomes the number that it has come to."""
        for module, name, _ in self._scheduled():
            setattr(module.config, name, getattr(module, name))

    def inputs(self, scenes: Scenes) -> tuple[Tensor, ...]:
        """What `loss` takes of a batch of scenes. Raises ValueError for scenes that do not have it."""
        return (scenes["image"],)

    def loss(self, *inputs: Tensor, draws: Draws | None = None) -> Float[Tensor, ""]:
        """What training makes small: a mean over the scenes, so that the mean over shares of a batch is the loss of the
        whole."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its loss is")

    def start_from(self, other: "Model", parts: list[str]) -> int:
        """Take over weights of another model where name and shape agree, or of them those whose names begin with one
        of `parts`. Returns how many."""
        own = self.state_dict()
        shared = {
            name: tensor
            for name, tensor in other.state_dict().items()
            if name in own and tensor.shape == own[name].shape and name.startswith(tuple(parts or [""]))
        }
        self.load_state_dict(shared, strict=False)
        return len(shared)

    def prepare(self, scenes: Scenes, draws: Draws) -> None:
        """Once, before the first step of a new run: what is to be found out from some scenes."""

    def kept(self, *inputs: Tensor, draws: Draws) -> tuple[Tensor, ...] | None:
        """What `loss` takes instead of `inputs`, if that can be computed once and for all; with `data.keep` it is."""
        return None

    def update(self, draws: Draws) -> None:
        """After every step: what is learned without gradients."""

    def judge(self, scenes: Scenes, draws: Draws | None = None, **how: Any) -> dict[str, Tensor]:
        """Scores of every scene, by name, the leading one first; NaN where a scene does not tell."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it is judged")

    def summarise(self, columns: Mapping[str, Tensor]) -> dict[str, float]:
        """What all scenes together come to, from what `judge` said of each: by default their means."""
        return {name: column.float().mean().item() for name, column in columns.items()}

    def look(self, scenes: Scenes) -> Look:
        """What is worth a look."""
        return Look({}, {}, {})


@functools.cache
def _movable(config: type) -> dict[str, type]:
    """The fields of a dataclass in which a ramp may stand, with what else may: a field `int | Ramp` moves in whole
    numbers."""
    fields = {field.name: get_args(get_type_hints(config)[field.name]) for field in dataclasses.fields(config)}
    return {name: next(kind for kind in kinds if kind is not Ramp) for name, kinds in fields.items() if Ramp in kinds}
