"""The demo library of examples/: whole, varied, the same from the same seed, and recognisable class by class.

One small library (`--scale 0.1`: two of each class, two pieces of three seconds) serves the whole module.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile as sf

EXAMPLES = Path(__file__).parents[1] / "examples"
SCALE, PIECES_MINUTES = 0.1, 0.05


@pytest.fixture(scope="module")
def demo() -> Any:
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module("demo_library")
    finally:
        sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="module")
def settings(demo: Any) -> Any:
    return demo.Settings(1, PIECES_MINUTES, SCALE)


@pytest.fixture(scope="module")
def library(demo: Any, settings: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("demo") / "library"
    demo.build(folder, settings)
    return folder


def sounds(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "LIBRARY.json")


def centroid_hz(path: Path) -> float:
    x, rate = sf.read(path, always_2d=True)
    power: npt.NDArray[np.float64] = np.abs(np.fft.rfft(x.mean(axis=1))) ** 2
    return float(np.sum(power * np.fft.rfftfreq(x.shape[0], 1.0 / rate)) / np.sum(power))


def mean_centroid_hz(library: Path, folder: str) -> float:
    return float(np.mean([centroid_hz(path) for path in (library / folder).iterdir()]))


def test_full_library_has_hundreds_of_sounds_in_every_format_and_rate(demo: Any) -> None:
    jobs = demo.jobs_of(demo.Settings())
    assert 250 <= len(jobs) <= 400
    assert len({job.path for job in jobs}) == len(jobs)
    assert {Path(job.path).suffix for job in jobs} == {".wav", ".flac", ".ogg", ".mp3"}
    assert {job.encoding.rate for job in jobs} >= {22050, 44100, 48000, 96000}
    assert "drums/kicks/kick 01.wav" in {job.path for job in jobs}


def test_every_class_has_its_folder_and_nothing_is_left_half_written(demo: Any, settings: Any, library: Path) -> None:
    planned = {job.path for job in demo.jobs_of(settings)}
    assert {str(path.relative_to(library)) for path in sounds(library)} == planned
    tops = {path.name for path in library.iterdir() if path.is_dir()}
    assert tops == {"drums", "basses", "pads", "plucks", "keys", "leads", "noises", "voices", "places", "pieces"}
    assert len(list((library / "pieces").iterdir())) == 2


def test_every_file_can_be_read_sounds_and_stays_within_one(library: Path) -> None:
    channels = set()
    for path in sounds(library):
        x, _ = sf.read(path, always_2d=True)
        peak = float(np.max(np.abs(x)))
        assert 0.2 < peak <= 1.0, f"{path.name}: {peak}"
        assert np.max(np.abs(x[-1])) < 0.02, path.name
        channels.add(x.shape[1])
    assert channels == {1, 2}


def test_pieces_are_as_long_as_asked_for(library: Path) -> None:
    for path in (library / "pieces").iterdir():
        info = sf.info(path)
        assert info.frames / info.samplerate == pytest.approx(PIECES_MINUTES * 60.0, abs=0.2), path.name


@pytest.mark.slow
@pytest.mark.parametrize("number", range(7))
def test_each_piece_sounds_from_beginning_to_end(demo: Any, number: int) -> None:
    job = [job for job in demo.jobs_of(demo.Settings()) if job.kind is None][number]
    x = demo.samples(job, demo.Settings(1, 0.5))
    assert x.shape[0] == round(30.0 * job.encoding.rate)
    assert np.max(np.abs(x)) <= 1.0
    for part in np.array_split(x, 5):
        assert np.sqrt(np.mean(part**2)) > 0.01, job.title


def test_files_carry_title_and_genre(library: Path) -> None:
    for path in (
        "drums/kicks/kick 01.wav",
        "drums/kicks/kick 02.flac",
        "noises/dust/dust 02.ogg",
        "pieces/Pixel Run.mp3",
    ):
        with sf.SoundFile(library / path) as file:
            assert file.title == Path(path).stem
            assert file.genre in ("Drums", "Noise", "Chiptune")


def test_same_seed_makes_the_same_samples_and_another_seed_others(demo: Any, settings: Any, library: Path) -> None:
    other = demo.Settings(2, PIECES_MINUTES, SCALE)
    chosen = [job for job in demo.jobs_of(settings) if job.path.endswith(" 01.wav") or job.title == "Pixel Run"][:12]
    for job in chosen:
        first, again = demo.samples(job, settings), demo.samples(job, settings)
        np.testing.assert_array_equal(first, again)
        changed = demo.samples(job, other)
        assert changed.shape != first.shape or not np.allclose(changed, first), job.path
    kick = next(job for job in chosen if job.path == "drums/kicks/kick 01.wav")
    written, _ = sf.read(library / kick.path)
    np.testing.assert_allclose(written, demo.samples(kick, settings), atol=1.0 / 32767)


def test_sounds_of_a_class_differ(library: Path) -> None:
    for folder in ("drums/kicks", "drums/snares", "basses/acid"):
        first, second = (
            sf.read(path, always_2d=True)[0][:2000].mean(axis=1) for path in sorted((library / folder).iterdir())
        )
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.98, folder


def test_classes_sound_different(library: Path) -> None:
    kick, tom, snare, hat = (mean_centroid_hz(library, f"drums/{name}") for name in ("kicks", "toms", "snares", "hats"))
    assert kick < 400.0
    assert tom < snare
    assert 5.0 * kick < snare < hat
    assert mean_centroid_hz(library, "basses/sub") < 150.0
    assert mean_centroid_hz(library, "places/thunder") < mean_centroid_hz(library, "places/rain") / 3.0


def test_second_run_finds_the_library_complete(
    demo: Any, settings: Any, library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in library.rglob("*")}
    assert demo.build(library, settings) == 0
    assert {path: path.stat().st_mtime_ns for path in library.rglob("*")} == before
    assert "nothing to do" in capsys.readouterr().out


def test_interrupted_run_makes_only_what_is_missing(
    demo: Any, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [job for job in demo.jobs_of(settings) if job.path.startswith("drums/k") or job.path.startswith("drums/r")]
    monkeypatch.setattr(demo, "jobs_of", lambda _: few)
    demo.write_manifest(tmp_path, settings, ())  # as a run leaves it that was stopped after its first file
    first = tmp_path / few[0].path
    first.parent.mkdir(parents=True)
    demo.make((str(tmp_path), few[0], settings))
    first.with_name("kick 02.flac.part").write_bytes(b"half a file")
    written_ns = first.stat().st_mtime_ns
    assert demo.build(tmp_path, settings) == len(few) - 1
    assert first.stat().st_mtime_ns == written_ns
    assert len(sounds(tmp_path)) == len(few)
    first.write_bytes(b"spoilt")
    assert demo.build(tmp_path, settings) == 1
    assert sf.info(first).frames > 1000


def test_foreign_folder_and_other_settings_are_refused(demo: Any, settings: Any, tmp_path: Path) -> None:
    (tmp_path / "my music.txt").write_text("mine")
    with pytest.raises(SystemExit, match="not empty"):
        demo.build(tmp_path, settings)
    demo.write_manifest(tmp_path, settings, ())
    with pytest.raises(SystemExit, match="other settings"):
        demo.build(tmp_path, demo.Settings(2, PIECES_MINUTES, SCALE))
    (tmp_path / "LIBRARY.json").write_text("{")
    with pytest.raises(SystemExit, match="cannot be read"):
        demo.build(tmp_path, settings)
    assert [path.name for path in sounds(tmp_path)] == ["my music.txt"]


def test_manifest_lists_every_file_with_its_size(library: Path) -> None:
    content = json.loads((library / "LIBRARY.json").read_text(encoding="utf-8"))
    assert content["files"] == {str(path.relative_to(library)): path.stat().st_size for path in sounds(library)}
    assert content["settings"]["seed"] == 1


def test_script_writes_a_query_that_is_not_in_the_library(library: Path, tmp_path: Path) -> None:
    query = tmp_path / "queries" / "query.wav"
    arguments = [str(library), "--scale", str(SCALE), "--pieces-minutes", str(PIECES_MINUTES), "--query", str(query)]
    script = [sys.executable, str(EXAMPLES / "demo_library.py"), *arguments, "--query-kind", "hat"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "a new hat, not in the library" in done.stdout
    assert centroid_hz(query) > 5000.0
    x, _ = sf.read(query)
    for path in (library / "drums/hats").iterdir():
        other, _ = sf.read(path, always_2d=True)
        n = min(x.size, other.shape[0])
        assert not np.allclose(x[:n], other[:n, 0], atol=0.05), path.name
