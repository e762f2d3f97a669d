"""Slot Attention (chapter 02): Locatello et al., 2020, arXiv 2006.15055, Algorithm 1.

A handful of vectors, the slots, compete for a set of inputs. In each iteration

    attention = softmax over slots of  q(LN(slots)) · k(LN(inputs)) / √D        (every input is shared out)
    updates   = weighted mean over inputs of  v(LN(inputs)),  weights attention + ε
    slots     = GRU(updates, slots);  slots = slots + MLP(LN(slots))

exactly as in the authors' TensorFlow code: no biases in q, k, v; ε added to every weight before normalising; the GRU
receives the slots as they are, not normalised; LayerNorm with ε = 1e-3 (the Keras default).

Two things are ours. The *arithmetic*: slots are few and inputs are many, so keys and values are never formed;
q·(W_k x) = (W_kᵀq)·x and Σ a (W_v x) = W_v (Σ a x) give the same numbers for less work. And the *gradient*: slots that
have settled are a fixed point, whose derivative needs the last iteration only, so memory need not grow with the number
of iterations (Chang et al., 2022, arXiv 2207.00787; chapter 06 and `implicit.py`). The forward values stay the same.
"""

import math
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from slotlib import implicit

SlotInit = Literal["gaussian", "learned", "one_learned"]
Gradient = Literal["unrolled", "implicit", "neumann", "exact"]

LAYER_NORM_EPS = 1e-3  # Keras' default, which the official checkpoints were trained with; torch's is 1e-5


class SlotHistory(NamedTuple):
    """Every iteration of one call: entry 0 of `slots` is the initialisation."""

    slots: Float[Tensor, "iterations_plus_1 batch slots dim"]
    attention: Float[Tensor, "iterations batch slots inputs"]
    needed: Int[Tensor, "batch"]
    """Iterations that each image took: all that were allowed, unless a `tolerance` let it stop. Later entries above are
    what the others' iterations would have made of it."""


class SlotAttentionOutput(NamedTuple):
    slots: Float[Tensor, "batch slots dim"]
    attention: Float[Tensor, "batch slots inputs"]
    """Softmax over the slots, before the weighted mean: `attention.sum(1) == 1`. Averaged over heads."""
    history: SlotHistory | None


class PreparedInputs(NamedTuple):
    """What every iteration needs, computed once by `SlotAttention.prepare`."""

    inputs: Float[Tensor, "batch inputs dim"]
    """After LayerNorm."""
    key: Float[Tensor, "heads_dim slot_dim"]
    """W_kᵀ W_q √(heads / slot_dim) of every head: carries a slot to the inputs' side in one product."""
    value: Float[Tensor, "gates heads_dim"]
    """W_ih W_v of every head: carries the weighted mean of the inputs to the gates of the GRU in one product."""


class _Scores(torch.autograd.Function):
    """reach @ xᵀ, with the gradient for x computed as `[inputs, dim]`.

    Autograd would compute it transposed, and adding up gradients of two memory layouts costs more than the rest of the
    backward pass.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(reach: Tensor, x: Tensor) -> Tensor:
        return torch.bmm(reach, x.mT)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        reach, x = ctx.saved_tensors
        to_reach = torch.bmm(grad, x.to(grad.dtype)).to(reach.dtype)  # under autocast the three dtypes differ
        to_x = torch.bmm(grad.mT, reach.to(grad.dtype)).to(x.dtype) if ctx.needs_input_grad[1] else None
        return to_reach, to_x


def glorot_(layer: nn.Module) -> None:
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
        gradient_steps: of "implicit" and "neumann"; no effect otherwise.
        tolerance: above 0, an image whose slots move by less (‖change‖ / ‖slots‖) skips to the last iteration, or the
            last `gradient_steps`; `num_iterations` is then the most it may take.
        eps: added to every attention weight before the weighted mean.

    The weights of `project_q`, `project_k`, `project_v` and `gru` are read directly: forward hooks on them never run.

    Raises:
        ValueError: a size below 1, heads that do not divide `slot_dim`, an unknown `slot_init` or `gradient`, a
            negative `tolerance`.
    """

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
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        if slot_dim % num_heads:
            raise ValueError(f"num_heads must divide slot_dim, got slot_dim={slot_dim} and num_heads={num_heads}")
        if slot_init not in get_args(SlotInit):
            raise ValueError(f"slot_init must be one of {get_args(SlotInit)}, got {slot_init!r}")
        if gradient not in get_args(Gradient):
            raise ValueError(f"gradient must be one of {get_args(Gradient)}, got {gradient!r}")
        if not tolerance >= 0:
            raise ValueError(f"tolerance must be at least 0, got {tolerance}")
        self.input_dim = input_dim
        self.slot_dim = slot_dim
        self.num_slots = num_slots
        self.num_iterations = num_iterations
        self.num_heads = num_heads
        self.slot_init = slot_init
        self.gradient = gradient
        self.gradient_steps = gradient_steps
        self.tolerance = tolerance
        self.eps = eps

        self.norm_inputs = nn.LayerNorm(input_dim, eps=LAYER_NORM_EPS)
        self.norm_slots = nn.LayerNorm(slot_dim, eps=LAYER_NORM_EPS)
        self.norm_mlp = nn.LayerNorm(slot_dim, eps=LAYER_NORM_EPS)
        self.project_q = nn.Linear(slot_dim, slot_dim, bias=False)
        self.project_k = nn.Linear(input_dim, slot_dim, bias=False)
        self.project_v = nn.Linear(input_dim, slot_dim, bias=False)
        self.gru = nn.GRUCell(slot_dim, slot_dim)
        self.mlp = nn.Sequential(nn.Linear(slot_dim, mlp_hidden_dim), nn.ReLU(), nn.Linear(mlp_hidden_dim, slot_dim))
        for linear in (self.project_q, self.project_k, self.project_v, self.mlp[0], self.mlp[2]):
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

    def initial_slots(
        self,
        batch_size: int,
        num_slots: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch slots dim"]:
        """Where the slots start: drawn from N(μ, σ²) with `generator`, learned, or slot 0 learned and the rest drawn.

        The noise is drawn on the generator's own device, so a CPU generator gives the same slots on any device.

        Raises ValueError for fewer than 1 slot, or another number than was learned with `slot_init="learned"`.
        """
        count = self.num_slots if num_slots is None else num_slots
        if count < 1:
            raise ValueError(f"num_slots must be at least 1, got {count}")
        if self.slot_init == "learned":
            if count != self.num_slots:
                raise ValueError(
                    f"this model learned {self.num_slots} slots and cannot start {count}; "
                    'the number of slots is free with slot_init="gaussian" and "one_learned"'
                )
            return self.slots_mu.expand(batch_size, -1, -1)
        device = self.slots_mu.device if generator is None else generator.device
        noise = torch.randn(
            batch_size, count, self.slot_dim, generator=generator, device=device, dtype=self.slots_mu.dtype
        )
        slots = self.slots_mu + self.slots_log_sigma.exp() * noise.to(self.slots_mu.device)
        if self.gradient != "unrolled":
            slots = slots.detach()  # the straight-through gradient below would shrink σ
        if self.slot_init == "one_learned":
            slots = torch.cat([self.slots_first.expand(batch_size, -1, -1), slots[:, 1:]], dim=1)
        return slots

    def prepare(self, inputs: Float[Tensor, "batch inputs input_dim"]) -> PreparedInputs:
        """Normalise the inputs, once for all iterations.

        Raises ValueError unless `inputs` is `[batch, inputs, input_dim]` with at least one input, all finite.
        """
        if (
            inputs.ndim != 3
            or inputs.shape[2] != self.input_dim
            or inputs.shape[1] == 0
            or not inputs.is_floating_point()
        ):
            raise ValueError(
                f"inputs must be floating point [batch, inputs >= 1, input_dim={self.input_dim}], "
                f"got {inputs.dtype} {list(inputs.shape)}"
            )
        x = self.norm_inputs(inputs)
        # LayerNorm spreads one NaN or infinity over its whole vector, so looking at a single channel is enough.
        if not torch.compiler.is_compiling() and not x[..., 0].isfinite().all():
            raise ValueError("inputs must be finite, got NaN or infinite values")
        q, k, v = (
            p.weight.unflatten(0, (self.num_heads, -1)) for p in (self.project_q, self.project_k, self.project_v)
        )
        key = (k.mT @ q).flatten(0, 1) * math.sqrt(self.num_heads / self.slot_dim)
        into_gru = self.gru.weight_ih.unflatten(1, (self.num_heads, -1)).transpose(0, 1)
        return PreparedInputs(x, key, (into_gru @ v).transpose(0, 1).flatten(1))

    def step(
        self, slots: Float[Tensor, "batch slots dim"], prepared: PreparedInputs
    ) -> tuple[Float[Tensor, "batch slots dim"], Float[Tensor, "batch slots inputs"]]:
        """One iteration: the new slots, and the attention (softmax over slots) that made them."""
        (batch, count, _), heads = slots.shape, self.num_heads
        x, key, value = prepared

        # q·(W_k x) = (W_kᵀ q)·x: the slots come to the inputs' side, and keys are never formed.
        reach = F.linear(self.norm_slots(slots), key)
        reach = reach.unflatten(-1, (heads, -1)).transpose(1, 2).flatten(1, 2)  # [batch, heads · slots, input_dim]
        attention = _Scores.apply(reach, x).unflatten(1, (heads, count)).softmax(dim=2)

        # Σ a (W_v x) = W_v (Σ a x): the inputs are averaged as they are, and values are never formed.
        weights = attention.flatten(1, 2) + self.eps
        mean = torch.bmm(weights, x) / weights.sum(dim=-1, keepdim=True)
        mean = mean.unflatten(1, (heads, count)).transpose(1, 2).flatten(2)  # [batch, slots, heads · input_dim]

        gru = self.gru
        updated = torch.gru_cell(
            mean.flatten(0, 1), slots.flatten(0, 1), value, gru.weight_hh, gru.bias_ih, gru.bias_hh
        )
        slots = updated.unflatten(0, (batch, count))
        return slots + self.mlp(self.norm_mlp(slots)), attention.mean(dim=1)

    def forward(
        self,
        inputs: Float[Tensor, "batch inputs input_dim"],
        num_slots: int | None = None,
        num_iterations: int | None = None,
        slots: Float[Tensor, "batch slots dim"] | None = None,
        generator: torch.Generator | None = None,
        return_history: bool = False,
    ) -> SlotAttentionOutput:
        """Bind `inputs` to slots.

        Args:
            inputs: `[batch, inputs, input_dim]`, floating point.
            num_slots, num_iterations: override the module's own for this call.
            slots: start here instead of at a fresh initialisation, `[batch, slots, slot_dim]`.
            generator: the source of the initial noise; without one, torch's global generator.
            return_history: also return slots and attention of every iteration.

        Raises:
            ValueError: wrong rank or width, no inputs, no slots, no iterations, NaN or infinite inputs.
        """
        iterations = self.num_iterations if num_iterations is None else num_iterations
        if iterations < 1:
            raise ValueError(f"num_iterations must be at least 1, got {iterations}")
        prepared = self.prepare(inputs)
        if slots is None:
            slots = self.initial_slots(len(inputs), num_slots, generator)
        elif slots.ndim != 3 or slots.shape[::2] != (len(inputs), self.slot_dim) or slots.shape[1] == 0:
            raise ValueError(
                f"slots must be [batch={len(inputs)}, slots >= 1, slot_dim={self.slot_dim}], got {list(slots.shape)}"
            )
        elif num_slots not in (None, slots.shape[1]):
            raise ValueError(f"slots has {slots.shape[1]} slots but num_slots={num_slots} was asked for")

        start, trail, looks = slots, [slots], []

        def update(slots: Tensor) -> Tensor:
            slots, attention = self.step(slots, prepared)
            if not return_history:  # then nothing may keep the finished iterations alive
                trail.clear(), looks.clear()
            trail.append(slots)
            looks.append(attention)
            return slots

        last = min(self.gradient_steps, iterations) if self.gradient == "implicit" else 1
        needed = torch.full((len(inputs),), iterations, device=inputs.device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.gradient == "unrolled"):
            if self.tolerance and iterations > last:
                slots, _, used, _ = implicit.solve(
                    update, slots, tolerance=self.tolerance, max_iterations=iterations - last
                )
                needed = used + last
            else:
                for _ in range(iterations - last):
                    slots = update(slots)
        if self.gradient == "unrolled":
            slots = update(slots)
        else:
            # The start would never learn, so what comes back to the constant goes straight to it (arXiv 2210.08990).
            slots = implicit.last_steps(
                update,
                slots,
                gradient="truncated" if self.gradient == "implicit" else self.gradient,
                steps=last if self.gradient == "implicit" else self.gradient_steps,
                start=start,
                strict=False,
            )
        history = SlotHistory(torch.stack(trail), torch.stack(looks), needed) if return_history else None
        return SlotAttentionOutput(slots, looks[-1], history)
