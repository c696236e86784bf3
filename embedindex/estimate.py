"""What a scan would cost, before it is started: hours of sound, time and disk, from a sample of the files.

The length of a file is guessed from its size by what a sample of files of its kind says; nothing is decoded.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from embedindex.archive_store import remembered_listing
from embedindex.changes import TodoList, is_wanted, looks_changed
from embedindex.crawl import CrawlTrouble, crawl, outermost
from embedindex.embed import BATCH_WINDOWS
from embedindex.errors import IndexNotFoundError
from embedindex.ignore import Selection
from embedindex.length_probe import LengthProbe
from embedindex.models import Model, ModelRequest
from embedindex.progress import never
from embedindex.roots import refuse_unknown
from embedindex.scan_model import ModelQuestion
from embedindex.store import Store
from embedindex.time_left import SoundLeft

WAIT_S = 0.1
MEASURE_S = 1.0
# The database's rows around the vectors, and the search index, which holds each vector once more.
DISK_PER_VECTOR = 2.1


@dataclass(frozen=True)
class Estimate:
    """What a scan would have to do.

    Attributes:
        found: audio files in the folders.
        todo: files that are new or changed.
        postponed: such files that the options leave for another time.
        bytes: their size.
        audio_s: their length in seconds, guessed.
        windows: how many vectors they would get.
        time_s: how long the model would need, on `workers` processes.
        disk_bytes: what the index would grow by.
        probed: how many files the guess stands on.
    """

    found: int
    todo: int
    postponed: int
    bytes: int
    audio_s: float
    windows: int
    time_s: float
    disk_bytes: int
    probed: int

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as a dictionary for JSON."""
        return asdict(self)


def planned_model(
    folder: str, asked: ModelRequest | None, asked_hop_s: float | None, choose: Callable[[], ModelRequest]
) -> tuple[Model, float]:
    """Return the model that a scan into the index in `folder` would use, and its hop in seconds.

    Args:
        folder: the index folder, which need not be there.
        asked: the model that was asked for, None for the index's own.
        asked_hop_s: the hop that was asked for, None for the index's or the model's.
        choose: asked for a model when nothing was asked for and the index has none.

    Raises:
        ModelMismatchError: the index was made with another model or hop.
        ModelError: the model cannot be used.
    """
    try:
        with Store(folder) as store:
            known = store.model()
    except IndexNotFoundError:
        known = None
    question = ModelQuestion(folder, known, asked, asked_hop_s)
    question.check()
    model, hop_s = question.load(question.request() or choose())
    question.require_same(model.identity, hop_s)
    return model, hop_s


def estimate(
    folder: str,
    roots: list[str | bytes],
    model: Model,
    hop_s: float,
    workers: int,
    *,
    limit: int | None = None,
    since_ns: int | None = None,
    selection: Selection | None = None,
    stop: Callable[[], bool] = never,
) -> Estimate:
    """Return what a scan of `roots` into the index in `folder` would cost; writes nothing.

    Args:
        folder: the index folder, which need not be there.
        roots: what would be scanned.
        model: the model, loaded with one thread.
        hop_s: seconds between windows.
        workers: number of processes.
        limit: how many new or changed files to look at; None for all.
        since_ns: only files changed after this time (Unix, nanoseconds) are looked at; None for all.
        selection: what this run looks at; None for everything.
        stop: asked often; True ends the counting early.

    Raises:
        PathNotFoundError: a root is not there and the index knows nothing of it.
    """
    paths = outermost([os.fsencode(root) for root in roots])
    refuse_unknown(folder, paths)
    try:
        store: Store | None = Store(folder)
    except IndexNotFoundError:
        store = None
    found = postponed = 0
    try:
        with TodoList() as todo:
            for item in crawl(paths, CrawlTrouble(), selection, remembered_listing(store)):
                found += 1
                if stop():
                    break
                state = store.file_state(item.path) if store is not None else None
                if state is not None and not looks_changed(item, state):
                    continue
                if not is_wanted(item, todo.files, limit, since_ns):
                    postponed += 1
                    continue
                todo.add(item, None)
            files, size = todo.files, todo.bytes
            audio_s, probed = _length(todo, stop)
    finally:
        if store is not None:
            store.close()
    windows = round(audio_s / hop_s) + files
    rate = _windows_per_s(model) if files else 1.0
    return Estimate(
        found=found,
        todo=files,
        postponed=postponed,
        bytes=size,
        audio_s=audio_s,
        windows=windows,
        time_s=windows / (rate * max(1, workers)),
        disk_bytes=round(windows * model.identity.dimension * 2 * DISK_PER_VECTOR),
        probed=probed,
    )


def _length(todo: TodoList, stop: Callable[[], bool]) -> tuple[float, int]:
    """Return (seconds of sound in the files on a list, number of files that were looked into)."""
    sound = SoundLeft(todo.sample.sizes())
    probe = LengthProbe(todo.sample.choose())
    probed = 0
    try:
        while not probe.done and not stop():
            for length in probe.poll(WAIT_S):
                sound.learn(length.path, length.size, length.duration_s)
                probed += 1
    finally:
        probe.close()
    return sound.left_s(), probed


def _windows_per_s(model: Model) -> float:
    """Return how many windows a second the model embeds in this process."""
    windows = np.random.default_rng(0).uniform(-1, 1, (BATCH_WINDOWS, model.identity.window_samples))
    noise = windows.astype(np.float32)
    model.embed(noise)  # the first call sets things up
    done, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < MEASURE_S:
        model.embed(noise)
        done += BATCH_WINDOWS
    return done / elapsed
