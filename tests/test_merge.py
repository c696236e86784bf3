"""Uniting indexes: the same as one scan of everything, whatever the order, the paths and the interruptions."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from embedindex.errors import IndexEmptyError, IndexNotFoundError, ModelMismatchError, UsageError
from embedindex.file_stat import file_stat
from embedindex.label_store import FileLabel, add_import, set_labels
from embedindex.merge import merge
from embedindex.models import ModelRequest
from embedindex.path_map import PathMap, parse_path_map
from embedindex.records import Label
from embedindex.store import Store
from embedindex.verify import verify
from embedindex.writer import StoreWriter
from tests.command_line import command, refusal
from tests.indexing import TINY, age, make_sound, one, records, run_scan


@pytest.fixture
def other(tmp_path: Path) -> str:
    """A place for a second index."""
    return str(tmp_path / "other")


def label(index: str, path: Path, value: str, source: str = "human") -> None:
    with StoreWriter(index) as store:
        add_import(store, source, "test", [FileLabel(one_id(store, path), Label("genre", value, source, 0.5))])


def one_id(store: Store, path: Path) -> int:
    record = store.file_by_path(os.fsencode(path))
    assert record is not None
    return record.id


def labels(index: str, path: Path) -> set[tuple[str, str]]:
    with Store(index) as store:
        return {(one.value, one.source) for one in store.labels_of([one_id(store, path)]).get(one_id(store, path), [])}


def content(index: str) -> dict[str, tuple[object, ...]]:
    """What an index says of every path, but for numbers and times of its own."""
    with Store(index) as store:
        return {
            record.text_path: (
                record.status, record.content_hash, record.size, record.mtime_ns, record.device, record.inode,
                record.duration, record.error_reason, record.codec, record.sample_rate, record.hop_s, record.artist,
                store.vectors_of(record).tobytes() if record.status == "ok" else b"",
            )
            for record in store.files()
        }  # fmt: skip


def test_merged_indexes_hold_what_one_scan_of_everything_holds(
    library: Path, index: str, other: str, tmp_path: Path
) -> None:
    for number in range(6):
        make_sound(library / "a" / f"{number}.wav", 200 + 50 * number, 0.4 + number)
        make_sound(library / "b" / f"{number}.wav", 700 + 50 * number)
    (library / "b" / "broken.wav").write_bytes(b"RIFF" + bytes(100))
    age(library / "b" / "broken.wav")
    run_scan(index, library / "a")
    run_scan(other, library / "b")
    whole = str(tmp_path / "whole")
    run_scan(whole, library)
    summary = merge(index, [other])[0]
    assert (summary.added, summary.known, summary.united) == (7, 0, 0)
    assert content(index) == content(whole)
    with Store(index) as store:
        assert verify(store).problems == ()
    assert run_scan(index, library / "a", library / "b").unchanged == 13  # nothing is looked at again


def test_merging_again_changes_nothing(library: Path, index: str, other: str) -> None:
    label(scanned(other, library / "b"), library / "b" / "x.wav", "dub")
    run_scan(index, make_sound(library / "a" / "y.wav", 300))
    merge(index, [other])
    before = content(index)
    with Store(index) as store:
        generation = store.generation
    summary = merge(index, [other])[0]
    assert (summary.added, summary.known, summary.labels) == (0, 1, 0)
    assert content(index) == before
    with Store(index) as store:
        assert store.generation == generation


def copy_of(path: Path, copy: Path) -> Path:
    copy.parent.mkdir(exist_ok=True)
    shutil.copy2(path, copy)
    return copy


def scanned(index: str, folder: Path) -> str:
    make_sound(folder / "x.wav", 500)
    run_scan(index, folder)
    return index


def test_new_index_is_made_of_others_in_any_order(library: Path, tmp_path: Path) -> None:
    parts = [str(tmp_path / f"part{number}") for number in range(3)]
    for number, part in enumerate(parts):
        make_sound(library / str(number) / "x.wav", 300 + 100 * number)
        run_scan(part, library / str(number))
    forth, back = str(tmp_path / "forth"), str(tmp_path / "back")
    merge(forth, parts)
    merge(back, parts[::-1])
    assert content(forth) == content(back)
    assert len(content(forth)) == 3


def test_mapped_paths_are_this_machines(library: Path, index: str, other: str, tmp_path: Path) -> None:
    there = tmp_path / "laptop" / "music"
    make_sound(there / "deep" / "x.wav", 440)
    run_scan(other, there)
    shutil.copytree(there, library / "nas")
    age(library / "nas" / "deep" / "x.wav", 440_000)
    merge(index, [other], PathMap(((os.fsencode(there), os.fsencode(library / "nas")),)))
    assert set(records(index)) == {str(library / "nas" / "deep" / "x.wav")}
    assert run_scan(index, library / "nas").unchanged == 1


def test_content_known_from_another_machine_is_taken_once_and_its_labels_are_kept(
    library: Path, index: str, other: str, tmp_path: Path
) -> None:
    mine = make_sound(library / "kick.wav", 440)
    theirs = copy_of(mine, tmp_path / "laptop" / "bd.wav")
    run_scan(index, library)
    run_scan(other, theirs.parent)
    label(index, mine, "house")
    label(other, theirs, "techno")
    assert merge(index, [other])[0].united == 1
    assert set(records(index)) == {str(mine)}
    assert labels(index, mine) == {("house", "human"), ("techno", "human")}


def test_copies_within_one_library_stay_two_files_also_after_an_interruption(
    library: Path, index: str, other: str
) -> None:
    first_file = make_sound(library / "a.wav", 440)
    for name in ("b.wav", "c.wav"):
        copy_of(first_file, library / name)
    run_scan(other, library)
    asked = iter([False, True])
    first = merge(index, [other], stop=lambda: next(asked, False))[0]
    assert first.interrupted
    assert len(records(index)) == 2
    second = merge(index, [other])[0]
    assert (second.added, second.known, second.united) == (1, 2, 0)
    assert content(index) == content(other)


def test_later_scan_of_a_path_wins_whichever_index_it_is_in(library: Path, index: str, other: str) -> None:
    path = make_sound(library / "x.wav", 440)
    run_scan(other, library)
    make_sound(path, 880)
    run_scan(index, library)
    for folder, scanned_at in ((other, "2020-01-01T00:00:00+00:00"), (index, "2021-01-01T00:00:00+00:00")):
        with StoreWriter(folder) as store:
            store._do("UPDATE files SET scanned_at = ?", (scanned_at,))
    newer = one(index, path).content_hash
    assert merge(index, [other])[0].kept == 1
    assert one(index, path).content_hash == newer
    assert merge(other, [index])[0].replaced == 1
    assert one(other, path).content_hash == newer
    with Store(other) as store:
        assert verify(store).problems == ()


def test_file_that_only_one_index_could_read_is_taken_from_it(library: Path, index: str, other: str) -> None:
    path = make_sound(library / "x.wav", 440)
    run_scan(other, library)
    run_scan(index, library)
    with StoreWriter(index) as store:
        record = store.file_by_path(os.fsencode(path))
        assert record is not None
        store.put_failure(
            record.path, record.root_id, file_stat(record.path), "stall", "took too long", record.content_hash
        )
    assert merge(other, [index])[0].kept == 1
    assert merge(index, [other])[0].replaced == 1
    assert one(index, path).status == "ok"


def test_predictions_never_stand_beside_what_was_given(library: Path, index: str, other: str) -> None:
    path = make_sound(library / "x.wav", 440)
    run_scan(index, library)
    run_scan(other, library)
    label(index, path, "dub")
    label(other, path, "polka", "predicted:knn")
    merge(index, [other])
    assert labels(index, path) == {("dub", "human")}
    merge(other, [index])
    assert labels(other, path) == {("dub", "human")}


def test_labels_of_a_merge_can_be_undone(library: Path, index: str, other: str) -> None:
    path = make_sound(library / "x.wav", 440)
    run_scan(index, library)
    run_scan(other, library)
    with StoreWriter(other) as store:
        set_labels(store, [one_id(store, path)], [("mood", "calm")], add=True)
    assert merge(index, [other])[0].labels == 1
    from embedindex.label_store import undo_import

    with StoreWriter(index) as store:
        assert undo_import(store).detail == other
    assert labels(index, path) == set()


def test_files_of_another_machine_are_found_but_never_taken_for_deleted(
    library: Path, index: str, other: str, tmp_path: Path
) -> None:
    away = make_sound(tmp_path / "laptop" / "bd.wav", 300)
    run_scan(other, away.parent)
    make_sound(library / "x.wav", 440)
    run_scan(index, library)
    kept = copy_of(away, tmp_path / "kept.wav")
    shutil.rmtree(away.parent)
    merge(index, [other])
    assert one(index, away).shown_status == "ok"
    copy_of(kept, library / "laptop" / "bd.wav")  # the same sound comes here: copied, not moved
    summary = run_scan(index, library)
    assert (summary.copied, summary.moved) == (1, 0)
    assert one(index, away).shown_status == "ok"


def test_damaged_vectors_are_left_out(library: Path, index: str, other: str) -> None:
    scanned(other, library)
    good = make_sound(library / "good.wav", 900)
    run_scan(other, library)
    with StoreWriter(other) as store:
        store._do(
            "UPDATE vectors SET data = zeroblob(length(data)) WHERE file_id = ?", (one_id(store, library / "x.wav"),)
        )
    summary = merge(index, [other])[0]
    assert (summary.added, summary.damaged) == (1, 1)
    assert set(records(index)) == {str(good)}


def test_other_models_hops_and_the_index_itself_are_refused_with_nothing_changed(
    library: Path, index: str, other: str, tmp_path: Path
) -> None:
    scanned(index, library)
    before = content(index)
    run_scan(other, library, request=ModelRequest("tiny", (("version", "2"),)))
    with pytest.raises(ModelMismatchError, match="cannot be compared"):
        merge(index, [other])
    slow = str(tmp_path / "slow")
    run_scan(slow, library, hop_s=0.25)
    with pytest.raises(ModelMismatchError, match=r"hop 0\.25 s"):
        merge(index, [slow])
    with pytest.raises(UsageError, match="into itself"):
        merge(index, [os.path.join(index, ".")])
    with pytest.raises(IndexNotFoundError):
        merge(index, [str(tmp_path / "nowhere")])
    new = str(tmp_path / "new")
    with pytest.raises(ModelMismatchError):
        merge(new, [index, other])
    assert not os.path.exists(new)
    assert content(index) == before


def test_index_in_which_nothing_is_yet_is_refused(index: str, other: str) -> None:
    StoreWriter(other).close()
    with pytest.raises(IndexEmptyError, match="nothing in this index"):
        merge(index, [other])


def test_int8_that_agrees_joins_fp32_and_one_that_does_not_is_refused(
    library: Path, index: str, tmp_path: Path
) -> None:
    scanned(index, library)
    for agrees in ("yes", "no"):
        make_sound(library / agrees / "y.wav", 700)
        request = replace(TINY, options=(("agrees", agrees),), precision="int8")
        run_scan(str(tmp_path / agrees), library / agrees, request=request)
    assert merge(index, [str(tmp_path / "yes")])[0].added == 1
    with pytest.raises(ModelMismatchError):
        merge(index, [str(tmp_path / "no")])


def test_merge_command_says_what_it_took(library: Path, index: str, other: str) -> None:
    label(scanned(other, library / "b"), library / "b" / "x.wav", "dub")
    run_scan(index, make_sound(library / "a" / "y.wav", 300))
    done = command("merge", other, "--index", index)
    assert done.text == f"{other}: 1 new file, 1 new label.\n"
    assert command("merge", other, "--index", index, "--json").json["merged"][0]["known"] == 1
    assert "write OLD=NEW" in refusal("merge", other, "--index", index, "--map", "music=/mnt", status=2)


@pytest.mark.parametrize(
    ("path", "mapped"),
    [
        (b"/music/a.wav", b"/mnt/nas/a.wav"),
        (b"/music", b"/mnt/nas"),
        (b"/music2/a.wav", b"/music2/a.wav"),
        (b"/music/live/a.wav", b"/live/a.wav"),
        (b"/music/\xff.wav", b"/mnt/nas/\xff.wav"),
    ],
)
def test_longest_fitting_folder_is_mapped(path: bytes, mapped: bytes) -> None:
    assert parse_path_map(["/music=/mnt/nas/", "/music/live/=/live"]).apply(path) == mapped


def test_root_of_a_machine_is_mapped_into_a_folder() -> None:
    assert parse_path_map(["/=/backup"]).apply(b"/music/a.wav") == b"/backup/music/a.wav"
    with pytest.raises(UsageError, match="mapped twice"):
        parse_path_map(["/music=/a", "/music/=/b"])


def test_sounds_of_a_merge_are_found_at_once(library: Path, index: str, other: str) -> None:
    for number in range(8):
        make_sound(library / "a" / f"{number}.wav", 200 + 100 * number)
        make_sound(library / "b" / f"{number}.wav", 1200 + 300 * number)
    run_scan(index, library / "a")
    run_scan(other, library / "b")
    merge(index, [other])
    for number in range(8):
        path = library / "b" / f"{number}.wav"
        found = command("similar", path, "--index", index, "--include-self", "-k", "1", "--paths").text
        assert found == f"{path}\n"


KILLED = """
import os, signal, sys
from embedindex import merge
merge.FILES_PER_TRANSACTION = 4
def report(done, total, path):
    if done == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
merge.merge(sys.argv[1], [sys.argv[2]], report=report)
"""


def test_merge_that_was_killed_is_gone_on_with_by_doing_it_again(library: Path, index: str, other: str) -> None:
    for number in range(12):
        make_sound(library / f"{number:02}.wav", 200 + 50 * number, 0.1)
    run_scan(other, library)
    for at in (2, 7, 12):
        done = subprocess.run([sys.executable, "-c", KILLED, index, other, str(at)], check=False)
        assert done.returncode == -signal.SIGKILL
        with Store(index) as store:
            assert store.integrity_problems() == []
        assert len(records(index)) == (at - 1) // 4 * 4  # whole transactions
    assert merge(index, [other])[0].known == 8
    assert content(index) == content(other)
    with Store(index) as store:
        assert verify(store).problems == ()
