"""Writing sound files so that what the system says against it (a full disk) is heard: libsndfile keeps it to itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import soundfile

Answer = TypeVar("Answer")


@contextlib.contextmanager
def sound_to(
    path: str,
    sample_rate: int,
    channels: int,
    kind: str,
    subtype: str,
    after: Callable[[IO[bytes]], None] | None = None,
) -> Iterator[soundfile.SoundFile]:
    """Yield a new sound file to write (n, channels) samples to.

    Args:
        path: where it is.
        sample_rate: Hz.
        channels: how many.
        kind: libsndfile's name of the format, ``"WAV"`` for one.
        subtype: its name of the encoding, ``"PCM_24"`` for one.
        after: gets the file, open for reading and writing, when the sound is complete.

    Raises:
        OSError: the system does not let it be written; raised when the block ends, or by the write that shows it.
    """
    import soundfile

    with open(path, "w+b") as file:
        told = _Told(file)
        try:
            with soundfile.SoundFile(
                told, "w", samplerate=sample_rate, channels=channels, format=kind, subtype=subtype
            ) as sound:
                yield sound
        except (AssertionError, soundfile.SoundFileError):  # fewer samples were taken than were given
            if told.problem is None:
                raise
        if told.problem is not None:
            raise told.problem
        if after is not None:
            after(file)
        file.flush()


class _Told:
    """A file as libsndfile calls it from C, where an exception cannot pass: the first one is kept."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.problem: OSError | None = None

    def _try(self, call: Callable[[], Answer], instead: Answer) -> Answer:
        try:
            return call()
        except OSError as problem:
            self.problem = self.problem or problem
            return instead

    def write(self, data: bytes) -> int:
        return self._try(lambda: self._file.write(data), 0)

    def read(self, size: int = -1) -> bytes:
        return self._try(lambda: self._file.read(size), b"")

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._try(lambda: self._file.seek(offset, whence), 0)

    def tell(self) -> int:
        return self._try(self._file.tell, 0)
