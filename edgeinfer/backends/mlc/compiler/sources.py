"""Kernels in a language of their own, as a library carries them, and whether they parse."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from edgeinfer.errors import CheckFailedError

_KERNEL = {
    "opencl": r"__kernel\s+void\s+(\w+)",
    "metal": r"kernel\s+void\s+(\w+)",
    "webgpu": r"@compute[^{]*?fn\s+(\w+)",
}
_CLANGS = ("clang", *(f"clang-{version}" for version in range(14, 23)))
_PARSE = ("-x", "cl", "-cl-std=CL2.0", "-Xclang", "-finclude-default-header", "-fsyntax-only", "-")
_SHADER = re.compile(r"^// Function: (\w+)$", re.MULTILINE)  # each is a program of its own
# What every browser that has WebGPU has: https://www.w3.org/TR/webgpu/#limits
_WEB_LIMITS = {
    "max-storage-buffers-per-shader-stage": 8,
    "max-compute-invocations-per-workgroup": 256,
    "max-compute-workgroup-size-x": 256,
    "max-compute-workgroup-size-y": 256,
    "max-compute-workgroup-size-z": 64,
    "max-compute-workgroup-storage-size": 16384,
}


def sources(module: Any) -> Iterator[tuple[str, str]]:
    """Yields the language and the text of a module's device code."""
    for part in module.imports:
        if part.kind in _KERNEL:
            yield part.kind, part.inspect_source()
        yield from sources(part)


def parsed(executable: Any) -> list[str]:
    """Counts kernels, and lets a compiler of their language read them if one is installed.

    Raises:
        CheckFailedError: there are none, or a compiler refuses some.
    """
    found = list(sources(executable.mod))
    if not found:
        raise CheckFailedError("the library has no kernels")
    told = []
    for language, text in found:
        count = len(set(re.findall(_KERNEL[language], text)))
        told += [f"{count} kernels in {language}", _READERS[language](text)]
    return told


def _by_clang(text: str) -> str:
    clang = next(filter(None, map(shutil.which, _CLANGS)), None)
    if clang is None:
        return "not parsed: clang is not installed"
    ran = subprocess.run([clang, *_PARSE], input=text, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise CheckFailedError(f"clang refuses the kernels: {ran.stderr.strip()[:500]}")
    return "clang parses them"


def _by_wgpu(text: str) -> str:
    try:
        import wgpu
    except ImportError:
        return "not parsed: wgpu is not installed (pip install wgpu)"
    adapters = wgpu.gpu.enumerate_adapters_sync()
    adapter = next((a for a in adapters if "shader-f16" in a.features), None)
    if adapter is None:
        return "not parsed: wgpu finds no graphics processor, nor one in software (Mesa)"
    device = adapter.request_device_sync(
        required_features=["shader-f16"], required_limits=_WEB_LIMITS
    )
    _, *parts = _SHADER.split(text)
    for name, code in zip(parts[::2], parts[1::2], strict=True):
        if "@compute" not in code:  # a heading that is followed by another
            continue
        try:
            shader = device.create_shader_module(code=code)
            device.create_compute_pipeline(
                layout="auto", compute={"module": shader, "entry_point": name}
            )
        except wgpu.GPUError as error:
            raise CheckFailedError(f"wgpu refuses {name}: {str(error)[:500]}") from error
    return "wgpu compiles them"


def _by_nobody(text: str) -> str:
    return "not parsed: only Apple's compiler could"


_READERS: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {"opencl": _by_clang, "webgpu": _by_wgpu, "metal": _by_nobody}
)
