"""Predicting a set: image → slots → one list of properties per slot (chapter 05).

Slots have no order, and neither have objects, so nothing says which slot should describe which object. The loss first
finds the pairing that costs least (the Hungarian algorithm), then asks each slot to become its partner. Order plays no
part in the model or in the loss (Locatello et al., 2020, section 3.2; arXiv 2006.15055).

Everything here works on a cost matrix: what it would cost if prediction p were to describe object m, for all p and m.
`pairwise_huber` fills it in, and there are three ways to sum it up. `hungarian_loss` is the paper's: every prediction
has one partner. `sinkhorn_loss` is the same with soft partners. `chamfer_loss` lets everybody have the nearest, so it
cannot count: two predictions on one object cost nothing.

An object is 19 values (`slotlib.data.clevr_folder.clevr_targets`): position, one-hot size, material, shape and colour,
and 1 for "there is an object". A padding row is all zeros, and is a target like any other: *nothing here*.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

from slotlib.autoencoder import Encoder, check_images
from slotlib.metrics import PROPERTIES
from slotlib.slot_attention import Gradient, SlotAttention, SlotInit, glorot_

Kind = Literal["slot_attention", "slot_mlp", "learned_queries"]
Loss = Literal["hungarian", "chamfer", "sinkhorn"]

VALUES = PROPERTIES["presence"].stop  # per object: 19


def pairwise_huber(
    pred: Float[Tensor, "batch predictions values"], target: Float[Tensor, "batch objects values"]
) -> Float[Tensor, "batch predictions objects"]:
    """What every prediction would cost as every object: the Huber loss, averaged over the values.

    Between values in [0, 1] that is half the squared difference. Raises ValueError unless both are
    `[batch, some, values]` with the same batch and values.
    """
    if pred.ndim != 3 or target.ndim != 3 or pred.shape[::2] != target.shape[::2]:
        raise ValueError(
            "pred and target must be [batch, predictions, values] and [batch, objects, values], "
            f"got {list(pred.shape)} and {list(target.shape)}"
        )
    shape = len(pred), pred.shape[1], target.shape[1], pred.shape[2]
    pairs = pred.unsqueeze(2).expand(shape), target.unsqueeze(1).expand(shape)
    return F.huber_loss(*pairs, reduction="none").mean(dim=-1)


@torch.compiler.disable  # SciPy's solver is not for torch.compile
@torch.no_grad()
def hungarian(
    cost: Float[Tensor, "batch predictions objects"], real: Bool[Tensor, "batch objects"] | None = None
) -> tuple[Int[Tensor, "batch pairs"], Int[Tensor, "batch pairs"]]:
    """The pairing of least cost, one for each image: every prediction has at most one object and the reverse.

    Args:
        cost: may have more predictions than objects or fewer; there are as many pairs as the smaller number. It goes to
            the CPU once, where SciPy solves one image after the other.
        real: objects that must find a partner before any other does. That matters only where predictions run out:
            pairing with padding, where that is cheaper, would then leave real objects without a partner.

    Returns the pairs' predictions (ascending) and objects, on the device of `cost`.

    Raises ValueError for a cost that is not `[batch, predictions, objects]` or not finite.
    """
    if cost.ndim != 3:
        raise ValueError(f"cost must be [batch, predictions, objects], got {list(cost.shape)}")
    if real is not None and real.shape != cost.shape[::2]:
        raise ValueError(f"real must be [batch, objects] = {list(cost.shape[::2])}, got {list(real.shape)}")
    table = cost.cpu().double()
    if not table.isfinite().all():
        raise ValueError("cost must be finite, got NaN or infinite values; did the model's loss explode?")
    if real is not None and len(cost) and 0 < cost.shape[1] < cost.shape[2]:
        # One padding row costs more than all that a better pairing of the others could save.
        span = table.amax() - table.amin() + 1
        table = table + (~real.cpu()).unsqueeze(1) * span * 2 * cost.shape[1]
    pairs = [linear_sum_assignment(image) for image in table.numpy()]
    shape = len(cost), min(cost.shape[1:])
    rows, columns = (
        torch.tensor([pair[side].tolist() for pair in pairs], dtype=torch.int64, device=cost.device).view(shape)
        for side in (0, 1)
    )
    return rows, columns


def hungarian_loss(
    cost: Float[Tensor, "batch predictions objects"], real: Bool[Tensor, "batch objects"] | None = None
) -> Float[Tensor, "batch"]:
    """Sum of the costs of the best pairs. The gradient takes the pairing as given. `real`: see `hungarian`."""
    rows, columns = hungarian(cost, real)
    image = torch.arange(len(cost), device=cost.device).unsqueeze(1)
    return cost[image, rows, columns].sum(dim=1)


def chamfer_loss(cost: Float[Tensor, "batch predictions objects"]) -> Float[Tensor, "batch"]:
    """Everybody pairs with the nearest: half of what predictions pay for that plus what objects pay.

    As many predictions as objects never pay more than with `hungarian_loss`.
    """
    return (cost.amin(dim=2).sum(dim=1) + cost.amin(dim=1).sum(dim=1)) / 2


def sinkhorn_loss(
    cost: Float[Tensor, "batch predictions objects"], temperature: float = 0.005, iterations: int = 50
) -> Float[Tensor, "batch"]:
    """Soft pairs: cost under the plan that the Sinkhorn iteration finds (Cuturi, 2013, arXiv 1306.0895).

    The plan's rows and columns sum to 1; what is missing to a square is filled up with partners that cost nothing. The
    plan is exp(−cost / temperature) with its columns and rows scaled in turns, in logarithms, so that no temperature is
    too small. The gradient goes through the iterations.

    Args:
        temperature: in units of cost. Towards 0 the loss goes to `hungarian_loss`; there the iteration needs more
            rounds. At 0.005 a wrong size (a cost of 1/19) is hardly ever paired, positions a tenth of the scene apart
            are (a cost of 1/3800).
        iterations: of scaling columns and rows.

    Raises ValueError for a temperature not above 0 or fewer than 1 iteration.
    """
    if not temperature > 0 or iterations < 1:
        raise ValueError(f"temperature must be above 0 and iterations at least 1, got {temperature} and {iterations}")
    side = max(cost.shape[1:])
    square = F.pad(cost, (0, side - cost.shape[2], 0, side - cost.shape[1]))
    plan = -square / temperature
    for _ in range(iterations):
        plan = plan.log_softmax(dim=1).log_softmax(dim=2)
    return (plan.exp() * square).sum(dim=(1, 2))


@dataclass
class SetPredictorConfig:
    """Everything that defines a `SetPredictor`. Defaults are the paper's model for 128×128 CLEVR."""

    kind: Kind = "slot_attention"
    """What turns features into slots: the paper's module or one of two baselines, `SlotMLP` and `LearnedQueries`."""
    resolution: int = 128
    """Side of the square images, in pixels."""
    encoder: Literal["paper", "strided"] = "paper"
    """"paper": four 5×5 convolutions, the second and third with stride 2; 128×128 pixels become 32×32 inputs.
    "strided": three, the first two with stride 2, and Fourier positions."""
    encoder_channels: int = 64
    slot_dim: int = 64
    num_slots: int = 10
    num_iterations: int = 3
    """Of slot attention; the number of layers of learned queries."""
    num_heads: int = 1
    mlp_hidden_dim: int = 128
    slot_init: SlotInit = "gaussian"
    gradient: Gradient = "unrolled"
    gradient_steps: int = 1
    """Iterations that carry the gradient when it is "implicit"; terms of the series when it is "neumann"."""
    loss: Loss = "hungarian"
    supervised_iterations: int = 1
    """The loss scores what the slots say after each of so many iterations, the last ones; the paper: 1. Slot attention
    only. Every one of them starts from the slots before it as constants, so no gradient passes between them."""
    coordinate_scale: float = 1.0
    """How many times larger the loss sees coordinates, so that a metre counts against a wrong colour. The paper: 1."""


class SetPrediction(NamedTuple):
    properties: Float[Tensor, "batch slots 19"]
    """In [0, 1], in the order of the targets; the last is how sure the model is that there is an object."""
    slots: Float[Tensor, "batch slots dim"]
    attention: Float[Tensor, "batch slots h w"] | None
    """Of the last iteration or layer, on the encoder's grid. Slot attention shares every place out among the slots;
    a learned query shares its attention out among the places. A slot MLP has none."""


class SlotMLP(nn.Module):
    """Baseline: an MLP on the whole feature map, averaged down to 8×8, that writes all slots at once.

    Slots have an order now: slot 3 is whatever weights of its own make of the image. The paper has the same idea; the
    sizes, and the LayerNorm that keeps the sigmoids from saturating at once, are ours.
    """

    SIDE, HIDDEN = 8, 512

    def __init__(self, config: SetPredictorConfig):
        super().__init__()
        self.num_slots = config.num_slots
        self.mlp = nn.Sequential(
            nn.Linear(config.slot_dim * self.SIDE**2, self.HIDDEN),
            nn.ReLU(),
            nn.Linear(self.HIDDEN, self.HIDDEN),
            nn.ReLU(),
            nn.Linear(self.HIDDEN, config.num_slots * config.slot_dim),
        )
        self.norm = nn.LayerNorm(config.slot_dim)

    def forward(self, features: Float[Tensor, "batch h w dim"]) -> tuple[Float[Tensor, "batch slots dim"], None]:
        small = F.adaptive_avg_pool2d(features.permute(0, 3, 1, 2), self.SIDE)
        return self.norm(self.mlp(small.flatten(1)).unflatten(1, (self.num_slots, -1))), None


class LearnedQueries(nn.Module):
    """Baseline: the decoder of DETR (Carion et al., 2020, arXiv 2005.12872).

    Each slot starts as a learned query of its own. In every layer the slots look at one another, then at the image,
    then pass an MLP. The softmax is over the *inputs*: slots do not compete for places, and only looking at one another
    keeps two of them from the same object. Unlike slot attention's iterations, each layer has weights of its own. Here
    a layer's parts are normalised before and not, as in DETR, after; the former trains without a careful warm-up.
    """

    def __init__(self, config: SetPredictorConfig):
        super().__init__()
        dim, heads = config.slot_dim, config.num_heads
        self.queries = nn.Parameter(torch.randn(1, config.num_slots, dim))
        self.norm_inputs, self.norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "among": nn.MultiheadAttention(dim, heads, batch_first=True),
                    "across": nn.MultiheadAttention(dim, heads, batch_first=True),
                    "mlp": nn.Sequential(
                        nn.Linear(dim, config.mlp_hidden_dim), nn.ReLU(), nn.Linear(config.mlp_hidden_dim, dim)
                    ),
                    "norms": nn.ModuleList(nn.LayerNorm(dim) for _ in range(3)),
                }
            )
            for _ in range(config.num_iterations)
        )

    def forward(
        self, features: Float[Tensor, "batch h w dim"]
    ) -> tuple[Float[Tensor, "batch slots dim"], Float[Tensor, "batch slots inputs"]]:
        inputs = self.norm_inputs(features.flatten(1, 2))
        slots = self.queries.expand(len(inputs), -1, -1)
        for layer in self.layers:
            first, second, third = layer["norms"]
            x = first(slots)
            slots = slots + layer["among"](x, x, x, need_weights=False)[0]
            seen, attention = layer["across"](second(slots), inputs, inputs)
            slots = slots + seen
            slots = slots + layer["mlp"](third(slots))
        return self.norm(slots), attention


def _encoder(config: SetPredictorConfig) -> Encoder:
    """The encoder of object discovery; the paper's has stride 2 in its second and third convolution here."""
    encoder = Encoder(config.encoder, config.encoder_channels, config.slot_dim)
    if config.encoder == "paper":
        for i in (2, 4):
            # TensorFlow's SAME pads 1 before and 2 after; torch's symmetric padding=2 would shift every layer.
            strided = nn.Conv2d(config.encoder_channels, config.encoder_channels, 5, stride=2)
            encoder.convolutions[i] = nn.Sequential(nn.ZeroPad2d((1, 2, 1, 2)), strided)
    return encoder


class SetPredictor(nn.Module):
    """Encoder, slots, and a small MLP that reads 19 properties from every slot; from a `SetPredictorConfig`.

    Images come in [0, 1]; inside they live in [-1, 1], as in the paper.

    Raises ValueError for a configuration that cannot be built, naming the field.
    """

    def __init__(self, config: SetPredictorConfig):
        super().__init__()
        choices = {"kind": get_args(Kind), "encoder": ("paper", "strided"), "loss": get_args(Loss)}
        for field, known in choices.items():
            if getattr(config, field) not in known:
                raise ValueError(f"{field} must be one of {known}, got {getattr(config, field)!r}")
        for field in ("resolution", "encoder_channels", "slot_dim", "num_slots", "num_iterations", "mlp_hidden_dim"):
            if getattr(config, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(config, field)}")
        if not 1 <= config.supervised_iterations <= config.num_iterations:
            raise ValueError(
                f"supervised_iterations must be between 1 and num_iterations={config.num_iterations}, "
                f"got {config.supervised_iterations}"
            )
        if config.supervised_iterations > 1 and config.kind != "slot_attention":
            raise ValueError(f'supervised_iterations above 1 needs kind="slot_attention", got {config.kind!r}')
        if config.num_heads < 1 or config.slot_dim % config.num_heads:
            raise ValueError(f"num_heads must divide slot_dim={config.slot_dim}, got {config.num_heads}")
        if not config.coordinate_scale > 0:
            raise ValueError(f"coordinate_scale must be above 0, got {config.coordinate_scale}")
        if config.encoder == "paper" and config.resolution % 4:
            raise ValueError(f"the paper's encoder needs a resolution divisible by 4, got {config.resolution}")
        self.config = config
        self.encoder = _encoder(config)
        self.head = nn.Sequential(
            nn.Linear(config.slot_dim, config.slot_dim), nn.ReLU(), nn.Linear(config.slot_dim, VALUES)
        )
        parts: list[nn.Module] = [self.encoder, self.head]
        if config.kind == "slot_attention":
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
            )
        else:
            self.baseline = SlotMLP(config) if config.kind == "slot_mlp" else LearnedQueries(config)
            parts.append(self.baseline)
        for part in parts:
            for layer in part.modules():
                if isinstance(layer, nn.Linear | nn.Conv2d):
                    glorot_(layer)

    def encode(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch h w dim"]:
        """The features that slots are made of, on their grid.

        Raises ValueError unless `images` is `[batch, 3, resolution, resolution]`, floating point and finite.
        """
        check_images(images, self.config.resolution)
        return self.encoder(images * 2 - 1)

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"],
        num_slots: int | None = None,
        num_iterations: int | None = None,
        slots: Float[Tensor, "batch slots dim"] | None = None,
        generator: torch.Generator | None = None,
    ) -> SetPrediction:
        """Describe the objects in images.

        Args:
            images: `[batch, 3, resolution, resolution]` in [0, 1].
            num_slots, num_iterations: override the configuration for this call; slot attention only.
            slots: start from these instead of drawing them; slot attention only.
            generator: the source of the slots' initial noise.

        Raises:
            ValueError: images of another shape, type or with NaN; a number below 1; an override that this kind of model
                does not have.
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

    def read(self, slots: Float[Tensor, "batch slots dim"]) -> Float[Tensor, "batch slots 19"]:
        """The properties that slots stand for, in [0, 1]."""
        with torch.autocast(slots.device.type, enabled=False):  # bf16 is too coarse for positions
            return self.head(slots.to(self.head[0].weight)).sigmoid()

    def loss(
        self,
        images: Float[Tensor, "batch 3 height width"],
        target: Float[Tensor, "batch objects 19"],
        generator: torch.Generator | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> Float[Tensor, ""]:
        """What training makes small: the cost of pairing slots with objects, averaged over images.

        Where there are more slots than rows of `target`, padding rows are added: a slot too many must learn to say so.
        `generator` and `share` as for `SlotAutoencoder.loss`.
        """
        first, every = share
        if self.config.kind != "slot_attention":
            return self._set_loss(self(images).properties, target)
        slots = self.slot_attention.initial_slots(len(images) * every, generator=generator)[first::every]
        features, scored = self.encode(images).flatten(1, 2), self.config.supervised_iterations
        losses = []
        for iterations in (self.config.num_iterations - scored + 1, *[1] * (scored - 1)):
            slots = self.slot_attention(features, num_iterations=iterations, slots=slots).slots
            losses.append(self._set_loss(self.read(slots), target))
            slots = slots.detach()
        return torch.stack(losses).mean()

    def _set_loss(
        self, pred: Float[Tensor, "batch slots 19"], target: Float[Tensor, "batch objects 19"]
    ) -> Float[Tensor, ""]:
        target = F.pad(target, (0, 0, 0, max(0, pred.shape[1] - target.shape[1])))
        scale = torch.ones_like(target[0, 0])
        scale[PROPERTIES["coordinates"]] = self.config.coordinate_scale
        cost = pairwise_huber(pred * scale, target * scale)
        if self.config.loss == "chamfer":
            return chamfer_loss(cost).mean()
        if self.config.loss == "sinkhorn":
            return sinkhorn_loss(cost).mean()
        return hungarian_loss(cost, target[..., -1] > 0).mean()
