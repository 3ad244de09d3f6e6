"""What the compiler made of a kernel: functions, innermost loops and vectors on the stack.

Reads `objdump -d` of GNU binutils, for x86-64 (AT&T syntax) and 64-bit ARM.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# A vector that is read from or written to a fixed place of the stack frame. An array in the frame
# is no spill: it is reached through an index or another register.
STACK = {
    "x86": re.compile(r"(?<![\w$*])-?(?:0x[0-9a-f]+)?\((%rsp|%rbp)\)"),
    "arm": re.compile(r"\[(sp|x29)(?:, #-?\w+)?\]"),
}
VECTOR = {"x86": re.compile(r"%([xyz]mm\d+)"), "arm": re.compile(r"\b([qvd]\d+)\b")}
# Moves of one value, and stores of vectors narrowed to bytes: what they write is an array.
NO_SPILL = re.compile(r"v?mov(ss|sd|d|q)|vpmov[sdqw][bdw]")
BRANCH = {"x86": re.compile(r"j\w+"), "arm": re.compile(r"b|b\.\w+|cbn?z|tbn?z")}
FRAME = {"x86": ("mov", "%rsp,%rbp"), "arm": ("mov", "x29, sp")}


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line of the disassembly."""

    address: int
    mnemonic: str
    operands: str

    def __str__(self) -> str:
        return f"{self.address:x}: {self.mnemonic} {self.operands}"


@dataclass(frozen=True, slots=True)
class Function:
    """A symbol and its code."""

    name: str  # demangled, without its parameters
    machine: str  # x86 or arm
    instructions: tuple[Instruction, ...]

    def innermost_loops(self) -> list[tuple[Instruction, ...]]:
        """From the target of a backward branch to the branch, if no other loop lies within."""
        ends: dict[int, int] = {}
        for instruction in self.instructions:
            if BRANCH[self.machine].fullmatch(instruction.mnemonic):
                target = re.search(r"(?:^|[ ,])([0-9a-f]+) <", instruction.operands)
                to = int(target[1], 16) if target else -1
                if self.instructions[0].address <= to <= instruction.address:
                    ends[to] = instruction.address
        loops = sorted(ends.items())
        innermost = [
            (start, end)
            for start, end in loops
            if not any(start <= a and b <= end and (a, b) != (start, end) for a, b in loops)
        ]
        return [
            tuple(i for i in self.instructions if start <= i.address <= end)
            for start, end in innermost
        ]

    def on_the_stack(self, loop: Sequence[Instruction]) -> list[Instruction]:
        """The instructions of a loop that move a vector from or to a fixed place of the frame."""
        start = self.instructions[:40]
        frames = {"%rsp", "sp"}  # the other register is a frame's only if it is made one
        if any((i.mnemonic, i.operands) == FRAME[self.machine] for i in start):
            frames |= {"%rbp", "x29"}
        return [
            i
            for i in loop
            if not NO_SPILL.fullmatch(i.mnemonic)
            and (place := STACK[self.machine].search(i.operands))
            and place[1] in frames
            and VECTOR[self.machine].search(i.operands)
        ]

    def spills(self, loop: Sequence[Instruction]) -> list[Instruction]:
        """Those of them that write."""
        return [i for i in self.on_the_stack(loop) if self._writes_memory(i)]

    def _writes_memory(self, instruction: Instruction) -> bool:
        if self.machine == "arm":
            return instruction.mnemonic.startswith("st")
        return instruction.operands.endswith(")")  # the destination comes last


def read(path: Path, *, objdump: str = "objdump") -> list[Function]:
    """Every function of an object file."""
    text = subprocess.run(
        [objdump, "-dC", "--no-show-raw-insn", path], capture_output=True, text=True, check=True
    ).stdout
    machine = "arm" if "aarch64" in text.partition("Disassembly")[0] else "x86"
    functions = []
    for part in text.split("\n\n"):
        header = re.match(r"[0-9a-f]+ <(.*)>:\n", part)
        if not header:
            continue
        lines = re.findall(r"^ *([0-9a-f]+):\t(\S+)[ \t]*(.*)$", part, re.MULTILINE)
        functions.append(
            Function(
                short_name(header[1]),
                machine,
                tuple(Instruction(int(a, 16), m, o) for a, m, o in lines),
            )
        )
    return functions


def short_name(demangled: str) -> str:
    """`multiply_tile<Q4_0, 2>` of its long form."""
    name = re.sub(r"\(anonymous namespace\)::|\(.*$", "", demangled)
    return re.sub(r"^.*? (?=\S*<)|edgeinfer::(\w+::)?(?=\w)", "", name).strip()


def extension_objects(unit: str = "isa") -> dict[str, Path]:
    """The object of each instruction set's kernels, or "encoders", as the extension was built.

    Other builds are for sanitizers or other processors. An installed wheel has none.
    """
    builds = sorted({path.parent for path in ROOT.glob("build/**/_native*.so")})
    return {
        path.stem.removeprefix(f"{unit}_").removesuffix(".cc"): path
        for build in builds
        for path in sorted(build.glob(f"**/ei_isa_*.dir/**/{unit}_*.o"))
    }
