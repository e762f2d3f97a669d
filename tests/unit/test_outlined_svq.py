"""Outlines in words: a slot is drawn from its codes alone, its centre lies where its digits say, and texts go round."""

import pytest
import torch

import slotlib
from slotlib import checkpoint, svq
from slotlib.decoders import Separable
from slotlib.encoders import Strided
from slotlib.model import Draws
from slotlib.outlined_svq import DIGITS, OutlinedSVQAutoencoder, OutlinedSVQConfig, OutlinedText
from slotlib.prior import CodePrior, CodePriorConfig
from slotlib.svq import QuantisedAttentionConfig
from slotlib.vq import FiniteScalar, Nearest

SIDE, DIM, FOUND, OUTLINE = 32, 8, 4, 3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def attention(**options) -> QuantisedAttentionConfig:
    quantizer = Nearest(FOUND, num_codes=16)
    return QuantisedAttentionConfig(DIM, 3, 2, mlp_hidden_dim=16, quantizer=quantizer, **options)


def config(levels: tuple[int, ...] = (4, 4), **options) -> OutlinedSVQConfig:
    return OutlinedSVQConfig(
        **{
            "resolution": SIDE,
            "encoder": Strided(8),
            "attention": attention(),
            "decoder": Separable(16, colour="slot", rank=4),
            "outline": FiniteScalar(OUTLINE, levels=[*levels]),
            "outline_dim": OUTLINE * len(levels),
            **options,
        }
    )


@pytest.fixture
def model() -> OutlinedSVQAutoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return OutlinedSVQAutoencoder(config()).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, SIDE, SIDE, generator=generator(1))


def test_what_is_drawn_is_drawn_from_the_codes_alone(model, images):
    output = model(images, generator=generator())
    assert output.codes.shape == (2, 3, FOUND + OUTLINE + DIGITS)
    drawn = model.decode(output.codes)
    torch.testing.assert_close(drawn.masks, output.drawn_masks, rtol=0, atol=1e-6)
    torch.testing.assert_close(drawn.image, output.reconstruction, rtol=0, atol=1e-6)
    torch.testing.assert_close(model.quantizer.decode(output.codes), output.slots, rtol=0, atol=1e-6)
    assert torch.equal(model.tokenise(images, Draws(generator())), output.codes)


def test_a_centre_lies_within_half_a_step_of_what_its_digits_say(model):
    text = model.quantizer
    points = torch.rand(1000, 2, generator=generator()) * 2 - 1
    digits = text.digits(points)
    assert digits.unique().tolist() == list(range(16))
    assert (text.centre(digits) - points).abs().max() <= 1 / 256 + 1e-6
    assert torch.equal(text.digits(text.centre(digits)), digits)
    # y first, coarse before fine; one more of the coarse digit is a sixteenth of the side.
    assert text.digits(torch.tensor([[-1.0, 1.0]])).tolist() == [[0, 0, 15, 15]]
    torch.testing.assert_close(
        text.centre(torch.tensor([[3, 0, 0, 0]])) - text.centre(torch.tensor([[2, 0, 0, 0]])),
        torch.tensor([[0.125, 0]]),
    )


def test_a_centre_outside_the_image_is_moved_to_its_edge(model):
    text = model.quantizer
    far, edge = torch.tensor([[-9.0, 1.5]]), torch.tensor([[-1.0, 1.0]])
    assert torch.equal(text.digits(far), text.digits(edge))


def test_every_text_that_can_be_written_is_read_as_it_was_written(model):
    text = model.quantizer
    codes = torch.randint(16, (5, 3, text.num_blocks), generator=generator())
    assert torch.equal(text.nearest(text.decode(codes)), codes)


def test_a_word_of_an_outline_changes_the_slot_that_says_it_and_no_other(model, images):
    codes = model(images, generator=generator()).codes
    other = codes.clone()
    other[:, 0, FOUND] = (codes[:, 0, FOUND] + 5) % 16
    before, after = (model.decode(each).logits for each in (codes, other))
    assert not torch.allclose(before[:, 0], after[:, 0])
    assert torch.equal(before[:, 1:], after[:, 1:])


def test_gradients_pass_the_rounding_and_none_comes_to_a_centre(model, images):
    model.train()
    model.loss(images, Draws(generator())).backward()
    for part in (model.decoder.outline[0], model.decoder.canvas[0], model.slot_attention.project_k):
        assert part.weight.grad.abs().max() > 0
    assert not list(model.rounding.parameters())


def test_it_is_saved_loaded_and_learned_by_a_prior(model, images, tmp_path):
    checkpoint.save(model, tmp_path / "coded", {})
    again = slotlib.load(tmp_path / "coded")
    assert torch.equal(again.tokenise(images, Draws(generator())), model.tokenise(images, Draws(generator())))
    torch.manual_seed(0)
    prior = CodePrior(CodePriorConfig(str(tmp_path / "coded"), blanks=True, dim=16, num_layers=1, num_heads=2))
    assert prior.loss(*prior.kept(images, draws=Draws(generator())), draws=Draws(generator())) > 0
    texts = prior.sample(2, generator=generator())
    assert texts.shape == (2, 3, FOUND + OUTLINE + DIGITS)
    assert prior.decode(texts).image.shape == images.shape


def test_only_learned_codes_have_synonyms(model, images):
    assert svq.exchange_effects(model, images, least=0, generator=generator()).shape == (FOUND, 16, 16)
    assert len(svq.merge_synonyms(model, images.repeat(4, 1, 1, 1), generator=generator())) == FOUND


def test_use_is_told_of_all_blocks_and_errors_of_those_that_learn(model, images):
    masks = torch.randint(0, 3, (2, SIDE, SIDE), generator=generator())
    said = model.summarise(model.judge({"image": images, "mask": masks}, Draws(generator())))
    assert f"utilisation_{FOUND + OUTLINE + DIGITS - 1}" in said
    assert f"quantisation_error_{FOUND - 1}" in said and f"quantisation_error_{FOUND}" not in said


def test_while_slots_are_continuous_nothing_is_said_of_codes(images):
    continuous = OutlinedSVQAutoencoder(config(attention=attention(quantise=False))).eval()
    masks = torch.zeros(2, SIDE, SIDE, dtype=torch.int64)
    said = continuous.summarise(continuous.judge({"image": images, "mask": masks}, Draws(generator())))
    assert said["utilisation"] != said["utilisation"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"levels": (4, 2)}, "outline must have 16 codes"),
        ({"outline_dim": 7}, "num_blocks must divide dim"),
        ({"outline_dim": 0}, "outline_dim must be"),
        ({"colour_lead": 1.0}, "colour_lead needs a decoder that reads colours from at least two of 4 blocks"),
    ],
)
def test_what_does_not_fit_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        OutlinedSVQAutoencoder(config(**options))


def test_codes_of_another_shape_are_refused(model):
    with pytest.raises(ValueError, match="codes must be"):
        model.decode(torch.zeros(1, 3, FOUND, dtype=torch.int64))
    with pytest.raises(ValueError, match="codes must be within 0 and 15"):
        model.decode(torch.full((1, 3, FOUND + OUTLINE + DIGITS), 16))
    assert isinstance(model.quantizer, OutlinedText)
