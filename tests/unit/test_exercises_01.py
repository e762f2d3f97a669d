"""What the checks of chapter 01's exercises let pass, and what they say to the rest."""

import pytest
from exercises import Exercises, refused

NEEDS = ("setup", "imports", "world", *(f"exercise-{number}-check" for number in (1, 2, 3, 4)))


@pytest.fixture(scope="module")
def chapter():
    return Exercises("01_attention", *NEEDS)


# --- 1: a temperature dial ------------------------------------------------------------------------

DIAL = """
def attend_at(queries, keys, values, temperature):
    scores = queries @ keys.mT
    D = keys.shape[-1]
    """


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        pytest.param("return (scores / temperature).softmax(-1) @ values", "scores by √D", id="without-the-root"),
        pytest.param("return (scores / D / temperature).softmax(-1) @ values", "scores by √D", id="by-the-width"),
        pytest.param("return (scores / D**0.5 / temperature).softmax(-2) @ values", "over the keys", id="over-queries"),
        pytest.param("return (scores / D**0.5).softmax(-1) @ values", "the colder, the larger", id="no-dial"),
        pytest.param("return (scores / D**0.5 * temperature).softmax(-1) @ values", "the colder", id="times"),
        pytest.param("return (scores / D**0.5).softmax(-1) / temperature @ values", "the colder", id="weights-divided"),
        pytest.param(
            "e = (scores / D**0.5 / temperature).exp(); return e / e.sum(-1, keepdim=True) @ values",
            ".softmax does not overflow",
            id="overflow",
        ),
    ],
)
def test_a_wrong_dial_is_refused(chapter, answer, hint):
    said = refused(chapter.verdict("exercise-1", DIAL + answer))
    assert said and hint in said[0]


@pytest.mark.parametrize(
    "answer",
    [
        "return F.scaled_dot_product_attention(queries / temperature, keys, values)",
        "s = scores / (D**0.5 * temperature); e = (s - s.amax(1, True)).exp(); return e @ values / e.sum(1, True)",
    ],
)
def test_any_right_dial_passes(chapter, answer):
    assert not refused(chapter.verdict("exercise-1", DIAL + answer))


# --- 2: absent inputs -----------------------------------------------------------------------------

COMPETE = """
def compete(queries, keys, values, present):
    scores = queries @ keys.mT / math.sqrt(keys.shape[-1])
    """
MEAN = "; return w @ values / w.sum(-1, keepdim=True)"


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        pytest.param("w = scores.softmax(-2)" + MEAN, "out of the mean", id="not-masked"),
        pytest.param(
            "w = scores.masked_fill(~present, -torch.inf).softmax(-2)" + MEAN,
            "a column of −∞ is 0/0",
            id="minus-infinity",
        ),
        pytest.param("w = (scores * present).softmax(-2)" + MEAN, "out of the mean", id="scores-masked"),
        pytest.param(
            "w = scores.masked_fill(~present, -1e9).softmax(-2)" + MEAN, "out of the mean", id="large-negative"
        ),
        pytest.param(
            "w = scores.softmax(-2); return (w * present) @ values / w.sum(-1, keepdim=True)",
            "divides by the weights that are left",
            id="divided-by-all",
        ),
        pytest.param("w = scores.softmax(-2) * present; return w @ values", "a mean divides", id="a-sum"),
        pytest.param(
            "w = scores.masked_fill(~present, -torch.inf).softmax(-1)" + MEAN, "the queries compete", id="over-keys"
        ),
    ],
)
def test_absent_inputs_that_leak_are_refused(chapter, answer, hint):
    said = refused(chapter.verdict("exercise-2", COMPETE + answer))
    assert said and hint in said[0]


@pytest.mark.parametrize(
    "answer",
    [
        "return attention.dot_product_attention(queries, keys[present], values[present], 'queries').output",
        "w = scores.softmax(-2).masked_fill(~present, 0) + 1e-12 * present" + MEAN,
        "w = F.normalize(scores.softmax(0) * present, p=1, dim=1); return torch.einsum('kn,nd->kd', w, values)",
    ],
)
def test_absent_inputs_that_do_not_leak_pass(chapter, answer):
    assert not refused(chapter.verdict("exercise-2", COMPETE + answer))


# --- 3: count the clumps --------------------------------------------------------------------------

DIFFERENT = """
def count_different(centres):
    runs, K = centres.shape[:2]
    near = torch.cdist(centres, centres) < 0.1
    """


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        pytest.param(
            "return torch.tensor([len(c.unique(dim=0)) for c in centres])", "two too many", id="exactly-equal"
        ),
        pytest.param(
            "return torch.tensor([len(c.round(decimals=1).unique(dim=0)) for c in centres])",
            "rounding parts neighbours",
            id="rounded",
        ),
        pytest.param("return K - (near.sum((1, 2)) - K) // 2", "two too many", id="minus-the-pairs"),
        pytest.param("return (near.sum(-1) == 1).sum(-1)", "two too many", id="those-alone"),
        pytest.param("return (~near.tril(-1).any(-1)).sum()", "a number for each run", id="over-all-runs"),
        pytest.param("return near.any(-1).sum(-1)", "two too many", id="near-itself"),
    ],
)
def test_a_wrong_count_of_clumps_is_refused(chapter, answer, hint):
    said = refused(chapter.verdict("exercise-3", DIFFERENT + answer))
    assert said and hint in said[0]


@pytest.mark.parametrize(
    "answer",
    [
        "return (1 / near.sum(-1)).sum(-1).round().long()",
        "return torch.tensor([len(row.long().unique(dim=0)) for row in near])",
        "return (~near.triu(1).any(-2)).sum(-1)",
    ],
)
def test_any_right_count_of_clumps_passes(chapter, answer):
    assert not refused(chapter.verdict("exercise-3", DIFFERENT + answer))


# --- 4: the temperature at which everything melts -------------------------------------------------

CRITICAL = "def critical_temperature(data):\n    return "


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        pytest.param("data.var(dim=0).sum()", "equation (1.7)", id="total-variance"),
        pytest.param("torch.linalg.eigvalsh(torch.cov(data.T))[-1].sqrt()", "equation (1.7)", id="a-length"),
        pytest.param("torch.linalg.eigvalsh(torch.cov(data[:40].T))[-1]", "equation (1.7)", id="of-one-clump"),
        pytest.param("data.var(dim=0).max()", "in whatever direction", id="along-an-axis"),
    ],
)
def test_a_wrong_critical_temperature_is_refused(chapter, answer, hint):
    said = refused(chapter.verdict("exercise-4", CRITICAL + answer))
    assert said and hint in said[0] + said[-1]


@pytest.mark.parametrize(
    "answer",
    [
        "np.linalg.eigvalsh(np.cov(data.T.numpy(), bias=True)).max()",
        "torch.linalg.svdvals(data - data.mean(0))[0].square().item() / len(data)",
    ],
)
def test_any_right_critical_temperature_passes(chapter, answer):
    assert not refused(chapter.verdict("exercise-4", CRITICAL + answer))


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_the_solutions_pass_and_the_starters_do_not(chapter, number):
    assert not refused(chapter.verdict(f"exercise-{number}", chapter.solution(number)))
    assert refused(chapter.verdict(f"exercise-{number}", ""))
