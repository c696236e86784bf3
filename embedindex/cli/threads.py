"""How many threads numpy takes, for the commands that search."""

from __future__ import annotations

import os


def spare_threads() -> None:
    """Keep numpy's BLAS to one thread; call it before numpy is imported.

    Its idle threads spin and take the processors from FAISS's and from other programs: with one a search takes half the
    time, and choosing for a remix on a busy machine two fifths of the processor time.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
