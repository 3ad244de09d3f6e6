"""``edgeinfer device``."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from edgeinfer import device as devices
from edgeinfer.backends.base import Support
from edgeinfer.device import Cache, DeviceProfile
from edgeinfer.device.accelerator import Accelerator
from edgeinfer.device.ceilings import Ceilings
from edgeinfer.device.thermal import ThermalState
from edgeinfer.device.thermal_linux import Clock

LAPTOP = DeviceProfile(
    name="A laptop",
    os="linux",
    machine="x86_64",
    cpu="A processor",
    isas=("avx2", "scalar"),
    logical_cores=16,
    physical_cores=12,
    performance_cores=4,
    usable_cpus=1.5,
    cpus=(0, 1),
    threads=1,
    caches=(
        Cache(level=1, kind="instruction", bytes=32 << 10, shared_by=2),
        Cache(level=2, kind="unified", bytes=1 << 20, shared_by=2),
    ),
    memory_total=16 << 30,
    memory_available=8 << 30,
    memory_limit=2 << 30,
    memory_budget=1 << 30,
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEINFER_HOME", str(tmp_path))


@pytest.fixture
def laptop(monkeypatch):
    """A machine of known numbers: heat, clocks, a GPU, and how fast it is."""
    gpu = Accelerator(kind="integrated gpu", api="Vulkan", name="Xe Graphics", memory_bytes=4 << 30)
    npu = Accelerator(kind="npu", api="OpenVINO", name="AI Boost")
    state = ThermalState(celsius=91.4, throttled=True, reasons=("cooled by Processor",))
    clock = Clock(cpus="0-11", now=1_500_000_000, limit=2_000_000_000, maximum=4_700_000_000)
    answers = {
        "native": Support(usable=True),
        "llamacpp": Support(usable=True, accelerators=(gpu,)),
        "onnxruntime": Support(
            usable=False, reason="no model is run by it yet", accelerators=(npu,)
        ),
    }
    measured = Ceilings(threads=1, stream_bytes_per_second=2.5e10, int8_macs_per_second=2e11)
    monkeypatch.setattr(devices, "detect", lambda: LAPTOP)
    monkeypatch.setattr("edgeinfer.device.thermal.read", lambda: state)
    monkeypatch.setattr("edgeinfer.device.thermal_linux.clocks", lambda: (clock,))
    monkeypatch.setattr("edgeinfer.backends.registry.accelerators", lambda device: answers)
    monkeypatch.setattr("edgeinfer.device.ceilings.measure", lambda *_: measured)


def rows(outcome) -> dict[str, str]:
    lines = (re.split(r"  +", line.strip(), maxsplit=1) for line in outcome.stdout.splitlines())
    return {name: text for name, text in lines}


def documented() -> set[str]:
    """The fields in the first column of the table of docs/device.md; `a.b` is b of a."""
    page = Path(__file__).parents[2] / "docs/device.md"
    return set(re.findall(r"^\| `([^`]+)`", page.read_text(), re.MULTILINE))


def fields(record, prefix="") -> set[str]:
    """The names in a record; those of a list's elements count as the list's."""
    found = set()
    for name, value in record.items():
        found.add(prefix + name)
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                found |= fields(part, f"{prefix}{name}.")
    return found


def test_json_has_the_fields_that_are_documented(edgeinfer, laptop):
    edgeinfer("device", "--measure")

    outcome = edgeinfer("device", "--json")

    assert outcome.exit_code == 0
    assert fields(json.loads(outcome.stdout)) == documented()


def test_json_of_this_machine(edgeinfer):
    record = json.loads(edgeinfer("device", "--json").stdout)

    assert {name for name in documented() if "." not in name} == set(record)
    assert record["memory_total"] == psutil.virtual_memory().total
    assert record["ceilings"] is None


def test_accelerators_heat_and_clocks_are_shown(edgeinfer, laptop):
    found = rows(edgeinfer("device"))

    assert found["integrated gpu"] == "Xe Graphics (Vulkan, 4.0 GiB), by llamacpp"
    assert found["npu"] == "AI Boost (OpenVINO), by onnxruntime (no model is run by it yet)"
    assert found["temperature"] == "91 °C"
    assert found["throttled"] == "cooled by Processor"
    assert found["clock of 0-11"] == "1.50 of 4.70 GHz"
    assert "was throttled" not in found


def test_where_there_is_no_accelerator_it_says_who_was_asked(edgeinfer, laptop, monkeypatch):
    answers = {"llamacpp": Support(usable=True, reason="processor only")}
    monkeypatch.setattr("edgeinfer.backends.registry.accelerators", lambda device: answers)

    assert rows(edgeinfer("device"))["accelerators"] == (
        "none that is usable (llamacpp: processor only)"
    )


def test_what_is_measured_is_shown_and_remembered(edgeinfer, laptop):
    assert "not measured yet" in rows(edgeinfer("device"))["speed"]

    measured = rows(edgeinfer("device", "--measure"))

    assert measured["1 thread"] == "25.0 GB/s read, 200e9 int8 multiply-adds/s"
    assert re.match(r"measured \d{4}-\d\d-\d\d", measured["speed"])
    assert rows(edgeinfer("device")) == measured


def test_people_read_what_matters(edgeinfer, monkeypatch):
    monkeypatch.setattr(devices, "detect", lambda: LAPTOP)

    found = rows(edgeinfer("device"))

    assert found["cores"] == "12 cores, 16 threads, 4 fast; 1.5 processors usable"
    assert found["default threads"] == "1"
    assert found["kernels"] == "avx2, scalar"
    assert found["caches"] == "L2 1.0 MiB"
    assert found["memory"] == "8.0 GiB available of 16.0 GiB"
    assert found["cgroup limit"] == "2.0 GiB"
    assert found["memory for models"] == "1.0 GiB"
    assert "address limit" not in found


def test_people_read_how_many_threads_read_prompts(edgeinfer, monkeypatch):
    monkeypatch.setattr(devices, "detect", lambda: replace(LAPTOP, threads=4, batch_threads=12))
    assert re.search(
        r"^default threads +4, 12 to read prompts$", edgeinfer("device").stdout, re.MULTILINE
    )


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help(edgeinfer, option):
    assert "kernels" in edgeinfer("device", option).stdout
