"""GPUs and NPUs as the libraries tell of them."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest

from edgeinfer.backends import ggml_devices, onnxruntime_devices, registry
from edgeinfer.backends.onnxruntime_devices import OnnxRuntime
from edgeinfer.device.accelerator import Accelerator
from edgeinfer.device.detect import detect

MIB = 1 << 20


class Ggml:
    """A libggml of some devices: (type, registry, description, bytes in all)."""

    def __init__(self, *devices: tuple[int, bytes, bytes | None, int]) -> None:
        def memory(device, free, total):
            total._obj.value = devices[device][3]

        self.ggml_backend_dev_count = lambda: len(devices)
        self.ggml_backend_dev_get = lambda index: index
        self.ggml_backend_dev_type = lambda device: devices[device][0]
        self.ggml_backend_dev_description = lambda device: devices[device][2]
        self.ggml_backend_dev_memory = memory
        self.ggml_backend_dev_backend_reg = lambda device: device
        self.ggml_backend_reg_name = lambda registry: devices[registry][1]


@pytest.mark.parametrize(
    ("device", "found"),
    [
        ((0, b"CPU", b"AMD EPYC", 0), None),
        ((3, b"BLAS", b"Accelerate", 0), None),  # helps the processor
        (
            (1, b"CUDA", b"NVIDIA GeForce RTX 3060", 12288 * MIB),
            Accelerator(
                kind="gpu", api="CUDA", name="NVIDIA GeForce RTX 3060", memory_bytes=12288 * MIB
            ),
        ),
        (
            (2, b"Vulkan", b"Intel(R) Iris(R) Xe Graphics ", 0),
            Accelerator(kind="integrated gpu", api="Vulkan", name="Intel(R) Iris(R) Xe Graphics"),
        ),
        (
            (1, b"MTL", b"Apple M1", 5461 * MIB),
            Accelerator(kind="gpu", api="Metal", name="Apple M1", memory_bytes=5461 * MIB),
        ),
        ((1, b"Vulkan", None, 0), Accelerator(kind="gpu", api="Vulkan", name="")),
    ],
)
def test_what_ggml_tells(device, found):
    processor = (0, b"CPU", b"a processor", 0)

    assert ggml_devices.accelerators(Ggml(processor, device)) == ((found,) if found else ())


@pytest.mark.peer
def test_the_real_ggml_tells_of_the_processor():
    from llama_cpp import _ggml

    found = list(ggml_devices.devices(_ggml.libggml))

    (processor,) = [device for device in found if device.type == 0]
    assert processor.api == "CPU"
    assert processor.name
    total = detect().memory_total
    assert processor.memory_bytes == pytest.approx(total, rel=0.01)


def entry(provider: str, kind: str, vendor: str = "", **metadata: str) -> SimpleNamespace:
    device = SimpleNamespace(type=f"OrtHardwareDeviceType.{kind}", vendor=vendor, metadata=metadata)
    return SimpleNamespace(ep_name=f"{provider}ExecutionProvider", device=device)


def runtime(*providers: str, entries=()) -> SimpleNamespace:
    return SimpleNamespace(
        get_available_providers=lambda: [f"{name}ExecutionProvider" for name in providers],
        get_ep_devices=lambda: list(entries),
    )


def test_onnx_runtime_tells_of_devices():
    library = runtime(
        "OpenVINO",
        "CPU",
        entries=[
            entry("CPU", "CPU", "AMD"),
            entry("OpenVINO", "NPU", "Intel", Description="Intel(R) AI Boost"),
            entry("OpenVINO", "GPU", "Intel"),
        ],
    )

    assert onnxruntime_devices.accelerators(library) == (
        Accelerator(kind="npu", api="OpenVINO", name="Intel(R) AI Boost"),
        Accelerator(kind="gpu", api="OpenVINO", name="Intel gpu"),
    )


@pytest.mark.parametrize(
    ("platform", "provider", "driver", "kind"),
    [
        ("linux", "CUDA", True, "gpu"),
        ("linux", "CUDA", False, None),  # built in, but there is no driver
        ("darwin", "CoreML", False, "npu"),
        ("linux", "CoreML", True, None),
        ("win32", "QNN", True, "npu"),
        ("win32", "Dml", True, "gpu"),
        ("linux", "Azure", True, None),  # elsewhere
        ("linux", "CPU", True, None),
    ],
)
def test_a_provider_that_is_built_in_needs_its_driver(
    monkeypatch, platform, provider, driver, kind
):
    def load(name):
        if not driver:
            raise OSError(name)
        return ctypes

    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(onnxruntime_devices.ctypes, "CDLL", load)

    found = onnxruntime_devices.accelerators(runtime(provider))

    assert [each.kind for each in found] == ([kind] if kind else [])


def test_a_device_is_told_once(monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(onnxruntime_devices.ctypes, "CDLL", lambda name: ctypes)

    library = runtime("CUDA", entries=[entry("CUDA", "GPU", Description="NVIDIA H100")])

    assert [each.name for each in onnxruntime_devices.accelerators(library)] == ["NVIDIA H100"]


def test_an_older_onnx_runtime_tells_of_providers_alone():
    library = SimpleNamespace(get_available_providers=lambda: ["CPUExecutionProvider"])

    assert onnxruntime_devices.accelerators(library) == ()


def test_without_onnx_runtime_it_says_so(monkeypatch):
    monkeypatch.setattr(onnxruntime_devices, "packages_distributions", dict)

    support = OnnxRuntime().probe(detect())

    assert not support.usable
    assert "not installed" in support.reason


def test_a_backend_of_another_package_tells_of_its_own(install):
    install(
        """
from edgeinfer.device.accelerator import Accelerator

class Good(FakeBackend):
    def probe(self, device):
        npu = Accelerator(kind="npu", api="Acme", name="Acme X1", memory_bytes=1 << 30)
        return Support(usable=True, accelerators=(npu,))
""",
        good="Good",
    )

    for _ in range(2):  # asked, and remembered
        found = registry.accelerators(detect())
        assert found["good"].accelerators == (
            Accelerator(kind="npu", api="Acme", name="Acme X1", memory_bytes=1 << 30),
        )
    assert "onnxruntime" in found
    assert not found["onnxruntime"].usable


def test_an_answer_from_before_there_were_accelerators_is_read(install, monkeypatch):
    install("class Good(FakeBackend):\n    pass\n", good="Good")
    support = {"usable": True, "reason": "", "rank": 1}
    old = {"support": support, "formats": [], "version": "1"}
    monkeypatch.setattr(registry.probing.Remembered, "get", lambda self, key: old)

    assert registry.accelerators(detect())["good"].accelerators == ()
