"""Decoders: each slot draws its own, parts of a drawing are parts of it, and TensorFlow's transposed convolutions."""

import math

import pytest
import torch
from torch.nn import functional as F

from slotlib.decoders import Broadcast, BroadcastDecoder, Coordinate, Decoder, DecoderConfig, Drawing, Separable
from slotlib.likelihoods import compose
from slotlib.model import Draws, Ramp

CONFIGS = {
    "broadcast": Broadcast(6),
    "coordinate": Coordinate(6),
    "coordinate, one colour": Coordinate(6, colour="slot"),
    "coordinate, shaded": Coordinate(6, colour="shaded"),
    "separable": Separable(6),
    "separable, one colour": Separable(6, colour="slot"),
    "separable, shaded": Separable(6, colour="shaded"),
    "separable, colour apart": Separable(6, colour="slot", colour_dims=3),
}
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
SIDE = 35


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed))


def build(config: DecoderConfig, resolution: int = SIDE) -> Decoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        decoder = config.build(8, resolution)
        decoder.initialise()
        return decoder


def close(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@each_config
def test_the_slots_alone_decide_the_drawing_and_each_its_own(config):
    decoder, slots = build(config), randn(2, 3, 8)
    drawing = decoder(slots)
    changed = slots.clone()
    changed[:, 1] += 1
    for before, after in zip(drawing, decoder(changed), strict=True):
        close(after[:, [0, 2]], before[:, [0, 2]])
        assert not torch.allclose(after[:, 1], before[:, 1])


@pytest.mark.parametrize("resolution", [35, 64, 128])
@each_config
def test_every_resolution_is_drawn_at_its_own_size(config, resolution):
    with torch.no_grad():
        drawing = build(config, resolution)(randn(1, 2, 8))
    assert drawing.logits.shape == (1, 2, resolution, resolution)
    area = drawing.colours.shape[3:]
    assert area == ((1, 1) if getattr(config, "colour", "pixel") == "slot" else (resolution, resolution))


@each_config
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_decoder_works_in_any_precision(config, dtype):
    decoder, slots = build(config, 16), randn(2, 3, 8)
    expected = decoder(slots)
    for found, before in zip(decoder.to(dtype)(slots.to(dtype)), expected, strict=True):
        assert found.dtype == dtype
        # In bf16 pixels lie half a pixel off.
        assert (found - before).abs().mean() < (0.1 if dtype == torch.bfloat16 else 0.005)


@pytest.mark.parametrize("config", [Coordinate(6, "shaded"), Separable(6, "shaded")])
def test_shading_starts_at_zero_and_is_painted_as_far_as_asked(config):
    decoder, slots = build(config), randn(2, 3, 8)
    flat = decoder(slots).colours
    close(flat, flat[..., :1, :1].expand_as(flat), atol=1e-6)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator(1))
    colours = []
    for decoder.shading in (0.0, 0.5, 1.0):
        colours.append(decoder(slots).colours.expand(-1, -1, -1, SIDE, SIDE))
    close(colours[0], colours[0][..., :1, :1].expand_as(colours[0]), atol=0)
    close(2 * (colours[1] - colours[0]), colours[2] - colours[0])
    assert colours[2].std((3, 4)).min() > 0.01


def test_a_decoder_by_itself_stands_at_the_end_of_its_ramps():
    assert build(Coordinate(6, "shaded", Ramp(0.25, start=0))).shading == 0.25
    assert build(Separable(6, "slot", colour_dims=Ramp(4))).colour_dims == 4


# --- parts of a drawing ---


@pytest.mark.parametrize("colour", ["pixel", "slot"])
def test_pixels_asked_for_one_by_one_are_the_full_drawing(colour):
    decoder, slots = build(Coordinate(6, colour)), randn(2, 3, 8)
    picture, masks = compose(decoder(slots))
    every = torch.arange(SIDE**2).expand(2, -1)
    order = torch.stack([torch.randperm(SIDE**2, generator=generator(seed)) for seed in range(2)])
    for pixels in (every, order):
        some_picture, some_masks = compose(decoder(slots, pixels))
        close(some_picture, picture.flatten(2).gather(2, pixels.unsqueeze(1).expand(-1, 3, -1)))
        close(some_masks, masks.flatten(2).gather(2, pixels.unsqueeze(1).expand(-1, 3, -1)))


@pytest.mark.parametrize("colour", ["pixel", "slot"])
@pytest.mark.parametrize("config", [Coordinate(6, pixels=20), Separable(6, stride=3)])
def test_a_part_is_compared_with_itself(config, colour):
    # Whatever part is drawn, there is no error on an image that the decoder draws itself.
    config.colour = colour
    decoder, slots = build(config), 3 * randn(4, 3, 8)
    image, _ = compose(decoder(slots))
    assert image.std((2, 3)).min() > 0.01
    for seed in range(5):
        drawing, target = decoder.part(slots, image, Draws(generator(seed)))
        assert target[0, 0].numel() < SIDE**2 / 4
        close(compose(drawing)[0], target)
        drawing, target = decoder.part(slots, image.flip(3), Draws(generator(seed)))
        assert not torch.allclose(compose(drawing)[0], target, atol=1e-3)


def test_a_separable_mask_has_the_rank_it_was_given():
    for rank in (1, 2, 5):
        drawing = build(Separable(16, rank=rank)).double()(randn(2, 3, 8).double())
        # A fresh network draws smoothly, so the last singular values are small, but there.
        assert torch.linalg.matrix_rank(drawing.logits, rtol=1e-12).eq(rank).all()
        assert torch.linalg.matrix_rank(drawing.colours, rtol=1e-12).eq(rank).all()


def test_numbers_for_colour_draw_colour_and_nothing_else():
    decoder, slots = build(Separable(6, "slot", colour_dims=3)), randn(2, 3, 8)
    before = decoder(slots)
    painted, moved = slots.clone(), slots.clone()
    painted[..., :3] += 1
    moved[..., 3:] += 1
    assert torch.equal(decoder(painted).logits, before.logits)
    assert not torch.isclose(decoder(painted).colours, before.colours).any()
    assert torch.equal(decoder(moved).colours, before.colours)
    assert not torch.isclose(decoder(moved).logits, before.logits).all()


# --- the paper's decoder ---


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


# --- bad input ---


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Broadcast(-1), "channels must be a whole number, at least 1, got -1"),
        (lambda: Broadcast("32"), "channels must be a whole number, at least 1, got '32'"),
        (lambda: Coordinate(colour="grey"), r"colour must be one of \('pixel', 'slot', 'shaded'\), got 'grey'"),
        (lambda: Separable(rank=0), "rank must be a whole number, at least 1, got 0"),
        (lambda: Separable(stride=0), "stride must be a whole number, at least 1, got 0"),
        (lambda: Separable(stride=1.5), "stride must be a whole number, at least 1, got 1.5"),
        (lambda: Separable(shading=math.nan), "shading must be a finite number, at least 0, got nan"),
        (lambda: Separable(shading=Ramp(1, start=-1)), "shading must be a finite number, at least 0, got -1"),
        (lambda: Separable(colour_dims=4), "colour_dims needs colour=\"slot\", got colour_dims=4 and 'pixel'"),
        (lambda: Separable(colour="slot", colour_dims=8).build(8, SIDE), "colour_dims must be below slot_dim=8, got 8"),
        (lambda: Separable(colour="slot", colour_dims=Ramp(9)).build(8, SIDE), "colour_dims must be below slot_dim=8"),
        (lambda: Separable(colour="slot", colour_dims=-1), "colour_dims must be a finite number, at least 0, got -1"),
        (lambda: Coordinate(pixels=-1), "pixels must be a whole number, at least 0, got -1"),
        (lambda: Coordinate(pixels=1226).build(8, SIDE), "pixels must be at most 1225, got 1226"),
        (lambda: Broadcast().build(8, 130), "multiple of 16, got 130"),
        (lambda: Broadcast(6).build(8, SIDE)(randn(2, 3, 7)), r"slots must be floating point \[batch, slots, dim=8\]"),
        (lambda: Separable(6).build(8, SIDE)(randn(3, 8)), r"slots must be floating point \[batch, slots, dim=8\]"),
        (lambda: Coordinate(6).build(8, SIDE)(None), r"slots must be .*, got None"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_decoder_of_one_s_own_draws_all_of_the_image_in_training():
    class Flat(Decoder):
        def forward(self, slots):
            return Drawing(slots[..., :3, None, None], slots[..., 3:4, None].expand(-1, -1, 4, 4))

    images = torch.zeros(2, 3, 4, 4)
    drawing, target = Flat().part(randn(2, 3, 8), images, Draws())
    assert drawing.logits.shape == (2, 3, 4, 4) and target is images
    with pytest.raises(NotImplementedError, match="DecoderConfig does not say what it builds"):
        DecoderConfig().build(8, 4)
