"""Slot attention against Algorithm 1 written out in float64, its own symmetries, and what torch does to modules."""

import copy
import inspect
import math
import weakref

import jaxtyping
import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call, grad, jvp, stack_module_state, vmap
from torch.nn.utils import prune

from slotlib import slot_attention
from slotlib.model import Model, Ramp
from slotlib.slot_attention import AttentionConfig, KeysAndValues, PreparedInputs, SlotAttention

GRADIENTS = ("unrolled", "implicit", "neumann", "exact")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def close(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def build(input_dim: int = 6, slot_dim: int = 8, **options) -> SlotAttention:
    """A small module in float64 whose every parameter counts: no gain is 1 and no bias 0."""
    options = {"num_slots": 4, "mlp_hidden_dim": 10} | options
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(7)
        module = SlotAttention(input_dim, slot_dim, **options).double()
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


# --- Algorithm 1 of Locatello et al. (2020), the plain way ---


def layer_norm(x, norm):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-3).sqrt() * norm.weight + norm.bias


def gru(update, hidden, cell):
    """Cho et al. (2014), with the gates in PyTorch's order and the reset gate applied after the product."""
    from_update = (update @ cell.weight_ih.T + cell.bias_ih).chunk(3, -1)
    from_hidden = (hidden @ cell.weight_hh.T + cell.bias_hh).chunk(3, -1)
    reset = 1 / (1 + torch.exp(-from_update[0] - from_hidden[0]))
    keep = 1 / (1 + torch.exp(-from_update[1] - from_hidden[1]))
    candidate = torch.tanh(from_update[2] + reset * from_hidden[2])
    return (1 - keep) * candidate + keep * hidden


def written_out_step(module, slots, inputs):
    inputs = layer_norm(inputs, module.norm_inputs)
    keys, values = inputs @ module.project_k.weight.T, inputs @ module.project_v.weight.T
    queries = layer_norm(slots, module.norm_slots) @ module.project_q.weight.T
    width = queries.shape[-1] // module.num_heads
    updates, attentions = [], []
    for head in range(module.num_heads):
        of_head = slice(head * width, (head + 1) * width)
        k, q, v = keys[..., of_head], queries[..., of_head], values[..., of_head]
        logits = torch.einsum("bnc,bkc->bnk", k, q) / math.sqrt(width)
        attention = logits.exp() / logits.exp().sum(-1, keepdim=True)  # over the slots
        weights = attention + module.eps
        weights = weights / weights.sum(1, keepdim=True)  # over the inputs
        updates.append(torch.einsum("bnk,bnc->bkc", weights, v))
        attentions.append(attention.transpose(1, 2))
    slots = gru(torch.cat(updates, -1), slots, module.gru)
    hidden = layer_norm(slots, module.norm_mlp) @ module.mlp[0].weight.T + module.mlp[0].bias
    slots = slots + hidden.clamp(min=0) @ module.mlp[2].weight.T + module.mlp[2].bias
    return slots, torch.stack(attentions).mean(0)


def written_out(module, slots, inputs, iterations):
    for _ in range(iterations):
        slots, attention = written_out_step(module, slots, inputs)
    return slots, attention


def gradients(outputs, module, *more):
    """Of a loss in which every number of slots and attention has its own weight."""
    loss = sum((x * randn(*x.shape, seed=i).to(x)).sum() for i, x in enumerate(outputs))
    leaves = [p for p in module.parameters() if p.requires_grad] + list(more)
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize(("input_dim", "slot_dim"), [(6, 8), (8, 8), (12, 4)])
@pytest.mark.parametrize("iterations", [1, 3])
def test_equals_algorithm_1(heads, input_dim, slot_dim, iterations):
    module = build(input_dim, slot_dim, num_heads=heads, num_iterations=iterations)
    inputs = randn(3, 20, input_dim, seed=1).requires_grad_()
    start = randn(3, 4, slot_dim, seed=2).requires_grad_()
    ours = module(inputs, slots=start)
    expected = written_out(module, start, inputs, iterations)
    close(ours.slots, expected[0], atol=1e-10)
    close(ours.attention, expected[1], atol=1e-10)
    for a, b in zip(
        gradients(ours[:2], module, inputs, start), gradients(expected, module, inputs, start), strict=True
    ):
        close(a, b, atol=1e-10)


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize(("input_dim", "slot_dim"), [(6, 8), (8, 8), (12, 4)])
def test_the_fast_arithmetic_is_the_paper_s(heads, input_dim, slot_dim):
    module = build(input_dim, slot_dim, num_heads=heads)
    inputs = randn(3, 20, input_dim, seed=1).requires_grad_()
    start = randn(3, 4, slot_dim, seed=2).requires_grad_()
    fast, plain = module(inputs, slots=start)[:2], slot_attention.algorithm_1(module, inputs, start, 3)
    for a, b in zip(fast, plain, strict=True):
        close(a, b, atol=1e-12)
    leaves = module, inputs, start
    for a, b in zip(gradients(fast, *leaves), gradients(plain, *leaves), strict=True):
        close(a, b, atol=1e-10)


def test_the_paper_s_lines_fit_beside_the_paper():
    lines = [
        line
        for function in (slot_attention.algorithm_1, slot_attention.iteration)
        for line in inspect.getsource(function).splitlines()
    ]
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 80


def test_a_large_epsilon_is_added_to_every_weight_before_normalising():
    module = build(eps=0.1)
    inputs, start = randn(3, 20, 6, seed=1), randn(3, 4, 8, seed=2)
    close(module(inputs, slots=start).slots, written_out(module, start, inputs, 3)[0], atol=1e-10)


def test_single_precision_is_single_precision_close():
    module, inputs, start = build(), randn(3, 50, 6, seed=1), randn(3, 4, 8, seed=2)
    expected = written_out(module, start, inputs, 3)[0]
    ours = module.float()(inputs.float(), slots=start.float()).slots
    close(ours.double(), expected, atol=1e-4)


@pytest.mark.parametrize("heads", [1, 2])
def test_gradients_under_bfloat16_autocast_are_bfloat16_close(heads):
    module = build(num_heads=heads).float()
    inputs, start = randn(3, 50, 6, seed=1).float().requires_grad_(), randn(3, 4, 8, seed=2).float()
    exact = gradients(module(inputs, slots=start)[:1], module, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(inputs, slots=start)
    rough = gradients([out.slots.float()], module, inputs)
    exact, rough = (torch.cat([g.flatten() for g in found]) for found in (exact, rough))
    assert (rough - exact).norm() < 0.1 * exact.norm()


def test_finite_differences_agree():
    module = build(4, 4, num_heads=2, num_slots=2, num_iterations=2, mlp_hidden_dim=3)

    def run(inputs, slots, *_parameters):
        return module(inputs, slots=slots)[:2]

    leaves = [randn(2, 5, 4, seed=1).requires_grad_(), randn(2, 2, 4, seed=2).requires_grad_()]
    used = [p for name, p in module.named_parameters() if not name.startswith("slots_")]
    assert torch.autograd.gradcheck(run, (*leaves, *used), fast_mode=True)


# --- symmetries ---


@pytest.mark.parametrize("heads", [1, 2])
def test_slots_follow_their_start_and_ignore_the_order_of_inputs(heads):
    module = build(num_heads=heads)
    inputs, start = randn(3, 20, 6, seed=1), randn(3, 4, 8, seed=2)
    of_slots = torch.randperm(4, generator=generator(1))
    of_inputs = torch.randperm(20, generator=generator(2))
    plain = module(inputs, slots=start)
    moved = module(inputs[:, of_inputs], slots=start[:, of_slots])
    close(moved.slots, plain.slots[:, of_slots])
    close(moved.attention, plain.attention[:, of_slots][:, :, of_inputs])


def test_a_set_repeated_is_the_same_set():
    module, inputs, start = build(), randn(3, 20, 6, seed=1), randn(3, 4, 8, seed=2)
    once, twice = module(inputs, slots=start), module(inputs.repeat(1, 2, 1), slots=start)
    close(twice.slots, once.slots)


def test_equal_starts_are_never_told_apart():
    slots = build()(randn(3, 20, 6), slots=randn(3, 1, 8).expand(-1, 4, -1)).slots
    close(slots, slots[:, :1].expand(-1, 4, -1))


def test_images_of_a_batch_do_not_see_each_other():
    module, inputs, start = build(), randn(3, 20, 6, seed=1), randn(3, 4, 8, seed=2)
    together = module(inputs, slots=start).slots
    for i in range(3):
        alone = module(inputs[i : i + 1], slots=start[i : i + 1]).slots
        close(together[i : i + 1], alone)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_every_input_shares_out_exactly_one(heads, count):
    out = build(num_heads=heads)(5 * randn(3, 20, 6), num_slots=count)
    close(out.attention.sum(1), torch.ones(3, 20, dtype=torch.float64))
    assert (out.attention >= 0).all()


def test_without_competition_every_slot_attends_for_itself():
    module, inputs, start = build(competition=False, num_heads=2), randn(3, 20, 6), randn(3, 4, 8, seed=1)
    together = module(inputs, slots=start)
    close(together.attention.sum(2), torch.ones(3, 4, dtype=torch.float64))
    for k in range(4):  # what rivals there are changes nothing
        close(together.slots[:, k : k + 1], module(inputs, slots=start[:, k : k + 1]).slots)
    # One step's weighted mean is torch's own attention, but for ε.
    x, heads = module.norm_inputs(inputs), lambda y: y.unflatten(-1, (2, -1)).transpose(1, 2)
    q, k, v = module.project_q(module.norm_slots(start)), module.project_k(x), module.project_v(x)
    update = nn.functional.scaled_dot_product_attention(heads(q), heads(k), heads(v)).transpose(1, 2).flatten(2)
    slots = module.gru(update.flatten(0, 1), start.flatten(0, 1)).view_as(start)
    close(module(inputs, slots=start, num_iterations=1).slots, slots + module.mlp(module.norm_mlp(slots)), atol=1e-6)


def test_a_slot_without_rivals_owns_everything():
    assert (build()(randn(3, 20, 6), num_slots=1).attention == 1).all()


# --- the start ---


def test_gaussian_start_has_the_learned_mean_and_spread():
    module = build(slot_dim=3)
    start = module.initial_slots(2000, 5, generator(0)).flatten(0, 1).detach()
    for channel in range(3):
        mean = module.slots_mu[0, 0, channel].item()
        spread = module.slots_log_sigma[0, 0, channel].exp().item()
        assert stats.kstest(start[:, channel].numpy(), "norm", args=(mean, spread)).pvalue > 1e-3


@pytest.mark.parametrize("slot_dim", [4, 64])
def test_mu_and_log_sigma_start_within_the_bound_of_keras(slot_dim):
    # Glorot-uniform on shape (1, 1, D): fans 1 and D, hence √(6 / (1 + D)). At D = 64 that is 0.304.
    bound = math.sqrt(6 / (1 + slot_dim))
    modules = [SlotAttention(2, slot_dim, mlp_hidden_dim=1) for _ in range(2048 // slot_dim)]
    for name in ("slots_mu", "slots_log_sigma"):
        drawn = torch.cat([getattr(m, name).flatten() for m in modules]).detach().numpy()
        assert abs(drawn).max() <= bound
        assert abs(drawn).max() > 0.98 * bound
        assert stats.kstest(drawn, "uniform", args=(-bound, 2 * bound)).pvalue > 1e-6


def test_learned_slots_start_every_image_alike():
    module = build(slot_init="learned")
    close(module.initial_slots(3), module.slots_mu.expand(3, -1, -1), atol=0)


@pytest.mark.parametrize("gradient", ["unrolled", "implicit"])
def test_with_one_learned_start_the_first_is_learned_and_the_others_are_drawn(gradient):
    module = build(slot_init="one_learned", gradient=gradient)
    for count in (1, 4, 7):
        start = module.initial_slots(3, count, generator())
        close(start[:, :1], module.slots_first.expand(3, -1, -1), atol=0)
        assert len(start[:, 1:].flatten(0, 1).unique(dim=0)) == 3 * (count - 1)
    module(randn(3, 20, 6)).slots.square().sum().backward()
    assert (module.slots_first.grad != 0).all()


@pytest.mark.parametrize("gradient", ["unrolled", "implicit"])
def test_one_generator_state_is_one_result(gradient):
    module, inputs = build(gradient=gradient), randn(3, 20, 6)
    same, again, other = (module(inputs, generator=generator(seed)).slots for seed in (5, 5, 6))
    assert torch.equal(same, again)
    assert not torch.allclose(same, other)


def test_a_generator_leaves_the_global_one_alone():
    module, before = build(), torch.get_rng_state()
    module(randn(3, 20, 6), generator=generator())
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_generator_the_global_seed_decides():
    module, inputs, runs = build(), randn(3, 20, 6), []
    with torch.random.fork_rng(devices=[]):
        for _ in range(2):
            torch.manual_seed(3)
            runs.append(module(inputs).slots)
    assert torch.equal(*runs)


# --- overriding, history, stepping ---


@pytest.mark.parametrize("gradient", ["unrolled", "implicit"])
def test_a_call_overrides_what_the_module_was_built_with(gradient):
    small, large = build(gradient=gradient), build(gradient=gradient, num_slots=7, num_iterations=5)
    large.load_state_dict(small.state_dict())  # the gaussian start does not depend on the number of slots
    inputs = randn(3, 20, 6)
    here = small(inputs, num_slots=7, num_iterations=5, generator=generator())
    assert torch.equal(here.slots, large(inputs, generator=generator()).slots)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("gradient", ["unrolled", "implicit"])
def test_history_is_a_chain_of_steps(heads, gradient):
    module = build(num_heads=heads, gradient=gradient, num_iterations=4)
    inputs = randn(3, 20, 6)
    out = module(inputs, generator=generator(), return_history=True)
    prepared = module.prepare(inputs)
    assert torch.equal(out.history.slots[0], module.initial_slots(3, generator=generator()))
    for i in range(4):
        slots, attention = module.step(out.history.slots[i], prepared)
        close(out.history.slots[i + 1], slots)
        close(out.history.attention[i], attention)
    assert torch.equal(out.history.slots[-1], out.slots)
    assert torch.equal(out.history.attention[-1], out.attention)
    assert module(inputs).history is None


def test_stopping_and_going_on_is_one_run():
    module, inputs = build(), randn(3, 20, 6)
    halfway = module(inputs, num_iterations=2, generator=generator()).slots
    resumed = module(inputs, num_iterations=3, slots=halfway).slots
    close(resumed, module(inputs, num_iterations=5, generator=generator()).slots)


# --- padding ---

REAL = (5, 12, 9)  # inputs of three images; the others, up to 12, are padding


def padded(inputs: torch.Tensor, fill: float) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.arange(inputs.shape[1]) < torch.tensor(REAL)[:, None]
    return inputs.masked_fill(~mask[..., None], fill), mask


def with_hook(module: SlotAttention) -> SlotAttention:
    """The same module, whose layers can no longer be read."""
    module.project_k.register_forward_hook(lambda *_: None)
    return module


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize(
    ("heads", "slot_init", "tolerance"), [(1, "gaussian", 0.0), (2, "learned", 0.05), (2, "one_learned", 0.0)]
)
@pytest.mark.filterwarnings("ignore:the gradient's linear system")
def test_padding_changes_nothing(gradient, heads, slot_init, tolerance):
    module = build(num_heads=heads, gradient=gradient, slot_init=slot_init, tolerance=tolerance, gradient_steps=2)
    with torch.no_grad():
        module.mlp[2].weight.mul_(0.1)  # slots that settle, so that "exact" has something to solve
    whole, start = randn(3, 12, 6, seed=1), module.initial_slots(3, generator=generator()).detach()
    atol = 1e-5 if gradient == "exact" else 1e-9  # a system solved to a tolerance
    for fill, layers in ((0.0, module), (math.nan, module), (math.inf, module), (math.nan, with_hook(module))):
        inputs, mask = padded(whole, fill)
        inputs.requires_grad_()
        out = layers(inputs, slots=start, mask=mask, num_iterations=8, return_history=True)
        close(out.attention.sum(1), mask.double())
        assert (out.history.attention.masked_select(~mask[None, :, None]) == 0).all()
        together = gradients(out[:1], layers, inputs)
        apart = [torch.zeros_like(p) for p in layers.parameters() if p.requires_grad]
        weights = randn(*out.slots.shape)  # those of `gradients`
        for i, count in enumerate(REAL):
            real = whole[i : i + 1, :count].clone().requires_grad_()
            alone = layers(real, slots=start[i : i + 1], num_iterations=8, return_history=True)
            close(out.slots[i], alone.slots[0])
            close(out.attention[i, :, :count], alone.attention[0])
            close(out.history.slots[:, i], alone.history.slots[:, 0])
            close(out.history.attention[:, i, :, :count], alone.history.attention[:, 0])
            assert out.history.needed[i] == alone.history.needed[0]
            leaves = [p for p in layers.parameters() if p.requires_grad]
            loss = (alone.slots[0] * weights[i]).sum()
            *own, by_inputs = torch.autograd.grad(loss, [*leaves, real], allow_unused=True)
            apart = [total if g is None else total + g for total, g in zip(apart, own, strict=True)]
            close(together[-1][i, :count], by_inputs[0], atol)
            assert (together[-1][i, count:] == 0).all()
        for a, b in zip(together[:-1], apart, strict=True):
            close(a, b, atol)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_no_images_are_no_slots(gradient):
    module = build(gradient=gradient, tolerance=0.1)
    out = module(randn(0, 5, 6), return_history=True)
    assert (out.slots.shape, out.attention.shape, out.history.needed.shape) == ((0, 4, 8), (0, 4, 5), (0,))


def test_without_padding_a_mask_is_no_mask():
    module, inputs, start = build(), randn(3, 20, 6), randn(3, 4, 8, seed=2)
    everything = torch.ones(3, 20, dtype=torch.bool)
    close(module(inputs, slots=start, mask=everything).slots, module(inputs, slots=start).slots)


# --- gradients of the two modes ---


@pytest.mark.parametrize("slot_init", ["gaussian", "learned"])
def test_both_modes_compute_the_same_forward(slot_init):
    implicit = build(gradient="implicit", slot_init=slot_init)
    unrolled = build(gradient="unrolled", slot_init=slot_init)
    inputs = randn(3, 20, 6)
    close(
        implicit(inputs, generator=generator()).slots,
        unrolled(inputs, generator=generator()).slots,
    )


def test_implicit_gradient_is_that_of_one_step_from_a_constant():
    module = build(gradient="implicit", num_iterations=5)
    inputs = randn(3, 20, 6).requires_grad_()
    ours = gradients(module(inputs, generator=generator())[:2], module, inputs)
    with torch.no_grad():
        near_fixed_point = module(inputs, num_iterations=4, generator=generator()).slots
    expected = gradients(written_out_step(module, near_fixed_point, inputs), module, inputs)
    for a, b in zip(ours, expected, strict=True):
        close(a, b, atol=1e-10)


def test_implicit_gradient_reaches_learned_queries_straight_through():
    # The start receives what the last step's input would, as if the iterations in between were the identity.
    module = build(gradient="implicit", slot_init="learned", num_iterations=5)
    inputs = randn(3, 20, 6)
    ours = gradients(module(inputs)[:2], module)[0]
    with torch.no_grad():
        last_input = module(inputs, num_iterations=4).slots
    last_input.requires_grad_()
    expected = gradients(written_out_step(module, last_input, inputs), module, last_input)[-1]
    close(ours, expected.sum(0, keepdim=True), atol=1e-10)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_k_gradient_steps_unroll_the_last_k_iterations(steps):
    implicit = build(gradient="implicit", gradient_steps=steps, num_iterations=5)
    inputs = randn(3, 20, 6).requires_grad_()
    ours = gradients(implicit(inputs, generator=generator())[:2], implicit, inputs)
    with torch.no_grad():
        start = implicit.initial_slots(3, generator=generator())
        if steps < 5:
            start = implicit(inputs, num_iterations=5 - steps, slots=start).slots
    expected = gradients(written_out(implicit, start, inputs, steps), implicit, inputs)
    for a, b in zip(ours, expected, strict=True):
        close(a, b, atol=1e-10)


def test_k_gradient_steps_at_a_fixed_point_are_k_terms_of_the_neumann_series():
    module = build(3, 4, num_slots=2, mlp_hidden_dim=3, gradient="implicit")
    inputs = randn(1, 6, 3, seed=3).requires_grad_()
    with torch.no_grad():
        for parameter in module.mlp[2].parameters():  # a strong residual MLP pushes the slots away for ever
            parameter.mul_(0.1)
        fixed = module(inputs, num_iterations=500, slots=randn(1, 2, 4)).slots
        close(module(inputs, num_iterations=1, slots=fixed).slots, fixed, atol=1e-9)
    by_slots, by_inputs = (
        j.flatten(3).flatten(0, 2)
        for j in torch.autograd.functional.jacobian(
            lambda s, x: module.step(s, module.prepare(x))[0], (fixed, inputs.detach())
        )
    )
    upstream, series, term = randn(8, seed=4), torch.zeros(18, dtype=torch.float64), None
    for steps in range(1, 6):
        term = upstream if term is None else term @ by_slots
        series = series + term @ by_inputs
        module.gradient_steps = steps
        slots = module(inputs, num_iterations=steps + 2, slots=fixed).slots
        close(torch.autograd.grad(slots, inputs, upstream.view(1, 2, 4))[0].flatten(), series, atol=1e-8)


def test_with_a_single_iteration_the_modes_agree():
    modules = [build(gradient=g, slot_init="learned", num_iterations=1) for g in ("implicit", "unrolled")]
    inputs = randn(3, 20, 6).requires_grad_()
    for a, b in zip(*(gradients(m(inputs)[:2], m, inputs) for m in modules), strict=True):
        close(a, b)


@pytest.mark.parametrize("gradient", ["unrolled", "implicit"])
def test_learned_queries_and_given_slots_learn(gradient):
    module = build(gradient=gradient, slot_init="learned")
    module(randn(3, 20, 6)).slots.square().sum().backward()
    assert (module.slots_mu.grad != 0).all()
    given = randn(3, 4, 8).requires_grad_()
    module(randn(3, 20, 6), slots=given).slots.square().sum().backward()
    assert (given.grad != 0).all()


@pytest.mark.parametrize("slot_init", ["gaussian", "one_learned"])
def test_mu_and_sigma_learn_through_unrolled_iterations_only(slot_init):
    for gradient, learns in (("unrolled", True), ("implicit", False)):
        module = build(gradient=gradient, slot_init=slot_init)
        module(randn(3, 20, 6), generator=generator()).slots.square().sum().backward()
        for parameter in (module.slots_mu, module.slots_log_sigma):
            assert (parameter.grad is not None and (parameter.grad != 0).all()) == learns


def kept_for_backward(module, iterations: int) -> int:
    """Bytes autograd saves in one forward pass, every storage counted once."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    alive = []  # an address is only unique while its tensor lives
    with saved_tensors_hooks(lambda t: alive.append(t) or keep(t), lambda t: t):
        module(randn(2, 50, 6).requires_grad_(), num_iterations=iterations, generator=generator())
    return sum(kept.values())


def test_implicit_graph_does_not_grow_with_iterations():
    module = build(gradient="implicit")
    assert kept_for_backward(module, 3) == kept_for_backward(module, 30) > 0


def test_unrolled_graph_grows_with_iterations():
    module = build(gradient="unrolled")
    one, two, eleven = (kept_for_backward(module, n) for n in (1, 2, 11))
    assert eleven - one == 10 * (two - one) > 0
    # k gradient steps keep what k unrolled iterations do, however many ran before them.
    assert kept_for_backward(build(gradient="implicit", gradient_steps=2), 30) <= two


@pytest.mark.parametrize("grad", [True, False])
def test_finished_iterations_are_forgotten(grad):
    module = build(gradient="implicit")
    looks, most = [], 0
    step = module.step

    def watched(slots, prepared):
        nonlocal most
        most = max(most, sum(look() is not None for look in looks))
        slots, attention = step(slots, prepared)
        looks.append(weakref.ref(attention))
        return slots, attention

    module.step = watched
    with torch.set_grad_enabled(grad):
        module(randn(2, 50, 6), num_iterations=20)
    assert most <= 1  # the last attention, until the next one replaces it


# --- carrying weights over ---


def test_state_dict_has_the_names_and_shapes_of_the_official_implementation():
    state = SlotAttention(6, 8, mlp_hidden_dim=10).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "norm_inputs.weight": (6,),
        "norm_inputs.bias": (6,),
        "norm_slots.weight": (8,),
        "norm_slots.bias": (8,),
        "norm_mlp.weight": (8,),
        "norm_mlp.bias": (8,),
        "project_q.weight": (8, 8),
        "project_k.weight": (8, 6),
        "project_v.weight": (8, 6),
        "gru.weight_ih": (24, 8),
        "gru.weight_hh": (24, 8),
        "gru.bias_ih": (24,),
        "gru.bias_hh": (24,),
        "mlp.0.weight": (10, 8),
        "mlp.0.bias": (10,),
        "mlp.2.weight": (8, 10),
        "mlp.2.bias": (8,),
        "slots_mu": (1, 1, 8),
        "slots_log_sigma": (1, 1, 8),
    }


def test_learned_queries_are_one_per_slot():
    state = SlotAttention(6, 8, num_slots=5, slot_init="learned").state_dict()
    assert tuple(state["slots_mu"].shape) == (1, 5, 8)
    assert "slots_log_sigma" not in state


# --- what torch does to modules ---


@pytest.mark.parametrize("gradient", ["unrolled", "implicit"])
def test_gradients_of_single_images_by_vmap(gradient):
    module = build(gradient=gradient)
    whole, start = randn(3, 12, 6, seed=1), randn(3, 4, 8, seed=2)
    inputs, mask = padded(whole, math.nan)
    learned = {name: p for name, p in module.named_parameters() if not name.startswith("slots_")}

    def loss(learned, inputs, start, mask):
        options = dict(slots=start[None], mask=mask[None])
        return functional_call(module, learned, (inputs[None],), options).slots.square().sum()

    found = vmap(grad(loss), (None, 0, 0, 0))(learned, inputs, start, mask)
    for i in range(3):
        alone = loss(learned, inputs[i], start[i], mask[i])
        for a, b in zip(found.values(), torch.autograd.grad(alone, list(learned.values())), strict=True):
            close(a[i], b, atol=1e-10)


@pytest.mark.parametrize("gradient", ["unrolled", "implicit"])
@pytest.mark.parametrize("slot_init", ["gaussian", "learned"])
def test_the_images_of_a_vmap_may_have_their_start_in_common(gradient, slot_init):
    module, inputs = build(gradient=gradient, slot_init=slot_init), randn(3, 12, 6, seed=1)
    learned, start = dict(module.named_parameters()), None if slot_init == "learned" else randn(1, 4, 8, seed=2)

    def loss(learned, inputs):
        return functional_call(module, learned, (inputs[None],), {"slots": start}).slots.square().sum()

    found = vmap(grad(loss), (None, 0))(learned, inputs)["project_q.weight"]
    for i in range(3):
        close(found[i], torch.autograd.grad(loss(learned, inputs[i]), learned["project_q.weight"])[0], atol=1e-10)


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_an_ensemble_by_vmap(gradient):
    modules = [build(gradient=gradient, tolerance=0.05) for _ in range(3)]
    for i, module in enumerate(modules):
        with torch.no_grad():
            module.project_q.weight.add_(0.1 * randn(8, 8, seed=i))
    inputs, start = randn(2, 12, 6, seed=1), randn(2, 4, 8, seed=2)
    skeleton = copy.deepcopy(modules[0]).to("meta")
    with torch.no_grad():
        together = vmap(lambda state: functional_call(skeleton, state, (inputs,), {"slots": start}).slots)(
            stack_module_state(modules)[0]
        )
        for slots, module in zip(together, modules, strict=True):
            close(slots, module(inputs, slots=start).slots)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_every_image_of_a_vmap_may_draw_its_own_start():
    module, inputs = build(), randn(1, 12, 6).expand(3, 12, 6)
    slots = vmap(lambda x: module(x[None]).slots[0], randomness="different")(inputs)
    assert len(slots.flatten(0, 1).unique(dim=0)) == 12


@pytest.mark.parametrize("gradient", ["unrolled", "implicit"])
def test_forward_mode_is_the_transpose_of_reverse_mode(gradient):
    module, start = build(gradient=gradient, num_heads=2), randn(2, 4, 8, seed=2)
    inputs, direction = randn(2, 12, 6, seed=1).requires_grad_(), randn(2, 12, 6, seed=3)
    slots, forwards = jvp(lambda x: module(x, slots=start).slots, (inputs.detach(),), (direction,))
    weights = randn(*slots.shape, seed=4)
    backwards = torch.autograd.grad(module(inputs, slots=start).slots, inputs, weights)[0]
    close((forwards * weights).sum(), (backwards * direction).sum(), atol=1e-10)


@pytest.mark.parametrize("gradient", ["neumann", "exact"])
def test_what_torch_func_cannot_transform_says_so(gradient):
    module, inputs, start = build(gradient=gradient), randn(2, 12, 6), randn(2, 4, 8)
    with pytest.raises(RuntimeError, match=r'"neumann".*torch\.func.*"unrolled" and "implicit" can'):
        grad(lambda x: module(x, slots=start).slots.sum())(inputs)


def test_on_the_meta_device_shapes_come_out():
    with torch.device("meta"):
        module = SlotAttention(6, 8, gradient="implicit", tolerance=0.1)
        out = module(torch.empty(2, 5, 6), mask=torch.ones(2, 5, dtype=torch.bool), return_history=True)
    assert (out.slots.shape, out.attention.shape, out.history.slots.shape) == ((2, 7, 8), (2, 7, 5), (4, 2, 7, 8))


@pytest.fixture
def unchecked():
    """Symbolic sizes do not pass the comparison with annotations."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


def compare_compiled() -> None:
    """For test_compiled.py."""
    for gradient in GRADIENTS:
        whole = gradient in ("unrolled", "implicit")  # the others ask autograd for products in between
        # "unrolled" searches in two iterations, and the others in one: not whole, each more would take a second.
        module = build(gradient=gradient, tolerance=0.05, gradient_steps=2, num_iterations=3 if whole else 2)
        (inputs, mask), start = padded(randn(3, 12, 6, seed=1), 7.0), randn(3, 4, 8, seed=2)
        compiled = torch.compile(module, backend="eager", fullgraph=whole)
        found = compiled(inputs.requires_grad_(), slots=start, mask=mask)
        expected = module(inputs, slots=start, mask=mask)
        close(found.slots, expected.slots, atol=1e-10)
        close(found.attention, expected.attention, atol=1e-10)
        if gradient != "exact":  # of slots that have not settled there is none
            pairs = zip(gradients(found[:1], module, inputs), gradients(expected[:1], module, inputs), strict=True)
            for a, b in pairs:
                close(a, b, atol=1e-9)


@pytest.mark.parametrize("given", [True, False])
def test_exported_it_takes_a_batch_of_any_size(given, unchecked):
    module = build(slot_init="gaussian" if given else "learned").eval()
    batch = {0: torch.export.Dim("batch")}
    options = {"slots": randn(3, 4, 8), "mask": padded(randn(3, 12, 6), 0.0)[1]} if given else {}
    exported = torch.export.export(
        module, (randn(3, 12, 6),), options, dynamic_shapes={"inputs": batch, **dict.fromkeys(options, batch)}
    )
    more = {name: torch.cat([value, value[:2]]) for name, value in options.items()}
    inputs = randn(5, 12, 6, seed=1)
    close(exported.module()(inputs, **more).slots, module(inputs, **more).slots)


def test_exported_it_draws_its_own_start(unchecked):
    module, batch = build().eval(), torch.export.Dim("batch")
    exported = torch.export.export(module, (randn(3, 12, 6),), dynamic_shapes={"inputs": {0: batch}})
    operators = {str(node.target) for node in exported.graph.nodes}
    assert "aten.randn.default" in operators
    assert "aten.randn.generator" not in operators  # ONNX does not know this one


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize(("precision", "digits"), [(torch.float16, 0.02), (torch.bfloat16, 0.15)])
@pytest.mark.filterwarnings("ignore:the gradient's linear system")
def test_half_precision_is_half_precision_close(gradient, precision, digits):
    module, inputs, start = build(gradient=gradient), randn(3, 50, 6, seed=1), randn(3, 4, 8, seed=2)
    expected = module(inputs, slots=start)
    rough = copy.deepcopy(module).to(precision)(inputs.to(precision), slots=start.to(precision))
    assert rough.slots.dtype == rough.attention.dtype == precision
    close(rough.attention.double(), expected.attention, atol=digits)
    rough.slots.sum().backward()


def test_in_half_precision_a_slot_that_owns_nothing_receives_the_mean():
    # Its attention is 0 in float16, and so is ε = 1e-8; the sum over many inputs is above what float16 can hold.
    module = SlotAttention(8, 8, num_slots=2)
    with torch.no_grad():
        module.project_q.weight.copy_(100 * torch.eye(8))
        module.project_k.weight.copy_(torch.eye(8))
    inputs = 0.1 * torch.randn(1, 40000, 8, generator=generator()) + 3 * torch.eye(8)[0]
    start = 3 * torch.stack([torch.eye(8)[0], -torch.eye(8)[0]])[None]
    exact = module(inputs, slots=start, num_iterations=1)
    assert (exact.attention[0, 1] < 1e-8).all()
    rough = module.half()(inputs.half(), slots=start.half(), num_iterations=1)
    close(rough.slots.float(), exact.slots, atol=0.01)


def test_distributed_training_waits_for_no_gradient_that_never_comes(tmp_path):
    distributed = torch.distributed
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(build(gradient="implicit"))
        for _ in range(2):  # the second step complains about the first
            wrapped(randn(2, 12, 6), generator=generator()).slots.sum().backward()
    finally:
        distributed.destroy_process_group()


# --- layers of other kinds ---


class LowRank(nn.Module):
    """An adapter as LoRA adds it; `weight` is that of the frozen layer, as PEFT's are."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(randn(2, base.in_features, seed=1))
        self.up = nn.Parameter(randn(base.out_features, 2, seed=2))

    @property
    def weight(self):
        return self.base.weight

    def forward(self, x):
        return self.base(x) + x @ self.down.T @ self.up.T


class Int8(nn.Module):
    """A layer whose weights are whole numbers."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.scale = base.weight.detach().abs().max() / 127
        self.register_buffer("weight", (base.weight.detach() / self.scale).round().to(torch.int8))

    def forward(self, x):
        return x @ self.weight.to(x.dtype).T * self.scale


@pytest.mark.parametrize("heads", [1, 2])
def test_an_adapter_counts_and_learns(heads):
    module, inputs, start = build(num_heads=heads), randn(3, 12, 6, seed=1), randn(3, 4, 8, seed=2)
    merged = copy.deepcopy(module)
    for name in ("project_q", "project_k", "project_v"):
        adapter = LowRank(getattr(module, name))
        setattr(module, name, adapter)
        with torch.no_grad():
            getattr(merged, name).weight.add_(adapter.up @ adapter.down)
    out = module(inputs, slots=start)
    close(out.slots, merged(inputs, slots=start).slots, atol=1e-10)
    out.slots.square().sum().backward()
    for name in ("project_q", "project_k", "project_v"):
        assert (getattr(module, name).down.grad != 0).all()


def test_quantised_projections_are_called():
    module, inputs, start = build(), randn(3, 12, 6, seed=1), randn(3, 4, 8, seed=2)
    rounded = copy.deepcopy(module)
    for name in ("project_q", "project_k", "project_v"):
        layer = Int8(getattr(module, name))
        setattr(module, name, layer)
        with torch.no_grad():
            getattr(rounded, name).weight.copy_(layer.weight * layer.scale)
    close(module(inputs, slots=start).slots, rounded(inputs, slots=start).slots, atol=1e-10)


def test_hooks_run_and_pruned_weights_are_pruned():
    module, inputs, start = build(), randn(3, 12, 6, seed=1), randn(3, 4, 8, seed=2)
    seen = []
    assert isinstance(module.prepare(inputs), PreparedInputs)
    module.project_v.register_forward_hook(lambda layer, given, values: seen.append(values.shape))
    module.gru.register_full_backward_hook(lambda *_: seen.append("backwards"))
    prune.l1_unstructured(module.project_k, "weight", amount=0.5)
    with torch.no_grad():
        module.project_k.weight_orig.add_(1)  # a pre-hook makes `weight` from it
    assert isinstance(module.prepare(inputs), KeysAndValues)
    found = module(inputs, slots=start).slots
    found.sum().backward()
    assert seen[-4:] == [(3, 12, 8), *["backwards"] * 3]
    kept = module.project_k.weight_orig * module.project_k.weight_mask
    assert (kept == 0).sum() == 24
    plain = copy.deepcopy(build())
    plain.project_k.weight = nn.Parameter(kept.detach())
    close(found, plain(inputs, slots=start).slots, atol=1e-10)


def test_weights_of_a_tensor_type_of_their_own_are_not_read():
    module, inputs = build(), randn(3, 12, 6)
    module.project_q.weight.__tensor_flatten__ = lambda: None  # the mark of such types; torchao quantises with one
    assert isinstance(module.prepare(inputs), KeysAndValues)


# --- configuration ---


def test_a_configuration_builds_what_it_says():
    config = AttentionConfig(slot_dim=8, num_slots=5, num_heads=2, gradient="neumann", gradient_steps=4, tolerance=0.1)
    module = config.build(6)
    assert module.config is config
    for name, value in vars(config).items():
        if name != "mlp_hidden_dim":
            assert getattr(module, name) == value
    assert (module.input_dim, module.mlp[0].out_features) == (6, config.mlp_hidden_dim)


def test_a_ramp_of_gradient_steps_starts_at_its_end_and_moves_with_the_schedule():
    config = AttentionConfig(8, 4, num_iterations=5, gradient="implicit", gradient_steps=Ramp(3, start=1, over=0.5))
    module, model = config.build(6).double(), Model()
    model.attention, plain = module, copy.deepcopy(module)
    inputs, start = randn(2, 12, 6).requires_grad_(), randn(2, 4, 8, seed=2)
    assert module.gradient_steps == 3
    for progress, steps in ((0.0, 1), (0.2, 2), (0.3, 2), (0.4, 3), (1.0, 3)):  # 1, 1.8, 2.2, 2.6, 3
        model.at(progress)
        plain.gradient_steps = steps
        for a, b in zip(*(gradients(m(inputs, slots=start)[:1], m, inputs) for m in (module, plain)), strict=True):
            close(a, b)


def test_what_never_gets_a_gradient_asks_for_none():
    for slot_init in ("gaussian", "one_learned"):
        module = build(slot_init=slot_init)
        for gradient in (*GRADIENTS, "unrolled"):
            module.gradient = gradient
            for drawn in (module.slots_mu, module.slots_log_sigma):
                assert drawn.requires_grad == (gradient == "unrolled")
    assert build(slot_init="learned", gradient="implicit").slots_mu.requires_grad


# --- bad input ---


def corrupted(value: float, width: int = 6) -> torch.Tensor:
    inputs = randn(2, 5, width)
    inputs[1, 3, 2] = value
    return inputs


def hooked(module: SlotAttention) -> SlotAttention:
    module.project_q.register_forward_hook(lambda *_: None)
    return module


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda m: m(randn(5, 6)), ["[5, 6]", "input_dim=6"]),
        (lambda m: m(randn(2, 1, 5, 6)), ["[2, 1, 5, 6]", "input_dim=6"]),
        (lambda m: m(randn(2, 5, 7)), ["[2, 5, 7]", "input_dim=6"]),
        (lambda m: m(randn(2, 0, 6)), ["[2, 0, 6]", "inputs >= 1"]),
        (lambda m: m(corrupted(math.nan)), ["finite", "NaN"]),
        (lambda m: m(corrupted(math.inf)), ["finite", "infinite"]),
        (lambda m: m(corrupted(-math.inf)), ["finite", "infinite"]),
        (lambda m: m(randn(2, 5, 6), num_slots=0), ["num_slots", "at least 1", "got 0"]),
        (lambda m: m(randn(2, 5, 6), num_slots=-3), ["num_slots", "at least 1", "got -3"]),
        (lambda m: m(randn(2, 5, 6), num_slots=1.5), ["num_slots", "whole number", "got 1.5"]),
        (lambda m: m(randn(2, 5, 6), num_slots="4"), ["num_slots", "whole number", "got '4'"]),
        (lambda m: m(randn(2, 5, 6), num_iterations=math.nan), ["num_iterations", "whole number", "got nan"]),
        (lambda m: m(randn(2, 5, 6), num_iterations=3.0), ["num_iterations", "whole number", "got 3.0"]),
        (lambda m: m(randn(2, 5, 6), generator=5), ["generator", "torch.Generator", "got 5"]),
        (lambda m: m(None), ["inputs", "torch.float64", "got None"]),
        (lambda m: m("image"), ["inputs", "torch.float64", "got 'image'"]),
        (lambda m: m([[0.0]]), ["inputs", "torch.float64", "got [[0.0]]"]),
        (lambda m: m(np.zeros((2, 5, 6))), ["inputs", "NumPy", "[2, 5, 6]", "torch.from_numpy"]),
        (lambda m: m(randn(2, 5, 6).float()), ["inputs", "torch.float64", "got torch.float32"]),
        (lambda m: m(randn(2, 5, 6).long()), ["inputs", "torch.float64", "got torch.int64"]),
        (lambda m: m(randn(2, 5, 6), slots=randn(2, 4, 8), num_slots=randn(4)), ["num_slots", "whole number"]),
        (lambda m: m.step(None, m.prepare(randn(2, 5, 6))), ["slots", "batch=2", "got None"]),
        (lambda m: m.step(randn(3, 4, 8), m.prepare(randn(2, 5, 6))), ["slots", "batch=2", "[3, 4, 8]"]),
        (lambda m: m.step(randn(2, 4, 8), randn(2, 5, 6)), ["prepared", "SlotAttention.prepare", "[2, 5, 6]"]),
        (lambda m: m(randn(2, 5, 6), slots=corrupted(math.nan, 8)), ["slots", "finite", "NaN"]),
        (lambda m: m(randn(2, 5, 6), slots=corrupted(math.inf, 8)), ["slots", "finite", "infinite"]),
        (lambda m: m(randn(2, 5, 6), slots=randn(2, 4, 8).float()), ["slots", "torch.float64", "got torch.float32"]),
        (lambda m: m(randn(2, 5, 6), slots=np.zeros((2, 4, 8))), ["slots", "NumPy", "[2, 4, 8]"]),
        (lambda m: m(randn(2, 5, 6), mask=torch.ones(2, 4).bool()), ["mask", "[2, 5]", "got torch.bool [2, 4]"]),
        (lambda m: m(randn(2, 5, 6), mask=torch.ones(2, 5)), ["mask", "torch.bool", "got torch.float32"]),
        (lambda m: m(randn(2, 5, 6), mask=[[True] * 5] * 2), ["mask", "torch.bool", "got [[True"]),
        (lambda m: m(randn(2, 5, 6), mask=torch.eye(2, 5).bool().roll(1, 1) & False), ["mask", "one real input"]),
        (
            lambda _: build(competition=False)(randn(2, 5, 6), mask=torch.ones(2, 5).bool()),
            ["mask", "competition=True"],
        ),
        (lambda _: hooked(build(competition=False))(randn(2, 5, 6)), ["without competition", "without hooks"]),
        (lambda m: m.initial_slots(None), ["batch_size", "whole number", "got None"]),
        (lambda m: m(randn(2, 5, 6), num_iterations=0), ["num_iterations", "at least 1", "got 0"]),
        (lambda m: m(randn(2, 5, 6), slots=randn(4, 8)), ["[4, 8]", "slot_dim=8"]),
        (lambda m: m(randn(2, 5, 6), slots=randn(2, 4, 9)), ["[2, 4, 9]", "slot_dim=8"]),
        (lambda m: m(randn(2, 5, 6), slots=randn(3, 4, 8)), ["[3, 4, 8]", "batch=2"]),
        (lambda m: m(randn(2, 5, 6), slots=randn(2, 0, 8)), ["[2, 0, 8]", "slots >= 1"]),
        (lambda m: m(randn(2, 5, 6), slots=randn(2, 4, 8), num_slots=5), ["4 slots", "num_slots=5"]),
        (lambda _: build(slot_init="learned")(randn(2, 5, 6), num_slots=5), ["learned 4", "5"]),
        (lambda _: SlotAttention(0), ["input_dim", "got 0"]),
        (lambda _: SlotAttention(6, 0), ["slot_dim", "got 0"]),
        (lambda _: SlotAttention(6, num_slots=0), ["num_slots", "got 0"]),
        (lambda _: SlotAttention(6, num_iterations=0), ["num_iterations", "got 0"]),
        (lambda _: SlotAttention(6, num_heads=0), ["num_heads", "got 0"]),
        (lambda _: SlotAttention(6, mlp_hidden_dim=-1), ["mlp_hidden_dim", "got -1"]),
        (lambda _: SlotAttention(6, gradient_steps=0), ["gradient_steps", "got 0"]),
        (lambda _: SlotAttention(6, 8, num_heads=3), ["slot_dim=8", "num_heads=3"]),
        (lambda _: SlotAttention(6.0), ["input_dim", "whole number", "got 6.0"]),
        (lambda _: SlotAttention("6"), ["input_dim", "whole number", "got '6'"]),
        (lambda _: SlotAttention(6, num_slots=True), ["num_slots", "whole number", "got True"]),
        (lambda _: SlotAttention(6, eps=-1e-8), ["eps", "at least 0", "got -1e-08"]),
        (lambda _: SlotAttention(6, eps=math.nan), ["eps", "at least 0", "got nan"]),
        (lambda _: SlotAttention(6, eps="small"), ["eps", "number", "got 'small'"]),
        (lambda _: SlotAttention(6, tolerance=math.nan), ["tolerance", "at least 0", "got nan"]),
        (lambda _: SlotAttention(6, gradient=None), ["gradient", "unrolled", "got None"]),
        (lambda _: setattr(build(), "gradient", "bptt"), ["gradient", "unrolled", "got 'bptt'"]),
        (lambda _: AttentionConfig(num_heads=3).build(6), ["slot_dim=64", "num_heads=3"]),
        (lambda _: AttentionConfig(gradient_steps=0).build(6), ["gradient_steps", "at least 1", "got 0"]),
        (lambda _: AttentionConfig(gradient_steps=Ramp(3)).build(6), ["gradient_steps", "at least 1", "got 0.0"]),
        (lambda _: SlotAttention(6, slot_init="zeros"), ["slot_init", "gaussian", "learned", "one_learned", "'zeros'"]),
        (lambda _: SlotAttention(6, gradient="none"), ["gradient", "unrolled", "implicit", "'none'"]),
    ],
)
def test_bad_input_is_one_clear_error(call, named):
    with pytest.raises(ValueError) as error:
        call(build())
    assert all(word in str(error.value) for word in named), str(error.value)
