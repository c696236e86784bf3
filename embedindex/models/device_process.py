"""A process that computes a model's network for the workers that read files: one for each device.

Workers cut sounds into windows and prepare them (`base.TwoStepModel`); this process puts what several of them sent into
one call. Where it cannot go on (no memory, a driver that fails, killed) it ends, its clients compute by themselves
(`remote.RemoteModel`), and the scan goes on. Protocol: to the parent ``("listening",)``, ``("ready",)``,
``("say", text)`` and ``("broken", error)``; to a client ``("ready", fingerprint)``, then for each
``("compute", inputs)`` either ``("vectors", array)`` or ``("yourself",)``.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import queue
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, Listener, wait
from multiprocessing.context import SpawnProcess

import numpy as np

from embedindex.arrays import Float32Array
from embedindex.child_process import environment, interrupts_blocked, limit_process
from embedindex.errors import DeviceMemoryError, EmbedindexError
from embedindex.messages import GONE, receive_message, send_message
from embedindex.models import ModelRequest, load_model
from embedindex.models.base import TwoStepModel
from embedindex.models.batching import Batches, measure_batch, note_key, read_note, write_note
from embedindex.models.calibration import KINDS, synthesise_windows
from embedindex.models.devices import Device
from embedindex.models.selection import JUDGED_SEED
from embedindex.quiet import quieten_libraries

LISTEN_S = 60.0
GOODBYE_S = 5.0
# So many calls in a row that fail for another reason than memory mean that the device is at fault, not the windows.
FAILURES = 3
BACKLOG = 64
# The name of a socket has room for 104 bytes on macOS, 108 on Linux (sys/un.h).
LONGEST_FOLDER = 90
_log = logging.getLogger(__name__)


class DeviceProcesses:
    """The processes of some devices, as the one that started them sees them.

    Args:
        request: the model.
        devices: one process for each.
        niceness: of the processes.
        required: raise, where else is only told, that a device cannot be used.
    """

    def __init__(self, request: ModelRequest, devices: Sequence[Device], niceness: int, *, required: bool) -> None:
        self._required = required
        self._folder = _folder_for_sockets()
        self._running: dict[Connection, tuple[SpawnProcess, str, str]] = {}
        self._next = 0
        for number, device in enumerate(devices):
            self._start(number, device, request, niceness)
        ends = time.monotonic() + LISTEN_S
        for connection in list(self._running):
            if connection.poll(max(0.0, ends - time.monotonic())):
                self.hear(connection)
            else:
                self._end(connection)

    def _start(self, number: int, device: Device, request: ModelRequest, niceness: int) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        address = os.path.join(self._folder, f"model{number}")
        if sys.platform == "win32":
            address = rf"\\.\pipe\{os.path.basename(self._folder)}-{number}"
        where = replace(request, device="cuda" if device.kind == "cuda" else "cpu")
        arguments = (theirs, address, where, device, niceness, os.getpid())
        process = context.Process(target=serve, args=arguments, daemon=True)
        with environment({"CUDA_VISIBLE_DEVICES": device.number}), interrupts_blocked():
            process.start()
        theirs.close()
        self._running[ours] = (process, address, device.name)

    def address(self) -> str | None:
        """Return where the next worker finds a process, None when there is none any more."""
        addresses = [address for _, address, _ in self._running.values()]
        self._next += 1
        return addresses[self._next % len(addresses)] if addresses else None

    @property
    def connections(self) -> list[Connection]:
        """The ends of pipes by which they are heard."""
        return list(self._running)

    def hear(self, connection: Connection) -> None:
        """Take a message of a process, or its end.

        Raises:
            EmbedindexError: it cannot use its device, which is required.
        """
        _, _, name = self._running[connection]
        try:
            kind, *rest = connection.recv()
        except (EOFError, OSError):
            self._end(connection)
            _log.warning("the process that computes on %s is gone; the processor goes on with its work", name)
            return
        if kind == "say":
            _log.warning("%s: %s", name, rest[0])
        elif kind == "broken":
            self._end(connection)
            if self._required:
                error: EmbedindexError = rest[0]
                raise error
            _log.warning("%s cannot be used (%s); the processor is used instead", name, rest[0])
        elif kind == "bye":
            self._end(connection)

    def _end(self, connection: Connection) -> None:
        process, _, _ = self._running.pop(connection)
        connection.close()
        process.join(GOODBYE_S)
        if process.is_alive():
            process.kill()
            process.join(GOODBYE_S)

    def close(self) -> None:
        """End them all."""
        for connection in list(self._running):
            self._end(connection)
        shutil.rmtree(self._folder, ignore_errors=True)


def _folder_for_sockets() -> str:
    """Return a new folder; not in a place so deep that the system refuses the name of a socket in it."""
    folder = tempfile.mkdtemp(prefix="embedindex-")
    if sys.platform == "win32" or len(os.fsencode(folder)) <= LONGEST_FOLDER:
        return folder
    os.rmdir(folder)
    return tempfile.mkdtemp(prefix="embedindex-", dir="/tmp")


def serve(control: Connection, address: str, request: ModelRequest, device: Device, niceness: int, parent: int) -> None:
    """Compute for whoever connects, until the control pipe closes; the target of the process."""
    limit_process(parent, niceness, 0)  # CUDA reserves more memory than there is; no stranger's file is opened here
    quieten_libraries()
    with contextlib.suppress(*GONE), Listener(address, backlog=BACKLOG, authkey=_authkey()) as listener:
        control.send(("listening",))
        try:
            model: TwoStepModel = load_model(request)  # type: ignore[assignment]
            batches = Batches(model.compute, _batch(model, request, device), padded=device.kind == "cuda")
        except EmbedindexError as error:
            control.send(("broken", error))
            return
        control.send(("ready",))
        _Server(control, listener, batches, model.identity.fingerprint).run()


def _authkey() -> bytes:
    return bytes(multiprocessing.current_process().authkey)


def _batch(model: TwoStepModel, request: ModelRequest, device: Device) -> int:
    """Return how many windows at a time are fastest, as remembered or measured now."""
    import onnxruntime

    names = (request.engine, device.kind, device.name, onnxruntime.__version__)
    key = note_key("batch", model.identity.fingerprint, *names)
    note = read_note(key)
    if note is None:
        windows = synthesise_windows(len(KINDS), model.identity.window_samples, model.identity.sample_rate, JUDGED_SEED)
        size, rates = measure_batch(model.compute, model.prepare(windows))
        note = {"batch": size, "windows_per_s": rates, "model": model.identity.name, "device": device.name}
        write_note(key, note)
    return int(note["batch"])


class _Server:
    """The loop of the process: clients come and go, and what they ask meanwhile is computed together."""

    def __init__(self, control: Connection, listener: Listener, batches: Batches, fingerprint: str) -> None:
        self._control = control
        self._listener = listener
        self._batches = batches
        self._fingerprint = fingerprint
        self._clients: list[Connection] = []
        self._arrived: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._bell, self._ring = multiprocessing.Pipe(duplex=False)
        self._failures = 0

    def run(self) -> None:
        threading.Thread(target=self._let_in, name="clients", daemon=True).start()
        while True:
            asked: list[tuple[Connection, Float32Array]] = []
            for connection in wait([self._control, self._bell, *self._clients]):
                if connection is self._control:
                    return
                if connection is self._bell:
                    self._bell.recv_bytes()
                    self._welcome(self._arrived.get())
                else:
                    self._receive(connection, asked)  # type: ignore[arg-type]
            if asked and not self._answer(asked):
                return

    def _let_in(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except (*GONE, multiprocessing.AuthenticationError):
                continue
            except OSError:  # closed: this process ends
                return
            self._arrived.put(connection)
            self._ring.send_bytes(b"1")

    def _welcome(self, client: Connection) -> None:
        with contextlib.suppress(*GONE):
            client.send(("ready", self._fingerprint))
            self._clients.append(client)

    def _receive(self, client: Connection, asked: list[tuple[Connection, Float32Array]]) -> None:
        try:
            asked.append((client, receive_message(client)[1]))
        except (*GONE, OSError):
            self._clients.remove(client)
            client.close()

    def _answer(self, asked: list[tuple[Connection, Float32Array]]) -> bool:
        """Compute what was asked; return whether to go on."""
        before = self._batches.size
        try:
            inputs = [array for _, array in asked]
            vectors = self._batches.run(inputs[0] if len(inputs) == 1 else np.concatenate(inputs))
            self._failures = 0
        except DeviceMemoryError as error:
            self._control.send(("say", f"{error}; the processor goes on with the work"))
            self._control.send(("bye",))
            return False
        except Exception as error:  # noqa: BLE001 - whatever it is, the clients find out whose windows make it
            if len(asked) > 1:
                return [self._answer([one]) for one in asked].count(False) == 0
            self._failures += 1
            self._send(asked[0][0], ("yourself",))
            if self._failures < FAILURES:
                return True
            self._control.send(("say", f"fails ({type(error).__name__}: {error}); the processor goes on with the work"))
            self._control.send(("bye",))
            return False
        if self._batches.size < before:
            text = f"short of memory: {self._batches.size} windows at a time from now on, not {before}"
            self._control.send(("say", text))
        first = 0
        for client, array in asked:
            self._send(client, ("vectors", vectors[first : first + len(array)]))
            first += len(array)
        return True

    def _send(self, client: Connection, message: tuple[object, ...]) -> None:
        try:
            send_message(client, message)
        except (*GONE, OSError):
            self._clients.remove(client)
            client.close()
