"""What benchmarks of finding share: altered copies of sounds, MP3 files of them, and indexes to look for them in.

Conventions: sounds are (n, channels) float32; draws are seeded, so that the same library gives the same copies.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import soundfile as sf
import soxr
from measure import library_sound

from embedindex.arrays import Float32Array
from embedindex.models import ModelRequest, parse_request
from embedindex.scan import ScanOptions, scan
from embedindex.store import Store


def encode_mp3(path: Path, samples: Float32Array, sample_rate: int, bit_rate: int) -> None:
    """Write (n, channels) samples as MP3 with LAME at a constant bit rate (bit/s)."""
    layout = "mono" if samples.shape[1] == 1 else "stereo"
    with av.open(str(path), "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=sample_rate, layout=layout)
        stream.bit_rate = bit_rate
        planar = np.ascontiguousarray(samples.T, np.float32)
        size = 1152
        for start in range(0, planar.shape[1], size):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(planar[:, start : start + size]), format="fltp", layout=layout
            )
            frame.sample_rate = sample_rate
            frame.pts, frame.time_base = start, Fraction(1, sample_rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def with_gain(samples: Float32Array, gain_db: float) -> Float32Array:
    """Return the sound louder by so many dB."""
    return np.asarray(samples * np.float32(10 ** (gain_db / 20)), np.float32)


def with_noise(samples: Float32Array, snr_db: float, random: np.random.Generator) -> Float32Array:
    """Return the sound with white noise so many dB below its RMS."""
    level = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) * 10 ** (-snr_db / 20)
    return np.asarray(samples + level * random.standard_normal(samples.shape), np.float32)


def resampled(samples: Float32Array, sample_rate: int, to: int) -> Float32Array:
    """Return the sound at another rate."""
    return np.asarray(soxr.resample(samples, sample_rate, to), np.float32)


def delayed(samples: Float32Array, sample_rate: int, silence_s: float) -> Float32Array:
    """Return the sound with silence in front."""
    return np.concatenate((np.zeros((round(silence_s * sample_rate), samples.shape[1]), np.float32), samples))


def add_index_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which indexes are asked."""
    parser.add_argument("folder", nargs="*", help="scanned into a temporary index for each --model")
    parser.add_argument("--index", action="append", default=[], help="ask this index instead; may be repeated")
    parser.add_argument(
        "--each", action="store_true", help="each folder, and each index, is a collection by itself, drawn from anew"
    )
    parser.add_argument("--model", action="append", default=[], help="NAME or NAME:KEY=VALUE,…; may be repeated")
    parser.add_argument("--weights", help="a file of weights for the models")
    parser.add_argument("--hop", type=float, help="seconds")
    parser.add_argument("--count", type=int, default=200, help="how many sounds are drawn")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print figures, with all misses, as JSON")
    parser.add_argument("--quick", action="store_true", help="few synthetic sounds: only to see that it works")


def collections(options: argparse.Namespace, *, sounds: int, sound_s: float) -> Iterator[tuple[str, list[Store]]]:
    """Yield the indexes of each collection with its name: with ``--each`` several, else one; see `opened_indexes`."""
    parts = [(folder, [folder], []) for folder in options.folder] + [(index, [], [index]) for index in options.index]
    if not options.each or not parts:
        parts = [(", ".join([*options.folder, *options.index]) or "synthetic", options.folder, options.index)]
    for name, folders, indexes in parts:
        own = argparse.Namespace(**{**vars(options), "folder": folders, "index": indexes})
        with opened_indexes(own, sounds=sounds, sound_s=sound_s) as stores:
            yield name.rstrip("/").rpartition("/")[2], stores


@contextmanager
def opened_indexes(options: argparse.Namespace, *, sounds: int, sound_s: float) -> Iterator[list[Store]]:
    """Give the indexes that the options name; with ``--quick`` and no others one of synthetic sounds.

    Args:
        options: what `add_index_options` added.
        sounds: how many synthetic sounds.
        sound_s: how long they are.
    """
    with ExitStack() as held:
        folders, indexes = list(options.folder), list(options.index)
        if options.quick and not folders and not indexes:
            folders = [held.enter_context(TemporaryDirectory(prefix="embedindex-sounds-"))]
            for number in range(sounds):
                path = Path(folders[0], f"synthetic {number:02d}.wav")
                sf.write(path, library_sound(sound_s, 22050, seed=100 + number), 22050)
        if not folders and not indexes:
            raise SystemExit("give a folder of sounds, or --index")
        for model in (options.model or ["spectral"]) if folders else []:
            index = held.enter_context(TemporaryDirectory(prefix="embedindex-benchmark-"))
            parsed = parse_request(model)
            request = ModelRequest(parsed.name, parsed.options, weights=options.weights)
            scan(index, folders, ScanOptions(request=request, hop_s=options.hop))
            indexes.append(index)
        yield [held.enter_context(Store(index)) for index in indexes]


def model_name(store: Store) -> str:
    """Return an index's model with its hop, for a table."""
    model = store.model()
    return "?" if model is None else f"{model.identity.name}, hop {model.hop_s:g} s"


def both_shares(strict: float, counted: float) -> str:
    """Return a share for a table, with what it is when equals count in brackets, where that is more."""
    return f"{strict:.3f}" + (f" ({counted:.3f})" if counted > strict else "")
