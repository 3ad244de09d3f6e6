"""Kernels in a language of their own, as a library carries them, and whether they parse."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

from edgeinfer.errors import CheckFailedError

_KERNEL = {
    "opencl": r"__kernel\s+void\s+(\w+)",
    "metal": r"kernel\s+void\s+(\w+)",
    "webgpu": r"@compute[^{]*?fn\s+(\w+)",
}
_CLANGS = ("clang", *(f"clang-{version}" for version in range(14, 23)))
_PARSE = ("-x", "cl", "-cl-std=CL2.0", "-Xclang", "-finclude-default-header", "-fsyntax-only", "-")


def sources(module: Any) -> Iterator[tuple[str, str]]:
    """Yields the language and the text of a module's device code."""
    for part in module.imports:
        if part.kind in _KERNEL:
            yield part.kind, part.inspect_source()
        yield from sources(part)


def parsed(executable: Any) -> list[str]:
    """Counts kernels, and lets clang read those in OpenCL if it is installed.

    Raises:
        CheckFailedError: there are none, or clang refuses some.
    """
    found = list(sources(executable.mod))
    if not found:
        raise CheckFailedError("the library has no kernels")
    told = []
    for language, text in found:
        count = len(set(re.findall(_KERNEL[language], text)))
        told.append(f"{count} kernels in {language}")
        if language == "opencl":
            told.append(_parsed_by_clang(text))
    return told


def _parsed_by_clang(text: str) -> str:
    clang = next(
        filter(None, map(shutil.which, ("clang", "clang-14", "clang-16", "clang-18"))), None
    )
    if clang is None:
        return "not parsed: clang is not installed"
    ran = subprocess.run([clang, *_PARSE], input=text, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise CheckFailedError(f"clang refuses the kernels: {ran.stderr.strip()[:500]}")
    return "clang parses them"
