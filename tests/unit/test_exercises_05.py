"""Chapter 05: what a reader would plausibly write is refused with a hint that fits, and what is right passes.

Made-up predictions stand in for those of the chapter's models, and a short computation for a training.
"""

from types import SimpleNamespace

import pytest
import torch
from exercises import Exercises, refused

GREEDY = """
def share_of_greedy(costs):
    least = matching.hungarian_loss(costs)
    paid = torch.tensor([greedy(each) for each in costs])
    return {share}
"""
WITH_SCIPY = """
def share_of_greedy(costs):
    worse = 0
    for each in costs.numpy():
        rows, columns = linear_sum_assignment(each)
        worse += greedy(torch.from_numpy(each)) > each[rows, columns].sum() + 1e-6
    return worse / len(costs)
"""


def share(of):
    return GREEDY.format(share=of)


LOWERED = """
def without_duplicates(pred, near=0.75):
    clean = pred.clone()
    double = {double}
    clean[..., -1] = torch.where(double, {lower}, clean[..., -1])
    return clean
"""


def lowered(double="duplicates(pred, threshold=0.0, near=near)", lower="clean[..., -1] * 0.01"):
    return LOWERED.format(double=double, lower=lower)


NEARBY = "(torch.cdist(pred[..., :3] * 6, pred[..., :3] * 6) < near)"
SURER = "(pred[:, None, :, -1] > pred[..., -1, None])"


def of_one_kind(properties):
    kinds = f"torch.stack([pred[..., PROPERTIES[p]].argmax(-1) for p in {properties}], -1)"
    return f"({kinds}[:, :, None] == {kinds}[:, None]).all(-1)"


IN_PLACE = """
def without_duplicates(pred, near=0.75):
    pred[..., -1] *= torch.where(duplicates(pred, threshold=0.0, near=near), 0.01, 1.0)
    return pred
"""
PAIR_BY_PAIR = """
def without_duplicates(pred, near=0.75):
    clean = pred.clone()
    for scene, rows in enumerate(pred):
        for k, row in enumerate(rows):
            for other in rows:
                apart = ((row[:3] - other[:3]) * 6).norm()
                if read_off(row) == read_off(other) and apart < near and other[-1] > row[-1]:
                    clean[scene, k, -1] = 0.01 * row[-1]
    return clean
"""

RESULTS = """
def pairs_in_order(costs):
    return torch.stack([costs[:, k, k] for k in range(costs.shape[1])]).sum(0)

def nearest(costs):
    return costs.amin(1).sum(1) + costs.amin(2).sum(1)

trained = {{
    "hungarian": matching.hungarian_loss,
    "chamfer": {chamfer},
    "in order": {in_order},
}}
results = {{
    name: [train_head({steps}, loss, seed={seed})[1][-1][1] for seed in range({seeds})]
    for name, loss in trained.items()
}}
"""


def trained(chamfer="matching.chamfer_loss", in_order="pairs_in_order", steps=600, seed="seed", seeds=4):
    return RESULTS.format(chamfer=chamfer, in_order=in_order, steps=steps, seed=seed, seeds=seeds)


def train_head(steps, loss, peak=4e-3, seed=0):
    """Stands in for a training: a number that depends on all of it except, as with Adam, on the scale of the loss."""
    random = torch.Generator().manual_seed(seed)
    costs = torch.rand(16, 5, 5, generator=random, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(costs).mean(), costs)
    along = torch.rand(costs.shape, generator=random) * steps / 600
    return torch.nn.Linear(64, 19), [(steps, (gradient * along).sum().item() / gradient.norm().item())]


@pytest.fixture(scope="module")
def exercises():
    chapter = Exercises("05_set_prediction", "setup", "imports", "cost")
    random = torch.Generator().manual_seed(0)
    # A few kinds, so that there are duplicates.
    kinds = torch.rand(3, 19, generator=random)
    pred = kinds[torch.randint(3, (20, 6), generator=random)]
    pred[..., :3] = 0.2 * torch.rand(20, 6, 3, generator=random)
    pred[..., -1] = torch.rand(20, 6, generator=random)
    chapter.names |= {
        "found": SimpleNamespace(properties=pred),
        "true": torch.rand(20, 6, 19, generator=random),
        "by_time": {1: torch.rand(20, 6, 19, generator=random)},
        "train_head": train_head,
        "fresh_slots": torch.zeros(4, 6, 64),
    }
    exec("def read_off(row):\n    return {n: int(row[PROPERTIES[n]].argmax()) for n in CATEGORIES}", chapter.names)
    chapter.run("failures", "checks")
    return chapter


@pytest.mark.parametrize(
    "answer, hint",
    [
        pytest.param("def share_of_greedy(costs):\n    return 0.0", "takes one matrix", id="never"),
        pytest.param("def share_of_greedy(costs):\n    return greedy(costs)", "not what is asked", id="a batch"),
        pytest.param(share("(paid > least + 1e-6).sum().item()"), "a share, from 0 to 1", id="a number of images"),
        pytest.param(share("100 * (paid > least + 1e-6).double().mean()"), "from 0 to 1", id="per cent"),
        pytest.param(share("(paid <= least + 1e-6).double().mean()"), "greed is as good", id="turned around"),
        pytest.param(share("(paid - least).mean()"), "in how many images", id="how much too dear"),
        pytest.param(share("(paid > least).double().mean()"), "rounding", id="no room for rounding"),
    ],
)
def test_a_share_that_is_wrong_is_refused(exercises, answer, hint):
    said = exercises.verdict("exercise-1", answer)
    assert said.startswith("not yet") and hint in said


@pytest.mark.parametrize(
    "answer",
    [
        share("(paid > least + 1e-6).double().mean()"),
        share("float((paid - least > 1e-5).sum()) / len(costs)"),
        WITH_SCIPY,
    ],
    ids=["in one line", "as a quotient", "SciPy"],
)
def test_a_share_that_is_right_passes(exercises, answer):
    assert exercises.verdict("exercise-1", answer).startswith("✓")


@pytest.mark.parametrize(
    "answer, hint",
    [
        pytest.param(lowered("torch.ones_like(pred[..., -1]).bool()"), "the surest of its kind", id="all by 0.01"),
        pytest.param(lowered("duplicates(pred, near=near)"), "an unsure one", id="sure ones only"),
        pytest.param(lowered(lower="0.0"), "0 is dropping it", id="zero"),
        pytest.param(lowered("duplicates(pred, threshold=0.0)"), "`near` is an argument", id="always 0.75 m"),
        pytest.param(
            lowered(f"({NEARBY} & {of_one_kind('CATEGORIES')} & ({SURER} | {SURER}.mT)).any(2)"),
            "the surest of its kind",
            id="both of a pair",
        ),
        pytest.param(
            lowered(f"({of_one_kind('CATEGORIES')} & {SURER}).any(2)"), "three metres apart", id="wherever they are"
        ),
        pytest.param(
            lowered(f"({NEARBY} & {of_one_kind(['shape'])} & {SURER}).any(2)"),
            "all four attributes",
            id="by shape alone",
        ),
        pytest.param(IN_PLACE, "work on a copy", id="in place"),
        pytest.param("def without_duplicates(pred, near=0.75):\n    return None", "not what is asked", id="nothing"),
    ],
)
def test_duplicates_taken_back_wrongly_are_refused(exercises, answer, hint):
    said = exercises.verdict("exercise-2", answer)
    assert any(hint in line for line in refused(said)), said


@pytest.mark.parametrize(
    "answer",
    [lowered(), PAIR_BY_PAIR, lowered(f"({NEARBY} & {of_one_kind('CATEGORIES')} & {SURER}).any(2)")],
    ids=["with duplicates", "pair by pair", "without duplicates"],
)
def test_duplicates_taken_back_rightly_pass(exercises, answer):
    assert "not yet" not in exercises.verdict("exercise-2", answer)


@pytest.mark.parametrize(
    "answer, hint",
    [
        pytest.param(
            "results = {'hungarian': [.9] * 4, 'chamfer': [.8] * 4, 'in order': [.1] * 4}",
            "four times the same",
            id="made up, all the same",
        ),
        pytest.param(
            trained() + "\nresults['hungarian'] = [0.55, 0.54, 0.53, 0.51]",
            "hungarian came out otherwise",
            id="made up",
        ),
        pytest.param(trained(seed=0), "give train_head the seed", id="no seed"),
        pytest.param(trained(seeds=3), "seeds 0 to 3", id="three seeds"),
        pytest.param(trained(chamfer="lambda costs: costs.amin(2).sum(1)"), "chamfer came out", id="half of Chamfer"),
        pytest.param(trained(in_order="lambda costs: costs.sum((1, 2))"), "slot k with row k", id="all pairs"),
        pytest.param(trained(in_order="matching.hungarian_loss"), "slot k with row k", id="matched after all"),
        pytest.param(trained(steps=100), "came out otherwise", id="fewer steps"),
    ],
)
def test_losses_that_were_not_trained_so_are_refused(exercises, answer, hint):
    said = exercises.verdict("exercise-3", answer)
    assert said.startswith("not yet") and hint in said


@pytest.mark.parametrize(
    "answer",
    [trained(), trained(chamfer="nearest"), trained(in_order="lambda costs: costs.diagonal(0, 1, 2).mean(1)")],
    ids=["library", "own Chamfer, twice as large", "a mean over pairs"],
)
def test_losses_that_were_trained_so_pass(exercises, answer):
    assert exercises.verdict("exercise-3", answer).startswith("✓")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_shipped_solution_passes(exercises, number):
    answer = exercises.solution(number).partition("\nprint(")[0]  # the rest is about the chapter's trainings
    assert "not yet" not in exercises.verdict(f"exercise-{number}", answer)
