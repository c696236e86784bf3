"""Servers for the tests, on this machine and real: S3 (moto), SFTP (asyncssh), SMB (impacket), HTTP (Python's own)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.processes import PATIENCE_S, wait_until

HERE = "127.0.0.1"


def free_port() -> int:
    """Return a port that nobody has, below those that systems give to whoever asks for any: nobody will soon."""
    while True:
        port = random.SystemRandom().randrange(11_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as found:
            found.bind((HERE, port))
            return port


# -- HTTP ----------------------------------------------------------------------------------------------------------


class WebServer:
    """Serves a folder; `fault` is asked before each answer and may give one of its own.

    Attributes:
        url: of the folder.
        fault: given a request; True when it was answered, or is not to be.
        asked: "METHOD path" of all requests, in order.
    """

    def __init__(self, folder: Path) -> None:
        self.fault: Callable[[SimpleHTTPRequestHandler], bool] = lambda _: False
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer((HERE, 0), partial(_Handler, self, directory=str(folder)))
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://{HERE}:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(SimpleHTTPRequestHandler):
    """Python's own handler, which knows no ranges, with ranges and faults."""

    protocol_version = "HTTP/1.1"
    timeout = 60

    def __init__(self, server: WebServer, *arguments: Any, **named: Any) -> None:
        self.web = server
        super().__init__(*arguments, **named)

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.web.asked.append(f"HEAD {self.path}")
        if not self.web.fault(self):
            super().do_HEAD()

    def do_GET(self) -> None:
        self.web.asked.append(f"GET {self.path}")
        if self.web.fault(self):
            return
        path = self.translate_path(self.path)
        if self.headers["Range"] is None or not os.path.isfile(path):
            super().do_GET()
            return
        first, last = (int(number) for number in self.headers["Range"].removeprefix("bytes=").split("-"))
        data = Path(path).read_bytes()
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(len(data[first : last + 1])))
        self.end_headers()
        self.wfile.write(data[first : last + 1])


# -- S3 ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run an S3 with a bucket ``bucket``; gives boto3's client of it, with a method `stop_server`."""
    pytest.importorskip("s3fs", reason="s3fs is not installed (embedindex[s3])")
    server_module = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    import logging

    import boto3

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    port = free_port()
    server = server_module.ThreadedMotoServer(HERE, port, verbose=False)
    server.start()
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", f"http://{HERE}:{port}"),
    ):
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")
    running = [server]

    def stop_server() -> None:
        while running:
            running.pop().stop()

    client.stop_server = stop_server
    try:
        yield client
    finally:
        stop_server()


def upload(client: Any, folder: Path, prefix: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            client.put_object(Bucket="bucket", Key=f"{prefix}/{path.relative_to(folder)}", Body=path.read_bytes())


# -- SFTP ----------------------------------------------------------------------------------------------------------


class SftpServer:
    """Serves this machine's files to ``anna``, who has a key, and whose ``~/.ssh`` says so.

    Attributes:
        url: of the server's root.
        asked: paths of folders that were listed and files that were opened, in order.
        fault: called with each of them before it is answered.
    """

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asyncssh = pytest.importorskip("asyncssh", reason="asyncssh is not installed (embedindex[sftp])")
        pytest.importorskip("sshfs", reason="sshfs is not installed (embedindex[sftp])")
        self._ssh = asyncssh
        self.port = free_port()
        self.url = f"sftp://{HERE}:{self.port}"
        self.asked: list[str] = []
        self.fault: Callable[[str], None] = lambda _: None
        self._host_key = asyncssh.generate_private_key("ssh-ed25519")
        key = asyncssh.generate_private_key("ssh-ed25519")
        ssh = home / ".ssh"
        ssh.mkdir(parents=True)
        key.write_private_key(ssh / "id_test")
        (ssh / "id_test").chmod(0o600)
        self._anna = key.export_public_key()
        (ssh / "config").write_text(f"Host {HERE}\n  User anna\n  IdentityFile {ssh / 'id_test'}\n")
        self.known_hosts = ssh / "known_hosts"
        self.known_hosts.write_text(f"[{HERE}]:{self.port} {self._host_key.export_public_key().decode()}")
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.connections: list[Any] = []
        self.start()

    def start(self) -> None:
        self._listener = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(PATIENCE_S)

    async def _listen(self) -> Any:
        ssh, server = self._ssh, self

        class Door(ssh.SSHServer):  # type: ignore[name-defined,misc]
            def connection_made(self, conn: Any) -> None:
                server.connections.append(conn)

        class Files(ssh.SFTPServer):  # type: ignore[name-defined,misc]
            def scandir(self, path: bytes) -> Any:
                server.asked.append(path.decode())
                server.fault(path.decode())
                return super().scandir(path)

            def open(self, path: bytes, *rest: Any) -> Any:
                server.asked.append(path.decode())
                server.fault(path.decode())
                return super().open(path, *rest)

        return await ssh.create_server(
            Door, HERE, self.port, server_host_keys=[self._host_key],
            authorized_client_keys=ssh.import_authorized_keys(self._anna.decode()), sftp_factory=Files,
        )  # fmt: skip

    def stop(self) -> None:
        """Hang up on everybody, in the middle of a word."""

        def hang_up() -> None:
            self._listener.close()
            for connection in self.connections:
                connection.abort()
            self.connections.clear()

        self._loop.call_soon_threadsafe(hang_up)
        while self.connections and threading.current_thread() is not self._thread:
            time.sleep(0.01)


# -- SMB -----------------------------------------------------------------------------------------------------------


SMB_SERVER = """
import sys
from impacket import ntlm, smbserver
server = smbserver.SimpleSMBServer(sys.argv[1], int(sys.argv[2]))
server.addShare("SHARE", sys.argv[3], "")
server.setSMB2Support(True)
server.addCredential("anna", 0, ntlm.compute_lmhash("secret"), ntlm.compute_nthash("secret"))
server.start()
"""


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HERE, port), timeout=10):
        return True
    return False


class SmbServer:
    """Serves a folder as the share ``share``, in a process of its own.

    Attributes:
        url: of the share.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("smbprotocol", reason="smbprotocol is not installed (embedindex[smb])")
        pytest.importorskip("impacket.smbserver", reason="impacket is not installed")
        from fsspec.config import conf

        port = free_port()
        arguments = [sys.executable, "-c", SMB_SERVER, HERE, str(port), str(folder)]
        self._process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: _answers(port) or self._process.poll() is not None)
        self.url = f"smb://{HERE}:{port}/share"
        monkeypatch.setenv("FSSPEC_SMB_USERNAME", "anna")
        monkeypatch.setenv("FSSPEC_SMB_PASSWORD", "secret")
        monkeypatch.setitem(conf, "smb", {"username": "anna", "password": "secret"})  # it was read at import

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
