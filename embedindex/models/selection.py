"""The stored answer to "may this network run in cheaper arithmetic here?".

It is asked once for each weights file, kind of processor and ladder of variants (`embedindex.models.quantise`).
A selection is made with the project's own synthetic sounds, under a lock, so that of several processes one does the
work; it is kept as a converted model (see `embedindex.models.converted`) whose note holds all that was measured.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from embedindex.arrays import Float32Array
from embedindex.errors import WeightsMissingError
from embedindex.models.base import ParameterValue
from embedindex.models.cache import folder_lock
from embedindex.models.calibration import KINDS, synthesise_windows
from embedindex.models.converted import Converted, read_converted, store_converted
from embedindex.models.convnet import ConvNet
from embedindex.models.quantise import METHOD_VERSION, Advance, Ladder, Reduce, Report, integer_ladder, part, select

# Windows of each kind of sound: to prepare on, and others to judge on.
CALIBRATION_ROUNDS = 9
JUDGED_ROUNDS = 14
CALIBRATION_SEED = 1
JUDGED_SEED = 2
# Share of the time that making the sounds takes.
SOUNDS_SHARE = 0.07
# Processor features with which 8-bit products are summed exactly and fast.
INTEGER_FEATURES = ("avx512_vnni", "avx_vnni", "asimddp", "i8mm")
# And those with which bfloat16 is multiplied.
BFLOAT_FEATURES = ("amx_bf16", "avx512_bf16")


@dataclass(frozen=True)
class Subject:
    """A network whose precision is in question.

    Attributes:
        key: what the conversions of its weights are stored under.
        net: reads the network.
        spectrograms: its front end, windows (n, window_samples) to spectrograms.
        reduce: makes vectors of its cells.
        sample_rate: Hz.
        window_samples: samples at `sample_rate`.
        batch: windows in one call on a processor.
        tiled: float32 is computed by tiles on a processor.
    """

    key: str
    net: Callable[[], ConvNet]
    spectrograms: Callable[[Float32Array], Float32Array]
    reduce: Reduce
    sample_rate: int
    window_samples: int
    batch: int
    tiled: bool


@lru_cache(maxsize=2)
def processor(*groups: tuple[str, ...]) -> str:
    """Return what kind of processor this is: e.g. ``"x86_64-avx512_vnni"``, with the first feature of each group."""
    machine = platform.machine().lower() or "unknown"
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            words = set(file.read().split())
    except OSError:  # not Linux; the measurement still decides
        return machine
    found = [next((feature for feature in group if feature in words), "") for group in groups]
    return "-".join([machine, *filter(None, found)])


def selection_key(key: str, precision: str = "int8") -> str:
    """Return the name under which the selection for the conversions `key` on this kind of processor is stored."""
    kind = processor(INTEGER_FEATURES) if precision == "int8" else processor(INTEGER_FEATURES, BFLOAT_FEATURES)
    return f"{key}-{precision}-m{METHOD_VERSION}-{kind}"


def stored_selection(key: str, precision: str = "int8") -> Converted | None:
    """Return the selection made before for a ladder of variants of that precision, None when there is none."""
    return read_converted(selection_key(key, precision))


def make_selection(
    subject: Subject,
    threads: int,
    report: Report,
    advance: Advance = lambda _: None,
    ladder: Ladder | None = None,
) -> Converted:
    """Return the selection for `subject`, made now unless it is stored; takes a minute or two.

    `report` is told in words what is being done, `advance` which share of it is done, from 0 to 1.
    The cheaper model is in it whatever was decided; ``facts["chosen"]`` is the decision, ``facts["message"]`` says it.
    `ladder` are the variants, None for 8-bit ones in ONNX Runtime.
    """
    ladder = ladder or integer_ladder(subject.batch)
    key = selection_key(subject.key, ladder.precision)
    try:
        with folder_lock(os.path.join("converted", key)):
            return read_converted(key) or _select(subject, ladder, threads, report, advance)
    except WeightsMissingError as problem:  # the folder cannot be written, so no other process will find it either
        report(f"the choice of precision cannot be kept: {problem}")
        return _select(subject, ladder, threads, report, advance)


def precision_parameters(selected: Converted | None) -> dict[str, ParameterValue]:
    """Return what a model's identity says about its precision: of the cheaper model `selected`, or of float32."""
    if selected is None:
        return {"precision": "fp32"}
    return {
        "precision": str(selected.facts["precision"]),
        # The variant, not the bytes: on another machine the same variant's ranges differ in their last digits only.
        "quantisation": str(selected.facts["variant"]),
        "agrees_with_fp32": bool(selected.facts["agrees"]),
    }


def _select(subject: Subject, ladder: Ladder, threads: int, report: Report, advance: Advance) -> Converted:
    report("making sounds to measure the precision with")
    rate, length = subject.sample_rate, subject.window_samples
    calibration = synthesise_windows(CALIBRATION_ROUNDS * len(KINDS), length, rate, CALIBRATION_SEED)
    judged = synthesise_windows(JUDGED_ROUNDS * len(KINDS), length, rate, JUDGED_SEED)
    spectrograms = [subject.spectrograms(windows) for windows in (calibration, judged)]
    advance(SOUNDS_SHARE)
    selection = select(
        subject.net(),
        *spectrograms,
        ladder=ladder,
        reduce=subject.reduce,
        threads=threads,
        batch=subject.batch,
        tiled=subject.tiled,
        report=report,
        advance=part(advance, SOUNDS_SHARE, 1.0),
    )
    return store_converted(selection_key(subject.key, ladder.precision), selection.content, selection.facts())
