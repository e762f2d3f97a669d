"""Fixed points and gradients: known solutions, limits, rates, and gradients against finite differences (chapter 06)."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd.graph import saved_tensors_hooks

from slotlib import implicit
from slotlib.attention import soft_kmeans
from slotlib.implicit import fixed_point, solve, spectral_norm, spectral_radius
from slotlib.slot_attention import SlotAttention

METHODS = ("plain", "anderson", "broyden")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def close(a, b, rtol=1e-6, atol=1e-12):
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def contraction(size=30, radius=0.95, batch=3, seed=0):
    """z ← Az + b with the spectral radius of A as asked, and the solution (I − A)⁻¹ b."""
    a = randn(batch, size, size, seed=seed)
    a = a * radius / torch.linalg.eigvals(a).abs().amax(dim=1)[:, None, None]
    b = randn(batch, size, seed=seed + 1)
    return a, b, torch.linalg.solve(torch.eye(size).double() - a, b)


def affine(z, a, b):
    return (a @ z.unsqueeze(2)).squeeze(2) + b


def network(strength=0.9, size=12, batch=3, seed=0):
    """z ← tanh(Wz + x): one fixed point if ‖W‖ < 1."""
    w = randn(size, size, seed=seed)
    return strength * w / torch.linalg.matrix_norm(w, 2), randn(batch, size, seed=seed + 1)


def tanh(z, w, x):
    return torch.tanh(z @ w.T + x)


def settling_slots(strength=0.3, **options):
    """A small slot attention module whose slots settle, its inputs and a start."""
    torch.manual_seed(0)
    module = SlotAttention(6, 8, num_slots=3, mlp_hidden_dim=16, **options).double()
    with torch.no_grad():
        module.mlp[2].weight.mul_(strength)
    return module, randn(2, 20, 6, seed=5), 0.3 * randn(2, 3, 8, seed=6)


# --- solving ---


@pytest.mark.parametrize("method", METHODS)
def test_the_solution_of_a_linear_system_is_found(method):
    a, b, solution = contraction()
    found = solve(affine, torch.zeros_like(b), a, b, method=method, tolerance=1e-10, max_iterations=600, memory=40)
    assert found.converged.all()
    assert (found.residuals <= 1e-10).all()
    close(found.z, solution, rtol=1e-7, atol=1e-7)


def problems():
    a, b, _ = contraction()
    yield "linear, spectral radius .95", lambda z: affine(z, a, b), torch.zeros_like(b), {"broyden", "anderson"}
    w, x = network(1.5, size=64)
    yield "tanh network", lambda z: tanh(z, w, 0.3 * x), torch.zeros_like(x), {"broyden", "anderson"}
    points = randn(2, 60, 2, seed=3)
    points[:, :30] += 1.5

    def kmeans(centres):
        return soft_kmeans(points, centres, 1.0, num_iterations=1).centres

    yield "soft k-means", kmeans, points[:, [0, 59]], {"broyden", "anderson"}
    module, inputs, start = settling_slots()
    prepared = module.prepare(inputs)
    yield "slot attention", lambda z: module.step(z, prepared)[0], start, {"broyden", "anderson"}


@pytest.mark.parametrize("name, f, start, faster", list(problems()), ids=lambda p: p if isinstance(p, str) else "")
def test_acceleration_needs_fewer_evaluations_than_plain_iteration(name, f, start, faster):
    with torch.no_grad():
        plain = solve(f, start, tolerance=1e-6, max_iterations=2000)
        assert plain.converged.all()
        for method in faster:
            found = solve(f, start, method=method, tolerance=1e-6, max_iterations=2000, memory=40)
            assert found.converged.all()
            assert found.iterations.max() < plain.iterations.max()
            close(found.z, plain.z, rtol=1e-3, atol=1e-4)


def test_accelerated_methods_find_a_fixed_point_that_repels():
    a, b, solution = contraction(size=10, radius=1.3, batch=1)
    assert not solve(affine, torch.zeros_like(b), a, b, max_iterations=200).converged.any()
    for method in ("anderson", "broyden"):
        found = solve(affine, torch.zeros_like(b), a, b, method=method, tolerance=1e-9, memory=30)
        assert found.converged.all()
        close(found.z, solution, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("slope, converges", [(0.5, True), (-0.9, True), (1.2, False), (-1.0, False)])
def test_on_a_line_plain_iteration_converges_where_the_slope_is_below_one(slope, converges):
    found = solve(lambda z: slope * z + 1, torch.zeros(1).double(), max_iterations=400)
    assert found.converged.item() == converges
    if converges:
        close(found.z, torch.tensor([1 / (1 - slope)]).double(), rtol=1e-4)
        # |slope|ⁿ · (1 − slope) ≤ tolerance, give or take the denominator of the residual
        expected = math.log(1e-6 / (1 - slope)) / math.log(abs(slope))
        assert abs(found.iterations.item() - expected) < 0.1 * expected + 3


@pytest.mark.parametrize("method", METHODS)
def test_stopping_early_does_not_change_other_samples(method):
    slopes = torch.tensor([0.1, 0.9, -0.5, 0.0]).double()[:, None] * torch.linspace(0.5, 1, 6).double()
    together = solve(lambda z: slopes * z + 1, torch.zeros(4, 6).double(), method=method, memory=10)
    for i in range(4):
        alone = solve(lambda z, i=i: slopes[i] * z + 1, torch.zeros(1, 6).double(), method=method, memory=10)
        assert together.iterations[i] == alone.iterations[0]
        close(together.z[i], alone.z[0], rtol=1e-10)
    assert len(together.iterations.unique()) > 2


def test_what_did_not_converge_says_so_and_nan_never_does():
    found = solve(lambda z: -z + 1, torch.tensor([0.5, 0.2]), max_iterations=20)
    assert found.converged.tolist() == [True, False]
    assert found.iterations.tolist() == [1, 20]
    for method in METHODS:
        assert not solve(lambda z: z * torch.nan, torch.ones(2, 3), method=method).converged.any()


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 4),
    shape=st.lists(st.integers(1, 4), max_size=2),
    radius=st.floats(0, 0.8),
    method=st.sampled_from(METHODS),
    seed=st.integers(0, 1000),
)
def test_any_shape_and_any_contraction_is_solved(batch, shape, radius, method, seed):
    size = math.prod(shape)
    w, x = network(radius, size, batch, seed)

    def f(z):
        return tanh(z.reshape(batch, size), w, x).view_as(z)

    found = solve(f, torch.zeros(batch, *shape).double(), method=method)
    assert found.z.shape == (batch, *shape)
    assert found.converged.all()
    assert (implicit.residual(f(found.z), found.z) < 1e-5).all()


# --- gradients ---


def gradients_of(gradient, steps=1, w=None, x=None, start=None, **options):
    w, x = (w, x) if w is not None else network()
    w, x = w.clone().requires_grad_(), x.clone().requires_grad_()
    start = torch.zeros_like(x) if start is None else start
    options = {"tolerance": 1e-13, "max_iterations": 2000} | options
    z = fixed_point(tanh, start, w, x, gradient=gradient, steps=steps, **options).z
    (z * randn(*z.shape, seed=9)).sum().backward()
    return torch.cat([w.grad.flatten(), x.grad.flatten()])


def test_exact_gradient_equals_the_unrolled_one_at_convergence():
    close(gradients_of("exact"), gradients_of("unrolled"), rtol=1e-6, atol=1e-7)


def test_exact_gradient_equals_the_analytic_one_of_a_linear_map():
    a, b, _ = contraction(radius=0.8)
    b.requires_grad_()
    g = randn(*b.shape, seed=4)
    fixed_point(affine, torch.zeros_like(b), a, b, tolerance=1e-12, max_iterations=500).z.backward(g)
    close(b.grad, torch.linalg.solve((torch.eye(30).double() - a).mT, g), rtol=1e-6, atol=1e-6)


def test_exact_gradient_equals_finite_differences():
    w, x = network(size=5, batch=2)

    def settled(w, x):
        return fixed_point(tanh, torch.zeros_like(x), w, x, tolerance=1e-14, max_iterations=2000).z

    torch.autograd.gradcheck(
        settled, (w.requires_grad_(), x.requires_grad_()), eps=1e-6, atol=1e-6, rtol=1e-5, fast_mode=True
    )


def test_exact_gradient_holds_at_a_fixed_point_that_repels():
    a, b, _ = contraction(size=8, radius=1.3, batch=1)
    b.requires_grad_()
    g = randn(1, 8, seed=4)
    options = dict(method="anderson", memory=30, tolerance=1e-12)
    fixed_point(affine, torch.zeros_like(b), a, b, **options).z.backward(g)
    close(b.grad, torch.linalg.solve((torch.eye(8).double() - a).mT, g), rtol=1e-5, atol=1e-5)


def test_one_step_is_two_lines():
    w, x = network()
    ours = gradients_of("implicit", w=w, x=x)
    w, x = w.clone().requires_grad_(), x.clone().requires_grad_()
    with torch.no_grad():
        z = solve(tanh, torch.zeros_like(x), w, x, tolerance=1e-13, max_iterations=2000).z
    z = tanh(z, w, x)
    (z * randn(*z.shape, seed=9)).sum().backward()
    assert torch.equal(ours, torch.cat([w.grad.flatten(), x.grad.flatten()]))
    assert torch.equal(ours, gradients_of("neumann"))


@pytest.mark.parametrize("terms", [2, 5, 9])
def test_at_the_fixed_point_the_last_iterations_are_neumann_terms(terms):
    close(gradients_of("implicit", terms), gradients_of("neumann", terms), rtol=1e-9)


def test_away_from_the_fixed_point_they_are_not():
    early = dict(max_iterations=1)
    iterations, terms = (gradients_of(g, 5, **early) for g in ("implicit", "neumann"))
    assert (iterations - terms).norm() > 1e-2 * iterations.norm()


@pytest.mark.parametrize("gradient", ["implicit", "neumann"])
def test_the_error_of_k_terms_falls_like_the_radius_to_the_k(gradient):
    a, b, _ = contraction(size=6, radius=0.8, batch=1, seed=2)
    a = (a + a.mT) / 2  # symmetric, so that the error falls at exactly this rate from the start
    a = a * 0.8 / torch.linalg.eigvalsh(a).abs().max()

    def error(steps):
        start = torch.linalg.solve(torch.eye(6).double() - a, b)
        found = b.clone().requires_grad_()
        fixed_point(affine, start, a, found, gradient=gradient, steps=steps).z.sum().backward()
        return (found.grad - torch.linalg.solve((torch.eye(6).double() - a).mT, torch.ones(1, 6).double())).norm()

    assert (error(40) / error(30)).item() == pytest.approx(0.8**10, rel=0.02)


def test_straight_through_reaches_the_start_and_nothing_else_does():
    w, x = network()
    for gradient in ("implicit", "neumann", "exact"):
        start = torch.zeros_like(x).requires_grad_()
        z = fixed_point(tanh, start, w, x.requires_grad_(), gradient=gradient).z
        assert torch.autograd.grad(z.sum(), start, allow_unused=True)[0] is None
    start = torch.zeros_like(x).requires_grad_()
    z = fixed_point(tanh, start, w, x, gradient="implicit", straight_through=True).z
    by_start = torch.autograd.grad(z.sum(), start)[0]
    last = solve(tanh, start.detach(), w, x.detach()).z.requires_grad_()
    close(by_start, torch.autograd.grad(tanh(last, w, x).sum(), last)[0])


def test_unrolled_gradient_for_the_start_fades_with_iterations():
    w, x = network()
    sizes = []
    for iterations in (2, 20, 200):
        start = torch.zeros_like(x).requires_grad_()
        options = dict(gradient="unrolled", tolerance=1e-300, max_iterations=iterations)
        sizes.append(torch.autograd.grad(fixed_point(tanh, start, w, x, **options).z.sum(), start)[0].norm().item())
    assert sizes[0] > 10 * sizes[1] > 100 * sizes[2]


@pytest.mark.parametrize("gradient, steps", [("unrolled", 1), ("implicit", 1), ("implicit", 3)])
def test_second_derivatives_where_they_are_defined(gradient, steps):
    w, x = network(0.5, size=3, batch=1)

    def f(x):
        options = dict(gradient=gradient, steps=steps, tolerance=1e-300, max_iterations=4)
        return fixed_point(tanh, torch.zeros_like(x), w, x, **options).z

    x.requires_grad_()
    first = torch.autograd.grad(f(x).sum(), x, create_graph=True)[0]
    second = torch.autograd.grad(first.sum(), x)[0]
    assert second.isfinite().all()
    assert (second != 0).any()
    if gradient == "unrolled":  # the others differentiate something else than they compute
        torch.autograd.gradgradcheck(f, (x,))


@pytest.mark.parametrize("gradient", ["neumann", "exact"])
def test_second_derivatives_are_refused_where_they_are_not(gradient):
    w, x = network()
    z = fixed_point(tanh, torch.zeros_like(x), w, x.requires_grad_(), gradient=gradient).z
    with pytest.raises(RuntimeError, match=r"no second derivatives.*unrolled"):
        torch.autograd.grad(z.sum(), x, create_graph=True)


def test_a_linear_system_without_solution_is_reported():
    def f(z, x):  # the slope at any z is 1, so 1 is an eigenvalue and I − J is singular
        return z + 0 * x

    x = torch.ones(2, 3).double().requires_grad_()
    found = fixed_point(f, torch.ones(2, 3).double(), x)
    assert found.adjoint == []
    with pytest.raises(RuntimeError, match="not solved for all samples"):
        found.z.sum().backward()
    assert not found.adjoint[0].converged.any()
    with pytest.warns(UserWarning, match="not solved for all samples"):
        fixed_point(f, torch.ones(2, 3).double(), x, strict=False).z.sum().backward()


@pytest.mark.parametrize("gradient", ["unrolled", "implicit", "neumann", "exact"])
def test_gradients_under_autocast_are_finite_and_near(gradient):
    w, x = (t.float() for t in network(0.6))
    options = dict(w=w, x=x, steps=5, tolerance=1e-2)
    plain = gradients_of(gradient, **options)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = gradients_of(gradient, **options)
    assert torch.cosine_similarity(plain, mixed, dim=0) > 0.99


def test_nothing_is_recorded_without_grad():
    w, x = network()
    with torch.no_grad():
        assert not fixed_point(tanh, torch.zeros_like(x), w, x.requires_grad_()).z.requires_grad


# --- the Jacobian ---


def test_norm_and_radius_of_known_matrices():
    a, b, _ = contraction(radius=0.7)
    at = torch.zeros_like(b)
    close(
        spectral_norm(affine, at, a, b, iterations=200, generator=seeded()), torch.linalg.matrix_norm(a, 2), rtol=1e-3
    )
    radius = spectral_radius(affine, at, a, b, iterations=400, generator=seeded())
    close(radius, torch.full((3,), 0.7).double(), rtol=0.02)


def test_norm_and_radius_are_different_things():
    shear = torch.tensor([[[0.5, 10.0], [0.0, 0.5]]]).double()
    at = torch.zeros(1, 2).double()
    assert spectral_norm(affine, at, shear, at) > 10
    assert spectral_radius(affine, at, shear, at, iterations=1000).item() == pytest.approx(0.5, rel=0.01)


def test_jacobian_of_slot_attention():
    module, inputs, start = settling_slots()

    def f(slots):
        return module.step(slots, module.prepare(inputs))[0]

    jacobian = torch.autograd.functional.jacobian(f, start)  # [2, 3, 8, 2, 3, 8]
    for i, norm in enumerate(spectral_norm(f, start, iterations=300, generator=seeded())):
        own = jacobian[i, :, :, i].reshape(24, 24)
        assert norm.item() == pytest.approx(torch.linalg.matrix_norm(own, 2).item(), rel=1e-3)


# --- slot attention ---


def slot_gradients(module, inputs, start, **call):
    inputs = inputs.clone().requires_grad_()
    module.zero_grad()
    out = module(inputs, slots=start, **call)
    (out.slots * randn(*out.slots.shape, seed=8)).sum().backward()
    parameters = [p.grad.flatten() for n, p in module.named_parameters() if not n.startswith("slots_")]
    return torch.cat([inputs.grad.flatten(), *parameters]), out


def test_exact_slot_attention_equals_the_unrolled_one_when_slots_have_settled():
    module, inputs, start = settling_slots(gradient="exact", num_iterations=300)
    exact, _ = slot_gradients(module, inputs, start)
    module.gradient = "unrolled"
    unrolled, _ = slot_gradients(module, inputs, start)
    assert (exact - unrolled).norm() <= 1e-6 * unrolled.norm()


def test_neumann_slot_attention_is_the_implicit_one_at_a_fixed_point_only():
    module, inputs, start = settling_slots(gradient_steps=4)
    for iterations, same in ((300, True), (5, False)):
        grads = []
        for module.gradient in ("neumann", "implicit"):
            # Neumann takes one iteration from the point where the other begins its last four.
            count = iterations - 3 * (module.gradient == "neumann")
            grads.append(slot_gradients(module, inputs, start, num_iterations=count)[0])
        assert ((grads[0] - grads[1]).norm() < 1e-6 * grads[1].norm()) == same


@pytest.mark.parametrize("gradient", ["implicit", "neumann", "exact"])
def test_bytes_for_backward_do_not_grow_with_iterations(gradient):
    module = SlotAttention(16, 16, gradient=gradient)
    inputs = torch.randn(2, 50, 16)

    def kept(iterations):
        tensors = {}
        with saved_tensors_hooks(lambda t: tensors.setdefault(t.untyped_storage().data_ptr(), t), lambda t: t):
            module(inputs, num_iterations=iterations, generator=seeded())
        return sum(t.untyped_storage().nbytes() for t in tensors.values())

    assert 0 < kept(30) <= 1.05 * kept(3)


@pytest.mark.parametrize("gradient", ["unrolled", "implicit", "neumann", "exact"])
def test_with_tolerance_slots_stop_when_they_have_settled(gradient):
    module, inputs, start = settling_slots(gradient=gradient, num_iterations=400)
    everything = module(inputs, slots=start).slots
    module.tolerance = 1e-8
    out = module(inputs, slots=start, return_history=True)
    close(out.slots, everything, rtol=1e-5, atol=1e-6)
    needed = out.history.needed
    assert (needed < 400).all()
    for image in range(2):  # each on its own clock
        alone = module(inputs[image : image + 1], slots=start[image : image + 1], return_history=True)
        assert alone.history.needed.item() == needed[image]
        close(alone.slots[0], out.slots[image], rtol=1e-9)
        close(alone.attention[0], out.attention[image], rtol=1e-9)
    module.num_iterations = 5
    assert module(inputs, slots=start, return_history=True).history.needed.tolist() == [5, 5]


def test_learned_starts_get_a_gradient_in_every_mode():
    for gradient in ("unrolled", "implicit", "neumann", "exact"):
        module = SlotAttention(6, 8, slot_init="learned", gradient=gradient)
        with torch.no_grad():
            module.mlp[2].weight.mul_(0.3)
        module(torch.randn(2, 20, 6, generator=seeded()), num_iterations=40).slots.square().sum().backward()
        assert (module.slots_mu.grad != 0).all()


@pytest.mark.parametrize(
    "call, named",
    [
        (lambda z: solve(torch.tanh, z, method="newton"), ["method", "plain", "'newton'"]),
        (lambda z: solve(torch.tanh, z, method=None), ["method", "plain", "None"]),
        (lambda z: solve(torch.tanh, z, tolerance=0), ["tolerance", "above 0", "got 0"]),
        (lambda z: solve(torch.tanh, z, tolerance=math.nan), ["tolerance", "above 0", "got nan"]),
        (lambda z: solve(torch.tanh, z, tolerance="small"), ["tolerance", "number", "'small'"]),
        (lambda z: solve(torch.tanh, z, max_iterations=0), ["max_iterations", "at least 1", "got 0"]),
        (lambda z: solve(torch.tanh, z, max_iterations=1.5), ["max_iterations", "whole number", "got 1.5"]),
        (lambda z: solve(torch.tanh, z, memory=0), ["memory", "at least 1", "got 0"]),
        (lambda z: solve(torch.tanh, z.long()), ["floating point", "int64"]),
        (lambda z: solve(torch.tanh, z.numpy()), ["floating point", "NumPy"]),
        (lambda z: solve(torch.tanh, None), ["floating point", "None"]),
        (lambda z: solve(None, z), ["f must be a function", "None"]),
        (lambda z: solve(lambda z: None, z), ["f must return", "[2, 3]", "None"]),
        (lambda z: solve(lambda z: z[:, :1], z), ["shape", "[2, 3]", "[2, 1]"]),
        (lambda z: fixed_point(torch.tanh, z, gradient="bptt"), ["gradient", "implicit", "'bptt'"]),
        (lambda z: fixed_point(torch.tanh, z, gradient="neumann", steps=0), ["steps", "got 0"]),
        (lambda z: fixed_point(torch.tanh, z, gradient="unrolled", method="broyden"), ["plain", "'broyden'"]),
        (lambda z: SlotAttention(6, tolerance=-1.0), ["tolerance", "-1.0"]),
        (lambda z: SlotAttention(6, gradient="one_step"), ["gradient", "exact", "'one_step'"]),
        (lambda z: fixed_point(torch.tanh, z, gradient="implicit", steps=None), ["steps", "whole number", "None"]),
        (lambda z: implicit.last_steps(None, z, gradient="exact"), ["f must be a function", "None"]),
        (lambda z: implicit.last_steps(torch.tanh, "z", gradient="exact"), ["z must be floating point", "'z'"]),
        (lambda z: implicit.last_steps(torch.tanh, z, gradient="exact", start=z.T), ["start", "[2, 3] as z", "[3, 2]"]),
        (lambda z: implicit.residual(z, z.T), ["value", "[3, 2] as z", "[2, 3]"]),
        (lambda z: spectral_norm(torch.tanh, z.long()), ["z must be floating point", "int64"]),
        (lambda z: spectral_radius(torch.tanh, z, generator=1), ["generator", "torch.Generator", "got 1"]),
        (lambda z: spectral_norm(torch.tanh, z, iterations=0), ["iterations", "at least 1", "got 0"]),
        (lambda z: spectral_radius(torch.tanh, z, iterations=2.5), ["iterations", "whole number", "got 2.5"]),
    ],
)
def test_bad_input_is_one_clear_error(call, named):
    with pytest.raises(ValueError) as error:
        call(torch.zeros(2, 3))
    assert all(word in str(error.value) for word in named), str(error.value)
