"""Vector quantisation (chapter 07): vectors become codes, whole or block by block.

*Vector quantisation* replaces a vector by the nearest of P learned ones, its code (van den Oord et al., 2017, arXiv
1711.00937). The gradient passes straight through, as if nothing had been replaced. Cut the vector into M blocks with a
codebook each, and P·M codes say P^M things. `VectorQuantizer` does both; `GumbelQuantizer` and `FiniteScalarQuantizer`
are there to compare.

Layers that keep blocks apart, linear, LayerNorm and GRU, are at the end.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from slotlib import check
from slotlib.model import Draws

Learn = Literal["ema", "loss"]

# --- quantisers ---


class Use(NamedTuple):
    """How codes are used, block by block."""

    utilisation: Float[Tensor, "blocks"]
    """The share of the codes that occur at all."""
    perplexity: Float[Tensor, "blocks"]
    """exp(entropy): as many equally frequent codes would be as hard to guess. From 1 to the number of codes."""


def use(indices: Int[Tensor, "*batch blocks"], num_codes: int) -> Use:
    """How often codes occur in `indices`. Raises ValueError unless they are below `num_codes`, and some."""
    check.whole("num_codes", num_codes)
    check.codes("indices", indices, "... blocks", num_codes)
    if not indices.numel():
        raise ValueError(f"indices must be some, got {list(indices.shape)}")
    flat = indices.flatten(0, -2).T
    counts = torch.zeros(len(flat), num_codes, device=flat.device).scatter_add_(1, flat, torch.ones_like(flat).float())
    share = counts / counts.sum(dim=1, keepdim=True)
    return Use((counts > 0).float().mean(dim=1), torch.special.entr(share).sum(dim=1).exp())


class Quantised(NamedTuple):
    values: Float[Tensor, "*batch dim"]
    """Codes in place of the inputs; under autocast float32 or wider. The gradient goes to the inputs, straight
    through."""
    indices: Int[Tensor, "*batch blocks"]
    loss: Float[Tensor, ""]
    """What to add to the training loss, weighted already."""
    error: Float[Tensor, "blocks"]
    """Mean squared distance between inputs and codes, per channel."""
    num_codes: int

    def use(self) -> Use:
        """Utilisation and perplexity of the codes in this call."""
        return use(self.indices, self.num_codes)


class Quantizer(nn.Module):
    """What all quantisers share: vectors of `num_blocks` blocks, each block one of `num_codes`.

    `codebook` `[blocks, codes, dim / blocks]` holds the values that codes stand for.
    """

    codebook: Tensor

    def __init__(self, dim: int, num_codes: int, num_blocks: int):
        super().__init__()
        for name, size in dict(dim=dim, num_codes=num_codes, num_blocks=num_blocks).items():
            check.whole(name, size)
        if dim % num_blocks:
            raise ValueError(f"num_blocks must divide dim, got dim={dim} and num_blocks={num_blocks}")
        self.dim, self.num_codes, self.num_blocks = dim, num_codes, num_blocks

    def _blocks(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "blocks points block_dim"]:
        """Every block's points, in float32 or wider. Raises ValueError for another width, integers or NaN."""
        check.tensor("vectors", x, "floating point", f"... dim={self.dim}")
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        if not check.holds(x.detach().sum().isfinite(), otherwise=True):
            raise ValueError("vectors must be finite, got NaN or infinite values; did the loss explode?")
        return x.reshape(-1, self.num_blocks, self.dim // self.num_blocks).transpose(0, 1)

    def _as(self, x: Float[Tensor, "*batch dim"], values: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return values if torch.is_autocast_enabled(x.device.type) else values.to(x.dtype)

    def decode(self, indices: Int[Tensor, "*batch blocks"]) -> Float[Tensor, "*batch dim"]:
        """The values that codes stand for. Raises ValueError for codes of another shape, type or range."""
        check.codes("codes", indices, f"... blocks={self.num_blocks}", self.num_codes)
        block = torch.arange(self.num_blocks, device=indices.device)
        return self.codebook.expand(self.num_blocks, -1, -1)[block, indices].flatten(-2)

    @torch.no_grad()
    def nearest(self, x: Float[Tensor, "*batch dim"]) -> Int[Tensor, "*batch blocks"]:
        """The codes whose values lie closest to `x`. Raises ValueError as `forward`."""
        blocks = self._blocks(x)
        with torch.autocast(blocks.device.type, enabled=False):
            return nearest(blocks, self.codebook.to(blocks.dtype)).T.view(*x.shape[:-1], self.num_blocks)

    def update(self, generator: torch.Generator | None = None) -> None:
        """Learn what gradients do not teach; to be called after every optimiser step."""


def nearest(
    points: Float[Tensor, "books points dim"], codebook: Float[Tensor, "books codes dim"]
) -> Int[Tensor, "books points"]:
    """For each point the closest code of its book; the first of equals.

    ‖x − c‖² = ‖x‖² − 2 x·c + ‖c‖², and ‖x‖² is the same for every code: one batched product, and no differences of all
    pairs in memory.
    """
    check.tensor("points", points, "floating point", "books points dim")
    books, _, dim = points.shape
    check.tensor("codebook", codebook, "floating point", f"books={books} codes dim={dim}")
    # Distances do not change when everything moves together; near the origin the products lose no digits.
    origin = codebook.mean(dim=1, keepdim=True)
    points, codebook = points - origin, codebook - origin
    half = codebook.square().sum(dim=2).unsqueeze(1) / 2
    return torch.baddbmm(half, points, codebook.mT, alpha=-1).argmin(dim=2)


def kmeans(
    points: Float[Tensor, "books points dim"],
    num_codes: int,
    generator: torch.Generator | None = None,
    iterations: int = 10,
) -> tuple[Float[Tensor, "books codes dim"], Float[Tensor, "books codes"]]:
    """Centres of `num_codes` clusters in every book, and how many points each has.

    Centres start at points far from the ones before (k-means++: Arthur & Vassilvitskii, 2007), then Lloyd's algorithm.

    Raises ValueError for points of another shape or not finite, or no codes.
    """
    check.tensor("points", points, "floating point", "books points dim")
    if not points.numel() or not points.sum().isfinite():
        raise ValueError(f"points must be some and finite, got {check.described(points)}")
    check.whole("num_codes", num_codes)
    check.whole("iterations", iterations, least=0)
    check.generator(generator)
    device = points.device if generator is None else generator.device
    distance, start = torch.ones_like(points[..., 0]), []
    for _ in range(num_codes):
        # The small number is for when all that is left lies on a centre.
        drawn = torch.multinomial((distance + 1e-20).to(device), 1, generator=generator).to(points.device)
        start.append(points.gather(1, drawn.unsqueeze(2).expand(-1, -1, points.shape[2])))
        apart = (points - start[-1]).square().sum(dim=2)
        distance = apart if len(start) == 1 else torch.minimum(distance, apart)
    centres = torch.cat(start, dim=1)
    for _ in range(iterations):
        counts, sums = _statistics(points, nearest(points, centres), num_codes)
        centres = torch.where(counts.unsqueeze(2) > 0, sums / counts.clamp(min=1).unsqueeze(2), centres)
    return centres, _statistics(points, nearest(points, centres), num_codes)[0]


def _statistics(
    points: Float[Tensor, "books points dim"], indices: Int[Tensor, "books points"], num_codes: int
) -> tuple[Float[Tensor, "books codes"], Float[Tensor, "books codes dim"]]:
    """How many points each code has, and their sum."""
    counts = points.new_zeros(len(points), num_codes).scatter_add_(1, indices, torch.ones_like(points[..., 0]))
    sums = points.new_zeros(len(points), num_codes, points.shape[2])
    return counts, sums.scatter_add_(1, indices.unsqueeze(2).expand_as(points), points)


def _of_all_processes(points: Float[Tensor, "books points dim"]) -> Float[Tensor, "books all dim"]:
    """The points of all devices, in an order that does not depend on how a batch was cut up."""
    if distributed.is_available() and distributed.is_initialized():
        parts = [torch.empty_like(points) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, points.contiguous())
        points = torch.cat(parts, dim=1)
    order = points[..., 0].argsort(dim=1, stable=True)
    return points.gather(1, order.unsqueeze(2).expand_as(points))


def _some(
    points: Float[Tensor, "books points dim"], count: int, generator: torch.Generator | None
) -> Float[Tensor, "books count dim"]:
    """`count` random points of each book, all different while there are enough, moved by a hundredth of their spread:
    of two codes in one place the second would never be the nearest."""
    device = points.device if generator is None else generator.device
    order = torch.randperm(points.shape[1], generator=generator, device=device)
    chosen = points[:, order[torch.arange(count, device=device) % len(order)].to(points.device)]
    noise = torch.randn(chosen.shape, generator=generator, device=device, dtype=points.dtype).to(points.device)
    return chosen + 0.01 * points.std(dim=1, keepdim=True, unbiased=False) * noise


class VectorQuantizer(Quantizer):
    """The nearest of `num_codes` learned vectors, block by block.

    One block is the quantiser of the VQ-VAE. Several with a codebook each are semantic blocks; several that share one
    (`shared=True`) are the heads of multi-head quantisation.

    In training mode a call only takes note of what it saw. `update()`, once after every optimiser step, moves the
    codebook: to running means of what each code was chosen for, and dead codes to where the data are. Steps, parts of a
    batch and devices then add up to the same codebook however they are cut. Until the first `update`, which places the
    codes by k-means, training passes vectors through unchanged. Nothing is noted in eval mode.

    Args:
        dim: width of the vectors.
        num_codes: codes in a codebook.
        num_blocks: must divide `dim`.
        shared: one codebook for all blocks.
        learn: "ema": codes are running means (van den Oord et al., 2017, appendix A.1). "loss": they are parameters,
            and a second loss draws them to the vectors.
        commitment: weight of the loss that draws vectors to their codes.
        decay: of the running means, per update.
        revive: a code with less than this share of an average code's use is dead, and moves to a random vector.
        eps: added to the counts before dividing by them (Laplace), so that unused codes stay finite.
        kmeans: place the codes by k-means at the first update; without, they start normally distributed.

    Raises ValueError for a size below 1, blocks that do not divide `dim`, or a weight out of range.
    """

    counts: Tensor
    """How often each code of each book was chosen, as a running mean."""
    sums: Tensor
    """Of the vectors it was chosen for."""

    def __init__(
        self,
        dim: int,
        num_codes: int,
        *,
        num_blocks: int = 1,
        shared: bool = False,
        learn: Learn = "ema",
        commitment: float = 0.25,
        decay: float = 0.99,
        revive: float = 0.1,
        eps: float = 1e-5,
        kmeans: bool = True,
    ):
        super().__init__(dim, num_codes, num_blocks)
        check.choice("learn", learn, Learn)
        check.number("commitment", commitment)
        for name, share in (("decay", decay), ("revive", revive)):
            check.number(name, share)
            if share >= 1:
                raise ValueError(f"{name} must be below 1, got {share}")
        check.number("eps", eps, above=True)
        self.shared, self.learn, self.commitment = shared, learn, commitment
        self.decay, self.revive, self.eps = decay, revive, eps
        codes = torch.randn(1 if shared else num_blocks, num_codes, dim // num_blocks)
        if learn == "loss":
            self.codebook = nn.Parameter(codes)
        else:
            self.register_buffer("codebook", codes)
        self.register_buffer("counts", torch.full(codes.shape[:2], 0.0 if kmeans else 1.0))
        self.register_buffer("sums", codes * self.counts.unsqueeze(2))
        self._through = kmeans  # not `placed`, as far as is known without asking a GPU
        self._noted: list[tuple[Tensor, Tensor]] = []

    @property
    def placed(self) -> bool:
        """Whether the codes are where data are: always without k-means, and after the first update."""
        return bool(self.counts.any())

    def _books(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "books points block_dim"]:
        blocks = self._blocks(x)
        return blocks.flatten(0, 1).unsqueeze(0) if self.shared else blocks

    def forward(self, x: Float[Tensor, "*batch dim"], draws: Draws | None = None) -> Quantised:
        """Replace every block by the nearest code. Nothing here is random; `draws` is for other quantisers.

        Raises ValueError for another width, integers or NaN.
        """
        points = self._books(x)
        with torch.autocast(x.device.type, enabled=False):
            book = self.codebook.to(points.dtype)
            indices = nearest(points.detach(), book.detach())
            if self.training:
                self._note(points.detach(), indices)
            codes = book.gather(1, indices.unsqueeze(2).expand_as(points))
            if self.training and self._through:
                codes = points.detach()
            distance = (points - codes.detach()).square()
            loss = self.commitment * distance.mean()
            if self.learn == "loss":
                loss = loss + F.mse_loss(codes, points.detach())
            values = codes.detach() + (points - points.detach())  # exactly the code
        shape = self.num_blocks, -1, self.dim // self.num_blocks
        return Quantised(
            self._as(x, values.reshape(shape).transpose(0, 1).reshape(x.shape)),
            indices.view(self.num_blocks, -1).T.view(*x.shape[:-1], self.num_blocks),
            loss,
            distance.detach().reshape(shape).mean(dim=(1, 2)),
            self.num_codes,
        )

    def _note(self, points: Tensor, indices: Tensor) -> None:
        if self._through and self.placed:  # loaded
            self._through = False
        if len(self._noted) == 100_000:
            raise ValueError("100,000 calls in training mode without update(); call it after every optimiser step")
        self._noted.append((points, indices))

    @torch.no_grad()
    def update(self, generator: torch.Generator | None = None) -> None:
        """Move the codes by what was seen since the last update, on all devices.

        `generator` says which vectors dead codes move to; with several devices it must be the same on all.
        """
        check.generator(generator)
        if not self._noted:
            return
        points, indices = (torch.cat(parts, dim=1) for parts in zip(*self._noted, strict=True))
        self._noted.clear()
        if self._through:
            points = _of_all_processes(points)
            codes, counts = kmeans(points, self.num_codes, generator)
            self._place(codes, counts)
            self._through = False
            return
        counts, sums = _statistics(points, indices, self.num_codes)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(counts)
            distributed.all_reduce(sums)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        if self.learn == "ema":
            total = self.counts.sum(dim=1, keepdim=True)
            smooth = (self.counts + self.eps) / (total + self.num_codes * self.eps) * total
            self.codebook.copy_(self.sums / smooth.unsqueeze(2))
        average = self.counts.mean(dim=1, keepdim=True)
        dead = self.counts < self.revive * average
        if dead.any():
            fresh = _some(_of_all_processes(points), self.num_codes, generator)
            # With an average count a revived code has time to find out whether it is of use.
            self._place(
                torch.where(dead.unsqueeze(2), fresh, self.codebook), torch.where(dead, average, self.counts), dead
            )

    @torch.no_grad()
    def merge(self, book: int, codes: Sequence[int]) -> None:
        """Make one code of several of a book: all move to their mean, weighted by how often each is used, and from then
        on the first is chosen. Further training revives the others as it revives dead codes.

        Raises ValueError unless there are such a book and such codes, each named once.
        """
        books, size = self.counts.shape
        known = isinstance(codes, Sequence) and all(isinstance(code, int) and 0 <= code < size for code in codes)
        if type(book) is not int or not 0 <= book < books or not known or not codes or len(set(codes)) < len(codes):
            raise ValueError(f"expected different codes below {size} of a book below {books}, got {codes} of {book}")
        codes = sorted(codes)
        weight = self.counts[book, codes].clamp(min=self.eps)
        mean = weight @ self.codebook[book, codes] / weight.sum()
        self.codebook[book, codes] = mean
        self.counts[book, codes] = torch.zeros_like(weight)
        self.counts[book, codes[0]] = weight.sum()
        self.sums[book, codes] = self.counts[book, codes].unsqueeze(1) * mean

    def _place(self, codes: Tensor, counts: Tensor, which: Tensor | None = None) -> None:
        sums = codes * counts.unsqueeze(2)
        self.codebook.copy_(codes)
        self.counts.copy_(counts)
        self.sums.copy_(sums if which is None else torch.where(which.unsqueeze(2), sums, self.sums))


class GumbelQuantizer(Quantizer):
    """Codes drawn by a classifier instead of found by distance: the Gumbel-softmax (Jang et al., 2017, 1611.01144).

    In training a code is drawn, and the gradient is that of the softmax at `temperature`; in eval mode it is the most
    probable one. `uniform` weighs the KL divergence to equal use of all codes. Other arguments as `VectorQuantizer`.
    """

    def __init__(
        self, dim: int, num_codes: int, *, num_blocks: int = 1, temperature: float = 1.0, uniform: float = 0.0
    ):
        super().__init__(dim, num_codes, num_blocks)
        check.number("temperature", temperature, above=True)
        check.number("uniform", uniform)
        self.temperature, self.uniform = temperature, uniform
        self.classify = BlockLinear(dim, num_blocks * num_codes, num_blocks)
        self.codebook = nn.Parameter(torch.randn(num_blocks, num_codes, dim // num_blocks))

    def forward(self, x: Float[Tensor, "*batch dim"], draws: Draws | None = None) -> Quantised:
        """Draw a code for every block."""
        points, draws = self._blocks(x), Draws.given(draws)
        if x.ndim < 2:
            raise ValueError(f"vectors must be a batch, [batch, ..., dim={self.dim}], got {list(x.shape)}")
        with torch.autocast(x.device.type, enabled=False):
            flat = points.transpose(0, 1).flatten(1).view(x.shape)
            logits = self.classify(flat).unflatten(-1, (self.num_blocks, self.num_codes))
            noise = 0.0
            if self.training:
                noise = -draws.exponential(len(x), *logits.shape[1:], like=logits).log()
            soft = ((logits + noise) / self.temperature).softmax(dim=-1)
            indices = soft.argmax(dim=-1)
            hard = F.one_hot(indices, self.num_codes).to(soft) + (soft - soft.detach())
            values = torch.einsum("...mp,mpd->...md", hard, self.codebook.to(hard)).flatten(-2)
            scores = logits.log_softmax(dim=-1)
            divergence = (scores.exp() * (scores + math.log(self.num_codes))).sum(dim=-1).mean()
            error = (self._blocks(values) - points).detach().square().mean(dim=(1, 2))
        return Quantised(self._as(x, values), indices, self.uniform * divergence, error, self.num_codes)


class FiniteScalarQuantizer(Quantizer):
    """No codebook to learn: squash a few numbers and round them (Mentzer et al., 2024, arXiv 2309.15505).

    Each block becomes `len(levels)` numbers, by a linear map unless it has that width already; the i-th is rounded to
    one of `levels[i]` values in [-1, 1]. A code is the tuple of these, counted with the first digit fastest.

    Raises ValueError for fewer than 2 levels (of 2 only −1 and 0 are left, see `_bound`), or as `Quantizer`.
    """

    levels: Tensor
    basis: Tensor

    def __init__(self, dim: int, levels: Sequence[int] = (8, 5, 5, 5), *, num_blocks: int = 1):
        if not isinstance(levels, Sequence) or not levels:
            raise ValueError(f"levels must be some whole numbers, got {check.described(levels)}")
        for each in levels:
            check.whole("each of levels", each, least=2)
        super().__init__(dim, math.prod(levels), num_blocks)
        narrow = num_blocks * len(levels)
        self.project_in, self.project_out = (
            (nn.Identity(), nn.Identity())
            if dim == narrow
            else (BlockLinear(dim, narrow, num_blocks), BlockLinear(narrow, dim, num_blocks))
        )
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        basis = torch.tensor([math.prod(levels[:i]) for i in range(len(levels))])
        self.register_buffer("basis", basis, persistent=False)

    @property
    def codebook(self) -> Float[Tensor, "blocks codes block_dim"]:
        """What every code stands for."""
        digits = torch.arange(self.num_codes, device=self.levels.device).unsqueeze(1) // self.basis % self.levels
        grid = (digits - self.levels // 2) / (self.levels // 2)
        grid = grid.to(next((weight.dtype for weight in self.parameters()), grid.dtype))
        values = self.project_out(grid.unsqueeze(1).expand(-1, self.num_blocks, -1).flatten(1))
        return values.unflatten(1, (self.num_blocks, -1)).transpose(0, 1)

    def _bound(self, z: Float[Tensor, "*batch digits"]) -> Float[Tensor, "*batch digits"]:
        """Squash so that rounding gives the integers from −⌊L/2⌋, L of them. An even number of them has no middle:
        there the curve is shifted by half a step, so that z = 0 still gives 0."""
        half = (self.levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        return (z + (offset / half).atanh()).tanh() * half - offset

    def forward(self, x: Float[Tensor, "*batch dim"], draws: Draws | None = None) -> Quantised:
        """Round every block. Nothing here is random, and no loss is needed."""
        points = self._blocks(x)
        with torch.autocast(x.device.type, enabled=False):
            z = self.project_in(points.transpose(0, 1).flatten(1)).unflatten(1, (self.num_blocks, -1))
            bounded = self._bound(z)
            whole = bounded.round()
            digits = whole.long() + self.levels // 2
            half = self.levels // 2
            grid = (whole.detach() + (bounded - bounded.detach())) / half
            values = self.project_out(grid.flatten(1)).view(x.shape)
            error = (self._blocks(values) - points).detach().square().mean(dim=(1, 2))
            indices = (digits * self.basis).sum(dim=-1).view(*x.shape[:-1], self.num_blocks)
        return Quantised(self._as(x, values), indices, values.new_zeros(()), error, self.num_codes)


# --- configurations ---


@dataclass
class QuantizerConfig:
    """What all quantisers have. One of your own is a dataclass below this one with a `build`."""

    num_blocks: int = 1
    """Blocks that a vector is cut into, each with a codebook of its own."""

    @abstractmethod
    def build(self, dim: int) -> Quantizer:
        """A fresh quantiser for vectors of width `dim`."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it builds")


@dataclass
class Nearest(QuantizerConfig):
    """The nearest code, see `VectorQuantizer`."""

    num_codes: int = 64
    """Per block."""
    learn: Learn = "ema"
    """Codes are running means of what they were chosen for, or learned by gradient."""
    commitment: float = 0.25
    """How strongly vectors are drawn to their codes."""
    decay: float = 0.99
    """Of the running means."""
    revive: float = 0.1
    """Codes with less than this share of an average code's use are moved to where they are needed."""

    def build(self, dim: int) -> VectorQuantizer:
        return VectorQuantizer(
            dim,
            self.num_codes,
            num_blocks=self.num_blocks,
            learn=self.learn,
            commitment=self.commitment,
            decay=self.decay,
            revive=self.revive,
        )


@dataclass
class Gumbel(QuantizerConfig):
    """Codes drawn by a classifier, see `GumbelQuantizer`."""

    num_codes: int = 64
    """Per block."""
    temperature: float = 1.0
    """Of the drawing."""

    def build(self, dim: int) -> GumbelQuantizer:
        return GumbelQuantizer(dim, self.num_codes, num_blocks=self.num_blocks, temperature=self.temperature)


@dataclass
class FiniteScalar(QuantizerConfig):
    """Numbers that are rounded, see `FiniteScalarQuantizer`."""

    levels: list[int] = field(default_factory=lambda: [8, 8, 8])
    """Values per digit; the number of codes is their product."""

    def build(self, dim: int) -> FiniteScalarQuantizer:
        return FiniteScalarQuantizer(dim, self.levels, num_blocks=self.num_blocks)


# --- layers that keep blocks apart ---


def block_diagonal(weights: Float[Tensor, "*gates blocks out in"]) -> Float[Tensor, "*gates blocks_out blocks_in"]:
    """The dense matrix with one matrix per block on its diagonal and zeros elsewhere."""
    blocks = check.tensor("weights", weights, "floating point", "... blocks out in").shape[-3]
    eye = torch.eye(blocks, device=weights.device, dtype=weights.dtype)
    return (weights.unsqueeze(-2) * eye[:, None, :, None]).flatten(-2).flatten(-3, -2)


class BlockLinear(nn.Module):
    """A linear layer for each block: block m of the output sees block m of the input only.

    Raises ValueError for blocks that do not divide both widths.
    """

    def __init__(self, input_dim: int, output_dim: int, num_blocks: int):
        super().__init__()
        for name, size in dict(input_dim=input_dim, output_dim=output_dim, num_blocks=num_blocks).items():
            check.whole(name, size)
        if input_dim % num_blocks or output_dim % num_blocks:
            raise ValueError(
                f"num_blocks must divide both widths, got {input_dim}, {output_dim} and num_blocks={num_blocks}"
            )
        self.weight = nn.Parameter(torch.empty(num_blocks, output_dim // num_blocks, input_dim // num_blocks))
        self.bias = nn.Parameter(torch.zeros(output_dim))
        for block in self.weight:
            nn.init.xavier_uniform_(block)

    def forward(self, x: Float[Tensor, "*batch input_dim"]) -> Float[Tensor, "*batch output_dim"]:
        blocks, _, width = self.weight.shape
        x = check.tensor("x", x, "floating point", f"... input_dim={blocks * width}").unflatten(-1, (blocks, -1))
        return torch.einsum("...mi,moi->...mo", x, self.weight.to(x.dtype)).flatten(-2) + self.bias


class BlockLayerNorm(nn.Module):
    """Every block normalised on its own, without learned scale and shift."""

    def __init__(self, num_blocks: int, eps: float = 1e-5):
        super().__init__()
        check.whole("num_blocks", num_blocks)
        self.num_blocks, self.eps = num_blocks, eps

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        check.tensor("x", x, "floating point", "... dim")
        if x.shape[-1] % self.num_blocks:
            raise ValueError(
                f"x must be floating point of a width that {self.num_blocks} blocks divide, got {x.shape[-1]}"
            )
        width = x.shape[-1] // self.num_blocks
        return F.layer_norm(x.unflatten(-1, (self.num_blocks, width)), (width,), eps=self.eps).flatten(-2)


class BlockGRUCell(nn.Module):
    """A GRU cell for each block. To slot attention, which reads the weights, it is a `GRUCell` whose matrices happen to
    be block-diagonal."""

    def __init__(self, dim: int, num_blocks: int):
        super().__init__()
        check.whole("dim", dim)
        check.whole("num_blocks", num_blocks)
        if dim % num_blocks:
            raise ValueError(f"num_blocks must divide dim, got dim={dim} and num_blocks={num_blocks}")
        width = dim // num_blocks
        bound = 1 / math.sqrt(width)  # as torch initialises a cell of that width
        self.input_blocks, self.hidden_blocks = (
            nn.Parameter(torch.empty(3, num_blocks, width, width).uniform_(-bound, bound)) for _ in range(2)
        )
        self.bias_ih, self.bias_hh = (nn.Parameter(torch.empty(3 * dim).uniform_(-bound, bound)) for _ in range(2))

    @property
    def weight_ih(self) -> Float[Tensor, "three_dim dim"]:
        return block_diagonal(self.input_blocks).flatten(0, 1)

    @property
    def weight_hh(self) -> Float[Tensor, "three_dim dim"]:
        return block_diagonal(self.hidden_blocks).flatten(0, 1)

    def forward(self, x: Float[Tensor, "batch dim"], hidden: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        dim = self.bias_ih.shape[0] // 3
        check.tensor("x", x, "floating point", f"batch dim={dim}")
        check.tensor("hidden", hidden, "floating point", f"batch={x.shape[0]} dim={dim}")
        return torch.gru_cell(x, hidden, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
