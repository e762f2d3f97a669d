"""Words for outlines (chapter 07): what a slot sees at its second look is put into words too.

A slot's codes say what an object is like and roughly where it lies. Drawn from them alone, Shapes lose 13 points of
FG-ARI, and a better decoder does not bring them back: the codes hold no more. So the second look of `slotlib.outlined`
is written down as well. A slot's text goes on after the blocks of slot attention: some for its outline, and four digits
for its centre.

Neither has a codebook to learn. Numbers of the outline are squashed and rounded (`vq.FiniteScalarQuantizer`); with
learned codes, outlines of Shapes were drawn worse. A coordinate of the centre is a number of two digits.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from slotlib import check
from slotlib.decoders import Masks
from slotlib.outlined import OutlinedAutoencoder, OutlinedConfig
from slotlib.slot_attention import Slots
from slotlib.svq import QuantisedAttentionConfig, SVQAutoencoder, SVQConfig
from slotlib.vq import FiniteScalar, Quantizer

DIGITS = 4
"""Of a centre: the coarse and the fine one of y, then those of x."""


@dataclass
class OutlinedSVQConfig(OutlinedConfig, SVQConfig):
    """Everything that defines an `OutlinedSVQAutoencoder`."""

    attention: QuantisedAttentionConfig = field(default_factory=QuantisedAttentionConfig)
    outline: FiniteScalar = field(default_factory=lambda: FiniteScalar(num_blocks=8, levels=[8, 8]))
    """How the `outline_dim` numbers of an outline are rounded: to as many codes as the blocks of attention have."""
    outline_dim: int = 16


class OutlinedText(Quantizer):
    """Slots `[what slot attention found, outline, centre]` as codes, in this order.

    Raises ValueError unless both quantisers have equally many codes.
    """

    def __init__(self, found: Quantizer, outline: Quantizer):
        nn.Module.__init__(self)  # not all blocks are equally wide
        if found.num_codes != outline.num_codes:
            raise ValueError(
                f"outline must have {found.num_codes} codes, as the blocks of attention, got levels that make "
                f"{outline.num_codes}"
            )
        self.found, self.outline = found, outline
        self.num_codes, self.num_blocks = found.num_codes, found.num_blocks + outline.num_blocks + DIGITS
        self.dim = found.dim + outline.dim + 2

    def decode(self, indices: Int[Tensor, "*batch blocks"]) -> Float[Tensor, "*batch dim"]:
        check.codes("codes", indices, f"... blocks={self.num_blocks}", self.num_codes)
        found, outline, digits = indices.split([self.found.num_blocks, self.outline.num_blocks, DIGITS], dim=-1)
        values = [self.found.decode(found), self.outline.decode(outline)]
        return torch.cat([*values, self.centre(digits).to(values[0])], dim=-1)

    @torch.no_grad()
    def nearest(self, x: Float[Tensor, "*batch dim"]) -> Int[Tensor, "*batch blocks"]:
        check.tensor("vectors", x, "floating point", f"... dim={self.dim}")
        found, outline, centre = self.parts(x)
        return torch.cat([self.found.nearest(found), self.outline.nearest(outline), self.digits(centre)], dim=-1)

    def update(self, generator: torch.Generator | None = None) -> None:
        self.found.update(generator)

    def parts(self, slots: Float[Tensor, "*batch dim"]) -> tuple[Tensor, ...]:
        """What slot attention found, the outline, and the centre."""
        return slots.split([self.found.dim, self.outline.dim, 2], dim=-1)

    def digits(self, centre: Float[Tensor, "*batch 2"]) -> Int[Tensor, "*batch 4"]:
        """Of points in the square from −1 to 1; those outside are moved to its edge."""
        steps = self.num_codes**2
        whole = ((centre.float() + 1) / 2 * steps).long().clamp(0, steps - 1)
        return torch.stack([whole // self.num_codes, whole % self.num_codes], dim=-1).flatten(-2)

    def centre(self, digits: Int[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 2"]:
        """The middle of the points that these digits stand for."""
        coarse, fine = digits.unflatten(-1, (2, 2)).unbind(-1)
        return (self.num_codes * coarse + fine + 0.5) / self.num_codes**2 * 2 - 1


class OutlinedSVQAutoencoder(SVQAutoencoder, OutlinedAutoencoder):
    """An `OutlinedAutoencoder` whose slots are codes altogether, outlines and centres too.

    Raises ValueError for a configuration that cannot be built, naming the field.
    """

    config: OutlinedSVQConfig

    def __init__(self, config: OutlinedSVQConfig):
        super().__init__(config)
        self.rounding = config.outline.build(config.outline_dim)
        _ = self.quantizer  # raises where the two do not fit

    @property
    def quantizer(self) -> OutlinedText:
        """Of whole slots: slot attention's and `rounding`, joined anew at each call, so that neither is registered
        twice."""
        return OutlinedText(self.slot_attention.quantizer, self.rounding)

    @property
    def painter(self) -> nn.Module:
        return self.decoder.draft

    def read(
        self, slots: Slots, whose: Masks, rows: slice = slice(None), columns: slice = slice(None)
    ) -> Float[Tensor, "batch slots more"]:
        """The slots, followed by what the words for their outlines and centres say. Gradients go straight through."""
        text = self.quantizer
        found, outline, centre = text.parts(super().read(slots, whose, rows, columns))
        said = [text.outline(outline).values, text.centre(text.digits(centre))]
        return torch.cat([found, *(each.to(found.dtype) for each in said)], dim=-1)
