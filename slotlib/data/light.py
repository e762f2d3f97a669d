"""Changes of light for training: brightness, contrast, hue, exchanged colour channels, noise of the sensor.

A model that has seen one light only is fooled by another: one trained on Tetrominoes fell from .99 to .15 where the
same scenes had 70 % of the light, and kept .99 once every training image was multiplied by a random number. What an
autoencoder is to draw changes with what it sees; masks and objects stay what they are.
"""

import math
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from slotlib.model import Draws, Ramp


@dataclass(frozen=True)
class Light:
    """How far images may be changed, each by random numbers of its own; 0 leaves them as they are.

    Any number may be a `Ramp`. Raises ValueError, naming the field, for a number out of its range.
    """

    darker: float | Ramp = 0.0
    """Images are multiplied by a number from 1 − `darker` (0 to 1) ..."""
    brighter: float | Ramp = 0.0
    """... to 1 + `brighter` (at least 0), and cut at 1."""
    contrast: float | Ramp = 0.0
    """Distances from the image's mean are multiplied by a number from 1 − `contrast` to 1 + `contrast` (0 to 1)."""
    hue: float | Ramp = 0.0
    """Colours are turned around the axis of greys by at most this part of the circle (0 to ½), either way."""
    swap_channels: bool = False
    """Red, green and blue in one of their six orders, where colour carries no meaning."""
    noise: float | Ramp = 0.0
    """Normal noise on every value, whose standard deviation is between 0 and `noise` (at least 0)."""

    def __post_init__(self) -> None:
        most = {"darker": 1.0, "contrast": 1.0, "hue": 0.5}
        for field in fields(self):
            value, highest = getattr(self, field.name), most.get(field.name, math.inf)
            for number in (value.start, value.end) if isinstance(value, Ramp) else (value,):
                if not 0 <= number <= highest or number == math.inf:
                    raise ValueError(f"{field.name} must lie in [0, {highest:g}], got {number}")


ORDERS = torch.tensor([(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])


def changed(
    images: Float[Tensor, "images 3 height width"], light: Light, progress: float, draws: Draws
) -> Float[Tensor, "images 3 height width"]:
    """Images in [0, 1], seen in another light, in [0, 1].

    Args:
        images: not changed in place.
        light: how far they may be changed.
        progress: where in its schedule training is, from 0 to 1.
        draws: the numbers of each image; they do not depend on how its batch is cut up.
    """
    moving = (light.darker, light.brighter, light.contrast, light.hue, light.noise)
    now = [value.at(progress) if isinstance(value, Ramp) else value for value in moving]
    if not any(now) and not light.swap_channels:
        return images
    darker, brighter, most, hue, noise = now
    gain, contrast, turn, order, spread = draws.uniform(len(images), 5, like=images)[..., None, None].unbind(1)
    gain, contrast = 1 - darker + (darker + brighter) * gain, 1 + most * (2 * contrast - 1)
    if hue or light.swap_channels:
        mixing = gain * _turned(hue * (2 * turn - 1))
        if light.swap_channels:
            chosen = ORDERS.to(images.device)[(6 * order).long().flatten()]
            mixing = mixing.gather(1, chosen.unsqueeze(2).expand(-1, -1, 3))
        images = _mixed(images, mixing)
    else:
        images = images * gain.unsqueeze(1)
    if most:
        mean, contrast = images.mean((2, 3), keepdim=True).mean(1, keepdim=True), contrast.unsqueeze(1)
        images.mul_(contrast).add_((1 - contrast) * mean)
    if noise:
        images.addcmul_(draws.normal(len(images), *images.shape[1:], like=images), noise * spread.unsqueeze(1))
    return images.clamp_(0, 1)


def _turned(part: Float[Tensor, "images 1 1"]) -> Float[Tensor, "images 3 3"]:
    """Rotations around (1, 1, 1) by parts of the circle (Rodrigues' formula)."""
    angle = 2 * math.pi * part
    same, cross = torch.eye(3).to(part), torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]).to(part) / math.sqrt(3)
    return angle.cos() * same + angle.sin() * cross + (1 - angle.cos()) / 3


def _mixed(
    images: Float[Tensor, "images 3 height width"], mixing: Float[Tensor, "images 3 3"]
) -> Float[Tensor, "images 3 height width"]:
    """Each image's channels times its matrix. Written out: a product of matrices may round by the size of the batch."""
    red, green, blue = images.unbind(1)
    mixed = torch.empty_like(images)
    for row, weights in zip(mixed.unbind(1), mixing[..., None, None].unbind(1), strict=True):
        r, g, b = weights.unbind(1)
        torch.mul(red, r, out=row).addcmul_(green, g).addcmul_(blue, b)
    return mixed
