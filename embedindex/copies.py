"""A file's content as an index holds it, to be written again: under another path, or into another index."""

from __future__ import annotations

from embedindex.audio import AudioFacts
from embedindex.embed import FileEmbedding
from embedindex.records import FileRecord
from embedindex.store import Store
from embedindex.tags import Tags


def stored_content(store: Store, record: FileRecord) -> FileEmbedding:
    """Return what embedding the file gave when it was read: its vectors, facts and tags.

    Raises:
        IndexDamagedError: there are more or fewer vectors than there should be.
    """
    return FileEmbedding(
        content_hash=record.content_hash or b"",
        vectors=store.vectors_of(record),
        silent=record.n_silent,
        hop_s=record.hop_s or 0.0,
        facts=AudioFacts(
            container=record.container or "",
            codec=record.codec or "",
            sample_rate=record.sample_rate or 0,
            channels=record.channels or 0,
            duration_s=record.duration,
            decoder="",
        ),
        tags=Tags(record.artist, record.album, record.title, record.genre, record.year),
        duration_s=record.duration or 0.0,
        peak=record.peak or 0.0,
        note=record.note,
    )
