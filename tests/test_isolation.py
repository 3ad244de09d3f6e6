"""An instruction set's code must stay in its unit: one exported symbol, nothing to merge.

A weak symbol of a unit with wide instructions can replace the baseline's twin at link time, and
older machines die of an illegal instruction. These tests read the objects of a build folder; an
installed wheel has none.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from disassembly import extension_objects

OBJECTS = extension_objects()

pytestmark = pytest.mark.skipif(
    not OBJECTS or shutil.which("nm") is None or shutil.which("objdump") is None,
    reason="needs the objects of a build folder, nm and objdump",
)
every_object = pytest.mark.parametrize("isa", OBJECTS)


def tool(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@every_object
def test_exports_its_table_and_nothing_else(isa: str) -> None:
    symbols = tool("nm", "-C", "--defined-only", "--extern-only", OBJECTS[isa]).splitlines()

    # Read-only tables of a quant type (V or u, the same bytes everywhere) may be merged; code
    # (T, W) may not.
    names = [line.split(maxsplit=2)[1:] for line in symbols]
    code = [name for kind, name in names if kind in "TWtw"]
    data = [name for kind, name in names if kind in "DRB"]

    assert code == []
    assert data == [f"edgeinfer::{isa}::kKernels"]


@every_object
def test_calls_only_the_c_library(isa: str) -> None:
    symbols = tool("nm", "-C", "--undefined-only", OBJECTS[isa]).splitlines()

    needed = {line.split()[-1] for line in symbols}

    allowed = {"memcpy", "memset", "memmove", "sqrtf", "_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"}
    conversions = {"__extendhfsf2", "__truncsfhf2"}  # half to float, in libgcc
    assert needed - allowed - conversions == set()


def registers(isa: str) -> set[str]:
    code = tool("objdump", "-d", "--no-show-raw-insn", OBJECTS[isa])
    return set(re.findall(r"%([xyz]mm)\d", code))


@pytest.mark.skipif("avx2" not in OBJECTS, reason="x86-64 only")
def test_baseline_has_no_wide_registers() -> None:
    assert registers("scalar") == {"xmm"}
    assert "zmm" not in registers("avx2")
    assert "zmm" not in registers("avxvnni")
    assert "zmm" in registers("avx512")  # else the test reads nothing
