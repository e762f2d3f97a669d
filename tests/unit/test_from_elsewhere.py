"""The page "Coming from elsewhere" does what it says."""

import re
import types

import jaxtyping
import numpy as np
import pytest
import torch

import slotlib
from slotlib import data
from slotlib.slot_attention import SlotAttention


@pytest.fixture(scope="module")
def page(root):
    """The page's files, as modules."""
    text = (root / "book" / "from_elsewhere.md").read_text("utf-8")
    found = types.SimpleNamespace()
    for name, code in re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        module = types.ModuleType(name)
        exec(code, vars(module))
        setattr(found, name, module)
    return found


# --- the official TensorFlow model ---

MADE_BY = """
def fill(layers, scale):
    for i, layer in enumerate(layers):
        layer.set_weights([scale * wave(weight.shape, i) for weight in layer.get_weights()])

def fill_slots(layer, scale):
    fill([getattr(layer, name) for name in PARTS], scale)
    layer.slots_mu.assign(wave(layer.slots_mu.shape, 8))
    layer.slots_log_sigma.assign(wave(layer.slots_log_sigma.shape, 9))

layer = model.SlotAttention(num_iterations=2, num_slots=2, slot_size=3, mlp_hidden_size=4)
layer(wave((1, 3, 2), 10))
fill_slots(layer, 1)
tf.random.normal = lambda *_: wave((1, 2, 3), 11)
SLOTS = layer(wave((1, 3, 2), 10))[0]

whole = model.SlotAttentionAutoEncoder((128, 128), num_slots=7, num_iterations=3)
tf.random.normal = lambda *_: wave((1, 7, 64), 3)
whole(wave((1, 128, 128, 3), 12))
parts = [getattr(whole, name) for name in WHOLE]
fill([getattr(part, "dense", part) for part in parts], 0.1)
fill_slots(whole.slot_attention, 0.1)
PIXELS = whole(wave((1, 128, 128, 3), 12))[0][0, [0, 5, 64, 127], [0, 90, 64, 3]]
"""
"""How the authors' model.py, under TensorFlow 2.21 with TF_USE_LEGACY_KERAS=1, made what is stored here."""

PARTS = "norm_inputs", "norm_slots", "norm_mlp", "project_q", "project_k", "project_v", "gru", "mlp"
SLOTS = [
    [2.112241744995117, 4.813372611999512, -4.056380271911621],
    [2.102365493774414, 5.5508832931518555, -3.9007298946380615],
]
WHOLE = "encoder_cnn", "decoder_cnn", "layer_norm", "mlp", "encoder_pos", "decoder_pos"
PIXELS = [
    [0.2304309904575348, 0.02693880721926689, -0.07911569625139236],
    [0.017116086557507515, 0.09243759512901306, -0.09369267523288727],
    [0.08225077390670776, 0.3455258905887604, -0.029120802879333496],
    [-0.012657354585826397, -0.03679024800658226, 0.03770449757575989],
]


def wave(shape, start):
    """Numbers without a pattern that would survive an exchange of axes."""
    return np.sin(1.7 * np.arange(np.prod(shape)) ** 1.1 + start).reshape(shape).astype(np.float32)


class Keras:
    """What the page asks of a Keras layer, or of a variable."""

    def __init__(self, weights):
        self.get_weights = self.numpy = lambda: weights


def layers(names, shapes, scale):
    return {name: Keras([np.float32(scale) * wave(shape, i) for shape in shapes[name]]) for i, name in enumerate(names)}


def keras_slot_attention(input_dim, dim, hidden, scale, **options):
    shapes = {
        "norm_inputs": [(input_dim,), (input_dim,)],
        "norm_slots": [(dim,), (dim,)],
        "norm_mlp": [(dim,), (dim,)],
        "project_q": [(dim, dim)],
        "project_k": [(input_dim, dim)],
        "project_v": [(input_dim, dim)],
        "gru": [(dim, 3 * dim), (dim, 3 * dim), (2, 3 * dim)],
        "mlp": [(dim, hidden), (hidden,), (hidden, dim), (dim,)],
    }
    start = {"slots_mu": Keras(wave((1, 1, dim), 8)), "slots_log_sigma": Keras(wave((1, 1, dim), 9))}
    sizes = {"mlp_hidden_size": hidden, "epsilon": 1e-8}
    return types.SimpleNamespace(**layers(PARTS, shapes, scale), **start, **sizes, **options)


def drawn(module, noise):
    return module.slots_mu + module.slots_log_sigma.exp() * torch.from_numpy(noise)


def test_slot_attention_of_keras_is_the_same_here(page):
    theirs = keras_slot_attention(2, 3, 4, scale=1, num_slots=2, num_iterations=2)
    ours = page.from_tensorflow.slot_attention(theirs)
    slots = ours(torch.from_numpy(wave((1, 3, 2), 10)), slots=drawn(ours, wave((1, 2, 3), 11))).slots
    torch.testing.assert_close(slots[0], torch.tensor(SLOTS), rtol=0, atol=1e-5)


def test_gates_in_the_order_of_keras_are_another_module(page):
    theirs = keras_slot_attention(2, 3, 4, scale=1, num_slots=2, num_iterations=2)
    ours, kernels = page.from_tensorflow.slot_attention(theirs), theirs.gru.get_weights()
    with torch.no_grad():
        for own, weight in zip(ours.gru.parameters(), (*kernels[:2], *kernels[2]), strict=True):
            own.copy_(torch.from_numpy(weight.T))
    slots = ours(torch.from_numpy(wave((1, 3, 2), 10)), slots=drawn(ours, wave((1, 2, 3), 11))).slots
    assert (slots[0] - torch.tensor(SLOTS)).abs().max() > 0.1


def test_the_whole_autoencoder_of_keras_draws_the_same_here(page, monkeypatch):
    maps, widths = [3, 64, 64, 64, 64], [64] * 6 + [4]
    shapes = {
        "encoder_cnn": [s for i in range(4) for s in ((5, 5, maps[i], 64), (64,))],
        "decoder_cnn": [s for i, k in enumerate([5] * 5 + [3]) for s in ((k, k, widths[i + 1], 64), (widths[i + 1],))],
        "layer_norm": [(64,), (64,)],
        "mlp": [(64, 64), (64,), (64, 64), (64,)],
        "encoder_pos": [(4, 64), (64,)],
        "decoder_pos": [(4, 64), (64,)],
    }
    parts = layers(WHOLE, shapes, 0.1)
    for name in WHOLE[4:]:
        parts[name] = types.SimpleNamespace(dense=parts[name])
    slots = keras_slot_attention(64, 64, 128, 0.1, num_slots=7, num_iterations=3)
    ours = page.from_tensorflow.autoencoder(types.SimpleNamespace(**parts, slot_attention=slots))
    start = drawn(ours.slot_attention, wave((1, 7, 64), 3))
    monkeypatch.setattr(ours.slot_attention, "initial_slots", lambda *_: start)
    image = torch.from_numpy(wave((1, 128, 128, 3), 12)).permute(0, 3, 1, 2)
    with torch.no_grad():
        picture = ours((image + 1) / 2).reconstruction[0] * 2 - 1
    pixels = picture[:, [0, 5, 64, 127], [0, 90, 64, 3]].T
    torch.testing.assert_close(pixels, torch.tensor(PIXELS), rtol=0, atol=1e-5)


# --- slot-attention on PyPI ---


def perturbed(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


@pytest.mark.parametrize(("dim", "hidden", "eps"), [(8, 32, 1e-8), (16, 8, 0.01)])
def test_slot_attention_of_pypi_is_the_same_here(page, dim, hidden, eps):
    import slot_attention as lucidrains  # slow to import, and all processes collect this file

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = perturbed(lucidrains.SlotAttention(5, dim, iters=4, eps=eps, hidden_dim=hidden)).double()
        before, ours = str(theirs.state_dict()), page.from_lucidrains.slot_attention(theirs)
        inputs, results = torch.randn(2, 20, dim, dtype=torch.float64), []
        for module in (theirs, ours):
            torch.manual_seed(1)
            results.append(module(inputs, num_slots=3))
    torch.testing.assert_close(results[1].slots, results[0], rtol=0, atol=1e-9)
    assert str(theirs.state_dict()) == before


# --- ONNX ---


@pytest.fixture
def unchecked():
    """Symbolic sizes do not pass the comparison with annotations."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.mark.parametrize("name", ["tetrominoes_collapse", "clevr10_sets", "svq_draft_shapes", "patches_shapes"])
def test_as_onnx_a_model_is_the_same_for_any_number_of_images(page, name, unchecked, tmp_path):
    """One of every kind that ships, with two iterations, for a graph has each of them; of slot autoencoders the one
    with empty slots."""
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    shipped = slotlib.load(name)
    model = getattr(shipped, "autoencoder", shipped)
    if slotted := any(isinstance(part, SlotAttention) for part in model.children()):
        model.slot_attention.num_iterations = 2
    page.to_onnx.to_onnx(shipped, tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx")

    images = data.make(shipped.card["dataset"]["name"], 5, seed=3, **shipped.card["dataset"]["options"]).batch(range(5))
    given = {"images": images["image"]}
    with torch.no_grad():
        if slotted:
            generator = torch.Generator().manual_seed(0)
            given["start"] = model.slot_attention.initial_slots(5, generator=generator)
        expected = model(given["images"], **({"generator": generator.manual_seed(0)} if "start" in given else {}))
    found = session.run(None, {name: tensor.numpy() for name, tensor in given.items()})
    assert {each.name for each in session.get_inputs()} == set(given)
    for ours, theirs in zip(expected, found, strict=True):
        torch.testing.assert_close(torch.from_numpy(theirs), ours, rtol=1e-3, atol=1e-3)
