"""Merging: convolution is convolution, nothing goes dark or loud, tails go where they are told, recipes repeat."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedindex.arrays import Float32Array
from embedindex.remix.align import MARGIN_S
from embedindex.remix.compose import Sound
from embedindex.remix.loudness import integrated_lufs, true_peak_db, unit_lufs
from embedindex.remix.master import write_master
from embedindex.remix.morph import MODES, TAILED, convolve, morph
from embedindex.remix.options import RemixOptions, always
from embedindex.remix.recipe import from_json, to_json
from embedindex.remix.render import mixed_blocks
from embedindex.remix.units import parse_units
from tests.indexing import write_samples
from tests.remixing import RATE, beat, remix, samples_of, scan_spectral, texture, write_textures
from tests.sounds import noise, sine

REAL = [mode for mode in MODES if mode != "none"]


def stereo(samples: Float32Array) -> Float32Array:
    return np.stack((samples, samples[::-1]), 1)


def centroid_hz(samples: Float32Array) -> float:
    power = np.abs(np.fft.rfft(samples[:, 0]))
    return float((power * np.fft.rfftfreq(len(samples), 1 / RATE)).sum() / power.sum())


@settings(max_examples=25)
@given(st.integers(1, 5000), st.integers(1, 3000), st.integers(0, 100))
def test_convolution_is_direct_convolution(count: int, taps: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    signal, response = rng.standard_normal((count, 2)), rng.standard_normal((taps, 2))
    made = convolve(signal, response)
    for channel in range(2):
        wanted = np.convolve(signal[:, channel], response[:, channel])
        assert np.abs(made[:, channel] - wanted).max() <= 1e-6 * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize("mode", REAL)
def test_every_mode_keeps_length_level_and_gives_numbers(mode: str) -> None:
    own, other = stereo(texture(1.0, 1)), stereo(0.05 * texture(1.0, 2))
    made = morph(own, other, mode, 1.0, RATE)
    assert len(made) == (2 * len(own) - 1 if mode in TAILED else len(own))
    assert np.isfinite(made).all()
    assert np.square(made[: len(own)]).sum() == pytest.approx(np.square(own).sum(), rel=1e-3)
    assert not np.allclose(made[: len(own)] / made.std(), other / other.std(), atol=0.1)


@pytest.mark.parametrize("mode", REAL)
def test_amount_zero_is_the_other_sound_alone(mode: str) -> None:
    own, other = stereo(texture(0.7, 3)), stereo(texture(0.7, 4))
    made = morph(own, other, mode, 0.0, RATE)[: len(own)]
    scale = np.sqrt(np.square(own).sum() / np.square(other).sum())
    np.testing.assert_allclose(made, other * scale, atol=2e-3)


@pytest.mark.parametrize("mode", REAL)
@pytest.mark.parametrize("samples", [1, 30, 700])
def test_the_shortest_and_silent_sounds_go_through(mode: str, samples: int) -> None:
    own, other = stereo(noise(1, RATE)[:samples]), np.zeros((samples, 2), np.float32)
    for a, b in ((own, other), (other, own), (other, other)):
        assert np.isfinite(morph(a, b, mode, 1.0, RATE)).all()


def test_convolution_does_not_go_dark() -> None:
    """Plain convolution of two sounds multiplies their spectra, and both fall off: the whitened one keeps its highs."""
    pairs = [(stereo(texture(0.8, 10 + n)), stereo(texture(0.8, 30 + n))) for n in range(6)]
    own = np.median([centroid_hz(a) for a, _ in pairs])
    plain = np.median([centroid_hz(convolve(a.astype(float), b.astype(float)).astype(np.float32)) for a, b in pairs])
    ours = np.median([centroid_hz(morph(a, b, "ir", 1.0, RATE)) for a, b in pairs])
    assert plain < 0.75 * own
    assert ours > 1.25 * plain


def test_an_impulse_changes_nothing_but_time() -> None:
    own = stereo(texture(0.5, 5))
    click = np.zeros_like(own)
    click[100] = 1
    made = morph(own, click, "ir", 1.0, RATE)
    shifted = made[100 : len(own)] / np.abs(made[100 : len(own)]).max()
    np.testing.assert_allclose(shifted, own[:-100] / np.abs(own[:-100]).max(), atol=0.02)


def test_envelopes_are_handed_over() -> None:
    ramp = np.linspace(0.05, 1, RATE)
    own = stereo((sine(300, 1, RATE) * ramp).astype(np.float32))
    flat = np.repeat(noise(1, RATE)[:, None], 2, axis=1)
    made = morph(np.repeat(own[:, :1], 2, axis=1), flat, "envelope", 1.0, RATE)
    level = np.sqrt(np.square(made[:, 0]).reshape(10, -1).mean(axis=1))
    assert level[9] / level[0] == pytest.approx(ramp[-RATE // 10 :].mean() / ramp[: RATE // 10].mean(), rel=0.15)


@pytest.mark.parametrize("mode", ["vocoder", "spectral-envelope", "geomean"])
def test_colours_move_towards_the_seed(mode: str) -> None:
    bright, dark = stereo(noise(1, RATE, 1)), stereo(np.cumsum(noise(1, RATE, 2, 0.01)).astype(np.float32))
    dark -= dark.mean(axis=0)
    assert centroid_hz(morph(bright, dark, mode, 1.0, RATE)) > 1.5 * centroid_hz(dark)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("morph")
    write_textures(folder / "library", 6, duration_s=4.0, first_seed=200)
    for number in range(2):
        write_samples(folder / "library" / f"beat{number}.wav", beat(4, number)[0], RATE)
    scan_spectral(str(folder / "index"), folder / "library")
    write_samples(folder / "seed.wav", texture(3, 1), RATE)
    return folder


GRID = RemixOptions(cutting=parse_units("grid:500ms"))


@pytest.mark.parametrize("amount", [0.5, 1.0])
@pytest.mark.parametrize("mode", REAL)
def test_every_mode_is_level_below_the_ceiling_and_repeatable(
    place: Path, tmp_path: Path, mode: str, amount: float
) -> None:
    """Rows 9 and 12 of the issue."""
    recipe = remix(str(place / "index"), place / "seed.wav", GRID, Sound(morph=mode, amount=always(amount)))
    out = tmp_path / "out.wav"
    write_master(str(out), mixed_blocks(recipe), recipe.output, "float")
    made, seed = samples_of(out), samples_of(place / "seed.wav")
    assert made.shape == seed.shape
    assert true_peak_db(made) <= -1
    assert integrated_lufs(made, RATE) == pytest.approx(integrated_lufs(seed, RATE), abs=0.5)
    assert np.abs(made.mean(axis=0)).max() < 1e-3
    plain = np.concatenate(list(mixed_blocks(recipe)))
    errors = [
        abs(
            unit_lufs(plain, RATE, event.start, event.start + event.frames)
            - unit_lufs(seed, RATE, event.start, event.start + event.frames)
        )
        for event in recipe.events
        if not event.clamped
    ]
    assert len(errors) >= 3
    assert np.median(errors) <= 0.5
    assert np.quantile(errors, 0.95) <= 2
    again = np.concatenate(list(mixed_blocks(from_json(to_json(recipe), "x"))))
    np.testing.assert_array_equal(again, plain)


@pytest.mark.parametrize("amount", [0.5, 1.0])
@pytest.mark.parametrize("mode", REAL)
def test_morphed_joins_do_not_click(tmp_path: Path, index: str, library: Path, mode: str, amount: float) -> None:
    """Row 7: tones through every mode; what stands out above 8 kHz at joins, against joins without a fade."""
    from tests.test_remix_render import burst_db

    rate, rng = 44100, np.random.default_rng(3)
    for number in range(8):
        tone = 0.3 * np.sin(2 * np.pi * rng.uniform(80, 1000) * np.arange(2 * rate) / rate + rng.uniform(0, 6))
        write_samples(library / f"{number}.wav", tone.astype(np.float32), rate)
    scan_spectral(index, library)
    seed = write_samples(tmp_path / "seed.wav", sine(330, 3, rate, 0.3), rate)
    recipe = remix(index, seed, GRID, Sound(morph=mode, amount=always(amount)))

    def bursts(fades: bool) -> float:
        events = recipe.events if fades else tuple(replace(event, fade=0, lead=0) for event in recipe.events)
        samples = np.concatenate(list(mixed_blocks(replace(recipe, events=events))))[:, 0]
        return float(np.median([burst_db(samples, event.start, rate) for event in recipe.events[1:]]))

    hard, soft = bursts(False), bursts(True)
    assert soft <= max(hard - 40, 3.0)  # grains hide even a hard cut: then nothing may stand out


@pytest.mark.parametrize("tail", ["truncate", "overlap", "ring"])
def test_tails_go_where_they_are_told(place: Path, tail: str) -> None:
    sound = Sound(morph="ir", tail=tail, amount=always(1.0))
    recipe = remix(str(place / "index"), place / "seed.wav", GRID, sound)
    made = np.concatenate(list(mixed_blocks(recipe)))
    longer = RATE // 2 + 3 * round(MARGIN_S * RATE) if tail == "ring" else 0
    assert len(made) == recipe.output.frames == 3 * RATE + longer
    assert np.isfinite(made).all()
    dry = np.concatenate(list(mixed_blocks(replace(recipe, output=replace(recipe.output, tail="truncate")))))
    assert np.allclose(made, dry) == (tail == "truncate")
    if tail == "ring":
        assert np.abs(made[3 * RATE + 1000 :]).max() > 1e-4
        assert np.abs(np.diff(made[-50:, 0])).max() < 0.02
