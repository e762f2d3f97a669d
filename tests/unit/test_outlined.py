"""Outlines: read where a slot's pixels are, the same wherever they lie, and drawn from the slots alone."""

import pytest
import torch

import slotlib
from slotlib import checkpoint
from slotlib.autoencoder import softened
from slotlib.decoders import Broadcast, Drawing, Separable
from slotlib.encoders import Strided
from slotlib.likelihoods import Average
from slotlib.model import Draws, Ramp
from slotlib.outlined import CANVAS, OutlinedAutoencoder, OutlinedConfig, OutlinedDecoder
from slotlib.slot_attention import AttentionConfig

SIDE, DIM = 32, 8


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def close(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def config(**options) -> OutlinedConfig:
    attention = AttentionConfig(slot_dim=DIM, num_slots=3, num_iterations=2, mlp_hidden_dim=16)
    decoder = Separable(16, colour="slot", rank=4)
    return OutlinedConfig(
        **{
            "resolution": SIDE,
            "encoder": Strided(8),
            "attention": attention,
            "decoder": decoder,
            "outline_dim": 6,
            **options,
        }
    )


@pytest.fixture
def model() -> OutlinedAutoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return OutlinedAutoencoder(config()).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, SIDE, SIDE, generator=generator(1))


def decoder(frame: float = 0.75) -> OutlinedDecoder:
    """With a frame of 24 pixels: one place of the canvas for each."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return OutlinedDecoder(Separable(16, colour="slot").build(DIM, SIDE), DIM, 6, frame)


def owned(*boxes: tuple[int, int, int, int]) -> torch.Tensor:
    """Masks `[1, slots, SIDE, SIDE]`: the pixels of these boxes (top, bottom, left, right), then all others."""
    masks = torch.zeros(1, len(boxes) + 1, SIDE, SIDE)
    for slot, (top, bottom, left, right) in enumerate(boxes):
        masks[:, slot, top:bottom, left:right] = 1
    masks[:, -1] = 1 - masks.sum(1)
    return masks


def test_drawn_masks_come_from_the_slots_alone(model, images):
    output = model(images, generator=generator())
    assert output.slots.shape == (2, 3, DIM + 6 + 2)
    close(model.decoder(output.slots).logits.softmax(1), output.drawn_masks, atol=1e-6)


def test_a_centre_is_where_a_slots_pixels_lie():
    read = decoder().read(torch.zeros(1, 3, DIM), owned((4, 10, 20, 28), (20, 30, 2, 6)))
    expected = torch.tensor([[7.0, 24.0], [25.0, 4.0]]) / SIDE * 2 - 1
    close(read[0, :2, -2:], expected, atol=1e-3)


@pytest.mark.parametrize("down, right", [(0, 5), (7, 0), (3, 4)])
def test_an_outline_is_the_same_wherever_its_object_lies(down, right):
    box = 8, 14, 8, 18
    moved = box[0] + down, box[1] + down, box[2] + right, box[3] + right
    outlines = [decoder().read(torch.zeros(1, 2, DIM), owned(each))[0, 0, DIM:-2] for each in (box, moved)]
    close(*outlines, atol=1e-3)
    turned = decoder().read(torch.zeros(1, 2, DIM), owned((box[2], box[3], box[0], box[1])))[0, 0, DIM:-2]
    assert (outlines[0] - turned).abs().max() > 0.01  # and another one is not


def test_a_canvas_is_laid_at_the_centre_pixel_by_pixel():
    own, empty = decoder(frame=CANVAS / SIDE), Drawing(torch.zeros(1, 1, 3, 1, 1), torch.zeros(1, 1, SIDE, SIDE))
    picture = torch.randn(CANVAS, CANVAS, generator=generator())
    own.canvas = torch.nn.Sequential(torch.nn.Flatten(0, 1), _Always(picture.flatten()))
    slot = torch.zeros(1, 1, DIM + 6 + 2)
    middle = own.added(empty, slot).logits[0, 0]
    expected = torch.zeros(SIDE, SIDE)
    expected[4:28, 4:28] = picture
    close(middle, expected)
    slot[..., -2] = 2 * 4 / SIDE  # four pixels down
    expected = torch.zeros(SIDE, SIDE)
    expected[8:32, 4:28] = picture
    close(own.added(empty, slot).logits[0, 0], expected)


class _Always(torch.nn.Module):
    """A canvas that does not depend on the slot."""

    def __init__(self, canvas):
        super().__init__()
        self.value = canvas

    def forward(self, slots):
        return self.value.expand(1, len(slots), -1)


def test_rows_and_columns_are_those_of_the_whole():
    own, slots = decoder(), torch.randn(1, 2, DIM + 8, generator=generator()).clamp(-0.5, 0.5)
    lines = slice(1, None, 2), slice(0, None, 2)
    draft = own.draft(slots[..., :DIM])
    part = own.added(Drawing(draft.colours, draft.logits[:, :, *lines]), slots, *lines)
    close(part.logits, own(slots).logits[:, :, *lines])


def test_the_loss_is_the_mean_of_what_draft_and_drawing_cost(model, images):
    output = model(images, generator=generator())
    target = images * 2 - 1
    draft = model.likelihood.cost(model.decoder.draft(output.slots[..., :DIM]), target)
    drawing = model.likelihood.cost(model.decoder(output.slots), target)
    close(model.loss(images, Draws(generator())), (draft + drawing).mean() / 2, atol=1e-6)


def test_whose_pixels_they_are_is_taken_as_known(model, images):
    """No gradient flows through the posterior."""
    slots, target = torch.randn(2, 3, DIM, generator=generator(2), requires_grad=True), images * 2 - 1

    def gradient(known: bool) -> torch.Tensor:
        draft = model.decoder.draft(slots)
        whose = model.likelihood.masks(draft, target)
        drawing = model.decoder.added(draft, model.decoder.read(slots, whose.detach() if known else whose))
        loss = (model.likelihood.cost(drawing, target) + model.likelihood.cost(draft, target)).mean() / 2
        return torch.autograd.grad(loss, slots)[0]

    found = torch.autograd.grad(model.drawing_loss(slots, images, Draws()), slots)[0]
    close(found, gradient(known=True), atol=1e-7)
    assert (found - gradient(known=False)).abs().max() > 1e-5


def test_whose_its_pixels_are_is_asked_of_a_softer_image(model, images):
    """In training and in use; what is drawn is compared with the sharp one."""
    softer = OutlinedAutoencoder(config(softness=1.0))
    softer.load_state_dict(model.state_dict())
    slots, soft = torch.randn(2, 3, DIM, generator=generator(2)), softened(images, 1.0)
    assert torch.equal(softer.encode(images), model.encode(images))
    read = softer.second_look(slots, images)
    assert torch.equal(read, model.second_look(slots, soft))
    assert not torch.allclose(read, model.second_look(slots, images), atol=1e-4)
    costs = [model.likelihood.cost(each, images * 2 - 1) for each in (model.decoder.draft(slots), model.decoder(read))]
    close(softer.drawing_loss(slots, images, Draws()), torch.stack(costs).mean())


def test_the_best_of_several_starts_costs_least(model, images):
    def cost(output):
        return model.likelihood.cost(model.decoder(output.slots), images * 2 - 1)

    several = cost(model(images, restarts=4, generator=generator()))
    starts = model.starts(2, Draws(generator()), restarts=4)
    features = model.encode(images)
    alone = []
    for each in starts.unflatten(0, (2, 4)).unbind(1):
        bound = model.slot_attention(features.flatten(1, 2), slots=each)
        alone.append(cost(model.drawn(images, bound, features.shape[1:3], 1)))
    close(several, torch.stack(alone).amin(0), atol=1e-6)


def test_it_comes_back_from_a_checkpoint(model, images, tmp_path):
    model.eval()
    checkpoint.save(model, tmp_path / "mine", {})
    again = slotlib.load(tmp_path / "mine")
    assert type(again) is OutlinedAutoencoder and again.config == model.config
    for found, before in zip(again(images, generator=generator()), model(images, generator=generator()), strict=True):
        assert torch.equal(found, before)


def test_the_drafts_ramps_move(images):
    moving = OutlinedAutoencoder(config(decoder=Separable(16, colour="shaded", shading=Ramp(1.0, after=0.5))))
    moving.at(0.0)
    assert moving.decoder.draft.shading == 0
    moving.at(1.0)
    assert moving.decoder.draft.shading == 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"frame": 0.0}, "frame"),
        ({"outline_dim": 0}, "outline_dim"),
        ({"decoder": Broadcast(8)}, "decoder"),
        ({"likelihood": Average()}, "likelihood"),
    ],
)
def test_what_cannot_be_built_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        OutlinedAutoencoder(config(**options))


def test_slots_without_an_outline_are_refused(model):
    with pytest.raises(ValueError, match="slots must be floating point"):
        model.decoder(torch.zeros(1, 3, DIM))


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_half_of_the_bits_draw_nearly_the_same(model, images, dtype):
    start = torch.randn(2, 3, DIM, generator=generator(2))
    wide = model.slot_attention(model.encode(images).flatten(1, 2), slots=start).slots
    expected = model.decoder(model.second_look(wide, images)).logits
    narrow = model.to(dtype)
    found = narrow.decoder(narrow.second_look(wide.to(dtype), images.to(dtype)))
    assert found.logits.dtype == dtype
    assert (found.logits.float() - expected).abs().mean() < 0.1 * expected.abs().mean()
