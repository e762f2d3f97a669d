"""Sharp drawings (chapter 03): a slot looks a second time, at the pixels that are already its own.

A slot is a weighted mean of features. It keeps what an object is like and where it is, and loses its outline: on
Multi-dSprites no decoder drew sharp masks from such slots, not even when it was trained on the true ones. But a draft
is enough to say whose each pixel is, by Bayes' rule. So the draft's posterior is read once more, in a window around
each slot's centre of mass, and a short description of the outline is appended to the slot. It is one step of iterative
inference, as IODINE takes several of (Greff et al., 2019, arXiv 1903.00450).

What is drawn then comes from the slots alone, as before; but the slots have seen whose pixels are whose.
"""

from dataclasses import dataclass, field
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slotlib import check
from slotlib.autoencoder import AutoencoderConfig, SlotAutoencoder
from slotlib.decoders import Decoder, Drawing, Keep, Masks, Separable, SeparableDecoder, kept_only
from slotlib.encoders import Images, start_as_keras
from slotlib.likelihoods import Mixture
from slotlib.model import Draws
from slotlib.slot_attention import Slots

WINDOW, CANVAS = 16, 24
"""Places along a side of what is read of a slot's outline, and of what is drawn of it."""


@dataclass
class OutlinedConfig(AutoencoderConfig):
    """Everything that defines an `OutlinedAutoencoder`."""

    decoder: Separable = field(default_factory=Separable)
    """Draws the drafts."""
    likelihood: Mixture = field(default_factory=Mixture)
    outline_dim: int = 32
    """Numbers a slot keeps of its outline, beside slot_dim, and two more for its centre."""
    frame: float = 0.6
    """Side of the window around a slot's centre, as a part of the image's side. The largest objects should fit."""


class OutlinedDecoder(Decoder):
    """A draft, and on top of it each slot's outline, in the slot's own frame.

    A slot is `[what slot attention found, outline, centre]`; the centre is (y, x), from −1 to 1. Linear interpolation
    is separable, so a window is read, and a canvas laid into the image, by two small matrix products per slot.
    """

    def __init__(self, draft: SeparableDecoder, slot_dim: int, outline_dim: int, frame: float):
        super().__init__()
        self.draft, self.frame = draft, frame
        self.slot_dim, self.outlined_dim = slot_dim, slot_dim + outline_dim + 2
        self.outline = nn.Sequential(nn.Linear(WINDOW**2, 128), nn.ReLU(), nn.Linear(128, outline_dim))
        self.canvas = nn.Sequential(nn.Linear(slot_dim + outline_dim, 256), nn.ReLU(), nn.Linear(256, CANVAS**2))

    def read(
        self, slots: Slots, whose: Masks, rows: slice = slice(None), columns: slice = slice(None)
    ) -> Float[Tensor, "batch slots more"]:
        """The slots, followed by the outline and the centre of the pixels that are theirs.

        Args:
            slots: as slot attention found them.
            whose: of these `rows` and `columns` of the image; sums to 1 over slots.
        """
        whose = whose.float()
        weight = whose.square() + 1e-6  # squared: a little everywhere should not move the centre
        weight = weight / weight.sum(dim=(2, 3), keepdim=True)
        down, across = (self._places(part, slots) for part in (rows, columns))
        centre = torch.stack([weight.sum(dim=3) @ down, weight.sum(dim=2) @ across], dim=-1)
        down, across = (self._hats(centre[..., axis], WINDOW, places) for axis, places in enumerate((down, across)))
        down, across = (hats / (hats.sum(dim=2, keepdim=True) + 1e-3) for hats in (down, across))  # means, not sums
        outline = self.outline((down.mT @ whose @ across).flatten(2).to(slots.dtype))
        return torch.cat([slots, outline.to(slots.dtype), (2 * centre - 1).to(slots.dtype)], dim=-1)

    def added(
        self,
        draft: Drawing,
        slots: Float[Tensor, "batch slots more"],
        rows: slice = slice(None),
        columns: slice = slice(None),
    ) -> Drawing:
        """The draft of these `rows` and `columns`, with every slot's outline added to its logits."""
        canvas = self.canvas(slots[..., :-2]).unflatten(-1, (CANVAS, CANVAS))
        centre = (slots[..., -2:].float() + 1) / 2
        down, across = (
            self._hats(centre[..., axis], CANVAS, self._places(part, slots)).to(canvas.dtype)
            for axis, part in enumerate((rows, columns))
        )
        return Drawing(draft.colours, draft.logits + down @ canvas @ across.mT)

    def forward(self, slots: Float[Tensor, "batch slots more"]) -> Drawing:
        """Draw the image from slots whose outlines have been read."""
        check.tensor("slots", slots, "floating point", f"batch slots dim={self.outlined_dim}")
        return self.added(self.draft(slots[..., : self.slot_dim]), slots)

    def _places(self, part: slice, like: Tensor) -> Float[Tensor, "pixels"]:
        """Where along a side these pixels lie, from 0 to 1."""
        side = self.draft.resolution
        return ((torch.arange(side, device=like.device) + 0.5) / side)[part]

    def _hats(
        self, centre: Float[Tensor, "batch slots"], count: int, places: Float[Tensor, "pixels"]
    ) -> Float[Tensor, "batch slots pixels {count}"]:
        """Linear interpolation along one axis: the part that each of `count` places over the frame has in a pixel."""
        spacing = self.frame / count
        offsets = (torch.arange(count, device=places.device) - (count - 1) / 2) * spacing
        return (1 - (places.unsqueeze(1) - centre[..., None, None] - offsets).abs() / spacing).relu()


class OutlinedAutoencoder(SlotAutoencoder):
    """A `SlotAutoencoder` whose slots also keep an outline; they are `slot_dim + outline_dim + 2` numbers wide.

    Raises ValueError for a configuration that cannot be built, naming the field.
    """

    config: OutlinedConfig
    decoder: OutlinedDecoder

    def __init__(self, config: OutlinedConfig):
        super().__init__(config)
        check.whole("outline_dim", config.outline_dim)
        check.number("frame", config.frame, above=True)
        draft = cast(SeparableDecoder, self.decoder)  # as the configuration said
        self.decoder = OutlinedDecoder(draft, config.attention.slot_dim, config.outline_dim, config.frame)
        for fresh in (self.decoder.outline, self.decoder.canvas):
            start_as_keras(fresh)

    def drawings(
        self, slots: Slots, images: Images, draws: Draws, keep: Keep | None = None
    ) -> tuple[list[Drawing], Float[Tensor, "batch 3 *area"]]:
        """Draft and drawing, both judged: the draft has to stay good enough to find outlines with."""
        lines = self.decoder.draft.lines(draws)
        target = self.units(images[:, :, *lines])
        draft = self.decoder.draft(slots, *lines)
        whose = self.whose(draft, self.evidence(images)[:, :, *lines], keep).detach()
        return [draft, self.decoder.added(draft, self.read(slots, whose, *lines), *lines)], target

    def second_look(self, slots: Slots, images: Images, keep: Keep | None = None) -> Float[Tensor, "batch slots more"]:
        """The slots, followed by outline and centre: what `OutlinedDecoder` draws from."""
        return self.read(slots, self.whose(self.decoder.draft(slots), self.evidence(images), keep))

    def read(
        self, slots: Slots, whose: Masks, rows: slice = slice(None), columns: slice = slice(None)
    ) -> Float[Tensor, "batch slots more"]:
        """What the decoder reads of outlines, see `OutlinedDecoder.read`. A subclass may say it with less."""
        return self.decoder.read(slots, whose, rows, columns)

    def whose(self, draft: Drawing, evidence: Float[Tensor, "batch 3 *area"], keep: Keep | None) -> Masks:
        """The posterior of a draft, among the slots that are kept."""
        return self.likelihood.masks(draft if keep is None else kept_only(draft, keep), evidence)
