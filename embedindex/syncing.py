"""Making sure that what was written is on the disk, where the system lets us."""

from __future__ import annotations

import os


def sync_folder(folder: str | bytes) -> None:
    """Write a folder's names to the disk: after a power cut, a file that was put in place of another is that file.

    A folder that cannot be opened is left to the system: Windows opens none, others only those that can be listed.

    Raises:
        OSError: the disk refused it.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
