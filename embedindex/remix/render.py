"""A recipe → sound: the original files, joined sample by sample. Streams; memory does not grow with the length.

Conventions: blocks are (n, channels) float32 at the output rate. A run is a chain of events that go on in one file: it
is read in one go and has no joins inside. Between runs both sounds go on for the length of the crossfade.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedindex.arrays import Float32Array
from embedindex.audio import AudioReader
from embedindex.remix.bending import read_bent
from embedindex.remix.breakpoints import Breakpoints, parse_breakpoints
from embedindex.remix.crossfades import faded
from embedindex.remix.morph import TAILED
from embedindex.remix.recipe import Event, Recipe
from embedindex.remix.spans import SpanReader, with_channels
from embedindex.remix.threads import threads_for
from embedindex.remix.voices import Memory, Morphed, Silence, Voice

BLOCK_FRAMES = 1 << 16
AT_ONCE_S = 10.0


class Run:
    """A chain of events in one file, its gains gliding from one to the next; a short one is read at once.

    Args:
        recipe: what they belong to.
        events: the chain.
        lead: frames to read before the first event's start.
        tail: frames to read after the last one's end.
    """

    def __init__(self, recipe: Recipe, events: list[Event], lead: int, tail: int) -> None:
        first = events[0]
        self._position = first.start - lead
        self._times, self._gains_db = _glides(events)
        frames = lead + sum(event.frames for event in events) + tail
        output = recipe.output
        self._voice: Voice
        if first.source is None:
            self._voice = Silence(output.channels)
        elif first.morph != "none":
            self._voice = Morphed(recipe, first, lead)
        else:
            path = recipe.sound_of(first.source)
            rate, channels = output.sample_rate, output.channels
            if not first.bend.plain or frames <= AT_ONCE_S * rate:
                self._voice = Memory(read_bent(path, first.source_start, lead, frames, rate, channels, first.bend))
            else:
                self._voice = SpanReader(path, first.source_start, lead, frames, rate, channels)

    def read(self, frames: int) -> Float32Array:
        """See `Voice.read`."""
        samples = self._voice.read(frames)
        at = np.arange(self._position, self._position + frames)
        self._position += frames
        gain = 10.0 ** (np.interp(at, self._times, self._gains_db) / 20.0)
        return samples * gain[:, None].astype(np.float32)

    def close(self) -> None:
        """See `Voice.close`."""
        self._voice.close()

    def ringing(self, behind: int) -> Float32Array | None:
        """Return what rings on from `behind` frames after the next one to be read; None if nothing does."""
        if not isinstance(self._voice, Morphed):
            return None
        left = self._voice.ringing(behind)
        return left * np.float32(10.0 ** (self._gains_db[-1] / 20.0)) if len(left) else None


def _glides(events: list[Event]) -> tuple[list[float], list[float]]:
    """Return breakpoints (frames, dB): each gain holds, and glides to the next around the boundary."""
    times, gains = [float(events[0].start)], [events[0].gain_db]
    for before, after in pairwise(events):
        half = after.fade / 2 + 0.5
        times += [after.start - half, after.start + half]
        gains += [before.gain_db, after.gain_db]
    return times, gains


Part = tuple[int | None, NDArray[np.floating[Any]]]  # the source (None: silence), and what it adds to the sound
Tail = tuple[int, Float32Array, int | None]  # first frame, sound, source


def layer_blocks(recipe: Recipe, layer: int) -> Iterator[Float32Array]:
    """Yield the sound of one layer.

    Raises:
        AudioError: a source cannot be read.
    """
    tails: list[Tail] = []
    yield from with_tails((_sum_of(parts) for parts in layer_parts(recipe, layer, tails)), tails)


def _sum_of(parts: tuple[Part, ...]) -> Float32Array:
    total = parts[0][1]
    for _, sound in parts[1:]:
        total = total + sound
    return np.asarray(total, np.float32)


def with_tails(blocks: Iterator[Float32Array], tails: list[Tail]) -> Iterator[Float32Array]:
    """Yield blocks with what rings on added: `tails` grows while the blocks are made."""
    position = 0
    for block in blocks:
        end = position + len(block)
        if any(start < end for start, _, _ in tails):
            block = block.copy()
            for start, sound, _ in tails:
                first, last = max(start, position), min(start + len(sound), end)
                if first < last:
                    block[first - position : last - position] += sound[first - start : last - start]
            tails[:] = [tail for tail in tails if tail[0] + len(tail[1]) > end]
        position = end
        yield block


def _tail(recipe: Recipe, run: Run, event: Event, fade: int, following: int) -> Float32Array | None:
    """Return what rings on from the crossfade at an event's end, which fades it in as the event itself fades out."""
    if recipe.output.tail == "truncate" or event.morph not in TAILED:
        return None
    sound = run.ringing(0)
    if sound is None or not following:
        return None
    if recipe.output.tail == "overlap":
        sound = sound[: fade + following]
    length = len(sound)
    curve = np.ones(length)
    rise = min(fade, length)
    curve[:rise] = 0.5 - 0.5 * np.cos(np.pi * (np.arange(rise) + 0.5) / max(1, fade))
    fall = length // 2 if recipe.output.tail == "overlap" else min(length, recipe.output.sample_rate // 200)
    curve[length - fall :] *= 0.5 + 0.5 * np.cos(np.pi * (np.arange(fall) + 1) / max(1, fall))
    return sound * curve[:, None].astype(np.float32)


def layer_parts(recipe: Recipe, layer: int, tails: list[Tail]) -> Iterator[tuple[Part, ...]]:
    """Yield what sounds in one layer, stretch by stretch: one source, or the two of a crossfade.

    Args:
        recipe: what to render.
        layer: which layer.
        tails: what rings on is appended to it; it adds to what is yielded from its first frame on.

    Raises:
        AudioError: a source cannot be read.
    """
    runs = _runs([event for event in recipe.events if event.layer == layer])
    source: int | None = None
    current: Voice = Silence(recipe.output.channels)
    position = 0
    opened = opened_ahead(recipe, runs)
    try:
        for number, following in enumerate(opened):
            first = runs[number][0]
            fade, lead = _entry(first, is_first=number == 0)
            begin = first.start - (fade - lead)
            try:
                while position < begin:
                    step = min(BLOCK_FRAMES, begin - position)
                    yield ((source, current.read(step)),)
                    position += step
                if isinstance(current, Run):
                    rings = _tail(recipe, current, runs[number - 1][-1], fade, first.frames)
                    if rings is not None:
                        tails.append((begin, rings, source))
                if fade:
                    old, new = faded(current.read(fade), following.read(fade))
                    yield (source, old), (first.source, new)
                    position += fade
            except BaseException:
                following.close()
                raise
            current.close()
            current, source = following, first.source
        for block in _ended(recipe, current, position):
            yield ((source, block),)
    finally:
        opened.close()
        current.close()


def opened_ahead(recipe: Recipe, runs: list[list[Event]]) -> Generator[Run, None, None]:
    """Yield the runs, opened: some ahead, in threads, because most of the work is opening and decoding.

    Raises:
        AudioError: a source cannot be read.
    """

    def opened(number: int) -> Run:
        fade, lead = _entry(runs[number][0], is_first=number == 0)
        tail = runs[number + 1][0].fade if number + 1 < len(runs) else 0
        return Run(recipe, runs[number], fade - lead, tail)

    workers = threads_for(len(runs))
    waiting: deque[Future[Run]] = deque()
    with ThreadPoolExecutor(workers) as threads:
        try:
            for number in range(len(runs)):
                waiting.append(threads.submit(opened, number))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                if not future.cancel() and future.exception() is None:
                    future.result().close()


def _entry(first: Event, *, is_first: bool) -> tuple[int, int]:
    """Return (crossfade, part of it after the start); at the very start there is nothing to fade from."""
    if not is_first:
        return first.fade, first.lead
    lead = 0 if first.source_start == 0 else first.lead
    return lead, lead


def _ended(recipe: Recipe, voice: Voice, position: int) -> Iterator[Float32Array]:
    output = recipe.output
    fade_from = output.frames - output.end_fade
    while position < output.frames:
        step = min(BLOCK_FRAMES, (fade_from if position < fade_from else output.frames) - position)
        block = voice.read(step)
        if position >= fade_from:
            done = (np.arange(position - fade_from, position - fade_from + step) + 0.5) / output.end_fade
            block = block * (0.5 + 0.5 * np.cos(np.pi * done))[:, None].astype(np.float32)
        yield block
        position += step


def _runs(events: list[Event]) -> list[list[Event]]:
    runs: list[list[Event]] = []
    for event in events:
        plain = event.morph == "none" and event.bend.plain
        if runs and plain and (event.follows or (event.source is None and runs[-1][-1].source is None)):
            runs[-1].append(event)
        else:
            runs.append([event])
    return runs


def mixed_blocks(recipe: Recipe) -> Iterator[Float32Array]:
    """Yield the sum of all layers, with the seed where `dry_wet` says so; equal blocks but for the last."""
    parts = [rebatched(layer_blocks(recipe, layer), BLOCK_FRAMES) for layer in range(recipe.layers)]
    wet = parse_breakpoints("dry_wet", recipe.output.dry_wet, 0.0, 1.0)
    share = np.float32(recipe.layer_gain)
    dry = None if recipe.output.all_wet else rebatched(seed_blocks(recipe), BLOCK_FRAMES)
    position = 0
    for blocks in zip(*parts, strict=True):
        mix = blocks[0] * share
        for block in blocks[1:]:
            mix = mix + block * share
        if dry is not None:
            mix = _with_seed(mix, next(dry), wet, position, recipe.output.sample_rate)
        position += len(mix)
        yield mix


def _with_seed(
    mix: Float32Array, seed: Float32Array, wet: Breakpoints, position: int, sample_rate: int
) -> Float32Array:
    share = wet_share(wet, position, len(mix), sample_rate)
    padded = np.zeros_like(mix)
    padded[: len(seed)] = seed[: len(mix)]
    return mix * share + padded * (np.float32(1.0) - share)


def wet_share(wet: Breakpoints, position: int, frames: int, sample_rate: int) -> Float32Array:
    """Return the share of the remix (frames, 1) from a position on."""
    times_s = (position + np.arange(frames)) / sample_rate
    return np.interp(times_s, wet.times_s, wet.values)[:, None].astype(np.float32)


def seed_blocks(recipe: Recipe) -> Iterator[Float32Array]:
    """Yield the seed as the output has it, and then silence for ever."""
    output = recipe.output
    loops = True
    while loops:
        with AudioReader(recipe.seed.path, sample_rate=output.sample_rate, mono=False) as reader:
            for block in reader.blocks():
                yield with_channels(block, output.channels)
        loops = output.seed_loops
    while True:
        yield np.zeros((BLOCK_FRAMES, output.channels), np.float32)


def rebatched(blocks: Iterator[Float32Array], size: int) -> Iterator[Float32Array]:
    """Yield the same sound in blocks of `size` frames; the last may be shorter."""
    kept: list[Float32Array] = []
    length = 0
    for block in blocks:
        kept.append(block)
        length += len(block)
        while length >= size:
            joined = np.concatenate(kept)
            yield joined[:size]
            kept, length = [joined[size:]], length - size
    if length:
        yield np.concatenate(kept)
