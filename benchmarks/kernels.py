"""Speed of the matrix kernels: decode in GB/s of weights, prefill in GMAC/s, for every ISA.

    python benchmarks/kernels.py [--isa avx512] [--type q4_0] [--json results.json]

Processor time of one thread, best of many, so that other processes disturb it little. The decode
matrix is larger than the caches; a stream of f32 weights, which does almost no arithmetic, is the
ceiling to compare with.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from edgeinfer import _native, quant

DECODE_ROWS, COLS = 16384, 4096
PREFILL_ROWS, PREFILL_TOKENS = 1024, 512
PREFILL_COLS = 4096


def measure(isa: str, name: str, seconds: float, threads: int) -> dict[str, object]:
    quant_type = quant.get(name)
    decode = _native.bench_matmul(isa, name, DECODE_ROWS, COLS, 1, seconds, threads)
    prefill = _native.bench_matmul(
        isa, name, PREFILL_ROWS, PREFILL_COLS, PREFILL_TOKENS, seconds, threads
    )
    return {
        "isa": isa,
        "type": name,
        "threads": threads,
        "decode_gigabytes_per_second": quant_type.packed_nbytes((DECODE_ROWS, COLS)) / decode / 1e9,
        "prefill_gmacs_per_second": PREFILL_ROWS * PREFILL_COLS * PREFILL_TOKENS / prefill / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--isa", action="append", choices=_native.isas())
    parser.add_argument("--type", action="append", choices=[t.name for t in quant.all_types()])
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the records here")
    options = parser.parse_args()

    records = []
    print(f"{_native.cpu_brand()}, {options.threads} thread(s)")
    print(f"{'isa':8} {'type':7} {'decode GB/s':>12} {'prefill GMAC/s':>15}")
    for isa in options.isa or _native.isas():
        for name in options.type or [t.name for t in quant.all_types()]:
            record = measure(isa, name, options.seconds, options.threads)
            records.append(record)
            print(
                f"{isa:8} {name:7} {record['decode_gigabytes_per_second']:12.1f} "
                f"{record['prefill_gmacs_per_second']:15.1f}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()
