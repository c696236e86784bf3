"""``embedindex embed``: vectors of sound files to ``.npz``, with the options of ``openl3 audio``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from embedindex.cli.console import progress_bar, say
from embedindex.cores import count_cores

if TYPE_CHECKING:
    from rich.progress import Progress

    from embedindex.embed_files import Job, Settings
    from embedindex.models import ModelRequest
    from embedindex.models.base import Model

INPUT_REPR, CONTENT_TYPE, EMBEDDING_SIZE, FRONTEND = "mel256", "music", 6144, "kapre"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(embed)


def embed(
    inputs: Annotated[list[str], typer.Argument(metavar="FILE|DIR…", help="Sound files, or folders of them.")],
    output_dir: Annotated[
        Optional[str],  # noqa: UP045 - typer evaluates this at run time, also on Python 3.10
        typer.Option("--output-dir", "-o", metavar="DIR", help="Folder of the results (else beside each sound)."),
    ] = None,
    suffix: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--suffix", "-x", help="Put after each result's name: NAME_SUFFIX.npz."),
    ] = None,
    input_repr: Annotated[
        str, typer.Option("--input-repr", "-i", help="OpenL3's input: linear, mel128 or mel256.")
    ] = INPUT_REPR,
    content_type: Annotated[
        str, typer.Option("--content-type", "-c", help="What OpenL3 was trained on: music or env.")
    ] = CONTENT_TYPE,
    audio_embedding_size: Annotated[
        int, typer.Option("--audio-embedding-size", "-as", help="Numbers a window, of OpenL3: 6144 or 512.")
    ] = EMBEDDING_SIZE,
    no_audio_centering: Annotated[
        bool,
        typer.Option(
            "--no-audio-centering", "-n", help="OpenL3: timestamps are the starts of the windows, not the middles."
        ),
    ] = False,
    audio_hop_size: Annotated[
        float, typer.Option("--audio-hop-size", "-t", metavar="SECONDS", help="Time between two windows.")
    ] = 0.1,
    audio_batch_size: Annotated[
        int, typer.Option("--audio-batch-size", "-ab", min=1, help="Windows handed to the model at once.")
    ] = 32,
    audio_frontend: Annotated[
        str, typer.Option("--audio-frontend", "-af", help="OpenL3's front end: kapre, librosa or original.")
    ] = FRONTEND,
    overwrite: Annotated[bool, typer.Option("--overwrite", "-ow", help="Replace results that exist.")] = False,
    model: Annotated[str, typer.Option(help="auto, or NAME[:KEY=VALUE,…] of any model.")] = "openl3",
    weights: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="FILE", help="Use this weights file instead of the model's own."),
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, fp32, int8 or bf16.")] = "auto",
    engine: Annotated[str, typer.Option(help="auto, onnxruntime, openvino, tensorflow or openl3.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Write the vectors of sounds to .npz files (arrays embedding and timestamps), as `openl3 audio` does.

    Results that exist are left alone. A file that cannot be read is reported, the others are done; exit status 1 then.

    Example: embedindex embed loops/ kick.wav -o vectors/ -as 512 -t 0.5
    """
    from embedindex.embed_files import Settings, plan_jobs

    options = {
        "input_repr": input_repr,
        "content_type": content_type,
        "embedding_size": str(audio_embedding_size),
        "frontend": audio_frontend,
    }
    request = _request(model, options, weights, precision, engine, quiet=quiet)
    settings = Settings(audio_hop_size, not no_audio_centering, audio_batch_size)
    jobs = plan_jobs(inputs, output_dir, suffix)
    due = [job for job in jobs if overwrite or not os.path.exists(job.target)]
    if len(due) < len(jobs) and not quiet:
        say(f"embedindex: {len(jobs) - len(due)} of {len(jobs)} results exist and are kept (--overwrite replaces them)")
    if due and not _run(due, _load(request, quiet=quiet), settings, quiet=quiet):
        raise typer.Exit(1)


def _request(
    model: str, options: dict[str, str], weights: str | None, precision: str, engine: str, *, quiet: bool
) -> ModelRequest:
    """Return the request; OpenL3's own options may stand in --model as well and win there."""
    from dataclasses import replace

    from embedindex.errors import UsageError
    from embedindex.models import parse_request

    request = parse_request(model)
    if request.name == "auto":
        from embedindex.models.auto import choose_model

        request, line = choose_model()
        if not quiet:
            say(f"embedindex: {line}")
    if request.name == "openl3":
        request = replace(request, options=tuple(sorted({**options, **dict(request.options)}.items())))
    else:
        defaults = (INPUT_REPR, CONTENT_TYPE, str(EMBEDDING_SIZE), FRONTEND)
        if tuple(options.values()) != defaults:
            raise UsageError(f"-i, -c, -as and -af are options of openl3; the model is {request.name}")
    return replace(request, weights=weights, precision=precision, engine=engine, threads=count_cores())


def _load(request: ModelRequest, *, quiet: bool) -> Model:
    from embedindex.models import load_model

    if request.name != "openl3":
        return load_model(request)
    from embedindex.models.openl3 import load

    return load(request, None if quiet else lambda text: say(f"embedindex: {text}"))


def _run(jobs: list[Job], model: Model, settings: Settings, *, quiet: bool) -> bool:
    """Do the jobs; return False when some could not be done."""
    from embedindex.embed_files import embed_sound, write_result
    from embedindex.errors import AudioError, display_path

    well = True
    with progress_bar(quiet=quiet) as bar:
        for number, job in enumerate(jobs, 1):
            try:
                embedding, timestamps = embed_sound(job.source, model, settings, _follow(bar, job, number, len(jobs)))
            except AudioError as problem:
                say(f"embedindex: {problem}")
                well = False
                continue
            write_result(job.target, embedding, timestamps)
            if not quiet:
                say(f"embedindex: {display_path(job.target)}: {len(embedding):,} x {embedding.shape[1]:,}")
    return well


def _follow(bar: Progress | None, job: Job, number: int, count: int) -> Follow | None:
    return None if bar is None else Follow(bar, job, f"{number}/{count}")


class Follow:
    """Moves the progress bar of one file."""

    def __init__(self, bar: Progress, job: Job, note: str) -> None:
        from rich.markup import escape

        from embedindex.errors import display_path

        self._bar = bar
        for task in list(bar.task_ids):
            bar.remove_task(task)
        self._task = bar.add_task(escape(display_path(os.path.basename(job.source))), total=None, note=note)

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` windows are done."""
        self._bar.update(self._task, completed=done, total=total)
