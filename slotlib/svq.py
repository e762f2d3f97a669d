"""Objects as words (chapter 07): slots made of codes, learned without labels, and new scenes from them.

*Semantic vector quantisation* (SVQ; Wu, Lee & Ahn, 2024, arXiv 2402.01203) cuts a slot into M blocks and gives each
block a codebook of its own (`slotlib.vq`). Where a single codebook would need a code for each kind of object, M small
ones name its properties. So that a block can specialise, what follows the attention never mixes blocks: GRU, MLP and
LayerNorm are block-diagonal. Every iteration of slot attention ends in codes; or, with `search_iterations`, every one
after a search in plain numbers, because a slot that moves from code to code finds fewer objects.

A scene is then slots × blocks numbers. A prior over such texts (`slotlib.prior`) draws new ones, and the decoder shows
them.

Differences from the published code. A block is compared with its own codes only, all blocks in one product; there, with
those of all blocks. What a step has seen changes the codebook once, after the step (`update`), so a batch may be cut
into parts or spread over devices; there, in every iteration. A code is dead when it is used less than a *fraction* of
an equal share; there, when it is used less than once per call, which at small batches most codes are.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from slotlib.autoencoder import AutoencoderConfig, AutoencoderOutput, SlotAutoencoder, compose
from slotlib.prior import PriorConfig, WithPrior
from slotlib.slot_attention import PreparedInputs, SlotAttention, SlotAttentionOutput, SlotHistory
from slotlib.vq import (
    BlockGRUCell,
    BlockLayerNorm,
    BlockLinear,
    FiniteScalarQuantizer,
    GumbelQuantizer,
    Quantised,
    Quantizer,
    VectorQuantizer,
)

# --- slot attention ---


class QuantisedSlotAttention(SlotAttention):
    """Slot attention whose every iteration ends in codes.

    The attention sees whole slots; everything after it keeps the blocks of a slot apart, and the `quantizer` then
    replaces each block by a code. Whatever works with `SlotAttention.prepare` and `step` works here.

    Args:
        quantizer: says how many blocks there are. Its width is the slots'.
        mixing: let GRU and MLP mix the blocks, as in plain slot attention.
        search_iterations: so many first iterations stay continuous, but for the last of all, which never does.
        options: all else as `SlotAttention`.

    Raises ValueError for `search_iterations` below 0.
    """

    def __init__(
        self, input_dim: int, quantizer: Quantizer, *, mixing: bool = False, search_iterations: int = 0, **options
    ):
        super().__init__(input_dim, quantizer.dim, **options)
        if search_iterations < 0:
            raise ValueError(f"search_iterations must be at least 0, got {search_iterations}")
        self.quantizer, self.search_iterations = quantizer, search_iterations
        self.continuous = False  # training may first let slots take hold of objects, without codes
        self._records: list[Quantised] | None = None
        self._noise: tuple[torch.Generator | None, tuple[int, int]] = None, (0, 1)
        if not mixing:
            blocks, hidden = quantizer.num_blocks, self.mlp[0].out_features
            self.gru = BlockGRUCell(self.slot_dim, blocks)
            self.norm_mlp = BlockLayerNorm(blocks)
            self.mlp = nn.Sequential(
                BlockLinear(self.slot_dim, hidden, blocks), nn.ReLU(), BlockLinear(hidden, self.slot_dim, blocks)
            )

    def step(
        self, slots: Float[Tensor, "batch slots dim"], prepared: PreparedInputs
    ) -> tuple[Float[Tensor, "batch slots dim"], Float[Tensor, "batch slots inputs"]]:
        """One iteration: the new slots, made of codes, and the attention that made them."""
        slots, attention = super().step(slots, prepared)
        if self.continuous:
            return slots, attention
        quantised = self.quantizer(slots, *self._noise)
        if self._records is not None:
            self._records.append(quantised)
        return quantised.values, attention

    def forward(
        self,
        inputs: Float[Tensor, "batch inputs input_dim"],
        num_slots: int | None = None,
        num_iterations: int | None = None,
        slots: Float[Tensor, "batch slots dim"] | None = None,
        generator: torch.Generator | None = None,
        return_history: bool = False,
    ) -> SlotAttentionOutput:
        """Bind `inputs` to slots made of codes; see `SlotAttention.forward`."""
        iterations = self.num_iterations if num_iterations is None else num_iterations
        search = min(self.search_iterations, iterations - 1)
        if self.continuous or search < 1:
            return super().forward(inputs, num_slots, num_iterations, slots, generator, return_history)
        if slots is None:
            slots = self.initial_slots(len(inputs), num_slots, generator)
        self.continuous = True
        try:
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.gradient == "unrolled"):
                found = super().forward(inputs, num_slots, search, slots, return_history=return_history)
        finally:
            self.continuous = False
        # Without a gradient through the search, what comes back to its end goes straight to its start.
        begin = found.slots if self.gradient == "unrolled" else found.slots + slots - slots.detach()
        output = super().forward(inputs, None, iterations - search, begin, return_history=return_history)
        if not return_history:
            return output
        first, then = found.history, output.history
        whole = SlotHistory(
            torch.cat([first.slots, then.slots[1:]]),
            torch.cat([first.attention, then.attention]),
            first.needed + then.needed,
        )
        return output._replace(history=whole)

    @contextlib.contextmanager
    def recording(
        self, generator: torch.Generator | None = None, share: tuple[int, int] = (0, 1)
    ) -> Iterator[list[Quantised]]:
        """A list that every iteration within the `with` block adds its `Quantised` to.

        `generator` and `share` are for quantisers that draw codes at random.
        """
        self._records, self._noise = [], (generator, share)
        try:
            yield self._records
        finally:
            self._records, self._noise = None, (None, (0, 1))


# --- the model ---

Quantisation = Literal["ema", "loss", "gumbel", "fsq"]


@dataclass
class SVQConfig(PriorConfig, AutoencoderConfig):
    """Everything that defines an `SVQAutoencoder`: the fields of autoencoder and prior, and these.

    A block's codes are `slot_dim / num_blocks` wide.
    """

    num_blocks: int = 4
    num_codes: int = 64
    """Per block; without effect for quantizer="fsq"."""
    quantizer: Quantisation = "ema"
    """"ema" and "loss": nearest code, learned as running means or by gradient; "gumbel": drawn by a classifier; "fsq":
    rounded."""
    levels: list[int] = field(default_factory=lambda: [8, 8, 8])
    """Values per digit (quantizer="fsq" only); the number of codes is their product."""
    commitment: float = 0.25
    """How strongly slots are drawn to their codes (quantizer="ema" and "loss")."""
    decay: float = 0.99
    """Of the codes' running means."""
    revive: float = 0.1
    """Codes with less than this share of an average code's use are moved to where they are needed."""
    temperature: float = 1.0
    """Of the drawing (quantizer="gumbel" only)."""
    mixing: bool = False
    """Whether GRU and MLP of slot attention mix the blocks of a slot."""
    search_iterations: int = 0
    """Of `num_iterations` so many first ones leave slots continuous. 0: codes from the first on, as in the paper."""
    colour_blocks: int = 0
    """Above 0, the decoder reads a slot's colour from so many blocks, the first ones, and its mask from the others
    (decoder="separable" and colour="slot" only). Otherwise colour tends to be told several times over, a little in each
    of many blocks, and no single block can be swapped to change it."""
    colour_lead: float = 0.0
    """Above 0, the first of several `colour_blocks` learns to tell most of the colour and leaves corrections to the
    others, where they would share it evenly: the weight of `SVQAutoencoder.lead_cost` in the loss."""
    synonyms: float = 0.0
    """Above 0, codes that draw the same become one before the prior learns: the `share` of `merge_synonyms`."""
    blanks: bool = False
    """Slots that own no pixel all get the same codes before the prior reads them, and stand last in random orders (see
    `SVQAutoencoder.with_blanks`)."""


class SVQOutput(NamedTuple):
    """What an `AutoencoderOutput` has, and the codes."""

    reconstruction: Float[Tensor, "batch 3 height width"]
    slot_images: Float[Tensor, "batch slots 3 height width"]
    masks: Float[Tensor, "batch slots height width"]
    slots: Float[Tensor, "batch slots dim"]
    attention: Float[Tensor, "batch slots h w"]
    drawn_masks: Float[Tensor, "batch slots height width"]
    codes: Int[Tensor, "batch slots blocks"]
    error: Float[Tensor, "blocks"]
    """Mean squared distance between the last iteration's slots and their codes, over all images and restarts; NaN while
    slots are continuous."""


class Drawn(NamedTuple):
    """A scene as the decoder draws it from codes alone."""

    image: Float[Tensor, "batch 3 height width"]
    slot_images: Float[Tensor, "batch slots 3 height width"] | None
    masks: Float[Tensor, "batch slots height width"] | None
    """None, as the pictures of single slots, where a decoder does not draw slots one by one."""


def _quantizer(config: SVQConfig) -> Quantizer:
    if config.quantizer == "gumbel":
        return GumbelQuantizer(
            config.slot_dim, config.num_codes, num_blocks=config.num_blocks, temperature=config.temperature
        )
    if config.quantizer == "fsq":
        return FiniteScalarQuantizer(config.slot_dim, config.levels, num_blocks=config.num_blocks)
    return VectorQuantizer(
        config.slot_dim,
        config.num_codes,
        num_blocks=config.num_blocks,
        learn=config.quantizer,
        commitment=config.commitment,
        decay=config.decay,
        revive=config.revive,
    )


def mean_cost(iterations: Sequence[Quantised]) -> Float[Tensor, ""]:
    """The quantiser's loss, averaged over the iterations that carry a gradient; 0 without."""
    costs = [each.loss for each in iterations if each.values.requires_grad]
    return torch.stack(costs).mean() if costs else torch.zeros(())


class SVQAutoencoder(WithPrior, SlotAutoencoder):
    """A `SlotAutoencoder` whose slots are codes, and a prior over scenes of such slots (see `WithPrior`).

    Raises ValueError for a configuration that cannot be built, naming the field.
    """

    config: SVQConfig
    slot_attention: QuantisedSlotAttention

    def __init__(self, config: SVQConfig):
        if config.quantizer not in get_args(Quantisation):
            raise ValueError(f"quantizer must be one of {get_args(Quantisation)}, got {config.quantizer!r}")
        if not config.synonyms >= 0:
            raise ValueError(f"synonyms must be at least 0, got {config.synonyms}")
        super().__init__(config)
        self.slot_attention = QuantisedSlotAttention(
            config.slot_dim,
            _quantizer(config),
            mixing=config.mixing,
            search_iterations=config.search_iterations,
            num_slots=config.num_slots,
            num_iterations=config.num_iterations,
            num_heads=config.num_heads,
            mlp_hidden_dim=config.mlp_hidden_dim,
            slot_init=config.slot_init,
            gradient=config.gradient,
            gradient_steps=config.gradient_steps,
            tolerance=config.tolerance,
        )
        can_split = config.decoder == "separable" and config.colour == "slot"
        if config.colour_blocks and not (can_split and 0 < config.colour_blocks < config.num_blocks):
            raise ValueError(
                f'colour_blocks must be 0, or below num_blocks={config.num_blocks} with decoder="separable" and '
                f'colour="slot", got {config.colour_blocks} with {config.decoder!r} and {config.colour!r}'
            )
        if config.colour_lead < 0 or (config.colour_lead and config.colour_blocks < 2):
            raise ValueError(
                "colour_lead must be 0, or above 0 with colour_blocks of at least 2, "
                f"got {config.colour_lead} with {config.colour_blocks}"
            )
        blank = torch.zeros(config.num_blocks, dtype=torch.int64)
        self.register_buffer("blank", blank if config.blanks else None)
        self.use_codes(True)
        self.split_colour(True)
        self._add_prior(config.num_slots)

    def use_codes(self, use: bool) -> None:
        """Training may first let slots take hold of objects: continuous, without codes."""
        self.slot_attention.continuous = not use

    def split_colour(self, split: bool) -> None:
        """Whether the decoder keeps to `colour_blocks`; training may first let it read each number for everything."""
        if self.config.colour_blocks:
            width = self.config.slot_dim // self.config.num_blocks
            self.decoder.colour_dims = self.config.colour_blocks * width if split else 0

    @property
    def quantizer(self) -> Quantizer:
        return self.slot_attention.quantizer

    def loss(
        self,
        images: Float[Tensor, "batch 3 height width"] | Int[Tensor, "batch slots blocks"],
        generator: torch.Generator | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> Float[Tensor, ""]:
        """The autoencoder's loss; the quantiser's, averaged over the iterations that carry a gradient; `lead_cost`.

        With learn="prior": minus the log likelihood of the scenes' codes in one order, in nats per scene; `images` may
        then be codes (see `write`). `generator` and `share` as for `SlotAutoencoder.loss`.
        """
        if self.config.learn == "prior":
            if not images.is_floating_point():
                return self._prior_loss(images, generator, share)
            first, every = share
            start = self.slot_attention.initial_slots(len(images) * every, generator=generator)[first::every]
            with torch.no_grad():
                slots = self.slot_attention(self.encode(images).flatten(1, 2), slots=start).slots
            return self._prior_loss(self.with_blanks(self.quantizer.nearest(slots)), generator, share)
        with self.slot_attention.recording(generator, share) as iterations:
            loss = super().loss(images, generator, share)
        loss = loss + mean_cost(iterations)
        if self.config.colour_lead and iterations:
            loss = loss + self.config.colour_lead * self.lead_cost(iterations[-1].values)
        return loss

    def lead_cost(self, slots: Float[Tensor, "batch slots dim"]) -> Float[Tensor, ""]:
        """The mean squared difference between colours painted from the first block alone, the others being 0, and from
        all blocks for colour. No gradient goes through the latter: they are what the first block is to follow."""
        number = torch.arange(slots.shape[-1], device=slots.device)
        width = self.config.slot_dim // self.config.num_blocks
        first, every = (slots.masked_fill(number >= blocks * width, 0) for blocks in (1, self.config.colour_blocks))
        return F.mse_loss(self.decoder.slot_colour(first), self.decoder.slot_colour(every).detach())

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"],
        num_slots: int | None = None,
        num_iterations: int | None = None,
        restarts: int = 1,
        generator: torch.Generator | None = None,
    ) -> SVQOutput:
        """Take images apart into codes and put them together again; see `SlotAutoencoder.forward`."""
        with self.slot_attention.recording(generator) as iterations:
            output: AutoencoderOutput = super().forward(images, num_slots, num_iterations, restarts, generator)
        return SVQOutput(*output, *self._codes(output.slots, iterations))

    def _codes(
        self, slots: Float[Tensor, "batch slots dim"], iterations: Sequence[Quantised]
    ) -> tuple[Int[Tensor, "batch slots blocks"], Float[Tensor, "blocks"]]:
        """The codes of slots that are made of codes, and how far the last iteration had to move them."""
        missing = torch.full((self.quantizer.num_blocks,), math.nan, device=slots.device)
        return self.quantizer.nearest(slots), iterations[-1].error if iterations else missing

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "batch slots blocks"]) -> Drawn:
        """Draw scenes from codes. Raises ValueError for codes of another shape, type or range."""
        drawing = self.decoder(self.quantizer.decode(codes))
        picture, masks = compose(drawing)
        colours = ((drawing.colours + 1) / 2).expand(-1, -1, -1, *masks.shape[2:])
        return Drawn((picture + 1) / 2, colours, masks)

    @torch.no_grad()
    def find_blank(
        self, images: Float[Tensor, "batch 3 height width"], generator: torch.Generator | None = None
    ) -> Int[Tensor, "blocks"]:
        """Choose the codes for empty slots: of all slots in these images, those of the one that draws least.

        Raises ValueError for a model without `blanks`.
        """
        if self.blank is None:
            raise ValueError("this model writes no blanks (blanks=False)")
        codes = self(images, generator=generator).codes.flatten(0, 1)
        boldest = self.decoder(self.quantizer.decode(codes.unsqueeze(1))).logits.flatten(1).amax(dim=1)
        self.blank.copy_(codes[boldest.argmin()])
        return self.blank

    @torch.no_grad()
    def with_blanks(self, codes: Int[Tensor, "batch slots blocks"]) -> Int[Tensor, "batch slots blocks"]:
        """The same scenes, their slots that own no pixel all written alike (with `blanks`; else just as they are).

        What an empty slot says is never drawn, so nothing ever taught it what to say. A prior would have to learn that
        noise, and how many objects there are from slots that are empty each in another way.
        """
        if not self.config.blanks:
            return codes
        empty = _pixels_owned(self.decode(codes).masks) == 0
        return torch.where(empty.unsqueeze(2), self.blank, codes)

    def write(
        self, images: Float[Tensor, "batch 3 height width"], generator: torch.Generator | None = None
    ) -> Int[Tensor, "batch slots blocks"]:
        """See `WithPrior.write`."""
        return self.with_blanks(super().write(images, generator))

    def log_likelihood(
        self, codes: Int[Tensor, "batch slots blocks"], orders: int = 4, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch"]:
        """See `WithPrior.log_likelihood`; of the scenes with their blanks."""
        return super().log_likelihood(self.with_blanks(codes), orders, generator)


def _pixels_owned(masks: Float[Tensor, "batch slots height width"]) -> Int[Tensor, "batch slots"]:
    return F.one_hot(masks.argmax(dim=1), masks.shape[1]).flatten(1, 2).sum(dim=1)


# --- synonyms ---


@torch.no_grad()
def exchange_effects(
    model: SVQAutoencoder,
    images: Float[Tensor, "batch 3 height width"],
    least: int = 20,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "blocks codes codes"]:
    """How much the drawing of a scene changes when one of its codes is exchanged for another: the squared error, summed
    over the picture, as a mean over the exchanges that were tried. NaN for pairs of which none was.

    In every scene one slot that owns at least `least` pixels is drawn with each code in each of its blocks. Blocks ×
    codes × batch drawings, about a minute for 100 scenes, 16 blocks and 16 codes on one CPU core.
    """
    output = model(images, generator=generator)
    blocks, size = model.quantizer.num_blocks, model.quantizer.num_codes
    owned = _pixels_owned(output.masks)
    where = "cpu" if generator is None else generator.device
    slot = torch.multinomial((owned >= least).float().to(where), 1, generator=generator)[:, 0].to(images.device)
    scene = torch.arange(len(images), device=images.device)
    drawn = model.decode(output.codes).image
    total, tried = torch.zeros(2, blocks, size, size, device=images.device)
    for block in range(blocks):
        own = output.codes[scene, slot, block]
        for other in range(size):
            codes = output.codes.clone()
            codes[scene, slot, block] = other
            change = (model.decode(codes).image - drawn).square().flatten(1).sum(dim=1)
            total[block, :, other].index_add_(0, own, change)
            tried[block, :, other].index_add_(0, own, torch.ones_like(change))
    return (total + total.mT) / (tried + tried.mT)  # either way round


def merge_synonyms(
    model: SVQAutoencoder,
    images: Float[Tensor, "batch 3 height width"],
    share: float = 0.05,
    generator: torch.Generator | None = None,
) -> list[list[list[int]]]:
    """Make one word of codes that draw the same.

    A codebook has to have room, and what room is left fills with codes for what the block has a code for already. Two
    codes are synonyms here if their exchange changes drawings by less than `share` of what exchanges in this block
    change in the median (see `exchange_effects`); in a group that is merged (`VectorQuantizer.merge`) all are, of one
    another. Codes that scenes do not show stay as they are. To be done when training has ended, and before a prior
    learns.

    Returns the groups of every block, of one code or more. Raises ValueError for a quantiser without a codebook per
    block.
    """
    from sklearn.cluster import AgglomerativeClustering

    if not isinstance(model.quantizer, VectorQuantizer) or model.quantizer.shared:
        raise ValueError("only codes of a VectorQuantizer with a codebook per block can be merged")
    words = []
    for block, effect in enumerate(exchange_effects(model, images, generator=generator).cpu()):
        size = len(effect)
        if size == 1:
            words.append([[0]])
            continue
        apart = effect[~torch.eye(size, dtype=torch.bool)].nanmedian()
        distance = effect.nan_to_num(math.inf).clamp(max=1e3 * apart).fill_diagonal_(0)
        label = AgglomerativeClustering(
            None, metric="precomputed", linkage="complete", distance_threshold=float(share * apart)
        ).fit_predict(distance.numpy())
        groups = [[code for code in range(size) if label[code] == n] for n in range(label.max() + 1)]
        for group in groups:
            if len(group) > 1:
                model.quantizer.merge(block, group)
        words.append(groups)
    return words


# --- what do the codes mean? ---


def swap(
    codes: Int[Tensor, "batch slots blocks"], block: int, first: int, second: int
) -> Int[Tensor, "batch slots blocks"]:
    """The same scenes after two slots have exchanged one block."""
    swapped = codes.clone()
    swapped[:, [first, second], block] = codes[:, [second, first], block]
    return swapped


def count_objects(masks: Float[Tensor, "batch slots height width"], least: int = 20) -> Int[Tensor, "batch"]:
    """Slots that own at least `least` pixels, but for the largest of them, the background."""
    return (_pixels_owned(masks) >= least).sum(dim=1) - 1


class Objects(NamedTuple):
    """True objects, over all images, with the slots that found them."""

    codes: Int[Tensor, "objects blocks"] | None
    """None where slots are not made of codes."""
    properties: dict[str, Tensor]
    """Of each object, as its dataset names them."""
    slots: Float[Tensor, "objects dim"] | None = None


@torch.no_grad()
def objects_found(
    model: SlotAutoencoder, scenes: Mapping[str, Any], overlap: float = 0.5, generator: torch.Generator | None = None
) -> Objects:
    """Pair the true objects of a batch of scenes with slots: each with the one whose mask covers it best.

    Args:
        model: of slots, made of codes or not.
        scenes: `image`, `mask` and `objects` as `slotlib.data` draws them.
        overlap: objects that no slot covers with at least this intersection over union are left out.
        generator: the source of the slots' initial noise.
    """
    output = model(scenes["image"], generator=generator)
    found = F.one_hot(output.masks.argmax(dim=1), output.masks.shape[1]).flatten(1, 2).float()
    present = scenes["objects"]["present"]
    true = F.one_hot(scenes["mask"].long(), present.shape[1] + 1)[..., 1:].flatten(1, 2).float()
    both = true.mT @ found  # [batch, objects, slots]
    union = true.sum(dim=1).unsqueeze(2) + found.sum(dim=1).unsqueeze(1) - both
    best, slot = (both / union.clamp(min=1)).max(dim=2)
    kept = present & (best >= overlap)
    codes, slots = (
        None if each is None else each.gather(1, slot.unsqueeze(2).expand(-1, -1, each.shape[2]))[kept]
        for each in (getattr(output, "codes", None), output.slots)
    )
    properties = {name: values[kept] for name, values in scenes["objects"].items() if name != "present"}
    return Objects(codes, properties, slots)


def information(objects: Objects, bins: int = 8) -> dict[str, list[float]]:
    """How much each block says about each property: the normalised mutual information of block m's code and the
    property, from 0 to 1, `[m]`-th in the list.

    Properties that are not whole numbers are cut into `bins` equally full parts, those with several channels, like a
    colour, into as many clusters. Of few objects and many codes the estimate is too large: with hundreds of codes take
    thousands of objects.

    Raises ValueError if there are no objects, or no codes.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import normalized_mutual_info_score

    if objects.codes is None or not len(objects.codes):
        what = "codes" if objects.codes is None else "objects"
        raise ValueError(f"no {what}: nothing can be said about what they mean")
    table = {}
    for name, values in objects.properties.items():
        values = values.cpu().contiguous()
        if values.ndim > 1:
            values = torch.from_numpy(KMeans(bins, n_init=4, random_state=0).fit_predict(values.numpy()))
        elif values.is_floating_point():
            edges = values.quantile(torch.linspace(0, 1, bins + 1, dtype=values.dtype)[1:-1])
            values = torch.bucketize(values, edges)
        blocks = objects.codes.T.cpu().numpy()
        table[name] = [normalized_mutual_info_score(values.numpy(), block) for block in blocks]
    return table
