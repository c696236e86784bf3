"""Pictures of sounds: panels below one another that share the axis of time. Needs matplotlib.

Conventions: the numbers come from `embedindex.overview`; this module only draws them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from embedindex import overview
from embedindex.arrays import Float32Array, Float64Array
from embedindex.descriptors import DYNAMIC_RANGE_DB
from embedindex.figures import drawable
from embedindex.overview import Overview

PANELS = ("waveform", "mel", "linear", "log", "chroma", "mfcc", "centroid", "rolloff", "novelty", "units")
WIDTH_IN = 12.0
PANEL_IN = 2.3
INK, SOFT, PALE = "#16425b", "#5fa8d3", "#c9e0ee"
WARM, HOT = "#d1495b", "#edae49"
UNIT_COLOURS = ("#e8f1f7", "#fbeccf")
PITCH_CLASSES = ("C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B")
TICKS_HZ = (64, 125, 250, 500, 1000, 2000, 4000, 8000, 16000)
MOST_NUMBERED = 60  # more units than this go without their numbers


@dataclass(frozen=True, eq=False)
class CutSound:
    """How a sound was cut into units, and by what.

    Attributes:
        kind: the way, for example ``onset``.
        bounds_s: (units, 2) where each begins and ends.
        texts: what their labels say, "" for none.
        times_s: (n,) of the two curves.
        novelty: (n,) Foote's novelty.
        onset_times_s: (m,) of the next.
        onsets: (m,) rise in level, in dB a frame.
    """

    kind: str
    bounds_s: Float64Array
    texts: tuple[str, ...]
    times_s: Float64Array
    novelty: Float32Array
    onset_times_s: Float64Array
    onsets: Float32Array


def panels_of(what: tuple[str, ...]) -> list[str]:
    """Return the panels for these names: centroid and roll-off share one."""
    merged = ["centroid" if name == "rolloff" else name for name in what]
    return list(dict.fromkeys(merged))


def height_in(what: tuple[str, ...]) -> float:
    """Return how high a figure of these panels should be."""
    return 0.9 + PANEL_IN * len(panels_of(what))


def draw(figure: Any, view: Overview, what: tuple[str, ...], title: str, cut: CutSound | None = None) -> None:
    """Draw panels on an empty figure.

    Args:
        figure: of matplotlib.
        view: the sound.
        what: names of `PANELS`.
        title: above them.
        cut: its units, needed for ``novelty`` and ``units``; drawn as lines in the others.
    """
    names = panels_of(what)
    all_axes = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    figure.suptitle(drawable(title), fontsize=12)
    for name, axes in zip(names, all_axes, strict=True):
        if name == "waveform":
            draw_waveform(axes, view)
        elif name == "centroid":
            _centroid(axes, view, what)
        elif name == "novelty" and cut is not None:
            _novelty(axes, cut)
            if "units" not in names:
                axes.set_title(_unit_title(cut), fontsize=9, loc="left")
        elif name == "units" and cut is not None:
            _units(axes, view, cut)
        else:
            _picture(figure, axes, view, name)
        if cut is not None and name != "units":
            for start_s in cut.bounds_s[:, 0]:
                axes.axvline(start_s, color="white" if name in _DRAWN else WARM, linewidth=0.6, alpha=0.5)
        axes.tick_params(labelsize=9)
    all_axes[0].set_xlim(view.start_s, view.start_s + view.duration_s)
    all_axes[-1].set_xlabel("time (s)")


def draw_waveform(axes: Any, view: Overview, colour: str = SOFT) -> None:
    """Draw smallest and largest sample, and the root mean square inside; two channels above one another."""
    lanes = view.rms.shape[1]
    top = float(max(np.abs(view.lowest).max(), np.abs(view.highest).max(), 1e-6))
    reach = 1.05 * top
    for lane in range(lanes):
        middle = -2.2 * reach * lane
        times = view.wave_times_s
        axes.fill_between(
            times, middle + view.lowest[:, lane], middle + view.highest[:, lane], color=colour, linewidth=0.3
        )
        axes.fill_between(times, middle - view.rms[:, lane], middle + view.rms[:, lane], color=INK, linewidth=0.0)
        axes.axhline(middle, color=INK, linewidth=0.4)
    axes.set_ylim(-2.2 * reach * (lanes - 1) - reach, reach)
    if lanes == 2:
        places = [top, 0.0, -top]
        texts = [f"{place:.2g}" for place in places]
        axes.set_yticks([*places, *(place - 2.2 * reach for place in places)], texts * 2)
        axes.text(0.004, 0.97, "left", transform=axes.transAxes, va="top", fontsize=8, color=INK)
        axes.text(0.004, 0.47, "right", transform=axes.transAxes, va="top", fontsize=8, color=INK)
    axes.set_ylabel("amplitude\n(full scale = 1)")


def _decibels(figure: Any, axes: Any, view: Overview, level_db: Float32Array, rows: tuple[float, float]) -> None:
    relative = level_db - float(level_db.max())
    image = axes.imshow(
        relative.T,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=-80.0,
        vmax=0.0,
        extent=(*_span(view), *rows),
        interpolation="nearest" if relative.shape[0] < 400 else "antialiased",
    )
    bar = figure.colorbar(image, ax=axes, pad=0.01, aspect=12)
    bar.set_label("level (dB)", fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _span(view: Overview) -> tuple[float, float]:
    """Return from when to when the columns of the spectrogram reach."""
    first = view.start_s - 0.5 * view.hop / view.sample_rate
    return first, first + len(view.power) * view.step_s


def _mel(figure: Any, axes: Any, view: Overview) -> None:
    _decibels(figure, axes, view, overview.mel_db(view), (-0.5, overview.MEL_BANDS - 0.5))
    ticks = [hz for hz in (0, *TICKS_HZ[1:]) if hz < 0.95 * view.sample_rate / 2]
    places = overview.mel_position(view, np.array(ticks, np.float64))
    shown = [(place, hz) for place, hz in zip(places, ticks, strict=True) if place >= -0.5 and hz != 125]
    axes.set_yticks([place for place, _ in shown], [f"{hz:,}" for _, hz in shown])
    axes.set_ylabel("frequency (Hz, mel)")


def _linear(figure: Any, axes: Any, view: Overview) -> None:
    _decibels(figure, axes, view, overview.linear_db(view), (0.0, view.sample_rate / 2000.0))
    axes.set_ylabel("frequency (kHz)")


def _log(figure: Any, axes: Any, view: Overview) -> None:
    frequencies = overview.log_frequencies(view)
    _decibels(figure, axes, view, overview.log_db(view), (-0.5, len(frequencies) - 0.5))
    ticks = [hz for hz in TICKS_HZ if frequencies[0] <= hz <= frequencies[-1]]
    places = np.interp(np.log(ticks), np.log(frequencies), np.arange(len(frequencies)))
    axes.set_yticks(places, [f"{hz:,}" for hz in ticks])
    axes.set_ylabel("frequency (Hz, log)")


def _chroma(figure: Any, axes: Any, view: Overview) -> None:
    image = axes.imshow(
        overview.chroma(view).T,
        origin="lower",
        aspect="auto",
        cmap="viridis",
        vmin=0.0,
        vmax=1.0,
        extent=(*_span(view), -0.5, 11.5),
        interpolation="nearest",
    )
    axes.set_yticks(range(0, 12, 2), PITCH_CLASSES[::2])
    axes.set_ylabel("pitch class")
    figure.colorbar(image, ax=axes, pad=0.01, aspect=12).set_label("share of the\nstrongest", fontsize=9)


def _mfcc(figure: Any, axes: Any, view: Overview) -> None:
    values = overview.mfcc(view)[:, 1:]  # the first is the level, and would drown the others
    reach = float(np.quantile(np.abs(values), 0.99)) or 1.0
    image = axes.imshow(
        values.T,
        origin="lower",
        aspect="auto",
        cmap="RdBu_r",
        vmin=-reach,
        vmax=reach,
        extent=(*_span(view), 1.5, overview.MFCCS + 0.5),
        interpolation="nearest",
    )
    axes.set_yticks(range(2, overview.MFCCS + 1, 3))
    axes.set_ylabel("MFCC (number)")
    figure.colorbar(image, ax=axes, pad=0.01, aspect=12).set_label("value (dB)", fontsize=9)


_DRAWN = {"mel": _mel, "linear": _linear, "log": _log, "chroma": _chroma, "mfcc": _mfcc}


def _picture(figure: Any, axes: Any, view: Overview, name: str) -> None:
    _DRAWN[name](figure, axes, view)


def _centroid(axes: Any, view: Overview, what: tuple[str, ...]) -> None:
    """Draw centroid and roll-off, those of them that are wanted, over the waveform."""
    draw_waveform(axes, view, PALE)
    hertz = axes.twinx()
    loud = 10.0 * np.log10(np.maximum(view.power.sum(axis=1), 1e-20))
    quiet = loud < loud.max() - DYNAMIC_RANGE_DB  # of silence they say nothing
    for name, values, colour, label in (
        ("rolloff", overview.rolloff_hz, HOT, "roll-off (85 %)"),
        ("centroid", overview.centroid_hz, WARM, "centroid"),
    ):
        if name in what:
            curve = np.where(quiet, np.nan, values(view)) / 1000.0
            hertz.plot(view.times_s, curve, color=colour, linewidth=1.1, label=label)
    hertz.set_ylim(bottom=0.0)
    hertz.set_ylabel("frequency (kHz)")
    hertz.tick_params(labelsize=9)
    hertz.legend(loc="upper right", fontsize=8, framealpha=0.85)


def _novelty(axes: Any, cut: CutSound) -> None:
    for times_s, values, colour, label in (
        (cut.onset_times_s, cut.onsets, SOFT, "onset strength"),
        (cut.times_s, cut.novelty, INK, "novelty (2 s to either side)"),
    ):
        if len(values):
            shares = values / max(float(values.max()), 1e-9)
            axes.plot(times_s, shares, color=colour, linewidth=0.8 if colour == SOFT else 1.5, label=label)
    axes.set_ylim(0.0, 1.08)
    axes.set_ylabel("share of\nthe largest")
    axes.legend(loc="upper right", fontsize=8, framealpha=0.85)


def _units(axes: Any, view: Overview, cut: CutSound) -> None:
    """Draw the waveform on stripes, one a unit, with their numbers or labels."""
    for number, (start_s, end_s) in enumerate(cut.bounds_s):
        axes.axvspan(start_s, end_s, color=UNIT_COLOURS[number % 2], linewidth=0.0)
        axes.axvline(start_s, color=WARM, linewidth=0.7)
    draw_waveform(axes, view)
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top + 0.16 * (top - bottom))
    inside = [
        (number, max(start_s, view.start_s), min(end_s, view.start_s + view.duration_s))
        for number, (start_s, end_s) in enumerate(cut.bounds_s)
    ]
    if len(inside) <= MOST_NUMBERED:
        for number, start_s, end_s in inside:
            text = drawable(cut.texts[number] or str(number))
            axes.text((start_s + end_s) / 2, top, text, ha="center", va="bottom", fontsize=7, color=INK, clip_on=True)
    axes.set_title(_unit_title(cut), fontsize=9, loc="left")


def _unit_title(cut: CutSound) -> str:
    lengths = np.diff(cut.bounds_s, axis=1)
    median_s = float(np.median(lengths)) if len(lengths) else 0.0
    return f"{len(lengths)} units ({drawable(cut.kind)}), {median_s:.2f} s each (median)"
