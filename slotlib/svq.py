"""Objects as words (chapter 07): slots made of codes, learned without labels.

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

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from slotlib import check, metrics
from slotlib.autoencoder import AutoencoderConfig, SlotAutoencoder, WithSlots, checked
from slotlib.counting import pixels_owned
from slotlib.decoders import Masks, SeparableDecoder, ends
from slotlib.encoders import Images
from slotlib.model import Draws, Ramp, Scenes
from slotlib.slot_attention import Attention, AttentionConfig, Prepared, SlotAttention, SlotHistory, Slots
from slotlib.vq import (
    BlockGRUCell,
    BlockLayerNorm,
    BlockLinear,
    Nearest,
    Quantised,
    Quantizer,
    QuantizerConfig,
    VectorQuantizer,
    use,
)

Codes = Int[Tensor, "batch slots blocks"]

# --- slot attention ---


@dataclass
class QuantisedAttentionConfig(AttentionConfig):
    """Slot attention whose slots are codes. A block's codes are `slot_dim / num_blocks` wide."""

    quantizer: QuantizerConfig = field(default_factory=lambda: Nearest(num_blocks=4))
    quantise: bool | Ramp = True
    """Whether slots are made of codes. With a ramp from 0 to 1 they are continuous at first, and codes are then placed
    among slots that hold objects already; false: never."""
    search_iterations: int = 0
    """Of `num_iterations` so many first ones leave slots continuous, but never the last. 0: codes from the first on, as
    in the paper."""
    mixing: bool = False
    """Whether GRU and MLP mix the blocks of a slot."""

    def build(self, input_dim: int) -> "QuantisedSlotAttention":
        module = QuantisedSlotAttention(
            input_dim,
            self.quantizer.build(self.slot_dim),
            mixing=self.mixing,
            quantise=bool(round(ends(self.quantise)[1])),
            search_iterations=self.search_iterations,
            **self.options(),
        )
        module.config = self
        return module


class QuantisedSlots(NamedTuple):
    """What a `SlotAttentionOutput` has, and what was quantised."""

    slots: Slots
    attention: Attention
    history: SlotHistory | None
    quantised: list[Quantised]
    """Iteration by iteration; empty while slots are continuous."""


class QuantisedSlotAttention(SlotAttention):
    """Slot attention whose every iteration ends in codes.

    The attention sees whole slots; everything after it keeps the blocks of a slot apart, and the `quantizer` then
    replaces each block by a code. Whatever works with `SlotAttention.prepare` and `step` works here.

    Args:
        quantizer: says how many blocks there are. Its width is the slots'.
        mixing: let GRU and MLP mix the blocks, as in plain slot attention.
        quantise: False leaves all iterations continuous, until this attribute is True.
        search_iterations: so many first iterations stay continuous, but for the last of all, which never does.
        options: all else as `SlotAttention`.

    Raises ValueError for `search_iterations` below 0.
    """

    readable = *SlotAttention.readable, BlockGRUCell

    def __init__(
        self,
        input_dim: int,
        quantizer: Quantizer,
        *,
        mixing: bool = False,
        quantise: bool = True,
        search_iterations: int = 0,
        **options: Any,
    ):
        if not isinstance(quantizer, Quantizer):
            raise ValueError(f"quantizer must be a Quantizer, got {check.described(quantizer)}")
        super().__init__(input_dim, **{"slot_dim": quantizer.dim, **options})
        check.whole("search_iterations", search_iterations, least=0)
        self.quantizer, self.quantise, self.search_iterations = quantizer, quantise, search_iterations
        if not mixing:
            blocks, hidden = quantizer.num_blocks, self.mlp[0].out_features
            self.gru = BlockGRUCell(self.slot_dim, blocks)
            self.norm_mlp = BlockLayerNorm(blocks)
            self.mlp = nn.Sequential(
                BlockLinear(self.slot_dim, hidden, blocks), nn.ReLU(), BlockLinear(hidden, self.slot_dim, blocks)
            )

    def quantised_step(
        self, slots: Slots, prepared: Prepared, draws: Draws | None = None
    ) -> tuple[Quantised, Attention]:
        """One iteration: the new slots and their codes, and the attention that made them."""
        slots, attention = super().step(slots, prepared)
        return self.quantizer(slots, draws), attention

    def step(self, slots: Slots, prepared: Prepared) -> tuple[Slots, Attention]:
        """One iteration: the new slots, made of codes, and the attention that made them."""
        if not self.quantise:
            return super().step(slots, prepared)
        quantised, attention = self.quantised_step(slots, prepared)
        return quantised.values, attention

    def forward(
        self,
        inputs: Float[Tensor, "batch inputs input_dim"],
        num_slots: int | None = None,
        num_iterations: int | None = None,
        slots: Slots | None = None,
        generator: torch.Generator | None = None,
        return_history: bool = False,
        mask: Bool[Tensor, "batch inputs"] | None = None,
        draws: Draws | None = None,
    ) -> QuantisedSlots:
        """Bind `inputs` to slots made of codes; see `SlotAttention.forward`. `draws` is for quantisers that draw codes
        at random; without, they draw with `generator`."""
        prepared, draws = self.prepare(inputs, mask), Draws.given(draws or Draws(generator))
        slots = self.start(inputs.shape[0], num_slots, slots, generator)
        iterations = self.num_iterations if num_iterations is None else num_iterations
        check.whole("num_iterations", iterations)
        if not self.quantise:
            return QuantisedSlots(*self.iterate(prepared, slots, iterations, super().step, return_history), [])
        quantised: list[Quantised] = []

        def step(slots: Tensor, prepared: Prepared) -> tuple[Tensor, Tensor]:
            codes, attention = self.quantised_step(slots, prepared, draws)
            quantised.append(codes)
            return codes.values, attention

        search = min(self.search_iterations, iterations - 1)
        if search < 1:
            return QuantisedSlots(*self.iterate(prepared, slots, iterations, step, return_history), quantised)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.gradient == "unrolled"):
            found = self.iterate(prepared, slots, search, super().step, return_history)
        # Without a gradient through the search, what comes back to its end goes straight to its start.
        begin = found.slots if self.gradient == "unrolled" else found.slots + slots - slots.detach()
        output = self.iterate(prepared, begin, iterations - search, step, return_history)
        history, first, then = None, found.history, output.history
        if first and then:
            history = SlotHistory(
                torch.cat([first.slots, then.slots[1:]]),
                torch.cat([first.attention, then.attention]),
                first.needed + then.needed,
            )
        return QuantisedSlots(output.slots, output.attention, history, quantised)


# --- the model ---


@dataclass
class SVQConfig(AutoencoderConfig):
    """Everything that defines an `SVQAutoencoder`: the fields of an autoencoder, with codes in its slot attention."""

    attention: QuantisedAttentionConfig = field(default_factory=QuantisedAttentionConfig)
    colour_lead: float = 0.0
    """Above 0, the first of several blocks that the decoder reads colours from (`Separable.colour_dims`) learns to tell
    most of the colour and leaves corrections to the others, where they would share it evenly: the weight of
    `SVQAutoencoder.lead_cost` in the loss."""


class SVQOutput(NamedTuple):
    """What an `AutoencoderOutput` has, and the codes."""

    reconstruction: Images
    slot_images: Float[Tensor, "batch slots 3 height width"]
    masks: Masks
    slots: Slots
    attention: Float[Tensor, "batch slots h w"]
    drawn_masks: Masks
    codes: Codes
    error: Float[Tensor, "learned"]
    """Mean squared distance between the last iteration's slots and their codes, block by block of slot attention, over
    all images and restarts; NaN while slots are continuous."""


def mean_cost(iterations: Sequence[Quantised]) -> Float[Tensor, ""]:
    """The quantiser's loss, averaged over the iterations that carry a gradient; 0 without."""
    costs = [each.loss for each in iterations if each.values.requires_grad]
    return torch.stack(costs).mean() if costs else torch.zeros(())


def last_error(bound: QuantisedSlots, blocks: int) -> Float[Tensor, "blocks"]:
    """How far the last iteration had to move each block of the slots; NaN while they are continuous."""
    missing = torch.full((blocks,), math.nan, device=bound.slots.device)
    return bound.quantised[-1].error if bound.quantised else missing


class Drawn(NamedTuple):
    """A scene as a decoder draws it from codes alone. What is said of single slots is None where a decoder does not
    draw them one by one."""

    image: Images
    slot_images: Float[Tensor, "batch slots 3 height width"] | None = None
    masks: Masks | None = None
    logits: Masks | None = None
    """Of the masks."""


class Tokeniser:
    """Of a `Model`: its latents are codes. It makes texts of images, which a prior can learn (`slotlib.prior` asks no
    more of it than is said here), and images of texts."""

    config: Any
    quantizer: Quantizer
    is_set: bool
    """Whether the places are a set, without an order of their own."""
    __call__: Callable[..., Any]

    @property
    def places(self) -> int:
        """Rows in a scene's codes: slots, or patches."""
        raise NotImplementedError(f"{type(self).__name__} does not say how long its texts are")

    def tokenise(self, images: Images, draws: Draws | None = None, restarts: int = 1) -> Codes:
        """The codes of images; of several random starts, those that draw best."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it reads images")

    def decode(self, codes: Codes) -> Drawn:
        """Draw scenes from codes. Raises ValueError for codes of another shape, type or range."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it draws codes")

    def update(self, draws: Draws) -> None:
        """What the codebooks learn without gradients."""
        self.quantizer.update(draws.generator)

    def summarise(self, columns: Mapping[str, Tensor]) -> dict[str, float]:
        """Means; of codes, how they are used and their error, block by block and in the mean; NaN while they are not in
        use yet."""
        others = {name: column for name, column in columns.items() if name not in ("codes", "quantisation_error")}
        error = columns["quantisation_error"].mean(dim=0)
        # While slots are continuous the codes that lie closest mean nothing.
        usage = use(columns["codes"], self.quantizer.num_codes)._asdict()
        blocks = {name: each.masked_fill(error.isnan().any(), math.nan) for name, each in usage.items()}
        scores = super().summarise(others)  # pyright: ignore[reportAttributeAccessIssue]  # the model's
        for name, each in {**blocks, "quantisation_error": error}.items():
            scores |= {name: each.mean().item(), **{f"{name}_{i}": one.item() for i, one in enumerate(each)}}
        return scores


def code_columns(codes: Codes, error: Float[Tensor, "learned"]) -> dict[str, Tensor]:
    """What a tokeniser's `judge` says of codes, scene by scene. The error is of blocks whose codes are learned."""
    return {"codes": codes, "quantisation_error": error.expand(len(codes), -1)}


class WithCodedSlots(Tokeniser, WithSlots):
    """Of a `Model`: it takes images apart into slots that are codes."""

    slot_attention: QuantisedSlotAttention
    is_set = True

    @property
    def quantizer(self) -> Quantizer:
        return self.slot_attention.quantizer

    @property
    def places(self) -> int:
        """Slots in a scene's text."""
        return self.slot_attention.num_slots

    def attend(
        self,
        inputs: Float[Tensor, "batch inputs dim"],
        start: Float[Tensor, "batch slots slot_dim"],
        num_iterations: int | None,
        draws: Draws,
    ) -> QuantisedSlots:
        return self.slot_attention(inputs, None, num_iterations, start, draws=draws)

    def slots_of(self, codes: Codes) -> Slots:
        """The slots that codes stand for. Raises ValueError for codes of another shape, type or range."""
        check.tensor("codes", codes, "integers", f"batch slots blocks={self.quantizer.num_blocks}")
        return self.quantizer.decode(codes)

    def scores(self, scenes: Scenes, output: Any) -> dict[str, Tensor]:
        """As of any masks, and `code_columns`."""
        return {**super().scores(scenes, output), **code_columns(output.codes, output.error)}


class SVQAutoencoder(WithCodedSlots, SlotAutoencoder):
    """A `SlotAutoencoder` whose slots are codes; `slotlib.prior` learns which go together.

    Raises ValueError for a configuration that cannot be built, naming the field.
    """

    config: SVQConfig

    def __init__(self, config: SVQConfig):
        super().__init__(checked(config, SVQConfig))
        check.number("colour_lead", config.colour_lead)
        if config.colour_lead and self._colour_blocks() < 2:
            raise ValueError(
                "colour_lead needs a decoder that reads colours from at least two of "
                f"{self.slot_attention.quantizer.num_blocks} blocks (colour_dims), got {config.colour_lead}"
            )

    @property
    def painter(self) -> nn.Module:
        """What reads colours from slots."""
        return self.decoder

    def _colour_blocks(self) -> int:
        """How many blocks the decoder now reads colours from; 0: all."""
        quantizer, painter = self.slot_attention.quantizer, self.painter
        width = quantizer.dim // quantizer.num_blocks
        return painter.colour_dims // width if isinstance(painter, SeparableDecoder) else 0

    def loss(self, images: Images, draws: Draws | None = None) -> Float[Tensor, ""]:
        """The autoencoder's loss; the quantiser's, averaged over the iterations that carry a gradient; `lead_cost`."""
        draws = Draws.given(draws)
        bound = self.bind(self.encode(images), draws)
        loss = self.drawing_loss(bound.slots, images, draws) + mean_cost(bound.quantised)
        if self.config.colour_lead and bound.quantised and self._colour_blocks():
            loss = loss + self.config.colour_lead * self.lead_cost(bound.slots)
        return loss

    def lead_cost(self, slots: Slots) -> Float[Tensor, ""]:
        """The mean squared difference between colours painted from the first block alone, the others being 0, and from
        all blocks for colour. No gradient goes through the latter: they are what the first block is to follow."""
        decoder: Any = self.painter
        number = torch.arange(slots.shape[-1], device=slots.device)
        width = slots.shape[-1] // self.slot_attention.quantizer.num_blocks
        first, every = (slots.masked_fill(number >= dims, 0) for dims in (width, decoder.colour_dims))
        return F.mse_loss(decoder.slot_colour(first), decoder.slot_colour(every).detach())

    def forward(
        self,
        images: Images,
        num_slots: int | None = None,
        num_iterations: int | None = None,
        restarts: int = 1,
        generator: torch.Generator | None = None,
    ) -> SVQOutput:
        """Take images apart into codes and put them together again; see `SlotAutoencoder.forward`."""
        return self._described(images, Draws(generator), num_slots, num_iterations, restarts)

    def _described(
        self,
        images: Images,
        draws: Draws,
        num_slots: int | None = None,
        num_iterations: int | None = None,
        restarts: int = 1,
    ) -> SVQOutput:
        features = self.encode(images)
        bound = self.bind(features, draws, num_slots, num_iterations, restarts)
        output = self.drawn(images, bound, features.shape[1:3], restarts)
        error = last_error(bound, self.slot_attention.quantizer.num_blocks)
        return SVQOutput(**output._asdict(), codes=self.quantizer.nearest(output.slots), error=error)

    @torch.no_grad()
    def tokenise(self, images: Images, draws: Draws | None = None, restarts: int = 1) -> Codes:
        return self._described(images, Draws.given(draws), restarts=restarts).codes

    @torch.no_grad()
    def decode(self, codes: Codes) -> Drawn:
        drawing = self.decoder(self.slots_of(codes))
        return Drawn(*self.shown(drawing), drawing.logits)


# --- synonyms ---


def _learned_codes(model: Any) -> Quantizer:
    if not isinstance(model, WithCodedSlots):
        raise ValueError(f"model must be one whose slots are codes, got a {type(model).__name__}")
    return model.slot_attention.quantizer


@torch.no_grad()
def exchange_effects(
    model: Tokeniser, images: Images, least: int = 20, generator: torch.Generator | None = None
) -> Float[Tensor, "blocks codes codes"]:
    """How much the drawing of a scene changes when one of slot attention's codes is exchanged for another: the squared
    error, summed over the picture, as a mean over the exchanges that were tried. NaN for pairs of which none was.

    In every scene one slot that owns at least `least` pixels is drawn with each code in each of its blocks. Blocks ×
    codes × batch drawings, about a minute for 100 scenes, 16 blocks and 16 codes on one CPU core.

    Raises ValueError for a model whose codes are not of slots, or an image in which no slot owns so many pixels.
    """
    quantizer = _learned_codes(model)
    check.whole("least", least, least=0)
    output = model(images, generator=generator)
    blocks, size = quantizer.num_blocks, quantizer.num_codes
    large = pixels_owned(output.masks) >= least
    if not large.any(dim=1).all():
        raise ValueError(f"least must be few enough pixels that a slot in every image owns them, got {least}")
    where = "cpu" if generator is None else generator.device
    slot = torch.multinomial(large.float().to(where), 1, generator=generator)[:, 0].to(images.device)
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
    model: Tokeniser, images: Images, share: float = 0.05, generator: torch.Generator | None = None
) -> list[list[list[int]]]:
    """Make one word of codes that draw the same.

    A codebook has to have room, and what room is left fills with codes for what the block has a code for already. Two
    codes are synonyms here if their exchange changes drawings by less than `share` of what exchanges in this block
    change in the median (see `exchange_effects`); in a group that is merged (`VectorQuantizer.merge`) all are, of one
    another. Codes that scenes do not show stay as they are. To be done when training has ended, and before a prior
    learns.

    Returns the groups of every block, of one code or more. Raises ValueError for a quantiser without a codebook per
    block, and as `exchange_effects`.
    """
    from sklearn.cluster import AgglomerativeClustering

    quantizer = _learned_codes(model)
    check.number("share", share)
    if not isinstance(quantizer, VectorQuantizer) or quantizer.shared:
        raise ValueError("only codes of a VectorQuantizer with a codebook per block can be merged")
    words = []
    for block, effect in enumerate(exchange_effects(model, images, generator=generator).cpu()):
        size = len(effect)
        if size == 1:
            words.append([[0]])
            continue
        apart = effect[~torch.eye(size, dtype=torch.bool)].nanmedian()
        distance = effect.nan_to_num(math.inf).clamp(max=1e3 * apart).fill_diagonal_(0)
        threshold = float(share * apart)
        label = AgglomerativeClustering(
            None,  # pyright: ignore[reportArgumentType]  # as many as the threshold makes
            metric="precomputed",
            linkage="complete",
            distance_threshold=threshold,
        ).fit_predict(distance.numpy())
        groups = [[code for code in range(size) if label[code] == n] for n in range(label.max() + 1)]
        for group in groups:
            if len(group) > 1:
                quantizer.merge(block, group)
        words.append(groups)
    return words


# --- what do the codes mean? ---


def swap(codes: Codes, block: int, first: int, second: int) -> Codes:
    """The same scenes after two slots have exchanged one block. Raises ValueError where there are no such."""
    check.tensor("codes", codes, "integers", "batch slots blocks")
    for name, index, count in (("block", block, 2), ("first", first, 1), ("second", second, 1)):
        check.whole(name, index, least=0)
        if index >= codes.shape[count]:
            raise ValueError(f"{name} must be below {codes.shape[count]}, got {index}")
    swapped = codes.clone()
    swapped[:, [first, second], block] = codes[:, [second, first], block]
    return swapped


class Objects(NamedTuple):
    """True objects, over all images, with the slots that found them."""

    codes: Int[Tensor, "objects blocks"] | None
    """None where slots are not made of codes."""
    properties: dict[str, Tensor]
    """Of each object, as its dataset names them."""
    slots: Float[Tensor, "objects dim"] | None = None


@torch.no_grad()
def objects_found(
    model: Callable[..., Any], scenes: Scenes, overlap: float = 0.5, generator: torch.Generator | None = None
) -> Objects:
    """Pair the true objects of a batch of scenes with slots: each with the one whose mask covers it best.

    Args:
        model: of slots, made of codes or not.
        scenes: `image`, `mask` and `objects` as `slotlib.data` draws them.
        overlap: objects that no slot covers with at least this intersection over union are left out.
        generator: the source of the slots' initial noise.
    """
    if not callable(model):
        raise ValueError(f"model must be a model of slots, got {check.described(model)}")
    check.scenes(scenes)
    check.number("overlap", overlap)
    output = model(scenes["image"], generator=generator)
    present = scenes["objects"]["present"]
    # An object's label is one more than its number: 0 is the background.
    iou = metrics.intersection_over_union(scenes["mask"], output.masks.argmax(dim=1))[:, 1:]
    best, slot = F.pad(iou, (0, 0, 0, present.shape[1] - iou.shape[1])).max(dim=2)
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
    if not isinstance(objects, Objects):
        raise ValueError(f"objects must be what objects_found returns, got {check.described(objects)}")
    check.whole("bins", bins)
    from sklearn.cluster import KMeans
    from sklearn.metrics import normalized_mutual_info_score

    if objects.codes is None or not len(objects.codes):
        what = "codes" if objects.codes is None else "objects"
        raise ValueError(f"no {what}: nothing can be said about what they mean")
    table = {}
    for name, values in objects.properties.items():
        values = values.cpu().contiguous()
        if values.ndim > 1:
            clusters = KMeans(bins, n_init=4, random_state=0)  # pyright: ignore[reportArgumentType]
            values = torch.from_numpy(clusters.fit_predict(values.numpy()))
        elif values.is_floating_point():
            edges = values.quantile(torch.linspace(0, 1, bins + 1, dtype=values.dtype)[1:-1])
            values = torch.bucketize(values, edges)
        blocks = objects.codes.T.cpu().numpy()
        table[name] = [normalized_mutual_info_score(values.numpy(), block) for block in blocks]
    return table
