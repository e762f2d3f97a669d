"""The exercises of chapter 03 refuse what is plausibly wrong, and take what is right in any form."""

import pytest
from exercises import Exercises, refused


@pytest.fixture(scope="module")
def chapter():
    checks = "check-1", "check-2", "check-3"
    return Exercises("03_object_discovery", "setup", "imports", "model", "by-hand-mixture", *checks)


LOSSES = """
def tried(images, seeds=range(4)):
    tries = [find_objects(model, images, seed=s) for s in seeds]
    return torch.stack([hand_mixture(model, t, images)[0] for t in tries]), tries

def best_of_four(model, images):
"""
RESTARTS_REFUSED = {
    "one start for all images": "l, _ = tried(images); s = l.mean(1).argmin(); return l[s], s.expand(len(images))",
    "the least of each start": "return tried(images)[0].min(dim=1)",
    "the worst": "return tried(images)[0].max(dim=0)",
    "seeds from one on": "return tried(images, range(1, 5))[0].min(dim=0)",
    "the two exchanged": "return tried(images)[0].min(dim=0)[::-1]",
    "the best redrawn, by squared error": """
    losses, tries = tried(images)
    errors = torch.stack([(t.reconstruction - images).square().mean((1, 2, 3)) for t in tries])
    which = errors.argmin(0)
    return losses.gather(0, which[None])[0], which""",
    "by the score, which needs labels": """
    losses, tries = tried(images)
    scores = torch.stack([metrics.fg_ari(true_masks[:len(images)], t.masks.argmax(1)) for t in tries])
    which = scores.argmax(0)
    return losses.gather(0, which[None])[0], which""",
}
RESTARTS_ACCEPTED = {
    "one after another": """
    least, which = torch.full((len(images),), torch.inf), torch.zeros(len(images), dtype=torch.int32)
    for s in range(4):
        loss = hand_mixture(model, find_objects(model, images, s), images)[0]
        which = torch.where(loss < least, s, which)
        least = torch.minimum(loss, least)
    return least, which""",
    "lists": "l = tried(images)[0]; return l.amin(0), [column.argmin().item() for column in l.T]",
}

CENTRES = """
def means(output, of):
    masks = output.masks.unsqueeze(2)
    return (masks * of).sum((3, 4)) / masks.sum((3, 4))

def where(output):
    line = torch.arange(35.0)
    return means(output, torch.stack(torch.meshgrid(line, line, indexing="ij")))

def labelled(output, same):
    return same.byte().argmax(2).gather(1, output.masks.argmax(1).flatten(1)).view(-1, 35, 35)

def merge(output, colour=0.3, pixels=8):
"""
MERGES_REFUSED = {
    "by colour alone": "c = means(output, output.slot_images); return labelled(output, torch.cdist(c, c) < colour)",
    "by place alone": "p = where(output); return labelled(output, torch.cdist(p, p) < pixels)",
    "either is enough": """
    c, p = means(output, output.slot_images), where(output)
    return labelled(output, (torch.cdist(c, c) < colour) | (torch.cdist(p, p) < pixels))""",
    "means without weights": """
    c, p = output.slot_images.mean((3, 4)), where(output)
    return labelled(output, (torch.cdist(c, c) < colour) & (torch.cdist(p, p) < pixels))""",
    "sums, not means": """
    masks = output.masks.unsqueeze(2)
    c, p = (masks * output.slot_images).sum((3, 4)), where(output)
    return labelled(output, (torch.cdist(c, c) < colour) & (torch.cdist(p, p) < pixels))""",
    "pairs by their number": "return output.masks.argmax(1) // 2",
}
MERGES_ACCEPTED = {
    "slot by slot": """
    c, p = means(output, output.slot_images), where(output)
    winner = output.masks.argmax(1)
    labels = winner.clone()
    for i in range(len(winner)):
        for k in reversed(range(output.masks.shape[1])):
            for j in range(k):
                if (c[i, j] - c[i, k]).norm() < colour and (p[i, j] - p[i, k]).norm() < pixels:
                    labels[i][labels[i] == k] = j
    return labels""",
}

GAPS = """
from itertools import combinations

def could_be_luck(one, other):
    pooled, n = one.tolist() + other.tolist(), len(one)
    mean = lambda some: sum(some) / len(some)
    ways = [set(way) for way in combinations(range(len(pooled)), n)]
    split = lambda way: ([pooled[i] for i in way], [s for i, s in enumerate(pooled) if i not in way])
    gap = lambda way: mean(split(way)[0]) - mean(split(way)[1])
    fact = mean(one.tolist()) - mean(other.tolist())
"""
LUCK_REFUSED = {
    "farther apart, not as far": "return mean([abs(gap(w)) > abs(fact) for w in ways])",
    "one side": "return mean([gap(w) >= fact for w in ways])",
    "the sign, not the size": "return mean([gap(w) >= abs(fact) for w in ways])",
    "sums, not means": """
    total = lambda w: abs(sum(split(w)[0]) - sum(split(w)[1]))
    return mean([total(w) >= abs(sum(one.tolist()) - sum(other.tolist())) for w in ways])""",
    "the way it came counted twice": "return (sum(abs(gap(w)) >= abs(fact) for w in ways) + 1) / (len(ways) + 1)",
    "a t-test": "from scipy.stats import ttest_ind; return ttest_ind(one, other).pvalue",
    "how many, not which share": "return sum(abs(gap(w)) >= abs(fact) for w in ways)",
}
LUCK_ACCEPTED = {
    "≥ as it is written": "return mean([abs(gap(w)) >= abs(fact) for w in ways])",
    "with room for rounding": "return mean([abs(gap(w)) > abs(fact) - 1e-12 for w in ways])",
    "scipy's own": """
    from scipy.stats import permutation_test
    apart = lambda x, y: abs(x.mean() - y.mean())
    return permutation_test((one.numpy(), other.numpy()), apart, alternative="greater").pvalue""",
    "a tensor": "return torch.tensor([abs(gap(w)) >= abs(fact) for w in ways]).double().mean()",
}


def answers(begin, bodies):
    return [pytest.param(begin + "    " + body.strip(), id=name) for name, body in bodies.items()]


@pytest.mark.parametrize(
    "exercise, answer",
    [
        pytest.param(exercise, *each.values, id=each.id)
        for exercise, begin, bodies in (
            ("exercise-1", LOSSES, RESTARTS_REFUSED),
            ("exercise-2", CENTRES, MERGES_REFUSED),
            ("exercise-3", GAPS, LUCK_REFUSED),
        )
        for each in answers(begin, bodies)
    ],
)
def test_what_is_plausibly_wrong_is_refused(chapter, exercise, answer):
    verdict = chapter.verdict(exercise, answer)
    assert refused(verdict), verdict
    assert "NameError" not in verdict, verdict


@pytest.mark.parametrize(
    "exercise, answer",
    [
        pytest.param(exercise, *each.values, id=each.id)
        for exercise, begin, bodies in (
            ("exercise-1", LOSSES, RESTARTS_ACCEPTED),
            ("exercise-2", CENTRES, MERGES_ACCEPTED),
            ("exercise-3", GAPS, LUCK_ACCEPTED),
        )
        for each in answers(begin, bodies)
    ],
)
def test_what_is_right_in_another_form_passes(chapter, exercise, answer):
    verdict = chapter.verdict(exercise, answer)
    assert verdict.strip() and all(line.startswith("✓") for line in verdict.splitlines()), verdict


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_solution_passes_and_the_starter_does_not(chapter, number):
    verdict = chapter.verdict(f"exercise-{number}", chapter.solution(number))
    assert verdict.strip() and all(line.startswith("✓") for line in verdict.splitlines()), verdict
    starter = chapter.verdict(f"exercise-{number}", "")
    assert "not yet" in starter and "it raised" not in starter


@pytest.mark.parametrize(
    "exercise, begin, body, hint",
    [
        ("exercise-1", LOSSES, RESTARTS_REFUSED["one start for all images"], "every image keeps its own"),
        ("exercise-2", CENTRES, MERGES_REFUSED["by colour alone"], "the centres have to agree"),
        ("exercise-2", CENTRES, MERGES_REFUSED["by place alone"], "the colours have to agree"),
        ("exercise-2", CENTRES, MERGES_REFUSED["means without weights"], "weighted by the mask"),
        ("exercise-3", GAPS, LUCK_REFUSED["one side"], "not its sign"),
        ("exercise-3", GAPS, LUCK_REFUSED["farther apart, not as far"], "≥"),
        ("exercise-3", GAPS, LUCK_REFUSED["sums, not means"], "means, not sums"),
    ],
)
def test_the_hint_fits(chapter, exercise, begin, body, hint):
    verdict = chapter.verdict(exercise, begin + "    " + body.strip())
    assert any(hint in line for line in refused(verdict)), verdict
