"""Checkpoints of slotlib 0.1 load, and do what they did."""

import json

import pytest
import torch

from slotlib import checkpoint, data, older, zoo

OUTPUTS = {
    "clevr10_sets": (0.1933626, 7.175621),
    "clevr6_sets": (0.2061387, 7.919914),
    "patches_shapes": (0.1401701, 144.5391, -127.8787),
    "svq_draft_shapes": (0.1423308, 5.577699, 5.776786, -110.2909),
}
"""What 0.1 made of the first two scenes of seed 5: the mean of what it draws or predicts; the length of the first slot;
the mean code; the log likelihood of the first scene. Where there is such a thing."""


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_shipped_checkpoint_gives_what_it_gave(name):
    model, generator = zoo.load(name), torch.Generator()
    dataset = model.card["dataset"]
    images = data.make(dataset["name"], 2, seed=5, **dataset["options"]).batch(range(2))["image"]
    with torch.no_grad():
        output = model(images, generator=generator.manual_seed(0))._asdict()
        found = [output.get("reconstruction", output.get("properties")).mean()]
        if "slots" in output:
            found.append(output["slots"][0, 0].norm())
        if "codes" in output:
            nats = model.log_likelihood(output["codes"], generator=generator.manual_seed(0))
            found += [output["codes"].double().mean(), nats[0]]
    # Processors differ in the last digits, and iterations make more of them.
    assert [value.item() for value in found] == pytest.approx(OUTPUTS[name], rel=1e-4)


@pytest.mark.parametrize(("name", "options"), [("tetrominoes", {"look": "first"}), ("shapes", {})])
def test_scenes_that_have_another_look_today_were_drawn_in_the_first(name, options):
    card = {"dataset": {"name": name, "size": 3, "options": {}}, "model": "SlotAutoencoder"}
    today = older.modern({**card, "configuration": {**FLAT}})
    assert today["dataset"] == {"name": name, "size": 3, "options": options}
    assert older.modern({**card, "format": 2})["dataset"]["options"] == {}


def test_they_are_the_checkpoints_that_ship():
    assert list(OUTPUTS) == [name for name in zoo.names() if "format" not in json.loads(_card(name))]


def _card(name):
    return zoo.find(name).with_suffix(".json").read_text()


ATTENTION = dict(slot_dim=16, num_slots=3, num_iterations=2, num_heads=1, mlp_hidden_dim=8, slot_init="gaussian")
FLAT = {
    "resolution": 35,
    "encoder": "paper",
    "encoder_channels": 8,
    "decoder": "broadcast",
    "decoder_channels": 4,
    "colour": "pixel",
    "train_pixels": 0,
    "decoder_rank": 5,
    **ATTENTION,
}
CODES = {"num_blocks": 4, "num_codes": 6, "levels": [3, 4], "commitment": 0.2, "decay": 0.9, "revive": 0.1}
PRIOR = {"learn": "prior", "order": "sorted", "prior_dim": 96, "prior_layers": 3, "prior_heads": 4}


def part(class_path, **fields):
    return {"class_path": class_path, "init_args": fields}


@pytest.mark.parametrize(
    ("model", "fields", "expected"),
    [
        (
            "SlotAutoencoder",
            {},
            {"resolution": 35, "attention": ATTENTION, "encoder": part("Paper", channels=8, stride=1)},
        ),
        ("SlotAutoencoder", {}, {"decoder": part("Broadcast", channels=4), "likelihood": part("Average")}),
        ("SlotAutoencoder", {"encoder": "strided"}, {"encoder": part("Strided", channels=8)}),
        (
            "SlotAutoencoder",
            {"decoder": "coordinate", "colour": "slot", "train_pixels": 9},
            {"decoder": part("Coordinate", channels=4, colour="slot", pixels=9)},
        ),
        (
            "SlotAutoencoder",
            {"decoder": "separable", "train_stride": 2},
            {"decoder": part("Separable", channels=4, colour="pixel", rank=5, stride=2)},
        ),
        (
            "SlotAutoencoder",
            {"likelihood": "mixture", "noise": 0.2, "parsimony": 0.01},
            {"likelihood": part("Mixture", noise=0.2, sparsity=0.01)},
        ),
        (
            "SlotAutoencoder",
            {"gradient": "implicit", "gradient_steps": 3, "tolerance": 0.1},
            {"attention": {**ATTENTION, "gradient": "implicit", "gradient_steps": 3, "tolerance": 0.1}},
        ),
        (
            "SetPredictor",
            {"kind": "slot_mlp", "loss": "chamfer", "supervised_iterations": 1, "coordinate_scale": 2.0},
            {"kind": "slot_mlp", "loss": "chamfer", "encoder": part("Paper", channels=8, stride=2)},
        ),
        (
            "PatchVQVAE",
            {**CODES, "patch": 8, "channels": 4, "dim": 16, "quantizer": "gumbel", "learn": "autoencoder"},
            {"patch": 8, "quantizer": part("Gumbel", num_blocks=4, num_codes=6, temperature=1.0)},
        ),
    ],
)
def test_flat_fields_find_their_part(model, fields, expected):
    today = older.modern({"model": model, "configuration": {**FLAT, **fields}})
    assert today["model"] == model
    assert {name: today["configuration"][name] for name in expected} == expected


@pytest.mark.parametrize(
    ("quantizer", "expected"),
    [
        ("loss", part("Nearest", num_blocks=4, learn="loss", num_codes=6, commitment=0.2, decay=0.9, revive=0.1)),
        ("fsq", part("FiniteScalar", num_blocks=4, levels=[3, 4])),
    ],
)
def test_the_codes_of_slots_are_their_attention_s(quantizer, expected):
    fields = {**FLAT, **CODES, "quantizer": quantizer, "mixing": True, "decoder": "separable", "colour_blocks": 2}
    nested = older.modern({"model": "SVQAutoencoder", "configuration": fields})["configuration"]
    assert nested["attention"] == {**ATTENTION, "mixing": True, "search_iterations": 0, "quantizer": expected}
    assert nested["decoder"]["init_args"]["colour_dims"] == 8  # two blocks of width 4


def test_a_prior_is_a_model_around_its_autoencoder():
    fields = {**CODES, "resolution": 32, "patch": 8, "channels": 4, "dim": 16, "quantizer": "ema", **PRIOR}
    weights = {name: torch.zeros(1) for name in ("encoder.0.weight", "quantizer.codebook", "prior.start", "blank")}
    tensors, card = older.converted(weights, {"model": "PatchVQVAE", "configuration": fields, "metrics": []})
    assert sorted(tensors) == ["autoencoder.encoder.0.weight", "autoencoder.quantizer.codebook", "blank", "prior.start"]
    inside = card["configuration"].pop("autoencoder")
    assert (card["model"], inside["class_path"]) == ("CodePrior", "PatchVQVAE")
    assert card["configuration"] == {
        "restarts": 1,
        "synonyms": 0.0,
        "blanks": False,
        "order": "sorted",
        "dim": 96,
        "num_layers": 3,
        "num_heads": 4,
    }
    untrained = {"model": "PatchVQVAE", "configuration": {**fields, "learn": "autoencoder"}}
    tensors, card = older.converted(weights, untrained)
    assert (sorted(tensors), card["model"]) == (["encoder.0.weight", "quantizer.codebook"], "PatchVQVAE")


@pytest.mark.parametrize(("likelihood", "kind"), [("mixture", "posterior"), ("average", "drawn")])
def test_scores_say_of_which_masks_they_are(likelihood, kind):
    """They were of `masks`, which only a mixture's image has a part in."""
    entry = {"fg_ari": 0.9, "ari": 0.8, "mbo": 0.7, "miou": 0.6, "mse": 0.1, "images": 640}
    if kind == "posterior":
        entry["fg_ari_drawn"] = 0.5
    seed = {"seed": 3, "fg_ari": 0.9, "fg_ari_restarts_4": 0.95}
    fields = {**FLAT, "likelihood": likelihood, "noise": 0.2}
    flat = {"model": "SlotAutoencoder", "configuration": fields, "metrics": [entry], "seeds": [seed]}
    for card in (flat, {**older.modern(flat), "format": 1, "metrics": [entry], "seeds": [seed]}):
        today = older.modern(card)
        (found,), (run,) = today["metrics"], today["seeds"]
        assert next(iter(found)) == "drawn_fg_ari" and found["drawn_fg_ari"] == (0.5 if kind == "posterior" else 0.9)
        assert [found[f"{kind}_{name}"] for name in ("fg_ari", "ari", "mbo", "miou")] == [0.9, 0.8, 0.7, 0.6]
        assert found["mse"] == 0.1 and found["images"] == 640 and not {"fg_ari", "ari", "fg_ari_drawn"} & found.keys()
        assert run == {"seed": 3, f"{kind}_fg_ari": 0.9, f"{kind}_fg_ari_restarts_4": 0.95}
        assert older.modern({**today, "format": 1}) == {**today, "format": 1}


def test_what_is_of_today_passes_through():
    weights = {"prior.start": torch.zeros(1), "blank": torch.zeros(1)}
    card = {"format": checkpoint.FORMAT, "model": "SlotAutoencoder", "configuration": {"resolution": 64}}
    assert older.converted(weights, card) == (weights, card)
    for unknown in ({"model": "mine.MyModel", "configuration": FLAT}, {"model": "SetPredictor", "configuration": None}):
        assert older.modern(unknown) == unknown


def test_a_card_that_lacks_a_field_is_refused():
    with pytest.raises(ValueError, match="the card's configuration lacks the field 'encoder_channels'"):
        older.modern({"model": "SlotAutoencoder", "configuration": {"resolution": 35}})
