"""The slot attention autoencoder (chapter 03): image → features → slots → one picture and one mask per slot → image.

Nobody tells the model what an object is. It has to redraw the image from a few slots, each slot is drawn on its own,
and the drawings are laid over one another. Splitting the scene into objects is the easiest way to do that well
(Locatello et al., 2020, section 3.1; arXiv 2006.15055).

The model is put together from an encoder, slot attention, a decoder and a likelihood. The paper's are there exactly,
and so are the cheaper ones that train in minutes on a CPU.
"""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from slotlib import diagnosis, metrics
from slotlib.decoders import Broadcast, DecoderConfig, Drawing
from slotlib.encoders import EncoderConfig, Paper, start_as_keras
from slotlib.likelihoods import Average, LikelihoodConfig, compose
from slotlib.model import Draws, Look, Model, Scenes
from slotlib.slot_attention import AttentionConfig, SlotAttentionOutput


@dataclass
class AutoencoderConfig:
    """Everything that defines a `SlotAutoencoder`. Defaults are the paper's model for 35×35 Tetrominoes."""

    resolution: int = 35
    """Side of the square images, in pixels."""
    encoder: EncoderConfig = field(default_factory=Paper)
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    decoder: DecoderConfig = field(default_factory=Broadcast)
    likelihood: LikelihoodConfig = field(default_factory=Average)


class AutoencoderOutput(NamedTuple):
    reconstruction: Float[Tensor, "batch 3 height width"]
    """Σ drawn_masks · slot_images, in [0, 1] up to the decoder's errors."""
    slot_images: Float[Tensor, "batch slots 3 height width"]
    masks: Float[Tensor, "batch slots height width"]
    """Whose pixel it is; sums to 1 over slots. Of a mixture the probability that the slot painted this pixel, given its
    colour in the image (the posterior); else the drawn masks."""
    slots: Float[Tensor, "batch slots dim"]
    attention: Float[Tensor, "batch slots h w"]
    """Of the last iteration, on the encoder's grid."""
    drawn_masks: Float[Tensor, "batch slots height width"]
    """As the decoder draws them from the slots alone: the softmax of its logits over slots."""


def check_images(images: Float[Tensor, "batch 3 height width"], side: int) -> None:
    """Raises ValueError unless `images` is `[batch, 3, side, side]`, floating point and finite."""
    if images.ndim != 4 or images.shape[1:] != (3, side, side) or not images.is_floating_point():
        raise ValueError(
            f"images must be floating point [batch, 3, {side}, {side}], got {images.dtype} {list(images.shape)}"
        )
    if not torch.compiler.is_compiling() and not images.mean(dtype=torch.float32).isfinite():
        raise ValueError("images must be finite, got NaN or infinite pixels")


def mask_scores(
    scenes: Scenes,
    masks: Float[Tensor, "batch slots height width"],
    drawn: Float[Tensor, "batch slots height width"],
) -> dict[str, Float[Tensor, "batch"]]:
    """How well masks (argmax over slots) agree with a scene's true ones; NaN for scenes without.

    `fg_ari_drawn` is of the masks as drawn from the slots; it differs from `fg_ari` for a mixture only.
    """
    names = "fg_ari", "ari", "mbo", "miou", "fg_ari_drawn"
    if "mask" not in scenes:
        return dict.fromkeys(names, torch.full((len(masks),), math.nan))
    true, found = scenes["mask"].to(masks.device), masks.argmax(dim=1)
    scores = metrics.fg_ari, metrics.adjusted_rand_index, metrics.mean_best_overlap, metrics.mean_iou
    scored = [score(true, found) for score in scores]
    return dict(zip(names, [*scored, metrics.fg_ari(true, drawn.argmax(dim=1))], strict=True))


class SlotAutoencoder(Model):
    """Encoder, slot attention, decoder and likelihood in one module, built from an `AutoencoderConfig`.

    Images come and go in [0, 1]; inside they live in [-1, 1], as in the paper.

    Raises ValueError for a configuration that cannot be built, naming the field.
    """

    config: AutoencoderConfig

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        if config.resolution < 1:
            raise ValueError(f"resolution must be at least 1, got {config.resolution}")
        self.config = config
        dim = config.attention.slot_dim
        self.encoder = config.encoder.build(dim)
        self.slot_attention = config.attention.build(dim)
        self.decoder = config.decoder.build(dim, config.resolution)
        self.likelihood = config.likelihood.build()
        start_as_keras(self.encoder)
        self.decoder.initialise()
        self.at(1.0)

    def encode(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch h w dim"]:
        """The features slot attention reads, on their grid.

        Raises ValueError unless `images` is `[batch, 3, resolution, resolution]`, floating point and finite.
        """
        check_images(images, self.config.resolution)
        return self.encoder(images * 2 - 1)

    def bind(self, images: Float[Tensor, "batch 3 height width"], draws: Draws | None = None) -> SlotAttentionOutput:
        """The slots of images, from starts drawn with `draws`."""
        draws = draws or Draws()
        features = self.encode(images).flatten(1, 2)
        start = self.slot_attention.initial_slots(draws.whole(len(images)), generator=draws.generator)
        return self.slot_attention(features, slots=draws.share(start))

    def drawing_loss(
        self,
        slots: Float[Tensor, "batch slots dim"],
        images: Float[Tensor, "batch 3 height width"],
        draws: Draws | None = None,
    ) -> Float[Tensor, ""]:
        """What `slots` cost as a drawing of `images`, or of what part of them the decoder draws in training."""
        drawing, target = self.decoder.part(slots, images * 2 - 1, draws or Draws())
        return self.likelihood.cost(drawing, target).mean()

    def loss(self, images: Float[Tensor, "batch 3 height width"], draws: Draws | None = None) -> Float[Tensor, ""]:
        """The likelihood's cost, averaged over images; in squared error, for images in the units of [-1, 1].

        `draws` decides the slots' start and which pixels count, if not all do.
        """
        return self.drawing_loss(self.bind(images, draws).slots, images, draws)

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"],
        num_slots: int | None = None,
        num_iterations: int | None = None,
        restarts: int = 1,
        generator: torch.Generator | None = None,
    ) -> AutoencoderOutput:
        """Take images apart and put them together again.

        Args:
            images: `[batch, 3, resolution, resolution]` in [0, 1].
            num_slots, num_iterations: override the configuration for this call.
            restarts: random initialisations tried per image; the one of least loss is kept. No labels are used. Costs
                that many times slot attention and decoder; the encoder runs once.
            generator: the source of the slots' initial noise.

        Raises:
            ValueError: images of another shape, type or with NaN; a number below 1.
        """
        bound, grid = self._bind_again(images, num_slots, num_iterations, restarts, Draws(generator))
        return self._drawn(images, bound, grid, restarts)

    def _bind_again(
        self,
        images: Float[Tensor, "batch 3 height width"],
        num_slots: int | None,
        num_iterations: int | None,
        restarts: int,
        draws: Draws,
    ) -> tuple[Any, torch.Size]:
        """Slot attention from every restart, `[batch · restarts]`, and the encoder's grid."""
        if restarts < 1:
            raise ValueError(f"restarts must be at least 1, got {restarts}")
        features = self.encode(images)
        inputs = features.flatten(1, 2).repeat_interleave(restarts, dim=0)
        count = draws.whole(len(images)) * restarts
        start = self.slot_attention.initial_slots(count, num_slots, generator=draws.generator)
        start = draws.share(start.unflatten(0, (-1, restarts))).flatten(0, 1)
        return self.slot_attention(inputs, None, num_iterations, start), features.shape[1:3]

    def _drawn(
        self, images: Float[Tensor, "batch 3 height width"], bound: Any, grid: torch.Size, restarts: int
    ) -> AutoencoderOutput:
        """What slots draw; of several restarts, those of the best."""
        slots, attention = bound.slots, bound.attention
        drawing = self.decoder(slots)
        target = (images * 2 - 1).repeat_interleave(restarts, dim=0)
        if restarts > 1:
            best = self.likelihood.cost(drawing, target).view(-1, restarts).argmin(dim=1)
            best = best + torch.arange(len(best), device=images.device) * restarts
            slots, attention, target = slots[best], attention[best], target[best]
            drawing = Drawing(drawing.colours[best], drawing.logits[best])
        picture, drawn = compose(drawing)
        return AutoencoderOutput(
            reconstruction=(picture + 1) / 2,
            slot_images=((drawing.colours + 1) / 2).expand(-1, -1, -1, *drawn.shape[2:]),
            masks=self.likelihood.masks(drawing, target),
            slots=slots,
            attention=attention.unflatten(-1, grid),
            drawn_masks=drawn,
        )

    @torch.no_grad()
    def judge(self, scenes: Scenes, draws: Draws | None = None, **how: Any) -> dict[str, Tensor]:
        """`mask_scores`, and `mse`: the squared error per pixel and channel, in units of [0, 1] images.

        `how`: `num_slots`, `num_iterations`, `restarts`.
        """
        return self._scores(scenes, self(scenes["image"], generator=(draws or Draws()).generator, **how))

    def _scores(self, scenes: Scenes, output: Any) -> dict[str, Tensor]:
        found = mask_scores(scenes, output.masks, output.drawn_masks)
        mse = (output.reconstruction - scenes["image"]).square().mean(dim=(1, 2, 3))
        return {**found, "mse": mse}

    @torch.no_grad()
    def look(self, scenes: Scenes) -> Look:
        """Pictures of the first eight scenes; of all, signs of failure in the masks."""
        from slotlib import plots  # slow to import

        output = self(scenes["image"], generator=torch.Generator().manual_seed(0))
        signs = diagnosis.diagnose(output.masks)
        pictures = plots.rows(scenes, output.reconstruction, output.masks, output.attention)
        return Look(pictures, signs._asdict(), diagnosis.warnings(signs))
