"""What a compiled file is, as far as it says: the format and the processor of each object in it."""

from __future__ import annotations

import struct
import tarfile
from pathlib import Path

from edgeinfer.errors import CheckFailedError

_ELF, _MACHO, _WASM = b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\x00asm"
_ELF_MACHINES = {62: "x86_64", 183: "aarch64"}
_MACHO_MACHINES = {0x01000007: "x86_64", 0x0100000C: "aarch64"}
_HEADER_BYTES = 20
_ELF64 = struct.Struct("<40xQ10xHH2x")  # where the table of sections is, size and number of them
EXPECTED = {
    "x86_64": ("ELF", "x86_64"),
    "aarch64": ("ELF", "aarch64"),
    "android": ("ELF", "aarch64"),
    "adreno": ("ELF", "aarch64"),
    "macos": ("Mach-O", "aarch64"),
    "iphone": ("Mach-O", "aarch64"),
    "webgpu": ("WebAssembly", "wasm32"),
}


def described(path: Path) -> list[tuple[str, str]]:
    """Returns (format, processor) of a library, or of each object of an archive.

    Raises:
        CheckFailedError: something is of no known format.
    """
    if path.suffix != ".tar":
        with path.open("rb") as file:
            return [_described(path.name, file.read(_HEADER_BYTES))]
    found = []
    with tarfile.open(path) as archive:
        for member in archive:
            held = archive.extractfile(member)
            if held is not None:
                found.append(_described(member.name, held.read(_HEADER_BYTES)))
    return found


def whole(path: Path) -> bool:
    """Whether a library is as long as it says: the system would stop a process that uses less.

    Only ELF says so; of others, and of what is none, the loader has to judge.
    """
    with path.open("rb") as file:
        header = file.read(_ELF64.size)
    if len(header) < _ELF64.size or not header.startswith(_ELF):
        return not header.startswith(_ELF)
    sections, size, count = _ELF64.unpack(header)
    return bool(sections + size * count <= path.stat().st_size)  # the table is what ends it


def check(path: Path, target: str) -> str:
    """Checks that every object is for a target; returns what it found.

    Raises:
        CheckFailedError: one is not, or there is none.
    """
    found, expected = described(path), EXPECTED[target]
    if set(found) != {expected}:
        raise CheckFailedError(f"{path}: expected objects {expected}, found {found}")
    many = f"{len(found)} objects" if path.suffix == ".tar" else "a library"
    return f"{many}: {expected[0]}, {expected[1]}"


def _described(name: str, header: bytes) -> tuple[str, str]:
    if header.startswith(_ELF):
        return "ELF", _ELF_MACHINES.get(int.from_bytes(header[18:20], "little"), "unknown")
    if header.startswith(_MACHO):
        return "Mach-O", _MACHO_MACHINES.get(int.from_bytes(header[4:8], "little"), "unknown")
    if header.startswith(_WASM):
        return "WebAssembly", "wasm32"
    raise CheckFailedError(f"{name}: begins with {header[:4].hex()}, which is no object")
