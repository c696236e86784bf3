"""Scans of servers: the same index as of the same files here, and nothing forgotten by mistake."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedindex import remote, remote_server, slow_answers
from embedindex.archives import open_sound
from embedindex.cli.logs import waits_are_told
from embedindex.crawl import CrawlTrouble, absolute_path, crawl
from embedindex.errors import AudioLimitError, RemoteError, ServerAwayError, UnreadableFileError, UsageError
from embedindex.store import Store
from tests.command_line import command, refusal
from tests.indexing import age, make_sound, names, one, records, run_scan
from tests.servers import SftpServer, SmbServer, WebServer, s3_server, upload
from tests.zips import write_zip

pytest.importorskip("fsspec", reason="fsspec is not installed (embedindex[s3])")


@pytest.fixture(autouse=True)
def _fresh_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget all servers and fetched files between tests, and wait for none that went away."""
    monkeypatch.setenv(remote_server.PATIENCE_VARIABLE, "1")
    monkeypatch.setattr(remote_server, "CALL_S", 60.0)  # a busy machine is no silent server
    monkeypatch.setattr(remote_server, "_servers", {})
    remote._fresh.clear()
    remote._kept.clear()


@pytest.fixture
def web(library: Path) -> Iterator[WebServer]:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    server = WebServer(library)
    yield server
    server.stop()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with s3_server(monkeypatch) as client:
        yield client


@pytest.fixture
def sftp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SftpServer]:
    server = SftpServer(tmp_path / "home", monkeypatch)
    yield server
    server.stop()


def make_library(folder: Path) -> None:
    for number, name in enumerate(("kick 1.wav", "drums/ä #2?.wav", "drums/deep/pad%20.wav")):
        make_sound(folder / name, 300 + 100 * number)
    shutil.copy2(folder / "kick 1.wav", folder / "twin.wav")
    (folder / "drums" / "notes.txt").write_text("no sound")
    (folder / ".hidden").mkdir()
    make_sound(folder / ".hidden" / "h.wav")
    make_sound(folder / "old" / "a.wav")
    (folder / ".embedindexignore").write_text("old/\n")
    write_zip(folder / "album.zip", {"1/x.wav": (folder / "kick 1.wav").read_bytes()[:-4] + bytes(4)})


def known(index: str, root: str) -> dict[str, tuple[object, ...]]:
    """Return what an index knows of a root: {path below it: what a listener would notice}."""
    with Store(index) as store:
        return {
            path.removeprefix(root): (
                record.status, record.size, record.content_hash, record.duration, record.peak, record.container,
                store.vectors_of(record).tobytes(),
            )
            for path, record in records(index).items()
        }  # fmt: skip


def test_a_scan_over_sftp_gives_the_very_index_of_the_same_files_here(
    library: Path, tmp_path: Path, index: str, sftp: SftpServer
) -> None:
    make_library(library)
    here = str(tmp_path / "here")
    run_scan(here, library)
    url = f"{sftp.url}{library}"
    summary = run_scan(index, url)
    assert (summary.added + summary.copied, summary.failed, summary.unseen) == (6, 0, [])
    assert known(index, url) == known(here, str(library))
    assert [name for name in os.listdir(library) if name.endswith(".npz")] == []
    before = len(sftp.asked)
    again = run_scan(index, url)
    assert (again.unchanged, again.found) == (5, 5)
    folders = {str(library), *(str(library / name) for name in ("drums", "drums/deep"))}
    assert set(sftp.asked[before:]) <= {*folders, str(library / ".embedindexignore")}  # no sound was opened


def test_a_scan_of_a_bucket_gives_the_very_index_of_the_same_files_here(
    library: Path, tmp_path: Path, index: str, s3: Any
) -> None:
    make_library(library)
    upload(s3, library, "my music")
    s3.put_object(Bucket="bucket", Key="my music/drums/", Body=b"")  # as consoles make folders
    here = str(tmp_path / "here")
    run_scan(here, library)
    assert run_scan(index, "s3://bucket/my music/").unseen == []
    assert known(index, "s3://bucket/my music") == known(here, str(library))
    again = run_scan(index, "s3://bucket/my music")
    assert (again.unchanged, again.found) == (5, 5)


def test_a_server_that_keeps_a_scan_waiting_is_named(
    library: Path, index: str, web: WebServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slow_answers, "SLOW_S", 0.3)
    monkeypatch.setattr(slow_answers, "LOOK_S", 0.05)
    make_sound(library / "a.wav")
    assert run_scan(index, web.url).added == 1
    told = Told()
    logging.getLogger("embedindex.slow_answers").addHandler(told)

    def silent_until_told(_: object) -> bool:
        assert told.there.wait(60)
        return False

    web.fault = silent_until_told
    try:
        with waits_are_told(quiet=False):
            assert run_scan(index, web.url).unchanged == 1
    finally:
        logging.getLogger("embedindex.slow_answers").removeHandler(told)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"embedindex: waiting for {web.url}: no answer yet after 0.3 seconds"


class Told(logging.Handler):
    """Notes that something was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.there = threading.Event()

    def emit(self, _: logging.LogRecord) -> None:
        self.there.set()


def test_a_scan_of_a_web_page_gives_the_very_index_of_the_same_files_here(
    library: Path, tmp_path: Path, index: str, web: WebServer
) -> None:
    make_library(library)
    (library / ".embedindexignore").unlink()
    shutil.rmtree(library / "old")
    here = str(tmp_path / "here")
    run_scan(here, library)
    summary = run_scan(index, web.url)
    assert summary.unseen == []
    from urllib.parse import unquote

    assert {unquote(path): value for path, value in known(index, web.url).items()} == known(here, str(library))
    before = len(web.asked)
    assert run_scan(index, web.url).unchanged == 5
    assert not [line for line in web.asked[before:] if line.startswith("GET") and line.endswith(".wav")]


# -- what changes on a server ------------------------------------------------------------------------------------------


def test_what_is_renamed_in_a_bucket_is_known_by_its_checksum_and_not_read_again(
    library: Path, index: str, s3: Any
) -> None:
    make_sound(library / "a.wav", 300)
    make_sound(library / "b.wav", 400)
    upload(s3, library, "music")
    run_scan(index, "s3://bucket/music")
    before = one(index, "s3://bucket/music/a.wav")
    for name in ("a.wav", "b.wav"):
        s3.copy_object(Bucket="bucket", CopySource=f"bucket/music/{name}", Key=f"music/new/{name}")
        s3.delete_object(Bucket="bucket", Key=f"music/{name}")
    summary = run_scan(index, "s3://bucket/music")
    assert (summary.moved, summary.added, summary.forgotten) == (2, 0, 0)
    assert one(index, "s3://bucket/music/new/a.wav").first_window == before.first_window
    # and what has other content under an old name is listened to again
    s3.put_object(Bucket="bucket", Key="music/new/a.wav", Body=make_sound(library / "c.wav", 500).read_bytes())
    assert run_scan(index, "s3://bucket/music").changed == 1
    s3.stop_server()
    gone = run_scan(index, "s3://bucket/music")
    assert (gone.missing, gone.forgotten) == (2, 0)
    assert "does not answer" in gone.unseen[0][1]


def answer(status: int, body: bytes = b"", kind: str = "text/html") -> Callable[[Any], bool]:
    """Return a fault: this answer to everything."""

    def fault(request: Any) -> bool:
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)
        return True

    return fault


def test_a_server_in_trouble_is_never_taken_for_deleted_files(library: Path, index: str, web: WebServer) -> None:
    for number, name in enumerate(("a.wav", "deep/b.wav", "deep/c.wav")):
        make_sound(library / name, 300 + 50 * number)
    run_scan(index, web.url)
    troubles = {
        "forbidden": answer(403),
        "unauthorised": answer(401),
        "all gone": answer(404),
        "broken": answer(500),
        "empty": answer(200, b"<html>no share is mounted here</html>"),
        "half": lambda request: "deep" in request.path and answer(404)(request),  # its folder alone
        "no page": lambda request: request.path.endswith("/deep/") and answer(503)(request),
    }
    for trouble, fault in troubles.items():
        web.fault = fault
        summary = run_scan(index, web.url)
        expected = 2 if trouble in ("half", "no page") else 3
        assert (summary.missing, summary.forgotten) == (expected, 0), trouble
        assert summary.unseen, trouble
        web.fault = lambda _: False
        remote_server._servers.clear()
        assert run_scan(index, web.url).returned == expected, trouble
    (library / "deep" / "c.wav").unlink()
    assert run_scan(index, web.url).forgotten == 1
    web.stop()
    assert run_scan(index, web.url).missing == 2
    assert names(index, "missing") == {"a.wav", "b.wav"}
    # what was heard can be asked about all the same
    query = f"{web.url}/a.wav"
    found = command("similar", query, "--index", index, "--json").json
    assert found["query"] == [query] or query in str(found["query"])
    assert "does not answer" in refusal("remix", query, "--index", index, "-o", str(library / "r.wav"))


def test_a_folder_that_a_server_will_not_list_halfway_keeps_its_files(
    library: Path, index: str, sftp: SftpServer
) -> None:
    for number, name in enumerate(("a/1.wav", "b/2.wav", "c/3.wav")):
        make_sound(library / name, 300 + 50 * number)
    url = f"{sftp.url}{library}"
    run_scan(index, url)
    shutil.rmtree(library / "a")  # really deleted
    sftp.fault = lambda path: sftp.stop() if path.endswith("/b") else None
    summary = run_scan(index, url)
    assert (summary.forgotten, summary.missing) == (0, 3)  # nobody is there to say what became of the first
    sftp.fault = lambda _: None
    sftp.start()
    remote_server._servers.clear()
    (library / "c" / "3.wav").rename(library / "c" / "4.wav")  # known by its content: no decoder is asked
    back = run_scan(index, url)
    assert (back.forgotten, back.returned, back.moved, back.windows) == (1, 1, 1, 0)
    assert names(index) == {"2.wav", "4.wav"}


def test_files_of_a_server_that_goes_away_are_left_for_the_next_scan(
    library: Path, tmp_path: Path, index: str, web: WebServer
) -> None:
    for number in range(6):
        make_sound(library / f"{number}.wav", 300 + 50 * number)

    def fault(request: Any) -> bool:
        if sum(line.startswith("GET") and line.endswith(".wav") for line in web.asked) < 3:
            return False
        if request.path.endswith(".wav") and request.command == "GET":  # half a file, and nothing from then on
            data = Path(request.translate_path(request.path)).read_bytes()
            request.send_response(206)
            request.send_header("Content-Length", str(len(data)))
            request.end_headers()
            request.wfile.write(data[: len(data) // 2])
        request.close_connection = True
        request.connection.close()
        return True

    web.fault = fault
    summary = run_scan(index, web.url)
    assert (summary.added, summary.postponed, summary.failed, summary.forgotten) == (2, 4, 0, 0)
    assert summary.unseen[0][0] == web.url
    web.fault = lambda _: False
    assert run_scan(index, web.url).added == 4
    here = str(tmp_path / "here")
    run_scan(here, library)
    assert known(index, web.url) == known(here, str(library))


def test_files_that_go_or_change_between_listing_and_reading_are_no_errors(
    library: Path, index: str, web: WebServer
) -> None:
    for number, name in enumerate(("changed.wav", "gone.wav", "other.wav")):
        make_sound(library / name, 300 + 50 * number)
    heads: dict[str, int] = {}

    def fault(request: Any) -> bool:
        heads[request.path] = heads.get(request.path, 0) + 1
        if request.command == "GET" and request.path.endswith("changed.wav"):
            web.fault = lambda _: False
            make_sound(library / "longer.wav", 700, 0.75)
            os.replace(library / "longer.wav", library / "changed.wav")
            age(library / "changed.wav", 10**12)
            (library / "gone.wav").unlink()
        return False

    web.fault = fault
    summary = run_scan(index, web.url)
    assert (summary.found, summary.failed, summary.forgotten) == (3, summary.failures.get("io", 0), 0)
    assert "gone.wav" not in {*names(index), *names(index, "failed")}
    run_scan(index, web.url)
    assert names(index) == {"changed.wav", "other.wav"}
    assert one(index, f"{web.url}/changed.wav").duration == 0.75


# -- one file --------------------------------------------------------------------------------------------------------


def test_a_transfer_that_breaks_off_is_taken_up_again(
    library: Path, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PIECE_BYTES", 1000)
    monkeypatch.setenv(remote_server.PATIENCE_VARIABLE, "60")
    monkeypatch.setattr(remote_server, "FIRST_PAUSE_S", 0.01)
    data = make_sound(library / "a.wav").read_bytes()
    broken: list[str] = []

    def fault(request: Any) -> bool:
        if request.command != "GET" or len(web.asked) % 2:
            return False
        broken.append(request.headers["Range"])
        request.send_response(206)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(b"x" * 300)
        request.close_connection = True
        return True

    web.fault = fault
    with open_sound(f"{web.url}/a.wav") as file:
        assert file.read() == data
    assert len(broken) > 3


def test_a_file_that_never_comes_whole_is_an_error_of_its_own(
    library: Path, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(remote_server.PATIENCE_VARIABLE, "60")
    monkeypatch.setattr(remote_server, "FIRST_PAUSE_S", 0.01)
    make_sound(library / "a.wav")
    web.fault = lambda request: request.command == "GET" and request.path.endswith(".wav") and answer(200)(request)
    with pytest.raises(UnreadableFileError, match=r"failed 3 times: 0 of \d+ bytes came") as raised:
        open_sound(f"{web.url}/a.wav")
    assert raised.value.kind == "io"  # the server is well: the next scan tries again


def test_a_server_that_says_nothing_is_given_up_in_time(
    library: Path, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    make_sound(library / "a.wav")
    web.fault = lambda _: bool(time.sleep(2))  # type: ignore[func-returns-value]
    monkeypatch.setattr(remote_server, "CALL_S", 0.1)
    monkeypatch.setattr(remote_server, "FIRST_PATIENCE_S", 0.1)
    monkeypatch.setattr(remote_server, "AWAY_S", 3600.0)
    alive: list[int] = []
    monkeypatch.setattr(remote_server, "_alive", lambda: alive.append(1))
    with pytest.raises(ServerAwayError, match=r"no answer within 0\.1 seconds; try again when it does"):
        open_sound(f"{web.url}/a.wav")
    waited = len(alive)
    assert waited  # a worker's supervisor is told that it lives
    with pytest.raises(ServerAwayError):  # and is not asked again for a while
        open_sound(f"{web.url}/a.wav")
    assert len(alive) == waited


def test_a_server_without_ranges_gives_all_of_a_file_piece_by_piece(
    library: Path, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PIECE_BYTES", 3000)
    data = make_sound(library / "a.wav").read_bytes()

    def fault(request: Any) -> bool:
        del request.headers["Range"]
        return False

    web.fault = fault
    with open_sound(f"{web.url}/a.wav") as file:
        assert file.read() == data


def test_fetched_files_have_no_names_and_are_let_go_of(
    library: Path, tmp_path: Path, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    sizes = []
    for number in range(5):
        sizes.append(make_sound(library / f"{number}.wav", 300 + number, 0.5).stat().st_size)
    monkeypatch.setattr(remote, "_kept_bytes", 2 * sizes[0])
    for number in range(5):
        with open_sound(f"{web.url}/{number}.wav") as file:
            file.read()
        assert os.listdir(folder) == []  # so that a process that is killed leaves nothing behind
        assert sum(size for _, size, _ in remote._kept) <= 2 * sizes[0]
    if sys.platform == "linux":
        held = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)]
        assert sum(str(folder) in name for name in held) == 2
    asked = len(web.asked)
    with open_sound(f"{web.url}/4.wav") as first, open_sound(f"{web.url}/4.wav") as second:
        first.seek(100)
        assert second.tell() == 0
    assert len(web.asked) == asked


def _is_open(descriptor: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{descriptor}")


def test_a_file_that_is_too_long_or_finds_no_room_is_not_fetched(
    library: Path, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_sound(library / "a.wav")
    path = f"{web.url}/a.wav"
    with monkeypatch.context() as patched:
        patched.setattr(remote, "MAX_FETCHED_BYTES", 1000)
        with pytest.raises(AudioLimitError, match="above"):
            open_sound(path)
    monkeypatch.setattr(remote, "ROOM_S", 0.0)
    monkeypatch.setattr(remote, "SPARE_BYTES", 1 << 62)
    monkeypatch.setattr(remote, "SPARE_SHARE", 1.0)
    with pytest.raises(UnreadableFileError, match=r"no room for its 0 MB in .*; free some space there, or set TMPDIR"):
        open_sound(path)
    assert not [line for line in web.asked if line.startswith("GET")]


# -- names and doors -------------------------------------------------------------------------------------------------


def test_urls_are_written_in_one_way_and_never_hold_a_password() -> None:
    assert absolute_path(b"S3://bucket//music/./a/../b/") == b"s3://bucket/music/b"
    assert absolute_path("http://h/My Song/ä%20.wav".encode()) == b"http://h/My%20Song/%C3%A4%20.wav"
    assert absolute_path(b"sftp://nas:2222/") == b"sftp://nas:2222"
    assert absolute_path(b"C://x").startswith(b"/")
    for text, hint in (
        (b"sftp://anna:secret@nas/music", r"^sftp://nas/music: write it like this.*ssh/config"),
        (b"smb://anna@nas/share", "FSSPEC_SMB_PASSWORD"),
        (b"ftp://a:b@host/x", "config/fsspec"),
    ):
        with pytest.raises(UsageError, match=hint) as raised:
            absolute_path(text)
        assert "secret" not in str(raised.value)
    for text in (b"s3://", b"smb://nas"):
        with pytest.raises(UsageError):
            absolute_path(text)


@pytest.mark.parametrize(("url", "module"), [("s3://b/m", "s3fs"), ("sftp://h/m", "sshfs"), ("smb://h/s", "smbclient")])
def test_a_missing_library_is_named_with_what_to_install(
    index: str, url: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = sys.modules["fsspec.registry"]
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(registry, "_registry", {})
    monkeypatch.setattr(registry, "registry", {})
    monkeypatch.delitem(sys.modules, "fsspec.implementations.smb", raising=False)
    extra = url.partition(":")[0]
    assert f"pip install 'embedindex[{extra}]'" in refusal("scan", url, "--index", index, "--model", "tiny")
    assert not os.path.exists(index)


def test_unknown_kinds_of_servers_and_servers_that_are_not_there_are_refused(index: str) -> None:
    assert "nothing here knows gopher://" in refusal("scan", "gopher://h/x", "--index", index)
    pytest.importorskip("aiohttp")
    said = refusal("scan", "http://127.0.0.1:9/music", "--index", index, "--model", "tiny")
    assert "http://127.0.0.1:9/music: its server does not answer: " in said
    assert "connect" in said.lower()
    with pytest.raises(RemoteError):
        run_scan(index, "http://127.0.0.1:9/music")


def test_a_host_whose_key_is_not_known_is_not_trusted(library: Path, index: str, sftp: SftpServer) -> None:
    sftp.known_hosts.write_text("")
    said = refusal("scan", f"{sftp.url}{library}", "--index", index, "--model", "tiny")
    assert "refuses access" in said
    assert "host key" in said.lower()


def test_what_is_found_on_a_server_can_be_copied_and_asked_about_but_not_linked_or_written(
    library: Path, tmp_path: Path, index: str, web: WebServer
) -> None:
    for number in range(3):
        make_sound(library / f"{number}.wav", 300 + 20 * number)
    run_scan(index, web.url)
    query = f"{web.url}/0.wav"
    found = command("similar", query, "--index", index, "--json").json["results"]
    assert {hit["path"] for hit in found} == {f"{web.url}/1.wav", f"{web.url}/2.wav"}
    assert f"{web.url}/1.wav" in command("similar", f"{query}@0-0.3", "--index", index, "--m3u").text
    copies = tmp_path / "copies"
    command("similar", query, "--index", index, "--copy-to", str(copies))
    assert {path.read_bytes() for path in copies.iterdir()} == {(library / f"{n}.wav").read_bytes() for n in (1, 2)}
    links = command("similar", query, "--index", index, "--link-to", str(tmp_path / "links"))
    assert "no link can lead" in links.error
    assert f"{web.url}/2.wav" in command("list", "--index", index, "--path", f"{web.url}/*", "--paths").text
    assert command("label", "set", "genre=drone", web.url, "--index", index).status == 0
    assert len(command("list", "--index", index, "--label", "genre=drone", "--json").json) == 3
    from embedindex.write_tags import TagError, read_genres

    with pytest.raises(TagError, match="on which nothing is written"):
        read_genres(query.encode())
    assert "add --output-dir" in refusal("embed", query, "--model", "tiny", status=2)


def test_a_dry_run_looks_at_a_server_and_a_watch_polls_it(library: Path, index: str, web: WebServer) -> None:
    from embedindex.file_events import FileEvents

    fetched = []

    def fault(request: Any) -> bool:
        if request.command == "GET" and request.headers["Range"]:
            first, last = request.headers["Range"].removeprefix("bytes=").split("-")
            fetched.append(int(last) + 1 - int(first))
        return False

    web.fault = fault
    size = make_sound(library / "a.wav", 300, 100.0).stat().st_size
    guess = command("scan", web.url, "--dry-run", "--json", "--model", "tiny", "--index", index).json
    assert (guess["found"], guess["probed"], round(guess["audio_s"])) == (1, 1, 100)
    assert 0 < sum(fetched) < size / 4  # its header only
    root = os.fsencode(web.url)
    unfollowed = FileEvents([root], b"/nowhere", poll=False, wait_s=0.1).renew()
    assert [(entry.root, entry.reason) for entry in unfollowed] == [(root, "servers do not tell what changes on them")]


def test_scans_of_this_machine_load_nothing_that_talks_to_servers(library: Path, index: str) -> None:
    make_sound(library / "a.wav")
    run_scan(index, library)
    program = (
        "import sys\nfrom embedindex.scan import scan\n"
        "assert scan(sys.argv[1], [sys.argv[2]]).unchanged == 1\n"
        "assert not {'fsspec', 'aiohttp'} & set(sys.modules), 'loaded'\n"
    )
    subprocess.run([sys.executable, "-c", program, index, str(library)], check=True)


def test_a_share_of_windows_is_scanned_like_a_folder(
    library: Path, tmp_path: Path, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_sound(library / "a" / "ä 1.wav")
    server = SmbServer(library, monkeypatch)
    here = str(tmp_path / "here")
    run_scan(here, library)
    summary = run_scan(index, server.url)
    assert (summary.added, summary.unseen) == (1, [])
    assert known(index, server.url) == known(here, str(library))
    server.stop()
    gone = run_scan(index, server.url)
    assert (gone.missing, gone.forgotten) == (1, 0)


def test_links_and_odd_names_on_a_server_do_no_harm(library: Path, sftp: SftpServer) -> None:
    make_sound(library / "a" / "two\nlines.wav")
    make_sound(library / "a" / "100% #1?.wav")
    os.symlink(library / "a", library / "a" / "circle")
    os.symlink(library / "a" / "100% #1?.wav", library / "link.wav")
    trouble = CrawlTrouble()
    url = os.fsencode(f"{sftp.url}{library}")
    found = {one.path.removeprefix(url): one.stat.size for one in crawl([url], trouble)}
    assert set(found) == {b"/a/two\nlines.wav", b"/a/100% #1?.wav"}
    assert trouble == CrawlTrouble()
    with open_sound(url + b"/a/100% #1?.wav") as file:
        assert np.frombuffer(file.read(4) or b"", np.uint8).tobytes() == b"RIFF"


@pytest.mark.parametrize("samples", [["C3.wav"], ["c3.WAV"], ["../piano/C3.wav"], ["../" * 20 + "x.wav", "C3.wav"]])
def test_samples_of_an_sfz_file_on_a_server_are_an_instrument(index: str, library: Path, samples: list[str]) -> None:
    make_sound(library / "piano" / "C3.wav")
    make_sound(library / "piano" / "noise.wav", 550.0)
    (library / "piano" / "piano.sfz").write_text("".join(f"<region> sample={sample}\n" for sample in samples))
    root = f"file://{library}"
    run_scan(index, root)
    with Store(index) as store:
        found = {os.path.basename(record.path): record.instrument for record in store.files()}
    assert found == {b"C3.wav": f"{root}/piano/piano", b"noise.wav": None}
