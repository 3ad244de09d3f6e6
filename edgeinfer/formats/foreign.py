"""What a file is that is not what it should be, judged by its first bytes."""

from __future__ import annotations

_LFS = "it is a Git LFS pointer, not the file: run `git lfs pull`, or download it again"
_PAGE = "it is a web page or a text: the download went wrong, fetch it again"
_ZIP = "it is a zip archive, such as a PyTorch checkpoint or a Python wheel"

_SIGNATURES = (
    (b"version https://", _LFS),
    (b"FUGG", "it is a GGUF file with its bytes swapped"),
    (b"PK\x03\x04", _ZIP),
    (b"<!DOCTYPE", _PAGE),
    (b"<!doctype", _PAGE),
    (b"<html", _PAGE),
    (b"<HTML", _PAGE),
    (b"<?xml", _PAGE),
    (b"lmgg", "it is a GGML file from before GGUF: convert the original model again"),
    (b"fmgg", "it is a GGML file from before GGUF: convert the original model again"),
    (b"tjgg", "it is a GGML file from before GGUF: convert the original model again"),
    (b"GGUF", "it is a GGUF file"),
    (b"\x1f\x8b", "it is compressed with gzip: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd: unpack it first"),
)


def recognise(start: bytes) -> str | None:
    """Returns a hint on a file that begins with ``start`` (16 bytes are enough), or None."""
    for signature, hint in _SIGNATURES:
        if start.startswith(signature):
            return hint
    if start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") < 1 << 32:
        return "it is a safetensors file: convert it with `edgeinfer convert`"
    return (
        "all of it is zero bytes at the start: the download is not finished"
        if (start and not any(start))
        else None
    )
