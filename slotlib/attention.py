"""Attention, with the axis of competition spelled out (chapter 01).

Attention compares queries with keys and lets a softmax turn the scores into weights. The whole difference between
a transformer and slot attention is the axis of that softmax:

* over the **keys**: every query spreads one unit of attention over the keys. Queries ignore each other.
  (Vaswani et al., 2017, equation 1.)
* over the **queries**: every key hands out one unit of attention to the queries. Queries compete for keys, as
  centres compete for points in soft k-means. (Locatello et al., 2020, equation 1.)

Shapes: queries `[..., K, D]`, keys `[..., N, D]`, values `[..., N, V]`, weights always `[..., K, N]`.
"""

import math
from typing import Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

Axis = Literal["keys", "queries"]


class AttentionOutput(NamedTuple):
    """What attention read, and where it looked."""

    output: Float[Tensor, "*batch queries value_dim"]
    weights: Float[Tensor, "*batch queries keys"]
    """Straight from the softmax: sums to 1 over the axis of competition."""


class KMeansOutput(NamedTuple):
    centres: Float[Tensor, "*batch clusters dim"]
    responsibilities: Float[Tensor, "*batch clusters points"]
    """Sums to 1 over the clusters. It belongs to the centres *before* the last update."""


def attention_weights(logits: Float[Tensor, "*batch queries keys"], over: Axis = "keys") -> Tensor:
    """Softmax of `logits` over the named axis.

    Raises ValueError for any other name than "keys" or "queries".
    """
    if over not in ("keys", "queries"):
        raise ValueError(f'over must be "keys" or "queries", got {over!r}')
    return logits.softmax(dim=-1 if over == "keys" else -2)


def weighted_mean(
    weights: Float[Tensor, "*batch queries keys"],
    values: Float[Tensor, "*batch keys value_dim"],
    eps: float = 1e-8,
) -> Float[Tensor, "*batch queries value_dim"]:
    """Average of `values` for each query, whatever its weights sum to.

    Under competition a strong query may own half of the keys and a weak one none. Dividing by the sum gives both an
    update of the same scale. `eps` is added to every weight first, as in the official code of slot attention, so a
    query that owns nothing receives the plain mean of all values instead of 0/0.
    """
    weights = weights + eps
    return (weights / weights.sum(dim=-1, keepdim=True)) @ values


def dot_product_attention(
    queries: Float[Tensor, "*batch queries dim"],
    keys: Float[Tensor, "*batch keys dim"],
    values: Float[Tensor, "*batch keys value_dim"],
    over: Axis = "keys",
) -> AttentionOutput:
    """Scaled dot-product attention, softmax(q·k / √D) over the keys or over the queries.

    With `over="queries"` the values are averaged by `weighted_mean`; with `over="keys"` the weights already sum to 1.

    Raises ValueError when the widths of queries and keys, or the numbers of keys and values, differ.
    """
    if queries.shape[-1] != keys.shape[-1]:
        raise ValueError(f"queries have width {queries.shape[-1]} and keys {keys.shape[-1]}; they must agree")
    if keys.shape[-2] != values.shape[-2]:
        raise ValueError(f"there are {keys.shape[-2]} keys but {values.shape[-2]} values; they come in pairs")
    logits = queries @ keys.mT / math.sqrt(queries.shape[-1])
    weights = attention_weights(logits, over)
    output = weights @ values if over == "keys" else weighted_mean(weights, values)
    return AttentionOutput(output, weights)


class MultiHeadAttention(nn.Module):
    """Several attentions side by side, each in its own `dim / num_heads` channels (Vaswani et al., 2017, § 3.2.2).

    Each head has its own competition: with `over="queries"` the weights of one head sum to 1 over the queries. (A
    joint softmax over heads and queries together is another model; it is not this one.)

    Args:
        dim: width of queries, inputs and output.
        num_heads: must divide `dim`.
        over: axis of competition, "keys" or "queries".
    """

    def __init__(self, dim: int, num_heads: int, over: Axis = "keys"):
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads must divide dim, got dim={dim} and num_heads={num_heads}")
        self.num_heads = num_heads
        self.over: Axis = over
        self.project_q = nn.Linear(dim, dim, bias=False)
        self.project_k = nn.Linear(dim, dim, bias=False)
        self.project_v = nn.Linear(dim, dim, bias=False)
        self.project_out = nn.Linear(dim, dim, bias=False)

    def _split(self, x: Float[Tensor, "batch items dim"]) -> Float[Tensor, "batch heads items head_dim"]:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(
        self, queries: Float[Tensor, "batch queries dim"], inputs: Float[Tensor, "batch keys dim"]
    ) -> AttentionOutput:
        """Let `queries` read from `inputs`. Weights are returned per head, `[batch, heads, queries, keys]`."""
        out, weights = dot_product_attention(
            self._split(self.project_q(queries)),
            self._split(self.project_k(inputs)),
            self._split(self.project_v(inputs)),
            self.over,
        )
        return AttentionOutput(self.project_out(out.transpose(1, 2).flatten(2)), weights)


def soft_kmeans(
    points: Float[Tensor, "*batch points dim"],
    centres: Float[Tensor, "*batch clusters dim"],
    temperature: float = 1.0,
    num_iterations: int = 10,
) -> KMeansOutput:
    """Soft k-means as attention whose queries are the centres (chapter 01; MacKay, 2003, chapter 20).

    Each iteration scores every point against every centre by −½‖x − c‖² / `temperature`, lets the centres compete for
    the points (softmax over the *queries*), and moves each centre to the weighted mean of what it won. This is slot
    attention without the learned parts: no projections, no GRU, no MLP. `temperature` → 0 gives Lloyd's hard k-means.

    Args:
        points: the data.
        centres: where the centres start; must have the width of the points.
        temperature: > 0, in squared units of the points.
        num_iterations: ≥ 1.

    Raises:
        ValueError: widths differ, temperature ≤ 0 or num_iterations < 1.
    """
    if points.shape[-1] != centres.shape[-1]:
        raise ValueError(f"points have width {points.shape[-1]} and centres {centres.shape[-1]}; they must agree")
    if not temperature > 0:  # NaN fails this comparison too
        raise ValueError(f"temperature must be positive, got {temperature}")
    if num_iterations < 1:
        raise ValueError(f"num_iterations must be at least 1, got {num_iterations}")
    # Distances do not change when everything moves together; near the origin the products below lose no digits.
    origin = points.mean(dim=-2, keepdim=True)
    points, centres = points - origin, centres - origin
    for _ in range(num_iterations):
        # −½‖x − c‖² = c·x − ½‖c‖² − ½‖x‖²; the last term is the same for every centre, so the softmax ignores it.
        logits = centres @ points.mT - 0.5 * centres.square().sum(-1, keepdim=True)
        responsibilities = attention_weights(logits / temperature, over="queries")
        centres = weighted_mean(responsibilities, points, eps=1e-12)
    return KMeansOutput(centres + origin, responsibilities)
