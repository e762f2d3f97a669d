"""Checkpoints of before: flat configurations, priors as a mode of their autoencoders, scores that did not say of which
masks, scenes in the first look."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

Fields = dict[str, Any]


def converted(tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> tuple[dict[str, Tensor], Fields]:
    """Weights and card as they are written today; those of today pass through."""
    today = modern(card)
    if today["model"] == card.get("model"):
        own = [name for name in tensors if "format" in card or not name.startswith(("prior.", "blank"))]
        return {name: tensors[name] for name in own}, today
    inside = {n if n.startswith(("prior.", "blank")) else f"autoencoder.{n}": t for n, t in tensors.items()}
    return inside, today


def modern(card: Mapping[str, Any]) -> Fields:
    """A card as it is written today. Raises ValueError for one of 0.1 that lacks a field."""
    model, flat = card.get("model"), card.get("configuration")
    if "format" in card or not isinstance(flat, Mapping) or model not in CONVERSIONS:
        return _scored({"model": model, **card})
    try:
        return _scored({**card, **_today(model, {**LATE, **flat}), **_drawn(card)})
    except KeyError as missing:
        raise ValueError(f"the card's configuration lacks the field {missing}") from None


def _drawn(card: Mapping[str, Any]) -> Fields:
    """Of datasets that have a second look by now, the scenes were drawn in the first."""
    match card.get("dataset"):
        case {"name": "tetrominoes" | "multi_dsprites", "options": dict(options)} as dataset:
            return {"dataset": {**dataset, "options": {"look": "first", **options}}}
    return {}


def _scored(card: Fields) -> Fields:
    """Scores by names that say which masks they read. They were of `masks`, with `fg_ari_drawn` beside them."""
    try:
        made = card["configuration"]
        made = made["autoencoder"]["init_args"] if card["model"] == "CodePrior" else made
        kind = "posterior" if made["likelihood"]["class_path"] == "Mixture" else "drawn"
    except (KeyError, TypeError):  # of another model, or no card at all
        return card
    of_masks = "fg_ari", "ari", "mbo", "miou", "fg_ari_restarts_4"
    names = {"fg_ari_drawn": "drawn_fg_ari", **{name: f"{kind}_{name}" for name in of_masks}}

    def renamed(entry: Fields) -> Fields:
        found = {names.get(name, name): value for name, value in entry.items()}
        leading = {name: found[name] for name in ("drawn_fg_ari",) if name in found}
        return {**leading, **found}

    parts = ("metrics", "seeds", "elsewhere")
    return {**card, **{part: [renamed(entry) for entry in card[part]] for part in parts if part in card}}


def _today(model: str, flat: Fields) -> Fields:
    """A prior was a part of its autoencoder, trained or not. One that was trained is a model now, around it."""
    nested = CONVERSIONS[model](flat)
    if flat.get("learn") != "prior":
        return {"configuration": nested}
    prior = {
        "autoencoder": _part(model, **nested),
        "restarts": flat["write_restarts"],
        "synonyms": flat["synonyms"],
        "blanks": flat["blanks"],
        "order": flat["order"],
        "dim": flat["prior_dim"],
        "num_layers": flat["prior_layers"],
        "num_heads": flat["prior_heads"],
    }
    return {"model": "CodePrior", "configuration": prior}


def _part(class_path: str, **fields: Any) -> Fields:
    return {"class_path": class_path, "init_args": fields}


def _encoder(flat: Fields, stride: int = 1) -> Fields:
    channels = flat["encoder_channels"]
    return (
        _part("Strided", channels=channels)
        if flat["encoder"] == "strided"
        else _part("Paper", channels=channels, stride=stride)
    )


def _attention(flat: Fields) -> Fields:
    names = "slot_dim num_slots num_iterations num_heads mlp_hidden_dim slot_init gradient gradient_steps tolerance"
    return {name: flat[name] for name in names.split() if name in flat}


def _decoder(flat: Fields) -> Fields:
    channels, colour = flat["decoder_channels"], flat["colour"]
    if flat["decoder"] == "separable":
        fields = {"rank": flat["decoder_rank"], "stride": flat["train_stride"]}
        if flat["colour_blocks"]:
            fields["colour_dims"] = flat["colour_blocks"] * flat["slot_dim"] // flat["num_blocks"]
        return _part("Separable", channels=channels, colour=colour, **fields)
    if flat["decoder"] == "coordinate":
        return _part("Coordinate", channels=channels, colour=colour, pixels=flat["train_pixels"])
    return _part("Broadcast", channels=channels)


def _autoencoder(flat: Fields) -> Fields:
    mixture = _part("Mixture", noise=flat["noise"], sparsity=flat["parsimony"])
    return {
        "resolution": flat["resolution"],
        "encoder": _encoder(flat),
        "attention": _attention(flat),
        "decoder": _decoder(flat),
        "likelihood": mixture if flat["likelihood"] == "mixture" else _part("Average"),
    }


def _quantizer(flat: Fields) -> Fields:
    blocks = flat["num_blocks"]
    if flat["quantizer"] == "gumbel":
        return _part("Gumbel", num_blocks=blocks, num_codes=flat["num_codes"], temperature=flat["temperature"])
    if flat["quantizer"] == "fsq":
        return _part("FiniteScalar", num_blocks=blocks, levels=flat["levels"])
    names = "num_codes", "commitment", "decay", "revive"
    return _part("Nearest", num_blocks=blocks, learn=flat["quantizer"], **{name: flat[name] for name in names})


def _svq(flat: Fields) -> Fields:
    own = {name: flat[name] for name in ("mixing", "search_iterations")}
    attention = {**_attention(flat), **own, "quantizer": _quantizer(flat)}
    return {**_autoencoder(flat), "attention": attention, "colour_lead": flat["colour_lead"]}


def _patches(flat: Fields) -> Fields:
    return {**{n: flat[n] for n in ("resolution", "patch", "channels", "dim")}, "quantizer": _quantizer(flat)}


def _sets(flat: Fields) -> Fields:
    names = "kind", "resolution", "loss", "supervised_iterations", "coordinate_scale"
    return {**{n: flat[n] for n in names}, "encoder": _encoder(flat, stride=2), "attention": _attention(flat)}


LATE = {
    "train_stride": 1,
    "likelihood": "average",
    "noise": 0.15,
    "parsimony": 0.0,
    "temperature": 1.0,
    "search_iterations": 0,
    "colour_blocks": 0,
    "colour_lead": 0.0,
    "synonyms": 0.0,
    "blanks": False,
    "write_restarts": 1,
}
"""Fields that not all cards of 0.1 have, and what they were without."""

CONVERSIONS = {
    "SlotAutoencoder": _autoencoder,
    "SetPredictor": _sets,
    "SVQAutoencoder": _svq,
    "PatchVQVAE": _patches,
}
"""Class on a card of 0.1 → its flat configuration in today's form. (No SLATE model was shipped.)"""
