"""SLATE (chapter 08): slots that are decoded by a transformer, which writes an image patch after patch.

Singh, Deng & Ahn, 2022, arXiv 2110.11405. A discrete VAE (`slotlib.patches`) makes words of patches; the transformer
writes them, each from all before it and from the slots. So slots need not be drawn independently, which suits natural
textures. SVQ was published with this decoder. It has no masks; attention stands in for them.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from slotlib import check
from slotlib.autoencoder import checked
from slotlib.decoders import Masks
from slotlib.encoders import EncoderConfig, Images, Paper, start_as_keras
from slotlib.model import Draws, Model
from slotlib.patches import PatchConfig, PatchVQVAE
from slotlib.prior import ScenePrior
from slotlib.slot_attention import Slots
from slotlib.svq import Codes, Drawn, QuantisedAttentionConfig, WithCodedSlots, last_error, mean_cost
from slotlib.vq import Gumbel


@dataclass
class SlateConfig:
    """Everything that defines a `SlateAutoencoder`."""

    resolution: int = 64
    """Side of the square images, in pixels."""
    encoder: EncoderConfig = field(default_factory=Paper)
    attention: QuantisedAttentionConfig = field(default_factory=QuantisedAttentionConfig)
    """With quantise=false the slots are continuous, as they were published."""
    patch: int = 4
    """Side in pixels of what a token stands for."""
    vocabulary: int = 256
    """Number of tokens."""
    token_channels: int = 64
    """Feature maps of the discrete VAE."""
    token_dim: int = 128
    """Width of tokens, in the discrete VAE and in the transformer that writes them."""
    num_layers: int = 4
    """Of the transformer."""
    num_heads: int = 4


class SlateOutput(NamedTuple):
    reconstruction: Images
    masks: Masks
    """The attention, enlarged."""
    slots: Slots
    attention: Float[Tensor, "batch slots h w"]
    codes: Codes
    error: Float[Tensor, "blocks"]
    """As in `SVQOutput`."""


class SlateAutoencoder(WithCodedSlots, Model):
    """Slots, made of codes or not, decoded by a transformer that writes the tokens of a discrete VAE.

    The discrete VAE learns along, from its own error. Its gradient is that of a softmax at temperature 1 where the
    published one is cooled from 1 to 0.1.

    Raises ValueError for a configuration that cannot be built, naming the field.
    """

    config: SlateConfig

    def __init__(self, config: SlateConfig):
        super().__init__()
        self.config = checked(config, SlateConfig)
        dim = config.attention.slot_dim
        check.whole("slot_dim", dim)
        self.encoder = config.encoder.build(dim)
        self.slot_attention = config.attention.build(dim)
        start_as_keras(self.encoder)
        self.dvae = PatchVQVAE(
            PatchConfig(
                config.resolution, config.patch, config.token_channels, config.token_dim, Gumbel(1, config.vocabulary)
            )
        )
        self.decoder = ScenePrior(
            self.dvae.places,
            1,
            config.vocabulary,
            dim=config.token_dim,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            memory_dim=dim,
        )
        self.at(1.0)

    def tokens(self, images: Images) -> Int[Tensor, "batch patches 1"]:
        """The most probable token of each patch, without a gradient."""
        classify = self.dvae.get_submodule("quantizer.classify")
        with torch.no_grad():
            return classify(self.dvae.encode(images)).argmax(dim=-1, keepdim=True)

    def loss(self, images: Images, draws: Draws | None = None) -> Float[Tensor, ""]:
        """The discrete VAE's loss, the writer's nats per token, and the quantiser's loss."""
        draws = Draws.given(draws)
        bound = self.bind(self.encode(images), draws)
        nats = -self.decoder.log_likelihood(self.tokens(images), bound.slots).mean() / self.dvae.places
        return self.dvae.loss(images, draws) + nats + mean_cost(bound.quantised)

    def forward(
        self,
        images: Images,
        num_slots: int | None = None,
        num_iterations: int | None = None,
        generator: torch.Generator | None = None,
    ) -> SlateOutput:
        """Take images apart into slots, and write the most probable tokens for these.

        Arguments and errors as `SlotAutoencoder.forward`; but this decoder cannot tell which of several starts is best.
        """
        features = self.encode(images)
        bound = self.bind(features, Draws(generator), num_slots, num_iterations)
        attention = bound.attention.unflatten(-1, features.shape[1:3])
        return SlateOutput(
            reconstruction=self.write(bound.slots),
            masks=F.interpolate(attention, size=images.shape[-2:], mode="bilinear"),
            slots=bound.slots,
            attention=attention,
            codes=self.quantizer.nearest(bound.slots),
            error=last_error(bound, self.quantizer.num_blocks),
        )

    def scored_masks(self, output: SlateOutput) -> dict[str, Masks]:
        """The attention: this decoder draws none."""
        return {"attention": output.masks}

    @torch.no_grad()
    def write(self, slots: Slots) -> Images:
        """Write the most probable tokens, one after another, and draw them."""
        check.tensor("slots", slots, "floating point", f"batch slots dim={self.config.attention.slot_dim}")
        tokens = self.decoder.sample(len(slots), memory=slots, temperature=1e-4)
        return self.dvae.decode(tokens).image

    @torch.no_grad()
    def tokenise(self, images: Images, draws: Draws | None = None, restarts: int = 1) -> Codes:
        """The codes of images. Raises ValueError for restarts other than 1."""
        check.whole("restarts", restarts)
        if restarts != 1:
            raise ValueError(f"this decoder cannot tell which restart is best; restarts must be 1, got {restarts}")
        return self.quantizer.nearest(self.bind(self.encode(images), Draws.given(draws)).slots)

    def decode(self, codes: Codes) -> Drawn:
        """Draw scenes from codes. Slots are not drawn one by one."""
        return Drawn(self.write(self.slots_of(codes)))
