"""Drives that tell nothing of their files are recognised by the type of their file system."""

from __future__ import annotations

import os

import pytest

from embedindex.file_events import FileEvents
from embedindex.mounts import mounted_below, parse_mounts, read_mounts, silent_mount

TABLE = b"""/dev/sda1 / ext4 rw,relatime 0 0
/dev/sdb1 /music ext4 rw 0 0
//nas/share /mnt/my\\040nas cifs rw 0 0
server:/x /music/server nfs4 rw 0 0
me@host: /home/me/far fuse.sshfs rw 0 0
/dev/sdc1 /media/usb fuseblk rw 0 0
auto /mnt/auto autofs rw 0 0
server:/y /mnt/auto nfs rw 0 0
"""
MOUNTS = parse_mounts(TABLE)


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        (b"/samples", None),
        (b"/mnt/my nas/drums", "cifs"),
        (b"/mnt/my nas", "cifs"),
        (b"/mnt/my nasty", None),
        (b"/music", "nfs4"),  # mounted below it
        (b"/music/local", None),
        (b"/music/server/a", "nfs4"),
        (b"/home/me/far/a", "fuse.sshfs"),
        (b"/media/usb/a", None),  # a local disk
        (b"/mnt/auto/a", "nfs"),  # the later one hides the other
    ],
)
def test_drive_is_known_by_the_longest_path(folder: bytes, kind: str | None) -> None:
    silent = silent_mount(folder, MOUNTS)
    assert (silent and silent.kind) == kind


def test_disks_in_a_folder_are_found() -> None:
    assert mounted_below(b"/music", MOUNTS) == [b"/music", b"/music/server"]


def test_this_systems_table_is_read() -> None:
    mounts = read_mounts()
    if not mounts:
        pytest.skip("no /proc/mounts here")
    folders = {mount.folder for mount in mounts}
    assert b"/proc" in folders  # where the table lies; whoever is shut into a folder sees no mount of "/"
    assert all(os.path.ismount(folder) for folder in folders & {b"/", b"/proc", b"/sys", b"/dev"})


def test_drives_of_networks_are_not_followed_and_said(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bytes(tmp_path_factory.mktemp("nas"))
    table = tmp_path_factory.mktemp("table") / "mounts"
    table.write_bytes(TABLE + b"//nas/b " + folder + b" smb3 rw 0 0\n")
    monkeypatch.setattr("embedindex.mounts.TABLE", str(table))
    events = FileEvents([folder], b"/index", poll=False, wait_s=0.01)
    assert [one.reason for one in events.renew()] == ["drives of type smb3 do not tell what changes on them"]
    assert not events.is_following
