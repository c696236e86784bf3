"""Rendering: sample-exact sources, fades that keep the level and spare attacks, the ceiling, files whole or not."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from embedindex.arrays import Float32Array
from embedindex.errors import QueryError, UsageError
from embedindex.remix.align import attack_free_frames, place, tail_frames
from embedindex.remix.crossfades import faded
from embedindex.remix.loudness import integrated_lufs, true_peak_db, unit_lufs
from embedindex.remix.master import smallest_nearby, write_master
from embedindex.remix.outputs import read_recipe, write_whole
from embedindex.remix.recipe import Event, Output, Recipe, Source, from_json, to_json
from embedindex.remix.render import layer_blocks, mixed_blocks, rebatched
from embedindex.remix.spans import SpanReader, read_span, with_channels
from tests.remixing import RATE, samples_of, texture
from tests.sounds import encode, noise, sine, write_wav


def sum_of_faded(old: Float32Array, new: Float32Array) -> Float32Array:
    out, into = faded(old, new)
    return (out + into).astype(np.float32)


def source(path: Path, rate: int = RATE, channels: int = 1) -> Source:
    stat = path.stat()
    from embedindex.embed import hash_content

    return Source(
        os.fsencode(path), stat.st_size, stat.st_mtime_ns, hash_content(str(path)).hex(), rate, channels, artist="Ann"
    )


def recipe_of(paths: list[Path], events: list[Event], rate: int = RATE, channels: int = 1, **output: object) -> Recipe:
    frames = max(event.start + event.frames for event in events)
    made = Output(rate, channels, frames, None, **output)  # type: ignore[arg-type]
    sources = tuple(source(path, rate) for path in paths)
    return Recipe(sources[0], made, sources, tuple(events))


def rendered(recipe: Recipe) -> Float32Array:
    return np.concatenate(list(mixed_blocks(recipe)))


# -- spans ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".m4a", ".ogg"])
def test_spans_are_those_of_the_whole_decoded_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"sound{suffix}"
    encode(path, texture(3, 1, 44100), 44100)
    whole = samples_of(path)
    for start, lead in ((0, 0), (5000, 1000), (44100, 300), (500, 2000)):
        found, rate = read_span(os.fsencode(path), start, lead, 9000, 44100, 1)
        assert rate == 44100
        padded = np.pad(whole, ((2000, 9000), (0, 0)))
        np.testing.assert_array_equal(found, padded[2000 + start - lead : 2000 + start - lead + 9000])


@pytest.mark.parametrize(("native", "out"), [(48000, 44100), (44100, 48000), (96000, 44100), (22050, 44100)])
def test_spans_at_another_rate_lie_where_they_belong(tmp_path: Path, native: int, out: int) -> None:
    """A tone read from any frame on has the phase that it has there."""
    path = tmp_path / "tone.wav"
    write_wav(path, sine(997, 2, native), native)
    for start in (1, 777, 12345):
        found, _ = read_span(os.fsencode(path), start, 100, 4000, out, 1)
        first = 100 if start < 2000 else 0
        time_s = start / native + (np.arange(4000) - 100) / out
        wanted = np.where(time_s >= 0, 0.5 * np.sin(2 * np.pi * 997 * time_s), 0)
        assert np.abs(found[first + 200 :, 0] - wanted[first + 200 :]).max() < 2e-3


def test_a_file_that_stops_in_full_sound_is_faded_out(tmp_path: Path) -> None:
    path = tmp_path / "cut.wav"
    write_wav(path, np.full(5000, 0.5, np.float32), RATE)
    reader = SpanReader(os.fsencode(path), 1000, 0, 8000, RATE, 1)
    parts = np.concatenate([reader.read(1000) for _ in range(8)])[:, 0]
    reader.close()
    assert np.abs(np.diff(parts)).max() < 0.02
    assert (parts[:3800] == 0.5).all()
    assert (parts[4000:] == 0).all()


def test_surround_is_mixed_down_as_the_standard_has_it() -> None:
    samples = np.eye(6, dtype=np.float32)  # L R C LFE Ls Rs
    half = np.sqrt(0.5)
    np.testing.assert_allclose(
        with_channels(samples, 2), [[1, 0], [0, 1], [half, half], [0, 0], [half, 0], [0, half]], atol=1e-6
    )
    assert with_channels(samples[:, :1], 2).shape == (6, 2)


# -- crossfades ----------------------------------------------------------------------------------------------------


def test_the_same_sound_crossfaded_is_the_same_sound() -> None:
    samples = noise(0.05, RATE, 1)[:, None]
    np.testing.assert_allclose(sum_of_faded(samples, samples), samples, atol=1e-6)


def test_sounds_with_nothing_in_common_keep_their_power() -> None:
    count, length = 400, 660
    rng = np.random.default_rng(3)
    pairs = rng.standard_normal((2, count, length, 1)).astype(np.float32)
    power = np.mean([np.square(sum_of_faded(*pairs[:, number])) for number in range(count)], axis=0)[:, 0]
    smooth = np.convolve(power, np.full(60, 1 / 60), "valid")
    assert np.abs(10 * np.log10(smooth)).max() < 0.5


@pytest.mark.parametrize("alike", [0.3, 0.6, 0.9])
def test_sounds_that_are_partly_alike_keep_their_power(alike: float) -> None:
    rng = np.random.default_rng(4)
    power = np.zeros(660)
    for _ in range(300):
        a, b = rng.standard_normal((2, 660, 1)).astype(np.float32)
        mixed = sum_of_faded(a, (alike * a + np.sqrt(1 - alike**2) * b).astype(np.float32))
        power += np.square(mixed[:, 0]) / 300
    assert np.abs(10 * np.log10(np.convolve(power, np.full(60, 1 / 60), "valid"))).max() < 0.6


def test_fades_are_over_before_an_attack() -> None:
    quiet = noise(0.012, 44100, 1, 0.001)
    samples = np.concatenate((quiet, noise(0.1, 44100, 2, 0.5)))[:, None]
    free = attack_free_frames(samples, 44100)
    assert len(quiet) - 2.1 * 44.1 <= free <= len(quiet) - 0.9 * 44.1
    assert attack_free_frames(noise(0.1, 44100, 3)[:, None], 44100) == round(0.015 * 44100)


def burst_db(samples: Float32Array, join: int, rate: int) -> float:
    """Return by how much the sound above 8 kHz at a join stands above that around it."""
    spectrum = np.fft.rfft(samples)
    spectrum[: int(8000 * len(samples) / rate)] = 0
    high = np.abs(np.fft.irfft(spectrum, len(samples)))
    at = high[join - round(0.02 * rate) : join + round(0.02 * rate)].max()
    around = np.concatenate((high[join - 4000 : join - 2000], high[join + 2000 : join + 4000])).max()
    return float(20 * np.log10(at / max(around, 1e-9)))


@pytest.mark.parametrize("attack_ms", [-3, -1, 2, 8, 13])
def test_fades_are_over_before_the_next_hit_of_the_sound_that_ends(attack_ms: int) -> None:
    rate = 44100
    sound = sine(200, 1.0, rate, 0.02)[:, None]
    end, attack = rate // 2, rate // 2 + attack_ms * rate // 1000
    sound[attack:] += noise(1, rate, 1, 0.4)[: len(sound) - attack, None]
    tail = tail_frames(sound, end, rate)
    assert max(end, attack - 0.006 * rate) <= end + tail <= max(end, attack)
    assert tail_frames(sine(200, 1.0, rate, 0.02)[:, None], end, rate) == round(0.015 * rate)


def test_joins_of_pure_tones_do_not_click(tmp_path: Path) -> None:
    rate, unit = 44100, 11025
    rng = np.random.default_rng(5)
    paths = []
    for number in range(12):
        path = tmp_path / f"tone{number}.wav"
        phase = rng.uniform(0, 2 * np.pi)
        tone = 0.3 * np.sin(2 * np.pi * rng.uniform(80, 1000) * np.arange(rate) / rate + phase)
        write_wav(path, tone.astype(np.float32), rate)
        paths.append(path)

    def joined(fade: int) -> list[float]:
        events = [Event(number * unit, unit, number, 10_000, fade=fade, lead=fade // 2) for number in range(len(paths))]
        samples = rendered(recipe_of(paths, events, rate))[:, 0]
        return [burst_db(samples, number * unit, rate) for number in range(1, 11)]

    assert np.median(joined(0)) - np.median(joined(1323)) >= 40


# -- recipes -------------------------------------------------------------------------------------------------------


def test_events_that_follow_each_other_are_the_file_itself(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    write_wav(path, texture(2, 1), RATE)
    bounds = [0, 5000, 5001, 30000, 2 * RATE]
    events = [
        Event(first, last - first, 0, first, fade=min(100, last - first), lead=0, follows=first > 0)
        for first, last in pairwise(bounds)
    ]
    np.testing.assert_array_equal(rendered(recipe_of([path], events)), samples_of(path))


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(300, 40_000), st.integers(0, 2), st.booleans()), min_size=1, max_size=8))
def test_any_recipe_has_exactly_its_length_and_no_gaps(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[int, int, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("recipe")
    paths = [folder / f"{number}.wav" for number in range(3)]
    for number, path in enumerate(paths):
        write_wav(path, np.full(60_000, 0.5, np.float32), (RATE, RATE, 44100)[number])
    events: list[Event] = []
    position = 0
    for frames, number, silent in parts:
        fade = min(661, frames // 4, events[-1].frames // 4 if events else frames)
        events.append(Event(position, frames, None if silent else number, 100 * number, fade=fade, lead=fade // 2))
        position += frames
    recipe = recipe_of(paths, events)
    samples = rendered(recipe)
    assert samples.shape == (position, 1)
    assert np.isfinite(samples).all()
    for event in events:
        middle = samples[event.start + event.frames // 2, 0]
        if event.source is None:
            assert middle == 0
        elif event.source_start + event.frames < 59_000:
            assert middle == pytest.approx(0.5, abs=2e-3)


def test_gains_glide_between_events_of_one_run(tmp_path: Path) -> None:
    path = tmp_path / "flat.wav"
    write_wav(path, np.full(30_000, 0.1, np.float32), RATE)
    events = [Event(0, 10_000, 0, 0), Event(10_000, 10_000, 0, 10_000, 6.0, fade=600, follows=True)]
    samples = rendered(recipe_of([path], events))[:, 0]
    assert samples[9000] == pytest.approx(0.1)
    assert samples[11000] == pytest.approx(0.1 * 10 ** (6 / 20), rel=1e-5)
    assert np.abs(np.diff(samples)).max() < 0.001


def test_layers_and_the_seed_are_mixed(tmp_path: Path) -> None:
    paths = [tmp_path / "a.wav", tmp_path / "b.wav"]
    write_wav(paths[0], np.full(9000, 0.2, np.float32), RATE)
    write_wav(paths[1], np.full(9000, 0.4, np.float32), RATE)
    events = [Event(0, 9000, 0, 0), Event(0, 9000, 1, 0, layer=1)]
    samples = rendered(recipe_of(paths, events))[:, 0]
    np.testing.assert_allclose(samples, 0.6 / np.sqrt(2), rtol=1e-5)
    dry = rendered(recipe_of(paths, [Event(0, 9000, 1, 0)], dry_wet="0.25"))[:, 0]
    np.testing.assert_allclose(dry, 0.25 * 0.4 + 0.75 * 0.2, rtol=1e-5)


def test_a_recipe_comes_back_from_its_json_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, noise(1, RATE), RATE)
    odd = replace(source(path), path=b"/x/\xff.wav", title="é")
    events = (Event(0, 10, 0, 7, -1.234, 5, 2, alternates=(("/x", 0.1, 2.0),)), Event(10, 5, 1, 3))
    recipe = Recipe(odd, Output(RATE, 1, 15, -20.1), (odd, source(path)), events, {"match": "1"}, {}, ("note",))
    assert from_json(to_json(recipe), "x") == recipe


@pytest.mark.parametrize(
    "change",
    [
        {"events": [{"start": 5, "frames": 10}]},
        {"events": [{"start": 0, "frames": 15, "source": 3}]},
        {"events": [{"start": 0, "frames": 15, "nonsense": 3}]},
        {"events": [{"start": 0, "frames": 15, "source_start": -1}]},
        {"version": 99},
        {"format": "something"},
        {"sources": None},
    ],
)
def test_broken_recipes_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    import json

    path = tmp_path / "a.wav"
    write_wav(path, noise(1, RATE), RATE)
    text = to_json(recipe_of([path], [Event(0, 15, 0, 0)]))
    with pytest.raises(UsageError, match=r"odd\.json"):
        from_json(json.dumps({**json.loads(text), **change}), "odd.json")
    with pytest.raises(UsageError, match="is no recipe"):
        from_json("{", "odd.json")


def test_changed_and_missing_sources_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, noise(1, RATE), RATE)
    recipe = tmp_path / "x.recipe.json"
    write_whole(str(recipe), [to_json(recipe_of([path], [Event(0, 15, 0, 0)])).encode()])
    os.utime(path, ns=(5, 5))  # touched only
    read_recipe(str(recipe))
    write_wav(path, noise(1, RATE, 9), RATE)
    with pytest.raises(QueryError, match="has changed"):
        read_recipe(str(recipe))
    path.unlink()
    with pytest.raises(QueryError, match="no such file"):
        read_recipe(str(recipe))


# -- alignment -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off_s", [-0.010, -0.003, 0.0, 0.007])
def test_the_same_sound_is_laid_on_itself_to_the_sample(tmp_path: Path, off_s: float) -> None:
    path = tmp_path / "sound.wav"
    samples = texture(2, 3, 44100)
    write_wav(path, samples, 44100)
    start, frames, lead = 30_000, 12_000, 2646
    around = samples[start - lead : start + frames, None]
    found = place(os.fsencode(path), start / 44100 + off_s, around, lead, frames, 44100, None)
    assert found.start == start
    assert found.gain_db == pytest.approx(0, abs=1e-6)
    assert not found.clamped


def test_attacks_of_different_sounds_fall_together(tmp_path: Path) -> None:
    path = tmp_path / "hit.wav"
    hit = noise(0.3, 44100, 1) * np.exp(-np.arange(13230) / 3000).astype(np.float32)
    write_wav(path, np.concatenate((noise(0.1, 44100, 5, 1e-4), hit)), 44100)
    tone = sine(330, 0.2, 44100) * np.exp(-np.arange(8820) / 2000).astype(np.float32)
    lead, before = 2646, 220  # the attack comes 5 ms after the start of the unit
    unit = np.concatenate((np.zeros(lead + before, np.float32), tone))[:, None]
    for off_s in (-0.012, 0.0, 0.012):
        found = place(os.fsencode(path), 0.095 + off_s, unit, lead, before + 8820, 44100, 0.005)
        assert (4410 - found.start) / 44100 == pytest.approx(0.005, abs=0.002)


@pytest.mark.parametrize(("level_db", "clamped"), [(-8.0, False), (6.0, False), (-30.0, True)])
def test_levels_are_matched_within_12_db(tmp_path: Path, level_db: float, clamped: bool) -> None:
    path = tmp_path / "sound.wav"
    samples = texture(2, 4, 44100) * 0.3
    write_wav(path, (samples * 10 ** (level_db / 20)).astype(np.float32), 44100)
    lead, frames = 2646, 12_000
    unit = noise(0.5, 44100, 2, 0.05)[: lead + frames, None]
    found = place(os.fsencode(path), 0.5, unit, lead, frames, 44100, None)
    assert found.clamped == clamped
    if not clamped:
        span, _ = read_span(os.fsencode(path), found.start, lead, lead + frames, 44100, 1)
        played = unit_lufs(span * 10 ** (found.gain_db / 20), 44100, lead, lead + frames)
        assert played == pytest.approx(unit_lufs(unit, 44100, lead, lead + frames), abs=0.05)
    else:
        assert found.gain_db == 12


# -- mastering -----------------------------------------------------------------------------------------------------


def blocks_of(samples: Float32Array, size: int = 5000) -> list[Float32Array]:
    return [samples[start : start + size] for start in range(0, len(samples), size)]


@pytest.mark.parametrize("bits", ["24", "float"])
@pytest.mark.parametrize("lufs", [-14.0, -23.0, None])
def test_loudness_is_reached_below_the_ceiling(tmp_path: Path, bits: str, lufs: float | None) -> None:
    samples = np.repeat(texture(8, 5, 44100)[:, None] * 1.9, 2, axis=1)
    path = tmp_path / "out.wav"
    written = write_master(str(path), iter(blocks_of(samples)), Output(44100, 2, len(samples), lufs), bits)
    back = samples_of(path)
    assert back.shape == samples.shape
    assert true_peak_db(back) <= -1.0
    assert written.true_peak_db == pytest.approx(true_peak_db(back), abs=1e-3)
    if lufs is not None:
        assert integrated_lufs(back, 44100) == pytest.approx(lufs, abs=0.5)
    assert sf.info(path).subtype == ("PCM_24" if bits == "24" else "FLOAT")


def test_the_ceiling_holds_for_peaks_between_samples(tmp_path: Path) -> None:
    soxr = pytest.importorskip("soxr")
    time = np.arange(44100)
    samples = (1.2 * np.sin(2 * np.pi * time / 4 + np.pi / 4) * np.hanning(44100))[:, None].astype(np.float32)
    path = tmp_path / "out.wav"
    write_master(str(path), iter(blocks_of(samples)), Output(44100, 1, len(samples), None), "float")
    over = soxr.resample(samples_of(path), 1, 4, quality="VHQ")
    assert 20 * np.log10(np.abs(over).max()) <= -0.95


def test_what_needs_no_limiting_is_not_touched(tmp_path: Path) -> None:
    samples = texture(5, 6)[:, None]
    path = tmp_path / "out.wav"
    write_master(str(path), iter(blocks_of(samples)), Output(RATE, 1, len(samples), None), "float")
    np.testing.assert_array_equal(samples_of(path), samples)


def test_an_offset_is_removed(tmp_path: Path) -> None:
    samples = (texture(5, 6) * 0.5 + 0.1)[:, None].astype(np.float32)
    path = tmp_path / "out.wav"
    write_master(str(path), iter(blocks_of(samples)), Output(RATE, 1, len(samples), -20.0))
    assert abs(samples_of(path).mean()) < 1e-3


def test_a_limiter_that_works_hard_leaves_no_offset(tmp_path: Path) -> None:
    """Its sound has narrow peaks on one side and a mean of nothing; taking the peaks off moves the mean."""
    phase = 2 * np.pi * 80 * np.arange(4 * RATE) / RATE
    samples = np.exp(6 * np.sin(phase)) / np.exp(6)
    samples = (samples - samples.mean())[:, None].astype(np.float32) * (1 + 0.5 * np.sin(phase / 40))[:, None]
    output = Output(RATE, 1, len(samples), -9.0)
    written = write_master(str(tmp_path / "a.wav"), iter([samples.astype(np.float32)]), output, "float")
    made = samples_of(tmp_path / "a.wav")
    assert written.limited_db > 3
    assert abs(float(made.mean(dtype=np.float64))) < 1e-3
    assert made.mean(dtype=np.float64) == pytest.approx(written.mean[0], abs=1e-6)
    assert true_peak_db(made) <= -1


def test_blocks_of_any_size_give_the_same_file(tmp_path: Path) -> None:
    samples = np.repeat(texture(6, 8, 44100)[:, None] * 3, 2, axis=1)
    output = Output(44100, 2, len(samples), -12.0)
    paths = [tmp_path / "a.wav", tmp_path / "b.wav"]
    for path, size in zip(paths, (1000, 300_000), strict=True):
        write_master(str(path), rebatched(iter(blocks_of(samples, size)), 65536), output, "float")
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def failing() -> object:
        yield np.zeros((1000, 1), np.float32)
        raise QueryError("gone")

    path = tmp_path / "out.wav"
    with pytest.raises(QueryError):
        write_master(str(path), failing(), Output(RATE, 1, 2000, None))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.mp3", "out", "no/such/folder.wav"])
def test_impossible_outputs_are_refused_at_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        write_master(str(tmp_path / name), iter(()), Output(RATE, 1, 0, None))


@settings(max_examples=30)
@given(st.integers(1, 60), st.integers(0, 20), st.integers(0, 10**6))
def test_smallest_nearby_is_what_it_says(count: int, half: int, seed: int) -> None:
    values = np.random.default_rng(seed).random(count)
    wanted = [values[max(0, i - half) : i + half + 1].min() for i in range(count)]
    np.testing.assert_array_equal(smallest_nearby(values, half), wanted)


def test_silence_is_written_as_silence(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, noise(1, RATE), RATE)
    recipe = recipe_of([path], [Event(0, 9000)])
    assert sum(map(len, layer_blocks(recipe, 0))) == 9000
    out = tmp_path / "out.flac"
    write_master(str(out), mixed_blocks(recipe), replace(recipe.output, lufs=-16.0))
    assert not samples_of(out).any()
