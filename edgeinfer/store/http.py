"""Downloads over HTTP: certificates, timeouts, retries, and going on where one stopped.

The client drops the Authorization header when a redirect leaves the host.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgeinfer.errors import CheckFailedError, EdgeInferError, NotFoundError
from edgeinfer.store.model import Progress

if TYPE_CHECKING:
    import httpx2

_TRIES = 5  # in a row without a new byte
_FIRST_WAIT_SECONDS = 0.5  # doubles from try to try
_RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


@contextmanager
def open_client() -> Iterator[httpx2.Client]:
    """Opens a client that trusts what pip would trust (PIP_CERT), else the system."""
    import ssl

    import httpx2

    bundle = os.environ.get("PIP_CERT")
    verify = ssl.create_default_context(cafile=bundle) if bundle else True
    with httpx2.Client(
        verify=verify,
        follow_redirects=True,
        max_redirects=5,
        timeout=httpx2.Timeout(30, connect=15),
        headers={"User-Agent": "edgeinfer", "Accept-Encoding": "identity"},
    ) as client:
        yield client


def get(client: httpx2.Client, url: str, accept: str) -> httpx2.Response:
    """Returns the answer to a GET, tried again when the network or the server stumbles.

    Raises:
        NotFoundError: the server says no, or is not there.
    """
    import httpx2

    waits = _waits()
    while True:
        try:
            response = client.get(url, headers={"Accept": accept})
        except httpx2.TransportError as error:
            problem = str(error) or type(error).__name__
        else:
            if response.status_code == 200:
                return response
            problem = f"HTTP status {response.status_code}"
            if response.status_code not in _RETRY_STATUS:
                raise _unreachable(url, problem)
        wait = next(waits, None)
        if wait is None:
            raise _unreachable(url, problem)
        time.sleep(wait)


def download(
    client: httpx2.Client, url: str, part: Path, *, size: int | None, progress: Progress | None
) -> None:
    """Downloads into ``part``, continuing what is there, until it has all its bytes.

    Args:
        client: see ``open_client``.
        url: what to fetch.
        part: an unfinished file of the same content, or none yet.
        size: the bytes it must have in the end; None if only the server knows.
        progress: called after each chunk.

    Raises:
        NotFoundError: the server says no, or stays away.
        CheckFailedError: the server sends more than ``size``.
        EdgeInferError: the disk is too small.
    """
    import httpx2

    part.parent.mkdir(parents=True, exist_ok=True)
    waits = _waits()
    while True:
        before = part.stat().st_size if part.exists() else 0
        if size is not None:
            if before == size:
                return
            _check_room(part.parent, size - before)
        problem = "the connection ended early"
        try:
            with client.stream("GET", url, headers=_range(before)) as response:
                status = response.status_code
                if status == 416:  # the part is longer than the file
                    part.unlink()
                elif status in (200, 206):
                    at, total = _position(response, before)
                    size = total if size is None else size
                    _append(response, part, at=at, size=size, progress=progress)
                    if size is None:
                        return  # the server did not say either; the caller's hash decides
                elif status in _RETRY_STATUS:
                    problem = f"HTTP status {status}"
                else:
                    raise _unreachable(url, f"HTTP status {status}")
        except httpx2.TransportError as error:
            problem = str(error) or type(error).__name__
        after = part.stat().st_size if part.exists() else 0
        if size is not None and after == size:
            return
        if after > before:
            waits = _waits()
        wait = next(waits, None)
        if wait is None:
            raise _unreachable(url, problem)
        time.sleep(wait)


def read_range(
    client: httpx2.Client, url: str, start: int, end: int, headers: dict[str, str]
) -> bytes:
    """Returns the bytes [start, end) of a file, or up to where it ends.

    Of a server that does not do ranges, what comes first is read and no more.

    Raises:
        NotFoundError: the server says no, or stays away.
    """
    import httpx2

    got = b""
    waits = _waits()
    while True:
        at, problem = start + len(got), "the connection ended early"
        wanted = {**headers, "Range": f"bytes={at}-{end - 1}"}
        try:
            with client.stream("GET", url, headers=wanted) as response:
                status = response.status_code
                if status in (200, 206):
                    begin, total = _position(response, at)
                    skip = at - begin
                    for chunk in response.iter_raw():
                        got += chunk[skip:]
                        skip = max(0, skip - len(chunk))
                        if start + len(got) >= end:
                            break
                    if start + len(got) >= min(end, total or end):
                        return got[: end - start]
                elif status in _RETRY_STATUS:
                    problem = f"HTTP status {status}"
                elif status in (401, 403):
                    raise NotFoundError(
                        f"cannot fetch {url}: HTTP status {status}",
                        hint="if it is gated, accept its terms on its page, then set HF_TOKEN",
                    )
                else:
                    raise _unreachable(url, f"HTTP status {status}")
        except httpx2.TransportError as error:
            problem = str(error) or type(error).__name__
        if start + len(got) > at:
            waits = _waits()
        wait = next(waits, None)
        if wait is None:
            raise _unreachable(url, problem)
        time.sleep(wait)


def _check_room(folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if need > free:
        raise EdgeInferError(
            f"{need} bytes to download, {free} bytes free on the disk of {folder}",
            hint="free some space, or choose another place with EDGEINFER_HOME",
        )


def _waits() -> Iterator[float]:
    return iter([_FIRST_WAIT_SECONDS * 2**number for number in range(_TRIES - 1)])


def _range(start: int) -> dict[str, str]:
    return {"Range": f"bytes={start}-"} if start else {}


def _position(response: httpx2.Response, wanted: int) -> tuple[int, int | None]:
    """Where in the file the body begins, and the file's length if the server says it."""
    if response.status_code == 200:  # all of it: the server does not do ranges
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    header = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", header)
    if match is None or int(match[1]) != wanted:
        raise CheckFailedError(
            f"{response.url} was asked for byte {wanted} and answered with {header!r}"
        )
    return wanted, None if match[2] == "*" else int(match[2])


def _append(
    response: httpx2.Response, part: Path, *, at: int, size: int | None, progress: Progress | None
) -> None:
    with part.open("r+b" if part.exists() else "wb") as file:
        file.truncate(at)
        file.seek(at)
        done = at
        # As they come: with a chunk size, what is gathered is lost when the connection breaks.
        for chunk in response.iter_raw():
            done += len(chunk)
            if size is not None and done > size:
                raise CheckFailedError(f"{response.url} sends more than the {size} bytes promised")
            file.write(chunk)
            if progress is not None:
                progress(done, size)


def _unreachable(url: str, problem: str) -> NotFoundError:
    return NotFoundError(
        f"cannot fetch {url}: {problem}",
        hint="check the connection and run the same command again; it goes on where it stopped",
    )
