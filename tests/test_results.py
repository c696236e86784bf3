"""What people do with results: copies and links under ranked names, one file to listen to, scores explained."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from embedindex.arrays import Float32Array
from embedindex.audition import GAP_S, faded, levelled
from embedindex.index import load_view
from embedindex.query import QueryMaker
from embedindex.results import ranked_name
from embedindex.search import search
from embedindex.store import Store
from tests.command_line import ODD_NAMES, command, refusal
from tests.indexing import TINY_RATE, make_sound, run_scan, write_samples
from tests.sounds import chirp, noise, sine


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of a small library, which tests leave as it is."""
    folder = tmp_path_factory.mktemp("results")
    library = folder / "library"
    for number in range(3):
        make_sound(library / "tones" / f"{number}.wav", 300 + 900 * number, 1.5)
    write_samples(library / "sweep.wav", chirp(200, 3500, 12.0, TINY_RATE))
    quiet = 0.01 * np.stack([sine(700, 2.0, 44100), np.zeros(2 * 44100, np.float32)], 1)
    write_samples(library / "quiet.wav", quiet.astype(np.float32), 44100)
    for number, name in enumerate(ODD_NAMES):
        make_sound(os.path.join(os.fsencode(library), b"odd", name), 2100 + 100 * number, 1.0)
    make_sound(library / "odd" / ("é" * 122 + ".wav"), 3900, 1.5)
    run_scan(str(folder / "index"), library)
    write_samples(folder / "clip.wav", sine(700, 1.0, TINY_RATE))
    return folder


@pytest.fixture(autouse=True)
def index_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDINDEX_INDEX", str(place / "index"))


# -- copies and links ----------------------------------------------------------------------------------------------


def test_copies_have_ranked_names_and_the_same_bytes(place: Path, tmp_path: Path) -> None:
    ran = command(
        "similar", place / "clip.wav", "--path", "tones/*", "--json", "--copy-to", tmp_path / "new" / "folder"
    )
    wanted = {
        f"{result['rank']:02d} {result['score']:.3f} {os.path.basename(result['path'])}": result["path"]
        for result in ran.json["results"]
    }
    copies = {path.name: path for path in (tmp_path / "new" / "folder").iterdir()}
    assert copies.keys() == wanted.keys()
    for name, path in copies.items():
        assert path.read_bytes() == Path(wanted[name]).read_bytes()
        assert path.stat().st_mtime_ns == Path(wanted[name]).stat().st_mtime_ns
    assert f"3 files copied to {tmp_path / 'new' / 'folder'}" in ran.error


def test_nothing_is_ever_written_over(place: Path, tmp_path: Path) -> None:
    for option in ("--copy-to", "--link-to"):
        folder = tmp_path / option
        command("similar", place / "clip.wav", "-k", "2", option, folder)
        for path in folder.iterdir():
            path.unlink()
            path.write_text("mine")
        ran = command("similar", place / "clip.wav", "-k", "2", option, folder)
        assert ran.status == 0
        assert "0 files" in ran.error
        assert "2 left alone, whose names are there already" in ran.error
        assert {path.read_text() for path in folder.iterdir()} == {"mine"}


def test_links_lead_to_the_files_and_odd_names_survive(place: Path, tmp_path: Path) -> None:
    ran = command("similar", place / "clip.wav", "--path", "odd/*", "-k", "99", "--link-to", tmp_path / "links")
    assert ran.status == 0, ran.error
    links = os.listdir(os.fsencode(tmp_path / "links"))
    assert len(links) == len(ODD_NAMES) + 1
    for link in links:
        source = os.readlink(os.path.join(os.fsencode(tmp_path / "links"), link))
        assert os.path.isfile(source)
        assert os.path.dirname(source) == os.fsencode(place / "library" / "odd")
        name = os.path.basename(source)
        assert link.split(b" ", 2)[2] == name or len(name) > 240


def test_name_too_long_with_its_rank_loses_the_end_of_its_stem(place: Path) -> None:
    with Store(str(place / "index")) as store:
        view = load_view(store)
        query = QueryMaker(store, view.model).from_file(str(place / "clip.wav"))
        hits = search(store, view, [query], k=99)
    (hit,) = (hit for hit in hits if "é" * 100 in hit.file.text_path)
    name = ranked_name(hit).decode()
    assert len(name.encode()) in (254, 255)
    assert name.endswith("é.wav")


def test_file_that_is_away_is_said_and_the_others_are_copied(place: Path, tmp_path: Path) -> None:
    path = place / "library" / "tones" / "0.wav"
    path.rename(place / "away")
    try:
        for option in ("--copy-to", "--link-to"):
            ran = command("similar", place / "clip.wav", "--path", "tones/*", option, tmp_path / option)
            assert ran.status == 1
            assert f"{path}: not " in ran.error
            assert "2 files " in ran.error
            assert len(list((tmp_path / option).iterdir())) == 2
    finally:
        (place / "away").rename(path)


def test_folder_that_cannot_be_made_is_refused(place: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = command("similar", place / "clip.wav", "--copy-to", tmp_path / "file")
    assert ran.status == 2
    assert "cannot be made" in ran.error


# -- the file to listen to -----------------------------------------------------------------------------------------


def loudest_db(samples: Float32Array, rate: int) -> float:
    """Return the level of the loudest 0.4 s, by plain summation."""
    size = round(0.4 * rate)
    blocks = [samples[start : start + size] for start in range(0, len(samples) - size + 1, size // 8)]
    return float(10 * np.log10(max(np.mean(block.astype(np.float64) ** 2) for block in blocks)))


@pytest.mark.parametrize(("rate", "bits"), [(44100, 16), (48000, 24)])
def test_audition_holds_the_query_and_then_the_best_places_equally_loud(
    place: Path, tmp_path: Path, rate: int, bits: int
) -> None:
    out = tmp_path / "out.wav"
    options = ["--audition-length", "1", "--audition-rate", str(rate), "--audition-bits", str(bits)]
    ran = command("similar", place / "clip.wav", "-k", "4", "--json", "--audition", out, *options)
    results = ran.json["results"]
    with sf.SoundFile(out) as file:
        assert (file.samplerate, file.channels, file.subtype) == (rate, 2, f"PCM_{bits}")
        samples = file.read(dtype="float32")
    step = round(rate * (1 + GAP_S))
    assert len(samples) == 5 * step - round(GAP_S * rate)
    parts = [samples[number * step :][:rate] for number in range(5)]
    for part, path in zip(parts, ["clip.wav", *(result["path"] for result in results)], strict=True):
        assert loudest_db(part, rate) == pytest.approx(-20, abs=0.3), path
        assert np.abs(part[[0, -1]]).max() < 1e-4  # faded
    for number in range(4):
        assert not samples[number * step + rate : (number + 1) * step].any()
    names = [os.path.basename(result["path"]) for result in results]
    quiet = parts[1 + names.index("quiet.wav")]
    assert np.abs(quiet[:, 1]).max() < 1e-3  # a stereo file keeps its sides
    tone = np.abs(np.fft.rfft(parts[0][:, 0])).argmax()
    assert tone == pytest.approx(700, abs=1)


def test_audition_plays_the_place_that_matches(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    sweep = f"{place / 'library' / 'sweep.wav'}@6-7"
    options = ["--include-self", "-k", "1", "--json", "--audition-length", "1"]
    (result,) = command("similar", sweep, *options, "--audition", out).json["results"]
    samples = sf.read(out, dtype="float32")[0][:, 0]
    hit = samples[round(44100 * (1 + GAP_S)) :][:44100]
    middle_s = result["start"] + 0.5
    assert np.abs(np.fft.rfft(hit * np.hanning(len(hit)))).argmax() == pytest.approx(200 + 275 * middle_s, abs=160)
    assert len(samples) == 2 * 44100 + round(GAP_S * 44100)


def test_audition_leaves_out_what_cannot_be_read(place: Path, tmp_path: Path) -> None:
    path = place / "library" / "tones" / "0.wav"
    path.rename(place / "away")
    try:
        ran = command("similar", place / "clip.wav", "--path", "tones/*", "--audition", tmp_path / "out.wav")
    finally:
        (place / "away").rename(path)
    assert f"left out of {tmp_path / 'out.wav'}: {path}: cannot be read" in ran.error
    assert sf.info(tmp_path / "out.wav").duration == pytest.approx(1 + 1.5 + 1.5 + 2 * GAP_S, abs=0.01)


def test_audition_never_writes_over_a_file_and_leaves_no_trace_of_a_failure(place: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.wav").write_text("mine")
    assert "is there already" in refusal("similar", place / "clip.wav", "--audition", tmp_path / "mine.wav", status=2)
    assert (tmp_path / "mine.wav").read_text() == "mine"
    ran = command("similar", place / "clip.wav", "--audition", tmp_path / "no" / "folder.wav")
    assert ran.status == 2
    assert "cannot be written" in ran.error
    assert [path.name for path in tmp_path.iterdir()] == ["mine.wav"]


@pytest.mark.parametrize(
    "options", [["--audition-rate", "22050"], ["--audition-bits", "8"], ["--audition-length", "61"]]
)
def test_wrong_format_of_an_audition_is_refused(place: Path, tmp_path: Path, options: list[str]) -> None:
    message = refusal("similar", place / "clip.wav", "--audition", tmp_path / "out.wav", *options, status=2)
    assert "44100 or 48000" in message or "give 0.1 to 60 seconds" in message


def test_levels_are_matched_as_far_as_peaks_allow() -> None:
    click = np.zeros((44100, 2), np.float32)
    click[100] = 0.5
    assert np.abs(levelled(click, 44100)).max() == pytest.approx(10 ** (-1 / 20), rel=1e-5)
    hiss = np.stack([noise(1.0)] * 2, 1)
    assert loudest_db(levelled(hiss, 44100), 44100) == pytest.approx(-20, abs=0.1)
    silence = np.zeros((10, 2), np.float32)
    np.testing.assert_array_equal(levelled(silence, 44100), silence)
    short = faded(np.ones((3, 2), np.float32), 44100)
    assert short[1].tolist() == [1, 1]


# -- explained -----------------------------------------------------------------------------------------------------


def test_explanation_gives_the_parts_of_the_score(place: Path) -> None:
    clips = [str(place / "clip.wav"), str(place / "library" / "tones" / "1.wav")]
    away = str(place / "library" / "tones" / "2.wav")
    options = ["--unlike", away, "--unlike-weight", "0.25", "-k", "3", "--json", "-v", "--include-self"]
    for result in command("similar", *clips, *options).json["results"]:
        first, second, third = result["matches"]
        assert [match["query"] for match in (first, second, third)] == [*clips, away]
        assert [match["unlike"] for match in (first, second, third)] == [False, False, True]
        total = (first["score"] + second["score"]) / 2 - 0.25 * third["score"]
        assert result["score"] == pytest.approx(total, abs=2e-5)
        for match in (first, second, third):
            assert 1 <= len(match["pairs"]) <= 3
            assert match["pairs"] == sorted(match["pairs"], key=lambda pair: -pair["cosine"])


def test_explanation_names_the_places_that_match(place: Path) -> None:
    sweep = str(place / "library" / "sweep.wav")
    (result,) = command("similar", sweep, "--include-self", "-k", "1", "--json", "-v").json["results"]
    for pair in result["matches"][0]["pairs"]:
        assert (pair["path"], pair["cosine"]) == (sweep, pytest.approx(1, abs=1e-6))
        assert pair["query_start"] == pair["start"]
    part = f"{sweep}@6-8"
    ran = command("similar", part, "--include-self", "-k", "1", "--by", "window", "--json", "-v")
    (result,) = ran.json["results"]
    ((pair,),) = (match["pairs"] for match in result["matches"])
    assert pair["cosine"] == pytest.approx(result["score"], abs=2e-6)
    assert pair["start"] == result["start"]
    assert abs(pair["query_start"] - pair["start"]) <= 0.25


def test_explanation_of_a_table_goes_to_stderr(place: Path) -> None:
    ran = command("similar", place / "clip.wav", "-k", "2", "-v")
    assert len(ran.text.splitlines()) == 2
    first, second = ran.error.splitlines()
    assert first.startswith("1  ")
    assert " for " in first
    assert "of clip.wav matches 0:0" in first
    assert second.startswith("2  ")
