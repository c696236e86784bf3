"""``embedindex scan``: crawl folders, embed what is new or changed, forget what is gone."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from embedindex.cli.console import print_json, progress_bar, say
from embedindex.cli.interrupts import Interrupts
from embedindex.cli.options import (
    ExcludeOption,
    IncludeOption,
    IndexOption,
    JsonOption,
    QuietOption,
    WorkersOption,
    parse_since,
)
from embedindex.cli.scan_report import Bar, Display, JsonLines, Lines, Nothing, print_estimate, print_summary
from embedindex.cores import count_processes

if TYPE_CHECKING:
    from embedindex.models import ModelRequest
    from embedindex.progress import ScanSummary
    from embedindex.ray_pool import Cluster
    from embedindex.scan import ScanOptions

MAX_HOP_S = 3600.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(scan)


def scan(
    paths: Annotated[list[str], typer.Argument(metavar="PATH…", help="Folders (or single files) to scan.")],
    index: IndexOption = None,
    model: Annotated[
        str,
        typer.Option(
            help="auto, or NAME[:KEY=VALUE,…] (see `embedindex models list`). An index keeps its first scan's model."
        ),
    ] = "auto",
    weights: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="FILE", help="Use this weights file instead of the model's own."),
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, fp32, int8 or bf16.")] = "auto",
    engine: Annotated[
        str,
        typer.Option(help="auto, onnxruntime, openvino, tensorflow or openl3; ray: on a cluster; both: ray,openvino."),
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, or cuda: NVIDIA devices compute the model.")] = "auto",
    address: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="HOST:PORT", help="With --engine ray: the cluster (auto: the one this machine is in)."),
    ] = None,
    path_map: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--map", metavar="HERE=THERE", help="With --engine ray: what a folder is on the machines; may be repeated."
        ),
    ] = None,
    hop: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0.001, metavar="SECONDS", help="Time between two windows (else the model's default)."),
    ] = None,
    workers: WorkersOption = 0,
    nice: Annotated[int, typer.Option(min=0, max=19, help="How far to give way to other programs.")] = 5,
    prune: Annotated[
        bool, typer.Option("--prune", help="Forget missing files too, also of a disk that is not there.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 when a file could not be used.")] = False,
    durable: Annotated[
        bool, typer.Option("--durable", help="Sync every file to disk: a power cut loses nothing (slower).")
    ] = False,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    limit: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, metavar="N", help="Look at so many new or changed files at most."),
    ] = None,
    since: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="WHEN", help="Only files changed since a date (2026-03-31), or in the last 2d, 3h…"),
    ] = None,
    max_load: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0, metavar="X", help="Begin no further file while the machine's load average is above this."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what a scan would cost in time and disk; the index is not touched.")
    ] = False,
    log: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="FILE", help="Append what happens to this file; each sound is named before it is opened."),
    ] = None,
    analyse: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="tempo,key", help="Then find the tempo, the key or both (needs embedindex[analyse])."),
    ] = None,
    remix: Annotated[
        bool, typer.Option("--remix", help="Then describe every file for remix, which else does it as it goes.")
    ] = False,
    progress: Annotated[str, typer.Option(help="auto, or json: one JSON object a line on stderr.")] = "auto",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make or update an index of all sound in some folders.

    Only what is new or changed is read. Ctrl-C finishes the files in hand; run the same command again to go on.

    Example: embedindex scan /music ~/samples
    """
    from embedindex.cli.logs import log_to, waits_are_told
    from embedindex.errors import UsageError
    from embedindex.locations import index_folder
    from embedindex.models.devices import check_device
    from embedindex.scan import ScanOptions

    check_device(device)
    if hop is not None and not hop < MAX_HOP_S:
        raise UsageError(f"--hop {hop:g}: give a number of seconds below {MAX_HOP_S:g}")
    if progress not in ("auto", "json"):
        raise UsageError(f"--progress {progress}: choose auto or json")
    if max_load is not None and not hasattr(os, "getloadavg"):
        raise UsageError("--max-load: this system does not tell its load; use --workers and --nice")
    attributes = _attributes(analyse)
    cluster, engine = _cluster(engine, address, path_map)
    options = ScanOptions(
        request=requested_model(model, weights, precision, engine),
        hop_s=hop,
        workers=workers,
        niceness=nice,
        max_load=max_load,
        limit=limit,
        since_ns=None if since is None else parse_since(since, datetime.now().astimezone()),
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        prune=prune,
        durable=durable,
        device=device,
        cluster=cluster,
    )
    folder = index_folder(index)
    with log_to(log), waits_are_told(quiet=quiet):
        if dry_run:
            _estimate(folder, paths, options, json=json, quiet=quiet)
            return
        summary = _scan(folder, paths, options, as_json=progress == "json", quiet=quiet)
    if any(attributes) and not summary.interrupted:
        from embedindex.cli.analyse import run_analysis

        tempo, key = attributes
        analysed = run_analysis(folder, paths, tempo=tempo, key=key, workers=workers, quiet=quiet)
        summary = replace(summary, interrupted=analysed["interrupted"])
    if remix and not summary.interrupted:
        from embedindex.cli.remix import describe_all

        describe_all(folder, quiet=quiet)
    _finish(folder, summary, json=json, quiet=quiet, strict=strict)


def _attributes(text: str | None) -> tuple[bool, bool]:
    """Return (tempo, key): what ``--analyse`` asks for."""
    from embedindex.errors import UsageError
    from embedindex.tempo_key import require_librosa

    names = set() if text is None else {name.strip() for name in text.split(",")}
    if text is not None and (not names or not names <= {"tempo", "key"}):
        raise UsageError(f"--analyse {text}: choose tempo, key or tempo,key")
    if names:
        require_librosa()
    return "tempo" in names, "key" in names


def _scan(folder: str, paths: list[str], options: ScanOptions, *, as_json: bool, quiet: bool) -> ScanSummary:
    from embedindex.scan import scan as run_scan

    log = logging.getLogger("embedindex.scan")
    with Interrupts() as stop, progress_bar(quiet=quiet or as_json) as bar:
        display: Display
        if as_json:
            display = JsonLines()
        elif bar is not None:
            display = Bar(bar)
        else:
            display = Nothing() if quiet else Lines()
        options = replace(options, choose=lambda: chosen_model(display, quiet=quiet))
        log.info("scan of %s into %s", ", ".join(paths), folder)
        summary = run_scan(folder, list(paths), options, report=display.report, stop=stop)
        for path, reason in summary.unseen:
            log.warning("cannot look at %s: %s", path, reason)
        counts = [f"{name} {value}" for name, value in summary.to_json().items() if value and name != "unseen"]
        log.info("scan ended: %s", ", ".join(counts))
        display.finish(summary)
    return summary


def _cluster(engine: str, address: str | None, path_map: list[str] | None) -> tuple[Cluster | None, str]:
    """Return the cluster that the options ask for, None for this machine alone, and the engine of the model."""
    from embedindex.errors import UsageError

    engines = engine.split(",")
    if "ray" not in engines:
        if address or path_map:
            raise UsageError("--address and --map are about a cluster; they need --engine ray")
        return None, engine
    from embedindex.path_map import parse_path_map
    from embedindex.ray_pool import Cluster

    engines.remove("ray")
    return Cluster(address, parse_path_map(path_map or ())), ",".join(engines) or "auto"


def _estimate(folder: str, paths: list[str], options: ScanOptions, *, json: bool, quiet: bool) -> None:
    from embedindex.estimate import estimate, planned_model
    from embedindex.ignore import Selection

    selection = Selection(options.include, options.exclude)
    model, hop_s = planned_model(
        folder, options.request, options.hop_s, lambda: chosen_model(Nothing(), fetch=False, quiet=quiet)
    )
    workers = count_processes(options.workers)
    guess = estimate(
        folder,
        list(paths),
        model,
        hop_s,
        workers,
        limit=options.limit,
        since_ns=options.since_ns,
        selection=selection,
    )
    if json:
        about = {"index": folder, "model": model.identity.name, "hop_s": hop_s, "workers": workers}
        print_json({**guess.to_json(), **about})
    elif not quiet:
        print_estimate(guess, model.identity.name, workers)


def requested_model(
    model: str, weights: str | None = None, precision: str = "auto", engine: str = "auto"
) -> ModelRequest | None:
    """Return the model that the options of these names ask for, None when they ask for none.

    Raises:
        UsageError: they make no sense together.
    """
    from embedindex.errors import UsageError
    from embedindex.models import parse_request

    if model == "auto":
        if weights or precision != "auto" or engine != "auto":
            raise UsageError("--weights, --precision and --engine need a --model, for example --model openl3")
        return None
    return replace(parse_request(model), weights=weights, precision=precision, engine=engine)


def chosen_model(display: Display, *, quiet: bool, fetch: bool = True) -> ModelRequest:
    """Return the model for a new index, ready: the index is to keep the precision that is chosen here."""
    from embedindex.models.auto import choose_model
    from embedindex.models.catalogue import find_entry, prepare

    request, reason = choose_model(fetch=fetch, progress=display.fetching)
    if not quiet:
        say(reason)
    if not fetch and request.name == "spectral" and not quiet:
        say("a scan tries to fetch a better one first; do it now with: embedindex models fetch")
    told = None if quiet else lambda text: say(f"embedindex: {text}")
    prepare(find_entry(request.name), told, display.preparing)
    return request


def _finish(folder: str, summary: ScanSummary, *, json: bool, quiet: bool, strict: bool) -> None:
    from embedindex.store import Store

    with Store(folder) as store:
        counts = store.counts()
        model = store.model()
    if json:
        data = {
            **summary.to_json(),
            "index": folder,
            "model": model.identity.name if model else None,
            "total": {
                "files": counts.ok,
                "failed": counts.failed,
                "missing": counts.missing,
                "windows": counts.windows,
            },
        }
        print_json(data)
    elif not quiet:
        print_summary(folder, summary, counts, model.identity.name if model else None)
    if summary.interrupted:
        say("embedindex: interrupted; run the same command again to go on")
        raise typer.Exit(130)
    if strict and (counts.failed or summary.unseen):
        raise typer.Exit(1)
