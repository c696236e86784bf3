"""Multisamples: SFZ files and names of files say which samples are one instrument."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from embedindex.sample_names import instruments_of
from embedindex.sfz import read_sfz
from tests.command_line import command
from tests.indexing import age, make_sound, one, run_scan


def samples(folder: Path, text: str, name: str = "a.sfz") -> set[str]:
    (folder / name).write_text(text, encoding="utf-8")
    return {os.path.relpath(os.fsdecode(path), folder) for path in read_sfz(os.fsencode(folder / name)).samples}


# -- SFZ -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<region> sample=a.wav key=60", {"a.wav"}),
        ("<region>sample=Grand Piano C4 v1.wav lokey=c4 hikey=d4", {"Grand Piano C4 v1.wav"}),
        ("<group> sample=a.wav\n<region> key=1\n<region> key=2 sample=b.wav", {"a.wav", "b.wav"}),
        ("<global> sample=g.wav <region> key=1", {"g.wav"}),
        ("<control> default_path=S\\T/\n<region> sample=a.wav\n<control> default_path=\n<region> sample=b.wav",
         {"S/T/a.wav", "b.wav"}),
        ("<control>\ndefault_path=P/Kick_\n<region> sample=1.wav // sample=no.wav\n/* <region> sample=no2.wav */",
         {"P/Kick_1.wav"}),
        ("#define $EXT flac\n#define $V v1\n<region> sample=C4_$V.$EXT\n#define $V v2\n<region> sample=C4_$V.$EXT",
         {"C4_v1.flac", "C4_v2.flac"}),
        ("<region> sample=*sine\n<region> sample=../up.wav\r\n<region> sample=", {"../up.wav"}),
    ],
)  # fmt: skip
def test_samples_of_an_sfz_file_are_found(tmp_path: Path, text: str, found: set[str]) -> None:
    assert samples(tmp_path, text) == found


def test_included_files_count_and_may_go_in_circles(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "more.txt").write_text('#include "a.sfz"\n#include "none.sfz"\n<region> sample=$D/b.wav')
    text = '#define $D deep\n#include "d/more.txt"\n<region> sample=a.wav'
    assert samples(tmp_path, text) == {"deep/b.wav", "a.wav"}
    assert read_sfz(os.fsencode(tmp_path / "a.sfz")).includes == (os.fsencode(tmp_path / "d" / "more.txt"),)


# -- names -----------------------------------------------------------------------------------------------------


def names(*stems: str, duration_s: float = 2.0) -> set[str]:
    """Return the names of the instruments found, after checking that all files are in one, or none."""
    found = instruments_of(dict.fromkeys(stems, duration_s))
    assert set(found) in (set(), set(stems))
    return set(found.values())


def test_names_that_differ_in_note_velocity_and_repetition_are_one_instrument() -> None:
    assert names(*(f"Piano_{n}_v{v}_rr{r}" for n in ("C4", "D#4", "Gb-1") for v in (1, 9) for r in (1, 2))) == {"Piano"}
    assert names(*(f"{number:03d} {loud}" for number in (60, 63, 66) for loud in ("mp", "ff"))) == {""}
    assert names("C#3-pp", "C#3-ff", "A4-pp", "A4-ff") == {""}
    assert names("A4vL", "A4vH", "C4vL", "C4vH") == {""}
    assert names("Cello C2", "Cello E2", "Cello G2", "Cello B2", "Cello D3") == {"Cello"}
    assert names(*(f"snare vel{n}" for n in range(1, 13))) == {"snare"}


def test_names_of_other_things_are_none() -> None:
    assert names(*(f"Kick {number:02d}" for number in range(1, 21))) == set()
    assert names(*(f"{side}{number}" for side in "ABCD" for number in (1, 2, 3))) == set()  # sides of records
    assert names("Song v1", "Song v2", "Song v3", "Song v4", duration_s=200) == set()
    assert names("Pad C3", "Lead F2", "Bass G1", "Bell A5", "Vox B2") == set()
    assert names("Loop Am 120", "Loop Cm 120", "Loop Dm 120", "Loop Em 120", "Loop Fm 120") == set()
    assert names("Piano C4", "Piano D4") == set()


def test_kits_of_drums_are_not_swallowed() -> None:
    folder = Path("/usr/share/hydrogen/data/drumkits")
    if not folder.is_dir():
        pytest.skip("no drum kits of Hydrogen here")
    for kit in folder.iterdir():
        stems = {path.stem: 1.0 for path in kit.iterdir() if path.suffix in (".wav", ".flac")}
        assert instruments_of(dict.fromkeys(stems, 1.0)) == {}, kit


# -- scans -----------------------------------------------------------------------------------------------------


def instrument(index: str, path: Path) -> str | None:
    return one(index, path).instrument


def test_scan_follows_sfz_files_without_hearing_anything_again(index: str, library: Path) -> None:
    low, high = make_sound(library / "Samples" / "Low.wav", 200), make_sound(library / "Samples" / "high.wav", 900)
    other = make_sound(library / "other.wav", 500)
    sfz = library / "Bell.sfz"
    sfz.write_text("<group> sample=samples\\low.WAV\n<region> key=1")
    age(sfz)
    run_scan(index, library)
    assert [instrument(index, path) for path in (low, high, other)] == [f"{library}/Bell", None, None]
    before = Path(index, "embedindex.db").read_bytes()
    run_scan(index, library)
    assert Path(index, "embedindex.db").read_bytes() == before
    sfz.write_text('#include "part.txt"')
    (library / "part.txt").write_text("<region> sample=Samples/high.wav")
    summary = run_scan(index, library)
    assert summary.windows == 0
    assert [instrument(index, path) for path in (low, high)] == [None, f"{library}/Bell"]
    (library / "part.txt").write_text("<region> sample=Samples/high.wav <region> sample=other.wav")
    run_scan(index, library)
    assert instrument(index, other) == f"{library}/Bell"
    sfz.rename(library / "Gong.sfz")
    run_scan(index, library)
    assert instrument(index, other) == f"{library}/Gong"
    (library / "Gong.sfz").unlink()
    run_scan(index, library)
    assert [instrument(index, path) for path in (low, high, other)] == [None, None, None]


def test_renamed_samples_change_their_instrument_and_results_are_grouped(index: str, library: Path) -> None:
    made = [make_sound(library / "Piano" / f"Piano_C4_v{n}.wav", 400 + n) for n in range(1, 6)]
    alone = make_sound(library / "alone.wav", 1800)
    query = make_sound(library.parent / "query.wav", 403)
    run_scan(index, library)
    assert {instrument(index, path) for path in made} == {f"{library}/Piano/Piano"}
    done = command("similar", query, "-I", index, "--group", "instrument", "--json", "-k", "2").json["results"]
    assert [(hit["rank"], hit["instrument"], hit["group"]["files"]) for hit in done] == [
        (1, f"{library}/Piano/Piano", 5),
        (2, None, 1),
    ]
    text = command("similar", query, "-I", index, "--group", "instrument").text
    assert "[5 files of Piano]" in text
    found = command("list", "-I", index, "--instrument", "Piano", "--json").json
    assert {file["path"] for file in found} == set(map(str, made))
    assert command("similar", query, "-I", index, "--group", "mood").status == 2
    (library / "Piano").rename(library / "Flügel")
    summary = run_scan(index, library)
    assert (summary.windows, summary.moved) == (0, 5)
    assert instrument(index, library / "Flügel" / made[0].name) == f"{library}/Flügel/Piano"
    for path in (library / "Flügel").iterdir():
        if "v1" not in path.name:
            path.unlink()
    run_scan(index, library)
    assert instrument(index, library / "Flügel" / made[0].name) is None
    assert instrument(index, alone) is None
