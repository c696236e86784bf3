"""``embedindex show`` as users type it: pictures of every panel, of stretches, of units; refusals."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.command_line import command, refusal
from tests.remixing import RATE, beat, texture
from tests.sounds import write_wav

matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("show") / "100 $ song_$x.wav"
    write_wav(path, np.stack((texture(3, 1), beat(3, 1)[0]), 1), RATE)
    return path


def size(path: Path) -> tuple[int, int]:
    from matplotlib.image import imread

    pixels = imread(path)
    assert pixels[..., :3].std() > 0.05, "the picture is blank"
    return pixels.shape[1], pixels.shape[0]


def test_every_panel_is_drawn_one_below_the_other(sound: Path, tmp_path: Path) -> None:
    every = "waveform,mel,linear,log,chroma,mfcc,centroid,rolloff,novelty,units"
    ran = command("show", sound, "--what", every, "-o", tmp_path / "all.png")
    assert (ran.status, ran.out, ran.error) == (0, b"", f"embedindex: wrote {tmp_path / 'all.png'}\n")
    assert command("show", sound, "--what", "mel", "-o", tmp_path / "one.png", "-q").status == 0
    wide, high = size(tmp_path / "all.png")
    assert (wide, high > 2000) == (1320, True)
    wide, high = size(tmp_path / "one.png")
    assert (wide, abs(high - 110 * 3.2) <= 1) == (1320, True)  # not every matplotlib rounds


def test_axes_are_labelled_with_units_and_the_file_is_named(sound: Path, tmp_path: Path) -> None:
    every = "waveform,mel,linear,log,chroma,mfcc,centroid,rolloff,novelty,units"
    matplotlib.rcParams["svg.fonttype"] = "none"
    assert command("show", sound, "--what", every, "--units", "grid:500ms", "-o", tmp_path / "all.svg").status == 0
    text = (tmp_path / "all.svg").read_text()
    for shown in (
        "time (s)",
        "frequency (Hz, mel)",
        "frequency (kHz)",
        "level (dB)",
        "frequency (Hz, log)",
        "pitch class",
    ):
        assert shown in text, shown
    for shown in (
        "MFCC (number)",
        "roll-off (85 %)",
        "onset strength",
        "6 units (grid), 0.50 s each (median)",
        sound.name,
    ):
        assert shown in text, shown


def test_labels_of_audacity_stand_on_the_units(sound: Path, tmp_path: Path) -> None:
    (tmp_path / "cuts.txt").write_text("0\t1\tintro\n1\t2.5\tverse\n")
    matplotlib.rcParams["svg.fonttype"] = "none"
    out = tmp_path / "units.svg"
    assert (
        command("show", sound, "--what", "units", "--units", f"labels:{tmp_path / 'cuts.txt'}", "-o", out).status == 0
    )
    assert "intro" in out.read_text()
    assert (
        command(
            "show", sound, "--what", "units", "--units", f"labels:{tmp_path / 'cuts.txt'}", "-o", out, "--start", "1.2"
        ).status
        == 0
    )
    text = out.read_text()
    assert "intro" not in text
    assert "verse" in text


def test_several_files_go_into_a_folder(sound: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "other.wav", texture(1, 5), RATE)
    assert command("show", sound, tmp_path / "other.wav", "-o", tmp_path / "pictures").status == 0
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {sound.stem + ".png", "other.png"}
    assert command("show", sound, "-o", str(tmp_path) + "/", "--end", "1").status == 0
    assert (tmp_path / (sound.stem + ".png")).exists()


def test_silence_and_a_click_can_be_drawn(tmp_path: Path) -> None:
    write_wav(tmp_path / "silence.wav", np.zeros(RATE, np.float32), RATE)
    write_wav(tmp_path / "click.wav", np.ones(3, np.float32), RATE)
    for name in ("silence.wav", "click.wav"):
        ran = command("show", tmp_path / name, "--what", "mel,mfcc,centroid,novelty,units", "-o", tmp_path / "out.png")
        assert ran.status == 0, (name, ran.error)


def test_refusals_say_what_to_do(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "either -o PICTURE.png or --window" in refusal("show", sound, status=2)
    assert "choose some of waveform,mel" in refusal(
        "show", sound, "--what", "melody", "-o", tmp_path / "a.png", status=2
    )
    assert "ends in .png" in refusal("show", sound, "-o", tmp_path / "a.wav", status=2)
    assert "no such folder" in refusal("show", sound, "-o", tmp_path / "no" / "a.png", status=2)
    assert "give a folder" in refusal("show", sound, tmp_path / "b.wav", "-o", tmp_path / "a.png", status=2)
    assert "must lie behind" in refusal("show", sound, "--start", "2", "--end", "1", "-o", tmp_path / "a.png", status=2)
    (tmp_path / "text.wav").write_text("no sound")
    assert "not audio" in refusal("show", tmp_path / "text.wav", "-o", tmp_path / "a.png")
    assert "this name" in refusal("show", sound, sound, "-o", tmp_path / "pictures", status=2)
    monkeypatch.setenv("MPLBACKEND", "agg")
    matplotlib.rcParams["backend"] = "agg"
    assert "no window can be opened here" in refusal("show", sound, "--window")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "pip install 'embedindex[plots]'" in refusal("show", sound, "-o", tmp_path / "a.png")
    assert not list(tmp_path.glob("*.png"))
