"""Sets have no order: neither the model nor its score may notice one."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from slotlib import cli, data, metrics, training, zoo
from slotlib.autoencoder import AutoencoderConfig, SlotAutoencoder
from slotlib.data import clevr
from slotlib.data.targets import clevr_targets
from slotlib.decoders import Separable
from slotlib.encoders import Paper, Strided
from slotlib.evaluation import evaluate
from slotlib.log import read_log
from slotlib.matching import hungarian_loss, pairwise_huber
from slotlib.model import Draws
from slotlib.set_prediction import LearnedQueries, SetPredictor, SetPredictorConfig, SlotMLP
from slotlib.slot_attention import AttentionConfig
from slotlib.training import Config, DataConfig, TrainConfig

ATTENTION = AttentionConfig(slot_dim=16, num_slots=4, mlp_hidden_dim=16)
SMALL = SetPredictorConfig(resolution=16, encoder=Strided(8), attention=ATTENTION)
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
    accelerator="cpu",
)
KINDS = "slot_attention", "slot_mlp", "learned_queries"
close = torch.testing.assert_close


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(seed=0):
    return Draws(generator(seed))


def sets(batch, count, real, seed=0):
    """Targets: `real` random objects each, and padding."""
    source = generator(seed)
    target = torch.rand(batch, count, 19, generator=source)
    target[..., 18] = (torch.arange(count) < real).float()
    return target * target[..., 18:]


def images(count=3, side=16):
    return torch.rand(count, 3, side, side, generator=generator())


def model(attention=None, **changes):
    torch.manual_seed(0)
    attention = dataclasses.replace(ATTENTION, **(attention or {}))
    return SetPredictor(dataclasses.replace(SMALL, attention=attention, **changes)).eval()


# --- the model ---


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
@pytest.mark.parametrize("loss", ["hungarian", "chamfer", "sinkhorn"])
def test_permuted_targets_are_the_same_targets(kind, loss):
    predictor, target = model(kind=kind, loss=loss), sets(3, 4, real=3)
    order = torch.tensor([3, 1, 0, 2])
    close(*(predictor.loss(images(), each, draws()) for each in (target, target[:, order])))


@pytest.mark.parametrize("rows", [3, 4])
def test_padding_rows_up_to_the_number_of_slots_change_nothing(rows):
    predictor, target = model(), sets(3, 3, real=3)
    padded = torch.nn.functional.pad(target, (0, 0, 0, rows - 3))
    close(predictor.loss(images(), padded, draws()), predictor.loss(images(), target, draws()))


def test_every_supervised_iteration_is_scored():
    """By hand: iterate, score, forget how the slots came about, iterate."""
    attention = dataclasses.replace(ATTENTION, num_iterations=4, gradient="implicit")
    config = dataclasses.replace(SMALL, attention=attention, supervised_iterations=3)
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
    loss = model.loss(images, target, draws(1))
    loss.backward()
    close(loss, sum(losses) / 3)
    close([weight.grad for weight in model.parameters() if weight.grad is not None], expected)


def test_coordinates_count_by_their_scale():
    target = sets(3, 4, real=3)
    plain, blind = (model(coordinate_scale=scale).loss(images(), target, draws()) for scale in (1.0, 1e-6))
    pred = model()(images(), generator=generator()).properties
    attributes = hungarian_loss(pairwise_huber(pred[..., 3:], target[..., 3:])).mean() * 16 / 19
    close(blind, attributes)
    assert plain > blind


def test_the_papers_model_has_its_shapes():
    predictor = SetPredictor(SetPredictorConfig())
    assert predictor.encode(torch.zeros(1, 3, 128, 128)).shape == (1, 32, 32, 64)
    # As in Keras: four convolutions, positions, LayerNorm and MLP; slot attention; 64 → 64 → 19.
    encoder = (3 * 25 + 1) * 64 + 3 * (64 * 25 + 1) * 64 + 5 * 64 + 2 * 64 + 2 * 65 * 64
    slots = 2 * 64 + 3 * 64**2 + (2 * 64 * 192 + 2 * 192) + (65 * 128 + 129 * 64) + 3 * 2 * 64
    assert sum(p.numel() for p in predictor.parameters()) == encoder + slots + 65 * 64 + 65 * 19


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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_says_nearly_the_same(kind, dtype):
    predictor = model(kind=kind)
    single = predictor(images(), generator=generator()).properties
    half = predictor.to(dtype)(images().to(dtype), generator=generator()).properties
    assert (half - single).abs().mean() < 0.03


@pytest.mark.parametrize("shares", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_the_shares_of_a_batch_have_the_loss_of_the_whole(kind, shares):
    predictor = model(kind=kind).double()
    pictures, target = images(8).double(), sets(8, 4, real=2).double()
    whole = predictor.loss(pictures, target, draws())
    parts = [
        predictor.loss(pictures[i::shares], target[i::shares], Draws(generator(), i, shares)) for i in range(shares)
    ]
    close(sum(parts) / shares, whole, rtol=1e-12, atol=0)


def test_gradients_of_single_scenes_add_up_to_the_batch_s():
    predictor, target = model(kind="slot_mlp"), sets(3, 4, real=3)
    weights = dict(predictor.named_parameters())

    def loss(weights, image, target):
        inputs = image.unsqueeze(0), target.unsqueeze(0)
        named = {f"model.{name}": weight for name, weight in weights.items()}
        return torch.func.functional_call(Loss(predictor), named, inputs)

    alone = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, images(), target)
    predictor.loss(images(), target).backward()
    for name, weight in weights.items():
        close(alone[name].mean(0), weight.grad, rtol=1e-3, atol=1e-6)


class Loss(torch.nn.Module):
    """A model's loss as what a call returns."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *inputs):
        return self.model.loss(*inputs)


# --- bad input ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "magic"}, "kind must be 'slot_attention' or 'slot_mlp' or 'learned_queries', got 'magic'"),
        ({"loss": "magic"}, "loss must be 'hungarian' or 'chamfer' or 'sinkhorn', got 'magic'"),
        ({"encoder": "magic"}, "encoder must be of kind EncoderConfig, got 'magic'"),
        ({"attention": {"num_slots": 0}}, "num_slots must be a whole number, at least 1, got 0"),
        ({"attention": {"num_slots": 0}, "kind": "slot_mlp"}, "num_slots must be a whole number, at least 1, got 0"),
        ({"attention": {"num_heads": 3}, "kind": "learned_queries"}, "num_heads must divide dim, got dim=16"),
        ({"attention": {"slot_dim": 0}}, "slot_dim must be a whole number, at least 1, got 0"),
        ({"resolution": 0}, "resolution must be a whole number, at least 1, got 0"),
        ({"coordinate_scale": 0.0}, "coordinate_scale must be a finite number, above 0"),
        ({"coordinate_scale": "1"}, "coordinate_scale must be float, got '1'"),
        ({"supervised_iterations": 4}, "supervised_iterations must be at most num_iterations=3, got 4"),
        ({"supervised_iterations": 0}, "supervised_iterations must be a whole number, at least 1, got 0"),
        ({"kind": "slot_mlp", "supervised_iterations": 2}, "needs kind=\"slot_attention\", got 'slot_mlp'"),
        ({"encoder": Paper(stride=2), "resolution": 18}, "resolution divisible by 4, got 18"),
    ],
)
def test_a_configuration_that_cannot_be_built_names_the_field(change, message):
    with pytest.raises(ValueError, match=message):
        model(**change)


@pytest.mark.parametrize("kind", KINDS)
def test_other_images_and_targets_are_refused(kind):
    predictor, target = model(kind=kind), sets(3, 4, real=3)
    for wrong, message in (
        (images(side=8), r"images must be floating point \[batch, 3, 16, 16\]"),
        (images() * math.nan, "images must be finite"),
        (images() * 255, r"images must lie in \[0, 1\]"),
        (images(0), "images must be at least one"),
    ):
        with pytest.raises(ValueError, match=message):
            predictor(wrong)
        with pytest.raises(ValueError, match=message):
            predictor.loss(wrong, target[: len(wrong)])
    for wrong in (None, target[..., :18], target.long(), target.numpy(), target[0]):
        with pytest.raises(ValueError, match=r"target must be floating point \[batch, objects, 19\], got"):
            predictor.loss(images(), wrong)
    with pytest.raises(ValueError, match="pred and target must be"):
        predictor.loss(images(), target[:2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SlotMLP(0, 3), "dim must be a whole number"),
        (lambda: SlotMLP(8, 2.5), "num_slots must be a whole number"),
        (lambda: LearnedQueries(8, 3, 0, 1, 8), "num_layers must be a whole number"),
        (lambda: LearnedQueries(8, 3, 1, 1, None), "mlp_hidden_dim must be a whole number"),
    ],
)
def test_baselines_refuse_what_is_no_size(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- training ---


def train(folder, model=SMALL, scenes=SCENES, **changes):
    config = Config(model=model, data=scenes, train=dataclasses.replace(SHORT, **changes))
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
        by_hand.loss(scenes["image"][index], target[index], Draws(training.step_generator(0, step))).backward()
        optimizer.step()
    assert same(trained[0], by_hand)


def test_an_interrupted_run_ends_bit_for_bit_like_one_that_was_not(trained, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "evaluate", interrupted)  # at step 4; saved at step 2
        train(tmp_path)
    assert same(train(tmp_path), trained[0])


def compare_compiled() -> None:
    """For test_compiled.py: a compiled loss has the same gradient."""
    # Traced as ever, but without the minutes that generating code takes, and with a single iteration.
    ours, theirs, target = (*(model({"num_iterations": 1}) for _ in range(2)), sets(3, 4, real=3))
    ours.loss(images(), target, draws()).backward()
    torch.compile(theirs.loss, backend="eager")(images(), target, draws()).backward()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_scenes_kept_and_drawn_are_the_same(trained, tmp_path):
    assert same(train(tmp_path, scenes=dataclasses.replace(SCENES, keep=False)), trained[0])


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
    scores = evaluate(again, data.make("clevr", 8, seed=2, **SCENES.options), 8).means
    assert measured["ap_inf"] == pytest.approx(scores["ap_inf"], abs=1e-5)
    log = read_log(folder)
    assert log["ap_inf"][-1] == pytest.approx(scores["ap_inf"], abs=1e-5)
    assert list((folder / "tensorboard").glob("events*"))


@pytest.mark.parametrize("kind", KINDS)
def test_eight_scenes_are_learned_by_heart(kind, monkeypatch):
    monkeypatch.setattr(SlotMLP, "SIDE", 4)  # of so small images there is no more
    scenes = data.make("clevr", 8, seed=1, num_objects=2, resolution=16).batch(range(8))
    target = clevr_targets(scenes["objects"])
    small = SetPredictorConfig(kind, 16, Strided(16), AttentionConfig(num_slots=3, slot_init="learned"))
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


def test_weights_of_another_model_are_taken_over_where_they_fit():
    torch.manual_seed(1)
    other, found = SetPredictor(SMALL), AutoencoderConfig(encoder=Strided(8), attention=ATTENTION, decoder=Separable(8))
    queries = model(kind="learned_queries")
    assert queries.start_from(other, []) == len(other.encoder.state_dict()) + len(other.head.state_dict())
    assert same(queries.encoder, other.encoder) and same(queries.head, other.head)
    part, fresh = model(), model()
    part.start_from(other, ["head"])
    assert same(part.head, other.head) and same(part.encoder, fresh.encoder)
    found, started = SlotAutoencoder(found), model()
    started.start_from(found, [])
    assert same(started.encoder, found.encoder) and same(started.slot_attention, found.slot_attention)
    assert same(started.head, fresh.head)
    assert model({"slot_dim": 8}, encoder=Strided(4)).start_from(zoo.load("tetrominoes"), []) == 0


# --- the command line ---


def test_the_file_says_which_model_and_flags_still_count():
    fast = cli.read_config("clevr10_sets").model
    assert isinstance(fast, SetPredictorConfig)
    five = dataclasses.replace(fast, attention=dataclasses.replace(fast.attention, num_slots=5))
    assert cli.read_config("clevr10_sets", "--model.attention.num_slots", "5").model == five
    with pytest.raises(ValueError, match="decoder"):
        cli.read_config("clevr10_sets", "--model.decoder=Broadcast")  # an autoencoder's


def test_evaluate_scores_sets_on_other_scenes(trained, capsys):
    asked = ["evaluate", str(trained[1] / "model"), "--images=8", "--num_objects=3", "--num_slots=6"]
    cli.main(asked)
    scores = json.loads(capsys.readouterr().out)
    scenes = data.make("clevr", 8, seed=0, num_objects=3, resolution=16)
    expected = evaluate(trained[0], scenes, 8, num_slots=6).means
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
    assert all(0 <= score <= 1 for score in evaluate(model(), scenes).means.values())
