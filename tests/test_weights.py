"""OpenL3's weights: fetched from a local server that misbehaves in every way, imported, checked. Small fake files."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from embedindex.errors import ChecksumError, UsageError, WeightsFormatError, WeightsMissingError
from embedindex.models.download import Patience
from embedindex.models.weights import HDF5_MAGIC, RELEASES, SIZE_LIMIT, Release, find_openl3, import_weights

HURRIED = Patience(open_s=60, read_s=60, attempts=3, pause_s=0.01)
# Incompressible, so that the packed file is long enough to be interrupted in the middle.
H5 = HDF5_MAGIC + bytes(range(256)) + hashlib.shake_256(b"weights").digest(300_000)
GZ = gzip.compress(H5, mtime=0)


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


MUSIC = Release("mel256", "music", git_blob(GZ), hashlib.sha256(GZ).hexdigest(), hashlib.sha256(H5).hexdigest())
ENV = Release("mel256", "env", git_blob(GZ))
FILE_NAME = "openl3_audio_mel256_music-v0_4_0.h5.gz"


@dataclass
class Server:
    """What the server sends, how it fails, and what it was asked."""

    body: bytes = GZ
    status: int = 200
    failures: int = 0  # answers to spoil before the good ones
    break_after: int | None = None  # spoilt answers end after this many bytes
    stall: bool = False  # … or never end
    ranges: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append((self.path, wanted))
            spoilt = len(state.asked) <= state.failures
            if state.status != 200 and (spoilt or not state.failures):
                self.send_error(state.status)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and state.ranges else 0
            if start >= len(state.body):
                self.send_error(416)
                return
            body = state.body[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.break_after] if spoilt else body)
            if spoilt and state.stall:
                state.over.wait(60)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("EMBEDINDEX_WEIGHTS_URL", f"http://127.0.0.1:{httpd.server_port}/mirror/")
        monkeypatch.setenv("EMBEDINDEX_MODELS", str(tmp_path / "models"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield state
        state.over.set()
        httpd.shutdown()


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty models folder, and no server."""
    folder = tmp_path / "models"
    monkeypatch.setenv("EMBEDINDEX_MODELS", str(folder))
    return folder


def fetch(release: Release = MUSIC, patience: Patience = HURRIED, **options: object) -> Path:
    found = find_openl3("mel256", release.content_type, patience=patience, releases=(release,), **options)  # type: ignore[arg-type]
    assert found.sha256 == hashlib.sha256(H5).hexdigest()
    return Path(found.path)


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir() if item.suffix != ".lock")


PLACED = ["openl3_audio_mel256_music.h5", "openl3_audio_mel256_music.json"]


def test_weights_are_fetched_once_and_unpacked(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = fetch(progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == H5
    assert server.asked == [(f"/mirror/{FILE_NAME}", None)]
    assert names(tmp_path / "models") == PLACED
    assert seen[-1] == (len(GZ), len(GZ))
    assert seen == sorted(seen)
    assert fetch() == path
    assert len(server.asked) == 1


def test_broken_connection_is_resumed_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.failures, server.break_after = 2, 100_000
    assert fetch().read_bytes() == H5
    assert [wanted for _, wanted in server.asked] == [None, "bytes=100000-", "bytes=200000-"]
    assert names(tmp_path / "models") == PLACED


def test_stalled_connection_is_resumed(server: Server) -> None:
    server.failures, server.break_after, server.stall = 1, 100_000, True
    assert fetch(patience=replace(HURRIED, read_s=1.5, attempts=9)).read_bytes() == H5
    assert [wanted for _, wanted in server.asked][:2] == [None, "bytes=100000-"]


def test_server_without_ranges_sends_the_whole_file_again(server: Server) -> None:
    server.failures, server.break_after, server.ranges = 1, 100_000, False
    assert fetch().read_bytes() == H5


def test_later_run_goes_on_where_an_earlier_one_gave_up(server: Server, tmp_path: Path) -> None:
    server.failures, server.break_after = 3, 50_000
    with pytest.raises(WeightsMissingError, match=r"broke off after 150,000 of 300,\d+ bytes \(3 attempts\)") as caught:
        fetch()
    assert f"models import {FILE_NAME}" in str(caught.value)
    assert names(tmp_path / "models") == [f"{FILE_NAME}.part"]
    fetch()
    assert server.asked[-1][1] == "bytes=150000-"


def test_remains_of_another_file_cost_one_more_download(server: Server, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / f"{FILE_NAME}.part").write_bytes(b"x" * 1000)
    assert fetch().read_bytes() == H5
    assert [wanted for _, wanted in server.asked] == ["bytes=1000-", None]


def test_remains_longer_than_the_file_are_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / f"{FILE_NAME}.part").write_bytes(GZ + b"more")
    assert fetch().read_bytes() == H5


def test_wrong_bytes_are_deleted_and_never_loaded(server: Server, tmp_path: Path) -> None:
    server.body = gzip.compress(H5[:-1] + b"!", mtime=0)
    with pytest.raises(ChecksumError, match="not the published weights: git blob id") as caught:
        fetch()
    assert "they were deleted" in str(caught.value)
    assert len(server.asked) == 1
    assert names(tmp_path / "models") == []


def test_web_page_instead_of_weights_is_recognised(server: Server) -> None:
    server.body = b"\n<!DOCTYPE html><title>Please log in</title>"
    with pytest.raises(ChecksumError, match="it is a web page, perhaps a proxy's or a log-in"):
        fetch()


def test_published_sha256_counts_beside_the_git_id(server: Server) -> None:
    with pytest.raises(ChecksumError, match="not the published weights"):
        fetch(replace(MUSIC, gz_sha256="0" * 64))


def test_404_says_so_at_once(server: Server) -> None:
    server.status = 404
    with pytest.raises(
        WeightsMissingError, match=f"{FILE_NAME} could not be fetched: the server answered 404"
    ) as caught:
        fetch()
    assert len(server.asked) == 1
    assert "EMBEDINDEX_WEIGHTS_URL" in str(caught.value)


def test_500_is_tried_again(server: Server) -> None:
    server.status, server.failures = 500, 2
    assert fetch().read_bytes() == H5
    assert len(server.asked) == 3


def test_500_for_good_is_an_error(server: Server) -> None:
    server.status = 500
    with pytest.raises(WeightsMissingError, match=r"the server answered 500 Internal Server Error \(3 attempts\)"):
        fetch()


def test_no_network_says_what_to_do(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("EMBEDINDEX_WEIGHTS_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with pytest.raises(WeightsMissingError, match="connection refused") as caught:
            fetch()
    for help_text in ("on another machine", "embedindex models import", "HTTPS_PROXY", "EMBEDINDEX_WEIGHTS_URL"):
        assert help_text in str(caught.value)


def test_unknown_host_is_not_asked_for_twice(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDINDEX_WEIGHTS_URL", "http://weights.invalid")
    monkeypatch.setenv("NO_PROXY", "weights.invalid")
    with pytest.raises(WeightsMissingError, match=r"\(weights.invalid\). Download http://weights.invalid/openl3"):
        find_openl3("mel256", "music", patience=Patience(attempts=3, pause_s=60), releases=(MUSIC,))


def test_silent_server_is_given_up_in_time(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("EMBEDINDEX_WEIGHTS_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        patience = Patience(open_s=0.3, read_s=10_000, attempts=1)  # the patience for reading is not waited for
        with pytest.raises(WeightsMissingError, match=r"no answer from 127.0.0.1:\d+ in 0.3 s"):
            find_openl3("mel256", "music", patience=patience, releases=(MUSIC,))


def test_proxy_of_the_environment_is_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    address = os.environ["EMBEDINDEX_WEIGHTS_URL"].removesuffix("/mirror/")
    monkeypatch.setenv("http_proxy", address)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("EMBEDINDEX_WEIGHTS_URL", "http://weights.invalid/openl3")
    fetch()
    # What another test gave up may still be under way, and finds this proxy, too.
    asked = [one for one in server.asked if one[0].startswith("http://weights.invalid")]
    assert asked == [(f"http://weights.invalid/openl3/{FILE_NAME}", None)]


def test_offline_variable_keeps_the_network_alone(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDINDEX_OFFLINE", "1")
    with pytest.raises(WeightsMissingError, match="EMBEDINDEX_OFFLINE forbids"):
        fetch()
    assert server.asked == []


def test_no_fetch_means_no_network(server: Server) -> None:
    with pytest.raises(WeightsMissingError, match=r"they were not fetched yet.*models fetch openl3:input_repr=mel256"):
        fetch(fetch=False)
    assert server.asked == []


def test_only_web_addresses_are_fetched(models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(GZ)
    monkeypatch.setenv("EMBEDINDEX_WEIGHTS_URL", tmp_path.as_uri())
    with pytest.raises(UsageError, match="over http or https only"):
        fetch()


def test_announced_giant_is_refused(server: Server, tmp_path: Path) -> None:
    server.body = bytes(SIZE_LIMIT + 1)
    with pytest.raises(WeightsMissingError, match="it is 40,000,001 bytes, more than weights can be"):
        fetch()
    assert names(tmp_path / "models") == []


def test_decompression_bomb_is_refused(server: Server, tmp_path: Path) -> None:
    server.body = gzip.compress(HDF5_MAGIC + bytes(SIZE_LIMIT), mtime=0)
    with pytest.raises(WeightsFormatError, match="holds more than weights can be"):
        fetch(replace(ENV, gz_git_blob=git_blob(server.body)))
    assert names(tmp_path / "models") == []


FULL_DISK = """
import pickle, resource, sys
from embedindex.errors import WeightsMissingError
from embedindex.models.weights import find_openl3
release, limit = pickle.load(sys.stdin.buffer)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    find_openl3("mel256", "music", releases=(release,))
except WeightsMissingError as problem:
    print(problem)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits on file size are set with POSIX calls")
@pytest.mark.parametrize(("limit", "stops"), [(100_000, "download"), (301_000, "unpacking")])
def test_full_disk_is_said_and_leaves_nothing(server: Server, tmp_path: Path, limit: int, stops: str) -> None:
    body = gzip.compress(H5 + bytes(5000), mtime=0)
    server.body = body
    release = replace(ENV, content_type="music", gz_git_blob=git_blob(body))
    assert (stops == "unpacking") == (limit > len(body))
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK], input=pickle.dumps((release, limit)), capture_output=True, check=True
    )
    assert "no space left for the weights; free" in run.stdout.decode()
    assert "set $EMBEDINDEX_MODELS" in run.stdout.decode()
    assert names(tmp_path / "models") == []


def test_folder_that_cannot_be_written_is_said(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # A folder below a file cannot be made by anybody, root included.
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("EMBEDINDEX_MODELS", str(tmp_path / "file" / "models"))
    with pytest.raises(WeightsMissingError, match=r"cannot be written there.*EMBEDINDEX_MODELS"):
        fetch()


def forbid_writing(folder: Path) -> None:
    folder.chmod(0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write everywhere")


def test_read_only_folder_is_said(server: Server, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    forbid_writing(tmp_path / "models")
    with pytest.raises(WeightsMissingError, match=r"cannot be written there \(Permission denied\)"):
        fetch()


def test_weights_in_a_read_only_folder_are_used(server: Server, tmp_path: Path) -> None:
    path = fetch()
    forbid_writing(tmp_path / "models")
    assert fetch() == path


def test_cached_file_that_changed_is_set_aside_and_fetched_again(server: Server, tmp_path: Path) -> None:
    path = fetch(ENV)
    path.write_bytes(H5[:-1])
    with pytest.raises(ChecksumError, match=r"it is not used, and kept as .*damaged; run 'embedindex models fetch'"):
        fetch(ENV, fetch=False)
    assert not path.exists()
    path.write_bytes(H5[:-1])
    assert fetch(ENV).read_bytes() == H5


def test_file_smuggled_into_the_folder_is_not_used(models: Path) -> None:
    models.mkdir()
    (models / "openl3_audio_mel256_env.h5").write_bytes(H5)
    with pytest.raises(ChecksumError, match="was not put there by embedindex"):
        fetch(ENV, fetch=False)


def test_four_callers_at_once_fetch_once(server: Server) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch(), range(4)))
    assert len(set(paths)) == 1
    assert len(server.asked) == 1


def test_file_given_is_used_whatever_it_holds(models: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.h5"
    own.write_bytes(H5 + b"own")
    found = find_openl3("mel256", "music", weights=str(own))
    assert (found.path, found.sha256) == (str(own), hashlib.sha256(H5 + b"own").hexdigest())
    own.write_bytes(GZ)
    with pytest.raises(WeightsFormatError, match=r"compressed: give the .h5"):
        find_openl3("mel256", "music", weights=str(own))
    with pytest.raises(WeightsMissingError, match="No such file"):
        find_openl3("mel256", "music", weights=str(tmp_path / "absent.h5"))


def test_published_gz_is_imported_under_any_name(models: Path, tmp_path: Path) -> None:
    (tmp_path / "download (1)").write_bytes(GZ)
    placed = import_weights(str(tmp_path / "download (1)"), releases=(ENV,))
    assert Path(placed.path).read_bytes() == H5
    assert json.loads(Path(placed.path).with_suffix(".json").read_text())["sha256"] == placed.sha256
    assert fetch(ENV, fetch=False) == Path(placed.path)
    assert (tmp_path / "download (1)").read_bytes() == GZ


def test_h5_with_a_known_checksum_is_imported(models: Path, tmp_path: Path) -> None:
    (tmp_path / "w.h5").write_bytes(H5)
    assert import_weights(str(tmp_path / "w.h5"), releases=(ENV, MUSIC)).path.endswith("mel256_music.h5")


def test_h5_that_cannot_be_checked_needs_trust(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "openl3_audio_mel256_env.h5"
    file.write_bytes(H5)
    with pytest.raises(ChecksumError, match=r"cannot be checked.*add --trust"):
        import_weights(str(file), releases=(ENV,))
    assert import_weights(str(file), trust=True, releases=(ENV,)).source.endswith("unchecked")
    assert fetch(ENV, fetch=False).read_bytes() == H5


def test_trust_does_not_overrule_a_known_checksum(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "openl3_audio_mel256_music.h5"
    file.write_bytes(H5 + b"own")
    with pytest.raises(ChecksumError, match=r"not the published.*weights of your own are used with --weights"):
        import_weights(str(file), trust=True, releases=(MUSIC,))
    gz = tmp_path / FILE_NAME
    gz.write_bytes(GZ[:-9])
    with pytest.raises(ChecksumError, match="download it again"):
        import_weights(str(gz), releases=(MUSIC,))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("song.mp3", b"ID3", "its name does not say which"),
        ("openl3_audio_mel256_env.h5", b"<html>", "holds no HDF5 file"),
        ("openl3_audio_mel256_env.h5.gz", GZ[:5000], "cannot be decompressed"),
        ("openl3_audio_mel256_env.h5", b"", "holds no HDF5 file"),
    ],
)
def test_what_are_no_weights_is_not_imported(
    models: Path, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsFormatError, match=message):
        import_weights(str(tmp_path / name), trust=True, releases=(ENV,))
    assert not models.exists() or names(models) == []


def test_weights_of_an_installed_openl3_package_are_found(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "openl3"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('must not be imported')")
    file = package / "openl3_audio_mel256_music.h5"
    file.write_bytes(H5)
    monkeypatch.syspath_prepend(str(package.parent))
    assert fetch(fetch=False) == file
    file.write_bytes(H5 + b"changed")
    with pytest.raises(WeightsMissingError):
        fetch(fetch=False)


def test_unknown_kind_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="input_repr is one of linear, mel128, mel256"):
        find_openl3("mel512", "music", fetch=False)


def test_all_six_official_files_are_known() -> None:
    assert len({(r.input_repr, r.content_type) for r in RELEASES}) == len(RELEASES) == 6
    assert all(len(r.gz_git_blob) == 40 for r in RELEASES)


@pytest.mark.network
def test_official_weights_can_be_fetched(models: Path) -> None:
    try:
        found = find_openl3("mel256", "music")
    except WeightsMissingError as problem:
        pytest.skip(f"the weights' home cannot be reached: {problem}")
    assert found.sha256 == RELEASES[-1].h5_sha256
