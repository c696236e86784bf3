"""A model whose network another process computes (`device_process`); by itself where that process ends."""

from __future__ import annotations

import multiprocessing
import os
import socket
import struct
import sys
from multiprocessing.connection import Client, Connection

from embedindex.arrays import Float32Array
from embedindex.errors import ModelError
from embedindex.messages import GONE, receive_message, send_message
from embedindex.models.base import ModelIdentity, TwoStepModel

# Loading a model on a device may measure it first.
READY_S = 600.0
# Less than after what a scan takes a silent worker to hang.
ANSWER_S = 30.0


class RemoteModel:
    """Prepares windows here, and has the rest of the work done elsewhere.

    Args:
        model: the model, which computes by itself once the other process is gone.
        address: of the other process.
        answer_s: how long to wait for an answer; a process that takes longer is taken to be gone.

    Raises:
        ModelError: the other process has another model.
    """

    mixes_sounds = True  # a call of the network holds what several workers sent anyway

    def __init__(self, model: TwoStepModel, address: str, *, answer_s: float = ANSWER_S) -> None:
        self._model = model
        self._answer_s = answer_s
        self._connection: Connection | None = None
        try:
            self._connection = Client(address, authkey=bytes(multiprocessing.current_process().authkey))
            _limit_sending(self._connection, answer_s)
            if not self._connection.poll(READY_S):
                raise EOFError
            _, fingerprint = self._connection.recv()
        except (*GONE, OSError):
            self._leave()
            return
        if fingerprint != model.identity.fingerprint:
            raise ModelError("the model changed while the scan was starting; run the scan again")

    @property
    def identity(self) -> ModelIdentity:
        """Which vectors these are."""
        return self._model.identity

    @property
    def default_hop_s(self) -> float:
        """Seconds between two windows, as the model has it."""
        return self._model.default_hop_s

    def embed(self, windows: Float32Array) -> Float32Array:
        """Return (n, dimension) float32 for windows (n, window_samples)."""
        if self._connection is None or not len(windows):
            return self._model.embed(windows)
        inputs = self._model.prepare(windows)
        try:
            send_message(self._connection, ("compute", inputs))
            if not self._connection.poll(self._answer_s):
                raise EOFError
            kind, *rest = receive_message(self._connection)
        except (*GONE, OSError):
            self._leave()
            return self._model.embed(windows)
        vectors: Float32Array = rest[0] if kind == "vectors" else self._model.embed(windows)
        return vectors

    def _leave(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _limit_sending(connection: Connection, seconds: float) -> None:
    """Have sending fail with an OSError when the other end does not read for so long."""
    if sys.platform == "win32":  # its pipes have no such limit
        return
    with socket.socket(fileno=os.dup(connection.fileno())) as same:
        limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))  # a struct timeval
        same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
