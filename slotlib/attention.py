"""Attention, with the axis of competition spelled out (chapter 01).

Attention compares queries with keys and lets a softmax turn the scores into weights. The whole difference between
a transformer and slot attention is the axis of that softmax:

* over the **keys**: every query spreads one unit of attention over the keys. Queries ignore each other.
  (Vaswani et al., 2017, equation 1.)
* over the **queries**: every key hands out one unit of attention to the queries. Queries compete for keys, as
  centres compete for points in soft k-means. (Locatello et al., 2020, equation 1.)

Shapes: queries `[..., K, D]`, keys `[..., N, D]`, values `[..., N, V]`, weights always `[..., K, N]`. A mask `[..., N]`
is True for real keys. The others are padding: they get weight 0 and change nothing, whatever they hold.
"""

import math
from typing import Literal, NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor, nn

from slotlib import check

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


def attention_weights(
    logits: Float[Tensor, "*batch queries keys"], over: Axis = "keys", mask: Bool[Tensor, "*batch keys"] | None = None
) -> Float[Tensor, "*batch queries keys"]:
    """Softmax of `logits` over the named axis.

    Raises ValueError for any other name than "keys" or "queries", or a mask that does not fit or is False everywhere.
    """
    check.choice("over", over, Axis)
    check.floating(logits=logits)
    axis = -1 if over == "keys" else -2
    if mask is None:
        return logits.softmax(dim=axis)
    check.mask(mask, (*logits.shape[:-2], logits.shape[-1]))
    padding = ~mask.unsqueeze(-2)
    # −∞ gives no weight where keys share one unit. Where each key has a unit of its own it would be 0/0.
    logits = logits.masked_fill(padding, -math.inf if over == "keys" else 0)
    return logits.softmax(dim=axis).masked_fill(padding, 0)


def weighted_mean(
    weights: Float[Tensor, "*batch queries keys"],
    values: Float[Tensor, "*batch keys value_dim"],
    eps: float = 1e-8,
    mask: Bool[Tensor, "*batch keys"] | None = None,
) -> Float[Tensor, "*batch queries value_dim"]:
    """Average of `values` for each query, whatever its weights sum to.

    Under competition a strong query may own half of the keys and a weak one none. Dividing by the sum gives both an
    update of the same scale. `eps` is added to every weight first, as in the official code of slot attention, so a
    query that owns nothing receives the plain mean of all values instead of 0/0.

    Raises ValueError for another number of weights than of values, an `eps` below 0, or a mask that does not fit.
    """
    check.number("eps", eps)
    check.floating(weights=weights, values=values)
    if weights.shape[-1] != values.shape[-2]:
        raise ValueError(f"there are weights for {weights.shape[-1]} values, but {values.shape[-2]} values")
    weights = weights + eps
    if mask is not None:
        check.mask(mask, values.shape[:-1])
        weights, values = weights.masked_fill(~mask.unsqueeze(-2), 0), _without_padding(values, mask)
    return (weights / weights.sum(dim=-1, keepdim=True)) @ values


def _without_padding(
    x: Float[Tensor, "*batch keys dim"], mask: Bool[Tensor, "*batch keys"]
) -> Float[Tensor, "*batch keys dim"]:
    return x.masked_fill(~mask.unsqueeze(-1), 0)  # a weight of 0 alone would not keep NaN out


def dot_product_attention(
    queries: Float[Tensor, "*batch queries dim"],
    keys: Float[Tensor, "*batch keys dim"],
    values: Float[Tensor, "*batch keys value_dim"],
    over: Axis = "keys",
    mask: Bool[Tensor, "*batch keys"] | None = None,
) -> AttentionOutput:
    """Scaled dot-product attention, softmax(q·k / √D) over the keys or over the queries.

    With `over="queries"` the values are averaged by `weighted_mean`; with `over="keys"` the weights already sum to 1.

    Raises ValueError when the widths of queries and keys, or the numbers of keys and values, differ, or for a mask that
    does not fit.
    """
    check.floating(queries=queries, keys=keys, values=values)
    if queries.shape[-1] != keys.shape[-1]:
        raise ValueError(f"queries have width {queries.shape[-1]} and keys {keys.shape[-1]}; they must agree")
    if keys.shape[-2] != values.shape[-2]:
        raise ValueError(f"there are {keys.shape[-2]} keys but {values.shape[-2]} values; they come in pairs")
    if mask is not None:
        check.mask(mask, keys.shape[:-1])
        keys, values = _without_padding(keys, mask), _without_padding(values, mask)
    logits = queries @ keys.mT / math.sqrt(queries.shape[-1])
    weights = attention_weights(logits, over, mask)
    output = weights @ values if over == "keys" else weighted_mean(weights, values, mask=mask)
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
        check.whole("dim", dim)
        check.whole("num_heads", num_heads)
        check.choice("over", over, Axis)
        if dim % num_heads:
            raise ValueError(f"num_heads must divide dim, got dim={dim} and num_heads={num_heads}")
        self.dim, self.num_heads = dim, num_heads
        self.over: Axis = over
        self.project_q = nn.Linear(dim, dim, bias=False)
        self.project_k = nn.Linear(dim, dim, bias=False)
        self.project_v = nn.Linear(dim, dim, bias=False)
        self.project_out = nn.Linear(dim, dim, bias=False)

    def _split(self, x: Float[Tensor, "batch items dim"]) -> Float[Tensor, "batch heads items head_dim"]:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(
        self,
        queries: Float[Tensor, "batch queries dim"],
        inputs: Float[Tensor, "batch keys dim"],
        mask: Bool[Tensor, "batch keys"] | None = None,
    ) -> AttentionOutput:
        """Let `queries` read from `inputs`. Weights are returned per head, `[batch, heads, queries, keys]`.

        Raises ValueError for queries, inputs or a mask that do not fit.
        """
        check.floating(queries=queries, inputs=inputs)
        for name, x in (("queries", queries), ("inputs", inputs)):
            if x.ndim != 3 or x.shape[2] != self.dim:
                raise ValueError(f"{name} must be [batch, {name}, dim={self.dim}], got {check.described(x)}")
        if mask is not None:
            check.mask(mask, inputs.shape[:-1])
            inputs = _without_padding(inputs, mask)  # NaN would come back from the projections' gradient
            mask = mask.unsqueeze(1).expand(-1, self.num_heads, -1)
        out, weights = dot_product_attention(
            self._split(self.project_q(queries)),
            self._split(self.project_k(inputs)),
            self._split(self.project_v(inputs)),
            self.over,
            mask,
        )
        return AttentionOutput(self.project_out(out.transpose(1, 2).flatten(2)), weights)


def soft_kmeans(
    points: Float[Tensor, "*batch points dim"],
    centres: Float[Tensor, "*batch clusters dim"],
    temperature: float = 1.0,
    num_iterations: int = 10,
    mask: Bool[Tensor, "*batch points"] | None = None,
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
        mask: True for real points.

    Raises:
        ValueError: widths differ, temperature ≤ 0, num_iterations < 1, or a mask that does not fit.
    """
    check.floating(points=points, centres=centres)
    if points.shape[-1] != centres.shape[-1]:
        raise ValueError(f"points have width {points.shape[-1]} and centres {centres.shape[-1]}; they must agree")
    check.number("temperature", temperature, above=True)
    check.whole("num_iterations", num_iterations)
    count = points.shape[-2]
    if mask is not None:
        check.mask(mask, points.shape[:-1])
        points, count = _without_padding(points, mask), mask.sum(dim=-1)[..., None, None]
    # Distances do not change when everything moves together; near the origin the products below lose no digits.
    origin = points.sum(dim=-2, keepdim=True) / count
    points, centres = points - origin, centres - origin
    for _ in range(num_iterations):
        # −½‖x − c‖² = c·x − ½‖c‖² − ½‖x‖²; the last term is the same for every centre, so the softmax ignores it.
        logits = centres @ points.mT - 0.5 * centres.square().sum(-1, keepdim=True)
        responsibilities = attention_weights(logits / temperature, "queries", mask)
        centres = weighted_mean(responsibilities, points, 1e-12, mask)
    return KMeansOutput(centres + origin, responsibilities)
