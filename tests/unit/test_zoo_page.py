"""The page "Model zoo" shows every shipped model as it is: its own weights, its own seeds, and scenes nobody chose."""

import csv
import importlib.util
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import slotlib
from slotlib import baselines, checkpoint, training, zoo
from slotlib.autoencoder import AutoencoderConfig, SlotAutoencoder
from slotlib.data.export import export
from slotlib.decoders import Separable
from slotlib.encoders import Strided
from slotlib.evaluation import evaluate
from slotlib.likelihoods import Average, Mixture
from slotlib.metrics import MASK_SCORES
from slotlib.model import Ramp
from slotlib.patches import PatchConfig, PatchVQVAE
from slotlib.prior import CodePrior, CodePriorConfig
from slotlib.slot_attention import AttentionConfig
from slotlib.svq import QuantisedAttentionConfig, SVQAutoencoder, SVQConfig
from slotlib.vq import Nearest

MEND = "run `python book/tools/zoo.py`, and `make book` to look at it"
SHIPPED = [
    name
    for name in zoo.names()
    if "drawn_fg_ari" in json.loads(zoo.find(name).with_suffix(".json").read_text("utf-8"))["metrics"][0]
]


def loaded(root, path):
    """A tool of the book as a module."""
    spec = importlib.util.spec_from_file_location(f"book_{path.split('/')[-1]}", root / f"book/{path}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tool(root, tmp_path, monkeypatch):
    """The tool that measures, with few scenes and a folder of its own."""
    module = loaded(root, "tools/zoo")
    monkeypatch.setattr(module, "IMAGES", 6)
    monkeypatch.setattr(module, "WORST_OF", 6)
    monkeypatch.setattr(module, "ITERATIONS", 3)
    monkeypatch.setattr(module, "DPI", 20)
    monkeypatch.setattr(module, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr(module, "FOLDER", tmp_path / "zoo")
    return module


@pytest.fixture
def publish(root, tmp_path, monkeypatch):
    """Publishes a small untrained mixture as if it had been trained with each seed."""
    module = loaded(root, "tools/publish")
    monkeypatch.setattr(module, "IMAGES", 6)
    monkeypatch.setattr(module, "CHECKPOINTS", tmp_path / "checkpoints")

    def as_trained(name, seeds, flags=(), likelihood=None, slot_init="gaussian"):
        attention = AttentionConfig(slot_dim=16, mlp_hidden_dim=16, num_iterations=2, slot_init=slot_init)
        config = AutoencoderConfig(35, Strided(8), attention, Separable(16), likelihood or Average())
        for seed in seeds:
            torch.manual_seed(seed)
            card = {
                "dataset": {"name": "tetrominoes", "options": {}},
                "training": {"seed": seed, "steps": 10, "batch_size": 2},
                "wall_seconds": 60.0 * seed,
                "device": "cpu",
                "versions": training.versions(),
            }
            checkpoint.save(SlotAutoencoder(config), tmp_path / f"run{seed}" / "model", card)
        module.main([name, *(str(tmp_path / f"run{seed}") for seed in seeds), "--machine", "one core", *flags])
        return json.loads((tmp_path / "checkpoints" / f"{name}.json").read_text())

    return as_trained


@pytest.fixture
def page(root, monkeypatch):
    """The substitutions of the page, from the checkpoints and pictures in a folder."""
    monkeypatch.syspath_prepend(str(root / "book" / "ext"))
    import zoo_page

    def substitutions(folder):
        monkeypatch.setattr(zoo_page, "ROOT", folder)
        config = SimpleNamespace(myst_substitutions={})
        zoo_page.offer_model_zoo(None, config)
        return config.myst_substitutions

    return substitutions


# --- what is shipped --------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_model_was_measured_as_it_is_now(root, name):
    folder, tool = root / "book/assets/zoo", loaded(root, "tools/zoo")
    card = slotlib.load(name).card
    entry = json.loads((folder / "measured.json").read_text("utf-8")).get(name)
    assert entry, f"the page has no entry for {name}: {MEND}"
    assert entry["sha256"] == card["sha256"], f"the page shows other weights of {name}: {MEND}"
    assert entry["seeds"] == card["seeds"], f"the page shows other seeds of {name}: {MEND}"
    curves = entry.get("iterations", {})
    assert all(len(curve) > tool.attention_of(card).num_iterations for curve in curves.values()), MEND
    for kind in ["scenes", *(["scores"] if "iterations" in entry else [])]:
        size = (folder / f"{name}_{kind}.png").stat().st_size
        assert size < 200_000, f"{name}_{kind}.png has {size} bytes"


def test_nothing_is_shown_that_is_not_shipped(root):
    folder = root / "book/assets/zoo"
    assert sorted(json.loads((folder / "measured.json").read_text("utf-8"))) == sorted(SHIPPED), MEND
    assert {path.stem.rsplit("_", 1)[0] for path in folder.glob("*.png")} == set(SHIPPED), MEND


@pytest.mark.parametrize("name", SHIPPED)
def test_the_scenes_are_the_first_ones_and_the_worst(root, name):
    """Their scores are measured again, and so is that no other of the first 64 is worse."""
    tool = loaded(root, "tools/zoo")
    measured = json.loads((tool.FOLDER / "measured.json").read_text("utf-8"))
    assert name in measured, MEND
    model, rows = slotlib.load(name), measured[name]["scenes"]
    scores = tool.look(model, tool.fresh_scenes(model.card, 64))[2]
    first = [row for row in rows if "worst_of" not in row]
    assert [row["scene"] for row in first] == list(range(len(first)))
    for row in rows:
        assert row["drawn_fg_ari"] == pytest.approx(scores[row["scene"]], abs=0.05)
    for row in rows[len(first) :]:
        assert row["worst_of"] == 64
        assert row["drawn_fg_ari"] <= min(scores) + 0.05


def test_the_page_on_scores_has_models_beside_rules_that_learned_nothing(page):
    import zoo_page

    config = SimpleNamespace(myst_substitutions={})
    zoo_page.offer_protocol(None, config)
    heading, _, *rows = config.myst_substitutions["protocol"].splitlines()
    assert len(rows) == len(zoo_page.ZOO)
    for name, row in zip(zoo_page.ZOO, rows, strict=True):
        card = slotlib.load(name).card
        one, rules = card["metrics"][0], card["baselines"]
        scores = [one["drawn_fg_ari"], one["posterior_fg_ari"], *(rules[f"{rule}_fg_ari"] for rule in zoo_page.RULES)]
        assert row.endswith(" | ".join(f"{score:.3f}" for score in scores) + " |") and name in row
        assert row.count("|") == heading.count("|")


# --- publishing, measuring, showing -----------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_every_card_has_scores_of_drawn_masks_and_of_rules_that_learned_nothing(name):
    """Mend with `python book/tools/publish.py NAME`."""
    card = slotlib.load(name).card
    kinds = ["drawn", "posterior"] if "posterior_fg_ari" in card["metrics"][0] else ["drawn"]
    for entry in card["metrics"]:
        assert {f"{kind}_{score}" for kind in kinds for score in MASK_SCORES} <= entry.keys()
    assert card["baselines"].keys() == {f"{rule}_{score}" for rule in baselines.RULES for score in MASK_SCORES}
    assert all(f"{kind}_fg_ari" in run for kind in kinds for run in card["seeds"])


def test_a_published_mixture_is_scored_by_both_kinds_of_masks(publish):
    card = publish("shapes", [0, 1], likelihood=Mixture(0.3))
    one, best = card["metrics"]
    assert one["images"] == best["images"] == 6
    assert best["restarts"] == 4
    assert [run["seed"] for run in card["seeds"]] == [0, 1]
    assert [run["wall_seconds"] for run in card["seeds"]] == [0, 60]
    for name in ("drawn_fg_ari", "posterior_fg_ari"):
        assert (card["seeds"][0][name], card["seeds"][0][f"{name}_restarts_4"]) == (one[name], best[name])
    found = baselines.scores(slotlib.data.make("tetrominoes", 6, 0), 6)
    assert card["baselines"] == {name: round(value, 5) for name, value in found.items()}
    assert card["machine"] == "one core"


def test_measuring_again_changes_the_card_and_not_the_weights(publish, tmp_path):
    first = publish("mine", [0, 1], likelihood=Mixture(0.3))
    path = tmp_path / "checkpoints/mine.json"
    (one, best), seed = first["metrics"], first["seeds"][0]
    of_before = {"fg_ari": 0.5, "fg_ari_drawn": 0.25, "images": 640}
    old = {**first, "metrics": [of_before], "seeds": [{"seed": 0, "fg_ari": 0.5}, {"seed": 1, "fg_ari": 0.75}]}
    path.write_text(json.dumps({name: value for name, value in old.items() if name != "baselines"}))
    again = publish("mine", [])
    assert again["metrics"] == [one, best] and again["baselines"] == first["baselines"]
    assert again["seeds"][0].items() >= {name: v for name, v in seed.items() if name != "wall_seconds"}.items()
    assert again["seeds"][1] == {"seed": 1, "posterior_fg_ari": 0.75}
    assert (again["sha256"], again["configuration"]) == (first["sha256"], first["configuration"])
    assert zoo.load(path).card["seeds"] == again["seeds"]


def test_seeds_can_be_added_to_what_ships(publish):
    first = publish("mine", [0, 1], likelihood=Mixture(0.3))
    more = publish("mine", [2], ["--more"], likelihood=Mixture(0.3))
    assert [run["seed"] for run in more["seeds"]] == [0, 1, 2]
    assert more["seeds"][2]["drawn_fg_ari"] != first["seeds"][0]["drawn_fg_ari"]
    assert {**more, "seeds": more["seeds"][:2]} == first
    with pytest.raises(ValueError, match=r"seed 2 of .*run2 is on the card of mine already"):
        publish("mine", [2], ["--more"], likelihood=Mixture(0.3))
    with pytest.raises(ValueError, match="run3 is another model than mine"):
        publish("mine", [3], ["--more"])


def test_only_what_changed_is_measured_again(publish, tool, monkeypatch, tmp_path):
    looked = []
    look = tool.look
    monkeypatch.setattr(tool, "look", lambda model, scenes: looked.append(model.card["sha256"]) or look(model, scenes))
    first = publish("tetrominoes", [0])
    tool.main([])
    tool.main([])
    assert looked == [first["sha256"]]
    # Another seed beside the same weights: the dots change, nothing is measured.
    publish("tetrominoes", [0, 1])
    tool.main([])
    assert len(looked) == 1
    stored = json.loads((tmp_path / "zoo/measured.json").read_text())
    assert [run["seed"] for run in stored["tetrominoes"]["seeds"]] == [0, 1]
    second = publish("tetrominoes", [1])
    tool.main([])
    assert looked == [first["sha256"], second["sha256"]]
    # What no longer ships leaves the page.
    for file in (tmp_path / "checkpoints").iterdir():
        file.unlink()
    tool.main([])
    assert [file.name for file in (tmp_path / "zoo").iterdir()] == ["measured.json"]


def test_curves_are_what_evaluation_says(publish, tool, tmp_path):
    publish("tetrominoes", [0])
    tool.main([])
    measured = json.loads((tmp_path / "zoo/measured.json").read_text())["tetrominoes"]["iterations"]
    assert list(measured) == ["3", "4", "5"]
    model = zoo.load(tmp_path / "checkpoints/tetrominoes")
    for slots, iterations in [(4, 2), (5, 3)]:
        scenes = slotlib.data.make("tetrominoes", 6, 0)
        scores = evaluate(model, scenes, num_slots=slots, num_iterations=iterations).means["drawn_fg_ari"]
        assert measured[str(slots)][iterations - 1] == pytest.approx(scores, abs=1e-4)


def robust(folder, card):
    """What stands in data/runs for the model "mine", and for one that has changed since."""
    path, row = folder / "robustness.csv", {"images": 6, "scenes_seed": 0, "noise_seed": 0}
    lines = [
        {
            "model": "mine",
            "sha256": sha256,
            "change": change,
            "drawn_fg_ari": drawn,
            "posterior_fg_ari": posterior,
            **row,
        }
        for sha256, change, drawn, posterior in (
            (card["sha256"], "as they are", "0.9000", "0.9500"),
            (card["sha256"], "dark", "0.2000", "0.3000"),
            ("other weights", "darkest", "0.1000", "0.1000"),
        )
    ]
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, lines[0])
        table.writeheader()
        table.writerows(lines)
    return path


def test_further_seeds_of_a_prior_are_its_autoencoders(root, tmp_path, monkeypatch):
    """Each is read as the shipped one: by the prior's configuration, with synonyms merged and blanks found."""
    module = loaded(root, "tools/publish")
    monkeypatch.setattr(module, "IMAGES", 6)
    monkeypatch.setattr(module, "CHECKPOINTS", tmp_path)
    attention = QuantisedAttentionConfig(
        slot_dim=16, mlp_hidden_dim=16, num_iterations=2, quantizer=Nearest(num_blocks=4, num_codes=4)
    )
    config = SVQConfig(35, Strided(8), attention, Separable(16, "slot"), Mixture(Ramp(0.3, start=0.8)))
    card = {"dataset": {"name": "tetrominoes", "options": {}}, "device": "cpu", "versions": training.versions()}
    for seed in (0, 1):
        torch.manual_seed(seed)
        own = {"training": {"seed": seed, "steps": 9, "batch_size": 2}, "wall_seconds": 60.0 + seed}
        checkpoint.save(SVQAutoencoder(config), tmp_path / f"run{seed}/model", {**card, **own})
    around = CodePriorConfig(str(tmp_path / "run0/model"), synonyms=0.5, blanks=True, dim=8, num_layers=1, num_heads=2)
    trained = {"training": {"seed": 0, "steps": 4, "batch_size": 2}, "wall_seconds": 5.0}
    checkpoint.save(CodePrior(around), tmp_path / "prior/model", {**card, **trained})
    module.main(["mine", str(tmp_path / "prior")])
    first = json.loads((tmp_path / "mine.json").read_text())
    module.main(["mine", str(tmp_path / "run1"), "--more"])
    found = json.loads((tmp_path / "mine.json").read_text())
    assert {**found, "seeds": found["seeds"][:1]} == first
    one, other = found["seeds"]
    assert (one["seed"], other["seed"], other["wall_seconds"]) == (0, 1, 61.0)
    assert other["drawn_fg_ari"] != one["drawn_fg_ari"]
    with pytest.raises(ValueError, match=r"seed 1 of .* is on the card of mine already"):
        module.main(["mine", str(tmp_path / "run1"), "--more"])
    wider = replace(config, attention=replace(attention, mlp_hidden_dim=32))
    checkpoint.save(SVQAutoencoder(wider), tmp_path / "run2/model", {**card, **trained})
    with pytest.raises(ValueError, match="run2 is another model than mine"):
        module.main(["mine", str(tmp_path / "run2"), "--more"])


def test_a_further_seed_tells_of_a_prior_only_if_one_was_trained(root, tmp_path, monkeypatch):
    module = loaded(root, "tools/publish")
    monkeypatch.setattr(module, "IMAGES", 6)
    monkeypatch.setattr(module, "CHECKPOINTS", tmp_path)
    config = PatchConfig(resolution=32, patch=8, channels=8, quantizer=Nearest(num_codes=4))
    card = {"dataset": {"name": "tetrominoes", "options": {"resolution": 32}}, "versions": training.versions()}
    for seed in (0, 1, 2):
        torch.manual_seed(seed)
        own = {"training": {"seed": seed, "steps": 9, "batch_size": 2}, "wall_seconds": 60.0, "device": "cpu"}
        checkpoint.save(PatchVQVAE(config), tmp_path / f"run{seed}/model", {**card, **own})
        around = CodePriorConfig(str(tmp_path / f"run{seed}/model"), dim=8, num_layers=1, num_heads=2)
        checkpoint.save(CodePrior(around), tmp_path / f"prior{seed}/model", {**card, **own})
    module.main(["mine", str(tmp_path / "prior0")])
    module.main(["mine", str(tmp_path / "run1"), str(tmp_path / "prior2"), "--more"])
    seeds = json.loads((tmp_path / "mine.json").read_text())["seeds"]
    assert [(run["seed"], "nats" in run, "mse" in run) for run in seeds] == [
        (0, True, True),
        (1, False, True),
        (2, True, True),
    ]


def test_weights_are_published_as_the_nearest_ones_of_ten_bits(publish, tmp_path):
    publish("mine", [1])
    trained, published = (slotlib.load(tmp_path / path).state_dict() for path in ("run1/model", "checkpoints/mine"))
    for name, weights in published.items():
        assert (weights.view(torch.int32) % 2**13 == 0).all(), name
        assert ((weights - trained[name]).abs() <= trained[name].abs() * 2**-11).all(), name
    assert any((weights != trained[name]).any() for name, weights in published.items())


def test_the_page_picks_up_what_is_published(publish, tool, page, tmp_path, monkeypatch):
    theirs = tmp_path / "theirs"
    export(slotlib.data.make("tetrominoes", 5, seed=3), theirs, "folder")
    mixture = publish("mine", [0, 1, 2], ["--files", str(theirs)], likelihood=Mixture(0.3))
    scores = evaluate(zoo.load(tmp_path / "checkpoints/mine"), slotlib.data.read(theirs)).means
    assert mixture["elsewhere"][0]["drawn_fg_ari"] == pytest.approx(scores["drawn_fg_ari"], abs=1e-5)
    fixed = publish("fixed", [3], slot_init="learned")
    assert len(fixed["metrics"]) == 1
    publish("tetrominoes_collapse", [4])
    (tmp_path / "data").mkdir()
    (tmp_path / "checkpoints").rename(tmp_path / "data/checkpoints")
    monkeypatch.setattr(tool, "CHECKPOINTS", tmp_path / "data/checkpoints")
    monkeypatch.setattr(tool, "FOLDER", tmp_path / "book/assets/zoo")
    tool.main([])
    (tmp_path / "data/runs").mkdir()
    shutil.copy(robust(tmp_path, mixture), tmp_path / "data/runs/robustness.csv")
    shown = page(tmp_path)
    sections = shown["zoo_sections"]
    assert [line for line in sections.splitlines() if line.startswith("### ")] == ["### fixed", "### mine"]
    for text in (
        "10 steps",
        "one core",
        f"| drawn masks | one | {mixture['metrics'][0]['drawn_fg_ari']:.3f} |",
        f"| posterior masks | best of 4 | {mixture['metrics'][1]['posterior_fg_ari']:.3f} |",
        f"| tiles | | {mixture['baselines']['tiles_fg_ari']:.3f} |",
        "3 seeds",
        "On 5 scenes from files (theirs)",
        "FG-ARI, drawn: 0.900 as they are; worst is *dark*, with 0.200.",
        "| dark | 0.200 | 0.300 | 6 |",
    ):
        assert text in sections
    for run in mixture["seeds"]:
        kinds = "drawn_fg_ari", "posterior_fg_ari"
        scores = " | ".join(f"{run[f'{kind}{starts}']:.3f}" for starts in ("", "_restarts_4") for kind in kinds)
        assert f"| {run['seed']} | {run['wall_seconds'] / 60:.0f} | {scores} |" in sections
    assert f"| {mixture['metrics'][0]['drawn_fg_ari']:.3f} | – |" in shown["zoo_table"]
    assert "| drawn masks | best of 4 |" not in sections[sections.index("### fixed") : sections.index("### mine")]
    assert shown["zoo_images"] == "6"
    assert "tetrominoes_collapse_scenes.png" in shown["zoo_failures"]
    assert "scores.png" not in shown["zoo_failures"]
    pieces = sections + shown["zoo_failures"]
    for picture in (tmp_path / "book/assets/zoo").glob("*.png"):
        assert f"assets/zoo/{picture.name}\n" in pieces
    assert pieces.count(":alt: ") == pieces.count("```{figure}") == 5


@pytest.mark.parametrize("frozen", ["shapes", "multi_dsprites"])
def test_the_page_says_how_a_model_counts_that_drops_slots(page, root, frozen):
    card = json.loads((root / f"data/checkpoints/adaptive_{frozen}.json").read_text("utf-8"))
    sections = page(root)["zoo_sections"].split("### ")
    (section,) = (text for text in sections if text.startswith(f"adaptive_{frozen}"))
    one, errors = card["metrics"][0], [run["count_error"] for run in card["seeds"]]
    assert len(errors) == 5 and one["count_error"] == errors[0]
    assert f"by {one['count_error']:.2f} on average" in section and f"{one['count_exact']:.0%} of the scenes" in section
    assert f"(seeds: {min(errors):.3f} to {max(errors):.3f}). All else is `{frozen}`, frozen" in section
    assert sum("miss the number of objects" in text for text in sections) == 2
