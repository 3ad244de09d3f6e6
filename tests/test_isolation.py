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

ROOT = Path(__file__).parents[1]
# Of builds that made the extension: others are for sanitizers or other processors.
BUILDS = sorted({path.parent for path in ROOT.glob("build/**/_native*.so")})
OBJECTS = {
    path.stem.removeprefix("isa_").removesuffix(".cc"): path
    for build in BUILDS
    for path in sorted(build.glob("**/ei_isa_*.dir/**/isa_*.o"))
}

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


@pytest.mark.skipif("avx512" not in OBJECTS, reason="x86-64 only")
@pytest.mark.parametrize("name", ["Q4_0", "Q8_0", "Q4_K", "Q6_K"])
def test_hot_loop_keeps_its_registers(name: str) -> None:
    """No vector is spilled where many tokens stream over 32 rows."""
    code = tool("objdump", "-dC", "--no-show-raw-insn", OBJECTS["avx512"])
    functions = [text.partition(">:\n") for text in code.split("\n\n")]
    bodies = [body for head, _, body in functions if f"stream_tokens<edgeinfer::{name}, 2>" in head]

    assert bodies
    for body in bodies:
        assert "vpdpbusd" in body
        assert not re.findall(r"zmm\d+,-?[0-9a-fx]*\(%r[sb]p\)", body)
