"""Sets have no order: neither the model, nor the loss, nor the score may notice one."""

import dataclasses
import functools
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slotlib import cli, data, metrics, training, zoo
from slotlib.autoencoder import AutoencoderConfig, SlotAutoencoder
from slotlib.data import clevr
from slotlib.data.clevr_folder import clevr_targets
from slotlib.set_prediction import (
    SetPredictor,
    SetPredictorConfig,
    chamfer_loss,
    hungarian,
    hungarian_loss,
    pairwise_huber,
    sinkhorn_loss,
)
from slotlib.training import Config, DataConfig, TrainConfig

SMALL = SetPredictorConfig(
    resolution=16, encoder="strided", encoder_channels=8, slot_dim=16, num_slots=4, mlp_hidden_dim=16
)
SCENES = DataConfig(name="clevr", size=8, keep=True, options={"num_objects": [2, 3], "resolution": 16})
SHORT = TrainConfig(
    steps=8,
    batch_size=4,
    lr=2e-3,
    warmup_steps=2,
    decay="cosine",
    eval_every=4,
    eval_images=8,
    log_every=1,
    save_every=2,
)
KINDS = "slot_attention", "slot_mlp", "learned_queries"
close = torch.testing.assert_close


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sets(batch, count, real, seed=0):
    """Targets: `real` random objects each, and padding."""
    source = generator(seed)
    target = torch.rand(batch, count, 19, generator=source)
    target[..., 18] = (torch.arange(count) < real).float()
    return target * target[..., 18:]


def costs(rows, columns):
    """Few different values, so that ties happen."""
    return st.lists(st.integers(0, 9), min_size=rows * columns, max_size=rows * columns).map(
        lambda values: torch.tensor(values, dtype=torch.float64).view(1, rows, columns) / 7
    )


def brute_force(cost):
    """The least total over all pairings, tried one by one."""
    rows, columns = cost.shape
    if rows > columns:
        return brute_force(cost.T)
    return min(
        sum(cost[i, j].item() for i, j in enumerate(chosen)) for chosen in itertools.permutations(range(columns), rows)
    )


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(1, 5), st.integers(1, 5)).flatmap(lambda sides: costs(*sides)))
def test_no_pairing_is_cheaper(cost):
    rows, columns = hungarian(cost)
    pairs = min(cost.shape[1:])
    assert rows.shape == columns.shape == (1, pairs)
    assert len(set(rows[0].tolist())) == len(set(columns[0].tolist())) == pairs
    assert hungarian_loss(cost).item() == pytest.approx(brute_force(cost[0]), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(costs(3, 5), st.lists(st.booleans(), min_size=5, max_size=5))
def test_real_objects_come_first_and_among_them_no_pairing_is_cheaper(cost, real):
    real = torch.tensor([real])
    _, columns = hungarian(cost, real)
    assert real[0, columns[0]].sum() == min(3, real.sum())
    chosen = real[0].nonzero().squeeze(1).tolist()
    padding = (~real[0]).nonzero().squeeze(1).tolist()
    best = min(
        sum(cost[0, i, j].item() for i, j in enumerate(order))
        for k in [min(3, len(chosen))]
        for some in itertools.combinations(chosen, k)
        for rest in itertools.combinations(padding, 3 - k)
        for order in itertools.permutations(some + rest)
    )
    assert hungarian_loss(cost, real).item() == pytest.approx(best, abs=1e-9)


def test_every_image_is_paired_on_its_own():
    cost = torch.rand(9, 6, 4, generator=generator())
    together = hungarian(cost)
    for i in range(9):
        close([part[i : i + 1] for part in together], list(hungarian(cost[i : i + 1])))
    assert hungarian(cost[:0])[0].shape == (0, 4)


def test_padding_matters_only_where_predictions_run_out():
    cost, real = torch.rand(5, 6, 6, generator=generator()), torch.arange(6).expand(5, 6) < 3
    close(hungarian(cost, real), hungarian(cost))
    # Two predictions that would rather describe nothing must still describe the two objects.
    target = sets(1, 5, real=2)
    pred = torch.zeros(1, 2, 19)
    assert hungarian(pairwise_huber(pred, target))[1].tolist() != [[0, 1]]
    assert sorted(hungarian(pairwise_huber(pred, target), target[..., -1] > 0)[1][0].tolist()) == [0, 1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_costs_that_are_not_finite_are_refused(bad):
    cost = torch.rand(2, 3, 3)
    cost[1, 2, 0] = bad
    with pytest.raises(ValueError, match="cost must be finite"):
        hungarian(cost)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"cost must be \[batch, predictions, objects\], got \[3, 3\]"):
        hungarian(torch.rand(3, 3))
    with pytest.raises(ValueError, match=r"real must be \[batch, objects\] = \[2, 3\], got \[2, 4\]"):
        hungarian(torch.rand(2, 4, 3), torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="pred and target must be"):
        pairwise_huber(torch.rand(2, 4, 19), torch.rand(2, 4, 18))
    with pytest.raises(ValueError, match="temperature must be above 0"):
        sinkhorn_loss(torch.rand(1, 2, 2), temperature=0)


def test_huber_is_the_official_one():
    """Half the square up to a difference of 1, then linear; averaged over the values (tf.losses.Huber)."""
    pred, target = torch.tensor([[[0.5, 3.0]]]), torch.tensor([[[0.0, 0.0], [0.5, 1.0]]])
    close(pairwise_huber(pred, target), torch.tensor([[[(0.125 + 2.5) / 2, (0 + 1.5) / 2]]]))


LOSSES = {"hungarian": hungarian_loss, "chamfer": chamfer_loss, "sinkhorn": sinkhorn_loss}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("shape", [(5, 5), (3, 5), (6, 4)])
def test_no_loss_sees_an_order(loss, shape):
    cost = torch.rand(3, *shape, dtype=torch.float64, generator=generator()) / 10
    rows, columns = (torch.randperm(side, generator=generator(1)) for side in shape)
    close(loss(cost[:, rows][:, :, columns]), loss(cost))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_gradients_agree_with_finite_differences(loss):
    pred = torch.rand(2, 4, 19, dtype=torch.float64, generator=generator(), requires_grad=True)
    target = sets(2, 5, real=3).double()
    assert torch.autograd.gradcheck(lambda p: loss(pairwise_huber(p, target)), (pred,))


@pytest.mark.parametrize("shape", [(5, 5), (3, 5), (6, 4)])
def test_a_cold_sinkhorn_is_hungarian(shape):
    cost = torch.rand(20, *shape, dtype=torch.float64, generator=generator())
    exact = hungarian_loss(cost)
    gaps = [(sinkhorn_loss(cost, t, iterations=3000) - exact).abs().max() for t in (0.3, 0.03, 0.001)]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-3


def test_a_hot_sinkhorn_pairs_all_with_all():
    cost = torch.rand(4, 5, 5, generator=generator())
    close(sinkhorn_loss(cost, temperature=1e4), cost.mean((1, 2)) * 5, rtol=1e-3, atol=0)


def test_chamfer_cannot_count():
    """Two predictions on one object, nothing on its twin: free for chamfer, not for the others."""
    target = sets(1, 2, real=2)
    target[0, 1] = target[0, 0]
    pred = torch.cat([target[:, :1]] * 3, dim=1)
    empty = torch.zeros(1, 1, 19)
    cost = pairwise_huber(pred, torch.cat([target, empty], dim=1))
    assert chamfer_loss(cost) <= hungarian_loss(cost) / 2 + 1e-7
    assert hungarian_loss(cost) > 0.01
    random = torch.rand(50, 6, 6, generator=generator())
    assert (chamfer_loss(random) <= hungarian_loss(random) + 1e-6).all()


def test_a_perfect_prediction_costs_nothing_in_any_order():
    target = sets(3, 6, real=4)
    cost = pairwise_huber(target[:, torch.randperm(6, generator=generator())], target)
    close(hungarian_loss(cost), torch.zeros(3))
    close(chamfer_loss(cost), torch.zeros(3))
    assert (sinkhorn_loss(cost, temperature=1e-4) < 1e-3).all()


# --- the model ---


def images(count=3, side=16):
    return torch.rand(count, 3, side, side, generator=generator())


def model(**changes):
    torch.manual_seed(0)
    return SetPredictor(dataclasses.replace(SMALL, **changes)).eval()


def test_permuted_slots_give_permuted_predictions_and_the_same_loss_and_score():
    predictor, target = model(), sets(3, 4, real=3)
    start = predictor.slot_attention.initial_slots(3, generator=generator())
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        one, other = predictor(images(), slots=start), predictor(images(), slots=start[:, order])
    for a, b in zip(one, other, strict=True):
        close(a[:, order], b)
    close(*(hungarian_loss(pairwise_huber(each.properties, target)) for each in (one, other)))
    for threshold in metrics.THRESHOLDS:
        assert metrics.average_precision(one.properties, target, threshold) == pytest.approx(
            metrics.average_precision(other.properties, target, threshold)
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", LOSSES)
def test_permuted_targets_are_the_same_targets(kind, loss):
    predictor, target = model(kind=kind, loss=loss), sets(3, 4, real=3)
    order = torch.tensor([3, 1, 0, 2])
    close(*(predictor.loss(images(), each, generator()) for each in (target, target[:, order])))


@pytest.mark.parametrize("rows", [3, 4])
def test_padding_rows_up_to_the_number_of_slots_change_nothing(rows):
    predictor, target = model(), sets(3, 3, real=3)
    padded = torch.nn.functional.pad(target, (0, 0, 0, rows - 3))
    close(predictor.loss(images(), padded, generator()), predictor.loss(images(), target, generator()))


def test_every_supervised_iteration_is_scored():
    """By hand: iterate, score, forget how the slots came about, iterate."""
    config = dataclasses.replace(SMALL, num_iterations=4, supervised_iterations=3, gradient="implicit")
    torch.manual_seed(0)
    model = SetPredictor(config)
    images, target = torch.rand(2, 3, 16, 16, generator=generator()), sets(2, 4, 3)
    start = model.slot_attention.initial_slots(2, generator=generator(1))
    real = target[..., 18] > 0
    losses = []
    for iterations in (2, 3, 4):
        pred = model(images, num_iterations=iterations, slots=start).properties
        losses.append(hungarian_loss(pairwise_huber(pred, target), real).mean())
    sum(losses).div(3).backward()
    expected = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    model.zero_grad()
    loss = model.loss(images, target, generator(1))
    loss.backward()
    close(loss, sum(losses) / 3)
    close([weight.grad for weight in model.parameters() if weight.grad is not None], expected)


def test_coordinates_count_by_their_scale():
    target = sets(3, 4, real=3)
    plain, blind = (model(coordinate_scale=scale).loss(images(), target, generator()) for scale in (1.0, 1e-6))
    pred = model()(images(), generator=generator()).properties
    attributes = hungarian_loss(pairwise_huber(pred[..., 3:], target[..., 3:])).mean() * 16 / 19
    close(blind, attributes)
    assert plain > blind


def test_the_papers_model_has_its_shapes_and_its_padding():
    predictor = SetPredictor(SetPredictorConfig())
    assert predictor.encode(torch.zeros(1, 3, 128, 128)).shape == (1, 32, 32, 64)
    # As in Keras: four convolutions, positions, LayerNorm and MLP; slot attention; 64 → 64 → 19.
    encoder = (3 * 25 + 1) * 64 + 3 * (64 * 25 + 1) * 64 + 5 * 64 + 2 * 64 + 2 * 65 * 64
    slots = 2 * 64 + 3 * 64**2 + (2 * 64 * 192 + 2 * 192) + (65 * 128 + 129 * 64) + 3 * 2 * 64
    assert sum(p.numel() for p in predictor.parameters()) == encoder + slots + 65 * 64 + 65 * 19
    # SAME with stride 2 on an even side: output 0 sees inputs 0 to 3 (one row of padding before), the last one the
    # last three (two after).
    strided = predictor.encoder.convolutions[2]
    torch.nn.init.ones_(strided[1].weight)
    torch.nn.init.zeros_(strided[1].bias)
    rows = strided(torch.ones(1, 64, 16, 16))[0, 0, :, 4] / (64 * 5)
    close(rows, torch.tensor([4.0, 5, 5, 5, 5, 5, 5, 3]))


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_probabilities_and_attention_is_shared_out(kind):
    output = model(kind=kind)(images(), generator=generator())
    assert output.properties.shape == (3, 4, 19)
    assert ((output.properties > 0) & (output.properties < 1)).all()
    if kind == "slot_mlp":
        assert output.attention is None
    else:
        over = 1 if kind == "slot_attention" else (2, 3)  # slots compete; queries do not
        total = output.attention.sum(over)
        close(total, torch.ones_like(total))


def test_the_number_of_slots_is_free_for_slot_attention_only():
    assert model()(images(), num_slots=7, num_iterations=1).properties.shape == (3, 7, 19)
    for kind in ("slot_mlp", "learned_queries"):
        with pytest.raises(ValueError, match=f"slots and iterations of kind='{kind}' are fixed"):
            model(kind=kind)(images(), num_slots=7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "magic"}, "kind must be one of"),
        ({"loss": "magic"}, "loss must be one of"),
        ({"encoder": "magic"}, "encoder must be one of"),
        ({"num_slots": 0}, "num_slots must be at least 1, got 0"),
        ({"kind": "learned_queries", "num_heads": 3}, "num_heads must divide slot_dim=16, got 3"),
        ({"coordinate_scale": 0.0}, "coordinate_scale must be above 0"),
        ({"supervised_iterations": 4}, "between 1 and num_iterations=3, got 4"),
        ({"kind": "slot_mlp", "supervised_iterations": 2}, "needs kind=\"slot_attention\", got 'slot_mlp'"),
        ({"encoder": "paper", "resolution": 18}, "resolution divisible by 4, got 18"),
    ],
)
def test_a_configuration_that_cannot_be_built_names_the_field(change, message):
    with pytest.raises(ValueError, match=message):
        model(**change)


def test_other_images_are_refused():
    with pytest.raises(ValueError, match=r"images must be floating point \[batch, 3, 16, 16\]"):
        model()(images(side=8))
    with pytest.raises(ValueError, match="images must be finite"):
        model()(images() * math.nan)


@pytest.mark.parametrize("shares", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_the_shares_of_a_batch_have_the_loss_of_the_whole(kind, shares):
    predictor = model(kind=kind).double()
    pictures, target = images(8).double(), sets(8, 4, real=2).double()
    whole = predictor.loss(pictures, target, generator())
    parts = [predictor.loss(pictures[i::shares], target[i::shares], generator(), (i, shares)) for i in range(shares)]
    close(sum(parts) / shares, whole, rtol=1e-12, atol=0)


# --- training ---


def train(folder, model=SMALL, scenes=SCENES, **changes):
    config = Config(model=model, data=scenes, train=dataclasses.replace(SHORT, accelerator="cpu", **changes))
    return training.train(config, folder, progress=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return train(folder), folder


def same(one, other):
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_a_run_is_the_loop_written_by_hand(trained):
    torch.manual_seed(0)
    by_hand = SetPredictor(SMALL)
    optimizer = torch.optim.Adam(by_hand.parameters())
    scenes = data.make("clevr", 8, seed=1, **SCENES.options).batch(range(8))
    target = clevr_targets(scenes["objects"])
    order = training.scene_order(8, 4, 0, 0, 0, 1)
    for step in range(SHORT.steps):
        optimizer.param_groups[0]["lr"] = training.learning_rate(step, SHORT)
        index = next(order)
        optimizer.zero_grad()
        by_hand.loss(scenes["image"][index], target[index], training.step_generator(0, step)).backward()
        optimizer.step()
    assert same(trained[0], by_hand)


def test_an_interrupted_run_ends_bit_for_bit_like_one_that_was_not(trained, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "evaluate", interrupted)  # at step 4; saved at step 2
        train(tmp_path)
    assert same(train(tmp_path), trained[0])


def test_a_compiled_loss_takes_the_same_steps(trained, tmp_path, monkeypatch):
    # Traced as ever, but without the minutes that generating code takes.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    train(tmp_path, compile=True)
    losses = [training.read_log(folder)["loss"] for folder in (tmp_path, trained[1])]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_scenes_kept_drawn_and_brought_by_workers_are_the_same(trained, tmp_path):
    drawn = train(tmp_path / "drawn", scenes=dataclasses.replace(SCENES, keep=False))
    brought = train(tmp_path / "brought", scenes=dataclasses.replace(SCENES, keep=False), workers=1)
    assert same(drawn, trained[0]) and same(brought, trained[0])


@pytest.mark.parametrize("keep", [True, False])
def test_scenes_of_another_kind_are_refused(tmp_path, keep):
    with pytest.raises(ValueError, match="needs scenes like CLEVR's; these do not tell: material, position, size"):
        train(tmp_path, scenes=DataConfig("tetrominoes", 8, keep))


def test_a_run_leaves_its_card_and_its_log(trained):
    predictor, folder = trained
    again = zoo.load(folder / "model")
    assert same(again, predictor) and again.config == SMALL
    (measured,) = again.card["metrics"]
    assert list(measured)[:5] == ["ap_inf", "ap_1", "ap_0_5", "ap_0_25", "ap_0_125"]
    scores = training.evaluate(again, data.make("clevr", 8, seed=2, **SCENES.options), 8)
    assert measured["ap_inf"] == pytest.approx(scores.ap_inf, abs=1e-5)
    log = training.read_log(folder)
    assert log["ap_inf"][-1] == pytest.approx(scores.ap_inf, abs=1e-5)
    assert list((folder / "tensorboard").glob("events*"))


@pytest.mark.parametrize("kind", KINDS)
def test_eight_scenes_are_learned_by_heart(kind):
    scenes = data.make("clevr", 8, seed=1, num_objects=2, resolution=16).batch(range(8))
    target = clevr_targets(scenes["objects"])
    small = SetPredictorConfig(kind, 16, "strided", encoder_channels=16, num_slots=3, slot_init="learned")
    reached = 0.0
    for seed in range(4):  # now and then a run gets stuck with its sigmoids saturated
        torch.manual_seed(seed)
        predictor = SetPredictor(small)
        optimizer = torch.optim.Adam(predictor.parameters(), lr=1e-3)
        for step in range(300):
            optimizer.zero_grad()
            predictor.loss(scenes["image"], target).backward()
            torch.nn.utils.clip_grad_norm_(predictor.parameters(), 1.0)
            optimizer.step()
            if step % 50 == 49:
                reached = max(reached, metrics.average_precision(predictor(scenes["image"]).properties, target))
                if reached == 1:
                    return
    raise AssertionError(f"AP {reached} at best")


def test_a_run_starts_with_the_weights_of_another_model(trained, tmp_path):
    known = dict(steps=1, lr=0.0, start_from=str(trained[1] / "model"))
    assert same(train(tmp_path / "same", **known), trained[0])
    other = train(tmp_path / "other", dataclasses.replace(SMALL, kind="learned_queries"), **known)
    assert same(other.encoder, trained[0].encoder) and same(other.head, trained[0].head)
    torch.manual_seed(0)
    fresh = SetPredictor(SMALL)
    part = train(tmp_path / "part", **known, start_parts=["head"])
    assert same(part.head, trained[0].head) and same(part.encoder, fresh.encoder)
    with pytest.raises(ValueError, match=r"no weight of .* that begins with decoder or magic fits a SetPredictor"):
        train(tmp_path / "no part", **known, start_parts=["decoder", "magic"])
    autoencoder = AutoencoderConfig(
        encoder="strided", encoder_channels=8, slot_dim=16, mlp_hidden_dim=16, decoder="separable", decoder_channels=8
    )
    torch.manual_seed(1)
    zoo.save(SlotAutoencoder(autoencoder), tmp_path / "found", {})
    started = train(tmp_path / "slots", steps=1, lr=0.0, start_from=str(tmp_path / "found"))
    found = zoo.load(tmp_path / "found")
    assert same(started.encoder, found.encoder) and same(started.slot_attention, found.slot_attention)
    with pytest.raises(ValueError, match="no weight of tetrominoes fits a SetPredictor of this size"):
        train(tmp_path / "none", dataclasses.replace(SMALL, encoder_channels=4, slot_dim=8), start_from="tetrominoes")


# --- the command line ---


def test_the_file_says_which_model_and_flags_still_count():
    fast = cli.read_config("clevr10_sets")
    assert isinstance(fast.model, SetPredictorConfig)
    assert cli.read_config("clevr10_sets", "--model.num_slots", "5").model == dataclasses.replace(
        fast.model, num_slots=5
    )
    with pytest.raises(SystemExit):
        cli.read_config("clevr10_sets", "--model.decoder=broadcast")  # an autoencoder's


def test_mistakes_about_the_model_are_named(tmp_path, capsys):
    (tmp_path / "broken.yaml").write_text("model: [")
    (tmp_path / "other.yaml").write_text("model_class: SetPredictor\nmodel: {kind: magic}")
    for mistake, message in (
        ([f"--config={tmp_path / 'broken.yaml'}"], "while parsing"),
        ([f"--config={tmp_path / 'other.yaml'}"], "magic"),
        (["--model_class=Magic"], "model_class"),
        (["--config"], "config"),
    ):
        with pytest.raises(SystemExit):
            cli.main(["train", "--folder=unused", *mistake])
        assert message in capsys.readouterr().err


def test_evaluate_scores_sets_on_other_scenes(trained, capsys):
    asked = ["evaluate", str(trained[1] / "model"), "--images=8", "--num_objects=3", "--num_slots=6"]
    cli.main(asked)
    scores = json.loads(capsys.readouterr().out)
    scenes = data.make("clevr", 8, seed=0, num_objects=3, resolution=16)
    expected = training.evaluate(trained[0], scenes, 8, num_slots=6).means()
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    with pytest.raises(SystemExit, match="restarts"):
        cli.main([*asked, "--restarts=2"])  # there is no picture to choose by


def test_the_papers_recipe_is_the_dataclass_default():
    paper = cli.read_config("clevr10_sets_paper")
    assert paper.model == SetPredictorConfig()
    assert (paper.train.batch_size, paper.train.steps, paper.train.lr) == (512, 150_000, 4e-4)
    assert (paper.train.warmup_steps, paper.train.halving_steps) == (1000, 50_000)


def test_pictures_of_clevr_itself_are_scored():
    folder = Path(__file__).parents[3] / "shared" / "data" / "clevr_sample"
    if not folder.exists():
        pytest.skip(f"needs pictures of CLEVR at {folder}, which are not part of the project")
    scenes = data.read(folder, crop=clevr.CROP, resolution=(16, 16))
    scores = training.evaluate(model(), scenes)
    assert all(0 <= score <= 1 for score in scores)
