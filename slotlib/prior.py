"""A prior over scenes (chapter 08): which objects go together, learned from their codes and drawn token by token.

Once a slot is a handful of codes, a scene is a short text: slot after slot, block after block. A small causal
transformer learns to continue such texts, as a language model does (Wu, Lee & Ahn, 2024, arXiv 2402.01203).
What it samples is decoded to a picture.

Two things differ from words. *Every block has a vocabulary of its own*: the token of block m is one of that block's
codes, so it is embedded and predicted with the rows of block m only. That is a softmax over all blocks' codes with all
but the due block masked, without the work. And *slots are a set*: their order says nothing, but a text has one. The
prior learns from random orders, a new one each time (`order="random"`), so a scene may also be continued from any of
its objects. Sorted by their codes instead (`order="sorted"`), each set is one text, and its likelihood needs no sum
over orders; but which number a code has is arbitrary, and so is the order. Of 1,280 scenes of Shapes, after 400 steps
and without blanks, it learned less: 48.2 nats per fresh scene against 46.2. In random orders, slots that are empty come
last, as a full stop does, if they are all written alike (`CodePrior.with_blanks`).
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from slotlib import check, checkpoint, zoo
from slotlib.autoencoder import checked
from slotlib.counting import pixels_owned
from slotlib.encoders import Images
from slotlib.model import Draws, Look, Model, Scenes
from slotlib.svq import Codes, Drawn, Tokeniser, merge_synonyms

logger = logging.getLogger(__name__)

Order = Literal["random", "sorted"]

Vectors = Float[Tensor, "batch tokens dim"]
Memory = Float[Tensor, "batch items memory_dim"]
Blank = Int[Tensor, "blocks"]
"""The codes of a slot that is empty, where all that are empty are written alike."""
Cache = list[tuple[Tensor, Tensor]]
"""Keys and values of the tokens read so far, one pair for each layer; empty at first."""


class TransformerLayer(nn.Module):
    """Causal self-attention, attention to a memory (if `memory_dim`), MLP; each normalised before and added."""

    def __init__(self, dim: int, num_heads: int, memory_dim: int = 0):
        super().__init__()
        self.num_heads = num_heads
        self.norm_self, self.norm_mlp = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.project_qkv = nn.Linear(dim, 3 * dim)
        self.project_out = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        if memory_dim:
            self.norm_memory = nn.LayerNorm(dim)
            self.across = nn.MultiheadAttention(dim, num_heads, kdim=memory_dim, vdim=memory_dim, batch_first=True)

    def forward(
        self, x: Vectors, memory: Memory | None, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Vectors, tuple[Tensor, Tensor]]:
        """The tokens' new vectors, and the keys and values of all tokens so far."""
        q, k, v = (
            self.project_qkv(self.norm_self(x)).unflatten(-1, (3 * self.num_heads, -1)).transpose(1, 2).chunk(3, 1)
        )
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        # Written out: with heads this narrow, a step in bf16 on a CPU takes twice as long with torch's fused attention.
        scores = (q * q.shape[-1] ** -0.5) @ k.mT
        if x.shape[1] > 1:  # a single token may look at everything before it; several come without a past
            scores = scores + scores.new_full(scores.shape[-2:], -math.inf).triu(1)
        read = scores.softmax(dim=-1, dtype=scores.dtype) @ v
        x = x + self.project_out(read.transpose(1, 2).flatten(2))
        if memory is not None:
            x = x + self.across(self.norm_memory(x), memory, memory, need_weights=False)[0]
        return x + self.mlp(self.norm_mlp(x)), (k, v)


class Transformer(nn.Module):
    """Reads tokens that are vectors already, each looking back only; with `memory_dim` at a memory too.

    Raises ValueError for a size below 1, or heads that do not divide `dim`.
    """

    def __init__(self, dim: int, num_layers: int, num_heads: int, memory_dim: int = 0):
        super().__init__()
        check.sizes(dim=dim, num_layers=num_layers, num_heads=num_heads)
        check.whole("memory_dim", memory_dim, least=0)
        if dim % num_heads:
            raise ValueError(f"num_heads must divide dim, got dim={dim} and num_heads={num_heads}")
        self.dim, self.memory_dim = dim, memory_dim
        layers = [TransformerLayer(dim, num_heads, memory_dim) for _ in range(num_layers)]
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(dim)
        for layer in self.modules():  # as in GPT-2: small, and every path that is added smaller still
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        for layer in layers:
            for last in (layer.project_out, layer.mlp[2]):
                nn.init.normal_(last.get_parameter("weight"), std=0.02 / (2 * num_layers) ** 0.5)

    def forward(self, x: Vectors, memory: Memory | None = None, cache: Cache | None = None) -> Vectors:
        """Vectors to predict the next tokens from.

        With a `cache` the tokens go on after those it holds, which are not computed again, and are added to it: all at
        once into an empty cache, one by one after that.

        Raises ValueError for vectors of another width, and unless there is a memory where one is looked at.
        """
        check.tensor("x", x, "floating point", f"batch tokens dim={self.dim}")
        if self.memory_dim:
            axes = f"batch={x.shape[0]} items memory_dim={self.memory_dim}"
            check.tensor("memory", memory, "floating point", axes)
        elif memory is not None:
            raise ValueError("memory must be None where memory_dim is 0")
        for i, layer in enumerate(self.layers):
            x, seen = layer(x, memory, cache[i] if cache and i < len(cache) else None)
            if cache is not None:
                cache[i : i + 1] = [seen]
        return self.norm(x)


def nucleus_sample(
    logits: Float[Tensor, "batch codes"],
    temperature: float = 1.0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "batch"]:
    """Draw one code per row, from the most probable ones that together have probability `top_p`.

    `temperature` divides the logits: towards 0 the most probable code is drawn, above 1 rare ones are drawn more often.
    The draw is made on the generator's device.

    Raises ValueError for a temperature not above 0, `top_p` outside (0, 1], or NaN.
    """
    check.tensor("logits", logits, "floating point", "batch codes")
    check.number("temperature", temperature, above=True)
    check.number("top_p", top_p, above=True)
    if top_p > 1:
        raise ValueError(f"top_p must be at most 1, got {top_p}")
    check.generator(generator)
    if check.holds(logits.isnan().any(), otherwise=False):
        raise ValueError("logits must not be NaN")
    probability, order = (logits.float() / temperature).softmax(dim=-1).sort(dim=-1, descending=True)
    before = probability.cumsum(dim=-1) - probability
    before[:, 0] = 0  # rounding must not forbid the most probable one
    probability = probability.masked_fill(before >= top_p, 0.0)
    device = probability.device if generator is None else generator.device
    drawn = torch.multinomial(probability.to(device), 1, generator=generator).to(order.device)
    return order.gather(1, drawn).squeeze(1)


def canonical_order(codes: Codes) -> Codes:
    """The same slots sorted by their codes, block 0 first, as words in a dictionary."""
    check.tensor("codes", codes, "integers", "batch slots blocks")
    for block in reversed(range(codes.shape[2])):  # stable sorts: the last one counts most
        order = codes[:, :, block].argsort(dim=1, stable=True)
        codes = codes.gather(1, order.unsqueeze(2).expand_as(codes))
    return codes


def random_order(codes: Codes, draws: Draws | None = None, blank: Blank | None = None) -> Codes:
    """The same slots, shuffled scene by scene; those written as `blank` stay behind the others."""
    empty = _is_blank(codes, blank)
    keys = Draws.given(draws).uniform(len(codes), codes.shape[1], like=codes)
    return codes.gather(1, (keys + empty).argsort(dim=1).unsqueeze(2).expand_as(codes))


def log_orders(codes: Codes, blank: Blank | None = None) -> Float[Tensor, "batch"]:
    """log of how many different texts `random_order` makes of a scene: K! for K slots, less where some are alike.

    Slots written as `blank` do not count, for they have their place.
    """
    moves = ~_is_blank(codes, blank)
    alike = (codes.unsqueeze(1) == codes.unsqueeze(2)).all(dim=3).sum(dim=2)  # with itself, for every slot
    twins = (torch.lgamma(alike + 1.0) / alike * moves).sum(dim=1)
    return torch.lgamma(moves.sum(dim=1) + 1.0) - twins


def _is_blank(codes: Codes, blank: Blank | None) -> Bool[Tensor, "batch slots"]:
    check.tensor("codes", codes, "integers", "batch slots blocks")
    if blank is None:
        return codes.new_zeros(codes.shape[:2], dtype=torch.bool)
    check.tensor("blank", blank, "integers", f"blocks={codes.shape[2]}")
    return (codes == blank).all(dim=2)


class ScenePrior(nn.Module):
    """A causal transformer over slot-major tokens, a vocabulary for each block.

    Args:
        num_slots, num_blocks, num_codes: scenes are `[slots, blocks]` codes below `num_codes`. For patches: positions,
            and one block.
        dim, num_layers, num_heads: of the transformer.
        memory_dim: above 0, everything is predicted given a memory of vectors of this width (`memory` below).

    Raises ValueError for a size below 1 or heads that do not divide `dim`.
    """

    def __init__(
        self,
        num_slots: int,
        num_blocks: int,
        num_codes: int,
        *,
        dim: int = 128,
        num_layers: int = 4,
        num_heads: int = 4,
        memory_dim: int = 0,
    ):
        super().__init__()
        check.sizes(num_slots=num_slots, num_blocks=num_blocks, num_codes=num_codes)
        self.num_slots, self.num_blocks, self.num_codes = num_slots, num_blocks, num_codes
        self.transformer = Transformer(dim, num_layers, num_heads, memory_dim)
        self.tokens = nn.Parameter(0.02 * torch.randn(num_blocks, num_codes, dim))
        self.head = nn.Parameter(0.02 * torch.randn(num_blocks, num_codes, dim))
        self.start = nn.Parameter(0.02 * torch.randn(dim))
        self.slot_position = nn.Parameter(0.02 * torch.randn(num_slots, 1, dim))
        self.block_position = nn.Parameter(0.02 * torch.randn(num_blocks, dim))

    def _check(self, name: str, codes: Codes, slots: str) -> None:
        check.codes(name, codes, f"batch {slots} blocks={self.num_blocks}", self.num_codes)

    def _vectors(self, codes: Codes) -> Vectors:
        """What the transformer reads to predict these tokens and one more: the start, then the tokens, each with the
        place of the token that comes *next*."""
        offset = torch.arange(self.num_blocks, device=codes.device) * self.num_codes
        vectors = self.tokens.flatten(0, 1)[(codes + offset).flatten(1)]
        start = self.start.expand(len(codes), 1, -1)
        place = (self.slot_position + self.block_position).flatten(0, 1)
        vectors = torch.cat([start, vectors], dim=1)[:, : len(place)]
        return vectors + place[: vectors.shape[1]]

    def logits(self, codes: Codes, memory: Memory | None = None) -> Float[Tensor, "batch slots blocks codes"]:
        """Scores of every code at every place, given all tokens before it.

        Raises ValueError for codes of another shape, type or range, or a memory that is missing or of another width.
        """
        self._check("codes", codes, f"slots={self.num_slots}")
        x = self.transformer(self._vectors(codes), memory).unflatten(1, (self.num_slots, self.num_blocks))
        return torch.einsum("bkmd,mpd->bkmp", x, self.head)

    def log_likelihood(self, codes: Codes, memory: Memory | None = None) -> Float[Tensor, "batch"]:
        """log p(scene) in nats, of these codes in this order. Raises ValueError as `logits`."""
        logits = self.logits(codes, memory)
        with torch.autocast(logits.device.type, enabled=False):
            precision = torch.promote_types(logits.dtype, torch.float32)
            scores = logits.to(precision).log_softmax(dim=-1)
            return scores.gather(-1, codes.unsqueeze(-1)).sum(dim=(1, 2, 3))

    @torch.no_grad()
    def sample(
        self,
        count: int = 1,
        *,
        given: Int[Tensor, "count begun blocks"] | None = None,
        memory: Float[Tensor, "count items memory_dim"] | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        generator: torch.Generator | None = None,
        cached: bool = True,
    ) -> Int[Tensor, "count num_slots blocks"]:
        """Draw scenes, token by token.

        Args:
            count: how many.
            given: whole slots that every scene begins with.
            memory: what each scene is drawn from, if the prior has one.
            temperature, top_p: see `nucleus_sample`.
            generator: the source of randomness.
            cached: keep keys and values of earlier tokens. Without, all are computed again at each step: the same codes
                for more work.

        Raises ValueError for a count below 1, slots that are no codes or too many, or as `logits` and `nucleus_sample`.
        """
        check.whole("count", count)
        device = self.start.device
        if given is None:
            given = torch.zeros(count, 0, self.num_blocks, dtype=torch.int64, device=device)
        self._check("given", given, "slots")
        if len(given) != count or given.shape[1] > self.num_slots:
            raise ValueError(
                f"given must begin {count} scenes with at most {self.num_slots} slots, got {list(given.shape)}"
            )
        place = (self.slot_position + self.block_position).flatten(0, 1)
        vectors, cache = self._vectors(given), [] if cached else None
        tokens = [*given.flatten(1).unbind(1)]
        for i in range(len(tokens), len(place)):
            block = i % self.num_blocks
            x = self.transformer(vectors, memory, cache)[:, -1]
            tokens.append(nucleus_sample(x @ self.head[block].mT, temperature, top_p, generator))
            if i + 1 < len(place):
                new = (self.tokens[block][tokens[-1]] + place[i + 1]).unsqueeze(1)
                vectors = new if cached else torch.cat([vectors, new], dim=1)
        return torch.stack(tokens, dim=1).unflatten(1, (self.num_slots, self.num_blocks))


# --- the model ---


@dataclass
class CodePriorConfig:
    """Everything that defines a `CodePrior`."""

    autoencoder: str | dict[str, Any] = ""
    """A checkpoint, shipped or a path, of a model whose latents are codes. (On a card its configuration is here.)"""
    reading: dict[str, int] = field(default_factory=dict)
    """Fields of its slot attention that change for good, such as {"num_iterations": 16}: scenes are read with a longer
    search than was needed to learn the codes."""
    restarts: int = 1
    """Random starts from which a scene is read, of which the one that draws best counts."""
    synonyms: float = 0.0
    """Above 0, codes that draw the same become one before the prior learns: the `share` of `svq.merge_synonyms`."""
    blanks: bool = False
    """Slots that own no pixel are all written alike, and stand last in random orders (see `CodePrior.with_blanks`)."""
    order: Order = "random"
    """Of the slots while the prior learns: another one each time, or by their codes. Patches have their own."""
    dim: int = 128
    num_layers: int = 4
    num_heads: int = 4

    def __post_init__(self) -> None:
        check.choice("order", self.order, Order)
        check.whole("restarts", self.restarts)
        check.number("synonyms", self.synonyms)


class CodePrior(Model):
    """A trained autoencoder whose latents are codes, and a prior over them: with it scenes can be written.

    Only the prior learns. Called with images it answers as the autoencoder does.

    Raises ValueError for a configuration that cannot be built, naming the field.
    """

    config: CodePriorConfig
    blank: Blank | None

    def __init__(self, config: CodePriorConfig):
        super().__init__()
        source = checked(config, CodePriorConfig).autoencoder
        if not source:
            raise ValueError("autoencoder must name the checkpoint of a finished model whose latents are codes")
        autoencoder = zoo.load(source) if isinstance(source, str) else checkpoint.made(source)
        if not isinstance(autoencoder, Tokeniser):
            raise ValueError(f"autoencoder must be a model whose latents are codes, got a {type(autoencoder).__name__}")
        if isinstance(source, str):
            self.before = autoencoder.trained()
        autoencoder.settle()  # its schedule has ended, and the prior has one of its own
        if config.reading:
            autoencoder = _reread(autoencoder, config.reading)
        self.config = replace(config, autoencoder=checkpoint.spec(autoencoder), reading={})
        self.autoencoder = autoencoder.requires_grad_(False)
        blocks, codes = autoencoder.quantizer.num_blocks, autoencoder.quantizer.num_codes
        size = {"dim": config.dim, "num_layers": config.num_layers, "num_heads": config.num_heads}
        self.prior = ScenePrior(autoencoder.places, blocks, codes, **size)
        blank = torch.zeros(blocks, dtype=torch.int64)
        self.register_buffer("blank", blank if config.blanks else None)
        self.train()

    def train(self, mode: bool = True) -> "CodePrior":
        """As for any module; but the autoencoder has finished, and stays as it is in use."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    def prepare(self, scenes: Scenes, draws: Draws) -> None:
        """Make one word of synonyms, and find out how an empty slot is written."""
        images = scenes["image"]
        if self.config.synonyms:
            words = merge_synonyms(self.autoencoder, images, self.config.synonyms, draws.generator)
            logger.info("words of each block, synonyms merged: %s", ", ".join(str(len(groups)) for groups in words))
        if self.config.blanks:
            logger.info("empty slots are written %s", self.find_blank(images, draws).tolist())

    def kept(self, images: Images, *, draws: Draws) -> tuple[Tensor, ...]:
        """The codes of images."""
        return (self.tokenise(images, draws),)

    def loss(self, codes: Codes, draws: Draws | None = None) -> Float[Tensor, ""]:
        """Minus the mean log likelihood of codes in nats per scene, of a set in one of its orders."""
        check.tensor("codes", codes, "integers", "batch places blocks")
        if not len(codes):
            raise ValueError("codes must be of at least one scene, got an empty batch")
        if self.autoencoder.is_set:
            is_sorted = self.config.order == "sorted"
            codes = canonical_order(codes) if is_sorted else random_order(codes, draws, self.blank)
        return -self.prior.log_likelihood(codes).mean()

    @torch.no_grad()
    def tokenise(self, images: Images, draws: Draws | None = None) -> Codes:
        """The codes of images, as the prior learns them."""
        return self.with_blanks(self.autoencoder.tokenise(images, draws, self.config.restarts))

    def decode(self, codes: Codes) -> Drawn:
        """Draw scenes from codes. Raises ValueError for codes of another shape, type or range."""
        return self.autoencoder.decode(codes)

    @torch.no_grad()
    def find_blank(self, images: Images, draws: Draws) -> Blank:
        """Choose the codes for empty slots: of all slots in these images, those of the one that draws least.

        Raises ValueError for a model without `blanks`, or whose decoder does not draw slots one by one.
        """
        if self.blank is None:
            raise ValueError("this model writes no blanks (blanks=False)")
        codes = self.autoencoder.tokenise(images, draws).flatten(0, 1)
        boldest = self._drawn(codes.unsqueeze(1)).logits.flatten(1).amax(dim=1)
        return self.blank.copy_(codes[boldest.argmin()])

    @torch.no_grad()
    def with_blanks(self, codes: Codes) -> Codes:
        """The same scenes, their slots that own no pixel all written alike (with `blanks`; else just as they are).

        What an empty slot says is never drawn, so nothing ever taught it what to say. A prior would have to learn that
        noise, and how many objects there are from slots that are empty each in another way.
        """
        if self.blank is None:
            return codes
        empty = pixels_owned(self._drawn(codes).masks) == 0
        return torch.where(empty.unsqueeze(2), self.blank, codes)

    def _drawn(self, codes: Codes) -> Any:
        """`Drawn` slot by slot. Raises ValueError for a decoder that cannot."""
        drawn = self.decode(codes)
        if drawn.masks is None:
            raise ValueError("blanks=True: this decoder draws no slot by itself, so none is known to be empty")
        return drawn

    def log_likelihood(
        self, codes: Codes, orders: int = 4, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch"]:
        """log p of these codes in nats; of slots as a set, with their blanks.

        A set is as likely as all its orders together. With order="sorted" the prior has learned that all but one never
        occur. With "random" the sum is estimated from `orders` of them, drawn with `generator`, blanks last: right on
        average as a probability, so its logarithm is a little too small.

        Raises ValueError for fewer orders than one, and as the prior does.
        """
        check.whole("orders", orders)
        if not self.autoencoder.is_set:
            return self.prior.log_likelihood(codes)
        codes = self.with_blanks(codes)
        if self.config.order == "sorted":
            return self.prior.log_likelihood(canonical_order(codes))
        draws = Draws(generator)
        texts = (random_order(codes, draws, self.blank) for _ in range(orders))
        each = torch.stack([self.prior.log_likelihood(text) for text in texts])
        return each.logsumexp(dim=0) - math.log(orders) + log_orders(codes, self.blank)

    def sample(
        self,
        count: int = 1,
        *,
        given: Int[Tensor, "count begun blocks"] | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "count places blocks"]:
        """Codes of new scenes, for `decode`; see `ScenePrior.sample`."""
        return self.prior.sample(count, given=given, temperature=temperature, top_p=top_p, generator=generator)

    def forward(self, images: Images, *how: Any, **options: Any) -> Any:
        """What the autoencoder makes of images."""
        return self.autoencoder(images, *how, **options)

    @torch.no_grad()
    def judge(self, scenes: Scenes, draws: Draws | None = None, **how: Any) -> dict[str, Tensor]:
        """The autoencoder's scores, and `nats`: minus the log likelihood of each scene's codes; NaN where a scene has
        another number of slots than the prior knows."""
        draws = Draws.given(draws)
        columns = self.autoencoder.judge(scenes, draws, **how)
        codes = columns["codes"]
        nats = torch.full((len(codes),), math.nan)
        if codes.shape[1] == self.prior.num_slots:
            nats = -self.log_likelihood(codes, generator=draws.generator)
        return {**columns, "nats": nats}

    def summarise(self, columns: Mapping[str, Tensor]) -> dict[str, float]:
        """The autoencoder's summary, and mean nats."""
        others = {name: column for name, column in columns.items() if name != "nats"}
        return {**self.autoencoder.summarise(others), "nats": columns["nats"].mean().item()}

    def look(self, scenes: Scenes) -> Look:
        return self.autoencoder.look(scenes)


def _reread(model: Any, reading: Mapping[str, int]) -> Any:
    """The same model with some fields of its slot attention changed. Raises ValueError if they do not fit."""
    try:
        config = replace(model.config, attention=replace(model.config.attention, **reading))
        changed = type(model)(config)
        changed.load_state_dict(model.state_dict())
    except (AttributeError, TypeError, RuntimeError) as error:
        raise ValueError(f"reading does not fit the autoencoder: {error}") from None
    return changed
