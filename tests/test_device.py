"""A network that a process of its own computes for all workers: the same vectors, whatever becomes of that process.

There is no device here: the process computes on the processor, and the test model says when its memory is short.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import Pipe, current_process
from multiprocessing.connection import Listener
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from embedindex.arrays import Float32Array
from embedindex.audio import MAX_DURATION_S
from embedindex.errors import DeviceError, DeviceMemoryError, UsageError
from embedindex.models import ModelRequest, load_model
from embedindex.models.aisfx import AisfxModel
from embedindex.models.arithmetic import MIN_COSINE, Arithmetic, choose_arithmetic, least_cosine
from embedindex.models.batching import Batches, is_out_of_memory, measure_batch, note_key, read_note, write_note
from embedindex.models.convnet import ConvLayer, ConvNet
from embedindex.models.convnet_onnx import build
from embedindex.models.device_process import _folder_for_sockets, _Server
from embedindex.models.devices import Device, can_use_device, find_devices, request_for_device
from embedindex.models.engines import CPU_PROVIDERS
from embedindex.models.remote import RemoteModel
from embedindex.store import Store
from embedindex.worker import Embedded, WorkerSetup
from embedindex.workers import Event, Hashed, WorkerPool
from tests.command_line import command, refusal
from tests.indexing import TINY, constant, make_sound, names, records, run_scan, write_samples
from tests.openl3_oracle import write_official_file
from tests.processes import PATIENCE_S, lives, wait_until

FUSED = ModelRequest("tiny+spectral")
FILES = 48  # many calls, so that what a device's process says is heard before the last of them


@pytest.fixture(autouse=True)
def models_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is measured of a device is remembered in a folder of the test's own."""
    folder = tmp_path / "models"
    monkeypatch.setenv("EMBEDINDEX_MODELS", str(folder))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return folder


@pytest.fixture
def sounds(library: Path) -> Path:
    for number in range(FILES):
        make_sound(library / f"{number}.wav", 200 + 20 * number, 0.2 + 0.1 * (number % 24))
    return library


def vectors(index: str) -> dict[bytes, bytes]:
    with Store(index) as store:
        return {record.path: store.vectors_of(record).tobytes() for record in store.files("status = 'ok'")}


def on_device(**options: str) -> dict[str, Any]:
    """Return options of a scan with the test model, with options of its own, computed in another process."""
    return {"device": "processor", "workers": 2, "request": ModelRequest("tiny", tuple(options.items()))}


def remember(request: ModelRequest, batch: int) -> None:
    """Write what a measurement would have found."""
    import onnxruntime

    names = (request.engine, "processor", "processor", onnxruntime.__version__)
    write_note(note_key("batch", load_model(request).identity.fingerprint, *names), {"batch": batch})


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("embedindex.models")]


# -- scans ------------------------------------------------------------------------------------------------------------


def test_vectors_are_the_same_to_the_last_bit_and_nothing_is_left_behind(
    index: str, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import tempfile

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    run_scan(index, sounds)
    other = str(tmp_path / "other")
    assert run_scan(other, sounds, **on_device()).added == FILES
    assert vectors(other) == vectors(index)
    assert told(caplog) == []
    assert list((tmp_path / "temporary").iterdir()) == []


def test_short_memory_halves_the_calls_and_is_told_once(
    index: str, sounds: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    remember(TINY, 16)  # as measured on a day when there was more
    run_scan(index, sounds)
    other = str(tmp_path / "other")
    run_scan(other, sounds, **on_device(room="3"))
    assert vectors(other) == vectors(index)
    (message,) = told(caplog)
    assert message.startswith("processor: short of memory: ")
    assert message.endswith(" windows at a time from now on, not 16")


@pytest.mark.parametrize(
    ("option", "message"),
    [({"room": "0"}, "not memory enough for one window"), ({"broken": "yes"}, "the driver is out of order")],
)
def test_device_that_cannot_compute_is_told_of_once_and_the_workers_do_it(
    index: str, sounds: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, option: dict[str, str], message: str
) -> None:
    remember(TINY, 16)
    run_scan(index, sounds)
    other = str(tmp_path / "other")
    summary = run_scan(other, sounds, **on_device(**option))
    assert (summary.added, summary.failed, summary.crashes) == (FILES, 0, 0)
    assert vectors(other) == vectors(index)
    (said,) = told(caplog)
    assert message in said
    assert "the processor goes on with the work" in said


def test_device_that_fails_at_the_start_is_told_of_once(
    index: str, sounds: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert run_scan(index, sounds, **on_device(room="0")).added == FILES
    (said,) = told(caplog)
    assert said.startswith("processor cannot be used (there is not memory enough for one window")


def test_sound_that_takes_a_worker_down_fails_alone(index: str, sounds: Path) -> None:
    write_samples(sounds / "bad.wav", constant(0.95))
    summary = run_scan(index, sounds, **on_device())
    assert summary.added == FILES
    assert names(index, "failed") == {"bad.wav"}
    (bad,) = [record for path, record in records(index).items() if path.endswith("bad.wav")]
    assert bad.error_kind == "crashed"


@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGSTOP])
def test_workers_go_on_when_the_process_is_killed_or_hangs(
    sounds: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, what: signal.Signals
) -> None:
    monkeypatch.setattr("embedindex.models.device_process.GOODBYE_S", 0.5)
    setup = WorkerSetup(TINY, 0.5, MAX_DURATION_S, niceness=0, device="processor", answer_s=1.0)
    paths = sorted(sounds.iterdir())
    with WorkerPool(setup, 1, load_model(TINY).identity.fingerprint) as pool:
        assert isinstance(next(results(pool, paths[:1])), Embedded)
        assert pool._devices is not None
        ((process, _, _),) = pool._devices._running.values()
        assert process.pid is not None
        os.kill(process.pid, what)
        assert all(isinstance(result, Embedded) for result in results(pool, paths[1:]))
        assert pool.crashes == 0
        if what == signal.SIGKILL:
            wait_until(lambda: not list(pool.events(0.05)) and told(caplog))
            assert told(caplog) == [
                "the process that computes on processor is gone; the processor goes on with its work"
            ]
    assert not lives(process.pid)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes there wait for ever to be read")
def test_process_that_does_not_even_read_is_given_up() -> None:
    model, over = load_model(TINY), threading.Event()
    windows = np.random.default_rng(0).normal(0, 0.1, (200, 8000)).astype(np.float32)  # more than a socket holds
    folder = _folder_for_sockets()  # the name of a socket is short
    with Listener(os.path.join(folder, "s"), "AF_UNIX", authkey=bytes(current_process().authkey)) as listener:

        def hang() -> None:
            with listener.accept() as client:
                client.send(("ready", model.identity.fingerprint))
                over.wait()

        thread = threading.Thread(target=hang, daemon=True)
        thread.start()
        remote = RemoteModel(model, str(listener.address), answer_s=0.3)  # type: ignore[arg-type]
        try:
            asked = threading.Thread(target=lambda: made.append(remote.embed(windows)), daemon=True)
            made: list[Float32Array] = []
            asked.start()
            asked.join(PATIENCE_S)
            assert len(made) == 1
        finally:
            over.set()
        np.testing.assert_array_equal(made[0], model.embed(windows))
    shutil.rmtree(folder)


def results(pool: WorkerPool, paths: list[Path]) -> Iterator[object]:
    """Yield the result of each file."""
    left, ends = list(enumerate(paths)), time.monotonic() + PATIENCE_S
    while left or pool.busy:
        assert time.monotonic() < ends
        while left and pool.has_room:
            number, path = left.pop(0)
            pool.submit(number, os.fsencode(path), 1000)
        event: Event
        for event in pool.events(0.1):
            if isinstance(event, Hashed):
                pool.answer(event.task, embed=True)
            else:
                yield event.result


def test_index_in_8_bits_goes_on_in_float32_where_the_two_agree(index: str, sounds: Path, library: Path) -> None:
    eight = ModelRequest("tiny", (), precision="int8")
    run_scan(index, sounds / "0.wav", request=eight)
    assert run_scan(index, sounds, request=None, device="processor").added == FILES - 1
    model = load_model(eight)
    assert not can_use_device(model)
    assert request_for_device(model, eight, None).precision == "fp32"
    assert request_for_device(model, eight, eight) == eight
    unlike = replace(eight, options=(("agrees", "no"),))
    assert request_for_device(load_model(unlike), unlike, None) == unlike


# -- which devices there are ------------------------------------------------------------------------------------------


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver's program that shows two devices."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'GPU-11aa, NVIDIA L4'\necho 'GPU-22bb, NVIDIA A10, big'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent) + os.pathsep + os.environ["PATH"])


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands for the driver's program")
def test_devices_are_those_that_the_driver_shows_and_cuda_may_see(
    driver: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = (Device("cuda", "NVIDIA L4", "GPU-11aa"), Device("cuda", "NVIDIA A10, big", "GPU-22bb"))
    assert find_devices("cuda", "tensorflow") == both
    for visible, wanted in (("1", both[1:]), ("GPU-11", both[:1]), ("0,1", both), ("", ()), ("-1", ())):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert find_devices("auto", "tensorflow") == wanted


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands for the driver's program")
def test_device_without_a_runtime_for_it_is_refused_or_left_alone(driver: None) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime can use devices")
    with pytest.raises(DeviceError, match=r"pip install 'embedindex\[gpu\]'"):
        find_devices("cuda")
    assert find_devices("auto") == ()
    assert find_devices("cpu") == ()


def test_machine_without_a_device_says_so(index: str, sounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable))
    with pytest.raises(DeviceError, match="no device on this machine"):
        run_scan(index, sounds, request=TINY, device="cuda")
    assert find_devices("auto") == ()
    with pytest.raises(UsageError, match="choose auto, cpu, cuda"):
        find_devices("tpu")
    arguments = ["scan", str(sounds), "--index", index, "--model", "tiny", "--limit", "1", "-q", "--device"]
    assert "choose auto, cpu, cuda" in refusal(*arguments, "tpu", status=2)
    assert "leave out --device" in refusal(*arguments, "cuda")
    assert command(*arguments, "auto").status == 0


def test_device_that_is_none_is_refused_where_nothing_is_to_be_computed_too(index: str, sounds: Path) -> None:
    run_scan(index, sounds, request=TINY)
    for options in ([], ["--dry-run"], ["--engine", "ray"]):  # nothing is new; nothing is done; others do it
        assert "choose auto, cpu, cuda" in refusal("scan", sounds, "--index", index, *options, "--device=a", status=2)
    assert "choose auto, cpu, cuda" in refusal("scan", "/no/such", "--model=spectral", "--device=tpu", status=2)


def test_provider_that_the_runtime_lacks_is_an_error_not_the_processor() -> None:
    net = small_net()
    network = Arithmetic("fp32", lambda: build(net), ("CUDAExecutionProvider", "CPUExecutionProvider")).network(1, 1)
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime can use devices")
    with pytest.raises(DeviceError, match="cannot use its CUDAExecutionProvider"):
        network.cells(np.zeros((1, net.rows, net.columns), np.float32))


# -- calls of the network ---------------------------------------------------------------------------------------------


class Network:
    """Sums up its inputs, and has memory for so many windows. A call takes `call_s` seconds by its own clock."""

    def __init__(self, room: int = 1000, call_s: float = 0.0) -> None:
        self.room = room
        self.call_s = call_s
        self.clock_s = 0.0
        self.calls: list[int] = []

    def __call__(self, inputs: Float32Array) -> Float32Array:
        self.calls.append(len(inputs))
        if len(inputs) > self.room:
            raise RuntimeError("CUDA failure 2: out of memory ; GPU=0")
        self.clock_s += self.call_s
        return np.asarray(inputs.sum(axis=(1, 2))[:, None], np.float32)


INPUTS = np.random.default_rng(1).random((10, 3, 4)).astype(np.float32)


def test_calls_are_halved_until_there_is_memory_and_the_order_is_kept() -> None:
    network = Network(room=3)
    batches = Batches(network, 8)
    np.testing.assert_array_equal(batches.run(INPUTS), Network()(INPUTS))
    assert network.calls == [8, 4, 2, 2, 2, 2, 2]
    assert batches.size == 2
    with pytest.raises(DeviceMemoryError, match="one window"):
        Batches(Network(room=0), 8).run(INPUTS)


def test_other_errors_are_not_taken_for_short_memory() -> None:
    def broken(inputs: Float32Array) -> Float32Array:
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        Batches(broken, 8).run(INPUTS)


def test_calls_are_filled_up_to_powers_of_two_where_that_is_wanted() -> None:
    network = Network()
    np.testing.assert_array_equal(Batches(network, 8, padded=True).run(INPUTS[:7]), Network()(INPUTS[:7]))
    assert network.calls == [8]
    np.testing.assert_array_equal(Batches(network, 8, padded=True).run(INPUTS), Network()(INPUTS))
    assert network.calls == [8, 8, 2]


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (MemoryError(), True),
        (
            RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested"),
            True,
        ),
        (RuntimeError("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA failure 700: an illegal memory access was encountered"), False),
        (ValueError("memory"), False),
    ],
)
def test_what_runtimes_say_when_memory_is_short_is_understood(error: Exception, short: bool) -> None:
    assert is_out_of_memory(error) is short


def test_number_of_windows_a_call_is_the_fastest_that_there_is_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(room=24, call_s=0.02)  # a call takes as long with one window as with 24
    monkeypatch.setattr("embedindex.models.batching.time", SimpleNamespace(perf_counter=lambda: network.clock_s))
    size, rates = measure_batch(network, INPUTS)
    assert size == 16
    assert sorted(rates) == [1, 2, 4, 8, 16]
    with pytest.raises(DeviceMemoryError):
        measure_batch(Network(room=0), INPUTS)


def test_what_was_measured_is_remembered(models_folder: Path) -> None:
    key = note_key("batch", "a device")
    assert read_note(key) is None
    write_note(key, {"batch": 32})
    assert read_note(key) == {"batch": 32}
    assert read_note(note_key("batch", "another")) is None


def test_what_several_workers_ask_at_once_is_one_call() -> None:
    network = Network()
    ours, theirs = zip(*(Pipe() for _ in range(3)), strict=True)
    server = _Server(theirs[0], None, Batches(network, 16), "")  # type: ignore[arg-type]
    assert server._answer([(theirs[1], INPUTS[:6]), (theirs[2], INPUTS[6:])])
    assert network.calls == [10]
    from embedindex.messages import receive_message

    for end, inputs in ((ours[1], INPUTS[:6]), (ours[2], INPUTS[6:])):
        kind, made = receive_message(end)
        assert kind == "vectors"
        np.testing.assert_array_equal(made, Network()(inputs))


# -- networks ---------------------------------------------------------------------------------------------------------


def small_net(gain: float = 1.0) -> ConvNet:
    random = np.random.default_rng(4)
    layers = []
    for inputs, outputs in ((1, 8), (8, 8)):
        kernel = gain * random.standard_normal((outputs, inputs, 3, 3)) * (2 / 9 / inputs) ** 0.5
        layers.append(ConvLayer(kernel.astype(np.float32), np.zeros(outputs, np.float32), pool=(2, 2)))
    return ConvNet(16, 16, 1.0, 0.0, tuple(layers), "max", (4, 4))


def levels(count: int) -> Float32Array:
    return np.random.default_rng(5).random((count, 16, 16)).astype(np.float32)


def ways(net: ConvNet) -> list[Arithmetic]:
    return [
        Arithmetic("fp32", lambda: build(net), CPU_PROVIDERS),
        Arithmetic("fp16", lambda: build(net, half=True), CPU_PROVIDERS),
    ]


def test_float16_rounds_to_three_digits() -> None:
    exact, half = (way.network(1, 8).cells(levels(8)) for way in ways(small_net()))
    assert 0 < np.abs(half - exact).max() < 3e-3 * np.abs(exact).max()
    assert MIN_COSINE < least_cosine(exact, half) < 1.0


def test_float16_is_not_chosen_where_it_overflows_nor_what_cannot_be_computed() -> None:
    exact, half = ways(small_net(gain=1e6))
    nothing = Arithmetic("tf32", lambda: b"not a model", CPU_PROVIDERS)
    note = choose_arithmetic([exact, half, nothing], levels(40), lambda cells: cells, 1)
    assert note["chosen"] == "fp32"
    assert note["measured"]["fp16"]["cosine"] < MIN_COSINE
    assert "cannot load" in note["measured"]["tf32"]["error"]


def test_faster_arithmetic_is_chosen_where_it_agrees() -> None:
    slow = Arithmetic("fp32", lambda: build(small_net()), CPU_PROVIDERS)
    note = choose_arithmetic([slow, replace(slow, name="tf32")], levels(40), lambda cells: cells, 1)
    measured = note["measured"]
    assert measured["tf32"]["cosine"] == pytest.approx(1.0)
    fastest = max(measured, key=lambda name: measured[name]["windows_per_s"])
    assert note["chosen"] == fastest


def test_session_is_made_when_it_is_first_needed() -> None:
    network = ways(small_net())[0].network(1, 1)
    assert "_session" not in vars(network)
    assert network.cells(levels(1)).shape == (1, 8)
    assert "_session" in vars(network)


def test_openl3_computed_by_another_process_gives_the_same_bits(index: str, library: Path, tmp_path: Path) -> None:
    weights = write_official_file(tmp_path / "w.h5")
    request = ModelRequest("openl3", (("input_repr", "mel128"),), weights, "fp32")
    for number in range(2):
        make_sound(library / f"{number}.wav", 300 + 200 * number, 0.5 + 0.7 * number)
    remember(request, 4)
    run_scan(index, library, request=request, hop_s=1.0)
    other = str(tmp_path / "other")
    run_scan(other, library, request=request, hop_s=1.0, device="processor")
    assert vectors(other) == vectors(index)
    assert len(vectors(index)) == 2
    with Store(other) as store:
        model = store.model()
    assert model is not None
    assert model.request.device == "cpu"  # an index does not remember what computed it


def test_network_of_a_fused_model_is_computed_by_another_process_with_the_same_bits(
    index: str, sounds: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_scan(index, sounds, request=FUSED)
    other = str(tmp_path / "other")
    run_scan(other, sounds, **{**on_device(), "request": FUSED})
    assert told(caplog) == []
    assert vectors(other) == vectors(index)
    broken = replace(FUSED, options=(("broken", "yes"),))  # tells that it is that process which is asked
    run_scan(str(tmp_path / "broken"), sounds, **{**on_device(), "request": broken})
    assert len(told(caplog)) == 1
    assert vectors(str(tmp_path / "broken")) == vectors(index)


def test_only_networks_are_computed_elsewhere() -> None:
    assert can_use_device(load_model(TINY))
    assert can_use_device(load_model(FUSED))
    assert not can_use_device(load_model(ModelRequest("spectral")))
    assert hasattr(AisfxModel, "compute")
