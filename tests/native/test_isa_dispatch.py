"""Which instruction set runs, and how EDGEINFER_ISA forces one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from edgeinfer import _native


def run_forced(isa: str) -> subprocess.CompletedProcess[str]:
    code = "from edgeinfer import _native; print(_native.isa())"
    environment = {**os.environ, "EDGEINFER_ISA": isa}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


def test_the_best_one_runs_and_scalar_is_always_there() -> None:
    assert _native.isas()[-1] == "scalar"
    if not os.environ.get("EDGEINFER_ISA"):
        assert _native.isa() == _native.isas()[0]


@pytest.mark.parametrize("isa", _native.isas())
def test_environment_forces_one(isa: str) -> None:
    assert run_forced(isa).stdout.strip() == isa


def test_an_unknown_name_is_refused_with_the_usable_ones() -> None:
    result = run_forced("mmx")

    assert result.returncode != 0
    assert "mmx" in result.stderr
    assert all(isa in result.stderr for isa in _native.isas())


def test_an_empty_name_is_none() -> None:
    assert run_forced("").stdout.strip() == _native.isas()[0]


def test_unknown_isa_of_a_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="this machine runs"):
        _native.bench_matmul("mmx", "q4_0", 16, 32, 1, 0.001)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="compares with /proc/cpuinfo")
def test_features_are_those_the_operating_system_lists() -> None:
    names = {"avxvnni": "avx_vnni", "avx512vnni": "avx512_vnni", "avx512bf16": "avx512_bf16"}
    names |= {"amxint8": "amx_int8", "amxbf16": "amx_bf16"}
    arm = {"neon": "asimd", "fp16": "asimdhp", "dotprod": "asimddp"}
    is_arm = platform.machine() in ("aarch64", "arm64")
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    prefix = "Features" if is_arm else "flags"
    listed = set(next(line for line in lines if line.startswith(prefix)).split())

    arm_only = {*arm, "i8mm", "bf16", "sve", "sve2", "sme"}
    for name, present in _native.cpu_features().items():
        if (name in arm_only) == is_arm:
            assert present == ({**names, **arm}.get(name, name) in listed), name
        else:
            assert not present, name


def test_brand_is_a_line() -> None:
    assert _native.cpu_brand() == _native.cpu_brand().strip()
    assert "\n" not in _native.cpu_brand()
