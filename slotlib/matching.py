"""Matching two sets (chapter 05): what it costs to call them the same, whatever their order.

Everything here works on a cost matrix: what it would cost if prediction p were to describe object m, for all p and m.
`pairwise_huber` fills it in, and there are three ways to sum it up. `hungarian_loss` is the paper's (Locatello et al.,
2020, section 3.2): every prediction has one partner. `sinkhorn_loss` is the same with soft partners. `chamfer_loss`
lets everybody have the nearest, so it cannot count: two predictions may share one object.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from slotlib import check


def pairwise_huber(
    pred: Float[Tensor, "batch predictions values"], target: Float[Tensor, "batch objects values"]
) -> Float[Tensor, "batch predictions objects"]:
    """What every prediction would cost as every object: the Huber loss, averaged over the values.

    Between values in [0, 1] that is half the squared difference. Raises ValueError unless both are
    `[batch, some, values]` with the same batch and values.
    """
    check.tensor("pred", pred, "floating point", "batch predictions values")
    check.tensor("target", target, "floating point", "batch objects values")
    if pred.shape[::2] != target.shape[::2]:
        raise ValueError(
            "pred and target must be [batch, predictions, values] and [batch, objects, values], "
            f"got {list(pred.shape)} and {list(target.shape)}"
        )
    shape = *pred.shape[:2], *target.shape[1:]
    pairs = pred.unsqueeze(2).expand(shape), target.unsqueeze(1).expand(shape)
    return F.huber_loss(*pairs, reduction="none").mean(dim=-1)


def _check(cost: Float[Tensor, "batch predictions objects"]) -> None:
    check.tensor("cost", cost, "floating point", "batch predictions objects")
    if not check.holds(cost.isfinite().all(), otherwise=True):
        raise ValueError("cost must be finite, got NaN or infinite values; did the model's loss explode?")


def _assign(cost: Tensor) -> Tensor:
    """SciPy's solver for one image after the other, `[batch, 2, pairs]`."""
    from scipy.optimize import linear_sum_assignment  # slow to import

    pairs = [linear_sum_assignment(image) for image in cost.cpu().numpy()]
    shape = cost.shape[0], 2, min(cost.shape[1:])
    return torch.tensor([[side.tolist() for side in pair] for pair in pairs], device=cost.device).long().view(shape)


def _assign_nothing(cost: Tensor) -> Tensor:
    """What `_assign` returns, for those who ask for its shape only."""
    return cost.new_empty((cost.shape[0], 2, min(cost.shape[1:])), dtype=torch.int64)


def _assign_all(info: Any, axes: tuple[int], cost: Tensor) -> tuple[Tensor, int]:
    """Under vmap: images of all calls as one batch."""
    cost = cost.movedim(axes[0], 0)
    return _operator(cost.flatten(0, 1)).unflatten(0, cost.shape[:2]), 0


# As an operator torch.compile and torch.func can call it without looking inside.
if not hasattr(torch.ops.slotlib, "assign"):  # it is still there when the module is loaded again
    torch.library.define("slotlib::assign", "(Tensor cost) -> Tensor")
    torch.library.impl("slotlib::assign", "default", _assign)
    torch.library.register_fake("slotlib::assign", _assign_nothing)
    if hasattr(torch.library, "register_vmap"):  # from torch 2.5 on
        torch.library.register_vmap("slotlib::assign", _assign_all)
_operator = torch.ops.slotlib.assign


@torch.no_grad()
def hungarian(
    cost: Float[Tensor, "batch predictions objects"], real: Bool[Tensor, "batch objects"] | None = None
) -> tuple[Int[Tensor, "batch pairs"], Int[Tensor, "batch pairs"]]:
    """The pairing of least cost, one for each image: every prediction has at most one object and the reverse.

    Args:
        cost: may have more predictions than objects or fewer; there are as many pairs as the smaller number. It goes to
            the CPU once, where SciPy solves one image after the other.
        real: objects that must find a partner before any other does. That matters only where predictions run out:
            pairing with padding, where that is cheaper, would then leave real objects without a partner.

    Returns the pairs' predictions (ascending) and objects, on the device of `cost`.

    Raises ValueError for a cost that is not `[batch, predictions, objects]` or not finite.
    """
    _check(cost)
    table = cost.double()
    if real is not None:
        check.tensor("real", real, "bool", "batch objects")
        if real.shape != cost.shape[::2]:
            raise ValueError(f"real must be [batch, objects] = {list(cost.shape[::2])}, got {list(real.shape)}")
        if len(cost) and 0 < cost.shape[1] < cost.shape[2]:
            # One padding row costs more than all that a better pairing of the others could save.
            span = table.amax() - table.amin() + 1
            table = table + (~real).unsqueeze(1) * span * 2 * cost.shape[1]
    predictions, objects = _operator(table).unbind(1)
    return predictions, objects


def hungarian_loss(
    cost: Float[Tensor, "batch predictions objects"], real: Bool[Tensor, "batch objects"] | None = None
) -> Float[Tensor, "batch"]:
    """Sum of the costs of the best pairs. The gradient takes the pairing as given. `real`, and errors: see
    `hungarian`."""
    rows, columns = hungarian(cost, real)
    image = torch.arange(len(cost), device=cost.device).unsqueeze(1)
    return cost[image, rows, columns].sum(dim=1)


def chamfer_loss(cost: Float[Tensor, "batch predictions objects"]) -> Float[Tensor, "batch"]:
    """Everybody pairs with the nearest: half of what predictions pay for that plus what objects pay.

    As many predictions as objects never pay more than with `hungarian_loss`.

    Raises ValueError as `hungarian`, and where there is nobody to pair with.
    """
    _check(cost)
    if 0 in cost.shape[1:]:
        raise ValueError(f"cost must be of at least one prediction and one object, got {list(cost.shape)}")
    return (cost.amin(dim=2).sum(dim=1) + cost.amin(dim=1).sum(dim=1)) / 2


def sinkhorn_loss(
    cost: Float[Tensor, "batch predictions objects"], temperature: float = 0.005, iterations: int = 50
) -> Float[Tensor, "batch"]:
    """Soft pairs: cost under the plan that the Sinkhorn iteration finds (Cuturi, 2013, arXiv 1306.0895).

    The plan's rows and columns sum to 1; what is missing to a square is filled up with partners that cost nothing. The
    plan is exp(−cost / temperature) with its columns and rows scaled in turns, in logarithms, so that no temperature is
    too small. The gradient goes through the iterations.

    Args:
        temperature: in units of cost. Towards 0 the loss goes to `hungarian_loss`; there the iteration needs more
            rounds. At 0.005 a wrong size (a cost of 1/19) is hardly ever paired, positions a tenth of the scene apart
            are (a cost of 1/3800).
        iterations: of scaling columns and rows.

    Raises ValueError as `hungarian`, and for a temperature not above 0 or fewer than 1 iteration.
    """
    _check(cost)
    check.number("temperature", temperature, above=True)
    check.whole("iterations", iterations)
    side = max(cost.shape[1:])
    square = F.pad(cost, (0, side - cost.shape[2], 0, side - cost.shape[1]))
    plan = -square / temperature
    for _ in range(iterations):
        plan = plan.log_softmax(dim=1).log_softmax(dim=2)
    return (plan.exp() * square).sum(dim=(1, 2))
