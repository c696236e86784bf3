"""The lock that makes sure an index has one writer: the kernel's, so that it ends with the process that held it."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from embedindex.errors import DiskFullError, IndexBusyError, IndexReadOnlyError, StoreError, display_path

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK_NAME = "writer.lock"


def take_lock(folder: str, wait_s: float) -> BaseFileLock:
    """Return the lock of an index folder, held; the folder is made when absent.

    Args:
        folder: the index folder.
        wait_s: how long to wait for who holds it, in seconds.

    Raises:
        IndexBusyError: another process holds it.
        IndexReadOnlyError: the folder cannot be made or written.
        DiskFullError: no space is left.
        StoreError: anything else.
    """
    from filelock import FileLock, Timeout

    try:
        os.makedirs(folder, exist_ok=True)
        lock = FileLock(os.path.join(folder, LOCK_NAME))
        lock.acquire(timeout=wait_s)
    except Timeout as error:
        raise IndexBusyError(
            f"{display_path(folder)}: another embedindex is writing to this index; wait for it to finish (searching "
            "works meanwhile)"
        ) from error
    except (NotADirectoryError, FileExistsError) as error:
        raise StoreError(f"{display_path(folder)}: a file is in the way; choose another folder with --index") from error
    except PermissionError as error:
        raise IndexReadOnlyError(
            f"{display_path(folder)}: the index folder cannot be written ({error.strerror}); check its permissions or "
            "choose another with --index"
        ) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFullError(
                f"{display_path(folder)}: no space left on the disk; free some and run again"
            ) from error
        if error.errno == errno.EROFS:
            raise IndexReadOnlyError(
                f"{display_path(folder)}: the disk is read-only; choose another folder with --index"
            ) from error
        raise StoreError(f"{display_path(folder)}: {error.strerror or error}") from error
    return lock
