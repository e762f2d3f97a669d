"""SLATE: masks are the attention, tokens are written from the slots, and no slot is drawn by itself."""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from slotlib import checkpoint, data, zoo
from slotlib.encoders import Strided
from slotlib.metrics import MASK_SCORES
from slotlib.model import Draws
from slotlib.slate import SlateAutoencoder, SlateConfig
from slotlib.svq import QuantisedAttentionConfig
from slotlib.vq import Gumbel, Nearest

close = torch.testing.assert_close
ATTENTION = QuantisedAttentionConfig(16, 3, 2, mlp_hidden_dim=16, quantizer=Nearest(4, 10))
SMALL = SlateConfig(16, Strided(8), ATTENTION, vocabulary=6, token_channels=8, token_dim=16, num_layers=1, num_heads=2)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(seed=0):
    return Draws(generator(seed))


def images(count=2):
    return torch.rand(count, 3, 16, 16, generator=generator())


def model(attention=None, **changes):
    torch.manual_seed(0)
    attention = dataclasses.replace(ATTENTION, **(attention or {}))
    return SlateAutoencoder(dataclasses.replace(SMALL, **{"attention": attention, **changes})).eval()


def test_it_decodes_codes_and_its_masks_are_the_attention():
    slate, pictures = model(), images()
    with torch.no_grad():
        output = slate(pictures, generator=generator())
    close(slate.decode(output.codes).image, output.reconstruction)
    assert torch.equal(slate.tokenise(pictures, draws()), output.codes)
    close(output.masks.sum(1), torch.ones(2, 16, 16))
    close(F.interpolate(output.attention, size=(16, 16), mode="bilinear"), output.masks)


def test_no_slot_is_drawn_by_itself():
    slate = model()
    output = slate(images(), generator=generator())
    assert not {"slot_images", "drawn_masks"} & set(output._fields)
    drawn = slate.decode(output.codes)
    assert drawn.slot_images is drawn.masks is drawn.logits is None
    scenes = data.make("shapes", 3, seed=2, num_objects=2, resolution=16).batch(range(3))
    assert list(slate.judge(scenes, draws()))[:5] == [*(f"attention_{name}" for name in MASK_SCORES), "mse"]


def test_continuous_slots_are_saved_and_loaded(tmp_path):
    slate = model({"quantise": False})
    output = slate(images(), generator=generator())
    assert output.error.isnan().all()
    assert not torch.equal(slate.quantizer.decode(output.codes), output.slots)
    checkpoint.save(slate, tmp_path / "slate", {})
    again = zoo.load(tmp_path / "slate")
    assert again.config == slate.config and again.slot_attention.quantise is False
    for one, other in zip(again(images(), generator=generator()), output, strict=True):
        close(one, other, rtol=0, atol=0, equal_nan=True)
    scores = slate.summarise(slate.judge({"image": images()}, draws()))
    assert math.isnan(scores["utilisation"]) and not math.isnan(scores["mse"])


@pytest.mark.parametrize("quantise", [True, False])
@pytest.mark.parametrize("part", ["dvae", "decoder", "encoder"])
def test_every_part_learns(part, quantise):
    slate = model({"quantise": quantise}).train()
    slate.loss(images(), draws()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in getattr(slate, part).parameters())
    assert any(p.grad.abs().max() > 0 for p in getattr(slate, part).parameters())


@pytest.mark.parametrize("quantizer", [Nearest(4, 10), Gumbel(4, 10)])
@pytest.mark.parametrize("shares", [2, 4])
def test_the_shares_of_a_batch_have_the_loss_of_the_whole(quantizer, shares):
    slate, pictures = model({"quantizer": quantizer}).double().train(), images(4).double()
    if isinstance(quantizer, Nearest):
        slate.quantizer.counts.fill_(1)  # placed
    whole = slate.loss(pictures, draws())
    parts = [slate.loss(pictures[i::shares], Draws(generator(), i, shares)) for i in range(shares)]
    close(sum(parts) / shares, whole, rtol=1e-9, atol=0)


def test_what_is_written_comes_from_the_slots():
    slate, source = model(), generator(1)
    for parameter in slate.decoder.parameters():
        torch.nn.init.normal_(parameter, generator=source)
    slots = torch.randn(4, 3, 16, generator=generator(2))
    assert not torch.equal(slate.write(slots), slate.write(slots.flip(0)))
    close(slate.write(slots[:, [2, 0, 1]]), slate.write(slots))  # a set
    tokens = slate.tokens(images())
    assert tokens.shape == (2, slate.dvae.places, 1) and tokens.max() < 6


def test_a_look_shows_the_attention():
    scenes = data.make("shapes", 3, seed=2, num_objects=2, resolution=16).batch(range(3))
    look = model().look(scenes)
    assert all(len(rows) == 3 for rows in look.pictures.values()) and "stillness" in look.signs


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_a_precision(dtype):
    output = model().to(dtype)(images().to(dtype), generator=generator())
    assert output.reconstruction.dtype == dtype and output.reconstruction.isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: model(patch=3), "patch must be a power of 2 that divides resolution=16, got 3"),
        (lambda: model(vocabulary=0), "num_codes must be a whole number, at least 1, got 0"),
        (lambda: model(num_heads=3), "num_heads must divide dim, got dim=16 and num_heads=3"),
        (lambda: model(token_dim="128"), "token_dim must be int, got '128'"),
        (lambda: model({"slot_dim": 0}), "slot_dim must be a whole number"),
        (lambda: model(attention=None, encoder=3), "encoder must be of kind EncoderConfig, got 3"),
        (lambda: SlateAutoencoder(None), "config must be of kind SlateConfig, got None"),
        (lambda: model().tokenise(images(), restarts=2), "restarts must be 1, got 2"),
        (lambda: model()(images() - 1), r"images must lie in \[0, 1\]"),
        (lambda: model()(images(), num_slots=0), "num_slots must be a whole number"),
        (lambda: model().loss(images(), 3), "draws must be a slotlib.Draws"),
        (lambda: model().decode(torch.zeros(2, 3, 5).long()), r"codes must be integers \[batch, slots, blocks=4\]"),
        (lambda: model().write(torch.zeros(2, 3, 5)), r"slots must be floating point \[batch, slots, dim=16\]"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_call_takes_no_restarts():
    with pytest.raises(TypeError, match="restarts"):
        model()(images(), restarts=2)
