"""Where a decoder may jump to, so that what it gives from there on is what it gives when it decodes from the start.

A seek is exact when the container says where a sample lies, and when the decoder has heard enough before it to be in
the state it would be in anyhow. Measured for each container, see docs/decisions/seeking.md: what is not exact to -90 dB
is decoded from the start. Conventions: positions are frames at the file's own rate.
"""

from __future__ import annotations

import io
import os
import struct
from typing import Any

import numpy as np

from embedindex.arrays import Float32Array

# Beyond the bit reservoir (511 bytes, at most ten frames of 1152) and what the filter banks remember.
MP3_ROLL = 16 * 1152
# Vorbis blocks reach over 8192 samples at most, Opus converges within 80 ms (RFC 7845, section 4.6). Seeks within Ogg
# land wrongly now and then, by a part of a block: two seeks from different places have to agree.
OGG_ROLLS = (16_384, 40_960)
OGG_AGREEING = 2048
OGG_TAIL_BYTES = 1 << 17
SHORTEST = 1 << 18  # so little is decoded from the start: it takes no longer, and cannot go wrong


# FFmpeg's streams whose packets need nothing from the one before, and whose time stamps count samples.
LOSSLESS = frozenset({"alac", "wavpack", "tta", "flac"})
STREAM_ROLL = 1 << 15


def seek_before(sound: Any, file: io.RawIOBase, frame: int) -> int:
    """Make an open `soundfile.SoundFile` read on at `frame` or before it; return where it stands.

    Args:
        sound: the open file, at its start.
        file: the same, to look at its pages.
        frame: position wanted, at most its length.
    """
    if not sound.seekable():
        return 0
    if sound.format == "MP3":
        return int(sound.seek(frame - MP3_ROLL)) if frame > SHORTEST else 0
    if sound.format == "OGG":
        return _seek_ogg(sound, file, frame) if frame > SHORTEST else 0
    return int(sound.seek(frame))


def file_size(file: io.RawIOBase) -> int:
    """Return how many bytes a file has; its position stays."""
    position = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(position)
    return size


def seeks_exactly(stream: Any, frame: int) -> bool:
    """Return whether an FFmpeg stream can jump near `frame` and count on from the time stamp it finds there."""
    lossless = stream.codec_context.name in LOSSLESS or stream.codec_context.name.startswith("pcm_")
    counts = stream.time_base is not None and stream.time_base * stream.codec_context.sample_rate == 1
    contained = stream.container.format.name.split(",")[0] in {"mov", "caf", "wv", "tta"}
    return bool(frame > SHORTEST and lossless and counts and contained and stream.start_time in {0, None})


def _seek_ogg(sound: Any, file: io.RawIOBase, frame: int) -> int:
    """Seek in Ogg; where seeks do not agree with one another, or with the beginning, go back to the start."""
    scale = sound.samplerate / 48_000 if sound.subtype == "OPUS" else 1.0  # Opus counts at 48 kHz (RFC 7845)
    most = int(_last_page_begins(file) * scale) - OGG_ROLLS[0]
    target = min(frame, most)
    if target > SHORTEST and _counts_from_zero(sound):
        heard = [_heard(sound, target - roll, target - OGG_AGREEING, OGG_AGREEING) for roll in reversed(OGG_ROLLS)]
        if np.array_equal(heard[0], heard[1]):
            return target
    sound.seek(0)
    return 0


def _counts_from_zero(sound: Any) -> bool:
    """Return whether positions in the pages are counted from the file's first sample on (not so in cut streams)."""
    first = OGG_ROLLS[0] + OGG_AGREEING
    sound.seek(0)
    whole = sound.read(first + OGG_AGREEING, dtype="float32", always_2d=True)
    return bool(np.array_equal(whole[first:], _heard(sound, first - OGG_AGREEING, first, OGG_AGREEING)))


def _heard(sound: Any, begin: int, start: int, frames: int) -> Float32Array:
    sound.seek(begin)
    sound.read(start - begin, dtype="float32")
    heard: Float32Array = sound.read(frames, dtype="float32", always_2d=True)
    return heard


def _last_page_begins(file: io.RawIOBase) -> int:
    """Return the position at which the last page of an Ogg file begins, 0 if that is not to be found.

    A page (RFC 3533, section 6) tells where its last sample lies, the last page where the sound ends, which may be
    within its samples: who counts back from there counts wrongly.
    """
    position = file.tell()  # libsndfile may read through the same descriptor
    file.seek(max(0, file_size(file) - OGG_TAIL_BYTES))
    tail = file.read(OGG_TAIL_BYTES) or b""
    file.seek(position)
    ends = []
    place = tail.find(b"OggS")
    while 0 <= place <= len(tail) - 27:
        (granule,) = struct.unpack_from("<q", tail, place + 6)
        if granule >= 0:
            ends.append(granule)
        place = tail.find(b"OggS", place + 4)
    return int(ends[-2]) if len(ends) > 1 else 0
