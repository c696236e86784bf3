"""What a scan says of itself: while it runs (`ScanProgress`) and at its end (`ScanSummary`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class ScanProgress:
    """Where a scan is. `stage` is ``"crawl"``, ``"embed"``, ``"sweep"`` or ``"index"``; `path` is the last file.

    `share` is how much of all sound is done, 0 to 1, `left_s` how many seconds of sound are left to do, guessed; None
    where that is not known.
    """

    stage: str
    files_done: int
    files_total: int | None
    bytes_done: int
    bytes_total: int | None
    audio_s: float
    failed: int
    path: bytes
    windows: int = 0
    share: float | None = None
    left_s: float | None = None


@dataclass
class ScanSummary:
    """What a scan did. Counts are files unless they say otherwise; `unseen` lists (path, reason)."""

    found: int = 0
    unchanged: int = 0
    postponed: int = 0
    excluded: int = 0
    added: int = 0
    changed: int = 0
    touched: int = 0
    moved: int = 0
    copied: int = 0
    failed: int = 0
    forgotten: int = 0
    missing: int = 0
    returned: int = 0
    windows: int = 0
    silent_windows: int = 0
    audio_s: float = 0.0
    elapsed_s: float = 0.0
    crashes: int = 0
    interrupted: bool = False
    failures: dict[str, int] = field(default_factory=dict)
    unseen: list[tuple[str, str]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the summary as a dictionary for JSON."""
        return asdict(self)


Report = Callable[[ScanProgress], None]


def never() -> bool:
    """Never stop: the default of `stop`."""
    return False


def silent(_: ScanProgress) -> None:
    """Report nothing: the default of `report`."""
