"""Decoders (chapter 03): slots → for every slot a picture and the logits of a mask.

Each slot is drawn on its own; how the drawings are laid over one another is a likelihood's business
(`slotlib.likelihoods`). Each decoder has a configuration, which builds it. One of your own is a dataclass below
`DecoderConfig` with a `build`, and a module below `Decoder`.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from slotlib import check
from slotlib.encoders import Images, SoftPositionEmbedding, coordinate_grid, fourier_features, start_as_keras
from slotlib.model import Draws, Ramp
from slotlib.slot_attention import Slots

Colour = Literal["pixel", "slot", "shaded"]
Masks = Float[Tensor, "batch slots height width"]
Keep = Float[Tensor, "batch slots"]
"""1 for a slot that is there, 0 for one that is not."""

BANDS = 6
"""Of the Fourier features from which the decoders without convolutions know where a pixel lies."""


class Drawing(NamedTuple):
    """What a decoder returns, before the slots are laid over one another. `*area` is height × width, or a list of
    pixels; colours may have extent 1 there, when a slot has one colour."""

    colours: Float[Tensor, "batch slots 3 *colour_area"]
    logits: Float[Tensor, "batch slots *area"]


def kept_only(drawing: Drawing, keep: Keep) -> Drawing:
    """A drawing in which dropped slots paint nothing: masks, a softmax over slots, are renormalised among the kept.

    It has no gradient for `keep`.
    """
    dropped = (keep == 0).view(*keep.shape, *[1] * (drawing.logits.ndim - 2))
    return Drawing(drawing.colours, drawing.logits.masked_fill(dropped, -torch.inf))


def ends(value: float | Ramp) -> tuple[float, float]:
    """Where a number that may move begins and ends."""
    return (value.start, value.end) if isinstance(value, Ramp) else (value, value)


class Decoder(nn.Module):
    """Slots `[batch, slots, dim]` → a `Drawing` of the whole image. What a `Ramp` moves stands at its end at first."""

    def initialise(self) -> None:
        """What a fresh decoder starts with."""
        start_as_keras(self)

    def part(self, slots: Slots, images: Images, draws: Draws) -> tuple[Drawing, Float[Tensor, "batch 3 *area"]]:
        """What a step of training draws, and what of the images it is compared with: all, unless a decoder can draw
        less for less work."""
        return self(slots), images


@dataclass
class DecoderConfig:
    """What all decoders have."""

    channels: int = 32
    """Feature maps, or hidden width."""

    def __post_init__(self) -> None:
        check.whole("channels", self.channels)

    @abstractmethod
    def build(self, slot_dim: int, resolution: int) -> Decoder:
        """A fresh decoder for square images of `resolution` pixels."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it builds")


@dataclass
class Broadcast(DecoderConfig):
    """The paper's: copy the slot to every position, add positions, convolve. The paper: 32 channels, 64 at 128×128."""

    def build(self, slot_dim: int, resolution: int) -> "BroadcastDecoder":
        return BroadcastDecoder(slot_dim, self.channels, resolution)


@dataclass
class PaintedConfig(DecoderConfig):
    """What the two decoders without convolutions have."""

    colour: Colour = "pixel"
    """"pixel": a slot paints every pixel its own colour (the paper). "slot": a slot has one colour, and only its mask
    varies in space. "shaded": one colour plus a change of colour per pixel."""
    shading: float | Ramp = 1.0
    """How much of that change is painted (colour="shaded" only). A slot that may paint anything from the start often
    learns a *place* instead of an object, and tiles the image (chapter 03): let shading fade in once slots hold
    objects. All at once it can wash out what was learned: Adam's first steps are large."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check.choice("colour", self.colour, Colour)
        for end in ends(self.shading):
            check.number("shading", end)


@dataclass
class Coordinate(PaintedConfig):
    """An MLP from slot and pixel position to colour and mask logit."""

    pixels: int = 0
    """Pixels drawn per image and training step, at random; 0 draws them all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check.whole("pixels", self.pixels, least=0)

    def build(self, slot_dim: int, resolution: int) -> "CoordinateDecoder":
        if self.pixels > resolution**2:
            raise ValueError(f"pixels must be at most {resolution**2}, got {self.pixels}")
        return CoordinateDecoder(self, slot_dim, resolution)


@dataclass
class Separable(PaintedConfig):
    """Masks as short sums of outer products: the cheapest."""

    rank: int = 8
    """Outer products per mask."""
    stride: int = 1
    """A training step draws every n-th row and column, from a random one on."""
    colour_dims: int | Ramp = 0
    """Above 0, colours are read from so many numbers of a slot, the first ones, and masks from the others
    (colour="slot" only). Otherwise the codes of `slotlib.svq` tell a colour several times over, a little in each of
    many blocks, and no single block can be exchanged to change it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check.whole("rank", self.rank)
        check.whole("stride", self.stride)
        for end in ends(self.colour_dims):
            check.number("colour_dims", end)
        if self.colour_dims != 0 and self.colour != "slot":
            raise ValueError(f'colour_dims needs colour="slot", got colour_dims={self.colour_dims} and {self.colour!r}')

    def build(self, slot_dim: int, resolution: int) -> "SeparableDecoder":
        if max(ends(self.colour_dims)) >= slot_dim:
            raise ValueError(f"colour_dims must be below slot_dim={slot_dim}, got {self.colour_dims}")
        return SeparableDecoder(self, slot_dim, resolution)


class BroadcastDecoder(Decoder):
    """The paper's decoder (Watters et al., 2019).

    Below 128 pixels the slot is copied to the full resolution and passes three 5×5 convolutions and a 3×3 one. At 128
    it is copied to 8×8 and enlarged by four transposed convolutions of stride 2, then 5×5 and 3×3 at full resolution.
    """

    def __init__(self, slot_dim: int, channels: int, resolution: int):
        super().__init__()
        upsamples = resolution >= 128
        if upsamples and resolution % 16:
            raise ValueError(f"from 128 pixels on the resolution must be a multiple of 16, got {resolution}")
        self.start = resolution // 16 if upsamples else resolution
        self.position = SoftPositionEmbedding(slot_dim)
        widths = [slot_dim] + [channels] * (5 if upsamples else 3)
        strides = [2] * 4 + [1] if upsamples else [1] * 3
        self.layers = nn.ModuleList(
            # padding = 1 with stride 2: see `forward`, which cuts the last row and column
            nn.ConvTranspose2d(before, after, 5, stride, padding=2 if stride == 1 else 1)
            for before, after, stride in zip(widths[:-1], widths[1:], strides, strict=True)
        )
        self.output = nn.ConvTranspose2d(channels, 4, 3, padding=1)

    def forward(self, slots: Slots) -> Drawing:
        check.tensor("slots", slots, "floating point", f"batch slots dim={self.position.dim}")
        x = slots.flatten(0, 1)[:, :, None, None].expand(-1, -1, self.start, self.start)
        x = self.position(x)
        for layer in self.layers:
            x = layer(x)
            if layer.stride == (2, 2):
                # TensorFlow's SAME cuts 1 before and 2 after; torch's symmetric padding=2 would shift every layer.
                x = x[..., :-1, :-1]
            x = x.relu()
        x = self.output(x).unflatten(0, slots.shape[:2])
        return Drawing(x[:, :, :3], x[:, :, 3])


class PaintedDecoder(Decoder):
    """What the two decoders without convolutions share: how colours are painted."""

    config: PaintedConfig
    slot_colour: nn.Sequential | None
    """From a slot to its one colour, where it has one."""

    def __init__(self, config: PaintedConfig, slot_dim: int, resolution: int):
        super().__init__()
        self.config, self.resolution = config, resolution
        self.shading = ends(config.shading)[1]
        self.maps = 1 if config.colour == "slot" else 4
        """Drawn for each slot: the logits, and before them three colours, or changes of the slot's colour, if any."""

    def painted(self, slots: Slots, maps: Float[Tensor, "batch slots maps *area"]) -> Drawing:
        """Colours and logits from the maps that were drawn; a slot's one colour is read from `slots`."""
        logits = maps[:, :, -1]
        if self.slot_colour is None:
            return Drawing(maps[:, :, :3], logits)
        colours = self.slot_colour(slots)
        colours = colours.view(*colours.shape, *[1] * (maps.ndim - 3))
        if self.maps == 4 and self.shading:
            colours = colours + self.shading * maps[:, :, :3]
        return Drawing(colours, logits)


def _slot_colour(config: PaintedConfig, slot_dim: int) -> nn.Sequential | None:
    if config.colour == "pixel":
        return None
    return nn.Sequential(nn.Linear(slot_dim, slot_dim), nn.ReLU(), nn.Linear(slot_dim, 3))


class CoordinateDecoder(PaintedDecoder):
    """An MLP from (slot, pixel position) to colour and mask logit: any subset of pixels can be drawn on its own."""

    config: Coordinate

    def __init__(self, config: Coordinate, slot_dim: int, resolution: int):
        super().__init__(config, slot_dim, resolution)
        hidden = config.channels
        self.from_slot = nn.Linear(slot_dim, hidden)
        self.from_position = nn.Linear(4 * BANDS, hidden, bias=False)
        self.mlp = nn.Sequential(
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, self.maps),
        )
        self.slot_colour = _slot_colour(config, slot_dim)

    def initialise(self) -> None:
        super().initialise()
        if self.config.colour == "shaded":  # shading starts at zero everywhere, and can still learn
            nn.init.zeros_(self.mlp[-1].get_parameter("weight")[:3])

    def forward(self, slots: Slots, pixels: Int[Tensor, "batch some"] | None = None) -> Drawing:
        """Draw the pixels numbered `pixels` (row-major, `[batch, some]`), or all of them as `[height, width]`."""
        check.tensor("slots", slots, "floating point", f"batch slots dim={self.from_slot.in_features}")
        if pixels is not None:
            check.codes("pixels", pixels, f"batch={slots.shape[0]} some", self.resolution**2)
        side = self.resolution
        grid = coordinate_grid(side, side, like=slots)[..., :2].flatten(0, 1)
        features = self.from_position(fourier_features(grid, BANDS).flatten(1))
        features = features if pixels is None else features[pixels].unsqueeze(1)
        x = self.mlp(self.from_slot(slots).unsqueeze(2) + features).movedim(-1, 2)  # [batch, slots, maps, pixels]
        return self.painted(slots, x.unflatten(-1, (side, side)) if pixels is None else x)

    def part(self, slots: Slots, images: Images, draws: Draws) -> tuple[Drawing, Float[Tensor, "batch 3 *area"]]:
        """`config.pixels` pixels of each image. Sampled with replacement: unbiased, and one cheap call for all."""
        if not self.config.pixels:
            return super().part(slots, images, draws)
        pixels = draws.integers(self.resolution**2, len(images), self.config.pixels, like=images)
        return self(slots, pixels), images.flatten(2).gather(2, pixels.unsqueeze(1).expand(-1, 3, -1))


class SeparableDecoder(PaintedDecoder):
    """A mask as a short sum of outer products, Σ_r column_r(y) · row_r(x), each factor drawn by a small MLP.

    Two one-dimensional MLPs cost H + W evaluations per slot instead of H · W, so the full image is drawn at every
    step. Colours that vary in space are drawn the same way.
    """

    config: Separable

    def __init__(self, config: Separable, slot_dim: int, resolution: int):
        super().__init__(config, slot_dim, resolution)
        hidden = config.channels
        self.colour_dims = round(ends(config.colour_dims)[1])
        self.from_slot = nn.Linear(slot_dim, 2 * hidden)
        self.from_position = nn.Linear(2 * BANDS, 2 * hidden, bias=False)
        self.hidden = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(2))
        self.factors = nn.ModuleList(nn.Linear(hidden, self.maps * config.rank) for _ in range(2))
        self.slot_colour = _slot_colour(config, slot_dim)

    def initialise(self) -> None:
        super().initialise()
        if self.config.colour == "shaded":  # as above
            nn.init.zeros_(self.factors[0].get_parameter("weight")[: 3 * self.config.rank])

    def forward(self, slots: Slots, rows: slice = slice(None), columns: slice = slice(None)) -> Drawing:
        """Draw the whole image, or these `rows` and `columns` of it."""
        check.tensor("slots", slots, "floating point", f"batch slots dim={self.from_slot.in_features}")
        line = torch.linspace(0, 1, self.resolution, device=slots.device, dtype=slots.dtype)
        position = self.from_position(fourier_features(line, BANDS))
        figure = painted = slots
        if self.colour_dims:
            first = torch.arange(slots.shape[-1], device=slots.device) < self.colour_dims
            figure, painted = slots.masked_fill(first, 0), slots.masked_fill(~first, 0)
        down, across = (
            factor(hidden((from_slot.unsqueeze(2) + from_line[part]).relu()).relu()).unflatten(-1, (self.maps, -1))
            for from_slot, from_line, part, hidden, factor in zip(
                self.from_slot(figure).chunk(2, dim=-1),
                position.chunk(2, dim=-1),
                (rows, columns),
                self.hidden,
                self.factors,
                strict=True,
            )
        )
        return self.painted(painted, torch.einsum("bkycr,bkxcr->bkcyx", down, across))

    def part(self, slots: Slots, images: Images, draws: Draws) -> tuple[Drawing, Float[Tensor, "batch 3 *area"]]:
        """Every `config.stride`-th row and column, the same of all images."""
        lines = self.lines(draws)
        return self(slots, *lines), images[:, :, *lines]

    def lines(self, draws: Draws) -> tuple[slice, slice]:
        """The rows and the columns that a step of training draws."""
        stride = self.config.stride
        row, column = draws.common(stride, 2) if stride > 1 else (0, 0)
        return slice(row, None, stride), slice(column, None, stride)
