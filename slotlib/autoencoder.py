"""The slot attention autoencoder (chapter 03): image → features → slots → one picture and one mask per slot → image.

Nobody tells the model what an object is. It has to redraw the image from a few slots, each slot is drawn on its own,
and the drawings are laid over one another. Splitting the scene into objects is the easiest way to do that well
(Locatello et al., 2020, section 3.1; arXiv 2006.15055).

The model is put together from an encoder, slot attention, a decoder and a likelihood. The paper's are there exactly,
and so are the cheaper ones that train in minutes on a CPU.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, NamedTuple, get_type_hints

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slotlib import check, configuration, diagnosis, metrics
from slotlib.decoders import Broadcast, DecoderConfig, Drawing, Keep, Masks
from slotlib.encoders import EncoderConfig, Features, Images, Paper, start_as_keras
from slotlib.likelihoods import Average, LikelihoodConfig, compose
from slotlib.model import Draws, Look, Model, Scenes
from slotlib.slot_attention import AttentionConfig, SlotAttention, Slots

# --- what models of images and of slots share ---

LIMITS = -0.5, 1.5
"""Of pixels. Images lie in [0, 1]; resampling, a sensor's noise and light that was not clipped may lead a little out.
Images in other units reach further: [-1, 1], 0 … 255, standardised ones."""


def accepted(images: Images, side: int, dtype: torch.dtype) -> Images:
    """The same images.

    Raises ValueError unless there is at least one, `[batch, 3, side, side]` in this precision (under autocast in any),
    finite and within `LIMITS`.
    """
    check.tensor("images", images, "floating point", f"batch 3 {side} {side}")
    if images.dtype != dtype and not torch.is_autocast_enabled(images.device.type):
        raise ValueError(f"images must be {dtype}, as the model is, got {images.dtype}")
    if images.shape[0] == 0:
        raise ValueError("images must be at least one, got an empty batch")
    low, high = images.detach().amin(), images.detach().amax()
    if not check.holds((low > LIMITS[0]) & (high < LIMITS[1]), otherwise=True):
        if not (low.isfinite() and high.isfinite()):
            raise ValueError("images must be finite, got NaN or infinite pixels")
        raise ValueError(
            f"images must lie in [0, 1], got {low:g} to {high:g}; divide bytes by 255, take (x + 1) / 2 of [-1, 1]"
        )
    return images


def compressed(values: Float[Tensor, "*any"], amount: float) -> Float[Tensor, "*any"]:
    """Brightness in [0, 1] as a photoreceptor answers it: (1 + c)·v / (1 + c·v), below 0 nothing.

    Dark is stretched, light compressed, and light of twice the strength is a step up rather than another world (Naka &
    Rushton, 1966).
    """
    values = values.clamp(min=0)
    return (1 + amount) * values / (1 + amount * values)


def expanded(values: Float[Tensor, "*any"], amount: float) -> Float[Tensor, "*any"]:
    """The brightness of which `compressed` makes these values, for an amount above 0. No brightness makes 1 + 1/c: what
    is more than half way from 1 to there is taken back to that point."""
    values = values.clamp(max=1 + 0.5 / amount)
    return values / (1 + amount - amount * values)


def softened(images: Float[Tensor, "batch 3 side side"], spread: float) -> Float[Tensor, "batch 3 side side"]:
    """Images blurred by a Gaussian whose standard deviation is `spread` pixels. What lies beyond the border does not
    count."""
    with torch.autocast(images.device.type, enabled=False):
        place = torch.arange(images.shape[-1], device=images.device, dtype=images.dtype)
        blur = (-((place.unsqueeze(1) - place) / spread).square() / 2).softmax(dim=1)
        return blur @ images @ blur.mT


def checked(config: Any, kind: type, where: str = "") -> Any:
    """A model's configuration. Raises ValueError naming the field that is not what its annotation says."""
    if not isinstance(config, kind):
        raise ValueError(f"{where or 'config'} must be of kind {kind.__name__}, got {check.described(config)}")
    hints = get_type_hints(type(config))
    for each in fields(config):
        value, name = getattr(config, each.name), f"{where}.{each.name}".removeprefix(".")
        if is_dataclass(hints[each.name]):
            checked(value, hints[each.name], name)
        else:
            configuration.made(hints[each.name], value, name)
    return config


def squared_error(images: Images, others: Images) -> Float[Tensor, "batch"]:
    """Of each image, averaged over pixels and channels."""
    return (images - others).square().mean(dim=(1, 2, 3))


def mask_scores(scenes: Scenes, masks: Masks, kind: str) -> dict[str, Float[Tensor, "batch"]]:
    """`KIND_fg_ari` and so on: how well masks (argmax over slots) agree with a scene's true ones; NaN for scenes
    without."""
    if "mask" not in scenes:
        return {f"{kind}_{name}": torch.full((len(masks),), math.nan) for name in metrics.MASK_SCORES}
    true, found = scenes["mask"].to(masks.device), masks.argmax(dim=1)
    return {f"{kind}_{name}": metric(true, found) for name, metric in metrics.MASK_SCORES.items()}


class WithSlots:
    """Of a `Model`: it takes images apart into slots, and what it returns has masks and attention.

    Images come and go in [0, 1]; inside they live in [-1, 1], as in the paper (`units`).
    """

    config: Any
    encoder: nn.Module
    slot_attention: SlotAttention
    __call__: Callable[..., Any]

    def encode(self, images: Images) -> Features:
        """The features slots are made of, on their grid. Raises ValueError for images that `accepted` refuses."""
        dtype = next(self.encoder.parameters()).dtype
        return self.encoder(self.units(accepted(images, self.config.resolution, dtype)))

    def units(self, images: Float[Tensor, "batch 3 *area"]) -> Float[Tensor, "batch 3 *area"]:
        """Images from [0, 1] as the model sees and draws them, in [-1, 1]."""
        return images * 2 - 1

    def starts(
        self, count: int, draws: Draws, num_slots: int | None = None, restarts: int = 1
    ) -> Float[Tensor, "starts slots dim"]:
        """Where the slots of `count` images start, those of an image one after another."""
        check.whole("restarts", restarts)
        start = self.slot_attention.initial_slots(draws.whole(count) * restarts, num_slots, draws.generator)
        return draws.share(start.unflatten(0, (-1, restarts))).flatten(0, 1)

    def bind(
        self,
        features: Features,
        draws: Draws,
        num_slots: int | None = None,
        num_iterations: int | None = None,
        restarts: int = 1,
    ) -> Any:
        """What slot attention makes of features, an image's several restarts one after another."""
        start, inputs = self.starts(features.shape[0], draws, num_slots, restarts), features.flatten(1, 2)
        if restarts > 1:
            inputs = inputs.repeat_interleave(restarts, dim=0)
        return self.attend(inputs, start, num_iterations, draws)

    def attend(
        self,
        inputs: Float[Tensor, "batch inputs dim"],
        start: Float[Tensor, "batch slots slot_dim"],
        num_iterations: int | None,
        draws: Draws,
    ) -> Any:
        """Slot attention from these starts. `draws` is for slots that are drawn, not only started, at random."""
        return self.slot_attention(inputs, None, num_iterations, start)

    @torch.no_grad()
    def judge(self, scenes: Scenes, draws: Draws | None = None, **how: Any) -> dict[str, Tensor]:
        """Scores of all `scored_masks`, and `mse`: the squared error per pixel and channel, in units of [0, 1] images.

        `how`: as for a call, such as `num_slots`, `num_iterations`, `restarts`.
        """
        check.scenes(scenes)
        output = self(scenes["image"], generator=Draws.given(draws).generator, **how)
        return self.scores(scenes, output)

    def scored_masks(self, output: Any) -> dict[str, Masks]:
        """The masks of an output that are scored, by what they are: "drawn" from the slots alone, as papers score them,
        or the "attention"; and after them a "posterior", which has seen the image."""
        raise NotImplementedError(f"{type(self).__name__} does not say which masks it has")

    def scores(self, scenes: Scenes, output: Any) -> dict[str, Tensor]:
        """What `judge` says of an output."""
        columns: dict[str, Tensor] = {}
        for kind, masks in self.scored_masks(output).items():
            columns |= mask_scores(scenes, masks, kind)
        return {**columns, "mse": squared_error(output.reconstruction, scenes["image"])}

    @torch.no_grad()
    def look(self, scenes: Scenes) -> Look:
        """Pictures of the first eight scenes; of all, signs of failure in the masks."""
        from slotlib import plots  # slow to import

        check.scenes(scenes)
        output = self(scenes["image"], generator=torch.Generator().manual_seed(0))
        signs = diagnosis.diagnose(output.masks)
        pictures = plots.rows(scenes, output.reconstruction, output.masks, output.attention)
        found = diagnosis.warnings(signs)
        if "mask" in scenes:
            found |= diagnosis.crowding(scenes["mask"], output.masks.shape[1])
        return Look(pictures, signs._asdict(), found)


# --- the autoencoder ---


@dataclass
class AutoencoderConfig:
    """Everything that defines a `SlotAutoencoder`. Defaults are the paper's model for 35×35 Tetrominoes."""

    resolution: int = 35
    """Side of the square images, in pixels."""
    encoder: EncoderConfig = field(default_factory=Paper)
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    decoder: DecoderConfig = field(default_factory=Broadcast)
    likelihood: LikelihoodConfig = field(default_factory=Average)
    compression: float = 0.0
    """How strongly brightness is compressed before the model sees or draws it, see `compressed`. 0: as it is. For
    objects that are shaded more strongly than they differ from what is behind them, as published Tetrominoes are."""
    softness: float = 0.0
    """By how many pixels an image is blurred before it is asked whose its pixels are, see `softened`. 0: not at all.
    For objects with highlights: a thin bright rim has none of the colours that slots paint, and may go to any of them;
    mixed with its neighbours it stays with them. What is drawn is compared with the sharp image all the same."""


class AutoencoderOutput(NamedTuple):
    reconstruction: Images
    """Σ drawn_masks · slot_images, in [0, 1] up to the decoder's errors."""
    slot_images: Float[Tensor, "batch slots 3 height width"]
    masks: Masks
    """Whose pixel it is; sums to 1 over slots. Of a mixture the probability that the slot painted this pixel, given its
    colour in the image (the posterior); else the drawn masks."""
    slots: Slots
    attention: Float[Tensor, "batch slots h w"]
    """Of the last iteration, on the encoder's grid."""
    drawn_masks: Masks
    """As the decoder draws them from the slots alone: the softmax of its logits over slots."""


class SlotAutoencoder(WithSlots, Model):
    """Encoder, slot attention, decoder and likelihood in one module, built from an `AutoencoderConfig`.

    Raises ValueError for a configuration that cannot be built, naming the field.
    """

    config: AutoencoderConfig

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config = checked(config, AutoencoderConfig)
        dim = config.attention.slot_dim
        check.whole("resolution", config.resolution)
        check.whole("slot_dim", dim)
        check.number("compression", config.compression)
        check.number("softness", config.softness)
        self.encoder = config.encoder.build(dim)
        self.slot_attention = config.attention.build(dim)
        self.decoder = config.decoder.build(dim, config.resolution)
        self.likelihood = config.likelihood.build()
        start_as_keras(self.encoder)
        self.decoder.initialise()
        self.at(1.0)

    def units(self, images: Float[Tensor, "batch 3 *area"]) -> Float[Tensor, "batch 3 *area"]:
        amount = self.config.compression
        return super().units(compressed(images, amount) if amount else images)

    def evidence(self, images: Images) -> Images:
        """Images as they are asked whose their pixels are, in the model's `units`."""
        softness = self.config.softness
        return self.units(softened(images, softness) if softness else images)

    def shown(self, drawing: Drawing) -> tuple[Images, Float[Tensor, "batch slots 3 height width"], Masks]:
        """Of a whole drawing, in [0, 1]: the picture, what each slot paints, and the drawn masks."""
        if amount := self.config.compression:
            drawing = drawing._replace(colours=expanded((drawing.colours + 1) / 2, amount) * 2 - 1)
        picture, masks = compose(drawing)
        return (picture + 1) / 2, ((drawing.colours + 1) / 2).expand(-1, -1, -1, *masks.shape[2:]), masks

    def drawings(
        self, slots: Slots, images: Images, draws: Draws, keep: Keep | None = None
    ) -> tuple[list[Drawing], Float[Tensor, "batch 3 *area"]]:
        """What training draws of `images`, the draft first, and what of them it is compared with.

        `keep`: which slots are there at all (1, else 0); for who makes one drawing from another.
        """
        drawing, target = self.decoder.part(slots, self.units(images), draws)
        return [drawing], target

    def drawing_loss(self, slots: Slots, images: Images, draws: Draws) -> Float[Tensor, ""]:
        """What `slots` cost as a drawing of `images`, or of what part of them the decoder draws in training."""
        drawings, target = self.drawings(slots, images, draws)
        return torch.stack([self.likelihood.cost(each, target) for each in drawings]).mean()

    def second_look(self, slots: Slots, images: Images, keep: Keep | None = None) -> Float[Tensor, "batch slots more"]:
        """What the decoder gets of slots: themselves. A subclass may let them look at the image again."""
        return slots

    def loss(self, images: Images, draws: Draws | None = None) -> Float[Tensor, ""]:
        """The likelihood's cost, averaged over images; in squared error, for images in the model's `units`.

        `draws` decides the slots' start and which pixels count, if not all do.
        """
        draws = Draws.given(draws)
        return self.drawing_loss(self.bind(self.encode(images), draws).slots, images, draws)

    def forward(
        self,
        images: Images,
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
            ValueError: images of another shape, type or range, or with NaN; a number below 1.
        """
        features = self.encode(images)
        bound = self.bind(features, Draws(generator), num_slots, num_iterations, restarts)
        return self.drawn(images, bound, features.shape[1:3], restarts)

    def drawn(self, images: Images, bound: Any, grid: torch.Size, restarts: int) -> AutoencoderOutput:
        """What bound slots draw; of an image's several restarts, the best. `grid` is that of the features."""
        every = images.repeat_interleave(restarts, dim=0) if restarts > 1 else images
        slots, attention = self.second_look(bound.slots, every), bound.attention
        drawing = self.decoder(slots)
        if restarts > 1:
            best = self.likelihood.cost(drawing, self.units(every)).view(-1, restarts).argmin(dim=1)
            best = best + torch.arange(len(best), device=images.device) * restarts
            slots, attention = slots[best], attention[best]
            drawing = Drawing(drawing.colours[best], drawing.logits[best])
        return self.output(drawing, images, slots, attention.unflatten(-1, grid))

    def output(
        self, drawing: Drawing, images: Images, slots: Slots, attention: Float[Tensor, "batch slots h w"]
    ) -> AutoencoderOutput:
        """A drawing of `images`, and the slots that it was made from."""
        picture, slot_images, drawn_masks = self.shown(drawing)
        masks = self.likelihood.masks(drawing, self.evidence(images))
        return AutoencoderOutput(picture, slot_images, masks, slots, attention, drawn_masks)

    def scored_masks(self, output: Any) -> dict[str, Masks]:
        """The drawn ones; of a mixture the posterior too."""
        posterior = {"posterior": output.masks} if self.likelihood.has_posterior else {}
        return {"drawn": output.drawn_masks, **posterior}
