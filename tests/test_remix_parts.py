"""``--layers hp``: a seed's tones and hits, taken apart, remixed apart, put together again."""

from __future__ import annotations

import json
import os
import shutil
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from embedindex.arrays import Float32Array
from embedindex.remix.loudness import integrated_lufs, true_peak_db, unit_lufs
from embedindex.remix.outputs import read_recipe
from embedindex.remix.recipe import Recipe, from_json
from embedindex.remix.render import layer_blocks, mixed_blocks
from embedindex.remix.separation import BLOCK_S, separated, write_parts
from tests.command_line import command, refusal
from tests.indexing import write_samples
from tests.remixing import RATE, beat, samples_of, scan_spectral, texture, write_textures
from tests.sounds import noise, pad, sine, write_wav
from tests.test_remix_render import burst_db

# -- taking apart --------------------------------------------------------------------------------------------------


def parts_of(samples: Float32Array, rate: int = RATE, size: int = 20_000) -> tuple[Float32Array, Float32Array]:
    """Return (harmonic, percussive) of (n, channels) samples that come in blocks of `size`."""
    pieces = list(separated((samples[start : start + size] for start in range(0, len(samples), size)), rate))
    return np.concatenate([piece[0] for piece in pieces]), np.concatenate([piece[1] for piece in pieces])


def tone_and_hits(duration_s: float = 4.0) -> tuple[Float32Array, Float32Array, list[int]]:
    """Return a steady chord, bursts of noise, and where the bursts begin."""
    chord = (sine(440, duration_s, RATE, 0.3) + sine(660, duration_s, RATE, 0.2)).astype(np.float32)
    hits = np.zeros_like(chord)
    starts = [round((0.25 + 0.45 * number) * RATE) for number in range(int(duration_s / 0.45) - 1)]
    for number, start in enumerate(starts):
        hits[start : start + 800] += noise(800 / RATE, RATE, number) * np.exp(-np.arange(800) / 150).astype(np.float32)
    return chord, hits, starts


def level_db(samples: Float32Array) -> float:
    return 10 * float(np.log10(np.mean(np.square(samples.astype(np.float64)))))


def test_tones_go_to_one_part_and_hits_to_the_other() -> None:
    chord, hits, _ = tone_and_hits()
    harmonic, percussive = parts_of((chord + hits)[:, None])
    assert level_db(harmonic[:, 0] - chord) < level_db(chord) - 25
    assert level_db(percussive[:, 0] - hits) < level_db(hits) - 9


def test_the_parts_are_those_of_librosa() -> None:
    """With Fitzgerald's medians of 17, in frames as long as his."""
    librosa = pytest.importorskip("librosa")
    chord, hits, _ = tone_and_hits()
    samples = chord + hits + texture(4, 3)
    spectrum = librosa.stft(samples, n_fft=2048, hop_length=512)
    wanted = librosa.istft(librosa.decompose.hpss(spectrum, kernel_size=17, power=2.0)[0], length=len(samples))
    inner = slice(5000, -5000)
    found = parts_of(samples[:, None])[0][inner, 0]
    assert level_db(found - wanted[inner]) < level_db(wanted[inner]) - 30


@pytest.mark.parametrize(
    ("rate", "channels", "count"), [(44100, 2, 90_001), (RATE, 1, 1), (96_000, 3, 5000), (8000, 1, 700)]
)
def test_the_parts_add_up_to_the_sound_whatever_its_blocks(rate: int, channels: int, count: int) -> None:
    sound = np.random.default_rng(1).uniform(-1, 1, (count, channels)).astype(np.float32)
    harmonic, percussive = parts_of(sound, rate)
    assert harmonic.shape == percussive.shape == sound.shape
    assert np.abs(harmonic + percussive - sound).max() < 3e-7
    for size in (1000, 100_000):
        np.testing.assert_array_equal(parts_of(sound, rate, size)[0], harmonic)


def test_channels_share_a_mask_so_that_the_image_stays() -> None:
    chord, hits, _ = tone_and_hits(2.0)
    mono = chord + hits
    for part in parts_of(np.stack((mono, 0.25 * mono), 1)):
        np.testing.assert_allclose(part[:, 1], 0.25 * part[:, 0], atol=1e-6)


def test_memory_does_not_grow_with_the_seed() -> None:
    def peak(blocks: int) -> int:
        size = round(BLOCK_S * RATE)
        tracemalloc.start()
        for parts in separated((noise(BLOCK_S, RATE, number)[:, None] for number in range(blocks)), RATE):
            assert len(parts[0]) <= 2 * size
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(2)
    assert peak(30) < 1.2 * peak(6)


def test_a_seed_whose_parts_have_no_room_is_refused_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedindex.errors import DiskFullError

    path = write_samples(tmp_path / "seed.wav", texture(2, 1), RATE)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DiskFullError, match="TMPDIR"):
        write_parts(os.fsencode(path), str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["seed.wav"]


# -- remixing apart ------------------------------------------------------------------------------------------------


def seed_sound(duration_s: float = 6.0) -> tuple[Float32Array, list[float]]:
    """Return tones that become another chord after two and four seconds, under drums; and when the drums are hit."""
    drums, times = beat(duration_s, 77)
    chords = [pad(pitches, 2.0, RATE, 0.25) for pitches in ([220.0, 330.0], [880.0, 1320.0], [262.0, 392.0])]
    return (0.5 * drums + np.concatenate(chords)[: len(drums)]).astype(np.float32), times


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of drum loops and of pads, and a seed of both; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("parts")
    (folder / "library").mkdir()
    for number in range(8):
        drums = beat(6, number)[0] + noise(6, RATE, number, 0.003)
        write_samples(folder / "library" / f"drums{number}.wav", drums, RATE)
    for number, pitch in enumerate((196, 247, 294, 349, 392)):
        chord = sine(pitch, 6, RATE, 0.3) + sine(2 * pitch, 6, RATE, 0.1) + noise(6, RATE, number, 0.002)
        write_samples(folder / "library" / f"pad{number}.wav", chord.astype(np.float32), RATE)
    scan_spectral(str(folder / "index"), folder / "library")
    samples = seed_sound()[0]
    write_samples(folder / "seed.wav", np.stack((samples, 0.7 * samples), 1), RATE)
    return folder


@pytest.fixture(autouse=True)
def index_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDINDEX_INDEX", str(place / "index"))


def remix(place: Path, out: Path, *options: object) -> Recipe:
    out.parent.mkdir(exist_ok=True)
    ran = command("remix", place / "seed.wav", "-o", out, "--layers", "hp", "-q", *map(str, options))
    assert ran.status == 0, ran.error
    return read_recipe(str(out.with_suffix(".recipe.json")))


@pytest.fixture(scope="module")
def made(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Recipe, Path]]:
    """A remix with everything it can write, and its sound."""
    folder = tmp_path_factory.mktemp("made")
    out = folder / "out.wav"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBEDINDEX_INDEX", str(place / "index"))
        extras = ("--stems", folder / "stems", "--stems-by", "layer", "--rpp", folder / "out.rpp", "--events")
        yield remix(place, out, *extras), out


def names(recipe: Recipe, layer: int) -> Counter[str]:
    played: Counter[str] = Counter()
    for event in recipe.events:
        if event.layer == layer and event.source is not None:
            played[os.path.basename(os.fsdecode(recipe.sources[event.source].path))[:3]] += event.frames
    return played


def test_pads_stand_for_tones_and_drums_for_hits(made: tuple[Recipe, Path]) -> None:
    recipe, _ = made
    assert recipe.layers == 2
    pads, drums = names(recipe, 0), names(recipe, 1)
    assert pads["pad"] > 0.7 * sum(pads.values())
    assert drums["dru"] > 0.7 * sum(drums.values())


def test_each_part_is_cut_its_own_way(made: tuple[Recipe, Path]) -> None:
    recipe, _ = made
    assert recipe.options["units"] == "novelty + onset"
    starts = [[event.start / RATE for event in recipe.events if event.layer == layer] for layer in (0, 1)]
    assert all(min(abs(start - change) for start in starts[0]) < 0.15 for change in (2.0, 4.0))
    hits = seed_sound()[1]
    found = sum(min(abs(start - hit) for start in starts[1]) < 0.02 for hit in hits)
    assert found >= 0.8 * len(hits)
    assert len(starts[0]) < len(starts[1])


def test_length_loudness_and_ceiling_are_those_of_any_remix(place: Path, made: tuple[Recipe, Path]) -> None:
    """Rows 9 and 10 of the issue; each unit has the loudness of its part of the seed."""
    recipe, out = made
    seed, sound = samples_of(place / "seed.wav"), samples_of(out)
    assert sound.shape == seed.shape
    assert integrated_lufs(sound, RATE) == pytest.approx(integrated_lufs(seed, RATE), abs=0.5)
    assert true_peak_db(sound) <= -1
    assert np.abs(sound.mean(axis=0)).max() < 1e-3
    for layer, part in enumerate(parts_of(seed)):
        plain = np.concatenate(list(layer_blocks(recipe, layer)))
        errors = [
            abs(unit_lufs(plain, RATE, event.start, end) - unit_lufs(part, RATE, event.start, end))
            for event in recipe.events
            if event.layer == layer and event.source is not None and not event.clamped
            for end in [event.start + event.frames]
        ]
        assert len(errors) >= 3
        assert np.median(errors) <= 0.5
        assert np.quantile(errors, 0.95) <= 2


def test_hits_come_when_they_came(made: tuple[Recipe, Path]) -> None:
    """Row 10: onsets of the percussive layer, compared with mir_eval's measure written out."""
    from embedindex.remix.attacks import onsets_s
    from embedindex.remix.frames import describe

    recipe, _ = made
    plain = np.asarray(np.concatenate(list(layer_blocks(recipe, 1))).mean(axis=1), np.float32)
    found, wanted = onsets_s(describe(plain)), np.array(seed_sound()[1])
    near = np.abs(found[:, None] - wanted) <= 0.05
    precision, recall = near.any(axis=1).mean(), near.any(axis=0).mean()
    assert 2 * precision * recall / (precision + recall) >= 0.8


def test_render_repeats_it_and_threads_make_no_difference(
    place: Path, made: tuple[Recipe, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 12."""
    _, out = made
    assert command("render", out.with_suffix(".recipe.json"), "-o", tmp_path / "again.wav").status == 0
    assert (tmp_path / "again.wav").read_bytes() == out.read_bytes()
    for threads in (1, 5):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, threads=threads: range(threads), raising=False)
        remix(place, tmp_path / str(threads) / "out.wav")
        for name in ("out.wav", "out.recipe.json"):
            assert (tmp_path / str(threads) / name).read_bytes() == (out.parent / name).read_bytes()


def test_joins_in_both_layers_do_not_click(index: str, library: Path, tmp_path: Path) -> None:
    """Row 7: a library of tones; what stands out above 8 kHz at joins, against joins without a fade."""
    rate, rng = 44100, np.random.default_rng(3)
    for number in range(8):
        tone = 0.3 * np.sin(2 * np.pi * rng.uniform(80, 1000) * np.arange(2 * rate) / rate + rng.uniform(0, 6))
        write_samples(library / f"{number}.wav", tone.astype(np.float32), rate)
    scan_spectral(index, library)
    hits = np.zeros(3 * rate, np.float32)
    for start in range(5000, len(hits) - 5000, 20_000):
        hits[start : start + 2000] = noise(2000 / rate, rate, start) * np.linspace(1, 0, 2000, dtype=np.float32)
    write_samples(tmp_path / "seed.wav", sine(330, 3, rate, 0.3) + hits, rate)
    out = tmp_path / "out.wav"
    words = ("remix", tmp_path / "seed.wav", "-o", out, "--layers", "hp", "--units", "grid:500ms", "--index", index)
    assert command(*words, "-q").status == 0
    recipe = read_recipe(str(tmp_path / "out.recipe.json"))
    for layer in (0, 1):

        def bursts(fades: bool, layer: int = layer) -> float:
            events = [replace(event, fade=0, lead=0) if not fades else event for event in recipe.events]
            samples = np.concatenate(list(layer_blocks(replace(recipe, events=tuple(events)), layer)))[:, 0]
            joins = [event.start for event in recipe.events if event.layer == layer and not event.follows]
            return float(np.median([burst_db(samples, join, rate) for join in joins[1:]]))

        assert bursts(True) <= bursts(False) - 40


def test_stems_and_tracks_are_named_by_their_part(made: tuple[Recipe, Path]) -> None:
    import soundfile as sf

    recipe, out = made
    stems = out.parent / "stems"
    assert {path.name for path in stems.glob("*.wav")} == {"harmonic.wav", "percussive.wav"}
    total = sum(sf.read(path, always_2d=True)[0] for path in stems.glob("*.wav"))
    assert np.abs(total - np.concatenate(list(mixed_blocks(recipe)))).max() < 1e-6
    rpp = pytest.importorskip("rpp")
    tracks = rpp.loads((out.parent / "out.rpp").read_text()).findall(".//TRACK")
    rows = [{row[0]: row[1] for row in track if row[0] in ("NAME", "VOLPAN")} for track in tracks]
    assert [row["NAME"] for row in rows] == ["harmonic", "percussive"]
    assert [float(row["VOLPAN"]) for row in rows] == [1, 1]


def test_the_picture_names_the_parts(made: tuple[Recipe, Path]) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from embedindex.remix.picture import _strips, colours_of

    axes = Figure().subplots()
    _strips(axes, made[0], colours_of(made[0]))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["harmonic", "percussive"]


def test_each_part_is_merged_with_its_own(place: Path, tmp_path: Path) -> None:
    """By the ups and downs of the part, not of all of the seed; and the recipe gives the same bytes again."""
    out = tmp_path / "out.wav"
    recipe = remix(place, out, "--morph", "envelope", "--units", "grid:500ms")
    starts = [[event.start for event in recipe.events if event.layer == layer] for layer in (0, 1)]
    assert starts[0] == starts[1] == [round(0.5 * number * RATE) for number in range(12)]  # what is asked for
    assert command("render", tmp_path / "out.recipe.json", "-o", tmp_path / "again.wav").status == 0
    assert out.read_bytes() == (tmp_path / "again.wav").read_bytes()
    ready = replace(recipe, parts=write_parts(os.fsencode(place / "seed.wav"), str(tmp_path)))

    def ups(samples: Float32Array) -> Float32Array:
        energy = np.square(samples.mean(axis=1))
        return np.asarray(np.log(energy[: len(energy) // 500 * 500].reshape(-1, 500).mean(axis=1) + 1e-7))

    made = [ups(np.concatenate(list(layer_blocks(ready, layer)))) for layer in (0, 1)]
    parts = [ups(part) for part in parts_of(samples_of(place / "seed.wav"))]
    for layer in (0, 1):
        own, other = (np.corrcoef(made[layer], parts[number])[0, 1] for number in (layer, 1 - layer))
        assert own > max(0.7, other + 0.3)


def test_tails_of_one_part_ring_while_the_other_is_silent(place: Path, tmp_path: Path) -> None:
    recipe = remix(place, tmp_path / "out.wav", "--morph", "ir", "--tail", "ring")
    assert recipe.output.frames > 6 * RATE
    assert len(samples_of(tmp_path / "out.wav")) == recipe.output.frames
    change = ("--recipe", tmp_path / "out.recipe.json", "--reroll", "p1", "--morph", "ir", "--tail", "ring")
    assert remix(place, tmp_path / "again.wav", *change).output == recipe.output


def test_a_copy_of_the_seed_stays_out(index: str, library: Path, tmp_path: Path) -> None:
    """Of the whole seed: no part of it looks like the copy."""
    write_textures(library, 4)
    samples = texture(5, 900)
    write_wav(library / "copy.wav", 0.4 * samples, RATE)
    scan_spectral(index, library)
    seed = write_samples(tmp_path / "seed.wav", samples, RATE)
    ran = command("remix", seed, "-o", tmp_path / "out.wav", "--layers", "hp", "--index", index)
    assert ran.status == 0
    assert "copy.wav: left out: it is a copy of the seed" in ran.error
    recipe = read_recipe(str(tmp_path / "out.recipe.json"))
    assert not any(source.path.endswith(b"copy.wav") for source in recipe.sources)


@pytest.mark.parametrize("sound", ["tone", "silence", "short", "surround"])
def test_odd_seeds_are_remixed_to_the_frame(place: Path, tmp_path: Path, sound: str) -> None:
    samples = {
        "tone": sine(300, 3, RATE),
        "silence": np.zeros(RATE, np.float32),
        "short": texture(0.05, 1),
        "surround": np.stack([texture(1, number) for number in range(6)], 1),
    }[sound]
    seed = write_samples(tmp_path / "own.wav", samples, RATE)
    assert command("remix", seed, "-o", tmp_path / "out.wav", "--layers", "hp", "-q").status == 0
    assert len(samples_of(tmp_path / "out.wav")) == len(samples)


def test_recipes_of_the_first_version_are_read(made: tuple[Recipe, Path], tmp_path: Path) -> None:
    """They had no parts."""
    _, out = made
    data = json.loads(out.with_suffix(".recipe.json").read_text())
    assert data["version"] == 2
    del data["output"]["split"]
    old = from_json(json.dumps({**data, "version": 1}), "old.json")
    assert old.output.split == ""
    np.testing.assert_allclose(
        np.concatenate(list(mixed_blocks(old))) * np.sqrt(2), np.concatenate(list(mixed_blocks(made[0]))), atol=1e-6
    )


def test_wrong_layers_are_refused(place: Path, tmp_path: Path, made: tuple[Recipe, Path]) -> None:
    words = ("remix", place / "seed.wav", "-o", tmp_path / "out.wav")
    for wrong in ("0", "9", "x", "", "hp2", "-1"):
        assert "--layers" in refusal(*words, f"--layers={wrong}", status=2)
    change = ("--recipe", made[1].with_suffix(".recipe.json"))
    assert "give the same" in refusal(*words, *change, "--reroll", "1", status=2)
    for wrong in ("1", "x1", "h99", "p", "", "h1,,p2"):
        assert "--lock" in refusal(*words, "--layers", "hp", *change, "--lock", wrong, status=2)
    assert not list(tmp_path.iterdir())


def test_units_of_one_part_are_chosen_again(place: Path, made: tuple[Recipe, Path], tmp_path: Path) -> None:
    first, out = made
    change = ("--recipe", out.with_suffix(".recipe.json"), "--reroll", "h1,p2-3")
    second = remix(place, tmp_path / "out.wav", *change)

    def played(recipe: Recipe) -> list[tuple[int, int, bytes | None, int, float]]:
        return [
            (
                event.layer,
                event.start,
                None if event.source is None else recipe.sources[event.source].path,
                event.source_start,
                event.gain_db,
            )
            for event in recipe.events
        ]

    old, new = played(first), played(second)
    changed = [number for number, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
    tones = sum(event.layer == 0 for event in first.events)
    assert changed == [1, tones + 2, tones + 3]
    assert command("render", tmp_path / "out.recipe.json", "-o", tmp_path / "again.wav").status == 0
    assert (tmp_path / "again.wav").read_bytes() == (tmp_path / "out.wav").read_bytes()
