"""``embedindex generate``: an endless drift through the library."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from embedindex.cli.console import print_json, print_line, say, warn
from embedindex.cli.options import IndexOption, JsonOption, QuietOption
from embedindex.cli.remix import BitsOption, ManyGlobs, OutOption, finish, summary_line, told_progress, told_stages
from embedindex.cli.threads import spare_threads

MaybeFloat = Optional[float]  # noqa: UP045 - typer evaluates this at run time, also on Python 3.10


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(generate)


def generate(
    seed: Annotated[str, typer.Argument(metavar="SEED", help="The sound to begin near, in the index or not.")],
    output: OutOption,
    length: Annotated[
        str, typer.Option(metavar="M:SS", help="How long: 10:00, 2h; endless: until Ctrl-C, or 24 hours.")
    ] = "2:00",
    density: Annotated[float, typer.Option(min=0.02, max=8, help="Sounds that begin in a second.")] = 0.4,
    index: IndexOption = None,
    pull: Annotated[float, typer.Option(min=0, max=1, help="How strongly SEED draws it back; 0: goes anywhere.")] = 0.3,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="Chance in choosing.")] = 0.5,
    layers: Annotated[int, typer.Option(min=1, max=8, help="So many drifts at once.")] = 1,
    no_repeat: Annotated[int, typer.Option(min=0, metavar="SOUNDS", help="For so long no file comes again.")] = 20,
    include: Annotated[
        ManyGlobs, typer.Option(metavar="WHAT", help="Only files with this GLOB or KEY=VALUE; may be repeated.")
    ] = None,
    exclude: Annotated[ManyGlobs, typer.Option(metavar="WHAT", help="No files with this; may be repeated.")] = None,
    rng: Annotated[int, typer.Option(min=0, help="Seed of chance: the same number, the same drift.")] = 0,
    lufs: Annotated[float, typer.Option(min=-70, max=0, help="Loudness.")] = -20.0,
    true_peak: Annotated[float, typer.Option("--tp", min=-20, max=0, metavar="DBTP", help="True-peak ceiling.")] = -1.0,
    bits: BitsOption = "24",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Choose, but write nothing.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Drift through the library: from a sound near SEED to one near that, and on, for as long as you like.

    Ctrl-C ends the piece where it has come to, and writes what there is.
    Also writes OUT.recipe.json, from which `embedindex render` makes the same sound again, and OUT.credits.csv.

    Example: embedindex generate rain.wav -o night.flac --length 30:00 --density 0.2 --layers 3
    """
    spare_threads()
    from embedindex.cli.interrupts import Interrupts
    from embedindex.index import load_view
    from embedindex.locations import index_folder
    from embedindex.query import QueryMaker
    from embedindex.remix.compose import require_windows
    from embedindex.remix.drift import Drift, Walker, never
    from embedindex.remix.master import check_target
    from embedindex.remix.outputs import Extras, guard_library
    from embedindex.remix.sequence import LONGEST_OUTPUT_S, parse_length
    from embedindex.store import Store

    drift = Drift(
        length_s=LONGEST_OUTPUT_S if length == "endless" else parse_length(length),
        density=density,
        layers=layers,
        pull=pull,
        temperature=temperature,
        no_repeat=no_repeat,
        lufs=lufs,
        true_peak_db=true_peak,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        chance=rng,
    )
    check_target(output, bits)
    with Interrupts("ending the piece here") as stop:
        with Store(index_folder(index)) as store:
            view = load_view(store)
            warn(view.damage)
            require_windows(view, store.folder)
            guard_library(output, store)
            walker = Walker(store, view, QueryMaker(store, view.model).model, seed, drift)
            with told_progress("Drifting, seconds of sound", quiet=quiet) as told:
                recipe = walker.recipe(told, stop)
        go_on = never if stop() else stop
        with told_stages(quiet=quiet) as stages:
            item = finish(recipe, output, 0, 1, bits=bits, extras=Extras(), dry_run=dry_run, told=stages, stop=go_on)
    if not quiet:
        for note in recipe.notes:
            say(f"embedindex: {note}")
    if json:
        print_json([item])
    elif not quiet:
        print_line(summary_line(item))
