"""A damaged database is repaired: what can be read is kept, what is lost is said, and a scan makes it complete."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from embedindex.database import database_path
from embedindex.errors import IndexDamagedError
from embedindex.index_file import index_path
from embedindex.models import load_model
from embedindex.records import Label
from embedindex.repair import needs_repair, repair
from embedindex.scan import scan
from embedindex.store import Store
from embedindex.verify import verify
from embedindex.worker import WorkerSetup
from embedindex.workers import WorkerPool
from embedindex.writer import StoreWriter
from tests.command_line import command, refusal
from tests.indexing import OPTIONS, TINY, make_sound, run_scan
from tests.storing import open_filled, put

FILES = 60
PAGE = 4096


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of sixty sounds and its index, every file labelled."""
    place = tmp_path_factory.mktemp("whole")
    for number in range(FILES):
        make_sound(place / "library" / f"{number % 5}" / f"{number}.wav", 200 + 7 * number, 0.5 + number % 7)
    index = str(place / "index")
    run_scan(index, place / "library")
    with StoreWriter(index) as store:
        for record in list(store.files()):
            store.put_labels(record.id, [Label("name", os.path.basename(record.text_path), "user", 1.0)])
    return place


def damage(index: str, seed: int) -> None:
    """Overwrite, zero or flip in one to three random pages behind the first."""
    chance = random.Random(seed)
    data = bytearray(Path(database_path(index)).read_bytes())
    for _ in range(chance.randint(1, 3)):
        start = PAGE * chance.randrange(1, len(data) // PAGE)
        kind = chance.randrange(3)
        if kind == 2:
            for _ in range(20):
                data[start + chance.randrange(PAGE)] ^= 1 << chance.randrange(8)
        else:
            data[start : start + PAGE] = bytes(PAGE) if kind else chance.randbytes(PAGE)
    Path(database_path(index)).write_bytes(data)


def test_databases_damaged_at_random_pages_are_repaired_and_completed_by_a_scan(whole: Path, tmp_path: Path) -> None:
    repaired = refused = 0
    with WorkerPool(WorkerSetup(TINY, 0.5, 3600.0, 0), 1, load_model(TINY).identity.fingerprint) as pool:
        for seed in range(36):
            index = str(tmp_path / str(seed))
            shutil.copytree(whole / "index", index)
            damage(index, seed)
            if not needs_repair(index):
                continue  # the page was free, or an unused part of one
            before = Path(database_path(index)).read_bytes()
            try:
                done = repair(index)
            except IndexDamagedError:
                assert Path(database_path(index)).read_bytes() == before
                refused += 1
                continue
            repaired += 1
            assert Path(done.kept).read_bytes() == before
            with Store(index) as store:
                assert verify(store).problems == ()
                assert len(list(store.files("status = 'ok'"))) == done.files
                assert store.counts().failed == done.again
            summary = scan(index, [str(whole / "library")], OPTIONS, pool=pool)
            assert summary.failed == 0
            with Store(index) as store:
                assert verify(store).problems == ()
                records = list(store.files())
                assert len(records) == FILES
                assert {record.status for record in records} == {"ok"}
                labelled = store.labels_of(record.id for record in records)
            if not done.labels_lost:
                assert len(labelled) == FILES
            shutil.rmtree(index)
    assert repaired >= 15
    assert repaired > refused


def test_lost_vectors_cost_no_label(index: str, library: Path) -> None:
    path = make_sound(library / "a.wav")
    make_sound(library / "b.wav", 700)
    run_scan(index, library)
    with StoreWriter(index) as store:
        record = store.file_by_path(os.fsencode(path))
        assert record is not None
        store.put_labels(record.id, [Label("mood", "calm", "user", 1.0)])
        store._do("DELETE FROM vectors WHERE file_id = ?", (record.id,))
    done = command("verify", "--repair", "-I", index)
    assert done.status == 0, done.error
    assert "1 file whole" in done.error
    assert "1 file lost their vectors, not their labels" in done.error
    summary = run_scan(index, library)
    assert (summary.changed, summary.unchanged) == (1, 1)
    with Store(index) as store:
        assert store.labels_of([record.id])[record.id][0].value == "calm"
        assert verify(store).problems == ()


def test_database_whose_first_page_is_gone_is_left_alone(index: str) -> None:
    with open_filled(index) as store:
        put(store, b"a.wav", 3)
    path = Path(database_path(index))
    path.write_bytes(bytes(PAGE) + path.read_bytes()[PAGE:])
    before = path.read_bytes()
    with pytest.raises(IndexDamagedError, match="left as it is"):
        repair(index)
    assert path.read_bytes() == before
    assert not os.path.exists(os.path.join(index, "repair.tmp"))


def test_index_that_is_whole_is_not_touched_by_repair(index: str, library: Path) -> None:
    make_sound(library / "a.wav")
    run_scan(index, library)
    before = Path(database_path(index)).read_bytes()
    assert command("verify", "--repair", "-I", index).status == 0
    assert Path(database_path(index)).read_bytes() == before
    assert sqlite3.connect(database_path(index)).execute("SELECT count(*) FROM files").fetchone() == (1,)


def test_database_that_was_cut_short_is_repaired_as_far_as_it_goes(whole: Path, tmp_path: Path) -> None:
    index = str(tmp_path / "index")
    shutil.copytree(whole / "index", index)
    path = Path(database_path(index))
    with sqlite3.connect(path) as database:
        pages = [page for (page,) in database.execute("SELECT pageno FROM dbstat WHERE name = 'files' ORDER BY pageno")]
    os.truncate(path, pages[-2] * PAGE + 100)  # the last page of files is gone
    before = path.read_bytes()
    done = repair(index)
    assert Path(done.kept).read_bytes() == before
    with Store(index) as store:
        assert verify(store).problems == ()
        assert 0 < len(list(store.files())) < FILES
        assert store.labels_of(record.id for record in store.files())
    run_scan(index, whole / "library")
    with Store(index) as store:
        assert len(list(store.files("status = 'ok'"))) == FILES


def test_length_beyond_all_files_in_the_header_is_refused_or_repaired(whole: Path, tmp_path: Path) -> None:
    index = str(tmp_path / "index")
    shutil.copytree(whole / "index", index)
    path = Path(database_path(index))
    data = bytearray(path.read_bytes())
    data[28:32] = b"\xff" * 4  # pages: 16 TiB, which not every file system has files of
    path.write_bytes(data)
    try:
        kept = Path(repair(index).kept)
    except IndexDamagedError:
        kept = path
    assert kept.read_bytes() == bytes(data)


def test_damage_met_while_a_state_is_read_is_said_as_such(whole: Path, tmp_path: Path) -> None:
    index = str(tmp_path / "index")
    shutil.copytree(whole / "index", index)
    path = Path(database_path(index))
    with sqlite3.connect(path) as database:
        (leaf,) = database.execute("SELECT max(pageno) FROM dbstat WHERE name = 'sqlite_schema'").fetchone()
    data = bytearray(path.read_bytes())
    data[(leaf - 1) * PAGE : leaf * PAGE] = random.Random(1).randbytes(PAGE)
    path.write_bytes(data)
    for arguments in (["verify"], ["similar", whole / "library" / "0" / "0.wav"]):
        said = refusal(*arguments, "-I", index)
        assert "the database is damaged" in said
        assert "embedindex verify --repair" in said


def test_damaged_search_index_is_said_once_and_made_again(index: str, library: Path) -> None:
    make_sound(library / "a.wav")
    run_scan(index, library)
    path = Path(index_path(index))
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    said = command("verify", "-I", index).error
    assert said.count("embedindex rebuild") == 1
    done = command("verify", "--repair", "-I", index)
    assert "the search index was made again from the database; nothing is lost" in done.error
    assert "All is well: 1 file" in done.text
    assert "made again" not in command("verify", "--repair", "-I", index).error
