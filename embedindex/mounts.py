"""Which folders lie on drives that send no events of what happens to their files: those of networks, and their like.

Conventions: Linux says what is mounted in /proc/mounts (proc(5)); elsewhere nothing is known. Paths are bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from embedindex.crawl import lies_in

TABLE = "/proc/mounts"

# What other machines write to, they do not tell this one. Folders that a virtual machine shares are of that kind.
NETWORK_KINDS = frozenset(
    (
        "9p",
        "acfs",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "drvfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "prl_fs",
        "smb3",
        "smbfs",
        "vboxsf",
        "virtiofs",
        "vmhgfs",
    )
)


@dataclass(frozen=True)
class Mount:
    """What is mounted somewhere. `folder` is its path, `kind` the type of its file system, such as ``ext4``."""

    folder: bytes
    kind: str

    @property
    def sends_events(self) -> bool:
        """Whether all changes on it are told; programs that stand for a disk (``fuse.sshfs``) seldom do that."""
        return self.kind not in NETWORK_KINDS and self.kind != "fuse" and not self.kind.startswith("fuse.")


def read_mounts() -> list[Mount]:
    """Return what is mounted, in that order; nothing where the system does not say it."""
    try:
        with open(TABLE, "rb") as table:
            return parse_mounts(table.read())
    except FileNotFoundError:
        return []


def parse_mounts(table: bytes) -> list[Mount]:
    """Return what a table as in /proc/mounts says; in names, blanks and their like are written as octal numbers."""
    fields = [line.split(b" ") for line in table.splitlines()]
    return [Mount(_unescape(line[1]), line[2].decode("ascii", "replace")) for line in fields if len(line) > 2]


def _unescape(name: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), name)


def silent_mount(folder: bytes, mounts: Sequence[Mount]) -> Mount | None:
    """Return the drive without events that a folder lies on or that is mounted below it, None when there is none.

    Args:
        folder: an absolute path without links in it.
        mounts: what is mounted; where one hides another, the later counts.
    """
    shown = {mount.folder: mount for mount in mounts}
    over = [mount for mount in shown.values() if lies_in(folder, mount.folder)]
    own = max(over, key=lambda mount: len(mount.folder), default=None)
    below = [mount for mount in shown.values() if mount.folder != folder and lies_in(mount.folder, folder)]
    return next((mount for mount in (own, *below) if mount is not None and not mount.sends_events), None)


def mounted_below(folder: bytes, mounts: Sequence[Mount]) -> list[bytes]:
    """Return where something is mounted in a folder, or at it."""
    real = os.path.realpath(folder)
    return [mount.folder for mount in mounts if lies_in(mount.folder, real)]
