"""The bytes of a file in a ZIP archive: a stretch of the archive where it is stored as it is, else what it unpacks to.

Conventions: nothing is ever unpacked under a name, but into a nameless temporary file, the last of which is kept. What
a member claims is checked before time or disk is spent on it. Format: PKWARE, APPNOTE.TXT 6.3.
"""

from __future__ import annotations

import io
import os
import struct
import tempfile
import zipfile
import zlib
from dataclasses import dataclass

from embedindex.errors import AudioLimitError, DamagedAudioError, UnreadableFileError, display_path
from embedindex.opening import open_regular_file, unreadable
from embedindex.temporary import Stretch, Temporary, read_at, write_all

# What a member may unpack to, and so many times its size: music packs to a half, silence to a thousandth.
MAX_UNPACKED_BYTES = 2 << 30
MAX_RATIO, FREE_BYTES = 200, 64 << 20  # no ratio is asked of what is smaller
BLOCK_BYTES = 1 << 20

LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of name and extra field; APPNOTE 4.3.7
LOCAL_SIGNATURE = b"PK\x03\x04"


@dataclass(frozen=True)
class Member:
    """One file in an archive.

    Attributes:
        name: its path below the archive, without anything that leads out of it.
        size: bytes, unpacked.
        packed_size: bytes in the archive.
        changed_ns: its time of change as the archive tells it (which says no zone: taken for UTC), nanoseconds, plus
            its CRC-32: another content is another time, so that a member whose size and time are known is known.
        crc: CRC-32 of its bytes.
        offset: where its header begins in the archive.
        method: how it is packed.
        is_encrypted: whether it cannot be read without a password.
    """

    name: bytes
    size: int
    packed_size: int
    changed_ns: int
    crc: int
    offset: int
    method: int
    is_encrypted: bool


def open_member(path: str | bytes | os.PathLike[str], archive: bytes, member: Member) -> io.RawIOBase:
    """Open a member of an archive for reading from any place; `path` is its own, for messages.

    Raises:
        UnreadableFileError: the archive cannot be read any more, or there is no room for a temporary file.
        DamagedAudioError: it is damaged, encrypted, or packed in an unusual way.
        AudioLimitError: it unpacks to more than can be.
    """
    if member.is_encrypted:
        raise DamagedAudioError(path, "is encrypted; unpack its archive with the password")
    if member.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        how = zipfile.compressor_names.get(member.method, str(member.method))  # type: ignore[attr-defined]
        raise DamagedAudioError(path, f"is packed by a method that is not read here ({how}); unpack its archive")
    file = open_regular_file(archive)
    try:
        head = read_at(file, member.offset, LOCAL_HEADER.size)
        if len(head) < LOCAL_HEADER.size or not head.startswith(LOCAL_SIGNATURE):
            raise DamagedAudioError(path, "its archive is damaged there; copy or download it again")
        _, name_length, extra_length = LOCAL_HEADER.unpack(head)
        start = member.offset + len(head) + name_length + extra_length
        packed = Stretch(file, start, member.packed_size, owned=True)
        if member.method == zipfile.ZIP_STORED:
            return packed
        with packed:
            return Stretch(_unpacked(path, archive, member, packed), 0, member.size, owned=False)
    except OSError as error:
        file.close()
        raise unreadable(path, error) from error
    except BaseException:
        file.close()
        raise


# What was unpacked last, and of what: a scan opens each member four times (hash, sound, sound again, tags).
_last: tuple[bytes, Member, io.FileIO] | None = None


def _unpacked(path: str | bytes | os.PathLike[str], archive: bytes, member: Member, packed: Stretch) -> io.FileIO:
    """Return a temporary file with what a deflated member unpacks to; it goes when nothing uses it any more."""
    global _last
    kept = _last  # other threads may replace it meanwhile
    if kept is None or kept[:2] != (archive, member):
        _last = None
        _last = kept = (archive, member, _unpack(path, member, packed))
    return kept[2]


def _unpack(path: str | bytes | os.PathLike[str], member: Member, packed: Stretch) -> io.FileIO:
    ratio = member.size / max(1, member.packed_size)
    if member.size > MAX_UNPACKED_BYTES or (member.size > FREE_BYTES and ratio > MAX_RATIO):
        raise AudioLimitError(
            path, f"claims to unpack to {member.size / 1e9:.1f} GB, {ratio:.0f} times its size; unpack its archive"
        )
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    made = crc = 0
    try:
        target = Temporary()
        while not inflate.eof and made <= member.size:
            taken = inflate.unconsumed_tail or packed.read(BLOCK_BYTES)
            if not taken:
                break
            piece = inflate.decompress(taken, BLOCK_BYTES)
            made += len(piece)
            crc = zlib.crc32(piece, crc)
            write_all(target, piece)
    except zlib.error as error:
        raise DamagedAudioError(path, f"is damaged in its archive ({error}); copy or download that again") from error
    except OSError as error:
        where = display_path(tempfile.gettempdir())
        raise UnreadableFileError(
            path, f"cannot be unpacked in {where} ({error.strerror}); free some space there, or set TMPDIR"
        ) from error
    if (made, crc) != (member.size, member.crc):
        raise DamagedAudioError(path, "is damaged in its archive; copy or download that again")
    return target
