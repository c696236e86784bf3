"""Bytes → samples: libsndfile for what it reads, FFmpeg's libraries (through PyAV) for the rest and for salvage.

Both decoders take an open regular file, never a name, and look at its content only. They yield (n, channels) float32
chunks of a fixed size at the file's own rate; lengths are in frames (one sample of every channel) unless a name ends in
``_s``. Why these two, and in this order: docs/decisions/decoding.md.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.seeking import SHORTEST, STREAM_ROLL, file_size, seek_before, seeks_exactly

# Samples (frames × channels) in a chunk: fixed, so that neither results nor memory depend on the caller's block size.
CHUNK_SAMPLES = 1 << 16

# libsndfile says this many frames, or more, when a header gives no length.
UNKNOWN_FRAMES = 1 << 62

# Bytes left unread behind the end of a stream that still pass for tags and page buffers.
TAIL_BYTES = 16 * 1024

# What is one stream to its end: what lies behind its end was missed.
STREAMS = frozenset({"mp3", "ogg", "flac"})

# AAC ends on a whole packet; a file's edit list says where the sound ends within it. Two packets of HE-AAC.
MAX_PADDING_FRAMES = 4096

# How MP4 names protected sound.
ENCRYPTED_TAGS = frozenset({"drms", "enca"})

# FFmpeg's demuxers of sound and films. Playlists and scripts (hls, concat, dash, sdp, imf…), which open other files or
# the network, devices, still images and headerless samples, which match anything, are left out on purpose.
DEMUXERS = (
    "aac,aax,ac3,ac4,act,adx,aiff,amr,amrnb,amrwb,apc,ape,aptx,asf,au,avi,bonk,caf,dsf,dts,dtshd,eac3,flac,flv,gsm,"
    "iamf,ircam,iff,ilbc,kvag,lrc,loas,matroska,mlp,mmf,mov,mp3,mpc,mpc8,mpeg,mpegts,mxf,nistsphere,nut,nuv,oma,ogg,"
    "osq,paf,pvf,qcp,rka,rm,rso,sds,shn,smjpeg,sox,svx,swf,tak,truehd,tta,voc,vqf,w64,wav,wavarc,wsd,wtv,wv,wve,xa,xwma"
)

# FFmpeg guesses the length of these from their bit rate: a difference from it means nothing.
UNTIMED_CONTAINERS = frozenset({"aac", "ac3", "amr", "dts", "eac3", "gsm", "loas", "mlp", "mp3", "mpeg", "truehd"})


@dataclass(frozen=True)
class AudioFacts:
    """What a file's header says about its sound.

    Attributes:
        container: e.g. ``"wav"``, ``"mp3"``, ``"mov"`` (all of the MP4 family), lower case.
        codec: e.g. ``"pcm_24"``, ``"vorbis"``, ``"aac"``, lower case.
        sample_rate: Hz, native.
        channels: how many.
        duration_s: length the header claims; None when it claims none.
        decoder: ``"libsndfile"`` or ``"ffmpeg"``.
    """

    container: str
    codec: str
    sample_rate: int
    channels: int
    duration_s: float | None
    decoder: str


class DecodingError(Exception):
    """A decoder could not begin with this content. Stays inside: `embedindex.audio` turns it into an `AudioError`."""


class NoSoundtrackError(DecodingError):
    """The content is understood, and there is no sound in it."""


class Decoder(Protocol):
    """An opened file.

    Attributes:
        facts: what the header says.
        timed: False where the length in `facts` is a guess from the bit rate.
        damaged: True once something was found broken, cut off or left unread.
        from_start: whether its middle is reached by decoding all that comes before it.
    """

    facts: AudioFacts
    timed: bool
    damaged: bool
    from_start: bool

    def chunks(self, skip: int = 0) -> Iterator[Float32Array]:
        """Yield (n, channels) float32 from frame `skip` to the end; never raises for damaged content."""
        ...

    def close(self) -> None:
        """Let go of the decoder; the file stays open."""
        ...


class SndfileDecoder:
    """libsndfile on an open file.

    Raises:
        DecodingError: libsndfile does not know the content.
        OSError: the operating system refused to read.
    """

    def __init__(self, file: io.RawIOBase) -> None:
        import soundfile

        self._error: type[Exception] = soundfile.LibsndfileError
        self._file = file
        file.seek(0)
        # By descriptor, libsndfile reads by itself, whatever the name. Windows' descriptors belong to a C library each,
        # and what lies in an archive has none.
        source = file.fileno() if os.name == "posix" and isinstance(file, io.FileIO) else file
        try:
            self._sound = soundfile.SoundFile(source, closefd=False)
        except self._error as error:
            raise DecodingError(str(error)) from error
        self.frames: int = self._sound.frames
        known = 0 <= self.frames < UNKNOWN_FRAMES
        self.facts = AudioFacts(
            container=self._sound.format.lower(),
            codec=self._sound.subtype.lower(),
            sample_rate=self._sound.samplerate,
            channels=self._sound.channels,
            duration_s=self.frames / self._sound.samplerate if known and self._sound.samplerate > 0 else None,
            decoder="libsndfile",
        )
        self.timed = self.facts.container != "mp3" or _counts_its_frames(file)
        self.from_start = not self._sound.seekable()
        self.damaged = False

    def chunks(self, skip: int = 0) -> Iterator[Float32Array]:
        """See `Decoder.chunks`."""
        size = max(1, CHUNK_SAMPLES // self.facts.channels)
        position = 0
        try:
            if skip:
                position = seek_before(self._sound, self._file, min(skip, self.frames))
            while position < self.frames:
                chunk: Float32Array = self._sound.read(size, dtype="float32", always_2d=True)
                if not len(chunk):
                    break
                fresh = chunk[max(0, skip - position) :]
                position += len(chunk)
                if len(fresh):
                    yield fresh
        except self._error:
            self.damaged = True
        short = self.timed and position < self.frames
        self.damaged = self.damaged or short or self._left_bytes()

    def close(self) -> None:
        """See `Decoder.close`."""
        self._sound.close()

    def _left_bytes(self) -> bool:
        """Return whether much of the file lies behind the point where libsndfile says that a stream ends.

        It stops without a word at garbage, and at the end of the first of several joined streams. Containers with
        chunks (WAV, AIFF…) may hold anything behind their sound.
        """
        return self.facts.container in STREAMS and file_size(self._file) - self._file.tell() > TAIL_BYTES


def _counts_its_frames(file: io.RawIOBase) -> bool:
    """Return whether an MPEG file opens with a Xing, Info or VBRI header; without one its length is a guess."""
    position = file.tell()  # libsndfile reads through the same descriptor
    file.seek(0)
    head = file.read(10)
    start = 0
    if head.startswith(b"ID3") and len(head) == 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    file.seek(start)
    first_frame = file.read(2048)
    file.seek(position)
    return any(name in first_frame for name in (b"Xing", b"Info", b"VBRI"))


def _ogg_within_wav(file: io.RawIOBase) -> int:
    """Return where the Ogg stream begins in a WAV file of format "OggVorbis", which no decoder opens; 0 in all others.

    Sample collections of about 2000 hold such files (format tags 0x674F to 0x6771).
    """
    file.seek(0)
    head = file.read(4096)
    if head[:4] + head[8:12] != b"RIFFWAVE" or not 0x674F <= int.from_bytes(head[20:22], "little") <= 0x6771:
        return 0
    return max(0, head.find(b"OggS"))


class _Source:
    """A file as FFmpeg sees it: bytes without a name, and what the operating system refused is remembered."""

    def __init__(self, file: io.RawIOBase) -> None:
        self._file = file
        self._start = _ogg_within_wav(file)
        self._file.seek(self._start)
        self.error: OSError | None = None

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size) or b""
        except OSError as error:
            self.error = error
            raise

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset + self._start if whence == os.SEEK_SET else offset, whence) - self._start
        except OSError as error:  # damage leads before the file's start; PyAV would print the traceback of a second one
            return -(error.errno or errno.EINVAL)  # as FFmpeg's own files answer

    def tell(self) -> int:  # PyAV seeks only in what can tell
        return self._file.tell() - self._start


def _refuse_other_files(url: str, *_: object) -> NoReturn:
    raise PermissionError(f"a sound file may not open another one: {url}")


class FfmpegDecoder:
    """FFmpeg's libraries on an open file.

    Raises:
        NoSoundtrackError: a film or picture without sound.
        DecodingError: FFmpeg does not know the content, or not one frame can be decoded.
        OSError: the operating system refused to read.

    Attributes:
        next_rate: Hz of what follows where the sound was left because its rate changes (joined files), else None.
    """

    def __init__(self, file: io.RawIOBase) -> None:
        import av

        self._av = av
        self._source = _Source(file)
        self.damaged = False
        self.next_rate: int | None = None
        # Text in headers is often not UTF-8. From 19 on PyAV puts up with that by itself, and takes no such option.
        lenient = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
        try:
            self._container: Any = av.open(
                self._source,
                "r",
                container_options={"format_whitelist": DEMUXERS, "protocol_whitelist": "file"},
                io_open=_refuse_other_files,
                **lenient,
            )
        except (av.error.FFmpegError, OSError) as error:
            raise self._cause(error) from error
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def chunks(self, skip: int = 0) -> Iterator[Float32Array]:
        """See `Decoder.chunks`. May raise OSError when the operating system refuses to read."""
        size = max(1, CHUNK_SAMPLES // self.facts.channels)
        kept: list[Float32Array] = []
        length = 0
        position = self._jump(skip)
        skip -= position
        for samples in self._trimmed(position):
            fresh = samples[skip:]
            skip = max(0, skip - len(samples))
            kept.append(fresh)
            length += len(fresh)
            if length >= size:
                yield np.concatenate(kept)
                kept, length = [], 0
        if length:
            yield np.concatenate(kept)
        if self._source.error:
            raise self._source.error

    def close(self) -> None:
        """See `Decoder.close`."""
        self._container.close()

    def _start(self) -> None:
        """Choose the soundtrack and decode its first frame: only that tells rate and channels for certain (HE-AAC)."""
        stream = self._container.streams.best("audio")
        if stream is None:
            raise NoSoundtrackError("no soundtrack")
        if stream.codec_context is None:
            raise DecodingError("no decoder for its codec")
        if stream.codec_context.codec_tag in ENCRYPTED_TAGS:  # FFmpeg would decode it, to noise
            raise DecodingError("it is encrypted")
        self._stream = stream
        self._frames = self._decoded(stream)
        self._first = next(self._frames, None)
        if self._source.error:
            raise self._source.error
        if self._first is None:
            raise DecodingError("not one frame of it is whole")
        if stream.duration and stream.time_base:
            duration_s: float | None = float(stream.duration * stream.time_base)
        else:
            duration_s = self._container.duration / self._av.time_base if self._container.duration else None
        self.facts = AudioFacts(
            container=self._container.format.name.split(",")[0],
            codec=stream.codec_context.name,
            sample_rate=self._first.sample_rate,
            channels=self._first.layout.nb_channels,
            duration_s=duration_s if duration_s and duration_s > 0 else None,
            decoder="ffmpeg",
        )
        self.timed = self.facts.container not in UNTIMED_CONTAINERS
        self.from_start = not seeks_exactly(stream, SHORTEST + 1)
        exact = self.facts.container == "mov" and duration_s is not None and stream.start_time in {0, None}
        self._end = round(duration_s * self.facts.sample_rate) if exact and duration_s is not None else None

    def _decoded(self, stream: Any) -> Iterator[Any]:
        """Yield frames; what cannot be decoded is left out and remembered in `damaged`."""
        packets = self._container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (self._av.error.FFmpegError, OSError):
                self.damaged = True
                return
            try:
                yield from packet.decode()
            except (self._av.error.FFmpegError, OSError, ValueError):  # that from PyAV 19: its decoder does not open
                self.damaged = True

    def _samples(self) -> Iterator[Float32Array]:
        frame = self._first
        while frame is not None:
            if frame.sample_rate != self.facts.sample_rate:
                self.next_rate = frame.sample_rate
                self.damaged = True
                return
            yield _with_channels(frame_samples(frame), self.facts.channels)
            frame = next(self._frames, None)

    def _jump(self, frame: int) -> int:
        """Go on at `frame` or before it, where that is exact; return where."""
        if not seeks_exactly(self._stream, frame):
            return 0
        self._container.seek(frame - STREAM_ROLL, stream=self._stream, backward=True)
        self._frames = self._decoded(self._stream)
        self._first = next(self._frames, None)
        return frame if self._first is None else int(self._first.pts)

    def _trimmed(self, position: int) -> Iterator[Float32Array]:
        """Yield the samples without the padding of the last packet, which lies behind the end in the edit list."""
        padding: list[Float32Array] = []
        for samples in self._samples():
            if self._end is None:
                yield samples
                continue
            inside = max(0, self._end - position)
            position += len(samples)
            if inside:
                yield samples[:inside]
            if inside < len(samples):
                padding.append(samples[inside:])
            if position - self._end > MAX_PADDING_FRAMES:  # more than padding: the edit list is wrong
                yield from padding
                self._end = None

    def _cause(self, error: Exception) -> Exception:
        """Return the operating system's error if there was one; content can make FFmpeg raise any error it likes."""
        return self._source.error or DecodingError(str(getattr(error, "strerror", None) or error).lower())


def frame_samples(frame: Any) -> Float32Array:
    """Return the samples of a decoded FFmpeg frame as (n, channels) float32, integers scaled to [-1, 1)."""
    data = frame.to_ndarray()
    data = data.T if frame.format.is_planar else data.reshape(-1, frame.layout.nb_channels)
    if data.dtype.kind == "f":
        return np.ascontiguousarray(data, np.float32)
    half = 2.0 ** (8 * data.dtype.itemsize - 1)
    centre = half if data.dtype.kind == "u" else 0.0
    scaled: Float32Array = ((data.astype(np.float64) - centre) / half).astype(np.float32)
    return scaled


def _with_channels(samples: Float32Array, channels: int) -> Float32Array:
    """Return `samples` with `channels` channels; where the number differs, each is the mean of what there is."""
    if samples.shape[1] == channels:
        return samples
    mean = samples.mean(axis=1, keepdims=True, dtype=np.float32)
    return np.repeat(mean, channels, axis=1)
