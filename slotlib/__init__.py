"""slotlib: slot attention from the ground up, the library behind the course book.

One chapter, one module: `attention` (01), `slot_attention` (02), `autoencoder` (03), `metrics` (04), `set_prediction`
(05), `implicit` (06), `svq` and `vq` (07), `prior` (08), `adaptive` (09), `training` (10).
Beside them `data` (scenes), `zoo` (trained models), `model` (what a model of your own is), `latents` (maps and groups
of slots), `plots` and `widgets`.
"""

from slotlib import data, metrics
from slotlib.adaptive import AdaptiveAutoencoder, AdaptiveSetPredictor, AdaptiveSlots
from slotlib.autoencoder import AutoencoderConfig, SlotAutoencoder
from slotlib.model import Draws, Model, Ramp
from slotlib.outlined import OutlinedAutoencoder
from slotlib.outlined_svq import OutlinedSVQAutoencoder
from slotlib.patches import PatchVQVAE
from slotlib.prior import CodePrior
from slotlib.set_prediction import SetPredictor, SetPredictorConfig
from slotlib.slate import SlateAutoencoder
from slotlib.slot_attention import SlotAttention
from slotlib.svq import SVQAutoencoder, SVQConfig
from slotlib.version import __version__
from slotlib.zoo import load

__all__ = [
    "AdaptiveAutoencoder",
    "AdaptiveSetPredictor",
    "AdaptiveSlots",
    "AutoencoderConfig",
    "CodePrior",
    "Draws",
    "Model",
    "OutlinedAutoencoder",
    "OutlinedSVQAutoencoder",
    "PatchVQVAE",
    "Ramp",
    "SVQAutoencoder",
    "SVQConfig",
    "SetPredictor",
    "SetPredictorConfig",
    "SlateAutoencoder",
    "SlotAttention",
    "SlotAutoencoder",
    "__version__",
    "data",
    "load",
    "metrics",
]
