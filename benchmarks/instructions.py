"""Instructions per product in the inner loops of the matrix kernels, counted in the disassembly.

What no emulator can time can at least be counted: for every instruction set and quant type the
instructions of the loop over a step of 32 columns, divided by the products of integers in it: for
one token (decode), for eight at once, and for many (prefill).

    python benchmarks/instructions.py build/arm --objdump aarch64-linux-gnu-objdump
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import disassembly
import record
from disassembly import Function, Instruction

# Products of two bytes that an instruction makes.
PRODUCTS = {
    "sdot": 16,
    "usdot": 16,
    "smull": 8,
    "smull2": 8,
    "smlal": 8,
    "smlal2": 8,
    "vpmaddubsw %ymm": 32,
    "vpdpbusd %ymm": 32,
    "vpdpbusd %zmm": 64,
}
KERNEL = re.compile(r"(multiply_group|multiply_tile)<(\w+), (\d+)>")


def products(loop: tuple[Instruction, ...]) -> int:
    return sum(
        PRODUCTS.get(i.mnemonic, 0)
        or PRODUCTS.get(f"{i.mnemonic} {i.operands.rpartition(',')[2][:4]}", 0)
        for i in loop
    )


def per_product(function: Function) -> float:
    """Of the innermost loop with the most products: the others are for what is left over."""
    loop = max(function.innermost_loops(), key=products)
    return len(loop) / products(loop)


def count(path: Path, objdump: str) -> Iterator[dict[str, Any]]:
    kernels: dict[str, dict[tuple[str, int], float]] = {}
    for function in disassembly.read(path, objdump=objdump):
        match = KERNEL.match(function.name)
        if match and any(products(loop) for loop in function.innermost_loops()):
            key = (match[1], int(match[3]))
            kernels.setdefault(match[2].lower(), {})[key] = 100 * per_product(function)
    for name, found in sorted(kernels.items()):
        many = min(value for (kind, _), value in found.items() if kind == "multiply_tile")
        most = max(tokens for kind, tokens in found if kind == "multiply_group")
        yield {
            "isa": path.name.removeprefix("isa_").partition(".")[0],
            "type": name,
            "1 token": found["multiply_group", 1],
            "8 tokens": found["multiply_group", most] if most > 1 else many,
            "many": many,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path, help="a build folder")
    parser.add_argument("--objdump", default="objdump")
    parser.add_argument("--save", metavar="NAME", help="also write results/NAME.json")
    options = parser.parse_args()

    objects = sorted(options.build.glob("**/ei_isa_*.dir/**/isa_*.o"))
    rows = [row for path in objects for row in count(path, options.objdump)]
    print("Instructions for 100 products of two bytes, all else included:\n")
    formats = {"isa": "", "type": ""} | dict.fromkeys(("1 token", "8 tokens", "many"), ".1f")
    print(record.table(rows, formats))
    if options.save:
        print("\nSaved", record.save(options.save, record.context(), rows))


if __name__ == "__main__":
    main()
