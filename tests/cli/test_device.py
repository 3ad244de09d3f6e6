"""``edgeinfer device``."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import psutil
import pytest

from edgeinfer import device as devices
from edgeinfer.device import Cache, DeviceProfile

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


def test_json_has_every_field(edgeinfer):
    outcome = edgeinfer("device", "--json")

    record = json.loads(outcome.stdout)
    assert outcome.exit_code == 0
    assert set(record) == set(DeviceProfile.__dataclass_fields__)
    assert record["memory_total"] == psutil.virtual_memory().total


def test_people_read_what_matters(edgeinfer, monkeypatch):
    monkeypatch.setattr(devices, "detect", lambda: LAPTOP)

    lines = dict(line.split("  ", 1) for line in edgeinfer("device").stdout.splitlines())

    found = {name.strip(): text.strip() for name, text in lines.items()}
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
