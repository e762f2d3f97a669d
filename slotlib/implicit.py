"""Fixed points and their gradients (chapter 06).

An update z ← f(z, x; θ) is repeated until z stops moving: z* = f(z*, x; θ). Everything here works for any such f, slot
attention being one: `solve` finds z*, and `fixed_point` finds it and says what autograd shall make of it. Write J for
∂f/∂z at z*, and g for the gradient of the loss with respect to z*. The implicit function theorem gives

    gradient for θ  =  wᵀ ∂f/∂θ   where   w = g + Jᵀw,   that is   w = g + Jᵀg + (Jᵀ)²g + …

"exact" solves for w and "neumann" keeps k terms of the series. "implicit" goes back through the last k iterations,
which at z* is the same as k terms; one of them is the one-step gradient. None of the three needs the iterations that
led to z*, so memory does not grow with their number (Bai et al., 2019, arXiv 1909.01377; Chang et al., 2022, arXiv
2207.00787). Jᵀ is never formed: autograd multiplies with it.

Throughout, the first axis of z is a batch whose samples f treats apart: each has its own fixed point, its own Jacobian,
and stops on its own.
"""

import math
import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from slotlib import check

Method = Literal["plain", "anderson", "broyden"]
Gradient = Literal["unrolled", "implicit", "neumann", "exact"]
Update = Callable[..., Tensor]
"""f(z, *inputs) → the next z, of the same shape."""


class Solution(NamedTuple):
    z: Float[Tensor, "batch *shape"]
    residuals: Float[Tensor, "batch"]
    """‖f(z) − z‖ / ‖f(z)‖ where f was evaluated; the `z` above is the f(z) of that evaluation."""
    iterations: Int[Tensor, "batch"]
    """Evaluations of f that each sample needed, or was given."""
    converged: Bool[Tensor, "batch"]


class FixedPoint(NamedTuple):
    z: Float[Tensor, "batch *shape"]
    """f(z*): carries the gradient that was asked for."""
    solution: Solution
    adjoint: list[Solution]
    """How w was found (gradient="exact"): empty before the backward pass."""


def _check(**given: object) -> None:
    """Raises ValueError unless what is called f is a function, and all others are points."""
    for name, value in given.items():
        if name == "f":
            if not callable(value):
                raise ValueError(f"f must be a function, got {check.described(value)}")
        elif not isinstance(value, Tensor) or value.ndim < 1 or not value.is_floating_point():
            raise ValueError(f"{name} must be floating point [batch, ...], got {check.described(value)}")


def _flat(z: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch n"]:
    return z.reshape(z.shape[0], math.prod(z.shape[1:]))


# --- solving ---


def residual(value: Float[Tensor, "batch *shape"], z: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch"]:
    """How far from fixed each sample is: ‖value − z‖ / ‖value‖ with value = f(z), and 0 where nothing moved."""
    _check(value=value, z=z)
    if value.shape != z.shape:
        raise ValueError(f"value must be {list(z.shape)} as z, got {check.described(value)}")
    precision = torch.promote_types(value.dtype, torch.float32)
    move, size = (_flat(t.detach().to(precision)).norm(dim=1) for t in (value - z, value))
    return torch.where(move == 0, move, move / size)


def solve(
    f: Update,
    z: Float[Tensor, "batch *shape"],
    *inputs: Tensor,
    method: Method = "plain",
    tolerance: float = 1e-6,
    max_iterations: int = 100,
    memory: int = 20,
) -> Solution:
    """Find z = f(z, *inputs), starting from `z`.

    Args:
        method: "plain": z ← f(z); reaches the fixed point where the spectral radius of J is below 1, and is the only
            one that can be differentiated through. "anderson": the combination of the last points that would have moved
            least, were f linear. "broyden": Newton's method with a guess of the Jacobian; both can reach fixed points
            that plain iteration leaves.
        tolerance: a sample stops when its residual is at most this. It then keeps its value while others go on.
        max_iterations: evaluations of f at most.
        memory: earlier points that Anderson and Broyden use.

    Where a sample does not converge, "plain" returns its last value, the others the one of least residual.

    Raises ValueError for an unknown method, numbers out of range, or an f that changes the shape of z.
    """
    check.choice("method", method, Method)
    check.number("tolerance", tolerance, above=True)
    check.sizes(max_iterations=max_iterations, memory=memory)
    _check(f=f, z=z)
    propose = {"plain": lambda z, value: value, "anderson": _Anderson(memory), "broyden": _Broyden(memory)}[method]
    batch, shape = z.shape[0], z.shape

    def where(chosen: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.where(chosen.view(batch, *[1] * (len(shape) - 1)), a, b)

    active = torch.ones(batch, dtype=torch.bool, device=z.device)
    kept, least, iterations = z, torch.full((batch,), torch.inf, device=z.device), torch.zeros_like(active).long()
    with torch.set_grad_enabled(torch.is_grad_enabled() and method == "plain"):
        for _ in range(max_iterations):
            value = f(z, *inputs)
            if not isinstance(value, Tensor) or value.shape != shape:
                raise ValueError(f"f must return the shape it is given, {list(shape)}, got {check.described(value)}")
            now = residual(value, z)
            iterations = iterations + active
            better = active if method == "plain" else active & (now < least)
            kept, least = where(better, value, kept), torch.where(better, now, least)
            active = active & ~(least <= tolerance)  # written so that NaN never counts as arrived
            if not check.holds(active.any(), otherwise=True):
                break
            z = where(active, propose(_flat(z), _flat(value)).view(shape), kept)
    return Solution(kept, least, iterations, ~active)


class _Anderson:
    """Anderson, 1965: go where the last steps, combined so that what moves is shortest, would lead."""

    def __init__(self, memory: int):
        self.memory, self.seen, self.last = memory, 0, None

    def __call__(self, z: Float[Tensor, "batch n"], value: Float[Tensor, "batch n"]) -> Float[Tensor, "batch n"]:
        move, (batch, size), m = value - z, z.shape, self.memory
        if self.last is None:
            self.changes, self.gains = z.new_zeros(2, batch, m, size)  # of `move` and of `value`, from point to point
            self.products = z.new_zeros(batch, m, m)
            self.ridge = 1e3 * torch.finfo(z.dtype).eps * torch.eye(m, dtype=z.dtype, device=z.device)
            self.last = value, move
            return value
        change, oldest = move - self.last[1], self.seen % m
        length = change.norm(dim=1, keepdim=True).clamp(min=torch.finfo(z.dtype).tiny)
        self.changes[:, oldest], self.gains[:, oldest] = change / length, (value - self.last[0]) / length
        self.products[:, oldest] = (self.changes @ self.changes[:, oldest, :, None]).squeeze(2)
        self.products[:, :, oldest] = self.products[:, oldest]
        self.last, self.seen = (value, move), self.seen + 1
        # Near the fixed point changes become parallel; the ridge then picks the smallest of many good combinations.
        target = self.changes @ move.unsqueeze(2)
        weights = torch.linalg.solve_ex(self.products + self.ridge, target).result
        return value - (weights.mT @ self.gains).squeeze(1)


class _Broyden:
    """Broyden, 1965 ("good"): Newton on f(z) − z = 0, the inverse Jacobian guessed as −I + Σ u vᵀ from past steps."""

    def __init__(self, memory: int):
        self.memory, self.seen, self.last = memory, 0, None

    @staticmethod
    def _times(y: Tensor, left: Tensor, right: Tensor) -> Float[Tensor, "batch n"]:
        return ((y.unsqueeze(1) @ right.mT) @ left).squeeze(1) - y

    def __call__(self, z: Float[Tensor, "batch n"], value: Float[Tensor, "batch n"]) -> Float[Tensor, "batch n"]:
        move = value - z
        if self.seen % self.memory == 0:  # a guess that forgets single steps is worse than a new one
            self.u, self.v = z.new_zeros(2, z.shape[0], self.memory, z.shape[1])
        if self.last is not None:
            step, change = z - self.last[0], move - self.last[1]
            v = self._times(step, self.v, self.u)
            scale = (v * change).sum(dim=1, keepdim=True)
            u = (step - self._times(change, self.u, self.v)) / scale
            now = self.seen % self.memory
            self.u[:, now], self.v[:, now] = torch.where(scale.abs() > 0, u, 0), v  # 0: a sample that has stopped
            self.seen += 1
        self.last = z, move
        return z - self._times(move, self.u, self.v)


# --- gradients ---


def fixed_point(
    f: Update,
    z: Float[Tensor, "batch *shape"],
    *inputs: Tensor,
    gradient: Gradient = "exact",
    steps: int = 1,
    straight_through: bool = False,
    method: Method = "plain",
    tolerance: float = 1e-6,
    max_iterations: int = 100,
    memory: int = 20,
    adjoint_method: Method = "anderson",
    strict: bool = True,
) -> FixedPoint:
    """Solve z = f(z, *inputs) and choose the gradient. It reaches `inputs`, and whatever parameters f uses.

    Args:
        gradient: "unrolled": through all iterations (method="plain" only). The others solve without a graph and take
            the solution as a constant: "implicit" goes through `steps` more iterations; "neumann" through one, whose
            gradient is summed over `steps` terms of the series; "exact" through one, all terms. At a fixed point k
            iterations and k terms are the same gradient, elsewhere not: iterations have moving Jacobians, the series
            has one.
        straight_through: hand the gradient at the start of the last steps on to `z`, as if it had come there at once
            (arXiv 2210.08990). Without, only "unrolled" reaches `z`: a fixed point forgets where it was sought from.
        method, tolerance, max_iterations, memory: see `solve`.
        adjoint_method: how w is found ("exact"), to the same tolerance and with as many products at most. The system is
            linear; it has a solution even where the series, and "plain" with it, diverges.
        strict: raise if w is not found, instead of a warning.

    "unrolled" and "implicit" can be differentiated twice, and be transformed by torch.func; the other two raise
    RuntimeError on the attempt.

    Raises ValueError as `solve` does. Whether z* was found is in `solution.converged`; the caller decides.
    """
    check.choice("gradient", gradient, Gradient)
    check.whole("steps", steps)
    if gradient == "unrolled" and method != "plain":
        raise ValueError(f'gradient="unrolled" goes through plain iterations only, got method={method!r}')
    with torch.set_grad_enabled(torch.is_grad_enabled() and gradient == "unrolled"):
        solution = solve(
            f, z, *inputs, method=method, tolerance=tolerance, max_iterations=max_iterations, memory=memory
        )
    adjoint: list[Solution] = []
    if gradient == "unrolled":
        return FixedPoint(solution.z, solution, adjoint)
    value = last_steps(
        f,
        solution.z,
        *inputs,
        gradient=gradient,
        steps=steps,
        start=z if straight_through else None,
        adjoint_method=adjoint_method,
        adjoint_tolerance=tolerance,
        adjoint_iterations=max_iterations,
        strict=strict,
        report=adjoint,
    )
    return FixedPoint(value, solution, adjoint)


def last_steps(
    f: Update,
    z: Float[Tensor, "batch *shape"],
    *inputs: Tensor,
    gradient: Gradient,
    steps: int = 1,
    start: Float[Tensor, "batch *shape"] | None = None,
    adjoint_method: Method = "anderson",
    adjoint_tolerance: float = 0.0,
    adjoint_iterations: int = 50,
    strict: bool = True,
    report: list[Solution] | None = None,
) -> Float[Tensor, "batch *shape"]:
    """From z*, taken as a constant, the step or steps that carry the gradient: see `fixed_point`.

    What comes back to z* goes straight to `start`, if given. `report` gets the solution for w, whose residual shall be
    `adjoint_tolerance`, or the root of what the precision of f resolves if that is more.
    """
    _check(f=f, z=z, start=z if start is None else start)
    check.choice("gradient", gradient, Gradient)
    check.choice("adjoint_method", adjoint_method, Method)
    check.number("adjoint_tolerance", adjoint_tolerance)
    check.sizes(steps=steps, adjoint_iterations=adjoint_iterations)
    if start is not None and start.shape != z.shape:
        raise ValueError(f"start must be {list(z.shape)} as z, got {check.described(start)}")
    z = z.detach() if start is None else z.detach() + (start - start.detach())
    series = gradient in ("neumann", "exact") and torch.is_grad_enabled()
    if series and torch._C._are_functorch_transforms_active():
        raise RuntimeError(
            'gradient="exact" and "neumann" are made by plain autograd, which torch.func cannot transform; '
            '"unrolled" and "implicit" can be, and all can under torch.no_grad()'
        )
    if series and not z.requires_grad:
        z.requires_grad_()  # for J
    value = f(z, *inputs)
    if gradient == "implicit":
        for _ in range(steps - 1):
            value = f(value, *inputs)
    if series:
        terms = steps if gradient == "neumann" else None
        w = series_at(value, z, terms, adjoint_method, adjoint_tolerance, adjoint_iterations, strict, report)
        value = _Replace.apply(value, w)
    return value


def series_at(
    value: Float[Tensor, "batch *shape"],
    z: Float[Tensor, "batch *shape"],
    terms: int | None,
    method: Method,
    tolerance: float,
    max_iterations: int,
    strict: bool,
    report: list[Solution] | None,
) -> Callable[[Tensor], Tensor]:
    """g ↦ w = g + Jᵀg + (Jᵀ)²g + …, so many `terms` or all of them, J being the Jacobian of `value` = f(z) at z."""
    kind = value.device.type
    precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else value.dtype
    tolerance = max(tolerance, torch.finfo(precision).eps ** 0.5)

    def multiply(w: Tensor) -> Tensor:
        return torch.autograd.grad(value, z, w.to(value.dtype), retain_graph=True)[0].to(w.dtype)

    def series(g: Tensor) -> Tensor:
        w = term = start = g.to(torch.promote_types(g.dtype, torch.float32))
        if terms is not None:
            for _ in range(terms - 1):
                term = multiply(term)
                w = w + term
            return w.to(g.dtype)
        found = solve(
            lambda w: start + multiply(w), start, method=method, tolerance=tolerance, max_iterations=max_iterations
        )
        if report is not None:
            report.append(found)
        if not found.converged.all():
            message = (
                "the gradient's linear system w = g + Jᵀw was not solved for all samples: is z a fixed point, and 1 no "
                'eigenvalue of its Jacobian? "implicit" and "neumann" need no solution'
            )
            if strict:
                raise RuntimeError(
                    f"{message} (residual {found.residuals.max():.1e} after {max_iterations} products, "
                    f"above {tolerance:.1e} for {(~found.converged).sum()} of {len(start)})"
                )
            warnings.warn(message, stacklevel=2)
        return found.z.to(g.dtype)

    return series


class _Replace(torch.autograd.Function):
    """The identity, but the gradient g comes back as `series(g)`."""

    @staticmethod
    def forward(ctx, value: Tensor, series: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.series = series
        return value.view_as(value)

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                'gradient="exact" and "neumann" have no second derivatives (create_graph=True); '
                '"unrolled" and "implicit" do'
            )
        return ctx.series(g), None


# --- the Jacobian ---


def _products(f: Update, z: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Update, Update]:
    """v ↦ Jv and w ↦ Jᵀw at z. Jv is the derivative of Jᵀw by w, so that f needs no forward-mode derivatives."""
    _check(f=f, z=z)
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = f(z, *(x.detach() for x in inputs))
        w = torch.zeros_like(value, requires_grad=True)
        back = torch.autograd.grad(value, z, w, create_graph=True)[0]
    return (
        lambda v: torch.autograd.grad(back, w, v, retain_graph=True)[0],
        lambda u: torch.autograd.grad(value, z, u, retain_graph=True)[0],
    )


def _noise(z: Tensor, generator: torch.Generator | None) -> Tensor:
    check.generator(generator)
    device = z.device if generator is None else generator.device
    return torch.randn(z.shape, generator=generator, dtype=z.dtype, device=device).to(z.device)


def _length(v: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch *ones"]:
    return _flat(v).norm(dim=1).view(-1, *[1] * (v.ndim - 1)).clamp(min=torch.finfo(v.dtype).tiny)


def spectral_norm(
    f: Update,
    z: Float[Tensor, "batch *shape"],
    *inputs: Tensor,
    iterations: int = 50,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "batch"]:
    """The most by which J stretches any vector, ‖J‖₂: the root of JᵀJ's largest eigenvalue, by power iteration.

    From below, and closer with more `iterations`. At least the spectral radius, often far more.
    """
    check.whole("iterations", iterations)
    forwards, backwards = _products(f, z, inputs)
    v = _noise(z, generator)
    for _ in range(iterations):
        v = backwards(forwards(v / _length(v)))
    return _length(forwards(v / _length(v))).flatten()


def spectral_radius(
    f: Update,
    z: Float[Tensor, "batch *shape"],
    *inputs: Tensor,
    iterations: int = 100,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "batch"]:
    """The size of J's largest eigenvalue, real or complex: below 1, plain iteration converges near z, at this rate.

    By power iteration on J itself: the growth of a random vector per product, as a geometric mean over the second half
    of the `iterations`. Exact in the limit; with a complex pair in the lead the error falls like 1/iterations.
    """
    check.whole("iterations", iterations)
    forwards, _ = _products(f, z, inputs)
    v = _noise(z, generator)
    growth = []
    for _ in range(iterations):
        v = forwards(v / _length(v))
        growth.append(_length(v).flatten().log())
    return torch.stack(growth[iterations // 2 :]).mean(dim=0).exp()
