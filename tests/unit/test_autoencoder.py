"""The autoencoder: drawings that add up, restarts that help, and images that are what they should be."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from slotlib import data
from slotlib.autoencoder import (
    LIMITS,
    AutoencoderConfig,
    SlotAutoencoder,
    accepted,
    checked,
    compressed,
    expanded,
    softened,
)
from slotlib.decoders import Broadcast, Coordinate, Drawing, Separable
from slotlib.encoders import Paper, Strided
from slotlib.likelihoods import Average, Mixture, compose
from slotlib.metrics import MASK_SCORES, adjusted_rand_index, fg_ari
from slotlib.model import Draws, Ramp
from slotlib.slot_attention import AttentionConfig

ATTENTION = AttentionConfig(slot_dim=8, num_slots=3, mlp_hidden_dim=8)


def tiny(decoder=None, encoder=None, likelihood=None, resolution=35, **attention) -> AutoencoderConfig:
    """Every part once, and small."""
    return AutoencoderConfig(
        resolution,
        encoder or Strided(6),
        replace(ATTENTION, **attention),
        decoder or Broadcast(6),
        likelihood or Average(),
    )


TINY = tiny(encoder=Paper(6))
CONFIGS = {
    "paper": TINY,
    "coordinate": tiny(Coordinate(6)),
    "coordinate, one colour": tiny(Coordinate(6, "slot")),
    "separable": tiny(Separable(6), slot_init="one_learned", num_heads=2),
    "separable, shaded": tiny(Separable(6, "shaded")),
    "separable, one colour": tiny(Separable(6, "slot"), gradient="implicit"),
    "mixture": tiny(Separable(6, "slot"), likelihood=Mixture()),
    "mixture, shaded": tiny(Separable(6, "shaded"), likelihood=Mixture()),
    "mixture, compressed": replace(tiny(Separable(6, "shaded"), likelihood=Mixture()), compression=3.0),
}
AVERAGES = {name: config for name, config in CONFIGS.items() if isinstance(config.likelihood, Average)}
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(seed: int = 0) -> Draws:
    return Draws(generator(seed))


def build(config: AutoencoderConfig) -> SlotAutoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return SlotAutoencoder(config)


def pictures(count: int, side: int = 35, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=generator(seed))


def close(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


# --- how brightness is seen ---


@pytest.mark.parametrize("amount", [0.5, 2.0, 8.0])
def test_brightness_is_compressed_as_a_photoreceptor_does(amount):
    light = torch.linspace(0, 1, 101, dtype=torch.float64)
    seen = compressed(light, amount)
    close(expanded(seen, amount), light, atol=1e-12)
    # Black and white stay. Of half of the largest answer there is, light makes as much as 1/amount is.
    close(seen[[0, -1]], light[[0, -1]], atol=1e-12)
    close(compressed(torch.tensor([1 / amount]), amount), torch.tensor([(1 + 1 / amount) / 2]))
    assert (seen.diff() > 0).all() and (seen.diff().diff() < 0).all()  # more light is seen as more, but ever less so
    slope = torch.tensor(0.0, requires_grad=True)
    compressed(slope, amount).backward()
    close(slope.grad, torch.tensor(1 + amount))  # finite, where that of a power would not be


def test_no_light_is_brighter_than_any():
    values = torch.tensor([-0.4, 1.2, 1.25, 5.0])
    assert compressed(values, 2.0)[0] == 0
    found = expanded(values, 2.0)
    assert found.isfinite().all() and found[0] < 0 and found[2] == found[3] > found[1]


def test_a_model_without_compression_sees_what_it_is_given():
    images = pictures(2)
    close(build(CONFIGS["mixture, shaded"]).units(images), images * 2 - 1, atol=0)
    close(build(CONFIGS["mixture, compressed"]).units(images), compressed(images, 3.0) * 2 - 1, atol=0)


@pytest.mark.parametrize("name", ["compression", "softness"])
@pytest.mark.parametrize("wrong", [-1.0, math.nan, "2"])
def test_an_impossible_amount_is_refused(name, wrong):
    with pytest.raises(ValueError, match=name):
        build(replace(TINY, **{name: wrong}))


# --- how sharp an image is seen ---


@pytest.mark.parametrize("spread", [0.5, 0.8, 2.0])
def test_images_are_softened_by_a_gaussian(spread):
    images = pictures(2)
    found = softened(images, spread)
    expected = torch.from_numpy(gaussian_filter(images.numpy(), (0, 0, spread, spread), truncate=8))
    inside = (..., slice(14, -14), slice(14, -14))  # beyond the border SciPy makes up pixels
    close(found[inside], expected[inside], atol=1e-6)
    close(softened(torch.full((1, 3, 9, 9), 0.7), spread), torch.full((1, 3, 9, 9), 0.7), atol=1e-6)  # to the border
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(softened(images, spread), found)


def test_a_highlight_belongs_to_what_is_around_it():
    """A blue half and a grey one, with a grey dot on the blue half: by its colour alone the dot is the grey slot's."""
    side, dot = 9, (0, 4, 2)
    colours = torch.zeros(1, 2, 3, side, side)
    colours[:, 0, 2] = 1  # a blue slot, and a grey one
    logits = torch.zeros(1, 2, side, side)
    logits[:, 0, :, :5], logits[:, 1, :, 5:] = 2, 2  # drawn where they are, softly
    drawing = Drawing(colours, logits)
    image = torch.full((1, 3, side, side), 0.5)
    image[:, 2, :, :5] = 1
    image[:, 2, 4, 2] = 0.5
    slots, attention = torch.zeros(1, 2, 4), torch.zeros(1, 2, side, side)
    hard, soft = (
        build(replace(CONFIGS["mixture"], resolution=side, softness=softness)).output(drawing, image, slots, attention)
        for softness in (0.0, 0.8)
    )
    left = (hard.masks.argmax(1) == 0)[0]
    assert left.sum() == 5 * side - 1 and hard.masks.argmax(1)[dot] == 1
    assert torch.equal((soft.masks.argmax(1) == 0)[0], torch.arange(side).expand(side, -1) < 5)
    assert torch.equal(hard.drawn_masks, soft.drawn_masks) and torch.equal(hard.reconstruction, soft.reconstruction)


# --- what comes out ---


@each_config
def test_the_drawings_add_up_to_the_reconstruction(config):
    out = build(config)(pictures(2), generator=generator())
    close((out.drawn_masks.unsqueeze(2) * out.slot_images).sum(1), out.reconstruction)
    for masks in (out.masks, out.drawn_masks):
        close(masks.sum(1), torch.ones(2, 35, 35))
        assert (masks >= 0).all()
    close(out.attention.sum(1), torch.ones_like(out.attention[:, 0]))
    if isinstance(config.likelihood, Average):
        close(out.masks, out.drawn_masks, atol=0)


@pytest.mark.parametrize("config", AVERAGES.values(), ids=AVERAGES.keys())
def test_the_loss_is_the_error_of_the_reconstruction_in_units_of_plus_minus_one(config):
    model, images = build(config), pictures(2)
    out = model(images, generator=generator())
    error = F.mse_loss(2 * out.reconstruction - 1, 2 * images - 1)
    close(model.loss(images, draws()), error)


@each_config
def test_every_parameter_that_learns_gets_a_gradient(config):
    model = build(config)
    model.loss(pictures(2), draws()).backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    # μ and σ stay where they are under the implicit gradient; nothing else may.
    still = {"slot_attention.slots_mu", "slot_attention.slots_log_sigma"}
    assert without - (still if config.attention.gradient == "implicit" else set()) == set()


@each_config
def test_more_slots_or_iterations_than_configured(config):
    model, images = build(config), pictures(2)
    out = model(images, num_slots=5, num_iterations=2, generator=generator())
    assert out.masks.shape == (2, 5, 35, 35)
    assert out.slot_images.shape == (2, 5, 3, 35, 35)
    wider = SlotAutoencoder(replace(config, attention=replace(config.attention, num_slots=5, num_iterations=2)))
    wider.load_state_dict(model.state_dict())
    close(wider(images, generator=generator()).reconstruction, out.reconstruction)


@each_config
def test_double_precision_draws_the_same(config):
    model, images = build(config), pictures(2)
    start = model.slot_attention.initial_slots(2, generator=generator())

    def draw(model, images, start):
        slots = model.slot_attention(model.encode(images).flatten(1, 2), slots=start).slots
        return compose(model.decoder(slots))[0]

    single = draw(model, images, start)
    close(draw(model.double(), images.double(), start.double()).float(), single, atol=1e-4)


@each_config
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_draws_nearly_the_same(config, dtype):
    model, images = build(config), pictures(2)
    single = model(images, generator=generator()).reconstruction
    half = model.to(dtype)(images.to(dtype), generator=generator()).reconstruction
    assert half.dtype == dtype and (half - single).abs().mean() < 0.05
    assert model.loss(images.to(dtype), draws()).isfinite()


@each_config
def test_one_generator_state_is_one_result(config):
    model, images = build(config), pictures(2)
    one, again, other = (model(images, generator=generator(seed)).slots for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("decoder", [Coordinate(6, "slot"), Separable(6, "slot")])
def test_a_slot_of_one_colour_paints_one_colour(decoder):
    images = build(tiny(decoder))(pictures(2)).slot_images
    close(images, images[..., :1, :1].expand_as(images), atol=0)


@pytest.mark.parametrize("resolution", [35, 64, 128])
@pytest.mark.parametrize("decoder", [Broadcast(6), Coordinate(6), Separable(6)])
def test_every_resolution_is_drawn_at_its_own_size(resolution, decoder):
    model = build(tiny(decoder, resolution=resolution))
    with torch.no_grad():
        out = model(pictures(1, resolution))
    assert out.reconstruction.shape == (1, 3, resolution, resolution)
    assert out.masks.shape == (1, 3, resolution, resolution)
    side = math.ceil(resolution / 4)
    assert out.attention.shape == (1, 3, side, side)


def test_attention_is_on_the_grid_of_the_encoder():
    with torch.no_grad():
        assert build(TINY)(pictures(1)).attention.shape == (1, 3, 35, 35)


@pytest.mark.parametrize(("resolution", "channels"), [(35, 32), (128, 64)])
def test_the_paper_s_model_has_the_paper_s_size(resolution, channels):
    # Layer by layer from appendix E.3 of Locatello et al. (2020): kernel · kernel · in · out, and a bias per output.
    def size(module):
        return sum(p.numel() for p in module.parameters())

    position = 4 * 64 + 64
    model = SlotAutoencoder(AutoencoderConfig(resolution, decoder=Broadcast(channels)))
    convolutions = (25 * 3 * 64 + 64) + 3 * (25 * 64 * 64 + 64)
    assert size(model.encoder) == convolutions + position + 2 * 64 + 2 * (64 * 64 + 64)
    attention = 3 * 2 * 64 + 3 * 64 * 64  # LayerNorms; q, k, v
    gru, mlp = 2 * (3 * 64 * 64 + 3 * 64), (64 * 128 + 128) + (128 * 64 + 64)
    assert size(model.slot_attention) == attention + gru + mlp + 2 * 64
    flat, enlarging = (25 * 64 * 32 + 32) + 2 * (25 * 32 * 32 + 32), 5 * (25 * 64 * 64 + 64)
    assert size(model.decoder) == position + {35: flat, 128: enlarging}[resolution] + 9 * channels * 4 + 4


# --- restarts ---


@pytest.mark.parametrize("name", ["paper", "separable, one colour"])
def test_restarts_keep_the_start_of_least_error(name):
    model, images, restarts = build(CONFIGS[name]), pictures(4), 5
    out = model(images, restarts=restarts, generator=generator())
    starts = model.slot_attention.initial_slots(4 * restarts, generator=generator()).unflatten(0, (4, restarts))
    errors, tries = [], []
    for r in range(restarts):
        features = model.encode(images).flatten(1, 2)
        slots, attention, _ = model.slot_attention(features, slots=starts[:, r])
        picture, masks = compose(model.decoder(slots))
        tries.append(((picture + 1) / 2, masks, slots, attention))
        errors.append((tries[-1][0] - images).square().mean((1, 2, 3)))
    errors = torch.stack(errors)
    kept = (out.reconstruction - images).square().mean((1, 2, 3))
    close(kept, errors.min(0).values, atol=1e-6)
    assert (kept <= errors + 1e-6).all()
    for image, best in enumerate(errors.argmin(0)):
        reconstruction, masks, slots, attention = (x[image] for x in tries[best])
        close(out.reconstruction[image], reconstruction)
        close(out.masks[image], masks)
        close(out.slots[image], slots, atol=1e-4)
        close(out.attention[image].flatten(1), attention, atol=1e-4)
    close((out.masks.unsqueeze(2) * out.slot_images).sum(1), out.reconstruction)


def test_restarts_keep_the_likeliest_drawing():
    model = build(tiny(Separable(6, "slot"), likelihood=Mixture(sparsity=0.1)))
    images, restarts = pictures(3), 4
    out = model(images, restarts=restarts, generator=generator())
    starts = model.slot_attention.initial_slots(3 * restarts, generator=generator()).unflatten(0, (3, restarts))
    features, target = model.encode(images).flatten(1, 2), 2 * images - 1
    drawings = [model.decoder(model.slot_attention(features, slots=starts[:, r]).slots) for r in range(restarts)]
    best = torch.stack([model.likelihood.cost(drawing, target) for drawing in drawings]).argmin(0)
    masks = torch.stack([model.likelihood.masks(drawing, target) for drawing in drawings])
    close(out.masks, masks[best, torch.arange(3)], atol=1e-4)


def test_a_learned_start_gains_nothing_from_restarts():
    model, images = build(tiny(encoder=Paper(6), slot_init="learned")), pictures(2)
    close(model(images, restarts=3).reconstruction, model(images).reconstruction)


@pytest.mark.parametrize("restarts", [1, 3])
def test_starts_of_an_image_do_not_depend_on_how_its_batch_is_cut_up(restarts):
    model = build(TINY)
    whole = model.starts(6, draws(), restarts=restarts).unflatten(0, (6, restarts))
    for first in range(3):
        part = model.starts(2, Draws(generator(), first, 3), restarts=restarts)
        assert torch.equal(part.unflatten(0, (2, restarts)), whole[first::3])


# --- a mixture ---


def mixture(likelihood: Mixture, **fields) -> SlotAutoencoder:
    return build(tiny(Separable(6, "slot"), likelihood=likelihood, **fields))


def test_without_noise_the_nearest_colour_owns_a_pixel_and_with_much_the_drawn_mask_decides():
    model, images = mixture(Mixture()), pictures(2)
    for noise in (1e-3, 1e3):
        model.likelihood.noise = noise
        out = model(images, generator=generator())
        if noise > 1:
            close(out.masks, out.drawn_masks)
        else:
            distance = (out.slot_images - images.unsqueeze(1)).square().sum(2)
            assert (out.masks.argmax(1) == distance.argmin(1)).float().mean() > 0.99


def test_the_loss_of_a_single_slot_is_the_squared_error_whatever_the_noise():
    images = pictures(2)
    for noise in (0.05, 0.6):
        model = mixture(Mixture(noise), num_slots=1)
        out = model(images, generator=generator())
        error = F.mse_loss(2 * out.reconstruction - 1, 2 * images - 1)
        close(model.loss(images, draws()), error)
        close(out.masks, torch.ones_like(out.masks))


def test_sparsity_empties_slots():
    images = pictures(2)
    for sparsity in (0.0, 1e3):
        model = mixture(Mixture(1.0, sparsity), num_slots=4)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(30):
            optimizer.zero_grad()
            model.loss(images, draws()).backward()
            optimizer.step()
        largest = model(images, generator=generator()).masks.mean((2, 3)).amax(1)
        assert (largest > 0.9).all() if sparsity else (largest < 0.9).all(), largest


# --- a loss on part of an image ---


@pytest.mark.parametrize("likelihood", [Average(), Mixture()])
def test_the_loss_on_every_other_row_and_column_is_unbiased(likelihood):
    images = pictures(2, side=36)
    # A learned start, so that nothing but the choice of rows and columns is random.
    fields = dict(likelihood=likelihood, resolution=36, slot_init="learned")
    whole, part = (build(tiny(Separable(6, "slot", stride=stride), **fields)) for stride in (1, 2))
    losses = torch.stack([part.loss(images, draws(seed)) for seed in range(40)])
    assert len(losses.unique()) == 4  # where the rows and where the columns begin
    close(losses.unique().mean(), whole.loss(images))


@pytest.mark.parametrize("colour", ["pixel", "slot"])
def test_the_loss_on_sampled_pixels_is_unbiased(colour):
    full, sampled = (build(tiny(Coordinate(6, colour, pixels=n), slot_init="learned")) for n in (0, 20))
    images = pictures(8)
    with torch.no_grad():
        source = draws()
        losses = torch.stack([sampled.loss(images, source) for _ in range(200)])
        assert losses.std() > 0
        assert abs(losses.mean() - full.loss(images)) < 4 * losses.std() / 200**0.5


# --- scores and a look ---


def test_scores_are_of_drawn_masks_first_then_of_the_posterior_and_of_the_pictures():
    scenes = data.make("tetrominoes", 6, seed=0).batch(range(6))
    model = mixture(Mixture())
    out, found = model(scenes["image"], generator=generator()), model.judge(scenes, draws())
    kinds = {"drawn": out.drawn_masks, "posterior": out.masks}
    assert list(found) == [*(f"{kind}_{name}" for kind in kinds for name in MASK_SCORES), "mse"]
    for kind, masks in kinds.items():
        assert torch.equal(found[f"{kind}_fg_ari"], fg_ari(scenes["mask"], masks.argmax(1)))
        assert torch.equal(found[f"{kind}_ari"], adjusted_rand_index(scenes["mask"], masks.argmax(1)))
    assert not torch.equal(found["drawn_ari"], found["posterior_ari"])
    close(found["mse"], (out.reconstruction - scenes["image"]).square().mean((1, 2, 3)))
    assert (found["drawn_miou"] <= found["drawn_mbo"]).all()
    more = model.judge(scenes, draws(), num_slots=5, restarts=2)
    assert not torch.equal(more["mse"], found["mse"])


def test_scenes_without_masks_have_no_scores_but_an_error():
    found = build(TINY).judge({"image": pictures(3)}, draws())
    assert all(column.isnan().all() == (name != "mse") for name, column in found.items())


def test_a_model_without_a_posterior_has_drawn_masks_only():
    scenes = data.make("tetrominoes", 3, seed=0).batch(range(3))
    model = build(TINY)
    out = model(scenes["image"], generator=generator())
    assert torch.equal(out.masks, out.drawn_masks)
    assert list(model.judge(scenes, draws())) == [*(f"drawn_{name}" for name in MASK_SCORES), "mse"]


def test_what_is_no_batch_of_scenes_is_named():
    for wrong in (None, 3, [pictures(1)], {"mask": torch.zeros(1, 35, 35)}):
        for call in (build(TINY).judge, build(TINY).look):
            with pytest.raises(ValueError, match="scenes must be a batch with an image"):
                call(wrong)


def test_a_look_shows_eight_scenes_and_the_signs_of_failure():
    scenes = data.make("tetrominoes", 10, seed=0).batch(range(10))
    look = build(TINY).look(scenes)
    assert look.pictures and all(len(rows) == 8 for rows in look.pictures.values())
    assert 0 <= look.signs["largest_slot"] <= 1
    assert "collapse" in look.warnings  # every model begins so


# --- bad input ---


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("call", [SlotAutoencoder.__call__, SlotAutoencoder.loss, SlotAutoencoder.encode])
def test_images_that_are_not_finite_are_one_clear_error(call, value):
    images = pictures(2)
    images[1, 2, 30, 4] = value
    with pytest.raises(ValueError, match="images must be finite"):
        call(build(TINY), images)


@pytest.mark.parametrize(
    ("images", "named"),
    [
        (pictures(2, 36), ["[2, 3, 36, 36]", "3, 35, 35"]),
        (pictures(2)[0], ["[3, 35, 35]", "3, 35, 35"]),
        (pictures(2)[:, :1], ["[2, 1, 35, 35]", "3, 35, 35"]),
        (pictures(2).movedim(1, 3), ["[2, 35, 35, 3]", "3, 35, 35"]),
        (torch.zeros(2, 3, 35, 35, dtype=torch.uint8), ["uint8", "floating point"]),
        (pictures(2).numpy(), ["a NumPy array", "torch.from_numpy"]),
        (pictures(2).double(), ["torch.float32", "torch.float64"]),
        (None, ["images must be floating point", "got None"]),
        ([[0.5]], ["images must be floating point", "got [[0.5]]"]),
        (pictures(0), ["images must be at least one", "an empty batch"]),
        (pictures(2) * 255, ["[0, 1]", "divide bytes by 255"]),
        (pictures(2) * 2 - 1, ["[0, 1]", "(x + 1) / 2"]),
        ((pictures(2) - 0.45) / 0.22, ["images must lie in [0, 1]"]),  # standardised
    ],
)
@pytest.mark.parametrize("call", [SlotAutoencoder.__call__, SlotAutoencoder.loss])
def test_images_of_another_kind_are_one_clear_error(call, images, named):
    with pytest.raises(ValueError) as error:
        call(build(TINY), images)
    assert all(word in str(error.value) for word in named), str(error.value)


def test_images_a_little_outside_are_taken_as_they_are():
    # Twice the light, unclipped, or noise: a fifth of the range on either side.
    images = pictures(2) * 1.4 - 0.2
    assert LIMITS[0] < images.min() < 0 and 1 < images.max() < LIMITS[1]
    close(accepted(images, 35, torch.float32), images, atol=0)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"restarts": 0}, ["restarts", "got 0"]),
        ({"restarts": "2"}, ["restarts", "got '2'"]),
        ({"num_slots": 0}, ["num_slots", "got 0"]),
        ({"num_slots": 1.5}, ["num_slots", "got 1.5"]),
        ({"num_iterations": 0}, ["num_iterations", "got 0"]),
        ({"num_iterations": math.nan}, ["num_iterations", "got nan"]),
        ({"generator": 0}, ["generator must be a torch.Generator", "got 0"]),
    ],
)
def test_numbers_below_one_are_one_clear_error(options, named):
    with pytest.raises(ValueError) as error:
        build(TINY)(pictures(1), **options)
    assert all(word in str(error.value) for word in named), str(error.value)


@pytest.mark.parametrize("wrong", [0, "x", generator(), Draws(0)])
def test_draws_that_are_none_are_named(wrong):
    with pytest.raises(ValueError, match=r"draws must be a slotlib\.Draws|generator must be a torch\.Generator"):
        build(TINY).loss(pictures(1), wrong)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"encoder": "resnet"}, ["encoder", "EncoderConfig", "'resnet'"]),
        ({"decoder": "mlp"}, ["decoder", "DecoderConfig", "'mlp'"]),
        ({"decoder": Mixture()}, ["decoder", "DecoderConfig", "Mixture"]),
        ({"likelihood": None}, ["likelihood", "LikelihoodConfig", "None"]),
        ({"attention": None}, ["attention", "AttentionConfig", "None"]),
        ({"resolution": 0}, ["resolution", "got 0"]),
        ({"resolution": 35.0}, ["resolution", "int", "got 35.0"]),
        ({"resolution": 130}, ["resolution", "multiple of 16", "got 130"]),
    ],
)
def test_a_configuration_that_cannot_be_built_names_the_field(change, named):
    with pytest.raises(ValueError) as error:
        SlotAutoencoder(replace(TINY, **change))
    assert all(word in str(error.value) for word in named), str(error.value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"slot_init": "zeros"}, ["slot_init", "'zeros'"]),
        ({"gradient": "none"}, ["gradient", "'none'"]),
        ({"gradient_steps": Ramp(3, start=0)}, ["gradient_steps", "0"]),
        ({"num_slots": 0}, ["num_slots", "got 0"]),
        ({"num_slots": "7"}, ["attention.num_slots", "int", "'7'"]),
        ({"slot_dim": 0}, ["slot_dim", "got 0"]),
        ({"num_heads": 3}, ["num_heads=3", "slot_dim=8"]),
    ],
)
def test_slot_attention_that_cannot_be_built_names_the_field(change, named):
    with pytest.raises(ValueError) as error:
        SlotAutoencoder(tiny(**change))
    assert all(word in str(error.value) for word in named), str(error.value)


def test_a_configuration_of_another_model_is_named():
    @dataclass
    class Other:
        resolution: int = 35

    for wrong in (Other(), None, {"resolution": 35}, AutoencoderConfig):
        with pytest.raises(ValueError, match="config must be of kind AutoencoderConfig, got"):
            SlotAutoencoder(wrong)
    assert checked(TINY, AutoencoderConfig) is TINY
