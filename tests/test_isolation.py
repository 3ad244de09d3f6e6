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
ENCODERS = extension_objects("encoders")

pytestmark = pytest.mark.skipif(
    not OBJECTS or shutil.which("nm") is None or shutil.which("objdump") is None,
    reason="needs the objects of a build folder, nm and objdump",
)
every_object = pytest.mark.parametrize("isa", OBJECTS)
every_table = pytest.mark.parametrize(
    ("isa", "table", "path"),
    [(isa, "kKernels", path) for isa, path in OBJECTS.items()]
    + [(isa, "kEncoders", path) for isa, path in ENCODERS.items()],
)


def tool(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_every_set_of_kernels_has_its_encoders() -> None:
    assert set(ENCODERS) == set(OBJECTS)


@every_table
def test_exports_its_table_and_nothing_else(isa: str, table: str, path: Path) -> None:
    symbols = tool("nm", "-C", "--defined-only", "--extern-only", path).splitlines()

    # Read-only tables of a quant type (V or u, the same bytes everywhere) may be merged; code
    # (T, W) may not.
    names = [line.split(maxsplit=2)[1:] for line in symbols]
    code = [name for kind, name in names if kind in "TWtw"]
    data = [name for kind, name in names if kind in "DRB"]

    assert code == []
    assert data == [f"edgeinfer::{isa}::{table}"]


@every_table
def test_calls_only_the_c_library(isa: str, table: str, path: Path) -> None:
    symbols = tool("nm", "-C", "--undefined-only", path).splitlines()

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
