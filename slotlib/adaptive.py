"""How many slots? (chapter 09) Slots that are kept or dropped, image by image.

The number of objects is unknown, so a model gets more slots than any scene needs, and a decision per slot: keep it, or
drop it (Fan et al., 2024, arXiv 2406.09196). A dropped slot paints nothing; the others share its pixels. Each slot that
is kept costs a price, so what is not worth its price goes.

The decision is a coin with a learned logit. It is tossed by the Gumbel trick, keep if logit + noise > 0, and is hard: a
weight between 0 and 1 would let all slots stay, each a little. The gradient goes straight through to
sigmoid((logit + noise) / temperature) (Jang et al., 2017, arXiv 1611.01144). The temperature divides logit *and* noise,
so it changes the gradient and not the coin; a public port divides the logit alone, and .73 becomes 1.00 at 0.1.

Scenes of nothing do not exist, so one slot at least is kept: where all coins say drop, one is kept after all, drawn as
if it were known that exactly one is. That is a softmax of the logits, and it leaves P(keep) a closed form (`chances`).

`AdaptiveSlots` puts the decision behind any slot attention; `AdaptiveAutoencoder` and `AdaptiveSetPredictor` are whole
models. At the end stand other ways to choose a number of slots, for any slot autoencoder, behind one interface.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from slotlib import check
from slotlib.autoencoder import AutoencoderConfig, SlotAutoencoder
from slotlib.counting import pixels_owned
from slotlib.data.targets import VALUES
from slotlib.decoders import Drawing, Keep, Masks, ends, kept_only
from slotlib.encoders import Features, Images
from slotlib.likelihoods import compose
from slotlib.model import Draws, Ramp, Scenes
from slotlib.outlined import OutlinedAutoencoder, OutlinedConfig
from slotlib.set_prediction import SetPredictor, SetPredictorConfig
from slotlib.slot_attention import Attention, Slots, glorot_
from slotlib.vq import nearest

# --- the decision ---


class Decision(NamedTuple):
    """Which slots are kept."""

    keep: Keep
    """1 or 0, at least one 1 per image. Its gradient goes straight through to the logits."""
    keep_probability: Keep
    """The chance that training keeps a slot, exactly; see `chances`."""
    logits: Keep
    """Log odds of each slot's own coin."""


def chances(logits: Keep) -> Keep:
    """P(keep) of every slot, at any temperature: sigmoid(l_k) + Π_j sigmoid(-l_j) · softmax(l)_k.

    Its own coin says keep, or all say drop and it is the one that stays. The sum is the mean number kept.
    """
    none = F.logsigmoid(-logits).sum(dim=1, keepdim=True).exp()
    return logits.sigmoid() + none * logits.softmax(dim=1)


def decide(logits: Keep, temperature: float = 1.0, draws: Draws | None = None) -> Decision:
    """Keep or drop slots.

    Args:
        logits: `[batch, slots]`, the log odds of keeping.
        temperature: above 0; of the gradient, which at 1 is steady and too small (at logit 0 by a third), and at 0.1
            right to a few percent on average, and more than three times as noisy.
        draws: the source of noise; without, slots are kept whose logit is above 0, or else the one with the largest.

    Raises ValueError for a temperature not above 0, or logits of another shape, or not finite.
    """
    check.tensor("logits", logits, "floating point", "batch slots")
    check.number("temperature", temperature, above=True)
    if not check.holds(logits.isfinite().all(), otherwise=True):
        raise ValueError("logits must be finite, got NaN or infinite values")
    noisy = rivals = logits
    if draws is not None:
        for_keep, for_drop, for_rival = (-draws.exponential(*logits.shape, 3, like=logits).log()).unbind(-1)
        noisy, rivals = logits + for_keep - for_drop, logits + for_rival
    keep = _straight_through((noisy > 0).to(logits), (noisy / temperature).sigmoid())
    hard = F.one_hot(rivals.argmax(dim=1), logits.shape[1]).to(logits)
    one = _straight_through(hard, (rivals / temperature).softmax(dim=1))
    return Decision(keep + (1 - keep).prod(dim=1, keepdim=True) * one, chances(logits), logits)


def _straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """The numbers of one, the gradient of the other."""
    return hard + (soft - soft.detach())


class KeepOrDrop(nn.Module):
    """An MLP that reads a logit from every slot, and the decision: with noise in training, without in evaluation.

    Slots are normalised first, as wherever slot attention reads them. It starts in favour of keeping, at a logit of 2,
    P = .88.

    Raises ValueError for a width below 1, or a temperature not above 0.
    """

    config: "KeepConfig | None" = None

    def __init__(self, slot_dim: int, temperature: float = 1.0, hidden_dim: int = 64):
        super().__init__()
        check.whole("slot_dim", slot_dim)
        check.whole("hidden_dim", hidden_dim)
        check.number("temperature", temperature, above=True)
        self.slot_dim, self.temperature = slot_dim, temperature
        self.norm = nn.LayerNorm(slot_dim)
        first, second = nn.Linear(slot_dim, hidden_dim), nn.Linear(hidden_dim, 1)
        glorot_(first)
        nn.init.zeros_(second.weight)
        nn.init.constant_(second.bias, 2.0)
        self.logit = nn.Sequential(first, nn.ReLU(), second)

    def forward(self, slots: Slots, draws: Draws | None = None) -> Decision:
        """Decide on slots. Raises ValueError for slots of another width, or whose logits are not finite."""
        check.tensor("slots", slots, "floating point", f"batch slots slot_dim={self.slot_dim}")
        with torch.autocast(slots.device.type, enabled=False):  # bf16 is too coarse for a chance near 0 or 1
            logits = self.logit(self.norm(slots.to(self.norm.weight))).squeeze(-1)
        return decide(logits, self.temperature, Draws.given(draws) if self.training else None)


@dataclass
class KeepConfig:
    """What defines a `KeepOrDrop`, but for the width of slots."""

    temperature: float | Ramp = 1.0
    """Of the gradient of a decision; see `decide`."""
    hidden_dim: int = 64
    """Hidden width of the MLP that reads a logit from a slot."""

    def __post_init__(self) -> None:
        for end in ends(self.temperature):
            check.number("temperature", end, above=True)

    def build(self, slot_dim: int) -> KeepOrDrop:
        """The module. Raises ValueError for a width below 1."""
        module = KeepOrDrop(slot_dim, ends(self.temperature)[1], self.hidden_dim)
        module.config = self
        return module


# --- around any slot attention ---


class AdaptiveSlotsOutput(NamedTuple):
    slots: Slots
    """As the module returned them, those that are dropped too: whoever uses them multiplies by `keep`."""
    keep: Keep
    keep_probability: Keep
    logits: Keep
    attention: Attention | None
    """Where the module returns one."""


class AdaptiveSlots(nn.Module):
    """Any slot attention, and for each of its slots the decision to keep it.

    Args:
        module: returns slots `[batch, slots, slot_dim]`: alone, as the first of a tuple, or as an attribute `slots`.
            slotlib's `SlotAttention` does, and so do those of the package `slot-attention`.
        slot_dim: width of its slots.
        temperature, hidden_dim: as `KeepConfig`.

    Raises ValueError for what is no module, a width below 1 or a temperature not above 0.
    """

    def __init__(self, module: nn.Module, slot_dim: int, temperature: float = 1.0, hidden_dim: int = 64):
        super().__init__()
        if not isinstance(module, nn.Module):
            raise ValueError(f"module must be an nn.Module that returns slots, got {check.described(module)}")
        self.module, self.keep_or_drop = module, KeepOrDrop(slot_dim, temperature, hidden_dim)
        self.slot_dim = slot_dim
        self.seeded = "generator" in inspect.signature(module.forward).parameters

    def forward(self, inputs: Tensor, generator: torch.Generator | None = None, **options: Any) -> AdaptiveSlotsOutput:
        """Bind `inputs` to slots and decide on them.

        Args:
            inputs: as the module takes them.
            generator: the source of the decisions' noise, and of the module's own where it takes a `generator`.
            options: passed on to the module, such as `num_slots`, `mask`.

        Raises ValueError where the module returns no slots, or slots of another width, or logits are not finite.
        """
        check.generator(generator)
        returned = self.module(inputs, **({"generator": generator} if self.seeded else {}), **options)
        slots = returned[0] if type(returned) in (tuple, list) and returned else getattr(returned, "slots", returned)
        if not isinstance(slots, Tensor) or slots.ndim != 3 or slots.shape[1] < 1:
            raise ValueError(
                f"module must return slots [batch, slots >= 1, slot_dim={self.slot_dim}], got {check.described(slots)}"
            )
        if slots.shape[2] != self.slot_dim:
            raise ValueError(f"slot_dim must be the width of the module's slots, {slots.shape[2]}, got {self.slot_dim}")
        decision = self.keep_or_drop(slots, Draws(generator))
        attention = getattr(returned, "attention", None)
        return AdaptiveSlotsOutput(slots, decision.keep, decision.keep_probability, decision.logits, attention)


# --- models ---

BOUND = 2.0
"""Prices that a slot's gradient sees it save at most. It is worth its price or not, and twice the price is enough to
say so. The background saves hundreds of prices: unbounded, its gradient drowns the price, and nothing is dropped."""


def orthogonality(slots: Slots) -> Float[Tensor, "batch"]:
    """How alike the slots of an image are: the mean squared cosine of two, after their mean was taken off.

    In [0, 1]; at least 1/(K - 1)² of K slots, because what is centred sums to 0. 0 for a single slot.
    """
    check.tensor("slots", slots, "floating point", "batch slots dim")
    count = slots.shape[1]
    unit = F.normalize(slots - slots.mean(dim=1, keepdim=True), dim=2)
    pairs = (unit @ unit.mT).square() * (1 - torch.eye(count).to(slots))
    return pairs.sum(dim=(1, 2)) / max(1, count * (count - 1))


@dataclass
class AdaptiveConfig(AutoencoderConfig):
    """Everything that defines an `AdaptiveAutoencoder`."""

    keep: KeepConfig = field(default_factory=KeepConfig)
    price: float | Ramp = 0.002
    """Of each slot that is kept, as squared error. A slot stays if the image would cost more without it."""
    target: float = 0.0
    """Above 0, the price is for every slot more or less than this number, in each image."""
    orthogonality: float | Ramp = 0.0
    """Weight of `orthogonality`."""
    frozen: bool = False
    """Learn which slots to keep, and leave all else as it is: for a start from a trained model (`train.start_from`). A
    step then takes less than half the time."""

    def __post_init__(self) -> None:
        for name in ("price", "target", "orthogonality"):
            for end in ends(getattr(self, name)):
                check.number(name, end)


class AdaptiveOutput(NamedTuple):
    """An `AutoencoderOutput`, and which slots were kept. A dropped slot has masks of 0."""

    reconstruction: Images
    slot_images: Float[Tensor, "batch slots 3 height width"]
    masks: Masks
    slots: Slots
    attention: Float[Tensor, "batch slots h w"]
    drawn_masks: Masks
    keep: Keep
    keep_probability: Keep


class AdaptiveAutoencoder(SlotAutoencoder):
    """A slot autoencoder that keeps, of all its slots, those that an image needs; from an `AdaptiveConfig`.

    Raises ValueError for a configuration that cannot be built, naming the field.
    """

    config: AdaptiveConfig
    price: float
    orthogonality: float

    def __init__(self, config: AdaptiveConfig):
        super().__init__(config)
        self.keep_or_drop = config.keep.build(config.attention.slot_dim)
        self.at(1.0)

    def loss(self, images: Images, draws: Draws | None = None) -> Float[Tensor, ""]:
        """What the kept slots cost as a drawing, and the price of keeping them, averaged over images."""
        draws, learned = Draws.given(draws), torch.is_grad_enabled() and not self.config.frozen
        with torch.set_grad_enabled(learned):
            slots = self.bind(self.encode(images), draws).slots
        keep, probability, _ = self.keep_or_drop(slots, draws)
        with torch.set_grad_enabled(learned):
            drawings, target = self.drawings(slots, images, draws, keep.detach())
            judged = drawings[:1] if self.config.frozen else drawings  # what to keep is decided by drafts
            costs = torch.stack([self.likelihood.cost(kept_only(each, keep), target) for each in judged])
        cost, draft = costs.mean(dim=0), drawings[0]
        saved = self._saved(draft, target, keep.detach(), costs[0].detach(), draws)
        saved = saved.clamp(-BOUND * self.price, BOUND * self.price) * keep.shape[1]
        cost = cost - ((keep - keep.detach()) * saved).sum(dim=1)  # adds 0, and the gradient for `keep`
        cost = cost + self.price * (probability.sum(dim=1) - self.config.target).abs()
        return (cost + self.orthogonality * orthogonality(slots)).mean()

    @torch.no_grad()
    def _saved(
        self,
        drawing: Drawing,
        target: Float[Tensor, "batch 3 *area"],
        keep: Keep,
        cost: Float[Tensor, "batch"],
        draws: Draws,
    ) -> Keep:
        """What one slot of each image saves, drawn at random: the cost without it less the cost with it. 0 for others.

        The derivative of the renormalised masks is no substitute. In a mixture it is, at a dropped slot, how many times
        more likely the slot makes a pixel, up to exp(distance² / 2 noise²); the difference is the logarithm of that.
        """
        tried = F.one_hot(draws.integers(keep.shape[1], len(keep), like=keep), keep.shape[1]).to(keep)
        other = (keep - tried).abs()
        other = torch.where(other.any(dim=1, keepdim=True), other, keep)  # the only slot cannot be tried
        change = self.likelihood.cost(kept_only(drawing, other), target) - cost
        return tried * (2 * keep - 1) * change.unsqueeze(1)

    def forward(
        self,
        images: Images,
        num_slots: int | None = None,
        num_iterations: int | None = None,
        restarts: int = 1,
        generator: torch.Generator | None = None,
    ) -> AdaptiveOutput:
        """Take images apart, drop slots, and put the images together again from the others.

        Arguments and errors as `SlotAutoencoder.forward`; of several restarts the one of least loss, price included.
        """
        check.whole("restarts", restarts)
        draws, features = Draws(generator), self.encode(images)
        candidates = []
        for _ in range(restarts):
            found = self.bind(features, draws, num_slots, num_iterations)
            keep, probability, _ = self.keep_or_drop(found.slots, draws)
            candidates.append(Chosen(found.slots, found.attention, keep, probability))
        best = least_cost(self, images, candidates, self.price, self.config.target)
        return painted(self, images, best, features.shape[1:3])

    def scores(self, scenes: Scenes, output: Any) -> dict[str, Tensor]:
        """As of any autoencoder; and `kept`, the number of slots kept, with how far that, less one for the background,
        is from the number of objects: `count_error`, and `count_exact`, 1 where it is right."""
        return {**super().scores(scenes, output), **count_columns(scenes, output.keep)}


@dataclass
class AdaptiveOutlinedConfig(OutlinedConfig, AdaptiveConfig):
    """Everything that defines an `AdaptiveOutlinedAutoencoder`. Its decoder and likelihood are those of outlines, so
    `OutlinedConfig` comes first."""


class AdaptiveOutlinedAutoencoder(AdaptiveAutoencoder, OutlinedAutoencoder):
    """Slots with outlines, of which some are kept: by what their drafts are worth. Outlines are read among the kept.

    Raises ValueError for a configuration that cannot be built, naming the field.
    """

    config: AdaptiveOutlinedConfig


def count_columns(scenes: Scenes, keep: Keep, background: int = 1) -> dict[str, Tensor]:
    """Of every scene the number kept, and its error; NaN where a scene does not tell its objects."""
    kept = keep.sum(dim=1)
    present = scenes.get("objects", {}).get("present")
    true = torch.full_like(kept, torch.nan) if present is None else present.to(kept.device).sum(dim=1)
    error = (kept - background - true).abs()
    return {"kept": kept, "count_error": error, "count_exact": (error == 0).to(kept).where(~error.isnan(), torch.nan)}


@dataclass
class AdaptiveSetConfig(SetPredictorConfig):
    """Everything that defines an `AdaptiveSetPredictor`."""

    keep: KeepConfig = field(default_factory=KeepConfig)
    price: float | Ramp = 0.01
    """Of each slot that is kept, in units of the loss of a set, which is summed over objects. Of `clevr6_sets` .03
    drops slots that objects need."""
    target: float = 0.0
    """As `AdaptiveConfig.target`."""

    def __post_init__(self) -> None:
        for name in ("price", "target"):
            for end in ends(getattr(self, name)):
                check.number(name, end)
        if self.kind != "slot_attention" or self.supervised_iterations != 1:
            raise ValueError(
                'keep needs kind="slot_attention" and supervised_iterations=1, '
                f"got {self.kind!r} and {self.supervised_iterations}"
            )


class AdaptiveSet(NamedTuple):
    """A `SetPrediction`, and which slots were kept. A dropped slot says for certain that there is no object."""

    properties: Float[Tensor, "batch slots 19"]
    slots: Slots
    attention: Float[Tensor, "batch slots h w"] | None
    keep: Keep
    keep_probability: Keep


class AdaptiveSetPredictor(SetPredictor):
    """A set predictor that drops the slots that no object needs; from an `AdaptiveSetConfig`.

    Raises ValueError for a configuration that cannot be built, naming the field.
    """

    config: AdaptiveSetConfig
    price: float

    def __init__(self, config: AdaptiveSetConfig):
        super().__init__(config)
        self.keep_or_drop = config.keep.build(config.attention.slot_dim)
        self.at(1.0)

    def forward(
        self,
        images: Images,
        num_slots: int | None = None,
        num_iterations: int | None = None,
        slots: Slots | None = None,
        generator: torch.Generator | None = None,
    ) -> AdaptiveSet:
        """Arguments and errors as `SetPredictor.forward`."""
        found = super().forward(images, num_slots, num_iterations, slots, generator)
        keep, probability, _ = self.keep_or_drop(found.slots, Draws(generator))
        return AdaptiveSet(_present(found.properties, keep), found.slots, found.attention, keep, probability)

    def loss(
        self, images: Images, target: Float[Tensor, "batch objects 19"], draws: Draws | None = None
    ) -> Float[Tensor, ""]:
        """The cost of pairing what kept slots say with objects, and the slots' price, averaged over images."""
        check.tensor("target", target, "floating point", f"batch objects {VALUES}")
        draws = Draws.given(draws)
        slots = self.bind(self.encode(images), draws).slots
        keep, probability, _ = self.keep_or_drop(slots, draws)
        surplus = (probability.sum(dim=1) - self.config.target).abs()
        return self._set_loss(_present(self.read(slots), keep), target) + self.price * surplus.mean()

    @torch.no_grad()
    def judge(self, scenes: Scenes, draws: Draws | None = None, **how: Any) -> dict[str, Tensor]:
        """As `SetPredictor.judge`; and the number kept, with its error (`count_columns`): there is no background."""
        images, target = self.inputs(scenes)
        output = self(images, generator=Draws.given(draws).generator, **how)
        return {"predicted": output.properties, "target": target, **count_columns(scenes, output.keep, background=0)}

    def summarise(self, columns: Mapping[str, Tensor]) -> dict[str, float]:
        """Average precision, and the means of the counts."""
        counts = {name: columns[name].float().mean().item() for name in ("kept", "count_error", "count_exact")}
        return {**super().summarise(columns), **counts}


def _present(properties: Float[Tensor, "batch slots 19"], keep: Keep) -> Float[Tensor, "batch slots 19"]:
    """How sure a slot is that there is an object, the last value, times whether it is kept."""
    return torch.cat([properties[..., :-1], properties[..., -1:] * keep.unsqueeze(-1)], dim=-1)


# --- other ways to choose, for any slot autoencoder ---


class Chosen(NamedTuple):
    """Slots, and which of them are to be drawn."""

    slots: Slots
    attention: Attention
    keep: Keep
    keep_probability: Keep
    """Of what is certain, `keep`."""


def painted(model: SlotAutoencoder, images: Images, chosen: Chosen, grid: torch.Size) -> AdaptiveOutput:
    """What the slots draw that were kept. `grid` is that of the features."""
    slots, drawing = _drawing(model, images, chosen)
    whole = model.output(drawing, images, slots, chosen.attention.unflatten(-1, grid))
    return AdaptiveOutput(**whole._asdict(), keep=chosen.keep, keep_probability=chosen.keep_probability)


def _drawing(
    model: SlotAutoencoder, images: Images, chosen: Chosen
) -> tuple[Float[Tensor, "batch slots more"], Drawing]:
    """The slots that the decoder gets, and what those of them draw that were kept."""
    slots = model.second_look(chosen.slots, images, chosen.keep)
    return slots, kept_only(model.decoder(slots), chosen.keep)


def least_cost(
    model: SlotAutoencoder, images: Images, candidates: Sequence[Chosen], price: float, target: float = 0.0
) -> Chosen:
    """Of each image's candidates, that of the least likelihood's cost plus `price` for every slot kept, or kept more or
    less than `target`. Raises ValueError for no candidates."""
    if not candidates:
        raise ValueError("candidates must be some, got none")
    if len(candidates) == 1:
        return candidates[0]
    costs = [
        model.likelihood.cost(_drawing(model, images, each)[1], model.units(images))
        + price * (each.keep.sum(dim=1) - target).abs()
        for each in candidates
    ]
    return _picked(candidates, torch.stack(costs).argmin(dim=0))


def _picked(candidates: Sequence[Chosen], which: Int[Tensor, "batch"]) -> Chosen:
    """Of each image the candidate with its number, filled up to the most slots with dropped ones."""
    most, image = max(each.keep.shape[1] for each in candidates), torch.arange(len(which), device=which.device)
    columns = (
        [F.pad(each, [0] * (2 * each.ndim - 3) + [most - each.shape[1]]) for each in column]
        for column in zip(*candidates, strict=True)
    )
    return Chosen(*(torch.stack(column)[which, image] for column in columns))


class Choice:
    """A way to choose which slots draw an image; `choose` asks one."""

    def __call__(self, model: SlotAutoencoder, features: Features, images: Images, draws: Draws) -> Chosen:
        raise NotImplementedError(f"{type(self).__name__} does not say how it chooses")


@torch.no_grad()
def choose(
    model: SlotAutoencoder, images: Images, choice: Choice, generator: torch.Generator | None = None
) -> AdaptiveOutput:
    """Take images apart, let `choice` choose slots, and put the images together again from these.

    What comes is what an `AdaptiveAutoencoder` returns, so `model.scores` and `count_columns` compare both.

    Args:
        model: any slot autoencoder, trained for a fixed number of slots or not.
        images: `[batch, 3, resolution, resolution]` in [0, 1].
        generator: the source of the slots' initial noise.

    Raises ValueError for images that the model refuses, or an option of the choice out of range.
    """
    features = model.encode(images)
    return painted(model, images, choice(model, features, images, Draws(generator)), features.shape[1:3])


def all_slots(model: SlotAutoencoder, features: Features, draws: Draws, num_slots: int | None = None) -> Chosen:
    """So many slots, all of them kept."""
    found = model.bind(features, draws, num_slots)
    keep = found.slots.new_ones(found.slots.shape[:2])
    return Chosen(found.slots, found.attention, keep, keep)


@dataclass
class Given(Choice):
    """As many slots as somebody says, who knows: what a fixed number could reach at best."""

    counts: Int[Tensor, "batch"]
    """Of each image, the background's slot included."""

    def __call__(self, model: SlotAutoencoder, features: Features, images: Images, draws: Draws) -> Chosen:
        check.tensor("counts", self.counts, "integers", f"batch={len(images)}")
        numbers, which = self.counts.unique(return_inverse=True)
        return _picked([all_slots(model, features, draws, int(number)) for number in numbers], which)


@dataclass
class ByArea(Choice):
    """Slots that own enough pixels of their drawing; to be used with a price on slots in use, √share
    (`likelihoods.Mixture.sparsity`), or slots share objects."""

    least: int = 20
    """Pixels."""
    num_slots: int | None = None

    def __call__(self, model: SlotAutoencoder, features: Features, images: Images, draws: Draws) -> Chosen:
        check.whole("least", self.least)
        every = all_slots(model, features, draws, self.num_slots)
        area = pixels_owned(compose(_drawing(model, images, every)[1])[1])
        keep = (area >= area.amax(dim=1, keepdim=True).clamp(max=self.least)).to(every.keep)
        return every._replace(keep=keep, keep_probability=keep)


@dataclass
class ByDistance(Choice):
    """Slots that lie close become one, see `merged`: agglomerative clustering, by average distance (as Aydemir et al.,
    2023, arXiv 2310.06907, merge slots)."""

    distance: float
    """Groups join that lie closer: 1 - cosine of slots, in [0, 2]."""
    num_slots: int | None = None

    def __call__(self, model: SlotAutoencoder, features: Features, images: Images, draws: Draws) -> Chosen:
        from scipy.cluster.hierarchy import fcluster, linkage  # slow to import

        check.number("distance", self.distance)
        every = all_slots(model, features, draws, self.num_slots)
        if every.keep.shape[1] == 1:  # nothing to join
            return every
        slots = every.slots.double().cpu().numpy()
        groups = [fcluster(linkage(each, "average", "cosine"), self.distance, "distance") for each in slots]
        return merged(every, torch.from_numpy(np.stack(groups)).to(every.slots.device))


@dataclass
class ByCode(Choice):
    """Slots that fall on the same code of a codebook become one, see `merged`: meta slots (Liu et al., 2025, arXiv
    2505.20772), without their second round of attention."""

    codebook: Float[Tensor, "codes dim"]
    """Such as k-means centres of many images' slots (`vq.kmeans`)."""
    num_slots: int | None = None

    def __call__(self, model: SlotAutoencoder, features: Features, images: Images, draws: Draws) -> Chosen:
        every = all_slots(model, features, draws, self.num_slots)
        codes = nearest(every.slots.flatten(0, 1).unsqueeze(0), self.codebook.unsqueeze(0))
        return merged(every, codes.view(every.keep.shape))


@dataclass
class ByCost(Choice):
    """Try several numbers of slots, and keep of each image the one of least cost plus a price for every slot."""

    counts: Sequence[int]
    """Numbers to try; the same one several times is a restart."""
    price: float = 0.002
    """As `AdaptiveConfig.price`."""

    def __call__(self, model: SlotAutoencoder, features: Features, images: Images, draws: Draws) -> Chosen:
        check.number("price", self.price)
        candidates = [all_slots(model, features, draws, count) for count in self.counts]
        return least_cost(model, images, candidates, self.price)


def merged(every: Chosen, groups: Int[Tensor, "batch slots"]) -> Chosen:
    """The slots of a group are one in place of the first, their mean, weighted by their attention: idle slots move no
    other. The group's attention is the sum. The others are dropped."""
    same = (groups.unsqueeze(1) == groups.unsqueeze(2)).to(every.slots)
    weights = same * every.attention.sum(dim=2).clamp(min=1e-12).unsqueeze(1)
    keep = 1 - same.tril(diagonal=-1).amax(dim=2)
    return Chosen(weights / weights.sum(dim=2, keepdim=True) @ every.slots, same @ every.attention, keep, keep)
