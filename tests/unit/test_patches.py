"""Patches as codes: images are drawn from their codes alone, in reading order."""

import dataclasses

import pytest
import torch

from slotlib import data
from slotlib.model import Draws
from slotlib.patches import PatchConfig, PatchVQVAE
from slotlib.vq import FiniteScalar, Gumbel, Nearest

close = torch.testing.assert_close
SMALL = PatchConfig(resolution=16, patch=4, channels=8, dim=8, quantizer=Nearest(1, 12))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=3):
    return torch.rand(count, 3, 16, 16, generator=generator())


def model(**changes):
    torch.manual_seed(0)
    return PatchVQVAE(dataclasses.replace(SMALL, **changes)).eval()


def test_eight_images_are_learned_by_heart():
    torch.manual_seed(0)
    pictures = data.make("shapes", 8, seed=1, num_objects=(1, 2), resolution=16).batch(range(8))["image"]
    patches = PatchVQVAE(dataclasses.replace(SMALL, channels=16, dim=16, quantizer=Nearest(1, 128)))
    optimizer = torch.optim.Adam(patches.parameters(), lr=5e-3)
    for step in range(150):
        optimizer.zero_grad()
        patches.loss(pictures).backward()
        optimizer.step()
        patches.update(Draws(generator(step)))
    output = patches.eval()(pictures)
    close(patches.decode(output.codes).image, output.reconstruction)
    assert (output.reconstruction - pictures).square().mean() < 0.5 * pictures.var()


@pytest.mark.parametrize("quantizer", [Nearest(2, 12), Gumbel(2, 12), FiniteScalar(2, [3, 4])])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_drawn_is_drawn_from_the_codes_alone(quantizer, dtype):
    patches = model(quantizer=quantizer).to(dtype)
    output = patches(images().to(dtype))
    assert output.codes.shape == (3, 16, 2) and output.reconstruction.dtype == dtype
    drawn = patches.decode(output.codes)
    close(drawn.image, output.reconstruction, atol=0.02 if dtype != torch.float32 else 1e-5, rtol=0)
    assert drawn.masks is drawn.slot_images is drawn.logits is None  # patches are no things
    assert torch.equal(patches.tokenise(images().to(dtype), restarts=7), output.codes)


def test_codes_stand_in_reading_order():
    patches = model()
    with torch.no_grad():
        patches.quantizer.codebook.normal_(generator=generator(1))
    codes = patches(images(1)).codes
    before = patches.decode(codes).image
    for patch, corner in ((0, (0, 0)), (3, (0, 1)), (12, (1, 0)), (15, (1, 1))):
        other = codes.clone()
        other[0, patch] = (codes[0, patch] + 1) % 12
        change = (patches.decode(other).image - before).abs().sum(1)[0]
        quarters = change.unflatten(0, (2, 8)).unflatten(2, (2, 8)).sum((1, 3))
        assert divmod(quarters.argmax().item(), 2) == corner


def test_gumbel_patches_share_their_noise_out_too():
    dvae = model(quantizer=Gumbel(1, 12)).double().train()
    pictures = images(4).double()
    parts = [dvae.loss(pictures[i::2], Draws(generator(), i, 2)) for i in range(2)]
    close(sum(parts) / 2, dvae.loss(pictures, Draws(generator())), rtol=1e-9, atol=0)


def test_scores_are_the_error_and_how_codes_are_used():
    scenes = data.make("shapes", 6, seed=1, num_objects=2, resolution=16).batch(range(6))
    patches = model()
    columns, output = patches.judge(scenes), patches(scenes["image"])
    close(columns["mse"], (output.reconstruction - scenes["image"]).square().mean((1, 2, 3)))
    scores = patches.summarise(columns)
    assert next(iter(scores)) == "mse"
    assert scores["mse"] == pytest.approx(columns["mse"].mean().item())
    assert scores["utilisation"] == scores["utilisation_0"] == pytest.approx(len(output.codes.unique()) / 12)
    assert all(len(rows) == 6 for rows in patches.look(scenes).pictures.values())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: model(patch=6), "patch must be a power of 2 that divides resolution=16, got 6"),
        (lambda: model(patch=1), "patch must be a power of 2"),
        (lambda: model(patch=4.0), "patch must be int, got 4.0"),
        (lambda: model(dim=-1), "dim must be a whole number, at least 1, got -1"),
        (lambda: model(resolution=0), "resolution must be a whole number, at least 1, got 0"),
        (lambda: model(quantizer=None), "quantizer must be of kind QuantizerConfig, got None"),
        (lambda: model(quantizer=Nearest(3)), "num_blocks must divide dim, got dim=8 and num_blocks=3"),
        (lambda: PatchVQVAE("small"), "config must be of kind PatchConfig, got 'small'"),
        (lambda: model()(images() * 255), r"images must lie in \[0, 1\]"),
        (lambda: model()(images()[..., :8]), r"images must be floating point \[batch, 3, 16, 16\]"),
        (lambda: model()(images(), 0), "generator must be a torch.Generator or None, got 0"),
        (lambda: model().loss(images(), generator()), "draws must be a slotlib.Draws"),
        (lambda: model().loss(images(0)), "images must be at least one"),
        (
            lambda: model().decode(torch.zeros(1, 9, 1).long()),
            r"codes must be integers \[batch, patches=16, blocks=1\]",
        ),
        (lambda: model().decode(torch.full((1, 16, 1), 12)), "codes must be within 0 and 11, got 12 to 12"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
