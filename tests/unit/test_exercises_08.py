"""Chapter 08: what a reader would plausibly write is refused with a hint that fits, and what is right passes.

Toys stand in for what is slow: a decoder that draws only some of the blocks, and a prior that counts how often each
word of a block occurs.
"""

from types import SimpleNamespace

import pytest
import torch
from exercises import Exercises, refused
from torch.nn import functional as F

SLOTS, BLOCKS, CODES = 4, 6, 8
DRAWN = 3  # blocks that the decoder looks at; the others are idle


def seeded(seed):
    return torch.Generator().manual_seed(seed)


class Counted:
    """A prior over objects whose words are independent: as often as in what it learned from, and once more."""

    def __init__(self, words):
        counts = 1 + F.one_hot(words, CODES).sum(0)
        self.log_p = (counts / counts.sum(1, keepdim=True)).log()

    def log_likelihood(self, codes):  # [objects, 1, M]
        return self.log_p[torch.arange(BLOCKS), codes[:, 0]].sum(1)


@pytest.fixture(scope="module")
def exercises():
    chapter = Exercises("08_writing_scenes")
    exec(chapter.sources["imports"].partition("# a prior, and the autoencoder")[0], chapter.names)
    texts = torch.randint(CODES, (80, SLOTS, BLOCKS), generator=seeded(0))

    def decode(codes):
        return SimpleNamespace(image=F.one_hot(codes[..., :DRAWN], CODES).float())

    words = torch.randint(CODES, (1400, BLOCKS), generator=seeded(1))
    chapter.names |= {
        "P": CODES,
        "M": BLOCKS,
        "texts": texts,
        "words": words,
        "ended": torch.zeros(80, SLOTS, dtype=torch.bool),
        "place": torch.arange(SLOTS).expand(80, -1),
        "largest": torch.zeros(80, dtype=torch.long),
        "WIDE": {"image": decode(texts).image + 0.2 * torch.randn(80, SLOTS, DRAWN, CODES, generator=seeded(2))},
        "model": SimpleNamespace(decode=decode),
        "learn": Counted,
        "effect": torch.tensor([1.0, 0.8, 0.9, 0.02, 0.01, 0.0]),
        "known": {"colour": [0.9, 0.1, 0.0, 0.0, 0.0, 0.0], "size": [0.0, 0.0, 0.1, 0.0, 0.0, 0.0]},
    }
    chapter.run(*(f"exercise-{number}-check" for number in (1, 2, 3)))
    return chapter


def answers(name, arguments, returned):
    return f"def {name}({arguments}):\n    return {returned}"


def p_last(returned):
    return answers("p_last", "counts, n", returned)


@pytest.mark.parametrize(
    "answer, hint",
    [
        pytest.param(p_last("(counts == n).double().mean()"), "not by all scenes", id="of all scenes"),
        pytest.param(p_last("(counts <= n).double().mean()"), "`n` or fewer", id="cumulative"),
        pytest.param(p_last("(counts == n).sum() / (counts > n).sum()"), "got so far, too", id="of those beyond"),
        pytest.param(p_last("(counts > n).sum() / (counts >= n).sum().clamp(min=1)"), "goes on", id="those beyond"),
        pytest.param(p_last("100 * (counts == n).sum() / (counts >= n).sum()"), "from 0 to 1", id="per cent"),
        pytest.param(p_last("(counts == n).sum()"), "divide by", id="a number of scenes"),
        pytest.param(p_last("(counts == n).sum() / (counts >= n).sum()"), "0 / 0", id="0 / 0 of tensors"),
        pytest.param(p_last("(counts == n).sum().item() / (counts >= n).sum().item()"), "0 / 0", id="0 / 0"),
        pytest.param(p_last("None"), "not what is asked for", id="nothing"),
    ],
)
def test_a_share_that_is_wrong_is_refused(exercises, answer, hint):
    said = refused(exercises.verdict("exercise-1", answer))
    assert any(hint in line for line in said), said


@pytest.mark.parametrize(
    "answer",
    [
        p_last("(counts == n).sum() / (counts >= n).sum().clamp(min=1)"),
        p_last("(counts[counts >= n] == n).double().mean().nan_to_num()"),
        p_last("len([c for c in counts if c == n]) / max(1, len([c for c in counts if c >= n]))"),
    ],
    ids=["a quotient", "a mean", "in Python"],
)
def test_a_share_that_is_right_passes(exercises, answer):
    assert not refused(exercises.verdict("exercise-1", answer))


NUCLEUS = """
def nucleus(logits, top_p):
    p, order = {softmax}.sort(dim=-1, descending=True)
    kept = p * {keep}
    kept = {scaled}
    return {back}
"""


def nucleus(
    softmax="logits.softmax(-1)",
    keep="(p.cumsum(-1) - p < top_p)",
    scaled="kept / kept.sum(-1, keepdim=True)",
    back="torch.zeros_like(kept).scatter(-1, order, kept)",
):
    return NUCLEUS.format(softmax=softmax, keep=keep, scaled=scaled, back=back)


MASKED = """
def nucleus(logits, top_p):
    p, order = logits.softmax(-1).sort(dim=-1, descending=True)
    beyond = p.cumsum(-1) > top_p
    beyond[:, 1:] = beyond[:, :-1].clone()
    beyond[:, 0] = False
    return logits.masked_fill(beyond.gather(-1, order.argsort(-1)), -math.inf).softmax(-1)
"""
LOOP = """
def nucleus(logits, top_p):
    rows = []
    for p in logits.softmax(-1):
        kept, total = torch.zeros_like(p), 0.0
        for code in p.argsort(descending=True):
            if total >= top_p:
                break
            kept[code] = p[code]
            total += p[code]
        rows.append(kept / kept.sum())
    return torch.stack(rows)
"""


@pytest.mark.parametrize(
    "answer, hint",
    [
        pytest.param(nucleus(keep="(p.cumsum(-1) <= top_p)"), "those *before* it", id="without the crossing token"),
        pytest.param(nucleus(keep="(p > 1 - top_p)"), "cumulative sum", id="a threshold"),
        pytest.param(nucleus(keep="(p.cumsum(-1) - p < top_p / 2)"), "cumulative sum", id="too few"),
        pytest.param(nucleus(scaled="kept"), "scale what is left", id="not scaled"),
        pytest.param(nucleus(back="kept"), "order of the codes", id="sorted"),
        pytest.param(
            nucleus(back="torch.zeros_like(kept).index_copy(-1, order[0], kept)"), "each row", id="one order for all"
        ),
        pytest.param(nucleus(softmax="logits.exp()"), "by a softmax", id="exp without a sum"),
        pytest.param(
            nucleus(keep="(p.cumsum(-1) - p < top_p) * (p.cumsum(-1) > p[:, :1] / 2) * (top_p > .1)"),
            "sums to 0",
            id="nothing kept",
        ),
        pytest.param(nucleus(back="None"), "not what is asked for", id="nothing"),
    ],
)
def test_a_nucleus_that_is_wrong_is_refused(exercises, answer, hint):
    said = refused(exercises.verdict("exercise-2", answer))
    assert any(hint in line for line in said), said


@pytest.mark.parametrize("answer", [nucleus(), MASKED, LOOP], ids=["scatter", "masked logits", "a loop"])
def test_a_nucleus_that_is_right_passes(exercises, answer):
    assert not refused(exercises.verdict("exercise-2", answer))


QUIET = """
def quiet(words):
    {silence}
    return words
"""


def quiet(silence):
    return QUIET.format(silence=silence)


@pytest.mark.parametrize(
    "answer, check, hint",
    [
        pytest.param(quiet("words[:] = taught.mode(0).values"), "drawn as well", "which blocks", id="all blocks"),
        pytest.param(quiet("words[:, effect > 0.5] = 0"), "drawn as well", "which blocks", id="those that matter"),
        pytest.param(
            quiet("words[:, torch.tensor(known['colour']) < 0.05] = 0"), "drawn as well", "which blocks", id="no colour"
        ),
        pytest.param(quiet("words[:, 5] = 0"), "a third", "more of the blocks", id="one block"),
        pytest.param(
            quiet("words[:, 3:] = torch.randint(P, words[:, 3:].shape)"), "a third", "always says the same", id="random"
        ),
        pytest.param(
            quiet("words[:, 3:] = (words[:, 3:] + 1) % P"), "a third", "always says the same", id="other words"
        ),
        pytest.param(quiet("words[:, 3:] = words[0, 3:].clone()"), "a third", "whichever objects", id="of those given"),
        pytest.param("def quiet(words):\n    return words[:, :3]", "same shape", "all objects", id="blocks cut off"),
        pytest.param("def quiet(words):\n    words[:, 3:] = 0", "same shape", "all objects", id="nothing"),
    ],
)
def test_words_that_are_not_quiet_are_refused(exercises, answer, check, hint):
    said = refused(exercises.verdict("exercise-3", answer))
    assert any(check in line and hint in line for line in said), said


@pytest.mark.parametrize(
    "answer",
    [
        quiet("words[:, effect < 0.1] = 0"),
        quiet("words = torch.where(effect < 0.1, taught[0], words)"),
        quiet("words[:, effect.argsort()[:3]] = taught.mode(0).values[effect.argsort()[:3]]"),
    ],
    ids=["zeros", "of some object", "the three that do least"],
)
def test_words_that_are_quiet_pass(exercises, answer):
    assert not refused(exercises.verdict("exercise-3", answer))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_shipped_solution_passes(exercises, number):
    assert not refused(exercises.verdict(f"exercise-{number}", exercises.solution(number)))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_starter_says_not_yet_and_does_not_raise(exercises, number):
    said = exercises.verdict(f"exercise-{number}", "pass")
    assert refused(said) and "it raised" not in said
