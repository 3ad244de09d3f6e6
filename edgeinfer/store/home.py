"""The folders edgeinfer owns, and its locks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def home() -> Path:
    """Returns ``EDGEINFER_HOME``, else the platform's cache folder for edgeinfer."""
    chosen = os.environ.get("EDGEINFER_HOME")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("edgeinfer", appauthor=False)


def downloads() -> Path:
    """Returns the folder of unfinished downloads."""
    return home() / "downloads"


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Holds a lock between processes; the second one waits until the first is done."""
    from filelock import FileLock

    folder = home() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{name}.lock"):
        yield


def is_offline() -> bool:
    """True if the environment forbids the network (HF_HUB_OFFLINE, EDGEINFER_OFFLINE)."""
    names = ("HF_HUB_OFFLINE", "EDGEINFER_OFFLINE")
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in names)
