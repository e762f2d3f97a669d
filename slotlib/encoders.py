"""Encoders (chapter 03): image → a grid of feature vectors, the inputs of slot attention.

Each has a configuration, which builds it. One of your own is a dataclass below `EncoderConfig` with a `build` that
returns a module from images in [-1, 1] `[batch, 3, H, W]` to `[batch, h, w, dim]`.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slotlib import check
from slotlib.slot_attention import LAYER_NORM_EPS, glorot_

Images = Float[Tensor, "batch 3 height width"]
Features = Float[Tensor, "batch h w dim"]


@dataclass
class EncoderConfig:
    """What all encoders have."""

    channels: int = 64
    """Feature maps of every convolution."""

    def __post_init__(self) -> None:
        check.whole("channels", self.channels)

    @abstractmethod
    def build(self, dim: int) -> nn.Module:
        """A fresh encoder whose features have width `dim`."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it builds")


@dataclass
class Paper(EncoderConfig):
    """The paper's: four 5×5 convolutions and linear positions."""

    stride: int = 1
    """Of the second and third convolution. The paper: 1 to discover objects, 2 to predict sets on 128×128 pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check.whole("stride", self.stride)

    def build(self, dim: int) -> "ConvEncoder":
        return ConvEncoder([5, 5, 5, 5], [1, self.stride, self.stride, 1], self.channels, dim)


@dataclass
class Strided(EncoderConfig):
    """5×5 stride 2, 3×3 stride 2, 3×3, and Fourier positions: 15 times fewer inputs to slot attention; 35×35 pixels
    become 9×9."""

    def build(self, dim: int) -> "ConvEncoder":
        return ConvEncoder([5, 3, 3], [2, 2, 1], self.channels, dim, bands=4, same=False)


def start_as_keras(part: nn.Module) -> None:
    """Initialise every linear and convolutional layer with `glorot_`."""
    for layer in part.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            glorot_(layer)


def coordinate_grid(height: int, width: int, like: Tensor) -> Float[Tensor, "height width 4"]:
    """Each pixel's [y, x, 1 − y, 1 − x], from 0 to 1 inclusive, in the channel order of the official code.

    Device and precision are those of `like`. Raises ValueError for a size below 1.
    """
    check.sizes(height=height, width=width)
    check.tensor("like", like, "floating point", "...")
    y, x = (torch.linspace(0, 1, size, device=like.device, dtype=like.dtype) for size in (height, width))
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)
    return torch.cat([grid, 1 - grid], dim=-1)


def fourier_features(positions: Float[Tensor, "*shape"], bands: int) -> Float[Tensor, "*shape features"]:
    """sin and cos of π·2^b·position for b < `bands`: lets a small MLP draw sharp edges (Tancik et al., 2020).

    Computed in single precision or wider. Raises ValueError for no bands.
    """
    check.tensor("positions", positions, "floating point", "...")
    check.whole("bands", bands)
    angles = positions.unsqueeze(-1) * (math.pi * 2.0 ** torch.arange(bands, device=positions.device))
    return torch.cat([angles.sin(), angles.cos()], dim=-1).to(positions.dtype)


class SoftPositionEmbedding(nn.Module):
    """Adds a learned linear map of the coordinates to a feature map (Locatello et al., 2020, appendix E.2).

    With `bands` the map reads Fourier features of x and y instead of the four linear ramps: on a coarse grid slots then
    learn sooner where exactly their object lies.
    """

    def __init__(self, dim: int, bands: int = 0):
        super().__init__()
        self.dim, self.bands = dim, bands
        self.project = nn.Linear(4 * bands or 4, dim)

    def forward(self, features: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        grid = coordinate_grid(features.shape[-2], features.shape[-1], like=features)
        if self.bands:
            grid = fourier_features(grid[..., :2], self.bands).flatten(-2)
        return features + self.project(grid).permute(2, 0, 1)


class ConvEncoder(nn.Module):
    """Convolutions, position embedding, LayerNorm and an MLP per position.

    Args:
        kernels, strides: of each convolution.
        channels: feature maps of each.
        output_dim: width of the features.
        bands: of the position embedding; 0: linear positions.
        same: pad a strided convolution as TensorFlow's SAME does, 1 before and 2 after for 5×5 with stride 2; torch's
            symmetric padding shifts every layer. Weights ported from the official code need it.
    """

    def __init__(
        self,
        kernels: Sequence[int],
        strides: Sequence[int],
        channels: int,
        output_dim: int,
        bands: int = 0,
        same: bool = True,
    ):
        super().__init__()
        layers: list[nn.Module] = []
        for i, (kernel, stride) in enumerate(zip(kernels, strides, strict=True)):
            half, before = kernel // 2, channels if i else 3
            if stride > 1 and same:
                convolution = nn.Conv2d(before, channels, kernel, stride)
                layers += [nn.Sequential(nn.ZeroPad2d((half - 1, half, half - 1, half)), convolution), nn.ReLU()]
            else:
                layers += [nn.Conv2d(before, channels, kernel, stride, padding=half), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.position = SoftPositionEmbedding(channels, bands)
        self.norm = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(channels, output_dim), nn.ReLU(), nn.Linear(output_dim, output_dim))

    def forward(self, images: Images) -> Features:
        check.tensor("images", images, "floating point", "batch 3 height width")
        features = self.position(self.convolutions(images))
        return self.mlp(self.norm(features.permute(0, 2, 3, 1)))
