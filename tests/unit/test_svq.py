"""Codes are nearest, gradients pass straight through, blocks stay apart, and a prior's probabilities sum to one."""

import dataclasses
import functools
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from slotlib import cli, data, svq, training, zoo
from slotlib.autoencoder import AutoencoderOutput
from slotlib.patches import PatchConfig, PatchVQVAE, SlateAutoencoder, SlateConfig
from slotlib.prior import ScenePrior, canonical_order, choose, log_orders, random_order
from slotlib.slot_attention import SlotAttention
from slotlib.svq import QuantisedSlotAttention, SVQAutoencoder, SVQConfig
from slotlib.training import Config, DataConfig, TrainConfig
from slotlib.vq import (
    BlockGRUCell,
    BlockLayerNorm,
    BlockLinear,
    FiniteScalarQuantizer,
    GumbelQuantizer,
    VectorQuantizer,
    block_diagonal,
    use,
)

close = torch.testing.assert_close


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


def quantizer(dim=8, codes=5, seed=0, **options):
    torch.manual_seed(seed)
    return VectorQuantizer(dim, codes, **{"kmeans": False, **options})


# --- nearest codes ---


def all_pairs(slots, codebook):
    """The formulation published with the paper: distances to the codes of all blocks, the due ones kept."""
    blocks, codes, width = codebook.shape
    distance = (slots.reshape(-1, 1, width) - codebook.view(1, -1, width)).square().sum(-1)
    distance = distance.view(-1, blocks, blocks, codes)
    return torch.stack([distance[:, m, m].argmin(-1) for m in range(blocks)], dim=-1).view(*slots.shape[:-1], blocks)


@pytest.mark.parametrize("blocks", [1, 4, 16])
def test_the_codes_are_those_of_the_published_all_pairs_formulation(blocks):
    vq = quantizer(32, 20, num_blocks=blocks)
    slots = randn(6, 7, 32)
    assert torch.equal(vq(slots).indices, all_pairs(slots, vq.codebook))
    assert torch.equal(vq.nearest(slots), all_pairs(slots, vq.codebook))


def numbers(*shape):
    """Few different values, so that ties and codes in one place happen."""
    size = math.prod(shape)
    return st.lists(st.integers(-4, 4), min_size=size, max_size=size).map(
        lambda values: torch.tensor(values, dtype=torch.float64).view(shape) / 2
    )


sizes = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.booleans())


@settings(max_examples=40, deadline=None)
@given(st.data(), sizes)
def test_a_code_is_nearest_and_quantising_it_again_changes_nothing(draw, size):
    points, codes, blocks, width, shared = size
    vq = quantizer(blocks * width, codes, num_blocks=blocks, shared=shared).double().eval()
    vq.codebook.copy_(draw.draw(numbers(1 if shared else blocks, codes, width)))
    x = draw.draw(numbers(points, blocks * width))
    found = vq(x)
    # Nearest among all, by brute force.
    books = vq.codebook.expand(blocks, -1, -1)
    distance = torch.cdist(x.view(points, blocks, width).transpose(0, 1), books)
    close(distance.gather(2, found.indices.T.unsqueeze(2)).squeeze(2), distance.amin(2), rtol=0, atol=1e-12)
    close(found.error, distance.amin(2).square().mean(1) / width)
    # A code stands for itself.
    assert torch.equal(vq.decode(found.indices), found.values)
    assert torch.equal(vq(found.values).values, found.values)
    # The order of the batch plays no part.
    order = torch.randperm(points, generator=generator())
    assert torch.equal(vq(x[order]).values, found.values[order])


def test_a_far_origin_loses_no_digits():
    vq = quantizer(4, 8).eval()
    x = randn(50, 4)
    near = vq.nearest(x)
    vq.codebook += 1000.0
    assert torch.equal(vq.nearest(x + 1000), near)


@pytest.mark.parametrize("blocks", [1, 2])
def test_the_gradient_passes_straight_through(blocks):
    x = randn(9, 8).requires_grad_()
    weights = randn(9, 8, seed=1)
    found = quantizer(num_blocks=blocks, commitment=0.0)(x)
    (found.values * weights).sum().backward()
    close(x.grad, weights)


def test_the_commitment_draws_vectors_and_the_second_loss_draws_codes():
    x = randn(9, 8).requires_grad_()
    vq = quantizer(learn="loss", commitment=0.5)
    found = vq(x)
    found.loss.backward()
    codes = vq.codebook[0][found.indices[:, 0]].detach()
    close(x.grad, 0.5 * 2 * (x.detach() - codes) / x.numel())
    expected = torch.zeros(5, 8).index_add_(0, found.indices[:, 0], 2 * (codes - x.detach()) / x.numel())
    close(vq.codebook.grad[0], expected)
    assert quantizer(learn="ema").codebook.requires_grad is False


# --- running means ---


def test_codes_are_the_closed_form_of_their_running_means():
    """After t equal batches: counts dᵗ·1 + (1 − dᵗ)·n, sums likewise."""
    vq, x, decay = quantizer(decay=0.9, revive=0.0), randn(64, 8), 0.9
    start = vq.codebook.clone()
    n = torch.zeros(5)
    sums = torch.zeros(5, 8)
    for index, point in zip(vq.nearest(x)[:, 0], x, strict=True):
        n[index] += 1
        sums[index] += point
    vq(x)
    vq.update()
    counts = decay + (1 - decay) * n
    smooth = (counts + 1e-5) / (counts.sum() + 5e-5) * counts.sum()
    close(vq.counts[0], counts)
    close(vq.codebook[0], (decay * start[0] + (1 - decay) * sums) / smooth.unsqueeze(1))


@pytest.mark.parametrize("kmeans", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_parts_of_a_batch_teach_what_the_whole_does(kmeans, shared):
    x = randn(64, 8).double()
    whole, parts = (quantizer(16, 8, num_blocks=2, shared=shared, revive=0.5, kmeans=kmeans).double() for _ in range(2))
    for step in range(4):
        y = torch.cat([x, x.flip(0)], dim=1) + step
        whole(y)
        for i in range(4):
            parts(y[i::4])
        whole.update(generator(step))
        parts.update(generator(step))
    for one, other in zip(whole.state_dict().values(), parts.state_dict().values(), strict=True):
        close(one, other, rtol=1e-9, atol=1e-9)


def test_nothing_is_learned_in_eval_mode():
    vq = quantizer().eval()
    before = {name: tensor.clone() for name, tensor in vq.state_dict().items()}
    vq(randn(64, 8))
    vq.update()
    assert all(torch.equal(before[name], tensor) for name, tensor in vq.state_dict().items())
    assert {"codebook", "counts", "sums"} == set(before)


def test_k_means_finds_what_the_first_batch_is_made_of():
    centres = 10 * torch.eye(4, 8)
    x = centres.repeat(30, 1) + 0.01 * randn(120, 8)
    vq = quantizer(8, 4, kmeans=True)
    assert torch.equal(vq(x).values, x)  # not placed yet
    vq.update(generator(3))
    assert vq(x).error < 1e-3
    assert vq(x).use().utilisation == 1
    again = quantizer(8, 4, kmeans=True, seed=5)
    again.load_state_dict(vq.state_dict())
    assert torch.equal(again(x).values, vq(x).values)


def test_dead_codes_come_back_where_the_data_are():
    vq, x = quantizer(8, 16, decay=0.5), randn(256, 8)
    vq.codebook[:, 1:] += 1000.0
    vq.sums[:, 1:] += 1000.0
    assert vq(x).use().utilisation == pytest.approx(1 / 16)
    for step in range(12):
        vq(x)
        vq.update(generator(step))
    assert vq(x).use().utilisation > 0.9


def test_a_small_batch_kills_no_codes():
    """Eight vectors for sixteen codes: each is chosen every other time. By a threshold of one they would be dead."""
    vq = quantizer(4, 16, revive=0.1)
    points = 10 * randn(16, 4)
    vq.codebook.copy_(points.unsqueeze(0))
    vq.sums.copy_(points.unsqueeze(0))
    for step in range(300):
        vq(points[step % 2 :: 2])
        vq.update(generator(step))
    close(vq.codebook[0], points, rtol=1e-3, atol=1e-3)  # nobody was moved


def test_use_knows_what_uniform_and_constant_codes_are():
    uniform = torch.arange(8).repeat(5).unsqueeze(1)
    both = torch.cat([uniform, torch.zeros_like(uniform)], dim=1)
    utilisation, perplexity = use(both, 16)
    close(utilisation, torch.tensor([0.5, 1 / 16]))
    close(perplexity, torch.tensor([8.0, 1.0]))


def test_the_arithmetic_is_float32_inside_autocast():
    vq = quantizer().eval()
    x = randn(40, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = vq(x)
    assert found.values.dtype == torch.float32
    assert torch.equal(found.indices, vq(x.float()).indices)


def test_many_calls_without_an_update_are_an_error(monkeypatch):
    vq = quantizer(1, 2)
    vq._noted = [(None, None)] * 100_000
    with pytest.raises(ValueError, match=r"without update\(\)"):
        vq(torch.zeros(1, 1))


def _distributed(rank, port, folder):
    torch.set_num_threads(1)  # the parent's threads do not survive the fork, and whoever waits for them waits for ever
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    vq, x = quantizer(8, 12, kmeans=True, revive=0.5, num_blocks=2), randn(64, 8)
    for step in range(3):
        vq(x[rank::2] + step)
        vq.update(generator(step))
    torch.save(vq.state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_learn_what_one_does(tmp_path):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Forked, because a spawned process would import everything again.
    torch.multiprocessing.start_processes(_distributed, (port, str(tmp_path)), nprocs=2, start_method="fork")
    alone, x = quantizer(8, 12, kmeans=True, revive=0.5, num_blocks=2), randn(64, 8)
    for step in range(3):
        alone(x + step)
        alone.update(generator(step))
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name, tensor in alone.state_dict().items():
        assert torch.equal(first[name], second[name])
        close(first[name], tensor, rtol=1e-4, atol=1e-4)


# --- the peer ---


@pytest.mark.parametrize("heads", ["one", "separate", "shared"])
def test_pypi_agrees_on_codes_losses_gradients_and_running_means(heads):
    peer = pytest.importorskip("vector_quantize_pytorch", reason="compares with PyPI vector-quantize-pytorch")
    blocks = 1 if heads == "one" else 2
    ours = quantizer(8, 6, num_blocks=blocks, shared=heads == "shared", decay=0.8, revive=0.0, commitment=0.3)
    theirs = peer.VectorQuantize(
        dim=8,
        codebook_size=6,
        codebook_dim=8 // blocks,
        heads=blocks,
        separate_codebook_per_head=heads == "separate",
        decay=0.8,
        commitment_weight=0.3,
        rotation_trick=False,
        threshold_ema_dead_code=0,
    )
    book = theirs._codebook
    book.embed.data.copy_(ours.codebook)
    book.embed_avg.data.copy_(ours.codebook)
    for step in range(3):
        x, y = (randn(4, 10, 8, seed=step).requires_grad_() for _ in range(2))
        found = ours(x)
        values, indices, loss = theirs(y)
        close(found.values, values)
        assert torch.equal(found.indices.flatten(), indices.flatten())
        close(found.loss, loss.squeeze())
        (found.values.square().sum() + found.loss).backward()
        (values.square().sum() + loss.sum()).backward()
        close(x.grad, y.grad)
        ours.update()
        close(ours.codebook, book.embed, rtol=1e-4, atol=1e-5)
        close(ours.counts, book.cluster_size)


@pytest.mark.parametrize("levels", [(5,), (8, 5, 5), (4, 3)])
def test_pypi_agrees_on_finite_scalars(levels):
    peer = pytest.importorskip("vector_quantize_pytorch", reason="compares with PyPI vector-quantize-pytorch")
    x = 2 * randn(30, len(levels))
    ours, theirs = FiniteScalarQuantizer(len(levels), levels), peer.FSQ(list(levels))
    found = ours(x)
    values, indices = theirs(x.unsqueeze(0))
    close(found.values, values[0])
    assert torch.equal(found.indices[:, 0], indices[0].long())
    close(ours.decode(torch.arange(ours.num_codes).unsqueeze(1)), theirs.implicit_codebook)


# --- the other quantisers ---


@pytest.mark.parametrize("dim", [6, 16])
def test_finite_scalar_codes_go_there_and_back(dim):
    fsq = FiniteScalarQuantizer(dim, (4, 5, 3), num_blocks=2)
    everything = torch.arange(60).repeat(2, 1).T
    values = fsq.decode(everything)
    assert torch.equal(fsq.nearest(values), everything)
    found = fsq(3 * randn(200, dim))
    close(fsq.decode(found.indices), found.values)
    assert found.indices.min() >= 0 and found.indices.max() < 60


def test_finite_scalars_pass_the_gradient_of_the_squashing():
    x = randn(5, 2).double().requires_grad_()
    fsq = FiniteScalarQuantizer(2, (5, 5)).double()
    fsq(x).values.sum().backward()
    half = 2 * (1 + 1e-3)
    close(x.grad, (1 - x.detach().tanh() ** 2) * half / 2)


def test_gumbel_draws_from_the_classifier():
    torch.manual_seed(0)
    gumbel = GumbelQuantizer(2, 3)
    with torch.no_grad():
        gumbel.classify.weight.zero_()
        gumbel.classify.bias.copy_(torch.tensor([0.6, 0.3, 0.1]).log())
    drawn = gumbel(torch.zeros(20_000, 2), generator()).indices
    share = drawn.flatten().bincount(minlength=3) / len(drawn)
    close(share, torch.tensor([0.6, 0.3, 0.1]), rtol=0, atol=0.015)
    assert (gumbel.eval()(torch.zeros(5, 2)).indices == 0).all()
    uniform = math.log(3) + (torch.tensor([0.6, 0.3, 0.1]) * torch.tensor([0.6, 0.3, 0.1]).log()).sum()
    gumbel.uniform = 2.0
    close(gumbel(torch.zeros(5, 2)).loss, 2 * uniform)


def test_gumbel_noise_is_the_batchs_however_it_is_shared_out():
    torch.manual_seed(0)
    gumbel, x = GumbelQuantizer(8, 5, num_blocks=2), randn(6, 3, 8)
    whole = gumbel(x, generator()).indices
    for i in range(3):
        assert torch.equal(gumbel(x[i::3], generator(), (i, 3)).indices, whole[i::3])


def test_gumbel_gradients_are_those_of_the_softmax():
    torch.manual_seed(0)
    gumbel = GumbelQuantizer(4, 3).double().eval()
    x = randn(2, 4).double().requires_grad_()
    gumbel(x).values.sum().backward()
    y = x.detach().clone().requires_grad_()
    (gumbel.classify(y).softmax(-1) @ gumbel.codebook[0]).sum().backward()
    close(x.grad, y.grad)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: VectorQuantizer(8, 0), "num_codes must be at least 1, got 0"),
        (lambda: VectorQuantizer(8, 4, num_blocks=3), "num_blocks must divide dim, got dim=8 and num_blocks=3"),
        (lambda: VectorQuantizer(8, 4, learn="magic"), 'learn must be "ema" or "loss", got'),
        (lambda: VectorQuantizer(8, 4, decay=1.0), r"decay and revive in \[0, 1\)"),
        (lambda: FiniteScalarQuantizer(8, (4, 1)), "levels must be at least"),
        (lambda: GumbelQuantizer(8, 4, temperature=0.0), "temperature must be above 0"),
        (lambda: BlockLinear(8, 6, 4), "num_blocks must divide both widths, got 8, 6 and num_blocks=4"),
        (lambda: BlockGRUCell(8, 3), "num_blocks must divide dim"),
        (lambda: quantizer()(torch.zeros(3, 7)), r"vectors must be floating point \[..., dim=8\], got .* \[3, 7\]"),
        (lambda: quantizer()(torch.zeros(3, 8, dtype=torch.int64)), "vectors must be floating point"),
        (lambda: quantizer()(torch.full((3, 8), math.nan)), "vectors must be finite"),
        (lambda: quantizer().decode(torch.tensor([[5]])), "codes must be within 0 and 4, got 5 to 5"),
        (lambda: quantizer().decode(torch.tensor([[1, 1]])), r"codes must be integers \[..., blocks=1\]"),
        (lambda: ScenePrior(2, 2, 0), "must be at least 1, got 2, 2, 0"),
        (lambda: ScenePrior(2, 2, 4, num_heads=3), "heads that divide its width"),
        (lambda: ScenePrior(2, 2, 4).logits(torch.zeros(1, 3, 2).long()), r"codes must be integers \[batch, 2, 2\]"),
        (lambda: ScenePrior(2, 2, 4).logits(torch.full((1, 2, 2), 4)), "within 0 and 3, got 4 to 4"),
        (lambda: ScenePrior(2, 2, 4).sample(0), "count must be at least 1, got 0"),
        (lambda: ScenePrior(2, 2, 4).sample(top_p=0.0), r"top_p in \(0, 1\]"),
        (lambda: PatchVQVAE(PatchConfig(patch=6)), "patch must be a power of 2"),
        (lambda: PatchVQVAE(PatchConfig(dim=-1)), "dim must be at least 1, got -1"),
    ],
)
def test_bad_input_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# --- layers that keep blocks apart ---


def test_block_layers_are_dense_layers_with_block_diagonal_weights():
    torch.manual_seed(0)
    linear, x = BlockLinear(12, 8, 4), randn(5, 3, 12)
    with torch.no_grad():
        linear.bias.normal_()
    dense = block_diagonal(linear.weight)
    close(linear(x), nn.functional.linear(x, dense, linear.bias))
    close(dense, torch.block_diag(*linear.weight))
    gru = BlockGRUCell(12, 4)
    x, hidden = randn(5, 12), randn(5, 12, seed=1)
    for weights, blocks in ((gru.weight_ih, gru.input_blocks), (gru.weight_hh, gru.hidden_blocks)):
        close(weights, torch.cat([torch.block_diag(*gate) for gate in blocks]))
    alone = nn.GRUCell(3, 3)  # block 1 as a cell of its own
    own = torch.arange(36).view(3, 4, 3)[:, 1].flatten()
    with torch.no_grad():
        for name, theirs in (("weight_ih", gru.weight_ih), ("weight_hh", gru.weight_hh)):
            getattr(alone, name).copy_(theirs[own][:, 3:6])
        alone.bias_ih.copy_(gru.bias_ih[own])
        alone.bias_hh.copy_(gru.bias_hh[own])
    close(gru(x, hidden)[:, 3:6], alone(x[:, 3:6], hidden[:, 3:6]))
    normal = BlockLayerNorm(4)(x)
    close(normal[:, 3:6], nn.functional.layer_norm(x[:, 3:6], (3,)))


def attention(mixing=False, codes=6, **options):
    torch.manual_seed(0)
    vq = VectorQuantizer(8, codes, num_blocks=2, kmeans=False)
    return QuantisedSlotAttention(5, vq, mixing=mixing, num_slots=3, mlp_hidden_dim=12, **options).eval()


def test_every_iteration_ends_in_codes_and_an_iteration_is_slot_attentions():
    module, x = attention(), randn(2, 10, 5)
    out = module(x, generator=generator(), return_history=True)
    for slots in out.history.slots[1:]:
        close(module.quantizer(slots).values, slots)
    close(out.attention.sum(1), torch.ones(2, 10))
    start = out.history.slots[0]
    unquantised, _ = SlotAttention.step(module, start, module.prepare(x))
    assert torch.equal(module.quantizer(unquantised).values, out.history.slots[1])


def test_after_the_attention_blocks_do_not_see_each_other():
    module, x = attention(), randn(1, 10, 5)
    prepared = module.prepare(x)
    slots = randn(1, 3, 8)
    with torch.no_grad():
        module.norm_slots.weight.zero_()  # then all slots ask the same, whatever they hold
    changed = torch.cat([slots[..., :4], slots[..., 4:] + 1], dim=-1)
    first, second = (SlotAttention.step(module, each, prepared)[0] for each in (slots, changed))
    close(first[..., :4], second[..., :4])
    assert not torch.allclose(first[..., 4:], second[..., 4:])


@pytest.mark.parametrize("gradient", ["unrolled", "implicit"])
def test_as_many_iterations_are_recorded_as_run(gradient):
    module = attention(gradient=gradient)
    with module.recording() as iterations:
        out = module(randn(2, 10, 5), num_iterations=4, generator=generator())
    assert len(iterations) == 4 and torch.equal(iterations[-1].values, out.slots)
    module(randn(2, 10, 5))
    assert len(iterations) == 4


@pytest.mark.parametrize("gradient", ["unrolled", "implicit"])
def test_a_search_is_slot_attention_and_only_what_follows_ends_in_codes(gradient):
    module, x = attention(gradient=gradient, num_iterations=5, search_iterations=3), randn(2, 10, 5)
    with module.recording() as iterations:
        out = module(x, generator=generator(), return_history=True)
    assert len(iterations) == 2 and len(out.history.slots) == 6 and len(out.history.attention) == 5
    assert torch.equal(out.history.needed, torch.full((2,), 5))
    plain = attention(gradient=gradient)
    plain.continuous = True
    found = plain(x, num_iterations=3, generator=generator()).slots
    close(out.history.slots[3], found)
    plain.continuous = False
    close(plain(x, num_iterations=2, slots=found).slots, out.slots)
    once = module(x, num_iterations=1, generator=generator()).slots  # the last one always speaks in codes
    assert torch.equal(module.quantizer(once).values, once)
    module.continuous = True
    assert not torch.equal(module.quantizer(module(x).slots).values, module(x).slots)


def test_a_search_lets_the_start_learn_and_is_not_below_0():
    module = attention(gradient="implicit", num_iterations=5, search_iterations=3, slot_init="learned")
    module(randn(2, 10, 5), generator=generator()).slots.sum().backward()
    assert module.slots_mu.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="search_iterations must be at least 0, got -1"):
        attention(search_iterations=-1)


# --- the model ---

SMALL = SVQConfig(
    resolution=16,
    encoder="strided",
    encoder_channels=8,
    slot_dim=16,
    num_slots=3,
    mlp_hidden_dim=16,
    num_iterations=2,
    decoder="separable",
    decoder_channels=8,
    num_codes=10,
    prior_dim=16,
    prior_layers=1,
    prior_heads=2,
)
PATCHES = PatchConfig(
    resolution=16, patch=4, channels=8, dim=8, num_codes=12, prior_dim=16, prior_layers=1, prior_heads=2
)
SLATE = SlateConfig(
    **{**dataclasses.asdict(SMALL), "vocabulary": 6, "token_dim": 16, "writer_layers": 1, "writer_heads": 2}
)
SCENES = DataConfig(name="shapes", options={"num_objects": [1, 2], "resolution": 16})
SHORT = TrainConfig(
    steps=8,
    batch_size=4,
    lr=2e-3,
    warmup_steps=2,
    decay="cosine",
    eval_every=4,
    eval_images=8,
    log_every=1,
    save_every=2,
    accelerator="cpu",
)
QUANTISERS = "ema", "loss", "gumbel", "fsq"


def images(count=3):
    return torch.rand(count, 3, 16, 16, generator=generator())


def model(**changes):
    torch.manual_seed(0)
    return SVQAutoencoder(dataclasses.replace(SMALL, levels=[3, 3], **changes)).eval()


@pytest.mark.parametrize("kind", QUANTISERS)
@pytest.mark.parametrize("restarts", [1, 3])
def test_what_is_drawn_is_drawn_from_the_codes_alone(kind, restarts):
    autoencoder = model(quantizer=kind)
    with torch.no_grad():
        output = autoencoder(images(), generator=generator(), restarts=restarts)
    drawn = autoencoder.decode(output.codes)
    close(drawn.image, output.reconstruction, rtol=1e-4, atol=1e-5)
    close(drawn.masks, output.drawn_masks, rtol=1e-4, atol=1e-5)
    assert output.codes.shape == (3, 3, 4) and output.error.shape == (4,)


@pytest.mark.parametrize("kind", QUANTISERS)
@pytest.mark.parametrize("shares", [2, 4])
def test_the_shares_of_a_batch_have_the_loss_of_the_whole(kind, shares):
    autoencoder, pictures = model(quantizer=kind).double().train(), images(8).double()
    if kind in ("ema", "loss"):
        autoencoder.quantizer.counts.fill_(1)  # placed
    whole = autoencoder.loss(pictures, generator())
    parts = [autoencoder.loss(pictures[i::shares], generator(), (i, shares)) for i in range(shares)]
    close(sum(parts) / shares, whole, rtol=1e-9, atol=0)


def test_exchanging_a_block_twice_is_no_exchange():
    codes = torch.randint(10, (2, 3, 4), generator=generator())
    once = svq.swap(codes, 2, 0, 1)
    assert torch.equal(svq.swap(once, 2, 0, 1), codes)
    assert torch.equal(once[:, 0, 2], codes[:, 1, 2]) and torch.equal(once[:, :, :2], codes[:, :, :2])


def test_information_is_one_for_a_copy_and_nothing_for_noise():
    count = 4000
    colour, shape = (torch.randint(4, (count,), generator=generator(i)) for i in range(2))
    place = torch.rand(count, generator=generator(2))
    codes = torch.stack([3 - colour, (place * 8).long()], dim=1)
    rgb = torch.stack([colour.float(), -colour.float()], dim=1) + 0.01 * randn(count, 2)
    table = svq.information(svq.Objects(codes, {"colour": colour, "shape": shape, "x": place, "rgb": rgb}))
    assert table["colour"] == pytest.approx([1, 0], abs=0.01)
    assert table["shape"] == pytest.approx([0, 0], abs=0.01)
    assert table["x"][1] > 0.9 and table["x"][0] < 0.01
    assert table["rgb"][0] > 0.6


def test_nothing_can_be_said_of_no_objects():
    nothing = svq.Objects(torch.zeros(0, 4, dtype=torch.int64), {"size": torch.zeros(0)})
    with pytest.raises(ValueError, match="no objects"):
        svq.information(nothing)
    with pytest.raises(ValueError, match="no codes"):
        svq.information(svq.Objects(None, {"size": torch.zeros(3)}, torch.zeros(3, 8)))


def test_objects_are_paired_with_the_slots_that_cover_them():
    scenes = data.make("shapes", 6, num_objects=2).batch(range(6))
    codes = torch.arange(3).view(1, 3, 1).expand(6, 3, 4)
    masks = nn.functional.one_hot((scenes["mask"].long() + 1) % 3, 3).movedim(-1, 1).float()  # object i is slot i + 1
    slots = codes[..., :2].float() + 0.5
    known = svq.SVQOutput(None, None, masks, slots, None, None, codes, None)
    found = svq.objects_found(lambda image, generator: known, scenes)
    assert found.codes[:, 0].tolist() == [2, 0] * 6 and found.slots[:, 0].tolist() == [2.5, 0.5] * 6
    assert torch.equal(found.properties["colour"], scenes["objects"]["colour"][scenes["objects"]["present"]])
    assert svq.count_objects(masks).tolist() == [2] * 6
    free = AutoencoderOutput(None, None, masks, slots, None, None)
    continuous = svq.objects_found(lambda image, generator: free, scenes)
    assert continuous.codes is None and torch.equal(continuous.slots, found.slots)
    empty = known._replace(masks=masks.flip(2))
    assert len(svq.objects_found(lambda image, generator: empty, scenes, overlap=0.9).codes) < 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantizer": "magic"}, "quantizer must be one of"),
        ({"num_blocks": 3}, "num_blocks must divide dim, got dim=16 and num_blocks=3"),
        ({"learn": "magic"}, "learn must be one of"),
        ({"order": "magic"}, "order must be one of"),
        ({"learn": "prior", "prior_layers": 0}, r'learn="prior" needs a prior, got prior_layers=0'),
        ({"decoder": "magic"}, "decoder must be one of"),
        ({"colour_blocks": 1}, 'decoder="separable" and colour="slot", got 1 with .separable. and .pixel.'),
        ({"colour_blocks": 4, "colour": "slot"}, "colour_blocks must be 0, or below num_blocks=4"),
        ({"colour_blocks": 1, "colour": "slot", "colour_lead": 0.1}, "colour_blocks of at least 2, got 0.1 with 1"),
        ({"colour_lead": -1.0}, "colour_lead must be 0, or above 0"),
        ({"synonyms": math.nan}, "synonyms must be at least 0, got nan"),
    ],
)
def test_a_configuration_that_cannot_be_built_names_the_field(change, message):
    with pytest.raises(ValueError, match=message):
        model(**change)


def test_blocks_of_colour_draw_colour_and_nothing_else():
    split = model(colour="slot", colour_blocks=1)
    codes = torch.randint(10, (5, 3, 4), generator=generator())
    before = split.decode(codes)
    other = codes.clone()
    other[:, :, 0] = (codes[:, :, 0] + 1) % 10
    painted = split.decode(other)
    assert torch.equal(painted.masks, before.masks)
    assert not torch.isclose(painted.slot_images, before.slot_images).any()
    other = codes.clone()
    other[:, :, 1:] = (codes[:, :, 1:] + 1) % 10
    moved = split.decode(other)
    assert torch.equal(moved.slot_images, before.slot_images)
    assert not torch.isclose(moved.masks, before.masks).all()
    assert split.state_dict().keys() == model(colour="slot").state_dict().keys()  # either can start from the other


def test_the_first_block_for_colour_learns_from_the_others_and_not_they_from_it():
    led = model(colour="slot", colour_blocks=2, colour_lead=0.5).train()
    slots = torch.randn(5, 3, 16, generator=generator(), requires_grad=True)
    led.lead_cost(slots).backward()
    gradient = slots.grad.unflatten(-1, (4, 4)).abs().sum(dim=(0, 1, 3))
    assert gradient[0] > 0 and not gradient[1:].any()
    alone = slots.detach().clone()
    alone[..., 4:8] = 0
    assert led.lead_cost(alone) == 0
    with led.slot_attention.recording() as iterations:  # it is counted once, on the slots that are drawn
        left = led.slot_attention(led.encode(images()).flatten(1, 2), generator=generator()).slots
    assert torch.equal(left, iterations[-1].values)
    losses = [led.loss(images(), generator())]
    led.config.colour_lead = 0.0
    losses.append(led.loss(images(), generator()))
    close(losses[0] - losses[1], 0.5 * led.lead_cost(left), rtol=1e-3, atol=1e-6)


def test_without_a_prior_there_is_nothing_to_sample_from():
    with pytest.raises(ValueError, match="this model has no prior"):
        model(prior_layers=0).sample()


# --- the prior ---


def prior(slots=3, blocks=2, codes=4, seed=0, **options):
    torch.manual_seed(seed)
    built = ScenePrior(slots, blocks, codes, **{"dim": 16, "num_layers": 2, "num_heads": 2, **options}).double()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # no longer uniform
    return built


def test_probabilities_sum_to_one_over_all_scenes():
    every = torch.tensor(list(itertools.product(range(3), repeat=4))).view(-1, 2, 2)
    likelihood = prior(2, 2, 3).log_likelihood(every)
    assert likelihood.exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert likelihood.std() > 0.1


def test_a_token_is_predicted_from_earlier_ones_only():
    built, codes = prior(), torch.randint(4, (1, 3, 2), generator=generator())
    before = built.logits(codes)
    for place in range(6):
        changed = codes.flatten(1).clone()
        changed[0, place] = (changed[0, place] + 1) % 4
        same = (built.logits(changed.view(1, 3, 2)) - before).abs().flatten(1, 2).amax(-1)[0] < 1e-12
        assert same[: place + 1].all() and not same[place + 1 :].any()


def test_blocks_have_vocabularies_of_their_own():
    """The due block's softmax is the softmax over all blocks' codes with those of the others masked."""
    built, codes = prior(), torch.randint(4, (5, 3, 2), generator=generator())
    vectors = built.transformer(built._vectors(codes))
    everything = vectors @ built.head.flatten(0, 1).T  # [batch, tokens, blocks · codes]
    block = torch.arange(6) % 2
    due = torch.arange(8).view(1, 1, 8) // 4 == block.view(1, 6, 1)
    masked = everything.masked_fill(~due, -math.inf).log_softmax(-1)
    index = (codes + 4 * torch.arange(2)).flatten(1).unsqueeze(-1)
    close(masked.gather(-1, index).sum((1, 2)), built.log_likelihood(codes))
    # Embeddings too: the same number in another block is another word.
    swapped = built.logits(torch.tensor([[[1, 2], [0, 0], [0, 0]]])) - built.logits(
        torch.tensor([[[2, 1], [0, 0], [0, 0]]])
    )
    assert swapped[0, 1].abs().max() > 1e-3


@pytest.mark.parametrize("given", [0, 1, 3])
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.8)])
def test_cached_sampling_draws_the_same_scenes(given, temperature, top_p):
    built = prior()
    start = torch.randint(4, (8, given, 2), generator=generator(1))
    options = dict(given=start, temperature=temperature, top_p=top_p)
    one = built.sample(8, generator=generator(), **options)
    other = built.sample(8, generator=generator(), cached=False, **options)
    assert torch.equal(one, other) and torch.equal(one[:, :given], start)
    assert one.shape == (8, 3, 2) and one.min() >= 0 and one.max() < 4


def test_samples_are_as_frequent_as_they_are_likely():
    built = prior(2, 1, 3)
    every = torch.tensor(list(itertools.product(range(3), repeat=2))).view(-1, 2, 1)
    drawn = built.sample(20_000, generator=generator()).flatten(1)
    share = (drawn[:, 0] * 3 + drawn[:, 1]).bincount(minlength=9) / len(drawn)
    close(share.double(), built.log_likelihood(every).exp(), rtol=0, atol=0.015)


def test_top_p_leaves_the_fewest_codes_that_reach_it_and_cold_the_best():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(4000, 4)
    for top_p, allowed in ((0.4, 1), (0.6, 2), (0.85, 3), (1.0, 4)):
        assert choose(logits, top_p=top_p, generator=generator()).unique().tolist() == list(range(allowed))
    assert choose(logits, temperature=1e-3, generator=generator()).max() == 0
    share = (choose(logits, top_p=0.6, generator=generator()) == 0).double().mean().item()
    assert share == pytest.approx(0.5 / 0.8, abs=0.03)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=8, max_size=8), st.permutations(range(4)))
def test_a_set_has_one_order(codes, order):
    scene = torch.tensor(codes).view(1, 4, 2)
    ordered = canonical_order(scene)
    assert torch.equal(canonical_order(scene[:, list(order)]), ordered)
    assert sorted(scene[0].tolist()) == ordered[0].tolist()


def test_the_likelihood_of_sorted_slots_does_not_depend_on_their_order():
    autoencoder, codes = model(order="sorted"), torch.randint(9, (4, 3, 4), generator=generator())
    close(autoencoder.log_likelihood(codes[:, [2, 0, 1]]), autoencoder.log_likelihood(codes))


def test_the_likelihood_of_a_set_is_that_of_all_its_orders():
    autoencoder = model(order="random").double()
    codes = torch.randint(9, (3, 3, 4), generator=generator())
    codes[1, 1], codes[2] = codes[1, 0], codes[2, :1]  # two slots alike; all three
    for scene, different in zip(codes, (6, 3, 1), strict=True):
        texts = torch.stack([scene[list(order)] for order in itertools.permutations(range(3))]).unique(dim=0)
        assert len(texts) == different
        exact = autoencoder.prior.log_likelihood(texts).logsumexp(0)
        estimate = autoencoder.log_likelihood(scene.unsqueeze(0), orders=200, generator=generator())
        close(estimate[0], exact, rtol=0, atol=0.02)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=4, max_size=4), st.integers(0, 2**30))
def test_blanks_come_last_and_their_order_is_none(words, seed):
    """Every order of the other slots occurs, and only those: as many as `log_orders` says."""
    scene, blank = torch.tensor([[[word, word]] for word in words]).transpose(0, 1), torch.tensor([0, 0])
    many = scene.expand(400, -1, -1)
    shuffled = random_order(many, generator(seed), blank=blank)
    assert torch.equal(canonical_order(shuffled), canonical_order(many))
    full = (shuffled != 0).all(2)
    assert (full[:, :-1] >= full[:, 1:]).all()
    assert len(shuffled.unique(dim=0)) == round(log_orders(scene, blank).exp().item())


def test_the_likelihood_of_a_set_with_blanks_is_that_of_the_orders_of_the_others():
    autoencoder = model(order="random", blanks=True).double()
    codes = torch.randint(1, 9, (1, 3, 4), generator=generator())
    codes[0, 1] = autoencoder.blank
    texts = codes[:, [[0, 2, 1], [2, 0, 1]]][0]
    exact = autoencoder.prior.log_likelihood(texts).logsumexp(0)
    autoencoder.with_blanks = lambda codes: codes  # what an untrained decoder draws says nothing
    estimate = autoencoder.log_likelihood(codes, orders=200, generator=generator())
    close(estimate[0], exact, rtol=0, atol=0.02)


def test_shuffled_scenes_are_the_same_scenes_and_the_batchs_however_it_is_shared_out():
    codes = torch.randint(9, (6, 5, 2), generator=generator())
    whole = random_order(codes, generator())
    assert torch.equal(canonical_order(whole), canonical_order(codes)) and not torch.equal(whole, codes)
    for i in range(3):
        assert torch.equal(random_order(codes[i::3], generator(), (i, 3)), whole[i::3])


# --- training ---


def train(folder, model=SMALL, scenes=SCENES, **changes):
    config = Config(model=model, data=scenes, train=dataclasses.replace(SHORT, **changes))
    return training.train(config, folder, progress=False)


def same(one, other):
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return train(folder), folder


def test_a_run_is_the_loop_written_by_hand(trained):
    torch.manual_seed(0)
    by_hand = SVQAutoencoder(SMALL)
    optimizer = torch.optim.Adam(by_hand.parameters())
    scenes = data.make("shapes", 1_000_000, seed=1, **SCENES.options)
    order = training.scene_order(1_000_000, 4, 0, 0, 0, 1)
    for step in range(SHORT.steps):
        optimizer.param_groups[0]["lr"] = training.learning_rate(step, SHORT)
        batch = scenes.batch(next(order))["image"]
        optimizer.zero_grad()
        by_hand.loss(batch, training.step_generator(0, step)).backward()
        optimizer.step()
        by_hand.update(training.step_generator(0, step))
    assert same(trained[0], by_hand)
    assert by_hand.quantizer.placed


def test_an_interrupted_run_ends_bit_for_bit_like_one_that_was_not(trained, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "evaluate", interrupted)  # at step 4; saved at step 2
        train(tmp_path)
    assert same(train(tmp_path), trained[0])


def test_slots_stay_continuous_until_their_time(tmp_path):
    later = train(tmp_path, steps=4, quantise_from=2, eval_every=2)
    assert later.quantizer.placed
    log = training.read_log(tmp_path)
    for name in training.CODE_MEASURES:
        assert np.isnan(log[name][1]) and log[name][3] > 0


@pytest.mark.parametrize("colour_from, seen", [(-1, "..cc"), (0, "cccc"), (1, ".ccc"), (9, "....")])
def test_colour_has_blocks_of_its_own_from_its_time_on(colour_from, seen):
    split, letters = model(colour="slot", colour_blocks=1), ""
    for step in range(4):
        training._switch(split, step, TrainConfig(steps=9, quantise_from=2, colour_from=colour_from))
        letters += "c" if split.decoder.colour_dims == 4 else "."
        assert split.slot_attention.continuous == (step < 2)
    assert letters == seen
    split.config.learn = "prior"
    training._switch(split, 0, TrainConfig(steps=9, quantise_from=2, colour_from=colour_from))
    assert split.decoder.colour_dims == 4 and not split.slot_attention.continuous


def test_parts_of_a_batch_take_the_same_steps(trained, tmp_path):
    parts = train(tmp_path, accumulate=2)
    for one, other in zip(parts.state_dict().values(), trained[0].state_dict().values(), strict=True):
        close(one, other, rtol=1e-2, atol=1e-3)


def test_a_compiled_loss_takes_the_same_steps(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    train(tmp_path, compile=True)
    losses = [training.read_log(folder)["loss"] for folder in (tmp_path, trained[1])]
    np.testing.assert_allclose(*losses, rtol=1e-3)


def test_a_run_leaves_its_card_and_how_its_codes_are_used(trained):
    autoencoder, folder = trained
    again = zoo.load(folder / "model")
    assert same(again, autoencoder) and again.config == SMALL
    (measured,) = again.card["metrics"]
    scores = training.evaluate(again, data.make("shapes", 8, seed=2, **SCENES.options), 8)
    assert measured["utilisation"] == pytest.approx(scores.utilisation.mean().item(), abs=1e-5)
    log = training.read_log(folder)
    for name in training.CODE_MEASURES:
        blocks = [log[f"{name}_{i}"][-1] for i in range(4)]
        assert log[name][-1] == pytest.approx(np.mean(blocks), rel=1e-5)
        assert blocks == pytest.approx(getattr(scores, name).tolist(), rel=1e-4)
    assert np.isnan(log["nats"]).all()
    assert next(iter(measured)) == "fg_ari"


@pytest.mark.parametrize("config", [SMALL, PATCHES, SLATE], ids=["svq", "patches", "slate"])
def test_the_prior_learns_from_a_finished_autoencoder_and_changes_nothing_else(config, tmp_path):
    first = train(tmp_path / "first", config)
    second = dataclasses.replace(config, learn="prior")
    options = dict(start_from=str(tmp_path / "first" / "model"), lr=1e-2, steps=16, eval_every=8, quantise_from=100)
    model = train(tmp_path / "second", second, **options)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]) != name.startswith("prior."), name
    log = training.read_log(tmp_path / "second")
    assert np.isfinite(log["utilisation"][-1])  # codes, not continuous slots
    nats = log["nats"]
    nats = nats[~np.isnan(nats)]
    assert nats[-1] < nats[0]
    codes = model.sample(2, generator=generator())
    drawn = model.decode(codes)
    image = drawn if config is PATCHES else drawn.image
    assert image.shape == (2, 3, 16, 16) and image.isfinite().all()
    saved = zoo.load(tmp_path / "second" / "model")
    assert saved.config == second
    card = zoo.load(tmp_path / "first" / "model").card  # what came before is told with it
    assert saved.card["before"] == [{name: card[name] for name in ("training", "dataset", "wall_seconds")}]


# --- synonyms ---


def test_of_merged_codes_the_first_is_chosen_where_any_was():
    vq = quantizer(8, 6, num_blocks=2)
    vq.codebook[1] = torch.eye(6)[:, :4] * 10 + torch.arange(6).unsqueeze(1)
    vq.codebook[1, 4] = vq.codebook[1, 2] + 0.1
    vq.counts[1, 2] = 3.0
    first, second = vq.codebook[1, 2].clone(), vq.codebook[1, 4].clone()
    slots = torch.cat([randn(6, 4), vq.codebook[1]], dim=1)
    before = vq.nearest(slots)
    vq.merge(1, [4, 2])
    after = vq.nearest(slots)
    assert torch.equal(after[:, 0], before[:, 0])
    assert after[:, 1].tolist() == [0, 1, 2, 3, 2, 5]
    close(vq.codebook[1, 2], (3 * first + second) / 4)
    assert torch.equal(vq.codebook[1, 2], vq.codebook[1, 4])
    assert vq.counts[1].tolist() == [1, 1, 4, 1, 0, 1]
    vq.train()(slots)
    vq.update(generator())  # training brings the other one back
    assert not torch.equal(vq.codebook[1, 2], vq.codebook[1, 4])
    for book, codes in ((2, [0, 1]), (-1, [0, 1]), (0, []), (0, [1, 1]), (0, [5, 6])):
        with pytest.raises(ValueError, match="expected different codes below 6 of a book below 2"):
            vq.merge(book, codes)


@pytest.fixture
def speaking():
    """A model whose codes 1 and 4 of block 2 are all but the same, and some scenes."""
    torch.manual_seed(0)
    model = SVQAutoencoder(dataclasses.replace(SMALL, num_codes=6)).eval()
    with torch.no_grad():
        model.quantizer.codebook.normal_(generator=generator(1))
        model.quantizer.counts.fill_(1.0)
        model.quantizer.codebook[2, 4] = model.quantizer.codebook[2, 1] + 1e-3
    return model, data.make("shapes", 24, seed=3, **SCENES.options).batch(range(24))["image"]


def test_effects_of_exchanges_are_those_of_single_drawings(speaking):
    model, images = speaking
    effect = svq.exchange_effects(model, images, generator=generator())
    torch.testing.assert_close(effect, effect.mT, equal_nan=True)
    source = generator()
    output = model(images, generator=source)
    owned = torch.stack([(output.masks.argmax(1) == k).flatten(1).sum(1) for k in range(3)], dim=1)
    slots = torch.multinomial((owned >= 20).float(), 1, generator=source)[:, 0]
    total, tried = torch.zeros(6, 6), torch.zeros(6, 6)
    for scene, slot in zip(output.codes, slots, strict=True):
        for other in range(6):
            changed = scene.clone()
            changed[slot, 2] = other
            pictures = model.decode(torch.stack([scene, changed])).image
            total[scene[slot, 2], other] += (pictures[0] - pictures[1]).square().sum()
            tried[scene[slot, 2], other] += 1
    close(effect[2], (total + total.T) / (tried + tried.T), equal_nan=True, rtol=1e-3, atol=1e-6)


def test_codes_that_draw_the_same_become_one_word_and_no_others(speaking):
    model, images = speaking
    before = model(images, generator=generator())
    words = svq.merge_synonyms(model, images, 1e-3, generator())
    assert [1, 4] in words[2] and sum(len(group) > 1 for groups in words for group in groups) == 1
    assert [sorted(itertools.chain(*groups)) for groups in words] == [list(range(6))] * 4
    after = model(images, generator=generator())
    assert not (after.codes[..., 2] == 4).any()
    close(after.reconstruction, before.reconstruction, atol=0.01, rtol=0)
    rounded = SVQAutoencoder(dataclasses.replace(SMALL, quantizer="fsq"))
    with pytest.raises(ValueError, match="only codes of a VectorQuantizer"):
        svq.merge_synonyms(rounded, images)


def test_a_prior_may_begin_by_merging_synonyms(tmp_path):
    first = train(tmp_path / "first", SMALL)
    options = dict(start_from=str(tmp_path / "first" / "model"), eval_every=8)
    second = train(tmp_path / "second", dataclasses.replace(SMALL, learn="prior", synonyms=0.9), **options)
    assert not torch.equal(first.quantizer.codebook, second.quantizer.codebook)
    assert any(len(book.unique(dim=0)) < len(book) for book in second.quantizer.codebook)
    assert second.prior.training == first.training


def test_empty_slots_are_all_written_alike():
    shipped = zoo.load("svq_shapes")
    weights = {name: tensor for name, tensor in shipped.state_dict().items() if name != "blank"}
    plain = SVQAutoencoder(dataclasses.replace(shipped.config, blanks=False))
    plain.load_state_dict(weights)
    blank = SVQAutoencoder(dataclasses.replace(shipped.config, blanks=True, write_restarts=1)).eval()
    blank.load_state_dict(weights | {"blank": torch.zeros(16, dtype=torch.int64)})
    pictures = data.make("shapes", 24, seed=3).batch(range(24))["image"]
    word = blank.find_blank(pictures, generator())
    codes = blank(pictures, generator=generator()).codes
    tidy = blank.with_blanks(codes)

    def owners(codes):
        return blank.decode(codes).masks.argmax(1)

    empty = (F.one_hot(owners(codes), 7).sum((1, 2)) == 0).unsqueeze(2)
    assert 10 < empty.sum() < 100  # scenes of two to six objects, seven slots
    assert torch.equal(tidy, torch.where(empty, word, codes))
    assert torch.equal(owners(tidy), owners(codes))
    assert torch.equal(blank.with_blanks(tidy), tidy)
    # What an empty slot says has no part in the likelihood of a scene, and in what the prior learns.
    other = torch.where(empty, codes[empty[..., 0]][0], codes)
    likely = [blank.log_likelihood(each, generator=generator()) for each in (codes, tidy, other)]
    close(likely[0], likely[1])
    close(likely[0], likely[2])
    assert torch.equal(blank.write(pictures, generator()), tidy)
    assert torch.equal(plain.with_blanks(codes), codes)


def test_a_prior_may_begin_by_choosing_the_blank(tmp_path):
    train(tmp_path / "first", SMALL)
    config = dataclasses.replace(SMALL, learn="prior", blanks=True)
    second = train(tmp_path / "second", config, start_from=str(tmp_path / "first" / "model"), eval_every=8)
    assert second.blank.dtype == torch.int64 and second.blank.shape == (SMALL.num_blocks,)
    assert torch.equal(zoo.load(tmp_path / "second" / "model").blank, second.blank)
    with pytest.raises(ValueError, match="blanks=False"):
        SVQAutoencoder(SMALL).find_blank(torch.rand(1, 3, 16, 16))
    with pytest.raises(ValueError, match="blanks=True"):
        SlateAutoencoder(SlateConfig(blanks=True))


@pytest.mark.parametrize("config", [SMALL, PATCHES], ids=["svq", "patches"])
def test_scenes_are_written_once_where_images_are_kept(config, tmp_path, monkeypatch):
    first = train(tmp_path / "first", config)
    second = dataclasses.replace(config, learn="prior", write_restarts=2 if config is SMALL else 1)
    kept = dataclasses.replace(SCENES, size=12, keep=True)
    options = dict(start_from=str(tmp_path / "first" / "model"), steps=8)
    learned = []
    with monkeypatch.context() as patch:
        patch.setattr(
            ScenePrior, "log_likelihood", lambda self, codes: learned.append(codes) or self.start.sum() + codes
        )
        patch.setattr(training, "evaluate", lambda *a, **k: training.Evaluation(*torch.zeros(6, 4)))
        patch.setattr(training, "_look", lambda *a: ({}, None))
        train(tmp_path / "second", second, kept, **options)
    scenes = data.make("shapes", 12, seed=1, **SCENES.options).batch(range(12))["image"]
    how = {"restarts": 2} if config is SMALL else {}
    texts = first((scenes * 255).round() / 255, generator=training.step_generator(0, 0), **how).codes
    seen = canonical_order(torch.cat(learned)) if config is SMALL else torch.cat(learned)
    texts = canonical_order(texts) if config is SMALL else texts
    assert len(seen) == 32
    assert all((texts == text).flatten(1).all(1).any() for text in seen)


def test_restarts_for_the_prior_need_kept_images(tmp_path):
    for change, message in (
        ({"write_restarts": 0}, "must be at least 1"),
        ({"write_restarts": 2}, "needs data.keep=true"),
    ):
        with pytest.raises(ValueError, match=message):
            train(tmp_path, dataclasses.replace(SMALL, learn="prior", **change), start_from="there")


def test_a_prior_without_an_autoencoder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"name its checkpoint in train.start_from"):
        train(tmp_path, dataclasses.replace(SMALL, learn="prior"))
    with pytest.raises(ValueError, match="the prior needs the whole autoencoder"):
        train(tmp_path, dataclasses.replace(SMALL, learn="prior"), start_from="there", start_parts=["encoder"])


def test_eight_images_are_learned_by_heart_from_patches():
    torch.manual_seed(0)
    pictures = data.make("shapes", 8, seed=1, **SCENES.options).batch(range(8))["image"]
    patches = PatchVQVAE(dataclasses.replace(PATCHES, channels=16, dim=16, num_codes=128))
    optimizer = torch.optim.Adam(patches.parameters(), lr=5e-3)
    for step in range(150):
        optimizer.zero_grad()
        patches.loss(pictures).backward()
        optimizer.step()
        patches.update(generator(step))
    output = patches.eval()(pictures)
    close(patches.decode(output.codes), output.reconstruction)
    assert (output.reconstruction - pictures).square().mean() < 0.5 * pictures.var()


def test_a_writer_writes_what_its_memory_says():
    torch.manual_seed(0)
    writer = ScenePrior(6, 1, 5, dim=16, num_layers=1, num_heads=2, memory_dim=8)
    memory, tokens = randn(2, 3, 8), torch.randint(5, (2, 6, 1), generator=generator())
    optimizer = torch.optim.Adam(writer.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        (-writer.log_likelihood(tokens, memory).sum()).backward()
        optimizer.step()
    assert torch.equal(writer.sample(2, memory=memory, temperature=1e-4), tokens)
    assert torch.equal(writer.sample(2, memory=memory.flip(0), temperature=1e-4, cached=False), tokens.flip(0))
    close(writer.log_likelihood(tokens, memory[:, [2, 0, 1]]), writer.log_likelihood(tokens, memory))  # a set


def test_slate_decodes_codes_and_its_masks_are_the_attention():
    torch.manual_seed(0)
    slate, pictures = SlateAutoencoder(SLATE).eval(), images(2)
    with torch.no_grad():
        output = slate(pictures, generator=generator())
    close(slate.decode(output.codes).image, output.reconstruction)
    close(output.masks.sum(1), torch.ones(2, 16, 16))
    close(nn.functional.interpolate(output.attention, size=(16, 16), mode="bilinear"), output.masks)
    with pytest.raises(ValueError, match="restarts must be 1, got 2"):
        slate(pictures, restarts=2)


@pytest.mark.parametrize("part", ["dvae", "decoder", "encoder"])
def test_every_part_of_slate_learns(part):
    torch.manual_seed(0)
    slate = SlateAutoencoder(SLATE)
    slate.loss(images(), generator()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in getattr(slate, part).parameters())
    assert any(p.grad.abs().max() > 0 for p in getattr(slate, part).parameters())


def test_gumbel_patches_share_their_noise_out_too():
    torch.manual_seed(0)
    dvae = PatchVQVAE(dataclasses.replace(PATCHES, quantizer="gumbel")).double()
    pictures = images(4).double()
    parts = [dvae.loss(pictures[i::2], generator(), (i, 2)) for i in range(2)]
    close(sum(parts) / 2, dvae.loss(pictures, generator()), rtol=1e-9, atol=0)


@pytest.mark.parametrize("dataset", ["shapes", "multi_dsprites"])
@pytest.mark.parametrize("family", ["svq", "patches"])
def test_packaged_recipes_have_a_second_stage(dataset, family):
    first = cli.read_config(f"{family}_{dataset}")
    second = cli.read_config(f"{family}_{dataset}", f"--config={family}_prior", "--train.start_from=there")
    reading = {"num_iterations": 16, "search_iterations": 12, "blanks": True, "write_restarts": 16}
    extra = reading if family == "svq" else {}
    assert second.model == dataclasses.replace(first.model, learn="prior", **extra)
    assert second.data.name == first.data.name and second.data.options == first.data.options
    assert not second.train.start_parts
    model = zoo.MODELS["SVQAutoencoder" if family == "svq" else "PatchVQVAE"][0](second.model)
    assert sum(p.numel() for p in model.parameters()) * 4 < 5e6  # a checkpoint's limit


def test_the_preset_is_what_it_says():
    preset = cli.read_config("svq_preset").model
    assert (preset.num_slots, preset.slot_dim, preset.num_blocks, preset.num_codes) == (4, 64, 4, 512)
    assert preset.slot_dim // preset.num_blocks == 16 and preset.commitment == 0.25
    assert SVQAutoencoder(preset).quantizer.codebook.shape == (4, 512, 16)
