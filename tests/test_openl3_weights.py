"""The official weight files in every layout that exists, and what is refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from embedindex.errors import ChecksumError, WeightsFormatError, WeightsMissingError
from embedindex.models.openl3_weights import read_weights
from tests.openl3_oracle import write_official_file


@pytest.mark.parametrize(("attribute", "root"), [("text", ""), ("bytes", ""), ("text", "model_weights")])
def test_every_layout_of_the_official_file_gives_the_same_weights(tmp_path: Path, attribute: str, root: str) -> None:
    plain = read_weights(write_official_file(tmp_path / "plain.h5"))
    other = read_weights(write_official_file(tmp_path / "other.h5", attribute=attribute, root=root))
    assert all(np.array_equal(a, b) for a, b in zip(plain.kernels, other.kernels, strict=True))
    assert all(np.array_equal(a.gamma, b.gamma) for a, b in zip(plain.norms, other.norms, strict=True))


def test_a_file_with_the_old_front_end_is_refused(tmp_path: Path) -> None:
    path = write_official_file(tmp_path / "w.h5")
    with h5py.File(path, "a") as file:
        names = list(file.attrs["layer_names"])
        file.attrs["layer_names"] = np.array(["melspectrogram_1", *names], dtype=h5py.string_dtype())
        layer = file.create_group("melspectrogram_1")
        layer.attrs["weight_names"] = np.array(["melspectrogram_1/real_kernels:0"], dtype=h5py.string_dtype())
        layer.create_dataset("melspectrogram_1/real_kernels:0", data=np.zeros(3))
    with pytest.raises(WeightsFormatError, match="front end of a version before"):
        read_weights(path)


def test_a_tensor_of_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    path = write_official_file(tmp_path / "w.h5")
    with h5py.File(path, "a") as file:
        del file["conv2d_12/conv2d_12/bias:0"]
        file["conv2d_12/conv2d_12/bias:0"] = np.zeros(65, np.float32)
    with pytest.raises(WeightsFormatError, match="conv2d_12"):
        read_weights(path)


def test_a_missing_layer_is_refused(tmp_path: Path) -> None:
    path = write_official_file(tmp_path / "w.h5")
    with h5py.File(path, "a") as file:
        file.attrs["layer_names"] = file.attrs["layer_names"][:-1]
    with pytest.raises(WeightsFormatError, match="15 layers with weights, the network has 16"):
        read_weights(path)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = write_official_file(tmp_path / "w.h5")
    with h5py.File(path, "a") as file:
        file["conv2d_12/conv2d_12/bias:0"][3] = np.nan
    with pytest.raises(WeightsFormatError, match="not finite"):
        read_weights(path)


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n" + bytes(100), b"<html>not found</html>"])
def test_what_is_no_hdf5_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.h5"
    path.write_bytes(content)
    with pytest.raises(WeightsFormatError, match=r"w\.h5: not a readable HDF5"):
        read_weights(str(path))


def test_a_weights_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissingError, match="check the path"):
        read_weights(str(tmp_path / "none.h5"))


def test_weights_that_changed_after_the_check_are_not_loaded(tmp_path: Path) -> None:
    path = write_official_file(tmp_path / "w.h5")
    with pytest.raises(ChecksumError, match="changed while"):
        read_weights(path, "0" * 64)
