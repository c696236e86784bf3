"""OpenL3's official weights as an ONNX model, converted once and kept beside the weights.

The model starts at the spectrogram: measured on two cores, NumPy's transform and one matrix product are faster than the
same front end inside the graph, and the librosa front end needs float64. It ends at the 4 x 3 x 512 cells, so that one
model serves both embedding sizes.
"""

from __future__ import annotations

from embedindex.models.cache import WeightsFile
from embedindex.models.converted import Converted, read_converted, store_converted
from embedindex.models.convnet import ConvNet
from embedindex.models.convnet_onnx import build
from embedindex.models.openl3_weights import read_weights, to_convnet

# Part of every stored model's name: raise it whenever the conversion changes any number.
CONVERTER_VERSION = 1


def model_key(weights: WeightsFile, input_repr: str, variant: str) -> str:
    """Return the name under which a conversion of `weights` is stored."""
    return f"openl3-{input_repr}-{weights.sha256[:20]}-v{CONVERTER_VERSION}-{variant}"


def read_network(weights: WeightsFile, input_repr: str) -> ConvNet:
    """Return the network in `weights`.

    Raises:
        WeightsMissingError: the file cannot be read.
        WeightsFormatError: it is not in the official layout.
        ChecksumError: it has changed since it was checked.
    """
    return to_convnet(read_weights(weights.path, weights.sha256), input_repr)


def float_model(weights: WeightsFile, input_repr: str, *, tiled: bool = True) -> Converted:
    """Return the float32 model of `weights`, from the models folder or converted now.

    Args:
        weights: the weights.
        input_repr: what they are for.
        tiled: the one that is fastest on a processor, else the plain one, for other devices; equal but for rounding.

    Raises:
        WeightsError: the weights cannot be used; see `read_network`.
    """
    key = model_key(weights, input_repr, "fp32-tiled" if tiled else "fp32")
    stored = read_converted(key)
    if stored is not None:
        return stored
    content = build(read_network(weights, input_repr), tiled=tiled)
    return store_converted(key, content, {"weights_sha256": weights.sha256, "precision": "fp32"})
