"""The autoencoder: drawings that add up, restarts that help, and TensorFlow's alignment of transposed convolutions."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from slotlib.autoencoder import (
    AutoencoderConfig,
    BroadcastDecoder,
    CoordinateDecoder,
    Drawing,
    SeparableDecoder,
    SlotAutoencoder,
    compose,
    coordinate_grid,
    explain,
    fourier_features,
)
from slotlib.slot_attention import SlotAttentionOutput

# Every part once, and small.
TINY = AutoencoderConfig(encoder_channels=6, slot_dim=8, num_slots=3, mlp_hidden_dim=8, decoder_channels=6)
CONFIGS = {
    "paper": TINY,
    "coordinate": replace(TINY, encoder="strided", decoder="coordinate"),
    "coordinate, one colour": replace(TINY, encoder="strided", decoder="coordinate", colour="slot"),
    "separable": replace(TINY, encoder="strided", decoder="separable", slot_init="one_learned", num_heads=2),
    "separable, shaded": replace(TINY, encoder="strided", decoder="separable", colour="shaded"),
    "separable, one colour": replace(TINY, encoder="strided", decoder="separable", colour="slot", gradient="implicit"),
    "mixture": replace(TINY, encoder="strided", decoder="separable", colour="slot", likelihood="mixture"),
    "mixture, shaded": replace(TINY, encoder="strided", decoder="separable", colour="shaded", likelihood="mixture"),
}
AVERAGES = {name: config for name, config in CONFIGS.items() if config.likelihood == "average"}
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(config: AutoencoderConfig) -> SlotAutoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return SlotAutoencoder(config)


def pictures(count: int, side: int = 35, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=generator(seed))


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed))


def close(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


# --- what comes out ---


@each_config
def test_the_drawings_add_up_to_the_reconstruction(config):
    out = build(config)(pictures(2), generator=generator())
    close((out.drawn_masks.unsqueeze(2) * out.slot_images).sum(1), out.reconstruction)
    for masks in (out.masks, out.drawn_masks):
        close(masks.sum(1), torch.ones(2, 35, 35))
        assert (masks >= 0).all()
    close(out.attention.sum(1), torch.ones_like(out.attention[:, 0]))
    if config.likelihood == "average":
        close(out.masks, out.drawn_masks, atol=0)


@pytest.mark.parametrize("config", AVERAGES.values(), ids=AVERAGES.keys())
def test_the_loss_is_the_error_of_the_reconstruction_in_units_of_plus_minus_one(config):
    model, images = build(config), pictures(2)
    out = model(images, generator=generator())
    error = F.mse_loss(2 * out.reconstruction - 1, 2 * images - 1)
    close(model.loss(images, generator=generator()), error)


@each_config
def test_every_parameter_that_learns_gets_a_gradient(config):
    model = build(config)
    model.loss(pictures(2), generator=generator()).backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    # μ and σ stay where they are under the implicit gradient; nothing else may.
    expected = {"slot_attention.slots_mu", "slot_attention.slots_log_sigma"} if config.gradient == "implicit" else set()
    assert without - expected == set()


@each_config
def test_the_slots_alone_decide_the_drawing_and_each_its_own(config):
    model = build(config)
    slots = randn(2, 3, 8)
    drawing = model.decoder(slots)
    changed = slots.clone()
    changed[:, 1] += 1
    for before, after in zip(drawing, model.decoder(changed), strict=True):
        close(after[:, [0, 2]], before[:, [0, 2]])
        assert not torch.allclose(after[:, 1], before[:, 1])


@each_config
def test_more_slots_or_iterations_than_configured(config):
    model, images = build(config), pictures(2)
    out = model(images, num_slots=5, num_iterations=2, generator=generator())
    assert out.masks.shape == (2, 5, 35, 35)
    assert out.slot_images.shape == (2, 5, 3, 35, 35)
    wider = SlotAutoencoder(replace(config, num_slots=5, num_iterations=2))
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
def test_one_generator_state_is_one_result(config):
    model, images = build(config), pictures(2)
    one, again, other = (model(images, generator=generator(seed)).slots for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("decoder", ["coordinate", "separable"])
def test_a_slot_of_one_colour_paints_one_colour(decoder):
    images = build(replace(TINY, decoder=decoder, colour="slot"))(pictures(2)).slot_images
    close(images, images[..., :1, :1].expand_as(images), atol=0)


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


# --- a mixture ---


def mixture(**fields) -> SlotAutoencoder:
    return build(replace(CONFIGS["mixture"], **fields))


def test_explaining_a_pixel_is_bayes_rule():
    drawing = Drawing(randn(2, 3, 3, 4, 5), randn(2, 3, 4, 5, seed=1))
    images, noise = randn(2, 3, 4, 5, seed=2), 0.7
    normal = torch.distributions.Normal(drawing.colours, noise)
    joint = drawing.logits.softmax(1) * normal.log_prob(images.unsqueeze(1)).sum(2).exp()
    evidence = explain(drawing, images, noise)
    close(evidence.softmax(1), joint / joint.sum(1, keepdim=True))
    constant = -1.5 * math.log(2 * math.pi * noise**2)
    close(evidence.logsumexp(1) + constant, joint.sum(1).log(), atol=1e-4)


def test_without_noise_the_nearest_colour_owns_a_pixel_and_with_much_the_drawn_mask_decides():
    model, images = mixture(), pictures(2)
    for noise in (1e-3, 1e3):
        model.noise = noise
        out = model(images, generator=generator())
        if noise > 1:
            close(out.masks, out.drawn_masks)
        else:
            distance = (out.slot_images - images.unsqueeze(1)).square().sum(2)
            assert (out.masks.argmax(1) == distance.argmin(1)).float().mean() > 0.99


def test_the_loss_of_a_single_slot_is_the_squared_error_whatever_the_noise():
    images = pictures(2)
    for noise in (0.05, 0.6):
        model = mixture(num_slots=1, noise=noise)
        out = model(images, generator=generator())
        error = F.mse_loss(2 * out.reconstruction - 1, 2 * images - 1)
        close(model.loss(images, generator=generator()), error)
        close(out.masks, torch.ones_like(out.masks))


def test_whole_objects_cost_less_than_halves_and_an_empty_slot_nothing():
    def cost(shares: list[float]) -> float:
        """Of 100 pixels, of which slot k surely painted the first, second, … share."""
        owner = torch.repeat_interleave(torch.arange(len(shares)), torch.tensor([round(100 * x) for x in shares]))
        evidence = torch.full((1, len(shares), 100), -50.0)
        evidence[0, owner, torch.arange(100)] = 0
        return model._cost(evidence).item()

    model = mixture(parsimony=0.3)
    assert cost([0.8, 0.2]) == pytest.approx(0.3 * (0.8**0.5 + 0.2**0.5), abs=1e-3)
    assert cost([0.8, 0.2, 0.0]) == pytest.approx(cost([0.8, 0.2]), abs=1e-3)
    assert cost([0.8, 0.1, 0.1]) > cost([0.8, 0.2]) + 0.01


def test_parsimony_empties_slots():
    images = pictures(2)
    for parsimony in (0.0, 1e3):
        model = mixture(parsimony=parsimony, num_slots=4, noise=1.0)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(30):
            optimizer.zero_grad()
            model.loss(images, generator=generator()).backward()
            optimizer.step()
        largest = model(images, generator=generator()).masks.mean((2, 3)).amax(1)
        assert (largest > 0.9).all() if parsimony else (largest < 0.9).all(), largest


def test_restarts_keep_the_likeliest_explanation():
    model, images, restarts = mixture(parsimony=0.1), pictures(3), 4
    out = model(images, restarts=restarts, generator=generator())
    starts = model.slot_attention.initial_slots(3 * restarts, generator=generator()).unflatten(0, (3, restarts))
    features = model.encode(images).flatten(1, 2)
    drawings = [model.decoder(model.slot_attention(features, slots=starts[:, r]).slots) for r in range(restarts)]
    evidence = torch.stack([explain(drawing, 2 * images - 1, model.noise) for drawing in drawings])
    best = torch.stack([model._cost(each) for each in evidence]).argmin(0)
    close(out.masks, evidence[best, torch.arange(3)].softmax(1), atol=1e-4)


@pytest.mark.parametrize("likelihood", ["average", "mixture"])
def test_the_loss_on_every_other_row_and_column_is_unbiased(likelihood):
    images = pictures(2, side=36)
    fields = dict(resolution=36, slot_init="learned", likelihood=likelihood)  # a learned start needs no noise
    whole, part = mixture(**fields), mixture(**fields, train_stride=2)
    losses = torch.stack([part.loss(images, generator=generator(seed)) for seed in range(40)])
    assert len(losses.unique()) == 4  # where the rows and where the columns begin
    close(losses.unique().mean(), whole.loss(images))


def test_a_learned_start_gains_nothing_from_restarts():
    model, images = build(replace(TINY, slot_init="learned")), pictures(2)
    close(model(images, restarts=3).reconstruction, model(images).reconstruction)


# --- coordinate decoder ---


@pytest.mark.parametrize("colour", ["pixel", "slot"])
def test_pixels_asked_for_one_by_one_are_the_full_drawing(colour):
    decoder, slots = CoordinateDecoder(8, 6, 35, colour), randn(2, 3, 8)
    picture, masks = compose(decoder(slots))
    every = torch.arange(35 * 35).expand(2, -1)
    order = torch.stack([torch.randperm(35 * 35, generator=generator(seed)) for seed in range(2)])
    for pixels in (every, order):
        some_picture, some_masks = compose(decoder(slots, pixels))
        close(some_picture, picture.flatten(2).gather(2, pixels.unsqueeze(1).expand(-1, 3, -1)))
        close(some_masks, masks.flatten(2).gather(2, pixels.unsqueeze(1).expand(-1, 3, -1)))


@pytest.mark.parametrize("colour", ["pixel", "slot"])
def test_the_loss_on_sampled_pixels_is_unbiased(colour):
    # A learned start, so that nothing but the choice of pixels is random.
    config = replace(TINY, encoder="strided", decoder="coordinate", colour=colour, slot_init="learned")
    full, sampled = build(config), build(replace(config, train_pixels=20))
    images = pictures(8)
    with torch.no_grad():
        source = generator()
        losses = torch.stack([sampled.loss(images, generator=source) for _ in range(300)])
        assert losses.std() > 0
        assert abs(losses.mean() - full.loss(images)) < 4 * losses.std() / 300**0.5


@pytest.mark.parametrize("colour", ["pixel", "slot"])
def test_sampled_pixels_are_compared_with_themselves(colour):
    # Whatever pixels are drawn, there is no error on an image that the model draws itself.
    model = build(replace(TINY, encoder="strided", decoder="coordinate", colour=colour, train_pixels=20))
    slots = 3 * randn(4, 3, 8)
    picture, _ = compose(model.decoder(slots))
    assert picture.std((2, 3)).min() > 0.01
    model.slot_attention.forward = lambda *_, **__: SlotAttentionOutput(slots, None, None)
    assert model.loss((picture + 1) / 2, generator=generator()) < 1e-10
    assert model.loss((picture.flip(3) + 1) / 2, generator=generator()) > 1e-4


# --- separable decoder ---


def test_a_separable_mask_has_the_rank_it_was_given():
    for rank in (1, 2, 5):
        drawing = SeparableDecoder(8, 16, 35, rank, "pixel").double()(randn(2, 3, 8).double())
        # A fresh network draws smoothly, so the last singular values are small, but there.
        assert torch.linalg.matrix_rank(drawing.logits, rtol=1e-12).eq(rank).all()
        assert torch.linalg.matrix_rank(drawing.colours, rtol=1e-12).eq(rank).all()


# --- broadcast decoder ---


def transposed_same(x, layer):
    """TensorFlow's conv2d_transpose(padding="SAME"), from its definition: the adjoint of a SAME convolution.

    SAME with kernel k and stride s turns 2n pixels into n and needs max((n − 1)·s + k − 2n, 0) pixels of padding, the
    smaller half before. For k = 5, s = 2: 1 before and 2 after.
    """
    stride, kernel = layer.stride[0], layer.kernel_size[0]
    large = x.shape[-1] * stride
    padding = (x.shape[-1] - 1) * stride + kernel - large
    before, after = padding // 2, padding - padding // 2
    argument = torch.zeros(len(x), layer.out_channels, large, large, dtype=x.dtype, requires_grad=True)
    convolved = F.conv2d(F.pad(argument, (before, after, before, after)), layer.weight, stride=stride)
    (adjoint,) = torch.autograd.grad(convolved, argument, x)
    return adjoint + layer.bias[:, None, None]


@pytest.mark.parametrize("resolution", [35, 128, 144])
def test_transposed_convolutions_are_aligned_as_in_tensorflow(resolution):
    decoder, slots = BroadcastDecoder(4, 3, resolution), randn(1, 2, 4)
    ours = decoder(slots)
    with torch.no_grad():
        x = slots[0, :, :, None, None].expand(-1, -1, decoder.start, decoder.start)
        x = decoder.position(x)
    for layer in decoder.layers:
        x = transposed_same(x.detach(), layer).relu()
    x = transposed_same(x.detach(), decoder.output)
    close(ours.colours[0], x[:, :3])
    close(ours.logits[0], x[:, 3])


def test_upsampling_starts_from_eight_by_eight_and_doubles_four_times():
    decoder = BroadcastDecoder(4, 3, 128)
    assert decoder.start == 8
    assert [layer.stride for layer in decoder.layers] == [(2, 2)] * 4 + [(1, 1)]


@pytest.mark.parametrize(("resolution", "channels"), [(35, 32), (128, 64)])
def test_the_paper_s_model_has_the_paper_s_size(resolution, channels):
    # Layer by layer from appendix E.3 of Locatello et al. (2020): kernel · kernel · in · out, and a bias per output.
    def size(module):
        return sum(p.numel() for p in module.parameters())

    position = 4 * 64 + 64
    model = SlotAutoencoder(AutoencoderConfig(resolution=resolution, decoder_channels=channels))
    convolutions = (25 * 3 * 64 + 64) + 3 * (25 * 64 * 64 + 64)
    assert size(model.encoder) == convolutions + position + 2 * 64 + 2 * (64 * 64 + 64)
    attention = 3 * 2 * 64 + 3 * 64 * 64  # LayerNorms; q, k, v
    gru, mlp = 2 * (3 * 64 * 64 + 3 * 64), (64 * 128 + 128) + (128 * 64 + 64)
    assert size(model.slot_attention) == attention + gru + mlp + 2 * 64
    flat, enlarging = (25 * 64 * 32 + 32) + 2 * (25 * 32 * 32 + 32), 5 * (25 * 64 * 64 + 64)
    assert size(model.decoder) == position + {35: flat, 128: enlarging}[resolution] + 9 * channels * 4 + 4


# --- resolutions ---


@pytest.mark.parametrize("resolution", [35, 64, 128])
@pytest.mark.parametrize("decoder", ["broadcast", "coordinate", "separable"])
def test_every_resolution_is_drawn_at_its_own_size(resolution, decoder):
    model = build(replace(TINY, resolution=resolution, encoder="strided", decoder=decoder))
    with torch.no_grad():
        out = model(pictures(1, resolution))
    assert out.reconstruction.shape == (1, 3, resolution, resolution)
    assert out.masks.shape == (1, 3, resolution, resolution)
    side = math.ceil(resolution / 4)
    assert out.attention.shape == (1, 3, side, side)


def test_the_paper_s_encoder_keeps_every_pixel():
    with torch.no_grad():
        assert build(TINY)(pictures(1)).attention.shape == (1, 3, 35, 35)


# --- coordinates ---


def test_the_grid_runs_from_zero_to_one_in_the_order_of_the_official_code():
    grid = coordinate_grid(3, 5, like=torch.zeros(()))
    assert grid[0, 0].tolist() == [0, 0, 1, 1]  # y, x, 1 − y, 1 − x
    assert grid[2, 0].tolist() == [1, 0, 0, 1]
    assert grid[0, 4].tolist() == [0, 1, 1, 0]
    assert grid[1, 2].tolist() == [0.5] * 4


def test_fourier_features_are_sines_and_cosines_of_doubling_frequency():
    close(fourier_features(torch.tensor([0.0]), 3), torch.tensor([[0, 0, 0, 1, 1, 1.0]]))
    close(fourier_features(torch.tensor([0.5]), 3), torch.tensor([[1, 0, 0, 0, -1, 1.0]]))
    # All of them together tell every pixel of a line from every other.
    features = fourier_features(torch.linspace(0, 1, 35), 6)
    assert torch.cdist(features, features).fill_diagonal_(9).min() > 0.5


def test_composing_is_a_softmax_over_slots():
    # Equal logits share a pixel; a much larger one owns it.
    logits = torch.tensor([[[[0.0, 50.0]], [[0.0, 0.0]]]])
    colours = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1, 1).expand(-1, -1, 3, 1, 2)
    picture, masks = compose(Drawing(colours, logits))
    close(masks, torch.tensor([[[[0.5, 1.0]], [[0.5, 0.0]]]]))
    close(picture, torch.tensor([[2.0, 1.0]]).expand(1, 3, 1, 2))
    close(compose(Drawing(colours[..., :1], logits))[0], picture)


# --- bad input ---


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("call", [SlotAutoencoder.__call__, SlotAutoencoder.loss, SlotAutoencoder.encode])
def test_images_that_are_not_finite_are_one_clear_error(call, value):
    images = pictures(2)
    images[1, 2, 30, 4] = value
    with pytest.raises(ValueError, match="finite"):
        call(build(TINY), images)


@pytest.mark.parametrize(
    ("images", "named"),
    [
        (pictures(2, 36), ["[2, 3, 36, 36]", "3, 35, 35"]),
        (pictures(2)[0], ["[3, 35, 35]", "3, 35, 35"]),
        (pictures(2)[:, :1], ["[2, 1, 35, 35]", "3, 35, 35"]),
        (torch.zeros(2, 3, 35, 35, dtype=torch.uint8), ["uint8", "floating point"]),
    ],
)
def test_images_of_another_kind_are_one_clear_error(images, named):
    with pytest.raises(ValueError) as error:
        build(TINY)(images)
    assert all(word in str(error.value) for word in named), str(error.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"restarts": 0}, ["restarts", "got 0"]),
        ({"num_slots": 0}, ["num_slots", "got 0"]),
        ({"num_iterations": 0}, ["num_iterations", "got 0"]),
    ],
)
def test_numbers_below_one_are_one_clear_error(options, named):
    with pytest.raises(ValueError) as error:
        build(TINY)(pictures(1), **options)
    assert all(word in str(error.value) for word in named), str(error.value)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"encoder": "resnet"}, ["encoder", "paper", "strided", "'resnet'"]),
        ({"decoder": "mlp"}, ["decoder", "broadcast", "'mlp'"]),
        ({"colour": "grey"}, ["colour", "pixel", "slot", "'grey'"]),
        ({"slot_init": "zeros"}, ["slot_init", "'zeros'"]),
        ({"gradient": "none"}, ["gradient", "'none'"]),
        ({"resolution": 0}, ["resolution", "got 0"]),
        ({"encoder_channels": 0}, ["encoder_channels", "got 0"]),
        ({"decoder_channels": -1}, ["decoder_channels", "got -1"]),
        ({"decoder_rank": 0, "decoder": "separable"}, ["decoder_rank", "got 0"]),
        ({"num_slots": 0}, ["num_slots", "got 0"]),
        ({"slot_dim": 0}, ["slot_dim", "got 0"]),
        ({"num_heads": 3}, ["num_heads=3", "slot_dim=8"]),
        ({"colour": "slot"}, ["broadcast", "colour"]),
        ({"train_pixels": 10}, ["train_pixels", "coordinate", "'broadcast'"]),
        ({"train_pixels": 35 * 35 + 1, "decoder": "coordinate"}, ["train_pixels", "1225", "got 1226"]),
        ({"train_pixels": -1, "decoder": "coordinate"}, ["train_pixels", "got -1"]),
        ({"resolution": 130}, ["resolution", "multiple of 16", "got 130"]),
        ({"likelihood": "product"}, ["likelihood", "mixture", "'product'"]),
        ({"noise": 0.0}, ["noise", "got 0.0"]),
        ({"noise": math.nan}, ["noise", "got nan"]),
        ({"parsimony": -0.1}, ["parsimony", "got -0.1"]),
        ({"train_stride": 0}, ["train_stride", "got 0"]),
        ({"train_stride": 2}, ["train_stride", "separable", "'broadcast'"]),
    ],
)
def test_a_configuration_that_cannot_be_built_is_one_clear_error(fields, named):
    with pytest.raises(ValueError) as error:
        SlotAutoencoder(replace(TINY, **fields))
    assert all(word in str(error.value) for word in named), str(error.value)
