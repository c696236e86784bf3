"""Devices that compute networks: which there are, and which a model can use.

NVIDIA devices are found by `nvidia-smi`, which comes with their driver. ``"processor"`` stands for this machine's
processor in place of a device: a process of its own for the model, so that all but the device itself can be tried out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, replace

from embedindex.errors import DeviceError, UsageError
from embedindex.models.base import Model, ModelRequest

CHOICES = ("auto", "cpu", "cuda")
ASK_S = 20.0


@dataclass(frozen=True)
class Device:
    """A device.

    Attributes:
        kind: ``"cuda"`` or ``"processor"``.
        name: what it is called.
        number: how CUDA names it (``GPU-…``); empty for a processor.
    """

    kind: str
    name: str
    number: str = ""


def check_device(wanted: str) -> None:
    """Refuse what is no choice of device, before it is known whether anything is to be computed at all.

    Raises:
        UsageError: there is no such choice.
    """
    if wanted not in (*CHOICES, "processor"):
        raise UsageError(f"--device {wanted}: choose {', '.join(CHOICES)}")


def find_devices(wanted: str, engine: str = "auto") -> tuple[Device, ...]:
    """Return the devices that ``auto``, ``cpu``, ``cuda`` or ``processor`` stand for on this machine.

    Args:
        wanted: one of these.
        engine: what is to use them, as in a request.

    Raises:
        UsageError: there is no such choice, or the engine computes on processors only.
        DeviceError: ``cuda`` was asked for, and there is no such device, or ONNX Runtime cannot use it.
    """
    check_device(wanted)
    if wanted == "processor":
        return (Device("processor", "processor"),)
    if wanted == "cpu":
        return ()
    if engine == "openvino":
        if wanted == "cuda":
            raise UsageError("--device cuda: the engine openvino computes on the processor; leave out one of them")
        return ()
    devices = _nvidia()
    if wanted == "cuda" and not devices:
        raise DeviceError("--device cuda: nvidia-smi shows no device on this machine; leave out --device")
    if devices and engine != "tensorflow" and not _runtime_knows_cuda():
        if wanted == "cuda":
            raise DeviceError(
                "--device cuda: the ONNX Runtime that is installed is the one for processors; install the other with: "
                "pip uninstall onnxruntime, pip install 'embedindex[gpu]'"
            )
        return ()
    return devices


def can_use_device(model: Model) -> bool:
    """Say whether a model has a network that a device computes: float32, and in two steps (`base.TwoStepModel`)."""
    return hasattr(model, "compute") and model.identity.parameters.get("precision") != "int8"


def request_for_device(model: Model, request: ModelRequest, asked: ModelRequest | None) -> ModelRequest:
    """Return the request for a model on a device: in float32 where the 8-bit one that was chosen agrees with it.

    Args:
        model: the model that `request` led to.
        request: what the index has, or is to have.
        asked: what the user asked for; who asks for 8 bits gets them, on the processor.
    """
    insisted = asked is not None and asked.precision == "int8"
    if insisted or model.identity.parameters.get("agrees_with_fp32") is not True:
        return request
    return replace(request, precision="fp32")


def _nvidia() -> tuple[Device, ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    command = [program, "--query-gpu=uuid,name", "--format=csv,noheader"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, timeout=ASK_S, check=True)
    except (OSError, subprocess.SubprocessError):  # a driver that does not answer is no device
        return ()
    found = [tuple(part.strip() for part in line.split(",", 1)) for line in listing.stdout.splitlines() if "," in line]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    wanted = None if visible is None else [part.strip() for part in visible.split(",")]
    return tuple(
        Device("cuda", name, number)
        for place, (number, name) in enumerate(found)
        if wanted is None or str(place) in wanted or any(part and number.startswith(part) for part in wanted)
    )


def _runtime_knows_cuda() -> bool:
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
