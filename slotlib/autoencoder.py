"""The slot attention autoencoder (chapter 03): image → features → slots → one picture and one mask per slot → image.

Nobody tells the model what an object is. It has to redraw the image from a few slots, each slot is drawn on its own,
and the drawings are laid over one another with a softmax over slots. Splitting the scene into objects is the easiest
way to do that well (Locatello et al., 2020, section 3.1; arXiv 2006.15055).

The paper's encoder and decoder are here exactly (`encoder="paper"`, `decoder="broadcast"`), and so are the cheaper
ones that train in minutes on a CPU: an encoder with stride, a decoder that draws a random subset of pixels, and a
decoder that draws a mask as a short sum of outer products.

So are two ways to read the drawings. In the paper a pixel is the *average* of what the slots paint there. In a
*mixture* it was painted by one of them, and the drawn mask says how probable each is (Greff et al., 2017, arXiv
1708.03498). Once the image is known, Bayes' rule says who painted a pixel: that makes sharp masks of soft drawings.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from slotlib.slot_attention import LAYER_NORM_EPS, Gradient, SlotAttention, SlotInit, glorot_

Colour = Literal["pixel", "slot", "shaded"]
Likelihood = Literal["average", "mixture"]


@dataclass
class AutoencoderConfig:
    """Everything that defines a `SlotAutoencoder`. Defaults are the paper's model for 35×35 Tetrominoes."""

    resolution: int = 35
    """Side of the square images, in pixels."""
    encoder: Literal["paper", "strided"] = "paper"
    """"paper": four 5×5 convolutions at full resolution. "strided": three, the first two with stride 2: 15 times fewer
    inputs to slot attention."""
    encoder_channels: int = 64
    slot_dim: int = 64
    num_slots: int = 4
    num_iterations: int = 3
    num_heads: int = 1
    mlp_hidden_dim: int = 128
    slot_init: SlotInit = "gaussian"
    gradient: Gradient = "unrolled"
    gradient_steps: int = 1
    """Iterations that carry the gradient when it is "implicit"; terms of the series when it is "neumann"."""
    tolerance: float = 0.0
    """Above 0, an image's slots skip to the last iteration once they move by less (see `SlotAttention`)."""
    decoder: Literal["broadcast", "coordinate", "separable"] = "broadcast"
    decoder_channels: int = 32
    """Feature maps of the broadcast decoder, hidden width of the other two. The paper: 32, and 64 at 128×128."""
    decoder_rank: int = 8
    """Outer products per mask (separable decoder only)."""
    colour: Colour = "pixel"
    """"pixel": a slot paints every pixel its own colour (the paper). "slot": a slot has one colour, and only its mask
    varies in space. "shaded": one colour plus a change of colour per pixel, which training may hold back until slots
    hold whole objects (`TrainConfig.one_colour_until`). The last two are not for the broadcast decoder."""
    train_pixels: int = 0
    """Pixels drawn per image and training step; 0 draws them all (coordinate decoder only)."""
    train_stride: int = 1
    """Training draws every n-th row and column, from a random one on (separable decoder only)."""
    likelihood: Likelihood = "average"
    """"average": a pixel is the mean of the slots' colours under their masks; the loss is the paper's squared error.
    "mixture": a pixel was painted by one slot, with probability given by its drawn mask."""
    noise: float = 0.15
    """How far a pixel may be from its slot's colour: a standard deviation, for images in [-1, 1] (mixture only)."""
    parsimony: float = 0.0
    """What slots cost that paint any of the image, as squared error: see `SlotAutoencoder.loss` (mixture only)."""


class AutoencoderOutput(NamedTuple):
    reconstruction: Float[Tensor, "batch 3 height width"]
    """Σ drawn_masks · slot_images, in [0, 1] up to the decoder's errors."""
    slot_images: Float[Tensor, "batch slots 3 height width"]
    masks: Float[Tensor, "batch slots height width"]
    """Whose pixel it is; sums to 1 over slots. With likelihood="average" the drawn masks; with "mixture" the
    probability that the slot painted this pixel, given its colour in the image (the posterior)."""
    slots: Float[Tensor, "batch slots dim"]
    attention: Float[Tensor, "batch slots h w"]
    """Of the last iteration, on the encoder's grid."""
    drawn_masks: Float[Tensor, "batch slots height width"]
    """As the decoder draws them from the slots alone: the softmax of its logits over slots."""


class Drawing(NamedTuple):
    """What a decoder returns, before the slots are laid over one another. `*area` is height × width, or a list of
    pixels; colours may have extent 1 there, when a slot has one colour."""

    colours: Float[Tensor, "batch slots 3 *area"]
    logits: Float[Tensor, "batch slots *area"]


def coordinate_grid(height: int, width: int, like: Tensor) -> Float[Tensor, "height width 4"]:
    """Each pixel's [y, x, 1 − y, 1 − x], from 0 to 1 inclusive, in the channel order of the official code.

    Device and precision are those of `like`.
    """
    y, x = (torch.linspace(0, 1, size, device=like.device, dtype=like.dtype) for size in (height, width))
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)
    return torch.cat([grid, 1 - grid], dim=-1)


def fourier_features(positions: Float[Tensor, "*shape"], bands: int) -> Float[Tensor, "*shape features"]:
    """sin and cos of π·2^b·position for b < `bands`: lets a small MLP draw sharp edges (Tancik et al., 2020)."""
    angles = positions.unsqueeze(-1) * (math.pi * 2.0 ** torch.arange(bands, device=positions.device))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def check_images(images: Float[Tensor, "batch 3 height width"], side: int) -> None:
    """Raises ValueError unless `images` is `[batch, 3, side, side]`, floating point and finite."""
    if images.ndim != 4 or images.shape[1:] != (3, side, side) or not images.is_floating_point():
        raise ValueError(
            f"images must be floating point [batch, 3, {side}, {side}], got {images.dtype} {list(images.shape)}"
        )
    if not torch.compiler.is_compiling() and not images.mean(dtype=torch.float32).isfinite():
        raise ValueError("images must be finite, got NaN or infinite pixels")


class SoftPositionEmbedding(nn.Module):
    """Adds a learned linear map of the coordinates to a feature map (Locatello et al., 2020, appendix E.2).

    With `bands` the map reads Fourier features of x and y instead of the four linear ramps: on a coarse grid slots then
    learn sooner where exactly their object lies.
    """

    def __init__(self, dim: int, bands: int = 0):
        super().__init__()
        self.bands = bands
        self.project = nn.Linear(4 * bands or 4, dim)

    def forward(self, features: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        grid = coordinate_grid(*features.shape[-2:], like=features)
        if self.bands:
            grid = fourier_features(grid[..., :2], self.bands).flatten(-2)
        return features + self.project(grid).permute(2, 0, 1)


class Encoder(nn.Module):
    """Convolutions, position embedding, LayerNorm and an MLP per position: image → a set of input vectors.

    "paper": 5×5 convolutions with stride 1 (official: four of 64 channels), linear positions. "strided": 5×5 stride 2,
    3×3 stride 2, 3×3, Fourier positions; 35×35 pixels become 9×9 inputs.
    """

    def __init__(self, kind: Literal["paper", "strided"], channels: int, output_dim: int):
        super().__init__()
        kernels_and_strides = {"paper": [(5, 1)] * 4, "strided": [(5, 2), (3, 2), (3, 1)]}[kind]
        layers: list[nn.Module] = []
        for i, (kernel, stride) in enumerate(kernels_and_strides):
            layers += [
                nn.Conv2d(channels if i else 3, channels, kernel, stride, padding=kernel // 2),
                nn.ReLU(),
            ]
        self.convolutions = nn.Sequential(*layers)
        self.position = SoftPositionEmbedding(channels, bands=0 if kind == "paper" else 4)
        self.norm = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(channels, output_dim), nn.ReLU(), nn.Linear(output_dim, output_dim))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch h w dim"]:
        features = self.position(self.convolutions(images))
        return self.mlp(self.norm(features.permute(0, 2, 3, 1)))


class BroadcastDecoder(nn.Module):
    """The paper's decoder: copy the slot to every position, add positions, convolve (Watters et al., 2019).

    Below 128 pixels the slot is copied to the full resolution and passes three 5×5 convolutions and a 3×3 one. At 128
    it is copied to 8×8 and enlarged by four transposed convolutions of stride 2, then 5×5 and 3×3 at full resolution.
    """

    def __init__(self, slot_dim: int, channels: int, resolution: int):
        super().__init__()
        self.upsamples = resolution >= 128
        if self.upsamples and resolution % 16:
            raise ValueError(f"from 128 pixels on the resolution must be a multiple of 16, got {resolution}")
        self.start = resolution // 16 if self.upsamples else resolution
        self.position = SoftPositionEmbedding(slot_dim)
        widths = [slot_dim] + [channels] * (5 if self.upsamples else 3)
        strides = [2] * 4 + [1] if self.upsamples else [1] * 3
        self.layers = nn.ModuleList(
            # padding = 1 with stride 2: see `forward`, which cuts the last row and column
            nn.ConvTranspose2d(before, after, 5, stride, padding=2 if stride == 1 else 1)
            for before, after, stride in zip(widths[:-1], widths[1:], strides, strict=True)
        )
        self.output = nn.ConvTranspose2d(channels, 4, 3, padding=1)

    def forward(self, slots: Float[Tensor, "batch slots dim"]) -> Drawing:
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


class CoordinateDecoder(nn.Module):
    """An MLP from (slot, pixel position) to colour and mask logit: any subset of pixels can be drawn on its own."""

    BANDS = 6

    def __init__(self, slot_dim: int, hidden: int, resolution: int, colour: Colour):
        super().__init__()
        self.resolution = resolution
        self.from_slot = nn.Linear(slot_dim, hidden)
        self.from_position = nn.Linear(4 * self.BANDS, hidden, bias=False)
        self.mlp = nn.Sequential(
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1 if colour == "slot" else 4),
        )
        self.slot_colour = None if colour == "pixel" else _slot_colour(slot_dim)
        self.shading = 1.0  # training fades it in

    def start_unshaded(self) -> None:
        """Make a fresh decoder's shading zero everywhere (it can still learn)."""
        nn.init.zeros_(self.mlp[-1].weight[:3])

    def forward(self, slots: Float[Tensor, "batch slots dim"], pixels: Tensor | None = None) -> Drawing:
        """Draw the pixels numbered `pixels` (row-major, `[batch, some]`), or all of them as `[height, width]`."""
        side = self.resolution
        grid = coordinate_grid(side, side, like=slots)[..., :2].flatten(0, 1)
        features = self.from_position(fourier_features(grid, self.BANDS).flatten(1))
        features = features if pixels is None else features[pixels].unsqueeze(1)
        x = self.mlp(self.from_slot(slots).unsqueeze(2) + features).movedim(-1, 2)  # [batch, slots, 4 or 1, pixels]
        if pixels is None:
            x = x.unflatten(-1, (side, side))
        return _drawing(self, slots, x)


class SeparableDecoder(nn.Module):
    """A mask as a short sum of outer products, Σ_r column_r(y) · row_r(x), each factor drawn by a small MLP.

    Two one-dimensional MLPs cost H + W evaluations per slot instead of H · W, so the full image is drawn at every
    step. Colours that vary in space are drawn the same way.
    """

    BANDS = 6

    def __init__(self, slot_dim: int, hidden: int, resolution: int, rank: int, colour: Colour):
        super().__init__()
        self.resolution = resolution
        self.rank = rank
        self.maps = 1 if colour == "slot" else 4
        self.from_slot = nn.Linear(slot_dim, 2 * hidden)
        self.from_position = nn.Linear(2 * self.BANDS, 2 * hidden, bias=False)
        self.hidden = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(2))
        self.factors = nn.ModuleList(nn.Linear(hidden, self.maps * rank) for _ in range(2))
        self.slot_colour = None if colour == "pixel" else _slot_colour(slot_dim)
        self.shading = 1.0  # training fades it in
        self.colour_dims = 0
        """Above 0, colours are read from so many numbers of a slot, the first ones, and all else from the others."""

    def start_unshaded(self) -> None:
        """Make a fresh decoder's shading zero everywhere (it can still learn)."""
        nn.init.zeros_(self.factors[0].weight[: 3 * self.rank])

    def forward(
        self, slots: Float[Tensor, "batch slots dim"], rows: slice = slice(None), columns: slice = slice(None)
    ) -> Drawing:
        """Draw the whole image, or these `rows` and `columns` of it."""
        line = torch.linspace(0, 1, self.resolution, device=slots.device, dtype=slots.dtype)
        position = self.from_position(fourier_features(line, self.BANDS))
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
        return _drawing(self, painted, torch.einsum("bkycr,bkxcr->bkcyx", down, across))


def _slot_colour(slot_dim: int) -> nn.Module:
    return nn.Sequential(nn.Linear(slot_dim, slot_dim), nn.ReLU(), nn.Linear(slot_dim, 3))


def _drawing(
    decoder: CoordinateDecoder | SeparableDecoder,
    slots: Float[Tensor, "batch slots dim"],
    maps: Float[Tensor, "batch slots maps *area"],
) -> Drawing:
    """The last map holds the mask logits; three before it, if any, colours or changes of the slot's one colour."""
    logits = maps[:, :, -1]
    if decoder.slot_colour is None:
        return Drawing(maps[:, :, :3], logits)
    colours = decoder.slot_colour(slots)
    colours = colours.view(*colours.shape, *[1] * (maps.ndim - 3))
    if maps.shape[2] == 4 and decoder.shading:
        colours = colours + decoder.shading * maps[:, :, :3]
    return Drawing(colours, logits)


def compose(drawing: Drawing) -> tuple[Float[Tensor, "batch 3 *area"], Float[Tensor, "batch slots *area"]]:
    """Lay the slots over one another: masks = softmax of the logits over slots, picture = Σ masks · colours."""
    masks = drawing.logits.softmax(dim=1)
    area = masks.shape[2:]
    if drawing.colours.shape[3:].numel() == 1:  # one colour per slot: a small matrix product instead of a large sum
        picture = drawing.colours.flatten(2).mT @ masks.flatten(2)
        return picture.unflatten(-1, area), masks
    return (masks.unsqueeze(2) * drawing.colours).sum(dim=1), masks


def explain(
    drawing: Drawing, images: Float[Tensor, "batch 3 *area"], noise: float
) -> Float[Tensor, "batch slots *area"]:
    """log p(slot k painted this pixel, and in this colour) for every pixel of a mixture, up to a constant.

    The drawn mask's logarithm, less the squared distance between the pixel and the slot's colour over 2·noise²
    (Greff et al., 2017). The softmax over slots is Bayes' rule; the logsumexp is the likelihood. `images` are in
    [-1, 1], like the colours.
    """
    precision = torch.promote_types(drawing.logits.dtype, torch.float32)  # bf16 is too coarse for small noise
    distance = (images.unsqueeze(1) - drawing.colours.to(precision)).square().sum(dim=2)
    return drawing.logits.to(precision).log_softmax(dim=1) - distance / (2 * noise**2)


class SlotAutoencoder(nn.Module):
    """Encoder, slot attention and decoder in one module, built from an `AutoencoderConfig`.

    Images come and go in [0, 1]; inside they live in [-1, 1], as in the paper.

    Raises ValueError for a configuration that cannot be built, naming the field.
    """

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        for field, choices in {
            "encoder": ("paper", "strided"),
            "decoder": ("broadcast", "coordinate", "separable"),
            "colour": get_args(Colour),
            "likelihood": get_args(Likelihood),
        }.items():
            if getattr(config, field) not in choices:
                raise ValueError(f"{field} must be one of {choices}, got {getattr(config, field)!r}")
        sizes = "resolution", "slot_dim", "encoder_channels", "decoder_channels", "decoder_rank", "train_stride"
        for field in sizes:
            if getattr(config, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(config, field)}")
        if config.decoder == "broadcast" and config.colour != "pixel":
            raise ValueError(f'the broadcast decoder has colour="pixel" only, got colour={config.colour!r}')
        if config.train_pixels and config.decoder != "coordinate":
            raise ValueError(f"train_pixels needs the coordinate decoder, got decoder={config.decoder!r}")
        if not 0 <= config.train_pixels <= config.resolution**2:
            raise ValueError(f"train_pixels must be within 0 and {config.resolution**2}, got {config.train_pixels}")
        if config.train_stride > 1 and config.decoder != "separable":
            raise ValueError(f"train_stride needs the separable decoder, got decoder={config.decoder!r}")
        if not config.noise > 0:
            raise ValueError(f"noise must be above 0, got {config.noise}")
        if not config.parsimony >= 0:
            raise ValueError(f"parsimony must be at least 0, got {config.parsimony}")
        self.config = config
        self.noise, self.parsimony = config.noise, config.parsimony  # training approaches them
        self.encoder = Encoder(config.encoder, config.encoder_channels, config.slot_dim)
        self.slot_attention = SlotAttention(
            config.slot_dim,
            config.slot_dim,
            num_slots=config.num_slots,
            num_iterations=config.num_iterations,
            num_heads=config.num_heads,
            mlp_hidden_dim=config.mlp_hidden_dim,
            slot_init=config.slot_init,
            gradient=config.gradient,
            gradient_steps=config.gradient_steps,
            tolerance=config.tolerance,
        )
        self.decoder: nn.Module
        if config.decoder == "broadcast":
            self.decoder = BroadcastDecoder(config.slot_dim, config.decoder_channels, config.resolution)
        elif config.decoder == "coordinate":
            self.decoder = CoordinateDecoder(config.slot_dim, config.decoder_channels, config.resolution, config.colour)
        else:
            self.decoder = SeparableDecoder(
                config.slot_dim,
                config.decoder_channels,
                config.resolution,
                config.decoder_rank,
                config.colour,
            )
        for part in (self.encoder, self.decoder):
            for layer in part.modules():
                if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                    glorot_(layer)
        if config.colour == "shaded":
            self.decoder.start_unshaded()

    def encode(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch h w dim"]:
        """The features slot attention reads, on their grid.

        Raises ValueError unless `images` is `[batch, 3, resolution, resolution]`, floating point and finite.
        """
        check_images(images, self.config.resolution)
        return self.encoder(images * 2 - 1)

    def loss(
        self,
        images: Float[Tensor, "batch 3 height width"],
        generator: torch.Generator | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> Float[Tensor, ""]:
        """What training makes small, for images in the units of [-1, 1].

        likelihood="average": the mean squared reconstruction error (the paper's objective). "mixture": minus the log
        likelihood of a pixel times 2·noise²/3, which for a single slot is the squared error too; plus `parsimony` ·
        Σ_k √(share of the image that slot k painted). Because of the root, one slot with a whole object is cheaper than
        two with half of it each, and an empty slot costs nothing.

        `generator` draws the slots' start and which pixels count, if not all do. With `share=(i, n)` the images are
        every n-th of a larger batch, from its i-th on. Noise is then drawn for the whole batch and this share of it
        kept, so the mean of the shares' losses is the loss of the whole.
        """
        features = self.encode(images)
        first, every = share
        start = self.slot_attention.initial_slots(len(images) * every, generator=generator)[first::every]
        slots = self.slot_attention(features.flatten(1, 2), slots=start).slots
        target = images * 2 - 1
        stride, device = self.config.train_stride, "cpu" if generator is None else generator.device
        if self.config.train_pixels:
            # Sampled with replacement: unbiased, and one cheap call for the whole batch.
            pixels = torch.randint(
                self.config.resolution**2,
                (len(images) * every, self.config.train_pixels),
                generator=generator,
                device=device,
            )[first::every].to(images.device)
            drawing = self.decoder(slots, pixels)
            target = target.flatten(2).gather(2, pixels.unsqueeze(1).expand(-1, 3, -1))
        elif stride > 1:
            first_row, first_column = torch.randint(stride, (2,), generator=generator, device=device).tolist()
            lines = slice(first_row, None, stride), slice(first_column, None, stride)
            drawing = self.decoder(slots, *lines)
            target = target[:, :, *lines]
        else:
            drawing = self.decoder(slots)
        if self.config.likelihood == "average":
            return F.mse_loss(compose(drawing)[0], target)
        return self._cost(explain(drawing, target, self.noise)).mean()

    def _cost(self, evidence: Float[Tensor, "batch slots *area"]) -> Float[Tensor, "batch"]:
        """Each image's loss as a mixture (see `loss`)."""
        evidence = evidence.flatten(2)
        shares = evidence.softmax(dim=1).mean(dim=2)
        in_use = (shares + 1e-6).sqrt().sum(dim=1)  # the root has no gradient at 0
        return self.parsimony * in_use - evidence.logsumexp(dim=1).mean(dim=1) * 2 * self.noise**2 / 3

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
        if restarts < 1:
            raise ValueError(f"restarts must be at least 1, got {restarts}")
        features = self.encode(images)
        grid = features.shape[1:3]
        inputs = features.flatten(1, 2).repeat_interleave(restarts, dim=0)
        slots, attention, _ = self.slot_attention(inputs, num_slots, num_iterations, generator=generator)
        drawing = self.decoder(slots)
        picture, drawn = compose(drawing)
        target, masks = (images * 2 - 1).repeat_interleave(restarts, dim=0), drawn
        if self.config.likelihood == "mixture":
            evidence = explain(drawing, target, self.noise)
            masks = evidence.softmax(dim=1)
        if restarts > 1:
            if self.config.likelihood == "mixture":
                error = self._cost(evidence)
            else:
                error = (picture - target).square().mean(dim=(1, 2, 3))
            best = error.view(len(images), restarts).argmin(dim=1)
            best = best + torch.arange(len(images), device=images.device) * restarts
            picture, masks, drawn, slots, attention = (x[best] for x in (picture, masks, drawn, slots, attention))
            drawing = Drawing(drawing.colours[best], drawing.logits[best])
        return AutoencoderOutput(
            reconstruction=(picture + 1) / 2,
            slot_images=((drawing.colours + 1) / 2).expand(-1, -1, -1, *masks.shape[2:]),
            masks=masks,
            slots=slots,
            attention=attention.unflatten(-1, grid),
            drawn_masks=drawn,
        )
