"""How processes of ours that open strangers' files are started, and what they may do.

Processes are spawned, never forked: a forked child of a process that used FAISS hangs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator


def limit_process(parent: int, niceness: int, memory_bytes: int) -> None:
    """Make this process polite and mortal: nice, bounded, deaf to Ctrl-C, without core dumps, gone when its parent is.

    Args:
        parent: id of the process that started it.
        niceness: added to the process's own (0 to 19).
        memory_bytes: limit of the process's own memory, 0 for none.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if niceness and hasattr(os, "nice"):
        os.nice(niceness)
    with contextlib.suppress(ImportError):  # Windows has no such limits
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if memory_bytes and sys.platform == "linux":
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            limit = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
            resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1  # prctl(2)
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Let numeric libraries of a process started inside use one thread, as there is a process for each core already."""
    wanted = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
    )
    # glibc hands freed memory above these sizes back at once, and gets it cleared anew, page by page, for the next
    # array: a quarter of the time of the built-in model. Other C libraries do not know the names.
    wanted |= {"MALLOC_MMAP_THRESHOLD_": str(2**24), "MALLOC_TRIM_THRESHOLD_": str(2**25)}
    with environment(wanted):
        yield


@contextlib.contextmanager
def environment(wanted: dict[str, str]) -> Iterator[None]:
    """Set some variables for the processes that are started inside."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Start a process with Ctrl-C blocked, so that it cannot be hit before it has said that it ignores it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
