"""``embedindex map``: the whole library on a plane, to look at and to listen to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from embedindex.cli.console import amount, progress_bar, say
from embedindex.cli.filter_options import with_filters
from embedindex.cli.options import IndexOption, QuietOption
from embedindex.cli.threads import spare_threads

if TYPE_CHECKING:
    from embedindex.filters import Filters


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("map")(map_library)


@with_filters
def map_library(
    out: Annotated[str, typer.Argument(metavar="OUT.html", help="The page to write; OUT.png: a picture only.")],
    index: IndexOption = None,
    method: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--method", help="pacmap, opentsne (embedindex[map]) or pca; else the first that is installed."),
    ] = None,
    by: Annotated[str, typer.Option(help="A point for each file, or for each window.")] = "file",
    colour: Annotated[
        str, typer.Option("--colour", metavar="KEY", help="Colour by folder, key, or a label's key: genre.")
    ] = "folder",
    png: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--png", metavar="OUT.png", help="Also write a picture (needs embedindex[plots])."),
    ] = None,
    most: Annotated[
        int,
        typer.Option("--points", min=3, metavar="N", help="At most so many points, evenly spread."),
    ] = 20_000,
    rng: Annotated[int, typer.Option("--rng", min=0, help="Another number, another map.")] = 0,
    filters: Filters | None = None,
    quiet: QuietOption = False,
) -> None:
    """Draw the library as a map: what sounds alike lies together. A page to hover, search and listen.

    Open the page in a browser; a click plays the file, from where it lies on this machine.

    Example: embedindex map library.html --colour genre
    """
    spare_threads()
    from embedindex.errors import UsageError, display_path
    from embedindex.index import load_view
    from embedindex.locations import index_folder
    from embedindex.map_layout import choose_method, lay_out
    from embedindex.map_page import page
    from embedindex.map_picture import draw_map
    from embedindex.map_points import gather_points
    from embedindex.store import Store
    from embedindex.whole_files import require_absent, whole_file

    by = by.removesuffix("s")
    if by not in ("file", "window"):
        raise UsageError(f"--by {by}: choose file or window")
    as_page = not out.lower().endswith(".png")
    pictures = {name for name in (png, None if as_page else out) if name is not None}
    if as_page and not out.lower().endswith((".html", ".htm")):
        raise UsageError(f"{display_path(out)}: choose a name that ends in .html, or in .png for a picture only")
    for target in (out, *pictures):
        require_absent(target)
    chosen = choose_method(method)
    with Store(index_folder(index)) as store, progress_bar(quiet=quiet) as bar:
        if bar is not None:
            bar.add_task(f"Laying out with {chosen}", total=None, note="")
        points = gather_points(
            store,
            load_view(store),
            by="window" if by == "window" else "file",
            colour=colour.lower(),
            filters=filters,
            most=most,
        )
        places = lay_out(points.vectors, chosen, rng)
    about = f"{amount(len(points.points), by)}, laid out with {chosen}, coloured by {colour}"
    if points.available > len(points.points):
        about = f"{len(points.points):,} of {amount(points.available, by)}, evenly spread; {about.partition(', ')[2]}"
    if as_page:
        with whole_file(out, replace=False) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.write(page(points, places, about, windows=by == "window"))
    for picture in pictures:
        draw_map(points, places, about, picture)
    if not quiet:
        say(f"embedindex: {about}; " + (f"open {display_path(out)} in a browser" if as_page else display_path(out)))
