"""Names for the array types that signatures use. Shapes stand in the docstrings of the functions."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Float16Array: TypeAlias = npt.NDArray[np.float16]
Float32Array: TypeAlias = npt.NDArray[np.float32]
Float64Array: TypeAlias = npt.NDArray[np.float64]
Int16Array: TypeAlias = npt.NDArray[np.int16]
Int64Array: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
