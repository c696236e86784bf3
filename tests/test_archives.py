"""ZIP archives: which paths their files have, how their bytes are read, and what hostile ones cost."""

from __future__ import annotations

import io
import os
import random
import tempfile
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedindex import archives
from embedindex.archives import archive_of, exists, is_folder, members, open_sound
from embedindex.audio import read_audio
from embedindex.errors import AudioError, AudioLimitError, DamagedAudioError, UnreadableFileError
from embedindex.file_stat import file_stat
from embedindex.tags import read_tags
from tests.indexing import age
from tests.sounds import encode, noise
from tests.zips import DEFLATED, SINCE, STORED, raw_zip, write_zip

METHODS = pytest.mark.parametrize("method", [STORED, DEFLATED], ids=["stored", "deflated"])


def inside(archive: Path, name: str) -> bytes:
    return os.fsencode(archive) + b"/" + os.fsencode(name)


def names(archive: Path) -> list[bytes]:
    return [member.name for member in members(os.fsencode(archive))]


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


# -- paths -----------------------------------------------------------------------------------------------------


def test_member_has_the_path_it_would_have_in_a_folder_of_that_name(tmp_path: Path) -> None:
    album = write_zip(tmp_path / "Album.ZIP", {"disc 1/01.wav": b"one", "disc 1/": b"", "cover.jpg": b"two"})
    assert names(album) == [b"cover.jpg", b"disc 1/01.wav"]
    assert archive_of(inside(album, "disc 1/01.wav")) == os.fsencode(album)
    assert open_sound(inside(album, "disc 1/01.wav")).read() == b"one"
    assert exists(inside(album, "disc 1"))
    assert is_folder(inside(album, "disc 1"))
    assert not is_folder(inside(album, "disc 1/01.wav"))
    assert not exists(inside(album, "disc 2"))
    assert not exists(inside(album, "disc"))
    with pytest.raises(UnreadableFileError):
        open_sound(inside(album, "disc 1/02.wav"))


def test_real_folder_named_like_an_archive_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "album.zip").mkdir()
    (tmp_path / "album.zip" / "a.wav").write_bytes(b"real")
    assert archive_of(inside(tmp_path / "album.zip", "a.wav")) is None
    assert open_sound(inside(tmp_path / "album.zip", "a.wav")).read() == b"real"
    packed = write_zip(tmp_path / "album.zip" / "b.zip", {"c.wav": b"packed"})
    assert open_sound(inside(packed, "c.wav")).read() == b"packed"


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (b"/etc/passwd.wav", b"etc/passwd.wav"),
        (b"../../up.wav", b"up.wav"),
        (b"a//b/./c.wav", b"a/b/c.wav"),
        (b"cut.wav\0.exe", b"cut.wav"),
        (b"caf\x82.wav", "café.wav".encode()),  # code page 437
        ("こと.wav".encode(), "こと.wav".encode()),  # UTF-8 that does not say so
    ],
)
def test_names_lead_nowhere_else_and_come_out_as_utf8(tmp_path: Path, raw: bytes, clean: bytes) -> None:
    archive = raw_zip(tmp_path / "a.zip", [{"name": raw, "data": b"x"}])
    assert names(archive) == [clean]
    assert open_sound(os.fsencode(archive) + b"/" + clean).read() == b"x"


def test_backslashes_part_folders_in_archives_made_by_dos_only(tmp_path: Path) -> None:
    assert names(raw_zip(tmp_path / "d.zip", [{"name": b"a\\b.wav", "data": b"", "system": 0}])) == [b"a/b.wav"]
    assert names(raw_zip(tmp_path / "u.zip", [{"name": b"a\\b.wav", "data": b"", "system": 3}])) == [b"a\\b.wav"]


def test_of_two_members_with_one_name_the_last_counts_as_when_unpacked(tmp_path: Path) -> None:
    archive = raw_zip(tmp_path / "a.zip", [{"name": b"a.wav", "data": b"old"}, {"name": b"./a.wav", "data": b"new"}])
    assert names(archive) == [b"a.wav"]
    assert open_sound(inside(archive, "a.wav")).read() == b"new"


def test_links_in_archives_are_left_out(tmp_path: Path) -> None:
    link = {"name": b"link.wav", "data": b"/etc/passwd", "mode": 0o120777}
    assert names(raw_zip(tmp_path / "a.zip", [link, {"name": b"a.wav", "data": b""}])) == [b"a.wav"]


def test_stat_of_a_member_tells_its_content_apart_without_reading_it(tmp_path: Path) -> None:
    first = write_zip(tmp_path / "a.zip", {"a.wav": b"first", "b.wav": b"other"})
    before = file_stat(inside(first, "a.wav")), file_stat(inside(first, "b.wav"))
    write_zip(tmp_path / "a.zip", {"a.wav": b"FIRST", "b.wav": b"other"}, later_ns=1)
    after = file_stat(inside(first, "a.wav")), file_stat(inside(first, "b.wav"))
    assert before[0].size == after[0].size
    assert before[0].mtime_ns != after[0].mtime_ns
    assert before[1] == after[1]
    import calendar

    assert 0 <= after[0].mtime_ns - calendar.timegm(SINCE) * 10**9 < 5 * 10**9
    with pytest.raises(OSError, match="Not a directory"):
        file_stat(inside(first, "c.wav"))


# -- bytes -----------------------------------------------------------------------------------------------------


@METHODS
@settings(max_examples=40)
@given(data=st.binary(max_size=3000), moves=st.lists(st.tuples(st.integers(0, 3500), st.integers(0, 3500)), max_size=8))
def test_member_reads_like_a_file_from_any_place(
    tmp_path_factory: pytest.TempPathFactory, method: int, data: bytes, moves: list[tuple[int, int]]
) -> None:
    archive = write_zip(
        tmp_path_factory.mktemp("zip") / "a.zip", {"x": b"before", "a.wav": data, "y": b"after"}, method
    )
    with open_sound(inside(archive, "a.wav")) as file:
        mirror = io.BytesIO(data)
        for place, size in moves:
            assert file.seek(place) == mirror.seek(place)
            assert file.read(size) == mirror.read(size)
            assert file.tell() == mirror.tell()
        assert file.seek(0, os.SEEK_END) == len(data)
        assert file.read(1) == b""


@METHODS
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".ogg", ".m4a", ".opus"])
def test_sound_in_an_archive_decodes_to_the_same_samples(tmp_path: Path, method: int, suffix: str) -> None:
    plain = tmp_path / f"a{suffix}"
    encode(plain, np.stack([noise(0.7, 48000, 1), noise(0.7, 48000, 2)], 1), 48000)
    archive = write_zip(
        tmp_path / "a.zip", {"cover.jpg": b"\xff\xd8" * 500, f"d/a{suffix}": plain.read_bytes()}, method
    )
    wanted, facts = read_audio(plain)
    found, found_facts = read_audio(inside(archive, f"d/a{suffix}"))
    assert np.array_equal(wanted, found)
    assert found_facts == facts


def test_tags_are_read_in_archives(tmp_path: Path) -> None:
    encode(tmp_path / "a.m4a", noise(0.3, 44100), title="Rain")
    archive = write_zip(tmp_path / "a.zip", {"a.m4a": (tmp_path / "a.m4a").read_bytes()})
    assert read_tags(inside(archive, "a.m4a")).title == "Rain"


def test_stored_member_is_read_without_a_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write_zip(tmp_path / "a.zip", {"a.wav": bytes(100_000)}, STORED)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert len(open_sound(inside(archive, "a.wav")).read()) == 100_000
    packed = write_zip(tmp_path / "b.zip", {"a.wav": bytes(100_000)}, DEFLATED)
    with pytest.raises(UnreadableFileError, match=r"cannot be unpacked in .*nowhere .*free some space there"):
        open_sound(inside(packed, "a.wav"))


def test_two_readers_of_one_member_do_not_move_each_other(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", {"a.wav": b"0123456789", "b.wav": b"abcdefghij"})
    first, second = open_sound(inside(archive, "a.wav")), open_sound(inside(archive, "a.wav"))
    other = open_sound(inside(archive, "b.wav"))  # what was unpacked before it is still in use
    assert [first.read(3), second.read(2), other.read(2), first.read(2)] == [b"012", b"01", b"ab", b"34"]


# -- what is wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "error", "message"),
    [
        ({"flags": 1}, DamagedAudioError, "is encrypted; unpack its archive with the password"),
        ({"method": 9}, DamagedAudioError, r"packed by a method that is not read here \(deflate64\)"),
        ({"method": 77}, DamagedAudioError, r"packed by a method that is not read here \(77\)"),
        ({"method": 8}, DamagedAudioError, "is damaged in its archive"),  # it is stored
        ({"method": 8, "data": deflated(bytes(9999)), "size": 5000}, DamagedAudioError, "is damaged in its archive"),
        ({"method": 8, "data": deflated(bytes(100)), "size": 9999}, DamagedAudioError, "is damaged in its archive"),
        ({"method": 8, "data": deflated(bytes(100))[:-3], "size": 100}, DamagedAudioError, "is damaged in its"),
        ({"method": 8, "data": deflated(bytes(100)), "size": 100, "crc": 7}, DamagedAudioError, "is damaged in its"),
        ({"method": 8, "data": deflated(b""), "size": 900 << 20}, AudioLimitError, "claims to unpack to 0.9 GB"),
    ],
)
def test_member_that_cannot_be_read_says_why(
    tmp_path: Path, entry: dict[str, object], error: type[AudioError], message: str
) -> None:
    archive = raw_zip(tmp_path / "a.zip", [{"name": b"a.wav", "data": b"plain", **entry}])
    with pytest.raises(error, match=message):
        open_sound(inside(archive, "a.wav"))


def test_archive_that_claims_too_much_is_refused_as_a_whole(tmp_path: Path) -> None:
    packed = deflated(bytes(60 << 20))
    entry = {"data": packed, "method": 8, "size": 60 << 20, "crc": 0}
    many = raw_zip(tmp_path / "a.zip", [{"name": b"%d.wav" % number, **entry} for number in range(20)])
    with pytest.raises(AudioLimitError, match=r"claims to unpack to 1\.3 GB, \d+ times its size"):
        members(os.fsencode(many))


def test_archive_whose_members_overlap_is_refused(tmp_path: Path) -> None:
    kernel = {"data": deflated(bytes(1000)), "method": 8, "size": 1000}
    bomb = raw_zip(tmp_path / "a.zip", [{"name": b"a.wav", **kernel}, {"name": b"b.wav", **kernel, "offset": 0}])
    with pytest.raises(AudioLimitError, match="members overlap"):
        members(os.fsencode(bomb))


def test_huge_table_of_contents_is_refused_before_it_is_read(tmp_path: Path) -> None:
    archive = raw_zip(tmp_path / "a.zip", [{"name": b"%07d" % number, "data": b""} for number in range(200_000)])
    tracemalloc.start()
    try:
        with pytest.raises(AudioLimitError, match="table of contents above 8 MB"):
            members(os.fsencode(archive))
        assert tracemalloc.get_traced_memory()[1] < 2 * archives.MAX_DIRECTORY_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"not a zip at all" * 100, b"PK\x05\x06" + bytes(17)])
def test_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DamagedAudioError, match=r"no whole ZIP archive .*; copy or download it again"):
        members(os.fsencode(tmp_path / "a.zip"))
    with pytest.raises(DamagedAudioError, match="no whole ZIP archive"):
        open_sound(tmp_path / "a.zip")


def test_archive_of_nothing_holds_nothing(tmp_path: Path) -> None:
    assert members(os.fsencode(write_zip(tmp_path / "a.zip", {}))) == ()


def test_archive_that_lost_its_front_is_refused(tmp_path: Path) -> None:
    whole = write_zip(tmp_path / "a.zip", {"a.wav": bytes(100), "b.wav": bytes(100)}, STORED)
    whole.write_bytes(whole.read_bytes()[50:])
    with pytest.raises(DamagedAudioError, match="its front is missing"):
        members(os.fsencode(whole))


def test_whole_archive_is_no_sound(tmp_path: Path) -> None:
    with pytest.raises(DamagedAudioError, match="is an archive, not a sound; name a file in it"):
        open_sound(write_zip(tmp_path / "a.zip", {"a.wav": b""}))


def test_changed_archive_is_read_anew(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", {"a.wav": b"old"})
    assert open_sound(inside(archive, "a.wav")).read() == b"old"
    write_zip(tmp_path / "a.zip", {"a.wav": b"new", "b.wav": b"more"})
    assert open_sound(inside(archive, "a.wav")).read() == b"new"
    assert names(archive) == [b"a.wav", b"b.wav"]


def test_damaged_archives_raise_nothing_but_audio_errors(tmp_path: Path) -> None:
    from tests.torture.mutants import mutate

    chance = random.Random(4)
    path = write_zip(tmp_path / "a.zip", {f"d/{n}.wav": chance.randbytes(300) * 3 for n in range(5)})
    data = path.read_bytes()
    outcomes = set()
    for number in range(400):
        path.write_bytes(mutate(data, chance) if number % 3 else _edited_table(data, chance))
        age(path, number)
        try:
            for member in members(os.fsencode(path)):
                try:
                    with open_sound(os.fsencode(path) + b"/" + member.name) as file:
                        assert len(file.read()) <= member.size
                    outcomes.add("read")
                except AudioError:
                    outcomes.add("member refused")
        except AudioError:
            outcomes.add("archive refused")
    assert outcomes == {"read", "member refused", "archive refused"}


def _edited_table(data: bytes, chance: random.Random) -> bytes:
    start = data.index(b"PK\x01\x02")
    edited = bytearray(data)
    for _ in range(chance.choice((1, 2, 5))):
        edited[chance.randrange(start, len(edited))] = chance.randrange(256)
    return bytes(edited)
