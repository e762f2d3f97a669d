"""Predicting a set: image → slots → one list of properties per slot (chapter 05).

Slots have no order, and neither have objects, so nothing says which slot should describe which object. The loss first
finds the pairing that costs least (`slotlib.matching`), then asks each slot to become its partner. Order plays no part
in the model or in the loss (Locatello et al., 2020, section 3.2; arXiv 2006.15055).

An object is 19 values (`slotlib.data.targets.clevr_targets`): position, one-hot size, material, shape and colour, and 1
for "there is an object". A padding row is all zeros, and is a target like any other: *nothing here*.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from slotlib import check, metrics
from slotlib.autoencoder import WithSlots, checked
from slotlib.data.targets import PROPERTIES, VALUES, clevr_targets
from slotlib.encoders import EncoderConfig, Features, Images, Paper, start_as_keras
from slotlib.matching import chamfer_loss, hungarian_loss, pairwise_huber, sinkhorn_loss
from slotlib.matching import hungarian as hungarian  # for those who call it from here
from slotlib.model import Draws, Look, Model, Scenes
from slotlib.slot_attention import AttentionConfig, Slots

Kind = Literal["slot_attention", "slot_mlp", "learned_queries"]
Loss = Literal["hungarian", "chamfer", "sinkhorn"]


@dataclass
class SetPredictorConfig:
    """Everything that defines a `SetPredictor`. Defaults are the paper's model for 128×128 CLEVR."""

    kind: Kind = "slot_attention"
    """What turns features into slots: the paper's module or one of two baselines, `SlotMLP` and `LearnedQueries`, which
    take of `attention` what they can use (`num_iterations` is the number of layers of learned queries)."""
    resolution: int = 128
    """Side of the square images, in pixels."""
    encoder: EncoderConfig = field(default_factory=lambda: Paper(stride=2))
    """The paper's: 128×128 pixels become 32×32 inputs."""
    attention: AttentionConfig = field(default_factory=lambda: AttentionConfig(num_slots=10))
    loss: Loss = "hungarian"
    supervised_iterations: int = 1
    """The loss scores what the slots say after each of so many iterations, the last ones; the paper: 1. Slot attention
    only. Every one of them starts from the slots before it as constants, so no gradient passes between them."""
    coordinate_scale: float = 1.0
    """How many times larger the loss sees coordinates, so that a metre counts against a wrong colour. The paper: 1."""


class SetPrediction(NamedTuple):
    properties: Float[Tensor, "batch slots 19"]
    """In [0, 1], in the order of the targets; the last is how sure the model is that there is an object."""
    slots: Slots
    attention: Float[Tensor, "batch slots h w"] | None
    """Of the last iteration or layer, on the encoder's grid. Slot attention shares every place out among the slots;
    a learned query shares its attention out among the places. A slot MLP has none."""


class SlotMLP(nn.Module):
    """Baseline: an MLP on the whole feature map, averaged down to 8×8, that writes all slots at once.

    Slots have an order now: slot 3 is whatever weights of its own make of the image. The paper has the same idea; the
    sizes, and the LayerNorm that keeps the sigmoids from saturating at once, are ours.
    """

    SIDE, HIDDEN = 8, 512

    def __init__(self, dim: int, num_slots: int):
        super().__init__()
        check.sizes(dim=dim, num_slots=num_slots)
        self.num_slots = num_slots
        self.mlp = nn.Sequential(
            nn.Linear(dim * self.SIDE**2, self.HIDDEN),
            nn.ReLU(),
            nn.Linear(self.HIDDEN, self.HIDDEN),
            nn.ReLU(),
            nn.Linear(self.HIDDEN, num_slots * dim),
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: Features) -> tuple[Slots, None]:
        small = F.adaptive_avg_pool2d(features.permute(0, 3, 1, 2), self.SIDE)
        return self.norm(self.mlp(small.flatten(1)).unflatten(1, (self.num_slots, -1))), None


class QueryLayer(nn.Module):
    """Slots look at one another, then at the inputs, then pass an MLP; each normalised before and added."""

    def __init__(self, dim: int, num_heads: int, mlp_hidden_dim: int):
        super().__init__()
        self.among = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.across = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_hidden_dim), nn.ReLU(), nn.Linear(mlp_hidden_dim, dim))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))

    def forward(
        self, slots: Slots, inputs: Float[Tensor, "batch inputs dim"]
    ) -> tuple[Slots, Float[Tensor, "batch slots inputs"]]:
        first, second, third = self.norms
        x = first(slots)
        slots = slots + self.among(x, x, x, need_weights=False)[0]
        seen, attention = self.across(second(slots), inputs, inputs)
        slots = slots + seen
        return slots + self.mlp(third(slots)), attention


class LearnedQueries(nn.Module):
    """Baseline: the decoder of DETR (Carion et al., 2020, arXiv 2005.12872).

    Each slot starts as a learned query of its own and passes layers of attention. The softmax is over the *inputs*:
    slots do not compete for places, and only looking at one another keeps two of them from the same object. Unlike slot
    attention's iterations, each layer has weights of its own. Here a layer's parts are normalised before and not, as in
    DETR, after; the former trains without a careful warm-up.
    """

    def __init__(self, dim: int, num_slots: int, num_layers: int, num_heads: int, mlp_hidden_dim: int):
        super().__init__()
        check.sizes(dim=dim, num_slots=num_slots, num_layers=num_layers)
        check.sizes(num_heads=num_heads, mlp_hidden_dim=mlp_hidden_dim)
        if dim % num_heads:
            raise ValueError(f"num_heads must divide dim, got dim={dim} and num_heads={num_heads}")
        self.queries = nn.Parameter(torch.randn(1, num_slots, dim))
        self.norm_inputs, self.norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.layers = nn.ModuleList(QueryLayer(dim, num_heads, mlp_hidden_dim) for _ in range(num_layers))

    def forward(self, features: Features) -> tuple[Slots, Float[Tensor, "batch slots inputs"]]:
        inputs = self.norm_inputs(features.flatten(1, 2))
        first, *others = self.layers
        slots, attention = first(self.queries.expand(inputs.shape[0], -1, -1), inputs)
        for layer in others:
            slots, attention = layer(slots, inputs)
        return self.norm(slots), attention


class SetPredictor(WithSlots, Model):
    """Encoder, slots, and a small MLP that reads 19 properties from every slot; from a `SetPredictorConfig`.

    Raises ValueError for a configuration that cannot be built, naming the field.
    """

    config: SetPredictorConfig

    def __init__(self, config: SetPredictorConfig):
        super().__init__()
        self.config = checked(config, SetPredictorConfig)
        slots = config.attention
        check.sizes(resolution=config.resolution, slot_dim=slots.slot_dim)
        check.sizes(supervised_iterations=config.supervised_iterations)
        if config.supervised_iterations > slots.num_iterations:
            raise ValueError(
                f"supervised_iterations must be at most num_iterations={slots.num_iterations}, "
                f"got {config.supervised_iterations}"
            )
        if config.supervised_iterations > 1 and config.kind != "slot_attention":
            raise ValueError(f'supervised_iterations above 1 needs kind="slot_attention", got {config.kind!r}')
        check.number("coordinate_scale", config.coordinate_scale, above=True)
        if isinstance(config.encoder, Paper) and config.resolution % config.encoder.stride**2:
            raise ValueError(
                f"the paper's encoder needs a resolution divisible by {config.encoder.stride**2}, "
                f"got {config.resolution}"
            )
        dim = slots.slot_dim
        self.encoder = config.encoder.build(dim)
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, VALUES))
        if config.kind == "slot_attention":
            self.slot_attention = slots.build(dim)
        elif config.kind == "slot_mlp":
            self.baseline = SlotMLP(dim, slots.num_slots)
        else:
            self.baseline = LearnedQueries(
                dim, slots.num_slots, slots.num_iterations, slots.num_heads, slots.mlp_hidden_dim
            )
        for part in (self.encoder, self.head, *([] if config.kind == "slot_attention" else [self.baseline])):
            start_as_keras(part)
        self.at(1.0)

    def forward(
        self,
        images: Images,
        num_slots: int | None = None,
        num_iterations: int | None = None,
        slots: Slots | None = None,
        generator: torch.Generator | None = None,
    ) -> SetPrediction:
        """Describe the objects in images.

        Args:
            images: `[batch, 3, resolution, resolution]` in [0, 1].
            num_slots, num_iterations: override the configuration for this call; slot attention only.
            slots: start from these instead of drawing them; slot attention only.
            generator: the source of the slots' initial noise.

        Raises:
            ValueError: images of another shape, type or range, or with NaN; a number below 1; an override that this
                kind of model does not have.
        """
        features = self.encode(images)
        if self.config.kind == "slot_attention":
            found, attention, _ = self.slot_attention(
                features.flatten(1, 2), num_slots, num_iterations, slots, generator
            )
        elif (num_slots, num_iterations, slots) != (None, None, None):
            raise ValueError(f"the slots and iterations of kind={self.config.kind!r} are fixed; leave them out")
        else:
            found, attention = self.baseline(features)
        grid = features.shape[1:3]
        return SetPrediction(self.read(found), found, None if attention is None else attention.unflatten(-1, grid))

    def read(self, slots: Slots) -> Float[Tensor, "batch slots 19"]:
        """The properties that slots stand for, in [0, 1]."""
        check.tensor("slots", slots, "floating point", f"batch slots dim={self.config.attention.slot_dim}")
        with torch.autocast(slots.device.type, enabled=False):  # bf16 is too coarse for positions
            return self.head(slots.to(next(self.head.parameters()))).sigmoid()

    def inputs(self, scenes: Scenes) -> tuple[Tensor, ...]:
        """Images, and the sets to predict. Raises ValueError unless these are scenes of CLEVR's kind."""
        check.scenes(scenes)
        return scenes["image"], clevr_targets(scenes.get("objects", {}))

    def loss(
        self, images: Images, target: Float[Tensor, "batch objects 19"], draws: Draws | None = None
    ) -> Float[Tensor, ""]:
        """What training makes small: the cost of pairing slots with objects, averaged over images.

        Where there are more slots than rows of `target`, padding rows are added: a slot too many must learn to say so.
        """
        check.tensor("target", target, "floating point", f"batch objects {VALUES}")
        if self.config.kind != "slot_attention":
            return self._set_loss(self(images).properties, target)
        features = self.encode(images).flatten(1, 2)
        slots = self.starts(features.shape[0], Draws.given(draws))
        scored, losses = self.config.supervised_iterations, []
        for iterations in (self.config.attention.num_iterations - scored + 1, *[1] * (scored - 1)):
            slots = self.slot_attention(features, num_iterations=iterations, slots=slots).slots
            losses.append(self._set_loss(self.read(slots), target))
            slots = slots.detach()
        return torch.stack(losses).mean()

    def _set_loss(
        self, pred: Float[Tensor, "batch slots 19"], target: Float[Tensor, "batch objects 19"]
    ) -> Float[Tensor, ""]:
        target = F.pad(target, (0, 0, 0, max(0, pred.shape[1] - target.shape[1])))
        scale = target.new_ones(VALUES)
        scale[PROPERTIES["coordinates"]] = self.config.coordinate_scale
        cost = pairwise_huber(pred * scale, target * scale)
        if self.config.loss == "chamfer":
            return chamfer_loss(cost).mean()
        if self.config.loss == "sinkhorn":
            return sinkhorn_loss(cost).mean()
        return hungarian_loss(cost, target[..., -1] > 0).mean()

    @torch.no_grad()
    def judge(self, scenes: Scenes, draws: Draws | None = None, **how: Any) -> dict[str, Tensor]:
        """The sets that are predicted and those to predict, which `summarise` scores all together.

        `how`: `num_slots`, `num_iterations`.
        """
        images, target = self.inputs(scenes)
        predicted = self(images, generator=Draws.given(draws).generator, **how).properties
        return {"predicted": predicted, "target": target}

    def summarise(self, columns: Mapping[str, Tensor]) -> dict[str, float]:
        """Average precision within any distance, 1, 0.5, 0.25 and 0.125 m."""
        return {
            f"ap_{within:g}".replace(".", "_"): metrics.average_precision(
                columns["predicted"], columns["target"], within
            )
            for within in metrics.THRESHOLDS
        }

    @torch.no_grad()
    def look(self, scenes: Scenes) -> Look:
        """Pictures of the first eight scenes, with the attention where there is some."""
        from slotlib import plots  # slow to import

        check.scenes(scenes)
        attention = self(scenes["image"], generator=torch.Generator().manual_seed(0)).attention
        return Look(plots.rows(scenes, attention=attention), {}, {})
