"""A model plug-in for the tests, found through its entry point: fast, small, and ready to crash or hang on demand.

A vector holds the log energies of 16 bands of the spectrum. A constant positive sound kills the process, a constant
negative one hangs it; that is how tests make a worker crash or stall on a real file. With the option ``room=N`` a
process that computes it for others (`models.device_process`) has memory for so many windows; with ``broken=yes`` it
fails; with ``broken=all`` no process can compute. With ``hungry=MIB`` a call asks for so much memory for each window.

With ``until=PATH`` the sounds wait until that file exists, in each process all but the first windows where
``free=WINDOWS`` says how many of them do not. ``PATH.N`` says that process N waits, or hangs. So tests know what is in
the middle of its work, however fast the machine is.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.errors import ModelError, UsageError
from embedindex.models import ModelIdentity, ModelRequest

RATE = 8000
BANDS = 16


class TinyModel:
    default_hop_s = 0.5
    mixes_sounds = True

    def __init__(
        self,
        version: int,
        standardise: bool,
        precision: dict[str, str | bool],
        room: int | None,
        broken: str,
        until: str | None,
        free: int,
        hungry: int,
    ) -> None:
        self._room = room
        self._broken = broken
        self._until = until
        self._free = free
        self._hungry = hungry
        self._identity = ModelIdentity(
            name="tiny",
            sample_rate=RATE,
            window_samples=RATE,
            dimension=BANDS,
            standardise=standardise,
            parameters={"version": version, **precision},
        )

    @property
    def identity(self) -> ModelIdentity:
        return self._identity

    def embed(self, windows: Float32Array) -> Float32Array:
        return self.compute(self.prepare(windows))

    def prepare(self, windows: Float32Array) -> Float32Array:
        for window in windows:
            if window.min() > 0.9:
                os.kill(os.getpid(), signal.SIGKILL)
            if window.max() < -0.9:
                self._tell_that_it_waits()
                time.sleep(3600)
        spectrum = np.abs(np.fft.rfft(windows, axis=1))[:, 1 : 1 + RATE // 2] ** 2
        return spectrum.reshape(len(windows), BANDS, -1)

    def compute(self, inputs: Float32Array) -> Float32Array:
        if "CUDA_VISIBLE_DEVICES" in os.environ:  # only a device's process has it
            if self._room is not None and len(inputs) > self._room:
                raise MemoryError
            if self._broken == "yes":
                raise RuntimeError("the driver is out of order")
        if self._broken == "all":
            raise ModelError("the network cannot be computed")
        np.empty((len(inputs), self._hungry, 2**20), np.uint8)
        if self._until is not None and inputs.any():
            if self._free <= 0 and not os.path.exists(self._until):
                self._tell_that_it_waits()
                while not os.path.exists(self._until):
                    time.sleep(0.02)
            self._free -= len(inputs)
        bands = inputs.mean(axis=2)
        vectors: Float32Array = np.log1p(bands).astype(np.float32)
        return vectors

    def _tell_that_it_waits(self) -> None:
        if self._until is not None:
            Path(f"{self._until}.{os.getpid()}").touch()


def load(request: ModelRequest) -> TinyModel:
    options = dict(request.options)
    version = int(options.pop("version", "1"))
    standardise = options.pop("standardise", "no") == "yes"
    room = options.pop("room", None)
    broken = options.pop("broken", "no")
    until = options.pop("until", None)
    free = int(options.pop("free", "0"))
    hungry = int(options.pop("hungry", "0"))
    precision: dict[str, str | bool] = {"precision": "fp32"}
    if request.precision == "int8":  # the same numbers, said to be another precision's
        precision = {"precision": "int8", "agrees_with_fp32": options.pop("agrees", "yes") == "yes"}
    if options:
        raise UsageError(f"tiny has no option {next(iter(options))}")
    return TinyModel(version, standardise, precision, None if room is None else int(room), broken, until, free, hungry)
