"""A ramp is where the schedule says, draws do not depend on how a batch is cut up, a dataclass defines its model."""

import dataclasses
import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from slotlib import SlotAutoencoder, SVQAutoencoder, model
from slotlib.autoencoder import AutoencoderConfig
from slotlib.decoders import Separable
from slotlib.encoders import Strided
from slotlib.likelihoods import Mixture
from slotlib.model import Draws, Model, Ramp
from slotlib.slot_attention import AttentionConfig
from slotlib.svq import QuantisedAttentionConfig, SVQConfig

# --- Ramp ---


@pytest.mark.parametrize(
    ("ramp", "expected"),
    [
        (Ramp(1), {0: 1, 0.5: 1, 1: 1}),
        (Ramp(1, after=0.25), {0: 0, 0.2499: 0, 0.25: 1, 1: 1}),
        (Ramp(0.3, after=0.1, over=0.1), {0: 0, 0.1: 0, 0.15: 0.15, 0.2: 0.3, 0.5: 0.3, 1: 0.3}),
        (Ramp(3, start=1, over=2), {0: 1, 0.5: 1.5, 1: 2}),
        (Ramp(0.1, start=0.5, over=1, curve="cosine"), {0: 0.5, 0.5: 0.3, 1: 0.1, 1.015: 0.1}),
        (Ramp(0, start=1, after=0.5, over=0.5, curve="cosine"), {0.5: 1, 0.75: 0.5, 2 / 3: 0.75, 1: 0}),
    ],
)
def test_a_ramp_is_where_the_schedule_says(ramp, expected):
    for progress, value in expected.items():
        assert ramp.at(progress) == pytest.approx(value, abs=1e-12)


def test_a_ramp_ends_exactly_at_its_end():
    for curve in ("linear", "cosine"):
        assert Ramp(0.1, start=0.7, after=0.2, over=0.3, curve=curve).at(0.6) == 0.1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"over": -0.1}, "after and over must be at least 0, got 0.0 and -0.1"),
        ({"after": -1}, "after and over must be at least 0, got -1 and 0.0"),
        ({"end": math.nan}, "a Ramp's end must be a finite number, got nan"),
        ({"start": math.inf}, "a Ramp's start must be a finite number, got inf"),
        ({"end": "1"}, "a Ramp's end must be a finite number, got '1'"),
        ({"curve": "steep"}, r"curve must be one of \('linear', 'cosine'\), got 'steep'"),
    ],
)
def test_a_ramp_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Ramp(**{"end": 1.0, **fields})


# --- Draws ---


@pytest.mark.parametrize("every", [1, 2, 4])
@pytest.mark.parametrize(
    "draw",
    [
        lambda draws, count: draws.normal(count, 3, 2, like=torch.zeros(())),
        lambda draws, count: draws.normal(count, 3, like=torch.zeros((), dtype=torch.float64)),
        lambda draws, count: draws.exponential(count, 5, like=torch.zeros(())),
        lambda draws, count: draws.uniform(count, 7, like=torch.zeros((), dtype=torch.int64)),
        lambda draws, count: draws.integers(1000, count, 3, like=torch.zeros(())),
        lambda draws, count: draws.share(torch.arange(draws.whole(count))),
    ],
    ids=["normal", "double", "exponential", "uniform", "integers", "share"],
)
def test_shares_of_a_batch_are_the_rows_of_the_whole(draw, every):
    whole = draw(Draws(generator(3)), 8)
    assert len(whole) == 8
    for first in range(every):
        assert torch.equal(draw(Draws(generator(3), first, every), 8 // every), whole[first::every])


def test_what_all_scenes_have_in_common_is_the_same_in_every_share():
    assert Draws(generator(), 1, 4).common(1000, 3) == Draws(generator()).common(1000, 3)


def test_draws_are_of_their_kind_and_in_the_precision_asked_for():
    draws, half = Draws(generator()), torch.zeros((), dtype=torch.float64)
    assert draws.normal(4000, like=half).std() == pytest.approx(1, abs=0.05)
    assert draws.normal(1, like=half).dtype == draws.exponential(1, like=half).dtype == torch.float64
    assert draws.exponential(4000, like=half).mean() == pytest.approx(1, abs=0.05)
    assert draws.uniform(1, like=half).dtype == torch.float32
    assert set(draws.integers(3, 100, like=half).tolist()) == {0, 1, 2}


def test_without_a_generator_the_global_one_decides():
    torch.manual_seed(0)
    first = Draws().normal(3, like=torch.zeros(()))
    torch.manual_seed(0)
    assert torch.equal(Draws().normal(3, like=torch.zeros(())), first)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- Model ---


@dataclass
class Settings:
    """Of `Toy`, and where a ramp may stand."""

    width: int = 2
    strength: float | Ramp = 1.0
    steps: int | Ramp = 1
    hard: bool | Ramp = True


class Part(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config


@dataclass
class ToyConfig:
    part: Settings = field(default_factory=Settings)
    pull: float | Ramp = field(default_factory=lambda: Ramp(2, start=1, over=1))


class Toy(Model):
    config: ToyConfig

    def __init__(self, config):
        super().__init__()
        self.config, self.part = config, Part(config.part)
        self.layer = nn.Linear(config.part.width, 1)
        self.at(1.0)


def test_ramps_become_attributes_of_the_module_whose_configuration_they_are_in():
    ramps = Settings(strength=Ramp(3, over=0.5), steps=Ramp(5, start=1, over=1), hard=Ramp(1, after=0.5))
    toy = Toy(ToyConfig(ramps))
    assert (toy.pull, toy.part.strength, toy.part.steps, toy.part.hard) == (2, 3, 5, True)
    seen = []
    for progress in (0, 0.25, 0.45, 0.5):
        toy.at(progress)
        seen.append((toy.pull, toy.part.strength, toy.part.steps, toy.part.hard))
    assert seen == [(1, 0, 1, False), (1.25, 1.5, 2, False), (1.45, pytest.approx(2.7), 3, False), (1.5, 3, 3, True)]
    assert [type(value) for value in seen[0][2:]] == [int, bool]


def test_a_plain_number_where_a_ramp_could_stand_is_set_too():
    toy = Toy(ToyConfig(Settings(strength=0.5, hard=False), pull=4.0))
    toy.at(0.3)
    assert (toy.pull, toy.part.strength, toy.part.steps, toy.part.hard) == (4.0, 0.5, 1, False)


def test_a_model_knows_whether_anything_moves():
    assert Toy(ToyConfig()).has_schedule
    assert not Toy(ToyConfig(pull=1.0)).has_schedule
    assert Toy(ToyConfig(Settings(hard=Ramp(1)), pull=1.0)).has_schedule
    assert Extended(ToyConfig(pull=1.0)).has_schedule


class Extended(Toy):
    """What a subclass does along the schedule beyond numbers."""

    def at(self, progress):
        super().at(progress)


def test_settled_ramps_are_numbers_and_stay():
    toy = Toy(ToyConfig(Settings(steps=Ramp(5, start=1, over=1), hard=Ramp(1, after=0.5))))
    toy.at(0.25)
    toy.settle()
    assert toy.config == ToyConfig(Settings(steps=2, hard=False), pull=1.25)
    toy.at(1.0)
    assert (toy.pull, toy.part.steps, toy.part.hard) == (1.25, 2, False)
    assert not toy.has_schedule


def test_the_schedules_of_slotlib_s_own_models_move_their_parts():
    attention = AttentionConfig(slot_dim=8, gradient="implicit", gradient_steps=Ramp(4, start=1, after=0.5))
    config = AutoencoderConfig(
        encoder=Strided(8),
        attention=attention,
        decoder=Separable(8, "shaded", shading=Ramp(1, after=0.25, over=0.5)),
        likelihood=Mixture(noise=Ramp(0.1, start=0.5, over=1, curve="cosine"), sparsity=Ramp(0.3, after=0.1, over=0.1)),
    )
    found = SlotAutoencoder(config)
    seen = []
    for progress in (0, 0.15, 0.5, 1):
        found.at(progress)
        parts = found.slot_attention, found.decoder, found.likelihood
        seen.append((parts[0].gradient_steps, parts[1].shading, parts[2].noise, parts[2].sparsity))
    steps, shading, noise, sparsity = zip(*seen, strict=True)
    assert steps == (1, 1, 4, 4)
    assert shading == (0, 0, 0.5, 1)
    assert noise == pytest.approx((0.5, 0.4782, 0.3, 0.1), abs=1e-4)
    assert sparsity == pytest.approx((0, 0.15, 0.3, 0.3))


@pytest.mark.parametrize(
    ("quantise", "seen"), [(Ramp(1, after=0.5), [False, True]), (False, [False] * 2), (True, [True] * 2)]
)
def test_codes_come_when_the_schedule_says_or_never(quantise, seen):
    attention = QuantisedAttentionConfig(slot_dim=8, quantise=quantise)
    decoder = Separable(8, "slot", colour_dims=Ramp(2, after=0.25))
    found = SVQAutoencoder(SVQConfig(encoder=Strided(8), attention=attention, decoder=decoder))
    for progress, expected in zip((0.4, 0.5), seen, strict=True):
        found.at(progress)
        assert found.slot_attention.quantise is expected
        assert found.decoder.colour_dims == 2


def test_a_model_is_found_by_its_dataclass():
    assert Model.defined_by(AutoencoderConfig()) is SlotAutoencoder
    assert Model.defined_by(SVQConfig()) is SVQAutoencoder
    assert Model.defined_by(ToyConfig()) is Toy  # and not Extended, which has no dataclass of its own
    assert Toy.configuration() is Extended.configuration() is ToyConfig


def test_slotlib_s_models_are_known_by_their_name_and_others_by_their_path():
    assert Model.known["SlotAutoencoder"] is SlotAutoencoder
    assert Model.known[f"{__name__}.Toy"] is Toy


@pytest.fixture
def forgotten(monkeypatch):
    """Models that a test defines are not known to others."""
    monkeypatch.setattr(Model, "known", dict(Model.known))


def test_a_model_of_the_same_name_elsewhere_takes_no_one_s_place(forgotten):
    other = type("SlotAutoencoder", (Model,), {"__module__": "elsewhere"})
    assert Model.known["elsewhere.SlotAutoencoder"] is other
    assert Model.known["SlotAutoencoder"] is SlotAutoencoder


def test_what_defines_no_model_is_named():
    with pytest.raises(TypeError, match="a Settings defines no model"):
        Model.defined_by(Settings())
    with pytest.raises(TypeError, match="a dict defines no model"):
        Model.defined_by({})


def test_a_dataclass_of_two_models_defines_neither(forgotten):
    class Twin(Model):
        config: ToyConfig

    with pytest.raises(TypeError, match="a ToyConfig defines Toy and Twin"):
        Model.defined_by(ToyConfig())


def test_a_model_without_a_dataclass_says_what_is_missing():
    with pytest.raises(
        TypeError, match="Model must say which dataclass defines it, as an annotation `config: MyConfig`"
    ):
        Model.configuration()


def test_weights_are_taken_over_where_name_and_shape_agree():
    source, same, wider = Toy(ToyConfig()), Toy(ToyConfig()), Toy(ToyConfig(Settings(width=3)))
    assert same.start_from(source, []) == 2
    assert torch.equal(same.layer.weight, source.layer.weight)
    before = wider.layer.weight.clone()
    assert wider.start_from(source, []) == 1  # the bias
    assert torch.equal(wider.layer.weight, before)
    assert same.start_from(source, ["layer.w", "nothing"]) == 1
    assert same.start_from(source, ["nothing"]) == 0


def test_what_a_model_does_not_say_has_an_answer_or_a_name():
    toy, image = Toy(ToyConfig()), torch.rand(2, 3, 4, 4)
    assert toy.inputs({"image": image, "mask": 0}) == (image,)
    assert toy.kept(image, draws=Draws()) is None
    assert toy.look({"image": image}) == model.Look({}, {}, {})
    assert toy.summarise({"a": torch.tensor([1, 2]), "b": torch.tensor([0.5, math.nan])}) == {
        "a": 1.5,
        "b": pytest.approx(math.nan, nan_ok=True),
    }
    with pytest.raises(NotImplementedError, match="Toy does not say what its loss is"):
        toy.loss(image)
    with pytest.raises(NotImplementedError, match="Toy does not say how it is judged"):
        toy.judge({"image": image})


@pytest.mark.parametrize("name", sorted(name for name in Model.known if "." not in name))
def test_every_model_has_a_dataclass_that_defines_it_alone(name):
    kind = Model.known[name]
    assert dataclasses.is_dataclass(kind.configuration())
    assert Model.defined_by(kind.configuration()()) is kind
