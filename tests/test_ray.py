"""A scan on a Ray cluster of two machines (two raylets here) gives what a scan on one gives, also when one is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embedindex.errors import ClusterError, ModelError
from embedindex.models import ModelRequest
from embedindex.path_map import parse_path_map
from embedindex.ray_pool import Cluster, RayPool
from embedindex.store import Store
from embedindex.verify import verify
from embedindex.worker import WorkerSetup
from tests.command_line import command, refusal
from tests.indexing import TINY, age, constant, make_sound, records, run_scan, write_samples
from tests.processes import PATIENCE_S, files_done, wait_until
from tests.servers import WebServer

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.xdist_group("ray")]


@pytest.fixture(scope="module")
def models_there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models folder of the machines."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def cluster(models_there: Path) -> Iterator[Any]:
    """Two machines of one core each; the driver runs beside them."""
    ray = pytest.importorskip("ray", reason="Ray is not installed (embedindex[ray])")
    from ray.cluster_utils import Cluster as LocalCluster

    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_health_check_initial_delay_ms", "500")
    patch.setenv("RAY_health_check_period_ms", "500")
    patch.setenv("RAY_health_check_failure_threshold", "3")
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("EMBEDINDEX_MODELS", str(models_there))
    # The head only coordinates: it has no cores to offer.
    head = {"num_cpus": 0, "include_dashboard": False}
    machines = insist(lambda: LocalCluster(initialize_head=True, head_node_args=head))
    try:
        for _ in range(2):
            insist(lambda: machines.add_node(num_cpus=1))
        machines.wait_for_nodes(PATIENCE_S)
        yield machines
    finally:
        ray.shutdown()
        machines.shutdown()
        patch.undo()


def insist(make: Callable[[], Any]) -> Any:
    """Return what Ray made: it gives its processes 30 seconds to start, which a busy machine may not keep."""
    for _ in range(3):
        try:
            return make()
        except Exception as error:  # noqa: BLE001 - Ray raises that very class
            failed = error
    raise failed


@pytest.fixture
def on(cluster: Any) -> Cluster:
    """Where to scan."""
    return Cluster(cluster.address)


def content(index: str) -> dict[str, tuple[object, ...]]:
    """What an index says of every path, but for its numbers and times of scan."""
    with Store(index) as store:
        assert verify(store).problems == ()
        return {
            record.text_path: (
                record.status, record.error_kind, record.error_reason, record.content_hash, record.size,
                record.mtime_ns, record.device, record.inode, record.duration, record.peak, record.codec,
                record.n_silent, record.hop_s, record.note,
                store.vectors_of(record).tobytes() if record.status == "ok" else b"",
            )
            for record in store.files()
        }  # fmt: skip


def messy(library: Path, sounds: int) -> None:
    """Fill a folder with good, broken, doubled, silent, crashing files."""
    for number in range(sounds):
        make_sound(library / f"folder{number % 5}" / f"{number}.wav", 200 + 5 * number, 0.3 + number % 7)
    (library / "broken.wav").write_bytes(b"RIFF\x10\x00\x00\x00WAVEfmt " + bytes(9))
    (library / "empty.flac").write_bytes(b"")
    (library / "double.wav").write_bytes((library / "folder0" / "0.wav").read_bytes())
    write_samples(library / "crash.wav", constant(0.95))
    for name in ("broken.wav", "empty.flac", "double.wav"):
        age(library / name)


def test_cluster_gives_what_one_machine_gives(library: Path, index: str, on: Cluster, tmp_path: Path) -> None:
    messy(library, 60)
    summary = run_scan(index, library, cluster=on, workers=0)
    alone = str(tmp_path / "alone")
    expected = run_scan(alone, library)
    assert content(index) == content(alone)
    assert (summary.added, summary.failed, summary.copied) == (expected.added, expected.failed, expected.copied)
    assert summary.failures == expected.failures
    assert run_scan(index, library).unchanged == 64  # stats are this machine's
    with Store(index) as store:
        assert {one.error_kind for one in store.files("status = 'failed'")} >= {"crashed"}


def test_files_are_found_under_another_path_on_the_machines(
    library: Path, index: str, cluster: Any, tmp_path: Path
) -> None:
    there = tmp_path / "elsewhere"
    make_sound(there / "a" / "x.wav", 440)
    library.rmdir()
    library.symlink_to(there)
    on = Cluster(cluster.address, parse_path_map([f"{library}={there}"]))
    assert run_scan(index, library, cluster=on, workers=0).added == 1
    wrong = Cluster(cluster.address, parse_path_map([f"{library}={tmp_path / 'nowhere'}"]))
    make_sound(there / "a" / "y.wav", 550)
    summary = run_scan(index, library, cluster=wrong, workers=0)
    assert summary.failures == {"io": 1}


def test_machines_get_the_weights_that_they_lack_and_no_others(
    library: Path, index: str, on: Cluster, models_there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "models"
    (here / "converted").mkdir(parents=True)
    (here / "sent.pth").write_bytes(os.urandom(300_000))
    (here / "converted" / "sent.onnx").write_bytes(os.urandom(30))
    (here / "sent.lock").touch()
    (here / "known.pth").write_bytes(b"here")
    (models_there / "known.pth").write_bytes(b"there")
    monkeypatch.setenv("EMBEDINDEX_MODELS", str(here))
    make_sound(library / "x.wav", 440)
    assert run_scan(index, library, cluster=on, workers=0).added == 1
    for name in ("sent.pth", "converted/sent.onnx"):
        assert (models_there / name).read_bytes() == (here / name).read_bytes()
    assert (models_there / "known.pth").read_bytes() == b"there"
    assert not (models_there / "sent.lock").exists()


def test_lost_machine_costs_nothing_but_time(
    library: Path, index: str, cluster: Any, on: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(60):
        make_sound(library / str(number % 9) / f"{number}.wav", 100 + 3 * number, 1 + number % 5)
    go = tmp_path / "go"
    doomed = insist(lambda: cluster.add_node(num_cpus=1))
    cluster.wait_for_nodes(PATIENCE_S)

    def lose_it_when_all_have_work() -> None:
        try:
            wait_until(lambda: len(list(tmp_path.glob("go.*"))) == 3)
            os.kill(doomed.all_processes["raylet"][0].process.pid, signal.SIGKILL)
            wait_until(lambda: "was lost with" in caplog.text)
        finally:
            go.touch()

    killer = threading.Thread(target=lose_it_when_all_have_work)
    killer.start()
    try:
        waiting = replace(TINY, options=(("until", str(go)), ("free", "1")))
        summary = run_scan(index, library, cluster=on, workers=0, request=waiting)
    finally:
        killer.join()
        cluster.remove_node(doomed, allow_graceful=False)
    assert summary.crashes == 1
    assert (summary.added, summary.failed) == (60, 0)
    alone = str(tmp_path / "alone")
    run_scan(alone, library)
    assert content(index) == content(alone)


def test_coordinator_that_was_killed_goes_on_where_it_was(
    library: Path, index: str, cluster: Any, tmp_path: Path
) -> None:
    for number in range(120):
        make_sound(library / f"{number}.wav", 100 + 3 * number, 3)
    go = tmp_path / "go"
    arguments = [sys.executable, "-m", "embedindex", "scan", str(library), "--index", index,
                 "--model", f"tiny:until={go},free=100",
                 "--engine", "ray", "--address", cluster.address, "--quiet"]  # fmt: skip
    process = subprocess.Popen(arguments)
    wait_until(lambda: files_done(index) >= 10 or process.poll() is not None)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert 10 <= files_done(index) < 120
    go.touch()
    assert subprocess.run(arguments, check=False).returncode == 0
    alone = str(tmp_path / "alone")
    run_scan(alone, library)
    assert content(index) == content(alone)


def test_machine_that_makes_other_vectors_stops_the_scan(library: Path, index: str, on: Cluster) -> None:
    make_sound(library / "x.wav", 440)
    setup = WorkerSetup(ModelRequest("tiny"), 0.5, 60.0, 0)
    with RayPool(setup, 1, "another", on) as pool, pytest.raises(ModelError, match="the model changed"):
        work_on(pool, library / "x.wav")


def work_on(pool: RayPool, path: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if pool.has_room and not pool.busy:
            pool.submit(1, os.fsencode(path))
        list(pool.events(0.2))


def test_cluster_that_is_not_there_is_named(library: Path, index: str) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (embedindex[ray])")
    make_sound(library / "x.wav", 440)
    for address, reason in (("127.0.0.1:1", "refused"), ("somewhere", "write host:port")):
        with pytest.raises(ClusterError, match=f"{reason}.*ray start --head"):
            run_scan(index, library, cluster=Cluster(address))
    assert records(index) == {}


def test_cluster_options_without_the_cluster_are_refused(library: Path, index: str) -> None:
    error = refusal("scan", library, "--index", index, "--map", "/a=/b", status=2)
    assert "--engine ray" in error


def test_command_scans_on_the_cluster(library: Path, index: str, cluster: Any) -> None:
    make_sound(library / "x.wav", 440)
    done = command(
        "scan", library, "--index", index, "--model", "tiny", "--engine", "ray", "--address", cluster.address, "--json"
    )
    assert done.json["added"] == 1


def test_machines_of_a_cluster_read_from_servers_themselves(
    library: Path, index: str, on: Cluster, tmp_path: Path
) -> None:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed (fsspec[http])")
    for number in range(6):
        make_sound(library / f"{number}.wav", 200 + 50 * number)
    server = WebServer(library)
    try:
        assert run_scan(index, server.url, cluster=on, workers=0).added == 6
    finally:
        server.stop()
    alone = str(tmp_path / "alone")
    run_scan(alone, library)
    heard = [{os.path.basename(path): facts[-1] for path, facts in content(each).items()} for each in (index, alone)]
    assert heard[0] == heard[1]
