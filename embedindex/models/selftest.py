"""Does a model on this machine compute what its authors' code computed? Checksums first, then reference values.

``reference/openl3.npz`` holds rows of the official project's own regression data (computed with the pretrained weights
on its test sound ``chirp_44k``, here as FLAC): centred, hop 0.1 s, rows 4 and 10 for mel256/music; not centred, hop
0.5 s, rows 0 and 1 for linear/env; the 512 numbers of each. ``reference/aisfx.npz`` holds what aisfx's own network
returns in PyTorch for the same sound, repeated to fill a window.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.resources import as_file, files

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.errors import WeightsMissingError
from embedindex.models import load_model, parse_request
from embedindex.models.base import ModelRequest
from embedindex.models.cache import WeightsFile
from embedindex.models.catalogue import Entry

# Relative distance allowed. OpenL3: the official code itself moves by up to 0.15 on this sound when only its FFT or
# framing changes, and by 0.22 to the front end before 0.4; other weights are further than 0.5 away.
OPENL3_LIMIT = 0.25
AISFX_LIMIT = 0.01
# (reference rows, hop in seconds, centred) of the two kinds of weights that the regression data cover.
OPENL3_CASES = {("mel256", "music"): ((4, 10), 0.1, True), ("linear", "env"): ((0, 1), 0.5, False)}


@dataclass(frozen=True)
class Verdict:
    """What was found about one model.

    Attributes:
        request: the model.
        ok: True when nothing is wrong.
        checks: what was checked and how it came out, in words.
    """

    request: str
    ok: bool
    checks: tuple[str, ...]


def check_model(entry: Entry) -> Verdict:
    """Check a model's weights and what it computes.

    Raises:
        WeightsMissingError: its weights are not here.
    """
    if isinstance(entry.problem, WeightsMissingError):
        raise entry.problem
    if entry.problem is not None:
        return Verdict(entry.request, False, (str(entry.problem),))
    used = entry.weights
    if used is None:
        return Verdict(entry.request, True, ("it has no weights of ours to check",))
    checks = [f"SHA-256 {used.sha256[:12]}… is right ({used.source})"]
    distance = _distance(entry, used)
    if distance is None:
        load_model(_request(entry, used))
        return Verdict(entry.request, True, (*checks, "it loads; there are no reference values for these weights"))
    limit = AISFX_LIMIT if entry.name == "aisfx" else OPENL3_LIMIT
    checks.append(f"relative distance to the reference values {distance:.4f} (at most {limit:g})")
    return Verdict(entry.request, distance <= limit, tuple(checks))


def _request(entry: Entry, weights: WeightsFile) -> ModelRequest:
    """Return the request for the network in float32, which is what the references were computed in."""
    parsed = parse_request(entry.request)
    return ModelRequest(entry.name, parsed.options, weights=weights.path, precision="fp32")


def _distance(entry: Entry, weights: WeightsFile) -> float | None:
    """Return the largest relative distance of a vector to its reference; None when there is none to compare with."""
    samples, sample_rate = _chirp()
    if entry.name == "aisfx":
        model = load_model(_request(entry, weights))
        window = np.resize(samples, (1, model.identity.window_samples)).astype(np.float32)
        return _relative(model.embed(window), _reference("aisfx.npz", "chirp_44k"))
    if entry.kind not in OPENL3_CASES:
        return None
    from embedindex.models.openl3 import parse_options
    from embedindex.models.openl3_pipeline import embed_audio

    rows, hop_s, center = OPENL3_CASES[entry.kind]
    options = parse_options(parse_request(entry.request).options)
    request = _request(entry, weights)
    pairs = {**dict(request.options), "embedding_size": "512"}
    model = load_model(ModelRequest("openl3", tuple(pairs.items()), weights.path, "fp32"))
    vectors, _ = embed_audio(samples, sample_rate, model, center=center, hop_s=hop_s)
    return _relative(vectors[list(rows)], _reference("openl3.npz", f"{'_'.join(entry.kind)}_{options.frontend}"))


def _relative(vectors: Float32Array, reference: Float32Array) -> float:
    lengths = np.linalg.norm(reference, axis=1)
    return float((np.linalg.norm(vectors - reference, axis=1) / lengths).max())


def _chirp() -> tuple[Float32Array, int]:
    """Return the official project's test sound, (88200,) float32 at 44.1 kHz."""
    import soundfile

    with as_file(files(__package__) / "reference" / "chirp_44k.flac") as path:
        samples, sample_rate = soundfile.read(os.fspath(path), dtype="float32")
    return samples, sample_rate


def _reference(file: str, name: str) -> Float32Array:
    with as_file(files(__package__) / "reference" / file) as path, np.load(path, allow_pickle=False) as arrays:
        return np.asarray(arrays[name], np.float32)
