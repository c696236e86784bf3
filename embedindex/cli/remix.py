"""``embedindex remix`` and ``embedindex render``: new pieces out of a seed and the library."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from embedindex.cli.console import SlowLines, amount, clock, print_json, print_line, progress_bar, say, warn
from embedindex.cli.options import IndexOption, JsonOption, QuietOption
from embedindex.cli.remix_options import one_of, parse_bending, parse_layers, parse_lufs, remix_options
from embedindex.cli.threads import spare_threads

if TYPE_CHECKING:
    from embedindex.remix.compose import Sound
    from embedindex.remix.master import Written
    from embedindex.remix.options import RemixOptions
    from embedindex.remix.outputs import Extras
    from embedindex.remix.recipe import Recipe
    from embedindex.remix.revision import Revision
    from embedindex.remix.tracks import Stages

ManyGlobs = Optional[list[str]]  # noqa: UP045 - typer evaluates this at run time, also on Python 3.10
MaybeText = Optional[str]  # noqa: UP045
MaybeRate = Optional[int]  # noqa: UP045

OutOption = Annotated[str, typer.Option("-o", "--output", metavar="OUT", help="The file to write: .wav or .flac.")]
BitsOption = Annotated[str, typer.Option(metavar="24|float", help="24-bit, or 32-bit float (WAV only).")]

LabelsOption = Annotated[bool, typer.Option("--labels", help="Also write Audacity labels: OUT.labels.txt.")]
EventsOption = Annotated[bool, typer.Option("--events", help="Also write a table of all units: OUT.events.csv.")]
PictureOption = Annotated[
    bool, typer.Option("--picture", help="Also draw seed and remix: OUT.png (needs embedindex[plots]).")
]
StemsOption = Annotated[MaybeText, typer.Option(metavar="DIR", help="Also write stems, which add up to the mix.")]
StemsByOption = Annotated[str, typer.Option(metavar="source|layer", help="A stem for each file, or for each layer.")]
RppOption = Annotated[MaybeText, typer.Option(metavar="FILE", help="Also write a Reaper project.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(remix)
    app.command()(render)


def remix(
    seed: Annotated[str, typer.Argument(metavar="SEED", help="The sound to remix, in the index or not.")],
    output: OutOption,
    index: IndexOption = None,
    preset: Annotated[MaybeText, typer.Option(metavar="NAME", help="ambient, collage, rhythmic or destroy.")] = None,
    units: Annotated[
        MaybeText,
        typer.Option(metavar="HOW", help="auto, onset, beat, novelty, grid:250ms, or labels:FILE (Audacity's)."),
    ] = None,
    match: Annotated[MaybeText, typer.Option(metavar="0…1", help="How alike a choice has to be. [0.9]")] = None,
    continuity: Annotated[MaybeText, typer.Option(metavar="0…1", help="How much smooth joins count. [0.5]")] = None,
    novelty: Annotated[
        MaybeText, typer.Option(metavar="0…1", help="How much it counts against a file that it was played. [0.5]")
    ] = None,
    temperature: Annotated[MaybeText, typer.Option(metavar="0…2", help="Chance in choosing; 0: none. [0]")] = None,
    no_repeat: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, metavar="UNITS", help="For so long no sound comes again. [20]"),
    ] = None,
    max_per_file: Annotated[MaybeText, typer.Option(metavar="SHARE", help="Most from one file: 25% or 0.25.")] = None,
    max_per_folder: Annotated[MaybeText, typer.Option(metavar="SHARE", help="Most from one folder.")] = None,
    weights: Annotated[
        str, typer.Option(metavar="LIST", help="What counts how much: timbre=1,loudness=.5,pitch=0…")
    ] = "",
    include: Annotated[
        ManyGlobs, typer.Option(metavar="WHAT", help="Only files with this GLOB or KEY=VALUE; may be repeated.")
    ] = None,
    exclude: Annotated[ManyGlobs, typer.Option(metavar="WHAT", help="No files with this; may be repeated.")] = None,
    allow_self: Annotated[bool, typer.Option("--allow-self", help="Let the seed be made of itself, too.")] = False,
    far: Annotated[bool, typer.Option("--far", help="The least alike instead of the most alike.")] = False,
    layers: Annotated[
        str,
        typer.Option(metavar="1…8|hp", help="So many remixes at once; hp: one of the seed's tones, one of its hits."),
    ] = "1",
    dry_wet: Annotated[str, typer.Option(metavar="0…1", help="Share of the remix; the rest is the seed.")] = "1",
    stretch: Annotated[
        str, typer.Option(metavar="0…0.2", help="Make a sound longer or shorter by so much, so that it fits its unit.")
    ] = "0",
    pitch: Annotated[
        str, typer.Option(metavar="0…3", help="Bring a sound to the unit's pitch, by up to so many semitones.")
    ] = "0",
    morph: Annotated[
        str,
        typer.Option(
            metavar="HOW",
            help="Merge each unit with the seed's: ir, ir-reverse, geomean, envelope, spectral-envelope, vocoder, "
            "granular.",
        ),
    ] = "none",
    morph_amount: Annotated[str, typer.Option(metavar="0…1", help="How much of that.")] = "1",
    tail: Annotated[
        str, typer.Option(metavar="HOW", help="What rings on after ir, ir-reverse: truncate, overlap or ring.")
    ] = "truncate",
    recipe: Annotated[
        MaybeText, typer.Option(metavar="RECIPE", help="Change this recipe of the same seed and options, in places:")
    ] = None,
    reroll: Annotated[MaybeText, typer.Option(metavar="UNITS", help="…choose these units again: 3,7-9.")] = None,
    lock: Annotated[MaybeText, typer.Option(metavar="UNITS", help="…keep these, choose all others again.")] = None,
    variations: Annotated[int, typer.Option(min=1, max=99, help="So many different ones: OUT-1, OUT-2…")] = 1,
    rng: Annotated[int, typer.Option(min=0, help="Seed of chance: the same number, the same remix.")] = 0,
    length: Annotated[
        MaybeText, typer.Option(metavar="M:SS", help="Longer (the seed over and over) or shorter than the seed.")
    ] = None,
    rate: Annotated[MaybeRate, typer.Option(min=8000, max=384000, metavar="HZ", help="Else the seed's.")] = None,
    lufs: Annotated[str, typer.Option(metavar="seed|LUFS", help="Loudness: the seed's, or for example -16.")] = "seed",
    true_peak: Annotated[float, typer.Option("--tp", min=-20, max=0, metavar="DBTP", help="True-peak ceiling.")] = -1.0,
    bits: BitsOption = "24",
    labels: LabelsOption = False,
    events: EventsOption = False,
    picture: PictureOption = False,
    stems: StemsOption = None,
    stems_by: StemsByOption = "source",
    rpp: RppOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Choose, but write nothing.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a new piece: every unit of SEED replaced by a similar one from the library.

    Also writes OUT.recipe.json, from which `embedindex render` makes the same sound again, and OUT.credits.csv.
    Options shown as 0…1, 0…2 and so on also take breakpoints over time in seconds: --match 0:1,60:0.2

    Example: embedindex remix seed.wav -o out.wav --preset ambient --exclude "drums/*"
    """
    spare_threads()
    from embedindex.remix.breakpoints import parse_breakpoints
    from embedindex.remix.compose import Sound
    from embedindex.remix.master import check_target
    from embedindex.remix.morph import MODES, TAILS
    from embedindex.remix.outputs import numbered, read_recipe
    from embedindex.remix.revision import revisions
    from embedindex.remix.sequence import parse_length

    options = remix_options(locals())
    count, split = parse_layers(layers)
    sound = Sound(
        sample_rate=rate,
        lufs=parse_lufs(lufs),
        true_peak_db=true_peak,
        dry_wet=parse_breakpoints("--dry-wet", dry_wet, 0.0, 1.0),
        layers=count,
        split=split,
        bending=parse_bending(stretch, pitch),
        morph=one_of("--morph", morph, MODES),
        amount=parse_breakpoints("--morph-amount", morph_amount, 0.0, 1.0),
        tail=one_of("--tail", tail, TAILS),
        length_s=None if length is None else parse_length(length),
    )
    check_target(output, bits)
    extras = _extras(labels, events, picture, stems, stems_by, rpp)
    extras.check()
    changes: tuple[Revision, ...] = ()
    if recipe is not None or reroll is not None or lock is not None:
        changes = revisions(read_recipe(_required_recipe(recipe)), split, reroll, lock)
    made = []
    targets = [numbered(output, number, variations) for number in range(variations)]
    with told_stages(quiet=quiet) as told:
        for number, found in enumerate(_recipes(seed, index, options, sound, targets, changes, told)):
            made.append(finish(found, output, number, variations, bits=bits, extras=extras, dry_run=dry_run, told=told))
            if not quiet:
                for note in found.notes:
                    say(f"embedindex: {note}")
    if json:
        print_json(made)
    elif not quiet:
        for item in made:
            print_line(summary_line(item))


def render(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A .recipe.json that `embedindex remix` wrote.")],
    output: OutOption,
    bits: BitsOption = "24",
    labels: LabelsOption = False,
    events: EventsOption = False,
    picture: PictureOption = False,
    stems: StemsOption = None,
    stems_by: StemsByOption = "source",
    rpp: RppOption = None,
    quiet: QuietOption = False,
) -> None:
    """Render a recipe again: the same sound, to the last bit; or what you edited it to be.

    Example: embedindex render out.recipe.json -o again.wav
    """
    spare_threads()
    from embedindex.remix.outputs import beyond_notes, read_recipe, render_note, render_recipe

    extras = _extras(labels, events, picture, stems, stems_by, rpp)
    extras.check()
    found = read_recipe(recipe)
    note = render_note(found)
    if not quiet:
        for text in (*filter(None, [note]), *beyond_notes(found)):
            say(f"embedindex: {recipe}: {text}")
    with told_stages(quiet=quiet) as told:
        written = render_recipe(found, output, bits=bits, extras=extras, told=told)
    if not quiet:
        print_line(f"{output}: {_level(written.lufs, written.true_peak_db)}")


def _extras(labels: bool, events: bool, picture: bool, stems: str | None, stems_by: str, rpp: str | None) -> Extras:
    from embedindex.remix.outputs import Extras

    by: Literal["source", "layer"] = (
        "layer" if one_of("--stems-by", stems_by, ("source", "layer")) == "layer" else "source"
    )
    return Extras(labels, events, picture, stems, by, rpp)


def _recipes(
    seed: str,
    index: str | None,
    options: RemixOptions,
    sound: Sound,
    targets: list[str],
    changes: tuple[Revision, ...],
    told: Stages,
) -> Iterator[Recipe]:
    from embedindex.index import load_view
    from embedindex.locations import index_folder
    from embedindex.query import QueryMaker
    from embedindex.remix.apart import WHOLE, PartsComposer
    from embedindex.remix.compose import Composer, require_windows
    from embedindex.remix.outputs import guard_library
    from embedindex.remix.seed import read_seed
    from embedindex.remix.separation import write_parts
    from embedindex.store import Store

    with Store(index_folder(index)) as store, tempfile.TemporaryDirectory(prefix="embedindex-") as folder:
        view = load_view(store)
        warn(view.damage)
        require_windows(view, store.folder)
        for target in targets:
            guard_library(target, store)
        model = QueryMaker(store, view.model).model
        if sound.split:
            whole = read_seed(seed, WHOLE, told)
            files = write_parts(whole.path, folder, partial(told, "Taking the seed apart, seconds of sound"))
            parts = PartsComposer(store, view, model, whole, files, options, sound, told)
            yield from (parts.recipe(number, changes) for number in range(len(targets)))
            return
        composer = Composer(store, view, model, seed, options, sound, told)
        change = changes[0] if changes else None
        yield from (composer.recipe(number, change) for number in range(len(targets)))


def describe_all(folder: str, *, quiet: bool) -> None:
    """Describe all files of an index that were not described yet, with progress."""
    from embedindex.remix.coarse import CoarseStore
    from embedindex.remix.tracks import TrackCache
    from embedindex.store import Store

    where = "status = 'ok' AND missing_since IS NULL AND n_windows > 0"
    with (
        Store(folder) as store,
        CoarseStore(folder) as kept,
        told_progress("Describing files for remix", quiet=quiet) as told,
    ):
        TrackCache(kept).fill_all(store.files(where), store.counts().ok, told)


@contextmanager
def told_stages(*, quiet: bool) -> Iterator[Stages]:
    """Give a function of (what, done, in all) that shows it on stderr: a bar, or a line now and then."""
    lines = SlowLines()
    with progress_bar(quiet=quiet) as bar:
        task = None if bar is None else bar.add_task("", note="", visible=False)
        shown = ""

        def told(what: str, done: int, total: int) -> None:
            nonlocal shown
            if bar is not None and task is not None:
                if what != shown:  # the time left is told by this stage's own rate
                    bar.reset(task, description=what, total=total, note="")
                    shown = what
                bar.update(task, completed=done, total=total, note=f"{done:,} of {total:,}", visible=True)
            elif not quiet:
                lines.say(f"{what}: {done:,} of {total:,}")

        yield told


@contextmanager
def told_progress(text: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Give a function of (done, in all) that shows progress as `told_stages` does."""
    with told_stages(quiet=quiet) as told:
        yield partial(told, text)


def finish(
    recipe: Recipe,
    output: str,
    number: int,
    count: int,
    *,
    bits: str,
    extras: Extras,
    dry_run: bool,
    told: Stages,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Write a remix, unless nothing is to be written, and return what there is to say of it; `told` hears of the way.

    When `stop` says so while it is rendered, it ends there.
    """
    from embedindex.remix.outputs import beside, guard, numbered, write_until

    path = numbered(output, number, count)
    written: Written | None = None
    if dry_run:
        guard(path, recipe)
        extras.check(recipe)
    else:
        extras = extras.numbered(number, count)
        recipe, written = write_until(path, recipe, stop, bits=bits, extras=extras, told=told)
    sounding = [event for event in recipe.events if event.source is not None]
    item: dict[str, Any] = {
        "output": path,
        "recipe": beside(path, ".recipe.json"),
        "credits": beside(path, ".credits.csv"),
        "duration": recipe.output.frames / recipe.output.sample_rate,
        "units": len(recipe.events),
        "cut": recipe.options.get("units", "drift"),
        "silent": len(recipe.events) - len(sounding),
        "files": len({event.source for event in sounding}),
        "going_on": sum(event.follows for event in sounding),
        "clamped": sum(event.clamped for event in sounding),
        "distance": _mean([event.target for event in sounding]),
        "roughness": _mean([event.join for event in sounding]),
        "notes": list(recipe.notes),
    }
    if written is None:
        return item
    return {
        **item,
        "lufs": round(written.lufs, 2),
        "true_peak_db": round(written.true_peak_db, 2),
        "limited_db": round(written.limited_db, 2),
    }


def _mean(values: list[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def summary_line(item: dict[str, Any]) -> str:
    """Return what to say of a finished remix."""
    parts = [
        clock(item["duration"]),
        f"{amount(item['units'], 'unit')} ({item['cut']}) from {amount(item['files'], 'file')}",
        f"{item['going_on']} go on in their file",
    ]
    if "lufs" in item:
        parts.append(_level(item["lufs"], item["true_peak_db"]))
    else:
        parts.append("nothing written")
    return f"{item['output']}: {', '.join(parts)}"


def _level(lufs: float, true_peak_db: float) -> str:
    from embedindex.remix.loudness import SILENT_LUFS

    return f"{lufs:.1f} LUFS, {true_peak_db:.1f} dBTP" if lufs > SILENT_LUFS else "silent"


def _required_recipe(recipe: str | None) -> str:
    from embedindex.errors import UsageError

    if recipe is None:
        raise UsageError("--reroll and --lock change a recipe; name it with --recipe OUT.recipe.json")
    return recipe
