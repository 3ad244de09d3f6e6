"""ONNX Runtime's execution providers: one is asked for, and that one computes, or it is an error.

By itself the library hands what a provider cannot compute to the processor, or everything where
a provider does not start, with a line in a log at most. Here sessions get one provider, and where
it is not the processor's, none of the processor's beside it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from edgeinfer.errors import EdgeInferError, UnsupportedError

PROCESSOR = "CPUExecutionProvider"
PROVIDER = "EDGEINFER_ONNX_PROVIDER"  # names another one, such as "cuda" or "openvino"
_SUFFIX = "ExecutionProvider"
_ELSEWHERE = frozenset({"AzureExecutionProvider"})  # computes on somebody else's machine
_NO_FALLBACK = "session.disable_cpu_ep_fallback"
# y = x + x of one float, to see whether a provider starts at all (opset 21).
_GRAPH = (
    b'\x08\n:5\n\x0e\n\x01x\n\x01x\x12\x01y"\x03Add\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01'
    b"\x12\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x15"
)


def wanted(library: Any) -> str:
    """The provider that is asked for; the processor's by default.

    Raises:
        UnsupportedError: this build of onnxruntime has none of that name.
    """
    name = os.environ.get(PROVIDER, "")
    if not name:
        return PROCESSOR
    here = available(library)
    for provider in here:
        if provider.removesuffix(_SUFFIX).lower() == name.removesuffix(_SUFFIX).lower():
            return provider
    raise UnsupportedError(
        f"onnxruntime {library.__version__} has no provider {name!r}",
        hint=f"here are {', '.join(p.removesuffix(_SUFFIX) for p in here)}; {PROVIDER} names it",
    )


def available(library: Any) -> list[str]:
    """The providers that were built in and compute here."""
    return [p for p in library.get_available_providers() if p not in _ELSEWHERE]


def session(library: Any, graph: str | bytes, options: Any, provider: str) -> Any:
    """Makes a session that computes on a provider alone.

    Raises:
        UnsupportedError: the library took another one.
        Exception: what the library raises where the provider cannot compute the graph.
    """
    if provider != PROCESSOR:
        options.add_session_config_entry(_NO_FALLBACK, "1")
    made = library.InferenceSession(graph, options, providers=[provider])
    ran = made.get_providers()
    if ran[:1] != [provider]:
        raise UnsupportedError(
            f"onnxruntime took {', '.join(ran) or 'no provider'}, not {provider}"
        )
    return made


def started(library: Any, providers: Sequence[str]) -> dict[str, str]:
    """Tries providers on the smallest graph; returns what is wrong with each, "" for nothing."""
    found = {}
    for provider in providers:
        options = library.SessionOptions()
        options.log_severity_level = 4  # what fails is told by us
        try:
            session(library, _GRAPH, options, provider)
            found[provider] = ""
        except EdgeInferError as error:
            found[provider] = error.message
        except Exception as error:  # its errors have no class in common
            found[provider] = str(error).splitlines()[0]
    return found
