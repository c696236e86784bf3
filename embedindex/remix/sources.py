"""What a recipe says of the files that sound in it, from the index and from the seed."""

from __future__ import annotations

from embedindex.file_stat import file_stat
from embedindex.records import FileRecord
from embedindex.remix.recipe import Source
from embedindex.remix.seed import Seed
from embedindex.store import Store


def source_of_record(store: Store, record: FileRecord) -> Source:
    """Return a file of the index as a recipe names it, with its licence from its labels.

    Raises:
        OSError: it is not there any more.
    """
    labels = store.labels_of([record.id]).get(record.id, [])
    licence = next((label.value for label in labels if label.key in ("licence", "license")), None)
    return Source(
        path=record.path,
        size=record.size,
        mtime_ns=file_stat(record.path).mtime_ns,
        content_hash=(record.content_hash or b"").hex(),
        sample_rate=record.sample_rate or 0,
        channels=record.channels or 0,
        artist=record.artist,
        album=record.album,
        title=record.title,
        licence=licence,
    )


def source_of_seed(seed: Seed) -> Source:
    """Return the seed as a recipe names it."""
    stat = file_stat(seed.path)
    return Source(seed.path, stat.size, stat.mtime_ns, seed.content_hash.hex(), seed.sample_rate, seed.channels)
