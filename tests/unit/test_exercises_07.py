"""Chapter 07: what a reader would plausibly write is refused with a hint that fits, and what is right passes.

A toy stands in for the trained model: it draws what its words say, of which one is the colour, one the place and one
the size, and it reads a picture with some words wrong and its slots in any order.
"""

from types import SimpleNamespace

import pytest
import torch
from exercises import Exercises, refused
from torch.nn import functional as F

from slotlib import vq

SLOTS, BLOCKS, CODES = 3, 4, 8
SCENES = 24


def seeded(seed):
    return torch.Generator().manual_seed(seed)


# --- 1: perplexity --------------------------------------------------------------------------------


def perplexity(returned, share="codes.bincount(minlength=num_codes) / len(codes)"):
    return f"def perplexity(codes, num_codes):\n    share = {share}\n    return {returned}"


COUNTED = """
def perplexity(codes, num_codes):
    from collections import Counter
    product = 1.0
    for count in Counter(codes.tolist()).values():
        product *= (len(codes) / count) ** (count / len(codes))
    return product
"""


@pytest.fixture(scope="module")
def measures():
    chapter = Exercises("07_svq", "setup", "imports")
    codes = torch.randint(CODES, (20, SLOTS, BLOCKS), generator=seeded(0)) ** 2 // CODES
    chapter.names |= {"written": {"codes": codes}, "use": vq.use(codes, CODES), "M": BLOCKS, "P": CODES}
    chapter.run("exercise-1-check")
    return chapter


@pytest.mark.parametrize(
    "answer, hint",
    [
        pytest.param(perplexity("torch.special.entr(share).sum()"), "that is the entropy;", id="entropy"),
        pytest.param(perplexity("(-share * share.log2()).nansum()"), "in bits", id="entropy in bits"),
        pytest.param(perplexity("(-share * share.log2()).nansum().exp()"), "log to the base 2", id="two bases"),
        pytest.param(perplexity("(share * share.log()).nansum().exp()"), "mind the sign", id="sign"),
        pytest.param(perplexity("(-share * share.log()).sum().exp()"), "0 · log 0 is 0", id="nan"),
        pytest.param(perplexity("(share > 0).sum()"), "how evenly", id="codes in use"),
        pytest.param(perplexity("1 / share.square().sum()"), "1 / Σ p²", id="inverse Simpson"),
        pytest.param(
            perplexity("torch.special.entr(share).sum().exp() / num_codes"), "not as a share of them", id="a share"
        ),
        pytest.param(
            perplexity("torch.special.entr(share).sum().exp()", "codes / codes.sum()"), "share of each", id="of codes"
        ),
        pytest.param(perplexity("None"), "not what is asked for", id="nothing"),
    ],
)
def test_a_perplexity_that_is_wrong_is_refused(measures, answer, hint):
    said = refused(measures.verdict("exercise-1", answer))
    assert said and hint in said[0], said


@pytest.mark.parametrize(
    "answer",
    [
        perplexity("(-share[share > 0] * share[share > 0].log()).sum().exp()"),
        perplexity("2 ** -(share * share.clamp(min=1e-12).log2()).sum()"),
        perplexity("np.prod(share.numpy() ** -share.numpy())"),
        COUNTED,
    ],
    ids=["tensor", "to the base 2", "a product", "counted in Python"],
)
def test_a_perplexity_that_is_right_passes(measures, answer):
    assert not refused(measures.verdict("exercise-1", answer))


# --- 2: say blue ----------------------------------------------------------------------------------

AREAS = torch.linspace(40, 110, CODES)


def draw(codes, paint):
    """Discs of the colour that block 0 says, at the height that block 1 says, as large as block 2 says."""
    across = 16.0 + 20 * torch.arange(SLOTS)
    down = 4.0 + 8 * codes[..., 1]
    radius = (AREAS[codes[..., 2]] / torch.pi).sqrt()
    grid = torch.arange(64.0)
    far = (grid - across[:, None]).square()[None, :, None] + (grid - down[..., None]).square()[..., None]
    masks = (radius[..., None, None] - far.sqrt()).sigmoid()
    return SimpleNamespace(masks=masks, slot_images=paint[codes[..., 0]][..., None, None])


EACH = """
def paint_slot(codes, slot, colour):
    best, least = codes, math.inf
    for m in {blocks}:
        for k in {codes}:
            new = codes.clone()
            new[slot, m] = k
            now = attributes(model.decode(new[None]))
            far = (now["colour"][0, slot] - {colour}).norm()
            if far < least:
                best, least = new, far
    {after}
    return best
"""


def each(blocks="range(M)", codes="range(P)", colour="colour", after="pass"):
    return EACH.format(blocks=blocks, codes=codes, colour=colour, after=after)


LOOKED_UP = """
def paint_slot(codes, slot, colour):
    every = codes.repeat(P, 1, 1)
    every[:, slot, 0] = torch.arange(P)
    painted = model.decode(every).slot_images[:, slot, :, 0, 0]
    codes[slot, 0] = (painted - colour).abs().sum(1).argmin()
    return codes
"""
OF_ANOTHER = """
def paint_slot(codes, slot, colour):
    for other in scene_codes.flatten(0, 1):
        new = codes.clone()
        new[slot] = other
        now = attributes(model.decode(new[None]))
        if (now["colour"][0, slot] - colour).norm() < 0.05:
            return new
    return codes
"""


@pytest.fixture(scope="module")
def painter():
    chapter = Exercises("07_svq", "setup", "imports", "swap-tools", "exercise-1-check")
    chapter.names |= {
        "model": SimpleNamespace(decode=lambda codes: draw(codes, chapter.names["PAINT"])),
        "scene_codes": torch.randint(CODES, (30, SLOTS, BLOCKS), generator=seeded(1)),
        "slots_two": torch.tensor([[0, 1], [1, 2], [2, 0], [0, 2], [1, 0]]),
        "BLUE_NUMBER": 5,
        "K": SLOTS,
        "M": BLOCKS,
        "P": CODES,
    }
    chapter.run("exercise-2-check")
    return chapter


@pytest.mark.parametrize(
    "answer, check, hint",
    [
        pytest.param(
            "def paint_slot(codes, slot, colour):\n    return None", "new codes", "all codes of the scene", id="nothing"
        ),
        pytest.param(each().replace("return best", "return best[slot]"), "new codes", "all codes", id="one line"),
        pytest.param(each(colour="PAINT[BLUE_NUMBER]"), "the colour", "not always the same", id="always blue"),
        pytest.param(each(blocks="range(1, M)"), "the colour", "every code of every block", id="no colour word"),
        pytest.param(
            each().replace("<", ">").replace("inf", "e"), "the colour", "nearest to it", id="what is furthest from it"
        ),
        pytest.param(each(after="best[:, 0] = best[slot, 0]"), "no other slot", "`codes[slot]` only", id="all slots"),
        pytest.param(each(after="best[slot, 3] = (best[slot, 3] + 1) % P"), "two words", "does it", id="one needless"),
        pytest.param(each(after="best[slot, 1:] = (best[slot, 1:] + 1) % P"), "two words", "does it", id="more"),
        pytest.param(each(after="best[slot, 1] = (best[slot, 1] + 4) % P"), "same place", "moves it", id="elsewhere"),
        pytest.param(OF_ANOTHER, "same place", "moves it", id="all words of another object"),
    ],
)
def test_codes_that_paint_wrongly_are_refused(painter, answer, check, hint):
    said = refused(painter.verdict("exercise-2", answer))
    assert any(check in line and hint in line for line in said), said


@pytest.mark.parametrize("answer", [each(), each(blocks="[0]"), LOOKED_UP], ids=["each code", "block 0", "in place"])
def test_codes_that_paint_rightly_pass(painter, answer):
    assert not refused(painter.verdict("exercise-2", answer))


# --- 3: one text ----------------------------------------------------------------------------------

TRUE = torch.randint(CODES, (SCENES, SLOTS, BLOCKS), generator=seeded(2))


def read_again(images, draws):
    """The words of the pictures, but two of twelve, and the slots shuffled."""
    wrong = torch.rand(SCENES, SLOTS * BLOCKS, generator=draws.generator).argsort(1).view(TRUE.shape) < 2
    other = torch.randint(1, CODES, TRUE.shape, generator=draws.generator)
    read = torch.where(wrong, (TRUE + other) % CODES, TRUE)
    order = torch.rand(SCENES, SLOTS, generator=draws.generator).argsort(1)
    return read.gather(1, order.unsqueeze(2).expand_as(read))


VOTE = """
def canonical(read, times={times}):
    readings = [read() for _ in range(times)]
    paired = torch.stack([{paired} for other in readings])
    return {vote}
"""


def vote(paired="as_sets(readings[0], other)[1]", of="paired.mode(0).values", times=8):
    return VOTE.format(paired=paired, vote=of, times=times)


@pytest.fixture(scope="module")
def reader():
    chapter = Exercises("07_svq", "setup", "imports", "recolour-tools", "exercise-1-check")

    def decode(codes):  # which words are said together, whatever the order of slots
        together = CODES * codes + codes.roll(1, dims=2)
        return SimpleNamespace(image=F.one_hot(together, CODES**2).float().sum(1))

    chapter.names |= {
        "writer": SimpleNamespace(with_blanks=lambda codes: codes),
        "model": SimpleNamespace(decode=decode, tokenise=read_again),
        "WIDE": {"image": decode(TRUE).image},
    }
    chapter.run("exercise-3-check")
    return chapter


SORTED = """
def canonical(read):
    codes = read()
    order = codes[..., 0].argsort(1)
    return codes.gather(1, order.unsqueeze(2).expand_as(codes))
"""
CENTRAL = """
def canonical(read):
    readings = [read() for _ in range(8)]
    apart = [sum((as_sets(a, b)[0] != as_sets(a, b)[1]).sum() for b in readings) for a in readings]
    return readings[apart.index(min(apart))]
"""
FIXED = "def canonical(read):\n    return model.tokenise(WIDE['image'][:24], Draws(seeded(0)))"


@pytest.mark.parametrize(
    "answer, check, hint",
    [
        pytest.param(SORTED, "more stable", "that is one reading", id="sorted slots"),
        pytest.param(CENTRAL, "more stable", "that is one reading", id="the central one"),
        pytest.param(vote(paired="other"), "drawn as well", "pair slots", id="a vote of unpaired slots"),
        pytest.param(
            vote(of="paired.double().mean(0).round().long()"), "drawn as well", "codes are no numbers", id="a mean"
        ),
        pytest.param(vote(of="torch.zeros_like(paired[0])"), "drawn as well", "says nothing", id="always the same"),
        pytest.param(FIXED, "two texts", "a start that is fixed", id="a fixed start"),
        pytest.param(vote(times=9), "two texts", "eight readings at most", id="nine readings"),
        pytest.param(vote(of="paired"), "two texts", "one text for each picture", id="all readings"),
        pytest.param("def canonical(read):\n    read()", "two texts", "one text for each picture", id="nothing"),
    ],
)
def test_a_text_that_is_not_canonical_is_refused(reader, answer, check, hint):
    said = refused(reader.verdict("exercise-3", answer))
    assert any(check in line and hint in line for line in said), said


ONE_HOT = "torch.nn.functional.one_hot(paired, 8).float().mean(0).argmax(-1)"


@pytest.mark.parametrize("answer", [vote(), vote(of=ONE_HOT), vote(times=5)], ids=["mode", "mean of one-hot", "five"])
def test_a_vote_of_paired_readings_passes(reader, answer):
    assert not refused(reader.verdict("exercise-3", answer))


# --- what ships -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number, chapter", [(1, "measures"), (2, "painter"), (3, "reader")])
def test_the_shipped_solution_passes(number, chapter, request):
    chapter = request.getfixturevalue(chapter)
    assert not refused(chapter.verdict(f"exercise-{number}", chapter.solution(number)))


@pytest.mark.parametrize("number, chapter", [(1, "measures"), (2, "painter"), (3, "reader")])
def test_the_starter_says_not_yet_and_does_not_raise(number, chapter, request):
    said = request.getfixturevalue(chapter).verdict(f"exercise-{number}", "pass")
    assert refused(said) and "it raised" not in said
