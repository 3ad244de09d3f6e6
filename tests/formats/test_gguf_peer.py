"""The header parser against ggml's own: it must never read what ggml refuses."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from edgeinfer.errors import EdgeInferError
from edgeinfer.formats.gguf import parse_header
from support.malformed import iter_malformed
from support.tiny_gguf import write_tiny_gguf

pytestmark = pytest.mark.peer


class InitParams(ctypes.Structure):
    """``gguf_init_params``; without ``ctx`` only the header is read."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


@pytest.fixture(scope="module")
def ggml() -> Any:
    import llama_cpp

    path = min((Path(llama_cpp.__file__).parent / "lib").glob("*ggml-base*"))
    library = ctypes.CDLL(str(path))
    library.gguf_init_from_file.argtypes = [ctypes.c_char_p, InitParams]
    library.gguf_init_from_file.restype = ctypes.c_void_p
    library.gguf_free.argtypes = [ctypes.c_void_p]
    return library


def ggml_reads(ggml: Any, path: Path) -> bool:
    handle = ggml.gguf_init_from_file(str(path).encode(), InitParams(True, None))
    if handle:
        ggml.gguf_free(handle)
    return bool(handle)


def test_ggml_reads_every_malformed_file_that_we_read(ggml: Any, tmp_path: Path) -> None:
    valid, path = tmp_path / "valid.gguf", tmp_path / "case.gguf"
    write_tiny_gguf(valid)
    assert ggml_reads(ggml, valid)

    read, laxer = 0, []
    for label, octets in iter_malformed(valid.read_bytes()):
        try:
            parse_header(octets)
        except EdgeInferError:
            continue
        read += 1
        path.write_bytes(octets)
        if not ggml_reads(ggml, path):
            laxer.append(label)

    assert read > 1000
    assert laxer == []
