"""Slots of codes: every iteration ends in them, blocks do not see one another, and what is drawn is drawn from them."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from slotlib import cli, data, svq, training, zoo
from slotlib.autoencoder import AutoencoderConfig, AutoencoderOutput
from slotlib.decoders import Broadcast, Separable
from slotlib.encoders import Strided
from slotlib.evaluation import evaluate
from slotlib.log import read_log
from slotlib.model import Draws, Ramp
from slotlib.patches import PatchConfig, PatchVQVAE
from slotlib.slot_attention import SlotAttention
from slotlib.svq import QuantisedAttentionConfig, QuantisedSlotAttention, SVQAutoencoder, SVQConfig
from slotlib.training import Config, DataConfig, TrainConfig
from slotlib.vq import FiniteScalar, Gumbel, Nearest, VectorQuantizer

close = torch.testing.assert_close


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(seed=0):
    return Draws(generator(seed))


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


# --- slot attention ---


def attention(mixing=False, codes=6, **options):
    torch.manual_seed(0)
    vq = VectorQuantizer(8, codes, num_blocks=2, kmeans=False)
    return QuantisedSlotAttention(5, vq, mixing=mixing, num_slots=3, mlp_hidden_dim=12, **options).eval()


def test_every_iteration_ends_in_codes_and_an_iteration_is_slot_attentions():
    module, x = attention(), randn(2, 10, 5)
    out = module(x, generator=generator(), return_history=True)
    for slots in out.history.slots[1:]:
        close(module.quantizer(slots).values, slots)
    close(out.attention.sum(1), torch.ones(2, 10))
    start = out.history.slots[0]
    unquantised, _ = SlotAttention.step(module, start, module.prepare(x))
    assert torch.equal(module.quantizer(unquantised).values, out.history.slots[1])


def test_after_the_attention_blocks_do_not_see_each_other():
    module, x = attention(), randn(1, 10, 5)
    prepared = module.prepare(x)
    slots = randn(1, 3, 8)
    with torch.no_grad():
        module.norm_slots.weight.zero_()  # then all slots ask the same, whatever they hold
    changed = torch.cat([slots[..., :4], slots[..., 4:] + 1], dim=-1)
    first, second = (SlotAttention.step(module, each, prepared)[0] for each in (slots, changed))
    close(first[..., :4], second[..., :4])
    assert not torch.allclose(first[..., 4:], second[..., 4:])


@pytest.mark.parametrize("gradient", ["unrolled", "implicit"])
def test_as_many_iterations_are_recorded_as_run(gradient):
    module = attention(gradient=gradient)
    out = module(randn(2, 10, 5), num_iterations=4, generator=generator())
    assert len(out.quantised) == 4 and torch.equal(out.quantised[-1].values, out.slots)
    carrying = [each.values.requires_grad for each in out.quantised]
    assert carrying == ([True] * 4 if gradient == "unrolled" else [False, False, False, True])


@pytest.mark.parametrize("gradient", ["unrolled", "implicit"])
def test_a_search_is_slot_attention_and_only_what_follows_ends_in_codes(gradient):
    module, x = attention(gradient=gradient, num_iterations=5, search_iterations=3), randn(2, 10, 5)
    out = module(x, generator=generator(), return_history=True)
    assert len(out.quantised) == 2 and len(out.history.slots) == 6 and len(out.history.attention) == 5
    assert torch.equal(out.history.needed, torch.full((2,), 5))
    plain = attention(gradient=gradient)
    plain.quantise = False
    found = plain(x, num_iterations=3, generator=generator())
    assert found.quantised == []
    close(out.history.slots[3], found.slots)
    plain.quantise = True
    close(plain(x, num_iterations=2, slots=found.slots).slots, out.slots)
    once = module(x, num_iterations=1, generator=generator()).slots  # the last one always ends in codes
    assert torch.equal(module.quantizer(once).values, once)
    module.quantise = False
    assert not torch.equal(module.quantizer(module(x).slots).values, module(x).slots)


def test_a_search_lets_the_start_learn_and_is_not_below_0():
    module = attention(gradient="implicit", num_iterations=5, search_iterations=3, slot_init="learned")
    module(randn(2, 10, 5), generator=generator()).slots.sum().backward()
    assert module.slots_mu.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="search_iterations must be a whole number, at least 0, got -1"):
        attention(search_iterations=-1)


def padded(x):
    """Inputs of which every image has another number, the rest padding, and the mask that says so."""
    mask = torch.arange(x.shape[1]) < torch.tensor([10, 4])[:, None]
    return x.masked_fill(~mask[..., None], math.nan), mask


def of_any_kind(quantizer, gradient, heads, slot_init, search):
    torch.manual_seed(0)
    config = QuantisedAttentionConfig(
        8, 3, 4, heads, 12, slot_init, gradient, quantizer=quantizer, search_iterations=search
    )
    return config.build(5).double().eval()


@pytest.mark.parametrize("quantizer", [Nearest(2, 6), Gumbel(2, 6), FiniteScalar(2, [3, 3])])
@pytest.mark.parametrize(
    ("gradient", "heads", "slot_init", "search"),
    [
        ("unrolled", 1, "gaussian", 0),
        ("unrolled", 2, "learned", 2),
        ("implicit", 2, "one_learned", 0),
        ("implicit", 1, "learned", 2),
        ("neumann", 2, "gaussian", 0),
        ("exact", 1, "gaussian", 0),
    ],
)
@pytest.mark.filterwarnings("ignore:the gradient's linear system")
def test_padding_changes_no_code(quantizer, gradient, heads, slot_init, search):
    module = of_any_kind(quantizer, gradient, heads, slot_init, search)
    x, mask = padded(randn(2, 10, 5).double())
    start = module.initial_slots(2, generator=generator()).detach()
    x.requires_grad_()
    out = module(x, slots=start, mask=mask)
    assert (out.attention[~mask[:, None].expand_as(out.attention)] == 0).all()
    (gradient,) = torch.autograd.grad(out.slots.square().sum(), x)
    assert (gradient[~mask] == 0).all()
    for i, count in enumerate(mask.sum(dim=1)):
        real = x[i : i + 1, :count].detach().requires_grad_()
        alone = module(real, slots=start[i : i + 1])
        close(out.slots[i : i + 1], alone.slots)
        assert torch.equal(out.quantised[-1].indices[i], alone.quantised[-1].indices[0])
        close(
            gradient[i : i + 1, :count], torch.autograd.grad(alone.slots.square().sum(), real)[0], atol=1e-6, rtol=1e-4
        )


def test_a_module_by_itself_stands_at_the_end_of_its_ramp():
    for quantise, at_the_end in ((True, True), (False, False), (Ramp(1, after=0.5), True), (Ramp(0, start=1), False)):
        config = QuantisedAttentionConfig(8, 3, quantizer=Nearest(2, 6), quantise=quantise)
        assert config.build(5).quantise is at_the_end


# --- the model ---

ATTENTION = QuantisedAttentionConfig(16, 3, 2, mlp_hidden_dim=16, quantizer=Nearest(4, 10))
SMALL = SVQConfig(16, Strided(8), ATTENTION, Separable(8))
QUANTISERS = {
    "ema": Nearest(4, 10),
    "loss": Nearest(4, 10, learn="loss"),
    "gumbel": Gumbel(4, 10),
    "fsq": FiniteScalar(4, [3, 3]),
}
each_quantiser = pytest.mark.parametrize("quantizer", QUANTISERS.values(), ids=QUANTISERS.keys())
SCENES = DataConfig(name="shapes", options={"num_objects": (1, 2), "resolution": 16})
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


def images(count=3):
    return torch.rand(count, 3, 16, 16, generator=generator())


def small(decoder=None, colour_lead=0.0, **attention):
    attention = dataclasses.replace(ATTENTION, **attention)
    return dataclasses.replace(SMALL, attention=attention, decoder=decoder or Separable(8), colour_lead=colour_lead)


def model(*arguments, **changes):
    torch.manual_seed(0)
    return SVQAutoencoder(small(*arguments, **changes)).eval()


@each_quantiser
@pytest.mark.parametrize("restarts", [1, 3])
def test_what_is_drawn_is_drawn_from_the_codes_alone(quantizer, restarts):
    autoencoder = model(quantizer=quantizer)
    with torch.no_grad():
        output = autoencoder(images(), generator=generator(), restarts=restarts)
    drawn = autoencoder.decode(output.codes)
    close(drawn.image, output.reconstruction, rtol=1e-4, atol=1e-5)
    close(drawn.masks, output.drawn_masks, rtol=1e-4, atol=1e-5)
    close(drawn.logits.softmax(1), drawn.masks)
    assert output.codes.shape == (3, 3, 4) and output.error.shape == (4,)
    assert torch.equal(autoencoder.tokenise(images(), draws(), restarts), output.codes)


@each_quantiser
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_draws_codes_too(quantizer, dtype):
    autoencoder = model(quantizer=quantizer).to(dtype)
    with torch.no_grad():
        output = autoencoder(images().to(dtype), generator=generator())
    assert output.reconstruction.dtype == output.slots.dtype == dtype
    close(autoencoder.decode(output.codes).image, output.reconstruction, rtol=0.05, atol=0.05)


@each_quantiser
def test_in_training_too_a_generator_is_all_that_is_random(quantizer):
    autoencoder = model(quantizer=quantizer).train()
    one, again = (autoencoder(images(), generator=generator()).slots for _ in range(2))
    assert torch.equal(one, again)


@each_quantiser
@pytest.mark.parametrize("shares", [2, 4])
def test_the_shares_of_a_batch_have_the_loss_of_the_whole(quantizer, shares):
    autoencoder, pictures = model(quantizer=quantizer).double().train(), images(8).double()
    if isinstance(quantizer, Nearest):
        autoencoder.quantizer.counts.fill_(1)  # placed
    whole = autoencoder.loss(pictures, draws())
    parts = [autoencoder.loss(pictures[i::shares], Draws(generator(), i, shares)) for i in range(shares)]
    close(sum(parts) / shares, whole, rtol=1e-9, atol=0)


def test_numbers_for_colour_are_blocks_of_colour():
    split = model(Separable(8, colour="slot", colour_dims=4))
    codes = torch.randint(10, (5, 3, 4), generator=generator())
    before = split.decode(codes)
    other = codes.clone()
    other[:, :, 0] = (codes[:, :, 0] + 1) % 10
    painted = split.decode(other)
    assert torch.equal(painted.masks, before.masks)
    assert not torch.isclose(painted.slot_images, before.slot_images).any()
    other = codes.clone()
    other[:, :, 1:] = (codes[:, :, 1:] + 1) % 10
    moved = split.decode(other)
    assert torch.equal(moved.slot_images, before.slot_images)
    assert not torch.isclose(moved.masks, before.masks).all()
    plain = model(Separable(8, colour="slot"))
    assert split.state_dict().keys() == plain.state_dict().keys()  # either can start from the other


def test_the_first_block_for_colour_learns_from_the_others_and_not_they_from_it():
    led = model(Separable(8, colour="slot", colour_dims=8), colour_lead=0.5).train()
    slots = torch.randn(5, 3, 16, generator=generator(), requires_grad=True)
    led.lead_cost(slots).backward()
    gradient = slots.grad.unflatten(-1, (4, 4)).abs().sum(dim=(0, 1, 3))
    assert gradient[0] > 0 and not gradient[1:].any()
    alone = slots.detach().clone()
    alone[..., 4:8] = 0
    assert led.lead_cost(alone) == 0
    left = led.bind(led.encode(images()), draws()).slots  # it is counted once, on the slots that are drawn
    losses = [led.loss(images(), draws())]
    led.config.colour_lead = 0.0
    losses.append(led.loss(images(), draws()))
    close(losses[0] - losses[1], 0.5 * led.lead_cost(left), rtol=1e-3, atol=1e-6)


def test_the_quantisers_cost_is_the_mean_over_the_iterations_that_learn():
    unrolled, last = model(), model(gradient="implicit")
    last.load_state_dict(unrolled.state_dict())
    for autoencoder in (unrolled.train(), last.train()):
        autoencoder.quantizer.counts.fill_(1)
    costs = [each.loss for each in unrolled.bind(unrolled.encode(images()), draws()).quantised]
    for autoencoder, cost in ((unrolled, sum(costs) / 2), (last, costs[1])):
        drawn = autoencoder.drawing_loss(
            autoencoder.bind(autoencoder.encode(images()), draws()).slots, images(), draws()
        )
        close(autoencoder.loss(images(), draws()), drawn + cost)


def test_codes_are_in_use_when_the_schedule_says():
    moving = model(Separable(8, "slot", colour_dims=Ramp(4, after=0.5)), quantise=Ramp(1, after=0.25))
    for progress, quantise, colour in (
        (0.0, False, 0),
        (0.2, False, 0),
        (0.25, True, 0),
        (0.5, True, 4),
        (1.0, True, 4),
    ):
        moving.at(progress)
        assert moving.slot_attention.quantise is quantise and moving.decoder.colour_dims == colour
        output = moving(images(), generator=generator())
        assert output.error.isnan().all() != quantise
        coded = moving.quantizer.decode(output.codes)
        assert torch.equal(coded, output.slots) == quantise


def test_while_slots_are_continuous_nothing_is_said_of_codes():
    scenes = data.make("shapes", 4, seed=2, **SCENES.options).batch(range(4))
    for quantise in (False, True):
        autoencoder = model(quantise=quantise)
        scores = autoencoder.summarise(autoencoder.judge(scenes, draws()))
        for name in ("utilisation", "perplexity", "quantisation_error"):
            assert math.isnan(scores[name]) != quantise
            if quantise:
                assert scores[name] == pytest.approx(np.mean([scores[f"{name}_{i}"] for i in range(4)]))
        assert next(iter(scores)) == "drawn_fg_ari" and not math.isnan(scores["mse"])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: model(quantizer="magic"), "attention.quantizer must be of kind QuantizerConfig, got 'magic'"),
        (lambda: model(quantizer=Nearest(3)), "num_blocks must divide dim, got dim=16 and num_blocks=3"),
        (lambda: model(quantizer=Nearest(4, learn="magic")), "attention.quantizer.learn must be 'ema' or 'loss'"),
        (lambda: model(quantise="never"), "attention.quantise must be .* got 'never'"),
        (lambda: model(search_iterations=-1), "search_iterations must be a whole number, at least 0, got -1"),
        (lambda: model(decoder="magic"), "decoder must be of kind DecoderConfig, got 'magic'"),
        (lambda: model(Separable(colour="slot", colour_dims=16)), "colour_dims must be below slot_dim=16, got 16"),
        (
            lambda: model(Separable(colour="slot", colour_dims=4), colour_lead=0.1),
            r"at least two of 4 blocks \(colour_dims\), got 0.1",
        ),
        (lambda: model(Broadcast(8), colour_lead=0.1), "colour_lead needs a decoder that reads colours"),
        (lambda: model(colour_lead=-1.0), "colour_lead must be a finite number, at least 0, got -1"),
        (lambda: SVQAutoencoder(AutoencoderConfig()), "config must be of kind SVQConfig, got AutoencoderConfig"),
        (lambda: SVQAutoencoder(dataclasses.replace(SMALL, attention=None)), "attention must be of kind Quantised"),
    ],
)
def test_a_configuration_that_cannot_be_built_names_the_field(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.decode(torch.zeros(2, 3, 5).long()), r"codes must be integers \[batch, slots, blocks=4\]"),
        (lambda m: m.decode(torch.zeros(3, 4).long()), r"codes must be integers \[batch, slots, blocks=4\]"),
        (lambda m: m.decode(torch.full((2, 3, 4), 10)), "codes must be within 0 and 9, got 10 to 10"),
        (lambda m: m.decode(torch.zeros(2, 3, 4)), "codes must be integers"),
        (lambda m: m.decode(None), "codes must be integers .* got None"),
        (lambda m: m.tokenise(images(), generator()), "draws must be a slotlib.Draws"),
        (lambda m: m.tokenise(images(), restarts=0), "restarts must be a whole number"),
        (lambda m: m.loss(images() * 255), r"images must lie in \[0, 1\]"),
    ],
)
def test_bad_input_of_a_model_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(model())


# --- what do the codes mean? ---


def test_exchanging_a_block_twice_is_no_exchange():
    codes = torch.randint(10, (2, 3, 4), generator=generator())
    once = svq.swap(codes, 2, 0, 1)
    assert torch.equal(svq.swap(once, 2, 0, 1), codes)
    assert torch.equal(once[:, 0, 2], codes[:, 1, 2]) and torch.equal(once[:, :, :2], codes[:, :, :2])


def test_information_is_one_for_a_copy_and_nothing_for_noise():
    count = 4000
    colour, shape = (torch.randint(4, (count,), generator=generator(i)) for i in range(2))
    place = torch.rand(count, generator=generator(2))
    codes = torch.stack([3 - colour, (place * 8).long()], dim=1)
    rgb = torch.stack([colour.float(), -colour.float()], dim=1) + 0.01 * randn(count, 2)
    table = svq.information(svq.Objects(codes, {"colour": colour, "shape": shape, "x": place, "rgb": rgb}))
    assert table["colour"] == pytest.approx([1, 0], abs=0.01)
    assert table["shape"] == pytest.approx([0, 0], abs=0.01)
    assert table["x"][1] > 0.9 and table["x"][0] < 0.01
    assert table["rgb"][0] > 0.6


def test_nothing_can_be_said_of_no_objects():
    nothing = svq.Objects(torch.zeros(0, 4, dtype=torch.int64), {"size": torch.zeros(0)})
    with pytest.raises(ValueError, match="no objects"):
        svq.information(nothing)
    with pytest.raises(ValueError, match="no codes"):
        svq.information(svq.Objects(None, {"size": torch.zeros(3)}, torch.zeros(3, 8)))


def test_objects_are_paired_with_the_slots_that_cover_them():
    scenes = data.make("shapes", 6, num_objects=2).batch(range(6))
    codes = torch.arange(3).view(1, 3, 1).expand(6, 3, 4)
    masks = nn.functional.one_hot((scenes["mask"].long() + 1) % 3, 3).movedim(-1, 1).float()  # object i is slot i + 1
    slots = codes[..., :2].float() + 0.5
    known = svq.SVQOutput(None, None, masks, slots, None, None, codes, None)
    found = svq.objects_found(lambda image, generator: known, scenes)
    assert found.codes[:, 0].tolist() == [2, 0] * 6 and found.slots[:, 0].tolist() == [2.5, 0.5] * 6
    assert torch.equal(found.properties["colour"], scenes["objects"]["colour"][scenes["objects"]["present"]])
    free = AutoencoderOutput(None, None, masks, slots, None, None)
    continuous = svq.objects_found(lambda image, generator: free, scenes)
    assert continuous.codes is None and torch.equal(continuous.slots, found.slots)
    empty = known._replace(masks=masks.flip(2))
    assert len(svq.objects_found(lambda image, generator: empty, scenes, overlap=0.9).codes) < 12


def test_an_object_that_cannot_be_seen_is_left_out():
    scenes = data.make("shapes", 4, num_objects=2).batch(range(4))
    scenes["mask"] = scenes["mask"].clamp(max=1)  # no pixel of any second object
    masks = nn.functional.one_hot(scenes["mask"].long(), 3).movedim(-1, 1).float()
    free = AutoencoderOutput(None, None, masks, torch.arange(3.0).view(1, 3, 1).expand(4, 3, 1), None, None)
    found = svq.objects_found(lambda image, generator: free, scenes)
    assert found.slots[:, 0].tolist() == [1] * 4
    everything = svq.objects_found(lambda image, generator: free, scenes, overlap=0.0)
    assert everything.slots[:, 0].tolist() == [1, 0] * 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda codes: svq.swap(codes, 4, 0, 1), "block must be below 4, got 4"),
        (lambda codes: svq.swap(codes, 0, 0, 3), "second must be below 3, got 3"),
        (lambda codes: svq.swap(codes, 0, -1, 1), "first must be a whole number, at least 0, got -1"),
        (lambda codes: svq.swap(codes.float(), 0, 0, 1), "codes must be integers"),
        (lambda codes: svq.information(None), "objects must be what objects_found returns, got None"),
        (lambda codes: svq.information(svq.Objects(codes[0], {}), bins=0), "bins must be a whole number"),
        (lambda codes: svq.objects_found(None, {}), "model must be a model of slots, got None"),
        (lambda codes: svq.objects_found(model(), [images()]), "scenes must be a batch with an image"),
        (lambda codes: svq.objects_found(model(), {"image": 0}, overlap="half"), "overlap must be a finite number"),
        (lambda codes: svq.exchange_effects(PatchVQVAE(PatchConfig(16, 4, 8, 8)), images()), "got a PatchVQVAE"),
        (lambda codes: svq.exchange_effects(model(), images(), least=257), "least must be few enough pixels"),
        (lambda codes: svq.merge_synonyms(model(), images(), share=-1), "share must be a finite number, at least 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2, 3, 4).long())


# --- synonyms ---


@pytest.fixture
def speaking():
    """A model whose codes 1 and 4 of block 2 are all but the same, and some scenes."""
    torch.manual_seed(0)
    model = SVQAutoencoder(small(quantizer=Nearest(4, 6))).eval()
    with torch.no_grad():
        model.quantizer.codebook.normal_(generator=generator(1))
        model.quantizer.counts.fill_(1.0)
        model.quantizer.codebook[2, 4] = model.quantizer.codebook[2, 1] + 1e-3
    return model, data.make("shapes", 24, seed=3, **SCENES.options).batch(range(24))["image"]


def test_effects_of_exchanges_are_those_of_single_drawings(speaking):
    model, images = speaking
    effect = svq.exchange_effects(model, images, generator=generator())
    torch.testing.assert_close(effect, effect.mT, equal_nan=True)
    source = generator()
    output = model(images, generator=source)
    owned = torch.stack([(output.masks.argmax(1) == k).flatten(1).sum(1) for k in range(3)], dim=1)
    slots = torch.multinomial((owned >= 20).float(), 1, generator=source)[:, 0]
    total, tried = torch.zeros(6, 6), torch.zeros(6, 6)
    for scene, slot in zip(output.codes, slots, strict=True):
        for other in range(6):
            changed = scene.clone()
            changed[slot, 2] = other
            pictures = model.decode(torch.stack([scene, changed])).image
            total[scene[slot, 2], other] += (pictures[0] - pictures[1]).square().sum()
            tried[scene[slot, 2], other] += 1
    close(effect[2], (total + total.T) / (tried + tried.T), equal_nan=True, rtol=1e-3, atol=1e-6)


def test_codes_that_draw_the_same_become_one_word_and_no_others(speaking):
    model, images = speaking
    before = model(images, generator=generator())
    words = svq.merge_synonyms(model, images, 1e-3, generator())
    assert [1, 4] in words[2] and sum(len(group) > 1 for groups in words for group in groups) == 1
    assert [sorted(itertools.chain(*groups)) for groups in words] == [list(range(6))] * 4
    after = model(images, generator=generator())
    assert not (after.codes[..., 2] == 4).any()
    close(after.reconstruction, before.reconstruction, atol=0.01, rtol=0)
    rounded = SVQAutoencoder(small(quantizer=FiniteScalar(4, [3, 3])))
    with pytest.raises(ValueError, match="only codes of a VectorQuantizer"):
        svq.merge_synonyms(rounded, images)


# --- training ---


def train(folder, model=SMALL, scenes=SCENES, **changes):
    config = Config(model=model, data=scenes, train=dataclasses.replace(SHORT, **changes))
    return training.train(config, folder, progress=False)


def same(one, other):
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return train(folder), folder


def test_a_run_is_the_loop_written_by_hand(trained):
    torch.manual_seed(0)
    by_hand = SVQAutoencoder(SMALL)
    optimizer = torch.optim.Adam(by_hand.parameters())
    scenes = data.make("shapes", 1_000_000, seed=1, **SCENES.options)
    order = training.scene_order(1_000_000, 4, 0, 0, 0, 1)
    for step in range(SHORT.steps):
        optimizer.param_groups[0]["lr"] = training.learning_rate(step, SHORT)
        batch = scenes.batch(next(order))["image"]
        optimizer.zero_grad()
        by_hand.loss(batch, Draws(training.step_generator(0, step))).backward()
        optimizer.step()
        by_hand.update(Draws(training.step_generator(0, step)))
    assert same(trained[0], by_hand)
    assert by_hand.quantizer.placed


def test_an_interrupted_run_ends_bit_for_bit_like_one_that_was_not(trained, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "evaluate", interrupted)  # at step 4; saved at step 2
        train(tmp_path)
    assert same(train(tmp_path), trained[0])


def test_slots_stay_continuous_until_their_time(tmp_path):
    later = train(tmp_path, small(quantise=Ramp(1, after=0.5)), steps=4, eval_every=2)
    assert later.quantizer.placed
    log = read_log(tmp_path)
    for name in ("utilisation", "perplexity", "quantisation_error"):
        assert np.isnan(log[name][1]) and log[name][3] > 0


def compare_compiled() -> None:
    """For test_compiled.py: compiled, padding changes no code, and a loss has the same gradient."""
    module = of_any_kind(Nearest(2, 6), "implicit", 2, "gaussian", 0)
    (x, mask), start = padded(randn(2, 10, 5).double()), randn(2, 3, 8, seed=1).double()
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    found, expected = (
        each(x.requires_grad_(), slots=start, mask=mask, num_iterations=1) for each in (compiled, module)
    )
    close(found.slots, expected.slots)
    close(found.attention, expected.attention)
    assert torch.equal(found.quantised[-1].indices, expected.quantised[-1].indices)
    close(*(torch.autograd.grad(each.slots.square().sum(), x)[0] for each in (found, expected)))
    ours, theirs = (model(num_iterations=1).train() for _ in range(2))
    ours.loss(images(), draws()).backward()
    torch.compile(theirs.loss, backend="eager")(images(), draws()).backward()
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            close(one.grad, other.grad, rtol=1e-3, atol=1e-6)


def test_a_run_leaves_its_card_and_how_its_codes_are_used(trained):
    autoencoder, folder = trained
    again = zoo.load(folder / "model")
    assert same(again, autoencoder) and again.config == SMALL
    (measured,) = again.card["metrics"]
    scores = evaluate(again, data.make("shapes", 8, seed=2, **SCENES.options), 8).means
    assert measured["utilisation"] == pytest.approx(scores["utilisation"], abs=1e-5)
    log = read_log(folder)
    for name in ("utilisation", "perplexity", "quantisation_error"):
        blocks = [log[f"{name}_{i}"][-1] for i in range(4)]
        assert log[name][-1] == pytest.approx(np.mean(blocks), rel=1e-5)
        assert blocks == pytest.approx([scores[f"{name}_{i}"] for i in range(4)], rel=1e-4)
    assert next(iter(measured)) == "drawn_fg_ari"


def test_the_preset_is_what_it_says():
    preset = cli.read_config("svq_preset").model
    codes = preset.attention.quantizer
    assert (preset.attention.num_slots, preset.attention.slot_dim) == (4, 64)
    assert (codes.num_blocks, codes.num_codes, codes.commitment) == (4, 512, 0.25)
    assert SVQAutoencoder(preset).quantizer.codebook.shape == (4, 512, 16)
