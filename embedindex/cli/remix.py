"""``embedindex remix`` and ``embedindex render``: new pieces out of a seed and the library."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from embedindex.cli.console import SlowLines, amount, clock, print_json, print_line, progress_bar, say
from embedindex.cli.options import IndexOption, JsonOption, QuietOption

if TYPE_CHECKING:
    from embedindex.remix.compose import Sound
    from embedindex.remix.master import Written
    from embedindex.remix.options import RemixOptions
    from embedindex.remix.outputs import Extras
    from embedindex.remix.recipe import Recipe
    from embedindex.remix.revision import Revision

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
    layers: Annotated[int, typer.Option(min=1, max=8, help="So many remixes at once.")] = 1,
    dry_wet: Annotated[str, typer.Option(metavar="0…1", help="Share of the remix; the rest is the seed.")] = "1",
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
    Options shown as 0…1 also take breakpoints over time in seconds: --match 0:1,60:0.2

    Example: embedindex remix seed.wav -o out.wav --preset ambient --exclude "drums/*"
    """
    from embedindex.remix.breakpoints import parse_breakpoints
    from embedindex.remix.compose import Sound
    from embedindex.remix.master import check_target
    from embedindex.remix.morph import MODES, TAILS
    from embedindex.remix.outputs import read_recipe
    from embedindex.remix.revision import revision
    from embedindex.remix.sequence import parse_length

    options = _options(locals())
    sound = Sound(
        sample_rate=rate,
        lufs=_lufs(lufs),
        true_peak_db=true_peak,
        dry_wet=parse_breakpoints("--dry-wet", dry_wet, 0.0, 1.0),
        layers=layers,
        morph=one_of("--morph", morph, MODES),
        amount=parse_breakpoints("--morph-amount", morph_amount, 0.0, 1.0),
        tail=one_of("--tail", tail, TAILS),
        length_s=None if length is None else parse_length(length),
    )
    check_target(output, bits)
    extras = _extras(labels, events, picture, stems, stems_by, rpp)
    extras.check()
    change = None
    if recipe is not None or reroll is not None or lock is not None:
        change = revision(read_recipe(_required_recipe(recipe)), reroll, lock)
    made = []
    for number, found in enumerate(_recipes(seed, index, options, sound, variations, change, quiet=quiet)):
        made.append(finish(found, output, number, variations, bits=bits, extras=extras, dry_run=dry_run))
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
    from embedindex.remix.outputs import read_recipe, render_recipe

    extras = _extras(labels, events, picture, stems, stems_by, rpp)
    extras.check()
    written = render_recipe(read_recipe(recipe), output, bits=bits, extras=extras)
    if not quiet:
        print_line(f"{output}: {written.lufs:.1f} LUFS, {written.true_peak_db:.1f} dBTP")


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
    count: int,
    change: Revision | None,
    *,
    quiet: bool,
) -> Iterator[Recipe]:
    from embedindex.index import load_view
    from embedindex.locations import index_folder
    from embedindex.query import QueryMaker
    from embedindex.remix.compose import Composer, require_windows
    from embedindex.store import Store

    with Store(index_folder(index)) as store:
        view = load_view(store)
        if view.damage:
            say(f"embedindex: {view.damage}")
        require_windows(view, store.folder)
        with told_progress("Listening to files for the first time", quiet=quiet) as told:
            composer = Composer(store, view, QueryMaker(store, view.model).model, seed, options, sound, told)
        for number in range(count):
            yield composer.recipe(number, change)


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
def told_progress(text: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Give a function of (done, in all) that shows progress on stderr: a bar on a terminal, a line now and then."""
    lines = SlowLines()
    with progress_bar(quiet=quiet) as bar:
        task = None if bar is None else bar.add_task(text, note="", visible=False)

        def told(done: int, total: int) -> None:
            if bar is not None and task is not None:
                bar.update(task, completed=done, total=total, note=f"{done:,} of {total:,}", visible=True)
            elif not quiet:
                lines.say(f"{text}: {done:,} of {total:,}")

        yield told


def finish(
    recipe: Recipe, output: str, number: int, count: int, *, bits: str, extras: Extras, dry_run: bool
) -> dict[str, Any]:
    """Write a remix, unless nothing is to be written, and return what there is to say of it."""
    from embedindex.remix.outputs import beside, guard, numbered, write_remix

    path = numbered(output, number, count)
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
    if dry_run:
        guard(path, recipe)
        extras.check(recipe)
        return item
    written: Written = write_remix(path, recipe, bits=bits, extras=extras.numbered(number, count))
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
        parts.append(f"{item['lufs']:.1f} LUFS, {item['true_peak_db']:.1f} dBTP")
    else:
        parts.append("nothing written")
    return f"{item['output']}: {', '.join(parts)}"


def _required_recipe(recipe: str | None) -> str:
    from embedindex.errors import UsageError

    if recipe is None:
        raise UsageError("--reroll and --lock change a recipe; name it with --recipe OUT.recipe.json")
    return recipe


def _lufs(text: str) -> str | float:
    from embedindex.errors import UsageError

    if text == "seed":
        return text
    try:
        value = float(text)
    except ValueError:
        value = 1.0
    if not -70 <= value <= 0:
        raise UsageError(f"--lufs {text}: write seed, or a loudness from -70 to 0, for example -16")
    return value


def one_of(name: str, text: str, choices: tuple[str, ...]) -> str:
    """Return `text`, one of the choices of option `name`.

    Raises:
        UsageError: it is none of them.
    """
    from embedindex.errors import UsageError

    if text not in choices:
        raise UsageError(f"{name} {text}: choose one of {', '.join(choices)}")
    return text


def _share(name: str, text: str) -> float:
    from embedindex.errors import UsageError

    try:
        value = float(text.rstrip("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise UsageError(f"{name} {text}: write a share, for example 25% or 0.25")
    return value


def _options(given: dict[str, Any]) -> RemixOptions:
    """Return the options that a command line asks for: its preset's, else the defaults, changed by what was given."""
    from dataclasses import replace

    from embedindex.remix.breakpoints import parse_breakpoints
    from embedindex.remix.options import parse_weights, preset
    from embedindex.remix.units import parse_units

    options = preset(given["preset"])
    changed: dict[str, Any] = {}
    for name, highest in (("match", 1.0), ("continuity", 1.0), ("novelty", 1.0), ("temperature", 2.0)):
        if given[name] is not None:
            changed[name] = parse_breakpoints(f"--{name}", given[name], 0.0, highest)
    if given["units"] is not None:
        changed["cutting"] = parse_units(given["units"])
    if given["no_repeat"] is not None:
        changed["no_repeat"] = given["no_repeat"]
    for name in ("max_per_file", "max_per_folder"):
        if given[name] is not None:
            changed[name] = _share("--" + name.replace("_", "-"), given[name])
    return replace(
        options,
        **changed,
        weights=parse_weights(given["weights"]),
        include=tuple(given["include"] or ()),
        exclude=tuple(given["exclude"] or ()),
        allow_self=given["allow_self"],
        far=given["far"] or options.far,
        chance=given["rng"],
    )
