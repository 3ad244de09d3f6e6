"""The devices that a build of ggml can compute on: functions of its C interface, ggml-backend.h."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgeinfer.device.accelerator import Accelerator

# enum ggml_backend_dev_type; the processor, its helpers (BLAS, AMX) and unions of devices are
# no accelerators of their own.
_KINDS = {1: "gpu", 2: "integrated gpu"}


@dataclass(frozen=True, slots=True)
class Device:
    """One device of ggml's registry."""

    type: int
    api: str  # of the registry it is in: "CPU", "CUDA", "Vulkan", "MTL", ...
    name: str
    memory_bytes: int


def devices(ggml: Any) -> Iterator[Device]:
    """All devices of a loaded libggml."""
    call = {
        "ggml_backend_dev_count": (ctypes.c_size_t, ()),
        "ggml_backend_dev_get": (ctypes.c_void_p, (ctypes.c_size_t,)),
        "ggml_backend_dev_type": (ctypes.c_int, (ctypes.c_void_p,)),
        "ggml_backend_dev_description": (ctypes.c_char_p, (ctypes.c_void_p,)),
        "ggml_backend_dev_memory": (
            None,
            (ctypes.c_void_p, *[ctypes.POINTER(ctypes.c_size_t)] * 2),
        ),
        "ggml_backend_dev_backend_reg": (ctypes.c_void_p, (ctypes.c_void_p,)),
        "ggml_backend_reg_name": (ctypes.c_char_p, (ctypes.c_void_p,)),
    }
    for name, (result, arguments) in call.items():
        function = getattr(ggml, name)
        function.restype, function.argtypes = result, arguments
    for index in range(ggml.ggml_backend_dev_count()):
        device = ggml.ggml_backend_dev_get(index)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        ggml.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        yield Device(
            type=ggml.ggml_backend_dev_type(device),
            api=_text(ggml.ggml_backend_reg_name(ggml.ggml_backend_dev_backend_reg(device))),
            name=_text(ggml.ggml_backend_dev_description(device)),
            memory_bytes=total.value,
        )


def accelerators(ggml: Any) -> tuple[Accelerator, ...]:
    """The GPUs among them."""
    return tuple(
        Accelerator(
            kind=_KINDS[device.type],
            api={"MTL": "Metal"}.get(device.api, device.api),
            name=device.name,
            memory_bytes=device.memory_bytes or None,
        )
        for device in devices(ggml)
        if device.type in _KINDS
    )


def _text(octets: bytes | None) -> str:
    return (octets or b"").decode(errors="replace").strip()
