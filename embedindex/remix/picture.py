"""A picture of a remix: the seed above, the remix below, units coloured by their files. Needs matplotlib."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from embedindex.figures import drawable, new_figure, save
from embedindex.overview import Overview, look_at
from embedindex.remix.recipe import Recipe
from embedindex.sound_plots import INK, WIDTH_IN, draw_waveform

NAMED = 12  # so many of the files, those heard longest, have a colour and a place in the legend
OTHERS = "#d8d8d8"
SAME_LENGTH_S = 0.05  # only then the units of both lie at the same times


def colours_of(recipe: Recipe) -> dict[int, Any]:
    """Return the colour of each source that is heard: of its own for the longest heard, grey for the others."""
    from matplotlib import colormaps

    frames: Counter[int] = Counter()
    for event in recipe.events:
        if event.source is not None:
            frames[event.source] += event.frames
    palette = colormaps["tab20"].colors  # type: ignore[attr-defined,unused-ignore]
    light_last = [*palette[0::2], *palette[1::2]]
    ranked = sorted(frames, key=lambda source: (-frames[source], source))
    return {source: light_last[place] if place < NAMED else OTHERS for place, source in enumerate(ranked)}


def draw_remix(path: str, recipe: Recipe, sound_path: str) -> None:
    """Write the picture.

    Args:
        path: of the picture.
        recipe: the remix.
        sound_path: the finished sound.

    Raises:
        EngineMissingError: matplotlib is not installed.
        AudioError: the seed or the sound cannot be read.
        UsageError: it cannot be written.
    """
    seed, sound = look_at(recipe.seed.path), look_at(sound_path)
    colours = colours_of(recipe)
    layers = recipe.layers
    figure = new_figure(WIDTH_IN, 6.4 + (0.35 * layers if layers > 1 else 0.0))
    heights = [2.0, 2.0, 0.35 * layers] if layers > 1 else [2.0, 2.0]
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    same = abs(seed.duration_s - sound.duration_s) < SAME_LENGTH_S
    _panel(axes[0], seed, recipe, colours if same else {}, f"seed: {os.path.basename(os.fsdecode(recipe.seed.path))}")
    heard = f"{len(recipe.events)} units from {len(colours)} files"
    _panel(axes[1], sound, recipe, colours, f"remix: {os.path.basename(sound_path)}, {heard}")
    if layers > 1:
        _strips(axes[2], recipe, colours)
    axes[0].set_xlim(0.0, max(seed.duration_s, sound.duration_s))
    axes[-1].set_xlabel("time (s)")
    _legend(figure, recipe, colours)
    save(figure, path)


def _panel(axes: Any, view: Overview, recipe: Recipe, colours: dict[int, Any], title: str) -> None:
    """Draw a waveform on the colours of the first layer's units."""
    _bands(axes, recipe, colours, 0, 0.0, 1.0)
    draw_waveform(axes, view, INK)
    axes.set_title(drawable(title), fontsize=10, loc="left")
    axes.tick_params(labelsize=9)


def _bands(axes: Any, recipe: Recipe, colours: dict[int, Any], layer: int, low: float, high: float) -> None:
    rate = recipe.output.sample_rate
    for event in recipe.events:
        if event.layer == layer and event.source in colours:
            end_s = (event.start + event.frames) / rate
            colour = colours[event.source]
            axes.axvspan(
                event.start / rate, end_s, low, high, facecolor=colour, alpha=0.45, edgecolor="white", linewidth=0.6
            )


def _strips(axes: Any, recipe: Recipe, colours: dict[int, Any]) -> None:
    """Draw the units of all layers, one strip each, the first on top."""
    layers = recipe.layers
    for layer in range(layers):
        low = 1.0 - (layer + 1) / layers
        _bands(axes, recipe, colours, layer, low, low + 1.0 / layers)
    axes.set_ylim(0.0, layers)
    names = [recipe.layer_name(layer).removeprefix("layer ") for layer in range(layers)]
    axes.set_yticks([layers - layer - 0.5 for layer in range(layers)], names)
    axes.set_ylabel("layer")
    axes.tick_params(labelsize=9)


def _legend(figure: Any, recipe: Recipe, colours: dict[int, Any]) -> None:
    from matplotlib.patches import Patch

    named = [source for source in colours if colours[source] != OTHERS]
    handles = [
        Patch(
            facecolor=colours[source],
            alpha=0.45,
            label=drawable(os.path.basename(os.fsdecode(recipe.sources[source].path))),
        )
        for source in named
    ]
    if len(named) < len(colours):
        handles.append(Patch(facecolor=OTHERS, alpha=0.45, label=f"{len(colours) - len(named)} other files"))
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
