"""Tokens for patches (chapter 07): the baseline that SVQ is compared with.

A VQ-VAE (van den Oord et al., 2017, arXiv 1711.00937) writes an image as a grid of codes, one for each patch. It draws
images as well as slots do, but its words are not things: an object is spread over many patches, and a patch holds parts
of several. The same prior as over scenes (`slotlib.prior`) learns to write such grids, in reading order.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from slotlib import check
from slotlib.autoencoder import accepted, checked, squared_error
from slotlib.encoders import Images, start_as_keras
from slotlib.model import Draws, Look, Model, Scenes
from slotlib.svq import Drawn, Tokeniser, code_columns
from slotlib.vq import Nearest, QuantizerConfig


@dataclass
class PatchConfig:
    """Everything that defines a `PatchVQVAE`."""

    resolution: int = 64
    patch: int = 8
    """Side of a patch in pixels: a power of 2 that divides the resolution."""
    channels: int = 64
    dim: int = 64
    """Width of a code."""
    quantizer: QuantizerConfig = field(default_factory=lambda: Nearest(num_codes=256))
    """The nearest code (VQ-VAE), or drawn by a classifier (`Gumbel`), a discrete VAE."""


class PatchOutput(NamedTuple):
    """What an `SVQOutput` has; there are no slots, so there are no masks."""

    reconstruction: Images
    codes: Int[Tensor, "batch patches blocks"]
    """In reading order."""
    error: Float[Tensor, "blocks"]
    """Mean squared distance between patches and their codes."""


class Residual(nn.Module):
    """Adds a 3×3 and a 1×1 convolution of its input to it."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 1)
        )

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h w"]:
        return x + self.layers(x)


class PatchVQVAE(Tokeniser, Model):
    """Convolutions down to a grid of codes and up again.

    Raises ValueError for a configuration that cannot be built, naming the field.
    """

    config: PatchConfig
    is_set = False  # patches have an order

    def __init__(self, config: PatchConfig):
        super().__init__()
        self.config = checked(config, PatchConfig)
        for name in ("resolution", "channels", "dim"):
            check.whole(name, getattr(config, name))
        halvings = config.patch.bit_length() - 1
        if config.patch < 2 or config.patch != 2**halvings or config.resolution % config.patch:
            raise ValueError(
                f"patch must be a power of 2 that divides resolution={config.resolution}, got {config.patch}"
            )
        self.side = config.resolution // config.patch
        wide, deep = config.channels, config.dim
        down = [nn.Conv2d(wide if i else 3, wide, 4, 2, 1) for i in range(halvings)]
        self.encoder = nn.Sequential(
            *(layer for conv in down for layer in (conv, nn.ReLU())),
            nn.Conv2d(wide, wide, 3, padding=1),
            Residual(wide),
            nn.Conv2d(wide, deep, 1),
        )
        up = [nn.ConvTranspose2d(wide, wide if i else 3, 4, 2, 1) for i in reversed(range(halvings))]
        self.decoder = nn.Sequential(
            nn.Conv2d(deep, wide, 3, padding=1),
            Residual(wide),
            *(layer for conv in up for layer in (nn.ReLU(), conv)),
        )
        for part in (self.encoder, self.decoder):
            start_as_keras(part)
        self.quantizer = config.quantizer.build(deep)
        self.at(1.0)

    @property
    def places(self) -> int:
        """Patches in an image."""
        return self.side**2

    def encode(self, images: Images) -> Float[Tensor, "batch patches dim"]:
        """A vector for every patch, in reading order. Raises ValueError as `autoencoder.accepted`."""
        images = accepted(images, self.config.resolution, next(self.encoder.parameters()).dtype) * 2 - 1
        return self.encoder(images).flatten(2).mT

    def _draw(self, values: Float[Tensor, "batch patches dim"]) -> Images:
        return self.decoder(values.mT.unflatten(2, (self.side, self.side)))

    def loss(self, images: Images, draws: Draws | None = None) -> Float[Tensor, ""]:
        """Mean squared error of images in [-1, 1], and the quantiser's loss."""
        quantised = self.quantizer(self.encode(images), Draws.given(draws))
        return F.mse_loss(self._draw(quantised.values), images * 2 - 1) + quantised.loss

    def forward(self, images: Images, generator: torch.Generator | None = None) -> PatchOutput:
        """Write images as codes and draw them again. Raises ValueError as `encode`."""
        quantised = self.quantizer(self.encode(images), Draws.given(Draws(generator)))
        return PatchOutput((self._draw(quantised.values) + 1) / 2, quantised.indices, quantised.error)

    @torch.no_grad()
    def tokenise(
        self, images: Images, draws: Draws | None = None, restarts: int = 1
    ) -> Int[Tensor, "batch patches blocks"]:
        """The codes of images. Nothing starts at random, so restarts change nothing."""
        return self.quantizer(self.encode(images), Draws.given(draws)).indices

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "batch patches blocks"]) -> Drawn:
        check.tensor("codes", codes, "integers", f"batch patches={self.places} blocks={self.quantizer.num_blocks}")
        return Drawn((self._draw(self.quantizer.decode(codes)) + 1) / 2)

    @torch.no_grad()
    def judge(self, scenes: Scenes, draws: Draws | None = None, **how: Any) -> dict[str, Tensor]:
        """`mse`, the squared error per pixel and channel in units of [0, 1] images, and the codes."""
        check.scenes(scenes)
        output = self(scenes["image"], Draws.given(draws).generator, **how)
        error = squared_error(output.reconstruction, scenes["image"])
        return {"mse": error, **code_columns(output.codes, output.error)}

    @torch.no_grad()
    def look(self, scenes: Scenes) -> Look:
        from slotlib import plots  # slow to import

        check.scenes(scenes)
        return Look(plots.rows(scenes, self(scenes["image"]).reconstruction), {}, {})
