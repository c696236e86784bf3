"""What changed is scanned when it has come to rest, together, and in pieces while changes do not end."""

from __future__ import annotations

import pytest

from embedindex.settling import Settling


def test_burst_is_taken_at_once_when_it_is_over() -> None:
    settling = Settling(2.0)
    for number in range(10_000):
        settling.note({b"/a/%d.wav" % number}, number / 1000)
    assert settling.take(11.0) == []
    taken = settling.take(12.0)
    assert taken is not None
    assert len(taken) == 10_000
    assert settling.take(100.0) == []


def test_changes_that_do_not_end_are_taken_in_pieces_without_what_still_changes() -> None:
    settling = Settling(2.0, patience_s=10.0)
    settling.note({b"/album", b"/album/1.wav"}, 0.0)
    for second in range(1, 10):
        settling.note({b"/album/2.wav"}, second)
        assert settling.take(second) == []
    settling.note({b"/album/2.wav"}, 10.0)
    assert settling.take(10.0) == [b"/album/1.wav"]  # the folder has a file in it that grows
    assert settling.take(11.9) == []
    assert settling.take(12.0) == [b"/album"]


def test_too_many_changes_are_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedindex.settling.MANY", 3)
    settling = Settling(2.0)
    settling.note({b"/1", b"/2", b"/3"}, 0.0)
    settling.note({b"/4"}, 1.0)
    assert settling.take(2.9) == []
    assert settling.take(3.0) is None
    assert settling.take(9.0) == []
