"""``embedindex show``: pictures of sounds and of the units that a remix would cut them into."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from embedindex.cli.console import progress_bar, say
from embedindex.cli.options import QuietOption

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedindex.remix.units import Cutting
    from embedindex.sound_plots import CutSound

DEFAULT = ("waveform", "mel", "chroma")
Report = Callable[[float, Optional[float]], None]  # noqa: UP045 - evaluated at run time, also on Python 3.10


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(show)


def show(
    paths: Annotated[list[str], typer.Argument(metavar="FILE…", help="Sound files.")],
    what: Annotated[
        Optional[str],  # noqa: UP045 - typer evaluates this at run time, also on Python 3.10
        typer.Option(
            metavar="LIST",
            help="waveform, mel, linear, log (spectrograms), chroma, mfcc, centroid, rolloff, novelty, units. "
            "[waveform,mel,chroma]",
        ),
    ] = None,
    output: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--out",
            "--output",
            "-o",
            metavar="PNG",
            help="The picture (.png, .svg or .pdf), or a folder for several: NAME.png.",
        ),
    ] = None,
    window: Annotated[bool, typer.Option("--window", help="Open a window instead.")] = False,
    start: Annotated[float, typer.Option(min=0.0, metavar="SECONDS", help="Where to begin.")] = 0.0,
    end: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0.0, metavar="SECONDS", help="Where to end."),
    ] = None,
    units: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="HOW", help="Draw a remix's units: auto, onset, beat, novelty, grid:250ms or labels:FILE."
        ),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Draw waveforms, spectrograms and other descriptors of sounds. Needs matplotlib: embedindex[plots].

    Example: embedindex show song.flac --what waveform,mel,units -o song.png
    """
    from embedindex import figures
    from embedindex.overview import look_at
    from embedindex.remix.units import parse_units
    from embedindex.sound_plots import WIDTH_IN, draw, height_in

    cutting = None if units is None else parse_units(units)
    panels = _panels(what, with_units=cutting is not None)
    if cutting is None and {"novelty", "units"} & set(panels):
        cutting = parse_units("auto")
    targets = _targets(paths, output, window=window)
    figures.require_matplotlib()
    for path, target in zip(paths, targets, strict=True):
        with _progress(path, quiet=quiet) as report:
            view = look_at(os.fsencode(path), start, end, report=report)
            cut = None if cutting is None else _cut(os.fsencode(path), cutting, start, start + view.duration_s, report)
        make = figures.new_figure if target is not None else figures.new_window
        figure = make(WIDTH_IN, height_in(panels))
        draw(figure, view, panels, os.path.basename(path), cut)
        if view.note and not quiet:
            say(f"embedindex: {path}: {view.note}")
        if target is not None:
            figures.save(figure, target)
            if not quiet:
                say(f"embedindex: wrote {target}")
    if window:
        figures.show_windows()


def _panels(what: str | None, *, with_units: bool) -> tuple[str, ...]:
    from embedindex.errors import UsageError
    from embedindex.sound_plots import PANELS

    if what is None:
        return (*DEFAULT, "novelty", "units") if with_units else DEFAULT
    names = tuple(dict.fromkeys(name.strip().lower() for name in what.split(",") if name.strip()))
    unknown = [name for name in names if name not in PANELS]
    if unknown or not names:
        raise UsageError(f"--what {what}: choose some of {','.join(PANELS)}")
    return names


def _targets(paths: list[str], output: str | None, *, window: bool) -> list[str | None]:
    """Return where each picture goes; None for a window."""
    from embedindex.errors import UsageError
    from embedindex.figures import check_picture

    if window == (output is not None):
        raise UsageError("show: say where the picture goes, with either -o PICTURE.png or --window")
    if output is None:
        return [None] * len(paths)
    if not (len(paths) > 1 or output.endswith(os.sep) or os.path.isdir(output)):
        check_picture(output)
        return [output]
    names = [os.path.join(output, os.path.splitext(os.path.basename(path))[0] + ".png") for path in paths]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"{twice[0]}: two of the sounds have this name; draw them one by one, with -o")
    if os.path.splitext(output)[1].lower() in (".png", ".svg", ".pdf"):
        raise UsageError(f"-o {output}: give a folder for several pictures")
    try:
        os.makedirs(output, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{output}: cannot be made ({error.strerror}); choose another folder") from error
    return list(names)


def _cut(path: bytes, cutting: Cutting, start_s: float, end_s: float, report: Report) -> CutSound:
    """Return the units of a whole file that lie in a stretch, as a remix of it would have them."""
    import numpy as np

    from embedindex.audio import AudioReader
    from embedindex.novelty import CELL_S, cells, novelty
    from embedindex.remix.frames import FLUX, FRAMES_PER_S, RATE, describe_blocks
    from embedindex.remix.units import cut
    from embedindex.sound_plots import CutSound

    def blocks() -> Iterator[Any]:
        done = 0
        for block in reader.blocks():
            done += len(block)
            report(done / RATE, reader.facts.duration_s)
            yield block

    with AudioReader(path, sample_rate=RATE) as reader:
        track = describe_blocks(blocks())
        rate = reader.facts.sample_rate
    found, kind = cut(track, reader.native_frames, rate, cutting)
    inside = [unit for unit in found if unit.end / rate > start_s and unit.start / rate < end_s]
    curve = novelty(cells(track))
    times_s = np.arange(len(curve)) * CELL_S
    onset_times_s = np.arange(len(track.frames)) / FRAMES_PER_S
    shown, onsets_shown = (
        (times_s >= start_s) & (times_s <= end_s),
        (onset_times_s >= start_s) & (onset_times_s <= end_s),
    )
    return CutSound(
        kind=kind,
        bounds_s=np.array([(unit.start / rate, unit.end / rate) for unit in inside]).reshape(-1, 2),
        texts=tuple(unit.text for unit in inside),
        times_s=times_s[shown].astype(np.float64),
        novelty=curve[shown],
        onset_times_s=onset_times_s[onsets_shown].astype(np.float64),
        onsets=track.frames[onsets_shown, FLUX],
    )


@contextmanager
def _progress(path: str, *, quiet: bool) -> Iterator[Report]:
    from embedindex.errors import display_path

    with progress_bar(quiet=quiet) as bar:
        if bar is None:
            yield lambda _done, _total: None
            return
        task = bar.add_task("Reading", total=None, note=display_path(os.path.basename(path)))
        yield lambda done, total: bar.update(task, completed=done, total=total)
