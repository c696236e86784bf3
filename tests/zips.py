"""ZIP archives for the tests: whole ones, by Python's own zipfile, and ones that no honest program makes."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from tests.indexing import age

STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
SINCE = (2019, 3, 4, 5, 6, 8)


def write_zip(path: str | Path, files: Mapping[str, bytes], method: int = DEFLATED, later_ns: int = 0) -> Path:
    """Write an archive of some files, {name: bytes}, with a time of change long ago."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, SINCE)
            info.compress_type = method
            archive.writestr(info, data)
    age(path, later_ns)
    return Path(path)


def pack_tree(folder: Path, path: Path, method: int = DEFLATED) -> Path:
    """Write an archive of all that is in a folder, as other programs do."""
    files = {str(one.relative_to(folder)): one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()}
    return write_zip(path, files, method)


def raw_zip(path: Path, entries: list[dict[str, object]]) -> Path:
    """Write an archive byte by byte (APPNOTE 4.3), so that it may say what is not so.

    Args:
        path: where.
        entries: each with ``name`` (bytes) and ``data`` (bytes, as packed); and, where they differ from what is true:
            ``method``, ``size``, ``packed``, ``crc``, ``flags``, ``system``, ``mode``, ``offset``.
    """
    body, table = bytearray(), bytearray()
    for entry in entries:
        name, data = bytes(entry["name"]), bytes(entry["data"])  # type: ignore[call-overload]
        numbers = {
            "method": STORED, "flags": 0, "crc": zlib.crc32(data), "packed": len(data), "size": len(data),
            "system": 3, "mode": 0o100644, "offset": len(body), **entry,
        }  # fmt: skip
        common = struct.pack(
            "<HHHHIIIHH", numbers["flags"], numbers["method"], 0, 0x21,
            numbers["crc"], numbers["packed"], numbers["size"], len(name), 0,
        )[:-4] + struct.pack("<HH", len(name), 0)  # fmt: skip
        if numbers["offset"] == len(body):
            body += b"PK\x03\x04" + struct.pack("<H", 20) + common + name + data
        made_by = int(numbers["system"]) << 8 | 20  # type: ignore[call-overload]
        attributes = int(numbers["mode"]) << 16  # type: ignore[call-overload]
        table += b"PK\x01\x02" + struct.pack("<HH", made_by, 20) + common
        table += struct.pack("<HHHII", 0, 0, 0, attributes, numbers["offset"]) + name
    count = min(len(entries), 0xFFFF)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(table), len(body), 0)
    path.write_bytes(bytes(body) + bytes(table) + end)
    age(path)
    return path
