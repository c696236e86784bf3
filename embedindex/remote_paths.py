"""How a sound on a server is called: ``s3://bucket/music/kick.wav``, an URL that behaves like any other path.

Conventions: paths are bytes, their parts separated by ``/``, as the server spells them; HTTP's stay percent-encoded. A
path never holds a user's name or password.
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote

from embedindex.errors import UsageError, display_path

# A scheme of one letter would be a Windows drive.
_URL = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]+)://([^/]*)(.*)", re.DOTALL)

WEB = frozenset((b"http", b"https"))

# Where each library looks for names and passwords.
_LOGINS = {
    b"s3": "S3's keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from ~/.aws",
    b"sftp": "the name comes from ~/.ssh/config, the key from there or from ssh-agent",
    b"smb": "they come from FSSPEC_SMB_USERNAME and FSSPEC_SMB_PASSWORD",
}
_ANY_LOGIN = "they come from ~/.config/fsspec"


def is_remote(path: str | bytes | os.PathLike[str]) -> bool:
    """Return whether a path is an URL, as opposed to one of this machine's file system."""
    whole = path if isinstance(path, bytes) else os.fsencode(path)
    return b"://" in whole and _URL.match(whole) is not None


def split_remote(path: bytes) -> tuple[bytes, bytes, bytes]:
    """Return (scheme, host or bucket, the rest with its leading slash) of an URL."""
    match = _URL.match(path)
    if match is None:
        raise ValueError(f"{display_path(path)} is no URL")
    return match[1].lower(), match[2], match[3]


def server_of(path: bytes) -> bytes:
    """Return the part of an URL that names its server: ``sftp://host``, ``s3://bucket``."""
    scheme, host, _ = split_remote(path)
    return scheme + b"://" + host


def normal_remote(path: bytes) -> bytes:
    """Return an URL as the index has it: small letters for the scheme, no empty parts, no slash at its end.

    Raises:
        UsageError: it holds a user's name, or does not say enough.
    """
    scheme, host, rest = split_remote(path)
    shown = scheme + b"://" + host.rpartition(b"@")[2]
    if b"@" in host:
        raise UsageError(
            f"{display_path(shown + rest)}: write it like this, without a name or password; "
            f"{_LOGINS.get(scheme, _ANY_LOGIN)} (docs/remote.md)"
        )
    parts: list[bytes] = []
    for part in rest.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    if not host and not parts:
        raise UsageError(f"{display_path(path)}: names no server; write for example s3://bucket/music")
    if scheme == b"smb" and not parts:
        raise UsageError(f"{display_path(path)}: name the share, too, as in smb://nas/share")
    below = b"/".join(parts)
    if scheme in WEB:
        below = quote(below, safe="/%:@!$&'()*+,;=~-._").encode()
    return shown + (b"/" + below if below else b"")
