"""Codes are nearest, gradients pass straight through, and layers keep blocks apart."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from slotlib.model import Draws
from slotlib.vq import (
    BlockGRUCell,
    BlockLayerNorm,
    BlockLinear,
    FiniteScalar,
    FiniteScalarQuantizer,
    Gumbel,
    GumbelQuantizer,
    Nearest,
    QuantizerConfig,
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
    for book, codes in ((2, [0, 1]), (-1, [0, 1]), (True, [0, 1]), (0, []), (0, [1, 1]), (0, [5, 6]), (0, 3)):
        with pytest.raises(ValueError, match="expected different codes below 6 of a book below 2"):
            vq.merge(book, codes)


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
    drawn = gumbel(torch.zeros(20_000, 2), Draws(generator())).indices
    share = drawn.flatten().bincount(minlength=3) / len(drawn)
    close(share, torch.tensor([0.6, 0.3, 0.1]), rtol=0, atol=0.015)
    assert (gumbel.eval()(torch.zeros(5, 2)).indices == 0).all()
    uniform = math.log(3) + (torch.tensor([0.6, 0.3, 0.1]) * torch.tensor([0.6, 0.3, 0.1]).log()).sum()
    gumbel.uniform = 2.0
    close(gumbel(torch.zeros(5, 2)).loss, 2 * uniform)


def test_gumbel_noise_is_the_batchs_however_it_is_shared_out():
    torch.manual_seed(0)
    gumbel, x = GumbelQuantizer(8, 5, num_blocks=2), randn(6, 3, 8)
    whole = gumbel(x, Draws(generator())).indices
    for i in range(3):
        assert torch.equal(gumbel(x[i::3], Draws(generator(), i, 3)).indices, whole[i::3])


def test_gumbel_gradients_are_those_of_the_softmax():
    torch.manual_seed(0)
    gumbel = GumbelQuantizer(4, 3).double().eval()
    x = randn(2, 4).double().requires_grad_()
    gumbel(x).values.sum().backward()
    y = x.detach().clone().requires_grad_()
    (gumbel.classify(y).softmax(-1) @ gumbel.codebook[0]).sum().backward()
    close(x.grad, y.grad)


@pytest.mark.parametrize(
    ("config", "kind", "codes"),
    [
        (Nearest(2, 6, learn="loss", commitment=0.5, decay=0.9, revive=0.2), VectorQuantizer, 6),
        (Gumbel(2, 6, temperature=0.5), GumbelQuantizer, 6),
        (FiniteScalar(2, [3, 4]), FiniteScalarQuantizer, 12),
    ],
)
def test_a_configuration_builds_its_quantiser(config, kind, codes):
    built = config.build(8)
    assert type(built) is kind
    assert (built.dim, built.num_blocks, built.num_codes) == (8, 2, codes)
    for name in {"learn", "commitment", "decay", "revive", "temperature"} & vars(config).keys():
        assert getattr(built, name) == getattr(config, name)
    with pytest.raises(NotImplementedError, match="QuantizerConfig does not say what it builds"):
        QuantizerConfig().build(8)


def test_codes_of_a_batch_are_decoded_without_looking_under_vmap():
    vq, indices = quantizer(), torch.randint(5, (3, 4, 1), generator=generator())
    close(torch.func.vmap(vq.decode)(indices), vq.decode(indices))


# --- bad input ---


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: VectorQuantizer(8, 0), "num_codes must be a whole number, at least 1, got 0"),
        (lambda: VectorQuantizer("8", 4), "dim must be a whole number, at least 1, got '8'"),
        (lambda: VectorQuantizer(8, 4, num_blocks=3), "num_blocks must divide dim, got dim=8 and num_blocks=3"),
        (lambda: VectorQuantizer(8, 4, learn="magic"), r"learn must be one of \('ema', 'loss'\), got 'magic'"),
        (lambda: VectorQuantizer(8, 4, decay=1.0), "decay must be below 1, got 1"),
        (lambda: VectorQuantizer(8, 4, revive=-0.1), "revive must be a finite number, at least 0"),
        (lambda: VectorQuantizer(8, 4, commitment=math.nan), "commitment must be a finite number, at least 0"),
        (lambda: VectorQuantizer(8, 4, eps=0), "eps must be a finite number, above 0"),
        (lambda: FiniteScalarQuantizer(8, (4, 1)), "each of levels must be a whole number, at least 2, got 1"),
        (lambda: FiniteScalarQuantizer(8, ()), r"levels must be some whole numbers, got \(\)"),
        (lambda: FiniteScalarQuantizer(8, 5), "levels must be some whole numbers, got 5"),
        (lambda: GumbelQuantizer(8, 4, temperature=0.0), "temperature must be a finite number, above 0"),
        (lambda: GumbelQuantizer(8, 4, uniform=None), "uniform must be a finite number, at least 0"),
        (lambda: BlockLinear(8, 6, 4), "num_blocks must divide both widths, got 8, 6 and num_blocks=4"),
        (lambda: BlockLinear(8, 6, 2.0), "num_blocks must be a whole number"),
        (lambda: BlockGRUCell(8, 3), "num_blocks must divide dim"),
        (lambda: BlockLayerNorm(0), "num_blocks must be a whole number"),
        (lambda: BlockLayerNorm(3)(torch.zeros(2, 8)), r"x must be floating point of a width that 3 blocks divide"),
        (lambda: BlockLinear(8, 6, 2)(torch.zeros(2, 7)), r"x must be floating point \[\.\.\., input_dim=8\]"),
        (lambda: quantizer()(torch.zeros(3, 7)), r"vectors must be floating point \[..., dim=8\], got .* \[3, 7\]"),
        (lambda: quantizer()(torch.zeros(3, 8, dtype=torch.int64)), "vectors must be floating point"),
        (lambda: quantizer()(torch.full((3, 8), math.nan)), "vectors must be finite"),
        (lambda: quantizer()(None), "vectors must be floating point .* got None"),
        (lambda: quantizer().nearest([0.5]), r"vectors must be floating point .* got \[0.5\]"),
        (lambda: quantizer().decode(torch.tensor([[5]])), "codes must be within 0 and 4, got 5 to 5"),
        (lambda: quantizer().decode(torch.tensor([[1, 1]])), r"codes must be integers \[..., blocks=1\]"),
        (lambda: quantizer().decode(torch.tensor([[0.0]])), r"codes must be integers \[..., blocks=1\]"),
        (lambda: quantizer().decode("x"), "codes must be integers .* got 'x'"),
        (lambda: quantizer().update(3), "generator must be a torch.Generator or None, got 3"),
        (lambda: GumbelQuantizer(8, 4)(torch.zeros(2, 8), 3), "draws must be a slotlib.Draws"),
        (lambda: use(torch.tensor([[4]]), 4), "indices must be within 0 and 3, got 4 to 4"),
        (lambda: use(torch.zeros(0, 2).long(), 4), "indices must be some"),
        (lambda: use(torch.zeros(3, 2), 4), r"indices must be integers \[\.\.\., blocks\]"),
        (lambda: block_diagonal(torch.zeros(2, 3)), "weights must be floating point"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


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
