"""Language models on the machine in front of you: convert, plan, chat.

The public names are imported on first use, so that ``import edgeinfer`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeinfer.errors import (
        CheckFailedError,
        ClosedError,
        ContextFullError,
        CorruptFileError,
        DoesNotFitError,
        EdgeInferError,
        NotFoundError,
        UnsupportedError,
        UsageError,
    )
    from edgeinfer.runtime.conversion import convert
    from edgeinfer.runtime.loading import load
    from edgeinfer.runtime.model import Model
    from edgeinfer.runtime.session import Session
    from edgeinfer.tokenizer import ChatTemplate, Tokenizer, load_tokenizer
    from edgeinfer.types import (
        Completion,
        FinishReason,
        Message,
        SamplingParams,
        Timings,
        TokenEvent,
        TokenLogprob,
    )

    __version__: str

# module -> the public names it holds
_HOMES = {
    "edgeinfer.errors": (
        "CheckFailedError",
        "ClosedError",
        "ContextFullError",
        "CorruptFileError",
        "DoesNotFitError",
        "EdgeInferError",
        "NotFoundError",
        "UnsupportedError",
        "UsageError",
    ),
    "edgeinfer.runtime.conversion": ("convert",),
    "edgeinfer.runtime.loading": ("load",),
    "edgeinfer.runtime.model": ("Model",),
    "edgeinfer.runtime.session": ("Session",),
    "edgeinfer.tokenizer": ("ChatTemplate", "Tokenizer", "load_tokenizer"),
    "edgeinfer.types": (
        "Completion",
        "FinishReason",
        "Message",
        "SamplingParams",
        "Timings",
        "TokenEvent",
        "TokenLogprob",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ChatTemplate",
    "CheckFailedError",
    "ClosedError",
    "Completion",
    "ContextFullError",
    "CorruptFileError",
    "DoesNotFitError",
    "EdgeInferError",
    "FinishReason",
    "Message",
    "Model",
    "NotFoundError",
    "SamplingParams",
    "Session",
    "Timings",
    "TokenEvent",
    "TokenLogprob",
    "Tokenizer",
    "UnsupportedError",
    "UsageError",
    "convert",
    "load",
    "load_tokenizer",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        value: object = version("edgeinfer")
    elif name in _HOME_OF:
        value = getattr(import_module(_HOME_OF[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # the next access is a plain one
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
