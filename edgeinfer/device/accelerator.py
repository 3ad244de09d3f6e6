"""Accelerator: a GPU or NPU that some backend can compute on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """A device as the library that drives it tells of it."""

    kind: str  # "gpu", "integrated gpu" (it shares the memory of the processor) or "npu"
    api: str  # "CUDA", "Metal", "Vulkan", "OpenVINO", "QNN", "CoreML", ...
    name: str  # the product, as far as it is told
    memory_bytes: int | None = None  # in all
