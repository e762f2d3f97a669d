"""Tokens for patches (chapter 07): the baseline that SVQ is compared with, and the decoder it was published with.

A VQ-VAE (van den Oord et al., 2017, arXiv 1711.00937) writes an image as a grid of codes, one for each patch. It draws
images as well as slots do, but its words are not things: an object is spread over many patches, and a patch holds parts
of several. The same prior as over scenes learns to write such grids, in reading order.

SLATE (Singh, Deng & Ahn, 2022, arXiv 2110.11405) uses such words to *decode*: a transformer writes the grid, patch
after patch, looking at the slots. Each patch is predicted from all before it, so slots need not be drawn independently,
which suits natural textures. SVQ was published with this decoder. It has no masks; attention stands in for them.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from slotlib.autoencoder import check_images
from slotlib.prior import PriorConfig, ScenePrior, WithPrior
from slotlib.slot_attention import glorot_
from slotlib.svq import Drawn, SVQAutoencoder, SVQConfig, SVQOutput, mean_cost
from slotlib.vq import GumbelQuantizer, VectorQuantizer

PatchQuantisation = Literal["ema", "gumbel"]


@dataclass
class PatchConfig(PriorConfig):
    """Everything that defines a `PatchVQVAE`, beside its prior."""

    resolution: int = 64
    patch: int = 8
    """Side of a patch in pixels: a power of 2 that divides the resolution."""
    channels: int = 64
    dim: int = 64
    """Width of a code."""
    num_codes: int = 256
    num_blocks: int = 1
    """Blocks that a patch's code is made of, each with a codebook of its own."""
    quantizer: PatchQuantisation = "ema"
    """"ema": the nearest code (VQ-VAE). "gumbel": drawn by a classifier, a discrete VAE."""
    commitment: float = 0.25
    decay: float = 0.99
    revive: float = 0.1


class PatchOutput(NamedTuple):
    """What a `SVQOutput` has; there are no slots, so there are no masks."""

    reconstruction: Float[Tensor, "batch 3 height width"]
    codes: Int[Tensor, "batch patches blocks"]
    """In reading order."""
    error: Float[Tensor, "blocks"]
    """Mean squared distance between patches and their codes."""
    masks: None = None
    attention: None = None


class Residual(nn.Module):
    """Adds a 3×3 and a 1×1 convolution of its input to it."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 1)
        )

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h w"]:
        return x + self.layers(x)


class PatchVQVAE(WithPrior):
    """Convolutions down to a grid of codes and up again, and a prior over such grids (see `WithPrior`).

    Raises ValueError for a configuration that cannot be built, naming the field.
    """

    config: PatchConfig
    is_set = False

    def __init__(self, config: PatchConfig):
        super().__init__()
        halvings = config.patch.bit_length() - 1
        if config.patch < 2 or config.patch != 2**halvings or config.resolution % config.patch:
            raise ValueError(
                f"patch must be a power of 2 that divides resolution={config.resolution}, got {config.patch}"
            )
        for field in ("resolution", "channels", "dim"):
            if getattr(config, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(config, field)}")
        if config.quantizer not in get_args(PatchQuantisation):
            raise ValueError(f"quantizer must be one of {get_args(PatchQuantisation)}, got {config.quantizer!r}")
        self.config = config
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
        for layer in (*self.encoder.modules(), *self.decoder.modules()):
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                glorot_(layer)
        if config.quantizer == "gumbel":
            self.quantizer = GumbelQuantizer(deep, config.num_codes, num_blocks=config.num_blocks)
        else:
            self.quantizer = VectorQuantizer(
                deep,
                config.num_codes,
                num_blocks=config.num_blocks,
                commitment=config.commitment,
                decay=config.decay,
                revive=config.revive,
            )
        self._add_prior(self.side**2)

    def encode(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch patches dim"]:
        """A vector for every patch, in reading order.

        Raises ValueError unless `images` is `[batch, 3, resolution, resolution]`, floating point and finite.
        """
        check_images(images, self.config.resolution)
        return self.encoder(images * 2 - 1).flatten(2).mT

    def _draw(self, values: Float[Tensor, "batch patches dim"]) -> Float[Tensor, "batch 3 height width"]:
        return self.decoder(values.mT.unflatten(2, (self.side, self.side)))

    def loss(
        self,
        images: Float[Tensor, "batch 3 height width"] | Int[Tensor, "batch patches blocks"],
        generator: torch.Generator | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> Float[Tensor, ""]:
        """Mean squared error of images in [-1, 1], and the quantiser's loss.

        `generator` and `share` as for `SlotAutoencoder.loss`, for quantisers that draw codes at random. With
        learn="prior": minus the log likelihood of the grids of codes, in nats per image; `images` may then be codes
        (see `write`).
        """
        if self.config.learn == "prior":
            if not images.is_floating_point():
                return self._prior_loss(images, generator, share)
            with torch.no_grad():
                codes = self.quantizer(self.encode(images)).indices
            return self._prior_loss(codes, generator, share)
        quantised = self.quantizer(self.encode(images), generator, share)
        return F.mse_loss(self._draw(quantised.values), images * 2 - 1) + quantised.loss

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], generator: torch.Generator | None = None
    ) -> PatchOutput:
        """Write images as codes and draw them again. Raises ValueError as `encode`."""
        quantised = self.quantizer(self.encode(images), generator)
        return PatchOutput((self._draw(quantised.values) + 1) / 2, quantised.indices, quantised.error)

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "batch patches blocks"]) -> Float[Tensor, "batch 3 height width"]:
        """Draw images from codes. Raises ValueError for codes of another shape, type or range."""
        return (self._draw(self.quantizer.decode(codes)) + 1) / 2


@dataclass
class SlateConfig(SVQConfig):
    """Everything that defines a `SlateAutoencoder`. The fields of other decoders are without effect."""

    patch: int = 4
    """Side in pixels of what a token stands for."""
    vocabulary: int = 256
    """Number of tokens."""
    token_dim: int = 128
    """Width of tokens, in the discrete VAE and in the transformer that writes them."""
    writer_layers: int = 4
    writer_heads: int = 4


class SlateAutoencoder(SVQAutoencoder):
    """Quantised slots, decoded by a transformer that writes the tokens of a discrete VAE.

    The discrete VAE learns along, from its own error. Its gradient is that of a softmax at temperature 1 where the
    published one is cooled from 1 to 0.1.

    Raises ValueError for a configuration that cannot be built, naming the field.
    """

    config: SlateConfig

    def __init__(self, config: SlateConfig):
        if config.blanks:
            raise ValueError("blanks=True: a transformer draws no slot by itself, so none is known to be empty")
        super().__init__(config)
        self.dvae = PatchVQVAE(
            PatchConfig(
                resolution=config.resolution,
                patch=config.patch,
                channels=config.decoder_channels,
                dim=config.token_dim,
                num_codes=config.vocabulary,
                quantizer="gumbel",
                prior_layers=0,
            )
        )
        self.decoder = ScenePrior(
            self.dvae.side**2,
            1,
            config.vocabulary,
            dim=config.token_dim,
            num_layers=config.writer_layers,
            num_heads=config.writer_heads,
            memory_dim=config.slot_dim,
        )
        if config.learn == "prior":
            self.dvae.requires_grad_(False)
            self.decoder.requires_grad_(False)

    def tokens(self, images: Float[Tensor, "batch 3 height width"]) -> Int[Tensor, "batch patches 1"]:
        """The most probable token of each patch, without a gradient."""
        with torch.no_grad():
            return self.dvae.quantizer.classify(self.dvae.encode(images)).argmax(dim=-1, keepdim=True)

    def loss(
        self,
        images: Float[Tensor, "batch 3 height width"],
        generator: torch.Generator | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> Float[Tensor, ""]:
        """The discrete VAE's loss, the writer's nats per token, and the quantiser's loss; or the prior's (see
        `SVQAutoencoder.loss`)."""
        if self.config.learn == "prior":
            return super().loss(images, generator, share)
        first, every = share
        start = self.slot_attention.initial_slots(len(images) * every, generator=generator)[first::every]
        with self.slot_attention.recording(generator, share) as iterations:
            slots = self.slot_attention(self.encode(images).flatten(1, 2), slots=start).slots
        nats = -self.decoder.log_likelihood(self.tokens(images), slots).mean() / self.dvae.side**2
        return self.dvae.loss(images, generator, share) + nats + mean_cost(iterations)

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"],
        num_slots: int | None = None,
        num_iterations: int | None = None,
        restarts: int = 1,
        generator: torch.Generator | None = None,
    ) -> SVQOutput:
        """Take images apart into codes, and write the most probable tokens for these. Masks are the attention.

        Raises ValueError as `SVQAutoencoder`, and for restarts other than 1.
        """
        if restarts != 1:
            raise ValueError(f"this decoder cannot tell which restart is best; restarts must be 1, got {restarts}")
        features = self.encode(images)
        with self.slot_attention.recording(generator) as iterations:
            slots, attention, _ = self.slot_attention(
                features.flatten(1, 2), num_slots, num_iterations, generator=generator
            )
        attention = attention.unflatten(-1, features.shape[1:3])
        masks = F.interpolate(attention, size=images.shape[-2:], mode="bilinear")
        codes, error = self._codes(slots, iterations)
        return SVQOutput(
            reconstruction=self.decode(codes).image,
            slot_images=images.unsqueeze(1).expand(-1, masks.shape[1], -1, -1, -1),
            masks=masks,
            slots=slots,
            attention=attention,
            drawn_masks=masks,
            codes=codes,
            error=error,
        )

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "batch slots blocks"]) -> Drawn:
        """Write the most probable tokens, one after another, and draw them. Slots are not drawn one by one."""
        tokens = self.decoder.sample(len(codes), memory=self.quantizer.decode(codes), temperature=1e-4)
        return Drawn(self.dvae.decode(tokens), None, None)
