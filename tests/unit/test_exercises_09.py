"""Chapter 09: what a reader would plausibly write is refused with a hint that fits, and what is right passes.

Made-up slots stand in for those of the chapter's model.
"""

import pytest
import torch
from exercises import Exercises, refused

ONE_AT_A_TIME = """
def one_at_a_time(cost, batch, slots, price):
    keep = torch.ones(batch, slots)
    for _ in range({times}):
        rises = []
        for k in range(slots):
            other = keep.clone()
            other[:, k] = 0
            rises.append(cost(other) - cost(keep) + 1e6 * (keep[:, k] == 0) {last})
        least, which = torch.stack(rises, 1).{pick}(1)
        drop = least < price
        keep[drop, which[drop]] = 0
    return keep
"""
ALL_AT_ONCE = """
def one_at_a_time(cost, batch, slots, price):
    keep = torch.ones(batch, slots)
    saved = torch.stack([cost(keep - F.one_hot(torch.tensor(k), slots)) - cost(keep) for k in range(slots)], 1)
    return worth(saved, price)
"""
ONE_FOR_ALL_IMAGES = """
def one_at_a_time(cost, batch, slots, price):
    keep = torch.ones(batch, slots)
    for _ in range(slots - 1):
        rises = torch.full((slots,), math.inf)
        for k in range(slots):
            if keep[0, k]:
                other = keep.clone()
                other[:, k] = 0
                rises[k] = (cost(other) - cost(keep)).mean()
        if rises.min() < price:
            keep[:, rises.argmin()] = 0
    return keep
"""
IMAGE_BY_IMAGE = """
def one_at_a_time(cost, batch, slots, price):
    keep = torch.ones(batch, slots)
    for i in range(batch):
        while keep[i].sum() > 1:
            now, best = cost(keep)[i], None
            for k in keep[i].nonzero().flatten().tolist():
                keep[i, k] = 0
                rise = (cost(keep)[i] - now).item()
                keep[i, k] = 1
                if best is None or rise < best[0]:
                    best = rise, k
            if best[0] >= price:
                break
            keep[i, best[1]] = 0
    return keep
"""


def one_at_a_time(times="slots - 1", last="+ 1e6 * (other.sum(1) == 0)", pick="min"):
    return ONE_AT_A_TIME.format(times=times, last=last, pick=pick)


BREAKS = """
def breaks(shares):
    ordered = {ordered}
    left = 1 - ordered.cumsum(1) {before}
    return {fraction}
"""
DOWNWARDS = "shares.sort(1, descending=True).values"
SAFE = "torch.where(left > 1e-5, ordered / left, torch.ones_like(left))"
IN_A_LOOP = """
def breaks(shares):
    rows = []
    for row in shares.tolist():
        left, fractions = 1.0, []
        for part in sorted(row, reverse=True):
            fractions.append(part / left if left > 1e-6 else 1.0)
            left -= part
        rows.append(fractions)
    return torch.tensor(rows)
"""
COUNTED = """
ordered = sizes.sort(1, descending=True).values
left = 1 - ordered.cumsum(1) {before}
errors = {{
    name: [counting.score(objects, (each > epsilon).sum(1) {ground}).error for epsilon in {epsilons}]
    for name, each in {{"stick": left, "area": {area}}}.items()
}}
"""


def broken(ordered=DOWNWARDS, before="+ ordered", fraction=SAFE):
    return BREAKS.format(ordered=ordered, before=before, fraction=fraction)


def counted(before="+ ordered", ground="- 1", epsilons="EPSILONS", area="sizes"):
    return COUNTED.format(before=before, ground=ground, epsilons=epsilons, area=area)


PER_PIXEL = """
def per_pixel(saved, shares, mu):
    gain = {gain}
    keep = (gain {sign} 0).float()
    nobody = keep.sum(1) == 0
    keep[nobody, {best}.argmax(1)[nobody]] = {stays}
    return keep
"""
PRICED = """
priced = {{
    name: [counting.score(objects, per_pixel(saved, each, mu).sum(1).long() {ground}).error for mu in {mus}]
    for name, each in {{"slot": {slot}, "pixel": sizes, "root": {root}}}.items()
}}
"""


def per_pixel(gain="saved - mu * shares", sign=">", best="gain", stays="1"):
    return PER_PIXEL.format(gain=gain, sign=sign, best=best, stays=stays)


def priced(ground="- 1", mus="MUS", slot="torch.ones_like(sizes)", root="sizes.sqrt()"):
    return PRICED.format(ground=ground, mus=mus, slot=slot, root=root)


@pytest.fixture(scope="module")
def exercises():
    chapter = Exercises("09_how_many_slots", "setup", "imports", "gumbel-cell")
    random = torch.Generator().manual_seed(0)
    scenes, slots, side = 30, 6, 8
    # The ground, two to four objects, and slots with next to nothing.
    objects = 2 + torch.arange(scenes) % 3
    area = 0.02 + 0.06 * torch.rand(scenes, slots, generator=random)
    area[torch.arange(slots) > objects[:, None]] *= 0.01
    area[:, 0] = 1 - area[:, 1:].sum(1)
    saved = 0.4 * area * (0.5 + torch.rand(scenes, slots, generator=random))
    logits = area.log()[..., None, None].expand(-1, -1, side, side)
    names = chapter.names
    names |= {
        "drawing": names["Drawing"](torch.zeros(scenes, slots, 3, side, side), logits),
        "objects": objects,
        "saved": saved,
        "is_ground": torch.arange(slots).expand(scenes, -1) == 0,
        "SCENES": scenes,
        "worth": lambda saved, price: (saved > price).float(),
    }
    chapter.run("checks")
    return chapter


def check_refused(exercises, exercise, answer, hint):
    said = exercises.verdict(exercise, answer)
    assert any(hint in line for line in refused(said)), said


@pytest.mark.parametrize(
    "answer, hint",
    [
        pytest.param("logits.sigmoid().sum(1)", "one slot stays", id="the coins alone"),
        pytest.param("logits.sigmoid().sum(1).clamp(min=1)", "can still be too low", id="one at least, on average"),
        pytest.param("hand_chances(logits).mean(1)", "sum equation (9.5)", id="mean over slots"),
        pytest.param("hand_chances(logits).sum()", "one number for each image", id="one number"),
        pytest.param("hand_chances(logits)", "one number for each image", id="one number a slot"),
        pytest.param("(logits > 0).sum(1).double()", "sum equation (9.5)", id="without a toss"),
    ],
)
def test_a_mean_number_that_is_wrong_is_refused(exercises, answer, hint):
    check_refused(exercises, "exercise-1", f"def mean_kept(logits):\n    return {answer}", hint)


@pytest.mark.parametrize(
    "answer",
    [
        "hand_chances(logits).sum(1)",
        "adaptive.chances(logits).sum(-1)",
        "logits.sigmoid().sum(1) + (1 - logits.sigmoid()).prod(1)",
        "torch.stack([hand_decide(row.expand(50_000, 2), gumbel(50_000, 2, 3)).sum(1).mean() for row in logits])",
    ],
    ids=["by hand", "library", "shortened", "tossed"],
)
def test_a_mean_number_that_is_right_passes(exercises, answer):
    assert exercises.verdict("exercise-1", f"def mean_kept(logits):\n    return {answer}").startswith("✓")


@pytest.mark.parametrize(
    "answer, hint",
    [
        pytest.param(ALL_AT_ONCE, "both twins are gone", id="all at once"),
        pytest.param(one_at_a_time(times="1"), "go on until", id="one drop"),
        pytest.param(one_at_a_time(times="slots", last=""), "never drop the last", id="the last one, too"),
        pytest.param(one_at_a_time(pick="max"), "nothing was dropped", id="the dearest first"),
        pytest.param(ONE_FOR_ALL_IMAGES, "in each image", id="one slot for all images"),
        pytest.param(
            "def one_at_a_time(cost, batch, slots, price):\n    return torch.tensor([[1., 1, 0, 0]]).expand(batch, -1)",
            "an object is gone",
            id="twins kept, object dropped",
        ),
    ],
)
def test_dropping_wrongly_is_refused(exercises, answer, hint):
    check_refused(exercises, "exercise-2", answer, hint)


@pytest.mark.parametrize("answer", [one_at_a_time(times="slots"), IMAGE_BY_IMAGE], ids=["batch", "image by image"])
def test_dropping_one_at_a_time_passes(exercises, answer):
    assert "not yet" not in exercises.verdict("exercise-2", answer)


@pytest.mark.parametrize(
    "answer, hint",
    [
        pytest.param(broken(fraction="ordered"), "shares of the whole stick", id="shares"),
        pytest.param(broken(ordered="shares"), "the largest share comes first", id="not sorted"),
        pytest.param(broken(before=""), "what is left before slot k", id="left after the break"),
        pytest.param(broken(fraction="ordered / left"), "no 0 / 0 at the end", id="0 / 0"),
        pytest.param("def breaks(shares):\n    return None", "not a tensor of the right shape", id="nothing"),
    ],
)
def test_a_stick_broken_wrongly_is_refused(exercises, answer, hint):
    check_refused(exercises, "exercise-3", answer + counted(), hint)


@pytest.mark.parametrize(
    "answer, hint",
    [
        pytest.param("errors = {'stick': [.1] * 5, 'area': [.2] * 5}", "by stick and area other", id="made up"),
        pytest.param(counted(before=""), "left *before* it", id="left after"),
        pytest.param(counted(ground=""), "one of the slots is the ground", id="ground counted"),
        pytest.param(counted(epsilons="EPSILONS[:3]"), "for each of EPSILONS", id="some only"),
        pytest.param(counted(area="sizes / sizes.amax(1, keepdim=True)"), "by area other", id="relative area"),
    ],
)
def test_counts_by_stick_that_were_not_made_so_are_refused(exercises, answer, hint):
    check_refused(exercises, "exercise-3", broken() + answer, hint)


@pytest.mark.parametrize("answer", [broken(), IN_A_LOOP], ids=["batch", "in a loop"])
def test_a_broken_stick_passes(exercises, answer):
    assert "not yet" not in exercises.verdict("exercise-3", answer + counted())


@pytest.mark.parametrize(
    "answer, hint",
    [
        pytest.param(per_pixel(gain="saved - mu"), "the slot's own share", id="a price by slot"),
        pytest.param(per_pixel(stays="0"), "one slot stays", id="none stays"),
        pytest.param(per_pixel(sign=">="), "an empty slot saves 0", id="not less"),
        pytest.param(per_pixel(best="saved"), "the largest difference", id="the best saver stays"),
        pytest.param(per_pixel(gain="saved / shares - mu", sign=">="), "the largest difference", id="a ratio"),
    ],
)
def test_a_price_that_is_wrong_is_refused(exercises, answer, hint):
    check_refused(exercises, "exercise-4", answer, hint)


@pytest.mark.parametrize(
    "answer, hint",
    [
        pytest.param("priced = dict.fromkeys(('slot', 'pixel', 'root'), [.1] * 7)", "other numbers", id="made up"),
        pytest.param(priced(ground=""), "one of the slots is the ground", id="ground counted"),
        pytest.param(priced(root="sizes.square()"), "the square", id="the square"),
        pytest.param(priced(mus="MUS[1:]"), "for each of MUS", id="some only"),
        pytest.param(priced(slot="sizes"), "by slot other numbers", id="no price by slot"),
    ],
)
def test_prices_that_were_not_compared_are_refused(exercises, answer, hint):
    check_refused(exercises, "exercise-4", per_pixel() + answer, hint)


@pytest.mark.parametrize(
    "answer",
    [per_pixel(), per_pixel(gain="saved.double() - mu * shares.double()")],
    ids=["single", "double"],
)
def test_a_price_per_pixel_passes(exercises, answer):
    assert "not yet" not in exercises.verdict("exercise-4", answer + priced())


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_the_shipped_solution_passes(exercises, number):
    assert "not yet" not in exercises.verdict(f"exercise-{number}", exercises.solution(number))
