"""Where sounds lie on a plane, so that what sounds alike lies together.

PaCMAP keeps neighbours and the great outlines, openTSNE neighbours above all; PCA, which needs nothing installed, only
the outlines. The same vectors and seed give the same plane.

Conventions: vectors are (n, dimension) unit rows of the index's space; places are (n, 2) float32 in 0…1, y upwards.

References:
    Y. Wang, H. Huang, C. Rudin, Y. Shaposhnik, "Understanding how dimension reduction tools work" (JMLR 2021): PaCMAP.
    P. Poličar, M. Stražar, B. Zupan, "openTSNE: a modular Python library for t-SNE dimensionality reduction" (2024).
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Literal, get_args

import numpy as np

from embedindex.arrays import Float32Array, Float64Array
from embedindex.errors import EngineMissingError, UsageError

Method = Literal["pacmap", "opentsne", "pca"]
METHODS: tuple[str, ...] = get_args(Method)
# The neighbour methods need neighbours: fewer points than this are laid out by PCA.
MIN_NEIGHBOURS = 30


def choose_method(wanted: str | None) -> Method:
    """Return the method to use: what is wanted, else the best that is installed.

    Raises:
        UsageError: there is no such method.
        EngineMissingError: it is not installed.
    """
    packages: dict[str, Method] = {"pacmap": "pacmap", "openTSNE": "opentsne"}
    installed = [method for package, method in packages.items() if find_spec(package) is not None]
    if wanted is None:
        return installed[0] if installed else "pca"
    if wanted not in METHODS:
        raise UsageError(f"--method {wanted}: choose {', '.join(METHODS[:-1])} or {METHODS[-1]}")
    if wanted != "pca" and wanted not in installed:
        raise EngineMissingError(f"--method {wanted} needs a package: pip install 'embedindex[map]'; pca needs none")
    return wanted  # type: ignore[return-value]


def lay_out(vectors: Float32Array, method: Method, seed: int = 0) -> Float32Array:
    """Return the places of sounds on the plane, (n, 2) in 0…1.

    Args:
        vectors: (n, dimension) unit rows.
        method: see `choose_method`; fewer than `MIN_NEIGHBOURS` points are laid out by PCA.
        seed: other seeds give other planes (not with PCA).
    """
    if method == "pca" or len(vectors) < MIN_NEIGHBOURS:
        return _in_unit_square(_principal(vectors, 2))
    reduced = np.ascontiguousarray(_principal(vectors, 50), np.float32)
    if method == "pacmap":
        places = _pacmap(reduced, seed)
    else:
        import openTSNE

        places = openTSNE.TSNE(random_state=seed, n_jobs=1, initialization="pca").fit(reduced)
    return _in_unit_square(np.asarray(places, np.float64))


def _pacmap(reduced: Float32Array, seed: int) -> Float32Array:
    """Return the places, (n, 2), of points (n, 50); on one thread, whatever numba was told."""
    import numba
    import pacmap

    logging.getLogger("pacmap").setLevel(logging.ERROR)  # it warns of what is asked for here on purpose
    threads = numba.get_num_threads()
    numba.set_num_threads(1)  # more only spin while one works: five times the processor time, and longer, too
    try:
        layout = pacmap.PaCMAP(n_components=2, random_state=seed, apply_pca=False)
        return np.asarray(layout.fit_transform(reduced, init="pca"), np.float32)
    finally:
        numba.set_num_threads(threads)


def _principal(vectors: Float32Array, axes: int) -> Float64Array:
    """Return the coordinates on the first principal axes, (n, axes), each with the sign of its largest part."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    values, directions = np.linalg.eigh(centred.T @ centred)
    directions = directions[:, np.argsort(-values, kind="stable")[:axes]]
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, np.arange(directions.shape[1])])
    found: Float64Array = centred @ directions
    if found.shape[1] < axes:
        found = np.pad(found, ((0, 0), (0, axes - found.shape[1])))
    return found


def _in_unit_square(places: Float64Array) -> Float32Array:
    low, high = places.min(axis=0), places.max(axis=0)
    size = float((high - low).max())
    middle = (low + high) / 2
    return np.asarray((places - middle) / (size if size > 0 else 1.0) + 0.5, np.float32)
