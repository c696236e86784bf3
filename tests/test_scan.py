"""Scanning: what a first scan stores, what later scans notice, and what they leave alone."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedindex import process
from embedindex.embed import embed_file
from embedindex.errors import IndexBusyError, ModelMismatchError, PathNotFoundError
from embedindex.models import ModelRequest, load_model
from embedindex.records import Label
from embedindex.scan import scan
from embedindex.store import Store
from embedindex.verify import verify
from embedindex.workers import AHEAD_FILES
from embedindex.writer import StoreWriter
from tests.indexing import OPTIONS, TINY, age, constant, make_sound, names, one, records, run_scan, write_samples
from tests.sounds import sine


def database_hash(index: str) -> str:
    return hashlib.sha256(Path(index, "embedindex.db").read_bytes()).hexdigest()


def test_vectors_in_the_index_are_those_of_the_file(index: str, library: Path) -> None:
    path = make_sound(library / "a" / "tone.wav", 700, 2.3)
    run_scan(index, library)
    wanted = embed_file(str(path), load_model(TINY), 0.5)
    with Store(index) as store:
        record = store.file_by_path(os.fsencode(path))
        assert record is not None
        np.testing.assert_array_equal(store.vectors_of(record), wanted.vectors)
    assert record.duration == pytest.approx(2.3)
    assert record.sample_rate == 8000
    assert record.n_windows == 9  # short: a window every 0.25 s, the last one from 2.0 s on
    assert record.content_hash == wanted.content_hash


def test_second_scan_reads_nothing_and_writes_nothing(index: str, library: Path) -> None:
    for number in range(5):
        make_sound(library / f"{number}.wav", 200 + 100 * number)
    (library / "text.wav").write_text("this is no sound")
    age(library / "text.wav")
    run_scan(index, library)
    for path in library.iterdir():
        os.utime(path, ns=(1, path.stat().st_mtime_ns))  # reading would move the access time (relatime) beyond 1
    before = database_hash(index), Path(index, "windows.faiss").stat().st_mtime_ns
    summary = run_scan(index, library)
    assert (summary.found, summary.unchanged, summary.failed) == (6, 6, 0)
    assert (database_hash(index), Path(index, "windows.faiss").stat().st_mtime_ns) == before


def test_fresh_file_is_compared_again_by_content_but_not_decoded_again(index: str, library: Path) -> None:
    make_sound(library / "a.wav")
    os.utime(library / "a.wav")  # now: it could change again within the same tick of the clock
    run_scan(index, library)
    age(library / "a.wav")
    summary = run_scan(index, library)
    assert (summary.touched, summary.added, summary.changed) == (1, 0, 0)
    assert run_scan(index, library).unchanged == 1


def test_changed_file_gets_new_vectors_and_keeps_its_labels(index: str, library: Path) -> None:
    path = make_sound(library / "a.wav", 300)
    run_scan(index, library)
    before = one(index, path)
    with StoreWriter(index) as store:
        store.put_labels(before.id, [Label("genre", "drone", "human", 1.0)])
    make_sound(path, 900)
    summary = run_scan(index, library)
    assert (summary.changed, summary.added) == (1, 0)
    after = one(index, path)
    assert after.id == before.id
    assert after.content_hash != before.content_hash
    assert after.first_window is not None
    assert before.first_window is not None
    assert after.first_window > before.first_window  # window numbers are never used twice
    with Store(index) as store:
        assert store.labels_of([after.id])[after.id][0].value == "drone"
        assert verify(store).problems == ()


def test_touched_file_is_not_embedded_again(index: str, library: Path) -> None:
    path = make_sound(library / "a.wav")
    run_scan(index, library)
    before = one(index, path)
    age(path, 5_000_000_000)
    summary = run_scan(index, library)
    assert (summary.touched, summary.changed, summary.windows) == (1, 0, 0)
    assert one(index, path).first_window == before.first_window
    assert run_scan(index, library).unchanged == 1


def test_moved_folder_keeps_vectors_ids_and_labels(index: str, library: Path) -> None:
    for number in range(3):
        make_sound(library / "old" / f"{number}.wav", 300 + number)
    run_scan(index, library)
    before = {os.path.basename(path): record for path, record in records(index).items()}
    (library / "new").mkdir()
    (library / "old").rename(library / "new" / "deep")
    summary = run_scan(index, library)
    assert (summary.moved, summary.added, summary.forgotten, summary.windows) == (3, 0, 0, 0)
    after = records(index)
    assert {Path(path).parent.name for path in after} == {"deep"}
    for path, record in after.items():
        old = before[os.path.basename(path)]
        assert (record.id, record.first_window) == (old.id, old.first_window)


def test_scan_of_a_renamed_folder_can_be_stopped_and_goes_on(
    index: str, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "MOVES_AT_ONCE", 2)
    for number in range(5):
        make_sound(library / "old" / f"{number}.wav", 300 + number)
    run_scan(index, library)
    ids = {os.path.basename(path): record.id for path, record in records(index).items()}
    (library / "old").rename(library / "new")

    def moved() -> int:
        return sum("/new/" in path for path in records(index))

    summary = scan(index, [str(library)], OPTIONS, stop=lambda: moved() >= 2)
    assert (summary.interrupted, summary.moved, moved()) == (True, 2, 2)
    summary = run_scan(index, library)
    assert (summary.moved, summary.unchanged, summary.added, summary.forgotten) == (3, 2, 0, 0)
    assert {os.path.basename(path): record.id for path, record in records(index).items()} == ids


def test_file_moved_to_another_disk_is_recognised_by_content(index: str, library: Path) -> None:
    path = make_sound(library / "a.wav")
    run_scan(index, library)
    before = one(index, path)
    shutil.copy(path, library / "b.wav")  # another inode and time, as a move between disks gives
    path.unlink()
    age(library / "b.wav", 77)
    summary = run_scan(index, library)
    assert (summary.moved, summary.added) == (1, 0)
    assert one(index, library / "b.wav").id == before.id


def test_identical_copies_are_embedded_once(index: str, library: Path) -> None:
    make_sound(library / "a.wav", 500, 1.5)
    for name in ("b.wav", "c.wav", "d.wav"):
        shutil.copy(library / "a.wav", library / name)
        age(library / name, 5)
    summary = run_scan(index, library, workers=2)
    assert (summary.added, summary.copied) == (4, 3)
    assert summary.windows == one(index, library / "a.wav").n_windows
    with Store(index) as store:
        vectors = [store.vectors_of(record) for record in store.files()]
    for other in vectors[1:]:
        np.testing.assert_array_equal(vectors[0], other)


def test_swapped_files_swap_their_vectors(index: str, library: Path) -> None:
    first, second = make_sound(library / "a.wav", 300), make_sound(library / "b.wav", 1200)
    run_scan(index, library)
    hashes = one(index, first).content_hash, one(index, second).content_hash
    first.rename(library / "c.wav")
    second.rename(first)
    (library / "c.wav").rename(second)
    run_scan(index, library)
    assert (one(index, second).content_hash, one(index, first).content_hash) == hashes
    with Store(index) as store:
        assert verify(store).problems == ()
        record = store.file_by_path(os.fsencode(first))
        assert record is not None
        wanted = embed_file(str(first), load_model(TINY), 0.5).vectors
        np.testing.assert_array_equal(store.vectors_of(record), wanted)


def test_deleted_file_is_forgotten(index: str, library: Path) -> None:
    make_sound(library / "a.wav", 300)
    path = make_sound(library / "b.wav", 400)
    run_scan(index, library)
    path.unlink()
    summary = run_scan(index, library)
    assert (summary.forgotten, summary.missing) == (1, 0)
    assert names(index) == {"a.wav"}


def test_vanished_root_makes_files_missing_and_its_return_brings_them_back(index: str, library: Path) -> None:
    make_sound(library / "disk" / "a.wav", 300)
    run_scan(index, library / "disk")
    before = one(index, library / "disk" / "a.wav")
    (library / "disk").rename(library / "away")
    summary = run_scan(index, library / "disk")
    assert (summary.missing, summary.forgotten) == (1, 0)
    assert names(index, "missing") == {"a.wav"}
    (library / "away").rename(library / "disk")
    summary = run_scan(index, library / "disk")
    assert (summary.returned, summary.windows) == (1, 0)
    assert one(index, library / "disk" / "a.wav").first_window == before.first_window


def test_empty_mount_point_is_not_taken_for_deleted_files(index: str, library: Path) -> None:
    make_sound(library / "disk" / "a.wav", 300)
    run_scan(index, library / "disk")
    (library / "disk" / "a.wav").unlink()
    summary = run_scan(index, library / "disk")
    assert (summary.missing, summary.forgotten) == (1, 0)
    assert run_scan(index, library / "disk", prune=True).forgotten == 1
    assert names(index, "missing") == set()


def test_files_of_another_device_are_missing_not_deleted(index: str, library: Path) -> None:
    path = make_sound(library / "disk" / "a.wav", 300)
    make_sound(library / "b.wav", 400)
    run_scan(index, library)
    record = one(index, path)
    with StoreWriter(index) as store:  # as if that folder had been the mount point of another disk
        store.renumber_device(os.fsencode(library / "disk"), record.device, record.device + 1)
    path.unlink()
    summary = run_scan(index, library)
    assert (summary.missing, summary.forgotten) == (1, 0)


def test_disk_with_a_new_device_number_is_the_same_disk(index: str, library: Path) -> None:
    make_sound(library / "a.wav", 300)
    path = make_sound(library / "b.wav", 400)
    run_scan(index, library)
    device = one(index, path).device
    with StoreWriter(index) as store:  # as after a restart, for network drives
        store.renumber_device(os.fsencode(library), device, device + 1)
        store.put_root(os.fsencode(library), device + 1)
    path.unlink()
    assert run_scan(index, library).forgotten == 1
    assert one(index, library / "a.wav").device == device


def test_unknown_missing_root_is_an_error_and_makes_no_index(index: str, library: Path) -> None:
    with pytest.raises(PathNotFoundError, match=r"nowhere: there is no such file or folder; check the path"):
        run_scan(index, library / "nowhere")
    assert not os.path.exists(index)


def test_empty_folder_makes_an_index_without_a_model(index: str, library: Path) -> None:
    summary = run_scan(index, library)
    assert summary.found == 0
    with Store(index) as store:
        assert store.model() is None


def test_another_model_or_hop_is_refused_and_nothing_is_changed(index: str, library: Path) -> None:
    make_sound(library / "a.wav")
    run_scan(index, library)
    before = database_hash(index)
    with pytest.raises(ModelMismatchError, match=r"version=1.*not with.*version=2.*start another index with --index"):
        run_scan(index, library, request=ModelRequest("tiny", (("version", "2"),)))
    with pytest.raises(ModelMismatchError, match=r"a window every 0.5 s, not every 0.25 s"):
        run_scan(index, library, request=None, hop_s=0.25)
    assert database_hash(index) == before
    assert run_scan(index, library, request=None).unchanged == 1


def test_second_writer_is_refused_while_the_first_writes(index: str, library: Path) -> None:
    make_sound(library / "a.wav")
    run_scan(index, library)
    with StoreWriter(index), pytest.raises(IndexBusyError, match="another embedindex is writing") as caught:
        run_scan(index, library)
    assert caught.value.exit_status == 75


def test_stopped_scan_goes_on_where_it_was(index: str, library: Path, tmp_path: Path) -> None:
    files = 5 * AHEAD_FILES  # those in hand are still done
    for number in range(files):
        make_sound(library / f"{number:03d}.wav", 200 + 15 * number, 0.2)
    go = tmp_path / "go"
    waiting = replace(OPTIONS, request=replace(TINY, options=(("until", str(go)), ("free", "8"))))

    def stop_after_a_few() -> bool:
        with Store(index) as store:
            enough = store.counts().ok >= 3
        if enough:
            go.touch()
        return enough

    summary = scan(index, [os.fsencode(library)], waiting, stop=stop_after_a_few)
    assert summary.interrupted
    done = len(names(index))
    assert 3 <= done < files
    with Store(index) as store:
        assert verify(store).problems == ()
    summary = run_scan(index, library)
    assert summary.added == files - done
    assert len(names(index)) == files


def test_file_that_crashes_its_worker_is_named_and_the_rest_is_done(index: str, library: Path) -> None:
    write_samples(library / "crash.wav", constant(0.5))
    for number in range(6):
        make_sound(library / f"{number}.wav", 200 + 30 * number)
    summary = run_scan(index, library, workers=2)
    assert (summary.added, summary.failed, summary.failures) == (6, 1, {"crashed": 1})
    record = one(index, library / "crash.wav")
    assert record.error_kind == "crashed"
    assert record.error_reason == "made the decoder crash twice (SIGKILL)"
    assert run_scan(index, library).unchanged == 7  # not tried again until it changes


def test_copies_that_are_in_hand_when_a_worker_dies_count_once(index: str, library: Path) -> None:
    """It may die before it hears that they need not be decoded; they are then hashed again."""
    first = make_sound(library / "0.wav", 300, 0.5)
    for number in range(1, 7):
        shutil.copy(first, library / f"{number}.wav")
        age(library / f"{number}.wav")
    write_samples(library / "7.wav", constant(0.95))
    summary = run_scan(index, library, workers=1)
    assert summary.crashes == 2
    assert (summary.added, summary.copied, summary.failures) == (7, 6, {"crashed": 1})


def test_file_that_hangs_its_worker_is_given_up(index: str, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedindex.workers.MODEL_PATIENCE", 0.2)  # what is read may take longer: a machine may be slow
    write_samples(library / "hang.wav", constant(-0.5))
    make_sound(library / "good.wav")
    summary = run_scan(index, library, stall_s=50.0)
    assert (summary.added, summary.failures) == (1, {"timeout": 1})
    wanted = "the model did not get on with it for 10 seconds"
    assert one(index, library / "hang.wav").error_reason == wanted


def test_copy_of_a_failed_file_is_not_tried_again(index: str, library: Path) -> None:
    write_samples(library / "crash.wav", constant(0.5))
    run_scan(index, library)
    shutil.copy(library / "crash.wav", library / "again.wav")
    age(library / "again.wav", 9)
    summary = run_scan(index, library)
    assert (summary.crashes, summary.failures) == (0, {"crashed": 1})


def test_failed_file_that_is_mended_becomes_searchable(index: str, library: Path) -> None:
    path = library / "a.wav"
    path.write_text("nothing to hear")
    age(path)
    assert run_scan(index, library).failures == {"not-audio": 1}
    make_sound(path)
    summary = run_scan(index, library)
    assert (summary.changed, summary.failed) == (1, 0)
    assert names(index) == {"a.wav"}


def test_silence_is_stored_as_silence_and_never_found(index: str, library: Path) -> None:
    write_samples(library / "silent.wav", np.zeros(20_000, np.float32))
    half = np.concatenate([sine(500, 2.0, 8000), np.zeros(16_000, np.float32)])
    write_samples(library / "half.wav", half)
    summary = run_scan(index, library)
    assert (summary.added, summary.failed) == (2, 0)
    silent = one(index, library / "silent.wav")
    assert silent.n_silent == silent.n_windows > 0
    with Store(index) as store:
        vectors = store.vectors_of(one(index, library / "half.wav"))
        assert not vectors[-1].any()
        assert vectors[0].any()
        assert verify(store).problems == ()


def test_level_does_not_move_the_vectors(index: str, library: Path) -> None:
    loud = sine(700, 1.0, 8000, level=0.9)
    write_samples(library / "loud.wav", loud)
    write_samples(library / "quiet.wav", loud * np.float32(0.1))
    run_scan(index, library)
    with Store(index) as store:
        first, second = (store.vectors_of(record) for record in store.files())
    np.testing.assert_allclose(first, second, rtol=2e-3)


def test_single_file_can_be_scanned(index: str, library: Path) -> None:
    path = make_sound(library / "a.wav")
    make_sound(library / "b.wav", 300)
    run_scan(index, path)
    assert names(index) == {"a.wav"}
    path.unlink()
    assert run_scan(index, library).forgotten == 1


def test_scan_of_a_part_leaves_the_rest_alone(index: str, library: Path) -> None:
    make_sound(library / "a" / "1.wav")
    make_sound(library / "a2" / "1.wav", 300)  # a name that begins alike
    run_scan(index, library)
    (library / "a2" / "1.wav").unlink()
    summary = run_scan(index, library / "a")
    assert (summary.found, summary.forgotten, summary.missing) == (1, 0, 0)
