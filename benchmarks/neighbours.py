"""How good are a model's neighbourhoods? Labelled files, leave-one-out kNN, with the controls that keep it honest.

    python benchmarks/neighbours.py /usr/share/hydrogen/data/drumkits --label drums --group folder
    python benchmarks/neighbours.py /usr/share/sonic-pi/samples --label prefix --model spectral

Prints, for random vectors, for mere metadata (duration, rate, channels, peak, format) and for the model: accuracy of a
vote among k neighbours and precision among the first 10, leave-one-out and, with --group, without the neighbours that
come from the query's own group, which is the honest figure; then how many files quieter by 20 dB, or without their
first 0.3 s, find their own original first. A file's vector is the mean of its windows' in the index's space.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.audio import read_audio
from embedindex.embed import embed_blocks, embed_file, hop_samples
from embedindex.errors import AudioError
from embedindex.models import Model, ModelIdentity, load_model, parse_request
from embedindex.space import Space, learn_space
from embedindex.windows import dense_hop

SUFFIXES = (".wav", ".flac", ".aif", ".aiff", ".ogg", ".mp3", ".opus", ".m4a")
PRECISION_AT = 10
# What the file names of drum kits call their parts; the first that matches counts.
DRUMS = (
    ("loop", r"^beats_"),
    ("hat open", r"hh?open|hat_?op|ohh|openhat|hihat-?open|^ho_|hat 1 op"),
    ("hat half open", r"semi"),
    ("hat pedal", r"hhpedal|hatpedal|hatfoot|pedalhihat|hh_p|hat 1 pd"),
    ("hat closed", r"hhclosed|hatclosed|hihat-closed|closehihat|_chh|hat.*cl"),
    ("sidestick", r"rim|stick|^rs_"),
    ("tambourine", r"tambour"),
    ("crash", r"crash(?!.*ride)|^cra_|_crash"),
    ("ride", r"ride|^rd"),
    ("splash", r"splash"),
    ("cowbell", r"cowbell|_cb|^cb"),
    ("clap", r"clap"),
    ("tom", r"tom|^tm|^t[12]_|^ft_"),
    ("kick", r"kick|^bd|bassdrum|_bd|hse_k"),
    ("snare", r"snare|^sn|_sn|^sd"),
    ("hand drum", r"djembe|conga|cajon"),
)


@dataclass(frozen=True)
class Sound:
    """One labelled file and what was computed of it.

    Attributes:
        path: the file.
        label: what it is.
        group: where it comes from, "" when nothing is known.
        vectors: (n_windows, dimension) float16.
        metadata: (5,) what can be known of it without listening.
    """

    path: Path
    label: str
    group: str
    vectors: Float32Array
    metadata: Float32Array


class Varied:
    """A model with another level or filling than its own, to measure what they are worth."""

    def __init__(self, model: Model, identity: ModelIdentity) -> None:
        self._model = model
        self.identity = identity
        self.default_hop_s = model.default_hop_s

    def embed(self, windows: Float32Array) -> Float32Array:
        """Return the model's vectors."""
        return self._model.embed(windows)


def label_of(path: Path, rule: str) -> str | None:
    """Return a file's label by `rule`: folder, prefix, drums, or a regular expression whose first group it is."""
    if rule == "folder":
        return path.parent.name
    if rule == "prefix":
        return re.split(r"[_\-. ]", path.name)[0].lower()
    if rule == "drums":
        return next((label for label, pattern in DRUMS if re.search(pattern, path.name.lower())), None)
    found = re.search(rule, str(path))
    return found.group(1) if found else None


def labelled_files(folders: Sequence[str], rule: str, grouped: bool, least: int) -> list[tuple[Path, str, str]]:
    """Return (path, label, group) of the audio files under `folders` whose label has `least` files (and two groups)."""
    files = []
    for path in sorted(path for folder in folders for path in Path(folder).rglob("*") if path.suffix in SUFFIXES):
        label = label_of(path, rule)
        if label:
            files.append((path, label, path.parent.name if grouped else ""))
    counts = Counter(label for _, label, _ in files)
    groups = defaultdict(set)
    for _, label, group in files:
        groups[label].add(group)
    return [file for file in files if counts[file[1]] >= least and len(groups[file[1]]) >= (2 if grouped else 1)]


def listen(files: Sequence[tuple[Path, str, str]], model: Model, hop_s: float) -> list[Sound]:
    """Return the files that can be decoded and are not silent, embedded."""
    sounds = []
    for path, label, group in files:
        try:
            made = embed_file(str(path), model, hop_s)
        except AudioError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        if made.silent == len(made.vectors):
            print(f"left out: {path}: silence", file=sys.stderr)
            continue
        form = SUFFIXES.index(path.suffix)
        rate, channels = made.facts.sample_rate, made.facts.channels
        known = np.array([np.log(made.duration_s), rate, channels, np.log(made.peak), form], np.float32)
        sounds.append(Sound(path, label, group, made.vectors.astype(np.float32), known))
    return sounds


def unit(rows: Float32Array) -> Float32Array:
    """Return `rows` (n, d) scaled to length 1."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)


def standardised(rows: Float32Array) -> Float32Array:
    """Return `rows` (n, d) with each column centred and scaled to deviation 1, then each row to length 1."""
    scaled = (rows - rows.mean(axis=0)) / np.maximum(rows.std(axis=0), np.float32(1e-9))
    return unit(np.asarray(scaled, np.float32))


def file_vectors(sounds: Sequence[Sound], space: Space) -> Float32Array:
    """Return (n, dimension): the mean of each sound's windows in `space`, scaled to length 1."""
    return unit(np.stack([space.apply(sound.vectors).mean(axis=0) for sound in sounds]))


def neighbour_figures(rows: Float32Array, sounds: Sequence[Sound], k: int, grouped: bool) -> tuple[float, float]:
    """Return (accuracy of a vote among k, precision among `PRECISION_AT`), without the query's group when `grouped`."""
    labels = np.array([sound.label for sound in sounds])
    groups = np.array([sound.group for sound in sounds])
    similar = rows @ rows.T
    hits, precision = 0, 0.0
    for number, label in enumerate(labels):
        allowed = groups != groups[number] if grouped else np.arange(len(sounds)) != number
        order = np.flatnonzero(allowed)[np.argsort(-similar[number, allowed], kind="stable")]
        votes: dict[str, float] = defaultdict(float)
        for other in order[:k]:
            votes[labels[other]] += 1.0 + 1e-3 * float(similar[number, other])  # nearer ones decide ties
        hits += max(votes, key=lambda name: votes[name]) == label
        precision += float(np.mean(labels[order[:PRECISION_AT]] == label))
    return hits / len(sounds), precision / len(sounds)


def recall_of_altered(
    sounds: Sequence[Sound], model: Model, hop_s: float, space: Space, gain_db: float = 0.0, cut_s: float = 0.0
) -> tuple[float, int]:
    """Return the share of altered files that find their original first, and how many were asked.

    A file's score is the mean over the query's windows of the best cosine in the file. Files that end with the cut or
    less than 0.1 s after it are not asked.
    """
    rate = model.identity.sample_rate
    hop = hop_samples(hop_s, rate)
    starts = np.cumsum([0] + [len(sound.vectors) for sound in sounds])[:-1]
    stored = np.concatenate([space.apply(sound.vectors) for sound in sounds])
    found = asked = 0
    for number, sound in enumerate(sounds):
        samples = read_audio(str(sound.path), sample_rate=rate)[0][int(cut_s * rate) :]
        samples = samples * np.float32(10 ** (gain_db / 20))
        peak = float(np.abs(samples).max(initial=0.0))
        if len(samples) < 0.1 * rate or peak < 1e-4:
            continue
        vectors, _ = embed_blocks([samples], peak, model, dense_hop(len(samples), model.identity.window_samples, hop))
        best = np.maximum.reduceat(space.apply(vectors.astype(np.float16)) @ stored.T, starts, axis=1).mean(axis=0)
        found += bool(best[number] >= best.max() - 1e-6)
        asked += 1
    return found / max(asked, 1), asked


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="+")
    parser.add_argument("--label", default="folder", help="folder, prefix, drums, or a regular expression with a group")
    parser.add_argument("--group", choices=["folder"], help="what counts as a kit or pack")
    parser.add_argument("--model", default="spectral", help="NAME or NAME:KEY=VALUE,…")
    parser.add_argument("--hop", type=float, help="seconds (default: the model's)")
    parser.add_argument("--level", choices=["peak", "none"], help="instead of the model's")
    parser.add_argument("--filling", choices=["zero", "tile"], help="instead of the model's")
    parser.add_argument("-k", type=int, default=5)
    parser.add_argument("--least", type=int, default=3, help="labels with fewer files are left out")
    parser.add_argument("--seed", type=int, default=0, help="of the random vectors")
    options = parser.parse_args()
    loaded = load_model(parse_request(options.model))
    changes = {key: getattr(options, key) for key in ("level", "filling") if getattr(options, key)}
    model: Model = Varied(loaded, replace(loaded.identity, **changes))
    hop_s = options.hop or model.default_hop_s
    grouped = options.group is not None
    sounds = listen(labelled_files(options.folder, options.label, grouped, options.least), model, hop_s)
    if len(sounds) <= PRECISION_AT:
        sys.exit(f"{len(sounds)} labelled sounds are too few; look at --label, --group and --least")
    space = learn_space(model.identity, (sound.vectors for sound in sounds))
    candidates = {
        "random vectors": unit(np.random.default_rng(options.seed).standard_normal((len(sounds), 64), np.float32)),
        "metadata only": standardised(np.stack([sound.metadata for sound in sounds])),
        options.model: file_vectors(sounds, space),
    }
    windows, labels = sum(len(sound.vectors) for sound in sounds), len({sound.label for sound in sounds})
    print(f"{len(sounds)} files, {windows} windows, {labels} labels, hop {hop_s} s")
    ways = [("leave-one-out", False)] + ([("without own group", True)] if grouped else [])
    print(f"{'':24}" + "".join(f"{name:>20} {'P@10':>6}" for name, _ in ways))
    for name, rows in candidates.items():
        figures = [neighbour_figures(rows, sounds, options.k, way) for _, way in ways]
        print(f"{name:24}" + "".join(f"{accuracy:20.3f} {precision:6.3f}" for accuracy, precision in figures))
    for name, gain_db, cut_s in (("20 dB quieter", -20.0, 0.0), ("first 0.3 s cut off", 0.0, 0.3)):
        recall, asked = recall_of_altered(sounds, model, hop_s, space, gain_db, cut_s)
        print(f"{name}: {recall:.3f} of {asked} find their original first")


if __name__ == "__main__":
    main()
