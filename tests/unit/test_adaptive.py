"""Keeping and dropping slots: chances, gradients, what a dropped slot paints, and other ways to choose a number."""

import itertools

import pytest
import torch
from torch import nn

import slotlib
from slotlib import cli, data
from slotlib.adaptive import (
    AdaptiveAutoencoder,
    AdaptiveConfig,
    AdaptiveOutlinedAutoencoder,
    AdaptiveSetConfig,
    AdaptiveSetPredictor,
    AdaptiveSlots,
    ByArea,
    ByCode,
    ByCost,
    ByDistance,
    Given,
    KeepConfig,
    KeepOrDrop,
    chances,
    choose,
    decide,
    kept_only,
    merged,
    orthogonality,
)
from slotlib.adaptive import Chosen as ChosenSlots
from slotlib.decoders import Drawing, Separable
from slotlib.encoders import Paper, Strided
from slotlib.likelihoods import Average, Mixture, compose
from slotlib.model import Draws, Model, Ramp
from slotlib.outlined import OutlinedConfig
from slotlib.slot_attention import AttentionConfig, SlotAttention

SIDE, DIM, SLOTS = 16, 8, 4
OUTCOMES = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))
"""All that three coins can say."""
LOGITS = torch.tensor([0.5, -1.0, 1.0])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def close(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def config(kind=AdaptiveConfig, **options) -> AdaptiveConfig:
    attention = AttentionConfig(slot_dim=DIM, num_slots=SLOTS, num_iterations=2, mlp_hidden_dim=16)
    parts = {"encoder": Strided(8), "decoder": Separable(16, colour="slot", rank=4), "likelihood": Mixture(0.3)}
    return kind(**{"resolution": SIDE, "attention": attention, **parts, **options})


IMAGES = torch.rand(6, 3, SIDE, SIDE, generator=generator(1))


def made(kind, defined):
    """A fresh model that keeps about half of its slots."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(defined).eval()
        nn.init.normal_(model.keep_or_drop.logit[-1].weight)
    with torch.no_grad():
        bound = model.bind(model.encode(IMAGES), Draws(generator()))
        logits = model.keep_or_drop(bound.slots).logits
        model.keep_or_drop.logit[-1].bias -= logits.median()
    return model


@pytest.fixture(params=[AdaptiveAutoencoder, AdaptiveOutlinedAutoencoder], ids=["plain", "outlined"])
def model(request) -> AdaptiveAutoencoder:
    return made(request.param, config(request.param.__annotations__["config"]))


@pytest.fixture
def images() -> torch.Tensor:
    return IMAGES


def many(logits: torch.Tensor, count: int = 200_000) -> torch.Tensor:
    return logits.expand(count, -1)


def probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Of what three slots with these logits come to, outcome by outcome: where no coin says keep, one slot is kept, in
    proportion to its odds."""
    p = logits.sigmoid()
    coins = torch.where(OUTCOMES > 0, p, 1 - p).prod(dim=1)
    alone = (OUTCOMES.sum(dim=1) == 1).float()
    odds = (OUTCOMES * logits.exp()).sum(dim=1) * alone
    return torch.where(OUTCOMES.any(dim=1), coins, 0.0) + coins[0] * odds / odds.sum()


# --- the decision ---


def test_chances_are_the_sum_over_all_outcomes():
    for logits in (LOGITS, torch.zeros(3), torch.tensor([-3.0, -2.0, -5.0])):
        close(chances(logits[None])[0], probabilities(logits) @ OUTCOMES, atol=1e-6)
    assert chances(torch.tensor([[-40.0]])).item() == 1.0  # a single slot stays whatever it says


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_slots_are_kept_as_often_as_the_closed_form_says_at_any_temperature(temperature):
    for logits in (LOGITS, torch.tensor([-3.0, -2.0, -5.0])):
        keep, probability, _ = decide(many(logits), temperature, Draws(generator()))
        close(keep.mean(dim=0), probability[0], atol=0.005)
        close(keep.float().unique(), torch.tensor([0.0, 1.0]), atol=0)


def test_a_chance_of_73_percent_stays_one_at_a_temperature_of_a_tenth():
    """Where the temperature divides the logit only, and not the noise, it becomes 1.00."""
    logits = torch.tensor([1.0, 30.0])
    kept = decide(many(logits), 0.1, Draws(generator())).keep.mean(dim=0)
    close(kept, torch.tensor([0.731, 1.0]), atol=0.005)


def test_at_least_one_slot_is_kept():
    hopeless = many(torch.tensor([-9.0, -8.0, -9.0]), 5000)
    assert (decide(hopeless, 1.0, Draws(generator())).keep.sum(dim=1) == 1).all()
    assert decide(hopeless).keep[0].tolist() == [0, 1, 0]


def test_without_noise_the_odds_decide():
    decision = decide(torch.tensor([[0.1, -0.1, 5.0], [-2.0, -1.0, -3.0]]), 0.1)
    assert decision.keep.tolist() == [[1, 0, 1], [0, 1, 0]]


def gradient(values: torch.Tensor, logits: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the mean of `values` over outcomes, for the logits: exactly, and estimated straight through."""
    exact_logits, drawn_logits = logits.clone().requires_grad_(), many(logits).clone().requires_grad_()
    (exact,) = torch.autograd.grad(probabilities(exact_logits) @ values, exact_logits)
    keep = decide(drawn_logits, temperature, Draws(generator())).keep.unsqueeze(1)
    drawn = torch.where(OUTCOMES > 0, keep, 1 - keep).prod(dim=2) @ values  # the values' multilinear extension
    (estimated,) = torch.autograd.grad(drawn.sum(), drawn_logits)
    return exact, estimated


@pytest.mark.parametrize(("temperature", "least", "most"), [(1.0, 0.15, 0.4), (0.1, 0.0, 0.06)])
def test_the_gradients_bias_is_a_third_at_temperature_1_and_hardly_any_at_a_tenth(temperature, least, most):
    values = torch.randn(8, generator=generator(3))
    for logits in (LOGITS, torch.zeros(3)):
        exact, estimated = gradient(values, logits, temperature)
        assert least <= (estimated.mean(dim=0) - exact).norm() / exact.norm() <= most


def test_what_a_low_temperature_takes_of_the_bias_it_adds_to_the_noise():
    values = torch.randn(8, generator=generator(3))
    steady, noisy = (gradient(values, LOGITS, temperature)[1].std(dim=0) for temperature in (1.0, 0.1))
    assert (noisy > 3 * steady).all()


def test_at_logit_0_and_temperature_1_the_gradient_is_two_thirds():
    """The mean of u (1 - u) over uniform u, 1/6, for p (1 - p) = 1/4; other slots are kept anyway."""
    logits = many(torch.tensor([0.0, 30.0])).clone().requires_grad_()
    decide(logits, 1.0, Draws(generator())).keep[:, 0].sum().backward()
    assert logits.grad[:, 0].mean().item() == pytest.approx(1 / 6, abs=0.001)


def test_dropping_the_last_slot_brings_in_another():
    """Each of two slots is worth 1, both kept nothing more: the gradient knows that one of them stays anyway."""
    logits = torch.tensor([[-5.0, -5.0]]).requires_grad_()
    keep = decide(logits).keep
    (by_logits,) = torch.autograd.grad(keep[0, 1], logits)
    assert keep.sum() == 1 and by_logits[0, 0] < 0 < by_logits[0, 1]


@pytest.mark.parametrize(("target", "kept"), [(0.0, 1.0), (3.0, 3.0), (9.0, 6.0)])
def test_a_price_alone_leaves_one_slot_or_the_target(target, kept):
    logits = torch.randn(1, 6, generator=generator()).requires_grad_()
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for _ in range(400):
        optimiser.zero_grad()
        (chances(logits).sum() - target).abs().backward()
        optimiser.step()
    assert chances(logits).sum().item() == pytest.approx(kept, abs=0.1)


def test_a_fresh_decision_keeps_nearly_all():
    decision = KeepOrDrop(DIM)(torch.randn(3, SLOTS, DIM), Draws(generator()))
    close(decision.keep_probability, torch.full((3, SLOTS), 0.881), atol=0.001)


# --- around any slot attention ---


class Constant(nn.Module):
    """Returns what it was given."""

    def __init__(self, returned):
        super().__init__()
        self.returned = returned

    def forward(self, inputs):
        return self.returned


OWN = {
    "heads": {"num_heads": 2},
    "learned": {"slot_init": "learned"},
    "one_learned": {"slot_init": "one_learned"},
    "implicit": {"gradient": "implicit"},
}


@pytest.mark.parametrize("options", OWN.values(), ids=OWN)
def test_around_slotlibs_own(options):
    attention = SlotAttention(5, DIM, num_slots=SLOTS, **options)
    adaptive = AdaptiveSlots(attention, DIM)
    inputs = torch.randn(2, 9, 5, generator=generator())
    mask = torch.arange(9).expand(2, -1) < 7
    output = adaptive(inputs, generator=generator(), mask=mask)
    plain = attention(inputs, generator=generator(), mask=mask)
    close(output.slots, plain.slots, atol=0)
    close(output.attention, plain.attention, atol=0)
    assert output.keep.shape == output.keep_probability.shape == (2, SLOTS)
    nn.init.normal_(adaptive.keep_or_drop.logit[-1].weight)  # starts at 0
    adaptive(inputs, generator=generator(), mask=mask).keep.sum().backward()
    learned = dict(adaptive.named_parameters())
    for name in ("module.gru.weight_hh", "module.project_k.weight", "keep_or_drop.logit.0.weight"):
        assert learned[name].grad.abs().sum() > 0, name
    if options.get("slot_init") == "learned":
        assert learned["module.slots_mu"].grad.abs().sum() > 0
    if options.get("slot_init") != "learned":
        assert adaptive(inputs, num_slots=6).keep.shape == (2, 6)


@pytest.mark.parametrize("name", ["SlotAttention", "MultiHeadSlotAttention", "SlotAttentionExperimental"])
def test_around_the_modules_of_the_package_slot_attention(name):
    peer = pytest.importorskip("slot_attention")
    adaptive = AdaptiveSlots(getattr(peer, name)(num_slots=SLOTS, dim=DIM, hidden_dim=16), slot_dim=DIM)
    nn.init.normal_(adaptive.keep_or_drop.logit[-1].weight)
    output = adaptive(torch.randn(2, 9, DIM), generator=generator())
    assert output.slots.shape == (2, SLOTS, DIM) and output.attention is None
    assert output.keep.sum(dim=1).min() >= 1
    output.keep_probability.sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in adaptive.keep_or_drop.logit.parameters())
    assert adaptive.eval()(torch.randn(2, 9, DIM), num_slots=2).keep.shape == (2, 2)


def test_a_module_may_return_slots_alone_first_or_by_name():
    slots = torch.randn(2, SLOTS, DIM)
    adaptive = AdaptiveSlots(Constant(slots), DIM).eval()
    for returned in (slots, (slots, "more"), [slots], ChosenSlots(slots, slots, slots[..., 0], slots[..., 0])):
        adaptive.module.returned = returned
        assert adaptive(torch.zeros(2, 3, 1)).slots is slots


def test_in_evaluation_nothing_is_drawn():
    adaptive = AdaptiveSlots(Constant(torch.randn(2, SLOTS, DIM, generator=generator(9))), DIM)
    nn.init.normal_(adaptive.keep_or_drop.logit[-1].weight, generator=generator(1))
    drawn = {tuple(adaptive(torch.zeros(1)).keep.flatten().tolist()) for _ in range(50)}
    assert len(drawn) > 1
    adaptive.eval()
    before = torch.get_rng_state()
    first = adaptive(torch.zeros(1))
    assert (torch.get_rng_state() == before).all()
    likely = first.logits >= first.logits.amax(dim=1, keepdim=True).clamp(max=0)  # or the likeliest, where none is
    close(first.keep, likely.float(), atol=0)


def test_one_generator_decides_all(model):
    adaptive = AdaptiveSlots(SlotAttention(5, DIM, num_slots=SLOTS), DIM)
    inputs = torch.randn(3, 9, 5)
    first, again = (adaptive(inputs, generator=generator(7)) for _ in range(2))
    close(first.slots, again.slots, atol=0)
    close(first.keep, again.keep, atol=0)


def test_slots_in_another_order_are_kept_all_the_same():
    attention, order = SlotAttention(5, DIM, num_slots=SLOTS), torch.tensor([2, 0, 3, 1])
    adaptive = AdaptiveSlots(attention, DIM).eval()
    nn.init.normal_(adaptive.keep_or_drop.logit[-1].weight)
    inputs, start = torch.randn(2, 9, 5), torch.randn(2, SLOTS, DIM)
    plain, moved = adaptive(inputs, slots=start), adaptive(inputs, slots=start[:, order])
    close(plain.keep_probability[:, order], moved.keep_probability)
    close(plain.keep[:, order], moved.keep, atol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AdaptiveSlots(nn.Identity(), DIM, temperature=0.0), "temperature must be a finite number, above 0"),
        (lambda: AdaptiveSlots(nn.Identity(), DIM, temperature=-1.0), "temperature must be a finite number, above 0"),
        (lambda: AdaptiveSlots(nn.Identity(), 0), "slot_dim must be a whole number, at least 1, got 0"),
        (lambda: AdaptiveSlots(len, DIM), "module must be an nn.Module that returns slots, got <built-in"),
        (lambda: AdaptiveSlots(Constant(None), DIM)(None), r"module must return slots \[batch, slots >= 1, slot_dim"),
        (lambda: AdaptiveSlots(Constant(torch.zeros(2, 8)), DIM)(None), r"slots .* got torch.float32 \[2, 8\]"),
        (lambda: AdaptiveSlots(Constant(()), DIM)(None), r"module must return slots .* got \(\)"),
        (lambda: AdaptiveSlots(Constant(torch.zeros(2, 3, 5)), DIM)(None), "the width of the module's slots, 5, got 8"),
        (lambda: AdaptiveSlots(Constant(torch.full((2, 3, 8), torch.nan)), DIM)(None), "logits must be finite"),
        (lambda: AdaptiveSlots(Constant(torch.ones(2, 3, 8).int()), DIM)(None), "slots must be floating point"),
        (lambda: AdaptiveSlots(Constant(torch.ones(2, 3, 8)), DIM)(None, generator=3), "generator must be a torch.Gen"),
        (lambda: decide(torch.tensor([[torch.nan]])), "logits must be finite"),
        (lambda: decide(torch.zeros(3)), r"logits must be floating point \[batch, slots\]"),
        (lambda: decide(torch.zeros(2, 3), temperature=torch.nan), "temperature must be a finite number"),
        (lambda: KeepConfig(temperature=Ramp(0.0, start=1.0)), "temperature must be a finite number, above 0"),
        (lambda: config(price=-1.0), "price must be a finite number"),
        (lambda: config(target=-1.0), "target must be a finite number"),
        (lambda: config(orthogonality=Ramp(-1.0)), "orthogonality must be a finite number"),
        (lambda: AdaptiveSetConfig(kind="slot_mlp"), "needs kind=\"slot_attention\""),
        (lambda: AdaptiveSetConfig(supervised_iterations=2), "supervised_iterations=1"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


# --- models ---


def test_a_dropped_slot_paints_nothing(model, images):
    """What is drawn is what a model would draw that had only the slots that were kept."""
    output = model(images, generator=generator())
    assert 0 < output.keep.mean() < 1
    for image, keep in enumerate(output.keep.bool()):
        drawing = model.decoder(output.slots[image : image + 1, keep])
        picture, masks = compose(drawing)
        close(output.reconstruction[image : image + 1], (picture + 1) / 2)
        close(output.drawn_masks[image : image + 1, keep], masks)
        close(output.masks[image : image + 1, keep], model.likelihood.masks(drawing, images[image : image + 1] * 2 - 1))
        assert output.drawn_masks[image, ~keep].abs().sum() == output.masks[image, ~keep].abs().sum() == 0
    close(output.masks.sum(dim=1), torch.ones(6, SIDE, SIDE))


def test_evaluation_is_a_function_of_the_slots_start(model, images):
    first, again = (model(images, generator=generator()) for _ in range(2))
    for name, value in first._asdict().items():
        close(value, getattr(again, name), atol=0)


@pytest.mark.parametrize("likelihood", [Mixture(0.3, 0.01), Average()])
def test_the_gradient_is_that_of_the_mean_cost(images, likelihood, monkeypatch):
    """Of all outcomes together, enumerated, price included: at a low temperature, within 5 % and the noise."""
    monkeypatch.setattr("slotlib.adaptive.BOUND", 1e6)
    model = made(AdaptiveAutoencoder, config(likelihood=likelihood, price=0.01, keep=KeepConfig(0.1))).train()
    found = model.bind(model.encode(images[:1]), Draws(generator()))
    count = 8000
    copies, slots = images[:1].expand(count, -1, -1, -1), found.slots.detach()
    monkeypatch.setattr(model, "bind", lambda *_: found._replace(slots=slots.expand(count, -1, -1)))
    seen = []
    model.keep_or_drop.register_forward_hook(lambda *call: call[-1].logits.retain_grad() or seen.append(call[-1]))
    model.loss(copies, Draws(generator())).backward()
    estimated = seen[0].logits.grad * count

    outcomes = torch.tensor(list(itertools.product([0.0, 1.0], repeat=SLOTS)))[1:]
    drawing = model.decoder(slots)
    each = Drawing(*(part.expand(len(outcomes), *part.shape[1:]) for part in drawing))
    costs = model.likelihood.cost(kept_only(each, outcomes), copies[: len(outcomes)] * 2 - 1).detach()
    logits = seen[0].logits[0].detach().requires_grad_()
    p = logits.sigmoid()
    chance = torch.where(outcomes > 0, p, 1 - p).prod(dim=1)
    alone = torch.where(outcomes.sum(dim=1) == 1, (outcomes * logits.softmax(0)).sum(dim=1), 0.0)
    (exact,) = torch.autograd.grad((chance + (1 - p).prod() * alone) @ (costs + 0.01 * outcomes.sum(dim=1)), logits)
    noise = estimated.std(dim=0) / count**0.5
    assert noise.norm() < 0.1 * exact.norm()
    assert ((estimated.mean(dim=0) - exact).abs() < 4 * noise + 0.05 * exact.norm()).all()


def test_a_slots_gradient_sees_it_save_two_prices_at_most(images):
    """So that one worth a hundred prices pulls as hard for itself as one worth nothing pulls against."""
    model = made(AdaptiveAutoencoder, config(price=1e-4, keep=KeepConfig(1.0))).train()
    seen = []
    model.keep_or_drop.register_forward_hook(lambda *call: call[-1].keep.retain_grad() or seen.append(call[-1].keep))
    for seed in range(5):
        model.loss(images, Draws(generator(seed))).backward()
        pull = seen[-1].grad.abs() * len(images) / SLOTS
        assert pull.max().item() == pytest.approx(2e-4)


def test_what_a_slot_saves_is_the_difference_it_makes(model, images):
    (drawing, *_), target = model.drawings(model.bind(model.encode(images), Draws(generator())).slots, images, Draws())
    keep = torch.tensor([[1.0, 0, 1, 1]]).repeat(6, 1)
    keep[5] = torch.tensor([0.0, 0, 1, 0])

    def cost(keep):
        return model.likelihood.cost(kept_only(drawing, keep), target)

    found = torch.stack(
        [model._saved(drawing, target, keep, cost(keep), Draws(generator(seed))) for seed in range(40)]
    ).detach()
    for slot in range(SLOTS):
        with_it, without = keep.clone(), keep.clone()
        with_it[:, slot], without[:, slot] = 1, 0
        tried = found[:, :, slot] != 0
        expected = (cost(without) - cost(with_it)).detach()
        for image in range(6 if slot != 2 else 5):
            assert tried[:, image].any()
            close(found[tried[:, image], image, slot], expected[image].expand(int(tried[:, image].sum())))
    assert (found[:, 5, 2] == 0).all()  # the only one cannot be tried


def test_shares_of_a_batch_add_up_to_its_loss(model, images):
    model.train()
    whole = model.loss(images, draws=Draws(generator()))
    shares = [model.loss(images[first::2], draws=Draws(generator(), first, 2)) for first in (0, 1)]
    close(torch.stack(shares).mean(), whole)


def test_training_reaches_every_weight(model, images):
    model.train()
    model.loss(images, Draws(generator())).backward()
    still = {"slot_attention.slots_mu", "slot_attention.slots_log_sigma"}  # a single step may leave them
    assert {name for name, weight in model.named_parameters() if weight.grad is None} <= still
    assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.grad is not None)
    assert all(weight.grad.abs().sum() > 0 for weight in model.keep_or_drop.parameters())


def test_a_frozen_model_learns_only_what_to_keep(images):
    learned = {}
    for frozen in (False, True):
        model = made(AdaptiveAutoencoder, config(frozen=frozen)).train()
        loss = model.loss(images, Draws(generator()))
        loss.backward()
        learned[frozen] = {name: w.grad for name, w in model.named_parameters() if w.grad is not None}, loss
    (whole, loss), (part, same) = learned[False], learned[True]
    close(same, loss)
    assert set(part) == {name for name in whole if name.startswith("keep_or_drop.")}
    for name, grad in part.items():
        close(grad, whole[name])


def test_ramps_move_price_and_temperature():
    ramps = dict(price=Ramp(0.02, over=1.0), keep=KeepConfig(Ramp(0.5, start=1.0, over=1.0)), orthogonality=Ramp(0.1))
    model = AdaptiveAutoencoder(config(**ramps))
    assert (model.price, model.keep_or_drop.temperature, model.orthogonality) == (0.02, 0.5, 0.1)
    model.at(0.5)
    assert (model.price, model.keep_or_drop.temperature) == (0.01, 0.75)


def test_a_model_learns_to_drop_what_the_price_exceeds(images):
    """With a price above what any slot saves one slot is left; nearly for nothing, none is dropped that helps."""
    left = []
    for price in (10.0, 1e-6):
        model = made(AdaptiveAutoencoder, config(price=price)).train()
        optimiser = torch.optim.Adam(model.keep_or_drop.parameters(), lr=0.02)
        for step in range(60):
            optimiser.zero_grad()
            model.loss(images, Draws(generator(step))).backward()
            optimiser.step()
        left.append(model.eval()(images, generator=generator()).keep.sum(dim=1).mean().item())
    assert left[0] == 1 and left[1] > 1


def test_of_several_restarts_the_cheapest_is_kept(model, images):
    def cost(output):
        drawing = kept_only(model.decoder(output.slots), output.keep)
        return model.likelihood.cost(drawing, images * 2 - 1) + model.price * output.keep.sum(dim=1)

    one, several = (cost(model(images, restarts=restarts, generator=generator())) for restarts in (1, 5))
    assert (several <= one + 1e-6).all() and (several < one).any()


def test_scores_say_how_many_were_kept(model):
    scenes = data.make("shapes", 4, resolution=SIDE, num_objects=[2, 3]).batch(range(4))
    columns = model.judge(scenes, Draws(generator()))
    output = model(scenes["image"], generator=generator())
    objects = scenes["objects"]["present"].sum(dim=1)
    close(columns["kept"], output.keep.sum(dim=1))
    close(columns["count_error"], (columns["kept"] - 1 - objects).abs())
    close(columns["count_exact"], (columns["kept"] - 1 == objects).float())
    assert model.judge({"image": scenes["image"]})["count_error"].isnan().all()


YAML = """
model:
  class_path: {name}
  init_args:
    resolution: 16
    encoder: {{class_path: Strided, init_args: {{channels: 8}}}}
    attention: {{slot_dim: 8, num_slots: 4, num_iterations: 2, mlp_hidden_dim: 16}}
    keep: {{temperature: {{start: 1.0, end: 0.5, over: 1.0}}}}
    price: {{end: 0.01, after: 0.5}}
    {more}
data: {{name: {scenes}, size: 8, keep: true, options: {options}}}
train: {{steps: 6, batch_size: 4, eval_images: 4, eval_every: 3, save_every: 2, warmup_steps: 0, accelerator: cpu}}
"""
RUNS = {
    "AdaptiveAutoencoder": {
        "more": "decoder: {class_path: Separable, init_args: {channels: 16, colour: slot}}",
        "scenes": "shapes",
        "options": "{resolution: 16}",
    },
    "AdaptiveSetPredictor": {"more": "", "scenes": "clevr", "options": "{resolution: 16, num_objects: [2, 3]}"},
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_from_a_file_is_resumed_exactly_and_loads_by_path(name, tmp_path):
    (tmp_path / "my.yaml").write_text(YAML.format(name=name, **RUNS[name]))
    start = ["train", "--config", str(tmp_path / "my.yaml"), "--folder"]
    cli.main([*start, str(tmp_path / "whole")])
    cli.main([*start, str(tmp_path / "parts"), "--train.stop_at", "4"])
    cli.main([*start, str(tmp_path / "parts")])
    whole, parts = (tmp_path / folder / "model.safetensors" for folder in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    model = slotlib.load(tmp_path / "whole" / "model")
    assert type(model).__name__ == name and not model.training
    assert model.card["metrics"][0]["kept"] >= 1
    assert model.keep_or_drop.temperature == pytest.approx(0.5 + 0.5 / 6)  # of its last step
    images = torch.rand(2, 3, 16, 16)
    assert model(images, num_slots=9, generator=generator()).keep.shape == (2, 9)


def test_a_dropped_slot_says_that_there_is_nothing(images):
    defined = AdaptiveSetConfig(
        resolution=SIDE,
        encoder=Paper(channels=8, stride=2),
        attention=AttentionConfig(slot_dim=DIM, num_slots=SLOTS, num_iterations=2),
    )
    model = made(AdaptiveSetPredictor, defined)
    output = model(images, generator=generator())
    plain = model.read(output.slots)
    assert 0 < output.keep.mean() < 1
    close(output.properties[..., :-1], plain[..., :-1])
    close(output.properties[..., -1], plain[..., -1] * output.keep)
    target = torch.zeros(6, 3, 19)
    model.train().loss(images, target, Draws(generator())).backward()
    assert all(weight.grad.abs().sum() > 0 for weight in model.keep_or_drop.parameters())


# --- other ways to choose ---


@pytest.fixture(params=[slotlib.AutoencoderConfig, OutlinedConfig], ids=["plain", "outlined"])
def fixed(request) -> slotlib.SlotAutoencoder:
    """A model that has never heard of dropping slots."""
    names = "resolution", "encoder", "attention", "decoder", "likelihood"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        defined = request.param(**{name: getattr(config(), name) for name in names})
        return Model.defined_by(defined)(defined).eval()


def test_all_slots_given_draw_what_the_model_draws(fixed, images):
    expected = fixed(images, num_slots=3, generator=generator())
    output = choose(fixed, images, Given(torch.full((6,), 3)), generator())
    close(output.reconstruction, expected.reconstruction)
    close(output.masks, expected.masks)
    assert output.keep.tolist() == [[1, 1, 1]] * 6


CHOICES = {
    "given": Given(torch.tensor([1, 2, 3, 4, 2, 2])),
    "area": ByArea(least=30),
    "distance": ByDistance(0.5),
    "code": ByCode(torch.randn(3, DIM, generator=generator(5))),
    "cost": ByCost([1, 2, 3, 3], price=0.01),
}


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_whatever_chooses_at_least_one_is_kept_and_the_others_paint_nothing(fixed, images, choice):
    output = choose(fixed, images, choice, generator())
    assert output.keep.sum(dim=1).min() >= 1
    close(output.drawn_masks.sum(dim=1), torch.ones(6, SIDE, SIDE))
    for masks in (output.drawn_masks, output.masks):
        assert (masks * (1 - output.keep)[:, :, None, None]).abs().sum() == 0
    again = choose(fixed, images, choice, generator())
    close(output.keep, again.keep, atol=0)
    scenes = {"image": images, "mask": torch.zeros(6, SIDE, SIDE, dtype=torch.uint8)}
    assert len(fixed.scores(scenes, output)["mse"]) == 6


def test_as_many_are_kept_as_are_given(fixed, images):
    counts = torch.tensor([1, 2, 3, 4, 2, 2])
    close(choose(fixed, images, Given(counts), generator()).keep.sum(dim=1), counts.float())


def test_slots_that_own_too_little_are_dropped(fixed, images):
    every = fixed(images, generator=generator())
    area = torch.stack([(every.drawn_masks.argmax(dim=1) == slot).sum(dim=(1, 2)) for slot in range(SLOTS)], dim=1)
    least = int(area.float().median()) + 1
    output = choose(fixed, images, ByArea(least), generator())
    assert (output.keep[(area >= least)] == 1).all() and 0 < output.keep.mean() < 1
    assert choose(fixed, images, ByArea(SIDE * SIDE + 1), generator()).keep.sum(dim=1).min() == 1


def test_a_group_of_slots_becomes_the_mean_of_what_attends_in_place_of_its_first():
    slots, attention = torch.randn(1, 4, DIM), torch.rand(1, 4, 9)
    keep = torch.ones(1, 4)
    found = merged(ChosenSlots(slots, attention, keep, keep), torch.tensor([[7, 2, 7, 3]]))
    assert found.keep.tolist() == [[1, 1, 0, 1]]
    first, third = attention[0, 0].sum(), attention[0, 2].sum()
    close(found.slots[0, 0], (first * slots[0, 0] + third * slots[0, 2]) / (first + third))
    close(found.slots[0, 1], slots[0, 1])
    close(found.attention[0, 0], attention[0, 0] + attention[0, 2])
    close((found.attention * found.keep[..., None]).sum(), attention.sum())


def test_near_slots_merge_and_far_ones_do_not(fixed, images):
    kept = [
        choose(fixed, images, ByDistance(distance), generator()).keep.sum(dim=1).mean().item()
        for distance in (0.0, 0.5, 2.0)
    ]
    assert kept[0] == SLOTS and kept[2] == 1 and kept == sorted(kept, reverse=True)
    assert choose(fixed, images, ByDistance(0.5, num_slots=1), generator()).keep.tolist() == [[1]] * 6


def test_slots_on_one_code_merge(fixed, images):
    single = ByCode(torch.randn(1, DIM))
    assert choose(fixed, images, single, generator()).keep.sum(dim=1).tolist() == [1] * 6
    own = fixed(images[:1], generator=generator()).slots[0, :, :DIM]
    assert choose(fixed, images[:1], ByCode(own), generator()).keep.tolist() == [[1] * SLOTS]


def test_more_slots_are_taken_where_they_are_cheaper(fixed, images):
    kept = [
        choose(fixed, images, ByCost([1, 2, 3, 4], price), generator()).keep.sum(dim=1).mean().item()
        for price in (0.0, 0.005, 100.0)
    ]
    assert kept == sorted(kept, reverse=True) and kept[0] > kept[2] == 1


def test_nothing_is_chosen_of_no_numbers(fixed, images):
    with pytest.raises(ValueError, match="candidates must be some"):
        choose(fixed, images, ByCost([]))


def test_orthogonality_is_1_for_twins_in_pairs_and_least_for_a_simplex():
    twins = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]]])
    simplex = torch.eye(4).unsqueeze(0)
    assert orthogonality(twins).item() == pytest.approx(1)
    assert orthogonality(simplex).item() == pytest.approx(1 / 9)
    assert orthogonality(simplex * 7 + 3).item() == pytest.approx(1 / 9)
    assert orthogonality(torch.ones(1, 1, 3)).item() == 0
