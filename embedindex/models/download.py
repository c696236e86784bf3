"""One file from an HTTP server to a path: progress, resume, retries, size limit, and errors a user can act on.

Conventions: nothing here knows what the file is; the caller checks its bytes before they are used. Proxies come from
the environment (``HTTPS_PROXY``, ``HTTP_PROXY``, ``NO_PROXY``), certificates from the system or ``SSL_CERT_FILE``.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import queue
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlsplit

from embedindex.errors import UsageError, WeightsMissingError
from embedindex.models.cache import writing_failed
from embedindex.whole_files import NO_SPACE

Progress: TypeAlias = Callable[[int, int | None], None]
"""Called with the bytes that are here and the bytes there will be (None when the server does not say)."""

CHUNK = 1 << 16
# Answers that another attempt may change; every other 4xx is final.
RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, and how often.

    Attributes:
        open_s: seconds for the name look-up, the connection and the first answer together.
        read_s: seconds without a single byte after which a connection counts as lost.
        attempts: how many times to try in all.
        pause_s: seconds before the second attempt; each later pause is twice as long.
    """

    open_s: float = 15.0
    read_s: float = 20.0
    attempts: int = 4
    pause_s: float = 1.0


# `--model auto` asks without being told to: one attempt, and five seconds at most for an answer.
QUICK = Patience(open_s=5.0, attempts=1)


class _Refused(Exception):  # noqa: N818 - never leaves this module
    """An attempt failed in a way that no other one will cure."""


class _Interrupted(Exception):  # noqa: N818 - never leaves this module
    """An attempt failed in a way that another one may cure."""


def download(
    url: str,
    part: str,
    *,
    limit: int,
    advice: str,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> bool:
    """Fetch `url` into the file `part`, continuing what an earlier call left there.

    Args:
        url: an ``http`` or ``https`` address.
        part: path of the file to write; kept after an interruption so that the next call can go on from there.
        limit: largest number of bytes to accept.
        advice: what a user can do when the file cannot be fetched; ends the message.
        progress: told about every chunk.
        patience: time-outs and attempts.

    Returns:
        True when the file was put together from more than one transfer (its bytes deserve more suspicion).

    Raises:
        UsageError: `url` is not an http(s) address.
        WeightsMissingError: the file could not be fetched or written; the message says why.
    """
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise UsageError(f"{url}: weights are fetched over http or https only; see $EMBEDINDEX_WEIGHTS_URL")
    patience = patience or Patience()
    joined = False
    for attempt in range(patience.attempts):
        if attempt:
            time.sleep(patience.pause_s * 2 ** (attempt - 1))
        try:
            return _transfer(url, part, limit, progress, patience) or joined
        except _Interrupted as problem:
            reason = str(problem)
            joined = joined or os.path.exists(part)
        except _Refused as problem:
            raise WeightsMissingError(f"{url} could not be fetched: {problem}. {advice}") from problem
    tried = f" ({patience.attempts} attempts)" if patience.attempts > 1 else ""
    raise WeightsMissingError(f"{url} could not be fetched: {reason}{tried}. {advice}")


def _transfer(url: str, part: str, limit: int, progress: Progress | None, patience: Patience) -> bool:
    """Make one attempt; return whether it continued an earlier one."""
    here = os.path.getsize(part) if os.path.exists(part) else 0
    headers = {"User-Agent": "embedindex", "Accept-Encoding": "identity"}
    if here:
        headers["Range"] = f"bytes={here}-"
    with _open(urllib.request.Request(url, headers=headers), part, patience) as response:  # noqa: S310 - checked above
        continued = response.status == http.client.PARTIAL_CONTENT and here > 0
        if not continued:
            here = 0
        length = response.headers.get("Content-Length", "")
        total = here + int(length) if length.isdigit() else None
        if total is not None and total > limit:
            raise _Refused(f"it is {total:,} bytes, more than weights can be ({limit:,})")
        done = _copy(response, part, here, total, limit, progress)
    if done > limit:
        os.remove(part)
        raise _Refused(f"it goes on beyond {limit:,} bytes, more than weights can be")
    if total is not None and done < total:
        raise _Interrupted(f"the connection broke off after {done:,} of {total:,} bytes")
    return continued


def _copy(
    response: http.client.HTTPResponse, part: str, here: int, total: int | None, limit: int, progress: Progress | None
) -> int:
    """Append the response to the first `here` bytes of `part`; return the bytes there are now (limit + 1 at most)."""
    try:
        with open(part, "r+b" if here else "wb") as file:
            file.seek(here)
            while here <= limit:
                try:
                    chunk = response.read1(CHUNK)
                except (OSError, http.client.HTTPException) as problem:
                    raise _Interrupted(
                        f"the connection broke off after {here:,} bytes ({_words(problem)})"
                    ) from problem
                if not chunk:
                    break
                file.write(chunk)
                here += len(chunk)
                if progress is not None:
                    progress(here, total)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
    except OSError as problem:
        if problem.errno in NO_SPACE:
            with contextlib.suppress(OSError):  # it may never have been made
                os.remove(part)  # half a file is of no use on a full disk
        raise writing_failed(problem, part) from problem
    return here


def _open(request: urllib.request.Request, part: str, patience: Patience) -> http.client.HTTPResponse:
    """Return the server's answer to `request` within `patience.open_s`.

    The work is done in a thread, because the look-up of a name has no time-out of its own.
    """
    answers: queue.Queue[http.client.HTTPResponse | Exception] = queue.Queue(1)

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(request, timeout=patience.read_s, context=_certificates()))  # noqa: S310
        except Exception as problem:  # noqa: BLE001 - handed over to the caller below
            answers.put(problem)

    threading.Thread(target=ask, daemon=True, name="embedindex-download").start()
    try:
        answer = answers.get(timeout=patience.open_s)
    except queue.Empty:
        raise _Interrupted(f"no answer from {urlsplit(request.full_url).netloc} in {patience.open_s:g} s") from None
    if isinstance(answer, urllib.error.HTTPError):
        raise _status_error(answer, part) from answer
    if isinstance(answer, (OSError, http.client.HTTPException)):
        if isinstance(getattr(answer, "reason", None), ssl.SSLCertVerificationError):
            raise _Refused(
                "its certificate is not trusted here; where a proxy has its own, set SSL_CERT_FILE to a file with it"
            ) from answer
        if isinstance(getattr(answer, "reason", None), (socket.gaierror, ConnectionRefusedError)):
            raise _Refused(f"{_words(answer)} ({urlsplit(request.full_url).netloc})") from answer
        raise _Interrupted(_words(answer)) from answer
    if isinstance(answer, Exception):
        raise answer
    return answer


def _status_error(answer: urllib.error.HTTPError, part: str) -> Exception:
    """Return the error that an HTTP status stands for."""
    said = f"the server answered {answer.code} {answer.reason}"
    if answer.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        os.remove(part)  # what is here is longer than the file: begin again
        return _Interrupted(said)
    if answer.code in RETRIED_STATUS:
        return _Interrupted(said)
    return _Refused(said)


def _certificates() -> ssl.SSLContext:
    """Return a context that trusts what the system trusts; where it trusts nobody, what certifi does."""
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if not context.cert_store_stats()["x509_ca"] and not paths.capath:
        with contextlib.suppress(ImportError):  # python.org's macOS installer comes without certificates
            import certifi

            context.load_verify_locations(certifi.where())
    return context


def _words(problem: Exception) -> str:
    """Return a short reason for a failed connection."""
    reason = getattr(problem, "reason", None) or problem
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror[0].lower() + reason.strerror[1:]
    return str(reason) or type(reason).__name__
