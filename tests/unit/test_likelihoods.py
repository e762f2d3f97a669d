"""Likelihoods: drawings are laid over one another by a softmax, and a mixture's posterior is Bayes' rule."""

import math

import pytest
import torch

from slotlib.decoders import Drawing
from slotlib.likelihoods import Average, LikelihoodConfig, Mixture, compose, log_joint, responsibilities
from slotlib.model import Ramp


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def scene() -> tuple[Drawing, torch.Tensor]:
    return Drawing(randn(2, 3, 3, 4, 5), randn(2, 3, 4, 5, seed=1)), randn(2, 3, 4, 5, seed=2)


def test_composing_is_a_softmax_over_slots():
    # Equal logits share a pixel; a much larger one owns it.
    logits = torch.tensor([[[[0.0, 50.0]], [[0.0, 0.0]]]])
    colours = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1, 1).expand(-1, -1, 3, 1, 2)
    picture, masks = compose(Drawing(colours, logits))
    close(masks, torch.tensor([[[[0.5, 1.0]], [[0.5, 0.0]]]]))
    close(picture, torch.tensor([[2.0, 1.0]]).expand(1, 3, 1, 2))
    close(compose(Drawing(colours[..., :1], logits))[0], picture)


def test_an_average_costs_its_squared_error():
    drawing, images = scene()
    picture, masks = compose(drawing)
    average = Average().build()
    close(average.cost(drawing, images), (picture - images).square().mean((1, 2, 3)))
    assert torch.equal(average.masks(drawing, images), masks)


def test_responsibilities_are_bayes_rule():
    (drawing, images), noise = scene(), 0.7
    normal = torch.distributions.Normal(drawing.colours, noise)
    joint = drawing.logits.softmax(1) * normal.log_prob(images.unsqueeze(1)).sum(2).exp()
    close(responsibilities(drawing, images, noise), joint / joint.sum(1, keepdim=True))
    constant = -1.5 * math.log(2 * math.pi * noise**2)
    close(log_joint(drawing, images, noise).logsumexp(1) + constant, joint.sum(1).log(), atol=1e-4)


def test_without_noise_the_nearest_colour_owns_a_pixel_and_with_much_the_drawn_mask_decides():
    drawing, images = scene()
    nearest = (drawing.colours - images.unsqueeze(1)).square().sum(2).argmin(1)
    assert torch.equal(responsibilities(drawing, images, 1e-3).argmax(1), nearest)
    close(responsibilities(drawing, images, 1e3), compose(drawing)[1])


def test_a_list_of_pixels_costs_what_the_same_pixels_of_a_picture_do():
    drawing, images = scene()
    flat = Drawing(drawing.colours.flatten(3), drawing.logits.flatten(2))
    for likelihood in (Average().build(), Mixture(0.3, 0.1).build()):
        close(likelihood.cost(flat, images.flatten(2)), likelihood.cost(drawing, images))


def test_a_single_slot_costs_its_squared_error_whatever_the_noise():
    drawing, images = scene()
    alone = Drawing(drawing.colours[:, :1], drawing.logits[:, :1])
    for noise in (0.05, 0.6):
        mixture = Mixture(noise).build()
        close(mixture.cost(alone, images), Average().build().cost(alone, images))
        close(mixture.masks(alone, images), torch.ones(2, 1, 4, 5))


def test_whole_objects_cost_less_than_halves_and_an_empty_slot_nothing():
    mixture = Mixture(sparsity=0.3).build()

    def cost(shares: list[float]) -> float:
        """Of 100 pixels, of which slot k surely painted the first, second, … share, each in the right colour."""
        owner = torch.repeat_interleave(torch.arange(len(shares)), torch.tensor([round(100 * x) for x in shares]))
        logits = torch.full((1, len(shares), 100), -50.0)
        logits[0, owner, torch.arange(100)] = 0
        return mixture.cost(Drawing(torch.zeros(1, len(shares), 3, 1), logits), torch.zeros(1, 3, 100)).item()

    assert cost([0.8, 0.2]) == pytest.approx(0.3 * (0.8**0.5 + 0.2**0.5), abs=1e-3)
    assert cost([0.8, 0.2, 0.0]) == pytest.approx(cost([0.8, 0.2]), abs=1e-3)
    assert cost([0.8, 0.1, 0.1]) > cost([0.8, 0.2]) + 0.01


def test_a_mixture_by_itself_stands_at_the_end_of_its_ramps():
    mixture = Mixture(noise=Ramp(0.1, start=0.4), sparsity=Ramp(0.2)).build()
    assert (mixture.noise, mixture.sparsity) == (0.1, 0.2)


def test_small_noise_keeps_its_digits_in_half_precision():
    drawing, images = scene()
    exact = responsibilities(drawing, images, 0.1)
    half = Drawing(*(each.bfloat16() for each in drawing))
    found = responsibilities(half, images.bfloat16(), 0.1)
    assert found.dtype == torch.float32
    assert (found.argmax(1) == exact.argmax(1)).float().mean() > 0.9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Mixture(noise=0.0), "noise must be a finite number, above 0, got 0.0"),
        (lambda: Mixture(noise=math.nan), "noise must be a finite number, above 0, got nan"),
        (lambda: Mixture(noise=Ramp(0.1, start=0)), "noise must be a finite number, above 0, got 0"),
        (lambda: Mixture(noise=None), "noise must be a finite number, above 0, got None"),
        (lambda: Mixture(sparsity=-0.1), "sparsity must be a finite number, at least 0, got -0.1"),
        (lambda: compose(None), "drawing must be a Drawing, got None"),
        (lambda: log_joint(*scene(), 0.0), "noise must be a finite number, above 0, got 0.0"),
        (lambda: responsibilities(scene()[0], scene()[1][:1], 0.1), r"images must be as .* \[2, 3, 4, 5\], got \[1, 3"),
        (lambda: Average().build().cost(scene()[0], scene()[1][..., :1]), r"images must be as the drawing is"),
        (lambda: Mixture().build().cost(scene()[0], None), "images must be floating point .* got None"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
    with pytest.raises(NotImplementedError, match="LikelihoodConfig does not say what it builds"):
        LikelihoodConfig().build()
