"""Excerpts of up to 30 s from Debian packages for labels.py: kinds of sound by source, and game soundtracks.

Each source of a kind is a folder, so that leaving out the own folder leaves out the package. What is not installed is
left out; excerpts that are there already stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile as sf

from embedindex.arrays import Float32Array
from embedindex.audio import AudioReader
from embedindex.errors import AudioError

LENGTH_S = 30.0
RATE = 44_100
SUFFIXES = (".wav", ".ogg", ".flac", ".oga")
SHARE = Path("/usr/share")
KITS = "hydrogen/data/drumkits"
WESNOTH = "games/wesnoth/1.16/data/core"

# kind, source, at most so many files, patterns below /usr/share
TYPES: tuple[tuple[str, str, int, tuple[str, ...]], ...] = (
    ("speech", "klettres", 80, tuple(f"klettres/{code}/**/*" for code in ("es", "it", "ru", "hu", "uk"))),
    ("speech", "asterisk", 80, ("asterisk/sounds/en_US_f_Allison/**/*",)),
    ("speech", "fillets", 80, tuple(f"games/fillets-ng/sound/{name}/**/*" for name in ("linux/en", "elk", "viking2"))),
    ("music", "wesnoth", 30, (f"{WESNOTH}/music/*",)),
    ("music", "warzone", 28, ("games/warzone2100/music/**/*",)),
    ("music", "hyperrogue", 17, ("hyperrogue/music/*",)),
    ("music", "colobot", 21, ("games/colobot/music/*",)),
    ("effects", "wesnoth", 60, (f"{WESNOTH}/sounds/*",)),
    ("effects", "colobot", 60, ("games/colobot/sounds/*",)),
    ("effects", "hyperrogue", 60, ("hyperrogue/sounds/*",)),
    ("effects", "tuxpaint", 32, ("tuxpaint/sounds/*",)),
    ("effects", "freedesktop", 32, ("sounds/freedesktop/stereo/*",)),
    ("drums", "black pearl", 40, (f"{KITS}/The Black Pearl 1.0/*",)),
    ("drums", "millo", 40, (f"{KITS}/Millo_MultiLayered2/*",)),
    ("drums", "electric", 32, (f"{KITS}/ElectricEmpireKit/*",)),
    ("guitar", "strums", 40, (f"{KITS}/belofilms_GuitarStrums/*",)),
    ("guitar", "sonic-pi", 40, ("sonic-pi/samples/guit_*",)),
    ("ambience", "sonic-pi", 40, ("sonic-pi/samples/ambi_*",)),
    ("ambience", "wesnoth", 20, (f"{WESNOTH}/sounds/ambient/*",)),
    ("loops", "sonic-pi", 40, ("sonic-pi/samples/loop_*",)),
    ("loops", "rumpf", 40, (f"{KITS}/rumpf_kit_z01_h2/*",)),
    ("loops", "lmms", 40, ("lmms/samples/beats/*",)),
    ("bass", "sonic-pi", 40, ("sonic-pi/samples/bass_*",)),
    ("bass", "lmms", 40, ("lmms/samples/basses/*",)),
)
SOUNDTRACKS = (
    ("wesnoth", 25, f"{WESNOTH}/music/*"),
    ("warzone legacy", 13, "games/warzone2100/music/albums/legacy_soundtrack/*"),
    ("warzone aftermath", 13, "games/warzone2100/music/albums/aftermath_soundtrack/*"),
    ("hyperrogue", 17, "hyperrogue/music/*"),
    ("colobot", 21, "games/colobot/music/*"),
    ("planetblupi", 10, "planetblupi/music/*"),
    ("singularity", 16, "singularity/music/*"),
    ("singularity", 16, "games/singularity/music/*"),
    ("fillets", 15, "games/fillets-ng/music/*"),
    ("pushover", 10, "pushover/themes/*"),
)
LEAST_BYTES = 200_000  # shorter ones are jingles


def types(folder: Path) -> str:
    """Cut excerpts of kinds of sound, FOLDER/kind/source/file, and return the folder."""
    random = np.random.default_rng(1)
    for kind, source, most, patterns in TYPES:
        found = [path for pattern in patterns for path in _sounds(pattern)]
        drawn = np.sort(random.permutation(len(found))[:most])
        _cut([found[number] for number in drawn], folder / kind / source, 0.0)
    return str(folder)


def soundtracks(folder: Path) -> str:
    """Cut 30 s of each track from its tenth second on, FOLDER/game/file, and return the folder."""
    for game, most, pattern in SOUNDTRACKS:
        found = [path for path in _sounds(pattern) if path.stat().st_size > LEAST_BYTES]
        _cut(found[:most], folder / game, 10.0)
    return str(folder)


def _sounds(pattern: str) -> list[Path]:
    return sorted(path for path in SHARE.glob(pattern) if path.suffix.lower() in SUFFIXES and path.is_file())


def _cut(paths: Sequence[Path], folder: Path, start_s: float) -> None:
    """Write excerpts as mono WAV, unless the folder is there."""
    if folder.is_dir() or not paths:
        return
    part = folder.with_name(folder.name + ".part")
    part.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        try:
            sound = beginning(path, start_s + LENGTH_S)
        except AudioError:
            continue
        kept = sound[round(start_s * RATE) :]
        if len(kept):
            sf.write(part / f"{number:03} {path.stem}.wav", kept, RATE)
    part.rename(folder)


def beginning(path: Path, length_s: float) -> Float32Array:
    """Return the first seconds of a file, of what it has; the rest is not read."""
    blocks, missing = [np.zeros(0, np.float32)], round(length_s * RATE)
    with AudioReader(path, sample_rate=RATE) as reader:
        for block in reader.blocks():
            blocks.append(block[:missing])
            missing -= len(block)
            if missing <= 0:
                break
    return np.concatenate(blocks)
