"""A sound someone asks about → the vectors to search with.

A file that the index holds unchanged is not decoded again: its stored vectors are used. Any other sound is embedded the
way a scan would, but from several starting points a fraction of a hop apart (`PHASES`), because nothing says that its
windows fall where those of the library fall: a clip cut at an odd place would otherwise match half a hop beside itself.
For the same reason it is also heard from where it really begins, without its steady noise (`embedindex.cleaning`), and
with its peaks put back when it is clipped (`embedindex.declipping`).
A part of a sound is listened to as if it had been cut out; a folder stands for its files together.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from embedindex.archives import exists, is_folder
from embedindex.arrays import Float16Array, Float32Array, Float64Array
from embedindex.audio import AudioReader, probe
from embedindex.cores import count_cores
from embedindex.crawl import CrawlTrouble, absolute_path, crawl
from embedindex.declipping import without_clipping
from embedindex.embed import embed_blocks, embed_file, hop_samples
from embedindex.errors import (
    AudioError,
    ModelMismatchError,
    PathNotFoundError,
    QueryError,
    ServerAwayError,
    UsageError,
    display_path,
)
from embedindex.file_stat import FileStat, file_stat
from embedindex.hearing import Heard, as_stored, hear, window_starts_s
from embedindex.models import Model, load_model, same_space
from embedindex.opening import is_real_folder, unreadable
from embedindex.records import FileRecord, IndexModel
from embedindex.remote_server import ServerSilentError
from embedindex.store import Store
from embedindex.writer import describe_model

# Longer queries are embedded from one starting point: they have windows enough that some fall well.
PHASED_UP_TO_S = 30.0
# Of longer sounds so many windows, evenly spread, ask for the whole: more cost time and change no ranking.
MAX_WINDOWS = 512


@dataclass(frozen=True)
class Part:
    """A part of a sound, in seconds from its start; `end_s` None for its end."""

    start_s: float = 0.0
    end_s: float | None = None


WHOLE = Part()


@dataclass(frozen=True)
class Query:
    """One sound to search with, or the sounds of a folder as one.

    Attributes:
        path: the file or folder, as it was given, made absolute.
        vectors: one (n, dimension) float16 array for each starting point; silence left out, n ≥ 1.
        record: the file in the index that this is, or None.
        starts_s: for each of these arrays (n,) where its windows start in the sound, seconds; empty when unknown.
        sources: of a folder, the file of each window; empty for a file.
        others: of a folder, its files in the index.
        remarks: what a person should know about the answer.
        length_s: how long the sound (or the part of it that is meant) is; None when unknown.
        offset_s: where that part begins in the sound.
        file: where its bytes are to be read, when that is not `path`.
        noisy: whether noise was taken away that was in it beyond doubt.
        bandwidth_hz: half its sample rate, of a folder the greatest; None when unknown.
    """

    path: bytes
    vectors: tuple[Float16Array, ...]
    record: FileRecord | None
    starts_s: tuple[Float64Array, ...] = ()
    sources: tuple[bytes, ...] = ()
    others: tuple[FileRecord, ...] = ()
    remarks: tuple[str, ...] = ()
    length_s: float | None = None
    offset_s: float = 0.0
    bandwidth_hz: float | None = None
    file: bytes | None = None
    noisy: bool = False

    @property
    def records(self) -> tuple[FileRecord, ...]:
        """The files of the index that this is."""
        return self.others if self.record is None else (self.record, *self.others)


class QueryMaker:
    """Makes queries for one index; the model is loaded when the first sound has to be embedded.

    Args:
        store: the index.
        model: its model.
        threads: threads that the model may use.
        load: how to load a model.
    """

    def __init__(
        self,
        store: Store,
        model: IndexModel,
        threads: int = 0,
        load: Callable[..., Model] = load_model,
    ) -> None:
        self._store = store
        self._model = model
        self._threads = threads or count_cores()
        self._load = load
        self._loaded: Model | None = None

    def model(self) -> Model:
        """Return the index's model, loaded.

        Raises:
            ModelMismatchError: what is installed under its name makes other vectors than those of the index.
        """
        if self._loaded is None:
            from dataclasses import replace

            loaded = self._load(replace(self._model.request, threads=self._threads))
            if not same_space(loaded.identity, self._model.identity):
                raise ModelMismatchError(
                    f"{display_path(self._store.folder)}: this index was made with "
                    f"{describe_model(self._model.identity, self._model.hop_s)}, but the model here is now "
                    f"{describe_model(loaded.identity, self._model.hop_s)}; install the version it was made with, or "
                    "scan into another index with --index DIR"
                )
            self._loaded = loaded
        return self._loaded

    def from_path(self, path: str | bytes, part: Part = WHOLE) -> Query:
        """Return the query for a file, or for a folder.

        Raises:
            UsageError: a part of a folder was asked for.
            EmbedindexError: what `from_file` and `from_folder` raise.
        """
        absolute = absolute_path(os.fsencode(path))
        if not is_folder(absolute) and (_is_there(absolute) or not self._was_folder(absolute)):
            return self.from_file(path, part)
        if part != WHOLE:
            raise UsageError(f"{display_path(absolute)}: is a folder; a part can be taken of a file only")
        return self.from_folder(path)

    def from_file(self, path: str | bytes, part: Part = WHOLE) -> Query:
        """Return the query for a file, inside or outside the index, or for a part of it.

        Raises:
            PathNotFoundError: there is no such file.
            AudioError: it cannot be decoded.
            QueryError: there is nothing but silence in it, or it ends before the part begins.
        """
        absolute = absolute_path(os.fsencode(path))
        record = self._store.file_by_path(absolute)
        try:
            stat = file_stat(absolute)
            record = record or self._by_another_name(absolute, stat)
        except (FileNotFoundError, NotADirectoryError):
            if record is None or record.status != "ok":
                raise PathNotFoundError(
                    f"{display_path(absolute)}: there is no such file; give the path of a sound"
                ) from None
            if part != WHOLE:
                raise PathNotFoundError(
                    f"{display_path(absolute)}: is not there now; a part of it can be listened to when it is back"
                ) from None
            stat = None  # a file of a disk that is away can still be asked about
        except OSError as error:
            if isinstance(error, ServerSilentError) and record is not None and record.status == "ok" and part == WHOLE:
                stat = None
            else:
                raise unreadable(absolute, error) from error
        if stat is not None and is_real_folder(absolute):
            raise QueryError(f"{display_path(absolute)}: is a folder; give the path of a sound")
        unchanged = record is not None and (
            stat is None or (record.size, record.mtime_ns) == (stat.size, stat.mtime_ns)
        )
        heard: tuple[Heard, ...]
        if record is not None and record.status == "ok" and unchanged and part == WHOLE:
            heard, length_s, rate = (self._stored(record),), record.duration, record.sample_rate
        else:
            heard, length_s, rate = self._embed(absolute, part)
        loud = tuple(one for one in (one.useful(MAX_WINDOWS) for one in heard) if len(one.vectors))
        if not loud:
            what = "it" if part == WHOLE else "that part of it"
            raise QueryError(f"{display_path(absolute)}: there is nothing but silence in {what}; give another sound")
        return Query(
            absolute,
            tuple(one.vectors for one in loud),
            record,
            tuple(one.starts_s for one in loud),
            length_s=length_s,
            offset_s=part.start_s,
            bandwidth_hz=None if rate is None else rate / 2,
            noisy=any(one.noisy for one in loud),
        )

    def from_folder(self, path: str | bytes) -> Query:
        """Return one query for all sounds in a folder and below it, each with about the same weight.

        Of more than `MAX_WINDOWS` files so many are taken, evenly spread. A file that cannot be used is left out, which
        the query's remarks say.

        Raises:
            QueryError: there is no sound in it.
        """
        folder = absolute_path(os.fsencode(path))
        known = [self._store.file(file_id) for file_id, _, _, _ in self._store.paths_below(folder)]
        trouble = CrawlTrouble()
        there = [found.path for found in crawl([folder], trouble)] if is_folder(folder) else []
        paths = sorted({*there, *(record.path for record in known if record.status == "ok" and not there)})
        remarks = [f"{display_path(name)}: cannot be looked into ({why})" for name, why in trouble.folders]
        if len(paths) > MAX_WINDOWS:
            remarks.append(f"{display_path(folder)}: {MAX_WINDOWS} of its {len(paths)} files are asked about")
            paths = [paths[place] for place in np.linspace(0, len(paths) - 1, MAX_WINDOWS).round().astype(int)]
        parts: list[Heard] = []
        bandwidths_hz: list[float | None] = []
        sources: list[bytes] = []
        others = {record.id: record for record in known}
        for name in paths:
            try:
                one = self.from_file(name)
            except (AudioError, QueryError, PathNotFoundError) as error:
                remarks.append(f"left out of the question: {error}")
                continue
            bandwidths_hz.append(one.bandwidth_hz)
            others |= {record.id: record for record in one.records}
            heard = Heard(one.vectors[0], one.starts_s[0]).useful(max(1, MAX_WINDOWS // len(paths)))
            parts.append(heard)
            sources += [name] * len(heard.vectors)
        if not parts:
            why = f" ({remarks[0]})" if remarks else ""
            raise QueryError(f"{display_path(folder)}: there is no sound in this folder that can be asked about{why}")
        vectors = np.concatenate([one.vectors for one in parts])
        starts_s = np.concatenate([one.starts_s for one in parts])
        widest_hz = None if None in bandwidths_hz else max(filter(None, bandwidths_hz))
        files = tuple(others.values())
        return Query(
            folder, (vectors,), None, (starts_s,), tuple(sources), files, tuple(remarks), bandwidth_hz=widest_hz
        )

    def _was_folder(self, path: bytes) -> bool:
        """Return whether a path that is not there was a folder with files of the index in it."""
        below = next(self._store.paths_below(path), None)
        return below is not None and below[1] != path

    def _stored(self, record: FileRecord) -> Heard:
        vectors = self._store.vectors_of(record)
        return Heard(vectors, window_starts_s(len(vectors), record.hop_s or self._model.hop_s))

    def _by_another_name(self, path: bytes, stat: FileStat) -> FileRecord | None:
        """Return the file of the index that `path` leads to through a link, or None."""
        if not stat.inode:
            return None
        for record in self._store.files_by_inode(stat.device, stat.inode):
            with contextlib.suppress(OSError):  # the other name is gone
                if os.path.samefile(record.path, path):
                    return record
        return None

    def _embed(self, path: bytes, part: Part) -> tuple[tuple[Heard, ...], float | None, int]:
        """Return the hearings of a sound, or a part of it, its length in seconds where that is known, and its rate."""
        model = self.model()
        rate = model.identity.sample_rate
        held = _short(path, rate, part)
        usual = hop_samples(self._model.hop_s, rate)
        if held is None and part == WHOLE:
            embedding = embed_file(path, model, self._model.hop_s, content_hash=b"")
            heard = Heard(embedding.vectors, window_starts_s(len(embedding.vectors), embedding.hop_s))
            return (heard,), embedding.duration_s, embedding.facts.sample_rate
        if held is None:  # read twice, first for its level: no sound is too long
            peak = max(float(np.abs(block).max()) for block in part_blocks(path, rate, part))
            vectors, _ = embed_blocks(part_blocks(path, rate, part), peak, model, usual)
            starts_s = window_starts_s(len(vectors), usual / rate, part.start_s)
            length_s = None if part.end_s is None else part.end_s - part.start_s
            return (Heard(as_stored(path, vectors, model), starts_s),), length_s, probe(path).sample_rate
        as_it_is = hear(path, held.samples, held.peak, model, self._model.hop_s, part.start_s)
        return (*as_it_is, *self._repaired(path, held, part)), len(held.samples) / rate, held.own_rate

    def _repaired(self, path: bytes, held: _Held, part: Part) -> list[Heard]:
        """Return a short sound as it is heard with its peaks put back; nothing when it is not clipped."""
        import soxr

        rate = self.model().identity.sample_rate
        whole = without_clipping(held.own)
        if whole is None:
            return []
        sound = np.asarray(soxr.resample(whole, held.own_rate, rate, quality="HQ"), np.float32)
        return hear(path, sound, float(np.abs(whole).max()), self.model(), self._model.hop_s, part.start_s)


@dataclass(frozen=True)
class _Held:
    """A short sound, or a part of one, in memory.

    Attributes:
        samples: (n,) at the model's rate.
        peak: the magnitude it is scaled by.
        own: (m, channels) at its own rate.
        own_rate: that rate, Hz.
    """

    samples: Float32Array
    peak: float
    own: Float32Array
    own_rate: int


def _short(path: bytes, sample_rate: int, part: Part) -> _Held | None:
    """Return a sound, or a part, of up to `PHASED_UP_TO_S` seconds, decoded once; None for a longer one."""
    blocks: list[Float32Array] = []
    samples = 0
    with AudioReader(path, sample_rate=sample_rate, start_s=part.start_s, block_s=1.0, keep_native=True) as reader:
        for block in _within(reader, path, sample_rate, part):
            blocks.append(block)
            samples += len(block)
            if samples > PHASED_UP_TO_S * sample_rate:
                return None
    joined = np.concatenate(blocks)
    own_rate = reader.facts.sample_rate
    own = np.concatenate(reader.native)[: _frames(part, own_rate)]
    peak = reader.peak if part == WHOLE else float(np.abs(joined).max())
    return _Held(joined, peak, own, own_rate)


def part_blocks(path: bytes, sample_rate: int, part: Part, *, mono: bool = True) -> Iterator[Float32Array]:
    """Yield a part of a file as consecutive blocks, (n,) or (n, channels); what lies behind the file's end is left out.

    Raises:
        AudioError: it cannot be decoded.
        QueryError: the file ends before the part begins.
    """
    with AudioReader(path, sample_rate=sample_rate, mono=mono, start_s=part.start_s, block_s=1.0) as reader:
        yield from _within(reader, path, sample_rate, part)


def _within(reader: AudioReader, path: bytes, sample_rate: int, part: Part) -> Iterator[Float32Array]:
    """Yield what a reader that begins where a part does has of it."""
    left = _frames(part, sample_rate)
    made = 0
    for block in reader.blocks():
        wanted = block if left is None else block[: left - made]
        made += len(wanted)
        yield wanted
        if made == left:
            return
    if not made:
        raise QueryError(f"{display_path(path)}: ends before {part.start_s:g} s; ask for a part that lies within it")


def _frames(part: Part, sample_rate: int) -> int | None:
    """Return how many samples a part has at a rate, None for all."""
    return None if part.end_s is None else max(1, round((part.end_s - part.start_s) * sample_rate))


def _is_there(path: bytes) -> bool:
    try:
        return os.path.lexists(path) or exists(path)
    except ServerAwayError:
        return False
