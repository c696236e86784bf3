"""Any file with sound in it → float32 blocks and facts, in constant memory.

Conventions: blocks are (n,) float32 mono, or (n, channels), at the rate asked for; lengths are in frames unless a name
ends in ``_s``. The content decides what a file is, never its name. Full scale is ±1; float files may exceed it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from types import TracebackType

import numpy as np

from embedindex.archives import open_sound
from embedindex.arrays import Float32Array
from embedindex.decoders import (
    AudioFacts,
    Decoder,
    DecodingError,
    FfmpegDecoder,
    NoSoundtrackError,
    SndfileDecoder,
)
from embedindex.errors import AudioLimitError, DamagedAudioError, EmptyAudioError, NotAudioError
from embedindex.opening import has_audio_signature, unreadable

__all__ = ["AUDIO_SUFFIXES", "AudioFacts", "AudioReader", "probe", "read_audio"]

# What a crawl takes for audio, by name alone. Films are in it for their soundtracks.
AUDIO_SUFFIXES = frozenset(
    """
    .wav .wave .bwf .rf64 .w64 .aif .aiff .aifc .afc .au .snd .caf .voc .sds .ircam .sf .pvf .paf .nist .sph .svx .8svx
    .iff .avr .flac .fla .ogg .oga .ogx .opus .spx .mp1 .mp2 .mp3 .mpga .m4a .m4b .m4r .aac .adts .ac3 .eac3 .ec3 .dts
    .dtshd .thd .mlp .wma .xwma .ape .wv .tta .tak .mpc .mp+ .mpp .shn .dsf .dff .wsd .amr .awb .3ga .gsm .qcp .ra .rm
    .oma .aa3 .at3 .mka .mkv .webm .weba .mp4 .m4v .mov .qt .3gp .3g2 .avi .wmv .asf .flv .f4a .f4v .mpg .mpeg .vob .ts
    .mts .m2ts .ogv .mxf
    """.split()  # noqa: SIM905 (ninety lines of one suffix each are no easier to read)
)

MIN_SAMPLE_RATE = 4_000
MAX_SAMPLE_RATE = 768_000
MAX_CHANNELS = 64
MAX_DURATION_S = 48 * 3600.0

# A sample of a larger magnitude (240 dB over full scale) is damage; its square would overflow float32 soon after.
MAX_MAGNITUDE = 1e12

# A header may be this much off before a difference is worth a note: encoders round, and pad the last packet.
LENGTH_TOLERANCE_S = 0.1
DAMAGED_TOLERANCE_S = 0.01

AnyPath = str | bytes | os.PathLike[str]


class AudioReader:
    """One audio file, read once from front to back.

    Example:
        >>> with AudioReader("kick.wav", sample_rate=48000) as reader:  # doctest: +SKIP
        ...     for block in reader.blocks():
        ...         print(block.shape)

    Args:
        path: any path, bytes for a name that is no text.
        sample_rate: Hz of the blocks; None for the file's own.
        mono: True to get the mean of the channels.
        block_s: length of a block in seconds; the last one may be shorter.
        start_s: seconds to leave out at the front, exact to the sample.
        max_duration_s: refuse files that are longer.
        keep_native: keep in `native` all that is read. For sounds that fit into memory.

    Attributes:
        facts: what the header says.
        native_frames: frames read so far, at the file's own rate; complete once `blocks` is exhausted.
        peak: largest magnitude so far of the mono mix at the file's own rate.
        non_finite: samples so far that were NaN, infinite or beyond 1e12, and were replaced by 0.
        native: (n, channels) at the file's own rate, what was read so far in pieces, if it is to be kept.
        note: None, or a sentence about damage, once `blocks` is exhausted.

    Raises:
        UnreadableFileError: the file system refused the file.
        EmptyAudioError: there are no bytes, or no samples, in it.
        NotAudioError: its content is not audio.
        DamagedAudioError: it is audio, but nothing can be decoded.
        AudioLimitError: its rate, channels or length are beyond reason.
    """

    def __init__(
        self,
        path: AnyPath,
        *,
        sample_rate: int | None = None,
        mono: bool = True,
        block_s: float = 10.0,
        start_s: float = 0.0,
        max_duration_s: float = MAX_DURATION_S,
        keep_native: bool = False,
    ) -> None:
        if block_s <= 0 or start_s < 0 or (sample_rate is not None and sample_rate <= 0):
            raise ValueError("block_s and sample_rate must be positive, start_s not negative")
        self._path = path
        self._mono = mono
        self._max_duration_s = max_duration_s
        self._keep_native = keep_native
        self._file = open_sound(path)
        try:
            self._decoder = self._open_decoder()
        except OSError as error:
            self._file.close()
            raise unreadable(path, error) from error
        except BaseException:
            self._file.close()
            raise
        self.facts = self._decoder.facts
        self._rate = sample_rate or self.facts.sample_rate
        self._block_frames = max(1, round(block_s * self._rate))
        self._skip = round(start_s * self.facts.sample_rate)
        self._started = False
        self._next_rate: int | None = None
        self.native_frames = 0
        self.peak = 0.0
        self.non_finite = 0
        self.native: list[Float32Array] = []
        self.note: str | None = None

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def from_start(self) -> bool:
        """Whether its middle is reached by decoding all that comes before it."""
        return self._decoder.from_start

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self._decoder.close()
        self._file.close()

    def blocks(self) -> Iterator[Float32Array]:
        """Yield the sound as consecutive blocks of `block_s`; the last may be shorter. Works once.

        Raises:
            UnreadableFileError: the operating system failed to read on.
            DamagedAudioError: nothing could be decoded after all.
            EmptyAudioError: it is so short that nothing is left of it at the rate asked for.
            AudioLimitError: the sound goes on for longer than `max_duration_s`.
        """
        if self._started:
            raise ValueError("blocks() can be read once; open the file again")
        self._started = True
        chunks = self._cleaned(self._native_chunks())
        if self._rate != self.facts.sample_rate:
            chunks = _resampled(chunks, self.facts.sample_rate, self._rate)
        made = 0
        for block in _rebatched(chunks, self._block_frames):
            made += len(block)
            yield block
        if not made and (self.native_frames or not self._skip):
            raise EmptyAudioError(self._path, f"is shorter than one sample at {self._rate} Hz; leave it out")

    def _open_decoder(self) -> Decoder:
        """Return the first decoder that gives samples, libsndfile before FFmpeg."""
        head = self._file.read(64)
        if not head:
            raise EmptyAudioError(self._path, "the file is empty (0 bytes); copy it again")
        opened_empty = False
        try:
            sndfile = SndfileDecoder(self._file)
        except DecodingError:
            pass  # not libsndfile's: FFmpeg decides what it is
        else:
            self._check_limits(sndfile.facts)
            if sndfile.facts.duration_s:
                return sndfile
            # No length in the header, as recorders leave it when they are cut off: FFmpeg reads to the end.
            opened_empty = sndfile.frames == 0
            sndfile.close()
        try:
            ffmpeg = FfmpegDecoder(self._file)
        except NoSoundtrackError as error:
            raise NotAudioError(self._path, "there is no soundtrack in it; leave it out") from error
        except DecodingError as error:
            if opened_empty:
                raise EmptyAudioError(
                    self._path, "it is an audio file without samples; record or copy it again"
                ) from error
            if has_audio_signature(head):
                raise DamagedAudioError(
                    self._path, f"cannot be decoded: {error}; copy or encode the file again"
                ) from error
            raise NotAudioError(self._path, "its content is not audio, whatever its name; leave it out") from error
        try:
            self._check_limits(ffmpeg.facts)
        except AudioLimitError:
            ffmpeg.close()
            raise
        return ffmpeg

    def _check_limits(self, facts: AudioFacts) -> None:
        advice = "the header is damaged, or this is no sound; leave it out"
        if not MIN_SAMPLE_RATE <= facts.sample_rate <= MAX_SAMPLE_RATE:
            limits = f"{MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz"
            raise AudioLimitError(self._path, f"claims {facts.sample_rate} Hz, outside {limits}: {advice}")
        if facts.channels > MAX_CHANNELS:
            raise AudioLimitError(self._path, f"claims {facts.channels} channels, above {MAX_CHANNELS}: {advice}")
        if facts.duration_s is not None and facts.duration_s > self._max_duration_s:
            raise self._too_long(facts.duration_s)

    def _too_long(self, duration_s: float) -> AudioLimitError:
        limit_h = self._max_duration_s / 3600
        return AudioLimitError(
            self._path, f"is {duration_s / 3600:.2f} h long or longer, above {limit_h:.2f} h: cut it into pieces"
        )

    def _native_chunks(self) -> Iterator[Float32Array]:
        """Yield (n, channels) at the native rate: the decoder's, then what FFmpeg finds behind the point it gave up."""
        try:
            yield from self._counted(self._decoder)
            if isinstance(self._decoder, FfmpegDecoder):
                self._next_rate = self._decoder.next_rate
            first_part = self.native_frames
            if self._decoder.damaged and isinstance(self._decoder, SndfileDecoder):
                self._decoder.close()
                yield from self._salvaged(self._file)
        except OSError as error:
            raise unreadable(self._path, error) from error
        if self.native_frames:
            self.note = self._damage_note(salvaged=self.native_frames - first_part)
        elif self._decoder.damaged and not self._skip:
            raise DamagedAudioError(self._path, "nothing can be decoded; copy or encode the file again")

    def _counted(self, decoder: Decoder) -> Iterator[Float32Array]:
        most = self._max_duration_s * self.facts.sample_rate
        for chunk in decoder.chunks(self._skip + self.native_frames):
            self.native_frames += len(chunk)
            if self._skip + self.native_frames > most:
                raise self._too_long(self._max_duration_s)
            yield chunk

    def _salvaged(self, file: io.RawIOBase) -> Iterator[Float32Array]:
        """Yield what FFmpeg can read behind what was delivered already."""
        try:
            ffmpeg = FfmpegDecoder(file)
        except DecodingError:
            return  # FFmpeg cannot read on either: the note tells how far we came
        try:
            same = (ffmpeg.facts.sample_rate, ffmpeg.facts.channels) == (self.facts.sample_rate, self.facts.channels)
            if same:
                yield from self._counted(ffmpeg)
                self._next_rate = ffmpeg.next_rate
        finally:
            ffmpeg.close()

    def _damage_note(self, salvaged: int) -> str | None:
        """Return what to say about the damage that was met; `salvaged` frames came from the second decoder."""
        damaged = self._decoder.damaged
        claimed_s = self.facts.duration_s
        got_s = (self._skip + self.native_frames) / self.facts.sample_rate
        if self._next_rate:
            return f"goes on at {self._next_rate} Hz after {got_s:.1f} s: what follows was left out"
        if claimed_s is not None and self._decoder.timed:
            tolerance_s = DAMAGED_TOLERANCE_S if damaged else LENGTH_TOLERANCE_S
            if got_s < claimed_s - tolerance_s:
                return f"{got_s:.1f} s of {claimed_s:.1f} s could be read: the rest is missing or damaged"
            if damaged and got_s > claimed_s + tolerance_s:
                return f"{got_s:.1f} s were found where the header says {claimed_s:.1f} s: joined files or damage"
        elif damaged and salvaged > LENGTH_TOLERANCE_S * self.facts.sample_rate:
            return "damaged in places: what could be decoded was read"
        if damaged and self.facts.decoder == "ffmpeg":
            return "damaged in places: what could be decoded was read"
        return None

    def _cleaned(self, chunks: Iterable[Float32Array]) -> Iterator[Float32Array]:
        """Yield chunks without NaN and infinity, mixed down where wanted; keeps `non_finite` and `peak`."""
        for chunk in chunks:
            if not np.abs(chunk).max() <= MAX_MAGNITUDE:  # also false for NaN
                usable = np.abs(chunk) <= MAX_MAGNITUDE
                self.non_finite += int(usable.size - np.count_nonzero(usable))
                chunk = np.where(usable, chunk, np.float32(0))
            if self._keep_native:
                self.native.append(chunk)
            mix = _mixed_down(chunk)
            self.peak = max(self.peak, float(np.abs(mix).max()))
            yield mix if self._mono else chunk


def probe(path: AnyPath) -> AudioFacts:
    """Return what the header of an audio file says, without decoding it. Raises what `AudioReader` raises."""
    with AudioReader(path) as reader:
        return reader.facts


def read_audio(
    path: AnyPath, sample_rate: int | None = None, mono: bool = True, max_duration_s: float = 4 * 3600.0
) -> tuple[Float32Array, AudioFacts]:
    """Return all samples of a file, (n,) or (n, channels) float32, and its facts. For short files and queries.

    Raises what `AudioReader` raises.
    """
    with AudioReader(path, sample_rate=sample_rate, mono=mono, max_duration_s=max_duration_s) as reader:
        return np.concatenate(list(reader.blocks())), reader.facts


def _mixed_down(chunk: Float32Array) -> Float32Array:
    """Return the mean of the channels of (n, channels). Column by column: numpy is slow along a short axis."""
    channels = chunk.shape[1]
    if channels == 1:
        return chunk[:, 0]
    mix = chunk[:, 0].astype(np.float32)
    for channel in range(1, channels):
        mix += chunk[:, channel]
    mix /= np.float32(channels)
    return mix


def _resampled(chunks: Iterable[Float32Array], from_hz: int, to_hz: int) -> Iterator[Float32Array]:
    """Yield the chunks, all with the same number of channels, at another rate (soxr, quality HQ)."""
    import soxr

    stream = None
    last = np.zeros(0, np.float32)
    for chunk in chunks:
        if stream is None:
            stream = soxr.ResampleStream(from_hz, to_hz, chunk.shape[1] if chunk.ndim == 2 else 1, quality="HQ")
            last = chunk[:0]
        yield stream.resample_chunk(chunk)
    if stream is not None:
        yield stream.resample_chunk(last, last=True)


def _rebatched(chunks: Iterable[Float32Array], size: int) -> Iterator[Float32Array]:
    """Yield the same samples in blocks of `size` frames; the last may be shorter."""
    kept: list[Float32Array] = []
    length = 0
    for chunk in chunks:
        kept.append(chunk)
        length += len(chunk)
        if length < size:
            continue
        joined = np.concatenate(kept)
        whole = length - length % size
        for start in range(0, whole, size):
            yield joined[start : start + size]
        kept, length = [joined[whole:]], length - whole
    if length:
        yield np.concatenate(kept)
