"""Messages between processes of ours, over a pipe: tuples, whose arrays go as they lie in memory."""

from __future__ import annotations

import pickle
from multiprocessing.connection import Connection
from typing import Any

# What a pipe raises when the other end is gone.
GONE = (BrokenPipeError, EOFError, ConnectionResetError)


def send_message(connection: Connection, message: tuple[object, ...]) -> None:
    """Send a message whose arrays go as they lie in memory: `Connection.send` would copy them twice."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(message, 5, buffer_callback=buffers.append)
    if not buffers:
        connection.send_bytes(data)
        return
    connection.send(("large", data, len(buffers)))
    for buffer in buffers:
        connection.send_bytes(buffer.raw())


def receive_message(connection: Connection) -> tuple[Any, ...]:
    """Return the next message, whether it came from `send_message` or from `Connection.send`."""
    message: tuple[Any, ...] = connection.recv()
    if message[0] != "large":
        return message
    _, data, count = message
    whole: tuple[Any, ...] = pickle.loads(data, buffers=[connection.recv_bytes() for _ in range(count)])  # noqa: S301
    return whole
