"""A checkpoint is complete and unaltered, or it is refused with the reason; files are written whole or not at all."""

import importlib
import inspect
import json
import os
import sys
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from slotlib import checkpoint
from slotlib.autoencoder import AutoencoderConfig, SlotAutoencoder
from slotlib.decoders import Separable
from slotlib.encoders import Strided
from slotlib.likelihoods import Mixture
from slotlib.model import Model, Ramp
from slotlib.slot_attention import AttentionConfig

SMALL = AutoencoderConfig(
    encoder=Strided(8), attention=AttentionConfig(slot_dim=16, mlp_hidden_dim=16), decoder=Separable(16)
)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = SlotAutoencoder(SMALL)
    checkpoint.save(model, tmp_path / "small", {"metrics": []})
    return model, tmp_path / "small"


def altered(path, change):
    """The card at `path`, changed."""
    card = path.with_suffix(".json")
    card.write_text(json.dumps(json.loads(card.read_text()) | change))


# --- models ---


def test_what_was_saved_comes_back(saved):
    model, path = saved
    loaded = checkpoint.load(path)
    assert type(loaded) is SlotAutoencoder
    assert not loaded.training
    assert loaded.config == SMALL
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
    images = torch.rand(2, 3, 35, 35)
    with torch.no_grad():
        ours, theirs = (m.eval()(images, generator=torch.Generator().manual_seed(0)) for m in (model, loaded))
    assert torch.equal(ours.masks, theirs.masks)


def test_a_card_says_what_was_saved(saved):
    card = checkpoint.load(saved[1]).card
    assert (card["format"], card["model"], card["metrics"]) == (checkpoint.FORMAT, "SlotAutoencoder", [])
    assert card["configuration"]["encoder"] == {"class_path": "Strided", "init_args": {"channels": 8}}
    assert card["bytes"] == saved[1].with_suffix(".safetensors").stat().st_size


def test_a_model_is_made_again_from_its_spec(saved):
    spec = json.loads(json.dumps(checkpoint.spec(saved[0])))
    assert checkpoint.made(spec).config == SMALL
    with pytest.raises(ValueError, match=r"class_path: 'Separable' is unknown; there are .*SlotAutoencoder"):
        checkpoint.made({**spec, "class_path": "Separable"})


@pytest.mark.parametrize(("progress", "noise"), [({}, 0.1), ({"progress": 0.5}, 0.3), ({"progress": 0.0}, 0.5)])
def test_a_model_comes_back_where_its_schedule_had_brought_it(tmp_path, progress, noise):
    moving = AutoencoderConfig(encoder=Strided(8), likelihood=Mixture(noise=Ramp(0.1, start=0.5, over=1)))
    checkpoint.save(SlotAutoencoder(moving), tmp_path / "m", progress)
    loaded = checkpoint.load(tmp_path / "m")
    assert loaded.likelihood.noise == pytest.approx(noise)
    assert loaded.config == moving


@dataclass
class TiedConfig:
    width: int = 3


class Tied(Model):
    """One matrix used twice."""

    config: TiedConfig

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.read, self.write = (nn.Linear(config.width, config.width, bias=False) for _ in range(2))
        self.write.weight = self.read.weight


def test_a_model_of_one_s_own_comes_back_even_with_tied_weights(tmp_path):
    model = Tied(TiedConfig(4))
    checkpoint.save(model, tmp_path / "tied", {})
    loaded = checkpoint.load(tmp_path / "tied")
    assert (type(loaded), loaded.config.width) == (Tied, 4)
    assert loaded.write.weight is loaded.read.weight
    assert torch.equal(loaded.read.weight, model.read.weight)


def test_the_module_of_a_model_that_is_not_imported_is_named_and_stays_so(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(inspect.getsource(sys.modules[__name__]))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(Model, "known", dict(Model.known))
    mine = importlib.import_module("mine")
    checkpoint.save(mine.Tied(mine.TiedConfig()), tmp_path / "tied", {})
    assert type(checkpoint.load(tmp_path / "tied")) is mine.Tied
    del sys.modules["mine"], Model.known["mine.Tied"]  # as in another process
    with pytest.raises(
        ValueError, match=r"the card names the model 'mine\.Tied', which is not known; import mine first"
    ):
        checkpoint.load(tmp_path / "tied")
    assert "mine" not in sys.modules


def test_only_models_are_saved(tmp_path):
    with pytest.raises(TypeError, match=r"a checkpoint holds a slotlib\.model\.Model, got a Linear"):
        checkpoint.save(nn.Linear(1, 1), tmp_path / "x", {})
    assert not list(tmp_path.iterdir())


# --- damage ---


def test_truncated_weights_are_refused(saved):
    weights = saved[1].with_suffix(".safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"small\.safetensors is truncated or altered"):
        checkpoint.load(saved[1])


def test_one_flipped_bit_is_noticed(saved):
    weights = saved[1].with_suffix(".safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match="truncated or altered"):
        checkpoint.load(saved[1])


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '"sha256"'])
def test_a_broken_card_is_refused(saved, content):
    saved[1].with_suffix(".json").write_text(content)
    with pytest.raises(ValueError, match=r"small\.json is not a checkpoint card"):
        checkpoint.load(saved[1])


@pytest.mark.parametrize("part", ["json", "safetensors"])
def test_a_missing_part_is_named(saved, part):
    saved[1].with_suffix(f".{part}").unlink()
    with pytest.raises(FileNotFoundError, match=rf"small\.{part} does not exist"):
        checkpoint.load(saved[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "Nonsense"}, "'Nonsense', which is not known; this slotlib has: .*SlotAutoencoder"),
        ({"model": "mine.SlotAutoencoder"}, "'mine.SlotAutoencoder', which is not known; import mine first"),
        ({"configuration": {"colour_of_hope": "green"}}, "SlotAutoencoder has no field 'colour_of_hope'"),
        ({"configuration": None}, "SlotAutoencoder must be the fields of a AutoencoderConfig, got None"),
        ({"configuration": {"resolution": "35"}}, "SlotAutoencoder.resolution must be int, got '35'"),
    ],
)
def test_a_card_this_version_cannot_build_is_refused(saved, change, message):
    altered(saved[1], change)
    with pytest.raises(ValueError, match=message):
        checkpoint.load(saved[1])


def test_weights_that_do_not_fit_the_card_are_refused(saved):
    altered(saved[1], {"configuration": {"attention": {"slot_dim": 32}}})
    with pytest.raises(ValueError, match="do not fit the configuration"):
        checkpoint.load(saved[1])


# --- whole or not at all ---


def test_an_interrupted_save_leaves_the_old_checkpoint(saved, monkeypatch):
    _, path = saved
    before = path.with_suffix(".safetensors").read_bytes()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(os, "replace", full)
        checkpoint.save(SlotAutoencoder(SMALL), path, {})
    assert path.with_suffix(".safetensors").read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["small.json", "small.safetensors"]
    checkpoint.load(path)


def full(*_):
    raise OSError("disk full")


def test_a_file_that_fails_names_itself_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write 5 bytes: disk full.*note"):
        checkpoint.write(tmp_path / "note", b"12345")
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_replaced_only_when_asked(tmp_path):
    checkpoint.write(tmp_path / "note", b"old")
    checkpoint.write(tmp_path / "note", b"new")
    assert (tmp_path / "note").read_bytes() == b"new"
    with pytest.raises(FileExistsError, match="already exists; remove"), checkpoint.written_whole(tmp_path / "note"):
        pass


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with checkpoint.written_whole(tmp_path / "folder") as temporary:
        (temporary / "below").mkdir(parents=True)
        assert not (tmp_path / "folder").exists()
    assert (tmp_path / "folder" / "below").is_dir()
    with pytest.raises(KeyboardInterrupt), checkpoint.written_whole(tmp_path / "other") as temporary:
        temporary.mkdir()
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write to the output folder.*file"):
        checkpoint.writable_folder(tmp_path / "file" / "below")
    with pytest.raises(OSError, match="cannot write to the output folder"):
        checkpoint.writable_folder("/proc/slotlib")


# --- the state of a run ---


def test_a_run_s_state_comes_back_to_the_bit(tmp_path):
    def made():
        torch.manual_seed(0)
        model = SlotAutoencoder(SMALL)
        return model, torch.optim.Adam(model.parameters())

    def step(model, optimizer):
        optimizer.zero_grad()
        model.loss(torch.rand(2, 3, 35, 35, generator=torch.Generator().manual_seed(1))).backward()
        optimizer.step()

    (model, optimizer), (again, other) = made(), made()
    step(model, optimizer)
    checkpoint.save_state(tmp_path, 1, model, optimizer, {"seconds": 2.5})
    (card,) = checkpoint.steps_saved(tmp_path)
    state, content = checkpoint.load_tensors(card)
    assert (content["step"], content["seconds"]) == (1, 2.5)
    checkpoint.restore_state(state, again, other)
    for pair in ((model, optimizer), (again, other)):
        torch.manual_seed(3)
        step(*pair)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_newer_state_replaces_the_older_and_what_a_crash_left(tmp_path):
    model = Tied(TiedConfig())
    optimizer = torch.optim.Adam(model.parameters())
    (tmp_path / ".step_00000002.json.abc").mkdir()
    (tmp_path / "step_00000001.safetensors").write_bytes(b"its card was never written")
    for step in (2, 10):
        checkpoint.save_state(tmp_path, step, model, optimizer, {})
        assert sorted(p.name for p in tmp_path.iterdir()) == [
            f"step_{step:08d}.{end}" for end in ("json", "safetensors")
        ]
