"""Vectors stay in registers in the innermost loops of every kernel.

One spill in such a loop costs more than any other choice of its author, and no test of results
sees it. These tests read the objects of a build folder; an installed wheel has none.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import disassembly
import pytest
from disassembly import Function, Instruction, extension_objects

# The baseline for machines that have nothing else is written for brevity, not for speed.
OBJECTS = {isa: path for isa, path in extension_objects().items() if isa != "scalar"}
PRODUCT = re.compile(r"vpdpbusd|vpmaddubsw|vpmaddwd|vfn?madd\w+|[su]+dot|fml[as]|[su]mlal2?")
MATRIX = re.compile(r"(multiply_tile|multiply_group)<(\w+), \d+>")

# Loops that are known to keep a vector in memory, and how many writes.
KNOWN = {
    ("avxvnni", "multiply_group<Q5_1, 1>"): 2,  # of 158 instructions; no order of them has fewer
    # A table, masks and scales per 16 beside the codes; of some 150 instructions.
    **{
        (isa, f"multiply_group<{name}, 1>"): writes
        for isa in ("avx2", "avxvnni")
        for name, writes in (("IQ2_S", 1), ("IQ2_XS", 1), ("IQ1_M", 2))
    },
    # Twelve sums, three factors and a row that has to be widened: one of 16 registers too many.
    **{
        (isa, f"{kernel}<{row}{tile}>"): 1
        for isa in ("avx2", "avxvnni")
        for kernel, tile in (("add_rows", ", 4, 3"), ("score_rows", ", 3"))
        for row in ("BFloat16", "Half")
    },
}

pytestmark = pytest.mark.skipif(
    not OBJECTS or shutil.which("objdump") is None,
    reason="needs the objects of a build folder, and objdump",
)
every_object = pytest.mark.parametrize("isa", OBJECTS)


@cache
def functions(isa: str) -> list[Function]:
    return disassembly.read(OBJECTS[isa])


def hot_loops(function: Function) -> list[tuple[Instruction, ...]]:
    """The innermost loops that multiply."""
    return [
        loop
        for loop in function.innermost_loops()
        if any(PRODUCT.fullmatch(instruction.mnemonic) for instruction in loop)
    ]


@every_object
def test_every_kernel_has_its_loops(isa: str) -> None:
    """Else the other tests read nothing."""
    found = {f.name.partition("<")[0] for f in functions(isa) if hot_loops(f)}
    types = {m[2] for f in functions(isa) if (m := MATRIX.match(f.name)) and hot_loops(f)}

    assert {"multiply_tile", "multiply_group", "float_rows", "map_vectors"} <= found
    assert {"Q4_0", "Q4_K", "Q6_K", "Q8_0", "IQ4_XS", "MXFP4"} <= types


@every_object
def test_no_hot_loop_writes_a_vector_to_the_stack(isa: str) -> None:
    spills = {
        f"{f.name}, loop at {loop[0].address:x}": found
        for f in functions(isa)
        for loop in hot_loops(f)
        if len(found := [str(i) for i in f.spills(loop)]) > KNOWN.get((isa, f.name), 0)
    }

    assert spills == {}


@every_object
def test_many_tokens_stream_over_registers(isa: str) -> None:
    """Of what stays the same for all tokens, nothing is read from the stack again for each."""
    moves = {
        f.name: [str(i) for i in f.on_the_stack(loop)]
        for f in functions(isa)
        if f.name.startswith("multiply_tile<")
        for loop in hot_loops(f)
    }

    # AVX2 multiplies signed codes by their magnitudes, which are in memory beside the codes in
    # registers: 82 GMAC/s, against 70 if made again for every token.
    signed = {f"multiply_tile<{name}, 1>": 8 for name in ("Q8_0", "IQ4_NL", "IQ4_XS")}
    allowed = signed if isa == "avx2" else {}
    # Beside the codes, two tokens' sums and the activations not all minimums and scales stay; what
    # is read again takes a port that is free.
    wide = {f"multiply_tile<{name}, 2>": 2 for name in ("Q4_1", "Q4_K", "Q5_1", "Q5_K")}
    wide |= {"multiply_tile<Q2_K, 1>": 2, "multiply_tile<Q2_K, 2>": 4}
    wide |= {"multiply_tile<IQ2_S, 1>": 1, "multiply_tile<IQ2_XS, 1>": 1}
    assert {
        name: found for name, found in moves.items() if len(found) > (allowed | wide).get(name, 0)
    } == {}


def test_a_spill_is_found(tmp_path: Path) -> None:
    """Twenty sums, more than there are registers, each alive throughout the loop."""
    if shutil.which("g++") is None:
        pytest.skip("needs a compiler")
    source = tmp_path / "spill.cc"
    terms = "\n".join(f"    s[{i}] = _mm256_fmadd_ps(x, y[{i}], s[{i}]);" for i in range(20))
    loads = "\n".join(f"  s[{i}] = p[{i}];" for i in range(20))
    stores = "\n".join(f"  p[{i}] = s[{i}];" for i in range(20))
    source.write_text(
        "#include <immintrin.h>\n"
        "void kernel(__m256* p, const __m256* y, const __m256* z, int n) {\n"
        f"  __m256 s[20];\n{loads}\n"
        "  for (int i = 0; i < n; ++i) {\n    const __m256 x = z[i];\n"
        f"{terms}\n  }}\n{stores}\n}}\n"
    )
    subprocess.run(
        ["g++", "-O2", "-mavx2", "-mfma", "-c", "spill.cc", "-o", "spill.o"],
        cwd=tmp_path,
        check=True,
    )

    (kernel,) = disassembly.read(tmp_path / "spill.o")
    (loop,) = hot_loops(kernel)

    assert kernel.name == "kernel"
    assert len(kernel.spills(loop)) >= 4
