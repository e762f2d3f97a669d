"""How slots' drawings become an image, and what it costs to be wrong (chapter 03).

In the paper a pixel is the *average* of what the slots paint there, weighted by their drawn masks; the loss is the
squared error. In a *mixture* it was painted by one of them, and the drawn mask says how probable each is (Greff et al.,
2017, arXiv 1708.03498). Once the image is known, Bayes' rule says who painted a pixel: the slots' responsibilities.
These masks are sharp where the drawings are soft, but they have seen the image.

Each likelihood has a configuration, which builds it. Colours and images are in [-1, 1] here.
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slotlib import check
from slotlib.decoders import Drawing, ends
from slotlib.model import Ramp


def _check(drawing: Drawing) -> None:
    if not isinstance(drawing, Drawing):
        raise ValueError(f"drawing must be a Drawing, got {check.described(drawing)}")


def _check_images(drawing: Drawing, images: Float[Tensor, "batch 3 *area"]) -> None:
    """Another size would be stretched to the drawing's without a word."""
    _check(drawing)
    check.tensor("images", images, "floating point", "...")
    batch, _, *area = drawing.logits.shape
    if list(images.shape) != [batch, 3, *area]:
        raise ValueError(f"images must be as the drawing is, {[batch, 3, *area]}, got {list(images.shape)}")


def compose(drawing: Drawing) -> tuple[Float[Tensor, "batch 3 *area"], Float[Tensor, "batch slots *area"]]:
    """Lay the slots over one another: masks = softmax of the logits over slots, picture = Σ masks · colours."""
    _check(drawing)
    masks = drawing.logits.softmax(dim=1)
    area = masks.shape[2:]
    if drawing.colours.shape[3:].numel() == 1:  # one colour per slot: a small matrix product instead of a large sum
        picture = drawing.colours.flatten(2).mT @ masks.flatten(2)
        return picture.unflatten(-1, area), masks
    return (masks.unsqueeze(2) * drawing.colours).sum(dim=1), masks


def log_joint(
    drawing: Drawing, images: Float[Tensor, "batch 3 *area"], noise: float
) -> Float[Tensor, "batch slots *area"]:
    """log p(slot k painted this pixel, and in this colour) for every pixel of a mixture, up to a constant.

    The drawn mask's logarithm, less the squared distance between the pixel and the slot's colour over 2·noise². The
    softmax over slots is Bayes' rule; the logsumexp is the likelihood.

    Raises ValueError for images of another size than the drawing, or noise not above 0.
    """
    _check_images(drawing, images)
    check.number("noise", noise, above=True)
    precision = torch.promote_types(drawing.logits.dtype, torch.float32)  # bf16 is too coarse for small noise
    distance = (images.unsqueeze(1) - drawing.colours.to(precision)).square().sum(dim=2)
    return drawing.logits.to(precision).log_softmax(dim=1) - distance / (2 * noise**2)


def responsibilities(
    drawing: Drawing, images: Float[Tensor, "batch 3 *area"], noise: float
) -> Float[Tensor, "batch slots *area"]:
    """p(slot k painted this pixel | its colour), by Bayes' rule: the posterior masks of a mixture."""
    return log_joint(drawing, images, noise).softmax(dim=1)


class Likelihood(nn.Module):
    """What a drawing costs as an image, and whose each pixel is."""

    has_posterior: bool
    """Whether `masks` see the image. If not, they are the drawn ones."""

    def cost(self, drawing: Drawing, images: Float[Tensor, "batch 3 *area"]) -> Float[Tensor, "batch"]:
        """Each image's loss, in squared error."""
        raise NotImplementedError

    def masks(self, drawing: Drawing, images: Float[Tensor, "batch 3 *area"]) -> Float[Tensor, "batch slots *area"]:
        """Whose pixel it is, once the image is known."""
        raise NotImplementedError


@dataclass
class LikelihoodConfig:
    """What all likelihoods have."""

    @abstractmethod
    def build(self) -> Likelihood:
        raise NotImplementedError(f"{type(self).__name__} does not say what it builds")


@dataclass
class Average(LikelihoodConfig):
    """The paper's: a pixel is the mean of the slots' colours under their masks, the loss its squared error."""

    def build(self) -> "AverageLikelihood":
        return AverageLikelihood()


@dataclass
class Mixture(LikelihoodConfig):
    """A pixel was painted by one slot, with probability given by its drawn mask."""

    noise: float | Ramp = 0.15
    """How far a pixel may be from its slot's colour: a standard deviation, for images in [-1, 1]. A tolerant start lets
    slots take hold of objects that they cannot draw yet."""
    sparsity: float | Ramp = 0.0
    """What slots cost that paint any of the image, as squared error: the weight of Σ_k √(share of the image that slot k
    painted). Because of the root, one slot with a whole object is cheaper than two with half of it each, and an empty
    slot costs nothing. Slots should be free at first."""

    def __post_init__(self) -> None:
        for end in ends(self.noise):
            check.number("noise", end, above=True)
        for end in ends(self.sparsity):
            check.number("sparsity", end)

    def build(self) -> "MixtureLikelihood":
        return MixtureLikelihood(self)


class AverageLikelihood(Likelihood):
    """The mean squared error of the slots' colours, averaged under their drawn masks."""

    has_posterior = False

    def cost(self, drawing: Drawing, images: Float[Tensor, "batch 3 *area"]) -> Float[Tensor, "batch"]:
        _check_images(drawing, images)
        return (compose(drawing)[0] - images).square().flatten(1).mean(dim=1)

    def masks(self, drawing: Drawing, images: Float[Tensor, "batch 3 *area"]) -> Float[Tensor, "batch slots *area"]:
        return compose(drawing)[1]


class MixtureLikelihood(Likelihood):
    """Minus the log likelihood of a pixel times 2·noise²/3, which for a single slot is the squared error too; plus the
    price of slots in use (`Mixture.sparsity`)."""

    config: Mixture
    has_posterior = True

    def __init__(self, config: Mixture):
        super().__init__()
        self.config = config
        self.noise, self.sparsity = ends(config.noise)[1], ends(config.sparsity)[1]

    def cost(self, drawing: Drawing, images: Float[Tensor, "batch 3 *area"]) -> Float[Tensor, "batch"]:
        joint = log_joint(drawing, images, self.noise).flatten(2)
        shares = joint.softmax(dim=1).mean(dim=2)
        in_use = (shares + 1e-6).sqrt().sum(dim=1)  # the root has no gradient at 0
        return self.sparsity * in_use - joint.logsumexp(dim=1).mean(dim=1) * 2 * self.noise**2 / 3

    def masks(self, drawing: Drawing, images: Float[Tensor, "batch 3 *area"]) -> Float[Tensor, "batch slots *area"]:
        return responsibilities(drawing, images, self.noise)
