"""Writing a genre into files' own tags, on request only, so that no moment exists at which a file is damaged.

The tag is written to a copy beside the file; the copy's sound is decoded and compared with the original's; only then
does it take the original's place, in one step of the file system. What the tag said before is kept first, in a file
from which `restore` puts it back. Needs mutagen, which is GPL-2+ and therefore an extra.

Conventions: paths are bytes; a genre is a tuple of texts, () for no genre.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from embedindex.archives import archive_of
from embedindex.audio import AudioReader
from embedindex.errors import AudioError, EngineMissingError, PathNotFoundError, UnreadableFileError, display_path
from embedindex.remote_paths import is_remote
from embedindex.syncing import sync_folder

SUFFIXES = (".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".mp4", ".aif", ".aiff", ".aifc", ".wav")


class TagError(AudioError):
    """The file's tags cannot be written; the file is as it was."""

    kind = "tags"


@dataclass(frozen=True)
class TagChange:
    """What happened, or would happen, to the genre of one file.

    Attributes:
        path: the file.
        before: its genres.
        after: what was to be written.
        problem: why it was left alone; None when all is well.
    """

    path: bytes
    before: tuple[str, ...]
    after: tuple[str, ...]
    problem: str | None = None


def need_mutagen() -> None:
    """Check that tags can be written.

    Raises:
        EngineMissingError: mutagen is not installed.
    """
    try:
        import mutagen  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except ImportError as error:
        raise EngineMissingError("writing tags needs mutagen: pip install 'embedindex[tags]'") from error


def write_genres(
    wanted: Iterable[tuple[bytes, Sequence[str]]], backup: str | None, *, dry_run: bool = False
) -> Iterator[TagChange]:
    """Write genres into files' tags, one file after the other; files that say it already are left alone.

    Args:
        wanted: (path, genres).
        backup: a file to which what was there before is appended, a JSON object a line, before it is replaced; needed
            unless `dry_run`.
        dry_run: only say what would be done.

    Raises:
        EngineMissingError: mutagen is not installed.
        OSError: the backup cannot be written; the file it was for is as it was.
    """
    need_mutagen()
    for path, genres in wanted:
        after = tuple(genres)
        before: tuple[str, ...] = ()
        try:
            before = read_genres(path)
            if before != after and not dry_run:
                if backup is None:
                    raise ValueError("writing needs a backup")
                _keep(backup, path, before, after)
                _replace(path, after)
        except AudioError as error:
            yield TagChange(path, before, after, error.reason)
            continue
        if before != after:
            yield TagChange(path, before, after)


def restore(backup: str) -> Iterator[TagChange]:
    """Put back the genres that a backup holds, the latest change first.

    Raises:
        EngineMissingError: mutagen is not installed.
        PathNotFoundError: the backup cannot be read, or is none.
    """
    need_mutagen()
    try:
        with open(backup, encoding="ascii") as file:
            lines = [json.loads(line) for line in file]
        entries = [(os.fsencode(line["path"]), tuple(map(str, line["before"]))) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise PathNotFoundError(
            f"{display_path(backup)}: is no backup of tags ({reason}); give a tags-….jsonl of the index folder"
        ) from error
    for path, before in reversed(entries):
        try:
            now = read_genres(path)
            if now != before:
                _replace(path, before)
                yield TagChange(path, now, before)
        except AudioError as error:
            yield TagChange(path, (), before, error.reason)


def read_genres(path: bytes) -> tuple[str, ...]:
    """Return the genres in a file's tags.

    Raises:
        TagError: its tags cannot be read, or it is of a kind that cannot be written.
    """
    if is_remote(path):
        raise TagError(path, "lies on a server, on which nothing is written; write the tags of a copy on this machine")
    if archive_of(path) is not None:
        raise TagError(path, "lies in an archive, in which nothing is written; unpack it")
    with _tag_errors(path):
        return _genres(_open(os.fsdecode(path), path))


class _tag_errors:  # noqa: N801 - reads as a statement
    """Turns mutagen's and the system's exceptions into `TagError`."""

    def __init__(self, path: bytes) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        import mutagen

        if isinstance(error, (mutagen.MutagenError, OSError)):
            raise TagError(
                self._path, f"its tags cannot be read or written ({error}); the file is as it was"
            ) from error


def _open(name: str, path: bytes) -> Any:
    """Return mutagen's view of the file `name`, of the kind that the suffix of `path` says."""
    from mutagen import aiff, flac, mp3, mp4, oggopus, oggvorbis, wave

    kinds: dict[str, Any] = {
        ".mp3": mp3.MP3,
        ".flac": flac.FLAC,
        ".ogg": oggvorbis.OggVorbis,
        ".oga": oggvorbis.OggVorbis,
        ".opus": oggopus.OggOpus,
        ".m4a": mp4.MP4,
        ".mp4": mp4.MP4,
        ".aif": aiff.AIFF,
        ".aiff": aiff.AIFF,
        ".aifc": aiff.AIFF,
        ".wav": wave.WAVE,
    }
    suffix = os.path.splitext(os.fsdecode(path))[1].lower()
    if suffix not in kinds:
        raise TagError(path, f"tags of {suffix or 'such'} files cannot be written; only of {', '.join(kinds)}")
    return kinds[suffix](name)


def _genres(file: Any) -> tuple[str, ...]:
    from mutagen import id3, mp4

    if file.tags is None:
        return ()
    if isinstance(file.tags, id3.ID3):
        return tuple(str(text) for frame in file.tags.getall("TCON") for text in frame.genres)
    return tuple(str(text) for text in file.tags.get("\xa9gen" if isinstance(file, mp4.MP4) else "genre", ()))


def _set_genres(file: Any, genres: tuple[str, ...]) -> None:
    from mutagen import id3, mp4

    if file.tags is None:
        if not genres:
            return
        file.add_tags()
    if isinstance(file.tags, id3.ID3):
        file.tags.delall("TCON")
        if genres:
            file.tags.add(id3.TCON(encoding=3, text=list(genres)))
        return
    name = "\xa9gen" if isinstance(file, mp4.MP4) else "genre"
    if genres:
        file.tags[name] = list(genres)
    elif name in file.tags:
        del file.tags[name]


def _keep(backup: str, path: bytes, before: tuple[str, ...], after: tuple[str, ...]) -> None:
    """Append to the backup and make sure that it is on the disk."""
    line = json.dumps({"path": os.fsdecode(path), "before": before, "after": after})
    with open(backup, "a", encoding="ascii") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def _replace(path: bytes, genres: tuple[str, ...]) -> None:
    """Write the genres to a copy, check its sound, and put it in the file's place."""
    real = os.path.realpath(path)  # a link stays a link
    folder, name = os.path.split(real)
    # The same name every time: what a killed run left is overwritten by the next, and no scan takes it for sound.
    copy = os.path.join(folder, b".embedindex-" + hashlib.sha256(name).hexdigest()[:16].encode() + b".tmp")
    try:
        with _tag_errors(path):
            shutil.copy2(real, copy)
            tagged = _open(os.fsdecode(copy), real)
            _set_genres(tagged, genres)
            tagged.save()
        if _sound_hash(copy) != _sound_hash(real):
            raise TagError(path, "writing the tag would have changed its sound; the file is as it was")
        with _tag_errors(path):
            with open(copy, "rb+") as file:  # Windows syncs only what may be written
                os.fsync(file.fileno())
            os.replace(copy, real)
            sync_folder(folder)
    finally:
        if os.path.lexists(copy):
            os.unlink(copy)


def _sound_hash(path: bytes) -> bytes:
    """Return a hash of all samples as decoded, at the file's own rate and channels."""
    digest = hashlib.sha256()
    try:
        with AudioReader(path, mono=False) as reader:
            for block in reader.blocks():
                digest.update(block.tobytes())
    except UnreadableFileError:
        raise
    except AudioError as error:
        raise TagError(path, f"its sound cannot be checked ({error.reason}); the file is as it was") from error
    return digest.digest()
