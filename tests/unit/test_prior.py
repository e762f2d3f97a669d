"""A prior's probabilities sum to one, samples are as frequent as they are likely, and an autoencoder around stays."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from slotlib import checkpoint, cli, data, training, zoo
from slotlib.autoencoder import AutoencoderConfig, SlotAutoencoder
from slotlib.decoders import Separable
from slotlib.encoders import Strided
from slotlib.log import read_log
from slotlib.model import Draws, Model
from slotlib.patches import PatchConfig, PatchVQVAE
from slotlib.prior import (
    CodePrior,
    CodePriorConfig,
    ScenePrior,
    Transformer,
    canonical_order,
    log_orders,
    nucleus_sample,
    random_order,
)
from slotlib.slate import SlateAutoencoder, SlateConfig
from slotlib.svq import QuantisedAttentionConfig, SVQAutoencoder, SVQConfig
from slotlib.training import Config, DataConfig, TrainConfig
from slotlib.vq import Nearest

close = torch.testing.assert_close


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(seed=0):
    return Draws(generator(seed))


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


def prior(slots=3, blocks=2, codes=4, seed=0, **options):
    torch.manual_seed(seed)
    built = ScenePrior(slots, blocks, codes, **{"dim": 16, "num_layers": 2, "num_heads": 2, **options}).double()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # no longer uniform
    return built


def test_probabilities_sum_to_one_over_all_scenes():
    every = torch.tensor(list(itertools.product(range(3), repeat=4))).view(-1, 2, 2)
    likelihood = prior(2, 2, 3).log_likelihood(every)
    assert likelihood.exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert likelihood.std() > 0.1


def test_a_token_is_predicted_from_earlier_ones_only():
    built, codes = prior(), torch.randint(4, (1, 3, 2), generator=generator())
    before = built.logits(codes)
    for place in range(6):
        changed = codes.flatten(1).clone()
        changed[0, place] = (changed[0, place] + 1) % 4
        same = (built.logits(changed.view(1, 3, 2)) - before).abs().flatten(1, 2).amax(-1)[0] < 1e-12
        assert same[: place + 1].all() and not same[place + 1 :].any()


def test_blocks_have_vocabularies_of_their_own():
    """The due block's softmax is the softmax over all blocks' codes with those of the others masked."""
    built, codes = prior(), torch.randint(4, (5, 3, 2), generator=generator())
    vectors = built.transformer(built._vectors(codes))
    everything = vectors @ built.head.flatten(0, 1).T  # [batch, tokens, blocks · codes]
    block = torch.arange(6) % 2
    due = torch.arange(8).view(1, 1, 8) // 4 == block.view(1, 6, 1)
    masked = everything.masked_fill(~due, -math.inf).log_softmax(-1)
    index = (codes + 4 * torch.arange(2)).flatten(1).unsqueeze(-1)
    close(masked.gather(-1, index).sum((1, 2)), built.log_likelihood(codes))
    # Embeddings too: the same number in another block is another word.
    swapped = built.logits(torch.tensor([[[1, 2], [0, 0], [0, 0]]])) - built.logits(
        torch.tensor([[[2, 1], [0, 0], [0, 0]]])
    )
    assert swapped[0, 1].abs().max() > 1e-3


@pytest.mark.parametrize("given", [0, 1, 3])
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.8)])
def test_cached_sampling_draws_the_same_scenes(given, temperature, top_p):
    built = prior()
    start = torch.randint(4, (8, given, 2), generator=generator(1))
    options = dict(given=start, temperature=temperature, top_p=top_p)
    one = built.sample(8, generator=generator(), **options)
    other = built.sample(8, generator=generator(), cached=False, **options)
    assert torch.equal(one, other) and torch.equal(one[:, :given], start)
    assert one.shape == (8, 3, 2) and one.min() >= 0 and one.max() < 4


def test_samples_are_as_frequent_as_they_are_likely():
    built = prior(2, 1, 3)
    every = torch.tensor(list(itertools.product(range(3), repeat=2))).view(-1, 2, 1)
    drawn = built.sample(20_000, generator=generator()).flatten(1)
    share = (drawn[:, 0] * 3 + drawn[:, 1]).bincount(minlength=9) / len(drawn)
    close(share.double(), built.log_likelihood(every).exp(), rtol=0, atol=0.015)


def test_top_p_leaves_the_fewest_codes_that_reach_it_and_cold_the_best():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(4000, 4)
    for top_p, allowed in ((0.4, 1), (0.6, 2), (0.85, 3), (1.0, 4)):
        assert nucleus_sample(logits, top_p=top_p, generator=generator()).unique().tolist() == list(range(allowed))
    assert nucleus_sample(logits, temperature=1e-3, generator=generator()).max() == 0
    share = (nucleus_sample(logits, top_p=0.6, generator=generator()) == 0).double().mean().item()
    assert share == pytest.approx(0.5 / 0.8, abs=0.03)


# --- a memory ---


def test_a_writer_writes_what_its_memory_says():
    torch.manual_seed(0)
    writer = ScenePrior(6, 1, 5, dim=16, num_layers=1, num_heads=2, memory_dim=8)
    memory, tokens = randn(2, 3, 8), torch.randint(5, (2, 6, 1), generator=generator())
    optimizer = torch.optim.Adam(writer.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        (-writer.log_likelihood(tokens, memory).sum()).backward()
        optimizer.step()
    assert torch.equal(writer.sample(2, memory=memory, temperature=1e-4), tokens)
    assert torch.equal(writer.sample(2, memory=memory.flip(0), temperature=1e-4, cached=False), tokens.flip(0))
    close(writer.log_likelihood(tokens, memory[:, [2, 0, 1]]), writer.log_likelihood(tokens, memory))  # a set


def test_a_prior_with_a_memory_does_not_do_without_it():
    writer, codes, memory = (
        ScenePrior(6, 1, 5, dim=16, num_heads=2, memory_dim=8),
        torch.zeros(2, 6, 1).long(),
        randn(2, 3, 8),
    )
    for call in (
        lambda: writer.sample(2),
        lambda: writer.logits(codes),
        lambda: writer.log_likelihood(codes),
        lambda: writer.sample(2, memory=memory[..., :7]),
        lambda: writer.logits(codes, memory[0]),
        lambda: writer.logits(codes, memory[:1]),
    ):
        with pytest.raises(ValueError, match=r"memory must be floating point \[batch=2, items, memory_dim=8\], got"):
            call()
    with pytest.raises(ValueError, match="memory must be None where memory_dim is 0"):
        ScenePrior(6, 1, 5, dim=16, num_heads=2).sample(2, memory=memory)


# --- sets ---


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=8, max_size=8), st.permutations(range(4)))
def test_a_set_has_one_order(codes, order):
    scene = torch.tensor(codes).view(1, 4, 2)
    ordered = canonical_order(scene)
    assert torch.equal(canonical_order(scene[:, list(order)]), ordered)
    assert sorted(scene[0].tolist()) == ordered[0].tolist()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=4, max_size=4), st.integers(0, 2**30))
def test_blanks_come_last_and_their_order_is_none(words, seed):
    """Every order of the other slots occurs, and only those: as many as `log_orders` says."""
    scene, blank = torch.tensor([[[word, word]] for word in words]).transpose(0, 1), torch.tensor([0, 0])
    many = scene.expand(400, -1, -1)
    shuffled = random_order(many, draws(seed), blank=blank)
    assert torch.equal(canonical_order(shuffled), canonical_order(many))
    full = (shuffled != 0).all(2)
    assert (full[:, :-1] >= full[:, 1:]).all()
    assert len(shuffled.unique(dim=0)) == round(log_orders(scene, blank).exp().item())


def test_shuffled_scenes_are_the_same_scenes_and_the_batchs_however_it_is_shared_out():
    codes = torch.randint(9, (6, 5, 2), generator=generator())
    whole = random_order(codes, draws())
    assert torch.equal(canonical_order(whole), canonical_order(codes)) and not torch.equal(whole, codes)
    for i in range(3):
        assert torch.equal(random_order(codes[i::3], Draws(generator(), i, 3)), whole[i::3])


# --- the model ---

ATTENTION = QuantisedAttentionConfig(16, 3, 2, mlp_hidden_dim=16, quantizer=Nearest(4, 10))
AUTOENCODERS = {
    "svq": SVQConfig(16, Strided(8), ATTENTION, Separable(8)),
    "patches": PatchConfig(16, 4, 8, 8, Nearest(1, 12)),
    "slate": SlateConfig(16, Strided(8), ATTENTION, vocabulary=6, token_channels=8, token_dim=16, num_layers=1),
}
KINDS = {"svq": SVQAutoencoder, "patches": PatchVQVAE, "slate": SlateAutoencoder}
PRIOR = dict(dim=16, num_layers=1, num_heads=2)


def images(count=3):
    return torch.rand(count, 3, 16, 16, generator=generator())


def autoencoder(kind="svq", seed=0):
    torch.manual_seed(seed)
    return KINDS[kind](AUTOENCODERS[kind]).eval()


def model(kind="svq", **changes):
    torch.manual_seed(0)
    return CodePrior(CodePriorConfig(checkpoint.spec(autoencoder(kind)), **{**PRIOR, **changes})).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_prior_samples_is_drawn_and_likely(kind):
    around, codes = model(kind), None
    codes = around.sample(2, generator=generator())
    assert codes.shape == (2, around.autoencoder.places, around.autoencoder.quantizer.num_blocks)
    image = around.decode(codes).image
    assert image.shape == (2, 3, 16, 16) and image.isfinite().all()
    assert (around.log_likelihood(codes, generator=generator()) < 0).all()
    assert torch.equal(around.tokenise(images(), draws()), around.autoencoder.tokenise(images(), draws()))
    out, inside = (each(images(), generator=generator()) for each in (around, around.autoencoder))
    assert type(out) is type(inside) and torch.equal(out.codes, inside.codes)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_prior_learns_and_its_autoencoder_stays_as_in_use(kind):
    around = model(kind).train()
    assert around.prior.training and not any(part.training for part in around.autoencoder.modules())
    assert {name.split(".")[0] for name, p in around.named_parameters() if p.requires_grad} == {"prior"}
    (codes,) = around.kept(images(), draws=draws())
    around.loss(codes, draws()).backward()
    assert all(parameter.grad is not None for parameter in around.prior.parameters())


def test_a_set_is_learned_in_random_orders_and_patches_in_their_own():
    codes = torch.randint(9, (5, 3, 4), generator=generator())
    for order, expected in (("random", random_order(codes, draws())), ("sorted", canonical_order(codes))):
        around = model(order=order)
        close(around.loss(codes, draws()), -around.prior.log_likelihood(expected).mean())
    around, grid = model("patches"), torch.randint(12, (5, 16, 1), generator=generator())
    close(around.loss(grid, draws()), -around.prior.log_likelihood(grid).mean())
    close(around.log_likelihood(grid), around.prior.log_likelihood(grid))


def test_the_likelihood_of_sorted_slots_does_not_depend_on_their_order():
    around, codes = model(order="sorted"), torch.randint(9, (4, 3, 4), generator=generator())
    close(around.log_likelihood(codes[:, [2, 0, 1]]), around.log_likelihood(codes))


def test_the_likelihood_of_a_set_is_that_of_all_its_orders():
    around = model(order="random").double()
    codes = torch.randint(9, (3, 3, 4), generator=generator())
    codes[1, 1], codes[2] = codes[1, 0], codes[2, :1]  # two slots alike; all three
    for scene, different in zip(codes, (6, 3, 1), strict=True):
        texts = torch.stack([scene[list(order)] for order in itertools.permutations(range(3))]).unique(dim=0)
        assert len(texts) == different
        exact = around.prior.log_likelihood(texts).logsumexp(0)
        estimate = around.log_likelihood(scene.unsqueeze(0), orders=200, generator=generator())
        close(estimate[0], exact, rtol=0, atol=0.02)


def test_the_likelihood_of_a_set_with_blanks_is_that_of_the_orders_of_the_others():
    around = model(order="random", blanks=True).double()
    codes = torch.randint(1, 9, (1, 3, 4), generator=generator())
    codes[0, 1] = around.blank
    texts = codes[:, [[0, 2, 1], [2, 0, 1]]][0]
    exact = around.prior.log_likelihood(texts).logsumexp(0)
    around.with_blanks = lambda codes: codes  # what an untrained decoder draws says nothing
    estimate = around.log_likelihood(codes, orders=200, generator=generator())
    close(estimate[0], exact, rtol=0, atol=0.02)


def test_empty_slots_are_all_written_alike():
    blank = zoo.load("svq_draft_shapes")
    blank.config.restarts = 1
    plain = CodePrior(dataclasses.replace(blank.config, blanks=False))
    plain.load_state_dict({name: tensor for name, tensor in blank.state_dict().items() if name != "blank"})
    pictures = data.make("shapes", 24, seed=3).batch(range(24))["image"]
    word = blank.find_blank(pictures, draws())
    codes = blank(pictures, generator=generator()).codes
    tidy = blank.with_blanks(codes)

    def owners(codes):
        return blank.decode(codes).masks.argmax(1)

    empty = (F.one_hot(owners(codes), 7).sum((1, 2)) == 0).unsqueeze(2)
    assert 10 < empty.sum() < 100  # scenes of two to six objects, seven slots
    assert torch.equal(tidy, torch.where(empty, word, codes))
    assert torch.equal(owners(tidy), owners(codes))
    assert torch.equal(blank.with_blanks(tidy), tidy)
    # What an empty slot says has no part in the likelihood of a scene, and in what the prior learns.
    other = torch.where(empty, codes[empty[..., 0]][0], codes)
    likely = [blank.log_likelihood(each, generator=generator()) for each in (codes, tidy, other)]
    close(likely[0], likely[1])
    close(likely[0], likely[2])
    assert torch.equal(blank.tokenise(pictures, draws()), tidy)
    assert torch.equal(plain.with_blanks(codes), codes)


def test_a_scene_with_another_number_of_slots_has_no_likelihood():
    scenes = data.make("shapes", 4, seed=2, num_objects=2, resolution=16).batch(range(4))
    around = model()
    judged, other = around.judge(scenes, draws()), around.judge(scenes, draws(), num_slots=5)
    assert next(iter(judged)) == "drawn_fg_ari" and judged["nats"].isfinite().all() and other["nats"].isnan().all()
    nats = judged["nats"].mean().item()
    assert around.summarise(judged)["nats"] == pytest.approx(nats)
    assert around.summarise(judged).keys() - around.autoencoder.summarise(around.autoencoder.judge(scenes)).keys() == {
        "nats"
    }


def test_a_scene_may_be_read_with_another_search_than_its_codes_were_learned_with():
    first = checkpoint.spec(autoencoder())
    longer = CodePrior(CodePriorConfig(first, reading={"num_iterations": 7, "search_iterations": 4}, **PRIOR))
    attention = longer.autoencoder.slot_attention
    assert (attention.num_iterations, attention.search_iterations) == (7, 4)
    assert longer.config.reading == {}  # it is part of the autoencoder now
    assert longer.config.autoencoder["init_args"]["attention"]["num_iterations"] == 7


# --- bad input ---


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ScenePrior(2, 2, 0), "num_codes must be a whole number, at least 1, got 0"),
        (lambda: ScenePrior(2.5, 2, 3), "num_slots must be a whole number, at least 1, got 2.5"),
        (lambda: ScenePrior(2, 2, 4, num_heads=3), "num_heads must divide dim, got dim=128 and num_heads=3"),
        (lambda: ScenePrior(2, 2, 4, num_layers=0), "num_layers must be a whole number"),
        (lambda: ScenePrior(2, 2, 4, memory_dim=-1), "memory_dim must be a whole number, at least 0"),
        (lambda: Transformer(8, 1, 2)(torch.zeros(2, 3, 7)), r"x must be floating point \[batch, tokens, dim=8\]"),
        (lambda: prior().logits(torch.zeros(1, 2, 2).long()), r"codes must be integers \[batch, slots=3, blocks=2\]"),
        (lambda: prior().logits(torch.zeros(1, 3, 2)), r"codes must be integers \[batch, slots=3, blocks=2\]"),
        (lambda: prior().logits(None), "codes must be integers .* got None"),
        (lambda: prior().logits(torch.full((1, 3, 2), 4)), "codes must be within 0 and 3, got 4 to 4"),
        (lambda: prior().sample(0), "count must be a whole number, at least 1, got 0"),
        (lambda: prior().sample(1.5), "count must be a whole number, at least 1, got 1.5"),
        (lambda: prior().sample(top_p=0.0), "top_p must be a finite number, above 0"),
        (lambda: prior().sample(top_p=1.5), "top_p must be at most 1, got 1.5"),
        (lambda: prior().sample(temperature="cold"), "temperature must be a finite number, above 0, got 'cold'"),
        (lambda: prior().sample(generator=0), "generator must be a torch.Generator or None, got 0"),
        (
            lambda: prior().sample(given=torch.zeros(1, 2, 3).long()),
            r"given must be integers \[batch, slots, blocks=2\]",
        ),
        (lambda: prior().sample(given=torch.zeros(1, 4, 2).long()), "given must begin 1 scenes with at most 3 slots"),
        (lambda: prior().sample(2, given=torch.zeros(1, 2, 2).long()), "given must begin 2 scenes"),
        (lambda: nucleus_sample(torch.full((2, 3), math.nan)), "logits must not be NaN"),
        (lambda: nucleus_sample(torch.zeros(3)), r"logits must be floating point \[batch, codes\]"),
        (lambda: canonical_order(torch.zeros(2, 3)), r"codes must be integers \[batch, slots, blocks\]"),
        (lambda: random_order(torch.zeros(2, 3, 4).long(), generator()), "draws must be a slotlib.Draws"),
        (
            lambda: random_order(torch.zeros(2, 3, 4).long(), blank=torch.zeros(3).long()),
            r"blank must be integers \[blocks=4",
        ),
        (lambda: log_orders(None), "codes must be integers .* got None"),
        (lambda: model(order="magic"), r"order must be one of \('random', 'sorted'\), got 'magic'"),
        (lambda: model(restarts=0), "restarts must be a whole number, at least 1, got 0"),
        (lambda: model(synonyms=math.nan), "synonyms must be a finite number, at least 0"),
        (lambda: model(num_layers=0), "num_layers must be a whole number"),
        (lambda: model(reading={"magic": 3}), "reading does not fit the autoencoder: .*magic"),
        (lambda: model(reading={"num_blocks": 2}), "reading does not fit the autoencoder"),
        (lambda: model("patches", reading={"num_iterations": 3}), "reading does not fit the autoencoder"),
        (lambda: model().find_blank(images(), draws()), r"this model writes no blanks \(blanks=False\)"),
        (lambda: model("slate", blanks=True).find_blank(images(), draws()), "blanks=True: this decoder draws no slot"),
        (lambda: model("slate", blanks=True).tokenise(images(), draws()), "blanks=True: this decoder draws no slot"),
        (lambda: model("patches", synonyms=0.1).prepare({"image": images()}, draws()), "whose slots are codes"),
        (lambda: model().loss(images(), draws()), "codes must be integers"),
        (lambda: model().loss(torch.zeros(0, 3, 4).long(), draws()), "codes must be of at least one scene"),
        (lambda: model().log_likelihood(torch.zeros(1, 3, 4).long(), orders=0), "orders must be a whole number"),
        (
            lambda: model().log_likelihood(torch.zeros(1, 3, 4).long(), generator=1),
            "generator must be a torch.Generator",
        ),
        (lambda: CodePrior(CodePriorConfig()), "autoencoder must name the checkpoint of a finished model"),
        (lambda: CodePrior(CodePriorConfig(3)), "autoencoder must be str or dict.*, got 3"),
        (lambda: CodePrior(None), "config must be of kind CodePriorConfig, got None"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_autoencoder_without_codes_is_refused(tmp_path):
    plain = SlotAutoencoder(AutoencoderConfig(16, Strided(8), decoder=Separable(8)))
    checkpoint.save(plain, tmp_path / "plain", {})
    for source in (checkpoint.spec(plain), str(tmp_path / "plain")):
        with pytest.raises(ValueError, match="must be a model whose latents are codes, got a SlotAutoencoder"):
            CodePrior(CodePriorConfig(source))
    with pytest.raises(FileNotFoundError, match="no checkpoint 'nowhere'"):
        CodePrior(CodePriorConfig("nowhere"))


# --- training ---

SCENES = DataConfig(name="shapes", options={"num_objects": (1, 2), "resolution": 16})
SHORT = TrainConfig(
    steps=16,
    batch_size=4,
    lr=1e-2,
    warmup_steps=2,
    decay="cosine",
    eval_every=8,
    eval_images=8,
    log_every=8,
    save_every=16,
    accelerator="cpu",
)


def train(folder, config, scenes=SCENES):
    return training.train(Config(config, scenes, SHORT), folder, progress=False)


def saved(folder, kind="svq"):
    """An autoencoder whose codes are placed among what it sees."""
    first = autoencoder(kind).train()
    scenes = data.make("shapes", 32, seed=1, **SCENES.options).batch(range(32))["image"]
    first.loss(scenes, draws())
    first.update(draws())
    checkpoint.save(first.eval(), folder / kind, {"training": {}, "dataset": {}, "wall_seconds": 1.0})
    return first, str(folder / kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_prior_learns_from_a_finished_autoencoder_and_changes_nothing_else(kind, tmp_path):
    first, path = saved(tmp_path, kind)
    second = train(tmp_path / "second", CodePriorConfig(path, **PRIOR))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.autoencoder.state_dict()[name]), name
    log = read_log(tmp_path / "second")
    assert np.isfinite(log["utilisation"][-1])  # codes, not continuous slots
    nats = log["nats"][~np.isnan(log["nats"])]
    assert nats[-1] < nats[0]
    again = zoo.load(tmp_path / "second" / "model")
    assert again.config == second.config and again.config.autoencoder == checkpoint.spec(first)
    # What came before is told, the training of the autoencoder too.
    assert again.card["before"] == [{"training": {}, "dataset": {}, "wall_seconds": 1.0}]
    for name, tensor in second.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_a_prior_may_begin_by_merging_synonyms(tmp_path):
    first, path = saved(tmp_path)
    second = train(tmp_path / "second", CodePriorConfig(path, synonyms=0.9, **PRIOR))
    codebook = second.autoencoder.quantizer.codebook
    assert not torch.equal(first.quantizer.codebook, codebook)
    assert any(len(book.unique(dim=0)) < len(book) for book in codebook)


def test_a_prior_may_begin_by_choosing_the_blank(tmp_path):
    _, path = saved(tmp_path)
    second = train(tmp_path / "second", CodePriorConfig(path, blanks=True, **PRIOR))
    assert second.blank.dtype == torch.int64 and second.blank.shape == (4,)
    assert torch.equal(zoo.load(tmp_path / "second" / "model").blank, second.blank)


@pytest.mark.parametrize("kind", ["svq", "patches"])
def test_scenes_are_read_once_where_images_are_kept(kind, tmp_path, monkeypatch):
    first, path = saved(tmp_path, kind)
    restarts = 2 if kind == "svq" else 1
    learned = []
    with monkeypatch.context() as patch:
        patch.setattr(
            ScenePrior, "log_likelihood", lambda self, codes: learned.append(codes) or self.start.sum() + codes
        )
        patch.setattr(CodePrior, "judge", lambda *a, **k: {"nats": torch.zeros(1)})
        patch.setattr(CodePrior, "summarise", lambda *a: {"nats": 0.0})
        kept = dataclasses.replace(SCENES, size=12, keep=True)
        train(tmp_path / "second", CodePriorConfig(path, restarts=restarts, **PRIOR), kept)
    scenes = data.make("shapes", 12, seed=1, **SCENES.options).batch(range(12))["image"]
    texts = first.tokenise((scenes * 255).round() / 255, Draws(training.step_generator(0, 0)), restarts)
    seen = torch.cat(learned)
    if kind == "svq":
        seen, texts = canonical_order(seen), canonical_order(texts)
    assert len(seen) == 4 * SHORT.steps
    assert all((texts == text).flatten(1).all(1).any() for text in seen)


@pytest.mark.parametrize(
    ("family", "dataset", "stages"),
    [
        ("svq", "shapes", ["svq_draft_shapes", "svq_draft_shapes_prior"]),
        ("svq", "shapes", ["svq_shapes", "svq_shapes_prior"]),
        ("svq", "multi_dsprites", ["svq_multi_dsprites", "svq_multi_dsprites_prior"]),
        ("patches", "shapes", ["patches_shapes", "patches_prior"]),
        ("patches", "multi_dsprites", ["patches_multi_dsprites", "patches_prior"]),
    ],
)
def test_packaged_recipes_have_a_stage_for_the_prior(family, dataset, stages, tmp_path):
    first, second = cli.read_config(stages[0]), cli.read_config(stages[1], f"--data.name={dataset}")
    assert first.data.name == second.data.name and first.data.options == second.data.options
    checkpoint.save(Model.defined_by(first.model)(first.model), tmp_path / "first", {})
    around = CodePrior(dataclasses.replace(second.model, autoencoder=str(tmp_path / "first")))
    if family == "svq":
        attention = around.autoencoder.slot_attention
        expected = {"svq_shapes": (14, 10), "svq_multi_dsprites": (10, 7)}.get(stages[0], (16, 12))
        assert (attention.num_iterations, attention.search_iterations) == expected
        assert around.config.blanks and around.config.restarts == 16
    assert not second.train.start_parts
    assert sum(p.numel() for p in around.parameters()) * 4 < 5e6  # a checkpoint's limit
