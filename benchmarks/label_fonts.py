"""Sounds of Debian's sound fonts for labels.py: General MIDI's instruments by family, and its drums, one note a file.

fluidsynth plays every program, and every drum, 1.5 s long, without reverberation or chorus; each font is a folder, so
that leaving out the own folder leaves out the font. Fonts that are not installed are left out, and so is MuseScore's,
which was made from FluidR3. Rendered files that are there already stay.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile as sf

FONTS = {
    "fluid": "/usr/share/sounds/sf2/FluidR3_GM.sf2",
    "timgm": "/usr/share/sounds/sf2/TimGM6mb.sf2",
    "csound": "/usr/share/sounds/sf2/sf_GMbank.sf2",
    "opl3": "/usr/share/sounds/sf2/OPL-3_FM_128M.sf2",
}
FAMILIES = (
    "piano",
    "chromatic percussion",
    "organ",
    "guitar",
    "bass",
    "strings",
    "ensemble",
    "brass",
    "reed",
    "pipe",
    "synth lead",
    "synth pad",
    "synth effects",
    "ethnic",
    "percussive",
    "sound effects",
)
DRUMS = {
    "kick": (35, 36),
    "sidestick": (37,),
    "snare": (38, 40),
    "clap": (39,),
    "tom": (41, 43, 45, 47, 48, 50),
    "hat closed": (42,),
    "hat pedal": (44,),
    "hat open": (46,),
    "crash": (49, 57),
    "ride": (51, 53, 59),
    "china": (52,),
    "tambourine": (54,),
    "splash": (55,),
    "cowbell": (56,),
    "vibraslap": (58,),
    "bongo": (60, 61),
    "conga": (62, 63, 64),
    "timbale": (65, 66),
    "agogo": (67, 68),
    "shaker": (69, 70),
    "guiro": (73, 74),
    "claves": (75,),
    "woodblock": (76, 77),
    "triangle": (80, 81),
}
KITS = {"fluid": (0, 8, 16, 25, 40), "timgm": (0, 8, 16, 24, 25, 40)}  # programs of the drum channel
NOTE_S, STEP_S = 1.5, 2.5
TICKS_PER_S = 960
SILENT = 1e-4

Event = tuple[float, bytes]  # seconds after the one before


def instruments(folder: Path) -> str:
    """Render FOLDER/font/family-program.wav, and return the folder."""
    for font, path in _installed():
        names = [f"{FAMILIES[program // 8]}-{program:03}" for program in range(128)]
        events: list[Event] = []
        for program in range(128):
            note = 36 if FAMILIES[program // 8] == "bass" else 60
            events += [(STEP_S - NOTE_S if program else 0.0, bytes([0xC0, program])), *_note(0, note, 100)]
        _render(path, events, names, folder / font)
    return str(folder)


def percussion(folder: Path) -> str:
    """Render FOLDER/font/drum_kit_note.wav, and return the folder."""
    notes = sorted((note, drum) for drum, some in DRUMS.items() for note in some)
    for font, path in _installed():
        events: list[Event] = []
        names: list[str] = []
        for kit in KITS.get(font, (0,)):
            for note, drum in notes:
                events += [(STEP_S - NOTE_S if names else 0.0, bytes([0xC9, kit])), *_note(9, note, 110)]
                names.append(f"{drum}_{kit}_{note}")
        _render(path, events, names, folder / font)
    return str(folder)


def _installed() -> Iterator[tuple[str, str]]:
    if shutil.which("fluidsynth"):
        yield from ((font, path) for font, path in FONTS.items() if Path(path).exists())


def _note(channel: int, note: int, velocity: int) -> list[Event]:
    return [(0.0, bytes([0x90 + channel, note, velocity])), (NOTE_S, bytes([0x80 + channel, note, 0]))]


def _render(font: str, events: Sequence[Event], names: Sequence[str], folder: Path) -> None:
    """Play events with a font and cut what sounds into a file a step, unless the folder is there."""
    if folder.is_dir():
        return
    part = folder.with_name(folder.name + ".part")
    part.mkdir(parents=True, exist_ok=True)
    track = b"".join(_number(round(after_s * TICKS_PER_S)) + event for after_s, event in events) + b"\0\xff\x2f\0"
    head = b"MThd" + struct.pack(">IHHH", 6, 0, 1, TICKS_PER_S // 2)  # at the usual two quarters a second
    song, sound = part / "song.mid", part / "song.wav"
    song.write_bytes(head + b"MTrk" + struct.pack(">I", len(track)) + track)
    command = [
        "fluidsynth",
        "-ni",
        "-q",
        "-R",
        "0",
        "-C",
        "0",
        "-r",
        "44100",
        "-T",
        "wav",
        "-F",
        str(sound),
        font,
        str(song),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    played, rate = sf.read(sound, dtype="float32")
    for number, name in enumerate(names):
        heard = played[round(number * STEP_S * rate) : round((number + 1) * STEP_S * rate)].mean(axis=1)
        loud = np.flatnonzero(np.abs(heard) > SILENT)
        if len(loud):
            sf.write(part / f"{name}.wav", heard[: loud[-1] + 1], rate)
    song.unlink()
    sound.unlink()
    part.rename(folder)


def _number(value: int) -> bytes:
    """Return a number as MIDI files hold it: seven bits a byte, the highest first."""
    found = [value & 127]
    while value := value >> 7:
        found.insert(0, (value & 127) | 128)
    return bytes(found)
