"""Slot Attention (chapter 02): Locatello et al., 2020, arXiv 2006.15055, Algorithm 1.

A handful of vectors, the slots, compete for a set of inputs. `algorithm_1` says how in the paper's own lines, as in the
authors' TensorFlow code: no biases in q, k, v; ε added to every weight before normalising; the GRU receives the slots
as they were, not normalised; LayerNorm with ε = 1e-3 (the Keras default). Of several heads, each has its own softmax
over the slots.

`SlotAttention` computes the same, and two things about it are ours. The *arithmetic*: slots are few and inputs are
many, so keys and values are never formed; q·(W_k x) = (W_kᵀq)·x and Σ a (W_v x) = W_v (Σ a x) give the same numbers for
less work. And the *gradient*: slots that have settled are a fixed point, whose derivative needs the last iteration
only, so memory need not grow with the number of iterations (Chang et al., 2022, arXiv 2207.00787; chapter 06 and
`implicit.py`). The forward values stay the same.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from slotlib import check, implicit
from slotlib.implicit import Gradient
from slotlib.model import Ramp

SlotInit = Literal["gaussian", "learned", "one_learned"]
Inputs = Float[Tensor, "batch inputs input_dim"]
Projected = Float[Tensor, "batch inputs dim"]
Slots = Float[Tensor, "batch slots dim"]
Attention = Float[Tensor, "batch slots inputs"]
Mask = Bool[Tensor, "batch inputs"]

LAYER_NORM_EPS = 1e-3  # Keras' default, which the official checkpoints were trained with; torch's is 1e-5


# --- Algorithm 1 ---


def algorithm_1(
    layers: "SlotAttention",
    inputs: Inputs,
    slots: Slots,
    num_iterations: int,
) -> tuple[Slots, Attention]:
    """Slot attention in the paper's own lines."""
    inputs = layers.norm_inputs(inputs)
    k, v = layers.project_k(inputs), layers.project_v(inputs)
    for _ in range(num_iterations):
        slots, attn = iteration(layers, slots, k, v)
    return slots, attn


def iteration(
    layers: "SlotAttention",
    slots: Slots,
    k: Projected,
    v: Projected,
    mask: Mask | None = None,
) -> tuple[Slots, Attention]:
    """What it repeats: the slots compete, gather and move."""
    slots_prev, heads = slots, layers.num_heads
    q = layers.project_q(layers.norm_slots(slots))
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    attn = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(dim=-2)  # over slots
    weights = attn + layers.eps
    if mask is not None:  # padded inputs take no part
        attn, weights = (x * mask[:, None, None] for x in (attn, weights))
    updates = weights / weights.sum(dim=-1, keepdim=True) @ v  # weighted mean
    updates = updates.transpose(1, 2).flatten(2)  # heads side by side
    slots = layers.gru(updates.flatten(0, 1), slots_prev.flatten(0, 1))
    slots = slots.view_as(slots_prev)
    slots = slots + layers.mlp(layers.norm_mlp(slots))
    return slots, attn.mean(dim=1)


# --- the same, faster ---


class SlotHistory(NamedTuple):
    """Every iteration of one call: entry 0 of `slots` is the initialisation."""

    slots: Float[Tensor, "iterations_plus_1 batch slots dim"]
    attention: Float[Tensor, "iterations batch slots inputs"]
    needed: Int[Tensor, "batch"]
    """Iterations that each image took: all that were allowed, unless a `tolerance` let it stop. Later entries above are
    what the others' iterations would have made of it."""


class SlotAttentionOutput(NamedTuple):
    slots: Slots
    attention: Attention
    """Softmax over the slots, before the weighted mean: `attention.sum(1) == 1`, or 0 where an input is padding.
    Averaged over heads. Without competition over the inputs: `attention.sum(2) == 1`."""
    history: SlotHistory | None


class PreparedInputs(NamedTuple):
    """What every iteration needs, computed once by `SlotAttention.prepare`."""

    inputs: Inputs
    """After LayerNorm."""
    key: Float[Tensor, "heads_dim slot_dim"]
    """W_kᵀ W_q √(heads / slot_dim) of every head: carries a slot to the inputs' side in one product."""
    value: Float[Tensor, "gates heads_dim"]
    """W_ih W_v of every head: carries the weighted mean of the inputs to the gates of the GRU in one product."""
    mask: Mask | None = None


class KeysAndValues(NamedTuple):
    """The same for layers that can only be called: `prepare` returns it where weights do not say what a layer does."""

    keys: Projected
    values: Projected
    mask: Mask | None = None


Prepared = PreparedInputs | KeysAndValues
Step = Callable[[Tensor, Prepared], tuple[Tensor, Tensor]]
"""(slots, prepared) → new slots, and the attention that made them; `SlotAttention.step` is one."""


class _Scores(torch.autograd.Function):
    """reach @ xᵀ, with the gradient for x computed as `[inputs, dim]`.

    Autograd would compute it transposed, and adding up gradients of two memory layouts costs more than the rest of the
    backward pass.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(reach: Tensor, x: Tensor) -> Tensor:
        return torch.bmm(reach, x.transpose(1, 2))

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        reach, x = ctx.saved_tensors
        to_reach = torch.bmm(grad, x.to(grad.dtype)).to(reach.dtype)  # under autocast the three dtypes differ
        to_x = torch.bmm(grad.mT, reach.to(grad.dtype)).to(x.dtype) if ctx.needs_input_grad[1] else None
        return to_reach, to_x

    @staticmethod
    def jvp(ctx, by_reach: Tensor, by_x: Tensor) -> Tensor:
        reach, x = ctx.saved_tensors
        return torch.bmm(by_reach, x.mT) + torch.bmm(reach, by_x.mT)


def glorot_(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Initialise a layer as Keras does, and so the official code: Glorot-uniform weights, zero bias.

    torch's default weights are √3 times smaller (and more where a layer narrows). Products of several such layers, like
    the masks of a fresh separable decoder, then start so flat that learning takes much longer.
    """
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class SlotAttention(nn.Module):
    """Slots that compete for inputs, iterated (Algorithm 1 of Locatello et al., 2020).

    Args:
        input_dim: width of the inputs.
        slot_dim: width of the slots.
        num_slots: default number of slots; with `slot_init="gaussian"` a call may use any other.
        num_iterations: default number of iterations, ≥ 1; a call may use any other.
        num_heads: attention heads, each with its own softmax over slots; must divide `slot_dim`.
        mlp_hidden_dim: hidden width of the residual MLP.
        slot_init: "gaussian": slots are drawn from one learned normal distribution, so they are exchangeable and
            their number is free. "learned": each slot has its own learned start (a query, as in arXiv 2210.08990).
            "one_learned": slot 0 has a learned start and all others are drawn; their number stays free.
        gradient: "unrolled": backpropagation through all iterations. The others treat the slots before the last ones as
            a constant. "implicit": through the last `gradient_steps` iterations; 1 is the one-step gradient of arXiv
            2207.00787. "neumann": through the last, summed over `gradient_steps` terms of the series at that point; at
            a fixed point both are the same. "exact": all terms, from a linear system; warns where it has no solution.
            Learned starts, and slots passed in, still get a gradient, straight through; μ and σ do not and stay as they
            were initialised: their straight-through gradient would shrink σ, and with it the variety that breaks ties.
            They then have `requires_grad=False`, so that nobody waits for their gradient.
        gradient_steps: of "implicit" and "neumann"; no effect otherwise.
        tolerance: above 0, an image whose slots move by less (‖change‖ / ‖slots‖) skips to the last iteration, or the
            last `gradient_steps`; `num_iterations` is then the most it may take.
        competition: without it every slot looks for itself, as in ordinary cross-attention: the softmax is over the
            inputs, and an input may be everybody's or nobody's. For comparisons: takes no `mask`, nor layers of other
            types.
        eps: added to every attention weight before the weighted mean.

    Projections and GRU may be exchanged for layers of other types (quantised, with adapters), or get hooks. Then they
    are called as Algorithm 1 does; otherwise their weights are read, which is faster.

    Raises:
        ValueError: a size below 1, heads that do not divide `slot_dim`, an unknown `slot_init` or `gradient`, a
            negative `tolerance` or `eps`.
    """

    readable: ClassVar[tuple[type, ...]] = (nn.Linear, nn.GRUCell)
    """Types of layers whose weights say all that they do."""
    config: "AttentionConfig | None" = None
    """What it was built from, if it was."""
    gradient_steps: float
    """Rounded where it is used, so that a `Ramp` may move it."""

    def __init__(
        self,
        input_dim: int,
        slot_dim: int = 64,
        *,
        num_slots: int = 7,
        num_iterations: int = 3,
        num_heads: int = 1,
        mlp_hidden_dim: int = 128,
        slot_init: SlotInit = "gaussian",
        gradient: Gradient = "unrolled",
        gradient_steps: int = 1,
        tolerance: float = 0.0,
        competition: bool = True,
        eps: float = 1e-8,
    ):
        super().__init__()
        sizes = dict(
            input_dim=input_dim,
            slot_dim=slot_dim,
            num_slots=num_slots,
            num_iterations=num_iterations,
            num_heads=num_heads,
            mlp_hidden_dim=mlp_hidden_dim,
            gradient_steps=gradient_steps,
        )
        for name, size in sizes.items():
            check.whole(name, size)
        if slot_dim % num_heads:
            raise ValueError(f"num_heads must divide slot_dim, got slot_dim={slot_dim} and num_heads={num_heads}")
        check.choice("slot_init", slot_init, SlotInit)
        check.number("tolerance", tolerance)
        check.number("eps", eps)
        self.input_dim = input_dim
        self.slot_dim = slot_dim
        self.num_slots = num_slots
        self.num_iterations = num_iterations
        self.num_heads = num_heads
        self.slot_init = slot_init
        self.gradient_steps = gradient_steps
        self.tolerance = tolerance
        self.competition = competition
        self.eps = eps

        self.norm_inputs = nn.LayerNorm(input_dim, eps=LAYER_NORM_EPS)
        self.norm_slots = nn.LayerNorm(slot_dim, eps=LAYER_NORM_EPS)
        self.norm_mlp = nn.LayerNorm(slot_dim, eps=LAYER_NORM_EPS)
        self.project_q = nn.Linear(slot_dim, slot_dim, bias=False)
        self.project_k = nn.Linear(input_dim, slot_dim, bias=False)
        self.project_v = nn.Linear(input_dim, slot_dim, bias=False)
        self.gru = nn.GRUCell(slot_dim, slot_dim)
        first, second = nn.Linear(slot_dim, mlp_hidden_dim), nn.Linear(mlp_hidden_dim, slot_dim)
        self.mlp = nn.Sequential(first, nn.ReLU(), second)
        for linear in (self.project_q, self.project_k, self.project_v, first, second):
            glorot_(linear)
        # Glorot-uniform as Keras computes it for shape (1, 1, D). torch's xavier_uniform_ sees other fans there.
        bound = math.sqrt(6 / (1 + slot_dim))
        if slot_init == "learned":
            self.slots_mu = nn.Parameter(torch.randn(1, num_slots, slot_dim))
        else:
            self.slots_mu = nn.Parameter(torch.empty(1, 1, slot_dim).uniform_(-bound, bound))
            self.slots_log_sigma = nn.Parameter(torch.empty(1, 1, slot_dim).uniform_(-bound, bound))
        if slot_init == "one_learned":
            self.slots_first = nn.Parameter(torch.randn(1, 1, slot_dim))
        self.gradient = gradient

    @property
    def gradient(self) -> Gradient:
        return self._gradient

    @gradient.setter
    def gradient(self, gradient: Gradient) -> None:
        check.choice("gradient", gradient, Gradient)
        self._gradient: Gradient = gradient
        if self.slot_init != "learned":
            for drawn in (self.slots_mu, self.slots_log_sigma):
                drawn.requires_grad_(gradient == "unrolled")

    def initial_slots(
        self,
        batch_size: int,
        num_slots: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Slots:
        """Where the slots start: drawn from N(μ, σ²) with `generator`, learned, or slot 0 learned and the rest drawn.

        The noise is drawn on the generator's own device, so a CPU generator gives the same slots on any device.

        Raises ValueError for fewer than 1 slot, or another number than was learned with `slot_init="learned"`.
        """
        count = self.num_slots if num_slots is None else num_slots
        check.whole("batch_size", batch_size, least=0)
        check.whole("num_slots", count)
        check.generator(generator)
        if self.slot_init == "learned":
            if count != self.num_slots:
                raise ValueError(
                    f"this model learned {self.num_slots} slots and cannot start {count}; "
                    'the number of slots is free with slot_init="gaussian" and "one_learned"'
                )
            return self.slots_mu.expand(batch_size, -1, -1)
        shape, kind = (batch_size, count, self.slot_dim), self.slots_mu.dtype
        if generator is None:  # said separately: exporters know `randn` of a symbolic size without a generator only
            noise = torch.randn(shape, device=self.slots_mu.device, dtype=kind)
        else:
            noise = torch.randn(shape, generator=generator, device=generator.device, dtype=kind)
        slots = self.slots_mu + self.slots_log_sigma.exp() * noise.to(self.slots_mu.device)
        if self.gradient != "unrolled":
            slots = slots.detach()  # the straight-through gradient below would shrink σ
        if self.slot_init == "one_learned":
            slots = torch.cat([self.slots_first.expand(batch_size, -1, -1), slots[:, 1:]], dim=1)
        return slots

    def start(
        self, batch_size: int, num_slots: int | None, slots: Slots | None, generator: torch.Generator | None
    ) -> Slots:
        """The `slots` that a call was given, or else `initial_slots`.

        Raises ValueError as `initial_slots`, and for slots of another shape or precision, or not finite.
        """
        if slots is None:
            return self.initial_slots(batch_size, num_slots, generator)
        self._check_slots(slots, batch_size)
        if num_slots is not None:
            check.whole("num_slots", num_slots)
            if num_slots != slots.shape[1]:
                raise ValueError(f"slots has {slots.shape[1]} slots but num_slots={num_slots} was asked for")
        if not check.holds(slots.isfinite().all(), otherwise=True):
            raise ValueError("slots must be finite, got NaN or infinite values")
        return slots

    def prepare(self, inputs: Inputs, mask: Mask | None = None) -> Prepared:
        """Normalise the inputs, once for all iterations.

        Raises ValueError unless `inputs` is `[batch, inputs, input_dim]` in the module's precision (under autocast, in
        any), with at least one input, all finite but for those that `mask` leaves out; without
        competition for any `mask`, and for layers that can only be called.
        """
        if not (
            self._is_fit(inputs) and inputs.ndim == 3 and inputs.shape[1] > 0 and inputs.shape[2] == self.input_dim
        ):
            raise ValueError(
                f"inputs must be {self._dtype} [batch, inputs >= 1, input_dim={self.input_dim}], "
                f"got {check.described(inputs)}"
            )
        if mask is not None:
            if not self.competition:
                raise ValueError("mask needs competition=True: without it, padding would take its share of a softmax")
            check.mask(mask, inputs.shape[:2])
            inputs = inputs.masked_fill(~mask.unsqueeze(2), 0)  # whatever it was, NaN too, it now does no harm
        x = self.norm_inputs(inputs)
        # LayerNorm spreads one NaN or infinity over its whole vector, so looking at a single channel is enough.
        if not check.holds(x[..., 0].isfinite().all(), otherwise=True):
            raise ValueError("inputs must be finite, got NaN or infinite values")
        projections = self.project_q, self.project_k, self.project_v
        if not all(self._can_be_read(layer) for layer in (*projections, self.gru)):
            if not self.competition:
                raise ValueError("without competition, projections and GRU must be plain layers without hooks")
            return KeysAndValues(self.project_k(x), self.project_v(x), mask)
        q, k, v = (layer.weight.unflatten(0, (self.num_heads, -1)) for layer in projections)
        key = (k.transpose(1, 2) @ q).flatten(0, 1) * math.sqrt(self.num_heads / self.slot_dim)
        into_gru = self.gru.weight_ih.unflatten(1, (self.num_heads, -1)).transpose(0, 1)
        return PreparedInputs(x, key, (into_gru @ v).transpose(0, 1).flatten(1), mask)

    def _can_be_read(self, layer: nn.Module) -> bool:
        """Whether its weights say all that it does: a known type, without hooks, its weights ordinary tensors."""
        hooks = layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks
        wrapped = (hasattr(p, "__tensor_flatten__") for p in layer._parameters.values())  # as torchao quantises
        return type(layer) in self.readable and not any(hooks) and not any(wrapped)

    def step(self, slots: Slots, prepared: Prepared) -> tuple[Slots, Attention]:
        """One iteration: the new slots, and the attention (softmax over slots) that made them.

        Raises ValueError for slots that do not fit the module and the inputs, or inputs that were not prepared.
        """
        if not isinstance(prepared, Prepared):
            raise ValueError(f"prepared must come from SlotAttention.prepare, got {check.described(prepared)}")
        self._check_slots(slots, prepared[0].shape[0])
        if isinstance(prepared, KeysAndValues):
            return iteration(self, slots, *prepared)
        x, key, value, mask = prepared
        (batch, inputs, width), count, heads = x.shape, slots.shape[1], self.num_heads

        # q·(W_k x) = (W_kᵀ q)·x: the slots come to the inputs' side, and keys are never formed.
        reach = F.linear(self.norm_slots(slots), key)
        reach = reach.view(batch, count, heads, width).transpose(1, 2).flatten(1, 2)  # [batch, heads · slots, width]
        scores = torch.bmm(reach, x.transpose(1, 2)) if torch.compiler.is_compiling() else _Scores.apply(reach, x)
        attention = scores.view(batch, heads, count, inputs).softmax(dim=2 if self.competition else 3)

        # Σ a (W_v x) = W_v (Σ a x): the inputs are averaged as they are, and values are never formed.
        half = attention.dtype == torch.float16  # where ε is 0, and the sum over many inputs infinite
        eps = self.eps
        if mask is not None:  # padded inputs take no part
            real = mask[:, None].to(torch.float32 if half else attention.dtype)
            attention, eps = attention * real.to(attention.dtype).unsqueeze(1), eps * real
        weights = (attention.float() if half else attention).flatten(1, 2) + eps
        total = weights.sum(dim=-1, keepdim=True)
        mean = torch.bmm((weights / total).half(), x) if half else torch.bmm(weights, x) / total
        mean = mean.view(batch, heads, count, width).transpose(1, 2).flatten(2)  # [batch, slots, heads · input_dim]

        gru = self.gru
        updated = torch.gru_cell(
            mean.flatten(0, 1), slots.flatten(0, 1), value, gru.weight_hh, gru.bias_ih, gru.bias_hh
        )
        slots = updated.view(batch, count, self.slot_dim)
        slots = slots + self.mlp(self.norm_mlp(slots))
        return slots, attention.squeeze(1) if heads == 1 else attention.mean(dim=1)

    def iterate(
        self, prepared: Prepared, slots: Slots, num_iterations: int, step: Step, return_history: bool = False
    ) -> SlotAttentionOutput:
        """`num_iterations` of `step`, starting from `slots`, with this module's `gradient` and `tolerance`."""
        check.whole("num_iterations", num_iterations)
        # Under vmap a start that all images have in common becomes each image's own; torch's GRU asks for that.
        slots = slots + torch.zeros_like(prepared[0][:, :1, :1], dtype=slots.dtype)
        start, trail, looks = slots, [slots], []

        def update(slots: Tensor) -> Tensor:
            slots, attention = step(slots, prepared)
            if not return_history:  # then nothing may keep the finished iterations alive
                trail.clear()
                looks.clear()
            trail.append(slots)
            looks.append(attention)
            return slots

        steps = round(self.gradient_steps)
        last = min(steps, num_iterations) if self.gradient == "implicit" else 1
        needed = torch.full(slots.shape[:1], num_iterations, device=slots.device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.gradient == "unrolled"):
            if self.tolerance and num_iterations > last:
                slots, _, used, _ = implicit.solve(
                    update, slots, tolerance=self.tolerance, max_iterations=num_iterations - last
                )
                needed = used + last
            else:
                for _ in range(num_iterations - last):
                    slots = update(slots)
        if self.gradient == "unrolled":
            slots = update(slots)
        else:
            # The start would never learn, so what comes back to the constant goes straight to it (arXiv 2210.08990).
            slots = implicit.last_steps(
                update,
                slots,
                gradient=self.gradient,
                steps=last if self.gradient == "implicit" else steps,
                start=start,
                strict=False,
            )
        history = SlotHistory(torch.stack(trail), torch.stack(looks), needed) if return_history else None
        return SlotAttentionOutput(slots, looks[-1], history)

    def forward(
        self,
        inputs: Inputs,
        num_slots: int | None = None,
        num_iterations: int | None = None,
        slots: Slots | None = None,
        generator: torch.Generator | None = None,
        return_history: bool = False,
        mask: Mask | None = None,
    ) -> SlotAttentionOutput:
        """Bind `inputs` to slots.

        Args:
            inputs: `[batch, inputs, input_dim]`, floating point.
            num_slots, num_iterations: override the module's own for this call.
            slots: start here instead of at a fresh initialisation, `[batch, slots, slot_dim]`.
            generator: the source of the initial noise; without one, torch's global generator.
            return_history: also return slots and attention of every iteration.
            mask: `[batch, inputs]`, True where an input is real. Padding gets attention 0 and changes nothing, whatever
                it holds; its gradient is 0.

        Raises:
            ValueError: wrong type, precision, rank or width; no inputs, no slots, no iterations; NaN or infinite values
                in inputs or slots; an image without a real input.
        """
        prepared = self.prepare(inputs, mask)
        slots = self.start(inputs.shape[0], num_slots, slots, generator)
        iterations = self.num_iterations if num_iterations is None else num_iterations
        return self.iterate(prepared, slots, iterations, self.step, return_history)

    def _check_slots(self, slots: Slots, batch_size: int) -> None:
        if not (
            self._is_fit(slots)
            and slots.ndim == 3
            and slots.shape[0] == batch_size
            and slots.shape[1] > 0
            and slots.shape[2] == self.slot_dim
        ):
            raise ValueError(
                f"slots must be {self._dtype} [batch={batch_size}, slots >= 1, slot_dim={self.slot_dim}], "
                f"got {check.described(slots)}"
            )

    @property
    def _dtype(self) -> torch.dtype:
        return self.norm_inputs.weight.dtype

    def _is_fit(self, x: object) -> bool:
        """Whether it is a tensor in the module's precision; under autocast in any."""
        return isinstance(x, Tensor) and (
            x.dtype == self._dtype or (x.is_floating_point() and torch.is_autocast_enabled(x.device.type))
        )


@dataclass
class AttentionConfig:
    """What defines a `SlotAttention`, but for the width of its inputs."""

    slot_dim: int = 64
    """Width of the slots."""
    num_slots: int = 4
    """Slots per image; with slot_init="learned" the only number there is, otherwise the one a call uses by default."""
    num_iterations: int = 3
    """Rounds of competition."""
    num_heads: int = 1
    """Attention heads, each with its own softmax over slots; must divide slot_dim."""
    mlp_hidden_dim: int = 128
    """Hidden width of the residual MLP."""
    slot_init: SlotInit = "gaussian"
    """"gaussian": slots are drawn from one learned normal distribution; "learned": each has a learned start of its own;
    "one_learned": the first has, the others are drawn."""
    gradient: Gradient = "unrolled"
    """"unrolled": through all iterations; "implicit": through the last gradient_steps; "neumann": through the last one,
    summed over gradient_steps terms of its series; "exact": summed over all."""
    gradient_steps: int | Ramp = 1
    """Of "implicit" and "neumann"; a ramp is rounded."""
    tolerance: float = 0.0
    """Above 0, an image whose slots move by less, relative to their length, skips to its last iterations."""
    competition: bool = True
    """False: every slot looks for itself, the softmax is over the inputs; for comparisons."""

    def options(self) -> dict[str, Any]:
        """What `SlotAttention` is built with; a ramp stands at its end. Raises ValueError for a ramp below 1."""
        options = {field.name: getattr(self, field.name) for field in fields(AttentionConfig)}
        steps = self.gradient_steps
        if isinstance(steps, Ramp):
            check.number("gradient_steps", min(steps.start, steps.end), least=1)
            options["gradient_steps"] = round(steps.end)
        return options

    def build(self, input_dim: int) -> SlotAttention:
        """The module, for inputs of this width. Raises ValueError as `SlotAttention` does."""
        module = SlotAttention(input_dim, **self.options())
        module.config = self
        return module
