"""The GPUs and NPUs that an installed ONNX Runtime can compute on.

It is asked as the backends are, in a process of its own. The backend ``onnx`` uses them where
the environment variable EDGEINFER_ONNX_PROVIDER says so.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions, version
from typing import Any

from edgeinfer.backends.base import Support
from edgeinfer.device.accelerator import Accelerator
from edgeinfer.device.profile import DeviceProfile
from edgeinfer.formats.onnx_library import MODULE, onnxruntime

_SUFFIX = "ExecutionProvider"

# Providers that are told as built in, whether or not there is a device. A driver is loaded to
# see; where a provider is only built for machines that have the device, none is needed.
_Drivers = dict[str, str | None]  # by platform
_BUILT_IN: dict[str, tuple[str, _Drivers]] = {
    "CUDA": ("gpu", {"linux": "libcuda.so.1", "win32": "nvcuda.dll"}),
    "MIGraphX": ("gpu", {"linux": "libamdhip64.so"}),
    "ROCM": ("gpu", {"linux": "libamdhip64.so"}),
    "Dml": ("gpu", {"win32": "d3d12.dll"}),
    "CoreML": ("npu", {"darwin": None}),
    "QNN": ("npu", {"linux": "libQnnHtp.so", "win32": "QnnHtp.dll", "android": "libQnnHtp.so"}),
}
_KINDS = {"GPU": "gpu", "NPU": "npu"}


class OnnxRuntime:
    """Answers as a backend that runs nothing."""

    name = MODULE
    formats: frozenset[str] = frozenset()

    def version(self) -> str:
        """The version of the package that is installed, of the several builds there are."""
        found = packages_distributions().get(MODULE, [])
        return version(found[0]) if found else ""

    def probe(self, device: DeviceProfile) -> Support:
        """Loads the library and lists what it can compute on."""
        if not self.version():
            return Support(usable=False, reason=f"{MODULE} is not installed")
        return Support(
            usable=False,
            reason="models run on the processor unless EDGEINFER_ONNX_PROVIDER names another",
            accelerators=accelerators(onnxruntime()),
        )


def accelerators(library: Any) -> tuple[Accelerator, ...]:
    """The devices of an imported onnxruntime: those it tells of, and those of its providers."""
    found = list(_told(library))
    told = {accelerator.api for accelerator in found}
    for provider in library.get_available_providers():
        api = provider.removesuffix(_SUFFIX)
        if api in told or api not in _BUILT_IN:
            continue
        kind, drivers = _BUILT_IN[api]
        if sys.platform in drivers and _loads(drivers[sys.platform]):
            found.append(Accelerator(kind=kind, api=api, name=f"{api} device"))
    return tuple(found)


def _told(library: Any) -> Iterator[Accelerator]:
    """Devices of providers that list theirs: those of ONNX Runtime 1.22 and later."""
    for entry in getattr(library, "get_ep_devices", list)():
        kind = _KINDS.get(str(entry.device.type).rpartition(".")[2])
        if kind is not None:
            name = entry.device.metadata.get("Description") or f"{entry.device.vendor} {kind}"
            yield Accelerator(kind=kind, api=entry.ep_name.removesuffix(_SUFFIX), name=name.strip())


def _loads(driver: str | None) -> bool:
    try:
        return driver is None or bool(ctypes.CDLL(driver))
    except OSError:
        return False
