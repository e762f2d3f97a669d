"""slotlib: slot attention from the ground up, the library behind the course book.

One chapter, one module: `attention` (01), `slot_attention` (02), `autoencoder` (03), `metrics` (04), `set_prediction`
(05), `implicit` (06), `vq`, `svq`, `prior` and `patches` (07), `training` (09).
Beside them `data` (scenes), `zoo` (trained models), `latents` (maps and groups of slots), `plots` and `widgets`.
"""

from slotlib import data, metrics
from slotlib.autoencoder import AutoencoderConfig, SlotAutoencoder
from slotlib.set_prediction import SetPredictor, SetPredictorConfig
from slotlib.slot_attention import SlotAttention
from slotlib.svq import SVQAutoencoder, SVQConfig
from slotlib.zoo import load

__version__ = "0.1.0"
__all__ = [
    "AutoencoderConfig",
    "SVQAutoencoder",
    "SVQConfig",
    "SetPredictor",
    "SetPredictorConfig",
    "SlotAttention",
    "SlotAutoencoder",
    "data",
    "load",
    "metrics",
]
