"""Imports onnxruntime, without the reports of its use that it sends to its makers by default."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from edgeinfer.errors import UnsupportedError

MODULE = "onnxruntime"
INSTALL = "pip install 'edgeinfer[onnx]', with Python 3.11 or newer"
# Of this age are the builds that makers of chips give out. It runs all but int8 caches; two bits
# are slow in it, which is why an installation of ours brings a later one.
OLDEST = (1, 24)
_REPORTS_OFF = "ORT_DISABLE_TELEMETRY"  # read once, when it is imported


def onnxruntime() -> Any:
    """Returns the module.

    From 1.31 on it keeps a device's number under ~/.cache/Microsoft and sends what it runs
    over the network, unless an environment variable says no before it is imported.

    Raises:
        UnsupportedError: it is not installed, or too old.
    """
    os.environ.setdefault(_REPORTS_OFF, "1")
    try:
        library = import_module(MODULE)
    except ImportError as error:
        raise UnsupportedError(f"models of ONNX need {MODULE}: {error}", hint=INSTALL) from error
    major, minor = (int(part) for part in library.__version__.split(".")[:2])
    if (major, minor) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise UnsupportedError(
            f"{MODULE} {library.__version__} is too old, {oldest} is needed", hint=INSTALL
        )
    return library
