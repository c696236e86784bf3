"""Every error embedindex raises on purpose. Each message says what happened, to which file, and what to do.

EmbedindexError
├── UsageError               wrong options or arguments                      (exit status 2)
├── AudioError               one file could not be used; has `.kind`
│   ├── UnreadableFileError  the file system refused it                      kind "io"
│   │   └── ServerAwayError  its server does not answer                      kind "away"
│   ├── EmptyAudioError      there is no sound in it                         kind "empty"
│   ├── NotAudioError        its content is not audio                        kind "not-audio"
│   ├── DamagedAudioError    it is audio, but broken                         kind "damaged"
│   ├── AudioLimitError      it claims a rate, length or size beyond reason  kind "limit"
│   └── EmbeddingError       the model made nonsense of it                   kind "model"
├── ModelError
│   ├── UnknownModelError    no model of that name
│   ├── EngineMissingError   the engine asked for is not installed
│   ├── DeviceError          the device asked for cannot be used
│   │   └── DeviceMemoryError     it has not memory enough
│   └── WeightsError
│       ├── WeightsMissingError   not here and could not be fetched
│       ├── ChecksumError         not the bytes that were promised
│       └── WeightsFormatError    not in the layout of the official files
├── StoreError
│   ├── IndexNotFoundError   there is no index in that folder
│   ├── IndexEmptyError      there is one, with nothing in it
│   ├── IndexBusyError       another process is writing to it                (exit status 75)
│   ├── IndexTooNewError     made by a later version of embedindex
│   ├── IndexDamagedError    the database is broken
│   ├── IndexReadOnlyError   the folder cannot be written
│   └── DiskFullError        no space left
├── ClusterError             the machines of a cluster cannot be reached, or are lost
├── RemoteError              what reads from servers is not installed, or the server was never there
├── ModelMismatchError       the index was made with another model
├── PathNotFoundError        a folder or file that was named is not there
└── QueryError               the query itself cannot be answered
"""

from __future__ import annotations

import os


class EmbedindexError(Exception):
    """Base of all errors that embedindex raises on purpose."""

    exit_status = 1


class UsageError(EmbedindexError):
    """The options or arguments make no sense together."""

    exit_status = 2


def display_path(path: str | bytes | os.PathLike[str]) -> str:
    """Return `path` as text that is safe to print: control, bidi and undecodable characters are escaped."""
    text = os.fsdecode(path)
    return "".join(
        char if char.isprintable() else _bytes_of(char).decode("latin-1").encode("unicode_escape").decode("ascii")
        for char in text
    )


def _bytes_of(char: str) -> bytes:
    """Return the bytes that a character stands for; a half of a pair, which names on Windows may have, its code."""
    return char.encode("utf-8", "surrogateescape" if "\udc80" <= char <= "\udcff" else "surrogatepass")


class AudioError(EmbedindexError):
    """One audio file could not be used.

    Attributes:
        path: the file, as it was given.
        reason: what happened, without the path.
        kind: a short machine-readable class of the reason, kept in the index.
    """

    kind = "audio"

    def __init__(self, path: str | bytes | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{display_path(path)}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.path, self.reason))


class UnreadableFileError(AudioError):
    """The file system refused the file: missing, no permission, input/output error, not a regular file."""

    kind = "io"


class ServerAwayError(UnreadableFileError):
    """The server that the file lies on does not answer: nothing is known of the file."""

    kind = "away"


class EmptyAudioError(AudioError):
    """The file holds no samples."""

    kind = "empty"


class NotAudioError(AudioError):
    """The file's content is not audio, whatever its name says."""

    kind = "not-audio"


class DamagedAudioError(AudioError):
    """The file is audio, but nothing usable could be decoded from it."""

    kind = "damaged"


class AudioLimitError(AudioError):
    """The file claims a sample rate, channel count or length beyond reason."""

    kind = "limit"


class EmbeddingError(AudioError):
    """The model returned something that is not a vector of numbers."""

    kind = "model"


class ModelError(EmbedindexError):
    """Something is wrong with a model."""


class UnknownModelError(ModelError):
    """No registered model has that name."""


class EngineMissingError(ModelError):
    """The engine asked for is not installed."""


class DeviceError(ModelError):
    """The device that was asked for cannot compute the model."""


class DeviceMemoryError(DeviceError):
    """A device has not memory enough for a single window."""


class WeightsError(ModelError):
    """Something is wrong with a model's weights."""


class WeightsMissingError(WeightsError):
    """The weights are not on this machine and could not be fetched."""


class ChecksumError(WeightsError):
    """The file's bytes are not the ones that were promised; it is not used."""


class WeightsFormatError(WeightsError):
    """The file is not in the layout of the official weights."""


class StoreError(EmbedindexError):
    """Something is wrong with an index on disk."""


class IndexNotFoundError(StoreError):
    """There is no index in that folder."""


class IndexEmptyError(StoreError):
    """The index holds no searchable sound."""


class IndexBusyError(StoreError):
    """Another process is writing to the index."""

    exit_status = 75  # EX_TEMPFAIL of sysexits.h: try again later


class IndexTooNewError(StoreError):
    """The index was made by a later version of embedindex."""


class IndexDamagedError(StoreError):
    """The database is broken."""


class IndexReadOnlyError(StoreError):
    """The index cannot be written."""


class DiskFullError(StoreError):
    """No space is left where the index lives."""


class ClusterError(EmbedindexError):
    """The machines of a cluster cannot be reached, or all of them were lost."""


class RemoteError(EmbedindexError):
    """What reads from servers is not installed, or a server that the index knows nothing of does not answer."""


class ModelMismatchError(EmbedindexError):
    """The index was made with another model than the one asked for."""


class PathNotFoundError(EmbedindexError):
    """A folder or file that was named on the command line is not there."""


class QueryError(EmbedindexError):
    """The query itself cannot be answered."""
