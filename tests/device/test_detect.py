"""The machine that runs the tests, against what psutil and the system say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from edgeinfer.device import detect
from edgeinfer.device.isa import isas_from_flags


def test_this_machine_agrees_with_psutil():
    device = detect()

    assert device.memory_total == psutil.virtual_memory().total
    assert device.memory_budget <= device.memory_available <= device.memory_total
    assert device.logical_cores == psutil.cpu_count()
    assert 1 <= device.threads <= device.usable_cpus
    assert device.cpu


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is of Linux here")
def test_ulimit_lowers_the_budget():
    program = "from edgeinfer.device import detect; d = detect(); print(d.memory_budget)"
    limit = 900_000  # KiB

    done = subprocess.run(
        ["bash", "-c", f"ulimit -v {limit}; exec {sys.executable} -c '{program}'"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert 0 < int(done.stdout) < limit * 1024


@pytest.mark.parametrize(
    ("flags", "best"),
    [
        ("sse2", "scalar"),
        ("avx2 fma f16c", "avx2"),
        ("avx2 fma", "scalar"),
        ("avx2 fma f16c avx_vnni", "avxvnni"),
        ("avx2 fma f16c avx512f avx512bw avx512vl avx512dq avx512_vnni", "avx512"),
        ("asimd", "neon"),
        ("asimd asimddp i8mm", "neon_i8mm"),
        ("asimd i8mm", "neon"),
    ],
)
def test_flags_choose_the_kernels(flags, best):
    assert isas_from_flags(flags.split())[0] == best


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/cpuinfo")
def test_the_flags_say_what_the_extension_finds_by_itself():
    from edgeinfer import _native

    flags = next(
        line.split(":")[1].split()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith(("flags", "Features"))
    )

    assert set(isas_from_flags(flags)) == set(_native.isas())
