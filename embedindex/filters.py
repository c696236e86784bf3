"""Which files may be found: what a search or a list is narrowed to, as a condition for SQLite.

Conventions: lengths are seconds, rates Hz; a range is (lowest, highest), both included, None for no limit.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedindex.remote_paths import is_remote

if TYPE_CHECKING:
    from embedindex.store import Store

NumberRange = tuple[int | None, int | None]


@dataclass(frozen=True)
class Filters:
    """Which files may be found.

    Attributes:
        labels: (key, value) pairs; a file must have each of them.
        path: glob over the whole path (or URL), or over its end from any folder on (``*`` also matches ``/``).
        min_duration_s: shortest file, seconds.
        max_duration_s: longest file, seconds.
        sample_rate: lowest and highest rate of the file, Hz.
        channels: fewest and most channels.
        added_since: only files that were heard, for the first time or because they had changed, at that time or later;
            ISO 8601 in UTC, as the index writes it (see `embedindex.schema`).
        bpm: lowest and highest tempo, beats a minute; half and double of it are found too, because no ear and no
            program tells them apart for sure.
        instrument: glob over the name of the instrument that the file is a sample of, or over its end, as `path`.
        key: ``"F minor"``, as `embedindex.tempo_key` writes keys.
    """

    labels: tuple[tuple[str, str], ...] = ()
    path: str | None = None
    min_duration_s: float | None = None
    max_duration_s: float | None = None
    sample_rate: NumberRange = (None, None)
    channels: NumberRange = (None, None)
    added_since: str | None = None
    bpm: tuple[float, float] | None = None
    key: str | None = None
    instrument: str | None = None

    def sql(self, *, missing: bool = False) -> tuple[str, list[Any]]:
        """Return an SQL condition on the table ``files``, with its parameters; `missing` files too, or not."""
        terms = ["1" if missing else "missing_since IS NULL"]
        values: list[Any] = []
        for key, value in self.labels:
            terms.append("files.id IN (SELECT file_id FROM labels WHERE key = ? AND value = ? COLLATE NOCASE)")
            values += [_as_stored(key), _as_stored(value)]
        if self.path is not None:
            text, pattern = "path_text", self.path
            if os.sep == "\\":  # Windows takes both strokes
                text, pattern = "replace(path_text, '\\', '/')", pattern.replace("\\", "/")
            if not (os.path.isabs(pattern) or is_remote(pattern)):
                pattern = f"*/{pattern}"
            terms.append(f"{text} GLOB ?")
            values.append(_as_stored(pattern))
        if self.instrument is not None:
            pattern = self.instrument if self.instrument.startswith("/") else f"*/{self.instrument}"
            terms.append("instrument GLOB ?")
            values.append(_as_stored(pattern))
        limits: tuple[tuple[str, float | str | None], ...] = (
            ("duration >= ?", self.min_duration_s),
            ("duration <= ?", self.max_duration_s),
            ("sample_rate >= ?", self.sample_rate[0]),
            ("sample_rate <= ?", self.sample_rate[1]),
            ("channels >= ?", self.channels[0]),
            ("channels <= ?", self.channels[1]),
            ("scanned_at >= ?", self.added_since),
        )
        for term, limit in limits:
            if limit is not None:
                terms.append(term)
                values.append(limit)
        if self.bpm is not None:
            ranges = [(factor * self.bpm[0], factor * self.bpm[1]) for factor in (0.5, 1.0, 2.0)]
            alternatives = " OR ".join("tempo_bpm BETWEEN ? AND ?" for _ in ranges)
            terms.append(f"content_hash IN (SELECT content_hash FROM analyses WHERE {alternatives})")  # noqa: S608
            values += [end for pair in ranges for end in pair]
        if self.key is not None:
            terms.append("content_hash IN (SELECT content_hash FROM analyses WHERE analyses.key = ?)")
            values.append(self.key)
        return " AND ".join(terms), values


def nothing_passes(store: Store, filters: Filters) -> str:
    """Return what to say when no file passes the filters, and what to do about it."""
    for wanted, column, what in ((filters.bpm, "tempo_at", "tempo"), (filters.key, "key_at", "key")):
        analysed = f"content_hash IN (SELECT content_hash FROM analyses WHERE {column} IS NOT NULL)"  # noqa: S608
        if wanted is not None and next(store.files(analysed), None) is None:
            return f"no file has a {what} yet; find them with `embedindex analyse`"
    return "no sound in the index passes these filters; `embedindex list` shows what there is"


def _as_stored(text: str) -> str:
    """Return text as the database has it, with a replacement character for what is not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
