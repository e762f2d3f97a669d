"""Encoders: the grid of the official code, TensorFlow's padding, the paper's sizes."""

import dataclasses

import pytest
import torch

from slotlib.encoders import (
    ConvEncoder,
    EncoderConfig,
    Paper,
    SoftPositionEmbedding,
    Strided,
    coordinate_grid,
    fourier_features,
)

close = torch.testing.assert_close


def test_the_grid_runs_from_zero_to_one_in_the_order_of_the_official_code():
    grid = coordinate_grid(3, 5, like=torch.zeros(()))
    assert grid[0, 0].tolist() == [0, 0, 1, 1]  # y, x, 1 − y, 1 − x
    assert grid[2, 0].tolist() == [1, 0, 0, 1]
    assert grid[0, 4].tolist() == [0, 1, 1, 0]
    assert grid[1, 2].tolist() == [0.5] * 4


def test_fourier_features_are_sines_and_cosines_of_doubling_frequency():
    close(fourier_features(torch.tensor([0.0]), 3), torch.tensor([[0, 0, 0, 1, 1, 1.0]]))
    close(fourier_features(torch.tensor([0.5]), 3), torch.tensor([[1, 0, 0, 0, -1, 1.0]]), atol=1e-5, rtol=0)
    # All of them together tell every pixel of a line from every other.
    features = fourier_features(torch.linspace(0, 1, 35), 6)
    assert torch.cdist(features, features).fill_diagonal_(9).min() > 0.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("config", [Paper(channels=6), Strided(channels=6)])
def test_an_encoder_works_in_any_precision(config, dtype):
    encoder, images = config.build(8), torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = encoder(images)
    found = encoder.to(dtype)(images.to(dtype))
    assert found.dtype == dtype
    close(found.float(), expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize(("config", "side"), [(Paper(), 36), (Paper(stride=2), 9), (Strided(), 9)])
def test_the_paper_s_encoder_keeps_every_pixel_and_strides_do_not(config, side):
    with torch.no_grad():
        assert config.build(64)(torch.zeros(1, 3, 36, 36)).shape == (1, side, side, 64)


def test_positions_are_a_linear_map_of_the_coordinates():
    position = SoftPositionEmbedding(6)
    added = position(torch.zeros(1, 6, 4, 5))[0].movedim(0, -1)
    close(added, position.project(coordinate_grid(4, 5, like=added)))
    close(added[1, 1] - added[0, 0], added[2, 2] - added[1, 1], atol=1e-5, rtol=0)


def test_a_strided_convolution_pads_as_tensorflow_does():
    # SAME with stride 2 on an even side: output 0 sees inputs 0 to 3 (one row of padding before), the last one the last
    # three (two after).
    strided = Paper(stride=2).build(64).convolutions[2]
    torch.nn.init.ones_(strided[1].weight)
    torch.nn.init.zeros_(strided[1].bias)
    rows = strided(torch.ones(1, 64, 16, 16))[0, 0, :, 4] / (64 * 5)
    close(rows, torch.tensor([4.0, 5, 5, 5, 5, 5, 5, 3]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Paper(channels=0), "channels must be a whole number, at least 1, got 0"),
        (lambda: Strided(channels=2.5), "channels must be a whole number, at least 1, got 2.5"),
        (lambda: Paper(stride=None), "stride must be a whole number, at least 1, got None"),
        (lambda: coordinate_grid(0, 5, torch.zeros(1)), "height must be a whole number"),
        (lambda: coordinate_grid(5, 5, None), r"like must be floating point \[\.\.\.\], got None"),
        (lambda: fourier_features(torch.zeros(3), 0), "bands must be a whole number"),
        (lambda: fourier_features([0.5], 3), r"positions must be floating point \[\.\.\.\], got \[0.5\]"),
        (lambda: Strided().build(8)(torch.zeros(3, 8, 8)), r"images must be floating point \[batch, 3, height, "),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_encoder_of_one_s_own_is_a_dataclass_with_a_build():
    @dataclasses.dataclass
    class Flat(EncoderConfig):
        def build(self, dim):
            return ConvEncoder([1], [1], self.channels, dim)

    assert Flat(4).build(5)(torch.zeros(2, 3, 6, 7)).shape == (2, 6, 7, 5)
    with pytest.raises(NotImplementedError, match="EncoderConfig does not say what it builds"):
        EncoderConfig().build(5)
